//! Damage by chance to the segments of a real WAL: bits flipped, stretches overwritten, ends torn off, files gone.
//! Whatever is damaged: the engine opens, every record that is whole is served, what is missing was reported.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::chance::seeds;
use super::faults::copy_folder;
use super::*;
use crate::wal::{record, segment};

/// Where a record lies, before anything was damaged.
#[derive(Clone, Debug)]
struct Place {
    path: PathBuf,
    from: usize,
    to: usize,
    /// Its place in what was sent.
    sent: usize,
    /// The label sets that it defines for its segment.
    labels: Vec<Labels>,
}

/// The records of the logs' WAL in `data`, in order.
fn places(data: &Path, flushed: usize) -> Vec<Place> {
    let mut found = Vec::new();
    for (_, path) in segment::list(&data.join("wal/logs")).expect("lists") {
        let bytes = std::fs::read(&path).expect("reads");
        let mut at = segment::HEADER_BYTES;
        while let Some(frame) = record::frame_at(&bytes, at) {
            let labels = record::decode(frame.payload).expect("decodes").identities;
            let labels = labels.into_iter().map(|identity| identity.labels).collect();
            found.push(Place {
                path: path.clone(),
                from: frame.from,
                to: frame.to,
                sent: flushed + found.len(),
                labels,
            });
            at = frame.to;
        }
        assert_eq!(at, bytes.len(), "a clean stop leaves whole records only");
    }
    found
}

/// Entries of two streams out of five: a record needs label sets that another one may have defined.
fn entries(second: i64, random: &mut StdRng) -> Batch {
    let mut builder = LogsBuilder::new();
    for app in [random.random_range(0..5), random.random_range(0..5)] {
        let stream = builder.stream(Labels::from_pairs([("app", &format!("a{app}"))]));
        let line = format!("{second} {app} {}", "y".repeat(random.random_range(0..60)));
        builder.entry(stream, TimestampNs(START_NS + second * NS_PER_S), &line, std::iter::empty()).expect("fits");
    }
    builder.finish().expect("builds")
}

/// Damages a file at random; the stretch of bytes that is not as before.
fn damage(path: &Path, random: &mut StdRng) -> std::ops::Range<usize> {
    let mut bytes = std::fs::read(path).expect("reads");
    let at = random.random_range(0..bytes.len());
    let until = match random.random_range(0..4) {
        0 => {
            bytes[at] ^= 1 << random.random_range(0..8);
            at + 1
        }
        1 => {
            let to = (at + random.random_range(1..200)).min(bytes.len());
            bytes[at..to].fill(0);
            to
        }
        2 => {
            let to = (at + random.random_range(1..200)).min(bytes.len());
            random.fill(&mut bytes[at..to]);
            to
        }
        _ => {
            let all = bytes.len();
            bytes.truncate(at);
            all
        }
    };
    std::fs::write(path, &bytes).expect("writes");
    at..until
}

/// The lines that an engine serves.
async fn lines(engine: &Engine, tenant: &Tenant) -> BTreeSet<String> {
    let found = rows(engine, &ScanRequest::all(Table::Logs, TimeRange::ALL), &context(tenant)).await;
    let column = found.column_by_name("line").expect("is there");
    let column = arrow::array::AsArray::as_string::<i32>(column);
    let lines: BTreeSet<String> = column.iter().flatten().map(str::to_owned).collect();
    assert_eq!(lines.len(), found.num_rows(), "each row once");
    lines
}

fn lines_of(batch: &Batch) -> Vec<(Labels, String)> {
    let rows = &batch.facts[0].1;
    let ids = rows.column_by_name("stream_id").expect("is there");
    let ids = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(ids);
    let lines = arrow::array::AsArray::as_string::<i32>(rows.column_by_name("line").expect("is there"));
    let labels = |id: i64| batch.identities.iter().find(|identity| identity.id.to_column() == id).expect("is there");
    (0..rows.num_rows()).map(|row| (labels(ids.value(row)).labels.clone(), lines.value(row).to_owned())).collect()
}

async fn round(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut bed = Bed::new().await;
    let small = EngineConfig { wal_segment_bytes: random.random_range(1..2000), ..config(bed.data.path()) };
    bed.engine.close().await.expect("closes");
    bed.engine = open(small, &bed.store, &bed.clock).await;
    let flushed = random.random_range(0..3);
    for second in 0..flushed {
        bed.send([entries(second, &mut random)]).await;
    }
    bed.engine.flush(None).await.expect("flushes");
    for second in flushed..flushed + random.random_range(5..25) {
        bed.send([entries(second, &mut random)]).await;
    }
    let flushed = usize::try_from(flushed).expect("fits");
    bed.forget_memory().await;
    let places = places(bed.data.path(), flushed);
    assert_eq!(flushed + places.len(), bed.sent.len(), "seed {seed}");
    let folder = tempfile::tempdir().expect("creates");
    copy_folder(bed.data.path(), folder.path());
    let inside = |path: &Path| folder.path().join("wal/logs").join(path.file_name().expect("is named"));

    // One file is damaged once or twice, at times a second one too.
    let mut whole = vec![true; places.len()];
    for _ in 0..random.random_range(1..4) {
        let path = places[random.random_range(0..places.len())].path.clone();
        let hit = damage(&inside(&path), &mut random);
        for (place, whole) in places.iter().zip(&mut whole) {
            *whole &= place.path != path || place.to <= hit.start || hit.end <= place.from;
        }
    }

    let engine = open(config(folder.path()), &bed.store, &bed.clock).await;
    let found = lines(&engine, &bed.tenant).await;
    let sent: BTreeSet<String> = bed.sent.iter().flat_map(lines_of).map(|(_, line)| line).collect();
    assert!(found.is_subset(&sent), "seed {seed}: rows that nobody sent");
    let stored = bed.sent[..flushed].iter().flat_map(lines_of).map(|(labels, _)| labels);
    let defined = places.iter().zip(&whole).filter(|(_, whole)| **whole).flat_map(|(place, _)| place.labels.clone());
    let known: BTreeSet<Labels> = stored.chain(defined).collect();
    for (place, _) in places.iter().zip(&whole).filter(|(_, whole)| **whole) {
        for (labels, line) in lines_of(&bed.sent[place.sent]) {
            assert!(!known.contains(&labels) || found.contains(&line), "seed {seed}: a whole record was lost: {line}");
        }
    }
    // A torn tail is everything behind the last whole record; only that goes without being counted as damage.
    let last_whole = whole.iter().rposition(|whole| *whole).map_or(0, |at| at + 1);
    let last_path = segment::list(&bed.data.path().join("wal/logs")).expect("lists").pop().expect("has one").1;
    let torn = |at: usize| at >= last_whole && places[at].path == last_path;
    let lost = (0..places.len())
        .any(|at| !torn(at) && lines_of(&bed.sent[places[at].sent]).iter().any(|(_, line)| !found.contains(line)));
    let damages = engine.stats().signals[1].wal_damages_total;
    assert!(!lost || damages > 0, "seed {seed}: rows are lost and nothing was reported");
    for batch in &bed.sent[..flushed] {
        assert!(lines_of(batch).iter().all(|(_, line)| found.contains(line)), "seed {seed}: flushed rows are lost");
    }

    // What is served now stays, through another crash and into the tables.
    let added = entries(1000, &mut random);
    engine.append(&bed.tenant, added.clone()).await.expect("appends");
    let mut all = found;
    all.extend(lines_of(&added).into_iter().map(|(_, line)| line));
    drop(engine);
    free(folder.path()).await;
    let engine = open(config(folder.path()), &bed.store, &bed.clock).await;
    let found = lines(&engine, &bed.tenant).await;
    // The added record may name a label set that rows of the WAL had lost.
    assert!(all.is_subset(&found), "seed {seed}: after another crash");
    engine.flush(None).await.expect("flushes");
    assert_eq!(lines(&engine, &bed.tenant).await, found, "seed {seed}: after a flush");
}

#[tokio::test]
async fn damage_by_chance_loses_no_whole_record_and_is_reported() {
    for seed in seeds(10) {
        round(seed).await;
    }
}

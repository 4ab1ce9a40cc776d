//! Sidecars change speed, never an answer: random entries, random tests, any sidecars lost or damaged.

use arrow::array::BooleanArray;
use arrow::compute::{concat_batches, filter_record_batch};
use object_store::memory::InMemory;
use proptest::prelude::*;

use super::super::distinct::add_blocks;
use super::super::memory::MemoryScan;
use super::super::merge::{merge, sort_rows, split_by_day};
use super::super::{Conjunct, Distinct, DistinctRequest, Scan, Wanted};
use super::*;
use crate::budget::Share;
use crate::clock::ManualClock;
use crate::model::batch::{Batch, LogsBuilder};
use crate::model::columns::EntryColumns;
use crate::model::identity::{Identity, IdentityId};
use crate::model::labels::Labels;
use crate::model::tenant::Tenant;
use crate::model::time::{NS_PER_DAY, TimeRange, TimestampMs, TimestampNs};
use crate::paths::sidecar_objects;
use crate::store::Store;
use crate::table::{Caches, Mark};

/// Numbers that look random and are the same in every run.
struct Noise(u64);

impl Noise {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % limit.max(1) as u64).expect("small")
    }
}

const WORDS: [&str; 6] = ["deadline", "exceeded", "GET", "ünïcode", "peer-7", "connection_reset"];
const LEVELS: [&str; 3] = ["info", "error", "fatal"];

/// Entries of a few streams; what is rare is in one of three thousand.
fn batch(rows: usize, noise: &mut Noise) -> Batch {
    let mut builder = LogsBuilder::new();
    for n in 0..rows {
        let stream = builder.stream(Labels::from_pairs([("g", noise.below(5).to_string())]));
        let mut line =
            format!("{} took={}ms id={:08x}", WORDS[noise.below(3)], noise.below(1000), noise.below(1 << 30));
        let rare = noise.below(3000) == 0;
        if rare {
            line.push_str(WORDS[3 + noise.below(3)]);
        }
        let level = if rare { LEVELS[2] } else { LEVELS[noise.below(2)] };
        let trace = format!("{:032x}", noise.below(50) + 1);
        let mut metadata = vec![("detected_level", level), ("pod", WORDS[noise.below(2)])];
        if rare {
            metadata.push(("trace_id", trace.as_str()));
        }
        let ts = i64::try_from(n).expect("small") * (NS_PER_DAY / 3000);
        builder.entry(stream, TimestampNs(ts), &line, metadata.into_iter()).expect("fits");
    }
    builder.finish().expect("builds")
}

/// One test; all kinds come.
fn conjunct(noise: &mut Noise, depth: usize) -> Conjunct {
    let word = |noise: &mut Noise| {
        let word = ["deadline", "adlin", "exceeded took=", "onnection_rese", "ïcod", "never there", "id=00", "="];
        word[noise.below(word.len())].to_owned()
    };
    match noise.below(if depth > 0 { 7 } else { 5 }) {
        0 => Conjunct::TextIn { column: "severity", texts: [LEVELS[noise.below(3)].into(), "none".into()].into() },
        1 => {
            let id = [vec![0; 15], vec![u8::try_from(noise.below(60)).expect("small")]].concat();
            Conjunct::BytesIn { column: "trace_id", values: [id.into_boxed_slice()].into() }
        }
        2 => Conjunct::EntryIn { column: "metadata", key: "pod".into(), values: [word(noise).into()].into() },
        3 => Conjunct::HasKey { column: "metadata", key: ["pod", "none"][noise.below(2)].into() },
        4 => Conjunct::Contains { column: "line", text: word(noise).into() },
        _ => {
            let group = |noise: &mut Noise| (0..noise.below(3)).map(|_| conjunct(noise, depth - 1)).collect();
            Conjunct::AnyOf((0..noise.below(3)).map(|_| group(noise)).collect())
        }
    }
}

fn passes(test: &Conjunct, columns: &EntryColumns<'_>, row: usize) -> bool {
    let metadata = |key: &str| columns.metadata.get(row, key);
    match test {
        Conjunct::Contains { text, .. } => columns.line.value(row).contains(text.as_ref()),
        Conjunct::TextIn { texts, .. } => {
            columns.severity.is_valid(row) && texts.iter().any(|text| text.as_ref() == columns.severity.value(row))
        }
        Conjunct::BytesIn { values, .. } => {
            columns.trace_id.is_valid(row) && values.iter().any(|value| value.as_ref() == columns.trace_id.value(row))
        }
        Conjunct::EntryIn { key, values, .. } => {
            metadata(key).is_some_and(|found| values.iter().any(|value| value.as_ref() == found))
        }
        Conjunct::HasKey { key, .. } => metadata(key).is_some(),
        Conjunct::LongBetween { .. } | Conjunct::EntryInOrList { .. } => true,
        Conjunct::AnyOf(groups) => groups.iter().any(|group| group.iter().all(|test| passes(test, columns, row))),
    }
}

/// The rows that pass, as whoever asks keeps them.
fn tested(rows: &[RecordBatch], tests: &[Conjunct]) -> RecordBatch {
    let rows = concat_batches(&(Table::Logs.spec().schema)(), rows).expect("joins");
    let columns = EntryColumns::new(&rows).expect("views");
    let kept = (0..rows.num_rows()).map(|row| Some(tests.iter().all(|test| passes(test, &columns, row))));
    filter_record_batch(&rows, &kept.collect::<BooleanArray>()).expect("filters")
}

fn context() -> Context {
    Context::new(Tenant::single(), Share::root("test", 1 << 30))
}

fn open_tables(store: &Arc<Store>, clock: ManualClock) -> Arc<TenantTables> {
    let clock = Arc::new(clock);
    TenantTables::open(Arc::clone(store), Tenant::single(), Caches::new(16 << 20), clock)
}

async fn written(batches: &[Batch], ids: &[IdentityId]) -> Arc<Store> {
    let store = Arc::new(Store::over(Arc::new(InMemory::new()), "memory://"));
    let clock = ManualClock::at(TimestampNs(0));
    let tables = open_tables(&store, clock.clone());
    let ranks = ranks(ids);
    for (batch, sequence) in batches.iter().zip(1_u64..) {
        // The order of blocks is that of their times.
        clock.set(TimestampMs(i64::try_from(sequence).expect("small")).to_ns());
        let rank = |id: i64| ranks.get(&id).copied().map_or(u64::MAX, u64::from);
        let rows = sort_rows(Table::Logs, batch.table(Table::Logs).expect("rows"), &rank).expect("sorts");
        let mut blocks = Vec::new();
        for (day, rows) in split_by_day(Table::Logs, &rows).expect("splits") {
            blocks.push(tables.write_block(Table::Logs, day, vec![rows]).await.expect("writes"));
        }
        tables.commit(Table::Logs, blocks, Mark { writer: "w", sequence }).await.expect("commits");
    }
    store
}

/// Loses, cuts or flips each sidecar, or leaves it.
async fn damage(store: &Arc<Store>, noise: &mut Noise) {
    let snapshot = open_tables(store, ManualClock::at(TimestampNs(0))).snapshot(Table::Logs).await.expect("loads");
    for block in &snapshot.blocks {
        for object in sidecar_objects(&Tenant::single(), Table::Logs, &block.path) {
            let mut bytes = store.get(&object).await.expect("reads").expect("is there").to_vec();
            match noise.below(5) {
                0 => store.delete(&object).await.expect("deletes"),
                1 => bytes.truncate(noise.below(bytes.len())),
                2 => {
                    let at = noise.below(bytes.len());
                    bytes[at] ^= 1 << noise.below(8);
                }
                3 => bytes.clear(),
                _ => continue,
            }
            if store.get(&object).await.expect("reads").is_some() {
                store.put(&object, bytes.into()).await.expect("writes");
            }
        }
    }
}

async fn check(seed: u64, requests: usize) -> u64 {
    let mut noise = Noise(seed);
    let batches: Vec<Batch> = (0..2).map(|_| batch(1_000 + noise.below(5_000), &mut noise)).collect();
    let mut identities: Vec<&Identity> = batches.iter().flat_map(|batch| &batch.identities).collect();
    identities.sort_by(|a, b| a.labels.cmp(&b.labels));
    identities.dedup();
    let ids = Arc::new(identities.iter().map(|identity| identity.id).collect::<Vec<_>>());
    let store = written(&batches, &ids).await;
    let memory = MemoryScan::new(batches.clone());
    let mut ruled_out = 0;
    for damaged in [false, true] {
        if damaged {
            damage(&store, &mut noise).await;
        }
        let tables = open_tables(&store, ManualClock::at(TimestampNs(0)));
        let snapshot = tables.snapshot(Table::Logs).await.expect("loads");
        for (column, wanted) in
            [("metadata", Wanted::Keys), ("metadata", Wanted::ValuesOf("pod".into())), ("severity", Wanted::Values)]
        {
            let request = DistinctRequest { table: Table::Logs, range: TimeRange::ALL, column, wanted };
            let mut found = Distinct::none();
            add_blocks(&mut found, &tables, &request, &context()).await.expect("reads");
            let expected = memory.distinct(request, &context()).await.expect("reads");
            assert!(!found.texts.is_empty());
            assert_eq!(found, expected, "seed {seed}, damaged {damaged}: {column}");
        }
        for _ in 0..requests {
            let tests: Vec<Conjunct> = (0..1 + noise.below(2)).map(|_| conjunct(&mut noise, 2)).collect();
            let request = ScanRequest {
                identities: Some(Arc::clone(&ids)),
                narrow: tests.clone(),
                ..ScanRequest::all(Table::Logs, TimeRange::new(0, NS_PER_DAY / 2 * (1 + noise.below(4) as i64)))
            };
            let context = context();
            let streams = block_streams(&tables, &snapshot, &request, &context).await.expect("plans");
            let found: Vec<RecordBatch> = merge(&request, streams, &context).try_collect().await.expect("reads");
            let expected = memory.scan(request, &context).await.expect("plans");
            let expected: Vec<RecordBatch> = expected.try_collect().await.expect("reads");
            let (found, expected) = (tested(&found, &tests), tested(&expected, &tests));
            let what = format!("seed {seed}, damaged {damaged}: {tests:?}");
            assert_eq!(found.num_rows(), expected.num_rows(), "{what}");
            assert!(found == expected, "other rows: {what}");
            ruled_out += context.stats.rows_ruled_out.load(std::sync::atomic::Ordering::Relaxed);
        }
    }
    ruled_out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, ..ProptestConfig::default() })]
    #[test]
    fn lost_and_damaged_sidecars_change_no_answer(seed in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("starts");
        runtime.block_on(check(seed, 4));
    }
}

#[tokio::test]
async fn sidecars_spare_reading() {
    assert!(check(1, 6).await > 10_000);
}

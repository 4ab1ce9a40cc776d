//! Damage of every kind is found, and a sound store is not accused.

use std::path::PathBuf;

use arrow::compute::concat_batches;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path as Object;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use super::rows::Rows;
use super::*;
use crate::clock::ManualClock;
use crate::engine::{Engine, EngineConfig};
use crate::model::batch::{Batch, LogsBuilder};
use crate::model::labels::Labels;
use crate::model::time::{Day, NS_PER_DAY, TimestampNs};
use crate::scan::merge::sort_rows;
use crate::table::Mark;
use crate::wal::segment::LocalDisk;
use crate::wal::tests::{logs, metrics, traces};

#[test]
fn the_place_of_a_file_is_one_that_its_entry_can_give() {
    let stands = |first: u64, last: u64, level: &str| {
        let texts = serde_json::json!({"tercet.order": first.to_string(), "tercet.orderLast": last.to_string(), "tercet.level": level});
        crate::table::Order::stands(&texts, 2)
    };
    let place = |version: u64| version << 20;
    assert_eq!(stands(place(2) + 1, place(2) + 1, "0"), Some(true), "flushed by this entry");
    assert_eq!(stands(place(1), place(1) + 3, "1"), Some(true), "rewritten from earlier ones");
    // Found by chance: one flipped bit of a log entry hid the first place.
    assert_eq!(stands(0, place(2), "0"), Some(false));
    assert_eq!(stands(place(2), place(2), "1"), Some(false));
    assert_eq!(stands(place(3), place(3), "0"), Some(false));
    assert_eq!(stands(place(2), place(2), "x"), Some(false));
    assert_eq!(crate::table::Order::stands(&serde_json::json!({"of": "others"}), 2), None);
}

/// Damaged copies that are tried; more by the variable of this name.
fn rounds() -> u32 {
    std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

/// Chance that can be repeated: `SEED` as an earlier run printed it.
fn random() -> StdRng {
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("SEED={seed}");
    StdRng::seed_from_u64(seed)
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::at(TimestampNs(NS_PER_DAY / 2)))
}

/// A store with every table, and the data folder of the process that wrote it, which has unflushed rows.
async fn written() -> (Arc<Store>, TempDir) {
    let store = Arc::new(Store::over(Arc::new(InMemory::new()), "memory://"));
    let data = tempfile::tempdir().expect("creates");
    let config = EngineConfig::new(data.path(), "memory://");
    let engine = Engine::open_with(config, Arc::clone(&store), Arc::new(LocalDisk), clock()).await.expect("opens");
    for n in [7, 12] {
        for batch in [metrics(n), logs(n), traces(n)] {
            engine.append(&Tenant::single(), batch).await.expect("appends");
        }
        engine.flush(None).await.expect("flushes");
    }
    for batch in [metrics(3), logs(3), traces(3)] {
        engine.append(&Tenant::single(), batch).await.expect("appends");
    }
    (store, data)
}

async fn check(store: &Arc<Store>, data: Option<&std::path::Path>) -> Report {
    verify(store, &clock(), data, &|_, _| {}).await.expect("the store answers")
}

async fn objects(store: &Store, ending: &str) -> Vec<Object> {
    let all: Vec<_> = store.objects().list(None).try_collect().await.expect("lists");
    let paths = all.into_iter().map(|meta| meta.location);
    paths.filter(|path| path.as_ref().ends_with(ending)).collect()
}

async fn bytes(store: &Store, object: &Object) -> Bytes {
    store.get(object).await.expect("reads").expect("is there")
}

/// The one damage that `report` must hold: in `object`, said with `part`.
fn finds(report: &Report, object: &str, part: &str) {
    let damages: Vec<&Finding> = report.findings.iter().filter(|f| f.severity == Severity::Damage).collect();
    assert!(!damages.is_empty(), "nothing was found, expected {part:?} in {object}");
    for finding in &damages {
        assert!(finding.object.contains(object) && finding.wrong.contains(part), "{object}, {part:?}: {damages:?}");
    }
}

#[tokio::test]
async fn a_sound_store_is_not_accused() {
    let (store, data) = written().await;
    let report = check(&store, Some(data.path())).await;
    assert_eq!(report.findings, []);
    // Nine tables; identities and metadata of the second flush only where they are new: series, streams (both known:
    // none), resources (none), metadata, and twice each of the five tables of facts.
    assert_eq!((report.tables, report.wal_records), (9, 3));
    // Series 7 + 5 new ones, metadata likewise; 7 + 12 samples less 7 repeats that lie in two blocks each: all rows.
    let expected = [12, 19, 19, 19, 12, 2, 19, 2, 19].iter().sum::<u64>();
    assert_eq!(report.rows, expected);
    assert_eq!(
        report.sidecars,
        2 * 7,
        "a directory beside each block of samples, histograms, exemplars, logs; token filters; dictionaries of logs and spans"
    );
}

#[tokio::test]
async fn a_compacted_store_is_sound_and_holds_each_row_once() {
    let (store, data) = written().await;
    let config = EngineConfig::new(data.path(), "memory://");
    let engine = Engine::open_with(config, Arc::clone(&store), Arc::new(LocalDisk), clock()).await.expect("opens");
    engine.compact(None).await.expect("compacts");
    let report = check(&store, Some(data.path())).await;
    // What compaction replaced lies there until it is collected: a notice.
    assert_eq!(report.damages, 0, "{report:?}");
    // The second flush repeated all rows of the first: 12 in each table, but for two streams and two resources.
    assert_eq!(report.rows, 7 * 12 + 2 * 2);
}

#[tokio::test]
async fn any_flipped_bit_of_a_block_or_a_sidecar_is_found() {
    let mut random = random();
    let (store, _data) = written().await;
    let mut victims = Vec::new();
    for kind in [".parquet", ".dir", ".tok", ".dic"] {
        victims.extend(objects(&store, kind).await);
    }
    for _ in 0..rounds() {
        let object = &victims[random.random_range(0..victims.len())];
        let whole = bytes(&store, object).await;
        let mut damaged = whole.to_vec();
        let (at, bit) = (random.random_range(0..whole.len()), random.random_range(0..8));
        damaged[at] ^= 1 << bit;
        store.put(object, damaged.into()).await.expect("writes");
        let report = check(&store, None).await;
        let named = report.findings.iter().any(|f| f.severity == Severity::Damage && f.object == object.as_ref());
        assert!(named, "byte {at}, bit {bit} of {object}: {:?}", report.findings);
        store.put(object, whole).await.expect("writes");
    }
    assert_eq!(check(&store, None).await.findings, []);
}

#[tokio::test]
async fn a_flipped_bit_of_a_log_entry_is_found_or_changes_no_block() {
    let mut random = random();
    let (store, _data) = written().await;
    let blocks = async || {
        let mut all = Vec::new();
        for table in Table::ALL {
            let tables = TenantTables::open(Arc::clone(&store), Tenant::single(), Caches::new(0), clock());
            let snapshot = tables.refresh(table).await.expect("reads");
            // When it was written is for people to read.
            all.extend(snapshot.blocks.iter().map(|block| Block { written_ms: 0, ..block.as_ref().clone() }));
        }
        all.sort_by(|a, b| a.path.cmp(&b.path));
        all
    };
    let sound = blocks().await;
    let victims = objects(&store, ".json").await;
    for _ in 0..rounds() {
        let object = &victims[random.random_range(0..victims.len())];
        let whole = bytes(&store, object).await;
        let mut damaged = whole.to_vec();
        let (at, bit) = (random.random_range(0..whole.len()), random.random_range(0..8));
        damaged[at] ^= 1 << bit;
        store.put(object, damaged.into()).await.expect("writes");
        if check(&store, None).await.findings.is_empty() {
            assert_eq!(blocks().await, sound, "byte {at}, bit {bit} of {object}");
        }
        store.put(object, whole).await.expect("writes");
    }
}

#[tokio::test]
async fn any_flipped_bit_of_the_wal_is_found() {
    let (store, data) = written().await;
    for signal in Signal::ALL {
        let folder = data.path().join("wal").join(signal.name());
        let mut segments = crate::wal::segment::list(&folder).expect("lists");
        let (_, path): (u64, PathBuf) = segments.pop().expect("one has the last record");
        let whole = std::fs::read(&path).expect("reads");
        for at in (0..whole.len()).step_by(whole.len().div_ceil(60)) {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            std::fs::write(&path, &damaged).expect("writes");
            let mut report = Report::default();
            wal::check(&folder, signal, &mut report).expect("reads");
            assert!(!report.findings.is_empty(), "byte {at} of {}", path.display());
            assert_eq!(std::fs::read(&path).expect("reads"), damaged, "a check changes nothing");
        }
        std::fs::write(&path, &whole).expect("writes");
    }
    assert_eq!(check(&store, Some(data.path())).await.findings, []);
}

#[tokio::test]
async fn what_is_missing_or_cut_is_named() {
    let (store, _data) = written().await;
    let samples = objects(&store, ".parquet").await.into_iter().find(|path| path.as_ref().contains("/samples/"));
    let samples = samples.expect("has a block");
    let whole = bytes(&store, &samples).await;
    store.delete(&samples).await.expect("deletes");
    finds(&check(&store, None).await, samples.as_ref(), "it is not there");
    store.put(&samples, whole.slice(..whole.len() - 1)).await.expect("writes");
    finds(&check(&store, None).await, samples.as_ref(), "bytes, the log says");
    store.put(&samples, whole).await.expect("writes");

    let directory = objects(&store, ".dir").await.swap_remove(0);
    let whole = bytes(&store, &directory).await;
    let other = objects(&store, ".dir").await.swap_remove(3);
    store.put(&directory, bytes(&store, &other).await).await.expect("writes");
    finds(&check(&store, None).await, directory.as_ref(), "is not what its block's rows give");
    store.delete(&directory).await.expect("deletes");
    let report = check(&store, None).await;
    assert_eq!((report.damages, report.findings.len()), (0, 1), "a lost sidecar only costs time: {report:?}");
    store.put(&directory, whole).await.expect("writes");

    let stray = Object::from("default/logs/date=1970-01-01/stray.parquet");
    store.put(&stray, Bytes::from_static(b"PAR1")).await.expect("writes");
    let report = check(&store, None).await;
    assert_eq!((report.damages, report.findings.len()), (0, 1), "{report:?}");
    store.delete(&stray).await.expect("deletes");

    let entry = Object::from("default/logs/_delta_log/00000000000000000001.json");
    let whole = bytes(&store, &entry).await;
    store.delete(&entry).await.expect("deletes");
    let report = check(&store, None).await;
    let part = "the entries 1 to 1 before it are missing";
    assert!(report.findings.iter().any(|finding| finding.wrong == part), "{report:?}");
    store.put(&entry, whole).await.expect("writes");
    assert_eq!(check(&store, None).await.findings, []);
}

/// Commits `rows` of `logs` as one block of `day`, and their streams if `known`, without sorting or cleaning anything.
async fn commit(rows: &[(&str, i64, &str)], day: i32, known: bool) -> Report {
    let mut builder = LogsBuilder::new();
    for (app, ns, line) in rows {
        let stream = builder.stream(Labels::from_pairs([("app", *app)]));
        builder.entry(stream, TimestampNs(*ns), line, std::iter::empty()).expect("fits");
    }
    let batch: Batch = builder.finish().expect("builds");
    let store = Arc::new(Store::over(Arc::new(InMemory::new()), "memory://"));
    let tables = TenantTables::open(Arc::clone(&store), Tenant::single(), Caches::new(0), clock());
    let mark = Mark { writer: "w", sequence: 1 };
    if known {
        let streams = crate::table::identity_rows(Signal::Logs, &batch.identities).expect("builds");
        let block = tables.write_block(Table::Streams, Day(day), vec![streams]).await.expect("writes");
        tables.commit(Table::Streams, vec![block], mark).await.expect("commits");
    }
    let rows = batch.table(Table::Logs).expect("rows").clone();
    let block = tables.write_block(Table::Logs, Day(day), vec![rows]).await.expect("writes");
    tables.commit(Table::Logs, vec![block], mark).await.expect("commits");
    check(&store, None).await
}

#[tokio::test]
async fn rows_that_break_the_rules_of_their_table_are_counted() {
    let sound = [("a", 1, "x"), ("a", 1, "y"), ("a", 2, "x"), ("b", 1, "x")];
    assert_eq!(commit(&sound, 0, true).await.findings, []);
    finds(&commit(&sound, 0, false).await, "/logs/", "4 rows belong to an identity");
    finds(&commit(&sound, 1, true).await, "/logs/", "4 rows have a time of another day");
    let unsorted = [("a", 2, "x"), ("a", 1, "x"), ("b", 1, "x"), ("a", 3, "x")];
    finds(&commit(&unsorted, 0, true).await, "/logs/", "2 rows are not in the table's order, the first is row 1");
    let repeated = [("a", 1, "x"), ("a", 1, "y"), ("a", 1, "x")];
    finds(&commit(&repeated, 0, true).await, "/logs/", "1 rows repeat a row before them, the first is row 2");
}

#[tokio::test]
async fn identities_whose_id_does_not_follow_from_their_labels_are_found() {
    let store = Arc::new(Store::over(Arc::new(InMemory::new()), "memory://"));
    let tables = TenantTables::open(Arc::clone(&store), Tenant::single(), Caches::new(0), clock());
    let batch = metrics(3);
    let series = crate::table::identity_rows(Signal::Metrics, &batch.identities).expect("builds");
    let (ids, rest) = (series.slice(1, 2), series.slice(0, 1));
    let swapped = concat_batches(&series.schema(), [&ids, &rest]).expect("joins");
    let mut columns = series.columns().to_vec();
    columns[0] = Arc::clone(swapped.column(0));
    let series = arrow::array::RecordBatch::try_new(series.schema(), columns).expect("builds");
    let block = tables.write_block(Table::Series, Day(0), vec![series]).await.expect("writes");
    tables.commit(Table::Series, vec![block], Mark { writer: "w", sequence: 1 }).await.expect("commits");
    finds(&check(&store, None).await, "/series/", "3 rows have an id or a name that does not follow");
}

/// A block whose rows are repeated across the border of two batches.
#[tokio::test]
async fn repeats_are_found_across_batches() {
    let batch = traces(1);
    let rows = sort_rows(Table::Spans, batch.table(Table::Spans).expect("rows"), &|_| 0).expect("sorts");
    let mut known = Known::default();
    let mut checked = Rows::new(Table::Spans, Day(0)).expect("knows the table");
    for _ in 0..2 {
        checked.add(&rows, &mut known).expect("reads");
    }
    let block = Block {
        path: "x".into(),
        day: Day(0),
        rows: 2,
        bytes: 0,
        times: None,
        written_ms: 0,
        checksum: None,
        order: crate::table::Order::default(),
        level: 0,
    };
    let mut report = Report::default();
    let traces = checked.settle(&Object::from("x"), &block, &mut report);
    assert_eq!(traces.len(), 1);
    assert!(report.findings.iter().any(|f| f.wrong.starts_with("1 rows repeat")), "{report:?}");
}

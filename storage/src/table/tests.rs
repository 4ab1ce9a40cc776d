//! The commit protocol and the way of rows into blocks and back.

mod measure;
mod replace;

use futures::TryStreamExt;
use object_store::memory::InMemory;

use super::*;
use crate::budget::Share;
use crate::clock::ManualClock;
use crate::context::Context;
use crate::error::Kind;
use crate::model::batch::{Batch, LogsBuilder, MetricsBuilder, TracesBuilder};
use crate::model::identity::{Identity, IdentityId};
use crate::model::labels::Labels;
use crate::model::span::Span;
use crate::model::time::{TimeRange, TimestampMs, TimestampNs};
use crate::model::value::Value;
use crate::scan::merge::{merge, sort_rows, split_by_day};
use crate::scan::read::block_streams;
use crate::scan::{BatchStream, ScanRequest};
use crate::signal::Signal;
use crate::store::faulty::{Fault, FaultyStore, Operation};

fn tables_over(store: &Arc<Store>) -> Arc<TenantTables> {
    TenantTables::open(
        Arc::clone(store),
        Tenant::single(),
        Caches::new(16 << 20),
        Arc::new(ManualClock::at(TimestampNs(1_767_571_200_000_000_000))),
    )
}

fn memory_store() -> Arc<Store> {
    Arc::new(Store::over(Arc::new(InMemory::new()), "memory://"))
}

fn context() -> Context {
    Context::new(Tenant::single(), Share::root("test", 1 << 30))
}

fn mark(sequence: u64) -> Mark<'static> {
    Mark { writer: "w", sequence }
}

/// `samples` of series `m{i="…"}` by (series number, time, value).
fn samples(rows: &[(usize, i64, f64)]) -> Batch {
    let mut builder = MetricsBuilder::new();
    for (series, ts, value) in rows {
        let id = builder.series(Labels::from_pairs([("__name__", "m"), ("i", &format!("{series:04}"))]));
        builder.sample(id, TimestampMs(*ts), *value, None);
    }
    builder.finish().expect("builds")
}

fn in_label_order(batch: &Batch) -> Vec<IdentityId> {
    let mut identities = batch.identities.clone();
    identities.sort_by(|a, b| a.labels.cmp(&b.labels));
    identities.iter().map(|identity| identity.id).collect()
}

/// Writes the rows of `table` in `batch` as a flush does: sorted, by day.
async fn write(tables: &TenantTables, table: Table, batch: &Batch) -> Vec<NewBlock> {
    let order = in_label_order(batch);
    let rank = |id: i64| order.iter().position(|known| known.to_column() == id).unwrap_or(usize::MAX) as u64;
    let rows = sort_rows(table, batch.table(table).expect("has rows"), &rank).expect("sorts");
    let mut blocks = Vec::new();
    for (day, rows) in split_by_day(table, &rows).expect("splits") {
        blocks.push(tables.write_block(table, day, vec![rows]).await.expect("writes"));
    }
    blocks
}

async fn read(tables: &Arc<TenantTables>, request: &ScanRequest) -> Vec<RecordBatch> {
    let snapshot = tables.snapshot(request.table).await.expect("loads");
    let context = context();
    let streams: Vec<BatchStream> = block_streams(tables, &snapshot, request, &context).await.expect("plans");
    let merged: Vec<RecordBatch> = merge(request, streams, &context).try_collect().await.expect("reads");
    merged
}

fn values(batches: &[RecordBatch]) -> Vec<(i64, f64)> {
    use arrow::array::AsArray;
    use arrow::datatypes::{Float64Type, Int64Type};
    let rows = |rows: &RecordBatch| {
        let times = rows.column(1).as_primitive::<Int64Type>().values().to_vec();
        let values = rows.column(3).as_primitive::<Float64Type>().values().to_vec();
        times.into_iter().zip(values).collect::<Vec<_>>()
    };
    batches.iter().flat_map(rows).collect()
}

#[tokio::test]
async fn a_committed_block_is_visible_and_its_mark_comes_back() {
    let store = memory_store();
    let tables = tables_over(&store);
    assert_eq!(tables.mark(Table::Samples, "w").await.expect("reads"), None);
    assert_eq!(tables.snapshot(Table::Samples).await.expect("loads").version, None);
    let batch = samples(&[(1, 10, 1.5), (1, 20, 2.5), (0, 10, f64::NAN)]);
    let blocks = write(&tables, Table::Samples, &batch).await;
    assert_eq!(tables.snapshot(Table::Samples).await.expect("loads").blocks.len(), 0, "nothing is visible yet");
    tables.commit(Table::Samples, blocks.clone(), mark(7)).await.expect("commits");
    for tables in [tables, tables_over(&store)] {
        let snapshot = tables.snapshot(Table::Samples).await.expect("loads");
        assert_eq!(snapshot.blocks.len(), 1);
        let (order, written) = (snapshot.blocks[0].order, blocks[0].block.clone());
        assert_eq!(*snapshot.blocks[0], Block { order, ..written });
        assert_eq!(snapshot.blocks[0].times, Some((10_000_000, 20_999_999)));
        assert_eq!(tables.mark(Table::Samples, "w").await.expect("reads"), Some(7));
        assert_eq!(tables.mark(Table::Samples, "other").await.expect("reads"), None);
        let request = ScanRequest {
            identities: Some(Arc::new(in_label_order(&batch))),
            ..ScanRequest::all(Table::Samples, TimeRange::ALL)
        };
        let values = values(&read(&tables, &request).await);
        assert!(values[0].1.is_nan());
        assert_eq!(values[1..], [(10, 1.5), (20, 2.5)]);
    }
}

#[tokio::test]
async fn another_process_with_the_same_writer_fences_this_one() {
    let store = memory_store();
    let (first, second) = (tables_over(&store), tables_over(&store));
    for tables in [&first, &second] {
        assert_eq!(tables.mark(Table::Samples, "w").await.expect("reads"), None);
    }
    let batch = samples(&[(1, 10, 1.0)]);
    let blocks = write(&first, Table::Samples, &batch).await;
    first.commit(Table::Samples, blocks, mark(1)).await.expect("commits");
    let late = write(&second, Table::Samples, &batch).await;
    let fenced = second.commit(Table::Samples, late.clone(), mark(2)).await.expect_err("is fenced");
    assert_eq!(fenced.kind(), Kind::Fenced, "{fenced}");
    second.refresh(Table::Samples).await.expect("reads");
    let fenced = second.commit(Table::Samples, late.clone(), mark(3)).await.expect_err("stays fenced");
    assert_eq!(fenced.kind(), Kind::Fenced, "a refresh does not hide it: {fenced}");
    let other = Mark { writer: "v", sequence: 1 };
    second.commit(Table::Samples, late, other).await.expect("another writer may append");
    first.commit(Table::Samples, Vec::new(), mark(2)).await.expect("the first goes on");
    assert_eq!(first.mark(Table::Samples, "w").await.expect("reads"), Some(2));
    assert_eq!(first.snapshot(Table::Samples).await.expect("loads").blocks.len(), 2);
}

#[tokio::test]
async fn a_process_that_never_saw_the_table_created_is_fenced() {
    let store = memory_store();
    let (first, second) = (tables_over(&store), tables_over(&store));
    assert_eq!(second.mark(Table::Logs, "w").await.expect("reads"), None);
    first.commit(Table::Logs, Vec::new(), mark(5)).await.expect("commits");
    let fenced = second.commit(Table::Logs, Vec::new(), mark(5)).await.expect_err("is fenced");
    assert_eq!(fenced.kind(), Kind::Fenced);
}

#[tokio::test]
async fn marks_never_fall() {
    let tables = tables_over(&memory_store());
    tables.commit(Table::Logs, Vec::new(), mark(5)).await.expect("commits");
    assert_eq!(tables.commit(Table::Logs, Vec::new(), mark(5)).await.expect_err("refused").kind(), Kind::Bug);
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_may_be_repeated() {
    let faulty = Arc::new(FaultyStore::new(Arc::new(InMemory::new())));
    let store = Arc::new(Store::over(faulty.clone(), "memory://"));
    let tables = tables_over(&store);
    let batch = samples(&[(1, 10, 1.0)]);
    tables.commit(Table::Samples, Vec::new(), mark(1)).await.expect("commits");
    for (round, sequence) in [2, 3].into_iter().enumerate() {
        let blocks = write(&tables, Table::Samples, &batch).await;
        faulty.inject(Fault::lose_response(Operation::Put, "_delta_log"));
        // The reads that would settle it fail too, so that the outcome stays unknown.
        for _ in 0..3 {
            faulty.inject(Fault::fail(Operation::Get, "_delta_log"));
        }
        let mut failures = 0;
        while let Err(error) = tables.commit(Table::Samples, blocks.clone(), mark(sequence)).await {
            assert_eq!(error.kind(), Kind::Unavailable, "{error}");
            failures += 1;
            assert!(failures < 10);
        }
        assert!(failures > 0);
        let snapshot = tables_over(&store).snapshot(Table::Samples).await.expect("loads");
        assert_eq!(snapshot.blocks.len(), round + 1, "the block is there once");
        assert_eq!(tables.snapshot(Table::Samples).await.expect("loads").blocks.len(), round + 1);
    }
}

/// Neither the log nor what was visible is lost when a commit landed and the store then stops answering.
#[tokio::test]
async fn a_commit_that_landed_but_cannot_be_read_back_is_recognised() {
    let faulty = Arc::new(FaultyStore::new(Arc::new(InMemory::new())));
    let store = Arc::new(Store::over(faulty.clone(), "memory://"));
    let tables = tables_over(&store);
    let batch = samples(&[(1, 10, 1.0)]);
    for sequence in 1..=4 {
        let blocks = write(&tables, Table::Samples, &batch).await;
        if sequence > 1 {
            // The entry of this commit; the one that made the table is version 0.
            let entry = format!("samples/_delta_log/{sequence:020}.json");
            for _ in 0..3 {
                faulty.inject(Fault::fail(Operation::List, "samples/_delta_log"));
                faulty.inject(Fault::fail(Operation::Get, &entry));
            }
        }
        let mut failures = 0;
        while let Err(error) = tables.commit(Table::Samples, blocks.clone(), mark(sequence)).await {
            assert_eq!(error.kind(), Kind::Unavailable, "{error}");
            let visible = tables.snapshot(Table::Samples).await.expect("stays").blocks.len() as u64;
            assert_eq!(visible, sequence - 1, "what was visible stays");
            failures += 1;
            assert!(failures < 10);
        }
        assert!(failures > 0 || sequence == 1);
        for tables in [&tables, &tables_over(&store)] {
            let visible = tables.snapshot(Table::Samples).await.expect("loads").blocks.len() as u64;
            assert_eq!(visible, sequence, "the block is there once");
        }
    }
}

#[tokio::test]
async fn the_mark_of_an_earlier_process_may_be_committed_again() {
    let store = memory_store();
    tables_over(&store).commit(Table::Streams, Vec::new(), mark(5)).await.expect("commits");
    let restarted = tables_over(&store);
    restarted.commit(Table::Streams, Vec::new(), mark(5)).await.expect("goes on where it ended");
    assert_eq!(restarted.commit(Table::Streams, Vec::new(), mark(5)).await.expect_err("once").kind(), Kind::Bug);
    assert_eq!(restarted.mark(Table::Streams, "w").await.expect("reads"), Some(5));
}

#[tokio::test]
async fn a_commit_that_did_not_land_may_be_repeated() {
    let faulty = Arc::new(FaultyStore::new(Arc::new(InMemory::new())));
    let store = Arc::new(Store::over(faulty.clone(), "memory://"));
    let tables = tables_over(&store);
    faulty.inject(Fault::fail(Operation::Put, "_delta_log"));
    let lost = tables.commit(Table::Spans, Vec::new(), mark(1)).await.expect_err("the store is down");
    assert_eq!(lost.kind(), Kind::Unavailable, "{lost}");
    tables.commit(Table::Spans, Vec::new(), mark(1)).await.expect("commits");
    assert_eq!(tables_over(&store).mark(Table::Spans, "w").await.expect("reads"), Some(1));
}

#[tokio::test]
async fn checkpoints_and_a_long_log_keep_marks_and_blocks() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = folder.path().display().to_string();
    let store = Arc::new(Store::open(&url, &crate::store::StoreOptions::default()).expect("opens"));
    let tables = tables_over(&store);
    let batch = samples(&[(1, 10, 1.0)]);
    for sequence in 1..=40 {
        let blocks = if sequence % 10 == 0 { write(&tables, Table::Samples, &batch).await } else { Vec::new() };
        tables.commit(Table::Samples, blocks, mark(sequence)).await.expect("commits");
    }
    let log = folder.path().join("default/samples/_delta_log");
    let names = std::fs::read_dir(log).expect("is there").map(|entry| entry.expect("reads").file_name());
    assert!(names.into_iter().any(|name| name.to_string_lossy().ends_with("checkpoint.parquet")));
    let reopened = tables_over(&store);
    assert_eq!(reopened.mark(Table::Samples, "w").await.expect("reads"), Some(40));
    let snapshot = reopened.snapshot(Table::Samples).await.expect("loads");
    assert_eq!(snapshot.blocks, tables.snapshot(Table::Samples).await.expect("loads").blocks);
    assert_eq!(snapshot.blocks[0].times, Some((10_000_000, 10_999_999)));
    let object = paths::block_object(&Tenant::single(), Table::Samples, &snapshot.blocks[0].path);
    let bytes = store.get(&object).await.expect("reads").expect("is there");
    assert_eq!(snapshot.blocks[0].checksum, Some(crc32c::crc32c(&bytes)));
}

#[tokio::test]
async fn only_what_is_asked_for_is_read() {
    let tables = tables_over(&memory_store());
    let day_ms = 86_400_000;
    let mut rows = Vec::new();
    for series in 0..20 {
        for step in 0..2_000_i64 {
            rows.push((series, step * 60_000, f64::from(u8::try_from(series).expect("small")) + step as f64 / 4.0));
        }
    }
    let batch = samples(&rows);
    let blocks = write(&tables, Table::Samples, &batch).await;
    assert_eq!(blocks.len(), 2, "one for each day");
    tables.commit(Table::Samples, blocks, mark(1)).await.expect("commits");
    let order = in_label_order(&batch);
    let (from, to) = (day_ms - 120_000, day_ms + 60_000);
    let request = ScanRequest {
        identities: Some(Arc::new(vec![order[3], order[17]])),
        ..ScanRequest::all(Table::Samples, TimeRange::closed_ms(TimestampMs(from), TimestampMs(to)))
    };
    let expected: Vec<(i64, f64)> = [3.0, 17.0]
        .into_iter()
        .flat_map(|series| (1438..=1441_i64).map(move |step| (step * 60_000, series + step as f64 / 4.0)))
        .collect();
    assert_eq!(values(&read(&tables, &request).await), expected);
    // A lost and a damaged directory change nothing.
    let snapshot = tables.snapshot(Table::Samples).await.expect("loads");
    let objects: Vec<_> = snapshot
        .blocks
        .iter()
        .map(|block| paths::sidecar_object(&Tenant::single(), Table::Samples, &block.path, Sidecar::Directory))
        .collect();
    let store = Arc::clone(tables.store());
    store.delete(&objects[0]).await.expect("deletes");
    store.put(&objects[1], bytes::Bytes::from_static(b"TDIR????")).await.expect("writes");
    assert_eq!(values(&read(&tables_over(&store), &request).await), expected);
    let none = ScanRequest { identities: Some(Arc::default()), ..request };
    assert_eq!(read(&tables, &none).await.len(), 0);
}

#[tokio::test]
async fn traces_are_found_by_id() {
    let tables = tables_over(&memory_store());
    let mut builder = TracesBuilder::new();
    let resource = builder.resource(&[("service.name".to_owned(), Value::String("api".into()))]);
    for n in 0..10_000_u32 {
        for span in 0..2 {
            let mut trace_id = [0; 16];
            trace_id[..4].copy_from_slice(&n.wrapping_mul(2_654_435_761).to_be_bytes());
            trace_id[15] = 1;
            let start_ns = i64::from(n) * 1_000 + span;
            builder
                .span(
                    &resource,
                    &Span { trace_id, span_id: [u8::try_from(span).expect("small"); 8], start_ns, ..Span::default() },
                )
                .expect("fits");
        }
    }
    let batch = builder.finish().expect("builds");
    let blocks = write(&tables, Table::Spans, &batch).await;
    tables.commit(Table::Spans, blocks, mark(1)).await.expect("commits");
    let id = |n: u32| {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.wrapping_mul(2_654_435_761).to_be_bytes());
        id[15] = 1;
        id
    };
    let request = ScanRequest {
        traces: Some(Arc::new(vec![id(77), id(9_999), [9; 16]])),
        ..ScanRequest::all(Table::Spans, TimeRange::ALL)
    };
    let rows = read(&tables, &request).await;
    let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(count, 4);
    let absent = ScanRequest { traces: Some(Arc::new(vec![[9; 16]])), ..request };
    assert_eq!(read(&tables, &absent).await.len(), 0);
    let all = read(&tables, &ScanRequest::all(Table::Spans, TimeRange::new(0, 1_000 * 100))).await;
    assert_eq!(all.iter().map(RecordBatch::num_rows).sum::<usize>(), 200);
}

#[tokio::test]
async fn logs_written_twice_are_read_once() {
    let tables = tables_over(&memory_store());
    let mut builder = LogsBuilder::new();
    let stream = builder.stream(Labels::from_pairs([("app", "a")]));
    for n in 0..100 {
        builder.entry(stream, TimestampNs(n / 3), &format!("line {n}"), [("k", "v")].into_iter()).expect("fits");
    }
    let batch = builder.finish().expect("builds");
    for sequence in [1, 2] {
        let blocks = write(&tables, Table::Logs, &batch).await;
        tables.commit(Table::Logs, blocks, mark(sequence)).await.expect("commits");
    }
    let request = ScanRequest {
        identities: Some(Arc::new(in_label_order(&batch))),
        ..ScanRequest::all(Table::Logs, TimeRange::ALL)
    };
    let rows = read(&tables, &request).await;
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 100);
    assert_eq!(rows, [batch.table(Table::Logs).expect("rows").clone()]);
}

#[tokio::test]
async fn identities_come_back_once_and_sorted() {
    let store = memory_store();
    let tables = tables_over(&store);
    for signal in Signal::ALL {
        let table = signal.spec().identities;
        let identity = |n: u32| {
            Identity::from(Labels::from_pairs([("__name__", "m"), ("service.name", "\"a\""), ("n", &n.to_string())]))
        };
        for (sequence, numbers) in [(1, 0..5), (2, 3..8)] {
            let rows = identity_rows(signal, &numbers.map(identity).collect::<Vec<_>>()).expect("builds");
            let block = tables.write_block(table, Day(i32::try_from(sequence).expect("small")), vec![rows]).await;
            tables.commit(table, vec![block.expect("writes")], mark(sequence)).await.expect("commits");
        }
        let mut expected: Vec<Identity> = (0..8).map(identity).collect();
        expected.sort_by(|a, b| a.labels.cmp(&b.labels));
        let cold = tables_over(&store);
        assert_eq!(*cold.identities(signal, (Day(1), Day(2))).await.expect("reads"), expected);
        let gets = store.calls().gets();
        assert_eq!(*cold.identities(signal, (Day(0), Day(9))).await.expect("reads"), expected);
        assert_eq!(store.calls().gets(), gets, "the second time costs no read");
        assert_eq!(cold.identities(signal, (Day(2), Day(2))).await.expect("reads").len(), 5);
        assert_eq!(cold.identities(signal, (Day(3), Day(9))).await.expect("reads").len(), 0);
    }
}

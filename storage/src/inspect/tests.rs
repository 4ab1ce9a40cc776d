//! What the reports say of a store whose contents are known.

use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::engine::{Engine, EngineConfig};
use crate::error::Kind;
use crate::model::tenant::Tenant;
use crate::model::time::TimestampNs;
use crate::signal::{Signal, Table};
use crate::store::Store;
use crate::wal::segment::LocalDisk;
use crate::wal::tests::{logs, traces};

#[tokio::test]
async fn everything_of_a_store_can_be_looked_at_while_it_is_written() {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(TimestampNs(43_200_000_000_000)));
    let store = Arc::new(Store::over(Arc::new(InMemory::new()), "memory://"));
    let data = tempfile::tempdir().expect("creates");
    let config = EngineConfig { writer_id: Some("w".into()), ..EngineConfig::new(data.path(), "memory://") };
    let engine =
        Engine::open_with(config, Arc::clone(&store), Arc::new(LocalDisk), Arc::clone(&clock)).await.expect("opens");
    let tenant = Tenant::single();
    let flushed = engine.append(&tenant, traces(300)).await.expect("appends").sequence;
    engine.flush(None).await.expect("flushes");
    engine.append(&tenant, traces(4)).await.expect("appends");
    let last = engine.append(&tenant, traces(5)).await.expect("appends").sequence;

    let wal = wal(data.path(), Signal::Traces).expect("reads");
    let open = wal.segments.last().expect("one is open");
    assert_eq!((open.records, open.first, open.last), (2, Some(last - 1), Some(last)));
    assert_eq!((wal.damages.len(), wal.torn_bytes), (0, 0));
    let counts: Vec<(&str, &str, u64)> = wal.rows.iter().map(|r| (r.tenant.as_str(), r.table, r.rows)).collect();
    assert_eq!(counts, [("default", "resources", 2), ("default", "spans", 9)]);

    let all = tables(&store, &clock).await.expect("reads");
    // Every flush commits the main table of a signal that has a head.
    let names: Vec<&str> = all.iter().map(|table| table.table).collect();
    assert_eq!(names, ["resources", "spans"]);
    let spans = table(&store, &clock, &tenant, Table::Spans).await.expect("reads");
    // 300 spans of 200 trace ids, 100 of them twice with other times.
    assert_eq!((spans.summary.rows, spans.blocks.len(), spans.entries), (300, 1, Some((0, 1))));
    assert_eq!((spans.summary.first_ns, spans.summary.last_ns), (Some(0), Some(299)));
    let mark = MarkReport { writer: "w".into(), sequence: flushed, version: 1 };
    assert_eq!(spans.marks, [mark]);
    let missing = table(&store, &clock, &tenant, Table::Logs).await.expect_err("is not there");
    assert_eq!(missing.kind(), Kind::Invalid);

    let object = Path::from(spans.blocks[0].object.as_str());
    let file = file(&store, &object).await.expect("reads");
    assert_eq!((file.rows, file.bytes, file.row_groups.len()), (300, spans.blocks[0].bytes, 1));
    let column = |name: &str| file.columns.iter().find(|column| column.name == name).expect("a column");
    assert_eq!((column("trace_id").values, column("trace_id").pages), (300, Some(1)));
    assert!(column("trace_id").bloom_bytes > 0 && column("trace_id").page_index);
    assert_eq!(column("name").bloom_bytes, 0);
    assert!(column("start_ns").encodings.contains(&"DELTA_BINARY_PACKED".to_owned()), "{:?}", column("start_ns"));
}

#[tokio::test]
async fn sidecars_are_listed_by_block_and_by_table() {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(TimestampNs(43_200_000_000_000)));
    let store = Arc::new(Store::over(Arc::new(InMemory::new()), "memory://"));
    let data = tempfile::tempdir().expect("creates");
    let config = EngineConfig::new(data.path(), "memory://");
    let engine =
        Engine::open_with(config, Arc::clone(&store), Arc::new(LocalDisk), Arc::clone(&clock)).await.expect("opens");
    for n in [6, 8] {
        engine.append(&Tenant::single(), logs(n)).await.expect("appends");
        engine.flush(None).await.expect("flushes");
    }
    let logs = table(&store, &clock, &Tenant::single(), Table::Logs).await.expect("reads");
    let all = sidecars_of(&store, &Path::from("default/logs")).await.expect("lists");
    let directories = all.iter().filter(|sidecar| sidecar.kind == "directory").count();
    assert_eq!((directories, logs.blocks.len()), (2, 2));
    let block = logs.blocks.iter().find(|block| block.rows == 8).expect("the second one");
    let beside = sidecars_of(&store, &Path::from(block.object.as_str())).await.expect("lists");
    let directory = beside.iter().find(|sidecar| sidecar.kind == "directory").expect("has one");
    assert_eq!(directory.summary, "2 identities in 2 runs, 8 rows, times 0 to 7");
    store.put(&Path::from(directory.object.as_str()), "TDIR".into()).await.expect("writes");
    let damaged = sidecar(&store, &Path::from(directory.object.as_str())).await.expect("reads");
    assert!(!damaged.readable, "{damaged:?}");
}

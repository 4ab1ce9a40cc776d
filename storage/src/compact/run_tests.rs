//! What a compaction holds in memory.

use object_store::memory::InMemory;

use super::*;
use crate::budget::Share;
use crate::clock::ManualClock;
use crate::model::batch::{Batch, LogsBuilder, TracesBuilder};
use crate::model::labels::Labels;
use crate::model::span::Span;
use crate::model::tenant::Tenant;
use crate::model::time::TimestampNs;
use crate::model::value::Value;
use crate::scan::merge::{batch_bytes, sort_rows};
use crate::store::Store;
use crate::table::{Caches, Mark, identity_rows};

const DAY: Day = Day(20_000);

/// Nothing gives way, nothing stops.
struct Straight;

#[async_trait::async_trait]
impl Pace for Straight {
    async fn give_way(&self) {}

    fn written(&self, _table: Table) -> Result<()> {
        Ok(())
    }

    fn replaced(&self, _table: Table) -> Result<()> {
        Ok(())
    }
}

/// Spans of which each has a few of 2,000 attribute keys.
fn sparse_spans(block: u64, spans: u64) -> Batch {
    let mut builder = TracesBuilder::new();
    let resource = builder.resource(&[("service.name".to_owned(), Value::String("api".into()))]);
    for n in 0..spans {
        let number = (n * 31 + block).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut trace_id = [block as u8; 16];
        trace_id[..8].copy_from_slice(&number.to_be_bytes());
        let attribute = |k: u64| (format!("attribute.{:04}", (number >> k) % 2_000), Value::Int((n * k) as i64));
        let span = Span {
            trace_id,
            span_id: n.to_be_bytes(),
            start_ns: DAY.range().start + n as i64,
            attributes: (1..6).map(attribute).collect(),
            ..Span::default()
        };
        builder.span(&resource, &span).expect("fits");
    }
    builder.finish().expect("builds")
}

fn long_lines(block: u64, lines: u64) -> Batch {
    let mut builder = LogsBuilder::new();
    let stream = builder.stream(Labels::from_pairs([("app", "a")]));
    for n in 0..lines {
        let line = format!("{:01$}", n * 7 + block, 2_000 + (n % 7) as usize);
        let at = TimestampNs(DAY.range().start + (n * 16 + block) as i64);
        builder.entry(stream, at, &line, std::iter::empty()).expect("fits");
    }
    builder.finish().expect("builds")
}

/// Merges 16 blocks of `rows` rows with `memory_bytes` for what is decoded; bytes that went in, decoded.
async fn merge_within(memory_bytes: usize, rows: u64, table: Table, make: fn(u64, u64) -> Batch) -> usize {
    let store = Arc::new(Store::over(Arc::new(InMemory::new()), "memory://"));
    let clock = Arc::new(ManualClock::at(TimestampNs(DAY.range().start)));
    let tables = TenantTables::open(store, Tenant::single(), Caches::new(1 << 20), clock);
    let mut decoded = 0;
    for block in 0..16 {
        let batch = make(block, rows);
        let identities = table.signal().spec().identities;
        let ids = identity_rows(table.signal(), &batch.identities).expect("builds");
        let sorted = sort_rows(table, batch.table(table).expect("rows"), &|_| 0).expect("sorts");
        decoded += batch_bytes(&sorted);
        for (table, rows) in [(identities, ids), (table, sorted)] {
            let new = tables.write_block(table, DAY, vec![rows]).await.expect("writes");
            tables.commit(table, vec![new], Mark { writer: "w", sequence: block + 1 }).await.expect("commits");
        }
    }
    let blocks = tables.snapshot(table).await.expect("reads").blocks.clone();
    let share = Share::root("test", memory_bytes);
    let context = Context::new(Tenant::single(), Arc::clone(&share));
    let done = run(&tables, &Task { table, day: DAY, blocks }, &context, &Straight).await.expect("fits");
    assert_eq!((done.blocks, done.repeats, done.conflict), (16, 0, false));
    assert_eq!(tables.snapshot(table).await.expect("reads").rows(), 16 * rows);
    assert_eq!(share.used_bytes(), 0);
    decoded
}

/// The same memory serves five times the rows, which is more than it; 2,000 attribute keys make no difference.
#[tokio::test]
async fn memory_does_not_grow_with_rows_or_attribute_keys() {
    const MEMORY: usize = 10 << 20;
    for (table, make, rows) in
        [(Table::Spans, sparse_spans as fn(u64, u64) -> Batch, 600), (Table::Logs, long_lines, 100)]
    {
        merge_within(MEMORY, rows, table, make).await;
        let decoded = merge_within(MEMORY, 5 * rows, table, make).await;
        assert!(decoded > MEMORY, "`{}`: {decoded} bytes", table.name());
    }
}

//! A pruned scan of blocks equals the reference scan over the same batches in memory.

use arrow::compute::concat_batches;
use proptest::prelude::*;

use super::super::Conjunct;
use super::super::Scan;
use super::super::memory::MemoryScan;
use super::super::merge::{merge, sort_rows, split_by_day};
use super::*;
use crate::budget::Share;
use crate::clock::ManualClock;
use crate::model::batch::{Batch, LogsBuilder, MetricsBuilder, TracesBuilder};
use crate::model::identity::{Identity, IdentityId};
use crate::model::labels::Labels;
use crate::model::span::Span;
use crate::model::tenant::Tenant;
use crate::model::time::{NS_PER_DAY, TimeRange, TimestampMs, TimestampNs};
use crate::model::value::Value;
use crate::store::Store;
use crate::table::{Caches, Mark};

/// Damaged copies of each block.
const ROUNDS: usize = 50;
/// Of some entries.
const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const TABLES: [Table; 3] = [Table::Samples, Table::Logs, Table::Spans];

/// Numbers that look random and are the same in every run.
struct Noise(u64);

impl Noise {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn labels(group: u64) -> Labels {
    Labels::from_pairs([("g", format!("{group:03}"))])
}

fn trace(group: u64) -> TraceId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&group.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    id[15] = 1;
    id
}

/// `rows` rows of `groups` groups over two days around the epoch.
fn batch(table: Table, rows: u64, groups: u64, noise: &mut Noise) -> Batch {
    let (mut metrics, mut logs, mut traces) = (MetricsBuilder::new(), LogsBuilder::new(), TracesBuilder::new());
    let resource = traces.resource(&[]);
    for _ in 0..rows {
        let group = noise.below(groups);
        let time = i64::try_from(noise.below(2_000)).expect("small") * (NS_PER_DAY / 1_000) - NS_PER_DAY;
        match table {
            Table::Samples => {
                let series = metrics.series(labels(group));
                // The value follows from the time: equal times are the same sample.
                metrics.sample(series, TimestampNs(time).to_ms(), time as f64 / 8e9, None);
            }
            Table::Logs => {
                let stream = logs.stream(labels(group));
                let line = ["a", "b"][usize::try_from(noise.below(2)).expect("small")];
                let level = ["info", "warn", "error"][usize::try_from(noise.below(3)).expect("small")];
                let pod = noise.below(3).to_string();
                let metadata = [("detected_level", level), ("pod", &pod), ("trace_id", TRACE_ID)];
                let metadata = metadata.into_iter().filter(|_| noise.below(3) > 0).collect::<Vec<_>>();
                logs.entry(stream, TimestampNs(time), line, metadata.into_iter()).expect("fits");
            }
            _ => {
                let span_id = [u8::try_from(noise.below(3)).expect("small"); 8];
                // Repeats of a span may differ in these.
                let duration_ns = i64::try_from(noise.below(50)).expect("small");
                let kind = i32::try_from(noise.below(2)).expect("small");
                let of_three = Value::Int(duration_ns % 3);
                let list = Value::Array(vec![of_three.clone()]);
                let attributes = vec![("n".to_owned(), if kind == 0 { of_three } else { list })];
                let of_span =
                    Span { duration_ns, kind, attributes, name: format!("{}", duration_ns % 7), ..Span::default() };
                let span = Span { trace_id: trace(group), span_id, start_ns: time, ..of_span };
                traces.span(&resource, &span).expect("fits");
            }
        }
    }
    match table {
        Table::Samples => metrics.finish(),
        Table::Logs => logs.finish(),
        _ => traces.finish(),
    }
    .expect("builds")
}

fn by_labels(batches: &[Batch]) -> Vec<IdentityId> {
    let mut identities: Vec<&Identity> = batches.iter().flat_map(|batch| &batch.identities).collect();
    identities.sort_by(|a, b| a.labels.cmp(&b.labels));
    identities.dedup();
    identities.iter().map(|identity| identity.id).collect()
}

async fn tables_of(table: Table, batches: &[Batch]) -> Arc<TenantTables> {
    let store = Arc::new(Store::over(Arc::new(object_store::memory::InMemory::new()), "memory://"));
    let clock = ManualClock::at(TimestampNs(0));
    let tables = TenantTables::open(store, Tenant::single(), Caches::new(16 << 20), Arc::new(clock.clone()));
    let order = by_labels(batches);
    let ranks = ranks(&order);
    for (batch, sequence) in batches.iter().zip(1..) {
        clock.set(TimestampMs(i64::try_from(sequence).expect("small")).to_ns());
        let rank = |id: i64| ranks.get(&id).copied().map_or(u64::MAX, u64::from);
        let rows = sort_rows(table, batch.table(table).expect("rows"), &rank).expect("sorts");
        let mut blocks = Vec::new();
        for (day, rows) in split_by_day(table, &rows).expect("splits") {
            blocks.push(tables.write_block(table, day, vec![rows]).await.expect("writes"));
        }
        tables.commit(table, blocks, Mark { writer: "w", sequence }).await.expect("commits");
    }
    tables
}

fn context() -> Context {
    Context::new(Tenant::single(), Share::root("test", 1 << 30))
}

async fn scan_blocks(tables: &Arc<TenantTables>, request: &ScanRequest) -> RecordBatch {
    let context = context();
    let snapshot = tables.snapshot(request.table).await.expect("loads");
    let streams = block_streams(tables, &snapshot, request, &context).await.expect("plans");
    let rows: Vec<RecordBatch> = merge(request, streams, &context).try_collect().await.expect("reads");
    concat_batches(&request.schema().expect("projects"), &rows).expect("joins")
}

async fn scan_memory(scan: &MemoryScan, request: &ScanRequest) -> RecordBatch {
    let context = context();
    let rows = scan.scan(request.clone(), &context).await.expect("plans");
    let rows: Vec<RecordBatch> = rows.try_collect().await.expect("reads");
    concat_batches(&request.schema().expect("projects"), &rows).expect("joins")
}

/// Some columns of `table`, or all.
fn columns(table: Table, noise: &mut Noise) -> Option<Arc<[&'static str]>> {
    let schema: &'static arrow::datatypes::Schema = Box::leak(Box::new((table.spec().schema)().as_ref().clone()));
    let keep = noise.below(4);
    let some = schema.fields().iter().filter(|_| noise.below(4) < keep).map(|field| field.name().as_str());
    (keep < 3).then(|| some.collect())
}

async fn check(table: Table, seed: u64, requests: &[(u64, i64, i64)]) {
    let mut noise = Noise(seed);
    let groups = 1 + noise.below(60);
    let batches: Vec<Batch> = (0..2).map(|_| batch(table, 14_000, groups, &mut noise)).collect();
    let tables = tables_of(table, &batches).await;
    let all = by_labels(&batches);
    let memory = MemoryScan::new(batches);
    for (every, start, length) in requests {
        let every = usize::try_from(*every).expect("small");
        let picked: Vec<IdentityId> = all.iter().copied().step_by(every).collect();
        let narrow = conjuncts(table, &mut noise);
        // What is tested again must be among the columns.
        let tests = narrow.iter().flat_map(Conjunct::columns).collect::<Vec<_>>();
        let some = columns(table, &mut noise).map(|some| some.iter().copied().chain(tests).collect());
        let request = ScanRequest {
            identities: Some(Arc::new(picked)),
            traces: (every > 1).then(|| Arc::new((0..groups).step_by(every * 3).map(trace).collect())),
            columns: some,
            narrow,
            ..ScanRequest::all(table, TimeRange::new(*start, start + length))
        };
        let (found, expected) = (scan_blocks(&tables, &request).await, scan_memory(&memory, &request).await);
        let (found, expected) = (tested(&found, &request.narrow), tested(&expected, &request.narrow));
        assert_eq!(found.num_rows(), expected.num_rows(), "{table:?} {seed} {every} {start} {length}");
        assert_eq!(found, expected, "{table:?} {seed} {every} {start} {length}");
    }
}

/// Tests on rows of `table`.
fn conjuncts(table: Table, noise: &mut Noise) -> Vec<Conjunct> {
    let texts = |list: &[&str]| list.iter().map(|text| Arc::from(*text)).collect::<Arc<[Arc<str>]>>();
    let id: Box<[u8]> = hex::decode(TRACE_ID).expect("hex").into();
    let long = |noise: &mut Noise, column| {
        let first = i64::try_from(noise.below(40)).expect("small");
        Conjunct::LongBetween { column, first, last: first + 9 }
    };
    let one = |noise: &mut Noise| match (table, noise.below(5)) {
        (Table::Logs, 0) => Conjunct::Contains { column: "line", text: "a".into() },
        (Table::Logs, 1) => Conjunct::TextIn { column: "severity", texts: texts(&["warn", "none"]) },
        (Table::Logs, 2) => Conjunct::BytesIn { column: "trace_id", values: [id.clone()].into() },
        (Table::Logs, 3) => Conjunct::HasKey { column: "metadata", key: "pod".into() },
        (Table::Logs, _) => Conjunct::EntryIn { column: "metadata", key: "pod".into(), values: texts(&["1", "2"]) },
        (Table::Spans, 0) => Conjunct::LongBetween { column: "kind", first: 1, last: 5 },
        (Table::Spans, 1) => Conjunct::TextIn { column: "name", texts: texts(&["1", "4"]) },
        (Table::Spans, 2) => Conjunct::EntryInOrList { column: "attributes", key: "n".into(), values: texts(&["1"]) },
        (Table::Spans, _) => long(noise, "duration_ns"),
        _ => Conjunct::LongBetween { column: "ts_ms", first: -40_000_000, last: 30_000_000 },
    };
    let mut list: Vec<Conjunct> = (0..noise.below(3)).map(|_| one(noise)).collect();
    if noise.below(3) == 0 {
        list.push(Conjunct::AnyOf(vec![vec![one(noise), one(noise)], vec![one(noise)]]));
    }
    list
}

/// The rows that pass all of `narrow`.
fn tested(rows: &RecordBatch, narrow: &[Conjunct]) -> RecordBatch {
    for conjunct in narrow {
        let by_row: Vec<bool> = (0..rows.num_rows()).map(|row| conjunct.passes(rows, row)).collect();
        assert_eq!(conjunct.test(rows).iter().collect::<Vec<_>>(), by_row, "{conjunct:?}");
    }
    let kept = (0..rows.num_rows()).map(|row| Some(narrow.iter().all(|conjunct| conjunct.passes(rows, row))));
    filter_record_batch(rows, &kept.collect::<BooleanArray>()).expect("filters")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]
    #[test]
    fn pruned_scans_lose_nothing_and_add_nothing(
        table in 0..TABLES.len(),
        seed in any::<u64>(),
        requests in proptest::collection::vec((1..9_u64, -NS_PER_DAY..NS_PER_DAY, 0..2 * NS_PER_DAY), 1..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("starts");
        runtime.block_on(check(TABLES[table], seed, &requests));
    }
}

#[tokio::test]
async fn whole_tables_come_back() {
    for table in TABLES {
        check(table, 7, &[(1, i64::MIN / 2, i64::MAX / 2 + NS_PER_DAY)]).await;
    }
}

#[tokio::test]
async fn many_traces_are_read_by_their_ids() {
    let mut noise = Noise(5);
    let batches: Vec<Batch> = (0..2).map(|_| batch(Table::Spans, 6_000, 700, &mut noise)).collect();
    let tables = tables_of(Table::Spans, &batches).await;
    let memory = MemoryScan::new(batches);
    // Among them some that no block has.
    let traces: Vec<TraceId> = (0..1_400).step_by(5).map(trace).collect();
    assert!(traces.len() > BLOOM_LOOKUPS_MAX);
    let request = ScanRequest {
        traces: Some(Arc::new(traces)),
        ..ScanRequest::all(Table::Spans, TimeRange::new(-NS_PER_DAY / 2, NS_PER_DAY))
    };
    let (found, expected) = (scan_blocks(&tables, &request).await, scan_memory(&memory, &request).await);
    assert!(expected.num_rows() > 0);
    assert_eq!(found, expected);
}

#[tokio::test]
async fn rows_that_fail_a_test_are_left_out() {
    let mut noise = Noise(11);
    for (table, conjunct) in [
        (Table::Logs, Conjunct::TextIn { column: "severity", texts: ["warn".into()].into() }),
        (Table::Spans, Conjunct::LongBetween { column: "duration_ns", first: 7, last: 7 }),
    ] {
        let batches = [batch(table, 5_000, 20, &mut noise)];
        let tables = tables_of(table, &batches).await;
        let all = ScanRequest {
            identities: Some(Arc::new(by_labels(&batches))),
            ..ScanRequest::all(table, TimeRange::new(-NS_PER_DAY, NS_PER_DAY))
        };
        let narrow = ScanRequest { narrow: vec![conjunct], ..all.clone() };
        let rows = scan_blocks(&tables, &narrow).await;
        assert_eq!(rows, tested(&scan_blocks(&tables, &all).await, &narrow.narrow), "one source: nothing is spared");
    }
}

#[tokio::test]
async fn a_damaged_block_is_an_error_or_harmless() {
    for table in TABLES {
        let mut noise = Noise(3);
        let batches = [batch(table, 5_000, 20, &mut noise)];
        let tables = tables_of(table, &batches).await;
        let snapshot = tables.snapshot(table).await.expect("loads");
        let block = Arc::clone(&snapshot.blocks[0]);
        let object = crate::paths::block_object(&Tenant::single(), table, &block.path);
        let sound = tables.store().get(&object).await.expect("reads").expect("is there");
        let identities = Some(Arc::new(by_labels(&batches)));
        for round in 0..ROUNDS {
            let mut bytes = sound.to_vec();
            let tail = noise.below(2) * bytes.len().saturating_sub(3_000) as u64;
            let at = tail + noise.below(bytes.len() as u64 - tail);
            bytes[usize::try_from(at).expect("small")] ^= u8::try_from(1 + noise.below(255)).expect("small");
            tables.store().put(&object, bytes.into()).await.expect("writes");
            let cold = TenantTables::open(
                Arc::clone(tables.store()),
                Tenant::single(),
                Caches::new(1 << 20),
                Arc::new(ManualClock::at(TimestampNs(0))),
            );
            let request = ScanRequest {
                identities: identities.clone(),
                traces: (round % 2 == 0).then(|| Arc::new(vec![trace(1), trace(5)])),
                ..ScanRequest::all(table, TimeRange::new(-NS_PER_DAY / 2, NS_PER_DAY / 2))
            };
            let context = context();
            let read: Result<Vec<RecordBatch>> = match block_streams(&cold, &snapshot, &request, &context).await {
                Ok(streams) => merge(&request, streams, &context).try_collect().await,
                Err(error) => Err(error),
            };
            if let Err(error) = read {
                assert!(matches!(error.kind(), crate::Kind::Corrupt | crate::Kind::Bug), "{error}");
            }
        }
    }
}

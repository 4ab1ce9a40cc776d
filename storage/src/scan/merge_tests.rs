//! A merge of any split equals sorting and removing duplicates of the whole.

use arrow::array::AsArray;
use arrow::datatypes::Float64Type;
use futures::stream;
use proptest::prelude::*;

use super::*;
use crate::budget::Share;
use crate::model::batch::{LogsBuilder, MetricsBuilder, TracesBuilder};
use crate::model::identity::IdentityId;
use crate::model::labels::Labels;
use crate::model::span::Span;
use crate::model::tenant::Tenant;
use crate::model::time::{TimeRange, TimestampMs, TimestampNs};

fn context() -> Context {
    Context::new(Tenant::single(), Share::root("test", 1 << 30))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("starts").block_on(future)
}

/// One row of a made-up table: group, time, content, source.
type Row = (u8, i64, u8, usize);

fn labels(group: u8) -> Labels {
    Labels::from_pairs([("g", &format!("{group:03}"))])
}

fn build(table: Table, rows: &[Row]) -> RecordBatch {
    let batch = match table {
        Table::Samples => {
            let mut builder = MetricsBuilder::new();
            for (group, time, content, _) in rows {
                let series = builder.series(labels(*group));
                builder.sample(series, TimestampMs(*time), f64::from(*content), None);
            }
            builder.finish()
        }
        Table::Logs => {
            let mut builder = LogsBuilder::new();
            for (group, time, content, source) in rows {
                let stream = builder.stream(labels(*group));
                // Equal maps in different order are equal.
                let metadata = if source % 2 == 0 { [("a", "1"), ("b", "2")] } else { [("b", "2"), ("a", "1")] };
                let added = builder.entry(stream, TimestampNs(*time), &content.to_string(), metadata.into_iter());
                added.expect("fits");
            }
            builder.finish()
        }
        _ => {
            let mut builder = TracesBuilder::new();
            let resource = builder.resource(&[]);
            for (group, time, content, _) in rows {
                let span = Span { trace_id: [*group; 16], span_id: [*content; 8], start_ns: *time, ..Span::default() };
                builder.span(&resource, &span).expect("fits");
            }
            builder.finish()
        }
    };
    batch.expect("builds").table(table).cloned().unwrap_or_else(|| RecordBatch::new_empty((table.spec().schema)()))
}

fn identities() -> Vec<IdentityId> {
    (0..=u8::MAX).map(|group| labels(group).id()).collect()
}

fn sorted(table: Table, rows: &RecordBatch) -> RecordBatch {
    let list = identities();
    let rank = |id: i64| list.iter().position(|known| known.to_column() == id).unwrap_or(usize::MAX) as u64;
    sort_rows(table, rows, &rank).expect("sorts")
}

fn run_merge(table: Table, sources: Vec<Vec<RecordBatch>>, context: &Context) -> Vec<RecordBatch> {
    let request = ScanRequest { identities: Some(Arc::new(identities())), ..ScanRequest::all(table, TimeRange::ALL) };
    let sources = sources.into_iter().map(|batches| stream::iter(batches.into_iter().map(Ok)).boxed()).collect();
    let merged = merge(&request, sources, context).try_collect::<Vec<_>>();
    block_on(merged).expect("merges")
}

fn whole(table: Table, batches: &[RecordBatch]) -> RecordBatch {
    concat_batches(&(table.spec().schema)(), batches).expect("joins")
}

fn check(table: Table, mut rows: Vec<Row>, sources: usize, cut: usize) {
    // The order of arrival is the order of sources: the first stays.
    rows.sort_by_key(|row| row.3);
    let expected = sorted(table, &build(table, &rows));
    let parts = (0..sources).map(|source| {
        let own: Vec<Row> = rows.iter().filter(|row| row.3 == source).copied().collect();
        let part = sorted(table, &build(table, &own));
        let pieces = (0..part.num_rows()).step_by(cut);
        pieces.map(|at| part.slice(at, cut.min(part.num_rows() - at))).collect()
    });
    let context = context();
    let merged = run_merge(table, parts.collect(), &context);
    assert_eq!(whole(table, &merged), expected);
    let counted = context.stats.rows.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(counted, expected.num_rows() as u64);
    assert_eq!(context.reserve(0).expect("reserves").bytes(), 0);
}

proptest! {
    #[test]
    fn a_merge_equals_sort_and_dedup(
        rows in proptest::collection::vec((0..4_u8, 0..6_i64, 0..3_u8, 0..4_usize), 0..80),
        cut in 1..9_usize,
        table in prop_oneof![Just(Table::Samples), Just(Table::Logs), Just(Table::Spans)],
    ) {
        // Within one source a sample's series and time are unique, as the head keeps them.
        check(table, rows, 4, cut);
    }
}

#[test]
fn sources_that_do_not_overlap_pass_as_slices() {
    let rows = |group: u8| -> Vec<Row> { (0..20_000).map(|time| (group, time, 0, 0)).collect() };
    let sources = vec![vec![build(Table::Samples, &rows(1))], vec![build(Table::Samples, &rows(0))]];
    let first: *const f64 = sources[1][0].column(3).as_primitive::<Float64Type>().values().as_ptr();
    let merged = run_merge(Table::Samples, sources, &context());
    assert!(merged.iter().all(|rows| rows.num_rows() <= BATCH_ROWS));
    assert_eq!(merged.iter().map(RecordBatch::num_rows).sum::<usize>(), 40_000);
    assert_eq!(merged[0].column(3).as_primitive::<Float64Type>().values().as_ptr(), first, "no row was copied");
}

#[test]
fn the_end_of_time_is_no_end_of_a_tie() {
    let rows = [(1, i64::MAX, 1, 0), (2, 0, 1, 0)];
    let both = vec![vec![build(Table::Logs, &rows)], vec![build(Table::Logs, &rows)]];
    assert_eq!(whole(Table::Logs, &run_merge(Table::Logs, both, &context())).num_rows(), 2);
}

#[test]
fn the_last_trace_at_the_end_of_time_is_merged() {
    let rows = [(0, 5, 1, 0), (u8::MAX, i64::MAX, 1, 0), (u8::MAX, i64::MAX, 2, 0)];
    let both = vec![vec![build(Table::Spans, &rows)], vec![build(Table::Spans, &rows)]];
    assert_eq!(whole(Table::Spans, &run_merge(Table::Spans, both, &context())), build(Table::Spans, &rows));
}

#[test]
fn a_merge_stops_when_the_caller_goes_away_and_gives_memory_back() {
    let share = Share::root("test", 1 << 30);
    let context = Context::new(Tenant::single(), Arc::clone(&share));
    let rows: Vec<Row> = (0..10).map(|time| (1, time, 0, 0)).collect();
    let request =
        ScanRequest { identities: Some(Arc::new(identities())), ..ScanRequest::all(Table::Samples, TimeRange::ALL) };
    let source = || stream::iter([Ok(build(Table::Samples, &rows))]).boxed();
    context.cancellation().cancel();
    let merged = merge(&request, vec![source(), source()], &context).try_collect::<Vec<_>>();
    let stopped = block_on(merged).expect_err("is canceled");
    assert_eq!(stopped.kind(), crate::Kind::Canceled);
    assert_eq!(share.used_bytes(), 0);
}

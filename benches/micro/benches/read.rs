//! The way out: by identity, everything, needles in logs, traces by id.

use std::sync::Arc;

use criterion::{Criterion, Throughput};
use futures::TryStreamExt;
use query::logql::{Direction, Limits, Params};
use storage::model::identity::IdentityId;
use storage::model::matcher::{MatchOp, Matcher};
use storage::model::time::TimeRange;
use storage::{Scan, ScanRequest, Signal, Table};
use tokio::runtime::Runtime;

use super::bed::{self, Bed, START_NS, STEP_MS};

/// Lines or series of one append while a store is filled.
const BATCH_ROWS: usize = 10_000;
/// Appends between two flushes.
const APPENDS_PER_FLUSH: usize = 50;

pub fn benches(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("threads");
    metrics(criterion, &runtime);
    logs(criterion, &runtime);
    traces(criterion, &runtime);
}

async fn count(bed: &Bed, request: ScanRequest) -> usize {
    let context = bed.context();
    let stream = bed.engine.scan(request, &context).await.expect("scans");
    stream.try_fold(0, |rows, batch| async move { Ok(rows + batch.num_rows()) }).await.expect("reads")
}

fn metrics(criterion: &mut Criterion, runtime: &Runtime) {
    let series = bed::size("TERCET_BENCH_SERIES", 2_000, 50);
    let rounds = u32::try_from(if bed::is_measured() { 86_400_000 / STEP_MS } else { 40 }).expect("fits");
    let bed = runtime.block_on(async {
        let bed = Bed::new().await;
        let rounds_per_flush = (BATCH_ROWS * APPENDS_PER_FLUSH / series).max(1);
        for round in 0..rounds {
            for from in (0..series).step_by(BATCH_ROWS) {
                bed.send(bed::samples(from..(from + BATCH_ROWS).min(series), round)).await;
            }
            if (round as usize + 1).is_multiple_of(rounds_per_flush) {
                bed.engine.flush(None).await.expect("flushes");
            }
        }
        bed.engine.flush(None).await.expect("flushes");
        bed
    });
    let ten: Arc<Vec<IdentityId>> = runtime.block_on(async {
        let host = Matcher::new("host", MatchOp::Equal, "host-0").expect("a matcher");
        let context = bed.context();
        let found = bed.engine.identities(Signal::Metrics, &[vec![host]], TimeRange::ALL, &context).await;
        Arc::new(found.expect("finds").iter().take(10).map(|identity| identity.id).collect())
    });
    let mut group = criterion.benchmark_group(format!("{series} series of {rounds} samples"));
    group.bench_function("10 series", |b| {
        b.iter(|| {
            let request =
                ScanRequest { identities: Some(Arc::clone(&ten)), ..ScanRequest::all(Table::Samples, TimeRange::ALL) };
            assert_eq!(runtime.block_on(count(&bed, request)), ten.len() * rounds as usize);
        });
    });
    group.throughput(Throughput::Elements(series as u64 * u64::from(rounds)));
    group.bench_function("all series", |b| {
        b.iter(|| {
            let rows = runtime.block_on(count(&bed, ScanRequest::all(Table::Samples, TimeRange::ALL)));
            assert_eq!(rows, series * rounds as usize);
        });
    });
    group.finish();
}

/// Needles in logs; the present ones occur in one line.
fn logs(criterion: &mut Criterion, runtime: &Runtime) {
    let lines = bed::size("TERCET_BENCH_LINES", 1_000_000, 5_000);
    let bed = runtime.block_on(async {
        let bed = Bed::new().await;
        for (at, number) in (0..lines).step_by(BATCH_ROWS).enumerate() {
            bed.send(bed::lines(number as u64, BATCH_ROWS.min(lines - number))).await;
            if (at + 1).is_multiple_of(APPENDS_PER_FLUSH) {
                bed.engine.flush(None).await.expect("flushes");
            }
        }
        bed.engine.flush(None).await.expect("flushes");
        bed
    });
    let token = format!("{:016x}", tercet_load::data::noise(lines as u64 / 2));
    let needles = [
        ("a whole token", token.as_str(), 1),
        ("a part of a token", &token[2..14], 1),
        ("absent", "0badc0de0badc0de", 0),
        ("absent part", "badc0de0bad", 0),
    ];
    let mut group = criterion.benchmark_group(format!("a needle in {lines} lines"));
    for (name, needle, expected) in needles {
        let text = format!(r#"{{job="load"}} |= "{needle}""#);
        let end_ns = START_NS + (lines as i64 + 1) * 1_000_000;
        let params = Params {
            start_ns: START_NS,
            end_ns,
            step_ns: 0,
            interval_ns: 0,
            limit: 100,
            direction: Direction::Backward,
        };
        group.bench_function(name, |b| {
            b.iter(|| {
                let (context, limits) = (bed.context(), Limits::default());
                let found = query::logql::range(bed.engine.as_ref(), &text, &params, &limits, &context);
                let answer = runtime.block_on(found).expect("answers");
                assert_eq!(answer.lines_passed, expected, "{text}");
            });
        });
    }
    group.finish();
}

fn traces(criterion: &mut Criterion, runtime: &Runtime) {
    let traces = bed::size("TERCET_BENCH_SPANS", 1_000_000, 2_000) / tercet_load::data::SPANS_PER_TRACE;
    let bed = runtime.block_on(async {
        let bed = Bed::new().await;
        for (at, number) in (0..traces).step_by(1_000).enumerate() {
            bed.send(bed::traces(number as u64, 1_000.min(traces - number))).await;
            if (at + 1).is_multiple_of(APPENDS_PER_FLUSH) {
                bed.engine.flush(None).await.expect("flushes");
            }
        }
        bed.engine.flush(None).await.expect("flushes");
        bed
    });
    let mut group =
        criterion.benchmark_group(format!("a trace among {} spans", traces * tercet_load::data::SPANS_PER_TRACE));
    for (name, number, expected) in [("present", traces as u64 / 2, true), ("absent", traces as u64 + 7, false)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let context = bed.context();
                let found = query::traceql::trace_by_id(bed.engine.as_ref(), bed::trace_id(number), None, &context);
                assert_eq!(runtime.block_on(found).expect("answers").is_some(), expected);
            });
        });
    }
    group.finish();
}

//! The way in: acknowledged appends, flushes, compaction.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use storage::{Batch, Signal};
use tokio::runtime::Runtime;

use super::bed::{self, Bed};

/// Lines of one append.
const LINES_PER_APPEND: usize = 100;

pub fn benches(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("threads");
    append(criterion, &runtime);
    flush(criterion, &runtime);
    compaction(criterion, &runtime);
}

/// Appends from senders at once, each waiting for its fsync: how many share one.
fn append(criterion: &mut Criterion, runtime: &Runtime) {
    let mut group = criterion.benchmark_group("append 100 lines");
    for senders in [1_usize, 8, 64] {
        group.throughput(Throughput::Elements((senders * LINES_PER_APPEND) as u64));
        group.bench_function(format!("{senders} at once"), |b| {
            let bed = runtime.block_on(Bed::new());
            let mut number = 0;
            b.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let batches: Vec<Batch> = (0..senders)
                        .map(|_| {
                            number += LINES_PER_APPEND as u64;
                            bed::lines(number, LINES_PER_APPEND)
                        })
                        .collect();
                    let begun = Instant::now();
                    let appends = batches.into_iter().map(|batch| bed.send(batch));
                    runtime.block_on(futures::future::join_all(appends));
                    spent += begun.elapsed();
                }
                spent
            });
        });
    }
    group.finish();
}

/// Makes a number of rows in ten batches.
type Make = fn(usize) -> Vec<Batch>;

/// What is flushed and compacted.
const KINDS: [(&str, Signal, Make); 3] = [
    ("samples", Signal::Metrics, |rows| (0..10).map(|round| bed::samples(0..rows / 10, round)).collect()),
    ("lines", Signal::Logs, |rows| (0..10).map(|part| bed::lines((part * rows / 10) as u64, rows / 10)).collect()),
    ("spans", Signal::Traces, |rows| (0..10).map(|part| bed::traces((part * rows / 100) as u64, rows / 100)).collect()),
];

fn rows() -> usize {
    bed::size("TERCET_BENCH_FLUSH_ROWS", 200_000, 2_000)
}

/// Heads into committed blocks with their sidecars.
fn flush(criterion: &mut Criterion, runtime: &Runtime) {
    let mut group = criterion.benchmark_group("flush");
    group.throughput(Throughput::Elements(rows() as u64));
    for (name, signal, make) in KINDS {
        group.bench_function(name, |b| {
            b.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let bed = runtime.block_on(Bed::new());
                    runtime.block_on(async {
                        for batch in make(rows()) {
                            bed.send(batch).await;
                        }
                    });
                    let begun = Instant::now();
                    runtime.block_on(bed.engine.flush(Some(signal))).expect("flushes");
                    spent += begun.elapsed();
                }
                spent
            });
        });
    }
    group.finish();
}

/// Ten blocks of a day into one, with their sidecars.
fn compaction(criterion: &mut Criterion, runtime: &Runtime) {
    let mut group = criterion.benchmark_group("compaction of ten blocks");
    group.throughput(Throughput::Elements(rows() as u64));
    for (name, signal, make) in KINDS {
        group.bench_function(name, |b| {
            b.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let bed = runtime.block_on(Bed::new());
                    runtime.block_on(async {
                        for batch in make(rows()) {
                            bed.send(batch).await;
                            bed.engine.flush(Some(signal)).await.expect("flushes");
                        }
                    });
                    let begun = Instant::now();
                    runtime.block_on(bed.engine.compact(Some(signal))).expect("compacts");
                    spent += begun.elapsed();
                }
                spent
            });
        });
    }
    group.finish();
}

//! Compaction as a whole: the same rows in fewer blocks, whatever happens in between.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::paths;

impl Bed {
    /// Blocks of `table`.
    async fn blocks(&self, table: Table) -> usize {
        self.engine.tables(&self.tenant).snapshot(table).await.expect("reads").blocks.len()
    }

    async fn send_and_flush(&mut self, seconds: impl IntoIterator<Item = i64>) {
        for second in seconds {
            self.send(all(second)).await;
            self.engine.flush(None).await.expect("flushes");
        }
    }

    fn stop_compaction_at(&self, stop: Step) {
        let hook = move |step: Step| {
            if step == stop { Err(Error::new(Kind::Unavailable, "stopped on purpose")) } else { Ok(()) }
        };
        *self.engine.hook.lock() = Some(Arc::new(hook));
    }
}

#[tokio::test]
async fn many_blocks_become_one_per_day_with_the_same_rows() {
    let mut bed = Bed::new().await;
    // Seconds 9 to 12 pass midnight; of 10 each day has rows.
    bed.send_and_flush([0, 3, 9, 12, 10, 11, 8]).await;
    assert!(bed.blocks(Table::Samples).await > 7);
    bed.engine.compact(None).await.expect("compacts");
    bed.check().await;
    for table in Table::ALL.into_iter().filter(|table| *table != Table::MetricMetadata) {
        assert_eq!(bed.blocks(table).await, 2, "`{}`: one block a day", table.name());
    }
    // Metadata has no time and lies under the day of its flush.
    assert_eq!(bed.blocks(Table::MetricMetadata).await, 1);
    assert_eq!(bed.stored(Table::Samples).await, 7 * 3 * 2);
    let before = bed.engine.stats();
    bed.engine.compact(None).await.expect("has nothing to do");
    assert_eq!(bed.engine.stats(), before);
    bed.reopen().await;
    bed.check().await;
    bed.send_and_flush([13]).await;
    bed.engine.compact(Some(Signal::Logs)).await.expect("compacts");
    assert_eq!((bed.blocks(Table::Logs).await, bed.blocks(Table::Samples).await), (2, 3));
    bed.check().await;
}

/// The same batches are sent to two engines with names of their own, so that both flush them.
#[tokio::test]
async fn repeats_are_dropped_and_the_first_stays() {
    let mut bed = Bed::new().await;
    bed.send_and_flush([0, 1]).await;
    let folder = tempfile::tempdir().expect("creates");
    let other = open(config(folder.path()), &bed.store, &bed.clock).await;
    for batch in [0, 1].into_iter().flat_map(all) {
        other.append(&bed.tenant, batch).await.expect("appends");
    }
    let mut builder = MetricsBuilder::new();
    let series = builder.series(Labels::from_pairs([("__name__", "m"), ("i", "2")]));
    builder.sample(series, TimestampMs(START_NS / NS_PER_MS + 2), 99.0, None);
    other.append(&bed.tenant, builder.finish().expect("builds")).await.expect("appends");
    other.close().await.expect("closes");
    bed.reopen().await;
    bed.check().await;
    assert_eq!(bed.stored(Table::Samples).await, 2 * 12);
    bed.engine.compact(None).await.expect("compacts");
    assert_eq!(bed.stored(Table::Samples).await, 12);
    assert_eq!(bed.stored(Table::Logs).await, 18);
    assert_eq!(bed.stored(Table::Series).await, 3);
    bed.check().await;
    let repeats = bed.engine.stats().signals.iter().map(|signal| signal.compaction_repeats_total).sum::<u64>();
    assert!(repeats > 12 + 18, "{repeats}");
}

#[tokio::test]
async fn a_crash_between_any_two_steps_of_a_compaction_loses_nothing_and_repeats_nothing() {
    for step in [Step::Merged as fn(Table) -> Step, Step::Replaced] {
        for table in Table::ALL {
            let signal = table.signal();
            let batch = |second: i64| all(second).into_iter().filter(move |batch| batch.signal == signal);
            let mut bed = Bed::new().await;
            bed.send(batch(7)).await;
            bed.engine.flush(Some(signal)).await.expect("flushes");
            // Who starts anew does not know which identities are stored and writes them again.
            bed.reopen().await;
            bed.send(batch(8)).await;
            bed.engine.flush(Some(signal)).await.expect("flushes");
            bed.stop_compaction_at(step(table));
            bed.engine.compact(Some(signal)).await.expect_err("is stopped");
            bed.check().await;
            bed.send(batch(9)).await;
            bed.reopen().await;
            bed.engine.flush(Some(signal)).await.expect("flushes");
            bed.engine.compact(Some(signal)).await.expect("compacts");
            bed.check().await;
            assert!(bed.blocks(table).await <= 2);
            let rows = [(Table::Samples, 3 * 6), (Table::Logs, 3 * 9), (Table::Spans, 3 * 4)];
            for (main, rows) in rows.into_iter().filter(|(main, _)| main.signal() == signal) {
                assert_eq!(bed.stored(main).await, rows, "{table:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushes_go_on_while_blocks_are_merged() {
    let mut bed = Bed::new().await;
    bed.send_and_flush([0, 1, 2]).await;
    let (engine, tenant) = (Arc::clone(&bed.engine), bed.tenant.clone());
    let runtime = tokio::runtime::Handle::current();
    let next = AtomicUsize::new(3);
    let hook = move |step: Step| {
        if matches!(step, Step::Merged(Table::Samples | Table::Logs | Table::Spans)) {
            let second = i64::try_from(next.fetch_add(1, Ordering::SeqCst)).expect("small");
            assert!(second < 20, "a round ends though more is flushed");
            let (engine, tenant, runtime) = (Arc::clone(&engine), tenant.clone(), runtime.clone());
            let work = async move {
                for batch in all(second) {
                    engine.append(&tenant, batch).await.expect("appends");
                }
                engine.flush(None).await.expect("flushes");
            };
            std::thread::spawn(move || runtime.block_on(work)).join().expect("ends");
        }
        Ok(())
    };
    *bed.engine.hook.lock() = Some(Arc::new(hook));
    bed.engine.compact(None).await.expect("compacts");
    *bed.engine.hook.lock() = None;
    let seconds = bed.engine.stats().signals[0].appends_total;
    assert!(seconds > 3);
    bed.sent.extend((3..i64::try_from(seconds).expect("small")).flat_map(all));
    bed.check().await;
    assert_eq!(bed.stored(Table::Samples).await, seconds * 6);
    assert_eq!(bed.engine.stats().signals.iter().map(|signal| signal.compaction_conflicts_total).sum::<u64>(), 0);
}

#[tokio::test]
async fn a_block_that_cannot_be_read_is_left_aside_and_the_rest_goes_on() {
    let mut bed = Bed::new().await;
    bed.send_and_flush(0..7).await;
    let snapshot = bed.engine.tables(&bed.tenant).snapshot(Table::Logs).await.expect("reads");
    let bad = Arc::clone(&snapshot.blocks[3]);
    let object = paths::block_object(&bed.tenant, Table::Logs, &bad.path);
    bed.store.put(&object, Bytes::from_static(b"PAR1 is not enough PAR1")).await.expect("writes");
    bed.reopen().await;
    bed.engine.compact(None).await.expect("goes on");
    let stats = bed.engine.stats();
    let logs = stats.signals.iter().find(|stats| stats.signal == Signal::Logs).expect("is there");
    assert_eq!((logs.unreadable_blocks, logs.compaction_errors_total), (1, 1));
    let blocks = bed.engine.tables(&bed.tenant).snapshot(Table::Logs).await.expect("reads").blocks.clone();
    let rows: Vec<u64> = blocks.iter().map(|block| block.rows).collect();
    assert_eq!((rows, blocks[1].path.as_str()), (vec![3 * 9, 9, 3 * 9], bad.path.as_str()));
    assert_eq!(bed.blocks(Table::Samples).await, 1);
    bed.engine.compact(None).await.expect("has nothing to do");
    assert_eq!(bed.engine.stats(), stats, "it is not read again");
}

#[tokio::test]
async fn a_store_that_fails_delays_a_compaction() {
    let faults = [
        Fault::fail(Operation::Put, "samples/date="),
        Fault::fail(Operation::Put, "samples/_index/"),
        Fault::fail(Operation::Get, "logs/date="),
        Fault::lose_response(Operation::Put, "logs/_delta_log/"),
        Fault::fail(Operation::Put, "series/_delta_log/"),
    ];
    for fault in faults {
        let objects = Arc::new(FaultyStore::new(Arc::new(InMemory::new())));
        let mut bed = Bed::over(Arc::new(Store::over(Arc::clone(&objects) as Arc<dyn ObjectStore>, "memory://"))).await;
        bed.send_and_flush([0, 1]).await;
        objects.inject(fault.clone());
        // Some of these are mended beneath, at once.
        let _ = bed.engine.compact(None).await;
        bed.check().await;
        bed.engine.compact(None).await.expect("compacts");
        bed.check().await;
        bed.reopen().await;
        bed.check().await;
        assert_eq!((bed.blocks(Table::Samples).await, bed.stored(Table::Samples).await), (1, 12), "{fault:?}");
        assert_eq!((bed.blocks(Table::Logs).await, bed.stored(Table::Logs).await), (1, 18), "{fault:?}");
    }
}

/// Appends, flushes, compactions and restarts in any order: every scan is as the reference says. More rounds with
/// `TERCET_TEST_ROUNDS`.
#[tokio::test]
async fn any_order_of_flushes_and_compactions_reads_the_same() {
    let rounds = std::env::var("TERCET_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    for round in 0..rounds {
        let seed = 7_000 + round;
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let mut bed = Bed::new().await;
        for _ in 0..20 {
            let second = random.random_range(0..20);
            match random.random_range(0..10) {
                0..4 => bed.send([metrics(second), logs(second), traces(second)]).await,
                4..7 => bed.engine.flush(None).await.expect("flushes"),
                7 => bed.engine.compact(Some(Signal::ALL[random.random_range(0..3)])).await.expect("compacts"),
                8 => bed.engine.compact_tick().await,
                _ => bed.reopen().await,
            }
            if random.random_bool(0.25) {
                bed.check().await;
            }
        }
        bed.check().await;
        bed.engine.flush(None).await.expect("flushes");
        bed.engine.compact(None).await.expect("compacts");
        bed.check().await;
        let start = START_NS + random.random_range(0..20) * NS_PER_S;
        bed.check_range(TimeRange::new(start, start + 5 * NS_PER_S)).await;
    }
}

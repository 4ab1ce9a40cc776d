//! Journeys through crashes and failures in a row: each was lost, repeated or stuck once.

use super::*;
use crate::store::faulty::{Fault, FaultyStore, Operation};

fn stopped() -> Error {
    Error::new(Kind::Unavailable, "stopped on purpose")
}

impl Bed {
    pub(super) async fn faulty() -> (Self, Arc<FaultyStore>) {
        let objects = Arc::new(FaultyStore::new(Arc::new(InMemory::new())));
        let store = Store::over(Arc::clone(&objects) as Arc<dyn ObjectStore>, "memory://");
        (Self::over(Arc::new(store)).await, objects)
    }

    /// Lets each flush end at `stop`, as if the process died there; `None` lets them through again.
    pub(super) fn stop_at(&self, stop: Option<Step>) {
        let hook = move |step: Step| if Some(step) == stop { Err(stopped()) } else { Ok(()) };
        *self.engine.hook.lock() = Some(Arc::new(hook));
    }
}

#[tokio::test]
async fn a_crash_between_two_commits_needs_no_append_to_go_on() {
    for signal in Signal::ALL {
        let spec = signal.spec();
        let tables = spec.facts.iter().copied().chain([spec.identities]);
        for stop in tables {
            let mut bed = Bed::new().await;
            bed.send(all(8)).await;
            bed.stop_at(Some(Step::Committed(stop)));
            bed.engine.flush(Some(signal)).await.expect_err("is stopped");
            bed.reopen().await;
            bed.check().await;
            bed.engine.flush(None).await.expect("flushes");
            bed.check().await;
            bed.send(all(9)).await;
            bed.reopen().await;
            bed.engine.flush(None).await.expect("flushes");
            bed.check().await;
            assert_eq!(bed.stored(Table::Samples).await, 2 * 3 * 2, "{stop:?}");
            assert_eq!(bed.stored(Table::Logs).await, 2 * 9, "{stop:?}");
            assert_eq!(bed.stored(Table::Spans).await, 2 * 4, "{stop:?}");
        }
    }
}

#[tokio::test]
async fn an_append_during_the_first_flush_after_a_crash_survives_the_next_crash() {
    let mut bed = Bed::new().await;
    bed.send([logs(8)]).await;
    bed.stop_at(Some(Step::Frozen));
    bed.engine.flush(None).await.expect_err("is stopped");
    bed.reopen().await;
    let (engine, tenant) = (Arc::clone(&bed.engine), bed.tenant.clone());
    let appended = move |step: Step| {
        if step == Step::Flushed {
            // The hook is not async: the append runs beside it until it is acknowledged.
            let (engine, tenant) = (Arc::clone(&engine), tenant.clone());
            let append = move || futures::executor::block_on(engine.append(&tenant, logs(9))).expect("appends");
            std::thread::spawn(append).join().expect("ends");
        }
        Ok(())
    };
    *bed.engine.hook.lock() = Some(Arc::new(appended));
    bed.engine.flush(Some(Signal::Logs)).await.expect("flushes");
    *bed.engine.hook.lock() = None;
    bed.sent.push(logs(9));
    bed.check().await;
    bed.reopen().await;
    bed.check().await;
    assert_eq!(bed.engine.stats().signals[1].replayed_records_total, 1);
}

#[tokio::test]
async fn a_commit_that_is_not_read_back_hides_nothing_and_fences_nobody() {
    let (mut bed, objects) = Bed::faulty().await;
    for second in [0, 1] {
        bed.send([logs(second)]).await;
        bed.engine.flush(None).await.expect("flushes");
    }
    bed.send([logs(2)]).await;
    let inject = Arc::clone(&objects);
    let hook = move |step: Step| {
        if step == Step::Prepared {
            for _ in 0..8 {
                inject.inject(Fault::fail(Operation::List, "logs/_delta_log"));
                inject.inject(Fault::fail(Operation::Get, "logs/_delta_log/00000000000000000003.json"));
            }
        }
        Ok(())
    };
    *bed.engine.hook.lock() = Some(Arc::new(hook));
    let failed = bed.engine.flush(None).await.expect_err("the store does not answer");
    assert_eq!(failed.kind(), Kind::Unavailable, "{failed}");
    *bed.engine.hook.lock() = None;
    bed.check().await;
    bed.send([logs(3)]).await;
    let mut tries = 0;
    while let Err(error) = bed.engine.flush(None).await {
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
        bed.check().await;
        tries += 1;
        assert!(tries < 20 && !bed.engine.stats().fenced);
    }
    bed.check().await;
    assert_eq!(bed.stored(Table::Logs).await, 4 * 9);
    bed.reopen().await;
    bed.check().await;
}

pub(super) fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("creates");
    for entry in std::fs::read_dir(from).expect("lists") {
        let entry = entry.expect("reads");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("reads").is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("copies")),
        }
    }
}

/// The data folder comes back as it was before a flush, as from a backup.
#[tokio::test]
async fn what_is_appended_to_a_restored_folder_survives_a_crash() {
    for flushed_before in [false, true] {
        let mut bed = Bed::new().await;
        bed.send(all(0)).await;
        if flushed_before {
            bed.engine.flush(None).await.expect("flushes");
        }
        let backup = tempfile::tempdir().expect("creates");
        copy_folder(bed.data.path(), backup.path());
        for second in 1..5 {
            bed.send(all(second)).await;
        }
        bed.engine.flush(None).await.expect("flushes");
        bed.engine.close().await.expect("closes");
        std::fs::remove_dir_all(bed.data.path()).expect("removes");
        copy_folder(backup.path(), bed.data.path());
        bed.clock.set(TimestampNs(START_NS + NS_PER_S));
        bed.reopen().await;
        bed.check().await;
        bed.send(all(5)).await;
        bed.reopen().await;
        bed.check().await;
        bed.engine.flush(None).await.expect("flushes");
        bed.check().await;
        bed.reopen().await;
        bed.check().await;
    }
}

/// Two folders under one writer's name: whatever the marks of one say, the rows of the other are not lost.
#[tokio::test]
async fn a_mark_of_another_folder_proves_nothing_about_a_wal() {
    let mut bed = Bed::new().await;
    let (data_a, data_b) = (tempfile::tempdir().expect("creates"), tempfile::tempdir().expect("creates"));
    let named = |data: &Path| EngineConfig { writer_id: Some("w".to_owned()), ..config(data) };
    let a = open(named(data_a.path()), &bed.store, &bed.clock).await;
    a.append(&bed.tenant, metrics(0)).await.expect("appends");
    a.append(&bed.tenant, logs(0)).await.expect("appends");
    drop(a);
    bed.clock.set(TimestampNs(START_NS + NS_PER_S));
    let b = open(named(data_b.path()), &bed.store, &bed.clock).await;
    b.append(&bed.tenant, metrics(1)).await.expect("appends");
    b.append(&bed.tenant, logs(1)).await.expect("appends");
    b.close().await.expect("flushes");
    bed.clock.set(TimestampNs(START_NS + 2 * NS_PER_S));
    bed.sent = vec![metrics(0), metrics(1), logs(0), logs(1)];
    bed.data = data_a;
    for second in [2, 3] {
        // The first engine's task may still hold the folder.
        free(bed.data.path()).await;
        bed.engine = open(named(bed.data.path()), &bed.store, &bed.clock).await;
        bed.check().await;
        bed.send([metrics(second), logs(second)]).await;
        let reading = EngineConfig { read_only: true, ..config(Path::new("/nowhere")) };
        bed.engine = open(reading, &bed.store, &bed.clock).await;
    }
}

#[tokio::test]
async fn a_tenant_whose_flush_fails_does_not_stop_the_others() {
    let (bed, objects) = Bed::faulty().await;
    let tenants = ["a", "b", "c"].map(|name| Tenant::new(name).expect("fits"));
    for round in 0..3 {
        for tenant in &tenants {
            bed.engine.append(tenant, logs(round)).await.expect("appends");
        }
        // What an earlier round left is tried before and after the others are frozen.
        for _ in 0..=round.min(1) {
            objects.inject(Fault::fail(Operation::Put, "b/logs/date="));
        }
        let failed = bed.engine.flush(Some(Signal::Logs)).await.expect_err("b fails");
        assert_eq!(failed.kind(), Kind::Unavailable);
        for tenant in &tenants {
            let sent: Vec<Batch> = (0..=round).map(logs).collect();
            check(&bed.engine, &sent, tenant, TimeRange::ALL).await;
        }
        let blocks = |tenant: &Tenant| {
            let tables = bed.engine.tables(tenant);
            async move { tables.snapshot(Table::Logs).await.expect("reads").blocks.len() as i64 }
        };
        assert_eq!((blocks(&tenants[0]).await, blocks(&tenants[2]).await), (round + 1, round + 1));
        assert_eq!(blocks(&tenants[1]).await, 0);
    }
    // What b still needs of the WAL is there.
    let mut bed = bed;
    bed.reopen().await;
    for tenant in &tenants {
        check(&bed.engine, &[logs(0), logs(1), logs(2)], tenant, TimeRange::ALL).await;
    }
    bed.engine.flush(None).await.expect("flushes");
    for tenant in &tenants {
        check(&bed.engine, &[logs(0), logs(1), logs(2)], tenant, TimeRange::ALL).await;
    }
    assert_eq!(bed.engine.stats().signals[1].wal_segments, 1);
}

#[tokio::test]
async fn a_flush_that_waited_for_another_does_not_run_after_the_close() {
    let mut bed = Bed::new().await;
    bed.send([logs(0)]).await;
    bed.stop_at(Some(Step::Frozen));
    bed.engine.close().await.expect_err("the last flush fails");
    bed.stop_at(None);
    bed.engine.tick().await;
    let refused = bed.engine.flush(None).await.expect_err("is closed");
    assert_eq!(refused.kind(), Kind::Unavailable);
    assert_eq!(bed.stored(Table::Logs).await, 0);
    bed.reopen().await;
    bed.check().await;
}

#[tokio::test]
async fn while_the_store_is_down_memory_is_bounded() {
    let mut bed = Bed::new().await;
    let data = tempfile::tempdir().expect("creates");
    let small = EngineConfig { unflushed_bytes_max: 100_000, ..config(data.path()) };
    bed.engine = open(small, &bed.store, &bed.clock).await;
    bed.stop_at(Some(Step::Prepared));
    let mut second = 0;
    let refused = loop {
        match bed.engine.append(&bed.tenant, logs(second)).await {
            Ok(_) => bed.sent.push(logs(second)),
            Err(error) => break error,
        }
        second += 1;
        if second % 4 == 0 {
            bed.engine.flush(None).await.expect_err("the store is down");
        }
    };
    assert_eq!(refused.kind(), Kind::Busy);
    assert!(refused.to_string().contains("over their limit of 100000"), "{refused}");
    assert!(bed.engine.stats().signals[1].head_bytes < 120_000);
    bed.engine.append(&bed.tenant, metrics(0)).await.expect("each signal has a limit of its own");
    bed.sent.push(metrics(0));
    bed.check().await;
    bed.stop_at(None);
    bed.engine.flush(None).await.expect("flushes");
    bed.send([logs(second)]).await;
    bed.check().await;
}

#[tokio::test]
async fn metadata_lies_under_the_day_of_its_flush() {
    let mut bed = Bed::new().await;
    let today = TimestampNs(START_NS).day();
    for day in [0, 1] {
        bed.clock.set(TimestampNs(START_NS + day * NS_PER_DAY));
        for _ in 0..2 {
            bed.send([metrics(0)]).await;
            bed.engine.flush(None).await.expect("flushes");
        }
    }
    let snapshot = bed.engine.tables(&bed.tenant).snapshot(Table::MetricMetadata).await.expect("reads");
    let mut days: Vec<i32> = snapshot.blocks.iter().map(|block| block.day.0 - today.0).collect();
    days.sort_unstable();
    assert_eq!(days, [0, 1], "once for each day, since days are dropped whole");
    bed.check().await;
}

#[tokio::test]
async fn tenants_that_are_only_asked_for_are_forgotten() {
    let mut bed = Bed::new().await;
    bed.send([logs(0)]).await;
    bed.engine.flush(None).await.expect("flushes");
    for i in 0..2 * TENANTS_ASKED_MAX {
        bed.engine.tables(&Tenant::new(&format!("t{i}")).expect("fits"));
    }
    assert!(bed.engine.reader.tenants.lock().len() <= TENANTS_ASKED_MAX + 1);
    assert!(bed.engine.reader.tenants.lock().get(&bed.tenant).is_some_and(|opened| opened.written));
}

#[tokio::test]
async fn a_full_limit_of_unflushed_bytes_is_flushed_away_by_the_next_tick() {
    let mut bed = Bed::new().await;
    let data = tempfile::tempdir().expect("creates");
    // The limit below the size at which a head is flushed: without care nothing would ever make room.
    let odd = EngineConfig { unflushed_bytes_max: 50_000, head_bytes_max: 1 << 30, ..config(data.path()) };
    bed.engine = open(odd, &bed.store, &bed.clock).await;
    for second in 0..60 {
        let batch = logs(second);
        match bed.engine.append(&bed.tenant, batch.clone()).await {
            Ok(_) => bed.sent.push(batch),
            Err(error) => {
                assert_eq!(error.kind(), Kind::Busy);
                // The background task may be at it already: then a tick has nothing to do but to let it.
                bed.engine.tick().await;
                let room = async {
                    while bed.engine.append(&bed.tenant, batch.clone()).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                };
                tokio::time::timeout(Duration::from_secs(20), room).await.expect("there is room again");
                bed.sent.push(batch);
            }
        }
    }
    assert!(bed.engine.stats().signals[1].flushes_total > 0);
    bed.check().await;
}

#[tokio::test]
async fn a_head_that_grew_large_becomes_several_blocks() {
    let mut bed = Bed::new().await;
    let data = tempfile::tempdir().expect("creates");
    // The background task leaves it alone.
    let large = EngineConfig { head_bytes_max: 1 << 30, unflushed_bytes_max: 2 << 30, ..config(data.path()) };
    bed.engine = open(large, &bed.store, &bed.clock).await;
    // Characters that hardly compress: files are cut by their size.
    let mut state = 1_u64;
    let mut line = || -> String {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b' ' + u8::try_from(state >> 58).unwrap_or(0))
        };
        (0..2 << 20).map(|_| next()).collect()
    };
    for second in 0..20 {
        let mut builder = LogsBuilder::new();
        let stream = builder.stream(Labels::from_pairs([("app", &format!("a{}", second % 3))]));
        let ns = START_NS - (second % 7) * NS_PER_S;
        builder.entry(stream, TimestampNs(ns), &line(), std::iter::empty()).expect("fits");
        bed.send([builder.finish().expect("builds")]).await;
    }
    bed.engine.flush(None).await.expect("flushes");
    let snapshot = bed.engine.tables(&bed.tenant).snapshot(Table::Logs).await.expect("reads");
    assert_eq!(snapshot.blocks.iter().map(|block| block.rows).sum::<u64>(), 20);
    // 6 of 8 bits of 40 MiB in files of little over 8 MiB.
    assert!((3..=4).contains(&snapshot.blocks.len()), "{}", snapshot.blocks.len());
    bed.check().await;
}

/// All is in the tables, the process died before it cut the WAL: after the restart there is nothing to flush, and all
/// the same the WAL must get room again.
#[tokio::test]
async fn a_full_wal_whose_rows_are_all_in_the_tables_is_cut_after_a_restart() {
    let mut bed = Bed::new().await;
    bed.send([logs(0), logs(1), logs(2)]).await;
    bed.stop_at(Some(Step::Flushed));
    bed.engine.flush(None).await.expect_err("is stopped");
    bed.forget_memory().await;
    let full = EngineConfig { wal_bytes_max: 100, ..config(bed.data.path()) };
    bed.engine = open(full, &bed.store, &bed.clock).await;
    assert_eq!(bed.engine.stats().signals[1].head_rows, 0);
    bed.engine.tick().await;
    bed.send([logs(3)]).await;
    bed.check().await;
    bed.reopen().await;
    bed.check().await;
}

/// Before and behind what nanoseconds can say, and at their ends: acknowledged is acknowledged.
#[tokio::test]
async fn rows_of_absurd_times_survive_a_flush() {
    let mut bed = Bed::new().await;
    let mut samples = MetricsBuilder::new();
    let series = samples.series(Labels::from_pairs([("__name__", "m")]));
    let ms_max = i64::MAX / NS_PER_MS;
    for (value, ms) in (0..).zip([i64::MIN, -ms_max - 2, -ms_max, -1, 0, ms_max, ms_max + 2, i64::MAX]) {
        samples.sample(series, TimestampMs(ms), f64::from(value), None);
    }
    let mut entries = LogsBuilder::new();
    let stream = entries.stream(Labels::from_pairs([("app", "a")]));
    for ns in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX] {
        entries.entry(stream, TimestampNs(ns), "line", std::iter::empty()).expect("fits");
    }
    let mut spans = TracesBuilder::new();
    let resource = spans.resource(&[("service.name".to_owned(), Value::String("s".to_owned()))]);
    for (number, start_ns) in (1..).zip([0, 1, i64::MAX - 1, i64::MAX]) {
        let span = Span { trace_id: [number; 16], span_id: [number; 8], start_ns, ..Span::default() };
        spans.span(&resource, &span).expect("fits");
    }
    bed.send([samples.finish(), entries.finish(), spans.finish()].map(|batch| batch.expect("builds"))).await;
    bed.check().await;
    bed.engine.flush(None).await.expect("flushes");
    bed.check().await;
    assert_eq!(bed.stored(Table::Samples).await, 8);
    assert_eq!(bed.stored(Table::Logs).await, 6);
    assert_eq!(bed.stored(Table::Spans).await, 4);
    bed.reopen().await;
    bed.check().await;
}

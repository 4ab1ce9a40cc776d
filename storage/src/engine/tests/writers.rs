//! Several processes on one store, and clocks that step.

use super::*;
use crate::wal::segment;

/// An engine with a folder of its own on the store of `bed`.
async fn another(bed: &Bed, writer_id: Option<&str>) -> (TempDir, Arc<Engine>) {
    let data = tempfile::tempdir().expect("creates");
    let config = EngineConfig { writer_id: writer_id.map(str::to_owned), ..config(data.path()) };
    let engine = open(config, &bed.store, &bed.clock).await;
    (data, engine)
}

fn pass(bed: &Bed, seconds: i64) {
    bed.clock.set(TimestampNs(bed.clock.now().0 + seconds * NS_PER_S));
}

/// Moves the clock beyond the age of what a process knows of others.
fn pass_refresh_age(bed: &Bed) {
    pass(bed, i64::try_from(bed.engine.config().refresh_age_max.as_secs()).expect("fits"));
}

#[tokio::test]
async fn two_writers_of_one_store_both_answer_with_all_that_was_flushed() {
    let mut bed = Bed::new().await;
    let (_data, other) = another(&bed, None).await;
    for round in 0..4 {
        let (ours, theirs) = (all(2 * round), all(2 * round + 1));
        bed.send(ours).await;
        for batch in theirs {
            other.append(&bed.tenant, batch.clone()).await.expect("appends");
            bed.sent.push(batch);
        }
        // At the same time: each commit meets the other's.
        let (ours, theirs) = tokio::join!(bed.engine.flush(None), other.flush(None));
        ours.expect("flushes");
        theirs.expect("flushes");
        pass_refresh_age(&bed);
        bed.check().await;
        check(&other, &bed.sent, &bed.tenant, TimeRange::ALL).await;
    }
    assert!(!bed.engine.stats().fenced && !other.stats().fenced);
    bed.reopen().await;
    bed.check().await;
}

/// Facts of another writer become known with an own commit, while its new identities are not looked for yet.
#[tokio::test]
async fn a_writer_compacts_blocks_of_another_whose_identities_it_has_not_seen() {
    let mut bed = Bed::new().await;
    let (_data, other) = another(&bed, None).await;
    bed.send([logs(0)]).await;
    bed.engine.flush(None).await.expect("flushes");
    bed.check().await;
    let mut builder = LogsBuilder::new();
    let stream = builder.stream(Labels::from_pairs([("app", "new")]));
    builder.entry(stream, TimestampNs(START_NS), "of another", std::iter::empty()).expect("fits");
    let theirs = builder.finish().expect("builds");
    other.append(&bed.tenant, theirs.clone()).await.expect("appends");
    other.flush(None).await.expect("flushes");
    bed.sent.push(theirs);
    // Its streams are known, so that only the table of entries gets a commit.
    bed.send([logs(1)]).await;
    bed.engine.flush(None).await.expect("flushes");
    bed.engine.compact(None).await.expect("compacts");
    let tables = bed.engine.tables(&bed.tenant);
    assert_eq!(tables.snapshot(Table::Logs).await.expect("reads").blocks.len(), 1);
    pass_refresh_age(&bed);
    bed.check().await;
    check(&other, &bed.sent, &bed.tenant, TimeRange::ALL).await;
}

#[tokio::test]
async fn a_query_that_comes_during_a_look_waits_for_what_it_finds() {
    let (mut bed, objects) = Bed::faulty().await;
    let (_data, other) = another(&bed, None).await;
    for second in 0..6 {
        bed.check().await;
        bed.send([logs(second)]).await;
        bed.engine.flush(None).await.expect("flushes");
        pass_refresh_age(&bed);
        // Every call takes a while, so that the second query comes in the middle of the first one's look.
        objects.set_chaos(Some(crate::store::faulty::Chaos::new(7, 0.0, 0.0, 1.0)));
        let (context, scan) = (context(&bed.tenant), ScanRequest::all(Table::Logs, TimeRange::ALL));
        let count = || async { rows(other.as_ref(), &scan, &context).await.num_rows() };
        let (first, second_count) = tokio::join!(count(), count());
        assert_eq!((first, second_count), (9 * bed.sent.len(), 9 * bed.sent.len()));
        objects.set_chaos(None);
    }
}

#[tokio::test]
async fn a_look_for_what_others_did_costs_one_read_each_and_no_listing() {
    let mut bed = Bed::new().await;
    bed.send(all(0)).await;
    bed.engine.flush(None).await.expect("flushes");
    bed.check().await;
    let scan = ScanRequest::all(Table::Spans, TimeRange::ALL);
    let context = context(&bed.tenant);
    let calls = || (bed.store.calls().gets(), bed.store.calls().lists());
    pass_refresh_age(&bed);
    rows(bed.engine.as_ref(), &scan, &context).await;
    let before = calls();
    for _ in 0..5 {
        rows(bed.engine.as_ref(), &scan, &context).await;
    }
    let reading = (calls().0 - before.0) / 5;
    assert_eq!(calls().1, before.1);
    let before = calls();
    pass_refresh_age(&bed);
    rows(bed.engine.as_ref(), &scan, &context).await;
    let looked = (calls().0 - before.0, calls().1 - before.1);
    assert_eq!(looked, (reading + 2, 0), "one read for the table and one for delete requests");
}

#[tokio::test]
async fn a_writer_answers_from_what_it_knows_while_the_store_does_not() {
    let (mut bed, objects) = Bed::faulty().await;
    bed.send(all(0)).await;
    bed.check().await;
    pass_refresh_age(&bed);
    for _ in 0..8 {
        objects.inject(Fault::fail(Operation::Get, "_delta_log"));
        objects.inject(Fault::fail(Operation::List, "_delta_log"));
    }
    bed.check().await;
}

/// The entries between two looks are gone: the other writer made a checkpoint and cleaned up, days later by its clock.
#[tokio::test]
async fn a_process_that_slept_longer_than_the_log_is_kept_goes_on() {
    let mut bed = Bed::new().await;
    bed.send([logs(0)]).await;
    bed.engine.flush(None).await.expect("flushes");
    bed.check().await;
    let (_data, other) = another(&bed, None).await;
    for second in 1..40 {
        other.append(&bed.tenant, logs(second)).await.expect("appends");
        other.flush(None).await.expect("flushes");
        bed.sent.push(logs(second));
    }
    let entry = |version: u64| object_store::path::Path::from(format!("default/logs/_delta_log/{version:020}.json"));
    for version in 0..32 {
        assert!(bed.store.get(&entry(version)).await.expect("reads").is_some(), "{version}");
        bed.store.delete(&entry(version)).await.expect("deletes");
    }
    pass(&bed, 3 * 86_400);
    // It writes first, then reads; another one reads first.
    bed.send([logs(100)]).await;
    bed.engine.flush(None).await.expect("flushes");
    bed.check().await;
    bed.engine.flush(None).await.expect("flushes");
    pass_refresh_age(&bed);
    check(&other, &bed.sent, &bed.tenant, TimeRange::ALL).await;
}

#[tokio::test]
async fn a_reader_that_slept_longer_than_the_log_is_kept_sees_all() {
    let bed = Bed::new().await;
    let reading = EngineConfig { read_only: true, ..config(Path::new("/nowhere")) };
    let mut sent = Vec::new();
    let mut reader = None;
    for second in 0..40 {
        bed.engine.append(&bed.tenant, logs(second)).await.expect("appends");
        bed.engine.flush(None).await.expect("flushes");
        sent.push(logs(second));
        if second == 3 {
            let engine = open(reading.clone(), &bed.store, &bed.clock).await;
            check(&engine, &sent, &bed.tenant, TimeRange::ALL).await;
            reader = Some(engine);
        }
    }
    for version in 0..32 {
        let entry = object_store::path::Path::from(format!("default/logs/_delta_log/{version:020}.json"));
        bed.store.delete(&entry).await.expect("deletes");
    }
    pass(&bed, 3 * 86_400);
    check(&reader.expect("was opened"), &sent, &bed.tenant, TimeRange::ALL).await;
}

/// As above, but under one name: it wakes up days after it was replaced and must not take the name back unnoticed.
#[tokio::test]
async fn a_writer_that_slept_while_another_took_its_name_is_fenced() {
    let bed = Bed::new().await;
    let (_a, a) = another(&bed, Some("w")).await;
    a.append(&bed.tenant, logs(0)).await.expect("appends");
    a.flush(None).await.expect("flushes");
    pass(&bed, 1);
    let (_b, b) = another(&bed, Some("w")).await;
    for second in 1..40 {
        b.append(&bed.tenant, logs(second)).await.expect("appends");
        b.flush(None).await.expect("flushes");
    }
    for version in 0..32 {
        let entry = object_store::path::Path::from(format!("default/logs/_delta_log/{version:020}.json"));
        bed.store.delete(&entry).await.expect("deletes");
    }
    pass(&bed, 3 * 86_400);
    a.append(&bed.tenant, logs(100)).await.expect("does not know yet");
    let refused = a.flush(None).await.expect_err("is fenced");
    assert_eq!(refused.kind(), Kind::Fenced, "{refused:?}");
    b.append(&bed.tenant, logs(71)).await.expect("appends");
    b.flush(None).await.expect("still has the name");
    let sent: Vec<Batch> = (0..40).chain([71]).map(logs).collect();
    check(&b, &sent, &bed.tenant, TimeRange::ALL).await;
}

#[tokio::test]
async fn a_clock_set_back_delays_no_flush_and_ends_no_refresh() {
    let mut bed = Bed::new().await;
    let reading = EngineConfig { read_only: true, ..config(Path::new("/nowhere")) };
    let reader = open(reading, &bed.store, &bed.clock).await;
    bed.send(all(0)).await;
    bed.engine.flush(None).await.expect("flushes");
    check(&reader, &bed.sent, &bed.tenant, TimeRange::ALL).await;
    bed.send(all(1)).await;
    for hours in [-5, 7, -100] {
        bed.clock.set(TimestampNs(bed.clock.now().0 + hours * 3600 * NS_PER_S));
        // The background task looks every second.
        bed.engine.tick().await;
        bed.check().await;
        pass(&bed, 601);
        bed.engine.tick().await;
        assert!(bed.engine.stats().signals.iter().all(|signal| signal.head_rows == 0), "{hours} hours");
        bed.check().await;
        check(&reader, &bed.sent, &bed.tenant, TimeRange::ALL).await;
        let second = bed.sent.len() as i64;
        bed.send(all(second)).await;
    }
}

#[tokio::test]
async fn a_clock_set_back_does_not_prolong_the_pause_after_a_failed_flush() {
    let (mut bed, objects) = Bed::faulty().await;
    bed.send([logs(0)]).await;
    objects.inject(Fault::fail(Operation::Put, "logs/date="));
    bed.engine.flush(None).await.expect_err("fails");
    bed.clock.set(TimestampNs(START_NS - 9 * 3600 * NS_PER_S));
    bed.engine.tick().await;
    assert_eq!(bed.engine.stats().signals[1].flushes_total, 1);
    bed.check().await;
}

/// The clock decides the first number of a WAL that was lost; set back, it lies below the marks in the tables.
#[tokio::test]
async fn a_lost_wal_and_a_clock_set_back_stop_no_flush_and_lose_nothing() {
    let mut bed = Bed::new().await;
    bed.send(all(0)).await;
    bed.engine.flush(None).await.expect("flushes");
    bed.engine.close().await.expect("closes");
    std::fs::remove_dir_all(bed.data.path().join("wal")).expect("removes");
    bed.clock.set(TimestampNs(START_NS - 3600 * NS_PER_S));
    bed.reopen().await;
    for second in 1..4 {
        bed.send(all(second)).await;
        bed.engine.flush(None).await.expect("flushes");
        bed.check().await;
    }
    bed.send(all(4)).await;
    bed.reopen().await;
    bed.check().await;
    bed.send(all(5)).await;
    bed.reopen().await;
    bed.check().await;
    let first = segment::list(&bed.data.path().join("wal/logs")).expect("lists")[0].0;
    assert!(first > u64::try_from(START_NS / 1000).expect("fits"), "above all marks again: {first}");
}

//! Tests of the whole storage: what was acknowledged is read back, each row once, through flushes, crashes and
//! failures. The reference is [`MemoryScan`] over the batches that were sent.

mod calls;
mod chance;
mod compact;
mod damage;
mod faults;
mod upkeep;
mod writers;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tempfile::TempDir;

use super::*;
use crate::budget::Share;
use crate::clock::ManualClock;
use crate::context::Context;
use crate::model::batch::{LogsBuilder, MetricsBuilder, TracesBuilder};
use crate::model::histogram::Histogram;
use crate::model::identity::{Identity, IdentityId};
use crate::model::labels::Labels;
use crate::model::matcher::{MatchOp, Matcher};
use crate::model::span::Span;
use crate::model::time::{NS_PER_DAY, NS_PER_MS, NS_PER_S, TimeRange, TimestampMs, TimestampNs};
use crate::model::value::Value;
use crate::retention::RetentionPolicy;
use crate::scan::memory::MemoryScan;
use crate::scan::merge::sort_rows;
use crate::scan::{Scan, ScanRequest};
use crate::signal::SortBy;
use crate::store::faulty::{Fault, FaultyStore, Operation};

/// 2026-01-05 23:59:50 UTC: ten seconds before a day ends.
const START_NS: i64 = 1_767_657_590 * NS_PER_S;

/// Sample, histogram, exemplar and metadata of three series at second `second`, out of order.
fn metrics(second: i64) -> Batch {
    let mut builder = MetricsBuilder::new();
    let ms = START_NS / NS_PER_MS + second * 1000;
    for i in [2, 0, 1] {
        let series = builder.series(Labels::from_pairs([("__name__", "m"), ("i", &i.to_string())]));
        let start = (i == 1).then_some(TimestampMs(ms - 5));
        builder.sample(series, TimestampMs(ms + i), second as f64 + 0.1, start);
        builder.sample(series, TimestampMs(ms - 400), f64::from_bits(0x7ff0_0000_0000_0002), None);
        let histogram = Histogram { count: second as f64, ..Histogram::default() };
        builder.histogram(series, TimestampMs(ms), histogram, None);
        builder.exemplar(series, TimestampMs(ms), second as f64, [("trace_id", "t")].into_iter()).expect("fits");
    }
    builder.metadata("m", "counter", "", "help");
    builder.metadata(&format!("m{second}"), "gauge", "bytes", "");
    builder.finish().expect("builds")
}

fn logs(second: i64) -> Batch {
    let mut builder = LogsBuilder::new();
    let ns = START_NS + second * NS_PER_S;
    for i in [1, 0, 2] {
        let stream = builder.stream(Labels::from_pairs([("app", &format!("a{i}"))]));
        for line in ["b", "a", "b"] {
            builder.entry(stream, TimestampNs(ns), line, [("k", "v")].into_iter()).expect("fits");
        }
        builder.entry(stream, TimestampNs(ns - i), "late", std::iter::empty()).expect("fits");
    }
    builder.finish().expect("builds")
}

fn traces(second: i64) -> Batch {
    let mut builder = TracesBuilder::new();
    let ns = START_NS + second * NS_PER_S;
    for i in 0..4u8 {
        let resource = builder.resource(&[("service.name".to_owned(), Value::String(format!("s{}", i % 2)))]);
        let number = u8::try_from(second).expect("small");
        let span = Span {
            trace_id: [(i + number) % 5; 16],
            span_id: [i + 1; 8],
            start_ns: ns - i64::from(i),
            duration_ns: 7,
            name: "op".to_owned(),
            attributes: vec![("n".to_owned(), Value::Int(second))],
            ..Span::default()
        };
        builder.span(&resource, &span).expect("fits");
    }
    builder.finish().expect("builds")
}

fn all(second: i64) -> [Batch; 3] {
    [metrics(second), logs(second), traces(second)]
}

fn context(tenant: &Tenant) -> Context {
    Context::new(tenant.clone(), Share::root("test", 1 << 30))
}

async fn rows(scan: &dyn Scan, request: &ScanRequest, context: &Context) -> RecordBatch {
    try_rows(scan, request, context).await.expect("scans")
}

async fn try_rows(scan: &dyn Scan, request: &ScanRequest, context: &Context) -> Result<RecordBatch> {
    let stream = scan.scan(request.clone(), context).await?;
    let batches: Vec<RecordBatch> = stream.try_collect().await?;
    Ok(concat_batches(&(request.table.spec().schema)(), &batches).expect("fits"))
}

/// An engine with its folders, and what it acknowledged.
struct Bed {
    data: TempDir,
    store: Arc<Store>,
    clock: ManualClock,
    engine: Arc<Engine>,
    tenant: Tenant,
    sent: Vec<Batch>,
    retention: RetentionPolicy,
}

fn config(data: &Path) -> EngineConfig {
    EngineConfig { flush_age_max: Duration::from_secs(600), ..EngineConfig::new(data, "memory://") }
}

async fn open(config: EngineConfig, store: &Arc<Store>, clock: &ManualClock) -> Arc<Engine> {
    let opened = Engine::open_with(config, Arc::clone(store), Arc::new(LocalDisk), Arc::new(clock.clone())).await;
    opened.expect("opens")
}

impl Bed {
    async fn new() -> Self {
        Self::over(Arc::new(Store::over(Arc::new(InMemory::new()), "memory://"))).await
    }

    async fn over(store: Arc<Store>) -> Self {
        let data = tempfile::tempdir().expect("creates");
        let clock = ManualClock::at(TimestampNs(START_NS));
        let engine = open(config(data.path()), &store, &clock).await;
        Self {
            data,
            store,
            clock,
            engine,
            tenant: Tenant::single(),
            sent: Vec::new(),
            retention: RetentionPolicy::default(),
        }
    }

    async fn send(&mut self, batches: impl IntoIterator<Item = Batch>) {
        for batch in batches {
            let appended = self.engine.append(&self.tenant, batch.clone()).await.expect("appends");
            assert!(appended.sequence > 0 && appended.conflicts.is_empty());
            self.sent.push(batch);
        }
    }

    /// As after a crash: what is in memory is gone.
    async fn reopen(&mut self) {
        self.forget_memory().await;
        self.engine = self.try_open().await.expect("opens");
    }

    async fn try_open(&self) -> Result<Arc<Engine>> {
        let (store, clock) = (Arc::clone(&self.store), Arc::new(self.clock.clone()));
        let config = EngineConfig { retention: self.retention.clone(), ..config(self.data.path()) };
        Engine::open_with(config, store, Arc::new(LocalDisk), clock).await
    }

    /// Drops the engine; one that only reads takes its place.
    async fn forget_memory(&mut self) {
        let closed = Engine::open_with(
            EngineConfig { read_only: true, ..config(self.data.path()) },
            Arc::clone(&self.store),
            Arc::new(LocalDisk),
            Arc::new(self.clock.clone()),
        );
        self.engine = closed.await.expect("opens");
        free(self.data.path()).await;
    }

    async fn check(&self) {
        self.check_range(TimeRange::ALL).await;
    }

    /// Every table reads as the reference says: same rows, same order, each once.
    async fn check_range(&self, range: TimeRange) {
        check(&self.engine, &self.sent, &self.tenant, range).await;
    }

    /// Rows in the committed blocks of `table`.
    async fn stored(&self, table: Table) -> u64 {
        let tables = self.engine.tables(&self.tenant);
        tables.snapshot(table).await.expect("reads").blocks.iter().map(|block| block.rows).sum()
    }
}

/// Waits until no engine holds `data` any more: the task that flushes may hold a dropped one for a moment.
async fn free(data: &Path) {
    for _ in 0..2000 {
        if folder::lock(data).is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the data folder stays in use");
}

async fn check(engine: &Engine, sent: &[Batch], tenant: &Tenant, range: TimeRange) {
    try_check(engine, sent, tenant, range).await.expect("answers");
}

/// Compares what is answered; an error is what the engine said instead of an answer.
async fn try_check(engine: &Engine, sent: &[Batch], tenant: &Tenant, range: TimeRange) -> Result<()> {
    let context = context(tenant);
    let reference = MemoryScan::new(sent.to_vec());
    for signal in Signal::ALL {
        let expected = reference.identities(signal, &[], TimeRange::ALL, &context).await.expect("finds");
        let found = engine.identities(signal, &[], TimeRange::ALL, &context).await?;
        assert_eq!(found, expected, "{}", signal.name());
        let ids: Arc<Vec<IdentityId>> = Arc::new(found.iter().map(|identity| identity.id).collect());
        for table in signal.spec().facts {
            let all = ScanRequest::all(*table, range);
            let named = ScanRequest { identities: Some(Arc::clone(&ids)), ..all.clone() };
            let mut expected = rows(&reference, &named, &context).await;
            if table.spec().sort_by == SortBy::Text {
                // The reference gives them in order of arrival.
                expected = sort_rows(*table, &expected, &|_| 0).expect("sorts");
            }
            assert_eq!(try_rows(engine, &named, &context).await?, expected, "`{}` by identity", table.name());
            assert_eq!(try_rows(engine, &all, &context).await?, expected, "all of `{}`", table.name());
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_was_appended_is_read_back_before_and_after_a_flush() {
    let mut bed = Bed::new().await;
    bed.check().await;
    for second in 0..3 {
        bed.send(all(second)).await;
        bed.check().await;
    }
    bed.engine.flush(None).await.expect("flushes");
    bed.check().await;
    let stats = bed.engine.stats();
    assert!(stats.signals.iter().all(|signal| signal.head_rows == 0 && signal.flushes_total == 1), "{stats:?}");
    // Seconds 9 to 12 pass midnight; 1 repeats what is in a table.
    for second in [9, 12, 1, 11] {
        bed.send(all(second)).await;
        bed.check().await;
    }
    bed.engine.flush(None).await.expect("flushes");
    bed.check().await;
    let day = TimestampNs(START_NS).day();
    bed.check_range(day.range()).await;
    bed.check_range(TimeRange::new(START_NS, START_NS + 2 * NS_PER_S)).await;
    bed.check_range(TimeRange::new(START_NS + NS_PER_DAY, START_NS + 2 * NS_PER_DAY)).await;
}

#[tokio::test]
async fn a_crash_loses_nothing_and_repeats_nothing() {
    let mut bed = Bed::new().await;
    bed.send(all(0)).await;
    bed.reopen().await;
    bed.check().await;
    bed.send(all(1)).await;
    bed.engine.flush(None).await.expect("flushes");
    bed.send(all(2)).await;
    bed.reopen().await;
    assert_eq!(bed.engine.stats().signals.iter().map(|signal| signal.replayed_records_total).sum::<u64>(), 3);
    bed.check().await;
    bed.engine.flush(None).await.expect("flushes");
    bed.check().await;
    // Times ms-400 of a second are the same for all three series, once each.
    assert_eq!(bed.stored(Table::Samples).await, 3 * 3 * 2);
    assert_eq!(bed.stored(Table::Spans).await, 12);
    bed.reopen().await;
    assert_eq!(bed.engine.stats().signals.iter().map(|signal| signal.replayed_records_total).sum::<u64>(), 0);
    bed.check().await;
}

#[tokio::test]
async fn a_crash_between_any_two_steps_of_a_flush_loses_nothing_and_repeats_nothing() {
    let facts = Signal::ALL.iter().flat_map(|signal| signal.spec().facts.iter().copied());
    let identities = Signal::ALL.iter().map(|signal| signal.spec().identities);
    let tables = facts.chain(identities).map(Step::Committed);
    for stop in tables.chain([Step::Frozen, Step::Prepared, Step::Flushed]) {
        let mut bed = Bed::new().await;
        bed.send(all(8)).await;
        bed.send(all(12)).await;
        let hook = move |step: Step| {
            if step == stop { Err(Error::new(Kind::Unavailable, "stopped on purpose")) } else { Ok(()) }
        };
        *bed.engine.hook.lock() = Some(Arc::new(hook));
        let stopped = bed.engine.flush(None).await.expect_err("is stopped");
        assert_eq!(stopped.kind(), Kind::Unavailable);
        bed.check().await;
        bed.send(all(9)).await;
        bed.check().await;
        bed.reopen().await;
        bed.check().await;
        bed.engine.flush(None).await.expect("flushes");
        bed.check().await;
        assert_eq!(bed.stored(Table::Samples).await, 3 * 3 * 2, "{stop:?}");
        assert_eq!(bed.stored(Table::Histograms).await, 3 * 3, "{stop:?}");
        assert_eq!(bed.stored(Table::Logs).await, 3 * 9, "{stop:?}");
        assert_eq!(bed.stored(Table::Spans).await, 3 * 4, "{stop:?}");
    }
}

#[tokio::test]
async fn a_failed_flush_is_continued_without_a_restart() {
    for stop in [Step::Frozen, Step::Prepared, Step::Committed(Table::Series), Step::Committed(Table::Samples)] {
        let mut bed = Bed::new().await;
        bed.send(all(0)).await;
        let left = Arc::new(AtomicUsize::new(1));
        let hook = move |step: Step| {
            let strike =
                step == stop && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
            if strike { Err(Error::new(Kind::Unavailable, "stopped on purpose")) } else { Ok(()) }
        };
        *bed.engine.hook.lock() = Some(Arc::new(hook));
        bed.engine.flush(Some(Signal::Metrics)).await.expect_err("is stopped");
        bed.send(all(1)).await;
        bed.check().await;
        // Not before the pause is over.
        bed.engine.tick().await;
        let flushes = |bed: &Bed| bed.engine.stats().signals[0].flushes_total;
        assert_eq!((flushes(&bed), bed.engine.stats().signals[0].flush_errors_total), (0, 1), "{stop:?}");
        bed.clock.set(TimestampNs(START_NS + 2 * NS_PER_S));
        bed.engine.tick().await;
        assert!(flushes(&bed) >= 1, "{stop:?}");
        bed.check().await;
        bed.engine.flush(None).await.expect("flushes");
        bed.check().await;
        assert_eq!(bed.stored(Table::Samples).await, 12, "{stop:?}");
    }
}

#[tokio::test]
async fn a_failing_store_delays_a_flush_and_neither_loses_nor_repeats() {
    let faults = [
        Fault::fail(Operation::Put, "samples/date="),
        Fault::fail(Operation::Put, "series/date="),
        Fault::fail(Operation::Put, "series/_delta_log/"),
        Fault::lose_response(Operation::Put, "samples/_delta_log/"),
        Fault::lose_response(Operation::Put, "logs/_delta_log/00000000000000000001"),
        Fault::fail(Operation::Put, "spans/_delta_log/00000000000000000001"),
    ];
    for fault in faults {
        let objects = Arc::new(FaultyStore::new(Arc::new(InMemory::new())));
        let mut bed = Bed::over(Arc::new(Store::over(Arc::clone(&objects) as Arc<dyn ObjectStore>, "memory://"))).await;
        bed.send(all(0)).await;
        objects.inject(fault.clone());
        // Some of these are mended beneath, at once.
        let _ = bed.engine.flush(None).await;
        bed.check().await;
        bed.send(all(1)).await;
        bed.engine.flush(None).await.expect("flushes");
        bed.check().await;
        bed.reopen().await;
        bed.check().await;
        assert_eq!(bed.stored(Table::Samples).await, 12, "{fault:?}");
        assert_eq!(bed.stored(Table::Logs).await, 18, "{fault:?}");
        assert_eq!(bed.stored(Table::Spans).await, 8, "{fault:?}");
    }
}

#[tokio::test]
async fn while_the_store_is_down_appends_go_on_until_the_wal_is_full() {
    let mut bed = Bed::new().await;
    let data = tempfile::tempdir().expect("creates");
    let small = EngineConfig { wal_bytes_max: 20_000, ..config(data.path()) };
    bed.engine = open(small, &bed.store, &bed.clock).await;
    let down = |_: Step| Err(Error::new(Kind::Unavailable, "the store is down"));
    *bed.engine.hook.lock() = Some(Arc::new(down));
    let mut second = 0;
    let refused = loop {
        match bed.engine.append(&bed.tenant, logs(second)).await {
            Ok(_) => bed.sent.push(logs(second)),
            Err(error) => break error,
        }
        second += 1;
        bed.engine.flush(None).await.expect_err("the store is down");
    };
    assert_eq!(refused.kind(), Kind::Busy);
    assert!(second > 3);
    bed.check().await;
    *bed.engine.hook.lock() = None;
    bed.engine.flush(None).await.expect("flushes");
    bed.send([logs(second)]).await;
    bed.check().await;
}

#[tokio::test]
async fn a_folder_and_a_memory_store_serve_alike() {
    let data = tempfile::tempdir().expect("creates");
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(TimestampNs(START_NS)));
    let folder = data.path().join("store").display().to_string();
    for url in [folder.as_str(), "memory://"] {
        let config = EngineConfig::new(data.path().join("data"), url);
        let engine = Engine::open(config.clone(), Arc::clone(&clock)).await.expect("opens");
        let tenant = Tenant::single();
        for batch in all(0) {
            engine.append(&tenant, batch).await.expect("appends");
        }
        engine.flush(None).await.expect("flushes");
        check(&engine, &all(0), &tenant, TimeRange::ALL).await;
        engine.close().await.expect("closes");
        if url == folder {
            let engine = Engine::open(config, Arc::clone(&clock)).await.expect("opens");
            check(&engine, &all(0), &tenant, TimeRange::ALL).await;
            engine.close().await.expect("closes");
        }
        std::fs::remove_dir_all(data.path().join("data")).expect("removes");
    }
}

#[tokio::test]
async fn a_lost_wal_folder_does_not_begin_below_the_marks_in_the_tables() {
    let mut bed = Bed::new().await;
    bed.send(all(0)).await;
    bed.engine.flush(None).await.expect("flushes");
    bed.engine.close().await.expect("closes");
    std::fs::remove_dir_all(bed.data.path().join("wal")).expect("removes");
    bed.clock.set(TimestampNs(START_NS + NS_PER_S));
    bed.reopen().await;
    bed.send(all(1)).await;
    bed.reopen().await;
    bed.check().await;
    bed.engine.flush(None).await.expect("flushes");
    bed.check().await;
}

#[tokio::test]
async fn heads_are_flushed_by_age_and_by_size() {
    let mut bed = Bed::new().await;
    bed.send(all(0)).await;
    bed.engine.tick().await;
    assert_eq!(bed.engine.stats().signals[1].flushes_total, 0);
    bed.clock.set(TimestampNs(START_NS + 600 * NS_PER_S));
    bed.engine.tick().await;
    assert_eq!(bed.engine.stats().signals[1].flushes_total, 1);
    bed.check().await;

    let data = tempfile::tempdir().expect("creates");
    let small = EngineConfig { head_bytes_max: 1, ..config(data.path()) };
    let engine = open(small, &bed.store, &bed.clock).await;
    engine.append(&Tenant::new("other").expect("fits"), logs(0)).await.expect("appends");
    for _ in 0..400 {
        if engine.stats().signals[1].flushes_total > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(engine.stats().signals[1].flushes_total, 1, "the append wakes the background task");
    assert_eq!(engine.stats().signals[1].wal_bytes, 32, "only the header of an empty segment is left");
}

#[tokio::test]
async fn repeats_that_fill_the_wal_are_flushed_away() {
    let bed = Bed::new().await;
    let data = tempfile::tempdir().expect("creates");
    let engine = open(EngineConfig { wal_bytes_max: 20_000, ..config(data.path()) }, &bed.store, &bed.clock).await;
    for _ in 0..200 {
        engine.append(&bed.tenant, metrics(0)).await.expect("has room");
        if engine.stats().signals[0].wal_bytes > 10_000 {
            engine.tick().await;
        }
    }
    assert!(engine.stats().signals[0].flushes_total > 1);
    check(&engine, &[metrics(0)], &bed.tenant, TimeRange::ALL).await;
}

#[tokio::test]
async fn samples_that_contradict_are_told_and_repeats_are_not() {
    let bed = Bed::new().await;
    let sample = |value: f64| {
        let mut builder = MetricsBuilder::new();
        let series = builder.series(Labels::from_pairs([("__name__", "m")]));
        builder.sample(series, TimestampMs(1), value, None);
        (series, builder.finish().expect("builds"))
    };
    let (series, first) = sample(1.0);
    let appended = bed.engine.append(&bed.tenant, first.clone()).await.expect("appends");
    assert_eq!(appended.conflicts, []);
    assert_eq!(bed.engine.append(&bed.tenant, first.clone()).await.expect("appends").conflicts, []);
    let conflict = Conflict { series, ts: TimestampMs(1) };
    let appended = bed.engine.append(&bed.tenant, sample(2.0).1).await.expect("appends");
    assert_eq!(appended.conflicts, [conflict]);
    bed.engine.flush(None).await.expect("flushes");
    // Blocks are ordered by the time of their commit.
    bed.clock.set(TimestampNs(START_NS + NS_PER_S));
    bed.engine.append(&bed.tenant, sample(3.0).1).await.expect("the tables are not asked");
    check(&bed.engine, std::slice::from_ref(&first), &bed.tenant, TimeRange::ALL).await;
    bed.engine.flush(None).await.expect("flushes");
    check(&bed.engine, &[first], &bed.tenant, TimeRange::ALL).await;
}

#[tokio::test]
async fn identities_and_metadata_are_written_once_a_day() {
    let mut bed = Bed::new().await;
    for second in [0, 1, 2] {
        bed.send(all(second)).await;
        bed.engine.flush(None).await.expect("flushes");
    }
    assert_eq!(bed.stored(Table::Series).await, 3);
    assert_eq!(bed.stored(Table::Streams).await, 3);
    assert_eq!(bed.stored(Table::Resources).await, 2);
    assert_eq!(bed.stored(Table::MetricMetadata).await, 4);
    bed.send(all(30)).await;
    bed.engine.flush(None).await.expect("flushes");
    assert_eq!(bed.stored(Table::Series).await, 6, "the next day has its own");
    bed.check().await;
}

#[tokio::test]
async fn identities_are_found_by_matchers_and_days_in_heads_and_tables() {
    let mut bed = Bed::new().await;
    bed.send(all(0)).await;
    bed.engine.flush(None).await.expect("flushes");
    bed.send([metrics(40)]).await;
    let context = context(&bed.tenant);
    let names = |found: Vec<Identity>| {
        found.iter().map(|identity| identity.labels.get("i").unwrap_or("").to_owned()).collect::<Vec<_>>()
    };
    for (op, value, expected) in [
        (MatchOp::Equal, "1", vec!["1"]),
        (MatchOp::Regex, "0|2", vec!["0", "2"]),
        (MatchOp::NotEqual, "0", vec!["1", "2"]),
        (MatchOp::Equal, "", vec![]),
    ] {
        let selectors = [vec![Matcher::new("i", op, value).expect("compiles")]];
        let ranges = [TimeRange::ALL, TimeRange::new(START_NS + 39 * NS_PER_S, i64::MAX)];
        for range in ranges {
            let found = bed.engine.identities(Signal::Metrics, &selectors, range, &context).await.expect("finds");
            assert_eq!(names(found), expected, "{op}{value:?}");
        }
    }
    let later = TimeRange::new(START_NS + 2 * NS_PER_DAY, i64::MAX);
    assert_eq!(bed.engine.identities(Signal::Metrics, &[], later, &context).await.expect("finds"), []);
}

#[tokio::test]
async fn spans_are_found_by_trace() {
    let mut bed = Bed::new().await;
    bed.send([traces(0), traces(1)]).await;
    bed.engine.flush(None).await.expect("flushes");
    bed.send([traces(2)]).await;
    let context = context(&bed.tenant);
    let wanted = Arc::new(vec![[3; 16], [1; 16], [9; 16]]);
    let request = ScanRequest { traces: Some(wanted), ..ScanRequest::all(Table::Spans, TimeRange::ALL) };
    let expected = rows(&MemoryScan::new(bed.sent.clone()), &request, &context).await;
    assert!(expected.num_rows() > 3);
    assert_eq!(rows(bed.engine.as_ref(), &request, &context).await, expected);
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let bed = Bed::new().await;
    let tenants = ["a", "b"].map(|name| Tenant::new(name).expect("fits"));
    for (second, tenant) in (0..).zip(&tenants) {
        for batch in all(second) {
            bed.engine.append(tenant, batch).await.expect("appends");
        }
    }
    for flushed in [false, true] {
        for (second, tenant) in (0..).zip(&tenants) {
            check(&bed.engine, &all(second), tenant, TimeRange::ALL).await;
        }
        if !flushed {
            bed.engine.flush(None).await.expect("flushes");
        }
    }
}

#[tokio::test]
async fn another_process_reads_the_store_and_refuses_appends() {
    let mut bed = Bed::new().await;
    bed.send(all(0)).await;
    bed.engine.flush(None).await.expect("flushes");
    let reading = EngineConfig { read_only: true, ..config(Path::new("/nowhere")) };
    let reader = open(reading, &bed.store, &bed.clock).await;
    check(&reader, &bed.sent, &bed.tenant, TimeRange::ALL).await;
    let refused = reader.append(&bed.tenant, logs(1)).await.expect_err("only reads");
    assert_eq!(refused.kind(), Kind::Invalid);
    bed.send(all(20)).await;
    bed.engine.flush(None).await.expect("flushes");
    bed.clock.set(TimestampNs(START_NS + 11 * NS_PER_S));
    check(&reader, &bed.sent, &bed.tenant, TimeRange::ALL).await;
    reader.flush(None).await.expect("has nothing to flush");
    reader.close().await.expect("closes");
}

#[tokio::test]
async fn two_writers_share_a_store_and_the_same_name_is_fenced() {
    let mut bed = Bed::new().await;
    let named = |data: &Path| EngineConfig { writer_id: Some("w".to_owned()), ..config(data) };
    let (data_a, data_b) = (tempfile::tempdir().expect("creates"), tempfile::tempdir().expect("creates"));
    let a = open(named(data_a.path()), &bed.store, &bed.clock).await;
    bed.clock.set(TimestampNs(START_NS + NS_PER_S));
    let b = open(named(data_b.path()), &bed.store, &bed.clock).await;
    a.append(&bed.tenant, metrics(0)).await.expect("appends");
    a.flush(None).await.expect("flushes");
    b.append(&bed.tenant, metrics(1)).await.expect("appends");
    b.flush(None).await.expect("takes over");
    a.append(&bed.tenant, metrics(2)).await.expect("does not know yet");
    let refused = a.flush(None).await.expect_err("is fenced");
    assert_eq!(refused.kind(), Kind::Fenced, "{refused}");
    assert!(a.stats().fenced);
    let refused = a.append(&bed.tenant, metrics(3)).await.expect_err("is fenced");
    assert_eq!(refused.kind(), Kind::Fenced);
    // A writer of another name is not concerned.
    bed.send([metrics(4)]).await;
    bed.engine.flush(None).await.expect("flushes");
    assert!(!bed.engine.stats().fenced);
}

#[tokio::test]
async fn closing_flushes_and_frees_the_folder() {
    let mut bed = Bed::new().await;
    bed.send(all(0)).await;
    bed.engine.close().await.expect("closes");
    bed.engine.close().await.expect("closes twice");
    let refused = bed.engine.append(&bed.tenant, logs(1)).await.expect_err("is closed");
    assert_eq!(refused.kind(), Kind::Unavailable);
    bed.engine = open(config(bed.data.path()), &bed.store, &bed.clock).await;
    bed.check().await;
    assert_eq!(bed.engine.stats().signals[0].replayed_records_total, 0);
    let second = Engine::open_with(
        config(bed.data.path()),
        Arc::clone(&bed.store),
        Arc::new(LocalDisk),
        Arc::new(bed.clock.clone()),
    );
    let refused = second.await.err().expect("is in use");
    assert!(refused.to_string().contains("in use by another process"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scans_during_appends_and_flushes_see_every_acknowledged_row_once() {
    let bed = Bed::new().await;
    let sent = Arc::new(AtomicUsize::new(0));
    let (engine, tenant, counter) = (Arc::clone(&bed.engine), bed.tenant.clone(), Arc::clone(&sent));
    let sender = tokio::spawn(async move {
        for second in 0..60 {
            engine.append(&tenant, metrics(second)).await.expect("appends");
            counter.store(usize::try_from(second).expect("fits") + 1, Ordering::SeqCst);
        }
    });
    let engine = Arc::clone(&bed.engine);
    let flusher = tokio::spawn(async move {
        for _ in 0..8 {
            engine.flush(Some(Signal::Metrics)).await.expect("flushes");
        }
    });
    let context = context(&bed.tenant);
    let request = ScanRequest::all(Table::Samples, TimeRange::ALL);
    while !sender.is_finished() || !flusher.is_finished() {
        let before = sent.load(Ordering::SeqCst);
        let found = rows(bed.engine.as_ref(), &request, &context).await.num_rows();
        let after = sent.load(Ordering::SeqCst) + 1;
        assert!(before * 6 <= found && found <= after * 6, "{before} {found} {after}");
    }
    sender.await.expect("ends");
    flusher.await.expect("ends");
    let sent: Vec<Batch> = (0..60).map(metrics).collect();
    check_samples(&bed.engine, &sent, &context, &request).await;
}

async fn check_samples(engine: &Engine, sent: &[Batch], context: &Context, request: &ScanRequest) {
    let expected = rows(&MemoryScan::new(sent.to_vec()), request, context).await;
    assert_eq!(rows(engine, request, context).await, expected);
}

/// Prints how fast samples are taken in. Run with `--run-ignored all --no-capture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn append_rate() {
    const SERIES: i64 = 2_000;
    const ROUNDS: i64 = 100;
    let bed = Bed::new().await;
    let labels: Vec<Labels> = (0..SERIES)
        .map(|i| {
            let i = i.to_string();
            Labels::from_pairs([("__name__", "http_requests_total"), ("instance", &i), ("job", "api"), ("zone", "b")])
        })
        .collect();
    let batches: Vec<Batch> = (0..ROUNDS)
        .map(|round| {
            let mut builder = MetricsBuilder::new();
            for labels in &labels {
                let series = builder.series(labels.clone());
                builder.sample(series, TimestampMs(START_NS / NS_PER_MS + round * 1000), round as f64, None);
            }
            builder.finish().expect("builds")
        })
        .collect();
    let started = std::time::Instant::now();
    let queue = Arc::new(Mutex::new(batches));
    let senders = (0..4).map(|_| {
        let (queue, engine, tenant) = (Arc::clone(&queue), Arc::clone(&bed.engine), bed.tenant.clone());
        tokio::spawn(async move {
            loop {
                let Some(batch) = queue.lock().pop() else { return };
                engine.append(&tenant, batch).await.expect("appends");
            }
        })
    });
    futures::future::join_all(senders).await;
    let seconds = started.elapsed().as_secs_f64();
    let stats = &bed.engine.stats().signals[0];
    let rate = (SERIES * ROUNDS) as f64 / seconds;
    let (fsyncs, wal, head) = (stats.fsyncs_total, stats.wal_bytes, stats.head_bytes);
    let mut out = std::io::stderr();
    writeln!(out, "{rate:.0} samples/s, {fsyncs} fsyncs, {wal} WAL bytes, {head} head bytes").expect("prints");
}

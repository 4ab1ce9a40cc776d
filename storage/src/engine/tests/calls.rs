//! What flushes and queries ask of a bucket, and what that costs.

use super::*;
use crate::store::gcs::{BUCKET, Counts, Gcs};
use crate::store::{Cause, DiskCache, Operation, StoreOptions};

/// A store over `gcs`, with a cache in `folder` if there is one.
fn bucket(gcs: &Gcs, folder: Option<&Path>) -> Arc<Store> {
    let options = StoreOptions { gcs_endpoint: Some(gcs.endpoint()), ..StoreOptions::default() };
    let store = Store::open(&format!("gs://{BUCKET}/calls"), &options).expect("opens");
    let cache = |folder: &Path| {
        let clock = Arc::new(crate::clock::SystemClock);
        DiskCache::open(folder.to_owned(), 1 << 30, store.url(), clock).expect("opens")
    };
    Arc::new(match folder.map(cache) {
        Some(cache) => store.with_cache(cache),
        None => store,
    })
}

/// Requests so far because of `cause`.
fn requests(store: &Store, cause: Cause, operation: Operation) -> u64 {
    let counts = store.calls().counts();
    counts.iter().filter(|line| (line.cause, line.operation) == (cause, operation)).map(|line| line.count).sum()
}

async fn ask_everything(bed: &Bed) {
    let context = context(&bed.tenant);
    for table in Signal::ALL.iter().flat_map(|signal| signal.spec().facts) {
        rows(bed.engine.as_ref(), &ScanRequest::all(*table, TimeRange::ALL), &context).await;
    }
}

#[tokio::test]
async fn flushes_write_each_object_once_and_warm_queries_ask_nothing() {
    let gcs = Gcs::start();
    let cache = tempfile::tempdir().expect("creates");
    let mut bed = Bed::over(bucket(&gcs, Some(cache.path()))).await;
    for second in 0..3 {
        bed.send(all(second)).await;
        let (before, commits) = (gcs.objects().len(), requests(&bed.store, Cause::Commit, Operation::Put));
        gcs.forget_counts();
        bed.engine.flush(None).await.expect("flushes");
        let written = (gcs.objects().len() - before) as u64;
        let Counts { class_a, class_b, lists, .. } = gcs.counts();
        let commits = requests(&bed.store, Cause::Commit, Operation::Put) - commits;
        assert_eq!(class_a - lists, written, "no object is written twice: {:?}", gcs.log());
        if second > 0 {
            // No identity is new then: the six tables of facts.
            assert_eq!(commits, 6, "{:?}", gcs.log());
            // The library lists before an entry, to see whether it is in conflict, and afterwards, to load it.
            assert!(lists <= 2 * commits, "{lists} listings for {commits} commits: {:?}", gcs.log());
            assert!(class_b <= 2 * commits, "{class_b} reads for {commits} commits: {:?}", gcs.log());
        }
    }
    assert_eq!(requests(&bed.store, Cause::Other, Operation::Put), 0);

    // Everything was written a moment ago: the first query of a table only looks for other writers' commits, by one read
    // and no listing; within `refresh_age_max` no query asks the bucket for anything.
    gcs.forget_counts();
    ask_everything(&bed).await;
    let tables = 6 + 3 - 1; // Metadata needs no identities, resources are only asked for with selectors.
    assert!(gcs.counts().class_b <= tables && gcs.counts().class_a == 0, "{:?}", gcs.log());
    assert!(gcs.log().iter().all(|asked| asked.contains("_delta_log")), "{:?}", gcs.log());
    gcs.forget_counts();
    ask_everything(&bed).await;
    assert_eq!(gcs.counts(), Counts::default(), "{:?}", gcs.log());
    // After a restart the tables' logs are read, not what is kept on disk.
    bed.reopen().await;
    ask_everything(&bed).await;
    let reads = |store: &Store, cause| requests(store, cause, Operation::Get);
    for cause in [Cause::QueryFooter, Cause::QuerySidecar, Cause::QueryRows] {
        assert_eq!(reads(&bed.store, cause), 0, "{cause:?}: {:?}", gcs.log());
    }
    gcs.forget_counts();
    ask_everything(&bed).await;
    assert_eq!(gcs.counts(), Counts::default(), "{:?}", gcs.log());
    bed.check().await;
}

#[tokio::test]
async fn a_cold_query_asks_for_what_it_needs_once() {
    let gcs = Gcs::start();
    let mut bed = Bed::over(bucket(&gcs, None)).await;
    bed.send(all(0)).await;
    bed.engine.flush(None).await.expect("flushes");
    let cache = tempfile::tempdir().expect("creates");
    bed.store = bucket(&gcs, Some(cache.path()));
    bed.reopen().await;
    gcs.forget_counts();
    let request = ScanRequest::all(Table::Logs, TimeRange::ALL);
    rows(bed.engine.as_ref(), &request, &context(&bed.tenant)).await;
    let of = |cause| requests(&bed.store, cause, Operation::Get) + requests(&bed.store, cause, Operation::Head);
    // One block of streams and one of logs: a footer each brings the whole of such small files along.
    assert_eq!(of(Cause::QueryFooter), 2, "{:?}", gcs.log());
    assert_eq!(of(Cause::QueryRows), 0, "{:?}", gcs.log());
    assert!(of(Cause::QuerySidecar) <= 2, "{:?}", gcs.log());
    let lists = requests(&bed.store, Cause::QueryLog, Operation::List);
    assert!(lists <= 2, "a log each is listed once: {:?}", gcs.log());
    gcs.forget_counts();
    rows(bed.engine.as_ref(), &request, &context(&bed.tenant)).await;
    assert_eq!(gcs.counts(), Counts::default());
}

/// One second of mixed telemetry, about a megabyte as it comes: a quarter of it samples, the rest lines and spans.
fn second_of_telemetry(second: i64) -> [Batch; 3] {
    let ns = START_NS + second * NS_PER_S;
    let mut metrics = MetricsBuilder::new();
    // 5,000 series every 15 s take 333 samples a second; a sample of remote write comes as about 80 bytes with its labels.
    for n in 0..3_000_i64 {
        let name = format!("metric_{}", n % 50);
        let series = metrics.series(Labels::from_pairs([("__name__", name.as_str()), ("pod", &n.to_string())]));
        metrics.sample(series, TimestampMs(ns / NS_PER_MS), (second * n % 1000) as f64, None);
    }
    let mut logs = LogsBuilder::new();
    for n in 0..2_000_i64 {
        let stream = logs.stream(Labels::from_pairs([("app", &format!("app-{}", n % 20))]));
        let hash = (second * 2_000 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64);
        let line = format!(
            "ts={ns} level=info msg=\"request done\" path=/api/v1/items/{n} id={hash:016x} took={}ms status=200 peer=10.0.{}.{} agent=client/1.0",
            n % 997,
            n % 256,
            second % 256
        );
        logs.entry(stream, TimestampNs(ns + n), &line, std::iter::empty()).expect("fits");
    }
    let mut traces = TracesBuilder::new();
    for n in 0..1_000_i64 {
        let resource = traces.resource(&[("service.name".to_owned(), Value::String(format!("s{}", n % 10)))]);
        let id = (second * 1_000 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64).to_be_bytes();
        let mut trace_id = [1; 16];
        trace_id[..8]
            .copy_from_slice(&(second * 1_000 + n / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64).to_be_bytes());
        let attributes =
            vec![("http.route".to_owned(), Value::String("/api/v1/items".into())), ("n".to_owned(), Value::Int(n))];
        let span = Span {
            trace_id,
            span_id: id,
            start_ns: ns + n,
            duration_ns: n,
            name: "GET /api/v1/items".into(),
            attributes,
            ..Span::default()
        };
        traces.span(&resource, &span).expect("fits");
    }
    let built = [metrics.finish(), logs.finish(), traces.finish()];
    built.map(|batch| batch.expect("builds"))
}

/// A month's bill for the requests of a megabyte of mixed telemetry a second with default settings, by the price list of
/// Google Cloud Storage: 5 $ for a million requests of class A, 0.40 $ for a million of class B. `TERCET_TEST_SECONDS`
/// says how long is simulated.
#[tokio::test]
#[ignore = "takes a minute and prints; run it with --release"]
async fn the_requests_of_a_month_cost_less_than_five_dollars() {
    let seconds = std::env::var("TERCET_TEST_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_200_i64);
    let gcs = Gcs::start();
    let cache = tempfile::tempdir().expect("creates");
    let mut bed = Bed::over(bucket(&gcs, Some(cache.path()))).await;
    for second in 0..seconds {
        bed.clock.set(TimestampNs(START_NS + second * NS_PER_S));
        for batch in second_of_telemetry(second) {
            bed.engine.append(&bed.tenant, batch).await.expect("appends");
        }
        bed.engine.tick().await;
    }
    let counts = gcs.counts();
    let months = seconds as f64 / (30.0 * 86_400.0);
    let dollars = (counts.class_a as f64 * 5e-6 + counts.class_b as f64 * 0.4e-6) / months;
    eprintln!(
        "{seconds} s: {counts:?}, {} objects, {} bytes; {dollars:.2} $ a month",
        gcs.objects().len(),
        gcs.bytes()
    );
    for line in bed.store.calls().counts() {
        eprintln!("{:>10} {:>6} {:>9} {}", line.cause.name(), line.operation.name(), line.outcome.name(), line.count);
    }
    for lane in bed.engine.stats().signals {
        eprintln!("{}: {} flushes", lane.signal.name(), lane.flushes_total);
    }
    assert!(dollars < 5.0, "{dollars:.2} $ a month");
    bed.sent.clear();
}

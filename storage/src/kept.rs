//! Files of the formats as they are, kept in `storage/tests/formats/<version>`: every later version must read them.
//!
//! Owns: writing them once per version of any format (the ignored test), and what they must say when they are read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;

use crate::budget::Share;
use crate::clock::{Clock, ManualClock};
use crate::context::Context;
use crate::engine::{Engine, EngineConfig};
use crate::model::batch::{Batch, LogsBuilder, MetricsBuilder, TracesBuilder};
use crate::model::histogram::{BucketSpan, Histogram, STALE_NAN_BITS};
use crate::model::labels::Labels;
use crate::model::span::{Event, Link, Scope, Span};
use crate::model::tenant::Tenant;
use crate::model::time::{TimeRange, TimestampMs, TimestampNs};
use crate::model::value::Value;
use crate::scan::{Scan, ScanRequest};
use crate::signal::Table;
use crate::store::{Store, StoreOptions};

/// The newest kept files. It rises with the version of any format: the WAL's, a sidecar's, a table's columns.
const VERSION: u32 = 1;
/// 2026-01-05 12:00:00 UTC.
const NOON_MS: i64 = 1_767_614_400_000;
const NOON_NS: i64 = NOON_MS * 1_000_000;

fn folder(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(version.to_string())
}

/// What was flushed, if `later` is not set, or stands only in the WAL.
fn batches(later: bool) -> [Batch; 3] {
    let shift = i64::from(later);
    let mut metrics = MetricsBuilder::new();
    let up = metrics.series(Labels::from_pairs([("__name__", "up"), ("job", "a")]));
    let heat = metrics.series(Labels::from_pairs([("__name__", "heat"), ("job", "ü")]));
    metrics.sample(up, TimestampMs(NOON_MS + shift), 1.0, Some(TimestampMs(NOON_MS - 1000)));
    metrics.sample(up, TimestampMs(NOON_MS + 15_000 + shift), f64::from_bits(STALE_NAN_BITS), None);
    metrics.sample(heat, TimestampMs(NOON_MS + shift), 21.5, None);
    metrics.sample(heat, TimestampMs(NOON_MS + 15_000 + shift), -0.25, None);
    let histogram = Histogram {
        schema: 3,
        count: 6.0,
        sum: 2.5,
        zero_threshold: 0.001,
        zero_count: 1.0,
        positive_spans: vec![BucketSpan { offset: -2, length: 2 }],
        positive_buckets: vec![2.0, 3.0],
        ..Histogram::default()
    };
    metrics.histogram(up, TimestampMs(NOON_MS + shift), histogram, None);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let pairs = [("trace_id", trace), ("user", "u1")].into_iter();
    metrics.exemplar(up, TimestampMs(NOON_MS + shift), 0.5, pairs).expect("fits");
    metrics.metadata("up", "gauge", "", "Whether it is up.");
    let mut logs = LogsBuilder::new();
    let stream = logs.stream(Labels::from_pairs([("app", "shop"), ("env", "prod")]));
    let metadata = [("detected_level", "error"), ("trace_id", trace), ("user", "u1")].into_iter();
    logs.entry(stream, TimestampNs(NOON_NS + shift), "payment of order 4711 failed ☃", metadata).expect("fits");
    logs.entry(stream, TimestampNs(NOON_NS + 1000 + shift), "", std::iter::empty()).expect("fits");
    let mut traces = TracesBuilder::new();
    let resource = traces.resource(&[("service.name".into(), Value::String("shop".into()))]);
    let span = Span {
        trace_id: [10; 16],
        span_id: [1; 8],
        name: "GET /order".into(),
        kind: 2,
        start_ns: NOON_NS + shift,
        duration_ns: 1_500_000,
        status_code: 2,
        status_message: "no stock".into(),
        attributes: vec![("http.status".into(), Value::Int(500)), ("share".into(), Value::Double(0.5))],
        events: vec![Event { ts_ns: NOON_NS + 1, name: "retry".into(), ..Event::default() }],
        links: vec![Link { trace_id: vec![11; 16], span_id: vec![2; 8], ..Link::default() }],
        scope: Scope { name: "lib".into(), version: "1.2".into(), ..Scope::default() },
        ..Span::default()
    };
    traces.span(&resource, &span).expect("fits");
    let child = Span { span_id: [2; 8], parent_span_id: Some([1; 8]), name: "db".into(), ..span };
    traces.span(&resource, &child).expect("fits");
    [metrics.finish().expect("builds"), logs.finish().expect("builds"), traces.finish().expect("builds")]
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::at(TimestampNs(NOON_NS)))
}

async fn open(data: &Path) -> Arc<Engine> {
    let url = data.join("store").display().to_string();
    Engine::open(EngineConfig::new(data, url), clock()).await.expect("opens")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("creates");
    for entry in std::fs::read_dir(from).expect("the files are kept in the repository") {
        let path = entry.expect("reads").path();
        let target = to.join(path.file_name().expect("has a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("copies");
        }
    }
}

/// Writes the files of this version. Run it when a format's version rises, after raising [`VERSION`]:
/// `cargo nextest run -p storage --run-ignored only write_the_files_of_this_version`
#[tokio::test]
#[ignore = "writes into the repository"]
async fn write_the_files_of_this_version() {
    let target = folder(VERSION);
    assert!(!target.exists(), "{} is there already: raise VERSION, kept files never change", target.display());
    let data = tempfile::tempdir().expect("creates");
    let engine = open(data.path()).await;
    let tenant = Tenant::single();
    for batch in batches(false) {
        engine.append(&tenant, batch).await.expect("appends");
    }
    engine.flush(None).await.expect("flushes");
    for batch in batches(true) {
        engine.append(&tenant, batch).await.expect("appends");
    }
    // As after a crash: what follows the flush stands only in the WAL.
    copy(data.path(), &target);
    std::fs::remove_file(target.join("lock")).expect("removes");
}

/// The rows of `table` in order, cells joined; identities as their labels.
async fn rows(engine: &Arc<Engine>, table: Table) -> Vec<String> {
    let context = Context::new(Tenant::single(), Share::root("test", 1 << 30));
    let identities = engine.identities(table.signal(), &[], TimeRange::ALL, &context).await.expect("reads");
    let batches: Vec<RecordBatch> = match table == table.signal().spec().identities {
        true => vec![crate::table::identity_rows(table.signal(), &identities).expect("builds")],
        false => {
            let request = ScanRequest::all(table, TimeRange::ALL);
            engine.scan(request, &context).await.expect("scans").try_collect().await.expect("reads")
        }
    };
    let options = FormatOptions::default().with_null("-");
    let mut lines = Vec::new();
    for batch in &batches {
        let schema = batch.schema();
        for row in 0..batch.num_rows() {
            let cells = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
                if table.spec().identity == Some(field.name()) {
                    let id = column.as_primitive::<Int64Type>().value(row);
                    let identity = identities.iter().find(|identity| identity.id.to_column() == id).expect("is known");
                    return identity.labels.to_string();
                }
                ArrayFormatter::try_new(column.as_ref(), &options).expect("formats").value(row).to_string()
            });
            lines.push(cells.collect::<Vec<_>>().join(" | "));
        }
    }
    lines
}

#[tokio::test]
async fn kept_files_of_every_version_are_read() {
    for version in 1..=VERSION {
        let data = tempfile::tempdir().expect("creates");
        copy(&folder(version), data.path());
        let url = data.path().join("store").display().to_string();
        let store = Arc::new(Store::open(&url, &StoreOptions::default()).expect("opens"));
        let report = crate::verify::verify(&store, &clock(), Some(data.path()), &|_, _| {}).await.expect("answers");
        assert_eq!((report.damages, report.tables, report.wal_records), (0, 9, 3), "{version}: {report:?}");
        let engine = open(data.path()).await;
        check(&engine, version).await;
        engine.flush(None).await.expect("flushes on");
        check(&engine, version).await;
    }
}

/// The rows that [`batches`] describes: the flushed one and, a unit of time later, the one from the WAL.
async fn check(engine: &Arc<Engine>, version: u32) {
    let up = r#"{__name__="up", job="a"}"#;
    let heat = r#"{__name__="heat", job="ü"}"#;
    let expect = async |table: Table, expected: &[String]| {
        assert_eq!(rows(engine, table).await, expected, "version {version}, {}", table.name());
    };
    // Label sets sort by name, then value: "heat" stands before "up".
    let noon = |shift: i64| (NOON_MS + shift).to_string();
    let mut samples = Vec::new();
    for (ms, value) in [(0, "21.5"), (1, "21.5"), (15_000, "-0.25"), (15_001, "-0.25")] {
        samples.push(format!("{heat} | {} | - | {value}", noon(ms)));
    }
    for (ms, start, value) in [(0, true, "1.0"), (1, true, "1.0"), (15_000, false, "NaN"), (15_001, false, "NaN")] {
        let start = if start { noon(-1000) } else { "-".into() };
        samples.push(format!("{up} | {} | {start} | {value}", noon(ms)));
    }
    expect(Table::Samples, &samples).await;
    let twice = |line: &dyn Fn(i64) -> String| vec![line(0), line(1)];
    let histogram = "3 | 6.0 | 2.5 | 0.001 | 1.0 | [-2, 2] | [2.0, 3.0] | [] | [] | [] | 0";
    let histograms = twice(&|ms| format!("{up} | {} | - | {histogram} | false", noon(ms)));
    expect(Table::Histograms, &histograms).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    expect(Table::Exemplars, &twice(&|ms| format!("{up} | {} | 0.5 | {trace} | - | {{user: u1}}", noon(ms)))).await;
    expect(Table::MetricMetadata, &["up | gauge |  | Whether it is up.".to_owned()]).await;
    let shop = r#"{app="shop", env="prod"}"#;
    let line = |ns: i64, rest: &str| format!("{shop} | {} | {rest}", NOON_NS + ns);
    let order = format!("payment of order 4711 failed ☃ | error | {trace} | - | {{user: u1}}");
    let empty = " | - | - | - | {}";
    expect(Table::Logs, &[line(0, &order), line(1, &order), line(1000, empty), line(1001, empty)]).await;
    expect(
        Table::Series,
        &[format!("{heat} | heat | {{__name__: heat, job: ü}}"), format!("{up} | up | {{__name__: up, job: a}}")],
    )
    .await;
    expect(Table::Streams, &[format!("{shop} | {{app: shop, env: prod}}")]).await;
    let resource = r#"{service.name="\"shop\""}"#;
    expect(Table::Resources, &[format!("{resource} | shop | {{service.name: \"shop\"}}")]).await;
    let spans = rows(engine, Table::Spans).await;
    assert_eq!(spans.len(), 4, "version {version}: {spans:?}");
    for part in [
        "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a | 0101010101010101 | - | {service.name=\"\\\"shop\\\"\"} | shop | GET /order | 2",
        "| 1500000 | 2 | no stock | {http.status: 500, share: 0.5}",
        "name: retry",
        "trace_id: 0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b, span_id: 0202020202020202",
        "| lib | 1.2 |",
    ] {
        assert_eq!(spans.iter().filter(|span| span.contains(part)).count(), if part.contains("GET") { 2 } else { 4 });
    }
    assert!(spans.iter().any(|span| span.contains("| 0202020202020202 | 0101010101010101 |")), "{spans:?}");
    stale_markers(engine).await;
}

/// A stale marker has its very bits.
async fn stale_markers(engine: &Arc<Engine>) {
    let context = Context::new(Tenant::single(), Share::root("test", 1 << 30));
    let stream = engine.scan(ScanRequest::all(Table::Samples, TimeRange::ALL), &context).await.expect("scans");
    let batches: Vec<RecordBatch> = stream.try_collect().await.expect("reads");
    let values = batches.iter().flat_map(|rows| rows.column(3).as_primitive::<Float64Type>().values().to_vec());
    assert_eq!(values.filter(|value| value.to_bits() == STALE_NAN_BITS).count(), 2);
}

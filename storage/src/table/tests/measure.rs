//! Figures, not checks: run by hand, in a release build, with `--run-ignored`. `TERCET_MEASURE_STORE` names a folder
//! for tables on which other readers can be tried.

use std::time::Instant;

use futures::TryStreamExt;

use super::*;
use crate::budget::Share;
use crate::clock::ManualClock;
use crate::context::Context;
use crate::model::batch::{Batch, LogsBuilder, MetricsBuilder, TracesBuilder};
use crate::model::histogram::{BucketSpan, Histogram, STALE_NAN_BITS};
use crate::model::identity::IdentityId;
use crate::model::labels::Labels;
use crate::model::span::{Event, Link, Span};
use crate::model::time::{TimeRange, TimestampMs, TimestampNs};
use crate::model::value::Value;
use crate::scan::ScanRequest;
use crate::scan::merge::{merge, sort_rows};
use crate::scan::read::block_streams;

const START_MS: i64 = 1_767_571_200_000;
const SERIES: usize = 2_000;
const SAMPLES_PER_SERIES: i64 = 960;

fn open(folder: &str) -> Arc<TenantTables> {
    let store = Arc::new(Store::open(folder, &crate::store::StoreOptions::default()).expect("opens"));
    let clock = Arc::new(ManualClock::at(TimestampMs(START_MS).to_ns()));
    TenantTables::open(store, Tenant::single(), Caches::new(64 << 20), clock)
}

fn order(batch: &Batch) -> Vec<IdentityId> {
    let mut identities = batch.identities.clone();
    identities.sort_by(|a, b| a.labels.cmp(&b.labels));
    identities.iter().map(|identity| identity.id).collect()
}

/// Scrapes of 15 s: counters, decimals, full doubles and nearly constant gauges, as node exporters give.
fn scrapes() -> Batch {
    let mut builder = MetricsBuilder::new();
    let mut noise = 1_u64;
    let mut random = || {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise
    };
    for series in 0..SERIES {
        let labels =
            [("__name__", format!("metric_{}", series % 20)), ("instance", format!("host-{:03}:9100", series / 20))];
        let id = builder.series(Labels::from_pairs(labels.iter().map(|(n, v)| (*n, v.as_str()))));
        let offset = (random() % 15_000) as i64;
        let mut total = (random() % 1_000_000) as f64;
        for step in 0..SAMPLES_PER_SERIES {
            let jitter = if random().is_multiple_of(20) { (random() % 7) as i64 - 3 } else { 0 };
            let value = match series % 20 {
                0..7 => {
                    total += (random() % 100) as f64;
                    total
                }
                7..10 => {
                    total += (random() % 1_500) as f64;
                    total / 100.0
                }
                10..13 => (random() % 4_000_000) as f64 * 4096.0,
                13..15 => (random() % 10_000) as f64 / 100.0,
                15 => f64::from_bits(0x3ff0_0000_0000_0000 | (random() >> 12)),
                _ => total,
            };
            builder.sample(id, TimestampMs(START_MS + offset + step * 15_000 + jitter), value, None);
        }
    }
    builder.finish().expect("builds")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn samples_written_and_scanned() {
    let folder = tempfile::tempdir().expect("a folder");
    let tables = open(&folder.path().display().to_string());
    let batch = scrapes();
    let ids = order(&batch);
    let rank: HashMap<i64, u64> = ids.iter().zip(0..).map(|(id, at)| (id.to_column(), at)).collect();
    let rows = batch.table(Table::Samples).expect("rows");
    let at = Instant::now();
    let sorted = sort_rows(Table::Samples, rows, &|id| rank.get(&id).copied().unwrap_or(0)).expect("sorts");
    let millions = sorted.num_rows() as f64 / 1e6;
    eprintln!("sort          {:8.1} M/s", millions / at.elapsed().as_secs_f64());
    let at = Instant::now();
    let block =
        tables.write_block(Table::Samples, TimestampMs(START_MS).to_ns().day(), vec![sorted]).await.expect("writes");
    eprintln!("write         {:8.1} M/s", millions / at.elapsed().as_secs_f64());
    eprintln!("size          {:8.3} bytes/sample", block.block.bytes as f64 / block.block.rows as f64);
    let at = Instant::now();
    tables.commit(Table::Samples, vec![block], Mark { writer: "measure", sequence: 1 }).await.expect("commits");
    eprintln!("commit        {:8.1} ms", at.elapsed().as_secs_f64() * 1e3);
    let snapshot = tables.snapshot(Table::Samples).await.expect("loads");
    let hour = TimeRange::closed_ms(TimestampMs(START_MS + 3_600_000), TimestampMs(START_MS + 7_200_000));
    let ten: Vec<IdentityId> = ids.iter().step_by(ids.len() / 10).copied().collect();
    for (name, identities, range) in [
        ("all, cold", ids.clone(), TimeRange::ALL),
        ("all, warm", ids.clone(), TimeRange::ALL),
        ("one hour", ids.clone(), hour),
        ("ten series", ten.clone(), TimeRange::ALL),
        ("ten, 1 hour", ten, hour),
    ] {
        let context = Context::new(Tenant::single(), Share::root("measure", 1 << 30));
        let at = Instant::now();
        let request = ScanRequest { identities: Some(Arc::new(identities)), ..ScanRequest::all(Table::Samples, range) };
        let streams = block_streams(&tables, &snapshot, &request, &context).await.expect("plans");
        let rows: usize = merge(&request, streams, &context)
            .try_fold(0, |sum, rows| async move { Ok(sum + rows.num_rows()) })
            .await
            .expect("scans");
        let seconds = at.elapsed().as_secs_f64();
        eprintln!("scan {name:<12} {:8.1} M/s {:8.2} ms {rows:9} rows", rows as f64 / 1e6 / seconds, seconds * 1e3);
    }
}

/// A few rows of each table with every odd value, for other readers to be compared with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes tables for other readers"]
async fn tables_for_other_readers() {
    let tables = open(&std::env::var("TERCET_MEASURE_STORE").expect("names a folder"));
    for batch in [metrics(), logs(), traces()] {
        let identities = batch.signal.spec().identities;
        let day = TimestampMs(START_MS).to_ns().day();
        let rows = identity_rows(batch.signal, &batch.identities).expect("builds");
        let mut writes = vec![(identities, rows)];
        let ids = order(&batch);
        let rank = |id: i64| ids.iter().position(|known| known.to_column() == id).unwrap_or(0) as u64;
        for (table, rows) in &batch.facts {
            writes.push((*table, sort_rows(*table, rows, &rank).expect("sorts")));
        }
        for (table, rows) in writes {
            let block = tables.write_block(table, day, vec![rows]).await.expect("writes");
            tables.commit(table, vec![block], Mark { writer: "measure", sequence: 1 }).await.expect("commits");
        }
    }
}

fn metrics() -> Batch {
    let mut builder = MetricsBuilder::new();
    for (name, values) in [
        ("decimals", vec![0.1, 2.25, -3.0]),
        ("odd", vec![1.0 / 3.0, f64::from_bits(STALE_NAN_BITS), f64::INFINITY, -0.0]),
        ("large", vec![1.5e20, 3e20]),
    ] {
        let series = builder.series(Labels::from_pairs([("__name__", name), ("job", "x")]));
        for (at, value) in values.into_iter().enumerate() {
            builder.sample(
                series,
                TimestampMs(START_MS + at as i64),
                value,
                (at == 1).then_some(TimestampMs(START_MS)),
            );
        }
    }
    let series = builder.series(Labels::from_pairs([("__name__", "h")]));
    let histogram = Histogram {
        count: 3.0,
        sum: f64::NAN,
        positive_spans: vec![BucketSpan { offset: 1, length: 2 }],
        positive_buckets: vec![1.0, 2.0],
        ..Histogram::default()
    };
    builder.histogram(series, TimestampMs(START_MS), histogram, None);
    builder.finish().expect("builds")
}

fn logs() -> Batch {
    let mut builder = LogsBuilder::new();
    let stream = builder.stream(Labels::from_pairs([("app", "ä")]));
    let metadata = [("detected_level", "info"), ("trace_id", "0af7651916cd43dd8448eb211c80319c"), ("k", "v")];
    builder.entry(stream, TimestampNs(START_MS * 1_000_000 + 1), "line one", metadata.into_iter()).expect("fits");
    builder.entry(stream, TimestampNs(START_MS * 1_000_000 + 2), "", std::iter::empty()).expect("fits");
    builder.finish().expect("builds")
}

fn traces() -> Batch {
    let mut builder = TracesBuilder::new();
    let attributes = vec![("service.name".to_owned(), Value::String("api".into())), ("n".to_owned(), Value::Int(1))];
    let resource = builder.resource(&attributes);
    let span = Span {
        trace_id: [1; 16],
        span_id: [2; 8],
        name: "GET /".into(),
        start_ns: START_MS * 1_000_000,
        duration_ns: 5,
        attributes: attributes.clone(),
        events: vec![Event { ts_ns: 1, name: "e".into(), attributes, dropped_attributes_count: 1 }],
        links: vec![Link { trace_id: vec![3; 16], span_id: vec![4; 8], ..Link::default() }],
        ..Span::default()
    };
    builder.span(&resource, &span).expect("fits");
    builder.span(&resource, &Span { trace_id: [9; 16], start_ns: span.start_ns, ..Span::default() }).expect("fits");
    builder.finish().expect("builds")
}

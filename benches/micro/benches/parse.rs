//! Query texts to trees, wire bytes to batches.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use prost::Message;
use proto::limits::Limits;
use proto::loki_push::{PushLimits, decode_json};
use proto::otlp::decode_protobuf;
use proto::otlp::traces::{TraceLimits, decode};
use storage::model::time::TimestampNs;
use tercet_load::data;

use super::bed::{START_MS, START_NS, trace_id};

/// Series of a remote-write request, lines of a push, traces of an export.
const ITEMS: usize = 2_000;

pub fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    let promql = r#"sum by (job) (rate(http_requests_total{job=~"api|web", code!="200"}[5m])) / on (job) group_left max_over_time(up[1h:1m])"#;
    group.bench_function("promql", |b| b.iter(|| query::promql::parse(black_box(promql)).expect("parses")));
    let logql = r#"sum by (level) (rate({app="shop", env=~"prod|test"} |= "order" != "debug" | json | took_ms > 100 | line_format "{{.msg}}" [5m]))"#;
    group.bench_function("logql", |b| b.iter(|| query::logql::format_query(black_box(logql)).expect("parses")));
    let traceql =
        r#"{ resource.service.name = "api" && span.http.status_code >= 500 } >> { duration > 100ms } | count() > 2"#;
    group.bench_function("traceql", |b| b.iter(|| query::traceql::parse(black_box(traceql)).expect("parses")));
    group.finish();

    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(ITEMS as u64));
    let body = data::remote_write("bench", 0..ITEMS, START_MS, 7);
    group.bench_function("remote write, samples", |b| {
        b.iter(|| proto::remote_write::decode_v1(black_box(&body), &Limits::default()).expect("decodes"));
    });
    let body = data::loki_push("bench", 0, ITEMS, START_NS.unsigned_abs());
    let limits = PushLimits { reject_old: None, ..PushLimits::default() };
    group.bench_function("Loki push in JSON, lines", |b| {
        b.iter(|| decode_json(black_box(body.as_bytes()), &limits, TimestampNs(START_NS)).expect("decodes"));
    });
    let ids: Vec<[u8; 16]> = (0..ITEMS as u64 / data::SPANS_PER_TRACE as u64).map(trace_id).collect();
    let body = data::traces("bench", &ids, START_NS.unsigned_abs()).encode_to_vec();
    group.bench_function("OTLP traces, spans", |b| {
        b.iter(|| {
            let request = decode_protobuf(black_box(&body)).expect("decodes");
            decode(&request, &TraceLimits::default()).expect("decodes")
        });
    });
    group.finish();
}

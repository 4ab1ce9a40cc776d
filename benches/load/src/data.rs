//! Data as small teams have it: node-exporter-like series, mixed log lines with ids, traces. The same each time.
//!
//! Owns: what is generated, as bodies of the wire protocols. Does not own: pace and transport (the load generator), what
//! is measured (the benches).

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

/// Spans of one trace.
pub const SPANS_PER_TRACE: usize = 10;
const LOG_SERVICES: usize = 12;
const SERVICES: [&str; 4] = ["api", "broker", "gpu-worker", "postgres"];

/// `prometheus.WriteRequest`, as far as it is sent here.
#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// Names as a node exporter has them.
const METRICS: [&str; 10] = [
    "node_cpu_seconds_total",
    "node_disk_io_time_seconds_total",
    "node_network_receive_bytes_total",
    "node_memory_MemAvailable_bytes",
    "node_load1",
    "node_hwmon_temp_celsius",
    "node_filesystem_size_bytes",
    "node_context_switches_total",
    "node_filefd_allocated",
    "node_boot_time_seconds",
];

/// The value of series `n` at its sample number `round`.
pub fn value(n: usize, round: u32) -> f64 {
    let chance = noise((n as u64) << 32 | u64::from(round));
    let (series, round) = (noise(n as u64), f64::from(round));
    match n % METRICS.len() {
        0 | 1 => {
            ((series % 100_000) as f64 + round * 15.0 * ((series % 90) as f64 / 100.0) * 100.0 + (chance % 30) as f64)
                .round()
                / 100.0
        }
        2 | 7 => (series % 1_000_000) as f64 + (round * (series % 30_000) as f64) + (chance % 1_000) as f64,
        3 => ((series % 64) + 1) as f64 * 1e9 + (chance % 100_000) as f64 * 4096.0,
        4 => (chance % 400) as f64 / 100.0,
        5 => 40.0 + (chance % 20) as f64 / 2.0,
        8 => 1_000.0 + (chance % 8) as f64 * 32.0,
        _ => (series % 1_000_000_000) as f64,
    }
}

/// One sample of each series of `series` at `timestamp` (milliseconds) as a remote-write 1.0 message, not packed: counters that
/// rise unevenly, gauges with one or two decimals, and gauges that hardly change, as a node exporter has them.
pub fn remote_write(run: &str, series: std::ops::Range<usize>, timestamp: i64, round: u32) -> Vec<u8> {
    let label = |name: &str, value: String| Label { name: name.to_owned(), value };
    let timeseries = series
        .map(|n| TimeSeries {
            labels: vec![
                label("__name__", METRICS[n % METRICS.len()].to_owned()),
                label("host", format!("host-{}", n / 500)),
                label("job", "load".to_owned()),
                label("run", run.to_owned()),
                label("series", n.to_string()),
            ],
            samples: vec![Sample { value: value(n, round), timestamp }],
        })
        .collect();
    WriteRequest { timeseries }.encode_to_vec()
}

/// `lines` lines from line `number` on, a nanosecond apart, of several services as a Loki push in JSON.
pub fn loki_push(run: &str, number: u64, lines: usize, first_ns: u64) -> String {
    let streams: Vec<serde_json::Value> = (0..LOG_SERVICES.min(lines))
        .map(|service| {
            let values: Vec<serde_json::Value> = (service..lines)
                .step_by(LOG_SERVICES)
                .map(|i| {
                    let (ts, n) = (first_ns + i as u64, number + i as u64);
                    serde_json::json!([ts.to_string(), line(service, n), { "trace_id": format!("{n:032x}") }])
                })
                .collect();
            let labels = serde_json::json!({ "job": "load", "run": run, "service": format!("service-{service}") });
            serde_json::json!({ "stream": labels, "values": values })
        })
        .collect();
    serde_json::json!({ "streams": streams }).to_string()
}

/// A line of 120 to 220 bytes: JSON, logfmt or an access log, each with ids that no other line has.
pub fn line(service: usize, n: u64) -> String {
    let (status, took) = (if n.is_multiple_of(50) { 500 } else { 200 }, n % 997);
    let level = if status == 500 { "error" } else { "info" };
    let (request, user, item) = (noise(n), noise(n) % 50_000, noise(n ^ 1) % 3_000);
    match service % 3 {
        0 => format!(
            r#"{{"level":"{level}","msg":"request served","method":"GET","path":"/api/items/{item}","status":{status},"took_ms":{took},"request_id":"{request:016x}","user":"u{user}","n":{n}}}"#,
        ),
        1 => format!(
            "level={level} caller=server.go:{} msg=\"request served\" path=/api/items/{item} status={status} took={took}ms request_id={request:016x} user=u{user} n={n}",
            n % 400
        ),
        _ => format!(
            "10.0.{}.{} - u{user} \"GET /api/items/{item}?session={request:016x} HTTP/1.1\" {status} {} \"-\" \"Mozilla/5.0 (X11; Linux x86_64)\" {took} {level} n={n}",
            n % 250,
            n % 199,
            noise(n ^ 2) % 90_000
        ),
    }
}

/// A number that looks like chance and is the same each time (SplitMix64).
pub fn noise(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Whether the trace `id` ends in an error: one in thirty does.
pub fn fails(id: [u8; 16]) -> bool {
    u128::from_be_bytes(id).is_multiple_of(30)
}

/// The spans of the traces `ids`, as one request: an API that calls workers.
pub fn traces(run: &str, ids: &[[u8; 16]], now: u64) -> ExportTraceServiceRequest {
    let resource_spans = SERVICES
        .iter()
        .enumerate()
        .map(|(service, name)| ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", name), text("load.run", run)],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                spans: ids.iter().flat_map(|id| spans_of(*id, service, now)).collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        })
        .collect();
    ExportTraceServiceRequest { resource_spans }
}

/// The spans of one trace that belong to one service: span `n` is the child of span `n / 2`.
fn spans_of(id: [u8; 16], service: usize, now: u64) -> impl Iterator<Item = Span> {
    let span_id = move |n: usize| ((n as u64 + 1) << 32 | u64::from(id[15])).to_be_bytes().to_vec();
    (0..SPANS_PER_TRACE).filter(move |n| n % SERVICES.len() == service).map(move |n| {
        let failed = fails(id) && n == SPANS_PER_TRACE - 1;
        Span {
            trace_id: id.to_vec(),
            span_id: span_id(n),
            parent_span_id: if n == 0 { Vec::new() } else { span_id(n / 2) },
            name: format!("step {n}"),
            kind: if n == 0 { 2 } else { 3 },
            start_time_unix_nano: now + n as u64 * 1_000,
            end_time_unix_nano: now + 20_000_000 - n as u64 * 1_000,
            attributes: vec![text("http.request.method", "GET"), integer("step", n as i64)],
            status: failed.then(|| Status { message: "failed".to_owned(), code: 2 }),
            ..Span::default()
        }
    })
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.to_owned()))
}

fn integer(key: &str, value: i64) -> KeyValue {
    attribute(key, any_value::Value::IntValue(value))
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

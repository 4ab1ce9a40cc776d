//! Traces of ten spans by OTLP over gRPC: an API that calls workers, one in thirty failing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::Options;
use super::report::{Report, now_ns};

/// Spans of one trace.
pub const SPANS_PER_TRACE: usize = 10;
const SERVICES: [&str; 4] = ["api", "broker", "gpu-worker", "postgres"];
const REQUESTS_PER_SECOND: usize = 5;

/// What was acknowledged.
pub struct Sent {
    /// Ids of traces.
    pub ids: Vec<[u8; 16]>,
    /// Traces that failed, of those acknowledged.
    pub failed: u64,
    /// First and last time in nanoseconds.
    pub range_ns: Option<(u64, u64)>,
}

/// Sends traces at a steady pace.
pub async fn send(options: &Options, run: &str, report: Arc<Report>) -> anyhow::Result<Sent> {
    let mut sent = Sent { ids: Vec::new(), failed: 0, range_ns: None };
    if options.traces == 0 {
        return Ok(sent);
    }
    let channel = Channel::from_shared(options.otlp_grpc.clone())?.connect().await?;
    let per_request = options.traces.div_ceil(REQUESTS_PER_SECOND);
    let begun = Instant::now();
    let seed = u128::from(now_ns()) << 64;
    let mut in_flight = JoinSet::new();
    let mut number = 0u128;
    let mut tick = 0u32;
    while begun.elapsed() < options.duration {
        let now = now_ns();
        let ids: Vec<[u8; 16]> = (0..per_request as u128).map(|i| (seed | (number + i + 1)).to_be_bytes()).collect();
        number += per_request as u128;
        sent.range_ns = Some((sent.range_ns.map_or(now, |range| range.0), now + 1_000_000_000));
        in_flight.spawn(export(channel.clone(), request(run, &ids, now), ids, Arc::clone(&report)));
        if in_flight.len() >= options.connections
            && let Some(ids) = in_flight.join_next().await
        {
            collect(&mut sent, ids?);
        }
        tick += 1;
        let next = Duration::from_secs(1) * tick / u32::try_from(REQUESTS_PER_SECOND)?;
        tokio::time::sleep(next.saturating_sub(begun.elapsed())).await;
    }
    while let Some(ids) = in_flight.join_next().await {
        collect(&mut sent, ids?);
    }
    Ok(sent)
}

fn collect(sent: &mut Sent, ids: Vec<[u8; 16]>) {
    sent.failed += ids.iter().filter(|id| fails(**id)).count() as u64;
    sent.ids.extend(ids);
}

fn fails(id: [u8; 16]) -> bool {
    u128::from_be_bytes(id).is_multiple_of(30)
}

async fn export(
    channel: Channel,
    request: ExportTraceServiceRequest,
    ids: Vec<[u8; 16]>,
    report: Arc<Report>,
) -> Vec<[u8; 16]> {
    let begun = Instant::now();
    match TraceServiceClient::new(channel).export(request).await {
        Ok(answer) => match answer.into_inner().partial_success {
            Some(partial) if partial.rejected_spans > 0 => {
                report.failed(format!("{} spans rejected: {}", partial.rejected_spans, partial.error_message));
                Vec::new()
            }
            _ => {
                report.acknowledged(ids.len() * SPANS_PER_TRACE, begun.elapsed());
                ids
            }
        },
        Err(status) => {
            report.failed(status.to_string());
            Vec::new()
        }
    }
}

fn request(run: &str, ids: &[[u8; 16]], now: u64) -> ExportTraceServiceRequest {
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

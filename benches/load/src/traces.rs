//! Traces of ten spans by OTLP over gRPC: an API that calls workers, one in thirty failing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use tercet_load::data;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::Options;
use super::report::{Report, now_ns};

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
        in_flight.spawn(export(channel.clone(), data::traces(run, &ids, now), ids, Arc::clone(&report)));
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
    sent.failed += ids.iter().filter(|id| data::fails(**id)).count() as u64;
    sent.ids.extend(ids);
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
                report.acknowledged(ids.len() * data::SPANS_PER_TRACE, begun.elapsed());
                ids
            }
        },
        Err(status) => {
            report.failed(status.to_string());
            Vec::new()
        }
    }
}

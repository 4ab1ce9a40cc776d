//! Log lines by Loki push: JSON, logfmt and plain, of several services.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tercet_load::data;
use tokio::task::JoinSet;

use super::Options;
use super::report::{Report, now_ns};

/// Requests a second.
const REQUESTS_PER_SECOND: usize = 10;

/// What was acknowledged.
pub struct Sent {
    /// First and last time in nanoseconds.
    pub range_ns: Option<(u64, u64)>,
    /// Lines in total.
    pub lines: u64,
}

/// Sends lines at a steady pace.
pub async fn send(options: &Options, run: &str, client: &reqwest::Client, report: Arc<Report>) -> anyhow::Result<Sent> {
    let mut sent = Sent { range_ns: None, lines: 0 };
    if options.lines == 0 {
        return Ok(sent);
    }
    let per_request = options.lines.div_ceil(REQUESTS_PER_SECOND);
    let begun = Instant::now();
    let mut in_flight = JoinSet::new();
    let mut number = 0u64;
    let mut tick = 0u32;
    while begun.elapsed() < options.duration {
        let first_ns = now_ns();
        let body = data::loki_push(run, number, per_request, first_ns);
        number += per_request as u64;
        sent.range_ns = Some((sent.range_ns.map_or(first_ns, |range| range.0), first_ns + per_request as u64));
        let request = client
            .post(format!("{}/loki/api/v1/push", options.http))
            .header("Content-Type", "application/json")
            .body(body);
        let report = Arc::clone(&report);
        in_flight.spawn(async move { acknowledged(request, &report, per_request).await });
        if in_flight.len() >= options.connections
            && let Some(lines) = in_flight.join_next().await
        {
            sent.lines += lines? as u64;
        }
        tick += 1;
        let next = Duration::from_secs(1) * tick / u32::try_from(REQUESTS_PER_SECOND)?;
        tokio::time::sleep(next.saturating_sub(begun.elapsed())).await;
    }
    while let Some(lines) = in_flight.join_next().await {
        sent.lines += lines? as u64;
    }
    Ok(sent)
}

/// Sends; returns `items` if the server acknowledged them, else 0.
pub async fn acknowledged(request: reqwest::RequestBuilder, report: &Report, items: usize) -> usize {
    let begun = Instant::now();
    match request.send().await {
        Ok(answer) if answer.status().is_success() => {
            report.acknowledged(items, begun.elapsed());
            items
        }
        Ok(answer) => {
            let status = answer.status();
            report.failed(format!("{status} {}", answer.text().await.unwrap_or_default().trim()));
            0
        }
        Err(error) => {
            report.failed(error.to_string());
            0
        }
    }
}

//! Series by Prometheus remote write 1.0: counters and gauges of many hosts, one sample each per interval.

use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use tercet_load::data;

use super::Options;
use super::report::{Report, now_ns};

/// Series of one request, as a Prometheus shard sends them.
const SERIES_PER_REQUEST: usize = 2_000;

/// What was acknowledged: times of rounds (ms) and, for each, the number of series.
pub struct Sent {
    /// First and last time.
    pub range_ms: Option<(i64, i64)>,
    /// Samples in total.
    pub samples: u64,
}

/// Sends a sample of every series per interval, spread over the interval.
pub async fn send(options: &Options, run: &str, client: &reqwest::Client, report: Arc<Report>) -> anyhow::Result<Sent> {
    let mut sent = Sent { range_ms: None, samples: 0 };
    if options.series == 0 {
        return Ok(sent);
    }
    let begun = Instant::now();
    let mut round: u32 = 0;
    while begun.elapsed() < options.duration {
        let stamp = i64::try_from(now_ns() / 1_000_000)?;
        let groups: Vec<usize> = (0..options.series).step_by(SERIES_PER_REQUEST).collect();
        let done: Vec<usize> = futures::stream::iter(groups)
            .map(|from| {
                let to = (from + SERIES_PER_REQUEST).min(options.series);
                push(options, client, &report, data::remote_write(run, from..to, stamp, round), to - from)
            })
            .buffer_unordered(options.connections)
            .collect()
            .await;
        sent.samples += done.iter().sum::<usize>() as u64;
        sent.range_ms = Some((sent.range_ms.map_or(stamp, |range| range.0), stamp));
        round += 1;
        let next = options.interval * round;
        tokio::time::sleep(next.saturating_sub(begun.elapsed())).await;
    }
    Ok(sent)
}

async fn push(options: &Options, client: &reqwest::Client, report: &Report, message: Vec<u8>, samples: usize) -> usize {
    let body = match snap::raw::Encoder::new().compress_vec(&message) {
        Ok(body) => body,
        Err(error) => {
            report.failed(error.to_string());
            return 0;
        }
    };
    let request = client
        .post(format!("{}/api/v1/write", options.http))
        .header("Content-Type", "application/x-protobuf")
        .header("Content-Encoding", "snappy")
        .header("X-Prometheus-Remote-Write-Version", "0.1.0")
        .body(body);
    super::logs::acknowledged(request, report, samples).await
}

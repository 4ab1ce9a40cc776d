//! The load generator: series, log lines and traces over the real protocols, at a steady pace; then it asks the server
//! whether anything it acknowledged is missing.
//!
//! ```text
//! tercet-load --series 10000 --interval 15s --lines 1000 --traces 100 --duration 60s
//! ```

mod logs;
mod metrics;
mod report;
mod traces;
mod verify;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;

use report::Report;

/// What to send, where, for how long.
#[derive(Clone, Debug, Parser)]
#[command(about = "Loads a Tercet with metrics, logs and traces and verifies what it acknowledged")]
pub struct Options {
    /// The server's HTTP port.
    #[arg(long, default_value = "http://127.0.0.1:9090")]
    pub http: String,
    /// The server's OTLP port for gRPC.
    #[arg(long, default_value = "http://127.0.0.1:4317")]
    pub otlp_grpc: String,
    /// Active series; each gets one sample per interval by remote write. 0: no metrics.
    #[arg(long, default_value_t = 10_000)]
    pub series: usize,
    /// Distance of a series' samples.
    #[arg(long, default_value = "15s", value_parser = parse_duration)]
    pub interval: Duration,
    /// Log lines per second by Loki push: JSON, logfmt and plain in turn. 0: no logs.
    #[arg(long, default_value_t = 1_000)]
    pub lines: usize,
    /// Traces of ten spans per second by OTLP over gRPC. 0: no traces.
    #[arg(long, default_value_t = 100)]
    pub traces: usize,
    /// How long to send.
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Requests in flight per signal.
    #[arg(long, default_value_t = 4)]
    pub connections: usize,
    /// Leave out the questions at the end.
    #[arg(long)]
    pub no_verify: bool,
    /// Marks this run's data, so that runs on one server do not mix; default: the time of day.
    #[arg(long)]
    pub run: Option<String>,
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| format!("`{text}` is no duration; write 500ms, 15s or 2m"))?;
    match &text[digits.len()..] {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        unit => Err(format!("`{unit}` is no unit of time; write ms, s or m")),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let run = options.run.clone().unwrap_or_else(|| format!("r{}", report::now_ns() / 1_000_000_000));
    let client = reqwest::Client::builder().no_proxy().build()?;
    println!(
        "run {run}: {} series every {:?}, {} lines/s, {} traces/s for {:?}",
        options.series, options.interval, options.lines, options.traces, options.duration
    );
    let [metrics, logs, traces] = ["metrics", "logs", "traces"].map(|name| Arc::new(Report::new(name)));
    let (a, b, c) = tokio::join!(
        metrics::send(&options, &run, &client, Arc::clone(&metrics)),
        logs::send(&options, &run, &client, Arc::clone(&logs)),
        traces::send(&options, &run, Arc::clone(&traces)),
    );
    let (metrics_sent, logs_sent, traces_sent) = (a?, b?, c?);
    for report in [&metrics, &logs, &traces] {
        println!("{report}");
    }
    let mut good = [&metrics, &logs, &traces].iter().all(|report| report.errors() == 0);
    if !options.no_verify {
        let verdicts = verify::all(&options, &run, &client, &metrics_sent, &logs_sent, &traces_sent).await?;
        for verdict in &verdicts {
            println!("{verdict}");
        }
        good &= verdicts.iter().all(|verdict| verdict.missing == 0 && verdict.surplus == 0);
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

//! Asks the three query APIs whether what was acknowledged is there, each once.

use std::fmt;

use anyhow::Context as _;
use serde_json::Value;

use super::{Options, logs, metrics, traces};

/// How many traces are fetched one by one.
const TRACES_FETCHED: usize = 50;

/// The answer to one question.
pub struct Verdict {
    what: &'static str,
    sent: u64,
    found: u64,
    /// Acknowledged but not found.
    pub missing: u64,
    /// Found more often than sent.
    pub surplus: u64,
}

impl Verdict {
    fn new(what: &'static str, sent: u64, found: u64) -> Self {
        Self { what, sent, found, missing: sent.saturating_sub(found), surplus: found.saturating_sub(sent) }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.missing == 0 && self.surplus == 0 { "ok" } else { "WRONG" };
        write!(f, "verify {:<28} sent {:>9} found {:>9}  {verdict}", self.what, self.sent, self.found)
    }
}

/// All questions.
pub async fn all(
    options: &Options,
    run: &str,
    client: &reqwest::Client,
    metrics: &metrics::Sent,
    logs: &logs::Sent,
    traces: &traces::Sent,
) -> anyhow::Result<Vec<Verdict>> {
    let mut verdicts = Vec::new();
    let ask = Ask { http: &options.http, client };
    if let Some((first, last)) = metrics.range_ms {
        let window = (last - first) / 1000 + 60;
        let at = last / 1000 + 1;
        let query = format!(r#"sum(count_over_time({{run="{run}"}}[{window}s]))"#);
        let answer = ask.json("/api/v1/query", &[("query", &query), ("time", &at.to_string())]).await?;
        verdicts.push(Verdict::new("samples", metrics.samples, number(&answer["data"]["result"][0]["value"][1])));
    }
    if let Some((first, last)) = logs.range_ns {
        let window = (last - first) / 1_000_000_000 + 60;
        let query = format!(r#"sum by (job) (count_over_time({{run="{run}"}} |= "n=" or "\"n\":" [{window}s]))"#);
        let at = (last + 1_000_000_000).to_string();
        let answer = ask.json("/loki/api/v1/query", &[("query", &query), ("time", &at)]).await?;
        verdicts.push(Verdict::new("lines", logs.lines, number(&answer["data"]["result"][0]["value"][1])));
    }
    if !traces.ids.is_empty() {
        verdicts.extend(verify_traces(&ask, run, traces).await?);
    }
    Ok(verdicts)
}

async fn verify_traces(ask: &Ask<'_>, run: &str, traces: &traces::Sent) -> anyhow::Result<[Verdict; 2]> {
    let step = (traces.ids.len() / TRACES_FETCHED).max(1);
    let (mut wanted, mut found) = (0, 0);
    for id in traces.ids.iter().step_by(step) {
        let path = format!("/api/v2/traces/{:032x}", u128::from_be_bytes(*id));
        let trace = ask.json(&path, &[]).await?;
        let resources = trace["trace"]["resourceSpans"].as_array().into_iter().flatten();
        let scopes = resources.flat_map(|resource| resource["scopeSpans"].as_array().into_iter().flatten());
        found += scopes.map(|scope| scope["spans"].as_array().map_or(0, Vec::len) as u64).sum::<u64>();
        wanted += tercet_load::data::SPANS_PER_TRACE as u64;
    }
    let (first, last) = traces.range_ns.context("traces were sent without a time")?;
    let query = format!(r#"{{ resource.load.run = "{run}" && status = error }}"#);
    let (start, end) = ((first / 1_000_000_000).to_string(), (last / 1_000_000_000 + 2).to_string());
    let parameters = [("q", query.as_str()), ("limit", "100000"), ("start", &start), ("end", &end)];
    let answer = ask.json("/api/search", &parameters).await?;
    let failed = answer["traces"].as_array().map_or(0, |list| list.len() as u64);
    Ok([
        Verdict::new("spans of fetched traces", wanted, found),
        Verdict::new("failed traces by search", traces.failed, failed),
    ])
}

struct Ask<'a> {
    http: &'a str,
    client: &'a reqwest::Client,
}

impl Ask<'_> {
    async fn json(&self, path: &str, pairs: &[(&str, &str)]) -> anyhow::Result<Value> {
        let encode = |text: &str| -> String {
            let plain = |b: u8| b.is_ascii_alphanumeric();
            text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
        };
        let query: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let answer = self.client.get(format!("{}{path}?{}", self.http, query.join("&"))).send().await?;
        let status = answer.status();
        let body = answer.text().await?;
        anyhow::ensure!(status.is_success(), "{path} answered {status}: {body}");
        serde_json::from_str(&body).with_context(|| format!("{path} answered no JSON: {body}"))
    }
}

fn number(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse::<f64>().ok()).map_or(0, |number| number as u64)
}

//! An oracle: a client that sends metrics, logs and spans, remembers what became of each request, and compares with
//! what the three query APIs answer.
//!
//! Owns: what request `n` holds (signal, rows, times: all from the number alone), the ledger of fates, the comparison.
//! Does not own: when servers die.
//!
//! Invariants that it checks
//! 1. Every row of an acknowledged request is there, exactly once, with its content.
//! 2. A request without an answer is there whole or not at all.
//! 3. Nothing is there that was never sent; counts that the languages compute agree with the rows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::server::Server;

/// Time of request 0: five seconds before a day ends, in milliseconds. 2026-01-31 23:59:55 UTC.
const BASE_MS: u64 = 1_769_903_995_000;
/// Time between two requests.
const STEP_MS: u64 = 10;
/// Rows of each request.
const ROWS: u64 = 5;
/// Requests that one query asks for; whole seconds, and few enough rows for the default limits.
const WINDOW: u64 = 600;

/// The switches of a server that takes the oracle's times and flushes all the while.
pub const SMALL_HEADS: [&str; 3] = ["--retention", "0", "TERCET_STORAGE_HEAD_BYTES_MAX=48KiB"];

/// What its sender knows of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Acknowledged,
    /// No answer, or one that asks to try again later.
    Unknown,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Metrics,
    Logs,
    Spans,
}

const KINDS: [Kind; 3] = [Kind::Metrics, Kind::Logs, Kind::Spans];

fn kind(request: u64) -> Kind {
    KINDS[usize::try_from(request % 3).expect("small")]
}

fn ms_of(request: u64) -> u64 {
    BASE_MS + request * STEP_MS
}

/// Rows by request and number within it, with how often each was found.
type Found = BTreeMap<(u64, u64), u64>;

/// See the module.
pub struct Oracle {
    client: reqwest::Client,
    next: AtomicU64,
    fates: Mutex<BTreeMap<u64, Fate>>,
}

impl Oracle {
    pub fn new() -> Arc<Self> {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build();
        Arc::new(Self { client: client.expect("a client"), next: AtomicU64::new(0), fates: Mutex::default() })
    }

    /// Requests sent so far.
    pub fn sent(&self) -> u64 {
        self.next.load(Ordering::SeqCst)
    }

    /// Requests acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.fates.lock().expect("not poisoned").values().filter(|fate| **fate == Fate::Acknowledged).count()
    }

    /// Sends the next request to `base` (`http://host:port`) and notes its fate. The status of the answer, if one came.
    pub async fn send(&self, base: &str) -> Option<u16> {
        let request = self.next.fetch_add(1, Ordering::SeqCst);
        let (path, headers, body): (&str, &[(&str, &str)], Vec<u8>) = match kind(request) {
            Kind::Metrics => ("/api/v1/write", &REMOTE_WRITE, write_request(request)),
            Kind::Logs => ("/loki/api/v1/push", &JSON, push(request).to_string().into_bytes()),
            Kind::Spans => ("/v1/traces", &JSON, export(request).to_string().into_bytes()),
        };
        let mut post = self.client.post(format!("{base}{path}")).body(body);
        for (name, value) in headers {
            post = post.header(*name, *value);
        }
        let answer = post.send().await.ok();
        let status = answer.as_ref().map(|answer| answer.status().as_u16());
        let fate = match status {
            Some(200..300) => Fate::Acknowledged,
            None | Some(429 | 500..) => Fate::Unknown,
            Some(status) => panic!("request {request} to {path} was answered {status}"),
        };
        self.fates.lock().expect("not poisoned").insert(request, fate);
        status
    }

    /// Sends until told to stop; pauses a little when refused.
    pub async fn keep_sending(self: Arc<Self>, base: String, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::SeqCst) {
            if !matches!(self.send(&base).await, Some(200..300)) {
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
        }
    }

    /// Compares the requests `from..to` once nothing is on its way any more.
    pub async fn check(&self, server: &Server, from: u64, to: u64, when: &str) {
        for start in (from / 100 * 100..to).step_by(usize::try_from(WINDOW).expect("small")) {
            let end = start + WINDOW;
            let (found, counts) = tokio::join!(find(server, start, end), count(server, start, end));
            let fates = self.fates.lock().expect("not poisoned");
            for request in start..end {
                let rows: Vec<u64> = (0..ROWS).map(|row| found.get(&(request, row)).copied().unwrap_or(0)).collect();
                let whole = rows.iter().all(|times| *times == 1);
                let right = match fates.get(&request) {
                    Some(Fate::Acknowledged) => whole,
                    Some(Fate::Unknown) => whole || rows.iter().all(|times| *times == 0),
                    None => rows.iter().all(|times| *times == 0),
                };
                let fate = fates.get(&request);
                assert!(right, "{when}: {:?} request {request} ({fate:?}) was found {rows:?} times", kind(request));
            }
            for (of, counted) in KINDS.into_iter().zip(counts) {
                let rows: u64 = found.iter().filter(|((request, _), _)| kind(*request) == of).map(|(_, n)| *n).sum();
                assert_eq!(counted, rows, "{when}: {of:?} from {start} to {end} as counted by the language");
            }
        }
    }

    /// [`Oracle::check`] of everything.
    pub async fn check_all(&self, server: &Server, when: &str) {
        self.check(server, 0, self.sent().max(1), when).await;
    }

    /// Queries the latest requests while others are on their way: what was acknowledged before is there once.
    pub async fn keep_checking(self: Arc<Self>, server: Arc<Server>, stop: Arc<AtomicBool>, when: String) {
        while !stop.load(Ordering::SeqCst) {
            let start = self.sent().saturating_sub(WINDOW / 2) / 100 * 100;
            let before: Vec<u64> = {
                let fates = self.fates.lock().expect("not poisoned");
                let done = fates.range(start..start + WINDOW).filter(|(_, fate)| **fate == Fate::Acknowledged);
                done.map(|(request, _)| *request).collect()
            };
            let found = find(&server, start, start + WINDOW).await;
            for request in before {
                let rows: Vec<u64> = (0..ROWS).map(|row| found.get(&(request, row)).copied().unwrap_or(0)).collect();
                let once = rows.iter().all(|times| *times == 1);
                assert!(once, "{when}: {:?} request {request} was found {rows:?} times meanwhile", kind(request));
            }
            assert!(found.keys().all(|(request, _)| *request < self.sent()), "{when}: rows that nobody sent");
        }
    }
}

/// Calls flush and compaction in turn until told to stop; a server that dies meanwhile is none of its business.
pub async fn keep_maintaining(base: String, seed: u64, stop: Arc<AtomicBool>) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let mut random = StdRng::seed_from_u64(seed);
    while !stop.load(Ordering::SeqCst) {
        let path = if random.random_bool(0.6) { "/-/flush" } else { "/-/compact" };
        let _ = client.post(format!("{base}{path}")).send().await;
        tokio::time::sleep(Duration::from_millis(random.random_range(1..60))).await;
    }
}

const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];
const REMOTE_WRITE: [(&str, &str); 3] = [
    ("Content-Type", "application/x-protobuf"),
    ("Content-Encoding", "snappy"),
    ("X-Prometheus-Remote-Write-Version", "0.1.0"),
];

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

/// One sample of each of five series; now and then the series are new ones.
fn write_request(request: u64) -> Vec<u8> {
    let label = |name: &str, value: String| Label { name: name.to_owned(), value };
    let timestamp = i64::try_from(ms_of(request)).expect("fits");
    let timeseries = (0..ROWS).map(|row| TimeSeries {
        labels: vec![
            label("__name__", "oracle_total".to_owned()),
            label("pod", (request / 150).to_string()),
            label("row", row.to_string()),
        ],
        samples: vec![Sample { value: (request * ROWS + row) as f64, timestamp }],
    });
    let message = WriteRequest { timeseries: timeseries.collect() }.encode_to_vec();
    snap::raw::Encoder::new().compress_vec(&message).expect("packs")
}

fn line(request: u64, row: u64) -> String {
    format!("request {request} row {row} {}", "x".repeat(60))
}

fn push(request: u64) -> Value {
    let time = |row: u64| (ms_of(request) * 1_000_000 + row).to_string();
    let values: Vec<Value> = (0..ROWS).map(|row| json!([time(row), line(request, row)])).collect();
    let labels = json!({ "app": "oracle", "pod": (request / 150).to_string() });
    json!({ "streams": [{ "stream": labels, "values": values }] })
}

/// Never a whole second: intervals of TraceQL metrics are open on the left.
fn span_start(request: u64, row: u64) -> u64 {
    ms_of(request) * 1_000_000 + row + 1
}

fn export(request: u64) -> Value {
    let spans: Vec<Value> = (0..ROWS)
        .map(|row| {
            let start = span_start(request, row);
            json!({
                "traceId": format!("{:032x}", (0xfeed_u128 << 64) + u128::from(request)),
                "spanId": format!("{:016x}", request * ROWS + row + 1),
                "name": format!("row {row}"), "kind": 2,
                "startTimeUnixNano": start.to_string(), "endTimeUnixNano": (start + 1000).to_string(),
                "attributes": [{ "key": "request", "value": { "intValue": request.to_string() } }],
            })
        })
        .collect();
    let service = json!({ "key": "service.name", "value": { "stringValue": "oracle" } });
    let pod = json!({ "key": "pod", "value": { "stringValue": (request / 150).to_string() } });
    json!({ "resourceSpans": [{
        "resource": { "attributes": [service, pod] },
        "scopeSpans": [{ "scope": { "name": "oracle" }, "spans": spans }],
    }] })
}

/// All rows of the requests `from..to` that the three APIs give; panics at content that no request has.
async fn find(server: &Server, from: u64, to: u64) -> Found {
    let (metrics, logs, spans) =
        tokio::join!(find_samples(server, from, to), find_lines(server, from, to), find_spans(server, from, to));
    let mut all = metrics;
    for (row, times) in logs.into_iter().chain(spans) {
        *all.entry(row).or_default() += times;
    }
    all
}

/// The end of the window as PromQL and LogQL take it, and the length of a left-open range that holds just the window.
fn window(from: u64, to: u64) -> (u64, String) {
    (ms_of(to) - 1, format!("{}ms", ms_of(to) - ms_of(from)))
}

fn list<'a>(value: &'a Value, answer: &Value) -> &'a Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("not a list in {answer}"))
}

/// Whether `value` is the text of `number`.
fn says(value: &Value, number: u64) -> bool {
    value.as_str() == Some(number.to_string().as_str())
}

async fn find_samples(server: &Server, from: u64, to: u64) -> Found {
    let (end, range) = window(from, to);
    let query = [("query", format!("oracle_total[{range}]")), ("time", format!("{}.{:03}", end / 1000, end % 1000))];
    let query = query.each_ref().map(|(name, value)| (*name, value.as_str()));
    let answer = server.json("/api/v1/query", &query).await;
    let mut found = Found::new();
    for series in list(&answer["data"]["result"], &answer) {
        for sample in list(&series["values"], &answer) {
            let number: u64 = sample[1].as_str().and_then(|text| text.parse().ok()).expect("a whole number");
            let (request, row) = (number / ROWS, number % ROWS);
            let ms = (sample[0].as_f64().expect("a time") * 1000.0).round() as u64;
            let labels = &series["metric"];
            let right = ms == ms_of(request)
                && says(&labels["row"], row)
                && says(&labels["pod"], request / 150)
                && kind(request) == Kind::Metrics;
            assert!(right, "a sample that nobody sent: {labels} {sample}");
            *found.entry((request, row)).or_default() += 1;
        }
    }
    found
}

async fn find_lines(server: &Server, from: u64, to: u64) -> Found {
    let (start, end) = ((ms_of(from) * 1_000_000).to_string(), (ms_of(to) * 1_000_000).to_string());
    let query = [("query", r#"{app="oracle"}"#), ("start", &start), ("end", &end), ("limit", "5000")];
    let answer = server.json("/loki/api/v1/query_range", &query).await;
    let mut found = Found::new();
    for stream in list(&answer["data"]["result"], &answer) {
        for entry in list(&stream["values"], &answer) {
            let text = entry[1].as_str().expect("a line");
            let mut numbers = text.split(' ').filter_map(|word| word.parse::<u64>().ok());
            let (request, row) = (numbers.next().expect("a number"), numbers.next().expect("a number"));
            let time = (ms_of(request) * 1_000_000 + row).to_string();
            let right = text == line(request, row)
                && entry[0] == time.as_str()
                && says(&stream["stream"]["pod"], request / 150)
                && kind(request) == Kind::Logs;
            assert!(right, "an entry that nobody sent: {} {entry}", stream["stream"]);
            *found.entry((request, row)).or_default() += 1;
        }
    }
    found
}

async fn find_spans(server: &Server, from: u64, to: u64) -> Found {
    let (start, end) = ((ms_of(from) / 1000).to_string(), (ms_of(to) / 1000).to_string());
    let query = r#"{ resource.service.name = "oracle" } | select(span.request)"#;
    let query = [("q", query), ("start", &start), ("end", &end), ("limit", "2000"), ("spss", "100")];
    let answer = server.json("/api/search", &query).await;
    let mut found = Found::new();
    let none = Vec::new();
    for trace in answer["traces"].as_array().unwrap_or(&none) {
        let id = trace["traceID"].as_str().and_then(|id| u128::from_str_radix(id, 16).ok()).expect("an id");
        let request = u64::try_from(id - (0xfeed_u128 << 64)).expect("one of ours");
        if !(from..to).contains(&request) {
            continue;
        }
        for span in trace["spanSets"].as_array().into_iter().flatten().flat_map(|set| list(&set["spans"], &answer)) {
            let id = span["spanID"].as_str().and_then(|id| u64::from_str_radix(id, 16).ok()).expect("an id") - 1;
            let row = id % ROWS;
            let attribute = list(&span["attributes"], &answer).iter().find(|attribute| attribute["key"] == "request");
            let right = id / ROWS == request
                && says(&span["startTimeUnixNano"], span_start(request, row))
                && span["durationNanos"] == "1000"
                && attribute.is_some_and(|it| says(&it["value"]["intValue"], request))
                && kind(request) == Kind::Spans;
            assert!(right, "a span that nobody sent: {} {span}", trace["traceID"]);
            *found.entry((request, row)).or_default() += 1;
        }
    }
    found
}

/// Rows of the window as each language counts them, in the order of [`KINDS`].
async fn count(server: &Server, from: u64, to: u64) -> [u64; 3] {
    let (end, range) = window(from, to);
    let vector = |answer: Value| match answer["data"]["result"][0]["value"][1].as_str() {
        Some(text) => text.parse::<f64>().expect("a number") as u64,
        None => 0,
    };
    let seconds = format!("{}.{:03}", end / 1000, end % 1000);
    let promql = format!("sum(count_over_time(oracle_total[{range}]))");
    let promql = server.json("/api/v1/query", &[("query", promql.as_str()), ("time", seconds.as_str())]).await;
    let logql = format!(r#"sum(count_over_time({{app="oracle"}}[{range}]))"#);
    // A window's last entries lie some nanoseconds behind its last millisecond.
    let at = (ms_of(to) * 1_000_000 - 1).to_string();
    let logql = server.json("/loki/api/v1/query", &[("query", logql.as_str()), ("time", at.as_str())]).await;
    let traceql = r#"{ resource.service.name = "oracle" } | count_over_time()"#;
    let (start, end) = ((ms_of(from) / 1000).to_string(), (ms_of(to) / 1000).to_string());
    let traceql = server.json("/api/metrics/query", &[("q", traceql), ("start", &start), ("end", &end)]).await;
    let spans = traceql["series"][0]["value"].as_f64().unwrap_or(0.0) as u64;
    [vector(promql), vector(logql), spans]
}

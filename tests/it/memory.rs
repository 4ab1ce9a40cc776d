//! Hostile queries under a small `memory.limit`: each fails alone and says which share it wanted too much of, or is
//! answered; others are served meanwhile, and the process stays within what it may take.

use prost::Message;

use super::server::{Server, query_string};

/// What the process is given. Much of a debug build's resident memory is its code.
const LIMIT_MIB: u64 = 64;
const RESIDENT_MIB_MAX: u64 = 192;
const SERIES: usize = 10_000;
const SAMPLES: i64 = 8;
const FORM: &str = "application/x-www-form-urlencoded";
const NOW_MS: i64 = 1_767_571_200_000;

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

fn series(number: usize) -> TimeSeries {
    let label = |name: &str, value: String| Label { name: name.to_owned(), value };
    let at = |i: i64| Sample { value: 0.1 * number as f64, timestamp: NOW_MS - (SAMPLES - 1 - i) * 15_000 };
    TimeSeries {
        labels: vec![label("__name__", format!("m{}", number % 50)), label("i", format!("{number:0100}"))],
        samples: (0..SAMPLES).map(at).collect(),
    }
}

/// Sends `body` until it is taken: heads that are full are flushed meanwhile.
async fn send(server: &Server, path: &str, kind: &str, body: Vec<u8>) {
    for _ in 0..200 {
        match server.post(&server.url(path), &[("content-type", kind)], body.clone()).await {
            (200 | 204, _) => return,
            (429, _) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            (status, answer) => panic!("{path}: {status} {answer}"),
        }
    }
    panic!("{path} is never taken");
}

async fn fill(server: &Server) {
    let numbers: Vec<usize> = (0..SERIES).collect();
    for part in numbers.chunks(2_000) {
        let body = WriteRequest { timeseries: part.iter().map(|number| series(*number)).collect() }.encode_to_vec();
        let body = snap::raw::Encoder::new().compress_vec(&body).expect("compresses");
        send(server, "/api/v1/write", "application/x-protobuf", body).await;
    }
    for part in 0..5 {
        let line = |i: usize| format!(r#"["{}","line {i} {}"]"#, NOW_MS * 1_000_000 - i as i64, "x".repeat(200));
        let lines: Vec<String> = (part * 1_000..(part + 1) * 1_000).map(line).collect();
        let body = format!(r#"{{"streams":[{{"stream":{{"app":"a"}},"values":[{}]}}]}}"#, lines.join(","));
        send(server, "/loki/api/v1/push", "application/json", body.into_bytes()).await;
    }
}

fn hostile() -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    let (now, before) = ((NOW_MS / 1000).to_string(), (NOW_MS / 1000 - 3600).to_string());
    let range = |query: &str| {
        vec![("query", query.to_owned()), ("start", before.clone()), ("end", now.clone()), ("step", "5".to_owned())]
    };
    let at = |query: &str| vec![("query", query.to_owned()), ("time", now.clone())];
    let long: Vec<String> = (0..20_000).map(|i| format!("x{i}y?")).collect();
    let huge = format!(r#"count({{i=~"({})"}})"#, long.join("|"));
    vec![
        ("/api/v1/query_range", range(r#"{__name__=~".+"}"#)),
        ("/api/v1/query_range", range(r#"sum by (i) ({__name__=~".+"})"#)),
        ("/api/v1/query", at(r#"sum by (i) (rate({__name__=~".+"}[1h]))"#)),
        ("/api/v1/query_range", range(&huge)),
        ("/api/v1/label/i/values", vec![("start", before.clone()), ("end", now.clone())]),
        ("/api/v1/series", vec![("match[]", r#"{__name__=~".+"}"#.to_owned()), ("start", before.clone())]),
        ("/loki/api/v1/query_range", range(r#"count_over_time({app=~".+"}[1h])"#)),
        ("/loki/api/v1/query", at(r#"sum by (n) (count_over_time({app="a"} | pattern "line <n> <_>" [1h]))"#)),
    ]
}

fn resident_mib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("says its peak");
    line.split_ascii_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") >> 10
}

#[tokio::test]
async fn hostile_queries_fail_alone_within_the_budget() {
    let limit = format!("TERCET_MEMORY_LIMIT={LIMIT_MIB}MiB");
    let server = Server::start_with(&["--retention", "0", &limit]).await;
    fill(&server).await;
    let served = async || {
        let (status, body) = server.get("/api/v1/query", &[("query", "1+1")]).await;
        assert_eq!(status, 200, "others are served: {body}");
    };
    let mut refused = 0;
    for (path, form) in hostile() {
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let url = server.url(path);
        let ask = async {
            match path.starts_with("/api/v1/query") {
                true => {
                    server
                        .post(&url, &[("content-type", FORM)], query_string(&form).trim_start_matches('?').to_owned())
                        .await
                }
                false => server.get(path, &form).await,
            }
        };
        let ((status, body), ()) = tokio::join!(ask, served());
        let start: String = body.chars().take(300).collect();
        match status {
            200 => {}
            400 | 413 | 422 => refused += 1,
            _ => panic!("{path}: {status} {start}"),
        }
        if body.contains("memory share") {
            assert!(body.contains("or raise `"), "{path}: {start}");
        }
    }
    assert!(refused >= 2, "10,000 series at 720 steps are more than the share of queries");
    served().await;
    let peak = resident_mib(&server);
    assert!(peak < RESIDENT_MIB_MAX, "{peak} MiB at `memory.limit` {LIMIT_MIB} MiB");
    let (_, metrics) = server.get("/metrics", &[]).await;
    let used = |share: &str| {
        let name = format!("tercet_memory_share_used_bytes{{share=\"{share}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)).map(str::to_owned)
    };
    assert_eq!(used("query.memory").as_deref(), Some("0"), "all of it was given back");
    assert!(used("memory.heads").is_some());
    let now = (NOW_MS / 1000).to_string();
    let counted = server.json("/api/v1/query", &[("query", "count(m1)"), ("time", &now)]).await;
    assert_eq!(counted["data"]["result"][0]["value"][1], "200", "{counted}");
}

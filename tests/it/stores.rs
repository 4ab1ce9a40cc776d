//! The real binary over a bucket that fails, and over buckets that want credentials.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::gcs::{BUCKET, Fault, Gcs};
use super::server::{Server, Store};

/// First timestamp of the test's lines: 2026-02-01, in nanoseconds.
const BASE_NS: u64 = 1_769_904_000_000_000_000;

/// Pushes the line `number`; the status of the answer.
async fn push(server: &Server, number: u64, padding: usize) -> u16 {
    let ts = (BASE_NS + number * 1_000_000).to_string();
    let line = format!("line {number} {}", "x".repeat(padding));
    let body = json!({ "streams": [{ "stream": { "app": "bucket" }, "values": [[ts, line]] }] });
    let headers = [("Content-Type", "application/json")];
    server.post(&server.url("/loki/api/v1/push"), &headers, body.to_string()).await.0
}

/// Asserts that the lines `numbers` are there, each once, and no others.
async fn check(server: &Server, numbers: &[u64], when: &str) {
    let (start, end) = (BASE_NS.to_string(), (BASE_NS + 3_600_000_000_000).to_string());
    let query = [("query", r#"{app="bucket"}"#), ("start", &start), ("end", &end), ("limit", "5000")];
    let answer = server.json("/loki/api/v1/query_range", &query).await;
    let streams = answer["data"]["result"].as_array().expect("a list").iter();
    let values = streams.flat_map(|stream| stream["values"].as_array().expect("a list"));
    let number = |line: &str| line.split(' ').nth(1).and_then(|number| number.parse::<u64>().ok());
    let mut found: Vec<u64> = values.filter_map(|value| number(value[1].as_str()?)).collect();
    found.sort_unstable();
    assert_eq!(found, numbers, "{when}");
}

/// Waits for something that a background task does; fails after a minute.
async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !done().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The settings of a server that notices soon that its bucket fails.
const HASTY: [&str; 4] =
    ["--retention", "0", "TERCET_STORAGE_REQUEST_TIMEOUT=2s", "TERCET_STORAGE_REQUEST_DEADLINE=1s"];

#[tokio::test]
async fn data_is_taken_while_the_bucket_is_down_until_a_limit_and_nothing_is_lost() {
    let limits = ["TERCET_STORAGE_UNFLUSHED_BYTES_MAX=256KiB", "TERCET_STORAGE_HEAD_BYTES_MAX=64KiB"];
    let options: Vec<&str> = HASTY.into_iter().chain(limits).collect();
    let gcs = Arc::new(Gcs::start());
    let server = Server::start_on_with(Store::Gcs(Arc::clone(&gcs), "down"), &options).await;
    let mut taken = vec![0];
    assert_eq!(push(&server, 0, 10).await, 204);
    server.flush().await;
    gcs.set_down(true);
    let mut refused = 0;
    for number in 1..2000 {
        match push(&server, number, 500).await {
            204 => taken.push(number),
            429 => {
                refused += 1;
                if refused == 3 {
                    break;
                }
            }
            other => panic!("line {number} was answered {other}"),
        }
    }
    assert_eq!(refused, 3, "no limit was reached");
    assert!(taken.len() > 10, "only {} lines were taken while the bucket was down", taken.len());
    let failed = async || server.metric("tercet_flush_errors_total", &["signal=\"logs\""]).await > 0.0;
    until("a flush that fails", failed).await;
    // The tables do not answer, so an answer would lack the first line: it is an error that says so.
    let (status, body) = server.get("/loki/api/v1/query", &[("query", r#"count_over_time({app="bucket"}[1m])"#)]).await;
    assert!(status == 200 || status == 503, "{status} {body}");
    // A process that starts while the bucket is down waits for it.
    let back = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        gcs.set_down(false);
    };
    let (server, ()) = tokio::join!(server.kill_and_restart(), back);
    until("the flush of what waited", async || push(&server, 3000, 10).await == 204).await;
    taken.push(3000);
    check(&server, &taken, "after the bucket came back").await;
    server.flush().await;
    check(&server, &taken, "after a flush").await;
    let reader = server.reader().await;
    check(&reader, &taken, "from a second process").await;
}

#[tokio::test]
async fn in_bad_weather_nothing_is_lost_and_nothing_is_there_twice() {
    let seed = std::env::var("TERCET_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("TERCET_TEST_SEED={seed}");
    let options = ["--retention", "0", "TERCET_STORAGE_REQUEST_TIMEOUT=1s", "TERCET_STORAGE_REQUEST_DEADLINE=3s"];
    let mut server = Server::start_on_with(Store::gcs(), &options).await;
    let storm = [
        (0.05, Fault::Status(503, None)),
        (0.05, Fault::Status(429, Some(0))),
        (0.05, Fault::LoseRequest),
        (0.05, Fault::LoseResponse),
        (0.05, Fault::HalfBody),
        (0.01, Fault::AnswerLate(Duration::from_secs(5))),
    ];
    server.gcs().set_page_max(7);
    let mut taken = Vec::new();
    for round in 0..6 {
        server.gcs().set_weather(seed + round, &storm);
        for number in round * 10..round * 10 + 10 {
            assert_eq!(push(&server, number, 10).await, 204);
            taken.push(number);
        }
        // A flush may fail in such weather; what it did not bring into the tables stays in the log.
        let (status, body) = server.post(&server.url("/-/flush"), &[], "").await;
        assert!((200..300).contains(&status) || status == 503, "flush: {status} {body}");
        if round % 2 == 1 {
            server = server.kill_and_restart().await;
        }
        server.gcs().clear_weather();
        check(&server, &taken, &format!("seed {seed}, round {round}")).await;
    }
    server.flush().await;
    check(&server, &taken, &format!("seed {seed}, at last")).await;
    let reader = server.reader().await;
    check(&reader, &taken, &format!("seed {seed}, from a second process")).await;
}

#[tokio::test]
async fn the_metadata_server_gives_the_token_of_a_workload() {
    let gcs = Gcs::start();
    gcs.require_token("a-token");
    let (host, base) = (format!("GCE_METADATA_HOST={}", gcs.address()), format!("GOOGLE_BASE_URL={}", gcs.endpoint()));
    let url = format!("gs://{BUCKET}/by-metadata");
    let options = ["--retention", "0", "--store", &url, &host, &base, "GOOGLE_ALLOW_HTTP=true", "HOME=/nowhere"];
    let server = Server::start_with(&options).await;
    assert_eq!(push(&server, 1, 10).await, 204);
    server.flush().await;
    check(&server, &[1], "with the token").await;
    assert!(gcs.objects().iter().all(|name| name.starts_with("by-metadata/default/")), "{:?}", gcs.objects());
    assert!(gcs.tokens_given() >= 1, "no token was asked for");
    assert!(gcs.tokens_given() < 5, "a token is used until it ends, not asked for {} times", gcs.tokens_given());
    assert!(server.metric("tercet_store_requests_total", &["operation=\"token\"", "outcome=\"ok\""]).await >= 1.0);
}

#[tokio::test]
async fn requests_are_counted_by_cause_as_the_bucket_counts_them() {
    let gcs = Arc::new(Gcs::start());
    let server = Server::start_on(Store::Gcs(Arc::clone(&gcs), "counted")).await;
    for number in 0..3 {
        assert_eq!(push(&server, number, 10).await, 204);
        server.flush().await;
        check(&server, &(0..=number).collect::<Vec<_>>(), "as written").await;
    }
    let counts = gcs.counts();
    let ours = async |labels: &[&str]| server.metric("tercet_store_requests_total", labels).await as u64;
    let writes = ours(&["operation=\"put\""]).await + ours(&["operation=\"list\""]).await;
    let reads = ours(&["operation=\"get\""]).await + ours(&["operation=\"head\""]).await;
    assert_eq!((writes, reads), (counts.class_a, counts.class_b));
    assert_eq!(ours(&["cause=\"other\""]).await, 0, "each request has a cause");
    assert!(ours(&["cause=\"flush\"", "operation=\"put\""]).await >= 6);
    assert!(ours(&["cause=\"commit\"", "operation=\"put\""]).await >= 4);
    assert_eq!(ours(&["operation=\"list\"", "cause=\"query_rows\""]).await, 0);
    assert!(server.metric("tercet_store_sent_bytes_total", &["cause=\"flush\""]).await > 1000.0);
}

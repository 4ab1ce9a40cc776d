//! Deleting over Prometheus' and Loki's APIs, and rules of retention: hidden at once, also from a second process and
//! after a crash; gone from the disk after upkeep.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::server::{Server, query_string};

const NS_PER_S: u64 = 1_000_000_000;
const DELETE_SERIES: &str = "/api/v1/admin/tsdb/delete_series";

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// One sample of `m` for each job.
async fn send_samples(server: &Server, jobs: &[&str], at_s: u64) {
    let of = |job: &&str| {
        json!({
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": job}}]},
            "scopeMetrics": [{"metrics": [{"name": "m", "gauge": {"dataPoints": [
                {"timeUnixNano": (at_s * NS_PER_S).to_string(), "asDouble": 1.0}
            ]}}]}],
        })
    };
    let body = json!({"resourceMetrics": jobs.iter().map(of).collect::<Vec<_>>()}).to_string();
    let (status, answer) = server.post(&server.url("/v1/metrics"), &[("content-type", "application/json")], body).await;
    assert_eq!(status, 200, "{answer}");
}

async fn send_lines(server: &Server, app: &str, lines: &[&str], at_s: u64) {
    let values: Vec<Value> = lines.iter().map(|line| json!([(at_s * NS_PER_S).to_string(), line])).collect();
    let body = json!({"streams": [{"stream": {"app": app}, "values": values}]}).to_string();
    let headers = [("content-type", "application/json")];
    let (status, answer) = server.post(&server.url("/loki/api/v1/push"), &headers, body).await;
    assert_eq!(status, 204, "{answer}");
}

async fn send_form(server: &Server, path: &str, pairs: &[(&str, &str)]) -> (u16, String) {
    let form = query_string(pairs).trim_start_matches('?').to_owned();
    server.post(&server.url(path), &[("content-type", "application/x-www-form-urlencoded")], form).await
}

/// The jobs of `m`, by samples and as labels.
async fn jobs(server: &Server, at_s: u64) -> (BTreeSet<String>, BTreeSet<String>) {
    let time = at_s.to_string();
    let answer = server.json("/api/v1/query", &[("query", "count by (job) (m)"), ("time", &time)]).await;
    let results = answer["data"]["result"].as_array().expect("a list").iter();
    let sampled = results.filter_map(|series| series["metric"]["job"].as_str().map(str::to_owned)).collect();
    let answer = server.json("/api/v1/series", &[("match[]", "m")]).await;
    let series = answer["data"].as_array().expect("a list").iter();
    (sampled, series.filter_map(|labels| labels["job"].as_str().map(str::to_owned)).collect())
}

async fn lines(server: &Server, app: &str) -> BTreeSet<String> {
    let query = format!("{{app={app:?}}}");
    let range = [("query", query.as_str()), ("since", "6h"), ("limit", "5000")];
    let answer = server.json("/loki/api/v1/query_range", &range).await;
    let streams = answer["data"]["result"].as_array().expect("a list").iter();
    let values = streams.flat_map(|stream| stream["values"].as_array().expect("a list"));
    values.filter_map(|value| value[1].as_str().map(str::to_owned)).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The data files of a table.
fn blocks(server: &Server, table: &str) -> BTreeSet<String> {
    fn walk(folder: &Path, out: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("_delta_log") {
                walk(&path, out);
            } else if path.extension().is_some_and(|ending| ending == "parquet" || ending == "dir") {
                out.insert(path.display().to_string());
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(&server.data().join("store/default").join(table), &mut found);
    found
}

const OPTIONS: [&str; 6] = [
    "--retention",
    "0",
    "TERCET_PROMETHEUS_ADMIN_API=true",
    "TERCET_STORAGE_VACUUM_INTERVAL=1ms",
    "TERCET_STORAGE_VACUUM_GRACE=1ms",
    "TERCET_STORAGE_REFRESH_AGE_MAX=1s",
];

#[tokio::test]
async fn deleted_series_are_hidden_at_once_and_leave_the_disk() {
    let server = Server::start_with(&OPTIONS).await;
    let at = now_s() - 60;
    send_samples(&server, &["a", "b"], at).await;
    server.flush().await;
    send_samples(&server, &["a", "b"], at + 10).await;
    let reader = server.reader().await;
    let (status, body) = send_form(&reader, DELETE_SERIES, &[("match[]", "m")]).await;
    assert_eq!((status, body.contains(r#""error":"admin APIs disabled""#)), (503, true), "{body}");
    let (status, body) = send_form(&server, DELETE_SERIES, &[]).await;
    assert_eq!((status, body.contains("no match[] parameter provided")), (400, true), "{body}");

    let old = blocks(&server, "samples");
    let (status, body) = send_form(&server, DELETE_SERIES, &[("match[]", r#"m{job="a"}"#)]).await;
    assert_eq!((status, body.as_str()), (204, ""));
    assert_eq!(jobs(&server, at + 20).await, (set(&["b"]), set(&["b"])));
    let begun = Instant::now();
    while jobs(&reader, at + 20).await != (set(&["b"]), set(&["b"])) {
        assert!(begun.elapsed() < Duration::from_secs(30), "the reader does not see the request");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let server = server.kill_and_restart().await;
    assert_eq!(jobs(&server, at + 20).await, (set(&["b"]), set(&["b"])));

    for _ in 0..2 {
        let (status, body) = send_form(&server, "/api/v1/admin/tsdb/clean_tombstones", &[]).await;
        assert_eq!((status, body.as_str()), (204, ""));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let left = blocks(&server, "samples");
    assert!(!old.is_empty() && old.is_disjoint(&left), "{old:?} stay");
    assert_eq!(jobs(&server, at + 20).await, (set(&["b"]), set(&["b"])));
    let (_, metrics) = server.get("/metrics", &[]).await;
    assert!(metrics.contains("tercet_removed_rows_total 2\n"), "{metrics}");

    // What comes later is not met.
    send_samples(&server, &["a"], at).await;
    assert_eq!(jobs(&server, at + 20).await, (set(&["a", "b"]), set(&["a", "b"])));
    let server = server.stop_and_restart().await;
    assert_eq!(jobs(&server, at + 20).await, (set(&["a", "b"]), set(&["a", "b"])));
}

#[tokio::test]
async fn deleted_lines_are_hidden_at_once_and_requests_are_listed_and_taken_back() {
    const DELETE: &str = "/loki/api/v1/delete";
    let server = Server::start_with(&OPTIONS).await;
    let at = now_s() - 60;
    send_lines(&server, "a", &["secret=1", "secret=2", "harmless"], at).await;
    send_lines(&server, "b", &["secret=1"], at).await;
    let start = (at - 10).to_string();
    let asked = [("query", r#"{app="a"} |= "secret""#), ("start", start.as_str())];
    assert_eq!(send_form(&server, DELETE, &asked).await, (204, String::new()));
    assert_eq!(lines(&server, "a").await, set(&["harmless"]));
    assert_eq!(lines(&server, "b").await, set(&["secret=1"]));

    let listed = server.json(DELETE, &[]).await;
    let id = listed[0]["request_id"].as_str().expect("an id").to_owned();
    assert_eq!(listed[0]["query"], r#"{app="a"} |= "secret""#);
    assert_eq!((&listed[0]["status"], &listed[0]["start_time"]), (&json!("received"), &json!(at - 10)));
    let server = server.kill_and_restart().await;
    assert_eq!(lines(&server, "a").await, set(&["harmless"]));
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let cancel = |id: String| client.delete(server.url(&format!("{DELETE}?request_id={id}"))).send();
    assert_eq!(cancel(id).await.expect("an answer").status().as_u16(), 204);
    assert_eq!(lines(&server, "a").await, set(&["harmless", "secret=1", "secret=2"]));
    let unknown = cancel("x".into()).await.expect("an answer");
    assert_eq!(unknown.status().as_u16(), 400);
    assert_eq!(unknown.text().await.expect("a text"), "could not find delete request with given id");

    for (query, part) in [
        ("", "query not set"),
        (r#"{app="a"} | json"#, "nothing else"),
        (r#"rate({app="a"}[1m])"#, "nothing else"),
        ("{", "parse error"),
    ] {
        let (status, body) = send_form(&server, DELETE, &[("query", query), ("start", "1")]).await;
        assert_eq!((status, body.contains(part)), (400, true), "{query}: {body}");
    }
}

#[tokio::test]
async fn a_rule_of_retention_hides_only_what_it_names() {
    let rules = r#"TERCET_RETENTION_RULES=[{signal: logs, match: ['app="short"'], age: 1h}]"#;
    let server = Server::start_with(&[rules]).await;
    let old = now_s() - 2 * 3600;
    for app in ["short", "long"] {
        send_lines(&server, app, &["old"], old).await;
        send_lines(&server, app, &["new"], now_s() - 60).await;
    }
    for _ in 0..2 {
        assert_eq!(lines(&server, "short").await, set(&["new"]));
        assert_eq!(lines(&server, "long").await, set(&["old", "new"]));
        server.flush().await;
    }
}

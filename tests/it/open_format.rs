//! Other programs read our tables: the `deltalake` package and DuckDB find the rows that our own APIs give, in all nine
//! tables, and the documented way works as written.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::clients::{python, root, run_client};
use super::server::Server;

const SERVICE: &str = "infer-api";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

#[tokio::test]
async fn deltalake_and_duckdb_find_the_rows_of_our_apis_in_all_tables() {
    let Some(python) = python() else { return };
    let server = Server::start().await;
    let endpoint = format!("http://{}", server.grpc);
    let sent =
        run_client(&python, "otel_send.py", &["--protocol", "grpc", "--endpoint", &endpoint, "--service", SERVICE]);
    let start_ns = sent["logs"][0]["ts_ns"].as_i64().expect("a time");
    server.flush().await;
    send_exemplar(&server, start_ns).await;
    server.flush().await;
    let flushed = check(&server, &python, &sent).await;
    let (status, text) = server.post(&server.url("/-/compact"), &[], "").await;
    assert!((200..300).contains(&status), "{status} {text}");
    let compacted = check(&server, &python, &sent).await;
    assert!(compacted < flushed, "files of samples: {flushed} before compaction, {compacted} after");
    documented_way(&server, &python);
}

/// A counter with an exemplar, which the SDK does not send by itself.
async fn send_exemplar(server: &Server, ns: i64) {
    let point = json!({
        "timeUnixNano": ns.to_string(), "startTimeUnixNano": ns.to_string(), "asInt": "5",
        "exemplars": [{"timeUnixNano": ns.to_string(), "asDouble": 1.5, "traceId": TRACE, "spanId": "b7ad6b7169203331"}],
    });
    let sum = json!({"dataPoints": [point], "aggregationTemporality": 2, "isMonotonic": true});
    let metrics = json!([{"name": "traced", "sum": sum}]);
    let service = json!({"key": "service.name", "value": {"stringValue": SERVICE}});
    let body =
        json!({"resourceMetrics": [{"resource": {"attributes": [service]}, "scopeMetrics": [{"metrics": metrics}]}]});
    let url = server.url("/v1/metrics");
    let (status, text) = server.post(&url, &[("Content-Type", "application/json")], body.to_string()).await;
    assert_eq!(status, 200, "{text}");
}

/// Compares all tables; returns how many files `samples` has.
async fn check(server: &Server, python: &std::path::Path, sent: &Value) -> u64 {
    let tenant = server.data().join("store/default").display().to_string();
    let read = run_client(python, "read_tables.py", &["--tenant", &tenant]);
    for (table, rows) in read["counts"].as_object().expect("a map") {
        assert!(rows.as_u64() > Some(0), "the table {table} is empty");
    }
    let rows = |question: &str| read["rows"][question].as_array().expect("a list").clone();
    assert_eq!(rows("samples").into_iter().map(|row| row_text(&row)).collect::<BTreeSet<_>>(), samples(server).await);
    let name = &sent["metrics"]["histograms"][0]["name"];
    let found: BTreeSet<String> = rows("histograms").iter().map(row_text).collect();
    assert_eq!(found, histograms(server, name.as_str().expect("a name")).await);
    let exemplars: Vec<Value> =
        rows("exemplars").iter().map(|row| json!([row[0]["__name__"], row[2], row[3]])).collect();
    assert_eq!(exemplars, [json!(["traced_total", 1.5, TRACE])]);
    let metadata = rows("metadata");
    for (family, expected) in sent["metrics"]["metadata"].as_object().expect("a map") {
        let found = metadata.iter().find(|row| row[0] == family.as_str()).unwrap_or(&Value::Null);
        assert_eq!((&found[1], &found[3]), (&expected[0], &expected[1]), "{family}");
    }
    let found: BTreeSet<String> = rows("logs").iter().map(log_text).collect();
    let logs = sent["logs"].as_array().expect("a list");
    let expected = logs.iter().map(|log| {
        let stream = json!({"service_name": SERVICE});
        log_text(&json!([stream, log["ts_ns"], log["line"], log["level"], log["trace_id"], log["span_id"]]))
    });
    assert_eq!(found, expected.collect());
    let found: BTreeSet<String> = rows("spans").iter().map(row_text).collect();
    let spans = sent["spans"].as_array().expect("a list");
    let expected = spans
        .iter()
        .map(|span| row_text(&json!([SERVICE, span["trace_id"], span["span_id"], span["name"], span["start_ns"]])));
    assert_eq!(found, expected.collect());
    read["files"]["samples"].as_u64().expect("a number")
}

/// A row as text, so that rows can be compared as sets; numbers by value.
fn row_text(row: &Value) -> String {
    let cells = row.as_array().expect("a row").iter().map(|cell| match cell.as_f64() {
        Some(number) if !cell.is_i64() => number.to_string(),
        _ => cell.to_string(),
    });
    cells.collect::<Vec<_>>().join(" ")
}

/// Of the stream's labels only the service, which names it.
fn log_text(row: &Value) -> String {
    let mut row = row.clone();
    row[0] = row[0]["service_name"].clone();
    row_text(&row)
}

/// The native histograms of a metric by PromQL: labels, milliseconds, count, sum.
async fn histograms(server: &Server, name: &str) -> BTreeSet<String> {
    let answer = server.json("/api/v1/query", &[("query", &format!("{name}[1h]"))]).await;
    let series = &answer["data"]["result"][0];
    let rows = series["histograms"].as_array().expect("a list").iter().map(|pair| {
        let number = |part: &str| pair[1][part].as_str().and_then(|text| text.parse::<f64>().ok());
        row_text(&json!([series["metric"], milliseconds(&pair[0]), number("count"), number("sum")]))
    });
    rows.collect()
}

#[allow(clippy::cast_possible_truncation)]
fn milliseconds(seconds: &Value) -> i64 {
    (seconds.as_f64().expect("a time") * 1000.0).round() as i64
}

/// All float samples by PromQL: labels, milliseconds, value.
async fn samples(server: &Server) -> BTreeSet<String> {
    let answer = server.json("/api/v1/query", &[("query", r#"{__name__=~".+"}[1h]"#)]).await;
    let series = answer["data"]["result"].as_array().expect("a list");
    let rows = series.iter().flat_map(|series| {
        let values = series["values"].as_array().cloned().unwrap_or_default();
        values.into_iter().map(|pair| {
            let value: f64 = pair[1].as_str().expect("a text").parse().expect("a number");
            row_text(&json!([series["metric"], milliseconds(&pair[0]), value]))
        })
    });
    let rows: BTreeSet<String> = rows.collect();
    assert!(rows.len() > 10, "{answer}");
    rows
}

/// Runs the Python of the documentation as it stands there, in a folder where the server's data has its default name.
fn documented_way(server: &Server, python: &std::path::Path) {
    let page = std::fs::read_to_string(root().join("docs/read-the-tables.md")).expect("the page");
    let code = page.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of Python");
    let folder = tempfile::TempDir::new().expect("a folder");
    std::os::unix::fs::symlink(server.data(), folder.path().join("tercet-data")).expect("a link");
    let output = std::process::Command::new(python).args(["-c", code]).current_dir(folder.path()).output();
    let output = output.expect("Python starts");
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{errors}");
    for part in ["http_requests_total", SERVICE, "GET /job", "error"] {
        assert!(said.contains(part), "{part} is not in:\n{said}");
    }
}

//! The OpenTelemetry SDK for Python sends all three signals; the three query APIs give back what it says it sent.

use serde_json::Value;

use super::clients::{python, run_client};
use super::journey::survive;
use super::server::{Server, Store};

#[tokio::test]
async fn the_sdk_over_grpc_finds_everything_again() {
    send_and_survive("grpc", Store::Folder).await;
}

#[tokio::test]
async fn the_sdk_over_http_finds_everything_again() {
    send_and_survive("http", Store::Folder).await;
}

#[tokio::test]
async fn the_sdk_finds_everything_again_in_a_bucket() {
    send_and_survive("grpc", Store::gcs()).await;
}

async fn send_and_survive(protocol: &str, store: Store) {
    let Some(python) = python() else { return };
    let server = Server::start_on(store).await;
    let endpoint = format!("http://{}", if protocol == "grpc" { server.grpc } else { server.otlp });
    let arguments = ["--protocol", protocol, "--endpoint", &endpoint, "--service", "infer-api"];
    let sent = run_client(&python, "otel_send.py", &arguments);
    survive(server, |server, stop| {
        let sent = sent.clone();
        async move {
            check_metrics(&server, &sent, stop).await;
            check_logs(&server, &sent, stop).await;
            check_traces(&server, &sent, stop).await;
            server
        }
    })
    .await;
}

async fn check_metrics(server: &Server, sent: &Value, stop: &str) {
    for expected in sent["metrics"]["floats"].as_array().expect("a list") {
        let query = selector(expected);
        let answer = server.json("/api/v1/query", &[("query", &query)]).await;
        let result = answer["data"]["result"].as_array().expect("a list");
        assert_eq!(result.len(), 1, "{stop}: {query}: {answer}");
        let value: f64 = result[0]["value"][1].as_str().expect("a text").parse().expect("a number");
        assert_eq!(Some(value), expected["value"].as_f64(), "{stop}: {query}");
    }
    for expected in sent["metrics"]["histograms"].as_array().expect("a list") {
        let query = selector(expected);
        let answer = server.json("/api/v1/query", &[("query", &query)]).await;
        let histogram = &answer["data"]["result"][0]["histogram"][1];
        for part in ["count", "sum"] {
            let value: f64 = histogram[part].as_str().unwrap_or_default().parse().unwrap_or(f64::NAN);
            assert_eq!(Some(value), expected[part].as_f64(), "{stop}: {part} of {query}: {answer}");
        }
    }
    let metadata = server.json("/api/v1/metadata", &[]).await;
    for (family, expected) in sent["metrics"]["metadata"].as_object().expect("a map") {
        let found = &metadata["data"][family][0];
        assert_eq!((&found["type"], &found["help"]), (&expected[0], &expected[1]), "{stop}: {family}: {metadata}");
    }
}

fn selector(expected: &Value) -> String {
    let labels = expected["labels"].as_object().expect("a map");
    let matchers: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{}{{{}}}", expected["name"].as_str().expect("a name"), matchers.join(","))
}

async fn check_logs(server: &Server, sent: &Value, stop: &str) {
    let expected = sent["logs"].as_array().expect("a list");
    let first = expected[0]["ts_ns"].as_i64().expect("a time");
    let (start, end) = ((first - 1_000_000_000).to_string(), (first + 60_000_000_000).to_string());
    let query = r#"{service_name="infer-api"}"#;
    let range = [("query", query), ("start", &start), ("end", &end), ("limit", "1000"), ("direction", "forward")];
    let answer = server.json("/loki/api/v1/query_range", &range).await;
    let mut found: Vec<[String; 6]> = Vec::new();
    for stream in answer["data"]["result"].as_array().expect("a list") {
        let label = |name: &str| stream["stream"][name].as_str().unwrap_or_default().to_owned();
        for value in stream["values"].as_array().expect("a list") {
            let text = |i: usize| value[i].as_str().unwrap_or_default().to_owned();
            let [level, trace, span, user] = ["detected_level", "trace_id", "span_id", "user_id"].map(label);
            found.push([text(0), text(1), level, trace, span, user]);
        }
    }
    found.sort();
    let mut wanted: Vec<[String; 6]> = expected
        .iter()
        .map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            let [line, level, trace, span, user] = ["line", "level", "trace_id", "span_id", "user_id"].map(text);
            [entry["ts_ns"].to_string(), line, level, trace, span, user]
        })
        .collect();
    wanted.sort();
    assert_eq!(found, wanted, "{stop}");

    let errors = expected.iter().filter(|entry| entry["level"] == "error").count();
    let count = r#"sum by (service_name) (count_over_time({service_name="infer-api"} | detected_level="error" [5m]))"#;
    let at = (first + 60_000_000_000).to_string();
    let answer = server.json("/loki/api/v1/query", &[("query", count), ("time", &at)]).await;
    assert_eq!(answer["data"]["result"][0]["value"][1], errors.to_string(), "{stop}: {answer}");
}

async fn check_traces(server: &Server, sent: &Value, stop: &str) {
    let expected = sent["spans"].as_array().expect("a list");
    for span in expected {
        let id = span["trace_id"].as_str().expect("an id");
        let trace = server.json(&format!("/api/v2/traces/{id}"), &[]).await;
        let resources = trace["trace"]["resourceSpans"].as_array().expect("a list");
        let in_trace = expected.iter().filter(|other| other["trace_id"] == span["trace_id"]).count();
        let spans: Vec<&Value> = resources
            .iter()
            .flat_map(|resource| resource["scopeSpans"].as_array().expect("a list"))
            .flat_map(|scope| scope["spans"].as_array().expect("a list"))
            .collect();
        assert_eq!(spans.len(), in_trace, "{stop}: {trace}");
        let wanted = base64_of_hex(span["span_id"].as_str().expect("an id"));
        let found = spans.iter().find(|found| found["spanId"] == wanted.as_str()).expect("the span is in its trace");
        check_span(found, span, stop);
    }
    let (status, _) = server.get("/api/traces/0123456789abcdef0123456789abcdef", &[]).await;
    assert_eq!(status, 404, "{stop}: an unknown trace");

    for (query, wanted) in [
        (r#"{ resource.service.name = "infer-api" && span.http.response.status_code = 500 }"#, 1),
        (r"{ span.attempt >= 2 }", 3),
        (r"{ span.batched = true && span.gpu.share = 0.25 }", 5),
        (r"{ status = error }", 1),
        (r#"{ name = "nothing" }"#, 0),
    ] {
        let answer = server.json("/api/search", &[("q", query), ("limit", "100")]).await;
        assert_eq!(answer["traces"].as_array().map_or(0, Vec::len), wanted, "{stop}: {query}: {answer}");
    }
    let values = server.json("/api/v2/search/tag/span.attempt/values", &[]).await;
    let mut attempts: Vec<&str> =
        values["tagValues"].as_array().expect("a list").iter().filter_map(|v| v["value"].as_str()).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, ["0", "1", "2", "3", "4"], "{stop}");
}

fn check_span(found: &Value, sent: &Value, stop: &str) {
    assert_eq!(found["name"], sent["name"], "{stop}");
    assert_eq!(found["kind"], sent["kind"], "{stop}");
    let parent = sent["parent_span_id"].as_str().expect("an id");
    let wanted_parent = if parent.is_empty() { Value::Null } else { Value::String(base64_of_hex(parent)) };
    assert_eq!(found["parentSpanId"], wanted_parent, "{stop}");
    assert_eq!(found["startTimeUnixNano"], sent["start_ns"].to_string(), "{stop}");
    assert_eq!(found["endTimeUnixNano"], sent["end_ns"].to_string(), "{stop}");
    let status = match sent["status"].as_str() {
        Some("UNSET") => Value::Null,
        Some(name) => Value::String(format!("STATUS_CODE_{name}")),
        None => panic!("the record lacks a status"),
    };
    assert_eq!(found["status"]["code"], status, "{stop}");
    assert_eq!(found["status"]["message"].as_str().unwrap_or_default(), sent["status_message"], "{stop}");
    check_attributes(&found["attributes"], &sent["attributes"], stop);
    let events = sent["events"].as_array().expect("a list");
    assert_eq!(found["events"].as_array().map_or(0, Vec::len), events.len(), "{stop}");
    for (i, event) in events.iter().enumerate() {
        assert_eq!(found["events"][i]["name"], event["name"], "{stop}");
        assert_eq!(found["events"][i]["timeUnixNano"], event["ts_ns"].to_string(), "{stop}");
        check_attributes(&found["events"][i]["attributes"], &event["attributes"], stop);
    }
}

fn check_attributes(found: &Value, sent: &Value, stop: &str) {
    let sent = sent.as_object().expect("a map");
    let list = found.as_array().map(Vec::as_slice).unwrap_or_default();
    assert_eq!(list.len(), sent.len(), "{stop}: {found}");
    for (key, value) in sent {
        let attribute = list.iter().find(|a| a["key"] == key.as_str()).expect("the attribute is there");
        assert_eq!(attribute["value"], otlp_json(value), "{stop}: {key}");
    }
}

/// A plain value as the JSON form of OTLP spells it.
fn otlp_json(value: &Value) -> Value {
    match value {
        Value::String(text) => serde_json::json!({ "stringValue": text }),
        Value::Bool(bool) => serde_json::json!({ "boolValue": bool }),
        Value::Number(number) if number.is_i64() => serde_json::json!({ "intValue": number.to_string() }),
        Value::Number(number) => serde_json::json!({ "doubleValue": number }),
        Value::Array(list) => {
            serde_json::json!({ "arrayValue": { "values": list.iter().map(otlp_json).collect::<Vec<_>>() } })
        }
        other => panic!("the sender has no such attribute: {other}"),
    }
}

fn base64_of_hex(hex: &str) -> String {
    use base64::Engine as _;
    let byte = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex");
    let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

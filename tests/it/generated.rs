//! Spans come in by OTLP; span metrics and the service graph come out as series, of each process' own count.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::server::Server;

const EVERY_SECOND: [&str; 1] = ["TERCET_TRACES_GENERATOR_INTERVAL=1s"];

/// One call from `web` to `cart`, which has just ended.
async fn send_call(server: &Server, number: u8) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
    let span = |id: u8, parent: &str, kind: u8, name: &str| {
        json!({
            "traceId": format!("{number:032x}"), "spanId": format!("{id:016x}"), "parentSpanId": parent, "kind": kind,
            "name": name, "startTimeUnixNano": (now - 5_000_000).to_string(), "endTimeUnixNano": now.to_string(),
        })
    };
    let of = |service: &str, span: Value| {
        let attribute = json!({"key": "service.name", "value": {"stringValue": service}});
        json!({"resource": {"attributes": [attribute]}, "scopeSpans": [{"spans": [span]}]})
    };
    let client = of("web", span(1, "", 3, "GET cart"));
    let called = of("cart", span(2, &format!("{:016x}", 1), 2, "GET /cart"));
    let body = json!({"resourceSpans": [client, called]}).to_string();
    let (status, text) = server.post(&server.url("/v1/traces"), &[("content-type", "application/json")], body).await;
    assert_eq!(status, 200, "{text}");
}

/// The newest value of `query`, once there is one that `fits`.
async fn eventually(server: &Server, query: &str, fits: impl Fn(f64) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let answer = server.json("/api/v1/query", &[("query", query)]).await;
        let value = answer["data"]["result"][0]["value"][1].as_str().and_then(|text| text.parse::<f64>().ok());
        if value.is_some_and(&fits) {
            return answer["data"]["result"][0]["metric"].clone();
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{query}: {answer}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn spans_make_metrics_that_a_restart_does_not_count_twice() {
    let server = Server::start_with(&EVERY_SECOND).await;
    send_call(&server, 1).await;
    let edge = eventually(&server, "traces_service_graph_request_total", |value| value == 1.0).await;
    assert_eq!((&edge["client"], &edge["server"]), (&json!("web"), &json!("cart")));
    assert_eq!(edge.get("connection_type"), None);
    let calls = r#"traces_spanmetrics_calls_total{service="cart",span_kind="SPAN_KIND_SERVER"}"#;
    let labels = eventually(&server, calls, |value| value == 1.0).await;
    assert_eq!((&labels["span_name"], &labels["status_code"]), (&json!("GET /cart"), &json!("STATUS_CODE_UNSET")));
    let bucket = r#"traces_spanmetrics_latency_bucket{service="cart",le="0.008"}"#;
    eventually(&server, bucket, |value| value == 1.0).await;
    // The first sample of a series is a 0, so that its first rise is seen.
    eventually(&server, "increase(traces_service_graph_request_total[1m])", |value| value > 0.0).await;
    let exemplars = server.json("/api/v1/query_exemplars", &[("query", "traces_spanmetrics_latency_bucket")]).await;
    let labels = &exemplars["data"][0]["exemplars"][0]["labels"];
    assert_eq!(labels["traceID"], json!(format!("{:032x}", 1)));

    let server = server.kill_and_restart().await;
    send_call(&server, 2).await;
    // The log holds the first call; only the second is counted by this process.
    eventually(&server, &format!("resets({calls}[5m])"), |value| value == 1.0).await;
    eventually(&server, calls, |value| value == 1.0).await;
}

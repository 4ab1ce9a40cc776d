//! What OTLP brings in, Jaeger's query API gives back: services, operations, traces, dependencies.

use serde_json::{Value, json};

use super::server::Server;

const BASE_NS: u64 = 1_767_571_200_000_000_000;

async fn send(server: &Server) {
    let span = |id: u8, parent: &str, kind: u8, name: &str, ms: u64, status: u8| {
        json!({
            "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": format!("{id:016x}"), "parentSpanId": parent,
            "kind": kind, "name": name, "startTimeUnixNano": BASE_NS.to_string(),
            "endTimeUnixNano": (BASE_NS + ms * 1_000_000).to_string(), "status": {"code": status},
            "attributes": [{"key": "http.status_code", "value": {"intValue": "500"}}],
        })
    };
    let of = |service: &str, spans: Vec<Value>| {
        let attribute = json!({"key": "service.name", "value": {"stringValue": service}});
        json!({"resource": {"attributes": [attribute]}, "scopeSpans": [{"spans": spans}]})
    };
    let web = of("web", vec![span(1, "", 2, "GET /", 20, 0), span(2, &format!("{:016x}", 1), 3, "call", 10, 0)]);
    let cart = of("cart", vec![span(3, &format!("{:016x}", 2), 2, "POST /cart", 8, 2)]);
    let body = json!({"resourceSpans": [web, cart]}).to_string();
    let (status, text) = server.post(&server.url("/v1/traces"), &[("content-type", "application/json")], body).await;
    assert_eq!(status, 200, "{text}");
}

#[tokio::test]
async fn jaeger_finds_services_operations_traces_and_dependencies() {
    let server = Server::start().await;
    send(&server).await;
    server.flush().await;
    let services = server.json("/jaeger/api/services", &[]).await;
    assert_eq!((&services["data"], &services["total"]), (&json!(["cart", "web"]), &json!(2)));
    let operations = server.json("/jaeger/api/services/web/operations", &[]).await;
    assert_eq!(operations["data"], json!(["GET /", "call"]));
    let operations = server.json("/jaeger/api/operations", &[("service", "web")]).await;
    let wanted = json!([{"name": "GET /", "spanKind": "server"}, {"name": "call", "spanKind": "client"}]);
    assert_eq!(operations["data"], wanted);

    let (start, end) = ((BASE_NS / 1000 - 1_000_000).to_string(), (BASE_NS / 1000 + 1_000_000).to_string());
    let range = [("start", start.as_str()), ("end", end.as_str())];
    let tags = r#"{"http.status_code":"500","error":"true"}"#;
    let found = server.json("/jaeger/api/traces", &[range[0], range[1], ("service", "cart"), ("tags", tags)]).await;
    assert_eq!(found["total"], json!(1), "{found}");
    let trace = &found["data"][0];
    assert_eq!(trace["traceID"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(trace["spans"].as_array().map(Vec::len), Some(3), "the whole trace, not just what matches");
    let none = server.json("/jaeger/api/traces", &[range[0], range[1], ("service", "web"), ("tags", tags)]).await;
    assert_eq!(none["total"], json!(0), "tags hold on one span of the service: {none}");

    let one = server.json("/jaeger/api/traces/af7651916cd43dd8448eb211c80319c", &[]).await;
    assert_eq!(one["data"][0]["processes"].as_object().map(|all| all.len()), Some(2), "{one}");
    let (status, text) = server.get("/jaeger/api/traces/1", &[]).await;
    assert_eq!(status, 404);
    assert!(text.contains(r#""code":404,"msg":"trace not found""#), "{text}");
    let (status, text) = server.get("/jaeger/api/traces", &range).await;
    assert_eq!(status, 400);
    assert!(text.contains("'service' is required"), "{text}");

    let end_ms = (BASE_NS / 1_000_000 + 1000).to_string();
    let calls = server.json("/jaeger/api/dependencies", &[("endTs", &end_ms), ("lookback", "60000")]).await;
    assert_eq!(calls["data"], json!([{"parent": "web", "child": "cart", "callCount": 1}]));
}

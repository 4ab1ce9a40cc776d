//! A WebSocket client tails a log query: what is stored comes first, then what arrives; what cannot be tailed is refused.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::server::{Server, query_string};

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

fn now_ns() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos()
}

async fn push(server: &Server, app: &str, lines: &[&str]) {
    let values: Vec<Value> = lines.iter().map(|line| serde_json::json!([now_ns().to_string(), line])).collect();
    let body = serde_json::json!({"streams": [{"stream": {"app": app}, "values": values}]});
    let headers = [("content-type", "application/json")];
    let (status, text) = server.post(&server.url("/loki/api/v1/push"), &headers, body.to_string()).await;
    assert_eq!(status, 204, "{text}");
}

fn address(server: &Server, query: &str) -> String {
    format!("ws://{}/loki/api/v1/tail{}", server.http, query_string(&[("query", query), ("limit", "2")]))
}

/// The lines of the next frame.
async fn lines(socket: &mut Socket) -> Vec<String> {
    loop {
        let message = tokio::time::timeout(Duration::from_secs(20), socket.next()).await.expect("a frame in time");
        match message.expect("open").expect("no fault") {
            Message::Text(text) => {
                let frame: Value = serde_json::from_str(&text).expect("JSON");
                let streams = frame["streams"].as_array().expect("a list");
                let values = streams.iter().flat_map(|stream| stream["values"].as_array().expect("a list"));
                return values.map(|value| value[1].as_str().expect("a line").to_owned()).collect();
            }
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_tail_gives_what_is_stored_and_then_what_arrives() {
    let server = Server::start().await;
    push(&server, "a", &["one error", "two error", "three error", "fine"]).await;
    let (mut socket, _) = connect_async(address(&server, r#"{app="a"} |= "error""#)).await.expect("connects");
    assert_eq!(lines(&mut socket).await, ["two error", "three error"], "the newest two, oldest first");
    push(&server, "a", &["four error", "also fine"]).await;
    push(&server, "b", &["error of another"]).await;
    push(&server, "a", &["five error"]).await;
    let mut arrived = Vec::new();
    while arrived.len() < 2 {
        arrived.extend(lines(&mut socket).await);
    }
    assert_eq!(arrived, ["four error", "five error"]);
    socket.send(Message::Close(None)).await.expect("leaves");
}

#[tokio::test]
async fn what_cannot_be_tailed_is_refused_before_the_upgrade() {
    let server = Server::start().await;
    for (query, expected) in
        [(r#"rate({app="a"}[1m])"#, "only log queries can be tailed"), (r#"{app="a""#, "parse error")]
    {
        match connect_async(address(&server, query)).await {
            Err(WsError::Http(response)) => {
                assert_eq!(response.status(), 400, "{query}");
                let text = String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).into_owned();
                assert!(text.contains(expected), "{query}: {text}");
            }
            other => panic!("{query}: {other:?}"),
        }
    }
    // Ten at once are the limit.
    let query = address(&server, r#"{app="a"}"#);
    let mut open = Vec::new();
    for _ in 0..10 {
        open.push(connect_async(&query).await.expect("connects").0);
    }
    match connect_async(&query).await {
        Err(WsError::Http(response)) => assert_eq!(response.status(), 400),
        other => panic!("{other:?}"),
    }
}

//! Errors as each dialect words them: who must act → status and body, once per dialect.
//!
//! Owns: the four mappings. Does not own: the texts.
//!
//! Invariant: a status that makes clients send again (429, 503) is never given to data that can never be stored, and
//! data is never acknowledged by an error.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::json::Json;
use super::{json_response, text};

/// Seconds after which a sender may try again.
pub const RETRY_AFTER_S: &str = "5";
/// Nginx's status for a caller that went away.
const CLIENT_CLOSED_REQUEST: u16 = 499;

fn client_closed() -> StatusCode {
    StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or(StatusCode::BAD_REQUEST)
}

/// Status of a write that failed, alike in all dialects.
fn write_status(kind: storage::Kind) -> StatusCode {
    match kind {
        storage::Kind::Invalid => StatusCode::BAD_REQUEST,
        storage::Kind::Limit => StatusCode::PAYLOAD_TOO_LARGE,
        storage::Kind::Busy => StatusCode::TOO_MANY_REQUESTS,
        storage::Kind::Unavailable | storage::Kind::Timeout | storage::Kind::Fenced | storage::Kind::Corrupt => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        storage::Kind::Canceled => client_closed(),
        storage::Kind::Bug => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Status of bytes that could not be decoded.
fn decode_status(kind: proto::Kind) -> StatusCode {
    match kind {
        proto::Kind::Malformed | proto::Kind::Unsupported => StatusCode::BAD_REQUEST,
        proto::Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        proto::Kind::Bug => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn with_retry_after(mut response: Response) -> Response {
    let status = response.status();
    if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
    }
    response
}

/// A plain-text error: Loki's and Tempo's reads, Loki push, remote write.
#[derive(Debug)]
pub struct TextError {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub message: String,
}

impl TextError {
    /// A parameter or a body is wrong.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into() }
    }

    /// An endpoint that does not exist yet.
    pub fn not_there_yet(endpoint: &str) -> Self {
        Self { status: StatusCode::NOT_IMPLEMENTED, message: format!("{endpoint} is not supported by Tercet yet") }
    }
}

impl From<storage::Error> for TextError {
    fn from(error: storage::Error) -> Self {
        Self { status: write_status(error.kind()), message: error.to_string() }
    }
}

impl From<proto::Error> for TextError {
    fn from(error: proto::Error) -> Self {
        Self { status: decode_status(error.kind()), message: error.to_string() }
    }
}

impl IntoResponse for TextError {
    fn into_response(self) -> Response {
        with_retry_after(text(self.status, self.message))
    }
}

/// Status of a query that failed, in Loki and Tempo.
fn query_status(error: &query::Error) -> StatusCode {
    let is = |kind| error.source.as_ref().is_some_and(|source| source.kind() == kind);
    let (busy, unavailable) = (is(storage::Kind::Busy), is(storage::Kind::Unavailable));
    match error.kind {
        _ if busy => StatusCode::TOO_MANY_REQUESTS,
        query::Kind::Parse
        | query::Kind::Invalid
        | query::Kind::Unsupported
        | query::Kind::Execution
        | query::Kind::Limit => StatusCode::BAD_REQUEST,
        query::Kind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        query::Kind::Canceled => client_closed(),
        query::Kind::Storage if unavailable => StatusCode::SERVICE_UNAVAILABLE,
        query::Kind::Storage => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// What Loki says when a query takes too long.
const LOKI_TIMEOUT: &str = "request timed out, decrease the duration of the request or add more label matchers \
     (prefer exact match over regex match) to reduce the amount of data processed";

/// An error of Loki's API.
#[derive(Debug)]
pub struct LokiError(pub TextError);

impl From<query::Error> for LokiError {
    fn from(error: query::Error) -> Self {
        let status = query_status(&error);
        let message = if error.kind == query::Kind::Timeout { LOKI_TIMEOUT.to_owned() } else { error.message };
        Self(TextError { status, message })
    }
}

impl From<storage::Error> for LokiError {
    fn from(error: storage::Error) -> Self {
        Self(error.into())
    }
}

impl From<TextError> for LokiError {
    fn from(error: TextError) -> Self {
        Self(error)
    }
}

impl IntoResponse for LokiError {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

/// An error of Tempo's API.
#[derive(Debug)]
pub struct TempoError(pub TextError);

impl From<query::Error> for TempoError {
    fn from(error: query::Error) -> Self {
        Self(TextError { status: query_status(&error), message: error.message })
    }
}

impl From<storage::Error> for TempoError {
    fn from(error: storage::Error) -> Self {
        Self(error.into())
    }
}

impl From<TextError> for TempoError {
    fn from(error: TextError) -> Self {
        Self(error)
    }
}

impl IntoResponse for TempoError {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

/// An error of Jaeger's API.
#[derive(Debug)]
pub struct JaegerError {
    /// The status, which the body repeats.
    pub status: StatusCode,
    /// What is wrong.
    pub message: String,
}

impl JaegerError {
    /// The request cannot be answered as it is.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into() }
    }
}

impl From<query::Error> for JaegerError {
    fn from(error: query::Error) -> Self {
        Self { status: query_status(&error), message: error.message }
    }
}

impl From<storage::Error> for JaegerError {
    fn from(error: storage::Error) -> Self {
        let TextError { status, message } = error.into();
        Self { status, message }
    }
}

impl IntoResponse for JaegerError {
    fn into_response(self) -> Response {
        let mut json = Json::new();
        json.raw(r#"{"data":null,"total":0,"limit":0,"offset":0,"errors":[{"code":"#);
        json.integer(self.status.as_u16()).raw(r#","msg":"#).string(&self.message).raw("}]}");
        json_response(self.status, json)
    }
}

/// An error of Prometheus' API.
#[derive(Debug)]
pub struct PrometheusError {
    status: StatusCode,
    error_type: &'static str,
    message: String,
}

impl PrometheusError {
    /// A parameter is missing or malformed.
    pub fn bad_data(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error_type: "bad_data", message: message.into() }
    }

    /// The parameter `name` is missing or malformed.
    pub fn parameter(name: &str, reason: impl std::fmt::Display) -> Self {
        Self::bad_data(format!("invalid parameter \"{name}\": {reason}"))
    }

    /// An endpoint that does not exist yet.
    pub fn not_there_yet(endpoint: &str) -> Self {
        let message = format!("{endpoint} is not supported by Tercet yet");
        Self { status: StatusCode::NOT_IMPLEMENTED, error_type: "not_implemented", message }
    }

    /// The endpoints of administration are switched off.
    pub fn admin_off() -> Self {
        let message = "admin APIs disabled".to_owned();
        Self { status: StatusCode::SERVICE_UNAVAILABLE, error_type: "unavailable", message }
    }
}

impl From<query::Error> for PrometheusError {
    fn from(error: query::Error) -> Self {
        let busy = error.source.as_ref().is_some_and(|source| source.kind() == storage::Kind::Busy);
        let (status, error_type) = match error.kind {
            _ if busy => (StatusCode::TOO_MANY_REQUESTS, "unavailable"),
            query::Kind::Parse | query::Kind::Invalid | query::Kind::Unsupported => {
                (StatusCode::BAD_REQUEST, "bad_data")
            }
            query::Kind::Execution | query::Kind::Limit => (StatusCode::UNPROCESSABLE_ENTITY, "execution"),
            query::Kind::Timeout => (StatusCode::SERVICE_UNAVAILABLE, "timeout"),
            query::Kind::Canceled => (client_closed(), "canceled"),
            query::Kind::Storage => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        Self { status, error_type, message: error.message }
    }
}

impl From<storage::Error> for PrometheusError {
    fn from(error: storage::Error) -> Self {
        if error.kind() == storage::Kind::Unavailable {
            let message = error.to_string();
            return Self { status: StatusCode::SERVICE_UNAVAILABLE, error_type: "unavailable", message };
        }
        query::Error::from(error).into()
    }
}

impl IntoResponse for PrometheusError {
    fn into_response(self) -> Response {
        let mut json = Json::new();
        json.raw(r#"{"status":"error","errorType":"#).string(self.error_type);
        json.raw(r#","error":"#).string(&self.message).raw("}");
        with_retry_after(json_response(self.status, json))
    }
}

/// Codes of `google.rpc.Code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RpcCode {
    /// The request is wrong.
    InvalidArgument = 3,
    /// Over a limit, now or always.
    ResourceExhausted = 8,
    /// A mistake of ours.
    Internal = 13,
    /// Later it may succeed.
    Unavailable = 14,
}

/// An error of an OTLP export, before it is put into the encoding of its transport.
#[derive(Debug)]
pub struct OtlpError {
    /// Status over HTTP.
    pub status: StatusCode,
    /// Code over gRPC and in the body.
    pub code: RpcCode,
    /// The sentence.
    pub message: String,
}

impl OtlpError {
    /// An error with the code that belongs to `status`.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let code = match status.as_u16() {
            400 | 404 | 405 | 415 => RpcCode::InvalidArgument,
            413 | 429 => RpcCode::ResourceExhausted,
            503 => RpcCode::Unavailable,
            _ => RpcCode::Internal,
        };
        Self { status, code, message: message.into() }
    }

    /// Whether the sender should try again.
    pub fn retryable(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS || self.status == StatusCode::SERVICE_UNAVAILABLE
    }

    /// In the encoding of the request.
    pub fn into_response(self, json: bool) -> Response {
        let response = if json {
            let mut body = Json::new();
            body.raw(r#"{"code":"#).integer(self.code as i64).raw(r#","message":"#).string(&self.message).raw("}");
            json_response(self.status, body)
        } else {
            let status = RpcStatus { code: self.code as i32, message: self.message };
            super::protobuf_response(self.status, super::PROTOBUF_OTLP, prost::Message::encode_to_vec(&status))
        };
        with_retry_after(response)
    }
}

impl From<storage::Error> for OtlpError {
    fn from(error: storage::Error) -> Self {
        Self::new(write_status(error.kind()), error.to_string())
    }
}

impl From<proto::Error> for OtlpError {
    fn from(error: proto::Error) -> Self {
        Self::new(decode_status(error.kind()), error.to_string())
    }
}

/// `google.rpc.Status`, without details.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RpcStatus {
    /// See [`RpcCode`].
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// The sentence.
    #[prost(string, tag = "2")]
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(response: Response) -> String {
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    #[tokio::test]
    async fn prometheus_words_errors_as_json() {
        let error = PrometheusError::from(query::Error::new(query::Kind::Parse, "1:2: parse error: \"x\""));
        let response = error.into_response();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        let expected = r#"{"status":"error","errorType":"bad_data","error":"1:2: parse error: \"x\""}"#;
        assert_eq!(body(response).await, expected);
        let cases = [
            (query::Kind::Execution, 422, "execution"),
            (query::Kind::Timeout, 503, "timeout"),
            (query::Kind::Canceled, 499, "canceled"),
            (query::Kind::Storage, 500, "internal"),
        ];
        for (kind, status, error_type) in cases {
            let response = PrometheusError::from(query::Error::new(kind, "m")).into_response();
            assert_eq!(response.status().as_u16(), status);
            assert!(body(response).await.contains(error_type));
        }
    }

    #[tokio::test]
    async fn loki_and_tempo_word_errors_as_text() {
        let timeout = LokiError::from(query::Error::new(query::Kind::Timeout, "m")).into_response();
        assert_eq!(timeout.status().as_u16(), 504);
        assert!(body(timeout).await.starts_with("request timed out, decrease the duration of the request"));
        let limit = TempoError::from(query::Error::new(query::Kind::Limit, "m")).into_response();
        assert_eq!((limit.status().as_u16(), body(limit).await.as_str()), (400, "m"));
    }

    #[tokio::test]
    async fn writes_are_retried_only_where_a_retry_may_succeed() {
        let cases = [
            (storage::Kind::Invalid, 400, false),
            (storage::Kind::Limit, 413, false),
            (storage::Kind::Busy, 429, true),
            (storage::Kind::Unavailable, 503, true),
            (storage::Kind::Fenced, 503, true),
            (storage::Kind::Bug, 500, false),
        ];
        for (kind, status, retry) in cases {
            let response = TextError::from(storage::Error::new(kind, "m")).into_response();
            assert_eq!(response.status().as_u16(), status, "{kind:?}");
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), retry, "{kind:?}");
            assert_eq!(OtlpError::from(storage::Error::new(kind, "m")).retryable(), retry, "{kind:?}");
        }
    }

    #[tokio::test]
    async fn otlp_errors_follow_the_encoding_of_the_request() {
        let json = OtlpError::new(StatusCode::BAD_REQUEST, "m").into_response(true);
        assert_eq!(body(json).await, r#"{"code":3,"message":"m"}"#);
        let protobuf = OtlpError::new(StatusCode::TOO_MANY_REQUESTS, "m").into_response(false);
        assert_eq!(body(protobuf).await, "\u{8}\u{8}\u{12}\u{1}m");
    }
}

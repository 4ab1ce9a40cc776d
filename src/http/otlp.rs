//! OTLP exports: what HTTP and gRPC share, and the HTTP side.
//!
//! Owns: the [`Export`] of each signal, media types, answers in both encodings. Does not own: translation (`proto`),
//! gRPC (`grpc::otlp`).

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use proto::compress::decompress;
use proto::loki_push::PushLimits;
use proto::otlp::logs::OtlpLogsSettings;
use proto::otlp::metrics::OtlpMetricsSettings;
use proto::otlp::traces::TraceLimits;
use proto::otlp::{json, logs as otlp_logs, metrics as otlp_metrics, traces as otlp_traces};
use storage::Batch;
use storage::budget::Reservation;
use storage::model::tenant::Tenant;
use storage::model::time::TimestampNs;

use super::error::{OtlpError, TextError};
use super::json::Json;
use super::params::{TenantId, content_encoding, media_type};
use super::{PROTOBUF_OTLP, json_response, protobuf_response};
use crate::app::{App, SharedApp};
use crate::telemetry::Protocol;

/// What decoders need to know.
pub struct Settings {
    metrics: OtlpMetricsSettings,
    metric_limits: proto::Limits,
    logs: OtlpLogsSettings,
    log_limits: PushLimits,
    trace_limits: TraceLimits,
    now: TimestampNs,
}

impl Settings {
    fn of(app: &App) -> Self {
        let future_max = Some(app.ingest.future_limit_ms());
        Self {
            metrics: app.config.otlp.clone(),
            metric_limits: proto::Limits { future_max, ..proto::Limits::default() },
            logs: OtlpLogsSettings::default(),
            log_limits: app.config.push_limits(),
            trace_limits: TraceLimits::default(),
            now: app.clock.now(),
        }
    }
}

/// What a decoder gives.
pub struct Decoded {
    batch: Batch,
    rejected: usize,
    message: String,
}

/// An export request of one signal.
pub trait Export: prost::Message + Default + 'static {
    /// Its answer.
    type Response: prost::Message;
    /// The answer's count of refused items in JSON.
    const REJECTED: &'static str;

    /// Reads OTLP's JSON.
    fn from_json(body: &[u8]) -> proto::Result<Self>;
    /// Translates it.
    fn translate(&self, settings: &Settings) -> proto::Result<Decoded>;
    /// The answer; nothing refused and nothing to say makes it empty.
    fn response(rejected: i64, message: String) -> Self::Response;
}

impl Export for ExportMetricsServiceRequest {
    type Response = ExportMetricsServiceResponse;
    const REJECTED: &'static str = "rejectedDataPoints";

    fn from_json(body: &[u8]) -> proto::Result<Self> {
        json::decode_metrics(body)
    }

    fn translate(&self, settings: &Settings) -> proto::Result<Decoded> {
        let decoded = otlp_metrics::decode(self, &settings.metrics, &settings.metric_limits)?;
        let rejected = usize::try_from(decoded.rejected_points).unwrap_or(0);
        Ok(Decoded { batch: decoded.batch, rejected, message: decoded.message })
    }

    fn response(rejected_data_points: i64, error_message: String) -> Self::Response {
        let partial = ExportMetricsPartialSuccess { rejected_data_points, error_message };
        Self::Response { partial_success: (partial != ExportMetricsPartialSuccess::default()).then_some(partial) }
    }
}

impl Export for ExportLogsServiceRequest {
    type Response = ExportLogsServiceResponse;
    const REJECTED: &'static str = "rejectedLogRecords";

    fn from_json(body: &[u8]) -> proto::Result<Self> {
        json::decode_logs(body)
    }

    fn translate(&self, settings: &Settings) -> proto::Result<Decoded> {
        let decoded = otlp_logs::decode(self, &settings.logs, &settings.log_limits, settings.now)?;
        let rejected = decoded.refused.groups().iter().map(|group| group.entries).sum();
        Ok(Decoded { batch: decoded.batch, rejected, message: decoded.refused.message() })
    }

    fn response(rejected_log_records: i64, error_message: String) -> Self::Response {
        let partial = ExportLogsPartialSuccess { rejected_log_records, error_message };
        Self::Response { partial_success: (partial != ExportLogsPartialSuccess::default()).then_some(partial) }
    }
}

impl Export for ExportTraceServiceRequest {
    type Response = ExportTraceServiceResponse;
    const REJECTED: &'static str = "rejectedSpans";

    fn from_json(body: &[u8]) -> proto::Result<Self> {
        json::decode_traces(body)
    }

    fn translate(&self, settings: &Settings) -> proto::Result<Decoded> {
        let decoded = otlp_traces::decode(self, &settings.trace_limits)?;
        let rejected = usize::try_from(decoded.rejected_spans).unwrap_or(usize::MAX);
        Ok(Decoded { batch: decoded.batch, rejected, message: decoded.message })
    }

    fn response(rejected_spans: i64, error_message: String) -> Self::Response {
        let partial = ExportTracePartialSuccess { rejected_spans, error_message };
        Self::Response { partial_success: (partial != ExportTracePartialSuccess::default()).then_some(partial) }
    }
}

/// What was refused of an export whose rest is kept.
#[derive(Debug, Default, PartialEq)]
struct Refused {
    items: i64,
    message: String,
}

impl Refused {
    fn add(&mut self, items: usize, reason: &str) {
        if items > 0 {
            self.items = self.items.saturating_add(i64::try_from(items).unwrap_or(i64::MAX));
            let separator = if self.message.is_empty() { "" } else { "; " };
            self.message.push_str(&format!("{separator}{items} {reason}"));
        }
    }
}

/// Keeps an export that a transport has decoded.
pub async fn export<E: Export>(
    app: &App,
    protocol: Protocol,
    tenant: Tenant,
    request: E,
    held: Reservation,
) -> Result<E::Response, OtlpError> {
    let refused = keep(app, protocol, &tenant, move || Ok(request), held).await?;
    Ok(E::response(refused.items, refused.message))
}

async fn keep<E: Export>(
    app: &App,
    protocol: Protocol,
    tenant: &Tenant,
    read: impl FnOnce() -> proto::Result<E> + Send + 'static,
    held: Reservation,
) -> Result<Refused, OtlpError> {
    let engine = app.engine()?;
    let settings = Settings::of(app);
    let decoded = app.ingest.decode(move || read()?.translate(&settings)).await??;
    app.telemetry.rejected(protocol, decoded.rejected);
    let kept = app.ingest.append(&engine, protocol, tenant, decoded.batch, held).await?;
    let items = i64::try_from(decoded.rejected).unwrap_or(i64::MAX);
    let mut refused = Refused { items, message: decoded.message };
    refused.add(kept.conflicts, "data points have a time at which their series already has another value");
    refused.add(kept.too_old_rows(), "items are older than the retention");
    Ok(refused)
}

/// `POST /v1/metrics`
pub async fn metrics(State(app): State<SharedApp>, tenant: TenantId, headers: HeaderMap, body: Body) -> Response {
    answer::<ExportMetricsServiceRequest>(&app, tenant, &headers, body).await
}

/// `POST /v1/logs`
pub async fn logs(State(app): State<SharedApp>, tenant: TenantId, headers: HeaderMap, body: Body) -> Response {
    answer::<ExportLogsServiceRequest>(&app, tenant, &headers, body).await
}

/// `POST /v1/traces`
pub async fn traces(State(app): State<SharedApp>, tenant: TenantId, headers: HeaderMap, body: Body) -> Response {
    answer::<ExportTraceServiceRequest>(&app, tenant, &headers, body).await
}

/// `POST /otlp/v1/logs`: as Loki answers it: 204, or 400 when anything was refused.
pub async fn logs_as_loki(State(app): State<SharedApp>, tenant: TenantId, headers: HeaderMap, body: Body) -> Response {
    let received = receive::<ExportLogsServiceRequest>(&app, tenant, &headers, body).await;
    match received {
        Ok((_, refused)) if refused == Refused::default() => StatusCode::NO_CONTENT.into_response(),
        Ok((_, refused)) => TextError::bad_request(refused.message).into_response(),
        Err(mut error) => {
            if error.status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
                error.status = StatusCode::BAD_REQUEST;
            }
            error.into_response(is_json(&headers))
        }
    }
}

async fn answer<E: Export>(app: &SharedApp, tenant: TenantId, headers: &HeaderMap, body: Body) -> Response {
    match receive::<E>(app, tenant, headers, body).await {
        Ok((true, refused)) => {
            let mut json = Json::new();
            json.raw(r#"{"partialSuccess":{"#);
            if refused != Refused::default() {
                json.format(format_args!("\"{}\":\"{}\",\"errorMessage\":", E::REJECTED, refused.items));
                json.string(&refused.message);
            }
            json.raw("}}");
            json_response(StatusCode::OK, json)
        }
        Ok((false, refused)) => {
            let response = E::response(refused.items, refused.message);
            protobuf_response(StatusCode::OK, PROTOBUF_OTLP, prost::Message::encode_to_vec(&response))
        }
        Err(error) => error.into_response(is_json(headers)),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers) == "application/json"
}

/// Reads and keeps an export; says whether it was JSON.
async fn receive<E: Export>(
    app: &SharedApp,
    TenantId(tenant): TenantId,
    headers: &HeaderMap,
    body: Body,
) -> Result<(bool, Refused), OtlpError> {
    let json = match media_type(headers).as_str() {
        "application/json" => true,
        PROTOBUF_OTLP => false,
        other => {
            let message = format!("media type `{other}` is not taken: send {PROTOBUF_OTLP} or application/json");
            return Err(OtlpError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
    };
    let encoding = content_encoding(headers).map_err(|name| {
        OtlpError::new(StatusCode::BAD_REQUEST, format!("content encoding `{name}` is not taken: use gzip or zstd"))
    })?;
    let bytes_max = app.config.ingest.otlp_bytes_max.bytes();
    let incoming = app.ingest.read(Protocol::OtlpHttp, body, bytes_max).await?;
    let bytes = incoming.bytes;
    let read = move || {
        let body = decompress(encoding, bytes, bytes_max)?;
        if json { E::from_json(&body) } else { proto::otlp::decode_protobuf(&body) }
    };
    let refused = keep(app, Protocol::OtlpHttp, &tenant, read, incoming.held).await?;
    Ok((json, refused))
}

//! OTLP over gRPC: the three export services.
//!
//! Owns: limits and compression of messages, statuses of gRPC. Does not own: what an export does (`http::otlp`, which
//! both transports share).

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Response};
use axum::middleware;
use axum::routing::any_service;
use futures::StreamExt as _;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tonic::codec::CompressionEncoding::{Gzip, Zstd};
use tonic::service::Routes;
use tonic::{Code, Request, Status};

use crate::app::SharedApp;
use crate::http::otlp::{Export, export};
use crate::http::{OtlpError, RpcCode, tenant};
use crate::telemetry::Protocol;

/// Metadata key of the tenant.
pub(super) const TENANT_KEY: &str = "x-scope-orgid";
/// The status with which tonic refuses a message over the limit.
const OUT_OF_RANGE: &str = "11";
/// The one OTLP wants.
const RESOURCE_EXHAUSTED: HeaderValue = HeaderValue::from_static("8");
/// Seconds after which a sender may try again.
const RETRY_DELAY_S: i64 = 5;

/// The services for their own port.
pub fn router(app: &SharedApp) -> Router {
    let charged = middleware::map_request_with_state(Arc::clone(app), charged);
    routes(app).into_axum_router().layer(charged).layer(middleware::map_response(correct_status))
}

/// Counts what arrived of a message as a body in memory until it is decoded; from then on [`Exporter::export`] does.
async fn charged(State(app): State<SharedApp>, request: axum::extract::Request) -> axum::extract::Request {
    request.map(|body| {
        let mut held = app.ingest.hold_none();
        Body::from_stream(body.into_data_stream().map(move |part| {
            let part = part.map_err(|error| Status::from_error(error.into()))?;
            app.ingest.hold_more(&mut held, part.len()).map_err(|error| status(error.into()))?;
            Ok::<_, Status>(part)
        }))
    })
}

/// The services for the port that serves everything: without a fallback of their own.
pub fn nested(app: &SharedApp) -> Router {
    let service = router(app);
    ["metrics.v1.MetricsService", "logs.v1.LogsService", "trace.v1.TraceService"].into_iter().fold(
        Router::new(),
        |all, name| {
            all.route(&format!("/opentelemetry.proto.collector.{name}/{{method}}"), any_service(service.clone()))
        },
    )
}

fn routes(app: &SharedApp) -> Routes {
    let bytes = app.config.ingest.otlp_bytes_max.bytes();
    macro_rules! service {
        ($server:ident) => {
            $server::new(Exporter(Arc::clone(app)))
                .max_decoding_message_size(bytes)
                .accept_compressed(Gzip)
                .accept_compressed(Zstd)
                .send_compressed(Gzip)
        };
    }
    Routes::new(service!(MetricsServiceServer))
        .add_service(service!(LogsServiceServer))
        .add_service(service!(TraceServiceServer))
        .prepare()
}

async fn correct_status<B>(mut response: Response<B>) -> Response<B> {
    if let Some(status) = response.headers_mut().get_mut("grpc-status")
        && status == OUT_OF_RANGE
    {
        *status = RESOURCE_EXHAUSTED;
    }
    response
}

struct Exporter(SharedApp);

impl Exporter {
    async fn export<E: Export>(&self, request: Request<E>) -> Result<tonic::Response<E::Response>, Status> {
        let name = request.metadata().get(TENANT_KEY).and_then(|value| value.to_str().ok());
        let tenant = tenant(&self.0, name).map_err(|(_, message)| Status::unauthenticated(message))?;
        let request = request.into_inner();
        let bytes = request.encoded_len();
        self.0.telemetry.received(Protocol::OtlpGrpc, bytes);
        let held = self.0.ingest.hold(bytes).map_err(|e| status(e.into()))?;
        export(&self.0, Protocol::OtlpGrpc, tenant, request, held).await.map(tonic::Response::new).map_err(status)
    }
}

fn status(error: OtlpError) -> Status {
    let code = match error.code {
        RpcCode::InvalidArgument => Code::InvalidArgument,
        RpcCode::ResourceExhausted => Code::ResourceExhausted,
        RpcCode::Internal => Code::Internal,
        RpcCode::Unavailable => Code::Unavailable,
    };
    if !error.retryable() {
        return Status::new(code, error.message);
    }
    let details = retry_info(error.code, &error.message);
    Status::with_details(code, error.message, details.into())
}

/// A `google.rpc.Status` whose detail is a `google.rpc.RetryInfo`.
fn retry_info(code: RpcCode, message: &str) -> Vec<u8> {
    use prost::Message as _;
    let info = RetryInfo { delay: Some(Delay { seconds: RETRY_DELAY_S }) };
    let detail =
        AnyMessage { type_url: "type.googleapis.com/google.rpc.RetryInfo".into(), value: info.encode_to_vec() };
    StatusMessage { code: code as i32, message: message.to_owned(), details: vec![detail] }.encode_to_vec()
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusMessage {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<AnyMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnyMessage {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<Delay>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
}

#[tonic::async_trait]
impl MetricsService for Exporter {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, Status> {
        Self::export(self, request).await
    }
}

#[tonic::async_trait]
impl LogsService for Exporter {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, Status> {
        Self::export(self, request).await
    }
}

#[tonic::async_trait]
impl TraceService for Exporter {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        Self::export(self, request).await
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    #[tokio::test]
    async fn messages_count_as_bodies_in_memory() {
        let mut config = crate::config::Config::default();
        config.ingest.inflight_bytes_max = crate::config::units::Size(1000);
        let clock = Arc::new(storage::clock::ManualClock::default());
        let app = crate::app::App::new(config, clock, tokio::runtime::Handle::current());
        let exporter = Exporter(Arc::clone(&app));
        let held = app.ingest.hold(1000).expect("free");
        let request = || Request::new(ExportLogsServiceRequest { resource_logs: vec![Default::default()] });
        let refused = Exporter::export(&exporter, request()).await.expect_err("full");
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.details().windows(9).any(|part| part == b"RetryInfo"));
        drop(held);
        let starting = Exporter::export(&exporter, request()).await.expect_err("no engine");
        assert_eq!((starting.code(), app.budget.bodies.used_bytes()), (Code::Unavailable, 0));
    }

    #[tokio::test]
    async fn a_message_counts_while_it_arrives() {
        use tower::ServiceExt as _;

        let mut config = crate::config::Config::default();
        config.ingest.inflight_bytes_max = crate::config::units::Size(1000);
        let clock = Arc::new(storage::clock::ManualClock::default());
        let app = crate::app::App::new(config, clock, tokio::runtime::Handle::current());
        let ask = || async {
            // A message of 900 bytes, of which 600 arrive.
            let parts = [vec![0, 0, 0, 3, 132], vec![0; 300], vec![0; 300]].map(Ok::<_, std::io::Error>);
            let request = axum::http::Request::post("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
                .header("content-type", "application/grpc")
                .body(Body::from_stream(futures::stream::iter(parts)))
                .expect("a request");
            let answer = router(&app).oneshot(request).await.expect("answers");
            answer.headers().get("grpc-status").and_then(|code| code.to_str().ok()).unwrap_or("none").to_owned()
        };
        assert_ne!(ask().await, "8", "there is room; it is only cut off");
        let others = app.ingest.hold(125).expect("free");
        assert_eq!(ask().await, "8", "500 bytes are held by others");
        drop(others);
        assert_eq!(app.budget.bodies.used_bytes(), 0);
    }

    #[test]
    fn only_what_may_succeed_later_carries_a_delay() {
        let later = status(OtlpError::new(StatusCode::TOO_MANY_REQUESTS, "full"));
        assert_eq!(later.code(), Code::ResourceExhausted);
        assert!(later.details().windows(9).any(|part| part == b"RetryInfo"));
        let never = status(OtlpError::new(StatusCode::PAYLOAD_TOO_LARGE, "big"));
        assert_eq!((never.code(), never.details().len()), (Code::ResourceExhausted, 0));
        assert_eq!(status(OtlpError::new(StatusCode::BAD_REQUEST, "bad")).code(), Code::InvalidArgument);
    }
}

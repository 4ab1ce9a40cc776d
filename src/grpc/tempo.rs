//! Tempo's `StreamingQuerier` over gRPC: the same questions as over HTTP, answered as a stream of messages.
//!
//! Owns: reading requests as the parameters that HTTP has, statuses of gRPC, cutting answers into messages. Does not
//! own: what a question means (`http::tempo`, `query`). An answer is sent when it is complete: no provisional values.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse as _;
use axum::routing::post;
use prost::Message;
use proto::tempo::{
    QueryInstantRequest, QueryInstantResponse, QueryRangeRequest, QueryRangeResponse, SearchRequest, SearchResponse,
    SearchTagValuesRequest, SearchTagValuesResponse, SearchTagValuesV2Response, SearchTagsRequest, SearchTagsResponse,
    SearchTagsV2Response, SearchTagsV2Scope, TagValue,
};
use query::traceql::{self, TagScope};
use storage::Engine;
use storage::model::tenant::Tenant;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::server::Grpc;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use super::otlp::TENANT_KEY;
use crate::app::SharedApp;
use crate::http::tempo::search::Search;
use crate::http::tempo::{encode, metrics, params, search};
use crate::http::{Params, TempoError, tenant};

/// The largest message: clients take 4 MiB by default.
const MESSAGE_BYTES: usize = 1 << 20;

/// The service for the port that serves everything.
pub fn router(app: &SharedApp) -> Router {
    Router::new().route("/tempopb.StreamingQuerier/{method}", post(call)).with_state(Arc::clone(app))
}

async fn call(State(app): State<SharedApp>, Path(method): Path<String>, request: Request) -> Response<Body> {
    match method.as_str() {
        "Search" => streamed(app, request, find).await,
        "SearchTags" => streamed(app, request, tags).await,
        "SearchTagsV2" => streamed(app, request, tags_v2).await,
        "SearchTagValues" => streamed(app, request, tag_values).await,
        "SearchTagValuesV2" => streamed(app, request, tag_values_v2).await,
        "MetricsQueryRange" => streamed(app, request, metrics_range).await,
        "MetricsQueryInstant" => streamed(app, request, metrics_instant).await,
        _ => Status::unimplemented(format!("tempopb.StreamingQuerier has no method {method}"))
            .into_http::<Body>()
            .into_response(),
    }
}

/// Reads one message, does the work, sends its messages.
async fn streamed<Q, A, F>(
    app: SharedApp,
    request: Request,
    work: impl FnOnce(SharedApp, Tenant, Q) -> F + Copy + Send + 'static,
) -> Response<Body>
where
    Q: Message + Default + Send + 'static,
    A: Message + Send + 'static,
    F: Future<Output = Result<Vec<A>, Status>> + Send + 'static,
{
    let service = tower::service_fn(move |request: tonic::Request<Q>| {
        let app = Arc::clone(&app);
        async move {
            let name = request.metadata().get(TENANT_KEY).and_then(|value| value.to_str().ok());
            let tenant = tenant(&app, name).map_err(|(_, message)| Status::unauthenticated(message))?;
            let messages = work(app, tenant, request.into_inner()).await?;
            Ok::<_, Status>(tonic::Response::new(futures::stream::iter(messages.into_iter().map(Ok))))
        }
    });
    let codec = ProstCodec::<A, Q>::default();
    let mut grpc = Grpc::new(codec).accept_compressed(Gzip).send_compressed(Gzip);
    grpc.server_streaming(service, request).await.map(Body::new)
}

fn status(error: impl Into<TempoError>) -> Status {
    let error: TempoError = error.into();
    let code = match error.0.status {
        StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED => Code::InvalidArgument,
        StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        StatusCode::GATEWAY_TIMEOUT => Code::DeadlineExceeded,
        // Nginx's status for a caller that went away.
        status if status.as_u16() == 499 => Code::Cancelled,
        _ => Code::Internal,
    };
    Status::new(code, error.0.message)
}

/// Numbers as HTTP's parameters: 0 is absent.
fn numbers<const N: usize>(pairs: [(&str, u64); N]) -> impl Iterator<Item = (String, String)> {
    pairs.map(|(name, n)| (name.to_owned(), if n == 0 { String::new() } else { n.to_string() })).into_iter()
}

/// Cuts a list so that each part encodes to about [`MESSAGE_BYTES`]; at least one part, even if empty.
fn parts<M: Message>(items: Vec<M>) -> Vec<Vec<M>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for item in items {
        bytes += item.encoded_len();
        if bytes > MESSAGE_BYTES && parts.last().is_some_and(|part| !part.is_empty()) {
            bytes = item.encoded_len();
            parts.push(Vec::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push(item);
        }
    }
    parts
}

async fn find(app: SharedApp, tenant: Tenant, request: SearchRequest) -> Result<Vec<SearchResponse>, Status> {
    let limits = numbers([
        ("limit", request.limit.into()),
        ("spss", request.spans_per_span_set.into()),
        ("start", request.start.into()),
        ("end", request.end.into()),
    ]);
    let asked = params::search(&Params::of(limits), &app.config.tempo, app.now_ns()).map_err(status)?;
    let by = if request.tags.is_empty() {
        Search::Query(request.query)
    } else {
        let ns = |ms: u32| (ms > 0).then(|| i64::from(ms) * 1_000_000);
        Search::Tags(request.tags.into_iter().collect(), (ns(request.min_duration_ms), ns(request.max_duration_ms)))
    };
    let answer = search::run(&app, tenant, by, asked).await.map_err(status)?;
    let response = encode::search_response(&answer);
    let of = |traces| SearchResponse { traces, metrics: response.metrics.clone() };
    Ok(parts(response.traces).into_iter().map(of).collect())
}

async fn names(
    app: &SharedApp,
    tenant: Tenant,
    request: SearchTagsRequest,
) -> Result<(Option<TagScope>, Vec<(TagScope, Vec<String>)>), Status> {
    let times = numbers([("start", request.start.into()), ("end", request.end.into())]);
    let asked = Params::of(times.chain([("scope".to_owned(), request.scope)]));
    let range = params::tags_range(&asked, &app.config.tempo, app.now_ns()).map_err(status)?;
    let scope = params::scope(&asked).map_err(status)?;
    let work = move |engine: Arc<Engine>, context| async move {
        traceql::tag_names(&*engine, scope, &request.query, Some(range), &context).await
    };
    let engine = app.engine().map_err(status)?;
    let names = app.queries.run(engine, tenant, app.config.tempo.timeout.0, work).await.map_err(status)?;
    Ok((scope, names))
}

async fn tags(app: SharedApp, tenant: Tenant, request: SearchTagsRequest) -> Result<Vec<SearchTagsResponse>, Status> {
    let (scope, names) = names(&app, tenant, request).await?;
    let wanted = names.into_iter().filter(|(found, _)| scope.is_some() || *found != TagScope::Intrinsic);
    let union: BTreeSet<String> = wanted.flat_map(|(_, names)| names).collect();
    Ok(vec![SearchTagsResponse { tag_names: union.into_iter().collect(), metrics: None }])
}

async fn tags_v2(
    app: SharedApp,
    tenant: Tenant,
    request: SearchTagsRequest,
) -> Result<Vec<SearchTagsV2Response>, Status> {
    let (_, names) = names(&app, tenant, request).await?;
    let scopes =
        names.into_iter().map(|(scope, tags)| SearchTagsV2Scope { name: params::scope_name(scope).into(), tags });
    Ok(parts(scopes.collect()).into_iter().map(|scopes| SearchTagsV2Response { scopes, metrics: None }).collect())
}

async fn tag_values(
    app: SharedApp,
    tenant: Tenant,
    request: SearchTagValuesRequest,
) -> Result<Vec<SearchTagValuesResponse>, Status> {
    let asked = Params::of(numbers([("start", request.start.into()), ("end", request.end.into())]));
    let range = params::tags_range(&asked, &app.config.tempo, app.now_ns()).map_err(status)?;
    let work = move |engine: Arc<Engine>, context| async move {
        traceql::legacy_tag_values(&*engine, &request.tag_name, Some(range), &context).await
    };
    let engine = app.engine().map_err(status)?;
    let tag_values = app.queries.run(engine, tenant, app.config.tempo.timeout.0, work).await.map_err(status)?;
    Ok(vec![SearchTagValuesResponse { tag_values, metrics: None }])
}

async fn tag_values_v2(
    app: SharedApp,
    tenant: Tenant,
    request: SearchTagValuesRequest,
) -> Result<Vec<SearchTagValuesV2Response>, Status> {
    let asked = Params::of(numbers([("start", request.start.into()), ("end", request.end.into())]));
    let range = params::tags_range(&asked, &app.config.tempo, app.now_ns()).map_err(status)?;
    let work = move |engine: Arc<Engine>, context| async move {
        traceql::tag_values(&*engine, &request.tag_name, &request.query, Some(range), &context).await
    };
    let engine = app.engine().map_err(status)?;
    let values = app.queries.run(engine, tenant, app.config.tempo.timeout.0, work).await.map_err(status)?;
    let values = values.into_iter().map(|value| TagValue { r#type: value.kind.into(), value: value.value }).collect();
    Ok(parts(values).into_iter().map(|tag_values| SearchTagValuesV2Response { tag_values, metrics: None }).collect())
}

/// A metrics query that is none is `UNKNOWN`, as Tempo has it.
fn parsed(text: &str) -> Result<(), Status> {
    traceql::parse(text).map(drop).map_err(|error| Status::unknown(error.message))
}

async fn metrics_range(
    app: SharedApp,
    tenant: Tenant,
    request: QueryRangeRequest,
) -> Result<Vec<QueryRangeResponse>, Status> {
    parsed(&request.query)?;
    // Whole nanoseconds as Go's durations.
    let step = if request.step == 0 { String::new() } else { format!("{}ns", request.step) };
    let limits = numbers([("exemplars", request.exemplars.into()), ("maxSeries", request.max_series.into())]);
    let times = [("start", nanoseconds(request.start)), ("end", nanoseconds(request.end)), ("step", step)];
    let times = times.map(|(name, text)| (name.to_owned(), text));
    let asked = metrics::metrics_params(&Params::of(limits.chain(times)), app.now_ns()).map_err(status)?;
    let answer = metrics::run(&app, tenant, request.query, asked, false).await.map_err(status)?;
    let response = encode::query_range_response(&answer);
    let of = |series| QueryRangeResponse {
        series,
        metrics: response.metrics.clone(),
        status: response.status,
        message: response.message.clone(),
    };
    Ok(parts(response.series).into_iter().map(of).collect())
}

async fn metrics_instant(
    app: SharedApp,
    tenant: Tenant,
    request: QueryInstantRequest,
) -> Result<Vec<QueryInstantResponse>, Status> {
    parsed(&request.query)?;
    let times = [("start", nanoseconds(request.start)), ("end", nanoseconds(request.end))];
    let times = times.map(|(name, text)| (name.to_owned(), text));
    let asked = metrics::metrics_params(&Params::of(times), app.now_ns()).map_err(status)?;
    let answer = metrics::run(&app, tenant, request.query, asked, true).await.map_err(status)?;
    // Each message replaces the one before: one is all there can be.
    Ok(vec![encode::query_instant_response(&answer)])
}

/// A time in nanoseconds as HTTP takes it: with so many digits that it cannot be seconds.
fn nanoseconds(ns: u64) -> String {
    if ns == 0 { String::new() } else { format!("{ns:011}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_cut_into_messages() {
        let value = |bytes: usize| TagValue { r#type: String::new(), value: "x".repeat(bytes) };
        assert_eq!(parts::<TagValue>(vec![]), [vec![]]);
        let sizes: Vec<usize> = parts(vec![value(600_000), value(600_000), value(10), value(2_000_000), value(1)])
            .iter()
            .map(Vec::len)
            .collect();
        assert_eq!(sizes, [1, 2, 1, 1]);
    }

    #[test]
    fn statuses_follow_those_of_http() {
        let of = |kind| status(query::Error::new(kind, "m")).code();
        assert_eq!(of(query::Kind::Parse), Code::InvalidArgument);
        assert_eq!(of(query::Kind::Timeout), Code::DeadlineExceeded);
        assert_eq!(of(query::Kind::Canceled), Code::Cancelled);
        assert_eq!(of(query::Kind::Storage), Code::Internal);
    }

    #[test]
    fn absent_numbers_are_absent_parameters() {
        let params = Params::of(numbers([("limit", 0), ("spss", 5)]));
        assert_eq!((params.get("limit"), params.get("spss")), ("", "5"));
        assert_eq!((nanoseconds(0), nanoseconds(5)), (String::new(), "00000000005".into()));
    }
}

//! `/api/traces/{id}` and `/api/v2/traces/{id}`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use proto::tempo::{PartialStatus, TraceByIdMetrics, TraceByIdResponse, TracesData, trace_json, trace_to_otlp};
use query::traceql;
use storage::Engine;
use storage::model::tenant::Tenant;

use super::encode::{self, Encoded};
use super::params;
use crate::app::App;
use crate::app::SharedApp;
use crate::http::error::TempoError;
use crate::http::params::{Params, TenantId};

/// Finds the trace and encodes it, found or not.
async fn find(
    app: &App,
    tenant: Tenant,
    id: &str,
    params: &Params,
    encode: impl FnOnce(Option<TracesData>) -> Option<Encoded> + Send + 'static,
) -> Result<Option<Encoded>, TempoError> {
    let id = params::trace_id(id)?;
    let range = params::hint(params)?;
    params::mode(params)?;
    let bytes_max = app.queries.answer_bytes_max();
    let work = move |engine: Arc<Engine>, context| async move {
        let trace = traceql::trace_by_id(&*engine, id, range, &context).await?;
        let trace = trace.map(|trace| trace_to_otlp(&trace.resources));
        encode(trace).map(|encoded| encoded.bounded(bytes_max)).transpose()
    };
    Ok(app.queries.run(app.engine()?, tenant, app.config.tempo.timeout.0, work).await?)
}

/// `/api/traces/{id}`: 404 without a body when there is none.
pub async fn v1(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    Path(id): Path<String>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, TempoError> {
    let protobuf = encode::wants_protobuf(&headers);
    let encode = move |trace: Option<TracesData>| {
        let trace = trace?;
        Some(if protobuf {
            Encoded::Protobuf(prost::Message::encode_to_vec(&trace))
        } else {
            Encoded::Json(trace_json(&trace, "batches"))
        })
    };
    let found = find(&app, tenant, &id, &params, encode).await?;
    Ok(found.map_or_else(|| StatusCode::NOT_FOUND.into_response(), Encoded::into_response))
}

/// `/api/v2/traces/{id}`: an empty trace when there is none, a part of it when there is a filter.
pub async fn v2(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    Path(id): Path<String>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, TempoError> {
    let protobuf = encode::wants_protobuf(&headers);
    let Some(filter) = params::trace_filter(&params)? else {
        let encode = move |trace: Option<TracesData>| Some(v2_answer(trace.unwrap_or_default(), false, protobuf));
        let found = find(&app, tenant, &id, &params, encode).await?;
        return Ok(found.map_or_else(|| StatusCode::NOT_FOUND.into_response(), Encoded::into_response));
    };
    let id = params::trace_id(&id)?;
    let range = params::hint(&params)?;
    params::mode(&params)?;
    let bytes_max = app.queries.answer_bytes_max();
    let work = move |engine: Arc<Engine>, context| async move {
        let found = traceql::filtered_trace(&*engine, id, range, &filter, &context).await?;
        let (trace, dropped) =
            found.map_or_else(Default::default, |found| (trace_to_otlp(&found.trace.resources), found.dropped));
        v2_answer(trace, dropped, protobuf).bounded(bytes_max)
    };
    let encoded = app.queries.run(app.engine()?, tenant, app.config.tempo.timeout.0, work).await?;
    Ok(encoded.into_response())
}

/// What a filter says of the spans it dropped.
const FILTERED: &str = "Trace filtered, only a subset of spans matching the filter is returned";

fn v2_answer(trace: TracesData, dropped: bool, protobuf: bool) -> Encoded {
    if protobuf {
        let (status, message) =
            if dropped { (PartialStatus::Partial, FILTERED) } else { (PartialStatus::Complete, "") };
        return Encoded::Protobuf(prost::Message::encode_to_vec(&TraceByIdResponse {
            trace: Some(trace),
            metrics: Some(TraceByIdMetrics::default()),
            status: status as i32,
            message: message.into(),
        }));
    }
    let partial = if dropped { format!(r#","status":"PARTIAL","message":"{FILTERED}""#) } else { String::new() };
    Encoded::Json(format!(r#"{{"trace":{},"metrics":{{}}{partial}}}"#, trace_json(&trace, "resourceSpans")))
}

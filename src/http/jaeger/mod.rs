//! Jaeger's query API, below `/jaeger`: services, operations, traces and dependencies as its UI and Grafana ask for
//! them.

mod encode;
mod params;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use query::traceql;
use storage::model::batch::SERVICE_NAME;
use storage::model::time::TimeRange;
use storage::model::value::Value;
use storage::{Context, Engine, Scan as _, Signal};

use crate::app::{App, SharedApp};
use crate::http::error::JaegerError;
use crate::http::json::Json;
use crate::http::json_response;
use crate::http::params::{Params, TenantId};

async fn run<W, F>(app: &App, TenantId(tenant): TenantId, work: W) -> Result<Response, JaegerError>
where
    W: FnOnce(Arc<Engine>, Context) -> F + Send + 'static,
    F: Future<Output = query::Result<Json>> + Send + 'static,
{
    let json = app.queries.run(app.engine()?, tenant, app.config.tempo.timeout.0, work).await?;
    Ok(json_response(StatusCode::OK, json))
}

/// `/jaeger/api/services`
pub async fn services(State(app): State<SharedApp>, tenant: TenantId) -> Result<Response, JaegerError> {
    run(&app, tenant, |engine, context| async move {
        let resources = engine.identities(Signal::Traces, &[], TimeRange::ALL, &context).await?;
        let name = |text: &str| match Value::parse(text) {
            Some(Value::String(name)) => name,
            _ => text.to_owned(),
        };
        let names: BTreeSet<String> = resources.iter().filter_map(|r| r.labels.get(SERVICE_NAME)).map(name).collect();
        Ok(encode::names(&names))
    })
    .await
}

/// `/jaeger/api/services/{service}/operations`
pub async fn operations_of(
    State(app): State<SharedApp>,
    tenant: TenantId,
    Path(service): Path<String>,
) -> Result<Response, JaegerError> {
    let filter = params::selection(&service, None);
    run(&app, tenant, move |engine, context| async move {
        let found = traceql::tag_values(&*engine, "name", &filter, None, &context).await?;
        Ok(encode::names(&found.into_iter().map(|value| value.value).collect()))
    })
    .await
}

/// `/jaeger/api/operations`
pub async fn operations(
    State(app): State<SharedApp>,
    tenant: TenantId,
    params: Params,
) -> Result<Response, JaegerError> {
    let service = params::service(&params)?;
    let asked = params.get("spanKind").to_owned();
    run(&app, tenant, move |engine, context| async move {
        let mut found = Vec::new();
        for kind in params::KINDS.into_iter().filter(|kind| asked.is_empty() || asked == *kind) {
            let filter = params::selection(&service, Some(kind));
            let values = traceql::tag_values(&*engine, "name", &filter, None, &context).await?;
            found.extend(values.into_iter().map(|value| (value.value, kind)));
        }
        found.sort();
        Ok(encode::operations(&found))
    })
    .await
}

/// `/jaeger/api/traces`
pub async fn search(State(app): State<SharedApp>, tenant: TenantId, params: Params) -> Result<Response, JaegerError> {
    let asked = params::search(&params, app.now_ns())?;
    let bytes_max = app.queries.answer_bytes_max();
    run(&app, tenant, move |engine, context| async move {
        let found = traceql::search(&*engine, &asked.query, &asked.params, &context).await?;
        let mut out = encode::Traces::new(bytes_max);
        for trace in found.traces {
            if let Some(trace) = traceql::trace_by_id(&*engine, trace.trace_id, asked.params.range, &context).await? {
                out.add(&trace)?;
            }
        }
        Ok(out.finish())
    })
    .await
}

/// `/jaeger/api/traces/{id}`
pub async fn trace(
    State(app): State<SharedApp>,
    tenant: TenantId,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, JaegerError> {
    let id = params::trace_id(&id)?;
    let range = params::hint(&params)?;
    let bytes_max = app.queries.answer_bytes_max();
    let work = move |engine: Arc<Engine>, context: Context| async move {
        let Some(trace) = traceql::trace_by_id(&*engine, id, range, &context).await? else { return Ok(None) };
        let mut out = encode::Traces::new(bytes_max);
        out.add(&trace)?;
        Ok(Some(out.finish()))
    };
    let found = app.queries.run(app.engine()?, tenant.0, app.config.tempo.timeout.0, work).await?;
    found.map_or_else(
        || Err(JaegerError { status: StatusCode::NOT_FOUND, message: "trace not found".to_owned() }),
        |json| Ok(json_response(StatusCode::OK, json)),
    )
}

/// `/jaeger/api/dependencies`
pub async fn dependencies(
    State(app): State<SharedApp>,
    tenant: TenantId,
    params: Params,
) -> Result<Response, JaegerError> {
    let range = params::lookback(&params, app.now_ns())?;
    run(&app, tenant, move |engine, context| async move {
        Ok(encode::dependencies(&traceql::calls(&*engine, range, &context).await?))
    })
    .await
}

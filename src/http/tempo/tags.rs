//! `/api/search/tags`, `/api/search/tag/{name}/values`, both versions.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use query::traceql::{self, TagScope};
use storage::{Context, Engine};

use super::encode::{self, Encoded};
use super::params;
use crate::app::{App, SharedApp};
use crate::http::error::TempoError;
use crate::http::params::{Params, TenantId};

async fn run<W, F>(app: &App, TenantId(tenant): TenantId, work: W) -> Result<Response, TempoError>
where
    W: FnOnce(Arc<Engine>, Context) -> F + Send + 'static,
    F: Future<Output = query::Result<Encoded>> + Send + 'static,
{
    let bytes_max = app.queries.answer_bytes_max();
    let encoded = app.queries.run(app.engine()?, tenant, app.config.tempo.timeout.0, work).await?;
    Ok(encoded.bounded(bytes_max)?.into_response())
}

/// `/api/search/tags`: the union over scopes, without intrinsics unless they are asked for.
pub async fn names_v1(State(app): State<SharedApp>, tenant: TenantId, params: Params) -> Result<Response, TempoError> {
    let scope = params::scope(&params)?;
    let range = params::tags_range(&params, &app.config.tempo, app.now_ns())?;
    let limit = params::tags_limit(&params)?;
    run(&app, tenant, move |engine, context| async move {
        let scopes = traceql::tag_names(&*engine, scope, "", Some(range), &context).await?;
        let wanted = scopes.into_iter().filter(|(found, _)| scope.is_some() || *found != TagScope::Intrinsic);
        let names: BTreeSet<String> = wanted.flat_map(|(_, names)| names).collect();
        Ok(encode::tag_names_v1(&names.into_iter().take(limit).collect::<Vec<_>>()))
    })
    .await
}

/// `/api/v2/search/tags`
pub async fn names_v2(State(app): State<SharedApp>, tenant: TenantId, params: Params) -> Result<Response, TempoError> {
    let scope = params::scope(&params)?;
    let range = params::tags_range(&params, &app.config.tempo, app.now_ns())?;
    let limit = params::tags_limit(&params)?;
    let filter = params.get("q").to_owned();
    run(&app, tenant, move |engine, context| async move {
        let scopes = traceql::tag_names(&*engine, scope, &filter, Some(range), &context).await?;
        Ok(encode::tag_names_v2(&scopes, limit))
    })
    .await
}

/// `/api/search/tag/{name}/values`
pub async fn values_v1(
    State(app): State<SharedApp>,
    tenant: TenantId,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, TempoError> {
    let range = params::tags_range(&params, &app.config.tempo, app.now_ns())?;
    let limit = params::tags_limit(&params)?;
    run(&app, tenant, move |engine, context| async move {
        let values = traceql::legacy_tag_values(&*engine, &name, Some(range), &context).await?;
        Ok(encode::tag_values_v1(&values, limit))
    })
    .await
}

/// `/api/v2/search/tag/{identifier}/values`
pub async fn values_v2(
    State(app): State<SharedApp>,
    tenant: TenantId,
    Path(identifier): Path<String>,
    params: Params,
) -> Result<Response, TempoError> {
    let range = params::tags_range(&params, &app.config.tempo, app.now_ns())?;
    let limit = params::tags_limit(&params)?;
    let filter = params.get("q").to_owned();
    run(&app, tenant, move |engine, context| async move {
        let values = traceql::tag_values(&*engine, &identifier, &filter, Some(range), &context).await?;
        Ok(encode::tag_values_v2(&values, limit))
    })
    .await
}

//! `/api/search`: by TraceQL, by legacy tags, or everything recent.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use query::traceql::{self, SearchAnswer, SearchParams};
use storage::Engine;
use storage::model::tenant::Tenant;

use super::{encode, params};
use crate::app::{App, SharedApp};
use crate::http::error::{TempoError, TextError};
use crate::http::params::{Params, TenantId};

/// What is searched by.
pub enum Search {
    /// TraceQL; empty matches everything.
    Query(String),
    /// Pairs and durations.
    Tags(Vec<(String, String)>, (Option<i64>, Option<i64>)),
}

impl Search {
    fn new(params: &Params) -> Result<Self, TextError> {
        let (query, tags) = (params.get("q"), params.get("tags"));
        if !query.is_empty() && !tags.is_empty() {
            return Err(TextError::bad_request("invalid request: can't specify tags and q in the same query"));
        }
        let durations = params::durations(params)?;
        if !query.is_empty() || (tags.is_empty() && durations == (None, None)) {
            return Ok(Self::Query(query.to_owned()));
        }
        Ok(Self::Tags(params::tags(tags)?, durations))
    }
}

/// `/api/search`
pub async fn search(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, TempoError> {
    let asked = params::search(&params, &app.config.tempo, app.now_ns())?;
    let by = Search::new(&params)?;
    let protobuf = encode::wants_protobuf(&headers);
    let bytes_max = app.queries.answer_bytes_max();
    let answer = run(&app, tenant, by, asked).await?;
    Ok(encode::search(&answer, protobuf).bounded(bytes_max)?.into_response())
}

/// Runs a search, over HTTP or gRPC.
pub async fn run(app: &App, tenant: Tenant, by: Search, asked: SearchParams) -> Result<SearchAnswer, TempoError> {
    let work = move |engine: Arc<Engine>, context| async move {
        match by {
            Search::Query(text) => traceql::search(&*engine, &text, &asked, &context).await,
            Search::Tags(tags, (min, max)) => traceql::search_tags(&*engine, &tags, min, max, &asked, &context).await,
        }
    };
    Ok(app.queries.run(app.engine()?, tenant, app.config.tempo.timeout.0, work).await?)
}

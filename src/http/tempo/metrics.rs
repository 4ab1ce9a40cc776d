//! `/api/metrics/query_range` and `/api/metrics/query`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use query::traceql::{self, MetricsAnswer, MetricsLimits, MetricsParams, default_step_ns};
use storage::Engine;
use storage::model::tenant::Tenant;

use super::encode;
use crate::app::{App, SharedApp};
use crate::http::error::{TempoError, TextError};
use crate::http::params::{NS_PER_S, Params, TenantId, go_duration_ns, rfc3339_ns, seconds};

/// Exemplars when nothing is asked for, and at most.
const EXEMPLARS_MAX: usize = 100;
/// Range of a query without `start`.
const SINCE_DEFAULT_NS: i64 = 3600 * NS_PER_S;
/// Up to so many digits, a time counts seconds; beyond, nanoseconds.
const SECONDS_DIGITS_MAX: usize = 10;

/// `/api/metrics/query_range`
pub async fn range(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, TempoError> {
    let asked = metrics_params(&params, app.now_ns())?;
    let answer = run(&app, tenant, text(&params), asked, false).await?;
    let encoded = encode::metrics_range(&answer, encode::wants_protobuf(&headers));
    Ok(encoded.bounded(app.queries.answer_bytes_max())?.into_response())
}

/// `/api/metrics/query`
pub async fn instant(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, TempoError> {
    let asked = metrics_params(&params, app.now_ns())?;
    let answer = run(&app, tenant, text(&params), asked, true).await?;
    let encoded = encode::metrics_instant(&answer, encode::wants_protobuf(&headers));
    Ok(encoded.bounded(app.queries.answer_bytes_max())?.into_response())
}

/// Runs a metrics query, over HTTP or gRPC.
pub async fn run(
    app: &App,
    tenant: Tenant,
    text: String,
    params: MetricsParams,
    instant: bool,
) -> Result<MetricsAnswer, TempoError> {
    let work = move |engine: Arc<Engine>, context| async move {
        let limits = MetricsLimits::default();
        if instant {
            traceql::metrics_instant(&*engine, &text, &params, &limits, &context).await
        } else {
            traceql::metrics_range(&*engine, &text, &params, &limits, &context).await
        }
    };
    Ok(app.queries.run(app.engine()?, tenant, app.config.tempo.timeout.0, work).await?)
}

fn text(params: &Params) -> String {
    params.first("q").unwrap_or_else(|| params.get("query")).to_owned()
}

fn could_not_parse(name: &str, text: &str) -> TextError {
    TextError::bad_request(format!("could not parse '{name}' parameter: {text:?}"))
}

/// Times, step and limits of a metrics query.
pub fn metrics_params(params: &Params, now_ns: i64) -> Result<MetricsParams, TextError> {
    let time = |name: &str| match params.get(name) {
        "" => Ok(None),
        text => time_ns(text).map(Some).ok_or_else(|| could_not_parse(name, text)),
    };
    let end_ns = time("end")?.unwrap_or(now_ns);
    let since_ns = match params.get("since") {
        "" => SINCE_DEFAULT_NS,
        text => traceql::lexer::parse_duration(text).ok_or_else(|| could_not_parse("since", text))?,
    };
    let start_ns = time("start")?.unwrap_or_else(|| end_ns.saturating_sub(since_ns));
    let number = |name: &str| match params.get(name) {
        "" => Ok(0),
        text => text.parse::<usize>().map_err(|e| TextError::bad_request(format!("invalid {name}: {text:?}: {e}"))),
    };
    let exemplars_max = match number("exemplars")? {
        0 => EXEMPLARS_MAX,
        asked => asked.min(EXEMPLARS_MAX),
    };
    let step_ns = match params.get("step") {
        "" => default_step_ns(start_ns, end_ns),
        text => step_ns(text)?,
    };
    Ok(MetricsParams { start_ns, end_ns, step_ns, exemplars_max, series_max: number("maxSeries")? })
}

/// Seconds, nanoseconds, fractional seconds or RFC 3339.
fn time_ns(text: &str) -> Option<i64> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        let number = text.parse::<i64>().ok()?;
        return if text.len() <= SECONDS_DIGITS_MAX { number.checked_mul(NS_PER_S) } else { Some(number) };
    }
    match seconds(text) {
        // A cast from float saturates, so absurd times stay at the ends.
        Some(seconds) => Some((seconds * NS_PER_S as f64).round() as i64),
        None => rfc3339_ns(text),
    }
}

fn step_ns(text: &str) -> Result<i64, TextError> {
    let ns = match seconds(text) {
        Some(seconds) => Some((seconds * NS_PER_S as f64).round() as i64),
        None => go_duration_ns(text),
    };
    match ns {
        None => Err(TextError::bad_request(format!("cannot parse {text:?} to a valid duration"))),
        Some(ns) if ns < 0 => Err(TextError::bad_request(format!("invalid step {text:?}: step must be positive"))),
        Some(ns) => Ok(ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_780_315_200 * NS_PER_S;

    #[test]
    fn times_come_in_four_forms() {
        let cases = [
            ("1780315200", NOW),
            ("1780315200000000000", NOW),
            ("1780315200.5", NOW + NS_PER_S / 2),
            ("2026-06-01T12:00:00Z", NOW),
        ];
        for (text, expected) in cases {
            assert_eq!(time_ns(text), Some(expected), "{text}");
        }
        assert_eq!((time_ns("x"), time_ns("99999999999999999999")), (None, None));
    }

    #[test]
    fn what_is_absent_has_a_default() {
        let of = |text: &str| metrics_params(&Params::parse(text), NOW);
        let asked = of("").expect("reads");
        assert_eq!((asked.start_ns, asked.end_ns), (NOW - 3600 * NS_PER_S, NOW));
        assert_eq!((asked.step_ns, asked.exemplars_max, asked.series_max), (15 * NS_PER_S, 100, 0));
        let asked = of("end=1780315200&since=30m&step=1m30s&exemplars=500&maxSeries=7").expect("reads");
        assert_eq!((asked.start_ns, asked.step_ns), (NOW - 1800 * NS_PER_S, 90 * NS_PER_S));
        assert_eq!((asked.exemplars_max, asked.series_max), (100, 7));
        assert_eq!(of("step=0.5").expect("reads").step_ns, NS_PER_S / 2);
        let failures = [
            ("start=x", "could not parse 'start' parameter"),
            ("end=x", "could not parse 'end' parameter"),
            ("since=zz", "could not parse 'since' parameter"),
            ("step=x", "cannot parse \"x\" to a valid duration"),
            ("step=-1", "invalid step \"-1\": step must be positive"),
            ("exemplars=-1", "invalid exemplars"),
        ];
        for (text, expected) in failures {
            let message = of(text).expect_err(text).message;
            assert!(message.starts_with(expected), "{text}: {message}");
        }
    }
}

//! `delete`: deleting log entries.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use query::logql;
use storage::delete::{DeleteRequest, Deletion};
use storage::model::time::{TimeRange, TimestampMs, TimestampNs};
use storage::{Kind, Signal};

use crate::app::{App, SharedApp};
use crate::http::error::{LokiError, TextError};
use crate::http::json::Json;
use crate::http::json_response;
use crate::http::params::{NS_PER_S, Params, TenantId, rfc3339_ns};

/// Longer numbers are no seconds.
const SECONDS_DIGITS_MAX: usize = 10;
const NS_PER_MS: i64 = NS_PER_S / 1000;

fn check_on(app: &App) -> Result<(), TextError> {
    match app.config.loki.deletion {
        true => Ok(()),
        false => {
            let message = "deletion is not available for this tenant".to_owned();
            Err(TextError { status: StatusCode::FORBIDDEN, message })
        }
    }
}

/// Seconds or RFC 3339.
fn time_ms(text: &str) -> Option<i64> {
    match text.parse::<i64>() {
        Ok(seconds) if text.len() <= SECONDS_DIGITS_MAX => seconds.checked_mul(1000),
        Ok(_) => None,
        Err(_) => rfc3339_ns(text).map(|ns| ns.div_euclid(NS_PER_MS)),
    }
}

/// `start` and `end`, both inside.
fn range(params: &Params, now_ms: i64) -> Result<TimeRange, TextError> {
    let wrong =
        |name: &str| TextError::bad_request(format!("invalid {name} time: require unix seconds or RFC3339 format"));
    let start = match params.get("start") {
        "" => return Err(TextError::bad_request("start time not set")),
        text => time_ms(text).ok_or_else(|| wrong("start"))?,
    };
    let end = match params.get("end") {
        "" => now_ms,
        text => time_ms(text).ok_or_else(|| wrong("end"))?,
    };
    if end > now_ms {
        return Err(TextError::bad_request("deletes in the future are not allowed"));
    }
    if start > end {
        return Err(TextError::bad_request("start time can't be greater than end time"));
    }
    Ok(TimeRange::closed_ms(TimestampMs(start), TimestampMs(end)))
}

/// `POST /loki/api/v1/delete`
pub async fn create(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    params: Params,
) -> Result<StatusCode, LokiError> {
    check_on(&app)?;
    let text = params.get("query");
    if text.is_empty() {
        return Err(TextError::bad_request("query not set").into());
    }
    let (matchers, tests) = logql::delete_request(text)?;
    let range = range(&params, app.now_ms())?;
    let text = text.to_owned();
    let request = DeleteRequest { signal: Signal::Logs, selectors: vec![matchers], range, tests, text };
    app.engine()?.delete(&tenant, request).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /loki/api/v1/delete`
pub async fn list(State(app): State<SharedApp>, TenantId(tenant): TenantId) -> Result<Response, LokiError> {
    check_on(&app)?;
    let all = app.engine()?.deletions(&tenant).await?;
    Ok(json_response(StatusCode::OK, encode(&all)))
}

fn encode(all: &[Deletion]) -> Json {
    let mut json = Json::new();
    json.array(all.iter().filter(|deletion| deletion.request.signal == Signal::Logs), |json, deletion| {
        let request = &deletion.request;
        let ms = |ns: i64| TimestampNs(ns).to_ms().0;
        json.raw(r#"{"request_id":"#).string(&deletion.id);
        json.raw(r#","start_time":"#).seconds(ms(request.range.start));
        json.raw(r#","end_time":"#).seconds(ms(request.range.end.saturating_sub(1)));
        json.raw(r#","query":"#).string(&request.text);
        json.raw(r#","status":"#).string(if deletion.done { "processed" } else { "received" });
        json.raw(r#","created_at":"#).seconds(ms(deletion.created_ns)).raw("}");
    });
    json
}

/// `DELETE /loki/api/v1/delete`
pub async fn cancel(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    params: Params,
) -> Result<StatusCode, LokiError> {
    check_on(&app)?;
    let id = params.get("request_id");
    if id.is_empty() {
        return Err(TextError::bad_request("no request_id specified").into());
    }
    let engine = app.engine()?;
    let known = engine.deletions(&tenant).await?;
    if known.iter().any(|deletion| deletion.id == id && deletion.done) {
        let message = "deletion of request which is in process or already processed is not allowed";
        return Err(TextError::bad_request(message).into());
    }
    match engine.cancel_delete(&tenant, id).await {
        Err(error) if error.kind() == Kind::Invalid => {
            Err(TextError::bad_request("could not find delete request with given id").into())
        }
        other => other.map(|()| StatusCode::NO_CONTENT).map_err(LokiError::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_rfc_3339_and_not_ahead() {
        let read = |text: &str| range(&Params::parse(text), 5_000_000).map_err(|error| error.message);
        assert_eq!(read("start=1&end=2"), Ok(TimeRange::new(1_000_000_000, 2_001_000_000)));
        assert_eq!(read("start=1970-01-01T00:00:01Z").map(|range| range.end), Ok(5_000_001 * NS_PER_MS));
        for (text, part) in [
            ("", "start time not set"),
            ("start=x", "invalid start time"),
            ("start=1000000000000", "invalid start time"),
            ("start=1&end=y", "invalid end time"),
            ("start=1&end=5001", "deletes in the future are not allowed"),
            ("start=3&end=2", "start time can't be greater than end time"),
        ] {
            assert!(read(text).expect_err(text).contains(part), "{text}");
        }
    }
}

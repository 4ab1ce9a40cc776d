//! The grammar of parameters in Jaeger's API, and how a search is said in TraceQL.

use query::traceql::SearchParams;
use serde_json::Value;
use storage::model::span::TraceId;
use storage::model::time::{NS_PER_MS, TimeRange};

use crate::http::error::JaegerError;
use crate::http::params::{NS_PER_S, Params, go_duration_ns};

/// The kinds as Jaeger names them, which are also TraceQL's words.
pub const KINDS: [&str; 6] = ["unspecified", "internal", "server", "client", "producer", "consumer"];
/// Traces of an answer when nothing is asked for.
const LIMIT_DEFAULT: usize = 20;
/// Most traces of an answer.
const LIMIT_MAX: usize = 1500;
/// The range of a search that names none.
const LOOKBACK_DEFAULT_NS: i64 = 3600 * NS_PER_S;
/// The range of dependencies that names none.
const DEPENDENCIES_DEFAULT_NS: i64 = 24 * 3600 * NS_PER_S;

/// A search.
#[derive(Debug)]
pub struct Search {
    /// TraceQL.
    pub query: String,
    /// Range and limits.
    pub params: SearchParams,
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The spans of a service, of one kind or of all.
pub fn selection(service: &str, kind: Option<&str>) -> String {
    let kind = kind.map(|kind| format!(" && kind = {kind}")).unwrap_or_default();
    format!("{{ resource.service.name = {}{kind} }}", quoted(service))
}

/// The parameter `service`, which must be there.
pub fn service(params: &Params) -> Result<String, JaegerError> {
    match params.get("service") {
        "" => Err(JaegerError::bad_request("parameter 'service' is required")),
        name => Ok(name.to_owned()),
    }
}

fn number(params: &Params, name: &str) -> Result<Option<i64>, JaegerError> {
    match params.get(name) {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| JaegerError::bad_request(format!("unable to parse param '{name}': {text:?} is no number"))),
    }
}

fn micros(params: &Params, name: &str) -> Result<Option<i64>, JaegerError> {
    Ok(number(params, name)?.map(|micros| micros.saturating_mul(1000)))
}

fn duration(params: &Params, name: &str) -> Result<Option<i64>, JaegerError> {
    match params.get(name) {
        "" => Ok(None),
        text => go_duration_ns(text).map(Some).ok_or_else(|| {
            JaegerError::bad_request(format!("unable to parse param '{name}': {text:?} is no duration such as 1.5s"))
        }),
    }
}

/// `start` and `end` in microseconds, as a hint where a trace lies.
pub fn hint(params: &Params) -> Result<Option<TimeRange>, JaegerError> {
    let (start, end) = (micros(params, "start")?, micros(params, "end")?);
    Ok(start.zip(end).map(|(start, end)| TimeRange::new(start, end.saturating_add(1))))
}

/// `endTs` and `lookback` in milliseconds.
pub fn lookback(params: &Params, now_ns: i64) -> Result<TimeRange, JaegerError> {
    let ns = |ms: i64| ms.saturating_mul(NS_PER_MS);
    let end = number(params, "endTs")?.map_or(now_ns, ns);
    let length = number(params, "lookback")?.map_or(DEPENDENCIES_DEFAULT_NS, ns);
    Ok(TimeRange::new(end.saturating_sub(length.max(0)), end.saturating_add(1)))
}

/// A trace id of at most 32 hex digits.
pub fn trace_id(text: &str) -> Result<TraceId, JaegerError> {
    let number = (!text.is_empty() && text.len() <= 32).then(|| u128::from_str_radix(text, 16).ok()).flatten();
    number.map(u128::to_be_bytes).ok_or_else(|| {
        JaegerError::bad_request(format!("cannot parse trace id {text:?}: 1 to 32 hex digits are expected"))
    })
}

/// A search by service, operation, tags and duration, all of which hold on one span.
pub fn search(params: &Params, now_ns: i64) -> Result<Search, JaegerError> {
    let mut conditions = vec![format!("resource.service.name = {}", quoted(&service(params)?))];
    if !params.get("operation").is_empty() {
        conditions.push(format!("name = {}", quoted(params.get("operation"))));
    }
    for (key, value) in tags(params)? {
        conditions.push(condition(&key, &value));
    }
    for (name, sign) in [("minDuration", ">="), ("maxDuration", "<=")] {
        if let Some(ns) = duration(params, name)? {
            conditions.push(format!("duration {sign} {ns}ns"));
        }
    }
    let end = micros(params, "end")?.unwrap_or(now_ns);
    let start = match (micros(params, "start")?, duration(params, "lookback").ok().flatten()) {
        (Some(start), _) => start,
        (None, length) => end.saturating_sub(length.unwrap_or(LOOKBACK_DEFAULT_NS)),
    };
    let limit = match number(params, "limit")? {
        None | Some(0) => LIMIT_DEFAULT,
        Some(limit) => usize::try_from(limit).map_or(LIMIT_DEFAULT, |limit| limit.min(LIMIT_MAX)),
    };
    Ok(Search {
        query: format!("{{ {} }}", conditions.join(" && ")),
        params: SearchParams { range: Some(TimeRange::new(start, end.saturating_add(1))), limit, spans_per_spanset: 1 },
    })
}

/// `tags`, an object of texts, and each `tag=key:value`.
fn tags(params: &Params) -> Result<Vec<(String, String)>, JaegerError> {
    let mut found = Vec::new();
    if !params.get("tags").is_empty() {
        let object: serde_json::Map<String, Value> = serde_json::from_str(params.get("tags"))
            .map_err(|error| JaegerError::bad_request(format!("malformed 'tags' parameter: {error}")))?;
        for (key, value) in object {
            let text = match value {
                Value::String(text) => text,
                other => other.to_string(),
            };
            found.push((key, text));
        }
    }
    for pair in params.all("tag") {
        let (key, value) = pair.split_once(':').ok_or_else(|| {
            JaegerError::bad_request(format!("malformed 'tag' parameter, expecting key:value, received: {pair}"))
        })?;
        found.push((key.to_owned(), value.to_owned()));
    }
    Ok(found)
}

/// A tag whose value is compared as text: whatever type prints as it.
fn condition(key: &str, value: &str) -> String {
    match (key, value) {
        ("error", "true") => return "status = error".to_owned(),
        ("error", "false") => return "status != error".to_owned(),
        ("span.kind", kind) if KINDS.contains(&kind) => return format!("kind = {kind}"),
        ("otel.status_code", "OK") => return "status = ok".to_owned(),
        ("otel.status_code", "ERROR") => return "status = error".to_owned(),
        ("otel.status_description", text) => return format!("statusMessage = {}", quoted(text)),
        ("otel.scope.name", text) => return format!("instrumentation:name = {}", quoted(text)),
        ("otel.scope.version", text) => return format!("instrumentation:version = {}", quoted(text)),
        _ => {}
    }
    let attribute = format!(".{}", quoted(key));
    let mut forms = vec![quoted(value)];
    let is_number = value.parse::<i64>().is_ok() || value.parse::<f64>().is_ok_and(f64::is_finite);
    if is_number && !value.contains(['e', 'E', '+']) || matches!(value, "true" | "false") {
        forms.push(value.to_owned());
    }
    let tests: Vec<String> = forms.iter().map(|form| format!("{attribute} = {form}")).collect();
    format!("({})", tests.join(" || "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        Params::of(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn a_search_is_said_in_traceql() {
        let asked = search(
            &params(&[
                ("service", "we\"b"),
                ("operation", "GET /"),
                ("tags", r#"{"http.status_code":"500","error":"true"}"#),
                ("minDuration", "1.5ms"),
                ("start", "1000000"),
                ("end", "2000000"),
                ("limit", "7"),
            ]),
            0,
        )
        .expect("fine");
        assert_eq!(
            asked.query,
            r#"{ resource.service.name = "we\"b" && name = "GET /" && status = error && (."http.status_code" = "500" || ."http.status_code" = 500) && duration >= 1500000ns }"#
        );
        assert_eq!(asked.params.limit, 7);
        assert_eq!(asked.params.range, Some(TimeRange::new(1_000_000_000, 2_000_000_001)));
        query::traceql::parse(&asked.query).expect("TraceQL");
    }

    #[test]
    fn what_is_missing_or_malformed_is_said() {
        assert_eq!(search(&params(&[]), 0).expect_err("refused").message, "parameter 'service' is required");
        for (name, value) in [("tags", "{"), ("tag", "x"), ("minDuration", "x"), ("start", "x"), ("limit", "x")] {
            let error = search(&params(&[("service", "a"), (name, value)]), 0).expect_err("refused");
            assert!(error.message.contains(name), "{}", error.message);
        }
        assert!(trace_id("xyz").is_err() && trace_id("").is_err());
        assert_eq!(trace_id("ff").expect("short")[15], 255);
    }
}

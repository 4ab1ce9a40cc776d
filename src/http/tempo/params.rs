//! The grammar of parameters in Tempo's API.

use query::traceql::{SearchParams, TagScope, TraceFilter};
use storage::model::span::TraceId;
use storage::model::time::{TimeRange, TimestampNs};

use crate::config::TempoSettings;
use crate::config::units::Span;
use crate::http::error::TextError;
use crate::http::params::{NS_PER_S, Params, go_duration_ns};

/// Traces of an answer when nothing is asked for.
const LIMIT_DEFAULT: usize = 20;
/// Most traces of an answer.
const LIMIT_MAX: usize = 262_144;
/// Spans listed per spanset when nothing is asked for.
const SPANS_DEFAULT: usize = 3;
/// Most spans listed per spanset.
const SPANS_MAX: usize = 100;
/// Hex digits of a trace id.
const TRACE_ID_DIGITS: usize = 32;

fn seconds(params: &Params, name: &str) -> Result<Option<i64>, TextError> {
    match params.get(name) {
        "" => Ok(None),
        text => text
            .parse::<u32>()
            .map(|seconds| Some(i64::from(seconds)))
            .map_err(|e| TextError::bad_request(format!("invalid {name}: {text:?}: {e}"))),
    }
}

fn closed_seconds(start: i64, end: i64) -> TimeRange {
    TimeRange::closed_ns(TimestampNs(start * NS_PER_S), TimestampNs(end * NS_PER_S))
}

fn ordered(start: i64, end: i64) -> Result<TimeRange, TextError> {
    if end <= start {
        let message = format!("http parameter start must be before end. received start={start} end={end}");
        return Err(TextError::bad_request(message));
    }
    Ok(closed_seconds(start, end))
}

/// `start` and `end` as a hint where a trace is: either may be missing.
pub fn hint(params: &Params) -> Result<Option<TimeRange>, TextError> {
    match (seconds(params, "start")?, seconds(params, "end")?) {
        (Some(start), Some(end)) => ordered(start, end).map(Some),
        _ => Ok(None),
    }
}

/// `start` and `end` of a search, both or neither.
fn search_range(params: &Params, settings: &TempoSettings, now_ns: i64) -> Result<TimeRange, TextError> {
    let (start, end) = (seconds(params, "start")?, seconds(params, "end")?);
    if start.is_none() && end.is_none() {
        return Ok(recent(settings, now_ns));
    }
    let (start, end) = (start.unwrap_or(0), end.unwrap_or(0));
    let range = ordered(start, end)?;
    let allowed = settings.search_duration_max;
    if !allowed.is_zero() && (end - start) * NS_PER_S > allowed.as_ns() {
        let asked = go_duration(end - start);
        let message = format!("range specified by start and end exceeds {}. received {asked}", go_span(allowed));
        return Err(TextError::bad_request(message));
    }
    Ok(range)
}

/// The newest data; clocks of senders may run a little ahead.
fn recent(settings: &TempoSettings, now_ns: i64) -> TimeRange {
    TimeRange::new(now_ns.saturating_sub(settings.search_default_range.as_ns()), i64::MAX)
}

/// Seconds as Go prints durations.
fn go_duration(seconds: i64) -> String {
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

fn go_span(span: Span) -> String {
    go_duration(span.as_ns() / NS_PER_S)
}

/// `start` and `end` of tag names and values, both or neither; neither means recent data.
pub fn tags_range(params: &Params, settings: &TempoSettings, now_ns: i64) -> Result<TimeRange, TextError> {
    let failed = |error: TextError| TextError::bad_request(format!("error parsing date range: {}", error.message));
    let (start, end) = (seconds(params, "start").map_err(failed)?, seconds(params, "end").map_err(failed)?);
    match (start, end) {
        (Some(start), Some(end)) => ordered(start, end).map_err(failed),
        (None, None) => Ok(recent(settings, now_ns)),
        _ => Err(TextError::bad_request("error parsing date range: give both start and end, or neither")),
    }
}

fn count(params: &Params, name: &str, default: usize) -> Result<usize, TextError> {
    match params.get(name) {
        "" => Ok(default),
        text => match text.parse::<i64>() {
            Ok(number) if number > 0 => Ok(usize::try_from(number).unwrap_or(usize::MAX)),
            Ok(_) => Err(TextError::bad_request(format!("invalid {name}: must be a positive number"))),
            Err(e) => Err(TextError::bad_request(format!("invalid {name}: {text:?}: {e}"))),
        },
    }
}

/// Range and limits of a search.
pub fn search(params: &Params, settings: &TempoSettings, now_ns: i64) -> Result<SearchParams, TextError> {
    let limit = count(params, "limit", LIMIT_DEFAULT)?;
    if limit > LIMIT_MAX {
        return Err(TextError::bad_request(format!("limit {limit} exceeds max limit {LIMIT_MAX}")));
    }
    let spans_per_spanset = count(params, "spss", SPANS_DEFAULT)?;
    if spans_per_spanset > SPANS_MAX {
        let message = format!("spans per span set exceeds {SPANS_MAX}. received {spans_per_spanset}");
        return Err(TextError::bad_request(message));
    }
    Ok(SearchParams { range: Some(search_range(params, settings, now_ns)?), limit, spans_per_spanset })
}

/// `minDuration` and `maxDuration` in nanoseconds.
pub fn durations(params: &Params) -> Result<(Option<i64>, Option<i64>), TextError> {
    let read = |name: &str| match params.get(name) {
        "" => Ok(None),
        text => go_duration_ns(text)
            .map(Some)
            .ok_or_else(|| TextError::bad_request(format!("invalid {name}: {text:?} is no duration"))),
    };
    let (min, max) = (read("minDuration")?, read("maxDuration")?);
    match (min, max) {
        (Some(min), Some(max)) if max <= min => {
            Err(TextError::bad_request("invalid maxDuration: must be greater than minDuration"))
        }
        both => Ok(both),
    }
}

/// Pairs of logfmt: `a=b "c d"="e f"` without quoted keys, as the original reads them.
pub fn tags(text: &str) -> Result<Vec<(String, String)>, TextError> {
    let invalid = |reason: &str| TextError::bad_request(format!("invalid tags: {reason}"));
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let key_bytes = rest.find(|c: char| c == '=' || c == '"' || c.is_whitespace()).unwrap_or(rest.len());
        let (key, tail) = rest.split_at(key_bytes);
        if key.is_empty() || tail.starts_with('"') {
            return Err(invalid("a key without quotes is expected"));
        }
        let (value, tail) = match tail.strip_prefix('=') {
            None => (String::new(), tail),
            Some(tail) if tail.starts_with('"') => quoted(tail).ok_or_else(|| invalid("unterminated quoted value"))?,
            Some(tail) => {
                let bytes = tail.find(char::is_whitespace).unwrap_or(tail.len());
                (tail[..bytes].to_owned(), &tail[bytes..])
            }
        };
        if pairs.iter().any(|(known, _)| known == key) {
            return Err(invalid(&format!("tag {key} has been set twice")));
        }
        pairs.push((key.to_owned(), value));
        rest = tail.trim_start();
    }
    Ok(pairs)
}

/// The quoted text at the start of `text` and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

/// A trace id of 1 to 32 hex digits, padded with zeros on the left.
pub fn trace_id(text: &str) -> Result<TraceId, TextError> {
    if let Some((at, c)) = text.chars().enumerate().find(|(_, c)| !c.is_ascii_hexdigit()) {
        let position = at + 1;
        let message =
            format!("trace IDs can only contain hex characters: invalid character '{c}' at position {position}");
        return Err(TextError::bad_request(message));
    }
    if text.is_empty() || text.len() > TRACE_ID_DIGITS {
        return Err(TextError::bad_request("trace IDs can't be larger than 128 bits"));
    }
    let value = u128::from_str_radix(text, 16).map_err(|e| TextError::bad_request(e.to_string()))?;
    Ok(value.to_be_bytes())
}

/// The parameter `mode` of a trace by id, which is accepted and ignored.
pub fn mode(params: &Params) -> Result<(), TextError> {
    match params.get("mode") {
        "" | "all" | "ingesters" | "blocks" | "external" => Ok(()),
        other => Err(TextError::bad_request(format!("invalid value for mode {other}"))),
    }
}

/// The filter of a trace by id; `None` without one.
pub fn trace_filter(params: &Params) -> Result<Option<TraceFilter>, TextError> {
    let query = params.get("q").trim();
    let keep_hierarchy = match params.get("keep_hierarchy") {
        "" | "false" | "0" | "f" | "F" | "FALSE" | "False" => false,
        "true" | "1" | "t" | "T" | "TRUE" | "True" => true,
        other => {
            return Err(TextError::bad_request(format!("invalid value for keep_hierarchy: {other:?} is no boolean")));
        }
    };
    let depth = |name: &str, default: i64| match params.get(name) {
        "" => Ok(default),
        text => match text.parse::<i64>() {
            Ok(depth) if depth >= -1 => Ok(depth),
            Ok(_) => Err(TextError::bad_request(format!("invalid value for {name}: must be >= -1"))),
            Err(e) => Err(TextError::bad_request(format!("invalid value for {name}: {text:?}: {e}"))),
        },
    };
    let levels = |depth: i64| (depth >= 0).then(|| u32::try_from(depth).unwrap_or(u32::MAX));
    let (above, below) = (depth("ancestor_depth", -1)?, depth("match_depth", 0)?);
    let ancestors = if keep_hierarchy { levels(above) } else { Some(0) };
    let filter = TraceFilter { query: query.to_owned(), ancestors, descendants: levels(below) };
    Ok((!query.is_empty()).then_some(filter))
}

/// The scopes by name, in the order of answers.
const SCOPES: [(&str, TagScope); 6] = [
    ("resource", TagScope::Resource),
    ("span", TagScope::Span),
    ("event", TagScope::Event),
    ("link", TagScope::Link),
    ("instrumentation", TagScope::Instrumentation),
    ("intrinsic", TagScope::Intrinsic),
];

/// The word of a scope.
pub fn scope_name(scope: TagScope) -> &'static str {
    SCOPES.iter().find_map(|(name, known)| (*known == scope).then_some(*name)).unwrap_or("")
}

/// The parameter `scope`; `None` for all.
pub fn scope(params: &Params) -> Result<Option<TagScope>, TextError> {
    match params.get("scope") {
        "" | "none" => Ok(None),
        name => SCOPES
            .iter()
            .find_map(|(known, scope)| (*known == name).then_some(Some(*scope)))
            .ok_or_else(|| TextError::bad_request(format!("invalid scope: {name}"))),
    }
}

/// The parameter `limit` of tags; none or 0 means all.
pub fn tags_limit(params: &Params) -> Result<usize, TextError> {
    match params.get("limit") {
        "" | "0" => Ok(usize::MAX),
        _ => count(params, "limit", usize::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const NOW: i64 = 1_780_315_200 * NS_PER_S;

    fn failure<T: std::fmt::Debug>(result: Result<T, TextError>) -> String {
        result.expect_err("refused").message
    }

    #[test]
    fn searches_are_checked_word_by_word() {
        let settings = Config::default().tempo;
        let of = |text: &str| search(&Params::parse(text), &settings, NOW);
        let found = of("start=1780315200&end=1780315260").expect("reads");
        let range = TimeRange::closed_ns(TimestampNs(NOW), TimestampNs(NOW + 60 * NS_PER_S));
        assert_eq!(found, SearchParams { range: Some(range), limit: 20, spans_per_spanset: 3 });
        assert!(of("").expect("reads").range.is_some_and(|range| range.contains(NOW)));
        let cases = [
            ("start=abc&end=5", "invalid start: "),
            ("start=5&end=x1", "invalid end: "),
            ("start=10&end=5", "http parameter start must be before end. received start=10 end=5"),
            ("start=5&end=5", "http parameter start must be before end"),
            ("start=5", "http parameter start must be before end"),
            ("start=0&end=604801", "range specified by start and end exceeds 168h0m0s. received 168h0m1s"),
            ("limit=0", "invalid limit: must be a positive number"),
            ("limit=x", "invalid limit: "),
            ("limit=262145", "limit 262145 exceeds max limit 262144"),
            ("spss=x", "invalid spss: "),
            ("spss=101", "spans per span set exceeds 100. received 101"),
        ];
        for (text, expected) in cases {
            let message = failure(of(text));
            assert!(message.starts_with(expected), "{text}: {message}");
        }
    }

    #[test]
    fn trace_ids_are_padded() {
        let id = trace_id("BeeF").expect("reads");
        assert_eq!(u128::from_be_bytes(id), 0xbeef);
        assert_eq!(
            failure(trace_id("x")),
            "trace IDs can only contain hex characters: invalid character 'x' at position 1"
        );
        assert!(failure(trace_id("12345-678")).ends_with("invalid character '-' at position 6"));
        assert_eq!(failure(trace_id(&"1".repeat(33))), "trace IDs can't be larger than 128 bits");
    }

    #[test]
    fn filters_of_traces_have_depths() {
        let of = |text: &str| trace_filter(&Params::parse(text));
        let filter = |ancestors, descendants| Some(TraceFilter { query: "{ }".into(), ancestors, descendants });
        assert_eq!(of("q=+").ok(), Some(None));
        assert_eq!(of("q={ }").ok(), Some(filter(Some(0), Some(0))));
        assert_eq!(of("q={ }&keep_hierarchy=true&match_depth=-1").ok(), Some(filter(None, None)));
        assert_eq!(of("q={ }&keep_hierarchy=true&ancestor_depth=2").ok(), Some(filter(Some(2), Some(0))));
        assert_eq!(failure(of("q={ }&match_depth=-2")), "invalid value for match_depth: must be >= -1");
        assert!(failure(of("q={ }&keep_hierarchy=maybe")).starts_with("invalid value for keep_hierarchy: "));
    }

    #[test]
    fn tags_are_logfmt() {
        let pairs = tags(r#"service.name=web  name="GET \"/\"" flag"#).expect("reads");
        let expected = [("service.name", "web"), ("name", "GET \"/\""), ("flag", "")];
        assert_eq!(pairs, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert_eq!(failure(tags("a=1 a=2")), "invalid tags: tag a has been set twice");
        for wrong in [r#""model name"=whisper"#, r#"a="b"#, "=x"] {
            assert!(failure(tags(wrong)).starts_with("invalid tags: "), "{wrong}");
        }
    }

    #[test]
    fn durations_are_ordered() {
        assert_eq!(durations(&Params::parse("minDuration=1.5s")).ok(), Some((Some(1_500_000_000), None)));
        assert!(failure(durations(&Params::parse("minDuration=x"))).starts_with("invalid minDuration: "));
        let message = failure(durations(&Params::parse("minDuration=10s&maxDuration=1s")));
        assert_eq!(message, "invalid maxDuration: must be greater than minDuration");
    }

    #[test]
    fn scopes_and_modes_are_known_words() {
        assert_eq!(scope(&Params::parse("scope=none")).ok(), Some(None));
        assert_eq!(scope(&Params::parse("scope=span")).ok(), Some(Some(TagScope::Span)));
        assert_eq!(failure(scope(&Params::parse("scope=X"))), "invalid scope: X");
        assert_eq!(failure(mode(&Params::parse("mode=bogus"))), "invalid value for mode bogus");
    }
}

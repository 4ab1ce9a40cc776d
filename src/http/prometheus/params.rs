//! The grammar of parameters in Prometheus' API.

use storage::model::time::{TimeRange, TimestampMs};

use crate::config::units::parse_duration_ms;
use crate::http::error::PrometheusError;
use crate::http::params::{NS_PER_S, Params, rfc3339_ns, seconds, seconds_to_ns};

/// What Go's client sends for "the beginning of time" and "the end of time".
const EXTREMES: [(&str, i64); 2] =
    [("-292273086-05-16T16:47:06Z", i64::MIN), ("292277025-08-18T07:12:54.999999999Z", i64::MAX)];
/// The most steps of a range query.
const STEPS_MAX: i64 = 11_000;

/// A time in seconds (fractions, exponents) or RFC 3339, in milliseconds.
fn time_ms(text: &str) -> Option<i64> {
    if let Some(seconds) = seconds(text) {
        // A cast from float saturates: a time in the year 58,000 is a time.
        return Some((seconds * 1000.0).round() as i64);
    }
    let extreme = EXTREMES.iter().find_map(|(name, ms)| (*name == text).then_some(*ms));
    extreme.or_else(|| rfc3339_ns(text).map(|ns| ns.div_euclid(NS_PER_S / 1000)))
}

/// The time `name`, or `None` if it is absent or empty.
pub fn time(params: &Params, name: &str) -> Result<Option<TimestampMs>, PrometheusError> {
    match params.get(name) {
        "" => Ok(None),
        text => time_ms(text)
            .map(|ms| Some(TimestampMs(ms)))
            .ok_or_else(|| PrometheusError::parameter(name, format!("cannot parse {text:?} to a valid timestamp"))),
    }
}

/// The time `name`, which must be there.
pub fn required_time(params: &Params, name: &str) -> Result<TimestampMs, PrometheusError> {
    time(params, name)?.ok_or_else(|| PrometheusError::parameter(name, "cannot parse \"\" to a valid timestamp"))
}

/// The time `name` in nanoseconds, for tests of ranges: absent means an end of time.
fn bound(params: &Params, name: &str, absent: i64) -> Result<TimestampMs, PrometheusError> {
    Ok(time(params, name)?.unwrap_or(TimestampMs(absent)))
}

/// `start` and `end`, both inside, absent meaning all of time.
pub fn range(params: &Params) -> Result<TimeRange, PrometheusError> {
    let (start, end) = (bound(params, "start", i64::MIN)?, bound(params, "end", i64::MAX)?);
    if end < start {
        return Err(PrometheusError::parameter("end", "end timestamp must not be before start time"));
    }
    Ok(TimeRange::closed_ms(start, end))
}

/// A duration in seconds or Prometheus' form, in milliseconds.
fn duration_ms(text: &str) -> Option<i64> {
    if let Some(seconds) = seconds(text) {
        return Some(seconds_to_ns(seconds) / 1_000_000);
    }
    parse_duration_ms(text).and_then(|ms| i64::try_from(ms).ok())
}

/// The duration `name` above zero; `None` if it is absent.
pub fn duration(params: &Params, name: &str) -> Result<Option<i64>, PrometheusError> {
    match params.get(name) {
        "" => Ok(None),
        text => {
            let ms = duration_ms(text).ok_or_else(|| {
                PrometheusError::parameter(name, format!("cannot parse {text:?} to a valid duration"))
            })?;
            if ms <= 0 {
                return Err(PrometheusError::parameter(name, "a duration above zero is expected"));
            }
            Ok(Some(ms))
        }
    }
}

/// The step of a range query from `start` to `end`.
pub fn step(params: &Params, start: TimestampMs, end: TimestampMs) -> Result<i64, PrometheusError> {
    let text = params.get("step");
    let ms = duration_ms(text)
        .ok_or_else(|| PrometheusError::parameter("step", format!("cannot parse {text:?} to a valid duration")))?;
    if ms <= 0 {
        let message = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(PrometheusError::parameter("step", message));
    }
    if end.0.saturating_sub(start.0) / ms > STEPS_MAX {
        return Err(PrometheusError::bad_data(
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        ));
    }
    Ok(ms)
}

/// The parameter `limit`; `None` for none or 0.
pub fn limit(params: &Params) -> Result<Option<usize>, PrometheusError> {
    limit_of(params, "limit")
}

/// A limit by another name; `None` for none or 0.
pub fn limit_of(params: &Params, name: &str) -> Result<Option<usize>, PrometheusError> {
    Ok(count(params, name)?.filter(|limit| *limit > 0))
}

/// A whole number from zero on; `None` if it is absent.
pub fn count(params: &Params, name: &str) -> Result<Option<usize>, PrometheusError> {
    match params.get(name) {
        "" => Ok(None),
        text => match text.parse::<i64>() {
            Ok(number) if number < 0 => Err(PrometheusError::parameter(name, "limit must be non-negative")),
            Ok(number) => Ok(Some(usize::try_from(number).unwrap_or(usize::MAX))),
            Err(_) => Err(PrometheusError::parameter(name, format!("cannot parse {text:?} as a whole number"))),
        },
    }
}

/// The label name in a path: one that begins with `U__` is unescaped; `None` if it names nothing.
pub fn label_name(name: &str) -> Option<String> {
    let Some(escaped) = name.strip_prefix("U__") else { return (!name.is_empty()).then(|| name.to_owned()) };
    let mut out = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(at) = rest.find('_') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('_') {
            out.push('_');
            rest = after;
            continue;
        }
        let (digits, after) = rest.split_once('_')?;
        if digits.is_empty() || digits.len() > 6 {
            return None;
        }
        out.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
        rest = after;
    }
    out.push_str(rest);
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    fn message(error: PrometheusError) -> String {
        let body = error.into_response().into_body();
        let bytes = futures::executor::block_on(axum::body::to_bytes(body, 1 << 20)).expect("a body");
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    #[test]
    fn times_are_seconds_or_rfc_3339() {
        let cases = [
            ("1767575700", 1_767_575_700_000),
            ("1767575700.2504", 1_767_575_700_250),
            ("1.7675757e9", 1_767_575_700_000),
            ("2026-01-05T01:15:00Z", 1_767_575_700_000),
            ("2026-01-05T02:15:00.5+01:00", 1_767_575_700_500),
            ("1767575700000", 1_767_575_700_000_000),
            ("-1.5", -1500),
            ("1e300", i64::MAX),
        ];
        for (text, ms) in cases {
            assert_eq!(time_ms(text), Some(ms), "{text}");
        }
        for text in ["", "x", "NaN", "Inf", "2026-01-05"] {
            assert_eq!(time_ms(text), None, "{text}");
        }
    }

    #[test]
    fn steps_are_bounded_and_positive() {
        let (start, end) = (TimestampMs(0), TimestampMs(11_000_000));
        let step_of = |text: &str| step(&Params::parse(&format!("step={text}")), start, end).map_err(message);
        assert_eq!(step_of("1"), Ok(1000), "11,001 points pass");
        assert_eq!(step_of("1m30s"), Ok(90_000));
        assert_eq!(step_of("1.5"), Ok(1500));
        assert!(
            step_of("0.999")
                .expect_err("too many")
                .contains("exceeded maximum resolution of 11,000 points per timeseries")
        );
        for wrong in ["", "0", "-1", "x", "1m1h", "0s"] {
            assert!(step_of(wrong).expect_err("refused").contains(r#""errorType":"bad_data""#), "{wrong}");
        }
    }

    #[test]
    fn limits_and_ranges() {
        assert_eq!(limit(&Params::parse("limit=0")).ok(), Some(None));
        assert_eq!(limit(&Params::parse("limit=3")).ok(), Some(Some(3)));
        assert!(limit(&Params::parse("limit=-1")).is_err() && limit(&Params::parse("limit=x")).is_err());
        assert_eq!(range(&Params::parse("")).ok(), Some(TimeRange::ALL));
        assert!(range(&Params::parse("start=2&end=1")).is_err());
    }

    #[test]
    fn label_names_may_be_escaped() {
        assert_eq!(label_name("job").as_deref(), Some("job"));
        assert_eq!(label_name("U__http_2e_status__code").as_deref(), Some("http.status_code"));
        assert_eq!(label_name("U___540d_").as_deref(), Some("名"));
        for wrong in ["", "U__", "U___zz_", "U__a_", "U___110000_"] {
            assert_eq!(label_name(wrong), None, "{wrong}");
        }
    }
}

//! The grammar of parameters in Loki's API.

use query::logql::Direction;
use storage::model::time::TimeRange;

use crate::config::units::parse_duration_ms;
use crate::http::error::TextError;
use crate::http::params::{NS_PER_S, Params, rfc3339_ns, seconds, seconds_to_ns};

/// The range of a request that names none.
const SINCE_DEFAULT_NS: i64 = 3600 * NS_PER_S;
/// Entries of an answer when nothing is asked for.
pub const LIMIT_DEFAULT: usize = 100;
/// The most steps of a range.
const STEPS_MAX: i64 = 11_000;
/// Steps of a range that names no step.
const STEPS_DEFAULT: i64 = 250;
/// Integers of at most this many digits are seconds; longer ones are nanoseconds.
const SECONDS_DIGITS_MAX: usize = 10;
/// Nanoseconds of a millisecond.
const NS_PER_MS: i64 = 1_000_000;

/// A time: seconds with a fraction, whole seconds, nanoseconds, or RFC 3339.
fn time_ns(text: &str) -> Option<i64> {
    if text.contains('.')
        && let Some(seconds) = seconds(text)
    {
        return Some(seconds_to_ns(seconds));
    }
    match text.parse::<i64>() {
        Ok(number) if text.len() <= SECONDS_DIGITS_MAX => number.checked_mul(NS_PER_S),
        Ok(number) => Some(number),
        Err(_) => rfc3339_ns(text),
    }
}

/// The time `name`, or `default` if it is absent.
pub fn time(params: &Params, name: &str, default: i64) -> Result<i64, TextError> {
    match params.get(name) {
        "" => Ok(default),
        text => time_ns(text).ok_or_else(|| {
            TextError::bad_request(format!("could not parse '{name}' parameter: {text:?} is no timestamp"))
        }),
    }
}

/// A duration in seconds or Prometheus' form, in nanoseconds.
fn duration_ns(text: &str) -> Option<i64> {
    if let Some(seconds) = seconds(text) {
        return Some((seconds * NS_PER_S as f64).round() as i64);
    }
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let ms = i64::try_from(parse_duration_ms(text)?).ok()?;
    ms.checked_mul(sign * NS_PER_MS)
}

fn duration(params: &Params, name: &str) -> Result<Option<i64>, TextError> {
    match params.get(name) {
        "" => Ok(None),
        text => duration_ns(text).map(Some).ok_or_else(|| {
            TextError::bad_request(format!("could not parse '{name}' parameter: {text:?} is no duration"))
        }),
    }
}

/// `start`, `end` and `since`, both ends as given, in nanoseconds.
pub fn bounds(params: &Params, now_ns: i64) -> Result<(i64, i64), TextError> {
    let end = time(params, "end", now_ns)?;
    let since = duration(params, "since")?.unwrap_or(SINCE_DEFAULT_NS);
    let start = time(params, "start", end.min(now_ns).saturating_sub(since))?;
    if end < start {
        return Err(TextError::bad_request("end timestamp must not be before or equal to start time"));
    }
    Ok((start, end))
}

/// The bounds as a range for streams: both ends inside.
pub fn range(params: &Params, now_ns: i64) -> Result<TimeRange, TextError> {
    let (start, end) = bounds(params, now_ns)?;
    Ok(TimeRange::new(start, end.saturating_add(1)))
}

/// The step of a range of `length` nanoseconds.
pub fn step(params: &Params, length: i64) -> Result<i64, TextError> {
    let step = match duration(params, "step")? {
        None => (length / STEPS_DEFAULT / NS_PER_S).max(1) * NS_PER_S,
        Some(step) if step <= 0 => {
            let message = "zero or negative query resolution step widths are not accepted. Try a positive integer";
            return Err(TextError::bad_request(message));
        }
        Some(step) => step,
    };
    if length / step > STEPS_MAX {
        return Err(TextError::bad_request(
            "exceeded maximum resolution of 11,000 points per time series. Try increasing the value of the step parameter",
        ));
    }
    Ok(step)
}

/// The parameter `interval`; 0 is off.
pub fn interval(params: &Params) -> Result<i64, TextError> {
    match duration(params, "interval")?.unwrap_or(0) {
        negative if negative < 0 => Err(TextError::bad_request("interval must be >= 0")),
        interval => Ok(interval),
    }
}

/// The parameter `limit`.
pub fn limit(params: &Params) -> Result<usize, TextError> {
    count(params, "limit", LIMIT_DEFAULT)
}

/// The parameter `name`, a positive number, or `default` if it is absent.
pub fn count(params: &Params, name: &str, default: usize) -> Result<usize, TextError> {
    match params.get(name) {
        "" => Ok(default),
        text => match text.parse::<i64>() {
            Ok(count) if count > 0 => Ok(usize::try_from(count).unwrap_or(usize::MAX)),
            Ok(_) => Err(TextError::bad_request(format!("{name} must be a positive value"))),
            Err(_) => Err(TextError::bad_request(format!("could not parse '{name}' parameter: {text:?} is no number"))),
        },
    }
}

/// The parameter `direction`.
pub fn direction(params: &Params) -> Result<Direction, TextError> {
    let text = params.get("direction");
    if text.is_empty() || text.eq_ignore_ascii_case("backward") {
        Ok(Direction::Backward)
    } else if text.eq_ignore_ascii_case("forward") {
        Ok(Direction::Forward)
    } else {
        Err(TextError::bad_request(format!("invalid direction '{text}': use forward or backward")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_767_571_200 * NS_PER_S;

    fn check<T: PartialEq + std::fmt::Debug>(
        read: impl Fn(&Params) -> Result<T, TextError>,
        cases: &[(&str, Result<T, &str>)],
    ) {
        for (text, expected) in cases {
            match (read(&Params::parse(text)), expected) {
                (Ok(value), Ok(expected)) => assert_eq!(&value, expected, "{text}"),
                (Err(error), Err(part)) => assert!(error.message.contains(part), "{text}: {}", error.message),
                (other, _) => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn times_are_told_apart_by_their_digits() {
        check(
            |params| time(params, "t", 7),
            &[
                ("", Ok(7)),
                ("t=1767571200", Ok(NOW)),
                ("t=1767571200.25", Ok(NOW + 250_000_000)),
                ("t=1767571200000000001", Ok(NOW + 1)),
                ("t=1767571200000", Ok(1_767_571_200_000)),
                ("t=2026-01-05T00:00:00.5Z", Ok(NOW + 500_000_000)),
                ("t=x", Err("could not parse 't' parameter")),
                ("t=99999999999999999999", Err("is no timestamp")),
            ],
        );
    }

    #[test]
    fn bounds_have_defaults() {
        let second = NS_PER_S;
        check(
            |params| bounds(params, NOW),
            &[
                ("", Ok((NOW - 3600 * second, NOW))),
                ("since=10m", Ok((NOW - 600 * second, NOW))),
                ("start=5&end=5", Ok((5 * second, 5 * second))),
                ("start=6&end=5", Err("end timestamp must not be before or equal to start time")),
                ("end=2767571200", Ok((NOW - 3600 * second, 2_767_571_200 * second))),
            ],
        );
    }

    #[test]
    fn steps_limits_and_directions() {
        let hour = 3600 * NS_PER_S;
        check(
            |params| step(params, hour),
            &[
                ("", Ok(14 * NS_PER_S)),
                ("step=37.5", Ok(37_500_000_000)),
                ("step=60000ms", Ok(60 * NS_PER_S)),
                ("step=0", Err("zero or negative")),
                ("step=-1m", Err("zero or negative")),
                ("step=x", Err("'step'")),
                ("step=0.1", Err("exceeded maximum resolution of 11,000 points per time series")),
            ],
        );
        check(
            limit,
            &[
                ("", Ok(100)),
                ("limit=7", Ok(7)),
                ("limit=0", Err("limit must be a positive value")),
                ("limit=-1", Err("limit must be a positive value")),
                ("limit=x", Err("'limit'")),
            ],
        );
        check(
            direction,
            &[
                ("", Ok(Direction::Backward)),
                ("direction=FORWARD", Ok(Direction::Forward)),
                ("direction=up", Err("direction")),
            ],
        );
        check(interval, &[("", Ok(0)), ("interval=1m", Ok(60 * NS_PER_S)), ("interval=-1s", Err("interval"))]);
    }
}

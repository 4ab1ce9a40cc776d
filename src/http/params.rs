//! What requests of all dialects have in common: parameters, tenant, encodings, and the grammars of times.
//!
//! Owns: reading the URL's query and a form body, RFC 3339, Go's durations. Does not own: names, defaults and error
//! texts of parameters, which differ by dialect.

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use proto::compress::Encoding;
use storage::model::tenant::Tenant;

use super::text;
use crate::app::SharedApp;

/// The largest form body: long selectors fit many times over.
const FORM_BYTES_MAX: usize = 10 << 20;
/// Nanoseconds in a second.
pub const NS_PER_S: i64 = 1_000_000_000;

/// Parameters of the URL and, for POST and PUT, of a form body; the body's come first.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// From an encoded text, such as a URL's query.
    pub fn parse(text: &str) -> Self {
        Self(url::form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// From names and values.
    pub fn of(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(pairs.into_iter().collect())
    }

    /// The first value of `name`, or "" if it is absent.
    pub fn get(&self, name: &str) -> &str {
        self.first(name).unwrap_or("")
    }

    /// The first value of `name`.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|(n, value)| (n == name).then_some(value.as_str()))
    }

    /// All values of `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

impl FromRequest<SharedApp> for Params {
    type Rejection = Response;

    async fn from_request(request: Request, _: &SharedApp) -> Result<Self, Response> {
        let (parts, body) = request.into_parts();
        let mut params = if matches!(parts.method, Method::POST | Method::PUT) && media_type(&parts.headers) == FORM {
            Self::parse(&form(body).await?)
        } else {
            Self::default()
        };
        params.0.extend(Self::parse(parts.uri.query().unwrap_or("")).0);
        Ok(params)
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

async fn form(body: Body) -> Result<String, Response> {
    let bytes = axum::body::to_bytes(body, FORM_BYTES_MAX).await.map_err(|_| {
        text(StatusCode::PAYLOAD_TOO_LARGE, format!("request body too large: a form may have {FORM_BYTES_MAX} bytes"))
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The media type of a body in lower case, without its parameters; "" if there is none.
pub fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

/// How a body is packed; the error is the unknown name.
pub fn content_encoding(headers: &HeaderMap) -> Result<Encoding, String> {
    let value = match headers.get(header::CONTENT_ENCODING) {
        None => return Ok(Encoding::Identity),
        Some(value) => value.to_str().map_err(|_| "?".to_owned())?,
    };
    Encoding::from_header(value).ok_or_else(|| value.to_owned())
}

/// Whether the answer is asked for as protobuf.
pub fn accepts_protobuf(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|value| value.to_str().is_ok_and(|v| v.contains("application/protobuf")))
}

/// Whose data a request is about.
#[derive(Clone, Debug)]
pub struct TenantId(pub Tenant);

/// The header that names the tenant.
const TENANT_HEADER: &str = "x-scope-orgid";

/// The tenant that headers name, as far as `app` separates tenants.
pub fn tenant(app: &SharedApp, header: Option<&str>) -> Result<Tenant, (StatusCode, String)> {
    if !app.config.tenancy {
        return Ok(Tenant::single());
    }
    let name = header.ok_or((StatusCode::UNAUTHORIZED, "no org id".to_owned()))?;
    Tenant::new(name).map_err(|e| (StatusCode::BAD_REQUEST, e.message().to_owned()))
}

impl FromRequestParts<SharedApp> for TenantId {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &SharedApp) -> Result<Self, Response> {
        let header = parts.headers.get(TENANT_HEADER).and_then(|value| value.to_str().ok());
        tenant(app, header).map(Self).map_err(|(status, message)| text(status, message).into_response())
    }
}

/// Reads RFC 3339 with an optional fraction, as nanoseconds since the epoch, clamped to what 64 bits hold.
pub fn rfc3339_ns(text: &str) -> Option<i64> {
    let time = chrono::DateTime::parse_from_rfc3339(text).ok()?;
    let seconds = i128::from(time.timestamp());
    let ns = seconds * i128::from(NS_PER_S) + i128::from(time.timestamp_subsec_nanos());
    Some(clamp(ns))
}

/// The nearest of the times that 64 bits of nanoseconds hold.
pub fn clamp(ns: i128) -> i64 {
    i64::try_from(ns).unwrap_or(if ns < 0 { i64::MIN } else { i64::MAX })
}

/// Reads a decimal number of seconds; neither NaN nor infinite.
pub fn seconds(text: &str) -> Option<f64> {
    // Rust also reads "inf" and "nan", which are no times.
    text.parse::<f64>().ok().filter(|seconds| seconds.is_finite())
}

/// Seconds as nanoseconds rounded to milliseconds, clamped.
pub fn seconds_to_ns(seconds: f64) -> i64 {
    // A cast from float saturates, so absurd times stay at the ends.
    let ms = (seconds * 1000.0).round() as i64;
    ms.saturating_mul(1_000_000)
}

/// Units of Go's durations in nanoseconds.
const GO_UNITS: [(&str, f64); 8] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

/// Reads a Go duration such as `1.5s`, `1h2m` or `-300ms`, in nanoseconds.
pub fn go_duration_ns(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0.0;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let (_, ns) = GO_UNITS.iter().find(|(name, _)| *name == unit)?;
        total += number.parse::<f64>().ok()? * ns;
        parts += 1;
        rest = tail;
    }
    let ns = sign * total;
    (parts > 0 && ns.abs() < i64::MAX as f64).then_some(ns.round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_may_repeat() {
        let params = Params::parse("match[]=a%7B%7D&match%5B%5D=b+c&q=&x=%FF");
        assert_eq!(params.all("match[]").collect::<Vec<_>>(), ["a{}", "b c"]);
        assert_eq!((params.first("q"), params.first("nope"), params.get("nope")), (Some(""), None, ""));
        assert_eq!(params.get("x"), "\u{fffd}");
    }

    #[test]
    fn times_of_rfc_3339() {
        assert_eq!(rfc3339_ns("2026-01-05T00:00:00Z"), Some(1_767_571_200_000_000_000));
        assert_eq!(rfc3339_ns("2026-01-05T01:00:00.5+01:00"), Some(1_767_571_200_500_000_000));
        assert_eq!(rfc3339_ns("9999-01-01T00:00:00Z"), Some(i64::MAX));
        for text in ["", "2026-01-05", "now", "2026-13-05T00:00:00Z"] {
            assert_eq!(rfc3339_ns(text), None, "{text}");
        }
    }

    #[test]
    fn absurd_seconds_are_clamped() {
        assert_eq!(seconds_to_ns(1.0004), 1_000_000_000);
        assert_eq!(seconds_to_ns(1e300), i64::MAX);
        assert_eq!(seconds_to_ns(-1e300), i64::MIN);
        assert_eq!((seconds("1e3"), seconds("inf"), seconds("NaN"), seconds("x")), (Some(1000.0), None, None, None));
    }

    #[test]
    fn durations_of_go() {
        let cases =
            [("1.5s", 1_500_000_000), ("300ms", 300_000_000), ("1h2m", 3_720_000_000_000), ("0", 0), ("-1ns", -1)];
        for (text, ns) in cases {
            assert_eq!(go_duration_ns(text), Some(ns), "{text}");
        }
        for text in ["", "5", "1d", "s", "1.2.3s", "-", "1e999h", "999999999999h"] {
            assert_eq!(go_duration_ns(text), None, "{text}");
        }
    }
}

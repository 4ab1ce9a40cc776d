//! `POST /api/v1/write`: remote write 1.0 and 2.0.
//!
//! Owns: negotiation and answers. Does not own: the messages (`proto::remote_write`).

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use proto::compress::{Encoding, decompress};
use proto::remote_write::{Written, decode_v1, decode_v2};
use storage::Table;

use crate::app::{App, SharedApp};
use crate::http::error::TextError;
use crate::http::params::{TenantId, content_encoding};
use crate::ingest::Kept;
use crate::telemetry::Protocol;

/// The media type of both versions.
const MEDIA_TYPE: &str = "application/x-protobuf";
/// The message of version 1.0.
const MESSAGE_V1: &str = "prometheus.WriteRequest";
/// The message of version 2.0.
const MESSAGE_V2: &str = "io.prometheus.write.v2.Request";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// `POST /api/v1/write`
pub async fn write(State(app): State<SharedApp>, tenant: TenantId, headers: HeaderMap, body: Body) -> Response {
    let version = match version(&headers) {
        Ok(version) => version,
        Err(message) => return TextError { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, message }.into_response(),
    };
    let (written, result) = match receive(&app, version, tenant, &headers, body).await {
        Ok((written, refused)) if refused.is_empty() => (written, Ok(())),
        Ok((written, refused)) => (written, Err(TextError::bad_request(refused))),
        Err(error) => (Written::default(), Err(error)),
    };
    let mut response = result.map(|()| StatusCode::NO_CONTENT).into_response();
    if version == Version::V2 {
        let counts =
            [("samples", written.samples), ("histograms", written.histograms), ("exemplars", written.exemplars)];
        for (what, count) in counts {
            let name = format!("x-prometheus-remote-write-{what}-written");
            if let Ok(name) = header::HeaderName::from_bytes(name.as_bytes()) {
                response.headers_mut().insert(name, HeaderValue::from(count));
            }
        }
    }
    response
}

/// Keeps what is right; gives the reasons of what is not, one a line.
async fn receive(
    app: &App,
    version: Version,
    TenantId(tenant): TenantId,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Written, String), TextError> {
    let encoding = encoding(headers)?;
    let engine = app.engine()?;
    let bytes_max = app.config.ingest.remote_write_bytes_max.bytes();
    let incoming = app.ingest.read(Protocol::RemoteWrite, body, bytes_max).await?;
    let limits = proto::Limits { future_max: Some(app.ingest.future_limit_ms()), ..proto::Limits::default() };
    let bytes = incoming.bytes;
    let decoded = app.ingest.decode(move || {
        let body = decompress(encoding, bytes, bytes_max)?;
        match version {
            Version::V1 => decode_v1(&body, &limits),
            Version::V2 => decode_v2(&body, &limits),
        }
    });
    let decoded = decoded.await?.map_err(|e| match e.kind() {
        // Too large when unpacked is a bad body for senders, not one to be cut in two.
        proto::Kind::TooLarge => TextError::bad_request(e.to_string()),
        _ => e.into(),
    })?;
    app.telemetry.rejected(Protocol::RemoteWrite, decoded.rejected.total + decoded.skipped.total);
    if !decoded.skipped.is_empty() {
        tracing::debug!(reasons = %decoded.skipped.text(), "remote write: bad series were skipped");
    }
    let kept = app.ingest.append(&engine, Protocol::RemoteWrite, &tenant, decoded.batch, incoming.held).await?;
    let mut reasons = decoded.rejected.text();
    let mut add = |count: usize, reason: &str| {
        if count > 0 {
            let line_break = if reasons.is_empty() { "" } else { "\n" };
            reasons.push_str(&format!("{line_break}{count} samples: {reason}"));
        }
    };
    add(kept.conflicts, "duplicate sample for timestamp: the series already has another value at that time");
    add(kept.too_old_rows(), "out of bounds: older than the retention of metrics");
    Ok((stored(&decoded.written, &kept), reasons))
}

/// What of the decoded was stored, for senders that count.
fn stored(decoded: &Written, kept: &Kept) -> Written {
    Written {
        samples: decoded.samples.saturating_sub(kept.lost(Table::Samples)),
        histograms: decoded.histograms.saturating_sub(kept.lost(Table::Histograms)),
        exemplars: decoded.exemplars.saturating_sub(kept.lost(Table::Exemplars)),
    }
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, TextError> {
    let refused = |name: &str| TextError {
        status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
        message: format!("content encoding `{name}` is not taken: send snappy (block format)"),
    };
    if !headers.contains_key(header::CONTENT_ENCODING) {
        return Ok(Encoding::Snappy);
    }
    match content_encoding(headers) {
        Ok(encoding @ (Encoding::Snappy | Encoding::Zstd | Encoding::Gzip)) => Ok(encoding),
        Ok(other) => Err(refused(other.name())),
        Err(name) => Err(refused(&name)),
    }
}

/// The version that the Content-Type names; the error says what is taken.
fn version(headers: &HeaderMap) -> Result<Version, String> {
    let taken = || format!("send {MEDIA_TYPE} with no proto parameter, proto={MESSAGE_V1} or proto={MESSAGE_V2}");
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(Version::V1) };
    let value = value.to_str().map_err(|_| format!("the Content-Type is not readable: {}", taken()))?;
    let mut parts = value.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or("");
    if !media_type.eq_ignore_ascii_case(MEDIA_TYPE) {
        return Err(format!("media type `{media_type}` is not taken: {}", taken()));
    }
    let mut version = Version::V1;
    for parameter in parts.filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter
            .split_once('=')
            .ok_or_else(|| format!("the Content-Type parameter `{parameter}` has no value: {}", taken()))?;
        if name.trim().eq_ignore_ascii_case("proto") {
            version = match value.trim().trim_matches('"') {
                MESSAGE_V1 => Version::V1,
                MESSAGE_V2 => Version::V2,
                other => return Err(format!("the message `{other}` is not known: {}", taken())),
            };
        }
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(content_type: &str) -> Result<Version, String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(content_type).expect("a header"));
        version(&headers)
    }

    #[test]
    fn the_content_type_decides_the_version() {
        assert_eq!(version(&HeaderMap::new()), Ok(Version::V1));
        assert_eq!(of("application/x-protobuf"), Ok(Version::V1));
        assert_eq!(of("application/x-protobuf;proto=prometheus.WriteRequest"), Ok(Version::V1));
        assert_eq!(of("Application/X-Protobuf; proto=io.prometheus.write.v2.Request"), Ok(Version::V2));
        for wrong in
            ["text/plain", "application/json", "application/x-protobuf;proto=foo.Bar", "application/x-protobuf;proto"]
        {
            assert!(of(wrong).expect_err("refused").contains("prometheus.WriteRequest"), "{wrong}");
        }
    }

    #[test]
    fn what_is_lost_is_counted_off_its_own_kind() {
        let decoded = Written { samples: 10, histograms: 5, exemplars: 3 };
        let too_old = vec![(Table::Samples, 1), (Table::Histograms, 2), (Table::Exemplars, 3)];
        let kept = Kept { conflicts: 4, too_old };
        assert_eq!(stored(&decoded, &kept), Written { samples: 5, histograms: 3, exemplars: 0 });
    }

    #[test]
    fn bodies_are_snappy_unless_they_say_otherwise() {
        let with = |name: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
            encoding(&headers).map_err(|e| e.status.as_u16())
        };
        assert_eq!(encoding(&HeaderMap::new()).ok(), Some(Encoding::Snappy));
        assert_eq!(
            (with("snappy"), with("zstd"), with("gzip")),
            (Ok(Encoding::Snappy), Ok(Encoding::Zstd), Ok(Encoding::Gzip))
        );
        assert_eq!((with("br"), with("deflate")), (Err(415), Err(415)));
    }
}

//! `POST /loki/api/v1/push`: JSON and snappy protobuf.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use proto::compress::{Encoding, decompress};
use proto::loki_push::{self, Decoded, NO_STREAMS, PushLimits};
use storage::model::time::TimestampNs;

use crate::app::SharedApp;
use crate::http::error::TextError;
use crate::http::params::{TenantId, content_encoding, media_type};
use crate::telemetry::Protocol;

/// `POST /loki/api/v1/push`
pub async fn push(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, TextError> {
    let packing = Packing::new(&headers)?;
    let engine = app.engine()?;
    let bytes_max = app.config.ingest.loki_bytes_max.bytes();
    let incoming = app.ingest.read(Protocol::LokiPush, body, bytes_max).await?;
    let (limits, now, bytes) = (app.config.push_limits(), app.clock.now(), incoming.bytes);
    let decoded = app.ingest.decode(move || packing.decode(bytes, bytes_max, &limits, now)).await??;
    if decoded.streams == 0 {
        return Err(TextError { status: StatusCode::UNPROCESSABLE_ENTITY, message: NO_STREAMS.to_owned() });
    }
    let refused = decoded.refused.groups().iter().map(|group| group.entries).sum();
    app.telemetry.rejected(Protocol::LokiPush, refused);
    app.ingest.append(&engine, Protocol::LokiPush, &tenant, decoded.batch, incoming.held).await?;
    if decoded.refused.is_empty() {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(TextError::bad_request(decoded.refused.message()))
    }
}

/// How the body is written and packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packing {
    json: bool,
    outer: Encoding,
}

impl Packing {
    fn new(headers: &HeaderMap) -> Result<Self, TextError> {
        let outer = match content_encoding(headers) {
            // A protobuf body is a snappy block anyway: saying so changes nothing.
            Ok(Encoding::Identity | Encoding::Snappy) => Encoding::Identity,
            Ok(encoding @ (Encoding::Gzip | Encoding::Deflate)) => encoding,
            _ => {
                let name = headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or("?");
                return Err(TextError::bad_request(format!("Content-Encoding {name:?} not supported")));
            }
        };
        Ok(Self { json: media_type(headers) == "application/json", outer })
    }

    fn decode(
        self,
        bytes: bytes::Bytes,
        bytes_max: usize,
        limits: &PushLimits,
        now: TimestampNs,
    ) -> Result<Decoded, TextError> {
        let unpack = |encoding, bytes| {
            decompress(encoding, bytes, bytes_max).map_err(|e| match e.kind() {
                proto::Kind::TooLarge => {
                    TextError { status: StatusCode::PAYLOAD_TOO_LARGE, message: format!("request body too large: {e}") }
                }
                _ => e.into(),
            })
        };
        let body = unpack(self.outer, bytes)?;
        if self.json {
            return Ok(loki_push::decode_json(&body, limits, now)?);
        }
        Ok(loki_push::decode_protobuf(&unpack(Encoding::Snappy, body)?, limits, now)?)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(content_type: &'static str, encoding: Option<&'static str>) -> Result<Packing, String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(encoding) = encoding {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        Packing::new(&headers).map_err(|e| e.message)
    }

    #[test]
    fn anything_but_json_is_snappy_protobuf() {
        let packing = |json, outer| Ok(Packing { json, outer });
        assert_eq!(of("application/json; charset=utf-8", None), packing(true, Encoding::Identity));
        assert_eq!(of("application/x-protobuf", Some("snappy")), packing(false, Encoding::Identity));
        assert_eq!(of("text/plain", Some("gzip")), packing(false, Encoding::Gzip));
        assert_eq!(of("application/json", Some("br")), Err("Content-Encoding \"br\" not supported".into()));
        assert_eq!(of("application/json", Some("zstd")), Err("Content-Encoding \"zstd\" not supported".into()));
    }
}

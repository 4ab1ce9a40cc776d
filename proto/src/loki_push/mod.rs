//! Loki's push protocol: JSON and protobuf bodies to a batch of entries.
//!
//! Owns: the order of decoding; the rules themselves stand in `accept`. Does not own: media types and compression
//! (`compress`, the handlers), rate limits, names that clash with labels when queried.
//!
//! Invariants
//! 1. An error means that nothing of the request may be stored; refused entries are listed in [`Decoded::refused`].
//! 2. A stream is in the batch only if one of its entries is.

mod accept;
mod json;
mod labels;
mod limits;
mod protobuf;
mod text;

use storage::model::batch::Batch;
use storage::model::time::TimestampNs;

pub(crate) use accept::{Acceptor, Pairs, Stream};
pub use json::decode_json;
pub use limits::{PushLimits, Reason, Refusal, Refusals};
pub use protobuf::decode_protobuf;

/// The answer (with status 422) to a push without streams, see [`Decoded::streams`].
pub const NO_STREAMS: &str = "error at least one valid stream is required for ingestion";

/// What a push or an export of logs holds.
#[derive(Debug)]
pub struct Decoded {
    /// The entries that are accepted, with their streams.
    pub batch: Batch,
    /// What is refused and why; not empty means status 400 although the batch is to be stored.
    pub refused: Refusals,
    /// Streams that were sent, accepted or not, those without entries included.
    pub streams: usize,
    /// Entries accepted.
    pub lines: usize,
    /// Bytes accepted: lines and structured metadata.
    pub bytes: usize,
}

/// Times an entry may have, fixed when decoding starts.
#[derive(Clone, Copy, Debug)]
struct Window {
    oldest: Option<TimestampNs>,
    newest: TimestampNs,
}

impl Window {
    fn new(limits: &PushLimits, now: TimestampNs) -> Self {
        let ns = |duration: std::time::Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        Self {
            oldest: limits.reject_old.map(|age| TimestampNs(now.0.saturating_sub(ns(age)))),
            newest: TimestampNs(now.0.saturating_add(ns(limits.reject_future))),
        }
    }
}

/// Starts a decoder's acceptor.
pub(crate) fn acceptor(limits: &PushLimits, now: TimestampNs) -> Acceptor<'_> {
    Acceptor::new(limits, Window::new(limits, now))
}

/// The most bytes of an error text: bad input is quoted in it.
const ERROR_BYTES_MAX: usize = 1024;

/// `text`, cut where a character begins.
pub(crate) fn shortened(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// An error of a JSON body.
pub(crate) fn json_error(error: &serde_json::Error) -> crate::error::Error {
    crate::error::Error::malformed(shortened(&error.to_string(), ERROR_BYTES_MAX))
}

/// An error of a stream's labels: nothing of the request is stored.
fn labels_error(fault: &str) -> crate::error::Error {
    crate::error::Error::malformed(format!("couldn't parse labels: {}", shortened(fault, ERROR_BYTES_MAX)))
}

#[cfg(test)]
mod tests;

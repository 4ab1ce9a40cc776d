//! Identities: what facts belong to. A series, a stream or a resource is a label set with a stable id.

use super::labels::Labels;

/// The stable 64-bit hash of a label set: `series_id`, `stream_id` or `resource_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityId(pub u64);

impl IdentityId {
    /// As it stands in a LONG column (Delta has no unsigned type): the same 64 bits.
    pub fn to_column(self) -> i64 {
        i64::from_ne_bytes(self.0.to_ne_bytes())
    }

    /// From a LONG column.
    pub fn from_column(value: i64) -> Self {
        Self(u64::from_ne_bytes(value.to_ne_bytes()))
    }
}

/// A series (`labels` with `__name__`), a log stream (`labels`), or an OTLP resource: there the names are
/// attribute keys and the values typed texts (see [`crate::model::value`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `labels.id()`, kept because it is asked for often.
    pub id: IdentityId,
    /// The label set.
    pub labels: Labels,
}

impl From<Labels> for Identity {
    fn from(labels: Labels) -> Self {
        Self { id: labels.id(), labels }
    }
}

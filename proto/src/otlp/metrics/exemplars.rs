//! Exemplars of OTLP points.

use opentelemetry_proto::tonic::metrics::v1::{Exemplar, exemplar::Value};
use storage::model::identity::IdentityId;

use super::{Writer, to_ms};
use crate::error::Result;
use crate::otlp::value::value_text;
use crate::remote_write::EXEMPLAR_CHARS_MAX;

/// The value, or nothing for an exemplar without one.
pub(super) fn value(exemplar: &Exemplar) -> Option<f64> {
    match exemplar.value? {
        Value::AsDouble(value) => Some(value),
        Value::AsInt(value) => Some(value as f64),
    }
}

impl Writer<'_> {
    /// Adds an exemplar to a series; one without a value says nothing. Filtered attributes are dropped as a whole
    /// when they would make the labels too long.
    pub(super) fn exemplar(&mut self, id: IdentityId, exemplar: &Exemplar) -> Result<()> {
        let Some(value) = value(exemplar) else { return Ok(()) };
        let mut labels = Vec::new();
        for (name, bytes) in [("trace_id", &exemplar.trace_id), ("span_id", &exemplar.span_id)] {
            if !bytes.is_empty() {
                labels.push((name, hex::encode(bytes).into()));
            }
        }
        let ids = labels.len();
        for pair in &exemplar.filtered_attributes {
            labels.push((pair.key.as_str(), value_text(pair.value.as_ref())));
        }
        let chars = |labels: &[(&str, std::borrow::Cow<'_, str>)]| -> usize {
            labels.iter().map(|(name, value)| name.chars().count() + value.chars().count()).sum()
        };
        if chars(&labels) > EXEMPLAR_CHARS_MAX {
            labels.truncate(ids);
        }
        if chars(&labels) > EXEMPLAR_CHARS_MAX {
            return Ok(());
        }
        self.usage.samples(1, self.limits)?;
        let pairs = labels.iter().map(|(name, value)| (*name, &**value));
        Ok(self.builder.exemplar(id, to_ms(exemplar.time_unix_nano), value, pairs)?)
    }
}

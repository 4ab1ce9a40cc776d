//! Builds a batch of log entries.
//!
//! Owns: the columns while they grow.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringBuilder};

use super::{Batch, IdentitySet, LinkedMap};
use crate::error::Result;
use crate::model::identity::IdentityId;
use crate::model::labels::Labels;
use crate::model::time::TimestampNs;
use crate::signal::{Signal, Table};

/// The structured-metadata name that stands in the column `severity`.
pub const DETECTED_LEVEL: &str = "detected_level";

/// Collects streams and their entries.
pub struct LogsBuilder {
    streams: IdentitySet,
    stream: Vec<i64>,
    ts: Vec<i64>,
    line: StringBuilder,
    severity: StringBuilder,
    metadata: LinkedMap,
}

impl Default for LogsBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl LogsBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self {
            streams: IdentitySet::default(),
            stream: Vec::new(),
            ts: Vec::new(),
            line: StringBuilder::new(),
            severity: StringBuilder::new(),
            metadata: LinkedMap::new(),
        }
    }

    /// Names a stream; the same labels give the same id.
    pub fn stream(&mut self, labels: Labels) -> IdentityId {
        self.streams.add(labels)
    }

    /// Adds an entry with its structured metadata (`detected_level` among it); names must be unique.
    pub fn entry<'a>(
        &mut self,
        stream: IdentityId,
        ts: TimestampNs,
        line: &str,
        metadata: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<()> {
        self.stream.push(stream.to_column());
        self.ts.push(ts.0);
        self.line.append_value(line);
        let mut severity = None;
        self.metadata.append(metadata.filter(|(name, value)| {
            let level = *name == DETECTED_LEVEL;
            if level {
                severity = Some(*value);
            }
            !level
        }))?;
        self.severity.append_option(severity);
        Ok(())
    }

    /// Entries so far.
    pub fn entries(&self) -> usize {
        self.ts.len()
    }

    /// The batch.
    pub fn finish(mut self) -> Result<Batch> {
        let mut facts = Vec::new();
        if !self.ts.is_empty() {
            let mut columns: Vec<ArrayRef> = vec![
                Arc::new(Int64Array::from(self.stream)),
                Arc::new(Int64Array::from(self.ts)),
                Arc::new(self.line.finish()),
                Arc::new(self.severity.finish()),
            ];
            columns.extend(self.metadata.finish());
            facts.push((Table::Logs, RecordBatch::try_new((Table::Logs.spec().schema)(), columns)?));
        }
        Ok(Batch { signal: Signal::Logs, identities: self.streams.list, facts })
    }
}

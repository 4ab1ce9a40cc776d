//! Batches: the identities and facts of one request, on their way in.
//!
//! Owns: [`Batch`] and the three builders that decoders fill. Does not own: validation of what the protocols
//! allow (crate `proto`, `ingest`), the WAL's form of a batch (`wal`).
//!
//! Invariants
//! 1. Every identity that a fact names is in `identities`, once.
//! 2. Each table stands at most once in `facts`, with at least one row, in the schema of its [`Table`].

mod logs;
mod metrics;
mod traces;

use arrow::array::{ArrayRef, BinaryBuilder, BooleanArray, MapBuilder, MapFieldNames, RecordBatch, StringBuilder};
use arrow::compute::filter_record_batch;
use hashbrown::{HashMap, HashSet};

use crate::error::Result;
use crate::model::columns::longs;
use crate::model::identity::{Identity, IdentityId};
use crate::model::labels::Labels;
use crate::model::time::{NS_PER_MS, TimeRange};
use crate::signal::{Signal, Table, TimeUnit};

pub use logs::{DETECTED_LEVEL, LogsBuilder};
pub use metrics::MetricsBuilder;
pub use traces::{SERVICE_NAME, TracesBuilder};

/// The identities and facts of one request.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The signal all of it belongs to.
    pub signal: Signal,
    /// What the facts belong to.
    pub identities: Vec<Identity>,
    /// Rows by table.
    pub facts: Vec<(Table, RecordBatch)>,
}

impl Batch {
    /// Rows of all tables.
    pub fn rows(&self) -> usize {
        self.facts.iter().map(|(_, rows)| rows.num_rows()).sum()
    }

    /// Bytes its rows take in memory.
    pub fn bytes(&self) -> usize {
        self.facts.iter().map(|(_, rows)| rows.get_array_memory_size()).sum()
    }

    /// Whether there is nothing to keep.
    pub fn is_empty(&self) -> bool {
        self.facts.is_empty()
    }

    /// The rows whose time is in `range`, and how many were left out; rows without time stay, and so do only the
    /// identities that rows still name.
    pub fn keep_in(self, range: TimeRange) -> Result<(Self, usize)> {
        let before = self.rows();
        let mut facts = Vec::with_capacity(self.facts.len());
        let mut named: HashSet<i64, ahash::RandomState> = HashSet::default();
        for (table, rows) in self.facts {
            let spec = table.spec();
            let rows = match spec.time {
                Some((column, unit)) => {
                    let factor = if unit == TimeUnit::Ms { NS_PER_MS } else { 1 };
                    let times = longs(&rows, column)?.values();
                    let inside = times.iter().map(|time| range.contains(time.saturating_mul(factor)));
                    filter_record_batch(&rows, &BooleanArray::from_iter(inside.map(Some)))?
                }
                None => rows,
            };
            if let Some(column) = spec.identity {
                named.extend(longs(&rows, column)?.values());
            }
            if rows.num_rows() > 0 {
                facts.push((table, rows));
            }
        }
        let mut identities = self.identities;
        identities.retain(|identity| named.contains(&identity.id.to_column()));
        let kept = Self { signal: self.signal, identities, facts };
        let dropped = before - kept.rows();
        Ok((kept, dropped))
    }

    /// The rows of `table`, if any.
    pub fn table(&self, table: Table) -> Option<&RecordBatch> {
        self.facts.iter().find_map(|(t, rows)| (*t == table).then_some(rows))
    }
}

/// Collects identities, each once.
#[derive(Debug, Default)]
struct IdentitySet {
    list: Vec<Identity>,
    known: HashMap<IdentityId, (), ahash::RandomState>,
}

impl IdentitySet {
    fn add(&mut self, labels: Labels) -> IdentityId {
        let identity = Identity::from(labels);
        let id = identity.id;
        if self.known.insert(id, ()).is_none() {
            self.list.push(identity);
        }
        id
    }
}

/// A builder of text maps as the tables spell them.
pub(crate) type TextMapBuilder = MapBuilder<StringBuilder, StringBuilder>;

pub(crate) fn text_map_builder() -> TextMapBuilder {
    let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
    MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
}

/// Appends one row.
pub(crate) fn append_map<'a>(map: &mut TextMapBuilder, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<()> {
    for (key, value) in pairs {
        map.keys().append_value(key);
        map.values().append_value(value);
    }
    map.append(true)?;
    Ok(())
}

/// The bytes of `text` if it is exactly `N` bytes in lower-case hex: then a column of bytes gives the text back.
fn exact_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower = text.len() == 2 * N && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let mut bytes = [0; N];
    (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

/// `trace_id`, `span_id` and a map for the rest, filled from pairs of text: exemplar labels and structured
/// metadata share this form.
struct LinkedMap {
    trace_id: BinaryBuilder,
    span_id: BinaryBuilder,
    rest: TextMapBuilder,
}

impl LinkedMap {
    fn new() -> Self {
        Self { trace_id: BinaryBuilder::new(), span_id: BinaryBuilder::new(), rest: text_map_builder() }
    }

    fn append<'a>(&mut self, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<()> {
        let (mut trace, mut span) = (None, None);
        for (name, value) in pairs {
            match name {
                "trace_id" if trace.is_none() => trace = exact_hex::<16>(value),
                "span_id" if span.is_none() => span = exact_hex::<8>(value),
                _ => {}
            }
            let in_column = (name == "trace_id" && trace.is_some_and(|id| hex::encode(id) == value))
                || (name == "span_id" && span.is_some_and(|id| hex::encode(id) == value));
            if !in_column {
                self.rest.keys().append_value(name);
                self.rest.values().append_value(value);
            }
        }
        self.trace_id.append_option(trace);
        self.span_id.append_option(span);
        self.rest.append(true)?;
        Ok(())
    }

    fn finish(&mut self) -> [ArrayRef; 3] {
        [
            std::sync::Arc::new(self.trace_id.finish()),
            std::sync::Arc::new(self.span_id.finish()),
            std::sync::Arc::new(self.rest.finish()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::TimestampMs;

    #[test]
    fn rows_out_of_a_range_leave_with_their_identities() {
        let mut builder = MetricsBuilder::new();
        let [old, new] = ["old", "new"].map(|name| builder.series(Labels::from_pairs([("__name__", name)])));
        builder.sample(old, TimestampMs(1), 1.0, None);
        builder.sample(new, TimestampMs(2), 1.0, None);
        builder.metadata("old", "gauge", "", "");
        let batch = builder.finish().expect("builds");
        let (kept, dropped) = batch.keep_in(TimeRange::new(2 * NS_PER_MS, i64::MAX)).expect("filters");
        assert_eq!((kept.rows(), dropped), (2, 1));
        assert_eq!(kept.identities.iter().map(|series| series.id).collect::<Vec<_>>(), [new]);
        assert!(kept.table(Table::MetricMetadata).is_some());
    }
}

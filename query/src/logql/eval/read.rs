//! Reading entries: streams by matchers, batches by scan, rows by line filters, then one entry at a time through the
//! pipeline.
//!
//! Owns: the only loop over stored entries. Does not own: what becomes of an entry ([`Visitor`]).

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use futures::StreamExt;
use hashbrown::HashMap;
use storage::model::batch::DETECTED_LEVEL;
use storage::model::columns::EntryColumns;
use storage::model::identity::IdentityId;
use storage::model::padding::Padding;
use storage::model::time::TimeRange;
use storage::scan::ScanRequest;
use storage::signal::{Signal, Table};
use storage::{Context, Scan};

use super::labels::{LabelSet, Needs, base_name};
use super::pipeline::Row;
use crate::error::Result;
use crate::logql::plan::LogPlan;

/// How many entries pass between two looks at the deadline.
const CHECK_EVERY: usize = 1024;

/// What a query looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Lines.
    pub lines_read: u64,
    /// Their bytes.
    pub bytes_read: u64,
    /// Bytes of structured metadata that was read.
    pub metadata_bytes_read: u64,
    /// Lines that passed all stages.
    pub lines_passed: u64,
}

/// What becomes of the entries that a plan keeps.
pub trait Visitor: Send {
    /// Whether an entry of this time can matter; asked before any stage runs.
    fn wants(&self, ts_ns: i64) -> bool;

    /// An entry that passed all stages.
    fn entry(&mut self, row: &mut Row<'_>) -> Result<()>;

    /// Called after each batch: the place to account for memory.
    fn batch_done(&mut self) -> Result<()>;
}

/// The streams of a plan, resolved once.
pub struct Source<'q> {
    scan: &'q dyn Scan,
    plan: &'q LogPlan,
    context: &'q Context,
    ids: Arc<Vec<IdentityId>>,
    streams: HashMap<i64, Vec<(String, String)>, ahash::RandomState>,
}

impl<'q> Source<'q> {
    /// Finds the streams that have entries in `range`.
    pub async fn open(
        scan: &'q dyn Scan,
        plan: &'q LogPlan,
        range: TimeRange,
        context: &'q Context,
    ) -> Result<Source<'q>> {
        let selectors = [plan.matchers.clone()];
        let identities = match range.is_empty() {
            true => Vec::new(),
            false => scan.identities(Signal::Logs, &selectors, range, context).await?,
        };
        let mut streams = HashMap::with_capacity_and_hasher(identities.len(), ahash::RandomState::default());
        let mut ids = Vec::with_capacity(identities.len());
        for identity in identities {
            let labels = identity.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            streams.insert(identity.id.to_column(), labels);
            ids.push(identity.id);
        }
        Ok(Self { scan, plan, context, ids: Arc::new(ids), streams })
    }

    /// Shows `visitor` every entry of `range` that the plan keeps, stream by stream, ascending by time within.
    pub async fn visit(&self, range: TimeRange, visitor: &mut impl Visitor, cost: &mut Cost) -> Result<()> {
        if self.ids.is_empty() || range.is_empty() {
            return Ok(());
        }
        let request = ScanRequest {
            identities: Some(Arc::clone(&self.ids)),
            columns: Some(self.columns()),
            narrow: self.plan.hints.conjuncts(&|name| self.in_some_stream(name)),
            ..ScanRequest::all(Table::Logs, range)
        };
        let mut batches = self.scan.scan(request, self.context).await?;
        let mut padding = Padding::new(Table::Logs);
        while let Some(batch) = batches.next().await {
            self.context.check()?;
            self.batch(&padding.pad(&batch?)?, visitor, cost)?;
            visitor.batch_done()?;
        }
        Ok(())
    }

    /// The columns that anything reads.
    fn columns(&self) -> Arc<[&'static str]> {
        let mut columns = Vec::new();
        columns.extend(self.plan.reads_line.then_some("line"));
        if self.may_show(DETECTED_LEVEL) {
            columns.push("severity");
        }
        // What is no id stands in the map under the same name.
        for id in ["trace_id", "span_id"] {
            columns.extend(self.may_show(id).then_some(id));
        }
        let beside = |name: &str| name != DETECTED_LEVEL && self.may_show(name);
        let any = match &self.plan.needs {
            Needs::All => true,
            Needs::Names(names) => names.iter().any(|name| beside(name) || base_name(name).is_some_and(beside)),
        };
        columns.extend(any.then_some("metadata"));
        columns.into()
    }

    /// Whether structured metadata of this name can be seen, under its own name or, where the stream has it, another.
    fn may_show(&self, name: &str) -> bool {
        let Needs::Names(needed) = &self.plan.needs else { return true };
        let in_stream = |labels: &Vec<(String, String)>| labels.iter().any(|(label, _)| label == name);
        let renamed = || needed.iter().any(|other| base_name(other) == Some(name));
        (needed.contains(name) && !self.streams.values().all(in_stream)) || (renamed() && self.in_some_stream(name))
    }

    fn in_some_stream(&self, name: &str) -> bool {
        self.streams.values().any(|labels| labels.iter().any(|(label, _)| label == name))
    }

    fn batch(&self, batch: &RecordBatch, visitor: &mut impl Visitor, cost: &mut Cost) -> Result<()> {
        let columns = EntryColumns::new(batch)?;
        let offsets = columns.line.value_offsets();
        let line_bytes = offsets.last().zip(offsets.first()).map_or(0, |(last, first)| last - first);
        cost.lines_read += columns.line.len() as u64;
        cost.bytes_read += u64::try_from(line_bytes).unwrap_or(0);
        let mut row = Row { ts_ns: 0, line: Cow::Borrowed(""), labels: LabelSet::new(&[], &self.plan.needs) };
        let mut known: Option<(i64, &[(String, String)])> = None;
        for (i, at) in self.plan.pipeline.select(columns.line).into_iter().enumerate() {
            if i % CHECK_EVERY == CHECK_EVERY - 1 {
                self.context.check()?;
            }
            let at = at as usize;
            row.ts_ns = columns.ts_ns.value(at);
            if !visitor.wants(row.ts_ns) {
                continue;
            }
            let id = columns.stream_id.value(at);
            let stream = match known {
                Some((same, labels)) if same == id => labels,
                _ => self.streams.get(&id).map_or(&[][..], Vec::as_slice),
            };
            known = Some((id, stream));
            row.labels.reset(stream);
            row.line = Cow::Borrowed(columns.line.value(at));
            cost.metadata_bytes_read += add_metadata(&mut row.labels, &columns, at);
            if self.plan.pipeline.run(&mut row) {
                cost.lines_passed += 1;
                visitor.entry(&mut row)?;
            }
        }
        Ok(())
    }
}

/// Adds the structured metadata of one stored row and gives its bytes.
fn add_metadata<'a>(labels: &mut LabelSet<'a>, columns: &EntryColumns<'a>, at: usize) -> u64 {
    if labels.needs_nothing() {
        return 0;
    }
    let mut bytes = 0;
    for (name, value) in columns.metadata.pairs(at) {
        bytes += name.len() + value.len();
        labels.add_metadata(name, Cow::Borrowed(value));
    }
    for (name, ids) in [("trace_id", columns.trace_id), ("span_id", columns.span_id)] {
        if ids.is_valid(at) {
            let text = hex::encode(ids.value(at));
            bytes += name.len() + text.len();
            labels.add_metadata(name, Cow::Owned(text));
        }
    }
    if columns.severity.is_valid(at) {
        let (name, value) = ("detected_level", columns.severity.value(at));
        bytes += name.len() + value.len();
        labels.add_metadata(name, Cow::Borrowed(value));
    }
    bytes as u64
}

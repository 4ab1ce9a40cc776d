//! The one way out of the storage: what a reader asks for and what it may rely on.
//!
//! Owns: [`Scan`] and its requests. Does not own: how heads and blocks answer (`engine`, `scan::read`,
//! `scan::merge`).

mod conjunct;
pub(crate) mod distinct;
pub mod memory;
pub mod merge;
mod narrow;
pub(crate) mod open;
pub(crate) mod prune;
pub mod read;
pub(crate) mod repeats;
pub(crate) mod rows;
mod sort;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::context::Context;
use crate::error::Result;
use crate::model::identity::{Identity, IdentityId};
use crate::model::matcher::Matcher;
use crate::model::span::TraceId;
use crate::model::time::TimeRange;
use crate::signal::{Signal, SortBy, Table};

pub use conjunct::Conjunct;
pub use distinct::{Distinct, DistinctRequest, Wanted};

/// Batches of one scan, in the order of the table's sort, each row once.
pub type BatchStream = BoxStream<'static, Result<RecordBatch>>;

/// Which rows of a table of facts are wanted. All parts are exact: no other row is returned.
#[derive(Clone, Debug)]
pub struct ScanRequest {
    /// A table of facts, or `MetricMetadata`.
    pub table: Table,
    /// Rows whose time is inside; ignored for tables without time.
    pub range: TimeRange,
    /// Only rows of these identities, **and the order of the answer**: rows come grouped by identity in the order
    /// of this list, by time within. `None`: all identities, in an order of the storage's choice (still grouped).
    /// Ignored for `Spans`, which are grouped by trace, traces in bytewise order of their ids, by time within.
    /// A list is always in label order (`Labels: Ord`) and a subset of what [`Scan::identities`] returned. Blocks
    /// are written in label order too, so the order of rows in a block is the order of the request.
    pub identities: Option<Arc<Vec<IdentityId>>>,
    /// Only spans of these traces.
    pub traces: Option<Arc<Vec<TraceId>>>,
    /// The columns of the answer, by name, in the table's order; `None`: all. The columns of identity (or trace) and
    /// time come always. A row is the same row whichever of its columns are asked for: what makes it a repeat of
    /// another does not depend on them.
    pub columns: Option<Arc<[&'static str]>>,
    /// What the asker will test of each row, all of it: rows that fail may be left out, and may as well come. It
    /// narrows what is read; whoever asks tests the rows again.
    pub narrow: Vec<Conjunct>,
}

impl ScanRequest {
    /// All rows of `table` in `range`.
    pub fn all(table: Table, range: TimeRange) -> Self {
        Self { table, range, identities: None, traces: None, columns: None, narrow: Vec::new() }
    }

    /// The places of the wanted columns in the table's schema; `None`: all of them.
    pub fn projection(&self) -> Option<Vec<usize>> {
        let spec = self.table.spec();
        let columns = self.columns.as_ref()?;
        let group = match spec.sort_by {
            SortBy::Trace => Some("trace_id"),
            _ => spec.identity,
        };
        let always = [group, spec.time.map(|(name, _)| name)];
        let wanted = |name: &str| columns.contains(&name) || always.contains(&Some(name));
        let fields = (spec.schema)().fields().clone();
        Some(fields.iter().enumerate().filter(|(_, field)| wanted(field.name())).map(|(at, _)| at).collect())
    }

    /// The schema of the answer.
    pub fn schema(&self) -> Result<SchemaRef> {
        let schema = (self.table.spec().schema)();
        Ok(match self.projection() {
            Some(places) => Arc::new(schema.project(&places)?),
            None => schema,
        })
    }
}

/// The door to stored data. Implemented by the engine, and by a list of batches in tests.
pub trait Scan: Send + Sync {
    /// Streams the rows of `request`, in the table's sort order, each once, in the request's schema.
    /// - The set of rows is fixed when the future resolves; later appends are not seen, earlier ones are.
    /// - Rows of one identity (or trace) may be cut into several batches, but stay consecutive.
    /// - Dropping the stream cancels its I/O and gives its memory back.
    fn scan<'a>(&'a self, request: ScanRequest, context: &'a Context) -> BoxFuture<'a, Result<BatchStream>>;

    /// The identities of `signal` that have facts in `range` and pass at least one of `selectors` (each an AND of
    /// matchers; no selector at all means every identity), each once, sorted by labels. May return an identity
    /// whose facts lie outside the range by less than a day.
    fn identities<'a>(
        &'a self,
        signal: Signal,
        selectors: &'a [Vec<Matcher>],
        range: TimeRange,
        context: &'a Context,
    ) -> BoxFuture<'a, Result<Vec<Identity>>>;

    /// The distinct texts of `request`, without reading rows. What lies outside of its range by less than the span of a
    /// block or a head may come as well. Not complete when there are more than dictionaries keep: then whoever wants all
    /// scans the rows.
    fn distinct<'a>(&'a self, request: DistinctRequest, context: &'a Context) -> BoxFuture<'a, Result<Distinct>>;
}

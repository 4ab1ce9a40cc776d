//! The three signals as values: which tables they have, of which columns, in which order.
//!
//! Owns: [`Signal`], [`Table`] and [`TableSpec`]. `match` on a signal stands in this folder only.
//!
//! Two schemas per table: `schema` is what batches look like in memory (WAL, head, scan results); the files
//! hold the same columns, except that `samples` may store decimals as integers (see [`metrics`]).
//! Delta knows neither unsigned nor nanosecond types: ids and times are LONG, trace and span ids BINARY.

pub mod logs;
pub mod metrics;
pub mod traces;

use arrow::datatypes::SchemaRef;

/// One of the three kinds of telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// Series and samples.
    Metrics,
    /// Streams and entries.
    Logs,
    /// Resources and spans.
    Traces,
}

impl Signal {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Metrics, Self::Logs, Self::Traces];

    /// `metrics`, `logs` or `traces`.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// What is to be known about it.
    pub fn spec(self) -> &'static SignalSpec {
        match self {
            Self::Metrics => &metrics::METRICS,
            Self::Logs => &logs::LOGS,
            Self::Traces => &traces::TRACES,
        }
    }
}

/// What is to be known about a signal.
#[derive(Debug)]
pub struct SignalSpec {
    /// `metrics`, `logs` or `traces`.
    pub name: &'static str,
    /// The table of identities.
    pub identities: Table,
    /// The tables of facts in the order of commit; the last one is the main one, whose commit makes a flush
    /// complete, and its `txn` mark stands for all of them.
    pub facts: &'static [Table],
}

impl SignalSpec {
    /// The table that every flush commits last.
    pub fn main(&self) -> Table {
        self.facts[self.facts.len() - 1]
    }
}

/// One of the nine tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Identities of samples.
    Series,
    /// Float samples.
    Samples,
    /// Native-histogram samples.
    Histograms,
    /// Exemplars.
    Exemplars,
    /// Type, unit and help of metric families.
    MetricMetadata,
    /// Identities of entries.
    Streams,
    /// Log entries.
    Logs,
    /// Identities of spans.
    Resources,
    /// Spans.
    Spans,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 9] = [
        Self::Series,
        Self::Samples,
        Self::Histograms,
        Self::Exemplars,
        Self::MetricMetadata,
        Self::Streams,
        Self::Logs,
        Self::Resources,
        Self::Spans,
    ];

    /// What is to be known about it.
    pub fn spec(self) -> &'static TableSpec {
        match self {
            Self::Series => &metrics::SERIES,
            Self::Samples => &metrics::SAMPLES,
            Self::Histograms => &metrics::HISTOGRAMS,
            Self::Exemplars => &metrics::EXEMPLARS,
            Self::MetricMetadata => &metrics::METRIC_METADATA,
            Self::Streams => &logs::STREAMS,
            Self::Logs => &logs::ENTRIES,
            Self::Resources => &traces::RESOURCES,
            Self::Spans => &traces::SPANS,
        }
    }

    /// The folder's name.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// The signal it belongs to.
    pub fn signal(self) -> Signal {
        self.spec().signal
    }
}

/// What a time column counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Milliseconds.
    Ms,
    /// Nanoseconds.
    Ns,
}

/// The columns that sort a table's rows after its identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortBy {
    /// Rows of one identity are neighbours, identities in order of their labels, then by time.
    /// Identity tables have one row per identity and no time.
    Identity,
    /// By trace id, then by time.
    Trace,
    /// By the columns of `unique_by`, as text.
    Text,
}

/// What is to be known about a table.
#[derive(Debug)]
pub struct TableSpec {
    /// Name and folder.
    pub name: &'static str,
    /// The signal it belongs to.
    pub signal: Signal,
    /// The columns in memory; the partition column `date` is not among them.
    pub schema: fn() -> SchemaRef,
    /// The column that names the identity, if rows belong to one.
    pub identity: Option<&'static str>,
    /// The column of time and its unit; `None` for identities and metadata.
    pub time: Option<(&'static str, TimeUnit)>,
    /// Order of rows in a file and in a scan.
    pub sort_by: SortBy,
    /// Rows equal in these columns count once; the first that arrived stays.
    pub unique_by: &'static [&'static str],
}

//! Logs as tables: `streams` and `logs`.
//!
//! Owns: their columns in memory.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::metrics::text_map;
use super::{Signal, SignalSpec, SortBy, Table, TableSpec, TimeUnit};

/// The signal.
pub const LOGS: SignalSpec = SignalSpec { name: "logs", identities: Table::Streams, facts: &[Table::Logs] };

/// One log stream active on a date: `stream_id`, `labels`.
pub const STREAMS: TableSpec = TableSpec {
    name: "streams",
    signal: Signal::Logs,
    schema: streams_schema,
    identity: Some("stream_id"),
    time: None,
    sort_by: SortBy::Identity,
    unique_by: &["stream_id"],
};

/// One entry. Structured metadata stands in `metadata`, except: `detected_level` in `severity`, a `trace_id` of
/// 32 and a `span_id` of 16 lower-case hex digits as bytes in their own columns.
pub const ENTRIES: TableSpec = TableSpec {
    name: "logs",
    signal: Signal::Logs,
    schema: entries_schema,
    identity: Some("stream_id"),
    time: Some(("ts_ns", TimeUnit::Ns)),
    sort_by: SortBy::Identity,
    unique_by: &["stream_id", "ts_ns", "line", "severity", "trace_id", "span_id", "metadata"],
};

fn streams_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![Field::new("stream_id", DataType::Int64, false), text_map("labels")]))
    });
    Arc::clone(&SCHEMA)
}

fn entries_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new("stream_id", DataType::Int64, false),
            Field::new("ts_ns", DataType::Int64, false),
            Field::new("line", DataType::Utf8, false),
            Field::new("severity", DataType::Utf8, true),
            Field::new("trace_id", DataType::Binary, true),
            Field::new("span_id", DataType::Binary, true),
            text_map("metadata"),
        ]))
    });
    Arc::clone(&SCHEMA)
}

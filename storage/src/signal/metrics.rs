//! Metrics as tables: `series`, `samples`, `histograms`, `exemplars`, `metric_metadata`.
//!
//! Owns: their columns in memory. Does not own: how a file packs the values of samples (`table::decimal`).

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::{Signal, SignalSpec, SortBy, Table, TableSpec, TimeUnit};

/// The signal.
pub const METRICS: SignalSpec = SignalSpec {
    name: "metrics",
    identities: Table::Series,
    facts: &[Table::MetricMetadata, Table::Exemplars, Table::Histograms, Table::Samples],
};

/// One series active on a date: `series_id`, `metric`, `labels` (all labels, `__name__` too).
pub const SERIES: TableSpec = TableSpec {
    name: "series",
    signal: Signal::Metrics,
    schema: series_schema,
    identity: Some("series_id"),
    time: None,
    sort_by: SortBy::Identity,
    unique_by: &["series_id"],
};

/// One float sample. `start_ts_ms` is the start (created) time, null when unknown.
pub const SAMPLES: TableSpec = TableSpec {
    name: "samples",
    signal: Signal::Metrics,
    schema: samples_schema,
    identity: Some("series_id"),
    time: Some(("ts_ms", TimeUnit::Ms)),
    sort_by: SortBy::Identity,
    unique_by: &["series_id", "ts_ms"],
};

/// One native-histogram sample; spans are flat lists of offset, length, offset, length, …
pub const HISTOGRAMS: TableSpec = TableSpec {
    name: "histograms",
    signal: Signal::Metrics,
    schema: histograms_schema,
    identity: Some("series_id"),
    time: Some(("ts_ms", TimeUnit::Ms)),
    sort_by: SortBy::Identity,
    unique_by: &["series_id", "ts_ms"],
};

/// One exemplar. A label `trace_id` of 32 lower-case hex digits and a label `span_id` of 16 stand in their own
/// columns and not in `labels`.
pub const EXEMPLARS: TableSpec = TableSpec {
    name: "exemplars",
    signal: Signal::Metrics,
    schema: exemplars_schema,
    identity: Some("series_id"),
    time: Some(("ts_ms", TimeUnit::Ms)),
    sort_by: SortBy::Identity,
    unique_by: &["series_id", "ts_ms", "value", "trace_id", "span_id", "labels"],
};

/// One metric family: `type` is Prometheus' word (`counter`, `gauge`, …, `unknown`).
pub const METRIC_METADATA: TableSpec = TableSpec {
    name: "metric_metadata",
    signal: Signal::Metrics,
    schema: metric_metadata_schema,
    identity: None,
    time: None,
    sort_by: SortBy::Text,
    unique_by: &["metric", "type", "unit", "help"],
};

/// A map of text to text, as every table spells it.
pub(super) fn text_map(name: &str) -> Field {
    let entries = Field::new(
        "key_value",
        DataType::Struct(
            vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)].into(),
        ),
        false,
    );
    Field::new(name, DataType::Map(Arc::new(entries), false), false)
}

fn list(name: &str, item: DataType) -> Field {
    Field::new(name, DataType::List(Arc::new(Field::new("element", item, true))), false)
}

fn series_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new("series_id", DataType::Int64, false),
            Field::new("metric", DataType::Utf8, false),
            text_map("labels"),
        ]))
    });
    Arc::clone(&SCHEMA)
}

fn samples_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new("series_id", DataType::Int64, false),
            Field::new("ts_ms", DataType::Int64, false),
            Field::new("start_ts_ms", DataType::Int64, true),
            Field::new("value", DataType::Float64, false),
        ]))
    });
    Arc::clone(&SCHEMA)
}

fn histograms_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new("series_id", DataType::Int64, false),
            Field::new("ts_ms", DataType::Int64, false),
            Field::new("start_ts_ms", DataType::Int64, true),
            Field::new("schema", DataType::Int32, false),
            Field::new("count", DataType::Float64, false),
            Field::new("sum", DataType::Float64, false),
            Field::new("zero_threshold", DataType::Float64, false),
            Field::new("zero_count", DataType::Float64, false),
            list("positive_spans", DataType::Int32),
            list("positive_buckets", DataType::Float64),
            list("negative_spans", DataType::Int32),
            list("negative_buckets", DataType::Float64),
            list("custom_values", DataType::Float64),
            Field::new("reset_hint", DataType::Int32, false),
            Field::new("float", DataType::Boolean, false),
        ]))
    });
    Arc::clone(&SCHEMA)
}

fn exemplars_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new("series_id", DataType::Int64, false),
            Field::new("ts_ms", DataType::Int64, false),
            Field::new("value", DataType::Float64, false),
            Field::new("trace_id", DataType::Binary, true),
            Field::new("span_id", DataType::Binary, true),
            text_map("labels"),
        ]))
    });
    Arc::clone(&SCHEMA)
}

fn metric_metadata_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new("metric", DataType::Utf8, false),
            Field::new("type", DataType::Utf8, false),
            Field::new("unit", DataType::Utf8, false),
            Field::new("help", DataType::Utf8, false),
        ]))
    });
    Arc::clone(&SCHEMA)
}

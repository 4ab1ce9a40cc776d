//! Traces as tables: `resources` and `spans`.
//!
//! Owns: their columns in memory. Attribute values are typed texts (see [`crate::model::value`]).

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::metrics::text_map;
use super::{Signal, SignalSpec, SortBy, Table, TableSpec, TimeUnit};

/// The signal.
pub const TRACES: SignalSpec = SignalSpec { name: "traces", identities: Table::Resources, facts: &[Table::Spans] };

/// One OTLP resource active on a date: `resource_id`, `service_name` ("" if it has none), `attributes`.
pub const RESOURCES: TableSpec = TableSpec {
    name: "resources",
    signal: Signal::Traces,
    schema: resources_schema,
    identity: Some("resource_id"),
    time: None,
    sort_by: SortBy::Identity,
    unique_by: &["resource_id"],
};

/// One span; columns as in [`crate::model::span::Span`], rare ones null when empty.
pub const SPANS: TableSpec = TableSpec {
    name: "spans",
    signal: Signal::Traces,
    schema: spans_schema,
    identity: Some("resource_id"),
    time: Some(("start_ns", TimeUnit::Ns)),
    sort_by: SortBy::Trace,
    unique_by: &["trace_id", "span_id", "kind", "start_ns"],
};

fn resources_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new("resource_id", DataType::Int64, false),
            Field::new("service_name", DataType::Utf8, false),
            text_map("attributes"),
        ]))
    });
    Arc::clone(&SCHEMA)
}

/// The fields of one event, in column order.
pub(crate) fn event_fields() -> Vec<Field> {
    vec![
        Field::new("ts_ns", DataType::Int64, false),
        Field::new("name", DataType::Utf8, false),
        text_map("attributes"),
        Field::new("dropped_attributes_count", DataType::Int32, true),
    ]
}

/// The fields of one link, in column order.
pub(crate) fn link_fields() -> Vec<Field> {
    vec![
        Field::new("trace_id", DataType::Binary, false),
        Field::new("span_id", DataType::Binary, false),
        Field::new("trace_state", DataType::Utf8, true),
        text_map("attributes"),
        Field::new("dropped_attributes_count", DataType::Int32, true),
        Field::new("flags", DataType::Int64, true),
    ]
}

fn list_of(name: &str, fields: Vec<Field>) -> Field {
    let element = Field::new("element", DataType::Struct(fields.into()), true);
    Field::new(name, DataType::List(Arc::new(element)), true)
}

fn spans_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new("trace_id", DataType::Binary, false),
            Field::new("span_id", DataType::Binary, false),
            Field::new("parent_span_id", DataType::Binary, true),
            Field::new("resource_id", DataType::Int64, false),
            Field::new("service_name", DataType::Utf8, false),
            Field::new("name", DataType::Utf8, false),
            Field::new("kind", DataType::Int32, false),
            Field::new("start_ns", DataType::Int64, false),
            Field::new("duration_ns", DataType::Int64, false),
            Field::new("status_code", DataType::Int32, false),
            Field::new("status_message", DataType::Utf8, true),
            text_map("attributes"),
            list_of("events", event_fields()),
            list_of("links", link_fields()),
            Field::new("scope_name", DataType::Utf8, true),
            Field::new("scope_version", DataType::Utf8, true),
            text_map("scope_attributes"),
            Field::new("scope_schema_url", DataType::Utf8, true),
            Field::new("scope_dropped_attributes_count", DataType::Int32, true),
            Field::new("resource_schema_url", DataType::Utf8, true),
            Field::new("resource_dropped_attributes_count", DataType::Int32, true),
            Field::new("trace_state", DataType::Utf8, true),
            Field::new("flags", DataType::Int64, true),
            Field::new("dropped_attributes_count", DataType::Int32, true),
            Field::new("dropped_events_count", DataType::Int32, true),
            Field::new("dropped_links_count", DataType::Int32, true),
        ]))
    });
    Arc::clone(&SCHEMA)
}

//! Builds a batch of spans.
//!
//! Owns: the columns while they grow.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Int32Array, Int32Builder, Int64Array, Int64Builder, ListArray, RecordBatch, StringBuilder,
    StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field};

use super::{Batch, IdentitySet, TextMapBuilder, append_map, text_map_builder};
use crate::error::Result;
use crate::model::identity::IdentityId;
use crate::model::labels::Labels;
use crate::model::span::{Attributes, Event, Link, Span};
use crate::model::value::{Value, string_text};
use crate::signal::traces::{event_fields, link_fields};
use crate::signal::{Signal, Table};

/// The attribute that names a service.
pub const SERVICE_NAME: &str = "service.name";

/// Collects resources and their spans.
pub struct TracesBuilder {
    resources: IdentitySet,
    trace_id: BinaryBuilder,
    span_id: BinaryBuilder,
    parent: BinaryBuilder,
    resource_id: Vec<i64>,
    service_name: StringBuilder,
    name: StringBuilder,
    kind: Vec<i32>,
    start_ns: Vec<i64>,
    duration_ns: Vec<i64>,
    status_code: Vec<i32>,
    status_message: StringBuilder,
    attributes: TextMapBuilder,
    events: Children,
    event_rows: EventColumns,
    links: Children,
    link_rows: LinkColumns,
    rare: RareColumns,
}

/// A resource that was named: its id and its service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceRef {
    /// Identity of the resource.
    pub id: IdentityId,
    /// Value of `service.name`, or "".
    pub service_name: String,
}

impl Default for TracesBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl TracesBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self {
            resources: IdentitySet::default(),
            trace_id: BinaryBuilder::new(),
            span_id: BinaryBuilder::new(),
            parent: BinaryBuilder::new(),
            resource_id: Vec::new(),
            service_name: StringBuilder::new(),
            name: StringBuilder::new(),
            kind: Vec::new(),
            start_ns: Vec::new(),
            duration_ns: Vec::new(),
            status_code: Vec::new(),
            status_message: StringBuilder::new(),
            attributes: text_map_builder(),
            events: Children::default(),
            event_rows: EventColumns::new(),
            links: Children::default(),
            link_rows: LinkColumns::new(),
            rare: RareColumns::default(),
        }
    }

    /// Names a resource; the same attributes, in any order, give the same id.
    pub fn resource(&mut self, attributes: &[(String, Value)]) -> ResourceRef {
        let labels = Labels::from_pairs(attributes.iter().map(|(key, value)| (key.as_str(), value.to_text())));
        let service_name = attributes.iter().find(|(key, _)| key == SERVICE_NAME).map(|(_, value)| match value {
            Value::String(text) => text.clone(),
            other => other.to_text(),
        });
        ResourceRef { id: self.resources.add(labels), service_name: service_name.unwrap_or_default() }
    }

    /// Adds a span of `resource`.
    pub fn span(&mut self, resource: &ResourceRef, span: &Span) -> Result<()> {
        self.trace_id.append_value(span.trace_id);
        self.span_id.append_value(span.span_id);
        self.parent.append_option(span.parent_span_id);
        self.resource_id.push(resource.id.to_column());
        self.service_name.append_value(&resource.service_name);
        self.name.append_value(&span.name);
        self.kind.push(span.kind);
        self.start_ns.push(span.start_ns);
        self.duration_ns.push(span.duration_ns);
        self.status_code.push(span.status_code);
        self.status_message.append_option(text(&span.status_message));
        append_attributes(&mut self.attributes, &span.attributes)?;
        self.events.push(span.events.len());
        for event in &span.events {
            self.event_rows.append(event)?;
        }
        self.links.push(span.links.len());
        for link in &span.links {
            self.link_rows.append(link)?;
        }
        self.rare.append(span)
    }

    /// Spans so far.
    pub fn spans(&self) -> usize {
        self.kind.len()
    }

    /// The batch.
    pub fn finish(mut self) -> Result<Batch> {
        let mut facts = Vec::new();
        if !self.kind.is_empty() {
            let mut columns: Vec<ArrayRef> = vec![
                Arc::new(self.trace_id.finish()),
                Arc::new(self.span_id.finish()),
                Arc::new(self.parent.finish()),
                Arc::new(Int64Array::from(self.resource_id)),
                Arc::new(self.service_name.finish()),
                Arc::new(self.name.finish()),
                Arc::new(Int32Array::from(self.kind)),
                Arc::new(Int64Array::from(self.start_ns)),
                Arc::new(Int64Array::from(self.duration_ns)),
                Arc::new(Int32Array::from(self.status_code)),
                Arc::new(self.status_message.finish()),
                Arc::new(self.attributes.finish()),
                self.events.finish(event_fields(), self.event_rows.finish())?,
                self.links.finish(link_fields(), self.link_rows.finish())?,
            ];
            columns.extend(self.rare.finish());
            facts.push((Table::Spans, RecordBatch::try_new((Table::Spans.spec().schema)(), columns)?));
        }
        Ok(Batch { signal: Signal::Traces, identities: self.resources.list, facts })
    }
}

fn text(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn count(n: u32) -> Option<i32> {
    (n > 0).then(|| i32::try_from(n).unwrap_or(i32::MAX))
}

fn append_attributes(map: &mut TextMapBuilder, attributes: &Attributes) -> Result<()> {
    let texts: Vec<(&str, String)> = attributes
        .iter()
        .map(|(key, value)| {
            let text = match value {
                Value::String(text) => string_text(text),
                other => other.to_text(),
            };
            (key.as_str(), text)
        })
        .collect();
    append_map(map, texts.iter().map(|(key, text)| (*key, text.as_str())))
}

/// Offsets of a list column; a row without children is null.
#[derive(Default)]
struct Children {
    lengths: Vec<usize>,
}

impl Children {
    fn push(&mut self, length: usize) {
        self.lengths.push(length);
    }

    fn finish(&self, fields: Vec<Field>, columns: Vec<ArrayRef>) -> Result<ArrayRef> {
        let values = StructArray::try_new(fields.into(), columns, None)?;
        let element = Arc::new(Field::new("element", DataType::Struct(values.fields().clone()), true));
        let offsets = OffsetBuffer::from_lengths(self.lengths.iter().copied());
        let nulls = NullBuffer::from_iter(self.lengths.iter().map(|length| *length > 0));
        Ok(Arc::new(ListArray::try_new(element, offsets, Arc::new(values), Some(nulls))?))
    }
}

struct EventColumns {
    ts_ns: Int64Builder,
    name: StringBuilder,
    attributes: TextMapBuilder,
    dropped: Int32Builder,
}

impl EventColumns {
    fn new() -> Self {
        Self {
            ts_ns: Int64Builder::new(),
            name: StringBuilder::new(),
            attributes: text_map_builder(),
            dropped: Int32Builder::new(),
        }
    }

    fn append(&mut self, event: &Event) -> Result<()> {
        self.ts_ns.append_value(event.ts_ns);
        self.name.append_value(&event.name);
        append_attributes(&mut self.attributes, &event.attributes)?;
        self.dropped.append_option(count(event.dropped_attributes_count));
        Ok(())
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.ts_ns.finish()),
            Arc::new(self.name.finish()),
            Arc::new(self.attributes.finish()),
            Arc::new(self.dropped.finish()),
        ]
    }
}

struct LinkColumns {
    trace_id: BinaryBuilder,
    span_id: BinaryBuilder,
    trace_state: StringBuilder,
    attributes: TextMapBuilder,
    dropped: Int32Builder,
    flags: Int64Builder,
}

impl LinkColumns {
    fn new() -> Self {
        Self {
            trace_id: BinaryBuilder::new(),
            span_id: BinaryBuilder::new(),
            trace_state: StringBuilder::new(),
            attributes: text_map_builder(),
            dropped: Int32Builder::new(),
            flags: Int64Builder::new(),
        }
    }

    fn append(&mut self, link: &Link) -> Result<()> {
        self.trace_id.append_value(&link.trace_id);
        self.span_id.append_value(&link.span_id);
        self.trace_state.append_option(text(&link.trace_state));
        append_attributes(&mut self.attributes, &link.attributes)?;
        self.dropped.append_option(count(link.dropped_attributes_count));
        self.flags.append_option((link.flags > 0).then_some(i64::from(link.flags)));
        Ok(())
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.trace_id.finish()),
            Arc::new(self.span_id.finish()),
            Arc::new(self.trace_state.finish()),
            Arc::new(self.attributes.finish()),
            Arc::new(self.dropped.finish()),
            Arc::new(self.flags.finish()),
        ]
    }
}

/// The columns from `scope_name` on: mostly null.
struct RareColumns {
    scope_name: StringBuilder,
    scope_version: StringBuilder,
    scope_attributes: TextMapBuilder,
    scope_schema_url: StringBuilder,
    scope_dropped: Int32Builder,
    resource_schema_url: StringBuilder,
    resource_dropped: Int32Builder,
    trace_state: StringBuilder,
    flags: Int64Builder,
    dropped_attributes: Int32Builder,
    dropped_events: Int32Builder,
    dropped_links: Int32Builder,
}

impl Default for RareColumns {
    fn default() -> Self {
        Self {
            scope_name: StringBuilder::new(),
            scope_version: StringBuilder::new(),
            scope_attributes: text_map_builder(),
            scope_schema_url: StringBuilder::new(),
            scope_dropped: Int32Builder::new(),
            resource_schema_url: StringBuilder::new(),
            resource_dropped: Int32Builder::new(),
            trace_state: StringBuilder::new(),
            flags: Int64Builder::new(),
            dropped_attributes: Int32Builder::new(),
            dropped_events: Int32Builder::new(),
            dropped_links: Int32Builder::new(),
        }
    }
}

impl RareColumns {
    fn append(&mut self, span: &Span) -> Result<()> {
        self.scope_name.append_option(text(&span.scope.name));
        self.scope_version.append_option(text(&span.scope.version));
        append_attributes(&mut self.scope_attributes, &span.scope.attributes)?;
        self.scope_schema_url.append_option(text(&span.scope.schema_url));
        self.scope_dropped.append_option(count(span.scope.dropped_attributes_count));
        self.resource_schema_url.append_option(text(&span.resource_schema_url));
        self.resource_dropped.append_option(count(span.resource_dropped_attributes_count));
        self.trace_state.append_option(text(&span.trace_state));
        self.flags.append_option((span.flags > 0).then_some(i64::from(span.flags)));
        self.dropped_attributes.append_option(count(span.dropped_attributes_count));
        self.dropped_events.append_option(count(span.dropped_events_count));
        self.dropped_links.append_option(count(span.dropped_links_count));
        Ok(())
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.scope_name.finish()),
            Arc::new(self.scope_version.finish()),
            Arc::new(self.scope_attributes.finish()),
            Arc::new(self.scope_schema_url.finish()),
            Arc::new(self.scope_dropped.finish()),
            Arc::new(self.resource_schema_url.finish()),
            Arc::new(self.resource_dropped.finish()),
            Arc::new(self.trace_state.finish()),
            Arc::new(self.flags.finish()),
            Arc::new(self.dropped_attributes.finish()),
            Arc::new(self.dropped_events.finish()),
            Arc::new(self.dropped_links.finish()),
        ]
    }
}

//! Spans of the model back to OTLP.
//!
//! Owns: the grouping by resource and scope, which the sender's need not equal. Invariant: decoding what is built
//! here gives the same spans (`otlp::traces`).

use hashbrown::HashMap;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value as Any,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{self as wire, ResourceSpans, ScopeSpans, TracesData};
use storage::model::labels::Labels;
use storage::model::span::{Attributes, Event, Link, Scope, Span};
use storage::model::value::{Value, string_text};

/// A trace as OTLP has it. Each resource is given with its spans; its labels hold typed texts.
pub fn trace_to_otlp(resources: &[(Labels, Vec<Span>)]) -> TracesData {
    let mut resource_spans = Vec::new();
    for (labels, spans) in resources {
        resource(labels, spans, &mut resource_spans);
    }
    TracesData { resource_spans }
}

/// Adds one resource: once for each schema and count of dropped attributes that its spans were sent with.
fn resource(labels: &Labels, spans: &[Span], out: &mut Vec<ResourceSpans>) {
    let mut known: HashMap<(&str, u32), usize, ahash::RandomState> = HashMap::default();
    let mut groups: Vec<(&Span, Vec<&Span>)> = Vec::new();
    for span in spans {
        let key = (span.resource_schema_url.as_str(), span.resource_dropped_attributes_count);
        let index = *known.entry(key).or_insert(groups.len());
        match groups.get_mut(index) {
            Some((_, group)) => group.push(span),
            None => groups.push((span, vec![span])),
        }
    }
    for (first, spans) in groups {
        let resource = Resource {
            attributes: labels.iter().map(|(name, text)| key_value(name, &typed(text))).collect(),
            dropped_attributes_count: first.resource_dropped_attributes_count,
            ..Resource::default()
        };
        out.push(ResourceSpans {
            resource: Some(resource),
            scope_spans: scopes(&spans),
            schema_url: first.resource_schema_url.clone(),
        });
    }
}

/// The value of a typed text; a text that is none stands for itself.
fn typed(text: &str) -> Value {
    Value::parse(text).unwrap_or_else(|| Value::String(text.to_owned()))
}

fn scopes(spans: &[&Span]) -> Vec<ScopeSpans> {
    let mut out: Vec<ScopeSpans> = Vec::new();
    let mut known: HashMap<String, usize, ahash::RandomState> = HashMap::default();
    // Spans of one scope mostly follow each other: the last scope is tried before its key is built.
    let mut last: Option<(&Scope, usize)> = None;
    for span in spans {
        let index = match last {
            Some((scope, index)) if *scope == span.scope => index,
            _ => *known.entry(scope_key(&span.scope)).or_insert_with(|| {
                out.push(ScopeSpans {
                    scope: Some(scope_to_otlp(&span.scope)),
                    spans: Vec::new(),
                    schema_url: span.scope.schema_url.clone(),
                });
                out.len() - 1
            }),
        };
        last = Some((&span.scope, index));
        if let Some(group) = out.get_mut(index) {
            group.spans.push(span_to_otlp(span));
        }
    }
    out
}

/// One text per scope: strings are quoted, so no two scopes share one.
fn scope_key(scope: &Scope) -> String {
    let mut key = String::new();
    for part in [&scope.name, &scope.version, &scope.schema_url] {
        key.push_str(&string_text(part));
    }
    key.push_str(&scope.dropped_attributes_count.to_string());
    for (name, value) in &scope.attributes {
        key.push_str(&string_text(name));
        value.write_text(&mut key);
    }
    key
}

fn scope_to_otlp(scope: &Scope) -> InstrumentationScope {
    InstrumentationScope {
        name: scope.name.clone(),
        version: scope.version.clone(),
        attributes: attributes(&scope.attributes),
        dropped_attributes_count: scope.dropped_attributes_count,
    }
}

fn span_to_otlp(span: &Span) -> wire::Span {
    wire::Span {
        trace_id: span.trace_id.to_vec(),
        span_id: span.span_id.to_vec(),
        trace_state: span.trace_state.clone(),
        parent_span_id: span.parent_span_id.map(|id| id.to_vec()).unwrap_or_default(),
        flags: span.flags,
        name: span.name.clone(),
        kind: span.kind,
        start_time_unix_nano: unsigned(span.start_ns),
        end_time_unix_nano: unsigned(span.start_ns.saturating_add(span.duration_ns)),
        attributes: attributes(&span.attributes),
        dropped_attributes_count: span.dropped_attributes_count,
        events: span.events.iter().map(event_to_otlp).collect(),
        dropped_events_count: span.dropped_events_count,
        links: span.links.iter().map(link_to_otlp).collect(),
        dropped_links_count: span.dropped_links_count,
        status: Some(wire::Status { message: span.status_message.clone(), code: span.status_code }),
    }
}

fn unsigned(ns: i64) -> u64 {
    u64::try_from(ns).unwrap_or(0)
}

fn event_to_otlp(event: &Event) -> wire::span::Event {
    wire::span::Event {
        time_unix_nano: unsigned(event.ts_ns),
        name: event.name.clone(),
        attributes: attributes(&event.attributes),
        dropped_attributes_count: event.dropped_attributes_count,
    }
}

fn link_to_otlp(link: &Link) -> wire::span::Link {
    wire::span::Link {
        trace_id: link.trace_id.clone(),
        span_id: link.span_id.clone(),
        trace_state: link.trace_state.clone(),
        attributes: attributes(&link.attributes),
        dropped_attributes_count: link.dropped_attributes_count,
        flags: link.flags,
    }
}

fn attributes(attributes: &Attributes) -> Vec<KeyValue> {
    attributes.iter().map(|(key, value)| key_value(key, value)).collect()
}

/// An attribute as OTLP has it.
pub fn key_value(key: &str, value: &Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(any_value_of(value)), ..KeyValue::default() }
}

/// A value as OTLP has it.
pub fn any_value_of(value: &Value) -> AnyValue {
    let value = match value {
        Value::Empty => None,
        Value::String(text) => Some(Any::StringValue(text.clone())),
        Value::Bool(value) => Some(Any::BoolValue(*value)),
        Value::Int(value) => Some(Any::IntValue(*value)),
        Value::Double(value) => Some(Any::DoubleValue(*value)),
        Value::Bytes(bytes) => Some(Any::BytesValue(bytes.clone())),
        Value::Array(values) => Some(Any::ArrayValue(ArrayValue { values: values.iter().map(any_value_of).collect() })),
        Value::Map(pairs) => Some(Any::KvlistValue(KeyValueList { values: attributes(pairs) })),
    };
    AnyValue { value }
}

#[cfg(test)]
mod tests;

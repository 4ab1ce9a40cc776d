//! The whole way: span, columns, span, OTLP, bytes, decoder, columns, the same span.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use storage::Table;
use storage::model::batch::{Batch, TracesBuilder};
use storage::model::columns::SpanColumns;

use super::*;
use crate::otlp::traces::{TraceLimits, decode};

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Empty),
        "\\PC{0,8}".prop_map(Value::String),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_map(Value::Double),
        vec(any::<u8>(), 0..6).prop_map(Value::Bytes),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::Array),
            vec(("\\PC{0,4}", inner), 0..3).prop_map(Value::Map),
        ]
    })
}

fn attributes() -> impl Strategy<Value = Attributes> {
    vec(("\\PC{0,6}", value()), 0..3)
}

fn scope() -> impl Strategy<Value = Scope> {
    ("[a-c]{0,1}", "[0-1]{0,1}", attributes(), 0u32..2, "[u]{0,1}").prop_map(
        |(name, version, attributes, dropped_attributes_count, schema_url)| Scope {
            name,
            version,
            attributes,
            dropped_attributes_count,
            schema_url,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    (0..i64::MAX, "\\PC{0,4}", attributes(), 0u32..9).prop_map(|(ts_ns, name, attributes, dropped_attributes_count)| {
        Event { ts_ns, name, attributes, dropped_attributes_count }
    })
}

fn link() -> impl Strategy<Value = Link> {
    (vec(any::<u8>(), 0..17), vec(any::<u8>(), 0..9), "\\PC{0,4}", attributes(), 0u32..9, any::<u32>()).prop_map(
        |(trace_id, span_id, trace_state, attributes, dropped_attributes_count, flags)| Link {
            trace_id,
            span_id,
            trace_state,
            attributes,
            dropped_attributes_count,
            flags,
        },
    )
}

prop_compose! {
    fn span()(
        trace_id in any::<[u8; 16]>().prop_filter("not zero", |id| *id != [0; 16]),
        span_id in any::<[u8; 8]>().prop_filter("not zero", |id| *id != [0; 8]),
        parent_span_id in proptest::option::of(any::<[u8; 8]>().prop_filter("not zero", |id| *id != [0; 8])),
        trace_state in "\\PC{0,4}",
        name in "\\PC{0,4}",
        (flags, kind, status_code, dropped) in (any::<u32>(), -1..7i32, -1..4i32, 0u32..9),
        (start_ns, end_ns) in (0..i64::MAX, 0..i64::MAX),
        (status_message, schema_url) in ("\\PC{0,4}", "[s]{0,1}"),
        attributes in attributes(),
        events in vec(event(), 0..3),
        links in vec(link(), 0..3),
        scope in scope(),
    ) -> Span {
        Span {
            trace_id,
            span_id,
            parent_span_id,
            trace_state,
            flags,
            name,
            kind,
            start_ns,
            duration_ns: end_ns - start_ns,
            status_code,
            status_message,
            attributes,
            dropped_attributes_count: dropped,
            events,
            dropped_events_count: dropped / 2,
            links,
            dropped_links_count: dropped / 3,
            scope,
            resource_schema_url: schema_url,
            resource_dropped_attributes_count: dropped / 4,
        }
    }
}

/// The spans of a batch with the labels of their resources.
fn read(batch: &Batch) -> Vec<(Labels, Span)> {
    let Some(rows) = batch.table(Table::Spans) else { return Vec::new() };
    let columns = SpanColumns::new(rows).unwrap();
    let labels = |row: usize| {
        let id = columns.resource_id.value(row);
        batch.identities.iter().find(|identity| identity.id.to_column() == id).unwrap().labels.clone()
    };
    (0..rows.num_rows()).map(|row| (labels(row), columns.span(row).unwrap())).collect()
}

/// The bytes of a trace decoded again, in an order that does not depend on grouping.
fn again(trace: &TracesData) -> Vec<(Labels, Span)> {
    let request = ExportTraceServiceRequest::decode(trace.encode_to_vec().as_slice()).unwrap();
    let decoded = decode(&request, &TraceLimits::default()).unwrap();
    assert_eq!(decoded.rejected_spans, 0, "{}", decoded.message);
    sorted(read(&decoded.batch))
}

fn sorted(mut spans: Vec<(Labels, Span)>) -> Vec<(Labels, Span)> {
    spans.sort_by_key(|(_, span)| (span.trace_id, span.span_id));
    spans
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_field_of_a_span_is_lost(spans in vec(span(), 0..5), resource in vec(("[a-z]{1,4}", value()), 0..3)) {
        let mut builder = TracesBuilder::new();
        let of = builder.resource(&resource);
        for span in &spans {
            builder.span(&of, span).unwrap();
        }
        let stored = read(&builder.finish().unwrap());
        let back: Vec<Span> = stored.iter().map(|(_, span)| span.clone()).collect();
        prop_assert_eq!(&back, &spans);
        let Some((labels, _)) = stored.first().cloned() else { return Ok(()) };
        let trace = trace_to_otlp(&[(labels, back)]);
        prop_assert_eq!(again(&trace), sorted(stored));
        let json = super::super::trace_json(&trace, "batches");
        prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
    }
}

#[test]
fn spans_are_grouped_by_schema_and_scope() {
    let scope = |name: &str| Scope { name: name.to_owned(), ..Scope::default() };
    let span = |id: u8, name: &str, schema: &str| Span {
        trace_id: [1; 16],
        span_id: [id; 8],
        scope: scope(name),
        resource_schema_url: schema.to_owned(),
        ..Span::default()
    };
    let spans = vec![span(1, "a", ""), span(2, "b", ""), span(3, "a", ""), span(4, "a", "s")];
    let labels = Labels::from_pairs([("service.name", "\"web\""), ("pid", "7"), ("odd", "no json")]);
    let trace = trace_to_otlp(&[(labels, spans)]);
    let shape: Vec<Vec<usize>> =
        trace.resource_spans.iter().map(|r| r.scope_spans.iter().map(|s| s.spans.len()).collect()).collect();
    assert_eq!(shape, [vec![2, 1], vec![1]]);
    let attributes = &trace.resource_spans[0].resource.as_ref().unwrap().attributes;
    let expected = [
        key_value("odd", &Value::String("no json".into())),
        key_value("pid", &Value::Int(7)),
        key_value("service.name", &Value::String("web".into())),
    ];
    assert_eq!(attributes, &expected);
}

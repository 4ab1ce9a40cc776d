//! Tests of what is refused and cut. That nothing else is lost is tested with the way back (`tempo::trace`).

use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, any_value::Value as Any};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::ScopeSpans;
use proptest::prelude::*;
use storage::Table;
use storage::model::columns::SpanColumns;

use super::*;

fn request(resource: Vec<KeyValue>, spans: Vec<wire::Span>) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans { scope: None, spans, schema_url: String::new() }];
    let resource = Some(Resource { attributes: resource, ..Resource::default() });
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource, scope_spans, schema_url: String::new() }],
    }
}

fn span(trace_id: &[u8], span_id: &[u8]) -> wire::Span {
    wire::Span { trace_id: trace_id.to_vec(), span_id: span_id.to_vec(), ..wire::Span::default() }
}

fn pair(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn spans(decoded: &Decoded) -> Vec<Span> {
    let Some(rows) = decoded.batch.table(Table::Spans) else { return Vec::new() };
    let columns = SpanColumns::new(rows).unwrap();
    (0..rows.num_rows()).map(|row| columns.span(row).unwrap()).collect()
}

#[test]
fn spans_without_valid_ids_are_counted_and_the_rest_is_kept() {
    let good = wire::Span { parent_span_id: vec![0; 8], ..span(&[1; 16], &[1; 8]) };
    let bad_parent = wire::Span { parent_span_id: vec![1; 3], ..span(&[1; 16], &[1; 8]) };
    let late = wire::Span { start_time_unix_nano: u64::MAX, ..span(&[1; 16], &[1; 8]) };
    let all = vec![span(&[0; 16], &[1; 8]), span(&[], &[1; 8]), span(&[1; 16], &[0; 8]), span(&[1; 8], &[1; 8])];
    let all = [all, vec![good, bad_parent, late]].concat();
    let decoded = decode(&request(vec![], all), &TraceLimits::default()).unwrap();
    assert_eq!((decoded.rejected_spans, decoded.spans), (6, 1));
    assert!(decoded.message.starts_with("5 spans refused: a span needs a trace id of 16 bytes"), "{}", decoded.message);
    assert!(decoded.message.ends_with("1 spans refused: times must lie before 2262-04-11"), "{}", decoded.message);
    assert_eq!(spans(&decoded)[0].parent_span_id, None);
}

#[test]
fn a_request_of_refused_spans_stores_nothing() {
    let service = vec![pair("service.name", Any::StringValue("s".into()))];
    let decoded = decode(&request(service, vec![span(&[], &[])]), &TraceLimits::default()).unwrap();
    assert!(decoded.batch.is_empty() && decoded.batch.identities.is_empty());
    let decoded = decode(&ExportTraceServiceRequest::default(), &TraceLimits::default()).unwrap();
    assert_eq!((decoded.rejected_spans, decoded.message.as_str()), (0, ""));
}

#[test]
fn values_nested_too_deep_are_refused() {
    let mut deep = Any::IntValue(1);
    for _ in 0..=storage::model::value::VALUE_DEPTH_MAX {
        deep = Any::ArrayValue(ArrayValue { values: vec![AnyValue { value: Some(deep) }] });
    }
    let bad = wire::Span { attributes: vec![pair("deep", deep.clone())], ..span(&[1; 16], &[1; 8]) };
    let decoded = decode(&request(vec![], vec![bad, span(&[1; 16], &[2; 8])]), &TraceLimits::default()).unwrap();
    assert_eq!((decoded.rejected_spans, decoded.spans), (1, 1));
    assert!(decoded.message.contains("nested deeper than 64"), "{}", decoded.message);
    let of_resource = request(vec![pair("deep", deep)], vec![span(&[1; 16], &[1; 8]), span(&[1; 16], &[2; 8])]);
    assert_eq!(decode(&of_resource, &TraceLimits::default()).unwrap().rejected_spans, 2);
}

#[test]
fn long_attributes_are_cut_where_a_character_begins() {
    let limits = TraceLimits { attribute_bytes_max: 5 };
    let attributes = vec![
        pair("abcdéf", Any::StringValue("12345é".into())),
        pair("b", Any::BytesValue(vec![1; 9])),
        pair("c", Any::StringValue("12345".into())),
    ];
    let span = wire::Span { attributes, ..span(&[1; 16], &[1; 8]) };
    let decoded = decode(&request(vec![], vec![span]), &limits).unwrap();
    let expected = vec![
        ("abcd".to_owned(), Value::String("12345".into())),
        ("b".to_owned(), Value::Bytes(vec![1; 9])),
        ("c".to_owned(), Value::String("12345".into())),
    ];
    assert_eq!(spans(&decoded)[0].attributes, expected);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(request) = super::super::decode_protobuf::<ExportTraceServiceRequest>(&bytes) {
            let _ = decode(&request, &TraceLimits::default());
        }
    }
}

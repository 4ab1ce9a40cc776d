//! Traces as JSON: proto3's mapping, as readers of Tempo's answers expect it.
//!
//! Owns: the form. Ids are base64, 64-bit integers strings, enums names; fields at their default are left out, save
//! `status`, which is always there.
//!
//! Written straight into one string: a trace may have 50,000 spans, and a tree of it would take many times as much.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, TracesData};
use storage::model::value::{VALUE_DEPTH_MAX, write_string_text};

/// `{"<key>":[…]}`, where `key` is `batches` in the first version of the API and `resourceSpans` in the second; `{}`
/// when there is nothing.
pub fn trace_json(trace: &TracesData, key: &str) -> String {
    let mut out = String::new();
    object(&mut out, |o| o.list(key, &trace.resource_spans, resource_spans));
    out
}

/// Writes the members of one object.
pub(super) struct Object<'o> {
    out: &'o mut String,
    first: bool,
}

pub(super) fn object(out: &mut String, members: impl FnOnce(&mut Object<'_>)) {
    out.push('{');
    let mut object = Object { out, first: true };
    members(&mut object);
    object.out.push('}');
}

impl Object<'_> {
    pub(super) fn name(&mut self, name: &str) -> &mut String {
        if !self.first {
            self.out.push(',');
        }
        self.first = false;
        write_string_text(name, self.out);
        self.out.push(':');
        self.out
    }

    pub(super) fn text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            write_string_text(text, self.name(name));
        }
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) {
        self.text(name, &BASE64.encode(bytes));
    }

    pub(super) fn long(&mut self, name: &str, value: u64) {
        if value != 0 {
            self.text(name, &value.to_string());
        }
    }

    pub(super) fn number(&mut self, name: &str, value: u32) {
        if value != 0 {
            self.name(name).push_str(&value.to_string());
        }
    }

    pub(super) fn sub(&mut self, name: &str, members: impl FnOnce(&mut Object<'_>)) {
        object(self.name(name), members);
    }

    pub(super) fn list<T>(&mut self, name: &str, items: &[T], each: impl Fn(&T, &mut Object<'_>)) {
        if items.is_empty() {
            return;
        }
        let out = self.name(name);
        out.push('[');
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            object(out, |o| each(item, o));
        }
        out.push(']');
    }

    /// A double; JSON has no other numbers than finite ones.
    pub(super) fn double(&mut self, name: &str, value: f64) {
        if value != 0.0 && value.is_finite() {
            self.name(name).push_str(&value.to_string());
        }
    }

    pub(super) fn attributes(&mut self, attributes: &[KeyValue]) {
        self.pairs("attributes", attributes);
    }

    pub(super) fn pairs(&mut self, name: &str, pairs: &[KeyValue]) {
        self.list(name, pairs, |pair, o| key_value(pair, 0, o));
    }
}

fn resource_spans(spans: &ResourceSpans, o: &mut Object<'_>) {
    if let Some(of) = &spans.resource {
        o.sub("resource", |o| resource(of, o));
    }
    o.list("scopeSpans", &spans.scope_spans, scope_spans);
    o.text("schemaUrl", &spans.schema_url);
}

fn resource(resource: &Resource, o: &mut Object<'_>) {
    o.attributes(&resource.attributes);
    o.number("droppedAttributesCount", resource.dropped_attributes_count);
}

fn scope_spans(spans: &ScopeSpans, o: &mut Object<'_>) {
    if let Some(of) = &spans.scope {
        o.sub("scope", |o| scope(of, o));
    }
    o.list("spans", &spans.spans, span);
    o.text("schemaUrl", &spans.schema_url);
}

fn scope(scope: &InstrumentationScope, o: &mut Object<'_>) {
    o.text("name", &scope.name);
    o.text("version", &scope.version);
    o.attributes(&scope.attributes);
    o.number("droppedAttributesCount", scope.dropped_attributes_count);
}

fn span(span: &Span, o: &mut Object<'_>) {
    o.bytes("traceId", &span.trace_id);
    o.bytes("spanId", &span.span_id);
    o.text("traceState", &span.trace_state);
    o.bytes("parentSpanId", &span.parent_span_id);
    o.number("flags", span.flags);
    o.text("name", &span.name);
    match SpanKind::try_from(span.kind) {
        Ok(SpanKind::Unspecified) => {}
        Ok(kind) => o.text("kind", kind.as_str_name()),
        Err(_) => o.name("kind").push_str(&span.kind.to_string()),
    }
    o.long("startTimeUnixNano", span.start_time_unix_nano);
    o.long("endTimeUnixNano", span.end_time_unix_nano);
    o.attributes(&span.attributes);
    o.number("droppedAttributesCount", span.dropped_attributes_count);
    o.list("events", &span.events, event);
    o.number("droppedEventsCount", span.dropped_events_count);
    o.list("links", &span.links, link);
    o.number("droppedLinksCount", span.dropped_links_count);
    o.sub("status", |o| {
        if let Some(of) = &span.status {
            status(of, o);
        }
    });
}

fn status(status: &Status, o: &mut Object<'_>) {
    match StatusCode::try_from(status.code) {
        Ok(StatusCode::Unset) => {}
        Ok(code) => o.text("code", code.as_str_name()),
        Err(_) => o.name("code").push_str(&status.code.to_string()),
    }
    o.text("message", &status.message);
}

fn event(event: &Event, o: &mut Object<'_>) {
    o.long("timeUnixNano", event.time_unix_nano);
    o.text("name", &event.name);
    o.attributes(&event.attributes);
    o.number("droppedAttributesCount", event.dropped_attributes_count);
}

fn link(link: &Link, o: &mut Object<'_>) {
    o.bytes("traceId", &link.trace_id);
    o.bytes("spanId", &link.span_id);
    o.text("traceState", &link.trace_state);
    o.attributes(&link.attributes);
    o.number("droppedAttributesCount", link.dropped_attributes_count);
    o.number("flags", link.flags);
}

fn key_value(pair: &KeyValue, depth: usize, o: &mut Object<'_>) {
    o.text("key", &pair.key);
    if let Some(of) = &pair.value {
        o.sub("value", |o| value(of, depth, o));
    }
}

/// The members of an `AnyValue`: one that says the type, or none for the empty value.
fn value(any: &AnyValue, depth: usize, o: &mut Object<'_>) {
    let deeper = depth + 1;
    match &any.value {
        // Decoders take nothing deeper.
        _ if depth > VALUE_DEPTH_MAX => {}
        None | Some(Any::StringValueStrindex(_)) => {}
        Some(Any::StringValue(text)) => write_string_text(text, o.name("stringValue")),
        Some(Any::BoolValue(value)) => o.name("boolValue").push_str(if *value { "true" } else { "false" }),
        Some(Any::IntValue(value)) => o.text("intValue", &value.to_string()),
        Some(Any::DoubleValue(value)) => double(*value, o.name("doubleValue")),
        Some(Any::BytesValue(bytes)) => write_string_text(&BASE64.encode(bytes), o.name("bytesValue")),
        Some(Any::ArrayValue(list)) => {
            o.sub("arrayValue", |o| o.list("values", &list.values, |any, o| value(any, deeper, o)));
        }
        Some(Any::KvlistValue(list)) => {
            o.sub("kvlistValue", |o| o.list("values", &list.values, |pair, o| key_value(pair, deeper, o)));
        }
    }
}

fn double(value: f64, out: &mut String) {
    if value.is_nan() {
        out.push_str("\"NaN\"");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" });
    } else {
        // The shortest text that reads back; a whole number needs no point here.
        let text = format!("{value:?}");
        out.push_str(text.strip_suffix(".0").unwrap_or(&text));
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::ArrayValue;

    use super::*;

    fn pair(key: &str, value: Option<Any>) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(AnyValue { value }), ..KeyValue::default() }
    }

    #[test]
    fn the_form_is_the_one_of_the_contract() {
        let any = |value: Any| AnyValue { value: Some(value) };
        let list = ArrayValue { values: vec![any(Any::BoolValue(true)), any(Any::BytesValue(vec![1, 2]))] };
        let first = Span {
            // From a recorded answer: tnAOrL6hDjIEkDHI9iKpvA== is b6700eacbea10e32049031c8f622a9bc.
            trace_id: hex::decode("b6700eacbea10e32049031c8f622a9bc").unwrap(),
            span_id: hex::decode("ac455f1540c1586b").unwrap(),
            parent_span_id: hex::decode("dbffa667c7f71f30").unwrap(),
            name: "tree.E".to_owned(),
            kind: 2,
            start_time_unix_nano: 1_780_322_820_127_456_789,
            end_time_unix_nano: 1_780_322_820_139_456_789,
            attributes: vec![
                pair("lvl", Some(Any::IntValue(2))),
                pair("ratio", Some(Any::DoubleValue(0.5))),
                pair("whole", Some(Any::DoubleValue(-1.0))),
                pair("odd", Some(Any::DoubleValue(f64::NEG_INFINITY))),
                pair("empty", None),
                pair("blank", Some(Any::StringValue(String::new()))),
                pair("list", Some(Any::ArrayValue(list))),
            ],
            status: Some(Status { message: "no \"luck\"".to_owned(), code: 2 }),
            dropped_events_count: 3,
            ..Span::default()
        };
        let second = Span { kind: 9, ..Span::default() };
        let trace = TracesData {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource::default()),
                scope_spans: vec![ScopeSpans { scope: None, spans: vec![first, second], schema_url: String::new() }],
                schema_url: "u".to_owned(),
            }],
        };
        let expected = concat!(
            r#"{"batches":[{"resource":{},"scopeSpans":[{"spans":[{"traceId":"tnAOrL6hDjIEkDHI9iKpvA==","#,
            r#""spanId":"rEVfFUDBWGs=","parentSpanId":"2/+mZ8f3HzA=","name":"tree.E","kind":"SPAN_KIND_SERVER","#,
            r#""startTimeUnixNano":"1780322820127456789","endTimeUnixNano":"1780322820139456789","attributes":["#,
            r#"{"key":"lvl","value":{"intValue":"2"}},{"key":"ratio","value":{"doubleValue":0.5}},"#,
            r#"{"key":"whole","value":{"doubleValue":-1}},{"key":"odd","value":{"doubleValue":"-Infinity"}},"#,
            r#"{"key":"empty","value":{}},"#,
            r#"{"key":"blank","value":{"stringValue":""}},"#,
            r#"{"key":"list","value":{"arrayValue":{"values":[{"boolValue":true},{"bytesValue":"AQI="}]}}}],"#,
            r#""droppedEventsCount":3,"status":{"code":"STATUS_CODE_ERROR","message":"no \"luck\""}},"#,
            r#"{"kind":9,"status":{}}]}],"schemaUrl":"u"}]}"#,
        );
        assert_eq!(trace_json(&trace, "batches"), expected);
        assert_eq!(trace_json(&TracesData::default(), "resourceSpans"), "{}");
    }
}

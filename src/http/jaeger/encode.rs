//! Answers of Jaeger's API as JSON.
//!
//! Owns: how spans, resources, events and links become Jaeger's spans, processes, logs and references. Format: the
//! OpenTelemetry mapping to Jaeger.

use std::collections::BTreeSet;

use query::traceql::{Call, Trace};
use query::{Error, Kind, Result};
use storage::model::batch::SERVICE_NAME;
use storage::model::labels::Labels;
use storage::model::span::{Span, SpanId};
use storage::model::value::Value;

use super::params::KINDS;
use crate::http::json::Json;

/// `{"data":…,"total":…}` around a list of `total` items.
fn envelope(total: usize, data: &str) -> Json {
    let mut json = Json::new();
    json.raw(r#"{"data":"#).raw(data);
    json.format(format_args!(",\"total\":{total},\"limit\":0,\"offset\":0,\"errors\":null}}"));
    json
}

/// A list of names.
pub fn names(names: &BTreeSet<String>) -> Json {
    let mut data = Json::new();
    data.strings(names);
    envelope(names.len(), &data.finish())
}

/// Names with the kind of their spans.
pub fn operations(list: &[(String, &str)]) -> Json {
    let mut data = Json::new();
    data.array(list, |json, (name, kind)| {
        let kind = if *kind == KINDS[0] { "" } else { kind };
        json.map([("name", name.as_str()), ("spanKind", kind)]);
    });
    envelope(list.len(), &data.finish())
}

/// Calls between services.
pub fn dependencies(calls: &[Call]) -> Json {
    let mut data = Json::new();
    data.array(calls, |json, call| {
        json.raw(r#"{"parent":"#).string(&call.caller).raw(r#","child":"#).string(&call.called);
        json.format(format_args!(",\"callCount\":{}}}", call.count));
    });
    envelope(calls.len(), &data.finish())
}

/// A list of traces that may not grow beyond a size.
pub struct Traces {
    data: Json,
    count: usize,
    bytes_max: usize,
}

impl Traces {
    /// An empty list of at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        let mut data = Json::new();
        data.raw("[");
        Self { data, count: 0, bytes_max }
    }

    /// Adds `trace`.
    pub fn add(&mut self, trace: &Trace) -> Result<()> {
        self.data.raw(if self.count > 0 { "," } else { "" });
        self.count += 1;
        write_trace(&mut self.data, trace);
        if self.data.len() > self.bytes_max {
            let bytes_max = self.bytes_max;
            let text = format!("the answer is larger than `query.answer_bytes_max` ({bytes_max} bytes): ask for less");
            return Err(Error::new(Kind::Limit, text));
        }
        Ok(())
    }

    /// The answer.
    pub fn finish(mut self) -> Json {
        self.data.raw("]");
        envelope(self.count, &self.data.finish())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write_trace(json: &mut Json, trace: &Trace) {
    let id = hex(&trace.trace_id);
    json.raw(r#"{"traceID":"#).string(&id).raw(r#","spans":"#);
    let spans =
        trace.resources.iter().enumerate().flat_map(|(at, (_, spans))| spans.iter().map(move |span| (at, span)));
    json.array(spans, |json, (process, span)| write_span(json, &id, process, span));
    json.raw(r#","processes":{"#);
    for (at, (resource, _)) in trace.resources.iter().enumerate() {
        json.raw(if at > 0 { "," } else { "" });
        write_process(json, at, resource);
    }
    json.raw(r#"},"warnings":null}"#);
}

fn write_process(json: &mut Json, at: usize, resource: &Labels) {
    let value = |text: &str| Value::parse(text).unwrap_or_else(|| Value::String(text.to_owned()));
    let service = resource.get(SERVICE_NAME).map(|text| plain(&value(text))).unwrap_or_default();
    json.format(format_args!("\"p{}\":{{\"serviceName\":", at + 1)).string(&service).raw(r#","tags":"#);
    let tags = resource.iter().filter(|(key, _)| *key != SERVICE_NAME);
    json.array(tags, |json, (key, text)| write_tag(json, key, &value(text))).raw("}");
}

fn write_span(json: &mut Json, trace_id: &str, process: usize, span: &Span) {
    json.raw(r#"{"traceID":"#).string(trace_id).raw(r#","spanID":"#).string(&hex(&span.span_id));
    json.raw(r#","operationName":"#).string(&span.name).raw(r#","references":"#);
    write_references(json, trace_id, span.parent_span_id, span);
    json.format(format_args!(
        ",\"flags\":{},\"startTime\":{},\"duration\":{},\"tags\":",
        span.flags & 0xff,
        span.start_ns.div_euclid(1000),
        span.duration_ns.max(0) / 1000
    ));
    json.array(tags_of(span).iter().map(|(key, value)| (*key, value)), |json, (key, value)| {
        write_tag(json, key, value);
    });
    json.raw(r#","logs":"#).array(&span.events, |json, event| {
        json.format(format_args!("{{\"timestamp\":{},\"fields\":", event.ts_ns.div_euclid(1000)));
        let name = Value::String(event.name.clone());
        let fields = (!event.name.is_empty()).then_some(("event", &name)).into_iter();
        let attributes = event.attributes.iter().map(|(key, value)| (key.as_str(), value));
        json.array(fields.chain(attributes), |json, (key, value)| write_tag(json, key, value)).raw("}");
    });
    json.format(format_args!(",\"processID\":\"p{}\",\"warnings\":null}}", process + 1));
}

fn write_references(json: &mut Json, trace_id: &str, parent: Option<SpanId>, span: &Span) {
    let parent = parent.map(|parent| ("CHILD_OF", trace_id.to_owned(), hex(&parent)));
    let links = span.links.iter().map(|link| ("FOLLOWS_FROM", hex(&link.trace_id), hex(&link.span_id)));
    json.array(parent.into_iter().chain(links), |json, (kind, trace, span)| {
        json.map([("refType", kind), ("traceID", trace.as_str()), ("spanID", span.as_str())]);
    });
}

/// The attributes, and what Jaeger has no field for.
fn tags_of(span: &Span) -> Vec<(&str, Value)> {
    let mut tags: Vec<(&str, Value)> =
        span.attributes.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    let text = |text: &str| Value::String(text.to_owned());
    let kind = usize::try_from(span.kind).ok().and_then(|kind| KINDS.get(kind)).filter(|kind| **kind != KINDS[0]);
    tags.extend(kind.map(|kind| ("span.kind", text(kind))));
    match span.status_code {
        1 => tags.push(("otel.status_code", text("OK"))),
        2 => {
            tags.push(("otel.status_code", text("ERROR")));
            tags.push(("error", Value::Bool(true)));
        }
        _ => {}
    }
    let texts = [
        ("otel.status_description", &span.status_message),
        ("otel.scope.name", &span.scope.name),
        ("otel.scope.version", &span.scope.version),
        ("w3c.tracestate", &span.trace_state),
    ];
    tags.extend(texts.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| (key, text(value))));
    tags
}

fn write_tag(json: &mut Json, key: &str, value: &Value) {
    json.raw(r#"{"key":"#).string(key);
    match value {
        Value::Bool(value) => json.format(format_args!(",\"type\":\"bool\",\"value\":{value}}}")),
        Value::Int(value) => json.format(format_args!(",\"type\":\"int64\",\"value\":{value}}}")),
        Value::Double(value) => json.raw(r#","type":"float64","value":"#).number(*value).raw("}"),
        Value::Bytes(bytes) => json.raw(r#","type":"binary","value":"#).string(&hex(bytes)).raw("}"),
        other => json.raw(r#","type":"string","value":"#).string(&plain(other)).raw("}"),
    };
}

/// Strings as they are, everything else as JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::Empty => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_text(),
    }
}

#[cfg(test)]
mod tests {
    use storage::model::span::{Event, Link, Scope};

    use super::*;

    #[test]
    fn a_span_has_its_tags_logs_and_references() {
        let span = Span {
            trace_id: [1; 16],
            span_id: [2; 8],
            parent_span_id: Some([3; 8]),
            name: "GET /".into(),
            kind: 2,
            start_ns: 1_500_999,
            duration_ns: 2_500,
            status_code: 2,
            attributes: vec![("n".into(), Value::Int(5)), ("list".into(), Value::Array(vec![Value::Bool(true)]))],
            events: vec![Event { ts_ns: 2_000, name: "exception".into(), ..Event::default() }],
            links: vec![Link { trace_id: vec![4; 16], span_id: vec![5; 8], ..Link::default() }],
            scope: Scope { name: "lib".into(), ..Scope::default() },
            ..Span::default()
        };
        let resource = Labels::from_pairs([("service.name", "\"web\""), ("host", "\"h1\"")]);
        let mut out = Traces::new(1 << 20);
        out.add(&Trace { trace_id: [1; 16], resources: vec![(resource, vec![span])] }).expect("fits");
        let answer: serde_json::Value = serde_json::from_str(&out.finish().finish()).expect("JSON");
        let trace = &answer["data"][0];
        let span = &trace["spans"][0];
        assert_eq!(span["spanID"], "0202020202020202");
        assert_eq!((&span["startTime"], &span["duration"]), (&1500.into(), &2.into()));
        let kinds: Vec<&str> =
            span["references"].as_array().expect("a list").iter().filter_map(|r| r["refType"].as_str()).collect();
        assert_eq!(kinds, ["CHILD_OF", "FOLLOWS_FROM"]);
        let tags: Vec<String> = span["tags"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|tag| {
                format!(
                    "{}:{}={}",
                    tag["key"].as_str().expect("a key"),
                    tag["type"].as_str().expect("a type"),
                    tag["value"]
                )
            })
            .collect();
        assert_eq!(
            tags,
            [
                "n:int64=5",
                "list:string=\"[true]\"",
                "span.kind:string=\"server\"",
                "otel.status_code:string=\"ERROR\"",
                "error:bool=true",
                "otel.scope.name:string=\"lib\"",
            ]
        );
        assert_eq!(span["logs"][0]["fields"][0]["value"], "exception");
        assert_eq!(trace["processes"]["p1"]["serviceName"], "web");
        assert_eq!(trace["processes"]["p1"]["tags"][0]["value"], "h1");
        assert!(Traces::new(10).add(&Trace { trace_id: [1; 16], resources: vec![] }).is_err());
    }
}

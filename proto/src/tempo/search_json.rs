//! Answers of searches as JSON: proto3's mapping of [`SearchResponse`].
//!
//! Owns: the form. Fields at their default are left out, except the list of traces and `metrics`, which clients look
//! for. A set of spans stands twice when it is the first of its trace, as older readers expect it.

use storage::model::value::write_string_text;

use super::json::{Object, object};
use super::messages::{SearchMetrics, SearchResponse, Span, SpanSet, TraceSearchMetadata};

/// `{"traces":[…],"metrics":{…}}`
pub fn search_json(response: &SearchResponse) -> String {
    let mut out = String::new();
    object(&mut out, |o| {
        if response.traces.is_empty() {
            o.name("traces").push_str("[]");
        }
        o.list("traces", &response.traces, trace);
        o.sub("metrics", |o| {
            if let Some(of) = &response.metrics {
                metrics(of, o);
            }
        });
    });
    out
}

fn trace(trace: &TraceSearchMetadata, o: &mut Object<'_>) {
    o.text("traceID", &trace.trace_id);
    o.text("rootServiceName", &trace.root_service_name);
    o.text("rootTraceName", &trace.root_trace_name);
    o.long("startTimeUnixNano", trace.start_time_unix_nano);
    o.number("durationMs", trace.duration_ms);
    if let Some(set) = &trace.span_set {
        o.sub("spanSet", |o| span_set(set, o));
    }
    o.list("spanSets", &trace.span_sets, span_set);
    if trace.service_stats.is_empty() {
        return;
    }
    let mut stats: Vec<_> = trace.service_stats.iter().collect();
    stats.sort_by_key(|(name, _)| name.as_str());
    o.sub("serviceStats", |o| {
        for (name, counts) in stats {
            o.sub(name, |o| {
                o.number("spanCount", counts.span_count);
                o.number("errorCount", counts.error_count);
            });
        }
    });
}

fn span_set(set: &SpanSet, o: &mut Object<'_>) {
    o.list("spans", &set.spans, span);
    o.number("matched", set.matched);
    o.attributes(&set.attributes);
}

fn span(span: &Span, o: &mut Object<'_>) {
    o.text("spanID", &span.span_id);
    o.text("name", &span.name);
    o.long("startTimeUnixNano", span.start_time_unix_nano);
    // A span without length is one, too.
    write_string_text(&span.duration_nanos.to_string(), o.name("durationNanos"));
    o.attributes(&span.attributes);
}

pub(super) fn metrics(metrics: &SearchMetrics, o: &mut Object<'_>) {
    o.number("inspectedTraces", metrics.inspected_traces);
    o.long("inspectedBytes", metrics.inspected_bytes);
    o.number("totalBlocks", metrics.total_blocks);
    o.number("completedJobs", metrics.completed_jobs);
    o.number("totalJobs", metrics.total_jobs);
    o.long("totalBlockBytes", metrics.total_block_bytes);
    o.long("inspectedSpans", metrics.inspected_spans);
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use storage::model::value::Value;

    use super::super::{ServiceStats, key_value};
    use super::*;

    #[test]
    fn the_form_is_the_one_of_the_contract() {
        let set = SpanSet {
            spans: vec![Span {
                span_id: "ac455f1540c1586b".into(),
                start_time_unix_nano: 1_780_322_820_127_456_789,
                attributes: vec![key_value("status", &Value::String("error".into()))],
                ..Span::default()
            }],
            matched: 2,
            attributes: vec![key_value("count()", &Value::Int(2))],
        };
        let found = TraceSearchMetadata {
            trace_id: "123456789abcdef".into(),
            root_service_name: "web".into(),
            start_time_unix_nano: 5,
            duration_ms: 7,
            span_set: Some(set.clone()),
            span_sets: vec![set],
            service_stats: HashMap::from([("web".to_owned(), ServiceStats { span_count: 3, error_count: 0 })]),
            ..TraceSearchMetadata::default()
        };
        let metrics =
            SearchMetrics { completed_jobs: 1, total_jobs: 1, inspected_spans: 9, ..SearchMetrics::default() };
        let set = concat!(
            r#"{"spans":[{"spanID":"ac455f1540c1586b","startTimeUnixNano":"1780322820127456789","durationNanos":"0","#,
            r#""attributes":[{"key":"status","value":{"stringValue":"error"}}]}],"matched":2,"#,
            r#""attributes":[{"key":"count()","value":{"intValue":"2"}}]}"#
        );
        let expected = format!(
            concat!(
                r#"{{"traces":[{{"traceID":"123456789abcdef","rootServiceName":"web","startTimeUnixNano":"5","#,
                r#""durationMs":7,"spanSet":{set},"spanSets":[{set}],"serviceStats":{{"web":{{"spanCount":3}}}}}}],"#,
                r#""metrics":{{"completedJobs":1,"totalJobs":1,"inspectedSpans":"9"}}}}"#
            ),
            set = set
        );
        assert_eq!(search_json(&SearchResponse { traces: vec![found], metrics: Some(metrics) }), expected);
        assert_eq!(search_json(&SearchResponse::default()), r#"{"traces":[],"metrics":{}}"#);
    }
}

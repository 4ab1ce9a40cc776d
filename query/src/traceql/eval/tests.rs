//! Evaluation over batches in memory: traces made by hand, expectations from the rules of the language.

use storage::budget::Share;
use storage::model::batch::TracesBuilder;
use storage::model::span::{Attributes, Event, Link, Scope, Span};
use storage::model::tenant::Tenant;
use storage::model::time::{NS_PER_S, TimeRange};
use storage::model::value::Value;
use storage::scan::memory::MemoryScan;
use storage::{Batch, Context};

use super::super::*;

const T0_NS: i64 = 1_780_000_000 * NS_PER_S;

fn context() -> Context {
    Context::new(Tenant::single(), Share::root("test", 64 << 20))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    futures::executor::block_on(future)
}

fn attributes(pairs: &[(&str, Value)]) -> Attributes {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

/// Span `id` of trace `trace`, a child of span `parent` unless that is 0, one second after the span before.
fn span(trace: u8, id: u8, parent: u8, name: &str, pairs: &[(&str, Value)]) -> Span {
    Span {
        trace_id: [trace; 16],
        span_id: [id; 8],
        parent_span_id: (parent > 0).then_some([parent; 8]),
        name: name.to_owned(),
        start_ns: T0_NS + i64::from(trace) * 60 * NS_PER_S + i64::from(id) * NS_PER_S,
        duration_ns: i64::from(id) * 100_000_000,
        attributes: attributes(pairs),
        ..Span::default()
    }
}

fn batch(spans: &[(&str, Span)]) -> Batch {
    let mut builder = TracesBuilder::new();
    for (service, span) in spans {
        let resource = match *service {
            "" => builder.resource(&[]),
            service => builder.resource(&[("service.name".to_owned(), text(service))]),
        };
        builder.span(&resource, span).expect("fits");
    }
    builder.finish().expect("builds")
}

/// Trace 1: web(1) → cart(2), cart(3) → db(4). Trace 2: every kind of value. Trace 3: a span whose parent is missing.
fn sample() -> MemoryScan {
    let ints = Value::Array(vec![Value::Int(1), Value::Int(2)]);
    let mixed = Value::Array(vec![Value::Int(1), text("a")]);
    let events = vec![
        Event { ts_ns: 0, name: "start".into(), attributes: attributes(&[("n", Value::Int(1))]), ..Event::default() },
        Event {
            ts_ns: 0,
            name: "end".into(),
            attributes: attributes(&[("n", Value::Int(2)), ("tag", text("alpha"))]),
            ..Event::default()
        },
    ];
    let links = vec![Link { trace_id: vec![1; 16], span_id: vec![4; 8], ..Link::default() }];
    let scope = Scope { name: "lib".into(), attributes: attributes(&[("lvl", Value::Int(3))]), ..Scope::default() };
    let values = [
        ("s", text("GET")),
        ("i", Value::Int(10)),
        ("f", Value::Double(1.0)),
        ("b", Value::Bool(false)),
        ("ints", ints),
        ("mixed", mixed),
        ("empty", text("")),
        ("none", Value::Array(vec![])),
        ("kv", Value::Map(vec![])),
        ("service.name", text("shadow")),
    ];
    MemoryScan::new(vec![
        batch(&[
            ("web", Span { kind: 2, status_code: 2, ..span(1, 1, 0, "GET /", &[("lvl", Value::Int(0))]) }),
            ("cart", span(1, 2, 1, "load", &[("lvl", Value::Int(1))])),
            ("cart", span(1, 3, 1, "save", &[("lvl", Value::Int(1)), ("x", Value::Int(7))])),
        ]),
        batch(&[
            ("db", Span { kind: 3, ..span(1, 4, 3, "INSERT", &[("lvl", Value::Int(2)), ("x", Value::Int(8))]) }),
            ("api", Span { events, links, scope, ..span(2, 1, 0, "zoo", &values) }),
            ("", span(3, 5, 9, "orphan", &[])),
        ]),
    ])
}

fn params() -> SearchParams {
    SearchParams { range: None, limit: 20, spans_per_spanset: 100 }
}

/// Each matching trace with the names of its spans, by number, ascending.
fn found(query: &str) -> Result<Vec<(u8, Vec<u8>)>> {
    let answer = block_on(search(&sample(), query, &params(), &context()))?;
    // In a range, spans that pass are found first and their traces read after; the answer is the same.
    let ranged = SearchParams { range: Some(TimeRange::new(T0_NS, T0_NS + 600 * NS_PER_S)), ..params() };
    for scan in [sample(), sample().narrowing()] {
        let again = block_on(search(&scan, query, &ranged, &context()))?;
        assert_eq!(again.traces, answer.traces, "{query}");
    }
    let numbers = |trace: &FoundTrace| {
        let mut spans: Vec<u8> =
            trace.span_sets.iter().flat_map(|set| set.spans.iter().map(|span| span.span_id[0])).collect();
        spans.sort_unstable();
        (trace.trace_id[0], spans)
    };
    let mut list: Vec<(u8, Vec<u8>)> = answer.traces.iter().map(numbers).collect();
    list.sort();
    Ok(list)
}

fn check_search(query: &str, expected: &[(u8, &[u8])]) {
    let expected: Vec<(u8, Vec<u8>)> = expected.iter().map(|(trace, spans)| (*trace, spans.to_vec())).collect();
    assert_eq!(found(query).unwrap_or_else(|error| panic!("{query}: {error}")), expected, "{query}");
}

const ZOO: &[(u8, &[u8])] = &[(2, &[1])];

#[test]
fn comparisons_are_typed_and_missing_values_compare_false() {
    for holds in [
        r#"{ span.s = "GET" }"#,
        r#"{ .s =~ "G.T" }"#,
        r#"{ span.s > "A" && span.s < "H" }"#,
        "{ span.i = 10 && span.i >= 10.0 && 5 < span.i }",
        "{ span.f = 1 }",
        "{ span.b = false && !span.b && span.b != true }",
        r#"{ span.empty = "" && span.empty != nil }"#,
        "{ span.i * 2 + 1 = 21 && span.i / 4 = 2 && span.i % 3 = 1 }",
        "{ -span.i < -9 }",
        "{ span.i > 3 = true }",
        r#"{ span.i = 10 || span.nope = "x" }"#,
        r#"{ .service.name = "shadow" && resource.service.name = "api" }"#,
        r#"{ instrumentation:name = "lib" && instrumentation.lvl = 3 }"#,
        "{ span.nope = nil && span.i = 10 }",
        "{ span.none = nil && span.kv = nil && span.mixed = nil && span.i = 10 }",
        "{ !(span.i > 30) && span.i = 10 }",
        "{ duration = 100ms && duration = 100000000 && span.i = 10 }",
    ] {
        check_search(holds, ZOO);
    }
    for fails in [
        r#"{ span.s = "get" }"#,
        r#"{ span.s =~ "G" }"#,
        r#"{ span.i = "10" }"#,
        r#"{ span.i != "10" }"#,
        r#"{ span.nope != "x" }"#,
        r#"{ span.nope !~ "x" }"#,
        "{ span.mixed = 1 }",
        "{ span.b }",
        "{ nil = nil }",
        "{ nil != nil }",
        "{ event.s = 1 }",
        "{ .lib = 1 }",
    ] {
        check_search(fails, &[]);
    }
}

#[test]
fn an_array_holds_if_any_element_does() {
    for holds in ["{ span.ints = 1 && span.ints = 2 }", "{ 1 < span.ints }", "{ span.ints != 3 }"] {
        check_search(holds, ZOO);
    }
    check_search("{ span.ints != 2 }", &[]);
    check_search("{ span.ints > 2 }", &[]);
}

#[test]
fn conditions_on_events_hold_for_one_event() {
    for holds in [
        "{ event.n = 2 && event.tag = \"alpha\" }",
        "{ event.n != 1 }",
        "{ event.n = 1 } && { event.n = 2 }",
        "{ event.tag != nil }",
        "{ event.nope = nil && span.i = 10 }",
        "{ event:name = \"end\" && event.n = 2 }",
        "{ link:spanID = \"0404040404040404\" }",
        "{ link:traceID = \"01010101010101010101010101010101\" }",
    ] {
        check_search(holds, ZOO);
    }
    check_search("{ event.n = 1 && event.tag = \"alpha\" }", &[]);
    check_search("{ event.tag = nil && span.i = 10 }", &[]);
}

#[test]
fn structural_operators_follow_parents() {
    let cases: &[(&str, &[u8])] = &[
        ("{ .lvl = 0 } > { }", &[2, 3]),
        ("{ .lvl = 0 } >> { }", &[2, 3, 4]),
        ("{ .lvl = 2 } < { }", &[3]),
        ("{ .lvl = 2 } << { }", &[1, 3]),
        ("{ name = \"load\" } ~ { }", &[3]),
        ("{ .lvl = 0 } !> { .lvl >= 0 }", &[1, 4]),
        ("{ .lvl = 9 } !> { .lvl >= 1 }", &[2, 3, 4]),
        ("{ .lvl <= 1 } &> { .lvl = 2 }", &[3, 4]),
        ("{ .lvl = 0 } > { .lvl = 1 } > { }", &[4]),
        ("{ .lvl = 0 } && { .lvl = 2 }", &[1, 4]),
        ("{ .lvl = 0 } && { .lvl = 3 }", &[]),
        ("{ .lvl = 0 } || { .lvl = 3 }", &[1]),
        ("{ nestedSetParent < 0 && .lvl = 0 }", &[1]),
        ("{ span:childCount = 2 }", &[1]),
        ("{ nestedSetLeft > 1 && nestedSetParent = 1 }", &[2, 3]),
    ];
    for (query, spans) in cases {
        if spans.is_empty() {
            check_search(query, &[]);
        } else {
            check_search(query, &[(1, spans)]);
        }
    }
}

#[test]
fn pipelines_group_aggregate_and_join() {
    check_search("{ } | count() > 3", &[(1, &[1, 2, 3, 4])]);
    check_search("{ .lvl >= 0 } | { .x > 7 }", &[(1, &[4])]);
    check_search("{ } | avg(span.x) = 7.5", &[(1, &[1, 2, 3, 4])]);
    check_search("{ } | sum(duration) >= 1s", &[(1, &[1, 2, 3, 4])]);
    check_search("{ } | max(span.nope) > 0", &[]);
    check_search("{ .lvl >= 0 } | by(resource.service.name) | count() > 1 | coalesce()", &[(1, &[2, 3])]);
    check_search("({ .x > 0 } | count() > 1) && ({ .lvl = 0 } | count() = 1)", &[(1, &[1, 3, 4])]);
    let answer = block_on(search(&sample(), "{ .lvl >= 0 } | by(span.x)", &params(), &context())).expect("runs");
    let groups: Vec<(usize, Attributes)> =
        answer.traces[0].span_sets.iter().map(|set| (set.matched, set.attributes.clone())).collect();
    let by = |value| vec![("by(span.x)".to_owned(), value)];
    assert_eq!(groups, [(2, by(text("nil"))), (1, by(Value::Int(7))), (1, by(Value::Int(8)))]);
    let split = found("{ } | by(span.lvl) | { } > { }").expect_err("structural after by");
    assert!(split.message.contains("coalesce"), "{split}");
    let zero = found("{ span.x / 0 = 1 }").expect_err("division");
    assert_eq!(zero.message, "division by zero");
}

#[test]
fn an_answer_tells_of_the_trace_and_of_what_was_asked() {
    let query = "{ span.x = 7 } | select(name, kind, span.lvl, statusMessage)";
    let answer = block_on(search(&sample(), query, &params(), &context())).expect("runs");
    let [trace] = answer.traces.as_slice() else { panic!("one trace: {answer:?}") };
    assert_eq!((trace.root_service_name.as_str(), trace.root_trace_name.as_str()), ("web", "GET /"));
    // From the first start (second 1) to the latest end (second 4 and 0.4).
    assert_eq!((trace.start_ns - T0_NS, trace.duration_ns), (61 * NS_PER_S, 3_400_000_000));
    let stats = |span_count, error_count| ServiceStats { span_count, error_count };
    let expected = [("cart", stats(2, 0)), ("db", stats(1, 0)), ("web", stats(1, 1))];
    assert_eq!(trace.service_stats, expected.map(|(name, stats)| (name.to_owned(), stats)).into());
    let [span] = trace.span_sets[0].spans.as_slice() else { panic!("one span") };
    assert_eq!((span.name.as_str(), span.duration_ns), ("save", 300_000_000));
    let expected =
        [("x", Value::Int(7)), ("kind", text("unspecified")), ("lvl", Value::Int(1)), ("statusMessage", text(""))];
    assert_eq!(span.attributes, attributes(&expected));
    let orphan = block_on(search(&sample(), "{ name = \"orphan\" }", &params(), &context())).expect("runs");
    assert_eq!(orphan.traces[0].root_service_name, "<root span not yet received>");
    assert_eq!(orphan.traces[0].root_trace_name, "");
}

#[test]
fn the_newest_traces_that_touch_the_range_are_found_whole() {
    let at = |range, limit| {
        let params = SearchParams { range, limit, spans_per_spanset: 3 };
        let answer = block_on(search(&sample(), "{ }", &params, &context())).expect("runs");
        answer.traces.iter().map(|t| (t.trace_id[0], t.span_sets[0].matched)).collect::<Vec<_>>()
    };
    assert_eq!(at(None, 20), [(3, 1), (2, 1), (1, 4)]);
    assert_eq!(at(None, 1), [(3, 1)]);
    let second = |from: i64, to: i64| {
        Some(TimeRange::closed_ns(
            storage::model::time::TimestampNs(T0_NS + from * NS_PER_S),
            storage::model::time::TimestampNs(T0_NS + to * NS_PER_S),
        ))
    };
    // Trace 1 lasts from second 61 to 64.4: a touch of its end brings all of it.
    assert_eq!(at(second(64, 70), 20), [(1, 4)]);
    assert_eq!(at(second(50, 61), 20), [(1, 4)]);
    assert_eq!(at(second(65, 70), 20), []);
    // The orphan is read again from a wider window.
    assert_eq!(at(second(185, 185), 20), [(3, 1)]);
}

#[test]
fn traces_by_id_come_whole_with_their_resources() {
    let trace = block_on(trace_by_id(&sample(), [1; 16], None, &context())).expect("runs").expect("is there");
    let spans: usize = trace.resources.iter().map(|(_, spans)| spans.len()).sum();
    assert_eq!((trace.resources.len(), spans), (3, 4));
    assert!(trace.resources.iter().all(|(labels, _)| labels.get("service.name").is_some()));
    assert_eq!(block_on(trace_by_id(&sample(), [7; 16], None, &context())).expect("runs"), None);
}

#[test]
fn a_trace_can_be_asked_for_in_part() {
    let part = |query: &str, ancestors, descendants| {
        let filter = TraceFilter { query: query.into(), ancestors, descendants };
        let found = block_on(filtered_trace(&sample(), [1; 16], None, &filter, &context()))?;
        let found = found.expect("is there");
        let mut ids: Vec<u8> =
            found.trace.resources.iter().flat_map(|(_, spans)| spans.iter().map(|span| span.span_id[0])).collect();
        ids.sort_unstable();
        Result::Ok((ids, found.dropped))
    };
    assert_eq!(part("{ .x = 8 }", Some(0), Some(0)).expect("runs"), (vec![4], true));
    assert_eq!(part("{ .x = 8 }", Some(1), Some(0)).expect("runs"), (vec![3, 4], true));
    assert_eq!(part("{ .x = 8 }", None, Some(0)).expect("runs"), (vec![1, 3, 4], true));
    assert_eq!(part("{ .x = 7 }", Some(0), None).expect("runs"), (vec![3, 4], true));
    assert_eq!(part("{ true }", Some(0), Some(0)).expect("runs"), (vec![1, 2, 3, 4], false));
    for query in ["{ } | rate()", "{ } > { }", "{ } | count() > 1", "{ bad", "{ rootName = \"x\" }"] {
        let error: Error = part(query, None, None).expect_err("refused");
        assert!(error.message.starts_with("invalid TraceQL filter: "), "{query}: {error}");
    }
}

#[test]
fn dictionaries_know_what_a_scan_finds() {
    // A filter that all spans pass makes them be read.
    const ALL: &str = "{ span:duration >= 0s }";
    let (scan, context) = (sample(), context());
    let names = |filter| block_on(tag_names(&scan, None, filter, None, &context)).expect("runs");
    assert_eq!(names(""), names(ALL));
    for name in ["name", "statusMessage", "instrumentation:name", "event:name", ".x", "span.x", "resource.service.name"]
    {
        let values = |filter| block_on(tag_values(&scan, name, filter, None, &context)).expect("runs");
        assert_eq!(values(""), values(ALL), "{name}");
    }
    for name in [".lvl", "event.n", "event.tag", "link.x", "instrumentation.x", ".service.name", ".nothing", "rootName"]
    {
        let values = |filter| block_on(tag_values(&scan, name, filter, None, &context)).expect("runs");
        assert_eq!(values(""), values(ALL), "{name}");
    }
}

#[test]
fn tags_and_their_values_follow_a_half_written_query() {
    let names = |scope, filter: &str| block_on(tag_names(&sample(), scope, filter, None, &context())).expect("runs");
    assert_eq!(
        names(Some(TagScope::Span), "{ span.x = 7 && span.y = }"),
        [(TagScope::Span, vec!["lvl".into(), "x".into()])]
    );
    assert_eq!(names(Some(TagScope::Event), ""), [(TagScope::Event, vec!["n".into(), "tag".into()])]);
    assert_eq!(names(Some(TagScope::Link), ""), []);
    let all: Vec<TagScope> = names(None, "").into_iter().map(|(scope, _)| scope).collect();
    assert_eq!(
        all,
        [TagScope::Resource, TagScope::Span, TagScope::Event, TagScope::Instrumentation, TagScope::Intrinsic]
    );
    let values = |name: &str, filter: &str| {
        let list = block_on(tag_values(&sample(), name, filter, None, &context())).expect("runs");
        list.into_iter().map(|value| format!("{} {}", value.kind, value.value)).collect::<Vec<_>>()
    };
    assert_eq!(values("span.ints", ""), ["int 1", "int 2"]);
    assert_eq!(values("span.f", ""), ["float 1.0"]);
    assert_eq!(values("span.kv", ""), [] as [&str; 0]);
    assert_eq!(values("resource.service.name", "{ span.x > 0 }"), ["string cart", "string db"]);
    assert_eq!(values("status", ""), ["keyword unset", "keyword ok", "keyword error"]);
    assert_eq!(values("event:name", ""), ["string end", "string start"]);
    assert_eq!(values("duration", ""), [] as [&str; 0]);
    let refused = block_on(tag_values(&sample(), "nodot", "", None, &context())).expect_err("no identifier");
    assert!(refused.message.starts_with("please provide a valid tagName"), "{refused}");
    let legacy = block_on(legacy_tag_values(&sample(), "service.name", None, &context())).expect("runs");
    assert_eq!(legacy, ["", "api", "cart", "db", "shadow", "web"]);
}

#[test]
fn legacy_tags_may_hold_on_different_spans() {
    let found = |tags: &[(&str, &str)], min: Option<i64>| {
        let tags: Vec<(String, String)> = tags.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let answer = block_on(search_tags(&sample(), &tags, min, None, &params(), &context())).expect("runs");
        answer.traces.iter().map(|trace| trace.trace_id[0]).collect::<Vec<_>>()
    };
    assert_eq!(found(&[("service.name", "we"), ("name", "INS")], None), [1]);
    assert_eq!(found(&[("status.code", "error")], None), [1]);
    assert_eq!(found(&[("i", "10"), ("lvl", "0")], None), [] as [u8; 0]);
    assert_eq!(found(&[], Some(NS_PER_S)), [1]);
}

#[test]
fn metrics_count_spans_by_their_start() {
    let params = MetricsParams {
        start_ns: T0_NS + 60 * NS_PER_S,
        end_ns: T0_NS + 66 * NS_PER_S,
        step_ns: 2 * NS_PER_S,
        exemplars_max: 10,
        series_max: 0,
    };
    let run = |query: &str| {
        let limits = MetricsLimits::default();
        block_on(metrics_range(&sample(), query, &params, &limits, &context())).expect("runs").series
    };
    let samples = |query: &str| {
        run(query).iter().map(|s| s.samples.iter().map(|(_, v)| *v).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    // Starts at seconds 61, 62, 63, 64; samples at 60, 62, 64, 66.
    assert_eq!(samples("{ } | count_over_time()"), [[0.0, 2.0, 2.0, 0.0]]);
    assert_eq!(samples("{ } | rate()"), [[0.0, 1.0, 1.0, 0.0]]);
    assert_eq!(samples("{ } | max_over_time(duration)"), [[0.2, 0.4]]);
    assert_eq!(samples("{ } | sum_over_time(span.x)"), [[15.0]]);
    // Of equal samples that of the first label stays: cart's.
    assert_eq!(samples("{ } | rate() by(resource.service.name) | topk(1)"), [[0.0, 0.5, 0.5, 0.0]]);
    assert_eq!(samples("({ } | count_over_time()) / ({ .lvl = 1 } | count_over_time())"), [[2.0, 2.0]]);
    assert_eq!(samples("{ } | count_over_time() > 1"), [[2.0, 2.0]]);
    assert_eq!(samples("{ name = \"nope\" } | rate()"), [[0.0; 4]]);
    assert_eq!(samples("{ name = \"nope\" } | rate() by(name)"), [] as [Vec<f64>; 0]);
    let exemplars = &run("{ .lvl = 2 } | rate()")[0].exemplars;
    assert_eq!(exemplars[0].labels[0], ("trace:id".to_owned(), text("1010101010101010101010101010101")));
    assert_eq!(exemplars[0].timestamp_ms, (T0_NS + 64 * NS_PER_S) / 1_000_000);
}

#[test]
fn a_chain_of_fifty_thousand_spans_is_one_trace() {
    let mut builder = TracesBuilder::new();
    let resource = builder.resource(&[]);
    for i in 0..50_000u64 {
        let chained = Span {
            trace_id: [9; 16],
            span_id: (i + 1).to_be_bytes(),
            parent_span_id: (i > 0).then(|| i.to_be_bytes()),
            start_ns: T0_NS + i64::try_from(i).expect("small"),
            ..Span::default()
        };
        builder.span(&resource, &chained).expect("fits");
    }
    let scan = MemoryScan::new(vec![builder.finish().expect("builds")]);
    let big = Context::new(Tenant::single(), Share::root("test", 4 << 30));
    let query = "{ nestedSetParent < 0 } >> { nestedSetLeft = 50000 }";
    let answer = block_on(search(&scan, query, &params(), &big)).expect("runs");
    assert_eq!(answer.traces[0].span_sets[0].matched, 1);
    let small = Context::new(Tenant::single(), Share::root("test", 1 << 20));
    let refused = block_on(search(&scan, query, &params(), &small)).expect_err("over the share");
    assert_eq!(refused.kind, Kind::Limit);
}

/// What handlers await must be able to move between threads.
#[test]
fn futures_can_be_sent() {
    fn sent<T: Send>(_: &T) {}
    let (scan, params, context) = (sample(), params(), context());
    sent(&search(&scan, "", &params, &context));
    sent(&search_tags(&scan, &[], None, None, &params, &context));
    sent(&tag_names(&scan, None, "", None, &context));
    sent(&tag_values(&scan, "name", "", None, &context));
}

//! Spans in, samples out: names, labels, pairing, limits, by the words of Tempo's metrics generator.

use std::collections::BTreeMap;

use storage::model::batch::TracesBuilder;
use storage::model::columns::{ExemplarColumns, SampleColumns};
use storage::model::histogram::is_stale;
use storage::model::span::Span;
use storage::model::value::Value;

use super::*;

const SECOND: i64 = 1_000_000_000;
const NOW: TimestampNs = TimestampNs(1_767_571_200 * SECOND);

struct One<'a> {
    service: &'a str,
    name: &'a str,
    kind: i32,
    id: u8,
    parent: u8,
    ms: i64,
    failed: bool,
    attributes: &'a [(&'a str, &'a str)],
}

const CALL: One<'static> =
    One { service: "api", name: "GET /", kind: 2, id: 1, parent: 0, ms: 3, failed: false, attributes: &[] };

fn batch(spans: &[One<'_>]) -> Batch {
    let mut builder = TracesBuilder::new();
    for one in spans {
        let service = match one.service {
            "" => vec![],
            name => vec![("service.name".to_owned(), Value::String(name.to_owned()))],
        };
        let resource = builder.resource(&service);
        let attribute = |(key, value): &(&str, &str)| ((*key).to_owned(), Value::String((*value).to_owned()));
        let span = Span {
            trace_id: [7; 16],
            span_id: [one.id; 8],
            parent_span_id: (one.parent > 0).then_some([one.parent; 8]),
            name: one.name.to_owned(),
            kind: one.kind,
            start_ns: NOW.0 - one.ms * 1_000_000,
            duration_ns: one.ms * 1_000_000,
            status_code: if one.failed { 2 } else { 0 },
            attributes: one.attributes.iter().map(attribute).collect(),
            ..Span::default()
        };
        builder.span(&resource, &span).expect("fits");
    }
    builder.finish().expect("a batch")
}

fn after(seconds: i64) -> TimestampNs {
    TimestampNs(NOW.0 + seconds * SECOND)
}

/// `name{labels}` → (milliseconds after `NOW`, value) of each sample.
fn samples(batch: &Batch) -> BTreeMap<String, Vec<(i64, f64)>> {
    let names: BTreeMap<i64, String> =
        batch.identities.iter().map(|series| (series.id.to_column(), series.labels.to_string())).collect();
    let rows = batch.table(Table::Samples).expect("samples");
    let columns = SampleColumns::new(rows).expect("columns");
    let mut found: BTreeMap<String, Vec<(i64, f64)>> = BTreeMap::new();
    for row in 0..rows.num_rows() {
        let name = names[&columns.series_id.value(row)].clone();
        found.entry(name).or_default().push((columns.ts_ms.value(row) - NOW.to_ms().0, columns.value.value(row)));
    }
    found
}

fn of<'a>(found: &'a BTreeMap<String, Vec<(i64, f64)>>, parts: &[&str]) -> &'a [(i64, f64)] {
    let matching: Vec<_> = found.iter().filter(|(name, _)| parts.iter().all(|part| name.contains(part))).collect();
    assert_eq!(matching.len(), 1, "{parts:?} in {:?}", found.keys());
    matching[0].1
}

#[test]
fn calls_are_counted_by_service_name_kind_and_status() {
    let mut generator = Generator::new(Settings::default(), NOW);
    generator
        .observe(&batch(&[CALL, One { id: 2, ..CALL }, One { id: 3, failed: true, ms: 20_000, ..CALL }]), NOW)
        .expect("spans");
    let found = samples(&generator.collect(after(15)).expect("collects").expect("samples"));
    let fine = ["service=\"api\"", "span_name=\"GET /\"", "SPAN_KIND_SERVER", "STATUS_CODE_UNSET"];
    let with = |more: &[&'static str]| [&fine[..], more].concat();
    // The first sample of a series is a 0 at the collection before.
    assert_eq!(of(&found, &with(&["calls_total"])), [(0, 0.0), (15_000, 2.0)]);
    assert_eq!(of(&found, &with(&["latency_bucket", "le=\"0.002\""])), [(0, 0.0), (15_000, 0.0)]);
    assert_eq!(of(&found, &with(&["latency_bucket", "le=\"0.004\""])), [(0, 0.0), (15_000, 2.0)]);
    assert_eq!(of(&found, &with(&["latency_count"])), [(0, 0.0), (15_000, 2.0)]);
    let failed = ["calls_total", "STATUS_CODE_ERROR"];
    assert_eq!(of(&found, &failed), [(0, 0.0), (15_000, 1.0)]);
    assert_eq!(of(&found, &["latency_bucket", "STATUS_CODE_ERROR", "le=\"16.384\""]), [(0, 0.0), (15_000, 0.0)]);
    assert_eq!(of(&found, &["latency_bucket", "STATUS_CODE_ERROR", "le=\"+Inf\""]), [(0, 0.0), (15_000, 1.0)]);

    generator.observe(&batch(&[CALL]), after(20)).expect("spans");
    let found = samples(&generator.collect(after(30)).expect("collects").expect("samples"));
    assert_eq!(of(&found, &with(&["calls_total"])), [(30_000, 3.0)]);
}

#[test]
fn each_bucket_has_the_newest_exemplar_once() {
    let mut generator = Generator::new(Settings::default(), NOW);
    generator.observe(&batch(&[CALL]), NOW).expect("spans");
    let first = generator.collect(after(5)).expect("collects").expect("samples");
    let rows = first.table(Table::Exemplars).expect("exemplars");
    let columns = ExemplarColumns::new(rows).expect("columns");
    // Of a server's root span only span metrics know yet: its caller may still come.
    assert_eq!(rows.num_rows(), 1);
    assert_eq!(columns.labels(0), [("traceID".to_owned(), "07".repeat(16))]);
    let second = generator.collect(after(15)).expect("collects").expect("samples");
    assert!(
        second.table(Table::Exemplars).is_some_and(|rows| rows.num_rows() == 1),
        "only the graph's, found meanwhile"
    );
}

#[test]
fn two_sides_of_a_call_are_one_edge() {
    let client = One { service: "web", name: "call", kind: 3, id: 2, parent: 1, ms: 300, ..CALL };
    let server = One { service: "cart", kind: 2, id: 3, parent: 2, ms: 200, failed: true, ..CALL };
    for order in [[0, 1], [1, 0]] {
        let mut generator = Generator::new(Settings::default(), NOW);
        for side in order {
            let one = if side == 0 { One { ..client } } else { One { ..server } };
            generator.observe(&batch(&[one]), NOW).expect("spans");
        }
        let found = samples(&generator.collect(after(15)).expect("collects").expect("samples"));
        let edge = ["client=\"web\"", "server=\"cart\""];
        let with = |more: &[&'static str]| [&edge[..], more].concat();
        assert_eq!(of(&found, &with(&["request_total"])).last(), Some(&(15_000, 1.0)));
        assert_eq!(of(&found, &with(&["request_failed_total"])).last(), Some(&(15_000, 1.0)));
        assert_eq!(of(&found, &with(&["server_seconds_sum"])).last(), Some(&(15_000, 0.2)));
        assert_eq!(of(&found, &with(&["client_seconds_bucket", "le=\"0.4\""])).last(), Some(&(15_000, 1.0)));
        assert!(!found.keys().any(|name| name.contains("connection_type")), "a direct call has no type");
    }
}

#[test]
fn databases_queues_and_strangers_are_edges_too() {
    let query = One { service: "cart", kind: 3, id: 4, attributes: &[("db.system", "postgresql")], ..CALL };
    let sent = One { service: "api", kind: 4, id: 5, ..CALL };
    let taken = One { service: "worker", kind: 5, id: 6, parent: 5, ..CALL };
    let root = One { service: "api", kind: 2, id: 7, ..CALL };
    let out = One { service: "api", kind: 3, id: 8, attributes: &[("peer.service", "stripe")], ..CALL };
    let lost = One { service: "api", kind: 3, id: 9, ..CALL };
    let mut generator = Generator::new(Settings::default(), NOW);
    generator.observe(&batch(&[query, sent, taken, root, out, lost]), NOW).expect("spans");
    let early = samples(&generator.collect(after(5)).expect("collects").expect("samples"));
    assert!(!early.keys().any(|name| name.contains("virtual_node")), "those sides still wait");
    let found = samples(&generator.collect(after(15)).expect("collects").expect("samples"));
    let requests = |client: &'static str, server: &'static str, kind: &'static str| {
        of(&found, &["request_total", client, server, kind]).last().map(|(_, value)| *value)
    };
    assert_eq!(requests("client=\"cart\"", "server=\"postgresql\"", "database"), Some(1.0));
    assert_eq!(requests("client=\"api\"", "server=\"worker\"", "messaging_system"), Some(1.0));
    assert_eq!(requests("client=\"user\"", "server=\"api\"", "virtual_node"), Some(1.0));
    assert_eq!(requests("client=\"api\"", "server=\"stripe\"", "virtual_node"), Some(1.0));
    assert_eq!(generator.counts().edges_expired, 1, "a client that names nobody");
}

#[test]
fn limits_hold_and_are_counted() {
    let settings = Settings { series_max: 2, edges_max: 1, ..Settings::default() };
    let mut generator = Generator::new(settings, NOW);
    let names = ["a", "b", "c"];
    let spans: Vec<One<'_>> = (1..).zip(names).map(|(id, name)| One { name, kind: 3, id, ..CALL }).collect();
    generator.observe(&batch(&spans), NOW).expect("spans");
    assert_eq!((generator.counts().over_limit, generator.counts().edges_dropped), (1, 2));
    let old = Generator::new(Settings::default(), NOW);
    let mut old = old;
    old.observe(&batch(&[CALL]), after(31)).expect("spans");
    assert_eq!((old.counts().too_old, old.counts().spans), (1, 0));
    assert!(old.collect(after(40)).expect("collects").is_none());
}

#[test]
fn long_texts_are_left_out_or_cut() {
    let long = "é".repeat(TEXT_BYTES_MAX);
    let settings = Settings { dimensions: vec!["k".into()], ..Settings::default() };
    let mut generator = Generator::new(settings, NOW);
    let named = One { name: &long, id: 2, ..CALL };
    generator.observe(&batch(&[named, One { attributes: &[("k", &long)], ..CALL }]), NOW).expect("spans");
    assert_eq!((generator.counts().over_limit, generator.counts().spans), (1, 1));
    let found = samples(&generator.collect(after(15)).expect("collects").expect("samples"));
    let cut = "é".repeat(TEXT_BYTES_MAX / 2);
    of(&found, &["calls_total", &format!("k=\"{cut}\"")]);
}

#[test]
fn idle_series_end_with_a_staleness_marker() {
    let mut generator = Generator::new(Settings::default(), NOW);
    generator.observe(&batch(&[CALL]), NOW).expect("spans");
    generator.collect(after(15)).expect("collects");
    let found = samples(&generator.collect(after(1000)).expect("collects").expect("samples"));
    let last = of(&found, &["calls_total"]);
    assert!(last.len() == 1 && is_stale(last[0].1), "{last:?}");
    assert!(generator.collect(after(1015)).expect("collects").is_none(), "nothing is left");
}

#[test]
fn dimensions_come_from_the_resource_or_else_the_span() {
    let settings = Settings { dimensions: vec!["http.method".into(), "service.name".into()], ..Settings::default() };
    let mut generator = Generator::new(settings, NOW);
    generator.observe(&batch(&[One { attributes: &[("http.method", "GET")], ..CALL }]), NOW).expect("spans");
    let found = samples(&generator.collect(after(15)).expect("collects").expect("samples"));
    of(&found, &["calls_total", "http_method=\"GET\"", "service_name=\"api\""]);
}

#[test]
fn native_histograms_can_be_asked_for() {
    let settings = Settings { histograms: Histograms::Both, ..Settings::default() };
    let mut generator = Generator::new(settings, NOW);
    generator.observe(&batch(&[CALL]), NOW).expect("spans");
    let made = generator.collect(after(15)).expect("collects").expect("samples");
    assert_eq!(made.table(Table::Histograms).map(|rows| rows.num_rows()), Some(3), "latency and two of the edge");
}

//! Requests to rows, rule by rule.

use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value as Any,
};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
    NumberDataPoint, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar, number_data_point::Value,
    summary_data_point::ValueAtQuantile,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::prelude::*;
use storage::model::columns::{ExemplarColumns, HistogramColumns, MetadataColumns, SampleColumns};
use storage::model::histogram::{BucketSpan, is_stale};
use storage::signal::Table;

use super::*;

const T0_NS: u64 = 1_700_000_000_000_000_000;
const S_NS: u64 = 1_000_000_000;

fn attribute(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Any::StringValue(value.to_owned()))
}

fn metric(name: &str, unit: &str, data: Data) -> Metric {
    Metric {
        name: name.to_owned(),
        unit: unit.to_owned(),
        description: "d".to_owned(),
        data: Some(data),
        ..Default::default()
    }
}

fn number(value: f64, attributes: Vec<KeyValue>) -> NumberDataPoint {
    NumberDataPoint { time_unix_nano: T0_NS, value: Some(Value::AsDouble(value)), attributes, ..Default::default() }
}

fn gauge(points: Vec<NumberDataPoint>) -> Data {
    Data::Gauge(Gauge { data_points: points })
}

fn sum(points: Vec<NumberDataPoint>, temporality: i32, is_monotonic: bool) -> Data {
    Data::Sum(Sum { data_points: points, aggregation_temporality: temporality, is_monotonic })
}

const DELTA: i32 = 1;
const CUMULATIVE: i32 = 2;

fn request(resource: Vec<KeyValue>, metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let scope = InstrumentationScope {
        name: "lib".to_owned(),
        version: "1.2".to_owned(),
        attributes: vec![text("a.b", "c")],
        ..Default::default()
    };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource { attributes: resource, ..Default::default() }),
            scope_metrics: vec![ScopeMetrics { scope: Some(scope), metrics, schema_url: "u".to_owned() }],
            ..Default::default()
        }],
    }
}

fn decoded_with(request: &ExportMetricsServiceRequest, settings: &OtlpMetricsSettings) -> Decoded {
    decode(request, settings, &Limits::default()).unwrap()
}

fn decoded(metrics: Vec<Metric>) -> Decoded {
    decoded_with(&request(Vec::new(), metrics), &OtlpMetricsSettings::default())
}

fn labels_of(batch: &Batch, id: i64) -> String {
    let identity = batch.identities.iter().find(|identity| identity.id == IdentityId::from_column(id)).unwrap();
    identity.labels.to_string()
}

/// `{labels} seconds-after-T0 value`, in the order of the batch.
fn rows(batch: &Batch) -> Vec<String> {
    let Some(rows) = batch.table(Table::Samples) else { return Vec::new() };
    let columns = SampleColumns::new(rows).unwrap();
    let line = |row: usize| {
        let value = columns.value.value(row);
        let value = if is_stale(value) { "stale".to_owned() } else { value.to_string() };
        let seconds = (columns.ts_ms.value(row) - to_ms(T0_NS).0) / 1000;
        format!("{} {seconds} {value}", labels_of(batch, columns.series_id.value(row)))
    };
    (0..rows.num_rows()).map(line).collect()
}

fn native(batch: &Batch) -> storage::model::histogram::Histogram {
    HistogramColumns::new(batch.table(Table::Histograms).unwrap()).unwrap().histogram(0)
}

#[test]
fn gauges_and_sums_are_single_series() {
    let mut whole = number(0.0, vec![text("m", "GET")]);
    whole.value = Some(Value::AsInt(7));
    whole.start_time_unix_nano = T0_NS - S_NS;
    let decoded = decoded(vec![
        metric("memory.usage", "By", gauge(vec![number(3.5, Vec::new())])),
        metric("cpu.time", "s", sum(vec![whole], CUMULATIVE, true)),
        metric("queue", "1", sum(vec![number(2.0, Vec::new())], CUMULATIVE, false)),
    ]);
    assert_eq!(
        rows(&decoded.batch),
        [
            r#"{__name__="memory_usage_bytes"} 0 3.5"#,
            r#"{__name__="cpu_time_seconds_total", m="GET"} 0 7"#,
            r#"{__name__="queue"} 0 2"#
        ]
    );
    let samples = SampleColumns::new(decoded.batch.table(Table::Samples).unwrap()).unwrap();
    assert_eq!(samples.start_ts_ms.value(1), to_ms(T0_NS).0 - 1000);
    let metadata = MetadataColumns::new(decoded.batch.table(Table::MetricMetadata).unwrap()).unwrap();
    assert_eq!(metadata.row(0), ["memory_usage_bytes", "gauge", "bytes", "d"]);
    assert_eq!(metadata.row(1), ["cpu_time_seconds_total", "counter", "seconds", "d"]);
    assert_eq!(metadata.row(2), ["queue", "gauge", "", "d"]);
    assert_eq!((decoded.rejected_points, decoded.message.as_str()), (0, ""));
}

#[test]
fn attributes_become_labels() {
    let list = ArrayValue { values: vec![AnyValue { value: Some(Any::IntValue(1)) }] };
    let attributes = vec![
        text("http.method", "GET"),
        text("9lives", "y"),
        text("_hidden", "h"),
        attribute("ok", Any::BoolValue(false)),
        attribute("f", Any::DoubleValue(1.5)),
        attribute("list", Any::ArrayValue(list)),
        text("empty", ""),
        text("c.c", "1"),
        text("c_c", "2"),
        text("c-c", "3"),
    ];
    let decoded = decoded(vec![metric("x", "", gauge(vec![number(1.0, attributes)]))]);
    assert_eq!(
        rows(&decoded.batch),
        [concat!(
            r#"{__name__="x", c_c="3;1;2", f="1.5", http_method="GET", key_9lives="y", key_hidden="h", "#,
            r#"list="[1]", ok="false"} 0 1"#
        )]
    );
}

fn service() -> Vec<KeyValue> {
    vec![text("service.name", "checkout"), text("service.namespace", "shop"), text("service.instance.id", "i-1")]
}

#[test]
fn job_and_instance_override_attributes() {
    let point = number(1.0, vec![text("job", "mine"), text("instance", "z"), text("a", "b")]);
    let request = request(service(), vec![metric("x", "", gauge(vec![point]))]);
    let decoded = decoded_with(&request, &OtlpMetricsSettings::default());
    assert_eq!(rows(&decoded.batch), [r#"{__name__="x", a="b", instance="i-1", job="shop/checkout"} 0 1"#]);
}

#[test]
fn promotion_never_overrides_a_point() {
    let mut resource = service();
    resource.extend([text("k8s.pod", "p"), text("a", "resource"), text("other", "o")]);
    let request = request(resource, vec![metric("x", "", gauge(vec![number(1.0, vec![text("a", "point")])]))]);
    let settings = OtlpMetricsSettings {
        promote_resource_attributes: vec!["k8s.pod".to_owned(), "a".to_owned()],
        promote_scope_metadata: true,
        ..Default::default()
    };
    let first = |settings: &OtlpMetricsSettings| rows(&decoded_with(&request, settings).batch).remove(0);
    assert_eq!(
        first(&settings),
        concat!(
            r#"{__name__="x", a="point", instance="i-1", job="shop/checkout", k8s_pod="p", otel_scope_a_b="c", "#,
            r#"otel_scope_name="lib", otel_scope_schema_url="u", otel_scope_version="1.2"} 0 1"#
        )
    );
    let settings = OtlpMetricsSettings {
        promote_all_resource_attributes: true,
        ignore_resource_attributes: IGNORED.map(str::to_owned).to_vec(),
        type_and_unit_labels: true,
        ..Default::default()
    };
    assert_eq!(
        first(&settings),
        r#"{__name__="x", __type__="gauge", a="point", instance="i-1", job="shop/checkout", other="o"} 0 1"#
    );
}

const IGNORED: [&str; 4] = ["k8s.pod", "service.name", "service.namespace", "service.instance.id"];

#[test]
fn target_info_spans_the_batch() {
    let at = |seconds| NumberDataPoint { time_unix_nano: T0_NS + seconds * S_NS, ..number(1.0, Vec::new()) };
    let resource = vec![text("service.name", "a"), text("host.name", "h")];
    let request = request(resource, vec![metric("x", "", gauge(vec![at(400), at(0)]))]);
    let infos = |settings: &OtlpMetricsSettings| -> Vec<String> {
        rows(&decoded_with(&request, settings).batch).into_iter().filter(|row| row.contains("target_info")).collect()
    };
    let line = |seconds| format!(r#"{{__name__="target_info", host_name="h", job="a"}} {seconds} 1"#);
    assert_eq!(infos(&OtlpMetricsSettings::default()), [0, 150, 300, 400].map(line));
    let keeping = OtlpMetricsSettings { keep_identifying_resource_attributes: true, ..Default::default() };
    assert_eq!(infos(&keeping)[0], r#"{__name__="target_info", host_name="h", job="a", service_name="a"} 0 1"#);
}

#[test]
fn target_info_needs_an_identity_and_something_to_tell() {
    for resource in [service(), vec![text("host.name", "h")], Vec::new()] {
        let request = request(resource, vec![metric("x", "", gauge(vec![number(1.0, Vec::new())]))]);
        assert_eq!(rows(&decoded_with(&request, &OtlpMetricsSettings::default()).batch).len(), 1);
    }
}

#[test]
fn target_info_of_a_far_off_point_is_bounded() {
    let old = NumberDataPoint { time_unix_nano: 0, ..number(1.0, Vec::new()) };
    let resource = vec![text("service.name", "a"), text("host.name", "h")];
    let request = request(resource, vec![metric("x", "", gauge(vec![old, number(1.0, Vec::new())]))]);
    let rows = rows(&decoded_with(&request, &OtlpMetricsSettings::default()).batch);
    assert_eq!(rows.len(), 2 + 2881);
}

#[test]
fn delta_and_unknown_temporality_are_refused_and_counted() {
    let points = || vec![number(1.0, Vec::new()), number(2.0, vec![text("a", "b")])];
    let decoded = decoded(vec![
        metric("delta", "", sum(points(), DELTA, true)),
        metric("odd", "", sum(points(), 0, true)),
        metric("good", "", gauge(points())),
    ]);
    assert_eq!((decoded.rejected_points, decoded.batch.rows()), (4, 3));
    assert!(
        decoded.message.contains(r#"metric "delta": 2 point(s) refused, delta temporality"#),
        "{}",
        decoded.message
    );
    assert!(decoded.message.contains(r#"metric "odd""#));
}

#[test]
fn a_point_without_value_or_with_a_bad_label_is_refused_alone() {
    let nothing = NumberDataPoint { value: None, ..number(0.0, Vec::new()) };
    let points = vec![nothing, number(1.0, vec![text("__", "x")]), number(2.0, Vec::new())];
    let decoded = decoded(vec![metric("x", "", gauge(points)), metric("…", "", gauge(vec![number(1.0, Vec::new())]))]);
    assert_eq!(rows(&decoded.batch), [r#"{__name__="x"} 0 2"#]);
    assert_eq!(decoded.rejected_points, 3);
}

#[test]
fn of_one_series_and_time_the_first_stays() {
    let decoded = decoded(vec![metric("x", "", gauge(vec![number(1.0, Vec::new()), number(2.0, Vec::new())]))]);
    assert_eq!(rows(&decoded.batch), [r#"{__name__="x"} 0 1"#]);
    assert_eq!(decoded.rejected_points, 0);
}

fn explicit() -> HistogramDataPoint {
    HistogramDataPoint {
        time_unix_nano: T0_NS,
        count: 7,
        sum: Some(12.5),
        bucket_counts: vec![1, 0, 6],
        explicit_bounds: vec![0.5, 10.0],
        ..Default::default()
    }
}

fn histogram(point: HistogramDataPoint) -> Vec<Metric> {
    let data = Histogram { data_points: vec![point], aggregation_temporality: CUMULATIVE };
    vec![metric("dur", "ms", Data::Histogram(data))]
}

#[test]
fn explicit_bounds_become_classic_series() {
    assert_eq!(
        rows(&decoded(histogram(explicit())).batch),
        [
            r#"{__name__="dur_milliseconds_sum"} 0 12.5"#,
            r#"{__name__="dur_milliseconds_count"} 0 7"#,
            r#"{__name__="dur_milliseconds_bucket", le="0.5"} 0 1"#,
            r#"{__name__="dur_milliseconds_bucket", le="10"} 0 1"#,
            r#"{__name__="dur_milliseconds_bucket", le="+Inf"} 0 7"#
        ]
    );
    let without_sum = HistogramDataPoint { sum: None, ..explicit() };
    assert_eq!(rows(&decoded(histogram(without_sum)).batch).len(), 4);
}

#[test]
fn a_stale_histogram_marks_every_series() {
    let stale = HistogramDataPoint { flags: 1, sum: None, count: 0, bucket_counts: Vec::new(), ..explicit() };
    let rows = rows(&decoded(histogram(stale)).batch);
    assert!(rows.len() == 5 && rows.iter().all(|row| row.ends_with("stale")), "{rows:?}");
}

#[test]
fn a_histogram_whose_counts_do_not_fit_is_refused() {
    for bad in [
        HistogramDataPoint { bucket_counts: vec![1, 6], ..explicit() },
        HistogramDataPoint { explicit_bounds: vec![10.0, 0.5], ..explicit() },
        HistogramDataPoint { explicit_bounds: vec![0.5, f64::NAN], ..explicit() },
    ] {
        let decoded = decoded(histogram(bad));
        assert_eq!((decoded.rejected_points, decoded.batch.rows()), (1, 0), "{}", decoded.message);
    }
    let no_buckets = HistogramDataPoint { bucket_counts: Vec::new(), explicit_bounds: Vec::new(), ..explicit() };
    assert_eq!(rows(&decoded(histogram(no_buckets)).batch).len(), 3);
}

#[test]
fn explicit_bounds_become_custom_bounds_when_asked() {
    let settings = OtlpMetricsSettings { convert_histograms_to_nhcb: true, ..Default::default() };
    let decoded = decoded_with(&request(Vec::new(), histogram(explicit())), &settings);
    let histogram = native(&decoded.batch);
    assert_eq!((histogram.schema, histogram.count, histogram.sum), (SCHEMA_CUSTOM, 7.0, 12.5));
    assert_eq!(histogram.custom_values, [0.5, 10.0]);
    assert_eq!(histogram.positive_spans, [BucketSpan { offset: 0, length: 3 }]);
    assert_eq!(histogram.positive_buckets, [1.0, 0.0, 6.0]);
    assert_eq!(decoded.batch.identities[0].labels.to_string(), r#"{__name__="dur_milliseconds"}"#);
}

use storage::model::histogram::SCHEMA_CUSTOM;

fn exponential(scale: i32, offset: i32, counts: &[u64]) -> ExponentialHistogramDataPoint {
    ExponentialHistogramDataPoint {
        time_unix_nano: T0_NS,
        count: counts.iter().sum::<u64>() + 2,
        sum: Some(7.25),
        scale,
        zero_count: 2,
        positive: Some(Buckets { offset, bucket_counts: counts.to_vec() }),
        ..Default::default()
    }
}

fn exponentials(point: ExponentialHistogramDataPoint) -> Decoded {
    let data = ExponentialHistogram { data_points: vec![point], aggregation_temporality: CUMULATIVE };
    decoded(vec![metric("e", "s", Data::ExponentialHistogram(data))])
}

#[test]
fn exponential_histograms_become_native() {
    let mut point = exponential(0, 1, &[3, 0, 0, 0, 2]);
    point.negative = Some(Buckets { offset: -3, bucket_counts: vec![1] });
    point.count += 1;
    let histogram = native(&exponentials(point).batch);
    // Buckets 1 and 5 by lower bound are 2 and 6 by upper bound.
    assert_eq!(histogram.positive_spans, [BucketSpan { offset: 2, length: 1 }, BucketSpan { offset: 3, length: 1 }]);
    assert_eq!(histogram.positive_buckets, [3.0, 2.0]);
    assert_eq!(histogram.negative_spans, [BucketSpan { offset: -2, length: 1 }]);
    assert_eq!((histogram.zero_threshold, histogram.zero_count, histogram.sum), (1e-128, 2.0, 7.25));
    assert!(!histogram.float);
}

#[test]
fn fine_scales_are_merged_down_and_coarse_ones_refused() {
    // Scale 10, lower bounds 5 to 8: by fours 1, 1, 1, 2, which is 2, 2, 2, 3 by upper bound.
    let histogram = native(&exponentials(exponential(10, 5, &[1, 2, 4, 8])).batch);
    assert_eq!(histogram.schema, 8);
    assert_eq!(histogram.positive_spans, [BucketSpan { offset: 2, length: 2 }]);
    assert_eq!(histogram.positive_buckets, [7.0, 8.0]);
    let refused = exponentials(exponential(-5, 0, &[1]));
    assert_eq!((refused.rejected_points, refused.batch.rows()), (1, 0));
    assert!(refused.message.contains("scale -5"));
}

#[test]
fn exponential_counts_must_add_up() {
    let point = ExponentialHistogramDataPoint { count: 9, ..exponential(0, 0, &[1]) };
    assert!(exponentials(point).message.contains("the count is 9"));
    let point = exponential(0, i32::MAX, &[1]);
    assert!(exponentials(point).message.contains("out of range"));
    let stale = ExponentialHistogramDataPoint { flags: 1, count: 9, ..exponential(0, 0, &[1]) };
    assert!(is_stale(native(&exponentials(stale).batch).sum));
}

#[test]
fn summaries_have_quantiles() {
    let quantile_values =
        [(0.0, 0.1), (0.99, 0.9)].map(|(quantile, value)| ValueAtQuantile { quantile, value }).to_vec();
    let point = SummaryDataPoint { time_unix_nano: T0_NS, count: 10, sum: 3.5, quantile_values, ..Default::default() };
    let stale = SummaryDataPoint { time_unix_nano: T0_NS + S_NS, flags: 1, ..point.clone() };
    let data = Data::Summary(Summary { data_points: vec![point, stale] });
    let lines = [
        r#"lat_seconds_sum"}"#,
        r#"lat_seconds_count"}"#,
        r#"lat_seconds", quantile="0"}"#,
        r#"lat_seconds", quantile="0.99"}"#,
    ];
    let expected: Vec<String> = lines
        .iter()
        .zip(["3.5", "10", "0.1", "0.9"])
        .map(|(series, value)| format!(r#"{{__name__="{series} 0 {value}"#))
        .chain(lines.iter().map(|series| format!(r#"{{__name__="{series} 1 stale"#)))
        .collect();
    assert_eq!(rows(&decoded(vec![metric("lat", "s", data)]).batch), expected);
}

fn exemplar(value: f64, user: &str) -> Exemplar {
    Exemplar {
        time_unix_nano: T0_NS,
        value: Some(exemplar::Value::AsDouble(value)),
        trace_id: (0..16).collect(),
        span_id: (0..8).collect(),
        filtered_attributes: vec![text("user.id", user)],
    }
}

/// Series and labels of each exemplar.
fn exemplars(batch: &Batch) -> Vec<(String, Vec<String>)> {
    let rows = batch.table(Table::Exemplars).unwrap();
    let columns = ExemplarColumns::new(rows).unwrap();
    let names = |row| columns.labels(row).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    (0..rows.num_rows()).map(|row| (labels_of(batch, columns.series_id.value(row)), names(row))).collect()
}

#[test]
fn exemplars_stand_at_their_bucket() {
    let point = HistogramDataPoint {
        exemplars: vec![exemplar(99.0, "u"), exemplar(0.5, "u"), exemplar(0.6, "u")],
        ..explicit()
    };
    let found = exemplars(&decoded(histogram(point)).batch);
    for ((series, labels), le) in found.iter().zip(["+Inf", "0.5", "10"]) {
        assert_eq!(*series, format!(r#"{{__name__="dur_milliseconds_bucket", le="{le}"}}"#));
        assert_eq!(*labels, ["span_id=0001020304050607", "trace_id=000102030405060708090a0b0c0d0e0f", "user.id=u"]);
    }
}

#[test]
fn long_attributes_of_exemplars_are_dropped() {
    let point = NumberDataPoint { exemplars: vec![exemplar(1.0, &"x".repeat(100))], ..number(1.0, Vec::new()) };
    let found = exemplars(&decoded(vec![metric("c", "", sum(vec![point], CUMULATIVE, true))]).batch);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].1.len(), 2);
}

#[test]
fn limits_refuse_points_and_requests() {
    let attributes = |n: usize| (0..n).map(|i| text(&format!("a{i}"), "v")).collect();
    let request = request(
        Vec::new(),
        vec![metric("x", "", gauge(vec![number(1.0, attributes(20)), number(1.0, attributes(1))]))],
    );
    let limits = Limits { labels_per_series_max: 10, ..Limits::default() };
    let decoded = decode(&request, &OtlpMetricsSettings::default(), &limits).unwrap();
    assert_eq!((decoded.rejected_points, decoded.batch.rows() - 1), (1, 1));
    let limits = Limits { samples_per_request_max: 1, ..Limits::default() };
    let error = decode(&request, &OtlpMetricsSettings::default(), &limits).unwrap_err();
    assert_eq!(error.kind(), crate::Kind::TooLarge);
    let limits = Limits { future_max: Some(TimestampMs(5)), ..Limits::default() };
    let decoded = decode(&request, &OtlpMetricsSettings::default(), &limits).unwrap();
    assert_eq!((decoded.rejected_points, decoded.batch.rows()), (2, 0));
}

#[test]
fn bounds_have_no_exponent() {
    for (value, expected) in [(0.5, "0.5"), (10.0, "10"), (1e21, "1000000000000000000000"), (1e-7, "0.0000001")] {
        assert_eq!(bound_text(value), expected);
    }
    assert_eq!(bound_text(f64::INFINITY), "+Inf");
}

#[test]
fn settings_have_the_documented_names() {
    let settings: OtlpMetricsSettings = serde_json::from_str(
        r#"{"translation_strategy": "NoUTF8EscapingWithSuffixes", "promote_resource_attributes": ["a"]}"#,
    )
    .unwrap();
    assert_eq!(settings.translation_strategy, TranslationStrategy::NoUtf8EscapingWithSuffixes);
    assert!(serde_json::from_str::<OtlpMetricsSettings>(r#"{"promote": []}"#).is_err());
}

#[test]
fn a_deeply_nested_body_is_an_error() {
    // Each level: ArrayValue { values: AnyValue { array_value: … } }, innermost first.
    let mut value: Vec<u8> = Vec::new();
    for _ in 0..10_000 {
        value = nested(0x2a, &nested(0x0a, &value));
    }
    let body = nested(0x0a, &nested(0x0a, &nested(0x0a, &nested(0x12, &value))));
    let decoded = crate::otlp::decode_protobuf::<ExportMetricsServiceRequest>(&body);
    assert_eq!(decoded.unwrap_err().kind(), crate::Kind::Malformed);
}

fn nested(tag: u8, inner: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let mut length = inner.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    out.extend(inner);
    out
}

fn everything() -> ExportMetricsServiceRequest {
    let mut metrics = histogram(HistogramDataPoint { exemplars: vec![exemplar(1.0, "u")], ..explicit() });
    metrics.push(metric("g", "1", gauge(vec![number(1.0, vec![text("a", "b")])])));
    metrics.push(metric("s", "s", sum(vec![number(1.0, Vec::new())], CUMULATIVE, true)));
    let data =
        ExponentialHistogram { data_points: vec![exponential(9, 3, &[1, 2])], aggregation_temporality: CUMULATIVE };
    metrics.push(metric("e", "s", Data::ExponentialHistogram(data)));
    request(service(), metrics)
}

proptest! {
    #[test]
    fn mutated_requests_never_panic(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8), cut in any::<prop::sample::Index>()) {
        let mut body = prost::Message::encode_to_vec(&everything());
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        body.truncate(cut.index(body.len()) + 1);
        if let Ok(request) = crate::otlp::decode_protobuf::<ExportMetricsServiceRequest>(&body) {
            let limits = Limits { samples_per_request_max: 100_000, ..Limits::default() };
            let _ = decode(&request, &OtlpMetricsSettings::default(), &limits);
            let nhcb = OtlpMetricsSettings { convert_histograms_to_nhcb: true, ..Default::default() };
            let _ = decode(&request, &nhcb, &limits);
        }
    }

    #[test]
    fn gauges_come_back_as_sent(values in proptest::collection::vec(any::<f64>(), 1..20)) {
        let points: Vec<_> = values.iter().enumerate().map(|(i, v)| number(*v, vec![text("i", &format!("{i:03}"))])).collect();
        let decoded = decoded(vec![metric("x", "", gauge(points))]);
        let samples = SampleColumns::new(decoded.batch.table(Table::Samples).unwrap()).unwrap();
        let bits: Vec<u64> = samples.value.values().iter().map(|v| v.to_bits()).collect();
        prop_assert_eq!(bits, values.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
    }
}

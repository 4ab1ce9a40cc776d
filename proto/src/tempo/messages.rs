//! The messages of package `tempopb`, field by field.
//!
//! Owns: names, numbers and types. `Trace` is OTLP's `TracesData` and `KeyValue` OTLP's own: the bytes are the same.

use std::collections::HashMap;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::TracesData;

/// Whether an answer is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum PartialStatus {
    /// Nothing is missing.
    Complete = 0,
    /// Cut or filtered; the message says which.
    Partial = 1,
}

/// Answer of the second version of trace by id.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TraceByIdResponse {
    /// The trace; present though empty when it is not found.
    #[prost(message, optional, tag = "1")]
    pub trace: Option<TracesData>,
    /// What it took.
    #[prost(message, optional, tag = "2")]
    pub metrics: Option<TraceByIdMetrics>,
    /// Whether the trace is whole.
    #[prost(enumeration = "PartialStatus", tag = "3")]
    pub status: i32,
    /// Why it is not.
    #[prost(string, tag = "4")]
    pub message: String,
}

/// What trace by id took.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TraceByIdMetrics {
    /// Bytes read.
    #[prost(uint64, tag = "1")]
    pub inspected_bytes: u64,
    /// Requests to the object store.
    #[prost(uint64, tag = "2")]
    pub backend_reads: u64,
    /// Bytes from the object store.
    #[prost(uint64, tag = "3")]
    pub backend_bytes: u64,
    /// Further numbers by name.
    #[prost(map = "string, int64", tag = "4")]
    pub additional_metrics: HashMap<String, i64>,
}

/// Asks for traces; times in seconds.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SearchRequest {
    /// Legacy search by tags.
    #[prost(map = "string, string", tag = "1")]
    pub tags: HashMap<String, String>,
    /// Shortest trace of a legacy search.
    #[prost(uint32, tag = "2")]
    pub min_duration_ms: u32,
    /// Longest trace of a legacy search.
    #[prost(uint32, tag = "3")]
    pub max_duration_ms: u32,
    /// Traces, 0 for the default.
    #[prost(uint32, tag = "4")]
    pub limit: u32,
    /// Start of the range.
    #[prost(uint32, tag = "5")]
    pub start: u32,
    /// End of the range.
    #[prost(uint32, tag = "6")]
    pub end: u32,
    /// TraceQL.
    #[prost(string, tag = "8")]
    pub query: String,
    /// Spans listed per spanset, 0 for the default.
    #[prost(uint32, tag = "9")]
    pub spans_per_span_set: u32,
}

/// Traces found.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SearchResponse {
    /// The traces.
    #[prost(message, repeated, tag = "1")]
    pub traces: Vec<TraceSearchMetadata>,
    /// What it took so far.
    #[prost(message, optional, tag = "2")]
    pub metrics: Option<SearchMetrics>,
}

/// One trace found.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TraceSearchMetadata {
    /// Hex without leading zeros.
    #[prost(string, tag = "1")]
    pub trace_id: String,
    /// Service of the root span.
    #[prost(string, tag = "2")]
    pub root_service_name: String,
    /// Name of the root span.
    #[prost(string, tag = "3")]
    pub root_trace_name: String,
    /// Earliest start.
    #[prost(uint64, tag = "4")]
    pub start_time_unix_nano: u64,
    /// Latest end minus earliest start.
    #[prost(uint32, tag = "5")]
    pub duration_ms: u32,
    /// The first of `span_sets`, for old readers.
    #[prost(message, optional, tag = "6")]
    pub span_set: Option<SpanSet>,
    /// What matched.
    #[prost(message, repeated, tag = "7")]
    pub span_sets: Vec<SpanSet>,
    /// Spans per service.
    #[prost(map = "string, message", tag = "8")]
    pub service_stats: HashMap<String, ServiceStats>,
}

/// Spans of one service in a trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct ServiceStats {
    /// All.
    #[prost(uint32, tag = "1")]
    pub span_count: u32,
    /// Those with status error.
    #[prost(uint32, tag = "2")]
    pub error_count: u32,
}

/// Spans of a trace that matched together.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SpanSet {
    /// Some of them.
    #[prost(message, repeated, tag = "1")]
    pub spans: Vec<Span>,
    /// How many there are.
    #[prost(uint32, tag = "2")]
    pub matched: u32,
    /// What the query computed of them.
    #[prost(message, repeated, tag = "3")]
    pub attributes: Vec<KeyValue>,
}

/// A span that matched.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Span {
    /// 16 hex digits.
    #[prost(string, tag = "1")]
    pub span_id: String,
    /// Filled when the query mentions it.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Start.
    #[prost(uint64, tag = "3")]
    pub start_time_unix_nano: u64,
    /// Duration.
    #[prost(uint64, tag = "4")]
    pub duration_nanos: u64,
    /// What the query mentions.
    #[prost(message, repeated, tag = "5")]
    pub attributes: Vec<KeyValue>,
}

/// What a search or a metrics query took.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SearchMetrics {
    /// Traces looked at.
    #[prost(uint32, tag = "1")]
    pub inspected_traces: u32,
    /// Bytes read.
    #[prost(uint64, tag = "2")]
    pub inspected_bytes: u64,
    /// Files in range.
    #[prost(uint32, tag = "3")]
    pub total_blocks: u32,
    /// Parts of the work done.
    #[prost(uint32, tag = "4")]
    pub completed_jobs: u32,
    /// Parts of the work.
    #[prost(uint32, tag = "5")]
    pub total_jobs: u32,
    /// Bytes of the files in range.
    #[prost(uint64, tag = "6")]
    pub total_block_bytes: u64,
    /// Spans looked at.
    #[prost(uint64, tag = "7")]
    pub inspected_spans: u64,
    /// Requests to the object store.
    #[prost(uint64, tag = "8")]
    pub backend_reads: u64,
    /// Bytes from the object store.
    #[prost(uint64, tag = "9")]
    pub backend_bytes: u64,
    /// Further numbers by name.
    #[prost(map = "string, int64", tag = "10")]
    pub additional_metrics: HashMap<String, i64>,
}

/// Asks for attribute names; times in seconds.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct SearchTagsRequest {
    /// Only of this scope.
    #[prost(string, tag = "1")]
    pub scope: String,
    /// Only of spans that match.
    #[prost(string, tag = "2")]
    pub query: String,
    /// Start of the range.
    #[prost(uint32, tag = "3")]
    pub start: u32,
    /// End of the range.
    #[prost(uint32, tag = "4")]
    pub end: u32,
    /// Names per scope.
    #[prost(uint32, tag = "5")]
    pub max_tags_per_scope: u32,
    /// When to stop looking.
    #[prost(uint32, tag = "6")]
    pub stale_values_threshold: u32,
}

/// Attribute names.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct SearchTagsResponse {
    /// The names.
    #[prost(string, repeated, tag = "1")]
    pub tag_names: Vec<String>,
    /// What it took.
    #[prost(message, optional, tag = "2")]
    pub metrics: Option<MetadataMetrics>,
}

/// Attribute names by scope.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct SearchTagsV2Response {
    /// The scopes.
    #[prost(message, repeated, tag = "1")]
    pub scopes: Vec<SearchTagsV2Scope>,
    /// What it took.
    #[prost(message, optional, tag = "2")]
    pub metrics: Option<MetadataMetrics>,
}

/// The names of one scope.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct SearchTagsV2Scope {
    /// `resource`, `span`, `intrinsic` and so on.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The names.
    #[prost(string, repeated, tag = "2")]
    pub tags: Vec<String>,
}

/// Asks for the values of an attribute; times in seconds.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct SearchTagValuesRequest {
    /// The attribute.
    #[prost(string, tag = "1")]
    pub tag_name: String,
    /// Only of spans that match.
    #[prost(string, tag = "2")]
    pub query: String,
    /// Start of the range.
    #[prost(uint32, tag = "4")]
    pub start: u32,
    /// End of the range.
    #[prost(uint32, tag = "5")]
    pub end: u32,
    /// Values at most.
    #[prost(uint32, tag = "6")]
    pub max_tag_values: u32,
    /// When to stop looking.
    #[prost(uint32, tag = "7")]
    pub stale_value_threshold: u32,
}

/// Values of an attribute.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct SearchTagValuesResponse {
    /// The values.
    #[prost(string, repeated, tag = "1")]
    pub tag_values: Vec<String>,
    /// What it took.
    #[prost(message, optional, tag = "2")]
    pub metrics: Option<MetadataMetrics>,
}

/// Values of an attribute with their types.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct SearchTagValuesV2Response {
    /// The values.
    #[prost(message, repeated, tag = "1")]
    pub tag_values: Vec<TagValue>,
    /// What it took.
    #[prost(message, optional, tag = "2")]
    pub metrics: Option<MetadataMetrics>,
}

/// One value.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct TagValue {
    /// `string`, `int`, `float`, `bool`, `duration` or `keyword`.
    #[prost(string, tag = "1")]
    pub r#type: String,
    /// As text.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// What a question about attributes took.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct MetadataMetrics {
    /// Bytes read.
    #[prost(uint64, tag = "1")]
    pub inspected_bytes: u64,
    /// Parts of the work.
    #[prost(uint32, tag = "2")]
    pub total_jobs: u32,
    /// Parts of the work done.
    #[prost(uint32, tag = "3")]
    pub completed_jobs: u32,
    /// Files in range.
    #[prost(uint32, tag = "4")]
    pub total_blocks: u32,
    /// Bytes of the files in range.
    #[prost(uint64, tag = "5")]
    pub total_block_bytes: u64,
}

/// Asks for metrics over a range; times in nanoseconds.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct QueryRangeRequest {
    /// TraceQL.
    #[prost(string, tag = "1")]
    pub query: String,
    /// Start of the range.
    #[prost(uint64, tag = "2")]
    pub start: u64,
    /// End of the range.
    #[prost(uint64, tag = "3")]
    pub end: u64,
    /// Step, 0 for the default.
    #[prost(uint64, tag = "4")]
    pub step: u64,
    /// Where to look; taken and ignored.
    #[prost(string, tag = "7")]
    pub query_mode: String,
    /// Exemplars at most.
    #[prost(uint32, tag = "16")]
    pub exemplars: u32,
    /// Series at most.
    #[prost(uint32, tag = "17")]
    pub max_series: u32,
    /// One step over the whole range.
    #[prost(bool, optional, tag = "18")]
    pub instant: Option<bool>,
}

/// Series over a range.
#[derive(Clone, PartialEq, prost::Message)]
pub struct QueryRangeResponse {
    /// The series.
    #[prost(message, repeated, tag = "1")]
    pub series: Vec<TimeSeries>,
    /// What it took.
    #[prost(message, optional, tag = "2")]
    pub metrics: Option<SearchMetrics>,
    /// Whether all series are there.
    #[prost(enumeration = "PartialStatus", tag = "3")]
    pub status: i32,
    /// Why not.
    #[prost(string, tag = "4")]
    pub message: String,
}

/// One series.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TimeSeries {
    /// What it is of.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<KeyValue>,
    /// Its samples.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    /// Its exemplars.
    #[prost(message, repeated, tag = "4")]
    pub exemplars: Vec<Exemplar>,
}

/// One sample. The value has the lower number.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Sample {
    /// Milliseconds since the epoch.
    #[prost(int64, tag = "2")]
    pub timestamp_ms: i64,
    /// The value.
    #[prost(double, tag = "1")]
    pub value: f64,
}

/// A span that stands for a sample.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Exemplar {
    /// `trace:id` and what the series is of.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<KeyValue>,
    /// Its own value.
    #[prost(double, tag = "2")]
    pub value: f64,
    /// Milliseconds since the epoch.
    #[prost(int64, tag = "3")]
    pub timestamp_ms: i64,
}

/// Asks for one value per series; times in nanoseconds.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct QueryInstantRequest {
    /// TraceQL.
    #[prost(string, tag = "1")]
    pub query: String,
    /// Start of the range.
    #[prost(uint64, tag = "2")]
    pub start: u64,
    /// End of the range.
    #[prost(uint64, tag = "3")]
    pub end: u64,
}

/// One value per series.
#[derive(Clone, PartialEq, prost::Message)]
pub struct QueryInstantResponse {
    /// The series.
    #[prost(message, repeated, tag = "1")]
    pub series: Vec<InstantSeries>,
    /// What it took.
    #[prost(message, optional, tag = "2")]
    pub metrics: Option<SearchMetrics>,
    /// Whether all series are there.
    #[prost(enumeration = "PartialStatus", tag = "3")]
    pub status: i32,
    /// Why not.
    #[prost(string, tag = "4")]
    pub message: String,
}

/// One series with its value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct InstantSeries {
    /// What it is of.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<KeyValue>,
    /// The value.
    #[prost(double, tag = "2")]
    pub value: f64,
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// The bytes of `message` are `hex`: field numbers times eight plus the wire type, then the value.
    fn check(message: &(impl Message + std::fmt::Debug), hex: &str) {
        assert_eq!(hex::encode(message.encode_to_vec()), hex.replace(' ', ""), "{message:?}");
    }

    #[test]
    fn fields_have_the_numbers_of_the_contract() {
        check(&Sample { timestamp_ms: 5, value: 1.0 }, "09 000000000000f03f 10 05");
        check(
            &QueryRangeRequest {
                query: "{}".into(),
                start: 1,
                end: 2,
                step: 3,
                query_mode: "m".into(),
                exemplars: 4,
                max_series: 5,
                instant: Some(false),
            },
            "0a 02 7b7d 10 01 18 02 20 03 3a 01 6d 8001 04 8801 05 9001 00",
        );
        check(
            &TraceByIdResponse {
                trace: Some(TracesData::default()),
                metrics: Some(TraceByIdMetrics { inspected_bytes: 7, ..TraceByIdMetrics::default() }),
                status: PartialStatus::Partial.into(),
                message: "m".into(),
            },
            "0a 00 12 02 08 07 18 01 22 01 6d",
        );
        let stats = ServiceStats { span_count: 2, error_count: 1 };
        let found = TraceSearchMetadata {
            trace_id: "a".into(),
            duration_ms: 3,
            span_sets: vec![SpanSet { matched: 1, ..SpanSet::default() }],
            service_stats: HashMap::from([("s".to_owned(), stats)]),
            ..TraceSearchMetadata::default()
        };
        check(&found, "0a 01 61 28 03 3a 02 10 01 42 09 0a 01 73 12 04 08 02 10 01");
        check(
            &SearchRequest { query: "q".into(), spans_per_span_set: 3, ..SearchRequest::default() },
            "42 01 71 48 03",
        );
    }
}

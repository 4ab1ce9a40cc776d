//! The messages of OTLP as tables: names in JSON, field numbers, kinds.
//!
//! Owns: exactly the fields of the protocol's version 1. A test decodes what the generated types encode.

use opentelemetry_proto::tonic::logs::v1::SeverityNumber;
use opentelemetry_proto::tonic::metrics::v1::AggregationTemporality;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

/// A message.
pub(super) struct Message {
    pub(super) name: &'static str,
    pub(super) fields: &'static [Field],
}

/// A field of a message.
pub(super) struct Field {
    /// In JSON.
    pub(super) name: &'static str,
    /// In protobuf.
    pub(super) tag: u32,
    pub(super) kind: Kind,
    pub(super) repeated: bool,
}

/// How a field stands in JSON and in protobuf.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    Bool,
    Base64,
    /// Bytes of this length as hex, or empty.
    Id(usize),
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Fixed32,
    Fixed64,
    Sfixed64,
    Double,
    /// A number, or a name that the function knows.
    Enum(fn(&str) -> Option<i32>),
    Message(&'static Message),
}

use Kind::{Base64, Bool, Double, Enum, Fixed32, Fixed64, Id, Int64, Sfixed64, Sint32, Text, Uint32, Uint64};

const TRACE_ID: Kind = Id(16);
const SPAN_ID: Kind = Id(8);

const fn one(name: &'static str, tag: u32, kind: Kind) -> Field {
    Field { name, tag, kind, repeated: false }
}

const fn many(name: &'static str, tag: u32, kind: Kind) -> Field {
    Field { name, tag, kind, repeated: true }
}

const fn list(name: &'static str, tag: u32, message: &'static Message) -> Field {
    Field { name, tag, kind: Kind::Message(message), repeated: true }
}

const fn sub(name: &'static str, tag: u32, message: &'static Message) -> Field {
    Field { name, tag, kind: Kind::Message(message), repeated: false }
}

// Common.

static ANY_VALUE: Message = Message {
    name: "AnyValue",
    fields: &[
        one("stringValue", 1, Text),
        one("boolValue", 2, Bool),
        one("intValue", 3, Int64),
        one("doubleValue", 4, Double),
        sub("arrayValue", 5, &ARRAY_VALUE),
        sub("kvlistValue", 6, &KEY_VALUE_LIST),
        one("bytesValue", 7, Base64),
    ],
};

static ARRAY_VALUE: Message = Message { name: "ArrayValue", fields: &[list("values", 1, &ANY_VALUE)] };

static KEY_VALUE_LIST: Message = Message { name: "KeyValueList", fields: &[list("values", 1, &KEY_VALUE)] };

static KEY_VALUE: Message = Message { name: "KeyValue", fields: &[one("key", 1, Text), sub("value", 2, &ANY_VALUE)] };

static SCOPE: Message = Message {
    name: "InstrumentationScope",
    fields: &[
        one("name", 1, Text),
        one("version", 2, Text),
        list("attributes", 3, &KEY_VALUE),
        one("droppedAttributesCount", 4, Uint32),
    ],
};

static ENTITY_REF: Message = Message {
    name: "EntityRef",
    fields: &[
        one("schemaUrl", 1, Text),
        one("type", 2, Text),
        many("idKeys", 3, Text),
        many("descriptionKeys", 4, Text),
    ],
};

static RESOURCE: Message = Message {
    name: "Resource",
    fields: &[
        list("attributes", 1, &KEY_VALUE),
        one("droppedAttributesCount", 2, Uint32),
        list("entityRefs", 3, &ENTITY_REF),
    ],
};

// Traces.

pub(super) static EXPORT_TRACES: Message =
    Message { name: "ExportTraceServiceRequest", fields: &[list("resourceSpans", 1, &RESOURCE_SPANS)] };

static RESOURCE_SPANS: Message = Message {
    name: "ResourceSpans",
    fields: &[sub("resource", 1, &RESOURCE), list("scopeSpans", 2, &SCOPE_SPANS), one("schemaUrl", 3, Text)],
};

static SCOPE_SPANS: Message = Message {
    name: "ScopeSpans",
    fields: &[sub("scope", 1, &SCOPE), list("spans", 2, &SPAN), one("schemaUrl", 3, Text)],
};

static SPAN: Message = Message {
    name: "Span",
    fields: &[
        one("traceId", 1, TRACE_ID),
        one("spanId", 2, SPAN_ID),
        one("traceState", 3, Text),
        one("parentSpanId", 4, SPAN_ID),
        one("name", 5, Text),
        one("kind", 6, Enum(|name| SpanKind::from_str_name(name).map(|v| v as i32))),
        one("startTimeUnixNano", 7, Fixed64),
        one("endTimeUnixNano", 8, Fixed64),
        list("attributes", 9, &KEY_VALUE),
        one("droppedAttributesCount", 10, Uint32),
        list("events", 11, &EVENT),
        one("droppedEventsCount", 12, Uint32),
        list("links", 13, &LINK),
        one("droppedLinksCount", 14, Uint32),
        sub("status", 15, &STATUS),
        one("flags", 16, Fixed32),
    ],
};

static EVENT: Message = Message {
    name: "Event",
    fields: &[
        one("timeUnixNano", 1, Fixed64),
        one("name", 2, Text),
        list("attributes", 3, &KEY_VALUE),
        one("droppedAttributesCount", 4, Uint32),
    ],
};

static LINK: Message = Message {
    name: "Link",
    fields: &[
        one("traceId", 1, TRACE_ID),
        one("spanId", 2, SPAN_ID),
        one("traceState", 3, Text),
        list("attributes", 4, &KEY_VALUE),
        one("droppedAttributesCount", 5, Uint32),
        one("flags", 6, Fixed32),
    ],
};

static STATUS: Message = Message {
    name: "Status",
    fields: &[one("message", 2, Text), one("code", 3, Enum(|name| StatusCode::from_str_name(name).map(|v| v as i32)))],
};

// Logs.

pub(super) static EXPORT_LOGS: Message =
    Message { name: "ExportLogsServiceRequest", fields: &[list("resourceLogs", 1, &RESOURCE_LOGS)] };

static RESOURCE_LOGS: Message = Message {
    name: "ResourceLogs",
    fields: &[sub("resource", 1, &RESOURCE), list("scopeLogs", 2, &SCOPE_LOGS), one("schemaUrl", 3, Text)],
};

static SCOPE_LOGS: Message = Message {
    name: "ScopeLogs",
    fields: &[sub("scope", 1, &SCOPE), list("logRecords", 2, &LOG_RECORD), one("schemaUrl", 3, Text)],
};

static LOG_RECORD: Message = Message {
    name: "LogRecord",
    fields: &[
        one("timeUnixNano", 1, Fixed64),
        one("severityNumber", 2, Enum(|name| SeverityNumber::from_str_name(name).map(|v| v as i32))),
        one("severityText", 3, Text),
        sub("body", 5, &ANY_VALUE),
        list("attributes", 6, &KEY_VALUE),
        one("droppedAttributesCount", 7, Uint32),
        one("flags", 8, Fixed32),
        one("traceId", 9, TRACE_ID),
        one("spanId", 10, SPAN_ID),
        one("observedTimeUnixNano", 11, Fixed64),
        one("eventName", 12, Text),
    ],
};

// Metrics.

pub(super) static EXPORT_METRICS: Message =
    Message { name: "ExportMetricsServiceRequest", fields: &[list("resourceMetrics", 1, &RESOURCE_METRICS)] };

static RESOURCE_METRICS: Message = Message {
    name: "ResourceMetrics",
    fields: &[sub("resource", 1, &RESOURCE), list("scopeMetrics", 2, &SCOPE_METRICS), one("schemaUrl", 3, Text)],
};

static SCOPE_METRICS: Message = Message {
    name: "ScopeMetrics",
    fields: &[sub("scope", 1, &SCOPE), list("metrics", 2, &METRIC), one("schemaUrl", 3, Text)],
};

static METRIC: Message = Message {
    name: "Metric",
    fields: &[
        one("name", 1, Text),
        one("description", 2, Text),
        one("unit", 3, Text),
        sub("gauge", 5, &GAUGE),
        sub("sum", 7, &SUM),
        sub("histogram", 9, &HISTOGRAM),
        sub("exponentialHistogram", 10, &EXPONENTIAL_HISTOGRAM),
        sub("summary", 11, &SUMMARY),
        list("metadata", 12, &KEY_VALUE),
    ],
};

static GAUGE: Message = Message { name: "Gauge", fields: &[list("dataPoints", 1, &NUMBER_POINT)] };

const TEMPORALITY: Kind = Enum(|name| AggregationTemporality::from_str_name(name).map(|v| v as i32));

static SUM: Message = Message {
    name: "Sum",
    fields: &[
        list("dataPoints", 1, &NUMBER_POINT),
        one("aggregationTemporality", 2, TEMPORALITY),
        one("isMonotonic", 3, Bool),
    ],
};

static HISTOGRAM: Message = Message {
    name: "Histogram",
    fields: &[list("dataPoints", 1, &HISTOGRAM_POINT), one("aggregationTemporality", 2, TEMPORALITY)],
};

static EXPONENTIAL_HISTOGRAM: Message = Message {
    name: "ExponentialHistogram",
    fields: &[list("dataPoints", 1, &EXPONENTIAL_POINT), one("aggregationTemporality", 2, TEMPORALITY)],
};

static SUMMARY: Message = Message { name: "Summary", fields: &[list("dataPoints", 1, &SUMMARY_POINT)] };

static NUMBER_POINT: Message = Message {
    name: "NumberDataPoint",
    fields: &[
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        one("asDouble", 4, Double),
        list("exemplars", 5, &EXEMPLAR),
        one("asInt", 6, Sfixed64),
        list("attributes", 7, &KEY_VALUE),
        one("flags", 8, Uint32),
    ],
};

static HISTOGRAM_POINT: Message = Message {
    name: "HistogramDataPoint",
    fields: &[
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        one("count", 4, Fixed64),
        one("sum", 5, Double),
        many("bucketCounts", 6, Fixed64),
        many("explicitBounds", 7, Double),
        list("exemplars", 8, &EXEMPLAR),
        list("attributes", 9, &KEY_VALUE),
        one("flags", 10, Uint32),
        one("min", 11, Double),
        one("max", 12, Double),
    ],
};

static EXPONENTIAL_POINT: Message = Message {
    name: "ExponentialHistogramDataPoint",
    fields: &[
        list("attributes", 1, &KEY_VALUE),
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        one("count", 4, Fixed64),
        one("sum", 5, Double),
        one("scale", 6, Sint32),
        one("zeroCount", 7, Fixed64),
        sub("positive", 8, &BUCKETS),
        sub("negative", 9, &BUCKETS),
        one("flags", 10, Uint32),
        list("exemplars", 11, &EXEMPLAR),
        one("min", 12, Double),
        one("max", 13, Double),
        one("zeroThreshold", 14, Double),
    ],
};

static BUCKETS: Message =
    Message { name: "Buckets", fields: &[one("offset", 1, Sint32), many("bucketCounts", 2, Uint64)] };

static SUMMARY_POINT: Message = Message {
    name: "SummaryDataPoint",
    fields: &[
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        one("count", 4, Fixed64),
        one("sum", 5, Double),
        list("quantileValues", 6, &QUANTILE),
        list("attributes", 7, &KEY_VALUE),
        one("flags", 8, Uint32),
    ],
};

static QUANTILE: Message =
    Message { name: "ValueAtQuantile", fields: &[one("quantile", 1, Double), one("value", 2, Double)] };

static EXEMPLAR: Message = Message {
    name: "Exemplar",
    fields: &[
        one("timeUnixNano", 2, Fixed64),
        one("asDouble", 3, Double),
        one("spanId", 4, SPAN_ID),
        one("traceId", 5, TRACE_ID),
        one("asInt", 6, Sfixed64),
        list("filteredAttributes", 7, &KEY_VALUE),
    ],
};

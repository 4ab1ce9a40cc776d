//! A span with its events and links, as decoders hand it over and evaluators read it.
//!
//! Owns: the row form. Does not own: columns (`signal::traces`), wire forms (crate `proto`).

use super::value::Value;

/// 16 bytes; all zero is not a valid id.
pub type TraceId = [u8; 16];
/// 8 bytes; all zero is not a valid id.
pub type SpanId = [u8; 8];
/// Attribute keys and values in the order they were sent.
pub type Attributes = Vec<(String, Value)>;

/// The library that made a span.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    /// `instrumentation:name`
    pub name: String,
    /// `instrumentation:version`
    pub version: String,
    /// `instrumentation.*`
    pub attributes: Attributes,
    /// How many attributes the sender dropped.
    pub dropped_attributes_count: u32,
    /// The schema of the scope's attributes.
    pub schema_url: String,
}

/// Something that happened during a span.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// Time in nanoseconds since the epoch.
    pub ts_ns: i64,
    /// `event:name`
    pub name: String,
    /// `event.*`
    pub attributes: Attributes,
    /// How many attributes the sender dropped.
    pub dropped_attributes_count: u32,
}

/// A reference to another span.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Link {
    /// `link:traceID`, 16 bytes (kept as sent: others are possible in a link).
    pub trace_id: Vec<u8>,
    /// `link:spanID`, 8 bytes.
    pub span_id: Vec<u8>,
    /// W3C trace state.
    pub trace_state: String,
    /// `link.*`
    pub attributes: Attributes,
    /// How many attributes the sender dropped.
    pub dropped_attributes_count: u32,
    /// OTLP flags.
    pub flags: u32,
}

/// One span, without its resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Span {
    /// The trace it belongs to.
    pub trace_id: TraceId,
    /// Its own id; two spans of a trace may share one (Zipkin's client and server halves).
    pub span_id: SpanId,
    /// `None` for a root.
    pub parent_span_id: Option<SpanId>,
    /// W3C trace state.
    pub trace_state: String,
    /// OTLP flags.
    pub flags: u32,
    /// Span name.
    pub name: String,
    /// OTLP's number: 0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: i32,
    /// Start in nanoseconds since the epoch.
    pub start_ns: i64,
    /// End minus start; negative when clocks disagree.
    pub duration_ns: i64,
    /// OTLP's number: 0 unset, 1 ok, 2 error.
    pub status_code: i32,
    /// Status message.
    pub status_message: String,
    /// `span.*`
    pub attributes: Attributes,
    /// How many attributes the sender dropped.
    pub dropped_attributes_count: u32,
    /// What happened during the span.
    pub events: Vec<Event>,
    /// How many events the sender dropped.
    pub dropped_events_count: u32,
    /// Other spans it refers to.
    pub links: Vec<Link>,
    /// How many links the sender dropped.
    pub dropped_links_count: u32,
    /// The library that made it.
    pub scope: Scope,
    /// The schema of the resource's attributes.
    pub resource_schema_url: String,
    /// How many attributes of the resource the sender dropped.
    pub resource_dropped_attributes_count: u32,
}

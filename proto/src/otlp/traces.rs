//! OTLP spans to a batch, nothing lost.
//!
//! Owns: which spans are refused, and the cut of long attributes. Does not own: how spans lie in columns.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{self as wire, ResourceSpans};
use serde::Deserialize;
use storage::model::batch::{Batch, TracesBuilder};
use storage::model::span::{Attributes, Event, Link, Scope, Span, SpanId};
use storage::model::value::Value;

use crate::error::Result;

/// Limits of what spans carry.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceLimits {
    /// Bytes of one attribute's key and of its value if that is a string; longer ones are cut.
    pub attribute_bytes_max: usize,
}

impl Default for TraceLimits {
    fn default() -> Self {
        Self { attribute_bytes_max: 64 << 10 }
    }
}

/// What an export of spans holds.
#[derive(Debug)]
pub struct Decoded {
    /// The spans that are accepted, with their resources.
    pub batch: Batch,
    /// Spans accepted.
    pub spans: usize,
    /// Spans refused.
    pub rejected_spans: u64,
    /// Why, one sentence; empty if none was.
    pub message: String,
}

/// Why a span is refused.
enum Refusal {
    /// No span can be told from another without ids.
    Ids,
    /// A time that 64 signed bits of nanoseconds do not hold.
    Time,
    /// An attribute; the reason as the reader of values says it.
    Attribute(String),
}

#[derive(Default)]
struct Refusals {
    ids: u64,
    time: u64,
    attribute: u64,
    attribute_reason: String,
}

impl Refusals {
    fn add(&mut self, refusal: Refusal, spans: u64) {
        match refusal {
            Refusal::Ids => self.ids += spans,
            Refusal::Time => self.time += spans,
            Refusal::Attribute(reason) => {
                self.attribute += spans;
                self.attribute_reason = reason;
            }
        }
    }

    fn total(&self) -> u64 {
        self.ids + self.time + self.attribute
    }

    fn message(&self) -> String {
        let reasons = [
            (
                self.ids,
                "a span needs a trace id of 16 bytes, a span id of 8 bytes, not all of them zero, and a parent id of 8 bytes or none",
            ),
            (self.time, "times must lie before 2262-04-11"),
            (self.attribute, self.attribute_reason.as_str()),
        ];
        let texts: Vec<String> = reasons
            .iter()
            .filter(|(spans, _)| *spans > 0)
            .map(|(spans, reason)| format!("{spans} spans refused: {reason}"))
            .collect();
        texts.join("; ")
    }
}

/// Decodes an export of spans.
pub fn decode(request: &ExportTraceServiceRequest, limits: &TraceLimits) -> Result<Decoded> {
    let mut builder = TracesBuilder::new();
    let mut refusals = Refusals::default();
    for resource in &request.resource_spans {
        read_resource(resource, limits, &mut builder, &mut refusals)?;
    }
    let spans = builder.spans();
    let (rejected_spans, message) = (refusals.total(), refusals.message());
    Ok(Decoded { batch: builder.finish()?, spans, rejected_spans, message })
}

fn read_resource(
    spans: &ResourceSpans,
    limits: &TraceLimits,
    builder: &mut TracesBuilder,
    refusals: &mut Refusals,
) -> Result<()> {
    let (attributes, dropped) =
        spans.resource.as_ref().map_or((&[][..], 0), |r| (&r.attributes[..], r.dropped_attributes_count));
    let attributes = match read_attributes(attributes, limits) {
        Ok(attributes) => attributes,
        Err(refusal) => {
            refusals.add(refusal, spans.scope_spans.iter().map(|scope| scope.spans.len() as u64).sum());
            return Ok(());
        }
    };
    // A resource stands in the batch only with a span of it.
    let mut resource = None;
    for scope_spans in &spans.scope_spans {
        let scope = match read_scope(scope_spans.scope.as_ref(), &scope_spans.schema_url, limits) {
            Ok(scope) => scope,
            Err(refusal) => {
                refusals.add(refusal, scope_spans.spans.len() as u64);
                continue;
            }
        };
        for span in &scope_spans.spans {
            match read_span(span, limits) {
                Ok(mut read) => {
                    read.scope = scope.clone();
                    read.resource_schema_url.clone_from(&spans.schema_url);
                    read.resource_dropped_attributes_count = dropped;
                    let resource = resource.get_or_insert_with(|| builder.resource(&attributes));
                    builder.span(resource, &read)?;
                }
                Err(refusal) => refusals.add(refusal, 1),
            }
        }
    }
    Ok(())
}

fn read_scope(scope: Option<&InstrumentationScope>, schema_url: &str, limits: &TraceLimits) -> Result<Scope, Refusal> {
    let mut read = Scope { schema_url: schema_url.to_owned(), ..Scope::default() };
    if let Some(scope) = scope {
        read.name.clone_from(&scope.name);
        read.version.clone_from(&scope.version);
        read.attributes = read_attributes(&scope.attributes, limits)?;
        read.dropped_attributes_count = scope.dropped_attributes_count;
    }
    Ok(read)
}

/// An id of `N` bytes that are not all zero.
fn id<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok().filter(|id| *id != [0; N])
}

fn parent(bytes: &[u8]) -> Result<Option<SpanId>, Refusal> {
    match bytes.len() {
        0 => Ok(None),
        8 => Ok(id(bytes)),
        _ => Err(Refusal::Ids),
    }
}

fn time(ns: u64) -> Result<i64, Refusal> {
    i64::try_from(ns).map_err(|_| Refusal::Time)
}

fn read_span(span: &wire::Span, limits: &TraceLimits) -> Result<Span, Refusal> {
    let start_ns = time(span.start_time_unix_nano)?;
    let end_ns = time(span.end_time_unix_nano)?;
    let status = span.status.as_ref();
    Ok(Span {
        trace_id: id(&span.trace_id).ok_or(Refusal::Ids)?,
        span_id: id(&span.span_id).ok_or(Refusal::Ids)?,
        parent_span_id: parent(&span.parent_span_id)?,
        trace_state: span.trace_state.clone(),
        flags: span.flags,
        name: span.name.clone(),
        kind: span.kind,
        start_ns,
        // Neither is negative, so the difference fits.
        duration_ns: end_ns.saturating_sub(start_ns),
        status_code: status.map_or(0, |status| status.code),
        status_message: status.map(|status| status.message.clone()).unwrap_or_default(),
        attributes: read_attributes(&span.attributes, limits)?,
        dropped_attributes_count: span.dropped_attributes_count,
        events: span.events.iter().map(|event| read_event(event, limits)).collect::<Result<_, _>>()?,
        dropped_events_count: span.dropped_events_count,
        links: span.links.iter().map(|link| read_link(link, limits)).collect::<Result<_, _>>()?,
        dropped_links_count: span.dropped_links_count,
        ..Span::default()
    })
}

fn read_event(event: &wire::span::Event, limits: &TraceLimits) -> Result<Event, Refusal> {
    Ok(Event {
        ts_ns: time(event.time_unix_nano)?,
        name: event.name.clone(),
        attributes: read_attributes(&event.attributes, limits)?,
        dropped_attributes_count: event.dropped_attributes_count,
    })
}

fn read_link(link: &wire::span::Link, limits: &TraceLimits) -> Result<Link, Refusal> {
    Ok(Link {
        trace_id: link.trace_id.clone(),
        span_id: link.span_id.clone(),
        trace_state: link.trace_state.clone(),
        attributes: read_attributes(&link.attributes, limits)?,
        dropped_attributes_count: link.dropped_attributes_count,
        flags: link.flags,
    })
}

fn read_attributes(pairs: &[KeyValue], limits: &TraceLimits) -> Result<Attributes, Refusal> {
    let mut attributes = super::attributes(pairs).map_err(|e| Refusal::Attribute(e.message().to_owned()))?;
    for (key, value) in &mut attributes {
        cut(key, limits.attribute_bytes_max);
        if let Value::String(text) = value {
            cut(text, limits.attribute_bytes_max);
        }
    }
    Ok(attributes)
}

/// Cuts `text` to at most `bytes_max` bytes, where a character begins.
fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate(crate::loki_push::shortened(text, bytes_max).len());
    }
}

#[cfg(test)]
mod tests;

//! Span metrics: calls, latency and size by service, span name, kind and status.
//!
//! Owns: the combinations of labels and their state. Format: Tempo's processor `span-metrics`.

use std::sync::LazyLock;

use hashbrown::HashMap;
use storage::error::Result;
use storage::model::span::TraceId;

use crate::histogram::{Bounds, Latency};
use crate::{Counts, Life, Observed, Output, Settings, plain};

const CALLS: &str = "traces_spanmetrics_calls_total";
const LATENCY: &str = "traces_spanmetrics_latency";
const SIZE: &str = "traces_spanmetrics_size_total";

/// 2 ms to 16.384 s.
static BOUNDS: LazyLock<Bounds> = LazyLock::new(|| Bounds::doubling(0.002, 14));

const KINDS: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];
const STATUSES: [&str; 3] = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

/// Labels of one combination: service, name, kind, status, then the dimensions in their order.
type Key = (String, String, i32, i32, Vec<String>);

#[derive(Debug)]
struct Call {
    calls: u64,
    bytes: u64,
    latency: Latency,
    seen_ns: i64,
    new: bool,
}

/// All combinations.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    calls: HashMap<Key, Call, ahash::RandomState>,
}

/// What a lookup borrows from a span.
#[derive(Hash)]
struct Borrowed<'a>(&'a str, &'a str, i32, i32, &'a [String]);

impl hashbrown::Equivalent<Key> for Borrowed<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        (self.0, self.1, self.2, self.3) == (key.0.as_str(), key.1.as_str(), key.2, key.3) && self.4 == key.4
    }
}

impl Spans {
    pub(crate) fn observe(&mut self, span: &Observed<'_>, settings: &Settings, counts: &mut Counts) {
        let dimensions: Vec<String> = settings.dimensions.iter().map(|key| dimension(span, key)).collect();
        let columns = span.columns;
        let (kind, status) = (columns.kind.value(span.row), columns.status_code.value(span.row));
        let borrowed = Borrowed(span.service(), columns.name.value(span.row), kind, status, &dimensions);
        if !self.calls.contains_key(&borrowed) {
            if self.calls.len() >= settings.series_max {
                counts.over_limit += 1;
                return;
            }
            let key = (borrowed.0.to_owned(), borrowed.1.to_owned(), kind, status, dimensions.clone());
            let call = Call { calls: 0, bytes: 0, latency: Latency::new(&BOUNDS), seen_ns: 0, new: true };
            self.calls.insert(key, call);
        }
        let Some(call) = self.calls.get_mut(&borrowed) else { return };
        call.calls += 1;
        call.bytes += size(span);
        call.seen_ns = span.now.0;
        let trace: Option<TraceId> = columns.trace_id.value(span.row).try_into().ok();
        let end = columns.start_ns.value(span.row).saturating_add(columns.duration_ns.value(span.row).max(0));
        call.latency.observe(&BOUNDS, settings.histograms.native(), span.seconds(), trace, end);
    }

    pub(crate) fn collect(&mut self, out: &mut Output, settings: &Settings, idle_before: i64) -> Result<()> {
        if self.calls.is_empty() {
            return Ok(());
        }
        out.describe(CALLS, "counter", "", "Spans by service, name, kind and status.");
        out.describe(LATENCY, "histogram", "seconds", "Duration of spans.");
        out.describe(SIZE, "counter", "bytes", "Size of spans.");
        let names: Vec<String> = settings.dimensions.iter().map(|key| sanitized(key)).collect();
        for ((service, name, kind, status, dimensions), call) in &mut self.calls {
            let word = |list: &[&'static str], at: i32| {
                usize::try_from(at).ok().and_then(|at| list.get(at).copied()).unwrap_or(list[0])
            };
            let mut labels: Vec<(&str, &str)> = vec![
                ("service", service),
                ("span_name", name),
                ("span_kind", word(&KINDS, *kind)),
                ("status_code", word(&STATUSES, *status)),
            ];
            labels.extend(names.iter().zip(dimensions.iter()).map(|(name, value)| (name.as_str(), value.as_str())));
            let life = match (call.seen_ns < idle_before, call.new) {
                (true, _) => Life::Gone,
                (false, true) => Life::New,
                (false, false) => Life::Going,
            };
            call.new = false;
            out.counter(&labels, CALLS, call.calls as f64, life);
            out.counter(&labels, SIZE, call.bytes as f64, life);
            call.latency.collect(out, &BOUNDS, LATENCY, &labels, life, &settings.exemplar_label)?;
        }
        self.calls.retain(|_, call| call.seen_ns >= idle_before);
        Ok(())
    }
}

/// The value of a dimension: of the resource, or else of the span; "" if neither has it.
fn dimension(span: &Observed<'_>, key: &str) -> String {
    span.resource_attribute(key).or_else(|| span.attribute(key)).map(plain).unwrap_or_default()
}

/// A label name made of an attribute's key.
fn sanitized(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

/// About the bytes of the span as an OTLP message: ids, times and kind are counted with their tags, texts with two bytes
/// of tag and length.
fn size(span: &Observed<'_>) -> u64 {
    const IDS_AND_NUMBERS: usize = 18 + 10 + 9 + 9 + 2;
    const TEXT: usize = 2;
    let columns = span.columns;
    let parent = if arrow::array::Array::is_null(columns.parent_span_id, span.row) { 0 } else { 10 };
    let name = TEXT + columns.name.value(span.row).len();
    let attributes: usize = columns
        .attributes
        .pairs(span.row)
        .map(|(key, value)| {
            let value = match value.strip_prefix('"') {
                Some(text) => TEXT + text.len() - 1,
                None => 1 + value.len().min(9),
            };
            TEXT + TEXT + key.len() + TEXT + value
        })
        .sum();
    (IDS_AND_NUMBERS + parent + name + attributes) as u64
}

//! `compare`: how often each value of each attribute occurs inside and outside of a selection.
//!
//! Owns: which attributes count, the most frequent values, totals. Attributes are those of span, resource, events,
//! links and scope, and the intrinsics below; no ids and no durations.

use std::collections::BTreeMap;

use storage::Context;
use storage::budget::Reservation;
use storage::model::value::Value;

use super::super::super::MetricsSeries;
use super::super::super::ast::{Attribute, AttributeScope, Intrinsic, Reference};
use super::super::super::plan::{MetricsPlan, Plan, Source};
use super::super::pipeline::spanset;
use super::super::trace::SpanAt;
use super::super::value::Val;
use super::Grid;
use crate::error::Result;

/// Intrinsics that are compared.
const INTRINSICS: [Intrinsic; 9] = [
    Intrinsic::Name,
    Intrinsic::Status,
    Intrinsic::StatusMessage,
    Intrinsic::Kind,
    Intrinsic::ChildCount,
    Intrinsic::RootName,
    Intrinsic::RootServiceName,
    Intrinsic::InstrumentationName,
    Intrinsic::InstrumentationVersion,
];

/// Roughly what a value takes besides its cells.
const VALUE_BYTES: usize = 256;

/// Counts per interval.
type Counts = Vec<f64>;

/// Values of one attribute by their key, with their counts.
#[derive(Default)]
struct Values {
    counts: BTreeMap<String, (Value, Counts)>,
    total: Counts,
}

/// One side of a comparison: values by attribute.
type Side = BTreeMap<String, Values>;

/// Collects a comparison.
pub(super) struct Comparison {
    grid: Grid,
    top: usize,
    range: Option<(i64, i64)>,
    baseline: Side,
    selection: Side,
    /// Attributes that the pipeline mentions by scope: Tempo reads these twice and counts them so.
    twice: Vec<String>,
    held: Reservation,
}

impl Comparison {
    pub(super) fn new(grid: Grid, top: i64, range: Option<(i64, i64)>, plan: &Plan, context: &Context) -> Result<Self> {
        let mentioned = plan.mentions.iter().filter(|mention| !mention.of_selection).map(|mention| &mention.reference);
        let twice = mentioned
            .filter(|reference| {
                matches!(reference, Reference::Attribute(attribute)
                    if matches!(attribute.scope, AttributeScope::Span | AttributeScope::Resource)
                        && attribute.name != "service.name")
            })
            .map(Reference::to_string)
            .collect();
        Ok(Self {
            grid,
            top: usize::try_from(top).unwrap_or(usize::MAX),
            range,
            baseline: Side::new(),
            selection: Side::new(),
            twice,
            held: context.reserve(0)?,
        })
    }

    /// Counts one span.
    pub(super) fn add(&mut self, at: &SpanAt<'_>, interval: usize, parts: &MetricsPlan) -> Result<()> {
        let start = at.columns.start_ns.value(at.row);
        let in_time = self.range.is_none_or(|(from, to)| from < start && start <= to);
        let span = u32::try_from(at.span).unwrap_or(u32::MAX);
        let selected = match &parts.selection {
            Some(plan) if in_time => !spanset(plan, at.trace, &[span])?.is_empty(),
            _ => false,
        };
        for (name, value) in attributes_of(at)? {
            self.count(selected, name, &value, interval)?;
        }
        Ok(())
    }

    fn count(&mut self, selected: bool, name: String, value: &Val<'_>, interval: usize) -> Result<()> {
        let intervals = self.grid.intervals;
        let weight = if self.twice.contains(&name) { 2.0 } else { 1.0 };
        let side = if selected { &mut self.selection } else { &mut self.baseline };
        let values = side.entry(name).or_default();
        if values.total.is_empty() {
            self.held.grow(VALUE_BYTES + intervals * size_of::<f64>())?;
            values.total = vec![0.0; intervals];
        }
        values.total[interval] += weight;
        let mut key = String::new();
        value.write_key(&mut key);
        if !values.counts.contains_key(&key) {
            self.held.grow(VALUE_BYTES + key.len() * 2 + intervals * size_of::<f64>())?;
            values.counts.insert(key.clone(), (value.to_value(), vec![0.0; intervals]));
        }
        if let Some((_, counts)) = values.counts.get_mut(&key) {
            counts[interval] += weight;
        }
        Ok(())
    }

    /// The series of both sides.
    pub(super) fn series(self) -> Vec<MetricsSeries> {
        let (grid, top) = (self.grid, self.top);
        let mut series = side_series(self.baseline, "baseline", grid, top);
        series.extend(side_series(self.selection, "selection", grid, top));
        series
    }
}

fn side_series(side: Side, kind: &str, grid: Grid, top: usize) -> Vec<MetricsSeries> {
    let of = |kind: &str, labels: Vec<(String, Value)>, counts: &Counts| MetricsSeries {
        labels: std::iter::once(("__meta_type".to_owned(), Value::String(kind.to_owned()))).chain(labels).collect(),
        samples: counts.iter().enumerate().map(|(i, count)| (grid.stamp_ms(i), *count)).collect(),
        exemplars: Vec::new(),
    };
    let mut series = Vec::new();
    for (name, values) in side {
        let nil = || (name.clone(), Value::String("nil".into()));
        let mut ranked: Vec<(f64, &Value, &Counts)> =
            values.counts.values().map(|(value, counts)| (counts.iter().sum(), value, counts)).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        if ranked.len() > top {
            let error = ("__meta_error".to_owned(), Value::String("__too_many_values__".into()));
            series.push(of(kind, vec![error, nil()], &vec![0.0; grid.intervals]));
        }
        for (_, value, counts) in ranked.into_iter().take(top) {
            series.push(of(kind, vec![(name.clone(), value.clone())], counts));
        }
        series.push(of(&format!("{kind}_total"), vec![nil()], &values.total));
    }
    series
}

/// Canonical names and values.
type Pairs = Vec<(String, Val<'static>)>;

/// What is compared of one span.
fn attributes_of(at: &SpanAt<'_>) -> Result<Pairs> {
    let mut list = Pairs::new();
    for (key, text) in at.columns.attributes.pairs(at.row) {
        push(&mut list, AttributeScope::Span, key, Val::of_typed_text(text));
    }
    for (key, text) in at.columns.scope_attributes.pairs(at.row) {
        push(&mut list, AttributeScope::Instrumentation, key, Val::of_typed_text(text));
    }
    if let Some(resource) = at.trace.resource(at.span) {
        for (key, text) in &resource.labels {
            push(&mut list, AttributeScope::Resource, key, Val::of_typed_text(text));
        }
    }
    for event in at.columns.events(at.row)? {
        for (key, value) in event.attributes {
            push(&mut list, AttributeScope::Event, &key, Val::of_value(value));
        }
        list.push((Intrinsic::EventName.name().to_owned(), Val::Str(event.name.into())));
    }
    for link in at.columns.links(at.row)? {
        for (key, value) in link.attributes {
            push(&mut list, AttributeScope::Link, &key, Val::of_value(value));
        }
    }
    for intrinsic in INTRINSICS {
        let source = Source::Intrinsic(intrinsic);
        let value = at.value(&source)?.into_owned();
        list.push((intrinsic.name().to_owned(), value));
    }
    Ok(list)
}

/// Adds a value; what has several counts as one without a value.
fn push(list: &mut Pairs, scope: AttributeScope, key: &str, value: Val<'_>) {
    let name = || Reference::Attribute(Attribute { scope, parent: false, name: key.to_owned() }).to_string();
    match value {
        Val::Nil => {}
        Val::Array(_) => list.push((name(), Val::Nil)),
        value => list.push((name(), value.into_owned())),
    }
}

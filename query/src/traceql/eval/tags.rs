//! Names and values of attributes, for completion while a user types.
//!
//! Owns: which spans count, collecting, the constant lists of intrinsics. Does not own: reading a half-written query
//! (`eval::completion`), what is known without reading spans (`eval::words`).

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashSet;
use storage::budget::Reservation;
use storage::model::time::{NS_PER_S, TimeRange};
use storage::{Context, Scan};

use super::super::ast::{Intrinsic, KINDS, Reference, STATUSES};
use super::super::parser::parse_reference;
use super::super::plan::{Plan, Source, SpansetPlan, StagePlan};
use super::super::{TagScope, TagValue};
use super::completion::filter_of;
use super::field::passes;
use super::reads::Reads;
use super::stream::{Window, each_trace};
use super::trace::{SpanAt, Trace};
use super::value::Val;
use super::words::Words;
use crate::error::{Error, Kind, Result};

/// Intrinsics as they are offered for completion.
const INTRINSIC_NAMES: [&str; 25] = [
    "duration",
    "event:name",
    "event:timeSinceStart",
    "instrumentation:name",
    "instrumentation:version",
    "kind",
    "link:spanID",
    "link:traceID",
    "name",
    "rootName",
    "rootServiceName",
    "span:duration",
    "span:id",
    "span:kind",
    "span:name",
    "span:parentID",
    "span:status",
    "span:statusMessage",
    "status",
    "statusMessage",
    "trace:duration",
    "trace:id",
    "trace:rootName",
    "trace:rootService",
    "traceDuration",
];

/// A span that began this long before the range may still last into it.
const SPAN_LONGEST_NS: i64 = 30 * 60 * NS_PER_S;
/// What a collected text takes besides its bytes.
const TEXT_BYTES: usize = 64;

/// The spans of a range that pass a half-written query.
struct Spans {
    plan: Plan,
    filter: Option<SpansetPlan>,
    range: Option<TimeRange>,
    /// Columns that are looked at beyond the plan's.
    looks_at: Vec<&'static str>,
}

impl Spans {
    fn new(filter: &str, range: Option<TimeRange>, looks_at: Vec<&'static str>) -> Result<Self> {
        let mut plan = Plan::default();
        let filter = filter_of(filter).map(|spansets| plan.compile_spansets(&spansets)).transpose()?;
        // A span that fails the filter is none that counts.
        plan.stages.extend(filter.clone().map(StagePlan::Spansets));
        Ok(Self { plan, filter, range, looks_at })
    }

    /// The times at which spans start that may count.
    fn starts(&self) -> TimeRange {
        self.range
            .map_or(TimeRange::ALL, |range| TimeRange::new(range.start.saturating_sub(SPAN_LONGEST_NS), range.end))
    }

    /// Where all that is asked for is known without reading spans, if no filter tells them apart.
    fn words<'a>(&self, scan: &'a dyn Scan, context: &'a Context) -> Option<Words<'a>> {
        self.filter.is_none().then(|| Words { scan, range: self.starts(), context })
    }

    async fn each(
        &self,
        scan: &dyn Scan,
        context: &Context,
        visit: &mut (dyn for<'t> FnMut(&SpanAt<'t>) -> Result<()> + Send),
    ) -> Result<()> {
        let whole = self.plan.needs.whole_trace;
        let range = match self.range {
            Some(_) if !whole => Some(self.starts()),
            range => range,
        };
        let reads = Reads::of(&self.plan).and(&["duration_ns"]).and(&self.looks_at);
        let window = Window { whole, ..Window::spans(range, reads) };
        each_trace(scan, &window, &self.plan, context, &mut |trace| {
            for span in 0..trace.len() {
                if self.wants(trace, span)? {
                    visit(&SpanAt::new(trace, span))?;
                }
            }
            Ok(())
        })
        .await
    }

    fn wants(&self, trace: &Trace<'_>, span: usize) -> Result<bool> {
        if let Some(range) = self.range {
            let (columns, row) = trace.row(span);
            let start = columns.start_ns.value(row);
            let end = start.saturating_add(columns.duration_ns.value(row).max(0));
            if !range.overlaps(start, end) {
                return Ok(false);
            }
        }
        match &self.filter {
            Some(SpansetPlan::Filter(filter)) => passes(filter, trace, span),
            _ => Ok(true),
        }
    }
}

/// A set of texts that grows within the query's memory.
struct Texts<T: Ord> {
    set: BTreeSet<T>,
    held: Reservation,
}

impl<T: Ord> Texts<T> {
    fn new(context: &Context) -> Result<Self> {
        Ok(Self { set: BTreeSet::new(), held: context.reserve(0)? })
    }

    fn insert(&mut self, item: T, bytes: usize) -> Result<()> {
        if self.set.insert(item) {
            self.held.grow(bytes + TEXT_BYTES)?;
        }
        Ok(())
    }
}

impl Texts<String> {
    fn insert_text(&mut self, text: &str) -> Result<()> {
        if self.set.contains(text) { Ok(()) } else { self.insert(text.to_owned(), text.len()) }
    }
}

/// Names of attributes by scope.
pub async fn tag_names(
    scan: &dyn Scan,
    scope: Option<TagScope>,
    filter: &str,
    range: Option<TimeRange>,
    context: &Context,
) -> Result<Vec<(TagScope, Vec<String>)>> {
    const STORED: [TagScope; 5] =
        [TagScope::Resource, TagScope::Span, TagScope::Event, TagScope::Link, TagScope::Instrumentation];
    let mut names: BTreeMap<TagScope, Texts<String>> = BTreeMap::new();
    for wanted in STORED.into_iter().filter(|known| scope.is_none_or(|scope| scope == *known)) {
        names.insert(wanted, Texts::new(context)?);
    }
    let looks_at = names.keys().filter_map(|scope| column_of(*scope)).collect();
    let spans = Spans::new(filter, range, looks_at)?;
    if !known_names(spans.words(scan, context), &mut names).await? {
        let mut resources: HashSet<i64, ahash::RandomState> = HashSet::default();
        let visit = &mut |at: &SpanAt<'_>| collect_names(at, &mut names, &mut resources);
        spans.each(scan, context, visit).await?;
    }
    let mut answer: Vec<(TagScope, Vec<String>)> = names
        .into_iter()
        .map(|(scope, texts)| (scope, texts.set.into_iter().collect::<Vec<_>>()))
        .filter(|(_, names)| !names.is_empty())
        .collect();
    if scope.is_none_or(|scope| scope == TagScope::Intrinsic) {
        answer.push((TagScope::Intrinsic, INTRINSIC_NAMES.map(str::to_owned).to_vec()));
    }
    Ok(answer)
}

/// Adds the names that are known without reading spans; `false` if they may not be all.
async fn known_names(words: Option<Words<'_>>, names: &mut BTreeMap<TagScope, Texts<String>>) -> Result<bool> {
    let Some(words) = words else { return Ok(names.is_empty()) };
    for (scope, texts) in names {
        let Some(known) = words.names(*scope).await? else { return Ok(false) };
        known.iter().try_for_each(|name| texts.insert_text(name))?;
    }
    Ok(true)
}

/// The column that holds what has names in a scope.
fn column_of(scope: TagScope) -> Option<&'static str> {
    match scope {
        TagScope::Resource => Some("resource_id"),
        TagScope::Span => Some("attributes"),
        TagScope::Event => Some("events"),
        TagScope::Link => Some("links"),
        TagScope::Instrumentation => Some("scope_attributes"),
        TagScope::Intrinsic => None,
    }
}

fn collect_names(
    at: &SpanAt<'_>,
    names: &mut BTreeMap<TagScope, Texts<String>>,
    resources: &mut HashSet<i64, ahash::RandomState>,
) -> Result<()> {
    let (columns, row) = (at.columns, at.row);
    for (scope, texts) in names {
        match scope {
            TagScope::Resource => {
                let id = columns.resource_id.value(row);
                if resources.insert(id)
                    && let Some(resource) = at.trace.resource(at.span)
                {
                    resource.labels.iter().try_for_each(|(key, _)| texts.insert_text(key))?;
                }
            }
            TagScope::Span => columns.attributes.pairs(row).try_for_each(|(key, _)| texts.insert_text(key))?,
            TagScope::Instrumentation => {
                columns.scope_attributes.pairs(row).try_for_each(|(key, _)| texts.insert_text(key))?;
            }
            TagScope::Event => {
                let events = columns.events(row)?;
                events.iter().flat_map(|e| &e.attributes).try_for_each(|(key, _)| texts.insert_text(key))?;
            }
            TagScope::Link => {
                let links = columns.links(row)?;
                links.iter().flat_map(|l| &l.attributes).try_for_each(|(key, _)| texts.insert_text(key))?;
            }
            TagScope::Intrinsic => {}
        }
    }
    Ok(())
}

/// Values of an attribute or intrinsic, each with its type.
pub async fn tag_values(
    scan: &dyn Scan,
    identifier: &str,
    filter: &str,
    range: Option<TimeRange>,
    context: &Context,
) -> Result<Vec<TagValue>> {
    let reference = parse_reference(identifier).map_err(|error| {
        let message = format!("please provide a valid tagName: failed to parse identifier {identifier}: {error}");
        Error::new(Kind::Parse, message)
    })?;
    let keywords = |words: &[(&str, i32)]| {
        words.iter().map(|(word, _)| TagValue { kind: "keyword", value: (*word).to_owned() }).collect()
    };
    match reference {
        Reference::Intrinsic(Intrinsic::Status) => return Ok(keywords(&STATUSES)),
        Reference::Intrinsic(Intrinsic::Kind) => return Ok(keywords(&KINDS)),
        Reference::Intrinsic(Intrinsic::Duration | Intrinsic::TraceDuration | Intrinsic::Parent) => {
            return Ok(Vec::new());
        }
        _ => {}
    }
    let mut spans = Spans::new(filter, range, Vec::new())?;
    let source = spans.plan.mention(&reference);
    let sources = match &source {
        Source::Any(name, slot) => vec![Source::Span(name.clone()), Source::Resource(*slot)],
        _ => vec![source],
    };
    let mut values: Texts<TagValue> = Texts::new(context)?;
    if let Some(words) = spans.words(scan, context)
        && let Some(known) = words.values(&reference).await?
    {
        known.iter().try_for_each(|value| insert_value(&mut values, value))?;
        return Ok(values.set.into_iter().collect());
    }
    let visit = &mut |at: &SpanAt<'_>| {
        for source in &sources {
            if source.of_event() || source.of_link() {
                at.values(source)?.iter().try_for_each(|value| insert_value(&mut values, value))?;
            } else {
                insert_value(&mut values, &at.value(source)?)?;
            }
        }
        Ok(())
    };
    spans.each(scan, context, visit).await?;
    Ok(values.set.into_iter().collect())
}

/// Values of an attribute by its bare name, from spans and resources, as texts; `name` is the span's name.
pub async fn legacy_tag_values(
    scan: &dyn Scan,
    name: &str,
    range: Option<TimeRange>,
    context: &Context,
) -> Result<Vec<String>> {
    let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
    let identifier = if name == "name" { name.to_owned() } else { format!(".\"{quoted}\"") };
    let values = tag_values(scan, &identifier, "", range, context).await?;
    let texts: BTreeSet<String> = values.into_iter().map(|value| value.value).collect();
    Ok(texts.into_iter().collect())
}

fn insert_value(values: &mut Texts<TagValue>, value: &Val<'_>) -> Result<()> {
    let (kind, text) = match value {
        Val::Nil => return Ok(()),
        Val::Array(list) => return list.iter().try_for_each(|value| insert_value(values, value)),
        Val::Str(text) => ("string", text.clone().into_owned()),
        Val::Bool(value) => ("bool", value.to_string()),
        Val::Int(n) => ("int", n.to_string()),
        Val::Float(x) => ("float", format!("{x:?}")),
        Val::Duration(ns) => ("duration", super::super::print::duration_text(*ns)),
        Val::Status(_) | Val::Kind(_) => return Ok(()),
    };
    let bytes = text.len();
    values.insert(TagValue { kind, value: text }, bytes)
}

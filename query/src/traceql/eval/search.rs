//! Search answers: the newest matching traces with what the query mentions of their spans.
//!
//! Owns: the choice of traces, root, durations, statistics per service, listed attributes. Legacy tag search is here
//! too, since its answer is the same.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use storage::model::span::TraceId;
use storage::model::value::Value;
use storage::{Context, Scan};

use super::super::ast::{Attribute, AttributeScope, BinaryOp, Intrinsic, Reference, STATUSES, word_of};
use super::super::plan::{Condition, Mention, Plan, Source};
use super::super::{FoundSpan, FoundTrace, SearchAnswer, SearchParams, ServiceStats, SpanSet};
use super::pipeline::{Group, run};
use super::reads::Reads;
use super::stream::{Window, each_trace};
use super::trace::{SpanAt, Trace};
use super::value::{Val, holds};
use crate::error::Result;

/// What answers show of any found trace; legacy search looks at some of it.
const SHOWN: [&str; 4] = ["service_name", "name", "status_code", "span_id"];
/// What stands for the service of a trace whose root is missing.
const NO_ROOT: &str = "<root span not yet received>";

/// Runs a planned search.
pub async fn search(scan: &dyn Scan, plan: &Plan, params: &SearchParams, context: &Context) -> Result<SearchAnswer> {
    collect(scan, plan, params, context, &|trace| {
        let groups = run(&plan.stages, trace)?;
        if groups.is_empty() {
            return Ok(None);
        }
        let mut found = metadata(trace);
        found.span_sets = span_sets(trace, &groups, &plan.mentions, params)?;
        found.service_stats = service_stats(trace);
        Ok(Some(found))
    })
    .await
}

/// Every trace, without spansets and statistics.
pub async fn search_all(scan: &dyn Scan, params: &SearchParams, context: &Context) -> Result<SearchAnswer> {
    collect(scan, &Plan::default(), params, context, &|trace| Ok(Some(metadata(trace)))).await
}

type Look<'l> = &'l (dyn Fn(&Trace<'_>) -> Result<Option<FoundTrace>> + Sync);

/// Looks at each trace that could still be among the newest `limit`.
async fn collect(
    scan: &dyn Scan,
    plan: &Plan,
    params: &SearchParams,
    context: &Context,
    look: Look<'_>,
) -> Result<SearchAnswer> {
    let reads = Reads::of(plan).and(&SHOWN);
    let window = Window { whole: true, traces: plan.traces.clone(), ..Window::spans(params.range, reads) };
    let mut answer = SearchAnswer::default();
    // By start, the oldest first; the id keeps traces of equal start apart.
    let mut newest: BTreeMap<(i64, Reverse<TraceId>), FoundTrace> = BTreeMap::new();
    let mut held = context.reserve(0)?;
    each_trace(scan, &window, plan, context, &mut |trace| {
        answer.inspected_traces += 1;
        answer.inspected_spans += trace.len() as u64;
        let key = (trace.summary().start_ns, Reverse(trace.id));
        let full = newest.len() >= params.limit;
        if full && newest.first_key_value().is_none_or(|(oldest, _)| key < *oldest) {
            return Ok(());
        }
        if let Some(found) = look(trace)? {
            if full {
                newest.pop_first();
            } else {
                held.grow(size_of_found(&found))?;
            }
            newest.insert(key, found);
            if newest.len() >= params.limit
                && let Some(((oldest, _), _)) = newest.first_key_value()
            {
                window.earliest.store(*oldest, Ordering::Relaxed);
            }
        }
        Ok(())
    })
    .await?;
    answer.traces = newest.into_values().rev().collect();
    Ok(answer)
}

/// Roughly what a found trace takes; those that replace it are taken for equally large.
fn size_of_found(found: &FoundTrace) -> usize {
    const ATTRIBUTE_BYTES: usize = 96;
    let spans = found.span_sets.iter().flat_map(|set| &set.spans);
    size_of::<FoundTrace>()
        + spans.map(|span| size_of::<FoundSpan>() + span.attributes.len() * ATTRIBUTE_BYTES).sum::<usize>()
        + found.service_stats.len() * ATTRIBUTE_BYTES
}

/// What is told of any found trace.
fn metadata(trace: &Trace<'_>) -> FoundTrace {
    FoundTrace {
        trace_id: trace.id,
        root_service_name: trace.root_service().unwrap_or(NO_ROOT).to_owned(),
        root_trace_name: trace.root_name().to_owned(),
        start_ns: trace.summary().start_ns,
        duration_ns: trace.duration_ns(),
        span_sets: Vec::new(),
        service_stats: BTreeMap::new(),
    }
}

fn span_sets(trace: &Trace<'_>, groups: &[Group], mentions: &[Mention], params: &SearchParams) -> Result<Vec<SpanSet>> {
    let mut span_sets = Vec::with_capacity(groups.len());
    for group in groups {
        let listed = group.spans.iter().take(params.spans_per_spanset);
        let spans = listed.map(|span| found_span(trace, *span as usize, mentions)).collect::<Result<_>>()?;
        span_sets.push(SpanSet { spans, matched: group.spans.len(), attributes: group.attributes.clone() });
    }
    Ok(span_sets)
}

fn service_stats(trace: &Trace<'_>) -> BTreeMap<String, ServiceStats> {
    const STATUS_ERROR: i32 = 2;
    let mut by_service: BTreeMap<&str, ServiceStats> = BTreeMap::new();
    for span in 0..trace.len() {
        let (columns, row) = trace.row(span);
        let stats = by_service.entry(columns.service_name.value(row)).or_default();
        stats.span_count = stats.span_count.saturating_add(1);
        if columns.status_code.value(row) == STATUS_ERROR {
            stats.error_count = stats.error_count.saturating_add(1);
        }
    }
    by_service.into_iter().map(|(service, stats)| (service.to_owned(), stats)).collect()
}

fn found_span(trace: &Trace<'_>, span: usize, mentions: &[Mention]) -> Result<FoundSpan> {
    let at = SpanAt::new(trace, span);
    let mut found = FoundSpan {
        span_id: <[u8; 8]>::try_from(at.columns.span_id.value(at.row)).unwrap_or_default(),
        name: String::new(),
        start_ns: at.columns.start_ns.value(at.row),
        duration_ns: at.columns.duration_ns.value(at.row),
        attributes: Vec::new(),
    };
    for mention in mentions {
        match mention.reference {
            Reference::Intrinsic(Intrinsic::Name) => {
                let name = at.columns.name.value(at.row);
                if mention.bare || mention.conditions.iter().any(|condition| meets(condition, &Val::text(name))) {
                    name.clone_into(&mut found.name);
                }
            }
            // These stand elsewhere in the answer.
            Reference::Intrinsic(
                Intrinsic::Duration
                | Intrinsic::TraceDuration
                | Intrinsic::RootName
                | Intrinsic::RootServiceName
                | Intrinsic::TraceId
                | Intrinsic::SpanId,
            ) => {}
            _ => {
                let key = bare_key(&mention.reference);
                if let Some(value) = listed_value(&at, &mention.source, mention)? {
                    found.attributes.push((key.clone(), value));
                }
                // Without a condition that chooses, a name without scope means both.
                if let Source::Any(_, slot) = &mention.source
                    && mention.conditions.is_empty()
                    && at.value(&Source::Span(key.clone()))? != Val::Nil
                    && let value @ Some(_) = listed_value(&at, &Source::Resource(*slot), mention)?
                {
                    found.attributes.extend(value.map(|value| (key, value)));
                }
            }
        }
    }
    Ok(found)
}

fn bare_key(reference: &Reference) -> String {
    match reference {
        Reference::Attribute(attribute) => attribute.name.clone(),
        Reference::Intrinsic(intrinsic) => intrinsic.name().to_owned(),
    }
}

/// The value an answer shows: of arrays, events and links what the conditions chose.
fn listed_value(at: &SpanAt<'_>, source: &Source, mention: &Mention) -> Result<Option<Value>> {
    let wanted =
        |value: &Val<'_>| mention.conditions.iter().any(|condition| is_positive(condition) && meets(condition, value));
    if source.of_event() || source.of_link() {
        let values = at.values(source)?;
        let chosen = values.iter().rfind(|value| wanted(value)).or(values.last());
        return Ok(match chosen {
            Some(value) => Some(value.to_value()),
            None if mention.nil_asked => Some(Value::String("nil".into())),
            // A missing link or event still has its intrinsics.
            None if matches!(source, Source::Intrinsic(_)) => Some(Value::String(String::new())),
            None => None,
        });
    }
    Ok(match at.value(source)? {
        Val::Nil => mention.nil_asked.then(|| Value::String("nil".into())),
        Val::Array(list) => {
            let mut chosen: Vec<Value> = list.iter().filter(|value| wanted(value)).map(Val::to_value).collect();
            match chosen.len() {
                0 => Some(Val::Array(list).to_value()),
                1 => chosen.pop(),
                _ => Some(Value::Array(chosen)),
            }
        }
        value => Some(value.to_value()),
    })
}

fn meets(condition: &Condition, value: &Val<'_>) -> bool {
    match condition {
        Condition::Compare(op, constant) => holds(*op, value, constant),
        Condition::Regex(regex, negated) => matches!(value, Val::Str(text) if regex.is_match(text) != *negated),
    }
}

/// Whether a condition chooses among many values; `!=` and `!~` are about all of them.
fn is_positive(condition: &Condition) -> bool {
    !matches!(condition, Condition::Compare(BinaryOp::NotEqual, _) | Condition::Regex(_, true))
}

/// Legacy search: each pair must hold on some span of the trace, as a substring of the value's text.
pub async fn search_tags(
    scan: &dyn Scan,
    tags: &[(String, String)],
    durations: (Option<i64>, Option<i64>),
    params: &SearchParams,
    context: &Context,
) -> Result<SearchAnswer> {
    let mut plan = Plan::default();
    let any = |name: &str| Attribute { scope: AttributeScope::Any, parent: false, name: name.to_owned() };
    let sources: Vec<Source> = tags.iter().map(|(key, _)| plan.mention(&Reference::Attribute(any(key)))).collect();
    collect(scan, &plan, params, context, &|trace| {
        let ns = trace.duration_ns();
        if durations.0.is_some_and(|least| ns < least) || durations.1.is_some_and(|most| ns > most) {
            return Ok(None);
        }
        for ((key, needle), source) in tags.iter().zip(&sources) {
            let mut held = false;
            for span in 0..trace.len() {
                held = held || has_tag(&SpanAt::new(trace, span), key, needle, source)?;
            }
            if !held {
                return Ok(None);
            }
        }
        Ok(Some(metadata(trace)))
    })
    .await
}

fn has_tag(at: &SpanAt<'_>, key: &str, needle: &str, source: &Source) -> Result<bool> {
    let within = |text: &str| text.contains(needle);
    let Source::Any(name, slot) = source else { return Ok(false) };
    for source in [Source::Span(name.clone()), Source::Resource(*slot)] {
        if text_within(&at.value(&source)?, &within) {
            return Ok(true);
        }
    }
    let (columns, row) = (at.columns, at.row);
    Ok(match key {
        "name" => within(columns.name.value(row)),
        "root.service.name" => within(at.trace.root_service().unwrap_or("")),
        "root.name" => within(at.trace.root_name()),
        "status.code" => word_of(&STATUSES, columns.status_code.value(row)) == needle,
        _ => false,
    })
}

fn text_within(value: &Val<'_>, within: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Val::Nil => false,
        Val::Str(text) => within(text),
        Val::Array(list) => list.iter().any(|value| text_within(value, within)),
        value => within(&value.to_value().to_text()),
    }
}

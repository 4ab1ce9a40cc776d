//! One trace as evaluation sees it: rows of batches, its resources, and what is computed of the whole on demand.
//!
//! Owns: the view of a trace's rows, looking up values by source, the trace's summary. Does not own: how rows come
//! (`eval::stream`), the span tree (`eval::tree`).

use std::cell::OnceCell;
use std::ops::Range;

use arrow::array::Array;
use hashbrown::HashMap;
use storage::model::batch::SERVICE_NAME;
use storage::model::columns::SpanColumns;
use storage::model::identity::Identity;
use storage::model::labels::Labels;
use storage::model::span::{Attributes, Event, Link, TraceId};

use super::super::ast::Intrinsic;
use super::super::plan::Source;
use super::tree::Tree;
use super::value::Val;
use crate::error::Result;

/// The resources of a query's spans, with the attributes that the plan mentions read once.
#[derive(Debug, Default)]
pub struct Resources {
    by_id: HashMap<i64, usize, ahash::RandomState>,
    list: Vec<Resource>,
}

/// One resource.
#[derive(Debug)]
pub struct Resource {
    /// All attributes as typed texts.
    pub labels: Labels,
    slots: Vec<Val<'static>>,
}

impl Resources {
    /// Reads the attributes `keys` of each resource.
    pub fn new(identities: Vec<Identity>, keys: &[String]) -> Self {
        let mut resources = Self::default();
        for identity in identities {
            let read = |key: &String| match identity.labels.get(key) {
                Some(text) => Val::of_typed_text(text).into_owned(),
                // A resource without a service has the service "": this one attribute is never missing.
                None if key == SERVICE_NAME => Val::text(""),
                None => Val::Nil,
            };
            let slots = keys.iter().map(read).collect();
            if resources.by_id.insert(identity.id.to_column(), resources.list.len()).is_none() {
                resources.list.push(Resource { labels: identity.labels, slots });
            }
        }
        resources
    }

    /// The id columns' values of the resources whose attribute in `slot` passes, ascending.
    pub fn passing(&self, slot: usize, passes: &dyn Fn(&Val<'_>) -> bool) -> Vec<i64> {
        let passing = |at: usize| self.list.get(at).and_then(|resource| resource.slots.get(slot)).is_some_and(passes);
        let mut ids: Vec<i64> = self.by_id.iter().filter(|(_, at)| passing(**at)).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// The resource of an id column's value.
    pub fn get(&self, id: i64) -> Option<&Resource> {
        self.by_id.get(&id).and_then(|at| self.list.get(*at))
    }
}

/// Consecutive rows of one batch that belong to a trace.
#[derive(Clone, Debug)]
pub struct Piece<'a> {
    /// The batch's columns.
    pub columns: &'a SpanColumns<'a>,
    /// The rows.
    pub rows: Range<usize>,
}

/// A trace, or the part of it that a scan gave. Spans are numbered from 0 in the order of their start.
pub struct Trace<'a> {
    /// Its id.
    pub id: TraceId,
    first: Piece<'a>,
    more: Vec<Piece<'a>>,
    len: usize,
    resources: &'a Resources,
    summary: OnceCell<Summary>,
    tree: OnceCell<Tree>,
}

/// What is known of a trace as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Earliest start.
    pub start_ns: i64,
    /// Latest start.
    pub last_start_ns: i64,
    /// Latest end.
    pub end_ns: i64,
    /// The span without parent that starts first.
    pub root: Option<usize>,
}

impl<'a> Trace<'a> {
    /// The trace of some rows, of which `first` has at least one.
    pub fn new(id: TraceId, first: Piece<'a>, more: Vec<Piece<'a>>, resources: &'a Resources) -> Self {
        let len = first.rows.len() + more.iter().map(|piece| piece.rows.len()).sum::<usize>();
        Self { id, first, more, len, resources, summary: OnceCell::new(), tree: OnceCell::new() }
    }

    fn pieces(&self) -> impl Iterator<Item = &Piece<'a>> {
        std::iter::once(&self.first).chain(&self.more)
    }

    /// How many spans; at least one.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The columns and the row of a span; of a number beyond `len`, those of the first span.
    pub fn row(&self, span: usize) -> (&'a SpanColumns<'a>, usize) {
        let mut at = span;
        for piece in self.pieces() {
            if at < piece.rows.len() {
                return (piece.columns, piece.rows.start + at);
            }
            at -= piece.rows.len();
        }
        (self.first.columns, self.first.rows.start)
    }

    /// Earliest start, latest end and root.
    pub fn summary(&self) -> &Summary {
        self.summary.get_or_init(|| {
            let mut summary = Summary { start_ns: i64::MAX, last_start_ns: i64::MIN, end_ns: i64::MIN, root: None };
            let mut root_start = i64::MAX;
            let mut span = 0;
            for piece in self.pieces() {
                for row in piece.rows.clone() {
                    let start = piece.columns.start_ns.value(row);
                    let end = start.saturating_add(piece.columns.duration_ns.value(row));
                    summary.start_ns = summary.start_ns.min(start);
                    summary.last_start_ns = summary.last_start_ns.max(start);
                    summary.end_ns = summary.end_ns.max(end);
                    if parent_of(piece.columns, row).is_none() && (summary.root.is_none() || start < root_start) {
                        summary.root = Some(span);
                        root_start = start;
                    }
                    span += 1;
                }
            }
            summary
        })
    }

    /// Latest end − earliest start.
    pub fn duration_ns(&self) -> i64 {
        self.summary().end_ns.saturating_sub(self.summary().start_ns)
    }

    /// Whether the parent of some span is not in the trace.
    pub fn has_orphans(&self) -> bool {
        /// Up to so many spans, looking at each pair is cheaper than sorting.
        const PAIRS_MAX: usize = 48;
        if self.len > PAIRS_MAX {
            return self.tree().has_orphans();
        }
        let rows = || (0..self.len).map(|span| self.row(span));
        rows().any(|(columns, row)| {
            parent_of(columns, row)
                .is_some_and(|parent| !rows().any(|(columns, row)| columns.span_id.value(row) == parent))
        })
    }

    /// The span tree with its nested-set numbers.
    pub fn tree(&self) -> &Tree {
        self.tree.get_or_init(|| Tree::of(self))
    }

    /// The service of the root, if it has one.
    pub fn root_service(&self) -> Option<&'a str> {
        let (columns, row) = self.row(self.summary().root?);
        Some(columns.service_name.value(row)).filter(|name| !name.is_empty())
    }

    /// The name of the root, or "".
    pub fn root_name(&self) -> &'a str {
        self.summary().root.map_or("", |root| {
            let (columns, row) = self.row(root);
            columns.name.value(row)
        })
    }

    /// The resource of a span.
    pub fn resource(&self, span: usize) -> Option<&'a Resource> {
        let (columns, row) = self.row(span);
        self.resources.get(columns.resource_id.value(row))
    }

    /// The trace id as answers print it: hex without leading zeros.
    pub fn short_id(&self) -> String {
        short_hex(&self.id)
    }
}

/// Hex without leading zeros.
pub fn short_hex(id: &[u8]) -> String {
    hex::encode(id).trim_start_matches('0').to_owned()
}

/// The parent's id; `None` for a root, also when it was sent as zeros.
pub fn parent_of<'a>(columns: &'a SpanColumns<'a>, row: usize) -> Option<&'a [u8]> {
    if columns.parent_span_id.is_null(row) {
        return None;
    }
    Some(columns.parent_span_id.value(row)).filter(|id| id.iter().any(|byte| *byte != 0))
}

/// A span to look values up in, with the event and link under test, if any.
#[derive(Clone, Copy)]
pub struct SpanAt<'v> {
    /// Its trace.
    pub trace: &'v Trace<'v>,
    /// Its number.
    pub span: usize,
    /// Its columns.
    pub columns: &'v SpanColumns<'v>,
    /// Its row.
    pub row: usize,
    /// All events with the one under test; `None`: not read.
    pub events: Option<(&'v [Event], usize)>,
    /// All links with the one under test; `None`: not read.
    pub links: Option<(&'v [Link], usize)>,
}

impl<'v> SpanAt<'v> {
    /// A span of `trace`.
    pub fn new(trace: &'v Trace<'v>, span: usize) -> Self {
        let (columns, row) = trace.row(span);
        Self { trace, span, columns, row, events: None, links: None }
    }

    /// The value of `source`. Of events and links it is the one under test, or the last that has the field.
    pub fn value(&self, source: &'v Source) -> Result<Val<'v>> {
        Ok(match source {
            Source::Span(key) => self.attribute(key),
            Source::Resource(slot) => self.resource_slot(*slot),
            Source::Any(key, slot) => match self.attribute(key) {
                Val::Nil => self.resource_slot(*slot),
                value => value,
            },
            Source::Instrumentation(key) => {
                self.columns.scope_attributes.get(self.row, key).map_or(Val::Nil, Val::of_typed_text)
            }
            Source::Intrinsic(intrinsic) if !source.of_event() && !source.of_link() => self.intrinsic(*intrinsic),
            source if source.of_event() => match self.events {
                Some((events, at)) => {
                    events.get(at).map_or(Val::Nil, |event| event_value(event, self.start_ns(), source))
                }
                None => {
                    let start = self.start_ns();
                    let events = self.columns.events(self.row)?;
                    last_present(events.iter().map(|event| event_value(event, start, source)))
                }
            },
            source => match self.links {
                Some((links, at)) => links.get(at).map_or(Val::Nil, |link| link_value(link, source)),
                None => {
                    let links = self.columns.links(self.row)?;
                    last_present(links.iter().map(|link| link_value(link, source)))
                }
            },
        })
    }

    /// The values of `source`: several for events and links, else one.
    pub fn values(&self, source: &'v Source) -> Result<Vec<Val<'static>>> {
        let start = self.start_ns();
        let list: Vec<Val<'static>> = if source.of_event() {
            let events = self.columns.events(self.row)?;
            events.iter().map(|event| event_value(event, start, source).into_owned()).collect()
        } else if source.of_link() {
            let links = self.columns.links(self.row)?;
            links.iter().map(|link| link_value(link, source).into_owned()).collect()
        } else {
            vec![self.value(source)?.into_owned()]
        };
        Ok(list.into_iter().filter(|value| *value != Val::Nil).collect())
    }

    fn start_ns(&self) -> i64 {
        self.columns.start_ns.value(self.row)
    }

    fn attribute(&self, key: &str) -> Val<'v> {
        self.columns.attributes.get(self.row, key).map_or(Val::Nil, Val::of_typed_text)
    }

    fn resource_slot(&self, slot: usize) -> Val<'v> {
        let resource = self.trace.resources.get(self.columns.resource_id.value(self.row));
        resource.and_then(|resource| resource.slots.get(slot)).map_or(Val::Nil, Val::borrow)
    }

    fn intrinsic(&self, intrinsic: Intrinsic) -> Val<'v> {
        let (columns, row) = (self.columns, self.row);
        let text =
            |column: &'v arrow::array::StringArray| Val::text(if column.is_null(row) { "" } else { column.value(row) });
        match intrinsic {
            Intrinsic::Name => text(columns.name),
            Intrinsic::Status => Val::Status(columns.status_code.value(row)),
            Intrinsic::StatusMessage => text(columns.status_message),
            Intrinsic::Kind => Val::Kind(columns.kind.value(row)),
            Intrinsic::Duration => Val::Duration(columns.duration_ns.value(row)),
            Intrinsic::SpanId => Val::Str(hex::encode(columns.span_id.value(row)).into()),
            Intrinsic::ParentId => {
                let id = parent_of(columns, row).map_or_else(|| "0".repeat(16), hex::encode);
                Val::Str(id.into())
            }
            Intrinsic::ChildCount => Val::Int(self.trace.tree().child_count(self.span)),
            Intrinsic::TraceDuration => Val::Duration(self.trace.duration_ns()),
            Intrinsic::RootName => Val::text(self.trace.root_name()),
            Intrinsic::RootServiceName => Val::text(self.trace.root_service().unwrap_or("")),
            Intrinsic::TraceId => Val::Str(self.trace.short_id().into()),
            Intrinsic::NestedSetLeft => Val::Int(self.trace.tree().left(self.span)),
            Intrinsic::NestedSetRight => Val::Int(self.trace.tree().right(self.span)),
            Intrinsic::NestedSetParent => Val::Int(self.trace.tree().parent_left(self.span)),
            Intrinsic::InstrumentationName => text(columns.scope_name),
            Intrinsic::InstrumentationVersion => text(columns.scope_version),
            Intrinsic::EventName
            | Intrinsic::EventTimeSinceStart
            | Intrinsic::LinkTraceId
            | Intrinsic::LinkSpanId
            | Intrinsic::Parent => Val::Nil,
        }
    }
}

fn last_present<'a>(values: impl Iterator<Item = Val<'a>>) -> Val<'static> {
    values.filter(|value| *value != Val::Nil).last().map_or(Val::Nil, Val::into_owned)
}

fn of_attributes<'v>(attributes: &'v Attributes, key: &str) -> Val<'v> {
    let found = attributes.iter().find(|(name, _)| name == key);
    found.map_or(Val::Nil, |(_, value)| match value {
        storage::model::value::Value::String(text) => Val::text(text),
        other => Val::of_value(other.clone()),
    })
}

/// A field of an event.
pub fn event_value<'v>(event: &'v Event, start_ns: i64, source: &Source) -> Val<'v> {
    match source {
        Source::Event(key) => of_attributes(&event.attributes, key),
        Source::Intrinsic(Intrinsic::EventName) => Val::text(&event.name),
        Source::Intrinsic(Intrinsic::EventTimeSinceStart) => Val::Duration(event.ts_ns.saturating_sub(start_ns)),
        _ => Val::Nil,
    }
}

/// A field of a link.
pub fn link_value<'v>(link: &'v Link, source: &Source) -> Val<'v> {
    match source {
        Source::Link(key) => of_attributes(&link.attributes, key),
        Source::Intrinsic(Intrinsic::LinkTraceId) => Val::Str(short_hex(&link.trace_id).into()),
        Source::Intrinsic(Intrinsic::LinkSpanId) => Val::Str(hex::encode(&link.span_id).into()),
        _ => Val::Nil,
    }
}

//! Scans of an engine: tables, frozen heads and active heads as one.
//!
//! Owns: which sources a scan reads and when they are fixed. Does not own: reading blocks (`scan::read`), order and
//! duplicates (`scan::merge`).
//!
//! Invariants
//! 1. Heads are taken before the snapshot: a row that moves from one to the other meanwhile is in at least one of
//!    them, and the merge counts it once.
//! 2. Nothing is read from the heads after the future of a scan resolved.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::Engine;
use super::lane::Lane;
use super::visible::{HidesByBlock, filtered, widened};
use crate::budget::Reservation;
use crate::context::Context;
use crate::delete::hide::Hide;
use crate::error::{Error, Result};
use crate::head::{Answer, Postings, Question, Selection, Spelling, TenantHead};
use crate::model::identity::Identity;
use crate::model::matcher::Matcher;
use crate::model::tenant::Tenant;
use crate::model::time::TimeRange;
use crate::retention::Cutoffs;
use crate::scan::distinct::{add_blocks, check};
use crate::scan::merge::merge;
use crate::scan::read::{BlockSource, open_blocks};
use crate::scan::repeats::overlaps;
use crate::scan::{BatchStream, Distinct, DistinctRequest, Scan, ScanRequest};
use crate::signal::{Signal, SortBy};
use crate::table::{Snapshot, TenantTables};

/// Lists shorter than this are tested label set by label set.
const POSTINGS_MIN: usize = 1024;
/// Lists of stored identities whose postings are kept.
const POSTINGS_LISTS_MAX: usize = 16;

/// Postings of stored identities, by the list they are of; the latest used last.
#[derive(Default)]
pub(super) struct StoredPostings(Mutex<Vec<Indexed>>);

/// A list and its postings.
type Indexed = (Arc<Vec<Identity>>, Arc<Postings>);

impl StoredPostings {
    fn of(&self, list: &Arc<Vec<Identity>>) -> Arc<Postings> {
        let known = |(other, _): &Indexed| Arc::ptr_eq(other, list);
        let mut kept = self.0.lock();
        if let Some(entry) = kept.iter().position(known).map(|at| kept.remove(at)) {
            let postings = Arc::clone(&entry.1);
            kept.push(entry);
            return postings;
        }
        drop(kept);
        let postings = Arc::new(Postings::of(list.iter().map(|identity| &identity.labels)));
        let mut kept = self.0.lock();
        if kept.len() >= POSTINGS_LISTS_MAX {
            kept.remove(0);
        }
        kept.push((Arc::clone(list), Arc::clone(&postings)));
        postings
    }
}

impl Engine {
    /// The stored identities of the days of `range` that pass one of `selectors`.
    async fn stored_identities(
        &self,
        signal: Signal,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        context: &Context,
    ) -> Result<Vec<Identity>> {
        let Some(days) = range.days() else { return Ok(Vec::new()) };
        let tables = self.tables(&context.tenant);
        self.refresh(&tables, signal.spec().identities).await?;
        let list = tables.identities(signal, days).await?;
        if selectors.is_empty() {
            return Ok(list.to_vec());
        }
        if list.len() < POSTINGS_MIN {
            let passes = |identity: &&Identity| {
                selectors.iter().any(|matchers| matchers.iter().all(|m| m.matches_labels(&identity.labels)))
            };
            return Ok(list.iter().filter(passes).cloned().collect());
        }
        let passed = self.stored_postings.of(&list).select(selectors);
        Ok(passed.iter().filter_map(|i| list.get(usize::try_from(i).ok()?).cloned()).collect())
    }

    async fn find_identities(
        &self,
        signal: Signal,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        context: &Context,
    ) -> Result<Vec<Identity>> {
        context.check()?;
        let lane = self.lane(signal);
        let tables = self.tables(&context.tenant);
        let hiding = self.hiding(&tables, signal).await?;
        let range = TimeRange { start: range.start.max(hiding.cutoffs.floor()), ..range };
        let mut found = head_identities(lane, selectors, range, &context.tenant, &hiding.cutoffs);
        let in_heads = found.len();
        let stored = self.stored_identities(signal, selectors, range, context).await?;
        found.extend(self.visible_identities(&tables, signal, stored, range, &hiding).await?);
        context.check()?;
        // Their labels are shared with heads and caches. What the caller makes of the list it reserves itself.
        drop(context.reserve(found.len() * std::mem::size_of::<Identity>())?);
        if in_heads > 0 {
            // What is stored comes sorted; a sort that finds runs makes use of it.
            found.sort_by(|a, b| a.labels.cmp(&b.labels));
            found.dedup_by(|a, b| a.id == b.id);
        }
        Ok(found)
    }

    async fn scan_rows(&self, mut request: ScanRequest, context: &Context) -> Result<BatchStream> {
        context.check()?;
        let spec = request.table.spec();
        let signal = spec.signal;
        if !signal.spec().facts.contains(&request.table) {
            return Err(Error::bug(format!("`{}` holds identities and is not scanned", spec.name)));
        }
        let tables = self.tables(&context.tenant);
        let hiding = self.hiding(&tables, signal).await?;
        request.range.start = request.range.start.max(hiding.cutoffs.floor());
        if spec.sort_by == SortBy::Identity && request.identities.is_none() {
            let all = self.find_identities(signal, &[], request.range, context).await?;
            request.identities = Some(Arc::new(all.iter().map(|identity| identity.id).collect()));
        }
        let selections: Vec<Held> = {
            let heads = self.lane(signal).shared.heads.read();
            let select = |head: &TenantHead| {
                let mut held = context.reserve(0)?;
                let selection = head.select(&request, &mut |bytes| held.grow(bytes))?;
                Ok(Held { selection, held, hides: hiding.of_head(head, request.range).into() })
            };
            heads.of(&context.tenant).map(select).collect::<Result<_>>()?
        };
        self.refresh(&tables, request.table).await?;
        let snapshot = tables.snapshot(request.table).await?;
        let selections: Vec<Held> = selections.into_iter().filter(|held| !held.selection.is_empty()).collect();
        let hides = hiding.of_blocks(&tables, &snapshot, &request).await?;
        let all_hides = hides.values().chain(selections.iter().map(|held| &held.hides));
        let wide = widened(&request, all_hides.flat_map(|hides| hides.iter()));
        let sources = sources(&tables, &snapshot, &wide, selections, &hides, context).await?;
        let rows = merge(&wide, sources, context);
        let schema = request.schema()?;
        Ok(match wide.schema()? == schema && spec.sort_by != SortBy::Text {
            true => rows,
            // Rows that are told apart by all their columns come with all of them.
            false => rows.map(move |rows| named_columns(&rows?, &schema)).boxed(),
        })
    }
}

impl Engine {
    async fn find_distinct(&self, mut request: DistinctRequest, context: &Context) -> Result<Distinct> {
        context.check()?;
        check(&request)?;
        let tables = self.tables(&context.tenant);
        let hiding = self.hiding(&tables, request.table.signal()).await?;
        request.range.start = request.range.start.max(hiding.cutoffs.floor());
        if !hiding.requests.is_idle() || hiding.cutoffs.ceiling() > request.range.start {
            // Dictionaries also have what is hidden.
            return Ok(Distinct::unknown());
        }
        let spellings: Vec<Spelling> = {
            let heads = self.lane(request.table.signal()).shared.heads.read();
            heads.of(&context.tenant).filter_map(|head| head.spelling(request.table, request.range)).collect()
        };
        let of_heads = request.clone();
        let ask = move || {
            let mut found = Distinct::none();
            for spelling in spellings {
                spelling.ask(|dictionary| found.add(dictionary, &of_heads))?;
            }
            Ok::<_, Error>(found)
        };
        let asked = tokio::task::spawn_blocking(ask).await;
        let mut found = asked.map_err(|source| Error::bug("reading a head's words stopped").with_source(source))??;
        self.refresh(&tables, request.table).await?;
        add_blocks(&mut found, &tables, &request, context).await?;
        Ok(found)
    }
}

/// Rows of a head that were asked for, and what hides some of them.
struct Held {
    selection: Selection,
    held: Reservation,
    hides: Arc<[Hide]>,
}

/// The visible rows of blocks and heads, oldest first.
async fn sources(
    tables: &Arc<TenantTables>,
    snapshot: &Snapshot,
    request: &ScanRequest,
    selections: Vec<Held>,
    hides: &HidesByBlock,
    context: &Context,
) -> Result<Vec<BatchStream>> {
    let table = request.table;
    let blocks = open_blocks(tables, snapshot, request, context).await?;
    let extents = blocks.iter().map(BlockSource::extent).chain(selections.iter().map(|held| held.selection.extent()));
    let mut overlaps = overlaps(request, extents.collect(), context)?.into_iter();
    let mut sources: Vec<BatchStream> = Vec::with_capacity(blocks.len() + selections.len());
    for block in blocks {
        let hides = hides.get(block.path()).cloned();
        let rows = block.into_stream(overlaps.next().unwrap_or_default(), context);
        sources.push(filtered(table, rows, hides));
    }
    let places = if table.spec().sort_by == SortBy::Text { None } else { request.projection() };
    for Held { selection, held, hides } in selections {
        let batches = selection.into_columns(places.clone(), overlaps.next().unwrap_or_default());
        sources.push(filtered(table, stream(batches, held, context.clone()), Some(hides)));
    }
    Ok(sources)
}

/// The columns of `schema`, by name.
fn named_columns(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let places = schema.fields().iter().map(|field| rows.schema_ref().index_of(field.name()));
    Ok(rows.project(&places.collect::<Result<Vec<_>, _>>()?)?)
}

/// The identities of the heads. Their lock is held to take what is tested and to fetch what passed, not for the tests:
/// appends would wait for regular expressions. A head that leaves in between is in the tables, which are read later.
fn head_identities(
    lane: &Lane,
    selectors: &[Vec<Matcher>],
    range: TimeRange,
    tenant: &Tenant,
    cutoffs: &Cutoffs,
) -> Vec<Identity> {
    let mut answers: Vec<Option<Answer>> = vec![None];
    if !selectors.is_empty() {
        let questions: Vec<Question> = lane.shared.heads.read().of(tenant).map(TenantHead::question).collect();
        answers = questions.into_iter().map(|question| Some(question.ask(selectors))).collect();
    }
    let heads = lane.shared.heads.read();
    let of = |head: &TenantHead| {
        answers.iter().flat_map(|answer| kept_identities(head, answer.as_ref(), range, cutoffs)).collect::<Vec<_>>()
    };
    heads.of(tenant).flat_map(of).collect()
}

/// The identities that have rows in `range` which are not too old.
fn kept_identities(head: &TenantHead, answer: Option<&Answer>, range: TimeRange, cutoffs: &Cutoffs) -> Vec<Identity> {
    if cutoffs.ceiling() <= range.start {
        return head.matching(answer, range);
    }
    let mut starts: Vec<i64> = cutoffs.groups.iter().map(|group| group.cutoff).chain([cutoffs.rest]).collect();
    starts.sort_unstable();
    starts.dedup();
    let from = |cutoff: i64| {
        let found = head.matching(answer, TimeRange { start: range.start.max(cutoff), ..range });
        found.into_iter().filter(move |identity| cutoffs.of(&identity.labels) == cutoff)
    };
    starts.into_iter().flat_map(from).collect()
}

/// The rows of a selection; its memory is given back with the stream.
fn stream(
    batches: impl Iterator<Item = Result<RecordBatch>> + Send + 'static,
    held: Reservation,
    context: Context,
) -> BatchStream {
    let batches = batches.map(move |rows| {
        let _ = &held;
        context.check()?;
        rows
    });
    futures::stream::iter(batches).boxed()
}

impl Scan for Engine {
    fn scan<'a>(&'a self, request: ScanRequest, context: &'a Context) -> BoxFuture<'a, Result<BatchStream>> {
        Box::pin(self.scan_rows(request, context))
    }

    fn identities<'a>(
        &'a self,
        signal: Signal,
        selectors: &'a [Vec<Matcher>],
        range: TimeRange,
        context: &'a Context,
    ) -> BoxFuture<'a, Result<Vec<Identity>>> {
        Box::pin(self.find_identities(signal, selectors, range, context))
    }

    fn distinct<'a>(&'a self, request: DistinctRequest, context: &'a Context) -> BoxFuture<'a, Result<Distinct>> {
        Box::pin(self.find_distinct(request, context))
    }
}

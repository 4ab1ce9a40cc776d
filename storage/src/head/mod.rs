//! The head: what was acknowledged and is in no table yet, per tenant, queryable.
//!
//! Owns: one tenant's identities and rows of one signal, their memory accounting, the selection of rows for scans
//! and flushes. Does not own: when it is frozen or flushed (`engine`), order across sources (`scan::merge`).
//!
//! Invariants
//! 1. Every row's identity is in [`Identities`].
//! 2. A frozen head never changes.

mod entries;
mod identities;
mod metadata;
mod postings;
mod rows;
mod samples;
mod selection;
mod spans;
mod words;
mod written;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::error::{Error, Result};
use crate::model::batch::Batch;
use crate::model::columns::longs;
use crate::model::identity::{Identity, IdentityId};
use crate::model::span::TraceId;
use crate::model::time::{Day, NS_PER_MS, TimeRange, TimestampMs, TimestampNs};
use crate::scan::ScanRequest;
use crate::signal::{Signal, SortBy, Table, TimeUnit};

pub use identities::{Answer, Identities, Question};
pub use postings::Postings;
pub use selection::{Reserve, Selection};
pub use words::{Spelling, Words};
pub use written::{IDENTITIES_MAX, Written};

/// Identities whose rows are taken from a head together when all of it is wanted.
const IDENTITIES_AT_ONCE: usize = 256;

/// A float sample that contradicts one already in the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The series.
    pub series: IdentityId,
    /// The time both have.
    pub ts: TimestampMs,
}

/// What became of the rows of one batch.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Rows that repeat one already held.
    pub repeats: u64,
    /// Samples that were not kept.
    pub conflicts: Vec<Conflict>,
}

/// Rows on their way in, with the place of each row's identity in [`Identities`] (empty for tables without).
pub(crate) struct Incoming<'a> {
    rows: &'a RecordBatch,
    ordinals: &'a [u32],
    /// The bits of the value that the head frozen before holds for an identity (by ordinal here) at a time.
    earlier: Option<&'a dyn Fn(u32, i64) -> Option<u64>>,
}

/// Rows that are wanted. Identities are given in the order of the answer.
pub(crate) struct Wanted<'a> {
    range: TimeRange,
    identities: &'a [(u32, IdentityId)],
    traces: Option<&'a [TraceId]>,
}

/// How a table's rows are grouped in memory.
pub(crate) trait Group: Send + Sync {
    /// Takes rows in.
    fn insert(&mut self, incoming: &Incoming<'_>, outcome: &mut Outcome) -> Result<()>;

    /// Rows held.
    fn rows(&self) -> usize;

    /// Bytes held, about.
    fn bytes(&self) -> usize;

    /// The rows that are wanted; expensive work is left to [`Selection`], since the caller holds a lock. What it takes
    /// is reserved before.
    fn select(&self, wanted: &Wanted<'_>, reserve: Reserve<'_>) -> Result<Selection>;

    /// The days of its rows; none for tables without time.
    fn days(&self) -> Result<BTreeSet<Day>>;

    /// The rows in arrival order, for tables that have dictionaries.
    fn arrived(&self) -> Option<&rows::Rows> {
        None
    }

    /// The bits of the value held for an identity at a time, for tables where a time has one value.
    fn held(&self, _ordinal: u32, _time: i64) -> Option<u64> {
        None
    }
}

/// The head of one tenant and signal.
pub struct TenantHead {
    identities: Identities,
    groups: Vec<(Table, Box<dyn Group>)>,
    words: Arc<Words>,
}

impl TenantHead {
    /// An empty head.
    pub fn new(signal: Signal) -> Self {
        let groups = signal.spec().facts.iter().map(|table| (*table, group(*table))).collect();
        Self { identities: Identities::default(), groups, words: Arc::default() }
    }

    /// Takes a batch in; `earlier` is the frozen head, if one is being flushed.
    pub fn insert(&mut self, batch: &Batch, earlier: Option<&TenantHead>) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        for identity in &batch.identities {
            self.identities.add(identity)?;
        }
        for (table, rows) in &batch.facts {
            let ordinals = self.identities.touch(*table, rows)?;
            let Some((_, group)) = self.groups.iter_mut().find(|(t, _)| t == table) else {
                return Err(Error::bug(format!("the head has no place for rows of `{}`", table.name())));
            };
            let identities = &self.identities;
            let held = earlier.map(|earlier| {
                move |ordinal: u32, time: i64| {
                    let ordinal = earlier.identities.ordinal(identities.id(ordinal)?)?;
                    earlier.group(*table)?.held(ordinal, time)
                }
            });
            let earlier = held.as_ref().map(|held| held as &dyn Fn(u32, i64) -> Option<u64>);
            group.insert(&Incoming { rows, ordinals: &ordinals, earlier }, &mut outcome)?;
        }
        Ok(outcome)
    }

    fn group(&self, table: Table) -> Option<&dyn Group> {
        self.groups.iter().find_map(|(t, group)| (*t == table).then_some(group.as_ref()))
    }

    /// Refuses identities whose id is held with other labels.
    pub fn check(&self, identities: &[Identity]) -> Result<()> {
        identities.iter().try_for_each(|identity| self.identities.check(identity))
    }

    /// The rows of `request`; its identities must be given for tables sorted by identity. The memory that the selection
    /// takes beside the head's own goes through `reserve` first.
    pub fn select(&self, request: &ScanRequest, reserve: Reserve<'_>) -> Result<Selection> {
        let Some(group) = self.group(request.table) else {
            return Err(Error::bug(format!("the head holds no rows of `{}`", request.table.name())));
        };
        let named = request.identities.as_ref().map_or(&[][..], |list| list.as_slice());
        let known = |id: &IdentityId| self.identities.ordinal(*id).map(|ordinal| (ordinal, *id));
        let identities: Vec<(u32, IdentityId)> = named.iter().filter_map(known).collect();
        let traces = request.traces.as_ref().map(|list| list.as_slice());
        group.select(&Wanted { range: request.range, identities: &identities, traces }, reserve)
    }

    /// All rows of `table` with times in `range`, in the order of its blocks. Built batch by batch: what was taken is
    /// not held.
    pub fn all(
        &self,
        table: Table,
        range: TimeRange,
    ) -> Result<Box<dyn Iterator<Item = Result<RecordBatch>> + Send + '_>> {
        let Some(group) = self.group(table) else { return Ok(Box::new(std::iter::empty())) };
        let select = move |identities: &[(u32, IdentityId)]| {
            group.select(&Wanted { range, identities, traces: None }, &mut |_| Ok(()))
        };
        if table.spec().sort_by != SortBy::Identity {
            return Ok(select(&[])?.into_batches());
        }
        let identities = self.identities.sorted();
        let starts = (0..identities.len()).step_by(IDENTITIES_AT_ONCE);
        Ok(Box::new(starts.flat_map(move |start| {
            let end = identities.len().min(start + IDENTITIES_AT_ONCE);
            match select(&identities[start..end]) {
                Ok(selection) => selection.into_batches(),
                Err(error) => Box::new(std::iter::once(Err(error))),
            }
        })))
    }

    /// The days of the rows of `table`; none for tables without time.
    pub fn days(&self, table: Table) -> Result<BTreeSet<Day>> {
        self.group(table).map_or_else(|| Ok(BTreeSet::new()), Group::days)
    }

    /// Takes what is needed to tell which identities pass selectors, so that it can be done without the head's lock.
    pub fn question(&self) -> Question {
        self.identities.question()
    }

    /// The identities with facts in `range` that `answer` names, if its question came from this head; all with facts in
    /// `range` without an answer.
    pub fn matching(&self, answer: Option<&Answer>, range: TimeRange) -> Vec<Identity> {
        self.identities.matching(answer, range)
    }

    /// What is needed to tell which keys and values the rows of `table` have, without the head's lock; `None` if no row
    /// can lie in `range`.
    pub fn spelling(&self, table: Table, range: TimeRange) -> Option<Spelling> {
        let rows = self.group(table)?.arrived()?;
        self.identities.any_in(range).then(|| Spelling::of(table, &self.words, rows))
    }

    /// The identity with `id`.
    pub fn identity(&self, id: IdentityId) -> Option<&Identity> {
        self.identities.get(self.identities.ordinal(id)?)
    }

    /// Rows of all tables.
    pub fn rows(&self) -> usize {
        self.groups.iter().map(|(_, group)| group.rows()).sum()
    }

    /// Bytes held, about.
    pub fn bytes(&self) -> usize {
        self.identities.bytes() + self.words.bytes() + self.groups.iter().map(|(_, group)| group.bytes()).sum::<usize>()
    }

    /// Identities held.
    pub fn identities(&self) -> usize {
        self.identities.count()
    }
}

fn group(table: Table) -> Box<dyn Group> {
    match (table, table.spec().sort_by) {
        (Table::Samples, _) => Box::<samples::Samples>::default(),
        (_, SortBy::Identity) => Box::new(entries::Entries::new(table)),
        (_, SortBy::Trace) => Box::<spans::Spans>::default(),
        (_, SortBy::Text) => Box::<metadata::Metadata>::default(),
    }
}

/// Whether a batch is as the tables want it; checked before it is written anywhere.
pub fn validate(batch: &Batch) -> Result<()> {
    for (table, rows) in &batch.facts {
        let schema = (table.spec().schema)();
        if table.signal() != batch.signal || rows.schema_ref() != &schema {
            return Err(Error::bug(format!("a batch has rows that do not fit the table `{}`", table.name())));
        }
        if table.spec().sort_by == SortBy::Trace {
            spans::validate(rows)?;
        }
    }
    Ok(())
}

/// The times of `rows` in the unit of their column, and how to make nanoseconds of them.
fn times(table: Table, rows: &RecordBatch) -> Result<Option<(&[i64], i64)>> {
    Ok(match table.spec().time {
        Some((name, TimeUnit::Ms)) => Some((longs(rows, name)?.values(), NS_PER_MS)),
        Some((name, TimeUnit::Ns)) => Some((longs(rows, name)?.values(), 1)),
        None => None,
    })
}

/// The days of times of `unit` nanoseconds.
fn days_of(times: &[i64], unit: i64, days: &mut BTreeSet<Day>) {
    let mut before = None;
    for time in times {
        let day = TimestampNs(time.saturating_mul(unit)).day();
        if before != Some(day) {
            days.insert(day);
            before = Some(day);
        }
    }
}

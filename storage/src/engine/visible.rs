//! What readers see of what is stored: neither deleted rows nor rows beyond their retention.
//!
//! Owns: which rows of which block and head are hidden, and which identities are left. Does not own: delete requests
//! (`delete`), ages (`retention`), the scan itself (`scan`).
//!
//! Invariants
//! 1. Requests are taken before the snapshot: a block that is gone from the requests is gone from every later snapshot.
//! 2. An identity is listed as long as some of its rows may be visible on a day of the range. What cannot be told
//!    without reading rows (a request with row tests, times between two deleted ends) counts as visible.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use hashbrown::HashMap;

use super::Engine;
use super::delete::deletable;
use crate::delete::State;
use crate::delete::hide::{Hide, Ids, Set, deleted_of, visible_rows};
use crate::error::{Error, Result};
use crate::head::TenantHead;
use crate::index::directory::columns;
use crate::model::columns::longs;
use crate::model::identity::Identity;
use crate::model::matcher::Matcher;
use crate::model::tenant::Tenant;
use crate::model::time::{NS_PER_MS, TimeRange};
use crate::paths::block_object;
use crate::retention::Cutoffs;
use crate::scan::open::{guarded, open_block};
use crate::scan::{BatchStream, ScanRequest, prune};
use crate::signal::{Signal, Table, TimeUnit};
use crate::table::{Block, Snapshot, TenantTables};

/// What hides rows, as it is when a read begins.
pub(super) struct Hiding {
    pub(super) requests: Arc<State>,
    pub(super) cutoffs: Cutoffs,
}

/// What is hidden of which block, by its path.
pub(super) type HidesByBlock = HashMap<String, Arc<[Hide]>, ahash::RandomState>;

/// First and last time of each identity's rows in a block, in nanoseconds.
pub(super) type Extents = HashMap<i64, (i64, i64), ahash::RandomState>;

impl Engine {
    /// What hides rows of `signal` now.
    pub(super) async fn hiding(&self, tables: &Arc<TenantTables>, signal: Signal) -> Result<Hiding> {
        self.refresh_deletes(tables).await?;
        let requests = tables.deletes().state().await?;
        if !requests.is_idle() {
            // A request names identities by their labels, which a reader must know.
            self.refresh(tables, signal.spec().identities).await?;
        }
        Ok(Hiding { requests, cutoffs: self.cutoffs(signal, tables.tenant()) })
    }

    pub(super) fn cutoffs(&self, signal: Signal, tenant: &Tenant) -> Cutoffs {
        self.config.retention.cutoffs(signal, tenant, self.clock.now().0)
    }

    /// Of identities that blocks have on the days of `range`, those that are visible.
    pub(super) async fn visible_identities(
        &self,
        tables: &Arc<TenantTables>,
        signal: Signal,
        mut found: Vec<Identity>,
        range: TimeRange,
        hiding: &Hiding,
    ) -> Result<Vec<Identity>> {
        if hiding.cutoffs.ceiling() > range.start {
            found = self.young_enough(tables, signal, found, range, &hiding.cutoffs).await?;
        }
        let open = hiding.requests.requests.iter().map(|kept| &kept.deletion).filter(|deletion| {
            let request = &deletion.request;
            let days = request.range.days().zip(range.days());
            let days_overlap = days.is_some_and(|(a, b)| a.0 <= b.1 && b.0 <= a.1);
            !deletion.done && request.signal == signal && request.tests.is_empty() && days_overlap
        });
        let selectors: Vec<&Vec<Matcher>> = open.flat_map(|deletion| &deletion.request.selectors).collect();
        let doubtful: Set = found
            .iter()
            .filter(|i| selectors.iter().any(|all| all.iter().all(|matcher| matcher.matches_labels(&i.labels))))
            .map(|identity| identity.id.to_column())
            .collect();
        if doubtful.is_empty() {
            return Ok(found);
        }
        let gone = self.without_rows(tables, signal, doubtful, range, hiding).await?;
        found.retain(|identity| !gone.contains(&identity.id.to_column()));
        Ok(found)
    }

    /// Leaves out identities whose days in `range` all lie before their cutoff.
    async fn young_enough(
        &self,
        tables: &Arc<TenantTables>,
        signal: Signal,
        mut found: Vec<Identity>,
        range: TimeRange,
        cutoffs: &Cutoffs,
    ) -> Result<Vec<Identity>> {
        let mut days_from: HashMap<i64, Set> = HashMap::new();
        let groups = cutoffs.groups.iter().map(|group| group.cutoff).chain([cutoffs.rest]);
        for cutoff in groups.filter(|cutoff| *cutoff > range.start) {
            let ids = match TimeRange::new(cutoff, range.end).days() {
                Some(days) => tables.identities(signal, days).await?.iter().map(|i| i.id.to_column()).collect(),
                None => Set::default(),
            };
            days_from.insert(cutoff, ids);
        }
        found.retain(|identity| {
            let ids = days_from.get(&cutoffs.of(&identity.labels));
            ids.is_none_or(|ids| ids.contains(&identity.id.to_column()))
        });
        Ok(found)
    }

    /// Of `doubtful` identities, those without a visible row in the blocks of `range`.
    async fn without_rows(
        &self,
        tables: &Arc<TenantTables>,
        signal: Signal,
        mut doubtful: Set,
        range: TimeRange,
        hiding: &Hiding,
    ) -> Result<Set> {
        for table in deletable(signal) {
            self.refresh(tables, table).await?;
            let snapshot = tables.snapshot(table).await?;
            for block in prune::blocks(&snapshot, &ScanRequest::all(table, range)) {
                if doubtful.is_empty() {
                    return Ok(doubtful);
                }
                let hides = hiding.of_block(tables, table, &block).await?;
                let extents = extents(tables, table, &block).await?;
                doubtful.retain(|id| match extents.get(id) {
                    Some((first, last)) => !range.overlaps(*first, *last) || is_hidden(*id, *first, *last, &hides),
                    None => true,
                });
            }
        }
        Ok(doubtful)
    }
}

impl Hiding {
    /// Whether anything of `table` in `range` may be hidden.
    fn may_hide(&self, table: Table, range: TimeRange) -> bool {
        self.requests.covers(table) || self.cutoffs.ceiling() > range.start
    }

    /// What is hidden of the rows of the blocks that may hold rows of `request`; nothing of those that are not named.
    pub(super) async fn of_blocks(
        &self,
        tables: &Arc<TenantTables>,
        snapshot: &Snapshot,
        request: &ScanRequest,
    ) -> Result<HidesByBlock> {
        let mut by_block = HidesByBlock::default();
        if self.may_hide(request.table, request.range) {
            for block in prune::blocks(snapshot, request) {
                let hides = self.of_block(tables, request.table, &block).await?;
                if !hides.is_empty() {
                    by_block.insert(block.path.clone(), hides.into());
                }
            }
        }
        Ok(by_block)
    }

    /// What is hidden of the rows of a block.
    pub(super) async fn of_block(&self, tables: &Arc<TenantTables>, table: Table, block: &Block) -> Result<Vec<Hide>> {
        let mut hides = deleted_of(tables, &self.requests, table, block).await?;
        let first = block.times.map_or(i64::MIN, |(first, _)| first);
        if table.spec().identity.is_none() || self.cutoffs.ceiling() <= first {
            return Ok(hides);
        }
        let list = tables.identities(table.signal(), (block.day, block.day)).await?;
        let mut before = Vec::new();
        for group in &self.cutoffs.groups {
            let ids =
                tables.deletes().resolved().ids(group.key, block.day, &list, std::slice::from_ref(&group.matchers));
            hides.extend(aged(Some(Arc::clone(&ids)), &before, group.cutoff, first));
            before.push(ids);
        }
        hides.extend(aged(None, &before, self.cutoffs.rest, first));
        Ok(hides)
    }

    /// What is hidden of the rows of a head, which no delete request covers.
    pub(super) fn of_head(&self, head: &TenantHead, range: TimeRange) -> Vec<Hide> {
        if self.cutoffs.ceiling() <= range.start {
            return Vec::new();
        }
        let mut groups = vec![Set::default(); self.cutoffs.groups.len()];
        for identity in head.matching(None, TimeRange::ALL) {
            let passes = |matchers: &[Matcher]| matchers.iter().all(|m| m.matches_labels(&identity.labels));
            if let Some(at) = self.cutoffs.groups.iter().position(|group| passes(&group.matchers)) {
                groups[at].insert(identity.id.to_column());
            }
        }
        let groups: Vec<_> = groups.into_iter().map(Arc::new).collect();
        let own = self.cutoffs.groups.iter().zip(&groups);
        let mut hides: Vec<Hide> =
            own.flat_map(|(group, ids)| aged(Some(Arc::clone(ids)), &[], group.cutoff, range.start)).collect();
        hides.extend(aged(None, &groups, self.cutoffs.rest, range.start));
        hides
    }
}

/// Hides rows before `cutoff`, unless none are there.
fn aged(within: Option<Arc<Set>>, without: &[Arc<Set>], cutoff: i64, first: i64) -> Option<Hide> {
    let ids = Ids { within, without: without.to_vec() };
    (cutoff > first).then(|| Hide { ids, range: TimeRange::new(i64::MIN, cutoff), tests: Arc::new([]) })
}

/// `rows` without those that `hides` hides.
pub(super) fn filtered(table: Table, rows: BatchStream, hides: Option<Arc<[Hide]>>) -> BatchStream {
    match hides.filter(|hides| !hides.is_empty()) {
        Some(hides) => rows.map(move |rows| visible_rows(table, rows?, &hides)).boxed(),
        None => rows,
    }
}

/// `request` with the columns that tell which rows are hidden.
pub(super) fn widened<'a>(request: &ScanRequest, hides: impl Iterator<Item = &'a Hide>) -> ScanRequest {
    let mut request = request.clone();
    let Some(columns) = &request.columns else { return request };
    let mut wanted: Vec<&'static str> = columns.to_vec();
    for hide in hides {
        wanted.extend(request.table.spec().identity);
        wanted.extend(hide.tests.iter().map(|test| test.column));
    }
    if wanted.len() > columns.len() {
        request.columns = Some(wanted.into());
    }
    request
}

/// Whether all rows of `id` between two times that it has are hidden, as far as ranges tell.
pub(super) fn is_hidden(id: i64, first: i64, last: i64, hides: &[Hide]) -> bool {
    let mut ranges: Vec<TimeRange> = hides.iter().filter(|hide| hide.is_whole(id)).map(|hide| hide.range).collect();
    ranges.sort_by_key(|range| range.start);
    let mut from = first;
    for range in ranges {
        if !range.contains(from) {
            continue;
        }
        if range.contains(last) {
            return true;
        }
        from = range.end;
    }
    false
}

/// First and last time of each identity in a block: from its directory, or from its rows if it has none.
pub(super) async fn extents(tables: &Arc<TenantTables>, table: Table, block: &Block) -> Result<Extents> {
    let lacks = || Error::bug(format!("`{}` has no identities with times", table.name()));
    let identity = table.spec().identity.ok_or_else(lacks)?;
    let (time, unit) = table.spec().time.ok_or_else(lacks)?;
    let factor = if unit == TimeUnit::Ms { NS_PER_MS } else { 1 };
    let opened = open_block(tables, table, block, None).await?;
    let mut extents = Extents::default();
    let mut widen = |id: i64, first: i64, last: i64| {
        let (first, last) = (first.saturating_mul(factor), last.saturating_mul(factor));
        let held = extents.entry(id).or_insert((first, last));
        *held = (held.0.min(first), held.1.max(last));
    };
    if columns(table).is_some() {
        for run in opened.directory(tables, block).await?.runs() {
            widen(run.identity, run.first, run.last);
        }
        return Ok(extents);
    }
    let object = block_object(tables.tenant(), table, &block.path);
    let mut rows = guarded(object, async move { opened.columns_of_all_rows(&[identity, time]) });
    while let Some(rows) = rows.try_next().await? {
        let (ids, times) = (longs(&rows, identity)?, longs(&rows, time)?);
        for (id, time) in ids.values().iter().zip(times.values()) {
            widen(*id, *time, *time);
        }
    }
    Ok(extents)
}

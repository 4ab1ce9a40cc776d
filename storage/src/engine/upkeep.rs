//! Upkeep: what is too old, too much or deleted leaves the tables, and the files leave the store.
//!
//! Owns: the background rounds, which blocks go whole, the end of delete requests. Does not own: writing blocks again
//! (`rewrite`), deleting files (`vacuum`), what is too old (`retention`).
//!
//! A round looks at each tenant and signal in turn and does a bounded part of the work; the next one goes on.
//!
//! Invariants
//! 1. Facts go before their identities, and a day's identities go only while no flush stands between the two.
//! 2. A step that fails leaves a table as it was or as it is to be, so a round may stop anywhere.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hashbrown::HashSet;

use super::Engine;
use super::visible::Hiding;
use crate::error::Result;
use crate::model::tenant::Tenant;
use crate::model::time::{Day, NS_PER_S};
use crate::signal::{Signal, Table};
use crate::store::{Cause, because};
use crate::table::{Block, Replaced, Replacement, Replacing, Snapshot, TenantTables};

/// How often the background task looks whether a round is due.
const LOOK: Duration = Duration::from_secs(10);
/// How often tenants are looked for in the store, which is a listing.
const TENANTS_AGE_MAX_NS: i64 = 3_600 * NS_PER_S;
/// Blocks that one commit removes at most.
const DROPS_PER_COMMIT: usize = 1_000;

/// What upkeep remembers between rounds.
#[derive(Default)]
pub(super) struct UpkeepState {
    /// When the last round began, in nanoseconds.
    began_ns: Option<i64>,
    /// Tenants that the store has, and when they were listed.
    tenants: Vec<Tenant>,
    listed_ns: Option<i64>,
    pub(super) vacuum: super::vacuum::VacuumState,
    pub(super) checked: super::rewrite::Checked,
}

impl Engine {
    /// One round: drops what is too old or too much, works delete requests off, deletes files that nobody needs. The
    /// background task calls it every [`super::EngineConfig::upkeep_interval`]. One tenant's failure does not stop the
    /// others; the first is returned.
    pub async fn upkeep(&self) -> Result<()> {
        if self.config.read_only {
            return Ok(());
        }
        self.check_writable()?;
        let mut state = self.upkeep_state.lock().await;
        state.began_ns = Some(self.clock.now().0);
        let mut failed = self.find_tenants(&mut state).await.err();
        for tenant in state.tenants.clone() {
            if let Err(error) = self.upkeep_of(&tenant, &mut state).await {
                tracing::warn!(%tenant, %error, "the upkeep of a tenant failed and will be tried again");
                failed = failed.or(Some(error));
            }
        }
        match failed {
            None => self.upkeep.rounds.add(1),
            Some(_) => self.upkeep.errors.add(1),
        }
        failed.map_or(Ok(()), Err)
    }

    async fn find_tenants(&self, state: &mut UpkeepState) -> Result<()> {
        let now = self.clock.now().0;
        if state.listed_ns.is_none_or(|listed| now.saturating_sub(listed) >= TENANTS_AGE_MAX_NS) {
            let folders = self.store().objects().list_with_delimiter(None).await?.common_prefixes;
            let tenant = |folder: object_store::path::Path| Tenant::new(folder.filename()?).ok();
            state.tenants = folders.into_iter().filter_map(tenant).collect();
            state.listed_ns = Some(now);
        }
        let known: HashSet<Tenant> = state.tenants.iter().cloned().collect();
        state.tenants.extend(self.reader.written_tenants().into_iter().filter(|tenant| !known.contains(tenant)));
        Ok(())
    }

    async fn upkeep_of(&self, tenant: &Tenant, state: &mut UpkeepState) -> Result<()> {
        let tables = self.reader.tables(tenant);
        for signal in Signal::ALL {
            let hiding = self.hiding(&tables, signal).await?;
            self.drop_old(&tables, signal, hiding.cutoffs.floor()).await?;
            self.drop_excess(&tables, signal).await?;
            because(Cause::Compaction, self.rewrite_hidden(&tables, signal, &hiding, &mut state.checked)).await?;
            self.drop_identities(&tables, signal, &hiding).await?;
        }
        self.settle_requests(&tables).await?;
        because(Cause::Vacuum, self.vacuum(&tables, &mut state.vacuum)).await
    }

    /// Drops blocks of facts that end before `floor`.
    async fn drop_old(&self, tables: &Arc<TenantTables>, signal: Signal, floor: i64) -> Result<()> {
        for table in signal.spec().facts {
            let snapshot = tables.snapshot(*table).await?;
            let is_old =
                |block: &&Arc<Block>| block.times.map_or(block.day.range().end <= floor, |(_, last)| last < floor);
            self.drop_blocks(tables, *table, snapshot.blocks.iter().filter(is_old).cloned().collect()).await?;
        }
        Ok(())
    }

    /// Drops the oldest dates of a signal until it is as small as it should be; never the newest date.
    async fn drop_excess(&self, tables: &Arc<TenantTables>, signal: Signal) -> Result<()> {
        let Some(bytes_max) = self.config.retention.bytes_max(signal, tables.tenant()) else { return Ok(()) };
        let mut by_day: BTreeMap<Day, u64> = BTreeMap::new();
        let spec = signal.spec();
        for table in spec.facts.iter().copied().chain([spec.identities]) {
            for block in &tables.snapshot(table).await?.blocks {
                *by_day.entry(block.day).or_default() += block.bytes;
            }
        }
        let mut bytes: u64 = by_day.values().sum();
        let mut keep_from = None;
        let newest = by_day.keys().next_back().copied();
        for (day, size) in by_day {
            keep_from = Some(day);
            if bytes <= bytes_max || Some(day) == newest {
                break;
            }
            bytes -= size;
        }
        let Some(keep_from) = keep_from else { return Ok(()) };
        for table in spec.facts {
            let snapshot = tables.snapshot(*table).await?;
            let old = snapshot.blocks.iter().filter(|block| block.day < keep_from);
            self.drop_blocks(tables, *table, old.cloned().collect()).await?;
        }
        Ok(())
    }

    /// Drops identities of days that have no facts any more.
    async fn drop_identities(&self, tables: &Arc<TenantTables>, signal: Signal, hiding: &Hiding) -> Result<()> {
        let identities = tables.snapshot(signal.spec().identities).await?;
        if unneeded(&identities, &days_with_facts(tables, signal).await?).is_empty() {
            return Ok(());
        }
        let lane = self.lane(signal);
        let mut flush = lane.flush.lock().await;
        if flush.is_half_way(tables.tenant()) {
            return Ok(());
        }
        // Now no identities are committed without their facts; what was seen before may have changed.
        let identities = tables.snapshot(signal.spec().identities).await?;
        let mut unneeded = unneeded(&identities, &days_with_facts(tables, signal).await?);
        let (now_ms, floor) = (self.clock.now().to_ms().0, hiding.cutoffs.floor());
        // Another process may stand between the two commits of its flush, unless the day is over for all.
        unneeded.retain(|block| block.day.range().end <= floor || now_ms - block.written_ms >= IDENTITIES_AGE_MIN_MS);
        if !unneeded.is_empty() {
            flush.forget_written(tables.tenant());
            self.drop_blocks(tables, signal.spec().identities, unneeded).await?;
        }
        Ok(())
    }

    /// Removes whole blocks.
    pub(super) async fn drop_blocks(&self, tables: &TenantTables, table: Table, blocks: Vec<Arc<Block>>) -> Result<()> {
        for blocks in blocks.chunks(DROPS_PER_COMMIT) {
            let dropped = |block: &Arc<Block>| Replacement { removed: vec![Arc::clone(block)], added: Vec::new() };
            let replacements: Vec<Replacement> = blocks.iter().map(dropped).collect();
            match tables.replace(table, &replacements, Replacing::Rows).await? {
                Replaced::Done => {
                    self.upkeep.dropped_blocks.add(replacements.len() as u64);
                    self.upkeep.dropped_bytes.add(blocks.iter().map(|block| block.bytes).sum());
                }
                // A compaction was faster; the next round meets what it wrote.
                Replaced::Conflict(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Notes which delete requests are done.
    async fn settle_requests(&self, tables: &Arc<TenantTables>) -> Result<()> {
        let deletes = tables.deletes();
        if deletes.state().await?.is_idle() {
            return Ok(());
        }
        let mut visible: HashSet<(Table, String)> = HashSet::new();
        for table in Table::ALL {
            visible.extend(tables.snapshot(table).await?.blocks.iter().map(|block| (table, block.path.clone())));
        }
        let (visible, now) = (&visible, self.clock.now().0);
        let open = |state: &crate::delete::State| state.requests.iter().filter(|kept| !kept.deletion.done).count();
        let before = open(&*deletes.state().await?);
        let settled = deletes.step(|state| {
            let is_there = |table: Table, path: &str| visible.contains(&(table, path.to_owned()));
            std::future::ready(Ok(state.settled(is_there, &[], 0, now)))
        });
        let after = open(&*settled.await?);
        self.upkeep.deletes_done.add(before.saturating_sub(after) as u64);
        Ok(())
    }

    /// Whether the background task should begin a round.
    async fn upkeep_is_due(&self) -> bool {
        let interval = i64::try_from(self.config.upkeep_interval.as_nanos()).unwrap_or(i64::MAX);
        let began = self.upkeep_state.lock().await.began_ns;
        began.is_none_or(|began| self.clock.now().0.saturating_sub(began) >= interval)
    }
}

/// How old identities without facts must be before they go: longer than any flush between their commit and that of the
/// facts.
pub(super) const IDENTITIES_AGE_MIN_MS: i64 = 3_600_000;

fn unneeded(identities: &Snapshot, days: &HashSet<Day>) -> Vec<Arc<Block>> {
    identities.blocks.iter().filter(|block| !days.contains(&block.day)).cloned().collect()
}

async fn days_with_facts(tables: &Arc<TenantTables>, signal: Signal) -> Result<HashSet<Day>> {
    let mut days = HashSet::new();
    for table in super::delete::deletable(signal) {
        days.extend(tables.snapshot(table).await?.blocks.iter().map(|block| block.day));
    }
    Ok(days)
}

/// The background task.
pub(super) async fn keep_up(engine: Weak<Engine>) {
    loop {
        tokio::time::sleep(LOOK).await;
        match engine.upgrade() {
            Some(engine) if !engine.closed.load(Ordering::Acquire) => {
                if engine.upkeep_is_due().await && !engine.fenced.load(Ordering::Acquire) {
                    // What failed is counted and logged where it happened.
                    let _ = engine.upkeep().await;
                }
            }
            _ => return,
        }
    }
}

//! Compaction at work: looking for blocks to merge, one merge at a time, and what became of each.
//!
//! Owns: when and for whom, the blocks that cannot be read, pauses after failures, the counters. Does not own: the choice
//! (`compact::policy`), the merge (`compact::run`).
//!
//! Invariants
//! 1. At most one compaction runs in a process, and between two batches it gives way to flushes.
//! 2. A block that cannot be read is left alone from then on; the others of its day are merged around it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use tokio_util::sync::CancellationToken;

use super::flush::Step;
use super::lane::Lane;
use super::stats::SignalStats;
use super::{Engine, StepHook};
use crate::compact::policy::{self, Candidate, Mode};
use crate::compact::run::{self, Done, Failed, Pace, Task};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::model::tenant::Tenant;
use crate::model::time::{Day, NS_PER_MS};
use crate::signal::{Signal, Table};
use crate::store::{Cause, because};
use crate::table::{Block, TenantTables};

/// How often the background task looks for work.
const LOOK: Duration = Duration::from_secs(15);
/// A day that is over and got no block for so long is merged to the end.
const QUIET_MS: i64 = 30 * 60 * 1000;
/// A day whose merge failed rests for so long.
const REST_NS: i64 = 600 * 1_000_000_000;
/// What writing one block holds: a row group and the parts on their way. The rest of the share is for decoded rows and the
/// order of identities.
const WRITER_BYTES: usize = 40 << 20;
/// A compaction waits at most so long for one flush before each batch, so that a store that hangs does not stop it for
/// ever.
const GIVE_WAY_MAX: Duration = Duration::from_secs(2);
/// How often it looks whether the flush has ended.
const GIVE_WAY_STEP: Duration = Duration::from_millis(20);
/// Days whose failures are remembered; more than that are tried again earlier.
const RESTING_MAX: usize = 10_000;

/// What the compactions of one process share.
#[derive(Default)]
pub(super) struct Compaction {
    state: tokio::sync::Mutex<State>,
    /// In the order of [`Signal::ALL`].
    counters: [Counters; Signal::ALL.len()],
    pub(super) cancel: CancellationToken,
}

/// Outcomes of one signal.
#[derive(Default)]
struct Counters {
    compactions: AtomicU64,
    blocks: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    repeats: AtomicU64,
    conflicts: AtomicU64,
    errors: AtomicU64,
    unreadable: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Tables and paths of blocks that cannot be read.
    unreadable: HashSet<(Tenant, Table, String), ahash::RandomState>,
    /// Days whose last merge failed, and when the next may come.
    resting: HashMap<(Tenant, Table, Day), i64, ahash::RandomState>,
    /// The tenants of the store were looked up: what an earlier process left is merged too.
    listed: bool,
}

impl Compaction {
    pub(super) fn add_to(&self, stats: &mut SignalStats) {
        let Some(counters) = Signal::ALL.iter().position(|signal| *signal == stats.signal).map(|at| &self.counters[at])
        else {
            return;
        };
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        stats.compactions_total = load(&counters.compactions);
        stats.compacted_blocks_total = load(&counters.blocks);
        stats.compaction_read_bytes_total = load(&counters.bytes_read);
        stats.compaction_written_bytes_total = load(&counters.bytes_written);
        stats.compaction_repeats_total = load(&counters.repeats);
        stats.compaction_conflicts_total = load(&counters.conflicts);
        stats.compaction_errors_total = load(&counters.errors);
        stats.unreadable_blocks = load(&counters.unreadable);
    }

    fn counters(&self, signal: Signal) -> &Counters {
        // There is one for each signal.
        &self.counters[Signal::ALL.iter().position(|other| *other == signal).unwrap_or(0)]
    }

    /// Waits for the merge that runs, if one does, after it was cancelled.
    pub(super) async fn stopped(&self) {
        drop(self.state.lock().await);
    }
}

/// Lets flushes pass, and tests stop a compaction.
struct GiveWay<'a> {
    lanes: &'a [Arc<Lane>],
    hook: Option<Arc<StepHook>>,
}

#[async_trait::async_trait]
impl Pace for GiveWay<'_> {
    async fn give_way(&self) {
        let mut waited = Duration::ZERO;
        // A lane whose lock is taken is being flushed.
        while waited < GIVE_WAY_MAX && self.lanes.iter().any(|lane| lane.flush.try_lock().is_err()) {
            tokio::time::sleep(GIVE_WAY_STEP).await;
            waited += GIVE_WAY_STEP;
        }
    }

    fn written(&self, table: Table) -> Result<()> {
        self.hook.as_ref().map_or(Ok(()), |hook| hook(Step::Merged(table)))
    }

    fn replaced(&self, table: Table) -> Result<()> {
        self.hook.as_ref().map_or(Ok(()), |hook| hook(Step::Replaced(table)))
    }
}

impl Engine {
    /// Merges the blocks of `signal`, or of all, until nothing is left to merge. What cannot be read is left aside,
    /// counted and logged; other failures are returned after all tables were tried.
    pub async fn compact(&self, signal: Option<Signal>) -> Result<()> {
        if self.config.read_only {
            return Err(Error::invalid("this process only reads the store and compacts nothing"));
        }
        let mut state = self.compaction.state.lock().await;
        let mut failed = None;
        for tenant in self.stored_tenants().await? {
            for table in Table::ALL.into_iter().filter(|table| signal.is_none_or(|signal| table.signal() == signal)) {
                if let Err(error) = self.compact_table(&mut state, &tenant, table, true).await {
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Merges what the policy finds worth it. The background task calls it every few seconds.
    pub async fn compact_tick(&self) {
        // Whoever holds the lock does this work already.
        let Ok(mut state) = self.compaction.state.try_lock() else { return };
        let tenants = match state.listed {
            true => self.written_tenants(),
            false => match self.stored_tenants().await {
                Ok(tenants) => tenants,
                Err(error) => return tracing::warn!(%error, "compaction waits for the store"),
            },
        };
        state.listed = true;
        for tenant in tenants {
            for table in Table::ALL {
                if self.compaction.cancel.is_cancelled() {
                    return;
                }
                // Failures are counted and logged where they happen.
                let _ = self.compact_table(&mut state, &tenant, table, false).await;
            }
        }
    }

    fn written_tenants(&self) -> Vec<Tenant> {
        let tenants = self.reader.tenants.lock();
        tenants.iter().filter(|(_, opened)| opened.written).map(|(tenant, _)| tenant.clone()).collect()
    }

    /// The tenants that have tables in the store.
    pub(super) async fn stored_tenants(&self) -> Result<Vec<Tenant>> {
        let listed = because(Cause::Compaction, self.store().objects().list_with_delimiter(None)).await;
        let listed = listed.map_err(|source| {
            Error::new(Kind::Unavailable, "the tenants of the store could not be listed").with_source(source)
        })?;
        let names = listed.common_prefixes.iter().filter_map(|prefix| prefix.parts().next_back());
        Ok(names.filter_map(|name| Tenant::new(name.as_ref()).ok()).collect())
    }

    /// Merges the days of one table, one choice after the other. The error is the first one.
    async fn compact_table(&self, state: &mut State, tenant: &Tenant, table: Table, everything: bool) -> Result<()> {
        let tables = self.reader.written(tenant);
        let mut failed = None;
        // Of each day, what failed is not tried again in this round.
        let mut given_up: HashSet<Day> = HashSet::new();
        // What is flushed meanwhile is for the next round: this one would not end otherwise.
        let mut youngest_place = None;
        loop {
            let snapshot = tables.snapshot(table).await?;
            let last = *youngest_place
                .get_or_insert_with(|| snapshot.blocks.iter().map(|block| block.order.last).max().unwrap_or(0));
            let mut days: BTreeMap<Day, Vec<Arc<Block>>> = BTreeMap::new();
            for block in snapshot.blocks.iter().filter(|block| block.order.last <= last) {
                days.entry(block.day).or_default().push(Arc::clone(block));
            }
            // Deleted rows leave their blocks first (`rewrite`): until then their days are left alone.
            let requests = tables.deletes().state().await?;
            let covered: HashSet<&str> = requests.covered(table).collect();
            days.retain(|_, blocks| !blocks.iter().any(|block| covered.contains(block.path.as_str())));
            let now = self.clock.now();
            if everything {
                state.resting.retain(|(of, at, _), _| (of, at) != (tenant, &table));
            }
            // A clock that was set back ends a rest.
            state.resting.retain(|_, until| (1..=REST_NS).contains(&until.saturating_sub(now.0)));
            let mut chosen = days.into_iter().filter(|(day, _)| !given_up.contains(day)).filter_map(|(day, blocks)| {
                if state.resting.contains_key(&(tenant.clone(), table, day)) {
                    return None;
                }
                let youngest = blocks.iter().map(|block| block.written_ms).max().unwrap_or(0);
                let mode = match now.day() > day && now.0 / NS_PER_MS - youngest >= QUIET_MS {
                    _ if everything => Mode::Everything,
                    true => Mode::Closed,
                    false => Mode::Growing,
                };
                let places = policy::choose(&candidates(state, tenant, table, &blocks), mode)?;
                Some(Task { table, day, blocks: blocks[places].to_vec() })
            });
            let Some(task) = chosen.next() else { break };
            drop(chosen);
            if let Err(error) = self.compact_blocks(state, &tables, &task).await {
                if error.kind() == Kind::Canceled {
                    return Err(error);
                }
                // A block that was found unreadable is out of the way; anything else would fail again.
                if error.kind() != Kind::Corrupt {
                    given_up.insert(task.day);
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn compact_blocks(&self, state: &mut State, tables: &Arc<TenantTables>, task: &Task) -> Result<()> {
        let tenant = tables.tenant().clone();
        let memory = Arc::clone(&self.config.budget.compaction);
        let _writer = memory.wait(WRITER_BYTES.min(memory.limit_bytes() / 2)).await;
        let context = Context::new(tenant.clone(), memory).with_cancellation(self.compaction.cancel.child_token());
        let pace = GiveWay { lanes: &self.lanes, hook: self.hook.lock().clone() };
        let counters = self.compaction.counters(task.table.signal());
        let count = |counter: &AtomicU64, n: u64| counter.fetch_add(n, Ordering::Relaxed);
        let (table, day) = (task.table.name(), task.day);
        match because(Cause::Compaction, run::run(tables, task, &context, &pace)).await {
            Ok(Done { conflict: true, .. }) => {
                count(&counters.conflicts, 1);
                tracing::info!(tenant = tenant.as_str(), table, %day, "a compaction came too late: its blocks are gone");
                Ok(())
            }
            Ok(done) => {
                count(&counters.compactions, 1);
                count(&counters.blocks, done.blocks);
                count(&counters.bytes_read, done.bytes_read);
                count(&counters.bytes_written, done.bytes_written);
                count(&counters.repeats, done.repeats);
                tracing::debug!(tenant = tenant.as_str(), table, %day, ?done, "blocks were compacted");
                Ok(())
            }
            Err(Failed { error, .. }) if error.kind() == Kind::Canceled => Err(error),
            Err(Failed { error, unreadable }) => {
                count(&counters.errors, 1);
                let known = unreadable.map(|(of, path)| (tenant.clone(), of, path));
                let fresh = known.filter(|block| !state.unreadable.contains(block));
                let Some(block) = fresh else {
                    self.rest(state, &tenant, task);
                    tracing::error!(tenant = tenant.as_str(), table, %day, %error, "a compaction failed");
                    return Err(Error::new(not_corrupt(error.kind()), "a compaction failed").with_source(error));
                };
                tracing::error!(
                    tenant = tenant.as_str(), table = block.1.name(), block = block.2, %error,
                    "a block cannot be read: compaction leaves it as it is from now on"
                );
                state.unreadable.insert(block);
                count(&counters.unreadable, 1);
                Err(error)
            }
        }
    }

    fn rest(&self, state: &mut State, tenant: &Tenant, task: &Task) {
        if state.resting.len() >= RESTING_MAX {
            state.resting.clear();
        }
        let until = self.clock.now().0.saturating_add(REST_NS);
        state.resting.insert((tenant.clone(), task.table, task.day), until);
    }
}

/// The kind of a failure that no block is to blame for.
fn not_corrupt(kind: Kind) -> Kind {
    if kind == Kind::Corrupt { Kind::Bug } else { kind }
}

fn candidates(state: &State, tenant: &Tenant, table: Table, blocks: &[Arc<Block>]) -> Vec<Candidate> {
    let candidate = |block: &Arc<Block>| Candidate {
        order: (block.order.first, block.order.last),
        level: block.level,
        bytes: block.bytes,
        blocked: !state.unreadable.is_empty()
            && state.unreadable.contains(&(tenant.clone(), table, block.path.clone())),
    };
    blocks.iter().map(candidate).collect()
}

pub(super) async fn keep_compacting(engine: Weak<Engine>, cancel: CancellationToken) {
    while tokio::time::timeout(LOOK, cancel.cancelled()).await.is_err() {
        match engine.upgrade() {
            Some(engine) => engine.compact_tick().await,
            None => return,
        }
    }
}

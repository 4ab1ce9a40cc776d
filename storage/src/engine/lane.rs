//! A lane: WAL and heads of one signal.
//!
//! Owns: which head a record goes into, freezing, the counters. Does not own: the way of a frozen head into the
//! tables (`flush`).
//!
//! Invariants
//! 1. Records reach the head on the WAL's thread, after their fsync, in order of sequence numbers.
//! 2. A frozen head holds exactly its tenant's records up to its `last` that no flush before had; of a tenant at most
//!    one head is frozen at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::RwLock;
use tokio::sync::Notify;

use super::config::EngineConfig;
use super::flush::FlushState;
use super::stats::SignalStats;
use crate::budget::{Reservation, Share};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::head::{Conflict, Outcome, TenantHead, validate};
use crate::model::batch::Batch;
use crate::model::tenant::Tenant;
use crate::signal::Signal;
use crate::wal::{Apply, Wal};

type ByTenant<T> = HashMap<Tenant, T, ahash::RandomState>;

/// The heads of one signal.
pub(super) struct Heads {
    pub(super) active: ByTenant<TenantHead>,
    /// What the active heads hold of the share of all heads.
    held: Reservation,
    /// What a flush is bringing into the tables; a tenant leaves it when its commits are visible.
    pub(super) frozen: ByTenant<Frozen>,
    /// Up to here each record is in a frozen head or in the tables; `None` once the WAL is cut there.
    pub(super) uncut: Option<u64>,
}

impl Heads {
    /// The heads of `tenant`, older rows first.
    pub(super) fn of(&self, tenant: &Tenant) -> impl Iterator<Item = &TenantHead> {
        let frozen = self.frozen.get(tenant).map(|frozen| frozen.head.as_ref());
        frozen.into_iter().chain(self.active.get(tenant))
    }

    /// Whether something is active that can be frozen.
    pub(super) fn can_freeze(&self) -> bool {
        self.active.keys().any(|tenant| !self.frozen.contains_key(tenant))
    }
}

/// A head on its way into the tables.
#[derive(Clone)]
pub(super) struct Frozen {
    pub(super) head: Arc<TenantHead>,
    /// The last sequence number that it may hold.
    pub(super) last: u64,
    /// Its size when it was frozen, held of the share of all heads.
    held: Arc<Reservation>,
}

/// Counters of one lane.
#[derive(Default)]
pub(super) struct LaneCounters {
    pub(super) appends: AtomicU64,
    pub(super) rows: AtomicU64,
    pub(super) repeats: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) replayed: AtomicU64,
    pub(super) damages: AtomicU64,
    pub(super) flushes: AtomicU64,
    pub(super) flushed_rows: AtomicU64,
    pub(super) flush_errors: AtomicU64,
}

/// What the WAL's thread and the engine share.
pub(super) struct Shared {
    pub(super) signal: Signal,
    pub(super) heads: RwLock<Heads>,
    /// When the active heads got their first row, in nanoseconds; [`EMPTY`] while they have none.
    since_ns: AtomicI64,
    /// Bytes of the active heads.
    active_bytes: AtomicU64,
    /// Bytes of the frozen heads.
    frozen_bytes: AtomicU64,
    pub(super) counters: LaneCounters,
    clock: Arc<dyn Clock>,
    /// Wakes the background task when the active heads are full.
    wake: Arc<Notify>,
    /// Of all signals.
    share: Arc<Share>,
    head_bytes_max: u64,
    unflushed_bytes_max: u64,
}

/// What of the share of all heads one active head may take: three signals, each with an active head and one that is
/// being flushed.
const HEADS: usize = 6;

const EMPTY: i64 = i64::MIN;

impl Shared {
    pub(super) fn new(signal: Signal, clock: Arc<dyn Clock>, wake: Arc<Notify>, config: &EngineConfig) -> Arc<Self> {
        let share = Arc::clone(&config.budget.heads);
        let heads = Heads { active: HashMap::default(), held: share.hold(0), frozen: HashMap::default(), uncut: None };
        // A head that may not grow any more is full, whatever its own limit.
        let head_bytes_max = config.head_bytes_max.min(config.unflushed_bytes_max / 2).min(share.limit_bytes() / HEADS);
        Arc::new(Self {
            signal,
            heads: RwLock::new(heads),
            since_ns: AtomicI64::new(EMPTY),
            active_bytes: AtomicU64::new(0),
            frozen_bytes: AtomicU64::new(0),
            counters: LaneCounters::default(),
            clock,
            wake,
            share,
            head_bytes_max: bytes(head_bytes_max),
            unflushed_bytes_max: bytes(config.unflushed_bytes_max),
        })
    }

    /// Puts a durable batch into the active head.
    pub(super) fn insert(&self, tenant: &Tenant, batch: &Batch) -> Result<Outcome> {
        let mut heads = self.heads.write();
        let Heads { active, frozen, held, .. } = &mut *heads;
        let head = active.entry_ref(tenant).or_insert_with(|| TenantHead::new(self.signal));
        let before = head.bytes();
        let outcome = head.insert(batch, frozen.get(tenant).map(|frozen| frozen.head.as_ref()));
        held.set(held.bytes() + head.bytes().saturating_sub(before));
        let bytes = bytes(held.bytes());
        self.active_bytes.store(bytes, Ordering::Relaxed);
        drop(heads);
        if self.since_ns.load(Ordering::Relaxed) == EMPTY {
            self.since_ns.store(self.clock.now().0, Ordering::Relaxed);
        }
        if bytes >= self.head_bytes_max {
            self.wake.notify_one();
        }
        outcome
    }

    /// Freezes the active heads, which hold the records up to `last`, except of tenants of whom one is frozen already.
    /// Called on the WAL's thread, so in order with the inserts.
    pub(super) fn freeze(&self, last: u64) {
        let mut heads = self.heads.write();
        let Heads { active, frozen, uncut, held } = &mut *heads;
        if frozen.is_empty() {
            *uncut = Some(last);
        }
        let mut left = ByTenant::default();
        let mut left_bytes = 0;
        for (tenant, head) in active.drain() {
            let size = head.bytes();
            if frozen.contains_key(&tenant) {
                left_bytes += size;
                left.insert(tenant, head);
            } else {
                self.frozen_bytes.fetch_add(bytes(size), Ordering::Relaxed);
                let held = Arc::new(self.share.hold(size));
                frozen.insert(tenant, Frozen { head: Arc::new(head), last, held });
            }
        }
        held.set(left_bytes);
        if left.is_empty() {
            self.since_ns.store(EMPTY, Ordering::Relaxed);
        }
        self.active_bytes.store(bytes(left_bytes), Ordering::Relaxed);
        *active = left;
    }

    /// Drops the frozen head of `tenant`: the tables have it.
    pub(super) fn release(&self, tenant: &Tenant) {
        if let Some(frozen) = self.heads.write().frozen.remove(tenant) {
            self.frozen_bytes.fetch_sub(bytes(frozen.held.bytes()), Ordering::Relaxed);
        }
    }

    /// Refuses rows while too many wait in memory for the tables.
    fn check_room(&self) -> Result<()> {
        let used = self.share.used_bytes();
        if used >= self.share.limit_bytes() {
            return Err(self.share.exhausted(0, used, Kind::Busy));
        }
        let held = self.active_bytes.load(Ordering::Relaxed) + self.frozen_bytes.load(Ordering::Relaxed);
        if held < self.unflushed_bytes_max {
            return Ok(());
        }
        let (signal, limit) = (self.signal.name(), self.unflushed_bytes_max);
        let text = format!(
            "the heads of {signal} hold {held} bytes that no table has yet, over their limit of {limit}: retry later"
        );
        Err(Error::new(Kind::Busy, text))
    }

    /// Age of the oldest unfrozen row, and whether the active heads are full.
    pub(super) fn pressure(&self) -> (u64, bool) {
        let (since, now) = (self.since_ns.load(Ordering::Relaxed), self.clock.now().0);
        if since > now {
            // The clock was set back: from here on the age counts anew. Whoever froze the heads meanwhile was faster.
            let _ = self.since_ns.compare_exchange(since, now, Ordering::Relaxed, Ordering::Relaxed);
        }
        let age = if since == EMPTY { 0 } else { now.saturating_sub(since) };
        let full = self.active_bytes.load(Ordering::Relaxed) >= self.head_bytes_max;
        (u64::try_from(age).unwrap_or(0), full)
    }
}

fn bytes(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// The WAL's way into the heads.
pub(super) struct Inserter(pub(super) Arc<Shared>);

impl Apply for Inserter {
    type Outcome = Vec<Conflict>;

    fn admit(&mut self, tenant: &Tenant, batch: &Batch) -> Result<()> {
        self.0.check_room()?;
        validate(batch)?;
        self.0.heads.read().of(tenant).try_for_each(|head| head.check(&batch.identities))
    }

    fn apply(&mut self, _sequence: u64, tenant: &Tenant, batch: Batch) -> Result<Vec<Conflict>> {
        let outcome = self.0.insert(tenant, &batch)?;
        let counters = &self.0.counters;
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        counters.appends.fetch_add(1, Ordering::Relaxed);
        counters.rows.fetch_add(count(batch.rows()), Ordering::Relaxed);
        counters.repeats.fetch_add(outcome.repeats, Ordering::Relaxed);
        counters.conflicts.fetch_add(count(outcome.conflicts.len()), Ordering::Relaxed);
        Ok(outcome.conflicts)
    }
}

/// WAL, heads and flush of one signal.
pub(super) struct Lane {
    pub(super) shared: Arc<Shared>,
    /// `None` in an engine that only reads.
    pub(super) wal: Option<Wal<Inserter>>,
    pub(super) flush: tokio::sync::Mutex<FlushState>,
}

impl Lane {
    pub(super) fn new(shared: Arc<Shared>, wal: Option<Wal<Inserter>>) -> Arc<Self> {
        Arc::new(Self { shared, wal, flush: tokio::sync::Mutex::default() })
    }

    /// The WAL, or why there is none.
    pub(super) fn wal(&self) -> Result<&Wal<Inserter>> {
        self.wal
            .as_ref()
            .ok_or_else(|| Error::new(Kind::Invalid, "this process only reads the store and takes no data"))
    }

    /// The numbers of this lane.
    pub(super) fn stats(&self) -> SignalStats {
        let mut stats = SignalStats::new(self.shared.signal);
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let heads = self.shared.heads.read();
        for head in heads.active.values().chain(heads.frozen.values().map(|frozen| frozen.head.as_ref())) {
            stats.head_rows += count(head.rows());
            stats.head_bytes += count(head.bytes());
            stats.head_identities += count(head.identities());
        }
        drop(heads);
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        if let Some(wal) = &self.wal {
            stats.wal_bytes = load(&wal.counters().bytes);
            stats.fsyncs_total = load(&wal.counters().fsyncs);
            stats.wal_errors_total = load(&wal.counters().errors);
            stats.wal_segments = wal.segments();
        }
        let counters = &self.shared.counters;
        stats.appends_total = load(&counters.appends);
        stats.appended_rows_total = load(&counters.rows);
        stats.repeats_total = load(&counters.repeats);
        stats.conflicts_total = load(&counters.conflicts);
        stats.replayed_records_total = load(&counters.replayed);
        stats.wal_damages_total = load(&counters.damages);
        stats.flushes_total = load(&counters.flushes);
        stats.flushed_rows_total = load(&counters.flushed_rows);
        stats.flush_errors_total = load(&counters.flush_errors);
        stats
    }
}

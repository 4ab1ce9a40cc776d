//! The engine: one write-ahead log, head and set of tables for three signals.
//!
//! Owns: open, append, flush, close, and the [`crate::Scan`] over all of it. Does not own: framing (`wal`), grouping
//! in memory (`head`), files and commits (`table`).
//!
//! Invariants
//! 1. An append returns only after the fsync of its record, and a scan that starts later sees it.
//! 2. Each acknowledged row is at every moment in at least one place that a scan reads: the active head, a frozen
//!    head, or the tables.
//! 3. Once another process has taken over this writer's name, no append is acknowledged any more.

mod compact;
mod config;
mod delete;
mod flush;
mod folder;
mod lane;
mod recover;
mod rewrite;
mod scan;
mod stats;
#[cfg(test)]
mod tests;
mod upkeep;
mod vacuum;
mod visible;

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::model::batch::Batch;
use crate::model::tenant::Tenant;
use crate::signal::{Signal, Table};
use crate::store::{Cause, DiskCache, Store, because};
use crate::table::{Caches, TenantTables};
use crate::wal::segment::{Disk, LocalDisk};
use crate::wal::{Limits, Wal};

pub use crate::head::Conflict;
pub use config::EngineConfig;
pub use stats::{EngineStats, SignalStats, UpkeepStats};

use flush::{FlushState, Flusher, Step};
use lane::{Inserter, Lane, Shared};
use recover::Recovered;

/// How often the background task looks whether a head is old.
const TICK: Duration = Duration::from_secs(1);
/// The first and the longest pause after a failed flush.
const BACKOFF_MIN_MS: u64 = 1_000;
const BACKOFF_MAX_MS: u64 = 60_000;

/// How long a query of a writer waits for the store to tell of other writers' commits.
const REFRESH_PATIENCE: Duration = Duration::from_secs(2);

type ByTenant<T> = HashMap<Tenant, T, ahash::RandomState>;
type StepHook = dyn Fn(Step) -> Result<()> + Send + Sync;

/// The storage of one process.
pub struct Engine {
    config: EngineConfig,
    clock: Arc<dyn Clock>,
    /// In the order of [`Signal::ALL`].
    lanes: Vec<Arc<Lane>>,
    reader: Arc<Reader>,
    stored_postings: scan::StoredPostings,
    writer: String,
    fenced: Arc<AtomicBool>,
    closed: AtomicBool,
    wake: Arc<Notify>,
    compaction: compact::Compaction,
    lock: Mutex<Option<File>>,
    upkeep: stats::UpkeepCounters,
    /// Held during a round of upkeep.
    upkeep_state: tokio::sync::Mutex<upkeep::UpkeepState>,
    /// Called between the steps of a flush or a compaction; tests stop it there.
    hook: Mutex<Option<Arc<StepHook>>>,
}

/// Tenants that are only asked for, not written, and stay open: requests may name any.
const TENANTS_ASKED_MAX: usize = 1024;

/// The tables of all tenants.
struct Reader {
    store: Arc<Store>,
    caches: Arc<Caches>,
    clock: Arc<dyn Clock>,
    tenants: Mutex<ByTenant<Opened>>,
}

/// Open tables of one tenant.
struct Opened {
    tables: Arc<TenantTables>,
    /// This process writes them: what it knows of their marks must stay.
    written: bool,
}

impl Reader {
    /// The tables of a tenant to read.
    fn tables(&self, tenant: &Tenant) -> Arc<TenantTables> {
        let mut tenants = self.tenants.lock();
        if !tenants.contains_key(tenant)
            && tenants.values().filter(|opened| !opened.written).count() >= TENANTS_ASKED_MAX
        {
            tenants.retain(|_, opened| opened.written);
        }
        Arc::clone(&self.open(&mut tenants, tenant).tables)
    }

    /// The tables of a tenant to write.
    fn written(&self, tenant: &Tenant) -> Arc<TenantTables> {
        let mut tenants = self.tenants.lock();
        let opened = self.open(&mut tenants, tenant);
        opened.written = true;
        Arc::clone(&opened.tables)
    }

    /// The tenants that this process writes.
    fn written_tenants(&self) -> Vec<Tenant> {
        let tenants = self.tenants.lock();
        tenants.iter().filter(|(_, opened)| opened.written).map(|(tenant, _)| tenant.clone()).collect()
    }

    fn open<'a>(&self, tenants: &'a mut ByTenant<Opened>, tenant: &Tenant) -> &'a mut Opened {
        tenants.entry_ref(tenant).or_insert_with(|| {
            let (store, caches) = (Arc::clone(&self.store), Arc::clone(&self.caches));
            let tables = TenantTables::open(store, tenant.clone(), caches, Arc::clone(&self.clock));
            Opened { tables, written: false }
        })
    }
}

/// What became of an append.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// The sequence number of its WAL record; 0 for an empty batch.
    pub sequence: u64,
    /// Samples that were not stored: their series already holds another value at that time. Exact repeats are no
    /// conflicts.
    pub conflicts: Vec<Conflict>,
}

impl Engine {
    /// Opens the engine and replays what the WAL holds and no table has.
    pub async fn open(config: EngineConfig, clock: Arc<dyn Clock>) -> Result<Arc<Self>> {
        let mut store = Store::open(&config.store_url, &config.store_options)?;
        if store.is_bucket() && config.disk_cache_bytes_max > 0 {
            let (folder, limit) = (config.data_dir.join("cache"), config.disk_cache_bytes_max);
            let cache = DiskCache::open(folder, limit, &config.store_url, Arc::clone(&clock))?;
            store = store.with_cache(cache);
        }
        Self::open_with(config, Arc::new(store), Arc::new(LocalDisk), clock).await
    }

    /// [`Engine::open`] over an opened store and a disk of one's own.
    pub async fn open_with(
        config: EngineConfig,
        store: Arc<Store>,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>> {
        let (lock, writer) = if config.read_only {
            (None, String::new())
        } else {
            let lock = folder::lock(&config.data_dir)?;
            (Some(lock), folder::writer_id(&config.data_dir, config.writer_id.as_deref())?)
        };
        let reader = Arc::new(Reader {
            store,
            caches: Caches::new(config.budget.caches.limit_bytes()),
            clock: Arc::clone(&clock),
            tenants: Mutex::default(),
        });
        let wake = Arc::new(Notify::new());
        let start =
            Start { config: &config, clock: &clock, reader: &reader, wake: &wake, disk: &disk, writer: &writer };
        // All are waited for, also when one fails: a replay that went on would meet the segments of the next try to open.
        let started = futures::future::join_all(Signal::ALL.map(|signal| start.lane(signal))).await;
        let started: Vec<(Arc<Lane>, bool)> = started.into_iter().collect::<Result<_>>()?;
        let behind: Vec<Arc<Lane>> =
            started.iter().filter(|(_, behind)| *behind).map(|(lane, _)| Arc::clone(lane)).collect();
        let lanes = started.into_iter().map(|(lane, _)| lane).collect();
        let engine = Arc::new(Self {
            lanes,
            reader,
            stored_postings: scan::StoredPostings::default(),
            writer,
            fenced: Arc::default(),
            closed: AtomicBool::new(false),
            wake,
            compaction: compact::Compaction::default(),
            upkeep: stats::UpkeepCounters::default(),
            upkeep_state: tokio::sync::Mutex::default(),
            lock: Mutex::new(lock),
            hook: Mutex::default(),
            config,
            clock,
        });
        for lane in behind {
            engine.flush_lane(&lane).await?;
        }
        if !engine.config.read_only {
            tokio::spawn(keep_flushing(Arc::downgrade(&engine), Arc::clone(&engine.wake)));
            tokio::spawn(sweep(Arc::clone(engine.store())));
            let cancel = engine.compaction.cancel.clone();
            tokio::spawn(compact::keep_compacting(Arc::downgrade(&engine), cancel));
            tokio::spawn(upkeep::keep_up(Arc::downgrade(&engine)));
        }
        Ok(engine)
    }

    /// Writes `batch` to the WAL and the head; returns after the fsync. [`Kind::Busy`] when the WAL is full,
    /// [`Kind::Unavailable`] when the disk failed: both may be tried again.
    pub async fn append(&self, tenant: &Tenant, batch: Batch) -> Result<Appended> {
        self.check_writable()?;
        if batch.is_empty() {
            return Ok(Appended::default());
        }
        let (sequence, conflicts) = self.lane(batch.signal).wal()?.append(tenant, batch).await?;
        Ok(Appended { sequence, conflicts })
    }

    fn check_writable(&self) -> Result<()> {
        if self.config.read_only {
            return Err(Error::invalid("this process only reads the store and takes no data"));
        }
        if self.fenced.load(Ordering::Acquire) {
            let text = format!("another process writes as `{}`: this one takes no more data", self.writer);
            return Err(Error::new(Kind::Fenced, text));
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(Kind::Unavailable, "the storage is closed"));
        }
        Ok(())
    }

    /// Brings the heads of `signal`, or of all, into committed files: everything acknowledged before the call.
    pub async fn flush(&self, signal: Option<Signal>) -> Result<()> {
        if self.config.read_only {
            return Ok(());
        }
        let wanted = self.lanes.iter().filter(|lane| signal.is_none_or(|signal| lane.shared.signal == signal));
        let flushes: Vec<_> = wanted.map(|lane| self.flush_lane(lane)).collect();
        futures::future::join_all(flushes).await.into_iter().collect()
    }

    /// Flushes one lane on a task of its own, so that a caller who goes away does not stop it half-way.
    async fn flush_lane(&self, lane: &Arc<Lane>) -> Result<()> {
        let (lane, reader, writer) = (Arc::clone(lane), Arc::clone(&self.reader), self.writer.clone());
        let (fenced, clock, hook) = (Arc::clone(&self.fenced), Arc::clone(&self.clock), self.hook.lock().clone());
        let memory = Arc::clone(&self.config.budget.flush);
        let work = async move {
            let mut state = lane.flush.lock().await;
            if state.closed {
                return Err(Error::new(Kind::Unavailable, "the storage is closed"));
            }
            let tables = |tenant: &Tenant| reader.written(tenant);
            let at = |step: Step| hook.as_ref().map_or(Ok(()), |hook| hook(step));
            let flusher = Flusher { writer: &writer, today: clock.now().day(), tables: &tables, memory, at: &at };
            let result = because(Cause::Flush, flusher.run(&lane, &mut state)).await;
            settle(&lane, &mut state, &result, clock.as_ref());
            if result.as_ref().is_err_and(|error| error.kind() == Kind::Fenced) {
                fenced.store(true, Ordering::Release);
            }
            result
        };
        tokio::spawn(work).await.map_err(|cause| Error::bug("a flush ended in a panic").with_source(cause))?
    }

    /// Flushes what is full or old. The background task calls it every second and when a head is full.
    pub async fn tick(&self) {
        if self.fenced.load(Ordering::Acquire) {
            return;
        }
        let due: Vec<_> = self.lanes.iter().filter(|lane| self.is_due(lane)).collect();
        // Failures are counted and logged where they happen.
        futures::future::join_all(due.into_iter().map(|lane| self.flush_lane(lane))).await;
    }

    fn is_due(&self, lane: &Lane) -> bool {
        // A lane whose lock is taken is being flushed. A clock that was set back ends a pause.
        if lane.flush.try_lock().map_or(true, |state| state.pause_ns.contains(&self.clock.now().0)) {
            return false;
        }
        let (age, full) = lane.shared.pressure();
        let old = age >= u64::try_from(self.config.flush_age_max.as_nanos()).unwrap_or(u64::MAX);
        // What repeats fills the WAL but not the head.
        let wal_bytes = lane.wal.as_ref().map_or(0, |wal| wal.counters().bytes.load(Ordering::Relaxed));
        let unfinished = lane.shared.heads.read().uncut.is_some();
        old || full || unfinished || wal_bytes >= self.config.wal_bytes_max / 2
    }

    /// Flushes, stops the threads and gives the data folder free. A second call does nothing. After an error of the
    /// flush the WAL still holds what no table has.
    pub async fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.compaction.cancel.cancel();
        let flushed = self.flush(None).await;
        // What a merge has written without a commit only takes space.
        self.compaction.stopped().await;
        for lane in &self.lanes {
            // A flush that the background task has begun ends before; a later one must not touch the folder.
            lane.flush.lock().await.closed = true;
            if let Some(wal) = &lane.wal {
                wal.stop().await?;
            }
        }
        self.wake.notify_one();
        self.lock.lock().take();
        flushed
    }

    /// Counters and sizes as they are now.
    pub fn stats(&self) -> EngineStats {
        EngineStats {
            signals: self.lanes.iter().map(|lane| self.signal_stats(lane)).collect(),
            fenced: self.fenced.load(Ordering::Acquire),
            upkeep: self.upkeep.stats(),
        }
    }

    fn signal_stats(&self, lane: &Lane) -> SignalStats {
        let mut stats = lane.stats();
        self.compaction.add_to(&mut stats);
        stats
    }

    /// The configuration it was opened with.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Bytes that the caches of tables hold.
    pub fn cached_bytes(&self) -> usize {
        self.reader.caches.used_bytes()
    }

    /// The store it writes to.
    pub fn store(&self) -> &Arc<Store> {
        &self.reader.store
    }

    fn lane(&self, signal: Signal) -> &Arc<Lane> {
        // `lanes` is built from `Signal::ALL`, which has every signal.
        let at = Signal::ALL.iter().position(|other| *other == signal).unwrap_or(0);
        &self.lanes[at]
    }

    fn tables(&self, tenant: &Tenant) -> Arc<TenantTables> {
        self.reader.tables(tenant)
    }

    /// Looks for commits of other processes if that was last done too long ago. One that writes answers from what it
    /// knows while the store does not answer: its own rows do not depend on it.
    async fn refresh(&self, tables: &Arc<TenantTables>, table: Table) -> Result<()> {
        let look = because(Cause::Refresh, tables.look(table, self.config.refresh_age_max));
        if self.config.read_only {
            return look.await;
        }
        let late = |_| Error::new(Kind::Unavailable, "the store did not answer soon");
        match tokio::time::timeout(REFRESH_PATIENCE, look).await.map_err(late).flatten() {
            Err(error) if error.kind() == Kind::Unavailable => {
                tracing::warn!(table = table.name(), %error, "commits of other writers, if there are any, are not seen yet");
                Ok(())
            }
            looked => looked,
        }
    }
}

/// What each lane is started with.
struct Start<'a> {
    config: &'a EngineConfig,
    clock: &'a Arc<dyn Clock>,
    reader: &'a Arc<Reader>,
    wake: &'a Arc<Notify>,
    disk: &'a Arc<dyn Disk>,
    writer: &'a str,
}

impl Start<'_> {
    /// A lane, and whether its tables were ahead of its WAL.
    async fn lane(&self, signal: Signal) -> Result<(Arc<Lane>, bool)> {
        let shared = Shared::new(signal, Arc::clone(self.clock), Arc::clone(self.wake), self.config);
        if self.config.read_only {
            return Ok((Lane::new(shared, None), false));
        }
        let folder = self.config.data_dir.join("wal").join(signal.name());
        let reader = Arc::clone(self.reader);
        let tables = move |tenant: &Tenant| reader.written(tenant);
        let Recovered { replayed, behind } =
            recover::recover(&folder, &shared, self.writer, self.clock, tables).await?;
        if replayed.records > 0 || replayed.damages > 0 {
            tracing::info!(
                signal = signal.name(),
                records = replayed.records,
                damages = replayed.damages,
                torn_bytes = replayed.torn_bytes,
                "the WAL was replayed"
            );
        }
        let mut heads = shared.heads.write();
        if heads.active.is_empty() {
            // The tables have all of it. Without a row to flush nothing else would cut it, and a full one stay full.
            heads.uncut = Some(replayed.last).filter(|last| *last > 0);
        }
        drop(heads);
        let queue = &self.config.budget.wal_queue;
        let limits = Limits {
            wal_bytes: self.config.wal_bytes_max,
            segment_bytes: self.config.wal_segment_bytes,
            queue: queue.child(queue.name(), queue.limit_bytes() / Signal::ALL.len()),
        };
        let inserter = Inserter(Arc::clone(&shared));
        let wal = Wal::start(signal, folder, limits, Arc::clone(self.disk), replayed, inserter)?;
        Ok((Lane::new(shared, Some(wal)), behind))
    }
}

/// Counts and logs how a flush ended, and sets the pause after a failure.
fn settle(lane: &Lane, state: &mut FlushState, result: &Result<()>, clock: &dyn Clock) {
    match result {
        Ok(()) => {
            state.failures = 0;
            state.pause_ns = 0..0;
        }
        Err(error) => {
            let pause_ms = BACKOFF_MIN_MS.saturating_mul(1 << state.failures.min(16)).min(BACKOFF_MAX_MS);
            state.failures = state.failures.saturating_add(1);
            let pause_ns = i64::try_from(pause_ms.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
            let now = clock.now().0;
            state.pause_ns = now..now.saturating_add(pause_ns);
            lane.shared.counters.flush_errors.fetch_add(1, Ordering::Relaxed);
            tracing::error!(signal = lane.shared.signal.name(), %error, pause_ms, "a flush failed and will be tried again");
        }
    }
}

/// Beside everything else: it walks through all folders of the store.
async fn sweep(store: Arc<Store>) {
    match store.sweep().await {
        Ok(0) => {}
        Ok(files) => tracing::info!(files, "removed files that an earlier process was writing when it was killed"),
        Err(error) => tracing::warn!(%error, "files that an earlier process left half-written could not be removed"),
    }
}

async fn keep_flushing(engine: Weak<Engine>, wake: Arc<Notify>) {
    loop {
        // Whichever comes first; a missed wake-up is made up for by the next tick.
        let _ = tokio::time::timeout(TICK, wake.notified()).await;
        match engine.upgrade() {
            // On a task of its own: one signal's long flush must not keep the heads of others from theirs.
            Some(engine) if !engine.closed.load(Ordering::Acquire) => {
                drop(tokio::spawn(async move { engine.tick().await }))
            }
            _ => return,
        }
    }
}

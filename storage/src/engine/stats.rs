//! The engine's numbers, for `/metrics` and for tests.
//!
//! Owns: their names and meaning. Does not own: how they are printed.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::signal::Signal;

/// Numbers of one engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// One entry per signal, in the order of [`Signal::ALL`].
    pub signals: Vec<SignalStats>,
    /// Whether another process owns the tables now, so that this one refuses appends.
    pub fenced: bool,
    /// What retention, delete requests and vacuum did.
    pub upkeep: UpkeepStats,
}

/// Numbers of retention, delete requests and vacuum, of all signals and tenants; all only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpkeepStats {
    /// Delete requests that were made.
    pub deletes_made: u64,
    /// Delete requests whose rows are gone.
    pub deletes_done: u64,
    /// Blocks that went whole because all their rows were too old or deleted.
    pub dropped_blocks: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
    /// Blocks that were written again without deleted rows or rows that were too old.
    pub rewritten_blocks: u64,
    /// Rows that they lost.
    pub removed_rows: u64,
    /// Objects that vacuum deleted.
    pub vacuumed_objects: u64,
    /// Their bytes.
    pub vacuumed_bytes: u64,
    /// Rounds of upkeep that ended well.
    pub rounds: u64,
    /// Rounds that failed; they are tried again.
    pub errors: u64,
}

/// One number that grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters behind [`UpkeepStats`].
#[derive(Debug, Default)]
pub(super) struct UpkeepCounters {
    pub(super) deletes_made: Counter,
    pub(super) deletes_done: Counter,
    pub(super) dropped_blocks: Counter,
    pub(super) dropped_bytes: Counter,
    pub(super) rewritten_blocks: Counter,
    pub(super) removed_rows: Counter,
    pub(super) vacuumed_objects: Counter,
    pub(super) vacuumed_bytes: Counter,
    pub(super) rounds: Counter,
    pub(super) errors: Counter,
}

impl UpkeepCounters {
    pub(super) fn stats(&self) -> UpkeepStats {
        UpkeepStats {
            deletes_made: self.deletes_made.get(),
            deletes_done: self.deletes_done.get(),
            dropped_blocks: self.dropped_blocks.get(),
            dropped_bytes: self.dropped_bytes.get(),
            rewritten_blocks: self.rewritten_blocks.get(),
            removed_rows: self.removed_rows.get(),
            vacuumed_objects: self.vacuumed_objects.get(),
            vacuumed_bytes: self.vacuumed_bytes.get(),
            rounds: self.rounds.get(),
            errors: self.errors.get(),
        }
    }
}

/// Numbers of one signal. Those named `…_total` only grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalStats {
    /// The signal.
    pub signal: Signal,
    /// Rows in the heads, active and frozen.
    pub head_rows: u64,
    /// Bytes the heads take, active and frozen.
    pub head_bytes: u64,
    /// Identities known in memory.
    pub head_identities: u64,
    /// Bytes of all WAL segments.
    pub wal_bytes: u64,
    /// Number of WAL segments.
    pub wal_segments: u64,
    /// Batches acknowledged.
    pub appends_total: u64,
    /// Rows acknowledged.
    pub appended_rows_total: u64,
    /// Samples that repeated one already held.
    pub repeats_total: u64,
    /// Samples refused because another value is held at their time.
    pub conflicts_total: u64,
    /// Calls of fsync on WAL segments.
    pub fsyncs_total: u64,
    /// Failed writes or fsyncs of the WAL.
    pub wal_errors_total: u64,
    /// Places where a WAL segment was found damaged.
    pub wal_damages_total: u64,
    /// Records replayed at start.
    pub replayed_records_total: u64,
    /// Flushes that reached the tables.
    pub flushes_total: u64,
    /// Rows that flushes wrote into tables of facts.
    pub flushed_rows_total: u64,
    /// Flushes that failed (they are tried again).
    pub flush_errors_total: u64,
    /// Compactions that reached the tables.
    pub compactions_total: u64,
    /// Blocks that compactions replaced.
    pub compacted_blocks_total: u64,
    /// Bytes of these blocks.
    pub compaction_read_bytes_total: u64,
    /// Bytes of the blocks that replaced them.
    pub compaction_written_bytes_total: u64,
    /// Rows that compactions dropped because they repeated others.
    pub compaction_repeats_total: u64,
    /// Compactions that came too late: their blocks were gone.
    pub compaction_conflicts_total: u64,
    /// Compactions that failed.
    pub compaction_errors_total: u64,
    /// Blocks that compaction found unreadable and leaves as they are.
    pub unreadable_blocks: u64,
}

impl SignalStats {
    /// All zero.
    pub fn new(signal: Signal) -> Self {
        Self {
            signal,
            head_rows: 0,
            head_bytes: 0,
            head_identities: 0,
            wal_bytes: 0,
            wal_segments: 0,
            appends_total: 0,
            appended_rows_total: 0,
            repeats_total: 0,
            conflicts_total: 0,
            fsyncs_total: 0,
            wal_errors_total: 0,
            wal_damages_total: 0,
            replayed_records_total: 0,
            flushes_total: 0,
            flushed_rows_total: 0,
            flush_errors_total: 0,
            compactions_total: 0,
            compacted_blocks_total: 0,
            compaction_read_bytes_total: 0,
            compaction_written_bytes_total: 0,
            compaction_repeats_total: 0,
            compaction_conflicts_total: 0,
            compaction_errors_total: 0,
            unreadable_blocks: 0,
        }
    }
}

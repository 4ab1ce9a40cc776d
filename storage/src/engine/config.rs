//! What an engine is opened with.
//!
//! Owns: the defaults and why they are so. Does not own: where they are configured (the `tercet` binary).

use std::path::PathBuf;
use std::time::Duration;

use crate::budget::Budget;
use crate::retention::RetentionPolicy;
use crate::store::StoreOptions;

/// Settings of one [`super::Engine`].
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Folder of the WAL (`wal/`), the writer's name (`writer-id`) and the lock (`lock`).
    pub data_dir: PathBuf,
    /// Where the tables are: a path or a URL (`file`, `memory`, `gs`, `s3`, `az`).
    pub store_url: String,
    /// What the URL does not say of the store.
    pub store_options: StoreOptions,
    /// Only reads tables: no WAL, no head, appends refused. An existing WAL belongs to another process.
    pub read_only: bool,
    /// A head older than this is flushed: bounds replay after a crash and what a read-only process misses.
    pub flush_age_max: Duration,
    /// A head larger than this is flushed; bytes per signal.
    pub head_bytes_max: usize,
    /// Appends are refused as busy while a signal has this many bytes in memory that no table has yet: heads that fill
    /// and heads that are being flushed. Bounds memory while the store does not answer, and after a restart then.
    pub unflushed_bytes_max: usize,
    /// Appends are refused as busy once a signal's WAL holds this many bytes.
    pub wal_bytes_max: u64,
    /// A WAL segment larger than this is followed by a new one.
    pub wal_segment_bytes: u64,
    /// How old a snapshot of the tables may be: within this time a query sees what other processes committed. A process
    /// knows its own commits at once. Costs one read of an object for each table that is queried.
    pub refresh_age_max: Duration,
    /// Bytes of a bucket's objects that are kept in `cache/` of the data folder; 0: none. A store in a folder needs none.
    pub disk_cache_bytes_max: u64,
    /// What heads, queues, flushes, compactions and caches may take of memory.
    pub budget: Budget,
    /// How long data is kept.
    pub retention: RetentionPolicy,
    /// How often the tables are looked at for what is too old, too much or deleted.
    pub upkeep_interval: Duration,
    /// How often a table is listed for files that nobody needs.
    pub vacuum_interval: Duration,
    /// How long a file stays after a commit removed it: longer than any query, and than any reader keeps a snapshot.
    pub vacuum_grace: Duration,
    /// How long a file stays that no commit ever named: longer than any flush or compaction, of whatever process.
    pub orphan_grace: Duration,
    /// Names this process in the tables' `txn` marks; `None`: a random name kept in the data folder.
    pub writer_id: Option<String>,
}

impl EngineConfig {
    /// Defaults for one machine.
    pub fn new(data_dir: impl Into<PathBuf>, store_url: impl Into<String>) -> Self {
        Self {
            data_dir: data_dir.into(),
            store_url: store_url.into(),
            store_options: StoreOptions::default(),
            read_only: false,
            flush_age_max: Duration::from_secs(600),
            head_bytes_max: 64 << 20,
            unflushed_bytes_max: 256 << 20,
            wal_bytes_max: 2 << 30,
            wal_segment_bytes: 64 << 20,
            refresh_age_max: Duration::from_secs(10),
            disk_cache_bytes_max: 2 << 30,
            budget: Budget::default(),
            retention: RetentionPolicy::default(),
            upkeep_interval: Duration::from_secs(300),
            vacuum_interval: Duration::from_secs(3600),
            vacuum_grace: Duration::from_secs(3600),
            orphan_grace: Duration::from_secs(86_400),
            writer_id: None,
        }
    }
}

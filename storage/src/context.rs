//! What every read carries: tenant, deadline, cancellation, memory share, statistics.
//!
//! Owns: the plumbing. Does not own: defaults and limits, which come from the configuration.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::budget::{Reservation, Share};
use crate::error::{Error, Kind, Result};
use crate::model::tenant::Tenant;

/// Counters of one query; every number only grows.
#[derive(Debug, Default)]
pub struct Stats {
    /// Rows that left the storage for the evaluator.
    pub rows: AtomicU64,
    /// Bytes of these rows, as Arrow holds them.
    pub bytes: AtomicU64,
    /// Rows that were left out because they repeat another.
    pub repeats: AtomicU64,
    /// Parquet files opened.
    pub blocks: AtomicU64,
    /// Rows that an index proved not to pass, so that they were not read.
    pub rows_ruled_out: AtomicU64,
    /// Bytes fetched from the object store.
    pub fetched_bytes: AtomicU64,
}

impl Stats {
    /// Adds to one counter.
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

/// The context of one query. Cheap to clone; clones share cancellation, memory and statistics.
#[derive(Clone, Debug)]
pub struct Context {
    /// Whose data is read.
    pub tenant: Tenant,
    /// Counters of this query.
    pub stats: Arc<Stats>,
    deadline: Option<(Instant, Duration)>,
    cancel: CancellationToken,
    memory: Arc<Share>,
}

impl Context {
    /// A context without deadline.
    pub fn new(tenant: Tenant, memory: Arc<Share>) -> Self {
        Self { tenant, stats: Arc::default(), deadline: None, cancel: CancellationToken::new(), memory }
    }

    /// Lets the query run for `timeout` from now.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.deadline = Instant::now().checked_add(timeout).map(|at| (at, timeout));
        self
    }

    /// Ends with `cancel` instead of a token of its own.
    #[must_use]
    pub fn with_cancellation(self, cancel: CancellationToken) -> Self {
        Self { cancel, ..self }
    }

    /// Cancelled when the caller goes away.
    pub fn cancellation(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Time left until the deadline; `None` without one.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|(at, _)| at.saturating_duration_since(Instant::now()))
    }

    /// Errors with [`Kind::Timeout`] or [`Kind::Canceled`] once the query should stop. Call it in every loop
    /// that may run for more than a millisecond.
    pub fn check(&self) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(Error::new(Kind::Canceled, "the query was canceled"));
        }
        match self.deadline {
            Some((at, timeout)) if Instant::now() >= at => {
                Err(Error::new(Kind::Timeout, format!("the query timed out after {} ms", timeout.as_millis())))
            }
            _ => Ok(()),
        }
    }

    /// Reserves memory for intermediate results from the query's share.
    pub fn reserve(&self, bytes: usize) -> Result<Reservation> {
        self.memory.reserve(bytes)
    }
}

//! The memory budget: named shares, who may hold how many bytes of each, and a clear refusal beyond.
//!
//! Owns: the counters, and how one limit is divided. Does not own: the memory itself; holders reserve before they
//! allocate and give back on drop. What the limit is (`tercet`'s configuration asks the system).
//!
//! Invariants
//! 1. A share never counts more than its limit, nor more than its parent has left, but for what is held without asking
//!    ([`Share::hold`]): data that is acknowledged already.
//! 2. Dropping a [`Reservation`] gives back exactly what it holds.
//! 3. The shares of a [`Budget`] together are no larger than its limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::error::{Error, Kind, Result};

/// Bytes of the budget that are nobody's share: code, stacks, buffers of connections.
const PROCESS_BYTES: usize = 32 << 20;

/// How large each share may be by its own setting.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Rows in memory that no table has yet, of all signals.
    pub heads: usize,
    /// Batches that wait for the write-ahead logs.
    pub wal_queue: usize,
    /// Rows on their way from heads into files.
    pub flush: usize,
    /// Files that are being rewritten.
    pub compaction: usize,
    /// Footers, directories, identities of blocks.
    pub caches: usize,
    /// Running queries.
    pub queries: usize,
    /// Request bodies.
    pub bodies: usize,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            heads: 768 << 20,
            wal_queue: 48 << 20,
            flush: 96 << 20,
            compaction: 256 << 20,
            caches: 128 << 20,
            queries: 1 << 30,
            bodies: 256 << 20,
        }
    }
}

/// One limit, divided.
#[derive(Clone, Debug)]
pub struct Budget {
    /// `memory.heads`.
    pub heads: Arc<Share>,
    /// `memory.wal_queue`.
    pub wal_queue: Arc<Share>,
    /// `memory.flush`.
    pub flush: Arc<Share>,
    /// `memory.compaction`.
    pub compaction: Arc<Share>,
    /// `memory.caches`.
    pub caches: Arc<Share>,
    /// `query.memory`.
    pub queries: Arc<Share>,
    /// `ingest.inflight_bytes_max`.
    pub bodies: Arc<Share>,
    limit_bytes: usize,
}

impl Budget {
    /// Divides `limit_bytes`: each share is as large as `wanted`, but no larger than its part of the limit.
    pub fn new(limit_bytes: usize, wanted: &Wanted) -> Self {
        let divided = limit_bytes - PROCESS_BYTES.min(limit_bytes / 4);
        let share = |name: &str, wanted: usize, percent: usize| {
            let part = divided / 100 * percent;
            let raise = match wanted <= part {
                true => format!("`{name}`"),
                false => format!("`memory.limit`, of which it is {percent} %"),
            };
            Arc::new(Share { raise, ..Share::alone(name, wanted.min(part)) })
        };
        Self {
            heads: share("memory.heads", wanted.heads, 25),
            wal_queue: share("memory.wal_queue", wanted.wal_queue, 5),
            flush: share("memory.flush", wanted.flush, 15),
            compaction: share("memory.compaction", wanted.compaction, 15),
            caches: share("memory.caches", wanted.caches, 10),
            queries: share("query.memory", wanted.queries, 20),
            bodies: share("ingest.inflight_bytes_max", wanted.bodies, 10),
            limit_bytes,
        }
    }

    /// The whole.
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// All shares.
    pub fn shares(&self) -> [&Arc<Share>; 7] {
        let Self { heads, wal_queue, flush, compaction, caches, queries, bodies, .. } = self;
        [heads, wal_queue, flush, compaction, caches, queries, bodies]
    }
}

impl Default for Budget {
    /// As large as the shares want to be.
    fn default() -> Self {
        Self::new(8 << 30, &Wanted::default())
    }
}

/// A named part of the memory budget.
#[derive(Debug)]
pub struct Share {
    name: String,
    /// The setting that makes it larger.
    raise: String,
    limit_bytes: usize,
    used_bytes: AtomicUsize,
    parent: Option<Arc<Share>>,
    /// Told whenever bytes come back to it or to a share beneath it, if it has no parent.
    freed: Notify,
    /// Those who wait do so one behind the other: a large wish is not starved by small ones.
    turn: tokio::sync::Mutex<()>,
}

impl Share {
    fn alone(name: &str, limit_bytes: usize) -> Self {
        Self {
            name: name.to_owned(),
            raise: format!("`{name}`"),
            limit_bytes,
            used_bytes: AtomicUsize::new(0),
            parent: None,
            freed: Notify::new(),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// A share of its own with `limit_bytes`.
    pub fn root(name: &str, limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self::alone(name, limit_bytes))
    }

    /// A share beneath `self`: what it holds counts in both.
    pub fn child(self: &Arc<Self>, name: &str, limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self { parent: Some(Arc::clone(self)), ..Self::alone(name, limit_bytes) })
    }

    /// The setting that it is named after.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes held now.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// The most this share may hold.
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// Reserves `bytes`, or says which share is exhausted: [`Kind::Busy`] when others hold what is missing, so that it
    /// may succeed later, [`Kind::Limit`] when it never can.
    pub fn reserve(self: &Arc<Self>, bytes: usize) -> Result<Reservation> {
        self.take(bytes)?;
        Ok(Reservation { share: Arc::clone(self), bytes })
    }

    /// Counts `bytes` that are there in any case, even beyond the limit.
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Reservation {
        self.add(bytes);
        Reservation { share: Arc::clone(self), bytes }
    }

    /// Waits until `bytes` are free, or the whole share if they are more. For work whose pieces take what they need at
    /// once and give it back without waiting for others.
    pub async fn wait(self: &Arc<Self>, bytes: usize) -> Reservation {
        let bytes = bytes.min(self.limit_bytes);
        let mut root = self;
        while let Some(parent) = &root.parent {
            root = parent;
        }
        let _turn = self.turn.lock().await;
        loop {
            let freed = root.freed.notified();
            tokio::pin!(freed);
            // Registered before the try: what comes back in between is noticed.
            freed.as_mut().enable();
            if let Ok(held) = self.reserve(bytes) {
                return held;
            }
            freed.await;
        }
    }

    fn take(&self, bytes: usize) -> Result<()> {
        let mut used = self.used_bytes.load(Ordering::Relaxed);
        loop {
            let wanted = used.saturating_add(bytes);
            if wanted > self.limit_bytes {
                return Err(self.exhausted(bytes, used, Kind::Limit));
            }
            match self.used_bytes.compare_exchange_weak(used, wanted, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => used = now,
            }
        }
        if let Some(parent) = &self.parent
            && let Err(error) = parent.take(bytes)
        {
            self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
            // Without the others it would have fitted.
            let alone = used.saturating_add(bytes) <= parent.limit_bytes;
            return Err(if alone { parent.exhausted(bytes, parent.used_bytes(), Kind::Busy) } else { error });
        }
        Ok(())
    }

    /// The error of a share that has no room for `bytes`.
    pub fn exhausted(&self, bytes: usize, used: usize, kind: Kind) -> Error {
        let Self { name, limit_bytes, raise, .. } = self;
        let then = if kind == Kind::Busy { "try again later" } else { "ask for less" };
        Error::new(
            kind,
            format!(
                "memory share `{name}` is exhausted: {bytes} bytes more than the {used} in use would pass its limit of {limit_bytes} bytes; {then} or raise {raise}"
            ),
        )
    }

    fn add(&self, bytes: usize) {
        self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(parent) = &self.parent {
            parent.add(bytes);
        }
    }

    fn give_back(&self, bytes: usize) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
        match &self.parent {
            Some(parent) => parent.give_back(bytes),
            None => self.freed.notify_waiters(),
        }
    }
}

/// Bytes held until dropped.
#[derive(Debug)]
pub struct Reservation {
    share: Arc<Share>,
    bytes: usize,
}

impl Reservation {
    /// Holds `bytes` more; on an error nothing changed.
    pub fn grow(&mut self, bytes: usize) -> Result<()> {
        self.share.take(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        if bytes < self.bytes {
            self.share.give_back(self.bytes - bytes);
            self.bytes = bytes;
        }
    }

    /// Holds exactly `bytes` from here on, even beyond the limit: they are there in any case.
    pub fn set(&mut self, bytes: usize) {
        self.shrink_to(bytes);
        self.share.add(bytes - self.bytes);
        self.bytes = bytes;
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.share.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_counts_in_its_parent_and_gives_back() {
        let root = Share::root("all", 100);
        let query = root.child("query", 80);
        let held = query.reserve(70).expect("fits both");
        assert_eq!((root.used_bytes(), query.used_bytes()), (70, 70));
        let refused = query.reserve(20).expect_err("over the child's limit");
        assert_eq!(refused.kind(), Kind::Limit);
        let other = root.child("other", 80);
        assert!(other.reserve(40).is_err(), "over the parent's limit");
        assert_eq!(other.used_bytes(), 0, "a refused reservation leaves no trace");
        drop(held);
        assert_eq!((root.used_bytes(), query.used_bytes()), (0, 0));
    }

    #[test]
    fn what_only_others_keep_from_fitting_may_be_tried_again() {
        let root = Share::root("query.memory", 100);
        let [a, b] = [80, 200].map(|limit| root.child("query.memory_per_query", limit));
        let held = b.reserve(50).expect("fits");
        let busy = a.reserve(60).expect_err("the other holds it");
        assert_eq!(busy.kind(), Kind::Busy);
        assert!(busy.to_string().contains("`query.memory` is exhausted"), "{busy}");
        assert_eq!(a.reserve(90).expect_err("over its own").kind(), Kind::Limit);
        assert_eq!(b.reserve(60).expect_err("over the parent's, alone").kind(), Kind::Limit);
        drop(held);
        assert!(a.reserve(60).is_ok());
    }

    #[test]
    fn what_is_there_in_any_case_counts_beyond_the_limit() {
        let root = Share::root("memory.heads", 100);
        let mut held = root.hold(150);
        assert!(root.reserve(1).is_err());
        held.set(99);
        assert_eq!((root.used_bytes(), root.reserve(1).is_ok()), (99, true));
        held.set(120);
        drop(held);
        assert_eq!(root.used_bytes(), 0);
    }

    #[tokio::test]
    async fn whoever_waits_gets_what_comes_back() {
        let root = Share::root("memory.wal_queue", 100);
        let (one, other) = (root.child("one", 100), root.child("other", 100));
        let held = one.reserve(30).expect("free");
        let wait = |bytes| {
            let share = Arc::clone(&other);
            tokio::spawn(async move { share.wait(bytes).await.bytes() })
        };
        let large = wait(1_000);
        tokio::task::yield_now().await;
        let small = wait(1);
        tokio::task::yield_now().await;
        assert!(!large.is_finished() && !small.is_finished(), "the small one does not overtake");
        drop(held);
        assert_eq!(large.await.expect("ends"), 100, "more than there is takes all");
        assert_eq!(small.await.expect("ends"), 1);
    }

    #[test]
    fn shares_shrink_with_the_limit_and_say_what_to_raise() {
        for limit in [0, 1 << 20, 64 << 20, 256 << 20, 1 << 30, 64 << 30] {
            let budget = Budget::new(limit, &Wanted::default());
            assert!(budget.shares().iter().map(|share| share.limit_bytes()).sum::<usize>() <= limit, "{limit}");
        }
        let small = Budget::new(192 << 20, &Wanted::default());
        assert_eq!(small.heads.limit_bytes() >> 20, 39);
        let refused = small.queries.reserve(1 << 30).expect_err("too much").to_string();
        assert!(refused.ends_with("ask for less or raise `memory.limit`, of which it is 20 %"), "{refused}");
        let large = Budget::default();
        assert_eq!(large.queries.limit_bytes(), 1 << 30);
        let refused = large.queries.reserve(2 << 30).expect_err("too much").to_string();
        assert!(refused.ends_with("or raise `query.memory`"), "{refused}");
    }
}

//! Memory shares: who may hold how many bytes, and a clear refusal beyond.
//!
//! Owns: the counters. Does not own: the memory itself; holders reserve before they allocate and
//! give back on drop.
//!
//! Invariants
//! 1. A share never counts more than its limit, nor more than its parent has left.
//! 2. Dropping a [`Reservation`] gives back exactly what it holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Kind, Result};

/// A named part of the memory budget.
#[derive(Debug)]
pub struct Share {
    name: String,
    limit_bytes: usize,
    used_bytes: AtomicUsize,
    parent: Option<Arc<Share>>,
}

impl Share {
    /// A share of its own with `limit_bytes`.
    pub fn root(name: impl Into<String>, limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self { name: name.into(), limit_bytes, used_bytes: AtomicUsize::new(0), parent: None })
    }

    /// A share beneath `self`: what it holds counts in both.
    pub fn child(self: &Arc<Self>, name: impl Into<String>, limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            limit_bytes,
            used_bytes: AtomicUsize::new(0),
            parent: Some(Arc::clone(self)),
        })
    }

    /// Bytes held now.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// The most this share may hold.
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// Reserves `bytes`, or says which share is exhausted ([`Kind::Limit`]).
    pub fn reserve(self: &Arc<Self>, bytes: usize) -> Result<Reservation> {
        self.take(bytes)?;
        Ok(Reservation { share: Arc::clone(self), bytes })
    }

    fn take(&self, bytes: usize) -> Result<()> {
        let mut used = self.used_bytes.load(Ordering::Relaxed);
        loop {
            let wanted = used.saturating_add(bytes);
            if wanted > self.limit_bytes {
                return Err(Error::new(
                    Kind::Limit,
                    format!(
                        "memory share `{}` is exhausted: {bytes} bytes more than the {used} in use would pass its limit of {} bytes",
                        self.name, self.limit_bytes
                    ),
                ));
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
            return Err(error);
        }
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(parent) = &self.parent {
            parent.give_back(bytes);
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
}

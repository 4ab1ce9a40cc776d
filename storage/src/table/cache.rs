//! A cache bounded in bytes that drops what was used longest ago.
//!
//! Owns: the order of use and the bound. Does not own: how large a value is, which its caller says.
//!
//! Invariant: the values held never count more than the limit.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use parquet::file::metadata::ParquetMetaData;

use crate::index::dictionary::Dictionary;
use crate::index::directory::Directory;
use crate::index::tokens::TokenFilter;
use crate::model::identity::Identity;

/// Caches of footers, sidecars and identities, shared by all tenants of a process.
#[derive(Debug)]
pub struct Caches {
    pub(crate) footers: Cache<Arc<ParquetMetaData>>,
    pub(crate) directories: Cache<Arc<Directory>>,
    /// `None` for a block known to have none that can be read.
    pub(crate) tokens: Cache<Option<Arc<TokenFilter>>>,
    pub(crate) dictionaries: Cache<Arc<Dictionary>>,
    pub(crate) identities: Cache<Arc<Vec<Identity>>>,
}

impl Caches {
    /// Caches that together hold at most `limit_bytes`.
    pub fn new(limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            footers: Cache::new(limit_bytes / 4),
            directories: Cache::new(limit_bytes / 8),
            tokens: Cache::new(limit_bytes / 8),
            dictionaries: Cache::new(limit_bytes / 8),
            identities: Cache::new(limit_bytes / 8 * 3),
        })
    }

    /// Bytes held now.
    pub fn used_bytes(&self) -> usize {
        self.footers.used_bytes()
            + self.directories.used_bytes()
            + self.tokens.used_bytes()
            + self.dictionaries.used_bytes()
            + self.identities.used_bytes()
    }
}

#[derive(Debug)]
pub(crate) struct Cache<V> {
    limit_bytes: usize,
    inner: Mutex<Inner<V>>,
}

#[derive(Debug)]
struct Inner<V> {
    held: HashMap<String, Held<V>, ahash::RandomState>,
    by_use: BTreeMap<u64, String>,
    used_bytes: usize,
    uses: u64,
}

#[derive(Debug)]
struct Held<V> {
    value: V,
    bytes: usize,
    used: u64,
}

impl<V: Clone> Cache<V> {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        let inner = Inner { held: HashMap::default(), by_use: BTreeMap::new(), used_bytes: 0, uses: 0 };
        Self { limit_bytes, inner: Mutex::new(inner) }
    }

    pub(crate) fn get(&self, key: &str) -> Option<V> {
        let inner = &mut *self.inner.lock();
        let held = inner.held.get_mut(key)?;
        inner.uses += 1;
        if let Some(key) = inner.by_use.remove(&held.used) {
            inner.by_use.insert(inner.uses, key);
        }
        held.used = inner.uses;
        Some(held.value.clone())
    }

    /// Keeps `value`, which counts `bytes`, unless it alone is over the limit.
    pub(crate) fn put(&self, key: &str, value: V, bytes: usize) {
        let bytes = bytes.saturating_add(key.len());
        if bytes > self.limit_bytes {
            return;
        }
        let inner = &mut *self.inner.lock();
        inner.drop_key(key);
        while inner.used_bytes + bytes > self.limit_bytes
            && let Some((_, oldest)) = inner.by_use.pop_first()
        {
            inner.drop_key(&oldest);
        }
        inner.uses += 1;
        inner.used_bytes += bytes;
        inner.by_use.insert(inner.uses, key.to_owned());
        inner.held.insert(key.to_owned(), Held { value, bytes, used: inner.uses });
    }

    pub(crate) fn used_bytes(&self) -> usize {
        self.inner.lock().used_bytes
    }
}

impl<V> Inner<V> {
    fn drop_key(&mut self, key: &str) {
        if let Some(held) = self.held.remove(key) {
            self.used_bytes -= held.bytes;
            self.by_use.remove(&held.used);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_goes_first_and_the_limit_holds() {
        let cache = Cache::new(40);
        cache.put("a", 1, 15);
        cache.put("b", 2, 15);
        assert_eq!(cache.get("a"), Some(1));
        cache.put("c", 3, 15);
        assert_eq!((cache.get("a"), cache.get("b"), cache.get("c")), (Some(1), None, Some(3)));
        cache.put("a", 4, 1);
        assert_eq!((cache.get("a"), cache.used_bytes()), (Some(4), 18));
        cache.put("huge", 5, 100);
        assert_eq!(cache.get("huge"), None);
    }
}

//! Parts of a bucket's immutable objects, kept on this machine's disk: what was read, and what was written a moment ago.
//!
//! Owns: which chunks are kept, the form of their files, the bound, what is dropped first. Does not own: what is read and
//! when (`scan::open`).
//!
//! An object is cut into chunks of [`CHUNK_BYTES`]; a chunk is a file of its own, `<folder>/<xx>/<object>-<chunk>`, where
//! `object` is a hash of the store's URL and the object's name. A file has a head (magic, checksum, key, length) and the
//! chunk. Nothing is fsynced: a file that a crash tore, or that anything else damaged, fails its checksum and is a miss.
//!
//! Invariants
//! 1. What is returned is what the store holds: objects never change, and each chunk is checked when it is read.
//! 2. The files known together never hold more than the limit; those of an earlier process count once they are found.
//! 3. Of readers that miss the same run of chunks at the same time one asks the store.
//! 4. No failure of the disk is an error of a reader.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use hashbrown::HashMap;
use object_store::path::Path;
use object_store::{Error as StoreError, Result as StoreResult};
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use xxhash_rust::xxh3::xxh3_128;

use crate::clock::Clock;
use crate::error::Result;
use crate::model::time::NS_PER_S;

/// A read of a few pages costs one file of this size, a full scan a file operation per so many bytes.
const CHUNK_BYTES: u64 = 256 << 10;
/// Chunks between two that are missing that are fetched along rather than asked for apart: about a megabyte, as the library
/// joins ranges.
const GAP_CHUNKS: u32 = 4;
/// Chunks that one request to the store brings at most.
const RUN_CHUNKS_MAX: u32 = 32;
/// Requests to the store at once for one read.
const RUNS_MAX: usize = 8;
/// The chunk number of an object that is kept whole because its length is not known before: a sidecar.
const WHOLE: u32 = u32::MAX;
/// An object that is kept whole has at most this part of the limit.
const WHOLE_SHARE: u64 = 8;
/// A chunk's last use is written into its file's times at most this often, for the next process.
const TOUCH_NS: i64 = 600 * NS_PER_S;

/// What a file begins with. A new form gets another magic; a file with an unknown one is a miss.
const MAGIC: [u8; 4] = *b"TCC1";
/// Magic, CRC-32C of all that follows it, object, chunk, length.
const HEAD_BYTES: usize = 4 + 4 + 16 + 4 + 4;

/// An object by its hash, and a chunk of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key(u128, u32);

#[derive(Clone, Copy, Debug)]
struct Entry {
    bytes: u64,
    /// Place in the order of use.
    used: i64,
    touched_ns: i64,
}

#[derive(Debug, Default)]
struct Index {
    entries: HashMap<Key, Entry, ahash::RandomState>,
    by_use: BTreeMap<i64, Key>,
    used_bytes: u64,
    uses: i64,
}

/// Counters of a cache; those named `…_total` only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCacheStats {
    /// Bytes of the files.
    pub bytes: u64,
    /// Chunks found.
    pub hits_total: u64,
    /// Chunks that had to be fetched.
    pub misses_total: u64,
    /// Files that were found damaged and fetched again.
    pub damaged_total: u64,
    /// Files that could not be written.
    pub failures_total: u64,
}

#[derive(Debug, Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    damaged: AtomicU64,
    failures: AtomicU64,
}

/// What one fetch came to, for all who wait for it.
type Fetched = Arc<OnceCell<std::result::Result<Bytes, Arc<StoreError>>>>;

/// A cache in a folder.
#[derive(Debug)]
pub struct DiskCache {
    folder: PathBuf,
    limit_bytes: u64,
    /// Part of each object's hash, so that a folder that served another store serves nothing wrong.
    store_url: String,
    clock: Arc<dyn Clock>,
    index: Mutex<Index>,
    fetches: Mutex<HashMap<(u128, u32, u32), Fetched, ahash::RandomState>>,
    counters: Counters,
    next_file: AtomicU64,
    warned: AtomicBool,
}

impl DiskCache {
    /// A cache of at most `limit_bytes` in `folder` for the store at `store_url`. What an earlier process left there is
    /// found by a thread meanwhile.
    pub fn open(folder: PathBuf, limit_bytes: u64, store_url: &str, clock: Arc<dyn Clock>) -> Result<Arc<Self>> {
        let staged = folder.join("tmp");
        match fs::remove_dir_all(&staged) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => fs::create_dir_all(&staged)?,
        }
        let cache = Arc::new(Self {
            folder,
            limit_bytes,
            store_url: store_url.to_owned(),
            clock,
            index: Mutex::default(),
            fetches: Mutex::default(),
            counters: Counters::default(),
            next_file: AtomicU64::new(0),
            warned: AtomicBool::new(false),
        });
        let found = Arc::clone(&cache);
        std::thread::Builder::new().name("tercet-cache".to_owned()).spawn(move || found.find_files())?;
        Ok(cache)
    }

    /// Sizes and counters as they are now.
    pub fn stats(&self) -> DiskCacheStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DiskCacheStats {
            bytes: self.index.lock().used_bytes,
            hits_total: load(&self.counters.hits),
            misses_total: load(&self.counters.misses),
            damaged_total: load(&self.counters.damaged),
            failures_total: load(&self.counters.failures),
        }
    }

    fn hash(&self, object: &Path) -> u128 {
        xxh3_128(format!("{}\n{object}", self.store_url).as_bytes())
    }

    /// `ranges` of `object`, which has `length` bytes; what is missing is brought by `fetch` and kept if `keep` says so.
    pub(super) async fn read<F>(
        self: &Arc<Self>,
        object: &Path,
        length: u64,
        ranges: &[Range<u64>],
        keep: bool,
        fetch: impl Fn(Range<u64>) -> F + Sync,
    ) -> StoreResult<Vec<Bytes>>
    where
        F: Future<Output = StoreResult<Bytes>> + Send,
    {
        let hash = self.hash(object);
        let mut wanted: Vec<u32> = ranges.iter().filter(|range| !range.is_empty()).flat_map(chunks_of).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let (cache, asked) = (Arc::clone(self), wanted.clone());
        let load = move || asked.iter().map(|chunk| cache.load(Key(hash, *chunk))).collect::<Vec<_>>();
        let loaded = tokio::task::spawn_blocking(load).await?;
        let mut chunks: BTreeMap<u32, Bytes> = BTreeMap::new();
        let mut missing = Vec::new();
        for (chunk, bytes) in wanted.into_iter().zip(loaded) {
            match bytes {
                Some(bytes)
                    if bytes.len() as u64 == chunk_range(chunk, length).end - chunk_range(chunk, length).start =>
                {
                    chunks.insert(chunk, bytes);
                }
                _ => missing.push(chunk),
            }
        }
        self.counters.hits.fetch_add(chunks.len() as u64, Ordering::Relaxed);
        self.counters.misses.fetch_add(missing.len() as u64, Ordering::Relaxed);
        let fetches = stream::iter(runs(&missing)).map(|run| {
            let range = chunk_range(run.start, length).start..chunk_range(run.end - 1, length).end;
            let fetched = self.fetch_once(object, (hash, run.start, run.end), keep, fetch(range));
            async move { Ok::<_, StoreError>((run, fetched.await?)) }
        });
        let fetched: Vec<(Range<u32>, Bytes)> = fetches.buffered(RUNS_MAX).try_collect().await?;
        for (run, bytes) in fetched {
            chunks.extend(cut(run, &bytes));
        }
        ranges.iter().map(|range| assemble(object, range, &chunks)).collect()
    }

    /// An object whole, of which the length is not known. `None` if the store does not have it.
    pub(super) async fn read_whole<F>(
        self: &Arc<Self>,
        object: &Path,
        keep: bool,
        fetch: F,
    ) -> StoreResult<Option<Bytes>>
    where
        F: Future<Output = StoreResult<Bytes>> + Send,
    {
        let (cache, key) = (Arc::clone(self), Key(self.hash(object), WHOLE));
        if let Some(bytes) = tokio::task::spawn_blocking(move || cache.load(key)).await? {
            self.counters.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(Some(bytes));
        }
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        match self.fetch_once(object, (key.0, WHOLE, WHOLE), keep, fetch).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps an object that the store has now: in chunks, or whole if `whole`.
    pub(super) async fn keep(self: &Arc<Self>, object: &Path, bytes: Bytes, whole: bool) {
        let (cache, hash) = (Arc::clone(self), self.hash(object));
        let run = if whole { WHOLE..WHOLE } else { 0..chunk_at(bytes.len() as u64 + CHUNK_BYTES - 1) };
        // A thread that stops has told so already; what it did not write is a miss.
        let _ = tokio::task::spawn_blocking(move || cache.store(hash, run, &bytes)).await;
    }

    /// Brings a run of chunks, or `WHOLE..WHOLE`, once for all who ask at the same time.
    async fn fetch_once(
        self: &Arc<Self>,
        object: &Path,
        run: (u128, u32, u32),
        keep: bool,
        fetch: impl Future<Output = StoreResult<Bytes>> + Send,
    ) -> StoreResult<Bytes> {
        let cell = Arc::clone(self.fetches.lock().entry(run).or_default());
        let flight = Flight { cache: self, run, cell };
        let bring = async {
            let bytes = fetch.await.map_err(Arc::new)?;
            if keep {
                let (cache, kept) = (Arc::clone(self), bytes.clone());
                let _ = tokio::task::spawn_blocking(move || cache.store(run.0, run.1..run.2, &kept)).await;
            }
            Ok(bytes)
        };
        let fetched = flight.cell.get_or_init(|| bring).await.clone();
        fetched.map_err(|error| match error.as_ref() {
            StoreError::NotFound { .. } => StoreError::NotFound { path: object.to_string(), source: error.into() },
            _ => StoreError::Generic { store: "DiskCache", source: error.into() },
        })
    }

    fn file(&self, key: Key) -> PathBuf {
        let name = format!("{:032x}-{:08x}", key.0, key.1);
        self.folder.join(&name[..2]).join(name)
    }

    /// The chunk from its file, if it is there and whole.
    fn load(&self, key: Key) -> Option<Bytes> {
        let path = self.file(key);
        let mut file = File::open(&path).ok()?;
        let mut bytes = Vec::new();
        let read = file.read_to_end(&mut bytes);
        if read.is_err() || bytes.get(..HEAD_BYTES) != Some(&head(key, bytes.get(HEAD_BYTES..).unwrap_or_default())[..])
        {
            self.counters.damaged.fetch_add(1, Ordering::Relaxed);
            self.forget(key);
            let _ = fs::remove_file(&path);
            return None;
        }
        let now_ns = self.clock.now().0;
        let (touch, dropped) = {
            let mut index = self.index.lock();
            let touch = index.touch(key, bytes.len() as u64, now_ns);
            (touch, index.shrink(self.limit_bytes))
        };
        self.remove(dropped);
        if touch {
            let _ = file.set_modified(since_epoch(now_ns));
        }
        Some(Bytes::from(bytes).slice(HEAD_BYTES..))
    }

    /// Writes the chunks of `run`, which begins with the first byte of `bytes`.
    fn store(&self, hash: u128, run: Range<u32>, bytes: &Bytes) {
        let parts = match run.start {
            WHOLE if bytes.len() as u64 > self.limit_bytes / WHOLE_SHARE => return,
            WHOLE => vec![(WHOLE, bytes.clone())],
            _ => cut(run, bytes).collect(),
        };
        for (chunk, part) in parts {
            let key = Key(hash, chunk);
            if let Err(error) = self.write(key, &part) {
                self.counters.failures.fetch_add(1, Ordering::Relaxed);
                if !self.warned.swap(true, Ordering::Relaxed) {
                    tracing::warn!(folder = %self.folder.display(), %error, "the cache on disk cannot be written; reads go to the bucket");
                }
                return;
            }
            let dropped = {
                let mut index = self.index.lock();
                index.touch(key, (HEAD_BYTES + part.len()) as u64, self.clock.now().0);
                index.shrink(self.limit_bytes)
            };
            self.remove(dropped);
        }
    }

    fn write(&self, key: Key, bytes: &Bytes) -> std::io::Result<()> {
        let staged = self.folder.join("tmp").join(self.next_file.fetch_add(1, Ordering::Relaxed).to_string());
        let path = self.file(key);
        let written = File::create(&staged).and_then(|mut file| {
            file.write_all(&head(key, bytes))?;
            file.write_all(bytes)?;
            file.set_modified(since_epoch(self.clock.now().0))?;
            match fs::rename(&staged, &path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
                    fs::rename(&staged, &path)
                }
                other => other,
            }
        });
        if written.is_err() {
            let _ = fs::remove_file(&staged);
        }
        written
    }

    fn forget(&self, key: Key) {
        self.index.lock().drop_key(key);
    }

    fn remove(&self, dropped: Vec<Key>) {
        for key in dropped {
            let _ = fs::remove_file(self.file(key));
        }
    }

    /// Finds the files of an earlier process and puts them behind all that is used now, by their last use.
    fn find_files(&self) {
        let mut found = Vec::new();
        let folders = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for folder in folders.filter(|folder| folder.file_name() != "tmp") {
            for file in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                let (Some(key), Ok(meta)) = (key_of(&file.path()), file.metadata()) else { continue };
                found.push((meta.modified().unwrap_or(UNIX_EPOCH), key, meta.len()));
            }
        }
        found.sort_by_key(|(used, _, _)| *used);
        let dropped = {
            let mut index = self.index.lock();
            for (place, (_, key, bytes)) in (i64::MIN..).zip(found) {
                if !index.entries.contains_key(&key) {
                    index.insert(key, Entry { bytes, used: place, touched_ns: 0 });
                }
            }
            index.shrink(self.limit_bytes)
        };
        self.remove(dropped);
    }
}

/// One who waits for a fetch.
struct Flight<'a> {
    cache: &'a DiskCache,
    run: (u128, u32, u32),
    cell: Fetched,
}

impl Drop for Flight<'_> {
    /// Once it is over, the files answer or the next one asks again; so too when all who waited went away.
    fn drop(&mut self) {
        const MAP_AND_THIS: usize = 2;
        let mut fetches = self.cache.fetches.lock();
        let over = self.cell.initialized() || Arc::strong_count(&self.cell) <= MAP_AND_THIS;
        if over && fetches.get(&self.run).is_some_and(|known| Arc::ptr_eq(known, &self.cell)) {
            fetches.remove(&self.run);
        }
    }
}

impl Index {
    /// Notes a use; whether it should be written into the file's times.
    fn touch(&mut self, key: Key, bytes: u64, now_ns: i64) -> bool {
        let before = self.drop_key(key);
        self.uses += 1;
        let due = before.is_none_or(|entry| now_ns.saturating_sub(entry.touched_ns) >= TOUCH_NS);
        let touched_ns = if due { now_ns } else { before.map_or(now_ns, |entry| entry.touched_ns) };
        self.insert(key, Entry { bytes, used: self.uses, touched_ns });
        due
    }

    fn insert(&mut self, key: Key, entry: Entry) {
        self.used_bytes += entry.bytes;
        self.by_use.insert(entry.used, key);
        self.entries.insert(key, entry);
    }

    fn drop_key(&mut self, key: Key) -> Option<Entry> {
        let entry = self.entries.remove(&key)?;
        self.used_bytes -= entry.bytes;
        self.by_use.remove(&entry.used);
        Some(entry)
    }

    /// Drops what was used longest ago until the limit holds; their files are to be removed.
    fn shrink(&mut self, limit_bytes: u64) -> Vec<Key> {
        let mut dropped = Vec::new();
        while self.used_bytes > limit_bytes
            && let Some((_, key)) = self.by_use.first_key_value().map(|(used, key)| (*used, *key))
        {
            self.drop_key(key);
            dropped.push(key);
        }
        dropped
    }
}

fn head(key: Key, bytes: &[u8]) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(&MAGIC);
    head[8..24].copy_from_slice(&key.0.to_le_bytes());
    head[24..28].copy_from_slice(&key.1.to_le_bytes());
    head[28..].copy_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&head[8..]), bytes);
    head[4..8].copy_from_slice(&checksum.to_le_bytes());
    head
}

/// A time of the clock as files have it.
fn since_epoch(ns: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(u64::try_from(ns).unwrap_or(0))
}

fn key_of(path: &FilePath) -> Option<Key> {
    let (object, chunk) = path.file_name()?.to_str()?.split_once('-')?;
    Some(Key(u128::from_str_radix(object, 16).ok()?, u32::from_str_radix(chunk, 16).ok()?))
}

fn chunk_at(byte: u64) -> u32 {
    // Objects have far fewer than 2^32 chunks; whatever lies beyond is never found.
    u32::try_from(byte / CHUNK_BYTES).unwrap_or(WHOLE - 1)
}

fn chunks_of(range: &Range<u64>) -> Range<u32> {
    chunk_at(range.start)..chunk_at(range.end - 1) + 1
}

/// The bytes of a chunk in an object of `length` bytes.
fn chunk_range(chunk: u32, length: u64) -> Range<u64> {
    let start = u64::from(chunk) * CHUNK_BYTES;
    start.min(length)..(start + CHUNK_BYTES).min(length)
}

/// The runs in which `missing`, which ascends, is fetched.
fn runs(missing: &[u32]) -> Vec<Range<u32>> {
    let mut runs: Vec<Range<u32>> = Vec::new();
    for chunk in missing {
        match runs.last_mut() {
            Some(run) if chunk - run.end <= GAP_CHUNKS && chunk + 1 - run.start <= RUN_CHUNKS_MAX => {
                run.end = chunk + 1
            }
            _ => runs.push(*chunk..chunk + 1),
        }
    }
    runs
}

/// The chunks of a run, whose bytes begin with the first chunk.
fn cut(run: Range<u32>, bytes: &Bytes) -> impl Iterator<Item = (u32, Bytes)> {
    let size = usize::try_from(CHUNK_BYTES).unwrap_or(usize::MAX);
    run.zip((0..bytes.len()).step_by(size))
        .map(move |(chunk, start)| (chunk, bytes.slice(start..(start + size).min(bytes.len()))))
}

/// The bytes of `range` out of the chunks that hold it.
fn assemble(object: &Path, range: &Range<u64>, chunks: &BTreeMap<u32, Bytes>) -> StoreResult<Bytes> {
    if range.is_empty() {
        return Ok(Bytes::new());
    }
    let mut parts = Vec::new();
    for chunk in chunks_of(range) {
        let start = u64::from(chunk) * CHUNK_BYTES;
        let within = |byte: u64| usize::try_from(byte.clamp(start, start + CHUNK_BYTES) - start).unwrap_or(usize::MAX);
        let part = chunks.get(&chunk).filter(|part| within(range.end) <= part.len()).ok_or_else(|| {
            let text = format!("`{object}` ends before byte {}", range.end);
            StoreError::Generic { store: "DiskCache", source: text.into() }
        })?;
        parts.push(part.slice(within(range.start)..within(range.end)));
    }
    match parts.as_slice() {
        [one] => Ok(one.clone()),
        _ => Ok(parts.concat().into()),
    }
}

#[cfg(test)]
mod tests;

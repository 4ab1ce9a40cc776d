// Ranges are asked for in lists, also one alone.
#![allow(clippy::single_range_in_vec_init)]

use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use super::*;
use crate::clock::ManualClock;
use crate::model::time::TimestampNs;
use crate::store::{Cause, Store, because};

struct Bed {
    folder: TempDir,
    store: Store,
    clock: ManualClock,
}

impl Bed {
    fn new(limit_bytes: u64) -> Self {
        let (folder, clock) = (tempfile::tempdir().expect("a folder"), ManualClock::at(TimestampNs(NS_PER_S)));
        let store = Store::over(Arc::new(InMemory::new()), "memory://");
        let mut bed = Self { folder, store, clock };
        bed.reopen(limit_bytes);
        bed
    }

    /// A new process over the same folder.
    fn reopen(&mut self, limit_bytes: u64) {
        let folder = self.folder.path().join("cache");
        let cache = DiskCache::open(folder, limit_bytes, "memory://", Arc::new(self.clock.clone())).expect("opens");
        let store = std::mem::replace(&mut self.store, Store::over(Arc::new(InMemory::new()), "none"));
        self.store = store.with_cache(cache);
    }

    fn stats(&self) -> DiskCacheStats {
        self.store.cache().expect("has one").stats()
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for folder in fs::read_dir(self.folder.path().join("cache")).expect("a folder").flatten() {
            files.extend(fs::read_dir(folder.path()).expect("a folder").flatten().map(|file| file.path()));
        }
        files.sort();
        files
    }

    async fn read(&self, path: &Path, bytes: &Bytes, ranges: &[Range<u64>]) {
        let read = self.store.read_block(path, bytes.len() as u64, ranges).await.expect("reads");
        for (range, read) in ranges.iter().zip(read) {
            assert!(read == bytes[range.start as usize..range.end as usize], "{path} {range:?}");
        }
    }
}

fn random_bytes(random: &mut StdRng, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    random.fill(bytes.as_mut_slice());
    bytes.into()
}

fn all(bytes: &Bytes) -> Vec<Range<u64>> {
    vec![0..bytes.len() as u64]
}

#[tokio::test]
async fn any_ranges_come_back_and_the_second_time_without_the_store() {
    let seed = u64::from(std::process::id());
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let bed = Bed::new(1 << 30);
    let chunk = CHUNK_BYTES as usize;
    for length in [1, chunk - 1, chunk, chunk + 1, 7 * chunk + 12_345] {
        let (path, bytes) = (Path::from(format!("t/{length}")), random_bytes(&mut random, length));
        bed.store.put(&path, bytes.clone()).await.expect("writes");
        for _ in 0..5 {
            let mut cuts: Vec<u64> = (0..6).map(|_| random.random_range(0..=length as u64)).collect();
            cuts.sort_unstable();
            let ranges: Vec<Range<u64>> = cuts.chunks(2).map(|pair| pair[0]..pair[1]).collect();
            bed.read(&path, &bytes, &ranges).await;
            let gets = bed.store.calls().gets();
            bed.read(&path, &bytes, &ranges).await;
            assert_eq!(bed.store.calls().gets(), gets, "{ranges:?} of {length}");
        }
    }
    let beyond = bed.store.read_block(&Path::from("t/1"), 10, &[0..10]).await;
    assert!(beyond.is_err(), "an object that is shorter than said is no answer");
}

#[tokio::test]
async fn what_was_written_a_moment_ago_is_not_fetched() {
    let bed = Bed::new(1 << 30);
    let bytes = random_bytes(&mut StdRng::seed_from_u64(1), 3 * CHUNK_BYTES as usize + 5);
    let (block, sidecar) = (Path::from("t/block"), Path::from("t/_index/block.dir"));
    bed.store.put_block(&block, bytes.clone()).await.expect("writes");
    bed.store.put_sidecar(&sidecar, bytes.clone()).await.expect("writes");
    bed.read(&block, &bytes, &all(&bytes)).await;
    assert_eq!(bed.store.read_sidecar(&sidecar).await.expect("reads"), Some(bytes));
    assert_eq!(bed.store.calls().gets(), 0);
    assert_eq!(bed.store.read_sidecar(&Path::from("t/none")).await.expect("reads"), None);
}

#[tokio::test]
async fn a_damaged_file_is_fetched_again() {
    let bed = Bed::new(1 << 30);
    let (path, bytes) = (Path::from("t/block"), random_bytes(&mut StdRng::seed_from_u64(1), 1000));
    bed.store.put_block(&path, bytes.clone()).await.expect("writes");
    let file = bed.files().pop().expect("one file");
    let whole = fs::read(&file).expect("reads");
    let mut damages: Vec<Vec<u8>> =
        [0, 1, HEAD_BYTES - 1, HEAD_BYTES, 500].map(|length| whole[..length].to_vec()).to_vec();
    // Each byte of the head and some of the rest, one bit each.
    for at in (0..HEAD_BYTES).chain([HEAD_BYTES, 700, whole.len() - 1]) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        damages.push(damaged);
    }
    damages.push([whole.as_slice(), b"x"].concat());
    for (n, damaged) in damages.iter().enumerate() {
        fs::write(&file, damaged).expect("writes");
        bed.read(&path, &bytes, &[10..990]).await;
        assert_eq!((bed.store.calls().gets(), bed.stats().damaged_total), (n as u64 + 1, n as u64 + 1));
        assert!(fs::read(&file).expect("reads") == whole, "is kept again");
    }
    // Another object's chunk under this one's name.
    let other = Path::from("t/other");
    bed.store.put_block(&other, Bytes::from(vec![7; 1000])).await.expect("writes");
    let other = bed.files().into_iter().find(|path| *path != file).expect("two files");
    fs::copy(other, &file).expect("copies");
    bed.read(&path, &bytes, &all(&bytes)).await;
}

#[tokio::test]
async fn the_limit_holds_and_what_was_used_last_survives_a_restart() {
    let size = CHUNK_BYTES + HEAD_BYTES as u64;
    let mut bed = Bed::new(4 * size);
    let mut random = StdRng::seed_from_u64(1);
    let blocks: Vec<(Path, Bytes)> =
        (0..6).map(|n| (Path::from(format!("t/{n}")), random_bytes(&mut random, CHUNK_BYTES as usize))).collect();
    for (n, (path, bytes)) in (1..).zip(&blocks) {
        bed.clock.set(TimestampNs(n * NS_PER_S));
        bed.store.put_block(path, bytes.clone()).await.expect("writes");
        assert!(bed.stats().bytes <= 4 * size);
    }
    assert_eq!(bed.files().len(), 4, "the two oldest are gone");
    // The third is used once more, long after it was written.
    bed.clock.set(TimestampNs(3600 * NS_PER_S));
    bed.read(&blocks[2].0, &blocks[2].1, &[5..10]).await;
    assert_eq!(bed.store.calls().gets(), 0);
    bed.reopen(2 * size);
    let begun = Instant::now();
    while bed.files().len() > 2 {
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", bed.files());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(bed.stats().bytes, 2 * size);
    for used in [2, 5] {
        bed.read(&blocks[used].0, &blocks[used].1, &[5..10]).await;
    }
    assert_eq!(bed.store.calls().gets(), 0, "the last written and the last read are there");
    bed.read(&blocks[3].0, &blocks[3].1, &[5..10]).await;
    assert_eq!(bed.store.calls().gets(), 1);
}

#[tokio::test]
async fn many_readers_of_the_same_fetch_once() {
    let bed = Bed::new(1 << 30);
    let cache = bed.store.cache().expect("has one");
    let (path, asked) = (Path::from("t/block"), &AtomicUsize::new(0));
    let started = &tokio::sync::Notify::new();
    let fetch = |range: Range<u64>| async move {
        asked.fetch_add(1, Ordering::SeqCst);
        started.notify_one();
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(Bytes::from(vec![1; usize::try_from(range.end - range.start).expect("fits")]))
    };
    // One who goes away leaves nothing behind.
    let ranges = [0..1000];
    tokio::select! {
        _ = cache.read(&path, 1000, &ranges, true, fetch) => panic!("takes longer"),
        () = started.notified() => {}
    }
    assert_eq!(cache.fetches.lock().len(), 0);
    let readers = (0..16).map(|_| cache.read(&path, 1000, &ranges, true, fetch));
    let read = futures::future::join_all(readers).await;
    assert!(read.into_iter().all(|read| read.expect("reads") == [vec![1; 1000]]));
    assert_eq!(asked.load(Ordering::SeqCst), 2, "the one who went away, and one for all others");
    assert_eq!((cache.fetches.lock().len(), bed.files().len()), (0, 1));
    // A failure is everyone's, and is not kept.
    let fails = |_: Range<u64>| async { Err(StoreError::Generic { store: "test", source: "down".into() }) };
    let other = Path::from("t/other");
    let failed = futures::future::join_all((0..4).map(|_| cache.read(&other, 1000, &ranges, true, fails))).await;
    assert!(failed.iter().all(std::result::Result::is_err));
    cache.read(&other, 1000, &ranges, true, fetch).await.expect("reads");
    assert_eq!(cache.fetches.lock().len(), 0);
}

#[tokio::test]
async fn a_compaction_reads_along_without_pushing_anything_out() {
    let bed = Bed::new(1 << 30);
    let (path, bytes) = (Path::from("t/block"), random_bytes(&mut StdRng::seed_from_u64(1), 1000));
    bed.store.put(&path, bytes.clone()).await.expect("writes");
    because(Cause::Compaction, bed.read(&path, &bytes, &all(&bytes))).await;
    assert_eq!(bed.files().len(), 0);
    bed.read(&path, &bytes, &all(&bytes)).await;
    assert_eq!(bed.files().len(), 1);
}

#[tokio::test]
async fn a_disk_that_takes_nothing_is_no_error_of_a_reader() {
    let bed = Bed::new(1 << 30);
    let (path, bytes) = (Path::from("t/block"), random_bytes(&mut StdRng::seed_from_u64(1), 1000));
    fs::remove_dir_all(bed.folder.path().join("cache")).expect("removes");
    bed.store.put_block(&path, bytes.clone()).await.expect("writes");
    bed.read(&path, &bytes, &all(&bytes)).await;
    assert_eq!(bed.stats().failures_total, 2);
    assert_eq!(bed.store.calls().gets(), 1);
}

#[test]
fn runs_join_what_lies_close_and_are_bounded() {
    assert_eq!(runs(&[]), []);
    assert_eq!(runs(&[1, 2, 3]), [1..4]);
    assert_eq!(runs(&[1, 5, 11]), [1..6, 11..12]);
    let long: Vec<u32> = (0..100).collect();
    assert_eq!(runs(&long), [0..32, 32..64, 64..96, 96..100]);
}

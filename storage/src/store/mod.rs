//! The object store: one door for every byte that leaves the WAL's disk.
//!
//! Owns: [`Store`]: opening by URL, durable local writes, retries, counting. Does not own: paths (`paths`), what objects hold
//! (`table`, `index`).
//!
//! Invariants
//! 1. A put that returned is durable: on a local disk the file and its folders are fsynced.
//! 2. A put that creates fails with `AlreadyExists` only if the object holds other bytes than ours.
//! 3. Listings are sorted by name, and nothing is ever copied or renamed inside the store.
//! 4. A large object of a bucket appears whole or not at all, however often one of its parts had to be sent.

mod bucket;
mod calls;
mod cause;
#[cfg(test)]
mod contract;
mod disk_cache;
mod durable;
#[cfg(test)]
pub mod faulty;
#[cfg(test)]
#[path = "../../../tests/support/gcs.rs"]
pub(crate) mod gcs;
pub(crate) mod parts;
mod patient;
mod watched;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use crate::clock::{Chance, SystemChance};
use crate::error::{Error, Kind, Result};

pub use calls::{CallCount, Calls, Operation, Outcome};
pub(crate) use cause::{Attributed, Attribution, instead};
pub use cause::{Cause, because};
pub use disk_cache::{DiskCache, DiskCacheStats};
pub use patient::Patience;

/// Objects of a bucket larger than this are sent in parts, so that a failure costs one part.
const WHOLE_BYTES_MAX: usize = 16 << 20;
/// Size of such a part; the clouds take at least 5 MiB.
const PART_BYTES: usize = 8 << 20;
/// Parts on their way at once.
const PARTS_MAX: usize = 4;

/// Settings of a store that are not in its URL.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Base URL of a server that speaks the Google Cloud Storage protocol and asks for no credentials, instead of Google's;
    /// the variable `STORAGE_EMULATOR_HOST` stands in when absent.
    pub gcs_endpoint: Option<String>,
    /// File with the key of a Google service account, before whatever the environment names.
    pub gcs_credentials: Option<PathBuf>,
    /// How long requests to a bucket may take.
    pub patience: Patience,
    /// Spreads the pauses between tries.
    pub chance: Arc<dyn Chance>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            gcs_endpoint: None,
            gcs_credentials: None,
            patience: Patience::default(),
            chance: Arc::new(SystemChance),
        }
    }
}

/// An opened object store. Clones are the same store.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    calls: Arc<Calls>,
    url: String,
    is_bucket: bool,
    /// The folder beneath, if it is one.
    folder: Option<durable::DurableFolder>,
    /// Of immutable objects.
    cache: Option<Arc<DiskCache>>,
}

impl Store {
    /// Opens `url`: a folder's path, `file://`, `memory://`, `gs://`, `s3://` or `az://` with an optional prefix.
    /// Credentials come from the environment the way each cloud's own tools read them.
    pub fn open(url: &str, options: &StoreOptions) -> Result<Self> {
        match url.split_once("://") {
            None => Self::open_folder(PathBuf::from(url)),
            Some(("file", _)) => {
                let parsed = parse(url)?;
                let path = parsed.to_file_path().map_err(|()| wrong_url(url, "it names no local path"))?;
                Self::open_folder(path)
            }
            Some(("memory", _)) => Ok(Self::over(Arc::new(InMemory::new()), url)),
            Some(("gs" | "s3" | "az" | "azure" | "abfs" | "abfss", _)) => {
                let parsed = parse(url)?;
                let calls = Arc::new(Calls::default());
                let objects = bucket::open(url, &parsed, options, &calls)?;
                let objects = Arc::new(watched::Watched::new(objects, None));
                Ok(Self { objects, calls, url: url.to_owned(), is_bucket: true, folder: None, cache: None })
            }
            Some((scheme, _)) => {
                Err(wrong_url(url, &format!("the scheme `{scheme}` is not one of file, memory, gs, s3, az")))
            }
        }
    }

    /// As [`Store::open`], but a folder that does not exist is an error and is not created.
    pub fn open_existing(url: &str, options: &StoreOptions) -> Result<Self> {
        let folder = match url.split_once("://") {
            None => Some(PathBuf::from(url)),
            Some(("file", _)) => parse(url)?.to_file_path().ok(),
            Some(_) => None,
        };
        match folder.filter(|folder| !folder.is_dir()) {
            Some(folder) => Err(wrong_url(url, &format!("there is no folder {}", folder.display()))),
            None => Self::open(url, options),
        }
    }

    fn open_folder(path: PathBuf) -> Result<Self> {
        let refused = |source: std::io::Error| {
            Error::new(Kind::Unavailable, format!("the store's folder `{}` cannot be used", path.display()))
                .with_source(source)
        };
        crate::wal::segment::create_folder(&path).map_err(refused)?;
        let local = durable::DurableFolder::new(&path)?;
        let folder = Some(local.clone());
        Ok(Self { folder, ..Self::over(Arc::new(local), &path.display().to_string()) })
    }

    /// A store over `objects`, for tests that bring their own.
    pub fn over(objects: Arc<dyn ObjectStore>, url: &str) -> Self {
        let calls = Arc::new(Calls::default());
        let objects = Arc::new(watched::Watched::new(objects, Some(Arc::clone(&calls))));
        Self { objects, calls, url: url.to_owned(), is_bucket: false, folder: None, cache: None }
    }

    /// Removes what killed processes left half-written; how many files. A bucket has no such files.
    pub async fn sweep(&self) -> Result<u64> {
        let Some(folder) = self.folder.clone() else { return Ok(0) };
        let swept = tokio::task::spawn_blocking(move || folder.sweep()).await;
        Ok(swept.map_err(|source| Error::bug("sweeping the store stopped").with_source(source))??)
    }

    /// The objects themselves.
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// How often each operation was called.
    pub fn calls(&self) -> &Arc<Calls> {
        &self.calls
    }

    /// Where the store is, as it was opened.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Keeps parts of immutable objects in `cache`.
    #[must_use]
    pub fn with_cache(mut self, cache: Arc<DiskCache>) -> Self {
        self.cache = Some(cache);
        self
    }

    /// The cache of immutable objects, if it has one.
    pub fn cache(&self) -> Option<&Arc<DiskCache>> {
        self.cache.as_ref()
    }

    /// [`Store::put`] of a block, which never changes from here on and is read by ranges.
    pub async fn put_block(&self, path: &Path, bytes: Bytes) -> Result<()> {
        self.put_immutable(path, bytes, false).await
    }

    /// [`Store::put`] of a sidecar, which never changes from here on and is read whole.
    pub async fn put_sidecar(&self, path: &Path, bytes: Bytes) -> Result<()> {
        self.put_immutable(path, bytes, true).await
    }

    async fn put_immutable(&self, path: &Path, bytes: Bytes, whole: bool) -> Result<()> {
        self.put(path, bytes.clone()).await?;
        if let Some(cache) = &self.cache {
            cache.keep(path, bytes, whole).await;
        }
        Ok(())
    }

    /// `ranges` of a block of `length` bytes.
    pub async fn read_block(
        &self,
        path: &Path,
        length: u64,
        ranges: &[Range<u64>],
    ) -> object_store::Result<Vec<Bytes>> {
        match &self.cache {
            None => self.objects.get_ranges(path, ranges).await,
            Some(cache) => {
                let fetch = |range| async move { self.objects.get_range(path, range).await };
                cache.read(path, length, ranges, keeps_what_it_reads(), fetch).await
            }
        }
    }

    /// A sidecar whole; `None` if there is none.
    pub async fn read_sidecar(&self, path: &Path) -> Result<Option<Bytes>> {
        match &self.cache {
            None => self.get(path).await,
            Some(cache) => {
                let fetch = async { self.objects.get(path).await?.bytes().await };
                let read = cache.read_whole(path, keeps_what_it_reads(), fetch).await;
                read.map_err(|source| refused("reading", path, source))
            }
        }
    }

    /// Whether it is a cloud's bucket, where calls cost money and time.
    pub fn is_bucket(&self) -> bool {
        self.is_bucket
    }

    /// Writes an object whole, over whatever is there.
    pub async fn put(&self, path: &Path, bytes: Bytes) -> Result<()> {
        let put = if self.is_bucket && bytes.len() > WHOLE_BYTES_MAX {
            self.put_parts(path, &bytes).await
        } else {
            self.objects.put(path, PutPayload::from_bytes(bytes)).await.map(|_| ())
        };
        put.map_err(|source| refused("writing", path, source))
    }

    async fn put_parts(&self, path: &Path, bytes: &Bytes) -> object_store::Result<()> {
        let mut upload = self.objects.put_multipart(path).await?;
        let parts = (0..bytes.len()).step_by(PART_BYTES).map(|start| {
            let end = (start + PART_BYTES).min(bytes.len());
            upload.put_part(PutPayload::from_bytes(bytes.slice(start..end)))
        });
        let parts: Vec<_> = parts.collect();
        let sent = futures::stream::iter(parts).buffer_unordered(PARTS_MAX).try_collect::<()>().await;
        let failed = match sent {
            Ok(()) => match upload.complete().await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            },
            Err(error) => error,
        };
        // The answer to the completion may be lost; then a second one finds no such upload, but the object is there.
        match self.objects.head(path).await {
            Ok(there) if there.size == bytes.len() as u64 => return Ok(()),
            _ => {}
        }
        if let Err(error) = upload.abort().await {
            tracing::warn!(%path, %error, "the parts of an upload that failed are left in the bucket");
        }
        Err(failed)
    }

    /// Reads an object whole; `None` if there is none.
    pub async fn get(&self, path: &Path) -> Result<Option<Bytes>> {
        let read = async { self.objects.get(path).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(refused("reading", path, source)),
        }
    }

    /// Deletes an object; one that is not there is fine.
    pub async fn delete(&self, path: &Path) -> Result<()> {
        match self.objects.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(refused("deleting", path, source)),
        }
    }
}

/// What a compaction reads is about to go, and would push out what queries read.
fn keeps_what_it_reads() -> bool {
    !cause::current().is_some_and(Cause::is_background)
}

fn refused(doing: &str, path: &Path, source: object_store::Error) -> Error {
    let kind = match source {
        object_store::Error::NotFound { .. } => Kind::Corrupt,
        _ => Kind::Unavailable,
    };
    Error::new(kind, format!("{doing} the object `{path}` failed")).with_source(source)
}

fn parse(url: &str) -> Result<url::Url> {
    url::Url::parse(url).map_err(|source| wrong_url(url, "it is not a URL").with_source(source))
}

fn wrong_url(url: &str, why: &str) -> Error {
    Error::invalid(format!("the store `{url}` cannot be opened: {why}"))
}

#[cfg(test)]
mod tests {
    use object_store::PutMode;

    use super::faulty::{Fault, FaultyStore, Operation};
    use super::*;

    #[tokio::test]
    async fn every_kind_of_store_opens_by_its_url() {
        let folder = tempfile::tempdir().expect("a folder");
        let inside = folder.path().join("a b/c");
        for url in [
            "memory://".to_owned(),
            inside.display().to_string(),
            url::Url::from_file_path(&inside).expect("absolute").to_string(),
        ] {
            let store = Store::open(&url, &StoreOptions::default()).expect("opens");
            let path = Path::from("x/y/date=2026-01-01/z");
            store.put(&path, Bytes::from_static(b"1")).await.expect("writes");
            assert_eq!(store.get(&path).await.expect("reads"), Some(Bytes::from_static(b"1")));
            store.delete(&path).await.expect("deletes");
            store.delete(&path).await.expect("deletes again");
            assert_eq!(store.get(&path).await.expect("reads"), None);
        }
        let options = StoreOptions { gcs_endpoint: Some("http://127.0.0.1:1/".into()), ..StoreOptions::default() };
        Store::open("gs://bucket/a/b", &options).expect("opens without a call");
        assert_eq!(Store::open("ftp://x", &options).expect_err("unknown").kind(), Kind::Invalid);
    }

    #[test]
    fn a_store_that_is_only_looked_at_is_not_created() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = folder.path().join("x");
        let url = url::Url::from_file_path(&missing).expect("absolute").to_string();
        for url in [missing.display().to_string(), url] {
            let error = Store::open_existing(&url, &StoreOptions::default()).expect_err("is not there");
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(!missing.exists());
        }
        let there = folder.path().display().to_string();
        Store::open_existing(&there, &StoreOptions::default()).expect("opens");
    }

    #[tokio::test]
    async fn listings_of_a_folder_are_sorted() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().display().to_string(), &StoreOptions::default()).expect("opens");
        for n in [5, 3, 9, 1, 7, 2] {
            store.put(&Path::from(format!("log/{n:020}.json")), Bytes::new()).await.expect("writes");
        }
        let offset = Path::from(format!("log/{:020}.json", 2));
        let list = store.objects().list_with_offset(Some(&Path::from("log")), &offset);
        let names: Vec<String> = list.map_ok(|meta| meta.location.to_string()).try_collect().await.expect("lists");
        assert_eq!(names, [3, 5, 7, 9].map(|n| format!("log/{n:020}.json")));
    }

    #[tokio::test]
    async fn create_tells_our_own_object_from_a_lost_race() {
        let faulty = Arc::new(FaultyStore::new(Arc::new(InMemory::new())));
        let store = Store::over(faulty.clone(), "memory://");
        let path = Path::from("log/0.json");
        let create = |bytes: &'static [u8]| {
            let objects = Arc::clone(store.objects());
            let path = path.clone();
            async move { objects.put_opts(&path, PutPayload::from_static(bytes), PutMode::Create.into()).await }
        };
        faulty.inject(Fault::lose_response(Operation::Put, "log/"));
        create(b"ours").await.expect("the write landed, only its answer was lost");
        create(b"ours").await.expect("the same content is ours");
        let lost = create(b"theirs").await.expect_err("another content was there first");
        assert!(matches!(lost, object_store::Error::AlreadyExists { .. }), "{lost}");
        assert_eq!(store.get(&path).await.expect("reads"), Some(Bytes::from_static(b"ours")));
    }

    #[tokio::test]
    async fn a_failed_create_reports_failure() {
        let faulty = Arc::new(FaultyStore::new(Arc::new(InMemory::new())));
        let store = Store::over(faulty.clone(), "memory://");
        faulty.inject(Fault::fail(Operation::Put, ""));
        let path = Path::from("x");
        let failed = store.objects().put_opts(&path, PutPayload::from_static(b"1"), PutMode::Create.into()).await;
        assert!(matches!(failed, Err(object_store::Error::Generic { .. })));
        assert_eq!(store.get(&path).await.expect("reads"), None);
        assert_eq!(store.calls().puts(), 1);
    }

    /// Facts of the release we are bound to; when one changes, the wrapper can shrink.
    #[tokio::test]
    async fn known_traps_of_the_local_backend() {
        let folder = tempfile::tempdir().expect("a folder");
        let local = object_store::local::LocalFileSystem::new_with_prefix(folder.path()).expect("opens");
        let update = PutMode::Update(object_store::UpdateVersion { e_tag: None, version: None });
        let refused = local.put_opts(&Path::from("x"), PutPayload::new(), update.into()).await;
        assert!(matches!(refused, Err(object_store::Error::NotImplemented { .. })));
    }

    #[tokio::test]
    async fn multipart_on_a_folder_is_whole_or_absent() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().display().to_string(), &StoreOptions::default()).expect("opens");
        let path = Path::from("t/checkpoint");
        let mut upload = store.objects().put_multipart(&path).await.expect("starts");
        let (first, second) = (upload.put_part("ab".into()), upload.put_part("cd".into()));
        second.await.expect("takes a part");
        first.await.expect("takes a part");
        assert_eq!(store.get(&path).await.expect("reads"), None);
        upload.complete().await.expect("completes");
        assert_eq!(store.get(&path).await.expect("reads"), Some(Bytes::from_static(b"abcd")));
    }
}

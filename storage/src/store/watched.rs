//! The wrapper around every backend: counts calls, sorts listings, recognises our own writes.
//!
//! Owns: [`Calls`] and the answer to "was that create lost, or was it us?". Does not own: durability (`durable`).

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// How often each operation was called; every number only grows.
#[derive(Debug, Default)]
pub struct Calls {
    puts: AtomicU64,
    put_bytes: AtomicU64,
    gets: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
    failures: AtomicU64,
}

impl Calls {
    /// Objects written, successfully or not.
    pub fn puts(&self) -> u64 {
        self.puts.load(Ordering::Relaxed)
    }

    /// Bytes handed over for writing.
    pub fn put_bytes(&self) -> u64 {
        self.put_bytes.load(Ordering::Relaxed)
    }

    /// Reads of objects or of ranges of one.
    pub fn gets(&self) -> u64 {
        self.gets.load(Ordering::Relaxed)
    }

    /// Listings.
    pub fn lists(&self) -> u64 {
        self.lists.load(Ordering::Relaxed)
    }

    /// Objects deleted.
    pub fn deletes(&self) -> u64 {
        self.deletes.load(Ordering::Relaxed)
    }

    /// Operations that failed for another reason than "not found" or "already exists".
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    fn outcome<T>(&self, result: Result<T>) -> Result<T> {
        let failed = result.as_ref().err().is_some_and(|error| {
            !matches!(error, Error::NotFound { .. } | Error::AlreadyExists { .. } | Error::NotModified { .. })
        });
        if failed {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        result
    }
}

#[derive(Debug)]
pub(super) struct Watched {
    inner: Arc<dyn ObjectStore>,
    calls: Arc<Calls>,
}

impl Watched {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, calls: Arc<Calls>) -> Self {
        Self { inner, calls }
    }

    /// Decides what a failed create means by reading the object: our bytes are there (an answer was lost and the
    /// write or its retry met the first one), someone else's are there, or nothing is. Sound because whatever we
    /// create holds an id of its own, so that two writers never create the same bytes.
    ///
    /// Our bytes alone do not tell that they are durable: a folder may hold a name whose fsync failed. So the create is
    /// repeated until the backend itself says that the object exists.
    async fn settle_create(&self, location: &Path, payload: &PutPayload, error: Error) -> Result<PutResult> {
        if matches!(error, Error::NotImplemented { .. } | Error::NotSupported { .. } | Error::InvalidPath { .. }) {
            return Err(error);
        }
        let there = async { self.inner.get(location).await?.bytes().await };
        match there.await {
            Ok(bytes) if same(&bytes, payload) => {
                let durable = matches!(error, Error::AlreadyExists { .. }) || {
                    let again = self.inner.put_opts(location, payload.clone(), PutMode::Create.into()).await;
                    matches!(again, Ok(_) | Err(Error::AlreadyExists { .. }))
                };
                if durable { Ok(PutResult { e_tag: None, version: None }) } else { Err(error) }
            }
            Ok(_) => Err(Error::AlreadyExists { path: location.to_string(), source: error.into() }),
            Err(_) => Err(error),
        }
    }
}

fn same(bytes: &Bytes, payload: &PutPayload) -> bool {
    let mut rest: &[u8] = bytes;
    bytes.len() == payload.content_length()
        && payload.iter().all(|part| match rest.split_at_checked(part.len()) {
            Some((head, tail)) => {
                rest = tail;
                head == part.as_ref()
            }
            None => false,
        })
}

impl std::fmt::Display for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

fn sorted(list: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
    let collected = async move {
        let mut all: Vec<ObjectMeta> = list.try_collect().await?;
        all.sort_by(|a, b| a.location.cmp(&b.location));
        Ok::<_, Error>(stream::iter(all.into_iter().map(Ok)))
    };
    stream::once(collected).try_flatten().boxed()
}

#[async_trait]
impl ObjectStore for Watched {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.calls.puts.fetch_add(1, Ordering::Relaxed);
        self.calls.put_bytes.fetch_add(payload.content_length() as u64, Ordering::Relaxed);
        let create = matches!(opts.mode, PutMode::Create);
        let ours = payload.clone();
        match self.calls.outcome(self.inner.put_opts(location, payload, opts).await) {
            Err(error) if create => self.settle_create(location, &ours, error).await,
            other => other,
        }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.calls.puts.fetch_add(1, Ordering::Relaxed);
        self.calls.outcome(self.inner.put_multipart_opts(location, opts).await)
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.calls.gets.fetch_add(1, Ordering::Relaxed);
        self.calls.outcome(self.inner.get_opts(location, options).await)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.calls.gets.fetch_add(1, Ordering::Relaxed);
        self.calls.outcome(self.inner.get_ranges(location, ranges).await)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let calls = Arc::clone(&self.calls);
        let counted = locations.inspect_ok(move |_| {
            calls.deletes.fetch_add(1, Ordering::Relaxed);
        });
        self.inner.delete_stream(counted.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.calls.lists.fetch_add(1, Ordering::Relaxed);
        sorted(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.calls.lists.fetch_add(1, Ordering::Relaxed);
        sorted(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.calls.lists.fetch_add(1, Ordering::Relaxed);
        let mut list = self.calls.outcome(self.inner.list_with_delimiter(prefix).await)?;
        list.objects.sort_by(|a, b| a.location.cmp(&b.location));
        list.common_prefixes.sort();
        Ok(list)
    }

    /// Never: on Google Cloud Storage this release of the client has the two modes of copy swapped.
    async fn copy_opts(&self, from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        Err(Error::NotSupported { source: format!("copying `{from}`: objects are never copied").into() })
    }
}

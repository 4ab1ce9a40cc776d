//! The wrapper around every backend: sorts listings, recognises our own writes, counts the calls of backends without HTTP.
//!
//! Owns: the answer to "was that create lost, or was it us?". Does not own: durability (`durable`), the counting of requests
//! to buckets (`patient`).

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::calls::{Call, Calls, Operation, Outcome};

/// Deletions on their way at once.
const DELETES_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct Watched {
    inner: Arc<dyn ObjectStore>,
    /// `None` where requests are counted beneath.
    calls: Option<Arc<Calls>>,
}

impl Watched {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, calls: Option<Arc<Calls>>) -> Self {
        Self { inner, calls }
    }

    fn begin(&self, operation: Operation) -> Option<Call> {
        self.calls.as_ref().map(|calls| calls.begin(operation))
    }

    /// Decides what a failed create means by reading the object: our bytes are there (an answer was lost and the
    /// write or its retry met the first one), someone else's are there, or nothing is. Sound because whatever we
    /// create holds an id of its own, so that two writers never create the same bytes.
    ///
    /// An object that is said to exist and cannot be read leaves the outcome unknown; so does one that is not there, which a
    /// create that was refused for another create under way may leave.
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
            Err(unread) if matches!(error, Error::AlreadyExists { .. }) => {
                Err(Error::Generic { store: "Watched", source: unread.into() })
            }
            Err(_) => Err(error),
        }
    }
}

/// Ends the count of a call as its result says.
fn end<T>(call: Option<Call>, result: Result<T>) -> Result<T> {
    if let Some(call) = call {
        call.end(match &result {
            Ok(_) => Outcome::Ok,
            Err(Error::NotFound { .. }) => Outcome::NotFound,
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. }) => {
                Outcome::Exists
            }
            Err(_) => Outcome::Failed,
        });
    }
    result
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

fn sorted(list: BoxStream<'static, Result<ObjectMeta>>, call: Option<Call>) -> BoxStream<'static, Result<ObjectMeta>> {
    let collected = async move {
        let mut all: Vec<ObjectMeta> = end(call, list.try_collect().await)?;
        all.sort_by(|a, b| a.location.cmp(&b.location));
        Ok::<_, Error>(stream::iter(all.into_iter().map(Ok)))
    };
    stream::once(collected).try_flatten().boxed()
}

#[async_trait]
impl ObjectStore for Watched {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let call = self.begin(Operation::Put);
        call.iter().for_each(|call| call.sent(payload.content_length()));
        let create = matches!(opts.mode, PutMode::Create);
        let ours = payload.clone();
        match end(call, self.inner.put_opts(location, payload, opts).await) {
            Err(error) if create => self.settle_create(location, &ours, error).await,
            other => other,
        }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        end(self.begin(Operation::Put), self.inner.put_multipart_opts(location, opts).await)
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let call = self.begin(if options.head { Operation::Head } else { Operation::Get });
        let mut result = self.inner.get_opts(location, options).await;
        if let Ok(result) = &mut result {
            // The library's wrapper for prefixes leaves the prefix in the name.
            result.meta.location = location.clone();
        }
        if let (Some(call), Ok(result)) = (&call, &result) {
            call.received(usize::try_from(result.range.end - result.range.start).unwrap_or(usize::MAX));
        }
        end(call, result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let call = self.begin(Operation::Get);
        let result = self.inner.get_ranges(location, ranges).await;
        if let (Some(call), Ok(all)) = (&call, &result) {
            call.received(all.iter().map(Bytes::len).sum());
        }
        end(call, result)
    }

    /// An object that is not there counts as deleted: a deletion whose answer was lost meets that when it is tried again.
    /// One by one, since only one of the clouds takes several at once, and it bills neither.
    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, calls) = (Arc::clone(&self.inner), self.calls.clone());
        let delete = move |location: Result<Path>| {
            let (inner, calls) = (Arc::clone(&inner), calls.clone());
            async move {
                let location = location?;
                let call = calls.map(|calls| calls.begin(Operation::Delete));
                match end(call, inner.delete(&location).await) {
                    Ok(()) | Err(Error::NotFound { .. }) => Ok(location),
                    Err(error) => Err(error),
                }
            }
        };
        locations.map(delete).buffered(DELETES_MAX).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        sorted(self.inner.list(prefix), self.begin(Operation::List))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        sorted(self.inner.list_with_offset(prefix, offset), self.begin(Operation::List))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut list = end(self.begin(Operation::List), self.inner.list_with_delimiter(prefix).await)?;
        list.objects.sort_by(|a, b| a.location.cmp(&b.location));
        list.common_prefixes.sort();
        Ok(list)
    }

    /// Never: on Google Cloud Storage this release of the client has the two modes of copy swapped.
    async fn copy_opts(&self, from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        Err(Error::NotSupported { source: format!("copying `{from}`: objects are never copied").into() })
    }
}

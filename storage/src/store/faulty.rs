//! A store that fails on purpose, by a script.
//!
//! Owns: the script and its matching. Does not own: the objects, which lie in the store beneath.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

/// What a fault waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Writes.
    Put,
    /// Reads.
    Get,
    /// Listings.
    List,
}

/// One misfortune, used up when it strikes.
#[derive(Clone, Debug)]
pub struct Fault {
    operation: Operation,
    path_contains: String,
    lands: bool,
}

impl Fault {
    /// The next `operation` on a path that contains `path` fails and has no effect.
    pub fn fail(operation: Operation, path: &str) -> Self {
        Self { operation, path_contains: path.to_owned(), lands: false }
    }

    /// The next `operation` on a path that contains `path` takes effect, but its answer is an error.
    pub fn lose_response(operation: Operation, path: &str) -> Self {
        Self { operation, path_contains: path.to_owned(), lands: true }
    }
}

/// Wraps a store; faults strike in the order they were injected, each once.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    script: Mutex<VecDeque<Fault>>,
}

impl FaultyStore {
    /// A store without faults yet.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, script: Mutex::default() }
    }

    /// Adds a fault to the script.
    pub fn inject(&self, fault: Fault) {
        self.script.lock().push_back(fault);
    }

    fn strike(&self, operation: Operation, path: &str) -> Option<Fault> {
        let mut script = self.script.lock();
        let at = script.iter().position(|f| f.operation == operation && path.contains(&f.path_contains))?;
        script.remove(at)
    }
}

fn injected() -> Error {
    Error::Generic { store: "FaultyStore", source: "an injected fault".into() }
}

impl std::fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FaultyStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        match self.strike(Operation::Put, location.as_ref()) {
            None => self.inner.put_opts(location, payload, opts).await,
            Some(fault) => {
                if fault.lands {
                    self.inner.put_opts(location, payload, opts).await?;
                }
                Err(injected())
            }
        }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match self.strike(Operation::Get, location.as_ref()) {
            None => self.inner.get_opts(location, options).await,
            Some(_) => Err(injected()),
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.strike(Operation::List, prefix.map(AsRef::as_ref).unwrap_or_default()) {
            None => self.inner.list(prefix),
            Some(_) => futures::stream::once(async { Err(injected()) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

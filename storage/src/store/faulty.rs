//! A store that fails on purpose, by a script or by chance.
//!
//! Owns: the script and its matching, the lots. Does not own: the objects, which lie in the store beneath.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

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

/// Misfortune by chance, of any operation.
#[derive(Debug)]
pub struct Chaos {
    random: StdRng,
    fail: f64,
    lose: f64,
    slow: f64,
}

/// The longest that a slow operation takes.
const SLOW_MS_MAX: u64 = 5;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Luck {
    Good,
    /// No effect, and an error.
    Fails,
    /// It takes effect, and its answer is an error.
    Lost,
}

impl Chaos {
    /// How likely it is that an operation fails, loses its answer, is slow; each between 0 and 1.
    pub fn new(seed: u64, fail: f64, lose: f64, slow: f64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), fail, lose, slow }
    }
}

/// Wraps a store; faults strike in the order they were injected, each once.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    script: Mutex<VecDeque<Fault>>,
    chaos: Mutex<Option<Chaos>>,
}

impl FaultyStore {
    /// A store without faults yet.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, script: Mutex::default(), chaos: Mutex::default() }
    }

    /// Adds a fault to the script.
    pub fn inject(&self, fault: Fault) {
        self.script.lock().push_back(fault);
    }

    /// Lets chance strike from here on, or no more.
    pub fn set_chaos(&self, chaos: Option<Chaos>) {
        *self.chaos.lock() = chaos;
    }

    /// Draws the lot of an operation, waiting first if it is to be slow.
    async fn luck(&self) -> Luck {
        let (luck, pause) = self.draw();
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        luck
    }

    fn draw(&self) -> (Luck, Option<Duration>) {
        let mut chaos = self.chaos.lock();
        let Some(Chaos { random, fail, lose, slow }) = chaos.as_mut() else { return (Luck::Good, None) };
        let pause = random.random_bool(*slow).then(|| Duration::from_millis(random.random_range(0..=SLOW_MS_MAX)));
        let luck = match random.random::<f64>() {
            lot if lot < *fail => Luck::Fails,
            lot if lot < *fail + *lose => Luck::Lost,
            _ => Luck::Good,
        };
        (luck, pause)
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
            None => match self.luck().await {
                Luck::Good => self.inner.put_opts(location, payload, opts).await,
                Luck::Fails => Err(injected()),
                Luck::Lost => self.inner.put_opts(location, payload, opts).await.and(Err(injected())),
            },
            Some(fault) => {
                if fault.lands {
                    self.inner.put_opts(location, payload, opts).await?;
                }
                Err(injected())
            }
        }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        match self.luck().await {
            Luck::Good => self.inner.put_multipart_opts(location, opts).await,
            _ => Err(injected()),
        }
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let struck = self.strike(Operation::Get, location.as_ref()).is_some();
        match self.luck().await {
            Luck::Good if !struck => self.inner.get_opts(location, options).await,
            _ => Err(injected()),
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        // One lot for all of them: none is deleted, or all are and nobody hears of it.
        match self.draw().0 {
            Luck::Good => self.inner.delete_stream(locations),
            Luck::Fails => locations.map(|_| Err(injected())).boxed(),
            Luck::Lost => self.inner.delete_stream(locations).map(|_| Err(injected())).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let struck = self.strike(Operation::List, prefix.map(AsRef::as_ref).unwrap_or_default()).is_some();
        match self.draw().0 {
            Luck::Good if !struck => self.inner.list(prefix),
            _ => futures::stream::once(async { Err(injected()) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        match self.luck().await {
            Luck::Good => self.inner.list_with_delimiter(prefix).await,
            _ => Err(injected()),
        }
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

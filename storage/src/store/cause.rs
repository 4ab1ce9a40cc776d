//! Why the store is called.
//!
//! Owns: [`Cause`], which travels with the task that calls, and [`Attributed`], which carries it across the threads of the
//! library that reads tables' logs. Does not own: counting (`calls`).
//!
//! Invariant: the outermost cause stands: a compaction that reads a footer counts as compaction, not as query.

use std::fmt::{Debug, Display, Formatter};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

/// What a call of the store serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// None of the others.
    Other,
    /// Opening: marks and the tables' newest versions.
    Open,
    /// A read-only process looks for new versions.
    Refresh,
    /// A flush writes blocks and sidecars.
    Flush,
    /// A log entry is written and read back.
    Commit,
    /// A table's log is checkpointed and cleaned.
    Checkpoint,
    /// Small blocks are merged.
    Compaction,
    /// Files that nobody needs are deleted.
    Vacuum,
    /// A query loads a table's version.
    QueryLog,
    /// A query reads a footer.
    QueryFooter,
    /// A query reads a sidecar.
    QuerySidecar,
    /// A query reads rows.
    QueryRows,
}

impl Cause {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Other,
        Self::Open,
        Self::Refresh,
        Self::Flush,
        Self::Commit,
        Self::Checkpoint,
        Self::Compaction,
        Self::Vacuum,
        Self::QueryLog,
        Self::QueryFooter,
        Self::QuerySidecar,
        Self::QueryRows,
    ];

    /// As it is labelled in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Open => "open",
            Self::Refresh => "refresh",
            Self::Flush => "flush",
            Self::Commit => "commit",
            Self::Checkpoint => "checkpoint",
            Self::Compaction => "compaction",
            Self::Vacuum => "vacuum",
            Self::QueryLog => "query_log",
            Self::QueryFooter => "query_footer",
            Self::QuerySidecar => "query_sidecar",
            Self::QueryRows => "query_rows",
        }
    }

    /// Whether work of this kind has tasks of its own, so that what it does counts as its own.
    pub(super) fn is_background(self) -> bool {
        matches!(self, Self::Compaction | Self::Vacuum)
    }
}

tokio::task_local! {
    static CAUSE: Cause;
}

/// The cause of what this task does now.
pub(crate) fn current() -> Option<Cause> {
    CAUSE.try_with(|cause| *cause).ok()
}

/// Runs `work` because of `cause`, unless an outer cause is named already. It does not pass over to spawned tasks.
pub async fn because<F: Future>(cause: Cause, work: F) -> F::Output {
    match current() {
        Some(_) => work.await,
        None => CAUSE.scope(cause, work).await,
    }
}

/// Runs `work` because of `cause`, also inside of another; only compaction and vacuum keep their name.
pub(crate) async fn instead<F: Future>(cause: Cause, work: F) -> F::Output {
    match current() {
        Some(outer) if outer.is_background() => work.await,
        _ => CAUSE.scope(cause, work).await,
    }
}

/// The cause of a run of calls that other threads make: those of a table's log, which does one thing at a time.
#[derive(Debug, Default)]
pub(crate) struct Attribution(AtomicUsize);

impl Attribution {
    /// What is called from here on is called because of what this task does now, or of `otherwise`.
    pub(crate) fn note(&self, otherwise: Cause) {
        self.0.store(current().unwrap_or(otherwise) as usize, Ordering::Relaxed);
    }

    fn cause(&self) -> Cause {
        Cause::ALL.get(self.0.load(Ordering::Relaxed)).copied().unwrap_or(Cause::Other)
    }
}

/// A store whose calls have the noted cause, whatever thread makes them.
pub(crate) struct Attributed {
    pub(crate) inner: Arc<dyn ObjectStore>,
    pub(crate) attribution: Arc<Attribution>,
}

impl Attributed {
    async fn scope<F: Future>(&self, call: F) -> F::Output {
        CAUSE.scope(self.attribution.cause(), call).await
    }

    fn stream<T: 'static>(&self, mut items: BoxStream<'static, T>) -> BoxStream<'static, T> {
        let cause = self.attribution.cause();
        futures::stream::poll_fn(move |task| CAUSE.sync_scope(cause, || items.poll_next_unpin(task))).boxed()
    }
}

impl Debug for Attributed {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        Debug::fmt(&self.inner, f)
    }
}

impl Display for Attributed {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        Display::fmt(&self.inner, f)
    }
}

#[async_trait]
impl ObjectStore for Attributed {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.scope(self.inner.put_opts(location, payload, opts)).await
    }

    /// The parts count as calls of whoever sends them.
    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.scope(self.inner.put_multipart_opts(location, opts)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.scope(self.inner.get_opts(location, options)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.stream(self.inner.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.stream(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.stream(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.scope(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_outermost_cause_stands() {
        assert_eq!(current(), None);
        let inner = because(Cause::Compaction, async {
            (because(Cause::QueryRows, async { current() }).await, instead(Cause::Commit, async { current() }).await)
        });
        assert_eq!(inner.await, (Some(Cause::Compaction), Some(Cause::Compaction)));
        let inner = because(Cause::Flush, instead(Cause::Commit, async { current() }));
        assert_eq!(inner.await, Some(Cause::Commit));
    }

    #[test]
    fn numbers_are_places() {
        assert!(Cause::ALL.iter().enumerate().all(|(place, cause)| *cause as usize == place));
    }
}

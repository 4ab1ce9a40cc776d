//! Running queries: bounded in number, memory and time, on threads of their own, stopped when the caller leaves.
//!
//! Owns: the places for queries, their memory, the compute runtime. Does not own: what a query is (`query`).
//!
//! Invariants
//! 1. Never more than `concurrency` queries run; waiting counts against the timeout of the one that waits.
//! 2. Dropping the future of [`Queries::run`] cancels the query.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use query::{Error, Kind};
use storage::budget::{Budget, Share};
use storage::model::tenant::Tenant;
use storage::{Context, Engine};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::QuerySettings;
use crate::telemetry::Telemetry;

/// Queries that may wait for a place, for each place there is; more are refused at once.
const WAITING_PER_PLACE: usize = 50;

/// The places for queries.
pub struct Queries {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_max: usize,
    memory: Arc<Share>,
    memory_per_query: usize,
    answer_bytes_max: usize,
    compute: tokio::runtime::Handle,
    telemetry: Arc<Telemetry>,
}

/// Cancels on drop.
struct CancelOnDrop(CancellationToken);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Counts one that waits, until dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Queries {
    /// Places as the settings say; the work itself runs on `compute`.
    pub fn new(
        settings: &QuerySettings,
        budget: &Budget,
        compute: tokio::runtime::Handle,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        Self {
            places: Arc::new(Semaphore::new(settings.concurrency)),
            waiting: AtomicUsize::new(0),
            waiting_max: settings.concurrency.saturating_mul(WAITING_PER_PLACE),
            memory: Arc::clone(&budget.queries),
            memory_per_query: settings.memory_per_query.bytes(),
            answer_bytes_max: settings.answer_bytes_max.bytes(),
            compute,
            telemetry,
        }
    }

    /// The largest answer in bytes.
    pub fn answer_bytes_max(&self) -> usize {
        self.answer_bytes_max
    }

    /// Queries that wait for a place.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Places that are free.
    pub fn free(&self) -> usize {
        self.places.available_permits()
    }

    /// Runs `work` on the compute threads, within `timeout`.
    pub async fn run<T, W, F>(
        &self,
        engine: Arc<Engine>,
        tenant: Tenant,
        timeout: Duration,
        work: W,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        W: FnOnce(Arc<Engine>, Context) -> F + Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let begun = Instant::now();
        let share = self.memory.child("query.memory_per_query", self.memory_per_query);
        let context = Context::new(tenant, share).with_timeout(timeout);
        let place = self.place(timeout).await?;
        let _cancel = CancelOnDrop(context.cancellation().clone());
        let task = self.compute.spawn(async move {
            let _place = place;
            let running = work(engine, context.clone());
            let remaining = context.remaining().unwrap_or(timeout);
            match tokio::time::timeout(remaining, running).await {
                Ok(done) => done,
                Err(_) => Err(timed_out(timeout)),
            }
        });
        let result = match task.await {
            Ok(result) => result,
            Err(error) => {
                tracing::error!(%error, "a query ended without an answer");
                Err(Error::new(Kind::Storage, "the query failed inside Tercet; the log says more"))
            }
        };
        self.telemetry.query_done(begun.elapsed(), result.is_ok());
        result
    }

    async fn place(&self, timeout: Duration) -> Result<tokio::sync::OwnedSemaphorePermit, Error> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.waiting_max {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Error::from(storage::Error::new(
                storage::Kind::Busy,
                "too many queries are waiting: ask again later or raise `query.concurrency`",
            )));
        }
        let _waiting = Waiting(&self.waiting);
        match tokio::time::timeout(timeout, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) => Err(Error::new(Kind::Canceled, "Tercet is stopping")),
            Err(_) => Err(timed_out(timeout)),
        }
    }
}

fn timed_out(timeout: Duration) -> Error {
    Error::new(Kind::Timeout, format!("the query timed out after {} ms", timeout.as_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn queries(concurrency: usize) -> Queries {
        let settings = QuerySettings { concurrency, ..Config::default().query };
        Queries::new(&settings, &Budget::default(), tokio::runtime::Handle::current(), Arc::default())
    }

    #[tokio::test]
    async fn a_query_that_finds_no_place_times_out() {
        let queries = queries(1);
        let place = queries.place(Duration::from_secs(1)).await.expect("free");
        let error = queries.place(Duration::from_millis(5)).await.expect_err("taken");
        assert_eq!(error.kind, Kind::Timeout);
        drop(place);
        assert!(queries.place(Duration::from_millis(5)).await.is_ok());
        assert_eq!(queries.waiting(), 0);
    }

    #[tokio::test]
    async fn more_waiting_ones_than_allowed_are_refused() {
        let mut queries = queries(1);
        queries.waiting_max = 0;
        let error = queries.place(Duration::from_secs(1)).await.expect_err("refused");
        assert_eq!(error.source.map(|source| source.kind()), Some(storage::Kind::Busy));
    }
}

//! Who listens to log entries as they arrive.
//!
//! Owns: the listeners by tenant, their queues and limits. Does not own: which entries a listener wants
//! (`http::loki::tail`).
//!
//! Invariants
//! 1. A listener never holds up an append: a batch that finds its queue full is dropped for it and counted.
//! 2. A batch reaches its listeners only after it was acknowledged by the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;
use storage::model::tenant::Tenant;
use storage::{Batch, Signal};
use tokio::sync::mpsc;

/// Listeners of one tenant.
pub const TAILS_MAX: usize = 10;
/// Batches that wait for a listener.
const QUEUE_BATCHES_MAX: usize = 64;
/// Their bytes; a single batch may be larger.
const QUEUE_BYTES_MAX: usize = 16 << 20;

/// All listeners.
#[derive(Debug, Default)]
pub struct Tails(RwLock<Vec<Listener>>);

#[derive(Debug)]
struct Listener {
    tenant: Tenant,
    queue: mpsc::Sender<Batch>,
    waiting_bytes: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

/// What one listener hears.
#[derive(Debug)]
pub struct Tail {
    batches: mpsc::Receiver<Batch>,
    waiting_bytes: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

impl Tail {
    /// The next batch of log entries, in the order of their arrival. `None` once nobody can send any more.
    pub async fn next(&mut self) -> Option<Batch> {
        let batch = self.batches.recv().await;
        self.taken(batch)
    }

    /// The next batch if it waits already.
    pub fn next_waiting(&mut self) -> Option<Batch> {
        let batch = self.batches.try_recv().ok();
        self.taken(batch)
    }

    fn taken(&self, batch: Option<Batch>) -> Option<Batch> {
        batch.inspect(|batch| {
            self.waiting_bytes.fetch_sub(batch.bytes(), Ordering::Relaxed);
        })
    }

    /// Entries that were dropped since the last call.
    pub fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}

impl Tails {
    /// Listens from now on, until the tail is dropped; `None` when the tenant has [`TAILS_MAX`] listeners already.
    pub fn listen(&self, tenant: &Tenant) -> Option<Tail> {
        let mut listeners = self.0.write();
        listeners.retain(|listener| !listener.queue.is_closed());
        if listeners.iter().filter(|listener| listener.tenant == *tenant).count() >= TAILS_MAX {
            return None;
        }
        let (queue, batches) = mpsc::channel(QUEUE_BATCHES_MAX);
        let (dropped, waiting_bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
        listeners.push(Listener {
            tenant: tenant.clone(),
            queue,
            waiting_bytes: Arc::clone(&waiting_bytes),
            dropped: Arc::clone(&dropped),
        });
        Some(Tail { batches, waiting_bytes, dropped })
    }

    /// A copy of `batch` if somebody will listen to it; copies share the rows.
    pub fn wanted(&self, tenant: &Tenant, batch: &Batch) -> Option<Batch> {
        let listens = |listener: &Listener| listener.tenant == *tenant && !listener.queue.is_closed();
        (batch.signal == Signal::Logs && self.0.read().iter().any(listens)).then(|| batch.clone())
    }

    /// Hands `batch` to all who listen.
    pub fn publish(&self, tenant: &Tenant, batch: &Batch) {
        for listener in self.0.read().iter().filter(|listener| listener.tenant == *tenant) {
            let bytes = batch.bytes();
            let before = listener.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
            let fits = before == 0 || before.saturating_add(bytes) <= QUEUE_BYTES_MAX;
            if !fits || listener.queue.try_send(batch.clone()).is_err() {
                listener.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
                listener.dropped.fetch_add(batch.rows() as u64, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use storage::model::batch::LogsBuilder;
    use storage::model::labels::Labels;
    use storage::model::time::TimestampNs;

    use super::*;

    fn batch() -> Batch {
        let mut builder = LogsBuilder::new();
        let stream = builder.stream(Labels::from_pairs([("app", "a")]));
        builder.entry(stream, TimestampNs(1), "line", std::iter::empty()).expect("fits");
        builder.finish().expect("builds")
    }

    #[test]
    fn listeners_are_bounded_and_leave() {
        let (tails, tenant) = (Tails::default(), Tenant::single());
        let mut all: Vec<Tail> = (0..TAILS_MAX).map(|_| tails.listen(&tenant).expect("free")).collect();
        assert!(tails.listen(&tenant).is_none());
        let other = Tenant::new("other").expect("a name");
        assert!(tails.listen(&other).is_some(), "another tenant has places of its own");
        all.pop();
        assert!(tails.listen(&tenant).is_some(), "who leaves makes room");
    }

    #[test]
    fn a_slow_listener_loses_batches_and_nobody_waits() {
        let (tails, tenant) = (Tails::default(), Tenant::single());
        assert!(tails.wanted(&tenant, &batch()).is_none());
        let mut tail = tails.listen(&tenant).expect("free");
        let copy = tails.wanted(&tenant, &batch()).expect("wanted");
        (0..QUEUE_BATCHES_MAX + 3).for_each(|_| tails.publish(&tenant, &copy));
        let mut heard = 0;
        while tail.next_waiting().is_some() {
            heard += 1;
        }
        assert_eq!(heard, QUEUE_BATCHES_MAX);
        assert_eq!(tail.take_dropped(), 3 * copy.rows() as u64);
    }

    #[test]
    fn what_waits_is_bounded_in_bytes() {
        let (tails, tenant) = (Tails::default(), Tenant::single());
        let mut tail = tails.listen(&tenant).expect("free");
        let mut builder = LogsBuilder::new();
        let stream = builder.stream(Labels::from_pairs([("app", "a")]));
        let line = "x".repeat(QUEUE_BYTES_MAX + 1);
        builder.entry(stream, TimestampNs(1), &line, std::iter::empty()).expect("fits");
        let large = builder.finish().expect("builds");
        for _ in 0..2 {
            tails.publish(&tenant, &large);
            tails.publish(&tenant, &large);
            assert_eq!(tail.take_dropped(), 1, "one may wait, whatever its size");
            assert!(tail.next_waiting().is_some() && tail.next_waiting().is_none());
        }
    }
}

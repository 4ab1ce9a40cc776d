//! Group commit: gathers the records of many appends into one write and one fsync.
//!
//! Owns: the open segment, its length, the waiters, the bytes on disk. Does not own: framing (`record`), replay
//! (`reader`), what a record does to the head ([`Apply`]), when to truncate (`engine::flush`).
//!
//! Invariants
//! 1. A waiter wakes only after the fsync that covers its record and after the record was applied, or with an error.
//! 2. Acknowledged sequence numbers rise; a number is never used again, not even after a failed write.
//! 3. A segment in which a write or fsync failed gets no further record.
//! 4. The open segment is never among the closed ones, which a truncation may remove. An empty segment that a replay
//!    left has the name of the next one: it leaves them before it is opened again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::reader::Replayed;
use super::record;
use super::segment::{self, Closed, Disk, HEADER_BYTES, Header, SegmentFile};
use crate::budget::{Reservation, Share};
use crate::error::{Error, Kind, Result};
use crate::model::batch::Batch;
use crate::model::identity::IdentityId;
use crate::model::labels::Labels;
use crate::model::tenant::Tenant;
use crate::signal::Signal;

/// Appends that may wait for the writer; further ones wait to be queued.
const QUEUE_MAX: usize = 1024;
/// A group is written once it has this many bytes.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// Where records go once they are durable. Called on the writer's thread only, in order of sequence numbers.
pub trait Apply: Send + 'static {
    /// What an append gets back.
    type Outcome: Send + 'static;

    /// Refuses a batch that could not be applied; nothing is written for it.
    fn admit(&mut self, tenant: &Tenant, batch: &Batch) -> Result<()>;

    /// Applies a durable record.
    fn apply(&mut self, sequence: u64, tenant: &Tenant, batch: Batch) -> Result<Self::Outcome>;
}

/// Sizes that a WAL keeps to.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Appends are refused once all segments together have this many bytes.
    pub wal_bytes: u64,
    /// A segment with this many bytes is followed by a new one.
    pub segment_bytes: u64,
    /// Memory of the batches that wait for the writer or are with it, with their encoded rows; further ones wait. A
    /// larger batch takes all of it.
    pub queue: Arc<Share>,
}

/// Numbers of one WAL.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes of all segments.
    pub bytes: AtomicU64,
    /// Calls of fsync that covered records.
    pub fsyncs: AtomicU64,
    /// Failed writes, fsyncs and creations.
    pub errors: AtomicU64,
    /// Segments that are open: one or none.
    open: AtomicU64,
}

/// The handle of a writer thread.
pub struct Wal<A: Apply> {
    sender: Mutex<Option<mpsc::Sender<Command<A>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    shared: Arc<Shared>,
}

struct Shared {
    signal: Signal,
    folder: PathBuf,
    limits: Limits,
    counters: Counters,
    closed: Mutex<Vec<Closed>>,
}

enum Command<A: Apply> {
    Append(Append<A::Outcome>),
    Seal(Box<dyn FnOnce(u64) + Send>),
}

struct Append<O> {
    tenant: Tenant,
    batch: Batch,
    facts: Vec<u8>,
    reply: oneshot::Sender<Result<(u64, O)>>,
    /// Its memory, given back with it.
    _room: Reservation,
}

impl<A: Apply> Wal<A> {
    /// Starts the writer, which goes on where `replayed` ended.
    pub fn start(
        signal: Signal,
        folder: PathBuf,
        limits: Limits,
        disk: Arc<dyn Disk>,
        replayed: Replayed,
        apply: A,
    ) -> Result<Self> {
        let Replayed { closed, next, last, .. } = replayed;
        let counters = Counters::default();
        counters.bytes.store(closed.iter().map(|segment| segment.bytes).sum(), Ordering::Relaxed);
        let shared = Arc::new(Shared { signal, folder, limits, counters, closed: Mutex::new(closed) });
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let writer = Writer {
            shared: Arc::clone(&shared),
            disk,
            apply,
            open: None,
            next,
            acknowledged: last,
            buffer: Vec::new(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("wal-{}", signal.name()))
            .spawn(move || writer.run(receiver))
            .map_err(|cause| Error::new(Kind::Unavailable, "the thread of the WAL did not start").with_source(cause))?;
        Ok(Self { sender: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)), shared })
    }

    /// Writes and applies `batch`; returns its sequence number and what applying it gave.
    pub async fn append(&self, tenant: &Tenant, batch: Batch) -> Result<(u64, A::Outcome)> {
        self.shared.check_room()?;
        // The record of a batch is no larger than its columns.
        let room = self.shared.limits.queue.wait(batch.bytes().saturating_mul(2)).await;
        let facts = record::encode_facts(&batch)?;
        let (reply, answer) = oneshot::channel();
        self.send(Command::Append(Append { tenant: tenant.clone(), batch, facts, reply, _room: room })).await?;
        answer.await.map_err(|_| stopped())?
    }

    /// Ends the open segment, then runs `then` on the writer's thread with the last sequence number so far: every
    /// record up to it was applied, no later one.
    pub async fn seal<T: Send + 'static>(&self, then: impl FnOnce(u64) -> T + Send + 'static) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let run = move |last| {
            // Whoever asked may have gone; the work is done all the same.
            let _ = reply.send(then(last));
        };
        self.send(Command::Seal(Box::new(run))).await?;
        answer.await.map_err(|_| stopped())
    }

    async fn send(&self, command: Command<A>) -> Result<()> {
        let sender = self.sender.lock().clone().ok_or_else(stopped)?;
        sender.send(command).await.map_err(|_| stopped())
    }

    /// Removes the segments whose records all have numbers up to `flushed`, oldest first.
    pub fn truncate(&self, flushed: u64) -> Result<()> {
        let mut closed = self.shared.closed.lock();
        let mut removed = false;
        while let Some(segment) = closed.first().filter(|segment| segment.last <= flushed) {
            match std::fs::remove_file(&segment.path) {
                Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                    let text = format!("the WAL segment {} cannot be removed", segment.path.display());
                    return Err(Error::new(Kind::Unavailable, text).with_source(cause));
                }
                _ => self.shared.counters.bytes.fetch_sub(segment.bytes, Ordering::Relaxed),
            };
            closed.remove(0);
            removed = true;
        }
        drop(closed);
        if removed {
            segment::sync_folder(&self.shared.folder)?;
        }
        Ok(())
    }

    /// Lets the writer finish what is queued and stops it. Later appends are refused.
    pub async fn stop(&self) -> Result<()> {
        self.sender.lock().take();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let ended = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(ended, Ok(Ok(()))) {
                return Err(Error::bug("the thread of the WAL did not end well"));
            }
        }
        Ok(())
    }

    /// Its numbers.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Segments on disk, the open one counted.
    pub fn segments(&self) -> u64 {
        let closed = self.shared.closed.lock().len();
        u64::try_from(closed).unwrap_or(u64::MAX).saturating_add(self.shared.counters.open.load(Ordering::Relaxed))
    }
}

/// Waits for what is queued: once an engine is gone, nothing of it writes any more.
impl<A: Apply> Drop for Wal<A> {
    fn drop(&mut self) {
        self.sender.get_mut().take();
        if let Some(thread) = self.thread.get_mut().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the WAL did not end well");
        }
    }
}

fn stopped() -> Error {
    Error::new(Kind::Unavailable, "the storage is closing and takes no more data")
}

impl Shared {
    fn check_room(&self) -> Result<()> {
        let held = self.counters.bytes.load(Ordering::Relaxed);
        if held >= self.limits.wal_bytes {
            return Err(Error::new(
                Kind::Busy,
                format!(
                    "the WAL of {} holds {held} bytes that no table has yet, over its limit of {}: retry later",
                    self.signal.name(),
                    self.limits.wal_bytes
                ),
            ));
        }
        Ok(())
    }

    /// Takes `path` out of the closed segments: it is about to be written again.
    fn forget(&self, path: &Path) {
        let mut closed = self.closed.lock();
        closed.retain(|segment| {
            let stays = segment.path != path;
            if !stays {
                self.counters.bytes.fetch_sub(segment.bytes, Ordering::Relaxed);
            }
            stays
        });
    }
}

/// The open segment.
struct Open {
    file: Box<dyn SegmentFile>,
    path: PathBuf,
    first: u64,
    bytes: u64,
    defined: HashMap<Tenant, HashMap<IdentityId, Labels, ahash::RandomState>, ahash::RandomState>,
}

struct Writer<A: Apply> {
    shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
    apply: A,
    open: Option<Open>,
    next: u64,
    acknowledged: u64,
    buffer: Vec<u8>,
}

impl<A: Apply> Writer<A> {
    fn run(mut self, mut receiver: mpsc::Receiver<Command<A>>) {
        let mut seal = None;
        while let Some(first) = receiver.blocking_recv() {
            let mut group = Vec::new();
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(command) = next {
                match command {
                    Command::Append(append) => {
                        bytes += append.facts.len();
                        group.push(append);
                    }
                    Command::Seal(then) => seal = Some(then),
                }
                let more = seal.is_none() && bytes < GROUP_BYTES_MAX;
                next = if more { receiver.try_recv().ok() } else { None };
            }
            self.commit(group);
            if let Some(then) = seal.take() {
                self.seal();
                then(self.acknowledged);
            }
        }
        self.end_segment();
    }

    /// Writes, syncs and applies `group`, and wakes its waiters.
    fn commit(&mut self, group: Vec<Append<A::Outcome>>) {
        if group.is_empty() {
            return;
        }
        if let Err(error) = self.open_segment() {
            let text = error.to_string();
            for append in group {
                let _ = append.reply.send(Err(Error::new(Kind::Unavailable, text.clone())));
            }
            return;
        }
        self.buffer.clear();
        let mut pending = Vec::with_capacity(group.len());
        for append in group {
            match self.frame(&append) {
                Ok(sequence) => pending.push((sequence, append)),
                Err(error) => drop(append.reply.send(Err(error))),
            }
        }
        if pending.is_empty() {
            return;
        }
        if let Err(cause) = self.write() {
            self.abandon();
            for (_, append) in pending {
                let text = format!("the WAL of {} could not be written: {cause}", self.shared.signal.name());
                let _ = append.reply.send(Err(Error::new(Kind::Unavailable, text)));
            }
            return;
        }
        for (sequence, append) in pending {
            self.acknowledged = sequence;
            let outcome = self.apply.apply(sequence, &append.tenant, append.batch);
            let _ = append.reply.send(outcome.map(|outcome| (sequence, outcome)));
        }
        if self.open.as_ref().is_some_and(|open| open.bytes >= self.shared.limits.segment_bytes) {
            self.end_segment();
        }
    }

    /// Puts the record of `append` into the buffer.
    fn frame(&mut self, append: &Append<A::Outcome>) -> Result<u64> {
        self.shared.check_room()?;
        self.apply.admit(&append.tenant, &append.batch)?;
        let open = self.open.as_mut().ok_or_else(|| Error::bug("the WAL has no open segment"))?;
        let defined = open.defined.entry_ref(&append.tenant).or_default();
        let mut new = Vec::new();
        for identity in &append.batch.identities {
            match defined.get(&identity.id) {
                Some(labels) if *labels == identity.labels => {}
                Some(labels) => return Err(collision(&identity.labels, labels)),
                None => new.push(identity),
            }
        }
        let sequence = self.next;
        let labels = new.iter().map(|identity| &identity.labels);
        record::push(&mut self.buffer, sequence, &append.tenant, labels, &append.facts)?;
        defined.extend(new.into_iter().map(|identity| (identity.id, identity.labels.clone())));
        self.next += 1;
        Ok(sequence)
    }

    fn write(&mut self) -> std::io::Result<()> {
        let Some(open) = &mut self.open else {
            return Err(std::io::Error::other("no open segment"));
        };
        open.file.write(&self.buffer)?;
        open.file.sync()?;
        let bytes = u64::try_from(self.buffer.len()).unwrap_or(0);
        open.bytes += bytes;
        self.shared.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.shared.counters.fsyncs.fetch_add(1, Ordering::Relaxed);
        self.buffer.shrink_to(GROUP_BYTES_MAX);
        Ok(())
    }

    fn open_segment(&mut self) -> Result<()> {
        if self.open.is_some() {
            return Ok(());
        }
        let path = segment::path(&self.shared.folder, self.next);
        self.shared.forget(&path);
        let header =
            Header { signal: self.shared.signal, repaired: false, first: self.next, previous: self.acknowledged };
        match self.disk.create(&path, &header.encode()) {
            Ok(file) => {
                let bytes = u64::try_from(HEADER_BYTES).unwrap_or(0);
                self.shared.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
                self.shared.counters.open.store(1, Ordering::Relaxed);
                self.open = Some(Open { file, path, first: self.next, bytes, defined: HashMap::default() });
                Ok(())
            }
            Err(cause) => {
                self.shared.counters.errors.fetch_add(1, Ordering::Relaxed);
                let text = format!("the WAL segment {} could not be created", path.display());
                let error = Error::new(Kind::Unavailable, text).with_source(cause);
                tracing::error!(%error, "appends are refused");
                Err(error)
            }
        }
    }

    /// Leaves the open segment as it is on disk; the next record opens another.
    fn end_segment(&mut self) {
        if let Some(open) = self.open.take() {
            let last = self.acknowledged.max(open.first.saturating_sub(1));
            self.shared.counters.open.store(0, Ordering::Relaxed);
            self.shared.closed.lock().push(Closed { path: open.path, last, bytes: open.bytes });
        }
    }

    /// Ends the open segment if it has records, and opens an empty one that carries the sequence number on.
    fn seal(&mut self) {
        if self.open.as_ref().is_some_and(|open| open.first <= self.acknowledged) {
            self.end_segment();
        }
        if let Err(error) = self.open_segment() {
            tracing::warn!(%error, "a new WAL segment will be tried with the next append");
        }
    }

    /// Gives up the open segment after a failed write or fsync: what of the last group reached it is cut off.
    fn abandon(&mut self) {
        self.shared.counters.errors.fetch_add(1, Ordering::Relaxed);
        let Some(mut open) = self.open.take() else { return };
        if let Err(cause) = open.file.cut(open.bytes) {
            // The next segment's header says which numbers were acknowledged, so a reader skips the rest.
            tracing::error!(segment = %open.path.display(), %cause, "unacknowledged records stay in a WAL segment");
        }
        tracing::error!(segment = %open.path.display(), "a write to the WAL failed; the segment is given up");
        self.open = Some(open);
        self.end_segment();
    }
}

/// Two label sets share a 64-bit identity: one of them must be refused, or their facts would mix.
pub(crate) fn collision(new: &Labels, held: &Labels) -> Error {
    Error::invalid(format!("{new} has the same 64-bit identity as {held} and cannot be kept: change one of its labels"))
}

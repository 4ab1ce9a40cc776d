//! The one way in: what all protocols share between the bytes of a request and the acknowledgement.
//!
//! Owns: memory of bodies in flight, threads that decode, limits that need the clock, the append. Does not own: wire
//! formats (`proto`), what an error looks like in a protocol (`http::error`).
//!
//! Invariants
//! 1. A body or a message of gRPC counts against `ingest.inflight_bytes_max` from its first byte until its request is
//!    answered.
//! 2. Decoding never runs on the threads that wait for the network.
//! 3. A sender that stops in the middle of a body holds memory for [`STALL_MAX`] at most.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use storage::budget::{Budget, Reservation, Share};
use storage::clock::Clock;
use storage::engine::Appended;
use storage::model::tenant::Tenant;
use storage::model::time::{TimeRange, TimestampMs, TimestampNs};
use storage::retention::RetentionPolicy;
use storage::{Batch, Engine, Error, Kind, Result, Signal, Table};
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::generated::Generated;
use crate::tails::Tails;
use crate::telemetry::{Protocol, Telemetry};

/// How many unpacked bytes one packed byte counts for until the body is unpacked.
const UNPACK_FACTOR: usize = 4;
/// What is read and thrown away of a body that is too large, so that its sender reads the answer instead of a
/// closed connection.
const DRAIN_BYTES_MAX: usize = 256 << 20;
/// How long a body may pause, and how long the rest of a refused one is read.
const STALL_MAX: Duration = Duration::from_secs(30);

/// A body that was read, with the memory it holds.
pub struct Incoming {
    /// As it came, still packed.
    pub bytes: Bytes,
    /// Given back on drop.
    pub held: Reservation,
}

/// What became of an append.
#[derive(Debug, Default)]
pub struct Kept {
    /// Samples whose series already has another value at their time; they were not kept.
    pub conflicts: usize,
    /// Rows out of the window that retention allows, by table; they were not kept.
    pub too_old: Vec<(Table, usize)>,
}

impl Kept {
    /// Rows of all tables that are too old.
    pub fn too_old_rows(&self) -> usize {
        self.too_old.iter().map(|(_, rows)| rows).sum()
    }

    /// Rows of `table` that were not kept. Only float samples can contradict.
    pub fn lost(&self, table: Table) -> usize {
        let old = self.too_old.iter().filter(|(other, _)| *other == table).map(|(_, rows)| *rows).sum::<usize>();
        old + if table == Table::Samples { self.conflicts } else { 0 }
    }
}

/// See the module.
pub struct Ingest {
    memory: Arc<Share>,
    stall_max: Duration,
    decoders: Semaphore,
    retention: RetentionPolicy,
    future_max_ns: i64,
    clock: Arc<dyn Clock>,
    telemetry: Arc<Telemetry>,
    followers: Followers,
    read_only: bool,
}

/// Who hears of what was acknowledged.
#[derive(Clone)]
pub struct Followers {
    /// Tails of log queries.
    pub tails: Arc<Tails>,
    /// Metrics made of spans.
    pub generated: Arc<Generated>,
}

impl Followers {
    /// A copy of `batch` if anybody will want it.
    fn wanted(&self, tenant: &Tenant, batch: &Batch) -> Option<Batch> {
        self.tails.wanted(tenant, batch).or_else(|| self.generated.wanted(batch))
    }

    /// Hands an acknowledged batch on.
    fn acknowledged(&self, tenant: &Tenant, batch: &Batch) {
        match batch.signal {
            Signal::Traces => self.generated.observe(tenant, batch),
            _ => self.tails.publish(tenant, batch),
        }
    }
}

impl Ingest {
    /// Limits as the settings say.
    pub fn new(
        config: &Config,
        budget: &Budget,
        clock: Arc<dyn Clock>,
        telemetry: Arc<Telemetry>,
        followers: Followers,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            memory: Arc::clone(&budget.bodies),
            stall_max: STALL_MAX,
            decoders: Semaphore::new(cores),
            retention: config.retention_policy(),
            future_max_ns: config.ingest.future_max.as_ns(),
            clock,
            telemetry,
            followers,
            read_only: config.read_only,
        }
    }

    /// The latest time that is taken.
    pub fn future_limit(&self) -> TimestampNs {
        TimestampNs(self.clock.now().0.saturating_add(self.future_max_ns))
    }

    /// The latest time that is taken, for samples.
    pub fn future_limit_ms(&self) -> TimestampMs {
        self.future_limit().to_ms()
    }

    /// The earliest time of `signal` that is taken of `tenant`: some of its data is kept so long. `None`: any.
    pub fn past_limit(&self, signal: Signal, tenant: &Tenant) -> Option<TimestampNs> {
        let age = i64::try_from(self.retention.age_max(signal, Some(tenant))?.as_nanos()).unwrap_or(i64::MAX);
        Some(TimestampNs(self.clock.now().0.saturating_sub(age)))
    }

    /// Reads a body of at most `limit_bytes`; a larger one is [`Kind::Limit`], no memory for it is [`Kind::Busy`].
    pub async fn read(&self, protocol: Protocol, body: Body, limit_bytes: usize) -> Result<Incoming> {
        let incoming = self.read_body(body, limit_bytes).await;
        let bytes = incoming.as_ref().map_or(0, |incoming| incoming.bytes.len());
        self.telemetry.received(protocol, bytes);
        incoming
    }

    async fn read_body(&self, body: Body, limit_bytes: usize) -> Result<Incoming> {
        let mut stream = body.into_data_stream();
        let read = self.read_parts(&mut stream, limit_bytes).await;
        // What was read so far is freed by now: only then is the rest waited for.
        if read.as_ref().is_err_and(|e| matches!(e.kind(), Kind::Limit | Kind::Busy)) {
            let _ = tokio::time::timeout(self.stall_max, drain(&mut stream, DRAIN_BYTES_MAX)).await;
        }
        read
    }

    async fn read_parts(&self, stream: &mut axum::body::BodyDataStream, limit_bytes: usize) -> Result<Incoming> {
        let mut held = self.memory.reserve(0)?;
        let mut bytes = BytesMut::new();
        let stalled = |_| Error::new(Kind::Timeout, format!("the body paused for {} s", self.stall_max.as_secs()));
        while let Some(part) = tokio::time::timeout(self.stall_max, stream.next()).await.map_err(stalled)? {
            let part = part.map_err(|e| Error::invalid("the body ended before its announced length").with_source(e))?;
            let length = bytes.len() + part.len();
            if length > limit_bytes {
                return Err(Error::limit(format!("request body too large: more than {limit_bytes} bytes")));
            }
            let wanted = self.wanted(length);
            held.grow(wanted.saturating_sub(held.bytes())).map_err(|_| self.too_many(wanted))?;
            bytes.extend_from_slice(&part);
        }
        Ok(Incoming { bytes: bytes.freeze(), held })
    }

    /// Memory for a message of `bytes` that a transport has read itself, until dropped; [`Kind::Busy`] without any.
    pub fn hold(&self, bytes: usize) -> Result<Reservation> {
        self.memory.reserve(self.wanted(bytes)).map_err(|_| self.too_many(bytes))
    }

    /// Nothing yet of a message that arrives in parts.
    pub fn hold_none(&self) -> Reservation {
        self.memory.hold(0)
    }

    /// Holds `bytes` more of such a message, as they came; [`Kind::Busy`] without memory for them.
    pub fn hold_more(&self, held: &mut Reservation, bytes: usize) -> Result<()> {
        let wanted = held.bytes().saturating_add(bytes).min(self.memory.limit_bytes());
        held.grow(wanted - held.bytes()).map_err(|_| self.too_many(bytes))
    }

    /// Holds `bytes` from here on instead of what a body was reckoned to unpack to.
    fn resize(&self, held: &mut Reservation, bytes: usize) -> Result<()> {
        let wanted = bytes.min(self.memory.limit_bytes());
        held.shrink_to(wanted);
        held.grow(wanted.saturating_sub(held.bytes())).map_err(|_| self.too_many(wanted))
    }

    /// Other bodies hold what `bytes` would need.
    fn too_many(&self, bytes: usize) -> Error {
        self.memory.exhausted(bytes, self.memory.used_bytes(), Kind::Busy)
    }

    /// One body may take the whole share and wait for its turn, but is never refused for good by it.
    fn wanted(&self, bytes: usize) -> usize {
        bytes.saturating_mul(UNPACK_FACTOR).min(self.memory.limit_bytes())
    }

    /// Runs `decode` on a thread for computing; as many at once as there are cores.
    pub async fn decode<T: Send + 'static>(&self, decode: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let _place = self.decoders.acquire().await.map_err(|_| Error::new(Kind::Unavailable, "Tercet is stopping"))?;
        tokio::task::spawn_blocking(decode)
            .await
            .map_err(|e| Error::bug("decoding ended without a result").with_source(e))
    }

    /// Keeps `batch`; returns once it survives a crash. What the body `held` is resized to the rows that wait.
    pub async fn append(
        &self,
        engine: &Engine,
        protocol: Protocol,
        tenant: &Tenant,
        batch: Batch,
        mut held: Reservation,
    ) -> Result<Kept> {
        if self.read_only {
            return Err(Error::new(Kind::Fenced, "this Tercet only reads (`read_only`): send to the one that writes"));
        }
        let (batch, too_old) = self.within_retention(tenant, batch)?;
        let rows = batch.rows();
        self.resize(&mut held, batch.bytes())?;
        let wanted = self.followers.wanted(tenant, &batch);
        let appended = if batch.is_empty() { Appended::default() } else { engine.append(tenant, batch).await? };
        if let Some(batch) = wanted {
            self.followers.acknowledged(tenant, &batch);
        }
        let conflicts = appended.conflicts.len();
        let kept = Kept { conflicts, too_old };
        self.telemetry.kept(protocol, rows.saturating_sub(conflicts), conflicts + kept.too_old_rows());
        Ok(kept)
    }

    /// The rows that are young enough, and how many of each table are not.
    fn within_retention(&self, tenant: &Tenant, batch: Batch) -> Result<(Batch, Vec<(Table, usize)>)> {
        let Some(limit) = self.past_limit(batch.signal, tenant) else { return Ok((batch, Vec::new())) };
        let before: Vec<(Table, usize)> = batch.facts.iter().map(|(table, rows)| (*table, rows.num_rows())).collect();
        let (batch, dropped) = batch.keep_in(TimeRange::new(limit.0, i64::MAX))?;
        if dropped == 0 {
            return Ok((batch, Vec::new()));
        }
        let left = |table: Table| batch.table(table).map_or(0, |rows| rows.num_rows());
        let too_old = before.into_iter().map(|(table, rows)| (table, rows - left(table))).collect();
        Ok((batch, too_old))
    }
}

async fn drain(stream: &mut axum::body::BodyDataStream, bytes_max: usize) {
    let mut seen = 0;
    while let Some(Ok(part)) = stream.next().await {
        seen += part.len();
        if seen > bytes_max {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use storage::clock::ManualClock;

    use super::*;

    fn ingest(inflight_bytes_max: u64) -> Ingest {
        let mut config = Config::default();
        config.ingest.inflight_bytes_max = crate::config::units::Size(inflight_bytes_max);
        let budget = config.budget(8 << 30);
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
        let generated = Arc::new(Generated::new(&config, Arc::clone(&clock)));
        let followers = Followers { tails: Arc::default(), generated };
        let ingest = Ingest::new(&config, &budget, clock, Arc::default(), followers);
        Ingest { stall_max: Duration::from_millis(5), ..ingest }
    }

    fn parts(
        parts: Vec<&'static str>,
    ) -> impl futures::Stream<Item = std::result::Result<&'static str, std::io::Error>> {
        futures::stream::iter(parts.into_iter().map(Ok))
    }

    #[tokio::test]
    async fn a_sender_that_stops_gives_its_memory_back() {
        let ingest = ingest(1000);
        let endless = Body::from_stream(parts(vec!["abc"]).chain(futures::stream::pending()));
        let error = ingest.read(Protocol::OtlpHttp, endless, 100).await.err().expect("ends");
        assert_eq!((error.kind(), ingest.memory.used_bytes()), (Kind::Timeout, 0));
    }

    #[tokio::test]
    async fn the_rest_of_a_refused_body_is_not_waited_for_without_end() {
        let ingest = ingest(1000);
        let endless = Body::from_stream(parts(vec!["abc", "def"]).chain(futures::stream::pending()));
        let error = ingest.read(Protocol::OtlpHttp, endless, 5).await.err().expect("refused");
        assert_eq!((error.kind(), ingest.memory.used_bytes()), (Kind::Limit, 0));
    }

    #[tokio::test]
    async fn rows_are_charged_as_they_are_not_as_their_packed_body_was() {
        let ingest = ingest(1000);
        let mut small = ingest.hold(10).expect("free");
        ingest.resize(&mut small, 900).expect("free");
        assert_eq!(ingest.memory.used_bytes(), 900);
        let mut other = ingest.hold(10).expect("free");
        assert_eq!(ingest.resize(&mut other, 500).err().map(|e| e.kind()), Some(Kind::Busy));
        drop(other);
        ingest.resize(&mut small, 1_000_000).expect("one may take all");
        ingest.resize(&mut small, 5).expect("shrinks");
        assert_eq!(ingest.memory.used_bytes(), 5);
    }

    #[tokio::test]
    async fn messages_and_bodies_share_their_memory() {
        let ingest = ingest(100);
        let held = ingest.hold(1_000_000).expect("one may take all");
        assert_eq!(ingest.memory.used_bytes(), 100);
        assert_eq!(ingest.hold(1).err().map(|e| e.kind()), Some(Kind::Busy));
        let refused = ingest.read(Protocol::OtlpHttp, Body::from("abc"), 100).await;
        assert_eq!(refused.err().map(|e| e.kind()), Some(Kind::Busy));
        drop(held);
        assert!(ingest.read(Protocol::OtlpHttp, Body::from("abc"), 100).await.is_ok());
    }
}

//! Journeys by chance: appends, flushes, crashes, stops between steps, steps of the clock, and a store that fails, loses
//! its answers and is slow. Whatever happens, what is answered is right, and once the store is well all is there once.
//!
//! The seed is printed; `TERCET_TEST_SEED` repeats a run, `TERCET_FAULT_ROUNDS` sets the number of journeys.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::store::faulty::Chaos;

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// The first seed and how many follow it.
pub(super) fn seeds(default: u64) -> std::ops::Range<u64> {
    let first = from_env("TERCET_TEST_SEED").unwrap_or_else(|| u64::from(std::process::id()) * 7919);
    let rounds = from_env("TERCET_FAULT_ROUNDS").unwrap_or(default);
    let _ = writeln!(std::io::stderr(), "seeds {first} to {}", first + rounds - 1);
    first..first + rounds
}

/// What may become of an operation while the store is ill.
fn tolerated<T>(seed: u64, what: &str, result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert_eq!(error.kind(), Kind::Unavailable, "seed {seed}, {what}: {error:?}");
            None
        }
    }
}

struct Journey {
    seed: u64,
    random: StdRng,
    bed: Bed,
    objects: Arc<FaultyStore>,
    /// The next batches to send.
    second: i64,
}

impl Journey {
    async fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..35 => self.append().await,
            35..48 => self.flush_meanwhile().await,
            48..56 => self.compact_meanwhile().await,
            56..62 => self.step_clock().await,
            62..72 => self.crash().await,
            72..80 => self.stop_somewhere(),
            80..90 => self.set_chaos(),
            _ => self.read().await,
        }
    }

    fn set_chaos(&mut self) {
        let mut rate = |max: f64| if self.random.random_bool(0.5) { self.random.random_range(0.0..max) } else { 0.0 };
        let (fail, lose, slow) = (rate(0.3), rate(0.3), rate(0.2));
        let seed = self.random.random();
        self.objects.set_chaos((fail + lose + slow > 0.0).then(|| Chaos::new(seed, fail, lose, slow)));
    }

    /// New batches, now and then the same again or one that was sent long ago.
    async fn append(&mut self) {
        let second = match self.random.random_range(0..6) {
            0 if self.second > 0 => self.random.random_range(0..self.second),
            _ => {
                self.second += 1;
                self.second - 1
            }
        };
        let mut batches = all(second).to_vec();
        batches.swap_remove(self.random.random_range(0..3));
        self.bed.send(batches).await;
    }

    /// A flush, of one signal or all, while something is appended and read.
    async fn flush_meanwhile(&mut self) {
        let signal =
            [None, Some(Signal::Metrics), Some(Signal::Logs), Some(Signal::Traces)][self.random.random_range(0..4)];
        let engine = Arc::clone(&self.bed.engine);
        let flush = tokio::spawn(async move { engine.flush(signal).await });
        if self.random.random_bool(0.5) {
            self.append().await;
        }
        self.read().await;
        tolerated(self.seed, "flush", flush.await.expect("does not panic"));
    }

    /// A compaction, while something is appended, flushed and read.
    async fn compact_meanwhile(&mut self) {
        let engine = Arc::clone(&self.bed.engine);
        let compaction = tokio::spawn(async move { engine.compact(None).await });
        self.append().await;
        self.flush_meanwhile().await;
        tolerated(self.seed, "compact", compaction.await.expect("does not panic"));
        self.read().await;
    }

    /// By hours forth or back, then past the age at which heads are flushed.
    async fn step_clock(&mut self) {
        let hours = self.random.random_range(-30..30);
        let now = self.bed.clock.now().0 + hours * 3600 * NS_PER_S + self.random.random_range(0..NS_PER_S);
        self.bed.clock.set(TimestampNs(now));
        self.bed.engine.tick().await;
        self.bed.clock.set(TimestampNs(now + 601 * NS_PER_S));
        self.bed.engine.tick().await;
    }

    /// What was in memory is gone; opening may need several tries while the store is ill.
    async fn crash(&mut self) {
        self.bed.forget_memory().await;
        for tries in 0.. {
            if let Some(engine) = tolerated(self.seed, "open", self.bed.try_open().await) {
                self.bed.engine = engine;
                return;
            }
            if tries == 20 {
                self.objects.set_chaos(None);
            }
        }
    }

    /// The next flushes end at a step, as if the process died there; or end there no more.
    fn stop_somewhere(&mut self) {
        let signal = Signal::ALL[self.random.random_range(0..3)].spec();
        let steps = [
            None,
            Some(Step::Frozen),
            Some(Step::Prepared),
            Some(Step::Committed(signal.identities)),
            Some(Step::Committed(signal.main())),
            Some(Step::Committed(signal.facts[0])),
            Some(Step::Flushed),
            Some(Step::Merged(signal.main())),
            Some(Step::Replaced(signal.main())),
        ];
        self.bed.stop_at(steps[self.random.random_range(0..steps.len())]);
    }

    async fn read(&mut self) {
        let read = try_check(&self.bed.engine, &self.bed.sent, &self.bed.tenant, TimeRange::ALL).await;
        tolerated(self.seed, "read", read);
    }
}

async fn journey(seed: u64) {
    let (bed, objects) = Bed::faulty().await;
    let mut journey = Journey { seed, random: StdRng::seed_from_u64(seed), bed, objects, second: 0 };
    for _ in 0..journey.random.random_range(10..40) {
        journey.step().await;
    }
    journey.objects.set_chaos(None);
    journey.bed.stop_at(None);
    journey.bed.check().await;
    journey.bed.engine.flush(None).await.expect("flushes");
    journey.bed.check().await;
    journey.bed.engine.compact(None).await.expect("compacts");
    journey.bed.check().await;
    let stats = journey.bed.engine.stats();
    assert!(stats.signals.iter().all(|signal| signal.unreadable_blocks == 0), "seed {seed}: {stats:?}");
    assert!(!stats.fenced && stats.signals.iter().all(|signal| signal.wal_segments <= 1), "seed {seed}: {stats:?}");
    journey.bed.reopen().await;
    journey.bed.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_journey_by_chance_loses_or_repeats_a_row() {
    for seed in seeds(3) {
        journey(seed).await;
    }
}

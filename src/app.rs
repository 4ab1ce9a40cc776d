//! What every handler shares: configuration, clock, engine, ways in and out, own metrics.
//!
//! Owns: the state of the process (starting, ready, stopping). Does not own: what the parts do.

use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use storage::budget::Budget;
use storage::clock::Clock;
use storage::{Engine, Error, Kind};

use crate::config::Config;
use crate::config::memory::allowed_bytes;
use crate::generated::Generated;
use crate::ingest::{Followers, Ingest};
use crate::queries::Queries;
use crate::tails::Tails;
use crate::telemetry::Telemetry;

/// Where the process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The engine is replaying its log.
    Starting,
    /// Everything works.
    Ready,
    /// No new work is taken.
    Stopping,
}

/// The shared state.
pub struct App {
    /// All settings.
    pub config: Config,
    /// The memory that all parts share.
    pub budget: Budget,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// The one way in.
    pub ingest: Ingest,
    /// The one way out.
    pub queries: Queries,
    /// Metrics made of spans.
    pub generated: Arc<Generated>,
    /// Who listens to what comes in.
    pub tails: Arc<Tails>,
    /// Own metrics.
    pub telemetry: Arc<Telemetry>,
    engine: OnceLock<Arc<Engine>>,
    phase: AtomicU8,
}

/// As handlers hold it.
pub type SharedApp = Arc<App>;

impl App {
    /// A process without an engine yet. Queries run on `compute`.
    pub fn new(config: Config, clock: Arc<dyn Clock>, compute: tokio::runtime::Handle) -> SharedApp {
        let telemetry = Arc::new(Telemetry::default());
        let tails = Arc::new(Tails::default());
        let budget = config.budget(allowed_bytes(Path::new("/")));
        let generated = Arc::new(Generated::new(&config, Arc::clone(&clock)));
        let followers = Followers { tails: Arc::clone(&tails), generated: Arc::clone(&generated) };
        Arc::new(Self {
            ingest: Ingest::new(&config, &budget, Arc::clone(&clock), Arc::clone(&telemetry), followers),
            queries: Queries::new(&config.query, &budget, compute, Arc::clone(&telemetry)),
            generated,
            tails,
            telemetry,
            budget,
            clock,
            config,
            engine: OnceLock::new(),
            phase: AtomicU8::new(0),
        })
    }

    /// The engine is there: everything works from now on.
    pub fn set_ready(&self, engine: Arc<Engine>) {
        if self.engine.set(engine).is_ok() {
            self.phase.store(1, Ordering::SeqCst);
        }
    }

    /// No new work from now on.
    pub fn set_stopping(&self) {
        self.phase.store(2, Ordering::SeqCst);
    }

    /// Where the process stands.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Stopping,
        }
    }

    /// The engine, or why there is none yet.
    pub fn engine(&self) -> Result<Arc<Engine>, Error> {
        self.engine
            .get()
            .cloned()
            .ok_or_else(|| Error::new(Kind::Unavailable, "Tercet is starting: it is still reading its write-ahead log"))
    }

    /// Seconds since the epoch as the clock shows them.
    pub fn now_ms(&self) -> i64 {
        self.clock.now().to_ms().0
    }

    /// Nanoseconds since the epoch as the clock shows them.
    pub fn now_ns(&self) -> i64 {
        self.clock.now().0
    }
}

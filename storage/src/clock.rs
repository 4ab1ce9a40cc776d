//! Time and chance: the only file of the workspace that reads the system clock or draws random bits.
//!
//! Owns: [`Clock`], its system and its manual implementation, [`unique_id`]. Does not own: timers of the runtime.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::model::time::TimestampNs;

/// Tells the time of day. Two readings may be equal or even run backwards: the system clock may step.
pub trait Clock: Send + Sync + Debug {
    /// Nanoseconds since the Unix epoch.
    fn now(&self) -> TimestampNs;
}

/// An id that no other process draws: names of files, tokens of commits.
pub fn unique_id() -> uuid::Uuid {
    uuid::Uuid::new_v4()
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> TimestampNs {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        TimestampNs(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }
}

/// A clock that stands until a test moves it.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that shows `now`.
    pub fn at(now: TimestampNs) -> Self {
        Self(Arc::new(AtomicI64::new(now.0)))
    }

    /// Shows `now` from here on.
    pub fn set(&self, now: TimestampNs) {
        self.0.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> TimestampNs {
        TimestampNs(self.0.load(Ordering::SeqCst))
    }
}

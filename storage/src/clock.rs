//! Time and chance: the only file of the workspace that reads the system clock or draws random bits.
//!
//! Owns: [`Clock`] and [`Chance`], each as the machine has it and as a test sets it, [`unique_id`]. Does not own: timers of
//! the runtime.

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

/// Draws numbers, so that processes that failed together do not try again together.
pub trait Chance: Send + Sync + Debug {
    /// A number of at least 0 and less than 1.
    fn draw(&self) -> f64;
}

/// The machine's random bits.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemChance;

impl Chance for SystemChance {
    fn draw(&self) -> f64 {
        // The low half of a random id is random but for two bits at its top.
        let bits = unique_id().as_u64_pair().1 & ((1 << 53) - 1);
        bits as f64 / (1_u64 << 53) as f64
    }
}

/// A chance that always draws the same.
#[derive(Clone, Copy, Debug)]
pub struct FixedChance(pub f64);

impl Chance for FixedChance {
    fn draw(&self) -> f64 {
        self.0
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_draws_different_numbers_from_the_whole_range() {
        let drawn: Vec<f64> = (0..1000).map(|_| SystemChance.draw()).collect();
        assert!(drawn.iter().all(|n| (0.0..1.0).contains(n)));
        let mean = drawn.iter().sum::<f64>() / 1000.0;
        // Five standard deviations of the mean of a thousand uniform numbers.
        assert!((mean - 0.5).abs() < 0.046, "{mean}");
    }
}

//! Counts and latencies of one signal.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds since the epoch.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// What happened to the requests of one signal.
pub struct Report {
    name: &'static str,
    begun: Instant,
    items: AtomicU64,
    requests: AtomicU64,
    errors: AtomicU64,
    first_error: Mutex<Option<String>>,
    latencies_us: Mutex<Vec<u32>>,
}

impl Report {
    /// Nothing yet.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            begun: Instant::now(),
            items: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            first_error: Mutex::new(None),
            latencies_us: Mutex::new(Vec::new()),
        }
    }

    /// Counts one request that was acknowledged.
    pub fn acknowledged(&self, items: usize, took: Duration) {
        self.items.fetch_add(items as u64, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut latencies) = self.latencies_us.lock() {
            latencies.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        }
    }

    /// Counts one request that was not; the first one's words are kept.
    pub fn failed(&self, why: String) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.errors.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut first) = self.first_error.lock() {
            first.get_or_insert(why);
        }
    }

    /// Requests that were not acknowledged.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.begun.elapsed().as_secs_f64();
        let (items, requests) = (self.items.load(Ordering::Relaxed), self.requests.load(Ordering::Relaxed));
        let mut latencies = self.latencies_us.lock().map(|list| list.clone()).unwrap_or_default();
        latencies.sort_unstable();
        let quantile = |q: f64| {
            let index = (q * latencies.len() as f64) as usize;
            latencies.get(index.min(latencies.len().saturating_sub(1))).map_or(0.0, |us| f64::from(*us) / 1000.0)
        };
        write!(
            f,
            "{:<8} {items:>10} items {:>9.0}/s  {requests:>7} requests  latency ms p50 {:.1} p99 {:.1} max {:.1}  errors {}",
            self.name,
            items as f64 / seconds,
            quantile(0.5),
            quantile(0.99),
            quantile(1.0),
            self.errors()
        )?;
        if let Ok(first) = self.first_error.lock()
            && let Some(why) = first.as_ref()
        {
            write!(f, " (first: {why})")?;
        }
        Ok(())
    }
}

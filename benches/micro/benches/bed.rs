//! What the benches stand on: sizes, engines in folders of their own, batches from the shared generator.

use std::process::Command;
use std::sync::Arc;

use proto::limits::Limits;
use proto::loki_push::{PushLimits, decode_json};
use proto::otlp::traces::TraceLimits;
use storage::budget::Share;
use storage::clock::SystemClock;
use storage::model::tenant::Tenant;
use storage::model::time::TimestampNs;
use storage::{Batch, Context, Engine, EngineConfig};
use tempfile::TempDir;
use tercet_load::data;

/// 2026-01-05 00:00:00 UTC, the first time of all data.
pub const START_MS: i64 = 1_767_571_200_000;
/// The same in nanoseconds.
pub const START_NS: i64 = START_MS * 1_000_000;
/// Distance of samples.
pub const STEP_MS: i64 = 15_000;

/// Whether criterion measures; otherwise each bench runs once on little data.
pub fn is_measured() -> bool {
    std::env::args().any(|argument| argument == "--bench") && !std::env::args().any(|argument| argument == "--test")
}

/// A size: from the variable, or `full` when measured, or `small`.
pub fn size(variable: &str, full: usize, small: usize) -> usize {
    if !is_measured() {
        return small;
    }
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(full)
}

/// Processor, cores and commit.
pub fn provenance() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let commit = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    format!("{} · {cores} cores · load {load} · commit {commit}", model.trim_start_matches(['\t', ' ', ':']))
}

/// An engine in a folder that is removed with it.
pub struct Bed {
    /// The engine.
    pub engine: Arc<Engine>,
    /// Its tenant.
    pub tenant: Tenant,
    _data: TempDir,
}

impl Bed {
    /// An engine without data that flushes only when asked.
    pub async fn new() -> Self {
        let data = TempDir::new().expect("a folder");
        let store = data.path().join("store").display().to_string();
        let config = EngineConfig {
            head_bytes_max: 4 << 30,
            unflushed_bytes_max: 8 << 30,
            wal_bytes_max: 16 << 30,
            flush_age_max: std::time::Duration::from_secs(86_400),
            ..EngineConfig::new(data.path(), store)
        };
        let engine = Engine::open(config, Arc::new(SystemClock)).await.expect("opens");
        Self { engine, tenant: Tenant::single(), _data: data }
    }

    /// Appends.
    pub async fn send(&self, batch: Batch) {
        self.engine.append(&self.tenant, batch).await.expect("appends");
    }

    /// What a query runs in.
    pub fn context(&self) -> Context {
        Context::new(self.tenant.clone(), Share::root("bench", 4 << 30))
    }
}

/// One sample of each of `series` series, their sample number `round`.
pub fn samples(series: std::ops::Range<usize>, round: u32) -> Batch {
    let body = data::remote_write("bench", series, START_MS + i64::from(round) * STEP_MS, round);
    proto::remote_write::decode_v1(&body, &Limits::default()).expect("decodes").batch
}

/// `lines` lines from line `number` on, one a millisecond.
pub fn lines(number: u64, lines: usize) -> Batch {
    let first = START_NS.unsigned_abs() + number * 1_000_000;
    let now = TimestampNs(i64::try_from(first).expect("fits"));
    let body = data::loki_push("bench", number, lines, first);
    let limits = PushLimits { reject_old: None, ..PushLimits::default() };
    decode_json(body.as_bytes(), &limits, now).expect("decodes").batch
}

/// `traces` traces of ten spans from trace `number` on; ids are spread like real ones.
pub fn traces(number: u64, traces: usize) -> Batch {
    let ids: Vec<[u8; 16]> = (number..number + traces as u64).map(trace_id).collect();
    let request = data::traces("bench", &ids, START_NS.unsigned_abs() + number * 1_000_000);
    proto::otlp::traces::decode(&request, &TraceLimits::default()).expect("decodes").batch
}

/// The id of trace `number`.
pub fn trace_id(number: u64) -> [u8; 16] {
    (u128::from(data::noise(number)) << 64 | u128::from(number + 1)).to_be_bytes()
}

//! Tercet's own metrics and logs.
//!
//! Owns: the counters of requests, ingestion and queries, and the text of `/metrics`. Does not own: the engine's
//! numbers, which it asks for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use generator::Counts;
use parking_lot::Mutex;
use storage::engine::{EngineStats, SignalStats, UpkeepStats};
use storage::store::{Calls, Cause, DiskCacheStats};

use crate::app::{App, Phase};

/// Upper bounds of the request-duration histogram in seconds.
const DURATION_BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Kinds of requests counted apart; routes are few, so this is never reached unless something is wrong.
const REQUEST_KINDS_MAX: usize = 1000;

/// How data came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Prometheus remote write.
    RemoteWrite,
    /// Loki push.
    LokiPush,
    /// OTLP over HTTP.
    OtlpHttp,
    /// OTLP over gRPC.
    OtlpGrpc,
    /// Metrics made of spans, by this process.
    Generator,
}

impl Protocol {
    const ALL: [(Self, &'static str); 5] = [
        (Self::RemoteWrite, "remote_write"),
        (Self::LokiPush, "loki_push"),
        (Self::OtlpHttp, "otlp_http"),
        (Self::OtlpGrpc, "otlp_grpc"),
        (Self::Generator, "generator"),
    ];
}

#[derive(Debug, Default)]
struct IngestCounters {
    requests: AtomicU64,
    bytes: AtomicU64,
    rows: AtomicU64,
    rejected: AtomicU64,
}

#[derive(Debug, Default, Clone)]
struct Durations {
    buckets: [u64; DURATION_BOUNDS.len()],
    count: u64,
    seconds: f64,
}

impl Durations {
    fn add(&mut self, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        for (bucket, bound) in self.buckets.iter_mut().zip(DURATION_BOUNDS) {
            *bucket += u64::from(seconds <= bound);
        }
        self.count += 1;
        self.seconds += seconds;
    }
}

/// The counters.
#[derive(Debug, Default)]
pub struct Telemetry {
    ingest: [IngestCounters; Protocol::ALL.len()],
    queries: Mutex<Durations>,
    queries_failed: AtomicU64,
    requests: Mutex<BTreeMap<(String, u16), Durations>>,
}

impl Telemetry {
    /// A body of `bytes` came in.
    pub fn received(&self, protocol: Protocol, bytes: usize) {
        let counters = &self.ingest[protocol as usize];
        counters.requests.fetch_add(1, Ordering::Relaxed);
        counters.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// `rows` were kept, `rejected` were not.
    pub fn kept(&self, protocol: Protocol, rows: usize, rejected: usize) {
        let counters = &self.ingest[protocol as usize];
        counters.rows.fetch_add(rows as u64, Ordering::Relaxed);
        counters.rejected.fetch_add(rejected as u64, Ordering::Relaxed);
    }

    /// `rejected` items were refused while decoding.
    pub fn rejected(&self, protocol: Protocol, rejected: usize) {
        self.kept(protocol, 0, rejected);
    }

    /// A query ended.
    pub fn query_done(&self, elapsed: Duration, ok: bool) {
        self.queries.lock().add(elapsed);
        self.queries_failed.fetch_add(u64::from(!ok), Ordering::Relaxed);
    }

    /// A request to `route` was answered.
    pub fn answered(&self, route: &str, status: u16, elapsed: Duration) {
        let mut requests = self.requests.lock();
        let key = (route.to_owned(), status);
        if requests.len() < REQUEST_KINDS_MAX || requests.contains_key(&key) {
            requests.entry(key).or_default().add(elapsed);
        }
    }

    /// The text of `/metrics`.
    pub fn exposition(&self, app: &App) -> String {
        let mut out = Exposition(String::with_capacity(16 << 10));
        out.family("tercet_build_info", "gauge", "Version of this process; always 1.");
        out.sample("tercet_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        out.family("tercet_ready", "gauge", "1 while data and queries are taken.");
        out.sample("tercet_ready", &[], f64::from(u8::from(app.phase() == Phase::Ready)));
        self.ingest_families(&mut out);
        out.generator(&app.generated.counts());
        out.memory(app);
        out.family("tercet_queries_waiting", "gauge", "Queries that wait for a place.");
        out.sample("tercet_queries_waiting", &[], app.queries.waiting() as f64);
        out.family("tercet_query_places_free", "gauge", "Queries that could start now.");
        out.sample("tercet_query_places_free", &[], app.queries.free() as f64);
        out.family("tercet_queries_failed_total", "counter", "Queries that ended with an error.");
        out.sample("tercet_queries_failed_total", &[], self.queries_failed.load(Ordering::Relaxed) as f64);
        out.family("tercet_query_duration_seconds", "histogram", "Time from a query's arrival to its value.");
        out.histogram("tercet_query_duration_seconds", &[], &self.queries.lock().clone());
        out.family("tercet_http_request_duration_seconds", "histogram", "Time to answer, by route and status.");
        let requests = self.requests.lock().clone();
        for ((route, status), durations) in &requests {
            let labels = [("route", route.as_str()), ("status", &status.to_string())];
            out.histogram("tercet_http_request_duration_seconds", &labels, durations);
        }
        if let Ok(engine) = app.engine() {
            let stats = engine.stats();
            out.engine(&stats);
            out.upkeep(&stats.upkeep);
            out.store(engine.store().calls());
            if let Some(cache) = engine.store().cache() {
                out.disk_cache(&cache.stats());
            }
        }
        out.process();
        out.0
    }

    fn ingest_families(&self, out: &mut Exposition) {
        type Pick = fn(&IngestCounters) -> &AtomicU64;
        let families: [(&str, &str, Pick); 4] = [
            ("tercet_ingest_requests_total", "Requests that carried data.", |c| &c.requests),
            ("tercet_ingest_bytes_total", "Bytes of their bodies as they came.", |c| &c.bytes),
            ("tercet_ingest_rows_total", "Samples, entries, spans and exemplars that were kept.", |c| &c.rows),
            ("tercet_ingest_rejected_total", "Those that were refused.", |c| &c.rejected),
        ];
        for (name, help, pick) in families {
            out.family(name, "counter", help);
            for ((_, protocol), counters) in Protocol::ALL.iter().zip(&self.ingest) {
                out.sample(name, &[("protocol", protocol)], pick(counters).load(Ordering::Relaxed) as f64);
            }
        }
    }
}

/// Metrics in Prometheus' text format 0.0.4.
struct Exposition(String);

impl Exposition {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (i, (label, text)) in labels.iter().enumerate() {
            self.0.push(if i == 0 { '{' } else { ',' });
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{label}=\"{text}\"");
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], durations: &Durations) {
        let bucket = format!("{name}_bucket");
        let with_le = |le: &str| -> Vec<(String, String)> {
            let own = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
            own.chain([("le".to_owned(), le.to_owned())]).collect()
        };
        let bounds = DURATION_BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (le, count) in bounds.zip(durations.buckets.iter().chain([&durations.count])) {
            let all = with_le(&le);
            let all: Vec<(&str, &str)> = all.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            self.sample(&bucket, &all, *count as f64);
        }
        self.sample(&format!("{name}_sum"), labels, durations.seconds);
        self.sample(&format!("{name}_count"), labels, durations.count as f64);
    }

    fn generator(&mut self, counts: &Counts) {
        let families = [
            ("tercet_generator_spans_total", "Spans that the metrics generator observed.", counts.spans),
            ("tercet_generator_spans_too_old_total", "Spans it left out: they ended too long ago.", counts.too_old),
            (
                "tercet_generator_over_limit_total",
                "Spans and calls over `traces.generator_series_max`, and spans with overlong names.",
                counts.over_limit,
            ),
            ("tercet_generator_edges_dropped_total", "Calls over `traces.generator_edges_max`.", counts.edges_dropped),
            ("tercet_generator_edges_expired_total", "Calls whose other side never came.", counts.edges_expired),
        ];
        for (name, help, value) in families {
            self.family(name, "counter", help);
            self.sample(name, &[], value as f64);
        }
    }

    fn engine(&mut self, stats: &EngineStats) {
        type Pick = fn(&SignalStats) -> u64;
        let families: [(&str, &str, &str, Pick); 24] = [
            ("tercet_head_rows", "gauge", "Rows in memory.", |s| s.head_rows),
            ("tercet_head_bytes", "gauge", "Bytes the heads take.", |s| s.head_bytes),
            ("tercet_head_identities", "gauge", "Series, streams or resources in memory.", |s| s.head_identities),
            ("tercet_wal_bytes", "gauge", "Bytes of the write-ahead log.", |s| s.wal_bytes),
            ("tercet_wal_segments", "gauge", "Segments of the write-ahead log.", |s| s.wal_segments),
            ("tercet_appends_total", "counter", "Batches acknowledged.", |s| s.appends_total),
            ("tercet_appended_rows_total", "counter", "Rows acknowledged.", |s| s.appended_rows_total),
            ("tercet_repeated_samples_total", "counter", "Samples that were held already.", |s| s.repeats_total),
            ("tercet_conflicts_total", "counter", "Samples refused: another value is held.", |s| s.conflicts_total),
            ("tercet_wal_fsyncs_total", "counter", "Calls of fsync on the write-ahead log.", |s| s.fsyncs_total),
            ("tercet_wal_errors_total", "counter", "Failed writes of the write-ahead log.", |s| s.wal_errors_total),
            ("tercet_wal_damages_total", "counter", "Damaged places found in it.", |s| s.wal_damages_total),
            ("tercet_replayed_records_total", "counter", "Records replayed at start.", |s| s.replayed_records_total),
            ("tercet_flushes_total", "counter", "Flushes that reached the tables.", |s| s.flushes_total),
            ("tercet_flushed_rows_total", "counter", "Rows that flushes wrote.", |s| s.flushed_rows_total),
            ("tercet_flush_errors_total", "counter", "Flushes that failed and are tried again.", |s| {
                s.flush_errors_total
            }),
            ("tercet_compactions_total", "counter", "Compactions that reached the tables.", |s| s.compactions_total),
            ("tercet_compacted_blocks_total", "counter", "Blocks that compactions replaced.", |s| {
                s.compacted_blocks_total
            }),
            ("tercet_compaction_read_bytes_total", "counter", "Bytes of these blocks.", |s| {
                s.compaction_read_bytes_total
            }),
            ("tercet_compaction_written_bytes_total", "counter", "Bytes of the blocks that replaced them.", |s| {
                s.compaction_written_bytes_total
            }),
            ("tercet_compaction_repeats_total", "counter", "Repeated rows that compactions dropped.", |s| {
                s.compaction_repeats_total
            }),
            ("tercet_compaction_conflicts_total", "counter", "Compactions whose blocks were gone at the end.", |s| {
                s.compaction_conflicts_total
            }),
            ("tercet_compaction_errors_total", "counter", "Compactions that failed.", |s| s.compaction_errors_total),
            (
                "tercet_unreadable_blocks",
                "gauge",
                "Blocks that compaction found unreadable and leaves as they are.",
                |s| s.unreadable_blocks,
            ),
        ];
        self.family("tercet_fenced", "gauge", "1 when another process owns the tables: this one refuses data.");
        self.sample("tercet_fenced", &[], f64::from(u8::from(stats.fenced)));
        for (name, kind, help, pick) in families {
            self.family(name, kind, help);
            for signal in &stats.signals {
                self.sample(name, &[("signal", signal.signal.name())], pick(signal) as f64);
            }
        }
    }

    /// The memory budget. Caches count for themselves.
    fn memory(&mut self, app: &App) {
        let budget = &app.budget;
        self.family("tercet_memory_limit_bytes", "gauge", "What `memory.limit` comes to.");
        self.sample("tercet_memory_limit_bytes", &[], budget.limit_bytes() as f64);
        self.family("tercet_memory_share_limit_bytes", "gauge", "Size of each share of it, by the share's setting.");
        for share in budget.shares() {
            self.sample("tercet_memory_share_limit_bytes", &[("share", share.name())], share.limit_bytes() as f64);
        }
        let cached = app.engine().map_or(0, |engine| engine.cached_bytes());
        self.family("tercet_memory_share_used_bytes", "gauge", "What is held of each share.");
        for share in budget.shares() {
            let used = if Arc::ptr_eq(share, &budget.caches) { cached } else { share.used_bytes() };
            self.sample("tercet_memory_share_used_bytes", &[("share", share.name())], used as f64);
        }
    }

    fn disk_cache(&mut self, stats: &DiskCacheStats) {
        let families = [
            ("tercet_disk_cache_bytes", "gauge", "Disk space of kept parts of the bucket's objects.", stats.bytes),
            ("tercet_disk_cache_hits_total", "counter", "Parts found on disk.", stats.hits_total),
            ("tercet_disk_cache_misses_total", "counter", "Parts that were asked of the bucket.", stats.misses_total),
            ("tercet_disk_cache_damaged_total", "counter", "Parts found damaged on disk.", stats.damaged_total),
            ("tercet_disk_cache_failures_total", "counter", "Parts the disk did not take.", stats.failures_total),
        ];
        for (name, kind, help, value) in families {
            self.family(name, kind, help);
            self.sample(name, &[], value as f64);
        }
    }

    fn store(&mut self, calls: &Calls) {
        let name = "tercet_store_requests_total";
        self.family(name, "counter", "Requests to the store: each that a bucket bills, or each operation on a folder.");
        for line in calls.counts() {
            let labels =
                [("cause", line.cause.name()), ("operation", line.operation.name()), ("outcome", line.outcome.name())];
            self.sample(name, &labels, line.count as f64);
        }
        type Pick = fn((u64, u64)) -> u64;
        let families: [(&str, &str, Pick); 2] = [
            ("tercet_store_sent_bytes_total", "Bytes sent to the store.", |bytes| bytes.0),
            ("tercet_store_received_bytes_total", "Bytes received from the store.", |bytes| bytes.1),
        ];
        for (name, help, pick) in families {
            self.family(name, "counter", help);
            for cause in Cause::ALL {
                self.sample(name, &[("cause", cause.name())], pick(calls.bytes(cause)) as f64);
            }
        }
    }

    fn upkeep(&mut self, stats: &UpkeepStats) {
        let families = [
            ("tercet_deletes_made_total", "Delete requests made.", stats.deletes_made),
            ("tercet_deletes_done_total", "Delete requests whose rows are gone.", stats.deletes_done),
            (
                "tercet_dropped_blocks_total",
                "Blocks that went whole: too old, too much or deleted.",
                stats.dropped_blocks,
            ),
            ("tercet_dropped_bytes_total", "Their bytes.", stats.dropped_bytes),
            (
                "tercet_rewritten_blocks_total",
                "Blocks written again without rows that must go.",
                stats.rewritten_blocks,
            ),
            ("tercet_removed_rows_total", "Rows that they lost.", stats.removed_rows),
            ("tercet_vacuumed_objects_total", "Objects deleted because nobody needs them.", stats.vacuumed_objects),
            ("tercet_vacuumed_bytes_total", "Their bytes.", stats.vacuumed_bytes),
            ("tercet_upkeep_rounds_total", "Rounds of upkeep that ended well.", stats.rounds),
            ("tercet_upkeep_errors_total", "Rounds of upkeep that failed and are tried again.", stats.errors),
        ];
        for (name, help, value) in families {
            self.family(name, "counter", help);
            self.sample(name, &[], value as f64);
        }
    }

    /// What the system says about this process, where it says it in files.
    fn process(&mut self) {
        const PAGE_BYTES: f64 = 4096.0;
        let Ok(text) = std::fs::read_to_string("/proc/self/statm") else { return };
        if let Some(pages) = text.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse::<f64>().ok()) {
            self.family("process_resident_memory_bytes", "gauge", "Resident memory.");
            self.sample("process_resident_memory_bytes", &[], pages * PAGE_BYTES);
        }
    }
}

/// The reader of table logs reports a table that is not there yet as an error, and the writer every commit; we say
/// what matters ourselves.
const QUIET: &str = "buoyant_kernel=off,deltalake_core=warn";

/// Sends log lines to standard error, as `filter` says.
pub fn start_logging(filter: &str) -> Result<(), String> {
    let filter = tracing_subscriber::EnvFilter::try_new(format!("{QUIET},{filter}"))
        .map_err(|e| format!("`log` cannot be `{filter}`: {e}; use error, warn, info, debug or trace"))?;
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        .try_init()
        .map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exposition_escapes_and_accumulates() {
        let mut durations = Durations::default();
        durations.add(Duration::from_millis(30));
        durations.add(Duration::from_secs(60));
        let mut out = Exposition(String::new());
        out.family("h", "histogram", "Help.");
        out.histogram("h", &[("route", "a\"b")], &durations);
        assert!(out.0.starts_with("# HELP h Help.\n# TYPE h histogram\nh_bucket{route=\"a\\\"b\",le=\"0.005\"} 0\n"));
        assert!(out.0.contains("le=\"0.05\"} 1\n") && out.0.contains("le=\"+Inf\"} 2\n"));
        assert!(out.0.ends_with("h_sum{route=\"a\\\"b\"} 60.03\nh_count{route=\"a\\\"b\"} 2\n"));
    }
}

//! The configuration: one [`Config`], built from defaults, a YAML file, `TERCET_…` variables and flags, each winning
//! over those before it.
//!
//! Owns: the settings, their defaults and their check. Does not own: what they do.
//!
//! Invariants
//! 1. Every setting is a row of `settings::SETTINGS`: key, variable, explanation, how to set and to print it.
//! 2. An unknown key or variable is an error that names the nearest known one.

pub mod memory;
pub mod retention;
mod settings;
mod source;
pub mod units;

use std::fmt;
use std::path::{Path, PathBuf};

use proto::loki_push::PushLimits;
use proto::otlp::metrics::OtlpMetricsSettings;
use storage::budget::{Budget, Wanted};

use memory::MemoryLimit;
use storage::Signal;
use storage::retention::RetentionPolicy;

use retention::Rules;
pub use source::Environment;
use source::Raw;
use units::{Size, Span};

/// A configuration that cannot be used: one sentence that names the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Self {
        let nearest = known.max_by(|a, b| {
            let near = |known: &str| strsim::jaro_winkler(known, name);
            near(a).total_cmp(&near(b))
        });
        Self(format!("unknown {what} `{name}`; did you mean `{}`?", nearest.unwrap_or("http")))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An address to listen on, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen(pub Option<String>);

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("off"))
    }
}

/// How long each signal is kept; zero is for ever.
#[derive(Clone, Debug)]
pub struct Retention {
    /// Samples, histograms, exemplars.
    pub metrics: Span,
    /// Log entries.
    pub logs: Span,
    /// Spans.
    pub traces: Span,
    /// Exceptions, which come first.
    pub rules: Rules,
}

/// The memory budget. Each share is at most its part of the limit, see [`Budget`].
#[derive(Clone, Debug)]
pub struct MemorySettings {
    /// The whole.
    pub limit: MemoryLimit,
    /// Rows that no table has yet, of all signals.
    pub heads: Size,
    /// Batches that wait for the write-ahead logs.
    pub wal_queue: Size,
    /// Rows on their way into files.
    pub flush: Size,
    /// Files that are being rewritten.
    pub compaction: Size,
    /// Footers, directories, identities of blocks.
    pub caches: Size,
}

/// The storage engine.
#[derive(Clone, Debug)]
pub struct StorageSettings {
    /// A head older than this is flushed.
    pub flush_age_max: Span,
    /// A head larger than this is flushed, per signal.
    pub head_bytes_max: Size,
    /// Memory of data that no table has yet at which ingestion answers 429, per signal.
    pub unflushed_bytes_max: Size,
    /// A WAL larger than this makes ingestion answer 429, per signal.
    pub wal_bytes_max: Size,
    /// How old a read-only process' view of the tables may be.
    pub refresh_age_max: Span,
    /// Instead of Google's own servers; empty: none.
    pub gcs_endpoint: String,
    /// File of a Google service account; empty: what the environment names.
    pub gcs_credentials: String,
    /// Disk space for parts of a bucket's objects.
    pub disk_cache_bytes_max: Size,
    /// Longest single request to a bucket.
    pub request_timeout: Span,
    /// Longest run of tries of one request.
    pub request_deadline: Span,
    /// How often tables are looked at for what is too old, too much or deleted.
    pub upkeep_interval: Span,
    /// How often a table is listed for files that nobody needs.
    pub vacuum_interval: Span,
    /// How long a file stays after a commit removed it.
    pub vacuum_grace: Span,
    /// How long a file stays that no commit named.
    pub orphan_grace: Span,
    /// Name of this writer in the tables; empty: a random one, kept in the data folder.
    pub writer_id: String,
}

/// Ingestion of all protocols.
#[derive(Clone, Debug)]
pub struct IngestSettings {
    /// Bodies held in memory at once; more are answered 429.
    pub inflight_bytes_max: Size,
    /// Samples, entries and spans further ahead of the clock are refused; zero: never for spans, see `future_max`.
    pub future_max: Span,
    /// Largest remote-write body, packed and unpacked.
    pub remote_write_bytes_max: Size,
    /// Largest Loki push body, packed and unpacked.
    pub loki_bytes_max: Size,
    /// Largest OTLP message, unpacked.
    pub otlp_bytes_max: Size,
}

/// Queries of all languages.
#[derive(Clone, Debug)]
pub struct QuerySettings {
    /// Queries that run at once; more wait, and their timeout runs.
    pub concurrency: usize,
    /// Memory of one query.
    pub memory_per_query: Size,
    /// Memory of all queries.
    pub memory: Size,
    /// Largest answer before it is packed.
    pub answer_bytes_max: Size,
}

/// The Prometheus side.
#[derive(Clone, Debug)]
pub struct PrometheusSettings {
    /// Longest query.
    pub timeout: Span,
    /// How far an instant selector looks back.
    pub lookback: Span,
    /// Step of subqueries that name none.
    pub evaluation_interval: Span,
    /// Samples one query may hold.
    pub samples_max: usize,
    /// Whether series may be deleted over HTTP.
    pub admin_api: bool,
}

/// The Loki side.
#[derive(Clone, Debug)]
pub struct LokiSettings {
    /// Longest query.
    pub timeout: Span,
    /// Entries older than `reject_old_samples_max_age` are refused.
    pub reject_old_samples: bool,
    /// See `reject_old_samples`.
    pub reject_old_samples_max_age: Span,
    /// `service_name` is set from other labels when it is absent.
    pub discover_service_name: bool,
    /// Longest line; 0 takes any.
    pub max_line_size: Size,
    /// Longer lines are cut instead of refused.
    pub max_line_size_truncate: bool,
    /// Most labels of a stream.
    pub max_label_names_per_series: usize,
    /// Most entries of an answer.
    pub max_entries_limit_per_query: usize,
    /// Most series of a metric answer.
    pub max_query_series: usize,
    /// Whether entries may be deleted over HTTP.
    pub deletion: bool,
}

/// The Tempo side.
#[derive(Clone, Debug)]
pub struct TempoSettings {
    /// Longest query.
    pub timeout: Span,
    /// Longest range of a search; zero: any.
    pub search_duration_max: Span,
    /// Range of a search that names none.
    pub search_default_range: Span,
}

/// What spans become besides rows.
#[derive(Clone, Debug)]
pub struct TracesSettings {
    /// Whether metrics are made of spans.
    pub metrics_generator: bool,
    /// How often their samples are written.
    pub generator_interval: Span,
    /// How they are made.
    pub generator: generator::Settings,
}

/// All settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of the WAL and the caches.
    pub data: PathBuf,
    /// Where the tables are; empty: inside `data`.
    pub store: String,
    /// The port that serves everything.
    pub http: String,
    /// Connections of one port at once.
    pub http_connections_max: usize,
    /// A connection on which no byte moves for so long is closed.
    pub http_silence_max: Span,
    /// OTLP over gRPC.
    pub otlp_grpc: Listen,
    /// OTLP over HTTP.
    pub otlp_http: Listen,
    /// What is logged.
    pub log: String,
    /// Whether nothing is written.
    pub read_only: bool,
    /// Whether `X-Scope-OrgID` separates tenants.
    pub tenancy: bool,
    /// How long a stop may take.
    pub shutdown_grace: Span,
    /// How long data is kept.
    pub retention: Retention,
    /// What memory is for.
    pub memory: MemorySettings,
    /// The engine.
    pub storage: StorageSettings,
    /// What comes in.
    pub ingest: IngestSettings,
    /// What is asked.
    pub query: QuerySettings,
    /// PromQL and its API.
    pub prometheus: PrometheusSettings,
    /// LogQL and its API.
    pub loki: LokiSettings,
    /// TraceQL and its API.
    pub tempo: TempoSettings,
    /// Metrics made of spans.
    pub traces: TracesSettings,
    /// OTLP metrics to series.
    pub otlp: OtlpMetricsSettings,
}

impl Default for MemorySettings {
    fn default() -> Self {
        let Wanted { heads, wal_queue, flush, compaction, caches, .. } = Wanted::default();
        let size = |bytes| Size(bytes as u64);
        Self {
            limit: MemoryLimit::Percent(75),
            heads: size(heads),
            wal_queue: size(wal_queue),
            flush: size(flush),
            compaction: size(compaction),
            caches: size(caches),
        }
    }
}

impl Default for TempoSettings {
    fn default() -> Self {
        Self {
            timeout: Span::seconds(30),
            search_duration_max: Span::days(7),
            search_default_range: Span::seconds(3600),
        }
    }
}

impl Default for StorageSettings {
    fn default() -> Self {
        Self {
            flush_age_max: Span::seconds(600),
            head_bytes_max: Size::mib(64),
            unflushed_bytes_max: Size::mib(256),
            wal_bytes_max: Size::mib(2048),
            refresh_age_max: Span::seconds(10),
            gcs_endpoint: String::new(),
            gcs_credentials: String::new(),
            disk_cache_bytes_max: Size::mib(2048),
            request_timeout: Span::seconds(30),
            request_deadline: Span::seconds(60),
            upkeep_interval: Span::seconds(300),
            vacuum_interval: Span::seconds(3600),
            vacuum_grace: Span::seconds(3600),
            orphan_grace: Span::days(1),
            writer_id: String::new(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("./tercet-data"),
            store: String::new(),
            http: "127.0.0.1:9090".into(),
            http_connections_max: 2000,
            http_silence_max: Span::seconds(600),
            otlp_grpc: Listen(Some("127.0.0.1:4317".into())),
            otlp_http: Listen(Some("127.0.0.1:4318".into())),
            log: "info".into(),
            read_only: false,
            tenancy: false,
            shutdown_grace: Span::seconds(25),
            retention: Retention {
                metrics: Span::days(30),
                logs: Span::days(30),
                traces: Span::days(14),
                rules: Rules::default(),
            },
            memory: MemorySettings::default(),
            storage: StorageSettings::default(),
            ingest: IngestSettings {
                inflight_bytes_max: Size::mib(256),
                future_max: Span::seconds(600),
                remote_write_bytes_max: Size::mib(32),
                loki_bytes_max: Size::mib(100),
                otlp_bytes_max: Size::mib(16),
            },
            query: QuerySettings {
                concurrency: 20,
                memory_per_query: Size::mib(512),
                memory: Size::mib(1024),
                answer_bytes_max: Size::mib(256),
            },
            prometheus: PrometheusSettings {
                timeout: Span::seconds(120),
                lookback: Span::seconds(300),
                evaluation_interval: Span::seconds(60),
                samples_max: 50_000_000,
                admin_api: false,
            },
            loki: LokiSettings {
                timeout: Span::seconds(60),
                reject_old_samples: true,
                reject_old_samples_max_age: Span::days(7),
                discover_service_name: true,
                max_line_size: Size(256 << 10),
                max_line_size_truncate: false,
                max_label_names_per_series: 15,
                max_entries_limit_per_query: 5000,
                max_query_series: 500,
                deletion: true,
            },
            tempo: TempoSettings::default(),
            traces: TracesSettings {
                metrics_generator: true,
                generator_interval: Span::seconds(15),
                generator: generator::Settings::default(),
            },
            otlp: OtlpMetricsSettings::default(),
        }
    }
}

impl Config {
    /// Where the tables are.
    pub fn store_url(&self) -> String {
        if self.store.is_empty() { self.data.join("store").display().to_string() } else { self.store.clone() }
    }

    /// The memory budget, on a system that allows `allowed_bytes`.
    pub fn budget(&self, allowed_bytes: u64) -> Budget {
        let MemorySettings { limit, heads, wal_queue, flush, compaction, caches } = &self.memory;
        let wanted = Wanted {
            heads: heads.bytes(),
            wal_queue: wal_queue.bytes(),
            flush: flush.bytes(),
            compaction: compaction.bytes(),
            caches: caches.bytes(),
            queries: self.query.memory.bytes(),
            bodies: self.ingest.inflight_bytes_max.bytes(),
        };
        Budget::new(limit.of(allowed_bytes), &wanted)
    }

    /// How long what is kept.
    pub fn retention_policy(&self) -> RetentionPolicy {
        let Retention { metrics, logs, traces, rules } = &self.retention;
        let ages = [(Signal::Metrics, *metrics), (Signal::Logs, *logs), (Signal::Traces, *traces)];
        RetentionPolicy { rules: rules.policy().into_iter().chain(retention::plain(ages)).collect() }
    }

    /// Limits of log entries, pushed or exported.
    pub fn push_limits(&self) -> PushLimits {
        let kept = self.retention_policy().age_max(Signal::Logs, None);
        let asked = self.loki.reject_old_samples.then_some(self.loki.reject_old_samples_max_age.0);
        PushLimits {
            // What is kept for ever is never too old.
            reject_old: kept.map(|kept| asked.map_or(kept, |asked| asked.min(kept))),
            reject_future: self.ingest.future_max.0,
            line_bytes_max: self.loki.max_line_size.bytes(),
            line_truncate: self.loki.max_line_size_truncate,
            label_names_max: self.loki.max_label_names_per_series,
            discover_service_name: self.loki.discover_service_name,
            ..PushLimits::default()
        }
    }

    /// The settings as YAML, each with its explanation.
    pub fn to_yaml(&self) -> String {
        settings::to_yaml(self)
    }

    fn apply(&mut self, key: &str, raw: &Raw) -> Result<(), Error> {
        let setting = settings::SETTINGS.iter().find(|setting| setting.key == key).ok_or_else(|| {
            Error::unknown("configuration key", key, settings::SETTINGS.iter().map(|setting| setting.key))
        })?;
        (setting.set)(self, raw).map_err(|expected| {
            let shown = match raw {
                Raw::Text(text) => text.clone(),
                Raw::List(list) => list.join(", "),
            };
            Error::new(format!("`{key}` cannot be `{shown}`: {expected}"))
        })
    }

    fn check(&mut self) -> Result<(), Error> {
        if self.http_connections_max == 0 || self.http_silence_max.is_zero() {
            return Err(Error::new("`http_connections_max` and `http_silence_max` cannot be 0: nobody could connect"));
        }
        if self.query.concurrency == 0 {
            return Err(Error::new("`query.concurrency` cannot be 0: no query could ever run"));
        }
        if self.traces.generator_interval.is_zero() {
            return Err(Error::new(
                "`traces.generator_interval` cannot be 0: use 15s, or switch `traces.metrics_generator` off",
            ));
        }
        if self.storage.orphan_grace < self.storage.vacuum_grace {
            return Err(Error::new("`storage.orphan_grace` cannot be shorter than `storage.vacuum_grace`"));
        }
        if self.store.starts_with("memory:") && self.read_only {
            return Err(Error::new("`read_only` needs a `store` that another process can fill, not memory://"));
        }
        self.otlp.lookback = self.prometheus.lookback.0;
        Ok(())
    }
}

/// Builds the configuration.
pub fn load(file: Option<&Path>, environment: &Environment, flags: &[(&str, String)]) -> Result<Config, Error> {
    let mut config = Config::default();
    if let Some(path) = file {
        for (key, raw) in source::read_file(path)? {
            config.apply(&key, &raw).map_err(|e| Error::new(format!("{}: {e}", path.display())))?;
        }
    }
    for (key, raw) in environment.settings()? {
        config.apply(&key, &raw).map_err(|e| Error::new(format!("{}: {e}", source::variable(&key))))?;
    }
    for (key, value) in flags {
        let flag = format!("--{}", key.replace('_', "-"));
        config.apply(key, &Raw::Text(value.clone())).map_err(|e| Error::new(format!("{flag}: {e}")))?;
    }
    config.check()?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_yaml(text: &str) -> Result<Config, Error> {
        let mut config = Config::default();
        for (key, raw) in source::parse_yaml(text)? {
            config.apply(&key, &raw)?;
        }
        config.check()?;
        Ok(config)
    }

    #[test]
    fn flags_win_over_variables_and_variables_over_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tercet.yaml");
        std::fs::write(&path, "http: a:1\ndata: /file\nloki:\n  reject_old_samples: false\n").expect("writes");
        let variables = Environment::new(
            [("TERCET_HTTP", "b:2"), ("TERCET_DATA", "/variable"), ("TERCET_CONFIG", "x"), ("OTHER", "y")]
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let config = load(Some(&path), &variables, &[("http", "c:3".to_owned())]).expect("loads");
        assert_eq!(config.http, "c:3");
        assert_eq!(config.data, PathBuf::from("/variable"));
        assert!(!config.loki.reject_old_samples);
    }

    #[test]
    fn unknown_keys_are_refused_with_the_nearest_known_one() {
        let error = from_yaml("loki: {reject_old_sample: false}").expect_err("refused");
        assert_eq!(
            error.to_string(),
            "unknown configuration key `loki.reject_old_sample`; did you mean `loki.reject_old_samples`?"
        );
        let variables = Environment::new([("TERCET_HTPP".to_owned(), "x".to_owned())]);
        let error = load(None, &variables, &[]).expect_err("refused");
        assert_eq!(error.to_string(), "unknown environment variable `TERCET_HTPP`; did you mean `TERCET_HTTP`?");
    }

    #[test]
    fn variables_that_kubernetes_sets_are_not_ours() {
        let names = ["TERCET_PORT", "TERCET_SERVICE_HOST", "TERCET_SERVICE_PORT_HTTP", "TERCET_PORT_4317_TCP_ADDR"];
        let variables = Environment::new(names.map(|name| (name.to_owned(), "tcp://10.0.0.1:9090".to_owned())));
        assert!(load(None, &variables, &[]).is_ok());
    }

    #[test]
    fn values_of_the_wrong_form_name_their_key() {
        let error = from_yaml("query: {memory: lots}").expect_err("refused").to_string();
        assert!(error.starts_with("`query.memory` cannot be `lots`: "), "{error}");
        let error = from_yaml("- a").expect_err("refused").to_string();
        assert!(error.starts_with("the file must be a map"), "{error}");
        assert!(from_yaml("http: [a, b]").is_err());
        assert!(from_yaml("http: {a: b}").is_err());
    }

    #[test]
    fn logs_kept_for_ever_are_never_too_old() {
        let old =
            |text: &str| from_yaml(text).expect("loads").push_limits().reject_old.map(|age| age.as_secs() / 86_400);
        assert_eq!(old(""), Some(7));
        assert_eq!(old("retention: 0"), None);
        assert_eq!(old("retention: 3d"), Some(3));
        assert_eq!(old("loki: {reject_old_samples: false}"), Some(30));
    }

    #[test]
    fn one_retention_or_three() {
        let config = from_yaml("retention: 0").expect("loads");
        assert!(config.retention.metrics.is_zero() && config.retention.traces.is_zero());
        let config = from_yaml("retention: {logs: 1d}").expect("loads");
        assert_eq!((config.retention.logs, config.retention.traces), (Span::days(1), Span::days(14)));
    }

    #[test]
    fn the_printed_configuration_reads_back() {
        let mut config = Config { http: "0.0.0.0:80".into(), ..Config::default() };
        config.otlp.promote_resource_attributes = vec!["a.b".into(), "c".into()];
        let text = config.to_yaml();
        let back = from_yaml(&text).expect("reads back");
        assert_eq!(back.to_yaml(), text);
        assert!(
            text.contains("http: \"0.0.0.0:80\"") && text.contains("promote_resource_attributes: [\"a.b\", \"c\"]"),
            "{text}"
        );
    }

    #[test]
    fn every_setting_is_also_a_variable() {
        for setting in settings::SETTINGS {
            assert!(!setting.doc.is_empty() && setting.doc.ends_with('.'), "{}", setting.key);
            let value = match (setting.show)(&Config::default()) {
                Some(Raw::Text(text)) => text,
                Some(Raw::List(list)) => list.join(","),
                None => continue,
            };
            let variables = Environment::new([(source::variable(setting.key), value)]);
            load(None, &variables, &[]).expect("the default of each setting can be set by its variable");
        }
    }
}

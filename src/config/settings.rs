//! The table of settings: one row per key.
//!
//! Owns: keys, explanations, and how texts become values. File, environment, flags and `tercet config` read the same
//! rows.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use generator::Histograms;
use proto::otlp::metrics::TranslationStrategy;
use storage::model::value::string_text;

use super::memory::MemoryLimit;
use super::retention::Rules;
use super::source::{Raw, variable};
use super::units::{Size, Span, parse_duration_ms};
use super::{Config, Listen};

/// One row.
pub struct Setting {
    /// Dotted key.
    pub key: &'static str,
    /// One or two sentences.
    pub doc: &'static str,
    /// Sets it; the error says what is expected.
    pub set: fn(&mut Config, &Raw) -> Result<(), String>,
    /// Its value; `None` for a key that only stands for others.
    pub show: fn(&Config) -> Option<Raw>,
}

/// A type that settings have.
trait Form: Sized {
    fn read(raw: &Raw) -> Result<Self, String>;
    fn show(&self) -> Raw;
}

macro_rules! rows {
    ($($key:literal => $($field:ident).+ : $doc:literal;)*) => {
        &[
            Setting {
                key: "retention",
                doc: "How long all three signals are kept, such as 90d; 0 keeps everything.",
                set: |config, raw| {
                    let span = Span::read(raw)?;
                    let super::Retention { metrics, logs, traces, rules: _ } = &mut config.retention;
                    (*metrics, *logs, *traces) = (span, span, span);
                    Ok(())
                },
                show: |_| None,
            },
            $(Setting {
                key: $key,
                doc: $doc,
                set: |config, raw| {
                    config.$($field).+ = Form::read(raw)?;
                    Ok(())
                },
                show: |config| Some(Form::show(&config.$($field).+)),
            },)*
        ]
    };
}

/// All settings, top-level keys first, then section by section.
pub static SETTINGS: &[Setting] = rows! {
    "data" => data: "Folder of the write-ahead log and the caches.";
    "store" => store: "Where the tables are: a path, or a gs://, s3://, az:// or memory:// URL. Empty: a folder inside `data`.";
    "http" => http: "Address of the HTTP port that serves everything. Loopback by default: there is no authentication.";
    "http_connections_max" => http_connections_max: "Connections of one port at once; further ones wait until another ends.";
    "http_silence_max" => http_silence_max: "A connection on which no byte moves for so long is closed; longer than any query may take. One that never sent a byte is closed after 30s.";
    "otlp_grpc" => otlp_grpc: "Address of OTLP over gRPC, or `off`.";
    "otlp_http" => otlp_http: "Address of OTLP over HTTP, or `off`. The HTTP port takes the same requests.";
    "log" => log: "What is logged to standard error: error, warn, info, debug, trace, or a filter such as `info,storage=debug`.";
    "read_only" => read_only: "Only reads the tables of another process: takes no data, writes nothing.";
    "tenancy" => tenancy: "Whether the header X-Scope-OrgID separates tenants; it is then required. Off: one tenant, header ignored.";
    "shutdown_grace" => shutdown_grace: "How long a stop may take until all is flushed.";
    "retention.metrics" => retention.metrics: "How long samples are kept; 0 keeps everything.";
    "retention.logs" => retention.logs: "How long log entries are kept; 0 keeps everything and takes entries of any age.";
    "retention.traces" => retention.traces: "How long spans are kept; 0 keeps everything.";
    "retention.rules" => retention.rules: "Exceptions: a list of maps with signal, tenant, match (a list such as 'app=\"x\"'), age, bytes. The first rule that fits wins, before the ages above.";
    "memory.limit" => memory.limit: "Memory that Tercet takes: a size, or a part of what the container or the machine allows, such as 75%. It is divided into the shares below, `query.memory` and `ingest.inflight_bytes_max`, each of which is at most its part of it.";
    "memory.heads" => memory.heads: "Share of data that no table has yet, of all signals; when it is full, ingestion answers 429. At most 25 % of `memory.limit`.";
    "memory.wal_queue" => memory.wal_queue: "Share of data that waits for the write-ahead logs; further data waits before them. At most 5 % of `memory.limit`.";
    "memory.flush" => memory.flush: "Share of files that are made from data in memory; further ones wait. At most 15 % of `memory.limit`.";
    "memory.compaction" => memory.compaction: "Share of files that are being rewritten; further ones wait. At most 15 % of `memory.limit`.";
    "memory.caches" => memory.caches: "Share of what is remembered of the tables' files. At most 10 % of `memory.limit`.";
    "storage.flush_age_max" => storage.flush_age_max: "Data older than this is moved from memory into the tables.";
    "storage.head_bytes_max" => storage.head_bytes_max: "Memory of a signal's head; a larger head is moved into the tables.";
    "storage.unflushed_bytes_max" => storage.unflushed_bytes_max: "Memory of a signal's data that no table has yet at which ingestion answers 429; a few times `head_bytes_max`.";
    "storage.wal_bytes_max" => storage.wal_bytes_max: "Size of a signal's write-ahead log at which ingestion answers 429 until the tables take data again.";
    "storage.refresh_age_max" => storage.refresh_age_max: "How old the view of the tables may be: what other processes flushed is seen within this time. Each look costs one read of an object.";
    "storage.gcs_endpoint" => storage.gcs_endpoint: "Base URL of a server that speaks the protocol of Google Cloud Storage and asks for no credentials, for gs:// stores. Empty: Google's, or what STORAGE_EMULATOR_HOST names.";
    "storage.gcs_credentials" => storage.gcs_credentials: "File with the key of a Google service account, for gs:// stores. Empty: what the environment names, then the metadata server.";
    "storage.disk_cache_bytes_max" => storage.disk_cache_bytes_max: "Disk space in `data` for what was lately read from and written to a bucket; 0 for none. A store in a folder needs none.";
    "storage.request_timeout" => storage.request_timeout: "Longest single request to a bucket.";
    "storage.request_deadline" => storage.request_deadline: "How long a request to a bucket is tried again while it fails in ways that pass.";
    "storage.upkeep_interval" => storage.upkeep_interval: "How often the tables are looked at for what is too old, too much or deleted.";
    "storage.vacuum_interval" => storage.vacuum_interval: "How often a table's folder is listed for files that nobody needs.";
    "storage.vacuum_grace" => storage.vacuum_grace: "How long a file stays after the tables gave it up: longer than any query.";
    "storage.orphan_grace" => storage.orphan_grace: "How long a file stays that no table ever named, such as one that a crash left: longer than any flush may take.";
    "storage.writer_id" => storage.writer_id: "Name of this writer in the tables. Empty: a random one, kept in the data folder.";
    "ingest.inflight_bytes_max" => ingest.inflight_bytes_max: "Share of request bodies held in memory at once; more are answered 429. At most 10 % of `memory.limit`.";
    "ingest.future_max" => ingest.future_max: "Samples and log entries further ahead of the clock than this are refused. Spans are not.";
    "ingest.remote_write_bytes_max" => ingest.remote_write_bytes_max: "Largest remote-write body, packed and unpacked.";
    "ingest.loki_bytes_max" => ingest.loki_bytes_max: "Largest Loki push body, packed and unpacked.";
    "ingest.otlp_bytes_max" => ingest.otlp_bytes_max: "Largest OTLP request, unpacked.";
    "query.concurrency" => query.concurrency: "Queries that run at once; more wait while their timeout runs.";
    "query.memory_per_query" => query.memory_per_query: "Memory one query may hold; beyond it that query fails alone.";
    "query.memory" => query.memory: "Share of all queries together; one that others leave no room is answered 429. At most 20 % of `memory.limit`.";
    "query.answer_bytes_max" => query.answer_bytes_max: "Largest answer, before it is packed.";
    "prometheus.timeout" => prometheus.timeout: "Longest PromQL query; a request may ask for less.";
    "prometheus.lookback" => prometheus.lookback: "How far an instant selector looks back for a sample.";
    "prometheus.evaluation_interval" => prometheus.evaluation_interval: "Step of subqueries that name none.";
    "prometheus.samples_max" => prometheus.samples_max: "Samples one PromQL query may hold at once.";
    "prometheus.admin_api" => prometheus.admin_api: "Whether /api/v1/admin/tsdb deletes series. There is no authentication.";
    "loki.timeout" => loki.timeout: "Longest LogQL query.";
    "loki.reject_old_samples" => loki.reject_old_samples: "Whether entries older than `reject_old_samples_max_age` are refused. With `retention.logs` 0 none is too old.";
    "loki.reject_old_samples_max_age" => loki.reject_old_samples_max_age: "See `reject_old_samples`.";
    "loki.discover_service_name" => loki.discover_service_name: "Whether `service_name` is set from other labels when a stream lacks it.";
    "loki.max_line_size" => loki.max_line_size: "Longest log line; 0 takes any.";
    "loki.max_line_size_truncate" => loki.max_line_size_truncate: "Whether longer lines are cut instead of refused.";
    "loki.max_label_names_per_series" => loki.max_label_names_per_series: "Most labels of a log stream, service_name not counted.";
    "loki.max_entries_limit_per_query" => loki.max_entries_limit_per_query: "Most entries one log query may ask for.";
    "loki.max_query_series" => loki.max_query_series: "Most series one LogQL metric query may give.";
    "loki.deletion" => loki.deletion: "Whether /loki/api/v1/delete deletes entries. There is no authentication.";
    "tempo.timeout" => tempo.timeout: "Longest TraceQL query.";
    "tempo.search_duration_max" => tempo.search_duration_max: "Longest range of a search; 0 allows any.";
    "tempo.search_default_range" => tempo.search_default_range: "Range of a search that names none, counted back from now.";
    "traces.metrics_generator" => traces.metrics_generator: "Whether span metrics and the service graph are made of the spans that come in, as series of the same tenant.";
    "traces.generator_interval" => traces.generator_interval: "How often the samples of generated metrics are written.";
    "traces.generator_slack" => traces.generator.slack: "Spans that ended longer ago than this make no metrics.";
    "traces.generator_wait" => traces.generator.wait: "How long one side of a call waits for the other before the service graph gives it up.";
    "traces.generator_edges_max" => traces.generator.edges_max: "Most sides of calls that wait at once.";
    "traces.generator_series_max" => traces.generator.series_max: "Most combinations of labels of span metrics, and of the service graph; further ones are left out and counted.";
    "traces.generator_idle_max" => traces.generator.idle_max: "Generated series without spans for so long end.";
    "traces.generator_dimensions" => traces.generator.dimensions: "Attributes of the resource, or else of the span, that become labels of span metrics.";
    "traces.generator_exemplar_label" => traces.generator.exemplar_label: "Label of generated exemplars that holds the trace id; Grafana's data source names it.";
    "traces.generator_histograms" => traces.generator.histograms: "Which histograms are generated: classic, native or both. Grafana reads native ones as soon as there are any.";
    "otlp.translation_strategy" => otlp.translation_strategy: "How OTLP metric and label names become Prometheus': UnderscoreEscapingWithSuffixes, UnderscoreEscapingWithoutSuffixes, NoUTF8EscapingWithSuffixes or NoTranslation.";
    "otlp.promote_resource_attributes" => otlp.promote_resource_attributes: "Resource attributes that become labels of every series.";
    "otlp.promote_all_resource_attributes" => otlp.promote_all_resource_attributes: "Whether every resource attribute becomes a label, except `ignore_resource_attributes`.";
    "otlp.ignore_resource_attributes" => otlp.ignore_resource_attributes: "See `promote_all_resource_attributes`.";
    "otlp.promote_scope_metadata" => otlp.promote_scope_metadata: "Whether name, version and attributes of the scope become `otel_scope_…` labels.";
    "otlp.keep_identifying_resource_attributes" => otlp.keep_identifying_resource_attributes: "Whether `target_info` also carries service.name, service.namespace and service.instance.id.";
    "otlp.label_name_preserve_multiple_underscores" => otlp.label_name_preserve_multiple_underscores: "Whether runs of underscores in label names are kept.";
    "otlp.label_name_underscore_sanitization" => otlp.label_name_underscore_sanitization: "Whether a label name with one leading underscore gets `key` in front.";
    "otlp.convert_histograms_to_nhcb" => otlp.convert_histograms_to_nhcb: "Whether classic histograms become native ones with custom bounds.";
    "otlp.type_and_unit_labels" => otlp.type_and_unit_labels: "Whether series carry the labels __type__ and __unit__.";
};

fn text(raw: &Raw) -> Result<&str, String> {
    match raw {
        Raw::Text(text) => Ok(text),
        Raw::List(_) => Err("a single value is expected, not a list".into()),
    }
}

impl Form for String {
    fn read(raw: &Raw) -> Result<Self, String> {
        text(raw).map(str::to_owned)
    }

    fn show(&self) -> Raw {
        Raw::Text(self.clone())
    }
}

impl Form for PathBuf {
    fn read(raw: &Raw) -> Result<Self, String> {
        match text(raw)? {
            "" => Err("a folder is expected".into()),
            path => Ok(Self::from(path)),
        }
    }

    fn show(&self) -> Raw {
        Raw::Text(self.display().to_string())
    }
}

impl Form for Listen {
    fn read(raw: &Raw) -> Result<Self, String> {
        match text(raw)? {
            "off" | "" | "false" => Ok(Self(None)),
            address => Ok(Self(Some(address.to_owned()))),
        }
    }

    fn show(&self) -> Raw {
        Raw::Text(self.to_string())
    }
}

impl Form for bool {
    fn read(raw: &Raw) -> Result<Self, String> {
        match text(raw)? {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err("true or false is expected".into()),
        }
    }

    fn show(&self) -> Raw {
        Raw::Text(self.to_string())
    }
}

impl Form for usize {
    fn read(raw: &Raw) -> Result<Self, String> {
        text(raw)?.parse().map_err(|_| "a whole number is expected".into())
    }

    fn show(&self) -> Raw {
        Raw::Text(self.to_string())
    }
}

impl Form for Span {
    fn read(raw: &Raw) -> Result<Self, String> {
        parse_duration_ms(text(raw)?)
            .map(|ms| Self(Duration::from_millis(ms)))
            .ok_or_else(|| "a duration such as 10m, 1h30m or 30d is expected".into())
    }

    fn show(&self) -> Raw {
        Raw::Text(self.to_string())
    }
}

impl Form for Duration {
    fn read(raw: &Raw) -> Result<Self, String> {
        Span::read(raw).map(|span| span.0)
    }

    fn show(&self) -> Raw {
        Span(*self).show()
    }
}

/// The kinds of histograms by name.
const HISTOGRAMS: [(&str, Histograms); 3] =
    [("classic", Histograms::Classic), ("native", Histograms::Native), ("both", Histograms::Both)];

impl Form for Histograms {
    fn read(raw: &Raw) -> Result<Self, String> {
        let name = text(raw)?;
        let found = HISTOGRAMS.iter().find_map(|(known, kind)| (*known == name).then_some(*kind));
        found.ok_or_else(|| "classic, native or both is expected".into())
    }

    fn show(&self) -> Raw {
        let name = HISTOGRAMS.iter().find_map(|(name, kind)| (kind == self).then_some(*name));
        Raw::Text(name.unwrap_or_default().to_owned())
    }
}

impl Form for Size {
    fn read(raw: &Raw) -> Result<Self, String> {
        Self::parse(text(raw)?).ok_or_else(|| "a size such as 64MiB or 10GB is expected".into())
    }

    fn show(&self) -> Raw {
        Raw::Text(self.to_string())
    }
}

impl Form for MemoryLimit {
    fn read(raw: &Raw) -> Result<Self, String> {
        Self::parse(text(raw)?).ok_or_else(|| "a size such as 2GiB or a part such as 75% is expected".into())
    }

    fn show(&self) -> Raw {
        Raw::Text(self.to_string())
    }
}

impl Form for Vec<String> {
    fn read(raw: &Raw) -> Result<Self, String> {
        Ok(match raw {
            Raw::List(list) => list.clone(),
            Raw::Text(text) => {
                text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
            }
        })
    }

    fn show(&self) -> Raw {
        Raw::List(self.clone())
    }
}

impl Form for Rules {
    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::List(list) if list.is_empty() => Ok(Self::default()),
            raw => Self::parse(text(raw)?),
        }
    }

    fn show(&self) -> Raw {
        Raw::Text(self.show())
    }
}

/// The strategies by name.
const STRATEGIES: [(&str, TranslationStrategy); 4] = [
    ("UnderscoreEscapingWithSuffixes", TranslationStrategy::UnderscoreEscapingWithSuffixes),
    ("UnderscoreEscapingWithoutSuffixes", TranslationStrategy::UnderscoreEscapingWithoutSuffixes),
    ("NoUTF8EscapingWithSuffixes", TranslationStrategy::NoUtf8EscapingWithSuffixes),
    ("NoTranslation", TranslationStrategy::NoTranslation),
];

impl Form for TranslationStrategy {
    fn read(raw: &Raw) -> Result<Self, String> {
        let name = text(raw)?;
        STRATEGIES
            .iter()
            .find_map(|(known, strategy)| (*known == name).then_some(*strategy))
            .ok_or_else(|| format!("one of {} is expected", STRATEGIES.map(|(name, _)| name).join(", ")))
    }

    fn show(&self) -> Raw {
        let name = STRATEGIES.iter().find_map(|(name, strategy)| (strategy == self).then_some(*name));
        Raw::Text(name.unwrap_or_default().to_owned())
    }
}

/// All settings as YAML, each below its explanation and the name of its variable.
pub fn to_yaml(config: &Config) -> String {
    let mut out = String::new();
    let mut section = "";
    for setting in SETTINGS {
        let Some(value) = (setting.show)(config) else { continue };
        let (head, name) = setting.key.rsplit_once('.').unwrap_or(("", setting.key));
        if head != section {
            let _ = writeln!(out, "\n{head}:");
            section = head;
        }
        let indent = if head.is_empty() { "" } else { "  " };
        let value = match value {
            Raw::Text(text) => string_text(&text),
            Raw::List(list) => {
                format!("[{}]", list.iter().map(|item| string_text(item)).collect::<Vec<_>>().join(", "))
            }
        };
        let _ = writeln!(out, "{indent}# {} ({})\n{indent}{name}: {value}", setting.doc, variable(setting.key));
    }
    out
}

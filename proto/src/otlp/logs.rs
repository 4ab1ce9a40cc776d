//! OTLP log records to entries.
//!
//! Owns: which attributes become labels of the stream and which structured metadata. Does not own: limits and levels
//! (`loki_push`), which hold for both protocols.
//!
//! Invariant: all records of one resource share one stream.

use std::borrow::Cow;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs};
use serde::Deserialize;
use storage::model::matcher::{MatchOp, Matcher};
use storage::model::time::TimestampNs;

use super::value::{flatten, value_text};
use crate::error::Result;
use crate::level::SEVERITY_NUMBER;
use crate::loki_push::{Acceptor, Decoded, Pairs, PushLimits, Stream, acceptor};
use crate::names::metadata_name;

/// Resource attributes that become labels unless the configuration says otherwise.
pub const INDEX_ATTRIBUTES: [&str; 18] = [
    "service.name",
    "service.namespace",
    "service.instance.id",
    "deployment.environment",
    "deployment.environment.name",
    "cloud.region",
    "cloud.availability_zone",
    "k8s.cluster.name",
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.container.name",
    "container.name",
    "k8s.replicaset.name",
    "k8s.deployment.name",
    "k8s.statefulset.name",
    "k8s.daemonset.name",
    "k8s.cronjob.name",
    "k8s.job.name",
];

/// What becomes of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A label of the stream; only for attributes of resources.
    IndexLabel,
    /// Structured metadata of the entry.
    StructuredMetadata,
    /// Not kept.
    Drop,
}

/// What becomes of the attributes it names or matches.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RuleText")]
pub struct AttributeRule {
    action: Action,
    attributes: Vec<String>,
    regex: Option<Matcher>,
}

/// A rule as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    action: Action,
    #[serde(default)]
    attributes: Vec<String>,
    #[serde(default)]
    regex: Option<String>,
}

impl TryFrom<RuleText> for AttributeRule {
    type Error = String;

    fn try_from(text: RuleText) -> Result<Self, String> {
        let regex = match text.regex {
            Some(pattern) => Some(Matcher::new("", MatchOp::Regex, pattern).map_err(|e| e.to_string())?),
            None => None,
        };
        Ok(Self { action: text.action, attributes: text.attributes, regex })
    }
}

impl AttributeRule {
    /// A rule for the attributes of these names.
    pub fn named<'a>(action: Action, names: impl IntoIterator<Item = &'a str>) -> Self {
        Self { action, attributes: names.into_iter().map(str::to_owned).collect(), regex: None }
    }

    fn holds_for(&self, name: &str) -> bool {
        self.attributes.iter().any(|attribute| attribute == name)
            || self.regex.as_ref().is_some_and(|regex| regex.matches(name))
    }
}

/// Rules for attributes, by where they stand; of several that hold the first counts, without one it is
/// structured metadata.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpLogsSettings {
    /// For attributes of resources.
    pub resource_attributes: Vec<AttributeRule>,
    /// For attributes of scopes; `index_label` means structured metadata here.
    pub scope_attributes: Vec<AttributeRule>,
    /// For attributes of records; `index_label` means structured metadata here.
    pub log_attributes: Vec<AttributeRule>,
}

impl Default for OtlpLogsSettings {
    fn default() -> Self {
        Self {
            resource_attributes: vec![AttributeRule::named(Action::IndexLabel, INDEX_ATTRIBUTES)],
            scope_attributes: Vec::new(),
            log_attributes: Vec::new(),
        }
    }
}

fn action(rules: &[AttributeRule], name: &str) -> Action {
    rules.iter().find(|rule| rule.holds_for(name)).map_or(Action::StructuredMetadata, |rule| rule.action)
}

/// Decodes an export of logs. `now` is the time of records that carry none.
pub fn decode(
    request: &ExportLogsServiceRequest,
    settings: &OtlpLogsSettings,
    limits: &PushLimits,
    now: TimestampNs,
) -> Result<Decoded> {
    let mut acceptor = acceptor(limits, now);
    for resource in &request.resource_logs {
        read_resource(resource, settings, now, &mut acceptor);
    }
    acceptor.finish()
}

fn read_resource(logs: &ResourceLogs, settings: &OtlpLogsSettings, now: TimestampNs, acceptor: &mut Acceptor<'_>) {
    let attributes = logs.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
    let mut labels = Pairs::new();
    let mut of_resource = Pairs::new();
    for attribute in attributes {
        let target = match action(&settings.resource_attributes, &attribute.key) {
            Action::IndexLabel => &mut labels,
            Action::StructuredMetadata => &mut of_resource,
            Action::Drop => continue,
        };
        flatten(std::slice::from_ref(attribute), |name, value| target.push((stored_name(name), value)));
    }
    // Two attributes may become one label; that is no fault of the sender.
    labels.sort_by(|a, b| a.0.cmp(&b.0));
    labels.dedup_by(|later, earlier| later.0 == earlier.0);
    acceptor.count_stream();
    let mut stream = acceptor.stream(labels);
    for scope_logs in &logs.scope_logs {
        let of_scope = scope_logs.scope.as_ref().map(|scope| scope_metadata(scope, settings)).unwrap_or_default();
        let mut metadata = Pairs::new();
        for record in &scope_logs.log_records {
            record_metadata(record, settings, &mut metadata);
            metadata.extend(of_scope.iter().chain(&of_resource).map(|(name, value)| borrowed(name, value)));
            read_record(record, now, &mut stream, &mut metadata, acceptor);
        }
    }
}

fn stored_name(name: Cow<'_, str>) -> Cow<'_, str> {
    match name {
        Cow::Borrowed(name) => metadata_name(name),
        Cow::Owned(name) => Cow::Owned(metadata_name(&name).into_owned()),
    }
}

fn borrowed<'a>(name: &'a str, value: &'a str) -> (Cow<'a, str>, Cow<'a, str>) {
    (Cow::Borrowed(name), Cow::Borrowed(value))
}

fn scope_metadata<'a>(scope: &'a InstrumentationScope, settings: &OtlpLogsSettings) -> Pairs<'a> {
    let mut pairs = Pairs::new();
    keep(&scope.attributes, &settings.scope_attributes, &mut pairs);
    for (name, value) in [("scope_name", &scope.name), ("scope_version", &scope.version)] {
        if !value.is_empty() {
            pairs.push(borrowed(name, value));
        }
    }
    number(&mut pairs, "scope_dropped_attributes_count", scope.dropped_attributes_count.into());
    pairs
}

fn keep<'a>(attributes: &'a [KeyValue], rules: &[AttributeRule], pairs: &mut Pairs<'a>) {
    for attribute in attributes {
        if action(rules, &attribute.key) != Action::Drop {
            flatten(std::slice::from_ref(attribute), |name, value| pairs.push((stored_name(name), value)));
        }
    }
}

/// Adds a number that is not 0.
fn number(pairs: &mut Pairs<'_>, name: &'static str, value: i64) {
    if value != 0 {
        pairs.push((Cow::Borrowed(name), Cow::Owned(value.to_string())));
    }
}

/// What stands on the record itself. Of equal names the first will count.
fn record_metadata<'a>(record: &'a LogRecord, settings: &OtlpLogsSettings, pairs: &mut Pairs<'a>) {
    pairs.clear();
    if !record.event_name.is_empty() {
        pairs.push(borrowed("event_name", &record.event_name));
    }
    keep(&record.attributes, &settings.log_attributes, pairs);
    if record.time_unix_nano != 0 && record.observed_time_unix_nano != 0 {
        let observed = record.observed_time_unix_nano.to_string();
        pairs.push((Cow::Borrowed("observed_timestamp"), Cow::Owned(observed)));
    }
    number(pairs, SEVERITY_NUMBER, record.severity_number.into());
    if !record.severity_text.is_empty() {
        pairs.push(borrowed("severity_text", &record.severity_text));
    }
    number(pairs, "dropped_attributes_count", record.dropped_attributes_count.into());
    number(pairs, "flags", record.flags.into());
    for (name, id) in [("trace_id", &record.trace_id), ("span_id", &record.span_id)] {
        // Without a trace some senders write zeros.
        if id.iter().any(|byte| *byte != 0) {
            pairs.push((Cow::Borrowed(name), Cow::Owned(hex::encode(id))));
        }
    }
}

fn read_record<'a>(
    record: &'a LogRecord,
    now: TimestampNs,
    stream: &mut Stream,
    metadata: &mut Pairs<'a>,
    acceptor: &mut Acceptor<'_>,
) {
    let ts = match (record.time_unix_nano, record.observed_time_unix_nano) {
        (0, 0) => now,
        // A time beyond 64 bits is far in the future and refused as such.
        (0, ns) | (ns, _) => TimestampNs(i64::try_from(ns).unwrap_or(i64::MAX)),
    };
    acceptor.entry(stream, ts, &value_text(record.body.as_ref()), metadata);
}

#[cfg(test)]
mod tests;

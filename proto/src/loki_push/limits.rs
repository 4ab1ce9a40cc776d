//! Limits of a push and the list of what was refused because of them.
//!
//! Owns: defaults, names of reasons. Does not own: the texts of single refusals (`accept`).

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// Limits on streams and entries. Durations are written as `7d`, `1h30m`, `600s`; `0` switches one off.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PushLimits {
    /// Labels per stream, `service_name` not counted.
    pub label_names_max: usize,
    /// Bytes of one label name.
    pub label_name_bytes_max: usize,
    /// Bytes of one label value.
    pub label_value_bytes_max: usize,
    /// Bytes of one line; 0 means any.
    pub line_bytes_max: usize,
    /// Cut longer lines instead of refusing them.
    pub line_truncate: bool,
    /// Whether entries may carry structured metadata.
    pub structured_metadata_allowed: bool,
    /// Bytes of one entry's structured metadata, names and values.
    pub structured_metadata_bytes_max: usize,
    /// Pairs of one entry's structured metadata.
    pub structured_metadata_pairs_max: usize,
    /// Refuse entries older than this.
    #[serde(deserialize_with = "optional_duration")]
    pub reject_old: Option<Duration>,
    /// Refuse entries that lie further ahead than this.
    #[serde(deserialize_with = "duration")]
    pub reject_future: Duration,
    /// Give streams without `service_name` one.
    pub discover_service_name: bool,
    /// Labels that give a service its name, the first that is there counts.
    pub service_name_labels: Vec<String>,
    /// Give every entry `detected_level`.
    pub discover_level: bool,
}

const SERVICE_NAME_LABELS: [&str; 13] = [
    "service",
    "application",
    "app",
    "app_name",
    "name",
    "app_kubernetes_io_name",
    "container",
    "container_name",
    "k8s_container_name",
    "component",
    "workload",
    "job",
    "k8s_job_name",
];

impl Default for PushLimits {
    fn default() -> Self {
        Self {
            label_names_max: 15,
            label_name_bytes_max: 1024,
            label_value_bytes_max: 2048,
            line_bytes_max: 256 << 10,
            line_truncate: false,
            structured_metadata_allowed: true,
            structured_metadata_bytes_max: 64 << 10,
            structured_metadata_pairs_max: 128,
            reject_old: Some(Duration::from_secs(7 * 86_400)),
            reject_future: Duration::from_secs(600),
            discover_service_name: true,
            service_name_labels: SERVICE_NAME_LABELS.map(str::to_owned).to_vec(),
            discover_level: true,
        }
    }
}

/// Reads `1w2d3h4m5s6ms` or `0`, larger units first not required.
fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|digits| *digits > 0)?;
        let count: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let ms: u64 = match &rest[..unit] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return None,
        };
        total = total.checked_add(Duration::from_millis(count.checked_mul(ms)?))?;
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(total)
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text)
        .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no duration; write for example `7d` or `10m`")))
}

fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let given = duration(deserializer)?;
    Ok((!given.is_zero()).then_some(given))
}

/// Why an entry or a stream was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A stream without labels.
    MissingLabels,
    /// Too many labels.
    LabelNames,
    /// A label name that is too long.
    LabelName,
    /// A label value that is too long.
    LabelValue,
    /// A label name twice.
    DuplicateLabel,
    /// Too old.
    Old,
    /// Too far ahead.
    Future,
    /// A line that is too long.
    Line,
    /// Structured metadata where none is allowed.
    MetadataDisallowed,
    /// Too many bytes of structured metadata.
    MetadataBytes,
    /// Too many pairs of structured metadata.
    MetadataPairs,
}

impl Reason {
    /// The name that counters carry; dashboards for the original know these words.
    pub fn name(self) -> &'static str {
        match self {
            Self::MissingLabels => "missing_labels",
            Self::LabelNames => "max_label_names_per_series",
            Self::LabelName => "label_name_too_long",
            Self::LabelValue => "label_value_too_long",
            Self::DuplicateLabel => "duplicate_label_names",
            Self::Old => "greater_than_max_sample_age",
            Self::Future => "too_far_in_future",
            Self::Line => "line_too_long",
            Self::MetadataDisallowed => "disallowed_structured_metadata",
            Self::MetadataBytes => "structured_metadata_too_large",
            Self::MetadataPairs => "structured_metadata_too_many",
        }
    }
}

/// All that was refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The text of the first one.
    pub message: String,
    /// How many times: per stream when its labels are at fault, else per entry.
    pub times: usize,
    /// Entries that are not stored for it.
    pub entries: usize,
    /// Bytes of these entries.
    pub bytes: usize,
}

/// What was refused, grouped by reason in the order of first occurrence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    groups: Vec<Refusal>,
}

impl Refusals {
    /// Counts one refusal; `message` is called for the first of its reason.
    pub(super) fn add(&mut self, reason: Reason, message: impl FnOnce() -> String) {
        match self.groups.iter_mut().find(|group| group.reason == reason) {
            Some(group) => group.times += 1,
            None => self.groups.push(Refusal { reason, message: message(), times: 1, entries: 0, bytes: 0 }),
        }
    }

    /// Counts an entry that is not stored for `reason`, which was added before.
    pub(super) fn add_entry(&mut self, reason: Reason, bytes: usize) {
        if let Some(group) = self.groups.iter_mut().find(|group| group.reason == reason) {
            group.entries += 1;
            group.bytes += bytes;
        }
    }

    /// Whether nothing was refused.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// One element per reason.
    pub fn groups(&self) -> &[Refusal] {
        &self.groups
    }

    /// The text of the answer: the first of each reason, with its count when there were more.
    pub fn message(&self) -> String {
        let one = |group: &Refusal| match group.times {
            1 => group.message.clone(),
            times => format!("{times} errors like: {}", group.message),
        };
        self.groups.iter().map(one).collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_from_configuration() {
        let limits: PushLimits =
            serde_json::from_str(r#"{"line_bytes_max":10,"reject_old":"0","reject_future":"1h30m"}"#).unwrap();
        let expected = PushLimits {
            line_bytes_max: 10,
            reject_old: None,
            reject_future: Duration::from_secs(5400),
            ..PushLimits::default()
        };
        assert_eq!(limits, expected);
        for wrong in [r#"{"nope":1}"#, r#"{"reject_old":"7 days"}"#, r#"{"reject_future":""}"#, r#"{"reject_old":"d"}"#]
        {
            assert!(serde_json::from_str::<PushLimits>(wrong).is_err(), "{wrong}");
        }
    }
}

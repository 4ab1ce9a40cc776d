//! The one gate for entries: labels, limits, service names and levels, then into the batch.
//!
//! Owns: what is checked, in which order, and the texts of refusals. Does not own: wire forms (`json`,
//! `protobuf`, `otlp::logs`), which all pass here.

use std::borrow::Cow;

use storage::model::batch::LogsBuilder;
use storage::model::identity::IdentityId;
use storage::model::labels::Labels;
use storage::model::time::{NS_PER_S, TimestampNs};

use super::limits::{PushLimits, Reason, Refusals};
use super::{Decoded, Window, shortened};
use crate::error::{Error, Result};
use crate::level::{self, DETECTED_LEVEL};
use crate::names::metadata_name;

/// Names and values as they came: labels of a stream or structured metadata of an entry.
pub(crate) type Pairs<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// The text of a refusal for a quoted stream.
type Message = Box<dyn Fn(&str) -> String>;

/// The label that names a stream's service.
pub(crate) const SERVICE_NAME: &str = "service_name";
/// Its value when nothing names one.
const UNKNOWN_SERVICE: &str = "unknown_service";
/// The most bytes of labels, names and values that a refusal quotes.
const QUOTE_BYTES_MAX: usize = 2048;

/// A stream of the request.
pub(crate) struct Stream {
    labels: Labels,
    level: Option<Cow<'static, str>>,
    /// Known from the first accepted entry on.
    id: Option<IdentityId>,
    /// Why none of its entries is taken.
    refused: Option<Reason>,
}

/// Takes the streams and entries of one request.
pub(crate) struct Acceptor<'l> {
    limits: &'l PushLimits,
    window: Window,
    builder: LogsBuilder,
    refused: Refusals,
    streams: usize,
    lines: usize,
    bytes: usize,
    fault: Option<Error>,
}

impl<'l> Acceptor<'l> {
    pub(super) fn new(limits: &'l PushLimits, window: Window) -> Self {
        Self {
            limits,
            window,
            builder: LogsBuilder::new(),
            refused: Refusals::default(),
            streams: 0,
            lines: 0,
            bytes: 0,
            fault: None,
        }
    }

    /// Counts a stream that was sent.
    pub(crate) fn count_stream(&mut self) {
        self.streams += 1;
    }

    /// Checks a stream's labels, whose names are valid.
    pub(crate) fn stream(&mut self, mut pairs: Pairs<'_>) -> Stream {
        pairs.retain(|(_, value)| !value.is_empty());
        if self.limits.discover_service_name && !pairs.iter().any(|(name, _)| name == SERVICE_NAME) {
            let found = self.limits.service_name_labels.iter().find_map(|wanted| {
                pairs.iter().find_map(|(name, value)| (name == wanted.as_str()).then(|| value.clone()))
            });
            pairs.push((Cow::Borrowed(SERVICE_NAME), found.unwrap_or(Cow::Borrowed(UNKNOWN_SERVICE))));
        }
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        let fault = self.label_fault(&pairs);
        let labels = Labels::from_pairs(pairs.iter().map(|(name, value)| (name.as_ref(), value.as_ref())));
        if let Some((reason, message)) = &fault {
            self.refused.add(*reason, || message(&quote(&labels)));
        }
        let level = if self.limits.discover_level { level::of_labels(&labels) } else { None };
        Stream { level, id: None, refused: fault.map(|(reason, _)| reason), labels }
    }

    /// The first rule that sorted `pairs` break, and its text for a quoted stream.
    fn label_fault(&self, pairs: &Pairs<'_>) -> Option<(Reason, Message)> {
        if pairs.is_empty() {
            let text = "error at least one label pair is required per stream";
            return Some((Reason::MissingLabels, Box::new(move |_| text.to_owned())));
        }
        let count = pairs.iter().filter(|(name, _)| name != SERVICE_NAME).count();
        let limit = self.limits.label_names_max;
        if count > limit {
            let text = move |s: &str| format!("entry for stream '{s}' has {count} label names; limit {limit}");
            return Some((Reason::LabelNames, Box::new(text)));
        }
        let mut last: Option<&str> = None;
        for (name, value) in pairs {
            let owned = |text: &str| shortened(text, QUOTE_BYTES_MAX).to_owned();
            if name.len() > self.limits.label_name_bytes_max {
                let name = owned(name);
                let text = move |s: &str| format!("stream '{s}' has label name too long: '{name}'");
                return Some((Reason::LabelName, Box::new(text)));
            }
            if value.len() > self.limits.label_value_bytes_max {
                let value = owned(value);
                let text = move |s: &str| format!("stream '{s}' has label value too long: '{value}'");
                return Some((Reason::LabelValue, Box::new(text)));
            }
            if last == Some(name.as_ref()) {
                let name = owned(name);
                let text = move |s: &str| format!("stream '{s}' has duplicate label name: '{name}'");
                return Some((Reason::DuplicateLabel, Box::new(text)));
            }
            last = Some(name.as_ref());
        }
        None
    }

    /// Takes an entry of `stream` or refuses it. Of metadata with the same normalised name the first stays;
    /// `metadata` is left empty.
    pub(crate) fn entry<'a>(&mut self, stream: &mut Stream, ts: TimestampNs, line: &str, metadata: &mut Pairs<'a>) {
        let line = match self.limits.line_bytes_max {
            limit if self.limits.line_truncate && limit > 0 => shortened(line, limit),
            _ => line,
        };
        let metadata_bytes: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        let bytes = line.len() + metadata_bytes;
        let reason = match stream.refused {
            Some(reason) => Some(reason),
            None => self.entry_fault(stream, ts, line, metadata.len(), metadata_bytes),
        };
        if let Some(reason) = reason {
            self.refused.add_entry(reason, bytes);
            metadata.clear();
            return;
        }
        normalise_names(metadata);
        if self.limits.discover_level {
            set_level(stream, line, metadata);
        }
        sort_unique(metadata);
        let builder = &mut self.builder;
        let id = *stream.id.get_or_insert_with(|| builder.stream(stream.labels.clone()));
        let pairs = metadata.iter().map(|(name, value)| (name.as_ref(), value.as_ref()));
        if let Err(fault) = builder.entry(id, ts, line, pairs) {
            self.fault.get_or_insert(fault.into());
        }
        metadata.clear();
        self.lines += 1;
        self.bytes += bytes;
    }

    /// The first rule that an entry breaks; counted and told.
    fn entry_fault(
        &mut self,
        stream: &Stream,
        ts: TimestampNs,
        line: &str,
        pairs: usize,
        metadata_bytes: usize,
    ) -> Option<Reason> {
        let limits = self.limits;
        let (oldest, newest) = (self.window.oldest, self.window.newest);
        let mut refuse = |reason: Reason, text: &dyn Fn(&str) -> String| {
            self.refused.add(reason, || text(&quote(&stream.labels)));
            Some(reason)
        };
        if let Some(oldest) = oldest.filter(|oldest| ts < *oldest) {
            let (ts, oldest) = (rfc3339(ts), rfc3339(oldest));
            return refuse(Reason::Old, &|s| {
                format!("entry for stream '{s}' has timestamp too old: {ts}, oldest acceptable timestamp is: {oldest}")
            });
        }
        if ts > newest {
            let ts = rfc3339(ts);
            return refuse(Reason::Future, &|s| format!("entry for stream '{s}' has timestamp too new: {ts}"));
        }
        let (limit, length) = (limits.line_bytes_max, line.len());
        if limit > 0 && length > limit {
            return refuse(Reason::Line, &|s| {
                format!(
                    "max entry size '{limit}' bytes exceeded for stream '{s}' while adding an entry with length \
                     '{length}' bytes"
                )
            });
        }
        if pairs == 0 {
            return None;
        }
        if !limits.structured_metadata_allowed {
            return refuse(Reason::MetadataDisallowed, &|s| {
                format!(
                    "stream '{s}' includes structured metadata, but this feature is disallowed. \
                     The setting is `structured_metadata_allowed`."
                )
            });
        }
        let limit = limits.structured_metadata_bytes_max;
        if metadata_bytes > limit {
            return refuse(Reason::MetadataBytes, &|s| {
                format!(
                    "stream '{s}' has structured metadata too large: '{metadata_bytes}' bytes, limit: '{limit}' \
                     bytes. The setting is `structured_metadata_bytes_max`."
                )
            });
        }
        let limit = limits.structured_metadata_pairs_max;
        if pairs > limit {
            return refuse(Reason::MetadataPairs, &|s| {
                format!(
                    "stream '{s}' has too many structured metadata labels: '{pairs}', limit: '{limit}'. \
                     The setting is `structured_metadata_pairs_max`."
                )
            });
        }
        None
    }

    /// What was taken and what was not.
    pub(crate) fn finish(self) -> Result<Decoded> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        Ok(Decoded {
            batch: self.builder.finish()?,
            refused: self.refused,
            streams: self.streams,
            lines: self.lines,
            bytes: self.bytes,
        })
    }
}

fn quote(labels: &Labels) -> String {
    shortened(&labels.to_string(), QUOTE_BYTES_MAX).to_owned()
}

fn rfc3339(ts: TimestampNs) -> String {
    let time = chrono::DateTime::from_timestamp(ts.0.div_euclid(NS_PER_S), 0);
    time.map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)).unwrap_or_default()
}

/// Names as they are stored; pairs without a name are dropped.
fn normalise_names(metadata: &mut Pairs<'_>) {
    metadata.retain(|(name, _)| !name.is_empty());
    for (name, _) in metadata {
        let normal = match metadata_name(name) {
            Cow::Owned(normal) => Some(normal),
            Cow::Borrowed(_) => None,
        };
        if let Some(normal) = normal {
            *name = Cow::Owned(normal);
        }
    }
}

/// Adds `detected_level`, or normalises the one that is there.
fn set_level(stream: &Stream, line: &str, metadata: &mut Pairs<'_>) {
    let detected = level::detect(stream.level.as_deref(), metadata, line);
    let known = level::normalise(detected).or((detected == level::UNKNOWN).then_some(level::UNKNOWN));
    let detected = match known {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(detected.to_owned()),
    };
    match metadata.iter_mut().find(|(name, _)| name == DETECTED_LEVEL) {
        Some((_, value)) => *value = detected,
        None => metadata.push((Cow::Borrowed(DETECTED_LEVEL), detected)),
    }
}

/// Orders by name: the same metadata sent in another order is the same entry.
fn sort_unique(metadata: &mut Pairs<'_>) {
    if metadata.len() > 1 {
        metadata.sort_by(|a, b| a.0.cmp(&b.0));
        metadata.dedup_by(|later, earlier| later.0 == earlier.0);
    }
}

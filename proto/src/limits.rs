//! Limits of what decoders take, and the list of what they refused.

use serde::Deserialize;
use storage::model::time::TimestampMs;

use crate::error::{Error, Result};

/// How many lines about refused items one answer carries; the rest is only counted.
pub const REJECTION_LINES_MAX: usize = 100;

/// How many buckets weigh as much as one sample.
pub const BUCKETS_PER_SAMPLE: usize = 4;

/// Limits on metrics of one request. What is over a limit of a series is rejected with that series; what is over
/// a limit of the request rejects the request.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Labels per series, `__name__` included.
    pub labels_per_series_max: usize,
    /// Bytes of one label name.
    pub label_name_bytes_max: usize,
    /// Bytes of one label value.
    pub label_value_bytes_max: usize,
    /// Series per request.
    pub series_per_request_max: usize,
    /// Samples, histograms and exemplars per request, together; a histogram counts once more for every
    /// [`BUCKETS_PER_SAMPLE`] of its buckets.
    pub samples_per_request_max: usize,
    /// Bytes of the names and values of all series of a request together, as they are after symbols are looked
    /// up and names translated: a small body can stand for much more.
    pub label_bytes_per_request_max: usize,
    /// Symbols of a remote write 2.0 request.
    pub symbols_per_request_max: usize,
    /// Buckets of one histogram on either side of zero.
    pub histogram_buckets_max: usize,
    /// Bytes of one help text; a longer one is cut.
    pub help_bytes_max: usize,
    /// Samples later than this are rejected; the server sets it from its clock.
    #[serde(skip)]
    pub future_max: Option<TimestampMs>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            labels_per_series_max: 256,
            label_name_bytes_max: 1024,
            label_value_bytes_max: 32 * 1024,
            series_per_request_max: 1_000_000,
            samples_per_request_max: 4_000_000,
            label_bytes_per_request_max: 256 * 1024 * 1024,
            symbols_per_request_max: 2_000_000,
            histogram_buckets_max: 10_000,
            help_bytes_max: 4096,
            future_max: None,
        }
    }
}

/// What was refused: one line each, what and which series, up to [`REJECTION_LINES_MAX`]; all are counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejections {
    /// The first lines.
    pub lines: Vec<String>,
    /// How many there were in all.
    pub total: usize,
}

impl Rejections {
    /// Adds one; `line` is built only while it is kept.
    pub fn push(&mut self, line: impl FnOnce() -> String) {
        self.total += 1;
        if self.lines.len() < REJECTION_LINES_MAX {
            self.lines.push(line());
        }
    }

    /// Whether nothing was refused.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The lines, one below the other, with a last one that counts those left out.
    pub fn text(&self) -> String {
        let mut text = self.lines.join("\n");
        if self.total > self.lines.len() {
            text.push_str(&format!("\n{} more", self.total - self.lines.len()));
        }
        text
    }
}

/// How much of the limits of one request is used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    series: usize,
    label_bytes: usize,
    samples: usize,
}

impl Usage {
    /// One more series with so many bytes of labels.
    pub(crate) fn series(&mut self, label_bytes: usize, limits: &Limits) -> Result<()> {
        self.series += 1;
        self.label_bytes = self.label_bytes.saturating_add(label_bytes);
        if self.series > limits.series_per_request_max {
            return Err(over("series_per_request_max", limits.series_per_request_max));
        }
        if self.label_bytes > limits.label_bytes_per_request_max {
            return Err(over("label_bytes_per_request_max", limits.label_bytes_per_request_max));
        }
        Ok(())
    }

    /// So many more samples.
    pub(crate) fn samples(&mut self, count: usize, limits: &Limits) -> Result<()> {
        self.samples = self.samples.saturating_add(count);
        if self.samples > limits.samples_per_request_max {
            return Err(over("samples_per_request_max", limits.samples_per_request_max));
        }
        Ok(())
    }
}

fn over(name: &str, limit: usize) -> Error {
    Error::too_large(format!("the request is over {name} {limit}: send smaller batches"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_all_are_counted() {
        let mut rejections = Rejections::default();
        (0..REJECTION_LINES_MAX + 2).for_each(|i| rejections.push(|| i.to_string()));
        assert_eq!(rejections.total, REJECTION_LINES_MAX + 2);
        assert!(rejections.text().ends_with("\n99\n2 more"));
    }

    #[test]
    fn a_request_over_a_limit_names_it() {
        let limits = Limits { series_per_request_max: 1, samples_per_request_max: 2, ..Limits::default() };
        let mut usage = Usage::default();
        assert!(usage.series(3, &limits).is_ok());
        assert!(usage.series(3, &limits).unwrap_err().message().contains("series_per_request_max 1"));
        assert!(usage.samples(3, &limits).unwrap_err().message().contains("samples_per_request_max 2"));
    }

    #[test]
    fn unknown_settings_are_refused() {
        let limits: Limits = serde_json::from_str(r#"{"labels_per_series_max": 7}"#).unwrap();
        assert_eq!(limits, Limits { labels_per_series_max: 7, ..Limits::default() });
        assert!(serde_json::from_str::<Limits>(r#"{"labels_max": 7}"#).is_err());
    }
}

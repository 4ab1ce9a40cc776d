//! Warnings and infos of an evaluation, each once, with the place they are about.
//!
//! Owns: their texts, as the original words them.

use std::hash::Hash;

use hashbrown::HashSet;
use indexmap::IndexMap;

use super::super::ast::position;
use super::super::lexer::quote;

/// What is collected while a query runs.
#[derive(Debug)]
pub(in crate::promql) struct Notices {
    text: String,
    hasher: ahash::RandomState,
    known: HashSet<u64, ahash::RandomState>,
    warnings: Vec<String>,
    infos: Vec<String>,
    forced: IndexMap<(String, usize), Forced>,
}

/// Buckets that were made monotonic at one place.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::promql) struct Forced {
    /// Lowest bound that was changed.
    pub from: f64,
    /// Highest bound that was changed.
    pub to: f64,
    /// Largest difference.
    pub difference: f64,
    /// First time, milliseconds.
    pub first: i64,
    /// Last time, milliseconds.
    pub last: i64,
    /// How many histograms.
    pub count: usize,
}

impl Notices {
    /// None yet, for a query of `text`.
    pub fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            hasher: ahash::RandomState::with_seeds(1, 2, 3, 4),
            known: HashSet::default(),
            warnings: Vec::new(),
            infos: Vec::new(),
            forced: IndexMap::new(),
        }
    }

    fn is_new(&mut self, key: impl Hash) -> bool {
        self.known.insert(self.hasher.hash_one(key))
    }

    /// Adds a warning about the byte `at`, unless it is known.
    pub fn warn(&mut self, at: usize, message: impl AsRef<str>) {
        let message = message.as_ref();
        if self.is_new(("warning", at, message)) {
            self.warnings.push(format!("PromQL warning: {message} ({})", position(&self.text, at)));
        }
    }

    /// Adds an info about the byte `at`, unless it is known.
    pub fn info(&mut self, at: usize, message: impl AsRef<str>) {
        let message = message.as_ref();
        if self.is_new(("info", at, message)) {
            self.infos.push(format!("PromQL info: {message} ({})", position(&self.text, at)));
        }
    }

    /// Adds one histogram whose buckets had to be made monotonic.
    pub fn forced(&mut self, at: usize, metric: &str, one: Forced) {
        let entry = self.forced.entry((metric.to_owned(), at)).or_insert_with(|| Forced { count: 0, ..one.clone() });
        entry.from = entry.from.min(one.from);
        entry.to = entry.to.max(one.to);
        entry.difference = entry.difference.max(one.difference);
        entry.first = entry.first.min(one.first);
        entry.last = entry.last.max(one.last);
        entry.count += one.count;
    }

    /// Warnings and infos, complete.
    pub fn finish(mut self) -> (Vec<String>, Vec<String>) {
        const LINK: &str = "https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile";
        for ((metric, at), forced) in std::mem::take(&mut self.forced) {
            let time = |ms: i64| {
                chrono::DateTime::from_timestamp_millis(ms)
                    .map(|t| t.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
                    .unwrap_or_default()
            };
            let message = format!(
                "input to histogram_quantile needed to be fixed for monotonicity (see {LINK}){}, from buckets {} to \
                 {}, with a max diff of {}, over {} samples from {} to {}",
                for_metric(&metric),
                short(forced.from),
                short(forced.to),
                short_digits(forced.difference, 2),
                forced.count,
                time(forced.first),
                time(forced.last)
            );
            self.info(at, message);
        }
        (self.warnings, self.infos)
    }
}

/// `%g`
pub(super) fn short(value: f64) -> String {
    super::super::number::format_literal(value)
}

/// `%.<digits>g`
fn short_digits(value: f64, digits: usize) -> String {
    if value == 0.0 || !value.is_finite() {
        return short(value);
    }
    let rounded: f64 = format!("{value:.*e}", digits.saturating_sub(1)).parse().unwrap_or(value);
    let exponent = rounded.abs().log10().floor();
    if exponent < -4.0 || exponent >= digits as f64 {
        let text = format!("{rounded:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        return format!("{mantissa}e{sign}{exponent:0>2}");
    }
    format!("{rounded}")
}

/// ` for metric name "x"`, or nothing without a name.
pub(super) fn for_metric(metric: &str) -> String {
    if metric.is_empty() { String::new() } else { format!(" for metric name {}", quote(metric)) }
}

/// Notices about one series at one place.
pub(in crate::promql) struct Notes<'a> {
    /// Where they go.
    pub notices: &'a mut Notices,
    /// The byte they are about.
    pub at: usize,
    /// The metric they are about.
    pub metric: &'a str,
}

impl Notes<'_> {
    /// Floats and histograms in one window.
    pub fn mixed(&mut self) {
        let message = format!("encountered a mix of histograms and floats{}", for_metric(self.metric));
        self.notices.warn(self.at, message);
    }

    /// Exponential and custom buckets in one window.
    pub fn mixed_schemas(&mut self) {
        let metric = for_metric(self.metric);
        let message =
            format!("vector contains a mix of histograms with exponential and custom buckets schemas{metric}");
        self.notices.warn(self.at, message);
    }

    /// A gauge histogram where a counter is needed.
    pub fn not_a_counter(&mut self) {
        self.notices.warn(self.at, format!("this native histogram metric is not a counter: {}", quote(self.metric)));
    }

    /// A counter histogram where a gauge is needed.
    pub fn not_a_gauge(&mut self) {
        self.notices.warn(self.at, format!("this native histogram metric is not a gauge: {}", quote(self.metric)));
    }

    /// Histograms that follow a reset and others that do not were combined.
    pub fn collision(&mut self, operation: &str) {
        self.notices.warn(self.at, format!("conflicting counter resets during histogram {operation}"));
    }

    /// A start time before the time of the sample before.
    pub fn overlapping_start(&mut self) {
        let metric = quote(self.metric);
        let message = format!("sample has start time that overlaps with previous sample timestamp for metric {metric}");
        self.notices.warn(self.at, message);
    }

    /// Custom buckets of several layouts were brought together.
    pub fn reconciled(&mut self, operation: &str) {
        self.notices.info(self.at, format!("mismatched custom buckets were reconciled during {operation}"));
    }

    /// Histograms beside floats were left out.
    pub fn ignored_histograms(&mut self) {
        let message =
            format!("ignored histograms in a range containing both floats and histograms{}", for_metric(self.metric));
        self.notices.info(self.at, message);
    }

    /// A name that no counter should have.
    pub fn possibly_not_a_counter(&mut self) {
        if self.metric.is_empty() {
            return;
        }
        let message = format!(
            "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {}",
            quote(self.metric)
        );
        self.notices.info(self.at, message);
    }

    /// A quantile outside 0 to 1.
    pub fn invalid_quantile(&mut self, quantile: f64) {
        self.notices.warn(self.at, format!("quantile value should be between 0 and 1, got {}", short(quantile)));
    }
}

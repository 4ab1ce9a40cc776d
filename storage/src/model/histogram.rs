//! Native histograms: exponential (schema −4 to 8) and custom bounds (schema −53), counts as doubles.
//!
//! Owns: the shape that storage keeps. Does not own: arithmetic and quantiles (crate `query`), decoding and
//! validation of wire forms (crate `proto`). Format: Prometheus' native histogram as in remote write.

/// The schema number of histograms with custom bounds.
pub const SCHEMA_CUSTOM: i32 = -53;

/// The bits of Prometheus' staleness marker; a histogram is stale when its sum has them.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The staleness marker.
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// Whether `value` is the staleness marker, bit for bit; ordinary NaNs are not.
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// A run of neighbouring buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketSpan {
    /// First: index of its first bucket. Later: empty buckets between it and the one before.
    pub offset: i32,
    /// Number of buckets.
    pub length: u32,
}

/// What is known about a counter reset before a histogram sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ResetHint {
    /// Not known: compare with the sample before.
    #[default]
    Unknown,
    /// A reset happened.
    Reset,
    /// No reset happened.
    NotReset,
    /// A gauge: resets have no meaning.
    Gauge,
}

impl ResetHint {
    /// The number of remote write's enum.
    pub fn to_number(self) -> i32 {
        match self {
            Self::Unknown => 0,
            Self::Reset => 1,
            Self::NotReset => 2,
            Self::Gauge => 3,
        }
    }

    /// From remote write's enum; unknown numbers are [`ResetHint::Unknown`].
    pub fn from_number(number: i32) -> Self {
        match number {
            1 => Self::Reset,
            2 => Self::NotReset,
            3 => Self::Gauge,
            _ => Self::Unknown,
        }
    }
}

/// One histogram sample. Bucket counts are absolute (not deltas, not cumulative).
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Histogram {
    /// −4 to 8, or [`SCHEMA_CUSTOM`].
    pub schema: i32,
    /// Observations in total.
    pub count: f64,
    /// Sum of observations.
    pub sum: f64,
    /// Upper bound of the zero bucket's magnitude.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// Runs of positive buckets.
    pub positive_spans: Vec<BucketSpan>,
    /// Counts of positive buckets, in the order of the runs.
    pub positive_buckets: Vec<f64>,
    /// Runs of negative buckets.
    pub negative_spans: Vec<BucketSpan>,
    /// Counts of negative buckets.
    pub negative_buckets: Vec<f64>,
    /// Upper bounds of custom buckets, ascending, without +Inf.
    pub custom_values: Vec<f64>,
    /// What the sender said about resets.
    pub reset_hint: ResetHint,
    /// Whether the sender sent fractional counts (a float histogram).
    pub float: bool,
}

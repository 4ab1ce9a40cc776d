//! The syntax tree of LogQL: pure values with their places in the text.
//!
//! Owns: the nodes. Does not own: what they mean (`check`, `plan`), how they print (`print`).
//! Invariant: nodes nest at most [`DEPTH_MAX`] deep, so that walking them by recursion is safe.

use storage::model::matcher::MatchOp;

use crate::error::SourceSpan;

/// The deepest nesting that the parser builds.
pub const DEPTH_MAX: usize = 96;

/// A whole query.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// Gives entries.
    Log(LogExpr),
    /// Gives samples.
    Metric(MetricExpr),
}

/// A selector and its pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct LogExpr {
    /// ANDed tests on stream labels.
    pub matchers: Vec<LabelTest>,
    /// What happens to each entry, in order.
    pub stages: Vec<Stage>,
    /// Its place.
    pub span: SourceSpan,
}

/// `name op "value"`
#[derive(Clone, Debug, PartialEq)]
pub struct LabelTest {
    /// Label.
    pub name: String,
    /// How it compares.
    pub op: MatchOp,
    /// With what.
    pub value: String,
    /// Its place.
    pub span: SourceSpan,
}

/// One stage of a pipeline with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// What it does.
    pub kind: StageKind,
    /// Its place.
    pub span: SourceSpan,
}

/// What a stage does.
#[derive(Clone, Debug, PartialEq)]
pub enum StageKind {
    /// `|= "x" or "y"`
    LineFilter(LineOp, Vec<LineNeedle>),
    /// `json` or, with extractions, `json a="b.c"`
    Json(Vec<Extraction>),
    /// `logfmt --strict --keep-empty a="b"`
    Logfmt {
        /// Stop at the first fault.
        strict: bool,
        /// Keep keys without value.
        keep_empty: bool,
        /// Only these.
        extractions: Vec<Extraction>,
    },
    /// `regexp "…"`
    Regexp(String),
    /// `pattern "…"`
    Pattern(String),
    /// `unpack`
    Unpack,
    /// `a="b" and c > 5`
    LabelFilter(LabelFilter),
    /// `line_format "…"`
    LineFormat(String),
    /// `label_format a=b, c="…"`
    LabelFormat(Vec<Assignment>),
    /// `decolorize`
    Decolorize,
    /// `drop a, b="x"`
    Drop(Vec<LabelPick>),
    /// `keep a, b="x"`
    Keep(Vec<LabelPick>),
}

/// How a line filter compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineOp {
    /// `|=`
    Contains,
    /// `!=`
    NotContains,
    /// `|~`
    Regex,
    /// `!~`
    NotRegex,
    /// `|>`
    Pattern,
    /// `!>`
    NotPattern,
}

impl LineOp {
    /// As written.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Contains => "|=",
            Self::NotContains => "!=",
            Self::Regex => "|~",
            Self::NotRegex => "!~",
            Self::Pattern => "|>",
            Self::NotPattern => "!>",
        }
    }

    /// The operator written `sign`.
    pub fn of_sign(sign: &str) -> Option<Self> {
        [Self::Contains, Self::NotContains, Self::Regex, Self::NotRegex, Self::Pattern, Self::NotPattern]
            .into_iter()
            .find(|op| op.sign() == sign)
    }

    /// Whether it keeps the lines that do not match.
    pub fn negated(self) -> bool {
        matches!(self, Self::NotContains | Self::NotRegex | Self::NotPattern)
    }
}

/// One alternative of a line filter.
#[derive(Clone, Debug, PartialEq)]
pub enum LineNeedle {
    /// `"x"`
    Text(String),
    /// `ip("x")`
    Ip(String),
}

/// `name="path"`, or `name` alone, which stands for itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Extraction {
    /// The label to set.
    pub name: String,
    /// Where its value is.
    pub path: String,
}

/// A test of a label's value within a pipeline. Chains are flat, so that a long one is not deep.
#[derive(Clone, Debug, PartialEq)]
pub enum LabelFilter {
    /// All hold.
    And(Vec<LabelFilter>),
    /// One holds.
    Or(Vec<LabelFilter>),
    /// `a="b"`
    Text(LabelTest),
    /// `a > 5`
    Number(String, CompareOp, f64),
    /// `a > 5m`, in nanoseconds.
    Duration(String, CompareOp, i64),
    /// `a > 5KB`
    Bytes(String, CompareOp, u64),
    /// `a = ip("…")`; the flag is set for `!=`.
    Ip(String, bool, String),
}

/// How numbers compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareOp {
    /// `=` or `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
}

impl CompareOp {
    /// As label filters print it.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
        }
    }

    /// The operator written `sign`; `=` is `==`.
    pub fn of_sign(sign: &str) -> Option<Self> {
        Some(match sign {
            "=" | "==" => Self::Equal,
            "!=" => Self::NotEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            _ => return None,
        })
    }

    /// Whether `left op right` holds; nothing but `!=` holds for NaN.
    pub fn holds<T: PartialOrd>(self, left: T, right: T) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
        }
    }
}

/// `name=source` or `name="template"`
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// The label to set.
    pub name: String,
    /// From what.
    pub source: AssignmentSource,
}

/// From what a label is set.
#[derive(Clone, Debug, PartialEq)]
pub enum AssignmentSource {
    /// Another label, which goes away.
    Label(String),
    /// A template.
    Template(String),
}

/// What `drop` and `keep` name.
#[derive(Clone, Debug, PartialEq)]
pub enum LabelPick {
    /// A label.
    Name(String),
    /// A label whose value passes.
    Test(LabelTest),
}

/// A query that gives samples.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricExpr {
    /// `rate({…}[5m])`
    Range(Box<RangeAggregation>),
    /// `sum by (a) (…)`
    Vector(Box<VectorAggregation>),
    /// `a + b`
    Binary(Box<BinaryExpr>),
    /// `label_replace(…)`
    LabelReplace(Box<LabelReplace>),
    /// `1.5`
    Literal(f64, SourceSpan),
    /// `vector(1.5)`
    Constant(f64, SourceSpan),
}

/// An aggregation over time.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeAggregation {
    /// Which.
    pub op: RangeOp,
    /// φ of `quantile_over_time`.
    pub parameter: Option<f64>,
    /// Over what.
    pub log: LogExpr,
    /// Where the value comes from, if not from counting.
    pub unwrap: Option<Unwrap>,
    /// Length of the window.
    pub range_ns: i64,
    /// How far it lies in the past.
    pub offset_ns: i64,
    /// Labels of the result.
    pub grouping: Option<Grouping>,
    /// Its place.
    pub span: SourceSpan,
}

macro_rules! named {
    ($(#[$doc:meta])* $type:ident { $($(#[$case_doc:meta])* $case:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $type { $($(#[$case_doc])* $case,)* }

        impl $type {
            /// As written.
            pub fn name(self) -> &'static str {
                match self { $(Self::$case => $name,)* }
            }

            /// The one written `name`.
            pub fn of_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$case),)* _ => None }
            }
        }
    };
}

named! {
    /// Aggregations over time.
    RangeOp {
        /// Entries.
        Count = "count_over_time",
        /// Entries, or the sum of values, by second.
        Rate = "rate",
        /// Growth of a counter by second.
        RateCounter = "rate_counter",
        /// Bytes of lines.
        Bytes = "bytes_over_time",
        /// Bytes of lines by second.
        BytesRate = "bytes_rate",
        /// Sum.
        Sum = "sum_over_time",
        /// Mean.
        Avg = "avg_over_time",
        /// Smallest.
        Min = "min_over_time",
        /// Largest.
        Max = "max_over_time",
        /// Standard deviation of the population.
        Stddev = "stddev_over_time",
        /// Variance of the population.
        Stdvar = "stdvar_over_time",
        /// Quantile.
        Quantile = "quantile_over_time",
        /// Earliest.
        First = "first_over_time",
        /// Latest.
        Last = "last_over_time",
        /// 1 where there is nothing.
        Absent = "absent_over_time",
    }
}

named! {
    /// Aggregations over series.
    VectorOp {
        /// Sum.
        Sum = "sum",
        /// Mean.
        Avg = "avg",
        /// Smallest.
        Min = "min",
        /// Largest.
        Max = "max",
        /// How many.
        Count = "count",
        /// Standard deviation of the population.
        Stddev = "stddev",
        /// Variance of the population.
        Stdvar = "stdvar",
        /// The k largest.
        Topk = "topk",
        /// The k smallest.
        Bottomk = "bottomk",
        /// The k largest, possibly estimated.
        ApproxTopk = "approx_topk",
        /// Ascending.
        Sort = "sort",
        /// Descending.
        SortDesc = "sort_desc",
    }
}

named! {
    /// Binary operators.
    BinaryOp {
        /// Union.
        Or = "or",
        /// Intersection.
        And = "and",
        /// Difference.
        Unless = "unless",
        /// Comparison.
        Equal = "==",
        /// Comparison.
        NotEqual = "!=",
        /// Comparison.
        Greater = ">",
        /// Comparison.
        GreaterOrEqual = ">=",
        /// Comparison.
        Less = "<",
        /// Comparison.
        LessOrEqual = "<=",
        /// Arithmetic.
        Add = "+",
        /// Arithmetic.
        Sub = "-",
        /// Arithmetic.
        Mul = "*",
        /// Arithmetic.
        Div = "/",
        /// Arithmetic.
        Mod = "%",
        /// Arithmetic, binds to the right.
        Pow = "^",
    }
}

impl BinaryOp {
    /// How tightly it binds.
    pub fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And | Self::Unless => 2,
            Self::Add | Self::Sub => 4,
            Self::Mul | Self::Div | Self::Mod => 5,
            Self::Pow => 6,
            _ => 3,
        }
    }

    /// `or`, `and`, `unless`
    pub fn is_set(self) -> bool {
        matches!(self, Self::Or | Self::And | Self::Unless)
    }

    /// The comparison, if it is one.
    pub fn comparison(self) -> Option<CompareOp> {
        CompareOp::of_sign(self.name())
    }
}

/// `| unwrap conversion(label) | filter…`
#[derive(Clone, Debug, PartialEq)]
pub struct Unwrap {
    /// The label that holds the value.
    pub label: String,
    /// How its text is read.
    pub conversion: Conversion,
    /// Filters that follow.
    pub filters: Vec<LabelFilter>,
    /// Its place.
    pub span: SourceSpan,
}

/// How an unwrapped text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    /// As a number.
    Number,
    /// `duration`: in seconds.
    Duration,
    /// `duration_seconds`: the same.
    DurationSeconds,
    /// `bytes`
    Bytes,
}

impl Conversion {
    /// As written; `None` for plain numbers.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Number => None,
            Self::Duration => Some("duration"),
            Self::DurationSeconds => Some("duration_seconds"),
            Self::Bytes => Some("bytes"),
        }
    }
}

/// `by (…)` or `without (…)`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grouping {
    /// Set for `without`.
    pub without: bool,
    /// Labels as written.
    pub labels: Vec<String>,
}

/// An aggregation over series.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorAggregation {
    /// Which.
    pub op: VectorOp,
    /// k of `topk` and its like.
    pub k: Option<usize>,
    /// Of what.
    pub operand: MetricExpr,
    /// Groups; `None` is one group (or, for `sort` and `topk`, all labels stay).
    pub grouping: Option<Grouping>,
    /// Its place.
    pub span: SourceSpan,
}

/// `left op right`
#[derive(Clone, Debug, PartialEq)]
pub struct BinaryExpr {
    /// Operator.
    pub op: BinaryOp,
    /// Whether a comparison gives 0 or 1 instead of filtering.
    pub returns_bool: bool,
    /// How series find each other.
    pub matching: Option<Matching>,
    /// Left operand.
    pub left: MetricExpr,
    /// Right operand.
    pub right: MetricExpr,
    /// Place of the operator.
    pub span: SourceSpan,
}

/// `on (…)` or `ignoring (…)`, with `group_left` or `group_right`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matching {
    /// Set for `on`.
    pub on: bool,
    /// Labels as written.
    pub labels: Vec<String>,
    /// Which side may have many.
    pub cardinality: Cardinality,
    /// Labels taken from the side that has one.
    pub include: Vec<String>,
}

/// Which side may have many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cardinality {
    /// None.
    OneToOne,
    /// `group_left`: the left one.
    ManyToOne,
    /// `group_right`: the right one.
    OneToMany,
}

/// `label_replace(operand, "destination", "replacement", "source", "regex")`
#[derive(Clone, Debug, PartialEq)]
pub struct LabelReplace {
    /// Of what.
    pub operand: MetricExpr,
    /// The label to set.
    pub destination: String,
    /// To what; `$1` is a group.
    pub replacement: String,
    /// The label to read.
    pub source: String,
    /// What it must look like as a whole.
    pub regex: String,
    /// Its place.
    pub span: SourceSpan,
}

impl MetricExpr {
    /// Its place.
    pub fn span(&self) -> SourceSpan {
        match self {
            Self::Range(node) => node.span,
            Self::Vector(node) => node.span,
            Self::Binary(node) => node.span,
            Self::LabelReplace(node) => node.span,
            Self::Literal(_, span) | Self::Constant(_, span) => *span,
        }
    }
}

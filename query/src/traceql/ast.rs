//! The syntax tree of TraceQL.
//!
//! Owns: the nodes and the names of intrinsics, functions and operators. Does not own: reading (`parser`), writing
//! (`print`), types (`check`), evaluation (`eval`).
//!
//! Invariants
//! 1. A tree is a pure value; two trees are equal when they mean the same text, whatever their places in it.
//! 2. No path from the root is longer than [`DEPTH_MAX`] nodes: recursion over a tree is bounded.

use crate::error::SourceSpan;

/// How deep expressions may nest; a chain of binary operators counts one level per operator.
pub const DEPTH_MAX: usize = 400;

/// A query.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// What is asked.
    pub root: Root,
    /// `with(name=value, …)`
    pub hints: Vec<(String, Static)>,
}

/// A search or a metrics query.
#[derive(Clone, Debug, PartialEq)]
pub enum Root {
    /// Gives spansets.
    Spansets(Pipeline),
    /// Gives series.
    Metrics(Metrics),
}

/// Stages that spansets pass one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    /// At least one.
    pub stages: Vec<Stage>,
}

/// One stage of a pipeline.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// `{…}` and operators between them.
    Spansets(Spansets),
    /// `by(expression)`
    By(Field),
    /// `coalesce()`
    Coalesce,
    /// `select(a, b)`
    Select(Vec<Reference>),
    /// `count() > 2`
    Scalar(ScalarFilter),
}

/// An expression whose value is a spanset.
#[derive(Clone, Debug, PartialEq)]
pub enum Spansets {
    /// `{ expression }`; `None` is `{}`.
    Filter(Option<Field>),
    /// `left op right`
    Binary(SpansetOp, Box<Spansets>, Box<Spansets>),
    /// `( pipeline )`
    Pipeline(Box<Pipeline>),
}

/// An operator between spansets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpansetOp {
    /// `&&`
    And,
    /// `||`
    Or,
    /// A relation of the tree, and what it keeps.
    Relation(Relation, Keep),
}

/// How a right-hand span must stand to a left-hand span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// `>`
    Child,
    /// `>>`
    Descendant,
    /// `<`
    Parent,
    /// `<<`
    Ancestor,
    /// `~`
    Sibling,
}

/// Which spans a relation keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Right-hand spans in the relation.
    Right,
    /// `!`: right-hand spans not in the relation.
    Not,
    /// `&`: both sides of the relation.
    Both,
}

/// `aggregate op constant`
#[derive(Clone, Debug, PartialEq)]
pub struct ScalarFilter {
    /// A comparison.
    pub op: BinaryOp,
    /// Left side.
    pub left: Scalar,
    /// Right side.
    pub right: Scalar,
}

/// An expression over a spanset as a whole.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// A number or a duration.
    Static(Static),
    /// `avg(expression)`; `count()` has no expression.
    Aggregate(Aggregate, Option<Field>),
    /// Arithmetic.
    Binary(BinaryOp, Box<Scalar>, Box<Scalar>),
    /// `( pipeline | aggregate )`
    Pipeline(Box<Pipeline>, Box<Scalar>),
}

/// How a spanset becomes a scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    /// `count`
    Count,
    /// `min`
    Min,
    /// `max`
    Max,
    /// `sum`
    Sum,
    /// `avg`
    Avg,
}

impl Aggregate {
    /// All of them with their names.
    pub const ALL: [(&'static str, Self); 5] =
        [("count", Self::Count), ("min", Self::Min), ("max", Self::Max), ("sum", Self::Sum), ("avg", Self::Avg)];

    /// The function's name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, aggregate)| *aggregate == self).map_or("", |(name, _)| name)
    }
}

/// An expression over one span, with its place in the text.
#[derive(Clone, Debug)]
pub struct Field {
    /// What it is.
    pub kind: FieldKind,
    /// Where it stands.
    pub span: SourceSpan,
}

/// Places do not take part in equality (invariant 1).
impl PartialEq for Field {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

/// An expression over one span.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldKind {
    /// A constant.
    Static(Static),
    /// An attribute or intrinsic.
    Reference(Reference),
    /// `!x` or `-x`
    Unary(UnaryOp, Box<Field>),
    /// `x op y`
    Binary(BinaryOp, Box<Field>, Box<Field>),
}

/// An operator before its operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnaryOp {
    /// `!`
    Not,
    /// `-`
    Neg,
}

/// An operator between two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    /// `&&`
    And,
    /// `||`
    Or,
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
}

impl BinaryOp {
    /// All of them with their signs.
    pub const ALL: [(&'static str, Self); 16] = [
        ("&&", Self::And),
        ("||", Self::Or),
        ("=", Self::Equal),
        ("!=", Self::NotEqual),
        ("<", Self::Less),
        ("<=", Self::LessEqual),
        (">", Self::Greater),
        (">=", Self::GreaterEqual),
        ("=~", Self::Regex),
        ("!~", Self::NotRegex),
        ("+", Self::Add),
        ("-", Self::Sub),
        ("*", Self::Mul),
        ("/", Self::Div),
        ("%", Self::Mod),
        ("^", Self::Pow),
    ];

    /// The operator of a sign.
    pub fn of_sign(sign: &str) -> Option<Self> {
        Self::ALL.iter().find(|(s, _)| *s == sign).map(|(_, op)| *op)
    }

    /// Its sign.
    pub fn sign(self) -> &'static str {
        Self::ALL.iter().find(|(_, op)| *op == self).map_or("", |(sign, _)| sign)
    }

    /// `&&` or `||`
    pub fn is_logical(self) -> bool {
        matches!(self, Self::And | Self::Or)
    }

    /// `=`, `!=`, `<`, `<=`, `>`, `>=`
    pub fn is_comparison(self) -> bool {
        matches!(self, Self::Equal | Self::NotEqual | Self::Less | Self::LessEqual | Self::Greater | Self::GreaterEqual)
    }

    /// `+ - * / % ^`
    pub fn is_arithmetic(self) -> bool {
        matches!(self, Self::Add | Self::Sub | Self::Mul | Self::Div | Self::Mod | Self::Pow)
    }

    /// The comparison that says the same with the sides exchanged.
    pub fn mirrored(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessEqual => Self::GreaterEqual,
            Self::Greater => Self::Less,
            Self::GreaterEqual => Self::LessEqual,
            other => other,
        }
    }
}

/// A constant.
#[derive(Clone, Debug, PartialEq)]
pub enum Static {
    /// `nil`
    Nil,
    /// `true`, `false`
    Bool(bool),
    /// `5`
    Int(i64),
    /// `5.0`
    Float(f64),
    /// `5s`, in nanoseconds
    Duration(i64),
    /// `"text"`
    String(String),
    /// `ok`, `error`, `unset`: OTLP's number
    Status(i32),
    /// `server`, …: OTLP's number
    Kind(i32),
}

/// OTLP's status numbers by word.
pub const STATUSES: [(&str, i32); 3] = [("unset", 0), ("ok", 1), ("error", 2)];

/// OTLP's span kinds by word.
pub const KINDS: [(&str, i32); 6] =
    [("unspecified", 0), ("internal", 1), ("server", 2), ("client", 3), ("producer", 4), ("consumer", 5)];

/// The word of a number in [`STATUSES`] or [`KINDS`]; unknown numbers are the first word.
pub fn word_of(words: &'static [(&'static str, i32)], number: i32) -> &'static str {
    words.iter().find(|(_, n)| *n == number).map_or(words[0].0, |(word, _)| word)
}

/// What an expression may refer to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// `span.x`
    Attribute(Attribute),
    /// `duration`
    Intrinsic(Intrinsic),
}

/// An attribute with its scope.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attribute {
    /// Where to look.
    pub scope: AttributeScope,
    /// `parent.`: of the parent span.
    pub parent: bool,
    /// The key.
    pub name: String,
}

/// Whose attribute is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttributeScope {
    /// `.x`: the span's, else the resource's.
    Any,
    /// `span.x`
    Span,
    /// `resource.x`
    Resource,
    /// `event.x`
    Event,
    /// `link.x`
    Link,
    /// `instrumentation.x`
    Instrumentation,
}

impl AttributeScope {
    /// All scopes that have a word.
    pub const ALL: [(&'static str, Self); 5] = [
        ("span", Self::Span),
        ("resource", Self::Resource),
        ("event", Self::Event),
        ("link", Self::Link),
        ("instrumentation", Self::Instrumentation),
    ];

    /// The word before the dot, or "".
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, scope)| *scope == self).map_or("", |(word, _)| word)
    }
}

/// A field every span has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names below say it all")]
pub enum Intrinsic {
    Name,
    Status,
    StatusMessage,
    Kind,
    Duration,
    SpanId,
    ParentId,
    ChildCount,
    TraceDuration,
    RootName,
    RootServiceName,
    TraceId,
    NestedSetLeft,
    NestedSetRight,
    NestedSetParent,
    EventName,
    EventTimeSinceStart,
    LinkTraceId,
    LinkSpanId,
    InstrumentationName,
    InstrumentationVersion,
    Parent,
}

impl Intrinsic {
    /// Plain name, scoped name (either may be missing) and intrinsic. The first of the two is the canonical one.
    pub const ALL: [(&'static str, &'static str, Self); 22] = [
        ("name", "span:name", Self::Name),
        ("status", "span:status", Self::Status),
        ("statusMessage", "span:statusMessage", Self::StatusMessage),
        ("kind", "span:kind", Self::Kind),
        ("duration", "span:duration", Self::Duration),
        ("", "span:id", Self::SpanId),
        ("", "span:parentID", Self::ParentId),
        ("", "span:childCount", Self::ChildCount),
        ("traceDuration", "trace:duration", Self::TraceDuration),
        ("rootName", "trace:rootName", Self::RootName),
        ("rootServiceName", "trace:rootService", Self::RootServiceName),
        ("", "trace:id", Self::TraceId),
        ("nestedSetLeft", "", Self::NestedSetLeft),
        ("nestedSetRight", "", Self::NestedSetRight),
        ("nestedSetParent", "", Self::NestedSetParent),
        ("", "event:name", Self::EventName),
        ("", "event:timeSinceStart", Self::EventTimeSinceStart),
        ("", "link:traceID", Self::LinkTraceId),
        ("", "link:spanID", Self::LinkSpanId),
        ("", "instrumentation:name", Self::InstrumentationName),
        ("", "instrumentation:version", Self::InstrumentationVersion),
        ("parent", "", Self::Parent),
    ];

    /// The intrinsic of a plain or scoped name.
    pub fn of_name(name: &str) -> Option<Self> {
        let known = |(plain, scoped, _): &&(&str, &str, Self)| !name.is_empty() && (*plain == name || *scoped == name);
        Self::ALL.iter().find(known).map(|(_, _, intrinsic)| *intrinsic)
    }

    /// The canonical name.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, _, intrinsic)| *intrinsic == self)
            .map_or("", |(plain, scoped, _)| if plain.is_empty() { scoped } else { plain })
    }
}

/// An expression whose value is a set of series.
#[derive(Clone, Debug, PartialEq)]
pub enum Metrics {
    /// `pipeline | function(…) by(…)`
    Query(Box<MetricsQuery>),
    /// A constant operand.
    Number(f64),
    /// Arithmetic between parenthesised queries and constants.
    Binary(BinaryOp, Box<Metrics>, Box<Metrics>),
    /// What follows a function.
    Then(Box<Metrics>, SecondStage),
}

/// What follows a metrics function.
#[derive(Clone, Debug, PartialEq)]
pub enum SecondStage {
    /// `topk(n)`
    TopK(i64),
    /// `bottomk(n)`
    BottomK(i64),
    /// `> 0.5`
    Filter(BinaryOp, Static),
}

/// A metrics function over a pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricsQuery {
    /// Which spans.
    pub pipeline: Pipeline,
    /// What of them.
    pub function: MetricsFunction,
    /// Grouped by what.
    pub by: Vec<Reference>,
}

/// A metrics function.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricsFunction {
    /// `rate()`
    Rate,
    /// `count_over_time()`
    Count,
    /// `min_over_time(x)`
    Min(Reference),
    /// `max_over_time(x)`
    Max(Reference),
    /// `sum_over_time(x)`
    Sum(Reference),
    /// `avg_over_time(x)`
    Avg(Reference),
    /// `quantile_over_time(x, q, …)`
    Quantile(Reference, Vec<f64>),
    /// `histogram_over_time(x)`
    Histogram(Reference),
    /// `compare({selection}, top, start, end)`
    Compare {
        /// The spans to compare with the others.
        selection: Box<Spansets>,
        /// Values listed per attribute.
        top: i64,
        /// Nanoseconds in which the selection counts.
        range: Option<(i64, i64)>,
    },
}

impl MetricsFunction {
    /// The function's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Count => "count_over_time",
            Self::Min(_) => "min_over_time",
            Self::Max(_) => "max_over_time",
            Self::Sum(_) => "sum_over_time",
            Self::Avg(_) => "avg_over_time",
            Self::Quantile(..) => "quantile_over_time",
            Self::Histogram(_) => "histogram_over_time",
            Self::Compare { .. } => "compare",
        }
    }

    /// What it measures.
    pub fn measured(&self) -> Option<&Reference> {
        match self {
            Self::Rate | Self::Count | Self::Compare { .. } => None,
            Self::Min(x) | Self::Max(x) | Self::Sum(x) | Self::Avg(x) | Self::Quantile(x, _) | Self::Histogram(x) => {
                Some(x)
            }
        }
    }
}

//! The syntax tree of a query: pure values with spans, laid flat.
//!
//! Owns: the nodes and what is known of them from the text alone. Does not own: types (`check`), printing (`print`),
//! evaluation.
//!
//! Invariants
//! 1. Nodes lie in one list, children before parents: a pass from below is a loop, whatever the depth of the
//!    expression, and dropping a tree never recurses.
//! 2. Every child index is smaller than its parent's.

use storage::model::labels::METRIC_NAME;
use storage::model::matcher::Matcher;

use super::functions::Function;
use crate::error::SourceSpan;

/// A node of one [`Ast`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub usize);

/// An expression with the text it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Ast {
    /// The text of the query.
    pub text: String,
    /// All nodes, children first.
    pub nodes: Vec<Node>,
    /// The whole expression.
    pub root: NodeId,
}

impl Ast {
    /// The expression of a node.
    pub fn expr(&self, id: NodeId) -> &Expr {
        &self.nodes[id.0].expr
    }

    /// The type of a node's value.
    pub fn kind(&self, id: NodeId) -> Type {
        self.nodes[id.0].kind
    }

    /// Where a node stands in the text.
    pub fn span(&self, id: NodeId) -> SourceSpan {
        self.nodes[id.0].span
    }

    /// `id`, or what it holds inside any number of parentheses.
    pub fn unwrap_parens(&self, mut id: NodeId) -> NodeId {
        while let Expr::Paren(inner) = self.expr(id) {
            id = *inner;
        }
        id
    }

    /// The nodes beneath `id` and itself, children first.
    pub fn subtree(&self, id: NodeId) -> Vec<NodeId> {
        let mut out = Vec::new();
        let mut open = vec![id];
        while let Some(next) = open.pop() {
            out.push(next);
            open.extend(self.expr(next).children());
        }
        out.sort_unstable();
        out
    }
}

/// One node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it stands in the text.
    pub span: SourceSpan,
    /// The type of its value.
    pub kind: Type,
    /// What it is.
    pub expr: Expr,
}

/// The types of the language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// One number per step.
    Scalar,
    /// A text.
    Text,
    /// At most one value per series and step.
    Vector,
    /// Any number of values per series and step.
    Matrix,
}

impl Type {
    /// As errors spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Text => "string",
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
        }
    }

    /// As the API spells it.
    pub fn short(self) -> &'static str {
        match self {
            Self::Vector => "vector",
            Self::Matrix => "matrix",
            _ => self.as_str(),
        }
    }
}

/// The kinds of expressions.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// A number; `duration` tells that it was written as one, in seconds.
    Number {
        /// Its value.
        value: f64,
        /// Written as `5m`, not as `300`.
        duration: bool,
    },
    /// A string.
    Text(String),
    /// An instant selector.
    Vector(Selector),
    /// A range selector.
    Matrix {
        /// What is selected.
        selector: Selector,
        /// How far back the window reaches.
        range: Duration,
    },
    /// An expression evaluated at many times.
    Subquery {
        /// What is evaluated.
        expr: NodeId,
        /// How far back the window reaches.
        range: Duration,
        /// Distance of the times; the default step when absent.
        step: Option<Duration>,
        /// `offset` and `@`.
        shift: Shift,
    },
    /// `-x` or `+x`.
    Unary {
        /// `-`, not `+`.
        negative: bool,
        /// The operand.
        expr: NodeId,
    },
    /// `(x)`
    Paren(NodeId),
    /// `l op r`
    Binary(Binary),
    /// `op by (…) (param, x)`
    Aggregate(Aggregate),
    /// `f(…)`
    Call {
        /// The function.
        function: &'static Function,
        /// Its arguments.
        args: Vec<NodeId>,
    },
}

impl Expr {
    /// The nodes directly beneath, in the order of the text.
    pub fn children(&self) -> Vec<NodeId> {
        match self {
            Self::Number { .. } | Self::Text(_) | Self::Vector(_) | Self::Matrix { .. } => Vec::new(),
            Self::Subquery { expr, .. } | Self::Unary { expr, .. } | Self::Paren(expr) => vec![*expr],
            Self::Binary(binary) => vec![binary.lhs, binary.rhs],
            Self::Aggregate(aggregate) => aggregate.param.into_iter().chain([aggregate.expr]).collect(),
            Self::Call { args, .. } => args.clone(),
        }
    }
}

/// What an instant or range selector names.
#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    /// The name in front of the braces.
    pub name: Option<String>,
    /// All matchers; that of the name comes last.
    pub matchers: Vec<Matcher>,
    /// `offset` and `@`.
    pub shift: Shift,
    /// How the ends of the window are treated.
    pub extent: Extent,
}

impl Selector {
    /// The metric name, if a matcher demands exactly one.
    pub fn metric(&self) -> Option<&str> {
        self.matchers.iter().find_map(|matcher| {
            let named = matcher.name == METRIC_NAME && matcher.op == storage::model::matcher::MatchOp::Equal;
            named.then_some(matcher.value.as_str())
        })
    }
}

/// How a selector treats the ends of its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Extent {
    /// Only the samples inside.
    #[default]
    Plain,
    /// The newest sample before the window stands for its start.
    Anchored,
    /// Both ends are interpolated.
    Smoothed,
}

/// `offset` and `@` of a selector or subquery.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Shift {
    /// `offset`, if written.
    pub offset: Option<Duration>,
    /// `@`, if written.
    pub at: Option<At>,
}

/// The fixed time of `@`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Milliseconds since the epoch.
    Time(i64),
    /// `start()`
    Start,
    /// `end()`
    End,
}

/// A duration: known, or computed from `step()` and `range()` of the query.
#[derive(Clone, Debug, PartialEq)]
pub enum Duration {
    /// Milliseconds.
    Millis(i64),
    /// An expression that is not a literal.
    Expr(Box<DurationExpr>),
}

/// A duration expression.
#[derive(Clone, Debug, PartialEq)]
pub struct DurationExpr {
    /// Where it stands in the text.
    pub span: SourceSpan,
    /// What it is.
    pub kind: DurationKind,
}

/// The kinds of duration expressions.
#[derive(Clone, Debug, PartialEq)]
pub enum DurationKind {
    /// Seconds; `true` if written as a duration.
    Number(f64, bool),
    /// `step()`
    Step,
    /// `range()`
    Range,
    /// `-x` or `+x`; `true` for minus.
    Unary(bool, Box<DurationExpr>),
    /// `(x)`
    Paren(Box<DurationExpr>),
    /// `l op r`, also `min_of(l, r)` and `max_of(l, r)`.
    Binary(DurationOp, Box<DurationExpr>, Box<DurationExpr>),
}

/// The operators of durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurationOp {
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
    /// `min_of`
    MinOf,
    /// `max_of`
    MaxOf,
}

impl DurationOp {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::MinOf => "min_of",
            Self::MaxOf => "max_of",
        }
    }
}

/// A binary operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    /// The operator.
    pub op: BinaryOp,
    /// Where the operator stands.
    pub op_span: SourceSpan,
    /// Left operand.
    pub lhs: NodeId,
    /// Right operand.
    pub rhs: NodeId,
    /// `bool`
    pub bool_modifier: bool,
    /// How elements find their partners; used when both sides are vectors.
    pub matching: Matching,
}

/// The binary operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    And,
    Or,
    Unless,
    TrimUpper,
    TrimLower,
}

impl BinaryOp {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::Atan2 => "atan2",
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
            Self::TrimUpper => "</",
            Self::TrimLower => ">/",
        }
    }

    /// `and`, `or`, `unless`.
    pub fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }

    /// `==` and its like.
    pub fn is_comparison(self) -> bool {
        matches!(self, Self::Eq | Self::Ne | Self::Lt | Self::Le | Self::Gt | Self::Ge)
    }

    /// How strongly it binds: the higher the closer.
    pub fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And | Self::Unless => 2,
            Self::Eq | Self::Ne | Self::Lt | Self::Le | Self::Gt | Self::Ge | Self::TrimUpper | Self::TrimLower => 3,
            Self::Add | Self::Sub => 4,
            Self::Mul | Self::Div | Self::Mod | Self::Atan2 => 5,
            Self::Pow => 6,
        }
    }
}

/// How many elements of either side share a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Cardinality {
    /// No grouping modifier.
    #[default]
    OneToOne,
    /// `group_left`
    ManyToOne,
    /// `group_right`
    OneToMany,
    /// Set operators.
    ManyToMany,
}

impl Cardinality {
    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OneToOne => "one-to-one",
            Self::ManyToOne => "many-to-one",
            Self::OneToMany => "one-to-many",
            Self::ManyToMany => "many-to-many",
        }
    }
}

/// Vector matching of a binary operation.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Matching {
    /// How many to how many.
    pub cardinality: Cardinality,
    /// `on`, not `ignoring`.
    pub on: bool,
    /// The labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// The labels of `group_left` or `group_right`.
    pub include: Vec<String>,
    /// What a missing left partner counts as.
    pub fill_left: Option<f64>,
    /// What a missing right partner counts as.
    pub fill_right: Option<f64>,
}

/// An aggregation.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// The operator.
    pub op: AggregateOp,
    /// What is aggregated.
    pub expr: NodeId,
    /// The parameter, for those that take one.
    pub param: Option<NodeId>,
    /// The labels of `by` or `without`.
    pub grouping: Vec<String>,
    /// `without`, not `by`.
    pub without: bool,
}

/// The aggregation operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum AggregateOp {
    Sum,
    Avg,
    Count,
    Min,
    Max,
    Group,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    CountValues,
    Quantile,
    Limitk,
    LimitRatio,
}

impl AggregateOp {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Sum,
        Self::Avg,
        Self::Count,
        Self::Min,
        Self::Max,
        Self::Group,
        Self::Stddev,
        Self::Stdvar,
        Self::Topk,
        Self::Bottomk,
        Self::CountValues,
        Self::Quantile,
        Self::Limitk,
        Self::LimitRatio,
    ];

    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Count => "count",
            Self::Min => "min",
            Self::Max => "max",
            Self::Group => "group",
            Self::Stddev => "stddev",
            Self::Stdvar => "stdvar",
            Self::Topk => "topk",
            Self::Bottomk => "bottomk",
            Self::CountValues => "count_values",
            Self::Quantile => "quantile",
            Self::Limitk => "limitk",
            Self::LimitRatio => "limit_ratio",
        }
    }

    /// Whether it takes a parameter.
    pub fn has_param(self) -> bool {
        matches!(
            self,
            Self::Topk | Self::Bottomk | Self::CountValues | Self::Quantile | Self::Limitk | Self::LimitRatio
        )
    }
}

/// `line:column` of a byte of `text`, both from 1.
pub fn position(text: &str, byte: usize) -> String {
    let before = &text.as_bytes()[..byte.min(text.len())];
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
    format!("{line}:{column}")
}

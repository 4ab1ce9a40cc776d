//! Checked tree → what evaluation runs: compiled expressions, what they need of a trace, what they mention.
//!
//! Owns: compiled expressions with their regexes, slots for resource attributes, the list of mentioned references
//! and their conditions, the traces a query is limited to. Does not own: evaluation (`eval`).

use regex::Regex;
use storage::model::matcher::compile_unanchored;
use storage::model::span::TraceId;

use super::ast::{
    Aggregate, Attribute, AttributeScope, BinaryOp, Field, FieldKind, Intrinsic, Metrics, MetricsFunction, Pipeline,
    Query, Reference, Root, Scalar, SpansetOp, Spansets, Stage, Static, UnaryOp,
};
use super::eval::value::{Val, arithmetic};
use crate::error::{Error, Kind, Result};

/// Compiles a pattern as TraceQL takes it: anchored at both ends, the dot does not match a newline.
pub fn compile_regex(pattern: &str) -> Result<Regex> {
    compile_unanchored(pattern)
        .and_then(|_| compile_unanchored(&format!("^(?:{pattern})$")))
        .map_err(|_| Error::new(Kind::Parse, format!("invalid regex: `{pattern}`")))
}

/// A compiled expression over one span.
#[derive(Clone, Debug)]
pub enum Expr {
    /// A constant.
    Const(Val<'static>),
    /// An attribute or intrinsic.
    Source(Source),
    /// `!x`
    Not(Box<Expr>),
    /// `-x`
    Neg(Box<Expr>),
    /// `x && y`
    And(Box<Expr>, Box<Expr>),
    /// `x || y`
    Or(Box<Expr>, Box<Expr>),
    /// `x op y`, a comparison.
    Compare(BinaryOp, Box<Expr>, Box<Expr>),
    /// `x =~ "…"`; `true`: `!~`.
    Regex(Box<Expr>, Regex, bool),
    /// `x = nil`; `true`: `!= nil`.
    Nil(Box<Expr>, bool),
    /// `x op y`, arithmetic.
    Arithmetic(BinaryOp, Box<Expr>, Box<Expr>),
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `.x`: the span's, else the slot of the resource.
    Any(String, usize),
    /// `span.x`
    Span(String),
    /// `resource.x`: a slot.
    Resource(usize),
    /// `event.x`
    Event(String),
    /// `link.x`
    Link(String),
    /// `instrumentation.x`
    Instrumentation(String),
    /// `duration`, …
    Intrinsic(Intrinsic),
}

impl Source {
    /// Whether it is one of the events' fields.
    pub fn of_event(&self) -> bool {
        matches!(
            self,
            Self::Event(_) | Self::Intrinsic(Intrinsic::EventName) | Self::Intrinsic(Intrinsic::EventTimeSinceStart)
        )
    }

    /// Whether it is one of the links' fields.
    pub fn of_link(&self) -> bool {
        matches!(self, Self::Link(_) | Self::Intrinsic(Intrinsic::LinkTraceId) | Self::Intrinsic(Intrinsic::LinkSpanId))
    }
}

/// A compiled filter and how many of its events and links it looks at.
#[derive(Clone, Debug)]
pub struct Filter {
    /// The test.
    pub expr: Expr,
    /// Whether it mentions events.
    pub events: bool,
    /// Whether it mentions links.
    pub links: bool,
}

/// A compiled spanset expression.
#[derive(Clone, Debug)]
pub enum SpansetPlan {
    /// `{}`
    All,
    /// `{…}`
    Filter(Box<Filter>),
    /// `left op right`
    Binary(SpansetOp, Box<SpansetPlan>, Box<SpansetPlan>),
    /// `( pipeline )`
    Pipeline(Vec<StagePlan>),
}

/// A compiled stage.
#[derive(Clone, Debug)]
pub enum StagePlan {
    /// Filters.
    Spansets(SpansetPlan),
    /// Splits by a value; the text names the group's attribute.
    By(Expr, String),
    /// Joins what was split.
    Coalesce,
    /// Adds nothing but mentions.
    Select,
    /// Keeps spansets whose aggregate compares.
    Scalar {
        /// How.
        aggregate: Aggregate,
        /// Of what; `None` counts spans.
        of: Option<Expr>,
        /// Against what.
        op: BinaryOp,
        /// The constant.
        threshold: Val<'static>,
        /// The name of the spanset's attribute.
        name: String,
    },
}

/// A test on one reference against a constant, kept to choose which of many values an answer shows.
#[derive(Clone, Debug)]
pub enum Condition {
    /// A comparison with the reference on the left.
    Compare(BinaryOp, Val<'static>),
    /// `=~`; `true`: `!~`.
    Regex(Regex, bool),
}

/// A reference that a query mentions.
#[derive(Clone, Debug)]
pub struct Mention {
    /// What.
    pub reference: Reference,
    /// Where its values are.
    pub source: Source,
    /// The conditions on it.
    pub conditions: Vec<Condition>,
    /// Whether it is mentioned other than by a condition.
    pub bare: bool,
    /// Whether `= nil` was asked.
    pub nil_asked: bool,
    /// Whether only the selection of `compare` mentions it.
    pub of_selection: bool,
}

/// What a query needs beyond the spans it looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// All spans of a trace at once, also those outside the range.
    pub whole_trace: bool,
    /// The span tree.
    pub tree: bool,
}

/// A compiled pipeline with what surrounds it.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The stages.
    pub stages: Vec<StagePlan>,
    /// Keys of resource attributes by slot.
    pub resource_keys: Vec<String>,
    /// Each mentioned reference once.
    pub mentions: Vec<Mention>,
    /// What it needs.
    pub needs: Needs,
    /// Only these traces can match.
    pub traces: Option<Vec<TraceId>>,
}

/// Plans the pipeline of a search; `None` if the query is a metrics query.
pub fn plan(query: &Query) -> Result<Option<Plan>> {
    match &query.root {
        Root::Spansets(pipeline) => plan_pipeline(pipeline).map(Some),
        Root::Metrics(_) => Ok(None),
    }
}

/// Plans a pipeline.
pub fn plan_pipeline(pipeline: &Pipeline) -> Result<Plan> {
    let mut plan = Plan { traces: traces_of(pipeline), ..Plan::default() };
    plan.stages = plan.compile_stages(pipeline)?;
    Ok(plan)
}

impl Plan {
    /// Where a reference's values are; notes that it was mentioned.
    pub fn mention(&mut self, reference: &Reference) -> Source {
        let mention = self.mention_of(reference);
        mention.bare = true;
        mention.source.clone()
    }

    fn mention_of(&mut self, reference: &Reference) -> &mut Mention {
        let known = self.mentions.iter().position(|mention| mention.reference == *reference);
        let at = known.unwrap_or_else(|| {
            let source = self.source(reference);
            self.mentions.push(Mention {
                reference: reference.clone(),
                source,
                conditions: Vec::new(),
                bare: false,
                nil_asked: false,
                of_selection: false,
            });
            self.mentions.len() - 1
        });
        &mut self.mentions[at]
    }

    fn source(&mut self, reference: &Reference) -> Source {
        match reference {
            Reference::Attribute(Attribute { scope, name, .. }) => match scope {
                AttributeScope::Any => Source::Any(name.clone(), self.slot(name)),
                AttributeScope::Span => Source::Span(name.clone()),
                AttributeScope::Resource => Source::Resource(self.slot(name)),
                AttributeScope::Event => Source::Event(name.clone()),
                AttributeScope::Link => Source::Link(name.clone()),
                AttributeScope::Instrumentation => Source::Instrumentation(name.clone()),
            },
            Reference::Intrinsic(intrinsic) => {
                self.needs.whole_trace |= matches!(
                    intrinsic,
                    Intrinsic::ChildCount
                        | Intrinsic::TraceDuration
                        | Intrinsic::RootName
                        | Intrinsic::RootServiceName
                        | Intrinsic::NestedSetLeft
                        | Intrinsic::NestedSetRight
                        | Intrinsic::NestedSetParent
                );
                Source::Intrinsic(*intrinsic)
            }
        }
    }

    fn slot(&mut self, key: &str) -> usize {
        match self.resource_keys.iter().position(|known| known == key) {
            Some(slot) => slot,
            None => {
                self.resource_keys.push(key.to_owned());
                self.resource_keys.len() - 1
            }
        }
    }

    fn compile_stages(&mut self, pipeline: &Pipeline) -> Result<Vec<StagePlan>> {
        pipeline.stages.iter().map(|stage| self.compile_stage(stage)).collect()
    }

    fn compile_stage(&mut self, stage: &Stage) -> Result<StagePlan> {
        Ok(match stage {
            Stage::Spansets(spansets) => StagePlan::Spansets(self.compile_spansets(spansets)?),
            Stage::By(field) => StagePlan::By(self.compile(field)?, format!("by({field})")),
            Stage::Coalesce => StagePlan::Coalesce,
            Stage::Select(list) => {
                for reference in list {
                    self.mention(reference);
                }
                StagePlan::Select
            }
            Stage::Scalar(filter) => {
                self.needs.whole_trace = true;
                let Scalar::Aggregate(aggregate, of) = &filter.left else {
                    return Err(Error::new(Kind::Unsupported, format!("`{}` is not supported", filter.left)));
                };
                StagePlan::Scalar {
                    aggregate: *aggregate,
                    of: of.as_ref().map(|field| self.compile(field)).transpose()?,
                    op: filter.op,
                    threshold: fold(&filter.right)?,
                    name: filter.left.to_string(),
                }
            }
        })
    }

    /// Compiles a spanset expression.
    pub fn compile_spansets(&mut self, spansets: &Spansets) -> Result<SpansetPlan> {
        Ok(match spansets {
            Spansets::Filter(None) => SpansetPlan::All,
            Spansets::Filter(Some(field)) => SpansetPlan::Filter(Box::new(self.compile_filter(field)?)),
            Spansets::Binary(op, left, right) => {
                // `||` keeps each side's spans whatever the rest of the trace is.
                self.needs.whole_trace |= *op != SpansetOp::Or;
                self.needs.tree |= matches!(op, SpansetOp::Relation(..));
                let (left, right) = (self.compile_spansets(left)?, self.compile_spansets(right)?);
                SpansetPlan::Binary(*op, Box::new(left), Box::new(right))
            }
            Spansets::Pipeline(pipeline) => SpansetPlan::Pipeline(self.compile_stages(pipeline)?),
        })
    }

    /// Compiles the expression of a filter.
    pub fn compile_filter(&mut self, field: &Field) -> Result<Filter> {
        let expr = self.compile(field)?;
        let (mut events, mut links) = (false, false);
        expr.each_source(&mut |source| {
            events |= source.of_event();
            links |= source.of_link();
        });
        Ok(Filter { expr, events, links })
    }

    /// Compiles an expression.
    pub fn compile(&mut self, field: &Field) -> Result<Expr> {
        Ok(match &field.kind {
            FieldKind::Static(literal) => Expr::Const(Val::of_static(literal)),
            FieldKind::Reference(reference) => Expr::Source(self.mention(reference)),
            FieldKind::Unary(UnaryOp::Not, inner) => Expr::Not(Box::new(self.compile(inner)?)),
            FieldKind::Unary(UnaryOp::Neg, inner) => Expr::Neg(Box::new(self.compile(inner)?)),
            FieldKind::Binary(op, left, right) => self.compile_binary(*op, left, right)?,
        })
    }

    fn compile_binary(&mut self, op: BinaryOp, left: &Field, right: &Field) -> Result<Expr> {
        let is_nil = |field: &Field| matches!(field.kind, FieldKind::Static(Static::Nil));
        match (is_nil(left), is_nil(right)) {
            (true, true) => return Ok(Expr::Const(Val::Bool(false))),
            (true, false) | (false, true) => {
                let negated = op == BinaryOp::NotEqual;
                let tested = if is_nil(left) { right } else { left };
                if let FieldKind::Reference(reference) = &tested.kind {
                    self.mention_of(reference).nil_asked |= !negated;
                }
                return Ok(Expr::Nil(Box::new(self.compile(tested)?), negated));
            }
            (false, false) => {}
        }
        if let (BinaryOp::Regex | BinaryOp::NotRegex, FieldKind::Static(Static::String(pattern))) = (op, &right.kind) {
            let regex = compile_regex(pattern)?;
            let negated = op == BinaryOp::NotRegex;
            let tested = self.compile_tested(left, Condition::Regex(regex.clone(), negated))?;
            return Ok(Expr::Regex(Box::new(tested), regex, negated));
        }
        if op.is_comparison() {
            // A reference beside a constant: a condition.
            if let Some(constant) = constant_beside(right, left) {
                let tested = self.compile_tested(left, Condition::Compare(op, constant.clone()))?;
                return Ok(Expr::Compare(op, Box::new(tested), Box::new(Expr::Const(constant))));
            }
            if let Some(constant) = constant_beside(left, right) {
                let tested = self.compile_tested(right, Condition::Compare(op.mirrored(), constant.clone()))?;
                return Ok(Expr::Compare(op, Box::new(Expr::Const(constant)), Box::new(tested)));
            }
        }
        let (left, right) = (Box::new(self.compile(left)?), Box::new(self.compile(right)?));
        Ok(match op {
            BinaryOp::And => Expr::And(left, right),
            BinaryOp::Or => Expr::Or(left, right),
            op if op.is_arithmetic() => Expr::Arithmetic(op, left, right),
            op => Expr::Compare(op, left, right),
        })
    }

    /// Compiles what a condition tests; remembers the condition if that is a bare reference.
    fn compile_tested(&mut self, tested: &Field, condition: Condition) -> Result<Expr> {
        let FieldKind::Reference(reference) = &tested.kind else { return self.compile(tested) };
        let mention = self.mention_of(reference);
        mention.conditions.push(condition);
        Ok(Expr::Source(mention.source.clone()))
    }
}

/// The constant `field` is, as it compares with `beside`: trace ids do so without their leading zeros.
fn constant_beside(field: &Field, beside: &Field) -> Option<Val<'static>> {
    let FieldKind::Static(literal) = &field.kind else { return None };
    let id =
        matches!(beside.kind, FieldKind::Reference(Reference::Intrinsic(Intrinsic::TraceId | Intrinsic::LinkTraceId)));
    Some(match Val::of_static(literal) {
        Val::Str(text) if id => Val::Str(text.trim_start_matches('0').to_owned().into()),
        other => other,
    })
}

impl Expr {
    /// Calls `visit` for each source in the expression.
    pub fn each_source(&self, visit: &mut dyn FnMut(&Source)) {
        match self {
            Self::Const(_) => {}
            Self::Source(source) => visit(source),
            Self::Not(inner) | Self::Neg(inner) | Self::Regex(inner, ..) | Self::Nil(inner, _) => {
                inner.each_source(visit);
            }
            Self::And(left, right)
            | Self::Or(left, right)
            | Self::Compare(_, left, right)
            | Self::Arithmetic(_, left, right) => {
                left.each_source(visit);
                right.each_source(visit);
            }
        }
    }
}

/// A constant scalar.
fn fold(scalar: &Scalar) -> Result<Val<'static>> {
    match scalar {
        Scalar::Static(literal) => Ok(Val::of_static(literal)),
        Scalar::Binary(op, left, right) => arithmetic(*op, &fold(left)?, &fold(right)?),
        Scalar::Aggregate(..) | Scalar::Pipeline(..) => {
            Err(Error::new(Kind::Unsupported, format!("`{scalar}` is not supported as a threshold")))
        }
    }
}

/// The one trace that `{ trace:id = "…" && … }` as the first stage names.
fn traces_of(pipeline: &Pipeline) -> Option<Vec<TraceId>> {
    let Stage::Spansets(Spansets::Filter(Some(field))) = pipeline.stages.first()? else { return None };
    let mut rest = vec![field];
    while let Some(field) = rest.pop() {
        let FieldKind::Binary(op, left, right) = &field.kind else { continue };
        match (op, &left.kind, &right.kind) {
            (BinaryOp::And, ..) => rest.extend([left.as_ref(), right.as_ref()]),
            (
                BinaryOp::Equal,
                FieldKind::Reference(Reference::Intrinsic(Intrinsic::TraceId)),
                FieldKind::Static(id),
            )
            | (
                BinaryOp::Equal,
                FieldKind::Static(id),
                FieldKind::Reference(Reference::Intrinsic(Intrinsic::TraceId)),
            ) => {
                let Static::String(text) = id else { return None };
                return Some(trace_id_of_hex(text).into_iter().collect());
            }
            _ => {}
        }
    }
    None
}

/// Reads up to 32 hex digits, left-padded with zeros; `None` if it is none.
pub fn trace_id_of_hex(text: &str) -> Option<TraceId> {
    let digits = text.trim_start_matches('0');
    let mut id = [0; 16];
    (digits.len() <= 32).then(|| hex::decode_to_slice(format!("{digits:0>32}"), &mut id).ok())??;
    Some(id)
}

/// Plans a metrics query: its pipeline, and what its function reads.
pub fn plan_metrics_query(metrics: &super::ast::MetricsQuery) -> Result<(Plan, MetricsPlan)> {
    let mut plan = plan_pipeline(&metrics.pipeline)?;
    let measured = metrics.function.measured().map(|reference| plan.mention(reference));
    let by = metrics.by.iter().map(|reference| (reference.to_string(), plan.mention(reference))).collect();
    let selection = match &metrics.function {
        MetricsFunction::Compare { selection, .. } => {
            plan.needs.whole_trace = true;
            let before = plan.mentions.len();
            let selection = plan.compile_spansets(selection)?;
            plan.mentions.iter_mut().skip(before).for_each(|mention| mention.of_selection = true);
            Some(selection)
        }
        _ => None,
    };
    Ok((plan, MetricsPlan { measured, by, selection }))
}

/// What a metrics function reads of the spans its pipeline gives.
#[derive(Clone, Debug)]
pub struct MetricsPlan {
    /// What is measured.
    pub measured: Option<Source>,
    /// Label and source of each group.
    pub by: Vec<(String, Source)>,
    /// What `compare` selects.
    pub selection: Option<SpansetPlan>,
}

/// The queries of a metrics expression, left to right.
pub fn queries_of(metrics: &Metrics) -> Vec<&super::ast::MetricsQuery> {
    match metrics {
        Metrics::Query(query) => vec![query],
        Metrics::Number(_) => Vec::new(),
        Metrics::Then(inner, _) => queries_of(inner),
        Metrics::Binary(_, left, right) => {
            let mut list = queries_of(left);
            list.extend(queries_of(right));
            list
        }
    }
}

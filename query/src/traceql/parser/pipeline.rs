//! Spansets, pipelines, scalars and metrics.
//!
//! One climb over operator precedence reads all of them, since parentheses tell only at their end what they hold:
//! each operand is a [`Node`], and which operator may follow depends on the node before it.

use super::super::ast::{
    Aggregate, BinaryOp, Field, Keep, Metrics, MetricsFunction, MetricsQuery, Pipeline, Reference, Relation, Scalar,
    ScalarFilter, SecondStage, SpansetOp, Spansets, Stage, Static,
};
use super::super::lexer::Token;
use super::{Deep, Parser};
use crate::error::{Result, SourceSpan};

/// What an operand turned out to be.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// Filters and operators between them, without a pipe.
    Spansets(Spansets),
    /// A pipeline; as an operand it stood in parentheses.
    Pipeline(Pipeline),
    /// A metrics query; as an operand it stood in parentheses.
    Metrics(Metrics),
    /// An aggregate, a number, or arithmetic of them.
    Scalar(Scalar),
    /// A comparison of scalars.
    Filter(ScalarFilter),
}

const LOGICAL: u8 = 1;
const COMPARISON: u8 = 2;
const SUM: u8 = 3;
const PRODUCT: u8 = 4;
const POWER: u8 = 5;

/// The most attributes of one `select` and the most quantiles of one function.
const LIST_MAX: usize = 256;

impl Parser<'_> {
    /// A whole sequence: at the root or inside parentheses.
    pub(super) fn sequence(&mut self) -> Result<Node> {
        self.sequence_deep().map(|(node, _)| node)
    }

    fn sequence_deep(&mut self) -> Result<Deep<Node>> {
        let (mut stages, mut depth) = match self.stage_by_word(true)? {
            Some((stage, depth)) => (vec![stage], depth),
            None => match self.operand_from(LOGICAL)? {
                (Node::Metrics(metrics), depth) => return self.second_stages(metrics, depth),
                (node, depth) if self.peek_sign() != Some("|") => return Ok((node, depth)),
                (Node::Spansets(spansets), depth) => (vec![Stage::Spansets(spansets)], depth),
                (Node::Filter(filter), depth) => (vec![Stage::Scalar(filter)], depth),
                (Node::Pipeline(_) | Node::Scalar(_), _) => return Err(self.unexpected()),
            },
        };
        while self.take("|") {
            if let Some((function, by)) = self.metrics_function()? {
                let query = MetricsQuery { pipeline: Pipeline { stages }, function, by };
                let depth = self.above(depth, 0)?;
                return self.second_stages(Metrics::Query(Box::new(query)), depth);
            }
            let (stage, stage_depth) = match self.stage_by_word(false)? {
                Some(stage) => stage,
                None => match self.operand_from(LOGICAL)? {
                    (Node::Spansets(spansets), depth) => (Stage::Spansets(spansets), depth),
                    (Node::Filter(filter), depth) => (Stage::Scalar(filter), depth),
                    (Node::Scalar(scalar), scalar_depth) => {
                        let depth = self.above(depth, scalar_depth)?;
                        let pipeline = Box::new(Pipeline { stages });
                        return Ok((Node::Scalar(Scalar::Pipeline(pipeline, Box::new(scalar))), depth));
                    }
                    (Node::Pipeline(_) | Node::Metrics(_), _) => return Err(self.unexpected()),
                },
            };
            depth = depth.max(stage_depth);
            stages.push(stage);
        }
        Ok((Node::Pipeline(Pipeline { stages }), depth))
    }

    /// `by(…)`, `select(…)` and, where a pipeline goes on, `coalesce()`.
    fn stage_by_word(&mut self, first: bool) -> Result<Option<Deep<Stage>>> {
        if self.take_word("by") {
            self.expect("(")?;
            let (field, depth) = self.field()?;
            self.expect(")")?;
            return Ok(Some((Stage::By(field), self.above(depth, 0)?)));
        }
        if self.take_word("select") {
            return Ok(Some((Stage::Select(self.references()?), 1)));
        }
        if !first && self.take_word("coalesce") {
            self.expect("(")?;
            self.expect(")")?;
            return Ok(Some((Stage::Coalesce, 1)));
        }
        Ok(None)
    }

    /// `( a, b, … )`, at least one.
    fn references(&mut self) -> Result<Vec<Reference>> {
        self.expect("(")?;
        let mut list = vec![self.reference()?];
        while self.take(",") {
            if list.len() >= LIST_MAX {
                return Err(self.error(self.at(), &format!("more than {LIST_MAX} attributes in a list")));
            }
            list.push(self.reference()?);
        }
        if !self.take(")") {
            return Err(self.unexpected_for(", expecting ) or ,"));
        }
        Ok(list)
    }

    /// An operand with the operators that may follow it, of at least the strength `weakest`.
    fn operand_from(&mut self, weakest: u8) -> Result<Deep<Node>> {
        let (mut left, mut depth) = self.operand()?;
        while let Some(sign) = self.peek_sign() {
            let Some((level, right_level)) = strength_after(&left, sign).filter(|(level, _)| *level >= weakest) else {
                break;
            };
            debug_assert!(level <= right_level);
            let at = self.at();
            self.advance();
            let (right, right_depth) = self.nested(|parser| parser.operand_from(right_level))?;
            depth = self.above(depth, right_depth)?;
            left = self.combine(left, sign, right, at)?;
        }
        Ok((left, depth))
    }

    fn operand(&mut self) -> Result<Deep<Node>> {
        if self.take("{") {
            let (filter, depth) = self.filter_body()?;
            return Ok((Node::Spansets(Spansets::Filter(filter)), depth));
        }
        if self.take("(") {
            let (node, depth) = self.nested(Parser::sequence_deep)?;
            self.expect(")")?;
            let node = match node {
                Node::Filter(filter) => Node::Pipeline(Pipeline { stages: vec![Stage::Scalar(filter)] }),
                node => node,
            };
            return Ok((node, self.above(depth, 0)?));
        }
        if self.peek_sign() == Some("-") || matches!(self.peek(), Token::Int(_) | Token::Float(_) | Token::Duration(_))
        {
            let at = self.at();
            return match self.literal()? {
                number @ (Static::Int(_) | Static::Float(_) | Static::Duration(_)) => {
                    Ok((Node::Scalar(Scalar::Static(number)), 1))
                }
                _ => Err(self.error(at, "syntax error: expecting a number")),
            };
        }
        let aggregate = self.peek_word().and_then(|word| Aggregate::ALL.iter().find(|(name, _)| *name == word));
        let Some((_, aggregate)) = aggregate else { return Err(self.unexpected_operand()) };
        self.advance();
        self.expect("(")?;
        let (field, depth) = match aggregate {
            Aggregate::Count => (None, 0),
            _ => self.field().map(|(field, depth)| (Some(field), depth))?,
        };
        self.expect(")")?;
        Ok((Node::Scalar(Scalar::Aggregate(*aggregate, field)), self.above(depth, 0)?))
    }

    fn unexpected_operand(&self) -> crate::error::Error {
        match self.peek() {
            Token::Word(word) if self.static_here().is_none() && !is_function(word) => {
                self.error(self.at(), &format!("unknown identifier: {word}"))
            }
            _ => self.unexpected(),
        }
    }

    /// What stands between braces, after the first one.
    fn filter_body(&mut self) -> Result<Deep<Option<Field>>> {
        if self.take("}") {
            return Ok((None, 1));
        }
        let (field, depth) = self.field()?;
        self.expect("}")?;
        Ok((Some(field), self.above(depth, 0)?))
    }

    fn combine(&self, left: Node, sign: &str, right: Node, at: SourceSpan) -> Result<Node> {
        let op = BinaryOp::of_sign(sign);
        match (left, right) {
            (Node::Spansets(left), Node::Spansets(right)) => match spanset_op(sign) {
                Some(op) => Ok(Node::Spansets(Spansets::Binary(op, Box::new(left), Box::new(right)))),
                None => Err(self.wrong_operands(sign, at)),
            },
            (Node::Pipeline(left), Node::Pipeline(right)) => match spanset_op(sign) {
                Some(op) => {
                    let (left, right) = (wrapped(left), wrapped(right));
                    let both = Spansets::Binary(op, Box::new(left), Box::new(right));
                    Ok(Node::Pipeline(Pipeline { stages: vec![Stage::Spansets(both)] }))
                }
                None => Err(self.wrong_operands(sign, at)),
            },
            (Node::Scalar(left), Node::Scalar(right)) => match op {
                Some(op) if op.is_comparison() => Ok(Node::Filter(ScalarFilter { op, left, right })),
                Some(op) => Ok(Node::Scalar(Scalar::Binary(op, Box::new(left), Box::new(right)))),
                None => Err(self.wrong_operands(sign, at)),
            },
            (left @ (Node::Metrics(_) | Node::Scalar(_)), right @ (Node::Metrics(_) | Node::Scalar(_))) => {
                self.combine_metrics(left, op, right, at)
            }
            _ => Err(self.wrong_operands(sign, at)),
        }
    }

    /// At least one side is a metrics query.
    fn combine_metrics(&self, left: Node, op: Option<BinaryOp>, right: Node, at: SourceSpan) -> Result<Node> {
        let Some(op) = op else { return Err(self.wrong_operands("", at)) };
        if op.is_comparison() {
            return match (left, right) {
                (Node::Metrics(metrics), Node::Scalar(scalar)) => {
                    let threshold = self.constant(&scalar, at)?;
                    Ok(Node::Metrics(Metrics::Then(Box::new(metrics), SecondStage::Filter(op, threshold))))
                }
                _ => Err(self.wrong_operands(op.sign(), at)),
            };
        }
        let operand = |node| match node {
            Node::Metrics(metrics) => Ok(metrics),
            Node::Scalar(scalar) => match self.constant(&scalar, at)? {
                Static::Int(n) => Ok(Metrics::Number(n as f64)),
                Static::Float(x) => Ok(Metrics::Number(x)),
                _ => Err(self.error(at, "duration cannot be used as a scalar operand in metric arithmetic")),
            },
            _ => Err(self.wrong_operands(op.sign(), at)),
        };
        Ok(Node::Metrics(Metrics::Binary(op, Box::new(operand(left)?), Box::new(operand(right)?))))
    }

    /// Folds a scalar without aggregates: a single literal as it is, arithmetic as a float.
    fn constant(&self, scalar: &Scalar, at: SourceSpan) -> Result<Static> {
        match scalar {
            Scalar::Static(literal) => Ok(literal.clone()),
            Scalar::Binary(op, left, right) => {
                let side = |scalar: &Scalar| match self.constant(scalar, at)? {
                    Static::Int(n) => Ok(n as f64),
                    Static::Float(x) => Ok(x),
                    _ => Err(self.error(at, "duration cannot be used in scalar arithmetic")),
                };
                let (left, right) = (side(left)?, side(right)?);
                let value = match op {
                    BinaryOp::Add => left + right,
                    BinaryOp::Sub => left - right,
                    BinaryOp::Mul => left * right,
                    BinaryOp::Div => left / right,
                    BinaryOp::Mod => left % right,
                    _ => left.powf(right),
                };
                if value.is_finite() {
                    Ok(Static::Float(value))
                } else {
                    Err(self.error(at, "a constant is not finite"))
                }
            }
            Scalar::Aggregate(..) | Scalar::Pipeline(..) => {
                Err(self.error(at, "a metrics query combines with metrics queries and constants only"))
            }
        }
    }

    fn wrong_operands(&self, sign: &str, at: SourceSpan) -> crate::error::Error {
        self.error(at, &format!("syntax error: unexpected {sign}: its two sides are of different kinds"))
    }

    /// `rate() by(…)`, if a metrics function is next.
    fn metrics_function(&mut self) -> Result<Option<(MetricsFunction, Vec<Reference>)>> {
        let Some(name) = self.peek_word().filter(|word| METRICS_FUNCTIONS.contains(word)).map(str::to_owned) else {
            return Ok(None);
        };
        self.advance();
        self.expect("(")?;
        let function = match name.as_str() {
            "rate" => MetricsFunction::Rate,
            "count_over_time" => MetricsFunction::Count,
            "min_over_time" => MetricsFunction::Min(self.reference()?),
            "max_over_time" => MetricsFunction::Max(self.reference()?),
            "sum_over_time" => MetricsFunction::Sum(self.reference()?),
            "avg_over_time" => MetricsFunction::Avg(self.reference()?),
            "histogram_over_time" => MetricsFunction::Histogram(self.reference()?),
            "quantile_over_time" => MetricsFunction::Quantile(self.reference()?, self.quantiles()?),
            _ => self.compare()?,
        };
        self.expect(")")?;
        let grouped = !matches!(function, MetricsFunction::Compare { .. }) && self.take_word("by");
        let by = if grouped { self.references()? } else { Vec::new() };
        Ok(Some((function, by)))
    }

    fn quantiles(&mut self) -> Result<Vec<f64>> {
        let mut list = Vec::new();
        self.expect(",")?;
        loop {
            match self.literal()? {
                Static::Int(n) => list.push(n as f64),
                Static::Float(x) => list.push(x),
                _ => return Err(self.error(self.at(), "syntax error: a quantile must be a number")),
            }
            if list.len() > LIST_MAX {
                return Err(self.error(self.at(), &format!("more than {LIST_MAX} quantiles")));
            }
            if !self.take(",") {
                return Ok(list);
            }
        }
    }

    /// The arguments of `compare`.
    fn compare(&mut self) -> Result<MetricsFunction> {
        const TOP_DEFAULT: i64 = 10;
        if self.peek_sign() != Some("{") {
            return Err(self.unexpected_for(", expecting {"));
        }
        self.advance();
        let (filter, _) = self.filter_body()?;
        let mut numbers = Vec::new();
        while self.take(",") {
            let Token::Int(n) = self.peek() else { return Err(self.unexpected_for(", expecting INTEGER")) };
            numbers.push(*n);
            self.advance();
        }
        let (top, range) = match numbers.as_slice() {
            [] => (TOP_DEFAULT, None),
            [top] => (*top, None),
            [top, start, end] => (*top, Some((*start, *end))),
            _ => return Err(self.error(self.at(), "syntax error: compare takes a filter, top, start and end")),
        };
        Ok(MetricsFunction::Compare { selection: Box::new(Spansets::Filter(filter)), top, range })
    }

    /// `| topk(n)`, `| bottomk(n)` and comparisons after a metrics query.
    fn second_stages(&mut self, mut metrics: Metrics, mut depth: usize) -> Result<Deep<Node>> {
        loop {
            let comparison = self.peek_sign().and_then(BinaryOp::of_sign).filter(|op| op.is_comparison());
            let stage = if let Some(op) = comparison {
                let at = self.at();
                self.advance();
                let (right, _) = self.nested(|parser| parser.operand_from(SUM))?;
                let Node::Scalar(right) = right else { return Err(self.wrong_operands(op.sign(), at)) };
                SecondStage::Filter(op, self.constant(&right, at)?)
            } else if self.take("|") {
                let top = match self.peek_word() {
                    Some("topk") => true,
                    Some("bottomk") => false,
                    _ => return Err(self.unexpected()),
                };
                self.advance();
                self.expect("(")?;
                let Token::Int(n) = *self.peek() else { return Err(self.unexpected_for(", expecting INTEGER")) };
                self.advance();
                self.expect(")")?;
                if top { SecondStage::TopK(n) } else { SecondStage::BottomK(n) }
            } else {
                return Ok((Node::Metrics(metrics), depth));
            };
            depth = self.above(depth, 0)?;
            metrics = Metrics::Then(Box::new(metrics), stage);
        }
    }
}

const METRICS_FUNCTIONS: [&str; 9] = [
    "rate",
    "count_over_time",
    "min_over_time",
    "max_over_time",
    "sum_over_time",
    "avg_over_time",
    "quantile_over_time",
    "histogram_over_time",
    "compare",
];

fn is_function(word: &str) -> bool {
    METRICS_FUNCTIONS.contains(&word) || ["by", "coalesce", "select", "topk", "bottomk", "with"].contains(&word)
}

fn wrapped(pipeline: Pipeline) -> Spansets {
    match <[Stage; 1]>::try_from(pipeline.stages) {
        // What combined pipelines already is an operand.
        Ok([Stage::Spansets(spansets @ Spansets::Binary(..))]) => spansets,
        Ok([stage]) => Spansets::Pipeline(Box::new(Pipeline { stages: vec![stage] })),
        Err(stages) => Spansets::Pipeline(Box::new(Pipeline { stages })),
    }
}

/// The strength of `sign` after `left`, and the weakest of its right side; `None` where it may not follow.
fn strength_after(left: &Node, sign: &str) -> Option<(u8, u8)> {
    let level = match left {
        Node::Spansets(_) | Node::Pipeline(_) => match spanset_op(sign)? {
            SpansetOp::And | SpansetOp::Or => LOGICAL,
            SpansetOp::Relation(..) => COMPARISON,
        },
        Node::Scalar(_) => scalar_strength(BinaryOp::of_sign(sign)?)?,
        Node::Metrics(_) => match BinaryOp::of_sign(sign)? {
            BinaryOp::Mod | BinaryOp::Pow => return None,
            op => scalar_strength(op)?,
        },
        Node::Filter(_) => return None,
    };
    // `^` takes its like on the right, all others on the left.
    Some((level, if level == POWER { level } else { level + 1 }))
}

fn scalar_strength(op: BinaryOp) -> Option<u8> {
    match op {
        BinaryOp::Add | BinaryOp::Sub => Some(SUM),
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod => Some(PRODUCT),
        BinaryOp::Pow => Some(POWER),
        op if op.is_comparison() => Some(COMPARISON),
        _ => None,
    }
}

/// The spanset operator of a sign.
fn spanset_op(sign: &str) -> Option<SpansetOp> {
    let (keep, relation) = match sign {
        "&&" => return Some(SpansetOp::And),
        "||" => return Some(SpansetOp::Or),
        sign => match sign.as_bytes().first()? {
            b'!' => (Keep::Not, &sign[1..]),
            b'&' => (Keep::Both, &sign[1..]),
            _ => (Keep::Right, sign),
        },
    };
    let relation = match relation {
        ">" => Relation::Child,
        ">>" => Relation::Descendant,
        "<" => Relation::Parent,
        "<<" => Relation::Ancestor,
        "~" => Relation::Sibling,
        _ => return None,
    };
    Some(SpansetOp::Relation(relation, keep))
}

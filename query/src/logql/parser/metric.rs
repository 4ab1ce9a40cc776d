//! Metric expressions: aggregations, operators, ranges.

use crate::error::{Result, SourceSpan};
use crate::logql::ast::{
    BinaryExpr, BinaryOp, Cardinality, Expr, Grouping, LabelReplace, LogExpr, Matching, MetricExpr, RangeAggregation,
    RangeOp, Unwrap, VectorAggregation, VectorOp,
};
use crate::logql::lexer::{self, Token};

use super::Parser;

/// What stands between the parentheses of a range aggregation.
struct LogRange {
    log: LogExpr,
    unwrap: Option<Unwrap>,
    range_ns: Option<i64>,
    offset_ns: Option<i64>,
}

impl Parser<'_> {
    /// An expression whose operators bind at least as tightly as `precedence`.
    pub(super) fn expr(&mut self, precedence: u8) -> Result<Expr> {
        self.enter()?;
        let mut levels = 1;
        let mut left = self.operand()?;
        while let Some(op) = self.binary_op().filter(|op| op.precedence() >= precedence) {
            self.enter()?;
            levels += 1;
            let span = self.here();
            self.advance();
            let (returns_bool, matching) = self.modifiers(op)?;
            let right = self.expr(op.precedence() + u8::from(op != BinaryOp::Pow))?;
            let left_leg = leg(left, "left", op, span)?;
            let right_leg = leg(right, "right", op, span)?;
            check_literals(op, &left_leg, &right_leg, span)?;
            let binary = BinaryExpr { op, returns_bool, matching, left: left_leg, right: right_leg, span };
            left = Expr::Metric(MetricExpr::Binary(Box::new(binary)));
        }
        self.leave(levels);
        Ok(left)
    }

    fn binary_op(&self) -> Option<BinaryOp> {
        match self.peek() {
            Token::Sign(sign) => BinaryOp::of_name(sign),
            Token::Word(word) => BinaryOp::of_name(word),
            _ => None,
        }
    }

    /// `bool`, `on (…)`, `group_left (…)` behind an operator.
    fn modifiers(&mut self, op: BinaryOp) -> Result<(bool, Option<Matching>)> {
        let place = self.here();
        let returns_bool = self.take_word("bool");
        if returns_bool && op.comparison().is_none() {
            return Err(lexer::semantic_error(place, "bool modifier can only be used on comparison operators"));
        }
        let on = self.at_word("on");
        if !on && !self.at_word("ignoring") {
            return Ok((returns_bool, None));
        }
        self.advance();
        let labels = self.name_list()?;
        let place = self.here();
        let cardinality = if self.take_word("group_left") {
            Cardinality::ManyToOne
        } else if self.take_word("group_right") {
            Cardinality::OneToMany
        } else {
            Cardinality::OneToOne
        };
        let grouped = cardinality != Cardinality::OneToOne;
        if grouped && op.is_set() {
            let message = format!("no grouping allowed for {:?} operation", op.name());
            return Err(lexer::semantic_error(place, message));
        }
        let include = if grouped && self.at_sign("(") && self.is_name_list() { self.name_list()? } else { Vec::new() };
        Ok((returns_bool, Some(Matching { on, labels, cardinality, include })))
    }

    /// Whether the parenthesis at hand holds label names; else it begins the right operand.
    fn is_name_list(&self) -> bool {
        let token = |at: usize| self.tokens.get(self.at + at).map_or(&Token::End, |placed| &placed.token);
        match (token(1), token(2)) {
            (Token::Sign(")"), _) => true,
            (Token::Word(_), Token::Sign(sign)) => matches!(*sign, ")" | ","),
            _ => false,
        }
    }

    /// `(a, b)`
    fn name_list(&mut self) -> Result<Vec<String>> {
        self.expect_sign("(")?;
        let mut names = Vec::new();
        if self.take_sign(")") {
            return Ok(names);
        }
        loop {
            names.push(self.expect_name()?);
            if self.take_sign(")") {
                return Ok(names);
            }
            if !self.take_sign(",") {
                return Err(self.unexpected(") or ,"));
            }
        }
    }

    fn operand(&mut self) -> Result<Expr> {
        let start = self.here().start;
        let token = self.peek().clone();
        match token {
            Token::Sign("{") => {
                let log = self.log()?;
                if self.at_sign("|") {
                    self.advance();
                    return Err(self.unexpected(""));
                }
                Ok(Expr::Log(log))
            }
            Token::Sign("(") => {
                self.advance();
                let inner = self.expr(0)?;
                self.expect_sign(")")?;
                Ok(inner)
            }
            Token::Sign("-" | "+") | Token::Number(_) => {
                let value = self.signed_number()?;
                Ok(Expr::Metric(MetricExpr::Literal(value, self.span_from(start))))
            }
            Token::Word(word) if matches!(self.peek_after(), Token::Sign("(") | Token::Word(_)) => self.call(&word),
            _ => Err(self.unexpected("")),
        }
    }

    fn signed_number(&mut self) -> Result<f64> {
        let negative = self.take_sign("-");
        if !negative {
            self.take_sign("+");
        }
        let Token::Number(value) = *self.peek() else { return Err(self.unexpected("NUMBER")) };
        self.advance();
        Ok(if negative { -value } else { value })
    }

    fn call(&mut self, word: &str) -> Result<Expr> {
        if let Some(op) = VectorOp::of_name(word) {
            return self.vector_aggregation(op);
        }
        if *self.peek_after() != Token::Sign("(") {
            return Err(self.unexpected(""));
        }
        let start = self.here().start;
        if let Some(op) = RangeOp::of_name(word) {
            return self.range_aggregation(op);
        }
        match word {
            "vector" => {
                self.advance();
                self.advance();
                let Token::Number(value) = *self.peek() else { return Err(self.unexpected("NUMBER")) };
                self.advance();
                self.expect_sign(")")?;
                Ok(Expr::Metric(MetricExpr::Constant(value, self.span_from(start))))
            }
            "label_replace" => self.label_replace(),
            _ => Err(self.unexpected("")),
        }
    }

    fn metric(&mut self) -> Result<MetricExpr> {
        let place = self.here();
        match self.expr(0)? {
            Expr::Metric(metric) => Ok(metric),
            Expr::Log(_) if self.at_sign(")") || self.at_sign(",") => Err(self.unexpected("RANGE")),
            Expr::Log(_) => Err(lexer::semantic_error(place, "a metric query is needed here, not a log query")),
        }
    }

    fn label_replace(&mut self) -> Result<Expr> {
        let start = self.here().start;
        self.advance();
        self.expect_sign("(")?;
        let operand = self.metric()?;
        let mut texts: [String; 4] = Default::default();
        for text in &mut texts {
            self.expect_sign(",")?;
            *text = self.expect_text()?;
        }
        self.expect_sign(")")?;
        let [destination, replacement, source, regex] = texts;
        let span = self.span_from(start);
        let replace = LabelReplace { operand, destination, replacement, source, regex, span };
        Ok(Expr::Metric(MetricExpr::LabelReplace(Box::new(replace))))
    }

    fn grouping(&mut self) -> Result<Option<Grouping>> {
        let without = self.at_word("without");
        if !without && !self.at_word("by") {
            return Ok(None);
        }
        self.advance();
        Ok(Some(Grouping { without, labels: self.name_list()? }))
    }

    fn vector_aggregation(&mut self, op: VectorOp) -> Result<Expr> {
        let start = self.here().start;
        self.advance();
        let before = self.grouping()?;
        self.expect_sign("(")?;
        let parameter = match (self.peek(), self.peek_after()) {
            (Token::Number(value), Token::Sign(",")) => {
                let parameter = (*value, self.here());
                self.advance();
                self.advance();
                Some(parameter)
            }
            (Token::Sign("-"), Token::Number(_)) if takes_k(op) => return Err(self.unexpected("NUMBER")),
            _ => None,
        };
        let operand = self.metric()?;
        self.expect_sign(")")?;
        let grouping = match before {
            Some(grouping) => Some(grouping),
            None => self.grouping()?,
        };
        let span = self.span_from(start);
        let k = k_of(op, parameter, span)?;
        if grouping.is_some() && matches!(op, VectorOp::Sort | VectorOp::SortDesc) {
            return Err(lexer::semantic_error(span, format!("grouping not allowed for {} aggregation", op.name())));
        }
        let node = VectorAggregation { op, k, operand, grouping, span };
        Ok(Expr::Metric(MetricExpr::Vector(Box::new(node))))
    }

    fn range_aggregation(&mut self, op: RangeOp) -> Result<Expr> {
        let start = self.here().start;
        self.advance();
        self.expect_sign("(")?;
        let parameter = match self.peek() {
            Token::Sign("-" | "+") | Token::Number(_) => {
                let value = self.signed_number()?;
                self.expect_sign(",")?;
                Some(value)
            }
            _ => None,
        };
        let range = self.log_range()?;
        let Some(range_ns) = range.range_ns else { return Err(self.unexpected("RANGE")) };
        self.expect_sign(")")?;
        let grouping = self.grouping()?;
        Ok(Expr::Metric(MetricExpr::Range(Box::new(RangeAggregation {
            op,
            parameter,
            log: range.log,
            unwrap: range.unwrap,
            range_ns,
            offset_ns: range.offset_ns.unwrap_or(0),
            grouping,
            span: self.span_from(start),
        }))))
    }

    /// A log query with `[range]`, `offset` and `unwrap` in any of the orders that are allowed.
    fn log_range(&mut self) -> Result<LogRange> {
        let start = self.here().start;
        let mut range = if self.at_sign("(") {
            self.advance();
            self.enter()?;
            let inner = self.log_range()?;
            self.leave(1);
            self.expect_sign(")")?;
            inner
        } else {
            let (matchers, span) = self.selector()?;
            let log = LogExpr { matchers, stages: Vec::new(), span };
            LogRange { log, unwrap: None, range_ns: None, offset_ns: None }
        };
        loop {
            match self.peek() {
                Token::Range(ns) if range.range_ns.is_none() => {
                    range.range_ns = Some(*ns);
                    self.advance();
                }
                Token::Word(word) if word == "offset" && range.range_ns.is_some() && range.offset_ns.is_none() => {
                    self.advance();
                    range.offset_ns = Some(self.signed_duration()?);
                }
                Token::Sign("|") if matches!(self.peek_after(), Token::Word(word) if word == "unwrap") => {
                    if range.unwrap.is_some() {
                        self.advance();
                        return Err(self.unexpected("a label filter"));
                    }
                    range.unwrap = Some(self.unwrap()?);
                }
                _ if range.unwrap.is_some() => return Ok(range),
                _ => match self.stage()? {
                    Some(stage) => {
                        range.log.stages.push(stage);
                        range.log.span = self.span_from(start);
                    }
                    None => return Ok(range),
                },
            }
        }
    }

    fn signed_duration(&mut self) -> Result<i64> {
        let negative = self.take_sign("-");
        let Token::Duration(ns) = *self.peek() else { return Err(self.unexpected("DURATION")) };
        self.advance();
        Ok(if negative { -ns } else { ns })
    }
}

fn takes_k(op: VectorOp) -> bool {
    matches!(op, VectorOp::Topk | VectorOp::Bottomk | VectorOp::ApproxTopk)
}

/// The most series that `topk` and its like may name.
const K_MAX: f64 = 1e9;

fn k_of(op: VectorOp, parameter: Option<(f64, SourceSpan)>, span: SourceSpan) -> Result<Option<usize>> {
    match parameter {
        None if takes_k(op) => {
            Err(lexer::semantic_error(span, format!("parameter required for operation {}", op.name())))
        }
        None => Ok(None),
        Some((_, place)) if !takes_k(op) => {
            Err(lexer::semantic_error(place, format!("unsupported parameter for operation {}(", op.name())))
        }
        Some((k, place)) if k < 1.0 || k.fract() != 0.0 || k > K_MAX => {
            let message = format!("invalid parameter (must be greater than 0) {}(", op.name());
            Err(lexer::semantic_error(place, message))
        }
        Some((k, _)) => Ok(Some(k as usize)),
    }
}

fn leg(expr: Expr, side: &str, op: BinaryOp, span: SourceSpan) -> Result<MetricExpr> {
    match expr {
        Expr::Metric(metric) => Ok(metric),
        Expr::Log(_) => {
            let message = format!("unexpected type for {side} leg of binary operation ({}): log query", op.name());
            Err(lexer::semantic_error(span, message))
        }
    }
}

/// `and`, `or` and `unless` take no literals.
fn check_literals(op: BinaryOp, left: &MetricExpr, right: &MetricExpr, span: SourceSpan) -> Result<()> {
    for (side, leg) in [("left", left), ("right", right)] {
        if let (true, MetricExpr::Literal(value, _)) = (op.is_set(), leg) {
            let message =
                format!("unexpected literal for {side} leg of logical/set binary operation ({}): {value}", op.name());
            return Err(lexer::semantic_error(span, message));
        }
    }
    Ok(())
}

//! Expressions: operands, postfix modifiers, calls and aggregations.

use super::super::ast::{Aggregate, AggregateOp, At, BinaryOp, Duration, Expr, Extent, NodeId, Shift, Type};
use super::super::functions;
use super::super::lexer::{Keyword, TokenKind, is_broken, quote};
use super::Parser;
use super::number::number;
use crate::error::{Result, SourceSpan};

impl Parser<'_> {
    /// An expression of operators that bind at least as strongly as `precedence`.
    pub(super) fn expr(&mut self, precedence: u8) -> Result<NodeId> {
        self.nested(|parser| {
            let mut lhs = parser.operand()?;
            while let TokenKind::Operator(op) = parser.peek().kind
                && op.precedence() >= precedence
            {
                lhs = parser.binary(lhs, op)?;
            }
            Ok(lhs)
        })
    }

    fn operand(&mut self) -> Result<NodeId> {
        let token = self.peek().clone();
        let negative = match token.kind {
            TokenKind::Operator(BinaryOp::Sub) => true,
            TokenKind::Operator(BinaryOp::Add) => false,
            _ => {
                let primary = self.primary()?;
                return self.postfix(primary);
            }
        };
        self.bump();
        let expr = self.expr(BinaryOp::Pow.precedence())?;
        let node = &mut self.nodes[expr.0];
        if let Expr::Number { value, .. } = &mut node.expr {
            if negative {
                *value = -*value;
            }
            node.span.start = token.span.start;
            return Ok(expr);
        }
        let kind = node.kind;
        Ok(self.push(token.span.start, kind, Expr::Unary { negative, expr }))
    }

    fn primary(&mut self) -> Result<NodeId> {
        let token = self.peek().clone();
        let start = token.span.start;
        let call_follows = self.ahead(1).kind == TokenKind::LeftParen;
        match token.kind {
            TokenKind::Number | TokenKind::Duration => {
                self.bump();
                let raw = &self.text[token.span.start..token.span.end];
                let duration = token.kind == TokenKind::Duration;
                let value = number(raw, duration).map_err(|message| self.error(token.span, message))?;
                Ok(self.push(start, Type::Scalar, Expr::Number { value, duration }))
            }
            TokenKind::Text(value) => {
                self.bump();
                let value = value.map_err(|e| self.error(token.span, format!("error unquoting string: {e}")))?;
                Ok(self.push(start, Type::Text, Expr::Text(value)))
            }
            TokenKind::LeftParen => {
                self.bump();
                let inner = self.expr(0)?;
                self.expect(&TokenKind::RightParen, "", "")?;
                let kind = self.kind(inner);
                Ok(self.push(start, kind, Expr::Paren(inner)))
            }
            TokenKind::Aggregator(op) if call_follows || self.grouping_follows() => self.aggregate(op),
            TokenKind::Identifier if call_follows => self.call(),
            TokenKind::Keyword(
                Keyword::Start | Keyword::End | Keyword::Step | Keyword::Range | Keyword::MinOf | Keyword::MaxOf,
            ) if call_follows => self.call(),
            _ => {
                let selector = self.series_selector()?;
                Ok(self.push(start, Type::Vector, Expr::Vector(selector)))
            }
        }
    }

    fn grouping_follows(&self) -> bool {
        matches!(self.ahead(1).kind, TokenKind::Keyword(Keyword::By | Keyword::Without))
    }

    fn arguments(&mut self, context: &str) -> Result<Vec<NodeId>> {
        self.expect(&TokenKind::LeftParen, context, "")?;
        let mut args = Vec::new();
        if self.eat(&TokenKind::RightParen).is_some() {
            return Ok(args);
        }
        loop {
            args.push(self.expr(0)?);
            if self.eat(&TokenKind::RightParen).is_some() {
                return Ok(args);
            }
            let comma = self.expect(&TokenKind::Comma, "", "")?;
            if self.peek().kind == TokenKind::RightParen {
                return Err(self.error(comma.span, "trailing commas not allowed in function call args"));
            }
        }
    }

    fn call(&mut self) -> Result<NodeId> {
        let name = self.bump();
        let text = &self.text[name.span.start..name.span.end];
        let Some(function) = functions::find(text) else {
            return Err(self.error(name.span, format!("unknown function with name {}", quote(text))));
        };
        let outside = std::mem::replace(&mut self.any_selector, function.name == "info");
        let args = self.arguments("");
        self.any_selector = outside;
        Ok(self.push(name.span.start, function.returns, Expr::Call { function, args: args? }))
    }

    fn aggregate(&mut self, op: AggregateOp) -> Result<NodeId> {
        let start = self.bump().span.start;
        let mut clause = self.grouping_clause()?;
        let mut args = self.arguments("aggregation")?;
        if clause.is_none() {
            clause = self.grouping_clause()?;
        }
        let span = SourceSpan { start, end: self.last_end() };
        let wanted = if op.has_param() { 2 } else { 1 };
        let Some(expr) = args.pop() else {
            return Err(self.error(span, "no arguments for aggregate expression provided"));
        };
        if args.len() + 1 != wanted {
            let got = args.len() + 1;
            return Err(self.error(
                span,
                format!("wrong number of arguments for aggregate expression provided, expected {wanted}, got {got}"),
            ));
        }
        let (without, grouping) = clause.unwrap_or_default();
        let aggregate = Aggregate { op, expr, param: args.pop(), grouping, without };
        Ok(self.push(start, Type::Vector, Expr::Aggregate(aggregate)))
    }

    fn grouping_clause(&mut self) -> Result<Option<(bool, Vec<String>)>> {
        let without = match self.peek().kind {
            TokenKind::Keyword(Keyword::By) => false,
            TokenKind::Keyword(Keyword::Without) => true,
            _ => return Ok(None),
        };
        self.bump();
        Ok(Some((without, self.grouping_labels()?)))
    }

    /// `(a, "b.c", …)`
    pub(super) fn grouping_labels(&mut self) -> Result<Vec<String>> {
        const CONTEXT: &str = "grouping opts";
        self.expect(&TokenKind::LeftParen, CONTEXT, "\"(\"")?;
        let mut labels = Vec::new();
        while self.eat(&TokenKind::RightParen).is_none() {
            let token = self.peek().clone();
            let label = match &token.kind {
                TokenKind::Identifier
                | TokenKind::Keyword(_)
                | TokenKind::Aggregator(_)
                | TokenKind::Operator(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless | BinaryOp::Atan2) => {
                    self.text[token.span.start..token.span.end].to_owned()
                }
                TokenKind::Text(Ok(label)) if !label.is_empty() && !is_broken(label) => label.clone(),
                TokenKind::Text(label) => {
                    let shown = quote(label.as_deref().unwrap_or(""));
                    return Err(self.error(token.span, format!("invalid label name for grouping: {shown}")));
                }
                _ => return Err(self.unexpected(CONTEXT, "label")),
            };
            self.bump();
            labels.push(label);
            if self.peek().kind != TokenKind::RightParen {
                self.expect(&TokenKind::Comma, CONTEXT, "\",\" or \")\"")?;
            }
        }
        Ok(labels)
    }

    /// `[…]`, `offset`, `@`, `anchored` and `smoothed` after an operand, any number of them.
    fn postfix(&mut self, mut id: NodeId) -> Result<NodeId> {
        loop {
            match self.peek().kind {
                TokenKind::LeftBracket => id = self.bracket(id)?,
                TokenKind::Keyword(Keyword::Offset) => {
                    self.bump();
                    let offset = self.offset_duration()?;
                    let shift = self.shift_of(id, "offset modifier")?;
                    if shift.offset.replace(offset).is_some() {
                        return Err(self.error(self.span(id), "offset may not be set multiple times"));
                    }
                }
                TokenKind::At => {
                    self.bump();
                    let at = self.at_time()?;
                    let shift = self.shift_of(id, "@ modifier")?;
                    if shift.at.replace(at).is_some() {
                        return Err(self.error(self.span(id), "@ <timestamp> may not be set multiple times"));
                    }
                }
                TokenKind::Keyword(Keyword::Anchored) => self.extend(id, Extent::Anchored)?,
                TokenKind::Keyword(Keyword::Smoothed) => self.extend(id, Extent::Smoothed)?,
                _ => return Ok(id),
            }
            let end = self.last_end();
            self.nodes[id.0].span.end = end;
        }
    }

    fn shift_of(&mut self, id: NodeId, what: &str) -> Result<&mut Shift> {
        let error = self.error(
            self.span(id),
            format!("{what} must be preceded by an instant vector selector or range vector selector or a subquery"),
        );
        match &mut self.nodes[id.0].expr {
            Expr::Vector(selector) | Expr::Matrix { selector, .. } => Ok(&mut selector.shift),
            Expr::Subquery { shift, .. } => Ok(shift),
            _ => Err(error),
        }
    }

    fn extend(&mut self, id: NodeId, extent: Extent) -> Result<()> {
        let token = self.bump();
        let word = if extent == Extent::Anchored { "anchored" } else { "smoothed" };
        let span = self.span(id);
        let error = |message: String| super::parse_error(self.text, span, message);
        let message = match &self.nodes[id.0].expr {
            Expr::Vector(_) if extent == Extent::Anchored => {
                Some("anchored modifier is not supported on an instant vector selector".to_owned())
            }
            Expr::Vector(selector) | Expr::Matrix { selector, .. } => match selector.extent {
                Extent::Plain => None,
                old if old == extent => Some(format!("{word} modifier may not be set multiple times")),
                _ => Some("anchored and smoothed modifiers cannot be used together".to_owned()),
            },
            Expr::Subquery { .. } => Some(format!("{word} modifier is not supported for subqueries")),
            _ => Some(format!("{word} modifier not implemented")),
        };
        if let Some(message) = message {
            return Err(error(message));
        }
        if let Expr::Vector(selector) | Expr::Matrix { selector, .. } = &mut self.nodes[id.0].expr {
            selector.extent = extent;
        }
        let _ = token;
        Ok(())
    }

    fn bracket(&mut self, id: NodeId) -> Result<NodeId> {
        let open = self.bump();
        let range = self.range_duration()?;
        if self.eat(&TokenKind::Colon).is_some() {
            return self.subquery(id, range);
        }
        self.expect(&TokenKind::RightBracket, "subquery or range selector", "\":\" or \"]\"")?;
        let end = self.last_end();
        let found = match &mut self.nodes[id.0].expr {
            Expr::Vector(selector) => std::mem::replace(selector, empty_selector()),
            _ => {
                let span = SourceSpan { start: open.span.start, end };
                return Err(self.error(span, "ranges only allowed for vector selectors"));
            }
        };
        let span = SourceSpan { start: open.span.start, end };
        if found.shift.offset.is_some() {
            return Err(self.error(span, "no offset modifiers allowed before range"));
        }
        if found.shift.at.is_some() {
            return Err(self.error(span, "no @ modifiers allowed before range"));
        }
        let node = &mut self.nodes[id.0];
        node.expr = Expr::Matrix { selector: found, range };
        node.kind = Type::Matrix;
        Ok(id)
    }

    fn subquery(&mut self, id: NodeId, range: Duration) -> Result<NodeId> {
        let step = match self.peek().kind {
            TokenKind::RightBracket => None,
            _ => Some(self.range_duration()?),
        };
        self.expect(&TokenKind::RightBracket, "subquery selector", "\"]\"")?;
        let start = self.span(id).start;
        let expr = Expr::Subquery { expr: id, range, step, shift: Shift::default() };
        Ok(self.push(start, Type::Matrix, expr))
    }

    fn at_time(&mut self) -> Result<At> {
        const CONTEXT: &str = "@";
        let token = self.peek().clone();
        let which = match token.kind {
            TokenKind::Keyword(Keyword::Start) => Some(At::Start),
            TokenKind::Keyword(Keyword::End) => Some(At::End),
            _ => None,
        };
        if let Some(at) = which {
            self.bump();
            self.expect(&TokenKind::LeftParen, CONTEXT, "timestamp")?;
            self.expect(&TokenKind::RightParen, CONTEXT, "timestamp")?;
            return Ok(at);
        }
        let negative = match token.kind {
            TokenKind::Operator(BinaryOp::Sub) => Some(true),
            TokenKind::Operator(BinaryOp::Add) => Some(false),
            _ => None,
        };
        if negative.is_some() {
            self.bump();
        }
        let token = self.peek().clone();
        if !matches!(token.kind, TokenKind::Number | TokenKind::Duration) {
            return Err(self.unexpected(CONTEXT, "timestamp"));
        }
        self.bump();
        let raw = &self.text[token.span.start..token.span.end];
        let value = number(raw, token.kind == TokenKind::Duration).map_err(|m| self.error(token.span, m))?;
        let seconds = if negative == Some(true) { -value } else { value };
        let ms = (seconds * 1000.0).round();
        // Beyond this the sum with an offset or a range would leave 64 bits.
        if !seconds.is_finite() || ms.abs() >= (i64::MAX / 4) as f64 {
            return Err(self.error(token.span, format!("timestamp out of bounds for @ modifier: {seconds}")));
        }
        Ok(At::Time(ms as i64))
    }
}

fn empty_selector() -> super::super::ast::Selector {
    super::super::ast::Selector { name: None, matchers: Vec::new(), shift: Shift::default(), extent: Extent::Plain }
}

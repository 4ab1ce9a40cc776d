//! Binary operations and their matching modifiers.

use super::super::ast::{Binary, BinaryOp, Cardinality, Expr, Matching, NodeId, Type};
use super::super::lexer::{Keyword, TokenKind};
use super::Parser;
use super::number::number;
use crate::error::Result;

impl Parser<'_> {
    /// `lhs` and the next token, an operator: the operation.
    pub(super) fn binary(&mut self, lhs: NodeId, op: BinaryOp) -> Result<NodeId> {
        let op_span = self.bump().span;
        let bool_modifier = self.eat(&TokenKind::Keyword(Keyword::Bool)).is_some();
        let matching = self.matching(op)?;
        // Only the power binds to the right.
        let precedence = if op == BinaryOp::Pow { op.precedence() } else { op.precedence() + 1 };
        let rhs = self.expr(precedence)?;
        let scalars = self.kind(lhs) == Type::Scalar && self.kind(rhs) == Type::Scalar;
        let kind = if scalars { Type::Scalar } else { Type::Vector };
        let start = self.span(lhs).start;
        Ok(self.push(start, kind, Expr::Binary(Binary { op, op_span, lhs, rhs, bool_modifier, matching })))
    }

    fn matching(&mut self, op: BinaryOp) -> Result<Matching> {
        let mut matching = Matching::default();
        if op.is_set() {
            matching.cardinality = Cardinality::ManyToMany;
        }
        let on = match self.peek().kind {
            TokenKind::Keyword(Keyword::On) => Some(true),
            TokenKind::Keyword(Keyword::Ignoring) => Some(false),
            _ => None,
        };
        if let Some(on) = on {
            self.bump();
            matching.on = on;
            matching.labels = self.grouping_labels()?;
            let cardinality = match self.peek().kind {
                TokenKind::Keyword(Keyword::GroupLeft) => Some(Cardinality::ManyToOne),
                TokenKind::Keyword(Keyword::GroupRight) => Some(Cardinality::OneToMany),
                _ => None,
            };
            if let Some(cardinality) = cardinality {
                self.bump();
                matching.cardinality = cardinality;
                if self.peek().kind == TokenKind::LeftParen {
                    matching.include = self.grouping_labels()?;
                }
            }
        }
        self.fills(&mut matching)?;
        Ok(matching)
    }

    fn fills(&mut self, matching: &mut Matching) -> Result<()> {
        while let TokenKind::Keyword(keyword @ (Keyword::Fill | Keyword::FillLeft | Keyword::FillRight)) =
            self.peek().kind
            && self.ahead(1).kind == TokenKind::LeftParen
        {
            let span = self.bump().span;
            let value = self.fill_value()?;
            let (left, right) = (keyword != Keyword::FillRight, keyword != Keyword::FillLeft);
            let twice = (left && matching.fill_left.is_some()) || (right && matching.fill_right.is_some());
            if twice {
                return Err(self.error(span, "fill modifier may not be set multiple times"));
            }
            if left {
                matching.fill_left = Some(value);
            }
            if right {
                matching.fill_right = Some(value);
            }
        }
        Ok(())
    }

    fn fill_value(&mut self) -> Result<f64> {
        const CONTEXT: &str = "fill modifier";
        self.expect(&TokenKind::LeftParen, CONTEXT, "\"(\"")?;
        let negative = match self.peek().kind {
            TokenKind::Operator(BinaryOp::Sub) => Some(true),
            TokenKind::Operator(BinaryOp::Add) => Some(false),
            _ => None,
        };
        if negative.is_some() {
            self.bump();
        }
        let token = self.peek().clone();
        if !matches!(token.kind, TokenKind::Number | TokenKind::Duration) {
            return Err(self.unexpected(CONTEXT, "number"));
        }
        self.bump();
        let raw = &self.text[token.span.start..token.span.end];
        let value = number(raw, token.kind == TokenKind::Duration).map_err(|m| self.error(token.span, m))?;
        self.expect(&TokenKind::RightParen, CONTEXT, "\")\"")?;
        Ok(if negative == Some(true) { -value } else { value })
    }
}

//! Durations of ranges, steps and offsets, and the expressions that compute them.

use super::super::ast::BinaryOp;
use super::super::ast::{Duration, DurationExpr, DurationKind, DurationOp};
use super::super::lexer::{Keyword, TokenKind};
use super::Parser;
use super::number::number;
use crate::error::{Result, SourceSpan};

/// The longest duration, in seconds: the original counts nanoseconds in 64 bits.
const SECONDS_MAX: f64 = 9_223_372_036.0;

impl Parser<'_> {
    /// The duration of a range or a step: above zero if it is a literal.
    pub(super) fn range_duration(&mut self) -> Result<Duration> {
        let expr = self.duration_expr(0)?;
        self.literal_or_expr(expr, false)
    }

    /// The duration after `offset`: a signed literal, a call, or anything in parentheses.
    pub(super) fn offset_duration(&mut self) -> Result<Duration> {
        let expr = self.duration_operand(true)?;
        self.literal_or_expr(expr, true)
    }

    fn literal_or_expr(&self, expr: DurationExpr, signed: bool) -> Result<Duration> {
        let literal = match &expr.kind {
            DurationKind::Number(value, _) => Some(*value),
            DurationKind::Unary(negative, inner) => match inner.kind {
                DurationKind::Number(value, _) => Some(if *negative { -value } else { value }),
                _ => None,
            },
            _ => None,
        };
        let Some(seconds) = literal else {
            return Ok(Duration::Expr(Box::new(expr)));
        };
        if !signed && (seconds <= 0.0 || seconds.is_nan()) {
            return Err(self.error(expr.span, "duration must be greater than 0"));
        }
        if seconds.is_nan() || seconds.abs() > SECONDS_MAX {
            return Err(self.error(expr.span, "duration out of range"));
        }
        Ok(Duration::Millis((seconds * 1000.0).round() as i64))
    }

    fn duration_expr(&mut self, precedence: u8) -> Result<DurationExpr> {
        self.nested(|parser| {
            let mut lhs = parser.duration_operand(false)?;
            let mut chain = 0;
            while let TokenKind::Operator(op) = parser.peek().kind
                && let Some(kind) = duration_op(op)
                && op.precedence() >= precedence
            {
                chain += 1;
                if chain > super::DEPTH_MAX {
                    return Err(parser.unexpected("a duration expression that is too long", ""));
                }
                parser.bump();
                let rhs = parser.duration_expr(op.precedence() + u8::from(op != BinaryOp::Pow))?;
                let span = SourceSpan { start: lhs.span.start, end: rhs.span.end };
                lhs = DurationExpr { span, kind: DurationKind::Binary(kind, Box::new(lhs), Box::new(rhs)) };
            }
            Ok(lhs)
        })
    }

    fn duration_operand(&mut self, offset: bool) -> Result<DurationExpr> {
        let token = self.peek().clone();
        let start = token.span.start;
        let kind = match token.kind {
            TokenKind::Number | TokenKind::Duration => {
                self.bump();
                let raw = &self.text[token.span.start..token.span.end];
                let duration = token.kind == TokenKind::Duration;
                let value = number(raw, duration).map_err(|message| self.error(token.span, message))?;
                DurationKind::Number(value, duration)
            }
            TokenKind::Operator(op @ (BinaryOp::Sub | BinaryOp::Add)) => {
                self.bump();
                let inner = if offset {
                    self.nested(|parser| parser.duration_operand(true))?
                } else {
                    self.duration_expr(BinaryOp::Pow.precedence())?
                };
                DurationKind::Unary(op == BinaryOp::Sub, Box::new(inner))
            }
            TokenKind::LeftParen => {
                self.bump();
                let inner = self.duration_expr(0)?;
                self.expect(&TokenKind::RightParen, "duration expression", "\")\"")?;
                DurationKind::Paren(Box::new(inner))
            }
            TokenKind::Keyword(keyword @ (Keyword::Step | Keyword::Range)) => {
                self.bump();
                self.expect(&TokenKind::LeftParen, "duration expression", "\"(\"")?;
                self.expect(&TokenKind::RightParen, "duration expression", "\")\"")?;
                if keyword == Keyword::Step { DurationKind::Step } else { DurationKind::Range }
            }
            TokenKind::Keyword(keyword @ (Keyword::MinOf | Keyword::MaxOf)) => {
                self.bump();
                self.expect(&TokenKind::LeftParen, "duration expression", "\"(\"")?;
                let lhs = self.duration_expr(0)?;
                self.expect(&TokenKind::Comma, "duration expression", "\",\"")?;
                let rhs = self.duration_expr(0)?;
                self.expect(&TokenKind::RightParen, "duration expression", "\")\"")?;
                let op = if keyword == Keyword::MinOf { DurationOp::MinOf } else { DurationOp::MaxOf };
                DurationKind::Binary(op, Box::new(lhs), Box::new(rhs))
            }
            _ => {
                let context = if offset { "offset" } else { "subquery or range selector" };
                return Err(self.unexpected(context, "number, duration, step(), or range()"));
            }
        };
        Ok(DurationExpr { span: SourceSpan { start, end: self.last_end() }, kind })
    }
}

fn duration_op(op: BinaryOp) -> Option<DurationOp> {
    Some(match op {
        BinaryOp::Add => DurationOp::Add,
        BinaryOp::Sub => DurationOp::Sub,
        BinaryOp::Mul => DurationOp::Mul,
        BinaryOp::Div => DurationOp::Div,
        BinaryOp::Mod => DurationOp::Mod,
        BinaryOp::Pow => DurationOp::Pow,
        _ => return None,
    })
}

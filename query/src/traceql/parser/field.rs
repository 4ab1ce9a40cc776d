//! Expressions over one span: constants, references, operators by precedence.
//!
//! ```text
//! && ||   <   = != < <= > >= =~ !~   <   + -   <   !   <   * / %   <   ^ (right)   <   - (unary)
//! ```

use super::super::ast::{BinaryOp, Field, FieldKind, Intrinsic, KINDS, Reference, STATUSES, Static, UnaryOp};
use super::super::lexer::Token;
use super::{Deep, Parser};
use crate::error::{Result, SourceSpan};

/// Binding strength of each level; `!` stands between sums and products.
const LOGICAL: u8 = 1;
const COMPARISON: u8 = 2;
const SUM: u8 = 3;
const NOT: u8 = 4;
const PRODUCT: u8 = 5;
const POWER: u8 = 6;

fn strength(op: BinaryOp) -> u8 {
    match op {
        BinaryOp::And | BinaryOp::Or => LOGICAL,
        BinaryOp::Add | BinaryOp::Sub => SUM,
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod => PRODUCT,
        BinaryOp::Pow => POWER,
        _ => COMPARISON,
    }
}

impl Parser<'_> {
    /// A whole expression.
    pub(super) fn field(&mut self) -> Result<Deep<Field>> {
        self.field_from(LOGICAL)
    }

    /// An expression whose operators bind at least as strongly as `weakest`.
    fn field_from(&mut self, weakest: u8) -> Result<Deep<Field>> {
        let start = self.at().start;
        let (mut left, mut depth) = self.field_prefix()?;
        while let Some(op) = self.peek_sign().and_then(BinaryOp::of_sign) {
            let level = strength(op);
            if level < weakest {
                break;
            }
            self.advance();
            let (right, right_depth) = if op == BinaryOp::Pow {
                self.nested(|parser| parser.field_from(level))?
            } else {
                self.nested(|parser| parser.field_from(level + 1))?
            };
            depth = self.above(depth, right_depth)?;
            let span = SourceSpan { start, end: self.end_of_last() };
            left = Field { kind: FieldKind::Binary(op, Box::new(left), Box::new(right)), span };
        }
        Ok((left, depth))
    }

    fn field_prefix(&mut self) -> Result<Deep<Field>> {
        let start = self.at().start;
        if self.take("!") {
            let (inner, depth) = self.nested(|parser| parser.field_from(NOT))?;
            let depth = self.above(depth, 0)?;
            let span = SourceSpan { start, end: self.end_of_last() };
            return Ok((Field { kind: FieldKind::Unary(UnaryOp::Not, Box::new(inner)), span }, depth));
        }
        if self.take("-") {
            let (inner, depth) = self.nested(|parser| parser.field_prefix())?;
            let span = SourceSpan { start, end: self.end_of_last() };
            // A sign before a number is part of the number.
            let kind = match inner.kind {
                FieldKind::Static(Static::Int(n)) => FieldKind::Static(Static::Int(n.wrapping_neg())),
                FieldKind::Static(Static::Float(x)) => FieldKind::Static(Static::Float(-x)),
                FieldKind::Static(Static::Duration(ns)) => FieldKind::Static(Static::Duration(ns.wrapping_neg())),
                kind => FieldKind::Unary(UnaryOp::Neg, Box::new(Field { kind, span: inner.span })),
            };
            let depth = self.above(depth, 0)?;
            return Ok((Field { kind, span }, depth));
        }
        self.field_primary()
    }

    fn field_primary(&mut self) -> Result<Deep<Field>> {
        let span = self.at();
        if self.take("(") {
            let (inner, depth) = self.nested(Parser::field)?;
            self.expect(")")?;
            return Ok((inner, depth));
        }
        if let Some(literal) = self.static_here() {
            self.advance();
            return Ok((Field { kind: FieldKind::Static(literal), span }, 1));
        }
        let reference = self.reference()?;
        Ok((Field { kind: FieldKind::Reference(reference), span }, 1))
    }

    /// An attribute or intrinsic.
    pub(super) fn reference(&mut self) -> Result<Reference> {
        let reference = match self.peek() {
            Token::Reference(reference) => reference.clone(),
            Token::Word(word) => match Intrinsic::of_name(word) {
                Some(intrinsic) => Reference::Intrinsic(intrinsic),
                None if is_keyword(word) => return Err(self.unexpected()),
                None => return Err(self.error(self.at(), &format!("unknown identifier: {word}"))),
            },
            _ => return Err(self.unexpected()),
        };
        self.advance();
        Ok(reference)
    }

    /// The constant that is next, not taken yet.
    pub(super) fn static_here(&self) -> Option<Static> {
        Some(match self.peek() {
            Token::String(text) => Static::String(text.clone()),
            Token::Int(n) => Static::Int(*n),
            Token::Float(x) => Static::Float(*x),
            Token::Duration(ns) => Static::Duration(*ns),
            Token::Word(word) => match word.as_str() {
                "true" => Static::Bool(true),
                "false" => Static::Bool(false),
                "nil" => Static::Nil,
                "minInt" => Static::Int(i64::MIN),
                "maxInt" => Static::Int(i64::MAX),
                word => {
                    let number = |words: &[(&str, i32)]| words.iter().find(|(w, _)| *w == word).map(|(_, n)| *n);
                    number(&STATUSES).map(Static::Status).or_else(|| number(&KINDS).map(Static::Kind))?
                }
            },
            _ => return None,
        })
    }
}

/// Words that mean something elsewhere in the grammar.
fn is_keyword(word: &str) -> bool {
    const KEYWORDS: [&str; 21] = [
        "by",
        "coalesce",
        "select",
        "count",
        "avg",
        "min",
        "max",
        "sum",
        "with",
        "rate",
        "count_over_time",
        "min_over_time",
        "max_over_time",
        "sum_over_time",
        "avg_over_time",
        "quantile_over_time",
        "histogram_over_time",
        "compare",
        "topk",
        "bottomk",
        "childCount",
    ];
    KEYWORDS.contains(&word)
}

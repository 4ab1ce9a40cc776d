//! Tokens → syntax tree.
//!
//! Owns: the cursor over tokens, the root of the grammar, hints, and the bounds on nesting. Does not own: spanset,
//! pipeline and metrics grammar (`parser::pipeline`), expressions over a span (`parser::field`), types (`check`).
//!
//! ```text
//! query    = sequence [ "with" "(" name "=" literal , … ")" ]
//! sequence = first { "|" stage } | metrics
//! ```

mod field;
mod pipeline;

use super::ast::{DEPTH_MAX, Query, Reference, Root, Stage, Static};
use super::lexer::{Token, error_at, tokens};
use crate::error::{Error, Kind, Result, SourceSpan};
use pipeline::Node;

/// The longest query text in bytes.
pub const QUERY_BYTES_MAX: usize = 128 << 10;

/// How deep parentheses and prefixes may nest in the text. Lower than [`DEPTH_MAX`], since a nesting costs the
/// parser several frames.
const NESTING_MAX: usize = 100;
/// How the error of a text begins that nests deeper.
pub const TOO_DEEP: &str = "parentheses nest deeper than";

/// Reads a query. Errors are [`Kind::Parse`] with line and column.
pub fn parse(text: &str) -> Result<Query> {
    if text.len() > QUERY_BYTES_MAX {
        return Err(Error::new(
            Kind::Parse,
            format!(
                "TraceQL expression exceeds the configured maximum size of {QUERY_BYTES_MAX} bytes: it has {} bytes",
                text.len()
            ),
        ));
    }
    let mut parser = Parser::new(text)?;
    let node = parser.sequence()?;
    let root = match node {
        Node::Spansets(spansets) => Root::Spansets(one_stage(Stage::Spansets(spansets))),
        Node::Filter(filter) => Root::Spansets(one_stage(Stage::Scalar(filter))),
        Node::Pipeline(pipeline) => Root::Spansets(pipeline),
        Node::Metrics(metrics) => Root::Metrics(metrics),
        Node::Scalar(_) => return Err(parser.unexpected()),
    };
    let hints = parser.hints()?;
    parser.expect_end()?;
    Ok(Query { root, hints })
}

/// Reads an attribute or intrinsic that stands alone, as tag values take it.
pub fn parse_reference(text: &str) -> Result<Reference> {
    let mut parser = Parser::new(text)?;
    let reference = parser.reference()?;
    parser.expect_end()?;
    Ok(reference)
}

fn one_stage(stage: Stage) -> super::ast::Pipeline {
    super::ast::Pipeline { stages: vec![stage] }
}

/// A node and its depth in nodes.
type Deep<T> = (T, usize);

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(Token, SourceSpan)>,
    next: usize,
    nesting: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self> {
        Ok(Self { text, tokens: tokens(text)?, next: 0, nesting: 0 })
    }

    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(token, _)| token)
    }

    fn at(&self) -> SourceSpan {
        let end = SourceSpan { start: self.text.len(), end: self.text.len() };
        self.tokens.get(self.next).map_or(end, |(_, span)| *span)
    }

    fn advance(&mut self) {
        self.next += 1;
    }

    /// The end of the token before the next one.
    fn end_of_last(&self) -> usize {
        self.next.checked_sub(1).and_then(|last| self.tokens.get(last)).map_or(0, |(_, span)| span.end)
    }

    fn peek_sign(&self) -> Option<&'static str> {
        match self.peek() {
            Token::Sign(sign) => Some(sign),
            _ => None,
        }
    }

    fn peek_word(&self) -> Option<&str> {
        match self.peek() {
            Token::Word(word) => Some(word),
            _ => None,
        }
    }

    /// Takes `sign` if it is next.
    fn take(&mut self, sign: &str) -> bool {
        let found = self.peek_sign() == Some(sign);
        if found {
            self.advance();
        }
        found
    }

    /// Takes `word` if it is next.
    fn take_word(&mut self, word: &str) -> bool {
        let found = self.peek_word() == Some(word);
        if found {
            self.advance();
        }
        found
    }

    fn expect(&mut self, sign: &str) -> Result<()> {
        if self.take(sign) { Ok(()) } else { Err(self.unexpected_for(&format!(", expecting {sign}"))) }
    }

    fn expect_end(&self) -> Result<()> {
        if *self.peek() == Token::End { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> Error {
        self.unexpected_for("")
    }

    fn unexpected_for(&self, more: &str) -> Error {
        let name = match self.peek() {
            Token::Word(word) => word.clone(),
            Token::Reference(reference) => reference.to_string(),
            Token::String(_) => "STRING".into(),
            Token::Int(_) => "INTEGER".into(),
            Token::Float(_) => "FLOAT".into(),
            Token::Duration(_) => "DURATION".into(),
            Token::Sign(sign) => (*sign).into(),
            Token::End => "$end".into(),
        };
        self.error(self.at(), &format!("syntax error: unexpected {name}{more}"))
    }

    fn error(&self, span: SourceSpan, what: &str) -> Error {
        error_at(self.text, span, what)
    }

    /// The depth of a node over children of these depths.
    fn above(&self, left: usize, right: usize) -> Result<usize> {
        let depth = left.max(right) + 1;
        if depth > DEPTH_MAX {
            return Err(self.error(self.at(), &format!("the query nests deeper than {DEPTH_MAX} operators")));
        }
        Ok(depth)
    }

    /// Runs `parse` one nesting deeper.
    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.nesting >= NESTING_MAX {
            return Err(self.error(self.at(), &format!("{TOO_DEEP} {NESTING_MAX}")));
        }
        self.nesting += 1;
        let result = parse(self);
        self.nesting -= 1;
        result
    }

    fn hints(&mut self) -> Result<Vec<(String, Static)>> {
        let mut hints = Vec::new();
        if !self.take_word("with") {
            return Ok(hints);
        }
        self.expect("(")?;
        loop {
            let Some(name) = self.peek_word().map(str::to_owned) else {
                return Err(self.unexpected_for(", expecting IDENTIFIER"));
            };
            self.advance();
            self.expect("=")?;
            hints.push((name, self.literal()?));
            if !self.take(",") {
                break;
            }
        }
        self.expect(")")?;
        Ok(hints)
    }

    /// A constant with an optional sign.
    fn literal(&mut self) -> Result<Static> {
        let negative = self.take("-");
        let literal = self.static_here().ok_or_else(|| self.unexpected())?;
        self.advance();
        match (negative, literal) {
            (false, literal) => Ok(literal),
            (true, Static::Int(n)) => Ok(Static::Int(n.wrapping_neg())),
            (true, Static::Float(x)) => Ok(Static::Float(-x)),
            (true, Static::Duration(ns)) => Ok(Static::Duration(-ns)),
            (true, _) => Err(self.unexpected()),
        }
    }
}

#[cfg(test)]
mod tests;

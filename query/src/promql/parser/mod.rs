//! Tokens → syntax tree, by recursive descent; the original's error texts.
//!
//! Owns: what order of tokens makes an expression, and the limits of depth and length. Does not own: types (`check`).
//!
//! Invariants
//! 1. Chains of operators of one precedence are loops: only nesting recurses, at most [`DEPTH_MAX`] deep.
//! 2. Nodes are pushed after their children.

mod binary;
mod duration;
mod expr;
mod number;
mod selector;

use storage::model::matcher::Matcher;

use super::ast::{Ast, Expr, Node, NodeId, Type, position};
use super::lexer::{Token, TokenKind, tokens};
use crate::error::{Error, Kind, Result, SourceSpan};

pub use number::{duration_ms, format_duration};

/// The deepest nesting of an expression: each level takes stack in the parser.
pub const DEPTH_MAX: usize = 200;

/// The longest query: a bound for the work before any other limit applies.
pub const TEXT_BYTES_MAX: usize = 4 << 20;

/// An error of the language at a byte of `text`, in the original's form.
pub(super) fn parse_error(text: &str, span: SourceSpan, message: impl std::fmt::Display) -> Error {
    Error::new(Kind::Parse, format!("{}: parse error: {message}", position(text, span.start))).at(span)
}

/// Reads an expression; types are not checked yet.
pub(super) fn parse(text: &str) -> Result<Ast> {
    let mut parser = Parser::new(text)?;
    if parser.peek().kind == TokenKind::Eof {
        return Err(Error::new(Kind::Parse, "unknown position: parse error: no expression found in input"));
    }
    let root = parser.expr(0)?;
    parser.expect_end()?;
    Ok(Ast { text: text.to_owned(), nodes: parser.nodes, root })
}

/// Reads a series selector as `match[]` takes it, with every matcher, its name's included.
pub(super) fn parse_selector(text: &str) -> Result<Vec<Matcher>> {
    let mut parser = Parser::new(text)?;
    let selector = parser.series_selector()?;
    parser.expect_end()?;
    Ok(selector.matchers)
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    at: usize,
    nodes: Vec<Node>,
    depth: usize,
    /// Set while a label selector of `info` is read, which may match everything.
    any_selector: bool,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Error::new(
                Kind::Parse,
                format!("unknown position: parse error: the query is longer than {TEXT_BYTES_MAX} bytes"),
            ));
        }
        Ok(Self { text, tokens: tokens(text), at: 0, nodes: Vec::new(), depth: 0, any_selector: false })
    }

    fn peek(&self) -> &Token {
        self.ahead(0)
    }

    /// The token after `n` more; the last one stands for all that would follow.
    fn ahead(&self, n: usize) -> &Token {
        &self.tokens[(self.at + n).min(self.tokens.len() - 1)]
    }

    fn bump(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn eat(&mut self, kind: &TokenKind) -> Option<Token> {
        (self.peek().kind == *kind).then(|| self.bump())
    }

    /// The end of the token before the next one.
    fn last_end(&self) -> usize {
        self.at.checked_sub(1).and_then(|i| self.tokens.get(i)).map_or(0, |token| token.span.end)
    }

    fn expect_end(&self) -> Result<()> {
        if self.peek().kind == TokenKind::Eof { Ok(()) } else { Err(self.unexpected("", "")) }
    }

    fn expect(&mut self, kind: &TokenKind, context: &str, expected: &str) -> Result<Token> {
        match self.eat(kind) {
            Some(token) => Ok(token),
            None => Err(self.unexpected(context, expected)),
        }
    }

    /// The error of the next token: `unexpected <token> in <context>, expected <expected>`.
    fn unexpected(&self, context: &str, expected: &str) -> Error {
        let token = self.peek();
        if let TokenKind::Error(message) = &token.kind {
            return self.error(token.span, message);
        }
        let mut message = format!("unexpected {}", token.describe(self.text));
        if !context.is_empty() {
            message.push_str(" in ");
            message.push_str(context);
        }
        if !expected.is_empty() {
            message.push_str(", expected ");
            message.push_str(expected);
        }
        self.error(token.span, message)
    }

    fn error(&self, span: SourceSpan, message: impl std::fmt::Display) -> Error {
        parse_error(self.text, span, message)
    }

    fn push(&mut self, start: usize, kind: Type, expr: Expr) -> NodeId {
        let span = SourceSpan { start, end: self.last_end() };
        self.nodes.push(Node { span, kind, expr });
        NodeId(self.nodes.len() - 1)
    }

    fn span(&self, id: NodeId) -> SourceSpan {
        self.nodes[id.0].span
    }

    fn kind(&self, id: NodeId) -> Type {
        self.nodes[id.0].kind
    }

    /// Counts one level of nesting.
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= DEPTH_MAX {
            let message = format!("the expression is nested more than {DEPTH_MAX} levels deep");
            return Err(self.error(self.peek().span, message));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }
}

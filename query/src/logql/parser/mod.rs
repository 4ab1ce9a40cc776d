//! Tokens → syntax tree; errors with line and column, in the words of the original.
//!
//! Owns: the token cursor, the limit of nesting, the selector. Does not own: pipelines (`stage`), metric expressions
//! (`metric`), meaning (`check`).

mod metric;
mod stage;

use storage::model::matcher::MatchOp;

use super::ast::{DEPTH_MAX, Expr, LabelTest, LogExpr};
use super::lexer::{self, Placed, Token};
use crate::error::{Error, Result, SourceSpan};

/// Parses a whole query.
pub fn parse(text: &str) -> Result<Expr> {
    let mut parser = Parser::new(text);
    let expr = parser.expr(0)?;
    parser.expect_end()?;
    Ok(expr)
}

/// Parses matchers in braces and nothing else.
pub fn parse_matchers(text: &str) -> Result<Vec<LabelTest>> {
    let mut parser = Parser::new(text);
    let (matchers, _) = parser.selector()?;
    match parser.peek() {
        Token::End => Ok(matchers),
        Token::Sign("|" | "|=" | "!=" | "|~" | "!~" | "|>" | "!>") => {
            Err(lexer::semantic_error(parser.here(), "only label matchers are supported"))
        }
        _ => Err(parser.unexpected("$end")),
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Placed>,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, tokens: lexer::tokens(text), at: 0, depth: 0 }
    }

    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |placed| &placed.token)
    }

    fn peek_after(&self) -> &Token {
        self.tokens.get(self.at + 1).map_or(&Token::End, |placed| &placed.token)
    }

    fn here(&self) -> SourceSpan {
        let end = SourceSpan { start: self.text.len(), end: self.text.len() };
        self.tokens.get(self.at).map_or(end, |placed| placed.span)
    }

    /// From `start` to the end of the token before this one.
    fn span_from(&self, start: usize) -> SourceSpan {
        let end = self.at.checked_sub(1).and_then(|at| self.tokens.get(at)).map_or(start, |placed| placed.span.end);
        SourceSpan { start, end }
    }

    fn advance(&mut self) {
        self.at += 1;
    }

    fn at_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(found) if *found == sign)
    }

    fn at_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Word(found) if found == word)
    }

    fn take_sign(&mut self, sign: &str) -> bool {
        let found = self.at_sign(sign);
        if found {
            self.advance();
        }
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.at_word(word);
        if found {
            self.advance();
        }
        found
    }

    fn expect_sign(&mut self, sign: &str) -> Result<()> {
        if self.take_sign(sign) { Ok(()) } else { Err(self.unexpected(sign)) }
    }

    fn expect_text(&mut self) -> Result<String> {
        match self.peek() {
            Token::Text(text) => {
                let text = text.clone();
                self.advance();
                Ok(text)
            }
            _ => Err(self.unexpected("STRING")),
        }
    }

    fn expect_name(&mut self) -> Result<String> {
        match self.peek() {
            Token::Word(word) => {
                let word = word.clone();
                self.advance();
                Ok(word)
            }
            _ => Err(self.unexpected("IDENTIFIER")),
        }
    }

    fn expect_end(&mut self) -> Result<()> {
        if *self.peek() == Token::End { Ok(()) } else { Err(self.unexpected("")) }
    }

    /// The error for the token at hand; `expected` may be empty.
    fn unexpected(&self, expected: &str) -> Error {
        let token = self.peek();
        let message = match token {
            Token::Bad(reason) => reason.clone(),
            _ if expected.is_empty() => format!("syntax error: unexpected {}", token.describe()),
            _ => format!("syntax error: unexpected {}, expecting {expected}", token.describe()),
        };
        lexer::error_at(self.text, self.here(), &message)
    }

    /// Goes one level down; every caller goes up again by [`Parser::leave`].
    fn enter(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            let message = format!("the query is nested too deeply, the limit is {DEPTH_MAX}");
            return Err(lexer::error_at(self.text, self.here(), &message));
        }
        Ok(())
    }

    fn leave(&mut self, levels: usize) {
        self.depth = self.depth.saturating_sub(levels);
    }

    /// `{a="b", c=~"d"}`
    fn selector(&mut self) -> Result<(Vec<LabelTest>, SourceSpan)> {
        let start = self.here().start;
        self.expect_sign("{")?;
        let mut matchers = Vec::new();
        if !self.take_sign("}") {
            loop {
                matchers.push(self.label_test()?);
                if self.take_sign("}") {
                    break;
                }
                if !self.take_sign(",") {
                    return Err(self.unexpected("} or ,"));
                }
            }
        }
        Ok((matchers, self.span_from(start)))
    }

    /// `name op "value"`
    fn label_test(&mut self) -> Result<LabelTest> {
        let start = self.here().start;
        let name = self.expect_name()?;
        let Some(op) = self.match_op() else { return Err(self.unexpected("=, =~, !~ or !=")) };
        self.advance();
        let value = self.expect_text()?;
        Ok(LabelTest { name, op, value, span: self.span_from(start) })
    }

    fn match_op(&self) -> Option<MatchOp> {
        match self.peek() {
            Token::Sign("=") => Some(MatchOp::Equal),
            Token::Sign("!=") => Some(MatchOp::NotEqual),
            Token::Sign("=~") => Some(MatchOp::Regex),
            Token::Sign("!~") => Some(MatchOp::NotRegex),
            _ => None,
        }
    }

    /// A selector with its pipeline.
    fn log(&mut self) -> Result<LogExpr> {
        let start = self.here().start;
        let (matchers, _) = self.selector()?;
        let mut stages = Vec::new();
        while let Some(stage) = self.stage()? {
            stages.push(stage);
        }
        Ok(LogExpr { matchers, stages, span: self.span_from(start) })
    }
}

#[cfg(test)]
mod tests;

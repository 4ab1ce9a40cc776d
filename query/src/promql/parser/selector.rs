//! Series selectors: `name{label="value", …}`.

use storage::model::labels::METRIC_NAME;
use storage::model::matcher::{MatchOp, Matcher};

use super::super::ast::{BinaryOp, Extent, Selector, Shift};
use super::super::lexer::{Keyword, Token, TokenKind, is_broken, quote};
use super::Parser;
use crate::error::{Result, SourceSpan};

const CONTEXT: &str = "label matching";

impl Parser<'_> {
    /// A name, braces, or both.
    pub(super) fn series_selector(&mut self) -> Result<Selector> {
        let start = self.peek().span.start;
        let mut name = None;
        if self.peek().kind != TokenKind::LeftBrace {
            if !is_metric_name(&self.peek().kind) {
                return Err(self.unexpected("", ""));
            }
            let token = self.bump();
            name = Some(self.text[token.span.start..token.span.end].to_owned());
        }
        let mut quoted = None;
        let mut matchers = Vec::new();
        if self.eat(&TokenKind::LeftBrace).is_some() {
            self.label_matchers(&mut matchers, &mut quoted)?;
        }
        let span = SourceSpan { start, end: self.last_end() };
        if let Some(name) = &name {
            let twice = matchers.iter().find(|matcher: &&Matcher| matcher.name == METRIC_NAME);
            if let Some(other) = twice.map(|matcher| &matcher.value).or(quoted.as_ref()) {
                let (a, b) = (quote(name), quote(other));
                return Err(self.error(span, format!("metric name must not be set twice: {a} or {b}")));
            }
        }
        if let Some(metric) = name.as_ref().or(quoted.as_ref()) {
            let matcher = Matcher::new(METRIC_NAME, MatchOp::Equal, metric.as_str());
            matchers.push(matcher.map_err(|e| self.error(span, e))?);
        }
        if !self.any_selector && matchers.iter().all(Matcher::matches_empty) {
            return Err(self.error(span, "vector selector must contain at least one non-empty matcher"));
        }
        Ok(Selector { name, matchers, shift: Shift::default(), extent: Extent::Plain })
    }

    fn label_matchers(&mut self, matchers: &mut Vec<Matcher>, quoted: &mut Option<String>) -> Result<()> {
        while self.eat(&TokenKind::RightBrace).is_none() {
            let token = self.peek().clone();
            match &token.kind {
                TokenKind::Identifier => {
                    self.bump();
                    let name = self.text[token.span.start..token.span.end].to_owned();
                    matchers.push(self.label_matcher(&token, name)?);
                }
                TokenKind::Text(value) => {
                    let value = value.clone();
                    self.bump();
                    let value = value.map_err(|e| self.error(token.span, format!("error unquoting string: {e}")))?;
                    if value.is_empty() || is_broken(&value) {
                        return Err(self.error(token.span, format!("invalid label name: {}", quote(&value))));
                    }
                    if matches!(self.peek().kind, TokenKind::Comma | TokenKind::RightBrace) {
                        if let Some(first) = quoted.replace(value.clone()) {
                            let (a, b) = (quote(&first), quote(&value));
                            return Err(
                                self.error(token.span, format!("metric name must not be set twice: {a} or {b}"))
                            );
                        }
                    } else {
                        matchers.push(self.label_matcher(&token, value)?);
                    }
                }
                _ => return Err(self.unexpected(CONTEXT, "identifier or \"}\"")),
            }
            if self.peek().kind != TokenKind::RightBrace {
                self.expect(&TokenKind::Comma, CONTEXT, "\",\" or \"}\"")?;
            }
        }
        Ok(())
    }

    fn label_matcher(&mut self, first: &Token, name: String) -> Result<Matcher> {
        let op = match self.peek().kind {
            TokenKind::Assign => MatchOp::Equal,
            TokenKind::Operator(BinaryOp::Ne) => MatchOp::NotEqual,
            TokenKind::RegexMatch => MatchOp::Regex,
            TokenKind::RegexNotMatch => MatchOp::NotRegex,
            _ => return Err(self.unexpected(CONTEXT, "label matching operator")),
        };
        self.bump();
        let token = self.peek().clone();
        let TokenKind::Text(value) = token.kind else {
            return Err(self.unexpected(CONTEXT, "string"));
        };
        self.bump();
        let value = value.map_err(|e| self.error(token.span, format!("error unquoting string: {e}")))?;
        Matcher::new(name, op, value)
            .map_err(|e| self.error(SourceSpan { start: first.span.start, end: token.span.end }, e))
    }
}

/// Whether a word may be a metric's name where an expression begins.
fn is_metric_name(kind: &TokenKind) -> bool {
    match kind {
        TokenKind::Identifier | TokenKind::MetricIdentifier | TokenKind::Aggregator(_) => true,
        TokenKind::Operator(op) => op.is_set(),
        TokenKind::Keyword(keyword) => !matches!(
            keyword,
            Keyword::On | Keyword::Ignoring | Keyword::GroupLeft | Keyword::GroupRight | Keyword::Bool
        ),
        _ => false,
    }
}

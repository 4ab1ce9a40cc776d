//! Text → tokens with positions.
//!
//! Owns: what a token is, and the errors of characters that fit nowhere. Does not own: what order of tokens makes
//! sense (`parser`). An error is the last token, so that the parser reports an earlier mistake first.

use super::ast::{AggregateOp, BinaryOp};
use crate::error::SourceSpan;

/// A token and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// Where it stands.
    pub span: SourceSpan,
}

/// Words with a meaning of their own; any of them may also be a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Keyword {
    Offset,
    Anchored,
    Smoothed,
    By,
    Without,
    On,
    Ignoring,
    GroupLeft,
    GroupRight,
    Fill,
    FillLeft,
    FillRight,
    Bool,
    Start,
    End,
    Step,
    Range,
    MinOf,
    MaxOf,
}

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum TokenKind {
    Eof,
    Error(String),
    Identifier,
    /// A name with a colon in it.
    MetricIdentifier,
    Keyword(Keyword),
    Aggregator(AggregateOp),
    /// A word that is a number: `inf`, `nan`.
    Number,
    Duration,
    /// The text between the quotes, escapes resolved; an error of an escape is reported by the parser.
    Text(Result<String, String>),
    Operator(BinaryOp),
    /// `=` alone.
    Assign,
    /// `=~`
    RegexMatch,
    /// `!~`
    RegexNotMatch,
    At,
    Comma,
    Colon,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
}

impl Token {
    /// The token as errors name it.
    pub fn describe(&self, text: &str) -> String {
        let raw = text.get(self.span.start..self.span.end).unwrap_or("");
        match &self.kind {
            TokenKind::Eof => "end of input".to_owned(),
            TokenKind::Error(message) => message.clone(),
            TokenKind::Identifier => format!("identifier {}", quote(raw)),
            TokenKind::MetricIdentifier => format!("metric identifier {}", quote(raw)),
            TokenKind::Number => format!("number {}", quote(raw)),
            TokenKind::Duration => format!("duration {}", quote(raw)),
            TokenKind::Text(_) => format!("string {}", quote(raw)),
            TokenKind::Keyword(_) => format!("<{}>", raw.to_lowercase()),
            TokenKind::Aggregator(op) => format!("<aggr:{}>", op.as_str()),
            TokenKind::Operator(op) => format!("<op:{}>", op.as_str()),
            TokenKind::At => "<op:@>".to_owned(),
            _ => quote(raw),
        }
    }
}

/// `text` in double quotes, as Go's `%q` does it for plain text.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if c as u32 >= BROKEN_BYTE => out.push_str(&format!("\\x{:02x}", c as u32 - BROKEN_BYTE)),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn quote_char(c: char) -> String {
    match c {
        '\'' => "'\\''".to_owned(),
        '\\' => "'\\\\'".to_owned(),
        '\n' => "'\\n'".to_owned(),
        '\t' => "'\\t'".to_owned(),
        c if (c as u32) < 0x20 => format!("'\\x{:02x}'", c as u32),
        c => format!("'{c}'"),
    }
}

/// All tokens of `text`; the last one is [`TokenKind::Eof`] or [`TokenKind::Error`].
pub fn tokens(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { text, at: 0, start: 0, out: Vec::new(), parens: 0, braces: false, bracket: false };
    while !lexer.done() {
        lexer.next_token();
    }
    lexer.out
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    start: usize,
    out: Vec<Token>,
    parens: usize,
    braces: bool,
    bracket: bool,
}

impl Lexer<'_> {
    fn done(&self) -> bool {
        matches!(self.out.last().map(|token| &token.kind), Some(TokenKind::Eof | TokenKind::Error(_)))
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn eat_while(&mut self, wanted: impl Fn(char) -> bool) -> usize {
        let from = self.at;
        while self.peek().is_some_and(&wanted) {
            self.bump();
        }
        self.at - from
    }

    fn emit(&mut self, kind: TokenKind) {
        self.out.push(Token { kind, span: SourceSpan { start: self.start, end: self.at } });
    }

    fn fail(&mut self, message: impl Into<String>) {
        self.emit(TokenKind::Error(message.into()));
    }

    fn next_token(&mut self) {
        self.eat_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r'));
        self.start = self.at;
        if self.peek() == Some('#') {
            self.eat_while(|c| c != '\n');
            return;
        }
        match self.bump() {
            None => self.end_of_input(),
            Some(c @ ('"' | '\'')) => self.quoted(c),
            Some('`') => self.raw(),
            Some(c) if self.braces => self.inside_braces(c),
            Some(c) => self.outside_braces(c),
        }
    }

    fn end_of_input(&mut self) {
        if self.braces {
            self.fail("unexpected end of input inside braces");
        } else if self.parens > 0 {
            self.fail("unclosed left parenthesis");
        } else if self.bracket {
            self.fail("unclosed left bracket");
        } else {
            self.emit(TokenKind::Eof);
        }
    }

    fn inside_braces(&mut self, c: char) {
        match c {
            ',' => self.emit(TokenKind::Comma),
            '}' => {
                self.braces = false;
                self.emit(TokenKind::RightBrace);
            }
            '{' => self.fail("unexpected left brace '{'"),
            '=' if self.eat('~') => self.emit(TokenKind::RegexMatch),
            '=' => self.emit(TokenKind::Assign),
            '!' if self.eat('~') => self.emit(TokenKind::RegexNotMatch),
            '!' if self.eat('=') => self.emit(TokenKind::Operator(BinaryOp::Ne)),
            '!' => {
                let after = self.peek().map_or_else(|| "end of input".to_owned(), quote_char);
                self.fail(format!("unexpected character after '!' inside braces: {after}"));
            }
            c if is_alpha(c) => {
                self.eat_while(is_alphanumeric);
                self.emit(TokenKind::Identifier);
            }
            c => self.fail(format!("unexpected character inside braces: {}", quote_char(c))),
        }
    }

    fn outside_braces(&mut self, c: char) {
        let operator = |op| TokenKind::Operator(op);
        match c {
            ',' => self.emit(TokenKind::Comma),
            '@' => self.emit(TokenKind::At),
            '*' => self.emit(operator(BinaryOp::Mul)),
            '/' => self.emit(operator(BinaryOp::Div)),
            '%' => self.emit(operator(BinaryOp::Mod)),
            '+' => self.emit(operator(BinaryOp::Add)),
            '-' => self.emit(operator(BinaryOp::Sub)),
            '^' => self.emit(operator(BinaryOp::Pow)),
            '=' if self.eat('=') => self.emit(operator(BinaryOp::Eq)),
            '=' if self.peek() == Some('~') => self.fail("unexpected character after '=': '~'"),
            '=' => self.emit(TokenKind::Assign),
            '!' if self.eat('=') => self.emit(operator(BinaryOp::Ne)),
            '!' => {
                let after = self.peek().map_or_else(|| "end of input".to_owned(), quote_char);
                self.fail(format!("unexpected character after '!': {after}"));
            }
            '<' if self.eat('=') => self.emit(operator(BinaryOp::Le)),
            '<' if self.eat('/') => self.emit(operator(BinaryOp::TrimUpper)),
            '<' => self.emit(operator(BinaryOp::Lt)),
            '>' if self.eat('=') => self.emit(operator(BinaryOp::Ge)),
            '>' if self.eat('/') => self.emit(operator(BinaryOp::TrimLower)),
            '>' => self.emit(operator(BinaryOp::Gt)),
            '0'..='9' => self.number_or_duration(c),
            '.' if self.peek().is_some_and(|c| c.is_ascii_digit()) => self.number_or_duration(c),
            ':' if self.bracket => self.emit(TokenKind::Colon),
            c if is_alpha(c) || c == ':' => self.word(),
            '(' => {
                self.parens += 1;
                self.emit(TokenKind::LeftParen);
            }
            ')' if self.parens == 0 => self.fail("unexpected right parenthesis ')'"),
            ')' => {
                self.parens -= 1;
                self.emit(TokenKind::RightParen);
            }
            '{' => {
                self.braces = true;
                self.emit(TokenKind::LeftBrace);
            }
            '[' if self.bracket => self.fail("unexpected left bracket '['"),
            '[' => {
                self.bracket = true;
                self.emit(TokenKind::LeftBracket);
            }
            ']' if !self.bracket => self.fail("unexpected right bracket ']'"),
            ']' => {
                self.bracket = false;
                self.emit(TokenKind::RightBracket);
            }
            c => self.fail(format!("unexpected character: {}", quote_char(c))),
        }
    }

    fn word(&mut self) {
        // Inside brackets a colon separates range and step, so names have none there.
        let bracket = self.bracket;
        self.eat_while(|c| is_alphanumeric(c) || (c == ':' && !bracket));
        let word = &self.text[self.start..self.at];
        let kind = match keyword(word) {
            Some(kind) => kind,
            None if word.contains(':') => TokenKind::MetricIdentifier,
            None => TokenKind::Identifier,
        };
        self.emit(kind);
    }

    /// A number, or a duration: `1h30m`. Both begin with a digit and may not touch a letter at their end.
    fn number_or_duration(&mut self, first: char) {
        let hex = first == '0' && matches!(self.peek(), Some('x' | 'X'));
        if hex {
            self.bump();
            self.eat_while(|c| c.is_ascii_hexdigit() || c == '_');
        } else {
            self.decimal(first == '.');
        }
        let text = &self.text[self.start..self.at];
        let dangling = text.ends_with('_') || (!hex && text.ends_with(['e', 'E', '+', '-']));
        if !dangling && !self.peek().is_some_and(is_alphanumeric) {
            self.emit(TokenKind::Number);
        } else if !hex && text.bytes().all(|b| b.is_ascii_digit()) && self.rest_of_duration() {
            self.emit(TokenKind::Duration);
        } else {
            let text = quote(&self.text[self.start..self.at]);
            self.fail(format!("bad number or duration syntax: {text}"));
        }
    }

    fn decimal(&mut self, mut dot: bool) {
        self.eat_while(|c| c.is_ascii_digit() || c == '_');
        if !dot && self.eat('.') {
            dot = true;
        }
        if dot {
            self.eat_while(|c| c.is_ascii_digit() || c == '_');
        }
        if matches!(self.peek(), Some('e' | 'E')) {
            self.bump();
            if matches!(self.peek(), Some('+' | '-')) {
                self.bump();
            }
            self.eat_while(|c| c.is_ascii_digit() || c == '_');
        }
    }

    fn rest_of_duration(&mut self) -> bool {
        loop {
            if !self.peek().is_some_and(|c| "smhdwy".contains(c)) {
                return false;
            }
            let unit = self.bump();
            if unit == Some('m') {
                self.eat('s');
            }
            if self.eat_while(|c| c.is_ascii_digit()) == 0 {
                break;
            }
        }
        if self.peek().is_some_and(is_alphanumeric) {
            self.bump();
            return false;
        }
        true
    }

    fn raw(&mut self) {
        self.eat_while(|c| c != '`');
        if self.eat('`') {
            let inner = self.text[self.start + 1..self.at - 1].to_owned();
            self.emit(TokenKind::Text(Ok(inner)));
        } else {
            self.at = self.text.len();
            self.fail("unterminated raw string");
        }
    }

    fn quoted(&mut self, quote: char) {
        loop {
            match self.bump() {
                Some('\\') if self.peek().is_some_and(|c| c != '\n') => {
                    self.bump();
                }
                Some(c) if c == quote => break,
                None | Some('\n' | '\\') => return self.fail("unterminated quoted string"),
                Some(_) => {}
            }
        }
        let inner = &self.text[self.start + 1..self.at - 1];
        let value = unescape(inner, quote);
        self.emit(TokenKind::Text(value));
    }
}

fn is_alpha(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic()
}

fn is_alphanumeric(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric()
}

fn keyword(word: &str) -> Option<TokenKind> {
    let lower = word.to_ascii_lowercase();
    let keyword = match lower.as_str() {
        "offset" => Keyword::Offset,
        "anchored" => Keyword::Anchored,
        "smoothed" => Keyword::Smoothed,
        "by" => Keyword::By,
        "without" => Keyword::Without,
        "on" => Keyword::On,
        "ignoring" => Keyword::Ignoring,
        "group_left" => Keyword::GroupLeft,
        "group_right" => Keyword::GroupRight,
        "fill" => Keyword::Fill,
        "fill_left" => Keyword::FillLeft,
        "fill_right" => Keyword::FillRight,
        "bool" => Keyword::Bool,
        "start" => Keyword::Start,
        "end" => Keyword::End,
        "step" => Keyword::Step,
        "range" => Keyword::Range,
        "min_of" => Keyword::MinOf,
        "max_of" => Keyword::MaxOf,
        "and" => return Some(TokenKind::Operator(BinaryOp::And)),
        "or" => return Some(TokenKind::Operator(BinaryOp::Or)),
        "unless" => return Some(TokenKind::Operator(BinaryOp::Unless)),
        "atan2" => return Some(TokenKind::Operator(BinaryOp::Atan2)),
        "inf" | "nan" => return Some(TokenKind::Number),
        _ => {
            let op = AggregateOp::ALL.into_iter().find(|op| op.as_str() == lower)?;
            return Some(TokenKind::Aggregator(op));
        }
    };
    Some(TokenKind::Keyword(keyword))
}

/// The character that stands for byte 0 of text that is not UTF-8; byte `b` is this plus `b`. These characters are
/// private and at the end of Unicode: no stored text holds them, and errors print them back as `\xNN`.
pub const BROKEN_BYTE: u32 = 0x0010_ff00;

/// Whether `text` came from bytes that are not UTF-8.
pub fn is_broken(text: &str) -> bool {
    text.chars().any(|c| c as u32 >= BROKEN_BYTE)
}

fn from_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().filter_map(|byte| char::from_u32(BROKEN_BYTE + u32::from(*byte))));
    }
    out
}

/// Resolves Go's escapes.
fn unescape(inner: &str, quote: char) -> Result<String, String> {
    if !inner.contains('\\') {
        return Ok(inner.to_owned());
    }
    let bad = || "invalid syntax".to_owned();
    let mut out: Vec<u8> = Vec::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escape = rest.next().ok_or_else(bad)?;
        let byte = match escape {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' => b'\\',
            c if c == quote => quote as u8,
            'x' => u8::try_from(digits(&mut rest, 2, 16).ok_or_else(bad)?).map_err(|_| bad())?,
            '0'..='7' => {
                let first = escape.to_digit(8).ok_or_else(bad)?;
                let value = first * 64 + digits(&mut rest, 2, 8).ok_or_else(bad)?;
                u8::try_from(value).map_err(|_| bad())?
            }
            'u' | 'U' => {
                let count = if escape == 'u' { 4 } else { 8 };
                let c = digits(&mut rest, count, 16).and_then(char::from_u32).ok_or_else(bad)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            _ => return Err(bad()),
        };
        out.push(byte);
    }
    Ok(from_bytes(&out))
}

fn digits(rest: &mut std::str::Chars<'_>, count: usize, radix: u32) -> Option<u32> {
    let mut value = 0u32;
    for _ in 0..count {
        value = value.checked_mul(radix)?.checked_add(rest.next()?.to_digit(radix)?)?;
    }
    Some(value)
}

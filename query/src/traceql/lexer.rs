//! Text → tokens with places.
//!
//! Owns: strings, numbers, durations, attribute names with their quoting, operator signs. Does not own: keywords
//! (a word is a word until `parser` needs it) or grammar.

use super::ast::{Attribute, AttributeScope, Intrinsic, Reference};
use crate::error::{Error, Kind, Result, SourceSpan};

/// One token.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    /// `name`, `by`, `count_over_time`, …
    Word(String),
    /// `span.x` or `span:name`
    Reference(Reference),
    /// `"text"`
    String(String),
    /// `5`
    Int(i64),
    /// `5.0`
    Float(f64),
    /// `5s` in nanoseconds
    Duration(i64),
    /// `{`, `&&`, …
    Sign(&'static str),
    /// After the last one.
    End,
}

/// Signs, longest first, so that the first that fits is the right one.
const SIGNS: [&str; 35] = [
    "!>>", "!<<", "&>>", "&<<", "!>", "!<", "!~", "!=", "&>", "&<", "&~", "&&", "||", ">>", ">=", "<<", "<=", "=~",
    "{", "}", "(", ")", ",", "=", "!", ">", "<", "~", "+", "-", "*", "/", "%", "^", "|",
];

/// Nanoseconds of each unit of a duration.
const UNITS: [(&str, i64); 11] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("w", 7 * 86_400_000_000_000),
    ("y", 365 * 86_400_000_000_000),
];

/// An error at a byte of `text`, in the words of the original.
pub(super) fn error_at(text: &str, span: SourceSpan, what: &str) -> Error {
    let before = text.get(..span.start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    Error::new(Kind::Parse, format!("parse error at line {line}, col {column}: {what}")).at(span)
}

/// All tokens of `text`; the last one is [`Token::End`].
pub fn tokens(text: &str) -> Result<Vec<(Token, SourceSpan)>> {
    let mut lexer = Lexer { text, at: 0 };
    let mut list = Vec::new();
    loop {
        lexer.skip_space();
        let start = lexer.at;
        let token = lexer.token()?;
        let end = token == Token::End;
        list.push((token, SourceSpan { start, end: lexer.at }));
        if end {
            return Ok(list);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn error(&self, start: usize, what: &str) -> Error {
        error_at(self.text, SourceSpan { start, end: self.at.max(start + 1) }, what)
    }

    fn token(&mut self) -> Result<Token> {
        let Some(first) = self.peek() else { return Ok(Token::End) };
        if first == '"' || first == '`' {
            return self.string().map(Token::String);
        }
        let dotted_digit = first == '.' && self.rest().as_bytes().get(1).is_some_and(u8::is_ascii_digit);
        if first.is_ascii_digit() || dotted_digit {
            return self.number();
        }
        if first.is_alphabetic() || first == '_' {
            return self.word();
        }
        if first == '.' {
            let start = self.at;
            self.at += 1;
            return self.attribute(start, AttributeScope::Any, false);
        }
        match SIGNS.iter().find(|sign| self.rest().starts_with(**sign)) {
            Some(sign) => {
                self.at += sign.len();
                Ok(Token::Sign(sign))
            }
            None => {
                // The whole run, so that 'x' is named as it was written.
                let more = self.rest().chars().skip(1).take_while(|c| is_name_char(*c));
                let run: String = std::iter::once(first).chain(more).collect();
                Err(self.error(self.at, &format!("unknown identifier: {run}")))
            }
        }
    }

    fn word(&mut self) -> Result<Token> {
        let start = self.at;
        let word = self.take_word();
        match self.peek() {
            Some('.') if word == "parent" => {
                self.at += 1;
                let after = self.at;
                let scope = self.take_word();
                if let Some((_, scope)) = AttributeScope::ALL.iter().find(|(w, _)| *w == scope)
                    && self.peek() == Some('.')
                {
                    self.at += 1;
                    return self.attribute(start, *scope, true);
                }
                self.at = after;
                self.attribute(start, AttributeScope::Any, true)
            }
            Some('.') => match AttributeScope::ALL.iter().find(|(w, _)| *w == word) {
                Some((_, scope)) => {
                    self.at += 1;
                    self.attribute(start, *scope, false)
                }
                None => Err(self.error(start, &format!("unknown identifier: {word}"))),
            },
            Some(':') => {
                self.at += 1;
                let name_at = self.at;
                let name = self.take_word();
                Intrinsic::of_name(&format!("{word}:{name}"))
                    .map(|intrinsic| Token::Reference(Reference::Intrinsic(intrinsic)))
                    .ok_or_else(|| self.error(name_at, &format!("syntax error: unexpected {name}")))
            }
            _ => Ok(Token::Word(word.to_owned())),
        }
    }

    fn take_word(&mut self) -> &'a str {
        let rest = self.rest();
        let len = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    /// The name after a scope's dot: plain characters and quoted parts.
    fn attribute(&mut self, start: usize, scope: AttributeScope, parent: bool) -> Result<Token> {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            if c == '"' {
                self.quoted_part(&mut name)?;
            } else if is_name_char(c) {
                name.push(c);
                self.at += c.len_utf8();
            } else {
                break;
            }
        }
        if name.is_empty() {
            return Err(self.error(start, "syntax error: unexpected END_ATTRIBUTE, expecting IDENTIFIER"));
        }
        Ok(Token::Reference(Reference::Attribute(Attribute { scope, parent, name })))
    }

    /// A quoted part of a name: only `\"` and `\\` are escapes.
    fn quoted_part(&mut self, name: &mut String) -> Result<()> {
        let start = self.at;
        self.at += 1;
        while let Some(c) = self.peek() {
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(()),
                '\\' => match self.peek() {
                    Some(escaped @ ('"' | '\\')) => {
                        name.push(escaped);
                        self.at += 1;
                    }
                    _ => return Err(self.error(start, "invalid escape sequence in an attribute name")),
                },
                _ => name.push(c),
            }
        }
        Err(self.error(start, "unterminated quote in an attribute name"))
    }

    fn string(&mut self) -> Result<String> {
        let start = self.at;
        if self.peek() == Some('`') {
            let body = &self.rest()[1..];
            let Some(len) = body.find('`') else { return Err(self.error(start, "unterminated string")) };
            self.at += len + 2;
            // A raw string has no carriage returns, as in Go.
            return Ok(body[..len].replace('\r', ""));
        }
        self.at += 1;
        let mut bytes = Vec::new();
        while let Some(c) = self.peek() {
            self.at += c.len_utf8();
            match c {
                '"' => {
                    return String::from_utf8(bytes).map_err(|_| self.error(start, "a string is not valid UTF-8"));
                }
                '\n' => break,
                '\\' => self.escape(start, &mut bytes)?,
                _ => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Err(self.error(start, "unterminated string"))
    }

    /// One escape of Go, after its backslash.
    fn escape(&mut self, start: usize, bytes: &mut Vec<u8>) -> Result<()> {
        let wrong = |lexer: &Self| lexer.error(start, "invalid escape sequence in a string");
        let Some(c) = self.peek() else { return Err(wrong(self)) };
        self.at += c.len_utf8();
        let plain = match c {
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(11),
            '\\' => Some(b'\\'),
            '"' => Some(b'"'),
            _ => None,
        };
        if let Some(byte) = plain {
            bytes.push(byte);
            return Ok(());
        }
        let (digits, radix) = match c {
            'x' => (2, 16),
            'u' => (4, 16),
            'U' => (8, 16),
            '0'..='7' => {
                self.at -= 1;
                (3, 8)
            }
            _ => return Err(wrong(self)),
        };
        let number = self.rest().get(..digits).and_then(|text| {
            text.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(text, radix).ok()).flatten()
        });
        let Some(number) = number else { return Err(wrong(self)) };
        self.at += digits;
        if matches!(c, 'u' | 'U') {
            let Some(c) = char::from_u32(number) else { return Err(wrong(self)) };
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            let Ok(byte) = u8::try_from(number) else { return Err(wrong(self)) };
            bytes.push(byte);
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Token> {
        let start = self.at;
        let rest = self.rest();
        let digits = |from: usize| rest[from..].bytes().take_while(u8::is_ascii_digit).count();
        let mut len = digits(0);
        let mut float = false;
        if rest[len..].starts_with('.') {
            float = true;
            len += 1;
            len += digits(len);
        }
        if rest[len..].starts_with(['e', 'E']) {
            let sign = usize::from(rest[len + 1..].starts_with(['+', '-']));
            let exponent = digits(len + 1 + sign);
            if exponent > 0 {
                float = true;
                len += 1 + sign + exponent;
            }
        }
        if rest[len..].starts_with(|c: char| c.is_alphabetic()) {
            return self.duration(start);
        }
        self.at += len;
        let text = &rest[..len];
        let token = if float {
            text.parse().ok().filter(|x: &f64| x.is_finite()).map(Token::Float)
        } else {
            text.parse().ok().map(Token::Int)
        };
        token.ok_or_else(|| self.error(start, &format!("the number {text} is out of range")))
    }

    fn duration(&mut self, start: usize) -> Result<Token> {
        let rest = self.rest();
        let len = rest.find(|c: char| !(c.is_alphanumeric() || c == '.')).unwrap_or(rest.len());
        self.at += len;
        parse_duration(&rest[..len])
            .map(Token::Duration)
            .ok_or_else(|| self.error(start, &format!("invalid duration: {}", &rest[..len])))
    }
}

fn is_name_char(c: char) -> bool {
    !c.is_whitespace() && !"{}()=~!<>&|^,\"`".contains(c)
}

/// `1h30m`, `1.5s`, `1d`: nanoseconds; `None` if it is none or does not fit.
pub fn parse_duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0i64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let (_, unit_ns) = UNITS.iter().find(|(word, _)| *word == unit)?;
        let part = match number.parse::<i64>() {
            Ok(whole) => whole.checked_mul(*unit_ns)?,
            Err(_) => {
                let ns = number.parse::<f64>().ok()? * (*unit_ns as f64);
                // Beyond 2^62 the sum below could not be exact anyway.
                (ns.is_finite() && ns < 4.6e18).then(|| ns.round() as i64)?
            }
        };
        total = total.checked_add(part)?;
        rest = tail;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lex(text: &str) -> Vec<Token> {
        tokens(text).expect("lexes").into_iter().map(|(token, _)| token).collect()
    }

    fn attribute(scope: AttributeScope, name: &str) -> Token {
        Token::Reference(Reference::Attribute(Attribute { scope, parent: false, name: name.into() }))
    }

    #[test]
    fn attribute_names_reach_to_the_next_delimiter() {
        let cases = [
            ("span.dash-key_1/x:y", AttributeScope::Span, "dash-key_1/x:y"),
            ("span.key\" with \"space", AttributeScope::Span, "key with space"),
            (r#"span."quote\"key""#, AttributeScope::Span, "quote\"key"),
            (r#"span."back\\slash""#, AttributeScope::Span, "back\\slash"),
            (".a", AttributeScope::Any, "a"),
            ("resource.ключ", AttributeScope::Resource, "ключ"),
        ];
        for (text, scope, name) in cases {
            assert_eq!(lex(text), [attribute(scope, name), Token::End], "{text}");
        }
        assert_eq!(lex("(.a)").len(), 4);
    }

    #[test]
    fn numbers_durations_and_attributes_are_told_apart() {
        assert_eq!(
            lex("5 .5 1.5 1e3"),
            [Token::Int(5), Token::Float(0.5), Token::Float(1.5), Token::Float(1e3), Token::End]
        );
        let seconds = |s: i64| Token::Duration(s * 1_000_000_000);
        assert_eq!(lex("1m30s 1h 1d 1w"), [seconds(90), seconds(3600), seconds(86_400), seconds(604_800), Token::End]);
        assert_eq!(
            lex("1.5s 10us 1ns 10µs"),
            [
                Token::Duration(1_500_000_000),
                Token::Duration(10_000),
                Token::Duration(1),
                Token::Duration(10_000),
                Token::End
            ]
        );
    }

    #[test]
    fn strings_have_the_escapes_of_go() {
        let text = Token::String("say \"hi\"\n\tž馬".into());
        assert_eq!(lex("\"say \\\"hi\\\"\\n\\t\\u017e馬\""), [text, Token::End]);
        assert_eq!(lex(r"`C:\temp`"), [Token::String(r"C:\temp".into()), Token::End]);
        for broken in ["\"abc", "`abc", r#""\q""#, r#""\u12""#, r#""\xff""#, r#""\ud800""#] {
            assert!(tokens(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn errors_say_line_and_column() {
        let error = tokens("{ .a =\n  'x' }").expect_err("not a string");
        assert_eq!(error.message, "parse error at line 2, col 3: unknown identifier: 'x'");
        let error = tokens("{ span. = 1 }").expect_err("no name");
        assert!(error.message.contains("line 1, col 3"), "{}", error.message);
    }
}

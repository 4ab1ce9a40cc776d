//! Text → tokens with positions.
//!
//! Owns: strings and their escapes, numbers, durations, sizes, comments. Does not own: which word is a keyword where;
//! words are words here, and `parser` knows the context.

use crate::error::{Error, Kind, SourceSpan};

use super::units;

/// One token.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    /// `[a-zA-Z_][a-zA-Z0-9_]*`
    Word(String),
    /// A quoted or raw string, without its quotes and escapes.
    Text(String),
    /// `5`, `1.5`, `1e3`
    Number(f64),
    /// `5m`, in nanoseconds.
    Duration(i64),
    /// `5KB`
    Bytes(u64),
    /// `[5m]`, in nanoseconds.
    Range(i64),
    /// `--strict`
    Flag(String),
    /// Everything else.
    Sign(&'static str),
    /// What is no token, with the reason.
    Bad(String),
    /// The end of the text.
    End,
}

impl Token {
    /// The name of the token in error texts.
    pub fn describe(&self) -> String {
        match self {
            Self::Word(word) => match keyword(word) {
                Some(keyword) => keyword.to_owned(),
                None => "IDENTIFIER".to_owned(),
            },
            Self::Text(_) => "STRING".to_owned(),
            Self::Number(_) => "NUMBER".to_owned(),
            Self::Duration(_) => "DURATION".to_owned(),
            Self::Bytes(_) => "BYTES".to_owned(),
            Self::Range(_) => "RANGE".to_owned(),
            Self::Flag(_) => "PARSER_FLAG".to_owned(),
            Self::Sign(sign) => (*sign).to_owned(),
            Self::Bad(reason) => reason.clone(),
            Self::End => "$end".to_owned(),
        }
    }
}

/// Words that error texts call by their own name instead of `IDENTIFIER`.
fn keyword(word: &str) -> Option<&str> {
    const KEYWORDS: [&str; 25] = [
        "by",
        "without",
        "on",
        "ignoring",
        "group_left",
        "group_right",
        "bool",
        "offset",
        "and",
        "or",
        "unless",
        "json",
        "logfmt",
        "regexp",
        "pattern",
        "unpack",
        "line_format",
        "label_format",
        "unwrap",
        "decolorize",
        "drop",
        "keep",
        "ip",
        "vector",
        "label_replace",
    ];
    KEYWORDS.contains(&word).then_some(word)
}

/// A token and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// What.
    pub token: Token,
    /// Where.
    pub span: SourceSpan,
}

/// All tokens of `text`, ending with [`Token::End`] or the first [`Token::Bad`].
pub fn tokens(text: &str) -> Vec<Placed> {
    let mut lexer = Lexer { text, at: 0 };
    let mut list = Vec::new();
    loop {
        lexer.skip_blanks();
        let start = lexer.at;
        let token = lexer.next();
        let last = matches!(token, Token::End | Token::Bad(_));
        list.push(Placed { token, span: SourceSpan { start, end: lexer.at } });
        if last {
            return list;
        }
    }
}

/// An error at a byte of `text`, in the original's form: `parse error at line 1, col 14: …`.
pub fn error_at(text: &str, span: SourceSpan, message: &str) -> Error {
    let before = text.get(..span.start).unwrap_or(text);
    let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    Error::new(Kind::Parse, format!("parse error at line {line}, col {column}: {message}")).at(span)
}

/// An error about the meaning of the query: `parse error : …`.
pub fn semantic_error(span: SourceSpan, message: impl std::fmt::Display) -> Error {
    Error::new(Kind::Parse, format!("parse error : {message}")).at(span)
}

/// Signs, longest first.
const SIGNS: [&str; 27] = [
    "==", "=~", "!=", "!~", "!>", "|=", "|~", "|>", ">=", "<=", "=", "|", "{", "}", "(", ")", ",", ">", "<", "+", "-",
    "*", "/", "%", "^", ".", "!",
];

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            let blanks = rest.len() - trimmed.len();
            let comment = if trimmed.starts_with('#') { trimmed.find('\n').unwrap_or(trimmed.len()) } else { 0 };
            if blanks + comment == 0 {
                return;
            }
            self.at += blanks + comment;
        }
    }

    fn next(&mut self) -> Token {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Token::End };
        let second = rest.as_bytes().get(1).copied().unwrap_or(0);
        match first {
            '"' => self.quoted(),
            '`' => self.raw(),
            '[' => self.range(),
            'a'..='z' | 'A'..='Z' | '_' => {
                let length = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
                let word = rest[..length].to_owned();
                self.at += length;
                Token::Word(word)
            }
            '0'..='9' => self.number(),
            '.' if second.is_ascii_digit() => self.number(),
            '-' if rest[1..].starts_with('-') && rest[2..].starts_with(|c: char| c.is_ascii_alphabetic()) => {
                let name = &rest[2..];
                let length = name.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'-').count();
                let flag = name[..length].to_owned();
                self.at += 2 + length;
                Token::Flag(flag)
            }
            _ => match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
                Some(sign) => {
                    self.at += sign.len();
                    Token::Sign(sign)
                }
                None => {
                    self.at += first.len_utf8();
                    Token::Bad(format!("unexpected character {first:?}"))
                }
            },
        }
    }

    fn raw(&mut self) -> Token {
        let inside = &self.rest()[1..];
        match inside.find('`') {
            Some(end) => {
                let text = inside[..end].to_owned();
                self.at += end + 2;
                Token::Text(text)
            }
            None => Token::Bad("literal not terminated".to_owned()),
        }
    }

    fn quoted(&mut self) -> Token {
        let inside = &self.rest()[1..];
        let mut end = None;
        let mut escaped = false;
        for (i, c) in inside.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => {
                    end = Some(i);
                    break;
                }
                '\n' => break,
                _ => {}
            }
        }
        let Some(end) = end else { return Token::Bad("literal not terminated".to_owned()) };
        match unescape(&inside[..end]) {
            Some(text) => {
                self.at += end + 2;
                Token::Text(text)
            }
            None => Token::Bad("invalid char escape".to_owned()),
        }
    }

    fn range(&mut self) -> Token {
        let inside = &self.rest()[1..];
        let Some(end) = inside.find(']') else { return Token::Bad("missing closing ']' in duration".to_owned()) };
        let written = inside[..end].trim();
        match units::parse_duration(written) {
            Some(ns) if ns > 0 => {
                self.at += end + 2;
                Token::Range(ns)
            }
            _ => Token::Bad(format!("not a valid duration string: {written:?}")),
        }
    }

    /// A number, a duration or a size: the longest run that may be one.
    fn number(&mut self) -> Token {
        let rest = self.rest();
        let plain = float_prefix(rest);
        let follows =
            |at: usize| rest[at..].chars().next().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '.');
        if !follows(plain) {
            let number = rest[..plain].parse();
            self.at += plain;
            return number.map_or(Token::Bad("bad number".to_owned()), Token::Number);
        }
        let run: usize =
            rest.chars().take_while(|c| c.is_alphanumeric() || *c == '.' || *c == '_').map(char::len_utf8).sum();
        let written = &rest[..run];
        let token = if let Some(ns) = units::parse_duration(written) {
            Token::Duration(ns)
        } else if let Some(bytes) = units::parse_bytes(written) {
            Token::Bytes(bytes)
        } else {
            return Token::Bad(format!("unknown unit in {written:?}"));
        };
        self.at += run;
        token
    }
}

/// Bytes of `digits[.digits][e[±]digits]` at the start of `text`.
fn float_prefix(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes.iter().skip(from).take_while(|b| b.is_ascii_digit()).count();
    let mut at = digits(0);
    if bytes.get(at) == Some(&b'.') {
        at += 1 + digits(at + 1);
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(at + 1 + sign);
        if exponent > 0 {
            at += 1 + sign + exponent;
        }
    }
    at
}

/// Go's escapes in a double-quoted string; `None` for an unknown one. Bytes that are no UTF-8 become U+FFFD.
pub fn unescape(text: &str) -> Option<String> {
    if !text.contains('\\') {
        return Some(text.to_owned());
    }
    let mut out: Vec<u8> = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = *rest.as_bytes().get(at + 1)?;
        let mut used = at + 2;
        let digits = |length: usize, radix: u32| {
            rest.get(at + 2..at + 2 + length).and_then(|digits| u32::from_str_radix(digits, radix).ok())
        };
        match escape {
            b'a' => out.push(7),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(11),
            b'\\' | b'"' => out.push(escape),
            b'x' => {
                out.push(u8::try_from(digits(2, 16)?).ok()?);
                used += 2;
            }
            b'u' | b'U' => {
                let length = if escape == b'u' { 4 } else { 8 };
                let c = char::from_u32(digits(length, 16)?)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                used += length;
            }
            b'0'..=b'7' => {
                let code = rest.get(at + 1..at + 4).and_then(|digits| u32::from_str_radix(digits, 8).ok())?;
                out.push(u8::try_from(code).ok()?);
                used += 2;
            }
            _ => return None,
        }
        rest = rest.get(used..)?;
    }
    out.extend_from_slice(rest.as_bytes());
    Some(String::from_utf8(out).unwrap_or_else(|bad| String::from_utf8_lossy(bad.as_bytes()).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[Token]) {
        let list: Vec<Token> = tokens(text).into_iter().map(|placed| placed.token).collect();
        assert_eq!(list, [expected, &[Token::End]].concat(), "{text}");
    }

    fn word(text: &str) -> Token {
        Token::Word(text.to_owned())
    }

    fn string(text: &str) -> Token {
        Token::Text(text.to_owned())
    }

    #[test]
    fn tokens_of_every_kind() {
        check(
            "{a=\"b\"} |= `c` # note\n[5m]",
            &[
                Token::Sign("{"),
                word("a"),
                Token::Sign("="),
                string("b"),
                Token::Sign("}"),
                Token::Sign("|="),
                string("c"),
                Token::Range(300_000_000_000),
            ],
        );
        check("1 1.5 1e3 .5 9e-1", &[1.0, 1.5, 1000.0, 0.5, 0.9].map(Token::Number));
        check("5m 1h30m 10µs", &[300_000_000_000, 5_400_000_000_000, 10_000].map(Token::Duration));
        check("5KB 5KiB 42B", &[5000, 5120, 42].map(Token::Bytes));
        check("--keep-empty - 1", &[Token::Flag("keep-empty".to_owned()), Token::Sign("-"), Token::Number(1.0)]);
    }

    #[test]
    fn strings_take_the_escapes_of_go() {
        check(r#""a\n\t\\\"\x41\u00e9\U0001F600\101""#, &[string("a\n\t\\\"Aé😀A")]);
        check(r"`a\n`", &[string(r"a\n")]);
        for bad in
            [r#""\q""#, r#""\x4""#, r#""\ud800""#, "\"open", "`open", "\"a\nb\"", "[5m", "[1h5]", "5KB5", "@", "é"]
        {
            let last = tokens(bad).pop().map(|placed| placed.token);
            assert!(matches!(last, Some(Token::Bad(_))), "{bad}: {last:?}");
        }
    }

    #[test]
    fn places_count_lines_and_characters() {
        let text = "{a=\"ü\"}\n  x";
        let list = tokens(text);
        let x = &list[list.len() - 2];
        assert_eq!(error_at(text, x.span, "here").message, "parse error at line 2, col 3: here");
    }
}

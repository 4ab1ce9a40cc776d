//! The parser `logfmt`.
//!
//! Owns: pairs, quotes and what a malformed pair is. Invariant: the cursor moves forward in every round.

use std::borrow::Cow;

use super::json::unescape;
use super::{Fault, LOGFMT_ERROR};
use crate::logql::eval::labels::{Sink, clean_value, sanitize};

/// How to read.
#[derive(Clone, Debug)]
pub struct Options {
    /// Stop at the first fault.
    pub strict: bool,
    /// Keep keys without value.
    pub keep_empty: bool,
    /// Only these: label and key. Empty: all.
    pub only: Vec<(String, String)>,
}

/// Puts the pairs of `line`.
pub(super) fn read<'l>(line: &'l str, options: &Options, sink: &mut impl Sink<'l>) -> Result<(), Fault> {
    let mut found: Vec<Option<Cow<'l, str>>> = vec![None; options.only.len()];
    let mut outcome = Ok(());
    let mut scanner = Scanner { line, at: 0 };
    while let Some(pair) = scanner.pair() {
        let (key, value) = match pair {
            Ok(pair) => pair,
            Err(details) if options.strict => {
                outcome = Err(Fault { kind: LOGFMT_ERROR, details });
                break;
            }
            Err(_) => continue,
        };
        if options.only.is_empty() {
            if value.is_empty() && !options.keep_empty {
                continue;
            }
            let name = sanitize(key);
            if !name.is_empty() && sink.wants(&name) {
                sink.put(name, clean_value(value));
            }
        } else {
            for ((_, wanted), slot) in options.only.iter().zip(&mut found) {
                if wanted == key && slot.is_none() {
                    *slot = Some(value.clone());
                }
            }
        }
    }
    for ((name, _), value) in options.only.iter().zip(found) {
        sink.put(Cow::Owned(name.clone()), value.map_or(Cow::Borrowed(""), clean_value));
    }
    outcome
}

struct Scanner<'l> {
    line: &'l str,
    at: usize,
}

type Pair<'l> = (&'l str, Cow<'l, str>);

impl<'l> Scanner<'l> {
    fn byte(&self) -> Option<u8> {
        self.line.as_bytes().get(self.at).copied()
    }

    /// Goes on while `inside` holds and gives what it passed.
    fn run(&mut self, inside: impl Fn(u8) -> bool) -> &'l str {
        let start = self.at;
        while self.byte().is_some_and(&inside) {
            self.at += 1;
        }
        &self.line[start..self.at]
    }

    /// The next pair, the fault in its place, or `None` at the end.
    fn pair(&mut self) -> Option<Result<Pair<'l>, String>> {
        self.run(|b| b <= b' ');
        self.byte()?;
        let key = self.run(|b| b > b' ' && b != b'=' && b != b'"');
        match self.byte() {
            Some(b'=') if !key.is_empty() => self.at += 1,
            Some(b'=' | b'"') => return Some(Err(self.unexpected())),
            _ => return Some(Ok((key, Cow::Borrowed("")))),
        }
        if self.byte() == Some(b'"') {
            return Some(self.quoted().map(|value| (key, value)));
        }
        let value = self.run(|b| b > b' ' && b != b'=' && b != b'"');
        match self.byte() {
            Some(b'=' | b'"') => Some(Err(self.unexpected())),
            _ => Some(Ok((key, Cow::Borrowed(value)))),
        }
    }

    /// A value in quotes; the cursor stands on the first.
    fn quoted(&mut self) -> Result<Cow<'l, str>, String> {
        self.at += 1;
        let start = self.at;
        let bytes = self.line.as_bytes();
        loop {
            match memchr::memchr2(b'"', b'\\', bytes.get(self.at..).unwrap_or(&[])) {
                None => {
                    self.at = bytes.len();
                    return Err("unterminated quoted value".to_owned());
                }
                Some(found) if bytes[self.at + found] == b'"' => {
                    let inside = &self.line[start..self.at + found];
                    self.at += found + 1;
                    return Ok(unescape(inside));
                }
                Some(found) => self.at = (self.at + found + 2).min(bytes.len()),
            }
        }
    }

    /// The fault at the cursor, which then moves to the next blank.
    fn unexpected(&mut self) -> String {
        let details = format!("unexpected {:?} at position {}", self.byte().map_or(' ', char::from), self.at + 1);
        self.run(|b| b > b' ');
        details
    }
}

//! The parsers `json` (all fields, flattened) and `unpack`, over one cursor.
//!
//! Owns: walking a JSON text as leniently as the original, without building a tree.
//! Invariant: nesting deeper than [`DEPTH_MAX`] is a fault of the line, not a deep stack.

use std::borrow::Cow;

use super::{Fault, JSON_ERROR};
use crate::logql::eval::labels::{Sink, clean_value, push_sanitized, sanitize};

/// The deepest object that is read.
const DEPTH_MAX: usize = 128;

/// The member of a packed object that holds the line.
const PACKED_ENTRY: &str = "_entry";

/// A place in a JSON text.
pub(super) struct Cursor<'l> {
    text: &'l str,
    at: usize,
}

/// A JSON value as it stands in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Raw<'l> {
    /// Between its quotes, escapes kept.
    Text(&'l str),
    /// Number, `true`, `false`.
    Plain(&'l str),
    /// `null`
    Null,
    /// With its braces.
    Object(&'l str),
    /// With its brackets.
    Array(&'l str),
}

pub(super) fn fault(details: impl Into<String>) -> Fault {
    Fault { kind: JSON_ERROR, details: details.into() }
}

impl<'l> Cursor<'l> {
    pub(super) fn new(text: &'l str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(super) fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Moves over the character at hand.
    pub(super) fn skip_char(&mut self) {
        self.at += self.text.get(self.at..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8);
    }

    pub(super) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn from(&self, start: usize) -> &'l str {
        self.text.get(start..self.at).unwrap_or("")
    }

    /// The inside of a string; the cursor stands on its first quote.
    fn string(&mut self) -> Result<&'l str, Fault> {
        self.at += 1;
        let start = self.at;
        let bytes = self.text.as_bytes();
        loop {
            let Some(found) = memchr::memchr2(b'"', b'\\', bytes.get(self.at..).unwrap_or(&[])) else {
                return Err(fault("a string is not terminated"));
            };
            self.at += found;
            if bytes[self.at] == b'"' {
                let inside = self.from(start);
                self.at += 1;
                return Ok(inside);
            }
            self.at = (self.at + 2).min(bytes.len());
        }
    }

    /// Skips an object or an array by counting its brackets.
    fn block(&mut self) -> Result<&'l str, Fault> {
        let start = self.at;
        let mut open = 0_usize;
        loop {
            match self.peek() {
                None => return Err(fault("an object or array is not closed")),
                Some(b'"') => {
                    self.string()?;
                    continue;
                }
                Some(b'{' | b'[') => open += 1,
                Some(b'}' | b']') => open -= 1,
                Some(_) => {}
            }
            self.at += 1;
            if open == 0 {
                return Ok(self.from(start));
            }
        }
    }

    /// The value at the cursor, which moves behind it.
    pub(super) fn value(&mut self) -> Result<Raw<'l>, Fault> {
        match self.peek() {
            Some(b'"') => Ok(Raw::Text(self.string()?)),
            Some(b'{') => Ok(Raw::Object(self.block()?)),
            Some(b'[') => Ok(Raw::Array(self.block()?)),
            _ => {
                let start = self.at;
                while self.peek().is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.')) {
                    self.at += 1;
                }
                match self.from(start) {
                    "null" => Ok(Raw::Null),
                    plain @ ("true" | "false") => Ok(Raw::Plain(plain)),
                    plain if plain.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => Ok(Raw::Plain(plain)),
                    "" => Err(fault("a value is missing")),
                    other => Err(fault(format!("unknown value {other:?}"))),
                }
            }
        }
    }

    /// The key at the cursor, which moves behind the colon.
    pub(super) fn key(&mut self) -> Result<Cow<'l, str>, Fault> {
        if self.peek() != Some(b'"') {
            return Err(fault("a key is missing"));
        }
        let key = unescape(self.string()?);
        self.skip_blanks();
        if !self.take(b':') {
            return Err(fault("a colon is missing"));
        }
        self.skip_blanks();
        Ok(key)
    }

    /// After a member: whether another follows; the cursor then stands on it.
    fn more(&mut self, close: u8) -> Result<bool, Fault> {
        self.skip_blanks();
        if self.take(close) {
            return Ok(false);
        }
        if !self.take(b',') {
            return Err(fault("a comma is missing"));
        }
        self.skip_blanks();
        Ok(true)
    }

    /// Calls `member` with each key of the object at the cursor; `member` reads the value.
    fn members(&mut self, mut member: impl FnMut(&mut Self, Cow<'l, str>) -> Result<(), Fault>) -> Result<(), Fault> {
        self.skip_blanks();
        if !self.take(b'{') {
            return Err(fault("the line is not a JSON object"));
        }
        self.skip_blanks();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let key = self.key()?;
            member(self, key)?;
            if !self.more(b'}')? {
                return Ok(());
            }
        }
    }
}

/// Puts every scalar field of the object in `line`, names joined with `_`.
pub(super) fn flatten<'l>(line: &'l str, sink: &mut impl Sink<'l>) -> Result<(), Fault> {
    object(&mut Cursor::new(line), "", 0, sink)
}

fn object<'l>(cursor: &mut Cursor<'l>, prefix: &str, depth: usize, sink: &mut impl Sink<'l>) -> Result<(), Fault> {
    if depth > DEPTH_MAX {
        return Err(fault("objects are nested too deeply"));
    }
    cursor.members(|cursor, key| {
        let name = joined(prefix, key);
        if cursor.peek() == Some(b'{') {
            return object(cursor, &name, depth + 1, sink);
        }
        let value = match cursor.value()? {
            Raw::Text(inside) if sink.wants(&name) => clean_value(unescape(inside)),
            Raw::Plain(text) => Cow::Borrowed(text),
            _ => return Ok(()),
        };
        if !name.is_empty() && sink.wants(&name) {
            sink.put(name, value);
        }
        Ok(())
    })
}

/// Calls `found` with the name and the keys of every field that [`flatten`] puts, as far as the text is well-formed.
pub fn paths(line: &str, found: &mut impl FnMut(&str, &[String])) {
    // What comes before a fault has been told, and of the fault itself `flatten` tells.
    let _ = object_paths(&mut Cursor::new(line), "", &mut Vec::new(), found);
}

fn object_paths(
    cursor: &mut Cursor<'_>,
    prefix: &str,
    path: &mut Vec<String>,
    found: &mut impl FnMut(&str, &[String]),
) -> Result<(), Fault> {
    if path.len() > DEPTH_MAX {
        return Err(fault("objects are nested too deeply"));
    }
    cursor.members(|cursor, key| {
        path.push(key.clone().into_owned());
        let name = joined(prefix, key);
        let read = match cursor.peek() {
            Some(b'{') => object_paths(cursor, &name, path, found),
            _ => cursor.value().map(|value| {
                if matches!(value, Raw::Text(_) | Raw::Plain(_)) {
                    found(&name, path);
                }
            }),
        };
        path.pop();
        read
    })
}

fn joined<'l>(prefix: &str, key: Cow<'l, str>) -> Cow<'l, str> {
    if !prefix.is_empty() {
        let mut name = String::with_capacity(prefix.len() + 1 + key.len());
        name.push_str(prefix);
        name.push('_');
        push_sanitized(&mut name, &key);
        return Cow::Owned(name);
    }
    match key {
        Cow::Borrowed(key) => sanitize(key),
        Cow::Owned(key) => Cow::Owned(sanitize(&key).into_owned()),
    }
}

/// What a packed line holds: its text members but the entry, and the entry.
pub(super) type Packed = (Vec<(String, String)>, Option<String>);

/// Reads a packed line.
pub(super) fn packed(line: &str) -> Result<Packed, Fault> {
    let (mut members, mut entry) = (Vec::new(), None);
    Cursor::new(line).members(|cursor, key| {
        if let Raw::Text(inside) = cursor.value()? {
            let value = unescape(inside).into_owned();
            if key == PACKED_ENTRY {
                entry = Some(value);
            } else {
                members.push((sanitize(&key).into_owned(), clean_value(Cow::Owned(value)).into_owned()));
            }
        }
        Ok(())
    })?;
    Ok((members, entry))
}

/// The text of a JSON string; "" if an escape is broken.
pub(super) fn unescape(inside: &str) -> Cow<'_, str> {
    if memchr::memchr(b'\\', inside.as_bytes()).is_none() {
        return Cow::Borrowed(inside);
    }
    Cow::Owned(unescaped(inside).unwrap_or_default())
}

fn unescaped(inside: &str) -> Option<String> {
    let mut out = String::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = *rest.as_bytes().get(at + 1)?;
        let mut used = at + 2;
        out.push(match escape {
            b'"' | b'\\' | b'/' => char::from(escape),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = hex4(rest, at + 2)?;
                used += 4;
                match high {
                    0xd800..=0xdbff if rest.get(used..used + 2) == Some("\\u") => {
                        let low = hex4(rest, used + 2).filter(|low| (0xdc00..=0xdfff).contains(low))?;
                        used += 6;
                        char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))?
                    }
                    other => char::from_u32(other).unwrap_or('\u{fffd}'),
                }
            }
            _ => return None,
        });
        rest = rest.get(used..)?;
    }
    out.push_str(rest);
    Some(out)
}

fn hex4(text: &str, at: usize) -> Option<u32> {
    u32::from_str_radix(text.get(at..at + 4)?, 16).ok()
}

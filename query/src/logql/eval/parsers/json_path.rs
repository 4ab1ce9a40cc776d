//! `json a="b.c[0]"`: paths into a JSON text.
//!
//! Owns: the syntax of paths, and finding one value without reading the others.

use std::borrow::Cow;

use super::Fault;
use super::json::{Cursor, Raw, fault, unescape};
use crate::logql::eval::labels::{Sink, clean_value};

/// A compiled path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Key(String),
    Index(usize),
}

impl JsonPath {
    /// Reads `a.b["c"][0]`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("cannot parse JSON expression {text:?}");
        let mut segments = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            if let Some(inside) = rest.strip_prefix('[') {
                let (segment, after) = bracket(inside).ok_or_else(wrong)?;
                segments.push(segment);
                rest = after;
                continue;
            }
            let name = match rest.strip_prefix('.') {
                Some(name) if !segments.is_empty() => name,
                None if segments.is_empty() => rest,
                _ => return Err(wrong()),
            };
            let length = name.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
            if length == 0 || name.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(wrong());
            }
            segments.push(Segment::Key(name[..length].to_owned()));
            rest = &name[length..];
        }
        if segments.is_empty() { Err(wrong()) } else { Ok(Self(segments)) }
    }
}

/// `"key"]` or `0]`, and what follows.
fn bracket(inside: &str) -> Option<(Segment, &str)> {
    if let Some(text) = inside.strip_prefix('"') {
        let mut escaped = false;
        let end = text.find(|c| {
            let closes = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        })?;
        let key = unescape(&text[..end]).into_owned();
        return Some((Segment::Key(key), text[end + 1..].strip_prefix(']')?));
    }
    let (index, after) = inside.split_once(']')?;
    Some((Segment::Index(index.parse().ok()?), after))
}

/// Puts one label for each path; what is missing becomes an empty value.
pub(super) fn extract<'l>(line: &'l str, paths: &[(String, JsonPath)], sink: &mut impl Sink<'l>) -> Result<(), Fault> {
    if !line.starts_with(['{', '[', '"']) {
        return Err(fault("the line does not begin a JSON object, array or string"));
    }
    let mut outcome = Ok(());
    for (name, path) in paths {
        let found = match find(line, &path.0) {
            Ok(found) => found,
            Err(fault) => {
                outcome = Err(fault);
                None
            }
        };
        let value = match found {
            None | Some(Raw::Null) => Cow::Borrowed(""),
            Some(Raw::Text(inside)) => clean_value(unescape(inside)),
            Some(Raw::Plain(text) | Raw::Object(text) | Raw::Array(text)) => Cow::Borrowed(text),
        };
        sink.put(Cow::Owned(name.clone()), value);
    }
    outcome
}

/// The value at `path`. What is malformed beside the path does not matter; only a broken value at its end is a fault.
fn find<'l>(text: &'l str, path: &[Segment]) -> Result<Option<Raw<'l>>, Fault> {
    let mut text = text;
    let mut segments = path.iter().peekable();
    while let Some(segment) = segments.next() {
        let Some(value) = step(text, segment)? else { return Ok(None) };
        if segments.peek().is_none() {
            return Ok(Some(value));
        }
        match value {
            Raw::Object(inner) | Raw::Array(inner) => text = inner,
            _ => return Ok(None),
        }
    }
    Ok(None)
}

fn step<'l>(text: &'l str, segment: &Segment) -> Result<Option<Raw<'l>>, Fault> {
    let mut cursor = Cursor::new(text);
    match segment {
        Segment::Key(key) => member(&mut cursor, key),
        Segment::Index(index) => element(&mut cursor, *index),
    }
}

fn member<'l>(cursor: &mut Cursor<'l>, wanted: &str) -> Result<Option<Raw<'l>>, Fault> {
    if !cursor.take(b'{') {
        return Ok(None);
    }
    loop {
        match cursor.peek() {
            None | Some(b'}') => return Ok(None),
            Some(b'"') => {}
            Some(_) => {
                cursor.skip_char();
                continue;
            }
        }
        let Ok(key) = cursor.key() else { return Ok(None) };
        let value = cursor.value();
        if key == wanted {
            return value.map(Some);
        }
        if value.is_err() {
            return Ok(None);
        }
    }
}

fn element<'l>(cursor: &mut Cursor<'l>, wanted: usize) -> Result<Option<Raw<'l>>, Fault> {
    if !cursor.take(b'[') {
        return Ok(None);
    }
    for index in 0.. {
        cursor.skip_blanks();
        while cursor.take(b',') {
            cursor.skip_blanks();
        }
        if matches!(cursor.peek(), None | Some(b']')) {
            return Ok(None);
        }
        let value = cursor.value();
        if index == wanted {
            return value.map(Some);
        }
        if value.is_err() {
            return Ok(None);
        }
    }
    Ok(None)
}

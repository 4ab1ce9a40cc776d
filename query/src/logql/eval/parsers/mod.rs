//! Parsers: what they read from a line becomes labels.
//!
//! Owns: the table of parsers and their errors. Does not own: clashes and categories of labels (`labels`).
//! Invariant: no line makes a parser fail the query; faults are noted on the entry.

mod json;
mod json_path;
mod logfmt;

use std::borrow::Cow;

use regex::Regex;
use storage::model::matcher::compile_unanchored;

use super::labels::{Borrowing, Copying, LabelSet, Sink};
use super::pattern::Pattern;
use crate::logql::ast::Extraction;

pub use json::paths as json_paths;
pub use json_path::JsonPath;

/// A fault in a line: the kind and an explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The value of `__error__`.
    pub kind: &'static str,
    /// The value of `__error_details__`.
    pub details: String,
}

/// The fault of a line that is no JSON object.
const JSON_ERROR: &str = "JSONParserErr";
/// The fault of a line that is no logfmt.
const LOGFMT_ERROR: &str = "LogfmtParserErr";

/// A compiled parser.
#[derive(Clone, Debug)]
pub enum Parser {
    /// `json`
    Json,
    /// `json a="b.c"`
    JsonPaths(Vec<(String, JsonPath)>),
    /// `logfmt`
    Logfmt(logfmt::Options),
    /// `regexp "…"`
    Regexp(Regex),
    /// `pattern "…"`
    Pattern(Pattern),
}

impl Parser {
    /// `json` with the listed extractions, or all fields if there are none.
    pub fn json(list: &[Extraction]) -> Result<Self, String> {
        if list.is_empty() {
            return Ok(Self::Json);
        }
        let paths: Result<Vec<_>, String> =
            list.iter().map(|extraction| Ok((extraction.name.clone(), JsonPath::parse(&extraction.path)?))).collect();
        Ok(Self::JsonPaths(paths?))
    }

    /// `logfmt`
    pub fn logfmt(strict: bool, keep_empty: bool, list: &[Extraction]) -> Self {
        let only = list.iter().map(|extraction| (extraction.name.clone(), extraction.path.clone())).collect();
        Self::Logfmt(logfmt::Options { strict, keep_empty, only })
    }

    /// `regexp`: at least one named group, each name once and a label's.
    pub fn regexp(text: &str) -> Result<Self, String> {
        let regex = compile_unanchored(text).map_err(|error| error.message().to_owned())?;
        if regex.capture_names().flatten().next().is_none() {
            return Err("at least one named capture must be supplied".to_owned());
        }
        let invalid = |name: &&str| super::labels::sanitize(name) != **name;
        match regex.capture_names().flatten().find(invalid) {
            Some(name) => Err(format!("invalid extracted label name '{name}'")),
            None => Ok(Self::Regexp(regex)),
        }
    }

    /// `pattern`
    pub fn pattern(text: &str) -> Result<Self, String> {
        Pattern::for_parser(text).map(Self::Pattern)
    }

    /// Reads `line` into `labels`.
    #[expect(clippy::ptr_arg, reason = "labels borrow from a borrowed line and copy from an owned one")]
    pub fn run<'a>(&self, line: &Cow<'a, str>, labels: &mut LabelSet<'a>) {
        let fault = match line {
            Cow::Borrowed(line) => self.read(line, &mut Borrowing(labels)),
            Cow::Owned(line) => self.read(line.as_str(), &mut Copying(labels)),
        };
        if let Err(fault) = fault {
            labels.set_error(fault.kind, fault.details);
        }
    }

    fn read<'l>(&self, line: &'l str, sink: &mut impl Sink<'l>) -> Result<(), Fault> {
        match self {
            Self::Json => json::flatten(line, sink),
            Self::JsonPaths(paths) => json_path::extract(line, paths, sink),
            Self::Logfmt(options) => logfmt::read(line, options, sink),
            Self::Regexp(regex) => {
                let Some(captures) = regex.captures(line) else { return Ok(()) };
                for (name, group) in regex.capture_names().zip(captures.iter()) {
                    if let Some(name) = name {
                        let value = group.map_or("", |group| group.as_str());
                        sink.put(Cow::Owned(name.to_owned()), Cow::Borrowed(value));
                    }
                }
                Ok(())
            }
            Self::Pattern(pattern) => {
                pattern.captures(line, |name, value| sink.put(Cow::Owned(name.to_owned()), Cow::Borrowed(value)));
                Ok(())
            }
        }
    }
}

/// `unpack`: reads the members of a packed object into `labels` and gives the packed line, if there is one.
pub fn unpack(line: &str, labels: &mut LabelSet<'_>) -> Option<String> {
    if line.is_empty() {
        return None;
    }
    match json::packed(line) {
        Ok((members, Some(entry))) => {
            for (name, value) in members {
                labels.extract(Cow::Owned(name), Cow::Owned(value));
            }
            Some(entry)
        }
        Ok((_, None)) => None,
        Err(fault) => {
            labels.set_error(fault.kind, fault.details);
            None
        }
    }
}

#[cfg(test)]
mod tests;

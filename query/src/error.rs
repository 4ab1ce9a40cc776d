//! The error of the three languages: what is wrong, and where in the query text.
//!
//! Owns: [`Error`]. Does not own: statuses and bodies; each dialect maps [`Kind`] once, in the `tercet` binary.

use std::fmt;

/// Bytes `start..end` of the query text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct SourceSpan {
    /// First byte.
    pub start: usize,
    /// First byte after it.
    pub end: usize,
}

/// What went wrong, as far as an API tells it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The text is not in the language: syntax or types. `message` is complete, positions included, in the words
    /// of the original.
    Parse,
    /// A parameter is missing or malformed.
    Invalid,
    /// The query is fine but this version does not know the construct; `message` names it.
    Unsupported,
    /// The query was understood but cannot be evaluated on this data (matching, duplicate series, …).
    Execution,
    /// Over a named limit of query cost.
    Limit,
    /// Past its deadline.
    Timeout,
    /// The caller went away.
    Canceled,
    /// Beneath: the storage failed.
    Storage,
}

/// An error of a query.
#[derive(Debug)]
pub struct Error {
    /// What went wrong.
    pub kind: Kind,
    /// One sentence in the words of the original.
    pub message: String,
    /// Where in the text, if it is about a place in it.
    pub span: Option<SourceSpan>,
    /// The storage's error beneath, if any.
    pub source: Option<storage::Error>,
}

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error without a place.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), span: None, source: None }
    }

    /// The same error at a place in the text.
    #[must_use]
    pub fn at(mut self, span: SourceSpan) -> Self {
        self.span = Some(span);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

impl From<storage::Error> for Error {
    fn from(source: storage::Error) -> Self {
        let kind = match source.kind() {
            storage::Kind::Timeout => Kind::Timeout,
            storage::Kind::Canceled => Kind::Canceled,
            storage::Kind::Limit | storage::Kind::Busy => Kind::Limit,
            storage::Kind::Invalid => Kind::Invalid,
            _ => Kind::Storage,
        };
        Self { kind, message: source.to_string(), span: None, source: Some(source) }
    }
}

//! The one error of the storage crate: who must act, what happened, and why.
//!
//! Owns: [`Kind`] and [`Error`]. Does not own: HTTP or gRPC statuses; each dialect maps [`Kind`] to
//! its own once, in the `tercet` binary.

use std::fmt;

/// Who must act on an error. The comment names the actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Caller: the request is wrong and stays wrong.
    Invalid,
    /// Caller: the request is right but over a named limit.
    Limit,
    /// Caller, later: a queue or budget is full now; a retry may succeed.
    Busy,
    /// Operator: the disk or the object store does not answer; a retry may succeed.
    Unavailable,
    /// Caller: the deadline of the request passed.
    Timeout,
    /// Nobody: the caller went away.
    Canceled,
    /// Operator: another process owns the store; this one must stop taking data.
    Fenced,
    /// Operator: an object or file is damaged; the message names it.
    Corrupt,
    /// Us.
    Bug,
}

/// An error with its kind, one sentence, and the cause beneath it.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` that says `message`: what was wrong, where, and what to do.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Adds the error beneath this one.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Who must act.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The sentence without its cause.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether it is the object store that does not answer, not this machine's disk.
    pub fn blames_store(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            // The library that reads tables' logs tells it by its text only.
            if error.is::<object_store::Error>() || error.to_string().contains("object store") {
                return self.kind == Kind::Unavailable;
            }
            cause = error.source();
        }
        false
    }

    /// Caller's mistake.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// Over a named limit.
    pub fn limit(message: impl Into<String>) -> Self {
        Self::new(Kind::Limit, message)
    }

    /// Damaged object; name it.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, message)
    }

    /// A broken assumption of our own.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(Kind::Bug, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as _)
    }
}

impl From<std::io::Error> for Error {
    fn from(source: std::io::Error) -> Self {
        Self::new(Kind::Unavailable, "the disk refused an operation").with_source(source)
    }
}

impl From<object_store::Error> for Error {
    fn from(source: object_store::Error) -> Self {
        Self::new(Kind::Unavailable, "the object store refused an operation").with_source(source)
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(source: arrow::error::ArrowError) -> Self {
        Self::new(Kind::Bug, "an Arrow operation failed").with_source(source)
    }
}

impl From<parquet::errors::ParquetError> for Error {
    fn from(source: parquet::errors::ParquetError) -> Self {
        Self::new(Kind::Corrupt, "a Parquet operation failed").with_source(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_blamed_for_its_own_failures_only() {
        let of_store = || object_store::Error::Generic { store: "s", source: "down".into() };
        assert!(Error::from(of_store()).blames_store());
        let beneath = Error::new(Kind::Unavailable, "reading the log failed").with_source(of_store());
        assert!(beneath.blames_store());
        assert!(!Error::from(std::io::Error::other("full")).blames_store());
        assert!(!Error::corrupt("damaged").with_source(of_store()).blames_store());
    }
}

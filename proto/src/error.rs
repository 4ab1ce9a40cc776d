//! The one error of this crate: what is wrong with the bytes, and where.
//!
//! Owns: [`Kind`] and [`Error`]. Does not own: HTTP and gRPC statuses; each dialect maps [`Kind`] to its own.

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The bytes are not what they claim to be, or break a rule of their protocol.
    Malformed,
    /// Over a limit; the message names it.
    TooLarge,
    /// Well-formed, but of an encoding or a construct that is not taken.
    Unsupported,
    /// A broken assumption of our own.
    Bug,
}

/// An error with its kind and one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: Kind,
    message: String,
}

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` that says `message`: what is wrong and where.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The bytes are wrong.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(Kind::Malformed, message)
    }

    /// Over a limit.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(Kind::TooLarge, message)
    }

    /// Not taken.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, message)
    }

    /// What is wrong.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error with the place it happened in put before its sentence: `place: sentence`.
    #[must_use]
    pub fn at(self, place: impl std::fmt::Display) -> Self {
        Self { kind: self.kind, message: format!("{place}: {}", self.message) }
    }
}

/// Building a batch fails only through a mistake of ours.
impl From<storage::Error> for Error {
    fn from(source: storage::Error) -> Self {
        Self::new(Kind::Bug, source.to_string())
    }
}

//! Sidecar indexes: derived data beside the blocks.
//!
//! Owns: which sidecars a table's blocks have, and building them while rows pass. Does not own: where they lie
//! (`paths`), loading them (`scan`).
//!
//! Invariant: deleting a sidecar changes speed, never an answer.

pub mod dictionary;
pub mod directory;
mod frame;
pub mod tokens;

use arrow::array::RecordBatch;
use bytes::Bytes;

use crate::error::Result;
use crate::signal::Table;
use dictionary::Dictionary;
use directory::Directory;

/// A kind of sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sidecar {
    /// Where the rows of each identity stand.
    Directory,
    /// Which ranges of rows may hold a text or a value.
    Tokens,
    /// Which keys and values there are.
    Dictionary,
}

impl Sidecar {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Directory, Self::Tokens, Self::Dictionary];

    /// How the names of such objects end.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Directory => ".dir",
            Self::Tokens => ".tok",
            Self::Dictionary => ".dic",
        }
    }

    /// Reads the bytes of one and says in a line what it holds; the error says what is damaged.
    pub fn decode(self, bytes: Bytes) -> Result<String> {
        match self {
            Self::Directory => Directory::decode(&bytes).map(|directory| directory.summary()),
            Self::Tokens => tokens::TokenFilter::decode(bytes).map(|filter| filter.summary()),
            Self::Dictionary => Dictionary::decode(&bytes).map(|dictionary| dictionary.summary()),
        }
    }

    /// Whether the blocks of `table` have one.
    pub fn applies(self, table: Table) -> bool {
        match self {
            Self::Directory => directory::columns(table).is_some(),
            Self::Tokens => tokens::applies(table),
            Self::Dictionary => dictionary::applies(table),
        }
    }
}

/// Builds the sidecars of one block while its rows pass in their order.
pub struct Builder {
    table: Table,
    directory: Option<Directory>,
    tokens: Option<tokens::Builder>,
    dictionary: Option<Dictionary>,
}

/// The sidecars of one block.
#[derive(Debug, Default)]
pub struct Built {
    /// To be written beside the block.
    pub objects: Vec<(Sidecar, Bytes)>,
    /// The directory once more, for the cache.
    pub directory: Option<Directory>,
    /// The dictionary, likewise.
    pub dictionary: Option<Dictionary>,
}

impl Builder {
    /// For a block of `table`.
    pub fn new(table: Table) -> Self {
        Self {
            table,
            directory: Sidecar::Directory.applies(table).then(Directory::default),
            tokens: Sidecar::Tokens.applies(table).then(tokens::Builder::default),
            dictionary: Sidecar::Dictionary.applies(table).then(|| Dictionary::new(table)),
        }
    }

    /// Adds the rows of a batch in the columns of memory, which follow those added before.
    pub fn observe(&mut self, rows: &RecordBatch) -> Result<()> {
        if let Some(directory) = &mut self.directory {
            directory.extend_from(self.table, rows)?;
        }
        if let Some(dictionary) = &mut self.dictionary {
            dictionary.extend_from(rows)?;
        }
        self.tokens.as_mut().map_or(Ok(()), |tokens| tokens.extend_from(rows))
    }

    /// What was built of all rows.
    pub fn finish(self) -> Result<Built> {
        let mut objects = Vec::new();
        if let Some(directory) = &self.directory {
            objects.push((Sidecar::Directory, directory.encode()));
        }
        if let Some(tokens) = self.tokens {
            objects.push((Sidecar::Tokens, tokens.finish()));
        }
        if let Some(dictionary) = &self.dictionary {
            objects.push((Sidecar::Dictionary, dictionary.encode()?));
        }
        Ok(Built { objects, directory: self.directory, dictionary: self.dictionary })
    }
}

//! Delete requests: which stored rows are to be gone.
//!
//! Owns: requests and their form in the store. Does not own: when one is made and what it covers (`engine::delete`),
//! where they are kept (`log`), how scans leave rows out (`hide`), the rewriting of blocks (`engine::retain`).
//!
//! A request covers what is stored when it is made, as in Prometheus and Loki: the heads are flushed first, and the
//! request applies to the blocks of that moment, by name. What arrives later lies in other blocks and stays. A block
//! that replaced a covered one has other rows, so it is not covered: a request is done when no covered block is left.
//!
//! Requests are JSON objects and no Delta table: they are few, they must be seen by scans before any Parquet file is
//! opened, and one small object holds all that a scan has to know.
//!
//! Invariants
//! 1. A request hides its rows from every scan from the moment it is durable until they are gone from the blocks.
//! 2. It never hides a row that was acknowledged after it was made.

pub(crate) mod hide;
mod log;
#[cfg(test)]
mod tests;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::matcher::{MatchOp, Matcher, compile_unanchored};
use crate::model::time::TimeRange;
use crate::signal::Signal;

pub(crate) use log::{DeleteLog, State};

/// Requests of one tenant that are not done; more are refused, since every scan looks at all of them.
pub const PENDING_MAX: usize = 1000;
/// Requests that are done and still listed.
pub const DONE_MAX: usize = 100;
/// Bytes of the texts of one request.
pub const REQUEST_BYTES_MAX: usize = 64 << 10;

/// The text columns that row tests may look at.
pub const TEST_COLUMNS: [&str; 2] = ["line", "severity"];

/// What is asked to be gone.
#[derive(Clone, Debug)]
pub struct DeleteRequest {
    /// Whose facts.
    pub signal: Signal,
    /// Facts whose identity passes one of these, each an AND of matchers. At least one, none of them empty.
    pub selectors: Vec<Vec<Matcher>>,
    /// Facts whose time is inside.
    pub range: TimeRange,
    /// Rows must pass all of these as well; none: every row goes.
    pub tests: Vec<RowTest>,
    /// The request as its maker wrote it, to be shown in lists.
    pub text: String,
}

impl DeleteRequest {
    /// Refuses what would delete everything by mistake, and what is too large to be looked at by every scan.
    pub(crate) fn check(&self) -> Result<()> {
        if self.selectors.is_empty() || self.selectors.iter().any(Vec::is_empty) {
            return Err(Error::invalid("a delete request needs at least one matcher"));
        }
        let matchers = self.selectors.iter().flatten().map(|m| m.name.len() + m.value.len());
        let tests = self.tests.iter().flat_map(|test| &test.any).map(|text| text.as_str().len());
        let bytes = matchers.sum::<usize>() + tests.sum::<usize>() + self.text.len();
        if bytes > REQUEST_BYTES_MAX {
            let text = format!("a delete request of {bytes} bytes is over the limit of {REQUEST_BYTES_MAX}");
            return Err(Error::limit(text));
        }
        Ok(())
    }
}

/// A request as it is listed.
#[derive(Clone, Debug)]
pub struct Deletion {
    /// Its name among the tenant's requests.
    pub id: String,
    /// What was asked.
    pub request: DeleteRequest,
    /// When it was made, in nanoseconds since the epoch.
    pub created_ns: i64,
    /// Whether its rows are gone from the blocks.
    pub done: bool,
}

/// One test on a text column: passes if one of the texts is found, or, negated, if none is.
#[derive(Clone, Debug)]
pub struct RowTest {
    /// The column, one of [`TEST_COLUMNS`].
    pub column: &'static str,
    /// Whether a row passes when nothing is found.
    pub negated: bool,
    /// What is looked for.
    pub any: Vec<Needle>,
}

impl RowTest {
    /// Whether a row with this text passes; a column without value is the empty text.
    pub fn passes(&self, text: &str) -> bool {
        self.any.iter().any(|needle| needle.found_in(text)) != self.negated
    }
}

/// What a [`RowTest`] looks for.
#[derive(Clone, Debug)]
pub enum Needle {
    /// A text, case counts.
    Text(String),
    /// A regular expression, found anywhere.
    Regex(Regex, String),
}

impl Needle {
    /// Compiles an expression.
    pub fn regex(pattern: &str) -> Result<Self> {
        Ok(Self::Regex(compile_unanchored(pattern)?, pattern.to_owned()))
    }

    /// As it was written.
    fn as_str(&self) -> &str {
        match self {
            Self::Text(text) | Self::Regex(_, text) => text,
        }
    }

    fn found_in(&self, text: &str) -> bool {
        match self {
            Self::Text(needle) => memchr::memmem::find(text.as_bytes(), needle.as_bytes()).is_some(),
            Self::Regex(regex, _) => regex.is_match(text),
        }
    }
}

/// A request as the store has it.
#[derive(Serialize, Deserialize)]
struct Stored {
    id: String,
    signal: String,
    /// Name, operator, value.
    selectors: Vec<Vec<(String, String, String)>>,
    start_ns: i64,
    end_ns: i64,
    #[serde(default)]
    tests: Vec<StoredTest>,
    text: String,
    created_ns: i64,
    /// Place among all requests of the tenant; rises.
    sequence: u64,
    done: bool,
}

#[derive(Serialize, Deserialize)]
struct StoredTest {
    column: String,
    negated: bool,
    texts: Vec<String>,
    regexes: Vec<String>,
}

const OPERATORS: [MatchOp; 4] = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];

impl Stored {
    fn new(deletion: &Deletion, sequence: u64) -> Self {
        let matcher = |m: &Matcher| (m.name.clone(), m.op.to_string(), m.value.clone());
        let request = &deletion.request;
        Self {
            id: deletion.id.clone(),
            signal: request.signal.name().to_owned(),
            selectors: request.selectors.iter().map(|all| all.iter().map(matcher).collect()).collect(),
            start_ns: request.range.start,
            end_ns: request.range.end,
            tests: request.tests.iter().map(StoredTest::new).collect(),
            text: request.text.clone(),
            created_ns: deletion.created_ns,
            sequence,
            done: deletion.done,
        }
    }

    fn read(self) -> Result<(Deletion, u64)> {
        let unknown = |what: &str, text: &str| {
            Error::corrupt(format!("the delete request `{}` names the unknown {what} `{text}`", self.id))
        };
        let signal = Signal::ALL.into_iter().find(|signal| signal.name() == self.signal);
        let signal = signal.ok_or_else(|| unknown("signal", &self.signal))?;
        let mut selectors = Vec::with_capacity(self.selectors.len());
        for all in &self.selectors {
            let mut matchers = Vec::with_capacity(all.len());
            for (name, op, value) in all {
                let known = OPERATORS.into_iter().find(|known| known.to_string() == *op);
                let known = known.ok_or_else(|| unknown("operator", op))?;
                matchers.push(Matcher::new(name.as_str(), known, value.as_str())?);
            }
            selectors.push(matchers);
        }
        let tests = self.tests.into_iter().map(StoredTest::read).collect::<Result<_>>()?;
        let range = TimeRange::new(self.start_ns, self.end_ns);
        let request = DeleteRequest { signal, selectors, range, tests, text: self.text };
        Ok((Deletion { id: self.id, request, created_ns: self.created_ns, done: self.done }, self.sequence))
    }
}

impl StoredTest {
    fn new(test: &RowTest) -> Self {
        let (mut texts, mut regexes) = (Vec::new(), Vec::new());
        for needle in &test.any {
            match needle {
                Needle::Text(text) => texts.push(text.clone()),
                Needle::Regex(_, text) => regexes.push(text.clone()),
            }
        }
        Self { column: test.column.to_owned(), negated: test.negated, texts, regexes }
    }

    fn read(self) -> Result<RowTest> {
        let mut any: Vec<Needle> = self.texts.into_iter().map(Needle::Text).collect();
        for pattern in self.regexes {
            any.push(Needle::regex(&pattern)?);
        }
        let column = TEST_COLUMNS.into_iter().find(|known| *known == self.column);
        let unknown = || Error::corrupt(format!("a delete request tests the unknown column `{}`", self.column));
        Ok(RowTest { column: column.ok_or_else(unknown)?, negated: self.negated, any })
    }
}

//! The labels of one entry on its way through a pipeline.
//!
//! Owns: categories, precedence, the suffix of clashing names, which names are needed at all. Does not own: where
//! values come from.
//!
//! Invariants
//! 1. A name is visible at most once.
//! 2. `__error__` and `__error_details__` stand apart: they are labels for filters and answers, not for `keep`. A field
//!    of that name in a line is shown, but no filter takes it for a failure.

use std::borrow::Cow;
use std::collections::BTreeSet;

/// The label that names a failure of a stage.
pub const ERROR: &str = "__error__";
/// The label that explains it.
pub const ERROR_DETAILS: &str = "__error_details__";
/// What a clashing name gets.
pub(super) const DUPLICATE_SUFFIX: &str = "_extracted";

/// The name that gave way for this one, if it is such a name.
pub fn base_name(name: &str) -> Option<&str> {
    name.strip_suffix(DUPLICATE_SUFFIX)
}

/// Where a label comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// The stream.
    Stream,
    /// The entry's structured metadata.
    Metadata,
    /// The pipeline.
    Parsed,
}

/// Which labels the rest of a query can see; the others need not be read.
#[derive(Clone, Debug, PartialEq)]
pub enum Needs {
    /// All.
    All,
    /// These.
    Names(BTreeSet<String>),
}

impl Needs {
    /// Whether `name` may matter.
    pub fn wants(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Names(names) => names.contains(name),
        }
    }

    /// Also `name`, and the name whose clash would rename it.
    pub fn add(&mut self, name: &str) {
        if let Self::Names(names) = self {
            names.insert(name.to_owned());
            if let Some(base) = name.strip_suffix(DUPLICATE_SUFFIX) {
                names.insert(base.to_owned());
            }
        }
    }
}

/// A label that does not come from the stream.
#[derive(Clone, Debug)]
struct Own<'a> {
    name: Cow<'a, str>,
    value: Cow<'a, str>,
    category: Category,
}

/// The labels of one entry.
#[derive(Clone, Debug)]
pub struct LabelSet<'a> {
    stream: &'a [(String, String)],
    /// Indices into `stream` that are gone.
    hidden: Vec<usize>,
    own: Vec<Own<'a>>,
    error: Option<&'static str>,
    details: Option<String>,
    needs: &'a Needs,
}

impl<'a> LabelSet<'a> {
    /// The labels of an entry of `stream`.
    pub fn new(stream: &'a [(String, String)], needs: &'a Needs) -> Self {
        Self { stream, hidden: Vec::new(), own: Vec::new(), error: None, details: None, needs }
    }

    /// Begins anew with another entry; keeps the memory.
    pub fn reset(&mut self, stream: &'a [(String, String)]) {
        self.stream = stream;
        self.hidden.clear();
        self.own.clear();
        self.error = None;
        self.details = None;
    }

    /// Whether no label matters at all.
    pub fn needs_nothing(&self) -> bool {
        matches!(self.needs, Needs::Names(names) if names.is_empty())
    }

    fn in_stream(&self, name: &str) -> Option<usize> {
        self.stream.iter().position(|(n, _)| n == name)
    }

    fn in_own(&self, name: &str) -> Option<usize> {
        self.own.iter().position(|label| label.name == name)
    }

    /// The value of a visible label.
    pub fn get(&self, name: &str) -> Option<&str> {
        if name == ERROR {
            return self.error;
        }
        if name == ERROR_DETAILS {
            return self.details.as_deref();
        }
        if let Some(at) = self.in_own(name) {
            return Some(&self.own[at].value);
        }
        let at = self.in_stream(name)?;
        (!self.hidden.contains(&at)).then(|| self.stream[at].1.as_str())
    }

    /// Adds structured metadata; a name of the stream gets the suffix.
    pub fn add_metadata(&mut self, name: &'a str, value: Cow<'a, str>) {
        let name = match self.in_stream(name) {
            Some(_) => Cow::Owned(format!("{name}{DUPLICATE_SUFFIX}")),
            None => Cow::Borrowed(name),
        };
        if self.needs.wants(&name) {
            self.own.push(Own { name, value, category: Category::Metadata });
        }
    }

    /// Adds what a parser found. The first value of a name stays; a name of the stream or of metadata gets the suffix.
    pub fn extract(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) {
        let held = self.in_own(&name).map(|at| self.own[at].category);
        let clash = held == Some(Category::Metadata) || self.in_stream(&name).is_some();
        let (name, held) = if clash {
            let renamed = format!("{name}{DUPLICATE_SUFFIX}");
            let held = self.in_own(&renamed).map(|at| self.own[at].category);
            (Cow::Owned(renamed), held)
        } else {
            (name, held)
        };
        if held == Some(Category::Parsed) || !self.needs.wants(&name) {
            return;
        }
        self.own.push(Own { name, value, category: Category::Parsed });
    }

    /// Sets a label whatever it was before; it counts as parsed.
    pub fn set(&mut self, name: &str, value: String) {
        match self.in_own(name) {
            Some(at) => {
                self.own[at].value = Cow::Owned(value);
                self.own[at].category = Category::Parsed;
            }
            None => {
                self.hide(name);
                let name = Cow::Owned(name.to_owned());
                self.own.push(Own { name, value: Cow::Owned(value), category: Category::Parsed });
            }
        }
    }

    fn hide(&mut self, name: &str) {
        if let Some(at) = self.in_stream(name)
            && !self.hidden.contains(&at)
        {
            self.hidden.push(at);
        }
    }

    /// Removes a label, also the error labels.
    pub fn remove(&mut self, name: &str) {
        match name {
            ERROR => self.error = None,
            ERROR_DETAILS => self.details = None,
            _ => {
                self.own.retain(|label| label.name != name);
                self.hide(name);
            }
        }
    }

    /// Removes all labels that fail `keep`, but not the error labels.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &str) -> bool) {
        self.own.retain(|label| keep(&label.name, &label.value));
        for (at, (name, value)) in self.stream.iter().enumerate() {
            if !self.hidden.contains(&at) && !keep(name, value) {
                self.hidden.push(at);
            }
        }
    }

    /// Whether a stage failed.
    pub fn has_error(&self) -> bool {
        self.error.is_some()
    }

    /// Notes that a stage failed.
    pub fn set_error(&mut self, kind: &'static str, details: impl Into<String>) {
        self.error = Some(kind);
        self.details = Some(details.into());
    }

    /// All visible labels with their category, sorted by name.
    pub fn sorted(&self) -> Vec<(&str, &str, Category)> {
        let mut list: Vec<_> = self.iter().collect();
        list.sort_unstable_by(|a, b| a.0.cmp(b.0));
        list
    }

    /// All visible labels with their category, unsorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, Category)> {
        let stream = self
            .stream
            .iter()
            .enumerate()
            .filter(|(at, _)| !self.hidden.contains(at))
            .map(|(_, (name, value))| (name.as_str(), value.as_str(), Category::Stream));
        let shown = |label: &&Own<'a>| self.error.is_none() || !matches!(&*label.name, ERROR | ERROR_DETAILS);
        let own = self.own.iter().filter(shown).map(|label| (&*label.name, &*label.value, label.category));
        let error = self.error.iter().map(|value| (ERROR, *value, Category::Parsed));
        let details = self.details.iter().map(|value| (ERROR_DETAILS, value.as_str(), Category::Parsed));
        stream.chain(own).chain(error).chain(details)
    }
}

/// Takes what parsers find in a text that lives as long as `'l`.
pub trait Sink<'l> {
    /// One label.
    fn put(&mut self, name: Cow<'l, str>, value: Cow<'l, str>);
    /// Whether a label of this name may matter (under its own name or with the suffix).
    fn wants(&self, name: &str) -> bool;
}

fn wanted(needs: &Needs, name: &str) -> bool {
    match needs {
        Needs::All => true,
        Needs::Names(names) => {
            names.contains(name)
                || names.iter().any(|needed| needed.strip_suffix(DUPLICATE_SUFFIX).is_some_and(|base| base == name))
        }
    }
}

/// Puts labels that borrow from the entry itself.
pub struct Borrowing<'x, 'a>(pub &'x mut LabelSet<'a>);

impl<'a> Sink<'a> for Borrowing<'_, 'a> {
    fn put(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) {
        self.0.extract(name, value);
    }

    fn wants(&self, name: &str) -> bool {
        wanted(self.0.needs, name)
    }
}

/// Puts copies, for lines that a stage made.
pub struct Copying<'x, 'a>(pub &'x mut LabelSet<'a>);

impl<'l> Sink<'l> for Copying<'_, '_> {
    fn put(&mut self, name: Cow<'l, str>, value: Cow<'l, str>) {
        self.0.extract(Cow::Owned(name.into_owned()), Cow::Owned(value.into_owned()));
    }

    fn wants(&self, name: &str) -> bool {
        wanted(self.0.needs, name)
    }
}

/// A name as labels may have it: trimmed, every other character `_`, no digit in front.
pub fn sanitize(name: &str) -> Cow<'_, str> {
    let trimmed = name.trim();
    let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if trimmed.bytes().all(fine) && !trimmed.starts_with(|c: char| c.is_ascii_digit()) {
        return Cow::Borrowed(trimmed);
    }
    let mut out = String::with_capacity(trimmed.len() + 1);
    push_sanitized(&mut out, trimmed);
    Cow::Owned(out)
}

/// Appends `name` with every character that labels may not have as `_`.
pub fn push_sanitized(out: &mut String, name: &str) {
    let name = name.trim();
    if out.is_empty() && name.starts_with(|c: char| c.is_ascii_digit()) {
        out.push('_');
    }
    out.extend(name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }));
}

/// A value as labels may have it: what stood for invalid UTF-8 becomes a space.
pub fn clean_value(value: Cow<'_, str>) -> Cow<'_, str> {
    const REPLACEMENT: char = '\u{fffd}';
    if value.contains(REPLACEMENT) { Cow::Owned(value.replace(REPLACEMENT, " ")) } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(labels: &LabelSet<'_>) -> Vec<(String, String)> {
        let mut list: Vec<(String, String)> =
            labels.iter().map(|(name, value, _)| (name.to_owned(), value.to_owned())).collect();
        list.sort();
        list
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn clashes_get_a_suffix_and_the_first_value_stays() {
        let stream = [pair("app", "a")];
        let mut labels = LabelSet::new(&stream, &Needs::All);
        labels.add_metadata("app", "m".into());
        labels.add_metadata("pod", "p".into());
        labels.extract("app".into(), "x".into());
        labels.extract("pod".into(), "y".into());
        labels.extract("pod".into(), "z".into());
        labels.extract("new".into(), "1".into());
        labels.extract("new".into(), "2".into());
        let expected = [
            pair("app", "a"),
            pair("app_extracted", "m"),
            pair("app_extracted", "x"),
            pair("new", "1"),
            pair("pod", "p"),
        ];
        let got = pairs(&labels);
        assert_eq!(got.len(), expected.len() + 1);
        assert!(got.contains(&pair("pod_extracted", "y")));
    }

    #[test]
    fn setting_and_removing_hide_the_stream() {
        let stream = [pair("app", "a"), pair("env", "e")];
        let mut labels = LabelSet::new(&stream, &Needs::All);
        labels.set("app", "b".to_owned());
        labels.remove("env");
        labels.set_error("JSONParserErr", "why");
        labels.retain(|name, _| name != "app");
        assert_eq!(labels.get("app"), None);
        assert_eq!(labels.get(ERROR), Some("JSONParserErr"), "errors survive");
        labels.remove(ERROR);
        assert!(!labels.has_error());
    }

    #[test]
    fn names_are_sanitized() {
        for (name, expected) in
            [("a", "a"), (" a b ", "a_b"), ("1st", "_1st"), ("ö", "_"), ("", ""), ("a.b-c", "a_b_c"), ("  ", "")]
        {
            assert_eq!(sanitize(name), expected);
        }
    }
}

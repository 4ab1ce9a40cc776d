//! Matchers: one test on one label, with the semantics of Prometheus and Loki.
//!
//! Owns: the operators, anchoring, and what a missing label means (the empty string). Does not own: parsing.
//! Regular expressions are RE2's syntax as the `regex` crate has it, bridged where Go is more lenient.

use std::fmt;

use regex::{Regex, RegexBuilder};

use crate::error::{Error, Result};
use crate::model::labels::Labels;

/// The most memory one compiled expression may take.
pub const REGEX_BYTES_MAX: usize = 10 << 20;

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, anchored at both ends.
    Regex,
    /// `!~`, anchored at both ends.
    NotRegex,
}

impl fmt::Display for MatchOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        })
    }
}

/// One test on a label.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// The label's name.
    pub name: String,
    /// How it compares.
    pub op: MatchOp,
    /// The text as written.
    pub value: String,
    regex: Option<Regex>,
    /// What a regex that is a plain alternation accepts, so that postings are looked up instead of tested.
    literals: Option<Vec<String>>,
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.op == other.op && self.value == other.value
    }
}

impl Matcher {
    /// Compiles the test. A regex that does not compile is [`crate::error::Kind::Invalid`].
    pub fn new(name: impl Into<String>, op: MatchOp, value: impl Into<String>) -> Result<Self> {
        let (name, value) = (name.into(), value.into());
        let (regex, literals) = match op {
            MatchOp::Equal | MatchOp::NotEqual => (None, None),
            MatchOp::Regex | MatchOp::NotRegex => (Some(anchored(&value)?), plain_alternation(&value)),
        };
        Ok(Self { name, op, value, regex, literals })
    }

    /// Whether a label with `value` passes; give "" for a missing label.
    pub fn matches(&self, value: &str) -> bool {
        match (self.op, &self.regex) {
            (MatchOp::Equal, _) => value == self.value,
            (MatchOp::NotEqual, _) => value != self.value,
            (MatchOp::Regex, Some(regex)) => regex.is_match(value),
            (MatchOp::NotRegex, Some(regex)) => !regex.is_match(value),
            (MatchOp::Regex | MatchOp::NotRegex, None) => false,
        }
    }

    /// Whether a missing label passes.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// Whether `labels` pass.
    pub fn matches_labels(&self, labels: &Labels) -> bool {
        self.matches(labels.get(&self.name).unwrap_or(""))
    }

    /// The exact values this matcher accepts, when they are few and known: `=`, or `=~` of plain words.
    pub fn accepted(&self) -> Option<Vec<&str>> {
        match self.op {
            MatchOp::Equal => Some(vec![self.value.as_str()]),
            MatchOp::Regex => self.literals.as_ref().map(|list| list.iter().map(String::as_str).collect()),
            MatchOp::NotEqual | MatchOp::NotRegex => None,
        }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:?}", self.name, self.op, self.value)
    }
}

/// Compiles `pattern` as Prometheus does: anchored at both ends, the dot matches a newline.
fn anchored(pattern: &str) -> Result<Regex> {
    compile(&format!("^(?s:{pattern})$"), pattern)
}

/// Compiles an unanchored RE2 pattern; errors name the pattern as the user wrote it.
pub fn compile_unanchored(pattern: &str) -> Result<Regex> {
    compile(pattern, pattern)
}

fn compile(pattern: &str, written: &str) -> Result<Regex> {
    let build = |text: &str| RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build();
    match build(pattern) {
        Ok(regex) => Ok(regex),
        // Go takes a brace that starts no repetition as itself; try again with such braces escaped.
        Err(first) => build(&escape_literal_braces(pattern)).map_err(|_| {
            Error::invalid(format!("error parsing regexp: {}: `{written}`", last_line(&first.to_string())))
        }),
    }
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or(text).trim_start_matches("error: ")
}

/// Escapes each `{` outside a class that begins no `{n}`, `{n,}` or `{n,m}`, and its `}`.
fn escape_literal_braces(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    let mut in_class = false;
    while let Some(c) = rest.chars().next() {
        let tail = &rest[c.len_utf8()..];
        match c {
            '\\' => {
                out.push('\\');
                let Some(next) = tail.chars().next() else { break };
                out.push(next);
                let mut after = &tail[next.len_utf8()..];
                // \p{Greek} and \x{1F600} keep their braces.
                if matches!(next, 'p' | 'P' | 'x') && after.starts_with('{') {
                    let end = after.find('}').map_or(after.len(), |i| i + 1);
                    out.push_str(&after[..end]);
                    after = &after[end..];
                }
                rest = after;
                continue;
            }
            '[' => in_class = true,
            ']' => in_class = false,
            '{' if !in_class => {
                let inside = tail.split('}').next().unwrap_or("");
                let counted = tail.contains('}')
                    && inside.starts_with(|d: char| d.is_ascii_digit())
                    && inside.chars().all(|d| d.is_ascii_digit() || d == ',')
                    && inside.matches(',').count() <= 1;
                if counted {
                    out.push('{');
                    out.push_str(inside);
                    out.push('}');
                    rest = &tail[inside.len() + 1..];
                    continue;
                }
                out.push('\\');
            }
            '}' if !in_class => out.push('\\'),
            _ => {}
        }
        out.push(c);
        rest = tail;
    }
    out
}

/// `a|b|c` of plain characters as a list; `None` if anything in it is a regex.
fn plain_alternation(pattern: &str) -> Option<Vec<String>> {
    const ALTERNATIVES_MAX: usize = 256;
    let plain = |c: char| !"\\.+*?()[]{}^$".contains(c);
    let list: Vec<String> = pattern.split('|').map(str::to_owned).collect();
    (list.len() <= ALTERNATIVES_MAX && list.iter().all(|word| word.chars().all(plain))).then_some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(op: MatchOp, pattern: &str, yes: &[&str], no: &[&str]) {
        let matcher = Matcher::new("l", op, pattern).expect("compiles");
        for value in yes {
            assert!(matcher.matches(value), "{matcher} should match {value:?}");
        }
        for value in no {
            assert!(!matcher.matches(value), "{matcher} should not match {value:?}");
        }
    }

    #[test]
    fn regexes_are_anchored_and_see_newlines() {
        check(MatchOp::Regex, "a.c", &["abc", "a\nc"], &["xabc", "abcx", ""]);
        check(MatchOp::Regex, "a|b", &["a", "b"], &["ab", ""]);
        check(MatchOp::NotRegex, "a|b", &["ab", ""], &["a", "b"]);
        check(MatchOp::Regex, "(?i)get", &["GET", "get"], &["gett"]);
    }

    #[test]
    fn braces_that_repeat_nothing_are_literal_as_in_go() {
        check(MatchOp::Regex, "{x}", &["{x}"], &["x"]);
        check(MatchOp::Regex, "/users/{id}/a{2}", &["/users/{id}/aa"], &["/users/{id}/a"]);
        check(MatchOp::Regex, r"\p{Greek}{1,2}", &["αβ"], &["ab"]);
    }

    #[test]
    fn plain_words_are_known_in_advance() {
        let words = Matcher::new("l", MatchOp::Regex, "a|b").expect("compiles");
        assert_eq!(words.accepted(), Some(vec!["a", "b"]));
        assert_eq!(Matcher::new("l", MatchOp::Regex, "a.|b").expect("compiles").accepted(), None);
        // Flags and groups are not plain.
        assert_eq!(Matcher::new("l", MatchOp::Regex, "(?i)a").expect("compiles").accepted(), None);
    }

    #[test]
    fn broken_and_huge_expressions_are_refused() {
        assert!(Matcher::new("l", MatchOp::Regex, "a(").is_err());
        assert!(Matcher::new("l", MatchOp::Regex, "(?:a{1000}){1000}{1000}").is_err());
    }
}

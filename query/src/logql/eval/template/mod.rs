//! Templates of `line_format` and `label_format`: Go's text/template with the functions of the original.
//!
//! Owns: [`Template`], compiled once for a query. Parts: `parse` (text → nodes), `exec` (nodes → text), `value` (what
//! flows through a pipe), `functions` (the table of functions), `printf` (Go's formatting verbs), `time` (Go's layouts).
//!
//! Invariants
//! 1. Every function that a template names is known once it compiles.
//! 2. Rendering ends: loops go over values, output is bounded by [`OUTPUT_BYTES_MAX`].

mod builtins;
mod exec;
mod functions;
mod numbers;
mod parse;
mod printf;
mod time;
mod value;

use super::labels::{LabelSet, Needs};

/// The most bytes that a template may write for one entry.
pub const OUTPUT_BYTES_MAX: usize = 4 << 20;

/// What a template sees.
pub struct Scope<'s, 'a> {
    /// `.name`
    pub labels: &'s LabelSet<'a>,
    /// `__line__`
    pub line: &'s str,
    /// `__timestamp__`
    pub ts_ns: i64,
}

/// A compiled template.
#[derive(Debug)]
pub struct Template {
    nodes: Vec<parse::Node>,
    regexes: functions::RegexCache,
}

impl Template {
    /// Compiles; the error says what is wrong with the text.
    pub fn new(text: &str) -> Result<Self, String> {
        let nodes = parse::parse(text).map_err(|reason| format!("invalid template: {reason}"))?;
        Ok(Self { nodes, regexes: functions::RegexCache::default() })
    }

    /// The text for one entry.
    pub fn render(&self, scope: &Scope<'_, '_>) -> Result<String, String> {
        // The two forms that most templates consist of need no values.
        if let [parse::Node::Text(text)] = self.nodes.as_slice() {
            return Ok(text.clone());
        }
        exec::run(&self.nodes, scope, &self.regexes)
    }

    /// Adds the labels it reads; all of them if that is not certain.
    pub fn add_needs(&self, needs: &mut Needs) {
        parse::add_needs(&self.nodes, needs);
    }
}

#[cfg(test)]
mod tests;

//! A compiled pipeline and one entry on its way through it.
//!
//! Owns: the order of stages. Invariant: line filters before the first stage that changes the line run on the columns
//! of a batch ([`Pipeline::select`]), all others on single entries ([`Pipeline::run`]).

use std::borrow::Cow;

use arrow::array::{Array, StringArray};
use storage::model::matcher::Matcher;

use super::filter::{LineFilter, all_rows};
use super::label_filter::LabelFilter;
use super::labels::{ERROR, LabelSet, Needs};
use super::parsers::{Parser, unpack};
use super::template::{Scope, Template};
use crate::error::Result;
use crate::logql::ast::{self, AssignmentSource, LabelPick, StageKind};
use crate::logql::lexer::semantic_error;

/// The error of a template that fails.
const TEMPLATE_ERROR: &str = "TemplateFormatErr";

/// One entry.
#[derive(Debug)]
pub struct Row<'a> {
    /// Nanoseconds since the epoch.
    pub ts_ns: i64,
    /// As stored, or as a stage made it.
    pub line: Cow<'a, str>,
    /// Its labels.
    pub labels: LabelSet<'a>,
}

/// A compiled pipeline.
#[derive(Debug, Default)]
pub struct Pipeline {
    prefix: Vec<LineFilter>,
    stages: Vec<Stage>,
}

#[derive(Debug)]
enum Stage {
    Line(LineFilter),
    Parse(Parser),
    Unpack,
    Filter(LabelFilter),
    LineFormat(Template),
    LabelFormat(Vec<(String, Source)>),
    Decolorize,
    Drop(Vec<Pick>),
    Keep(Vec<Pick>),
}

#[derive(Debug)]
enum Source {
    Label(String),
    Template(Template),
}

#[derive(Debug)]
struct Pick {
    name: String,
    test: Option<Matcher>,
}

impl Pick {
    fn takes(&self, name: &str, value: &str) -> bool {
        self.name == name && self.test.as_ref().is_none_or(|test| test.matches(value))
    }
}

impl Pipeline {
    /// Compiles stages; what does not compile is a parse error at its place.
    pub fn new(stages: &[ast::Stage]) -> Result<Self> {
        let mut pipeline = Self::default();
        let mut line_changed = false;
        for stage in stages {
            let compiled = compile(&stage.kind).map_err(|reason| semantic_error(stage.span, reason))?;
            match compiled {
                Stage::Line(filter) if !line_changed => pipeline.prefix.push(filter),
                stage => {
                    // Colours are no barrier: the original, too, lets filters behind `decolorize` see the line with them.
                    line_changed |= matches!(stage, Stage::Unpack | Stage::LineFormat(_));
                    pipeline.stages.push(stage);
                }
            }
        }
        Ok(pipeline)
    }

    /// Whether entries leave as they came once the line filters have run.
    pub fn is_only_line_filters(&self) -> bool {
        self.stages.is_empty()
    }

    /// Whether a stage looks at the line.
    pub fn reads_line(&self) -> bool {
        let of_stage = |stage: &Stage| match stage {
            Stage::Line(_) | Stage::Parse(_) | Stage::Unpack | Stage::LineFormat(_) | Stage::Decolorize => true,
            // A template may name the line.
            Stage::LabelFormat(list) => list.iter().any(|(_, source)| matches!(source, Source::Template(_))),
            Stage::Filter(_) | Stage::Drop(_) | Stage::Keep(_) => false,
        };
        !self.prefix.is_empty() || self.stages.iter().any(of_stage)
    }

    /// Whether a filter names a failure: then failed entries are asked for.
    pub fn asks_for_errors(&self) -> bool {
        let mut names = Needs::Names(std::collections::BTreeSet::new());
        let filters = self.stages.iter().filter_map(|stage| match stage {
            Stage::Filter(filter) => Some(filter),
            _ => None,
        });
        filters.for_each(|filter| filter.add_needs(&mut names));
        names.wants(ERROR)
    }

    /// Adds the labels that stages read.
    pub fn add_needs(&self, needs: &mut Needs) {
        for stage in &self.stages {
            match stage {
                Stage::Line(_) | Stage::Parse(_) | Stage::Unpack | Stage::Decolorize => {}
                Stage::Filter(filter) => filter.add_needs(needs),
                Stage::LineFormat(template) => template.add_needs(needs),
                Stage::LabelFormat(list) => list.iter().for_each(|(name, source)| {
                    needs.add(name);
                    match source {
                        Source::Label(label) => needs.add(label),
                        Source::Template(template) => template.add_needs(needs),
                    }
                }),
                Stage::Drop(picks) | Stage::Keep(picks) => picks.iter().for_each(|pick| needs.add(&pick.name)),
            }
        }
    }

    /// The rows of a batch that pass the leading line filters.
    pub fn select(&self, lines: &StringArray) -> Vec<u32> {
        let selected = self.prefix.iter().fold(None, |rows, filter| Some(filter.select(lines, rows)));
        selected.unwrap_or_else(|| all_rows(lines.len()).collect())
    }

    /// Takes an entry that [`Pipeline::select`] kept through the stages; says whether it stays.
    pub fn run(&self, row: &mut Row<'_>) -> bool {
        self.stages.iter().all(|stage| stage.run(row))
    }
}

fn compile(kind: &StageKind) -> Result<Stage, String> {
    let picks = |list: &[LabelPick]| -> Result<Vec<Pick>, String> {
        list.iter()
            .map(|pick| match pick {
                LabelPick::Name(name) => Ok(Pick { name: name.clone(), test: None }),
                LabelPick::Test(test) => {
                    let matcher = Matcher::new(&test.name, test.op, &test.value);
                    let matcher = matcher.map_err(|error| error.message().to_owned())?;
                    Ok(Pick { name: test.name.clone(), test: Some(matcher) })
                }
            })
            .collect()
    };
    Ok(match kind {
        StageKind::LineFilter(op, needles) => Stage::Line(LineFilter::new(*op, needles)?),
        StageKind::Json(list) => Stage::Parse(Parser::json(list)?),
        StageKind::Logfmt { strict, keep_empty, extractions } => {
            Stage::Parse(Parser::logfmt(*strict, *keep_empty, extractions))
        }
        StageKind::Regexp(text) => Stage::Parse(Parser::regexp(text)?),
        StageKind::Pattern(text) => Stage::Parse(Parser::pattern(text)?),
        StageKind::Unpack => Stage::Unpack,
        StageKind::LabelFilter(filter) => Stage::Filter(LabelFilter::new(filter)?),
        StageKind::LineFormat(text) => Stage::LineFormat(Template::new(text)?),
        StageKind::LabelFormat(list) => {
            let compiled = list.iter().map(|assignment| {
                let source = match &assignment.source {
                    AssignmentSource::Label(label) => Source::Label(label.clone()),
                    AssignmentSource::Template(text) => Source::Template(Template::new(text)?),
                };
                Ok((assignment.name.clone(), source))
            });
            Stage::LabelFormat(compiled.collect::<Result<_, String>>()?)
        }
        StageKind::Decolorize => Stage::Decolorize,
        StageKind::Drop(list) => Stage::Drop(picks(list)?),
        StageKind::Keep(list) => Stage::Keep(picks(list)?),
    })
}

impl Stage {
    fn run(&self, row: &mut Row<'_>) -> bool {
        match self {
            Self::Line(filter) => return filter.keeps(&row.line),
            Self::Filter(filter) => return filter.keeps(&mut row.labels),
            Self::Parse(parser) => parser.run(&row.line, &mut row.labels),
            Self::Unpack => {
                if let Some(entry) = unpack(&row.line, &mut row.labels) {
                    row.line = Cow::Owned(entry);
                }
            }
            Self::LineFormat(template) => match render(template, row) {
                Ok(line) => row.line = Cow::Owned(line),
                Err(reason) => row.labels.set_error(TEMPLATE_ERROR, reason),
            },
            Self::LabelFormat(list) => list.iter().for_each(|(name, source)| format_label(row, name, source)),
            Self::Decolorize => {
                if let Cow::Owned(plain) = decolorized(&row.line) {
                    row.line = Cow::Owned(plain);
                }
            }
            Self::Drop(picks) => {
                for pick in picks {
                    if row.labels.get(&pick.name).is_some_and(|value| pick.takes(&pick.name, value)) {
                        row.labels.remove(&pick.name);
                    }
                }
            }
            Self::Keep(picks) => row.labels.retain(|name, value| picks.iter().any(|pick| pick.takes(name, value))),
        }
        true
    }
}

fn render(template: &Template, row: &Row<'_>) -> Result<String, String> {
    template.render(&Scope { labels: &row.labels, line: &row.line, ts_ns: row.ts_ns })
}

fn format_label(row: &mut Row<'_>, name: &str, source: &Source) {
    match source {
        Source::Label(label) => {
            if let Some(value) = row.labels.get(label).map(str::to_owned) {
                row.labels.set(name, value);
                row.labels.remove(label);
            }
        }
        Source::Template(template) => match render(template, row) {
            Ok(value) => row.labels.set(name, value),
            Err(reason) => row.labels.set_error(TEMPLATE_ERROR, reason),
        },
    }
}

/// A line without the escape sequences of terminals.
fn decolorized(line: &str) -> Cow<'_, str> {
    const ESCAPE: char = '\u{1b}';
    const CSI: char = '\u{9b}';
    if !line.contains([ESCAPE, CSI]) {
        return Cow::Borrowed(line);
    }
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find([ESCAPE, CSI]) {
        out.push_str(&rest[..at]);
        let single = rest[at..].strip_prefix(CSI);
        let after = single.or_else(|| rest[at..].strip_prefix(ESCAPE)).unwrap_or("");
        let control = single.or_else(|| after.strip_prefix('['));
        rest = match (control, after.strip_prefix(']')) {
            // Parameters and intermediates, then one final byte.
            (Some(body), _) => {
                let inside = body.bytes().take_while(|b| (0x20..0x40).contains(b)).count();
                body[inside..].strip_prefix(|c: char| ('@'..='~').contains(&c)).unwrap_or(&body[inside..])
            }
            // A title and the like, ended by BEL or ESC \.
            (None, Some(body)) => match body.find(['\u{7}', ESCAPE]) {
                Some(end) => body[end..].strip_prefix('\u{7}').or(body[end..].strip_prefix("\u{1b}\\")).unwrap_or(body),
                None => body,
            },
            (None, None) => after.strip_prefix(|c: char| c.is_ascii_alphanumeric()).unwrap_or(after),
        };
    }
    out.push_str(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_stripped() {
        for (line, expected) in [
            ("plain", "plain"),
            ("\u{1b}[31mred\u{1b}[0m x", "red x"),
            ("\u{1b}[1;38;5;196mx\u{1b}[K", "x"),
            ("\u{1b}]0;title\u{7}x", "x"),
            ("a\u{1b}", "a"),
            ("a\u{1b}[", "a"),
            ("\u{9b}31mé", "é"),
        ] {
            assert_eq!(decolorized(line), expected, "{line:?}");
        }
    }
}

//! What a pipeline proves about the stored rows that it keeps: told to the scan, so that it may read less.
//!
//! Owns: the proofs. Does not own: the filters themselves, which run on every row again (`eval::pipeline`).
//!
//! Line filters count as long as no stage has changed the line; tests on labels as long as no stage but `json` and
//! `logfmt` could have made, changed or dropped the label. Anything else proves nothing.

use regex_syntax::hir::{Hir, HirKind};
use storage::model::batch::DETECTED_LEVEL;
use storage::model::matcher::{MatchOp, Matcher};
use storage::scan::Conjunct;

use super::labels::{ERROR, ERROR_DETAILS, base_name};
use crate::logql::ast::{LabelFilter, LabelTest, LineNeedle, LineOp, Stage, StageKind};

/// Shorter literals of a regular expression stand in almost any line.
const LITERAL_MIN: usize = 3;
/// More values than this are not looked for in lines.
const VALUES_MAX: usize = 16;
/// What any escaped text of JSON or logfmt contains.
const ESCAPE: &str = "\\";

/// What a pipeline proves, as far as it is known without the streams.
#[derive(Debug, Default)]
pub struct Hints(Vec<Hint>);

#[derive(Debug)]
enum Hint {
    /// Of any row.
    Ready(Conjunct),
    /// The label has one of these values, none of which is "".
    Label {
        name: String,
        values: Vec<String>,
        /// Whether it may have been read from the line.
        parsed: bool,
    },
    /// All of at least one group.
    Any(Vec<Vec<Hint>>),
}

impl Hints {
    /// Of the stages of a pipeline.
    pub fn of(stages: &[Stage]) -> Self {
        let mut hints = Vec::new();
        let (mut line, mut labels, mut parsed) = (true, true, false);
        for stage in stages {
            match &stage.kind {
                StageKind::LineFilter(op, needles) if line => hints.extend(of_line_filter(*op, needles)),
                StageKind::LineFilter(..) => {}
                StageKind::LabelFilter(filter) if labels => hints.extend(of_label_filter(filter, parsed)),
                StageKind::LabelFilter(_) => {}
                StageKind::Json(list) if line && list.is_empty() => parsed = true,
                StageKind::Logfmt { extractions, .. } if line && extractions.is_empty() => parsed = true,
                // Line filters behind it see the line as it was; parsers do not.
                StageKind::Decolorize => labels = false,
                StageKind::LineFormat(_) => line = false,
                StageKind::Unpack => (line, labels) = (false, false),
                StageKind::Json(_)
                | StageKind::Logfmt { .. }
                | StageKind::Regexp(_)
                | StageKind::Pattern(_)
                | StageKind::LabelFormat(_)
                | StageKind::Drop(_)
                | StageKind::Keep(_) => labels = false,
            }
        }
        Self(hints)
    }

    /// In the terms of stored columns, for streams of which some have the labels that `in_stream` says.
    pub fn conjuncts(&self, in_stream: &dyn Fn(&str) -> bool) -> Vec<Conjunct> {
        self.0.iter().filter_map(|hint| hint.resolve(in_stream)).collect()
    }
}

impl Hint {
    fn resolve(&self, in_stream: &dyn Fn(&str) -> bool) -> Option<Conjunct> {
        match self {
            Self::Ready(conjunct) => Some(conjunct.clone()),
            Self::Any(groups) => {
                let groups: Vec<Vec<Conjunct>> = groups
                    .iter()
                    .map(|group| group.iter().filter_map(|hint| hint.resolve(in_stream)).collect())
                    .collect();
                (!groups.iter().any(Vec::is_empty)).then_some(Conjunct::AnyOf(groups))
            }
            Self::Label { name, values, parsed } => {
                // A label of the stream is no matter of the row, and gives others their names.
                if in_stream(name) || base_name(name).is_some_and(in_stream) {
                    return None;
                }
                let stored = of_metadata(name, values);
                if !parsed {
                    return stored;
                }
                // A name that gave way may come from anywhere.
                if base_name(name).is_some() {
                    return None;
                }
                let plain = |value: &String| {
                    value.len() >= LITERAL_MIN
                        && value
                            .bytes()
                            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/' | b':'))
                };
                if values.len() > VALUES_MAX || !values.iter().all(plain) {
                    return None;
                }
                let texts = values.iter().map(String::as_str).chain([ESCAPE]);
                let in_line = texts.map(|text| vec![contains(text)]);
                Some(Conjunct::AnyOf(in_line.chain([vec![stored?]]).collect()))
            }
        }
    }
}

fn contains(text: &str) -> Conjunct {
    Conjunct::Contains { column: "line", text: text.into() }
}

/// Structured metadata `name` has one of `values`.
fn of_metadata(name: &str, values: &[String]) -> Option<Conjunct> {
    if matches!(name, ERROR | ERROR_DETAILS) {
        return None;
    }
    let texts = || values.iter().map(|value| value.as_str().into()).collect();
    if name == DETECTED_LEVEL {
        return Some(Conjunct::TextIn { column: "severity", texts: texts() });
    }
    let in_map = Conjunct::EntryIn { column: "metadata", key: name.into(), values: texts() };
    let (column, length) = match name {
        "trace_id" => ("trace_id", 32),
        "span_id" => ("span_id", 16),
        _ => return Some(in_map),
    };
    // Ids in their usual form stand in columns of their own, others in the map.
    let bytes: Vec<Box<[u8]>> = values.iter().filter_map(|value| lower_hex(value, length)).collect();
    let in_column = Conjunct::BytesIn { column, values: bytes.as_slice().into() };
    Some(match bytes.len() {
        0 => in_map,
        n if n == values.len() => in_column,
        _ => Conjunct::AnyOf(vec![vec![in_column], vec![in_map]]),
    })
}

/// The bytes of a text that is just as these are printed.
fn lower_hex(text: &str, length: usize) -> Option<Box<[u8]>> {
    let bytes = hex::decode(text).ok().filter(|_| text.len() == length)?;
    (hex::encode(&bytes) == text).then(|| bytes.into())
}

fn of_label_filter(filter: &LabelFilter, parsed: bool) -> Vec<Hint> {
    match filter {
        LabelFilter::And(list) => list.iter().flat_map(|filter| of_label_filter(filter, parsed)).collect(),
        LabelFilter::Or(list) => {
            let groups: Vec<Vec<Hint>> = list.iter().map(|filter| of_label_filter(filter, parsed)).collect();
            let all = !groups.iter().any(Vec::is_empty);
            all.then_some(Hint::Any(groups)).into_iter().collect()
        }
        LabelFilter::Text(test) => of_test(test, parsed).into_iter().collect(),
        LabelFilter::Number(..) | LabelFilter::Duration(..) | LabelFilter::Bytes(..) | LabelFilter::Ip(..) => {
            Vec::new()
        }
    }
}

fn of_test(test: &LabelTest, parsed: bool) -> Option<Hint> {
    if !matches!(test.op, MatchOp::Equal | MatchOp::Regex) {
        return None;
    }
    let matcher = Matcher::new(&test.name, test.op, &test.value).ok()?;
    let values: Vec<String> = matcher.accepted()?.into_iter().map(str::to_owned).collect();
    let missing_passes = values.is_empty() || values.iter().any(String::is_empty);
    (!missing_passes).then(|| Hint::Label { name: test.name.clone(), values, parsed })
}

fn of_line_filter(op: LineOp, needles: &[LineNeedle]) -> Vec<Hint> {
    let group = |needle: &LineNeedle| {
        let LineNeedle::Text(text) = needle else { return Vec::new() };
        match op {
            LineOp::Contains if !text.is_empty() => vec![contains(text)],
            LineOp::Regex => {
                let hir = regex_syntax::Parser::new().parse(text);
                let literals = hir.map(|hir| literals_of(&hir)).unwrap_or_default();
                literals.iter().map(|literal| contains(literal)).collect()
            }
            _ => Vec::new(),
        }
    };
    let mut groups: Vec<Vec<Conjunct>> = needles.iter().map(group).collect();
    if groups.iter().any(Vec::is_empty) {
        return Vec::new();
    }
    let all = match groups.len() {
        1 => groups.remove(0),
        _ => vec![Conjunct::AnyOf(groups)],
    };
    all.into_iter().map(Hint::Ready).collect()
}

/// Texts that every match contains; not all of them.
fn literals_of(hir: &Hir) -> Vec<String> {
    match hir.kind() {
        HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
            Ok(text) if text.len() >= LITERAL_MIN => vec![text.to_owned()],
            _ => Vec::new(),
        },
        HirKind::Concat(parts) => parts.iter().flat_map(literals_of).collect(),
        HirKind::Capture(capture) => literals_of(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => literals_of(&repetition.sub),
        HirKind::Empty | HirKind::Class(_) | HirKind::Look(_) | HirKind::Repetition(_) | HirKind::Alternation(_) => {
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logql::ast::Expr;

    fn conjuncts(pipeline: &str, stream_labels: &[&str]) -> Vec<Conjunct> {
        let Ok(Expr::Log(log)) = crate::logql::parser::parse(&format!("{{app=\"x\"}} {pipeline}")) else {
            panic!("{pipeline} does not parse")
        };
        Hints::of(&log.stages).conjuncts(&|name| stream_labels.contains(&name))
    }

    fn all(list: &[&str]) -> Vec<Conjunct> {
        list.iter().map(|text| contains(text)).collect()
    }

    #[test]
    fn line_filters_count_until_the_line_changes() {
        assert_eq!(conjuncts(r#"|= "a" | json |= "b" | line_format "x" |= "c""#, &[]), all(&["a", "b"]));
        assert_eq!(conjuncts(r#"!= "a" |= "" |= ip("10.0.0.1") |> "<_>x" !~ "abc""#, &[]), []);
        let either = Conjunct::AnyOf(vec![all(&["a"]), all(&["b"])]);
        assert_eq!(conjuncts(r#"|= "a" or "b""#, &[]), [either]);
        assert_eq!(conjuncts(r#"|= "a" or """#, &[]), []);
    }

    #[test]
    fn regular_expressions_give_the_literals_that_each_match_has() {
        assert_eq!(conjuncts(r#"|~ "timeout after [0-9]{4,}ms""#, &[]), all(&["timeout after "]));
        assert_eq!(conjuncts(r#"|~ "abc.*(def)+""#, &[]), all(&["abc", "def"]));
        for none in ["(?i)abc", "abc|def", "(abc)?", "(abc)*x", ".*", "ab", "(?:abc){0,2}"] {
            assert_eq!(conjuncts(&format!("|~ `{none}`"), &[]), [], "{none}");
        }
        assert_eq!(conjuncts("|~ `^abc$`", &[]), all(&["abc"]));
        assert_eq!(conjuncts(r"|~ `a\.b\.c`", &[]), all(&["a.b.c"]));
    }

    #[test]
    fn tests_on_labels_count_where_only_the_row_can_have_them() {
        let pod = |values: &[&str]| Conjunct::EntryIn {
            column: "metadata",
            key: "pod".into(),
            values: values.iter().map(|value| (*value).into()).collect(),
        };
        assert_eq!(conjuncts(r#"| pod="a""#, &[]), [pod(&["a"])]);
        assert_eq!(conjuncts(r#"| pod=~"a|b""#, &[]), [pod(&["a", "b"])]);
        assert_eq!(conjuncts(r#"| pod="a" or x > 5"#, &[]), []);
        assert_eq!(conjuncts(r#"| pod="a""#, &["pod"]), [], "the stream has it");
        assert_eq!(conjuncts(r#"| pod_extracted="a""#, &["pod"]), [], "it gave way");
        for none in [
            r#"| pod="""#,
            r#"| pod!="a""#,
            r#"| pod=~"a.*""#,
            r#"| drop x | pod="a""#,
            r#"| pattern "<pod> <_>" | pod="a""#,
        ] {
            assert_eq!(conjuncts(none, &[]), [], "{none}");
        }
        let level = Conjunct::TextIn { column: "severity", texts: ["error".into()].into() };
        assert_eq!(conjuncts(r#"| detected_level="error""#, &[]), [level]);
        let id = "0af7651916cd43dd8448eb211c80319c";
        let bytes = Conjunct::BytesIn { column: "trace_id", values: [hex::decode(id).expect("hex").into()].into() };
        assert_eq!(conjuncts(&format!("| trace_id=`{id}`"), &[]), [bytes]);
        let upper = conjuncts(&format!("| trace_id=`{}`", id.to_uppercase()), &[]);
        assert!(matches!(upper[..], [Conjunct::EntryIn { .. }]), "what is no id stands in the map");
    }

    #[test]
    fn fields_of_a_line_are_looked_for_in_it() {
        let found = conjuncts(r#"| json | status="500""#, &[]);
        let stored = Conjunct::EntryIn { column: "metadata", key: "status".into(), values: ["500".into()].into() };
        assert_eq!(found, [Conjunct::AnyOf(vec![all(&["500"]), all(&["\\"]), vec![stored]])]);
        for none in [
            r#"| json | status="5""#,
            r#"| json | status="a b""#,
            r#"| json a="b" | status="500""#,
            r#"| decolorize | json | status="500""#,
            r#"| line_format "{{.x}}" | json | status="500""#,
        ] {
            assert_eq!(conjuncts(none, &[]), [], "{none}");
        }
    }
}

//! Label filters within a pipeline.
//!
//! Owns: how a label's text becomes a number, a duration or a size, and what a failure means.

use storage::model::matcher::{MatchOp, Matcher};

use super::ip::IpSet;
use super::labels::{LabelSet, Needs};
use crate::logql::ast::{self, CompareOp};
use crate::logql::units;

/// The error of a label that is no number.
const LABEL_FILTER_ERROR: &str = "LabelFilterErr";

/// A compiled label filter.
#[derive(Clone, Debug)]
pub enum LabelFilter {
    /// All hold.
    And(Vec<LabelFilter>),
    /// One holds.
    Or(Vec<LabelFilter>),
    /// On the text; a missing label is "".
    Text(Matcher),
    /// On the text: a literal with `.*` beside it.
    Contains(Contains),
    /// On what the text means.
    Number(NumberTest),
    /// On the address.
    Ip(String, bool, IpSet),
}

/// A comparison of what a label's text means.
#[derive(Clone, Debug)]
pub struct NumberTest {
    label: String,
    op: CompareOp,
    right: Quantity,
}

#[derive(Clone, Copy, Debug)]
enum Quantity {
    Number(f64),
    DurationNs(i64),
    Bytes(u64),
}

impl LabelFilter {
    /// Compiles a filter; the error says what does not compile.
    pub fn new(filter: &ast::LabelFilter) -> Result<Self, String> {
        let all = |list: &[ast::LabelFilter]| list.iter().map(Self::new).collect::<Result<Vec<_>, _>>();
        let test = |label: &str, op, right| Self::Number(NumberTest { label: label.to_owned(), op, right });
        Ok(match filter {
            ast::LabelFilter::And(list) => Self::And(all(list)?),
            ast::LabelFilter::Or(list) => Self::Or(all(list)?),
            ast::LabelFilter::Text(test) => {
                if let Some(contains) = Contains::of(test) {
                    return Ok(Self::Contains(contains));
                }
                let matcher = Matcher::new(&test.name, test.op, &test.value);
                Self::Text(matcher.map_err(|error| error.message().to_owned())?)
            }
            ast::LabelFilter::Number(label, op, n) => test(label, *op, Quantity::Number(*n)),
            ast::LabelFilter::Duration(label, op, ns) => test(label, *op, Quantity::DurationNs(*ns)),
            ast::LabelFilter::Bytes(label, op, bytes) => {
                test(label, *op, Quantity::Bytes(units::rounded_bytes(*bytes)))
            }
            ast::LabelFilter::Ip(label, negated, set) => Self::Ip(label.clone(), *negated, IpSet::parse(set)?),
        })
    }

    /// Whether the entry stays.
    pub fn keeps(&self, labels: &mut LabelSet<'_>) -> bool {
        match self {
            Self::And(list) => list.iter().all(|filter| filter.keeps(labels)),
            Self::Or(list) => list.iter().any(|filter| filter.keeps(labels)),
            Self::Text(matcher) => matcher.matches(labels.get(&matcher.name).unwrap_or("")),
            Self::Contains(test) => labels.get(&test.label).unwrap_or("").contains(&test.literal) != test.negated,
            Self::Number(test) => test.keeps(labels),
            Self::Ip(label, negated, set) => {
                labels.get(label).is_some_and(|value| set.contains_text(value) != *negated)
            }
        }
    }

    /// Adds the labels it reads.
    pub fn add_needs(&self, needs: &mut Needs) {
        match self {
            Self::And(list) | Self::Or(list) => list.iter().for_each(|filter| filter.add_needs(needs)),
            Self::Text(matcher) => needs.add(&matcher.name),
            Self::Contains(test) => needs.add(&test.label),
            Self::Number(test) => needs.add(&test.label),
            Self::Ip(label, ..) => needs.add(label),
        }
    }
}

/// `a=~"x.*"`, `a=~".*x"` and the like. The original simplifies these to a search and forgets the anchors, so that
/// `x` may stand anywhere; saved queries rely on it.
#[derive(Clone, Debug)]
pub struct Contains {
    label: String,
    literal: String,
    negated: bool,
}

impl Contains {
    fn of(test: &ast::LabelTest) -> Option<Self> {
        let negated = match test.op {
            MatchOp::Regex => false,
            MatchOp::NotRegex => true,
            MatchOp::Equal | MatchOp::NotEqual => return None,
        };
        let open = test.value.strip_prefix(".*").unwrap_or(&test.value);
        let literal = open.strip_suffix(".*").unwrap_or(open);
        let plain = !literal.is_empty() && !literal.contains(|c: char| "\\.+*?()[]{}^$|".contains(c));
        let opened = literal.len() < test.value.len();
        (plain && opened).then(|| Self { label: test.name.clone(), literal: literal.to_owned(), negated })
    }
}

impl NumberTest {
    fn keeps(&self, labels: &mut LabelSet<'_>) -> bool {
        let Some(value) = labels.get(&self.label) else { return false };
        let holds = match self.right {
            Quantity::Number(right) => parse_float(value).map(|left| self.op.holds(left, right)),
            Quantity::DurationNs(right) => units::parse_go_duration(value).map(|left| self.op.holds(left, right)),
            Quantity::Bytes(right) => units::parse_bytes(value).map(|left| self.op.holds(left, right)),
        };
        if holds.is_none() && !labels.has_error() {
            let details = format!("cannot compare the value {value:?} of label {}", self.label);
            labels.set_error(LABEL_FILTER_ERROR, details);
        }
        holds.unwrap_or(true)
    }
}

/// Reads a label as a number, as Go's `strconv.ParseFloat` does.
pub fn parse_float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let named = matches!(unsigned.to_ascii_lowercase().as_str(), "inf" | "infinity" | "nan");
    (named || unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logql::ast::{Expr, StageKind};
    use crate::logql::eval::labels::ERROR;

    fn check(filter: &str, labels: &[(&str, &str)], expected: (bool, Option<&str>)) {
        let Ok(Expr::Log(log)) = crate::logql::parser::parse(&format!("{{x=\"y\"}} | {filter}")) else {
            panic!("{filter} does not parse")
        };
        let StageKind::LabelFilter(parsed) = &log.stages[0].kind else { panic!("{filter} is no label filter") };
        let pairs: Vec<(String, String)> = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let mut set = LabelSet::new(&pairs, &Needs::All);
        let kept = LabelFilter::new(parsed).unwrap().keeps(&mut set);
        assert_eq!((kept, set.get(ERROR)), expected, "{filter} on {labels:?}");
    }

    #[test]
    fn the_right_side_decides_the_kind() {
        let err = Some(LABEL_FILTER_ERROR);
        check("a=\"1\"", &[("a", "1")], (true, None));
        check("a=\"\"", &[], (true, None));
        check("a!=\"x\"", &[], (true, None));
        check("a=~\"1.\"", &[("a", "123")], (false, None));
        check("a > 1", &[("a", "2.5e0")], (true, None));
        check("a == 1", &[("a", "1.0")], (true, None));
        check("a > 1", &[], (false, None));
        check("a > 1", &[("a", "5ms")], (true, err));
        check("a > 1h", &[("a", "200")], (true, err));
        check("a >= 150ms", &[("a", "0.15s")], (true, None));
        check("a > 1KB", &[("a", "12 KB")], (true, None));
        check("a = 4200B", &[("a", "4.2kB")], (true, None));
        check("a = ip(\"10.0.0.0/8\")", &[("a", "10.1.1.1")], (true, None));
        check("a != ip(\"10.0.0.0/8\")", &[("a", "x")], (true, None));
        check("a != ip(\"10.0.0.0/8\")", &[], (false, None));
    }

    #[test]
    fn joins_bind_and_before_or() {
        check("a=\"1\" and b=\"2\" or c=\"3\"", &[("c", "3")], (true, None));
        check("a=\"1\" and (b=\"2\" or c=\"3\")", &[("c", "3")], (false, None));
        check("a=\"1\", b=\"2\"", &[("a", "1"), ("b", "2")], (true, None));
    }

    #[test]
    fn an_earlier_error_stays() {
        let pairs = [("a".to_owned(), "x".to_owned())];
        let mut set = LabelSet::new(&pairs, &Needs::All);
        set.set_error("JSONParserErr", "");
        let number = |label: &str| ast::LabelFilter::Number(label.to_owned(), CompareOp::Greater, 1.0);
        assert!(LabelFilter::new(&number("a")).unwrap().keeps(&mut set));
        assert_eq!(set.get(ERROR), Some("JSONParserErr"));
        assert!(!LabelFilter::new(&number("b")).unwrap().keeps(&mut set), "a missing label drops failed entries, too");
    }

    #[test]
    fn sizes_in_queries_are_rounded_and_open_ends_are_open() {
        check("a >= 30KiB", &[("a", "30KiB")], (false, None));
        check("a > 3MiB", &[("a", "3MiB")], (true, None));
        check("a = 42B", &[("a", "42B")], (true, None));
        check("a =~ \"b.*\"", &[("a", "abc")], (true, None));
        check("a =~ \".*b\"", &[("a", "abc")], (true, None));
        check("a !~ \"b.*\"", &[("a", "abc")], (false, None));
        check("a =~ \"b.*c\"", &[("a", "abc")], (false, None));
        check("a =~ \"b.+\"", &[("a", "abc")], (false, None));
    }
}

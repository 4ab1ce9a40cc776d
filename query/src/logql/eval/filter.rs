//! Line filters: on the Arrow buffers of a whole batch, and on single lines behind stages that change them.
//!
//! Owns: compiling the needles, finding the rows. Invariant: both ways keep the same rows.

use aho_corasick::AhoCorasick;
use arrow::array::{Array, StringArray};
use memchr::memmem::Finder;
use regex::Regex;
use storage::model::matcher::compile_unanchored;

use super::ip::IpSet;
use super::pattern::Pattern;
use crate::logql::ast::{LineNeedle, LineOp};

/// How many texts make one automaton cheaper than one search each.
const AUTOMATON_MIN: usize = 4;

/// A compiled line filter.
#[derive(Clone, Debug)]
pub struct LineFilter {
    negated: bool,
    needles: Vec<Needle>,
}

#[derive(Clone, Debug)]
enum Needle {
    /// Always found.
    Everything,
    Text(Box<Finder<'static>>),
    Texts(AhoCorasick),
    Regex(Regex),
    Pattern(Pattern),
    Ip(IpSet),
}

impl Needle {
    fn found_in(&self, line: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Text(finder) => finder.find(line.as_bytes()).is_some(),
            Self::Texts(automaton) => automaton.is_match(line),
            Self::Regex(regex) => regex.is_match(line),
            Self::Pattern(pattern) => pattern.matches(line),
            Self::Ip(set) => set.found_in(line),
        }
    }
}

impl LineFilter {
    /// Compiles `op` with its alternatives; the error says why a needle is none.
    pub fn new(op: LineOp, needles: &[LineNeedle]) -> Result<Self, String> {
        let compiled: Result<Vec<Needle>, String> = needles.iter().map(|needle| compile(op, needle)).collect();
        let mut compiled = compiled?;
        let texts: Vec<&[u8]> = compiled
            .iter()
            .filter_map(|needle| match needle {
                Needle::Text(finder) => Some(finder.needle()),
                _ => None,
            })
            .collect();
        if texts.len() >= AUTOMATON_MIN {
            let automaton = AhoCorasick::new(&texts).map_err(|error| error.to_string())?;
            compiled.retain(|needle| !matches!(needle, Needle::Text(_)));
            compiled.push(Needle::Texts(automaton));
        }
        Ok(Self { negated: op.negated(), needles: compiled })
    }

    /// Whether `line` stays.
    pub fn keeps(&self, line: &str) -> bool {
        self.needles.iter().any(|needle| needle.found_in(line)) != self.negated
    }

    /// The rows of a batch that stay, out of `rows`, or out of all if `None`.
    pub fn select(&self, lines: &StringArray, rows: Option<Vec<u32>>) -> Vec<u32> {
        match (rows, self.needles.as_slice(), self.negated) {
            (None, [Needle::Text(finder)], false) => search_all(finder, lines),
            (None, _, _) => all_rows(lines.len()).filter(|row| self.keeps(lines.value(*row as usize))).collect(),
            (Some(mut rows), _, _) => {
                rows.retain(|row| self.keeps(lines.value(*row as usize)));
                rows
            }
        }
    }
}

/// Row numbers of a batch; a batch never has more than `u32::MAX` rows.
pub fn all_rows(rows: usize) -> impl Iterator<Item = u32> {
    0..u32::try_from(rows).unwrap_or(u32::MAX)
}

fn compile(op: LineOp, needle: &LineNeedle) -> Result<Needle, String> {
    let text = match needle {
        LineNeedle::Ip(set) => return Ok(Needle::Ip(IpSet::parse(set)?)),
        LineNeedle::Text(text) => text,
    };
    Ok(match op {
        LineOp::Contains | LineOp::NotContains if text.is_empty() => Needle::Everything,
        LineOp::Contains | LineOp::NotContains => Needle::Text(Box::new(Finder::new(text.as_bytes()).into_owned())),
        LineOp::Regex | LineOp::NotRegex => {
            let regex = compile_unanchored(text).map_err(|error| error.message().to_owned())?;
            if text.is_empty() || text == ".*" { Needle::Everything } else { Needle::Regex(regex) }
        }
        LineOp::Pattern | LineOp::NotPattern => Needle::Pattern(Pattern::for_filter(text)?),
    })
}

/// One search over the text of all rows at once; a hit across a border of rows is none.
fn search_all(finder: &Finder<'_>, lines: &StringArray) -> Vec<u32> {
    let offsets = lines.value_offsets();
    let bytes = lines.value_data();
    let place = |row: usize| usize::try_from(offsets[row]).unwrap_or(0);
    let mut found = Vec::new();
    let rows = lines.len();
    let (mut row, mut at) = (0, place(0));
    let end = place(rows);
    while let Some(hit) = finder.find(&bytes[at..end]).map(|hit| at + hit) {
        // The row in which the hit begins.
        row += offsets[row + 1..=rows].partition_point(|offset| usize::try_from(*offset).unwrap_or(0) <= hit);
        if hit + finder.needle().len() <= place(row + 1) {
            found.extend(u32::try_from(row).ok());
            at = place(row + 1);
        } else {
            at = hit + 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(op: LineOp, texts: &[&str]) -> LineFilter {
        let needles: Vec<LineNeedle> = texts.iter().map(|text| LineNeedle::Text((*text).to_owned())).collect();
        LineFilter::new(op, &needles).unwrap()
    }

    #[test]
    fn operators_keep_the_lines_of_the_contract() {
        let lines = ["", "abc", "ABC", "a\nb", "xyz"];
        for (op, texts, kept) in [
            (LineOp::Contains, &["b"][..], &["abc", "a\nb"][..]),
            (LineOp::NotContains, &["b"], &["", "ABC", "xyz"]),
            (LineOp::Contains, &[""], &lines),
            (LineOp::NotContains, &[""], &[]),
            (LineOp::Contains, &["b", "x"], &["abc", "a\nb", "xyz"]),
            (LineOp::NotContains, &["b", "x"], &["", "ABC"]),
            (LineOp::Contains, &["b", "x", "q", "C", "r"], &["abc", "ABC", "a\nb", "xyz"]),
            (LineOp::Regex, &[".*"], &lines),
            (LineOp::Regex, &[".+"], &["abc", "ABC", "a\nb", "xyz"]),
            (LineOp::NotRegex, &[".+"], &[""]),
            (LineOp::Regex, &["(?i)abc"], &["abc", "ABC"]),
            (LineOp::Regex, &["a.b"], &[]),
            (LineOp::Regex, &["(?s)a.b"], &["a\nb"]),
            (LineOp::Regex, &["^b"], &[]),
            (LineOp::Regex, &["(?m)^b"], &["a\nb"]),
            (LineOp::Pattern, &["<_>b<_>"], &["abc"]),
            (LineOp::NotPattern, &["<_>b<_>"], &["", "ABC", "a\nb", "xyz"]),
        ] {
            let filter = filter(op, texts);
            let got: Vec<&str> = lines.into_iter().filter(|line| filter.keeps(line)).collect();
            assert_eq!(got, kept, "{op:?} {texts:?}");
        }
        assert!(LineFilter::new(LineOp::Regex, &[LineNeedle::Text("(".to_owned())]).is_err());
    }

    proptest! {
        #[test]
        fn a_batch_keeps_what_its_lines_keep(
            lines in proptest::collection::vec("[ab]{0,5}", 0..20), needle in "[ab]{1,3}", skip in 0_usize..5,
        ) {
            let filter = filter(LineOp::Contains, &[&needle]);
            let array = StringArray::from(lines);
            let array = array.slice(skip.min(array.len()), array.len() - skip.min(array.len()));
            let expected: Vec<u32> = all_rows(array.len()).filter(|row| filter.keeps(array.value(*row as usize))).collect();
            prop_assert_eq!(filter.select(&array, None), expected);
        }
    }
}

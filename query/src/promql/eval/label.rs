//! Functions that write labels.

use storage::model::labels::{Labels, METRIC_NAME};

use super::super::lexer::{is_broken, quote};
use super::value::{Evaluated, Vector};
use super::{Call, Evaluator, merged, missing, take_vector};
use crate::error::{Error, Kind, Result};

type Args = Vec<Evaluated>;

fn execution(message: String) -> Error {
    Error::new(Kind::Execution, message)
}

/// Whether a label may have this name: any text that is not empty.
pub(super) fn is_label_name(name: &str) -> bool {
    !name.is_empty() && !is_broken(name)
}

/// `name` as errors print it between no quotes.
fn bare(name: &str) -> String {
    let quoted = quote(name);
    quoted[1..quoted.len() - 1].to_owned()
}

fn texts(args: Args) -> Result<(Vector, Vec<String>)> {
    let mut args = args.into_iter();
    let vector = take_vector(&mut args.next().into_iter().collect())?;
    let texts = args.map(|arg| match arg {
        Evaluated::Text(text) => Ok(text),
        _ => Err(missing()),
    });
    Ok((vector, texts.collect::<Result<_>>()?))
}

/// Gives every series the labels that `change` makes; an empty result removes the label `dst`.
fn rewrite(mut vector: Vector, dst: &str, change: impl Fn(&Labels) -> Option<String>) -> Result<Evaluated> {
    for series in &mut vector.series {
        if let Some(value) = change(&series.labels) {
            series.labels = series.labels.with(dst, &value);
            // A name that was written is not the one to be dropped.
            if dst == METRIC_NAME {
                series.drop_name = false;
            }
        }
    }
    vector.series = merged(vector.series)?;
    Ok(Evaluated::Vector(vector))
}

/// `label_replace(v, dst, replacement, src, regex)`
pub(in crate::promql) fn label_replace(_: &mut Evaluator<'_>, _: &Call<'_>, args: Args) -> Result<Evaluated> {
    let (vector, texts) = texts(args)?;
    let [dst, replacement, src, pattern] = texts.as_slice() else { return Err(missing()) };
    let regex = storage::model::matcher::compile_unanchored(&format!("^(?s:{pattern})$"))
        .map_err(|_| execution(format!("invalid regular expression in label_replace(): {pattern}")))?;
    if !is_label_name(dst) {
        return Err(execution(format!("invalid destination label name in label_replace(): {}", bare(dst))));
    }
    let template = template(replacement);
    rewrite(vector, dst, |labels| {
        let value = labels.get(src).unwrap_or("");
        let groups = regex.captures(value)?;
        let mut out = String::new();
        for part in &template {
            match part {
                Part::Still(text) => out.push_str(text),
                Part::Numbered(n) => out.push_str(groups.get(*n).map_or("", |group| group.as_str())),
                Part::Named(name) => out.push_str(groups.name(name).map_or("", |group| group.as_str())),
            }
        }
        Some(out)
    })
}

enum Part {
    Still(String),
    Numbered(usize),
    Named(String),
}

/// Reads `$1`, `${name}` and `$$`; a dollar before anything else stands for itself.
fn template(text: &str) -> Vec<Part> {
    let mut out = Vec::new();
    let mut still = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        still.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            still.push('$');
            rest = tail;
            continue;
        }
        let found = match after.strip_prefix('{') {
            Some(inner) => inner.find('}').map(|end| (&inner[..end], &inner[end + 1..])),
            None => {
                let end = after.find(|c: char| !(c == '_' || c.is_alphanumeric())).unwrap_or(after.len());
                Some((&after[..end], &after[end..]))
            }
        };
        let word = |name: &str| !name.is_empty() && name.chars().all(|c| c == '_' || c.is_alphanumeric());
        match found.filter(|(name, _)| word(name)) {
            Some((name, tail)) => {
                out.push(Part::Still(std::mem::take(&mut still)));
                let digits = name.bytes().all(|b| b.is_ascii_digit());
                out.push(match name.parse() {
                    Ok(n) if digits => Part::Numbered(n),
                    _ => Part::Named(name.to_owned()),
                });
                rest = tail;
            }
            None => {
                still.push('$');
                rest = after;
            }
        }
    }
    still.push_str(rest);
    out.push(Part::Still(still));
    out
}

/// `label_join(v, dst, separator, src…)`
pub(in crate::promql) fn label_join(_: &mut Evaluator<'_>, _: &Call<'_>, args: Args) -> Result<Evaluated> {
    let (vector, texts) = texts(args)?;
    let [dst, separator, sources @ ..] = texts.as_slice() else { return Err(missing()) };
    if let Some(bad) = sources.iter().find(|name| !is_label_name(name)) {
        return Err(execution(format!("invalid source label name in label_join(): {}", bare(bad))));
    }
    if !is_label_name(dst) {
        return Err(execution(format!("invalid destination label name in label_join(): {}", bare(dst))));
    }
    rewrite(vector, dst, |labels| {
        let values: Vec<&str> = sources.iter().map(|name| labels.get(name).unwrap_or("")).collect();
        Some(values.join(separator))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_read_as_go_reads_them() {
        let shown = |text: &str| -> String {
            let part = |part: &Part| match part {
                Part::Still(text) => text.clone(),
                Part::Numbered(n) => format!("<{n}>"),
                Part::Named(name) => format!("<{name}>"),
            };
            template(text).iter().map(part).collect()
        };
        assert_eq!(shown("$1-${2}x$$"), "<1>-<2>x$");
        assert_eq!(shown("$1x ${a} $"), "<1x> <a> $");
        assert_eq!(shown("${a"), "${a");
    }
}

//! Functions that order the elements of an instant query.

use std::cmp::Ordering;

use storage::model::labels::Labels;

use super::value::{Evaluated, Series};
use super::{Call, Evaluator, take_vector};
use crate::error::Result;

type Args = Vec<Evaluated>;

const INEFFECTIVE: &str = "sort is ineffective for range queries since results are always ordered by labels";

fn by_value(e: &mut Evaluator<'_>, call: &Call<'_>, mut args: Args, descending: bool) -> Result<Evaluated> {
    let mut vector = take_vector(&mut args)?;
    for series in &mut vector.series {
        for i in 0..series.column.len() {
            if series.column.float(i).is_none() {
                series.column.clear(i);
            }
        }
    }
    vector.series.retain(|series| series.column.present() > 0);
    if e.plan.is_range {
        e.notices.warn(e.at(call.id), INEFFECTIVE);
    } else {
        let value = |series: &Series| series.column.float(0).unwrap_or(f64::NAN);
        vector.series.sort_by(|a, b| nan_last(value(a), value(b), descending).then_with(|| a.labels.cmp(&b.labels)));
    }
    Ok(Evaluated::Vector(vector))
}

/// The order of values with NaN last, whatever the direction.
pub(super) fn nan_last(a: f64, b: f64, descending: bool) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) => {
            let order = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
            if descending { order.reverse() } else { order }
        }
        (a, b) => a.cmp(&b),
    }
}

/// `sort(v)`
pub(in crate::promql) fn sort(e: &mut Evaluator<'_>, call: &Call<'_>, args: Args) -> Result<Evaluated> {
    by_value(e, call, args, false)
}

/// `sort_desc(v)`
pub(in crate::promql) fn sort_desc(e: &mut Evaluator<'_>, call: &Call<'_>, args: Args) -> Result<Evaluated> {
    by_value(e, call, args, true)
}

fn by_label(e: &mut Evaluator<'_>, call: &Call<'_>, args: Args, descending: bool) -> Result<Evaluated> {
    let mut args = args.into_iter();
    let mut vector = take_vector(&mut args.next().into_iter().collect())?;
    if e.plan.is_range {
        e.notices.warn(e.at(call.id), INEFFECTIVE);
        return Ok(Evaluated::Vector(vector));
    }
    let names: Vec<String> = args
        .filter_map(|arg| match arg {
            Evaluated::Text(name) => Some(name),
            _ => None,
        })
        .collect();
    vector.series.sort_by(|a, b| {
        let order = compare(&a.labels, &b.labels, &names);
        if descending { order.reverse() } else { order }
    });
    Ok(Evaluated::Vector(vector))
}

fn compare(a: &Labels, b: &Labels, names: &[String]) -> Ordering {
    for name in names {
        let order = natural(a.get(name).unwrap_or(""), b.get(name).unwrap_or(""));
        if order != Ordering::Equal {
            return order;
        }
    }
    a.cmp(b)
}

/// `sort_by_label(v, l…)`
pub(in crate::promql) fn sort_by_label(e: &mut Evaluator<'_>, call: &Call<'_>, args: Args) -> Result<Evaluated> {
    by_label(e, call, args, false)
}

/// `sort_by_label_desc(v, l…)`
pub(in crate::promql) fn sort_by_label_desc(e: &mut Evaluator<'_>, call: &Call<'_>, args: Args) -> Result<Evaluated> {
    by_label(e, call, args, true)
}

/// The natural order of texts: runs of digits compare as numbers.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (x, y) = (chunk(a), chunk(b));
        if x.is_empty() || y.is_empty() {
            return x.len().cmp(&y.len());
        }
        let numbers = x.as_bytes()[0].is_ascii_digit() && y.as_bytes()[0].is_ascii_digit();
        let order = if numbers {
            let (p, q) = (x.trim_start_matches('0'), y.trim_start_matches('0'));
            p.len().cmp(&q.len()).then_with(|| p.cmp(q)).then_with(|| x.len().cmp(&y.len()))
        } else {
            x.cmp(y)
        };
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (&a[x.len()..], &b[y.len()..]);
    }
}

/// The longest start of `text` that is all digits, or has none.
fn chunk(text: &str) -> &str {
    let digit = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c.is_ascii_digit() != digit).unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_compare_as_numbers() {
        let mut list = ["a10", "a9", "b", "10", "9", "a", "a09"];
        list.sort_by(|a, b| natural(a, b));
        assert_eq!(list, ["9", "10", "a", "a9", "a09", "a10", "b"]);
    }
}

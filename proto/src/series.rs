//! The label set of a series as the wire gives it: checked, put in order, described in errors.

use storage::model::labels::METRIC_NAME;

use crate::limits::Limits;

/// A label, borrowed from the request.
pub(crate) type Pair<'a> = (&'a str, &'a str);

/// How much of a label set an error line shows.
const DESCRIBED_BYTES_MAX: usize = 256;

/// Sorts `pairs` by name, refuses duplicate and empty names, what is over a limit and a set without a metric
/// name, drops empty values. Afterwards names ascend strictly and nothing is empty. Returns the bytes of all.
pub(crate) fn check(pairs: &mut Vec<Pair<'_>>, limits: &Limits) -> Result<usize, String> {
    if pairs.len() > limits.labels_per_series_max {
        return Err(format!(
            "{} labels, more than labels_per_series_max {}",
            pairs.len(),
            limits.labels_per_series_max
        ));
    }
    if !pairs.is_sorted_by(|a, b| a.0 < b.0) {
        pairs.sort_by(|a, b| a.0.cmp(b.0));
        if let Some(pair) = pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(format!("the label name {:?} stands twice", pair[0].0));
        }
    }
    let (mut bytes, mut named, mut empty) = (0, false, false);
    for (name, value) in pairs.iter() {
        bytes += name.len() + value.len();
        named |= *name == METRIC_NAME && !value.is_empty();
        empty |= value.is_empty();
        check_label(name, value, limits)?;
    }
    if !named {
        return Err("no metric name".to_owned());
    }
    if empty {
        pairs.retain(|(_, value)| !value.is_empty());
    }
    Ok(bytes)
}

fn check_label(name: &str, value: &str, limits: &Limits) -> Result<(), String> {
    if name.is_empty() {
        return Err("a label name is empty".to_owned());
    }
    if name.len() > limits.label_name_bytes_max {
        return Err(format!("a label name of {} bytes, over label_name_bytes_max", name.len()));
    }
    if value.len() > limits.label_value_bytes_max {
        return Err(format!("the value of {name:?} has {} bytes, over label_value_bytes_max", value.len()));
    }
    Ok(())
}

/// `{a="1", b="2"}`, cut when long.
pub(crate) fn describe(pairs: &[Pair<'_>]) -> String {
    let mut text = String::from("{");
    for (i, (name, value)) in pairs.iter().enumerate() {
        if text.len() > DESCRIBED_BYTES_MAX {
            text.push_str(", …");
            break;
        }
        if i > 0 {
            text.push_str(", ");
        }
        text.push_str(&format!("{}={:?}", cut(name, DESCRIBED_BYTES_MAX), cut(value, DESCRIBED_BYTES_MAX)));
    }
    text.push('}');
    text
}

/// At most `bytes_max` bytes of `text`, cut between characters.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(pairs: &[(&'static str, &'static str)]) -> Result<Vec<(&'static str, &'static str)>, String> {
        let mut pairs = pairs.to_vec();
        check(&mut pairs, &Limits::default()).map(|_| pairs)
    }

    #[test]
    fn labels_are_sorted_and_empty_values_dropped() {
        assert_eq!(
            checked(&[("b", "x"), ("__name__", "m"), ("a", ""), ("A", "1")]),
            Ok(vec![("A", "1"), ("__name__", "m"), ("b", "x")])
        );
    }

    #[test]
    fn bad_label_sets_are_refused_with_the_reason() {
        let reason = |pairs: &[_]| checked(pairs).unwrap_err();
        assert_eq!(reason(&[("a", "1")]), "no metric name");
        assert_eq!(reason(&[("__name__", "")]), "no metric name");
        assert_eq!(reason(&[("__name__", "m"), ("a", "1"), ("a", "")]), "the label name \"a\" stands twice");
        assert_eq!(reason(&[("", "x"), ("__name__", "m")]), "a label name is empty");
    }

    #[test]
    fn limits_are_named() {
        let limits = Limits { labels_per_series_max: 1, label_value_bytes_max: 2, ..Limits::default() };
        let mut many = vec![("__name__", "m"), ("a", "1")];
        assert!(check(&mut many, &limits).unwrap_err().contains("labels_per_series_max 1"));
        assert!(check(&mut vec![("__name__", "abc")], &limits).unwrap_err().contains("label_value_bytes_max"));
    }

    #[test]
    fn long_sets_are_cut_between_characters() {
        let value = "é".repeat(1000);
        let text = describe(&[("__name__", "m"), ("v", &value), ("w", "1")]);
        assert!(text.starts_with("{__name__=\"m\", v=\"éé") && text.ends_with(", …}") && text.len() < 600, "{text}");
    }
}

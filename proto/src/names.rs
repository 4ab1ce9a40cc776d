//! Names of structured metadata and of labels made from attributes.
//!
//! Owns: the normalisation that log ingestion applies. Does not own: the names of metrics, which follow other rules.

use std::borrow::Cow;

/// What a name gets in front that would begin with a digit.
const DIGIT_PREFIX: &str = "key_";

/// `name` with every run of characters outside `[a-zA-Z0-9]` as one `_`. Reserved names `__x__` keep their double
/// underscores, a leading digit gets a prefix. A name without a letter or digit becomes `_`, the empty name stays.
pub fn metadata_name(name: &str) -> Cow<'_, str> {
    if is_plain(name) {
        return Cow::Borrowed(name);
    }
    let inner = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__")).filter(|inner| !inner.is_empty());
    let mut out = String::with_capacity(name.len() + DIGIT_PREFIX.len());
    if inner.is_some() {
        out.push_str("__");
    }
    let text = inner.unwrap_or(name);
    if inner.is_none() && text.starts_with(|c: char| c.is_ascii_digit()) {
        out.push_str(DIGIT_PREFIX);
    }
    let mut in_run = false;
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            out.push(c);
        } else if !in_run {
            out.push('_');
        }
        in_run = !c.is_ascii_alphanumeric();
    }
    if inner.is_some() {
        out.push_str("__");
    }
    Cow::Owned(out)
}

/// Whether the normalisation would change nothing: letters, digits and single underscores, no digit in front.
fn is_plain(name: &str) -> bool {
    let bytes = name.as_bytes();
    !bytes.first().is_some_and(u8::is_ascii_digit)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
        && !bytes.windows(2).any(|pair| pair == b"__")
}

/// Whether `name` may name a stream label: `[a-zA-Z_][a-zA-Z0-9_]*`.
pub fn is_label_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_normalised_as_the_contract_says() {
        for (name, expected) in [
            ("service.name", "service_name"),
            ("custom.attr-with/odd chars", "custom_attr_with_odd_chars"),
            ("1starts.with.digit", "key_1starts_with_digit"),
            ("9x", "key_9x"),
            ("a.b-c", "a_b_c"),
            ("a__b", "a_b"),
            ("_private", "_private"),
            ("__error__", "__error__"),
            ("__foo-bar__", "__foo_bar__"),
            ("__half", "_half"),
            ("größe", "gr_e"),
            ("...", "_"),
            ("____", "_"),
            ("", ""),
        ] {
            assert_eq!(metadata_name(name), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing_more(name in "[a-zA-Z0-9_.é-]{0,12}") {
            let once = metadata_name(&name).into_owned();
            prop_assert_eq!(metadata_name(&once), once.as_str());
            prop_assert!(once.is_empty() || is_label_name(&once));
        }
    }
}

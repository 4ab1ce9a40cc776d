//! Names of OpenTelemetry turned into Prometheus' names, with units and types as suffixes.
//!
//! Owns: metric names, units, label names. Does not own: names of structured metadata (`crate::names`).

use std::borrow::Cow;

/// How metric and label names are translated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub enum TranslationStrategy {
    /// Escaped, with unit and type suffixes.
    #[default]
    UnderscoreEscapingWithSuffixes,
    /// Escaped, without suffixes.
    UnderscoreEscapingWithoutSuffixes,
    /// Kept, with suffixes.
    #[serde(rename = "NoUTF8EscapingWithSuffixes")]
    NoUtf8EscapingWithSuffixes,
    /// Kept as they are.
    NoTranslation,
}

impl TranslationStrategy {
    /// Whether names are brought to letters, digits, underscores and colons.
    pub fn escapes(self) -> bool {
        matches!(self, Self::UnderscoreEscapingWithSuffixes | Self::UnderscoreEscapingWithoutSuffixes)
    }

    /// Whether units and types become suffixes.
    pub fn suffixes(self) -> bool {
        matches!(self, Self::UnderscoreEscapingWithSuffixes | Self::NoUtf8EscapingWithSuffixes)
    }
}

/// What the type of a metric adds to its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeSuffix {
    /// Nothing.
    None,
    /// `total`: a monotonic sum.
    Total,
    /// `ratio`, if the unit is `1`: a gauge.
    Ratio,
}

/// Units whose word stands in names instead of their symbol. `1` has no word.
const UNITS: [(&str, &str); 26] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("1", ""),
    ("%", "percent"),
];

/// The same after a slash.
const PER_UNITS: [(&str, &str); 7] =
    [("s", "second"), ("m", "minute"), ("h", "hour"), ("d", "day"), ("w", "week"), ("mo", "month"), ("y", "year")];

/// The name of a metric; an error when nothing is left of it.
pub fn metric_name(
    name: &str,
    unit: &str,
    suffix: TypeSuffix,
    strategy: TranslationStrategy,
) -> Result<String, String> {
    let translated = match strategy {
        TranslationStrategy::UnderscoreEscapingWithSuffixes => escaped_with_suffixes(name, unit, suffix),
        TranslationStrategy::UnderscoreEscapingWithoutSuffixes => escaped(name),
        TranslationStrategy::NoUtf8EscapingWithSuffixes => kept_with_suffixes(name, unit, suffix),
        TranslationStrategy::NoTranslation => name.to_owned(),
    };
    if translated.is_empty() || (translated != name && translated.bytes().all(|b| b == b'_')) {
        return Err(format!("nothing is left of the metric name {name:?}"));
    }
    Ok(translated)
}

fn escaped_with_suffixes(name: &str, unit: &str, suffix: TypeSuffix) -> String {
    let mut tokens: Vec<&str> = name.split(|c| !is_metric_char(c)).filter(|token| !token.is_empty()).collect();
    let (main, per) = unit_words(unit);
    let (main, per) = (clean_unit(&main), clean_unit(&per));
    // A name token never holds an underscore, so that `per_second` is repeated and `seconds` is not.
    let per = if per == "per_" || tokens.contains(&per.as_str()) { "" } else { per.as_str() };
    let main = if tokens.contains(&main.as_str()) { "" } else { main.as_str() };
    let main = if per.is_empty() { main } else { main.trim_end_matches('_') };
    tokens.extend([main, per].into_iter().filter(|token| !token.is_empty()));
    if let Some(last) = type_token(unit, suffix) {
        tokens.retain(|token| *token != last);
        tokens.push(last);
    }
    with_digit_guard(tokens.join("_"))
}

fn escaped(name: &str) -> String {
    let tokens: Vec<&str> = name.split(|c| !is_metric_char(c) && c != '_').filter(|token| !token.is_empty()).collect();
    with_digit_guard(tokens.join("_"))
}

fn kept_with_suffixes(name: &str, unit: &str, suffix: TypeSuffix) -> String {
    let (main, per) = unit_words(unit);
    let last = type_token(unit, suffix).unwrap_or("");
    let bare = without_suffix(without_suffix(name, last), &per);
    let mut out = bare.to_owned();
    let main = if bare.ends_with(main.as_ref()) { "" } else { main.as_ref() };
    for token in [main, per.as_ref(), last] {
        if !token.is_empty() {
            out.push('_');
            out.push_str(token);
        }
    }
    out
}

/// `name` without `suffix` and the character before it, unless nothing would stay.
fn without_suffix<'a>(name: &'a str, suffix: &str) -> &'a str {
    let rest = if suffix.is_empty() { None } else { name.strip_suffix(suffix) };
    rest.and_then(|rest| rest.char_indices().next_back().map(|(end, _)| &rest[..end]))
        .filter(|rest| !rest.is_empty())
        .unwrap_or(name)
}

fn type_token(unit: &str, suffix: TypeSuffix) -> Option<&'static str> {
    match suffix {
        TypeSuffix::Total => Some("total"),
        TypeSuffix::Ratio if unit == "1" => Some("ratio"),
        _ => None,
    }
}

fn is_metric_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

fn with_digit_guard(name: String) -> String {
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

/// The unit as it stands in metadata: `By/s` is `bytes_per_second`.
pub fn unit_name(unit: &str) -> String {
    let (main, per) = unit_words(unit);
    let (main, per) = (clean_unit(&main), clean_unit(&per));
    let per = if per == "per_" { "" } else { per.as_str() };
    [main.as_str(), per].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join("_")
}

/// The words before and after the slash; the second begins with `per_`. Units in braces say nothing.
fn unit_words(unit: &str) -> (Cow<'_, str>, Cow<'_, str>) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let [main, per] = [main, per].map(|part| if part.contains(['{', '}']) { "" } else { part.trim() });
    let per = match word(&PER_UNITS, per) {
        "" => Cow::Borrowed(""),
        word => Cow::Owned(format!("per_{word}")),
    };
    (Cow::Borrowed(word(&UNITS, main)), per)
}

fn word<'a>(table: &[(&str, &'static str)], unit: &'a str) -> &'a str {
    table.iter().find_map(|(symbol, word)| (*symbol == unit).then_some(*word)).unwrap_or(unit)
}

/// Other characters than those of metric names as `_`, runs of it as one, none in front.
fn clean_unit(unit: &str) -> String {
    let mut out = String::with_capacity(unit.len());
    for c in unit.chars() {
        match is_metric_char(c) {
            true => out.push(c),
            false if out.is_empty() || out.ends_with('_') => {}
            false => out.push('_'),
        }
    }
    out
}

/// How label names are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LabelRules {
    pub(crate) strategy: TranslationStrategy,
    pub(crate) keep_multiple_underscores: bool,
    pub(crate) guard_underscore: bool,
}

/// The name of a label; an error when nothing is left of it.
pub(crate) fn label_name(key: &str, rules: LabelRules) -> Result<Cow<'_, str>, String> {
    if key.chars().all(|c| c == '_') {
        return Err(format!("nothing is left of the attribute key {key:?}"));
    }
    if !rules.strategy.escapes() {
        return Ok(Cow::Borrowed(key));
    }
    let plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if plain && !key.starts_with(|c: char| c.is_ascii_digit() || c == '_') && rules.keep_multiple_underscores {
        return Ok(Cow::Borrowed(key));
    }
    let mut out = String::with_capacity(key.len() + 4);
    for c in key.chars() {
        match c.is_ascii_alphanumeric() {
            true => out.push(c),
            false if !rules.keep_multiple_underscores && out.ends_with('_') => {}
            false => out.push('_'),
        }
    }
    if out.bytes().all(|b| b == b'_') {
        return Err(format!("nothing is left of the attribute key {key:?}"));
    }
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert_str(0, "key_");
    } else if rules.guard_underscore && out.starts_with('_') && !out.starts_with("__") {
        out.insert_str(0, "key");
    }
    Ok(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::TranslationStrategy::{
        NoTranslation, NoUtf8EscapingWithSuffixes, UnderscoreEscapingWithSuffixes, UnderscoreEscapingWithoutSuffixes,
    };
    use super::*;

    fn check(name: &str, unit: &str, suffix: TypeSuffix, expected: &str) {
        let translated = metric_name(name, unit, suffix, UnderscoreEscapingWithSuffixes);
        assert_eq!(translated.as_deref(), Ok(expected), "{name} {unit}");
    }

    #[test]
    fn names_carry_their_units() {
        check("http.server.duration", "ms", TypeSuffix::None, "http_server_duration_milliseconds");
        check("system.cpu.time", "s", TypeSuffix::Total, "system_cpu_time_seconds_total");
        check("process.cpu.utilization", "1", TypeSuffix::Ratio, "process_cpu_utilization_ratio");
        check("network.io", "By/s", TypeSuffix::Ratio, "network_io_bytes_per_second");
        check("jvm.threads", "{thread}", TypeSuffix::Ratio, "jvm_threads");
        check("requests", "{request}/s", TypeSuffix::Ratio, "requests_per_second");
        check("x", "foo2", TypeSuffix::Ratio, "x_foo2");
        check("x", "m/s^2", TypeSuffix::Ratio, "x_meters_per_s_2");
        check("x", "%", TypeSuffix::Ratio, "x_percent");
        check("x", "1", TypeSuffix::None, "x");
        check("x", "1", TypeSuffix::Total, "x_total");
    }

    #[test]
    fn tokens_are_not_repeated() {
        check("latency.seconds", "s", TypeSuffix::Ratio, "latency_seconds");
        check("seconds.of.sleep", "s", TypeSuffix::Total, "seconds_of_sleep_total");
        check("total.calls", "1", TypeSuffix::Total, "calls_total");
        check("x_total", "", TypeSuffix::Total, "x_total");
        check("ratio.of.x", "1", TypeSuffix::Ratio, "of_x_ratio");
    }

    #[test]
    fn other_characters_part_tokens() {
        check("a__b", "", TypeSuffix::None, "a_b");
        check("_a.b_", "", TypeSuffix::None, "a_b");
        check("a:b.c", "", TypeSuffix::None, "a:b_c");
        check("3d.x", "", TypeSuffix::None, "_3d_x");
        check("größe", "", TypeSuffix::None, "gr_e");
    }

    #[test]
    fn a_name_of_which_nothing_is_left_is_an_error() {
        for strategy in [UnderscoreEscapingWithSuffixes, UnderscoreEscapingWithoutSuffixes] {
            assert!(metric_name("…", "", TypeSuffix::None, strategy).is_err());
        }
        assert!(metric_name("", "", TypeSuffix::None, NoTranslation).is_err());
    }

    #[test]
    fn other_strategies() {
        let name = |name, unit, suffix, strategy| metric_name(name, unit, suffix, strategy).unwrap();
        assert_eq!(name("a..b__c", "s", TypeSuffix::Total, UnderscoreEscapingWithoutSuffixes), "a_b__c");
        assert_eq!(name("a.b", "s", TypeSuffix::Total, NoTranslation), "a.b");
        assert_eq!(name("a.b", "By/s", TypeSuffix::Total, NoUtf8EscapingWithSuffixes), "a.b_bytes_per_second_total");
        assert_eq!(name("a.total", "", TypeSuffix::Total, NoUtf8EscapingWithSuffixes), "a_total");
        assert_eq!(name("a.seconds", "s", TypeSuffix::None, NoUtf8EscapingWithSuffixes), "a.seconds");
        assert_eq!(name("a.x", "1", TypeSuffix::Ratio, NoUtf8EscapingWithSuffixes), "a.x_ratio");
    }

    #[test]
    fn units_have_words() {
        assert_eq!(unit_name("By/s"), "bytes_per_second");
        assert_eq!(unit_name("1"), "");
        assert_eq!(unit_name("{request}/m"), "per_minute");
        assert_eq!(unit_name("KiBy"), "kibibytes");
    }

    const RULES: LabelRules = LabelRules {
        strategy: UnderscoreEscapingWithSuffixes,
        keep_multiple_underscores: true,
        guard_underscore: true,
    };

    #[test]
    fn label_names_are_escaped() {
        let name = |key| label_name(key, RULES).unwrap().into_owned();
        for (key, expected) in [
            ("http.method", "http_method"),
            ("9lives", "key_9lives"),
            ("_hidden", "key_hidden"),
            ("__reserved", "__reserved"),
            ("a..b", "a__b"),
            ("sp ace", "sp_ace"),
            ("größe", "gr__e"),
            ("plain", "plain"),
        ] {
            assert_eq!(name(key), expected);
        }
        let collapsing = LabelRules { keep_multiple_underscores: false, guard_underscore: false, ..RULES };
        assert_eq!(label_name("a..b__c", collapsing).unwrap(), "a_b_c");
        assert_eq!(label_name("_hidden", collapsing).unwrap(), "_hidden");
        let kept = LabelRules { strategy: NoTranslation, ..RULES };
        assert_eq!(label_name("http.method", kept).unwrap(), "http.method");
        for key in ["", "_", "__", "…"] {
            assert!(label_name(key, RULES).is_err(), "{key}");
        }
    }

    proptest! {
        #[test]
        fn escaped_names_are_valid(name in "\\PC{0,20}", unit in "\\PC{0,8}") {
            for suffix in [TypeSuffix::None, TypeSuffix::Total, TypeSuffix::Ratio] {
                if let Ok(name) = metric_name(&name, &unit, suffix, UnderscoreEscapingWithSuffixes) {
                    prop_assert!(name.chars().all(|c| is_metric_char(c) || c == '_'), "{}", name);
                    prop_assert!(!name.starts_with(|c: char| c.is_ascii_digit()));
                }
                let _ = metric_name(&name, &unit, suffix, NoUtf8EscapingWithSuffixes);
            }
            if let Ok(name) = label_name(&name, RULES) {
                prop_assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
            }
        }
    }
}

//! Writes JSON straight into a buffer.
//!
//! Owns: strings and the number formats that dialects share. Does not own: keys and their order (`encode` of each
//! dialect).
//!
//! Invariant: what is written through the methods other than [`Json::raw`] is always well-formed.

use std::fmt::Write as _;

use storage::model::value::write_string_text;

/// A JSON text that grows.
#[derive(Debug, Default)]
pub struct Json(String);

impl Json {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Punctuation and keys, as they are.
    pub fn raw(&mut self, text: &str) -> &mut Self {
        self.0.push_str(text);
        self
    }

    /// A string, quoted and escaped.
    pub fn string(&mut self, text: &str) -> &mut Self {
        write_string_text(text, &mut self.0);
        self
    }

    /// A whole number.
    pub fn integer(&mut self, value: impl Into<i128>) -> &mut Self {
        let _ = write!(self.0, "{}", value.into());
        self
    }

    /// A number; one that JSON lacks is `0`.
    pub fn number(&mut self, value: f64) -> &mut Self {
        let value = if value.is_finite() { value } else { 0.0 };
        let _ = write!(self.0, "{value}");
        self
    }

    /// Formatted text, as it is.
    pub fn format(&mut self, arguments: std::fmt::Arguments<'_>) -> &mut Self {
        let _ = self.0.write_fmt(arguments);
        self
    }

    /// `[…]` with each item written by `write`.
    pub fn array<T>(&mut self, items: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut Self, T)) -> &mut Self {
        self.0.push('[');
        for (i, item) in items.into_iter().enumerate() {
            if i > 0 {
                self.0.push(',');
            }
            write(self, item);
        }
        self.0.push(']');
        self
    }

    /// A list of strings.
    pub fn strings<S: AsRef<str>>(&mut self, items: impl IntoIterator<Item = S>) -> &mut Self {
        self.array(items, |json, item| {
            json.string(item.as_ref());
        })
    }

    /// `{"name":"value",…}`.
    pub fn map<N: AsRef<str>, V: AsRef<str>>(&mut self, pairs: impl IntoIterator<Item = (N, V)>) -> &mut Self {
        self.0.push('{');
        for (i, (name, value)) in pairs.into_iter().enumerate() {
            if i > 0 {
                self.0.push(',');
            }
            self.string(name.as_ref()).raw(":").string(value.as_ref());
        }
        self.0.push('}');
        self
    }

    /// Milliseconds as seconds: no trailing zeros, at most three decimals.
    pub fn seconds(&mut self, ms: i64) -> &mut Self {
        let (whole, rest) = (ms.unsigned_abs() / 1000, ms.unsigned_abs() % 1000);
        let sign = if ms < 0 { "-" } else { "" };
        let _ = write!(self.0, "{sign}{whole}");
        if rest > 0 {
            let digits = format!("{rest:03}");
            let _ = write!(self.0, ".{}", digits.trim_end_matches('0'));
        }
        self
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The text.
    pub fn finish(self) -> String {
        self.0
    }
}

/// Shortest decimal that reads back, with an exponent of at least two digits outside of 1e-6 ≤ |v| < 1e21.
pub fn prometheus_value(value: f64) -> String {
    if let Some(name) = special(value) {
        return name.to_owned();
    }
    if value == 0.0 || (1e-6..1e21).contains(&value.abs()) {
        return value.to_string();
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// Shortest decimal that reads back, never with an exponent.
pub fn plain_value(value: f64) -> String {
    special(value).map_or_else(|| value.to_string(), str::to_owned)
}

fn special(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value.is_infinite() {
        Some(if value > 0.0 { "+Inf" } else { "-Inf" })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_print_as_prometheus_prints_them() {
        let cases = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (1e-6, "0.000001"),
            (1e-7, "1e-07"),
            (1.5e-10, "1.5e-10"),
            (5e-324, "5e-324"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-1.25e300, "-1.25e+300"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ];
        for (value, text) in cases {
            assert_eq!(prometheus_value(value), text);
        }
    }

    #[test]
    fn plain_values_have_no_exponent() {
        assert_eq!(plain_value(0.003_333_333_333_333_333_5), "0.0033333333333333335");
        assert_eq!(plain_value(1e21), "1000000000000000000000");
        assert_eq!(plain_value(f64::NEG_INFINITY), "-Inf");
    }

    #[test]
    fn times_print_as_seconds_without_trailing_zeros() {
        let cases =
            [(1_767_575_700_000, "1767575700"), (1_767_575_700_250, "1767575700.25"), (7, "0.007"), (-1500, "-1.5")];
        for (ms, text) in cases {
            assert_eq!(Json::new().seconds(ms).0, text);
        }
    }

    #[test]
    fn strings_are_escaped() {
        let mut json = Json::new();
        json.map([("a\"", "b\\\n\u{1}é")]);
        assert_eq!(json.finish(), r#"{"a\"":"b\\\n\u0001é"}"#);
    }
}

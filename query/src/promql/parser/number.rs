//! Numbers and durations as texts.

use super::super::lexer::quote;

const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// A number, or a duration in seconds. The error is what follows the position.
pub(super) fn number(raw: &str, duration: bool) -> Result<f64, String> {
    if duration {
        return duration_ms(raw).map(|ms| ms as f64 / 1000.0);
    }
    let bad = || format!("error parsing number: strconv.ParseFloat: parsing {}: invalid syntax", quote(raw));
    if !underscores_fit(raw) {
        return Err(bad());
    }
    let plain: String = raw.chars().filter(|c| *c != '_').collect();
    if let Some(hex) = plain.strip_prefix("0x").or_else(|| plain.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).map(|n| n as f64).map_err(|_| bad());
    }
    if plain.len() > 1 && plain.starts_with('0') && plain.bytes().all(|b| b.is_ascii_digit()) {
        // A leading zero means octal, unless a digit does not fit.
        if let Ok(octal) = i64::from_str_radix(&plain, 8) {
            return Ok(octal as f64);
        }
    }
    let value: f64 = plain.parse().map_err(|_| bad())?;
    if value.is_infinite() && plain.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Err(format!("error parsing number: strconv.ParseFloat: parsing {}: value out of range", quote(raw)));
    }
    Ok(value)
}

/// Underscores stand between digits only (a prefix `0x` counts as a digit).
fn underscores_fit(raw: &str) -> bool {
    let bytes = raw.as_bytes();
    let digit = |i: usize| bytes.get(i).is_some_and(|b| b.is_ascii_hexdigit() || (i == 1 && matches!(b, b'x' | b'X')));
    bytes.iter().enumerate().all(|(i, b)| *b != b'_' || (i > 0 && digit(i - 1) && digit(i + 1)))
}

/// `1h30m` in milliseconds: units from long to short, each once. Zero is allowed.
pub fn duration_ms(raw: &str) -> Result<i64, String> {
    let bad = || format!("not a valid duration string: {}", quote(raw));
    let mut rest = raw;
    let mut total = 0i64;
    let mut smallest = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (count, tail) = rest.split_at(digits);
        let letters = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, tail) = tail.split_at(letters);
        let index = UNITS.iter().position(|(name, _)| *name == unit).ok_or_else(bad)?;
        if index < smallest || digits == 0 {
            return Err(bad());
        }
        smallest = index + 1;
        let count: i64 = count.parse().map_err(|_| "duration out of range".to_owned())?;
        let ms = count.checked_mul(UNITS[index].1).and_then(|ms| total.checked_add(ms));
        // The original counts nanoseconds in 64 bits.
        total = ms.filter(|ms| *ms <= i64::MAX / 1_000_000).ok_or_else(|| "duration out of range".to_owned())?;
        rest = tail;
    }
    if raw.is_empty() { Err(bad()) } else { Ok(total) }
}

/// Milliseconds as a duration: `1h30m`. Days and longer only when they divide evenly, weeks and years alone.
pub fn format_duration(ms: i64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    if ms < 0 {
        out.push('-');
    }
    let mut rest = ms.unsigned_abs();
    for (i, (unit, size)) in UNITS.iter().enumerate() {
        let size = size.unsigned_abs();
        // Years, weeks and days are not exact times: they are used only if nothing is left over.
        let exact = i < 3;
        if (exact && !rest.is_multiple_of(size)) || rest < size {
            continue;
        }
        out.push_str(&format!("{}{unit}", rest / size));
        rest %= size;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        for (text, value) in [
            ("017", 15.0),
            ("08", 8.0),
            ("0x1F", 31.0),
            ("1_000", 1000.0),
            (".5", 0.5),
            ("1e3", 1000.0),
            ("Inf", f64::INFINITY),
            ("5e-324", 5e-324),
        ] {
            assert_eq!(number(text, false), Ok(value), "{text}");
        }
        assert!(number("nan", false).is_ok_and(f64::is_nan));
        for text in ["0x", "1__0", "_1", "1e400"] {
            assert!(number(text, false).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_read_and_print() {
        for (text, ms, printed) in [
            ("1h30m", 5_400_000, "1h30m"),
            ("1m0s", 60_000, "1m"),
            ("90000ms", 90_000, "1m30s"),
            ("1w", 604_800_000, "1w"),
            ("8d", 691_200_000, "8d"),
            ("25h", 90_000_000, "25h"),
            ("5m30s500ms", 330_500, "5m30s500ms"),
            ("1y", 31_536_000_000, "1y"),
        ] {
            assert_eq!(duration_ms(text), Ok(ms), "{text}");
            assert_eq!(format_duration(ms), printed);
        }
        for text in ["", "5", "5mm", "1m1h", "1m1m", "300y"] {
            assert!(duration_ms(text).is_err(), "{text}");
        }
    }
}

//! Numbers as text, in Go's three forms.

/// A sample's value as results show it: shortest digits that read back, plain between 1e-6 and 1e21.
pub fn format_float(value: f64) -> String {
    let magnitude = value.abs();
    if value.is_finite() && magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        return exponent(value);
    }
    format_scalar(value)
}

/// A number as `%v` prints it: plain between 1e-4 and 1e21.
pub(super) fn format_literal(value: f64) -> String {
    let magnitude = value.abs();
    if value.is_finite() && magnitude != 0.0 && !(1e-4..1e21).contains(&magnitude) {
        return exponent(value);
    }
    format_scalar(value)
}

/// Plain notation, whatever the size: scalars in results, and the values of `count_values`.
pub fn format_scalar(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        format!("{value}")
    }
}

fn exponent(value: f64) -> String {
    let text = format!("{value:e}");
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_print_as_go_prints_them() {
        for (value, text) in [
            (1e21, "1e+21"),
            (1e20, "100000000000000000000"),
            (1e-7, "1e-07"),
            (1e-6, "0.000001"),
            (5e-324, "5e-324"),
            (-0.0, "-0"),
            (0.0, "0"),
            (1.5, "1.5"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (1.797_693_134_862_315_7e308, "1.7976931348623157e+308"),
        ] {
            assert_eq!(format_float(value), text);
        }
        assert_eq!(format_literal(0.00001), "1e-05");
        assert_eq!(format_scalar(1e21), "1000000000000000000000");
    }
}

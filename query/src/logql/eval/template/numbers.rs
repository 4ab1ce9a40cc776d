//! Numbers in templates: what becomes a number, and decimal arithmetic.
//!
//! Owns: conversions that never fail (what is no number is 0), exact sums and products of short decimals.

use super::value::Val;

/// Reads an integer as Go's `ParseInt` with base 0: `0x1f`, `0b1`, `0o7`, `017`.
pub fn parse_int(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = if let Some(hex) = lower.strip_prefix("0x") {
        (16, hex)
    } else if let Some(binary) = lower.strip_prefix("0b") {
        (2, binary)
    } else if let Some(octal) = lower.strip_prefix("0o") {
        (8, octal)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let size = i128::from_str_radix(digits, radix).ok()?;
    i64::try_from(if negative { -size } else { size }).ok()
}

/// A value as an integer; 0 if it is none.
pub fn to_int(value: &Val) -> i64 {
    match value {
        Val::Bool(b) => i64::from(*b),
        Val::Int(n) => *n,
        Val::Float(x) => *x as i64,
        Val::Text(text) => {
            // 1.00 is an integer, 1.5 is not.
            let whole = match text.split_once('.') {
                Some((whole, zeros)) if zeros.bytes().all(|b| b == b'0') => whole,
                _ => text.as_str(),
            };
            parse_int(whole).unwrap_or(0)
        }
        _ => 0,
    }
}

/// A value as a float; 0 if it is none.
pub fn to_float(value: &Val) -> f64 {
    match value {
        Val::Bool(b) => f64::from(u8::from(*b)),
        Val::Int(n) => *n as f64,
        Val::Float(x) => *x,
        Val::Text(text) => super::super::label_filter::parse_float(text).unwrap_or(0.0),
        _ => 0.0,
    }
}

/// Digits and how many of them stand behind the point; exact for numbers that print short.
#[derive(Clone, Copy)]
struct Decimal {
    digits: i128,
    scale: u32,
}

/// How many digits behind the point a quotient has.
const DIVISION_DIGITS: u32 = 16;

impl Decimal {
    fn of(x: f64) -> Option<Self> {
        if !x.is_finite() {
            return None;
        }
        let text = format!("{x}");
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let digits = format!("{whole}{fraction}").parse().ok()?;
        Some(Self { digits, scale: u32::try_from(fraction.len()).ok()? })
    }

    fn at_scale(self, scale: u32) -> Option<i128> {
        self.digits.checked_mul(10_i128.checked_pow(scale.checked_sub(self.scale)?)?)
    }

    fn to_float(self) -> Option<f64> {
        format!("{}e-{}", self.digits, self.scale).parse().ok()
    }

    fn combined(op: DecimalOp, a: Self, b: Self) -> Option<f64> {
        let scale = a.scale.max(b.scale);
        let decimal = match op {
            DecimalOp::Add => Self { digits: a.at_scale(scale)?.checked_add(b.at_scale(scale)?)?, scale },
            DecimalOp::Sub => Self { digits: a.at_scale(scale)?.checked_sub(b.at_scale(scale)?)?, scale },
            DecimalOp::Mul => Self { digits: a.digits.checked_mul(b.digits)?, scale: a.scale + b.scale },
            DecimalOp::Div => {
                let (top, bottom) = (a.at_scale(scale)?, b.at_scale(scale)?);
                let top = top.checked_mul(10_i128.pow(DIVISION_DIGITS))?;
                let (quotient, rest) = (top.checked_div(bottom)?, top.checked_rem(bottom)?);
                let up = rest.unsigned_abs().checked_mul(2)? >= bottom.unsigned_abs();
                let away = if (top < 0) == (bottom < 0) { 1 } else { -1 };
                Self { digits: quotient + if up { away } else { 0 }, scale: DIVISION_DIGITS }
            }
        };
        decimal.to_float()
    }
}

/// Arithmetic on decimals.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum DecimalOp {
    /// Sum.
    Add,
    /// Difference.
    Sub,
    /// Product.
    Mul,
    /// Quotient.
    Div,
}

/// `a op b` as decimals, or as floats where they are too long. Division by zero is an error.
pub fn decimal(op: DecimalOp, a: f64, b: f64) -> Result<f64, String> {
    if op == DecimalOp::Div && b == 0.0 {
        return Err("decimal division by 0".to_owned());
    }
    let exact = Decimal::of(a).zip(Decimal::of(b)).and_then(|(a, b)| Decimal::combined(op, a, b));
    Ok(exact.unwrap_or(match op {
        DecimalOp::Add => a + b,
        DecimalOp::Sub => a - b,
        DecimalOp::Mul => a * b,
        DecimalOp::Div => a / b,
    }))
}

/// Rounds half away from zero upwards at `places` behind the point, as the original does.
pub fn round(x: f64, places: i64, round_on: f64) -> f64 {
    let power = 10_f64.powi(i32::try_from(places).unwrap_or(0));
    let digit = power * x;
    let rounded = if digit.fract() >= round_on { digit.ceil() } else { digit.floor() };
    rounded / power
}

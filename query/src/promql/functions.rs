//! The table of functions: one row each, read by parser, checker and evaluator.
//!
//! Owns: names, argument types, results, documentation. Does not own: how they are computed (`eval::functions`).

use std::fmt;

use super::ast::Type::{self, Matrix, Scalar, Text, Vector};
use super::eval::functions as f;
use super::eval::{Eval, EvalFn, FloatFn, WindowFn};

/// One function.
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// The types of its arguments; the last one repeats for variadic ones.
    pub args: &'static [Type],
    /// 0: exactly `args`. n: the last argument may be left out, or stand up to n times. −1: any number of times.
    pub variadic: i32,
    /// The type of its result.
    pub returns: Type,
    /// What it does, in one line.
    pub doc: &'static str,
    /// How it is computed.
    pub(super) eval: Eval,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Names are unique.
impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

type Args = &'static [Type];
type Doc = &'static str;

const fn function(name: Doc, args: Args, returns: Type, eval: EvalFn, doc: Doc) -> Function {
    Function { name, args, variadic: 0, returns, doc, eval: Eval::Special(eval) }
}

const fn variadic(name: Doc, args: Args, n: i32, eval: EvalFn, doc: Doc) -> Function {
    Function { name, args, variadic: n, returns: Vector, doc, eval: Eval::Special(eval) }
}

const fn map(name: Doc, eval: FloatFn, doc: Doc) -> Function {
    Function { name, args: &[Vector], variadic: 0, returns: Vector, doc, eval: Eval::Map(eval) }
}

const fn vector(name: Doc, eval: EvalFn, doc: Doc) -> Function {
    function(name, &[Vector], Vector, eval, doc)
}

const fn over(name: Doc, eval: WindowFn, doc: Doc) -> Function {
    Function { name, args: &[Matrix], variadic: 0, returns: Vector, doc, eval: Eval::Window(eval) }
}

const fn over_named(name: Doc, eval: WindowFn, doc: Doc) -> Function {
    Function { name, args: &[Matrix], variadic: 0, returns: Vector, doc, eval: Eval::WindowNamed(eval) }
}

const fn over_with(name: Doc, args: Args, eval: WindowFn, doc: Doc) -> Function {
    Function { name, args, variadic: 0, returns: Vector, doc, eval: Eval::Window(eval) }
}

const fn date(name: Doc, eval: EvalFn, doc: Doc) -> Function {
    variadic(name, &[Vector], 1, eval, doc)
}

/// All functions, by name.
pub static FUNCTIONS: &[Function] = &[
    map("abs", f64::abs, "Absolute value."),
    vector("absent", f::absent, "1 where the vector has no element."),
    function("absent_over_time", &[Matrix], Vector, f::absent_over_time, "1 where the range has no sample."),
    map("acos", f64::acos, "Arc cosine."),
    map("acosh", f::acosh, "Inverse hyperbolic cosine."),
    map("asin", f64::asin, "Arc sine."),
    map("asinh", f::asinh, "Inverse hyperbolic sine."),
    map("atan", f64::atan, "Arc tangent."),
    map("atanh", f64::atanh, "Inverse hyperbolic tangent."),
    over("avg_over_time", f::avg, "Average of the samples in the range."),
    map("ceil", f64::ceil, "Rounded up to an integer."),
    over("changes", f::changes, "How often the value changed within the range."),
    function("clamp", &[Vector, Scalar, Scalar], Vector, f::clamp, "Values held between two bounds."),
    function("clamp_max", &[Vector, Scalar], Vector, f::clamp_max, "Values held below a bound."),
    function("clamp_min", &[Vector, Scalar], Vector, f::clamp_min, "Values held above a bound."),
    map("cos", f64::cos, "Cosine."),
    map("cosh", f64::cosh, "Hyperbolic cosine."),
    over("count_over_time", f::count, "Number of samples in the range."),
    date("day_of_month", f::day_of_month, "Day of the month, 1 to 31, in UTC."),
    date("day_of_week", f::day_of_week, "Day of the week, 0 (Sunday) to 6, in UTC."),
    date("day_of_year", f::day_of_year, "Day of the year, 1 to 366, in UTC."),
    date("days_in_month", f::days_in_month, "Days in the month, 28 to 31, in UTC."),
    map("deg", f::deg, "Radians to degrees."),
    over("delta", f::delta, "Difference between the ends of the range, extrapolated."),
    over("deriv", f::deriv, "Slope per second by linear regression."),
    function(
        "double_exponential_smoothing",
        &[Matrix, Scalar, Scalar],
        Vector,
        f::smoothing,
        "Value smoothed with a factor for the level and one for the trend.",
    ),
    function("end", &[], Scalar, f::end, "End of the query in seconds."),
    map("exp", f64::exp, "Exponential function."),
    over_named("first_over_time", f::first, "Oldest sample in the range."),
    map("floor", f64::floor, "Rounded down to an integer."),
    vector("histogram_avg", f::histogram_avg, "Arithmetic mean of the observations of a native histogram."),
    vector("histogram_count", f::histogram_count, "Number of observations of a native histogram."),
    function(
        "histogram_fraction",
        &[Scalar, Scalar, Vector],
        Vector,
        f::histogram_fraction,
        "Estimated share of observations between two bounds.",
    ),
    function(
        "histogram_quantile",
        &[Scalar, Vector],
        Vector,
        f::histogram_quantile,
        "Estimated quantile of a histogram.",
    ),
    variadic(
        "histogram_quantiles",
        &[Vector, Text, Scalar],
        9,
        f::histogram_quantiles,
        "Estimated quantiles of a histogram, told apart by a label.",
    ),
    vector(
        "histogram_stddev",
        f::histogram_stddev,
        "Estimated standard deviation of the observations of a native histogram.",
    ),
    vector("histogram_stdvar", f::histogram_stdvar, "Estimated variance of the observations of a native histogram."),
    vector("histogram_sum", f::histogram_sum, "Sum of the observations of a native histogram."),
    date("hour", f::hour, "Hour of the day, 0 to 23, in UTC."),
    over("idelta", f::idelta, "Difference between the last two samples in the range."),
    over("increase", f::increase, "Increase of a counter over the range, extrapolated."),
    variadic("info", &[Vector, Vector], 1, f::info, "Adds labels of info metrics."),
    over("irate", f::irate, "Rate per second between the last two samples in the range."),
    variadic("label_join", &[Vector, Text, Text, Text], -1, f::label_join, "Joins values of labels into one label."),
    function(
        "label_replace",
        &[Vector, Text, Text, Text, Text],
        Vector,
        f::label_replace,
        "Sets a label from what a regular expression finds in another.",
    ),
    over_named("last_over_time", f::last, "Newest sample in the range."),
    map("ln", f64::ln, "Natural logarithm."),
    map("log10", f64::log10, "Decimal logarithm."),
    map("log2", f64::log2, "Binary logarithm."),
    over("mad_over_time", f::mad, "Median absolute deviation of the samples in the range."),
    function("max_of", &[Scalar, Scalar], Scalar, f::max_of, "The larger of two scalars."),
    over("max_over_time", f::max, "Largest sample in the range."),
    function("min_of", &[Scalar, Scalar], Scalar, f::min_of, "The smaller of two scalars."),
    over("min_over_time", f::min, "Smallest sample in the range."),
    date("minute", f::minute, "Minute of the hour, 0 to 59, in UTC."),
    date("month", f::month, "Month of the year, 1 to 12, in UTC."),
    function("pi", &[], Scalar, f::pi, "The number pi."),
    over_with(
        "predict_linear",
        &[Matrix, Scalar],
        f::predict_linear,
        "Value in some seconds from now, by linear regression over the range.",
    ),
    over("present_over_time", f::present, "1 where the range has a sample."),
    over_with("quantile_over_time", &[Scalar, Matrix], f::quantile_of, "Quantile of the samples in the range."),
    map("rad", f::rad, "Degrees to radians."),
    function("range", &[], Scalar, f::range, "Length of the query in seconds."),
    over("rate", f::rate, "Increase of a counter per second over the range, extrapolated."),
    over("resets", f::resets, "Number of counter resets in the range."),
    variadic("round", &[Vector, Scalar], 1, f::round, "Rounded to the nearest multiple, ties up."),
    function("scalar", &[Vector], Scalar, f::scalar, "The value of the only element, or NaN."),
    map("sgn", f::sgn, "Sign: -1, 0 or 1."),
    map("sin", f64::sin, "Sine."),
    map("sinh", f64::sinh, "Hyperbolic sine."),
    vector("sort", f::sort, "Elements by value, ascending."),
    variadic("sort_by_label", &[Vector, Text], -1, f::sort_by_label, "Elements by labels in natural order, ascending."),
    variadic(
        "sort_by_label_desc",
        &[Vector, Text],
        -1,
        f::sort_by_label_desc,
        "Elements by labels in natural order, descending.",
    ),
    vector("sort_desc", f::sort_desc, "Elements by value, descending."),
    map("sqrt", f64::sqrt, "Square root."),
    function("start", &[], Scalar, f::start, "Start of the query in seconds."),
    vector("start_timestamp", f::start_timestamp, "Start (created) time of the samples in seconds."),
    over("stddev_over_time", f::stddev, "Standard deviation of the samples in the range."),
    over("stdvar_over_time", f::stdvar, "Variance of the samples in the range."),
    function("step", &[], Scalar, f::step, "Step of the query in seconds."),
    over("sum_over_time", f::sum, "Sum of the samples in the range."),
    map("tan", f64::tan, "Tangent."),
    map("tanh", f64::tanh, "Hyperbolic tangent."),
    function("time", &[], Scalar, f::time, "Time of the step in seconds."),
    vector("timestamp", f::timestamp, "Time of the samples in seconds."),
    over("ts_of_first_over_time", f::ts_of_first, "Time of the oldest sample in the range, in seconds."),
    over("ts_of_last_over_time", f::ts_of_last, "Time of the newest sample in the range, in seconds."),
    over("ts_of_max_over_time", f::ts_of_max, "Time of the last largest sample in the range, in seconds."),
    over("ts_of_min_over_time", f::ts_of_min, "Time of the last smallest sample in the range, in seconds."),
    function("vector", &[Scalar], Vector, f::vector, "The scalar as the only element."),
    date("year", f::year, "Year, in UTC."),
];

/// The function called `name`, whose letters must be as written; `start` and its like are keywords of any case.
pub fn find(name: &str) -> Option<&'static Function> {
    let exact = |name: &str| FUNCTIONS.iter().find(|function| function.name == name);
    exact(name).or_else(|| {
        let lower = name.to_ascii_lowercase();
        ["start", "end", "step", "range", "min_of", "max_of"].contains(&lower.as_str()).then(|| exact(&lower)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_names_are_unique() {
        assert!(FUNCTIONS.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert_eq!(FUNCTIONS.len(), 90);
    }
}

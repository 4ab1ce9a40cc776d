//! Functions of dates: parts of a time in UTC.

use chrono::{DateTime, Datelike, Timelike, Utc};

use super::value::{Evaluated, Series, Vector};
use super::{Call, Column, Evaluator, take_vector};
use crate::error::Result;
use storage::model::labels::Labels;

type Args = Vec<Evaluated>;

/// Applies `part` to every float taken as seconds, or to the times of the steps without an argument.
fn dates(e: &Evaluator<'_>, call: &Call<'_>, mut args: Args, part: fn(DateTime<Utc>) -> u32) -> Result<Evaluated> {
    years(e, call, &mut args, |t| f64::from(part(t)))
}

fn years(
    e: &Evaluator<'_>,
    call: &Call<'_>,
    args: &mut Args,
    part: impl Fn(DateTime<Utc>) -> f64,
) -> Result<Evaluated> {
    // As the original converts: what no 64-bit integer holds, NaN too, becomes the smallest one.
    let of = |seconds: f64| {
        let whole = if seconds.is_nan() || seconds.abs() >= 9.2e18 { i64::MIN } else { seconds as i64 };
        DateTime::from_timestamp(whole, 0).map_or(f64::NAN, &part)
    };
    if args.is_empty() {
        let values = (0..call.steps.count).map(|i| of(call.steps.at(i) as f64 / 1000.0)).collect();
        let series = vec![Series { labels: Labels::empty(), drop_name: false, column: Column::full(values) }];
        return Ok(Evaluated::Vector(Vector { series, held: None }));
    }
    let mut vector = take_vector(args)?;
    for series in &mut vector.series {
        series.column.map_floats(of);
    }
    e.renamed(vector).map(Evaluated::Vector)
}

/// `minute(v)`
pub(in crate::promql) fn minute(e: &mut Evaluator<'_>, call: &Call<'_>, args: Args) -> Result<Evaluated> {
    dates(e, call, args, |t| t.minute())
}

/// `hour(v)`
pub(in crate::promql) fn hour(e: &mut Evaluator<'_>, call: &Call<'_>, args: Args) -> Result<Evaluated> {
    dates(e, call, args, |t| t.hour())
}

/// `day_of_week(v)`
pub(in crate::promql) fn day_of_week(e: &mut Evaluator<'_>, call: &Call<'_>, args: Args) -> Result<Evaluated> {
    dates(e, call, args, |t| t.weekday().num_days_from_sunday())
}

/// `day_of_month(v)`
pub(in crate::promql) fn day_of_month(e: &mut Evaluator<'_>, call: &Call<'_>, args: Args) -> Result<Evaluated> {
    dates(e, call, args, |t| t.day())
}

/// `day_of_year(v)`
pub(in crate::promql) fn day_of_year(e: &mut Evaluator<'_>, call: &Call<'_>, args: Args) -> Result<Evaluated> {
    dates(e, call, args, |t| t.ordinal())
}

/// `days_in_month(v)`
pub(in crate::promql) fn days_in_month(e: &mut Evaluator<'_>, call: &Call<'_>, args: Args) -> Result<Evaluated> {
    dates(e, call, args, |t| u32::from(t.num_days_in_month()))
}

/// `month(v)`
pub(in crate::promql) fn month(e: &mut Evaluator<'_>, call: &Call<'_>, args: Args) -> Result<Evaluated> {
    dates(e, call, args, |t| t.month())
}

/// `year(v)`
pub(in crate::promql) fn year(e: &mut Evaluator<'_>, call: &Call<'_>, mut args: Args) -> Result<Evaluated> {
    years(e, call, &mut args, |t| f64::from(t.year()))
}

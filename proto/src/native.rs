//! Native histograms on their way in: the rules they must keep, and changes of resolution.
//!
//! Owns: what holds for every dialect. Does not own: the dialects' own fields (`remote_write`, `otlp`).
//!
//! Invariant: a [`Histogram`] that passed [`check`] has as many counts as its spans say, no negative count, and
//! bucket indexes that fit 32 bits.

use storage::model::histogram::{BucketSpan, Histogram, SCHEMA_CUSTOM, is_stale};

/// The finest schema that storage and queries take.
pub(crate) const SCHEMA_MAX: i32 = 8;
/// The coarsest schema.
pub(crate) const SCHEMA_MIN: i32 = -4;
/// The finest schema that may be sent; what is above [`SCHEMA_MAX`] is reduced to it.
pub(crate) const SCHEMA_SENT_MAX: i32 = 52;
/// Empty buckets between two others that are kept as zeros instead of opening a new span.
const GAP_MAX: i64 = 2;

/// Checks the rules of exponential and custom histograms, counts of buckets aside.
pub(crate) fn check(histogram: &Histogram) -> Result<(), String> {
    let h = histogram;
    match h.schema {
        SCHEMA_CUSTOM => check_custom(h)?,
        SCHEMA_MIN..=SCHEMA_SENT_MAX if !h.custom_values.is_empty() => {
            return Err("custom bounds with an exponential schema".to_owned());
        }
        SCHEMA_MIN..=SCHEMA_SENT_MAX => {}
        other => return Err(format!("unknown schema {other}")),
    }
    if h.zero_threshold < 0.0 || h.zero_threshold.is_nan() {
        return Err(format!("the zero threshold {} is not 0 or more", h.zero_threshold));
    }
    check_spans("positive", &h.positive_spans, h.positive_buckets.len())?;
    check_spans("negative", &h.negative_spans, h.negative_buckets.len())?;
    let buckets = h.positive_buckets.iter().chain(&h.negative_buckets);
    if let Some(count) = buckets.chain([&h.zero_count, &h.count]).find(|count| **count < 0.0) {
        return Err(format!("the count {count} is negative"));
    }
    Ok(())
}

fn check_custom(h: &Histogram) -> Result<(), String> {
    if h.zero_count != 0.0 || h.zero_threshold != 0.0 {
        return Err("custom bounds with a zero bucket".to_owned());
    }
    if !h.negative_spans.is_empty() || !h.negative_buckets.is_empty() {
        return Err("custom bounds with negative buckets".to_owned());
    }
    check_bounds(&h.custom_values)?;
    if h.positive_spans.first().is_some_and(|span| span.offset < 0) {
        return Err("custom bounds with a negative span offset".to_owned());
    }
    let end: i64 = h.positive_spans.iter().map(|span| i64::from(span.offset) + i64::from(span.length)).sum();
    let bounds = h.custom_values.len();
    if usize::try_from(end).is_ok_and(|end| end > bounds + 1) {
        return Err(format!("spans reach bucket {end}, but there are only {bounds} custom bounds"));
    }
    Ok(())
}

/// Bounds ascend and are finite.
pub(crate) fn check_bounds(bounds: &[f64]) -> Result<(), String> {
    if let Some(bound) = bounds.iter().find(|bound| !bound.is_finite()) {
        return Err(format!("the bound {bound} is not finite"));
    }
    match bounds.windows(2).find(|pair| pair[0] >= pair[1]) {
        Some(pair) => Err(format!("the bounds {} and {} do not ascend", pair[0], pair[1])),
        None => Ok(()),
    }
}

fn check_spans(side: &str, spans: &[BucketSpan], buckets: usize) -> Result<(), String> {
    let mut end = 0i64;
    let mut length = 0u64;
    for (i, span) in spans.iter().enumerate() {
        if i > 0 && span.offset < 0 {
            return Err(format!("{side} span {i} has the negative offset {}", span.offset));
        }
        end += i64::from(span.offset) + i64::from(span.length);
        length += u64::from(span.length);
    }
    if length != u64::try_from(buckets).unwrap_or(u64::MAX) {
        return Err(format!("{side} spans need {length} buckets, there are {buckets}"));
    }
    if i32::try_from(end).is_err() {
        return Err(format!("{side} spans reach bucket {end}"));
    }
    Ok(())
}

/// With whole counts, the buckets add up to the count; a sum that is no number allows fewer in the buckets
/// (observations of NaN are in none). A staleness marker carries no counts that mean anything.
pub(crate) fn check_total(in_buckets: u128, count: u64, sum: f64) -> Result<(), String> {
    let count = u128::from(count);
    let fits = if sum.is_nan() { in_buckets <= count } else { in_buckets == count };
    if fits || is_stale(sum) {
        return Ok(());
    }
    Err(format!("{in_buckets} observations in the buckets, but the count is {count}"))
}

/// Brings a finer schema down to [`SCHEMA_MAX`] by merging neighbouring buckets.
pub(crate) fn reduce(h: &mut Histogram) -> Result<(), String> {
    if h.schema <= SCHEMA_MAX {
        return Ok(());
    }
    let shift = (h.schema - SCHEMA_MAX).unsigned_abs();
    (h.positive_spans, h.positive_buckets) = merge(indexed(&h.positive_spans, &h.positive_buckets), shift)?;
    (h.negative_spans, h.negative_buckets) = merge(indexed(&h.negative_spans, &h.negative_buckets), shift)?;
    h.schema = SCHEMA_MAX;
    Ok(())
}

/// Each count with the index of its bucket.
fn indexed<'a>(spans: &'a [BucketSpan], counts: &'a [f64]) -> impl Iterator<Item = (i64, f64)> + 'a {
    let mut next = 0i64;
    let indexes = spans.iter().flat_map(move |span| {
        let from = next + i64::from(span.offset);
        next = from + i64::from(span.length);
        from..next
    });
    indexes.zip(counts.iter().copied())
}

/// Runs of buckets from counts by ascending index, each index of `schema + shift` brought to `schema`: bucket `i`
/// goes to the bucket whose upper bound is the next at or above its own. Empty buckets are left out.
pub(crate) fn merge(
    buckets: impl Iterator<Item = (i64, f64)>,
    shift: u32,
) -> Result<(Vec<BucketSpan>, Vec<f64>), String> {
    let mut spans: Vec<BucketSpan> = Vec::new();
    let mut counts: Vec<f64> = Vec::new();
    let mut next = 0i64;
    for (index, count) in buckets {
        if count == 0.0 {
            continue;
        }
        let index = ((index - 1) >> shift.min(63)) + 1;
        if index == next - 1
            && let Some(last) = counts.last_mut()
        {
            *last += count;
            continue;
        }
        let gap = index - next;
        match spans.last_mut() {
            Some(span) if gap <= GAP_MAX => {
                (0..gap).for_each(|_| counts.push(0.0));
                span.length += u32::try_from(gap + 1).unwrap_or(1);
            }
            _ => {
                let offset = i32::try_from(gap).map_err(|_| format!("bucket {index} is out of range"))?;
                spans.push(BucketSpan { offset, length: 1 });
            }
        }
        counts.push(count);
        next = index + 1;
    }
    if i32::try_from(next).is_err() {
        return Err(format!("bucket {next} is out of range"));
    }
    Ok((spans, counts))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(offset: i32, length: u32) -> BucketSpan {
        BucketSpan { offset, length }
    }

    #[test]
    fn resolution_is_reduced_by_merging() {
        // Schema 9 to 8: buckets 1 and 2 become 1, 3 and 4 become 2, 9 becomes 5, −1 and 0 become 0.
        let buckets = [(-1, 1.0), (0, 2.0), (1, 4.0), (2, 8.0), (3, 16.0), (9, 32.0)];
        let (spans, counts) = merge(buckets.into_iter(), 1).unwrap();
        assert_eq!(spans, [span(0, 6)]);
        assert_eq!(counts, [3.0, 12.0, 16.0, 0.0, 0.0, 32.0]);
    }

    #[test]
    fn wide_gaps_open_a_span() {
        let (spans, counts) = merge([(-3, 1.0), (1, 2.0), (2, 0.0), (3, 1.0)].into_iter(), 0).unwrap();
        assert_eq!(spans, [span(-3, 1), span(3, 3)]);
        assert_eq!(counts, [1.0, 2.0, 0.0, 1.0]);
    }

    #[test]
    fn totals_must_match_unless_the_sum_is_no_number() {
        assert!(check_total(3, 3, 1.0).is_ok());
        assert!(check_total(3, 4, 1.0).is_err());
        assert!(check_total(3, 4, f64::NAN).is_ok());
        assert!(check_total(4, 3, f64::NAN).is_err());
    }

    proptest! {
        #[test]
        fn merging_keeps_the_total_and_fits_its_spans(
            counts in proptest::collection::vec(0u32..5, 0..40), from in -50i64..50, shift in 0u32..8,
        ) {
            let buckets = counts.iter().enumerate().map(|(i, c)| (from + i64::try_from(i).unwrap(), f64::from(*c)));
            let (spans, merged) = merge(buckets.clone(), shift).unwrap();
            prop_assert_eq!(merged.iter().sum::<f64>(), f64::from(counts.iter().sum::<u32>()));
            prop_assert!(check_spans("positive", &spans, merged.len()).is_ok());
            for (index, count) in indexed(&spans, &merged) {
                let here: f64 = buckets.clone().filter(|(i, _)| (*i + (1i64 << shift) - 1).div_euclid(1 << shift) == index).map(|(_, c)| c).sum();
                prop_assert_eq!(here, count);
            }
        }
    }
}

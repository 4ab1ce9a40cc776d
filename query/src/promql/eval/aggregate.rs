//! Aggregations: series are grouped once, then each group is computed step by step.

use std::sync::Arc;

use indexmap::IndexMap;
use storage::model::histogram::Histogram;
use storage::model::labels::{Labels, METRIC_NAME};

use super::super::ast::{Aggregate, AggregateOp, NodeId};
use super::super::lexer::quote;
use super::super::number::format_scalar;
use super::super::plan::Steps;
use super::label::is_label_name;
use super::math::{Mean, Sum, quantile};
use super::native::ops::Total;
use super::native::text;
use super::notice::{Notes, short};
use super::sort::nan_last;
use super::value::{Evaluated, Point, Series, Vector, is_metadata};
use super::{Column, Evaluator, missing};
use crate::error::{Error, Kind, Result};

fn execution(message: impl Into<String>) -> Error {
    Error::new(Kind::Execution, message)
}

type Grouped = IndexMap<Labels, Vec<usize>, ahash::RandomState>;

/// The labels of the group of `labels`; `also` is a label that counts as written in `by`.
fn group_labels(labels: &Labels, aggregate: &Aggregate, also: Option<&str>) -> Labels {
    let named = |name: &str| aggregate.grouping.iter().any(|label| label == name);
    if aggregate.without {
        labels.without(|name| name == METRIC_NAME || is_metadata(name) || named(name))
    } else {
        labels.without(|name| !named(name) && Some(name) != also)
    }
}

impl Evaluator<'_> {
    pub(super) fn aggregate(
        &mut self,
        id: NodeId,
        aggregate: &Aggregate,
        param: Option<Evaluated>,
        vector: Vector,
        steps: Steps,
    ) -> Result<Vector> {
        match (aggregate.op, param) {
            (AggregateOp::CountValues, Some(Evaluated::Text(label))) => {
                self.count_values(aggregate, &label, vector, steps)
            }
            (AggregateOp::Quantile, Some(Evaluated::Scalar(q))) => self.quantiles(aggregate, &q, &vector, steps),
            (AggregateOp::LimitRatio, Some(Evaluated::Scalar(ratio))) => self.limit_ratio(aggregate, &ratio, vector),
            (op @ (AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk), Some(Evaluated::Scalar(k))) => {
                let k = counts(&k)?;
                if op == AggregateOp::Limitk {
                    self.limitk(aggregate, &k, vector, steps)
                } else {
                    self.topk(id, aggregate, &k, vector, steps)
                }
            }
            (_, None) => self.reduce(aggregate, &vector, steps),
            _ => Err(missing()),
        }
    }

    fn grouped(&self, aggregate: &Aggregate, vector: &Vector) -> Grouped {
        let mut groups = Grouped::default();
        for (i, series) in vector.series.iter().enumerate() {
            groups.entry(group_labels(&series.labels, aggregate, None)).or_default().push(i);
        }
        groups
    }

    fn ignored(&mut self, op: AggregateOp, at: usize) {
        self.notices.info(at, format!("ignored histogram in {} aggregation", op.as_str()));
    }

    /// The aggregations of all values of a group to one.
    fn reduce(&mut self, aggregate: &Aggregate, vector: &Vector, steps: Steps) -> Result<Vector> {
        let at = self.at(aggregate.expr);
        let groups = self.grouped(aggregate, vector);
        let held = Some(self.room(groups.len(), steps.count)?);
        let mut out = Vec::with_capacity(groups.len());
        for (labels, members) in groups {
            self.context.check()?;
            let mut state = vec![State::default(); steps.count];
            let mut histograms = false;
            let mut totals: Vec<Total> = Vec::new();
            let summed = matches!(aggregate.op, AggregateOp::Sum | AggregateOp::Avg);
            for member in &members {
                let column = &vector.series[*member].column;
                for (i, state) in state.iter_mut().enumerate() {
                    if let Some(value) = column.float(i) {
                        state.add(aggregate.op, value);
                    } else if let Some(histogram) = column.histogram(i) {
                        histograms = true;
                        state.histograms += 1;
                        if summed {
                            totals.resize_with(steps.count, Total::default);
                            totals[i].add(histogram);
                        }
                    }
                }
            }
            if histograms {
                self.notice_histograms(aggregate.op, &state, at);
            }
            let mut column = Column::new(steps.count);
            for (i, state) in state.iter().enumerate() {
                if let Some(value) = state.finish(aggregate.op) {
                    column.set_float(i, value);
                } else if let Some(total) = totals.get(i).filter(|total| total.count > 0.0 && state.count == 0.0) {
                    let mut notes = Notes { notices: &mut self.notices, at, metric: "" };
                    if let Some(histogram) = summed_up(total, aggregate.op == AggregateOp::Avg, &mut notes) {
                        column.set(i, Point::Histogram(histogram));
                    }
                }
            }
            if column.present() > 0 {
                let drop_name = members.first().is_some_and(|member| vector.series[*member].drop_name);
                out.push(Series { labels, drop_name, column });
            }
        }
        Ok(Vector { series: out, held })
    }

    fn notice_histograms(&mut self, op: AggregateOp, state: &[State], at: usize) {
        match op {
            AggregateOp::Sum | AggregateOp::Avg
                if state.iter().any(|state| state.histograms > 0 && state.count > 0.0) =>
            {
                self.notices.warn(at, "encountered a mix of histograms and floats for aggregation");
            }
            AggregateOp::Min | AggregateOp::Max | AggregateOp::Stddev | AggregateOp::Stdvar => self.ignored(op, at),
            _ => {}
        }
    }

    fn quantiles(&mut self, aggregate: &Aggregate, q: &[f64], vector: &Vector, steps: Steps) -> Result<Vector> {
        let at = aggregate.param.map_or(0, |param| self.at(param));
        if !vector.series.is_empty() {
            for bad in q.iter().filter(|q| !(0.0..=1.0).contains(*q)) {
                Notes { notices: &mut self.notices, at, metric: "" }.invalid_quantile(*bad);
            }
        }
        let groups = self.grouped(aggregate, vector);
        let held = Some(self.room(groups.len(), steps.count)?);
        let mut out = Vec::with_capacity(groups.len());
        for (labels, members) in groups {
            self.context.check()?;
            let mut column = Column::new(steps.count);
            let mut values = Vec::with_capacity(members.len());
            for (i, q) in q.iter().enumerate() {
                values.clear();
                for member in &members {
                    let column = &vector.series[*member].column;
                    match column.float(i) {
                        Some(value) => values.push(value),
                        None if column.has(i) => self.ignored(aggregate.op, self.at(aggregate.expr)),
                        None => {}
                    }
                }
                if !values.is_empty() {
                    column.set_float(i, quantile(*q, &mut values));
                }
            }
            if column.present() > 0 {
                let drop_name = members.first().is_some_and(|member| vector.series[*member].drop_name);
                out.push(Series { labels, drop_name, column });
            }
        }
        Ok(Vector { series: out, held })
    }

    fn count_values(&mut self, aggregate: &Aggregate, label: &str, vector: Vector, steps: Steps) -> Result<Vector> {
        if !is_label_name(label) {
            return Err(execution(format!("invalid label name {}", quote(label))));
        }
        let mut out: IndexMap<Labels, Series, ahash::RandomState> = IndexMap::default();
        let mut held = self.room(0, 0)?;
        for series in &vector.series {
            self.context.check()?;
            for i in 0..steps.count {
                let text = match series.column.get(i) {
                    Some(Point::Float(value)) => format_scalar(value),
                    Some(Point::Histogram(histogram)) => text(&histogram),
                    None => continue,
                };
                let labels = group_labels(&series.labels.with(label, &text), aggregate, Some(label));
                if !out.contains_key(&labels) {
                    held.grow(steps.count * super::BYTES_PER_STEP)?;
                }
                let entry = out.entry(labels.clone()).or_insert_with(|| Series {
                    labels,
                    drop_name: series.drop_name,
                    column: Column::new(steps.count),
                });
                let count = entry.column.float(i).unwrap_or(0.0);
                entry.column.set_float(i, count + 1.0);
            }
        }
        Ok(Vector { series: out.into_values().collect(), held: Some(held) })
    }

    fn topk(&mut self, id: NodeId, aggregate: &Aggregate, k: &[usize], vector: Vector, steps: Steps) -> Result<Vector> {
        let descending = aggregate.op == AggregateOp::Topk;
        let groups = self.grouped(aggregate, &vector);
        let held = Some(self.room(vector.series.len(), steps.count)?);
        let mut order = Vec::new();
        let mut columns: Vec<Column> = vec![Column::new(0); vector.series.len()];
        for members in groups.into_values() {
            self.context.check()?;
            let mut values: Vec<(f64, usize)> = Vec::with_capacity(members.len());
            for member in &members {
                columns[*member] = Column::new(steps.count);
            }
            for (i, k) in k.iter().enumerate() {
                values.clear();
                for member in &members {
                    let column = &vector.series[*member].column;
                    match column.float(i) {
                        Some(value) => values.push((value, *member)),
                        None if column.has(i) => self.ignored(aggregate.op, self.at(id)),
                        None => {}
                    }
                }
                values.sort_by(|a, b| nan_last(a.0, b.0, descending).then(a.1.cmp(&b.1)));
                values.truncate(*k);
                for (value, member) in &values {
                    columns[*member].set_float(i, *value);
                }
            }
            // The order of an instant query is that of its values; a range query is sorted by labels later.
            order.extend(values.iter().map(|(_, member)| *member));
            if steps.count != 1 {
                order.extend(members);
            }
        }
        Ok(Vector { series: picked(vector, columns, order), held })
    }

    fn limitk(&mut self, aggregate: &Aggregate, k: &[usize], vector: Vector, steps: Steps) -> Result<Vector> {
        let groups = self.grouped(aggregate, &vector);
        let held = Some(self.room(vector.series.len(), steps.count)?);
        let mut columns: Vec<Column> = vec![Column::new(steps.count); vector.series.len()];
        let mut order = Vec::new();
        for members in groups.into_values() {
            for (i, k) in k.iter().enumerate() {
                let mut left = *k;
                for member in &members {
                    if left == 0 {
                        break;
                    }
                    if let Some(point) = vector.series[*member].column.get(i) {
                        columns[*member].set(i, point);
                        left -= 1;
                    }
                }
            }
            order.extend(members);
        }
        Ok(Vector { series: picked(vector, columns, order), held })
    }

    fn limit_ratio(&mut self, aggregate: &Aggregate, ratio: &[f64], mut vector: Vector) -> Result<Vector> {
        if ratio.iter().any(|ratio| ratio.is_nan()) {
            return Err(execution("Ratio value is NaN"));
        }
        let at = aggregate.param.map_or(0, |param| self.at(param));
        let mut capped = Vec::with_capacity(ratio.len());
        for ratio in ratio {
            let cap = ratio.clamp(-1.0, 1.0);
            if cap != *ratio {
                let (got, cap) = (short(*ratio), short(cap));
                let message = format!("ratio value should be between -1 and 1, got {got}, capping to {cap}");
                self.notices.warn(at, message);
            }
            capped.push(cap);
        }
        for series in &mut vector.series {
            // The top 53 bits as a fraction of one, mixed once more so that other uses of the hash are independent.
            let id = series.labels.id().0;
            let mixed = (id ^ (id >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
            let fraction = (mixed >> 11) as f64 / (1u64 << 53) as f64;
            for (i, ratio) in capped.iter().enumerate() {
                let kept = if *ratio >= 0.0 { fraction < *ratio } else { fraction >= 1.0 + *ratio };
                if !kept {
                    series.column.clear(i);
                }
            }
        }
        vector.series.retain(|series| series.column.present() > 0);
        Ok(vector)
    }
}

/// The histogram of one group at one step, with what must be told of it.
fn summed_up(total: &Total, mean: bool, notes: &mut Notes<'_>) -> Option<Arc<Histogram>> {
    if total.incompatible {
        notes.mixed_schemas();
        return None;
    }
    if total.collision() {
        notes.collision("aggregation");
    }
    if total.reconciled {
        notes.reconciled("aggregation");
    }
    total.finish(mean).map(Arc::new)
}

/// Numbers of elements: truncated, none below one.
fn counts(k: &[f64]) -> Result<Vec<usize>> {
    let count = |k: &f64| {
        if k.is_nan() {
            return Err(execution("Parameter value is NaN"));
        }
        // 2^63, the first number that 64 signed bits do not hold.
        const LIMIT: f64 = 9_223_372_036_854_775_808.0;
        if *k >= LIMIT {
            return Err(execution(format!("Scalar value {} overflows int64", short(*k))));
        }
        if *k <= -LIMIT {
            return Err(execution(format!("Scalar value {} underflows int64", short(*k))));
        }
        Ok(if *k < 1.0 { 0 } else { *k as usize })
    };
    k.iter().map(count).collect()
}

/// The series in `order`, each once, with new columns; those without a value are left out.
fn picked(vector: Vector, columns: Vec<Column>, order: Vec<usize>) -> Vec<Series> {
    let mut columns: Vec<Option<Column>> = columns.into_iter().map(Some).collect();
    let mut out = Vec::new();
    for i in order {
        if let Some(column) = columns[i].take()
            && column.present() > 0
        {
            let series = &vector.series[i];
            out.push(Series { labels: series.labels.clone(), drop_name: series.drop_name, column });
        }
    }
    out
}

/// One group at one step.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Floats.
    count: f64,
    /// Histograms.
    histograms: usize,
    value: f64,
    mean: Mean,
    sum: Sum,
}

impl State {
    fn add(&mut self, op: AggregateOp, value: f64) {
        self.count += 1.0;
        let first = self.count == 1.0;
        match op {
            AggregateOp::Sum if first => self.sum = Sum { sum: value, lost: 0.0 },
            AggregateOp::Sum => self.sum.add(value),
            AggregateOp::Avg => self.mean.add(value),
            AggregateOp::Min if first || value < self.value || self.value.is_nan() => self.value = value,
            AggregateOp::Max if first || value > self.value || self.value.is_nan() => self.value = value,
            AggregateOp::Stddev | AggregateOp::Stdvar => {
                // `sum` holds the running mean, `value` the squares of the distances.
                let delta = value - self.sum.sum;
                self.sum.sum += delta / self.count;
                self.value += delta * (value - self.sum.sum);
                if !value.is_finite() {
                    self.value = f64::NAN;
                }
            }
            _ => {}
        }
    }

    fn finish(&self, op: AggregateOp) -> Option<f64> {
        let total = self.count + self.histograms as f64;
        match op {
            AggregateOp::Count => return (total > 0.0).then_some(total),
            AggregateOp::Group => return (total > 0.0).then_some(1.0),
            AggregateOp::Sum | AggregateOp::Avg if self.histograms > 0 => return None,
            _ => {}
        }
        (self.count > 0.0).then(|| match op {
            AggregateOp::Sum => self.sum.total(),
            AggregateOp::Avg => self.mean.mean(),
            AggregateOp::Stddev => (self.value / self.count).sqrt(),
            AggregateOp::Stdvar => self.value / self.count,
            _ => self.value,
        })
    }
}

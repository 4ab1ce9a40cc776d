//! Binary operators and unary minus.

use std::sync::Arc;

use indexmap::IndexMap;
use storage::model::histogram::Histogram;
use storage::model::labels::Labels;

use super::super::ast::{Binary, BinaryOp, Cardinality, Matching, NodeId};
use super::super::plan::Steps;
use super::matching::{Group, Groups, drops_name, duplicate, groups, key, result_labels};
use super::native::ops::{add, divide, equal, scale, sub};
use super::native::trim::trim;
use super::notice::{Notes, Notices};
use super::scalar::zip;
use super::value::{Evaluated, Point, Series, Vector};
use super::{Column, Evaluator, merged};
use crate::error::{Error, Kind, Result};

fn execution(message: impl Into<String>) -> Error {
    Error::new(Kind::Execution, message)
}

/// The float that an arithmetic operator gives, or 0 and 1 of a comparison.
fn arithmetic(op: BinaryOp, l: f64, r: f64) -> f64 {
    let truth = |value: bool| if value { 1.0 } else { 0.0 };
    match op {
        BinaryOp::Add => l + r,
        BinaryOp::Sub => l - r,
        BinaryOp::Mul => l * r,
        BinaryOp::Div => l / r,
        BinaryOp::Mod => l % r,
        BinaryOp::Pow => l.powf(r),
        BinaryOp::Atan2 => l.atan2(r),
        BinaryOp::Eq => truth(l == r),
        BinaryOp::Ne => truth(l != r),
        BinaryOp::Lt => truth(l < r),
        BinaryOp::Le => truth(l <= r),
        BinaryOp::Gt => truth(l > r),
        BinaryOp::Ge => truth(l >= r),
        BinaryOp::And | BinaryOp::Or | BinaryOp::Unless | BinaryOp::TrimUpper | BinaryOp::TrimLower => f64::NAN,
    }
}

/// One operation on pairs of values.
struct Operation<'a> {
    op: BinaryOp,
    bool_modifier: bool,
    /// Which operand a filtering comparison gives back: the vector's.
    keep_right: bool,
    at: usize,
    notices: &'a mut Notices,
}

impl Operation<'_> {
    /// The result, or nothing if a comparison filters it out or the types do not fit.
    fn apply(&mut self, l: &Point, r: &Point) -> Option<Point> {
        match (l, r) {
            (Point::Float(l), Point::Float(r)) => self.floats(*l, *r).map(Point::Float),
            (l, r) => self.histograms(l, r),
        }
    }

    fn floats(&mut self, l: f64, r: f64) -> Option<f64> {
        if matches!(self.op, BinaryOp::TrimUpper | BinaryOp::TrimLower) {
            self.incompatible("float", "float");
            return None;
        }
        let value = arithmetic(self.op, l, r);
        if self.op.is_comparison() && !self.bool_modifier {
            return (value == 1.0).then_some(if self.keep_right { r } else { l });
        }
        Some(value)
    }

    /// The operations that histograms know; all others leave the element out.
    fn histograms(&mut self, l: &Point, r: &Point) -> Option<Point> {
        let made = |h: Histogram| Some(Point::Histogram(Arc::new(h)));
        match (l, self.op, r) {
            (Point::Histogram(h), BinaryOp::Mul, Point::Float(factor))
            | (Point::Float(factor), BinaryOp::Mul, Point::Histogram(h)) => return made(scale(h, *factor)),
            (Point::Histogram(h), BinaryOp::Div, Point::Float(divisor)) => return made(divide(h, *divisor)),
            (Point::Histogram(h), op @ (BinaryOp::TrimUpper | BinaryOp::TrimLower), Point::Float(x)) => {
                return made(trim(h, *x, op == BinaryOp::TrimUpper));
            }
            (Point::Histogram(a), op @ (BinaryOp::Add | BinaryOp::Sub), Point::Histogram(b)) => {
                return self.combine(a, b, op == BinaryOp::Add);
            }
            (Point::Histogram(a), op @ (BinaryOp::Eq | BinaryOp::Ne), Point::Histogram(b)) => {
                let holds = equal(a, b) == (op == BinaryOp::Eq);
                if self.bool_modifier {
                    return Some(Point::Float(if holds { 1.0 } else { 0.0 }));
                }
                return holds.then(|| Point::Histogram(Arc::clone(a)));
            }
            _ => {}
        }
        let name = |point: &Point| if point.float().is_some() { "float" } else { "histogram" };
        self.incompatible(name(l), name(r));
        None
    }

    fn combine(&mut self, a: &Histogram, b: &Histogram, addition: bool) -> Option<Point> {
        let (result, word) = if addition { (add(a, b), "addition") } else { (sub(a, b), "subtraction") };
        let mut notes = Notes { notices: self.notices, at: self.at, metric: "" };
        let Ok(result) = result else {
            let op = self.op.as_str();
            notes.notices.warn(notes.at, format!("incompatible bucket layout encountered for binary operator {op}"));
            return None;
        };
        if result.collision {
            notes.collision(word);
        }
        if result.reconciled {
            notes.reconciled(word);
        }
        Some(Point::Histogram(Arc::new(result.histogram)))
    }

    fn incompatible(&mut self, l: &str, r: &str) {
        let op = self.op.as_str();
        let message = format!("incompatible sample types encountered for binary operator \"{op}\": {l} {op} {r}");
        self.notices.info(self.at, message);
    }
}

impl Evaluator<'_> {
    pub(super) fn negate(&mut self, value: Evaluated) -> Result<Evaluated> {
        match value {
            Evaluated::Scalar(values) => Ok(Evaluated::Scalar(values.iter().map(|value| -value).collect())),
            Evaluated::Vector(mut vector) => {
                for series in &mut vector.series {
                    for i in 0..series.column.len() {
                        match series.column.get(i) {
                            Some(Point::Float(value)) => series.column.set_float(i, -value),
                            Some(Point::Histogram(h)) => {
                                series.column.set(i, Point::Histogram(Arc::new(scale(&h, -1.0))));
                            }
                            None => {}
                        }
                    }
                }
                let count = vector.series.len();
                let vector = self.renamed(vector)?;
                // Two series of one label set are an error even if they have no step in common.
                if vector.series.len() != count && !self.options.delayed_name_removal {
                    return Err(super::same_labelset());
                }
                Ok(Evaluated::Vector(vector))
            }
            other => Ok(other),
        }
    }

    pub(super) fn binary(
        &mut self,
        id: NodeId,
        binary: &Binary,
        lhs: Evaluated,
        rhs: Evaluated,
        steps: Steps,
    ) -> Result<Evaluated> {
        match (lhs, rhs) {
            (Evaluated::Scalar(l), Evaluated::Scalar(r)) => {
                Ok(Evaluated::Scalar(zip(&l, &r, |l, r| arithmetic(binary.op, l, r))))
            }
            (Evaluated::Vector(l), Evaluated::Scalar(r)) => self.with_scalar(id, binary, l, &r, false),
            (Evaluated::Scalar(l), Evaluated::Vector(r)) => self.with_scalar(id, binary, r, &l, true),
            (Evaluated::Vector(l), Evaluated::Vector(r)) if binary.op.is_set() => {
                self.set_operation(binary, l, r, steps).map(Evaluated::Vector)
            }
            (Evaluated::Vector(l), Evaluated::Vector(r)) => {
                let room = l.series.len().max(r.series.len());
                let held = Some(self.room(room, steps.count)?);
                let series = self.matched(id, binary, &l.series, &r.series, steps)?;
                Ok(Evaluated::Vector(Vector { series: merged(series)?, held }))
            }
            _ => Err(super::missing()),
        }
    }

    fn with_scalar(
        &mut self,
        id: NodeId,
        binary: &Binary,
        mut vector: Vector,
        scalar: &[f64],
        scalar_left: bool,
    ) -> Result<Evaluated> {
        let at = self.at(id);
        let mut operation = Operation {
            op: binary.op,
            bool_modifier: binary.bool_modifier,
            keep_right: scalar_left,
            at,
            notices: &mut self.notices,
        };
        for series in &mut vector.series {
            let column = &mut series.column;
            for (i, scalar) in scalar.iter().enumerate() {
                let result = match column.float(i) {
                    Some(value) => {
                        let (l, r) = if scalar_left { (*scalar, value) } else { (value, *scalar) };
                        operation.floats(l, r).map(Point::Float)
                    }
                    None => {
                        let Some(value) = column.get(i) else { continue };
                        let scalar = Point::Float(*scalar);
                        let (l, r) = if scalar_left { (&scalar, &value) } else { (&value, &scalar) };
                        operation.apply(l, r)
                    }
                };
                match result {
                    Some(Point::Float(value)) => column.set_float(i, value),
                    Some(point) => column.set(i, point),
                    None => column.clear(i),
                }
            }
        }
        vector.series.retain(|series| series.column.present() > 0);
        if drops_name(binary.op, binary.bool_modifier) {
            return self.renamed(vector).map(Evaluated::Vector);
        }
        Ok(Evaluated::Vector(vector))
    }

    fn set_operation(&self, binary: &Binary, l: Vector, r: Vector, steps: Steps) -> Result<Vector> {
        let matching = &binary.matching;
        // `or` keeps the left side as it is and filters the right one; the others filter the left one.
        let (kept, other) = if binary.op == BinaryOp::Or { (&r, &l) } else { (&l, &r) };
        let mut present: IndexMap<Labels, Vec<bool>, ahash::RandomState> = IndexMap::default();
        for series in &other.series {
            let mask = present.entry(key(&series.labels, matching)).or_insert_with(|| vec![false; steps.count]);
            for (i, seen) in mask.iter_mut().enumerate() {
                *seen |= series.column.has(i);
            }
        }
        let wanted = binary.op == BinaryOp::And;
        let mut filtered = Vec::new();
        for series in &kept.series {
            let mask = present.get(&key(&series.labels, matching));
            let mut series = series.clone();
            for i in 0..steps.count {
                if mask.is_some_and(|mask| mask[i]) != wanted {
                    series.column.clear(i);
                }
            }
            if series.column.present() > 0 {
                filtered.push(series);
            }
        }
        if binary.op != BinaryOp::Or {
            return Ok(Vector { series: filtered, held: l.held });
        }
        let mut series = l.series;
        series.append(&mut filtered);
        Ok(Vector { series: merged(series)?, held: l.held })
    }

    /// Arithmetic and comparison of two vectors.
    fn matched(
        &mut self,
        id: NodeId,
        binary: &Binary,
        lhs: &[Series],
        rhs: &[Series],
        steps: Steps,
    ) -> Result<Vec<Series>> {
        let matching = &binary.matching;
        let swapped = matching.cardinality == Cardinality::OneToMany;
        let (many, one) = if swapped { (rhs, lhs) } else { (lhs, rhs) };
        let (fill_many, fill_one) = match swapped {
            true => (matching.fill_right, matching.fill_left),
            false => (matching.fill_left, matching.fill_right),
        };
        let groups = groups(many, one, matching);
        check_duplicates(&groups, many, one, binary, steps)?;
        let mut pairing = Pairing {
            operation: Operation {
                op: binary.op,
                bool_modifier: binary.bool_modifier,
                keep_right: false,
                at: self.plan.ast.span(id).start,
                notices: &mut self.notices,
            },
            matching,
            swapped,
            steps: steps.count,
            out: Vec::new(),
        };
        for (key, group) in &groups {
            self.context.check()?;
            pairing.group(key, group, many, one, fill_many, fill_one)?;
        }
        let mut out = pairing.out;
        if drops_name(binary.op, binary.bool_modifier) {
            for series in &mut out {
                self.drop_name(&mut series.labels, &mut series.drop_name);
            }
        }
        Ok(out)
    }
}

/// Two elements of the one side with one key at one step fail, unless a side is empty there.
fn check_duplicates(groups: &Groups, many: &[Series], one: &[Series], binary: &Binary, steps: Steps) -> Result<()> {
    if groups.values().all(|group| group.one.len() < 2) {
        return Ok(());
    }
    let any = |side: &[Series], i: usize| side.iter().any(|series| series.column.has(i));
    let filled = binary.matching.fill_left.is_some() || binary.matching.fill_right.is_some();
    for i in 0..steps.count {
        if !filled && !any(many, i) {
            continue;
        }
        for (key, group) in groups.iter().filter(|(_, group)| group.one.len() > 1) {
            let mut present = group.one.iter().filter(|j| one[**j].column.has(i));
            if let (Some(a), Some(b)) = (present.next(), present.next()) {
                return Err(execution(duplicate(key, &one[*a].labels, &one[*b].labels, &binary.matching)));
            }
        }
    }
    Ok(())
}

/// Makes results of partners, group by group.
struct Pairing<'a> {
    operation: Operation<'a>,
    matching: &'a Matching,
    swapped: bool,
    steps: usize,
    out: Vec<Series>,
}

impl Pairing<'_> {
    fn group(
        &mut self,
        key: &Labels,
        group: &Group,
        many: &[Series],
        one: &[Series],
        fill_many: Option<f64>,
        fill_one: Option<f64>,
    ) -> Result<()> {
        let mut results = Results { labels: IndexMap::default(), matched: Vec::new() };
        for m in &group.many {
            let many = &many[*m];
            for o in &group.one {
                let one = &one[*o];
                let labels = result_labels(&many.labels, Some(&one.labels), self.matching);
                let column = self.pair(|i| many.column.get(i), |i| one.column.get(i));
                self.insert(&mut results, labels, many.drop_name, column)?;
            }
            if let Some(fill) = fill_one {
                let absent = |i: usize| !group.one.iter().any(|o| one[*o].column.has(i));
                let column = self.pair(|i| many.column.get(i), |i| absent(i).then_some(Point::Float(fill)));
                // Labels of the one side are not made up: the copied ones are those of the match alone.
                let labels = result_labels(&many.labels, Some(key), self.matching);
                self.insert(&mut results, labels, many.drop_name, column)?;
            }
        }
        if let Some(fill) = fill_many {
            let absent = |i: usize| !group.many.iter().any(|m| many[*m].column.has(i));
            for o in &group.one {
                let one = &one[*o];
                let column = self.pair(|i| absent(i).then_some(Point::Float(fill)), |i| one.column.get(i));
                let labels = result_labels(key, Some(&one.labels), self.matching);
                self.insert(&mut results, labels, false, column)?;
            }
        }
        self.out.extend(results.labels.into_values());
        Ok(())
    }

    fn pair(&mut self, many: impl Fn(usize) -> Option<Point>, one: impl Fn(usize) -> Option<Point>) -> Column {
        let mut column = Column::new(self.steps);
        for i in 0..self.steps {
            let (Some(m), Some(o)) = (many(i), one(i)) else { continue };
            let (l, r) = if self.swapped { (&o, &m) } else { (&m, &o) };
            if let Some(point) = self.operation.apply(l, r) {
                column.set(i, point);
            }
        }
        column
    }

    /// Adds a result to its group: every step takes one result per match (one to one) or per label set.
    fn insert(&mut self, results: &mut Results, labels: Labels, drop_name: bool, column: Column) -> Result<()> {
        if column.present() == 0 {
            return Ok(());
        }
        if self.matching.cardinality == Cardinality::OneToOne {
            results.matched.resize(self.steps, false);
            for (i, matched) in results.matched.iter_mut().enumerate().filter(|(i, _)| column.has(*i)) {
                let _ = i;
                if std::mem::replace(matched, true) {
                    return Err(execution(
                        "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
                    ));
                }
            }
        }
        let fresh = Series { labels: labels.clone(), drop_name, column: Column::new(self.steps) };
        let series = results.labels.entry(labels).or_insert(fresh);
        for i in 0..self.steps {
            let Some(point) = column.get(i) else { continue };
            if series.column.has(i) {
                return Err(execution("multiple matches for labels: grouping labels must ensure unique matches"));
            }
            series.column.set(i, point);
        }
        Ok(())
    }
}

/// The results of one group.
struct Results {
    labels: IndexMap<Labels, Series, ahash::RandomState>,
    /// One to one: the steps that have a result.
    matched: Vec<bool>,
}

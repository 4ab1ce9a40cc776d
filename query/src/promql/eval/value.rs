//! Values during evaluation: series × steps.
//!
//! Owns: [`Column`] and what is made of columns. Does not own: the values of answers (`promql`).

use std::sync::Arc;

use storage::budget::Reservation;
use storage::model::histogram::Histogram;
use storage::model::labels::{Labels, METRIC_NAME};

use super::super::ast::Extent;
use super::super::load::Samples;
use super::super::plan::Window;

/// One value.
#[derive(Clone, Debug)]
pub(in crate::promql) enum Point {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<Histogram>),
}

impl Point {
    /// The float, if it is one.
    pub fn float(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            Self::Histogram(_) => None,
        }
    }
}

const NONE: u8 = 0;
const FLOAT: u8 = 1;
const HISTOGRAM: u8 = 2;

/// The values of one series at all steps; a step may have none.
#[derive(Clone, Debug)]
pub(in crate::promql) struct Column {
    kinds: Vec<u8>,
    floats: Vec<f64>,
    /// Empty until the first histogram comes.
    histograms: Vec<Option<Arc<Histogram>>>,
    present: usize,
}

impl Column {
    /// `steps` steps without a value.
    pub fn new(steps: usize) -> Self {
        Self { kinds: vec![NONE; steps], floats: vec![0.0; steps], histograms: Vec::new(), present: 0 }
    }

    /// A column of floats at every step.
    pub fn full(floats: Vec<f64>) -> Self {
        Self { kinds: vec![FLOAT; floats.len()], present: floats.len(), floats, histograms: Vec::new() }
    }

    /// How many steps.
    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    /// How many steps have a value.
    pub fn present(&self) -> usize {
        self.present
    }

    /// Whether step `i` has a value.
    pub fn has(&self, i: usize) -> bool {
        self.kinds[i] != NONE
    }

    /// The float of step `i`.
    pub fn float(&self, i: usize) -> Option<f64> {
        (self.kinds[i] == FLOAT).then(|| self.floats[i])
    }

    /// The histogram of step `i`.
    pub fn histogram(&self, i: usize) -> Option<&Arc<Histogram>> {
        self.histograms.get(i).and_then(Option::as_ref)
    }

    /// The value of step `i`.
    pub fn get(&self, i: usize) -> Option<Point> {
        match self.kinds[i] {
            FLOAT => Some(Point::Float(self.floats[i])),
            HISTOGRAM => self.histogram(i).map(|h| Point::Histogram(Arc::clone(h))),
            _ => None,
        }
    }

    /// Sets step `i`.
    pub fn set(&mut self, i: usize, point: Point) {
        match point {
            Point::Float(value) => self.set_float(i, value),
            Point::Histogram(histogram) => {
                self.clear(i);
                if self.histograms.is_empty() {
                    self.histograms = vec![None; self.kinds.len()];
                }
                self.present += 1;
                self.kinds[i] = HISTOGRAM;
                self.histograms[i] = Some(histogram);
            }
        }
    }

    /// Sets step `i` to a float.
    pub fn set_float(&mut self, i: usize, value: f64) {
        self.clear(i);
        self.present += 1;
        self.kinds[i] = FLOAT;
        self.floats[i] = value;
    }

    /// Takes the value of step `i` away.
    pub fn clear(&mut self, i: usize) {
        if self.kinds[i] != NONE {
            self.present -= 1;
            self.kinds[i] = NONE;
            if let Some(histogram) = self.histograms.get_mut(i) {
                *histogram = None;
            }
        }
    }

    /// Changes every float; histograms go away.
    pub fn map_floats(&mut self, f: impl Fn(f64) -> f64) {
        for i in 0..self.kinds.len() {
            match self.kinds[i] {
                FLOAT => self.floats[i] = f(self.floats[i]),
                HISTOGRAM => self.clear(i),
                _ => {}
            }
        }
    }

    /// The only step's value at `count` steps.
    pub fn repeated(&self, count: usize) -> Self {
        let mut out = Self::new(count);
        if let Some(point) = self.get(0) {
            for i in 0..count {
                out.set(i, point.clone());
            }
        }
        out
    }
}

/// One series of a vector.
#[derive(Clone, Debug)]
pub(in crate::promql) struct Series {
    /// Its labels.
    pub labels: Labels,
    /// Whether the metric name is to go at the end; used only when names are removed late.
    pub drop_name: bool,
    /// Its values.
    pub column: Column,
}

/// An instant vector at all steps.
#[derive(Debug)]
pub(in crate::promql) struct Vector {
    /// The series, in the order of the answer.
    pub series: Vec<Series>,
    /// The memory they take.
    pub held: Option<Reservation>,
}

impl Vector {
    /// Values of all series.
    pub fn points(&self) -> usize {
        self.series.iter().map(|series| series.column.present()).sum()
    }
}

/// One series of a range vector.
#[derive(Clone, Debug)]
pub(in crate::promql) struct RangeSeries {
    /// Its labels.
    pub labels: Labels,
    /// Whether the metric name is to go at the end.
    pub drop_name: bool,
    /// All samples of all windows, without staleness markers.
    pub samples: Arc<Samples>,
}

/// A range vector: the samples of all windows together, and how windows lie.
#[derive(Debug)]
pub(in crate::promql) struct Range {
    /// The series.
    pub series: Vec<RangeSeries>,
    /// The window of a step.
    pub window: Window,
    /// How its ends are treated.
    pub extent: Extent,
    /// The memory they take, if they are not the loaded ones; given back on drop.
    pub _held: Option<Reservation>,
}

/// The value of one node at all steps.
#[derive(Debug)]
pub(in crate::promql) enum Evaluated {
    /// One number per step.
    Scalar(Vec<f64>),
    /// A text.
    Text(String),
    /// A vector.
    Vector(Vector),
    /// A range vector.
    Range(Range),
}

impl Evaluated {
    /// Values held.
    pub fn points(&self) -> usize {
        match self {
            Self::Scalar(values) => values.len(),
            Self::Text(_) => 0,
            Self::Vector(vector) => vector.points(),
            Self::Range(range) => range.series.iter().map(|series| series.samples.len()).sum(),
        }
    }
}

/// Whether a label goes where the metric name goes.
pub(super) fn is_metadata(name: &str) -> bool {
    matches!(name, METRIC_NAME | "__type__" | "__unit__")
}

/// `labels` without the metric name and what describes the metric.
pub(super) fn without_name(labels: &Labels) -> Labels {
    labels.without(is_metadata)
}

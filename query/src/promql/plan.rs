//! Checked syntax tree + times → what to read and how windows lie.
//!
//! Owns: resolved durations and `@` times, which parts are the same at every step, and the list of data needs.
//! Does not own: reading (`load`).
//!
//! Invariants
//! 1. Every selector has exactly one need, and its need covers every window in which it is evaluated.
//! 2. Times stay far from the ends of 64 bits, so that sums of a time and a few durations do not overflow.

use storage::model::labels::METRIC_NAME;
use storage::model::matcher::{MatchOp, Matcher};

use super::ast::{Ast, At, Duration, DurationExpr, DurationKind, DurationOp, Expr, Extent, NodeId, Shift};
use super::parser::parse_error;
use super::{Grid, Options};
use crate::error::Result;

/// Times of a query are clamped to ± this many milliseconds: 36 million years, an eighth of what 64 bits hold.
const TIME_MAX: i64 = i64::MAX / 8;

/// Evenly spaced times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Steps {
    /// The first, in milliseconds.
    pub start: i64,
    /// Their distance; above zero.
    pub step: i64,
    /// How many.
    pub count: usize,
}

impl Steps {
    /// One time.
    pub fn one(at: i64) -> Self {
        Self { start: at, step: 1, count: 1 }
    }

    /// `start`, `start + step`, … up to `end`.
    pub fn between(start: i64, end: i64, step: i64) -> Self {
        let count = if end < start { 0 } else { (end - start) / step.max(1) + 1 };
        Self { start, step: step.max(1), count: usize::try_from(count).unwrap_or(usize::MAX) }
    }

    /// The time of step `i`.
    pub fn at(&self, i: usize) -> i64 {
        self.start.saturating_add(self.step.saturating_mul(i64::try_from(i).unwrap_or(i64::MAX)))
    }

    /// The last time.
    pub fn end(&self) -> i64 {
        self.at(self.count.saturating_sub(1))
    }
}

/// A selector's or subquery's window, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// Its length: the range, or the lookback of an instant selector.
    pub range: i64,
    /// How far it is shifted back.
    pub offset: i64,
    /// Its fixed time, before the offset.
    pub at: Option<i64>,
    /// The step of a subquery.
    pub step: i64,
}

impl Window {
    /// The end of the window of the step at `ts`.
    pub fn end(&self, ts: i64) -> i64 {
        self.at.unwrap_or(ts) - self.offset
    }
}

/// Series to read, in a closed range of milliseconds.
#[derive(Clone, Debug)]
pub(super) struct Need {
    /// All must match.
    pub matchers: Vec<Matcher>,
    /// First time.
    pub from: i64,
    /// Last time.
    pub to: i64,
    /// Only counts and sums of histograms are asked for; then resets are told beforehand.
    pub resets: bool,
}

/// A query ready to be read and evaluated.
#[derive(Debug)]
pub(super) struct Plan {
    /// The expression.
    pub ast: Ast,
    /// The steps of the answer.
    pub steps: Steps,
    /// The end of the query as asked for; the last step may lie before it.
    pub end: i64,
    /// Whether the answer is a matrix over steps.
    pub is_range: bool,
    /// By node: the window of selectors and subqueries.
    pub windows: Vec<Option<Window>>,
    /// By node: the need that holds a selector's series.
    pub need_of: Vec<Option<usize>>,
    /// By node: whether its value is the same at every step.
    pub invariant: Vec<bool>,
    /// What to read.
    pub needs: Vec<Need>,
}

/// Plans `ast` over `grid`; an instant query has a grid of one step and `is_range` unset.
pub(super) fn plan(ast: Ast, grid: Grid, is_range: bool, options: &Options) -> Result<Plan> {
    let clamp = |t: i64| t.clamp(-TIME_MAX, TIME_MAX);
    let steps = Steps::between(clamp(grid.start.0), clamp(grid.end.0), grid.step_ms);
    let end = clamp(grid.end.0);
    let times = Times { text: &ast.text, steps, end, step_ms: if is_range { steps.step } else { 0 } };
    let windows = windows(&ast, &times, options)?;
    let invariant = invariant(&ast);
    let need_of = vec![None; ast.nodes.len()];
    let mut plan = Plan { ast, steps, end, is_range, windows, need_of, invariant, needs: Vec::new() };
    plan.find_needs(millis(options.lookback));
    Ok(plan)
}

fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(TIME_MAX).min(TIME_MAX)
}

fn windows(ast: &Ast, times: &Times<'_>, options: &Options) -> Result<Vec<Option<Window>>> {
    let mut windows = Vec::with_capacity(ast.nodes.len());
    for node in &ast.nodes {
        let window = match &node.expr {
            Expr::Vector(selector) => Some((millis(options.lookback), &selector.shift, 0)),
            Expr::Matrix { selector, range } => Some((times.positive(range)?, &selector.shift, 0)),
            Expr::Subquery { range, step, shift, .. } => {
                let step = match step {
                    Some(step) => times.positive(step)?,
                    None => millis(options.default_step).max(1),
                };
                Some((times.positive(range)?, shift, step))
            }
            _ => None,
        };
        windows.push(match window {
            Some((range, shift, step)) => Some(times.window(range, shift, step)?),
            None => None,
        });
    }
    Ok(windows)
}

/// The times that durations and `@` may name.
struct Times<'a> {
    text: &'a str,
    steps: Steps,
    end: i64,
    step_ms: i64,
}

impl Times<'_> {
    fn window(&self, range: i64, shift: &Shift, step: i64) -> Result<Window> {
        let offset = match &shift.offset {
            None => 0,
            Some(offset) => self.millis(offset)?,
        };
        let at = shift.at.map(|at| match at {
            At::Time(ms) => ms.clamp(-TIME_MAX, TIME_MAX),
            At::Start => self.steps.start,
            At::End => self.end,
        });
        Ok(Window { range, offset, at, step })
    }

    fn millis(&self, duration: &Duration) -> Result<i64> {
        match duration {
            Duration::Millis(ms) => Ok(*ms),
            Duration::Expr(expr) => {
                let seconds = self.seconds(expr)?;
                if seconds.is_nan() || seconds.abs() > 9_223_372_036.0 {
                    return Err(parse_error(self.text, expr.span, "duration out of range"));
                }
                Ok((seconds * 1000.0).round() as i64)
            }
        }
    }

    fn positive(&self, duration: &Duration) -> Result<i64> {
        let ms = self.millis(duration)?;
        match duration {
            Duration::Expr(expr) if ms <= 0 => {
                Err(parse_error(self.text, expr.span, "duration must be greater than 0"))
            }
            // A literal shorter than a millisecond.
            _ => Ok(ms.max(1)),
        }
    }

    /// Nesting of duration expressions is bounded by the parser.
    fn seconds(&self, expr: &DurationExpr) -> Result<f64> {
        Ok(match &expr.kind {
            DurationKind::Number(value, _) => *value,
            DurationKind::Step => self.step_ms as f64 / 1000.0,
            DurationKind::Range => (self.end - self.steps.start) as f64 / 1000.0,
            DurationKind::Unary(negative, inner) => {
                let value = self.seconds(inner)?;
                if *negative { -value } else { value }
            }
            DurationKind::Paren(inner) => self.seconds(inner)?,
            DurationKind::Binary(op, lhs, rhs) => {
                let (l, r) = (self.seconds(lhs)?, self.seconds(rhs)?);
                match op {
                    DurationOp::Add => l + r,
                    DurationOp::Sub => l - r,
                    DurationOp::Mul => l * r,
                    DurationOp::Div if r == 0.0 => {
                        return Err(parse_error(self.text, expr.span, "division by zero"));
                    }
                    DurationOp::Div => l / r,
                    DurationOp::Mod if r == 0.0 => {
                        return Err(parse_error(self.text, expr.span, "modulo by zero"));
                    }
                    DurationOp::Mod => l % r,
                    DurationOp::Pow => l.powf(r),
                    DurationOp::MinOf => l.min(r),
                    DurationOp::MaxOf => l.max(r),
                }
            }
        })
    }
}

/// Functions whose value depends on the time of the step even if no argument does.
fn depends_on_time(name: &str, args: usize) -> bool {
    match name {
        "time" | "predict_linear" | "timestamp" => true,
        "minute" | "hour" | "day_of_week" | "day_of_month" | "day_of_year" | "days_in_month" | "month" | "year" => {
            args == 0
        }
        _ => false,
    }
}

fn invariant(ast: &Ast) -> Vec<bool> {
    let mut out: Vec<bool> = Vec::with_capacity(ast.nodes.len());
    for node in &ast.nodes {
        let value = match &node.expr {
            Expr::Vector(selector) | Expr::Matrix { selector, .. } => selector.shift.at.is_some(),
            Expr::Subquery { shift, .. } => shift.at.is_some(),
            Expr::Call { function, args } if depends_on_time(function.name, args.len()) => false,
            expr => expr.children().iter().all(|child| out[child.0]),
        };
        out.push(value);
    }
    out
}

impl Plan {
    /// Walks from the root with the times at which each node is evaluated.
    fn find_needs(&mut self, lookback: i64) {
        let mut open = vec![(self.ast.root, self.steps.start, self.steps.end(), false)];
        while let Some((id, from, to, mut resets)) = open.pop() {
            let (mut from, mut to) = (from, to);
            if let Some(window) = self.windows[id.0] {
                from = window.end(from) - window.range;
                to = window.end(to);
            }
            let selector = match &self.ast.nodes[id.0].expr {
                Expr::Vector(selector) | Expr::Matrix { selector, .. } => Some(selector),
                _ => None,
            };
            if let Some(selector) = selector {
                // The window is open at its start; what lies at the ends of a window comes from one lookback around.
                let (before, after) = match selector.extent {
                    Extent::Plain => (0, 0),
                    Extent::Anchored => (lookback, 0),
                    Extent::Smoothed => (lookback, lookback),
                };
                let need = self.need(selector.matchers.clone(), from + 1 - before, to + after, resets);
                self.need_of[id.0] = Some(need);
                continue;
            }
            if let Some(need) = self.info_need(id, from, to, lookback) {
                let (first, labels) = need;
                open.push((first, from, to, false));
                if let Some(labels) = labels {
                    self.need_of[id.0] = Some(labels);
                }
                continue;
            }
            match self.ast.expr(id) {
                Expr::Subquery { .. } => resets = false,
                Expr::Call { function, .. } => match function.name {
                    "histogram_count" | "histogram_sum" | "histogram_avg" => resets = true,
                    name if name.starts_with("histogram_") => resets = false,
                    _ => {}
                },
                _ => {}
            }
            open.extend(self.ast.expr(id).children().into_iter().map(|child| (child, from, to, resets)));
        }
    }

    /// `info(v, {…})` reads the info series around the times of `v`; its second argument is no vector of its own.
    fn info_need(&mut self, id: NodeId, from: i64, to: i64, lookback: i64) -> Option<(NodeId, Option<usize>)> {
        let Expr::Call { function, args } = self.ast.expr(id) else { return None };
        if function.name != "info" {
            return None;
        }
        let first = *args.first()?;
        let given: Vec<Matcher> = match args.get(1).map(|id| self.ast.expr(*id)) {
            Some(Expr::Vector(selector)) => selector.matchers.clone(),
            _ => Vec::new(),
        };
        let matchers = info_matchers(&given)?;
        let path = self.reference(first);
        let at = |t: i64| path.iter().fold(t, |t, window| window.end(t));
        let (low, high) = (at(from).min(at(to)), at(from).max(at(to)));
        let need = self.need(matchers, low - lookback + 1, high, false);
        Some((first, Some(need)))
    }

    /// The windows between a node and the first selector beneath it: applied one after the other to the time of a step
    /// they give the time at which that selector is read.
    pub fn reference(&self, id: NodeId) -> Vec<Window> {
        let mut open = vec![(id, Vec::new())];
        while let Some((id, mut path)) = open.pop() {
            path.extend(self.windows[id.0]);
            let expr = self.ast.expr(id);
            if matches!(expr, Expr::Vector(_) | Expr::Matrix { .. }) {
                return path;
            }
            open.extend(expr.children().into_iter().rev().map(|child| (child, path.clone())));
        }
        Vec::new()
    }

    /// The number of the need for `matchers`; one that overlaps is widened.
    fn need(&mut self, matchers: Vec<Matcher>, from: i64, to: i64, resets: bool) -> usize {
        let found = self
            .needs
            .iter()
            .position(|need| need.resets == resets && need.matchers == matchers && need.from <= to && from <= need.to);
        match found {
            Some(i) => {
                let need = &mut self.needs[i];
                need.from = need.from.min(from);
                need.to = need.to.max(to);
                i
            }
            None => {
                self.needs.push(Need { matchers, from, to, resets });
                self.needs.len() - 1
            }
        }
    }
}

/// The selector of info series: the name matchers as given; `target_info` without any; `.+_info` if all are negative.
/// Matchers of other labels are left out: which of them must hold is decided per element.
pub(super) fn info_matchers(given: &[Matcher]) -> Option<Vec<Matcher>> {
    let mut names: Vec<Matcher> = given.iter().filter(|matcher| matcher.name == METRIC_NAME).cloned().collect();
    let positive = |matcher: &Matcher| matches!(matcher.op, MatchOp::Equal | MatchOp::Regex);
    if names.is_empty() {
        names.push(Matcher::new(METRIC_NAME, MatchOp::Equal, "target_info").ok()?);
    } else if !names.iter().any(positive) {
        names.push(Matcher::new(METRIC_NAME, MatchOp::Regex, ".+_info").ok()?);
    }
    Some(names)
}

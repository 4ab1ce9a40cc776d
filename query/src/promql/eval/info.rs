//! `info(v, {…})`: labels of info metrics joined to series.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use indexmap::IndexMap;
use storage::model::labels::{Labels, METRIC_NAME};
use storage::model::matcher::Matcher;

use super::super::ast::Expr;
use super::super::load::RawSeries;
use super::super::plan::{Window, info_matchers};
use super::select::{Cursor, Found};
use super::value::{Evaluated, Series, Vector};
use super::{Call, Column, Evaluator, merged, missing, take_vector};
use crate::error::{Error, Kind, Result};

/// The labels that say which target a series belongs to.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

fn execution(message: String) -> Error {
    Error::new(Kind::Execution, message)
}

/// An info series and the time of its newest sample at each step.
struct Info<'a> {
    labels: &'a Labels,
    /// What of its labels is copied.
    copied: Vec<(&'a str, &'a str)>,
    times: Vec<Option<i64>>,
}

/// What the second argument demands.
struct Demand {
    names: Vec<Matcher>,
    labels: Vec<Matcher>,
}

impl Demand {
    fn copies(&self, name: &str) -> bool {
        let identifying = name == METRIC_NAME || IDENTIFYING.contains(&name);
        !identifying && (self.labels.is_empty() || self.labels.iter().any(|matcher| matcher.name == name))
    }

    /// Whether a series without an info series stays.
    fn spares(&self) -> bool {
        self.labels.iter().all(Matcher::matches_empty)
    }
}

/// `info(v, {…})`
pub(in crate::promql) fn info(e: &mut Evaluator<'_>, call: &Call<'_>, mut args: Vec<Evaluated>) -> Result<Evaluated> {
    let vector = take_vector(&mut args)?;
    let given: &[Matcher] = match call.args.get(1).map(|id| e.ast().expr(*id)) {
        Some(Expr::Vector(selector)) => &selector.matchers,
        _ => &[],
    };
    let labels = given.iter().filter(|matcher| matcher.name != METRIC_NAME).cloned().collect();
    let demand = Demand { names: info_matchers(given).ok_or_else(missing)?, labels };
    let path = call.args.first().map(|arg| e.plan.reference(*arg)).unwrap_or_default();
    let data = e.data;
    let need = e.plan.need_of[call.id.0].ok_or_else(missing)?;
    let raw = data.selections.get(need).ok_or_else(missing)?;
    let infos = infos(e, call, raw, &demand, &path)?;
    let mut by_target: HashMap<Labels, Vec<usize>> = HashMap::new();
    for (i, info) in infos.iter().enumerate() {
        by_target.entry(target(info.labels)).or_default().push(i);
    }
    let mut out = Vec::with_capacity(vector.series.len());
    for series in &vector.series {
        e.context.check()?;
        if demand.names.iter().all(|matcher| matcher.matches_labels(&series.labels)) {
            out.push(series.clone());
            continue;
        }
        let target = target(&series.labels);
        let candidates = by_target.get(&target).filter(|_| !target.is_empty()).map_or(&[][..], Vec::as_slice);
        join(series, &infos, candidates, &demand, &mut out)?;
    }
    Ok(Evaluated::Vector(Vector { series: merged(out)?, held: vector.held }))
}

fn target(labels: &Labels) -> Labels {
    labels.without(|name| !IDENTIFYING.contains(&name))
}

fn infos<'a>(
    e: &Evaluator<'_>,
    call: &Call<'_>,
    raw: &'a [RawSeries],
    demand: &Demand,
    path: &[Window],
) -> Result<Vec<Info<'a>>> {
    let lookback = i64::try_from(e.options.lookback.as_millis()).unwrap_or(i64::MAX / 8);
    let mut out = Vec::new();
    for one in raw.iter().filter(|one| demand.labels.iter().all(|matcher| matcher.matches_labels(&one.labels))) {
        e.context.check()?;
        let mut cursor = Cursor::default();
        let mut times = Vec::with_capacity(call.steps.count);
        for i in 0..call.steps.count {
            // Info series are looked up when the samples of the first argument were.
            let at = path.iter().fold(call.steps.at(i), |t, window| window.end(t));
            times.push(match cursor.newest(&one.all, at, lookback) {
                Some(Found::Float(j)) => Some(one.all.ts[j]),
                Some(Found::Histogram(_)) => {
                    return Err(execution("this should be an info metric, with float samples".to_owned()));
                }
                None => None,
            });
        }
        let copied = one.labels.iter().filter(|(name, _)| demand.copies(name)).collect();
        out.push(Info { labels: &one.labels, copied, times });
    }
    Ok(out)
}

/// Adds `series` with the labels of its info series, which may change from step to step.
fn join(
    series: &Series,
    infos: &[Info<'_>],
    candidates: &[usize],
    demand: &Demand,
    out: &mut Vec<Series>,
) -> Result<()> {
    let steps = series.column.len();
    let mut known: IndexMap<Vec<usize>, Series, ahash::RandomState> = IndexMap::default();
    for i in 0..steps {
        let Some(point) = series.column.get(i) else { continue };
        let chosen = newest(infos, candidates, i)?;
        if !known.contains_key(&chosen) {
            let (labels, added) = joined(&series.labels, infos, &chosen)?;
            if !added && !demand.spares() {
                continue;
            }
            let fresh = Series { labels, drop_name: series.drop_name, column: Column::new(steps) };
            known.insert(chosen.clone(), fresh);
        }
        if let Some(series) = known.get_mut(&chosen) {
            series.column.set(i, point);
        }
    }
    out.extend(known.into_values());
    Ok(())
}

/// For each info metric the series with the newest sample at step `i`.
fn newest(infos: &[Info<'_>], candidates: &[usize], i: usize) -> Result<Vec<usize>> {
    let mut best: BTreeMap<&str, (i64, usize)> = BTreeMap::new();
    for j in candidates {
        let info = &infos[*j];
        let Some(ts) = info.times[i] else { continue };
        match best.get(info.labels.metric()) {
            Some((other, k)) if *other == ts => {
                let (a, b) = (infos[*k].labels, info.labels);
                return Err(execution(format!(
                    "found duplicate series for info metric: existing {a} @ {ts}, new {b} @ {ts}"
                )));
            }
            Some((other, _)) if *other > ts => {}
            _ => {
                best.insert(info.labels.metric(), (ts, *j));
            }
        }
    }
    Ok(best.into_values().map(|(_, j)| j).collect())
}

/// `labels` and what the chosen info series add to them; whether they add anything at all.
fn joined(labels: &Labels, infos: &[Info<'_>], chosen: &[usize]) -> Result<(Labels, bool)> {
    let mut added: BTreeMap<&str, &str> = BTreeMap::new();
    let mut any = false;
    for j in chosen {
        for (name, value) in &infos[*j].copied {
            any = true;
            if labels.get(name).is_some() {
                continue;
            }
            if added.insert(name, value).is_some_and(|other| other != *value) {
                return Err(execution(format!("conflicting label: {name}")));
            }
        }
    }
    let pairs = labels.iter().chain(added);
    Ok((Labels::from_pairs(pairs), any))
}

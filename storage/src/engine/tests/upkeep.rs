//! Deletes, retention and vacuum against a model: the rows that were sent, without those that must be gone.

use std::collections::HashMap;

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::clock::Clock;
use crate::delete::{DeleteRequest, Needle, RowTest};
use crate::model::columns::longs;
use crate::retention::{RetentionPolicy, RetentionRule};
use crate::signal::TimeUnit;
use crate::table::{Replaced, Replacement, Replacing};

const HOUR_NS: i64 = 3_600 * NS_PER_S;

fn app(name: &str) -> Matcher {
    Matcher::new("app", MatchOp::Equal, name).expect("valid")
}

fn rule(signal: Signal, matchers: Vec<Matcher>, age_ns: i64) -> RetentionRule {
    let age = Duration::from_nanos(u64::try_from(age_ns).expect("positive"));
    RetentionRule { signal: Some(signal), matchers, age: Some(age), ..RetentionRule::default() }
}

/// Rows of `apps` at `times`; the same app and time give the same row.
fn batch(signal: Signal, rows: &[(u8, i64)]) -> Batch {
    match signal {
        Signal::Metrics => {
            let mut builder = MetricsBuilder::new();
            for (app, ns) in rows {
                let series = builder.series(Labels::from_pairs([("__name__", "m"), ("app", &format!("a{app}"))]));
                let ms = TimestampMs(ns / NS_PER_MS);
                builder.sample(series, ms, *ns as f64, None);
                if ns % 2 == 0 {
                    builder.histogram(series, ms, Histogram::default(), None);
                    builder.exemplar(series, ms, 1.0, std::iter::empty()).expect("fits");
                }
            }
            builder.finish().expect("builds")
        }
        Signal::Logs => {
            let mut builder = LogsBuilder::new();
            for (app, ns) in rows {
                let stream = builder.stream(Labels::from_pairs([("app", &format!("a{app}"))]));
                for line in ["an error", "all is well"] {
                    builder.entry(stream, TimestampNs(*ns), line, std::iter::empty()).expect("fits");
                }
            }
            builder.finish().expect("builds")
        }
        Signal::Traces => {
            let mut builder = TracesBuilder::new();
            for (app, ns) in rows {
                let resource = builder.resource(&[("app".to_owned(), Value::String(format!("a{app}")))]);
                let trace_id = [u8::try_from(ns / NS_PER_S % 5).expect("small"); 16];
                let span = Span { trace_id, span_id: [app + 1; 8], start_ns: *ns + i64::from(*app), ..Span::default() };
                builder.span(&resource, &span).expect("fits");
            }
            builder.finish().expect("builds")
        }
    }
}

/// As the attributes of resources are written.
fn app_of(signal: Signal, name: &str) -> Matcher {
    match signal {
        Signal::Traces => app(&format!("{name:?}")),
        _ => app(name),
    }
}

/// The batch without the rows that `goes` says: labels, time in nanoseconds, line.
fn without(batch: &Batch, goes: &dyn Fn(&Labels, i64, Option<&str>) -> bool) -> Batch {
    let labels: HashMap<i64, &Labels> = batch.identities.iter().map(|i| (i.id.to_column(), &i.labels)).collect();
    let facts = batch.facts.iter().map(|(table, rows)| {
        let (Some(identity), Some((time, unit))) = (table.spec().identity, table.spec().time) else {
            return (*table, rows.clone());
        };
        let factor = if unit == TimeUnit::Ms { NS_PER_MS } else { 1 };
        let (ids, times) = (longs(rows, identity).expect("ids"), longs(rows, time).expect("times"));
        let lines = rows.column_by_name("line").map(|lines| lines.as_string::<i32>());
        let stays =
            |row: usize| !goes(labels[&ids.value(row)], times.value(row) * factor, lines.map(|lines| lines.value(row)));
        let mask: BooleanArray = (0..ids.len()).map(|row| Some(stays(row))).collect();
        (*table, filter_record_batch(rows, &mask).expect("filters"))
    });
    Batch { signal: batch.signal, identities: batch.identities.clone(), facts: facts.collect() }
}

/// What must be read: the rows that no request met and no rule has expired for.
struct Model {
    sent: Vec<Batch>,
    policy: RetentionPolicy,
}

impl Model {
    fn delete(&mut self, request: &DeleteRequest) {
        let goes = |labels: &Labels, ns: i64, line: Option<&str>| {
            request.selectors.iter().any(|all| all.iter().all(|m| m.matches_labels(labels)))
                && request.range.contains(ns)
                && request.tests.iter().all(|test| test.passes(line.unwrap_or("")))
        };
        for batch in self.sent.iter_mut().filter(|batch| batch.signal == request.signal) {
            *batch = without(batch, &goes);
        }
    }

    /// The rows whose rule keeps what is younger than `floor` of its cutoff.
    fn kept(&self, tenant: &Tenant, now_ns: i64, floor: &dyn Fn(i64) -> i64) -> Vec<Batch> {
        let keep = |batch: &Batch| {
            let cutoffs = self.policy.cutoffs(batch.signal, tenant, now_ns);
            without(batch, &|labels, ns, _| ns < floor(cutoffs.of(labels)))
        };
        self.sent.iter().map(keep).collect()
    }

    async fn check(&self, bed: &Bed, exact: bool) {
        let now = bed.clock.now().0;
        let context = context(&bed.tenant);
        let expected = MemoryScan::new(self.kept(&bed.tenant, now, &|cutoff| cutoff));
        let day_start = |cutoff: i64| if cutoff == i64::MIN { cutoff } else { TimestampNs(cutoff).day().range().start };
        let slack = MemoryScan::new(self.kept(&bed.tenant, now, &day_start));
        for signal in Signal::ALL {
            let found = bed.engine.identities(signal, &[], TimeRange::ALL, &context).await.expect("finds");
            for identity in expected.identities(signal, &[], TimeRange::ALL, &context).await.expect("finds") {
                assert!(found.contains(&identity), "{} lacks {:?}", signal.name(), identity.labels);
            }
            if exact {
                let may = slack.identities(signal, &[], TimeRange::ALL, &context).await.expect("finds");
                for identity in &found {
                    assert!(may.contains(identity), "{} still lists {:?}", signal.name(), identity.labels);
                }
            }
            let ids: Arc<Vec<IdentityId>> = Arc::new(found.iter().map(|identity| identity.id).collect());
            for table in super::super::delete::deletable(signal) {
                let all = ScanRequest::all(table, TimeRange::ALL);
                let named = ScanRequest { identities: Some(Arc::clone(&ids)), ..all.clone() };
                let expected = rows(&expected, &named, &context).await;
                assert_eq!(rows(&*bed.engine, &named, &context).await, expected, "`{}` by identity", table.name());
                assert_eq!(rows(&*bed.engine, &all, &context).await, expected, "all of `{}`", table.name());
            }
        }
    }
}

impl Bed {
    fn pass(&self, ns: i64) {
        self.clock.set(TimestampNs(self.clock.now().0 + ns));
    }

    /// Lets upkeep do all it can.
    async fn settle(&self) {
        for _ in 0..4 {
            self.pass(2 * HOUR_NS);
            self.engine.upkeep().await.expect("keeps up");
        }
    }

    async fn with_policy(policy: RetentionPolicy) -> Self {
        let mut bed = Self::new().await;
        bed.retention = policy;
        bed.reopen().await;
        bed
    }

    /// Joins two neighbouring blocks of logs, as a compaction does; whether it could.
    async fn compact_logs(&self, rng: &mut StdRng) -> bool {
        let tables = self.engine.tables(&self.tenant);
        let snapshot = tables.snapshot(Table::Logs).await.expect("reads");
        let pairs: Vec<_> = snapshot.blocks.windows(2).filter(|pair| pair[0].day == pair[1].day).collect();
        if pairs.is_empty() {
            return false;
        }
        let pair = pairs[rng.random_range(0..pairs.len())];
        let context = context(&self.tenant);
        let day = pair[0].day;
        let list = tables.identities(Signal::Logs, (day, day)).await.expect("reads");
        let ids = Arc::new(list.iter().map(|identity| identity.id).collect::<Vec<_>>());
        let request = ScanRequest { identities: Some(ids), ..ScanRequest::all(Table::Logs, TimeRange::ALL) };
        let part = crate::table::Snapshot { blocks: pair.to_vec(), ..(*snapshot).clone() };
        let sources = crate::scan::read::block_streams(&tables, &part, &request, &context).await.expect("opens");
        let merged = crate::scan::merge::merge(&request, sources, &context);
        let joined: Vec<RecordBatch> = merged.try_collect().await.expect("merges");
        let added = vec![tables.write_block(Table::Logs, day, joined).await.expect("writes")];
        let replacement = Replacement { removed: pair.to_vec(), added };
        let replaced = tables.replace(Table::Logs, &[replacement], Replacing::Layout).await.expect("replaces");
        replaced == Replaced::Done
    }
}

fn random_rows(rng: &mut StdRng) -> Vec<(u8, i64)> {
    let row = |rng: &mut StdRng| {
        let second = rng.random_range(0..6) * 13 + rng.random_range(0..4) * 86_400;
        (rng.random_range(0..4), START_NS - second * NS_PER_S)
    };
    (0..rng.random_range(1..6)).map(|_| row(rng)).collect()
}

fn random_request(rng: &mut StdRng) -> DeleteRequest {
    let signal = Signal::ALL[rng.random_range(0..3)];
    let selectors = (0..rng.random_range(1..3)).map(|_| {
        let value = format!("a{}", rng.random_range(0..4));
        let one = app_of(signal, &value);
        if rng.random_bool(0.2) {
            vec![Matcher::new("app", MatchOp::NotEqual, one.value).expect("valid")]
        } else {
            vec![one]
        }
    });
    let selectors = selectors.collect();
    let range = match rng.random_range(0..3) {
        0 => TimeRange::ALL,
        1 => TimestampNs(START_NS - rng.random_range(0..4) * NS_PER_DAY).day().range(),
        _ => {
            let start = START_NS - rng.random_range(0..4 * 86_400) * NS_PER_S;
            TimeRange::new(start, start + rng.random_range(1..100_000) * NS_PER_S)
        }
    };
    let needle =
        if rng.random_bool(0.5) { Needle::Text("error".into()) } else { Needle::regex("e.+r").expect("valid") };
    let test = RowTest { column: "line", negated: rng.random_bool(0.3), any: vec![needle] };
    let tests = if signal == Signal::Logs && rng.random_bool(0.4) { vec![test] } else { Vec::new() };
    DeleteRequest { signal, selectors, range, tests, text: "random".into() }
}

fn random_policy(rng: &mut StdRng) -> RetentionPolicy {
    let mut rules = Vec::new();
    for signal in Signal::ALL {
        for _ in 0..rng.random_range(0..3) {
            let value = format!("a{}", rng.random_range(0..4));
            rules.push(rule(signal, vec![app_of(signal, &value)], rng.random_range(0..6) * 20 * HOUR_NS));
        }
        if rng.random_bool(0.7) {
            rules.push(rule(signal, Vec::new(), rng.random_range(0..6) * 20 * HOUR_NS));
        }
    }
    RetentionPolicy { rules }
}

async fn random_journey(seed: u64, steps: usize) {
    let mut rng = StdRng::seed_from_u64(seed);
    let policy = random_policy(&mut rng);
    let mut bed = Bed::with_policy(policy.clone()).await;
    let mut model = Model { sent: Vec::new(), policy };
    let tables: Vec<Table> = Table::ALL.to_vec();
    for _ in 0..steps {
        match rng.random_range(0..20) {
            0..=6 => {
                let batch = batch(Signal::ALL[rng.random_range(0..3)], &random_rows(&mut rng));
                bed.engine.append(&bed.tenant, batch.clone()).await.expect("appends");
                model.sent.push(batch);
            }
            7..=9 => bed.engine.flush(None).await.expect("flushes"),
            10..=13 => {
                let request = random_request(&mut rng);
                bed.engine.delete(&bed.tenant, request.clone()).await.expect("deletes");
                model.delete(&request);
            }
            14 | 15 => bed.engine.upkeep().await.expect("keeps up"),
            16 => bed.pass(rng.random_range(1..20) * HOUR_NS),
            17 => drop(bed.compact_logs(&mut rng).await),
            18 => bed.reopen().await,
            _ => {
                let stop = Step::Committed(tables[rng.random_range(0..tables.len())]);
                *bed.engine.hook.lock() =
                    Some(Arc::new(
                        move |step| if step == stop { Err(Error::new(Kind::Unavailable, "stopped")) } else { Ok(()) },
                    ));
                let _ = bed.engine.flush(None).await;
                bed.engine.upkeep().await.expect("keeps up");
                *bed.engine.hook.lock() = None;
                if rng.random_bool(0.5) {
                    bed.reopen().await;
                }
            }
        }
        model.check(&bed, false).await;
    }
    bed.engine.flush(None).await.expect("flushes");
    bed.settle().await;
    model.check(&bed, true).await;
    let open = bed.engine.deletions(&bed.tenant).await.expect("lists").into_iter().filter(|deletion| !deletion.done);
    assert_eq!(open.count(), 0, "all requests are worked off");
    bed.reopen().await;
    model.check(&bed, true).await;
}

/// `TERCET_UPKEEP_SEEDS` sets how many journeys are made; each prints its seed.
#[tokio::test]
async fn whatever_happens_every_answer_is_the_models() {
    let journeys = std::env::var("TERCET_UPKEEP_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    for seed in 0..journeys {
        println!("seed {seed}");
        random_journey(seed, 30).await;
    }
}

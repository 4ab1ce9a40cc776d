//! Metrics generated from the spans that come in, for each tenant, written as ordinary series.
//!
//! Owns: the generators, when they are asked for samples. Does not own: what is generated (crate `generator`).
//!
//! Invariants
//! 1. Spans are observed once they are acknowledged, and not again when the log is replayed: a restart begins new counters,
//!    as that of a process does, and counts nothing twice.
//! 2. What cannot be written is left out; counters make up for it at the next collection.

use std::sync::{Arc, Weak};
use std::time::Duration;

use generator::{Counts, Generator, Settings};
use parking_lot::Mutex;
use storage::clock::Clock;
use storage::model::tenant::Tenant;
use storage::{Batch, Signal};

use crate::app::{App, Phase};
use crate::config::Config;
use crate::telemetry::Protocol;

/// Tenants whose spans make metrics; those of more are not observed.
const TENANTS_MAX: usize = 1000;

/// All generators.
pub struct Generated {
    settings: Option<Settings>,
    interval: Duration,
    clock: Arc<dyn Clock>,
    by_tenant: Mutex<Vec<(Tenant, Generator)>>,
}

impl Generated {
    /// As the settings say; with the switch off nothing is observed.
    pub fn new(config: &Config, clock: Arc<dyn Clock>) -> Self {
        let traces = &config.traces;
        let settings = (traces.metrics_generator && !config.read_only).then(|| traces.generator.clone());
        Self { settings, interval: traces.generator_interval.0, clock, by_tenant: Mutex::default() }
    }

    /// A copy of `batch` if its spans will be observed; copies share the rows.
    pub fn wanted(&self, batch: &Batch) -> Option<Batch> {
        (batch.signal == Signal::Traces && self.settings.is_some()).then(|| batch.clone())
    }

    /// Takes acknowledged spans in.
    pub fn observe(&self, tenant: &Tenant, batch: &Batch) {
        let Some(settings) = &self.settings else { return };
        let now = self.clock.now();
        let mut all = self.by_tenant.lock();
        let known = all.iter().position(|(other, _)| other == tenant);
        if known.is_none() {
            if all.len() >= TENANTS_MAX {
                return;
            }
            all.push((tenant.clone(), Generator::new(settings.clone(), now)));
        }
        let place = known.unwrap_or(all.len() - 1);
        if let Err(error) = all[place].1.observe(batch, now) {
            tracing::error!(%error, "spans could not be read for the metrics generator");
        }
    }

    /// What became of the spans of all tenants.
    pub fn counts(&self) -> Counts {
        let all = self.by_tenant.lock();
        all.iter().map(|(_, generator)| generator.counts()).fold(Counts::default(), |a, b| Counts {
            spans: a.spans + b.spans,
            too_old: a.too_old + b.too_old,
            over_limit: a.over_limit + b.over_limit,
            edges_dropped: a.edges_dropped + b.edges_dropped,
            edges_expired: a.edges_expired + b.edges_expired,
        })
    }

    fn collect(&self) -> Vec<(Tenant, Batch)> {
        let now = self.clock.now();
        let mut made = Vec::new();
        for (tenant, generator) in self.by_tenant.lock().iter_mut() {
            match generator.collect(now) {
                Ok(Some(batch)) => made.push((tenant.clone(), batch)),
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "generated metrics could not be built"),
            }
        }
        made
    }
}

/// Collects and writes until the process stops.
pub async fn run(app: Weak<App>) {
    let Some(interval) = app.upgrade().map(|app| app.generated.interval) else { return };
    loop {
        tokio::time::sleep(interval).await;
        let Some(app) = app.upgrade().filter(|app| app.phase() != Phase::Stopping) else { return };
        tick(&app).await;
    }
}

/// One collection.
pub async fn tick(app: &App) {
    let Ok(engine) = app.engine() else { return };
    for (tenant, batch) in app.generated.collect() {
        let written = match app.ingest.hold(batch.bytes()) {
            Ok(held) => app.ingest.append(&engine, Protocol::Generator, &tenant, batch, held).await.map(|_| ()),
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            tracing::warn!(tenant = tenant.as_str(), %error, "generated metrics were not written this time");
        }
    }
}

//! `tercet verify`: runs the check of the storage and prints what it finds.
//!
//! Owns: progress, text and JSON of the findings, the exit code. Does not own: what is checked (`storage::verify`).

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use storage::clock::{Clock, SystemClock};
use storage::model::time::NS_PER_S;
use storage::verify::{Report, Severity, verify};

use crate::cli::{Failure, Place, say};
use crate::inspect;

/// What the exit codes mean; part of the help.
pub const EXIT_CODES: &str = "Exit codes: 0 nothing is damaged (notices may have been printed), 1 something is damaged, \
                              2 the store could not be checked.";

/// Checks the store at `place`. A failure of kind "usage" when it cannot be checked, of kind "run" when it is damaged.
pub fn run(place: &Place) -> Result<(), Failure> {
    let config = place.load()?;
    let store = place.open_store()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let progress = Progress { clock: Arc::clone(&clock), told_ns: AtomicI64::new(clock.now().0) };
    let tell = |object: &str, report: &Report| progress.tell(object, report);
    let report = inspect::block_on(verify(&store, &clock, Some(&config.data), &tell))?.map_err(Failure::usage)?;
    progress.end();
    if place.json {
        inspect::say_json(&report)?;
    } else {
        print(&report)?;
    }
    match report.damages {
        0 => Ok(()),
        n => Err(Failure::run(format!("{n} damages were found in {} and {}", store.url(), config.data.display()))),
    }
}

fn print(report: &Report) -> Result<(), Failure> {
    for finding in &report.findings {
        let severity = match finding.severity {
            Severity::Damage => "damage",
            Severity::Notice => "notice",
        };
        say(&format!("{severity}: {}\n  {}\n  to do: {}", finding.object, finding.wrong, finding.act))?;
    }
    if report.more_findings > 0 {
        say(&format!("{} more findings are not shown", report.more_findings))?;
    }
    say(&format!(
        "checked {} tables: {} blocks, {} rows, {}, {} sidecars; write-ahead log: {} records; {} damages",
        report.tables,
        report.blocks,
        report.rows,
        inspect::bytes(report.bytes),
        report.sidecars,
        report.wal_records,
        report.damages
    ))
}

/// A line on standard error, at most each second; on a terminal it is written over.
struct Progress {
    clock: Arc<dyn Clock>,
    told_ns: AtomicI64,
}

impl Progress {
    fn tell(&self, object: &str, report: &Report) {
        let now = self.clock.now().0;
        if now - self.told_ns.load(Ordering::Relaxed) < NS_PER_S {
            return;
        }
        self.told_ns.store(now, Ordering::Relaxed);
        let mut out = std::io::stderr().lock();
        let (before, after) = if out.is_terminal() { ("\r\x1b[K", "") } else { ("", "\n") };
        let text = format!("{} blocks, {}, at {object}", report.blocks, inspect::bytes(report.bytes));
        // Nobody may be looking any more.
        let _ = write!(out, "{before}{text}{after}").and_then(|()| out.flush());
    }

    fn end(&self) {
        let mut out = std::io::stderr().lock();
        if out.is_terminal() {
            let _ = write!(out, "\r\x1b[K");
        }
    }
}

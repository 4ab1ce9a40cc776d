//! Which columns of spans a query reads.
//!
//! Owns: the columns behind each source of values and behind what is computed of whole traces. Does not own: reading
//! (`eval::stream`). A column that is missing here reads as nothing, so this errs on the side of more.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::ast::Intrinsic;
use super::super::plan::{Plan, Source};

/// What a trace's summary and its orphans are told from.
const SUMMARY: [&str; 4] = ["duration_ns", "parent_span_id", "span_id", "kind"];
/// What the span tree is made of.
const TREE: [&str; 3] = ["span_id", "parent_span_id", "kind"];

/// Columns of spans; beside them, trace ids and start times always come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reads {
    /// All.
    All,
    /// These.
    Columns(BTreeSet<&'static str>),
}

impl Reads {
    /// What the stages of `plan` and the mentioned references look at.
    pub fn of(plan: &Plan) -> Self {
        let mut reads = Self::Columns(BTreeSet::new());
        for mention in &plan.mentions {
            reads.add_source(&mention.source);
        }
        if plan.needs.tree {
            reads = reads.and(&TREE);
        }
        reads
    }

    /// These and `columns`.
    #[must_use]
    pub fn and(mut self, columns: &[&'static str]) -> Self {
        if let Self::Columns(known) = &mut self {
            known.extend(columns);
        }
        self
    }

    /// These and what a trace's place in time and its completeness are told from.
    #[must_use]
    pub fn and_summary(self) -> Self {
        self.and(&SUMMARY)
    }

    /// In the terms of a scan.
    pub fn columns(&self) -> Option<Arc<[&'static str]>> {
        match self {
            Self::All => None,
            Self::Columns(columns) => Some(columns.iter().copied().collect()),
        }
    }

    fn add_source(&mut self, source: &Source) {
        let columns: &[&'static str] = match source {
            Source::Any(..) => &["attributes", "resource_id"],
            Source::Span(_) => &["attributes"],
            Source::Resource(_) => &["resource_id"],
            Source::Event(_) => &["events"],
            Source::Link(_) => &["links"],
            Source::Instrumentation(_) => &["scope_attributes"],
            Source::Intrinsic(intrinsic) => of_intrinsic(*intrinsic),
        };
        if let Self::Columns(known) = self {
            known.extend(columns);
        }
    }
}

fn of_intrinsic(intrinsic: Intrinsic) -> &'static [&'static str] {
    match intrinsic {
        Intrinsic::Name => &["name"],
        Intrinsic::Status => &["status_code"],
        Intrinsic::StatusMessage => &["status_message"],
        Intrinsic::Kind => &["kind"],
        Intrinsic::Duration => &["duration_ns"],
        Intrinsic::SpanId => &["span_id"],
        Intrinsic::ParentId => &["parent_span_id"],
        Intrinsic::ChildCount | Intrinsic::NestedSetLeft | Intrinsic::NestedSetRight | Intrinsic::NestedSetParent => {
            &TREE
        }
        Intrinsic::TraceDuration => &["duration_ns", "parent_span_id"],
        Intrinsic::RootName => &["duration_ns", "parent_span_id", "name"],
        Intrinsic::RootServiceName => &["duration_ns", "parent_span_id", "service_name"],
        Intrinsic::TraceId | Intrinsic::Parent => &[],
        Intrinsic::InstrumentationName => &["scope_name"],
        Intrinsic::InstrumentationVersion => &["scope_version"],
        Intrinsic::EventName | Intrinsic::EventTimeSinceStart => &["events"],
        Intrinsic::LinkTraceId | Intrinsic::LinkSpanId => &["links"],
    }
}

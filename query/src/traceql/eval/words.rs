//! Names and values of attributes from the storage's dictionaries, when all spans of a range count.
//!
//! Owns: which names and values these know. Does not own: what is answered when they do not know all (`eval::tags` scans).
//!
//! What a dictionary says is of whole blocks and heads that overlap the range, as Tempo's answers are.

use std::collections::BTreeSet;
use std::sync::Arc;

use storage::model::batch::SERVICE_NAME;
use storage::model::identity::Identity;
use storage::model::time::TimeRange;
use storage::scan::{Distinct, DistinctRequest, Wanted};
use storage::{Context, Scan, Signal, Table};

use super::super::TagScope;
use super::super::ast::{Attribute, AttributeScope, Intrinsic, Reference};
use super::value::Val;
use crate::error::Result;

/// The spans of a range.
pub struct Words<'a> {
    /// Where they are.
    pub scan: &'a dyn Scan,
    /// When they start.
    pub range: TimeRange,
    /// Of the request.
    pub context: &'a Context,
}

impl Words<'_> {
    /// `None` when dictionaries do not keep all.
    async fn distinct(&self, column: &'static str, wanted: Wanted) -> Result<Option<BTreeSet<String>>> {
        let request = DistinctRequest { table: Table::Spans, range: self.range, column, wanted };
        let Distinct { texts, complete } = self.scan.distinct(request, self.context).await?;
        Ok(complete.then_some(texts))
    }

    /// The resources that the spans have.
    async fn resources(&self) -> Result<Option<Vec<Identity>>> {
        let Some(ids) = self.distinct("resource_id", Wanted::Values).await? else { return Ok(None) };
        let mut all = self.scan.identities(Signal::Traces, &[], self.range, self.context).await?;
        all.retain(|identity| ids.contains(&identity.id.to_column().to_string()));
        Ok(Some(all))
    }

    /// The names of a scope; `None` if they are not all known.
    pub async fn names(&self, scope: TagScope) -> Result<Option<BTreeSet<String>>> {
        let column = match scope {
            TagScope::Intrinsic => return Ok(Some(BTreeSet::new())),
            TagScope::Resource => {
                let Some(resources) = self.resources().await? else { return Ok(None) };
                let names = resources.iter().flat_map(|resource| resource.labels.iter());
                return Ok(Some(names.map(|(name, _)| name.to_owned()).collect()));
            }
            TagScope::Span => "attributes",
            TagScope::Event => "events",
            TagScope::Link => "links",
            TagScope::Instrumentation => "scope_attributes",
        };
        self.distinct(column, Wanted::Keys).await
    }

    /// The values that `reference` has; `None` if they are not all known.
    pub async fn values(&self, reference: &Reference) -> Result<Option<Vec<Val<'static>>>> {
        match reference {
            Reference::Attribute(attribute) if attribute.parent => Ok(None),
            Reference::Attribute(Attribute { scope, name, .. }) => self.attribute(*scope, name).await,
            Reference::Intrinsic(intrinsic) => {
                let column = match intrinsic {
                    Intrinsic::Name => "name",
                    Intrinsic::StatusMessage => "status_message",
                    Intrinsic::InstrumentationName => "scope_name",
                    Intrinsic::InstrumentationVersion => "scope_version",
                    Intrinsic::EventName => "events.name",
                    _ => return Ok(None),
                };
                let texts = self.distinct(column, Wanted::Values).await?;
                Ok(texts.map(|texts| texts.into_iter().map(|text| Val::Str(text.into())).collect()))
            }
        }
    }

    async fn attribute(&self, scope: AttributeScope, name: &str) -> Result<Option<Vec<Val<'static>>>> {
        let mut texts = BTreeSet::new();
        let column = match scope {
            AttributeScope::Any | AttributeScope::Span => Some("attributes"),
            AttributeScope::Event => Some("events"),
            AttributeScope::Link => Some("links"),
            AttributeScope::Instrumentation => Some("scope_attributes"),
            AttributeScope::Resource => None,
        };
        if let Some(column) = column {
            let Some(found) = self.distinct(column, Wanted::ValuesOf(Arc::from(name))).await? else { return Ok(None) };
            texts.extend(found);
        }
        if matches!(scope, AttributeScope::Any | AttributeScope::Resource) {
            let Some(resources) = self.resources().await? else { return Ok(None) };
            // A resource without a service has the service "", as in `eval::trace`.
            let missing = (name == SERVICE_NAME).then_some("\"\"");
            let of = |resource: &Identity| resource.labels.get(name).or(missing).map(str::to_owned);
            texts.extend(resources.iter().filter_map(of));
        }
        Ok(Some(texts.iter().map(|text| Val::of_typed_text(text).into_owned()).collect()))
    }
}

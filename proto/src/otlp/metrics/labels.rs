//! Label sets of data points: attributes, promoted resource attributes, scope, job and instance.
//!
//! Owns: who wins when two sources name one label. From strong to weak: the labels of the series itself (metric
//! name, `le`, `quantile`), job and instance, the scope, the point's attributes, promoted resource attributes.
//!
//! Invariant: the pairs of a [`LabelSet`] ascend strictly by name and have no empty value.

use std::borrow::Cow;
use std::rc::Rc;

use hashbrown::HashMap;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::ScopeMetrics;
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::OtlpMetricsSettings;
use crate::limits::Limits;
use crate::otlp::names::{LabelRules, label_name};
use crate::otlp::value::value_text;
use crate::series::Pair;

const SERVICE_NAME: &str = "service.name";
const SERVICE_NAMESPACE: &str = "service.namespace";
const SERVICE_INSTANCE_ID: &str = "service.instance.id";
/// Attributes that become job and instance.
pub(super) const IDENTIFYING: [&str; 3] = [SERVICE_NAME, SERVICE_NAMESPACE, SERVICE_INSTANCE_ID];

/// Labels besides a point's own: metric name, one of the series, type, unit.
const INTERNAL_LABELS_MAX: usize = 4;

/// A label with its translated name.
type Label<'r> = (Rc<str>, Cow<'r, str>);

/// Translated label names, each key translated once per request.
pub(super) struct Names<'r> {
    rules: LabelRules,
    known: HashMap<&'r str, Result<Rc<str>, String>, ahash::RandomState>,
}

impl<'r> Names<'r> {
    pub(super) fn new(settings: &OtlpMetricsSettings) -> Self {
        let rules = LabelRules {
            strategy: settings.translation_strategy,
            keep_multiple_underscores: settings.label_name_preserve_multiple_underscores,
            guard_underscore: settings.label_name_underscore_sanitization,
        };
        Self { rules, known: HashMap::default() }
    }

    fn get(&mut self, key: &'r str) -> Result<Rc<str>, String> {
        let rules = self.rules;
        self.known.entry(key).or_insert_with(|| label_name(key, rules).map(Rc::from)).clone()
    }

    /// Attributes as labels by ascending name; those whose names collide are joined in the order of their keys.
    fn merged(&mut self, attributes: impl Iterator<Item = &'r KeyValue>) -> Result<Vec<Label<'r>>, String> {
        let mut labels = Vec::new();
        for pair in attributes {
            labels.push((self.get(&pair.key)?, pair.key.as_str(), value_text(pair.value.as_ref())));
        }
        labels.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        let mut merged: Vec<Label<'r>> = Vec::with_capacity(labels.len());
        for (name, _, value) in labels {
            match merged.last_mut() {
                Some((last, joined)) if *last == name => join(joined, value),
                _ => merged.push((name, value)),
            }
        }
        merged.retain(|(_, value)| !value.is_empty());
        Ok(merged)
    }
}

fn join<'r>(joined: &mut Cow<'r, str>, value: Cow<'r, str>) {
    if joined.is_empty() {
        *joined = value;
    } else {
        let text = joined.to_mut();
        text.push(';');
        text.push_str(&value);
    }
}

/// What a resource gives to the labels of its series.
pub(super) struct Origin<'r> {
    pub(super) attributes: &'r [KeyValue],
    job: Option<String>,
    instance: Option<Cow<'r, str>>,
    promoted: Vec<Label<'r>>,
    /// Attributes that could not become labels, and why.
    pub(super) faults: Vec<String>,
}

impl<'r> Origin<'r> {
    pub(super) fn new(resource: Option<&'r Resource>, settings: &OtlpMetricsSettings, names: &mut Names<'r>) -> Self {
        let attributes = resource.map_or(&[][..], |resource| &resource.attributes);
        let text = |key: &str| {
            let pair = attributes.iter().find(|pair| pair.key == key);
            pair.map(|pair| value_text(pair.value.as_ref()))
        };
        let job = text(SERVICE_NAME).map(|name| match text(SERVICE_NAMESPACE) {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name.into_owned(),
        });
        let instance = text(SERVICE_INSTANCE_ID);
        let mut faults = Vec::new();
        let mut promoted = Vec::new();
        for pair in attributes.iter().filter(|pair| is_promoted(&pair.key, settings)) {
            let value = value_text(pair.value.as_ref());
            match names.get(&pair.key) {
                Ok(_) if value.is_empty() => {}
                Ok(name) => promoted.push((name, pair.key.as_str(), value)),
                Err(reason) => faults.push(reason),
            }
        }
        promoted.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        promoted.dedup_by(|later, earlier| later.0 == earlier.0);
        let promoted = promoted.into_iter().map(|(name, _, value)| (name, value)).collect();
        Self { attributes, job, instance, promoted, faults }
    }

    /// What all points of a scope share.
    pub(super) fn base<'b>(
        &'b self,
        scope: &'b ScopeMetrics,
        settings: &OtlpMetricsSettings,
        names: &mut Names<'r>,
    ) -> Base<'b> {
        let mut strong: Vec<(Cow<'b, str>, Cow<'b, str>)> = self.identity();
        if settings.promote_scope_metadata
            && let Some(named) = scope.scope.as_ref().filter(|scope| !scope.name.is_empty())
        {
            strong.push(("otel_scope_name".into(), named.name.as_str().into()));
            strong.push(("otel_scope_version".into(), named.version.as_str().into()));
            strong.push(("otel_scope_schema_url".into(), scope.schema_url.as_str().into()));
            for pair in &named.attributes {
                let key = format!("otel_scope_{}", pair.key);
                if let Ok(name) = label_name(&key, names.rules) {
                    strong.push((name.into_owned().into(), value_text(pair.value.as_ref())));
                }
            }
        }
        // Sorting is stable: job and instance stay before a scope's label of that name.
        strong.sort_by(|a, b| a.0.cmp(&b.0));
        strong.dedup_by(|later, earlier| later.0 == earlier.0);
        Base { strong, weak: &self.promoted }
    }

    /// Whether it yields a job or an instance.
    pub(super) fn is_identified(&self) -> bool {
        let job = self.job.as_deref().unwrap_or_default();
        !job.is_empty() || self.instance.as_deref().is_some_and(|instance| !instance.is_empty())
    }

    /// Job and instance alone.
    pub(super) fn identity_base(&self) -> Base<'_> {
        let mut strong = self.identity();
        strong.sort_by(|a, b| a.0.cmp(&b.0));
        Base { strong, weak: &self.promoted }
    }

    fn identity(&self) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
        let job = self.job.as_deref().map(|job| ("job".into(), job.into()));
        let instance = self.instance.as_deref().map(|instance| ("instance".into(), instance.into()));
        job.into_iter().chain(instance).collect()
    }
}

fn is_promoted(key: &str, settings: &OtlpMetricsSettings) -> bool {
    match settings.promote_all_resource_attributes {
        true => !settings.ignore_resource_attributes.iter().any(|ignored| ignored == key),
        false => settings.promote_resource_attributes.iter().any(|promoted| promoted == key),
    }
}

/// Labels that all points of a scope share, each list by ascending name.
pub(super) struct Base<'b> {
    /// These override a point's attributes, with an empty value they remove them.
    strong: Vec<(Cow<'b, str>, Cow<'b, str>)>,
    /// These stand behind a point's attributes.
    weak: &'b [Label<'b>],
}

/// The labels of one data point by ascending name, without those of its scope and resource.
pub(super) struct LabelSet<'r>(Vec<Label<'r>>);

impl<'r> LabelSet<'r> {
    /// The attributes of a point. `base` and the labels that series add still fit the limits.
    pub(super) fn new(
        attributes: &'r [KeyValue],
        base: &Base<'_>,
        limits: &Limits,
        names: &mut Names<'r>,
    ) -> Result<Self, String> {
        let count = attributes.len() + base.strong.len() + base.weak.len() + INTERNAL_LABELS_MAX;
        if count > limits.labels_per_series_max {
            return Err(format!("{count} labels, more than labels_per_series_max {}", limits.labels_per_series_max));
        }
        names.merged(attributes.iter()).map(Self)
    }

    /// As [`LabelSet::new`] for the attributes of a resource, but without limit of their number here.
    pub(super) fn of_resource(
        attributes: impl Iterator<Item = &'r KeyValue>,
        names: &mut Names<'r>,
    ) -> Result<Self, String> {
        let nameable: Vec<&KeyValue> = attributes.filter(|pair| names.get(&pair.key).is_ok()).collect();
        names.merged(nameable.into_iter()).map(Self)
    }

    /// All labels but those of the series itself, by ascending name.
    pub(super) fn pairs<'a>(&'a self, base: &'a Base<'_>) -> Vec<Pair<'a>> {
        let own = self.0.iter().map(|(name, value)| (&**name, &**value));
        let strong = base.strong.iter().map(|(name, value)| (&**name, &**value));
        let weak = base.weak.iter().map(|(name, value)| (&**name, &**value));
        // Sorting is stable: of equal names the strongest comes first and stays.
        let mut pairs: Vec<Pair<'a>> = strong.chain(own).chain(weak).collect();
        pairs.sort_by(|a, b| a.0.cmp(b.0));
        pairs.dedup_by(|later, earlier| later.0 == earlier.0);
        pairs.retain(|(_, value)| !value.is_empty());
        pairs
    }
}

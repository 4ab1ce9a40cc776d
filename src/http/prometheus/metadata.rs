//! Metric families: what is known of type, unit and help.
//!
//! Owns: reading them from the store and the form of `/api/v1/metadata`.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt as _;
use storage::model::columns::MetadataColumns;
use storage::model::time::TimeRange;
use storage::{Context, Scan, ScanRequest, Table};

use crate::http::json::Json;

/// Families by name, each with its distinct (type, help, unit).
pub type Families = BTreeMap<String, BTreeSet<[String; 3]>>;

/// How much is answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Families; 0 gives none.
    pub metrics: Option<usize>,
    /// Entries of one family.
    pub per_metric: Option<usize>,
}

/// The families, or the one named `metric`.
pub async fn read(scan: &dyn Scan, metric: Option<&str>, context: &Context) -> query::Result<Families> {
    let request = ScanRequest::all(Table::MetricMetadata, TimeRange::ALL);
    let mut stream = scan.scan(request, context).await?;
    let mut families = Families::new();
    while let Some(rows) = stream.try_next().await? {
        let columns = MetadataColumns::new(&rows)?;
        for row in 0..rows.num_rows() {
            let name = columns.metric.value(row);
            if metric.is_none_or(|metric| metric == name) {
                let entry = [columns.kind, columns.help, columns.unit].map(|column| column.value(row).to_owned());
                families.entry(name.to_owned()).or_default().insert(entry);
            }
        }
    }
    Ok(families)
}

/// The answer.
pub fn encode(families: &Families, limits: &Limits) -> Json {
    let mut json = Json::new();
    json.raw(r#"{"status":"success","data":{"#);
    for (i, (name, entries)) in families.iter().take(limits.metrics.unwrap_or(usize::MAX)).enumerate() {
        json.raw(if i > 0 { "," } else { "" }).string(name).raw(":");
        json.array(entries.iter().take(limits.per_metric.unwrap_or(usize::MAX)), |json, [kind, help, unit]| {
            json.raw(r#"{"type":"#).string(kind).raw(r#","help":"#).string(help);
            json.raw(r#","unit":"#).string(unit).raw("}");
        });
    }
    json.raw("}}");
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_listed_with_distinct_entries() {
        let entry = |kind: &str, help: &str| [kind.to_owned(), help.to_owned(), String::new()];
        let families = Families::from([
            ("a".to_owned(), BTreeSet::from([entry("counter", "x"), entry("gauge", "x")])),
            ("b".to_owned(), BTreeSet::from([entry("unknown", "")])),
        ]);
        let a = r#""a":[{"type":"counter","help":"x","unit":""}"#;
        let check = |limits: Limits, expected: String| {
            let text = encode(&families, &limits).finish();
            assert_eq!(text, format!(r#"{{"status":"success","data":{{{expected}}}}}"#));
        };
        check(Limits { metrics: Some(0), per_metric: None }, String::new());
        check(Limits { metrics: Some(1), per_metric: Some(1) }, format!("{a}]"));
    }
}

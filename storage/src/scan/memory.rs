//! A scan over batches in memory: the strictest implementation of [`Scan`], for tests of everything above.
//!
//! Owns: the batches it was given. It sorts and removes duplicates by the contract's words, row by row, and so
//! serves as the reference that faster implementations are compared with.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::row::{RowConverter, SortField};
use futures::StreamExt;
use futures::future::BoxFuture;

use super::distinct::check;
use super::{BatchStream, Distinct, DistinctRequest, Scan, ScanRequest};
use crate::context::Context;
use crate::error::Result;
use crate::index::dictionary::Dictionary;
use crate::model::batch::Batch;
use crate::model::columns::longs;
use crate::model::identity::{Identity, IdentityId};
use crate::model::matcher::Matcher;
use crate::model::time::{NS_PER_MS, TimeRange};
use crate::signal::{Signal, SortBy, Table, TimeUnit};

/// Rows of one output batch; small, so that callers meet identities cut in two.
const ROWS_PER_BATCH: usize = 100;

/// Batches in order of arrival.
#[derive(Debug, Default)]
pub struct MemoryScan {
    batches: Vec<Batch>,
    narrows: bool,
}

impl MemoryScan {
    /// Answers from `batches`, the first being the oldest.
    pub fn new(batches: Vec<Batch>) -> Self {
        Self { batches, narrows: false }
    }

    /// The same data, answered without any row that fails what the asker says it will test: answers above must not
    /// change.
    #[must_use]
    pub fn narrowing(&self) -> Self {
        Self { batches: self.batches.clone(), narrows: true }
    }

    fn rows(&self, request: &ScanRequest) -> Result<Vec<RecordBatch>> {
        let spec = request.table.spec();
        let parts: Vec<&RecordBatch> = self.batches.iter().filter_map(|batch| batch.table(request.table)).collect();
        let all = concat_batches(&(spec.schema)(), parts)?;
        let times = match spec.time {
            Some((column, unit)) => {
                let factor = if unit == TimeUnit::Ms { NS_PER_MS } else { 1 };
                longs(&all, column)?.values().iter().map(|t| t.saturating_mul(factor)).collect()
            }
            None => vec![0; all.num_rows()],
        };
        let groups = self.groups(request, &all)?;
        let unique = unique_keys(request.table, &all)?;
        let mut rows: Vec<usize> = (0..all.num_rows())
            .filter(|&row| groups[row].is_some() && (spec.time.is_none() || request.range.contains(times[row])))
            .collect();
        rows.sort_by(|&a, &b| (&groups[a], times[a]).cmp(&(&groups[b], times[b])));
        let mut seen = HashSet::new();
        rows.retain(|&row| seen.insert(unique[row].clone()));
        if self.narrows {
            rows.retain(|&row| request.narrow.iter().all(|conjunct| conjunct.passes(&all, row)));
        }
        let indices: UInt32Array = rows.iter().filter_map(|row| u32::try_from(*row).ok()).collect();
        let mut sorted = take_record_batch(&all, &indices)?;
        if let Some(places) = request.projection() {
            sorted = sorted.project(&places)?;
        }
        Ok((0..sorted.num_rows())
            .step_by(ROWS_PER_BATCH)
            .map(|from| sorted.slice(from, ROWS_PER_BATCH.min(sorted.num_rows() - from)))
            .collect())
    }

    /// For each row the key by which rows are grouped and ordered; `None` if the row is not asked for.
    fn groups(&self, request: &ScanRequest, all: &RecordBatch) -> Result<Vec<Option<Vec<u8>>>> {
        let spec = request.table.spec();
        if spec.sort_by == SortBy::Trace {
            let Some(ids) = all.column_by_name("trace_id") else { return Ok(vec![Some(Vec::new()); all.num_rows()]) };
            let ids = ids.as_binary::<i32>();
            let wanted = |id: &[u8]| request.traces.as_ref().is_none_or(|list| list.iter().any(|t| t.as_slice() == id));
            return Ok((0..all.num_rows())
                .map(|row| wanted(ids.value(row)).then(|| ids.value(row).to_vec()))
                .collect());
        }
        let Some(column) = spec.identity else { return Ok(vec![Some(Vec::new()); all.num_rows()]) };
        let order: Vec<IdentityId> = match &request.identities {
            Some(list) => list.to_vec(),
            None => self.known(request.table.signal()).into_values().map(|identity| identity.id).collect(),
        };
        let ids = longs(all, column)?;
        let ranks: HashMap<i64, usize> = order.iter().enumerate().map(|(rank, id)| (id.to_column(), rank)).collect();
        let key = |row| ranks.get(&ids.value(row)).map(|rank| rank.to_be_bytes().to_vec());
        Ok((0..all.num_rows()).map(key).collect())
    }

    fn known(&self, signal: Signal) -> BTreeMap<crate::model::labels::Labels, Identity> {
        let batches = self.batches.iter().filter(|batch| batch.signal == signal);
        let identities = batches.flat_map(|batch| batch.identities.iter());
        identities.map(|identity| (identity.labels.clone(), identity.clone())).collect()
    }

    fn active(&self, signal: Signal, range: TimeRange) -> Result<HashSet<i64>> {
        let mut ids = HashSet::new();
        for table in signal.spec().facts {
            let (Some(column), Some((time, unit))) = (table.spec().identity, table.spec().time) else { continue };
            for rows in self.batches.iter().filter_map(|batch| batch.table(*table)) {
                let factor = if unit == TimeUnit::Ms { NS_PER_MS } else { 1 };
                let (identity, times) = (longs(rows, column)?, longs(rows, time)?);
                let inside = (0..rows.num_rows()).filter(|&i| range.contains(times.value(i).saturating_mul(factor)));
                ids.extend(inside.map(|i| identity.value(i)));
            }
        }
        Ok(ids)
    }
}

fn unique_keys(table: Table, rows: &RecordBatch) -> Result<Vec<Vec<u8>>> {
    let columns: Vec<ArrayRef> =
        table.spec().unique_by.iter().filter_map(|name| rows.column_by_name(name).cloned()).collect();
    let flat: Vec<ArrayRef> = columns
        .into_iter()
        .map(|column| match column.as_map_opt() {
            Some(map) => {
                let maps = crate::model::columns::TextMaps::new(map);
                let texts = (0..map.len()).map(|row| format!("{:?}", maps.pairs(row).collect::<Vec<_>>()));
                Arc::new(arrow::array::StringArray::from_iter_values(texts)) as ArrayRef
            }
            None => column,
        })
        .collect();
    let fields = flat.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let converted = RowConverter::new(fields)?.convert_columns(&flat)?;
    Ok(converted.iter().map(|row| row.as_ref().to_vec()).collect())
}

impl Scan for MemoryScan {
    fn scan<'a>(&'a self, request: ScanRequest, context: &'a Context) -> BoxFuture<'a, Result<BatchStream>> {
        Box::pin(async move {
            context.check()?;
            let rows = self.rows(&request)?;
            Ok(futures::stream::iter(rows.into_iter().map(Ok)).boxed())
        })
    }

    fn identities<'a>(
        &'a self,
        signal: Signal,
        selectors: &'a [Vec<Matcher>],
        range: TimeRange,
        context: &'a Context,
    ) -> BoxFuture<'a, Result<Vec<Identity>>> {
        Box::pin(async move {
            context.check()?;
            let active = self.active(signal, range)?;
            let passes = |identity: &Identity| {
                selectors.is_empty()
                    || selectors.iter().any(|all| all.iter().all(|matcher| matcher.matches_labels(&identity.labels)))
            };
            let known = self.known(signal).into_values();
            Ok(known.filter(|identity| active.contains(&identity.id.to_column()) && passes(identity)).collect())
        })
    }

    fn distinct<'a>(&'a self, request: DistinctRequest, context: &'a Context) -> BoxFuture<'a, Result<Distinct>> {
        Box::pin(async move {
            context.check()?;
            self.words(&request)
        })
    }
}

impl MemoryScan {
    fn words(&self, request: &DistinctRequest) -> Result<Distinct> {
        check(request)?;
        let (mut found, mut dictionary) = (Distinct::none(), Dictionary::new(request.table));
        for rows in self.rows(&ScanRequest::all(request.table, request.range))? {
            dictionary.extend_from(&rows)?;
        }
        found.add(&dictionary, request);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;
    use crate::budget::Share;
    use crate::model::batch::MetricsBuilder;
    use crate::model::columns::SampleColumns;
    use crate::model::labels::Labels;
    use crate::model::tenant::Tenant;
    use crate::model::time::TimestampMs;

    fn batch(samples: &[(&str, i64, f64)]) -> Batch {
        let mut builder = MetricsBuilder::new();
        for (name, ts, value) in samples {
            let series = builder.series(Labels::from_pairs([("__name__", *name)]));
            builder.sample(series, TimestampMs(*ts), *value, None);
        }
        builder.finish().expect("builds")
    }

    #[tokio::test]
    async fn rows_come_by_identity_and_time_and_the_first_of_equals_stays() {
        let scan =
            MemoryScan::new(vec![batch(&[("b", 2, 1.0), ("a", 3, 2.0)]), batch(&[("a", 1, 3.0), ("a", 3, 9.0)])]);
        let context = Context::new(Tenant::single(), Share::root("test", 1 << 20));
        let found = scan.identities(Signal::Metrics, &[], TimeRange::ALL, &context).await.expect("answers");
        assert_eq!(found.iter().map(|i| i.labels.metric()).collect::<Vec<_>>(), ["a", "b"]);
        let request = ScanRequest::all(Table::Samples, TimeRange::ALL);
        let rows: Vec<RecordBatch> =
            scan.scan(request, &context).await.expect("scans").try_collect().await.expect("ok");
        let mut seen = Vec::new();
        for rows in &rows {
            let columns = SampleColumns::new(rows).expect("views");
            for i in 0..rows.num_rows() {
                let id = IdentityId::from_column(columns.series_id.value(i));
                let labels = found.iter().find(|identity| identity.id == id).expect("known").labels.clone();
                seen.push((labels.metric().to_owned(), columns.ts_ms.value(i), columns.value.value(i)));
            }
        }
        assert_eq!(seen, [("a".to_owned(), 1, 3.0), ("a".to_owned(), 3, 2.0), ("b".to_owned(), 2, 1.0)]);
    }
}

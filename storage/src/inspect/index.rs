//! Sidecars: what each holds.
//!
//! Owns: the reports, by kind. Does not own: their forms and what is said of them (`crate::index`).

use futures::TryStreamExt;
use object_store::path::Path;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::index::Sidecar;
use crate::store::Store;

/// One sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SidecarReport {
    /// Its path in the store.
    pub object: String,
    /// What it is: `directory`, `tokens`, `dictionary`, or `unknown`.
    pub kind: String,
    /// Its size.
    pub bytes: u64,
    /// What it holds, in one line; what is wrong, if it cannot be read.
    pub summary: String,
    /// Whether it could be read.
    pub readable: bool,
}

/// Reads one sidecar.
pub async fn sidecar(store: &Store, object: &Path) -> Result<SidecarReport> {
    let Some(bytes) = store.get(object).await? else {
        return Err(Error::invalid(format!("there is no object `{object}` in {}", store.url())));
    };
    let size = bytes.len() as u64;
    let kind = Sidecar::ALL.into_iter().find(|kind| object.as_ref().ends_with(kind.suffix()));
    let summary = match kind {
        Some(kind) => kind.decode(bytes),
        None => Err(Error::invalid("no kind of sidecar that this version knows")),
    };
    Ok(SidecarReport {
        object: object.to_string(),
        kind: kind.map_or_else(|| "unknown".to_owned(), |kind| format!("{kind:?}").to_lowercase()),
        bytes: size,
        readable: summary.is_ok(),
        summary: summary.unwrap_or_else(|error| error.to_string()),
    })
}

/// The sidecars beside the block `object`, or all of the table whose folder `object` is.
pub async fn sidecars_of(store: &Store, object: &Path) -> Result<Vec<SidecarReport>> {
    let (folder, stem) = match object.as_ref().split_once("/date=") {
        Some((table, block)) => {
            let file = block.rsplit('/').next().unwrap_or(block);
            (Path::from(table), Some(file.strip_suffix(".parquet").unwrap_or(file).to_owned()))
        }
        None => (object.clone(), None),
    };
    let mut found = Vec::new();
    let mut list = store.objects().list(Some(&folder.join("_index")));
    while let Some(meta) = list.try_next().await? {
        let named = meta.location.filename().unwrap_or_default();
        if stem.as_ref().is_none_or(|stem| named.starts_with(stem.as_str())) {
            found.push(sidecar(store, &meta.location).await?);
        }
    }
    Ok(found)
}

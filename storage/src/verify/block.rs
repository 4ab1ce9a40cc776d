//! One block: its bytes, its footer, its rows, its sidecar.
//!
//! Owns: what a block must agree with. Does not own: the rows' order and identities (`rows`).

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::rows::{Known, Rows};
use super::{Check, Report};
use crate::error::{Error, Kind, Result};
use crate::index::{Builder, Built};
use crate::paths;
use crate::scan::open::{Opened, guarded, open_block};
use crate::store::Store;
use crate::table::Block;

const RESTORE: &str = "restore it from a backup or from the bucket's earlier versions: queries that need it fail or \
                       answer wrongly";
const REBUILD: &str = "delete it: it is derived from its block";

/// Whether a block was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    There,
    Gone,
}

/// Checks `block`; adds its identities to `known` if it is of an identity table.
pub(super) async fn check(check: &mut Check<'_>, block: &Block, known: &mut Known) -> Result<Presence> {
    let object = paths::block_object(check.tables.tenant(), check.table, &block.path);
    let Some((bytes, checksum)) = read_through(check.tables.store(), &object).await? else {
        return Ok(Presence::Gone);
    };
    if bytes != block.bytes {
        let wrong = format!("it has {bytes} bytes, the log says {}", block.bytes);
        check.report.damage(&object, wrong, RESTORE);
        return Ok(Presence::There);
    }
    if block.checksum.is_some_and(|expected| expected != checksum) {
        check.report.damage(&object, "its bytes do not have the checksum that the log names", RESTORE);
        return Ok(Presence::There);
    }
    if block.checksum.is_some() && !block.path.starts_with(&format!("{}={}/", paths::PARTITION, block.day)) {
        check.report.damage(&object, format!("the log puts it into the partition {}", block.day), RESTORE);
    }
    if block.checksum.is_none() {
        let act = "nothing, if another program wrote it: its rows are compared, but not all damage can be seen";
        check.report.notice(&object, "the log names no checksum of it", act);
    }
    if check.table.spec().time.is_some() && block.times.is_none() {
        let act = "nothing, if another program wrote it: every query of the table reads it";
        check.report.notice(&object, "the log names no first and last time of it", act);
    }
    match contents(check, block, known).await {
        Ok(()) => {}
        // Removed by a running writer since its bytes were read.
        Err(error) if error.kind() == Kind::Corrupt && is_gone(check.tables.store(), &object).await => {}
        Err(error) => check.report.failed(&object, error, RESTORE)?,
    }
    Ok(Presence::There)
}

/// Length and CRC-32C of an object; `None` if there is none.
async fn read_through(store: &Store, object: &Path) -> Result<Option<(u64, u32)>> {
    let read = async {
        let mut stream = store.objects().get(object).await?.into_stream();
        let (mut bytes, mut checksum) = (0, 0);
        while let Some(part) = stream.try_next().await? {
            bytes += part.len() as u64;
            checksum = crc32c::crc32c_append(checksum, &part);
        }
        Ok((bytes, checksum))
    };
    match read.await {
        Ok(found) => Ok(Some(found)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(source) => {
            let text = format!("reading the object `{object}` failed");
            Err(Error::new(Kind::Unavailable, text).with_source(source))
        }
    }
}

async fn is_gone(store: &Store, object: &Path) -> bool {
    matches!(store.objects().head(object).await, Err(object_store::Error::NotFound { .. }))
}

async fn contents(check: &mut Check<'_>, block: &Block, known: &mut Known) -> Result<()> {
    let (tables, table) = (check.tables, check.table);
    let object = paths::block_object(tables.tenant(), table, &block.path);
    let opened = Arc::new(open_block(tables, table, block, None).await?);
    if opened.rows() != block.rows {
        let wrong = format!("its footer counts {} rows, the log {}", opened.rows(), block.rows);
        check.report.damage(&object, wrong, RESTORE);
    }
    let mut rows = Rows::new(table, block.day)?;
    let mut rebuilt = Builder::new(table);
    let reader = Arc::clone(&opened);
    let mut stream = guarded(object.clone(), async move { reader.all_rows() });
    while let Some(batch) = stream.try_next().await? {
        rebuilt.observe(&batch)?;
        rows.add(&batch, known)?;
    }
    let traces = rows.settle(&object, block, check.report);
    blooms(&opened, &object, &traces, check.report).await?;
    sidecars(check, block, rebuilt.finish()?).await
}

/// Every trace must pass the bloom filter of its row group: (first row, id) of each.
async fn blooms(opened: &Opened, object: &Path, traces: &[(u64, [u8; 16])], report: &mut Report) -> Result<()> {
    let Some(leaf) = opened.leaf("trace_id").filter(|_| !traces.is_empty()) else { return Ok(()) };
    let (mut start, mut missing) = (0, 0_u64);
    for (at, group) in opened.footer().row_groups().iter().enumerate() {
        let end = start + u64::try_from(group.num_rows()).unwrap_or(0);
        let from = traces.partition_point(|(row, _)| *row < start);
        let to = traces.partition_point(|(row, _)| *row < end);
        missing += opened.bloom_misses(at, leaf, traces[from..to].iter().map(|(_, id)| id.as_slice())).await?;
        start = end;
    }
    if missing > 0 {
        report.damage(object, format!("its bloom filters deny {missing} of its traces"), RESTORE);
    }
    Ok(())
}

/// Each sidecar beside a block must be what its rows give.
async fn sidecars(check: &mut Check<'_>, block: &Block, rebuilt: Built) -> Result<()> {
    for (kind, expected) in rebuilt.objects {
        let object = paths::sidecar_object(check.tables.tenant(), check.table, &block.path, kind);
        let Some(found) = check.tables.store().get(&object).await? else {
            let act = "nothing: it is derived from its block; without it reads take longer";
            check.report.notice(&object, "the sidecar is missing", act);
            continue;
        };
        check.report.sidecars += 1;
        if found != expected {
            let wrong = kind.decode(found).err().map(|error| error.to_string());
            let wrong = wrong.unwrap_or_else(|| "the sidecar is not what its block's rows give".to_owned());
            check.report.damage(&object, wrong, REBUILD);
        }
    }
    Ok(())
}

//! Every object's path is made and parsed here.
//!
//! Owns: the layout of the store: `<tenant>/<table>/date=YYYY-MM-DD/<id>.parquet` for blocks,
//! `<tenant>/<table>/_delta_log/…` for the table's log, `<tenant>/<table>/_index/<id>.<kind>` for sidecars.
//! `<tenant>/_deletes/<number>.json` for delete requests.
//! Does not own: what is inside.

use object_store::path::Path;
/// A path inside a store.
pub use object_store::path::Path as ObjectPath;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::index::Sidecar;
use crate::model::tenant::Tenant;
use crate::model::time::Day;
use crate::signal::Table;

/// The partition column of every table.
pub const PARTITION: &str = "date";

/// The scheme of table URLs. One of our own, because `file://` makes the log reader look from the root of the
/// file system instead of the root of the store.
const SCHEME: &str = "tercet";

const BLOCK_SUFFIX: &str = ".parquet";
const INDEX_FOLDER: &str = "_index";
const DELETES_FOLDER: &str = "_deletes";

/// The folder of a table.
pub fn table(tenant: &Tenant, table: Table) -> Path {
    Path::from_iter([tenant.as_str(), table.name()])
}

/// What an object of a table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// A block, by its path inside the table.
    Block(String),
    /// An index of the block with this [`stem`].
    Sidecar(String),
    /// The log, or nothing of ours.
    Other,
}

/// What the object at `path` in the table's `folder` is.
pub fn stored(folder: &Path, path: &Path) -> Stored {
    let Some(parts) = path.prefix_match(folder) else { return Stored::Other };
    let parts: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
    match parts.as_slice() {
        [day, file] if day.starts_with(PARTITION) && file.ends_with(BLOCK_SUFFIX) => {
            Stored::Block(format!("{day}/{file}"))
        }
        [index, .., file] if index == INDEX_FOLDER => Stored::Sidecar(stem(file).to_owned()),
        _ => Stored::Other,
    }
}

/// The name that a block shares with its sidecars: its file without folder and endings.
pub fn stem(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file)
}

/// The folder of a tenant's delete requests.
pub fn deletes_folder(tenant: &Tenant) -> Path {
    Path::from_iter([tenant.as_str(), DELETES_FOLDER])
}

/// The state number `number` of a tenant's delete requests.
pub fn deletes(tenant: &Tenant, number: u64) -> Path {
    deletes_folder(tenant).join(format!("{number:020}.json"))
}

/// The URL under which the log library knows a table.
pub fn table_url(tenant: &Tenant, table: Table) -> Result<url::Url> {
    url::Url::parse(&format!("{SCHEME}:///{}/", self::table(tenant, table)))
        .map_err(|source| Error::bug("a table's URL does not parse").with_source(source))
}

/// The path of a new block inside its table.
pub fn block(day: Day, id: Uuid) -> String {
    format!("{PARTITION}={day}/{id}{BLOCK_SUFFIX}")
}

/// The whole path of a block that the table's log names `block`.
pub fn block_object(tenant: &Tenant, table: Table, block: &str) -> Path {
    let mut path = self::table(tenant, table);
    for part in block.split('/').filter(|part| !part.is_empty()) {
        path = path.join(part);
    }
    path
}

/// The whole path of a sidecar beside a block.
pub fn sidecar_object(tenant: &Tenant, table: Table, block: &str, sidecar: Sidecar) -> Path {
    let file = block.rsplit('/').next().unwrap_or(block);
    let stem = file.strip_suffix(BLOCK_SUFFIX).unwrap_or(file);
    self::table(tenant, table).join(INDEX_FOLDER).join(format!("{stem}{}", sidecar.suffix()))
}

/// The whole paths of all sidecars that a block may have.
pub fn sidecar_objects(tenant: &Tenant, table: Table, block: &str) -> Vec<Path> {
    let kinds = Sidecar::ALL.into_iter().filter(|sidecar| sidecar.applies(table));
    kinds.map(|sidecar| sidecar_object(tenant, table, block, sidecar)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_the_layout() {
        let tenant = Tenant::new("team-a").expect("valid");
        let block = block(Day::parse("2026-01-05").expect("a date"), Uuid::nil());
        assert_eq!(block, "date=2026-01-05/00000000-0000-0000-0000-000000000000.parquet");
        assert_eq!(
            block_object(&tenant, Table::Samples, &block).as_ref(),
            "team-a/samples/date=2026-01-05/00000000-0000-0000-0000-000000000000.parquet"
        );
        assert_eq!(
            sidecar_object(&tenant, Table::Samples, &block, Sidecar::Directory).as_ref(),
            "team-a/samples/_index/00000000-0000-0000-0000-000000000000.dir"
        );
        let of_logs = sidecar_objects(&tenant, Table::Logs, &block);
        let kinds: Vec<&str> =
            of_logs.iter().filter_map(|path| path.as_ref().rsplit_once('.')).map(|(_, kind)| kind).collect();
        assert_eq!(kinds, ["dir", "tok", "dic"]);
        let folder = table(&tenant, Table::Samples);
        let object = sidecar_object(&tenant, Table::Samples, &block, Sidecar::Directory);
        assert_eq!(stored(&folder, &object), Stored::Sidecar(Uuid::nil().to_string()));
        assert_eq!(stored(&folder, &block_object(&tenant, Table::Samples, &block)), Stored::Block(block));
        assert_eq!(stored(&folder, &folder.clone().join("_delta_log").join("0.json")), Stored::Other);
        assert_eq!(table_url(&tenant, Table::Logs).expect("parses").as_str(), "tercet:///team-a/logs/");
    }
}

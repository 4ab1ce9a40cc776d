//! The log of one table, entry by entry.
//!
//! Owns: whether the entries are consecutive, readable, and reach back to the beginning or to a checkpoint. Does not
//! own: what they add up to (`table::log`).

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use serde_json::Value;

use super::Report;
use crate::error::Result;
use crate::store::Store;
use crate::table::{Order, TOKEN};

const RESTORE: &str = "restore it from a backup or from the bucket's earlier versions";

/// Checks the log below the table's `folder`; whether there is one.
pub(super) async fn check(store: &Store, folder: &Path, report: &mut Report) -> Result<bool> {
    let log = folder.clone().join("_delta_log");
    let (mut entries, mut checkpoints) = (Vec::new(), Vec::new());
    let mut list = store.objects().list(Some(&log));
    while let Some(meta) = list.try_next().await? {
        let Some(name) = meta.location.filename() else { continue };
        let Some((version, ending)) = name.split_once('.') else { continue };
        let Ok(version) = version.parse::<u64>() else { continue };
        match ending {
            "json" => entries.push((version, meta.location)),
            _ if ending.starts_with("checkpoint") => checkpoints.push(version),
            _ => {}
        }
    }
    entries.sort();
    let (Some((first, _)), Some(_)) = (entries.first(), entries.last()) else {
        return Ok(!checkpoints.is_empty());
    };
    for pair in entries.windows(2) {
        if let [(before, _), (after, object)] = pair
            && before + 1 != *after
        {
            report.damage(
                object,
                format!("the entries {} to {} before it are missing", before + 1, after - 1),
                RESTORE,
            );
        }
    }
    if *first > 0 && !checkpoints.iter().any(|version| version + 1 >= *first) {
        report.damage(&log, format!("entry {first} is the oldest, and no checkpoint stands for those before"), RESTORE);
    }
    for (version, object) in &entries {
        // A writer may have cleaned it away since it was listed.
        let Some(bytes) = store.get(object).await? else { continue };
        if let Some(wrong) = wrong_entry(*version, &bytes) {
            report.damage(object, wrong, RESTORE);
        }
    }
    Ok(true)
}

/// What is wrong with an entry.
fn wrong_entry(version: u64, bytes: &Bytes) -> Option<String> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Some("it is no UTF-8 text".to_owned()) };
    let (mut actions, mut protocol, mut ours, mut places) = (0, false, false, Vec::new());
    for (line, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(action)) if action.len() == 1 => {
                actions += 1;
                protocol |= action.contains_key("protocol");
                ours |= action.get("commitInfo").is_some_and(|info| info.get(TOKEN).is_some());
                places.extend(action.get("add").map(|add| (line + 1, Order::stands(&add["tags"], version))));
            }
            Ok(_) => return Some(format!("line {} is no action", line + 1)),
            Err(error) => return Some(format!("line {} is no JSON: {error}", line + 1)),
        }
    }
    let lost = places.iter().find(|(_, stands)| *stands == Some(false) || (ours && stands.is_none()));
    if let Some((line, _)) = lost {
        return Some(format!(
            "line {line} adds a file with a place in the order of arrival that version {version} cannot give"
        ));
    }
    match (actions, version, protocol) {
        (0, ..) => Some("it holds no action".to_owned()),
        (_, 0, false) => Some("the first entry does not name the protocol".to_owned()),
        _ => None,
    }
}

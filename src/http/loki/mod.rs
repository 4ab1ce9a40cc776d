//! Loki's API: push, queries, labels, volume and status.

pub mod delete;
mod encode;
pub mod fields;
pub mod labels;
mod params;
pub mod push;
pub mod query;
pub mod status;
pub mod tail;
pub mod volume;

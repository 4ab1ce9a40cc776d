//! Prometheus' API: remote write, queries, labels, status and deletion.

pub mod admin;
mod encode;
pub mod labels;
mod metadata;
mod params;
pub mod query;
pub mod status;
pub mod write;

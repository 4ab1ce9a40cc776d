//! Prometheus' API: remote write, queries, labels and status.

mod encode;
pub mod labels;
mod metadata;
mod params;
pub mod query;
pub mod status;
pub mod write;

//! Tempo's API: traces by id, search, tags, metrics and status.

pub mod encode;
pub mod metrics;
pub mod params;
pub mod search;
pub mod status;
pub mod tags;
pub mod trace;

//! What the load generator and the benches share: the data that they send.

pub mod data;

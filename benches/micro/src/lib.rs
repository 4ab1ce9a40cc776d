//! Nothing but a home for the benches of `benches/micro/benches`.

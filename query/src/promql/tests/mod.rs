//! Tests of the language as a whole: what parses, prints and fails how.

mod corpus;
mod replay;
mod script;
mod store;
mod syntax;

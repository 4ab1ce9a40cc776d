//! The owner of data: a name that is also a folder in the store.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};

/// The longest tenant name in bytes, as Loki and Tempo have it.
pub const TENANT_BYTES_MAX: usize = 150;

/// A checked tenant name: letters, digits and `!-_.*'()`, neither `.` nor `..`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(Arc<str>);

impl Tenant {
    /// Checks `name`; the rules are Loki's and Tempo's, since the name becomes a folder.
    pub fn new(name: &str) -> Result<Self> {
        let fits = !name.is_empty() && name.len() <= TENANT_BYTES_MAX && name != "." && name != "..";
        let clean = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!-_.*'()".contains(&b));
        if fits && clean {
            Ok(Self(name.into()))
        } else {
            Err(Error::invalid(format!(
                "tenant id `{}` is not valid: use 1 to {TENANT_BYTES_MAX} of letters, digits and !-_.*'()",
                name.chars().take(40).collect::<String>()
            )))
        }
    }

    /// The tenant of all requests while tenancy is off.
    pub fn single() -> Self {
        Self("default".into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for name in ["", ".", "..", "a/b", "a b", "ä", &"x".repeat(151)] {
            assert!(Tenant::new(name).is_err(), "{name:?}");
        }
        assert!(Tenant::new("team-a_1.(x)").is_ok());
    }
}

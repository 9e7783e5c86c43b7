//! A mistake on its way from the value to the list of findings.

use std::fmt;

use serde::de::{self, Expected, Unexpected};

use crate::config::yaml::join;

/// One mistake on its way up. `key` is known to the innermost value that it passes.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) key: Option<String>,
    pub(super) missing: Option<&'static str>,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Fault { key: None, missing: None, message: message.into() }
    }

    pub(super) fn at(self, path: &str) -> Self {
        let here = || self.missing.map_or(path.to_string(), |field| join(path, field));
        Fault { key: Some(self.key.unwrap_or_else(here)), missing: None, message: self.message }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Fault::new(message.to_string())
    }
    fn invalid_type(found: Unexpected, expected: &dyn Expected) -> Self {
        Fault::new(format!("must be {expected}, found {found}"))
    }
    fn invalid_value(found: Unexpected, expected: &dyn Expected) -> Self {
        Fault::new(format!("must be {expected}, found {found}"))
    }
    fn missing_field(field: &'static str) -> Self {
        Fault { key: None, missing: Some(field), message: "missing; this key has no default, add it".to_string() }
    }
}

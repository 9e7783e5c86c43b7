//! Layered YAML, overrides, sweeps, errors with file and key.

//! One layer of a configuration, and its tree by dotted keys.

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::yaml::{Lines, join};

/// Keys from one place, and where each stands there.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    /// The file, or the variable or override as it was written.
    pub(super) name: String,
    /// The one key that a variable or an override sets; `None` for a file.
    pub(super) key: Option<String>,
    pub(super) dict: Dict,
    /// Empty for variables and overrides.
    pub(super) lines: Lines,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }
    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

/// The value at a dotted key.
pub(super) fn find<'a>(dict: &'a Dict, path: &str) -> Option<&'a Value> {
    match path.split_once('.') {
        None => dict.get(path),
        Some((head, rest)) => find(dict.get(head)?.as_dict()?, rest),
    }
}

pub(super) fn remove(dict: &mut Dict, path: &str) {
    match path.split_once('.') {
        None => drop(dict.remove(path)),
        Some((head, rest)) => {
            if let Some(Value::Dict(_, block)) = dict.get_mut(head) {
                remove(block, rest);
            }
        }
    }
}

/// The dotted keys of all values that are not blocks.
pub(super) fn leaves(dict: &Dict) -> Vec<String> {
    let below = |(key, value): (&String, &Value)| match value {
        Value::Dict(_, block) if !block.is_empty() => leaves(block).iter().map(|leaf| join(key, leaf)).collect(),
        _ => vec![key.clone()],
    };
    dict.iter().flat_map(below).collect()
}

/// `file:line` of a key.
pub(super) fn at(layer: &Layer, key: &str) -> String {
    match layer.lines.get(key) {
        Some(line) => format!("{}:{line}", layer.name),
        None => layer.name.clone(),
    }
}

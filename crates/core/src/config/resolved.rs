//! The layers put together: the tree, where each key comes from, its text, its hash, what differs from another.

use std::path::PathBuf;

use figment::value::{Dict, Num, Value};
use figment::{Figment, Profile, Provider};
use sha2::{Digest, Sha256};

use super::layer::{Layer, find, leaves, remove};
use super::layers::merge;
use super::yaml;

/// These change where and how a run computes, how often it is looked at, and which printed number it is held against. They do not change
/// what it is, so they are not part of its hash, and a run that goes on may set them anew.
pub(crate) const NOT_HASHED: [&str; 11] = [
    "compute.device",
    "compute.threads",
    "data.workers",
    "data.root",
    "data.max_bad",
    "log",
    "checkpoint",
    "limit",
    "eval.every",
    "eval.full_every",
    "paper",
];

/// Whether a dotted key is part of the hash.
pub(crate) fn is_hashed(key: &str) -> bool {
    let within = |block: &&str| key.strip_prefix(*block).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    !NOT_HASHED.iter().any(within)
}

/// A configuration put together from its layers, before it is given types.
#[derive(Debug, Clone)]
pub struct Resolved {
    pub(super) tree: Dict,
    figment: Figment,
    /// Lowest first.
    layers: Vec<Layer>,
    file: PathBuf,
    /// Blocks whose kind an override has set on its own.
    rekinded: Vec<String>,
}

/// Where a key comes from; sorts by layer and line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Origin {
    layer: usize,
    line: u64,
    /// `experiments/lenet/x.yaml:12`, `variable REPRO__seed` or `command line: seed=abc`.
    pub(super) place: String,
    /// The key that the variable or override itself names.
    pub(super) key: Option<String>,
}

impl Resolved {
    pub(super) fn new(file: PathBuf, layers: Vec<Layer>, figment: Figment, rekinded: Vec<String>) -> Self {
        let tree = figment.data().ok().and_then(|mut profiles| profiles.remove(&Profile::Default)).unwrap_or_default();
        Resolved { tree, figment, layers, file, rekinded }
    }

    /// Without those of the keys that a file sets in a block whose kind an override has set: they were meant for another kind. `None` if there is
    /// no such key.
    pub(super) fn without_leftovers(&self, unknown: &[String]) -> Option<Self> {
        let of_block = |key: &str| self.rekinded.iter().any(|block| parent(key) == block);
        let of_file = |key: &str| self.layer_of(key).is_some_and(|at| self.layers[at].key.is_none());
        let gone: Vec<&String> = unknown.iter().filter(|key| of_block(key) && of_file(key)).collect();
        let mut layers = self.layers.clone();
        for layer in &mut layers {
            gone.iter().for_each(|key| remove(&mut layer.dict, key));
        }
        let figment = merge(&layers);
        (!gone.is_empty()).then(|| Resolved::new(self.file.clone(), layers, figment, self.rekinded.clone()))
    }

    /// The configuration as YAML without a `defaults` list: loaded again it is the same. Keys stand in a fixed order.
    pub fn yaml(&self) -> String {
        yaml::print(&self.tree, &|_| String::new())
    }

    /// As [`yaml`](Self::yaml), with the origin of each value behind it: `# file:line`, a variable, or the override.
    pub fn with_origins(&self) -> String {
        yaml::print(&self.tree, &|key| self.origin(key).place)
    }

    /// The value of a dotted key as text, such as `get("model.name")`; `None` where there is none or it is null.
    pub fn get(&self, key: &str) -> Option<String> {
        match find(&self.tree, key)? {
            Value::Empty(..) => None,
            Value::String(_, text) => Some(text.clone()),
            value => Some(yaml::flow(value)),
        }
    }

    /// SHA-256, in hex, over the canonical JSON of what decides the result: without device, threads, workers, the data's
    /// folder and the bad pictures that are allowed, logging, checkpointing, the wall-clock limit, how often the run is evaluated, and the
    /// `paper:` block.
    pub fn hash(&self) -> String {
        self.hash_without(&[])
    }

    /// [`hash`](Self::hash) without the lengths of the stages: what a step depends on where the schedule does not look at the length.
    pub(crate) fn course(&self) -> String {
        let lengths: Vec<String> = leaves(&self.tree).into_iter().filter(|key| is_length(key)).collect();
        self.hash_without(&lengths.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// [`hash`](Self::hash) without some more keys.
    pub(crate) fn hash_without(&self, keys: &[&str]) -> String {
        let mut tree = self.tree.clone();
        for key in NOT_HASHED.iter().chain(keys) {
            remove(&mut tree, key);
        }
        let json = canonical(&Value::from(tree)).to_string();
        Sha256::digest(json.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Every dotted key that is no block, with its value.
    pub fn leaves(&self) -> Vec<(String, serde_json::Value)> {
        let value = |key: String| find(&self.tree, &key).map(canonical).map(|json| (key, json));
        leaves(&self.tree).into_iter().filter_map(value).collect()
    }

    /// Where a key's value comes from; of a missing key, where its block stands.
    pub(super) fn origin(&self, path: &str) -> Origin {
        let mut known = path;
        while !known.is_empty() && self.layer_of(known).is_none() {
            known = parent(known);
        }
        let file = self.layers.iter().rposition(|layer| layer.name == self.file.display().to_string());
        let index = self.layer_of(known).or(file).unwrap_or(0);
        let Some(layer) = self.layers.get(index) else {
            return Origin { layer: 0, line: 0, place: self.file.display().to_string(), key: None };
        };
        // Elements of lists have lines of their own.
        let mut key = path;
        while !key.is_empty() && !layer.lines.contains_key(key) {
            key = parent(key);
        }
        match layer.lines.get(key) {
            Some(line) => Origin { layer: index, line: *line, place: format!("{}:{line}", layer.name), key: None },
            None => Origin { layer: index, line: 0, place: layer.name.clone(), key: layer.key.clone() },
        }
    }

    fn layer_of(&self, path: &str) -> Option<usize> {
        let value = find(&self.tree, path)?;
        // A block is made by several layers; the reader looks for it in the uppermost file that has it.
        let file = || self.layers.iter().rposition(|layer| layer.lines.contains_key(path));
        let tagged = || {
            let name = &self.figment.get_metadata(value.tag())?.name;
            self.layers.iter().rposition(|layer| layer.name == *name)
        };
        if value.as_dict().is_some() { file().or_else(tagged) } else { tagged() }
    }
}

/// Whether a key is the length of a stage: `length`, `probe.length`.
pub(crate) fn is_length(key: &str) -> bool {
    key == "length" || key.ends_with(".length") && key.matches('.').count() == 1
}

/// The dotted keys whose values differ, sorted. A key that is null and one that is missing are the same.
pub fn diff(a: &Resolved, b: &Resolved) -> Vec<String> {
    let mut keys: Vec<String> = leaves(&a.tree).into_iter().chain(leaves(&b.tree)).collect();
    keys.sort();
    keys.dedup();
    let value =
        |resolved: &Resolved, key: &str| find(&resolved.tree, key).map(canonical).filter(|json| !json.is_null());
    keys.retain(|key| value(a, key) != value(b, key));
    // `optim` against `optim.lr` where one is a block and the other is not: the longer keys say it.
    let all = keys.clone();
    keys.retain(|key| {
        !all.iter().any(|other| other.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with('.')))
    });
    keys
}

/// Equal configurations give equal JSON: keys sorted, no nulls, whole numbers without a point.
fn canonical(value: &Value) -> serde_json::Value {
    match value {
        Value::String(_, text) => text.as_str().into(),
        Value::Char(_, c) => c.to_string().into(),
        Value::Bool(_, b) => (*b).into(),
        Value::Empty(..) => serde_json::Value::Null,
        Value::Num(_, number) => match *number {
            Num::F64(v) if v.fract() == 0.0 && v.abs() < 1e15 => (v as i64).into(),
            Num::F64(v) => v.into(),
            Num::I64(v) => v.into(),
            Num::U64(v) => v.into(),
            other => other.to_f64().into(),
        },
        Value::Array(_, list) => list.iter().map(canonical).collect(),
        Value::Dict(_, dict) => {
            let entries = dict.iter().filter(|(_, value)| !matches!(value, Value::Empty(..)));
            serde_json::Value::Object(entries.map(|(key, value)| (key.clone(), canonical(value))).collect())
        }
    }
}

/// `a.b[0]` → `a.b` → `a` → ``.
fn parent(path: &str) -> &str {
    path.rfind(['.', '[']).map_or("", |end| &path[..end])
}

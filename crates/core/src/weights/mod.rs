//! Weights in and out: safetensors, strict both ways.
//!
//! tch's own loader broadcasts shapes, takes the file's dtype and ignores extra names (each a source of silently wrong numbers); this one
//! counts every missing, unexpected and misshapen tensor and refuses. What only the packing of people's files differs in (prefixes that
//! wrappers leave, half precision, absent counters, shards) is put right and said.
//!
//! The way of a file: [`load`] finds and reads it ([`locate`], [`read`]; what `hf:` names is fetched first) → [`Load::copy`] fits it to a
//! model → [`begin`] does so for a run that starts from it, with a fresh classifier and frozen parts if it shall have them.

mod begin;
mod darknet;
mod file;
mod fit;
mod hub;
mod locate;
mod names;
mod pickle;
mod stages;

use std::collections::BTreeMap;

use tch::Tensor;

pub use begin::{begin, frozen_hash};
pub use darknet::{DARKNET, write_darknet};
pub use file::{hash, hex, read, write};
pub use fit::{Load, copy_into};
pub use hub::{is_address, pinned};
pub use locate::{load, locate};
pub(crate) use names::some;
pub use names::{below_prefix, check_prefixes};
pub use stages::{file_name, hand_over, load_stage};

/// Tensors by name, sorted, so that files and hashes do not depend on the order of creation.
pub type Named = BTreeMap<String, Tensor>;

/// The tensors of a recipe's parts, each under its part's name and a dot: what a checkpoint keeps.
pub fn together<'a>(parts: impl IntoIterator<Item = (&'a str, Named)>) -> Named {
    let named =
        |(part, tensors): (&'a str, Named)| tensors.into_iter().map(move |(name, t)| (format!("{part}.{name}"), t));
    parts.into_iter().flat_map(named).collect()
}

/// The entries whose names start with `prefix`, such as `model.`, without it.
pub fn below(state: &Named, prefix: &str) -> Named {
    state.iter().filter_map(|(n, t)| Some((n.strip_prefix(prefix)?.to_string(), t.shallow_clone()))).collect()
}

/// Names, kinds and shapes, a line each: what must agree before values can.
pub fn outline(tensors: &Named) -> String {
    tensors.iter().map(|(name, t)| format!("{name} {:?} {:?}\n", t.kind(), t.size())).collect()
}

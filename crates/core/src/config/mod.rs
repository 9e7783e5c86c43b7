//! Layered YAML, overrides, sweeps, errors with file and key.
//!
//! Layers, each over the one before: the group files that `defaults: [data/mnist, compute/auto]` names under `groups/`,
//! the file itself, variables `REPRO__a__b=value`, overrides `a.b=value`. A block whose `kind` changes is replaced, not
//! merged. What the layers give is read into [`Settings`], which all papers share, and the paper's own struct; every
//! mistake in either is reported at once, with its place.
//!
//! Enums are written as a block with `kind: <variant>` beside the variant's fields, or as one word where the variant has none.

mod de;
mod files;
mod findings;
mod layer;
mod layers;
mod length;
mod nearest;
mod resolved;
mod settings;
mod sweep;
#[cfg(test)]
mod tests;
mod yaml;

use std::path::{Path, PathBuf};

use figment::value::Dict;
use serde::de::DeserializeOwned;

use crate::{Error, Result};

pub use findings::Findings;
pub use length::{Every, Length, Limit};
pub(crate) use nearest::nearest;
pub(crate) use resolved::{NOT_HASHED, is_hashed, is_length};
pub use resolved::{Resolved, diff};
pub use settings::{
    AnnotatedFiles, CanvasConfig, CheckpointConfig, Claim, Compute, DataConfig, EvalConfig, Head, InitConfig, Log,
    Precision, Settings, SplitFiles,
};
pub use sweep::sweep;

/// A configuration, read and checked.
#[derive(Debug, Clone)]
pub struct Experiment<C> {
    /// What all papers share.
    pub settings: Settings,
    /// Every other top-level key.
    pub paper: C,
    /// The keys as they were put together, and where each comes from.
    pub resolved: Resolved,
    /// The file that was asked for.
    pub file: PathBuf,
}

/// Puts `file`, its group files and the overrides together without reading them into any paper's types: for programs that
/// want a configuration's claim and hash, and know no paper. The environment's variables do not act here.
///
/// # Errors
/// [`Error::User`] for what keeps the layers from being put together.
pub fn resolve(file: &Path, overrides: &[String]) -> Result<Resolved> {
    layers::compose(file, overrides, [])
}

/// Reads `file` with its group files, the environment's `REPRO__…` variables and `key=value` overrides.
///
/// # Errors
/// [`Error::User`]: every unknown key, missing key, wrong type and wrong range at once, each with file and line,
/// variable or override; or the first mistake that keeps the layers from being put together at all.
pub fn load<C: DeserializeOwned>(file: &Path, overrides: &[String]) -> Result<Experiment<C>> {
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    load_with(file, overrides, variables)
}

/// Reads the configuration that a run has kept, such as that of a network which another run uses: overrides and the environment's variables are
/// meant for the other run and do not act on it.
///
/// # Errors
/// As [`load`].
pub fn kept<C: DeserializeOwned>(file: &Path) -> Result<Experiment<C>> {
    load_with(file, &[], [])
}

fn load_with<C: DeserializeOwned>(
    file: &Path,
    overrides: &[String],
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Experiment<C>> {
    let mut resolved = layers::compose(file, overrides, variables)?;
    loop {
        let (settings, paper, findings) = read::<C>(&resolved);
        if let Some(without) = resolved.without_leftovers(&findings.unknown) {
            resolved = without;
            continue;
        }
        return match (settings, paper) {
            (Some(settings), Some(paper)) if findings.problems.is_empty() => {
                let experiment = Experiment { settings, paper, resolved, file: file.to_owned() };
                experiment.check(&experiment.settings.problems())?;
                Ok(experiment)
            }
            _ => Err(report(&resolved, file, &findings.problems)),
        };
    }
}

/// The tree as what all papers share and what this one adds.
fn read<C: DeserializeOwned>(resolved: &Resolved) -> (Option<Settings>, Option<C>, de::Findings) {
    let shared = de::fields::<Settings>();
    let (ours, papers): (Dict, Dict) =
        resolved.tree.clone().into_iter().partition(|(key, _)| shared.contains(&key.as_str()));
    let mut findings = de::Findings::default();
    let settings = de::read(ours, &[], &mut findings);
    let paper = de::read(papers, shared, &mut findings);
    (settings, paper, findings)
}

impl<C> Experiment<C> {
    /// Refuses values that the types allow and the method does not, as (dotted key, what is wrong and what to do).
    ///
    /// # Errors
    /// [`Error::User`] that lists all of them with their origin, unless there are none.
    pub fn check<K: AsRef<str>>(&self, problems: &[(K, String)]) -> Result<()> {
        if problems.is_empty() { Ok(()) } else { Err(report(&self.resolved, &self.file, problems)) }
    }
}

/// One line per problem, in the order of the layers and of the lines in them.
fn report<K: AsRef<str>>(resolved: &Resolved, file: &Path, problems: &[(K, String)]) -> Error {
    let mut found: Vec<_> =
        problems.iter().map(|(key, message)| (resolved.origin(key.as_ref()), key.as_ref(), message)).collect();
    found.sort();
    let mut text = match found.len() {
        1 => format!("1 problem in the configuration {}:", file.display()),
        n => format!("{n} problems in the configuration {}:", file.display()),
    };
    for (origin, key, message) in found {
        // An override already names its key.
        let key = if origin.key.as_deref() == Some(key) || key.is_empty() { String::new() } else { format!(" {key}:") };
        text += &format!("\n  {}:{key} {message}", origin.place);
    }
    Error::User(text)
}

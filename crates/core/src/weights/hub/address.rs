//! Addresses in the hub, and which file of a repository they mean.

use std::fmt;
use std::path::{Component, Path};

use crate::weights::locate::INDEX;
use crate::weights::some;
use crate::{Result, user};

/// How an address begins.
const SCHEME: &str = "hf:";
/// The names that the hub gives to the weights of a model, whole and in shards.
pub(super) const NAMES: [&str; 2] = ["model.safetensors", "model.safetensors.index.json"];

/// Whether `path` is meant as an address in the hub.
pub fn is_address(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.starts_with(SCHEME))
}

/// `hf:owner/name@revision/file`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Address {
    /// `owner/name`.
    pub(super) repository: String,
    /// A branch, a tag, or a commit.
    pub(super) revision: String,
    /// A file or a folder; empty: the repository itself.
    pub(super) file: String,
}

impl Address {
    pub(super) fn of(path: &Path) -> Result<Option<Self>> {
        let Some(text) = path.to_str().and_then(|text| text.strip_prefix(SCHEME)) else { return Ok(None) };
        let mut parts = text.trim_end_matches('/').splitn(3, '/');
        let (owner, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
        let (revision, file) = (revision.replace("%2F", "/"), parts.next().unwrap_or_default().to_string());
        let word =
            |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if !word(owner) || !word(name) || !plain(&revision) || !(file.is_empty() || plain(&file)) {
            return Err(user!(
                "{} is no address in the hub; write hf:owner/name, hf:owner/name@revision, or hf:owner/name/FILE.safetensors",
                path.display()
            ));
        }
        Ok(Some(Self { repository: format!("{owner}/{name}"), revision, file }))
    }

    pub(super) fn at(&self, commit: &str, file: String) -> Self {
        Self { repository: self.repository.clone(), revision: commit.into(), file }
    }

    /// What lies in the folder that is named.
    pub(super) fn below(&self, name: &str) -> String {
        if self.file.is_empty() { name.into() } else { format!("{}/{name}", self.file) }
    }

    /// Of a repository's files the one that is meant.
    pub(super) fn choose(&self, files: &[String]) -> Result<String> {
        if is_weights(&self.file) && files.contains(&self.file) {
            return Ok(self.file.clone());
        }
        let front = self.below("");
        let here = files.iter().filter_map(|file| file.strip_prefix(&front)).filter(|name| !name.contains('/'));
        let ending = |end: &str| here.clone().filter(|name| name.ends_with(end)).collect::<Vec<_>>();
        let whole: Vec<&str> = here.clone().filter(|name| *name == NAMES[0]).collect();
        let (singles, indices) = (ending(".safetensors"), ending(INDEX));
        if let Some(one) = [&whole, &singles, &indices].into_iter().find(|choice| choice.len() == 1) {
            return Ok(self.below(one[0]));
        }
        let names: Vec<&str> = files.iter().map(String::as_str).collect();
        Err(match singles.len() + indices.len() {
            0 => user!("{self}: there is no .safetensors file; the repository holds {}", some(&names)),
            _ => user!("{self} holds several weights; name one, as in {self}/{}", some(&[singles, indices].concat())),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { repository, revision, file } = self;
        let revision = if revision == "main" { String::new() } else { format!("@{}", revision.replace('/', "%2F")) };
        let slash = if file.is_empty() { "" } else { "/" };
        write!(to, "{SCHEME}{repository}{revision}{slash}{file}")
    }
}

pub(super) fn is_weights(file: &str) -> bool {
    file.ends_with(".safetensors") || file.ends_with(INDEX)
}

pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.chars().all(|c| c.is_ascii_hexdigit())
}

/// Whether a name leads nowhere but down.
pub(super) fn plain(name: &str) -> bool {
    !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

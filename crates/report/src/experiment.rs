//! The experiments: each YAML's name, claim and hash, read without the paper's own types.

use std::path::{Path, PathBuf};

use repro::config::{Claim, resolve};
use repro::{Result, user};
use serde::Deserialize;

/// One YAML file of `experiments/<paper>`.
#[derive(Debug, Clone)]
pub(crate) struct Experiment {
    /// Stem of the file's name.
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    /// Its `paper:` block. `None`: it stands in no table.
    pub(crate) claim: Option<Claim>,
}

/// The papers: folders of `experiments` but for the shared groups.
pub(crate) fn papers(root: &Path) -> Result<Vec<String>> {
    let folders = crate::entries(&root.join("experiments"));
    let papers: Vec<_> =
        folders.iter().filter(|p| p.is_dir()).map(|p| crate::stem(p)).filter(|p| p != "groups").collect();
    if papers.is_empty() {
        return Err(user!("there is no folder experiments/<paper> here; run `report` in the root of the checkout"));
    }
    Ok(papers)
}

/// The experiments of a paper, by name.
pub(crate) fn all(root: &Path, paper: &str) -> Result<Vec<Experiment>> {
    let files = crate::entries(&root.join("experiments").join(paper));
    files.into_iter().filter(|p| p.extension().is_some_and(|e| e == "yaml")).map(Experiment::read).collect()
}

impl Experiment {
    fn read(file: PathBuf) -> Result<Self> {
        let config = resolve(&file, &[])?;
        let claim = config.get("paper.table").map(|table| -> Result<Claim> {
            let text = |key: &str| {
                config.get(&format!("paper.{key}")).ok_or_else(|| user!("{}: paper.{key} is missing", file.display()))
            };
            let value = config
                .get("paper.value")
                .map(|v| v.parse().map_err(|_| user!("{}: paper.value is {v:?}, which is no number", file.display())));
            Ok(Claim { table, row: text("row")?, metric: text("metric")?, value: value.transpose()? })
        });
        Ok(Self { name: crate::stem(&file), claim: claim.transpose()?, file })
    }

    /// The experiment of this name.
    pub(crate) fn find(root: &Path, paper: &str, name: &str) -> Result<Self> {
        let file = root.join("experiments").join(paper).join(format!("{name}.yaml"));
        if !file.is_file() {
            return Err(user!("there is no {}", file.display()));
        }
        Self::read(file)
    }

    /// The config hash that a run with this seed has.
    pub(crate) fn hash(&self, seed: u64) -> Result<String> {
        Ok(resolve(&self.file, &[format!("seed={seed}")])?.hash())
    }
}

/// `test/error` → `error`.
pub(crate) fn last_part(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Whether a metric is a fraction, printed in per cent.
pub(crate) fn is_fraction(metric: &str) -> bool {
    ["error", "accuracy"].iter().any(|kind| last_part(metric).ends_with(kind))
}

/// Which way a metric gets better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Better {
    Higher,
    Lower,
}

impl Better {
    /// As a table says it, or as the metric's name does.
    ///
    /// # Errors
    /// [`repro::Error::User`] where neither says it.
    pub(crate) fn of(said: Option<Self>, metric: &str) -> Result<Self> {
        match (said, last_part(metric)) {
            (Some(said), _) => Ok(said),
            (None, m) if m.ends_with("accuracy") => Ok(Better::Higher),
            (None, m) if m.ends_with("error") || m.ends_with("loss") => Ok(Better::Lower),
            (None, m) => Err(user!(
                "whether a higher {m} is better is not known; write `better: higher` or `better: lower` in its table"
            )),
        }
    }
}

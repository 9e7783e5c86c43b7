//! `report check`: what is said agrees with what is there. Each finding names its place, what is wrong, and what to do.

mod citations;
mod code;
mod links;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use repro::{Result, user};

use crate::evidence::{self, Evidence};
use crate::experiment::{Experiment, papers};
use crate::pages;
use crate::paper::Paper;

/// Everything that is wrong, one finding a line.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let papers = papers(root)?;
    let mut found = evidence(root);
    for paper in &papers {
        match Paper::read(root, paper) {
            Ok(paper) => found.extend(paper.problems()),
            Err(error) => found.push(error.to_string()),
        }
    }
    // Pages are held against what they are made of, so that must be in order first.
    if found.is_empty() {
        found.extend(stale(root)?);
    }
    for paper in &papers {
        found.extend(code::findings(root, paper)?);
        found.extend(citations::of_paper(root, paper)?);
    }
    found.extend(citations::arxiv(root)?);
    found.extend(links::findings(root)?);
    found.dedup();
    Ok(found)
}

/// Files of `results/runs` that are no evidence, contradict themselves, or are of no experiment that is there.
fn evidence(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for path in crate::files_below(&root.join("results/runs")) {
        let problems = match evidence::read(&path) {
            Err(error) => {
                found.push(error.to_string());
                continue;
            }
            Ok(evidence) => match evidence.problems(&path) {
                none if none.is_empty() => of_experiment(root, &evidence).into_iter().collect(),
                problems => problems,
            },
        };
        found.extend(problems.into_iter().map(|problem| format!("{}: {problem}", path.display())));
    }
    found
}

/// What keeps evidence from being that of an experiment as it stands.
fn of_experiment(root: &Path, evidence: &Evidence) -> Option<String> {
    let result = &evidence.result;
    let experiment = match Experiment::find(root, &result.paper, &result.config) {
        Ok(experiment) => experiment,
        Err(error) => return Some(format!("{error}; delete the evidence, or bring its configuration back")),
    };
    let file = experiment.file.display();
    match experiment.hash(result.seed) {
        Err(error) => return Some(error.to_string()),
        Ok(hash) if hash != result.config_sha256 => {
            return Some(format!(
                "was made with another configuration than {file} (hash {:.8}, now {hash:.8}); undo the change, or delete this and run the experiment again",
                result.config_sha256
            ));
        }
        Ok(_) => {}
    }
    let Some(claim) = experiment.claim else {
        return Some(format!(
            "{file} has no `paper:` block, so this stands in no table; give it table, row and metric"
        ));
    };
    // Which row it stands in, and for which number, is the experiment's to say: a printed value can be corrected without a new run.
    evidence.lacks(&claim.metric)
}

/// Pages and plots that are not what the evidence gives.
fn stale(root: &Path) -> Result<Vec<String>> {
    let pages = pages::all(root)?;
    let mut found = Vec::new();
    for (path, bytes) in &pages {
        if fs::read(path).ok().as_ref() != Some(bytes) {
            found.push(format!("{}: differs from what the evidence gives; run `report write`", path.display()));
        }
    }
    let written = |folder: &str, ending: &str| -> Vec<PathBuf> {
        let files = crate::entries(&root.join(folder));
        files.into_iter().filter(|path| path.extension().is_some_and(|e| e == ending)).collect()
    };
    for path in [written("results", "md"), written("results/figures", "png")].concat() {
        if !pages.iter().any(|(page, _)| *page == path) {
            found.push(format!("{}: no table or page is written to this file; delete it", path.display()));
        }
    }
    Ok(found)
}

/// The text of a file that must be there.
fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| user!("cannot read {}: {e}", path.display()))
}

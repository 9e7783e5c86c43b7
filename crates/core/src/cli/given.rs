//! Commands that are given weights: with which configuration they go.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::args::Common;
use super::{App, checked, counted, later, named_stage, no_config, note, print_config};
use crate::config::{self, Experiment};
use crate::weights::{self, Named};
use crate::{Error, Result};

/// Keys, or beginnings of keys, by which weights answer otherwise; what the card of weights tells is noted where it is read.
const MATTERS: [&str; 3] = ["model.", "view.test", "test."];
const ON_THE_CARD: [&str; 2] = ["model.image_size", "model.num_classes"];

/// Weights and the experiment that they are used in.
pub(super) struct Given<C> {
    pub(super) experiment: Experiment<C>,
    pub(super) weights: Named,
    /// The JSON text in their file.
    pub(super) card: Option<String>,
}

/// The weights at `path`, of a run those of `stage` or, where it is asked for and there are some, their averages, and the experiment of `--config`, or else of the run that they are of. In what the two
/// differ is noted. `None` if `--print-config` has answered already.
///
/// # Errors
/// Those of both; no configuration, where the weights are of no run.
pub(super) fn given<C: DeserializeOwned>(
    app: &App<C>,
    common: &Common,
    overrides: &[String],
    path: &Path,
    stage: Option<&str>,
    averaged: bool,
) -> Result<Option<Given<C>>> {
    let own = own_config(path);
    let file = common.config.as_deref().or(own.as_deref()).ok_or_else(|| without(app, path))?;
    if common.print_config {
        return print_config(app, file, overrides).map(|()| None);
    }
    let asked: Experiment<C> = config::load(file, overrides)?;
    let (stage, _) = named_stage(app, &asked, stage)?;
    let later = later(app, &asked, &stage.name);
    let averages = Some(path.join(weights::file_name(later, true))).filter(|file| averaged && file.is_file());
    let (weights, card) = match averages {
        Some(averages) => {
            note("these are the averages of the run's weights; --raw takes those of the last step");
            weights::load(&averages)?
        }
        None => weights::load_stage(path, later)?,
    };
    let weights = (app.renamed)(&asked.paper, weights)?;
    let experiment = checked(app, counted(app, asked, overrides, card.as_deref())?)?;
    if let Some(own) = own {
        note_differences(&own, &experiment)?;
    }
    Ok(Some(Given { experiment, weights, card }))
}

/// The configuration of the run whose folder `path` is or lies in; see [`config::kept`].
pub fn own_config(path: &Path) -> Option<PathBuf> {
    let folder = if path.is_dir() { path } else { path.parent()? };
    let config = folder.join("config.yaml");
    (config.is_file() && folder.join("result.json").is_file()).then_some(config)
}

fn without<C>(app: &App<C>, path: &Path) -> Error {
    // Nothing is fetched for a command that cannot use it.
    if weights::is_address(path) {
        return no_config(app);
    }
    match weights::locate(path) {
        // That there are no weights is the first thing to know.
        Err(error) => error,
        Ok(_) => no_config(app),
    }
}

/// Notes what matters and is not as it was in the run of the weights.
fn note_differences<C>(own: &Path, experiment: &Experiment<C>) -> Result<()> {
    let before = config::resolve(own, &[])?;
    let matters =
        |key: &String| MATTERS.iter().any(|front| key.starts_with(front)) && !ON_THE_CARD.contains(&key.as_str());
    for key in config::diff(&before, &experiment.resolved).into_iter().filter(matters) {
        let value = |resolved: &config::Resolved| resolved.get(&key).unwrap_or_else(|| "not set".into());
        note(format!(
            "{key} is {} here, and was {} in the run of these weights",
            value(&experiment.resolved),
            value(&before)
        ));
    }
    Ok(())
}

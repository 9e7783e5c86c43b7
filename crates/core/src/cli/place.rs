//! Which experiment a `train` command means, and in which folder.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::args::TrainArgs;
use super::{App, experiment, load, processes};
use crate::config::{self, Experiment, is_length};
use crate::trainer::run::{self, Undone};
use crate::{Error, Result, user};

/// Schedules whose rate at a step is the same however long the stage lasts.
const OF_STEPS: [&str; 2] = ["constant", "steps"];

/// What is to be done, and where.
pub(super) struct Task<C> {
    pub(super) experiment: Experiment<C>,
    pub(super) folder: Folder,
    /// What a changed length of a run undoes.
    pub(super) undone: Undone,
}

/// A run's folder.
pub(super) enum Folder {
    /// A new one below `runs`, made when the run begins.
    New,
    /// That one.
    Given(PathBuf),
    /// Removed when this goes: a dry run's, or that of a process whose books nobody reads.
    Temporary(tempfile::TempDir),
}

impl Folder {
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Folder::New => None,
            Folder::Given(path) => Some(path),
            Folder::Temporary(dir) => Some(dir.path()),
        }
    }
}

pub(super) fn temporary() -> Result<tempfile::TempDir> {
    tempfile::tempdir().map_err(|e| Error::Failed(format!("cannot make a temporary folder: {e}")))
}

/// The task of a command; nothing if `--print-config` has answered.
pub(super) fn task<C: DeserializeOwned>(app: &App<C>, args: &TrainArgs) -> Result<Option<Task<C>>> {
    let Some(named) = &args.resume else { return fresh(app, args) };
    let mut overrides = args.common.overrides();
    let named = match named.split_once('=') {
        // `--resume seed=1`: an override that clap took for the folder.
        Some(_) if !Path::new(named).exists() => {
            overrides.push(named.clone());
            ""
        }
        _ => named.as_str(),
    };
    let folder = match (&args.out, named) {
        // One command for the first sitting and all others, such as a scheduler repeats.
        (Some(out), "") if !run::holds_run(out) => return fresh(app, args),
        (Some(out), "") => out.clone(),
        (Some(_), _) => return Err(user!("--resume {named} names the run folder already; leave --out away")),
        (None, "") => newest(app, args, &overrides)?,
        (None, named) => PathBuf::from(named),
    };
    resumed(app, args, run::real_folder(&folder), &overrides).map(Some)
}

/// The experiment of the command line in a folder of its own.
fn fresh<C: DeserializeOwned>(app: &App<C>, args: &TrainArgs) -> Result<Option<Task<C>>> {
    let Some(experiment) = experiment(app, &args.common)? else { return Ok(None) };
    // A new run has no checkpoint that a process of another rank would need from the folder of rank 0.
    let folder = match &args.out {
        _ if args.dry_run || processes::rank() > 0 => Folder::Temporary(temporary()?),
        Some(out) => {
            run::check_free(out)?;
            Folder::Given(out.clone())
        }
        None => Folder::New,
    };
    Ok(Some(Task { experiment, folder, undone: Undone::default() }))
}

/// The newest unfinished run of the command line's experiment.
fn newest<C: DeserializeOwned>(app: &App<C>, args: &TrainArgs, overrides: &[String]) -> Result<PathBuf> {
    let file = args.common.config.as_deref().ok_or_else(|| {
        user!("--resume without a run folder needs --config, to find the newest unfinished run of it")
    })?;
    let wanted = load(app, file, overrides)?;
    run::newest_unfinished(app.paper.name, &wanted.resolved.hash()).ok_or_else(|| {
        user!(
            "no unfinished run of {} with these values under runs/{}; start one without --resume",
            file.display(),
            app.paper.name
        )
    })
}

/// The run in a folder, with what the command line may change.
fn resumed<C: DeserializeOwned>(
    app: &App<C>,
    args: &TrainArgs,
    folder: PathBuf,
    overrides: &[String],
) -> Result<Task<C>> {
    let own = folder.join("config.yaml");
    if !own.is_file() {
        return Err(user!("{} is not a run folder: it has no config.yaml", folder.display()));
    }
    let before = load(app, &own, &[])?;
    let experiment = load(app, args.common.config.as_deref().unwrap_or(&own), overrides)?;
    let (lengths, changed): (Vec<_>, Vec<_>) = config::diff(&before.resolved, &experiment.resolved)
        .into_iter()
        .filter(|key| config::is_hashed(key))
        .partition(|key| is_length(key));
    if !changed.is_empty() {
        return Err(user!(
            "a resumed run keeps its configuration, but these keys differ: {}; start a new run for them (only these may change: {}; and length \
             where the schedule does not look at it)",
            changed.join(", "),
            config::NOT_HASHED.join(", ")
        ));
    }
    let undone = undone(app, &before, &experiment, &lengths)?;
    // A run that was killed before its first result has none.
    if folder.join("result.json").exists() {
        let known = run::read_result(&folder)
            .map_err(|e| user!("{e}; start a new run, or move that file away to go on from the checkpoints"))?
            .config_sha256;
        // Variables change both sides of the comparison above; the hash in the result does not move.
        if known != before.resolved.hash() && known != experiment.resolved.hash() {
            let kept = config::resolve(&own, &[])?.hash();
            return Err(match known == kept {
                true => user!(
                    "{} was started with another configuration; look for REPRO__… variables that change it",
                    folder.display()
                ),
                false => user!(
                    "{} cannot go on: the configuration hash in its result.json ({known:.8}) is not that of its config.yaml ({kept:.8}). If a change \
                     of its length was cut off, give the length that it was last resumed with. If an earlier version of this program, which \
                     computed the hash from more keys, began the run, finish it with that version, or start a new run",
                    folder.display()
                ),
            });
        }
    }
    Ok(Task { experiment, folder: Folder::Given(folder), undone })
}

/// What changed lengths undo, where the schedules let them change.
fn undone<C>(app: &App<C>, before: &Experiment<C>, now: &Experiment<C>, lengths: &[String]) -> Result<Undone> {
    for key in lengths {
        let schedule = key.replace("length", "schedule.kind");
        let kind = now.resolved.get(&schedule).unwrap_or_else(|| "constant".into());
        if !OF_STEPS.contains(&kind.as_str()) {
            return Err(user!(
                "{key} cannot change: {schedule} is {kind}, which spreads the learning rate over the whole length, so the steps that are done \
                 would have had other rates; start a new run of that length (with {schedule}=constant a run can be made longer)"
            ));
        }
    }
    let stages = (app.stages)(&now.paper);
    let mut undone = Undone::default();
    for (place, stage) in stages.iter().enumerate() {
        let length = |experiment: &Experiment<C>| (stage.plan)(&experiment.paper, &experiment.settings).length;
        let gone = |name: &str| undone.longer.iter().chain(&undone.again).any(|other| other == name);
        if super::giver(&stages, place).is_some_and(gone) {
            undone.again.push(stage.name.clone());
        } else if !lengths.is_empty() && length(before) != length(now) {
            if let Some(why) = (stage.whole)(&now.paper) {
                return Err(user!("{} cannot have another length: {why}; start a new run of that length", stage.name));
            }
            undone.longer.push(stage.name.clone());
        }
    }
    match lengths {
        [key, ..] if undone.longer.is_empty() => Err(user!(
            "a resumed run keeps its configuration, but {key} differs, and no stage has another length by it; start a new run for it"
        )),
        _ => Ok(undone),
    }
}

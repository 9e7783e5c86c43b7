//! `train`: one run, a resumed run, a dry run, a sweep.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process;

use serde::de::DeserializeOwned;

use super::args::TrainArgs;
use super::{App, config_name, device_name, experiment, load, processes, say, say_json, setup};
use crate::config::{self, Experiment};
use crate::nn::record;
use crate::setup::Setup;
use crate::trainer::Signals;
use crate::trainer::run::{self, Init, Run, RunResult, Start, Status};
use crate::weights::Named;
use crate::{Error, Result, user, weights};

pub(super) fn train<C: DeserializeOwned>(app: &App<C>, args: &TrainArgs) -> Result<()> {
    if let [_, other, ..] = args.common.words.iter().filter(|w| !w.contains('=')).collect::<Vec<_>>()[..] {
        return Err(user!("{other:?} is one word too many: one stage at most, overrides are written key=value"));
    }
    if args.processes > 1 {
        return processes::start(args.processes);
    }
    if !args.sweep.is_empty() {
        return sweep(app, args);
    }
    let (experiment, folder) = match resumed(app, args)? {
        Some((experiment, folder)) if args.common.print_config => {
            say(experiment.resolved.with_origins().trim_end());
            drop(folder);
            return Ok(());
        }
        Some(found) => found,
        None => match fresh(app, args)? {
            Some(found) => found,
            None => return Ok(()),
        },
    };
    let result = match one(app, args, &experiment, &folder) {
        // Out of time is no failure: who asked for JSON gets the result as it stands.
        Err(Error::Interrupted(0)) if args.common.json && processes::rank() == 0 => run::read_result(folder.path())?,
        other => other?,
    };
    // A dry run's folder goes with this guard.
    drop(folder);
    if processes::rank() > 0 {
        return Ok(());
    }
    if args.common.json {
        return say_json(&result);
    }
    report(&result);
    Ok(())
}

/// A run's folder, which a dry run removes when it is done.
enum Folder {
    Kept(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Folder::Kept(path) => path,
            Folder::Temporary(dir) => dir.path(),
        }
    }
}

fn temporary() -> Result<tempfile::TempDir> {
    tempfile::tempdir().map_err(|e| Error::Failed(format!("cannot make a temporary folder: {e}")))
}

/// The experiment of the command line in a new folder; nothing if `--print-config` has answered.
fn fresh<C: DeserializeOwned>(app: &App<C>, args: &TrainArgs) -> Result<Option<(Experiment<C>, Folder)>> {
    let Some(experiment) = experiment(app, &args.common)? else { return Ok(None) };
    if args.dry_run {
        return Ok(Some((experiment, Folder::Temporary(temporary()?))));
    }
    if processes::rank() > 0 {
        // A new run has no checkpoint that this process would need from the folder of rank 0.
        return Ok(Some((experiment, Folder::Temporary(temporary()?))));
    }
    let folder = match &args.out {
        Some(out) if out.join("result.json").exists() => {
            return Err(user!(
                "{} holds a run already; go on with it by --resume {}, or choose another folder",
                out.display(),
                out.display()
            ));
        }
        Some(out) if out.join("config.yaml").exists() && !out.join("run.lock").exists() => {
            return Err(user!("{} holds a config.yaml that is not of a run; choose another folder", out.display()));
        }
        Some(out) => out.clone(),
        None => run::fresh_folder(app.paper.name, &config_name(&experiment.file), &experiment.resolved.hash())?,
    };
    Ok(Some((experiment, Folder::Kept(folder))))
}

/// The experiment and folder that `--resume` means, with what the command line may change.
fn resumed<C: DeserializeOwned>(app: &App<C>, args: &TrainArgs) -> Result<Option<(Experiment<C>, Folder)>> {
    let Some(named) = &args.resume else { return Ok(None) };
    let mut overrides = args.common.overrides();
    let named = match named.split_once('=') {
        // `--resume seed=1`: an override that clap took for the folder.
        Some(_) if !Path::new(named).exists() => {
            overrides.push(named.clone());
            ""
        }
        _ => named.as_str(),
    };
    let folder = if named.is_empty() {
        let file = args.common.config.as_deref().ok_or_else(|| {
            user!("--resume without a run folder needs --config, to find the newest unfinished run of it")
        })?;
        let wanted = load(app, file, &overrides)?;
        run::newest_unfinished(app.paper.name, &wanted.resolved.hash()).ok_or_else(|| {
            user!(
                "no unfinished run of {} with these values under runs/{}; start one without --resume",
                file.display(),
                app.paper.name
            )
        })?
    } else {
        PathBuf::from(named)
    };
    let own = folder.join("config.yaml");
    if !own.is_file() {
        return Err(user!("{} is not a run folder: it has no config.yaml", folder.display()));
    }
    let before = load(app, &own, &[])?;
    let experiment = match &args.common.config {
        Some(file) => load(app, file, &overrides)?,
        None => load(app, &own, &overrides)?,
    };
    let changed: Vec<_> =
        config::diff(&before.resolved, &experiment.resolved).into_iter().filter(|key| config::is_hashed(key)).collect();
    if !changed.is_empty() {
        return Err(user!(
            "a resumed run keeps its configuration, but these keys differ: {}; start a new run for them (only these may change: {})",
            changed.join(", "),
            config::NOT_HASHED.join(", ")
        ));
    }
    // A run that was killed before its first result has none.
    if folder.join("result.json").exists() {
        let before = run::read_result(&folder)
            .map_err(|e| user!("{e}; start a new run, or move that file away to go on from the checkpoints"))?;
        // Variables change both sides of the comparison above; the hash in the result does not move.
        if before.config_sha256 != experiment.resolved.hash() {
            let kept = config::resolve(&own, &[])?.hash();
            return Err(match before.config_sha256 == kept {
                true => user!(
                    "{} was started with another configuration; look for REPRO__… variables that change it",
                    folder.display()
                ),
                false => user!(
                    "{} cannot go on: the configuration hash in its result.json ({:.8}) is not that of its config.yaml ({kept:.8}); either the \
                     file was changed, or an earlier version of this program, which computed the hash from more keys, began the run; finish it \
                     with that version, or start a new run",
                    folder.display(),
                    before.config_sha256
                ),
            });
        }
    }
    Ok(Some((experiment, Folder::Kept(folder))))
}

/// What a stage is given by `--init`: weights by their part (`model.*`, `ema.*`), and where they came from.
fn given(init: &Path, before: Option<&str>) -> Result<(Named, Init)> {
    let state = match init.is_dir() {
        true => weights::hand_over(init, before)?,
        false => weights::together([("model", weights::load(init)?.0)]),
    };
    let sha256 = weights::hash(&weights::below(&state, "model."))?;
    Ok((state, Init { path: init.to_owned(), sha256 }))
}

/// One run from its folder to its result.
fn one<C>(app: &App<C>, args: &TrainArgs, experiment: &Experiment<C>, folder: &Folder) -> Result<RunResult> {
    let path = folder.path();
    let stages = (app.stages)(&experiment.paper);
    let names: Vec<String> = stages.iter().map(|stage| stage.name.clone()).collect();
    let only = args.only();
    if let Some(name) = only.filter(|name| !names.iter().any(|known| known == name)) {
        return Err(super::no_stage(app, name, &names));
    }
    let wanted = |stage: &str| only.is_none_or(|only| only == stage);
    if let Ok(result) = run::read_result(path)
        && result.status == Status::Done
        // Results of earlier versions know no stages, and have all.
        && (result.stages.is_empty() || names.iter().filter(|name| wanted(name)).all(|name| result.stages.get(name).is_some_and(|stage| stage.done)))
    {
        say(format!("{} is done already", path.display()));
        return Ok(result);
    }
    // Of which stage each is given the weights.
    let before = |place: usize| match (stages[place].after, place) {
        (Some(name), _) => Some(name),
        (None, 0) => None,
        (None, place) => Some(names[place - 1].as_str()),
    };
    let first = names.iter().position(|name| wanted(name)).unwrap_or(0);
    let later = before(first).filter(|name| names.first().is_some_and(|first| first != name));
    let init = args.init.as_deref().map(|init| given(init, later)).transpose()?;
    let setup = setup(&experiment.settings)?;
    let signals = Signals::install()?;
    let start = Start {
        paper: app.paper.name,
        config: config_name(&experiment.file),
        file: &experiment.file,
        resolved: &experiment.resolved,
        claim: experiment.settings.paper.as_ref(),
        seed: experiment.settings.seed,
        parameters: record::parameters(|path| (app.model)(&experiment.paper, &names[0], path))?,
        device: device_name(setup.device),
        quiet: args.common.quiet || setup.rank > 0,
        limit: experiment.settings.limit.map(|l| l.0),
        of_rank_0: (setup.rank > 0).then(|| path.to_owned()),
        stages: names.clone(),
        init: init.as_ref().map(|(_, from)| from.clone()),
    };
    // Processes of other ranks keep their books where nobody looks.
    let own = match setup.rank {
        0 => None,
        _ => Some(temporary()?),
    };
    let mut run = Run::open(own.as_ref().map_or(path, |dir| dir.path()).to_owned(), start, signals)?;
    let mut given: BTreeMap<&str, Named> = BTreeMap::new();
    let work = || {
        run.line(&format!("run folder {}", path.display()))?;
        if args.common.verbose {
            run.line(experiment.resolved.with_origins().trim_end())?;
        }
        for (place, stage) in stages.iter().enumerate().filter(|(_, stage)| wanted(&stage.name)) {
            if run.finished(&stage.name).is_some() {
                run.line(&format!("{} is done; its weights are read where they are needed", stage.name))?;
                continue;
            }
            let state = match before(place) {
                // From this sitting, from an earlier one, else what `--init` gave.
                Some(name) if given.contains_key(name) => Some(weights::below(&given[name], "")),
                Some(name) if run.finished(name).is_some() => Some(run.hand_over(name)?),
                _ => init.as_ref().filter(|_| place == first).map(|(state, _)| weights::below(state, "")),
            };
            let mut plan = (stage.plan)(&experiment.paper, &experiment.settings);
            let setup = setup.for_stage(&stage.name, place > 0, plan.length, plan.batch_size);
            // After that: a schedule is checked against the length that it is made for.
            if args.dry_run {
                plan.length = plan.length.map(|_| config::Length::Steps(1));
            }
            let state = (stage.train)(&experiment.paper, &setup, &plan, state.as_ref(), &mut run)?;
            given.insert(&names[place], state);
        }
        run.done()
    };
    // A panic is a bug or libtorch out of memory; the run folder must say so all the same.
    let trained = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    trained.unwrap_or_else(|panic| Err(super::internal(panic))).map_err(|error| ended(run, error, path, &setup))
}

/// Writes how the run ended, and says how to go on.
fn ended(mut run: Run, error: Error, folder: &Path, setup: &Setup) -> Error {
    let status = match &error {
        Error::Interrupted(_) => Status::Interrupted,
        Error::Diverged(_) => Status::Diverged,
        _ => Status::Failed,
    };
    // The terminal gets the error from `main`; the log file needs its own line.
    let line = if status == Status::Interrupted { "stopped and saved".into() } else { format!("error: {error}") };
    let say = |text: String| drop(writeln!(std::io::stderr(), "{text}"));
    if let Err(second) = run.cut_short(status, &line) {
        say(format!("result.json does not say how the run ended: {second}"));
    }
    // Said even where `--quiet` asks for no progress: without it the user does not know how to go on.
    match &error {
        Error::Interrupted(_) if setup.rank == 0 => {
            say(format!("stopped and saved; go on with: {}", resume_command(folder, setup.world)));
        }
        Error::Io { .. } if setup.rank == 0 => {
            let command = resume_command(folder, setup.world);
            return Error::Failed(format!("{error}\nwhen that is mended, go on with: {command}"));
        }
        _ => {}
    }
    error
}

/// What goes on with a run, ready to be pasted.
fn resume_command(folder: &Path, world: u64) -> String {
    let program = std::env::args_os().next().unwrap_or_default();
    let processes = if world > 1 { format!(" --processes {world}") } else { String::new() };
    format!("{} train --resume {}{processes}", quoted(&program.to_string_lossy()), quoted(&folder.to_string_lossy()))
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+=,:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

fn report(result: &RunResult) {
    for (name, value) in result.metrics.iter().filter(|(n, _)| !n.contains("/class/")) {
        let beside = match (&result.paper_metric, result.paper_value) {
            (Some(metric), Some(paper)) if metric == name => format!("   paper {paper}"),
            _ => String::new(),
        };
        say(format!("{name:24} {value:.4}{beside}"));
    }
    say(format!("{:24} {:.1}", "seconds", result.seconds));
}

/// One run folder for each combination; each in a process of its own, so that generators and devices start clean.
fn sweep<C: DeserializeOwned>(app: &App<C>, args: &TrainArgs) -> Result<()> {
    let Some(base) = experiment(app, &args.common)? else { return Ok(()) };
    let combinations = config::sweep(&args.sweep)?;
    let parent = args.out.clone().unwrap_or_else(|| {
        let name = format!("sweep-{}", &base.resolved.hash()[..8]);
        Path::new("runs").join(app.paper.name).join(config_name(&base.file)).join(name)
    });
    // All values are checked before the first run spends time.
    for values in &combinations {
        load(app, &base.file, &[args.common.overrides(), values.clone()].concat())?;
    }
    let program = std::env::current_exe().map_err(|e| Error::Failed(format!("cannot find this program: {e}")))?;
    let signals = Signals::install()?;
    let stage = args.common.words.iter().filter(|w| !w.contains('='));
    let mut failed = None;
    let mut results = Vec::new();
    for values in &combinations {
        let folder = parent.join(values.join(",").replace(['/', ' '], "_"));
        let status = run::read_result(&folder).map(|r| r.status).ok();
        if status != Some(Status::Done) {
            let mut child = process::Command::new(&program);
            child.arg("train").args(stage.clone()).arg("--config").arg(&base.file);
            child.args(args.common.overrides()).args(values).args(args.common.quiet.then_some("--quiet"));
            if let Some(init) = &args.init {
                child.arg("--init").arg(init);
            }
            if let Some(stage) = &args.stage {
                child.arg("--stage").arg(stage);
            }
            child.arg(if status.is_some() { "--resume" } else { "--out" }).arg(&folder).stdout(process::Stdio::null());
            say(format!("sweep: {}", values.join(" ")));
            let child = processes::spawn(&mut child)
                .map_err(|e| Error::Failed(format!("cannot start {}: {e}", program.display())))?;
            let code = processes::wait(vec![child], &signals)?;
            match code {
                0 => {}
                130 | 143 => return Err(Error::Interrupted(code as u8)),
                code => failed = failed.or(Some((values.join(" "), code))),
            }
        }
        if let Ok(result) = run::read_result(&folder) {
            results.push((values.join(" "), result));
        }
    }
    for (values, result) in &results {
        if args.common.json {
            say_json(result)?;
        } else {
            let metrics: Vec<_> = result
                .metrics
                .iter()
                .filter(|(n, _)| !n.contains("/class/"))
                .map(|(n, v)| format!("{n} {v:.4}"))
                .collect();
            say(format!("{values}   {:?}   {}", result.status, metrics.join("  ")));
        }
    }
    match failed {
        None => Ok(()),
        Some((values, 2)) => Err(user!("the run with {values} was refused")),
        Some((values, code)) => Err(Error::Failed(format!("the run with {values} failed with code {code}"))),
    }
}

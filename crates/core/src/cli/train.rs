//! `train`: one run, a resumed run, a dry run.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::args::TrainArgs;
use super::place::{Task, task, temporary};
use super::{App, config_name, device_name, giver, processes, say, say_json, setup, sweep, unknown_word};
use crate::config::{self, Experiment, Resolved};
use crate::nn::record;
use crate::setup::Setup;
use crate::trainer::run::{self, Init, Run, RunResult, Start, Status};
use crate::trainer::{Plan, Signals, Stage};
use crate::weights::Named;
use crate::{Error, Result, user, weights};

pub(super) fn train<C: DeserializeOwned>(app: &App<C>, args: &TrainArgs) -> Result<()> {
    if let [_, other, ..] = args.common.words.iter().filter(|w| !w.contains('=')).collect::<Vec<_>>()[..] {
        return Err(user!("{other:?} is one word too many: one stage at most, overrides are written key=value"));
    }
    // Without a configuration no word can be a stage of it.
    if let (Some(word), None, None) = (args.only(), &args.common.config, &args.resume) {
        return Err(unknown_word(app, word, &[]));
    }
    if args.processes > 1 {
        return processes::start(args.processes);
    }
    if !args.sweep.is_empty() {
        return sweep::sweep(app, args);
    }
    let Some(task) = task(app, args)? else { return Ok(()) };
    if args.common.print_config {
        say(task.experiment.resolved.with_origins().trim_end());
        return Ok(());
    }
    let result = one(app, args, &task)?;
    if processes::rank() > 0 {
        return Ok(());
    }
    if args.common.json {
        return say_json(&result);
    }
    report(&result);
    Ok(())
}

/// What a stage is given by `--init`.
pub(super) struct Begin {
    /// Weights by their part (`model.*`, `ema.*`).
    pub(super) state: Named,
    /// What their file says of them.
    pub(super) card: Option<String>,
    /// Where they came from.
    pub(super) from: Init,
}

/// Reads what `--init` names; of a run, the weights of the stage `before`.
pub(super) fn given<C>(app: &App<C>, config: &C, init: &Path, before: Option<&str>) -> Result<Begin> {
    let path = weights::pinned(&run::real_folder(init))?;
    let (state, card) = match path.is_dir() {
        true => weights::hand_over(&path, before)?,
        false => {
            let (model, card) = weights::load(&path)?;
            (weights::together([("model", (app.renamed)(config, model)?)]), card)
        }
    };
    for (name, tensor) in state.iter().filter(|(_, tensor)| tensor.is_floating_point()) {
        if tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            return Err(user!("{}: {name} holds values that are no numbers; begin with other weights", path.display()));
        }
    }
    let sha256 = weights::hash(&weights::below(&state, "model."))?;
    Ok(Begin { state, card, from: Init { path, sha256 } })
}

/// Refuses to take a finished run for another: the hash of the configuration does not say with which weights and data it began.
pub(super) fn check_same<C>(
    app: &App<C>,
    experiment: &Experiment<C>,
    folder: &Path,
    result: &RunResult,
    init: Option<&Init>,
) -> Result<()> {
    let (path, other) = (folder.display(), "choose another folder with --out");
    if let Some(now) = init.filter(|now| result.init.as_ref().is_none_or(|before| before.sha256 != now.sha256)) {
        return Err(user!("{path} is done, and did not begin with the weights {}; {other}", now.path.display()));
    }
    let root = |resolved: &Resolved| resolved.get("data.root");
    let own = config::resolve(&folder.join("config.yaml"), &[])?;
    let stages = (app.stages)(&experiment.paper);
    if let Some(stage) = stages.first().filter(|_| root(&own) != root(&experiment.resolved)) {
        let plan = (stage.plan)(&experiment.paper, &experiment.settings);
        // On the CPU: nothing is trained.
        let setup = Setup::new(experiment.settings.clone(), tch::Device::Cpu)?;
        let setup = setup.for_stage(&stage.name, false, plan.length, plan.batch_size);
        let now = (stage.check)(&experiment.paper, &setup, &plan, None)?;
        if result.data_sha256.as_ref().is_some_and(|before| *before != now) {
            return Err(user!("{path} is done, with other data than those of data.root; {other}"));
        }
    }
    Ok(())
}

/// The names of the stages, refusing a wanted one that is not among them.
pub(super) fn known_stages<C>(app: &App<C>, stages: &[Stage<C>], only: Option<&str>) -> Result<Vec<String>> {
    let names: Vec<String> = stages.iter().map(|stage| stage.name.clone()).collect();
    match only.filter(|name| !names.iter().any(|known| known == name)) {
        Some(word) => Err(unknown_word(app, word, &names)),
        None => Ok(names),
    }
}

/// Of the stages that are wanted, the place of the first and the stage whose weights `--init` must hold; `None`: the first of all.
pub(super) fn first<'a, C>(stages: &'a [Stage<C>], only: Option<&str>) -> (usize, Option<&'a str>) {
    let place = only.and_then(|only| stages.iter().position(|stage| stage.name == only)).unwrap_or(0);
    (place, giver(stages, place).filter(|name| stages[0].name != *name))
}

/// One run from its folder to its result.
fn one<C>(app: &App<C>, args: &TrainArgs, task: &Task<C>) -> Result<RunResult> {
    let Task { experiment, folder, undone } = task;
    let stages = (app.stages)(&experiment.paper);
    let only = args.only();
    let names = known_stages(app, &stages, only)?;
    let wanted = |stage: &str| only.is_none_or(|only| only == stage);
    if let Some(longer) = undone.longer.iter().find(|stage| !wanted(stage)) {
        return Err(user!("{longer} has another length now and must go on first; leave the stage away"));
    }
    let (begin, later) = first(&stages, only);
    let init = args.init.as_deref().map(|init| given(app, &experiment.paper, init, later)).transpose()?;
    if let (Some(path), []) = (folder.path(), &undone.longer[..])
        && let Ok(result) = run::read_result(path)
        && result.has_all(names.iter().filter(|name| wanted(name)))
    {
        check_same(app, experiment, path, &result, init.as_ref().map(|init| &init.from))?;
        say(format!("{} is done already", path.display()));
        return Ok(result);
    }
    let setup = setup(&experiment.settings)?;
    let signals = Signals::install(!processes::speaks())?;
    // Processes of other ranks keep their books where nobody looks.
    let own = match setup.rank {
        0 => None,
        _ => Some(temporary()?),
    };
    let start = Start {
        folder: own.as_ref().map(|dir| dir.path()).or(folder.path()).map(Path::to_owned),
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
        of_rank_0: own.as_ref().and(folder.path()).map(Path::to_owned),
        stages: names.clone(),
        init: init.as_ref().map(|init| init.from.clone()),
        undone: undone.clone(),
    };
    let mut run = Run::new(start, signals)?;
    let mut given: BTreeMap<&str, Named> = BTreeMap::new();
    let work = || {
        if args.common.verbose {
            run.line(experiment.resolved.with_origins().trim_end())?;
        }
        let plan_of = |stage: &Stage<C>, place: usize| -> (Plan, Setup) {
            let plan = (stage.plan)(&experiment.paper, &experiment.settings);
            let setup = setup.for_stage(&stage.name, place > 0, plan.length, plan.batch_size);
            (plan, setup)
        };
        let mut todo: Vec<_> = stages.iter().enumerate().filter(|(_, stage)| wanted(&stage.name)).collect();
        // What is wrong with a later stage is said before the first has taken hours.
        for (place, stage) in todo.iter().skip(1).filter(|_| !run.is_continued()) {
            let (plan, mut setup) = plan_of(stage, *place);
            setup.device = tch::Device::Cpu;
            (stage.check)(&experiment.paper, &setup, &plan, None).map_err(|error| match error {
                Error::User(text) => user!("{}: {text}", stage.name),
                error => error,
            })?;
        }
        for (place, stage) in todo.drain(..) {
            if run.finished(&stage.name).is_some() {
                run.line(&format!("{} is done; its weights are read where they are needed", stage.name))?;
                continue;
            }
            let state = match giver(&stages, place) {
                // From this sitting, from an earlier one, else what `--init` gave.
                Some(name) if given.contains_key(name) => Some(weights::below(&given[name], "")),
                Some(name) if run.finished(name).is_some() => Some(run.hand_over(name)?),
                _ => init.as_ref().filter(|_| place == begin).map(|init| weights::below(&init.state, "")),
            };
            let (mut plan, mut setup) = plan_of(stage, place);
            if state.is_none() && place > 0 && !run.is_continued() {
                let text = "begins with weights as they are drawn: no stage before it has run, and --init names none";
                setup.note(format!("{} {text}", stage.name));
            }
            setup.init_card = init.as_ref().filter(|_| place == begin).and_then(|init| init.card.clone());
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
    match trained.unwrap_or_else(|panic| Err(super::internal(panic))) {
        Ok(result) => Ok(result),
        Err(error) => match ended(&mut run, error, &setup) {
            // Out of time is no failure: who asked for JSON gets the result as it stands.
            Error::Interrupted(0) if args.common.json && setup.rank == 0 => Ok(run.result().clone()),
            error => Err(error),
        },
    }
}

/// Writes how the run ended, and says how to go on.
fn ended(run: &mut Run, error: Error, setup: &Setup) -> Error {
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
            say(format!("stopped and saved; go on with: {}", resume_command(&run.folder, setup.world)));
        }
        Error::Io { .. } if setup.rank == 0 && error.exit_code() == 1 && run.has_books() => {
            let command = resume_command(&run.folder, setup.world);
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

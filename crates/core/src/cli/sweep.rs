//! `train --sweep`: a run for each combination of values.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process;

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tch::Device;

use super::args::TrainArgs;
use super::processes::End;
use super::train::{check_same, first, given, known_stages};
use super::{App, config_name, device_of, experiment, load, processes, say, say_json};
use crate::config::{self, Experiment};
use crate::setup::Setup;
use crate::trainer::Signals;
use crate::trainer::run;
use crate::weights::Named;
use crate::{Error, Result, user, weights};

/// Letters of a folder's name that tell its values.
const TOLD: usize = 60;

/// One of the runs.
struct Combination<C> {
    overrides: Vec<String>,
    experiment: Experiment<C>,
    folder: PathBuf,
}

/// One run folder for each combination; each in a process of its own, so that generators and devices start clean.
pub(super) fn sweep<C: DeserializeOwned>(app: &App<C>, args: &TrainArgs) -> Result<()> {
    let Some(base) = experiment(app, &args.common)? else { return Ok(()) };
    if std::env::var("WORLD_SIZE").is_ok_and(|world| world != "1") {
        return Err(user!(
            "a sweep starts its runs one after the other, each in one process; start it without torchrun"
        ));
    }
    let parent = args.out.clone().unwrap_or_else(|| {
        let name = format!("sweep-{}", &base.resolved.hash()[..8]);
        Path::new("runs").join(app.paper.name).join(config_name(&base.file)).join(name)
    });
    if run::holds_run(&parent) {
        return Err(user!(
            "{} is a run's own folder; choose another for the runs of the sweep with --out",
            parent.display()
        ));
    }
    let init = args
        .init
        .as_deref()
        .map(|init| given(app, &base.paper, init, first(&(app.stages)(&base.paper), args.only()).1))
        .transpose()?;
    let begins = init.as_ref().map_or("", |init| &init.from.sha256);
    let mut combinations = Vec::new();
    for overrides in config::sweep(&args.sweep)? {
        let experiment = load(app, &base.file, &[args.common.overrides(), overrides.clone()].concat())?;
        let folder = parent.join(folder_name(&overrides, &experiment.resolved.hash(), begins));
        combinations.push(Combination { overrides, experiment, folder });
    }
    check_all(app, args, &combinations, init.as_ref().map(|init| &init.state))?;

    let program = std::env::current_exe().map_err(|e| Error::Failed(format!("cannot find this program: {e}")))?;
    let signals = Signals::install(false)?;
    let mut failed = None;
    let mut results = Vec::new();
    for combination in &combinations {
        let Combination { overrides, folder, .. } = combination;
        let values = overrides.join(" ");
        if !is_done(app, args, combination)? {
            let mut child = process::Command::new(&program);
            child.arg("train").args(args.only()).arg("--config").arg(&base.file);
            child.args(args.common.overrides()).args(overrides).args(args.common.quiet.then_some("--quiet"));
            if let Some(init) = &args.init {
                child.arg("--init").arg(init);
            }
            child.arg("--out").arg(folder).arg("--resume").stdout(process::Stdio::null());
            say(format!("sweep: {values}"));
            let child = processes::spawn(&mut child)
                .map_err(|e| Error::Failed(format!("cannot start {}: {e}", program.display())))?;
            match processes::wait(vec![child], &signals)? {
                None => {}
                Some(End { code: code @ (130 | 143), .. }) => return Err(Error::Interrupted(code as u8)),
                Some(End { code, .. }) => failed = failed.or(Some((values.clone(), code))),
            }
        }
        if let Ok(result) = run::read_result(folder) {
            results.push((values, result));
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

/// Short, whatever the values are, and another one for every configuration, every way of writing it and all initial weights: the values as far as
/// they fit, and a hash of all.
fn folder_name(overrides: &[String], config_sha256: &str, init_sha256: &str) -> String {
    let told = overrides.join(",");
    let hash = Sha256::digest(format!("{config_sha256}\0{init_sha256}\0{}", overrides.join("\0")));
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-=,+".contains(c) { c } else { '_' };
    let told: String = told.chars().map(plain).take(TOLD).collect();
    format!("{told}-{}", &weights::hex(&hash)[..8])
}

/// Whether nothing is left to do: by the hash of the configuration, for a name says nothing of what the run was.
fn is_done<C>(app: &App<C>, args: &TrainArgs, combination: &Combination<C>) -> Result<bool> {
    let Combination { experiment, folder, .. } = combination;
    let names = known_stages(app, &(app.stages)(&experiment.paper), args.only())?;
    let mut wanted = names.iter().filter(|name| args.only().is_none_or(|only| only == *name));
    match run::read_result(folder) {
        Ok(result) if result.config_sha256 == experiment.resolved.hash() && result.has_all(wanted.by_ref()) => {
            check_same(app, experiment, folder, &result, None).map(|()| true)
        }
        _ => Ok(false),
    }
}

/// Refuses before the first run spends time what any of them would refuse: device, data, batch, schedule, initial weights. Those that are done
/// have been through it; runs that differ in nothing but their seed are alike in it.
fn check_all<C: DeserializeOwned>(
    app: &App<C>,
    args: &TrainArgs,
    combinations: &[Combination<C>],
    init: Option<&Named>,
) -> Result<()> {
    let mut seen = BTreeSet::new();
    for combination in combinations {
        let Experiment { paper, settings, resolved, .. } = &combination.experiment;
        // What the hash leaves out is swept as well.
        let free = ["compute.device", "data.root"].map(|key| resolved.get(key));
        if is_done(app, args, combination)? || !seen.insert((resolved.hash_without(&["seed"]), free)) {
            continue;
        }
        let of = |error: Error| match error {
            Error::User(text) => user!("the run with {} would be refused: {text}", combination.overrides.join(" ")),
            error => error,
        };
        let stages = (app.stages)(paper);
        let (begin, _) = first(&stages, args.only());
        device_of(settings).map_err(of)?;
        // On the CPU: the runs want the card for themselves.
        let setup = Setup::new(settings.clone(), Device::Cpu)?;
        for (place, stage) in stages.iter().enumerate() {
            if args.only().is_some_and(|only| only != stage.name) {
                continue;
            }
            let plan = (stage.plan)(paper, settings);
            let setup = setup.for_stage(&stage.name, place > 0, plan.length, plan.batch_size);
            let init = init.filter(|_| place == begin);
            (stage.check)(paper, &setup, &plan, init).map_err(of)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_short_and_distinct() {
        let name = |words: &[&str], hash: &str| {
            folder_name(&words.iter().map(|w| w.to_string()).collect::<Vec<_>>(), hash, "")
        };
        assert!(name(&["seed=1", "batch_size=32"], "a").starts_with("seed=1,batch_size=32-"));
        let long = "x".repeat(300);
        let all = [
            name(&["data.root=a/b"], "a"),
            name(&["data.root=a_b"], "a"),
            name(&["data.root=a b"], "a"),
            name(&["data.root=a/b"], "b"),
            name(&[&format!("data.root={long}1")], "a"),
            name(&[&format!("data.root={long}2")], "a"),
        ];
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");
        assert!(all.iter().all(|name| name.len() < 100 && !name.contains(['/', ' '])), "{all:?}");
    }
}

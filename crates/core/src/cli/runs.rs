//! Commands about runs that happened.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use super::args::{RunsArgs, VerifyArgs};
use super::{App, later, load, say, say_json, stage_of};
use crate::trainer::Evaluated;
use crate::trainer::run::{self, StageResult, Status};
use crate::weights::Named;
use crate::{Error, Result, user, weights};

/// Metrics that stand in the table, by their last part, beside the one that a run is for.
const SHOWN: [&str; 5] = ["error", "accuracy", "AP", "mAP50", "fid"];

pub(super) fn table<C>(app: &App<C>, args: &RunsArgs) -> Result<()> {
    let runs = run::all(app.paper.name);
    if args.json {
        return runs.iter().try_for_each(|(_, result)| say_json(result));
    }
    say(format!("{:58} {:>5} {:12} {:>9}  metrics", "run", "seed", "status", "steps"));
    for (folder, r) in &runs {
        let shown: Vec<_> = r
            .metrics
            .iter()
            .filter(|(n, _)| r.paper_metric.as_ref() == Some(*n) || SHOWN.contains(&n.rsplit('/').next().unwrap_or(n)))
            .map(|(n, v)| format!("{n} {v:.4}"))
            .collect();
        let status = format!("{:?}", r.status).to_lowercase();
        say(format!("{:58} {:>5} {status:12} {:>9}  {}", folder.display(), r.seed, r.steps, shown.join("  ")));
    }
    Ok(())
}

/// Holds a finished run's claims against a new evaluation of its weights.
pub(super) fn verify<C: DeserializeOwned>(app: &App<C>, args: &VerifyArgs) -> Result<()> {
    let folder = run::real_folder(&args.run);
    let claimed = run::read_result(&folder)?;
    if claimed.status != Status::Done {
        return Err(user!("{} is not finished ({:?}); there is nothing to verify", folder.display(), claimed.status));
    }
    let device: Vec<_> = args.device.iter().map(|d| format!("compute.device={d}")).collect();
    let experiment = load(app, &folder.join("config.yaml"), &device)?;
    let mut findings =
        vec![("configuration hash".to_string(), claimed.config_sha256.clone(), experiment.resolved.hash())];
    let mut metrics = BTreeMap::new();
    for name in (app.stages)(&experiment.paper).into_iter().map(|stage| stage.name) {
        if args.stage.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let later = later(app, &experiment, &name);
        // Results of earlier versions have the first stage alone.
        let record = match claimed.stages.get(&name) {
            Some(record) => record.clone(),
            None if later.is_none() && claimed.stages.is_empty() => StageResult {
                weights_sha256: claimed.weights_sha256.clone(),
                data_sha256: claimed.data_sha256.clone(),
                ..StageResult::default()
            },
            None => continue,
        };
        let (given, _) = weights::load_stage(&folder, later)?;
        let (stage, plan, setup) = stage_of(app, &experiment, Some(&name))?;
        let averaged = Some(folder.join(weights::file_name(later, true))).filter(|file| file.is_file());
        let evaluate = |weights: &Named, averages_follow: bool| {
            (stage.evaluate)(&experiment.paper, &setup, &plan, weights, averages_follow)
        };
        let Evaluated { metrics: found, data_sha256, .. } = evaluate(&given, averaged.is_some())?;
        metrics.extend(super::prefixed(found, later));
        if let Some(averaged) = averaged {
            let found = evaluate(&weights::load(&averaged)?.0, false)?.metrics;
            let of_averages = found.into_iter().map(|(name, value)| (name.replacen("test/", "test-ema/", 1), value));
            metrics.extend(super::prefixed(of_averages.collect(), later));
        }
        let of = |what: &str| later.map_or(format!("{what} hash"), |stage| format!("{what} hash of {stage}"));
        findings.push((of("weights"), record.weights_sha256.unwrap_or_default(), weights::hash(&given)?));
        findings.push((of("data"), record.data_sha256.unwrap_or_default(), data_sha256));
    }
    if findings.len() == 1 {
        let names: Vec<String> = claimed.stages.keys().cloned().collect();
        return Err(super::no_stage(app, args.stage.as_deref().unwrap_or_default(), &names));
    }
    let mut unchecked = Vec::new();
    for (name, value) in &claimed.metrics {
        // Six digits: counts of right answers agree exactly, sums of floats to the last bits only on equal machines.
        match metrics.get(name) {
            Some(found) => findings.push((name.clone(), format!("{value:.6}"), format!("{found:.6}"))),
            None => unchecked.push(name.as_str()),
        }
    }
    let holds = findings.iter().all(|(_, claim, found)| claim == found);
    if args.json {
        let rows: Vec<_> = findings
            .iter()
            .map(|(n, c, f)| serde_json::json!({"what": n, "claimed": c, "found": f, "holds": c == f}))
            .collect();
        say_json(&serde_json::json!({"holds": holds, "findings": rows, "not_checked": unchecked}))?;
    } else {
        for (name, claim, found) in &findings {
            say(if claim == found {
                format!("holds   {name:24} {claim}")
            } else {
                format!("DIFFERS {name:24} claimed {claim}, found {found}")
            });
        }
    }
    if !args.json && !unchecked.is_empty() {
        say(format!("not checked: {} (measured on the way, or by a stage that was left out)", unchecked.join(", ")));
    }
    if holds { Ok(()) } else { Err(Error::Failed(format!("{} does not hold", folder.display()))) }
}

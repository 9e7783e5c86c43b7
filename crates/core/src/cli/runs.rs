//! Commands about runs that happened.

use serde::de::DeserializeOwned;

use super::args::{RunsArgs, VerifyArgs};
use super::{App, load, say, say_json, setup};
use crate::trainer::run::{self, Status};
use crate::{Error, Result, user, weights};

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
            .filter(|(n, _)| n.ends_with("error") || n.ends_with("accuracy"))
            .map(|(n, v)| format!("{n} {v:.4}"))
            .collect();
        let status = format!("{:?}", r.status).to_lowercase();
        say(format!("{:58} {:>5} {status:12} {:>9}  {}", folder.display(), r.seed, r.steps, shown.join("  ")));
    }
    Ok(())
}

/// Holds a finished run's claims against a new evaluation of its weights.
pub(super) fn verify<C: DeserializeOwned>(app: &App<C>, args: &VerifyArgs) -> Result<()> {
    let claimed = run::read_result(&args.run)?;
    if claimed.status != Status::Done {
        return Err(user!("{} is not finished ({:?}); there is nothing to verify", args.run.display(), claimed.status));
    }
    let device: Vec<_> = args.device.iter().map(|d| format!("compute.device={d}")).collect();
    let experiment = load(app, &args.run.join("config.yaml"), &device)?;
    let (given, _) = weights::load(&args.run)?;
    let setup = setup(&experiment.settings)?;
    let stage = app.stages.first().ok_or_else(|| Error::Failed("this program has no stage".into()))?;
    let (metrics, data_sha256) = (stage.evaluate)(&experiment.paper, &setup, &given)?;

    let mut findings = vec![
        ("configuration hash".to_string(), claimed.config_sha256.clone(), experiment.resolved.hash()),
        ("weights hash".to_string(), claimed.weights_sha256.clone().unwrap_or_default(), weights::hash(&given)?),
        ("data hash".to_string(), claimed.data_sha256.clone().unwrap_or_default(), data_sha256),
    ];
    // Averaged weights and later stages have files of their own.
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
        say(format!(
            "not checked: {} (weights.safetensors holds the first stage's last weights)",
            unchecked.join(", ")
        ));
    }
    if holds { Ok(()) } else { Err(Error::Failed(format!("{} does not hold", args.run.display()))) }
}

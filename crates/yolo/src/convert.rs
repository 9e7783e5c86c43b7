//! `yolo convert`: weights between Darknet's form and safetensors, and a network's `.cfg`.

use std::path::{Path, PathBuf};

use repro::answer::Answer;
use repro::cli::Asked;
use repro::weights::{DARKNET, Named, load, write, write_darknet};
use repro::{Result, files, user};
use serde_json::json;

use crate::cfg;
use crate::config::{Config, LossConfig, Network};
use crate::darknet::{named, numbers, of_total};
use crate::sections::{Plan, VARIANTS};

/// `convert --weights W --out F.weights`, `F.safetensors` or `F.cfg`. The network is that of `--config`, of the run of the weights, or of
/// `--cfg`; without any of them a `.weights` file is known by its length, and other weights by their names.
///
/// # Errors
/// Weights that cannot be read or are of another network; an ending that is none of these; a file that cannot be written.
pub fn convert(asked: &Asked<Config>) -> Result<Vec<Answer>> {
    if let Some(word) = asked.words.first() {
        return Err(user!("{} is not understood here: convert --weights W --out F.weights", word.display()));
    }
    let out = asked.out.as_deref().ok_or_else(|| user!("--out F.weights, F.safetensors or F.cfg is missing"))?;
    let ending = out.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let network = network(asked)?;
    if ending == "cfg" {
        let (plan, edges) = network
            .ok_or_else(|| user!("--config FILE is missing: it names the network whose .cfg is to be written"))?;
        let ignore = match asked.config.map(Config::loss).transpose()? {
            Some(LossConfig::Yolov3 { ignore }) => Some(ignore),
            _ => None,
        };
        files::write_atomic(out, &[cfg::text(&plan, edges, ignore).as_bytes()])?;
        return Ok(vec![written(out, out, plan.sections.len(), "sections")]);
    }
    let path = asked
        .weights
        .as_deref()
        .ok_or_else(|| user!("--weights W is missing: a .weights or .safetensors file, or a run"))?;
    let (given, card) = load(path)?;
    let given = match (given.get(DARKNET).map(|numbers| numbers.numel() as i64), network) {
        (None, _) => given,
        (Some(_), Some((plan, _))) => named(&plan, given)?,
        (Some(n), None) => named(&by_length(n)?, given)?,
    };
    match ending {
        "weights" => write_darknet(out, &numbers(&given)?)?,
        "safetensors" => write(out, &given, card.as_deref())?,
        _ => return Err(user!("--out {}: the ending must be .weights, .safetensors or .cfg", out.display())),
    }
    Ok(vec![written(path, out, given.len(), "tensors")])
}

fn written(input: &Path, out: &Path, count: usize, what: &str) -> Answer {
    let lines = vec![format!("{count} {what} in {}", out.display())];
    Answer {
        input: input.to_owned(),
        lines,
        json: json!({ "written": out, what: count }),
        pictures: Vec::new(),
        error: None,
    }
}

/// The network that is named on the command line.
fn network(asked: &Asked<Config>) -> Result<Option<(Plan, (i64, i64))>> {
    let cfg = asked.flags.get_one::<PathBuf>("cfg").map(|path| cfg::read(path)).transpose()?;
    match (cfg, asked.config) {
        (Some(cfg), Some(config)) => {
            let (plan, _) = config.plan()?;
            same(&cfg.plan, &plan)?;
            Ok(Some((cfg.plan, cfg.edges)))
        }
        (Some(cfg), None) => Ok(Some((cfg.plan, cfg.edges))),
        (None, config) => config.map(Config::plan).transpose(),
    }
}

/// Refuses a `.cfg` of another network than the configuration's.
///
/// # Errors
/// The first section, or else what, differs.
pub fn same(cfg: &Plan, ours: &Plan) -> Result<()> {
    let pairs = cfg.sections.iter().zip(&ours.sections).enumerate();
    for (at, (theirs, ours)) in pairs {
        if theirs != ours {
            return Err(user!("section {at} of the .cfg is {theirs:?}, and of the configuration's network {ours:?}"));
        }
    }
    let (theirs, own) = (cfg.sections.len(), ours.sections.len());
    if theirs != own {
        return Err(user!("the .cfg has {theirs} sections, and the configuration's network {own}"));
    }
    if cfg.anchors != ours.anchors {
        return Err(user!("the anchors of the .cfg are {:?}, and the configuration's {:?}", cfg.anchors, ours.anchors));
    }
    Ok(())
}

/// The one network whose file has so many numbers.
fn by_length(n: i64) -> Result<Plan> {
    let mut fitting = Vec::new();
    for (name, variant) in VARIANTS {
        if let Some(plan) = of_total(&variant.plan(80), n)?.filter(|plan| plan.classes <= 10_000) {
            fitting.push((name, plan));
        }
    }
    match &fitting[..] {
        [(_, plan)] => Ok(plan.clone()),
        [] => Err(user!(
            "the .weights file holds {n} numbers, which is no known network's; name it with --config or --cfg"
        )),
        several => {
            let names: Vec<_> =
                several.iter().map(|(name, plan)| format!("{name} of {} classes", plan.classes)).collect();
            Err(user!("the .weights file may be {}; name the network with --config or --cfg", names.join(" or ")))
        }
    }
}

/// Weights by the names that they have here: a Darknet file's numbers laid over the network.
///
/// # Errors
/// Those of [`named`].
pub fn renamed(config: &Config, given: Named) -> Result<Named> {
    if !given.contains_key(DARKNET) {
        return Ok(given);
    }
    match config.model.network(config.model.num_classes.unwrap_or(80))? {
        Network::Sections(plan, _) => named(&plan, given),
        Network::Retina(..) => Err(user!("{} is no list of sections, so no .weights file holds it", config.model.name)),
    }
}

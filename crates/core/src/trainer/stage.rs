//! A stage of a paper from data to weights: what `train`, `eval` and `bench` share.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use super::fit::{Pending, evaluate_into, fit};
use super::plan::Plan;
use super::run::{Progressed, Run};
use super::{Eval, Recipe, Step, checkpoint};
use crate::config::Settings;
use crate::data::{Source, Split};
use crate::setup::Setup;
use crate::weights::{Load, Named};
use crate::{Error, Result, figures, user, weights};

/// What `bench` measures.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct Bench {
    pub paper: String,
    pub config: String,
    pub device: String,
    pub threads: i64,
    pub batch_size: u64,
    pub steps: u64,
    /// From the start of the process to the end of the first step.
    pub first_step_seconds: f64,
    pub median_step_seconds: f64,
    pub examples_per_second: f64,
    pub peak_memory_bytes: u64,
    /// Means over all steps.
    pub scalars: BTreeMap<&'static str, f64>,
}

/// What [`Stage::measure`] finds: seconds of each step, and the means of the scalars.
pub(crate) type Measured = (Vec<f64>, BTreeMap<&'static str, f64>);

type Train<C> = fn(&C, &Setup, &Plan, Option<&Named>, &mut Run) -> Result<Named>;
type Evaluate<C> = fn(&C, &Setup, &Named) -> Result<(BTreeMap<String, f64>, String)>;
type Measure<C> = fn(&C, &Setup, &Plan, u64) -> Result<Measured>;

/// One stage of a paper's program.
pub struct Stage<C> {
    pub(crate) plan: fn(&C, &Settings) -> Plan,
    pub(crate) train: Train<C>,
    pub(crate) evaluate: Evaluate<C>,
    pub(crate) measure: Measure<C>,
}

impl<C> Stage<C> {
    /// The stage that `R` describes; `plan` takes its length and batch from the configuration.
    pub fn of<R: Recipe<Config = C>>(plan: fn(&C, &Settings) -> Plan) -> Self {
        Self { plan, train: train::<R>, evaluate: evaluate::<R>, measure: measure::<R> }
    }
}

/// Data and model of a stage, refused where batch and data do not fit.
fn prepare<R: Recipe>(config: &R::Config, setup: &Setup, plan: &Plan, init: Option<&Named>) -> Result<(R::Data, R)> {
    let data = R::data(config, setup)?;
    let cursor = plan.cursor(setup, 0);
    cursor.check(data.len())?;
    if plan.length.steps(cursor.steps_per_epoch(data.len())) == 0 {
        return Err(user!("length is {}, which is less than one step; make it longer", plan.length));
    }
    setup.seed_build();
    Ok((data, R::build(config, setup, init)?))
}

/// Trains from the newest checkpoint or from step 0, evaluates on the test split, writes the weights; returns the full state.
fn train<R: Recipe>(
    config: &R::Config,
    setup: &Setup,
    plan: &Plan,
    init: Option<&Named>,
    run: &mut Run,
) -> Result<Named> {
    let (data, mut recipe) = prepare::<R>(config, setup, plan, init)?;
    let state = recipe.state();
    let steps_per_epoch = data.len() / plan.batch_size;
    let total = plan.length.steps(steps_per_epoch);
    let data_sha256 = data.sha256();
    run.result.data_sha256 = Some(data_sha256.clone());
    run.result.effective_batch = plan.batch_size;
    run.result.world_size = setup.world;
    run.result.lr = BTreeMap::from([("base".into(), plan.lr.0), ("scaled".into(), plan.lr.1)]);
    run.line(&format!(
        "{}: {} examples, {total} steps of {} ({steps_per_epoch} an epoch), lr {} (base {}), {} parameters, {}",
        plan.stage,
        data.len(),
        plan.batch_size,
        plan.lr.1,
        plan.lr.0,
        run.result.parameters,
        run.result.device
    ))?;
    run.notes(setup.take_notes())?;

    let mut told = Vec::new();
    let found = checkpoint::newest(run.checkpoints(), plan.stage, &run.result.config_sha256, &state, &mut |text| {
        told.push(text);
    });
    for text in told {
        run.line(&text)?;
    }
    let from = match found? {
        Some(header) => {
            header.check_data(&data_sha256)?;
            run.line(&format!("goes on from step {} of {total}", header.step))?;
            Progressed { step: header.step, seconds: header.seconds }
        }
        None => {
            if run.is_continued() {
                run.line("this run has no checkpoint yet; it starts at step 0")?;
            }
            Progressed::default()
        }
    };
    run.write_books()?;
    if from.step == 0 && init.is_some() && setup.rank == 0 {
        // `--resume` does not know where the weights came from.
        let header = checkpoint::Header::new(plan.stage, 0, 0.0, &run.result.config_sha256, &data_sha256);
        checkpoint::save(run.checkpoints(), header, &state, setup.settings.checkpoint.keep)?;
    }
    run.begin_stage(plan.stage, from.step, total)?;
    let at = fit(&mut recipe, &data, plan, setup, run, from)?;

    if at.step < total {
        return Err(Error::Interrupted(run.signal().unwrap_or(0)));
    }
    if setup.rank > 0 {
        return Ok(state);
    }
    let suffix = if plan.later { format!("-{}", plan.stage) } else { String::new() };
    let model = weights::below(&state, "model.");
    let card = recipe.card(&data);
    weights::write(&run.folder.join(format!("weights{suffix}.safetensors")), &model, card.as_deref())?;
    let averages = weights::below(&state, "ema.");
    if !averages.is_empty() {
        weights::write(&run.folder.join(format!("weights-ema{suffix}.safetensors")), &averages, card.as_deref())?;
    }
    if !plan.later {
        run.result.weights_sha256 = Some(weights::hash(&model)?);
    }
    // After the weights: an evaluation that fails must not cost them.
    let found = evaluate_into(Eval::default(), &mut recipe, &data, Split::Test)?;
    run.notes(data.notes())?;
    let last = Step { index: total - 1, total, steps_per_epoch, setup };
    run.evaluated(&plan.prefix("test"), &last, &found, true)?;
    draw_curves(run, plan, total)?;
    Ok(state)
}

/// Loss and errors over the epochs, as a picture.
fn draw_curves(run: &mut Run, plan: &Plan, step: u64) -> Result<()> {
    let rows = super::read_metrics(&run.folder)?;
    let curve = |name: String| {
        let points = rows.iter().filter_map(|r| Some((r.get("epoch")?.as_f64()?, r.get(&name)?.as_f64()?))).collect();
        figures::Curve { label: name, points, band: Vec::new() }
    };
    let losses = vec![curve(plan.prefix("train/loss"))];
    let errors = ["monitor/error", "val/error", "test/error", "monitor-ema/error", "test-ema/error"]
        .map(|n| curve(plan.prefix(n)));
    for (name, label, curves) in [("loss", "loss", losses), ("error", "error (fraction)", errors.into())] {
        let curves: Vec<_> = curves.into_iter().filter(|c| c.points.len() > 1 || c.label.ends_with("loss")).collect();
        if !curves.is_empty() {
            let title = format!("{} {}", run.result.paper, run.result.config);
            let plot = figures::Plot { title, x_label: "epoch".into(), y_label: label.into(), log_y: true, curves };
            let picture = figures::plot(&plot)?;
            run.picture(&plan.prefix(name).replace('/', "-"), step, &picture)?;
        }
    }
    Ok(())
}

/// Test metrics of given weights, and the hash of the data they were measured on.
fn evaluate<R: Recipe>(config: &R::Config, setup: &Setup, weights: &Named) -> Result<(BTreeMap<String, f64>, String)> {
    let data = R::data(config, setup)?;
    let mut recipe = R::build(config, setup, None)?;
    let model = weights::below(&recipe.state(), "model.");
    Load::of("the weights file").copy(&model, weights)?.into_iter().for_each(|note| setup.note(note));
    let found = evaluate_into(Eval::raw_numbers(), &mut recipe, &data, Split::Test)?;
    Ok((found.named("test"), data.sha256()))
}

/// Times each of `steps` training steps on the configuration's own data and device, the first being the warm-up. Scalars are read
/// as often as in training.
fn measure<R: Recipe>(config: &R::Config, setup: &Setup, plan: &Plan, steps: u64) -> Result<Measured> {
    let (data, mut recipe) = prepare::<R>(config, setup, plan, None)?;
    let steps_per_epoch = data.len() / plan.batch_size;
    let mut batches = data.batches(plan.cursor(setup, 0));
    let log_every = setup.settings.log.every.steps(steps_per_epoch).max(1);
    let mut pending = Pending::default();
    let mut seconds = Vec::new();
    for index in 0..steps {
        let clock = Instant::now();
        let at = Step { index, total: steps, steps_per_epoch, setup };
        at.reseed();
        let batch = batches.next().ok_or_else(|| user!("the data hold no batch of {}", plan.batch_size))??;
        pending.push(index, recipe.step(batch, &data, &at)?);
        if (index + 1).is_multiple_of(log_every) || index + 1 == steps {
            pending.read()?;
        }
        if let tch::Device::Cuda(i) = setup.device {
            tch::Cuda::synchronize(i as i64);
        }
        seconds.push(clock.elapsed().as_secs_f64());
    }
    Ok((seconds, pending.means()))
}

//! A stage of a paper from data to weights: what `train`, `eval` and `bench` share.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use super::checkpoint::Sums;
use super::fit::{Pending, evaluate_into, fit};
use super::plan::Plan;
use super::run::{FeatureNetwork, Progressed, Run, StageResult};
use super::{Eval, Recipe, Step, checkpoint};
use crate::config::{Every, Settings};
use crate::data::{Cursor, Source, Split};
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
    pub scalars: BTreeMap<String, f64>,
}

/// What [`Stage::evaluate`] finds.
pub(crate) struct Evaluated {
    /// `test/accuracy` → value.
    pub(crate) metrics: BTreeMap<String, f64>,
    /// Hash of the data they were measured on.
    pub(crate) data_sha256: String,
    /// By whose features pictures of the model were judged.
    pub(crate) feature_network: Option<FeatureNetwork>,
}

/// What [`Stage::measure`] finds: seconds of each step, and the means of the scalars.
pub(crate) type Measured = (Vec<f64>, BTreeMap<String, f64>);

type Train<C> = fn(&C, &Setup, &Plan, Option<&Named>, &mut Run) -> Result<Named>;
type Evaluate<C> = fn(&C, &Setup, &Plan, &Named, bool) -> Result<Evaluated>;
/// The hash of the data that the stage would learn from.
type Check<C> = fn(&C, &Setup, &Plan, Option<&Named>) -> Result<String>;
type Measure<C> = fn(&C, &Setup, &Plan, u64) -> Result<Measured>;

/// One stage of a paper's program.
pub struct Stage<C> {
    /// `train`, `pretrain`, `probe`, `finetune`, ….
    pub name: String,
    /// The stage whose weights it is given. `None`: the one before it.
    pub(crate) after: Option<&'static str>,
    /// Why a run of such a configuration cannot have another length, beside its schedule.
    pub(crate) whole: fn(&C) -> Option<&'static str>,
    pub(crate) plan: fn(&C, &Settings) -> Plan,
    pub(crate) check: Check<C>,
    pub(crate) train: Train<C>,
    pub(crate) evaluate: Evaluate<C>,
    pub(crate) measure: Measure<C>,
}

impl<C> Stage<C> {
    /// The stage that `R` describes; `plan` takes its length and batch from the configuration.
    pub fn of<R: Recipe<Config = C>>(name: impl Into<String>, plan: fn(&C, &Settings) -> Plan) -> Self {
        Self {
            name: name.into(),
            after: None,
            whole: |_| None,
            plan,
            check: |config, setup, plan, init| Ok(prepare::<R>(config, setup, plan, init)?.0.sha256()),
            train: train::<R>,
            evaluate: evaluate::<R>,
            measure: measure::<R>,
        }
    }

    /// The same, given the weights of an earlier stage than the one before it: fine-tuning starts from pre-training, not from the probe.
    pub fn after(self, stage: &'static str) -> Self {
        Self { after: Some(stage), ..self }
    }

    /// The same, where a step depends on the length of the stage by more than its `schedule`: `why` says so of a configuration, in words that
    /// follow "cannot have another length: ". Such a run keeps its length.
    pub fn whole(self, why: fn(&C) -> Option<&'static str>) -> Self {
        Self { whole: why, ..self }
    }
}

/// Data and model of a stage, refused where batch and data do not fit.
fn prepare<R: Recipe>(config: &R::Config, setup: &Setup, plan: &Plan, init: Option<&Named>) -> Result<(R::Data, R)> {
    let data = R::data(config, setup)?;
    if let Some(length) = plan.length {
        let cursor = Cursor::of(setup, 0);
        cursor.check(data.len())?;
        if length.steps(cursor.steps_per_epoch(data.len())) == 0 {
            return Err(user!("length is {length}, which is less than one step; make it longer"));
        }
    }
    setup.note_slow_precision();
    let said = setup.take_notes();
    setup.seed_build();
    let mut recipe = R::build(config, setup, init)?;
    if let Some(text) = setup.other_classes(recipe.card(&data).as_deref())? {
        // As many classes as the file knows, but others: its classifier would answer with their names.
        setup.take_notes();
        setup.note(format!("{text}: the classifier starts fresh"));
        setup.seed_build();
        recipe = R::build(config, setup, init)?;
    }
    let built = setup.take_notes();
    said.into_iter().chain(built).for_each(|note| setup.note(note));
    Ok((data, recipe))
}

/// Trains from the newest checkpoint or from step 0, evaluates on the test split, writes the weights. Returns what a later stage is given:
/// `model.*` and `ema.*`, as the run folder's files hold them.
fn train<R: Recipe>(
    config: &R::Config,
    setup: &Setup,
    plan: &Plan,
    init: Option<&Named>,
    run: &mut Run,
) -> Result<Named> {
    let (data, mut recipe) = prepare::<R>(config, setup, plan, init)?;
    let state = recipe.state();
    let steps_per_epoch = Cursor::of(setup, 0).steps_per_epoch(data.len());
    let total = plan.steps(steps_per_epoch);
    let data_sha256 = data.sha256();
    setup.agree("configuration", &run.result.config_sha256)?;
    setup.agree("data", &data_sha256)?;
    setup.share(&state)?;
    run.take()?;
    if run.is_continued() && run.result.world_size != setup.world {
        setup.note(format!(
            "trained by {} processes and then by {}: sums are taken in another order, and a batch norm that sees the pictures of one process sees other batches, so this is not an \
             uncut run to the bit",
            run.result.world_size, setup.world
        ));
    }
    run.result.world_size = setup.world;
    run.enter(
        &setup.stage,
        StageResult {
            effective_batch: plan.batch_size,
            lr: plan.rates(),
            data_sha256: Some(data_sha256.clone()),
            ..StageResult::default()
        },
    );
    run.line(&format!(
        "{}: {} examples, {total} steps of {} ({steps_per_epoch} an epoch), lr {} (base {}), {} parameters, {}",
        setup.stage,
        data.len(),
        plan.batch_size,
        plan.lr.1,
        plan.lr.0,
        run.result.parameters,
        run.result.device
    ))?;
    run.notes(setup.take_notes())?;

    let mut told = Vec::new();
    let found =
        checkpoint::newest(&run.checkpoints(), &setup.stage, run.known_as(), &state, &mut |text| told.push(text))?;
    run.notes(told)?;
    let (from, summed) = match found {
        Some(header) => {
            header.check_data(&data_sha256)?;
            if header.step > total {
                return Err(user!(
                    "{} has done {} steps already, more than the {total} that length asks for; give it {} steps or more",
                    setup.stage,
                    header.step,
                    header.step
                ));
            }
            run.line(&format!("goes on from step {} of {total}", header.step))?;
            (Progressed { step: header.step, seconds: header.seconds }, header.pending)
        }
        None => {
            if run.is_continued() {
                run.line(&format!("{} has no checkpoint yet; it starts at step 0", setup.stage))?;
            }
            if init.is_some() && setup.rank == 0 {
                // `--resume` need not find again the weights that the stage began with.
                let header = run.header(&Progressed::default(), Sums::new());
                checkpoint::save(&run.checkpoints(), header, &state, setup.settings.checkpoint.keep)?;
            }
            (Progressed::default(), Sums::new())
        }
    };
    // Each process reads the checkpoint for itself.
    setup.agree("checkpoint to go on from", &from.step.to_string())?;
    run.progressed(&from, steps_per_epoch);
    run.write_books()?;
    run.begin_stage(&setup.stage, from.step, total, from.step < total && !summed.is_empty())?;
    let hash_of = |prefixes: &[String]| match prefixes {
        [] => Ok(None),
        _ => weights::frozen_hash(&weights::below(&state, "model."), prefixes).map(Some),
    };
    let freeze = setup.settings.freeze.clone().unwrap_or_default();
    let still: Vec<String> = recipe.still().iter().map(|prefix| (*prefix).to_string()).collect();
    let (frozen, trunk) = (hash_of(&freeze)?, hash_of(&still)?);
    let at = fit(&mut recipe, &data, plan, setup, run, from, &summed)?;
    if hash_of(&freeze)? != frozen {
        return Err(Error::Failed("internal error: what freeze names has changed in training".into()));
    }
    run.stage().frozen_sha256 = frozen;
    run.keep_still(trunk, hash_of(&still)?)?;

    // Also where nothing was left to do but what follows.
    run.progressed(&at, steps_per_epoch);
    if at.step < total {
        return Err(Error::Interrupted(run.signal().unwrap_or(0)));
    }
    let given: Named = state.into_iter().filter(|(name, _)| !name.starts_with("optim.")).collect();
    let model = weights::below(&given, "model.");
    if setup.rank == 0 {
        run.write_weights(&model, &weights::below(&given, "ema."), recipe.card(&data).as_deref())?;
    }
    // After the weights: an evaluation that fails must not cost them.
    let last = Step { index: total.saturating_sub(1), total, steps_per_epoch, setup };
    if R::has_validation(&data) && setup.settings.eval.every != Every::Never {
        // So that its curve ends where the run does.
        let found = evaluate_into(Eval::on_the_way(true), &mut recipe, &data, Split::Validation, &last)?;
        run.evaluated("val", &last, &found, false)?;
    }
    let found = evaluate_into(Eval::default(), &mut recipe, &data, Split::Test, &last)?;
    run.notes(data.notes())?;
    run.notes(setup.take_notes())?;
    run.evaluated("test", &last, &found, true)?;
    draw_curves(run, total)?;
    run.stage().done = true;
    run.write_result()?;
    Ok(given)
}

/// Loss and errors over the epochs, as pictures: training beside validation, and the paper's error as a line. What is measured on the test
/// split on the way ends in the test itself.
fn draw_curves(run: &mut Run, step: u64) -> Result<()> {
    let rows = super::read_metrics(&run.folder)?;
    let of = |name: &str| -> Vec<(f64, f64)> {
        rows.iter().filter_map(|r| Some((r.get("epoch")?.as_f64()?, r.get(name)?.as_f64()?))).collect()
    };
    let level = |metric: &str| {
        let claimed = run.result.paper_metric.as_ref().is_some_and(|claimed| *claimed == run.prefixed(metric));
        let value = run.result.paper_value.filter(|_| claimed)?;
        Some(figures::Level { label: format!("paper: {value}"), value })
    };
    let mut pictures = Vec::new();
    for (what, label) in [("loss", "loss"), ("error", "error (fraction)")] {
        let curve = |split: &str| {
            let name = |split: &str| run.prefixed(&format!("{split}/{what}"));
            let mut points = of(&name(split));
            if let Some(averaged) = split.strip_prefix("monitor") {
                points.extend(of(&name(&format!("test{averaged}"))));
            }
            figures::Curve { label: name(split), points, ..figures::Curve::default() }
        };
        let curves = ["train", "val", "val-ema", "monitor", "monitor-ema"].map(curve);
        let plot = figures::Plot {
            title: format!("{} {}", run.result.paper, run.result.config),
            x_label: "epoch".into(),
            y_label: label.into(),
            log_y: true,
            curves: curves.into_iter().filter(|curve| !curve.points.is_empty()).collect(),
            levels: level(&format!("test/{what}")).into_iter().collect(),
            ..figures::Plot::default()
        };
        if !plot.is_empty() {
            pictures.push((run.prefixed(what).replace('/', "-"), figures::plot(&plot)?));
        }
    }
    for (name, picture) in pictures {
        run.picture(&name, step, &picture)?;
    }
    Ok(())
}

/// Test metrics of given weights; of their averages, if they are measured next, what takes long is left to them.
fn evaluate<R: Recipe>(
    config: &R::Config,
    setup: &Setup,
    plan: &Plan,
    weights: &Named,
    averages_follow: bool,
) -> Result<Evaluated> {
    let data = R::data(config, setup)?;
    let mut recipe = R::build(config, setup, None)?;
    let model = weights::below(&recipe.state(), "model.");
    Load::of("the weights file").copy(&model, weights)?.into_iter().for_each(|note| setup.note(note));
    let steps_per_epoch = Cursor::of(setup, 0).steps_per_epoch(data.len());
    let total = plan.steps(steps_per_epoch);
    let last = Step { index: total.saturating_sub(1), total, steps_per_epoch, setup };
    let found = evaluate_into(Eval::of_weights(averages_follow), &mut recipe, &data, Split::Test, &last)?;
    let (metrics, data_sha256) = (found.named("test"), data.sha256());
    Ok(Evaluated { metrics, data_sha256, feature_network: found.feature_network })
}

/// Times each of `steps` training steps on the configuration's own data and device, the first being the warm-up. Scalars are read
/// as often as in training.
fn measure<R: Recipe>(config: &R::Config, setup: &Setup, plan: &Plan, steps: u64) -> Result<Measured> {
    let (data, mut recipe) = prepare::<R>(config, setup, plan, None)?;
    let steps_per_epoch = Cursor::of(setup, 0).steps_per_epoch(data.len());
    let mut batches = data.batches(Cursor::of(setup, 0));
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
    Ok((seconds, pending.mean_here()))
}

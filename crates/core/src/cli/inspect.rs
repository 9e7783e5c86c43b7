//! Commands that look at a model or at data and train nothing.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::FromArgMatches;
use serde::de::DeserializeOwned;
use tch::{Device, Kind, nn};

use super::args::{BenchArgs, DataArgs, EvalArgs, ExtraArgs, ForwardArgs, PredictArgs, ShardsArgs, SummaryArgs};
use super::given::{self, Given};
use super::{
    App, Asked, Extra, config_name, device_name, experiment, later, load, note, print_config, say, say_json, setup,
    stage_of,
};
use crate::answer::Answer;
use crate::nn::{Row, record, summary as summarise};
use crate::trainer::{Bench, Evaluated};
use crate::weights::{Load, Named};
use crate::{Result, data, figures, files, user, weights};

pub(super) fn eval<C: DeserializeOwned>(app: &App<C>, args: &EvalArgs) -> Result<()> {
    args.common.only_overrides()?;
    let overrides = args.common.overrides();
    if args.raw && !app.makes_pictures() {
        return Err(user!(
            "--raw cannot act: {} makes no pictures, and its weights are tested as they are",
            app.paper.name
        ));
    }
    let averaged = app.makes_pictures() && !args.raw;
    let asked = given::given(app, &args.common, &overrides, &args.weights, args.stage.as_deref(), averaged)?;
    let Some(Given { experiment, weights: given, card }) = asked else { return Ok(()) };
    let (stage, plan, setup) = stage_of(app, &experiment, args.stage.as_deref())?;
    let setup = setup.with_given(card).with_detections(args.detections.clone());
    args.detections.iter().try_for_each(|file| output_folder(file))?;
    let later = later(app, &experiment, &stage.name);
    let Evaluated { metrics, data_sha256, feature_network } =
        (stage.evaluate)(&experiment.paper, &setup, &plan, &given, false)?;
    setup.take_notes().into_iter().for_each(note);
    if setup.take_detections().is_some() {
        return Err(user!("--detections cannot act: {} finds no objects", app.paper.name));
    }
    let metrics = super::prefixed(metrics, later);
    for (name, value) in metrics.iter().filter(|(_, value)| !value.is_finite()) {
        note(format!(
            "{name} is {value}: these weights answer with what is no number, so nothing that is measured here counts"
        ));
    }
    if args.common.json {
        let mut found = serde_json::json!({
            "paper": app.paper.name, "config": config_name(&experiment.file), "metrics": metrics,
            "weights_sha256": weights::hash(&given)?, "data_sha256": data_sha256,
        });
        if let Some(network) = feature_network {
            found["feature_network"] = serde_json::json!(network);
        }
        return say_json(&found);
    }
    if let Some(network) = feature_network {
        note(format!("pictures are judged by the features of {} ({})", network.name, &network.sha256[..12]));
    }
    for (name, value) in &metrics {
        say(format!("{name:24} {value:.4}"));
    }
    Ok(())
}

pub(super) fn forward<C: DeserializeOwned>(app: &App<C>, args: &ForwardArgs) -> Result<()> {
    args.common.only_overrides()?;
    let overrides = args.common.overrides();
    let asked = given::given(app, &args.common, &overrides, &args.weights, args.stage.as_deref(), false)?;
    let Some(Given { experiment, weights: given, .. }) = asked else { return Ok(()) };
    let (stage, _, setup) = stage_of(app, &experiment, args.stage.as_deref())?;
    let (input, _) = weights::read(&args.input)?;

    let mut store = nn::VarStore::new(setup.device);
    let model = (app.model)(&experiment.paper, &stage.name, &store.root())?;
    let double = given.values().any(|t| t.kind() == Kind::Double);
    if double {
        store.double();
    }
    let parameters: Named = store.variables().into_iter().collect();
    let origin = args.weights.display().to_string();
    Load::of(&origin).copy(&parameters, &given)?.into_iter().for_each(note);
    let kind = if double { Kind::Double } else { Kind::Float };
    for (name, tensor) in &input {
        if tensor.is_floating_point() && tensor.kind() != kind {
            return Err(user!(
                "{}: {name} is {:?} but the weights are {kind:?}; give both in one precision",
                args.input.display(),
                tensor.kind()
            ));
        }
    }
    if args.output.extension().is_some_and(|ending| ["npy", "npz", "pt", "pth"].iter().any(|other| ending == *other)) {
        return Err(user!("--output {}: what is written is safetensors; let the name end so", args.output.display()));
    }
    let input: Named = input.into_iter().map(|(n, t)| (n, t.to_device(setup.device))).collect();
    let attentions = args.attention.then(|| format!("*{}", record::ATTENTION));
    let taps: Vec<String> = args.tap.iter().cloned().chain(attentions).collect();
    let (mut output, taps) = record::tap(&taps, || match args.grad {
        true => model(&input, args.train),
        false => tch::no_grad(|| model(&input, args.train)),
    })?;
    if args.grad {
        let loss = output
            .get("loss")
            .ok_or_else(|| user!("--grad needs targets in {}: there is no loss without them", args.input.display()))?;
        loss.f_backward()?;
        for (name, parameter) in parameters.iter().filter(|(_, p)| p.requires_grad()) {
            let gradient = parameter.grad();
            output.insert(format!("grad.{name}"), if gradient.defined() { gradient } else { parameter.zeros_like() });
        }
    }
    for (name, value) in taps {
        if let Some(block) = name.strip_suffix(record::ATTENTION).filter(|_| args.attention) {
            let block = block.strip_prefix("blocks.").unwrap_or(block);
            output.insert(format!("attention.{block}"), value);
        } else {
            output.insert(format!("tap.{name}"), value);
        }
    }
    output_folder(&args.output)?;
    weights::write(&args.output, &output, None)?;
    if args.common.json {
        let shapes: Vec<_> = output.iter().map(|(n, t)| (n, t.size())).collect();
        return say_json(&shapes);
    }
    say(format!("{} tensors in {}", output.len(), args.output.display()));
    Ok(())
}

/// Refuses a file whose folder does not exist, before work is done for it.
fn output_folder(file: &Path) -> Result<()> {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            Err(user!("cannot write {}: there is no folder {}", file.display(), folder.display()))
        }
        _ => Ok(()),
    }
}

pub(super) fn predict<C: DeserializeOwned>(app: &App<C>, args: &PredictArgs) -> Result<()> {
    let (overrides, paths) = args.common.overrides_and_paths(&args.paths);
    let asked = given::given(app, &args.common, &overrides, &args.weights, None, false)?;
    let Some(Given { experiment, weights: given, card }) = asked else { return Ok(()) };
    let images = photos_of(&paths)?;
    let setup = setup(&experiment.settings)?.with_given(card);
    // The file as the model has it.
    let store = nn::VarStore::new(Device::Cpu);
    let stages = (app.stages)(&experiment.paper);
    let first = stages.first().map_or("", |stage| &stage.name);
    let _ = (app.model)(&experiment.paper, first, &store.root())?;
    let fitted: Named = store.variables().into_iter().collect();
    let origin = args.weights.display().to_string();
    Load::of(&origin).copy(&fitted, &given)?.into_iter().for_each(note);
    files::create_folder(&args.out)?;
    let answers = (app.predict)(&experiment.paper, &setup, &fitted, &images, &args.out)?;
    setup.take_notes().into_iter().for_each(note);
    tell(&answers, args.common.json)
}

/// The files that `predict` is asked about: of a folder those below it.
fn photos_of(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut images = Vec::new();
    for path in paths {
        if path.is_dir() {
            let (found, passed_over) = data::photos_in(path)?;
            let passed_over = passed_over.note();
            if found.is_empty() {
                let others = passed_over.map(|note| format!("; {note}")).unwrap_or_default();
                return Err(user!("{}: there are no photos in this folder{others}", path.display()));
            }
            passed_over.into_iter().for_each(|text| note(format!("{}: {text}", path.display())));
            images.extend(found);
        } else {
            images.push(path.clone());
        }
    }
    if images.is_empty() {
        return Err(user!("no picture given; name photos (JPEG, PNG, WebP, BMP) or folders of them"));
    }
    Ok(images)
}

/// Prints the answers, if there are any; then, if there are inputs without one, says so.
fn tell(answers: &[Answer], json: bool) -> Result<()> {
    if answers.is_empty() {
        return Ok(());
    }
    if json {
        say_json(&answers.iter().map(Answer::json).collect::<Vec<_>>())?;
    } else {
        answers.iter().for_each(|answer| say(answer.text()));
    }
    let failed: Vec<&str> = answers.iter().filter_map(|answer| answer.error.as_deref()).collect();
    match failed.len() {
        0 => Ok(()),
        n => Err(user!("{n} of {} have no answer: {}", answers.len(), weights::some(&failed))),
    }
}

/// A command of the paper's own.
pub(super) fn extra<C: DeserializeOwned>(app: &App<C>, extra: &Extra<C>, flags: &clap::ArgMatches) -> Result<()> {
    let args = ExtraArgs::from_arg_matches(flags).map_err(|e| user!("{e}"))?;
    let (overrides, words) = args.common.overrides_and_paths(&args.paths);
    let of_run = args.weights.as_deref().and_then(given::own_config);
    let experiment = match args.common.config.as_deref().or(of_run.as_deref()) {
        None => None,
        Some(file) if args.common.print_config => return print_config(app, file, &overrides),
        Some(file) => Some(load(app, file, &overrides)?),
    };
    let setup = experiment.as_ref().map(|experiment| setup(&experiment.settings)).transpose()?;
    let answers = (extra.run)(&Asked {
        config: experiment.as_ref().map(|experiment| &experiment.paper),
        setup: setup.as_ref(),
        weights: args.weights,
        out: args.out,
        words,
        flags,
    })?;
    tell(&answers, args.common.json)
}

pub(super) fn bench<C: DeserializeOwned>(app: &App<C>, args: &BenchArgs) -> Result<()> {
    args.common.only_overrides()?;
    let begun = Instant::now();
    let Some(experiment) = experiment(app, &args.common)? else { return Ok(()) };
    let (stage, plan, setup) = stage_of(app, &experiment, args.stage.as_deref())?;
    if plan.length.is_none() {
        return Err(user!("stage {} trains nothing, so there is no step to time", stage.name));
    }
    torch_ext::reset_peak_memory(setup.device)?;
    let (seconds, scalars) = (stage.measure)(&experiment.paper, &setup, &plan, args.steps + 1)?;
    let total = begun.elapsed().as_secs_f64();
    setup.take_notes().into_iter().for_each(note);
    let timed: f64 = seconds[1..].iter().sum();
    let mut sorted = seconds[1..].to_vec();
    sorted.sort_by(f64::total_cmp);
    say_json(&Bench {
        paper: app.paper.name.into(),
        config: config_name(&experiment.file),
        device: device_name(setup.device),
        threads: i64::from(tch::get_num_threads()),
        batch_size: plan.batch_size,
        steps: args.steps,
        first_step_seconds: total - timed,
        median_step_seconds: sorted[sorted.len() / 2],
        examples_per_second: plan.batch_size as f64 * (seconds.len() - 1) as f64 / timed,
        peak_memory_bytes: torch_ext::peak_memory(setup.device)?,
        scalars,
    })
}

pub(super) fn summary<C: DeserializeOwned>(app: &App<C>, args: &SummaryArgs) -> Result<()> {
    args.common.only_overrides()?;
    let Some(experiment) = experiment(app, &args.common)? else { return Ok(()) };
    let (stage, _) = super::named_stage(app, &experiment, args.stage.as_deref())?;
    let store = nn::VarStore::new(tch::Device::Cpu);
    let model = (app.model)(&experiment.paper, &stage.name, &store.root())?;
    let example = (app.example)(&experiment.paper, &stage.name)?;
    let rows = summarise(&store, || model(&example, false))?;
    if args.common.json {
        return say_json(&rows);
    }
    let connections = rows.iter().any(|r| r.connections.is_some());
    let line = |name: &str, output: &str, parameters: &str, adds: &str, links: &str| {
        let links = if connections { format!("{links:>13}") } else { String::new() };
        say(format!("{name:24} {output:>16} {parameters:>12} {adds:>15}{links}").trim_end());
    };
    line("layer", "output", "parameters", "multiply-adds", "connections");
    for r in &rows {
        let shape: Vec<_> = r.output.iter().map(i64::to_string).collect();
        let links = r.connections.map(|c| c.to_string()).unwrap_or_default();
        line(&r.name, &shape.join("x"), &r.parameters.to_string(), &r.multiply_adds.to_string(), &links);
    }
    let sum = |f: fn(&Row) -> u64| rows.iter().map(f).sum::<u64>().to_string();
    line("total", "", &sum(|r| r.parameters), &sum(|r| r.multiply_adds), &sum(|r| r.connections.unwrap_or(0)));
    Ok(())
}

pub(super) fn data<C: DeserializeOwned>(app: &App<C>, args: &DataArgs) -> Result<()> {
    args.common.only_overrides()?;
    let Some(experiment) = experiment(app, &args.common)? else { return Ok(()) };
    let (_, _, setup) = stage_of(app, &experiment, args.stage.as_deref())?;
    let look = (app.look)(&experiment.paper, &setup)?;
    let width = look.images.size().last().copied().unwrap_or(1).max(1);
    let picture = figures::grid(&look.images, 10, (64 / width).max(1) as u32, &look.captions)?;
    output_folder(&args.out)?;
    figures::save(&picture, &args.out)?;
    if args.common.json {
        let mut all = serde_json::json!({ "picture": args.out });
        if let (Some(all), serde_json::Value::Object(own)) = (all.as_object_mut(), look.json) {
            all.extend(own);
        }
        return say_json(&all);
    }
    look.tables.iter().for_each(|table| say(table.text()));
    look.notes.iter().for_each(say);
    say(format!("picture: {}", args.out.display()));
    for note in setup.take_notes() {
        say(format!("note: {note}"));
    }
    Ok(())
}

pub(super) fn shards<C: DeserializeOwned>(app: &App<C>, args: &ShardsArgs) -> Result<()> {
    args.common.only_overrides()?;
    let Some(experiment) = experiment(app, &args.common)? else { return Ok(()) };
    let packed = data::pack(&experiment.settings.data, &args.out, args.size)?;
    if args.common.json {
        return say_json(&packed);
    }
    say(format!("{} pictures in {} shards in {}", packed.pictures, packed.shards.len(), args.out.display()));
    Ok(())
}

//! Commands that look at a model or at data and train nothing.

use std::path::Path;
use std::time::Instant;

use serde::de::DeserializeOwned;
use tch::{Kind, nn};

use super::args::{BenchArgs, Common, DataArgs, EvalArgs, ForwardArgs, PredictArgs, ShardsArgs};
use super::{App, config_name, device_name, experiment, say, say_json, setup};
use crate::nn::{Row, record, summary as summarise};
use crate::trainer::Bench;
use crate::weights::Named;
use crate::{Error, Result, data, figures, files, user, weights};

pub(super) fn eval<C: DeserializeOwned>(app: &App<C>, args: &EvalArgs) -> Result<()> {
    args.common.only_overrides()?;
    let Some(experiment) = experiment(app, &args.common)? else { return Ok(()) };
    let (given, _) = weights::read(&weights::locate(&args.weights)?)?;
    let setup = setup(&experiment.settings)?;
    let stage = app.stages.first().ok_or_else(|| Error::Failed("this program has no stage".into()))?;
    let (metrics, data_sha256) = (stage.evaluate)(&experiment.paper, &setup, &given)?;
    if args.common.json {
        return say_json(&serde_json::json!({
            "paper": app.paper.name, "config": config_name(&experiment.file), "metrics": metrics,
            "weights_sha256": weights::hash(&given)?, "data_sha256": data_sha256,
        }));
    }
    for (name, value) in &metrics {
        say(format!("{name:24} {value:.4}"));
    }
    Ok(())
}

pub(super) fn forward<C: DeserializeOwned>(app: &App<C>, args: &ForwardArgs) -> Result<()> {
    args.common.only_overrides()?;
    let Some(experiment) = experiment(app, &args.common)? else { return Ok(()) };
    let setup = setup(&experiment.settings)?;
    let (given, _) = weights::read(&weights::locate(&args.weights)?)?;
    let (input, _) = weights::read(&args.input)?;

    let mut store = nn::VarStore::new(setup.device);
    let model = (app.model)(&experiment.paper, &store.root())?;
    let double = given.values().any(|t| t.kind() == Kind::Double);
    if double {
        store.double();
    }
    let parameters: Named = store.variables().into_iter().collect();
    weights::copy_into(&parameters, &given, &args.weights.display().to_string())?;
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
    let input: Named = input.into_iter().map(|(n, t)| (n, t.to_device(setup.device))).collect();
    let (mut output, taps) = record::tap(&args.tap, || match args.grad {
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
    output.extend(taps.into_iter().map(|(name, value)| (format!("tap.{name}"), value)));
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
    let Some(experiment) = experiment(app, &args.common)? else { return Ok(()) };
    let (given, card) = weights::read(&weights::locate(&args.weights)?)?;
    let images: Vec<_> = args.common.words.iter().filter(|w| !w.contains('=')).map(Into::into).collect();
    if images.is_empty() {
        return Err(user!("no picture given; name one or more PNG or JPEG files"));
    }
    setup(&experiment.settings)?;
    files::create_folder(&args.out)?;
    let predictions = (app.predict)(&experiment.paper, &given, card.as_deref(), &images, &args.out)?;
    if args.common.json {
        return say_json(&predictions);
    }
    for p in &predictions {
        let classes: Vec<_> = p
            .classes
            .iter()
            .take(5)
            .map(|(name, probability)| format!("{name} {:.1} %", 100.0 * probability))
            .collect();
        say(format!("{:32} {}", p.image.display(), classes.join("   ")));
        for picture in &p.pictures {
            say(format!("{:32} {}", "", picture.display()));
        }
    }
    Ok(())
}

pub(super) fn bench<C: DeserializeOwned>(app: &App<C>, args: &BenchArgs) -> Result<()> {
    args.common.only_overrides()?;
    let begun = Instant::now();
    let Some(experiment) = experiment(app, &args.common)? else { return Ok(()) };
    let setup = setup(&experiment.settings)?;
    let stage = app.stages.first().ok_or_else(|| Error::Failed("this program has no stage".into()))?;
    let plan = (stage.plan)(&experiment.paper, &experiment.settings);
    torch_ext::reset_peak_memory(setup.device)?;
    let (seconds, scalars) = (stage.measure)(&experiment.paper, &setup, &plan, args.steps.max(1) + 1)?;
    let total = begun.elapsed().as_secs_f64();
    let timed: f64 = seconds[1..].iter().sum();
    let mut sorted = seconds[1..].to_vec();
    sorted.sort_by(f64::total_cmp);
    say_json(&Bench {
        paper: app.paper.name.into(),
        config: config_name(&experiment.file),
        device: device_name(setup.device),
        threads: i64::from(tch::get_num_threads()),
        batch_size: plan.batch_size,
        steps: args.steps.max(1),
        first_step_seconds: total - timed,
        median_step_seconds: sorted[sorted.len() / 2],
        examples_per_second: plan.batch_size as f64 * (seconds.len() - 1) as f64 / timed,
        peak_memory_bytes: torch_ext::peak_memory(setup.device)?,
        scalars,
    })
}

pub(super) fn summary<C: DeserializeOwned>(app: &App<C>, args: &Common) -> Result<()> {
    args.only_overrides()?;
    let Some(experiment) = experiment(app, args)? else { return Ok(()) };
    let store = nn::VarStore::new(tch::Device::Cpu);
    let model = (app.model)(&experiment.paper, &store.root())?;
    let example = (app.example)(&experiment.paper)?;
    let rows = summarise(&store, || model(&example, false))?;
    if args.json {
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
    let setup = setup(&experiment.settings)?;
    let look = (app.look)(&experiment.paper, &setup)?;
    let width = look.images.size().last().copied().unwrap_or(1).max(1);
    let picture = figures::grid(&look.images, 10, (64 / width).max(1) as u32, &look.captions)?;
    output_folder(&args.out)?;
    figures::save(&picture, &args.out)?;
    if args.common.json {
        let classes: Vec<_> = look
            .classes
            .iter()
            .map(|(n, train, test)| serde_json::json!({"class": n, "train": train, "test": test}))
            .collect();
        return say_json(
            &serde_json::json!({"picture": args.out, "classes": classes, "mean": look.mean, "std": look.std}),
        );
    }
    say(format!("{:24} {:>8} {:>8}", "class", "train", "test"));
    for (name, train, test) in &look.classes {
        say(format!("{name:24} {train:>8} {test:>8}"));
    }
    let total = |f: fn(&(String, u64, u64)) -> u64| look.classes.iter().map(f).sum::<u64>();
    say(format!("{:24} {:>8} {:>8}", "total", total(|c| c.1), total(|c| c.2)));
    say(format!("mean {:.4?}  standard deviation {:.4?}  (training pixels in [0, 1])", look.mean, look.std));
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

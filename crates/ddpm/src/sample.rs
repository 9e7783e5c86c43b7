//! `ddpm sample`: pictures out of noise (Algorithm 2 and its relatives), and what the network makes of photos.

use std::path::{Path, PathBuf};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use repro::answer::{self, Answer};
use repro::cli::Asked;
use repro::nn::Mode;
use repro::setup::Setup;
use repro::weights::{self, Load, Named};
use repro::{Result, figures, files, user};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor, nn};

use crate::config::Config;
use crate::draw::{Draw, evenly, pixels};
use crate::judge::scale;
use crate::model::Model;
use crate::names::renamed;
use crate::photos::Photos;
use crate::retouch;
use crate::sampler::SamplerConfig;

/// Pictures that are drawn unless another number is asked for, and so many at a time.
const PICTURES: u64 = 64;
const AT_ONCE: u64 = 64;
/// Pictures of the animation, its frames, and how long each is shown.
const ANIMATED: u64 = 16;
const FRAMES: usize = 48;
const MILLISECONDS: u16 = 80;
/// Pixels of the grid's pictures; more of them are not laid out.
const GRID: u64 = 256;

/// What it is asked beside the shared flags.
pub fn flags(command: clap::Command) -> clap::Command {
    use clap::{Arg, ArgAction, value_parser};
    let value = |name: &'static str, what: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(what).help(help)
    };
    command
        .arg(
            value("n", "N", "How many pictures; 64 if it is left away")
                .value_parser(value_parser!(u64).range(1..=10_000_000)),
        )
        .arg(value("sampler", "KIND", "ddpm, ddim or dpm++; that of the configuration if it is left away"))
        .arg(value("steps", "S", "Steps of the sampler").value_parser(value_parser!(u64).range(1..)))
        .arg(
            value("eta", "E", "Of ddim: 0 draws no noise on the way, 1 as much as ddpm")
                .allow_negative_numbers(true)
                .value_parser(value_parser!(f64)),
        )
        .arg(
            value("guidance", "G", "Weight of the class: eps_u + G (eps_c - eps_u); 1 if it is left away")
                .allow_negative_numbers(true)
                .value_parser(value_parser!(f64)),
        )
        .arg(
            value("class", "K", "The class of all pictures, from 0; one class after the other if it is left away")
                .allow_negative_numbers(true)
                .value_parser(value_parser!(i64)),
        )
        .arg(
            value("noise", "I.safetensors", "x_T [N, C, H, W] and z [S, N, C, H, W] to draw from")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(value("output", "O.safetensors", "Where x_0 of --noise goes").value_parser(value_parser!(PathBuf)))
        .arg(
            Arg::new("trajectory")
                .long("trajectory")
                .action(ArgAction::SetTrue)
                .help("With --noise: x.1, x.2, … after each step, too"),
        )
        .arg(
            Arg::new("interpolate")
                .long("interpolate")
                .action(ArgAction::SetTrue)
                .conflicts_with("noise")
                .help("Pictures between two given ones"),
        )
        .arg(
            Arg::new("inpaint")
                .long("inpaint")
                .action(ArgAction::SetTrue)
                .conflicts_with_all(["noise", "interpolate"])
                .requires("mask")
                .help("Paint given pictures anew where --mask is white"),
        )
        .arg(
            value("mask", "M.png", "Of --inpaint: white where something is to be painted")
                .value_parser(value_parser!(PathBuf))
                .requires("inpaint"),
        )
        .arg(
            Arg::new("raw")
                .long("raw")
                .action(ArgAction::SetTrue)
                .help("Of a run take the weights of the last step, and not their averages"),
        )
}

/// `sample --weights W --out DIR` writes `grid.png`, `animation.png` and `pictures/000000.png`, …; those that are there already are kept, so that
/// a command that was cut off goes on. With `--noise` it takes and gives tensors.
///
/// # Errors
/// Settings that do not fit the model; weights that cannot be read; numbers that become infinite; a folder that cannot be written.
pub fn sample(asked: &Asked<Config>) -> Result<Vec<Answer>> {
    let retouches = ["interpolate", "inpaint"].iter().any(|flag| asked.flags.get_flag(flag));
    if let Some(word) = asked.words.first().filter(|_| !retouches) {
        return Err(user!("{} is not understood here: sample --config C --weights W --out DIR", word.display()));
    }
    let (Some(config), Some(setup)) = (asked.config, asked.setup) else {
        return Err(user!("--config FILE is missing: it names the network; or give the folder of a run to --weights"));
    };
    let path = asked.weights.as_deref().ok_or_else(|| user!("--weights W is missing: a run, or a file of weights"))?;
    let (given, averaged) = given(path, asked.flags.get_flag("raw"))?;
    let sampler = sampler(config, asked)?;
    let guidance = asked.flags.get_one::<f64>("guidance").copied().unwrap_or(1.0);
    let class = asked.flags.get_one::<i64>("class").copied();
    check_class(config, guidance, class)?;
    let loaded = Loaded::of(config, &given, setup)?;
    let (shape, process) = (config.shape()?, config.process());
    let draw = Draw {
        process: &process,
        model: &loaded.model,
        sampler: &sampler,
        shape: &shape,
        setup,
        null: config.null_class(),
        guidance,
        kind: loaded.kind,
    };
    if let Some(noise) = asked.flags.get_one::<PathBuf>("noise") {
        return from_noise(asked, &draw, noise, class, loaded.kind);
    }
    if config.is_toy() {
        return Err(user!(
            "{} makes points, no pictures: `train` draws them; --noise gives tensors",
            config.model.name
        ));
    }
    let out = asked.out.clone().ok_or_else(|| user!("--out DIR is missing: where the pictures go"))?;
    if retouches {
        return retouched(asked, &draw, &mut Photos::new(config)?, &out);
    }
    let n = asked.flags.get_one::<u64>("n").copied().unwrap_or(PICTURES);
    let said = json!({
        "weights_sha256": weights::hash(&given)?, "averaged": averaged, "sampler": sampler.name(), "seed": setup.settings.seed,
        "guidance": guidance, "class": class,
    });
    claim(&out, &said)?;
    let (pictures, seconds) = write(&draw, n, class, &out)?;
    let which = if averaged { ", by the averages of the weights (--raw takes those of the last step)" } else { "" };
    let lines = vec![format!("{n} pictures in {}{which}", out.join("pictures").display())];
    Ok(vec![Answer {
        input: path.to_owned(),
        lines,
        json: json!({ "n": n, "out": out, "seconds": seconds, "settings": said }),
        pictures,
        error: None,
    }])
}

/// `--interpolate A B`, `--inpaint --mask M PHOTO…`.
fn retouched(asked: &Asked<Config>, draw: &Draw, photos: &mut Photos, out: &Path) -> Result<Vec<Answer>> {
    files::create_folder(out)?;
    let picture = match asked.flags.get_one::<PathBuf>("mask") {
        Some(mask) => retouch::inpaint(draw, photos, &asked.words, mask, out)?,
        None => retouch::interpolate(draw, photos, &asked.words, out)?,
    };
    let input = asked.words.first().cloned().unwrap_or_default();
    Ok(vec![Answer { input, lines: Vec::new(), json: json!({}), pictures: vec![picture], error: None }])
}

/// The weights, of a run their averages where it has some and `raw` does not say otherwise; and whether it is these.
fn given(path: &Path, raw: bool) -> Result<(Named, bool)> {
    let averages = Some(path.join(weights::file_name(None, true))).filter(|file| !raw && file.is_file());
    let (given, _) = weights::load(averages.as_deref().unwrap_or(path))?;
    Ok((renamed(given), averages.is_some()))
}

/// The configuration's sampler with what the command line says instead; of another kind, that kind's own numbers.
fn sampler(config: &Config, asked: &Asked<Config>) -> Result<SamplerConfig> {
    let mut sampler = config.sampler.clone();
    if let Some(kind) = asked.flags.get_one::<String>("sampler") {
        let known = serde_json::from_value(json!(kind))
            .map_err(|_| user!("--sampler is {kind}; it must be ddpm, ddim or dpm++"))?;
        sampler = sampler.turned(known);
    }
    if let Some(&steps) = asked.flags.get_one::<u64>("steps") {
        sampler.steps = Some(steps as usize);
    }
    if let Some(&eta) = asked.flags.get_one::<f64>("eta") {
        sampler.eta = Some(eta);
    }
    match &sampler.problems(config.diffusion.steps, config.diffusion.variance)[..] {
        [] => Ok(sampler),
        [(key, message), ..] => Err(user!("--{key} {message}")),
    }
}

/// Refuses classes and guidance that the network cannot be told.
fn check_class(config: &Config, guidance: f64, class: Option<i64>) -> Result<()> {
    let known = config.null_class();
    match (class, known) {
        (Some(_), None) => {
            return Err(user!("--class cannot act: this network is told no classes (model.class_dropout)"));
        }
        (Some(class), Some(k)) if !(0..k).contains(&class) => {
            return Err(user!("--class is {class}; it must be from 0 to {}", k - 1));
        }
        _ => {}
    }
    if !guidance.is_finite() {
        return Err(user!("--guidance is {guidance}; it must be a number, such as 3"));
    }
    if guidance != 1.0 && !config.model.class_dropout.is_some_and(|share| share > 0.0) {
        return Err(user!(
            "--guidance cannot act: this network never learned without classes (model.class_dropout above 0), so it has no null class"
        ));
    }
    Ok(())
}

/// A network with given weights.
struct Loaded {
    model: Model,
    kind: Kind,
    _store: nn::VarStore,
}

impl Loaded {
    fn of(config: &Config, given: &Named, setup: &Setup) -> Result<Self> {
        let mut store = nn::VarStore::new(setup.device);
        let model = Model::new(&store.root(), config)?;
        let kind = if given.values().any(|tensor| tensor.kind() == Kind::Double) { Kind::Double } else { Kind::Float };
        if kind == Kind::Double {
            store.double();
        }
        Load::of("the weights file").copy(&store.variables().into_iter().collect(), given)?;
        repro::nn::kernels_channels_last(&store)?;
        Ok(Loaded { model, kind, _store: store })
    }
}

/// `--noise I --output O`.
fn from_noise(asked: &Asked<Config>, draw: &Draw, input: &Path, class: Option<i64>, kind: Kind) -> Result<Vec<Answer>> {
    let output = asked
        .flags
        .get_one::<PathBuf>("output")
        .ok_or_else(|| user!("--output O.safetensors is missing: where x_0 goes"))?;
    let (given, _) = weights::read(input)?;
    let fail = |why: String| user!("{}: {why}", input.display());
    if let Some(name) = given.keys().find(|name| !["x_T", "z"].contains(&name.as_str())) {
        return Err(fail(format!("tensor {name} is not known; give x_T and, where noise is drawn on the way, z")));
    }
    let x = given.get("x_T").ok_or_else(|| fail("has no tensor named x_T".into()))?;
    let size = x.size();
    if size.len() != draw.shape.len() + 1 || size[0] < 1 || size[1..] != *draw.shape || x.kind() != kind {
        return Err(fail(format!("x_T is {:?} of {size:?}; it must be {kind:?} of [N, {:?}]", x.kind(), draw.shape)));
    }
    let steps = draw.sampler.length(draw.process.schedule.len());
    let whole = [&[steps as i64][..], &size].concat();
    if x.isfinite().all().f_int64_value(&[])? != 1 {
        return Err(fail("x_T has numbers that are not finite".into()));
    }
    let z = given.get("z");
    if let Some(z) = z.filter(|z| z.size() != whole || z.kind() != kind) {
        return Err(fail(format!(
            "z is {:?} of {:?}; it must be {kind:?} of {whole:?}, an entry for each step",
            z.kind(),
            z.size()
        )));
    }
    let classes = class
        .map(|class| vec![class; size[0] as usize])
        .or_else(|| draw.null.map(|k| (0..size[0]).map(|n| n % k).collect()));
    let mut told = Named::new();
    let trajectory = asked.flags.get_flag("trajectory");
    let x = x.f_to_device(draw.setup.device)?;
    let bar = bar(steps as u64);
    let last = draw.from(
        &x,
        classes.as_deref(),
        &mut |step| {
            let z = z.ok_or_else(|| fail(format!("has no tensor named z, and step {step} draws noise")))?;
            Ok(z.f_get(step as i64 - 1)?.f_to_device(draw.setup.device)?)
        },
        &mut |step, x, _| {
            bar.inc(1);
            if trajectory {
                told.insert(format!("x.{step}"), x.f_to_device(Device::Cpu)?);
            }
            Ok(())
        },
    )?;
    bar.finish_and_clear();
    told.insert("x_0".into(), last.f_to_device(Device::Cpu)?);
    weights::write(output, &told, None)?;
    let lines = vec![format!("{} tensors in {}", told.len(), output.display())];
    Ok(vec![Answer {
        input: input.to_owned(),
        lines,
        json: json!({ "written": output }),
        pictures: Vec::new(),
        error: None,
    }])
}

/// Takes a folder for pictures of these settings: a new one, or one that was begun with the same.
fn claim(out: &Path, said: &Value) -> Result<()> {
    let book = out.join("sample.json");
    match std::fs::read_to_string(&book) {
        Ok(text) => {
            let before: Value = serde_json::from_str(&text)
                .map_err(|e| user!("{} is damaged: {e}; remove it or choose another --out", book.display()))?;
            let other: Vec<_> = said
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(key, value)| before.get(key.as_str()) != Some(value))
                .collect();
            match other.first() {
                None => Ok(()),
                Some((key, value)) => Err(user!(
                    "{} has pictures of other settings: {key} was {}, and is {value} here; choose another --out, or remove that folder",
                    out.display(),
                    before.get(key.as_str()).unwrap_or(&Value::Null)
                )),
            }
        }
        Err(_) => {
            files::create_folder(&out.join("pictures"))?;
            files::write_atomic(&book, &[serde_json::to_string_pretty(said).unwrap_or_default().as_bytes()])
        }
    }
}

fn bar(steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} step {pos} of {len}, {eta} left");
    ProgressBar::new(steps).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Single pictures, then the grid and the animation of the first of them; and how long drawing took.
fn write(draw: &Draw, n: u64, class: Option<i64>, out: &Path) -> Result<(Vec<PathBuf>, f64)> {
    let file = |place: u64| out.join("pictures").join(format!("{place:06}.png"));
    let animation = out.join("animation.png");
    let steps = draw.sampler.length(draw.process.schedule.len());
    let missing: Vec<u64> = (0..n)
        .step_by(AT_ONCE as usize)
        .filter(|&first| (first..(first + AT_ONCE).min(n)).any(|place| !file(place).is_file()))
        .collect();
    let bar = bar(missing.len() as u64 * steps as u64);
    let shown = evenly(steps, FRAMES);
    let scale = scale_of(draw.shape);
    let (mut frames, mut seconds) = (Vec::new(), 0.0);
    let animated = ANIMATED.min(n);
    let frame = |x: &Tensor| figures::grid(&pixels(&x.narrow(0, 0, animated as i64))?, 4, scale, &[]);
    for first in missing {
        let end = (first + AT_ONCE).min(n);
        let classes = class.map(|class| vec![class; (end - first) as usize]);
        let clock = Instant::now();
        let x = draw.pictures(first..end, classes.as_deref(), &mut |step, x, _| {
            bar.inc(1);
            if first == 0 && shown.contains(&step) {
                frames.push(frame(x)?);
            }
            Ok(())
        })?;
        let x = pixels(&x)?;
        seconds += clock.elapsed().as_secs_f64();
        for place in first..end {
            figures::save(&figures::tile(&x.f_get((place - first) as i64)?)?, &file(place))?;
        }
    }
    bar.finish_and_clear();
    if !frames.is_empty() {
        figures::animation(&frames, MILLISECONDS, &animation)?;
    }
    let tiles = (0..n.min(GRID)).map(|place| {
        let path = file(place);
        image::open(&path)
            .map(|picture| picture.to_rgb8())
            .map_err(|e| user!("cannot read {}: {e}; remove it, and it is drawn again", path.display()))
    });
    let grid = out.join("grid.png");
    let columns = if n > 64 { 16 } else { 8 };
    figures::save(&figures::wall(&tiles.collect::<Result<Vec<_>>>()?, columns, scale, &[], &[], "")?, &grid)?;
    Ok(([grid].into_iter().chain(animation.is_file().then_some(animation)).collect(), seconds))
}

fn scale_of(shape: &[i64]) -> u32 {
    scale(&Tensor::zeros(shape, (Kind::Float, Device::Cpu)))
}

/// Each photo with more and more noise, and what the network thinks that it was.
///
/// # Errors
/// Weights that do not fit; those of reading and drawing.
pub fn predict(
    config: &Config,
    setup: &Setup,
    given: &Named,
    images: &[PathBuf],
    folder: &Path,
) -> Result<Vec<Answer>> {
    let mut photos = Photos::new(config)?;
    let loaded = Loaded::of(config, given, setup)?;
    let (process, channels) = (config.process(), config.shape()?[0]);
    answer::each(images, |path, stem| {
        let x0 = photos.read(path)?.f_to_kind(loaded.kind)?.f_to_device(setup.device)?;
        let steps = process.schedule.len();
        let times: Vec<usize> = [20, 10, 5, 3, 2].iter().map(|part| steps / part).collect();
        let at = Tensor::f_from_slice(&times.iter().map(|&t| t as i64).collect::<Vec<_>>())?;
        let many = x0.f_repeat([times.len() as i64, 1, 1, 1])?;
        tch::manual_seed(setup.settings.seed as i64);
        let x_t = process.noised(&many, &many.f_randn_like()?, &at)?;
        let null = config
            .null_class()
            .map(|k| Tensor::f_full([times.len() as i64], k, (Kind::Int64, setup.device)))
            .transpose()?;
        let said = tch::no_grad(|| loaded.model.forward(&x_t, &at, null.as_ref(), Mode::Eval))?;
        let told = process.told(&process.halves(&said, channels)?.0, &x_t, &at, true)?.x0;
        let rmse =
            (pixels(&told)? - pixels(&many)?).square().mean_dim([1_i64, 2, 3].as_slice(), false, Kind::Double).sqrt();
        let rmse = Vec::<f64>::try_from(rmse)?;
        let drawn = folder.join(format!("{stem}-told.png"));
        let all = Tensor::f_cat(&[pixels(&x0)?, pixels(&x_t)?, pixels(&x0)?, pixels(&told)?], 0)?;
        let title = format!("With noise at t = {times:?}, and what the network takes it for");
        figures::save(&figures::framed(&all, 1 + times.len() as u32, scale(&x0), &[], &[], &title)?, &drawn)?;
        let lines = times
            .iter()
            .zip(&rmse)
            .map(|(t, rmse)| format!("t = {t}: root of the mean squared error {rmse:.3}, a pixel being in [0, 1]"));
        let json = json!({ "t": times, "rmse": rmse });
        Ok(Answer { input: path.to_owned(), lines: lines.collect(), json, pictures: vec![drawn], error: None })
    })
}

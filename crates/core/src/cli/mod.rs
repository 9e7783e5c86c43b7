//! The command line that every paper's binary shares.

mod args;
mod given;
mod inspect;
mod place;
mod processes;
mod runs;
mod sweep;
mod train;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::{Device, nn};

use self::args::{Cli, Command, Common, ExtraArgs};
pub use self::given::own_config;
use crate::answer::{Answer, Look};
use crate::config::{self, Experiment, Findings, Settings};
use crate::setup::Setup;
use crate::trainer::{Plan, Signals, Stage};
use crate::weights::Named;
use crate::{Error, Result, data, user};

/// The command about pictures.
const PREDICT: &str = "predict";
/// Bytes of freed memory that the process keeps for its next tensors.
const KEPT: i32 = 1 << 30;

/// The command of papers whose model makes pictures.
pub const SAMPLE: &str = "sample";

/// What identifies a paper.
#[derive(Debug, Clone, Copy)]
pub struct Paper {
    /// The crate and its binary.
    pub name: &'static str,
    /// As printed.
    pub title: &'static str,
    /// First author and year.
    pub authors: &'static str,
}

/// Weights and pictures in, answers out; pictures it draws go into the folder. [`Setup::given`] has the weights' card.
pub type Predict<C> = fn(&C, &Setup, &Named, &[PathBuf], &Path) -> Result<Vec<Answer>>;

/// Tensors in, tensors out; the flag is training mode.
pub type Forward = Box<dyn Fn(&Named, bool) -> Result<Named>>;

/// A paper's program: what its `main.rs` hands to [`main`].
pub struct App<C> {
    /// Who it is.
    pub paper: Paper,
    /// Finds settings that cannot act or contradict each other.
    pub validate: fn(&C, &Settings) -> Findings,
    /// Whether the configuration leaves `model.num_classes` away, to be taken from the card of given weights or counted in a folder of photos.
    pub counts_classes: fn(&C) -> bool,
    /// Given weights by the names that they have here, where others write the same model in another form; what is in none of these forms stays.
    pub renamed: fn(&C, Named) -> Result<Named>,
    /// Training stages in their order.
    pub stages: fn(&C) -> Vec<Stage<C>>,
    /// Builds the model of a stage (by its name) into a store, for `forward`.
    pub model: fn(&C, &str, &nn::Path) -> Result<Forward>,
    /// For `predict`.
    pub predict: Predict<C>,
    /// One example of the inputs of a stage's model, of the size that it is made for: `summary` counts what it makes of it.
    pub example: fn(&C, &str) -> Result<Named>,
    /// A look at the training data of a stage ([`Setup::stage`]).
    pub look: fn(&C, &Setup) -> Result<Look>,
    /// What this paper alone can be asked.
    pub extras: Vec<Extra<C>>,
}

impl<C> App<C> {
    /// Whether the paper's model makes pictures, which are drawn with averages of the weights where there are some.
    pub(crate) fn makes_pictures(&self) -> bool {
        self.extras.iter().any(|extra| extra.name == SAMPLE)
    }
}

/// What a paper alone can be asked, with the flags that all commands share.
pub struct Extra<C> {
    /// As it is typed.
    pub name: &'static str,
    /// Whether it is typed `predict --NAME`, another answer about pictures, and not as a command of its own, such as `sample`.
    pub of_predict: bool,
    /// A line of help.
    pub about: &'static str,
    /// Adds the flags that it has beside the shared ones.
    pub flags: fn(clap::Command) -> clap::Command,
    /// Does it. It gives no answers where it has said all that there is ([`say_json`]).
    pub run: fn(&Asked<C>) -> Result<Vec<Answer>>,
}

/// What a command of a paper's own was asked.
pub struct Asked<'a, C> {
    /// The experiment, where `--config` or the run of `--weights` names one.
    pub config: Option<&'a C>,
    /// Likewise: settings, device.
    pub setup: Option<&'a Setup>,
    /// What `--weights` names.
    pub weights: Option<PathBuf>,
    /// Where results go (`--out`).
    pub out: Option<PathBuf>,
    /// Words that are no overrides.
    pub words: Vec<PathBuf>,
    /// Its own flags.
    pub flags: &'a clap::ArgMatches,
}

/// Runs the program and returns its exit code.
pub fn main<C: DeserializeOwned>(app: App<C>) -> ExitCode {
    // A panic is a bug in this program; its message is kept for the one line that the user sees.
    std::panic::set_hook(Box::new(|_| {}));
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&app)));
    let error = match done {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(error)) => error,
        Err(panic) => internal(panic),
    };
    if !matches!(error, Error::Interrupted(_)) {
        let _ = writeln!(std::io::stderr(), "error: {error}");
    }
    ExitCode::from(error.exit_code())
}

/// A panic as an error: the one that it carries, or else the first line of what it said.
fn internal(panic: Box<dyn std::any::Any + Send>) -> Error {
    let panic = match panic.downcast::<Error>() {
        Ok(error) => return *error,
        Err(panic) => panic,
    };
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    Error::Failed(format!("internal error: {}", text.unwrap_or("unknown").lines().next().unwrap_or_default()))
}

fn run<C: DeserializeOwned>(app: &App<C>) -> Result<()> {
    Signals::keep_size_limit_from_killing()?;
    processes::end_with_parent()?;
    let about = format!("{} ({})", app.paper.title, app.paper.authors);
    let mut command = Cli::command().name(app.paper.name).about(about);
    let (answers, commands): (Vec<_>, Vec<_>) = app.extras.iter().partition(|extra| extra.of_predict);
    for extra in &answers {
        let flag = clap::Arg::new(extra.name).long(extra.name).help(extra.about).action(clap::ArgAction::SetTrue);
        command = command.mut_subcommand(PREDICT, |predict| (extra.flags)(predict.arg(flag)));
    }
    for extra in &commands {
        let own = ExtraArgs::augment_args(clap::Command::new(extra.name)).about(extra.about);
        command = command.subcommand((extra.flags)(own));
    }
    let named: Vec<_> = commands.iter().map(|extra| extra.name).collect();
    let words = args::with_default_command(std::env::args_os().collect(), &named);
    let matches = command.try_get_matches_from(words).unwrap_or_else(|error| error.exit());
    if let Some((name, flags)) = matches.subcommand() {
        let command = commands.iter().find(|extra| extra.name == name);
        let answer = answers.iter().find(|extra| name == PREDICT && flags.get_flag(extra.name));
        if let Some(extra) = command.or(answer) {
            return inspect::extra(app, extra, flags);
        }
    }
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match cli.command {
        Command::Train(args) => train::train(app, &args),
        Command::Eval(args) => inspect::eval(app, &args),
        Command::Forward(args) => inspect::forward(app, &args),
        Command::Predict(args) => inspect::predict(app, &args),
        Command::Bench(args) => inspect::bench(app, &args),
        Command::Summary(args) => inspect::summary(app, &args),
        Command::Data(args) => inspect::data(app, &args),
        Command::Shards(args) => inspect::shards(app, &args),
        Command::Verify(args) => runs::verify(app, &args),
        Command::Runs(args) => runs::table(app, &args),
    }
}

/// Prints to stdout; a reader that has gone away (`| head`) is no error.
fn say(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Says on stderr what the reader of the answer must know: the answer may be JSON.
pub fn note(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "note: {text}");
}

/// Prints a value to stdout, a line of JSON: for a command of a paper's own whose answer is of no file, and which then returns none.
///
/// # Errors
/// What JSON has no form for.
pub fn say_json(value: &impl Serialize) -> Result<()> {
    say(serde_json::to_string(value).map_err(|e| Error::Failed(format!("cannot print JSON: {e}")))?);
    Ok(())
}

/// The experiment of `--config` with its overrides, validated. `None` if `--print-config` has answered already.
fn experiment<C: DeserializeOwned>(app: &App<C>, common: &Common) -> Result<Option<Experiment<C>>> {
    let file = common.config.as_deref().ok_or_else(|| no_config(app))?;
    if common.print_config {
        return print_config(app, file, &common.overrides()).map(|()| None);
    }
    load(app, file, &common.overrides()).map(Some)
}

fn no_config<C>(app: &App<C>) -> Error {
    user!("--config FILE is missing; the files are in experiments/{}/", app.paper.name)
}

/// Prints what a file and overrides come to, reading no data: classes are not counted.
fn print_config<C: DeserializeOwned>(app: &App<C>, file: &Path, overrides: &[String]) -> Result<()> {
    let experiment = checked(app, config::load(file, overrides)?)?;
    say(experiment.resolved.with_origins().trim_end());
    Ok(())
}

/// The stage that is asked for, or the first, and its place.
fn named_stage<C>(app: &App<C>, experiment: &Experiment<C>, name: Option<&str>) -> Result<(Stage<C>, usize)> {
    let mut stages = (app.stages)(&experiment.paper);
    let names: Vec<String> = stages.iter().map(|stage| stage.name.clone()).collect();
    let place = name.map_or(Some(0), |name| names.iter().position(|known| known == name));
    let Some(place) = place.filter(|&place| place < stages.len()) else {
        return Err(no_stage(app, name.unwrap_or_default(), &names));
    };
    Ok((stages.swap_remove(place), place))
}

/// The same with its surroundings.
fn stage_of<C>(app: &App<C>, experiment: &Experiment<C>, name: Option<&str>) -> Result<(Stage<C>, Plan, Setup)> {
    let (stage, place) = named_stage(app, experiment, name)?;
    let plan = (stage.plan)(&experiment.paper, &experiment.settings);
    let setup = setup(&experiment.settings)?.for_stage(&stage.name, place > 0, plan.length, plan.batch_size);
    Ok((stage, plan, setup))
}

/// The stage whose weights the one at `place` is given.
fn giver<C>(stages: &[Stage<C>], place: usize) -> Option<&str> {
    stages[place].after.or_else(|| Some(stages[place.checked_sub(1)?].name.as_str()))
}

/// A word of `train` that is neither an override nor one of the stages, if they are known.
fn unknown_word<C>(app: &App<C>, word: &str, stages: &[String]) -> Error {
    let commands: Vec<&str> = args::COMMANDS
        .into_iter()
        .chain(app.extras.iter().filter(|extra| !extra.of_predict).map(|extra| extra.name))
        .collect();
    let known: Vec<&str> = commands.iter().copied().chain(stages.iter().map(String::as_str)).collect();
    let meant = config::nearest(word, &known).map(|name| format!("did you mean {name}? ")).unwrap_or_default();
    let stages = match stages {
        [] => "a stage that its --config has".to_string(),
        stages => format!("a stage, here {}", stages.join(", ")),
    };
    user!(
        "{word:?} is neither a command nor key=value: {meant}commands: {}; a word behind train is {stages}; overrides are written key=value, \
         such as seed=1",
        commands.join(", ")
    )
}

fn no_stage<C>(app: &App<C>, name: &str, known: &[String]) -> Error {
    user!("there is no stage {name:?}; {} has {}; overrides are written key=value", app.paper.name, known.join(", "))
}

/// The name of a stage in files and metrics: none for the first.
fn later<'a, C>(app: &App<C>, experiment: &Experiment<C>, stage: &'a str) -> Option<&'a str> {
    (app.stages)(&experiment.paper).first().is_some_and(|first| first.name != stage).then_some(stage)
}

/// Metrics under the name that they have in result.json.
fn prefixed(metrics: BTreeMap<String, f64>, later: Option<&str>) -> BTreeMap<String, f64> {
    match later {
        Some(stage) => metrics.into_iter().map(|(name, value)| (format!("{stage}/{name}"), value)).collect(),
        None => metrics,
    }
}

/// Loads and validates a config file.
fn load<C: DeserializeOwned>(app: &App<C>, file: &Path, overrides: &[String]) -> Result<Experiment<C>> {
    checked(app, counted(app, config::load(file, overrides)?, overrides, None)?)
}

/// The same experiment with its number of classes, where it leaves that to the card of given weights or to its folder of photos.
fn counted<C: DeserializeOwned>(
    app: &App<C>,
    experiment: Experiment<C>,
    overrides: &[String],
    card: Option<&str>,
) -> Result<Experiment<C>> {
    if !(app.counts_classes)(&experiment.paper) {
        return Ok(experiment);
    }
    let classes = match card.and_then(data::classes_on) {
        Some(classes) => classes,
        None => data::count_classes(&experiment.settings.data)?,
    };
    config::load(&experiment.file, &[overrides, &[format!("model.num_classes={classes}")]].concat())
}

fn checked<C>(app: &App<C>, experiment: Experiment<C>) -> Result<Experiment<C>> {
    let mut found = (app.validate)(&experiment.paper, &experiment.settings);
    let acts = app.makes_pictures() || experiment.settings.eval.samples.is_none();
    found.must(acts, "eval.samples", format!("cannot act: {} makes no pictures; leave the key away", app.paper.name));
    experiment.check(found.list())?;
    Ok(experiment)
}

/// The stem of the config's file name; of a run's own `config.yaml`, what `result.json` says.
fn config_name(file: &Path) -> String {
    let folder = file.parent().unwrap_or(Path::new("."));
    match crate::trainer::run::read_result(folder) {
        Ok(result) if file.ends_with("config.yaml") => result.config,
        _ => file.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
    }
}

/// Starts libtorch as the settings ask: threads and device.
fn setup(settings: &Settings) -> Result<Setup> {
    torch_ext::keep_freed_memory(KEPT);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    if let Some(threads) = settings.compute.threads {
        if threads > 4 * cores {
            return Err(user!(
                "compute.threads is {threads}, but this machine has {cores} processors: so many threads wait for each other for ever; choose at most {cores}"
            ));
        }
        tch::set_num_threads(threads as i32);
    }
    Setup::new(settings.clone(), device_of(settings)?)
}

/// The number of the card that `cuda` or `cuda:<index>` names to the process of this number on its machine.
fn card(device: &str, local_rank: usize) -> Option<usize> {
    match device.strip_prefix("cuda")? {
        "" => Some(local_rank),
        rest => rest.strip_prefix(':')?.parse().ok(),
    }
}

/// The device that the settings name, if this machine has it.
fn device_of(settings: &Settings) -> Result<Device> {
    Ok(match settings.compute.device.as_str() {
        "cpu" => Device::Cpu,
        "auto" => match torch_ext::load_cuda() {
            Ok(()) if tch::Cuda::is_available() => Device::Cuda(processes::local_rank()),
            _ => Device::Cpu,
        },
        other => {
            let index = card(other, processes::local_rank())
                .ok_or_else(|| user!("compute.device is {other:?}; use auto, cpu, cuda or cuda:<index>"))?;
            torch_ext::load_cuda().map_err(|why| {
                user!("compute.device is {other}, but CUDA is not available: {why}; use --device cpu")
            })?;
            let count = tch::Cuda::device_count() as usize;
            if index >= count {
                return Err(user!(
                    "compute.device is {other}, but this machine has {count} CUDA device(s); use --device cpu or a smaller index"
                ));
            }
            Device::Cuda(index)
        }
    })
}

fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(i) => format!("cuda:{i}"),
        _ => "cpu".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_local_rank_picks_the_card_unless_one_is_named() {
        assert_eq!(card("cuda", 0), Some(0));
        assert_eq!(card("cuda", 3), Some(3));
        assert_eq!(card("cuda:1", 3), Some(1));
        assert_eq!((card("cuda:x", 3), card("cudax", 0), card("tpu", 0)), (None, None, None));
    }
}

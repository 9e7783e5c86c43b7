//! What can be typed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::{Result, user};

#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    after_help = "Keys are set as key=value: optim.base_lr=0.5 seed=1 data=fashion_mnist.\nExit codes: 0 done, 2 your input is wrong, 1 any other failure, 130/143 interrupted (saved)."
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Train all stages of the config (or one), then evaluate on the test split. The default command
    Train(TrainArgs),
    /// Evaluate given weights on the test split
    Eval(EvalArgs),
    /// Tensors in, tensors out: hold the model against any other implementation
    Forward(ForwardArgs),
    /// Pictures in, answers out
    ///
    /// Words that are no overrides are photos (JPEG, PNG, WebP, BMP), or folders: of a folder all photos in it and in the folders in it, in the
    /// order of their paths. A word that names an existing file or folder is that, even with a `=` in it, and all words behind `--` are.
    /// A photo that cannot be read is answered by why, the others get their answers, and the exit code is 2.
    Predict(PredictArgs),
    /// Measure the speed of the training step, as JSON
    Bench(BenchArgs),
    /// Layer table: output shape, parameters, multiply-adds
    Summary(SummaryArgs),
    /// Draw training pictures after augmentation; count classes; mean and deviation
    Data(DataArgs),
    /// Write a folder of photos as tar shards in WebDataset's layout
    Shards(ShardsArgs),
    /// Evaluate a finished run again: do number, data hash and weight hash hold?
    Verify(VerifyArgs),
    /// Table of this paper's runs
    Runs(RunsArgs),
}

#[derive(Debug, Args)]
pub(super) struct Common {
    /// The experiment; with --weights of a run, that run's own configuration if it is left away
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// auto, cpu, cuda or cuda:<index>; short for compute.device=…
    #[arg(long)]
    pub(super) device: Option<String>,
    /// Print the resolved configuration with the origin of each value, and stop
    #[arg(long)]
    pub(super) print_config: bool,
    /// Print the result as one JSON line, last on stdout
    #[arg(long)]
    pub(super) json: bool,
    /// No progress on the terminal
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Tell the whole configuration and its origins before training
    #[arg(short, long)]
    pub(super) verbose: bool,
    /// Overrides of the configuration
    #[arg(value_name = "KEY=VALUE")]
    pub(super) words: Vec<String>,
}

impl Common {
    /// Refuses words that are no overrides, for commands that take nothing else.
    pub(super) fn only_overrides(&self) -> Result<()> {
        match self.words.iter().find(|w| !w.contains('=')) {
            None => Ok(()),
            Some(word) => Err(user!("{word:?} is not understood here; overrides are written key=value")),
        }
    }

    /// The `key=value` words, and `--device`.
    pub(super) fn overrides(&self) -> Vec<String> {
        self.with_device(self.words.iter().filter(|w| w.contains('=')).cloned())
    }

    /// For commands that take paths: the overrides, and the paths, to which `behind` belong. What exists is a path, whatever its name.
    pub(super) fn overrides_and_paths(&self, behind: &[PathBuf]) -> (Vec<String>, Vec<PathBuf>) {
        let (overrides, paths): (Vec<_>, Vec<_>) =
            self.words.iter().cloned().partition(|word| word.contains('=') && !Path::new(word).exists());
        let paths = paths.into_iter().map(PathBuf::from).chain(behind.iter().cloned());
        (self.with_device(overrides.into_iter()), paths.collect())
    }

    fn with_device(&self, overrides: impl Iterator<Item = String>) -> Vec<String> {
        overrides.chain(self.device.iter().map(|d| format!("compute.device={d}"))).collect()
    }
}

#[derive(Debug, Args)]
pub(super) struct TrainArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// This stage alone; also as a word: `train probe`
    #[arg(long, value_name = "NAME")]
    pub(super) stage: Option<String>,
    /// The run folder itself; with --sweep its parent
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Go on with an unfinished run: the given one, the one in --out (or begin it there), or the newest of this config
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["dry_run", "sweep"])]
    pub(super) resume: Option<String>,
    /// One step of training and an evaluation in a temporary folder
    #[arg(long, conflicts_with = "sweep")]
    pub(super) dry_run: bool,
    /// One run for each value; repeatable (cross product); finished runs are skipped
    #[arg(long, value_name = "KEY=A,B,C")]
    pub(super) sweep: Vec<String>,
    /// Start this many local processes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1024), conflicts_with = "sweep")]
    pub(super) processes: u64,
    /// Weights to begin with: a run folder (of a later stage those of the stage before it), a .safetensors file, or
    /// hf:owner/name[@revision][/FILE] of the Hugging Face hub
    #[arg(long, value_name = "RUN")]
    pub(super) init: Option<PathBuf>,
}

impl TrainArgs {
    /// The one stage that is asked for.
    pub(super) fn only(&self) -> Option<&str> {
        let word = self.common.words.iter().find(|w| !w.contains('=')).map(String::as_str);
        self.stage.as_deref().or(word)
    }
}

/// What the commands of a paper's own share.
#[derive(Debug, Args)]
pub(super) struct ExtraArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// A .safetensors file, a run folder, hf:owner/name[@revision][/FILE] of the Hugging Face hub, or what else the command reads
    #[arg(long, value_name = "W")]
    pub(super) weights: Option<PathBuf>,
    /// Where results go
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Files and folders, whatever their names
    #[arg(last = true, value_name = "PATH")]
    pub(super) paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct EvalArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// The stage whose weights these are; the first by default
    #[arg(long, value_name = "NAME")]
    pub(super) stage: Option<String>,
    /// A .safetensors file, a run folder, or hf:owner/name[@revision][/FILE] of the Hugging Face hub
    #[arg(long, value_name = "W")]
    pub(super) weights: PathBuf,
    /// Write what is found in the photos here, in COCO's results format; of papers that find objects
    #[arg(long, value_name = "FILE")]
    pub(super) detections: Option<PathBuf>,
    /// Of papers that make pictures: take a run's weights of the last step, and not their averages
    #[arg(long)]
    pub(super) raw: bool,
}

#[derive(Debug, Args)]
pub(super) struct ForwardArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// The stage that is meant; the first by default
    #[arg(long, value_name = "NAME")]
    pub(super) stage: Option<String>,
    /// A .safetensors file, a run folder, or hf:owner/name[@revision][/FILE] of the Hugging Face hub
    #[arg(long, value_name = "W")]
    pub(super) weights: PathBuf,
    /// Tensors by name, preprocessed
    #[arg(long, value_name = "I.safetensors")]
    pub(super) input: PathBuf,
    /// Where the outputs go
    #[arg(long, value_name = "O.safetensors")]
    pub(super) output: PathBuf,
    /// Training mode
    #[arg(long)]
    pub(super) train: bool,
    /// Add `grad.<name>` of the loss for every parameter
    #[arg(long)]
    pub(super) grad: bool,
    /// Add `attention.<block>`: the weights of each attention, [N, heads, L, L]
    #[arg(long)]
    pub(super) attention: bool,
    /// Add `tap.<layer>`: what left that layer or block; repeatable, `*` stands for anything
    #[arg(long, value_name = "NAME")]
    pub(super) tap: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct PredictArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// A .safetensors file, a run folder, or hf:owner/name[@revision][/FILE] of the Hugging Face hub
    #[arg(long, value_name = "W")]
    pub(super) weights: PathBuf,
    /// Where pictures are drawn
    #[arg(long, value_name = "DIR", default_value = "predictions")]
    pub(super) out: PathBuf,
    /// Photos and folders of photos, whatever their names; without a `=` in it, a name may also stand before the `--`
    #[arg(last = true, value_name = "IMAGE")]
    pub(super) paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct SummaryArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// The stage that is meant; the first by default
    #[arg(long, value_name = "NAME")]
    pub(super) stage: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// The stage that is meant; the first by default
    #[arg(long, value_name = "NAME")]
    pub(super) stage: Option<String>,
    /// Steps to time, after one that warms up
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) steps: u64,
}

#[derive(Debug, Args)]
pub(super) struct DataArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// The stage that is meant; the first by default
    #[arg(long, value_name = "NAME")]
    pub(super) stage: Option<String>,
    /// Where the grid is drawn
    #[arg(long, value_name = "FILE.png", default_value = "data.png")]
    pub(super) out: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct ShardsArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// Where the shards go; without shards so far
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
    /// A shard ends with the picture that takes it to so many bytes
    #[arg(long, value_name = "BYTES", default_value_t = 300_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) size: u64,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// A finished run's folder
    pub(super) run: PathBuf,
    /// This stage alone; all that are done by default
    #[arg(long, value_name = "NAME")]
    pub(super) stage: Option<String>,
    /// auto, cpu, cuda or cuda:<index>
    #[arg(long)]
    pub(super) device: Option<String>,
    /// Print the findings as one JSON line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RunsArgs {
    /// Print one JSON line a run
    #[arg(long)]
    pub(super) json: bool,
}

/// The commands of every paper.
pub(super) const COMMANDS: [&str; 10] =
    ["train", "eval", "forward", "predict", "bench", "summary", "data", "shards", "verify", "runs"];

/// Puts `train` in front where no command is named; `own` are the paper's own.
pub(super) fn with_default_command(mut words: Vec<OsString>, own: &[&str]) -> Vec<OsString> {
    const ABOUT: [&str; 5] = ["help", "--help", "-h", "--version", "-V"];
    let known = |w: &str| COMMANDS.contains(&w) || ABOUT.contains(&w) || own.contains(&w);
    let named = words.get(1).and_then(|w| w.to_str()).is_none_or(known);
    if !named {
        words.insert(1, "train".into());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Cli {
        Cli::parse_from(with_default_command(line.split(' ').map(Into::into).collect(), &[]))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn train_is_the_default_command_and_words_are_overrides() {
        let Command::Train(args) = parse("lenet --config a.yaml seed=1 optim.base_lr=0.5 --device cpu").command else {
            panic!()
        };
        assert_eq!(args.common.overrides(), ["seed=1", "optim.base_lr=0.5", "compute.device=cpu"]);
        assert_eq!(args.resume, None);
        let Command::Train(args) = parse("lenet --resume --config a.yaml").command else { panic!() };
        assert_eq!(args.resume.as_deref(), Some(""));
        assert!(matches!(parse("lenet runs").command, Command::Runs(_)));
    }
}

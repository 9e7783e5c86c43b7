//! The keys that every paper spells alike. What a paper fixes has no default: a missing key is refused.

use serde::Deserialize;

use super::length::{Every, Length, Limit};

/// What all papers share; every other top-level key belongs to the paper's own configuration.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Settings {
    /// Source of all randomness: order, augmentation, initialisation, dropout.
    pub seed: u64,
    /// Length of the first stage's training, at least one step.
    pub length: Length,
    /// Examples per update over all processes together (the global batch), at least 1.
    pub batch_size: u64,
    /// Wall clock for the whole command; then a checkpoint is written and the run ends as interrupted. `None`: no limit.
    pub limit: Option<Limit>,
    /// The data set.
    pub data: DataConfig,
    /// Device and arithmetic.
    pub compute: Compute,
    /// Progress and metrics.
    pub log: Log,
    /// Evaluation while training.
    pub eval: EvalConfig,
    /// What a resumed run starts from.
    pub checkpoint: CheckpointConfig,
    /// How weights of another run or of another model (`--init`) are taken over. `None`: as they are, but for a classifier of another
    /// number of classes.
    pub init: Option<InitConfig>,
    /// Parts of the model that do not learn, by the first segments of their names in the state dict: `layer1`, `layer2.0.conv1`. Norms
    /// among them keep their statistics. `None`: everything learns.
    pub freeze: Option<Vec<String>>,
    /// The published number that this row stands for. `None`: none.
    pub paper: Option<Claim>,
}

/// Which data, and how much of it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct DataConfig {
    /// The set: `mnist`, `fashion_mnist`, `synthetic`, ….
    pub name: String,
    /// Folder that holds the set. `None`: the user's data folder.
    pub root: Option<String>,
    /// Threads that decode. `None`: as many as the machine has.
    pub workers: Option<u64>,
    /// Training examples that are held out to choose by, the last N of a fixed permutation; at least 1. `None`: none.
    pub validation: Option<u64>,
    /// Only the first N training examples of a fixed permutation, the same for every seed; at least 1. `None`: all.
    pub limit_train: Option<u64>,
    /// Whether `limit_train` takes as many of each class, as far as that divides and the set has them. `None`: no.
    pub balanced: Option<bool>,
    /// Only the first N test examples of a fixed permutation; at least 1. `None`: all.
    pub limit_test: Option<u64>,
    /// How often an epoch takes each example that it sees, each time with draws of its own (repeated augmentation); it has as many places as the
    /// set has examples, so that it sees one in so many. At least 1. `None`: 1.
    pub repeats: Option<u64>,
    /// Damaged examples that are skipped and listed before the run is refused. `None`: 0.
    pub max_bad: Option<u64>,
    /// Of photos with boxes in files (`coco`, `voc`, `yolo`): which of them are what split. `None`: as the set's authors name them.
    pub files: Option<SplitFiles>,
    /// How digits are strewn over the pictures of the set `canvases`. `None` for every other set.
    pub canvases: Option<CanvasConfig>,
}

/// Photos with boxes, split by split. A split that is not named is not there.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SplitFiles {
    /// To train on. `None`: nothing, where nothing is trained.
    pub train: Option<AnnotatedFiles>,
    /// Held out to choose by. `None`: nothing.
    pub validation: Option<AnnotatedFiles>,
    /// To test on.
    pub test: AnnotatedFiles,
}

/// Where the boxes and the photos of a split lie, below `data.root`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct AnnotatedFiles {
    /// `coco`: the JSON file. `voc`: the list of the photos' names, whose XML files are in `Annotations`. `yolo`: the folder of the labels.
    pub annotations: String,
    /// The folder of the photos.
    pub photos: String,
}

/// Digits strewn over black pictures.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct CanvasConfig {
    /// Pictures to train on, at least 1.
    pub train: u64,
    /// Pictures to test on, at least 1.
    pub test: u64,
    /// Fewest and most digits of a picture, from 1 on.
    pub objects: [u64; 2],
    /// Smallest and largest edge that a digit's 28 × 28 pixels are resized to, in pixels.
    pub size: [u64; 2],
}

/// Where and in which precision the run computes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Compute {
    /// `auto` (the first GPU if there is one), `cpu`, `cuda` or `cuda:<index>`.
    pub device: String,
    /// Arithmetic of the forward pass.
    pub precision: Precision,
    /// CPU threads within an operation, at least 1. `None`: libtorch's choice.
    pub threads: Option<u64>,
    /// Examples per forward pass and process; gradients are accumulated up to the batch. From 1 to `batch_size`. `None`: no accumulation.
    pub micro_batch: Option<u64>,
}

/// Arithmetic of the forward pass; weights and optimizer state stay in float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats throughout.
    F32,
    /// Autocast to bfloat16 where it is safe.
    Bf16,
}

/// Progress bar, metrics.jsonl and TensorBoard.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Log {
    /// How often scalars are read from the device and written; above 0.
    pub every: Length,
}

/// Evaluation while training; the one at the end always takes place.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct EvalConfig {
    /// How often.
    pub every: Every,
    /// How often what takes long is measured as well, such as FID; where it meets `every`. `None`: at the end only.
    pub full_every: Option<Every>,
    /// Of papers that make pictures: how many are made to be judged. `None`: the paper's configuration says whether that is wanted.
    pub samples: Option<u64>,
}

/// Checkpoints, from which a run resumes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct CheckpointConfig {
    /// How often.
    pub every: Every,
    /// How many of the newest are kept, at least 1.
    pub keep: u64,
}

/// How a run starts from given weights.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct InitConfig {
    /// What becomes of the classifier. `None`: it starts fresh where the weights are for another number of classes.
    pub head: Option<Head>,
}

/// The classifier of a run that starts from given weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Head {
    /// It starts at random, even where that of the weights would fit.
    Fresh,
    /// That of the weights, which must fit.
    Strict,
}

/// The number in the paper that a row is held against.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Claim {
    /// Table or figure: `figure9`.
    pub table: String,
    /// Row in it: `lenet5`.
    pub row: String,
    /// The metric's name in result.json: `test/error`.
    pub metric: String,
    /// The published value in the metric's unit; `error` and `accuracy` are fractions. `None`: the paper has no such row.
    pub value: Option<f64>,
}

impl DataConfig {
    /// The set of this name, whole, as it comes without other keys.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            root: None,
            workers: None,
            validation: None,
            limit_train: None,
            balanced: None,
            limit_test: None,
            repeats: None,
            max_bad: None,
            files: None,
            canvases: None,
        }
    }
}

impl Settings {
    /// For what looks at data without a configuration: an epoch on the CPU, seed 1.
    pub fn plain(data: DataConfig, batch_size: u64) -> Self {
        let every = Every::Each(Length::Epochs(1.0));
        Self {
            seed: 1,
            length: Length::Epochs(1.0),
            batch_size,
            limit: None,
            data,
            compute: Compute { device: "cpu".into(), precision: Precision::F32, threads: None, micro_batch: None },
            log: Log { every: Length::Epochs(1.0) },
            eval: EvalConfig { every, full_every: None, samples: None },
            checkpoint: CheckpointConfig { every, keep: 1 },
            init: None,
            freeze: None,
            paper: None,
        }
    }

    /// What the types cannot say: ranges and relations, as (dotted key, what is wrong). Empty if all is well.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let mut must = |holds: bool, key, message: &str| {
            if !holds {
                found.push((key, message.to_string()));
            }
        };
        let above_zero = |length: &Length| !length.is_zero();
        must(above_zero(&self.length), "length", "must be more than 0, such as `20 epochs`");
        must(self.batch_size >= 1, "batch_size", "must be at least 1");
        must(above_zero(&self.log.every), "log.every", "must be more than 0, such as `100 steps`");
        must(
            self.checkpoint.keep >= 1,
            "checkpoint.keep",
            "must be at least 1: a run that is stopped needs one to go on from",
        );
        must(
            self.compute.threads.is_none_or(|n| (1..=1024).contains(&n)),
            "compute.threads",
            "must be from 1 to 1024; for libtorch's choice leave the key away",
        );
        must(
            self.data.workers.is_none_or(|n| (1..=1024).contains(&n)),
            "data.workers",
            "must be from 1 to 1024; for as many as there are cores leave the key away",
        );
        must(
            is_device(&self.compute.device),
            "compute.device",
            "must be auto, cpu, cuda or cuda:<index>, such as cuda:0",
        );
        must(
            self.data.limit_train != Some(0),
            "data.limit_train",
            "must be at least 1; for all examples leave the key away",
        );
        must(
            self.data.balanced != Some(true) || self.data.limit_train.is_some(),
            "data.balanced",
            "cannot act without data.limit_train; add that, or leave the key away",
        );
        must(
            self.data.validation != Some(0),
            "data.validation",
            "must be at least 1; to hold nothing out leave the key away",
        );
        must(
            self.data.limit_test != Some(0),
            "data.limit_test",
            "must be at least 1; for all examples leave the key away",
        );
        must(
            self.data.repeats.is_none_or(|n| (1..=1000).contains(&n)),
            "data.repeats",
            "must be from 1 to 1000; to see each example once leave the key away",
        );
        if let Some(canvases) = &self.data.canvases {
            let CanvasConfig { train, test, objects, size } = canvases;
            must(*train >= 1 && *test >= 1, "data.canvases", "must have at least 1 picture in train and test");
            let holds = 1 <= objects[0] && objects[0] <= objects[1] && objects[1] <= 100;
            must(holds, "data.canvases.objects", "must be the fewest and the most digits, from 1 to 100");
            let holds = 8 <= size[0] && size[0] <= size[1] && size[1] <= 1024;
            must(holds, "data.canvases.size", "must be the smallest and the largest edge in pixels, from 8 to 1024");
        }
        if let Some(micro) = self.compute.micro_batch {
            must(micro >= 1, "compute.micro_batch", "must be at least 1; for no accumulation leave the key away");
            let larger = format!("must not be larger than batch_size, which is {}", self.batch_size);
            must(micro <= self.batch_size, "compute.micro_batch", &larger);
        }
        if let Some(claim) = &self.paper {
            must(claim.value.is_none_or(f64::is_finite), "paper.value", "must be a finite number");
        }
        found
    }
}

fn is_device(name: &str) -> bool {
    let index = name.strip_prefix("cuda:");
    ["auto", "cpu", "cuda"].contains(&name) || index.is_some_and(|i| i.parse::<u8>().is_ok_and(|n| n.to_string() == i))
}

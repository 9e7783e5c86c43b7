//! The rules of composing and reading, tried on a paper's configuration in a folder of its own.

mod layers;
mod mutilated;
mod reading;

use std::fs;

use serde::Deserialize;
use tempfile::TempDir;

use super::*;

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Paper {
    model: Model,
    optim: Optim,
    augment: Vec<Augment>,
    warmup: Option<Length>,
    tag: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Model {
    name: String,
    widths: [u64; 2],
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Sgd {
    base_lr: f64,
    momentum: f64,
    #[serde(default)]
    nesterov: bool,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Optim {
    Sgd(Sgd),
    Adamw { base_lr: f64, betas: Vec<f64> },
    Frozen,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Augment {
    Flip,
    Crop { pad: u64 },
}

const ROW: &str = "\
# A row.
defaults: [data/mnist, compute/auto, log/default]
seed: 7
length: 20 epochs
batch_size: 64
model:
  name: lenet5
  widths: [6, 16]
optim:
  kind: sgd
  base_lr: 0.1
  momentum: 0.9
augment:
  - {kind: crop, pad: 4}
  - flip
eval: {every: 1 epoch}
checkpoint: {every: never, keep: 2}
";

/// `experiments/` with the groups and `lenet/row.yaml`.
struct Folder(TempDir);

impl Folder {
    fn new(row: &str) -> Self {
        let folder = Folder(tempfile::tempdir().unwrap());
        folder.write("groups/data/mnist.yaml", "data:\n  name: mnist\n");
        folder.write("groups/data/fashion_mnist.yaml", "data:\n  name: fashion_mnist\n");
        folder.write("groups/compute/auto.yaml", "compute:\n  device: auto\n  precision: f32\n");
        folder.write("groups/log/default.yaml", "log:\n  every: 100 steps\n");
        folder.write("lenet/row.yaml", row);
        folder
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn load_with(&self, overrides: &[&str], variables: &[(&str, &str)]) -> Result<Experiment<Paper>> {
        let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
        let variables = variables.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        super::load_with(&self.0.path().join("lenet/row.yaml"), &overrides, variables)
    }

    fn load(&self, overrides: &[&str]) -> Experiment<Paper> {
        self.load_with(overrides, &[]).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The message of a refusal, with the folder's own path taken out.
    fn refusal(&self, overrides: &[&str]) -> String {
        let error = self.load_with(overrides, &[]).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        error.to_string().replace(&format!("{}/", self.0.path().display()), "")
    }
}

/// The message when `from` in the row is replaced by `to`.
fn refused(from: &str, to: &str) -> String {
    assert!(ROW.contains(from), "{from}");
    Folder::new(&ROW.replace(from, to)).refusal(&[])
}

#[test]
fn a_row_is_read() {
    let read = Folder::new(ROW).load(&[]);
    let Settings { seed, length, batch_size, limit, data, compute, log, eval, checkpoint, init, freeze, paper } =
        read.settings;
    assert_eq!((seed, length, batch_size, limit, paper), (7, Length::Epochs(20.0), 64, None, None));
    assert_eq!((data.name.as_str(), data.root, data.limit_train), ("mnist", None, None));
    assert_eq!(compute, Compute { device: "auto".into(), precision: Precision::F32, threads: None, micro_batch: None });
    assert_eq!((init, freeze), (None, None));
    assert_eq!((log.every, eval.every), (Length::Steps(100), Every::Each(Length::Epochs(1.0))));
    assert_eq!(checkpoint, CheckpointConfig { every: Every::Never, keep: 2 });
    assert_eq!(read.paper.model, Model { name: "lenet5".into(), widths: [6, 16] });
    assert_eq!(read.paper.optim, Optim::Sgd(Sgd { base_lr: 0.1, momentum: 0.9, nesterov: false }));
    assert_eq!(read.paper.augment, [Augment::Crop { pad: 4 }, Augment::Flip]);
}

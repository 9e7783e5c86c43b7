//! A small checkout in a temporary folder, in which all is well: one paper `toy` with a table of two rows, one of them run.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::experiment::Experiment;
use crate::{evidence, pages};

pub(crate) const EXPERIMENT: &str = "seed: 1\nlength: 2 epochs\neval: {every: 1 epoch}\npaper: {table: t1, row: one, metric: test/error, value: 0.02}\n";

const LAYOUT: &str = r#"
title: Toy
about: A toy.
tables:
  - name: t1
    title: "Table 1"
    metric: test/error
    test_examples: 10000
    rows:
      - {row: one, label: "[a] One", paper: 0.02, recipes: {one: plainly}}
      - {row: two, label: "Two", paper: 0.5}
  - name: f2
    title: "Figure 2"
    metric: test/error
    curves: {x: passes, y: "error, %", curve: monitor/error, lines: [{label: One, config: one}]}
  - name: f3
    title: "Figure 3"
    metric: test/error
    points: {x: pictures, y: "error, %", lines: [{label: One, configs: {half: 1000, one: 2000}}]}
"#;

const CITATION: &str = "# Citations\n\n## toy\n\n```bibtex\n@article{toy, title = {A {Toy}: it Works}, author = {A, B}, year = {2020},\n  \
                        journal = {arXiv preprint arXiv:2001.00001}}\n```\n";

const README: &str = "# Toy\n\n\"A Toy: it Works\", arXiv:2001.00001. See [the results](../../results/toy.md).\n\n## Code\n\n\
                      | paper | code |\n|---|---|\n| Eq. 1 | [`Net::layers`](src/app.rs) |\n";

const APP: &str = "//! Toy (arXiv:2001.00001).\nstruct Net;\nimpl Net { fn layers() {} }\n\
                   fn app() { App { paper: Paper { name: \"toy\", title: \"A Toy: it Works\" } } }\n";

pub(crate) struct Checkout {
    pub(crate) folder: TempDir,
}

impl Checkout {
    /// With the evidence of seed 1 of `one`, and the pages written.
    pub(crate) fn new() -> Self {
        let checkout = Self { folder: tempfile::tempdir().unwrap() };
        checkout.write("experiments/toy/one.yaml", EXPERIMENT);
        checkout.write("results/toy.yaml", LAYOUT);
        checkout.write("CITATION.md", CITATION);
        checkout.write("crates/toy/README.md", README);
        checkout.write("crates/toy/src/app.rs", APP);
        evidence::add(checkout.root(), &checkout.run(1, 0.021)).unwrap();
        pages::write(checkout.root()).unwrap();
        checkout
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap()
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn replace(&self, path: &str, from: &str, to: &str) {
        let text = self.read(path);
        assert!(text.contains(from), "{path} has no {from}:\n{text}");
        self.write(path, &text.replace(from, to));
    }

    /// A finished run of `one` with this seed and test error; its folder.
    pub(crate) fn run(&self, seed: u64, error: f64) -> PathBuf {
        self.changed_run(seed, error, &|_| {})
    }

    /// The same, after a change to its `result.json`.
    pub(crate) fn changed_run(&self, seed: u64, error: f64, change: &dyn Fn(&mut Value)) -> PathBuf {
        let name = format!("runs/toy/one/{seed}-{error}");
        let hash = Experiment::find(self.root(), "toy", "one").unwrap().hash(seed).unwrap();
        let weights = format!("{:064x}", (seed * 1_000_000) + (error * 1e5) as u64);
        let mut result = json!({
            "paper": "toy", "config": "one", "table": "t1", "row": "one", "seed": seed, "status": "done",
            "metrics": {"test/accuracy": 1.0 - error, "test/error": error}, "paper_metric": "test/error", "paper_value": 0.02,
            "steps": 1000, "epochs": 2.0, "seconds": 100.5, "examples_per_second": 20.0, "effective_batch": 2,
            "lr": {"base": 0.1}, "device": "cpu", "world_size": 1, "commit": "0123456789abcdef", "config_sha256": hash,
            "weights_sha256": weights, "data_sha256": "ab".repeat(32), "parameters": 60000, "notes": []
        });
        change(&mut result);
        self.write(&format!("{name}/result.json"), &result.to_string());
        let env = json!({
            "commit": "0123456789abcdef", "version": "0.1.0", "libtorch": "2.11.0", "cuda": 0, "device": "cpu", "cpu": "A CPU",
            "cores": 2, "threads": 1, "command": ["/home/somebody/lenet"]
        });
        self.write(&format!("{name}/env.json"), &env.to_string());
        let step = |step: u64| {
            let epoch = step as f64 / 500.0;
            let row = json!({"stage": "train", "step": step, "epoch": epoch, "train/loss": 1.0 / step as f64, "train/lr": 0.1});
            format!("{row}\n")
        };
        let monitor = |epoch: u64| {
            let row = json!({"stage": "train", "step": 250 * epoch, "epoch": epoch as f64 / 2.0, "monitor/error": 0.1 / epoch as f64});
            format!("{row}\n")
        };
        let rows: String = (1..=1000).map(step).chain((1..=3).map(monitor)).collect();
        self.write(&format!("{name}/metrics.jsonl"), &rows);
        self.root().join(name)
    }
}

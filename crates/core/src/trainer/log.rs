//! Where a run's numbers go: `log.txt`, `metrics.jsonl`, TensorBoard and the terminal.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use image::RgbImage;
use serde_json::{Map, Value};

use super::progress::Progress;
use super::tensorboard::{HparamValue, TensorBoard};
use crate::{Error, Result};

/// All logs of one run folder.
pub(super) struct Log {
    folder: PathBuf,
    text: File,
    metrics: File,
    tensorboard: TensorBoard,
    pub(super) progress: Progress,
}

impl Log {
    /// Opens the logs of `folder` for appending.
    pub(super) fn open(folder: &Path, progress: Progress) -> Result<Self> {
        let append = |name: &str| {
            let path = folder.join(name);
            OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io("write", &path))
        };
        Ok(Self {
            folder: folder.to_owned(),
            text: append("log.txt")?,
            metrics: append("metrics.jsonl")?,
            tensorboard: TensorBoard::create(folder)?,
            progress,
        })
    }

    /// A line for people: into `log.txt` with the time, and to the terminal.
    pub(super) fn line(&mut self, text: &str) -> Result<()> {
        self.progress.println(text);
        self.file_line(text)
    }

    /// A line into `log.txt` alone.
    pub(super) fn file_line(&mut self, text: &str) -> Result<()> {
        writeln!(self.text, "{} {text}", jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ"))
            .map_err(Error::io("write", &self.folder.join("log.txt")))
    }

    /// A row of numbers at a step, for programs.
    pub(super) fn numbers(&mut self, step: u64, epoch: f64, values: &BTreeMap<String, f64>) -> Result<()> {
        let mut row = Map::new();
        row.insert("step".into(), step.into());
        row.insert("epoch".into(), epoch.into());
        for (name, value) in values {
            row.insert(name.clone(), (*value).into());
            self.tensorboard.scalar(name, step, *value)?;
        }
        writeln!(self.metrics, "{}", Value::Object(row)).map_err(Error::io("write", &self.folder.join("metrics.jsonl")))
    }

    /// A picture: into `figures/`, the newest of its name, and to TensorBoard.
    pub(super) fn picture(&mut self, name: &str, step: u64, picture: &RgbImage) -> Result<()> {
        crate::figures::save(picture, &self.folder.join("figures").join(format!("{name}.png")))?;
        self.tensorboard.image(name, step, picture)
    }

    /// A text, such as the configuration.
    pub(super) fn text(&mut self, name: &str, markdown: &str) -> Result<()> {
        self.tensorboard.text(name, 0, markdown)
    }

    /// Joins the configuration with the final metrics in TensorBoard's HPARAMS table.
    pub(super) fn hyper_parameters(&mut self, values: &[(String, HparamValue)], metrics: &[String]) -> Result<()> {
        self.tensorboard.hparams(values, metrics)
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        self.tensorboard.flush()
    }
}

/// The rows of a `metrics.jsonl`; a last line cut off by a kill is passed over.
pub(crate) fn read_metrics(folder: &Path) -> Vec<Map<String, Value>> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Drops the rows behind `step`, which a resumed run writes again.
pub(super) fn rewind_metrics(folder: &Path, step: u64) -> Result<()> {
    let kept: String = read_metrics(folder)
        .into_iter()
        .filter(|row| row.get("step").and_then(Value::as_u64).is_some_and(|s| s <= step))
        .map(|row| format!("{}\n", Value::Object(row)))
        .collect();
    crate::files::write_atomic(&folder.join("metrics.jsonl"), &[kept.as_bytes()])
}

//! Where a run's numbers go: `log.txt`, `metrics.jsonl`, TensorBoard and the terminal.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use image::RgbImage;
use serde_json::{Map, Value};

use super::progress::Progress;
use super::tensorboard::{HparamValue, TensorBoard};
use crate::{Error, Result};

const METRICS: &str = "metrics.jsonl";
const TEXT: &str = "log.txt";

/// All logs of one run folder.
pub(super) struct Log {
    folder: PathBuf,
    text: Option<File>,
    /// Lines that were said before there was a file for them.
    early: String,
    quiet: bool,
    /// The stage in work and its `metrics.jsonl`, open from its start on, when it is known from which step.
    stage: Option<(String, File)>,
    /// Likewise.
    tensorboard: Option<TensorBoard>,
    pub(super) progress: Option<Progress>,
}

impl Log {
    /// Logs without a folder: lines wait for it.
    pub(super) fn new(quiet: bool) -> Self {
        let (folder, early) = (PathBuf::new(), String::new());
        Self { folder, text: None, early, quiet, stage: None, tensorboard: None, progress: None }
    }

    /// Opens `log.txt`; the other logs open with the first stage.
    pub(super) fn open(&mut self, folder: &Path) -> Result<()> {
        self.folder = folder.to_owned();
        self.text = Some(append(folder, TEXT)?);
        let early = std::mem::take(&mut self.early);
        self.write_text(&early)
    }

    /// Starts the logs of a stage of which `from` steps of `total` are done. A later stage counts its steps from 0 again, so that its events
    /// stand in a folder of its own: TensorBoard would take them for a run that was set back.
    pub(super) fn begin(&mut self, stage: &str, later: bool, from: u64, total: u64, unfinished: bool) -> Result<()> {
        rewind(&self.folder, stage, from, total, unfinished)?;
        self.stage = Some((stage.to_string(), append(&self.folder, METRICS)?));
        if let Some(progress) = &mut self.progress {
            progress.finish();
        }
        self.progress = Some(Progress::new(from, total, self.quiet));
        if let Some(board) = &mut self.tensorboard {
            board.hparams_end(true)?;
            board.flush()?;
        }
        let folder = if later { self.folder.join(stage) } else { self.folder.clone() };
        crate::files::create_folder(&folder)?;
        self.tensorboard = Some(TensorBoard::create(&folder, from + 1)?);
        Ok(())
    }

    /// A line for people: into `log.txt` with the time, and to the terminal.
    pub(super) fn line(&mut self, text: &str) -> Result<()> {
        match &mut self.progress {
            Some(progress) => progress.println(text),
            None if self.quiet => {}
            None => drop(writeln!(std::io::stderr(), "{text}")),
        }
        self.file_line(text)
    }

    /// A line into `log.txt` alone.
    pub(super) fn file_line(&mut self, text: &str) -> Result<()> {
        // One write a line: a full disk then cuts as few lines as can be.
        let line = format!("{} {text}\n", jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ"));
        self.write_text(&line)
    }

    fn write_text(&mut self, lines: &str) -> Result<()> {
        match &mut self.text {
            Some(file) => file.write_all(lines.as_bytes()).map_err(Error::io("write", &self.folder.join(TEXT))),
            None => {
                self.early += lines;
                Ok(())
            }
        }
    }

    /// A row of numbers at a step, for programs.
    pub(super) fn numbers(&mut self, step: u64, epoch: f64, values: &BTreeMap<String, f64>) -> Result<()> {
        let Some((stage, file)) = &mut self.stage else { return Ok(()) };
        let mut row = Map::new();
        row.insert("stage".into(), stage.as_str().into());
        row.insert("step".into(), step.into());
        row.insert("epoch".into(), epoch.into());
        for (name, value) in values {
            row.insert(name.clone(), (*value).into());
            if let Some(board) = &mut self.tensorboard {
                board.scalar(name, step, *value)?;
            }
        }
        let line = format!("{}\n", Value::Object(row));
        file.write_all(line.as_bytes()).map_err(Error::io("write", &self.folder.join(METRICS)))
    }

    /// A picture: into `figures/`, the newest of its name, and to TensorBoard.
    pub(super) fn picture(&mut self, name: &str, step: u64, picture: &RgbImage) -> Result<()> {
        crate::figures::save(picture, &self.folder.join("figures").join(format!("{name}.png")))?;
        self.tensorboard.as_mut().map_or(Ok(()), |board| board.image(name, step, picture))
    }

    /// What the run is: its configuration as text, and as hyper-parameters that TensorBoard joins with the metrics.
    pub(super) fn describe(&mut self, yaml: &str, values: &[(String, HparamValue)], metrics: &[String]) -> Result<()> {
        let Some(board) = &mut self.tensorboard else { return Ok(()) };
        board.text("config", 0, &format!("```yaml\n{yaml}```"))?;
        board.hparams(values, metrics)
    }

    /// Hands what is buffered to the disk. The rows of numbers are durable then: a resumed run writes only those behind its checkpoint.
    pub(super) fn flush(&mut self) -> Result<()> {
        if let Some((_, file)) = &self.stage {
            file.sync_data().map_err(Error::io("write", &self.folder.join(METRICS)))?;
        }
        self.tensorboard.as_mut().map_or(Ok(()), TensorBoard::flush)
    }

    /// Ends the bar and TensorBoard's table row.
    pub(super) fn end(&mut self, well: bool) -> Result<()> {
        if let Some(progress) = &mut self.progress {
            progress.finish();
        }
        if let Some(board) = &mut self.tensorboard {
            board.hparams_end(well)?;
        }
        self.flush()
    }
}

fn append(folder: &Path, name: &str) -> Result<File> {
    let path = folder.join(name);
    OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io("write", &path))
}

/// The rows of a run folder's `metrics.jsonl`: `stage`, `step`, `epoch` and scalars by name, such as `train/loss`. None where there is no such
/// file; lines that a kill or a power cut has spoilt are passed over.
///
/// # Errors
/// The disk's.
pub fn read_metrics(folder: &Path) -> Result<Vec<Map<String, Value>>> {
    let path = folder.join(METRICS);
    match fs::read(&path) {
        Ok(bytes) => Ok(bytes.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io("read", &path)(error)),
    }
}

/// Whether a name such as `test/error`, `test-ema/error` or `probe/test/error` is of this split, of the weights or of their averages.
fn of_split(name: &str, split: &str) -> bool {
    name.split('/').any(|part| part == split || part.strip_suffix("-ema") == Some(split))
}

/// Drops the rows of a stage that a resumed run writes again: those behind `step`, the final test's, the validation's at the last step, and where
/// the means at `step` are `unfinished`, theirs.
fn rewind(folder: &Path, stage: &str, step: u64, total: u64, unfinished: bool) -> Result<()> {
    let rows = read_metrics(folder)?.into_iter();
    let of_training = |row: &Map<String, Value>| row.keys().any(|name| name.split('/').any(|part| part == "train"));
    let stays = |row: &Map<String, Value>| {
        let at = row.get("step").and_then(Value::as_u64);
        let of = |split: &str| row.keys().any(|name| of_split(name, split));
        row.get("stage").and_then(Value::as_str) != Some(stage)
            || at.is_some_and(|at| at <= step)
                && !of("test")
                && !(at == Some(total) && of("val"))
                && !(unfinished && at == Some(step) && of_training(row))
    };
    let kept: String = rows.filter(stays).map(|row| format!("{}\n", Value::Object(row))).collect();
    crate::files::write_atomic(&folder.join(METRICS), &[kept.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_resumed_stage_writes_again_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let row = |stage: &str, step: u64, name: &str| {
            format!("{}\n", serde_json::json!({"stage": stage, "step": step, "epoch": step as f64, name: 0.5}))
        };
        let rows = [
            row("train", 5, "train/loss"),
            row("train", 5, "val/error"),
            row("train", 10, "train/loss"),
            row("train", 10, "val/error"),
            row("train", 10, "val-ema/error"),
            row("train", 10, "test/error"),
            row("train", 10, "test-ema/error"),
            row("probe", 10, "probe/test/error"),
        ];
        let left = |step: u64| {
            fs::write(dir.path().join(METRICS), rows.concat()).unwrap();
            rewind(dir.path(), "train", step, 10, false).unwrap();
            fs::read_to_string(dir.path().join(METRICS)).unwrap()
        };
        let of = |kept: &[usize]| kept.iter().map(|at| rows[*at].clone()).collect::<String>();
        assert_eq!(left(10), of(&[0, 1, 2, 7]));
        assert_eq!(left(7), of(&[0, 1, 7]));
    }
}

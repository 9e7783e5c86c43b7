//! The run folder: one process group owns it, everything about the run is in it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::log::Log;
use super::tensorboard::HparamValue;
use super::{Eval, Signals, Step, checkpoint};
use crate::config::{Claim, Resolved};
use crate::files::{cannot_create, create_folder, remove_partial, write_atomic};
use crate::weights::Named;
use crate::{Error, Result, user, weights};

/// The stage that a metric is of: the one whose name stands in front, else the first.
fn stage_of(metric: &str, stages: &[String]) -> String {
    let named = metric.split('/').next().filter(|front| stages.iter().any(|stage| stage == front));
    named.or(stages.first().map(String::as_str)).unwrap_or_default().to_string()
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Status {
    Running,
    Done,
    Interrupted,
    Failed,
    Diverged,
}

/// `result.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RunResult {
    pub paper: String,
    /// Stem of the config's file name.
    pub config: String,
    pub table: Option<String>,
    pub row: Option<String>,
    pub seed: u64,
    pub status: Status,
    /// `test/accuracy` → value. Accuracy and error are fractions.
    pub metrics: BTreeMap<String, f64>,
    pub paper_metric: Option<String>,
    pub paper_value: Option<f64>,
    pub steps: u64,
    pub epochs: f64,
    /// Training time over all sittings, without evaluation.
    pub seconds: f64,
    pub examples_per_second: f64,
    pub effective_batch: u64,
    /// `base` as configured, `scaled` after `optim.lr_scaling`.
    pub lr: BTreeMap<String, f64>,
    pub device: String,
    pub world_size: u64,
    pub commit: String,
    pub config_sha256: String,
    pub weights_sha256: Option<String>,
    pub data_sha256: Option<String>,
    /// Numbers that training changes.
    pub parameters: u64,
    /// What the reader must know beside the numbers.
    pub notes: Vec<String>,
    /// Hash of the trunk that a probe read, before it and after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trunk_sha256_before: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trunk_sha256_after: Option<String>,
    /// The weights that the run began with, where it was given some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Init>,
    /// Each stage by its name; what stands above is that of the first.
    #[serde(default)]
    pub stages: BTreeMap<String, StageResult>,
}

/// What one stage came to; the fields as in [`RunResult`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct StageResult {
    /// Whether it is trained, tested and written: a run that goes on passes over it.
    pub done: bool,
    pub steps: u64,
    pub epochs: f64,
    pub seconds: f64,
    pub examples_per_second: f64,
    pub effective_batch: u64,
    pub lr: BTreeMap<String, f64>,
    pub data_sha256: Option<String>,
    pub weights_sha256: Option<String>,
    /// Hash of what `freeze` names, the same before and after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen_sha256: Option<String>,
}

/// Weights that were given to a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Init {
    /// The file or the run folder, as it was named.
    pub path: PathBuf,
    /// Hash of the weights.
    pub sha256: String,
}

/// Where a stage stands in its run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progressed {
    /// Steps done.
    pub(super) step: u64,
    /// Training time so far.
    pub(super) seconds: f64,
}

/// What a run is started with.
pub(crate) struct Start<'a> {
    pub(crate) paper: &'static str,
    pub(crate) config: String,
    pub(crate) file: &'a Path,
    pub(crate) resolved: &'a Resolved,
    pub(crate) claim: Option<&'a Claim>,
    pub(crate) seed: u64,
    pub(crate) parameters: u64,
    pub(crate) device: String,
    pub(crate) quiet: bool,
    pub(crate) limit: Option<std::time::Duration>,
    /// The folder of rank 0, where this process has another rank.
    pub(crate) of_rank_0: Option<PathBuf>,
    /// The paper's stages, in their order.
    pub(crate) stages: Vec<String>,
    /// The weights that this sitting was given.
    pub(crate) init: Option<Init>,
}

/// A run folder in use.
pub struct Run {
    /// The folder.
    pub folder: PathBuf,
    pub(super) result: RunResult,
    log: Log,
    yaml: String,
    env: String,
    fields: Vec<(String, HparamValue)>,
    signals: Signals,
    begun: Instant,
    limit: Option<std::time::Duration>,
    /// Where checkpoints are: in the folder, but of rank 0 for all processes.
    checkpoints: PathBuf,
    continued: bool,
    /// The paper's stages, in their order.
    stages: Vec<String>,
    /// The one in work.
    stage: String,
    /// Whether the books are this sitting's.
    begun_books: bool,
    lock: File,
}

/// Bytes that the lock file takes up until the run ends: on a full disk there is then room to write how it did.
const RESERVE: usize = 16 << 10;

/// `runs/<paper>/<config>`.
fn home(paper: &str, config: &str) -> PathBuf {
    Path::new("runs").join(paper).join(config)
}

/// A new folder `runs/<paper>/<config>/<UTC time>-<config hash>`.
pub(crate) fn fresh_folder(paper: &str, config: &str, hash: &str) -> Result<PathBuf> {
    let home = home(paper, config);
    create_folder(&home)?;
    let stamp = format!("{}-{}", jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ"), &hash[..8]);
    for attempt in 1..1000 {
        let name = if attempt == 1 { stamp.clone() } else { format!("{stamp}-{attempt}") };
        // `create_dir` and not `create_dir_all`: of two processes in one second, one gets the name.
        match fs::create_dir(home.join(&name)) {
            Ok(()) => {
                link_latest(&home, &name);
                return Ok(home.join(name));
            }
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(cannot_create(&home.join(name), e)),
        }
    }
    Err(user!("{} is full of runs of this second", home.display()))
}

/// Points `latest` at the run; a link that cannot be made (some shared folders have none) is no reason to stop.
fn link_latest(home: &Path, name: &str) {
    let temporary = home.join(format!(".latest-{}", std::process::id()));
    if std::os::unix::fs::symlink(name, &temporary).is_ok() && fs::rename(&temporary, home.join("latest")).is_err() {
        let _ = fs::remove_file(&temporary);
    }
}

/// The run folders of a paper with their results, oldest first.
pub(crate) fn all(paper: &str) -> Vec<(PathBuf, RunResult)> {
    let folders = |path: PathBuf| {
        fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir() && !p.is_symlink())
    };
    // A sweep's runs lie one folder deeper than the others.
    let (runs, sweeps): (Vec<_>, Vec<_>) =
        folders(Path::new("runs").join(paper)).flat_map(folders).partition(|f| f.join("result.json").exists());
    let mut runs: Vec<_> = runs
        .into_iter()
        .chain(sweeps.into_iter().flat_map(folders))
        .filter_map(|folder| Some((folder.clone(), read_result(&folder).ok()?)))
        .collect();
    runs.sort_by_key(|(folder, _)| folder.file_name().map(|n| n.to_owned()));
    runs
}

/// The newest run of this configuration that is not done.
pub(crate) fn newest_unfinished(paper: &str, config_sha256: &str) -> Option<PathBuf> {
    let unfinished = |(_, r): &(PathBuf, RunResult)| r.status != Status::Done && r.config_sha256 == config_sha256;
    all(paper).into_iter().rfind(unfinished).map(|(folder, _)| folder)
}

/// Reads a run's `result.json`.
pub fn read_result(folder: &Path) -> Result<RunResult> {
    let path = folder.join("result.json");
    let text = fs::read_to_string(&path)
        .map_err(|e| user!("{} is not a run folder: cannot read result.json: {e}", folder.display()))?;
    serde_json::from_str(&text).map_err(|e| user!("{} is damaged or of another version: {e}", path.display()))
}

/// A command's output; empty if it fails, for a run must not depend on git.
fn said(command: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(command).args(arguments).stderr(std::process::Stdio::null()).output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_string()).unwrap_or_default()
}

/// The commit of the checkout that holds the config file, `+changes` if it is not clean, `unknown` outside a checkout. Changes in
/// `results` act on no run, and come with every run that is taken in there.
fn commit(config: &Path) -> String {
    let folder = config.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_string_lossy();
    let changes = ["-C", &folder, "status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)results"];
    match said("git", &["-C", &folder, "rev-parse", "HEAD"]) {
        hash if hash.is_empty() => "unknown".into(),
        hash if said("git", &changes).is_empty() => hash,
        hash => format!("{hash}+changes"),
    }
}

fn cpu() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.lines()
        .find_map(|l| l.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown".into(), |(_, name)| name.trim().into())
}

impl Run {
    /// Takes possession of `folder`, which may hold an unfinished run of the same configuration.
    ///
    /// # Errors
    /// Another process has it; the disk refuses.
    pub(crate) fn open(folder: PathBuf, start: Start, signals: Signals) -> Result<Self> {
        create_folder(&folder)?;
        let lock_path = folder.join("run.lock");
        let open = OpenOptions::new().write(true).create(true).truncate(false).open(&lock_path);
        let mut lock = open.map_err(|e| match e.kind() {
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                user!("cannot write in {}: {e}; choose another folder with --out", folder.display())
            }
            _ => Error::io("write", &lock_path)(e),
        })?;
        lock.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => user!(
                "another process is using {}; wait for it, or give this run a folder of its own with --out",
                folder.display()
            ),
            TryLockError::Error(e) => Error::io("lock", &lock_path)(e),
        })?;
        for left in [".", "checkpoints", "figures"] {
            remove_partial(&folder.join(left));
        }
        lock.write_all(&[b' '; RESERVE]).map_err(Error::io("write", &lock_path))?;
        let folder_of_books = start.of_rank_0.as_deref().unwrap_or(&folder);
        let continued = folder.join("result.json").exists();
        create_folder(&folder.join("checkpoints"))?;
        create_folder(&folder.join("figures"))?;
        let commit = commit(start.file);
        let env = serde_json::json!({
            "commit": commit,
            "version": env!("CARGO_PKG_VERSION"),
            "libtorch": torch_ext::LIBTORCH_VERSION,
            "cuda": if start.device.starts_with("cuda") { tch::utils::version_cudart() } else { 0 },
            "device": start.device,
            "cpu": cpu(),
            "cores": std::thread::available_parallelism().map_or(0, |n| n.get()),
            "threads": tch::get_num_threads(),
            "command": std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>(),
        });
        // What came up in an earlier sitting holds for the whole run, and so do the stages that are done.
        let before = read_result(folder_of_books).ok();
        // One whose weights are gone is to be ended again, from its last checkpoint.
        let kept = |stage: &String| {
            let later = start.stages.first().filter(|first| *first != stage).map(|_| stage.as_str());
            folder_of_books.join(weights::file_name(later, false)).is_file()
        };
        let done: BTreeMap<_, _> =
            before.iter().flat_map(|b| b.stages.clone()).filter(|(name, stage)| stage.done && kept(name)).collect();
        let metrics = before.iter().flat_map(|b| b.metrics.clone());
        let metrics = metrics.filter(|(name, _)| done.contains_key(&stage_of(name, &start.stages))).collect();
        let init = match (before.as_ref().and_then(|b| b.init.clone()), start.init) {
            (Some(before), Some(now)) if before.sha256 != now.sha256 => {
                return Err(user!(
                    "{} began with the weights {} (hash {:.8}), and {} are others (hash {:.8}); leave --init away to go on",
                    folder.display(),
                    before.path.display(),
                    before.sha256,
                    now.path.display(),
                    now.sha256
                ));
            }
            (before, now) => before.or(now),
        };
        let result = RunResult {
            paper: start.paper.into(),
            config: start.config,
            table: start.claim.map(|c| c.table.clone()),
            row: start.claim.map(|c| c.row.clone()),
            seed: start.seed,
            status: Status::Running,
            metrics,
            paper_metric: start.claim.map(|c| c.metric.clone()),
            paper_value: start.claim.and_then(|c| c.value),
            steps: 0,
            epochs: 0.0,
            seconds: 0.0,
            examples_per_second: 0.0,
            effective_batch: 0,
            lr: BTreeMap::new(),
            device: start.device,
            world_size: 1,
            commit,
            config_sha256: start.resolved.hash(),
            weights_sha256: None,
            data_sha256: None,
            parameters: start.parameters,
            trunk_sha256_before: before.as_ref().and_then(|before| before.trunk_sha256_before.clone()),
            trunk_sha256_after: before.as_ref().and_then(|before| before.trunk_sha256_after.clone()),
            notes: before.map(|before| before.notes).unwrap_or_default(),
            init,
            stages: done,
        };
        let log = Log::open(&folder, start.quiet)?;
        let fields = start.resolved.leaves().into_iter().map(|(key, value)| (key, hyper_parameter(&value))).collect();
        let checkpoints = folder_of_books.join("checkpoints");
        let mut run = Self {
            folder,
            checkpoints,
            continued,
            stages: start.stages,
            stage: String::new(),
            result,
            log,
            yaml: start.resolved.yaml(),
            env: format!("{env:#}\n"),
            fields,
            signals,
            begun: Instant::now(),
            limit: start.limit,
            begun_books: false,
            lock,
        };
        if !continued {
            run.write_books()?;
        }
        Ok(run)
    }

    /// A line for people.
    pub(crate) fn line(&mut self, text: &str) -> Result<()> {
        self.log.line(text)
    }

    /// What the reader of the result must know: a line each, and kept in `result.json`.
    pub(super) fn notes(&mut self, notes: Vec<String>) -> Result<()> {
        for note in notes {
            self.line(&format!("note: {note}"))?;
            if !self.result.notes.contains(&note) {
                self.result.notes.push(note);
            }
        }
        Ok(())
    }

    pub(super) fn checkpoints(&self) -> &Path {
        &self.checkpoints
    }

    /// Whether the run should save and leave: a signal came, or `limit` is over.
    pub(super) fn stop(&self) -> bool {
        self.signals.received().is_some() || self.limit.is_some_and(|limit| self.begun.elapsed() >= limit)
    }

    /// The exit code of the signal that came, if one did.
    pub(super) fn signal(&self) -> Option<u8> {
        self.signals.received()
    }

    /// Where the stage in work stands, for `result.json` however it ends.
    pub(super) fn progressed(&mut self, at: &Progressed, steps_per_epoch: u64) {
        let stage = self.stage();
        stage.steps = at.step;
        stage.epochs = at.step as f64 / steps_per_epoch.max(1) as f64;
        stage.seconds = at.seconds;
        stage.examples_per_second = at.step as f64 * stage.effective_batch as f64 / at.seconds.max(1e-9);
    }

    /// Keeps the hashes of the trunk that the stage in work reads, if it has one.
    ///
    /// # Errors
    /// They differ: what the stage measured is not that trunk's.
    pub(super) fn keep_still(&mut self, before: Option<String>, after: Option<String>) -> Result<()> {
        if before.is_none() {
            return Ok(());
        }
        let same = before == after;
        (self.result.trunk_sha256_before, self.result.trunk_sha256_after) = (before, after);
        if same {
            return Ok(());
        }
        Err(Error::Failed(format!(
            "internal error: the trunk has changed in stage {}, which must leave it alone",
            self.stage
        )))
    }

    /// Begins the record of a stage that is not done.
    pub(super) fn enter(&mut self, stage: &str, record: StageResult) {
        self.stage = stage.to_string();
        self.result.stages.insert(stage.to_string(), record);
        let stages = &self.stages;
        self.result.metrics.retain(|name, _| stage_of(name, stages) != stage);
    }

    /// The record of the stage in work.
    pub(super) fn stage(&mut self) -> &mut StageResult {
        self.result.stages.entry(self.stage.clone()).or_default()
    }

    /// A metric's name with that of the stage in work in front, but of the first.
    pub(super) fn prefixed(&self, name: &str) -> String {
        if self.is_later() { format!("{}/{name}", self.stage) } else { name.to_string() }
    }

    fn is_later(&self) -> bool {
        self.stages.first().is_some_and(|first| *first != self.stage)
    }

    /// The header of a checkpoint of the stage in work.
    pub(super) fn header(&mut self, at: &Progressed) -> checkpoint::Header {
        let data = self.stage().data_sha256.clone().unwrap_or_default();
        checkpoint::Header::new(&self.stage, at.step, at.seconds, &self.result.config_sha256, &data)
    }

    /// Writes the weights of the stage in work, and their averages if there are any.
    pub(super) fn write_weights(&mut self, model: &Named, averages: &Named, card: Option<&str>) -> Result<()> {
        let stage = self.is_later().then_some(self.stage.as_str());
        weights::write(&self.folder.join(weights::file_name(stage, false)), model, card)?;
        if !averages.is_empty() {
            weights::write(&self.folder.join(weights::file_name(stage, true)), averages, card)?;
        }
        self.stage().weights_sha256 = Some(weights::hash(model)?);
        Ok(())
    }

    /// What the weights files of a finished stage hand over to a later one.
    pub(crate) fn hand_over(&self, stage: &str) -> Result<Named> {
        let folder = self.checkpoints.parent().unwrap_or(&self.folder);
        let later = self.stages.first().is_some_and(|first| first != stage);
        let given = weights::hand_over(folder, later.then_some(stage))?;
        let known = self.finished(stage).and_then(|record| record.weights_sha256.clone());
        if known.is_some_and(|known| weights::hash(&weights::below(&given, "model.")).is_ok_and(|found| found != known))
        {
            return Err(user!(
                "the weights of stage {stage} in {} are not those that it ended with; put them back, or start a new run",
                folder.display()
            ));
        }
        Ok(given)
    }

    /// The record of a stage that is done.
    pub(crate) fn finished(&self, stage: &str) -> Option<&StageResult> {
        self.result.stages.get(stage).filter(|stage| stage.done)
    }

    /// Whether the folder held this run before.
    pub(super) fn is_continued(&self) -> bool {
        self.continued
    }

    /// Hands logs and the present result to the disk.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.log.flush()?;
        self.write_result()
    }

    /// Starts the logs of a stage of which `from` steps of `total` are done.
    pub(super) fn begin_stage(&mut self, stage: &str, from: u64, total: u64) -> Result<()> {
        self.log.begin(stage, self.is_later(), from, total)?;
        let claimed = self.result.paper_metric.clone().into_iter();
        let metrics: Vec<_> = claimed.chain(["test/accuracy".to_string(), "test/error".to_string()]).collect();
        self.log.describe(&self.yaml, &self.fields, &metrics)
    }

    /// The means of a step's scalars since the last call.
    pub(super) fn trained(&mut self, step: &Step, seconds: f64, means: BTreeMap<&'static str, f64>) -> Result<()> {
        let done = step.index + 1;
        let epoch = done as f64 / step.steps_per_epoch as f64;
        let speed = done as f64 * self.stage().effective_batch as f64 / seconds.max(1e-9);
        if let Some(progress) = &mut self.log.progress {
            progress.update(done, epoch, means.get("loss").copied(), speed);
        }
        let named = means.into_iter().chain([("examples_per_second", speed)]);
        let values = named.map(|(name, value)| (self.prefixed(&format!("train/{name}")), value)).collect();
        self.log.numbers(done, epoch, &values)
    }

    /// The findings of an evaluation after a step; the last ones of a stage go into `result.json`.
    pub(super) fn evaluated(&mut self, split: &str, step: &Step, found: &Eval, last: bool) -> Result<()> {
        let prefix = &self.prefixed(split);
        let values = found.named(prefix);
        let done = (step.index + 1).min(step.total);
        let epoch = done as f64 / step.steps_per_epoch as f64;
        self.log.numbers(done, epoch, &values)?;
        for (name, picture) in &found.pictures {
            self.log.picture(&format!("{}-{name}", prefix.replace('/', "-")), done, picture)?;
        }
        let shown: Vec<_> =
            values.iter().filter(|(n, _)| !n.contains("/class/")).map(|(n, v)| format!("{n} {v:.4}")).collect();
        self.log.line(&format!("epoch {epoch:.2}  {}", shown.join("  ")))?;
        if last {
            self.result.metrics.extend(values);
        }
        Ok(())
    }

    /// A picture of the run, such as its training examples.
    pub(super) fn picture(&mut self, name: &str, step: u64, picture: &image::RgbImage) -> Result<()> {
        self.log.picture(name, step, picture)
    }

    /// Writes what the run is: configuration, environment, result so far. Those of a run that is continued stay until it is certain that it
    /// can go on, so that a refusal changes nothing.
    pub(super) fn write_books(&mut self) -> Result<()> {
        write_atomic(&self.folder.join("config.yaml"), &[self.yaml.as_bytes()])?;
        write_atomic(&self.folder.join("env.json"), &[self.env.as_bytes()])?;
        self.write_result()?;
        self.begun_books = true;
        Ok(())
    }

    /// Writes `result.json` as it stands.
    pub(super) fn write_result(&mut self) -> Result<()> {
        let result = &mut self.result;
        if let Some(first) = self.stages.iter().find_map(|name| result.stages.get(name)).cloned() {
            (result.steps, result.epochs, result.seconds) = (first.steps, first.epochs, first.seconds);
            result.examples_per_second = first.examples_per_second;
            result.effective_batch = first.effective_batch;
            result.lr = first.lr;
            result.data_sha256 = first.data_sha256;
            result.weights_sha256 = first.weights_sha256;
        }
        let text = serde_json::to_string_pretty(&self.result)
            .map_err(|e| Error::Failed(format!("cannot write result.json: {e}")))?;
        write_atomic(&self.folder.join("result.json"), &[text.as_bytes(), b"\n"])
    }

    /// Ends a run that is done. Its result is the last thing that is written.
    pub(crate) fn done(&mut self) -> Result<RunResult> {
        self.log.end(true)?;
        let _ = self.lock.set_len(0);
        self.result.status = Status::Done;
        self.write_result()?;
        Ok(self.result.clone())
    }

    /// Ends a run that is not done, on a disk that may be full.
    pub(crate) fn cut_short(&mut self, status: Status, line: &str) -> Result<()> {
        let _ = self.lock.set_len(0);
        self.result.status = status;
        let written = if self.begun_books { self.write_result() } else { Ok(()) };
        // What the logs cannot take is on the terminal.
        let _ = self.log.file_line(line);
        let _ = self.log.end(false);
        written
    }
}

fn hyper_parameter(value: &serde_json::Value) -> HparamValue {
    match value {
        serde_json::Value::Bool(b) => HparamValue::Flag(*b),
        serde_json::Value::Number(n) => HparamValue::Number(n.as_f64().unwrap_or(f64::NAN)),
        serde_json::Value::String(s) => HparamValue::Text(s.clone()),
        other => HparamValue::Text(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_tells_of_changes_but_not_of_those_in_the_results() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("experiments/toy/one.yaml");
        let results = dir.path().join("results/toy.md");
        for file in [&config, &results] {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "before\n").unwrap();
        }
        assert_eq!(commit(&config), "unknown");
        let folder = dir.path().to_string_lossy();
        let git = |words: &[&str]| {
            said("git", &[&["-C", &folder, "-c", "user.name=a", "-c", "user.email=a@b.c"], words].concat())
        };
        git(&["init", "--quiet"]);
        git(&["add", "."]);
        git(&["commit", "--quiet", "--message", "a"]);
        let head = git(&["rev-parse", "HEAD"]);
        assert_eq!((commit(&config), head.len()), (head.clone(), 40));
        fs::write(&results, "after\n").unwrap();
        assert_eq!(commit(&config), head);
        fs::write(&config, "after\n").unwrap();
        assert_eq!(commit(&config), format!("{head}+changes"));
    }
}

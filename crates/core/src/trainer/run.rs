//! The run folder: one process group owns it, everything about the run is in it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::checkpoint::Sums;
use super::folders::{self, fill_latest, point_latest};
use super::log::Log;
use super::tensorboard::HparamValue;
use super::{Eval, Signals, Step, checkpoint, environment};
use crate::files::{create_folder, remove_partial, write_atomic};
use crate::weights::Named;
use crate::{Error, Result, user, weights};

pub use super::folders::real_folder;
pub(crate) use super::folders::{all, check_free, holds_run, newest_unfinished};
pub use super::result::{FeatureNetwork, Init, RunResult, StageResult, Status, read_result};
pub(crate) use super::start::{Start, Undone};

/// The stage that a metric is of: the one whose name stands in front, else the first.
fn stage_of(metric: &str, stages: &[String]) -> String {
    let named = metric.split('/').next().filter(|front| stages.iter().any(|stage| stage == front));
    named.or(stages.first().map(String::as_str)).unwrap_or_default().to_string()
}

/// Where a stage stands in its run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progressed {
    /// Steps done.
    pub(super) step: u64,
    /// Training time so far.
    pub(super) seconds: f64,
}

/// A run, which takes possession of its folder when it is certain that it can be done.
pub struct Run {
    /// The folder; empty while there is none.
    pub folder: PathBuf,
    /// Whether the folder is to be a new one below `runs`, which `latest` then stands for.
    new: bool,
    pub(super) result: RunResult,
    log: Log,
    yaml: String,
    env: String,
    fields: Vec<(String, HparamValue)>,
    signals: Signals,
    begun: Instant,
    limit: Option<std::time::Duration>,
    /// The folder of rank 0, where this process has another rank.
    of_rank_0: Option<PathBuf>,
    continued: bool,
    /// The paper's stages, in their order.
    stages: Vec<String>,
    /// The one in work.
    stage: String,
    /// Whether the books are this sitting's.
    begun_books: bool,
    /// The configuration without its lengths, by which checkpoints know it.
    course: String,
    /// Stages that begin again, and those that go on to another length.
    undone: Undone,
    /// From when it has the folder on.
    lock: Option<File>,
}

/// Bytes that the lock file takes up until the run ends: on a full disk there is then room to write how it did.
const RESERVE: usize = 16 << 10;

impl Run {
    /// A run of which no file is written yet. If its folder holds it already, it takes possession of that.
    ///
    /// # Errors
    /// Another process has the folder; the disk refuses; the run began with other weights.
    pub(crate) fn new(start: Start, signals: Signals) -> Result<Self> {
        let folder = start.folder.clone().unwrap_or_default();
        // Before anything is read in it, which its owner may be changing.
        let lock = if folders::holds_run(&folder) { Some(folders::lock(&folder)?) } else { None };
        let folder_of_books = start.of_rank_0.as_deref().unwrap_or(&folder);
        let continued = folder_of_books.join("result.json").exists();
        // What came up in an earlier sitting holds for the whole run, and so do the stages that are done.
        let before = read_result(folder_of_books).ok();
        // A run folder stands in no checkout, so that a run that goes on by its own configuration keeps the commit that it began with.
        let commit = match (environment::commit(start.file), &before) {
            (unknown, Some(before)) if unknown == environment::UNKNOWN => before.commit.clone(),
            (commit, _) => commit,
        };
        let env = environment::told(&commit, &start.device);
        // One whose weights are gone is to be ended again, from its last checkpoint.
        let kept = |stage: &String| {
            if start.undone.longer.contains(stage) || start.undone.again.contains(stage) {
                return false;
            }
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
            world_size: before.as_ref().map_or(1, |before| before.world_size),
            commit,
            config_sha256: start.resolved.hash(),
            weights_sha256: None,
            data_sha256: None,
            parameters: start.parameters,
            trunk_sha256_before: before.as_ref().and_then(|before| before.trunk_sha256_before.clone()),
            trunk_sha256_after: before.as_ref().and_then(|before| before.trunk_sha256_after.clone()),
            feature_network: before.as_ref().and_then(|before| before.feature_network.clone()),
            notes: before.map(|before| before.notes).unwrap_or_default(),
            init,
            stages: done,
        };
        let fields = start.resolved.leaves().into_iter().map(|(key, value)| (key, HparamValue::from(&value))).collect();
        let mut run = Self {
            folder,
            of_rank_0: start.of_rank_0,
            continued,
            new: start.folder.is_none(),
            stages: start.stages,
            stage: String::new(),
            result,
            log: Log::new(start.quiet),
            yaml: start.resolved.yaml(),
            env: format!("{env:#}\n"),
            fields,
            signals,
            begun: Instant::now(),
            limit: start.limit,
            begun_books: false,
            course: start.resolved.course(),
            undone: start.undone,
            lock,
        };
        if run.lock.is_some() {
            run.open()?;
        }
        Ok(run)
    }

    /// Takes possession of the folder, unless that was done before. Whatever can refuse the command has had its say by then.
    ///
    /// # Errors
    /// Another process has it; the disk refuses.
    pub(super) fn take(&mut self) -> Result<()> {
        if self.lock.is_some() {
            return Ok(());
        }
        if self.new {
            let RunResult { paper, config, config_sha256, .. } = &self.result;
            self.folder = folders::fresh_folder(paper, config, config_sha256)?;
        } else {
            create_folder(&self.folder)?;
        }
        let lock = folders::lock(&self.folder)?;
        if self.folder.join("result.json").exists() {
            let folder = self.folder.display();
            return Err(user!(
                "another process has begun a run in {folder} meanwhile; go on with it by --resume {folder}"
            ));
        }
        self.lock = Some(lock);
        self.open()
    }

    /// Readies the folder for this sitting.
    fn open(&mut self) -> Result<()> {
        for left in [".", "checkpoints", "figures"] {
            remove_partial(&self.folder.join(left));
        }
        if let Some(lock) = &mut self.lock {
            lock.write_all(&[b' '; RESERVE]).map_err(Error::io("write", &self.folder.join(folders::LOCK)))?;
        }
        create_folder(&self.folder.join("checkpoints"))?;
        create_folder(&self.folder.join("figures"))?;
        self.log.open(&self.folder)?;
        self.line(&format!("run folder {}", self.folder.display()))
    }

    /// Whether the folder holds the books of this run, so that a later command can go on with it.
    pub(crate) fn has_books(&self) -> bool {
        self.begun_books || self.continued
    }

    /// The result as it stands.
    pub(crate) fn result(&self) -> &RunResult {
        &self.result
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

    /// The folder that holds the run for all processes: that of rank 0.
    fn shared(&self) -> &Path {
        self.of_rank_0.as_deref().unwrap_or(&self.folder)
    }

    pub(super) fn checkpoints(&self) -> PathBuf {
        self.shared().join("checkpoints")
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

    /// The header of a checkpoint of the stage in work, with what is still to be logged.
    pub(super) fn header(&mut self, at: &Progressed, pending: Sums) -> checkpoint::Header {
        let data = self.stage().data_sha256.clone().unwrap_or_default();
        checkpoint::Header::new(&self.stage, at.step, at.seconds, &self.course, &data, pending)
    }

    /// The hashes by which checkpoints of this run know their configuration: without its lengths, and as builds before had it.
    pub(super) fn known_as(&self) -> [&str; 2] {
        [&self.course, &self.result.config_sha256]
    }

    /// Writes the weights of the stage in work, and their averages if there are any.
    pub(super) fn write_weights(&mut self, model: &Named, averages: &Named, card: Option<&str>) -> Result<()> {
        let stage = self.is_later().then_some(self.stage.as_str());
        weights::write(&self.folder.join(weights::file_name(stage, false)), model, card)?;
        if !averages.is_empty() {
            weights::write(&self.folder.join(weights::file_name(stage, true)), averages, card)?;
        }
        fill_latest(&self.folder, &self.stages);
        self.stage().weights_sha256 = Some(weights::hash(model)?);
        Ok(())
    }

    /// What the weights files of a finished stage hand over to a later one.
    pub(crate) fn hand_over(&self, stage: &str) -> Result<Named> {
        let folder = self.shared();
        let later = self.stages.first().is_some_and(|first| first != stage);
        let (given, _) = weights::hand_over(folder, later.then_some(stage))?;
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
    pub(crate) fn is_continued(&self) -> bool {
        self.continued
    }

    /// Moves the bar.
    pub(super) fn show(&mut self, at: &Progressed) {
        if let Some(progress) = &mut self.log.progress {
            progress.at(at.step);
        }
    }

    /// Hands logs and the present result to the disk.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.log.flush()?;
        self.write_result()
    }

    /// Starts the logs of a stage of which `from` steps of `total` are done. `unfinished`: the means of the last of them are still being
    /// summed, so that a row of them, which the end of a shorter run wrote, is taken back.
    pub(super) fn begin_stage(&mut self, stage: &str, from: u64, total: u64, unfinished: bool) -> Result<()> {
        self.log.begin(stage, self.is_later(), from, total, unfinished)?;
        fill_latest(&self.folder, &self.stages);
        let claimed = self.result.paper_metric.clone().into_iter();
        let metrics: Vec<_> = claimed.chain(["test/accuracy".to_string(), "test/error".to_string()]).collect();
        self.log.describe(&self.yaml, &self.fields, &metrics)
    }

    /// The means of a step's scalars since the last call.
    pub(super) fn trained(&mut self, step: &Step, seconds: f64, means: BTreeMap<String, f64>) -> Result<()> {
        let done = step.index + 1;
        let epoch = done as f64 / step.steps_per_epoch.max(1) as f64;
        let speed = done as f64 * self.stage().effective_batch as f64 / seconds.max(1e-9);
        if let Some(progress) = &mut self.log.progress {
            progress.update(done, epoch, means.get("loss").copied(), speed);
        }
        let named = means.into_iter().chain([("examples_per_second".to_string(), speed)]);
        let values = named.map(|(name, value)| (self.prefixed(&format!("train/{name}")), value)).collect();
        self.log.numbers(done, epoch, &values)
    }

    /// The findings of an evaluation after a step; the last ones of a stage go into `result.json`.
    pub(super) fn evaluated(&mut self, split: &str, step: &Step, found: &Eval, last: bool) -> Result<()> {
        let prefix = &self.prefixed(split);
        let values = found.named(prefix);
        let done = (step.index + 1).min(step.total);
        let epoch = done as f64 / step.steps_per_epoch.max(1) as f64;
        self.log.numbers(done, epoch, &values)?;
        for (name, picture) in &found.pictures {
            self.log.picture(&format!("{}-{name}", prefix.replace('/', "-")), done, picture)?;
        }
        let shown: Vec<_> =
            values.iter().filter(|(n, _)| !n.contains("/class/")).map(|(n, v)| format!("{n} {v:.4}")).collect();
        self.log.line(&format!("epoch {epoch:.2}  {}", shown.join("  ")))?;
        if last {
            self.result.metrics.extend(values);
            if found.feature_network.is_some() {
                self.result.feature_network.clone_from(&found.feature_network);
            }
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
        let config = self.folder.join("config.yaml");
        if !self.begun_books {
            self.forget_undone()?;
        }
        // Of a run that goes on first the hash and then what it is of: cut between them, the command that changed the length does so again.
        if self.continued {
            self.write_result()?;
        }
        write_atomic(&config, &[self.yaml.as_bytes()])?;
        write_atomic(&self.folder.join("env.json"), &[self.env.as_bytes()])?;
        if !self.continued {
            self.write_result()?;
        }
        if self.new && !self.begun_books {
            point_latest(&self.folder, &self.stages);
        }
        self.begun_books = true;
        Ok(())
    }

    /// Removes what another length has made void: weights of the end that is none any more, and checkpoints that began with them.
    fn forget_undone(&self) -> Result<()> {
        let Undone { longer, again } = &self.undone;
        for stage in longer.iter().chain(again) {
            let later = self.stages.first().filter(|first| *first != stage).map(|_| stage.as_str());
            for averages in [false, true] {
                let file = self.folder.join(weights::file_name(later, averages));
                if file.exists() {
                    fs::remove_file(&file).map_err(Error::io("remove", &file))?;
                }
            }
        }
        again.iter().try_for_each(|stage| checkpoint::remove_all(&self.folder.join("checkpoints"), stage))
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

    /// Lets go of the room that was kept for the words of the end.
    fn give_room(&self) {
        if let Some(lock) = &self.lock {
            let _ = lock.set_len(0);
        }
    }

    /// Ends a run that is done. Its result is the last thing that is written.
    pub(crate) fn done(&mut self) -> Result<RunResult> {
        self.log.end(true)?;
        self.give_room();
        self.result.status = Status::Done;
        self.write_result()?;
        fill_latest(&self.folder, &self.stages);
        Ok(self.result.clone())
    }

    /// Ends a run that is not done, on a disk that may be full.
    pub(crate) fn cut_short(&mut self, status: Status, line: &str) -> Result<()> {
        self.give_room();
        self.result.status = status;
        let written = if self.begun_books { self.write_result() } else { Ok(()) };
        // What the logs cannot take is on the terminal.
        let _ = self.log.file_line(line);
        let _ = self.log.end(false);
        written
    }
}

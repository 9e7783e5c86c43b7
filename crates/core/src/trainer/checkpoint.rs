//! Checkpoints: whole or absent, checked when read, the last good one kept until the next is durable.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::files::PARTIAL;
use crate::weights::Named;
use crate::{Result, user, weights};

/// Raised when a file of an older build can no longer be read.
const FORMAT: u32 = 1;
/// The ending of a checkpoint that could not be used.
const ASIDE: &str = "set-aside";

/// Sums of scalars since the last log and how many steps are in them, by name: one of each process, by rank. A run that goes on logs the
/// same means as one that was never cut.
pub(super) type Sums = BTreeMap<String, Vec<(f64, u64)>>;

/// What a checkpoint knows beside tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    format: u32,
    /// The stage's name.
    pub(super) stage: String,
    /// Steps done.
    pub(super) step: u64,
    /// Training time so far, over all sittings.
    pub(super) seconds: f64,
    /// Hash of the configuration but for its lengths, which may change; in files of older builds, of all of it.
    config_sha256: String,
    /// Hash of the data of this stage; empty in files of older builds.
    #[serde(default)]
    data_sha256: String,
    /// What is still to be logged; empty in files of older builds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) pending: Sums,
    /// Over the fields above and all tensors.
    sha256: String,
}

impl Header {
    pub(super) fn new(
        stage: &str,
        step: u64,
        seconds: f64,
        config_sha256: &str,
        data_sha256: &str,
        pending: Sums,
    ) -> Self {
        let (stage, sha256) = (stage.to_string(), String::new());
        let (config_sha256, data_sha256) = (config_sha256.to_string(), data_sha256.to_string());
        Self { format: FORMAT, stage, step, seconds, config_sha256, data_sha256, pending, sha256 }
    }

    /// Refuses to go on with other data than those that the run has learned from.
    pub(super) fn check_data(&self, sha256: &str) -> Result<()> {
        if self.data_sha256.is_empty() || self.data_sha256 == sha256 {
            return Ok(());
        }
        Err(user!(
            "the data are not those that this run began with (their hash is {sha256:.8} and was {:.8}); put them back as they were, or start a \
             new run",
            self.data_sha256
        ))
    }

    fn pending_bits(&self) -> String {
        let bits = |(sum, count): &(f64, u64)| format!("\0{}\0{count}", sum.to_bits());
        let line = |(name, sums): (&String, &Vec<_>)| format!("\0{name}{}", sums.iter().map(bits).collect::<String>());
        self.pending.iter().map(line).collect()
    }

    fn checksum(&self, state: &Named) -> Result<String> {
        let fields = format!(
            "{}\0{}\0{}\0{}\0{}\0{}{}",
            self.format,
            self.stage,
            self.step,
            self.seconds.to_bits(),
            self.config_sha256,
            self.data_sha256,
            self.pending_bits()
        );
        Ok(weights::hex(&Sha256::digest(fields + &weights::hash(state)?)))
    }
}

/// Writes `state` as the newest checkpoint in `folder` and then removes all of this stage but it and the `keep` − 1 before it.
pub(super) fn save(folder: &Path, mut header: Header, state: &Named, keep: u64) -> Result<PathBuf> {
    header.sha256 = header.checksum(state)?;
    let path = folder.join(format!("{}-{:09}.safetensors", header.stage, header.step));
    let text = serde_json::to_string(&header)
        .map_err(|e| crate::Error::Failed(format!("cannot write a checkpoint header: {e}")))?;
    weights::write(&path, state, Some(&text))?;
    for old in list(folder, &header.stage).into_iter().filter(|file| *file <= path).skip(keep as usize) {
        // One checkpoint too many does no harm.
        let _ = fs::remove_file(old);
    }
    Ok(path)
}

/// Removes the checkpoints of a stage that begins again.
pub(super) fn remove_all(folder: &Path, stage: &str) -> Result<()> {
    for file in list(folder, stage) {
        fs::remove_file(&file).map_err(crate::Error::io("remove", &file))?;
    }
    Ok(())
}

/// The stage's checkpoint files, newest step first: by the step in the name, since clocks can be set back.
fn list(folder: &Path, stage: &str) -> Vec<PathBuf> {
    let of_stage = |path: &PathBuf| {
        let stem = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        stem.strip_suffix(".safetensors").and_then(|s| s.rsplit_once('-')).is_some_and(|(name, _)| name == stage)
            && !stem.starts_with(PARTIAL)
    };
    let mut files: Vec<_> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).filter(of_stage).collect();
    files.sort();
    files.reverse();
    files
}

fn load(path: &Path) -> Result<(Header, Named)> {
    if path.is_dir() {
        return Err(user!("{} is a folder", path.display()));
    }
    let (state, meta) = weights::read(path)?;
    let meta = meta.ok_or_else(|| user!("{} holds weights but no checkpoint header", path.display()))?;
    let format = serde_json::from_str::<serde_json::Value>(&meta).ok().and_then(|v| v.get("format")?.as_u64());
    if let Some(other) = format.filter(|&f| f != u64::from(FORMAT)) {
        return Err(user!(
            "{} has checkpoint format {other}, and this program reads {FORMAT}: another version wrote it",
            path.display()
        ));
    }
    let header: Header =
        serde_json::from_str(&meta).map_err(|e| user!("{} has a damaged header: {e}", path.display()))?;
    if header.checksum(&state)? != header.sha256 {
        return Err(user!("{} is damaged: its checksum does not hold", path.display()));
    }
    Ok((header, state))
}

/// Copies a checkpoint into the tensors of `state`, if it is whole, of this configuration and of this model.
fn restore(path: &Path, known_as: [&str; 2], state: &Named) -> Result<Header> {
    let (header, saved) = load(path)?;
    if !known_as.contains(&header.config_sha256.as_str()) {
        return Err(user!("{} belongs to another configuration", path.display()));
    }
    weights::copy_into(state, &saved, &path.display().to_string())?;
    Ok(header)
}

/// Copies the newest checkpoint of `stage` that can be used into `state`; `known_as` are the hashes that its configuration may have. The newer ones that cannot are named by `tell` and set aside:
/// they keep their content and lose their name, which the run needs when it comes to that step again.
///
/// # Errors
/// There are checkpoints, and none can be used; then nothing is touched.
pub(super) fn newest(
    folder: &Path,
    stage: &str,
    known_as: [&str; 2],
    state: &Named,
    tell: &mut dyn FnMut(String),
) -> Result<Option<Header>> {
    let mut passed: Vec<(PathBuf, crate::Error)> = Vec::new();
    for path in list(folder, stage) {
        match restore(&path, known_as, state) {
            Ok(header) => {
                for (path, error) in passed {
                    tell(format!("passed over a checkpoint: {error}"));
                    // One that cannot be renamed is passed over again the next time.
                    let _ = fs::rename(&path, path.with_extension(ASIDE));
                }
                return Ok(Some(header));
            }
            Err(error) => passed.push((path, error)),
        }
    }
    if passed.is_empty() {
        return Ok(None);
    }
    let why: Vec<_> = passed.iter().map(|(_, error)| error.to_string()).collect();
    Err(user!(
        "no checkpoint in {} can be used:\n  {}\nremove that folder to start again from step 0, or start a new run",
        folder.display(),
        why.join("\n  ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Tensor;

    fn state(value: f32) -> Named {
        Named::from([("model.w".to_string(), Tensor::from_slice(&[value, 2.0, 3.0]))])
    }

    fn header(step: u64, seconds: f64, config: &str) -> Header {
        let pending = Sums::from([("loss".to_string(), vec![(seconds, 3), (0.1, 3)])]);
        Header::new("train", step, seconds, config, "data", pending)
    }

    fn save_at(folder: &Path, step: u64) -> PathBuf {
        save(folder, header(step, 1.5, "abc"), &state(step as f32), 2).unwrap()
    }

    fn newest_step(folder: &Path) -> (Option<u64>, Vec<String>) {
        let mut told = Vec::new();
        let found = newest(folder, "train", ["abc", "old"], &state(0.0), &mut |t| told.push(t)).unwrap();
        (found.map(|header| header.step), told)
    }

    #[test]
    fn the_newest_two_are_kept_and_the_newest_is_read() {
        let dir = tempfile::tempdir().unwrap();
        for step in [5, 10, 15] {
            save_at(dir.path(), step);
        }
        assert_eq!(list(dir.path(), "train").len(), 2);
        assert_eq!(newest_step(dir.path()), (Some(15), vec![]));
    }

    /// Without serde_json's `float_roundtrip` about one time in ten reads back one bit off, and the checksum with it.
    #[test]
    fn every_training_time_reads_back_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("train-000000005.safetensors");
        for i in 1..300 {
            let seconds = f64::from(i) * 0.123_456_789_123_4 + 1e-9;
            save(dir.path(), header(5, seconds, "abc"), &state(5.0), 2).unwrap();
            let read = load(&path).unwrap().0;
            assert_eq!((read.seconds, &read.pending["loss"][0]), (seconds, &(seconds, 3)));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed_and_the_one_before_is_used() {
        let dir = tempfile::tempdir().unwrap();
        save_at(dir.path(), 5);
        let last = save_at(dir.path(), 10);
        let whole = fs::read(&last).unwrap();
        for at in (0..whole.len()).step_by(7) {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            fs::write(&last, &bad).unwrap();
            let (step, told) = newest_step(dir.path());
            // A flipped bit in the padding or in the order of equal JSON may leave the content whole: then all of it must be.
            assert!(
                step == Some(5) && told.len() == 1 || load(&last).unwrap().1["model.w"] == state(10.0)["model.w"],
                "byte {at}"
            );
            fs::write(&last, &whole[..at]).unwrap();
            assert_eq!(newest_step(dir.path()).0, Some(5), "cut at {at}");
        }
        fs::remove_file(last.with_extension(ASIDE)).unwrap();
        fs::create_dir(&last).unwrap();
        assert_eq!(newest_step(dir.path()).0, Some(5));
        // The run comes to that step again, and needs the name.
        save_at(dir.path(), 10);
        assert_eq!(newest_step(dir.path()), (Some(10), vec![]));
    }

    #[test]
    fn a_damaged_newer_one_does_not_push_out_the_one_just_written() {
        let dir = tempfile::tempdir().unwrap();
        save_at(dir.path(), 5);
        fs::write(dir.path().join("train-000000010.safetensors"), b"cut").unwrap();
        assert_eq!(newest_step(dir.path()).0, Some(5));
        save(dir.path(), header(7, 0.0, "abc"), &state(7.0), 1).unwrap();
        assert_eq!(newest_step(dir.path()), (Some(7), vec![]));
        assert_eq!(list(dir.path(), "train").len(), 1);
        assert_eq!(fs::read(dir.path().join("train-000000010.set-aside")).unwrap(), b"cut");
    }

    #[test]
    fn what_is_whole_and_does_not_fit_is_named_and_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        save_at(dir.path(), 5);
        let mut newer = header(7, 0.0, "abc");
        newer.format = FORMAT + 1;
        let wide = Named::from([("model.w".to_string(), Tensor::from_slice(&[0f32; 4]))]);
        for (step, header, saved, named) in [
            (7, newer, state(1.0), "format 2"),
            (8, header(8, 0.0, "other"), state(1.0), "another configuration"),
            (9, header(9, 0.0, "abc"), wide, "model.w is [4] and should be [3]"),
        ] {
            let path = save(dir.path(), header, &saved, 9).unwrap();
            let whole = fs::read(&path).unwrap();
            let (found, told) = newest_step(dir.path());
            assert_eq!((found, told.len()), (Some(5), 1), "{step}: {told:?}");
            assert!(told[0].contains(named) && told[0].contains(path.to_str().unwrap()), "{told:?}");
            assert_eq!(fs::read(path.with_extension(ASIDE)).unwrap(), whole);
        }
    }

    #[test]
    fn nothing_whole_is_refused_and_nothing_at_all_is_a_fresh_start() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(newest_step(dir.path()), (None, vec![]));
        fs::write(dir.path().join("train-000000005.safetensors"), b"").unwrap();
        assert_eq!(newest(dir.path(), "train", ["abc", "old"], &state(0.0), &mut |_| {}).unwrap_err().exit_code(), 2);
        assert_eq!(list(dir.path(), "train").len(), 1, "what is refused stays as it is");
    }
}

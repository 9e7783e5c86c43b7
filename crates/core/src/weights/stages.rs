//! The weights of a run's stages, by their place in its folder.

use std::path::Path;

use super::{Named, load, together};
use crate::Result;

/// The name that a stage's weights have in a run folder, or their averages: those of the first stage (`None`) without its name.
pub fn file_name(stage: Option<&str>, averages: bool) -> String {
    let averages = if averages { "-ema" } else { "" };
    let stage = stage.map(|stage| format!("-{stage}")).unwrap_or_default();
    format!("weights{averages}{stage}.safetensors")
}

/// As [`load`], but of a run folder the weights of a later stage; `None`: of the first.
///
/// # Errors
/// Those of [`load`].
pub fn load_stage(path: &Path, stage: Option<&str>) -> Result<(Named, Option<String>)> {
    match stage {
        Some(_) if path.is_dir() => load(&path.join(file_name(stage, false))),
        _ => load(path),
    }
}

/// What a stage of a run folder hands over to another: `model.*`, and `ema.*` if there are averages; and what the file says of them.
///
/// # Errors
/// There are no weights of that stage, or they are damaged.
pub fn hand_over(folder: &Path, stage: Option<&str>) -> Result<(Named, Option<String>)> {
    let (model, card) = load_stage(folder, stage)?;
    let averages = folder.join(file_name(stage, true));
    let averages = if averages.is_file() { load(&averages)?.0 } else { Named::new() };
    Ok((together([("model", model), ("ema", averages)]), card))
}

//! What a trunk has learned without labels, judged by those who read it: a linear classifier and the nearest neighbours, the trunk frozen.
//!
//! The protocol of SimCLR (arXiv:2002.05709, §2.3), which MAE (arXiv:2111.06377, §4.1) has, too. A paper says by [`Trunk`] what is judged.

mod features;
mod linear;
mod neighbours;

use std::fmt;

use serde::Deserialize;
use tch::{Tensor, nn};

pub use self::features::{Features, classify};
pub use self::linear::{Batch, Head, LinearProbe, Probed};
pub use self::neighbours::{Memory, Neighbours, unit};
use crate::config::{Findings, Length};
use crate::data::{Augment, Pictures};
use crate::optim::{OptimConfig, Schedule};
use crate::setup::Setup;
use crate::trainer::Stage;
use crate::weights::Named;
use crate::{Result, user};

/// The stages by name.
pub const PROBE: &str = "probe";
/// Likewise.
pub const KNN: &str = "knn";

/// A network whose features h are judged.
pub trait Trunk: fmt::Debug + Sized {
    /// The paper's own part of a configuration.
    type Config;
    /// The first segments of its names in the state dict.
    const PARTS: &'static [&'static str];
    /// What a linear classifier on it is called there.
    const HEAD: &'static str;

    /// Under its names; see [`Self::start`] for where it starts.
    ///
    /// # Errors
    /// A network that there is not.
    fn new(root: &nn::Path, config: &Self::Config) -> Result<Self>;
    /// Its values as the paper draws them, or as the stage before has left them (`init`).
    ///
    /// # Errors
    /// Tensors that do not fit.
    fn start(store: &nn::VarStore, config: &Self::Config, init: Option<&Named>, setup: &Setup) -> Result<()>;
    /// Centred pictures `[N, C, H, W]` → h `[N, D]`, as in evaluation.
    fn features(&self, image: &Tensor) -> Tensor;
    /// D
    fn width(&self) -> i64;
    /// The configured pictures with the augmentations and the schedule of a stage.
    ///
    /// # Errors
    /// Those of [`Pictures::open`]; a schedule that does not fit the stage's length.
    fn pictures(config: &Self::Config, setup: &Setup, augment: &[Augment], schedule: &Schedule) -> Result<Pictures>;
    /// The stages' own blocks of the configuration, and the classes K.
    fn judged(config: &Self::Config) -> Judged<'_>;
}

/// By what a trunk is judged; what is `None` does not take place.
#[derive(Debug, Clone, Copy)]
pub struct Judged<'a> {
    /// By a linear classifier.
    pub probe: Option<&'a Probe>,
    /// By neighbours.
    pub knn: Option<&'a Knn>,
    /// K
    pub classes: i64,
}

/// The stages `probe` and `knn`, as far as the configuration has their blocks; they begin with what the stage `after` leaves.
pub fn stages<T: Trunk>(config: &T::Config, after: &'static str) -> Vec<Stage<T::Config>>
where
    T::Config: 'static,
{
    let Judged { probe, knn, .. } = T::judged(config);
    let linear = probe.map(|_| Stage::of::<LinearProbe<T>>(PROBE, LinearProbe::<T>::plan).after(after));
    let neighbours = knn.map(|_| Stage::of::<Neighbours<T>>(KNN, Neighbours::<T>::plan).after(after));
    linear.into_iter().chain(neighbours).collect()
}

/// A linear classifier on h, which learns while the trunk does not.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Probe {
    /// Length of its training.
    pub length: Length,
    /// Pictures a step over all processes.
    pub batch_size: u64,
    /// What is done to training pictures. Nothing: each picture's h is reckoned once, of photos that of `view.test`.
    pub augment: Vec<Augment>,
    /// The update rule.
    pub optim: OptimConfig,
    /// The factor on its learning rate.
    pub schedule: Schedule,
    /// Whether another one learns beside pre-training, from what the trunk gives at each step, without acting on it. It takes pre-training's
    /// batches and the factor of its schedule; of this block the update rule alone acts on it. `None`: no.
    pub online: Option<bool>,
    /// Whether each number of h is normalised over the batch first, without scale and shift (MAE, Appendix A.1). `None`: no.
    pub norm: Option<bool>,
}

/// k nearest neighbours among the training pictures by the cosine of h, with votes of weight exp(cosine / temperature).
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Knn {
    /// How many, at least 1.
    pub k: i64,
    /// Above 0.
    pub temperature: f64,
}

impl Probe {
    /// Refuses what cannot act on pictures of this shape `[C, H, W]`.
    pub fn check(&self, shape: [i64; 3], found: &mut Findings) {
        check_unmixed("probe.augment", &self.augment, shape, found);
        check_length("probe", self.length, self.batch_size, found);
        let normed = self.norm == Some(true);
        found.must(
            !normed || self.batch_size >= 2,
            "probe.norm",
            "has nothing to normalise over in batches of one picture; let probe.batch_size be at least 2",
        );
        found.must(
            !normed || self.online != Some(true),
            "probe.norm",
            "is not what the probe beside pre-training can do; leave it or probe.online away",
        );
    }
}

impl Knn {
    /// Refuses what cannot act.
    pub fn check(&self, found: &mut Findings) {
        found.must(self.k >= 1, "knn.k", format!("is {}; at least one neighbour must vote", self.k));
        found.must(
            self.temperature > 0.0 && self.temperature.is_finite(),
            "knn.temperature",
            format!("is {}; it must be above 0, such as 0.1", self.temperature),
        );
    }
}

/// Refuses augmentations that cannot act on pictures of this shape `[C, H, W]`, and mixtures of two.
pub fn check_unmixed(key: &str, list: &[Augment], shape: [i64; 3], found: &mut Findings) {
    found.check(key, Augment::check_all(list, shape));
    found.must(
        !list.iter().any(Augment::mixes),
        key,
        "holds mixtures of two pictures, which have no place here; remove mixup and cutmix",
    );
}

/// Refuses a length and a batch that a later stage cannot have.
pub fn check_length(stage: &str, length: Length, batch: u64, found: &mut Findings) {
    found.must(
        !length.is_zero(),
        &format!("{stage}.length"),
        "must be more than 0, such as `100 epochs`; without the stage leave the whole block away",
    );
    found.must(batch >= 1, &format!("{stage}.batch_size"), "must be at least 1");
}

/// A later stage: its name, the training pictures whose labels it learns, its batch, its length, its schedule.
pub type Later<'a> = (&'a str, u64, u64, Length, &'a Schedule);

/// Refuses later stages that do not fit so many training pictures, before the first stage spends its time: those by which a trunk is judged, and
/// `others`.
///
/// # Errors
/// Names the key.
pub fn check_later<'a>(judged: Judged<'a>, pictures: u64, others: impl Iterator<Item = Later<'a>>) -> Result<()> {
    if let Some(Knn { k, .. }) = judged.knn
        && *k as u64 > pictures
    {
        return Err(user!("knn.k is {k}, but there are {pictures} training pictures; choose 1 to {pictures}"));
    }
    let probe = judged.probe.iter().map(|p| ("probe", pictures, p.batch_size, p.length, &p.schedule));
    for (stage, known, batch, length, schedule) in probe.chain(others) {
        if batch > known {
            return Err(user!(
                "{stage}.batch_size is {batch}, but {known} of the {pictures} training pictures are learned from in this stage; choose at most \
                 {known}, or more of the labels"
            ));
        }
        let epoch = known / batch;
        schedule.check(length.steps(epoch), epoch).map_err(|error| user!("{stage}: {error}"))?;
    }
    Ok(())
}

/// A block of the configuration that a stage takes its numbers from.
///
/// # Errors
/// It is not written.
pub fn section<'a, T>(name: &str, section: Option<&'a T>) -> Result<&'a T> {
    section.ok_or_else(|| user!("{name} is missing: this stage takes its numbers from that block"))
}

//! What DDPM adds to the keys that all papers share.

use repro::config::{Findings, Settings};
use repro::data::{Augment, Normalise, View};
use repro::optim::{EmaConfig, OptimConfig, Schedule as LrSchedule};
use repro::{Result, classifier};
use serde::Deserialize;

use crate::loss::Loss;
use crate::net::{self, UnetConfig};
use crate::process::{Objective, Process, Variance};
use crate::sampler::SamplerConfig;
use crate::schedule::{Betas, Schedule};
use crate::toy;

/// The paper's own part of a configuration. Nothing that the paper fixes has a default.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Config {
    /// The network.
    pub model: ModelConfig,
    /// The forward process, and what the network says of the reverse one.
    pub diffusion: DiffusionConfig,
    /// What is minimised.
    pub loss: LossConfig,
    /// How photos become squares; for sets whose pictures have one size there is none.
    pub view: Option<View>,
    /// What is done to training pictures, in this order.
    pub augment: Vec<Augment>,
    /// The update rule.
    pub optim: OptimConfig,
    /// The factor on its learning rate.
    pub schedule: LrSchedule,
    /// The gradient's norm is at most this. `None`: it is left as it is.
    pub clip: Option<f64>,
    /// Averages of the weights. `None`: none.
    pub ema: Option<EmaConfig>,
    /// How pictures are drawn from the model.
    pub sampler: SamplerConfig,
    /// How they are judged. `None`: not at all.
    pub score: Option<ScoreConfig>,
}

/// The network.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct ModelConfig {
    /// One of [`net::variant`]'s, or [`toy::NAME`] for points of the plane.
    pub name: String,
    /// Classes K of the set. `None`: they are counted in a folder of photos.
    pub num_classes: Option<i64>,
    /// Edge of the pictures in pixels. `None`: the one that the network is made for.
    pub image_size: Option<i64>,
    /// Rate of dropout, in [0, 1). `None`: the network's own.
    pub dropout: Option<f64>,
    /// Share of the training pictures whose class is hidden from a network that is told classes (arXiv:2207.12598, Algorithm 1), in [0, 1); above 0
    /// it can be guided. `None`: it is told no classes.
    pub class_dropout: Option<f64>,
}

/// The forward process, and what the network says of the reverse one.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq)]
pub struct DiffusionConfig {
    /// T
    pub steps: usize,
    /// How β grows.
    pub betas: Betas,
    /// What the network is to predict.
    pub objective: Objective,
    /// The variance of x_{t−1}.
    pub variance: Variance,
}

/// What is minimised.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq)]
pub struct LossConfig {
    /// Which loss.
    pub kind: Loss,
    /// How t is drawn. `None`: `uniform`.
    pub steps: Option<Drawn>,
}

/// How t is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drawn {
    /// Each as often (Algorithm 1).
    Uniform,
    /// By the root of the mean square of its last ten losses (Improved DDPM, Eq. 18).
    Importance,
}

/// How pictures of the model are judged.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct ScoreConfig {
    /// The network whose features are compared: weights, or a run, of a classifier trained here; or Inception v3.
    pub features: String,
    /// Test pictures whose likelihood is bounded, T passes each. `None`: none.
    pub bits_per_dim: Option<u64>,
    /// Other samplers that are judged as well, by the averaged weights where there are some. `None`: none.
    pub ladder: Option<Vec<SamplerConfig>>,
    /// Weights of classifier-free guidance that are judged as well. `None`: none.
    pub guidance: Option<Vec<f64>>,
}

impl Config {
    /// The network's numbers; `validate` has refused names that there are not.
    ///
    /// # Errors
    /// Lists the names.
    pub fn unet(&self) -> Result<UnetConfig> {
        let ModelConfig { name, num_classes, dropout, class_dropout, .. } = &self.model;
        let mut unet = net::variant(name)?;
        unet.dropout = dropout.unwrap_or(unet.dropout);
        unet.classes = match class_dropout {
            Some(_) => Some(classifier::classes(*num_classes)?),
            None => None,
        };
        // Improved DDPM's network always has a second half, which nobody reads where variances are not learned.
        unet.learned_variance |= self.diffusion.variance == Variance::Learned;
        Ok(unet)
    }

    /// Whether the model is one of points of the plane.
    pub fn is_toy(&self) -> bool {
        self.model.name == toy::NAME
    }

    /// What one example is: `[C, H, W]`, or `[2]` of points.
    ///
    /// # Errors
    /// Those of [`Self::unet`].
    pub fn shape(&self) -> Result<Vec<i64>> {
        if self.is_toy() {
            return Ok(vec![2]);
        }
        let (channels, edge) = (self.unet()?.channels, self.edge());
        Ok(vec![channels, edge, edge])
    }

    /// Edge of the pictures in pixels.
    pub fn edge(&self) -> i64 {
        self.model.image_size.unwrap_or(match self.model.name.as_str() {
            "unet_mnist" => 28,
            _ => 32,
        })
    }

    /// The null class of classifier-free guidance, if the network knows classes.
    pub fn null_class(&self) -> Option<i64> {
        self.model.class_dropout.and(self.model.num_classes)
    }

    /// Schedule and reverse process.
    pub fn process(&self) -> Process {
        let DiffusionConfig { steps, betas, objective, variance } = self.diffusion;
        Process { schedule: Schedule::new(betas, steps), objective, variance }
    }

    /// Pictures in [−1, 1].
    pub fn normalise(&self) -> Result<Normalise> {
        let channels = self.shape()?[0] as usize;
        Ok(Normalise::Channels { mean: vec![0.5; channels], std: vec![0.5; channels] })
    }
}

/// Refuses what cannot act or contradicts itself.
pub fn validate(config: &Config, settings: &Settings) -> Findings {
    let mut found = Findings::default();
    let ModelConfig { num_classes, dropout, class_dropout, image_size, .. } = &config.model;
    let toy = config.is_toy();
    classifier::check_classes(*num_classes, &mut found);
    classifier::check_share("model.dropout", *dropout, &mut found);
    classifier::check_share("model.class_dropout", *class_dropout, &mut found);
    if toy {
        let alone = image_size.is_none() && dropout.is_none() && class_dropout.is_none();
        found.must(
            alone,
            "model",
            format!("{} has points, no pictures: leave image_size, dropout and class_dropout away", toy::NAME),
        );
        found.must(config.augment.is_empty(), "augment", "acts on pictures; points have none: write augment: []");
        found.must(config.score.is_none(), "score", "is of pictures; leave the block away");
        found.must(
            config.diffusion.variance != Variance::Learned,
            "diffusion.variance",
            "is not learned of points: write large or small",
        );
        found.must(
            toy::SETS.contains(&settings.data.name.as_str()),
            "data.name",
            format!("must be one of {} for {}", toy::SETS.join(", "), toy::NAME),
        );
    } else {
        found.must(
            !toy::SETS.contains(&settings.data.name.as_str()),
            "data.name",
            format!("has points of the plane: write model.name={}", toy::NAME),
        );
        match config.unet() {
            Ok(unet) => {
                let (edge, multiple) = (config.edge(), unet.multiple());
                found.must(
                    (multiple..=1024).contains(&edge) && edge % multiple == 0,
                    "model.image_size",
                    format!("is {edge}; {} takes multiples of {multiple} up to 1024", config.model.name),
                );
                found.check("augment", Augment::check_all(&config.augment, [unet.channels, edge, edge]));
                found.must(
                    !config.augment.iter().any(Augment::mixes),
                    "augment",
                    "holds mixtures of two pictures, which have no place here",
                );
            }
            Err(error) => found.must(false, "model", error.to_string()),
        }
    }
    let DiffusionConfig { steps, betas, variance, .. } = config.diffusion;
    let least = if betas == Betas::Linear { 21 } else { 1 };
    found.must(
        (least..=100_000).contains(&steps),
        "diffusion.steps",
        format!("is {steps}; it must be from {least} to 100000: with less, β of the last step would be above 1"),
    );
    found.must(
        config.loss.kind != Loss::Hybrid || variance == Variance::Learned,
        "loss.kind",
        "hybrid teaches a variance that is learned; write diffusion.variance=learned, or loss.kind=simple",
    );
    found.must(
        variance != Variance::Learned || config.loss.kind != Loss::Simple,
        "loss.kind",
        "simple teaches no variance; write hybrid or vlb, or a diffusion.variance that is not learned",
    );
    for (key, message) in config.sampler.problems(steps, variance) {
        found.must(false, &format!("sampler.{key}"), message);
    }
    if let Some(ema) = &config.ema {
        found.check("ema", ema.check());
    }
    found.must(config.clip.is_none_or(|most| most > 0.0 && most.is_finite()), "clip", "must be above 0, such as 1");
    found.must(
        settings.data.repeats.is_none_or(|n| n == 1),
        "data.repeats",
        "is of supervised training (DeiT's); leave the key away",
    );
    found.must(
        settings.eval.samples.is_none() || config.score.is_some(),
        "eval.samples",
        "cannot act without the block score, which names the features to compare",
    );
    if let Some(score) = &config.score {
        check_score(config, score, settings, &mut found);
    }
    found
}

fn check_score(config: &Config, score: &ScoreConfig, settings: &Settings, found: &mut Findings) {
    let DiffusionConfig { steps, variance, .. } = config.diffusion;
    let samples = settings.eval.samples;
    found.must(samples.is_some_and(|n| n >= 4), "eval.samples", "must be at least 4: so many pictures are judged");
    found.must(
        score.bits_per_dim != Some(0),
        "score.bits_per_dim",
        "must be at least 1; to bound nothing leave the key away",
    );
    for sampler in score.ladder.iter().flatten() {
        for (key, message) in sampler.problems(steps, variance) {
            found.must(false, "score.ladder", format!("{key} {message}"));
        }
    }
    let guided = config.model.class_dropout.is_some_and(|share| share > 0.0);
    found.must(
        score.guidance.is_none() || guided,
        "score.guidance",
        "needs a network that learned with and without classes; write model.class_dropout=0.1",
    );
}

//! What probe and neighbours judge: the encoder, whichever it is.

use repro::Result;
use repro::classifier;
use repro::data::{Augment, Form, Pictures};
use repro::optim::Schedule;
use repro::probe::{Judged, Trunk};
use repro::setup::Setup;
use repro::weights::{self, Load, Named, below_prefix};
use tch::{Tensor, nn};
use vit::positions;

use crate::autoencoder;
use crate::config::{Config, Named as Which};
use crate::model::{self, ENCODER, initialise};

/// An encoder with all of the picture in view.
#[derive(Debug)]
pub enum Encoder {
    /// Of patches.
    Masked(Box<model::Encoder>),
    /// Of pixels.
    Dense(autoencoder::Encoder),
}

impl Trunk for Encoder {
    type Config = Config;
    const PARTS: &'static [&'static str] = &[ENCODER[0], ENCODER[1], ENCODER[2], ENCODER[3], ENCODER[4], "encoder"];
    const HEAD: &'static str = "head";

    fn new(root: &nn::Path, config: &Config) -> Result<Self> {
        Ok(match config.named()? {
            Which::Masked(variant) => Self::Masked(Box::new(model::Encoder::new(root, variant))),
            Which::Dense(kind) => {
                Self::Dense(autoencoder::Encoder::new(root, kind, config.pixels()?, &config.layers()))
            }
        })
    }

    /// The classifier starts from N(0, 0.01²), as in the reference's main_linprobe.py.
    fn start(store: &nn::VarStore, config: &Config, init: Option<&Named>, setup: &Setup) -> Result<()> {
        let model: Named = store.variables().into_iter().collect();
        let of_head = |name: &String| below_prefix(name, Self::HEAD);
        let trunk: Named =
            model.iter().filter(|(n, _)| !of_head(n)).map(|(n, t)| (n.clone(), t.shallow_clone())).collect();
        if let Which::Masked(_) = config.named()? {
            initialise(&trunk)?;
        }
        for (_, tensor) in model.iter().filter(|(name, tensor)| of_head(name) && tensor.requires_grad()) {
            let mut tensor = tensor.shallow_clone();
            let _ = tch::no_grad(|| if tensor.dim() == 2 { tensor.f_normal_(0.0, 0.01) } else { tensor.f_zero_() })?;
        }
        take_over(&trunk, config, init, setup)
    }

    fn features(&self, image: &Tensor) -> Tensor {
        match self {
            Self::Masked(encoder) => encoder.features(image),
            Self::Dense(encoder) => encoder.forward(image).0,
        }
    }

    fn width(&self) -> i64 {
        match self {
            Self::Masked(encoder) => encoder.width(),
            Self::Dense(encoder) => encoder.width(),
        }
    }

    fn pictures(config: &Config, setup: &Setup, augment: &[Augment], schedule: &Schedule) -> Result<Pictures> {
        let [channels, edge, _] = config.shape()?;
        let form = Form {
            edge,
            channels,
            classes: config.model.num_classes,
            augment,
            normalise: &config.normalise,
            view: config.view.as_ref(),
        };
        classifier::open(&form, schedule, setup)
    }

    fn judged(config: &Config) -> Judged<'_> {
        let Config { probe, knn, .. } = config;
        Judged { probe: probe.as_ref(), knn: knn.as_ref(), classes: config.model.num_classes }
    }
}

/// Copies what `init` (`model.…`) has of the tensors `model` into them: at least the whole encoder. Its positions are resized if that is asked for;
/// a classifier of other classes is left as it is.
///
/// # Errors
/// A tensor of the encoder that it lacks, or that has another shape.
pub fn take_over(model: &Named, config: &Config, init: Option<&Named>, setup: &Setup) -> Result<()> {
    let Some(init) = init else { return Ok(()) };
    let fitted = match config.named()? {
        Which::Masked(variant) => positions::fit(init, &variant, config.model.resize_positions.unwrap_or(false))?,
        Which::Dense(_) => weights::below(init, ""),
    };
    let given = weights::below(&fitted, "model.");
    let of_encoder = |name: &String| Encoder::PARTS.iter().any(|part| below_prefix(name, part));
    let shared = |all: &Named, has: &dyn Fn(&String) -> bool| -> Named {
        all.iter().filter(|(name, _)| has(name)).map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    };
    let ours = shared(model, &|name| of_encoder(name) || given.contains_key(name));
    let theirs = shared(&given, &|name| ours.contains_key(name));
    let load = Load { head: &[Encoder::HEAD], ..Load::of("the encoder that this stage begins with") };
    load.copy(&ours, &theirs)?.into_iter().for_each(|note| setup.note(note));
    Ok(())
}

//! Training (§3.4 for photos, §4.2 for CIFAR-10): the one stage of this paper.

use repro::classifier::{self, Card, error_rate, mixed_cross_entropy};
use repro::config::Settings;
use repro::data::Split;
use repro::data::{Augment, Form, Images, Pictures};
use repro::nn::{self as layers, Mode};
use repro::optim::{Ema, Group, Optimizer, Params, Sam};
use repro::setup::Setup;
use repro::trainer::{Eval, Means, Plan, Recipe, Scalars, Step};
use repro::weights::{Named, together};
use repro::{Result, weights};
use tch::{Tensor, nn};

use crate::config::Config;
use crate::model::{Network, Stem, Variant, initialise};

/// Below this edge the stem for photos leaves too little of a picture (32 pixels become one).
const LEAST_FOR_PHOTO_STEM: i64 = 64;

/// How long the stage lasts, and how fast it learns.
pub fn plan(config: &Config, settings: &Settings) -> Plan {
    Plan::first(settings, (config.optim.lr(256), config.optim.lr(settings.batch_size)))
}

/// Supervised training of a network on labelled pictures.
#[derive(Debug)]
pub struct Train {
    config: Config,
    net: Network,
    store: nn::VarStore,
    params: Params,
    optimizer: Optimizer,
    sam: Option<Sam>,
    lr: f64,
    ema: Option<Ema>,
}

impl Recipe for Train {
    type Config = Config;
    type Batch = Images;
    type Data = Pictures;

    fn data(config: &Config, setup: &Setup) -> Result<Pictures> {
        let variant = config.variant()?;
        let edge = config.edge(variant);
        if matches!(variant, Variant::Photo { stem: Stem::Photo, .. }) && edge < LEAST_FOR_PHOTO_STEM {
            setup.note(format!(
                "{} is made for 224 pixels: its stem leaves 1/32 of an edge, and these pictures have {edge}; {}_cifar keeps more of them",
                config.model.name, config.model.name
            ));
        }
        let (batch, share) = (setup.settings.batch_size, setup.settings.batch_size / setup.world);
        let seen = setup.settings.compute.micro_batch.map_or(share, |micro| micro.min(share));
        let fewest = if share.is_multiple_of(seen) { seen } else { share % seen };
        variant.check_batch(fewest as i64, Augment::edge_after(&config.augment, edge))?;
        if seen < batch {
            setup.note(format!("batch norm sees {seen} pictures at a time, and not the batch of {batch}"));
        }
        let form = Form {
            edge,
            channels: 3,
            classes: config.classes()?,
            augment: &config.augment,
            normalise: &config.normalise,
            view: config.view.as_ref(),
        };
        classifier::open(&form, &config.schedule, setup)
    }

    fn build(config: &Config, setup: &Setup, init: Option<&Named>) -> Result<Self> {
        let (store, variant) = (nn::VarStore::new(setup.device), config.variant()?);
        let net = Network::new(&store.root(), variant, config.classes()?);
        let model: Named = store.variables().into_iter().collect();
        initialise(&model, variant, config.model.zero_init.unwrap_or(false))?;
        layers::kernels_channels_last(&store)?;
        weights::begin(&model, init, &[variant.head()], setup)?;
        // Norms and biases decay as well (§3.4; both references).
        let group = Group::of(config.optim.weight_decay());
        let params = config.optim.params(&store, |_, _| Some(group))?;
        let optimizer = config.optim.build(&params)?;
        let sam = config.sam.as_ref().map(Sam::new).transpose()?;
        let ema = config.ema.as_ref().map(|ema| Ema::new(&model, ema)).transpose()?;
        let lr = config.optim.lr(setup.settings.batch_size);
        Ok(Train { config: config.clone(), net, store, params, optimizer, sam, lr, ema })
    }

    fn step(&mut self, batch: Images, _: &Pictures, at: &Step) -> Result<Scalars> {
        let lr = self.lr * self.config.schedule.factor(at.index, at.total, at.steps_per_epoch);
        let means = self.gradient(&batch, at, Mode::Train)?;
        if let Some(mut sam) = self.sam.take() {
            // arXiv:2010.01412, Algorithm 1: the gradient of the second pass, at w + ε, is what moves w.
            sam.climb(&self.params)?;
            at.reseed();
            self.gradient(&batch, at, Mode::TrainAgain)?;
            sam.back(&self.params)?;
            self.sam = Some(sam);
        }
        self.optimizer.step(lr)?;
        if let Some(ema) = &mut self.ema {
            ema.update(at.index)?;
        }
        Ok(means.with(&[("lr", lr)]))
    }

    fn evaluate(&mut self, data: &Pictures, split: Split, at: &Step, out: &mut Eval) -> Result<()> {
        let logits = |image: &Tensor| Ok(self.net.forward(image, Mode::Eval).logits);
        out.with_average(self.ema.as_ref(), |out| classifier::measure(data, split, at, logits, out))
    }

    fn state(&self) -> Named {
        let model = self.store.variables().into_iter().collect();
        let parts = [("model", model), ("optim", self.optimizer.state())];
        together(parts.into_iter().chain(self.ema.as_ref().map(|ema| ("ema", ema.state()))))
    }

    fn card(&self, data: &Pictures) -> Option<String> {
        Card::of(data).ok()?.text()
    }

    fn has_validation(data: &Pictures) -> bool {
        data.has_validation()
    }
}

impl Train {
    /// The gradient of the mean loss over the batch, worked off in parts; with that loss and the share of wrong answers.
    fn gradient(&self, batch: &Images, at: &Step, mode: Mode) -> Result<Means> {
        let smoothing = self.config.label_smoothing.unwrap_or(0.0);
        let mut means = Means::default();
        self.params.zero_grad();
        for (start, n, share) in at.parts(batch.image.size()[0]) {
            let part = batch.part(start, n);
            let logits = at.autocast(|| self.net.forward(&part.image, mode).logits)?;
            let loss = mixed_cross_entropy(&logits, &part, smoothing);
            at.micro(&loss, share)?;
            means.add(share, [("loss", &loss), ("error", &error_rate(&logits, &part.label))]);
        }
        at.average(&self.params)?;
        Ok(means)
    }
}

//! Training (§3.4 for photos, §4.2 for CIFAR-10): the one stage of this paper.

use repro::classifier::{self, Card};
use repro::config::Settings;
use repro::data::{Form, Images, Pictures, Source};
use repro::nn::{self as layers, Mode};
use repro::optim::{Ema, Group, Optimizer, Params, Sam};
use repro::trainer::{Eval, Named, Plan, Recipe, Scalar, Scalars, Setup, Split, Step};
use repro::{Error, Result, loss, weights};
use tch::{Tensor, nn};

use crate::config::Config;
use crate::model::{Network, Stem, Variant, initialise};

/// Below this edge the stem for photos leaves too little of a picture (32 pixels become one).
const LEAST_FOR_PHOTO_STEM: i64 = 64;

/// How long the stage lasts, and how fast it learns.
pub fn plan(config: &Config, settings: &Settings) -> Plan {
    Plan {
        stage: "train",
        later: false,
        length: settings.length,
        batch_size: settings.batch_size,
        lr: (config.optim.lr(256), config.optim.lr(settings.batch_size)),
    }
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
        if seen < batch {
            setup.note(format!("batch norm sees {seen} pictures at a time, and not the batch of {batch}"));
        }
        let form = Form {
            edge,
            classes: config.model.num_classes,
            augment: &config.augment,
            normalise: &config.normalise,
            view: config.view.as_ref(),
        };
        let data = Pictures::open(&form, setup)?;
        let steps_per_epoch = data.len() / setup.settings.batch_size;
        if steps_per_epoch > 0 {
            config.schedule.check(setup.settings.length.steps(steps_per_epoch), steps_per_epoch)?;
        }
        Ok(data)
    }

    fn build(config: &Config, setup: &Setup, init: Option<&Named>) -> Result<Self> {
        let (store, variant) = (nn::VarStore::new(setup.device), config.variant()?);
        let net = Network::new(&store.root(), variant, config.model.num_classes);
        initialise(&store, variant, config.model.zero_init.unwrap_or(false))?;
        layers::kernels_channels_last(&store)?;
        let model: Named = store.variables().into_iter().collect();
        if let Some(init) = init {
            weights::copy_into(&model, &weights::below(init, "model."), "the stage before")?;
        }
        // Norms and biases decay as well (§3.4; both references).
        let group = Group { lr_scale: 1.0, weight_decay: config.optim.weight_decay() };
        let params = Params::new(&store, |_, _| group)?;
        let optimizer = config.optim.build(&params)?;
        let sam = config.sam.as_ref().map(Sam::new).transpose()?;
        let ema = config.ema.as_ref().map(|ema| Ema::new(&model, ema.decay)).transpose()?;
        let lr = config.optim.lr(setup.settings.batch_size);
        Ok(Train { config: config.clone(), net, store, params, optimizer, sam, lr, ema })
    }

    fn step(&mut self, batch: Images, _: &Pictures, at: &Step) -> Result<Scalars> {
        let lr = self.lr * self.config.schedule.factor(at.index, at.total, at.steps_per_epoch);
        let (loss, error) = self.gradient(&batch, at, Mode::Train)?;
        if let Some(mut sam) = self.sam.take() {
            // arXiv:2010.01412, Algorithm 1: the gradient of the second pass, at w + ε, is what moves w.
            sam.climb(&self.params)?;
            at.reseed();
            let _ = self.gradient(&batch, at, Mode::TrainAgain)?;
            sam.back(&self.params)?;
            self.sam = Some(sam);
        }
        self.optimizer.step(lr)?;
        if let Some(ema) = &mut self.ema {
            ema.update()?;
        }
        Ok(vec![("loss", Scalar::Device(loss)), ("error", Scalar::Device(error)), ("lr", Scalar::Host(lr))])
    }

    fn evaluate(&mut self, data: &Pictures, split: Split, out: &mut Eval) -> Result<()> {
        let logits = |image: &Tensor| Ok(self.net.forward(image, Mode::Eval).logits);
        classifier::measure(data, split, logits, out)?;
        match &self.ema {
            Some(ema) => out.averaged(|out| ema.applied(|| classifier::measure(data, split, logits, out))?),
            None => Ok(()),
        }
    }

    fn state(&self) -> Named {
        let mut state = Named::new();
        let mut add = |group: &str, tensors: Named| {
            state.extend(tensors.into_iter().map(|(name, t)| (format!("{group}.{name}"), t)))
        };
        add("model", self.store.variables().into_iter().collect());
        add("optim", self.optimizer.state());
        if let Some(ema) = &self.ema {
            add("ema", ema.state());
        }
        state
    }

    fn card(&self, data: &Pictures) -> Option<String> {
        Card::of(data).ok()?.text()
    }

    fn has_validation(data: &Pictures) -> bool {
        data.has_validation()
    }
}

impl Train {
    /// The gradient of the mean loss over the batch; returns that loss and the share of wrong answers.
    fn gradient(&self, batch: &Images, at: &Step, mode: Mode) -> Result<(Tensor, Tensor)> {
        self.params.zero_grad();
        let smoothing = self.config.label_smoothing.unwrap_or(0.0);
        let mut means: Option<(Tensor, Tensor)> = None;
        for (start, n, share) in at.parts(batch.image.size()[0]) {
            let part = batch.part(start, n);
            let logits = at.autocast(|| self.net.forward(&part.image, mode).logits)?;
            let loss = loss::mixed_cross_entropy(&logits, &part, smoothing);
            at.micro(&loss, share)?;
            let part = (loss.detach() * share, classifier::batch_error(&logits, &part.label) * share);
            means =
                Some(means.map_or_else(
                    || (part.0.shallow_clone(), part.1.shallow_clone()),
                    |(l, e)| (l + &part.0, e + &part.1),
                ));
        }
        at.average(&self.params)?;
        means.ok_or_else(|| Error::Failed("a batch without pictures".into()))
    }
}

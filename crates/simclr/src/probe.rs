//! The linear evaluation protocol (§2.3, Appendix B.5 and B.6): a linear classifier on h, the trunk frozen.

use repro::classifier::{self, Card, error_rate};
use repro::config::Settings;
use repro::data::{Cursor, Images, Pictures, Source, Split};
use repro::nn::{self as layers, Mode};
use repro::optim::{Group, Optimizer, Params};
use repro::random::order;
use repro::setup::Setup;
use repro::trainer::{Eval, Means, Plan, Recipe, Scalars, Step};
use repro::weights::{Named, together};
use repro::{Error, Result, loss};
use tch::{Kind, Tensor, nn};

use crate::config::{Config, Probe};
use crate::data::{Features, open};
use crate::model::{BACKBONE, Classifier, start, trunk_of};

/// How long the stage lasts, and how fast it learns.
pub fn plan(config: &Config, settings: &Settings) -> Plan {
    match &config.probe {
        Some(Probe { length, batch_size, optim, .. }) => {
            Plan { length: Some(*length), batch_size: *batch_size, lr: (optim.lr(256), optim.lr(*batch_size)) }
        }
        None => Plan { length: None, batch_size: settings.batch_size, lr: (0.0, 0.0) },
    }
}

/// What a step sees.
#[derive(Debug)]
pub enum Batch {
    /// Augmented pictures.
    Pictures(Images),
    /// Places of pictures in the set, where nothing is drawn: what the trunk makes of each is known already.
    Places(Tensor),
}

/// The training pictures, or their places.
#[derive(Debug)]
pub struct Probed {
    /// What is evaluated on.
    pub pictures: Pictures,
    still: bool,
}

impl Source for Probed {
    type Batch = Batch;

    fn len(&self) -> u64 {
        self.pictures.len()
    }

    fn batches(&self, from: Cursor) -> Box<dyn Iterator<Item = Result<Batch>> + '_> {
        if !self.still {
            return Box::new(self.pictures.batches(from).map(|images| Ok(Batch::Pictures(images?))));
        }
        let (share, steps) = (from.batch / from.world, from.steps_per_epoch(self.len()).max(1));
        let mut known: Option<(u64, Vec<i64>)> = None;
        Box::new((from.step..).map(move |step| {
            from.check(self.len())?;
            let epoch = step / steps;
            let start = (step % steps * from.batch + from.rank * share) as usize;
            if known.as_ref().is_none_or(|(of, _)| *of != epoch) {
                known = Some((epoch, order(from.seed, epoch, self.len())));
            }
            let places = known.as_ref().map_or(&[][..], |(_, order)| &order[start..start + share as usize]);
            Ok(Batch::Places(Tensor::f_from_slice(places)?))
        }))
    }

    fn sha256(&self) -> String {
        self.pictures.sha256()
    }

    fn notes(&self) -> Vec<String> {
        self.pictures.notes()
    }
}

/// A linear classifier that learns from a trunk that does not.
#[derive(Debug)]
pub struct LinearProbe {
    section: Probe,
    net: Classifier,
    store: nn::VarStore,
    trunk: Named,
    params: Params,
    optimizer: Optimizer,
    lr: f64,
    known: Option<Features>,
}

impl Recipe for LinearProbe {
    type Config = Config;
    type Batch = Batch;
    type Data = Probed;

    fn data(config: &Config, setup: &Setup) -> Result<Probed> {
        let Probe { augment, schedule, .. } = config.section("probe", &config.probe)?;
        Ok(Probed { pictures: open(config, setup, augment, schedule)?, still: augment.is_empty() })
    }

    fn build(config: &Config, setup: &Setup, init: Option<&Named>) -> Result<Self> {
        let section = config.section("probe", &config.probe)?.clone();
        let store = nn::VarStore::new(setup.device);
        let net = Classifier::new(&store.root(), config, None)?;
        start(&store, config, init, setup)?;
        layers::kernels_channels_last(&store)?;
        let trunk = trunk_of(&store);
        for tensor in trunk.values().filter(|tensor| tensor.requires_grad()) {
            let _ = tensor.shallow_clone().f_set_requires_grad(false)?;
        }
        let decay = section.optim.weight_decay();
        let params = section.optim.params(&store, |_, _| Some(Group::of(decay)))?;
        let optimizer = section.optim.build(&params)?;
        let lr = section.optim.lr(setup.settings.batch_size);
        Ok(LinearProbe { section, net, store, trunk, params, optimizer, lr, known: None })
    }

    fn step(&mut self, batch: Batch, data: &Probed, at: &Step) -> Result<Scalars> {
        let lr = self.lr * self.section.schedule.factor(at.index, at.total, at.steps_per_epoch);
        let Features { h, label } = self.features(batch, data, at)?;
        let logits = self.net.logits(&h);
        let loss = loss::cross_entropy(&logits, &label, 0.0);
        self.params.zero_grad();
        at.backward(&loss, &self.params)?;
        self.frozen()?;
        self.optimizer.step(lr)?;
        let mut means = Means::default();
        means.add(1.0, [("loss", &loss), ("error", &error_rate(&logits, &label))]);
        Ok(means.with(&[("lr", lr)]))
    }

    fn evaluate(&mut self, data: &Probed, split: Split, at: &Step, out: &mut Eval) -> Result<()> {
        let logits = |image: &Tensor| Ok(self.net.forward(image, Mode::Eval));
        classifier::measure(&data.pictures, split, at, logits, out)
    }

    fn state(&self) -> Named {
        let model = self.store.variables().into_iter().collect();
        together([("model", model), ("optim", self.optimizer.state())])
    }

    fn still(&self) -> &'static [&'static str] {
        &[BACKBONE]
    }

    fn card(&self, data: &Probed) -> Option<String> {
        Card::of(&data.pictures).ok()?.text()
    }

    fn has_validation(data: &Probed) -> bool {
        data.pictures.has_validation()
    }
}

impl LinearProbe {
    /// h of a batch, by running statistics and without a graph.
    fn features(&mut self, batch: Batch, data: &Probed, at: &Step) -> Result<Features> {
        match batch {
            Batch::Pictures(Images { image, label, .. }) => {
                let forward = || tch::no_grad(|| self.net.encoder.forward(&image, Mode::Eval));
                Ok(Features { h: at.autocast(forward)?.f_to_kind(Kind::Float)?, label })
            }
            Batch::Places(places) => {
                let known = match self.known.take() {
                    Some(known) => known,
                    None => Features::of_training(&self.net.encoder, &data.pictures)?,
                };
                let found = known.at(&places.f_to_device(at.setup.device)?);
                self.known = Some(known);
                found
            }
        }
    }

    /// A public repository's numbers turned out to be those of a trunk that had learned on; here that ends the run.
    fn frozen(&self) -> Result<()> {
        match self.trunk.iter().find(|(_, tensor)| tensor.requires_grad() || tensor.grad().defined()) {
            None => Ok(()),
            Some((name, _)) => Err(Error::Failed(format!(
                "internal error: {BACKBONE}.{name} takes a gradient in a probe of a frozen trunk"
            ))),
        }
    }
}

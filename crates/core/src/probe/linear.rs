//! The linear evaluation protocol: a linear classifier on h, the trunk frozen.

use tch::{Kind, Tensor, nn};

use super::{Features, Probe, Trunk, section};
use crate::classifier::{self, Card, error_rate};
use crate::config::Settings;
use crate::data::{Cursor, Images, Pictures, Source, Split};
use crate::nn::{self as layers, BatchNorm2d, BatchNormConfig, Linear, Mode};
use crate::optim::{Group, Optimizer, Params};
use crate::random::order;
use crate::setup::Setup;
use crate::trainer::{Eval, Means, Plan, Recipe, Scalars, Step};
use crate::weights::{Named, below_prefix, together};
use crate::{Error, Result, loss};

/// Added to the variance by the classifier's norm (facebookresearch/mae, main_linprobe.py).
const EPS: f64 = 1e-6;

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

/// A linear classifier, with or without a norm before it.
#[derive(Debug)]
pub struct Head {
    norm: Option<BatchNorm2d>,
    linear: Linear,
}

impl Head {
    /// `<name>.weight` and `.bias`, as PyTorch's layer starts; with the norm `<name>.0.running_mean`, … and `<name>.1.weight`.
    pub fn new(path: &nn::Path, width: i64, classes: i64, normed: bool) -> Self {
        let norm = BatchNormConfig { eps: EPS, weight: false, bias: false, ..BatchNormConfig::default() };
        match normed {
            false => Self { norm: None, linear: Linear::new(path, width, classes) },
            true => Self {
                norm: Some(BatchNorm2d::with(&(path / 0), width, norm)),
                linear: Linear::new(&(path / 1), width, classes),
            },
        }
    }

    /// h `[N, D]` → logits `[N, K]`.
    pub fn forward(&self, h: &Tensor, mode: Mode) -> Tensor {
        match &self.norm {
            Some(norm) => self.linear.forward(&norm.forward(h, mode)),
            None => self.linear.forward(h),
        }
    }
}

/// A linear classifier that learns from a trunk that does not.
#[derive(Debug)]
pub struct LinearProbe<T: Trunk> {
    section: Probe,
    trunk: T,
    head: Head,
    store: nn::VarStore,
    /// The trunk's tensors, by name.
    still: Named,
    params: Params,
    optimizer: Optimizer,
    lr: f64,
    known: Option<Features>,
}

impl<T: Trunk> LinearProbe<T> {
    /// How long the stage lasts, and how fast it learns.
    pub fn plan(config: &T::Config, settings: &Settings) -> Plan {
        match T::judged(config).probe {
            Some(Probe { length, batch_size, optim, .. }) => {
                Plan { length: Some(*length), batch_size: *batch_size, lr: (optim.lr(256), optim.lr(*batch_size)) }
            }
            None => Plan { length: None, batch_size: settings.batch_size, lr: (0.0, 0.0) },
        }
    }
}

impl<T: Trunk> Recipe for LinearProbe<T> {
    type Config = T::Config;
    type Batch = Batch;
    type Data = Probed;

    fn data(config: &T::Config, setup: &Setup) -> Result<Probed> {
        let Probe { augment, schedule, .. } = section("probe", T::judged(config).probe)?;
        Ok(Probed { pictures: T::pictures(config, setup, augment, schedule)?, still: augment.is_empty() })
    }

    fn build(config: &T::Config, setup: &Setup, init: Option<&Named>) -> Result<Self> {
        let judged = T::judged(config);
        let section = section("probe", judged.probe)?.clone();
        let store = nn::VarStore::new(setup.device);
        let trunk = T::new(&store.root(), config)?;
        let head = store.root() / T::HEAD;
        let head = Head::new(&head, trunk.width(), judged.classes, section.norm.unwrap_or(false));
        T::start(&store, config, init, setup)?;
        layers::kernels_channels_last(&store)?;
        let of_trunk = |name: &str| T::PARTS.iter().any(|part| below_prefix(name, part));
        let still: Named = store.variables().into_iter().filter(|(name, _)| of_trunk(name)).collect();
        for tensor in still.values().filter(|tensor| tensor.requires_grad()) {
            let _ = tensor.shallow_clone().f_set_requires_grad(false)?;
        }
        let decay = section.optim.weight_decay();
        let params = section.optim.params(&store, |_, _| Some(Group::of(decay)))?;
        let optimizer = section.optim.build(&params)?;
        let lr = section.optim.lr(setup.settings.batch_size);
        Ok(LinearProbe { section, trunk, head, store, still, params, optimizer, lr, known: None })
    }

    fn step(&mut self, batch: Batch, data: &Probed, at: &Step) -> Result<Scalars> {
        let lr = self.lr * self.section.schedule.factor(at.index, at.total, at.steps_per_epoch);
        let Features { h, label } = self.features(batch, data, at)?;
        let logits = self.head.forward(&h, Mode::Train);
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
        let logits = |image: &Tensor| Ok(self.head.forward(&self.trunk.features(image), Mode::Eval));
        classifier::measure(&data.pictures, split, at, logits, out)
    }

    fn state(&self) -> Named {
        let model = self.store.variables().into_iter().collect();
        together([("model", model), ("optim", self.optimizer.state())])
    }

    fn still(&self) -> &'static [&'static str] {
        T::PARTS
    }

    fn card(&self, data: &Probed) -> Option<String> {
        Card::of(&data.pictures).ok()?.text()
    }

    fn has_validation(data: &Probed) -> bool {
        data.pictures.has_validation()
    }
}

impl<T: Trunk> LinearProbe<T> {
    /// h of a batch, by running statistics and without a graph.
    fn features(&mut self, batch: Batch, data: &Probed, at: &Step) -> Result<Features> {
        match batch {
            Batch::Pictures(Images { image, label, .. }) => {
                let forward = || tch::no_grad(|| self.trunk.features(&image));
                Ok(Features { h: at.autocast(forward)?.f_to_kind(Kind::Float)?, label })
            }
            Batch::Places(places) => {
                let known = match self.known.take() {
                    Some(known) => known,
                    None => Features::of_training(&self.trunk, &data.pictures)?,
                };
                let found = known.at(&places.f_to_device(at.setup.device)?);
                self.known = Some(known);
                found
            }
        }
    }

    /// A public repository's numbers turned out to be those of a trunk that had learned on; here that ends the run.
    fn frozen(&self) -> Result<()> {
        match self.still.iter().find(|(_, tensor)| tensor.requires_grad() || tensor.grad().defined()) {
            None => Ok(()),
            Some((name, _)) => {
                Err(Error::Failed(format!("internal error: {name} takes a gradient in a probe of a frozen trunk")))
            }
        }
    }
}

//! Fine-tuning (§4.2, Tables 7 and 8, Appendix B.5): the whole network learns labels, of all pictures or of a few.

use repro::classifier::{self, Card, error_rate};
use repro::config::Settings;
use repro::data::{Images, Pictures, Source, Split};
use repro::nn::{self as layers, Mode};
use repro::optim::{Group, Optimizer, Params};
use repro::probe::section;
use repro::setup::Setup;
use repro::trainer::{Eval, Means, Plan, Recipe, Scalars, Step};
use repro::weights::{self, Named, together};
use repro::{Result, loss};
use tch::{Tensor, nn};

use crate::config::{Config, Finetune};
use crate::data::{check_later, open};
use crate::model::{Classifier, start};

/// How long the stage lasts, and how fast it learns.
pub fn plan(config: &Config, settings: &Settings) -> Plan {
    match &config.finetune {
        Some(Finetune { length, batch_size, optim, .. }) => {
            Plan { length: Some(*length), batch_size: *batch_size, lr: (optim.lr(256), optim.lr(*batch_size)) }
        }
        None => Plan { length: None, batch_size: settings.batch_size, lr: (0.0, 0.0) },
    }
}

/// Supervised training from the trunk.
#[derive(Debug)]
pub struct Finetuned {
    section: Finetune,
    net: Classifier,
    store: nn::VarStore,
    params: Params,
    optimizer: Optimizer,
    lr: f64,
}

impl Recipe for Finetuned {
    type Config = Config;
    type Batch = Images;
    type Data = Pictures;

    /// Of a share of the labels, as many pictures of each class (Table 7; B.5), the same for every seed: those of `data.limit_train` with
    /// `data.balanced`.
    fn data(config: &Config, setup: &Setup) -> Result<Pictures> {
        let section = section("finetune", config.finetune.as_ref())?;
        let Finetune { augment, schedule, labels, .. } = section;
        if *labels == 1.0 {
            return open(config, setup, augment, schedule);
        }
        let all = open(config, setup, &[], schedule)?.len();
        check_later(config, all)?;
        let mut few = setup.for_stage(&setup.stage, false, Some(setup.settings.length), setup.settings.batch_size);
        few.settings.data.limit_train = Some(section.known(all));
        few.settings.data.balanced = Some(true);
        open(config, &few, augment, schedule)
    }

    fn build(config: &Config, setup: &Setup, init: Option<&Named>) -> Result<Self> {
        let section = section("finetune", config.finetune.as_ref())?.clone();
        let store = nn::VarStore::new(setup.device);
        let net = Classifier::new(&store.root(), config, false, setup.exchange())?;
        start(&store, config, init, setup)?;
        layers::kernels_channels_last(&store)?;
        weights::begin(&store.variables().into_iter().collect(), None, &[], setup)?;
        let decay = section.optim.weight_decay();
        let params = section.optim.params(&store, |_, _| Some(Group::of(decay)))?;
        let optimizer = section.optim.build(&params)?;
        let lr = section.optim.lr(setup.settings.batch_size);
        Ok(Finetuned { section, net, store, params, optimizer, lr })
    }

    fn step(&mut self, batch: Images, _: &Pictures, at: &Step) -> Result<Scalars> {
        let lr = self.lr * self.section.schedule.factor(at.index, at.total, at.steps_per_epoch);
        let logits = at.autocast(|| self.net.forward(&batch.image, Mode::Train))?;
        let loss = loss::cross_entropy(&logits, &batch.label, 0.0);
        self.params.zero_grad();
        at.backward(&loss, &self.params)?;
        self.optimizer.step(lr)?;
        let mut means = Means::default();
        means.add(1.0, [("loss", &loss), ("error", &error_rate(&logits, &batch.label))]);
        Ok(means.with(&[("lr", lr)]))
    }

    fn evaluate(&mut self, data: &Pictures, split: Split, at: &Step, out: &mut Eval) -> Result<()> {
        let logits = |image: &Tensor| Ok(self.net.forward(image, Mode::Eval));
        classifier::measure(data, split, at, logits, out)
    }

    fn state(&self) -> Named {
        let model = self.store.variables().into_iter().collect();
        together([("model", model), ("optim", self.optimizer.state())])
    }

    fn card(&self, data: &Pictures) -> Option<String> {
        Card::of(data).ok()?.text()
    }

    fn has_validation(data: &Pictures) -> bool {
        data.has_validation()
    }
}

//! Fine-tuning (§4, Appendix A.1): `vit` trains the encoder, which has all patches in view again.

use repro::Result;
use repro::config::Settings;
use repro::data::{Images, Pictures, Source, Split};
use repro::probe::{Trunk, section};
use repro::setup::Setup;
use repro::trainer::{Eval, Plan, Recipe, Scalars, Step};
use repro::weights::{Named, below};
use vit::train::Train;

use crate::config::{Config, Finetune};
use crate::trunk::{Encoder, take_over};

/// Deviation of the classifier's first weights, as in the reference (main_finetune.py).
const HEAD: f64 = 2e-5;

/// How long the stage lasts, and how fast it learns.
pub fn plan(config: &Config, settings: &Settings) -> Plan {
    match &config.finetune {
        Some(Finetune { length, batch_size, optim, .. }) => {
            Plan { length: Some(*length), batch_size: *batch_size, lr: (optim.lr(256), optim.lr(*batch_size)) }
        }
        None => Plan { length: None, batch_size: settings.batch_size, lr: (0.0, 0.0) },
    }
}

/// A vision transformer that starts from the encoder.
#[derive(Debug)]
pub struct Finetuned(Train);

impl Recipe for Finetuned {
    type Config = Config;
    type Batch = Images;
    type Data = Pictures;

    /// Of a share of the labels, as many pictures of each class, the same for every seed.
    fn data(config: &Config, setup: &Setup) -> Result<Pictures> {
        let section = section("finetune", config.finetune.as_ref())?;
        if section.labels == 1.0 {
            return Train::data(&config.tuning()?, setup);
        }
        let all = Encoder::pictures(config, setup, &[], &section.schedule)?.len();
        let mut few = setup.for_stage(&setup.stage, false, Some(setup.settings.length), setup.settings.batch_size);
        few.settings.data.limit_train = Some(section.known(all));
        few.settings.data.balanced = Some(true);
        Train::data(&config.tuning()?, &few)
    }

    fn build(config: &Config, setup: &Setup, init: Option<&Named>) -> Result<Self> {
        let train = Train::build(&config.tuning()?, setup, None)?;
        let model = below(&train.state(), "model.");
        let _ = tch::no_grad(|| model["head.weight"].shallow_clone().f_normal_(0.0, HEAD))?;
        take_over(&model, config, init, setup)?;
        Ok(Self(train))
    }

    fn step(&mut self, batch: Images, data: &Pictures, at: &Step) -> Result<Scalars> {
        self.0.step(batch, data, at)
    }

    fn evaluate(&mut self, data: &Pictures, split: Split, at: &Step, out: &mut Eval) -> Result<()> {
        self.0.evaluate(data, split, at, out)
    }

    fn state(&self) -> Named {
        self.0.state()
    }

    fn card(&self, data: &Pictures) -> Option<String> {
        self.0.card(data)
    }

    fn has_validation(data: &Pictures) -> bool {
        Train::has_validation(data)
    }
}

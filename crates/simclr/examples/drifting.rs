//! A probe whose trunk does not stay as it is: each step moves the running mean of one norm, as a trunk in training mode would. The run must
//! fail; the tests see that it does.

use std::process::ExitCode;

use repro::cli::App;
use repro::data::Split;
use repro::probe::{Batch, LinearProbe, Probed};
use repro::setup::Setup;
use repro::trainer::{Eval, Recipe, Scalars, Stage, Step};
use repro::weights::Named;
use repro::{Error, Result};
use simclr::config::Config;
use simclr::model::Encoder;

struct Drifting(LinearProbe<Encoder>);

impl Recipe for Drifting {
    type Config = Config;
    type Batch = Batch;
    type Data = Probed;

    fn data(config: &Config, setup: &Setup) -> Result<Probed> {
        LinearProbe::<Encoder>::data(config, setup)
    }

    fn build(config: &Config, setup: &Setup, init: Option<&Named>) -> Result<Self> {
        Ok(Self(LinearProbe::<Encoder>::build(config, setup, init)?))
    }

    fn step(&mut self, batch: Batch, data: &Probed, at: &Step) -> Result<Scalars> {
        let scalars = self.0.step(batch, data, at)?;
        let state = self.state();
        let mean = state.get("model.backbone.bn1.running_mean").ok_or_else(|| Error::Failed("no norm".into()))?;
        let _ = mean.shallow_clone().f_add_scalar_(0.01)?;
        Ok(scalars)
    }

    fn evaluate(&mut self, data: &Probed, split: Split, at: &Step, out: &mut Eval) -> Result<()> {
        self.0.evaluate(data, split, at, out)
    }

    fn state(&self) -> Named {
        self.0.state()
    }

    fn still(&self) -> &'static [&'static str] {
        self.0.still()
    }
}

fn main() -> ExitCode {
    repro::cli::main(App {
        stages: |_| vec![Stage::of::<Drifting>("probe", LinearProbe::<Encoder>::plan)],
        ..simclr::app::app()
    })
}

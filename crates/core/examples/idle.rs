//! A paper that does nothing: what is left of a training step when the recipe's part is taken away. `scripts/bench/run.sh` holds it
//! against the step of a real paper.

use std::process::ExitCode;

use repro::cli::{App, Paper};
use repro::config::Findings;
use repro::data::Split;
use repro::data::{Cursor, Source};
use repro::random::order;
use repro::setup::Setup;
use repro::trainer::{Eval, Plan, Recipe, Scalar, Scalars, Stage, Step};
use repro::weights::Named;
use repro::{Error, Result};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

/// As many examples as MNIST has.
const EXAMPLES: u64 = 60_000;

#[derive(Deserialize)]
struct Config {}

/// A shuffled set of nothing.
struct Nothing;

impl Source for Nothing {
    type Batch = i64;

    fn len(&self) -> u64 {
        EXAMPLES
    }

    fn batches(&self, from: Cursor) -> Box<dyn Iterator<Item = Result<i64>> + '_> {
        let steps = from.steps_per_epoch(EXAMPLES);
        let mut samples = Vec::new();
        Box::new((from.step..).map(move |step| {
            if samples.is_empty() || step % steps == 0 {
                samples = order(from.seed, step / steps, EXAMPLES);
            }
            Ok(samples[((step % steps) * from.batch) as usize])
        }))
    }

    fn sha256(&self) -> String {
        String::new()
    }
}

/// Hands out the scalars that a paper hands out.
struct Idle(Tensor);

impl Recipe for Idle {
    type Config = Config;
    type Batch = i64;
    type Data = Nothing;

    fn data(_: &Config, _: &Setup) -> Result<Nothing> {
        Ok(Nothing)
    }

    fn build(_: &Config, _: &Setup, _: Option<&Named>) -> Result<Self> {
        Ok(Idle(Tensor::zeros([], (Kind::Float, Device::Cpu))))
    }

    fn step(&mut self, _: i64, _: &Nothing, _: &Step) -> Result<Scalars> {
        Ok(vec![("loss", Scalar::Device(self.0.shallow_clone())), ("lr", Scalar::Host(0.0))])
    }

    fn evaluate(&mut self, _: &Nothing, _: Split, _: &Step, _: &mut Eval) -> Result<()> {
        Ok(())
    }

    fn state(&self) -> Named {
        Named::from([("model.weight".into(), self.0.shallow_clone())])
    }
}

fn main() -> ExitCode {
    repro::cli::main(App {
        paper: Paper { name: "idle", title: "Nothing", authors: "nobody" },
        validate: |_, _| Findings::default(),
        counts_classes: |_| false,
        renamed: |_, given| Ok(given),
        stages: |_| vec![Stage::of::<Idle>("train", |_: &Config, settings| Plan::first(settings, (0.0, 0.0)))],
        model: |_, _, path| {
            let _ = path.zeros("weight", &[]);
            Ok(Box::new(|_, _| Ok(Named::new())))
        },
        predict: |_, _, _, _, _| Ok(Vec::new()),
        example: |_, _| Ok(Named::new()),
        look: |_, _| Err(Error::Failed("there is nothing to see".into())),
        extras: vec![],
    })
}

//! A toy paper of three stages: a code of drawn digits is learned without labels, a linear probe reads it, neighbours are asked at last. The
//! tests kill it in either stage and train it over two processes.

use std::process::ExitCode;

use repro::cli::{App, Paper};
use repro::config::{Findings, Length, Settings};
use repro::data::{self, Augment, Images, Resident, Split};
use repro::metrics::{self, Predictions};
use repro::nn::Linear;
use repro::optim::{Ema, EmaConfig, Group, OptimConfig, Optimizer, Params};
use repro::setup::Setup;
use repro::trainer::{Eval, Means, Plan, Recipe, Scalars, Stage, Step};
use repro::weights::{Named, below, copy_into, hash, together};
use repro::{Error, Result, loss};
use serde::Deserialize;
use tch::{Kind, Tensor, nn};

/// Numbers of the code.
const CODE: i64 = 16;
/// Pixels of a digit.
const PIXELS: i64 = 28 * 28;

#[derive(Deserialize)]
struct Config {
    optim: OptimConfig,
    augment: Vec<Augment>,
    ema: EmaConfig,
    probe: Probe,
}

/// The second stage's own section.
#[derive(Deserialize)]
struct Probe {
    length: Length,
    batch_size: u64,
    optim: OptimConfig,
}

/// Linear code and linear picture.
struct Coder {
    encoder: Linear,
    decoder: Linear,
}

impl Coder {
    fn new(path: &nn::Path) -> Self {
        let (encoder, decoder) = (path / "encoder", path / "decoder");
        Coder { encoder: Linear::new(&encoder, PIXELS, CODE), decoder: Linear::new(&decoder, CODE, PIXELS) }
    }

    /// `[N, 1, 28, 28]` → `[N, 16]`
    fn code(&self, image: &Tensor) -> Tensor {
        self.encoder.forward(&image.flatten(1, -1)).tanh()
    }
}

fn open(config: &Config, setup: &Setup) -> Result<Resident> {
    Resident::new(data::load(&setup.settings.data, setup.device)?, config.augment.clone(), None)
}

struct Pretrain {
    store: nn::VarStore,
    coder: Coder,
    params: Params,
    optimizer: Optimizer,
    ema: Ema,
    lr: f64,
}

impl Recipe for Pretrain {
    type Config = Config;
    type Batch = Images;
    type Data = Resident;

    fn data(config: &Config, setup: &Setup) -> Result<Resident> {
        open(config, setup)
    }

    fn build(config: &Config, setup: &Setup, _: Option<&Named>) -> Result<Self> {
        let store = nn::VarStore::new(setup.device);
        let coder = Coder::new(&store.root());
        let params = config.optim.params(&store, |_, _| Some(Group::of(config.optim.weight_decay())))?;
        let optimizer = config.optim.build(&params)?;
        let ema = Ema::new(&store.variables().into_iter().collect(), &config.ema)?;
        Ok(Pretrain { store, coder, params, optimizer, ema, lr: config.optim.lr(setup.settings.batch_size) })
    }

    fn step(&mut self, batch: Images, _: &Resident, at: &Step) -> Result<Scalars> {
        let mut means = Means::default();
        self.params.zero_grad();
        for (start, n, share) in at.parts(batch.label.size()[0]) {
            let image = batch.part(start, n).image;
            let code = self.coder.code(&image).dropout(0.1, true);
            let loss = (self.coder.decoder.forward(&code) - image.flatten(1, -1)).square().mean(Kind::Float);
            at.micro(&loss, share)?;
            means.add(share, [("loss", &loss)]);
        }
        at.average(&self.params)?;
        self.optimizer.step(self.lr)?;
        self.ema.update(at.index)?;
        Ok(means.with(&[("lr", self.lr)]))
    }

    fn evaluate(&mut self, data: &Resident, _: Split, at: &Step, out: &mut Eval) -> Result<()> {
        if at.setup.rank > 0 {
            // Longer than the processes' patience in an exchange, had the test shortened it.
            return Ok(());
        }
        let image = data.test.in_order(10_000).next().ok_or_else(|| Error::Failed("no test pictures".into()))?.image;
        let found = self.coder.decoder.forward(&self.coder.code(&image));
        out.scalar("rmse", loss::rmse(&found, &image.flatten(1, -1)).double_value(&[]));
        out.scalar("full", if out.full() { 1.0 } else { 0.0 });
        Ok(())
    }

    fn state(&self) -> Named {
        let model = self.store.variables().into_iter().collect();
        together([("model", model), ("optim", self.optimizer.state()), ("ema", self.ema.state())])
    }
}

struct LinearProbe {
    store: nn::VarStore,
    coder: Coder,
    classifier: Linear,
    params: Params,
    optimizer: Optimizer,
    lr: f64,
    trunk: String,
}

impl LinearProbe {
    fn of_trunk(&self) -> Result<String> {
        hash(&below(&self.store.variables().into_iter().collect(), "coder."))
    }
}

impl Recipe for LinearProbe {
    type Config = Config;
    type Batch = Images;
    type Data = Resident;

    fn data(config: &Config, setup: &Setup) -> Result<Resident> {
        open(config, setup)
    }

    fn build(config: &Config, setup: &Setup, init: Option<&Named>) -> Result<Self> {
        let store = nn::VarStore::new(setup.device);
        let coder = Coder::new(&(store.root() / "coder"));
        if let Some(init) = init {
            // The averaged code is the one that is read.
            copy_into(&below(&store.variables().into_iter().collect(), "coder."), &below(init, "ema."), "pretrain")?;
        }
        for (_, mut trunk) in store.variables() {
            trunk = trunk.set_requires_grad(false);
            drop(trunk);
        }
        let classifier = Linear::new(&(store.root() / "classifier"), CODE, 10);
        let params = config.probe.optim.params(&store, |_, _| Some(Group::of(config.probe.optim.weight_decay())))?;
        let optimizer = config.probe.optim.build(&params)?;
        let lr = config.probe.optim.lr(setup.settings.batch_size);
        let mut probe = LinearProbe { store, coder, classifier, params, optimizer, lr, trunk: String::new() };
        probe.trunk = probe.of_trunk()?;
        Ok(probe)
    }

    fn step(&mut self, batch: Images, _: &Resident, at: &Step) -> Result<Scalars> {
        let logits = self.classifier.forward(&tch::no_grad(|| self.coder.code(&batch.image)));
        let loss = loss::cross_entropy(&logits, &batch.label, 0.0);
        self.params.zero_grad();
        at.backward(&loss, &self.params)?;
        self.optimizer.step(self.lr)?;
        let mut means = Means::default();
        means.add(1.0, [("loss", &loss)]);
        Ok(means.with(&[("lr", self.lr)]))
    }

    fn evaluate(&mut self, data: &Resident, _: Split, at: &Step, out: &mut Eval) -> Result<()> {
        if at.setup.rank > 0 {
            return Ok(());
        }
        let found = metrics::evaluate(&data.test, 500, |image| self.classifier.forward(&self.coder.code(image)))?;
        out.scalar("accuracy", found.accuracy());
        Ok(())
    }

    fn state(&self) -> Named {
        let model = self.store.variables().into_iter().collect();
        together([("model", model), ("optim", self.optimizer.state())])
    }
}

/// Asks each test picture's nearest neighbour in the code; there is nothing to train.
struct Neighbours {
    store: nn::VarStore,
    coder: Coder,
}

impl Recipe for Neighbours {
    type Config = Config;
    type Batch = Images;
    type Data = Resident;

    fn data(config: &Config, setup: &Setup) -> Result<Resident> {
        open(config, setup)
    }

    fn build(_: &Config, setup: &Setup, init: Option<&Named>) -> Result<Self> {
        let store = nn::VarStore::new(setup.device);
        let coder = Coder::new(&store.root());
        if let Some(init) = init {
            copy_into(&store.variables().into_iter().collect(), &below(init, "model."), "pretrain")?;
        }
        Ok(Neighbours { store, coder })
    }

    fn step(&mut self, _: Images, _: &Resident, _: &Step) -> Result<Scalars> {
        Err(Error::Failed("neighbours are not trained".into()))
    }

    fn evaluate(&mut self, data: &Resident, split: Split, at: &Step, out: &mut Eval) -> Result<()> {
        if at.setup.rank > 0 || split != Split::Test {
            return Ok(());
        }
        let all = data.set.in_order(100_000).next().ok_or_else(|| Error::Failed("no training pictures".into()))?;
        let memory = self.coder.code(&all.image);
        let mut predictions = Predictions::default();
        for batch in data.test.in_order(100) {
            let gaps = Tensor::cdist(&self.coder.code(&batch.image), &memory, 2.0, None);
            let nearest = all.label.index_select(0, &gaps.argmin(1, false));
            predictions.add(&nearest.one_hot(10).to_kind(Kind::Float), &batch.label, None)?;
        }
        out.scalar("accuracy", predictions.finish()?.accuracy());
        Ok(())
    }

    fn state(&self) -> Named {
        together([("model", self.store.variables().into_iter().collect())])
    }
}

fn pretrain(config: &Config, settings: &Settings) -> Plan {
    Plan::first(settings, (config.optim.lr(256), config.optim.lr(settings.batch_size)))
}

fn probe(config: &Config, _: &Settings) -> Plan {
    let Probe { length, batch_size, optim } = &config.probe;
    Plan { length: Some(*length), batch_size: *batch_size, lr: (optim.lr(256), optim.lr(*batch_size)) }
}

fn neighbours(_: &Config, settings: &Settings) -> Plan {
    Plan { length: None, batch_size: settings.batch_size, lr: (0.0, 0.0) }
}

fn main() -> ExitCode {
    repro::cli::main(App {
        paper: Paper { name: "two_stages", title: "A toy of three stages", authors: "nobody" },
        validate: |_: &Config, _| Findings::default(),
        counts_classes: |_| false,
        renamed: |_, given| Ok(given),
        stages: |_| {
            vec![
                Stage::of::<Pretrain>("pretrain", pretrain),
                Stage::of::<LinearProbe>("probe", probe),
                Stage::of::<Neighbours>("knn", neighbours).after("pretrain"),
            ]
        },
        model: |_, _, path| {
            let coder = Coder::new(path);
            Ok(Box::new(move |input, _| {
                let image = input.get("image").ok_or_else(|| Error::User("give image".into()))?;
                Ok(Named::from([("code".to_string(), coder.code(image))]))
            }))
        },
        predict: |_, _, _, _, _| Ok(Vec::new()),
        example: |_, _| {
            Ok(Named::from([("image".into(), Tensor::zeros([1, 1, 28, 28], (Kind::Float, tch::Device::Cpu)))]))
        },
        look: |_, _| Err(Error::Failed("there is nothing to see".into())),
        extras: vec![],
    })
}

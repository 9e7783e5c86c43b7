//! Training (Algorithm 1) and what is measured of the model.

use repro::Result;
use repro::config::Settings;
use repro::data::{Images, Split};
use repro::nn::{self as layers, Mode};
use repro::optim::{Ema, Group, Optimizer, Params, clip_grad_norm};
use repro::random::{below, rng, uniform};
use repro::setup::Setup;
use repro::trainer::{Eval, Means, Plan, Recipe, Scalar, Scalars, Step};
use repro::weights::{self, Named, together};
use tch::{Kind, Tensor, nn};

use crate::config::{Config, Drawn};
use crate::data::Examples;
use crate::importance::Importance;
use crate::judge::{self, Judge};
use crate::model::Model;
use crate::process::Process;

/// How long the stage lasts, and how fast it learns.
pub fn plan(config: &Config, settings: &Settings) -> Plan {
    Plan::first(settings, (config.optim.lr(128), config.optim.lr(settings.batch_size)))
}

/// Algorithm 1.
#[derive(Debug)]
pub struct Train {
    config: Config,
    process: Process,
    model: Model,
    store: nn::VarStore,
    params: Params,
    optimizer: Optimizer,
    lr: f64,
    ema: Option<Ema>,
    importance: Option<Importance>,
    judge: Judge,
}

impl Recipe for Train {
    type Config = Config;
    type Batch = Images;
    type Data = Examples;

    fn data(config: &Config, setup: &Setup) -> Result<Examples> {
        Examples::open(config, setup)
    }

    fn build(config: &Config, setup: &Setup, init: Option<&Named>) -> Result<Self> {
        let store = nn::VarStore::new(setup.device);
        let model = Model::new(&store.root(), config)?;
        let named: Named = store.variables().into_iter().collect();
        model.initialise(&named)?;
        layers::kernels_channels_last(&store)?;
        weights::begin(&named, init, &[], setup)?;
        let params = config.optim.params(&store, |_, _| Some(Group::of(config.optim.weight_decay())))?;
        let optimizer = config.optim.build(&params)?;
        let ema = config.ema.as_ref().map(|ema| Ema::new(&named, ema)).transpose()?;
        let importance =
            (config.loss.steps == Some(Drawn::Importance)).then(|| Importance::new(config.diffusion.steps));
        let lr = config.optim.lr(setup.settings.batch_size);
        let judge = Judge::open(config, setup)?;
        let process = config.process();
        Ok(Train { config: config.clone(), process, model, store, params, optimizer, lr, ema, importance, judge })
    }

    fn step(&mut self, batch: Images, _: &Examples, at: &Step) -> Result<Scalars> {
        let lr = self.lr * self.config.schedule.factor(at.index, at.total, at.steps_per_epoch);
        let draws = self.draw(&batch, at)?;
        let mut means = Means::default();
        self.params.zero_grad();
        for (start, n, share) in at.parts(batch.image.size()[0]) {
            let (x0, Draws { t, noise, class, weight }) = (batch.image.narrow(0, start, n), draws.part(start, n));
            let x_t = self.process.noised(&x0, &noise, &t)?;
            let output = at.autocast(|| self.model.forward(&x_t, &t, class.as_ref(), Mode::Train))??;
            let losses =
                self.process.losses(self.config.loss.kind, &output.to_kind(Kind::Float), &x0, &x_t, &noise, &t)?;
            let loss = weight.map_or(losses.loss.shallow_clone(), |weight| &losses.loss * weight).mean(Kind::Float);
            at.micro(&loss, share)?;
            if let Some(importance) = &mut self.importance {
                importance.saw(&at.gather(&t.to_device(loss.device()))?, &at.gather(&losses.loss.detach())?)?;
            }
            let simple = losses.simple.mean(Kind::Float);
            let vlb = losses.vlb.map(|vlb| vlb.mean(Kind::Float));
            means.add(
                share,
                [("loss", &loss), ("simple", &simple)].into_iter().chain(vlb.as_ref().map(|vlb| ("vlb", vlb))),
            );
        }
        at.average(&self.params)?;
        let norm = self.config.clip.map(|most| clip_grad_norm(&self.params, most)).transpose()?;
        self.optimizer.step(lr)?;
        if let Some(ema) = &mut self.ema {
            ema.update(at.index)?;
        }
        let norm = norm.map(|norm| ("grad_norm", Scalar::Device(norm)));
        Ok(means.with(&[("lr", lr)]).into_iter().chain(norm).collect())
    }

    fn evaluate(&mut self, data: &Examples, split: Split, at: &Step, out: &mut Eval) -> Result<()> {
        if at.setup.rank > 0 {
            return Ok(());
        }
        let Self { config, process, model, judge, .. } = self;
        out.with_average(self.ema.as_ref(), |out| {
            judge.measure(&judge::Asked { config, process, model, data, split, at }, out)
        })
    }

    fn state(&self) -> Named {
        let model = self.store.variables().into_iter().collect();
        let mut optim = self.optimizer.state();
        optim.extend(self.importance.iter().flat_map(Importance::state));
        let parts = [("model", model), ("optim", optim)];
        together(parts.into_iter().chain(self.ema.as_ref().map(|ema| ("ema", ema.state()))))
    }

    fn card(&self, data: &Examples) -> Option<String> {
        data.card()
    }

    fn has_validation(data: &Examples) -> bool {
        data.has_validation()
    }
}

/// What a step draws beside its pictures.
struct Draws {
    /// `[N]` int64, on the CPU.
    t: Tensor,
    /// ε, as the pictures.
    noise: Tensor,
    /// `[N]` int64 on the device: the null class where it is hidden.
    class: Option<Tensor>,
    /// `[N]`, where t is not uniform.
    weight: Option<Tensor>,
}

impl Draws {
    fn part(&self, start: i64, n: i64) -> Self {
        let part = |tensor: &Tensor| tensor.narrow(0, start, n);
        let (class, weight) = (self.class.as_ref().map(part), self.weight.as_ref().map(part));
        Draws { t: part(&self.t), noise: part(&self.noise), class, weight }
    }
}

impl Train {
    /// Lines 3 and 4 of Algorithm 1: t and ε, functions of (seed, step, place in the whole batch), whatever the processes.
    fn draw(&self, batch: &Images, at: &Step) -> Result<Draws> {
        let Setup { settings, rank, device, world, .. } = at.setup;
        let shape = batch.image.size();
        let (n, first) = (shape[0], *rank as i64 * shape[0]);
        let place = |place: i64, what: &str| rng(settings.seed, at.index, place as u64, what);
        let places = first..first + n;
        let (t, weight) = match &self.importance {
            None => {
                let steps = self.process.schedule.len() as u64;
                (places.clone().map(|p| below(&mut place(p, "t"), steps) as i64).collect(), None)
            }
            Some(importance) => {
                let (t, weight) = importance.draw(places.clone().map(|p| uniform(&mut place(p, "t"), 0.0, 1.0)));
                (t, Some(Tensor::f_from_slice(&weight)?.f_to_kind(Kind::Float)?.f_to_device(*device)?))
            }
        };
        let t: Vec<i64> = t;
        // The whole batch's, of which this process takes its part.
        tch::manual_seed(below(&mut rng(settings.seed, at.index, 0, "noise"), 1 << 62) as i64);
        let all = [&[n * *world as i64][..], &shape[1..]].concat();
        let noise = Tensor::f_randn(&all[..], (Kind::Float, *device))?.f_narrow(0, first, n)?;
        at.reseed();
        let class = match (self.config.null_class(), self.config.model.class_dropout) {
            (Some(null), Some(hidden)) => {
                let hides: Vec<bool> = places.map(|p| uniform(&mut place(p, "class"), 0.0, 1.0) < hidden).collect();
                let hides = Tensor::f_from_slice(&hides)?.f_to_device(*device)?;
                Some(batch.label.f_masked_fill(&hides, null)?)
            }
            _ => None,
        };
        Ok(Draws { t: Tensor::f_from_slice(&t)?, noise, class, weight })
    }
}

//! Training (§4.1; arXiv:2012.12877, §6): the one stage of this paper.

use repro::classifier::{self, Card, error_rate, mixed_cross_entropy};
use repro::config::Settings;
use repro::data::{Form, Images, Pictures, Split};
use repro::nn::Mode;
use repro::optim::{Ema, Group, Optimizer, Params, clip_grad_norm};
use repro::setup::Setup;
use repro::trainer::{Eval, Means, Plan, Recipe, Scalars, Step};
use repro::weights::{Named, together};
use repro::{Result, weights};
use tch::{Tensor, nn};

use crate::config::{Config, Positions};
use crate::model::{Network, initialise};
use crate::positions;

/// How long the stage lasts, and how fast it learns.
pub fn plan(config: &Config, settings: &Settings) -> Plan {
    Plan::first(settings, (config.optim.lr(256), config.optim.lr(settings.batch_size)))
}

/// How a parameter of this name and rank learns, as timm groups them: vectors, tokens and positions do not decay, and with a layer decay β
/// block i of L has the rate times β^(L − i), i from 0, what comes before the blocks β^(L + 1) and the last norm β, as the last block.
pub fn group(name: &str, rank: usize, weight_decay: f64, layer_decay: f64, depth: usize) -> Group {
    let token = ["pos_embed", "cls_token", "dist_token", "reg_token"].contains(&name);
    let above = match name.split('.').collect::<Vec<_>>()[..] {
        ["blocks", place, ..] => depth - place.parse::<usize>().unwrap_or(0).min(depth),
        ["norm", ..] => 1,
        ["patch_embed", ..] => depth + 1,
        _ if token => depth + 1,
        _ => 0,
    };
    let decays = rank > 1 && !token;
    Group { lr_scale: layer_decay.powi(above as i32), ..Group::of(if decays { weight_decay } else { 0.0 }) }
}

/// Supervised training of a network on labelled pictures.
#[derive(Debug)]
pub struct Train {
    config: Config,
    net: Network,
    store: nn::VarStore,
    params: Params,
    optimizer: Optimizer,
    lr: f64,
    ema: Option<Ema>,
}

impl Recipe for Train {
    type Config = Config;
    type Batch = Images;
    type Data = Pictures;

    fn data(config: &Config, setup: &Setup) -> Result<Pictures> {
        let form = Form {
            edge: config.variant()?.edge,
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
        let net = Network::new(&store.root(), variant, config.classes()?, config.drop_path());
        let net = net.recomputing(config.recompute());
        let model: Named = store.variables().into_iter().collect();
        initialise(&model)?;
        if config.model.positions == Some(Positions::SinCos) {
            let mut table = model["pos_embed"].f_set_requires_grad(false)?;
            let fixed = positions::sin_cos(variant.grid(), variant.prefix_with_positions(), variant.width);
            tch::no_grad(|| table.f_copy_(&fixed))?;
        }
        let asked = config.model.resize_positions.unwrap_or(false);
        let init = init.map(|init| positions::fit(init, &variant, asked)).transpose()?;
        weights::begin(&model, init.as_ref(), variant.heads_named(), setup)?;
        let (decay, by_layer) = (config.optim.weight_decay(), config.layer_decay.unwrap_or(1.0));
        let rule = |name: &str, tensor: &Tensor| Some(group(name, tensor.dim(), decay, by_layer, variant.depth));
        let params = config.optim.params(&store, rule)?;
        let optimizer = config.optim.build(&params)?;
        let ema = config.ema.as_ref().map(|ema| Ema::new(&model, ema)).transpose()?;
        let lr = config.optim.lr(setup.settings.batch_size);
        Ok(Train { config: config.clone(), net, store, params, optimizer, lr, ema })
    }

    fn step(&mut self, batch: Images, _: &Pictures, at: &Step) -> Result<Scalars> {
        let lr = self.lr * self.config.schedule.factor(at.index, at.total, at.steps_per_epoch);
        let smoothing = self.config.label_smoothing.unwrap_or(0.0);
        let mut means = Means::default();
        self.params.zero_grad();
        for (start, n, share) in at.parts(batch.image.size()[0]) {
            let part = batch.part(start, n);
            let logits = at.autocast(|| self.net.forward(&part.image, Mode::Train).logits)?;
            let loss = mixed_cross_entropy(&logits, &part, smoothing);
            at.micro(&loss, share)?;
            means.add(share, [("loss", &loss), ("error", &error_rate(&logits, &part.label))]);
        }
        at.average(&self.params)?;
        if let Some(most) = self.config.clip {
            let _ = clip_grad_norm(&self.params, most)?;
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

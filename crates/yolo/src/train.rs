//! Training (§2; the author's `.cfg`): the one stage of this paper.

use repro::config::Settings;
use repro::data::{Card, SceneBatch, Scenes, Split};
use repro::detector;
use repro::nn::{self as layers, Mode};
use repro::optim::{Ema, Group, Optimizer, Params, clip_grad_norm};
use repro::setup::Setup;
use repro::trainer::{Eval, Means, Plan, Recipe, Scalars, Step};
use repro::weights::{Named, together};
use repro::{Result, weights};
use tch::{Tensor, nn};

use crate::app::form;
use crate::config::{Config, LossConfig, normalise};
use crate::net::Net;
use crate::start::completed;

/// Pictures that are evaluated at a time, and their pixels, at most.
const EVALUATED: (i64, i64) = (64, 16 * 416 * 416);

/// How long the stage lasts, and how fast it learns.
pub fn plan(config: &Config, settings: &Settings) -> Plan {
    Plan::first(settings, (config.optim.lr(64), config.optim.lr(settings.batch_size)))
}

/// Height and width of a batch's pictures, in pixels.
///
/// # Errors
/// Tensors of another shape.
fn edges(image: &Tensor) -> Result<(i64, i64)> {
    let (_, _, h, w) = image.size4()?;
    Ok((h, w))
}

/// Supervised training on pictures with boxes.
#[derive(Debug)]
pub struct Train {
    config: Config,
    net: Net,
    store: nn::VarStore,
    params: Params,
    optimizer: Optimizer,
    lr: f64,
    ema: Option<Ema>,
    loss: LossConfig,
}

impl Recipe for Train {
    type Config = Config;
    type Batch = SceneBatch;
    type Data = Scenes;

    fn data(config: &Config, setup: &Setup) -> Result<Scenes> {
        detector::open(&form(config, &normalise())?, config.classes()?, &config.schedule, setup)
    }

    fn build(config: &Config, setup: &Setup, init: Option<&Named>) -> Result<Self> {
        let store = nn::VarStore::new(setup.device);
        let net = Net::new(&store.root(), config)?;
        let model: Named = store.variables().into_iter().collect();
        net.initialise(&model)?;
        layers::kernels_channels_last(&store)?;
        let heads = net.heads();
        let init = init.map(|init| completed(init, &model, &heads, setup));
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        weights::begin(&model, init.as_ref(), &heads, setup)?;
        net.check_anchors()?;
        // Kernels decay, norms and biases do not (Darknet's update_convolutional_layer).
        let decay = config.optim.weight_decay();
        let rule = |_: &str, tensor: &Tensor| Some(Group::of(if tensor.dim() > 1 { decay } else { 0.0 }));
        let params = config.optim.params(&store, rule)?;
        let optimizer = config.optim.build(&params)?;
        let ema = config.ema.as_ref().map(|ema| Ema::new(&model, ema)).transpose()?;
        let lr = config.optim.lr(setup.settings.batch_size);
        Ok(Train { config: config.clone(), net, store, params, optimizer, lr, ema, loss: config.loss()? })
    }

    fn step(&mut self, batch: SceneBatch, _: &Scenes, at: &Step) -> Result<Scalars> {
        let schedule = self.config.schedule.factor(at.index, at.total, at.steps_per_epoch);
        let lr = self.lr * schedule * self.config.burn_in(at.index, at.steps_per_epoch);
        let mut means = Means::default();
        self.params.zero_grad();
        for (start, n, share) in at.parts(batch.image.size()[0]) {
            let (image, targets) = (batch.image.narrow(0, start, n), batch.targets.part(start, n));
            let output = at.autocast(|| self.net.forward(&image, Mode::Train))?;
            let losses = self.net.losses(&output, self.loss, &targets, edges(&image)?)?;
            at.micro(&losses.loss, share)?;
            let parts = losses.parts.iter().map(|(name, part)| (*name, part));
            means.add(share, [("loss", &losses.loss)].into_iter().chain(parts));
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

    fn evaluate(&mut self, data: &Scenes, split: Split, at: &Step, out: &mut Eval) -> Result<()> {
        let (h, w) = self.config.network()?.edges();
        let at_once = (EVALUATED.1 / (h * w)).clamp(1, EVALUATED.0);
        let find = |batch: &SceneBatch| self.net.find(batch, &self.config.test);
        out.with_average(self.ema.as_ref(), |out| detector::measure(data, split, at, at_once, find, out))
    }

    fn state(&self) -> Named {
        let model = self.store.variables().into_iter().collect();
        let parts = [("model", model), ("optim", self.optimizer.state())];
        together(parts.into_iter().chain(self.ema.as_ref().map(|ema| ("ema", ema.state()))))
    }

    fn card(&self, data: &Scenes) -> Option<String> {
        Card::of_scenes(data).ok()?.text()
    }

    fn has_validation(data: &Scenes) -> bool {
        data.has_validation()
    }
}

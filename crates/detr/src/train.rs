//! Training (§4, Appendix A.4): the one stage of this paper.

use repro::Result;
use repro::config::Settings;
use repro::data::{Card, SceneBatch, Scenes, Split};
use repro::detector::{self, Found};
use repro::nn::{self as layers, Mode};
use repro::optim::{Group, Optimizer, Params, clip_grad_norm};
use repro::setup::Setup;
use repro::trainer::{Eval, Means, Plan, Recipe, Scalar, Scalars, Step};
use repro::weights::{self, Named, below_prefix, together};
use tch::{Tensor, nn};

use crate::answer::found;
use crate::config::Config;
use crate::loss::{Norms, judge};
use crate::model::{BEHIND_TRUNK, Detr, HEAD, TRUNK, initialise};

/// Pictures that are evaluated at a time; those of one size go through the network together.
const AT_ONCE: i64 = 16;

/// What the network finds in each picture of a batch by itself.
///
/// # Errors
/// Those of [`Detr::alone`].
pub fn find(net: &Detr, batch: &SceneBatch) -> Result<Vec<Vec<Found>>> {
    let sizes: Vec<_> = batch.photos.iter().map(|photo| (photo.valid[1].into(), photo.valid[0].into())).collect();
    let (logits, boxes) = net.alone(&batch.image, &sizes)?;
    found(&logits, &boxes)
}

/// How long the stage lasts, and how fast it learns.
pub fn plan(config: &Config, settings: &Settings) -> Plan {
    Plan::first(settings, (config.optim.lr(256), config.optim.lr(settings.batch_size)))
}

/// Supervised training on pictures with boxes.
#[derive(Debug)]
pub struct Train {
    config: Config,
    net: Detr,
    queries: i64,
    store: nn::VarStore,
    params: Params,
    optimizer: Optimizer,
    lr: f64,
}

impl Recipe for Train {
    type Config = Config;
    type Batch = SceneBatch;
    type Data = Scenes;

    fn data(config: &Config, setup: &Setup) -> Result<Scenes> {
        let data = detector::open(&config.form(), config.model.num_classes, &config.schedule, setup)?;
        let queries = config.variant()?.queries;
        let objects = |place| data.truths(Split::Train, place).len() as i64;
        let most = (0..data.split_len(Split::Train)).map(objects).max().unwrap_or(0);
        if most > queries {
            setup.note(format!(
                "a training picture has {most} objects and the network {queries} queries, so that some have no query to be found by: see model.queries"
            ));
        }
        Ok(data)
    }

    fn build(config: &Config, setup: &Setup, init: Option<&Named>) -> Result<Self> {
        let (store, variant) = (nn::VarStore::new(setup.device), config.variant()?);
        let net = Detr::new(&store.root(), variant, config.model.num_classes);
        let model: Named = store.variables().into_iter().collect();
        initialise(&model, &variant)?;
        layers::kernels_channels_last(&store)?;
        let init = init.map(|init| completed(init, &model, setup));
        if init.is_none() && variant.frozen_norm {
            setup.note(
                "the trunk's norms are frozen and its weights are random; DETR starts from a ResNet that ImageNet taught: give one by --init, \
                 or set model.frozen_norm=false",
            );
        }
        weights::begin(&model, init.as_ref(), &HEAD, setup)?;
        // Norms, biases and queries decay as well, as in the reference.
        let group = Group::of(config.optim.weight_decay());
        let params = config.optim.params(&store, |_, _| Some(group))?;
        let optimizer = config.optim.build(&params)?;
        let lr = config.optim.lr(setup.settings.batch_size);
        Ok(Train { config: config.clone(), net, queries: variant.queries, store, params, optimizer, lr })
    }

    fn step(&mut self, batch: SceneBatch, _: &Scenes, at: &Step) -> Result<Scalars> {
        let Config { loss: weights, clip, schedule, .. } = &self.config;
        let lr = self.lr * schedule.factor(at.index, at.total, at.steps_per_epoch);
        let norms = Norms::of(&batch.targets.counts, self.queries, weights.eos).over(at.setup)?;
        let mut means = Means::default();
        self.params.zero_grad();
        for (start, n, _) in at.parts(batch.image.size()[0]) {
            let (image, targets) = (batch.image.narrow(0, start, n), batch.targets.part(start, n));
            let padding = batch.padding.as_ref().map(|padding| padding.narrow(0, start, n));
            let output = at.autocast(|| self.net.forward(&image, padding.as_ref(), Mode::Train))??;
            let losses = judge(&output, &targets, weights, norms)?;
            let loss = losses.total(weights);
            // Divided by what the whole batch has, so that parts add up.
            at.micro(&loss, 1.0)?;
            let last = |terms: &Tensor| terms.select(0, -1);
            let (ce, bbox, giou) = (last(&losses.ce), last(&losses.bbox), last(&losses.giou));
            means.add(1.0, [("loss", &loss), ("loss_ce", &ce), ("loss_bbox", &bbox), ("loss_giou", &giou)]);
        }
        at.average(&self.params)?;
        let norm = clip_grad_norm(&self.params, *clip)?;
        self.optimizer.step(lr)?;
        let mut scalars = means.with(&[("lr", lr)]);
        scalars.push(("grad_norm", Scalar::Device(norm)));
        Ok(scalars)
    }

    fn evaluate(&mut self, data: &Scenes, split: Split, at: &Step, out: &mut Eval) -> Result<()> {
        detector::measure(data, split, at, AT_ONCE, |batch| find(&self.net, batch), out)
    }

    fn state(&self) -> Named {
        let model = self.store.variables().into_iter().collect();
        together([("model", model), ("optim", self.optimizer.state())])
    }

    fn card(&self, data: &Scenes) -> Option<String> {
        Card::of_scenes(data).ok()?.text()
    }

    fn has_validation(data: &Scenes) -> bool {
        data.has_validation()
    }
}

/// The state to begin with, where it is of a trunk alone with what else the model has; without counters of norms that do not count.
fn completed(init: &Named, model: &Named, setup: &Setup) -> Named {
    let mut state: Named = init.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
    let trunk = format!("model.{TRUNK}");
    if state.keys().any(|name| !below_prefix(name, &trunk)) {
        return state;
    }
    state.retain(|name, _| model.contains_key(&name["model.".len()..]) || !name.ends_with("num_batches_tracked"));
    for (name, tensor) in model.iter().filter(|(name, _)| BEHIND_TRUNK.iter().any(|part| below_prefix(name, part))) {
        state.insert(format!("model.{name}"), tensor.detach().copy());
    }
    setup.note("the weights to begin with are a trunk's: all behind it starts at random");
    state
}

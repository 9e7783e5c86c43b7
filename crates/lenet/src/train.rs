//! Training and evaluation (§III.A): the one stage of this paper.

use repro::config::Settings;
use repro::data::{self, Card, ImageSet, Images, Resident, Split};
use repro::metrics::Predictions;
use repro::optim::{Ema, Group, Optimizer, Params};
use repro::setup::Setup;
use repro::trainer::{Eval, Means, Plan, Recipe, Scalar, Scalars, Step};
use repro::weights::{Named, together};
use repro::{Result, figures, user, weights};
use tch::{Kind, Tensor, nn};

use crate::bitmaps;
use crate::boosting::{self, Filter};
use crate::config::{Config, Name, Optim};
use crate::lm::LevenbergMarquardt;
use crate::network::{Form, Network};

/// Pictures per forward pass in evaluation.
const EVALUATION_BATCH: i64 = 500;

/// How long the stage lasts, and how fast it learns.
pub fn plan(config: &Config, settings: &Settings) -> Plan {
    Plan::first(settings, config.optim.rates(settings.batch_size))
}

/// Supervised training of a network on labelled digits.
#[derive(Debug)]
pub struct Train {
    config: Config,
    net: Network,
    store: nn::VarStore,
    params: Params,
    update: Update,
    lr: f64,
    ema: Option<Ema>,
    /// For the boosted network: what its members learn from.
    filter: Filter,
}

/// The update rule.
#[derive(Debug)]
enum Update {
    Shared(Optimizer),
    LevenbergMarquardt { rule: LevenbergMarquardt, samples: u64 },
    Memorise,
}

impl Recipe for Train {
    type Config = Config;
    type Batch = Images;
    type Data = Resident;

    fn data(config: &Config, setup: &Setup) -> Result<Resident> {
        let splits = data::load(&setup.settings.data, setup.device)?;
        let (name, classes) = (&setup.settings.data.name, splits.train.classes().len() as i64);
        if classes != config.model.num_classes {
            return Err(user!("model.num_classes is {}, but {name} has {classes} classes", config.model.num_classes));
        }
        if let Some(card) = Card::given(setup)? {
            card.check_classes(name, splits.test.classes())?;
        }
        if config.model.memory.is_some_and(|memory| memory < splits.train.len()) {
            return Err(user!("{name} has {} training pictures; set model.memory to that", splits.train.len()));
        }
        if matches!(config.model.name, Name::BoostedLenet4 | Name::Knn) && setup.world > 1 {
            return Err(user!("knn and boosted_lenet4 learn in one process; leave --processes away"));
        }
        let shared = data::overlap(&splits.train, &splits.test)?;
        if shared > 0 {
            setup.note(format!("{shared} pictures of the test set stand in the training set of {name}, too"));
        }
        let (len, batch) = (splits.train.len(), setup.settings.batch_size);
        if config.model.name == Name::Knn && !len.is_multiple_of(batch) {
            return Err(user!(
                "knn keeps whole batches: choose a batch_size that divides the {len} training pictures, such as 1"
            ));
        }
        let steps_per_epoch = len / batch;
        if steps_per_epoch > 0 {
            // Each member of the boosted network has the schedule for itself.
            let turns = if config.model.name == Name::BoostedLenet4 { boosting::MEMBERS as u64 } else { 1 };
            config.schedule.check(setup.settings.length.steps(steps_per_epoch) / turns, steps_per_epoch)?;
        }
        Resident::new(splits, config.augment.clone(), None)
    }

    fn build(config: &Config, setup: &Setup, init: Option<&Named>) -> Result<Self> {
        let store = nn::VarStore::new(setup.device);
        let net = Network::new(&store.root(), &config.model);
        let model: Named = store.variables().into_iter().collect();
        weights::begin(&model, init, net.head(), setup)?;
        let decay = config.optim.shared().map_or(0.0, |optim| optim.weight_decay());
        let rule = |_: &str, _: &Tensor| Some(Group::of(decay));
        let params = match config.optim.shared() {
            Some(optim) => optim.params(&store, rule)?,
            None => Params::new(&store, rule)?,
        };
        let update = match &config.optim {
            Optim::LevenbergMarquardt(lm) => {
                let named = params.iter().map(|p| (p.name.as_str(), &p.tensor));
                Update::LevenbergMarquardt { rule: LevenbergMarquardt::new(named, lm.mu)?, samples: lm.samples }
            }
            Optim::Memorise {} => Update::Memorise,
            Optim::Sgd(sgd) => Update::Shared(repro::optim::OptimConfig::Sgd(sgd.clone()).build(&params)?),
            Optim::Adamw(adamw) => Update::Shared(repro::optim::OptimConfig::Adamw(adamw.clone()).build(&params)?),
        };
        let ema = config.ema.as_ref().map(|ema| Ema::new(&model, ema)).transpose()?;
        let (_, lr) = config.optim.rates(setup.settings.batch_size);
        Ok(Train { config: config.clone(), net, store, params, update, lr, ema, filter: Filter::default() })
    }

    fn step(&mut self, batch: Images, data: &Resident, at: &Step) -> Result<Scalars> {
        if let Form::Knn(knn) = &self.net.form {
            let place = (at.index % at.steps_per_epoch) as i64;
            knn.memorise(place * batch.label.numel() as i64, &self.net.input(&batch.image), &batch.label);
            return Ok(vec![]);
        }
        let (mut batch, mut index, mut total) = (batch, at.index, at.total);
        if let Form::BoostedLenet4(net) = &mut self.net.form {
            (net.learner, index, total) = boosting::turn(at);
            batch = self.filter.apply(net, batch, data, at)?;
        }
        let lr = self.lr * self.config.schedule.factor(index, total, at.steps_per_epoch);
        if let (Update::LevenbergMarquardt { rule, samples }, Form::Lenet5(net)) = (&mut self.update, &self.net.form)
            && at.index.is_multiple_of(at.steps_per_epoch)
        {
            // Appendix C: the curvature is estimated anew before each pass.
            let pass = at.index / at.steps_per_epoch;
            rule.estimate(net, self.config.loss, &data.set, *samples, at.setup.settings.seed, pass)?;
        }
        self.params.zero_grad();
        let image = self.net.input(&batch.image);
        let mut means = Means::default();
        for (start, n, share) in at.parts(image.size()[0]) {
            let outputs = at.autocast(|| self.net.learning(&image.narrow(0, start, n)))?;
            let loss = self.config.loss.mean(&outputs, &batch.label.narrow(0, start, n))?;
            at.micro(&loss, share)?;
            means.add(share, [("loss", &loss)]);
        }
        at.average(&self.params)?;
        match &mut self.update {
            Update::Shared(optimizer) => optimizer.step(lr)?,
            Update::LevenbergMarquardt { rule, .. } => rule.step(lr)?,
            Update::Memorise => {}
        }
        if let Some(ema) = &mut self.ema {
            ema.update(at.index)?;
        }
        let mut scalars = means.with(&[("lr", lr)]);
        if let Form::BoostedLenet4(net) = &mut self.net.form {
            if at.index + 1 == at.total {
                // However short the run was, its result is of all three, as `eval` of its weights is.
                net.learner = boosting::MEMBERS - 1;
            }
            scalars.push(("hard_patterns", Scalar::Host(self.filter.hard() as f64)));
        }
        Ok(scalars)
    }

    fn evaluate(&mut self, data: &Resident, split: Split, at: &Step, out: &mut Eval) -> Result<()> {
        if at.setup.rank > 0 {
            return Ok(());
        }
        out.with_average(self.ema.as_ref(), |out| self.measure(data.split(split), out))
    }

    fn has_validation(data: &Resident) -> bool {
        data.validation.is_some()
    }

    fn card(&self, data: &Resident) -> Option<String> {
        Card::of_classes(data.set.classes()).text()
    }

    fn state(&self) -> Named {
        let optim = match &self.update {
            Update::Shared(optimizer) => optimizer.state(),
            Update::LevenbergMarquardt { rule, .. } => rule.state(),
            Update::Memorise => Named::new(),
        };
        let parts = [("model", self.store.variables().into_iter().collect()), ("optim", optim)];
        together(parts.into_iter().chain(self.ema.as_ref().map(|ema| ("ema", ema.state()))))
    }
}

impl Train {
    /// Classifies one split: error, loss, confusion, worst mistakes, and what the layers make of the first picture.
    fn measure(&self, set: &ImageSet, out: &mut Eval) -> Result<()> {
        let mut predictions = Predictions::default();
        for batch in set.in_order(EVALUATION_BATCH) {
            let outputs = self.net.outputs(&self.net.input(&batch.image));
            let losses = self.config.loss.each(&outputs, &batch.label)?;
            predictions.add(&self.net.logits(&outputs), &batch.label, Some(&losses))?;
        }
        out.classification(&predictions.finish()?, set.classes(), |places| set.show(places))?;
        out.picture("layers", || {
            let first = set.select(&Tensor::f_from_slice(&[0i64])?.f_to_device(set.device())?);
            layers(&self.net, &first.image, set.classes())
        })?;
        if matches!(self.net.form, Form::Lenet5(_)) {
            out.picture("glyphs", || Ok(image::DynamicImage::ImageLuma8(bitmaps::picture(8)).to_rgb8()))?;
        }
        Ok(())
    }
}

/// The state of every layer for one picture `[1, 1, 28, 28]` of 0 to 1, as Fig. 2 of the paper has them; under the outputs the names of their
/// classes.
pub(crate) fn layers(net: &Network, image: &Tensor, classes: &[String]) -> Result<image::RgbImage> {
    let input = net.input(image);
    let mut rows = vec![("input".to_string(), input.squeeze_dim(0))];
    for (name, state) in net.states(&input) {
        let state = match name {
            "C5" => state.flatten(0, -1),
            // Read as pixels, F6 looks like the glyph of the class.
            "F6" => state.view([1, bitmaps::HEIGHT as i64, bitmaps::WIDTH as i64]),
            _ => state.squeeze_dim(0),
        };
        rows.push((name.to_string(), state));
    }
    let rows: Vec<_> =
        rows.into_iter().map(|(name, t)| (name, t.to_device(tch::Device::Cpu).to_kind(Kind::Float))).collect();
    figures::feature_maps(&rows, classes)
}

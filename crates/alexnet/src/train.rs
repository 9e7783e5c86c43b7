//! Training (§5): the one stage of this paper.

use repro::classifier::{self, Card, error_rate, mixed_cross_entropy};
use repro::config::Settings;
use repro::data::Split;
use repro::data::{Form, Images, Pictures, ten_crop};
use repro::nn::Mode;
use repro::optim::{Ema, Group, Optimizer, Params};
use repro::setup::Setup;
use repro::trainer::{Eval, Means, Plan, Recipe, Scalars, Step};
use repro::weights::{Named, together};
use repro::{Result, user, weights};
use tch::{Kind, Tensor, nn};

use crate::config::{Config, Crops};
use crate::model::{Network, Variant, initialise};

/// How long the stage lasts, and how fast it learns.
pub fn plan(config: &Config, settings: &Settings) -> Plan {
    Plan::first(settings, (config.optim.lr(256), config.optim.lr(settings.batch_size)))
}

/// Supervised training of a network on labelled pictures.
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
        let variant = config.variant()?;
        let form = Form {
            edge: variant.picture(config.edge(variant)),
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
        let net = Network::new(&store.root(), variant, config.classes()?, config.edge(variant));
        initialise(&store, variant)?;
        let model: Named = store.variables().into_iter().collect();
        weights::begin(&model, init, &[variant.head()], setup)?;
        let weight_decay = config.optim.weight_decay();
        let params = config.optim.params(&store, |name, _| Some(group(variant, name, weight_decay)))?;
        let optimizer = config.optim.build(&params)?;
        let ema = config.ema.as_ref().map(|ema| Ema::new(&model, ema)).transpose()?;
        let lr = config.optim.lr(setup.settings.batch_size);
        Ok(Train { config: config.clone(), net, store, params, optimizer, lr, ema })
    }

    fn step(&mut self, batch: Images, _: &Pictures, at: &Step) -> Result<Scalars> {
        let lr = self.lr * self.config.schedule.factor(at.index, at.total, at.steps_per_epoch);
        let mut means = Means::default();
        self.params.zero_grad();
        for (start, n, share) in at.parts(batch.image.size()[0]) {
            let part = batch.part(start, n);
            let logits = at.autocast(|| self.net.forward(&part.image, Mode::Train).logits)?;
            let loss = mixed_cross_entropy(&logits, &part, 0.0);
            at.micro(&loss, share)?;
            means.add(share, [("loss", &loss), ("error", &error_rate(&logits, &part.label))]);
        }
        at.average(&self.params)?;
        // §5: v ← 0.9·v − 0.0005·ε·w − ε·∂L/∂w; w ← w + v.
        self.optimizer.step(lr)?;
        if let Some(ema) = &mut self.ema {
            ema.update(at.index)?;
        }
        Ok(means.with(&[("lr", lr)]))
    }

    fn evaluate(&mut self, data: &Pictures, split: Split, at: &Step, out: &mut Eval) -> Result<()> {
        let edge = self.config.edge(self.config.variant()?);
        let logits = |image: &Tensor| answer(&self.net, image, edge, self.config.test.crops);
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

/// Pictures that are scored ten times are worked off in parts of so many.
const PART: i64 = 32;

/// Logits `[N, K]` of pictures `[N, 3, H, W]`: of their middle, or the logarithm of the mean of "the predictions made by the network's softmax
/// layer on the ten patches" (§4.1).
pub(crate) fn answer(net: &Network, image: &Tensor, edge: i64, crops: Crops) -> Result<Tensor> {
    let (_, _, h, w) = image.size4()?;
    if h.min(w) < edge {
        return Err(user!(
            "pictures to evaluate on are {h}×{w}, but this network takes {edge}; set view.test.edge to as much or more"
        ));
    }
    match crops {
        Crops::One => Ok(net.forward(&middle(image, edge)?, Mode::Eval).logits),
        Crops::Ten => {
            let mean = |part: &Tensor| -> Result<Tensor> {
                let logits = net.forward(&ten_crop(part, edge)?, Mode::Eval).logits;
                let each = logits.f_softmax(1, Kind::Double)?.f_view([part.size()[0], 10, -1])?;
                Ok(each.f_mean_dim([1_i64].as_slice(), false, Kind::Double)?.f_log()?)
            };
            Ok(Tensor::f_cat(&image.split(PART, 0).iter().map(mean).collect::<Result<Vec<_>>>()?, 0)?)
        }
    }
}

/// The middle square of pictures `[N, C, H, W]`.
pub(crate) fn middle(image: &Tensor, edge: i64) -> Result<Tensor> {
    let (_, _, h, w) = image.size4()?;
    Ok(image.f_narrow(2, (h - edge) / 2, edge)?.f_narrow(3, (w - edge) / 2, edge)?)
}

/// How a tensor learns.
fn group(variant: Variant, name: &str, weight_decay: f64) -> Group {
    match (variant, name.rsplit_once('.')) {
        // §5: all weights and biases alike.
        (Variant::Torchvision | Variant::Paper, _) => Group::of(weight_decay),
        // cuda-convnet's parameter files: epsB is twice epsW, and biases do not decay; of the 13 % and 11 % networks the convolutions
        // do not, either, and the last layer of that of 11 % decays by 0.01 where the others do by 0.004.
        (_, Some((_, "bias"))) => Group { lr_scale: 2.0, ..Group::of(0.0) },
        (Variant::Local { .. }, Some(("conv1" | "conv2", _))) => Group::of(0.0),
        (Variant::Local { lrn: true }, Some(("fc10", _))) => Group::of(2.5 * weight_decay),
        _ => Group::of(weight_decay),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use repro::optim::{LrScale, LrScaling, OptimConfig, SgdConfig};
    use tch::Device;

    /// The mean of ten softmaxes, each view by itself; and the middle.
    #[test]
    fn ten_crops_are_averaged_as_probabilities() {
        let store = nn::VarStore::new(Device::Cpu);
        let variant = Variant::Cnn { tanh: false, lrn: false };
        let net = Network::new(&store.root(), variant, 3, 20);
        let image = Tensor::randn([2, 3, 24, 25], (Kind::Float, Device::Cpu)) * 9.0;
        let found = answer(&net, &image, 20, Crops::Ten).unwrap().exp();
        let mut expected = Tensor::zeros([2, 3], (Kind::Double, Device::Cpu));
        for (row, column) in [(0, 0), (0, 5), (4, 0), (4, 5), (2, 2)] {
            let crop = image.narrow(2, row, 20).narrow(3, column, 20);
            for view in [crop.flip([3]), crop] {
                expected += net.forward(&view, Mode::Eval).logits.softmax(1, Kind::Double) / 10.0;
            }
        }
        assert!((found - expected).abs().max().double_value(&[]) < 1e-6);
        let middle = net.forward(&image.narrow(2, 2, 20).narrow(3, 2, 20), Mode::Eval).logits;
        assert!((answer(&net, &image, 20, Crops::One).unwrap() - middle).abs().max().double_value(&[]) < 1e-6);
    }

    /// Two updates of §5 by hand: lr 0.01, decay 0.0005, gradients 0.2 and −0.1 at w = 0.5.
    #[test]
    fn two_updates_of_section_5() {
        let store = nn::VarStore::new(Device::Cpu);
        let w = store.root().f_var("w", &[1], nn::Init::Const(0.5)).unwrap();
        let params = Params::new(&store, |name, _| Some(group(Variant::Paper, name, 5e-4))).unwrap();
        let config = OptimConfig::Sgd(SgdConfig {
            base_lr: 0.01,
            momentum: 0.9,
            nesterov: false,
            weight_decay: 5e-4,
            lr_scaling: LrScaling::None,
            lr_scale: LrScale::new(),
        });
        let mut optimizer = config.build(&params).unwrap();
        let (mut ours, mut v) = (0.5_f64, 0.0_f64);
        for (gradient, expected_v, expected_w) in
            [(0.2, -0.0020025, 0.4979975), (-0.1, -0.000_804_739_99, 0.497_192_76)]
        {
            v = 0.9 * v - 0.0005 * 0.01 * ours - 0.01 * gradient;
            ours += v;
            assert!((v - expected_v).abs() < 1e-10 && (ours - expected_w).abs() < 1e-10, "{v} {ours}");
            params.zero_grad();
            (&w * gradient).sum(tch::Kind::Float).backward();
            optimizer.step(0.01).unwrap();
            assert!((w.double_value(&[0]) - ours).abs() < 1e-7, "{} {ours}", w.double_value(&[0]));
        }
    }
}

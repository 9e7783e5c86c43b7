//! Pre-training: Algorithm 1.

use repro::classifier::{Card, error_rate};
use repro::config::Settings;
use repro::data::{Draws, Images, Source, Split, Views};
use repro::nn::{self as layers, Mode};
use repro::optim::{Group, Optimizer, Params};
use repro::probe::{Head, Trunk, classify, unit};
use repro::setup::Setup;
use repro::trainer::{Eval, Means, Plan, Recipe, Scalars, Step};
use repro::weights::{Named, below_prefix, together};
use repro::{Result, figures, loss, weights};
use tch::{Device, Kind, Tensor, nn};

use crate::components::Components;
use crate::config::Config;
use crate::data::check_later;
use crate::model::{CLASSIFIER, Output, Simclr, online_head, start};

/// Test pictures whose loss is told, and so many of them in a batch.
const TESTED: (u64, i64) = (1024, 256);
/// Test pictures whose two views are drawn.
const SHOWN: i64 = 20;

/// How long the stage lasts, and how fast it learns.
pub fn plan(config: &Config, settings: &Settings) -> Plan {
    Plan::first(settings, (config.optim.lr(256), config.optim.lr(settings.batch_size)))
}

/// The two views of each picture, each by its own draws.
///
/// # Errors
/// Those of the data.
pub fn views(config: &Config, setup: &Setup) -> Result<Views> {
    let pictures = crate::data::open(config, setup, &config.augment, &config.schedule)?;
    let [one, other] = config.lists();
    Views::new(pictures, &[("view1", one), ("view2", other)])
}

/// f and g learn to tell which two of 2N views are of one picture.
#[derive(Debug)]
pub struct Pretrain {
    config: Config,
    net: Simclr,
    store: nn::VarStore,
    params: Params,
    optimizer: Optimizer,
    lr: f64,
    online: Option<Online>,
    components: Components,
}

/// A linear probe that learns beside it, from the trunk's h, and gives it no gradient (B.6).
#[derive(Debug)]
struct Online {
    head: Head,
    params: Params,
    optimizer: Optimizer,
    lr: f64,
}

impl Recipe for Pretrain {
    type Config = Config;
    type Batch = Vec<Images>;
    type Data = Views;

    fn data(config: &Config, setup: &Setup) -> Result<Views> {
        let data = views(config, setup)?;
        check_later(config, data.len())?;
        Ok(data)
    }

    fn build(config: &Config, setup: &Setup, init: Option<&Named>) -> Result<Self> {
        let store = nn::VarStore::new(setup.device);
        let net = Simclr::new(&store.root(), config, setup.exchange())?;
        start(&store, config, None, setup)?;
        // After all that is drawn for f and g: with it or without, they start alike.
        let probe = config.online().map(|probe| (probe, online_head(&store.root(), net.encoder.width(), config)));
        layers::kernels_channels_last(&store)?;
        weights::begin(&store.variables().into_iter().collect(), init, &[CLASSIFIER], setup)?;
        let of_probe = |name: &str| below_prefix(name, CLASSIFIER);
        let group = |decay| Some(Group::of(decay));
        let params =
            config.optim.params(&store, |name, _| group(config.optim.weight_decay()).filter(|_| !of_probe(name)))?;
        let optimizer = config.optim.build(&params)?;
        let batch = setup.settings.batch_size;
        let online = probe.map(|(probe, head)| -> Result<Online> {
            let decay = probe.optim.weight_decay();
            let params = probe.optim.params(&store, |name, _| group(decay).filter(|_| of_probe(name)))?;
            Ok(Online { head, optimizer: probe.optim.build(&params)?, params, lr: probe.optim.lr(batch) })
        });
        let (lr, online) = (config.optim.lr(batch), online.transpose()?);
        let components = Components::default();
        Ok(Pretrain { config: config.clone(), net, store, params, optimizer, lr, online, components })
    }

    fn step(&mut self, views: Vec<Images>, _: &Views, at: &Step) -> Result<Scalars> {
        let factor = self.config.schedule.factor(at.index, at.total, at.steps_per_epoch);
        // Both views in one pass: batch norm sees 2N pictures.
        let both: Vec<_> = views.iter().map(|view| &view.image).collect();
        let both = Tensor::f_cat(&both, 0)?;
        let Output { h, z } = at.autocast(|| self.net.forward(&both, Mode::Train))?;
        let loss = self.config.loss.of(&z, at.setup.rank, |rows| at.gather(rows))?;
        self.params.zero_grad();
        at.backward(&loss, &self.params)?;
        self.optimizer.step(self.lr * factor)?;
        let mut means = Means::default();
        let Some(online) = &mut self.online else {
            means.add(1.0, [("loss", &loss)]);
            return Ok(means.with(&[("lr", self.lr * factor)]));
        };
        let label = Tensor::f_cat(&views.iter().map(|view| &view.label).collect::<Vec<_>>(), 0)?;
        let logits = online.head.forward(&h.detach().to_kind(Kind::Float), Mode::Train);
        let entropy = loss::cross_entropy(&logits, &label, 0.0);
        online.params.zero_grad();
        at.backward(&entropy, &online.params)?;
        online.optimizer.step(online.lr * factor)?;
        means.add(1.0, [("loss", &loss), ("probe_loss", &entropy), ("error", &error_rate(&logits, &label))]);
        Ok(means.with(&[("lr", self.lr * factor)]))
    }

    /// The loss of test pictures in two views, the same at each call; with an online probe what it says of the test pictures.
    fn evaluate(&mut self, data: &Views, split: Split, at: &Step, out: &mut Eval) -> Result<()> {
        if at.setup.rank == 0 {
            self.compare(data, split, at, out)?;
            self.components.see(&self.net.encoder, &data.pictures, split, (at.index + 1).min(at.total))?;
            self.components.draw(split, data.pictures.classes(), out)?;
        }
        let Some(online) = &self.online else { return Ok(()) };
        let logits = |image: &Tensor| Ok(online.head.forward(&self.net.encoder.features(image), Mode::Eval));
        classify(&data.pictures, split, at, logits, out)
    }

    fn state(&self) -> Named {
        let model = self.store.variables().into_iter().collect();
        let parts = [("model", model), ("optim", self.optimizer.state())];
        together(parts.into_iter().chain(self.online.as_ref().map(|online| ("optim.probe", online.optimizer.state()))))
    }

    fn card(&self, data: &Views) -> Option<String> {
        Card::of(&data.pictures).ok()?.text()
    }

    fn has_validation(data: &Views) -> bool {
        data.pictures.has_validation()
    }
}

impl Pretrain {
    /// Adds the loss, and pictures of pairs and of their similarities.
    fn compare(&self, data: &Views, split: Split, at: &Step, out: &mut Eval) -> Result<()> {
        let count = data.pictures.split_len(split).min(TESTED.0);
        let (mut sum, mut seen) = (0.0, 0);
        for images in data.pictures.in_order(split, 0..count, TESTED.1) {
            let mut images = images?;
            let n = images.label.size()[0];
            if n < 2 && seen > 0 {
                // What is left of a batch has no negatives.
                break;
            }
            images.image = data.pictures.normaliser().undo(&images.image)?;
            // Draws that no training picture has.
            let samples: Vec<_> = (seen..seen + n).map(|place| (u64::MAX, place)).collect();
            let views =
                data.of(&images, Draws { seed: at.setup.settings.seed, step: 0, salt: "", samples: &samples })?;
            let both = Tensor::f_cat(&[&views[0].image, &views[1].image], 0)?;
            let z = self.net.forward(&both, Mode::Eval).z;
            sum += n as f64 * self.config.loss.of(&z, 0, |rows| Ok(rows.shallow_clone()))?.f_double_value(&[])?;
            if seen == 0 {
                self.draw(data, &both, &z, &images.label, out)?;
            }
            seen += n;
        }
        out.scalar("loss", sum / seen as f64);
        Ok(())
    }

    /// Pairs of views, one under the other, and the cosines of all with all; the pictures by class.
    fn draw(&self, data: &Views, both: &Tensor, z: &Tensor, label: &Tensor, out: &mut Eval) -> Result<()> {
        let n = both.size()[0] / 2;
        let shown = n.min(SHOWN);
        let labels = Vec::<i64>::try_from(label.f_narrow(0, 0, shown)?.f_to_device(Device::Cpu)?)?;
        let mut order: Vec<i64> = (0..shown).collect();
        order.sort_by_key(|&place| labels[place as usize]);
        let names: Vec<_> =
            order.iter().map(|&place| data.pictures.classes()[labels[place as usize] as usize].clone()).collect();
        let places: Vec<_> = order.iter().copied().chain(order.iter().map(|place| place + n)).collect();
        let (places, twice) = (Tensor::f_from_slice(&places)?, [names.clone(), names].concat());
        let chosen = |tensor: &Tensor| tensor.f_index_select(0, &places.f_to_device(tensor.device())?);
        out.picture("views", || {
            let pairs = data.pictures.normaliser().undo(&chosen(both)?)?.f_to_device(Device::Cpu)?;
            let title = "Test pictures in two views: one above, the other below";
            figures::framed(&pairs, shown as u32, 2, &twice, &[], title)
        })?;
        out.picture("similarity", || {
            let title = format!("Cosines of z: {shown} test pictures in two views, by class");
            figures::matrix(&similarity(&chosen(z)?, title, &twice)?)
        })
    }
}

/// The cosines of z `[2N, d]`: N pictures in one view, then in another.
fn similarity(z: &Tensor, title: String, names: &[String]) -> Result<figures::Matrix> {
    let half = names.len() / 2;
    let axis = format!("first view of {half} pictures, then the second of the same");
    let mut matrix = cosines(z, title, names)?;
    (matrix.axes, matrix.divide) = ((axis.clone(), axis), half);
    matrix.scale = "cosine; what the loss pulls up are the diagonals of the upper right and the lower left".into();
    Ok(matrix)
}

/// The cosines of rows `[N, D]` with each other, to be drawn.
pub(crate) fn cosines(rows: &Tensor, title: String, names: &[String]) -> Result<figures::Matrix> {
    let rows = unit(&rows.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?)?;
    let cells = Vec::<Vec<f64>>::try_from(rows.f_matmul(&rows.f_tr()?)?)?;
    Ok(figures::Matrix {
        title,
        rows: names.to_vec(),
        columns: names.to_vec(),
        cells: cells.into_iter().map(|row| row.into_iter().map(Some).collect()).collect(),
        scale: "cosine".into(),
        range: (-1.0, 1.0),
        ..figures::Matrix::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use repro::config::{Experiment, load};
    use repro::data::Cursor;
    use std::path::Path;

    /// The two views of the first batch.
    fn first(words: &[&str]) -> [Tensor; 2] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/simclr/smoke.yaml");
        let words: Vec<_> = [words, &["data.limit_train=64"]].concat().iter().map(ToString::to_string).collect();
        let Experiment { settings, paper, .. } = load(&file, &words).unwrap();
        let setup = Setup::new(settings, Device::Cpu).unwrap();
        let batch = views(&paper, &setup).unwrap().batches(Cursor::of(&setup, 0)).next().unwrap().unwrap();
        [0, 1].map(|view: usize| batch[view].image.shallow_clone())
    }

    /// With nothing to change it the second view is the set's pictures; the first is drawn as it was.
    #[test]
    fn the_second_view_may_have_a_list_of_its_own() {
        let [alike, plain, apart] = [&[][..], &["augment=[]"], &["augment_other=[]"]].map(first);
        assert_eq!(plain[0], plain[1]);
        assert_eq!(apart, [alike[0].shallow_clone(), plain[0].shallow_clone()]);
        assert!(alike[0] != plain[0] && alike[1] != plain[0] && alike[0] != alike[1]);
    }
}

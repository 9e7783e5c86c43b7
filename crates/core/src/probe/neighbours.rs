//! k nearest neighbours: what h is worth without learning anything (arXiv:1805.01978, §3.4).

use tch::{Device, Kind, Tensor, nn};

use super::{Features, Knn, Trunk, check_later, classify, section};
use crate::config::Settings;
use crate::data::{Images, Pictures, Source, Split};
use crate::figures::{self, Frame};
use crate::nn as layers;
use crate::optim::Schedule;
use crate::setup::Setup;
use crate::trainer::{Eval, Plan, Recipe, Scalars, Step};
use crate::weights::{Named, together};
use crate::{Error, Result};

/// Test pictures whose neighbours are drawn, and how many of them.
const SHOWN: (i64, i64) = (10, 7);

/// Training pictures to be asked.
#[derive(Debug)]
pub struct Memory {
    /// `[N, D]`, of length 1.
    unit: Tensor,
    /// `[N]`
    label: Tensor,
    classes: i64,
}

impl Memory {
    /// Of these features, with labels of so many classes.
    ///
    /// # Errors
    /// libtorch's.
    pub fn new(features: Features, classes: i64) -> Result<Self> {
        Ok(Self { unit: unit(&features.h)?, label: features.label, classes })
    }

    /// The k training pictures, or all if there are fewer, that are nearest to each h `[n, D]`: cosines and places, `[n, k]`, the nearest first.
    ///
    /// # Errors
    /// libtorch's.
    pub fn nearest(&self, h: &Tensor, k: i64) -> Result<(Tensor, Tensor)> {
        let k = k.min(self.label.size()[0]);
        Ok(unit(h)?.f_matmul(&self.unit.f_tr()?)?.f_topk(k, 1, true, true)?)
    }

    /// The labels of the training pictures at these places.
    ///
    /// # Errors
    /// libtorch's.
    pub fn labels(&self, places: &[i64]) -> Result<Vec<i64>> {
        let places = Tensor::f_from_slice(places)?.f_to_device(self.label.device())?;
        Ok(Vec::try_from(self.label.f_take(&places)?.f_to_device(Device::Cpu)?)?)
    }

    /// The sums of votes for each class, `[n, K]`: each of the k nearest has exp(cosine / temperature).
    ///
    /// # Errors
    /// libtorch's.
    pub fn votes(&self, h: &Tensor, &Knn { k, temperature }: &Knn) -> Result<Tensor> {
        let (cosine, place) = self.nearest(h, k)?;
        // All divided by the largest vote there can be, so that none overflows.
        let weight = cosine.f_to_kind(Kind::Double)?.f_sub_scalar(1.0)?.f_div_scalar(temperature)?.f_exp()?;
        let label = self.label.f_take(&place)?;
        let none = Tensor::f_zeros([h.size()[0], self.classes], (Kind::Double, h.device()))?;
        Ok(none.f_scatter_add(1, &label, &weight)?)
    }
}

/// Rows of length 1; a row of zeros stays one.
///
/// # Errors
/// libtorch's.
pub fn unit(h: &Tensor) -> Result<Tensor> {
    Ok(h.f_div(&h.f_norm_scalaropt_dim(2.0, [1_i64].as_slice(), true)?.f_clamp_min(1e-12)?)?)
}

/// Classifies test pictures by the labels of the training pictures whose h is nearest in direction.
#[derive(Debug)]
pub struct Neighbours<T> {
    knn: Knn,
    trunk: T,
    store: nn::VarStore,
}

impl<T: Trunk> Neighbours<T> {
    /// The stage trains nothing.
    pub fn plan(_: &T::Config, settings: &Settings) -> Plan {
        Plan { length: None, batch_size: settings.batch_size, lr: (0.0, 0.0) }
    }
}

impl<T: Trunk> Recipe for Neighbours<T> {
    type Config = T::Config;
    type Batch = Images;
    type Data = Pictures;

    fn data(config: &T::Config, setup: &Setup) -> Result<Pictures> {
        let judged = T::judged(config);
        section("knn", judged.knn)?;
        let data = T::pictures(config, setup, &[], &Schedule::Constant { warmup: None, warmup_start: None })?;
        check_later(judged, data.len(), std::iter::empty())?;
        Ok(data)
    }

    fn build(config: &T::Config, setup: &Setup, init: Option<&Named>) -> Result<Self> {
        let knn = section("knn", T::judged(config).knn)?.clone();
        let store = nn::VarStore::new(setup.device);
        let trunk = T::new(&store.root(), config)?;
        T::start(&store, config, init, setup)?;
        layers::kernels_channels_last(&store)?;
        Ok(Neighbours { knn, trunk, store })
    }

    fn step(&mut self, _: Images, _: &Pictures, _: &Step) -> Result<Scalars> {
        Err(Error::Failed("internal error: neighbours are not trained".into()))
    }

    fn evaluate(&mut self, data: &Pictures, split: Split, at: &Step, out: &mut Eval) -> Result<()> {
        if data.part(split, at.setup).is_none() {
            return Ok(());
        }
        let memory = Memory::new(Features::of_training(&self.trunk, data)?, data.classes().len() as i64)?;
        classify(data, split, at, |image| memory.votes(&self.trunk.features(image), &self.knn), out)?;
        if at.setup.rank > 0 {
            return Ok(());
        }
        out.picture("neighbours", || {
            let (rows, columns) = (SHOWN.0.min(data.split_len(split) as i64), SHOWN.1.min(memory.label.size()[0]));
            let asked = Features::of(&self.trunk, data, split, rows as u64)?;
            let (cosine, places) = memory.nearest(&asked.h, columns)?;
            let truth = Vec::<i64>::try_from(asked.label.f_to_device(Device::Cpu)?)?;
            let asked = data.show(split, &(0..truth.len() as i64).collect::<Vec<_>>())?;
            let name = |class: i64| data.classes().get(class as usize).map_or("?", String::as_str);
            let (mut pictures, mut captions, mut frames) = (Vec::new(), Vec::new(), Vec::new());
            for (row, &class) in (0..).zip(&truth) {
                pictures.push(asked.f_narrow(0, row, 1)?);
                captions.push(format!("test: {}", name(class)));
                frames.push(Frame::None);
                let places = Vec::<i64>::try_from(places.f_get(row)?)?;
                pictures.push(data.show(Split::Train, &places)?);
                let cosines = Vec::<f64>::try_from(cosine.f_get(row)?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?)?;
                for (other, cosine) in memory.labels(&places)?.into_iter().zip(cosines) {
                    captions.push(format!("{} · {cosine:.2}", name(other)));
                    frames.push(Frame::of(other == class));
                }
            }
            let pictures = Tensor::f_cat(&pictures, 0)?.f_to_device(Device::Cpu)?;
            let title = "Test pictures and the training pictures nearest by h, with the cosine: green of the same class, red of another";
            figures::framed(&pictures, columns as u32 + 1, 2, &captions, &frames, title)
        })
    }

    fn state(&self) -> Named {
        together([("model", self.store.variables().into_iter().collect())])
    }

    fn still(&self) -> &'static [&'static str] {
        T::PARTS
    }
}

//! Pictures out of noise, by the configured sampler.

use std::ops::Range;

use repro::Result;
use repro::nn::Mode;
use repro::random::{normal, rng};
use repro::setup::Setup;
use tch::{Device, Kind, Tensor};

use crate::guidance::classifier_free;
use crate::model::Model;
use crate::process::Process;
use crate::sampler::{self, Each, Network, Noise, SamplerConfig};

/// What pictures are drawn with.
#[derive(Debug, Clone, Copy)]
pub struct Draw<'a> {
    /// The schedule that the network learned.
    pub process: &'a Process,
    /// The network.
    pub model: &'a Model,
    /// Which steps are taken.
    pub sampler: &'a SamplerConfig,
    /// Of one picture, `[C, H, W]`, or `[2]` of a point.
    pub shape: &'a [i64],
    /// Device, precision, and the seed, on which with a picture's place its noise depends.
    pub setup: &'a Setup,
    /// The null class, of a network that knows classes.
    pub null: Option<i64>,
    /// Weight of the class against the null class; 1 is plain (arXiv:2207.12598, Eq. 6, whose w is this less 1).
    pub guidance: f64,
    /// Of the network's weights.
    pub kind: Kind,
}

impl Draw<'_> {
    /// Standard normal numbers for the pictures at these places: functions of (seed, step, place), whatever the batch.
    ///
    /// # Errors
    /// libtorch's.
    pub fn noise(&self, step: usize, places: Range<u64>) -> Result<Tensor> {
        let each: usize = self.shape.iter().product::<i64>() as usize;
        let n = places.end - places.start;
        let mut numbers: Vec<f32> = Vec::with_capacity(each * n as usize);
        for place in places {
            let mut rng = rng(self.setup.settings.seed, step as u64, place, "sample");
            numbers.extend((0..each).map(|_| normal(&mut rng) as f32));
        }
        let shape = [&[n as i64], self.shape].concat();
        Ok(Tensor::f_from_slice(&numbers)?.f_view(&shape[..])?.f_to_kind(self.kind)?.f_to_device(self.setup.device)?)
    }

    /// The pictures at these places, `[N, …]`, not clamped: x_T is noise number 0, and step k draws number k. A network that knows classes is told
    /// `classes`, or else one class after the other.
    ///
    /// # Errors
    /// Those of [`sampler::run`] and of `each`.
    pub fn pictures(&self, places: Range<u64>, classes: Option<&[i64]>, each: Each) -> Result<Tensor> {
        let x = self.noise(0, places.clone())?;
        let classes = match (classes, self.null) {
            (Some(classes), _) => Some(classes.to_vec()),
            (None, Some(k)) => Some(places.clone().map(|place| place as i64 % k).collect()),
            (None, None) => None,
        };
        self.from(&x, classes.as_deref(), &mut |step| self.noise(step, places.clone()), each)
    }

    /// The same from given noise: x_T, and `noise` for each step that draws, counted from 1.
    ///
    /// # Errors
    /// Likewise.
    pub fn from(&self, x: &Tensor, classes: Option<&[i64]>, noise: Noise, each: Each) -> Result<Tensor> {
        self.with_network(classes, |net| sampler::run(self.process, self.sampler, net, x, noise, each))
    }

    /// Whether the picture is a function of x_T alone.
    pub fn is_deterministic(&self) -> bool {
        match self.sampler.kind {
            sampler::Kind::Ddpm => false,
            sampler::Kind::Ddim => self.sampler.eta.unwrap_or(0.0) == 0.0,
            sampler::Kind::DpmPp => true,
        }
    }

    /// Does something with the network as samplers ask it, told these classes and guided.
    ///
    /// # Errors
    /// Those of `work`; libtorch's.
    pub fn with_network<T>(&self, classes: Option<&[i64]>, work: impl FnOnce(Network) -> Result<T>) -> Result<T> {
        let _quiet = tch::no_grad_guard();
        let ask = |x: &Tensor, t: &Tensor, class: Option<&Tensor>| -> Result<Tensor> {
            Ok(self.setup.autocast(|| self.model.forward(x, t, class, Mode::Eval))??.to_kind(x.kind()))
        };
        let (Some(classes), Some(null)) = (classes, self.null) else { return work(&mut |x, t| ask(x, t, None)) };
        let class = Tensor::f_from_slice(classes)?.f_to_device(self.setup.device)?;
        let told = |x: &Tensor, t: &Tensor, class: &Tensor| ask(x, t, Some(class));
        work(&mut classifier_free(told, &class, null, self.guidance))
    }
}

/// Nothing is done after a step.
pub fn nothing(_: usize, _: &Tensor, _: &Tensor) -> Result<()> {
    Ok(())
}

/// Of n things counted from 1 the places of `count`, evenly spread, with the last.
pub fn evenly(n: usize, count: usize) -> Vec<usize> {
    (1..=count.min(n)).map(|k| k * n / count.min(n)).collect()
}

/// Numbers in [−1, 1] as pixels in [0, 1], on the CPU in float32.
///
/// # Errors
/// libtorch's.
pub fn pixels(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_add_scalar(1.0)?.f_div_scalar(2.0)?.f_clamp(0.0, 1.0)?)
}

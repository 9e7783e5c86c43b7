//! Exponential moving averages of weights.

use std::collections::BTreeMap;

use serde::Deserialize;
use tch::Tensor;
use torch_ext::TensorList;

use crate::{Result, user};

/// Numbers of [`Ema`].
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct EmaConfig {
    /// Part of the average that each step keeps, in [0, 1).
    pub decay: f64,
    /// Whether update n, counted from 1, keeps min(decay, (1 + n)/(10 + n)) instead: the start is forgotten sooner (latent-diffusion's
    /// `LitEma`). `None`: no.
    pub warmup: Option<bool>,
    /// What becomes of tensors that are not trained, such as running statistics. `None`: they are averaged.
    pub buffers: Option<Buffers>,
}

/// What averages hold of tensors that are not trained.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Buffers {
    /// Their averages.
    Average,
    /// Their present values (FixMatch).
    Copy,
}

impl EmaConfig {
    /// # Errors
    /// A decay outside [0, 1).
    pub fn check(&self) -> Result<()> {
        match self.decay {
            decay if (0.0..1.0).contains(&decay) => Ok(()),
            decay => Err(user!("ema.decay is {decay}; it must be at least 0 and below 1, such as 0.999")),
        }
    }
}

/// Averages of tensors: a ← decay·a + (1 − decay)·w after each step. They start as copies of the tensors.
#[derive(Debug)]
pub struct Ema {
    decay: f64,
    warmup: bool,
    live: Vec<Tensor>,
    /// Running statistics that are copied: average and tensor.
    copied: Vec<(Tensor, Tensor)>,
    averages: BTreeMap<String, Tensor>,
    /// Whole numbers, such as `num_batches_tracked`, which have no average and belong to a complete state all the same.
    counters: BTreeMap<String, Tensor>,
    live_list: TensorList,
    average_list: TensorList,
}

impl Ema {
    /// Averages of the floating-point tensors.
    /// # Errors
    /// A decay outside [0, 1).
    pub fn new(tensors: &BTreeMap<String, Tensor>, config: &EmaConfig) -> Result<Self> {
        config.check()?;
        let named = |floating: bool| tensors.iter().filter(move |(_, tensor)| tensor.is_floating_point() == floating);
        let live: Vec<Tensor> = named(true).map(|(_, tensor)| tensor.detach()).collect();
        let averages: BTreeMap<_, _> = named(true).map(|(name, t)| (name.clone(), t.detach().copy())).collect();
        let counters = named(false).map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        let copies = |tensor: &Tensor| config.buffers == Some(Buffers::Copy) && !tensor.requires_grad();
        let pairs: Vec<_> = named(true).map(|(name, tensor)| (tensor, &averages[name])).collect();
        let (copied, moved): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|(tensor, _)| copies(tensor));
        let (sources, targets): (Vec<_>, Vec<_>) = moved.into_iter().map(|(t, a)| (t.detach(), a)).unzip();
        Ok(Self {
            decay: config.decay,
            warmup: config.warmup.unwrap_or(false),
            live_list: TensorList::new(&sources)?,
            average_list: TensorList::new(&targets)?,
            copied: copied.into_iter().map(|(t, a)| (a.shallow_clone(), t.detach())).collect(),
            live,
            averages,
            counters,
        })
    }

    /// Takes the tensors' present values in, after step `step` of the stage, counted from 0: so the warm-up has nothing to be saved.
    /// # Errors
    /// What libtorch says.
    pub fn update(&mut self, step: u64) -> Result<()> {
        let n = step as f64 + 1.0;
        let decay = if self.warmup { self.decay.min((1.0 + n) / (10.0 + n)) } else { self.decay };
        self.average_list.foreach_lerp(&self.live_list, 1.0 - decay)?;
        for (average, tensor) in &mut self.copied {
            average.f_copy_(tensor)?;
        }
        Ok(())
    }

    /// Handles to the averages, and to the counters themselves, by the names of their tensors: copying into them restores a checkpoint.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        self.averages
            .iter()
            .chain(&self.counters)
            .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
            .collect()
    }

    /// Runs `body` with the averages in place of the tensors' values, which are back afterwards to the bit, even after a panic.
    /// # Errors
    /// What libtorch says.
    pub fn applied<T>(&self, body: impl FnOnce() -> T) -> Result<T> {
        let saved = self.live.iter().map(copy).collect::<Result<Vec<_>>>()?;
        let _restore = Restore { live: &self.live, saved };
        for (tensor, average) in self.live.iter().zip(self.averages.values()) {
            tensor.shallow_clone().f_copy_(average)?;
        }
        Ok(body())
    }
}

fn copy(tensor: &Tensor) -> Result<Tensor> {
    let mut copy = tensor.f_empty_like()?;
    copy.f_copy_(tensor)?;
    Ok(copy)
}

struct Restore<'a> {
    live: &'a [Tensor],
    saved: Vec<Tensor>,
}

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        for (tensor, saved) in self.live.iter().zip(&self.saved) {
            // Same shape, kind and device: only a lost device fails here, and then the next operation says so.
            let _ = tensor.shallow_clone().f_copy_(saved);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use tch::{Device, Kind};

    fn weights() -> BTreeMap<String, Tensor> {
        let weight = Tensor::randn([7], (Kind::Double, Device::Cpu)).set_requires_grad(true);
        let running = Tensor::randn([2, 3], (Kind::Double, Device::Cpu));
        BTreeMap::from([("weight".to_string(), weight), ("running".to_string(), running)])
    }

    fn keeps(decay: f64) -> EmaConfig {
        EmaConfig { decay, warmup: None, buffers: None }
    }

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.detach().view(-1)).unwrap()
    }

    #[test]
    fn averages_are_the_formula() {
        let weights = weights();
        let mut ema = Ema::new(&weights, &keeps(0.9)).unwrap();
        let mut plain = numbers(&weights["weight"]);
        for step in 0..5 {
            let _ = tch::no_grad(|| weights["weight"].shallow_clone().g_add_scalar_(0.5));
            ema.update(step).unwrap();
            for (average, weight) in plain.iter_mut().zip(numbers(&weights["weight"])) {
                *average = 0.9 * *average + 0.1 * weight;
            }
        }
        for (average, plain) in numbers(&ema.state()["weight"]).iter().zip(&plain) {
            assert!((average - plain).abs() < 1e-12, "{average} {plain}");
        }
    }

    #[test]
    fn applied_shows_the_averages_and_restores_the_bits() {
        let weights = weights();
        let ema = Ema::new(&weights, &keeps(0.5)).unwrap();
        let _ = tch::no_grad(|| weights["weight"].shallow_clone().g_add_scalar_(1.0 / 3.0));
        let before = numbers(&weights["weight"]);
        let averages = numbers(&ema.state()["weight"]);
        assert_ne!(before, averages);
        assert_eq!(ema.applied(|| numbers(&weights["weight"])).unwrap(), averages);
        assert_eq!(numbers(&weights["weight"]), before);
        assert_eq!(numbers(&ema.state()["weight"]), averages);
        assert!(weights["weight"].requires_grad());

        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            ema.applied(|| std::panic::resume_unwind(Box::new(()))).unwrap()
        }));
        assert!(panicked.is_err());
        assert_eq!(numbers(&weights["weight"]), before);
    }

    #[test]
    fn bad_decays_are_refused_and_counters_kept() {
        assert!(matches!(Ema::new(&weights(), &keeps(1.0)), Err(Error::User(_))));
        assert!(matches!(Ema::new(&weights(), &keeps(f64::NAN)), Err(Error::User(_))));
        let mut tensors = weights();
        tensors.insert("n".to_string(), Tensor::from(3i64));
        let mut ema = Ema::new(&tensors, &keeps(0.9)).unwrap();
        let _ = tensors["n"].shallow_clone().g_add_scalar_(1);
        ema.update(0).unwrap();
        assert_eq!(ema.state().len(), 3);
        assert_eq!(ema.state()["n"].int64_value(&[]), 4);
    }

    #[test]
    fn the_warm_up_forgets_the_start_and_buffers_may_be_copied() {
        let weights = weights();
        let config = EmaConfig { warmup: Some(true), buffers: Some(Buffers::Copy), ..keeps(0.25) };
        let mut ema = Ema::new(&weights, &config).unwrap();
        let mut plain = numbers(&weights["weight"]);
        for (step, decay) in [(0, 2.0 / 11.0), (1, 0.25), (2, 0.25)] {
            for tensor in weights.values() {
                let _ = tch::no_grad(|| tensor.shallow_clone().g_add_scalar_(0.5));
            }
            ema.update(step).unwrap();
            for (average, weight) in plain.iter_mut().zip(numbers(&weights["weight"])) {
                *average = decay * *average + (1.0 - decay) * weight;
            }
            assert_eq!(numbers(&ema.state()["running"]), numbers(&weights["running"]));
        }
        for (average, plain) in numbers(&ema.state()["weight"]).iter().zip(&plain) {
            assert!((average - plain).abs() < 1e-12, "{average} {plain}");
        }
    }
}

//! Normalisation layers.

use std::fmt;
use std::ops::Add;
use std::rc::Rc;

use tch::{Kind, Tensor, nn};

use super::record::{self, Counts, trainable};
use super::{Mode, sync_norm};

/// `[k]` on each process → `[processes, k]` on all, differentiable: the gradient of each process's part is the sum over all processes.
#[derive(Clone)]
pub struct Gather(Rc<dyn Fn(&Tensor) -> Tensor>);

impl Gather {
    /// By this exchange; all processes must come to it in the same order.
    pub fn new(gather: impl Fn(&Tensor) -> Tensor + 'static) -> Self {
        Gather(Rc::new(gather))
    }
}

impl fmt::Debug for Gather {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Gather")
    }
}

/// What of a batch norm has a usual value.
#[derive(Debug, Clone)]
pub struct BatchNormConfig {
    /// Added to the variance.
    pub eps: f64,
    /// Weight of the present batch in the running statistics.
    pub momentum: f64,
    /// Whether there is a scale.
    pub weight: bool,
    /// Whether there is a shift.
    pub bias: bool,
    /// Scale, shift and running statistics are given and stay, in training as well, and the state dict has no `num_batches_tracked`: what
    /// DETR's backbone has (arXiv:2005.12872, §4).
    pub frozen: bool,
    /// Statistics of the batch of all processes; `None`: each process normalises by its own part.
    pub over: Option<Gather>,
}

impl Default for BatchNormConfig {
    /// `torch.nn.BatchNorm2d`'s.
    fn default() -> Self {
        Self { eps: 1e-5, momentum: 0.1, weight: true, bias: true, frozen: false, over: None }
    }
}

/// Normalises each channel over batch and positions (arXiv:1502.03167), as `torch.nn.BatchNorm2d`; on vectors `[N, C]` it is its
/// `BatchNorm1d`.
#[derive(Debug)]
pub struct BatchNorm2d {
    /// `[C]`, from 1.
    pub weight: Option<Tensor>,
    /// `[C]`, from 0.
    pub bias: Option<Tensor>,
    /// `[C]`, from 0; not trained.
    pub running_mean: Tensor,
    /// `[C]`, from 1; not trained. Of the unbiased variance.
    pub running_var: Tensor,
    /// Training batches seen, i64; kept because PyTorch's state dicts have it. Not in a frozen one.
    pub num_batches_tracked: Option<Tensor>,
    config: BatchNormConfig,
    name: String,
}

impl BatchNorm2d {
    /// The five tensors of PyTorch's state dict under `path`, with its defaults.
    pub fn new(path: &nn::Path, channels: i64) -> Self {
        Self::with(path, channels, BatchNormConfig::default())
    }

    /// Those of them that the configuration leaves.
    pub fn with(path: &nn::Path, channels: i64, config: BatchNormConfig) -> Self {
        let tensor = |name: &str, value: f64| {
            path.add(name, Tensor::full([channels], value, (Kind::Float, path.device())), !config.frozen)
        };
        let count = || path.add("num_batches_tracked", Tensor::zeros([], (Kind::Int64, path.device())), false);
        Self {
            weight: config.weight.then(|| tensor("weight", 1.0)),
            bias: config.bias.then(|| tensor("bias", 0.0)),
            running_mean: path.zeros_no_train("running_mean", &[channels]),
            running_var: path.ones_no_train("running_var", &[channels]),
            num_batches_tracked: (!config.frozen).then(count),
            config,
            name: record::name(path),
        }
    }

    /// `[N, C, …]` → the same. In training by the batch's statistics, else by the running ones; by these also in training, and without
    /// moving them, where `weight` takes no gradient: a part that is frozen stays as it is.
    ///
    /// # Panics
    /// As tch's own operations: on tensors of another shape or kind. In training also on a single value for each channel.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        self.forward_act(x, mode, None, false)
    }

    /// As [`Self::forward`], but not done yet: what is added to it and rectified is done with it, on the CPU in one operation, which saves
    /// walks over the pictures. A recorder that keeps this layer's output gets what [`Self::forward`] gives; the rest is then done one by one.
    pub fn norm(&self, x: Tensor, mode: Mode) -> Normed<'_> {
        Normed { norm: self, x, mode, plus: None }
    }

    fn forward_act(&self, x: &Tensor, mode: Mode, shortcut: Option<&Tensor>, relu: bool) -> Tensor {
        let still = self.config.frozen || self.weight.as_ref().is_some_and(|weight| !weight.requires_grad());
        let mode = if still { Mode::Eval } else { mode };
        if let (Mode::Train, Some(count)) = (mode, &self.num_batches_tracked) {
            let _ = count.shallow_clone().g_add_scalar_(1);
        }
        let counts = || Counts { parameters: trainable(self.weight.iter().chain(&self.bias)), ..Counts::default() };
        let normalised = match &self.config.over {
            Some(gather) if mode.trains() => self.over_processes(x, mode, gather),
            _ if record::keeps(&self.name) => self.fused(x, mode, None, false),
            _ => {
                let y = self.fused(x, mode, shortcut, relu);
                record::seen(&self.name, &y, counts);
                return y;
            }
        };
        record::seen(&self.name, &normalised, counts);
        let sum = match shortcut {
            Some(shortcut) => normalised + shortcut,
            None => normalised,
        };
        if relu { sum.relu() } else { sum }
    }

    fn fused(&self, x: &Tensor, mode: Mode, shortcut: Option<&Tensor>, relu: bool) -> Tensor {
        // What is not there is 1 and 0, in the kind and at the place that the store has by now.
        let constant = |tensor: &Option<Tensor>, value: f64| match tensor {
            Some(tensor) => tensor.shallow_clone(),
            None => self.running_var.full_like(value),
        };
        let norm = torch_ext::BatchNorm {
            weight: &constant(&self.weight, 1.0),
            bias: &constant(&self.bias, 0.0),
            running_mean: &self.running_mean,
            running_var: &self.running_var,
            train: mode.trains(),
            update: mode == Mode::Train,
            momentum: self.config.momentum,
            eps: self.config.eps,
        };
        torch_ext::batch_norm_act(x, &norm, shortcut, relu).unwrap_or_else(|error| panic!("batch norm: {error}"))
    }

    /// The batch's statistics are those of all processes' parts together, also in the gradient.
    fn over_processes(&self, x: &Tensor, mode: Mode, gather: &Gather) -> Tensor {
        // Half precision (autocast) has too few digits for sums over a batch.
        let wide = x.to_kind(self.running_mean.kind());
        let moments = sync_norm::combine(&(gather.0)(&sync_norm::parts(&wide)));
        if mode == Mode::Train {
            tch::no_grad(|| {
                for (running, batch) in [(&self.running_mean, &moments.mean), (&self.running_var, &moments.unbiased())]
                {
                    let _ = running.shallow_clone().lerp_(batch, self.config.momentum);
                }
            });
        }
        let y = sync_norm::normalise(&wide, &moments.mean, &moments.var, self.config.eps);
        let scaled = self.weight.iter().fold(y, |y, weight| y * sync_norm::along(x, weight));
        let y = self.bias.iter().fold(scaled, |y, bias| y + sync_norm::along(x, bias));
        y.to_kind(x.kind())
    }
}

/// A batch norm to which a tensor of the same shape may be added and which is then rectified: `(norm + shortcut).relu()`.
#[derive(Debug)]
pub struct Normed<'a> {
    norm: &'a BatchNorm2d,
    x: Tensor,
    mode: Mode,
    plus: Option<Tensor>,
}

impl Normed<'_> {
    /// max(0, ·) of the sum, or of the norm alone.
    ///
    /// # Panics
    /// As [`BatchNorm2d::forward`].
    pub fn relu(self) -> Tensor {
        self.norm.forward_act(&self.x, self.mode, self.plus.as_ref(), true)
    }
}

impl Add<Tensor> for Normed<'_> {
    type Output = Self;

    fn add(self, other: Tensor) -> Self {
        let plus = match self.plus {
            Some(plus) => plus + other,
            None => other,
        };
        Self { plus: Some(plus), ..self }
    }
}

/// Normalises over the last dimension (arXiv:1607.06450), as `torch.nn.LayerNorm`.
#[derive(Debug)]
pub struct LayerNorm {
    /// `[D]`, from 1.
    pub weight: Tensor,
    /// `[D]`, from 0.
    pub bias: Tensor,
    eps: f64,
    name: String,
}

impl LayerNorm {
    /// `weight` and `bias` under `path`. PyTorch's default `eps` is 1e-5; vision transformers use 1e-6.
    pub fn new(path: &nn::Path, width: i64, eps: f64) -> Self {
        let (weight, bias) = (path.ones("weight", &[width]), path.zeros("bias", &[width]));
        Self { weight, bias, eps, name: record::name(path) }
    }

    /// `[…, D]` → the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let y = x.layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.eps, true);
        record::seen(&self.name, &y, || Counts {
            parameters: trainable([&self.weight, &self.bias]),
            ..Counts::default()
        });
        y
    }
}

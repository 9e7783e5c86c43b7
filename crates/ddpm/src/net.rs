//! Which network: its sizes, those that have a name, and the one way in which all are called.

use repro::nn::Mode;
use repro::weights::Named;
use repro::{Result, user};
use tch::{Tensor, nn};

use crate::improved::{self, ImprovedUnet};
use crate::unet::{self, Unet};

/// Whose blocks and names a network has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// DDPM's (Appendix B) by the names of diffusers: [`Unet`].
    Ddpm,
    /// Improved DDPM's (arXiv:2102.09672, Appendix A): [`ImprovedUnet`].
    Improved,
}

/// The sizes of a network.
#[derive(Debug, Clone, PartialEq)]
pub struct UnetConfig {
    /// Whose blocks.
    pub form: Form,
    /// C of the pictures.
    pub channels: i64,
    /// Feature maps at the first level; the time embedding is of as many numbers, and of four times as many behind its two layers.
    pub base: i64,
    /// Feature maps of each level in multiples of `base`; each level's maps have half the edge of those before.
    pub multipliers: Vec<i64>,
    /// Residual blocks of each level on the way down; one more on the way up.
    pub blocks: usize,
    /// Whether there is attention behind each of a level's residual blocks, by level. There always is between the two in the middle.
    pub attention: Vec<bool>,
    /// Of attention; they divide the feature maps where it is.
    pub heads: i64,
    /// Rate in each residual block, in [0, 1).
    pub dropout: f64,
    /// Of the group norms; they divide the feature maps of all levels.
    pub groups: i64,
    /// Added to the variances of the group norms.
    pub eps: f64,
    /// K, where the network is told a class. Number K is then no class: what guidance without a classifier needs (arXiv:2207.12598).
    pub classes: Option<i64>,
    /// Whether it gives 2C channels: behind the prediction v, of which a learned variance is made (Improved DDPM, Eq. 15).
    pub learned_variance: bool,
}

impl UnetConfig {
    /// Channels that leave the network: C or 2C.
    pub fn outputs(&self) -> i64 {
        self.channels * if self.learned_variance { 2 } else { 1 }
    }

    /// Height and width of pictures must be multiples of this, as each level but the last halves and doubles them.
    pub fn multiple(&self) -> i64 {
        1 << (self.multipliers.len() - 1)
    }

    /// Feature maps of a level.
    pub(crate) fn width(&self, level: usize) -> i64 {
        self.base * self.multipliers[level]
    }

    /// Numbers of the time embedding as the blocks get it.
    pub(crate) fn embedding(&self) -> i64 {
        4 * self.base
    }
}

/// Networks by name: `ddpm_cifar10` (§4, Appendix B; 35.7 million parameters) and `improved_ddpm_cifar10` (arXiv:2102.09672, Appendix A;
/// 52.5 million), for 32 px in three colours; `unet_mnist` (28 px, grey), `unet_32` and `unet_tiny` (32 px, three colours), which
/// are ours, DDPM's at smaller sizes.
///
/// # Errors
/// Lists the names.
pub fn variant(name: &str) -> Result<UnetConfig> {
    let cifar10 = UnetConfig {
        form: Form::Ddpm,
        channels: 3,
        base: 128,
        multipliers: vec![1, 2, 2, 2],
        blocks: 2,
        attention: vec![false, true, false, false],
        heads: 1,
        dropout: 0.1,
        groups: 32,
        eps: 1e-6,
        classes: None,
        learned_variance: false,
    };
    let small = |channels, base, multipliers: &[i64], attention: &[bool], groups| UnetConfig {
        channels,
        base,
        multipliers: multipliers.to_vec(),
        blocks: 1,
        attention: attention.to_vec(),
        dropout: 0.0,
        groups,
        ..cifar10.clone()
    };
    Ok(match name {
        "ddpm_cifar10" => cifar10,
        "improved_ddpm_cifar10" => UnetConfig {
            form: Form::Improved,
            blocks: 3,
            attention: vec![false, true, true, false],
            heads: 4,
            dropout: 0.3,
            eps: 1e-5,
            learned_variance: true,
            ..cifar10
        },
        "unet_mnist" => small(1, 16, &[1, 2, 4], &[false, false, true], 8),
        "unet_32" => small(3, 64, &[1, 2, 2, 2], &[false, true, false, false], 16),
        "unet_tiny" => small(3, 8, &[1, 2], &[false, true], 4),
        _ => {
            return Err(user!(
                "there is no model {name}; there are ddpm_cifar10, improved_ddpm_cifar10, unet_mnist, unet_32 and unet_tiny"
            ));
        }
    })
}

/// One of the networks ε_θ(x_t, t).
#[derive(Debug)]
pub enum Net {
    /// DDPM's.
    Ddpm(Unet),
    /// Improved DDPM's.
    Improved(ImprovedUnet),
}

impl Net {
    /// Under the names of its form. See [`initialise`] for where it starts.
    pub fn new(path: &nn::Path, config: &UnetConfig) -> Self {
        match config.form {
            Form::Ddpm => Net::Ddpm(Unet::new(path, config)),
            Form::Improved => Net::Improved(ImprovedUnet::new(path, config)),
        }
    }

    /// What the network says of x_t, `[N, C, H, W]` → `[N, C or 2C, H, W]`.
    ///
    /// `t` is `[N]`, the network's own count of steps, which may be between two. `class` is `[N]` int64 from 0 to K, the last being no class;
    /// without it none has one.
    ///
    /// # Panics
    /// As tch's own operations: on other shapes, edges that are no multiples of [`UnetConfig::multiple`], classes above K, and classes for a
    /// network that has none.
    pub fn forward(&self, x: &Tensor, t: &Tensor, class: Option<&Tensor>, mode: Mode) -> Tensor {
        match self {
            Net::Ddpm(net) => net.forward(x, t, class, mode),
            Net::Improved(net) => net.forward(x, t, class, mode),
        }
    }
}

/// Where training starts, drawn from libtorch's generator: see [`unet::initialise`] and [`improved::initialise`].
///
/// # Errors
/// libtorch's.
pub fn initialise(model: &Named, form: Form) -> Result<()> {
    match form {
        Form::Ddpm => unet::initialise(model),
        Form::Improved => improved::initialise(model),
    }
}

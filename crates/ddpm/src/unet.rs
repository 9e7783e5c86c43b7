//! DDPM's network (§4, Appendix B): blocks, and the whole in the form and by the names of diffusers' `UNet2DModel`.
//!
//! Reference: hojonathanho/diffusion (`models/unet.py`, `nn.py`) for the network and where it starts; held against diffusers 0.42.1.
//!
//! *Changes against the reference*: none in the arithmetic, but that sine and cosine of the time are of float64.

use repro::Result;
use repro::nn::record::{self, Counts};
use repro::nn::{Conv2d, Conv2dConfig, GroupNorm, Linear, Mode, channels_last};
use repro::weights::Named;
use tch::nn::{self, Init};
use tch::{Kind, Tensor};

use crate::net::UnetConfig;

/// What the norms of all blocks have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Norms {
    /// They divide the channels.
    pub groups: i64,
    /// Added to the variances.
    pub eps: f64,
}

impl Norms {
    /// One for so many channels.
    pub fn norm(self, path: &nn::Path, channels: i64) -> GroupNorm {
        GroupNorm::new(path, self.groups, channels, self.eps)
    }
}

/// A convolution of 3 × 3 that keeps the size.
pub fn conv_3x3(path: &nn::Path, input: i64, output: i64) -> Conv2d {
    Conv2d::new(path, input, output, 3, Conv2dConfig { padding: 1, ..Conv2dConfig::default() })
}

/// Which function of the time comes first, and its frequencies f_k = 10000^(−k/K).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waves {
    /// Sines first; of `width`/2 frequencies the last is 1/10000: DDPM.
    SineFirst,
    /// Cosines first; the last frequency is one step short of that: Improved DDPM, Stable Diffusion.
    CosineFirst,
}

/// Sines and cosines of t (arXiv:1706.03762, §3.5), `[N]` → `[N, width]`, in float64; `width` is even.
pub fn time_waves(t: &Tensor, width: i64, waves: Waves) -> Tensor {
    let half = width / 2;
    let last = match waves {
        Waves::SineFirst => half - 1,
        Waves::CosineFirst => half,
    };
    let frequencies: Vec<f64> = (0..half).map(|k| 10000f64.powf(-(k as f64) / last as f64)).collect();
    let frequencies = Tensor::from_slice(&frequencies).to_device(t.device());
    let angle = t.to_kind(Kind::Double).outer(&frequencies);
    match waves {
        Waves::SineFirst => Tensor::cat(&[angle.sin(), angle.cos()], 1),
        Waves::CosineFirst => Tensor::cat(&[angle.cos(), angle.sin()], 1),
    }
}

/// Two layers on [`time_waves`].
#[derive(Debug)]
pub struct TimeEmbedding {
    linears: [Linear; 2],
    waves: Waves,
    width: i64,
}

impl TimeEmbedding {
    /// Layers called `names` under `path`, from `width` to four times as many numbers.
    pub fn new(path: &nn::Path, names: [&str; 2], width: i64, waves: Waves) -> Self {
        let [first, second] = names;
        let linears =
            [Linear::new(&(path / first), width, 4 * width), Linear::new(&(path / second), 4 * width, 4 * width)];
        TimeEmbedding { linears, waves, width }
    }

    /// `[N]` → `[N, 4·width]`
    pub fn forward(&self, t: &Tensor) -> Tensor {
        let [first, second] = &self.linears;
        let waves = time_waves(t, self.width, self.waves).to_kind(first.weight.kind());
        second.forward(&first.forward(&waves).silu())
    }
}

/// `[K + 1, width]`: a row for each class, and the last for none.
pub(crate) fn class_table(path: &nn::Path, classes: i64, width: i64) -> Tensor {
    path.var("weight", &[classes + 1, width], Init::Randn { mean: 0.0, stdev: 1.0 })
}

/// What is added to the time embedding: the rows of the classes `[N]`, or that of none.
pub(crate) fn class_rows(table: Option<&Tensor>, class: Option<&Tensor>, embedding: Tensor) -> Tensor {
    match (table, class) {
        (Some(table), Some(class)) => embedding + Tensor::embedding(table, class, -1, false, false),
        (Some(table), None) => embedding + table.get(-1),
        (None, None) => embedding,
        (None, Some(_)) => panic!("the network has no classes"),
    }
}

/// Norm, SiLU, convolution, plus the time; norm, SiLU, dropout, convolution; plus what came in, through a convolution of 1 × 1 where the
/// channels change.
#[derive(Debug)]
pub struct ResBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Linear,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
    dropout: f64,
    name: String,
}

impl ResBlock {
    /// Under `path`, by diffusers' names.
    pub fn new(path: &nn::Path, input: i64, output: i64, embedding: i64, norms: Norms, dropout: f64) -> Self {
        let shortcut = || Conv2d::new(&(path / "conv_shortcut"), input, output, 1, Conv2dConfig::default());
        ResBlock {
            norm1: norms.norm(&(path / "norm1"), input),
            conv1: conv_3x3(&(path / "conv1"), input, output),
            time_emb_proj: Linear::new(&(path / "time_emb_proj"), embedding, output),
            norm2: norms.norm(&(path / "norm2"), output),
            conv2: conv_3x3(&(path / "conv2"), output, output),
            conv_shortcut: (input != output).then(shortcut),
            dropout,
            name: record::name(path),
        }
    }

    /// `[N, in, H, W]` → `[N, out, H, W]`; `time` is SiLU of the time embedding, `[N, embedding]`.
    pub fn forward(&self, x: &Tensor, time: &Tensor, mode: Mode) -> Tensor {
        record::block(&self.name, || {
            let h = self.conv1.forward(&self.norm1.silu(x));
            let h = h + self.time_emb_proj.forward(time).unsqueeze(-1).unsqueeze(-1);
            let h = self.norm2.silu(&h).dropout(self.dropout, mode.trains());
            let h = self.conv2.forward(&h);
            match &self.conv_shortcut {
                Some(shortcut) => h + shortcut.forward(x),
                None => h + x,
            }
        })
    }
}

/// softmax(q kᵀ / √d) v of q, k and v, `[N, heads, L, d]` each → `[N, L, heads·d]`, reported as `name`.
pub(crate) fn attend([q, k, v]: [&Tensor; 3], name: &str) -> Tensor {
    let mixed = Tensor::scaled_dot_product_attention(q, k, v, None::<Tensor>, 0.0, false, None, false);
    let mixed = mixed.transpose(1, 2).flatten(2, 3);
    // q kᵀ and the weights' product with v: L² multiply-adds each for every channel.
    record::seen(name, &mixed, || Counts {
        multiply_adds: (2 * mixed.numel()) as u64 * q.size()[2] as u64,
        ..Counts::default()
    });
    mixed
}

/// Positions as tokens: `[N, C, H, W]` → `[N, HW, C]`, row by row.
pub(crate) fn tokens(x: &Tensor) -> Tensor {
    x.flatten(2, 3).transpose(1, 2)
}

/// x plus attention over the positions of its norm.
#[derive(Debug)]
pub struct Attention {
    group_norm: GroupNorm,
    /// To q, k and v.
    to: [Linear; 3],
    to_out: Linear,
    heads: i64,
    name: String,
    product: String,
}

impl Attention {
    /// Under `path`, by diffusers' names; `heads` divides `channels`.
    pub fn new(path: &nn::Path, channels: i64, heads: i64, norms: Norms) -> Self {
        let name = record::name(path);
        Attention {
            group_norm: norms.norm(&(path / "group_norm"), channels),
            to: ["to_q", "to_k", "to_v"].map(|name| Linear::new(&(path / name), channels, channels)),
            to_out: Linear::new(&(path / "to_out" / "0"), channels, channels),
            heads,
            product: format!("{name}.product"),
            name,
        }
    }

    /// `[N, C, H, W]` → the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        record::block(&self.name, || {
            let size = x.size();
            let within = tokens(&self.group_norm.forward(x));
            let split = [size[0], size[2] * size[3], self.heads, size[1] / self.heads];
            let [q, k, v] = self.to.each_ref().map(|to| to.forward(&within).view(split).transpose(1, 2));
            let mixed = self.to_out.forward(&attend([&q, &k, &v], &self.product));
            x + mixed.transpose(1, 2).view_as(x)
        })
    }
}

/// Half the edge, by a convolution whose only border is one pixel at the right and at the bottom, as TensorFlow pads even edges.
#[derive(Debug)]
pub struct Downsample {
    conv: Conv2d,
}

impl Downsample {
    /// `conv` under `path`.
    pub fn new(path: &nn::Path, channels: i64) -> Self {
        let config = Conv2dConfig { stride: 2, ..Conv2dConfig::default() };
        Downsample { conv: Conv2d::new(&(path / "conv"), channels, channels, 3, config) }
    }

    /// `[N, C, H, W]` → `[N, C, H/2, W/2]`
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.conv.forward(&x.constant_pad_nd([0, 1, 0, 1]))
    }
}

/// Twice the edge: every pixel four times, then a convolution.
#[derive(Debug)]
pub struct Upsample {
    conv: Conv2d,
}

impl Upsample {
    /// `conv` under `path`.
    pub fn new(path: &nn::Path, channels: i64) -> Self {
        Upsample { conv: conv_3x3(&(path / "conv"), channels, channels) }
    }

    /// `[N, C, H, W]` → `[N, C, 2H, 2W]`
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let size = x.size();
        self.conv.forward(&x.upsample_nearest2d([2 * size[2], 2 * size[3]], None, None))
    }
}

/// Residual blocks of one size, each with attention behind it where the level has it, and the way to the next size.
#[derive(Debug)]
struct Level<Step> {
    resnets: Vec<ResBlock>,
    attentions: Vec<Attention>,
    step: Option<Step>,
}

impl<Step> Level<Step> {
    /// Block `place`, and the attention behind it.
    fn block(&self, place: usize, x: &Tensor, time: &Tensor, mode: Mode) -> Tensor {
        let x = self.resnets[place].forward(x, time, mode);
        match self.attentions.get(place) {
            Some(attention) => attention.forward(&x),
            None => x,
        }
    }
}

/// DDPM's network.
#[derive(Debug)]
pub struct Unet {
    time_embedding: TimeEmbedding,
    class_embedding: Option<Tensor>,
    conv_in: Conv2d,
    down: Vec<Level<Downsample>>,
    mid: Level<()>,
    up: Vec<Level<Upsample>>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Unet {
    /// By diffusers' names. See [`initialise`] for where it starts.
    pub fn new(path: &nn::Path, config: &UnetConfig) -> Self {
        let norms = Norms { groups: config.groups, eps: config.eps };
        let (embedding, levels) = (config.embedding(), config.multipliers.len());
        let res = |path: nn::Path, input, output| ResBlock::new(&path, input, output, embedding, norms, config.dropout);
        let attention = |path: nn::Path, channels| Attention::new(&path, channels, config.heads, norms);
        let attentions = |path: &nn::Path, level: usize, count: usize| -> Vec<Attention> {
            let count = if config.attention[level] { count } else { 0 };
            (0..count).map(|place| attention(path / "attentions" / place, config.width(level))).collect()
        };
        // Channels of all that is kept on the way down, in that order.
        let mut kept = vec![config.base];
        let down = (0..levels).map(|level| {
            let (path, width) = (path / "down_blocks" / level, config.width(level));
            let resnets = (0..config.blocks).map(|place| {
                let input = kept.last().copied().unwrap_or(width);
                kept.push(width);
                res(&path / "resnets" / place, input, width)
            });
            let resnets = resnets.collect();
            let last = level + 1 == levels;
            let step = (!last).then(|| {
                kept.push(width);
                Downsample::new(&(&path / "downsamplers" / 0), width)
            });
            Level { resnets, attentions: attentions(&path, level, config.blocks), step }
        });
        let down = down.collect();
        let deepest = config.width(levels - 1);
        let mid = path / "mid_block";
        let mid = Level {
            resnets: (0..2).map(|place| res(&mid / "resnets" / place, deepest, deepest)).collect(),
            attentions: vec![attention(&mid / "attentions" / 0, deepest)],
            step: None,
        };
        let mut before = deepest;
        let up = (0..levels).rev().map(|level| {
            let (path, width) = (path / "up_blocks" / (levels - 1 - level), config.width(level));
            let resnets = (0..=config.blocks).map(|place| {
                let input = std::mem::replace(&mut before, width) + kept.pop().unwrap_or(0);
                res(&path / "resnets" / place, input, width)
            });
            let resnets = resnets.collect();
            let step = (level > 0).then(|| Upsample::new(&(&path / "upsamplers" / 0), width));
            Level { resnets, attentions: attentions(&path, level, config.blocks + 1), step }
        });
        let up = up.collect();
        let class_table = |classes| class_table(&(path / "class_embedding"), classes, embedding);
        Unet {
            time_embedding: TimeEmbedding::new(
                &(path / "time_embedding"),
                ["linear_1", "linear_2"],
                config.base,
                Waves::SineFirst,
            ),
            class_embedding: config.classes.map(class_table),
            conv_in: conv_3x3(&(path / "conv_in"), config.channels, config.base),
            down,
            mid,
            up,
            conv_norm_out: norms.norm(&(path / "conv_norm_out"), config.base),
            conv_out: conv_3x3(&(path / "conv_out"), config.width(0), config.outputs()),
        }
    }

    /// As [`crate::net::Net::forward`].
    ///
    /// # Panics
    /// As that.
    pub fn forward(&self, x: &Tensor, t: &Tensor, class: Option<&Tensor>, mode: Mode) -> Tensor {
        let time = class_rows(self.class_embedding.as_ref(), class, self.time_embedding.forward(t)).silu();
        let mut x = self.conv_in.forward(&channels_last(x));
        let mut kept = vec![x.shallow_clone()];
        for level in &self.down {
            for place in 0..level.resnets.len() {
                x = level.block(place, &x, &time, mode);
                kept.push(x.shallow_clone());
            }
            if let Some(step) = &level.step {
                x = step.forward(&x);
                kept.push(x.shallow_clone());
            }
        }
        for place in 0..self.mid.resnets.len() {
            x = self.mid.block(place, &x, &time, mode);
        }
        for level in &self.up {
            for place in 0..level.resnets.len() {
                let joined = match kept.pop() {
                    Some(skip) => Tensor::cat(&[x, skip], 1),
                    None => x,
                };
                x = level.block(place, &joined, &time, mode);
            }
            if let Some(step) = &level.step {
                x = step.forward(&x);
            }
        }
        self.conv_out.forward(&self.conv_norm_out.silu(&x))
    }
}

/// Where DDPM's training starts, as in its code (`nn.py`, `models/unet.py`), drawn from libtorch's generator.
///
/// * Matrices and kernels are uniform of variance 2/(fan in + fan out).
/// * Those that end a branch (`conv2` of residual blocks, `to_out` of attention) and the network (`conv_out`) have 1e-10 of that variance, so
///   that the network begins as a sum of identities that answers 0.
/// * Biases are 0, norms 1 and 0, the table of classes, which DDPM lacks, N(0, 1).
///
/// # Errors
/// libtorch's.
pub fn initialise(model: &Named) -> Result<()> {
    let _guard = tch::no_grad_guard();
    // By name, so that the order of drawing is fixed.
    for (name, tensor) in model {
        let mut tensor = tensor.shallow_clone();
        if name.starts_with("class_embedding") {
            let _ = tensor.f_normal_(0.0, 1.0)?;
        } else if tensor.dim() > 1 {
            let size = tensor.size();
            let (out, input, area) = (size[0], size[1], size[2..].iter().product::<i64>());
            let last = ["conv2.weight", "to_out.0.weight", "conv_out.weight"].iter().any(|end| name.ends_with(end));
            let scale = if last { 1e-10 } else { 1.0 };
            let bound = (scale * 6.0 / ((input + out) * area) as f64).sqrt();
            let _ = tensor.f_uniform_(-bound, bound)?;
        } else if name.ends_with(".bias") {
            let _ = tensor.f_zero_()?;
        }
    }
    Ok(())
}

//! Improved DDPM's network (arXiv:2102.09672, Appendix A), by the names of its code.
//!
//! Reference: openai/improved-diffusion (`unet.py`, `nn.py`). Against [`crate::unet`]: the time scales and shifts the second norm instead of being
//! added before it, attention has heads, the stride-2 convolution has a border of one pixel on all sides, cosines come first.
//!
//! *Changes against the reference*: none in the arithmetic, but that sine and cosine of the time are of float64, and that a table of classes has a
//! row for none.

use repro::Result;
use repro::nn::record::{self, Counts};
use repro::nn::{Conv2d, Conv2dConfig, GroupNorm, Linear, Mode, channels_last};
use repro::weights::Named;
use tch::Tensor;
use tch::nn::{self, Init};

use crate::net::UnetConfig;
use crate::unet::{Norms, TimeEmbedding, Upsample, Waves, attend, class_rows, class_table, conv_3x3, tokens};

/// Norm, SiLU, convolution; norm, times 1 + scale, plus shift (both of the time), SiLU, dropout, convolution; plus what came in, through a
/// convolution of 1 × 1 where the channels change.
#[derive(Debug)]
struct ResBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    /// To scales, then shifts.
    embedding: Linear,
    norm2: GroupNorm,
    conv2: Conv2d,
    skip: Option<Conv2d>,
    dropout: f64,
    name: String,
}

impl ResBlock {
    fn new(path: &nn::Path, input: i64, output: i64, embedding: i64, norms: Norms, dropout: f64) -> Self {
        let skip = || Conv2d::new(&(path / "skip_connection"), input, output, 1, Conv2dConfig::default());
        ResBlock {
            norm1: norms.norm(&(path / "in_layers" / 0), input),
            conv1: conv_3x3(&(path / "in_layers" / 2), input, output),
            embedding: Linear::new(&(path / "emb_layers" / 1), embedding, 2 * output),
            norm2: norms.norm(&(path / "out_layers" / 0), output),
            conv2: conv_3x3(&(path / "out_layers" / 3), output, output),
            skip: (input != output).then(skip),
            dropout,
            name: record::name(path),
        }
    }

    /// `[N, in, H, W]` → `[N, out, H, W]`; `time` is SiLU of the time embedding.
    fn forward(&self, x: &Tensor, time: &Tensor, mode: Mode) -> Tensor {
        record::block(&self.name, || {
            let h = self.conv1.forward(&self.norm1.silu(x));
            let halves = self.embedding.forward(time).unsqueeze(-1).unsqueeze(-1).chunk(2, 1);
            let h = self.norm2.forward(&h) * (&halves[0] + 1.0) + &halves[1];
            let h = self.conv2.forward(&h.silu().dropout(self.dropout, mode.trains()));
            match &self.skip {
                Some(skip) => h + skip.forward(x),
                None => h + x,
            }
        })
    }
}

/// A convolution of one position on tokens.
#[derive(Debug)]
struct Pointwise {
    /// `[out, in, 1]`
    weight: Tensor,
    bias: Tensor,
    name: String,
}

impl Pointwise {
    fn new(path: &nn::Path, input: i64, output: i64) -> Self {
        let bound = 1.0 / (input as f64).sqrt();
        let init = Init::Uniform { lo: -bound, up: bound };
        let (weight, bias) = (path.var("weight", &[output, input, 1], init), path.var("bias", &[output], init));
        Pointwise { weight, bias, name: record::name(path) }
    }

    /// `[N, L, in]` → `[N, L, out]`
    fn forward(&self, x: &Tensor) -> Tensor {
        let y = x.linear(&self.weight.squeeze_dim(-1), Some(&self.bias));
        record::seen(&self.name, &y, || Counts::product(&y, &self.weight, Some(&self.bias)));
        y
    }
}

/// x plus attention over the positions of its norm. Rows of `qkv` are q, k and v of the first head, then of the next.
#[derive(Debug)]
struct Attention {
    norm: GroupNorm,
    qkv: Pointwise,
    proj_out: Pointwise,
    heads: i64,
    name: String,
    product: String,
}

impl Attention {
    fn new(path: &nn::Path, channels: i64, heads: i64, norms: Norms) -> Self {
        let name = record::name(path);
        Attention {
            norm: norms.norm(&(path / "norm"), channels),
            qkv: Pointwise::new(&(path / "qkv"), channels, 3 * channels),
            proj_out: Pointwise::new(&(path / "proj_out"), channels, channels),
            heads,
            product: format!("{name}.product"),
            name,
        }
    }

    /// `[N, C, H, W]` → the same.
    fn forward(&self, x: &Tensor) -> Tensor {
        record::block(&self.name, || {
            let size = x.size();
            let qkv = self.qkv.forward(&tokens(&self.norm.forward(x)));
            let qkv =
                qkv.view([size[0], size[2] * size[3], self.heads, 3, size[1] / self.heads]).permute([3, 0, 2, 1, 4]);
            let mixed = attend([&qkv.get(0), &qkv.get(1), &qkv.get(2)], &self.product);
            x + self.proj_out.forward(&mixed).transpose(1, 2).view_as(x)
        })
    }
}

/// What `input_blocks`, `middle_block` and `output_blocks` are made of.
#[derive(Debug)]
enum Part {
    Conv(Conv2d),
    Res(Box<ResBlock>),
    Attention(Attention),
    Up(Upsample),
}

fn through(parts: &[Part], x: Tensor, time: &Tensor, mode: Mode) -> Tensor {
    parts.iter().fold(x, |x, part| match part {
        Part::Conv(conv) => conv.forward(&x),
        Part::Res(block) => block.forward(&x, time, mode),
        Part::Attention(attention) => attention.forward(&x),
        Part::Up(up) => up.forward(&x),
    })
}

/// Improved DDPM's network.
#[derive(Debug)]
pub struct ImprovedUnet {
    time_embed: TimeEmbedding,
    label_emb: Option<Tensor>,
    /// What leaves each is kept for the way up.
    input_blocks: Vec<Vec<Part>>,
    middle_block: Vec<Part>,
    output_blocks: Vec<Vec<Part>>,
    norm: GroupNorm,
    conv: Conv2d,
}

impl ImprovedUnet {
    /// By the names of its code. See [`initialise`] for where it starts.
    pub fn new(path: &nn::Path, config: &UnetConfig) -> Self {
        let norms = Norms { groups: config.groups, eps: config.eps };
        let (embedding, levels) = (config.embedding(), config.multipliers.len());
        let res = |path: &nn::Path, input, output| {
            Part::Res(Box::new(ResBlock::new(&(path / 0), input, output, embedding, norms, config.dropout)))
        };
        let attention =
            |path: &nn::Path, channels| Part::Attention(Attention::new(&(path / 1), channels, config.heads, norms));
        let first = conv_3x3(&(path / "input_blocks" / 0 / 0), config.channels, config.base);
        let mut input_blocks = vec![vec![Part::Conv(first)]];
        let (mut width, mut kept) = (config.base, vec![config.base]);
        for level in 0..levels {
            for _ in 0..config.blocks {
                let path = path / "input_blocks" / input_blocks.len();
                let mut parts = vec![res(&path, width, config.width(level))];
                width = config.width(level);
                if config.attention[level] {
                    parts.push(attention(&path, width));
                }
                input_blocks.push(parts);
                kept.push(width);
            }
            if level + 1 < levels {
                let path = path / "input_blocks" / input_blocks.len() / 0 / "op";
                let halving = Conv2dConfig { stride: 2, padding: 1, ..Conv2dConfig::default() };
                input_blocks.push(vec![Part::Conv(Conv2d::new(&path, width, width, 3, halving))]);
                kept.push(width);
            }
        }
        let middle = path / "middle_block";
        let middle_block = vec![
            res(&middle, width, width),
            attention(&middle, width),
            Part::Res(Box::new(ResBlock::new(&(middle / 2), width, width, embedding, norms, config.dropout))),
        ];
        let mut output_blocks = Vec::new();
        for level in (0..levels).rev() {
            for place in 0..=config.blocks {
                let path = path / "output_blocks" / output_blocks.len();
                let input = width + kept.pop().unwrap_or(0);
                width = config.width(level);
                let mut parts = vec![res(&path, input, width)];
                if config.attention[level] {
                    parts.push(attention(&path, width));
                }
                if level > 0 && place == config.blocks {
                    parts.push(Part::Up(Upsample::new(&(&path / parts.len()), width)));
                }
                output_blocks.push(parts);
            }
        }
        let label_emb = |classes| class_table(&(path / "label_emb"), classes, embedding);
        ImprovedUnet {
            time_embed: TimeEmbedding::new(&(path / "time_embed"), ["0", "2"], config.base, Waves::CosineFirst),
            label_emb: config.classes.map(label_emb),
            input_blocks,
            middle_block,
            output_blocks,
            norm: norms.norm(&(path / "out" / 0), width),
            conv: conv_3x3(&(path / "out" / 2), width, config.outputs()),
        }
    }

    /// As [`crate::net::Net::forward`].
    ///
    /// # Panics
    /// As that.
    pub fn forward(&self, x: &Tensor, t: &Tensor, class: Option<&Tensor>, mode: Mode) -> Tensor {
        let time = class_rows(self.label_emb.as_ref(), class, self.time_embed.forward(t)).silu();
        let (mut x, mut kept) = (channels_last(x), Vec::new());
        for parts in &self.input_blocks {
            x = through(parts, x, &time, mode);
            kept.push(x.shallow_clone());
        }
        x = through(&self.middle_block, x, &time, mode);
        for (parts, skip) in self.output_blocks.iter().zip(kept.into_iter().rev()) {
            x = through(parts, Tensor::cat(&[x, skip], 1), &time, mode);
        }
        self.conv.forward(&self.norm.silu(&x))
    }
}

/// Where its training starts: PyTorch's own values, which the layers have, but 0 in what ends a branch (`out_layers.3` of residual blocks,
/// `proj_out` of attention) and the network (`out.2`); `zero_module` in its code.
///
/// # Errors
/// libtorch's.
pub fn initialise(model: &Named) -> Result<()> {
    let _guard = tch::no_grad_guard();
    for (name, tensor) in model {
        if [".out_layers.3.", ".proj_out.", "out.2."].iter().any(|part| name.contains(part)) {
            let _ = tensor.shallow_clone().f_zero_()?;
        }
    }
    Ok(())
}

//! The parts of the encoder: patches to tokens (Eq. 1), attention (Eqs. 5 to 8), the block around it (Eqs. 2 and 3).

use std::sync::Arc;

use repro::nn::record::{self, Counts};
use repro::nn::{Conv2d, Conv2dConfig, LayerNorm, Linear, Mode, recomputed};
use tch::nn::{self, Init};
use tch::{Kind, Tensor};

use crate::variant::Variant;

/// Added to the variance by every layer norm here, as in the authors' code and in timm; PyTorch's own default is 1e-5.
pub const EPS: f64 = 1e-6;

/// Patches to tokens: x_p E of Eq. 1, as a convolution whose stride is its kernel.
#[derive(Debug)]
pub struct PatchEmbed {
    proj: Conv2d,
}

impl PatchEmbed {
    /// `proj` under `path`, for patches of `patch` × `patch` pixels in three colours.
    pub fn new(path: &nn::Path, patch: i64, width: i64) -> Self {
        let config = Conv2dConfig { stride: patch, ..Conv2dConfig::default() };
        PatchEmbed { proj: Conv2d::new(&(path / "proj"), 3, width, patch, config) }
    }

    /// `[N, 3, H, W]` → `[N, HW/P², D]`, patches row by row.
    pub fn forward(&self, image: &Tensor) -> Tensor {
        self.proj.forward(image).flatten(2, 3).transpose(1, 2)
    }
}

/// softmax(q kᵀ / √d) v (Eqs. 6 and 7), step by step: `[N, heads, L, d]` each → the result, of that shape, and the weights
/// `[N, heads, L, L]`, whose rows sum to 1.
pub fn plain_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> (Tensor, Tensor) {
    let scale = (*q.size().last().unwrap_or(&1) as f64).powf(-0.5);
    let weights = (q * scale).matmul(&k.transpose(-2, -1)).softmax(-1, None::<Kind>);
    (weights.matmul(v), weights)
}

/// The same result by libtorch's fused operation, which keeps no weights.
pub fn fused_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    Tensor::scaled_dot_product_attention(q, k, v, None::<Tensor>, 0.0, false, None, false)
}

/// Multi-head self-attention (Eqs. 5 to 8).
///
/// Rows of `qkv` are q, then k, then v, each head after head. The weights are taken only where they are asked for, by the name
/// `blocks.<i>.attn.weights` ([`record::ATTENTION`], `forward --attention`).
#[derive(Debug)]
pub struct Attention {
    qkv: Linear,
    proj: Linear,
    heads: i64,
    weights: String,
    product: String,
}

impl Attention {
    /// `qkv` and `proj` under `path`; `heads` divides `width`.
    pub fn new(path: &nn::Path, width: i64, heads: i64, qkv_bias: bool) -> Self {
        let qkv = path / "qkv";
        let name = record::name(path);
        Attention {
            qkv: if qkv_bias {
                Linear::new(&qkv, width, 3 * width)
            } else {
                Linear::without_bias(&qkv, width, 3 * width)
            },
            proj: Linear::new(&(path / "proj"), width, width),
            heads,
            weights: format!("{name}.weights"),
            product: format!("{name}.product"),
        }
    }

    /// `[N, L, D]` → the same.
    ///
    /// # Panics
    /// As tch's own operations, on another shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let size = x.size();
        let (n, length, width) = (size[0], size[1], size[2]);
        let qkv = self.qkv.forward(x).view([n, length, 3, self.heads, width / self.heads]).permute([2, 0, 3, 1, 4]);
        let (q, k, v) = (qkv.get(0), qkv.get(1), qkv.get(2));
        let mixed = if record::keeps(&self.weights) {
            let (mixed, weights) = plain_attention(&q, &k, &v);
            record::seen(&self.weights, &weights, Counts::default);
            mixed
        } else {
            fused_attention(&q, &k, &v)
        };
        let mixed = mixed.transpose(1, 2).reshape([n, length, width]);
        // q kᵀ and the weights' product with v: L² D multiply-adds each.
        record::seen(&self.product, &mixed, || Counts {
            multiply_adds: (2 * n * length * length * width) as u64,
            ..Counts::default()
        });
        self.proj.forward(&mixed)
    }
}

/// Stochastic depth for each sample (arXiv:1603.09382, as timm has it): in training each sample's branch `[N, …]` is dropped with
/// probability `rate` and is else divided by 1 − `rate`, so that its mean stays.
pub fn drop_path(branch: &Tensor, rate: f64, mode: Mode) -> Tensor {
    if rate == 0.0 || !mode.trains() {
        return branch.shallow_clone();
    }
    let keep = 1.0 - rate;
    let mut shape = vec![1; branch.dim()];
    shape[0] = branch.size()[0];
    // Drawn in float32 and then converted: the same samples in every precision.
    let mask = Tensor::full(shape, keep, (Kind::Float, branch.device())).bernoulli();
    branch * (mask / keep).to_kind(branch.kind())
}

/// The rate of block `place` of `depth`: from 0 in the first to `rate` in the last, on a line.
pub fn drop_path_rate(rate: f64, place: usize, depth: usize) -> f64 {
    rate * place as f64 / (depth.max(2) - 1) as f64
}

/// x + γ₁·MSA(LN(x)), then x + γ₂·MLP(LN(x)) (Eqs. 2 and 3); γ only with layer scale (arXiv:2103.17239, §2.1).
#[derive(Debug)]
pub struct Block {
    norm1: LayerNorm,
    attn: Attention,
    ls1: Option<Tensor>,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    ls2: Option<Tensor>,
    drop_path: f64,
    name: String,
}

impl Block {
    /// `depth` of them, `0.…` and so on under `path`, with rates of drop path from 0 in the first to `drop_path` in the last.
    // Counted by atomics, because a graph, which holds its part, may end on a thread of libtorch's.
    #[expect(clippy::arc_with_non_send_sync)]
    pub fn all(path: &nn::Path, variant: &Variant, drop_path: f64) -> Vec<Arc<Self>> {
        let rate = |place| drop_path_rate(drop_path, place, variant.depth);
        (0..variant.depth).map(|place| Arc::new(Block::new(&(path / place), variant, rate(place)))).collect()
    }

    /// timm's tensors of a block under `path`; `drop_path` in [0, 1).
    pub fn new(path: &nn::Path, variant: &Variant, drop_path: f64) -> Self {
        let Variant { width, mlp, .. } = *variant;
        let gamma =
            |name: &str| variant.layer_scale.map(|start| (path / name).var("gamma", &[width], Init::Const(start)));
        Block {
            norm1: LayerNorm::new(&(path / "norm1"), width, EPS),
            attn: Attention::new(&(path / "attn"), width, variant.heads, variant.qkv_bias),
            ls1: gamma("ls1"),
            norm2: LayerNorm::new(&(path / "norm2"), width, EPS),
            fc1: Linear::new(&(path / "mlp" / "fc1"), width, mlp),
            fc2: Linear::new(&(path / "mlp" / "fc2"), mlp, width),
            ls2: gamma("ls2"),
            drop_path,
            name: record::name(path),
        }
    }

    /// `[N, L, D]` → the same.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        record::block(&self.name, || {
            let x = x + self.branch(self.attn.forward(&self.norm1.forward(x)), &self.ls1, mode);
            let hidden = self.fc1.forward(&self.norm2.forward(&x)).gelu("none");
            &x + self.branch(self.fc2.forward(&hidden), &self.ls2, mode)
        })
    }

    /// Through all of them, `[N, L, D]` → the same; with `recompute`, in training each keeps only what it is given ([`recomputed`]).
    pub fn through(blocks: &[Arc<Self>], x: Tensor, mode: Mode, recompute: bool) -> Tensor {
        blocks.iter().fold(x, |x, block| {
            if !(recompute && mode.trains()) {
                return block.forward(&x, mode);
            }
            let block = Arc::clone(block);
            recomputed(&x, move |x| block.forward(x, mode))
        })
    }

    fn branch(&self, f: Tensor, gamma: &Option<Tensor>, mode: Mode) -> Tensor {
        let scaled = gamma.iter().fold(f, |f, gamma| f * gamma);
        drop_path(&scaled, self.drop_path, mode)
    }
}

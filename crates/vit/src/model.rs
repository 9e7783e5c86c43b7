//! "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale" (arXiv:2010.11929).
//!
//! | section | here |
//! |---|---|
//! | §3.1, Eqs. 1 to 3; Appendix A: tokens, attention, blocks | [`crate::layers`] |
//! | Eq. 4: the class token and its head | [`Network`] |
//! | Table 1: the networks | [`crate::variant`] |
//! | §3.2: positions at another resolution | [`crate::positions`] |
//!
//! Reference: timm 1.0.31 (huggingface/pytorch-image-models, Apache-2.0), `vision_transformer.py` and `deit.py`. State-dict names are its.
//!
//! *Changes against the reference*: none in the arithmetic. Positions are resized when weights are given, not for each picture.

use std::sync::Arc;

use repro::Result;
use repro::nn::record;
use repro::nn::{LayerNorm, Linear, Mode};
use repro::weights::Named;
use tch::nn::Init;
use tch::{Kind, Tensor, nn};

use crate::layers::{Block, EPS, PatchEmbed};
use crate::variant::{Pool, Variant};

/// What a forward pass leaves.
#[derive(Debug)]
pub struct Output {
    /// What the classifier reads, `[N, D]`; with two heads the mean of what they read.
    pub features: Tensor,
    /// `[N, K]`; with two heads the mean of theirs.
    pub logits: Tensor,
    /// Of two heads the logits of each, `[N, K]`: that of the class token and that of the distillation token.
    pub heads: Option<[Tensor; 2]>,
}

/// A vision transformer with its classifier.
#[derive(Debug)]
pub struct Network {
    variant: Variant,
    patch_embed: PatchEmbed,
    /// Class, distillation and register tokens, `[1, n, D]` each, in this order.
    prefix: Vec<Tensor>,
    pos_embed: Tensor,
    blocks: Vec<Arc<Block>>,
    recompute: bool,
    /// Of all tokens, or of their mean ([`Pool::Mean`]).
    norm: LayerNorm,
    head: Linear,
    head_dist: Option<Linear>,
}

impl Network {
    /// A network of `classes` outputs; `drop_path` in [0, 1) is the rate of the last block. See [`initialise`] for where it starts.
    pub fn new(path: &nn::Path, variant: Variant, classes: i64, drop_path: f64) -> Self {
        let Variant { width, registers, .. } = variant;
        let token = |name: &str, count: i64| path.var(name, &[1, count, width], Init::Const(0.0));
        let tokens = [
            variant.class_token.then_some(("cls_token", 1)),
            variant.distilled.then_some(("dist_token", 1)),
            (registers > 0).then_some(("reg_token", registers)),
        ];
        let positions = variant.grid().pow(2) + variant.prefix_with_positions();
        let norm = if variant.pool == Pool::Mean { "fc_norm" } else { "norm" };
        Network {
            variant,
            patch_embed: PatchEmbed::new(&(path / "patch_embed"), variant.patch, width),
            prefix: tokens.into_iter().flatten().map(|(name, count)| token(name, count)).collect(),
            pos_embed: token("pos_embed", positions),
            blocks: Block::all(&(path / "blocks"), &variant, drop_path),
            recompute: false,
            norm: LayerNorm::new(&(path / norm), width, EPS),
            head: Linear::new(&(path / "head"), width, classes),
            head_dist: variant.distilled.then(|| Linear::new(&(path / "head_dist"), width, classes)),
        }
    }

    /// The same, whose blocks are computed again for their gradients instead of kept.
    pub fn recomputing(self, recompute: bool) -> Self {
        Network { recompute, ..self }
    }

    /// `[N, 3, H, W]`, centred, of the network's edge → features and logits.
    ///
    /// # Panics
    /// As tch's own operations, on pictures of another edge.
    pub fn forward(&self, image: &Tensor, mode: Mode) -> Output {
        let x = self.tokens(image, mode);
        if let Some(head_dist) = &self.head_dist {
            let x = self.norm.forward(&x);
            let (class, dist) = (x.select(1, 0), x.select(1, 1));
            let heads = [self.head.forward(&class), head_dist.forward(&dist)];
            let mean = |a: &Tensor, b: &Tensor| (a + b) / 2.0;
            return Output { features: mean(&class, &dist), logits: mean(&heads[0], &heads[1]), heads: Some(heads) };
        }
        let features = match self.variant.pool {
            Pool::Class => self.norm.forward(&x).select(1, 0),
            Pool::Mean => {
                let patches = x.narrow(1, self.variant.prefix(), self.variant.grid().pow(2));
                self.norm.forward(&patches.mean_dim([1_i64].as_slice(), false, None::<Kind>))
            }
        };
        Output { logits: self.head.forward(&features), features, heads: None }
    }

    /// Eqs. 1 to 3: `[N, 3, H, W]` → `[N, prefix + HW/P², D]`, before the last norm.
    pub fn tokens(&self, image: &Tensor, mode: Mode) -> Tensor {
        let patches = self.patch_embed.forward(image);
        let (n, width) = (patches.size()[0], self.variant.width);
        let with_prefix = |patches: Tensor| {
            let of_all = self.prefix.iter().map(|token| token.expand([n, -1, width], false).to_kind(patches.kind()));
            Tensor::cat(&of_all.chain([patches.shallow_clone()]).collect::<Vec<_>>(), 1)
        };
        let x = match self.variant.prefix_positions {
            true => with_prefix(patches) + &self.pos_embed,
            false => with_prefix(patches + &self.pos_embed),
        };
        Block::through(&self.blocks, x, mode, self.recompute)
    }

    /// A pass without training, and the attention weights of each block, `[N, heads, L, L]`, L being prefix + HW/P².
    ///
    /// # Errors
    /// libtorch's.
    pub fn attention(&self, image: &Tensor) -> Result<(Output, Vec<Tensor>)> {
        let name = |place| format!("blocks.{place}{}", record::ATTENTION);
        let names: Vec<String> = (0..self.blocks.len()).map(name).collect();
        let (output, mut kept) = record::tap(&names, || Ok(self.forward(image, Mode::Eval)))?;
        Ok((output, names.iter().filter_map(|name| kept.remove(name)).collect()))
    }
}

/// Where training starts, as in timm, drawn from libtorch's generator: matrices, positions and the distillation token N(0, 0.02²), class and
/// register tokens N(0, 10⁻¹²), biases 0. Norms keep 1 and 0, layer scale its value, the patches' convolution PyTorch's default.
///
/// # Errors
/// libtorch's.
pub fn initialise(model: &Named) -> Result<()> {
    let _guard = tch::no_grad_guard();
    let matrix = |name: &str| model.get(name).is_some_and(|tensor| tensor.dim() == 2);
    // By name, so that the order of drawing is fixed.
    for (name, weight) in model {
        let mut weight = weight.shallow_clone();
        // timm cuts its normal at ±2, a hundred deviations away.
        let deviation = match name.rsplit('.').next().unwrap_or_default() {
            "pos_embed" | "dist_token" => 0.02,
            "cls_token" | "reg_token" => 1e-6,
            "weight" if matrix(name) => 0.02,
            "bias" if matrix(&name.replace(".bias", ".weight")) => {
                let _ = weight.f_zero_()?;
                continue;
            }
            _ => continue,
        };
        let _ = weight.f_normal_(0.0, deviation)?;
    }
    Ok(())
}

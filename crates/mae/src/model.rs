//! "Masked Autoencoders Are Scalable Vision Learners" (arXiv:2111.06377).
//!
//! | section | here |
//! |---|---|
//! | §3, MAE encoder: a ViT on the visible patches | [`Encoder`] |
//! | §3, masking | [`crate::masking`] |
//! | §3, MAE decoder, simple implementation | [`Mae::forward`] |
//! | §3, reconstruction target | [`target`], [`Mae::loss`] |
//!
//! Reference: facebookresearch/mae (models_mae.py, CC-BY-NC: read for facts). State-dict names are its.
//!
//! *Changes against the reference*: none in the arithmetic.

use std::sync::Arc;

use repro::nn::{LayerNorm, Linear, Mode};
use repro::weights::Named;
use repro::{Result, user};
use tch::nn::{self, Init};
use tch::{Kind, Tensor};
use vit::layers::{Block, EPS, PatchEmbed};
use vit::positions::sin_cos;
use vit::variant::{Pool, Variant};

use crate::config::{Decoder, MaskTokens};
use crate::masking::{Masking, at};

/// The encoder's names in the state dict.
pub const ENCODER: [&str; 5] = ["cls_token", "pos_embed", "patch_embed", "blocks", "norm"];
/// Added to the variance of a patch where its pixels are normalised.
const PIXEL_EPS: f64 = 1e-6;

/// A vision transformer that sees the patches it is shown, and the class token.
#[derive(Debug)]
pub struct Encoder {
    variant: Variant,
    patch_embed: PatchEmbed,
    cls_token: Tensor,
    /// Fixed.
    pos_embed: Tensor,
    blocks: Vec<Arc<Block>>,
    recompute: bool,
    norm: LayerNorm,
}

/// `[1, 1 + grid², width]` called `name`, which no gradient moves.
fn positions(path: &nn::Path, name: &str, grid: i64, width: i64) -> Tensor {
    path.add(name, sin_cos(grid, 1, width).to_device(path.device()), false)
}

impl Encoder {
    /// Under the names of timm's ViT; see [`initialise`] for where it starts.
    pub fn new(path: &nn::Path, variant: Variant) -> Self {
        let Variant { width, patch, .. } = variant;
        Encoder {
            variant,
            patch_embed: PatchEmbed::new(&(path / "patch_embed"), patch, width),
            cls_token: path.var("cls_token", &[1, 1, width], Init::Const(0.0)),
            pos_embed: positions(path, "pos_embed", variant.grid(), width),
            blocks: Block::all(&(path / "blocks"), &variant, 0.0),
            recompute: false,
            norm: LayerNorm::new(&(path / "norm"), width, EPS),
        }
    }

    /// D
    pub fn width(&self) -> i64 {
        self.variant.width
    }

    /// All patches of `image` `[N, 3, H, W]`, centred, as tokens with their positions, `[N, L, D]`.
    fn patches(&self, image: &Tensor) -> Tensor {
        self.patch_embed.forward(image) + self.pos_embed.narrow(1, 1, self.variant.grid().pow(2))
    }

    /// Tokens `[N, k, D]` → the same behind the class token, `[N, 1 + k, D]`, after the last norm.
    fn blocks(&self, tokens: Tensor, mode: Mode) -> Tensor {
        let class = (&self.cls_token + self.pos_embed.narrow(1, 0, 1)).to_kind(tokens.kind());
        let x = Tensor::cat(&[class.expand([tokens.size()[0], -1, -1], false), tokens], 1);
        self.norm.forward(&Block::through(&self.blocks, x, mode, self.recompute))
    }

    /// What pictures are to later stages, `[N, D]`: with all patches in view the class token, or the mean of the patches.
    pub fn features(&self, image: &Tensor) -> Tensor {
        let x = self.blocks(self.patches(image), Mode::Eval);
        match self.variant.pool {
            Pool::Class => x.select(1, 0),
            Pool::Mean => x.narrow(1, 1, x.size()[1] - 1).mean_dim([1_i64].as_slice(), false, None::<Kind>),
        }
    }
}

/// Encoder and decoder.
#[derive(Debug)]
pub struct Mae {
    encoder: Encoder,
    mask_tokens: MaskTokens,
    /// `[1, 1, D]` of whichever part it enters.
    mask_token: Tensor,
    decoder_embed: Linear,
    /// Fixed.
    decoder_pos_embed: Tensor,
    decoder_blocks: Vec<Arc<Block>>,
    decoder_norm: LayerNorm,
    decoder_pred: Linear,
}

impl Mae {
    /// Under the reference's names. See [`initialise`] for where it starts.
    pub fn new(path: &nn::Path, variant: Variant, decoder: &Decoder, mask_tokens: MaskTokens) -> Self {
        let Decoder { width, depth, heads } = *decoder;
        let of_decoder = Variant { width, depth, heads, mlp: 4 * width, qkv_bias: true, layer_scale: None, ..variant };
        let entered = if mask_tokens == MaskTokens::Encoder { variant.width } else { width };
        Mae {
            encoder: Encoder::new(path, variant),
            mask_tokens,
            mask_token: path.var("mask_token", &[1, 1, entered], Init::Const(0.0)),
            decoder_embed: Linear::new(&(path / "decoder_embed"), variant.width, width),
            decoder_pos_embed: positions(path, "decoder_pos_embed", variant.grid(), width),
            decoder_blocks: Block::all(&(path / "decoder_blocks"), &of_decoder, 0.0),
            decoder_norm: LayerNorm::new(&(path / "decoder_norm"), width, EPS),
            decoder_pred: Linear::new(&(path / "decoder_pred"), width, 3 * variant.patch.pow(2)),
        }
    }

    /// The same, whose blocks are computed again for their gradients instead of kept.
    pub fn recomputing(mut self, recompute: bool) -> Self {
        self.encoder.recompute = recompute;
        self
    }

    /// P, in pixels.
    pub fn patch(&self) -> i64 {
        self.encoder.variant.patch
    }

    /// `[N, 3, H, W]`, centred → the pixels of every patch, `[N, L, 3P²]`, of which the encoder has seen those that are kept.
    pub fn forward(&self, image: &Tensor, masking: &Masking, mode: Mode) -> Tensor {
        let tokens = self.encoder.patches(image);
        let x = match self.mask_tokens {
            MaskTokens::Decoder => {
                let seen = self.encoder.blocks(at(&tokens, &masking.keep), mode);
                let x = self.decoder_embed.forward(&seen);
                let (n, length) = (x.size()[0], masking.restore.size()[1]);
                let absent = length - (x.size()[1] - 1);
                let absent = self.mask_token.to_kind(x.kind()).expand([n, absent, -1], false);
                // Behind the patches that were kept, in the order of the noise; then each back in its place.
                let shuffled = Tensor::cat(&[x.narrow(1, 1, x.size()[1] - 1), absent], 1);
                Tensor::cat(&[x.narrow(1, 0, 1), at(&shuffled, &masking.restore)], 1)
            }
            // Table 1c: the encoder works on all patches, mask tokens among them.
            MaskTokens::Encoder => {
                let mask = masking.mask.unsqueeze(-1).to_kind(tokens.kind());
                let positions = self.encoder.pos_embed.narrow(1, 1, tokens.size()[1]);
                let absent = (&self.mask_token + positions).to_kind(tokens.kind());
                let mixed = &tokens * (1.0 - &mask) + absent * mask;
                self.decoder_embed.forward(&self.encoder.blocks(mixed, mode))
            }
        };
        let x = x + &self.decoder_pos_embed;
        let x = self.decoder_norm.forward(&Block::through(&self.decoder_blocks, x, mode, self.encoder.recompute));
        self.decoder_pred.forward(&x.narrow(1, 1, x.size()[1] - 1))
    }

    /// The mean over the removed patches of the mean squared error of their pixels, `[]`, in float32 or better.
    pub fn loss(&self, image: &Tensor, pred: &Tensor, masking: &Masking, norm_pix: bool) -> Tensor {
        let kind = if image.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        let target = target(&patchify(&image.to_kind(kind), self.patch()), norm_pix);
        let each = (pred.to_kind(kind) - target).square().mean_dim([-1_i64].as_slice(), false, kind);
        (each * &masking.mask).sum(kind) / masking.mask.sum(kind)
    }
}

/// `[N, C, H, W]` → `[N, HW/P², P²C]`: patches row by row, pixels of a patch row by row, colours fastest.
pub fn patchify(image: &Tensor, patch: i64) -> Tensor {
    let size = image.size();
    let (n, channels, rows, columns) = (size[0], size[1], size[2] / patch, size[3] / patch);
    let cut = image.view([n, channels, rows, patch, columns, patch]).permute([0, 2, 4, 3, 5, 1]);
    cut.reshape([n, rows * columns, patch * patch * channels])
}

/// The inverse, of square pictures of three colours: `[N, L, 3P²]` → `[N, 3, H, W]`.
pub fn unpatchify(patches: &Tensor, patch: i64) -> Tensor {
    let (n, grid) = (patches.size()[0], (patches.size()[1] as f64).sqrt().round() as i64);
    let cut = patches.view([n, grid, grid, patch, patch, 3]).permute([0, 5, 1, 3, 2, 4]);
    cut.reshape([n, 3, grid * patch, grid * patch])
}

/// What is to be predicted of patches `[N, L, 3P²]`: their pixels, or these less the patch's mean over its deviation (unbiased variance).
pub fn target(patches: &Tensor, norm_pix: bool) -> Tensor {
    if !norm_pix {
        return patches.shallow_clone();
    }
    let (mean, deviation) = moments(patches);
    (patches - mean) / deviation
}

/// The inverse of [`target`] for predicted pixels, by the mean and deviation that the true patches have.
pub fn pixels(pred: &Tensor, patches: &Tensor, norm_pix: bool) -> Tensor {
    if !norm_pix {
        return pred.shallow_clone();
    }
    let (mean, deviation) = moments(patches);
    pred * deviation + mean
}

fn moments(patches: &Tensor) -> (Tensor, Tensor) {
    let over = [-1_i64];
    let variance = patches.var_dim(over.as_slice(), true, true);
    (patches.mean_dim(over.as_slice(), true, None::<Kind>), (variance + PIXEL_EPS).sqrt())
}

/// Where training starts, as in the reference, drawn from libtorch's generator: matrices and the patches' convolution Xavier-uniform (that as
/// a matrix, `qkv` as one), tokens N(0, 0.02²), biases of matrices 0, the convolution's and the norms' PyTorch's own.
///
/// # Errors
/// libtorch's.
pub fn initialise(model: &Named) -> Result<()> {
    let _guard = tch::no_grad_guard();
    let matrix = |name: &str| model.get(name).is_some_and(|tensor| tensor.dim() == 2);
    // By name, so that the order of drawing is fixed.
    for (name, tensor) in model {
        let mut tensor = tensor.shallow_clone();
        if name.ends_with("_token") {
            let _ = tensor.f_normal_(0.0, 0.02)?;
        } else if matrix(name) || name == "patch_embed.proj.weight" {
            let (rows, columns) = (tensor.size()[0], tensor.numel() as i64 / tensor.size()[0]);
            let bound = (6.0 / (rows + columns) as f64).sqrt();
            let _ = tensor.f_uniform_(-bound, bound)?;
        } else if name.ends_with(".bias") && matrix(&name.replace(".bias", ".weight")) {
            let _ = tensor.f_zero_()?;
        }
    }
    Ok(())
}

/// The encoder of `mae_<name>`: `mae_vit_base_patch16` is timm's `vit_base_patch16_224` before its classifier.
///
/// # Errors
/// A network that there is not.
pub fn variant(name: &str) -> Result<Variant> {
    let timm = name.strip_prefix("mae_").map(|timm| match timm.ends_with("patch16") || timm.ends_with("patch14") {
        true => format!("{timm}_224"),
        false => timm.to_string(),
    });
    // A class token alone, and that with a position: what the encoder here has.
    let fits = |variant: &Variant| variant.class_token && variant.prefix() == 1 && variant.prefix_positions;
    timm.and_then(|timm| Variant::named(&timm).ok()).filter(fits).ok_or_else(|| {
        user!(
            "there is no model {name}; there are mae_vit_base_patch16, mae_vit_large_patch16, mae_vit_huge_patch14, mae_ and any other vit_ or deit_ of `vit` \
             with a class token alone (mae_vit_tiny_patch4_32, mae_vit_d96_patch4_32), ae, dae and vae"
        )
    })
}

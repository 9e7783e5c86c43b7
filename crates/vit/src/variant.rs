//! The networks by timm's names (Table 1; arXiv:2012.12877, Table 1; arXiv:2204.07118, Table 1), and ours for pictures of 32 pixels.

use repro::{Result, user};

/// Size, width D, blocks, heads, width of the MLP.
const SIZES: [(&str, i64, usize, i64, i64); 8] = [
    ("tiny", 192, 12, 3, 768),
    ("small", 384, 12, 6, 1536),
    ("medium", 512, 12, 8, 2048),
    ("base", 768, 12, 12, 3072),
    ("large", 1024, 24, 16, 4096),
    ("huge", 1280, 32, 16, 5120),
    // arXiv:2112.13492's baseline for CIFAR: 2.7 million parameters, no bias in qkv.
    ("2m7", 192, 9, 12, 384),
    // Half as wide and two thirds as deep, for two cores.
    ("d96", 96, 6, 6, 192),
];

/// Every name that there is.
pub const NAMES: [&str; 40] = [
    "vit_tiny_patch16_224",
    "vit_tiny_patch16_384",
    "vit_small_patch8_224",
    "vit_small_patch16_224",
    "vit_small_patch16_384",
    "vit_small_patch32_224",
    "vit_small_patch32_384",
    "vit_base_patch8_224",
    "vit_base_patch16_224",
    "vit_base_patch16_384",
    "vit_base_patch32_224",
    "vit_base_patch32_384",
    "vit_large_patch16_224",
    "vit_large_patch16_384",
    "vit_large_patch32_224",
    "vit_large_patch32_384",
    "vit_huge_patch14_224",
    "vit_medium_patch16_reg4_gap_256",
    "deit_tiny_patch16_224",
    "deit_small_patch16_224",
    "deit_base_patch16_224",
    "deit_base_patch16_384",
    "deit_tiny_distilled_patch16_224",
    "deit_small_distilled_patch16_224",
    "deit_base_distilled_patch16_224",
    "deit_base_distilled_patch16_384",
    "deit3_small_patch16_224",
    "deit3_small_patch16_384",
    "deit3_medium_patch16_224",
    "deit3_base_patch16_224",
    "deit3_base_patch16_384",
    "deit3_large_patch16_224",
    "deit3_large_patch16_384",
    "deit3_huge_patch14_224",
    "vit_tiny_patch2_32",
    "vit_tiny_patch4_32",
    "vit_tiny_patch8_32",
    "vit_small_patch2_32",
    "vit_small_patch4_32",
    "vit_small_patch8_32",
];

/// The two of ours that are not named by a size of the papers.
pub const SMALL: [&str; 2] = ["vit_2m7_patch4_32", "vit_d96_patch4_32"];

/// What the classifier reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// The class token (Eq. 4).
    Class,
    /// The mean of the patches, normalised after it (`fc_norm`) and not before (Appendix D.3).
    Mean,
}

/// A network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Variant {
    /// D
    pub width: i64,
    /// L
    pub depth: usize,
    /// Divides D.
    pub heads: i64,
    /// Width of the hidden layer of each MLP.
    pub mlp: i64,
    /// P, in pixels.
    pub patch: i64,
    /// Edge of the pictures, in pixels; a multiple of P.
    pub edge: i64,
    /// Whether q, k and v have one.
    pub qkv_bias: bool,
    /// Whether there is a class token.
    pub class_token: bool,
    /// Whether there are a distillation token and its head (arXiv:2012.12877, §4).
    pub distilled: bool,
    /// Register tokens (arXiv:2309.16588).
    pub registers: i64,
    /// Whether the tokens in front of the patches have positions, too.
    pub prefix_positions: bool,
    /// What γ starts from; `None`: no layer scale.
    pub layer_scale: Option<f64>,
    /// What the classifier reads.
    pub pool: Pool,
}

impl Variant {
    /// `vit_base_patch16_224`, `deit_tiny_distilled_patch16_224`, `vit_2m7_patch4_32`, …: [`NAMES`] and [`SMALL`].
    ///
    /// # Errors
    /// Lists the names.
    pub fn named(name: &str) -> Result<Self> {
        let known = NAMES.contains(&name) || SMALL.contains(&name);
        known.then(|| parse(name)).flatten().ok_or_else(|| {
            user!(
                "there is no network {name}; there are vit_tiny, small, base and large_patch16_224 and _384, vit_small, base and \
                 large_patch32_224 and _384, vit_small and base_patch8_224, vit_huge_patch14_224, vit_medium_patch16_reg4_gap_256; \
                 deit_tiny, small and base_patch16_224, deit_base_patch16_384, the same with _distilled before _patch; deit3_small, base and \
                 large_patch16_224 and _384, deit3_medium_patch16_224, deit3_huge_patch14_224; for pictures of 32 pixels \
                 vit_tiny and small_patch2, 4 and 8_32, vit_2m7_patch4_32, vit_d96_patch4_32"
            )
        })
    }

    /// The same for pictures of another edge, in pixels.
    pub fn with_edge(self, edge: i64) -> Self {
        Variant { edge, ..self }
    }

    /// Patches along an edge.
    pub fn grid(&self) -> i64 {
        self.edge / self.patch
    }

    /// Tokens in front of the patches: class, distillation, registers.
    pub fn prefix(&self) -> i64 {
        i64::from(self.class_token) + i64::from(self.distilled) + self.registers
    }

    /// Those of them that have positions.
    pub fn prefix_with_positions(&self) -> i64 {
        if self.prefix_positions { self.prefix() } else { 0 }
    }

    /// The classifiers' names in the state dict.
    pub fn heads_named(&self) -> &'static [&'static str] {
        if self.distilled { &["head", "head_dist"] } else { &["head"] }
    }
}

fn parse(name: &str) -> Option<Variant> {
    let mut words = name.split('_');
    let (family, size) = (words.next()?, words.next()?);
    let &(_, width, depth, heads, mlp) = SIZES.iter().find(|(known, ..)| *known == size)?;
    let patch = words.find_map(|word| word.strip_prefix("patch"))?.parse().ok()?;
    let edge = words.next_back()?.parse().ok()?;
    let registers = if name.contains("_reg4_") { 4 } else { 0 };
    let deit3 = family == "deit3";
    Some(Variant {
        width,
        depth,
        heads,
        mlp,
        patch,
        edge,
        qkv_bias: size != "2m7",
        class_token: registers == 0,
        distilled: name.contains("_distilled_"),
        registers,
        prefix_positions: !deit3 && registers == 0,
        layer_scale: match registers {
            0 => deit3.then_some(1e-6),
            _ => Some(1e-5),
        },
        pool: if registers == 0 { Pool::Class } else { Pool::Mean },
    })
}

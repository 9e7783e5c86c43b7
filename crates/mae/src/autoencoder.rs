//! What came before: autoencoders of dense layers. Plain (Hinton and Salakhutdinov, Science 313:504, 2006), denoising (Vincent et al., ICML 2008),
//! variational (arXiv:1312.6114).
//!
//! Pixels are probabilities in [0, 1]: the loss is the cross-entropy of the reconstruction, summed over the pixels of a picture.

use repro::nn::Linear;
use tch::{Kind as Float, Tensor, nn};

/// Which autoencoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Tells pictures again.
    Ae,
    /// Tells them from what is left of them.
    Dae,
    /// Tells them from a draw of the code's distribution, which is pulled to N(0, 1).
    Vae,
}

impl Kind {
    /// `ae`, `dae` or `vae`.
    pub fn named(name: &str) -> Option<Self> {
        [("ae", Kind::Ae), ("dae", Kind::Dae), ("vae", Kind::Vae)]
            .into_iter()
            .find_map(|(n, k)| (n == name).then_some(k))
    }
}

/// Pixels to a code: the first half of the autoencoder.
#[derive(Debug)]
pub struct Encoder {
    layers: Vec<Linear>,
    kind: Kind,
    code: i64,
}

fn chain(path: &nn::Path, widths: &[i64]) -> Vec<Linear> {
    widths.windows(2).enumerate().map(|(place, w)| Linear::new(&(path / place), w[0], w[1])).collect()
}

/// ReLUs between the layers, none behind the last.
fn pass(layers: &[Linear], x: &Tensor) -> Tensor {
    layers
        .iter()
        .enumerate()
        .fold(x.shallow_clone(), |x, (place, layer)| layer.forward(&if place == 0 { x } else { x.relu() }))
}

impl Encoder {
    /// `encoder.<i>`: from `pixels` numbers by these widths to the code, the last of them; a variational one gives as many variances.
    pub fn new(root: &nn::Path, kind: Kind, pixels: i64, widths: &[i64]) -> Self {
        let code = *widths.last().unwrap_or(&1);
        let mut all = [&[pixels], widths].concat();
        if kind == Kind::Vae {
            all.pop();
            all.push(2 * code);
        }
        Encoder { layers: chain(&(root / "encoder"), &all), kind, code }
    }

    /// Numbers of the code.
    pub fn width(&self) -> i64 {
        self.code
    }

    /// `[N, C, H, W]` in [0, 1] → the code `[N, D]`, of a variational one its mean, and the logarithm of its variance.
    pub fn forward(&self, image: &Tensor) -> (Tensor, Option<Tensor>) {
        let x = pass(&self.layers, &image.flatten(1, -1));
        match self.kind {
            Kind::Vae => (x.narrow(1, 0, self.code), Some(x.narrow(1, self.code, self.code))),
            _ => (x, None),
        }
    }
}

/// Encoder and decoder.
#[derive(Debug)]
pub struct AutoEncoder {
    /// Its first half.
    pub encoder: Encoder,
    layers: Vec<Linear>,
    /// Share of pixels that a denoising one does not see.
    corruption: f64,
}

/// What comes of a pass.
#[derive(Debug)]
pub struct Told {
    /// What was seen, `[N, C, H, W]`.
    pub seen: Tensor,
    /// Of the code; of a variational one its mean, `[N, D]`.
    pub code: Tensor,
    /// In [0, 1], `[N, C, H, W]`.
    pub picture: Tensor,
    /// The mean over the pictures, `[]`: cross-entropy of all pixels, of a variational one with the divergence from N(0, 1) (its bound, negated).
    pub loss: Tensor,
}

impl AutoEncoder {
    /// The decoder, `decoder.<i>`, has the encoder's widths in reverse.
    pub fn new(root: &nn::Path, kind: Kind, pixels: i64, widths: &[i64], corruption: f64) -> Self {
        let back: Vec<i64> = widths.iter().rev().copied().chain([pixels]).collect();
        let encoder = Encoder::new(root, kind, pixels, widths);
        AutoEncoder { encoder, layers: chain(&(root / "decoder"), &back), corruption }
    }

    /// Random numbers that a picture of so many pixels takes, and whether they are normal, else uniform in [0, 1).
    pub fn draws(&self, pixels: i64) -> (i64, bool) {
        match self.encoder.kind {
            Kind::Ae => (0, false),
            Kind::Dae => (pixels, false),
            Kind::Vae => (self.encoder.code, true),
        }
    }

    /// Code `[N, D]` → logits of the pixels, `[N, P]`.
    pub fn decode(&self, code: &Tensor) -> Tensor {
        pass(&self.layers, code)
    }

    /// `image` `[N, C, H, W]` in [0, 1], with the numbers of [`Self::draws`] for each, `[N, n]`.
    pub fn forward(&self, image: &Tensor, draws: &Tensor) -> Told {
        let seen = match self.encoder.kind {
            // Masking noise: the pixels whose number is below the share are 0.
            Kind::Dae => image * draws.ge(self.corruption).to_kind(image.kind()).view_as(image),
            _ => image.shallow_clone(),
        };
        let (code, variance) = self.encoder.forward(&seen);
        // Eq. 10: z = μ + σε.
        let z = variance.as_ref().map_or(code.shallow_clone(), |log| &code + (log * 0.5).exp() * draws);
        let logits = self.decode(&z);
        let (n, clean) = (image.size()[0] as f64, image.flatten(1, -1));
        let told =
            logits.binary_cross_entropy_with_logits(&clean, None::<Tensor>, None::<Tensor>, tch::Reduction::Sum) / n;
        // Appendix B: −½ Σ (1 + ln σ² − μ² − σ²).
        let apart = variance.map(|log| (1.0f64 + &log - code.square() - log.exp()).sum(None::<Float>) * (-0.5 / n));
        let loss = match apart {
            Some(apart) => told + apart,
            None => told,
        };
        Told { seen, code, picture: logits.sigmoid().view_as(image), loss }
    }
}

//! Which patches are removed (§3, "Masking"; Table 1f and Figure 6).

use rand_chacha::ChaCha8Rng;
use repro::Result;
use repro::random::{below, uniform};
use serde::Deserialize;
use tch::Tensor;

/// How the patches that are removed lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// Anywhere, as the paper has it.
    Random,
    /// In rectangles (arXiv:2106.08254, Algorithm 1).
    Block,
    /// All but one of each square of four; for a ratio of 0.75.
    Grid,
}

impl Sampling {
    /// A number for each of `grid` × `grid` patches of a picture, row by row: those with the smallest are kept. Of patches in rectangles and of
    /// the corners of squares only the order counts; random ones are uniform in [0, 1).
    pub fn noise(self, grid: i64, ratio: f64, rng: &mut ChaCha8Rng) -> Vec<f32> {
        let mut noise: Vec<f32> = (0..grid * grid).map(|_| uniform(rng, 0.0, 1.0) as f32).collect();
        match self {
            Sampling::Random => {}
            Sampling::Block => {
                let removed = grid * grid - kept(grid * grid, ratio);
                let mut left = removed;
                while left > 0 {
                    let (top, rows, start, columns) = rectangle(grid, left, rng);
                    for place in (top..top + rows).flat_map(|row| (start..start + columns).map(move |c| row * grid + c))
                    {
                        // What stands out of the range of the others is removed before any of them.
                        if left > 0 && noise[place as usize] < 1.0 {
                            noise[place as usize] += 1.0;
                            left -= 1;
                        }
                    }
                }
            }
            Sampling::Grid => {
                for (place, number) in (0..grid * grid).zip(&mut noise) {
                    *number += f32::from(place / grid % 2 == 1 || place % grid % 2 == 1);
                }
            }
        }
        noise
    }
}

/// A rectangle of at least 16 patches, as far as there are so many, and at most `most`, its sides in a ratio from 0.3 to 1/0.3: first row, rows,
/// first column, columns.
fn rectangle(grid: i64, most: i64, rng: &mut ChaCha8Rng) -> (i64, i64, i64, i64) {
    let area = uniform(rng, most.min(16) as f64, most as f64);
    let aspect = uniform(rng, 0.3_f64.ln(), (1.0 / 0.3_f64).ln()).exp();
    let side = |length: f64| (length.round() as i64).clamp(1, grid);
    let (rows, columns) = (side((area * aspect).sqrt()), side((area / aspect).sqrt()));
    let start = |length: i64, rng: &mut ChaCha8Rng| below(rng, (grid - length + 1) as u64) as i64;
    (start(rows, rng), rows, start(columns, rng), columns)
}

/// Of `patches` those that are kept: ⌊L·(1 − r)⌋.
pub fn kept(patches: i64, ratio: f64) -> i64 {
    (patches as f64 * (1.0 - ratio)) as i64
}

/// What is kept of N pictures of L patches.
#[derive(Debug)]
pub struct Masking {
    /// The patches that are kept, `[N, ⌊L·(1 − r)⌋]`, int64, in the order of their noise.
    pub keep: Tensor,
    /// Where each patch stands in the order of the noise, `[N, L]`, int64: it undoes the shuffle.
    pub restore: Tensor,
    /// 1 where a patch is removed, `[N, L]`, of the noise's kind.
    pub mask: Tensor,
}

impl Masking {
    /// Keeps the patches with the smallest `noise` `[N, L]`.
    ///
    /// # Errors
    /// libtorch's.
    pub fn of(noise: &Tensor, ratio: f64) -> Result<Self> {
        let size = noise.size();
        let kept = kept(size[1], ratio);
        let shuffle = noise.f_argsort_stable(true, 1, false)?;
        let restore = shuffle.f_argsort_stable(true, 1, false)?;
        let mask = Tensor::f_ones_like(noise)?;
        let _ = mask.f_narrow(1, 0, kept)?.f_zero_()?;
        Ok(Self { keep: shuffle.f_narrow(1, 0, kept)?, mask: mask.f_gather(1, &restore, false)?, restore })
    }
}

/// Rows `[N, k, D]` at these places `[N, k]` of `tokens` `[N, L, D]`.
pub fn at(tokens: &Tensor, places: &Tensor) -> Tensor {
    let width = tokens.size()[2];
    tokens.gather(1, &places.unsqueeze(-1).expand([-1, -1, width], false), false)
}

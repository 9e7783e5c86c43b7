//! Points of the plane: sets that train in seconds and can be looked at whole.

use std::f64::consts::{PI, TAU};

use rand_chacha::ChaCha8Rng;
use repro::nn::Linear;
use repro::random::{below, normal, rng, uniform};
use tch::{Tensor, nn};

use crate::unet::{Waves, time_waves};

/// `model.name` of the network for points.
pub const NAME: &str = "toy_mlp";
/// `data.name` of the sets of points.
pub const SETS: [&str; 4] = ["moons", "swiss_roll", "rings", "gaussians"];
/// Points that count as an epoch, and those that are tested on.
pub const SIZES: (u64, u64) = (10_000, 2_000);
/// Units of a layer, and numbers that tell t.
const WIDTH: i64 = 128;
const TIME: i64 = 64;

/// The point and the number of the part that it lies in (which moon, which ring).
pub fn point(set: &str, rng: &mut ChaCha8Rng) -> ([f64; 2], i64) {
    let noise = |scale: f64, rng: &mut ChaCha8Rng| [scale * normal(rng), scale * normal(rng)];
    let ([x, y], part, scatter) = match set {
        "moons" => {
            let (part, angle) = (below(rng, 2) as i64, uniform(rng, 0.0, PI));
            let (x, y) = if part == 0 { (angle.cos(), angle.sin()) } else { (1.0 - angle.cos(), 0.5 - angle.sin()) };
            ([x - 0.5, y - 0.25], part, 0.06)
        }
        "swiss_roll" => {
            let angle = 1.5 * PI * (1.0 + 2.0 * uniform(rng, 0.0, 1.0));
            ([angle * angle.cos() / 9.0, angle * angle.sin() / 9.0], 0, 0.03)
        }
        "rings" => {
            let (part, angle) = (below(rng, 2) as i64, uniform(rng, 0.0, TAU));
            let radius = if part == 0 { 0.6 } else { 1.4 };
            ([radius * angle.cos(), radius * angle.sin()], part, 0.05)
        }
        _ => {
            let part = below(rng, 8) as i64;
            let angle = TAU * part as f64 / 8.0;
            ([1.3 * angle.cos(), 1.3 * angle.sin()], part, 0.1)
        }
    };
    let [dx, dy] = noise(scatter, rng);
    ([x + dx, y + dy], part)
}

/// `n` points of a set from place `first` on, `[n, 2]` and their parts `[n]`: functions of (seed, step, place).
pub fn points(set: &str, seed: u64, step: u64, first: u64, n: u64) -> (Tensor, Tensor) {
    let (mut numbers, mut parts) = (Vec::with_capacity(2 * n as usize), Vec::with_capacity(n as usize));
    for place in first..first + n {
        let (at, part) = point(set, &mut rng(seed, step, place, "point"));
        numbers.extend(at.map(|number| number as f32));
        parts.push(part);
    }
    (Tensor::from_slice(&numbers).view([n as i64, 2]), Tensor::from_slice(&parts))
}

/// ε_θ of points: four layers.
#[derive(Debug)]
pub struct Mlp {
    layers: Vec<Linear>,
}

impl Mlp {
    /// `layers.<i>`.
    pub fn new(root: &nn::Path) -> Self {
        let widths = [2 + TIME, WIDTH, WIDTH, WIDTH, 2];
        let layer = |(place, pair): (usize, &[i64])| Linear::new(&(root / "layers" / place), pair[0], pair[1]);
        Mlp { layers: widths.windows(2).enumerate().map(layer).collect() }
    }

    /// x_t `[N, 2]`, t `[N]` → `[N, 2]`.
    pub fn forward(&self, x: &Tensor, t: &Tensor) -> Tensor {
        let time = time_waves(t, TIME, Waves::SineFirst).to_kind(x.kind());
        let input = Tensor::cat(&[x, &time], 1);
        let last = self.layers.len() - 1;
        self.layers.iter().enumerate().fold(input, |x, (place, layer)| {
            let x = layer.forward(&x);
            if place < last { x.silu() } else { x }
        })
    }
}

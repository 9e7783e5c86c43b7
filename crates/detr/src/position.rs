//! Where in the picture a place of the map is: fixed sines (Appendix A.4) or learned rows and columns (Table 3).

use std::f64::consts::TAU;

use repro::{Result, user};
use serde::Deserialize;
use tch::nn::{self, Init};
use tch::{Device, Kind, Tensor};

/// Which positions the transformer is told and where they enter: the rows of Table 3, from the worst to the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// No places; the queries are what the decoder begins with.
    None,
    /// Sines, added once to what the encoder is given, as the first transformer has it; queries likewise.
    SineAtInput,
    /// Learned, added to queries and keys of every attention.
    LearnedAtAttention,
    /// Sines, added to the keys of the decoder's attention to the picture alone.
    SineInDecoder,
    /// Sines, added to queries and keys of every attention: the paper's choice.
    SineAtAttention,
}

impl Positions {
    /// Whether object queries are what the decoder begins with; else it begins with zeros, and they are added in every attention.
    pub fn queries_at_input(self) -> bool {
        matches!(self, Positions::None | Positions::SineAtInput)
    }
}

/// Sines and cosines of a map's places: padding `[N, h, w]` (true: none of the picture's) → `[N, h·w, D]` of this kind, D being `width`.
///
/// The first half of the numbers is of the row, the second of the column. Rows are counted from 1 among those that the picture has, and the
/// last is at 2π; frequencies fall from 1 to nearly 1/10000, a sine and a cosine of each.
pub fn sine(padding: &Tensor, width: i64, kind: Kind) -> Tensor {
    let half = width / 2;
    let seen = padding.logical_not().to_kind(kind);
    let pair = Tensor::arange(half, (Kind::Int64, padding.device())).divide_scalar_mode(2, "floor").to_kind(kind);
    let wavelength = Tensor::from(10_000.0).to_kind(kind).to_device(padding.device()).pow(&(pair * 2.0 / half as f64));
    let of = |axis: i64| {
        let count = seen.cumsum(axis, kind);
        let all = count.narrow(axis, count.size()[axis as usize] - 1, 1);
        let angle = (count / (all + 1e-6) * TAU).unsqueeze(-1) / &wavelength;
        let (even, odd) = (angle.slice(-1, 0, None, 2), angle.slice(-1, 1, None, 2));
        Tensor::stack(&[even.sin(), odd.cos()], -1).flatten(-2, -1)
    };
    Tensor::cat(&[of(1), of(2)], -1).flatten(1, 2)
}

/// A vector for each row and for each column, up to [`Learned::MOST`] of them.
#[derive(Debug)]
pub struct Learned {
    row: Tensor,
    column: Tensor,
}

impl Learned {
    /// Rows and columns that there are vectors for.
    pub const MOST: i64 = 50;

    /// `row_embed.weight` and `col_embed.weight`, `[50, D/2]` each, under `path`; they start uniform in [0, 1).
    pub fn new(path: &nn::Path, width: i64) -> Self {
        let start = Init::Uniform { lo: 0.0, up: 1.0 };
        let vectors = |name: &str| (path / name).var("weight", &[Self::MOST, width / 2], start);
        Learned { row: vectors("row_embed"), column: vectors("col_embed") }
    }

    /// `[1, h·w, D]`: the column's vector and then the row's, padded or not.
    ///
    /// # Errors
    /// A map of more rows or columns.
    pub fn forward(&self, h: i64, w: i64) -> Result<Tensor> {
        if h.max(w) > Self::MOST {
            return Err(user!(
                "learned positions know maps of up to {most} rows and columns, and this one is {h}×{w}: take smaller pictures, or \
                 model.positions=sine_at_attention",
                most = Self::MOST
            ));
        }
        let across = self.column.narrow(0, 0, w).unsqueeze(0).expand([h, w, -1], false);
        let down = self.row.narrow(0, 0, h).unsqueeze(1).expand([h, w, -1], false);
        Ok(Tensor::cat(&[across, down], -1).flatten(0, 1).unsqueeze(0))
    }
}

/// A map without padding, `[1, h, w]`.
pub fn whole(h: i64, w: i64, device: Device) -> Tensor {
    Tensor::zeros([1, h, w], (Kind::Bool, device))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked values of a map of 4×6 of which the picture has 3×5.
    #[test]
    fn sines_have_the_worked_values() {
        let padding = Tensor::ones([1, 4, 6], (Kind::Bool, Device::Cpu));
        let _ = padding.narrow(1, 0, 3).narrow(2, 0, 5).fill_(0);
        let found = sine(&padding, 256, Kind::Double);
        assert_eq!(found.size(), [1, 24, 256]);
        for (channel, y, x, wanted) in [
            (0, 0, 0, 0.866026),
            (1, 0, 0, -0.499999),
            (2, 1, 2, -0.466871),
            (3, 1, 2, -0.884325),
            (128, 1, 2, -0.587785),
            (129, 1, 2, -0.809017),
            (130, 2, 4, -0.746091),
        ] {
            let found = found.double_value(&[0, y * 6 + x, channel]);
            assert!((found - wanted).abs() < 1e-6, "{channel}, {y}, {x}: {found}");
        }
        // The picture's places do not depend on what is beside them.
        let alone = sine(&whole(3, 5, Device::Cpu), 256, Kind::Double).view([3, 5, 256]);
        assert_eq!(found.view([4, 6, 256]).narrow(0, 0, 3).narrow(1, 0, 5), alone);
    }

    #[test]
    fn learned_positions_are_of_column_and_row() {
        let store = nn::VarStore::new(Device::Cpu);
        let learned = Learned::new(&store.root(), 8);
        let found = learned.forward(3, 5).unwrap();
        assert_eq!(found.size(), [1, 15, 8]);
        let place = found.get(0).get(2 * 5 + 4);
        assert_eq!(place.narrow(0, 0, 4), learned.column.get(4));
        assert_eq!(place.narrow(0, 4, 4), learned.row.get(2));
        assert!(learned.forward(50, 51).unwrap_err().to_string().contains("50×51"));
    }
}

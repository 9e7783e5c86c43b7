//! Squares of zeros.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use super::{always, demand, upload};
use crate::Result;
use crate::random::{below, uniform};

/// A square of zeros, black before centring and the mean after it (arXiv:1708.04552): its centre is uniform over the picture, so that it may
/// reach over the border. In YAML: `{kind: cutout, size: 16}`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Cutout {
    /// Edge of the square in pixels, at least 1 and at most twice the picture's longer edge.
    pub size: u64,
    /// The share of the pictures that get one, above 0 and at most 1; all if it is left away.
    #[serde(default = "always")]
    pub p: f64,
}

/// Rows and columns `from..to` of a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Area {
    pub(super) rows: [i64; 2],
    pub(super) columns: [i64; 2],
}

impl Cutout {
    pub(super) fn check(&self, [_, height, width]: [i64; 3]) -> Result<()> {
        let most = 2 * height.max(width);
        demand(
            (1..=most as u64).contains(&self.size),
            "cutout.size",
            self.size,
            &format!("a whole number from 1 to {most}"),
        )?;
        demand(self.p > 0.0 && self.p <= 1.0, "cutout.p", self.p, "a number above 0 and at most 1")
    }

    /// Always three draws: row and column of the centre, and whether there is a square at all.
    pub(super) fn draw(&self, rng: &mut ChaCha8Rng, [height, width]: [i64; 2]) -> Area {
        let [row, column] = [height, width].map(|size| below(rng, size as u64) as i64);
        let size = if uniform(rng, 0.0, 1.0) < self.p { self.size as i64 } else { 0 };
        Area::around([row, column], [size, size], [height, width])
    }
}

impl Area {
    /// `size` rows and columns around `centre` (one fewer after it than before where `size` is even), cut off at the border.
    pub(super) fn around(centre: [i64; 2], size: [i64; 2], [height, width]: [i64; 2]) -> Self {
        let part = |axis: usize, edge: i64| {
            let from = centre[axis] - size[axis] / 2;
            [from.clamp(0, edge), (from + size[axis]).clamp(0, edge)]
        };
        Self { rows: part(0, height), columns: part(1, width) }
    }

    /// Pixels in it.
    pub(super) fn pixels(&self) -> i64 {
        (self.rows[1] - self.rows[0]) * (self.columns[1] - self.columns[0])
    }
}

/// True in the area, false outside: `[N, 1, H, W]`.
pub(super) fn mask(areas: &[Area], [height, width]: [i64; 2], device: Device) -> Result<Tensor> {
    let inside = |edges: &dyn Fn(&Area) -> [i64; 2], size: i64| -> Result<Tensor> {
        let bounds: Vec<i64> = areas.iter().flat_map(edges).collect();
        let bounds = upload(&bounds, device)?.f_view([-1, 2])?;
        let places = Tensor::f_arange(size, (Kind::Int64, device))?;
        let after = places.f_ge_tensor(&bounds.f_narrow(1, 0, 1)?)?;
        Ok(after.f_logical_and(&places.f_lt_tensor(&bounds.f_narrow(1, 1, 1)?)?)?)
    };
    let rows = inside(&|area| area.rows, height)?.f_view([-1, 1, height, 1])?;
    let columns = inside(&|area| area.columns, width)?.f_view([-1, 1, 1, width])?;
    Ok(rows.f_logical_and(&columns)?)
}

/// Zeros in each picture's area.
pub(super) fn cut(image: &Tensor, areas: &[Area]) -> Result<Tensor> {
    let (_, _, h, w) = image.size4()?;
    Ok(image.f_masked_fill(&mask(areas, [h, w], image.device())?, 0.0)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::rng;

    #[test]
    fn a_square_is_cut_off_at_the_border() {
        let area = |row, column, size| Area::around([row, column], [size, size], [6, 9]);
        assert_eq!(area(3, 4, 4), Area { rows: [1, 5], columns: [2, 6] });
        assert_eq!(area(0, 8, 4), Area { rows: [0, 2], columns: [6, 9] });
        assert_eq!(area(5, 0, 3), Area { rows: [4, 6], columns: [0, 2] });
        assert_eq!(area(2, 2, 0).pixels(), 0);
        assert_eq!(area(2, 2, 18).pixels(), 54);
    }

    #[test]
    fn zeros_stand_in_the_square_and_nothing_else_changes() {
        let image = Tensor::arange(3 * 2 * 6 * 9, (Kind::Float, Device::Cpu)).view([3, 2, 6, 9]) - 100.5;
        let areas = [([3, 4], 4), ([0, 8], 4), ([5, 5], 0)].map(|(at, size)| Area::around(at, [size; 2], [6, 9]));
        let found = cut(&image, &areas).unwrap();
        for (i, area) in areas.iter().enumerate() {
            for (row, column) in (0..6).flat_map(|row| (0..9).map(move |column| (row, column))) {
                let inside =
                    (area.rows[0]..area.rows[1]).contains(&row) && (area.columns[0]..area.columns[1]).contains(&column);
                for channel in 0..2 {
                    let at = [i as i64, channel, row, column];
                    let expected = if inside { 0.0 } else { image.double_value(&at) };
                    assert_eq!(found.double_value(&at), expected, "{at:?}");
                }
            }
        }
    }

    #[test]
    fn centres_are_uniform_and_a_share_of_the_pictures_is_cut() {
        let cutout = Cutout { size: 1, p: 0.25 };
        let (mut cut, mut places) = (0, [0_i64; 20]);
        for sample in 0..10_000 {
            let area = cutout.draw(&mut rng(5, 0, sample, "cutout"), [4, 5]);
            cut += area.pixels();
            let area = Cutout { p: 1.0, ..cutout.clone() }.draw(&mut rng(5, 0, sample, "cutout"), [4, 5]);
            places[(area.rows[0] * 5 + area.columns[0]) as usize] += 1;
        }
        // Expected 2500 with a standard deviation of 43, and 500 with one of 22.
        assert!((cut - 2500).abs() < 175, "{cut}");
        assert!(places.iter().all(|count| (count - 500).abs() < 90), "{places:?}");
    }
}

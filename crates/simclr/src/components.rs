//! h of pictures that were not learned from, on their first two principal components: whether classes come apart, over training, without a label being seen.

use repro::Result;
use repro::data::{Pictures, Split};
use repro::figures::{Panel, scatter};
use repro::trainer::Eval;
use tch::{Device, Kind, Tensor};

use crate::model::Encoder;
use repro::probe::Features;

/// Test pictures that are shown.
const SHOWN: u64 = 1000;
/// Panels of a picture.
const PANELS: usize = 6;

/// What each evaluation of this process has seen, by step.
#[derive(Debug, Default)]
pub struct Components {
    seen: Vec<(Split, u64, Panel)>,
}

impl Components {
    /// Adds what the trunk makes of the first pictures of a split after `step` steps. Draws nothing at random. Nothing is added of fewer than three
    /// pictures, or of features that are no numbers.
    ///
    /// # Errors
    /// Those of the data, libtorch's.
    pub fn see(&mut self, encoder: &Encoder, data: &Pictures, split: Split, step: u64) -> Result<()> {
        let count = data.split_len(split).min(SHOWN);
        let Features { h, label } = Features::of(encoder, data, split, count)?;
        let Some((dots, [first, second])) = project(&h)? else { return Ok(()) };
        let labels = Vec::<i64>::try_from(label.f_to_device(Device::Cpu)?)?;
        let caption =
            format!("after step {step}: {:.0} % of the variance across, {:.0} % up", 100.0 * first, 100.0 * second);
        let dots = dots.into_iter().zip(labels).map(|((x, y), label)| (x, y, label as usize)).collect();
        // The last step may be looked at twice.
        self.seen.retain(|(of, at, _)| (*of, *at) != (split, step));
        self.seen.push((split, step, Panel { caption, dots }));
        Ok(())
    }

    /// Draws the first and the last of what was seen, and some at even distances between them.
    ///
    /// # Errors
    /// Those of drawing.
    pub fn draw(&self, split: Split, classes: &[String], out: &mut Eval) -> Result<()> {
        let seen: Vec<_> = self.seen.iter().filter(|(of, ..)| *of == split).map(|(.., panel)| panel).collect();
        let Some(last) = seen.last() else { return Ok(()) };
        let (count, shown) = (seen.len(), seen.len().min(PANELS));
        let chosen = (0..shown).map(|place| seen[place * (count - 1) / (shown - 1).max(1)].clone());
        let title = format!("h of {} pictures on its first two principal components", last.dots.len());
        out.picture("components", || scatter(&title, &chosen.collect::<Vec<_>>(), classes))
    }
}

/// Places on the first two components, and the shares of the variance that they explain.
type Projected = (Vec<(f64, f64)>, [f64; 2]);

/// h `[N, D]` on the two directions in which it varies most, in float64 on the CPU. The largest entry of a direction is positive, so that the
/// same h gives the same picture. `None`: too few rows or columns, or not all are numbers.
fn project(h: &Tensor) -> Result<Option<Projected>> {
    let h = h.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
    let (n, d) = h.size2()?;
    if n < 3 || d < 2 || h.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
        return Ok(None);
    }
    let centred = h.f_sub(&h.f_mean_dim([0_i64].as_slice(), true, Kind::Double)?)?;
    // Directions are the columns of v.
    let (_, sizes, v) = centred.f_svd(true, true)?;
    let v = v.f_narrow(1, 0, 2)?;
    let largest = v.f_abs()?.f_argmax(0, true)?;
    let v = v.f_mul(&v.f_gather(0, &largest, false)?.f_sign()?)?;
    let places = Vec::<Vec<f64>>::try_from(centred.f_matmul(&v)?)?;
    let squares = sizes.f_square()?;
    let total = squares.f_sum(Kind::Double)?.f_double_value(&[])?.max(f64::MIN_POSITIVE);
    let share = |place: i64| -> Result<f64> { Ok(squares.f_double_value(&[place])? / total) };
    Ok(Some((places.iter().map(|row| (row[0], row[1])).collect(), [share(0)?, share(1)?])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_those_of_a_known_cloud() {
        // Along (1, 1, 0)/√2: ±2√2; along z: ±1. Variances 16 : 2 of four points.
        let h = Tensor::from_slice(&[7.0f32, 7., 5., 3., 3., 5., 5., 5., 6., 5., 5., 4.]).view([4, 3]);
        let (places, shares) = project(&h).unwrap().unwrap();
        let expected = [(8f64.sqrt(), 0.0), (-(8f64.sqrt()), 0.0), (0.0, 1.0), (0.0, -1.0)];
        for (place, wanted) in places.iter().zip(expected) {
            assert!((place.0 - wanted.0).abs() < 1e-9 && (place.1 - wanted.1).abs() < 1e-9, "{places:?}");
        }
        assert!((shares[0] - 16.0 / 18.0).abs() < 1e-9 && (shares[1] - 2.0 / 18.0).abs() < 1e-9, "{shares:?}");
    }

    #[test]
    fn what_cannot_be_projected_is_left_out() {
        let zeros = |shape: [i64; 2]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        assert!(project(&zeros([2, 4])).unwrap().is_none() && project(&zeros([4, 1])).unwrap().is_none());
        assert!(project(&(zeros([4, 4]) / 0.0)).unwrap().is_none());
        let (places, shares) = project(&zeros([5, 4])).unwrap().unwrap();
        assert!(places.iter().all(|place| *place == (0.0, 0.0)) && shares == [0.0; 2]);
    }
}

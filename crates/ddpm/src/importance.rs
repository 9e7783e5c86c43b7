//! How often each t is drawn, by how large its losses were (Improved DDPM, §3.3).

use repro::Result;
use repro::weights::Named;
use tch::{Device, Kind, Tensor};

/// Losses of each t that are remembered.
const KEPT: usize = 10;
/// Share of uniform draws that is mixed in, so that no t dies out (the code's `uniform_prob`).
const UNIFORM: f64 = 0.001;

/// Eq. 18: p_t ∝ √E(L_t²) over the last ten losses of each t, once every t has as many; uniform before.
#[derive(Debug)]
pub struct Importance {
    /// `[T, 10]` float64, the newest last.
    losses: Tensor,
    /// `[T]` int64: how many of them there are.
    counts: Tensor,
}

impl Importance {
    /// For T steps.
    pub fn new(steps: usize) -> Self {
        let shape = |kind| (kind, Device::Cpu);
        let losses = Tensor::zeros([steps as i64, KEPT as i64], shape(Kind::Double));
        Importance { losses, counts: Tensor::zeros([steps as i64], shape(Kind::Int64)) }
    }

    /// p by t.
    pub fn shares(&self) -> Vec<f64> {
        let (losses, counts) = (self.numbers(), self.seen());
        let steps = counts.len() as f64;
        if counts.iter().any(|&count| count < KEPT as i64) {
            return vec![1.0 / steps; counts.len()];
        }
        let root = |of: &[f64]| (of.iter().map(|loss| loss * loss).sum::<f64>() / KEPT as f64).sqrt();
        let roots: Vec<f64> = losses.chunks(KEPT).map(root).collect();
        let sum: f64 = roots.iter().sum();
        roots.iter().map(|root| root / sum * (1.0 - UNIFORM) + UNIFORM / steps).collect()
    }

    fn numbers(&self) -> Vec<f64> {
        Vec::try_from(self.losses.view(-1)).unwrap_or_default()
    }

    fn seen(&self) -> Vec<i64> {
        Vec::try_from(&self.counts).unwrap_or_default()
    }

    /// A t for each number in [0, 1), and the weights 1/(T p_t) that keep the loss's mean.
    pub fn draw(&self, numbers: impl Iterator<Item = f64>) -> (Vec<i64>, Vec<f64>) {
        let shares = self.shares();
        let sums: Vec<f64> = shares
            .iter()
            .scan(0.0, |sum, share| {
                *sum += share;
                Some(*sum)
            })
            .collect();
        let last = shares.len() - 1;
        numbers
            .map(|number| {
                let t = sums.partition_point(|sum| *sum <= number).min(last);
                (t as i64, 1.0 / (shares.len() as f64 * shares[t]))
            })
            .unzip()
    }

    /// Remembers the losses `[N]` of the steps t `[N]`, in their order.
    ///
    /// # Errors
    /// libtorch's.
    pub fn saw(&mut self, t: &Tensor, losses: &Tensor) -> Result<()> {
        let on_cpu = |tensor: &Tensor| tensor.f_to_device(Device::Cpu);
        let (steps, found) =
            (Vec::<i64>::try_from(on_cpu(t)?)?, Vec::<f64>::try_from(on_cpu(losses)?.to_kind(Kind::Double))?);
        let (mut kept, mut counts) = (self.numbers(), self.seen());
        for (t, loss) in steps.into_iter().zip(found) {
            let t = t as usize;
            let row = &mut kept[t * KEPT..(t + 1) * KEPT];
            row.rotate_left(1);
            row[KEPT - 1] = loss;
            counts[t] = (counts[t] + 1).min(KEPT as i64);
        }
        self.losses.copy_(&Tensor::from_slice(&kept).view_as(&self.losses));
        self.counts.copy_(&Tensor::from_slice(&counts));
        Ok(())
    }

    /// Handles to what a resumed run needs.
    pub fn state(&self) -> Named {
        Named::from([
            ("importance.losses".into(), self.losses.shallow_clone()),
            ("importance.counts".into(), self.counts.shallow_clone()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saw(importance: &mut Importance, t: i64, loss: f64) {
        importance.saw(&Tensor::from_slice(&[t]), &Tensor::from_slice(&[loss])).unwrap();
    }

    #[test]
    fn shares_are_uniform_until_each_step_has_ten_losses_and_then_roots_of_their_mean_squares() {
        let mut importance = Importance::new(2);
        for _ in 0..KEPT {
            saw(&mut importance, 0, 5.0);
        }
        assert_eq!(importance.shares(), [0.5, 0.5]);
        // The first is forgotten again.
        for loss in [100.0].into_iter().chain([1.0; KEPT]) {
            saw(&mut importance, 1, loss);
        }
        let expected = [5.0 / 6.0 * 0.999 + 0.0005, 1.0 / 6.0 * 0.999 + 0.0005];
        for (found, expected) in importance.shares().iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        let (t, weight) = importance.draw([0.0, expected[0] - 1e-9, expected[0] + 1e-9, 0.999_999].into_iter());
        assert_eq!(t, [0, 0, 1, 1]);
        // The weights keep the mean of the loss: Σ p_t · w_t · L_t = mean of L_t.
        assert!((weight[0] * expected[0] - 0.5).abs() < 1e-12 && (weight[2] * expected[1] - 0.5).abs() < 1e-12);
    }
}

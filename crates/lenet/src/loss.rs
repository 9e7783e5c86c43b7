//! The loss functions: the discriminative criterion of the paper (§II.C, Eq. 9) and plain cross-entropy.

use repro::Result;
use serde::Deserialize;
use tch::{Kind, Reduction, Tensor};

/// Which loss is minimised. Both take logits, so each works with each model: for the network of 1998 a logit is −y_i.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Loss {
    /// Eq. 9, the maximum a posteriori criterion.
    Map {
        /// The penalty j > 0 of the "none of these" class. It keeps penalties that are large already from being pushed further.
        /// The paper does not print its value.
        j: f64,
    },
    /// Softmax cross-entropy: Eq. 9 without e^{−j}.
    CrossEntropy {},
}

impl Loss {
    /// Mean loss of `logits` `[N, K]` against the classes `label` `[N]` i64; `[]`, at least float32.
    ///
    /// # Errors
    /// libtorch's.
    pub fn mean(self, logits: &Tensor, label: &Tensor) -> Result<Tensor> {
        self.reduced(logits, label, Reduction::Mean)
    }

    /// The loss of each picture, `[N]`, at least float32.
    ///
    /// # Errors
    /// libtorch's.
    pub fn each(self, logits: &Tensor, label: &Tensor) -> Result<Tensor> {
        self.reduced(logits, label, Reduction::None)
    }

    /// Eq. 9, y_D + log(e^{−j} + Σ_i e^{−y_i}), is −log of the softmax over the K logits −y_i and one more logit −j: hence the pad.
    fn reduced(self, logits: &Tensor, label: &Tensor, reduction: Reduction) -> Result<Tensor> {
        // Distances near 100 have no use for the three digits of bfloat16.
        let logits = if logits.kind() == Kind::BFloat16 { logits.to_kind(Kind::Float) } else { logits.shallow_clone() };
        let logits = match self {
            Loss::Map { j } => logits.f_pad([0, 1], "constant", -j)?,
            Loss::CrossEntropy {} => logits,
        };
        Ok(logits.f_cross_entropy_loss::<Tensor>(label, None, reduction, -100, 0.0)?)
    }

    /// p_i = e^{−y_i} / (e^{−j} + Σ e^{−y}) for `logits` `[N, K]`: what the loss makes of the classes. Sums to 1, or less with j.
    pub(crate) fn probabilities(self, logits: &Tensor) -> Tensor {
        match self {
            Loss::Map { j } => logits.pad([0, 1], "constant", -j).softmax(-1, None).narrow(1, 0, logits.size()[1]),
            Loss::CrossEntropy {} => logits.softmax(-1, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equation_9_in_plain_rust() {
        let distance = [[3.0, 1.5, 0.2], [7.0, 90.0, 120.0]];
        let label = [2i64, 1];
        let j = 2.5_f64;
        let expected = distance
            .iter()
            .zip(label)
            .map(|(y, d)| y[d as usize] + ((-j).exp() + y.iter().map(|y: &f64| (-y).exp()).sum::<f64>()).ln());
        let expected = expected.sum::<f64>() / 2.0;
        let logits = -Tensor::from_slice(&distance.concat()).view([2, 3]);
        let loss = Loss::Map { j }.mean(&logits, &Tensor::from_slice(&label)).unwrap();
        assert!((loss.double_value(&[]) - expected).abs() < 1e-12);
        // Far from every code the naive form would be log(0); with e^{−j} it tends to y_D − j.
        let far = Loss::Map { j }
            .mean(&Tensor::from_slice(&[-2000f64, -3000.0]).view([1, 2]), &Tensor::from_slice(&[0i64]))
            .unwrap();
        assert!((far.double_value(&[]) - (2000.0 - j)).abs() < 1e-9);
    }

    #[test]
    fn a_class_that_is_pushed_far_enough_is_left_alone() {
        // The gradient on a wrong class is −p_i: with the constant it falls to nothing once y_i passes j.
        let push = |loss: Loss| {
            let logits = Tensor::from_slice(&[-9f64, -10.0]).view([1, 2]).set_requires_grad(true);
            loss.mean(&logits, &Tensor::from_slice(&[0i64])).unwrap().backward();
            logits.grad().double_value(&[0, 1])
        };
        assert!(push(Loss::CrossEntropy {}) > 0.2);
        assert!(push(Loss::Map { j: 1.0 }) < 1e-3);
    }
}

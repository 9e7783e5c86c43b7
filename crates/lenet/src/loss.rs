//! The loss functions: the discriminative criterion of the paper (§II.C, Eq. 9), plain cross-entropy, and squared error.

use repro::Result;
use serde::Deserialize;
use tch::{Kind, Reduction, Tensor};

use crate::flat::{one_against_all, one_against_one};

/// Which loss is minimised, of the outputs of a network: one for each class but for the pairwise one. For the network of 1998 an output is −y_i.
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
    /// Squared error against +1 for the class and −1 for the others, summed over the outputs (§II.C, Eq. 8 with fixed targets).
    Squared {},
    /// Squared error of one output for each pair of classes; pairs without the class do not count.
    Pairs {},
}

impl Loss {
    /// Mean loss of `outputs` (`[N, K]`; of pairs `[N, K (K − 1) / 2]`) against the classes `label` `[N]` i64; `[]`, at least float32.
    ///
    /// # Errors
    /// libtorch's.
    pub fn mean(self, outputs: &Tensor, label: &Tensor) -> Result<Tensor> {
        self.reduced(outputs, label, Reduction::Mean)
    }

    /// The loss of each picture, `[N]`, at least float32.
    ///
    /// # Errors
    /// libtorch's.
    pub fn each(self, outputs: &Tensor, label: &Tensor) -> Result<Tensor> {
        self.reduced(outputs, label, Reduction::None)
    }

    /// Eq. 9, y_D + log(e^{−j} + Σ_i e^{−y_i}), is −log of the softmax over the K logits −y_i and one more logit −j: hence the pad.
    fn reduced(self, outputs: &Tensor, label: &Tensor, reduction: Reduction) -> Result<Tensor> {
        // Distances near 100 have no use for the three digits of bfloat16.
        let outputs =
            if outputs.kind() == Kind::BFloat16 { outputs.to_kind(Kind::Float) } else { outputs.shallow_clone() };
        let logits = match self {
            Loss::Map { j } => outputs.f_pad([0, 1], "constant", -j)?,
            Loss::CrossEntropy {} => outputs,
            Loss::Squared {} => return squared(&outputs, &one_against_all(outputs.size()[1]), label, reduction),
            Loss::Pairs {} => {
                // U = K (K − 1) / 2.
                let classes = ((1.0 + 8.0 * outputs.size()[1] as f64).sqrt() as i64 + 1) / 2;
                return squared(&outputs, &one_against_one(classes), label, reduction);
            }
        };
        Ok(logits.f_cross_entropy_loss::<Tensor>(label, None, reduction, -100, 0.0)?)
    }

    /// p_i = e^{−y_i} / (e^{−j} + Σ e^{−y}) for `logits` `[N, K]`: what the loss makes of the classes. Sums to 1, or less with j.
    /// Squared errors make no probabilities; the configuration admits none with the network that asks.
    pub(crate) fn probabilities(self, logits: &Tensor) -> Tensor {
        match self {
            Loss::Map { j } => logits.pad([0, 1], "constant", -j).softmax(-1, None).narrow(1, 0, logits.size()[1]),
            _ => logits.softmax(-1, None),
        }
    }
}

/// Σ_u (o_u − t_u)² over the outputs that `targets` `[K, U]` of ±1 and 0 say something about.
fn squared(outputs: &Tensor, targets: &Tensor, label: &Tensor, reduction: Reduction) -> Result<Tensor> {
    let targets = targets.f_to_device(outputs.device())?.f_to_kind(outputs.kind())?.f_index_select(0, label)?;
    let gap = (outputs - &targets) * targets.abs();
    let each = gap.f_square()?.f_sum_dim_intlist(1i64, false, None)?;
    Ok(if reduction == Reduction::Mean { each.f_mean(None)? } else { each })
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
    fn squared_errors_in_plain_rust() {
        let label = Tensor::from_slice(&[2i64, 0]);
        let outputs = Tensor::from_slice(&[0.5f64, -1.0, 0.25, 2.0, 0.0, -1.0]).view([2, 3]);
        let each: Vec<f64> = Vec::try_from(Loss::Squared {}.each(&outputs, &label).unwrap()).unwrap();
        assert_eq!(each, [1.5 * 1.5 + 0.0 + 0.75 * 0.75, 1.0 + 1.0 + 0.0]);
        let mean = Loss::Squared {}.mean(&outputs, &label).unwrap().double_value(&[]);
        assert!((mean - (each[0] + each[1]) / 2.0).abs() < 1e-12);
        // Pairs 01, 02, 12. Class 2 is the −1 of the last two; class 0 the +1 of the first two.
        let each: Vec<f64> = Vec::try_from(Loss::Pairs {}.each(&outputs, &label).unwrap()).unwrap();
        assert_eq!(each, [0.0 + 1.25 * 1.25, 1.0 + 1.0]);
        assert_eq!(
            Loss::Pairs {}.each(&outputs.narrow(0, 0, 1).repeat([1, 15]), &label.narrow(0, 0, 1)).unwrap().size(),
            [1]
        );
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

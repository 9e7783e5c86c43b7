//! Losses that several papers share. Each is a mean over the batch where nothing else is said, a tensor `[]`, reckoned in float32 even for
//! 16-bit inputs (float64 stays float64).

use tch::{Kind, Reduction, Tensor};

/// Cross-entropy of `logits` `[N, K]` with `labels` `[N]` (i64, 0 to K − 1), in nats.
///
/// `smoothing` ε in [0, 1] aims at 1 − ε on the label and ε spread evenly over all K classes (arXiv:1512.00567, §7).
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, smoothing: f64) -> Tensor {
    // PyTorch's number for labels to leave out; ours are never negative.
    let ignored = -100;
    wide(logits).cross_entropy_loss(labels, None::<Tensor>, Reduction::Mean, ignored, smoothing)
}

/// Cross-entropy of `logits` `[N, K]` with `targets` `[N, K]`, probabilities that sum to 1 in each row: mixed labels, or a teacher's.
pub fn soft_cross_entropy(logits: &Tensor, targets: &Tensor) -> Tensor {
    assert_eq!(logits.size(), targets.size(), "logits and targets must have one shape");
    let logits = wide(logits);
    let log_p = logits.log_softmax(-1, logits.kind());
    -(log_p * wide(targets)).sum_dim_intlist(-1, false, logits.kind()).mean(logits.kind())
}

/// Log loss of two classes: −mean(y·ln p + (1 − y)·ln(1 − p)) with p = σ(`logits`). `targets` y in [0, 1] have the logits' shape, any.
pub fn log_loss(logits: &Tensor, targets: &Tensor) -> Tensor {
    assert_eq!(logits.size(), targets.size(), "logits and targets must have one shape");
    let logits = wide(logits);
    let targets = targets.to_kind(logits.kind());
    logits.binary_cross_entropy_with_logits(&targets, None::<Tensor>, None::<Tensor>, Reduction::Mean)
}

/// Focal loss (arXiv:1708.02002, Eq. 5): the **sum** over all numbers of −α_t·(1 − p_t)^γ·ln p_t, where p_t is σ(`logits`) where `targets` are
/// 1 and 1 − σ(`logits`) where they are 0. What is classified well, p_t near 1, counts the less the larger γ ≥ 0 is. `alpha` in [0, 1] is the
/// weight of the ones, 1 − α that of the zeros; `None`: 1 for both. With γ = 0 it is the (weighted) log loss.
///
/// `targets` are 0 or 1 and have the logits' shape, any.
pub fn focal(logits: &Tensor, targets: &Tensor, alpha: Option<f64>, gamma: f64) -> Tensor {
    assert_eq!(logits.size(), targets.size(), "logits and targets must have one shape");
    let logits = wide(logits);
    let targets = targets.to_kind(logits.kind());
    // σ(z) = p_t: by logarithms neither factor overflows, and the power has a gradient where p_t is 1.
    let z = &logits * (&targets * 2.0 - 1.0);
    let easy = ((-&z).log_sigmoid() * gamma).exp();
    let loss = -(easy * z.log_sigmoid());
    let weighted = match alpha {
        Some(alpha) => loss * (targets * (2.0 * alpha - 1.0) + (1.0 - alpha)),
        None => loss,
    };
    weighted.sum(logits.kind())
}

/// Root of the mean squared difference of two tensors of one shape. Where they are equal the gradient is 0.
pub fn rmse(prediction: &Tensor, target: &Tensor) -> Tensor {
    assert_eq!(prediction.size(), target.size(), "prediction and target must have one shape");
    let difference = wide(prediction) - wide(target);
    let n = difference.numel() as f64;
    // The norm has a defined gradient at 0, which the root has not.
    difference.norm() / n.sqrt()
}

/// 16-bit and whole numbers as float32.
fn wide(x: &Tensor) -> Tensor {
    match x.kind() {
        Kind::Float | Kind::Double => x.shallow_clone(),
        _ => x.to_kind(Kind::Float),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

    fn rows(tensor: &Tensor) -> Vec<Vec<f64>> {
        Vec::try_from(tensor).unwrap()
    }

    fn close(found: &Tensor, expected: f64) {
        assert_eq!(found.size(), [0i64; 0]);
        let found = found.double_value(&[]);
        assert!((found - expected).abs() < 1e-12, "{found} != {expected}");
    }

    /// −Σ q ln p of one row of logits.
    fn entropy(logits: &[f64], q: impl Fn(usize) -> f64) -> f64 {
        let log_sum = logits.iter().map(|z| z.exp()).sum::<f64>().ln();
        logits.iter().enumerate().map(|(k, z)| -q(k) * (z - log_sum)).sum()
    }

    #[test]
    fn cross_entropy_is_its_formula_with_and_without_smoothing() {
        let logits = Tensor::randn([6, 4], F64) * 3.0;
        let labels = [0usize, 3, 1, 1, 2, 0];
        let label_tensor = Tensor::from_slice(&labels.map(|label| label as i64));
        for smoothing in [0.0, 0.1, 1.0] {
            let aim = |label: usize| move |k| smoothing / 4.0 + if k == label { 1.0 - smoothing } else { 0.0 };
            let expected =
                rows(&logits).iter().zip(labels).map(|(row, label)| entropy(row, aim(label))).sum::<f64>() / 6.0;
            close(&cross_entropy(&logits, &label_tensor, smoothing), expected);
        }
        let even = Tensor::zeros([2, 10], F64);
        close(&cross_entropy(&even, &Tensor::from_slice(&[3i64, 9]), 0.0), 10f64.ln());
    }

    /// Eq. 5 by hand; the published values of the reference; the log loss for γ = 0.
    #[test]
    fn focal_is_its_formula() {
        let one = |logit: f64, target: f64, alpha, gamma| {
            focal(&Tensor::from_slice(&[logit]), &Tensor::from_slice(&[target]), alpha, gamma).double_value(&[])
        };
        for (logit, target) in [(2.0, 1.0), (-1.0, 0.0), (0.0, 1.0), (-3.5, 1.0), (4.0, 0.0)] {
            for gamma in [0.0, 0.5, 2.0, 5.0] {
                let sigmoid = 1.0 / (1.0 + f64::exp(-logit));
                let (p, weight) = if target == 1.0 { (sigmoid, 0.25) } else { (1.0 - sigmoid, 0.75) };
                let expected = -weight * (1.0 - p).powf(gamma) * p.ln();
                let found = one(logit, target, Some(0.25), gamma);
                assert!((found - expected).abs() < 1e-12, "{found} != {expected}");
                assert!((one(logit, target, None, gamma) * weight - expected).abs() < 1e-12);
            }
        }
        for (logit, target, published) in [(2.0, 1.0, 0.0005), (-1.0, 0.0, 0.0170), (0.0, 1.0, 0.0433)] {
            assert!((one(logit, target, Some(0.25), 2.0) - published).abs() < 5e-5);
        }
        let logits = crate::golden::input("logit", &[4, 5]) * 3.0;
        let targets = Tensor::zeros([4, 5], F64);
        let _ = (targets.get(0).get(1).fill_(1.0), targets.get(2).get(4).fill_(1.0));
        let found = |alpha, gamma| focal(&logits, &targets, alpha, gamma).double_value(&[]);
        assert!((found(Some(0.25), 2.0) - 9.6639077769).abs() < 1e-9);
        assert!((found(None, 0.0) - 21.0552907013).abs() < 1e-9);
        assert!((found(None, 0.0) - 20.0 * log_loss(&logits, &targets).double_value(&[])).abs() < 1e-9);
    }

    /// By differences; finite where an answer is as sure as a number can be.
    #[test]
    fn focal_has_its_gradient() {
        let gradient = |logit: f64, gamma: f64| {
            let x = Tensor::from_slice(&[logit]).set_requires_grad(true);
            focal(&x, &Tensor::from_slice(&[1.0]), Some(0.25), gamma).backward();
            x.grad().double_value(&[0])
        };
        let value = |logit: f64, gamma| {
            focal(&Tensor::from_slice(&[logit]), &Tensor::from_slice(&[1.0]), Some(0.25), gamma).double_value(&[])
        };
        for gamma in [0.0, 0.5, 2.0] {
            for logit in [-2.0, 0.3, 1.7] {
                let difference = (value(logit + 1e-6, gamma) - value(logit - 1e-6, gamma)) / 2e-6;
                assert!((gradient(logit, gamma) - difference).abs() < 1e-8);
            }
            assert!(
                [-800.0, 800.0]
                    .iter()
                    .all(|&logit| gradient(logit, gamma).is_finite() && value(logit, gamma).is_finite())
            );
        }
    }

    #[test]
    fn soft_targets_generalise_labels() {
        let logits = Tensor::randn([5, 3], F64);
        let targets = Tensor::randn([5, 3], F64).softmax(-1, Kind::Double);
        let expected =
            rows(&logits).iter().zip(rows(&targets)).map(|(row, q)| entropy(row, |k| q[k])).sum::<f64>() / 5.0;
        close(&soft_cross_entropy(&logits, &targets), expected);
        let labels = Tensor::from_slice(&[2i64, 0, 1, 1, 2]);
        let hard = soft_cross_entropy(&logits, &labels.one_hot(3));
        close(&hard, cross_entropy(&logits, &labels, 0.0).double_value(&[]));
    }

    #[test]
    fn log_loss_is_its_formula_and_bears_large_logits() {
        let logits = [0.0, 1.5, -2.0, 0.3];
        let targets = [1.0, 0.0, 0.25, 1.0];
        let expected = logits.iter().zip(targets).map(|(z, y): (&f64, f64)| {
            let p = 1.0 / (1.0 + (-z).exp());
            -(y * p.ln() + (1.0 - y) * (1.0 - p).ln())
        });
        close(&log_loss(&Tensor::from_slice(&logits), &Tensor::from_slice(&targets)), expected.sum::<f64>() / 4.0);
        let wrong = log_loss(&Tensor::from_slice(&[800.0]), &Tensor::from_slice(&[0i64]));
        close(&wrong, 800.0);
    }

    #[test]
    fn rmse_is_its_formula_and_flat_where_equal() {
        close(&rmse(&Tensor::from_slice(&[1.0, 2.0, 5.0]), &Tensor::from_slice(&[1.0, 4.0, 4.0])), (5f64 / 3.0).sqrt());
        let x = Tensor::ones([3], F64).set_requires_grad(true);
        let loss = rmse(&x, &Tensor::ones([3], F64));
        close(&loss, 0.0);
        loss.backward();
        assert_eq!(Vec::<f64>::try_from(x.grad()).unwrap(), [0.0; 3]);
    }

    #[test]
    #[should_panic(expected = "must have one shape")]
    fn rmse_does_not_broadcast() {
        let _ = rmse(&Tensor::ones([3, 1], F64), &Tensor::ones([3], F64));
    }

    #[test]
    fn sixteen_bit_logits_lose_nothing_more() {
        let logits = (Tensor::randn([8, 10], F64) * 5.0).to_kind(Kind::BFloat16);
        let labels = Tensor::arange(8, (Kind::Int64, Device::Cpu));
        let exact = logits.to_kind(Kind::Double);
        let targets = Tensor::full([8, 10], 0.1, F64);
        let zeros = Tensor::zeros([8, 10], F64);
        for (found, exact) in [
            (cross_entropy(&logits, &labels, 0.1), cross_entropy(&exact, &labels, 0.1)),
            (soft_cross_entropy(&logits, &targets.to_kind(Kind::Float)), soft_cross_entropy(&exact, &targets)),
            (log_loss(&logits, &zeros), log_loss(&exact, &zeros)),
            (rmse(&logits, &zeros.to_kind(Kind::Float)), rmse(&exact, &zeros)),
        ] {
            assert_eq!(found.kind(), Kind::Float);
            let (found, exact) = (found.double_value(&[]), exact.double_value(&[]));
            assert!((found - exact).abs() < 1e-5 * exact.abs(), "{found} {exact}");
        }
    }
}

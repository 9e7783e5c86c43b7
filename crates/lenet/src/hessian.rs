//! Back-propagation of second derivatives (Appendix C of the paper): the diagonal of the Gauss-Newton matrix of [`Lenet5`].
//!
//! With h the second derivative of the loss by a quantity, all layers but the squash are linear in their inputs and in their
//! weights, so h passes through them as the gradient does, with weights and inputs squared; through the squash it gains f'(a)².
//! The term with f'' is dropped: hence Gauss-Newton, and h ≥ 0. Off-diagonal terms are dropped at every layer, too.

use std::collections::BTreeMap;

use tch::Tensor;

use crate::layers::{AMPLITUDE, SLOPE, sum_of_four};
use crate::loss::Loss;
use crate::model::Lenet5;

/// Curvature by weights, by biases and by inputs of one layer, the first two summed over the batch.
#[derive(Debug)]
struct Curvature {
    weight: Tensor,
    bias: Tensor,
    input: Tensor,
}

/// h_kk for every trainable parameter, by name: the mean over the pictures of `pixels` `[N, 1, 32, 32]`.
///
/// Labels are not needed: the loss at the right class is y_D, whose second derivative is 2 for all of them.
pub fn diagonal(net: &Lenet5, pixels: &Tensor, loss: Loss) -> BTreeMap<String, Tensor> {
    tch::no_grad(|| {
        let states = net.trace(pixels);
        let h = output(&states.f6, &net.rbf.centers, loss) / pixels.size()[0] as f64;
        let h = through_squash(&states.f6, &h);
        let f6 = through_full(&states.c5.flatten(1, -1), &net.f6.weight, &h);
        let h = through_squash(&states.c5, &f6.input.view_as(&states.c5));
        let c5 = through_convolution(&states.s4, &net.c5.weight, &h);
        let h = through_squash(&states.s4, &c5.input);
        let s4 = through_subsampling(&states.c3, &net.s4.weight, &h);
        let h = through_squash(&states.c3, &s4.input);
        let mut c3 = through_convolution(&states.s2, &net.c3.masked(), &h);
        c3.weight *= &net.c3.table;
        let h = through_squash(&states.s2, &c3.input);
        let s2 = through_subsampling(&states.c1, &net.s2.weight, &h);
        let h = through_squash(&states.c1, &s2.input);
        let c1 = through_convolution(pixels, &net.c1.weight, &h);
        let layers = [("c1", c1), ("s2", s2), ("c3", c3), ("s4", s4), ("c5", c5), ("f6", f6)];
        layers
            .into_iter()
            .flat_map(|(name, h)| [(format!("{name}.weight"), h.weight), (format!("{name}.bias"), h.bias)])
            .collect()
    })
}

/// ∂²E/∂x_j² of Eq. 9 at the state `x` `[N, 84]` of F6, exact: 4 Var_p(d_j) + 2 (1 − Σ_i p_i), with d_ij = x_j − w_ij and
/// p_i = e^{−y_i} / (e^{−j} + Σ e^{−y}); `[N, 84]`, not negative since Σ_i p_i ≤ 1.
fn output(x: &Tensor, centers: &Tensor, loss: Loss) -> Tensor {
    let d = x.unsqueeze(1) - centers; // [N, K, 84]
    let logits = -d.square().sum_dim_intlist(2i64, false, None);
    let p = loss.probabilities(&logits).unsqueeze(2); // [N, K, 1]
    let sum = |t: &Tensor| t.sum_dim_intlist(1i64, false, None);
    let variance = sum(&(&p * d.square())) - sum(&(&p * &d)).square();
    let rest: Tensor = 1.0 - sum(&p);
    // Rounding may leave a trace below zero.
    variance.clamp_min(0.0) * 4.0 + rest.clamp_min(0.0) * 2.0
}

/// From the state f(a) and h by it to h by a: f'(a)² h, with f' = S (A² − f²) / A.
fn through_squash(state: &Tensor, h: &Tensor) -> Tensor {
    ((AMPLITUDE * AMPLITUDE - state.square()) * (SLOPE / AMPLITUDE)).square() * h
}

/// `input` `[N, I]`, `weight` `[O, I]`, `h` by the sums `[N, O]`.
fn through_full(input: &Tensor, weight: &Tensor, h: &Tensor) -> Curvature {
    Curvature {
        weight: h.transpose(0, 1).matmul(&input.square()),
        bias: h.sum_dim_intlist(0i64, false, None),
        input: h.matmul(&weight.square()),
    }
}

/// `input` `[N, I, H, W]`, `weight` `[O, I, 5, 5]`, `h` by the sums `[N, O, H − 4, W − 4]`.
fn through_convolution(input: &Tensor, weight: &Tensor, h: &Tensor) -> Curvature {
    // A shared weight: the sum over all places where it is used, of h there times the square of the input there.
    let fields = input.im2col([5, 5], [1, 1], [0, 0], [1, 1]).square(); // [N, 25 I, places]
    let places = fields.transpose(1, 2).flatten(0, 1);
    let by_sum = h.flatten(2, 3).transpose(1, 2).flatten(0, 1);
    Curvature {
        weight: by_sum.transpose(0, 1).matmul(&places).view_as(weight),
        bias: h.sum_dim_intlist([0i64, 2, 3].as_slice(), false, None),
        input: h.conv_transpose2d::<Tensor>(&weight.square(), None, 1, 0, 0, 1, 1),
    }
}

/// `input` `[N, maps, H, W]`, `weight` `[maps]`, `h` by the sums `[N, maps, H/2, W/2]`.
fn through_subsampling(input: &Tensor, weight: &Tensor, h: &Tensor) -> Curvature {
    let by_unit = h * weight.square().view([-1, 1, 1]);
    Curvature {
        weight: (h * sum_of_four(input).square()).sum_dim_intlist([0i64, 2, 3].as_slice(), false, None),
        bias: h.sum_dim_intlist([0i64, 2, 3].as_slice(), false, None),
        input: by_unit.repeat_interleave_self_int(2, 2, None).repeat_interleave_self_int(2, 3, None),
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, nn};

    use super::*;

    const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);

    /// diag(Jᵀ diag(h) J) by each of `by`, J being the derivative of `y`: one backward pass for each row.
    fn brute(y: &Tensor, by: &[&Tensor], h: &Tensor) -> Vec<Tensor> {
        let (y, h) = (y.flatten(0, -1), h.flatten(0, -1));
        let mut diagonal: Vec<_> = by.iter().map(|t| t.zeros_like()).collect();
        for row in 0..y.size()[0] {
            let weight = h.double_value(&[row]);
            for (sum, gradient) in diagonal.iter_mut().zip(Tensor::run_backward(&[y.get(row)], by, true, false)) {
                *sum += gradient.square() * weight;
            }
        }
        diagonal
    }

    fn leaf(t: Tensor) -> Tensor {
        t.detach().set_requires_grad(true)
    }

    fn random(shape: &[i64]) -> Tensor {
        leaf(Tensor::randn(shape, DOUBLE))
    }

    fn close(a: &Tensor, b: &Tensor) {
        assert_eq!(a.size(), b.size());
        let gap = ((a - b).abs() / (b.abs() + 1e-300)).max().double_value(&[]);
        assert!(gap < 1e-9, "relative gap {gap}");
    }

    fn check(
        y: Tensor,
        input: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        layer: fn(&Tensor, &Tensor, &Tensor) -> Curvature,
    ) {
        let h = Tensor::rand(y.size(), DOUBLE);
        let expected = brute(&y, &[weight, bias, input], &h);
        let ours = layer(&input.detach(), &weight.detach(), &h);
        close(&ours.weight, &expected[0]);
        close(&ours.bias, &expected[1]);
        close(&ours.input, &expected[2]);
    }

    #[test]
    fn each_layer_against_a_brute_force_gauss_newton_diagonal() {
        tch::manual_seed(2);
        let (x, w, b) = (random(&[3, 5]), random(&[4, 5]), random(&[4]));
        check(x.linear(&w, Some(&b)), &x, &w, &b, through_full);
        let (x, w, b) = (random(&[2, 3, 8, 7]), random(&[4, 3, 5, 5]), random(&[4]));
        check(x.conv2d(&w, Some(&b), 1, 0, 1, 1), &x, &w, &b, through_convolution);
        let (x, w, b) = (random(&[2, 3, 4, 6]), random(&[3]), random(&[3]));
        let y = sum_of_four(&x) * w.view([-1, 1, 1]) + b.view([-1, 1, 1]);
        check(y, &x, &w, &b, through_subsampling);
        let a = random(&[2, 7]);
        let (state, h) = (crate::layers::squash(&a), Tensor::rand([2, 7], DOUBLE));
        close(&through_squash(&state.detach(), &h), &brute(&state, &[&a], &h)[0]);
    }

    #[test]
    fn the_output_curvature_is_the_second_derivative() {
        tch::manual_seed(3);
        let centers = crate::bitmaps::codes().to_kind(Kind::Double);
        // Between two glyphs, with j near the distances: all terms take part.
        let x = leaf(centers.get(3) * 0.5 + centers.get(8) * 0.45 + Tensor::randn([84], DOUBLE) * 0.1).view([1, 84]);
        for loss in [Loss::Map { j: 12.0 }, Loss::Map { j: 1.0 }, Loss::CrossEntropy {}] {
            let logits = -(x.unsqueeze(1) - &centers).square().sum_dim_intlist(2i64, false, None);
            let e = loss.mean(&logits, &Tensor::from_slice(&[3i64])).unwrap();
            let gradient = Tensor::run_backward(&[e], &[&x], true, true).remove(0);
            let exact: Vec<f64> = (0..84)
                .map(|j| Tensor::run_backward(&[gradient.get(0).get(j)], &[&x], true, false)[0].double_value(&[0, j]))
                .collect();
            let exact = Tensor::from_slice(&exact).view([1, 84]);
            let ours = output(&x.detach(), &centers, loss);
            assert!((&ours - &exact).abs().max().double_value(&[]) < 1e-9, "{loss:?}");
            assert!(exact.max().double_value(&[]) > 1e-3, "{loss:?}: nothing to compare");
        }
    }

    fn network() -> (nn::VarStore, Lenet5) {
        tch::manual_seed(4);
        let mut vs = nn::VarStore::new(Device::Cpu);
        let net = Lenet5::new(&vs.root(), 10, crate::layers::Init::Lecun);
        vs.double();
        (vs, net)
    }

    #[test]
    fn the_chain_of_layers_against_brute_force_and_not_squared_gradients() {
        let (vs, net) = network();
        let loss = Loss::Map { j: 90.0 };
        let pixels = Tensor::rand([1, 1, 32, 32], DOUBLE);
        let ours = diagonal(&net, &pixels, loss);
        assert_eq!(ours.len(), 12);

        // Down the same network, every layer cut off from the one below it.
        let var = |name: &str| vs.variables()[name].shallow_clone();
        let states = net.trace(&pixels);
        let mut h = output(&states.f6.detach(), &var("rbf.centers"), loss);
        let below = [
            ("f6", &states.c5),
            ("c5", &states.s4),
            ("s4", &states.c3),
            ("c3", &states.s2),
            ("s2", &states.c1),
            ("c1", &pixels),
        ];
        for (name, input) in below {
            let input = leaf(input.shallow_clone());
            let (w, b) = (var(&format!("{name}.weight")), var(&format!("{name}.bias")));
            let sums = match name {
                "f6" => input.flatten(1, -1).linear(&w, Some(&b)),
                "s2" | "s4" => sum_of_four(&input) * w.view([-1, 1, 1]) + b.view([-1, 1, 1]),
                "c3" => input.conv2d(&(&w * &net.c3.table), Some(&b), 1, 0, 1, 1),
                _ => input.conv2d(&w, Some(&b), 1, 0, 1, 1),
            };
            let expected = brute(&crate::layers::squash(&sums), &[&w, &b, &input], &h.view(sums.size().as_slice()));
            close(&ours[&format!("{name}.weight")], &expected[0]);
            close(&ours[&format!("{name}.bias")], &expected[1]);
            h = expected[2].detach();
        }

        // Were squared gradients the curvature up to a factor, this ratio would be the same everywhere.
        loss.mean(&net.forward(&pixels), &Tensor::from_slice(&[3i64])).unwrap().backward();
        let ratio = var("f6.bias").grad().square() / &ours["f6.bias"];
        assert!(ratio.max().double_value(&[]) > 10.0 * ratio.min().double_value(&[]));
    }

    #[test]
    fn at_a_perfect_answer_the_gradient_is_gone_and_the_curvature_is_not() {
        let codes = crate::bitmaps::codes().to_kind(Kind::Double);
        let h = output(&codes, &codes, Loss::Map { j: 1.0 });
        // All other classes are far: Σp = 1 / (1 + e^{−j}), d = 0 for the right one.
        let expected = 2.0 * (-1f64).exp() / (1.0 + (-1f64).exp());
        assert!((h - expected).abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn the_batch_is_averaged() {
        let (_, net) = network();
        let pixels = Tensor::rand([3, 1, 32, 32], DOUBLE);
        let together = diagonal(&net, &pixels, Loss::Map { j: 50.0 });
        let alone: Vec<_> = (0..3).map(|n| diagonal(&net, &pixels.narrow(0, n, 1), Loss::Map { j: 50.0 })).collect();
        for (name, h) in together {
            let mean = (&alone[0][&name] + &alone[1][&name] + &alone[2][&name]) / 3.0;
            assert!((&h - &mean).abs().max().double_value(&[]) <= 1e-12 * mean.abs().max().double_value(&[]), "{name}");
        }
    }
}

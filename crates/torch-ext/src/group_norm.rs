//! Group normalisation together with the SiLU that follows it.

use tch::Tensor;

use crate::{Result, ffi};

/// group_norm(x), `[N, C, …]` → the same, then SiLU (z/(1 + exp(−z))) if asked for; `weight` and `bias` are `[C]`.
///
/// The values and gradients of libtorch's `group_norm` and `silu`, but for rounding. On the CPU, for channels-last float32 or float64, it walks
/// over its tensors less often, and results do not depend on the number of threads. Half precision with parameters in float32, as autocast has
/// it, is normalised in float32 there.
/// # Errors
/// Shapes, kinds or devices that do not fit together; groups that do not divide the channels.
pub fn group_norm_act(x: &Tensor, groups: i64, weight: &Tensor, bias: &Tensor, eps: f64, silu: bool) -> Result<Tensor> {
    // SAFETY: each `as_ptr` is a live `at::Tensor*`.
    ffi::tensor(unsafe { ffi::ext_group_norm_act(x.as_ptr(), groups, weight.as_ptr(), bias.as_ptr(), eps, silu) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn plain(x: &Tensor, groups: i64, weight: &Tensor, bias: &Tensor, eps: f64, silu: bool) -> Result<Tensor> {
        let y = x.group_norm(groups, Some(weight), Some(bias), eps, true);
        Ok(if silu { y.silu() } else { y })
    }

    type Op = fn(&Tensor, i64, &Tensor, &Tensor, f64, bool) -> Result<Tensor>;

    /// As if drawn uniformly from ±√3, the same in each run.
    fn noise(size: &[i64], seed: f64) -> Tensor {
        let numbers = Tensor::arange(size.iter().product::<i64>(), (Kind::Double, Device::Cpu)) + seed;
        (((numbers * 12.9898).sin() * 43758.5453).frac() * 2.0 - 1.0).view(size) * 3f64.sqrt()
    }

    fn leaf(tensor: &Tensor) -> Tensor {
        tensor.detach().copy().set_requires_grad(true)
    }

    /// y and the gradients of x, weight and bias, of float32 numbers calculated in `kind`.
    fn run(op: Op, x: &Tensor, groups: i64, silu: bool, kind: Kind) -> Vec<Tensor> {
        let place = |tensor: &Tensor| tensor.to_kind(Kind::Float).to_kind(kind);
        let channels = x.size()[1];
        let [x, weight, bias] =
            [x, &(noise(&[channels], 0.1) + 0.5), &noise(&[channels], 0.2)].map(|tensor| leaf(&place(tensor)));
        let y = op(&x, groups, &weight, &bias, 1e-5, silu).unwrap();
        assert_eq!((y.size(), y.kind(), y.stride()), (x.size(), kind, x.stride()));
        (&y * place(&noise(&y.size(), 0.5))).sum(None::<Kind>).backward();
        vec![y.detach(), x.grad(), weight.grad(), bias.grad()]
    }

    fn last(size: &[i64], seed: f64) -> Tensor {
        crate::channels_last(&noise(size, seed)).unwrap()
    }

    /// Float64 to the last digits; float32 as near to float64 as libtorch comes itself.
    #[test]
    fn libtorchs_values_and_gradients() {
        // Widths that fill strips, and that do not; pictures of several parts; one pixel; a group of one channel, one group of all.
        let sizes: [(&[i64], i64); 9] = [
            (&[5, 16, 28, 28], 8),
            (&[3, 48, 14, 14], 8),
            (&[2, 96, 40, 37], 32),
            (&[2, 24, 5, 3], 3),
            (&[1, 7, 100, 101], 7),
            (&[3, 10, 3, 5], 1),
            (&[2, 8, 1, 1], 4),
            (&[1, 320, 16, 16], 32),
            (&[4, 4, 3, 3], 2),
        ];
        for (size, groups) in sizes {
            for (x, silu) in [(last(size, 0.0) * 2.0 + 0.5, false), (last(size, 0.3) * 3.0 - 1.0, true)] {
                let exact = run(plain, &x, groups, silu, Kind::Double);
                let errors = |op: Op, kind: Kind| -> Vec<f64> {
                    let apart = |(found, exact): (&Tensor, &Tensor)| {
                        let scale = exact.abs().max().double_value(&[]).max(1.0);
                        (found - exact).abs().max().double_value(&[]) / scale
                    };
                    run(op, &x, groups, silu, kind).iter().zip(&exact).map(apart).collect()
                };
                let (of_double, of_float) = (errors(group_norm_act, Kind::Double), errors(group_norm_act, Kind::Float));
                let of_libtorch = errors(plain, Kind::Float);
                let told = format!("{size:?} {groups}: {of_double:?}, {of_float:?} ({of_libtorch:?})");
                assert!(of_double.iter().all(|&error| error < 1e-12), "{told}");
                assert!(of_float.iter().zip(&of_libtorch).all(|(ours, theirs)| *ours < 2e-6 + theirs), "{told}");
            }
        }
    }

    /// Far from 0 SiLU is its argument or nothing, and its slope 1 or 0: a logistic function that overflows would be neither.
    #[test]
    fn large_numbers_and_no_numbers() {
        let ends = Tensor::from_slice(&[-1e4, -100.0, -89.0, -88.0, 88.0, 89.0, 100.0, 1e4]).to_kind(Kind::Float);
        let x = crate::channels_last(&Tensor::ones([1, 8, 2, 1], (Kind::Float, Device::Cpu))).unwrap();
        // All of a group alike: the norm is its bias.
        let x = leaf(&x);
        let y = group_norm_act(&x, 8, &ends.ones_like(), &ends, 1e-5, true).unwrap();
        let expected = ends.relu().view([1, 8, 1, 1]);
        assert!((&y - &expected).abs().max().double_value(&[]) < 1e-30);
        y.sum(Kind::Float).backward();
        assert_eq!(x.grad().isfinite().all().int64_value(&[]), 1);
        let _ = x.detach().get(0).get(3).get(1).fill_(f64::NAN);
        let y = group_norm_act(&x, 2, &ends.ones_like(), &ends, 1e-5, true).unwrap();
        assert_eq!(y.isnan().sum(Kind::Int64).int64_value(&[]), 8);
    }

    #[test]
    fn a_mean_far_from_zero_costs_no_digits_of_the_variance() {
        let x = (last(&[2, 8, 30, 31], 0.0) + 5000.0).to_kind(Kind::Float);
        let of = |op: Op, x: &Tensor| {
            let ones = Tensor::ones([8], (x.kind(), Device::Cpu));
            op(x, 2, &ones, &ones, 1e-5, false).unwrap().to_kind(Kind::Double)
        };
        let exact = of(plain, &x.to_kind(Kind::Double));
        // But the mean is kept in float32, whose numbers are 5e-4 apart there.
        assert!((of(group_norm_act, &x) - exact).abs().max().double_value(&[]) < 5e-4);
    }

    #[test]
    fn second_derivatives() {
        for silu in [false, true] {
            let [ours, theirs] = [group_norm_act, plain].map(|op: Op| {
                let [x, weight, bias] =
                    [last(&[3, 6, 3, 5], 0.0), noise(&[6], 0.1), noise(&[6], 0.2)].map(|tensor| leaf(&tensor));
                let loss = op(&x, 3, &weight, &bias, 1e-5, silu).unwrap().pow_tensor_scalar(3).sum(None::<Kind>);
                let first = Tensor::run_backward(&[loss], &[&x, &weight], true, true);
                (first[0].square().sum(None::<Kind>) + first[1].square().sum(None::<Kind>)).backward();
                [x.grad(), weight.grad(), bias.grad()]
            });
            for (ours, theirs) in ours.iter().zip(&theirs) {
                let scale = theirs.abs().max().double_value(&[]).max(1.0);
                assert!((ours - theirs).abs().max().double_value(&[]) < 1e-10 * scale);
            }
        }
    }

    #[test]
    fn only_what_was_asked_for_has_a_gradient() {
        // Where x takes none, libtorch's own follows a null pointer if channels are last.
        let layouts: [(Op, Tensor); 2] =
            [(group_norm_act, last(&[3, 6, 3, 5], 0.0)), (plain, noise(&[3, 6, 3, 5], 0.0))];
        for asked in 0..3 {
            let [ours, theirs] = layouts.each_ref().map(|(op, x)| {
                let leaves = [x, &noise(&[6], 0.1), &noise(&[6], 0.2)].map(leaf);
                leaves.iter().enumerate().for_each(|(which, leaf)| drop(leaf.set_requires_grad(which == asked)));
                let [x, weight, bias] = &leaves;
                op(x, 2, weight, bias, 1e-5, true).unwrap().square().sum(None::<Kind>).backward();
                leaves[asked].grad()
            });
            assert!((ours - theirs).abs().max().double_value(&[]) < 1e-11);
        }
    }

    #[test]
    fn results_do_not_depend_on_threads() {
        let before = tch::get_num_threads();
        for size in [[40, 16, 28, 28], [1, 16, 200, 100]] {
            let [one, two, five] = [1, 2, 5].map(|threads| {
                tch::set_num_threads(threads);
                run(group_norm_act, &last(&size, 0.0), 4, true, Kind::Float)
            });
            for ((one, two), five) in one.iter().zip(&two).zip(&five) {
                assert!(one.equal(two) && one.equal(five));
            }
        }
        tch::set_num_threads(before);
    }

    /// The usual layout, other ranks and half precision alone go to libtorch; half precision as autocast has it is rounded once at the end.
    #[test]
    fn other_kinds_and_places_in_memory() {
        let (weight, bias) = (noise(&[6], 0.1), noise(&[6], 0.2));
        for x in [noise(&[3, 6, 4, 5], 0.0), noise(&[3, 6, 7], 0.0), noise(&[3, 6], 0.0)] {
            let [ours, theirs] = [group_norm_act, plain].map(|op: Op| op(&x, 2, &weight, &bias, 1e-5, true).unwrap());
            assert!(ours.equal(&theirs));
        }
        let single = |tensor: &Tensor| tensor.to_kind(Kind::Float);
        let x = last(&[3, 6, 4, 5], 0.0).to_kind(Kind::BFloat16);
        let y = group_norm_act(&x, 2, &single(&weight), &single(&bias), 1e-5, true).unwrap();
        let wide = group_norm_act(&single(&x), 2, &single(&weight), &single(&bias), 1e-5, true).unwrap();
        assert!(y.kind() == Kind::BFloat16 && y.equal(&wide.to_kind(Kind::BFloat16)));
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let (weight, bias) = (noise(&[6], 0.1), noise(&[6], 0.2));
        let x = last(&[2, 6, 3, 3], 0.0);
        for groups in [4, 0, -1] {
            assert!(group_norm_act(&x, groups, &weight, &bias, 1e-5, true).is_err(), "{groups}");
        }
        assert!(group_norm_act(&last(&[2, 8, 3, 3], 0.0), 2, &weight, &bias, 1e-5, true).is_err());
        assert!(group_norm_act(&x.get(0).get(0).get(0), 1, &weight, &bias, 1e-5, true).is_err());
    }
}

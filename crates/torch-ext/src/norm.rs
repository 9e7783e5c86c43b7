//! Batch normalisation together with what follows it.

use std::ptr;

use tch::Tensor;

use crate::{Result, ffi};

/// The tensors `[C]` and numbers of a batch normalisation.
#[derive(Debug, Clone, Copy)]
pub struct BatchNorm<'a> {
    /// The scale.
    pub weight: &'a Tensor,
    /// The shift.
    pub bias: &'a Tensor,
    /// Moving average of the batches' means.
    pub running_mean: &'a Tensor,
    /// Moving average of the batches' unbiased variances.
    pub running_var: &'a Tensor,
    /// Whether the batch's own statistics normalise, or the running ones.
    pub train: bool,
    /// Whether the batch's statistics move the running ones. Only in training.
    pub update: bool,
    /// Weight of the present batch in the running statistics.
    pub momentum: f64,
    /// Added to the variance.
    pub eps: f64,
}

/// relu(batch_norm(x) + shortcut), `[N, C, …]` → the same; each of sum and rectifier only if asked for.
///
/// The values and gradients of `batch_norm`, `+` and `relu`, but for rounding. In training on the CPU, for contiguous or channels-last
/// float32 or float64, it walks over its tensors less often, and results do not depend on the number of threads.
/// # Errors
/// Shapes, kinds or devices that do not fit together; in training, a single value for each channel.
pub fn batch_norm_act(x: &Tensor, norm: &BatchNorm, shortcut: Option<&Tensor>, relu: bool) -> Result<Tensor> {
    let &BatchNorm { weight, bias, running_mean, running_var, train, update, momentum, eps } = norm;
    let shortcut = shortcut.map_or(ptr::null(), Tensor::as_ptr);
    // SAFETY: each `as_ptr` is a live `at::Tensor*`; the C side takes null for no shortcut.
    ffi::tensor(unsafe {
        ffi::ext_batch_norm_act(
            x.as_ptr(),
            weight.as_ptr(),
            bias.as_ptr(),
            running_mean.as_ptr(),
            running_var.as_ptr(),
            train,
            update,
            momentum,
            eps,
            shortcut,
            relu,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    /// The same by libtorch's own operations.
    fn plain(x: &Tensor, norm: &BatchNorm, shortcut: Option<&Tensor>, relu: bool) -> Result<Tensor> {
        // Without running statistics the batch's serve, and nothing moves.
        let running = norm.update || !norm.train;
        let mean = running.then_some(norm.running_mean);
        let var = running.then_some(norm.running_var);
        let y = x.batch_norm(Some(norm.weight), Some(norm.bias), mean, var, norm.train, norm.momentum, norm.eps, false);
        let y = shortcut.map_or(y.shallow_clone(), |shortcut| y + shortcut);
        Ok(if relu { y.relu() } else { y })
    }

    /// As if drawn uniformly from ±√3, the same in each run: a float32 value right at a rectifier's corner would be no error.
    fn noise(size: &[i64], seed: f64) -> Tensor {
        let numbers = Tensor::arange(size.iter().product::<i64>(), (Kind::Double, Device::Cpu)) + seed;
        (((numbers * 12.9898).sin() * 43758.5453).frac() * 2.0 - 1.0).view(size) * 3f64.sqrt()
    }

    /// What a test holds against the other implementation.
    struct Case {
        /// Rounded to float32, in float64.
        x: Tensor,
        shortcut: Option<Tensor>,
        relu: bool,
        train: bool,
        update: bool,
    }

    type Op = fn(&Tensor, &BatchNorm, Option<&Tensor>, bool) -> Result<Tensor>;

    impl Case {
        fn new(x: &Tensor, shortcut: bool, relu: bool) -> Self {
            let shortcut = shortcut.then(|| x.zeros_like() + noise(&x.size(), 0.25));
            Case { x: x.shallow_clone(), shortcut, relu, train: true, update: true }
        }

        /// y, the gradients of x, weight, bias and shortcut, and the running statistics afterwards.
        fn run(&self, op: Op, kind: Kind) -> Vec<Tensor> {
            let place = |tensor: &Tensor| tensor.to_kind(Kind::Float).to_kind(kind);
            let ramp =
                |from: f64, to: f64| place(&Tensor::linspace(from, to, self.x.size()[1], (Kind::Double, Device::Cpu)));
            let leaf = |tensor: Tensor| tensor.detach().copy().set_requires_grad(true);
            let (x, weight, bias) = (leaf(place(&self.x)), leaf(ramp(-0.5, 2.0)), leaf(ramp(0.7, -0.3)));
            let shortcut = self.shortcut.as_ref().map(|shortcut| leaf(place(shortcut)));
            let (running_mean, running_var) = (ramp(-0.2, 0.2), ramp(0.5, 1.5));
            let norm = BatchNorm {
                weight: &weight,
                bias: &bias,
                running_mean: &running_mean,
                running_var: &running_var,
                train: self.train,
                update: self.update,
                momentum: 0.1,
                eps: 1e-5,
            };
            let y = op(&x, &norm, shortcut.as_ref(), self.relu).unwrap();
            assert_eq!((y.size(), y.kind(), y.stride()), (x.size(), kind, x.stride()));
            (&y * place(&noise(&y.size(), 0.5))).sum(None::<Kind>).backward();
            let mut all = vec![y.detach(), x.grad(), weight.grad(), bias.grad()];
            all.extend(shortcut.map(|shortcut| shortcut.grad()));
            all.extend([running_mean, running_var]);
            all
        }

        /// Float64 to the last digits; float32 as near to float64 as libtorch comes itself.
        fn agrees(&self) {
            let exact = self.run(plain, Kind::Double);
            let errors = |op: Op, kind: Kind| -> Vec<f64> {
                let apart = |(found, exact): (&Tensor, &Tensor)| {
                    let scale = exact.abs().max().double_value(&[]).max(1.0);
                    (found - exact).abs().max().double_value(&[]) / scale
                };
                self.run(op, kind).iter().zip(&exact).map(apart).collect()
            };
            let (of_double, of_float) = (errors(batch_norm_act, Kind::Double), errors(batch_norm_act, Kind::Float));
            let of_libtorch = errors(plain, Kind::Float);
            let told =
                format!("{:?} {:?}: {of_double:?}, {of_float:?} ({of_libtorch:?})", self.x.size(), self.x.stride());
            assert!(of_double.iter().all(|&error| error < 1e-12), "{told}");
            assert!(of_float.iter().zip(&of_libtorch).all(|(ours, theirs)| *ours < 2e-6 + theirs), "{told}");
        }
    }

    fn layouts(x: &Tensor) -> Vec<Tensor> {
        let mut all = vec![x.shallow_clone()];
        if x.dim() == 4 {
            all.push(crate::channels_last(x).unwrap());
        }
        all
    }

    #[test]
    fn libtorchs_values_gradients_and_statistics() {
        let sizes: [&[i64]; 14] = [
            // Several parts and threads in both layouts; a plane of more than a tile.
            &[40, 16, 28, 28],
            &[3, 2, 150, 130],
            &[2, 1, 200, 200],
            &[300, 96, 7, 7],
            // Widths that fill strips, and that do not.
            &[5, 64, 3, 3],
            &[4, 72, 5, 3],
            &[3, 10, 5, 7],
            &[7, 3, 1, 1],
            &[2, 5, 1, 3],
            &[9, 1, 3, 3],
            &[1, 2, 1, 2],
            // Other ranks.
            &[200, 130],
            &[6, 3, 11],
            &[2, 3, 4, 5, 6],
        ];
        for size in sizes {
            for x in layouts(&(noise(size, 0.0) * 2.0 + 0.5)) {
                for (shortcut, relu) in [(false, false), (false, true), (true, false), (true, true)] {
                    Case::new(&x, shortcut, relu).agrees();
                }
            }
        }
    }
    #[test]
    fn the_second_pass_and_evaluation() {
        for x in layouts(&(noise(&[6, 5, 4, 3], 0.0) + 2.0)) {
            let mut case = Case { update: false, ..Case::new(&x, true, true) };
            case.agrees();
            case.train = false;
            case.agrees();
            // Without gradients evaluation is one walk.
            let _no_grad = tch::no_grad_guard();
            let inputs = Inputs::new(&x);
            for (shortcut, relu) in [(None, true), (Some(&inputs.shortcut), true), (Some(&inputs.shortcut), false)] {
                let [ours, theirs] =
                    [batch_norm_act, plain].map(|op| op(&x, &inputs.norm(false), shortcut, relu).unwrap());
                assert!((ours - theirs).abs().max().double_value(&[]) < 1e-12);
            }
        }
    }

    /// A small batch and what goes with it, in float64.
    struct Inputs {
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        shortcut: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
    }

    impl Inputs {
        fn new(x: &Tensor) -> Self {
            let channels = x.size()[1];
            Inputs {
                x: x.shallow_clone(),
                weight: noise(&[channels], 0.1) + 0.5,
                bias: noise(&[channels], 0.2),
                shortcut: noise(&x.size(), 0.3),
                running_mean: noise(&[channels], 0.4),
                running_var: noise(&[channels], 0.6).exp(),
            }
        }

        /// Each of the inputs that have gradients as a leaf.
        fn leaves(&self) -> Self {
            let leaf = |tensor: &Tensor| tensor.detach().copy().set_requires_grad(true);
            let (x, weight, bias, shortcut) =
                (leaf(&self.x), leaf(&self.weight), leaf(&self.bias), leaf(&self.shortcut));
            Inputs {
                x,
                weight,
                bias,
                shortcut,
                running_mean: self.running_mean.shallow_clone(),
                running_var: self.running_var.shallow_clone(),
            }
        }

        fn tensors(&self) -> [&Tensor; 4] {
            [&self.x, &self.weight, &self.bias, &self.shortcut]
        }

        fn norm(&self, train: bool) -> BatchNorm<'_> {
            BatchNorm {
                weight: &self.weight,
                bias: &self.bias,
                running_mean: &self.running_mean,
                running_var: &self.running_var,
                train,
                update: false,
                momentum: 0.1,
                eps: 1e-5,
            }
        }

        fn apply(&self, op: Op, shortcut: bool, relu: bool) -> Tensor {
            op(&self.x, &self.norm(true), shortcut.then_some(&self.shortcut), relu).unwrap()
        }
    }

    #[test]
    fn gradients_are_differences_of_values() {
        for x in layouts(&noise(&[3, 2, 3, 5], 0.0)) {
            for (shortcut, relu) in [(false, true), (true, true), (true, false)] {
                let inputs = Inputs::new(&x);
                let loss = |inputs: &Inputs| {
                    (inputs.apply(batch_norm_act, shortcut, relu) * noise(&x.size(), 0.8)).sum(None::<Kind>)
                };
                let leaves = inputs.leaves();
                loss(&leaves).backward();
                for (which, leaf) in leaves.tensors().into_iter().enumerate().take(if shortcut { 4 } else { 3 }) {
                    let way = noise(&leaf.size(), 0.9);
                    let moved = |by: f64| {
                        let there = inputs.leaves();
                        let _no_grad = tch::no_grad_guard();
                        let _ = there.tensors()[which].shallow_clone().g_add_(&(&way * by));
                        loss(&there).double_value(&[])
                    };
                    let step = 1e-6;
                    let difference = (moved(step) - moved(-step)) / (2.0 * step);
                    let slope = (leaf.grad() * &way).sum(None::<Kind>).double_value(&[]);
                    assert!((difference - slope).abs() < 1e-7 * slope.abs().max(1.0), "{which}: {difference} {slope}");
                }
            }
        }
    }

    #[test]
    fn second_derivatives() {
        for (shortcut, relu) in [(false, false), (false, true), (true, true)] {
            let inputs = Inputs::new(&noise(&[3, 2, 3, 5], 0.0));
            let [ours, theirs] = [batch_norm_act, plain].map(|op| {
                let leaves = inputs.leaves();
                let loss = leaves.apply(op, shortcut, relu).pow_tensor_scalar(3).sum(None::<Kind>);
                let first = Tensor::run_backward(&[loss], &[&leaves.x, &leaves.weight], true, true);
                (first[0].square().sum(None::<Kind>) + first[1].square().sum(None::<Kind>)).backward();
                leaves.tensors().map(|leaf| leaf.grad())
            });
            for (ours, theirs) in ours.iter().zip(&theirs).take(if shortcut { 4 } else { 3 }) {
                let scale = theirs.abs().max().double_value(&[]).max(1.0);
                assert!((ours - theirs).abs().max().double_value(&[]) < 1e-10 * scale);
            }
        }
    }

    #[test]
    fn only_what_was_asked_for_has_a_gradient() {
        let inputs = Inputs::new(&noise(&[3, 2, 3, 5], 0.0));
        for asked in 0..4 {
            let [ours, theirs] = [batch_norm_act, plain].map(|op| {
                let leaves = inputs.leaves();
                for (which, leaf) in leaves.tensors().into_iter().enumerate() {
                    let _ = leaf.set_requires_grad(which == asked);
                }
                leaves.apply(op, true, true).square().sum(None::<Kind>).backward();
                leaves.tensors()[asked].grad()
            });
            assert!((ours - theirs).abs().max().double_value(&[]) < 1e-11);
        }
    }

    #[test]
    fn results_do_not_depend_on_threads() {
        for x in layouts(&noise(&[40, 6, 28, 28], 0.0)) {
            let case = Case::new(&x, true, true);
            let before = tch::get_num_threads();
            let [one, two, five] = [1, 2, 5].map(|threads| {
                tch::set_num_threads(threads);
                case.run(batch_norm_act, Kind::Float)
            });
            tch::set_num_threads(before);
            for ((one, two), five) in one.iter().zip(&two).zip(&five) {
                assert!(one.equal(two) && one.equal(five));
            }
        }
    }

    #[test]
    fn a_mean_far_from_zero_costs_no_digits_of_the_variance() {
        // The mean of the squares less the square of the mean would be off by more than the variance in float32.
        let x = (noise(&[64, 3, 16, 16], 0.0) + 5000.0).to_kind(Kind::Float);
        for x in layouts(&x) {
            let inputs = Inputs::new(&x);
            let [mean, var] = [0.0, 1.0].map(|value| Tensor::full([3], value, (Kind::Float, Device::Cpu)));
            let (weight, bias) = (inputs.weight.to_kind(Kind::Float), inputs.bias.to_kind(Kind::Float));
            let norm = BatchNorm {
                weight: &weight,
                bias: &bias,
                running_mean: &mean,
                running_var: &var,
                update: true,
                momentum: 1.0,
                ..inputs.norm(true)
            };
            let _ = batch_norm_act(&x, &norm, None, true).unwrap();
            let exact = x.to_kind(Kind::Double).var_dim([0_i64, 2, 3].as_slice(), true, false);
            assert!(((var - &exact) / exact).abs().max().double_value(&[]) < 1e-5);
        }
    }

    #[test]
    fn other_kinds_and_places_in_memory_go_to_libtorch() {
        let x = noise(&[4, 3, 6, 5], 0.0);
        let inputs = Inputs::new(&x);
        // Neither layout; another layout of the shortcut, which is ours to handle.
        let turned = Inputs { x: x.transpose(2, 3), shortcut: inputs.shortcut.transpose(2, 3), ..inputs.leaves() };
        let mixed = Inputs { shortcut: crate::channels_last(&inputs.shortcut).unwrap(), ..inputs.leaves() };
        for inputs in [turned, mixed] {
            let [ours, theirs] = [batch_norm_act, plain].map(|op| inputs.apply(op, true, true));
            assert!((ours - theirs).abs().max().double_value(&[]) < 1e-12);
        }
        // A broadcast shortcut.
        let broadcast = Inputs { shortcut: inputs.shortcut.narrow(0, 0, 1), ..inputs.leaves() };
        let [ours, theirs] = [batch_norm_act, plain].map(|op| broadcast.apply(op, true, true));
        assert!(ours.equal(&theirs));
        let half = |tensor: &Tensor| tensor.to_kind(Kind::BFloat16);
        let (x, shortcut, leaves) = (half(&inputs.x), half(&inputs.shortcut), inputs.leaves());
        let (weight, bias) = (half(&leaves.weight), half(&leaves.bias));
        let (mean, var) = (half(&leaves.running_mean), half(&leaves.running_var));
        let norm =
            BatchNorm { weight: &weight, bias: &bias, running_mean: &mean, running_var: &var, ..inputs.norm(true) };
        let [ours, theirs] = [batch_norm_act, plain].map(|op| op(&x, &norm, Some(&shortcut), true).unwrap());
        assert!(ours.equal(&theirs) && ours.kind() == Kind::BFloat16);
    }

    #[test]
    fn not_a_number_stays_one() {
        let x = noise(&[3, 2, 3, 5], 0.0);
        let _ = x.get(0).get(0).get(0).get(0).fill_(f64::NAN);
        for x in layouts(&x) {
            let y = Inputs::new(&x).apply(batch_norm_act, false, true);
            assert_eq!(y.isnan().sum(Kind::Int64).int64_value(&[]), 45);
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let inputs = Inputs::new(&noise(&[1, 3, 1, 1], 0.0));
        let refused = batch_norm_act(&inputs.x, &inputs.norm(true), None, true).unwrap_err().to_string();
        assert!(refused.contains("more than 1 value per channel") && refused.contains("[1, 3, 1, 1]"), "{refused}");
        assert!(batch_norm_act(&inputs.x, &inputs.norm(false), None, true).is_ok());
        // More channels than the norm has; none.
        for size in [&[2, 4, 3, 3][..], &[3]] {
            assert!(batch_norm_act(&noise(size, 0.0), &inputs.norm(true), None, true).is_err());
        }
        let x = noise(&[2, 3, 3, 3], 0.0);
        assert!(batch_norm_act(&x, &inputs.norm(true), Some(&noise(&[2, 3, 4, 3], 0.0)), true).is_err());
    }
}

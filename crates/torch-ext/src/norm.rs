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
}

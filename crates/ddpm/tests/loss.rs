//! The losses and the bound, in float64 against slow sums and closed forms.

use std::f64::consts::LN_2;

use ddpm::loss::{Bound, Loss};
use ddpm::process::{Objective, Process, Variance};
use ddpm::schedule::{Betas, Schedule};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

fn process(steps: usize, variance: Variance) -> Process {
    Process { schedule: Schedule::new(Betas::Linear, steps), objective: Objective::Epsilon, variance }
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).contiguous().view(-1)).unwrap()
}

fn row(values: &[f64]) -> Tensor {
    Tensor::from_slice(values).view([1, 1, 1, -1])
}

fn at(t: i64) -> Tensor {
    Tensor::from_slice(&[t])
}

/// Eq. 13: whatever mean and variance, the 256 levels of a pixel have probabilities that sum to 1.
#[test]
fn the_decoder_s_bins_sum_to_1() {
    let process = process(1000, Variance::Large);
    for (seed, x_t) in [(1, 0.3), (2, -0.999), (3, 1.4)] {
        tch::manual_seed(seed);
        let output = Tensor::randn([1, 1, 1, 1], (Kind::Double, Device::Cpu));
        let x_t = row(&[x_t]);
        let reverse = process.reverse(&output, &x_t, &at(0), false).unwrap();
        let levels = (0..256).map(|level| f64::from(level) / 127.5 - 1.0);
        let nats =
            levels.map(|level| numbers(&process.term(&reverse, &row(&[level]), &x_t, &at(0)).unwrap())[0] * LN_2);
        let sum: f64 = nats.map(|nats| (-nats).exp()).sum();
        // Each of them is at least 1e-12.
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    }
}

/// Eq. 5, 7 and 8, number by number.
#[test]
fn a_term_is_the_divergence_of_two_normals() {
    for variance in [Variance::Large, Variance::Small] {
        let process = process(50, variance);
        let (x0, x_t, eps) = ([0.1, -0.7, 0.9], [0.4, -1.2, 0.2], [0.3, 0.1, -0.8]);
        for t in [1_usize, 7, 49] {
            let reverse = process.reverse(&row(&eps), &row(&x_t), &at(t as i64), false).unwrap();
            let term = numbers(&process.term(&reverse, &row(&x0), &row(&x_t), &at(t as i64)).unwrap());
            let (beta, bar) = (process.schedule.beta[t], process.schedule.alpha_bar[t]);
            let before = process.schedule.alpha_bar[t - 1];
            let mean = |x0: f64, x: f64| {
                before.sqrt() * beta / (1.0 - bar) * x0 + (1.0 - beta).sqrt() * (1.0 - before) / (1.0 - bar) * x
            };
            let true_variance = (1.0 - before) / (1.0 - bar) * beta;
            let ours = if variance == Variance::Large { beta } else { true_variance };
            let slow = (0..3).map(|i| {
                let told = (x_t[i] - (1.0 - bar).sqrt() * eps[i]) / bar.sqrt();
                let apart = mean(x0[i], x_t[i]) - mean(told, x_t[i]);
                0.5 * ((ours / true_variance).ln() + (true_variance + apart * apart) / ours - 1.0)
            });
            let slow = slow.sum::<f64>() / 3.0 / LN_2;
            assert!((term[0] - slow).abs() < 1e-12 * slow.max(1.0), "{t}: {} {slow}", term[0]);
        }
    }
}

/// A network that knows the one picture there is has no cost but the prior's and the decoder's.
#[test]
fn a_perfect_network_costs_nothing_on_the_way() {
    let process = process(100, Variance::Small);
    let x0 = (Tensor::arange(24, (Kind::Double, Device::Cpu)) * 10.0 / 127.5 - 1.0).view([2, 1, 3, 4]);
    let schedule = process.schedule.clone();
    let bound = process
        .bound(
            &x0,
            &mut |x_t, t| {
                let bar = |f: fn(f64) -> f64| schedule.at(t, x_t, |t| f(schedule.alpha_bar[t]));
                Ok((x_t - &x0 * bar(f64::sqrt)?) / bar(|bar| (1.0 - bar).sqrt())?)
            },
            &mut |t| {
                tch::manual_seed(t as i64);
                Ok(x0.randn_like())
            },
        )
        .unwrap();
    assert_eq!((bound.terms.len(), bound.rmse.len()), (100, 100));
    assert!(bound.terms[1..].iter().all(|term| term.abs() < 1e-9), "{:?}", &bound.terms[..4]);
    assert!(bound.rmse.iter().all(|rmse| *rmse < 1e-6));
    let bar = schedule.alpha_bar[99];
    let square = numbers(&x0.square().mean(Kind::Double))[0];
    let prior = 0.5 * (bar * square - bar - (1.0 - bar).ln()) / LN_2;
    assert!((bound.prior - prior).abs() < 1e-12, "{} {prior}", bound.prior);
    assert!((bound.total() - prior - bound.distortion()).abs() < 1e-9);
}

/// §4.3: what is told last is the whole rate, and rates only grow.
#[test]
fn progressive_coding_ends_in_the_rate() {
    let bound = Bound { prior: 0.1, terms: vec![0.5, 0.2, 0.3], rmse: vec![1.0, 2.0, 3.0] };
    let told = bound.progressive();
    assert_eq!(told.iter().map(|(_, rmse)| *rmse).collect::<Vec<_>>(), [3.0, 2.0, 1.0]);
    assert!((told[0].0 - 0.1).abs() < 1e-12 && (told[1].0 - 0.4).abs() < 1e-12);
    assert!((told[2].0 - bound.rate()).abs() < 1e-12 && (bound.total() - 1.1).abs() < 1e-12);
}

/// L_hybrid's second part teaches v and leaves the mean alone (Improved DDPM, §3.1).
#[test]
fn hybrid_moves_the_mean_by_l_simple_alone() {
    let process = process(1000, Variance::Learned);
    tch::manual_seed(5);
    let draw = |channels: i64| Tensor::randn([3, channels, 2, 2], (Kind::Double, Device::Cpu));
    let (x0, noise, output) = (draw(1).clamp(-1.0, 1.0), draw(1), draw(2));
    let t = Tensor::from_slice(&[0_i64, 20, 999]);
    let x_t = process.noised(&x0, &noise, &t).unwrap();
    let gradient = |loss: Loss| {
        let output = output.detach().set_requires_grad(true);
        let losses = process.losses(loss, &output, &x0, &x_t, &noise, &t).unwrap();
        losses.loss.mean(Kind::Double).backward();
        let mean = |x: &Tensor| numbers(&x.mean(Kind::Double))[0];
        (output.grad(), mean(&losses.loss), mean(&losses.simple), losses.vlb.as_ref().map(mean))
    };
    let (hybrid, loss, simple, vlb) = gradient(Loss::Hybrid);
    let (of_simple, _, alone, none) = gradient(Loss::Simple);
    let (of_vlb, whole, _, _) = gradient(Loss::Vlb);
    assert_eq!((none, alone), (None, simple));
    assert!((loss - simple - 0.001 * vlb.unwrap()).abs() < 1e-12 && (whole - vlb.unwrap()).abs() < 1e-12);
    let close = |a: &Tensor, b: &Tensor| numbers(&(a - b).abs().max())[0] < 1e-12;
    assert!(close(&hybrid.narrow(1, 0, 1), &of_simple.narrow(1, 0, 1)));
    assert!(close(&hybrid.narrow(1, 1, 1), &(of_vlb.narrow(1, 1, 1) * 0.001)));
    assert!(numbers(&of_vlb.narrow(1, 0, 1).abs().max())[0] > 1e-6, "L_vlb alone teaches the mean as well");
    assert!(numbers(&hybrid.narrow(1, 1, 1).abs().max())[0] > 1e-12);
}

proptest! {
    /// Eq. 14 with each objective: what is asked for costs nothing.
    #[test]
    fn the_target_itself_has_no_loss(seed in 0_i64..1000, t in 0_i64..1000, which in 0..3) {
        let objective = [Objective::Epsilon, Objective::X0, Objective::V][which as usize];
        let process = Process { objective, ..process(1000, Variance::Small) };
        tch::manual_seed(seed);
        let draw = || Tensor::randn([1, 1, 2, 3], (Kind::Double, Device::Cpu));
        let (x0, noise) = (draw(), draw());
        let x_t = process.noised(&x0, &noise, &at(t)).unwrap();
        let target = process.target(&x0, &noise, &at(t)).unwrap();
        let losses = process.losses(Loss::Simple, &target, &x0, &x_t, &noise, &at(t)).unwrap();
        prop_assert_eq!(numbers(&losses.loss)[0], 0.0);
        let told = process.told(&target, &x_t, &at(t), false).unwrap();
        prop_assert!(numbers(&(told.x0 - x0).abs().max())[0] < 1e-9);
        prop_assert!(numbers(&(told.eps - noise).abs().max())[0] < 1e-9);
    }
}

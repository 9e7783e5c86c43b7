//! The equations of DDPM (§§2 to 4), Improved DDPM and DDIM, each evaluated slowly, number by number in float64, against the library.

use std::f64::consts::{LN_2, PI};

use ddpm::loss::Loss;
use ddpm::process::{Objective, Process, Variance};
use ddpm::schedule::{Betas, Schedule};
use ddpm::solver::{ancestral, ddim};
use repro::golden;
use tch::{Kind, Tensor};

const SHAPE: [i64; 4] = [2, 3, 2, 2];

fn process(variance: Variance) -> Process {
    Process { schedule: Schedule::new(Betas::Linear, 1000), objective: Objective::Epsilon, variance }
}

fn numbers(x: &Tensor) -> Vec<f64> {
    Vec::try_from(x.to_kind(Kind::Double).flatten(0, -1)).unwrap()
}

fn near(found: f64, wanted: f64, tolerance: f64) {
    assert!((found - wanted).abs() <= tolerance * wanted.abs().max(1e-3), "{found} and not {wanted}");
}

/// All numbers of a tensor against a function of their place.
fn all_near(found: &Tensor, wanted: impl Fn(usize) -> f64) {
    numbers(found).into_iter().enumerate().for_each(|(place, found)| near(found, wanted(place), 1e-10));
}

/// `[N]` times t.
fn at(n: i64, t: usize) -> Tensor {
    Tensor::full([n], t as i64, (Kind::Int64, tch::Device::Cpu))
}

/// β_t for t from 0 of T = 1000 as §4 has it, and ᾱ_t, each product anew.
fn beta(t: usize) -> f64 {
    1e-4 + (0.02 - 1e-4) * t as f64 / 999.0
}

fn bar(t: usize) -> f64 {
    (0..=t).map(|s| 1.0 - beta(s)).product()
}

/// x_0, ε and an answer of the network: the same numbers as tensors and apart.
fn case() -> ([Tensor; 3], [Vec<f64>; 3]) {
    let tensors = ["x0", "noise", "answer"].map(|name| golden::input(name, &SHAPE));
    let apart = [0, 1, 2].map(|k| numbers(&tensors[k]));
    (tensors, apart)
}

/// ∫ f over [a, b] by Simpson's rule at `count` + 1 places, `count` being even.
fn integral(a: f64, b: f64, count: usize, f: impl Fn(f64) -> f64) -> f64 {
    let step = (b - a) / count as f64;
    let weight = |k: usize| if k == 0 || k == count { 1.0 } else { 2.0 + 2.0 * (k % 2) as f64 };
    (0..=count).map(|k| weight(k) * f(a + step * k as f64)).sum::<f64>() * step / 3.0
}

/// N(x; μ, σ²)
fn normal(x: f64, mean: f64, variance: f64) -> f64 {
    (-(x - mean).powi(2) / (2.0 * variance)).exp() / (2.0 * PI * variance).sqrt()
}

#[test]
fn golden_values_of_schedules() {
    let linear = Schedule::new(Betas::Linear, 1000);
    for (t, wanted) in [
        (0, 0.9999),
        (1, 0.99978009207),
        (99, 0.8970181),
        (249, 0.5240854),
        (499, 0.07858724),
        (500, 0.07779665837),
        (749, 0.003350550),
        (999, 4.035829765e-5),
    ] {
        assert!((linear.alpha_bar[t] / wanted - 1.0).abs() < 2e-7, "{t}");
        near(linear.beta[t], beta(t), 1e-12);
        near(linear.alpha_bar[t] / bar(t), 1.0, 1e-12);
    }
    for (t, variance, x0, xt) in [
        (0, 0.0, 1.0, 0.0),
        (1, 5.45318766e-5, 0.5452914995, 0.4547084990),
        (500, 0.0100513358, 0.0030580571, 0.9941043508),
        (999, 0.0199999835, 1.28351487e-4, 0.9899486783),
    ] {
        let found = linear.posterior(t);
        for (found, wanted) in [(found.variance, variance), (found.x0, x0), (found.xt, xt)] {
            assert!((found - wanted).abs() < 1e-9 * wanted.max(0.05), "{t}: {found} and not {wanted}");
        }
    }
    let cosine = Schedule::new(Betas::Cosine, 1000);
    for (found, wanted) in [
        (cosine.beta[0], 4.128422482e-5),
        (cosine.beta[1], 4.614175274e-5),
        (cosine.beta[500], 0.0031556914),
        (cosine.beta[998], 0.7499993929),
        (cosine.beta[999], 0.999),
        (cosine.alpha_bar[0], 0.9999587158),
        (cosine.alpha_bar[500], 0.4922851724),
        (cosine.alpha_bar[999], 2.4287669e-9),
    ] {
        // As many digits as are given.
        assert!((found / wanted - 1.0).abs() < 2e-8, "{found} and not {wanted}");
    }
    let long = Schedule::new(Betas::Cosine, 4000);
    for (found, wanted) in [
        (long.beta[0], 9.8658188e-6),
        (long.beta[2000], 7.8893555e-4),
        (long.alpha_bar[2000], 0.4934539797),
        (long.alpha_bar[3999], 1.51798e-10),
    ] {
        assert!((found / wanted - 1.0).abs() < 3e-6, "{found} and not {wanted}");
    }
}

/// Eq. 2, step by step: of x_0 as it was √(1 − β) of √(1 − β) … is left, and each step shrinks the noise of those before and adds its own. Eq. 4 has
/// it at once.
#[test]
fn equations_2_and_4_the_forward_process() {
    let process = process(Variance::Large);
    let ([x0, noise, _], [x, eps, _]) = case();
    let (mut mean, mut variance) = (1.0, 0.0);
    for t in 0..1000 {
        mean *= (1.0 - beta(t)).sqrt();
        variance = (1.0 - beta(t)) * variance + beta(t);
        if t % 111 == 0 {
            let x_t = process.noised(&x0, &noise, &at(2, t)).unwrap();
            all_near(&x_t, |k| mean * x[k] + variance.sqrt() * eps[k]);
        }
    }
    // Each picture of a batch has its own t.
    let mixed = process.noised(&x0, &noise, &Tensor::from_slice(&[3_i64, 700])).unwrap();
    all_near(&mixed, |k| {
        let bar = bar([3, 700][k / 12]);
        bar.sqrt() * x[k] + (1.0 - bar).sqrt() * eps[k]
    });
}

/// Eqs. 6 and 7 by Bayes' rule: q(x_{t−1} | x_t, x_0) is as q(x_t | x_{t−1}) q(x_{t−1} | x_0), whose precisions add up.
#[test]
fn equations_6_and_7_the_posterior() {
    let schedule = Schedule::new(Betas::Linear, 1000);
    for t in [1, 2, 10, 500, 998, 999] {
        let (alpha, before) = (1.0 - beta(t), bar(t - 1));
        let precision = alpha / beta(t) + 1.0 / (1.0 - before);
        let found = schedule.posterior(t);
        near(found.variance, 1.0 / precision, 1e-10);
        near(found.xt, alpha.sqrt() / beta(t) / precision, 1e-10);
        near(found.x0, before.sqrt() / (1.0 - before) / precision, 1e-10);
    }
}

/// Eqs. 8 and 12 with σ² = β̃, where the divergence is the means' distance alone; Eqs. 10 and 11 for the means.
#[test]
fn equations_8_to_12_the_loss_of_a_step() {
    let process = process(Variance::Small);
    let ([x0, noise, answer], [x, eps, said]) = case();
    for t in [1, 2, 500, 999] {
        let (alpha, bar, before) = (1.0 - beta(t), bar(t), bar(t - 1));
        let variance = (1.0 - before) / (1.0 - bar) * beta(t);
        let x_t = process.noised(&x0, &noise, &at(2, t)).unwrap();
        let xt = numbers(&x_t);
        let reverse = process.reverse(&answer, &x_t, &at(2, t), false).unwrap();
        // Eq. 11, and the same in Eq. 10 with the true ε.
        let mean = |eps: f64, k: usize| (xt[k] - beta(t) / (1.0 - bar).sqrt() * eps) / alpha.sqrt();
        all_near(&reverse.mean, |k| mean(said[k], k));
        let step = ancestral(&process, &answer, &x_t, t, false).unwrap();
        all_near(&step.mean, |k| mean(said[k], k));
        all_near(&step.sigma.unwrap(), |_| variance.sqrt());
        let posterior = |k: usize| {
            before.sqrt() * beta(t) / (1.0 - bar) * x[k] + alpha.sqrt() * (1.0 - before) / (1.0 - bar) * xt[k]
        };
        (0..24).for_each(|k| near(mean(eps[k], k), posterior(k), 1e-10));
        // Means over the 12 numbers of each picture, in bits.
        let of = |picture: usize, f: &dyn Fn(usize) -> f64| {
            (12 * picture..12 * picture + 12).map(f).sum::<f64>() / 12.0 / LN_2
        };
        let eight = |k: usize| (posterior(k) - mean(said[k], k)).powi(2) / (2.0 * variance);
        let weight = beta(t).powi(2) / (2.0 * variance * alpha * (1.0 - bar));
        let twelve = |k: usize| weight * (eps[k] - said[k]).powi(2);
        let found = numbers(&process.term(&reverse, &x0, &x_t, &at(2, t)).unwrap());
        for (picture, found) in found.into_iter().enumerate() {
            near(found, of(picture, &eight), 1e-9);
            near(found, of(picture, &twelve), 1e-9);
        }
    }
}

/// Eq. 13: the share of a Gaussian in each pixel's bin, integrated; the bins of −1 and 1 go on without end.
#[test]
fn equation_13_the_decoder() {
    let process = process(Variance::Large);
    // Whole pixels: 0 and 255 are −1 and 1.
    let pixels: Vec<f64> = [0.0, 1.0, 100.0, 128.0, 254.0, 255.0].iter().map(|p| p / 127.5 - 1.0).collect();
    let x0 = Tensor::from_slice(&pixels).view([6, 1, 1, 1]);
    let (noise, answer) = (golden::input("noise", &[6, 1, 1, 1]), golden::input("answer", &[6, 1, 1, 1]));
    let x_t = process.noised(&x0, &noise, &at(6, 0)).unwrap();
    let reverse = process.reverse(&answer, &x_t, &at(6, 0), false).unwrap();
    // §3.2: at the first step the mean is x̂_0, and the code's variance that of the second step's posterior.
    let variance = (1.0 - bar(0)) / (1.0 - bar(1)) * beta(1);
    let (x_t, said) = (numbers(&x_t), numbers(&answer));
    let terms = numbers(&process.term(&reverse, &x0, &single(&x_t), &at(6, 0)).unwrap());
    for (k, found) in terms.into_iter().enumerate() {
        let mean = (x_t[k] - (1.0 - bar(0)).sqrt() * said[k]) / bar(0).sqrt();
        let far = 12.0 * variance.sqrt();
        let lower = if k == 0 { mean.min(pixels[k]) - far } else { pixels[k] - 1.0 / 255.0 };
        let upper = if k == 5 { mean.max(pixels[k]) + far } else { pixels[k] + 1.0 / 255.0 };
        let share = integral(lower, upper, 4000, |x| normal(x, mean, variance));
        near(found, -share.ln() / LN_2, 1e-6);
    }
}

/// Pictures of one number each.
fn single(numbers: &[f64]) -> Tensor {
    Tensor::from_slice(numbers).view([-1, 1, 1, 1])
}

/// Eq. 14, and what the other objectives ask for.
#[test]
fn equation_14_the_simple_loss() {
    let ([x0, noise, answer], [x, eps, said]) = case();
    for objective in [Objective::Epsilon, Objective::X0, Objective::V] {
        let process = Process { objective, ..process(Variance::Large) };
        let times = Tensor::from_slice(&[10_i64, 640]);
        let x_t = process.noised(&x0, &noise, &times).unwrap();
        let losses = process.losses(Loss::Simple, &answer, &x0, &x_t, &noise, &times).unwrap();
        for (picture, found) in numbers(&losses.simple).into_iter().enumerate() {
            let bar = bar([10, 640][picture]);
            let target = |k: usize| match objective {
                Objective::Epsilon => eps[k],
                Objective::X0 => x[k],
                Objective::V => bar.sqrt() * eps[k] - (1.0 - bar).sqrt() * x[k],
            };
            let sum: f64 = (12 * picture..12 * picture + 12).map(|k| (target(k) - said[k]).powi(2)).sum();
            near(found, sum / 12.0, 1e-12);
        }
    }
}

/// Eq. 15 of §4.3, clipped or not: x̂_0, and the ε̂ that is left then.
#[test]
fn equation_15_the_picture_that_an_answer_means() {
    let process = process(Variance::Large);
    let ([x0, noise, answer], [_, _, said]) = case();
    for (t, clip) in [(0, false), (300, false), (300, true), (999, true)] {
        let x_t = process.noised(&x0, &noise, &at(2, t)).unwrap();
        let xt = numbers(&x_t);
        let told = process.told(&answer, &x_t, &at(2, t), clip).unwrap();
        let picture = |k: usize| {
            let x0 = (xt[k] - (1.0 - bar(t)).sqrt() * said[k]) / bar(t).sqrt();
            if clip { x0.clamp(-1.0, 1.0) } else { x0 }
        };
        all_near(&told.x0, picture);
        all_near(&told.eps, |k| (xt[k] - bar(t).sqrt() * picture(k)) / (1.0 - bar(t)).sqrt());
    }
}

/// Eqs. 1, 3 and 5. A chain of four steps on one number, whose network is a line, so that p_θ(x_{t−1} | x_t) is N(a x_t, σ²). Eq. 3's expectation
/// under Eq. 2 is then known in closed form, but for the last factor, which is integrated; Eq. 5's terms are the library's, integrated over x_t.
#[test]
fn equations_3_and_5_have_one_value() {
    for variance in [Variance::Large, Variance::Small] {
        let process = Process { schedule: Schedule::new(Betas::Cosine, 4), ..process(variance) };
        let Schedule { beta, alpha_bar: bar, .. } = &process.schedule;
        let (x0, slope) = (100.0 / 127.5 - 1.0, 0.7);
        let deviation = |t: usize| (1.0 - bar[t]).sqrt();
        let before = |t: usize| if t == 0 { 1.0 } else { bar[t - 1] };
        let posterior = |t: usize| (1.0 - before(t)) / (1.0 - bar[t]) * beta[t];
        // §3.2, and the code's choice for the first step.
        let sigma = |t: usize| match (variance, t) {
            (_, 0) => posterior(1),
            (Variance::Small, t) => posterior(t),
            (_, t) => beta[t],
        };
        // Eq. 11: a = (1 − slope β/√(1 − ᾱ))/√(1 − β).
        let a = |t: usize| (1.0 - slope * beta[t] / deviation(t)) / (1.0 - beta[t]).sqrt();
        let wide = |t: usize, f: &dyn Fn(f64) -> f64| {
            let (mean, far) = (bar[t].sqrt() * x0, 9.0 * deviation(t));
            integral(mean - far, mean + far, 400, |x| normal(x, mean, 1.0 - bar[t]) * f(x))
        };
        let log = |variance: f64| (2.0 * PI * variance).ln() / 2.0;
        // E[−log p(x_T)] − Σ E[log p_θ(x_{t−1} | x_t) − log q(x_t | x_{t−1})], t = 0 being apart.
        let mut three = log(1.0) + (bar[3] * x0 * x0 + 1.0 - bar[3]) / 2.0;
        for t in 1..4 {
            let mean = bar[t - 1].sqrt() * x0 - a(t) * bar[t].sqrt() * x0;
            let covariance = (1.0 - beta[t]).sqrt() * (1.0 - bar[t - 1]);
            let spread = 1.0 - bar[t - 1] + a(t).powi(2) * (1.0 - bar[t]) - 2.0 * a(t) * covariance;
            three += log(sigma(t)) + (mean * mean + spread) / (2.0 * sigma(t)) - log(beta[t]) - 0.5;
        }
        let bin = |x: f64| integral(x0 - 1.0 / 255.0, x0 + 1.0 / 255.0, 400, |y| normal(y, a(0) * x, sigma(0))).ln();
        three += -wide(0, &|x| bin(x)) - log(beta[0]) - 0.5;

        let line = |x: &Tensor| x * slope;
        let term = |t: usize, x: f64| {
            let x = single(&[x]);
            let reverse = process.reverse(&line(&x), &x, &at(1, t), false).unwrap();
            process.term(&reverse, &single(&[x0]), &x, &at(1, t)).unwrap().double_value(&[0])
        };
        let bound = process.bound(&single(&[x0]), &mut |x, _| Ok(line(x)), &mut |_| Ok(single(&[0.0]))).unwrap();
        let five = bound.prior + (0..4).map(|t| wide(t, &|x| term(t, x))).sum::<f64>();
        near(five * LN_2, three, 1e-6);
    }
}

/// Improved DDPM, Eq. 15: between β̃ and β in logarithms, by the network's half of the answer.
#[test]
fn learned_variances() {
    let process = process(Variance::Learned);
    let ([x0, noise, answer], _) = case();
    let v = golden::input("v", &SHAPE);
    for t in [1, 500, 999] {
        let x_t = process.noised(&x0, &noise, &at(2, t)).unwrap();
        let both = Tensor::cat(&[&answer, &v], 1);
        let sigma = ancestral(&process, &both, &x_t, t, false).unwrap().sigma.unwrap();
        let small = (1.0 - bar(t - 1)) / (1.0 - bar(t)) * beta(t);
        let v = numbers(&v);
        all_near(&sigma.square(), |k| {
            let share = (v[k] + 1.0) / 2.0;
            (share * beta(t).ln() + (1.0 - share) * small.ln()).exp()
        });
    }
}

/// DDIM, Eqs. 12 and 16: golden values, and all numbers of a step one by one.
#[test]
fn steps_of_ddim() {
    let process = process(Variance::Large);
    let (x, eps) = (single(&[0.5]), single(&[0.3]));
    for (t, s, eta, x0, sigma, mean) in [
        (999, Some(899), 0.0, 31.4830443826, 0.0, 0.8222413688),
        (999, Some(899), 1.0, 31.4830443826, 0.9236622454, 0.6371371542),
        (500, Some(400), 0.0, 0.7597352132, 0.0, 0.6036633351),
        (500, Some(400), 1.0, 0.7597352132, 0.7231963493, 0.4939695428),
        (1, Some(0), 0.0, 0.4956057089, 0.0, 0.4985809280),
        (1, Some(0), 1.0, 0.4956057089, 0.0073845702, 0.4976038297),
        (0, None, 0.0, 0.4970248519, 0.0, 0.4970248519),
    ] {
        let step = ddim(&process, &eps, &x, t, s, eta, false).unwrap();
        let number = |x: &Tensor| x.double_value(&[0, 0, 0, 0]);
        near(number(&step.x0), x0, 1e-9);
        near(number(&step.mean), mean, 1e-9);
        near(step.sigma.map_or(0.0, |sigma| sigma.double_value(&[])), sigma, 1e-8);
    }
    let ([x, _, answer], [xt, _, said]) = case();
    for (t, s, eta) in [(999, 900, 0.3), (500, 499, 1.0), (20, 0, 0.7)] {
        let step = ddim(&process, &answer, &x, t, Some(s), eta, false).unwrap();
        let sigma = eta * ((1.0 - bar(s)) / (1.0 - bar(t))).sqrt() * (1.0 - bar(t) / bar(s)).sqrt();
        near(step.sigma.unwrap().double_value(&[]), sigma, 1e-10);
        all_near(&step.mean, |k| {
            let x0 = (xt[k] - (1.0 - bar(t)).sqrt() * said[k]) / bar(t).sqrt();
            bar(s).sqrt() * x0 + (1.0 - bar(s) - sigma * sigma).sqrt() * said[k]
        });
    }
}

/// DDIM's Table 1, the row σ̂ = √(1 − ᾱ_t/ᾱ_s): Algorithm 2 with fewer steps and large variances, whose means are those of η = 1.
#[test]
fn the_row_of_sigma_hat() {
    let process = process(Variance::Large);
    let times = [0, 9, 39, 88, 158, 246, 355, 483, 632, 800];
    let strided = Process { schedule: process.schedule.strided(&times), ..process.clone() };
    let ([x, _, answer], _) = case();
    for place in 1..times.len() {
        let (t, s) = (times[place], times[place - 1]);
        let step = ancestral(&strided, &answer, &x, place, false).unwrap();
        let eta = numbers(&ddim(&process, &answer, &x, t, Some(s), 1.0, false).unwrap().mean);
        all_near(&step.mean, |k| eta[k]);
        all_near(&step.sigma.unwrap(), |_| (1.0 - bar(t) / bar(s)).sqrt());
    }
}

//! Against other programs' numbers (`scripts/fixtures/generative.py`), plain loops, and what the definitions promise.

use std::path::Path;

use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

use super::*;
use crate::{Error, golden, weights};

const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

fn near(name: &str, ours: f64, expected: f64, relative: f64) {
    assert!((ours - expected).abs() <= relative * expected.abs().max(1.0), "{name}: {ours} and not {expected}");
}

fn rows(features: &Tensor) -> Vec<Vec<f64>> {
    (0..features.size()[0]).map(|row| Vec::try_from(features.get(row)).unwrap()).collect()
}

/// Correlated features of real and generated pictures, and the probabilities of ten classes of the latter, as the fixture has them.
fn sets(case: &str, n: i64, m: i64, d: i64) -> (Tensor, Tensor, Tensor) {
    let make = |name: &str, shape: [i64; 2]| golden::input(&format!("{case}.{name}"), &shape);
    let mix = make("mix", [d, d]);
    let fake: Tensor = make("fake", [m, d]) * 1.1 + 0.3;
    let logits: Tensor = make("logits", [m, 10]) * 3.0;
    (make("real", [n, d]).matmul(&mix), fake.matmul(&mix), logits.softmax(1, Kind::Double))
}

#[test]
fn as_other_programs_measure() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/generative.safetensors");
    let (theirs, _) = weights::read(&file).unwrap();
    for (case, n, m, d) in [("full", 60, 45, 8), ("wide", 20, 12, 32)] {
        let (real, fake, probabilities) = sets(case, n, m, d);
        let ours = score(&real, &fake, Some(&probabilities)).unwrap();
        assert_eq!(ours.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["fid", "kid", "is", "precision", "recall"]);
        for (name, value) in ours {
            near(&format!("{case}.{name}"), value, theirs[&format!("{case}.{name}")].double_value(&[]), 1e-12);
        }
        assert_eq!(score(&real, &fake, None).unwrap().len(), 4);
    }
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

fn slow_kid(real: &[Vec<f64>], fake: &[Vec<f64>]) -> f64 {
    let kernel = |x: &[f64], y: &[f64]| (dot(x, y) / x.len() as f64 + 1.0).powi(3);
    let within = |set: &[Vec<f64>]| {
        let others = |i: usize| (0..set.len()).filter(move |&j| j != i).map(move |j| (i, j));
        let pairs = (0..set.len()).flat_map(others);
        pairs.map(|(i, j)| kernel(&set[i], &set[j])).sum::<f64>() / (set.len() * (set.len() - 1)) as f64
    };
    let across: f64 = real.iter().flat_map(|x| fake.iter().map(move |y| (x, y))).map(|(x, y)| kernel(x, y)).sum();
    within(real) + within(fake) - 2.0 * across / (real.len() * fake.len()) as f64
}

fn distance(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt()
}

/// The share of `points` that are at most as far from any of `set` as that one's k-th neighbour in `set`.
fn slow_covered(points: &[Vec<f64>], set: &[Vec<f64>], k: usize) -> f64 {
    let radius = |i: usize| {
        let mut others: Vec<f64> = (0..set.len()).filter(|&j| j != i).map(|j| distance(&set[i], &set[j])).collect();
        others.sort_by(f64::total_cmp);
        others[k - 1]
    };
    let radii: Vec<f64> = (0..set.len()).map(radius).collect();
    let inside = |point: &&Vec<f64>| set.iter().zip(&radii).any(|(centre, radius)| distance(point, centre) <= *radius);
    points.iter().filter(inside).count() as f64 / points.len() as f64
}

fn slow_inception_score(probabilities: &[Vec<f64>]) -> f64 {
    let (n, classes) = (probabilities.len() as f64, probabilities[0].len());
    let mean: Vec<f64> = (0..classes).map(|class| probabilities.iter().map(|p| p[class]).sum::<f64>() / n).collect();
    let divergence =
        |p: &Vec<f64>| p.iter().zip(&mean).filter(|(p, _)| **p > 0.0).map(|(p, mean)| p * (p / mean).ln()).sum::<f64>();
    (probabilities.iter().map(divergence).sum::<f64>() / n).exp()
}

/// A symmetric positive matrix's root by Denman and Beavers' iteration, which shares nothing with eigenvalues.
fn iterated_root(matrix: &Tensor) -> Tensor {
    let inverse = |matrix: &Tensor| matrix.inverse();
    let (mut y, mut z) = (matrix.shallow_clone(), Tensor::eye(matrix.size()[0], F64));
    for _ in 0..60 {
        (y, z) = ((&y + inverse(&z)) / 2.0, (&z + inverse(&y)) / 2.0);
    }
    y
}

fn slow_fid(real: &Tensor, fake: &Tensor) -> f64 {
    let moments = |features: &Tensor| {
        let rows = rows(features);
        let (n, d) = (rows.len() as f64, rows[0].len());
        let mean: Vec<f64> = (0..d).map(|i| rows.iter().map(|row| row[i]).sum::<f64>() / n).collect();
        let covariance = |i: usize, j: usize| {
            rows.iter().map(|row| (row[i] - mean[i]) * (row[j] - mean[j])).sum::<f64>() / (n - 1.0)
        };
        let all: Vec<f64> = (0..d * d).map(|at| covariance(at / d, at % d)).collect();
        (mean, Tensor::from_slice(&all).view([d as i64, d as i64]))
    };
    let ((mean, sigma), (other_mean, other)) = (moments(real), moments(fake));
    let root = iterated_root(&sigma.matmul(&other));
    let trace = |matrix: &Tensor| matrix.trace().double_value(&[]);
    distance(&mean, &other_mean).powi(2) + trace(&sigma) + trace(&other) - 2.0 * trace(&root)
}

/// Plain loops; in as many rows as make blocks of different sizes.
#[test]
fn as_their_definitions_in_plain_loops() {
    for (n, m, d) in [(30, 20, 5), (ROWS + 7, 2 * ROWS + 3, 4)] {
        let (real, fake, probabilities) = sets("loops", n, m, d);
        let (slow_real, slow_fake) = (rows(&real), rows(&fake));
        near("fid", fid(&real, &fake).unwrap(), slow_fid(&real, &fake), 1e-10);
        near("kid", kid(&real, &fake).unwrap(), slow_kid(&slow_real, &slow_fake), 1e-10);
        near("is", inception_score(&probabilities).unwrap(), slow_inception_score(&rows(&probabilities)), 1e-12);
        for k in [1, 3] {
            let found = precision_recall(&real, &fake, k).unwrap();
            assert_eq!(found.precision, slow_covered(&slow_fake, &slow_real, k as usize));
            assert_eq!(found.recall, slow_covered(&slow_real, &slow_fake, k as usize));
        }
    }
}

/// |μ₁ − μ₂|² + Σ (√λ₁ − √λ₂)² of diagonal covariances, some of them 0.
#[test]
fn diagonal_covariances_have_a_closed_form() {
    let of = |mean: [f64; 3], variance: [f64; 3]| Statistics {
        mean: Tensor::from_slice(&mean),
        covariance: Tensor::from_slice(&variance).diag(0),
    };
    let (real, fake) = (of([1.0, -2.0, 0.5], [1.0, 4.0, 0.25]), of([0.0, 1.0, 0.5], [9.0, 0.0, 0.25]));
    near("fid", real.fid(&fake).unwrap(), 1.0 + 9.0 + 4.0 + 4.0, 1e-15);
}

/// Each picture sure of one class of K, all as often: K; all alike: 1.
#[test]
fn the_inception_score_lies_between_one_and_the_classes() {
    near("is", inception_score(&Tensor::eye(7, F64)).unwrap(), 7.0, 1e-14);
    near("is", inception_score(&Tensor::full([5, 4], 0.25, F64)).unwrap(), 1.0, 1e-14);
}

/// By hand: real points 0, 1, 2, 10 on a line with k = 1 have balls of radius 1, 1, 1, 8; ties count.
#[test]
fn balls_on_a_line() {
    let line = |at: &[f64]| Tensor::from_slice(at).view([-1, 1]);
    let found = precision_recall(&line(&[0.0, 1.0, 2.0, 10.0]), &line(&[-1.0, -1.5, 18.0, 18.5, 5.0]), 1).unwrap();
    // Generated balls: −1.5 to −0.5, −2 to −1, 17.5 to 18.5, 18 to 19, −1 to 11.
    assert_eq!((found.precision, found.recall), (0.6, 1.0));
    // Three pictures that are one: a ball of radius 0, in which nothing else lies.
    let copies = precision_recall(&line(&[0.1, 0.2, 0.3]), &line(&[0.1, 0.1, 0.1]), 2).unwrap();
    assert_eq!((copies.precision, copies.recall), (1.0, 1.0 / 3.0));
}

/// Copies of real pictures lie in balls of radius 0 around themselves, in many dimensions and far from the origin; nothing else does.
#[test]
fn copies_are_at_no_distance() {
    let real: Tensor = golden::input("copies", &[20, 300]) + 1e3;
    let fake = real.narrow(0, 3, 2).repeat([4, 1]);
    assert_eq!(precision_recall(&real, &fake, 3).unwrap(), PrecisionRecall { precision: 1.0, recall: 0.1 });
    let near = &fake + 1e-6;
    assert_eq!(precision_recall(&real, &near, 3).unwrap(), PrecisionRecall { precision: 1.0, recall: 0.0 });
}

#[test]
fn pictures_that_are_fewer_than_features_are_told() {
    let of = |n| Tensor::zeros([n, 8], F64);
    assert_eq!(few(&of(9), &of(9)), None);
    let text = few(&of(9), &of(8)).unwrap();
    assert!(text.contains("8 generated pictures are too few for covariances of 8 features"), "{text}");
    assert!(few(&of(2), &of(3)).unwrap().contains("2 real pictures and 3 generated pictures"));
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let of = |n, d| golden::input("refused", &[n, d]);
    let nan = of(4, 3).masked_fill(&of(4, 3).gt(0.5), f64::NAN);
    let whole = Tensor::zeros([4, 3], (Kind::Int64, Device::Cpu));
    let scored = |real: &Tensor, fake: &Tensor| score(real, fake, None).err();
    for (error, word) in [
        (scored(&of(4, 3), &of(4, 2)), "3 features and generated ones 2"),
        (scored(&of(3, 3), &of(9, 3)), "3 pictures; this needs at least 4"),
        (fid(&of(4, 3), &of(1, 3)).err(), "1 pictures; this needs at least 2"),
        (kid(&of(0, 3), &of(4, 3)).err(), "0 pictures"),
        (scored(&of(4, 3), &nan), "not finite"),
        (scored(&whole, &whole), "Int64 of [4, 3]"),
        (fid(&of(4, 3).view([-1]), &of(4, 3)).err(), "[12]"),
        (fid(&of(4, 0), &of(4, 0)).err(), "[4, 0]"),
        (fid(&(of(4, 3) * 1e200), &(of(4, 3) * 1e200)).err(), "too large"),
        (precision_recall(&of(4, 3), &of(4, 3), 0).err(), "at least one"),
        (precision_recall(&(of(4, 3) * 1e200), &of(4, 3), 3).err(), "too large"),
        (inception_score(&of(4, 3)).err(), "are they logits?"),
        (inception_score(&of(0, 3)).err(), "0 pictures"),
        (score(&of(4, 3), &of(4, 3), Some(&Tensor::full([5, 2], 0.5, F64))).err(), "[5, 2]"),
    ] {
        match error {
            Some(Error::User(text)) => assert!(text.contains(word), "{text}"),
            other => panic!("{word}: {other:?}"),
        }
    }
}

fn matrix(values: &[f64], width: i64) -> Tensor {
    Tensor::from_slice(values).view([-1, width])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn equal_sets_are_at_no_distance(values in prop::collection::vec(-3.0..3.0, 48), width in prop::sample::select(vec![2_i64, 4, 8])) {
        let features = matrix(&values, width);
        prop_assert!(fid(&features, &features).unwrap() < 1e-12);
        prop_assert_eq!(precision_recall(&features, &features, 3).unwrap(), PrecisionRecall { precision: 1.0, recall: 1.0 });
        let far = &features + 1e3;
        prop_assert_eq!(precision_recall(&features, &far, 3).unwrap(), PrecisionRecall { precision: 0.0, recall: 0.0 });
        // A shift alone adds its square.
        let shifted = fid(&features, &(&features + 2.0)).unwrap();
        prop_assert!((shifted - 4.0 * width as f64).abs() < 1e-10, "{}", shifted);
    }

    /// With more features than pictures, too: 12 rows of 16.
    #[test]
    fn the_frechet_distance_is_symmetric_and_knows_no_axes(
        real in prop::collection::vec(-3.0..3.0, 192),
        fake in prop::collection::vec(-2.0..4.0, 192),
        turn in prop::collection::vec(-1.0..1.0, 256),
        width in prop::sample::select(vec![4_i64, 16]),
    ) {
        let (real, fake) = (matrix(&real, width), matrix(&fake, width));
        let (rotation, _) = Tensor::linalg_qr(&matrix(&turn[..(width * width) as usize], width), "complete");
        let distance = fid(&real, &fake).unwrap();
        let others = [(&fake, &real), (&real.matmul(&rotation), &fake.matmul(&rotation))];
        for (real, fake) in others {
            let other = fid(real, fake).unwrap();
            prop_assert!((other - distance).abs() < 1e-10 * distance.max(1.0), "{} {}", other, distance);
        }
    }

    /// Without bias: near 0, on either side of it, for two draws from one distribution; far from 0 for others.
    #[test]
    fn the_kernel_distance_of_one_distribution_is_near_nothing(seed in 0_i64..1000) {
        tch::manual_seed(seed);
        let draw = || Tensor::randn([500, 16], F64);
        let (same, other) = (kid(&draw(), &draw()).unwrap(), kid(&draw(), &(draw() + 1.0)).unwrap());
        prop_assert!(same.abs() < 0.02 && other > 1.0, "{} {}", same, other);
    }
}

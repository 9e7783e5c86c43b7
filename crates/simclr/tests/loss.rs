//! The losses in float64 against plain Rust, their gradients against differences, and what Eq. 1 implies.

use repro::Result;
use repro::golden;
use simclr::loss::Loss;
use tch::{Device, Kind, Tensor};

const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

fn nt_xent(temperature: f64) -> Loss {
    Loss::NtXent { temperature, normalise: true, chunk: None }
}

/// All losses, with cosines and without.
fn all() -> Vec<Loss> {
    let mut all = Vec::new();
    for normalise in [true, false] {
        all.push(Loss::NtXent { temperature: 0.3, normalise, chunk: None });
        for semi_hard in [false, true] {
            all.push(Loss::NtLogistic { temperature: 0.3, normalise, semi_hard });
            all.push(Loss::Triplet { margin: 0.4, normalise, semi_hard });
        }
    }
    all
}

/// Whether similarities are cosines.
fn cosines(loss: &Loss) -> bool {
    let (Loss::NtXent { normalise, .. } | Loss::NtLogistic { normalise, .. } | Loss::Triplet { normalise, .. }) = loss;
    *normalise
}

fn alone(rows: &Tensor) -> Result<Tensor> {
    Ok(rows.shallow_clone())
}

fn value(loss: &Loss, z: &Tensor) -> f64 {
    loss.of(z, 0, alone).unwrap().double_value(&[])
}

/// The loss and its gradient by z, of a multiple of the loss, as under accumulation or a scale.
fn slope(loss: &Loss, z: &Tensor) -> (f64, Tensor) {
    let z = z.detach().copy().set_requires_grad(true);
    let found = loss.of(&z, 0, alone).unwrap();
    (&found * 3.0).backward();
    (found.double_value(&[]), z.grad() / 3.0)
}

fn gap(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

fn close(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{found} and not {expected}");
}

/// The definitions, row by row.
fn plain(loss: &Loss, z: &Tensor) -> f64 {
    let rows = Vec::<Vec<f64>>::try_from(z).unwrap();
    let n = rows.len() / 2;
    let normalise = cosines(loss);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let length = |a: &[f64]| if normalise { dot(a, a).sqrt() } else { 1.0 };
    let similar = |i: usize, j: usize| dot(&rows[i], &rows[j]) / (length(&rows[i]) * length(&rows[j]));
    let softplus = |x: f64| (1.0 + x.exp()).ln();
    let mean = |terms: &[f64]| if terms.is_empty() { 0.0 } else { terms.iter().sum::<f64>() / terms.len() as f64 };
    let of_row = |i: usize| {
        let other = (i + n) % (2 * n);
        let positive = similar(i, other);
        let negatives: Vec<f64> =
            (0..2 * n).filter(|&j| (j < n) != (i < n) && j != other).map(|j| similar(i, j)).collect();
        let hardest = |least: f64| -> Vec<f64> {
            let eligible = negatives.iter().copied().filter(|s| *s < positive && *s > least);
            eligible.max_by(f64::total_cmp).into_iter().collect()
        };
        match *loss {
            Loss::NtXent { temperature, .. } => {
                let sum: f64 = (0..2 * n).filter(|&j| j != i).map(|j| (similar(i, j) / temperature).exp()).sum();
                sum.ln() - positive / temperature
            }
            Loss::NtLogistic { temperature, semi_hard, .. } => {
                let chosen = if semi_hard { hardest(f64::NEG_INFINITY) } else { negatives };
                let terms: Vec<f64> = chosen.iter().map(|s| softplus(s / temperature)).collect();
                softplus(-positive / temperature) + mean(&terms)
            }
            Loss::Triplet { margin, semi_hard, .. } => {
                let chosen = if semi_hard { hardest(positive - margin) } else { negatives };
                let terms: Vec<f64> = chosen.iter().map(|s| (s - positive + margin).max(0.0)).collect();
                mean(&terms)
            }
        }
    };
    mean(&(0..2 * n).map(of_row).collect::<Vec<_>>())
}

#[test]
fn each_is_its_definition() {
    for (n, d) in [(2, 3), (5, 4), (9, 16)] {
        let z = golden::input(&format!("z{n}"), &[2 * n, d]);
        for loss in all() {
            close(value(&loss, &z), plain(&loss, &z), 1e-12);
        }
    }
}

#[test]
fn nt_xent_has_its_worked_values() {
    let z = Tensor::from_slice(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.8, 0.6, 0.0, 0.0, 0.6, 0.8]).view([4, 3]);
    close(value(&nt_xent(0.5), &z), 0.639934, 5e-7);
    let z = golden::input("z", &[8, 16]);
    close(value(&nt_xent(0.5), &z), 2.0773053742, 5e-11);
    close(value(&nt_xent(0.1), &z), 3.9478018514, 5e-11);
}

/// Central differences of a step of 1e-6 leave some 1e-10.
#[test]
fn gradients_are_those_of_differences() {
    let z = golden::input("slope", &[8, 5]);
    for loss in all() {
        let (_, found) = slope(&loss, &z);
        for place in 0..40 {
            let moved = |step: f64| {
                let z = z.copy();
                let _ = z.view(-1).get(place).g_add_scalar_(step);
                value(&loss, &z)
            };
            let expected = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            let found = found.view(-1).double_value(&[place]);
            assert!((found - expected).abs() < 1e-8, "{loss:?} at {place}: {found} and not {expected}");
        }
    }
}

#[test]
fn in_chunks_it_is_the_same() {
    let z = golden::input("chunks", &[14, 6]);
    for normalise in [true, false] {
        let whole = Loss::NtXent { temperature: 0.2, normalise, chunk: None };
        let (expected, by_z) = slope(&whole, &z);
        for rows in [1, 3, 7, 13, 14, 1000] {
            let (found, found_by_z) = slope(&Loss::NtXent { temperature: 0.2, normalise, chunk: Some(rows) }, &z);
            close(found, expected, 1e-12);
            assert!(gap(&found_by_z, &by_z) < 1e-12, "{rows} rows: {}", gap(&found_by_z, &by_z));
        }
    }
}

/// Processes that each have a part of the pictures: the mean of their losses is that of all.
#[test]
fn parts_of_a_batch_come_to_the_whole() {
    let z = golden::input("parts", &[12, 5]);
    // Three processes of two pictures: rows 2r, 2r + 1 of each view.
    let part = |rank: i64| Tensor::cat(&[z.narrow(0, 2 * rank, 2), z.narrow(0, 6 + 2 * rank, 2)], 0);
    let by_rank = Tensor::cat(&[part(0), part(1), part(2)], 0);
    let chunked = Loss::NtXent { temperature: 0.3, normalise: false, chunk: Some(3) };
    // Rows are gathered after they are normalised; what is gathered here is as it was.
    for loss in all().into_iter().filter(|loss| !cosines(loss)).chain([chunked]) {
        let of = |rank: i64| {
            let found = loss.of(&part(rank), rank as u64, |_| Ok(by_rank.shallow_clone()));
            found.unwrap().double_value(&[])
        };
        close((of(0) + of(1) + of(2)) / 3.0, value(&loss, &z), 1e-12);
    }
}

#[test]
fn it_knows_neither_length_nor_rotation_nor_which_view_is_first() {
    let z = golden::input("same", &[10, 4]);
    let (turn, _) = Tensor::linalg_qr(&golden::input("turn", &[4, 4]), "reduced");
    let swapped = Tensor::cat(&[z.narrow(0, 5, 5), z.narrow(0, 0, 5)], 0);
    let lengths = golden::input("length", &[10, 1]) + 2.0;
    for loss in all().into_iter().filter(cosines) {
        let expected = value(&loss, &z);
        for other in [&z * &lengths, z.matmul(&turn), swapped.shallow_clone()] {
            close(value(&loss, &other), expected, 1e-12);
        }
    }
}

#[test]
fn perfect_pairs_and_a_collapsed_encoder() {
    let n = 6_i64;
    let eye = Tensor::eye(n, F64);
    let perfect = Tensor::cat(&[&eye, &eye], 0);
    for temperature in [0.1_f64, 0.5, 1.0] {
        let expected = ((1.0 / temperature).exp() + 2.0 * n as f64 - 2.0).ln() - 1.0 / temperature;
        close(value(&nt_xent(temperature), &perfect), expected, 1e-12);
        close(value(&nt_xent(temperature), &Tensor::ones([2 * n, 3], F64)), (2.0 * n as f64 - 1.0).ln(), 1e-12);
    }
}

/// Equal rows, rows of zeros, one picture alone: numbers, and gradients that are numbers.
#[test]
fn nothing_becomes_no_number() {
    let zero = golden::input("zero", &[6, 3]);
    let _ = zero.get(1).zero_();
    let equal = Tensor::ones([6, 3], F64);
    let one = golden::input("one", &[2, 3]);
    for z in [zero, equal, one] {
        for loss in all().into_iter().chain([Loss::NtXent { temperature: 0.5, normalise: true, chunk: Some(2) }]) {
            let (found, by_z) = slope(&loss, &z);
            assert!(found.is_finite() && by_z.isfinite().all().int64_value(&[]) == 1, "{loss:?}: {found} {by_z}");
        }
    }
    close(value(&nt_xent(0.5), &golden::input("one", &[2, 3])), 0.0, 1e-15);
}

/// Sixteen bits go in; all sums are of float32.
#[test]
fn half_precision_ends_at_the_door() {
    let half = golden::input("half", &[64, 32]).to_kind(Kind::BFloat16);
    for loss in all() {
        let found = loss.of(&half, 0, alone).unwrap();
        assert_eq!(found.kind(), Kind::Float);
        assert_eq!(found, loss.of(&half.to_kind(Kind::Float), 0, alone).unwrap());
    }
}

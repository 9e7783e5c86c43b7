//! Anchors from boxes: k-means in which two boxes are 1 − IoU apart when their centres lie on each other (arXiv:1612.08242, §2; taken over by
//! arXiv:1804.02767, §2.3).

use repro::answer::Answer;
use repro::cli::Asked;
use repro::data::{Source, Split};
use repro::random::{rng, uniform};
use repro::trainer::Recipe;
use repro::{Result, user};
use serde_json::json;

use crate::config::Config;
use crate::train::Train;

/// Draws of first centres, of which the best end is kept.
const STARTS: u64 = 8;
/// Rounds after which a start is left as it is.
const ROUNDS: usize = 200;

/// Photos whose boxes are read at a time.
const AT_ONCE: i64 = 64;

/// Clusters of boxes.
#[derive(Debug, Clone, PartialEq)]
pub struct Anchors {
    /// Width and height of each, by growing area.
    pub sides: Vec<[f64; 2]>,
    /// Mean over the boxes of the IoU with the nearest.
    pub mean_iou: f64,
}

/// `anchors --config C [--count K]`: anchors for the boxes of the training photos, in pixels of the network's input as the test view shows it,
/// and how well the configured ones fit.
///
/// # Errors
/// No configuration, data that are missing, fewer different boxes than anchors.
pub fn answer(asked: &Asked<Config>) -> Result<Vec<Answer>> {
    let (Some(config), Some(setup)) = (asked.config, asked.setup) else {
        return Err(user!("--config FILE is missing: its data have the boxes"));
    };
    let (plan, _) = config.plan()?;
    let k = asked.flags.get_one::<u32>("count").map_or(plan.anchors.len(), |count| *count as usize);
    if k == 0 {
        return Err(user!("{} has no anchors; say how many you want with --count", config.model.name));
    }
    let setup = setup.for_stage("train", false, Some(setup.settings.length), setup.settings.batch_size);
    let data = Train::data(config, &setup)?;
    let mut sides = Vec::new();
    for batch in data.in_order(Split::Train, 0..data.len(), AT_ONCE) {
        let batch = batch?;
        let (_, _, h, w) = batch.image.size4()?;
        let boxes =
            Vec::<f64>::try_from(batch.targets.boxes.f_to_kind(tch::Kind::Double)?.f_contiguous()?.f_view([-1])?)?;
        sides.extend(boxes.chunks_exact(4).map(|side| [side[2] * w as f64, side[3] * h as f64]));
    }
    sides.retain(|side| side[0] > 0.0 && side[1] > 0.0);
    let found = cluster(&sides, k, setup.settings.seed)
        .ok_or_else(|| user!("the training set has fewer than {k} boxes of different sizes; ask for fewer anchors"))?;
    let told = |sides: &[[f64; 2]]| {
        let all: Vec<String> = sides.iter().map(|[w, h]| format!("[{w:.1}, {h:.1}]")).collect();
        format!("[{}]", all.join(", "))
    };
    let own = sides.iter().map(|&side| nearest(&plan.anchors, side).1.max(0.0)).sum::<f64>() / sides.len() as f64;
    let lines = vec![
        format!("model.anchors: {}", told(&found.sides)),
        format!("{} boxes, mean IoU {:.4} (the configured anchors: {own:.4})", sides.len(), found.mean_iou),
    ];
    let json =
        json!({ "anchors": found.sides, "mean_iou": found.mean_iou, "configured_mean_iou": own, "boxes": sides.len() });
    let input = setup.settings.data.name.clone().into();
    Ok(vec![Answer { input, lines, json, pictures: Vec::new(), error: None }])
}

/// Shared over covered area of two boxes with one centre.
pub fn shape_iou(a: [f64; 2], b: [f64; 2]) -> f64 {
    let shared = a[0].min(b[0]) * a[1].min(b[1]);
    shared / (a[0] * a[1] + b[0] * b[1] - shared)
}

/// The nearest of the centres, of equal ones the first, and its IoU.
pub fn nearest(centres: &[[f64; 2]], side: [f64; 2]) -> (usize, f64) {
    let mut best = (0, -1.0);
    for (at, &centre) in centres.iter().enumerate() {
        let iou = shape_iou(centre, side);
        if iou > best.1 {
            best = (at, iou);
        }
    }
    best
}

/// `k` anchors of boxes of these sides, all above 0; `None` for fewer boxes of different sides than `k`, or `k` = 0. The same seed gives the
/// same anchors.
pub fn cluster(sides: &[[f64; 2]], k: usize, seed: u64) -> Option<Anchors> {
    let mut different = sides.to_vec();
    different.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
    different.dedup();
    if k == 0 || different.len() < k {
        return None;
    }
    let starts = (0..STARTS).map(|start| {
        let mut random = rng(seed, 0, start, "anchors");
        settled(sides, first(&different, k, || uniform(&mut random, 0.0, 1.0)))
    });
    let mut best = starts.max_by(|a, b| a.mean_iou.total_cmp(&b.mean_iou))?;
    best.sides.sort_by(|a, b| (a[0] * a[1]).total_cmp(&(b[0] * b[1])));
    Some(best)
}

/// First centres: boxes drawn in proportion to their distance from the nearest that is drawn already. `random` is uniform in [0, 1).
fn first(different: &[[f64; 2]], k: usize, mut random: impl FnMut() -> f64) -> Vec<[f64; 2]> {
    let mut centres = vec![different[(random() * different.len() as f64) as usize]];
    while centres.len() < k {
        let far: Vec<f64> = different.iter().map(|&side| 1.0 - nearest(&centres, side).1).collect();
        let mut left = random() * far.iter().sum::<f64>();
        let drawn = far.iter().position(|far| {
            left -= far;
            left < 0.0
        });
        // Rounding may leave a rest beyond the last: the farthest then.
        let farthest = || (0..far.len()).max_by(|&a, &b| far[a].total_cmp(&far[b])).unwrap_or_default();
        centres.push(different[drawn.unwrap_or_else(farthest)]);
    }
    centres
}

/// Boxes go to their nearest centre, centres to the mean of their boxes, until none moves.
fn settled(sides: &[[f64; 2]], mut centres: Vec<[f64; 2]>) -> Anchors {
    for _ in 0..ROUNDS {
        let mut sums = vec![([0.0; 2], 0.0); centres.len()];
        for &side in sides {
            let (sum, n) = &mut sums[nearest(&centres, side).0];
            (sum[0], sum[1], *n) = (sum[0] + side[0], sum[1] + side[1], *n + 1.0);
        }
        let moved: Vec<_> = (sums.iter().zip(&centres))
            .map(|((sum, n), &centre)| if *n > 0.0 { [sum[0] / n, sum[1] / n] } else { centre })
            .collect();
        if moved == centres {
            break;
        }
        centres = moved;
    }
    let mean_iou = sides.iter().map(|&side| nearest(&centres, side).1).sum::<f64>() / sides.len() as f64;
    Anchors { sides: centres, mean_iou }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Three far heaps of boxes are found, whatever the seed.
    #[test]
    fn heaps_are_found() {
        let mut sides = Vec::new();
        for (at, heap) in [[10.0, 10.0], [100.0, 30.0], [40.0, 200.0]].into_iter().enumerate() {
            sides.extend((0..20).map(|n| [heap[0] + (n % 5) as f64 * 0.1, heap[1] + (n + at) as f64 * 0.01]));
        }
        for seed in 0..5 {
            let found = cluster(&sides, 3, seed).unwrap();
            let near = |a: [f64; 2], b: [f64; 2]| (a[0] - b[0]).abs() < 1.0 && (a[1] - b[1]).abs() < 1.0;
            assert!(near(found.sides[0], [10.0, 10.0]) && near(found.sides[1], [100.0, 30.0]), "{found:?}");
            assert!(near(found.sides[2], [40.0, 200.0]) && found.mean_iou > 0.95, "{found:?}");
        }
        assert_eq!(cluster(&sides, 3, 1), cluster(&sides, 3, 1));
        assert_eq!(
            (cluster(&sides[..2], 3, 1), cluster(&sides, 0, 1), cluster(&[[3.0, 4.0]; 9], 2, 1)),
            (None, None, None)
        );
        let one = cluster(&[[3.0, 4.0], [5.0, 8.0]], 1, 0).unwrap();
        assert_eq!(one.sides, [[4.0, 6.0]]);
    }

    proptest! {
        #[test]
        fn more_anchors_do_not_fit_worse(sides in prop::collection::vec([1.0..50.0_f64, 1.0..50.0], 12..40)) {
            let sides: Vec<[f64; 2]> = sides;
            let fit = |k| cluster(&sides, k, 0).unwrap().mean_iou;
            // Every box its own anchor fits exactly.
            prop_assert!(fit(1) < 1.0 && (fit(sides.len()) - 1.0).abs() < 1e-12);
            prop_assert!((shape_iou(sides[0], sides[1]) - shape_iou(sides[1], sides[0])).abs() < 1e-15);
        }
    }
}

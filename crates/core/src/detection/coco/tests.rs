use proptest::prelude::*;

use super::super::{Detection, Truth, fixture};
use super::*;

const CLASSES: usize = 3;

/// The largest difference.
fn apart(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn all_numbers_are_those_of_pycocotools() {
    for case in ["odd", "real"] {
        let known = fixture::read(case).without_difficult();
        let scores = evaluate(&known.scenes, known.classes).unwrap();
        assert!(apart(&scores.numbers, &known.get("numbers")) < 1e-14, "{case}: {:?}", scores.numbers);
        for (class, expected) in scores.classes.iter().zip(known.get("classes").chunks(12)) {
            assert!(apart(&class.numbers, expected) < 1e-14, "{case}: {:?} {expected:?}", class.numbers);
        }
        for (at, expected) in known.get("precision").chunks(RECALLS).enumerate() {
            let curve: Vec<_> = scores.curve(Some(at)).into_iter().map(|(_, precision)| precision).collect();
            assert!(apart(&curve, expected) < 1e-14, "{case}, threshold {at}");
        }
        let mean = scores.curve(None).iter().map(|point| point.1).sum::<f64>() / RECALLS as f64;
        assert!((mean - scores.numbers[0]).abs() < 1e-14);
    }
}

#[test]
fn pairs_are_those_of_pycocotools() {
    for case in ["odd", "real"] {
        let known = fixture::read(case).without_difficult();
        let matched: Vec<_> = known.scenes.iter().map(|scene| scene.matched(0.5)).collect();
        // pycocotools counts the truths over all photos.
        let mut places = vec![Vec::new(); known.scenes.len()];
        for (place, row) in known.get("truths").chunks(9).enumerate() {
            places[row[0] as usize].push(place as f64);
        }
        let mut compared = 0;
        for (&(photo, place), expected) in known.places.iter().zip(known.get("matched")) {
            let found = matched[photo][place].map_or(-1.0, |truth| places[photo][truth]);
            // Beyond 100 of a class pycocotools looks no further.
            if known.scenes[photo].detections.len() <= 100 {
                assert_eq!(found, expected, "{case}: detection {place} of photo {photo}");
                compared += 1;
            }
        }
        assert!(compared > 300);
    }
}

fn rect() -> impl Strategy<Value = [f64; 4]> {
    let side = || (0..12_i32).prop_map(|n| f64::from(n * 8));
    [side(), side(), side(), side()]
}

fn truth() -> impl Strategy<Value = Truth> {
    (0..CLASSES, rect(), prop::bool::weighted(0.1), prop::bool::weighted(0.1))
        .prop_map(|(class, rect, crowd, difficult)| Truth { class, rect, area: rect[2] * rect[3], crowd, difficult })
}

/// Class, box, and what the order of scores is that of.
type Ranked = (usize, [f64; 4], u32);

/// Scores are in (0, 1), and their order is that of `order`: no two are equal.
fn scenes() -> impl Strategy<Value = Vec<Scene>> {
    let scene = (prop::collection::vec(truth(), 0..6), prop::collection::vec((0..CLASSES, rect(), any::<u32>()), 0..8));
    prop::collection::vec(scene, 1..6).prop_map(|scenes| {
        let mut next = 0.0;
        let mut scene = |(truths, found): (Vec<Truth>, Vec<Ranked>)| {
            let detections = found.into_iter().map(|(class, rect, high)| {
                next += 1e-6;
                Detection { class, score: 0.1 + 0.8 * f64::from(high) / f64::from(u32::MAX) + next, rect }
            });
            Scene { truths, detections: detections.collect() }
        };
        scenes.into_iter().map(&mut scene).collect()
    })
}

proptest! {
    #[test]
    fn neither_the_order_of_photos_nor_that_of_detections_matters(scenes in scenes()) {
        let mut turned: Vec<_> = scenes.iter().rev().cloned().collect();
        turned.iter_mut().for_each(|scene| scene.detections.reverse());
        let (ours, theirs) = (evaluate(&scenes, CLASSES).unwrap(), evaluate(&turned, CLASSES).unwrap());
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn what_is_found_exactly_has_all_points(scenes in scenes()) {
        let exact = |scene: &Scene| {
            let counts = scene.truths.iter().filter(|truth| truth.counts() && truth.area > 0.0).cloned();
            let truths: Vec<_> = counts.collect();
            let found = |truth: &Truth| Detection { class: truth.class, score: 0.5, rect: truth.rect };
            Scene { detections: truths.iter().map(found).collect(), truths }
        };
        let scenes: Vec<_> = scenes.iter().map(exact).collect();
        // Recall at 1 and at 10 per photo is less where there are more truths.
        for (name, number) in evaluate(&scenes, CLASSES).unwrap().named().filter(|(name, _)| !["AR1", "AR10"].contains(name)) {
            prop_assert!(number == -1.0 || (number - 1.0).abs() < 1e-12, "{} {}", name, number);
        }
    }

    #[test]
    fn one_more_wrong_detection_helps_nowhere(scenes in scenes(), rect in rect(), class in 0..CLASSES, photo: prop::sample::Index) {
        let before = evaluate(&scenes, CLASSES).unwrap();
        let mut more = scenes.clone();
        // Far from everything, and the least sure.
        let rect = [rect[0] + 1e4, rect[1], rect[2], rect[3]];
        more[photo.index(scenes.len())].detections.push(Detection { class, score: 0.01, rect });
        prop_assert_eq!(&evaluate(&more, CLASSES).unwrap().numbers, &before.numbers);
        // The surest does harm where there was anything to lose.
        more[photo.index(scenes.len())].detections.last_mut().unwrap().score = 2.0;
        for (after, before) in evaluate(&more, CLASSES).unwrap().numbers.iter().zip(before.numbers).take(6) {
            prop_assert!(*after <= before);
        }
    }

    #[test]
    fn numbers_are_shares(scenes in scenes()) {
        let scores = evaluate(&scenes, CLASSES).unwrap();
        let [.., ar1, ar10, ar100, _, _, _] = scores.numbers;
        prop_assert!(scores.numbers.iter().all(|&n| n == -1.0 || (0.0..=1.0).contains(&n)));
        prop_assert!(ar1 <= ar10 && ar10 <= ar100);
    }
}

#[test]
fn few_classes_have_a_curve_each_and_many_have_means() {
    let known = fixture::read("odd").without_difficult();
    let scores = evaluate(&known.scenes, known.classes).unwrap();
    let names: Vec<_> = (0..known.classes).map(|class| format!("kind {class}")).collect();
    let labels = |scores: &Scores| scores.curves(&names).into_iter().map(|(label, _)| label).collect::<Vec<_>>();
    let of = |class: usize| format!("kind {class} {:.3}", scores.classes[class].numbers[1]);
    // The other two have no truths.
    assert_eq!(labels(&scores), [of(0), of(1), of(2), of(5), format!("mean AP50 {:.3}", scores.numbers[1])]);
    let mut many = scores.clone();
    many.classes.extend(scores.classes.clone());
    let [ap, ap50, ap75, ..] = scores.numbers;
    let told = labels(&many);
    assert_eq!(
        [&told[0], &told[1], &told[3]],
        [&format!("mean AP50 {ap50:.3}"), &format!("mean AP75 {ap75:.3}"), &format!("mean AP {ap:.3}")]
    );
}

#[test]
fn without_truths_there_is_no_number() {
    let found = Detection { class: 1, score: 0.5, rect: [0.0, 0.0, 9.0, 9.0] };
    let scores = evaluate(&[Scene { truths: Vec::new(), detections: vec![found] }], 2).unwrap();
    assert_eq!((scores.numbers, scores.curve(None)), ([-1.0; 12], Vec::new()));
    assert_eq!(evaluate(&[], 0).unwrap().numbers, [-1.0; 12]);
}

#[test]
fn a_photo_that_is_refused_is_named() {
    let good = Scene::default();
    let wrong = Detection { class: 0, score: f64::NAN, rect: [0.0, 0.0, 9.0, 9.0] };
    let bad = Scene { truths: Vec::new(), detections: vec![wrong] };
    let told = evaluate(&[good, bad], 1).unwrap_err();
    assert!(told.to_string().starts_with("a detection of photo 1 has") && told.exit_code() == 1, "{told}");
}

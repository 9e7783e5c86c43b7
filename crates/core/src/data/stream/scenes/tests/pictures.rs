//! Pixels and boxes against torchvision (scripts/fixtures/boxes.py), and against definitions.

use std::collections::BTreeMap;

use fast_image_resize::Resizer;
use proptest::prelude::*;
use safetensors::SafeTensors;

use super::super::frame::{Frame, GREY, Laid};
use super::super::sample::seen_box;
use super::super::view::Plan;
use super::*;

type Expected = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/data/stream/scenes/fixtures")
}

fn expected() -> Expected {
    let file = fs::read(fixtures().join("expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    tensors.tensors().into_iter().map(|(name, view)| (name, (view.shape().to_vec(), view.data().to_vec()))).collect()
}

fn corners(bytes: &[u8]) -> Vec<[f64; 4]> {
    let numbers: Vec<f64> = bytes.as_chunks::<4>().0.iter().map(|four| f64::from(f32::from_le_bytes(*four))).collect();
    numbers.as_chunks::<4>().0.to_vec()
}

/// The picture's pixels and what was laid onto a canvas, after `change`.
fn laid(
    photo: &RgbImage,
    plan: Option<Plan>,
    change: impl FnOnce(&mut Frame, &mut Resizer),
) -> (Vec<u8>, Laid, [u32; 2]) {
    let mut resizer = Resizer::new();
    let mut frame = Frame::new(photo, [photo.width(), photo.height()]);
    change(&mut frame, &mut resizer);
    let size = frame.size();
    let plan = plan.unwrap_or(Plan { canvas: size, resized: size, corner: [0; 2], filter: Filter::Bilinear });
    let mut out = Vec::new();
    let laid = frame.lay(&plan, &mut resizer, &mut out).unwrap();
    (out, laid, plan.canvas)
}

#[test]
fn pixels_and_boxes_are_torchvisions() {
    let expected = expected();
    let photo = image::open(fixtures().join("photo.png")).unwrap().into_rgb8();
    let boxes = corners(&expected["boxes"].1);
    let mut seen = 0;
    for (name, (shape, theirs)) in &expected {
        let Some(operation) = name.strip_suffix(".pixels") else { continue };
        let mut words = operation.split('.');
        let kind = words.next().unwrap();
        let n: Vec<i64> = words.map(|word| word.parse().unwrap()).collect();
        let u = |places: Range<usize>| -> Vec<u32> { n[places].iter().map(|number| *number as u32).collect() };
        let four = |at: usize| <[u32; 4]>::try_from(u(at..at + 4)).unwrap();
        let two = |at: usize| [n[at] as u32, n[at + 1] as u32];
        let plan = |canvas, resized, corner| Some(Plan { canvas, resized, corner, filter: Filter::Bilinear });
        let (pixels, laid, canvas) = match kind {
            "flip" => laid(&photo, None, |frame, _| frame.flip()),
            "crop" => laid(&photo, None, |frame, _| frame.crop(four(0))),
            "stretch" => laid(&photo, plan(two(0), two(0), [0; 2]), |_, _| ()),
            "letterbox" => {
                let fit =
                    letterbox(n[0], n[1]).plan([photo.width(), photo.height()], &mut crate::random::rng(0, 0, 0, ""));
                assert_eq!((fit.canvas, fit.resized), (two(0), two(2)));
                laid(&photo, Some(fit), |_, _| ())
            }
            "place" => laid(&photo, plan(two(0), two(2), [n[4], n[5]]), |_, _| ()),
            "detr" => laid(&photo, plan(two(6), two(6), [0; 2]), |frame, resizer| {
                frame.flip();
                frame.resize(two(0), Filter::Bilinear, resizer).unwrap();
                frame.crop(four(2));
            }),
            other => panic!("{other}"),
        };
        assert_eq!(shape[..2], [canvas[1] as usize, canvas[0] as usize], "{name}");
        let differences = pixels.iter().zip(theirs).map(|(a, b)| a.abs_diff(*b));
        let (most, mean) =
            (differences.clone().max().unwrap(), differences.map(f64::from).sum::<f64>() / theirs.len() as f64);
        // Rounding, of two resizes at most; what is only moved is equal.
        let allowed = match kind {
            "flip" | "crop" => 0,
            _ => 2,
        };
        assert!(most <= allowed && mean <= 0.35, "{name}: mean {mean}, most {most}");
        // What torchvision leaves of a box without area we leave out.
        let theirs = corners(&expected[&format!("{operation}.boxes")].1);
        for (ours, [x0, y0, x1, y1]) in boxes.iter().zip(theirs) {
            let rect = [ours[0], ours[1], ours[2] - ours[0], ours[3] - ours[1]];
            match seen_box(&rect, &laid, canvas) {
                None => assert!(x1 - x0 < 1e-4 || y1 - y0 < 1e-4, "{name}: {rect:?} is missing"),
                Some([cx, cy, w, h]) => {
                    let at = |c: f32, l: f32, side: u32| {
                        (f64::from(c - l / 2.0) * f64::from(side), f64::from(c + l / 2.0) * f64::from(side))
                    };
                    let ((a, c), (b, d)) = (at(cx, w, canvas[0]), at(cy, h, canvas[1]));
                    for (ours, theirs) in [a, b, c, d].into_iter().zip([x0, y0, x1, y1]) {
                        assert!((ours - theirs).abs() < 2e-5 * 64.0, "{name}: {ours} and {theirs}");
                    }
                }
            }
        }
        seen += 1;
    }
    assert_eq!(seen, 9);
}

#[test]
fn grey_stands_beside_the_picture() {
    let white = RgbImage::from_pixel(20, 10, Rgb([255; 3]));
    let fit = letterbox(16, 16).plan([20, 10], &mut crate::random::rng(0, 0, 0, ""));
    let (pixels, laid, _) = laid(&white, Some(fit), |_, _| ());
    assert_eq!(laid.covered, [0, 4, 16, 8]);
    for (place, row) in pixels.chunks_exact(16 * 3).enumerate() {
        let level = if (4..12).contains(&place) { 255 } else { GREY };
        assert!(row.iter().all(|byte| *byte == level), "row {place}");
    }
}

proptest! {
    /// A mark in a photo lies where the axes say, whatever is done; and `to_photo` leads back.
    #[test]
    fn a_box_goes_with_its_pixels(
        flips in (any::<bool>(), any::<bool>()), left in 0_u32..20, top in 0_u32..12, x in 24_u32..40, y in 16_u32..26, grow in 1_u32..4,
    ) {
        // A white box of 8 × 6 pixels on black.
        let mut photo = RgbImage::new(64, 40);
        for (dx, dy) in (0..8).flat_map(|dx| (0..6).map(move |dy| (dx, dy))) {
            photo.put_pixel(x + dx, y + dy, Rgb([255; 3]));
        }
        let (w, h) = (40 * grow, 26 * grow);
        let plan = Plan { canvas: [w + 10, h + 7], resized: [w, h], corner: [4, 5], filter: Filter::Bilinear };
        let (pixels, laid, canvas) = laid(&photo, Some(plan), |frame, _| {
            if flips.0 { frame.flip() }
            frame.crop([left, top, 40, 26]);
            if flips.1 { frame.flip() }
        });
        let rect = [f64::from(x), f64::from(y), 8.0, 6.0];
        let found = seen_box(&rect, &laid, canvas);
        // Columns and rows that are more white than black.
        let bright = |x: u32, y: u32| pixels[3 * (y * canvas[0] + x) as usize] > GREY;
        let columns: Vec<u32> = (0..canvas[0]).filter(|x| (0..canvas[1]).any(|y| bright(*x, y))).collect();
        let rows: Vec<u32> = (0..canvas[1]).filter(|y| (0..canvas[0]).any(|x| bright(x, *y))).collect();
        let Some(fractions) = found else {
            prop_assert!(columns.is_empty(), "{columns:?}");
            return Ok(());
        };
        let [cx, cy, bw, bh] = fractions.map(f64::from);
        for (centre, length, side, lit) in [(cx, bw, canvas[0], columns), (cy, bh, canvas[1], rows)] {
            let (low, high) = ((centre - length / 2.0) * f64::from(side), (centre + length / 2.0) * f64::from(side));
            prop_assert!((low - f64::from(lit[0])).abs() < 0.6, "{low} {lit:?}");
            prop_assert!((high - f64::from(lit[lit.len() - 1] + 1)).abs() < 0.6, "{high} {lit:?}");
        }
        let placed = Placed { index: 0, size: [64, 40], valid: canvas, axes: laid.axes };
        let back = placed.to_photo([cx, cy, bw, bh]);
        let inside = back[0] >= rect[0] - 1e-3 && back[1] >= rect[1] - 1e-3
            && back[0] + back[2] <= rect[0] + 8.0 + 1e-3 && back[1] + back[3] <= rect[1] + 6.0 + 1e-3;
        prop_assert!(inside, "{back:?} {rect:?}");
    }
}

#[test]
fn the_whole_of_a_box_comes_back() {
    for fit in [
        letterbox(48, 64),
        short_side(&[33], Some(70)),
        SceneFit::Stretch { width: 20, height: 50, filter: Filter::Bilinear },
    ] {
        let photo = photo(3, [57, 41]);
        let plan = fit.plan([57, 41], &mut crate::random::rng(0, 0, 0, ""));
        let (_, laid, canvas) = laid(&photo, Some(plan), |_, _| ());
        let rect = [5.5, 7.25, 30.0, 12.5];
        let fractions = seen_box(&rect, &laid, canvas).unwrap().map(f64::from);
        let placed = Placed { index: 0, size: [57, 41], valid: canvas, axes: laid.axes };
        for (ours, there) in placed.to_photo(fractions).into_iter().zip(rect) {
            assert!((ours - there).abs() < 1e-4, "{fit:?}: {ours} {there}");
        }
        // What hangs over the photo's edges is cut there, what lies on it stays.
        let same = placed.on_photo(fractions).into_iter().zip(fractions).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(same, "{fit:?}");
        let [cut, beside] =
            [[0.5, 0.5, 3.0, 3.0], [2.0, 0.5, 0.1, 3.0]].map(|box_| placed.to_photo(placed.on_photo(box_)));
        for (ours, whole) in cut.into_iter().zip([0.0, 0.0, 57.0, 41.0]) {
            assert!((ours - whole).abs() < 1e-9, "{fit:?}: {cut:?}");
        }
        assert!((beside[0] - 57.0).abs() < 1e-9 && beside[2].abs() < 1e-9, "{fit:?}: {beside:?}");
    }
}

/// DETR's policy at its own numbers: sides and share of what is cut.
#[test]
fn crops_have_detrs_sides() {
    let crop = ResizeCrop { p: 0.5, short: vec![400, 500, 600], smallest: 384, largest: 600, filter: Filter::Bilinear };
    let black = RgbImage::new(640, 480);
    let (mut cut, mut shorts) = (0, [0; 3]);
    for sample in 0..200 {
        let mut frame = Frame::new(&black, [640, 480]);
        let augment = SceneAugment::ResizeCrop(crop.clone());
        augment
            .move_pixels(&mut frame, &mut crate::random::rng(1, 0, sample, "resize_crop"), &mut Resizer::new())
            .unwrap();
        let [w, h] = frame.size();
        if (w, h) == (640, 480) {
            continue;
        }
        cut += 1;
        assert!((384..=600).contains(&w) && (384..=600).contains(&h), "{w}×{h}");
        // The height is at most the shorter side that it was cut from.
        shorts[[400, 500, 600].iter().position(|short| h <= *short).unwrap()] += 1;
    }
    assert!((70..=130).contains(&cut) && shorts.iter().all(|n| *n > 5), "{cut} {shorts:?}");
}

//! Against Pillow and torchvision (scripts/fixtures/photos.py), and against definitions.

use std::collections::BTreeMap;

use proptest::prelude::*;
use safetensors::SafeTensors;

use super::*;
use crate::data::stream::decode::Scratch;
use crate::data::stream::view::Cut;
use crate::random::rng;

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/data/stream/fixtures")
}

/// Name → height, width, bytes.
fn expected() -> BTreeMap<String, (usize, usize, Vec<u8>)> {
    let file = fs::read(fixtures().join("expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let entry = |(name, view): (&str, safetensors::tensor::TensorView)| {
        (name.to_string(), (view.shape()[0], view.shape()[1], view.data().to_vec()))
    };
    tensors.iter().map(entry).collect()
}

/// Mean and largest difference in levels of 255.
fn differences(ours: &[u8], theirs: &[u8]) -> (f64, u8) {
    assert_eq!(ours.len(), theirs.len());
    let each = ours.iter().zip(theirs).map(|(a, b)| a.abs_diff(*b));
    (each.clone().map(f64::from).sum::<f64>() / ours.len() as f64, each.max().unwrap())
}

fn square(file: &[u8], edge: u32, filter: Filter, cut: impl Fn([u32; 2]) -> Cut) -> Result<Vec<u8>, String> {
    let mut scratch = Scratch::default();
    scratch.file = file.to_vec();
    let mut square = vec![7; (edge * edge * 3) as usize];
    scratch.squares(std::iter::once(&mut square[..]), edge, filter, |_, size| (cut(size), false))?;
    Ok(square)
}

#[test]
fn pictures_are_what_pillow_reads() {
    let mut seen = 0;
    for (name, (height, width, theirs)) in expected() {
        let Some(file) = name.strip_prefix("rgb.") else { continue };
        // The top left square of the picture, as it is.
        let edge = height.min(width);
        let cut = |size: [u32; 2]| {
            assert_eq!(size, [width as u32, height as u32], "{file}");
            Cut::Part([0, 0, edge as u32, edge as u32])
        };
        let ours = square(&fs::read(fixtures().join(file)).unwrap(), edge as u32, Filter::Bilinear, cut).unwrap();
        let theirs: Vec<u8> =
            theirs.chunks_exact(3 * width).take(edge).flat_map(|row| &row[..3 * edge]).copied().collect();
        let (mean, most) = differences(&ours, &theirs);
        println!("{file}: mean {mean:.3}, most {most}");
        // libjpeg-turbo is what Pillow reads with; what is CMYK, it leaves to the other.
        if file.ends_with("png") || (cfg!(feature = "turbojpeg") && file != "cmyk.jpg") {
            assert_eq!(most, 0, "{file}");
        } else {
            assert!(mean <= 1.0, "{file}: mean {mean}, most {most}");
        }
        seen += 1;
    }
    assert_eq!(seen, 13);
}

#[test]
fn squares_are_what_torchvision_makes() {
    let (mut seen, mut worst) = (0, (0.0, 0));
    for (name, (_, _, theirs)) in expected() {
        let words: Vec<&str> = name.split('.').collect();
        let [kind @ ("middle" | "part"), stem, ending, filter, numbers @ ..] = &words[..] else { continue };
        let filter = if *filter == "bilinear" { Filter::Bilinear } else { Filter::Bicubic };
        let numbers: Vec<u32> = numbers.iter().map(|n| n.parse().unwrap()).collect();
        let edge = *numbers.last().unwrap();
        let file = fs::read(fixtures().join(format!("{stem}.{ending}"))).unwrap();
        let ours = square(&file, edge, filter, |size| match *kind {
            "middle" => TestView::ResizeCrop { resize: i64::from(numbers[0]), filter, edge: None }.cut(size, edge),
            _ => Cut::Part([numbers[0], numbers[1], numbers[2], numbers[3]]),
        });
        let (mean, most) = differences(&ours.unwrap(), &theirs);
        assert!(mean <= 1.0, "{name}: mean {mean}, most {most}");
        // Without the decoder between, rounding is all that differs.
        let decoded = *ending == "jpg" && (cfg!(not(feature = "turbojpeg")) || *stem == "cmyk");
        assert!(decoded || most <= 2, "{name}: mean {mean}, most {most}");
        worst = (f64::max(worst.0, mean), worst.1.max(most));
        seen += 1;
    }
    println!("{seen} squares: mean at most {:.3}, most {}", worst.0, worst.1);
    assert_eq!(seen, 2 * 2 * 8);
}

/// A hundred megapixels are read like any picture, and their buffers are given back.
#[test]
fn a_hundred_megapixels() {
    // Grey that grows to the right, and is white from the middle down.
    let large =
        image::GrayImage::from_fn(12_500, 8000, |x, y| image::Luma([if y < 4000 { (x / 64) as u8 } else { 255 }]));
    let mut file = std::io::Cursor::new(Vec::new());
    large.write_to(&mut file, ImageFormat::Jpeg).unwrap();
    drop(large);
    let mut scratch = Scratch::default();
    scratch.file = file.into_inner();
    let mut square = vec![7; 100 * 100 * 3];
    let view = TestView::ResizeCrop { resize: 100, filter: Filter::Bilinear, edge: None };
    scratch
        .squares(std::iter::once(&mut square[..]), 100, Filter::Bilinear, |_, size| (view.cut(size, 100), false))
        .unwrap();
    // The middle 8000 columns, 80 of them in each pixel.
    for (x, y) in [(0, 0), (50, 20), (99, 48), (10, 60), (90, 99)] {
        let expected = if y < 50 { (2250.0 + 80.0 * (f64::from(x) + 0.5)) / 64.0 - 0.5 } else { 255.0 };
        let found = &square[3 * (100 * y + x as usize)..][..3];
        assert!(found.iter().all(|&value| (f64::from(value) - expected).abs() < 1.5), "{x} {y}: {found:?}, {expected}");
    }
    assert_eq!(scratch.bytes(), 0);
}

#[test]
fn sixteen_bits_give_their_upper_eight() {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 2, 2);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Sixteen);
    encoder.write_header().unwrap().write_image_data(&[1, 255, 2, 0, 3, 128, 255, 255]).unwrap();
    let ours = square(&file, 2, Filter::Bilinear, |_| Cut::Part([0, 0, 2, 2])).unwrap();
    assert_eq!(ours, [1, 1, 1, 2, 2, 2, 3, 3, 3, 255, 255, 255]);
}

/// Pieces of one number decode to that number wherever they lie, however far the aspect goes.
#[test]
fn every_view_fills_its_square() {
    let filters = [Filter::Bilinear, Filter::Bicubic];
    let sizes = [[1, 1], [3, 400], [500, 2], [16, 16], [15, 17], [40, 41]];
    for (size, filter) in sizes.into_iter().flat_map(|size| filters.map(|filter| (size, filter))) {
        let mut file = Vec::new();
        let picture = RgbImage::from_pixel(size[0], size[1], image::Rgb([9, 90, 200]));
        picture.write_to(&mut std::io::Cursor::new(&mut file), ImageFormat::Png).unwrap();
        let trains = [
            TrainView::RandomResizedCrop { scale: [0.08, 1.0], ratio: [0.75, 4.0 / 3.0], filter },
            TrainView::ResizeRandomCrop { resize: [16, 20], filter },
            TrainView::ResizeCrop { resize: 18, filter },
        ];
        for train in trains {
            for sample in 0..60 {
                let cut = |size| train.cut(size, 16, &mut rng(1, 0, sample, "view"));
                let square = square(&file, 16, filter, cut).unwrap();
                // The weights are integers, whose sum may lack a little.
                let near = |pixel: &[u8]| pixel.iter().zip([9_u8, 90, 200]).all(|(a, b)| a.abs_diff(b) <= 1);
                assert!(square.chunks_exact(3).all(near), "{size:?} {train:?}: {:?}", &square[..12]);
            }
        }
    }
}

#[test]
fn what_lacks_is_black_and_the_odd_pixel_at_the_end() {
    let mut file = Vec::new();
    RgbImage::from_pixel(9, 9, image::Rgb([255; 3]))
        .write_to(&mut std::io::Cursor::new(&mut file), ImageFormat::Png)
        .unwrap();
    let view = TestView::ResizeCrop { resize: 9, filter: Filter::Bilinear, edge: None };
    let square = square(&file, 12, Filter::Bilinear, |size| view.cut(size, 12)).unwrap();
    // 3 lack: 1 before, 2 behind.
    let row: Vec<u8> = square[12 * 3 * 5..12 * 3 * 6].iter().step_by(3).copied().collect();
    assert_eq!(row, [0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0]);
    let column: Vec<u8> = square.chunks_exact(36).map(|row| row[15]).collect();
    assert_eq!(column, row);
}

proptest! {
    /// torchvision's get_params: the part lies within, has the share and the shape that were asked for up to rounding.
    #[test]
    fn random_parts_are_within_and_of_the_share(width in 8_u32..600, height in 8_u32..600, sample: u64) {
        let view = TrainView::RandomResizedCrop { scale: [0.2, 0.6], ratio: [0.75, 4.0 / 3.0], filter: Filter::Bilinear };
        let Cut::Part([left, top, w, h]) = view.cut([width, height], 16, &mut rng(2, 1, sample, "view")) else { panic!() };
        prop_assert!(w > 0 && h > 0 && left + w <= width && top + h <= height);
        let (share, shape) = (f64::from(w * h) / f64::from(width * height), f64::from(w) / f64::from(h));
        // Half a pixel each side; long pictures may fall back to the middle, with the nearest shape.
        let (slack_w, slack_h) = (0.5 / f64::from(w), 0.5 / f64::from(h));
        let slack = (1.0 + slack_w) * (1.0 + slack_h) / ((1.0 - slack_w) * (1.0 - slack_h));
        prop_assert!(shape >= 0.75 / slack && shape <= 4.0 / 3.0 * slack, "{shape}");
        if width < 2 * height && height < 2 * width {
            prop_assert!(share >= 0.2 / slack && share <= 0.6 * slack, "{share}");
        }
    }
}

#[test]
fn long_pictures_fall_back_to_the_middle() {
    let view = TrainView::RandomResizedCrop { scale: [0.9, 1.0], ratio: [0.75, 1.5], filter: Filter::Bilinear };
    let part = |size| view.cut(size, 16, &mut rng(2, 1, 1, "view"));
    assert_eq!(part([1000, 10]), Cut::Part([492, 0, 15, 10]));
    assert_eq!(part([9, 1000]), Cut::Part([0, 494, 9, 12]));
}

#[test]
fn impossible_views_are_refused_by_name() {
    let refused = |train: TrainView, test: (i64, Option<i64>), word: &str| {
        let test = TestView::ResizeCrop { resize: test.0, filter: Filter::Bilinear, edge: test.1 };
        let text = refusal(View { train, test }.check(224));
        assert!(text.contains(word), "{text}");
    };
    let filter = Filter::Bilinear;
    let good = TrainView::ResizeCrop { resize: 224, filter };
    let part = |scale, ratio| TrainView::RandomResizedCrop { scale, ratio, filter };
    refused(part([0.0, 1.0], [1.0, 1.0]), (256, None), "view.train.scale is [0, 1]");
    refused(part([0.5, f64::NAN], [1.0, 1.0]), (256, None), "view.train.scale");
    refused(part([0.5, 1.0], [2.0, 1.0]), (256, None), "view.train.ratio is [2, 1]");
    refused(TrainView::ResizeRandomCrop { resize: [200, 480], filter }, (256, None), "view.train.resize is [200, 480]");
    refused(TrainView::ResizeCrop { resize: 223, filter }, (256, None), "224 to 4096");
    refused(good.clone(), (0, None), "view.test.resize is 0");
    refused(good, (256, Some(5000)), "view.test.edge is 5000");
}

//! Photos with boxes from files to batches.

mod faults;
mod formats;
mod order;
mod pictures;

use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage};
use tempfile::TempDir;

use super::*;
use crate::data::stream::tests::{cursor, data, refusal, setup};
use crate::data::{AnnotatedFiles, CanvasConfig, Filter, Flip, SplitFiles};

/// A picture of one colour with a noise that its number tells apart.
fn photo(number: u32, [width, height]: [u32; 2]) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([(number * 37 + 3 * x) as u8, (5 * y + number) as u8, ((x / 4 + y / 3) % 2 * 90 + number * 11 % 100) as u8])
    })
}

fn save(path: &Path, number: u32, size: [u32; 2]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    photo(number, size).save(path).unwrap();
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn letterbox(width: i64, height: i64) -> SceneFit {
    SceneFit::Letterbox { width, height, filter: Filter::Bilinear }
}

fn short_side(short: &[i64], longest: Option<i64>) -> SceneFit {
    SceneFit::ShortSide { short: short.to_vec(), longest, filter: Filter::Bilinear }
}

/// Letterboxes of 32 × 32.
fn plain() -> SceneView {
    SceneView { train: letterbox(32, 32), test: letterbox(32, 32), multi_scale: None }
}

/// Every kind of chance.
fn chance() -> (SceneView, Vec<SceneAugment>) {
    let train = SceneFit::Jitter { width: 32, height: 32, jitter: 0.3, scale: [0.7, 1.4] };
    let crop = ResizeCrop { p: 0.5, short: vec![20, 24], smallest: 16, largest: 24, filter: Filter::Bilinear };
    let augment = vec![
        SceneAugment::Flip(Flip { p: 0.5 }),
        SceneAugment::ResizeCrop(crop),
        SceneAugment::Hsv(Hsv { hue: 0.1, saturation: 1.5, exposure: 1.5 }),
    ];
    (SceneView { train, ..plain() }, augment)
}

fn open_as(
    data: DataConfig,
    classes: Ids,
    (view, augment): (&SceneView, &[SceneAugment]),
    setup: impl FnOnce(Setup) -> Setup,
) -> Result<(Scenes, Vec<String>)> {
    let normalise = Normalise::Channels { mean: vec![0.5, 0.4, 0.3], std: vec![0.2, 0.3, 0.4] };
    let form = SceneForm { classes, stride: 1, view, augment, normalise: &normalise };
    let setup = setup(super::super::tests::setup(data));
    let scenes = Scenes::open(&form, &setup)?;
    Ok((scenes, setup.take_notes()))
}

fn open(data: DataConfig) -> Result<Scenes> {
    open_as(data, Ids::Dense, (&plain(), &[]), |setup| setup).map(|(scenes, _)| scenes)
}

/// A photo's annotations in VOC's XML: name, difficult, corners.
fn xml([width, height]: [u32; 2], objects: &[(&str, bool, [f64; 4])]) -> String {
    let object = |(name, difficult, [x0, y0, x1, y1]): &(&str, bool, [f64; 4])| {
        format!(
            "<object><name>{name}</name><difficult>{}</difficult><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>",
            u8::from(*difficult)
        )
    };
    let objects: String = objects.iter().map(object).collect();
    format!(
        "<annotation><size><width>{width}</width><height>{height}</height><depth>3</depth></size>{objects}</annotation>"
    )
}

/// VOC's layout: eight photos of unlike sizes to train on, two to test on.
fn voc() -> TempDir {
    let dir = TempDir::new().unwrap();
    let root = dir.path();
    let mut lists = (String::new(), String::new());
    for number in 0..10_u32 {
        let size = [30 + 3 * number, 40 - 2 * number];
        let name = format!("p{number}");
        save(&root.join(format!("JPEGImages/{name}.png")), number, size);
        let far = [f64::from(size[0]) - 6.0, 2.0, f64::from(size[0]), 12.0];
        let all = [("cat", false, [1.0, 2.0, 15.0, 14.0]), ("ant", number == 3, far)];
        // The last of each split has nothing to find.
        let there = if number == 7 || number == 9 { 0 } else { 1 + number as usize % 2 };
        write(&root.join(format!("Annotations/{name}.xml")), &xml(size, &all[..there]));
        let list = if number < 8 { &mut lists.0 } else { &mut lists.1 };
        *list += &format!("{name}\n");
    }
    write(&root.join("ImageSets/Main/train.txt"), &lists.0);
    write(&root.join("ImageSets/Main/test.txt"), &lists.1);
    dir
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.contiguous().view(-1)).unwrap()
}

fn same(a: &SceneBatch, b: &SceneBatch) -> bool {
    let padding = match (&a.padding, &b.padding) {
        (Some(a), Some(b)) => a.equal(b),
        (None, None) => true,
        _ => false,
    };
    padding
        && a.image.equal(&b.image)
        && a.photos == b.photos
        && a.targets.counts == b.targets.counts
        && a.targets.boxes.equal(&b.targets.boxes)
        && a.targets.labels.equal(&b.targets.labels)
}

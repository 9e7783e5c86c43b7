//! The stream from files to batches.

mod faults;
mod names;
mod order;
mod photos;
mod shards;

use std::fs;
use std::path::Path;

use image::{ImageFormat, RgbImage};
use tch::{Device, Tensor};
use tempfile::TempDir;

use super::loader::{Drawn, Seen};
use super::*;
use crate::config::{DataConfig, Length, Settings};
use crate::data::{Filter, Flip, Normalise, Pass, Pictures};

/// Edge of the squares.
const EDGE: i64 = 16;

pub(super) fn data(name: &str, root: &Path) -> DataConfig {
    DataConfig { root: Some(root.display().to_string()), workers: Some(2), ..DataConfig::named(name) }
}

pub(super) fn setup(data: DataConfig) -> Setup {
    Setup::new(Settings { length: Length::Steps(1), ..Settings::plain(data, 4) }, Device::Cpu).unwrap()
}

pub(super) fn view() -> View {
    View {
        train: TrainView::RandomResizedCrop { scale: [0.3, 1.0], ratio: [0.75, 4.0 / 3.0], filter: Filter::Bilinear },
        test: TestView::ResizeCrop { resize: 20, filter: Filter::Bilinear, edge: None },
    }
}

/// The stream over a set, with flips.
pub(super) fn open(data: DataConfig, classes: i64) -> Result<Stream> {
    open_with(data, classes, &view(), &[Augment::Flip(Flip { p: 0.5 })])
}

pub(super) fn open_with(data: DataConfig, classes: i64, view: &View, augment: &[Augment]) -> Result<Stream> {
    let normalise = Normalise::Channels { mean: vec![0.5, 0.4, 0.3], std: vec![0.2, 0.3, 0.4] };
    let form = Form { edge: EDGE, channels: 3, classes, augment, normalise: &normalise, view: Some(view) };
    match Pictures::open(&form, &setup(data))? {
        Pictures::Stream(stream) => Ok(stream),
        Pictures::Resident(_) => panic!("photos are no resident set"),
    }
}

/// A picture that its number tells apart.
pub(super) fn picture(number: u32) -> RgbImage {
    RgbImage::from_fn(24 + number % 7, 20 + number % 5, |x, y| {
        image::Rgb([
            (number * 37 + 3 * x) as u8,
            (5 * y + number) as u8,
            ((x / 4 + y / 3) % 2 * 90 + number * 11 % 100) as u8,
        ])
    })
}

pub(super) fn write(path: &Path, number: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let format =
        if path.extension().unwrap().eq_ignore_ascii_case("png") { ImageFormat::Png } else { ImageFormat::Jpeg };
    picture(number).save_with_format(path, format).unwrap();
}

/// 11 pictures of class `a`, 8 of class `b` to train on, 3 and 2 to test on, of both kinds, some in folders of their own.
pub(super) fn folder() -> TempDir {
    let dir = TempDir::new().unwrap();
    let at = |name: String| dir.path().join(name);
    for i in 0..11 {
        write(&at(format!("train/a/{i:02}.{}", if i % 3 == 0 { "JPEG" } else { "png" })), i);
    }
    for i in 0..8 {
        write(&at(format!("train/b/{}{i}.jpg", if i > 5 { "inner/" } else { "" })), 20 + i);
    }
    for i in 0..5 {
        write(&at(format!("val/{}/{i}.Png", if i < 3 { "a" } else { "b" })), 40 + i);
    }
    fs::write(at("train/a/readme.txt".into()), "no picture").unwrap();
    dir
}

pub(super) fn cursor(step: u64, batch: u64) -> Cursor {
    Cursor { seed: 3, step, rank: 0, world: 1, batch, pass: Pass::DropRest, repeats: 1 }
}

/// The draws of one view with flips, at seed 3.
pub(super) fn drawn(epoch: u64) -> Drawn<Seen> {
    Drawn { seed: 3, epoch, step: 0, how: [(String::new(), Some(Flip { p: 0.5 }))].into() }
}

pub(super) fn take(stream: &Stream, from: Cursor, steps: usize) -> Vec<Images> {
    stream.batches(from).take(steps).collect::<Result<_>>().unwrap()
}

/// The refusal's text.
pub(super) fn refusal<T>(found: Result<T>) -> String {
    match found {
        Err(Error::User(text)) => text,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("not refused"),
    }
}

pub(super) fn same(a: &[Images], b: &[Images]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.image.equal(&b.image) && a.label.equal(&b.label))
}

pub(super) fn labels(images: &Images) -> Vec<i64> {
    Vec::try_from(&images.label).unwrap()
}

pub(super) fn mean_difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().mean(Kind::Double).double_value(&[])
}

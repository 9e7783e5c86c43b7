//! Digits strewn over black pictures, with exact boxes. Which digits, how large and where is a pure function of the set and the picture's number,
//! the same for every seed.

use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};

use super::photos::{Found, Photos};
use crate::classes::DIGITS;
use crate::config::CanvasConfig;
use crate::data::root::folder_of;
use crate::data::{DataConfig, ImageSet, idx, synthetic};
use crate::detection::Truth;
use crate::random::{below, rng};
use crate::{Result, user};

/// Edge of a digit before it is resized.
const SIDE: usize = 28;
/// How often a place is looked for, before a digit is left out.
const TRIES: usize = 30;
/// Largest part of the smaller of two boxes that the other may cover.
const SHARED: f64 = 0.1;
/// Pictures to train and to test on of `synthetic_canvases`.
const DRAWN: (u64, u64) = (256, 64);
/// Digits that `synthetic_canvases` draws for either of them to take.
const GLYPHS: u64 = 200;

/// Pictures of one split.
#[derive(Debug)]
pub(super) struct Canvases {
    digits: Arc<Digits>,
    /// `train` or `test`: tells their draws apart.
    set: &'static str,
    /// Width and height.
    size: [u32; 2],
    objects: [u64; 2],
    edges: [u64; 2],
    /// The numbers of the pictures.
    numbers: Vec<i64>,
    /// Found out when they are first asked for.
    truths: Vec<OnceLock<Box<[Truth]>>>,
}

/// Digits of white on black.
#[derive(Debug)]
struct Digits {
    /// 28 × 28 bytes each.
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

/// A digit on a picture.
struct Object {
    class: usize,
    /// Left, top, width, height of what is not black.
    rect: [u32; 4],
    /// The pixels there.
    pixels: Vec<u8>,
}

/// The set of digits that `config` names, on pictures of `size` (width, height).
///
/// # Errors
/// MNIST's files are missing; digits larger than the pictures; keys that are missing or cannot act.
pub(super) fn open(config: &DataConfig, size: [u32; 2]) -> Result<Found> {
    let edge = u64::from(size[0].min(size[1]));
    let drawn = CanvasConfig { train: DRAWN.0, test: DRAWN.1, objects: [1, 3], size: [edge / 4, edge / 2] };
    let (canvases, train, test) = match (config.name.as_str(), &config.canvases) {
        ("canvases", Some(canvases)) => {
            let splits =
                idx::splits("mnist", &folder_of(&DataConfig { name: "mnist".into(), ..config.clone() })?, &DIGITS)?;
            (canvases, Digits::of(&splits.train)?, Digits::of(&splits.test)?)
        }
        ("canvases", None) => {
            return Err(user!(
                "data.canvases is missing: write how digits are strewn, such as data.canvases={{train: 8000, test: 1000, objects: [1, 5], size: [20, 56]}}"
            ));
        }
        (name, Some(_)) => return Err(user!("data.canvases cannot act on {name}; remove the key")),
        (name, None) if config.root.is_some() => {
            return Err(user!("data.root cannot act on {name}, which is drawn by code; remove the key"));
        }
        _ => (&drawn, Digits::drawn(0), Digits::drawn(GLYPHS)),
    };
    if canvases.size[1] > edge || canvases.size[0] == 0 {
        return Err(user!(
            "data.canvases.size is {:?}, but the pictures are {}×{}; choose at most {edge}",
            canvases.size,
            size[0],
            size[1]
        ));
    }
    let split = |digits, set, n: u64| {
        let numbers: Vec<i64> = (0..n as i64).collect();
        let truths = numbers.iter().map(|_| OnceLock::new()).collect();
        let CanvasConfig { objects, size: edges, .. } = *canvases;
        Photos::Canvases(Canvases { digits: Arc::new(digits), set, size, objects, edges, numbers, truths })
    };
    Ok(Found {
        train: Some(split(train, "train", canvases.train)),
        validation: None,
        test: split(test, "test", canvases.test),
        classes: DIGITS.map(String::from).to_vec(),
        categories: (0..10).collect(),
        notes: Vec::new(),
    })
}

impl Digits {
    fn of(set: &ImageSet) -> Result<Self> {
        if set.shape() != [1, SIDE as i64, SIDE as i64] {
            return Err(user!(
                "the digits are {:?} and not of 28×28 pixels; get MNIST with `scripts/get_data.sh mnist`",
                set.shape()
            ));
        }
        let (labels, pixels) = set.host()?;
        Ok(Self { pixels, labels })
    }

    /// Drawn by code, the first as number `first`.
    fn drawn(first: u64) -> Self {
        let labels: Vec<u8> = (0..GLYPHS).map(|place| (place % 10) as u8).collect();
        let each = labels.iter().zip(first..);
        let pixels = each.flat_map(|(label, number)| synthetic::glyph(number, usize::from(*label))).collect();
        Self { pixels, labels }
    }
}

impl Canvases {
    pub(super) fn len(&self) -> u64 {
        self.numbers.len() as u64
    }

    pub(super) fn told(&self, sample: i64) -> String {
        format!("{} canvas {}", self.set, self.number(sample))
    }

    pub(super) fn number(&self, sample: i64) -> i64 {
        self.numbers[sample as usize]
    }

    pub(super) fn truths(&self, sample: i64) -> &[Truth] {
        self.truths[sample as usize].get_or_init(|| {
            let truth = |Object { class, rect, .. }| {
                let rect = rect.map(f64::from);
                Truth { class, rect, area: rect[2] * rect[3], crowd: false, difficult: false }
            };
            self.objects(self.number(sample)).into_iter().map(truth).collect()
        })
    }

    pub(super) fn part(&self, places: &[i64]) -> Self {
        let Self { digits, set, size, objects, edges, .. } = self;
        let numbers: Vec<i64> = places.iter().map(|place| self.number(*place)).collect();
        let truths = numbers.iter().map(|_| OnceLock::new()).collect();
        let (digits, set) = (digits.clone(), *set);
        Self { digits, set, size: *size, objects: *objects, edges: *edges, numbers, truths }
    }

    pub(super) fn hash(&self, split: &str, hash: &mut Sha256) {
        let Self { set, size, objects, edges, numbers, .. } = self;
        hash.update(format!("{split}\n{set}\n{size:?}\n{objects:?}\n{edges:?}\n{numbers:?}\n"));
        hash.update(&self.digits.labels);
        hash.update(&self.digits.pixels);
    }

    /// The picture, height × width × 3, and its width and height.
    pub(super) fn draw(&self, sample: i64) -> (Vec<u8>, [u32; 2]) {
        let [width, height] = self.size.map(|side| side as usize);
        let mut picture = vec![0; width * height * 3];
        for Object { rect, pixels, .. } in self.objects(self.number(sample)) {
            let [left, top, w, _] = rect.map(|side| side as usize);
            for (y, row) in pixels.chunks_exact(w).enumerate() {
                let start = ((top + y) * width + left) * 3;
                for (pixel, ink) in picture[start..start + 3 * w].as_chunks_mut::<3>().0.iter_mut().zip(row) {
                    *pixel = [pixel[0].max(*ink); 3];
                }
            }
        }
        (picture, self.size)
    }

    /// What stands on the picture of this number.
    fn objects(&self, number: i64) -> Vec<Object> {
        let rng = &mut rng(0, 0, number as u64, &format!("canvas {}", self.set));
        let mut between = |[low, high]: [u64; 2]| low + below(rng, high - low + 1);
        let mut objects: Vec<Object> = Vec::new();
        for _ in 0..between(self.objects) {
            let digit = between([0, self.digits.labels.len() as u64 - 1]) as usize;
            let edge = between(self.edges) as usize;
            let (pixels, [width, height]) =
                tight(&resized(&self.digits.pixels[digit * SIDE * SIDE..][..SIDE * SIDE], edge), edge);
            if pixels.is_empty() {
                continue;
            }
            for _ in 0..TRIES {
                let left = between([0, u64::from(self.size[0] - width)]) as u32;
                let top = between([0, u64::from(self.size[1] - height)]) as u32;
                let rect = [left, top, width, height];
                if objects.iter().all(|other| shared(rect, other.rect) <= SHARED) {
                    objects.push(Object { class: usize::from(self.digits.labels[digit]), rect, pixels });
                    break;
                }
            }
        }
        objects
    }
}

/// The part of the smaller of two boxes that both cover.
fn shared(a: [u32; 4], b: [u32; 4]) -> f64 {
    let span = |axis: usize| {
        let (low, high) = (a[axis].max(b[axis]), (a[axis] + a[axis + 2]).min(b[axis] + b[axis + 2]));
        f64::from(high.saturating_sub(low))
    };
    let area = |[_, _, w, h]: [u32; 4]| f64::from(w) * f64::from(h);
    span(0) * span(1) / area(a).min(area(b))
}

/// A digit resized to `edge`, blended linearly, pixels being squares; only additions and multiplications, so that every machine draws the same.
fn resized(digit: &[u8], edge: usize) -> Vec<u8> {
    let places: Vec<(usize, usize, f64)> = (0..edge)
        .map(|place| {
            let at = ((place as f64 + 0.5) * SIDE as f64 / edge as f64 - 0.5).clamp(0.0, SIDE as f64 - 1.0);
            let first = at as usize;
            (first, (first + 1).min(SIDE - 1), at - first as f64)
        })
        .collect();
    let mut made = Vec::with_capacity(edge * edge);
    for &(top, bottom, v) in &places {
        for &(left, right, u) in &places {
            let at = |y: usize, x: usize| f64::from(digit[y * SIDE + x]);
            let row = |y: usize| at(y, left) * (1.0 - u) + at(y, right) * u;
            made.push((row(top) * (1.0 - v) + row(bottom) * v + 0.5) as u8);
        }
    }
    made
}

/// The smallest part that holds all that is not black, and its width and height.
fn tight(picture: &[u8], edge: usize) -> (Vec<u8>, [u32; 2]) {
    let inked = |x: usize, y: usize| picture[y * edge + x] > 0;
    let rows: Vec<usize> = (0..edge).filter(|y| (0..edge).any(|x| inked(x, *y))).collect();
    let columns: Vec<usize> = (0..edge).filter(|x| (0..edge).any(|y| inked(*x, y))).collect();
    let (Some(top), Some(bottom)) = (rows.first(), rows.last()) else { return (Vec::new(), [0; 2]) };
    let (Some(left), Some(right)) = (columns.first(), columns.last()) else { return (Vec::new(), [0; 2]) };
    let part = (*top..=*bottom).flat_map(|y| picture[y * edge + left..=y * edge + right].iter().copied());
    (part.collect(), [(right - left + 1) as u32, (bottom - top + 1) as u32])
}

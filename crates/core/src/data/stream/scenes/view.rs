//! How a photo with boxes becomes what a network takes.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use crate::data::Filter;
use crate::random::{below, rng, uniform};
use crate::{Result, user};

/// Largest side that pictures are resized to, in pixels.
const MOST: i64 = 4096;

/// The pictures that are trained and tested on.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct SceneView {
    /// Of training pictures.
    pub train: SceneFit,
    /// Of pictures to evaluate on, without chance.
    pub test: SceneFit,
    /// Other sizes of training pictures from time to time. `None`: one size.
    pub multi_scale: Option<MultiScale>,
}

/// How a picture comes to its size.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum SceneFit {
    /// The shorter side becomes one of several lengths (of one, without chance), the longer side follows: DETR's RandomResize.
    ShortSide {
        /// Lengths in pixels.
        short: Vec<i64>,
        /// Longest that the longer side may become; then the shorter is shorter. `None`: any.
        longest: Option<i64>,
        /// How pixels are blended.
        filter: Filter,
    },
    /// As large as it fits in with its own shape, in the middle of grey (128): Darknet's letterbox_image.
    Letterbox {
        /// In pixels.
        width: i64,
        /// In pixels.
        height: i64,
        /// How pixels are blended.
        filter: Filter,
    },
    /// Resized to width and height, whatever its shape.
    Stretch {
        /// In pixels.
        width: i64,
        /// In pixels.
        height: i64,
        /// How pixels are blended.
        filter: Filter,
    },
    /// For training: of a random shape and size, at a random place on grey (128), blended linearly. Width by height of the photo is
    /// (w + u·jitter·w) / (h + v·jitter·h) with u and v uniform in [−1, 1); as large as this fits in, times the scale; a place is uniform among
    /// those where one of picture and network lies within the other, on each axis. With a scale of 1 and a square network these are the numbers
    /// of load_data_detection in Darknet (pjreddie/darknet@f6afaab, src/data.c), rounded to pixels before boxes are moved.
    Jitter {
        /// In pixels.
        width: i64,
        /// In pixels.
        height: i64,
        /// Change of each side, in [0, 1).
        jitter: f64,
        /// Smallest and largest size against the one that fits in; uniform.
        scale: [f64; 2],
    },
}

/// Square training pictures of another size every so many steps: Darknet's `random=1`. The size is a pure function of seed and step.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct MultiScale {
    /// Steps of one size.
    pub every: u64,
    /// Edges in pixels, equally likely.
    pub sizes: Vec<i64>,
}

/// Where a picture goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Plan {
    /// Width and height of what is made.
    pub(super) canvas: [u32; 2],
    /// Width and height of the resized picture.
    pub(super) resized: [u32; 2],
    /// Left and top of the resized picture on the canvas.
    pub(super) corner: [i64; 2],
    pub(super) filter: Filter,
}

impl SceneView {
    /// Refuses sizes and ranges that cannot be, for a network whose sides are multiples of `stride`.
    ///
    /// # Errors
    /// Names the key.
    pub fn check(&self, stride: i64) -> Result<()> {
        self.train.check("view.train", stride)?;
        self.test.check("view.test", stride)?;
        match &self.test {
            SceneFit::ShortSide { short, .. } if short.len() != 1 => {
                return Err(user!("view.test.short is {short:?}; pictures are tested at one length, such as [800]"));
            }
            SceneFit::Jitter { .. } => {
                return Err(user!(
                    "view.test.kind is jitter, which is random; choose letterbox, stretch or short_side"
                ));
            }
            _ => {}
        }
        let Some(MultiScale { every, sizes }) = &self.multi_scale else { return Ok(()) };
        if matches!(self.train, SceneFit::ShortSide { .. }) {
            return Err(user!(
                "view.multi_scale cannot act with view.train.kind=short_side, which has its own lengths"
            ));
        }
        if *every == 0 {
            return Err(user!("view.multi_scale.every is 0; write a number of steps, such as 10"));
        }
        if sizes.is_empty() {
            return Err(user!("view.multi_scale.sizes is empty; write edges in pixels, such as [320, 416, 608]"));
        }
        sizes.iter().try_for_each(|size| side("view.multi_scale.sizes", *size, stride))
    }

    /// How training pictures come to their size at a step.
    pub(super) fn train_at(&self, seed: u64, step: u64) -> SceneFit {
        let mut fit = self.train.clone();
        if let Some(MultiScale { every, sizes }) = &self.multi_scale {
            let size = sizes[below(&mut rng(seed, 0, step / every, "multi_scale"), sizes.len() as u64) as usize];
            if let SceneFit::Letterbox { width, height, .. }
            | SceneFit::Stretch { width, height, .. }
            | SceneFit::Jitter { width, height, .. } = &mut fit
            {
                [*width, *height] = [size; 2];
            }
        }
        fit
    }

    /// Width and height of pictures that are drawn for this view: those of the pictures to evaluate on.
    pub fn nominal(&self) -> [u32; 2] {
        match &self.test {
            SceneFit::ShortSide { short, .. } => [short[0] as u32; 2],
            SceneFit::Letterbox { width, height, .. }
            | SceneFit::Stretch { width, height, .. }
            | SceneFit::Jitter { width, height, .. } => [*width as u32, *height as u32],
        }
    }
}

fn side(key: &str, length: i64, stride: i64) -> Result<()> {
    if (1..=MOST).contains(&length) && length % stride == 0 {
        return Ok(());
    }
    let rule = if stride > 1 { format!(", a multiple of {stride}") } else { String::new() };
    Err(user!("{key} is {length}; write a length in pixels from 1 to {MOST}{rule}"))
}

impl SceneFit {
    fn check(&self, key: &str, stride: i64) -> Result<()> {
        match self {
            // Its sides are padded to multiples.
            SceneFit::ShortSide { short, longest, .. } => {
                if short.is_empty() {
                    return Err(user!("{key}.short is empty; write lengths in pixels, such as [800]"));
                }
                short.iter().try_for_each(|length| side(&format!("{key}.short"), *length, 1))?;
                longest.map_or(Ok(()), |length| side(&format!("{key}.longest"), length, 1))
            }
            SceneFit::Letterbox { width, height, .. } | SceneFit::Stretch { width, height, .. } => {
                side(&format!("{key}.width"), *width, stride)?;
                side(&format!("{key}.height"), *height, stride)
            }
            SceneFit::Jitter { width, height, jitter, scale: [low, high] } => {
                side(&format!("{key}.width"), *width, stride)?;
                side(&format!("{key}.height"), *height, stride)?;
                if !(0.0..1.0).contains(jitter) {
                    return Err(user!("{key}.jitter is {jitter}; write a number from 0 to below 1"));
                }
                if !(0.05 <= *low && low <= high && *high <= 20.0) {
                    return Err(user!("{key}.scale is [{low}, {high}]; write two factors, 0.05 ≤ low ≤ high ≤ 20"));
                }
                Ok(())
            }
        }
    }

    /// Where a picture of `size` (width, height) goes this time; without chance `rng` is not asked.
    pub(super) fn plan(&self, size: [u32; 2], rng: &mut ChaCha8Rng) -> Plan {
        match self {
            SceneFit::ShortSide { short, longest, filter } => {
                let length = pick(short, rng);
                let resized = short_side(size, length, *longest);
                Plan { canvas: resized, resized, corner: [0; 2], filter: *filter }
            }
            SceneFit::Letterbox { width, height, filter } => {
                let canvas = [*width as u32, *height as u32];
                let resized = letterboxed(size, canvas);
                let corner = [0, 1].map(|axis| i64::from((canvas[axis] - resized[axis]) / 2));
                Plan { canvas, resized, corner, filter: *filter }
            }
            SceneFit::Stretch { width, height, filter } => {
                let canvas = [*width as u32, *height as u32];
                Plan { canvas, resized: canvas, corner: [0; 2], filter: *filter }
            }
            SceneFit::Jitter { width, height, jitter, scale } => {
                let (canvas, net) = ([*width as u32, *height as u32], [*width as f64, *height as f64]);
                let [w, h] = size.map(|side| f64::from(side) * (1.0 + jitter * uniform(rng, -1.0, 1.0)));
                let scale = uniform(rng, scale[0], scale[1]);
                let fitting = if w * net[1] < h * net[0] { [net[1] * w / h, net[1]] } else { [net[0], net[0] * h / w] };
                let resized = fitting.map(|side| (side * scale).round().max(1.0) as u32);
                let corner = [0, 1].map(|axis| {
                    let room = i64::from(canvas[axis]) - i64::from(resized[axis]);
                    let place = below(rng, room.unsigned_abs() + 1) as i64;
                    place * room.signum()
                });
                Plan { canvas, resized, corner, filter: Filter::Bilinear }
            }
        }
    }
}

/// One of several values; of one, without a draw.
pub(super) fn pick(values: &[i64], rng: &mut ChaCha8Rng) -> i64 {
    if values.len() == 1 { values[0] } else { values[below(rng, values.len() as u64) as usize] }
}

/// Width and height after the shorter side has become `short`, or so much less that the longer one does not exceed `longest`. The rounding is
/// DETR's (facebookresearch/detr@29901c5, datasets/transforms.py): the shorter side to the nearest, halves to even, the longer down.
pub(super) fn short_side([width, height]: [u32; 2], mut short: i64, longest: Option<i64>) -> [u32; 2] {
    let (w, h) = (i64::from(width), i64::from(height));
    let (low, high) = (w.min(h), w.max(h));
    if let Some(longest) = longest
        && high as f64 / low as f64 * short as f64 > longest as f64
    {
        short = ((longest * low) as f64 / high as f64).round_ties_even().max(1.0) as i64;
    }
    let long = (short * high / low).min(i64::from(u32::MAX));
    let [short, long] = [short, long].map(|side| side as u32);
    if w < h { [short, long] } else { [long, short] }
}

/// Width and height as large as fits into `canvas`, rounded down as Darknet does (src/image.c).
fn letterboxed([width, height]: [u32; 2], canvas: [u32; 2]) -> [u32; 2] {
    let ([w, h], [cw, ch]) = ([width, height].map(u64::from), canvas.map(u64::from));
    let resized = if cw * h < ch * w { [cw, h * cw / w] } else { [w * ch / h, ch] };
    resized.map(|side| side.max(1) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chance() -> ChaCha8Rng {
        rng(1, 2, 3, "view")
    }

    /// The numbers that DETR's get_size_with_aspect_ratio gives (evaluated in Python).
    #[test]
    fn the_short_side_is_detrs() {
        for (size, short, longest, expected) in [
            ([640, 480], 800, Some(1333), [1066, 800]),
            ([480, 640], 800, Some(1333), [800, 1066]),
            ([500, 500], 480, Some(1333), [480, 480]),
            ([1000, 300], 800, Some(1333), [1333, 400]),
            ([427, 640], 800, Some(1333), [800, 1199]),
            ([640, 230], 800, Some(1333), [1332, 479]),
            ([640, 480], 512, None, [682, 512]),
        ] {
            assert_eq!(short_side(size, short, longest), expected, "{size:?} {short}");
        }
    }

    #[test]
    fn a_letterbox_has_darknets_numbers() {
        let fit = SceneFit::Letterbox { width: 416, height: 416, filter: Filter::Bilinear };
        for (size, resized, corner) in
            [([640, 480], [416, 312], [0, 52]), ([427, 640], [277, 416], [69, 0]), ([416, 416], [416, 416], [0, 0])]
        {
            let plan = fit.plan(size, &mut chance());
            assert_eq!((plan.canvas, plan.resized, plan.corner), ([416, 416], resized, corner));
        }
        // A sliver keeps a pixel.
        assert_eq!(fit.plan([5000, 3], &mut chance()).resized, [416, 1]);
    }

    #[test]
    fn jitter_stays_in_its_range() {
        let fit = SceneFit::Jitter { width: 96, height: 64, jitter: 0.3, scale: [0.5, 2.0] };
        let (mut inside, mut beyond) = (0, 0);
        for sample in 0..500 {
            let Plan { canvas, resized: [w, h], corner, .. } = fit.plan([60, 50], &mut rng(1, 0, sample, "view"));
            assert_eq!(canvas, [96, 64]);
            let shape = f64::from(w) / f64::from(h);
            // 1.2 times 1.3 / 0.7 at most, and the rounding to pixels.
            assert!((1.2 * 0.7 / 1.3 - 0.05..=1.2 * 1.3 / 0.7 + 0.08).contains(&shape), "{shape}");
            for (side, corner, whole) in [(i64::from(w), corner[0], 96), (i64::from(h), corner[1], 64)] {
                let room = whole - side;
                assert!((room.min(0)..=room.max(0)).contains(&corner), "{side} at {corner} of {whole}");
            }
            inside += i32::from(w <= 96 && h <= 64);
            beyond += i32::from(w > 96 || h > 64);
        }
        assert!(inside > 100 && beyond > 100, "{inside} {beyond}");
        let still = SceneFit::Jitter { width: 64, height: 64, jitter: 0.0, scale: [1.0, 1.0] };
        assert_eq!(still.plan([60, 30], &mut chance()).resized, [64, 32]);
    }

    #[test]
    fn sizes_change_with_the_step_alone() {
        let fit = SceneFit::Stretch { width: 64, height: 64, filter: Filter::Bilinear };
        let scales = MultiScale { every: 10, sizes: vec![32, 64, 96] };
        let view = SceneView { train: fit.clone(), test: fit, multi_scale: Some(scales) };
        let edge = |seed, step| match view.train_at(seed, step) {
            SceneFit::Stretch { width, height, .. } if width == height => width,
            other => panic!("{other:?}"),
        };
        for step in 0..200 {
            assert_eq!(edge(1, step), edge(1, step / 10 * 10));
        }
        let sizes: Vec<i64> = (0..60).map(|round| edge(1, 10 * round)).collect();
        for size in [32, 64, 96] {
            assert!((10..=30).contains(&sizes.iter().filter(|other| **other == size).count()), "{sizes:?}");
        }
        assert_ne!(sizes, (0..60).map(|round| edge(2, 10 * round)).collect::<Vec<_>>());
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_key() {
        let letterbox = |width, height| SceneFit::Letterbox { width, height, filter: Filter::Bilinear };
        let short =
            |short: &[i64]| SceneFit::ShortSide { short: short.to_vec(), longest: None, filter: Filter::Bilinear };
        let jitter = |jitter, scale| SceneFit::Jitter { width: 64, height: 64, jitter, scale };
        let of = |train, test| SceneView { train, test, multi_scale: None };
        let scaled = |every, sizes: &[i64]| SceneView {
            multi_scale: Some(MultiScale { every, sizes: sizes.to_vec() }),
            ..of(letterbox(64, 64), letterbox(64, 64))
        };
        for (view, word) in [
            (of(letterbox(60, 64), letterbox(64, 64)), "view.train.width is 60"),
            (of(letterbox(64, 64), letterbox(64, 0)), "view.test.height is 0"),
            (of(short(&[]), letterbox(64, 64)), "view.train.short is empty"),
            (of(letterbox(64, 64), short(&[32, 64])), "view.test.short"),
            (of(letterbox(64, 64), jitter(0.1, [1.0, 1.0])), "view.test.kind is jitter"),
            (of(jitter(1.0, [1.0, 1.0]), letterbox(64, 64)), "view.train.jitter is 1"),
            (of(jitter(0.2, [2.0, 1.0]), letterbox(64, 64)), "view.train.scale is [2, 1]"),
            (scaled(0, &[64]), "view.multi_scale.every"),
            (scaled(10, &[]), "view.multi_scale.sizes is empty"),
            (scaled(10, &[64, 50]), "view.multi_scale.sizes is 50"),
        ] {
            let text = view.check(32).unwrap_err().to_string();
            assert!(text.contains(word), "{text}");
        }
        assert!(scaled(10, &[32, 64]).check(32).is_ok() && of(short(&[50, 60]), short(&[50])).check(32).is_ok());
    }
}

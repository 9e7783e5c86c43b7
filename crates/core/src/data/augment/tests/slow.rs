//! The operations pixel by pixel in float64, from their definitions.

use tch::{Device, Kind, Tensor};

use crate::data::augment::colour::{Change, jitter};
use crate::data::augment::rand_augment::{OPERATIONS, Operation, take};

/// One picture of C planes.
#[derive(Clone)]
struct Picture {
    h: usize,
    w: usize,
    planes: Vec<Vec<f64>>,
}

type Colour = [f64; 3];

impl Picture {
    fn of(image: &Tensor) -> Self {
        let [_, h, w] = image.size()[..] else { panic!("{image:?}") };
        let planes = Vec::<Vec<f64>>::try_from(image.to_kind(Kind::Double).flatten(1, 2)).unwrap();
        Self { h: h as usize, w: w as usize, planes }
    }

    /// Each value from the plane it is in, its row and its column.
    fn values(&self, of: impl Fn(&[f64], usize, usize) -> f64) -> Self {
        let plane = |p: &Vec<f64>| (0..self.h * self.w).map(|at| of(p, at / self.w, at % self.w)).collect();
        Self { planes: self.planes.iter().map(plane).collect(), ..*self }
    }

    fn colours(&self, of: impl Fn(Colour) -> Colour) -> Self {
        let mut result = self.clone();
        for at in 0..self.h * self.w {
            let colour = of([0, 1, 2].map(|c| self.planes[c][at]));
            (0..3).for_each(|c| result.planes[c][at] = colour[c]);
        }
        result
    }
}

fn grey([r, g, b]: Colour) -> f64 {
    0.2989 * r + 0.587 * g + 0.114 * b
}

/// Hue in degrees, saturation, value, after the textbook (A. R. Smith 1978).
fn hsv([r, g, b]: Colour) -> Colour {
    let (high, low) = (r.max(g).max(b), r.min(g).min(b));
    let range = high - low;
    let hue = match () {
        () if range == 0.0 => 0.0,
        () if high == r => 60.0 * (g - b) / range,
        () if high == g => 60.0 * (b - r) / range + 120.0,
        () => 60.0 * (r - g) / range + 240.0,
    };
    [hue.rem_euclid(360.0), if high == 0.0 { 0.0 } else { range / high }, high]
}

fn rgb([hue, saturation, value]: Colour) -> Colour {
    let sector = (hue / 60.0).floor();
    let f = hue / 60.0 - sector;
    let p = value * (1.0 - saturation);
    let q = value * (1.0 - saturation * f);
    let t = value * (1.0 - saturation * (1.0 - f));
    match sector as i64 {
        0 => [value, t, p],
        1 => [q, value, p],
        2 => [p, value, t],
        3 => [p, q, value],
        4 => [t, p, value],
        _ => [value, p, q],
    }
}

/// Pictures that differ in all that counts: noise, few levels, a plane of one value.
fn pictures() -> Tensor {
    let value = |i: i64| match (i / 357, i % 357) {
        (0..3, at) => (at * at * 7 + i * 31) % 256,
        (3, at) => [3, 90, 200][at as usize % 3],
        (4, _) => 77,
        (_, at) => at / 2 % 256,
    };
    let values: Vec<f32> = (0..2 * 3 * 17 * 21).map(|i| value(i) as f32).collect();
    Tensor::from_slice(&values).view([2, 3, 17, 21])
}

/// The change of a picture in [0, 1].
fn changed(picture: &Picture, change: Change) -> Picture {
    let blend = |a: f64, b: f64, factor: f64| (factor * a + (1.0 - factor) * b).clamp(0.0, 1.0);
    match change {
        Change::None => picture.clone(),
        Change::Brightness(x) => picture.colours(|colour| colour.map(|c| blend(c, 0.0, x))),
        Change::Contrast(x) => {
            let count = picture.h * picture.w;
            let all = |at: usize| grey([0, 1, 2].map(|c| picture.planes[c][at]));
            let mean = (0..count).map(all).sum::<f64>() / count as f64;
            picture.colours(|colour| colour.map(|c| blend(c, mean, x)))
        }
        Change::Saturation(x) => picture.colours(|colour| colour.map(|c| blend(c, grey(colour), x))),
        Change::Hue(x) => picture.colours(|colour| {
            let [hue, saturation, value] = hsv(colour);
            rgb([(hue + 360.0 * x).rem_euclid(360.0), saturation, value])
        }),
    }
}

#[test]
fn color_jitter_is_its_definition() {
    let image = pictures() / 255.0;
    let one = [Change::Hue(0.22), Change::Contrast(1.4), Change::None, Change::Brightness(0.8)];
    let two = [Change::Saturation(0.4), Change::Hue(-0.41), Change::Contrast(0.5), Change::Brightness(1.2)];
    for plans in [[one, two], [two, one]] {
        let found = jitter(&image, &plans).unwrap();
        for (i, plan) in plans.iter().enumerate() {
            let expected = plan.iter().fold(Picture::of(&image.get(i as i64)), |p, change| changed(&p, *change));
            for (a, b) in
                Picture::of(&found.get(i as i64)).planes.iter().flatten().zip(expected.planes.iter().flatten())
            {
                assert!((a - b).abs() < 2e-6, "{plan:?}: {a} {b}");
            }
        }
    }
}

#[test]
fn grey_pictures_keep_hue_and_saturation() {
    let image = pictures().narrow(1, 0, 1) / 255.0;
    let plan = |change| [change, Change::None, Change::None, Change::None];
    assert_eq!(jitter(&image, &[plan(Change::Hue(0.3)), plan(Change::Saturation(0.2))]).unwrap(), image);
    let brighter = jitter(&image, &[plan(Change::Brightness(0.5)); 2]).unwrap();
    assert_eq!(brighter, image * 0.5);
}

/// What bytes a step may become, before they are cut down to whole numbers; `None` where the nearest pixel is a matter of rounding.
fn stepped(picture: &Picture, operation: Operation, strength: f64) -> Vec<Option<f64>> {
    let Picture { h, w, .. } = *picture;
    let factor = 1.0 + strength;
    let blend = |a: f64, b: f64| (factor * a + (1.0 - factor) * b).clamp(0.0, 255.0);
    let grey = |colour| grey(colour).floor();
    let bounds = |p: &[f64]| p.iter().fold((255.0_f64, 0.0_f64), |(low, high), x| (low.min(*x), high.max(*x)));
    let by_value = |of: &dyn Fn(f64) -> f64| picture.values(|p, row, column| of(p[row * w + column]));
    let result = match operation {
        Operation::Identity => picture.clone(),
        Operation::Brightness => by_value(&|x| blend(x, 0.0)),
        Operation::Color => picture.colours(|colour| colour.map(|c| blend(c, grey(colour)))),
        Operation::Contrast => {
            let all = |at: usize| grey([0, 1, 2].map(|c| picture.planes[c][at]));
            let mean = (0..h * w).map(all).sum::<f64>() / (h * w) as f64;
            by_value(&|x| blend(x, mean))
        }
        Operation::Sharpness => picture.values(|p, row, column| {
            if row == 0 || column == 0 || row == h - 1 || column == w - 1 {
                return p[row * w + column];
            }
            let around = (0..9).map(|k| p[(row + k / 3 - 1) * w + column + k % 3 - 1]).sum::<f64>();
            let smooth = ((around + 4.0 * p[row * w + column]) / 13.0).round();
            blend(p[row * w + column], smooth)
        }),
        Operation::Invert => by_value(&|x| 255.0 - x),
        Operation::Posterize => by_value(&|x| f64::from(x as u32 & !(0xff_u32 >> strength as u32))),
        Operation::Solarize => by_value(&|x| if x >= strength { 255.0 - x } else { x }),
        Operation::AutoContrast => picture.values(|p, row, column| match bounds(p) {
            (low, high) if low == high => low,
            (low, high) => (p[row * w + column] - low) * 255.0 / (high - low),
        }),
        Operation::Equalize => picture.values(|p, row, column| {
            let (value, (_, high)) = (p[row * w + column], bounds(p));
            let step = p.iter().filter(|x| **x != high).count() / 255;
            let below = p.iter().filter(|x| **x < value).count();
            (below + step / 2).checked_div(step).map_or(value, |level| level.min(255) as f64)
        }),
        Operation::ShearX | Operation::ShearY | Operation::TranslateX | Operation::TranslateY | Operation::Rotate => {
            // About the corner, or about the middle, where pixels have their centres at halves.
            let (my, mx) = (h as f64 / 2.0, w as f64 / 2.0);
            let (sin, cos) = strength.to_radians().sin_cos();
            let source = |row: usize, column: usize| {
                let (y, x) = (row as f64 + 0.5, column as f64 + 0.5);
                match operation {
                    Operation::ShearX => (y, x + strength * y),
                    Operation::ShearY => (y + strength * x, x),
                    Operation::TranslateX => (y, x - strength.trunc()),
                    Operation::TranslateY => (y - strength.trunc(), x),
                    // Counter-clockwise on the screen.
                    _ => (sin * (x - mx) + cos * (y - my) + my, cos * (x - mx) - sin * (y - my) + mx),
                }
            };
            let unsure = |x: f64| (x - x.round()).abs() < 1e-3;
            let places: Vec<_> = (0..h * w).map(|at| source(at / w, at % w)).collect();
            let read = |p: &Vec<f64>, (y, x): (f64, f64)| {
                let inside = (0.0..h as f64).contains(&y) && (0.0..w as f64).contains(&x);
                let value = || if inside { p[y as usize * w + x as usize] } else { 0.0 };
                (!unsure(y) && !unsure(x)).then(value)
            };
            return picture.planes.iter().flat_map(|p| places.iter().map(move |at| read(p, *at))).collect();
        }
    };
    result.planes.concat().into_iter().map(Some).collect()
}

#[test]
fn the_operations_of_rand_augment_are_their_definitions() {
    let images = pictures();
    for operation in OPERATIONS.into_iter().chain([Operation::Invert]) {
        for (magnitude, negative) in [(0, false), (5, true), (9, false), (17, true), (30, false), (30, true)] {
            let m = magnitude as f64 / 30.0;
            let sign = if negative { -1.0 } else { 1.0 };
            let strength = match operation {
                Operation::ShearX | Operation::ShearY => sign * 0.3 * m,
                Operation::TranslateX => sign * 150.0 / 331.0 * 21.0 * m,
                Operation::TranslateY => sign * 150.0 / 331.0 * 17.0 * m,
                Operation::Rotate => sign * 30.0 * m,
                Operation::Posterize => 8.0 - (4.0 * m).round(),
                Operation::Solarize => 255.0 * (1.0 - m),
                _ => sign * 0.9 * m,
            };
            let step = operation.step(magnitude, 31, negative, [17, 21]).unwrap();
            let found = take(&images, &[step; 2]).unwrap();
            let mut sure = 0;
            for i in 0..2 {
                let found: Vec<f64> = Picture::of(&found.get(i)).planes.concat();
                for (found, exact) in found.iter().zip(stepped(&Picture::of(&images.get(i)), operation, strength)) {
                    let Some(exact) = exact else { continue };
                    sure += 1;
                    // Float32 may fall short of a whole number that float64 reaches, or reach one that it does not.
                    let near = (exact - exact.round()).abs() < 1e-3 && (found - exact).abs() < 1.002;
                    assert!(*found == exact.floor() || near, "{operation:?} {magnitude} {negative}: {found} {exact}");
                }
            }
            assert!(sure > 2 * 3 * 17 * 21 / 2, "{operation:?}");
        }
    }
}

#[test]
fn pictures_of_two_pixels_are_not_sharpened() {
    let image = Tensor::arange(12, (Kind::Float, Device::Cpu)).view([1, 1, 2, 6]);
    let step = Operation::Sharpness.step(30, 31, false, [2, 6]).unwrap();
    assert_eq!(take(&image, &[step]).unwrap(), image);
}

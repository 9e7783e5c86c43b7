//! Boxes with their names on a photo.

use image::{Rgb, RgbImage, imageops};

use super::{INK, WHITE, blend, text};
use crate::detection::{Detection, Rect, Truth};

/// Pictures of smaller edges are enlarged to about this one, so that names fit in.
const EDGE: u32 = 384;
/// Height of names as a share of the picture's shorter edge, and its limits in pixels.
const TEXT: (f32, f32, f32) = (1.0 / 32.0, 12.0, 30.0);
/// Width of lines as a share of the same, and its limits.
const LINE: (f32, f32, f32) = (1.0 / 220.0, 2.0, 8.0);
/// Pixels around a name on its ground.
const ROOM: i64 = 2;

/// How a box is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// A line.
    Whole,
    /// Dashes.
    Dashed,
    /// Dots.
    Dotted,
}

/// A box to be drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Boxed {
    /// In pixels of the picture; what lies outside is cut off.
    pub rect: Rect,
    /// Gives the colour.
    pub class: usize,
    /// Stands at the box, on a ground of its colour; nothing does where it is empty.
    pub label: String,
    /// How it is drawn.
    pub line: Line,
}

impl Boxed {
    /// `dog 0.93`, with a whole line.
    pub fn detection(found: &Detection, names: &[String]) -> Self {
        let label = format!("{} {:.2}", name(found.class, names), found.score);
        Self { rect: found.rect, class: found.class, label, line: Line::Whole }
    }

    /// `dog`, dashed; dotted where it does not count.
    pub fn truth(truth: &Truth, names: &[String]) -> Self {
        let name = name(truth.class, names);
        let (label, line) = match truth {
            Truth { crowd: true, .. } => (format!("{name}, crowd"), Line::Dotted),
            Truth { difficult: true, .. } => (format!("{name}, difficult"), Line::Dotted),
            _ => (name, Line::Dashed),
        };
        Self { rect: truth.rect, class: truth.class, label, line }
    }
}

/// The name of a class, or its number where it has none.
pub(super) fn name(class: usize, names: &[String]) -> String {
    names.get(class).cloned().unwrap_or_else(|| format!("class {class}"))
}

/// The picture with boxes on it, small ones enlarged by a whole factor. Of boxes that cover each other the first lies on top; names keep
/// clear of each other where there is room.
pub fn boxes(picture: &RgbImage, boxes: &[Boxed]) -> RgbImage {
    let zoom = (EDGE / picture.width().max(picture.height()).max(1)).max(1);
    let mut drawn =
        imageops::resize(picture, picture.width() * zoom, picture.height() * zoom, imageops::FilterType::Nearest);
    let edge = drawn.width().min(drawn.height()) as f32;
    let scaled = |(share, least, most): (f32, f32, f32)| (share * edge).clamp(least, most).round();
    let (size, width) = (scaled(TEXT), scaled(LINE) as i64);
    let places: Vec<_> = boxes.iter().map(|one| Place::of(&one.rect, f64::from(zoom), width)).collect();
    for (one, place) in boxes.iter().zip(&places).rev() {
        outline(&mut drawn, place, one, width);
    }
    let mut taken: Vec<Place> = Vec::new();
    let mut labels = Vec::new();
    for (one, place) in boxes.iter().zip(&places).filter(|(one, _)| !one.label.is_empty()) {
        let extent = (i64::from(text::width(&one.label, size)) + 2 * ROOM, size as i64 + 2 * ROOM);
        let at = place.label(extent, (i64::from(drawn.width()), i64::from(drawn.height())), &taken);
        taken.push(at);
        labels.push((one, at));
    }
    for (one, at) in labels.into_iter().rev() {
        let ground = colour(one.class);
        for y in at.top..at.bottom {
            for x in at.left..at.right {
                put(&mut drawn, x, y, ground, 1.0);
            }
        }
        let (x, y) = ((at.left + ROOM) as u32, (at.top + ROOM) as u32);
        text::draw(&mut drawn, &one.label, x, y, size, ink(ground));
    }
    drawn
}

/// Pixels from `left` to before `right`, from `top` to before `bottom`.
#[derive(Debug, Clone, Copy)]
struct Place {
    left: i64,
    top: i64,
    right: i64,
    bottom: i64,
}

impl Place {
    /// At least as large as its line is wide.
    fn of([x, y, w, h]: &Rect, zoom: f64, width: i64) -> Self {
        let pixel = |value: f64| (value * zoom).round().clamp(-1e6, 1e6) as i64;
        let (left, top) = (pixel(*x), pixel(*y));
        Self { left, top, right: pixel(x + w).max(left + width), bottom: pixel(y + h).max(top + width) }
    }

    fn meets(&self, other: &Place) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }

    /// Where the name of this box stands: the first free place over it, within, under; over it if none is.
    fn label(&self, (width, height): (i64, i64), (right, bottom): (i64, i64), taken: &[Place]) -> Place {
        let within = |left: i64, top: i64| {
            let (left, top) = (left.min(right - width).max(0), top.min(bottom - height).max(0));
            Place { left, top, right: left + width, bottom: top + height }
        };
        let (over, under) = (self.top - height, self.bottom);
        let (start, end) = (self.left, self.right - width);
        let all = [
            (start, over),
            (start, self.top),
            (end, over),
            (end, self.top),
            (start, under),
            (start, self.bottom - height),
            (end, under),
            (end, self.bottom - height),
        ];
        let free = |place: &Place| taken.iter().all(|other| !place.meets(other));
        // A place that would have to be moved into the picture comes last.
        let whole = all.iter().filter(|&&(_, top)| top >= 0 && top + height <= bottom);
        let mut places = whole.chain(&all).map(|&(left, top)| within(left, top));
        places.find(free).unwrap_or_else(|| within(start, if over >= 0 { over } else { self.top }))
    }
}

/// Paints one pixel, if there is one.
fn put(picture: &mut RgbImage, x: i64, y: i64, colour: Rgb<u8>, share: f64) {
    if let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y))
        && let Some(pixel) = picture.get_pixel_mut_checked(x, y)
    {
        *pixel = blend(*pixel, colour, share);
    }
}

/// The line of a box, inside of it, with a dark seam on both sides that shows it on a ground of its own colour.
fn outline(picture: &mut RgbImage, place: &Place, one: &Boxed, width: i64) {
    let colour = colour(one.class);
    let (on, period) = match one.line {
        Line::Whole => (1, 1),
        Line::Dashed => (4 * width, 7 * width),
        Line::Dotted => (width, 3 * width),
    };
    let (right, bottom) = (i64::from(picture.width()), i64::from(picture.height()));
    // `depth` from the edge inwards: the seams are at −1 and at the width.
    let mut paint = |x: i64, y: i64, along: i64, depth: i64| {
        if along.rem_euclid(period) < on {
            let seam = depth < 0 || depth >= width;
            put(picture, x, y, if seam { INK } else { colour }, if seam { 0.5 } else { 1.0 });
        }
    };
    for depth in -1..=width {
        let (from, to) = ((place.left + depth, place.top + depth), (place.right - depth, place.bottom - depth));
        if from.0 >= to.0 || from.1 >= to.1 {
            break;
        }
        for x in from.0.max(0)..to.0.min(right) {
            paint(x, from.1, x - place.left, depth);
            paint(x, to.1 - 1, x - place.left, depth);
        }
        for y in (from.1 + 1).max(0)..(to.1 - 1).min(bottom) {
            paint(from.0, y, y - place.top, depth);
            paint(to.0 - 1, y, y - place.top, depth);
        }
    }
}

/// Hues a golden section of the circle apart, so that classes next to each other never look alike; every other one is darker.
fn colour(class: usize) -> Rgb<u8> {
    let hue = (0.58 + class as f64 * 0.618_033_988_75).fract() * 6.0;
    let light = if class.is_multiple_of(2) { 0.95 } else { 0.72 };
    let channel = |shift: f64| {
        let at = (hue + shift).rem_euclid(6.0);
        let share = (at.min(4.0 - at)).clamp(0.0, 1.0);
        (255.0 * light * (1.0 - 0.85 * share)).round() as u8
    };
    Rgb([channel(5.0), channel(3.0), channel(1.0)])
}

/// Black or white, whichever is read better on `ground`.
fn ink(ground: Rgb<u8>) -> Rgb<u8> {
    let [r, g, b] = ground.0.map(f64::from);
    if 0.299 * r + 0.587 * g + 0.114 * b > 140.0 { INK } else { WHITE }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUND: Rgb<u8> = Rgb([200, 200, 200]);

    fn boxed(rect: Rect, line: Line, label: &str) -> Boxed {
        Boxed { rect, class: 0, label: label.into(), line }
    }

    fn drawn(edge: u32, these: &[Boxed]) -> RgbImage {
        boxes(&RgbImage::from_pixel(edge, edge, GROUND), these)
    }

    fn count(picture: &RgbImage, colour: Rgb<u8>) -> usize {
        picture.pixels().filter(|pixel| **pixel == colour).count()
    }

    #[test]
    fn a_line_lies_inside_its_box_between_two_seams() {
        let picture = drawn(400, &[boxed([100.0, 120.0, 50.0, 40.0], Line::Whole, "")]);
        let seam = blend(GROUND, INK, 0.5);
        let column: Vec<_> = (97..105).map(|x| *picture.get_pixel(x, 140)).collect();
        let c = colour(0);
        assert_eq!(column, [GROUND, GROUND, seam, c, c, seam, GROUND, GROUND]);
        assert_eq!(count(&picture, c), 50 * 40 - 46 * 36);
        assert_eq!(count(&picture, seam), 52 * 42 - 50 * 40 + 46 * 36 - 44 * 34);
        assert_eq!((picture.get_pixel(149, 159), picture.get_pixel(150, 160)), (&c, &seam));
    }

    #[test]
    fn dashes_are_shorter_than_lines_and_dots_than_dashes() {
        let painted = |line| count(&drawn(400, &[boxed([50.0, 50.0, 300.0, 300.0], line, "")]), colour(0));
        let [whole, dashed, dotted] = [Line::Whole, Line::Dashed, Line::Dotted].map(painted);
        assert!(dashed.abs_diff(whole * 4 / 7) < whole / 20 && dotted.abs_diff(whole / 3) < whole / 20);
    }

    #[test]
    fn boxes_anywhere_and_of_any_size_are_cut_off_at_the_edge() {
        let far = [
            [-50.0, -50.0, 100.0, 900.0],
            [390.0, 10.0, 1e300, 5.0],
            [f64::NAN, 0.0, 1.0, 1.0],
            [-1e9, -1e9, 1.0, 1.0],
        ];
        let picture = drawn(400, &far.map(|rect| boxed(rect, Line::Dashed, "a name that is long")));
        assert_eq!(picture.dimensions(), (400, 400));
        // A box without area is still seen.
        assert!(count(&drawn(400, &[boxed([9.0, 9.0, 0.0, 0.0], Line::Whole, "")]), colour(0)) >= 4);
        assert_eq!(boxes(&RgbImage::new(0, 0), &[boxed(far[0], Line::Whole, "x")]).dimensions(), (0, 0));
    }

    #[test]
    fn small_pictures_are_enlarged_with_their_boxes() {
        let picture = drawn(64, &[boxed([10.0, 10.0, 20.0, 20.0], Line::Whole, "")]);
        assert_eq!(picture.dimensions(), (384, 384));
        assert_eq!((picture.get_pixel(60, 90), picture.get_pixel(179, 90)), (&colour(0), &colour(0)));
    }

    #[test]
    fn names_keep_clear_of_each_other_and_within_the_picture() {
        let one = Place { left: 40, top: 40, right: 90, bottom: 90 };
        let mut taken = Vec::new();
        for _ in 0..8 {
            let at = one.label((20, 16), (200, 200), &taken);
            assert!(taken.iter().all(|other| !at.meets(other)) && at.left >= 0 && at.bottom <= 200, "{at:?}");
            taken.push(at);
        }
        let top = Place { left: -5, top: -5, right: 30, bottom: 90 }.label((30, 16), (200, 200), &[]);
        assert!(top.left >= 0 && top.top >= 0, "{top:?}");
        // Black or white letters on the class's colour.
        let picture = drawn(400, &[boxed([100.0, 120.0, 50.0, 40.0], Line::Whole, "person 0.93")]);
        let ground = colour(0);
        let plain = |y: u32| (100..160).filter(|&x| *picture.get_pixel(x, y) == ground).count();
        assert_eq!((plain(102), plain(104)), (0, 60), "the name's ground ends over its letters");
        assert!((5..50).contains(&plain(110)), "{}", plain(110));
    }

    #[test]
    fn colours_of_neighbours_differ_and_carry_their_letters() {
        let apart = |a: Rgb<u8>, b: Rgb<u8>| (0..3).map(|k| i32::from(a[k]).abs_diff(i32::from(b[k]))).sum::<u32>();
        for class in 0..200 {
            let this = colour(class);
            assert!((1..5).all(|step| apart(this, colour(class + step)) > 60), "{class}");
            assert!(apart(this, ink(this)) > 180, "{class}: {this:?}");
        }
    }

    #[test]
    fn labels_tell_class_score_and_what_does_not_count() {
        let names = ["dog".to_string()];
        let found = Detection { class: 0, score: 0.934, rect: [0.0; 4] };
        let truth = Truth { class: 1, rect: [0.0; 4], area: 0.0, crowd: false, difficult: false };
        let crowd = Truth { crowd: true, class: 0, ..truth.clone() };
        let [found, crowd, truth] =
            [Boxed::detection(&found, &names), Boxed::truth(&crowd, &names), Boxed::truth(&truth, &names)];
        assert_eq!([found.label, crowd.label, truth.label], ["dog 0.93", "dog, crowd", "class 1"]);
        assert_eq!([found.line, crowd.line, truth.line], [Line::Whole, Line::Dotted, Line::Dashed]);
    }
}

//! What a detector gets wrong.

use image::{RgbImage, imageops};

use super::boxes::name;
use super::{Boxed, Curve, Plot, WHITE, boxes, wall};
use crate::Result;
use crate::detection::Rect;
use crate::detection::mistakes::{Kind, Mistake, Reviewed};

/// Edge of a close-up.
const EDGE: u32 = 224;
/// A close-up shows this many times its box, and at least so many pixels of the photo.
const AROUND: (f64, f64) = (1.8, 48.0);
/// Close-ups in a row.
const COLUMNS: u32 = 6;

/// A square of 224 pixels with the part of a photo around `rect`, which must be finite, and boxes on it; white where the photo ends.
pub fn close_up(photo: &RgbImage, rect: &Rect, marked: &[Boxed]) -> RgbImage {
    let [x, y, w, h] = *rect;
    let (width, height) = (f64::from(photo.width()), f64::from(photo.height()));
    let side = (AROUND.0 * w.max(h)).clamp(AROUND.1, width.max(height).max(AROUND.1)).round();
    // Moved into the photo as far as it goes; centred where it is larger.
    let start = |middle: f64, length: f64| match side < length {
        true => (middle - side / 2.0).clamp(0.0, length - side).round(),
        false => ((length - side) / 2.0).round(),
    };
    let (left, top) = (start(x + w / 2.0, width), start(y + h / 2.0, height));
    let mut part = RgbImage::from_pixel(side as u32, side as u32, WHITE);
    imageops::replace(&mut part, photo, -left as i64, -top as i64);
    let zoom = f64::from(EDGE) / side;
    let filter = if zoom > 1.0 { imageops::FilterType::Nearest } else { imageops::FilterType::Triangle };
    let part = imageops::resize(&part, EDGE, EDGE, filter);
    let moved = |one: &Boxed| {
        let [x, y, w, h] = one.rect;
        Boxed { rect: [(x - left) * zoom, (y - top) * zoom, w * zoom, h * zoom], ..one.clone() }
    };
    boxes(&part, &marked.iter().map(moved).collect::<Vec<_>>())
}

/// The worst mistakes, a row or more of close-ups for each kind: what was found with a whole line, the object with dashes. `show` gives a
/// photo and its name by its place.
///
/// # Errors
/// Those of `show`; no mistakes at all.
pub fn mistakes(
    found: &Reviewed,
    names: &[String],
    mut show: impl FnMut(usize) -> Result<(RgbImage, String)>,
) -> Result<RgbImage> {
    let mut rows = Vec::new();
    for ((kind, worst), count) in Kind::ALL.iter().zip(&found.worst).zip(found.counts) {
        let (mut tiles, mut captions) = (Vec::new(), Vec::new());
        for mistake in worst {
            let (photo, file) = show(mistake.photo)?;
            let mut marked: Vec<_> = mistake.found.iter().map(|found| Boxed::detection(found, names)).collect();
            marked.extend(mistake.truth.iter().map(|truth| Boxed::truth(truth, names)));
            tiles.push(close_up(&photo, &around(mistake), &marked));
            captions.push(format!("{}\n{file}", caption(mistake, names)));
        }
        if !tiles.is_empty() {
            let which = if *kind == Kind::Missed { "largest" } else { "surest" };
            let title = format!("{}: {count}, the {which} {}", kind.name(), tiles.len());
            rows.push(wall(&tiles, COLUMNS, 1, &captions, &[], &title)?);
        }
    }
    wall(&rows, 1, 1, &[], &[], "")
}

/// The box around what was found and the object.
fn around(mistake: &Mistake) -> Rect {
    let [x, y, w, h] = mistake.rect();
    let Some(truth) = &mistake.truth else { return [x, y, w, h] };
    let [left, top, width, height] = truth.rect;
    let (x0, y0) = (x.min(left), y.min(top));
    [x0, y0, (x + w).max(left + width) - x0, (y + h).max(top + height) - y0]
}

/// What it was and what it was taken for: `dog → cat 0.93, overlap 0.71`.
fn caption(mistake: &Mistake, names: &[String]) -> String {
    let truth = mistake.truth.as_ref().map(|truth| name(truth.class, names));
    let found = mistake.found.as_ref().map(|found| format!("{} {:.2}", name(found.class, names), found.score));
    match (mistake.kind, truth, found) {
        (Kind::WrongClass, Some(truth), Some(found)) => format!("{truth} → {found}, overlap {:.2}", mistake.overlap),
        (Kind::BadlyPlaced | Kind::Doubled, _, Some(found)) => format!("{found}, overlap {:.2}", mistake.overlap),
        (_, truth, found) => found.or(truth).unwrap_or_default(),
    }
}

/// Curves of precision over recall, each with its label.
pub fn precision_recall(title: &str, curves: Vec<(String, Vec<(f64, f64)>)>) -> Plot {
    let curve = |(label, points)| Curve { label, points, ..Curve::default() };
    Plot {
        title: title.into(),
        x_label: "recall".into(),
        y_label: "precision".into(),
        curves: curves.into_iter().map(curve).collect(),
        ..Plot::default()
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;
    use crate::detection::mistakes::Review;
    use crate::detection::{Detection, Scene, Truth};
    use crate::figures::Line;

    /// A photo whose pixels tell their place.
    fn photo(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 7]))
    }

    #[test]
    fn a_close_up_shows_the_part_around_a_box() {
        // 224 pixels of 112: each pixel is doubled.
        let rect = [100.0, 90.0, 62.0, 50.0];
        let picture = close_up(&photo(250, 250), &rect, &[]);
        assert_eq!(picture.dimensions(), (EDGE, EDGE));
        assert_eq!((picture.get_pixel(0, 0), picture.get_pixel(223, 223)), (&Rgb([75, 59, 7]), &Rgb([186, 170, 7])));
        // In a corner the part is moved into the photo.
        assert_eq!(close_up(&photo(250, 250), &[-9.0, 230.0, 62.0, 50.0], &[]).get_pixel(0, 223), &Rgb([0, 249, 7]));
        // A box is drawn where it lies.
        let boxed = Boxed { rect, class: 0, label: String::new(), line: Line::Whole };
        let marked = close_up(&photo(250, 250), &rect, &[boxed]);
        let changed: Vec<_> = (0..224).filter(|&x| marked.get_pixel(x, 112) != picture.get_pixel(x, 112)).collect();
        assert_eq!((changed.first(), changed.last()), (Some(&49), Some(&174)));
    }

    #[test]
    fn a_photo_that_is_smaller_is_shown_whole_on_white() {
        let picture = close_up(&photo(40, 20), &[0.0, 0.0, 40.0, 20.0], &[]);
        let grey = |x: u32, y: u32| *picture.get_pixel(x, y) == WHITE;
        assert!(grey(112, 2) && grey(2, 112) && grey(112, 220) && !grey(112, 112));
        close_up(&RgbImage::new(0, 0), &[0.0; 4], &[]);
    }

    #[test]
    fn each_kind_that_happened_has_a_row() {
        let truth =
            |x: f64| Truth { class: 0, rect: [x, 9.0, 20.0, 20.0], area: 400.0, crowd: false, difficult: false };
        let found = |class, x: f64| Detection { class, score: 0.5, rect: [x, 9.0, 20.0, 20.0] };
        let drawn = |detections: Vec<Detection>| {
            let mut review = Review::new(2, 0.0, 4);
            review.add(&Scene { truths: vec![truth(10.0), truth(70.0)], detections }).unwrap();
            mistakes(&review.finish(), &["cat".into()], |_| Ok((photo(100, 100), "a.jpg".into())))
        };
        let height = |detections| drawn(detections).map(|picture| picture.height()).unwrap_or(0);
        let one = height(vec![found(0, 10.0)]);
        assert_eq!(height(vec![found(0, 10.0), found(0, 71.0)]), 0, "nothing to draw");
        assert!(
            one > EDGE
                && height(vec![found(1, 10.0)]) > 2 * EDGE
                && height(vec![found(1, 10.0), found(0, 150.0)]) > 3 * EDGE
        );
    }
}

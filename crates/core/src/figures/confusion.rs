//! Which classes are taken for which.

use image::RgbImage;
use tch::{Kind, Tensor};

use super::{BLUE, GREY, INK, RED, WHITE, blend, fill, text};
use crate::{Error, Result};

/// Most classes of which a confusion matrix is counted and drawn: of more, the K × K cells cost much and show nothing.
pub(crate) const MOST_CLASSES: usize = 100;

const MARGIN: u32 = 16;
const TITLE: f32 = 18.0;
const LABEL: f32 = 14.0;
const SMALL: f32 = 12.0;
/// Cells share this many pixels, within these limits.
const SPAN: u32 = 1000;
const CELL: u32 = 52;
/// Below this height letters are no longer readable, so they are left out.
const READABLE: f32 = 8.0;

/// Draws a confusion matrix: blue on the diagonal, red beside it.
///
/// - `counts` `[K, K]` integers: `counts[t][p]` examples of class t were taken for class p
/// - `names`: the K classes, at most 100
///
/// The shade is the cube root of the share of the row, so that one error in a thousand is a tenth of full red. Counts and
/// names are left out where the cells are too small for them; so are counts of 0.
pub fn confusion(counts: &Tensor, names: &[String]) -> Result<RgbImage> {
    drawn(counts, names, title)
}

/// The same of a detector, whose last class is the background: what is there and was not found, and what was found and is not there.
pub fn detections(counts: &Tensor, names: &[String]) -> Result<RgbImage> {
    drawn(counts, names, |counts, classes| {
        let objects = &counts[..classes * (classes - 1)];
        let (right, total) = (objects.iter().step_by(classes + 1).sum::<i64>(), objects.iter().sum::<i64>());
        format!("{right} of {total} objects found")
    })
}

fn drawn(counts: &Tensor, names: &[String], title: impl Fn(&[i64], usize) -> String) -> Result<RgbImage> {
    let classes = names.len();
    if classes > MOST_CLASSES {
        return Err(Error::Failed(format!(
            "a confusion matrix is drawn of at most {MOST_CLASSES} classes, not of {classes}"
        )));
    }
    if classes == 0 || counts.size() != [classes as i64; 2] {
        return Err(Error::Failed(format!(
            "a confusion matrix of {classes} classes cannot have the shape {:?}",
            counts.size()
        )));
    }
    let counts: Vec<i64> = Vec::try_from(counts.f_to_kind(Kind::Int64)?.f_flatten(0, -1)?)?;
    let (k, cell) = (classes as u32, (SPAN / classes as u32).clamp(1, CELL));

    let names_size = LABEL.min(cell as f32);
    let readable = names_size >= READABLE;
    let longest = if readable { names.iter().map(|name| text::width(name, names_size)).max().unwrap_or(0) } else { 0 };
    let upright = longest + 4 > cell; // Names over the columns stand up if they do not fit lying.
    let names_height = if upright { longest } else { names_size as u32 };
    let title = title(&counts, classes);
    let left = MARGIN + LABEL as u32 + 8 + longest + 6;
    let top = MARGIN + TITLE as u32 + 4 + SMALL as u32 + 12 + LABEL as u32 + 6 + names_height + 6;
    let width = (left + k * cell).max(MARGIN + text::width(&title, TITLE)).max(MARGIN + text::width(NOTE, SMALL));
    let mut picture = RgbImage::from_pixel(width + MARGIN, top + k * cell + MARGIN, WHITE);

    text::draw(&mut picture, &title, MARGIN, MARGIN, TITLE, INK);
    text::draw(&mut picture, NOTE, MARGIN, MARGIN + TITLE as u32 + 4, SMALL, GREY);
    let middle = |start: u32, label: &str, size: f32| start + (k * cell).saturating_sub(text::width(label, size)) / 2;
    let over_names = top - 6 - names_height - 6 - LABEL as u32;
    text::draw(&mut picture, "predicted", middle(left, "predicted", LABEL), over_names, LABEL, GREY);
    let start = top + k * cell - (middle(top, "true", LABEL) - top);
    text::draw_upward(&mut picture, "true", MARGIN, start, LABEL, GREY);

    if readable {
        for (index, name) in names.iter().enumerate() {
            let (at, length) = (index as u32 * cell, text::width(name, names_size));
            let centred = (cell - names_size as u32) / 2;
            text::draw(&mut picture, name, left - 6 - length, top + at + centred, names_size, INK);
            if upright {
                text::draw_upward(&mut picture, name, left + at + centred, top - 6, names_size, INK);
            } else {
                let x = left + at + (cell - length) / 2;
                text::draw(&mut picture, name, x, top - 6 - names_height, names_size, INK);
            }
        }
    }

    let largest = counts.iter().max().map(i64::to_string).unwrap_or_default();
    let wanted = (cell as f32 * 0.34).min(LABEL);
    let fits = wanted * (cell.saturating_sub(4) as f32 / text::width(&largest, wanted).max(1) as f32).min(1.0);
    // A line between cells, once they are large enough to spare one.
    let line = u32::from(cell >= 6);
    fill(&mut picture, left - line, top - line, k * cell + line, k * cell + line, blend(WHITE, GREY, 0.25));
    for (truth, row) in counts.chunks(classes).enumerate() {
        let total: i64 = row.iter().sum();
        for (predicted, &count) in row.iter().enumerate() {
            let share = (count as f64 / total.max(1) as f64).clamp(0.0, 1.0).cbrt();
            let colour = blend(WHITE, if truth == predicted { BLUE } else { RED }, share);
            let (x, y) = (left + predicted as u32 * cell, top + truth as u32 * cell);
            fill(&mut picture, x, y, cell - line, cell - line, colour);
            if count != 0 && fits >= READABLE {
                let label = count.to_string();
                let ink = if share > 0.5 { WHITE } else { INK };
                let (dx, dy) = ((cell - text::width(&label, fits).min(cell)) / 2, (cell - fits as u32) / 2);
                text::draw(&mut picture, &label, x + dx, y + dy, fits, ink);
            }
        }
    }
    Ok(picture)
}

const NOTE: &str = "shade: cube root of the share of the row";

fn title(counts: &[i64], classes: usize) -> String {
    let total: i64 = counts.iter().sum();
    if total == 0 {
        return "no examples".into();
    }
    let right: i64 = counts.iter().step_by(classes + 1).sum();
    format!("accuracy {:.2} %   {right} of {total}", 100.0 * right as f64 / total as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(k: usize) -> Vec<String> {
        (0..k).map(|index| format!("class {index}")).collect()
    }

    #[test]
    fn two_classes_have_the_colours_of_their_shares() {
        // Row 0: 8 right, 0 wrong. Row 1: 1 of 8 wrong, whose cube root is 1/2; 7 of 8 right.
        let counts = Tensor::from_slice(&[8i64, 0, 1, 7]).view([2, 2]);
        let picture = confusion(&counts, &names(2)).unwrap();
        // The upper left corner of each cell lies outside its number.
        let (left, top) = (picture.width() - MARGIN, picture.height() - MARGIN);
        let wide = MARGIN + LABEL as u32 + 8 + text::width("class 0", LABEL) + 6;
        assert!(wide + 2 * CELL <= left);
        let corner =
            |truth: u32, predicted: u32| *picture.get_pixel(wide + predicted * CELL + 1, top - (2 - truth) * CELL + 1);
        assert_eq!(corner(0, 0), BLUE);
        assert_eq!(corner(0, 1), WHITE);
        assert_eq!(corner(1, 0), blend(WHITE, RED, 0.5));
        assert_eq!(corner(1, 1), blend(WHITE, BLUE, 0.875f64.cbrt()));
    }

    #[test]
    fn the_title_tells_the_accuracy() {
        assert_eq!(title(&[8, 0, 1, 7], 2), "accuracy 93.75 %   15 of 16");
        assert_eq!(title(&[0; 9], 3), "no examples");
    }

    #[test]
    fn any_number_of_classes_up_to_the_most_fits() {
        for k in [1, 10, 37, 100] {
            let counts = Tensor::eye(k as i64, (Kind::Int64, tch::Device::Cpu)) * 12345;
            let picture = confusion(&counts, &names(k)).unwrap();
            assert!(picture.width() < 1300 && picture.height() < 1300, "{k}");
        }
    }

    #[test]
    fn shape_and_names_must_agree() {
        let counts = Tensor::zeros([2, 2], (Kind::Int64, tch::Device::Cpu));
        assert!(confusion(&counts, &names(3)).is_err());
        assert!(confusion(&counts, &[]).is_err());
        let many = Tensor::zeros([101, 101], (Kind::Int64, tch::Device::Cpu));
        assert!(confusion(&many, &names(101)).unwrap_err().to_string().contains("at most 100"));
    }
}

//! A picture beside itself under a heat map.

use image::{Rgb, RgbImage, imageops};
use tch::{Kind, Tensor};

use super::{GREY, INK, WHITE, blend, fill, framed, text};
use crate::{Error, Result};

/// Edge that small pictures are enlarged to, about.
const EDGE: u32 = 224;
const MARGIN: u32 = 12;
const TITLE: f32 = 16.0;
const SMALL: f32 = 12.0;
/// A map of fewer cells each way is drawn as the cells that it has: interpolated it would be a smear that shows places it does not know.
const FEWEST: i64 = 4;
/// From cold to hot.
const COLOURS: [Rgb<u8>; 4] = [Rgb([30, 40, 120]), Rgb([40, 160, 160]), Rgb([250, 210, 60]), Rgb([220, 40, 30])];

/// `picture`, and to its right the same under `heat` `[h, w]` in [0, 1], enlarged to its size; over them `title`, and how large the map was;
/// under them the scale.
pub fn heat(picture: &RgbImage, heat: &Tensor, title: &str) -> Result<RgbImage> {
    let large = enlarged(picture);
    let (width, height) = large.dimensions();
    let under = under(&large, heat)?;
    let (rows, columns) = (heat.size()[0], heat.size()[1]);
    let how = if rows.min(columns) < FEWEST { "too few to interpolate to" } else { "interpolated to" };
    let (tall, broad) = (picture.height(), picture.width());
    let note = format!("map of {rows} × {columns} cells, {how} the picture's {tall} × {broad} pixels");
    let top = MARGIN + TITLE as u32 + 4 + SMALL as u32 + 8;
    let bar = top + height + 8;
    let wide = (2 * width).max(text::width(title, TITLE)).max(text::width(&note, SMALL));
    let mut both = RgbImage::from_pixel(wide + 2 * MARGIN, bar + SMALL as u32 + MARGIN, WHITE);
    text::draw(&mut both, title, MARGIN, MARGIN, TITLE, INK);
    text::draw(&mut both, &note, MARGIN, MARGIN + TITLE as u32 + 4, SMALL, GREY);
    imageops::replace(&mut both, &large, i64::from(MARGIN), i64::from(top));
    imageops::replace(&mut both, &under, i64::from(MARGIN + width), i64::from(top));
    // The scale under the map, its ends named at its sides.
    let (low, high) = ("0", "1, the most");
    let left = MARGIN + width + text::width(low, SMALL) + 6;
    let length = (MARGIN + 2 * width).saturating_sub(left + text::width(high, SMALL) + 6).max(1);
    text::draw(&mut both, low, MARGIN + width, bar, SMALL, GREY);
    text::draw(&mut both, high, left + length + 6, bar, SMALL, GREY);
    for x in 0..length {
        let share = f64::from(x) / f64::from(length.max(2) - 1);
        fill(&mut both, left + x, bar + 1, 1, SMALL as u32 - 2, hue(share.min(1.0)));
    }
    Ok(both)
}

/// `picture`, and behind it the same under each of the maps `[h, w]` in [0, 1] with their names; over them `title`.
///
/// # Errors
/// Maps that are none.
pub fn heats(picture: &RgbImage, maps: &[(String, Tensor)], title: &str) -> Result<RgbImage> {
    let large = enlarged(picture);
    let under = maps.iter().map(|(_, map)| under(&large, map)).collect::<Result<Vec<_>>>()?;
    let (width, height) = (i64::from(large.width()), i64::from(large.height()));
    let bytes: Vec<u8> = std::iter::once(&large).chain(&under).flat_map(|picture| picture.as_raw().clone()).collect();
    let all = Tensor::f_from_data_size(&bytes, &[1 + maps.len() as i64, height, width, 3], Kind::Uint8)?;
    let names: Vec<_> = std::iter::once(String::new()).chain(maps.iter().map(|(name, _)| name.clone())).collect();
    let columns = (1 + maps.len() as u32).min(if maps.len() > 6 { 5 } else { 4 });
    framed(&all.f_permute([0, 3, 1, 2])?, columns, 1, &names, &[], title)
}

/// Small pictures at [`EDGE`], about.
fn enlarged(picture: &RgbImage) -> RgbImage {
    let zoom = (EDGE / picture.width().max(1)).max(1);
    imageops::resize(picture, picture.width() * zoom, picture.height() * zoom, imageops::FilterType::Nearest)
}

/// `picture` under `heat` `[h, w]` in [0, 1], enlarged to its size.
fn under(picture: &RgbImage, heat: &Tensor) -> Result<RgbImage> {
    let [rows, columns] = heat.size()[..] else {
        return Err(Error::Failed(format!("a heat map takes [h, w], not {:?}", heat.size())));
    };
    let size = [i64::from(picture.height()), i64::from(picture.width())];
    let map = heat.to_kind(Kind::Float).view([1, 1, rows, columns]);
    let map = match rows.min(columns) < FEWEST {
        true => map.f_upsample_nearest2d(size, None, None)?,
        false => map.f_upsample_bilinear2d(size, false, None, None)?,
    };
    let map = Vec::<f32>::try_from(map.clamp(0.0, 1.0).to_device(tch::Device::Cpu).reshape([-1]))?;
    let mut found = picture.clone();
    for (pixel, share) in found.pixels_mut().zip(map) {
        *pixel = blend(*pixel, hue(f64::from(share)), 0.5);
    }
    Ok(found)
}

/// The colour of a share in [0, 1].
fn hue(share: f64) -> Rgb<u8> {
    let at = share * (COLOURS.len() - 1) as f64;
    let step = (at as usize).min(COLOURS.len() - 2);
    blend(COLOURS[step], COLOURS[step + 1], at - step as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The map's half of a drawing of `edge` × `edge` grey pixels under `map`, and the drawing.
    fn drawn(edge: u32, map: &Tensor) -> (RgbImage, RgbImage) {
        let picture = RgbImage::from_pixel(edge, edge, Rgb([128, 128, 128]));
        let both = heat(&picture, map, "Grad-CAM").unwrap();
        let top = MARGIN + TITLE as u32 + 4 + SMALL as u32 + 8;
        let side = edge * (EDGE / edge).max(1);
        assert_eq!(both.get_pixel(MARGIN, top), &Rgb([128, 128, 128]));
        (imageops::crop_imm(&both, MARGIN + side, top, side, side).to_image(), both)
    }

    #[test]
    fn hot_places_are_red_and_cold_ones_blue() {
        let map = Tensor::zeros([4, 4], (Kind::Float, tch::Device::Cpu));
        let _ = map.get(0).get(0).fill_(1.0);
        let (map, _) = drawn(2, &map);
        assert_eq!(map.dimensions(), (224, 224));
        let (hot, cold) = (map.get_pixel(0, 0).0, map.get_pixel(223, 223).0);
        assert!(hot[0] > 160 && hot[2] < 90, "{hot:?}");
        assert!(cold[2] > 110 && cold[0] < 90, "{cold:?}");
    }

    #[test]
    fn only_a_map_of_enough_cells_is_interpolated() {
        let colours = |cells: i64| {
            let map = Tensor::zeros([cells, cells], (Kind::Float, tch::Device::Cpu));
            let _ = map.get(0).get(0).fill_(1.0);
            let (map, _) = drawn(64, &map);
            map.pixels().map(|pixel| pixel.0).collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!(colours(2), 2, "two by two cells have the two colours that they are");
        assert!(colours(4) > 20);
    }

    #[test]
    fn title_and_scale_stand_around_the_pictures() {
        let map = Tensor::zeros([7, 7], (Kind::Float, tch::Device::Cpu));
        let (_, both) = drawn(224, &map);
        let ink = |from: u32, to: u32| (from..to).any(|y| (0..both.width()).any(|x| both.get_pixel(x, y)[0] < 60));
        assert!(ink(MARGIN, MARGIN + TITLE as u32));
        // Under the pictures: the scale from blue to red.
        let bar = both.height() - MARGIN - SMALL as u32 / 2;
        let row: Vec<_> = (0..both.width()).map(|x| *both.get_pixel(x, bar)).collect();
        assert!(row.contains(&COLOURS[0]) && row.contains(&COLOURS[3]), "{row:?}");
        assert!(heat(&both, &Tensor::from(1.0f32), "").is_err());
        let wide = heat(&RgbImage::new(3, 3), &map, &"a long title ".repeat(12)).unwrap();
        assert!(wide.width() > text::width(&"a long title ".repeat(12), TITLE), "a title is never cut off");
    }
}

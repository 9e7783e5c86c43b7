//! A picture beside itself under a heat map.

use image::{Rgb, RgbImage, imageops};
use tch::{Kind, Tensor};

use super::blend;
use crate::{Error, Result};

/// Edge that small pictures are enlarged to, about.
const EDGE: u32 = 224;
/// From cold to hot.
const SCALE: [Rgb<u8>; 4] = [Rgb([30, 40, 120]), Rgb([40, 160, 160]), Rgb([250, 210, 60]), Rgb([220, 40, 30])];

/// `picture`, and to its right the same under `heat` `[h, w]` in [0, 1], enlarged to its size.
pub fn heat(picture: &RgbImage, heat: &Tensor) -> Result<RgbImage> {
    if heat.size().len() != 2 {
        return Err(Error::Failed(format!("a heat map takes [h, w], not {:?}", heat.size())));
    }
    let zoom = (EDGE / picture.width().max(1)).max(1);
    let (width, height) = (picture.width() * zoom, picture.height() * zoom);
    let large = imageops::resize(picture, width, height, imageops::FilterType::Nearest);
    let size = [i64::from(height), i64::from(width)];
    let heat = heat.to_kind(Kind::Float).view([1, 1, heat.size()[0], heat.size()[1]]);
    let heat = heat.f_upsample_bilinear2d(size, false, None, None)?.clamp(0.0, 1.0);
    let heat = Vec::<f32>::try_from(heat.to_device(tch::Device::Cpu).reshape([-1]))?;
    let mut both = RgbImage::new(2 * width, height);
    imageops::replace(&mut both, &large, 0, 0);
    for (x, y, colour) in large.enumerate_pixels() {
        let at = f64::from(heat[(y * width + x) as usize]) * (SCALE.len() - 1) as f64;
        let step = (at as usize).min(SCALE.len() - 2);
        let hot = blend(SCALE[step], SCALE[step + 1], at - step as f64);
        both.put_pixel(width + x, y, blend(*colour, hot, 0.5));
    }
    Ok(both)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hot_places_are_red_and_cold_ones_blue() {
        let picture = RgbImage::from_pixel(2, 2, Rgb([128, 128, 128]));
        let map = Tensor::from_slice(&[1.0f32, 0.0, 0.0, 0.0]).view([2, 2]);
        let both = heat(&picture, &map).unwrap();
        assert_eq!((both.width(), both.height()), (448, 224));
        assert_eq!(both.get_pixel(0, 0), &Rgb([128, 128, 128]));
        let (hot, cold) = (both.get_pixel(224, 0).0, both.get_pixel(447, 223).0);
        assert!(hot[0] > 160 && hot[2] < 90, "{hot:?}");
        assert!(cold[2] > 110 && cold[0] < 90, "{cold:?}");
        assert!(heat(&picture, &Tensor::from(1.0f32)).is_err());
    }
}

//! What a network's layers answer to one image.

use image::{Rgb, RgbImage, imageops};
use tch::{Kind, Tensor};

use super::grid::paste;
use super::{BLUE, GREY, INK, RED, WHITE, blend, fill, text};
use crate::{Error, Result};

const MARGIN: u32 = 16;
/// Width of the rows, without the margins.
const WIDTH: u32 = 1084;
const GAP: u32 = 4;
const TITLE: f32 = 16.0;
const LABEL: f32 = 12.0;
/// Small maps are enlarged up to this edge, those beyond twice this edge shrunk to that.
const MAP: u32 = 64;
/// Of a wider layer, the first this many maps are drawn, and the title says so.
const MAPS: i64 = 64;
/// Least and greatest width of a vector's cells.
const CELLS: (u32, u32) = (6, 27);
/// Narrow cells are at least this tall.
const CELL_HEIGHT: u32 = 16;
const BAR: u32 = 96;

/// One titled row a layer, in the order given: feature maps as tiles, vectors as a strip of cells.
///
/// - `layers`: name and activations of one image, `[C, H, W]` or `[C]`
/// - `classes`: what stands under the cells of the last layer; nothing does unless it is a vector of so many, with room for the letters
///
/// Each layer has its own scale, drawn at the right of its title: blue through white to red, symmetric around 0, or white
/// to blue where nothing is negative. Values that are not finite are black.
pub fn feature_maps(layers: &[(String, Tensor)], classes: &[String]) -> Result<RgbImage> {
    let mut layers = layers.iter().map(|(name, tensor)| Layer::new(name, tensor)).collect::<Result<Vec<_>>>()?;
    if let Some(last) = layers.last_mut().filter(|last| last.is_vector && last.maps.len() == classes.len()) {
        last.names = classes.to_vec();
        if !last.names_lie() && last.pitch().0 < LABEL as u32 {
            last.names.clear();
        }
    }
    let height = layers.iter().map(|layer| layer.height() + MARGIN).sum::<u32>() + MARGIN;
    let mut picture = RgbImage::from_pixel(WIDTH + 2 * MARGIN, height, WHITE);
    let mut top = MARGIN;
    for layer in &layers {
        layer.draw(&mut picture, top);
        top += layer.height() + MARGIN;
    }
    Ok(picture)
}

struct Layer {
    title: String,
    scale: Scale,
    maps: Vec<RgbImage>,
    /// Pixels of the picture to a pixel of a map, each way.
    enlarge: u32,
    gap: u32,
    is_vector: bool,
    /// What stands under the cells; empty for nothing.
    names: Vec<String>,
}

impl Layer {
    fn new(name: &str, tensor: &Tensor) -> Result<Layer> {
        let size = tensor.size();
        let (channels, height, width) = match size[..] {
            [c, h, w] if c * h * w > 0 => (c, h, w),
            [c] if c > 0 => (c, 1, 1),
            _ => {
                return Err(Error::Failed(format!("layer {name}: activations are [C, H, W] or [C], not {size:?}")));
            }
        };
        let is_vector = height * width == 1;
        let shown = if is_vector { channels } else { channels.min(MAPS) };
        let values: Vec<f32> = Vec::try_from(tensor.f_to_kind(Kind::Float)?.f_flatten(0, -1)?)?;
        let scale = Scale::of(&values);

        let shape = if is_vector { format!("{channels}") } else { format!("{channels} × {height} × {width}") };
        let cut = if shown < channels { format!(", the first {shown} shown") } else { String::new() };
        let title = format!("{name}   {shape}{cut}");

        let (width, height) = (width as u32, height as u32);
        let edge = width.max(height);
        let (enlarge, gap) = if is_vector {
            let share = (WIDTH + 1) / channels as u32;
            (share.saturating_sub(1).clamp(CELLS.0, CELLS.1), 1)
        } else {
            ((MAP / edge).max(1), GAP)
        };
        let map = |values: &[f32]| {
            if is_vector {
                return RgbImage::from_pixel(1, CELL_HEIGHT.div_ceil(enlarge), scale.colour(values[0]));
            }
            let map = RgbImage::from_fn(width, height, |x, y| scale.colour(values[(y * width + x) as usize]));
            if edge <= 2 * MAP {
                return map;
            }
            let shrink = |side: u32| (side * 2 * MAP / edge).max(1);
            imageops::resize(&map, shrink(width), shrink(height), imageops::FilterType::Triangle)
        };
        let maps = values.chunks((width * height) as usize).take(shown as usize).map(map).collect();
        Ok(Layer { title, scale, maps, enlarge, gap, is_vector, names: Vec::new() })
    }

    /// Whether every name fits under its cell; else they all stand upright.
    fn names_lie(&self) -> bool {
        let cell = self.pitch().0 - self.gap;
        self.names.iter().all(|name| text::width(name, LABEL) <= cell)
    }

    /// Room that the names take under a row of cells.
    fn names_height(&self) -> u32 {
        match (self.names.is_empty(), self.names_lie()) {
            (true, _) => 0,
            (false, true) => LABEL as u32 + 3,
            (false, false) => self.names.iter().map(|name| text::width(name, LABEL)).max().unwrap_or(0) + 4,
        }
    }

    /// Width and height of a tile, with the gap after it.
    fn pitch(&self) -> (u32, u32) {
        (self.maps[0].width() * self.enlarge + self.gap, self.maps[0].height() * self.enlarge + self.gap)
    }

    fn columns(&self) -> u32 {
        ((WIDTH + self.gap) / self.pitch().0).max(1)
    }

    fn height(&self) -> u32 {
        let row = self.pitch().1 + self.names_height();
        TITLE as u32 + 6 + (self.maps.len() as u32).div_ceil(self.columns()) * row
    }

    fn draw(&self, picture: &mut RgbImage, top: u32) {
        text::draw(picture, &self.title, MARGIN, top, TITLE, INK);
        self.scale.draw(picture, MARGIN + WIDTH, top + 2);
        let (across, down) = self.pitch();
        for (index, map) in self.maps.iter().enumerate() {
            let (column, row) = (index as u32 % self.columns(), index as u32 / self.columns());
            let (left, top) = (MARGIN + column * across, top + TITLE as u32 + 6 + row * (down + self.names_height()));
            let (width, height) = (map.width() * self.enlarge, map.height() * self.enlarge);
            // A thin frame keeps a map of zeros visible on the white page.
            fill(picture, left - 1, top - 1, width + 2, height + 2, Rgb([210; 3]));
            paste(picture, map, left, top, self.enlarge);
            let Some(name) = self.names.get(index) else { continue };
            let length = text::width(name, LABEL);
            if self.names_lie() {
                text::draw(picture, name, left + (width - length) / 2, top + height + 2, LABEL, INK);
            } else {
                let middle = (left + width / 2).saturating_sub(LABEL as u32 / 2);
                text::draw_upward(picture, name, middle, top + height + 3 + length, LABEL, INK);
            }
        }
    }
}

/// From a layer's values to colours.
struct Scale {
    /// The largest magnitude among the finite values.
    most: f32,
    signed: bool,
}

impl Scale {
    fn of(values: &[f32]) -> Scale {
        let finite = || values.iter().copied().filter(|value| value.is_finite());
        Scale {
            most: finite().fold(0.0, |most, value| most.max(value.abs())),
            signed: finite().any(|value| value < 0.0),
        }
    }

    fn colour(&self, value: f32) -> Rgb<u8> {
        if !value.is_finite() {
            return Rgb([0; 3]);
        }
        let share = if self.most > 0.0 { f64::from(value / self.most) } else { 0.0 };
        match (self.signed, share < 0.0) {
            (true, true) => blend(WHITE, BLUE, -share),
            (true, false) => blend(WHITE, RED, share),
            (false, _) => blend(WHITE, BLUE, share),
        }
    }

    /// A bar with the numbers at its ends, right-aligned at `right`.
    fn draw(&self, picture: &mut RgbImage, right: u32, top: u32) {
        let least = if self.signed { -self.most } else { 0.0 };
        let (low, high) = (number(least), number(self.most));
        let bar = right - text::width(&high, LABEL) - 6 - BAR;
        text::draw(picture, &high, bar + BAR + 6, top, LABEL, GREY);
        text::draw(picture, &low, bar - 6 - text::width(&low, LABEL), top, LABEL, GREY);
        fill(picture, bar - 1, top + 1, BAR + 2, LABEL as u32, Rgb([210; 3]));
        for x in 0..BAR {
            let value = least + (self.most - least) * x as f32 / (BAR - 1) as f32;
            fill(picture, bar + x, top + 2, 1, LABEL as u32 - 2, self.colour(value));
        }
    }
}

/// Three digits, whatever the size.
fn number(value: f32) -> String {
    let text = match value.abs() {
        0.0 => "0".to_string(),
        size if !(0.001..10_000.0).contains(&size) => format!("{value:.1e}"),
        size if size < 0.9995 => format!("{value:.3}"),
        size if size < 100.0 => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    };
    text.replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(values: &[f32], shape: &[i64]) -> (String, Tensor) {
        ("layer".into(), Tensor::from_slice(values).view(shape))
    }

    #[test]
    fn the_extremes_get_the_full_colours_and_zero_is_white() {
        let picture = feature_maps(&[layer(&[-2.0, 0.0, 1.0, 2.0], &[4])], &[]).unwrap();
        let middle = MARGIN + TITLE as u32 + 6 + CELLS.1 / 2;
        let cell = |index: u32| *picture.get_pixel(MARGIN + index * (CELLS.1 + 1) + CELLS.1 / 2, middle);
        assert_eq!([cell(0), cell(1), cell(2), cell(3)], [BLUE, WHITE, blend(WHITE, RED, 0.5), RED]);
    }

    #[test]
    fn class_names_stand_under_the_outputs_lying_or_upright() {
        let rows = || vec![layer(&[1.0, 2.0], &[2]), layer(&[0.0, 0.0, 4.0], &[3])];
        let of = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            feature_maps(&rows(), &names).unwrap()
        };
        let plain = of(&[]);
        assert_eq!(of(&["0", "1"]), plain, "two names are not those of three cells");
        let (digits, words) = (of(&["0", "1", "2"]), of(&["trouser", "pullover", "ankle boot"]));
        assert_eq!(digits.height() - plain.height(), LABEL as u32 + 3);
        assert_eq!(words.height() - plain.height(), text::width("ankle boot", LABEL) + 4);
        let many: Vec<_> = (0..120).map(|class| format!("class {class}")).collect();
        let wide = || vec![layer(&[1.0; 120], &[120])];
        assert_eq!(feature_maps(&wide(), &many).unwrap(), feature_maps(&wide(), &[]).unwrap(), "no room for letters");
        // Ink under each cell.
        for picture in [&digits, &words] {
            for cell in 0..3 {
                let left = MARGIN + cell * (CELLS.1 + 1);
                let below = plain.height() - MARGIN..picture.height();
                let dark = |x: u32| below.clone().any(|y| picture.get_pixel(x, y)[0] < 128);
                assert!((left..left + CELLS.1).any(dark), "cell {cell}");
            }
        }
    }

    #[test]
    fn what_is_never_negative_runs_from_white_to_blue() {
        let scale = Scale::of(&[0.0, 4.0, f32::INFINITY]);
        assert_eq!(scale.colour(0.0), WHITE);
        assert_eq!(scale.colour(4.0), BLUE);
        assert_eq!(scale.colour(f32::NAN), Rgb([0; 3]));
    }

    #[test]
    fn wide_layers_wrap_and_very_wide_ones_are_cut_with_notice() {
        let maps = |channels: i64| Tensor::zeros([channels, 10, 10], (Kind::Float, tch::Device::Cpu));
        let height = |channels| feature_maps(&[("a".into(), maps(channels))], &[]).unwrap().height();
        let columns = i64::from(Layer::new("a", &maps(1)).unwrap().columns());
        assert_eq!(height(1), height(columns));
        assert_eq!(height(columns + 1) - height(columns), 60 + GAP);
        assert_eq!(height(MAPS), height(512));
        assert_eq!(Layer::new("a", &maps(512)).unwrap().title, "a   512 × 10 × 10, the first 64 shown");
    }

    #[test]
    fn a_picture_has_any_shape_of_map_in_it() {
        for shape in [&[1, 1, 1][..], &[3, 224, 224], &[2, 1, 700], &[4096], &[1000]] {
            let zeros = Tensor::zeros(shape, (Kind::Float, tch::Device::Cpu));
            let picture = feature_maps(&[("a".into(), zeros)], &[]).unwrap();
            assert_eq!(picture.width(), WIDTH + 2 * MARGIN, "{shape:?}");
        }
        assert!(feature_maps(&[layer(&[1.0, 2.0], &[1, 2])], &[]).is_err());
        assert!(feature_maps(&[layer(&[], &[0])], &[]).is_err());
    }
}

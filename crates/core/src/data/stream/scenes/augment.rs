//! What chance does to training pictures with boxes.

use fast_image_resize::Resizer;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::colour;
use super::frame::Frame;
use super::view::{pick, short_side};
use crate::data::stream::bad::Reason;
use crate::data::{Filter, Flip};
use crate::random::{below, uniform};
use crate::{Result, user};

/// Longest side that a crop is taken of, in pixels.
const MOST: i64 = 4096;

/// One kind of augmentation of pictures with boxes. In YAML `augment:` is a list of blocks: `- {kind: flip}`, `- {kind: hsv, hue: 0.1, …}`.
///
/// What moves pixels acts on the photo in the order of the list, before the view gives it its size; colours change last of all.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum SceneAugment {
    /// A mirror image, left and right exchanged.
    Flip(Flip),
    /// The photo at another size, and a part of it: DETR's crop policy.
    ResizeCrop(ResizeCrop),
    /// Hue, saturation and exposure: Darknet's colours.
    Hsv(Hsv),
}

/// The shorter side resized to one of several lengths, then a part of random width, height and place, as DETR has it before its
/// random resize (facebookresearch/detr@29901c5, datasets/coco.py: p = 0.5, [400, 500, 600], 384, 600).
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct ResizeCrop {
    /// The share of the pictures that are cut, above 0 and at most 1.
    pub p: f64,
    /// Lengths of the shorter side in pixels.
    pub short: Vec<i64>,
    /// Shortest side of the part in pixels; of pictures that are shorter, all.
    pub smallest: i64,
    /// Longest side of the part in pixels.
    pub largest: i64,
    /// How pixels are blended.
    pub filter: Filter,
}

/// Colours by hue, saturation and value, as Darknet changes them (pjreddie/darknet@f6afaab, src/image.c, random_distort_image).
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Hsv {
    /// Largest turn of the hue either way, in turns: [0, 0.5].
    pub hue: f64,
    /// Largest factor s of the saturation, at least 1: uniform in [1, s), or, as often, one over that.
    pub saturation: f64,
    /// Largest factor of the value, at least 1, drawn likewise.
    pub exposure: f64,
}

impl SceneAugment {
    /// Refuses numbers that cannot be, and a kind that stands twice.
    ///
    /// # Errors
    /// Names the key.
    pub fn check_all(list: &[SceneAugment]) -> Result<()> {
        for (place, augment) in list.iter().enumerate() {
            let name = augment.operation();
            if list[..place].iter().any(|other| other.operation() == name) {
                return Err(user!("augment: `{name}` stands twice; keep one"));
            }
            augment.check()?;
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let demand = |holds: bool, key: &str, found: String, rule: &str| match holds {
            true => Ok(()),
            false => Err(user!("augment: `{}.{key}` is {found}; choose {rule}", self.operation())),
        };
        let share = |p: f64| demand(p > 0.0 && p <= 1.0, "p", p.to_string(), "a number above 0 and at most 1");
        match self {
            SceneAugment::Flip(Flip { p }) => share(*p),
            SceneAugment::ResizeCrop(ResizeCrop { p, short, smallest, largest, .. }) => {
                share(*p)?;
                let fit = !short.is_empty() && short.iter().all(|length| (1..=MOST).contains(length));
                demand(fit, "short", format!("{short:?}"), &format!("lengths in pixels from 1 to {MOST}"))?;
                let fit = 1 <= *smallest && smallest <= largest && *largest <= MOST;
                let rule = format!("two lengths in pixels, 1 ≤ smallest ≤ largest ≤ {MOST}");
                demand(fit, "smallest", format!("{smallest} and largest {largest}"), &rule)
            }
            SceneAugment::Hsv(Hsv { hue, saturation, exposure }) => {
                demand((0.0..=0.5).contains(hue), "hue", hue.to_string(), "a number from 0 to 0.5")?;
                for (key, factor) in [("saturation", saturation), ("exposure", exposure)] {
                    demand((1.0..=100.0).contains(factor), key, factor.to_string(), "a factor from 1 to 100")?;
                }
                Ok(())
            }
        }
    }

    /// The name under which the parameters are drawn.
    pub(super) fn operation(&self) -> &'static str {
        match self {
            SceneAugment::Flip(_) => "flip",
            SceneAugment::ResizeCrop(_) => "resize_crop",
            SceneAugment::Hsv(_) => "hsv",
        }
    }

    /// Moves pixels, before the picture has its size.
    pub(super) fn move_pixels(
        &self,
        frame: &mut Frame,
        rng: &mut ChaCha8Rng,
        resizer: &mut Resizer,
    ) -> Result<(), Reason> {
        match self {
            SceneAugment::Flip(flip) => {
                if flip.draw(rng) {
                    frame.flip();
                }
                Ok(())
            }
            SceneAugment::ResizeCrop(crop) => crop.cut(frame, rng, resizer),
            SceneAugment::Hsv(_) => Ok(()),
        }
    }

    /// Changes the colours of pixels (RGB) that have their places.
    pub(super) fn change_colours(&self, pixels: &mut [u8], rng: &mut ChaCha8Rng) {
        if let SceneAugment::Hsv(hsv) = self {
            let (hue, saturation, value) = hsv.draw(rng);
            colour::distort(pixels, hue, saturation, value);
        }
    }
}

impl ResizeCrop {
    fn cut(&self, frame: &mut Frame, rng: &mut ChaCha8Rng, resizer: &mut Resizer) -> Result<(), Reason> {
        if uniform(rng, 0.0, 1.0) >= self.p {
            return Ok(());
        }
        frame.resize(short_side(frame.size(), pick(&self.short, rng), None), self.filter, resizer)?;
        let size = frame.size().map(i64::from);
        let sides = size.map(|side| {
            let (low, high) = (self.smallest.min(side), self.largest.min(side));
            low + below(rng, (high - low) as u64 + 1) as i64
        });
        let top = below(rng, (size[1] - sides[1]) as u64 + 1) as u32;
        let left = below(rng, (size[0] - sides[0]) as u64 + 1) as u32;
        frame.crop([left, top, sides[0] as u32, sides[1] as u32]);
        Ok(())
    }
}

impl Hsv {
    /// Turn of the hue, factor of the saturation, factor of the value.
    fn draw(&self, rng: &mut ChaCha8Rng) -> (f32, f32, f32) {
        let hue = uniform(rng, -self.hue, self.hue);
        let mut factor = |most: f64| {
            let factor = uniform(rng, 1.0, most);
            if below(rng, 2) == 1 { factor } else { 1.0 / factor }
        };
        let (saturation, value) = (factor(self.saturation), factor(self.exposure));
        (hue as f32, saturation as f32, value as f32)
    }
}

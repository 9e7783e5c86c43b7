//! Photos one by one, as a split of photos with boxes is evaluated, and by the same hands.

use std::path::Path;

use image::RgbImage;
use tch::{Kind, Tensor};

use super::frame::Frame;
use super::{Placed, SceneBatch, SceneFit};
use crate::data::Normaliser;
use crate::data::stream::decode::{Opened, Scratch};
use crate::data::stream::still::bytes;
use crate::detection::Targets;
use crate::random::rng;
use crate::{Error, Result, user};

/// Reads photos for a detector.
#[derive(Debug)]
pub struct SceneStills<'a> {
    fit: &'a SceneFit,
    stride: u32,
    normaliser: Normaliser,
    scratch: Scratch,
}

impl<'a> SceneStills<'a> {
    /// As the test split is seen: in this fit, with sides of multiples of `stride`, centred by `normaliser`, on the CPU.
    pub fn new(fit: &'a SceneFit, stride: i64, normaliser: Normaliser) -> Self {
        Self { fit, stride: stride as u32, normaliser, scratch: Scratch::default() }
    }

    /// The photo as its file has it, and the batch of it alone, in which nothing is known to be found.
    ///
    /// # Errors
    /// Why the file cannot be used.
    pub fn read(&mut self, path: &Path) -> Result<(RgbImage, SceneBatch)> {
        self.scratch.file = bytes(path)?;
        let (fit, mut seen) = (self.fit, Vec::new());
        let looked = self.scratch.picture(|Opened { pixels, size, resizer, .. }| {
            let plan = fit.plan(size, &mut rng(0, 0, 0, "scene"));
            let laid = Frame::new(pixels, size).lay(&plan, resizer, &mut seen)?;
            Ok((pixels.to_vec(), Placed { index: 0, size, valid: plan.canvas, axes: laid.axes }))
        });
        let (pixels, placed) = looked.map_err(|reason| user!("{}: {reason}", path.display()))?;
        let [width, height] = placed.size;
        let photo = RgbImage::from_raw(width, height, pixels)
            .ok_or_else(|| Error::Failed("a photo of the wrong size".into()))?;
        let [w, h] = placed.valid.map(i64::from);
        let unit = Tensor::f_from_data_size(&seen, &[1, h, w, 3], Kind::Uint8)?.f_permute([0, 3, 1, 2])?;
        let image = self.normaliser.apply(&unit.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?)?;
        let [right, below] = placed.valid.map(|side| i64::from(side.next_multiple_of(self.stride) - side));
        let image = image.f_constant_pad_nd([0, right, 0, below])?;
        let padding = (right + below > 0)
            .then(|| {
                Tensor::f_zeros([1, h, w], (Kind::Bool, image.device()))?.f_pad([0, right, 0, below], "constant", 1.0)
            })
            .transpose()?;
        Ok((photo, SceneBatch { image, padding, targets: Targets::none(1), photos: vec![placed] }))
    }
}

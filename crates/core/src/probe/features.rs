//! What a trunk makes of pictures.

use tch::{Kind, Tensor};

use super::Trunk;
use crate::Result;
use crate::classifier::at_once;
use crate::data::{Pictures, Source, Split};
use crate::metrics::Predictions;
use crate::trainer::{Eval, Step};

/// Classifies a split: `answer` takes centred pictures `[N, C, H, W]` and gives `[N, K]`, whose largest is the answer. Adds accuracy and
/// confusion, and no loss: what answers need not be a distribution.
///
/// # Errors
/// Those of the data, libtorch's.
pub fn classify(
    data: &Pictures,
    split: Split,
    at: &Step,
    answer: impl Fn(&Tensor) -> Result<Tensor>,
    out: &mut Eval,
) -> Result<()> {
    let Some(part) = data.part(split, at.setup) else { return Ok(()) };
    let mut predictions = Predictions::default();
    for images in data.in_order(split, part.range, at_once(data)) {
        let images = images?;
        predictions.add(&answer(&images.image)?, &images.label, None)?;
    }
    if part.shared {
        predictions = predictions.together(at.setup)?;
    }
    out.classification(&predictions.finish()?, data.classes(), |places| data.show(split, places))
}

/// What a trunk makes of pictures.
#[derive(Debug)]
pub struct Features {
    /// `[N, D]`
    pub h: Tensor,
    /// `[N]`, int64.
    pub label: Tensor,
}

impl Features {
    /// Of all training pictures, in the set's own order, not augmented. Photos that cannot be read are left out.
    ///
    /// # Errors
    /// Those of the data, libtorch's.
    pub fn of_training(trunk: &impl Trunk, data: &Pictures) -> Result<Self> {
        Self::of(trunk, data, Split::Train, data.len())
    }

    /// The same of the first `count` pictures of a split.
    ///
    /// # Errors
    /// Those of the data, libtorch's.
    pub fn of(trunk: &impl Trunk, data: &Pictures, split: Split, count: u64) -> Result<Self> {
        let (mut h, mut label) = (Vec::new(), Vec::new());
        for images in data.in_order(split, 0..count, at_once(data)) {
            let images = images?;
            h.push(tch::no_grad(|| trunk.features(&images.image)).f_to_kind(Kind::Float)?);
            label.push(images.label);
        }
        Ok(Self { h: Tensor::f_cat(&h, 0)?, label: Tensor::f_cat(&label, 0)? })
    }

    /// Those at these places of the set; a place behind the last, where some are left out, begins again with the first.
    ///
    /// # Errors
    /// libtorch's.
    pub fn at(&self, places: &Tensor) -> Result<Self> {
        let places = &places.f_remainder(self.label.size()[0])?;
        Ok(Self { h: self.h.f_index_select(0, places)?, label: self.label.f_index_select(0, places)? })
    }
}

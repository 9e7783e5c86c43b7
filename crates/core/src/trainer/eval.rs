//! What an evaluation hands to the trainer.

mod detection;

use std::collections::BTreeMap;

use image::RgbImage;
use tch::{Device, Tensor};

use crate::metrics::{Classification, Mistake};
use crate::optim::Ema;
use crate::trainer::run::FeatureNetwork;
use crate::{Result, figures};

/// Most classes that are told one by one: of more nobody reads a number or a field each.
const CLASS_BY_CLASS: usize = 200;

/// Collects what an evaluation finds.
#[derive(Debug, Default)]
pub struct Eval {
    scalars: Vec<(&'static str, String, f64)>,
    pub(super) pictures: Vec<(String, RgbImage)>,
    suffix: &'static str,
    raw_only: bool,
    numbers_only: bool,
    brief: bool,
    /// Whether averages are measured after what is measured now.
    averages_follow: bool,
    pub(super) feature_network: Option<FeatureNetwork>,
}

impl Eval {
    /// Of given weights, which come without averages, but those may be measured after them: whole, but pictures are not drawn.
    pub(super) fn of_weights(averages_follow: bool) -> Self {
        Self { raw_only: true, numbers_only: true, averages_follow, ..Self::default() }
    }

    /// On the way: pictures would take longer to draw than to do, and what takes long is done where it is `full` only.
    pub(super) fn on_the_way(full: bool) -> Self {
        Self { numbers_only: true, brief: !full, ..Self::default() }
    }

    /// Whether everything is to be measured: at the end of a stage, of given weights, and on the way as often as `eval.full_every` says.
    /// What takes long (FID of 50,000 samples, AP over all images) is left out otherwise.
    pub fn full(&self) -> bool {
        !self.brief
    }

    /// Whether these are the weights that pictures are drawn with: the averages, or those themselves that have none. What takes long and is told
    /// of one of the two alone is told of these.
    pub fn is_final(&self) -> bool {
        !self.averages_follow
    }

    /// Says by which network's features pictures are judged.
    pub fn judged_by(&mut self, network: FeatureNetwork) {
        self.feature_network = Some(network);
    }

    /// Adds a number: fractions for `accuracy` and `error`.
    pub fn scalar(&mut self, name: impl Into<String>, value: f64) {
        self.scalars.push((self.suffix, name.into(), value));
    }

    /// Adds a picture, which is drawn at a stage's last evaluation only; `name` becomes its file's stem.
    ///
    /// # Errors
    /// Those of `draw`.
    pub fn picture(&mut self, name: &str, draw: impl FnOnce() -> Result<RgbImage>) -> Result<()> {
        if !self.numbers_only {
            self.pictures.push((format!("{name}{}", self.suffix), draw()?));
        }
        Ok(())
    }

    /// Adds all that is known of a classifier of `names` (by label): `error`, `accuracy`, `top5_accuracy`, `loss`, `class/<name>`
    /// (accuracy within the class), and pictures of the confusion matrix (up to 100 classes) and of the wrong answers given with the most
    /// confidence. `show` gives the pictures at places of the set, `[n, C, H, W]` in [0, 1].
    ///
    /// # Errors
    /// Those of `show` and of drawing.
    pub fn classification(
        &mut self,
        found: &Classification,
        names: &[String],
        show: impl Fn(&[i64]) -> Result<Tensor>,
    ) -> Result<()> {
        self.scalar("error", found.error());
        self.scalar("accuracy", found.accuracy());
        for (name, value) in [("top5_accuracy", found.top5_accuracy()), ("loss", found.loss)] {
            if let Some(value) = value {
                self.scalar(name, value);
            }
        }
        for (name, accuracy) in names.iter().zip(found.class_accuracy()).filter(|_| names.len() <= CLASS_BY_CLASS) {
            if let Some(accuracy) = accuracy {
                self.scalar(format!("class/{name}"), accuracy);
            }
        }
        if let Some(confusion) = &found.confusion {
            self.picture("confusion", || {
                let counts: Vec<i64> = confusion.iter().flatten().map(|&n| n as i64).collect();
                let edge = confusion.len() as i64;
                figures::confusion(&Tensor::f_from_slice(&counts)?.f_view([edge, edge])?, names)
            })?;
        }
        if !found.mistakes.is_empty() {
            self.picture("mistakes", || {
                let index: Vec<i64> = found.mistakes.iter().map(|m| m.index as i64).collect();
                let images = show(&index)?;
                let captions: Vec<_> = found.mistakes.iter().map(|mistake| caption(mistake, names)).collect();
                // Small pictures are enlarged, photos are not.
                let width = images.size().last().copied().unwrap_or(1).max(1);
                figures::grid(&images.f_to_device(Device::Cpu)?, 8, (96 / width).max(1) as u32, &captions)
            })?;
        }
        Ok(())
    }

    /// Evaluates the weights, and after them their averages, if there are any, under `<split>-ema/`.
    ///
    /// # Errors
    /// Those of `evaluate`.
    pub fn with_average(&mut self, ema: Option<&Ema>, evaluate: impl Fn(&mut Eval) -> Result<()>) -> Result<()> {
        let Some(ema) = ema.filter(|_| !self.raw_only) else { return evaluate(self) };
        self.averages_follow = true;
        evaluate(self)?;
        self.averages_follow = false;
        self.suffix = "-ema";
        let done = ema.applied(|| evaluate(self));
        self.suffix = "";
        done?
    }

    /// `test/accuracy` → value, for `split` = `test`.
    pub(super) fn named(&self, split: &str) -> BTreeMap<String, f64> {
        self.scalars.iter().map(|(suffix, name, value)| (format!("{split}{suffix}/{name}"), *value)).collect()
    }
}

/// `cat → dog`, the probability that the network gave its answer, and where the picture is found.
fn caption(mistake: &Mistake, names: &[String]) -> String {
    let name = |class: i64| names.get(class as usize).map_or("?", String::as_str);
    let place = match &mistake.file {
        Some(file) => file.clone(),
        None => format!("picture {}", mistake.index),
    };
    format!("{} → {}\n{:.1} %\n{place}", name(mistake.truth), name(mistake.predicted), 100.0 * mistake.probability)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_tells_truth_answer_probability_and_place() {
        let names = ["cat".to_string(), "dog".to_string()];
        let mut mistake = Mistake { index: 17, file: None, truth: 1, predicted: 0, probability: 0.98765 };
        assert_eq!(caption(&mistake, &names), "dog → cat\n98.8 %\npicture 17");
        mistake.file = Some("a.jpg".into());
        assert_eq!(caption(&mistake, &names), "dog → cat\n98.8 %\na.jpg");
    }
}

//! What is told of a detector.

use image::RgbImage;
use tch::Tensor;

use super::{CLASS_BY_CLASS, Eval};
use crate::Result;
use crate::detection::mistakes::{Review, Reviewed};
use crate::detection::{Scene, coco, voc};
use crate::figures::{self, MOST_CLASSES};

/// How many of the worst mistakes of each kind are drawn.
const MISTAKES: usize = 6;

impl Eval {
    /// Adds all that is known of a detector of `names` (by class) from what it found in the photos of a set: COCO's twelve numbers, VOC's
    /// `mAP50`, `class/<name>` (AP of the class, where it has truths), and pictures of the curves, of the confusion (up to 99 classes) and
    /// of the worst mistakes, these two of detections with scores of `least` or more. `show` gives the photo of a scene, as its file has
    /// it, and its name.
    ///
    /// # Errors
    /// As [`Scene::check`]; those of `show` and of drawing.
    pub fn detection(
        &mut self,
        scenes: &[Scene],
        names: &[String],
        least: f64,
        show: impl Fn(usize) -> Result<(RgbImage, String)>,
    ) -> Result<()> {
        let found = coco::evaluate(scenes, names.len())?;
        for (name, value) in found.named() {
            self.scalar(name, value);
        }
        self.scalar("mAP50", voc::evaluate(scenes, names.len(), voc::OVERLAP)?.area);
        for (name, class) in names.iter().zip(&found.classes).filter(|_| names.len() <= CLASS_BY_CLASS) {
            if class.truths > 0 {
                self.scalar(format!("class/{name}"), class.numbers[0]);
            }
        }
        if self.numbers_only {
            return Ok(());
        }
        let mut review = Review::new(names.len(), least, MISTAKES);
        scenes.iter().try_for_each(|scene| review.add(scene))?;
        let review = review.finish();
        self.picture("precision_recall", || {
            figures::plot(&figures::precision_recall("precision and recall", found.curves(names)))
        })?;
        if names.len() < MOST_CLASSES {
            self.picture("confusion", || confusion(&review, names))?;
        }
        if review.counts.iter().any(|&count| count > 0) {
            self.picture("mistakes", || figures::mistakes(&review, names, show))?;
        }
        Ok(())
    }
}

/// With the background as the last row and column.
fn confusion(review: &Reviewed, names: &[String]) -> Result<RgbImage> {
    let counts: Vec<i64> = review.confusion.iter().flatten().map(|&n| n as i64).collect();
    let edge = review.confusion.len() as i64;
    let names: Vec<_> = names.iter().cloned().chain(["background".to_string()]).collect();
    figures::detections(&Tensor::f_from_slice(&counts)?.f_view([edge, edge])?, &names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::detection::{Detection, Truth};

    fn scene() -> Scene {
        let truth =
            |class, x| Truth { class, rect: [x, 20.0, 30.0, 30.0], area: 900.0, crowd: false, difficult: false };
        let found = |class, x, score| Detection { class, score, rect: [x, 20.0, 30.0, 30.0] };
        Scene {
            truths: vec![truth(0, 10.0), truth(1, 60.0)],
            detections: vec![found(0, 10.0, 0.9), found(0, 61.0, 0.8)],
        }
    }

    #[test]
    fn numbers_come_with_pictures_at_the_end_alone() {
        let names = ["cat".to_string(), "dog".to_string(), "cow".to_string()];
        let show = |_| Ok((RgbImage::new(100, 80), "a.jpg".to_string()));
        let mut last = Eval::default();
        last.detection(&[scene()], &names, 0.5, show).unwrap();
        let told = last.named("test");
        assert_eq!(told.len(), 12 + 1 + 2, "{told:?}");
        assert!((told["test/AP50"] - 0.5).abs() < 1e-12 && (told["test/mAP50"] - 0.5).abs() < 1e-12);
        assert_eq!((told["test/APl"], told["test/class/dog"]), (-1.0, 0.0));
        let drawn: Vec<_> = last.pictures.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(drawn, ["precision_recall", "confusion", "mistakes"]);
        let mut before = Eval::on_the_way(true);
        before.detection(&[scene()], &names, 0.5, |_| Err(Error::Failed("is not asked for".into()))).unwrap();
        assert_eq!((before.named("test"), before.pictures.len()), (told, 0));
    }
}

//! Accuracy, top-k, confusion and the worst mistakes of a classifier.

use tch::{Kind, Tensor};

use crate::data::ImageSet;
use crate::figures::MOST_CLASSES;
use crate::setup::Setup;
use crate::{Result, user};

/// How many of the worst mistakes are kept.
const MISTAKES: usize = 24;

/// Top-k is measured where there are more classes than this k.
const TOP: i64 = 5;

/// What a classifier said, gathered batch by batch on the device; nothing waits for it until [`Predictions::finish`].
///
/// Of equal logits the first is the prediction, and the truth ranks behind equal ones before it. A truth whose logit is NaN is
/// outside every top-k.
#[derive(Debug, Default)]
pub struct Predictions {
    classes: i64,
    truth: Vec<Tensor>,
    predicted: Vec<Tensor>,
    probability: Vec<Tensor>,
    rank: Vec<Tensor>,
    loss: Vec<Tensor>,
}

/// What [`Predictions`] add up to.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    /// Of each of the K classes: how many examples it has, and how many of them were recognised.
    pub classes: Vec<(u64, u64)>,
    /// K rows (truth) of K counts (prediction); only where K is at most 100.
    pub confusion: Option<Vec<Vec<u64>>>,
    /// How often the truth was among the five highest logits; only where K > 5.
    pub top5: Option<u64>,
    /// Mean of the losses given to [`Predictions::add`], where all batches had them.
    pub loss: Option<f64>,
    /// The mistakes made with the most confidence, at most 24, the worst first.
    pub mistakes: Vec<Mistake>,
}

/// One wrong answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Mistake {
    /// Place of the picture in the set.
    pub index: u64,
    /// The picture's file, where it has one of its own; for the caller to fill in.
    pub file: Option<String>,
    /// Its label.
    pub truth: i64,
    /// What the classifier said.
    pub predicted: i64,
    /// The softmax of the logits at `predicted`.
    pub probability: f64,
}

impl Predictions {
    /// Adds a batch: logits `[N, K]`, labels `[N]` int64, and the loss of each example `[N]` where it is wanted.
    ///
    /// # Errors
    /// Shapes that do not fit each other or the batches before.
    pub fn add(&mut self, logits: &Tensor, label: &Tensor, loss: Option<&Tensor>) -> Result<()> {
        let (n, classes) = logits.size2()?;
        if label.size() != [n]
            || loss.is_some_and(|loss| loss.size() != [n])
            || (self.classes != 0 && classes != self.classes)
        {
            let shapes = (logits.size(), label.size(), loss.map(Tensor::size));
            return Err(crate::Error::Failed(format!(
                "logits, labels and losses do not fit: {shapes:?}, {} classes before",
                self.classes
            )));
        }
        self.classes = classes;
        let logits = logits.f_detach()?;
        let predicted = logits.f_argmax(1, true)?;
        let probability = logits.f_softmax(1, Kind::Float)?.f_gather(1, &predicted, false)?;
        self.predicted.push(predicted.f_squeeze_dim(1)?);
        self.probability.push(probability.f_squeeze_dim(1)?);
        self.truth.push(label.shallow_clone());
        if classes > TOP {
            self.rank.push(rank(&logits, label)?);
        }
        if let Some(loss) = loss {
            self.loss.push(loss.f_detach()?);
        }
        Ok(())
    }

    /// Those of all processes, each of which has a part of the examples in the order of the ranks.
    ///
    /// # Errors
    /// A process left.
    pub fn together(self, setup: &Setup) -> Result<Self> {
        let rows = |parts: &[Tensor]| -> Result<Vec<Tensor>> {
            if parts.is_empty() { Ok(Vec::new()) } else { setup.gather_rows(&Tensor::f_cat(parts, 0)?) }
        };
        Ok(Self {
            classes: self.classes,
            truth: rows(&self.truth)?,
            predicted: rows(&self.predicted)?,
            probability: rows(&self.probability)?,
            rank: rows(&self.rank)?,
            loss: rows(&self.loss)?,
        })
    }

    /// Waits for the device and adds up. All counts are exact.
    ///
    /// # Errors
    /// No predictions, a label that is no class of the model, or libtorch's.
    pub fn finish(self) -> Result<Classification> {
        if self.truth.is_empty() {
            return Err(crate::Error::Failed("nothing was evaluated".into()));
        }
        let classes = self.classes;
        let truth = Vec::<i64>::try_from(Tensor::f_cat(&self.truth, 0)?)?;
        let predicted = Vec::<i64>::try_from(Tensor::f_cat(&self.predicted, 0)?)?;
        let probability = Vec::<f32>::try_from(Tensor::f_cat(&self.probability, 0)?)?;
        let mut counts = vec![(0, 0); classes as usize];
        let few = classes as usize <= MOST_CLASSES;
        let mut confusion = few.then(|| vec![vec![0; classes as usize]; classes as usize]);
        let mut mistakes = Vec::new();
        for (index, ((truth, predicted), probability)) in truth.iter().zip(&predicted).zip(&probability).enumerate() {
            if !(0..classes).contains(truth) {
                return Err(user!(
                    "label {truth} of picture {index} is not one of the model's {classes} classes; set model.num_classes"
                ));
            }
            let (examples, recognised) = &mut counts[*truth as usize];
            *examples += 1;
            *recognised += u64::from(truth == predicted);
            if let Some(confusion) = &mut confusion {
                confusion[*truth as usize][*predicted as usize] += 1;
            }
            if truth != predicted {
                mistakes.push(Mistake {
                    index: index as u64,
                    file: None,
                    truth: *truth,
                    predicted: *predicted,
                    probability: f64::from(*probability),
                });
            }
        }
        // A stable sort: equally confident mistakes stay in the order of the set.
        mistakes.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        mistakes.truncate(MISTAKES);
        let top5 = match self.rank.is_empty() {
            true => None,
            false => Some(
                Vec::<i64>::try_from(Tensor::f_cat(&self.rank, 0)?)?.into_iter().filter(|rank| *rank < TOP).count()
                    as u64,
            ),
        };
        let loss = match self.loss.len() == self.truth.len() {
            true => {
                Some(Vec::<f64>::try_from(Tensor::f_cat(&self.loss, 0)?)?.into_iter().sum::<f64>() / truth.len() as f64)
            }
            false => None,
        };
        Ok(Classification { classes: counts, confusion, top5, loss, mistakes })
    }
}

/// The place of the truth among the logits, from 0: K less those that it beats, counting itself.
fn rank(logits: &Tensor, label: &Tensor) -> Result<Tensor> {
    let classes = logits.size()[1];
    // A label out of range is reported by `finish`; an index out of range would end a CUDA process.
    let label = label.f_clamp(0, classes - 1)?.f_unsqueeze(1)?;
    let own = logits.f_gather(1, &label, false)?;
    let class = Tensor::f_arange(classes, (Kind::Int64, logits.device()))?;
    let behind = class.f_ge_tensor(&label)?;
    let beaten = logits.f_lt_tensor(&own)?.f_logical_or(&logits.f_eq_tensor(&own)?.f_logical_and(&behind)?)?;
    Ok(classes - beaten.f_sum_dim_intlist(1, false, Kind::Int64)?)
}

impl Classification {
    /// Examples seen.
    pub fn count(&self) -> u64 {
        self.classes.iter().map(|(examples, _)| examples).sum()
    }

    /// Examples whose truth was predicted.
    pub fn correct(&self) -> u64 {
        self.classes.iter().map(|(_, recognised)| recognised).sum()
    }

    /// Fraction of right answers, in [0, 1].
    pub fn accuracy(&self) -> f64 {
        self.correct() as f64 / self.count() as f64
    }

    /// Fraction of wrong answers, in [0, 1].
    pub fn error(&self) -> f64 {
        (self.count() - self.correct()) as f64 / self.count() as f64
    }

    /// Fraction of examples whose truth was among the five highest logits; only where K > 5.
    pub fn top5_accuracy(&self) -> Option<f64> {
        self.top5.map(|hits| hits as f64 / self.count() as f64)
    }

    /// Accuracy within each class, by label; none where the class did not occur.
    pub fn class_accuracy(&self) -> Vec<Option<f64>> {
        let share = |&(examples, recognised): &(u64, u64)| (examples > 0).then(|| recognised as f64 / examples as f64);
        self.classes.iter().map(share).collect()
    }
}

/// Classifies all of `set`, `batch` at a time and without gradients; `forward` takes `[N, C, H, W]` in [0, 1] and gives logits
/// `[N, K]`. The result does not depend on `batch`, except as far as `forward` rounds differently.
///
/// # Errors
/// Those of [`Predictions::add`] and [`Predictions::finish`].
pub fn evaluate(set: &ImageSet, batch: i64, forward: impl Fn(&Tensor) -> Tensor) -> Result<Classification> {
    let mut predictions = Predictions::default();
    tch::no_grad(|| {
        set.in_order(batch).try_for_each(|images| predictions.add(&forward(&images.image), &images.label, None))
    })?;
    predictions.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use proptest::prelude::*;

    fn classified(logits: &[f32], classes: i64, labels: &[i64]) -> Result<Classification> {
        let mut predictions = Predictions::default();
        predictions.add(&Tensor::from_slice(logits).view([-1, classes]), &Tensor::from_slice(labels), None)?;
        predictions.finish()
    }

    #[test]
    fn counts_by_hand() {
        let logits = [2.0, 1.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 1.0, 5.0, 0.0, 0.0, 0.0, 2.0, 1.0];
        let found = classified(&logits, 3, &[0, 1, 0, 2, 1]).unwrap();
        assert_eq!(found.confusion, Some(vec![vec![1, 0, 1], vec![0, 2, 0], vec![1, 0, 0]]));
        assert_eq!(found.classes, [(2, 1), (2, 2), (1, 0)]);
        assert_eq!((found.count(), found.correct()), (5, 3));
        assert_eq!((found.accuracy(), found.error()), (3.0 / 5.0, 2.0 / 5.0));
        assert_eq!(found.class_accuracy(), [Some(0.5), Some(1.0), Some(0.0)]);
        assert_eq!((found.top5, found.loss), (None, None));
        let wrong: Vec<_> = found.mistakes.iter().map(|m| (m.index, m.truth, m.predicted)).collect();
        assert_eq!(wrong, [(3, 2, 0), (2, 0, 2)]);
        for (mistake, logit) in found.mistakes.iter().zip([5_f64, 1.0]) {
            let expected = logit.exp() / (logit.exp() + 2.0);
            assert!((mistake.probability - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn a_class_that_did_not_occur_has_no_accuracy() {
        assert_eq!(classified(&[1.0, 0.0], 2, &[0]).unwrap().class_accuracy(), [Some(1.0), None]);
    }

    /// A thousand classes would take a million counts.
    #[test]
    fn many_classes_are_counted_without_their_confusions() {
        for (classes, kept) in [(100, true), (101, false)] {
            let mut logits = vec![0.0; 2 * classes];
            (logits[7], logits[classes + 3]) = (1.0, 1.0);
            let found = classified(&logits, classes as i64, &[7, 9]).unwrap();
            assert_eq!(found.confusion.is_some(), kept);
            assert_eq!((found.count(), found.correct(), found.classes[9]), (2, 1, (1, 0)));
        }
    }

    #[test]
    fn of_equal_logits_the_first_is_taken() {
        let found = classified(&[0.0; 12], 6, &[0, 5]).unwrap();
        assert_eq!(found.correct(), 1);
        // Six equal logits: class 5 ranks sixth.
        assert_eq!(found.top5, Some(1));
        assert_eq!(found.top5_accuracy(), Some(0.5));
    }

    #[test]
    fn a_truth_that_is_not_a_number_is_no_hit() {
        let mut logits = [0.0; 12];
        logits[3] = f32::NAN;
        logits[6..12].copy_from_slice(&[9.0, 8.0, 7.0, 6.0, 5.0, 4.0]);
        assert_eq!(classified(&logits, 6, &[3, 4]).unwrap().top5, Some(1));
    }

    #[test]
    fn losses_are_averaged_over_examples() {
        let mut predictions = Predictions::default();
        for losses in [&[1.0_f32, 2.0][..], &[6.0]] {
            let n = losses.len() as i64;
            let label = Tensor::zeros([n], (Kind::Int64, tch::Device::Cpu));
            let logits = Tensor::zeros([n, 2], (Kind::Float, tch::Device::Cpu));
            predictions.add(&logits, &label, Some(&Tensor::from_slice(losses))).unwrap();
        }
        assert_eq!(predictions.finish().unwrap().loss, Some(3.0));
    }

    #[test]
    fn misfits_are_errors() {
        assert!(
            matches!(classified(&[1.0, 0.0], 2, &[2]), Err(Error::User(text)) if text.contains("label 2 of picture 0"))
        );
        assert!(matches!(classified(&[1.0; 6], 6, &[-1]), Err(Error::User(_))));
        assert!(matches!(classified(&[1.0, 0.0], 2, &[0, 1]), Err(Error::Failed(_))));
        assert!(matches!(Predictions::default().finish(), Err(Error::Failed(_))));
    }

    #[test]
    fn at_most_24_mistakes_the_most_confident_first() {
        let logits: Vec<f32> = (0..40).flat_map(|i| [0.0, (i % 20) as f32 / 10.0 + 0.1]).collect();
        let found = classified(&logits, 2, &[0; 40]).unwrap();
        let places: Vec<u64> = found.mistakes.iter().map(|mistake| mistake.index).collect();
        let expected: Vec<u64> = (0..12).flat_map(|i| [19 - i, 39 - i]).collect();
        assert_eq!(places, expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]
        /// Against a sort in plain Rust, for any batch size, last partial batch included.
        #[test]
        fn batches_do_not_matter(values in prop::collection::vec(0_u8..5, 8 * 17), labels in prop::collection::vec(0_u8..8, 17), batch in 1_i64..20) {
            let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
            let set = ImageSet::new(&values, [1, 1, 8], &labels, &names).unwrap();
            // The eight pixels are the logits.
            let found = evaluate(&set, batch, |image| image.flatten(1, 3) * 10.0).unwrap();
            prop_assert_eq!(&found, &evaluate(&set, 17, |image| image.flatten(1, 3) * 10.0).unwrap());
            let (mut correct, mut top5) = (0, 0);
            for (row, label) in values.chunks_exact(8).zip(&labels) {
                let mut ranked: Vec<usize> = (0..8).collect();
                ranked.sort_by_key(|class| std::cmp::Reverse(row[*class]));
                let rank = ranked.iter().position(|class| *class == usize::from(*label)).unwrap();
                correct += u64::from(rank == 0);
                top5 += u64::from(rank < 5);
            }
            prop_assert_eq!((found.count(), found.correct(), found.top5), (17, correct, Some(top5)));
            prop_assert_eq!(found.mistakes.len() as u64, 17 - correct);
        }
    }
}

//! Accuracy, top-k, confusion and the worst mistakes of a classifier.

use tch::{Kind, Tensor};

use crate::data::ImageSet;
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
    /// K rows (truth) of K counts (prediction).
    pub confusion: Vec<Vec<u64>>,
    /// How often the truth was among the five highest logits; only where K > 5.
    pub top5: Option<u64>,
    /// Mean of the losses given to [`Predictions::add`], where all batches had them.
    pub loss: Option<f64>,
    /// The mistakes made with the most confidence, at most 24, the worst first.
    pub mistakes: Vec<Mistake>,
}

/// One wrong answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mistake {
    /// Place of the picture in the set.
    pub index: u64,
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
        let probability = logits
            .f_softmax(1, Kind::Float)?
            .f_gather(1, &predicted, false)?;
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
        let mut confusion = vec![vec![0; classes as usize]; classes as usize];
        let mut mistakes = Vec::new();
        for (index, ((truth, predicted), probability)) in
            truth.iter().zip(&predicted).zip(&probability).enumerate()
        {
            if !(0..classes).contains(truth) {
                return Err(user!(
                    "label {truth} of picture {index} is not one of the model's {classes} classes; set model.num_classes"
                ));
            }
            confusion[*truth as usize][*predicted as usize] += 1;
            if truth != predicted {
                mistakes.push(Mistake {
                    index: index as u64,
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
                Vec::<i64>::try_from(Tensor::f_cat(&self.rank, 0)?)?
                    .into_iter()
                    .filter(|rank| *rank < TOP)
                    .count() as u64,
            ),
        };
        let loss = match self.loss.len() == self.truth.len() {
            true => Some(
                Vec::<f64>::try_from(Tensor::f_cat(&self.loss, 0)?)?
                    .into_iter()
                    .sum::<f64>()
                    / truth.len() as f64,
            ),
            false => None,
        };
        Ok(Classification {
            confusion,
            top5,
            loss,
            mistakes,
        })
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
    let beaten = logits
        .f_lt_tensor(&own)?
        .f_logical_or(&logits.f_eq_tensor(&own)?.f_logical_and(&behind)?)?;
    Ok(classes - beaten.f_sum_dim_intlist(1, false, Kind::Int64)?)
}

impl Classification {
    /// Examples seen.
    pub fn count(&self) -> u64 {
        self.confusion.iter().flatten().sum()
    }

    /// Examples whose truth was predicted.
    pub fn correct(&self) -> u64 {
        self.confusion
            .iter()
            .enumerate()
            .map(|(class, row)| row[class])
            .sum()
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
        let share = |(class, row): (usize, &Vec<u64>)| {
            let count = row.iter().sum::<u64>();
            (count > 0).then(|| row[class] as f64 / count as f64)
        };
        self.confusion.iter().enumerate().map(share).collect()
    }
}

/// Classifies all of `set`, `batch` at a time and without gradients; `forward` takes `[N, C, H, W]` in [0, 1] and gives logits
/// `[N, K]`. The result does not depend on `batch`, except as far as `forward` rounds differently.
///
/// # Errors
/// Those of [`Predictions::add`] and [`Predictions::finish`].
pub fn evaluate(
    set: &ImageSet,
    batch: i64,
    forward: impl Fn(&Tensor) -> Tensor,
) -> Result<Classification> {
    let mut predictions = Predictions::default();
    tch::no_grad(|| {
        set.in_order(batch)
            .try_for_each(|images| predictions.add(&forward(&images.image), &images.label, None))
    })?;
    predictions.finish()
}

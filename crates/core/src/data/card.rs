//! What a user of trained weights must know beside them, and what follows from it for the pictures that they are shown.

use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use super::{Normalise, Normaliser, Pictures, Scenes};
use crate::setup::Setup;
use crate::weights::some;
use crate::{Result, classes, user};

/// Means and deviations this close are the same: a mean picture is a sum whose order depends on the number of threads.
const CLOSE: f32 = 1e-6;

/// Shape and numbers of a tensor.
type Numbers = (Vec<i64>, Vec<f32>);

/// What a user of trained weights must know beside them; kept in their file.
#[derive(Debug, Serialize, Deserialize)]
pub struct Card {
    /// Names of the K classes, by label.
    pub classes: Vec<String>,
    /// Edge of the pictures that were trained on, in pixels. `None`: in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image_size: Option<i64>,
    /// What is subtracted from pixels in [0, 1].
    mean: Option<Numbers>,
    /// What they are divided by.
    std: Option<Numbers>,
}

impl Card {
    /// The card of a network that was trained on `data`.
    ///
    /// # Errors
    /// libtorch's.
    pub fn of(data: &Pictures) -> Result<Self> {
        let (mean, std) = numbers(data.normaliser())?;
        Ok(Self { classes: data.classes().to_vec(), image_size: Some(data.edge()), mean, std })
    }

    /// The card of a network that was trained on `data`, which has no one size.
    ///
    /// # Errors
    /// libtorch's.
    pub fn of_scenes(data: &Scenes) -> Result<Self> {
        let (mean, std) = numbers(data.normaliser())?;
        Ok(Self { classes: data.classes().to_vec(), image_size: None, mean, std })
    }

    /// The card of a network whose pictures are centred by nothing that it learned from.
    pub fn of_classes(classes: &[String]) -> Self {
        Self { classes: classes.to_vec(), image_size: None, mean: None, std: None }
    }

    /// Refuses a set whose classes are others: those of small sets have a fixed order.
    ///
    /// # Errors
    /// Both lists.
    pub fn check_classes(&self, set: &str, classes: &[String]) -> Result<()> {
        let listed = |names: &[String]| some(&names.iter().map(String::as_str).collect::<Vec<_>>());
        match self.classes == classes {
            true => Ok(()),
            false => Err(user!(
                "the classes of {set} are not those of these weights. They know {}; {set} has {}. Choose the set that they learned from with data.name",
                listed(&self.classes),
                listed(classes)
            )),
        }
    }

    /// The card of the weights that are tested or asked; `None` where the run trains its own, or their file has none.
    ///
    /// # Errors
    /// A damaged card.
    pub fn given(setup: &Setup) -> Result<Option<Self>> {
        setup.given.as_ref().and_then(|given| given.card.as_deref()).map(Self::read).transpose()
    }

    /// What stands in a file of weights.
    ///
    /// # Errors
    /// It is damaged.
    pub fn read(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|e| damaged(&e))
    }

    /// The card of the weights that are asked. Of public weights without one: ImageNet's names where there are 1,000 classes, else numbers; and
    /// the configuration's `normalise`. `edge` is that of the network's pictures in the configuration; what differs from the card is noted.
    ///
    /// # Errors
    /// A damaged card; another number of classes; a mean picture, which only a card has.
    pub fn given_or(setup: &Setup, classes: i64, normalise: &Normalise, edge: i64) -> Result<Self> {
        let own = match normalise {
            Normalise::Channels { .. } => Some(normalise.of(None, 3, Device::Cpu)?),
            Normalise::PixelMean { .. } => None,
        };
        if let Some(card) = Self::given(setup)? {
            if card.classes.len() as i64 != classes {
                return Err(user!(
                    "these weights know {} classes, and the network has {classes}; set model.num_classes",
                    card.classes.len()
                ));
            }
            card.note_differences(own.as_ref(), edge, setup)?;
            return Ok(card);
        }
        let names: Vec<String> = match classes {
            1000 => classes::imagenet().into_iter().map(String::from).collect(),
            _ => (0..classes).map(|class| class.to_string()).collect(),
        };
        let own = own.ok_or_else(|| {
            user!(
                "these weights have no card with the mean picture that normalise.kind=pixel_mean needs; give a run folder, or write kind: channels"
            )
        })?;
        let (mean, std) = numbers(&own)?;
        Ok(Self { classes: names, image_size: None, mean, std })
    }

    /// As it stands in the file.
    pub fn text(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }

    /// What centres pictures for this network, on the CPU.
    ///
    /// # Errors
    /// Numbers that do not fit their shape.
    pub fn normaliser(&self) -> Result<Normaliser> {
        let tensor = |kept: &Option<Numbers>| -> Result<Option<Tensor>> {
            kept.as_ref().map(|(shape, numbers)| Ok(Tensor::f_from_slice(numbers)?.f_reshape(shape)?)).transpose()
        };
        Ok(match tensor(&self.mean)? {
            Some(mean) => Normaliser::given(mean, tensor(&self.std)?),
            None => Normaliser::none(),
        })
    }

    /// What centres pictures for this network where the configuration centres by `own`, which is taken where the card has no numbers; what
    /// differs is noted.
    pub(super) fn normaliser_or(&self, own: Normaliser, setup: &Setup) -> Result<Normaliser> {
        if self.mean.is_none() {
            return Ok(own);
        }
        if !(same(&self.mean, &numbers(&own)?.0) && same(&self.std, &numbers(&own)?.1)) {
            self.note_centring(setup);
        }
        self.normaliser()?.to_device(setup.device)
    }

    fn note_centring(&self, setup: &Setup) {
        setup.note(format!(
            "normalise: these weights learned from pictures centred by {}, and so are pictures for them; the configuration's numbers are others",
            told(&self.mean, &self.std)
        ));
    }

    /// Notes in what the configuration differs from what the weights learned from. `own` centres as it says, where that is known; `edge` is its
    /// network's.
    pub(super) fn note_differences(&self, own: Option<&Normaliser>, edge: i64, setup: &Setup) -> Result<()> {
        if let Some(own) = own
            && !(same(&self.mean, &numbers(own)?.0) && same(&self.std, &numbers(own)?.1))
        {
            self.note_centring(setup);
        }
        if let Some(learned) = self.image_size.filter(|learned| *learned != edge) {
            setup.note(format!(
                "model.image_size: these weights learned from pictures of {learned} pixels, and here they are shown {edge}; answers may be worse"
            ));
        }
        Ok(())
    }
}

/// How many classes the card of a classifier names; `None` of another kind of card.
pub(crate) fn classes_on(card: &str) -> Option<usize> {
    serde_json::from_str::<Card>(card).ok().map(|card| card.classes.len())
}

fn damaged(error: &serde_json::Error) -> crate::Error {
    user!("the card in the weights file cannot be read: {error}")
}

/// Mean and deviation.
fn numbers(normaliser: &Normaliser) -> Result<(Option<Numbers>, Option<Numbers>)> {
    let (mean, std) = normaliser.numbers();
    let kept = |tensor: Option<&Tensor>| -> Result<Option<Numbers>> {
        tensor.map(|t| Ok((t.size(), Vec::try_from(t.f_to_device(Device::Cpu)?.f_reshape([-1])?)?))).transpose()
    };
    Ok((kept(mean)?, kept(std)?))
}

fn same(a: &Option<Numbers>, b: &Option<Numbers>) -> bool {
    match (a, b) {
        (Some((shape, a)), Some((other, b))) => shape == other && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= CLOSE),
        (None, None) => true,
        _ => false,
    }
}

/// `mean [0.5, 0.5, 0.5] and std [0.25, 0.25, 0.25]`, or that there is a mean picture.
fn told(mean: &Option<Numbers>, std: &Option<Numbers>) -> String {
    let word = |numbers: &Option<Numbers>| match numbers {
        None => "none".to_string(),
        Some((_, numbers)) if numbers.len() <= 3 => format!("{numbers:?}"),
        Some((shape, _)) => format!("a picture of {}×{}", shape[shape.len() - 2], shape[shape.len() - 1]),
    };
    format!("mean {} and std {}", word(mean), word(std))
}

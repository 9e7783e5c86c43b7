//! Two sources side by side, such as labelled and unlabelled pictures.

use rand_chacha::rand_core::Rng;
use sha2::{Digest, Sha256};

use super::{Cursor, Pass, Source};
use crate::random::rng;
use crate::{Result, user};

/// Each step sees a batch of `first` and one of `second`, which is `ratio` times as large: the μ of FixMatch (arXiv:2001.07685).
///
/// One of them is counted: its epochs are those of the run, and the rest of each is dropped. The other goes round and round
/// ([`Pass::Endless`]), however small it is. `second` draws its orders and augmentations from a seed of its own.
#[derive(Debug)]
pub struct Pair<A, B> {
    /// What `batch_size` is the batch of.
    pub first: A,
    /// What stands beside it.
    pub second: B,
    /// μ: examples of the second for each of the first, at least 1.
    ratio: u64,
    counted: Counted,
}

/// Whose epochs are those of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Those of the first source.
    First,
    /// Those of the second source.
    Second,
}

impl<A: Source, B: Source> Pair<A, B> {
    /// Both, with `ratio` examples of the second for each of the first.
    ///
    /// # Errors
    /// A ratio of 0.
    pub fn new(first: A, second: B, ratio: u64, counted: Counted) -> Result<Self> {
        if ratio == 0 {
            return Err(user!(
                "a step with 0 examples of the second set for each of the first sees none of it; choose a ratio of at least 1"
            ));
        }
        Ok(Self { first, second, ratio, counted })
    }
}

impl<A: Source, B: Source> Source for Pair<A, B> {
    type Batch = (A::Batch, B::Batch);

    /// So many that an epoch of the counted source has as many steps as one of this with the batch of the first.
    fn len(&self) -> u64 {
        match self.counted {
            Counted::First => self.first.len(),
            Counted::Second => self.second.len() / self.ratio,
        }
    }

    fn batches(&self, from: Cursor) -> Box<dyn Iterator<Item = Result<Self::Batch>> + '_> {
        let pass = |side| if side == self.counted { from.pass } else { Pass::Endless };
        let first = Cursor { pass: pass(Counted::First), ..from };
        let seed = rng(from.seed, 0, 0, "pair").next_u64();
        let second = Cursor { seed, batch: self.ratio * from.batch, pass: pass(Counted::Second), ..from };
        let both = self.first.batches(first).zip(self.second.batches(second));
        Box::new(both.map(|(first, second)| Ok((first?, second?))))
    }

    /// SHA-256 in hexadecimal over the two hashes, as text.
    fn sha256(&self) -> String {
        let both = Sha256::new().chain_update(self.first.sha256()).chain_update(self.second.sha256());
        both.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn notes(&self) -> Vec<String> {
        [self.first.notes(), self.second.notes()].concat()
    }
}

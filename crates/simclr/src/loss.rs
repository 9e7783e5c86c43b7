//! The contrastive losses of §2.1 (Eq. 1) and of Tables 2 and 4.
//!
//! A batch of N pictures is seen in two views, 2N rows of z: picture i is rows i and i + N. Similarities are cosines, unless
//! `normalise` is false. All is reckoned in float32 (float64 stays float64), also under autocast: e^(1/τ) of a cosine that is rounded to
//! eight bits is of no use.
//!
//! Over processes each has n of the N pictures and gathers the rows of the others: its loss is that of its own 2n rows against all 2N, and
//! the mean over the processes is the loss of the whole batch, with its gradient ([`repro::trainer::Step::gather`]).

use repro::Result;
use repro::config::Findings;
use serde::Deserialize;
use tch::{Kind, Reduction, Tensor};

use repro::probe::unit;

/// Which loss, and its numbers.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Loss {
    /// Eq. 1: cross-entropy of the other view among all 2N − 1 other rows, by similarity / τ.
    NtXent {
        /// τ, above 0.
        temperature: f64,
        /// Whether similarities are cosines.
        #[serde(default = "yes")]
        normalise: bool,
        /// So many rows of the matrix of similarities are held at a time, which saves memory and costs no digit of the value but those of
        /// summation. `None`: all at once.
        chunk: Option<i64>,
    },
    /// Table 2: −log σ(s⁺/τ) − log σ(−s⁻/τ), the mean over negatives s⁻.
    NtLogistic {
        /// τ, above 0.
        temperature: f64,
        /// Whether similarities are cosines.
        #[serde(default = "yes")]
        normalise: bool,
        /// Whether of each row's negatives one counts: the most similar of those that are less similar than the other view.
        #[serde(default)]
        semi_hard: bool,
    },
    /// Table 2: max(s⁻ − s⁺ + m, 0), the mean over negatives s⁻.
    Triplet {
        /// m, above 0.
        margin: f64,
        /// Whether similarities are cosines.
        #[serde(default = "yes")]
        normalise: bool,
        /// As for the logistic loss, and within the margin: s⁺ − m < s⁻ < s⁺.
        #[serde(default)]
        semi_hard: bool,
    },
}

fn yes() -> bool {
    true
}

/// The rows that a process has of both views, `[2n, d]`, and those of all, `[2N, d]`, by rank.
struct Rows {
    own: Tensor,
    all: Tensor,
    n: i64,
    rank: i64,
}

impl Loss {
    /// Says what is out of range.
    pub fn check(&self, found: &mut Findings) {
        let mut above_0 = |key: &str, value: f64, such: &str| {
            let message = format!("is {value}; it must be above 0, such as {such}");
            found.must(value > 0.0 && value.is_finite(), key, message);
        };
        match self {
            Loss::NtXent { temperature, chunk, .. } => {
                above_0("loss.temperature", *temperature, "0.5");
                found.must(
                    chunk.is_none_or(|rows| rows >= 1),
                    "loss.chunk",
                    "must be at least 1 row; for all at once leave the key away",
                );
            }
            Loss::NtLogistic { temperature, .. } => above_0("loss.temperature", *temperature, "0.5"),
            Loss::Triplet { margin, .. } => above_0("loss.margin", *margin, "0.4"),
        }
    }

    /// The mean over this process's rows z, `[2n, d]`: n of the first view, then the same pictures' of the second. `gather` gives the rows
    /// of all processes by rank, of which this is `rank`.
    ///
    /// # Errors
    /// Those of `gather`, libtorch's.
    pub fn of(&self, z: &Tensor, rank: u64, gather: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let z = if z.kind() == Kind::Double { z.shallow_clone() } else { z.f_to_kind(Kind::Float)? };
        let (Loss::NtXent { normalise, .. } | Loss::NtLogistic { normalise, .. } | Loss::Triplet { normalise, .. }) =
            self;
        let own = if *normalise { unit(&z)? } else { z };
        let rows = Rows { all: gather(&own)?, n: own.size()[0] / 2, rank: rank as i64, own };
        match *self {
            Loss::NtXent { temperature, chunk: None, .. } => rows.cross_entropy(temperature),
            Loss::NtXent { temperature, chunk: Some(chunk), .. } => rows.cross_entropy_in_chunks(temperature, chunk),
            Loss::NtLogistic { temperature, semi_hard, .. } => rows.logistic(temperature, semi_hard),
            Loss::Triplet { margin, semi_hard, .. } => rows.triplet(margin, semi_hard),
        }
    }
}

impl Rows {
    fn places(&self, count: i64) -> Result<Tensor> {
        Ok(Tensor::f_arange(count, (Kind::Int64, self.own.device()))?)
    }

    /// Where each own row stands among all, and where its other view does: `[2n]` each.
    fn own_and_other(&self) -> Result<(Tensor, Tensor)> {
        let (first, row) = (2 * self.n * self.rank, self.places(2 * self.n)?);
        let other = row.f_add_scalar(self.n)?.f_remainder(2 * self.n)?;
        Ok((row.f_add_scalar(first)?, other.f_add_scalar(first)?))
    }

    /// Eq. 1 of all own rows.
    fn cross_entropy(&self, temperature: f64) -> Result<Tensor> {
        let (own, other) = self.own_and_other()?;
        let logits = self.logits(&self.own, &own, temperature)?;
        // PyTorch's number for targets to leave out; ours are never negative.
        Ok(logits.f_cross_entropy_loss(&other, None::<Tensor>, Reduction::Mean, -100, 0.0)?)
    }

    /// Similarities / τ of some rows, that stand at `places`, with all; a row is no example for itself.
    fn logits(&self, rows: &Tensor, places: &Tensor, temperature: f64) -> Result<Tensor> {
        let itself = self.places(self.all.size()[0])?.f_unsqueeze(0)?.f_eq_tensor(&places.f_unsqueeze(1)?)?;
        let similar = rows.f_matmul(&self.all.f_tr()?)?.f_div_scalar(temperature)?;
        Ok(similar.f_masked_fill(&itself, f64::NEG_INFINITY)?)
    }

    /// The same value and gradient with `chunk` rows of the matrix at a time. The gradient by the rows is reckoned at once and given to the
    /// graph as a sum that has it, so that no part of the matrix is kept for the way back.
    fn cross_entropy_in_chunks(&self, temperature: f64, chunk: i64) -> Result<Tensor> {
        let (value, by_own, by_all) = tch::no_grad(|| -> Result<_> {
            let (own, other) = self.own_and_other()?;
            let count = 2 * self.n;
            let mut value = Tensor::f_zeros([], (self.own.kind(), self.own.device()))?;
            let (mut by_own, mut by_all) = (Vec::new(), self.all.f_zeros_like()?);
            for start in (0..count).step_by(chunk as usize) {
                let length = chunk.min(count - start);
                let part = |tensor: &Tensor| tensor.f_narrow(0, start, length);
                let (rows, target) = (part(&self.own)?, part(&other)?.f_unsqueeze(1)?);
                let logits = self.logits(&rows, &part(&own)?, temperature)?;
                let sum = logits.f_logsumexp([1_i64].as_slice(), true)?;
                value = value.f_add(&sum.f_sub(&logits.f_gather(1, &target, false)?)?.f_sum(logits.kind())?)?;
                // Softmax less the target, by the similarities.
                let ones = Tensor::f_full_like(&target.f_to_kind(logits.kind())?, -1.0)?;
                let slope = logits
                    .f_sub(&sum)?
                    .f_exp()?
                    .f_scatter_add(1, &target, &ones)?
                    .f_div_scalar(temperature * count as f64)?;
                by_own.push(slope.f_matmul(&self.all)?);
                by_all = by_all.f_add(&slope.f_tr()?.f_matmul(&rows)?)?;
            }
            Ok((value.f_div_scalar(count as f64)?, Tensor::f_cat(&by_own, 0)?, by_all))
        })?;
        let kind = self.own.kind();
        let slope = self.own.f_mul(&by_own)?.f_sum(kind)?.f_add(&self.all.f_mul(&by_all)?.f_sum(kind)?)?;
        Ok(slope.f_sub(&slope.f_detach()?)?.f_add(&value)?)
    }

    /// Similarities of own rows with their other views `[2n, 1]` and with all rows `[2n, 2N]`, and which of these are negatives: the other
    /// pictures in the other view.
    fn pairs(&self) -> Result<(Tensor, Tensor, Tensor)> {
        let similar = self.own.f_matmul(&self.all.f_tr()?)?;
        let (own, other) = self.own_and_other()?;
        let place = self.places(self.all.size()[0])?;
        let view = |place: &Tensor| place.f_remainder(2 * self.n)?.f_ge(self.n);
        let opposite = view(&place)?.f_unsqueeze(0)?.f_ne_tensor(&view(&own)?.f_unsqueeze(1)?)?;
        let partner = place.f_unsqueeze(0)?.f_eq_tensor(&other.f_unsqueeze(1)?)?;
        let negative = opposite.f_logical_and(&partner.f_logical_not()?)?;
        Ok((similar.f_gather(1, &other.f_unsqueeze(1)?, false)?, similar, negative))
    }

    /// The mean over own rows of the terms `[2n, 2N]` of their negatives: of all alike, or of the most similar one that `eligible` leaves.
    fn over_negatives(
        &self,
        terms: &Tensor,
        similar: &Tensor,
        negative: &Tensor,
        eligible: Option<Tensor>,
    ) -> Result<Tensor> {
        let weight = match eligible {
            None => negative.f_to_kind(terms.kind())?.f_div_scalar((self.all.size()[0] / 2 - 1).max(1) as f64)?,
            Some(eligible) => {
                let eligible = eligible.f_logical_and(negative)?;
                let hardest = similar
                    .f_detach()?
                    .f_masked_fill(&eligible.f_logical_not()?, f64::NEG_INFINITY)?
                    .f_argmax(1, true)?;
                // Of a row without an eligible negative the first is found, which is not eligible.
                eligible.f_zeros_like()?.f_to_kind(terms.kind())?.f_scatter_value(1, &hardest, 1.0)?.f_mul(&eligible)?
            }
        };
        Ok(terms.f_mul(&weight)?.f_sum_dim_intlist([1_i64].as_slice(), false, terms.kind())?.f_mean(terms.kind())?)
    }

    fn logistic(&self, temperature: f64, semi_hard: bool) -> Result<Tensor> {
        let (positive, similar, negative) = self.pairs()?;
        let eligible = if semi_hard { Some(similar.f_lt_tensor(&positive)?) } else { None };
        // −log σ(x) is softplus(−x).
        let terms = similar.f_div_scalar(temperature)?.f_softplus()?;
        let own = positive.f_div_scalar(-temperature)?.f_softplus()?.f_mean(terms.kind())?;
        Ok(own.f_add(&self.over_negatives(&terms, &similar, &negative, eligible)?)?)
    }

    fn triplet(&self, margin: f64, semi_hard: bool) -> Result<Tensor> {
        let (positive, similar, negative) = self.pairs()?;
        let above = similar.f_sub(&positive)?.f_add_scalar(margin)?;
        let eligible = match semi_hard {
            true => Some(similar.f_lt_tensor(&positive)?.f_logical_and(&above.f_gt(0.0)?)?),
            false => None,
        };
        self.over_negatives(&above.f_relu()?, &similar, &negative, eligible)
    }
}

//! How far generated pictures are from real ones, measured on features that a network has of both; all in float64.
//!
//! Letters: N real and M generated pictures, D features, K classes. Numbers of two networks, or of other counts of pictures, are not to be
//! compared: only on Inception v3 in the form of the reference, of 50,000 pictures or as many as a table says, they are those of the
//! literature.
//!
//! Features are read in blocks, so that beside them memory holds D² numbers and blocks of distances, for 10,000 pictures as for 100.

use tch::{Kind, Tensor};

use crate::{Result, user};

/// Rows in a block: of 2,048 features 4 MB, which a processor keeps near while the other set passes by.
const ROWS: i64 = 256;
/// Neighbours k of [`precision_recall`] as its paper has it (§3).
pub const NEIGHBOURS: i64 = 3;
/// How far the probabilities of a picture may add up from 1: what softmax in half precision leaves.
const ROUNDING: f64 = 5e-3;

/// Mean and covariance of features: what [`fid`] needs of a set, for those that are compared again and again.
#[derive(Debug)]
pub struct Statistics {
    /// `[D]` float64.
    pub mean: Tensor,
    /// `[D, D]` float64, over N − 1.
    pub covariance: Tensor,
}

impl Statistics {
    /// Of features `[N, D]`.
    ///
    /// # Errors
    /// Another shape, no floating point, fewer than two rows, numbers that are not finite.
    pub fn of(features: &Tensor) -> Result<Self> {
        let (rows, width) = checked(features, 2)?;
        let mut mean = Tensor::f_zeros([width], (Kind::Double, features.device()))?;
        for block in blocks(features) {
            mean = mean.f_add(&block?.f_sum_dim_intlist(0, false, Kind::Double)?)?;
        }
        let mean = mean.f_div_scalar(rows as f64)?;
        let mut covariance = Tensor::f_zeros([width, width], (Kind::Double, features.device()))?;
        for block in blocks(features) {
            let centred = block?.f_sub(&mean)?;
            covariance = covariance.f_add(&centred.f_tr()?.f_matmul(&centred)?)?;
        }
        let covariance = covariance.f_div_scalar((rows - 1) as f64)?;
        finite("fid", number(&covariance.f_trace()?)?)?;
        Ok(Statistics { mean, covariance })
    }

    /// The squared Fréchet distance of two normal distributions (arXiv:1706.08500, Eq. 6):
    /// |μ₁ − μ₂|² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁^½ Σ₂ Σ₁^½)^½.
    ///
    /// The last trace is the sum of the singular values of Σ₁^½ Σ₂^½, which keeps its digits where covariances have no full rank; the root of
    /// the product loses half of them there.
    ///
    /// # Errors
    /// Other features; libtorch's.
    pub fn fid(&self, other: &Self) -> Result<f64> {
        if self.mean.size() != other.mean.size() {
            let widths = (self.mean.numel(), other.mean.numel());
            return Err(user!("real pictures have {} features and generated ones {}", widths.0, widths.1));
        }
        let mean = number(&self.mean.f_sub(&other.mean)?.f_square()?)?;
        let traces = number(&self.covariance.f_trace()?)? + number(&other.covariance.f_trace()?)?;
        let product = root(&self.covariance)?.f_tr()?.f_matmul(&root(&other.covariance)?)?;
        let overlap = product.f_linalg_norm_ord_str("nuc", [0_i64, 1].as_slice(), false, Kind::Double)?;
        let distance = mean + traces - 2.0 * number(&overlap)?;
        // Rounding may leave less than nothing of equal sets.
        finite("fid", distance.max(0.0))
    }
}

/// A with A·Aᵀ = Σ: Σ^½ but for a rotation. What is 0 but for rounding is 0.
fn root(covariance: &Tensor) -> Result<Tensor> {
    let (values, vectors) = covariance.f_linalg_eigh("L")?;
    let least = number(&values.f_max()?)?.max(0.0) * f64::EPSILON * values.numel() as f64;
    let kept = values.f_ge(least)?.f_to_kind(Kind::Double)?;
    Ok(vectors.f_mul(&values.f_clamp_min(0.0)?.f_sqrt()?.f_mul(&kept)?)?)
}

/// The Fréchet distance of features `[N, D]` and `[M, D]` (arXiv:1706.08500); see [`Statistics::fid`].
///
/// # Errors
/// Those of [`Statistics::of`]; other numbers of features.
pub fn fid(real: &Tensor, fake: &Tensor) -> Result<f64> {
    alike(real, fake, 2)?;
    Statistics::of(real)?.fid(&Statistics::of(fake)?)
}

/// The squared maximum mean discrepancy of features `[N, D]` and `[M, D]` by the kernel (x·y/D + 1)³, without bias, over all features at once
/// (arXiv:1801.01401, §4); not times 1,000. It may be negative.
///
/// # Errors
/// As [`fid`].
pub fn kid(real: &Tensor, fake: &Tensor) -> Result<f64> {
    alike(real, fake, 2)?;
    let (n, m) = (real.size()[0] as f64, fake.size()[0] as f64);
    let within = |x: &Tensor, n: f64| -> Result<f64> { Ok((kernels(x, x)? - own_kernels(x)?) / (n * (n - 1.0))) };
    finite("kid", within(real, n)? + within(fake, m)? - 2.0 * kernels(real, fake)? / (n * m))
}

/// (x·y/D + 1)³ of products x·y.
fn kernel(products: &Tensor, width: i64) -> Result<Tensor> {
    Ok(products.f_div_scalar(width as f64)?.f_add_scalar(1.0)?.f_pow_tensor_scalar(3)?)
}

/// The sum of kernels over all pairs of rows.
fn kernels(x: &Tensor, y: &Tensor) -> Result<f64> {
    let mut sum = 0.0;
    for x in blocks(x) {
        let x = x?;
        for y in blocks(y) {
            sum += number(&kernel(&x.f_matmul(&y?.f_tr()?)?, x.size()[1])?)?;
        }
    }
    Ok(sum)
}

/// The sum of kernels of each row with itself.
fn own_kernels(x: &Tensor) -> Result<f64> {
    let own = |x: Tensor| number(&kernel(&x.f_square()?.f_sum_dim_intlist(1, false, Kind::Double)?, x.size()[1])?);
    blocks(x).map(|x| own(x?)).sum()
}

/// exp of the mean Kullback-Leibler divergence of p(class | picture) `[N, K]` from its mean over the pictures (arXiv:1606.03498, §4), in one
/// split: from 1 to K.
///
/// # Errors
/// Another shape, no rows, rows that are no probabilities.
pub fn inception_score(probabilities: &Tensor) -> Result<f64> {
    checked(probabilities, 1)?;
    let p = probabilities.f_to_kind(Kind::Double)?;
    let off = number(&p.f_sum_dim_intlist(1, false, Kind::Double)?.f_sub_scalar(1.0)?.f_abs()?.f_max()?)?;
    let least = number(&p.f_min()?)?;
    if off > ROUNDING || least < 0.0 {
        return Err(user!(
            "rows of probabilities [N, K] must be at least 0 and add up to 1; the least is {least}, and a sum is off by {off}; are they logits?"
        ));
    }
    let mean = p.f_mean_dim([0_i64].as_slice(), true, Kind::Double)?;
    // x·log y is 0 where x is.
    let divergence = p.f_xlogy(&p)?.f_sub(&p.f_xlogy(&mean)?)?.f_sum_dim_intlist(1, false, Kind::Double)?;
    finite("is", number(&divergence.f_mean(Kind::Double)?)?.exp())
}

/// How much of one set lies in the other, in [0, 1] (arXiv:1904.06991, Eqs. 1 and 2). A set's manifold are balls around its points that reach to
/// their k-th neighbours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrecisionRecall {
    /// The share of generated pictures within the manifold of the real ones.
    pub precision: f64,
    /// The share of real pictures within the manifold of the generated ones.
    pub recall: f64,
}

/// Of features `[N, D]` and `[M, D]`; k is [`NEIGHBOURS`] in the paper.
///
/// # Errors
/// As [`fid`]; k rows or fewer in one of them.
pub fn precision_recall(real: &Tensor, fake: &Tensor, k: i64) -> Result<PrecisionRecall> {
    if k < 1 {
        return Err(user!("precision and recall by {k} neighbours: there must be at least one"));
    }
    alike(real, fake, k + 1)?;
    let origin = real.f_narrow(0, 0, 1)?.f_to_kind(Kind::Double)?;
    let (real, fake) = (Cloud { rows: real, origin: &origin }, Cloud { rows: fake, origin: &origin });
    Ok(PrecisionRecall {
        precision: real.covers(&real.radii(k)?, &fake)?,
        recall: fake.covers(&fake.radii(k)?, &real)?,
    })
}

/// Points `[N, D]` as seen from one of them, so that a mean far from 0 costs their distances no digits.
struct Cloud<'a> {
    rows: &'a Tensor,
    /// `[1, D]`
    origin: &'a Tensor,
}

impl Cloud<'_> {
    fn blocks(&self) -> impl Iterator<Item = Result<Tensor>> + '_ {
        blocks(self.rows).map(|block| Ok(block?.f_sub(self.origin)?))
    }

    /// The squared distances from a block `[B, D]` to all points, `[B, N]`: |x|² + |y|² − 2 x·y, which a processor multiplies an order faster than it
    /// takes differences. What may be rounding is 0, so that equal points are at none.
    fn squares(&self, block: &Tensor) -> Result<Tensor> {
        let norms = |points: &Tensor| points.f_square()?.f_sum_dim_intlist(1, true, Kind::Double);
        let (own, rounding) = (norms(block)?, f64::EPSILON * block.size()[1] as f64);
        let part = |points: Tensor| {
            let sums = own.f_add(&norms(&points)?.f_tr()?)?;
            let squares = sums.f_sub(&block.f_matmul(&points.f_tr()?)?.f_mul_scalar(2.0)?)?;
            let told = squares.f_gt_tensor(&sums.f_mul_scalar(rounding)?)?;
            Ok(squares.f_mul(&told.f_to_kind(Kind::Double)?)?)
        };
        let parts = self.blocks().map(|points| part(points?));
        Ok(Tensor::f_cat(&parts.collect::<Result<Vec<_>>>()?, 1)?)
    }

    /// The squared distance of each point to its k-th neighbour, `[N]`.
    fn radii(&self, k: i64) -> Result<Tensor> {
        // The first of the sorted distances is that to itself.
        let radius = |block: Tensor| Ok(self.squares(&block)?.f_kthvalue(k + 1, 1, false)?.0);
        let parts = self.blocks().map(|block| radius(block?));
        let radii = Tensor::f_cat(&parts.collect::<Result<Vec<_>>>()?, 0)?;
        finite("a distance", number(&radii)?)?;
        Ok(radii)
    }

    /// The share of other points that lie in any of the balls around these.
    fn covers(&self, radii: &Tensor, others: &Self) -> Result<f64> {
        let inside = |block: Tensor| {
            let near = self.squares(&block)?.f_le_tensor(radii)?.f_any_dim(1, false)?;
            number(&near.f_to_kind(Kind::Double)?)
        };
        Ok(others.blocks().map(|block| inside(block?)).sum::<Result<f64>>()? / others.rows.size()[0] as f64)
    }
}

/// All of them by their names in metrics, with k = [`NEIGHBOURS`]: `fid`, `kid`, where the `probabilities` `[M, K]` of the generated pictures are
/// given `is`, `precision`, `recall`.
///
/// # Errors
/// Theirs.
pub fn score(real: &Tensor, fake: &Tensor, probabilities: Option<&Tensor>) -> Result<Vec<(&'static str, f64)>> {
    let PrecisionRecall { precision, recall } = precision_recall(real, fake, NEIGHBOURS)?;
    let mut found = vec![("fid", fid(real, fake)?), ("kid", kid(real, fake)?)];
    if let Some(probabilities) = probabilities {
        if probabilities.size().first() != fake.size().first() {
            return Err(user!(
                "probabilities are {:?} and the features of the same pictures {:?}",
                probabilities.size(),
                fake.size()
            ));
        }
        found.push(("is", inception_score(probabilities)?));
    }
    found.extend([("precision", precision), ("recall", recall)]);
    Ok(found)
}

/// What the reader of [`fid`] must know where there are not more pictures than features.
pub fn few(real: &Tensor, fake: &Tensor) -> Option<String> {
    let told = |features: &Tensor, what: &str| match features.size()[..] {
        [rows, width] if rows <= width => Some(format!("{rows} {what} pictures")),
        _ => None,
    };
    let sets: Vec<_> = [told(real, "real"), told(fake, "generated")].into_iter().flatten().collect();
    (!sets.is_empty()).then(|| {
        format!(
            "fid: {} are too few for covariances of {} features, so that the distance comes out too large; compare it with none of another \
             number of pictures",
            sets.join(" and "),
            real.size().last().copied().unwrap_or_default()
        )
    })
}

/// The rows in blocks, float64.
fn blocks(rows: &Tensor) -> impl Iterator<Item = Result<Tensor>> + '_ {
    let count = rows.size()[0];
    let block = move |at: i64| Ok(rows.f_narrow(0, at, ROWS.min(count - at))?.f_to_kind(Kind::Double)?);
    (0..count).step_by(ROWS as usize).map(block)
}

/// Rows and columns of what a metric takes.
fn checked(numbers: &Tensor, least: i64) -> Result<(i64, i64)> {
    let (rows, width) = match numbers.size()[..] {
        [rows, width] if width > 0 && numbers.is_floating_point() => (rows, width),
        _ => {
            let (kind, size) = (numbers.kind(), numbers.size());
            return Err(user!(
                "features or probabilities are {kind:?} of {size:?}; they must be floating point of [N, D]"
            ));
        }
    };
    if rows < least {
        return Err(user!("there are {rows} pictures; this needs at least {least}"));
    }
    if number(&numbers.f_isfinite()?.f_all()?)? == 0.0 {
        return Err(user!("features or probabilities hold numbers that are not finite; has their network diverged?"));
    }
    Ok((rows, width))
}

fn alike(real: &Tensor, fake: &Tensor, least: i64) -> Result<()> {
    let ((_, ours), (_, theirs)) = (checked(real, least)?, checked(fake, least)?);
    match ours == theirs {
        true => Ok(()),
        false => Err(user!("real pictures have {ours} features and generated ones {theirs}: two networks?")),
    }
}

/// The sum of a tensor's numbers, on the CPU.
fn number(tensor: &Tensor) -> Result<f64> {
    Ok(tensor.f_sum(Kind::Double)?.f_double_value(&[])?)
}

fn finite(name: &str, value: f64) -> Result<f64> {
    match value.is_finite() {
        true => Ok(value),
        false => Err(user!("{name} is {value}: the features are too large for float64")),
    }
}

#[cfg(test)]
mod tests;

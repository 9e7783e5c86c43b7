//! From the network's answers to what is found (§4: no suppression, no threshold).

use repro::Result;
use repro::detector::Found;
use tch::{Kind, Tensor};

/// What is found in each picture by logits `[N, Q, K + 1]` and boxes `[N, Q, 4]`: by each query in their order, of its likeliest class that is not
/// "no object".
///
/// A query that says "no object" tells its best class all the same, with the small probability that this has: it costs nothing in the ranking and
/// gains what the others missed (Appendix A.4: 2 AP).
///
/// # Errors
/// libtorch's.
pub fn found(logits: &Tensor, boxes: &Tensor) -> Result<Vec<Vec<Found>>> {
    let (n, _, classes) = logits.size3()?;
    let likely = logits.f_softmax(-1, Kind::Float)?.f_narrow(-1, 0, classes - 1)?;
    let (scores, labels) = likely.f_max_dim(-1, false)?;
    (0..n)
        .map(|picture| Found::rows(&labels.f_get(picture)?, &scores.f_get(picture)?, &boxes.f_get(picture)?))
        .collect()
}

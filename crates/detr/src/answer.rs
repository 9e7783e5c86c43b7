//! From the network's answers to detections (§4: no suppression, no threshold).

use repro::Result;
use repro::data::Placed;
use repro::detection::Detection;
use tch::{Device, Kind, Tensor};

/// What is found in each photo by logits `[N, Q, K + 1]` and boxes `[N, Q, 4]`: one detection for each query, of its likeliest class that is not
/// "no object", in pixels of the file.
///
/// A query that says "no object" tells its best class all the same, with the small probability that it has: that costs nothing in the ranking and
/// gains what the other queries missed (Appendix A.4: 2 AP).
///
/// # Errors
/// libtorch's.
pub fn detections(logits: &Tensor, boxes: &Tensor, photos: &[Placed]) -> Result<Vec<Vec<Detection>>> {
    let (_, queries, classes) = logits.size3()?;
    let likely = logits.f_softmax(-1, Kind::Float)?.f_narrow(-1, 0, classes - 1)?;
    let (score, class) = likely.f_max_dim(-1, false)?;
    let flat = |tensor: &Tensor| -> Result<Vec<f64>> {
        let tensor = tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
        Ok(Vec::try_from(tensor.f_contiguous()?.f_view([-1])?)?)
    };
    let (scores, labels, boxes) = (flat(&score)?, flat(&class)?, flat(boxes)?);
    let all = scores.iter().zip(labels).zip(boxes.as_chunks::<4>().0).collect::<Vec<_>>();
    let of_photo = |(photo, answers): (&Placed, &[((&f64, f64), &[f64; 4])])| {
        let found = answers.iter().map(|&((&score, label), &centred)| Detection {
            class: label as usize,
            score,
            rect: photo.to_photo(centred),
        });
        found.collect()
    };
    Ok(photos.iter().zip(all.chunks(queries as usize)).map(of_photo).collect())
}

//! The ten views of a picture that AlexNet is tested on.

use tch::Tensor;

use crate::{Result, user};

/// The four corners and the centre, each `edge` × `edge`, then their mirror images (Krizhevsky, Sutskever and Hinton 2012, §4.1):
/// `[N, C, H, W]` → `[10 N, C, edge, edge]`. The ten of a picture stand together: upper left, upper right, lower left, lower right, centre,
/// and these five mirrored. So `[10 N, K]` answers are averaged by `view([N, 10, K]).mean(1)`.
///
/// # Errors
/// Pictures that are smaller than `edge`.
pub fn ten_crop(image: &Tensor, edge: i64) -> Result<Tensor> {
    let (_, _, h, w) = image.size4()?;
    if edge < 1 || edge > h.min(w) {
        return Err(user!("crops of {edge}×{edge} pixels do not fit pictures of {h}×{w}; choose 1 to {}", h.min(w)));
    }
    let (bottom, right) = (h - edge, w - edge);
    let corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom / 2, right / 2)];
    let crop = |(row, column)| -> Result<Tensor> { Ok(image.f_narrow(2, row, edge)?.f_narrow(3, column, edge)?) };
    let five = Tensor::f_stack(&corners.into_iter().map(crop).collect::<Result<Vec<_>>>()?, 1)?;
    Ok(Tensor::f_cat(&[&five, &five.f_flip([4])?], 1)?.f_flatten(0, 1)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn corners_centre_and_mirror_images_of_each_picture() {
        let image = Tensor::arange(2 * 3 * 5 * 7, (Kind::Float, Device::Cpu)).view([2, 3, 5, 7]);
        let views = ten_crop(&image, 4).unwrap();
        assert_eq!(views.size(), [20, 3, 4, 4]);
        let corners = [(0, 0), (0, 3), (1, 0), (1, 3), (0, 1)];
        for picture in 0..2_i64 {
            for (place, (row, column)) in corners.into_iter().enumerate() {
                for (c, i, j) in (0..48_i64).map(|k| (k / 16, k / 4 % 4, k % 4)) {
                    let value = image.double_value(&[picture, c, row + i, column + j]);
                    let at = 10 * picture + place as i64;
                    assert_eq!(views.double_value(&[at, c, i, j]), value);
                    assert_eq!(views.double_value(&[at + 5, c, i, 3 - j]), value);
                }
            }
        }
        for edge in [0, 6] {
            assert!(matches!(ten_crop(&image, edge), Err(crate::Error::User(_))));
        }
    }
}

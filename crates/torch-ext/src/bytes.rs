//! Pixels as bytes into pixels as floats.

use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// Writes `table[channel][byte]` for each byte of RGB pixels into `target`, `[N, H, W, 3]` of float32 in this order in the CPU's memory,
/// from picture `first` on.
///
/// One pass over the memory, where converting and centring take three; and the very numbers that the table was made of.
/// # Errors
/// Another kind of tensor; bytes that are no whole pictures, or more than there is room for.
pub fn look_up_pixels(bytes: &[u8], table: &[[f32; 256]; 3], target: &Tensor, first: usize) -> Result<()> {
    let size = target.size();
    let [n, h, w, 3] = size[..] else {
        return Err(Error(format!("pixels are written into [N, H, W, 3], not {size:?}")));
    };
    if target.kind() != Kind::Float
        || target.device() != Device::Cpu
        || target.requires_grad()
        || !target.is_contiguous()
    {
        return Err(Error("pixels are written into float32 on the CPU, one after the other, without gradient".into()));
    }
    let (picture, room) = ((h * w * 3) as usize, n as usize);
    let fits = first.checked_add(bytes.len() / picture.max(1)).is_some_and(|end| end <= room);
    if picture == 0 || !bytes.len().is_multiple_of(picture) || !fits {
        return Err(Error(format!("{} bytes are no pictures {first} to at most {room} of {h}×{w}×3", bytes.len())));
    }
    // SAFETY: the tensor is contiguous float32 in host memory with room for `bytes.len()` numbers from picture `first` on, as was checked;
    // it lives longer than the slice, and nothing else reads or writes it meanwhile, since tensors do not leave their thread.
    let out =
        unsafe { std::slice::from_raw_parts_mut(target.data_ptr().cast::<f32>().add(first * picture), bytes.len()) };
    for (out, pixel) in out.as_chunks_mut::<3>().0.iter_mut().zip(bytes.as_chunks::<3>().0) {
        *out = [table[0][usize::from(pixel[0])], table[1][usize::from(pixel[1])], table[2][usize::from(pixel[2])]];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_channel_has_its_table() {
        let table = [0, 1, 2].map(|channel| std::array::from_fn(|byte| (1000 * channel + byte) as f32));
        let target = Tensor::zeros([3, 1, 2, 3], (Kind::Float, Device::Cpu));
        look_up_pixels(&[1, 2, 3, 4, 5, 255], &table, &target, 1).unwrap();
        let expected = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1002.0, 2003.0, 4.0, 1005.0, 2255.0];
        let found = Vec::<f32>::try_from(target.view(-1)).unwrap();
        assert_eq!((&found[..12], &found[12..]), (&expected[..], &[0.0; 6][..]));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let table = [[0.0; 256]; 3];
        let target = Tensor::zeros([2, 1, 2, 3], (Kind::Float, Device::Cpu));
        for (bytes, target, first) in [
            (18, &target, 0),
            (6, &target, 2),
            (6, &target, usize::MAX),
            (3, &target, 0),
            (6, &target.permute([0, 3, 1, 2]), 0),
            (6, &Tensor::zeros([2, 3, 1, 2], (Kind::Float, Device::Cpu)).permute([0, 2, 3, 1]), 0),
            (6, &target.to_kind(Kind::Double), 0),
        ] {
            assert!(look_up_pixels(&vec![0; bytes], &table, target, first).is_err(), "{bytes} {first}");
        }
        look_up_pixels(&[0; 6], &table, &target, 1).unwrap();
    }
}

//! Mean and deviation of bytes.

/// Sums over the bytes of each of three channels.
#[derive(Debug, Default)]
pub(super) struct Moments {
    sums: [(u64, u64); 3],
    count: u64,
}

impl Moments {
    /// Takes in pixels (RGB).
    pub(super) fn add(&mut self, pixels: &[u8]) {
        for pixel in pixels.as_chunks::<3>().0 {
            for ((sum, squares), value) in self.sums.iter_mut().zip(pixel) {
                *sum += u64::from(*value);
                *squares += u64::from(*value) * u64::from(*value);
            }
            self.count += 1;
        }
    }

    /// Mean and standard deviation of each channel, in [0, 1].
    pub(super) fn mean_std(&self) -> Vec<(f64, f64)> {
        let of_channel = |(sum, squares): (u64, u64)| {
            let mean = sum as f64 / self.count as f64;
            let variance = squares as f64 / self.count as f64 - mean * mean;
            (mean / 255.0, variance.max(0.0).sqrt() / 255.0)
        };
        self.sums.map(of_channel).to_vec()
    }
}

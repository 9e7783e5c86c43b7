//! The user's own pictures, as the network takes them.

use std::path::Path;

use repro::data::{Normaliser, Stills};
use repro::{Result, user};
use tch::{Device, Kind, Tensor};

use crate::config::Config;

/// Reads pictures and lays them out.
#[derive(Debug)]
pub struct Photos {
    stills: Stills,
    normaliser: Normaliser,
    channels: i64,
    edge: i64,
}

impl Photos {
    /// For the network of a configuration.
    ///
    /// # Errors
    /// A network of points; a view that cannot be.
    pub fn new(config: &Config) -> Result<Self> {
        let [channels, edge, _] = config.shape()?[..] else {
            return Err(user!("{} knows points, no pictures", config.model.name));
        };
        let normaliser = config.normalise()?.of(None, channels, Device::Cpu)?;
        Ok(Photos { stills: Stills::new(config.view.as_ref(), edge)?, normaliser, channels, edge })
    }

    /// The middle of a picture, `[1, C, H, W]` in [−1, 1] on the CPU, float32.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(&mut self, path: &Path) -> Result<Tensor> {
        let square = self.stills.read(path)?;
        let size = [1, i64::from(square.height()), i64::from(square.width()), 3];
        let pixels = Tensor::f_from_data_size(square.as_raw(), &size, Kind::Uint8)?.f_permute([0, 3, 1, 2])?;
        let pixels = pixels.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?;
        let grey = self.channels == 1;
        let pixels = if grey { pixels.f_mean_dim([1_i64].as_slice(), true, Kind::Float)? } else { pixels };
        let (down, right) = ((size[1] - self.edge) / 2, (size[2] - self.edge) / 2);
        self.normaliser.apply(&pixels.f_narrow(2, down, self.edge)?.f_narrow(3, right, self.edge)?)
    }
}

//! The network of a configuration, as training and sampling call it.

use repro::Result;
use repro::nn::Mode;
use repro::weights::Named;
use tch::{Kind, Tensor, nn};

use crate::config::Config;
use crate::net::{self, Form, Net};
use crate::toy::Mlp;

/// ε_θ(x_t, t), of pictures or of points of the plane.
#[derive(Debug)]
pub enum Model {
    /// Of pictures.
    Unet {
        /// The network.
        net: Box<Net>,
        /// Whose blocks it has.
        form: Form,
        /// What a step t is to the network, in its own steps: 1, or 1000/T of Improved DDPM's.
        scale: f64,
    },
    /// Of points.
    Toy(Mlp),
}

impl Model {
    /// The network of a configuration.
    ///
    /// # Errors
    /// A network that there is not.
    pub fn new(root: &nn::Path, config: &Config) -> Result<Self> {
        if config.is_toy() {
            return Ok(Model::Toy(Mlp::new(root)));
        }
        let unet = config.unet()?;
        let scale = if unet.form == Form::Improved { 1000.0 / config.diffusion.steps as f64 } else { 1.0 };
        Ok(Model::Unet { net: Box::new(Net::new(root, &unet)), form: unet.form, scale })
    }

    /// Where training starts.
    ///
    /// # Errors
    /// libtorch's.
    pub fn initialise(&self, model: &Named) -> Result<()> {
        match self {
            Model::Unet { form, .. } => net::initialise(model, *form),
            Model::Toy(_) => Ok(()),
        }
    }

    /// The same for t in the network's own steps.
    ///
    /// # Errors
    /// libtorch's.
    pub fn at(&self, x: &Tensor, t: &Tensor, class: Option<&Tensor>, mode: Mode) -> Result<Tensor> {
        let t = t.f_to_device(x.device())?;
        Ok(match self {
            Model::Unet { net, .. } => net.forward(x, &t, class, mode),
            Model::Toy(net) => net.forward(x, &t),
        })
    }

    /// x_t `[N, …]`, t `[N]` int64 of the whole schedule, class `[N]` int64 → what the network says, `[N, …]` or twice the channels.
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward(&self, x_t: &Tensor, t: &Tensor, class: Option<&Tensor>, mode: Mode) -> Result<Tensor> {
        match self {
            Model::Unet { scale, .. } if *scale != 1.0 => {
                self.at(x_t, &(t.f_to_kind(Kind::Float)? * *scale), class, mode)
            }
            _ => self.at(x_t, t, class, mode),
        }
    }
}

//! stub
use repro::Result;
use repro::trainer::run::FeatureNetwork;
use std::path::Path;
use tch::{Device, Tensor};
/// x
#[derive(Debug)]
pub struct FeatureNet;
impl FeatureNet {
    /// x
    pub fn open(_: &Path, _: Device) -> Result<Self> {
        Ok(FeatureNet)
    }
    /// x
    pub fn told(&self) -> FeatureNetwork {
        FeatureNetwork { name: "".into(), sha256: "".into() }
    }
    /// x
    pub fn of(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        Ok((x.shallow_clone(), x.shallow_clone()))
    }
}

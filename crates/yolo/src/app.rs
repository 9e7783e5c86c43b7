//! What this paper hands to the command line that all papers share.

use repro::cli::Forward;
use repro::detection::Targets;
use repro::nn::Mode;
use repro::weights::Named;
use repro::{Result, user};
use tch::{Device, Kind, Tensor, nn};

use crate::config::{Config, LossConfig};
use crate::loss::{Losses, yolov1, yolov3};
use crate::model::Network;

/// What `forward` is given.
const INPUTS: [&str; 4] = ["image", "boxes", "labels", "counts"];

/// `image` `[N, 3, H, W]` in [0, 1] [, `boxes` `[M, 4]`, `labels` `[M]`, `counts` `[N]`] → `raw.{i}` `[N, A, h, w, 5 + K]`, i = 0 the coarsest
/// scale [, `loss`, `loss_box`, `loss_objectness`, `loss_class`].
///
/// # Errors
/// A configuration whose network does not fit.
pub fn model(config: &Config, _: &str, path: &nn::Path) -> Result<Forward> {
    let net = Network::new(path, config.plan()?.0)?;
    let loss = config.loss;
    Ok(Box::new(move |input, train| {
        if let Some(name) = input.keys().find(|name| !INPUTS.contains(&name.as_str())) {
            return Err(user!("input tensor {name} is not known; give {}", INPUTS.join(", ")));
        }
        let image = picture(input, net.stride())?;
        let (n, _, h, w) = image.size4()?;
        let targets = Targets::given(input, n, net.plan().classes)?;
        let raw = net.forward(image, if train { Mode::Train } else { Mode::Eval });
        let mut output: Named = raw.iter().enumerate().map(|(i, raw)| (format!("raw.{i}"), raw.shallow_clone())).collect();
        if let Some(targets) = targets {
            net.check_anchors()?;
            let Losses { loss, of_box, objectness, class } = losses(&net, loss, &raw, &targets, (h, w))?;
            let parts = [("loss", loss), ("loss_box", of_box), ("loss_objectness", objectness), ("loss_class", class)];
            output.extend(parts.map(|(name, tensor)| (name.to_string(), tensor)));
        }
        Ok(output)
    }))
}

/// The configured loss of what the network gave for pictures of these edges (height, width).
///
/// # Errors
/// A loss of another network's; libtorch's.
pub fn losses(net: &Network, loss: LossConfig, raw: &[Tensor], targets: &Targets, edges: (i64, i64)) -> Result<Losses> {
    match (loss, raw) {
        (LossConfig::Yolov3 { ignore }, _) => yolov3(net.plan(), raw, targets, edges, ignore),
        (LossConfig::Yolov1 { coord, noobj }, [raw]) => yolov1(net.plan(), raw, targets, coord, noobj),
        (LossConfig::Yolov1 { .. }, _) => Err(user!("loss.kind is yolov1, and this network has no grid")),
    }
}

/// The input `image`.
fn picture(input: &Named, stride: i64) -> Result<&Tensor> {
    let image = input.get("image").ok_or_else(|| user!("the input has no tensor named image"))?;
    let size = image.size();
    let fits = |edge: i64| edge > 0 && edge % stride == 0;
    if !matches!(size[..], [n, 3, h, w] if n > 0 && fits(h) && fits(w)) || !image.is_floating_point() {
        return Err(user!(
            "image is {:?} of {size:?}; this model takes floating point of [N, 3, H, W] with H and W multiples of {stride}",
            image.kind()
        ));
    }
    Ok(image)
}

/// A black picture of the size that the network is made for.
///
/// # Errors
/// A configuration whose network does not fit.
pub fn example(config: &Config, _: &str) -> Result<Named> {
    let (_, (h, w)) = config.plan()?;
    Ok(Named::from([("image".to_string(), Tensor::zeros([1, 3, h, w], (Kind::Float, Device::Cpu)))]))
}

//! YOLOv3 (arXiv:1804.02767, §2), section by section; the lists are in [`crate::sections`].
//!
//! Reference: pjreddie/darknet; names and order of the state dict: eriklindernoren/PyTorch-YOLOv3 (`module_list.{i}.conv_{i}.weight`, with i
//! the place of the section in the `.cfg`). Batch norm adds 1e-5 to the variance, as Darknet's CUDA kernel and the ports do (Darknet on a CPU
//! adds 1e-6 to the deviation), and moves its running statistics by 0.1 as the ports do (Darknet: 0.01).
//!
//! *Changes against the reference*: none in the forward pass.

use repro::nn::{BatchNorm2d, Conv2d, Conv2dConfig, Mode, channels_last, leaky_relu, record};
use repro::weights::Named;
use repro::{Result, user};
use tch::{Kind, Tensor, nn};

use crate::sections::{Leaves, PICTURE, Plan, Section};

/// Slope of the rectifier below 0.
const LEAK: f64 = 0.1;

/// A convolution with what follows it.
#[derive(Debug)]
struct Conv {
    conv: Conv2d,
    /// And a leaky rectifier.
    norm: Option<BatchNorm2d>,
}

impl Conv {
    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let y = self.conv.forward(x);
        match &self.norm {
            Some(norm) => leaky_relu(&norm.forward(&y, mode), LEAK),
            None => y,
        }
    }
}

#[derive(Debug)]
enum Layer {
    Conv(Box<Conv>),
    /// What has no parameters, and reads its section.
    Plain,
    /// The scale's anchors, `[A, 2]` in pixels, as the weights have them.
    Yolo {
        anchors: Tensor,
    },
}

/// A plan with its parameters.
#[derive(Debug)]
pub struct Network {
    plan: Plan,
    layers: Vec<Layer>,
    names: Vec<String>,
    /// The last section that looks at what left each, itself if none does.
    last_use: Vec<usize>,
    /// Sections that give the outputs.
    outputs: Vec<usize>,
    stride: i64,
}

impl Network {
    /// As PyTorch's layers start; see [`initialise`].
    ///
    /// # Errors
    /// Those of [`Plan::check`].
    pub fn new(path: &nn::Path, plan: Plan) -> Result<Self> {
        plan.check()?;
        let is_output = |section: &Section| matches!(section, Section::Yolo { .. } | Section::Grid { .. });
        let outputs = (0..plan.sections.len()).filter(|&at| is_output(&plan.sections[at])).collect();
        Self::with_outputs(path, plan, outputs)
    }

    /// A plan without outputs of its own, of which what leaves these sections is given.
    pub(crate) fn with_outputs(path: &nn::Path, plan: Plan, outputs: Vec<usize>) -> Result<Self> {
        let left = plan.leaves()?;
        let layers = layers(path, &plan, &left)?;
        let names = (0..layers.len()).map(|at| record::name(&module(path, at))).collect();
        let stride = left.iter().map(|leaves| leaves.stride).max().unwrap_or(1);
        let last_use = last_use(&plan);
        Ok(Self { plan, layers, names, last_use, outputs, stride })
    }

    /// What it was built from.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Pixels of which both edges of a picture must be a multiple.
    pub fn stride(&self) -> i64 {
        self.stride
    }

    /// `[N, 3, H, W]` in [0, 1] → what each output gives before any sigmoid, the coarsest scale first: `[N, A, h, w, 5 + K]` of (tx, ty, tw, th,
    /// objectness, classes); of a grid `[N, 1, S, S, 5·B + K]` of (x, y, √w, √h, confidence) B times, and classes.
    ///
    /// # Panics
    /// As tch's own operations: on pictures whose edges are no multiples of [`Self::stride`].
    pub fn forward(&self, image: &Tensor, mode: Mode) -> Vec<Tensor> {
        let mut left: Vec<Option<Tensor>> = Vec::with_capacity(self.layers.len());
        let mut outputs = Vec::new();
        let image = channels_last(image);
        for (at, (section, layer)) in self.plan.sections.iter().zip(&self.layers).enumerate() {
            // What a plan that was checked looks at is there.
            let other = |layer: i64| {
                let place = Plan::place(at, layer).and_then(|place| left.get(place)?.as_ref());
                place.unwrap_or(&image).shallow_clone()
            };
            let came = other(-1);
            let leaves = record::block(&self.names[at], || match (section, layer) {
                (_, Layer::Conv(conv)) => conv.forward(&came, mode),
                (Section::MaxPool { size, stride }, _) => max_pool(&came, *size, *stride),
                (Section::Upsample, _) => {
                    let size = came.size();
                    came.upsample_nearest2d([2 * size[2], 2 * size[3]], None, None)
                }
                (Section::Shortcut { from }, _) => &came + other(*from),
                (Section::Route { layers }, _) => match layers[..] {
                    [one] => other(one),
                    _ => Tensor::cat(&layers.iter().map(|&layer| other(layer)).collect::<Vec<_>>(), 1),
                },
                (Section::Yolo { mask }, _) => anchors_apart(&came, mask.len() as i64),
                (Section::Grid { .. }, _) => anchors_apart(&came, 1),
                (Section::Conv { .. }, _) => came.shallow_clone(),
            });
            if self.outputs.contains(&at) {
                outputs.push(leaves.shallow_clone());
            }
            left.push(Some(leaves));
            // Without gradients a map is freed when nothing needs it any more.
            for (place, _) in self.last_use.iter().enumerate().filter(|(_, last)| **last == at) {
                left[place] = None;
            }
        }
        outputs
    }

    /// Refuses weights that were trained with other anchors than this network's: their boxes would have other sizes.
    ///
    /// # Errors
    /// The first scale that differs.
    pub fn check_anchors(&self) -> Result<()> {
        for (mask, theirs) in self.plan.masks().into_iter().zip(self.layers.iter().filter_map(|layer| match layer {
            Layer::Yolo { anchors } => Some(anchors),
            _ => None,
        })) {
            let ours: Vec<f64> = mask.iter().flat_map(|&anchor| self.plan.anchors[anchor]).collect();
            let theirs = Vec::<f64>::try_from(theirs.f_to_kind(Kind::Double)?.f_flatten(0, -1)?)?;
            if ours.iter().zip(&theirs).any(|(a, b)| (a - b).abs() > 1e-3 * a) {
                return Err(user!(
                    "these weights have the anchors {theirs:?} where the configuration has {ours:?}; set model.anchors and model.masks to theirs"
                ));
            }
        }
        Ok(())
    }
}

/// Where the tensors of section `at` lie.
fn module<'a>(path: &nn::Path<'a>, at: usize) -> nn::Path<'a> {
    path / "module_list" / at
}

fn layers(path: &nn::Path, plan: &Plan, left: &[Leaves]) -> Result<Vec<Layer>> {
    let mut layers = Vec::with_capacity(left.len());
    for (at, section) in plan.sections.iter().enumerate() {
        let input = if at == 0 { PICTURE } else { left[at - 1] }.channels;
        let path = module(path, at);
        layers.push(match section {
            Section::Conv { filters, size, stride, norm } => {
                let config =
                    Conv2dConfig { stride: *stride, padding: size / 2, bias: !norm, ..Conv2dConfig::default() };
                Layer::Conv(Box::new(Conv {
                    conv: Conv2d::new(&(&path / format!("conv_{at}")), input, *filters, *size, config),
                    norm: norm.then(|| BatchNorm2d::new(&(&path / format!("batch_norm_{at}")), *filters)),
                }))
            }
            Section::Yolo { mask } => {
                let path = path / format!("yolo_{at}");
                let sides: Vec<f32> =
                    mask.iter().flat_map(|&anchor| plan.anchors[anchor]).map(|side| side as f32).collect();
                let sides = Tensor::f_from_slice(&sides)?.f_to_device(path.device())?;
                let n = mask.len() as i64;
                let _ = path.add("anchor_grid", sides.f_view([1, n, 1, 1, 2])?.copy(), false);
                Layer::Yolo { anchors: path.add("anchors", sides.f_view([n, 2])?, false) }
            }
            _ => Layer::Plain,
        });
    }
    Ok(layers)
}

/// The last section that looks at what left each.
fn last_use(plan: &Plan) -> Vec<usize> {
    let mut last: Vec<usize> = (0..plan.sections.len()).collect();
    for (at, section) in plan.sections.iter().enumerate() {
        let seen = match section {
            Section::Route { layers } => layers.clone(),
            Section::Shortcut { from } => vec![-1, *from],
            _ => vec![-1],
        };
        seen.iter().filter_map(|&layer| Plan::place(at, layer)).for_each(|place| last[place] = at);
    }
    last
}

/// `[N, C, h, w]` → `[N, C, ⌊h/stride⌋, ⌊w/stride⌋]`, with −∞ beyond the right and lower edges where windows overlap.
fn max_pool(x: &Tensor, size: i64, stride: i64) -> Tensor {
    let beyond = size - stride;
    let x = match beyond {
        0 => x.shallow_clone(),
        _ => x.pad([0, beyond, 0, beyond], "constant", Some(f64::NEG_INFINITY)),
    };
    x.max_pool2d([size; 2], [stride; 2], [0; 2], [1; 2], false)
}

/// `[N, A·c, h, w]` → `[N, A, h, w, c]`.
fn anchors_apart(x: &Tensor, anchors: i64) -> Tensor {
    let size = x.size();
    let (n, channels, h, w) = (size[0], size[1], size[2], size[3]);
    x.reshape([n, anchors, channels / anchors, h, w]).permute([0, 1, 3, 4, 2]).contiguous()
}

/// Where training starts, drawn from libtorch's generator: kernels from N(0, 2 / fan-in), biases 0 (Darknet's `make_convolutional_layer`).
/// Norms keep their 1 and 0.
///
/// # Errors
/// libtorch's.
pub fn initialise(model: &Named) -> Result<()> {
    // By name, so that the order of drawing is fixed.
    for (name, tensor) in model.iter().filter(|(_, tensor)| tensor.requires_grad()) {
        let (mut tensor, shape) = (tensor.shallow_clone(), tensor.size());
        let _guard = tch::no_grad_guard();
        match shape[..] {
            [_, input, h, w] => {
                let _ = tensor.f_normal_(0.0, (2.0 / (input * h * w) as f64).sqrt())?;
            }
            [_] if name.contains(".conv_") => {
                let _ = tensor.f_zero_()?;
            }
            _ => {}
        }
    }
    Ok(())
}

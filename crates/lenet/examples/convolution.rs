//! What a convolution sees: a picture blurred, sharpened, and its edges, each by one kernel of 3×3 or 5×5.
//!
//! `cargo run --release -p lenet --example convolution [PICTURE]` writes `convolution-<kernel>.png` into the current folder.
//! Without a picture it takes `photo.jpg` beside this file: blood cells under a microscope, from the BCCD data set (MIT licence).

use std::path::PathBuf;

use repro::{Result, figures, user};
use tch::{Kind, Tensor};

/// Name, weights row by row, and the offset that brings the result back into [0, 1].
const KERNELS: [(&str, &[f32], f64); 4] = [
    // Binomial weights over 5×5: close to a Gaussian of deviation 1.
    (
        "blur",
        &[1., 4., 6., 4., 1., 4., 16., 24., 16., 4., 6., 24., 36., 24., 6., 4., 16., 24., 16., 4., 1., 4., 6., 4., 1.],
        0.0,
    ),
    ("sobel-x", &[-1., 0., 1., -2., 0., 2., -1., 0., 1.], 0.5),
    ("sobel-y", &[-1., -2., -1., 0., 0., 0., 1., 2., 1.], 0.5),
    ("sharpen", &[0., -1., 0., -1., 5., -1., 0., -1., 0.], 0.0),
];

fn main() -> Result<()> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/photo.jpg");
    let path = std::env::args().nth(1).map_or_else(beside, PathBuf::from);
    let picture = image::open(&path).map_err(|e| user!("{}: {e}", path.display()))?.to_rgb8();
    let (width, height) = picture.dimensions();
    let pixels = Tensor::f_from_slice(picture.as_raw())?.f_view([i64::from(height), i64::from(width), 3])?;
    // [3, 1, H, W]: the channels take the place of the batch, so that one kernel serves all three.
    let photo = (pixels.permute([2, 0, 1]).to_kind(Kind::Float) / 255.0).unsqueeze(1);
    for (name, weights, offset) in KERNELS {
        let side = weights.len().isqrt() as i64;
        let kernel = Tensor::from_slice(weights).view([1, 1, side, side]);
        // The blur's weights sum to 256. Those of a Sobel kernel sum to 0, and its answer could reach ±4; edges of photographs stay
        // far below, so that half of it is drawn, grey where nothing changes, and what lies beyond [0, 1] is cut off.
        let scale = match name {
            "blur" => 1.0 / 256.0,
            "sharpen" => 1.0,
            _ => 0.5,
        };
        let answer = (photo.conv2d::<Tensor>(&(kernel * scale), None, 1, side / 2, 1, 1) + offset).clamp(0.0, 1.0);
        let both = Tensor::cat(&[&photo, &answer], 1).permute([1, 0, 2, 3]);
        let file = PathBuf::from(format!("convolution-{name}.png"));
        figures::save(&figures::grid(&both, 2, 1, &["photo".into(), name.into()])?, &file)?;
        println!("{}", file.display());
    }
    Ok(())
}

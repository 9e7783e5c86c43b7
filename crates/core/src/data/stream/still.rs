//! Photos one by one: as a split that is evaluated is read, and by the same hands.

use std::fs;
use std::path::Path;

use image::RgbImage;

use super::decode::{Scratch, pixels_of};
use super::index::LARGEST;
use super::view::{TestView, View};
use crate::{Error, Result, user};

/// Reads photos as the evaluation sees them.
#[derive(Debug)]
pub struct Stills {
    view: TestView,
    edge: u32,
    scratch: Scratch,
}

impl Stills {
    /// For a network of pictures of `edge`; without a view (its sets have pictures of that size) the shorter side becomes that long, and the
    /// middle is cut out.
    ///
    /// # Errors
    /// Those of [`View::check`].
    pub fn new(view: Option<&View>, edge: i64) -> Result<Self> {
        let (view, edge) = match view {
            Some(view) => {
                view.check(edge)?;
                (view.test.clone(), view.test_edge(edge))
            }
            None => (TestView::whole(edge), edge),
        };
        Ok(Self { view, edge: edge as u32, scratch: Scratch::default() })
    }

    /// The square that the network is shown.
    ///
    /// # Errors
    /// Why the file cannot be used.
    pub fn read(&mut self, path: &Path) -> Result<RgbImage> {
        self.scratch.file = bytes(path)?;
        let (edge, view) = (self.edge, &self.view);
        let mut square = vec![0; (edge * edge * 3) as usize];
        let one = std::iter::once(&mut square[..]);
        let cut = |_, size| (view.cut(size, edge), false);
        self.scratch.squares(one, edge, view.filter(), cut).map_err(|reason| user!("{}: {reason}", path.display()))?;
        RgbImage::from_raw(edge, edge, square).ok_or_else(|| Error::Failed("a square of the wrong size".into()))
    }
}

/// The bytes of a file that holds a picture of a kind that is read, whole as far as can be told, and not too large.
///
/// # Errors
/// Why it cannot be used.
pub fn photo_bytes(path: &Path) -> Result<Vec<u8>> {
    let bytes = bytes(path)?;
    pixels_of(&bytes).map_err(|reason| user!("{}: {reason}", path.display()))?;
    Ok(bytes)
}

pub(super) fn bytes(path: &Path) -> Result<Vec<u8>> {
    let cannot = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => user!("{}: there is no such file", path.display()),
        _ => user!("{}: cannot be read: {e}", path.display()),
    };
    let size = fs::metadata(path).map_err(cannot)?.len();
    if size > LARGEST {
        return Err(user!("{}: {size} bytes are more than the {LARGEST} that are read", path.display()));
    }
    fs::read(path).map_err(cannot)
}

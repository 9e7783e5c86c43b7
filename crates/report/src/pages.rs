//! Every file that `report` writes from the evidence.

use std::fs;
use std::path::{Path, PathBuf};

use repro::{Error, Result, files};

use crate::paper::Paper;
use crate::{benchmarks, experiment, plots, render};

/// All pages and plots with their bytes.
pub(crate) fn all(root: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut pages = Vec::new();
    for name in experiment::papers(root)? {
        let paper = Paper::read(root, &name)?;
        if let [first, ..] = &paper.problems()[..] {
            return Err(Error::User(first.clone()));
        }
        pages.push((root.join("results").join(format!("{name}.md")), render::page(&paper)?.into_bytes()));
        for table in &paper.layout.tables {
            if let Some(picture) = plots::picture(&paper, table)? {
                pages.push((root.join("results/figures").join(plots::file_name(&paper, table)), plots::png(&picture)?));
            }
        }
    }
    if let Some(page) = benchmarks::page(root)? {
        pages.push((root.join("results/benchmarks.md"), page.into_bytes()));
    }
    Ok(pages)
}

/// Writes those that changed, and returns them.
pub(crate) fn write(root: &Path) -> Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    for (path, bytes) in all(root)? {
        if fs::read(&path).ok().as_ref() != Some(&bytes) {
            files::create_folder(path.parent().unwrap_or(root))?;
            files::write_atomic(&path, &[&bytes])?;
            written.push(path);
        }
    }
    Ok(written)
}

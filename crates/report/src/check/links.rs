//! Relative links of the Markdown files lead somewhere.

use std::path::{Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag};
use repro::Result;

use super::read;

/// Links that lead nowhere.
pub(super) fn findings(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for file in pages(root) {
        let text = read(&file)?;
        for target in targets(&text) {
            if !file.with_file_name(&target).exists() {
                found.push(format!("{}: the link to {target} leads nowhere; mend it", file.display()));
            }
        }
    }
    Ok(found)
}

/// The Markdown files of the root, of `results`, and of each crate's root.
fn pages(root: &Path) -> Vec<PathBuf> {
    let crates = crate::entries(&root.join("crates"));
    let folders = [root.to_owned(), root.join("results")].into_iter().chain(crates);
    let files = folders.flat_map(|folder| crate::entries(&folder));
    files.filter(|path| path.is_file() && path.extension().is_some_and(|e| e == "md")).collect()
}

/// Where links and pictures point to in this checkout, without the place within the file.
fn targets(markdown: &str) -> Vec<String> {
    let links = Parser::new_ext(markdown, Options::ENABLE_TABLES).filter_map(|event| match event {
        Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => Some(dest_url.to_string()),
        _ => None,
    });
    let here = links.filter(|url| !url.contains("://") && !url.starts_with("mailto:"));
    here.filter_map(|url| url.split('#').next().filter(|path| !path.is_empty()).map(str::to_string)).collect()
}

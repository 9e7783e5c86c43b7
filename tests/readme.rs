//! What the READMEs name exists.

use std::fs;

use crate::program::root;

/// Words of code blocks and inline code that look like files of this checkout.
fn paths(markdown: &str) -> Vec<String> {
    let known = ["experiments/", "scripts/", "crates/", "results/", "tests/"];
    let words = markdown.split(|c: char| c.is_whitespace() || "`()<>|,;\"'".contains(c));
    words
        .map(|w| w.trim_end_matches(['.', ':']).split('#').next().unwrap_or_default().trim_start_matches("./"))
        .filter(|w| known.iter().any(|k| w.starts_with(k)) && !w.contains(['…', '*', '{', '$', '<', 'K']))
        .map(str::to_string)
        .collect()
}

#[test]
fn every_file_that_is_named_exists() {
    let mut seen = 0;
    for file in [
        "README.md",
        "CONTRIBUTING.md",
        "CITATION.md",
        "crates/lenet/README.md",
        "crates/alexnet/README.md",
        "crates/resnet/README.md",
        "crates/mae/README.md",
        "crates/vit/README.md",
    ] {
        for path in paths(&fs::read_to_string(root().join(file)).unwrap()) {
            let found = root().join(&path).exists();
            assert!(found, "{file} names {path}, which does not exist");
            seen += 1;
        }
    }
    assert!(seen > 10, "the test reads nothing: {seen}");
}

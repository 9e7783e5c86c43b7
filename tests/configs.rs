//! Every experiment that ships parses, names its paper, and takes a step.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::photos::photos;
use crate::program::{program, root, run, succeed, text};

const PAPERS: [&str; 9] = ["alexnet", "ddpm", "detr", "lenet", "mae", "resnet", "simclr", "vit", "yolo"];
/// Those whose data have boxes.
const DETECTORS: [&str; 2] = ["detr", "yolo"];

/// The YAMLs of a paper's experiments.
pub(crate) fn experiments(paper: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(root().join("experiments").join(paper)).unwrap().map(|e| e.unwrap().path());
    let mut yaml: Vec<_> = all.filter(|p| p.extension().is_some_and(|e| e == "yaml")).collect();
    yaml.sort();
    assert!(yaml.len() >= 7, "{yaml:?}");
    yaml
}

/// The YAMLs of all papers, each with its paper.
fn all() -> impl Iterator<Item = (&'static str, PathBuf)> {
    PAPERS.into_iter().flat_map(|paper| experiments(paper).into_iter().map(move |file| (paper, file)))
}

/// What makes a step of any of a paper's experiments cheap: drawn data, a few of them where the networks are large, and float32, since most CPUs
/// imitate bfloat16 several times slower.
fn cheap(paper: &str, file: &Path) -> Vec<&'static str> {
    // The synthetic sets are smaller than the parts that Figure 6 of lenet takes, and than what is held out of CIFAR-10.
    if paper == "lenet" {
        return vec!["data=synthetic", "data.limit_train=null"];
    }
    let mut words = vec!["batch_size=2", "data.limit_train=null", "data.limit_test=2", "compute.precision=f32"];
    let text = fs::read_to_string(file).unwrap();
    if DETECTORS.contains(&paper) {
        // Shapes drawn on small canvases, of ten classes; what is cut by hundreds of pixels does not fit them.
        words.extend(["data.name=synthetic_canvases", "data.root=null", "data.canvases=null", "data.files=null"]);
        words.extend(["model.num_classes=10", "augment=[]", "view.multi_scale=null", "compute.micro_batch=null"]);
        words.push("view={train: {kind: stretch, width: 64, height: 64, filter: bilinear}, test: {kind: stretch, width: 64, height: 64, filter: bilinear}}");
        return words;
    }
    if ["simclr", "mae"].contains(&paper) {
        // Its later stages have batches of their own and read every training picture.
        words[1] = "data.limit_train=8";
        for (block, word) in [
            ("probe", "probe.batch_size=2"),
            ("finetune", "finetune.batch_size=2"),
            ("finetune", "finetune.labels=1"),
            ("knn", "knn.k=2"),
        ] {
            words.extend(text.contains(&format!("\n{block}:")).then_some(word));
        }
    }
    if text.contains("model:\n  name: toy") {
        // Points of the plane are drawn anyhow.
    } else if text.contains("data/mnist") || text.contains("data/fashion_mnist") || text.contains("data/synthetic,") {
        words.push("data=synthetic");
    } else if text.contains("\nview:") {
        words.extend(["data.name=folder", "data.root=photos", "model.num_classes=2"]);
    } else {
        words.extend(["data=synthetic_colour", "data.validation=null"]);
    }
    words
}

#[test]
fn every_paper_s_experiments_are_here() {
    let folders = fs::read_dir(root().join("experiments")).unwrap().map(|e| e.unwrap().path());
    let papers = folders.filter(|folder| folder.join("smoke.yaml").exists());
    let mut names: Vec<_> = papers.map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
    names.sort();
    assert_eq!(names, PAPERS);
}

/// Parameters of a network from which on it takes no step here: with gradients and momentum it would fill a small machine's memory.
const LARGE: u64 = 100_000_000;
/// What makes a paper's large networks small, for the step alone: (paper, overrides). All else of the YAML stays as it is.
const TWINS: [(&str, &[&str]); 1] = [("mae", &["model.name=mae_vit_tiny_patch16_224"])];

/// The part of a YAML that says which network it is.
fn network(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().skip_while(|l| !l.starts_with("model:"));
    lines.take_while(|l| l.starts_with("model:") || l.starts_with(' ')).collect::<Vec<_>>().join("\n")
}

/// Parameters of an experiment's network, as `summary` counts them.
fn parameters(paper: &str, folder: &Path, words: &[&str]) -> u64 {
    let said = succeed(program(paper, folder, [&["summary", "--json"], words].concat()));
    let rows: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    rows.as_array().unwrap().iter().map(|row| row["parameters"].as_u64().unwrap()).sum()
}

#[test]
fn every_experiment_takes_a_step() {
    let dir = tempfile::tempdir().unwrap();
    photos(&dir.path().join("photos"));
    // Many experiments share a network: each is counted once.
    let mut counted = HashMap::new();
    for (paper, file) in all() {
        let config = file.display().to_string();
        let mut given = [vec!["--config", &config], cheap(paper, &file)].concat();
        let size = counted.entry((paper, network(&file))).or_insert_with(|| parameters(paper, dir.path(), &given));
        if *size > LARGE {
            let twin = TWINS.iter().find(|(of, _)| *of == paper);
            given.extend(twin.unwrap_or_else(|| panic!("{config} is large: name a small twin in TWINS")).1);
            assert!(parameters(paper, dir.path(), &given) <= LARGE, "{config}: its twin is large, too");
        }
        let words = [given, vec!["--dry-run", "--device", "cpu", "-q"]].concat();
        let output = run(program(paper, dir.path(), words));
        assert!(output.status.success(), "{}:\n{}", file.display(), text(&output.stderr));
        let measured = match paper {
            "ddpm" => "test/loss_q",
            _ if DETECTORS.contains(&paper) => "test/AP50",
            _ => "test/error",
        };
        assert!(text(&output.stdout).contains(measured), "{}", file.display());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a dry run leaves nothing behind");
    }
}

/// All papers' reference outputs, as CONTRIBUTING limits them: a clone stays small.
#[test]
fn reference_outputs_stay_within_5_megabytes() {
    fn bytes(folder: &Path, within: bool) -> u64 {
        let size = |path: PathBuf| match path.is_dir() {
            true => bytes(&path, within || path.ends_with("fixtures")),
            false if within => fs::metadata(&path).unwrap().len(),
            false => 0,
        };
        fs::read_dir(folder).unwrap().map(|entry| size(entry.unwrap().path())).sum()
    }
    let found = bytes(&root().join("crates"), false);
    assert!((500_000..=5_000_000).contains(&found), "{found} bytes in the folders `fixtures` below crates/");
}

#[test]
fn every_experiment_starts_with_its_header() {
    for (_, file) in all() {
        let text = fs::read_to_string(&file).unwrap();
        let header: Vec<_> = text.lines().take_while(|l| l.starts_with('#')).collect();
        for word in ["paper", "command", "hardware", "wall-clock", "ours"] {
            assert!(
                header.iter().any(|l| l.to_lowercase().contains(word)),
                "{}: no line with {word:?} in\n{}",
                file.display(),
                header.join("\n")
            );
        }
    }
}

#[test]
fn a_printed_configuration_runs_as_the_original() {
    for (paper, file) in all() {
        let dir = tempfile::tempdir().unwrap();
        let printed =
            succeed(program(paper, dir.path(), ["--config", file.to_str().unwrap(), "--print-config", "seed=5"]));
        assert!(printed.contains("seed: 5") && printed.contains("command line"), "{printed}");
        assert!(
            printed.contains(file.file_name().unwrap().to_str().unwrap()),
            "the origin of values is told:\n{printed}"
        );
        fs::write(dir.path().join("printed.yaml"), &printed).unwrap();
        let again = succeed(program(paper, dir.path(), ["--config", "printed.yaml", "--print-config"]));
        let values =
            |t: &str| t.lines().map(|l| l.split(" #").next().unwrap().trim_end().to_string()).collect::<Vec<_>>();
        assert_eq!(values(&printed), values(&again));
    }
}

//! Every experiment that ships parses, names its paper, and takes a step.

use std::fs;
use std::path::PathBuf;

use crate::program::{lenet, root, run, succeed, text};

/// The YAMLs of lenet's experiments.
pub(crate) fn experiments() -> Vec<PathBuf> {
    let all = fs::read_dir(root().join("experiments/lenet")).unwrap().map(|e| e.unwrap().path());
    let mut yaml: Vec<_> = all.filter(|p| p.extension().is_some_and(|e| e == "yaml")).collect();
    yaml.sort();
    assert!(yaml.len() >= 7, "{yaml:?}");
    yaml
}

#[test]
fn every_experiment_takes_a_step() {
    for file in experiments() {
        let dir = tempfile::tempdir().unwrap();
        let config = file.display().to_string();
        // The synthetic set is smaller than the parts of MNIST that Figure 6 takes.
        let words = ["--config", &config, "--dry-run", "data=synthetic", "data.limit_train=null", "-q"];
        let output = run(lenet(dir.path(), words));
        assert!(output.status.success(), "{}:\n{}", file.display(), text(&output.stderr));
        assert!(text(&output.stdout).contains("test/error"), "{}", file.display());
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "a dry run leaves nothing behind");
    }
}

#[test]
fn every_experiment_starts_with_its_header() {
    for file in experiments() {
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
    for file in experiments() {
        let dir = tempfile::tempdir().unwrap();
        let printed = succeed(lenet(dir.path(), ["--config", file.to_str().unwrap(), "--print-config", "seed=5"]));
        assert!(printed.contains("seed: 5") && printed.contains("command line"), "{printed}");
        assert!(
            printed.contains(file.file_name().unwrap().to_str().unwrap()),
            "the origin of values is told:\n{printed}"
        );
        fs::write(dir.path().join("printed.yaml"), &printed).unwrap();
        let again = succeed(lenet(dir.path(), ["--config", "printed.yaml", "--print-config"]));
        let values =
            |t: &str| t.lines().map(|l| l.split(" #").next().unwrap().trim_end().to_string()).collect::<Vec<_>>();
        assert_eq!(values(&printed), values(&again));
    }
}

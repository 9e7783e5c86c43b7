//! `env.json`: what a run was computed by.

use std::fs;
use std::path::Path;

/// Versions, device, processor, threads, command.
pub(super) fn told(commit: &str, device: &str) -> serde_json::Value {
    serde_json::json!({
        "commit": commit,
        "version": env!("CARGO_PKG_VERSION"),
        "libtorch": torch_ext::LIBTORCH_VERSION,
        "cuda": if device.starts_with("cuda") { tch::utils::version_cudart() } else { 0 },
        "device": device,
        "cpu": cpu(),
        "cores": std::thread::available_parallelism().map_or(0, |n| n.get()),
        "threads": tch::get_num_threads(),
        "command": std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>(),
    })
}

/// A command's output; empty if it fails, for a run must not depend on git.
fn said(command: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(command).args(arguments).stderr(std::process::Stdio::null()).output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_string()).unwrap_or_default()
}

/// The commit of what stands in no checkout.
pub(super) const UNKNOWN: &str = "unknown";

/// The commit of the checkout that holds the config file, `+changes` if it is not clean, `unknown` outside a checkout. Changes in
/// `results` act on no run, and come with every run that is taken in there.
pub(super) fn commit(config: &Path) -> String {
    let folder = config.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_string_lossy();
    let changes = ["-C", &folder, "status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)results"];
    match said("git", &["-C", &folder, "rev-parse", "HEAD"]) {
        hash if hash.is_empty() => UNKNOWN.into(),
        hash if said("git", &changes).is_empty() => hash,
        hash => format!("{hash}+changes"),
    }
}

fn cpu() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.lines()
        .find_map(|l| l.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown".into(), |(_, name)| name.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_tells_of_changes_but_not_of_those_in_the_results() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("experiments/toy/one.yaml");
        let results = dir.path().join("results/toy.md");
        for file in [&config, &results] {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "before\n").unwrap();
        }
        assert_eq!(commit(&config), "unknown");
        let folder = dir.path().to_string_lossy();
        let git = |words: &[&str]| {
            said("git", &[&["-C", &folder, "-c", "user.name=a", "-c", "user.email=a@b.c"], words].concat())
        };
        git(&["init", "--quiet"]);
        git(&["add", "."]);
        git(&["commit", "--quiet", "--message", "a"]);
        let head = git(&["rev-parse", "HEAD"]);
        assert_eq!((commit(&config), head.len()), (head.clone(), 40));
        fs::write(&results, "after\n").unwrap();
        assert_eq!(commit(&config), head);
        fs::write(&config, "after\n").unwrap();
        assert_eq!(commit(&config), format!("{head}+changes"));
    }
}

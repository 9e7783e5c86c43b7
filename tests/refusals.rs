//! A user's mistake ends with exit code 2 and a message that says what, where and what to do.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::program::{lenet, program, root, run, smoke, text};

fn refused(words: Vec<String>, parts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let output = run(lenet(dir.path(), &words));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{words:?}\n{said}");
    for part in parts {
        assert!(said.contains(part), "{words:?} should name {part:?}:\n{said}");
    }
    assert!(!said.contains("panicked") && !said.contains("Exception raised"), "{said}");
}

#[test]
fn configuration_mistakes() {
    for (word, parts) in [
        ("optim.bas_lr=0.1", &["bas_lr", "base_lr", "command line"][..]),
        ("seed=abc", &["seed", "abc"]),
        ("seed=-1", &["seed"]),
        ("length=-3 epochs", &["length"]),
        ("length=10", &["length", "epochs"]),
        ("length=0 steps", &["length"]),
        ("batch_size=0", &["batch_size"]),
        ("batch_size=1000000", &["batch_size", "1000000"]),
        ("model.name=lenet6", &["lenet6", "lenet5"]),
        ("data.name=minst", &["minst", "mnist"]),
        ("data=no_such_group", &["no_such_group"]),
        ("compute.device=tpu", &["tpu", "cpu"]),
        ("data.workers=2", &["workers"]),
        ("augment=[{kind: crop, pad: 0, size: 20}]", &["augment", "remove `size`"]),
        ("augment=[{kind: centre}]", &["augment", "`centre`", "remove it"]),
        ("optim.lr=0.1", &["optim.lr", "did you mean base_lr"]),
        ("data.root=&x", &["data.root=&x", "quotes"]),
        ("optim.kind=sdg", &["sdg", "sgd"]),
        ("=3", &["=3"]),
        ("length=0.001 epochs", &["length", "less than one step"]),
        ("compute.threads=4294967295", &["compute.threads", "1024"]),
        ("compute.threads=1000", &["compute.threads", "processors"]),
        ("data.limit_train=999999999", &["limit_train"]),
    ] {
        refused(smoke(&[word]), parts);
    }
}

/// A crop decides how much is left of a picture, so it decides, too, whether a batch norm sees more than one number.
#[test]
fn a_crop_that_leaves_batch_norm_one_number() {
    let dir = tempfile::tempdir().unwrap();
    let yaml = root().join("experiments/resnet/smoke.yaml").display().to_string();
    let words = ["--config", &yaml, "--dry-run", "augment=[{kind: crop, pad: 0, size: 4}]", "batch_size=1"];
    let output = run(program("resnet", dir.path(), words));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("one number a channel") && said.contains("crop"), "{said}");
}

#[test]
fn all_mistakes_are_told_at_once_with_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let yaml = fs::read_to_string(root().join("experiments/lenet/smoke.yaml")).unwrap();
    let line = yaml.lines().position(|l| l.starts_with("batch_size:")).unwrap() + 1;
    let broken = yaml.replace("batch_size:", "batch_sise:").replace("base_lr:", "base_rate:");
    let file = dir.path().join("experiments/lenet/broken.yaml");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, broken).unwrap();
    std::os::unix::fs::symlink(root().join("experiments/groups"), dir.path().join("experiments/groups")).unwrap();
    let words = vec!["--config".to_string(), file.display().to_string()];
    refused(words, &[&format!("broken.yaml:{line}"), "batch_sise", "did you mean batch_size", "base_rate", "base_lr"]);
}

#[test]
fn wrong_commands() {
    refused(vec!["train".into()], &["--config"]);
    refused(vec!["--config".into(), "nowhere.yaml".into()], &["nowhere.yaml"]);
    refused(smoke(&["--no-such-flag"]), &["--no-such-flag"]);
    refused(smoke(&["nostage"]), &["nostage", "train"]);
    refused(
        vec!["trane".into()],
        &["\"trane\" is neither a command nor key=value", "did you mean train?", "eval, forward"],
    );
    refused([vec!["trane".to_string()], smoke(&[])].concat(), &["did you mean train?", "eval, forward", "key=value"]);
    refused([vec!["train".to_string()], smoke(&["seed"])].concat(), &["\"seed\"", "a stage, here train", "seed=1"]);
    refused(smoke(&["--processes", "0"]), &["--processes"]);
    refused(smoke(&["--resume", "x", "--dry-run"]), &["--dry-run"]);
    refused([vec!["summary".to_string()], smoke(&["oops"])].concat(), &["oops"]);
    refused(smoke(&["--device", "cuda:99"]), &["cuda:99", "cpu"]);
    refused(vec!["train".into(), "--resume".into(), "no/such/run".into()], &["no/such/run"]);
    refused(vec!["verify".into(), "no/such/run".into()], &["no/such/run"]);
}

/// idx files of `n` pictures in a folder; `spoil` may change them.
pub(crate) fn mnist(folder: &Path, spoil: impl Fn(&str, Vec<u8>) -> Vec<u8>) {
    fs::create_dir_all(folder).unwrap();
    for (stem, n) in [("train", 128u32), ("t10k", 16)] {
        let mut images: Vec<u8> = [2051u32, n, 28, 28].iter().flat_map(|v| v.to_be_bytes()).collect();
        images.extend((0..n * 784).map(|i| (i * 7919 % 251) as u8));
        let mut labels: Vec<u8> = [2049u32, n].iter().flat_map(|v| v.to_be_bytes()).collect();
        labels.extend((0..n).map(|i| (i % 10) as u8));
        for (name, bytes) in
            [(format!("{stem}-images-idx3-ubyte"), images), (format!("{stem}-labels-idx1-ubyte"), labels)]
        {
            fs::write(folder.join(&name), spoil(&name, bytes)).unwrap();
        }
    }
}

fn on_mnist(root: &Path) -> Vec<String> {
    smoke(&["data=mnist", &format!("data.root={}", root.display()), "batch_size=64", "length=1 steps"])
}

#[test]
fn whole_idx_files_are_accepted() {
    let dir = tempfile::tempdir().unwrap();
    mnist(&dir.path().join("mnist"), |_, bytes| bytes);
    let output = run(lenet(dir.path(), on_mnist(&dir.path().join("mnist"))));
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn missing_and_damaged_data() {
    refused(on_mnist(Path::new("/nowhere/at/all")), &["/nowhere/at/all", "get_data.sh"]);
    let dir = tempfile::tempdir().unwrap();
    type Spoil = fn(&str, Vec<u8>) -> Vec<u8>;
    let spoils: [(&str, Spoil); 5] = [
        ("train-images", |name, bytes| if name.starts_with("train-images") { bytes[..5000].to_vec() } else { bytes }),
        ("train-labels", |name, mut bytes| {
            if name.starts_with("train-labels") {
                bytes[3] = 99;
            }
            bytes
        }),
        ("t10k-labels", |name, mut bytes| {
            if name.starts_with("t10k-labels") {
                bytes[8] = 77;
            }
            bytes
        }),
        ("train-images", |name, bytes| if name.starts_with("train-images") { Vec::new() } else { bytes }),
        ("train-labels", |name, mut bytes| {
            if name.starts_with("train-labels") {
                bytes[7] = 100;
                bytes.truncate(108);
            }
            bytes
        }),
    ];
    for (number, (named, spoil)) in spoils.into_iter().enumerate() {
        let folder = dir.path().join(number.to_string());
        mnist(&folder, spoil);
        refused(on_mnist(&folder), &[named]);
    }
    // A gzip file that is cut off, and one that is none.
    let folder = dir.path().join("gz");
    mnist(&folder, |_, bytes| bytes);
    let plain = folder.join("train-images-idx3-ubyte");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&fs::read(&plain).unwrap()).unwrap();
    let packed = packed.finish().unwrap();
    fs::remove_file(&plain).unwrap();
    for bytes in [&packed[..packed.len() / 2], b"this is no gzip file"] {
        fs::write(folder.join("train-images-idx3-ubyte.gz"), bytes).unwrap();
        refused(on_mnist(&folder), &["train-images"]);
    }
}

#[test]
fn weights_that_do_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("w.safetensors");
    fs::write(&file, b"nonsense").unwrap();
    let eval = |path: &str| [vec!["eval".to_string()], smoke(&["--weights", path])].concat();
    refused(eval(&file.display().to_string()), &["w.safetensors"]);
    refused(eval("missing.safetensors"), &["missing.safetensors"]);
    fs::remove_file(&file).unwrap();
    refused(eval(&dir.path().display().to_string()), &["the folder is empty"]);
    fs::write(dir.path().join("config.yaml"), b"").unwrap();
    refused(eval(&dir.path().display().to_string()), &["this run is not finished"]);
}

#[test]
fn a_run_folder_that_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    refused(smoke(&["--out", &file.join("run").display().to_string()]), &["--out"]);
    refused(smoke(&["--out", "/proc/none/x"]), &["/proc/none/x", "--out"]);
    refused(smoke(&["--sweep", "seed=1,2", "--out", "/proc/none/x", "length=1 steps"]), &["/proc/none/x"]);
}

#[test]
fn other_places_where_nothing_can_be_made() {
    let dir = tempfile::tempdir().unwrap();
    let weights = dir.path().join("run/weights.safetensors").display().to_string();
    crate::program::succeed(lenet(dir.path(), smoke(&["--out", "run", "length=1 steps", "-q"])));
    let of = |command: &str, words: &[&str]| [vec![command.to_string()], smoke(words)].concat();
    let picture = dir.path().join("digit.png");
    image::GrayImage::from_pixel(28, 28, image::Luma([9])).save(&picture).unwrap();
    let picture = picture.display().to_string();
    for out in ["/proc/none/x", "/proc/x"] {
        let file = format!("{out}.png");
        refused(of("data", &["--out", &file]), &[&file]);
        refused(of("predict", &["--weights", &weights, "--out", out, &picture]), &[out]);
        let input = dir.path().join("input.safetensors");
        let image = tch::Tensor::zeros([1, 1, 32, 32], (tch::Kind::Float, tch::Device::Cpu));
        repro::weights::write(&input, &repro::weights::Named::from([("image".into(), image)]), None).unwrap();
        let (input, output) = (input.display().to_string(), format!("{out}.safetensors"));
        refused(of("forward", &["--weights", &weights, "--input", &input, "--output", &output]), &[&output]);
    }
}

/// Everything below a folder by name, with where links point.
fn below(folder: &Path) -> Vec<(std::path::PathBuf, Option<std::path::PathBuf>)> {
    let mut all: Vec<_> = crate::program::files(folder)
        .into_iter()
        .flat_map(|path| {
            let inner = if path.is_dir() && !path.is_symlink() { below(&path) } else { Vec::new() };
            let link = fs::read_link(&path).ok();
            [vec![(path, link)], inner].concat()
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_refused_command_leaves_nothing_and_latest_stays() {
    let dir = tempfile::tempdir().unwrap();
    let spoilt = dir.path().join("mnist");
    mnist(&spoilt, |name, bytes| if name.starts_with("t10k-labels") { bytes[..9].to_vec() } else { bytes });
    fs::write(dir.path().join("w.safetensors"), b"nonsense").unwrap();
    crate::program::succeed(lenet(dir.path(), smoke(&["length=1 steps", "-q"])));
    let before = below(dir.path());
    let root = format!("data.root={}", spoilt.display());
    let cases: [&[&str]; 9] = [
        &["--device", "cuda:99"],
        &["batch_size=1000000"],
        &["data=mnist", &root],
        &["data=mnist", "data.root=/nowhere/at/all"],
        &["--init", "w.safetensors"],
        &["--init", "no/such/run"],
        &["schedule.warmup=900 steps"],
        &["nostage"],
        &["freeze=[c9]"],
    ];
    for words in cases {
        for place in [&[][..], &["--out", "run"], &["--out", "run", "--resume"]] {
            let output = run(lenet(dir.path(), smoke(&[words, place].concat())));
            assert_eq!(output.status.code(), Some(2), "{words:?} {place:?} {}", text(&output.stderr));
            assert_eq!(below(dir.path()), before, "{words:?} {place:?}");
        }
    }
}

#[test]
fn a_folder_of_other_files_is_no_place_for_a_run() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("thesis")).unwrap();
    fs::write(dir.path().join("thesis/chapter1.tex"), b"It").unwrap();
    let before = below(dir.path());
    for words in [&["--out", "thesis"][..], &["--out", "thesis", "--resume"]] {
        let output = run(lenet(dir.path(), smoke(words)));
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("thesis holds files that are not of a run, such as chapter1.tex"));
        assert_eq!(below(dir.path()), before);
    }
}

#[test]
fn divergence_is_named_with_its_step_and_leaves_no_checkpoint_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let words = smoke(&[
        "--out",
        "run",
        "optim.base_lr=1e38",
        "length=50 steps",
        "checkpoint.every=1 steps",
        "model.name=lenet5_modern",
    ]);
    let output = run(lenet(dir.path(), words));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("diverged at step") && said.contains("base_lr"), "{said}");
    assert_eq!(crate::program::result(&dir.path().join("run"))["status"], "diverged");
    for file in crate::program::files(&dir.path().join("run/checkpoints")) {
        let (state, _) = repro::weights::read(&file).unwrap();
        let finite = |t: &tch::Tensor| t.isfinite().all().int64_value(&[]) == 1;
        assert!(state.values().all(finite), "{} holds what is no number", file.display());
    }
}

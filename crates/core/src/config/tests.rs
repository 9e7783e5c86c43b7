//! The rules of composing and reading, tried on a paper's configuration in a folder of its own.

use std::fs;
use std::time::Duration;

use proptest::prelude::*;
use serde::Deserialize;
use tempfile::TempDir;

use super::*;

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Paper {
    model: Model,
    optim: Optim,
    augment: Vec<Augment>,
    warmup: Option<Length>,
    tag: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Model {
    name: String,
    widths: [u64; 2],
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Sgd {
    base_lr: f64,
    momentum: f64,
    #[serde(default)]
    nesterov: bool,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Optim {
    Sgd(Sgd),
    Adamw { base_lr: f64, betas: Vec<f64> },
    Frozen,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Augment {
    Flip,
    Crop { pad: u64 },
}

const ROW: &str = "\
# A row.
defaults: [data/mnist, compute/auto, log/default]
seed: 7
length: 20 epochs
batch_size: 64
model:
  name: lenet5
  widths: [6, 16]
optim:
  kind: sgd
  base_lr: 0.1
  momentum: 0.9
augment:
  - {kind: crop, pad: 4}
  - flip
eval: {every: 1 epoch}
checkpoint: {every: never, keep: 2}
";

/// `experiments/` with the groups and `lenet/row.yaml`.
struct Folder(TempDir);

impl Folder {
    fn new(row: &str) -> Self {
        let folder = Folder(tempfile::tempdir().unwrap());
        folder.write("groups/data/mnist.yaml", "data:\n  name: mnist\n");
        folder.write("groups/data/fashion_mnist.yaml", "data:\n  name: fashion_mnist\n");
        folder.write("groups/compute/auto.yaml", "compute:\n  device: auto\n  precision: f32\n");
        folder.write("groups/log/default.yaml", "log:\n  every: 100 steps\n");
        folder.write("lenet/row.yaml", row);
        folder
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn load_with(&self, overrides: &[&str], variables: &[(&str, &str)]) -> Result<Experiment<Paper>> {
        let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
        let variables = variables.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        super::load_with(&self.0.path().join("lenet/row.yaml"), &overrides, variables)
    }

    fn load(&self, overrides: &[&str]) -> Experiment<Paper> {
        self.load_with(overrides, &[]).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The message of a refusal, with the folder's own path taken out.
    fn refusal(&self, overrides: &[&str]) -> String {
        let error = self.load_with(overrides, &[]).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        error.to_string().replace(&format!("{}/", self.0.path().display()), "")
    }
}

/// The message when `from` in the row is replaced by `to`.
fn refused(from: &str, to: &str) -> String {
    assert!(ROW.contains(from), "{from}");
    Folder::new(&ROW.replace(from, to)).refusal(&[])
}

#[test]
fn a_row_is_read() {
    let read = Folder::new(ROW).load(&[]);
    let Settings { seed, length, batch_size, limit, data, compute, log, eval, checkpoint, paper } = read.settings;
    assert_eq!((seed, length, batch_size, limit, paper), (7, Length::Epochs(20.0), 64, None, None));
    assert_eq!((data.name.as_str(), data.root, data.limit_train), ("mnist", None, None));
    assert_eq!(compute, Compute { device: "auto".into(), precision: Precision::F32, threads: None, micro_batch: None });
    assert_eq!((log.every, eval.every), (Length::Steps(100), Every::Each(Length::Epochs(1.0))));
    assert_eq!(checkpoint, CheckpointConfig { every: Every::Never, keep: 2 });
    assert_eq!(read.paper.model, Model { name: "lenet5".into(), widths: [6, 16] });
    assert_eq!(read.paper.optim, Optim::Sgd(Sgd { base_lr: 0.1, momentum: 0.9, nesterov: false }));
    assert_eq!(read.paper.augment, [Augment::Crop { pad: 4 }, Augment::Flip]);
}

#[test]
fn the_command_line_stands_over_variables_over_the_file_over_groups() {
    let folder = Folder::new(&format!("{ROW}compute: {{precision: bf16}}\n"));
    assert_eq!(folder.load(&[]).settings.compute.precision, Precision::Bf16);
    let variables = [("REPRO__seed", "1"), ("REPRO__optim__base_lr", "3"), ("REPROX__seed", "5"), ("HOME", "/")];
    let read = folder.load_with(&["seed=2", "limit=25 minutes", "seed=3"], &variables).unwrap();
    assert_eq!(read.settings.seed, 3);
    assert_eq!(read.settings.limit, Some(Limit(Duration::from_secs(1500))));
    assert_eq!(read.paper.optim, Optim::Sgd(Sgd { base_lr: 3.0, momentum: 0.9, nesterov: false })); // 3 is a number too
    let printed = read.resolved.with_origins();
    for (line, origin) in [
        ("seed: 3", "# command line: seed=3"),
        ("  base_lr: 3", "# variable REPRO__optim__base_lr"),
        ("  momentum: 0.9", "lenet/row.yaml:12"),
        ("  precision: bf16", "lenet/row.yaml:18"),
        ("  device: auto", "groups/compute/auto.yaml:2"),
        ("augment:", "lenet/row.yaml:13"),
    ] {
        let found = printed.lines().find(|l| l.starts_with(line)).unwrap_or_else(|| panic!("{line} in\n{printed}"));
        assert!(found.ends_with(origin), "{found}");
    }
}

#[test]
fn a_group_is_chosen_on_the_command_line() {
    let folder = Folder::new(ROW);
    assert_eq!(folder.load(&["data=fashion_mnist"]).settings.data.name, "fashion_mnist");
    assert_eq!(folder.load(&["data=fashion_mnist", "data=mnist"]).settings.data.name, "mnist");
    let limited = folder.load(&["data=fashion_mnist", "data.limit_train=10"]).settings.data;
    assert_eq!((limited.name.as_str(), limited.limit_train), ("fashion_mnist", Some(10)));
    assert!(folder.refusal(&["data=fashion_mnits"]).contains("command line: data=fashion_mnits: there is no file fashion_mnits.yaml"));
    assert!(folder.refusal(&["data=fashion_mnits"]).ends_with("did you mean fashion_mnist?"));
    // A file that sets the name itself would hide the choice.
    let hidden = Folder::new(&format!("{ROW}data: {{name: mnist}}\n")).refusal(&["data=fashion_mnist"]);
    assert!(hidden.contains("lenet/row.yaml:18 sets data.name itself"), "{hidden}");
    // The row alone decides what is a group: model is none.
    assert!(folder.refusal(&["model=lenet1"]).contains("command line: model=lenet1: must be a block with the keys name, widths"));
}

#[test]
fn a_block_whose_kind_changes_is_replaced() {
    let folder = Folder::new(ROW);
    let read = folder.load(&["optim.kind=adamw", "optim.base_lr=0.001", "optim.betas=[0.9, 0.95]"]);
    assert_eq!(read.paper.optim, Optim::Adamw { base_lr: 0.001, betas: vec![0.9, 0.95] });
    assert_eq!(folder.load(&["optim={kind: adamw, base_lr: 1, betas: []}"]).paper.optim, Optim::Adamw { base_lr: 1.0, betas: vec![] });
    let back = folder.refusal(&["optim.kind=adamw", "optim.kind=sgd", "optim.base_lr=1"]);
    assert!(back.contains("optim.momentum: missing"), "{back}"); // the file's block went with the first change
    assert_eq!(folder.load(&["optim.kind=sgd", "optim.base_lr=1"]).paper.optim, Optim::Sgd(Sgd { base_lr: 1.0, momentum: 0.9, nesterov: false }));
    assert_eq!(folder.load(&["optim=frozen"]).paper.optim, Optim::Frozen);
    assert_eq!(folder.load(&["optim.kind=frozen"]).paper.optim, Optim::Frozen);
}

#[test]
fn all_problems_at_once_in_the_order_of_the_file() {
    let row = ROW
        .replace("seed: 7", "seed: -7")
        .replace("length: 20 epochs", "length: 20")
        .replace("batch_size: 64", "batchsize: 64")
        .replace("base_lr: 0.1", "bas_lr: 0.1")
        .replace("widths: [6, 16]", "widths: [6, wide]")
        .replace("pad: 4", "pad: 4.0")
        .replace("keep: 2", "keep: two, evry: 1");
    let text = Folder::new(&row).refusal(&["compute.precision=fp16", "tag=300", "limit=1 fortnight"]);
    let expected = "\
12 problems in the configuration lenet/row.yaml:
  lenet/row.yaml: batch_size: missing; this key has no default, add it
  lenet/row.yaml:3: seed: must not be negative, found -7
  lenet/row.yaml:4: length: `20` has no unit; write a number and its unit, such as `20 epochs` or `500 steps`
  lenet/row.yaml:5: batchsize: unknown key; did you mean batch_size?
  lenet/row.yaml:8: model.widths[1]: must be a whole number, found the text wide
  lenet/row.yaml:9: optim.base_lr: missing; this key has no default, add it
  lenet/row.yaml:11: optim.bas_lr: unknown key; did you mean base_lr?
  lenet/row.yaml:14: augment[0].pad: must be a whole number, found the number 4.0
  lenet/row.yaml:17: checkpoint.evry: unknown key; did you mean every?
  lenet/row.yaml:17: checkpoint.keep: must be a whole number, found the text two
  command line: compute.precision=fp16: unknown choice `fp16`; the choices are: f32, bf16
  command line: tag=300: must be from 0 to 255, found 300
  command line: limit=1 fortnight: unknown unit `fortnight` in `1 fortnight`; write a number and its unit, such as `90 seconds`, `25 minutes` or `2 hours`";
    assert_eq!(text, expected.replace("12 problems", "13 problems"));
}

#[test]
fn wrong_values_are_named() {
    for (from, to, says) in [
        ("seed: 7", "seed: 0.5", ":3: seed: must be a whole number, found the number 0.5"),
        ("seed: 7", "seed:", ":3: seed: must be a whole number, found nothing"),
        ("seed: 7", "sed: 7", ":3: sed: unknown key; did you mean seed?"),
        ("seed: 7", "seed: 7\nmodle: 3", ":4: modle: unknown key; did you mean model?"),
        ("seed: 7", "seed: 7\nzz: 3", ":4: zz: unknown key; there are: model, optim, augment, warmup, tag, seed, length"),
        ("length: 20 epochs", "length: true", ":4: length: must be a number and its unit, found boolean `true`"),
        ("length: 20 epochs", "length: -1 epochs", ":4: length: `-1 epochs` must not be negative"),
        ("name: lenet5", "name: 5", ":7: model.name: must be a text (put it in quotes), found the number 5"),
        ("base_lr: 0.1", "base_lr: fast", ":11: optim.base_lr: must be a number, found the text fast"),
        ("kind: sgd", "kind: sdg", ":10: optim.kind: unknown choice `sdg`; did you mean sgd? the choices are: sgd, adamw, frozen"),
        ("  kind: sgd\n", "", ":9: optim.kind: missing; the choices are: sgd, adamw, frozen"),
        ("kind: sgd", "kind: frozen", ":11: optim.base_lr: unknown key; frozen has no keys"),
        ("- flip", "- crop", ":15: augment[1]: crop has keys of its own; write a block with `kind: crop`"),
        ("[6, 16]", "[6, 16, 120]", ":8: model.widths: must be a list of 2 values, found the list [6, 16, 120]"),
        ("[6, 16]", "6", ":8: model.widths: must be a list of 2 values, found the number 6"),
        ("eval: {every: 1 epoch}", "eval: often", ":16: eval: must be a block with the keys every, found the text often"),
        ("eval: {every: 1 epoch}", "eval: {every: 0 epochs}", ":16: eval.every: `0 epochs` must be more than 0"),
    ] {
        let text = refused(from, to);
        assert!(text.contains(says), "{to}: {text}");
    }
}

#[test]
fn ranges_are_checked() {
    let folder = Folder::new(ROW);
    for (given, says) in [
        ("batch_size=0", "must be at least 1"),
        ("length=0 steps", "must be more than 0"),
        ("log.every=0 epochs", "must be more than 0"),
        ("compute.micro_batch=65", "must not be larger than batch_size, which is 64"),
        ("compute.micro_batch=0", "must be at least 1"),
        ("compute.threads=0", "must be at least 1"),
        ("compute.device=gpu", "must be auto, cpu, cuda or cuda:<index>"),
        ("compute.device=cuda:x", "must be auto, cpu, cuda or cuda:<index>"),
        ("checkpoint.keep=0", "must be at least 1"),
        ("limit=0 minutes", "must be more than 0"),
        ("data.limit_train=0", "must be at least 1"),
        ("data.limit_test=0", "must be at least 1"),
    ] {
        let text = folder.refusal(&[given]);
        assert!(text.contains(&format!("command line: {given}: {says}")) || text.contains(says), "{text}");
        assert!(text.starts_with("1 problem") && text.contains(&format!("command line: {given}: ")), "{text}");
    }
    let text = folder.refusal(&["batch_size=0", "compute.device=gpu"]);
    assert!(text.starts_with("2 problems"), "{text}");
    for device in ["cpu", "cuda", "cuda:1"] {
        assert_eq!(folder.load(&[&format!("compute.device={device}")]).settings.compute.device, device);
    }
}

#[test]
fn wrong_overrides_are_refused() {
    let folder = Folder::new(ROW);
    for (given, says) in [
        ("seed", "command line: seed: has no `=`; write key=value"),
        ("=3", "command line: =3: the key is empty"),
        ("optim..base_lr=3", "`optim..base_lr` is not a key"),
        (".seed=3", "`.seed` is not a key"),
        ("seed.more=3", "command line: seed.more=3: seed is a single value (7), not a block"),
        ("model.widths.0=3", "model.widths is a list; its elements cannot be set one by one"),
        ("model.name=[1, 2", "cannot read the value"),
        ("defaults=[data/mnist]", "choose a group file by its group"),
        ("seed=abc", "command line: seed=abc: must be a whole number, found the text abc"),
        ("optim={kind: sgd, momentum: 1, lr: 3}", "command line: optim={kind: sgd, momentum: 1, lr: 3}: optim.lr: unknown key"),
    ] {
        let text = folder.refusal(&[given]);
        assert!(text.contains(says), "{given}: {text}");
    }
    let both = folder.refusal(&["seed", "=3"]);
    assert_eq!(both.lines().count(), 2, "{both}");
    let variable = folder.load_with(&[], &[("REPRO__optim__base_lr", "fast")]).unwrap_err().to_string();
    assert!(variable.contains("\n  variable REPRO__optim__base_lr: must be a number, found the text fast"), "{variable}");
}

#[test]
fn wrong_files_are_refused() {
    for (from, to, says) in [
        ("data/mnist,", "data/mnits,", "lenet/row.yaml:2: there is no file mnits.yaml in groups/data; did you mean mnist?"),
        ("data/mnist,", "dat/mnist,", "lenet/row.yaml:2: there is no group dat in groups; did you mean data?"),
        ("data/mnist,", "data/../data/mnist,", "lenet/row.yaml:2: there is no file ../data/mnist.yaml"),
        ("data/mnist,", "mnist,", "lenet/row.yaml:2: defaults has mnist, which is not group/option"),
        ("data/mnist,", "data/mnist, data/fashion_mnist,", "lenet/row.yaml:2: defaults chooses data twice"),
        ("[data/mnist, compute/auto, log/default]", "data/mnist", "lenet/row.yaml:2: defaults must be a list"),
        ("batch_size: 64", "seed: 64", "lenet/row.yaml:5: "),
        ("batch_size: 64", "batch_size: [64", "lenet/row.yaml:"),
    ] {
        let text = refused(from, to);
        assert!(text.contains(says), "{to}: {text}");
    }
    let duplicate = refused("batch_size: 64", "seed: 64");
    assert!(duplicate.contains("seed"), "{duplicate}");
    let folder = Folder::new("- just\n- a list\n");
    assert!(folder.refusal(&[]).contains("lenet/row.yaml:1: must be a block"));
    let missing = super::load_with::<Paper>(&folder.0.path().join("lenet/rwo.yaml"), &[], []).unwrap_err();
    assert!(missing.to_string().contains("there is no file") && missing.to_string().ends_with("did you mean row.yaml?"), "{missing}");
    let directory = super::load_with::<Paper>(&folder.0.path().join("lenet"), &[], []).unwrap_err();
    assert!(directory.to_string().contains("is a folder"), "{directory}");
    fs::write(folder.0.path().join("lenet/row.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    assert!(folder.refusal(&[]).contains("lenet/row.yaml is not a text file"));
}

#[test]
fn a_group_sets_its_own_key_and_includes_nothing() {
    let folder = Folder::new(ROW);
    folder.write("groups/data/mnist.yaml", "data: {name: mnist}\nseed: 3\n");
    assert_eq!(folder.refusal(&[]), "groups/data/mnist.yaml:2: seed: a file of the group data may set nothing outside `data:`");
    folder.write("groups/data/mnist.yaml", "# x\ndefaults: [log/default]\n");
    assert!(folder.refusal(&[]).starts_with("groups/data/mnist.yaml:2: a group file may not include other groups"));
    folder.write("groups/data/mnist.yaml", "data: {nam: mnist}\n");
    let text = folder.refusal(&[]);
    assert!(text.contains("groups/data/mnist.yaml:1: data.nam: unknown key; did you mean name?"), "{text}");
    assert!(text.contains("groups/data/mnist.yaml:1: data.name: missing"), "{text}");
}

#[test]
fn the_resolved_text_loads_to_the_same() {
    let folder = Folder::new(ROW);
    let first = folder.load(&["data.root=/a b/c", "optim.base_lr=1e-7", "warmup=1 epoch"]);
    let text = first.resolved.yaml();
    assert!(!text.contains("defaults") && text.starts_with("seed: 7\nlength: 20 epochs\nbatch_size: 64\ndata:\n  name: mnist\n"), "{text}");
    let again = Folder::new(&text).load(&[]);
    assert_eq!((&again.settings, &again.paper), (&first.settings, &first.paper));
    assert_eq!(again.resolved.yaml(), text);
    assert_eq!(again.resolved.hash(), first.resolved.hash());
    assert_eq!(Folder::new(&first.resolved.with_origins()).load(&[]).paper, first.paper);
    assert_eq!(diff(&first.resolved, &again.resolved), Vec::<String>::new());
    assert_eq!(first.resolved.get("data.root").as_deref(), Some("/a b/c"));
    assert_eq!(first.resolved.get("optim.base_lr").as_deref(), Some("1e-7"));
    assert_eq!(first.resolved.get("model.widths").as_deref(), Some("[6, 16]"));
    assert_eq!(first.resolved.get("no.such"), None);
}

#[test]
fn the_hash_holds_what_decides_the_result() {
    let folder = Folder::new(ROW);
    let hash = |overrides: &[&str]| folder.load(overrides).resolved.hash();
    let plain = hash(&[]);
    assert_eq!(plain.len(), 64);
    for same in [
        "compute.device=cpu", "compute.threads=2", "data.workers=3", "data.root=/x", "log.every=1 step", "checkpoint.every=1 epoch",
        "checkpoint.keep=9", "limit=1 hour", "optim.momentum=0.90", "data.limit_train=null",
    ] {
        assert_eq!(hash(&[same]), plain, "{same}");
    }
    for other in ["seed=8", "compute.micro_batch=8", "compute.precision=bf16", "data=fashion_mnist", "optim.base_lr=0.2", "warmup=1 step"] {
        assert_ne!(hash(&[other]), plain, "{other}");
    }
    assert_eq!(hash(&["optim.base_lr=1"]), hash(&["optim.base_lr=1.0"]));
}

#[test]
fn differing_keys_are_named() {
    let folder = Folder::new(ROW);
    let plain = folder.load(&[]).resolved;
    let other = folder.load(&["seed=8", "limit=1 hour", "model.widths=[6, 17]", "optim.momentum=0.90", "warmup=null"]).resolved;
    assert_eq!(diff(&plain, &other), ["limit", "model.widths", "seed"]);
    let adamw = folder.load(&["optim={kind: adamw, base_lr: 0.1, betas: []}"]).resolved;
    assert_eq!(diff(&plain, &adamw), ["optim.betas", "optim.kind", "optim.momentum"]);
}

#[test]
fn a_paper_checks_its_own_values() {
    let read = Folder::new(ROW).load(&["tag=3"]);
    assert!(read.check::<&str>(&[]).is_ok());
    let error = read.check(&[("tag", "is odd".to_string()), ("model.name", "is old".to_string())]).unwrap_err().to_string();
    assert!(error.starts_with("2 problems") && error.ends_with("command line: tag=3: is odd"), "{error}");
    assert!(error.contains("lenet/row.yaml:7: model.name: is old"), "{error}");
}

/// One random change of a text: characters, lines and values deleted, doubled, replaced.
#[derive(Debug, Clone)]
enum Change {
    Delete(prop::sample::Index),
    Double(prop::sample::Index),
    Put(prop::sample::Index, String),
    DeleteLine(prop::sample::Index),
    DoubleLine(prop::sample::Index),
    Value(prop::sample::Index, String),
}

impl Change {
    fn apply(&self, text: &str) -> String {
        let mut chars: Vec<char> = text.chars().collect();
        let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
        if chars.is_empty() || lines.is_empty() {
            return text.to_string();
        }
        match self {
            Change::Delete(at) => drop(chars.remove(at.index(chars.len()))),
            Change::Double(at) => chars.insert(at.index(chars.len()), chars[at.index(chars.len())]),
            Change::Put(at, new) => {
                let at = at.index(chars.len());
                chars.splice(at..=at, new.chars());
            }
            Change::DeleteLine(at) => drop(lines.remove(at.index(lines.len()))),
            Change::DoubleLine(at) => lines.insert(at.index(lines.len()), lines[at.index(lines.len())].clone()),
            Change::Value(at, value) => {
                let line = &mut lines[at.index(text.lines().count())];
                *line = format!("{}: {value}", line.split(':').next().unwrap_or_default());
            }
        }
        match self {
            Change::Delete(_) | Change::Double(_) | Change::Put(..) => chars.into_iter().collect(),
            _ => lines.join("\n") + "\n",
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    let put = prop_oneof!["[-:{}\\[\\]#&*!|>'\"%@`,? \t\n.0-9a-z]{1,2}", "\\PC"];
    let value = prop_oneof![
        Just("-1".to_string()),
        Just("1e999".to_string()),
        Just("99999999999999999999999999".to_string()),
        Just(".nan".to_string()),
        Just("{kind: 3}".to_string()),
        Just("{kind: sgd}".to_string()),
        Just("[[], {}]".to_string()),
        Just("!!binary aGk=".to_string()),
        Just("*x".to_string()),
        Just("\"\\x85\\0\"".to_string()),
        "\\PC{0,6}",
    ];
    prop_oneof![
        at().prop_map(Change::Delete),
        at().prop_map(Change::Double),
        (at(), put).prop_map(|(at, new)| Change::Put(at, new)),
        at().prop_map(Change::DeleteLine),
        at().prop_map(Change::DoubleLine),
        (at(), value).prop_map(|(at, value)| Change::Value(at, value)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mutilated_row_is_read_or_refused_in_words(changes in prop::collection::vec(change(), 1..4), given in "([a-z.]{0,12}=)?\\PC{0,8}") {
        let row = changes.iter().fold(ROW.to_string(), |text, change| change.apply(&text));
        let folder = Folder::new(&row);
        for overrides in [&[][..], &[given.as_str()]] {
            match folder.load_with(overrides, &[]) {
                Ok(read) => {
                    let again = Folder::new(&read.resolved.yaml()).load(&[]);
                    prop_assert_eq!((again.settings, again.paper), (read.settings, read.paper));
                    prop_assert_eq!(again.resolved.hash(), read.resolved.hash());
                }
                Err(Error::User(message)) => prop_assert!(message.trim().len() > 10, "{:?}", message),
                Err(other) => prop_assert!(false, "{other:?}"),
            }
        }
    }
}

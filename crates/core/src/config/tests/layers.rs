//! Layers, groups, overrides, files; the resolved text, its hash and its differences.

use std::fs;
use std::time::Duration;

use super::*;

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
    assert!(
        folder
            .refusal(&["data=fashion_mnits"])
            .contains("command line: data=fashion_mnits: there is no file fashion_mnits.yaml")
    );
    assert!(folder.refusal(&["data=fashion_mnits"]).ends_with("did you mean fashion_mnist?"));
    // A file that sets the name itself would hide the choice.
    let hidden = Folder::new(&format!("{ROW}data: {{name: mnist}}\n")).refusal(&["data=fashion_mnist"]);
    assert!(hidden.contains("lenet/row.yaml:18 sets data.name itself"), "{hidden}");
    // The row alone decides what is a group: model is none.
    assert!(
        folder
            .refusal(&["model=lenet1"])
            .contains("command line: model=lenet1: must be a block with the keys name, widths")
    );
}

#[test]
fn a_block_whose_kind_changes_is_replaced() {
    let folder = Folder::new(ROW);
    let read = folder.load(&["optim.kind=adamw", "optim.base_lr=0.001", "optim.betas=[0.9, 0.95]"]);
    assert_eq!(read.paper.optim, Optim::Adamw { base_lr: 0.001, betas: vec![0.9, 0.95] });
    assert_eq!(
        folder.load(&["optim={kind: adamw, base_lr: 1, betas: []}"]).paper.optim,
        Optim::Adamw { base_lr: 1.0, betas: vec![] }
    );
    let block = folder.refusal(&["optim={kind: adamw, betas: []}"]);
    assert!(block.contains("optim.base_lr: missing"), "{block}"); // the file's block went with the change
    assert_eq!(
        folder.load(&["optim.kind=sgd", "optim.base_lr=1"]).paper.optim,
        Optim::Sgd(Sgd { base_lr: 1.0, momentum: 0.9, nesterov: false })
    );
    assert_eq!(folder.load(&["optim=frozen"]).paper.optim, Optim::Frozen);
    assert_eq!(folder.load(&["optim.kind=frozen"]).paper.optim, Optim::Frozen);
}

/// A kind on its own keeps what the new kind has as well; what the file set for the old kind alone goes, and what the command line sets does not.
#[test]
fn a_kind_on_its_own_keeps_what_both_kinds_have() {
    let folder = Folder::new(ROW);
    let adamw = folder.load(&["optim.kind=adamw", "optim.betas=[0.9]"]);
    let Optim::Adamw { base_lr, .. } = adamw.paper.optim else { panic!("{:?}", adamw.paper.optim) };
    assert_eq!(Some(base_lr.to_string()), folder.load(&[]).resolved.get("optim.base_lr"));
    assert_eq!(adamw.resolved.get("optim.momentum"), None);
    assert!(!adamw.resolved.yaml().contains("momentum"));
    let wrong = folder.refusal(&["optim.kind=adamw", "optim.betas=[0.9]", "optim.momentum=0.5"]);
    assert!(wrong.contains("command line: optim.momentum=0.5: unknown key"), "{wrong}");
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
        (
            "optim={kind: sgd, momentum: 1, lr: 3}",
            "command line: optim={kind: sgd, momentum: 1, lr: 3}: optim.lr: unknown key",
        ),
    ] {
        let text = folder.refusal(&[given]);
        assert!(text.contains(says), "{given}: {text}");
    }
    let both = folder.refusal(&["seed", "=3"]);
    assert_eq!(both.lines().count(), 2, "{both}");
    let variable = folder.load_with(&[], &[("REPRO__optim__base_lr", "fast")]).unwrap_err().to_string();
    assert!(
        variable.contains("\n  variable REPRO__optim__base_lr: must be a number, found the text fast"),
        "{variable}"
    );
}

#[test]
fn wrong_files_are_refused() {
    for (from, to, says) in [
        (
            "data/mnist,",
            "data/mnits,",
            "lenet/row.yaml:2: there is no file mnits.yaml in groups/data; did you mean mnist?",
        ),
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
    assert!(
        missing.to_string().contains("there is no file") && missing.to_string().ends_with("did you mean row.yaml?"),
        "{missing}"
    );
    let directory = super::load_with::<Paper>(&folder.0.path().join("lenet"), &[], []).unwrap_err();
    assert!(directory.to_string().contains("is a folder"), "{directory}");
    fs::write(folder.0.path().join("lenet/row.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    assert!(folder.refusal(&[]).contains("lenet/row.yaml is not a text file"));
}

#[test]
fn a_group_sets_its_own_key_and_includes_nothing() {
    let folder = Folder::new(ROW);
    folder.write("groups/data/mnist.yaml", "data: {name: mnist}\nseed: 3\n");
    assert_eq!(
        folder.refusal(&[]),
        "groups/data/mnist.yaml:2: seed: a file of the group data may set nothing outside `data:`"
    );
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
    assert!(
        !text.contains("defaults")
            && text.starts_with("seed: 7\nlength: 20 epochs\nbatch_size: 64\ndata:\n  name: mnist\n"),
        "{text}"
    );
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
        "compute.device=cpu",
        "compute.threads=2",
        "data.workers=3",
        "data.root=/x",
        "log.every=1 step",
        "checkpoint.every=1 epoch",
        "checkpoint.keep=9",
        "limit=1 hour",
        "optim.momentum=0.90",
        "data.limit_train=null",
        "eval.every=never",
        "eval.full_every=2 epochs",
        "paper={table: t, row: r, metric: test/error, value: 0.5}",
    ] {
        assert_eq!(hash(&[same]), plain, "{same}");
    }
    for other in [
        "seed=8",
        "compute.micro_batch=8",
        "compute.precision=bf16",
        "data=fashion_mnist",
        "optim.base_lr=0.2",
        "warmup=1 step",
    ] {
        assert_ne!(hash(&[other]), plain, "{other}");
    }
    assert_eq!(hash(&["optim.base_lr=1"]), hash(&["optim.base_lr=1.0"]));
}

#[test]
fn differing_keys_are_named() {
    let folder = Folder::new(ROW);
    let plain = folder.load(&[]).resolved;
    let other =
        folder.load(&["seed=8", "limit=1 hour", "model.widths=[6, 17]", "optim.momentum=0.90", "warmup=null"]).resolved;
    assert_eq!(diff(&plain, &other), ["limit", "model.widths", "seed"]);
    let adamw = folder.load(&["optim={kind: adamw, base_lr: 0.1, betas: []}"]).resolved;
    assert_eq!(diff(&plain, &adamw), ["optim.betas", "optim.kind", "optim.momentum"]);
}

#[test]
fn a_paper_checks_its_own_values() {
    let read = Folder::new(ROW).load(&["tag=3"]);
    assert!(read.check::<&str>(&[]).is_ok());
    let error =
        read.check(&[("tag", "is odd".to_string()), ("model.name", "is old".to_string())]).unwrap_err().to_string();
    assert!(error.starts_with("2 problems") && error.ends_with("command line: tag=3: is odd"), "{error}");
    assert!(error.contains("lenet/row.yaml:7: model.name: is old"), "{error}");
}

#[test]
fn the_group_files_of_this_repository_can_be_chosen() {
    let folder = Folder::new(ROW);
    let groups = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/groups");
    let mut chosen = 0;
    for group in fs::read_dir(&groups).unwrap() {
        let group = group.unwrap().path();
        for file in fs::read_dir(&group).unwrap() {
            let file = file.unwrap().path();
            let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_string();
            let (group, option) = (name(&group), name(&file));
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.starts_with("# "), "{}", file.display());
            folder.write(&format!("groups/{group}/{option}.yaml"), &text);
            folder.load(&[&format!("{group}={option}")]);
            chosen += 1;
        }
    }
    assert!(chosen >= 6, "{chosen}");
}

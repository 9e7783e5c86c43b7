//! Mistakes in keys, types and ranges, told all at once.

use super::*;

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
    let text = Folder::new(&row).refusal(&["compute.precision=bf61", "tag=300", "limit=1 fortnight"]);
    let expected = "\
13 problems in the configuration lenet/row.yaml:
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
  command line: compute.precision=bf61: unknown choice `bf61`; did you mean bf16? the choices are: f32, bf16
  command line: tag=300: must be from 0 to 255, found 300
  command line: limit=1 fortnight: unknown unit `fortnight` in `1 fortnight`; write a number and its unit, such as `90 seconds`, `25 minutes` or `2 hours`";
    assert_eq!(text, expected);
}

#[test]
fn wrong_values_are_named() {
    for (from, to, says) in [
        ("seed: 7", "seed: 0.5", ":3: seed: must be a whole number, found the number 0.5"),
        ("seed: 7", "seed:", ":3: seed: must be a whole number, found nothing"),
        ("seed: 7", "sed: 7", ":3: sed: unknown key; did you mean seed?"),
        ("seed: 7", "seed: 7\nmodle: 3", ":4: modle: unknown key; did you mean model?"),
        (
            "seed: 7",
            "seed: 7\nzz: 3",
            ":4: zz: unknown key; there are: model, optim, augment, warmup, tag, seed, length",
        ),
        ("length: 20 epochs", "length: true", ":4: length: must be a number and its unit, found boolean `true`"),
        ("length: 20 epochs", "length: -1 epochs", ":4: length: `-1 epochs` must not be negative"),
        ("name: lenet5", "name: 5", ":7: model.name: must be a text (put it in quotes), found the number 5"),
        ("base_lr: 0.1", "base_lr: fast", ":11: optim.base_lr: must be a number, found the text fast"),
        (
            "kind: sgd",
            "kind: sdg",
            ":10: optim.kind: unknown choice `sdg`; did you mean sgd? the choices are: sgd, adamw, frozen",
        ),
        ("  kind: sgd\n", "", ":9: optim.kind: missing; the choices are: sgd, adamw, frozen"),
        ("kind: sgd", "kind: frozen", ":11: optim.base_lr: unknown key; frozen has no keys"),
        ("- flip", "- crop", ":15: augment[1]: crop has keys of its own; write a block with `kind: crop`"),
        ("[6, 16]", "[6, 16, 120]", ":8: model.widths: must be a list of 2 values, found the list [6, 16, 120]"),
        ("[6, 16]", "6", ":8: model.widths: must be a list of 2 values, found the number 6"),
        (
            "eval: {every: 1 epoch}",
            "eval: often",
            ":16: eval: must be a block with the keys every, full_every, samples, found the text often",
        ),
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
        ("compute.threads=0", "must be from 1 to 1024"),
        ("compute.threads=4294967295", "must be from 1 to 1024"),
        ("compute.device=gpu", "must be auto, cpu, cuda or cuda:<index>"),
        ("compute.device=cuda:x", "must be auto, cpu, cuda or cuda:<index>"),
        ("checkpoint.keep=0", "must be at least 1"),
        ("limit=0 minutes", "must be more than 0"),
        ("data.limit_train=0", "must be at least 1"),
        ("data.limit_test=0", "must be at least 1"),
        ("data.repeats=0", "must be from 1 to 1000"),
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

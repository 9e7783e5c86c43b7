//! The program: pictures are functions of weights and seed, tensors go in and out by the contract, what cannot be is refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ddpm::config::Config;
use ddpm::draw::Draw;
use ddpm::model::Model;
use ddpm::sampler::{Kind as Sampler, SamplerConfig};
use repro::config::{DataConfig, Settings};
use repro::golden;
use repro::setup::Setup;
use repro::weights::{self, Named};
use tch::{Device, Kind, Tensor, nn};

fn experiments() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/ddpm")
}

fn program(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ddpm"));
    command.current_dir(folder).args(words).env("OMP_NUM_THREADS", "1").output().unwrap()
}

fn succeeds(folder: &Path, words: &[&str]) -> String {
    let output = program(folder, words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The exit code and what is said.
fn refused(folder: &Path, words: &[&str]) -> (Option<i32>, String) {
    let output = program(folder, words);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn smoke() -> String {
    experiments().join("smoke.yaml").display().to_string()
}

/// The smoke experiment's network, which is told classes or not, with weights from names, in a file.
fn weights(folder: &Path, name: &str, words: &[&str], kind: Kind) -> (String, Config, nn::VarStore, Model) {
    let words: Vec<String> = words.iter().map(|word| (*word).to_string()).collect();
    let config = repro::config::load::<Config>(&experiments().join("smoke.yaml"), &words).unwrap().paper;
    let mut store = nn::VarStore::new(Device::Cpu);
    let model = Model::new(&store.root(), &config).unwrap();
    if kind == Kind::Double {
        store.double();
    }
    golden::fill(&store);
    let path = folder.join(name);
    weights::write(&path, &store.variables().into_iter().collect(), None).unwrap();
    (path.display().to_string(), config, store, model)
}

fn tensors(named: &[(&str, Tensor)]) -> Named {
    named.iter().map(|(name, tensor)| ((*name).to_string(), tensor.shallow_clone())).collect()
}

/// A run is trained, sampled, cut short and sampled on, its pictures interpolated, painted anew and told.
#[test]
fn pictures_are_functions_of_weights_and_seed() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, config) = (folder.path(), smoke());
    let short = ["length=3 steps", "batch_size=1", "data.limit_test=4", "checkpoint.every=2 steps", "sampler.steps=2"];
    succeeds(folder, &[&["train", "--config", &config, "--out", "run", "-q"][..], &short].concat());
    let names = ["samples", "progress", "forward", "through_training", "interpolations"];
    for name in names {
        assert!(folder.join(format!("run/figures/test-{name}-ema.png")).is_file(), "{name}");
    }
    let sample = |out: &str, words: &[&str]| {
        succeeds(folder, &[&["sample", "--weights", "run", "--out", out][..], words].concat())
    };
    let picture = |out: &str, n: usize| fs::read(folder.join(out).join(format!("pictures/{n:06}.png"))).unwrap();
    assert!(sample("a", &["--n", "70"]).contains("by the averages of the weights"));
    assert!(["a/grid.png", "a/animation.png"].iter().all(|file| folder.join(file).is_file()));
    // Another number of them, so other batches.
    sample("b", &["--n", "66"]);
    assert!((0..66).all(|n| picture("a", n) == picture("b", n)) && picture("a", 0) != picture("a", 1));
    // Cut: what is missing is drawn again, the same.
    let (first, last) = (picture("a", 3), picture("a", 69));
    for n in [3, 69] {
        fs::remove_file(folder.join(format!("a/pictures/{n:06}.png"))).unwrap();
    }
    sample("a", &["--n", "70"]);
    assert!(picture("a", 3) == first && picture("a", 69) == last);
    for (words, told) in
        [(&["seed=2"][..], "seed was 1"), (&["--raw"], "weights_sha256 was"), (&["--steps", "3"], "sampler was")]
    {
        let (code, said) =
            refused(folder, &[&["sample", "--weights", "run", "--out", "a", "--n", "70"][..], words].concat());
        assert!(code == Some(2) && said.contains(told) && said.contains("choose another --out"), "{said}");
    }
    assert!(!sample("raw", &["--n", "1", "--raw"]).contains("averages"));

    let (p, q) = ("a/pictures/000000.png", "a/pictures/000001.png");
    assert!(sample("ways", &["--interpolate", p, q]).contains("interpolated.png"));
    image::RgbImage::from_fn(32, 32, |x, _| image::Rgb([if x < 16 { 255 } else { 0 }; 3]))
        .save(folder.join("mask.png"))
        .unwrap();
    assert!(sample("new", &["--inpaint", "--mask", "mask.png", p]).contains("inpainted.png"));
    assert!(succeeds(folder, &["predict", "--weights", "run", p, "--json"]).contains("\"rmse\""));
    for words in [&["--interpolate", p][..], &["--inpaint", "--mask", "mask.png"], &["stray.png"]] {
        let (code, said) = refused(folder, &[&["sample", "--weights", "run", "--out", "no"][..], words].concat());
        assert_eq!(code, Some(2), "{words:?}: {said}");
    }
}

/// CONTRACT: x_T and z in, x_0 and each step out, as the library has them, for S of 1, of T and between.
#[test]
fn noise_that_is_given_is_used_in_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (file, config, _store, model) = weights(folder, "w.safetensors", &["diffusion.steps=21"], Kind::Double);
    let (process, shape) = (config.process(), config.shape().unwrap());
    let x = golden::input("x", &[2, 3, 32, 32]);
    let yaml = smoke();
    let setup = Setup::new(Settings::plain(DataConfig::named("none"), 1), Device::Cpu).unwrap();
    for (kind, steps, eta) in [("ddpm", 21, ""), ("ddpm", 4, ""), ("ddim", 1, "0"), ("ddim", 21, "1"), ("dpm++", 5, "")]
    {
        let z = golden::input("z", &[steps, 2, 3, 32, 32]);
        let given = match (kind, eta) {
            ("ddpm", _) | (_, "1") => tensors(&[("x_T", x.shallow_clone()), ("z", z.shallow_clone())]),
            _ => tensors(&[("x_T", x.shallow_clone())]),
        };
        weights::write(&folder.join("noise.safetensors"), &given, None).unwrap();
        let count = steps.to_string();
        let mut words =
            vec!["sample", "--config", &yaml, "--weights", &file, "diffusion.steps=21", "sampler.clip=false"];
        words.extend(["--sampler", kind, "--steps", &count, "--trajectory"]);
        words.extend(["--noise", "noise.safetensors", "--output", "out.safetensors"]);
        if !eta.is_empty() {
            words.extend(["--eta", eta]);
        }
        succeeds(folder, &words);
        let told = weights::read(&folder.join("out.safetensors")).unwrap().0;
        assert_eq!(told.len() as i64, steps + 1);
        let kind = match kind {
            "ddpm" => Sampler::Ddpm,
            "ddim" => Sampler::Ddim,
            _ => Sampler::DpmPp,
        };
        let clip = Some(false);
        let sampler =
            SamplerConfig { steps: Some(steps as usize), eta: eta.parse().ok(), clip, ..SamplerConfig::of(kind) };
        let draw = Draw {
            process: &process,
            model: &model,
            sampler: &sampler,
            shape: &shape,
            setup: &setup,
            null: None,
            guidance: 1.0,
            kind: Kind::Double,
        };
        let mut seen = Vec::new();
        let last = draw
            .from(&x, None, &mut |step| Ok(z.get(step as i64 - 1)), &mut |step, x, _| {
                seen.push((step, x.shallow_clone()));
                Ok(())
            })
            .unwrap();
        let same = |a: &Tensor, b: &Tensor| {
            (a - b).abs().max().double_value(&[]) < 1e-9 * b.abs().max().double_value(&[]).max(1.0)
        };
        assert!(same(&told["x_0"], &last));
        assert!(seen.iter().all(|(step, x)| same(&told[&format!("x.{step}")], x)), "{kind:?} {steps}");
    }
}

/// CONTRACT: x and t give eps; x0, noise and t give x_t and the losses, with gradients.
#[test]
fn forward_answers_by_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let words = ["diffusion.variance=learned", "loss.kind=hybrid", "model.class_dropout=0.1"];
    let (file, config, _store, model) = weights(folder, "w.safetensors", &words, Kind::Double);
    let (x, noise) = (golden::input("x", &[3, 3, 32, 32]), golden::input("noise", &[3, 3, 32, 32]));
    let (t, class) = (Tensor::from_slice(&[0_i64, 500, 999]), Tensor::from_slice(&[9_i64, 10, 0]));
    let yaml = smoke();
    let forward = |given: &[(&str, &Tensor)], more: &[&str]| {
        let given: Named = given.iter().map(|(name, tensor)| ((*name).to_string(), tensor.shallow_clone())).collect();
        weights::write(&folder.join("in.safetensors"), &given, None).unwrap();
        let asked = [
            "forward",
            "--config",
            &yaml,
            "--weights",
            &file,
            "--input",
            "in.safetensors",
            "--output",
            "out.safetensors",
        ];
        program(folder, &[&asked[..], &words, more].concat())
    };
    let told = || weights::read(&folder.join("out.safetensors")).unwrap().0;
    assert!(forward(&[("x", &x), ("t", &t), ("class", &class)], &[]).status.success());
    let direct = tch::no_grad(|| model.at(&x, &t, Some(&class), repro::nn::Mode::Eval)).unwrap();
    let close = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]) < 1e-10;
    let found = told();
    assert!(close(&found["eps"], &direct.narrow(1, 0, 3)) && close(&found["v"], &direct.narrow(1, 3, 3)));

    assert!(forward(&[("x0", &x), ("noise", &noise), ("t", &t), ("class", &class)], &["--grad"]).status.success());
    let found = told();
    let process = config.process();
    assert!(close(&found["x_t"], &process.noised(&x, &noise, &t).unwrap()));
    let sum = &found["loss_simple"] + &found["loss_vlb"] * 0.001;
    assert!(close(&found["loss"], &sum) && found.contains_key("grad.conv_in.weight"));

    let high = Tensor::from_slice(&[0_i64, 5, 1000]);
    for (given, what) in [
        (vec![("x0", &x), ("noise", &noise), ("t", &high)], "t is 1000; it must be from 0 to 999"),
        (vec![("x", &x), ("t", &t), ("class", &high)], "class has 1000; it must be from 0 to 10"),
        (vec![("x", &x)], "no tensor named t"),
        (vec![("x0", &x), ("t", &t)], "no tensor named noise"),
        (vec![("x", &x), ("t", &t), ("image", &x)], "image is not known"),
    ] {
        let output = forward(&given, &[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(what), "{what}: {said}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let yaml = smoke();
    let (plain, ..) = weights(folder, "plain.safetensors", &[], Kind::Float);
    let (told, ..) = weights(folder, "told.safetensors", &["model.class_dropout=0"], Kind::Float);
    let classes = ["model.class_dropout=0"];
    for (file, more, what) in [
        (&plain, &["--steps", "1001"][..], "--steps is 1001; it must be from 1 to 1000"),
        (&plain, &["--eta", "1.5"], "--eta is 1.5; it must be from 0 to 1"),
        (&plain, &["--sampler", "euler"], "--sampler is euler; it must be ddpm, ddim or dpm++"),
        (&plain, &["--sampler", "ddpm", "--eta", "1"], "--eta is of ddim"),
        (&plain, &["--class", "3"], "--class cannot act"),
        (&plain, &["--guidance", "2"], "--guidance cannot act"),
        (&told, &["--class", "10", classes[0]], "--class is 10; it must be from 0 to 9"),
        (&told, &["--guidance", "2", classes[0]], "--guidance cannot act"),
        (&plain, &["model.image_size=31"], "is 31; unet_tiny takes multiples of 2"),
        (&plain, &["diffusion.steps=20"], "must be from 21"),
        (&plain, &["loss.kind=hybrid"], "teaches a variance that is learned"),
        (&plain, &["eval.samples=100"], "cannot act without the block score"),
        (&plain, &["data.name=moons"], "has points of the plane"),
    ] {
        let asked = ["sample", "--config", &yaml, "--weights", file, "--out", "no"];
        let (code, said) = refused(folder, &[&asked[..], more].concat());
        assert!(code == Some(2) && said.contains(what), "{what}: {said}");
    }
    assert!(!folder.join("no").exists());

    // Weights that answer with no numbers are no mistake of the command.
    let mut broken = weights::read(Path::new(&plain)).unwrap().0;
    broken.insert("conv_out.bias".into(), Tensor::from_slice(&[f32::NAN; 3]));
    weights::write(&folder.join("nan.safetensors"), &broken, None).unwrap();
    let asked = ["sample", "--config", &yaml, "--weights", "nan.safetensors", "--out", "nan", "--n", "2"];
    let (code, said) = refused(folder, &asked);
    assert!(code == Some(1) && said.contains("step 20 of 20") && said.contains("not finite"), "{said}");
}

/// Samples are judged by a network that is named, with a warning where there are fewer than it has features; where its file is missing that is noted.
#[test]
fn scores_name_their_network() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let yaml = smoke();
    let features = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lenet/weights/lenet5_dist.safetensors");
    let features = format!("score.features={}", features.display());
    // LeNet-5 looks at grey pictures of 28 pixels.
    let grey = ["model.name=unet_mnist", "data=synthetic"];
    let short = ["length=2 steps", "batch_size=2", "data.limit_test=4", "checkpoint.every=2 steps", "sampler.steps=2"];
    let short = [&grey[..], &short].concat();
    let judged = [
        &features,
        "eval.samples=6",
        "diffusion.steps=30",
        "score.bits_per_dim=2",
        "score.ladder=[{kind: ddim, steps: 1, eta: 0}]",
    ];
    succeeds(folder, &[&["train", "--config", &yaml, "--out", "run", "-q"][..], &short, &judged].concat());
    let result: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(folder.join("run/result.json")).unwrap()).unwrap();
    assert_eq!(result["feature_network"]["name"], "lenet5");
    assert_eq!(result["feature_network"]["sha256"].as_str().unwrap().len(), 64);
    let metrics = result["metrics"].as_object().unwrap();
    for name in [
        "test/fid",
        "test-ema/fid",
        "test-ema/kid",
        "test-ema/is",
        "test-ema/precision",
        "test-ema/recall",
        "test-ema/bits_per_dim",
        "test-ema/fid_ddim_s1_eta0",
    ] {
        assert!(metrics[name].is_number(), "{name}");
    }
    assert!(!metrics.contains_key("test/fid_ddim_s1_eta0"), "the ladder is of the averages");
    assert!(result["notes"].to_string().contains("too few for covariances"), "{}", result["notes"]);
    // The averages are what `eval` measures, unless told otherwise; and `verify` finds all of it again.
    let eval = |more: &[&str]| -> serde_json::Value {
        serde_json::from_str(&succeeds(folder, &[&["eval", "--weights", "run", "--json"][..], more].concat())).unwrap()
    };
    let near = |a: &serde_json::Value, b: &serde_json::Value| {
        (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-6 * b.as_f64().unwrap().abs().max(1.0)
    };
    let averaged = eval(&[]);
    assert!(near(&averaged["metrics"]["test/fid"], &metrics["test-ema/fid"]));
    assert_eq!(averaged["feature_network"], result["feature_network"]);
    assert!(near(&eval(&["--raw"])["metrics"]["test/fid"], &metrics["test/fid"]));
    succeeds(folder, &["verify", "run"]);

    let missing = [&short[..], &["score.features=nowhere.safetensors", "eval.samples=6"]].concat();
    succeeds(folder, &[&["train", "--config", &yaml, "--out", "unjudged", "-q"][..], &missing].concat());
    let result = fs::read_to_string(folder.join("unjudged/result.json")).unwrap();
    assert!(result.contains("there is no nowhere.safetensors") && !result.contains("test/fid"), "{result}");
}

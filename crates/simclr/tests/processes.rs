//! A batch over two processes gives the loss, the raw gradients and the weights of one process, batch norm's statistics included.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use repro::config::Experiment;
use repro::golden::{self, gradients, variables};
use repro::nn::Mode;
use repro::optim::{Group, LrScale, LrScaling, OptimConfig, SgdConfig};
use repro::setup::Setup;
use repro::trainer::Step;
use repro::weights::{self, Named};
use simclr::config::Config;
use simclr::model::Simclr;
use tch::{Device, Tensor, nn};

/// Set in a process that is one of two: the folder where rank 0 leaves what it found.
const MEMBER: &str = "REPRO_TEST_MEMBER";
/// Pictures of the whole batch.
const BATCH: i64 = 8;

/// Loss and gradients of a batch, and the weights after ten steps of momentum, in float64.
fn found(config: &Config, setup: &Setup) -> Named {
    // Several processes at a time would wait for each other's threads.
    tch::set_num_threads(1);
    let mut store = nn::VarStore::new(Device::Cpu);
    let net = Simclr::new(&store.root(), config, setup.exchange()).unwrap();
    store.double();
    golden::fill(&store);
    let sgd = OptimConfig::Sgd(SgdConfig {
        base_lr: 0.05,
        momentum: 0.9,
        nesterov: false,
        weight_decay: 1e-4,
        lr_scaling: LrScaling::None,
        lr_scale: LrScale::new(),
    });
    let params = sgd.params(&store, |_, _| Some(Group::of(1e-4))).unwrap();
    let mut optimizer = sgd.build(&params).unwrap();
    let share = BATCH / setup.world as i64;
    let views = ["view1", "view2"]
        .map(|name| golden::input(name, &[BATCH, 3, 16, 16]).narrow(0, setup.rank as i64 * share, share));
    let both = Tensor::cat(&views, 0);
    let mut kept = Named::new();
    for index in 0..10 {
        let at = Step { index, total: 10, steps_per_epoch: 10, setup };
        let z = net.forward(&both, Mode::Train).z;
        let loss = config.loss.of(&z, setup.rank, |rows| at.gather(rows)).unwrap();
        params.zero_grad();
        at.backward(&loss, &params).unwrap();
        if index == 0 {
            let all = setup.gather_rows(&loss.view(1)).unwrap();
            kept.insert("loss".into(), Tensor::cat(&all, 0).mean(tch::Kind::Double));
            kept.extend(gradients(&store).into_iter().map(|(name, gradient)| (name, gradient.copy())));
        }
        optimizer.step(0.05).unwrap();
    }
    kept.extend(variables(&store));
    kept
}

fn experiment(words: &[&str]) -> Experiment<Config> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/simclr/smoke.yaml");
    repro::config::load(&file, &words.iter().map(|word| word.to_string()).collect::<Vec<_>>()).unwrap()
}

/// Runs the test called `name` as two processes of one group and holds what rank 0 found against one process.
fn two_as_one(name: &str, words: &[&str]) {
    let Experiment { settings, paper, .. } = experiment(words);
    if let Some(folder) = std::env::var_os(MEMBER) {
        let setup = Setup::new(settings, Device::Cpu).unwrap();
        assert_eq!(setup.world, 2);
        let found = found(&paper, &setup);
        if setup.rank == 0 {
            weights::write(&PathBuf::from(folder).join("two.safetensors"), &found, None).unwrap();
        }
        setup.meet().unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let member = |rank: &str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", name]).env(MEMBER, folder.path()).env("RANK", rank).env("WORLD_SIZE", "2");
        command.env("OMP_NUM_THREADS", "1");
        command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    for member in ["0", "1"].map(member) {
        let output = member.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{}\n{said}", output.status);
    }
    let (two, _) = weights::read(&folder.path().join("two.safetensors")).unwrap();
    let one = found(&paper, &Setup::new(settings, Device::Cpu).unwrap());
    assert!(one.keys().eq(two.keys()));
    for (name, one) in &one {
        let gap = (one - &two[name]).abs().max().double_value(&[]);
        let of_weights = name != "loss" && !name.starts_with("grad.");
        // Ten steps magnify what the order of summation leaves.
        assert!(gap < if of_weights { 1e-9 } else { 1e-10 }, "{name} differs by {gap}");
        // Had each its own negatives or statistics, it would be far off.
        assert!(!name.starts_with("grad.") || one.abs().max().double_value(&[]) > 1e-6, "{name} tells nothing");
    }
}

#[test]
fn nt_xent_over_two_processes() {
    two_as_one("nt_xent_over_two_processes", &[]);
}

#[test]
fn in_chunks_over_two_processes() {
    two_as_one("in_chunks_over_two_processes", &["loss.chunk=3", "model.head=mlp3"]);
}

#[test]
fn triplets_over_two_processes() {
    two_as_one("triplets_over_two_processes", &["loss={kind: triplet, margin: 0.4, semi_hard: true}"]);
}

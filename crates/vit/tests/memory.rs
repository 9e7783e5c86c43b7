//! `model.recompute` keeps the blocks' insides out of memory, and changes nothing else. Alone in its program: the peak is that of the whole
//! process, and so is the generator of random numbers.

use std::process::Command;

use repro::golden;
use repro::nn::Mode;
use repro::weights::Named;
use tch::{Device, Kind, Tensor, nn};
use vit::model::Network;
use vit::variant::Variant;

/// The most memory that the process has had so far, in megabytes.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// By how many megabytes the peak rises in a pass of so many blocks and its gradient.
fn rise(depth: usize, recompute: bool) -> f64 {
    let store = nn::VarStore::new(Device::Cpu);
    let variant = Variant { depth, ..Variant::named("vit_d96_patch4_32").unwrap() };
    let net = Network::new(&store.root(), variant, 10, 0.0).recomputing(recompute);
    let image = Tensor::randn([128, 3, 32, 32], (Kind::Float, Device::Cpu));
    let before = peak();
    net.forward(&image, Mode::Train).logits.square().sum(Kind::Float).backward();
    peak() - before
}

/// All gradients of a small network with drop path.
fn gradients(recompute: bool) -> Named {
    tch::manual_seed(3);
    let store = nn::VarStore::new(Device::Cpu);
    let variant = Variant { depth: 3, ..Variant::named("vit_d96_patch4_32").unwrap() };
    let net = Network::new(&store.root(), variant, 10, 0.5).recomputing(recompute);
    golden::fill(&store);
    let image = golden::input("input", &[6, 3, 32, 32]).to_kind(Kind::Float);
    net.forward(&image, Mode::Train).logits.square().sum(Kind::Float).backward();
    golden::gradients(&store)
}

#[test]
fn blocks_that_are_computed_again_take_little_memory() {
    // Freed tensors go back to the system, so that the peak is what is needed and not how the heap is cut up.
    const FREED: &str = "MALLOC_MMAP_THRESHOLD_";
    if std::env::var_os(FREED).is_none() {
        let mut again = Command::new(std::env::current_exe().unwrap());
        let output = again.arg("--nocapture").env(FREED, "1000000").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let (kept, again) = (gradients(false), gradients(true));
    assert!(kept.len() > 20 && kept.keys().eq(again.keys()));
    for (name, gradient) in &kept {
        assert!(gradient.equal(&again[name]), "{name}");
    }
    // What libtorch needs once, and the inside of one block.
    let once = rise(2, true);
    let (small, large) = (rise(6, true), rise(12, true));
    let whole = rise(12, false);
    println!(
        "{once:.0} MB at first; 6 and 12 blocks computed again: {small:.0} and {large:.0} MB more; 12 kept: {whole:.0} MB more"
    );
    // Tokens of a block: 128 · 65 · 96 floats, 3.2 MB; all that it keeps for its gradient, about ten times as much.
    assert!(small < 60.0 && large < 60.0, "{small} MB and {large} MB");
    assert!(whole > 150.0, "{whole} MB");
}

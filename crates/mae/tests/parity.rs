//! transformers' ViTMAE, the published networks and golden values, held against the library; the other autoencoders in closed form.

use std::path::Path;

use mae::autoencoder::{AutoEncoder, Kind as Dense};
use mae::config::{Decoder, MaskTokens};
use mae::masking::{Masking, Sampling, at, kept};
use mae::model::{Mae, patchify, pixels, target, unpatchify, variant};
use mae::names::renamed;
use proptest::prelude::*;
use repro::golden::{self, Tolerance, assert_close, assert_samples_close, gradients};
use repro::nn::Mode;
use repro::optim::{AdamwConfig, LrScale, LrScaling, OptimConfig};
use repro::random::rng;
use repro::weights::{self, Named, copy_into};
use tch::{Device, Kind, Tensor, nn};
use vit::positions::sin_cos;
use vit::variant::Variant;

const F64: (Kind, Device) = (Kind::Double, Device::Cpu);
/// Float64 on both sides.
const EXACT: Tolerance = Tolerance { relative: 1e-9, absolute: 1e-11 };

fn fixture(name: &str) -> Named {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    weights::read(&folder.join(name)).unwrap().0
}

/// Weights by golden's rule, but for the positions, which are fixed.
fn fill(store: &nn::VarStore) {
    let fixed: Vec<(String, Tensor)> =
        store.variables().into_iter().filter(|(n, _)| n.ends_with("pos_embed")).collect();
    let kept: Vec<Tensor> = fixed.iter().map(|(_, tensor)| tensor.copy()).collect();
    golden::fill(store);
    tch::no_grad(|| fixed.into_iter().zip(kept).for_each(|((_, mut tensor), kept)| tensor.copy_(&kept)));
}

fn small() -> (Variant, Decoder) {
    let encoder = Variant {
        width: 24,
        depth: 3,
        heads: 3,
        mlp: 48,
        patch: 4,
        edge: 16,
        ..variant("mae_vit_base_patch16").unwrap()
    };
    (encoder, Decoder { width: 16, depth: 2, heads: 2 })
}

fn twin() -> (nn::VarStore, Mae) {
    let (mut store, (encoder, decoder)) = (nn::VarStore::new(Device::Cpu), small());
    let net = Mae::new(&store.root(), encoder, &decoder, MaskTokens::Decoder);
    store.double();
    fill(&store);
    (store, net)
}

fn noise(n: i64, patches: i64) -> Tensor {
    // golden's inputs are twice its uniform numbers.
    golden::input("noise", &[n, patches]) / 2.0
}

#[test]
fn reconstructions_masks_and_losses_are_those_of_transformers() {
    let theirs = fixture("mae.safetensors");
    let image = golden::input("input", &[4, 3, 16, 16]);
    let (_, net) = twin();
    for ratio in [0.75, 0.6] {
        let masking = Masking::of(&noise(4, 16), ratio).unwrap();
        let pred = net.forward(&image, &masking, Mode::Eval);
        assert_close("pred", &pred, &theirs[&format!("pred.{ratio}")], EXACT);
        assert_eq!(masking.mask.to_kind(Kind::Double), theirs[&format!("mask.{ratio}")].to_kind(Kind::Double));
        assert_eq!(masking.restore, theirs[&format!("ids_restore.{ratio}")]);
        for (word, norm_pix) in [("raw", false), ("norm", true)] {
            let loss = net.loss(&image, &pred, &masking, norm_pix);
            assert_close(word, &loss, &theirs[&format!("loss.{ratio}.{word}")], EXACT);
        }
    }
}

#[test]
fn gradients_and_ten_steps_are_those_of_transformers() {
    let theirs = fixture("mae.safetensors");
    let (image, masking) = (golden::input("input", &[4, 3, 16, 16]), Masking::of(&noise(4, 16), 0.75).unwrap());
    let (store, net) = twin();
    let loss = || net.loss(&image, &net.forward(&image, &masking, Mode::Train), &masking, true);
    loss().backward();
    let found = gradients(&store);
    assert!(!found.keys().any(|name| name.contains("pos_embed")), "positions take no gradient");
    assert_samples_close("gradients", &found, &theirs["grad"], EXACT);
    let adamw = OptimConfig::Adamw(AdamwConfig {
        base_lr: 1e-3,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.05,
        lr_scaling: LrScaling::None,
        lr_scale: LrScale::new(),
    });
    assert_close("ten steps", &golden::ten_losses(&store, &adamw, loss).unwrap(), &theirs["losses"], EXACT);
}

/// Weights of transformers, in the form of published files, in the library's own, and as its save_pretrained writes them, become ours.
#[test]
fn weights_of_transformers_are_renamed() {
    let theirs = fixture("theirs.safetensors");
    let (store, (encoder, decoder)) = (nn::VarStore::new(Device::Cpu), small());
    Mae::new(&store.root(), encoder, &decoder, MaskTokens::Decoder);
    let model: Named = store.variables().into_iter().collect();
    fill(&store);
    let expected: Named = model.iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
    let newer = |name: &str| {
        let name = name.replace("encoder.layer.", "layers.").replace("attention.output.dense", "attention.o_proj");
        let name = name.replace("intermediate.dense", "mlp.fc1").replace("output.dense", "mlp.fc2");
        ["query", "key", "value"].iter().fold(name, |name, word| {
            name.replace(&format!("attention.attention.{word}"), &format!("attention.{}_proj", &word[..1]))
        })
    };
    let saved = |name: &str| name.replace("decoder_layers.", "decoder_encoder.layer.");
    for form in [&|name: &str| name.to_string(), &newer, &saved] as [&dyn Fn(&str) -> String; 3] {
        let given: Named = theirs.iter().map(|(name, tensor)| (form(name), tensor.shallow_clone())).collect();
        tch::no_grad(|| model.values().for_each(|tensor| drop(tensor.shallow_clone().zero_())));
        copy_into(&model, &renamed(given).unwrap(), "theirs").unwrap();
        for (name, tensor) in &model {
            let gap = (tensor - &expected[name]).abs().max().double_value(&[]);
            assert!(gap < 1e-6, "{name}: {gap}");
        }
    }
    let lacking: Named =
        theirs.iter().filter(|(n, _)| !n.contains("key")).map(|(n, t)| (n.clone(), t.shallow_clone())).collect();
    assert!(renamed(lacking).unwrap_err().to_string().contains("lack q, k or v"));
    let mut more: Named = theirs.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect();
    more.insert("vit.pooler.dense.weight".into(), Tensor::zeros([1], (Kind::Float, Device::Cpu)));
    assert!(renamed(more).unwrap_err().to_string().contains("vit.pooler.dense.weight has no place"));
}

/// §2 of the facts: names, shapes and kinds of every tensor; all parameters, and those that learn.
#[test]
fn published_networks_have_their_tensors() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/state_dicts.tsv.gz");
    let theirs = golden::state_dicts(&file).unwrap();
    for (name, all, trained) in [
        ("mae_vit_base_patch16", 111_907_840, 111_655_680),
        ("mae_vit_large_patch16", 329_541_888, 329_239_296),
        ("mae_vit_huge_patch14", 657_074_508, 656_613_964),
    ] {
        let store = nn::VarStore::new(Device::Cpu);
        let decoder = Decoder { width: 512, depth: 8, heads: 16 };
        Mae::new(&store.root(), variant(name).unwrap(), &decoder, MaskTokens::Decoder);
        let variables = store.variables();
        let count = |learns: bool| -> usize {
            variables.values().filter(|tensor| !learns || tensor.requires_grad()).map(Tensor::numel).sum()
        };
        assert_eq!((count(false), count(true)), (all, trained), "{name}");
        assert_eq!(golden::state_dict(&store), theirs[name], "{name}");
    }
    for wrong in [
        "mae_vit_base_patch15",
        "vit_base_patch16_224",
        "mae_vit_medium_patch16_reg4_gap_256",
        "mae_deit3_small_patch16_224",
        "mae_",
    ] {
        assert!(variant(wrong).unwrap_err().to_string().contains("mae_vit_base_patch16"), "{wrong}");
    }
}

/// The authors' base model, in float64: shape, mean, deviation, first and last numbers of its prediction, the loss, the mask.
#[test]
fn the_base_network_has_the_golden_values() {
    let mut store = nn::VarStore::new(Device::Cpu);
    let decoder = Decoder { width: 512, depth: 8, heads: 16 };
    let net = Mae::new(&store.root(), variant("mae_vit_base_patch16").unwrap(), &decoder, MaskTokens::Decoder);
    store.double();
    fill(&store);
    let image = golden::input("input", &[2, 3, 224, 224]);
    let masking = Masking::of(&noise(2, 196), 0.75).unwrap();
    let pred = tch::no_grad(|| net.forward(&image, &masking, Mode::Eval));
    assert_eq!(pred.size(), [2, 196, 768]);
    let near = |found: f64, wanted: f64| assert!((found - wanted).abs() < 2e-6, "{found} and not {wanted}");
    near(pred.mean(Kind::Double).double_value(&[]), -0.04707953124);
    near(pred.std(false).double_value(&[]), 1.016099592);
    let flat = pred.flatten(0, -1);
    for (place, wanted) in [
        (0, 1.4146586844),
        (1, -2.3179019366),
        (2, 0.7248874162),
        (3, -0.5225344039),
        (2 * 196 * 768 - 1, -0.4514116924),
    ] {
        near(flat.double_value(&[place]), wanted);
    }
    near(net.loss(&image, &pred, &masking, true).double_value(&[]), 2.039835755);
    near(masking.mask.mean(Kind::Double).double_value(&[]), 0.75);
}

#[test]
fn positions_are_the_authors() {
    let theirs = fixture("mae.safetensors");
    for (name, width) in [("pos_embed", 24), ("decoder_pos_embed", 16)] {
        let gap = (sin_cos(4, 1, width).to_kind(Kind::Double) - &theirs[name]).abs().max().double_value(&[]);
        assert!(gap < 1e-7, "{name}: {gap}");
    }
    for (width, sum) in [(768, 84118.4157), (512, 56094.4886)] {
        let found = sin_cos(14, 1, width).abs().sum(Kind::Double).double_value(&[]);
        assert!((found - sum).abs() < 1e-3, "{width}: {found}");
    }
    let table = sin_cos(14, 1, 768);
    // Patch 1 is in column 1 of row 0, patch 14 in column 0 of row 1.
    for (patch, place, wanted) in
        [(0, 0, 0.0), (0, 192, 1.0), (1, 0, 0.8415), (1, 2, 0.7886), (1, 193, 0.5791), (1, 384, 0.0), (14, 385, 0.8153)]
    {
        let found = table.double_value(&[0, 1 + patch, place]);
        assert!((found - wanted).abs() < 5e-5, "{patch}, {place}: {found}");
    }
}

/// Table 1c: with every patch kept but one, an encoder that sees mask tokens has seen the others as they are; the removed one's pixels reach nothing.
#[test]
fn what_is_removed_is_not_seen() {
    for tokens in [MaskTokens::Decoder, MaskTokens::Encoder] {
        let (mut store, (encoder, decoder)) = (nn::VarStore::new(Device::Cpu), small());
        let net = Mae::new(&store.root(), encoder, &decoder, tokens);
        store.double();
        fill(&store);
        let masking = Masking::of(&noise(1, 16), 0.75).unwrap();
        let image = golden::input("input", &[1, 3, 16, 16]).set_requires_grad(true);
        let pred = net.forward(&image, &masking, Mode::Train);
        pred.square().sum(Kind::Double).backward();
        let reached = patchify(&image.grad(), 4).abs().sum_dim_intlist([-1_i64].as_slice(), false, Kind::Double);
        let removed = masking.mask.to_kind(Kind::Bool);
        assert_eq!(reached.masked_select(&removed).max().double_value(&[]), 0.0, "{tokens:?}");
        assert!(reached.masked_select(&removed.logical_not()).min().double_value(&[]) > 0.0, "{tokens:?}");
        assert!(store.variables()["mask_token"].grad().abs().sum(Kind::Double).double_value(&[]) > 0.0, "{tokens:?}");
    }
}

#[test]
fn the_loss_is_of_removed_patches_alone() {
    let (_, net) = twin();
    let (image, masking) = (golden::input("input", &[2, 3, 16, 16]), Masking::of(&noise(2, 16), 0.75).unwrap());
    let pred = golden::input("pred", &[2, 16, 48]);
    let mask = masking.mask.unsqueeze(-1);
    let loss = |pred: &Tensor| net.loss(&image, pred, &masking, false).double_value(&[]);
    assert_eq!(loss(&pred), loss(&(&pred + (1.0 - &mask) * 5.0)));
    assert_ne!(loss(&pred), loss(&(&pred + &mask * 5.0)));
    // A patch of one colour has no deviation, and its target is 0 and no NaN.
    let flat = Tensor::ones([1, 16, 48], F64) * 0.3;
    assert_eq!(target(&flat, true).abs().max().double_value(&[]), 0.0);
    let patches = golden::input("patches", &[2, 16, 48]);
    let back = pixels(&target(&patches, true), &patches, true);
    assert!((back - &patches).abs().max().double_value(&[]) < 1e-12);
}

/// Patch row, patch column, row, column, colour.
#[test]
fn patches_are_in_the_authors_order() {
    let image = Tensor::arange(3 * 8 * 8, F64).view([1, 3, 8, 8]);
    let patches = patchify(&image, 4);
    assert_eq!(patches.size(), [1, 4, 48]);
    // Patch 1 begins at column 4 of row 0; its second number is the second colour there.
    let found: Vec<f64> = [0, 1, 3, 12].iter().map(|&place| patches.double_value(&[0, 1, place])).collect();
    assert_eq!(found, [4.0, 64.0 + 4.0, 5.0, 8.0 + 4.0]);
    assert_eq!(unpatchify(&patches, 4), image);
}

proptest! {
    /// As many are kept as asked, those with the least noise; the shuffle is undone.
    #[test]
    fn masks_are_those_of_the_noise(n in 1_i64..4, grid in 2_i64..8, ratio in 0.05_f64..0.95, seed: u64) {
        let patches = grid * grid;
        let numbers: Vec<f32> = (0..n as u64).flat_map(|k| Sampling::Random.noise(grid, ratio, &mut rng(seed, 0, k, "mask"))).collect();
        let noise = Tensor::from_slice(&numbers).view([n, patches]);
        let masking = Masking::of(&noise, ratio).unwrap();
        let keeps = kept(patches, ratio);
        prop_assert_eq!(masking.keep.size(), [n, keeps]);
        let removed = masking.mask.sum_dim_intlist([1_i64].as_slice(), false, Kind::Double);
        prop_assert_eq!(removed, Tensor::full([n], (patches - keeps) as f64, F64));
        // Kept patches first and the others behind them, put back, are all patches in their order.
        let all = Tensor::arange(patches, F64).expand([n, patches], false);
        let shuffled = all.gather(1, &masking.restore.argsort(1, false), false);
        prop_assert_eq!(shuffled.narrow(1, 0, keeps).to_kind(Kind::Int64), masking.keep.shallow_clone());
        let tokens = all.unsqueeze(-1);
        prop_assert_eq!(at(&shuffled.unsqueeze(-1), &masking.restore), tokens.contiguous());
    }

    #[test]
    fn blocks_remove_as_many_at_any_ratio(seed: u64, ratio in 0.1_f64..0.9) {
        prop_assert_eq!(removed(Sampling::Block, ratio, seed).iter().sum::<f64>() as i64, 196 - kept(196, ratio));
    }
}

/// Of 14 × 14 patches those that are removed (1), row by row.
fn removed(sampling: Sampling, ratio: f64, seed: u64) -> Vec<f64> {
    let noise = Tensor::from_slice(&sampling.noise(14, ratio, &mut rng(seed, 0, 0, "mask"))).view([1, 196]);
    Vec::try_from(Masking::of(&noise, ratio).unwrap().mask.view([-1]).to_kind(Kind::Double)).unwrap()
}

/// Blocks remove as many, in pieces so large that kept and removed patches meet half as often as by chance, or less; a grid keeps one corner of
/// each square of four.
#[test]
fn blocks_and_grids_remove_as_many() {
    for ratio in [0.25, 0.5, 0.75] {
        let mut met = [0, 0];
        for seed in 0..50 {
            for (sampling, met) in [Sampling::Block, Sampling::Random].into_iter().zip(&mut met) {
                let mask = removed(sampling, ratio, seed);
                assert_eq!(mask.iter().sum::<f64>() as i64, 196 - kept(196, ratio));
                *met += (0..196).filter(|place| place % 14 < 13 && mask[*place] != mask[place + 1]).count();
            }
        }
        assert!(2 * met[0] < met[1], "{ratio}: {met:?}");
    }
    let regular = removed(Sampling::Grid, 0.75, 3);
    assert!((0..196).all(|place| (regular[place] == 0.0) == (place / 14 % 2 == 0 && place % 14 % 2 == 0)));
}

fn dense(kind: Dense, corruption: f64) -> (nn::VarStore, AutoEncoder) {
    let mut store = nn::VarStore::new(Device::Cpu);
    let net = AutoEncoder::new(&store.root(), kind, 16, &[8, 3], corruption);
    store.double();
    golden::fill(&store);
    (store, net)
}

/// −Σ (x ln p + (1 − x) ln(1 − p)) over pixels, in plain Rust; of a variational one the divergence of the code beside it.
#[test]
fn autoencoders_have_the_losses_of_their_papers() {
    let image = golden::input("dense", &[5, 1, 4, 4]).abs();
    for (kind, corruption) in [(Dense::Ae, 0.0), (Dense::Dae, 0.4), (Dense::Vae, 0.0)] {
        let (store, net) = dense(kind, corruption);
        let (count, normal) = net.draws(16);
        assert_eq!((count, normal), [(0, false), (16, false), (3, true)][kind as usize]);
        let draws = golden::input("draws", &[5, count]).abs();
        let told = net.forward(&image, &draws);
        let numbers = |tensor: &Tensor| Vec::<f64>::try_from(tensor.flatten(0, -1)).unwrap();
        let cross: f64 = numbers(&image)
            .iter()
            .zip(numbers(&told.picture))
            .map(|(x, p)| -(x * p.ln() + (1.0 - x) * (1.0 - p).ln()))
            .sum::<f64>()
            / 5.0;
        let apart: f64 = match kind {
            Dense::Vae => {
                let (mean, log) = net.encoder.forward(&image);
                let pairs = numbers(&mean).into_iter().zip(numbers(&log.unwrap()));
                pairs.map(|(m, l)| -0.5 * (1.0 + l - m * m - l.exp())).sum::<f64>() / 5.0
            }
            _ => 0.0,
        };
        let loss = told.loss.double_value(&[]);
        assert!((loss - cross - apart).abs() < 1e-10, "{kind:?}: {loss}, {cross} + {apart}");
        let hidden = numbers(&draws.lt(corruption).to_kind(Kind::Double)).iter().sum::<f64>();
        assert!(kind != Dense::Dae || (hidden > 0.0 && told.seen != image));
        // The target is the clean picture.
        told.loss.backward();
        assert!(
            store.variables().values().all(|t| t.grad().defined() && t.grad().isfinite().all().int64_value(&[]) == 1)
        );
        assert_eq!(told.code.size(), [5, 3]);
    }
}

//! transformers' DETR, the published networks and golden values, held against the library; what a picture is told, held against its batch.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use detr::loss::{LossConfig, Losses, Norms, judge};
use detr::model::{Detr, Output, Variant, initialise, variant};
use detr::names::renamed;
use detr::position::Positions;
use repro::detection::{Targets, boxes};
use repro::golden::{self, Tolerance, assert_close, assert_samples_close, gradients, variables};
use repro::nn::Mode;
use repro::optim::{AdamwConfig, Group, LrScaling, OptimConfig, clip_grad_norm};
use repro::weights::{self, Named};
use resnet::blocks::Stride;
use resnet::model::{Stem, Variant as TrunkVariant};
use tch::{Device, Kind, Tensor, nn};

const F64: (Kind, Device) = (Kind::Double, Device::Cpu);
/// Float64 on both sides.
const EXACT: Tolerance = Tolerance { relative: 1e-9, absolute: 1e-10 };
/// §4 and Appendix A.4.
const LOSS: LossConfig = LossConfig { ce: 1.0, bbox: 5.0, giou: 2.0, eos: 0.1 };

fn fixture() -> Named {
    weights::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/detr.safetensors")).unwrap().0
}

/// The size of the twins: a trunk with so many blocks in each stage.
fn small(blocks: [usize; 4], dilated: bool) -> Variant {
    Variant {
        trunk: TrunkVariant::Photo { blocks, bottleneck: Some(Stride::Middle), stem: Stem::Photo, dilated },
        width: 32,
        heads: 4,
        hidden: 48,
        encoder: 2,
        decoder: 3,
        queries: 12,
        dropout: 0.0,
        ..variant("detr_resnet50").unwrap()
    }
}

/// A network with golden weights.
fn filled(variant: Variant, classes: i64) -> (nn::VarStore, Detr) {
    let mut store = nn::VarStore::new(Device::Cpu);
    let net = Detr::new(&store.root(), variant, classes);
    store.double();
    golden::fill(&store);
    (store, net)
}

/// True on the padding of pictures of these sizes within `[N, h, w]`.
fn padded(h: i64, w: i64, sizes: &[(i64, i64)]) -> Tensor {
    let padding = Tensor::ones([sizes.len() as i64, h, w], (Kind::Bool, Device::Cpu));
    for (place, &(h, w)) in (0..).zip(sizes) {
        let _ = padding.get(place).narrow(0, 0, h).narrow(1, 0, w).fill_(0);
    }
    padding
}

/// Golden pictures of these sizes with zeros beside them, and where that is.
fn pictures(h: i64, w: i64, sizes: &[(i64, i64)]) -> (Tensor, Tensor) {
    let padding = padded(h, w, sizes);
    let image = golden::input("input", &[sizes.len() as i64, 3, h, w]);
    (image * padding.logical_not().unsqueeze(1).to_kind(Kind::Double), padding)
}

fn twins() -> (Tensor, Tensor) {
    pictures(64, 96, &[(64, 96), (48, 64), (64, 96)])
}

/// Boxes of sizes from 0.1 to 0.5 for each picture.
fn objects(counts: &[i64]) -> Targets {
    let (mut all, mut labels) = (Vec::new(), Vec::new());
    for (place, &count) in (0..).zip(counts) {
        let u = golden::input(&format!("boxes.{place}"), &[count, 4]) / 2.0 + 0.5;
        all.push(Tensor::cat(&[u.narrow(1, 0, 2), u.narrow(1, 2, 2) * 0.4 + 0.1], 1));
        labels.extend((0..count).map(|i| (i * 3 + place) % 7));
    }
    Targets { boxes: Tensor::cat(&all, 0), labels: Tensor::from_slice(&labels), counts: counts.to_vec() }
}

fn judged(net: &Detr, targets: &Targets) -> (Output, Losses) {
    let (image, padding) = twins();
    let output = net.forward(&image, Some(&padding), Mode::Train).unwrap();
    let losses = judge(&output, targets, &LOSS, Norms::of(&targets.counts, 12, LOSS.eos)).unwrap();
    (output, losses)
}

fn numbers(tensor: &Tensor) -> Vec<i64> {
    Vec::try_from(tensor.to_kind(Kind::Int64)).unwrap()
}

#[test]
fn answers_pairs_and_losses_are_those_of_transformers() {
    let theirs = fixture();
    let (_store, net) = filled(small([1; 4], false), 7);
    // The second has a picture of more objects than queries, and one without any between others.
    for (prefix, counts) in [("", [3, 2, 0]), ("crowded.", [14, 0, 5])] {
        let targets = objects(&counts);
        let (output, losses) = judged(&net, &targets);
        if prefix.is_empty() {
            assert_close("logits", &output.logits, &theirs["logits"], EXACT);
            assert_close("boxes", &output.boxes, &theirs["boxes"], EXACT);
        }
        for (name, terms) in [("loss_ce", &losses.ce), ("loss_bbox", &losses.bbox), ("loss_giou", &losses.giou)] {
            let name = format!("{prefix}{name}");
            assert_close(&name, terms, &theirs[&name], EXACT);
        }
        let name = format!("{prefix}loss");
        assert_close(&name, &losses.total(&LOSS), &theirs[&name], EXACT);
        let last = losses.pairs.last().unwrap();
        assert_eq!(last.query, numbers(&theirs[&format!("{prefix}match.query")]));
        assert_eq!(last.within(&counts), numbers(&theirs[&format!("{prefix}match.target")]));
    }
}

#[test]
fn gradients_and_ten_steps_are_those_of_transformers() {
    let theirs = fixture();
    let (store, net) = filled(small([1; 4], false), 7);
    let targets = objects(&[3, 2, 0]);
    let loss = || judged(&net, &targets).1.total(&LOSS);
    loss().backward();
    assert_samples_close("gradients", &gradients(&store), &theirs["grad"], EXACT);

    let adamw = OptimConfig::Adamw(AdamwConfig {
        base_lr: 1e-4,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 1e-4,
        lr_scaling: LrScaling::None,
        lr_scale: [("backbone.0.body".to_string(), 0.1)].into(),
    });
    let params = adamw.params(&store, |_, _| Some(Group::of(adamw.weight_decay()))).unwrap();
    let mut optimizer = adamw.build(&params).unwrap();
    let mut found = Vec::new();
    for _ in 0..10 {
        params.zero_grad();
        loss().backward();
        let _ = clip_grad_norm(&params, 0.1).unwrap();
        optimizer.step(1e-4).unwrap();
        found.push(tch::no_grad(loss));
    }
    assert_close("ten steps", &Tensor::stack(&found, 0), &theirs["losses"], EXACT);
}

#[test]
fn learned_positions_and_a_dilated_trunk_are_those_of_transformers() {
    let theirs = fixture();
    let (image, padding) = twins();
    let answer = |variant| {
        let (_store, net) = filled(variant, 7);
        tch::no_grad(|| net.forward(&image, Some(&padding), Mode::Eval)).unwrap()
    };
    let learned = Variant { positions: Positions::LearnedAtAttention, ..small([1; 4], false) };
    assert_close("learned", &answer(learned).logits, &theirs["learned.logits"], EXACT);
    let dilated = answer(small([2; 4], true));
    assert_close("dilated: logits", &dilated.logits, &theirs["dc5.logits"], EXACT);
    assert_close("dilated: boxes", &dilated.boxes, &theirs["dc5.boxes"], EXACT);
}

/// Forms of names: of each, names and shapes.
fn forms() -> BTreeMap<String, Vec<(String, Vec<i64>)>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/theirs.tsv.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(file).unwrap()).read_to_string(&mut text).unwrap();
    let mut found: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for line in text.lines().skip(1) {
        let parts: Vec<&str> = line.split('\t').collect();
        let shape = parts[2].split('x').map(|size| size.parse().unwrap()).collect();
        found.entry(parts[0].into()).or_default().push((parts[1].into(), shape));
    }
    found
}

/// Tensors of transformers, filled by their own names, become ours: with its own trunk and with timm's, as the library has them and as files do.
#[test]
fn weights_of_transformers_are_renamed() {
    let (theirs, forms) = (fixture(), forms());
    for form in ["library", "published_library", "timm", "published_timm"] {
        let mut given: Named =
            forms[form].iter().map(|(name, shape)| (name.clone(), golden::input(name, shape))).collect();
        // Files of old have the counters of norms, which frozen ones do not keep.
        let counter = forms[form][0].0.replace("convolution.weight", "normalization.num_batches_tracked");
        given.insert(counter.replace("conv1.weight", "bn1.num_batches_tracked"), Tensor::from(0_i64));
        assert_samples_close(form, &renamed(given).unwrap(), &theirs[&format!("renamed.{form}")], EXACT);
    }
    let nothing = |form: &str| -> Named {
        let zero = Tensor::zeros([1], (Kind::Float, Device::Cpu));
        forms[form].iter().map(|(name, shape)| (name.clone(), zero.expand(shape, false))).collect()
    };
    let store = nn::VarStore::new(Device::Cpu);
    Detr::new(&store.root(), variant("detr_resnet50").unwrap(), 91);
    let ours = variables(&store);
    // Those of the file, and ours, which stay.
    for given in [nothing("detr-resnet-50"), variables(&store)] {
        let found = renamed(given).unwrap();
        assert!(found.keys().eq(ours.keys()));
        for (name, tensor) in &found {
            assert_eq!(tensor.size(), ours[name].size(), "{name}");
        }
    }

    let lacking: Named =
        nothing("timm").into_iter().filter(|(name, _)| !name.contains("encoder_attn.k_proj")).collect();
    assert!(
        renamed(lacking)
            .unwrap_err()
            .to_string()
            .contains("lack q, k or v of transformer.decoder.layers.0.multihead_attn")
    );
    let mut more = nothing("timm");
    more.insert("model.encoder.layers.0.norm3.weight".into(), Tensor::from(0.0));
    assert!(renamed(more).unwrap_err().to_string().contains("model.encoder.layers.0.norm3.weight has no place"));
    let classifier: Named =
        ["conv1.weight", "layer1.0.conv1.weight", "fc.bias"].map(|name| (name.into(), Tensor::from(0.0))).into();
    let trunk: Vec<String> = renamed(classifier).unwrap().into_keys().collect();
    assert_eq!(trunk, ["backbone.0.body.conv1.weight", "backbone.0.body.layer1.0.conv1.weight"]);
}

/// §2 of the facts: names, shapes and kinds of every tensor, and how many learn once the first stage is frozen.
#[test]
fn published_networks_have_their_tensors() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/state_dicts.tsv.gz");
    let theirs = golden::state_dicts(&file).unwrap();
    for (name, all, trained) in [
        ("detr_resnet50", 41_524_768, 41_302_368),
        ("detr_resnet50_dc5", 41_524_768, 41_302_368),
        ("detr_resnet101", 60_464_672, 60_242_272),
        ("detr_resnet101_dc5", 60_464_672, 60_242_272),
    ] {
        let store = nn::VarStore::new(Device::Cpu);
        Detr::new(&store.root(), variant(name).unwrap(), 91);
        let model = variables(&store);
        let learns = |name: &str| {
            !["conv1", "layer1"].iter().any(|part| weights::below_prefix(name, &format!("backbone.0.body.{part}")))
        };
        let count = |keep: &dyn Fn(&str) -> bool| -> usize {
            model
                .iter()
                .filter(|(name, tensor)| tensor.requires_grad() && keep(name))
                .map(|(_, tensor)| tensor.numel())
                .sum()
        };
        assert_eq!((count(&|_| true), count(&learns)), (all, trained), "{name}");
        assert_eq!(golden::state_dict(&store), theirs[name], "{name}");
    }
    // Table 2: millions of parameters by layers of the encoder.
    for (encoder, millions) in [(0, 33.4), (3, 37.4), (6, 41.3), (12, 49.2)] {
        let store = nn::VarStore::new(Device::Cpu);
        Detr::new(&store.root(), Variant { encoder, ..variant("detr_resnet50").unwrap() }, 91);
        let trained: usize = store.trainable_variables().iter().map(Tensor::numel).sum();
        assert!((trained as f64 / 1e6 - 0.22 - millions).abs() < 0.07, "{encoder}: {trained}");
    }
    assert!(variant("detr_resnet18").unwrap_err().to_string().contains("detr_small"));
}

/// The authors' network: answers, pairs and losses of the golden table, which takes a step or two in float32.
#[test]
fn the_published_network_has_the_golden_values() {
    let (_store, net) = filled(variant("detr_resnet50").unwrap(), 91);
    let (image, padding) = pictures(64, 96, &[(64, 96), (48, 64)]);
    let output = tch::no_grad(|| net.forward(&image, Some(&padding), Mode::Eval)).unwrap();
    let near = |found: f64, wanted: f64| assert!((found - wanted).abs() < 1e-4, "{found} and not {wanted}");
    let holds = |found: &Tensor, mean: f64, std: f64, first: [f64; 4], last: f64| {
        near(found.mean(Kind::Double).double_value(&[]), mean);
        near(found.std(false).double_value(&[]), std);
        let flat = found.contiguous().view([-1]);
        (0..).zip(first).for_each(|(place, wanted)| near(flat.double_value(&[place]), wanted));
        near(flat.double_value(&[-1]), last);
    };
    let (logits, boxes) = output.last();
    assert_eq!((logits.size(), boxes.size()), (vec![2, 100, 92], vec![2, 100, 4]));
    let first = [1.2599634273, 0.4565681256, -1.0698060787, 1.3521634926];
    holds(&logits, 0.02349630225, 0.9481452205, first, 0.4778433518);
    let first = [0.4744901303, 0.6528003752, 0.6898128948, 0.375201758];
    holds(&boxes, 0.5473760135, 0.128549318, first, 0.3694610623);

    let boxes = [0.5, 0.5, 0.4, 0.3, 0.2, 0.3, 0.1, 0.2, 0.6, 0.4, 0.5, 0.6];
    let targets = Targets {
        boxes: Tensor::from_slice(&boxes).view([3, 4]),
        labels: Tensor::from_slice(&[3_i64, 17, 44]),
        counts: vec![2, 1],
    };
    let losses = judge(&output, &targets, &LOSS, Norms::of(&targets.counts, 100, LOSS.eos)).unwrap();
    let last = losses.pairs.last().unwrap();
    assert_eq!((&last.picture[..], &last.query[..]), (&[0, 0, 1][..], &[13, 90, 25][..]));
    assert_eq!(last.within(&targets.counts), [1, 0, 0]);
    for (terms, own, auxiliary) in [
        (&losses.ce, 4.6146936818, 6.1077130843),
        (&losses.bbox, 0.9076693974, 0.9239353976),
        (&losses.giou, 1.0467452977, 0.7450257352),
    ] {
        near(terms.double_value(&[5]), own);
        near(terms.double_value(&[0]), auxiliary);
    }
    near(losses.total(&LOSS).double_value(&[]) / 10.0, 6.74831916044);
}

/// The loss by its definition, picture by picture; and what is divided by the whole batch's numbers adds up from its parts.
#[test]
fn a_batch_is_judged_alike_in_parts() {
    let (layers, n, queries, classes) = (2, 3, 5, 4);
    let output = Output {
        logits: Tensor::randn([layers, n, queries, classes + 1], F64),
        boxes: Tensor::rand([layers, n, queries, 4], F64),
    };
    let labels = Tensor::from_slice(&[3_i64, 0, 1, 2, 2, 1, 0, 3]);
    let targets = Targets { boxes: Tensor::rand([8, 4], F64), labels, counts: vec![6, 0, 2] };
    let norms = Norms::of(&targets.counts, queries, 0.1);
    assert_eq!(norms, Norms { boxes: 8.0, weights: 7.0 + 0.1 * 8.0 });
    let whole = judge(&output, &targets, &LOSS, norms).unwrap();
    let parts: f64 = (0..n)
        .map(|place| {
            let part = |all: &Tensor| all.narrow(1, place, 1);
            let output = Output { logits: part(&output.logits), boxes: part(&output.boxes) };
            judge(&output, &targets.part(place, 1), &LOSS, norms).unwrap().total(&LOSS).double_value(&[])
        })
        .sum();
    assert!((whole.total(&LOSS).double_value(&[]) - parts).abs() < 1e-12);

    let (logits, found) = output.last();
    let (mut ce, mut l1, mut giou) = (0.0, 0.0, 0.0);
    let pairs = whole.pairs.last().unwrap();
    let nats = -logits.log_softmax(-1, Kind::Double);
    let mut class = vec![classes; (n * queries) as usize];
    for ((&picture, &query), &target) in pairs.picture.iter().zip(&pairs.query).zip(&pairs.target) {
        class[(picture * queries + query) as usize] = targets.labels.int64_value(&[target]);
        let (ours, theirs) = (found.get(picture).get(query), targets.boxes.get(target));
        l1 += (&ours - &theirs).abs().sum(Kind::Double).double_value(&[]);
        giou += 1.0 - boxes::giou(&boxes::corners(&ours), &boxes::corners(&theirs)).double_value(&[]);
    }
    for (place, &class) in (0..).zip(&class) {
        let weight = if class == classes { 0.1 } else { 1.0 };
        ce += weight * nats.double_value(&[place / queries, place % queries, class]);
    }
    for (terms, wanted) in [(&whole.ce, ce / norms.weights), (&whole.bbox, l1 / 8.0), (&whole.giou, giou / 8.0)] {
        assert!((terms.double_value(&[1]) - wanted).abs() < 1e-12);
    }
}

/// No objects at all: everything is "no object", and no box is judged.
#[test]
fn a_batch_without_objects_has_a_loss_and_gradients() {
    let (store, net) = filled(Variant { decoder: 1, ..small([1; 4], false) }, 7);
    let (_, losses) = judged(&net, &objects(&[0, 0, 0]));
    assert_eq!((losses.bbox.double_value(&[0]), losses.giou.double_value(&[0])), (0.0, 0.0));
    losses.total(&LOSS).backward();
    let gradient = store.variables()["class_embed.weight"].grad();
    assert!(gradient.abs().sum(Kind::Double).double_value(&[]) > 0.0);
    let lost = Output { logits: Tensor::full([1, 1, 2, 8], f64::NAN, F64), boxes: Tensor::rand([1, 1, 2, 4], F64) };
    let told = judge(&lost, &objects(&[1]), &LOSS, Norms::of(&[1], 2, 0.1)).unwrap_err().to_string();
    assert!(told.contains("no numbers any more"), "{told}");
}

/// What a picture is told in a padded batch is what it is told alone (facebookresearch/detr#217), dilated trunk or not; the plain pass, as the
/// reference's, differs.
#[test]
fn answers_do_not_depend_on_the_batch() {
    let sizes = [(64, 96), (41, 57), (64, 96), (48, 64)];
    let (image, padding) = pictures(64, 96, &sizes);
    for dilated in [false, true] {
        let (_store, net) = filled(small([2; 4], dilated), 7);
        let (logits, boxes) = tch::no_grad(|| net.alone(&image, &sizes)).unwrap();
        let (plain, _) = tch::no_grad(|| net.forward(&image, Some(&padding), Mode::Eval)).unwrap().last();
        for (place, &(h, w)) in (0..).zip(&sizes) {
            let picture = image.narrow(0, place, 1).narrow(2, 0, h).narrow(3, 0, w);
            let (l, b) = tch::no_grad(|| net.forward(&picture, None, Mode::Eval)).unwrap().last();
            let tolerance = Tolerance { relative: 1e-9, absolute: 1e-12 };
            assert_close("logits", &logits.narrow(0, place, 1), &l, tolerance);
            assert_close("boxes", &boxes.narrow(0, place, 1), &b, tolerance);
            let gap = (plain.narrow(0, place, 1) - l).abs().max().double_value(&[]);
            assert_eq!(gap > 1e-6, (h, w) != (64, 96), "{h}×{w}: {gap}");
        }
    }
}

/// Table 3: what differs between its rows reaches the answers, and what a row has not does not.
#[test]
fn positions_act_where_they_are_told() {
    let (image, padding) = twins();
    let rows = ["none", "sine_at_input", "learned_at_attention", "sine_in_decoder", "sine_at_attention"];
    let rows = rows.map(|row| serde_json::from_value::<Positions>(row.into()).unwrap());
    let answers = rows.map(|positions| {
        let (_store, net) = filled(Variant { positions, ..small([1; 4], false) }, 7);
        let told = |image: &Tensor| tch::no_grad(|| net.forward(image, Some(&padding), Mode::Eval)).unwrap().last().0;
        told(&image)
    });
    for (a, b) in (0..5).flat_map(|a| (a + 1..5).map(move |b| (a, b))) {
        assert!((&answers[a] - &answers[b]).abs().max().double_value(&[]) > 1e-3, "{:?} {:?}", rows[a], rows[b]);
    }
}

/// Attention weights are told where they are asked for, leave the answers as they are, and pass over padding.
#[test]
fn attention_is_told() {
    let (_store, net) = filled(small([1; 4], false), 7);
    let (image, padding) = twins();
    let pass = || tch::no_grad(|| net.forward(&image, Some(&padding), Mode::Eval));
    let (output, told) = repro::nn::record::tap(&["*.attn.weights".into()], pass).unwrap();
    assert_close("logits", &output.logits, &pass().unwrap().logits, EXACT);
    let names: Vec<&str> = told.keys().map(String::as_str).collect();
    assert_eq!(names.len(), 2 + 2 * 3);
    let cross = &told["decoder.2.cross.attn.weights"];
    // Of 2×3 places, the second picture has 48/32 × 64/32, each told by the pixel at its corner: 2×2.
    assert_eq!(cross.size(), [3, 4, 12, 6]);
    let sums = cross.sum_dim_intlist([-1_i64].as_slice(), false, Kind::Double);
    assert!((sums - 1.0).abs().max().double_value(&[]) < 1e-12);
    let right = cross.get(1).view([4, 12, 2, 3]).select(-1, 2);
    assert_eq!(right.max().double_value(&[]), 0.0);
}

/// Appendix A.4 and PyTorch's defaults.
#[test]
fn training_starts_where_the_reference_does() {
    tch::manual_seed(1);
    let (store, small) = (nn::VarStore::new(Device::Cpu), variant("detr_small").unwrap());
    Detr::new(&store.root(), small, 10);
    let model = variables(&store);
    initialise(&model, &small).unwrap();
    let most = |name: &str| model[name].abs().max().double_value(&[]);
    for (name, bound) in [
        // Xavier of [3·128, 128] and [1024, 128]; PyTorch's default of 128 inputs.
        ("transformer.decoder.layers.2.multihead_attn.in_proj_weight", (6.0 / 512.0_f64).sqrt()),
        ("transformer.encoder.layers.0.linear1.weight", (6.0 / 1152.0_f64).sqrt()),
        ("class_embed.weight", 1.0 / 128.0_f64.sqrt()),
    ] {
        assert!(most(name) <= bound * 1.000001 && most(name) > 0.98 * bound, "{name}: {} of {bound}", most(name));
    }
    assert_eq!(most("transformer.encoder.layers.1.self_attn.out_proj.bias"), 0.0);
    assert_eq!(most("transformer.encoder.layers.1.self_attn.in_proj_bias"), 0.0);
    assert!(most("transformer.encoder.layers.1.linear1.bias") > 0.0);
    assert!((model["query_embed.weight"].std(false).double_value(&[]) - 1.0).abs() < 0.06);
    // He's, over the fan-out.
    let conv = model["backbone.0.body.layer4.1.conv2.weight"].std(false).double_value(&[]);
    assert!((conv / (2.0 / (512.0 * 9.0_f64)).sqrt() - 1.0).abs() < 0.02);
    // From scratch its norms must learn.
    assert!(
        model["backbone.0.body.bn1.weight"].requires_grad()
            && model.contains_key("backbone.0.body.bn1.num_batches_tracked")
    );
}

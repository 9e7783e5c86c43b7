use super::*;
use crate::nn::record::{Counts, block, keeps, parameters, record, seen, tap};

/// Two blocks of a convolution and a norm, the second of which is used twice, and a head.
struct Net {
    convs: [Conv2d; 2],
    norms: [BatchNorm2d; 2],
    head: Linear,
}

impl Net {
    fn new(path: &tch::nn::Path) -> Self {
        let config = Conv2dConfig { padding: 1, groups: 2, bias: false, ..Conv2dConfig::default() };
        let at = |block: i64, name: &str| path / "layer" / block / name;
        let _ = path.zeros("position", &[1, 4]);
        let _ = (path / "layer" / 0).zeros("gamma", &[5]);
        Net {
            convs: [0, 1].map(|b| Conv2d::new(&at(b, "conv"), 4, 4, 3, config)),
            norms: [0, 1].map(|b| BatchNorm2d::new(&at(b, "bn"), 4)),
            head: Linear::new(&(path / "head"), 4, 3),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let layer = |b: usize, x: &Tensor| {
            block(&format!("layer.{b}"), || {
                (self.norms[b].norm(self.convs[b].forward(x), Mode::Train) + x.shallow_clone()).relu()
            })
        };
        let x = layer(1, &layer(1, &layer(0, x)));
        self.head.forward(&x.mean_dim([2_i64, 3].as_slice(), false, None::<Kind>)).relu_()
    }
}

fn net() -> (VarStore, Net, Tensor) {
    let mut store = VarStore::new(Device::Cpu);
    let net = Net::new(&store.root());
    store.double();
    (store, net, Tensor::randn([2, 4, 3, 2], F64))
}

#[test]
fn layers_and_blocks_report_themselves() {
    let (_, net, x) = net();
    let (y, all) = record(|_| false, || net.forward(&x));
    let told: Vec<_> = all.iter().map(|seen| (seen.name.as_str(), seen.depth, seen.counts.parameters)).collect();
    let expected = [
        ("layer.0.conv", 1, 72),
        ("layer.0.bn", 1, 8),
        ("layer.0", 0, 80),
        ("layer.1.conv", 1, 72),
        ("layer.1.bn", 1, 8),
        ("layer.1", 0, 80),
        // The same numbers again.
        ("layer.1.conv#2", 1, 0),
        ("layer.1.bn#2", 1, 0),
        ("layer.1#2", 0, 0),
        ("head", 0, 15),
    ];
    assert_eq!(told, expected);
    assert!(all.iter().all(|seen| seen.value.is_none()));
    // 2 channels of 9 numbers for each of 4·3·2 outputs of two examples.
    let adds = |name: &str| all.iter().find(|seen| seen.name == name).unwrap().counts.multiply_adds;
    assert_eq!((adds("layer.0.conv"), adds("layer.1#2"), adds("head")), (18 * 48, 18 * 48, 24));
    assert_eq!((all[0].output.as_slice(), all[9].output.as_slice()), (&[2, 4, 3, 2][..], &[2, 3][..]));
    // Off, nothing is kept, and the numbers are the same.
    assert!(net.forward(&x).equal(&y) && !keeps("head"));
}

/// The norm's output is what comes before sum and rectifier; the head's what came before the rectifier changed it in place.
#[test]
fn taps_are_what_left_the_layer() {
    let (_, net, x) = net();
    let (y, taps) = tap(&["layer.0.*".into(), "layer.1#2".into(), "head".into()], || Ok(net.forward(&x))).unwrap();
    assert_eq!(taps.keys().collect::<Vec<_>>(), ["head", "layer.0.bn", "layer.0.conv", "layer.1#2"]);
    close(&net.forward(&x), &numbers(&y));
    let conv = net.convs[0].forward(&x);
    close(&taps["layer.0.conv"], &numbers(&conv));
    close(&taps["layer.0.bn"], &numbers(&net.norms[0].forward(&conv, Mode::TrainAgain)));
    assert!(taps["layer.0.bn"].min().double_value(&[]) < 0.0);
    close(&taps["head"].relu(), &numbers(&y));
    assert!(taps["head"].min().double_value(&[]) < 0.0 || taps["head"].equal(&y));
    assert!(taps.values().all(|value| !value.requires_grad()));
    let refused = tap(&["layer.0.cnov".into()], || Ok(net.forward(&x))).unwrap_err();
    assert!(refused.exit_code() == 2 && refused.to_string().contains("layer.0.conv"), "{refused}");
    assert!(tap(&["nothing*".into()], || Ok(net.forward(&x))).is_err());
}

#[test]
fn a_summary_has_every_parameter_of_the_store() {
    let (store, net, x) = net();
    let rows = summary(&store, || Ok(net.forward(&x.narrow(0, 0, 1)))).unwrap();
    let told: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.parameters, row.multiply_adds)).collect();
    let block = 18 * 24;
    let expected =
        [("layer.0", 85, block), ("layer.1", 80, block), ("layer.1#2", 0, block), ("head", 15, 12), ("position", 4, 0)];
    assert_eq!(told, expected);
    assert_eq!(rows[0].output, [4, 3, 2]);
    let sum: u64 = rows.iter().map(|row| row.parameters).sum();
    assert_eq!(sum, parameters(|path| Ok(Net::new(path))).unwrap());
    assert_eq!(sum, store.trainable_variables().iter().map(|t| t.numel() as u64).sum::<u64>());
}

/// A panic leaves the thread without a recorder, and one inside another leaves the outer one.
#[test]
fn recorders_come_off() {
    let x = Tensor::zeros([1], F64);
    let report = |name: &str| seen(name, &x, Counts::default);
    let failed = std::panic::catch_unwind(|| record(|_| true, || -> () { panic!("in the pass") }));
    assert!(failed.is_err() && !keeps("a"));
    let (inner, outer) = record(
        |_| true,
        || {
            report("a");
            let inner = record(|_| false, || report("b")).1;
            report("c");
            inner
        },
    );
    let names = |all: &[crate::nn::record::Seen]| all.iter().map(|seen| seen.name.clone()).collect::<Vec<_>>();
    assert_eq!((names(&inner), names(&outer)), (vec!["b".to_string()], vec!["a".to_string(), "c".into()]));
}

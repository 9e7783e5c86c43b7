//! K-nearest neighbours by Euclidean distance on the pixels (§III.C.2): learns the training set by heart.

use repro::nn::record::{self, Counts};
use tch::{Kind, Tensor, nn};

/// Pictures asked about at a time: the distances to all of the memory lie in one matrix.
const CHUNK: i64 = 250;
/// What a vote for a nearer neighbour is worth more, so that ties go to the nearer ones.
const NEARER: f64 = 1e-3;

/// The training set, and how many of it vote.
#[derive(Debug)]
pub struct Knn {
    /// Pictures as bytes, `[M, 784]`.
    images: Tensor,
    /// Their classes, `[M]` i64; −1 where there is room left.
    labels: Tensor,
    k: i64,
    classes: i64,
}

impl Knn {
    /// An empty memory for `memory` pictures of 28×28, of which the `k` nearest vote.
    pub fn new(path: &nn::Path, memory: i64, k: i64, classes: i64) -> Self {
        let filled = |shape: &[i64], value: i64, kind| Tensor::full(shape, value, (kind, path.device()));
        let images = path.add("images", filled(&[memory, 784], 0, Kind::Uint8), false);
        let labels = path.add("labels", filled(&[memory], -1, Kind::Int64), false);
        Knn { images, labels, k, classes }
    }

    /// Pictures that the memory holds.
    pub fn memory(&self) -> u64 {
        self.labels.numel() as u64
    }

    /// Keeps `images` `[N, 1, 28, 28]` of 0 to 1 and their `labels` at places `start` to `start` + N of the memory.
    pub fn memorise(&self, start: i64, images: &Tensor, labels: &Tensor) {
        let n = labels.numel() as i64;
        self.images.narrow(0, start, n).copy_(&bytes(images));
        self.labels.narrow(0, start, n).copy_(labels);
    }

    /// `[N, 1, 28, 28]` of 0 to 1 → the logarithm of each class's share of the votes, `[N, K]`.
    pub fn forward(&self, images: &Tensor) -> Tensor {
        let memory = self.images.to_kind(Kind::Float);
        let squares = memory.square().sum_dim_intlist(1i64, false, Kind::Float);
        // Room that is left is nobody's neighbour.
        let squares = squares.masked_fill(&self.labels.lt(0), 1e12);
        let names = Tensor::arange(self.classes, (Kind::Int64, memory.device()));
        let k = self.k.min(self.labels.numel() as i64);
        let worth = Tensor::arange(k, (Kind::Float, memory.device())) * -NEARER + 1.0;
        let votes = |asked: Tensor| {
            // |a − b|² = |a|² + |b|² − 2ab, rounded to float32, as it would be anywhere else; |a|² is the same for all of the memory.
            let distance = squares.addmm(&(asked.to_kind(Kind::Float) * -2.0), &memory.tr());
            let (_, nearest) = distance.topk(k, 1, false, true);
            let classes = self.labels.index_select(0, &nearest.view([-1])).view([-1, k, 1]).eq_tensor(&names);
            (classes.to_kind(Kind::Float) * worth.view([1, -1, 1])).sum_dim_intlist(1i64, false, None)
        };
        let votes = Tensor::cat(&bytes(images).split(CHUNK, 0).into_iter().map(votes).collect::<Vec<_>>(), 0);
        let y = (votes / self.k as f64).clamp_min(1e-6).log();
        record::seen("output", &y, || {
            let links = y.size()[0] as u64 * self.memory() * 784;
            Counts { parameters: 0, multiply_adds: links, connections: Some(links) }
        });
        y
    }
}

/// Pictures of 0 to 1 as rows of bytes, `[N, 784]`.
fn bytes(images: &Tensor) -> Tensor {
    (images.flatten(1, -1) * 255.0).round().to_kind(Kind::Uint8)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn votes_are_those_of_the_plain_search() {
        let (m, n, k) = (60, 7, 3);
        let store = nn::VarStore::new(Device::Cpu);
        // Room for five more.
        let knn = Knn::new(&store.root(), m + 5, k, 4);
        tch::manual_seed(3);
        let draw = |count: i64| Tensor::randint(256, [count, 1, 28, 28], (Kind::Float, Device::Cpu)) / 255.0;
        let (memory, asked) = (draw(m), draw(n));
        let labels = Tensor::randint(4, [m], (Kind::Int64, Device::Cpu));
        for start in [0, 30] {
            knn.memorise(start, &memory.narrow(0, start, 30), &labels.narrow(0, start, 30));
        }
        let logits = knn.forward(&asked);

        let row = |t: &Tensor, i: i64| Vec::<f32>::try_from((t.get(i) * 255.0).round().flatten(0, -1)).unwrap();
        for i in 0..n {
            let square = |j: i64| -> f64 {
                row(&asked, i).iter().zip(row(&memory, j)).map(|(a, b)| f64::from(a - b) * f64::from(a - b)).sum()
            };
            let mut all: Vec<_> = (0..m).map(|j| (square(j), labels.int64_value(&[j]))).collect();
            all.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut share = [0.0; 4];
            for (place, (_, class)) in all[..k as usize].iter().enumerate() {
                share[*class as usize] += (1.0 - 1e-3 * place as f64) / k as f64;
            }
            for (class, share) in share.iter().enumerate() {
                let ours = logits.double_value(&[i, class as i64]).exp();
                assert!((ours - share.max(1e-6)).abs() < 1e-5, "picture {i}, class {class}: {ours} against {share}");
            }
        }
    }

    #[test]
    fn three_different_votes_go_to_the_nearest() {
        let store = nn::VarStore::new(Device::Cpu);
        let knn = Knn::new(&store.root(), 3, 3, 3);
        let grey = |level: f64| Tensor::full([1, 1, 28, 28], level / 255.0, (Kind::Float, Device::Cpu));
        knn.memorise(0, &Tensor::cat(&[grey(40.0), grey(90.0), grey(200.0)], 0), &Tensor::from_slice(&[0i64, 1, 2]));
        assert_eq!(knn.forward(&grey(100.0)).argmax(1, false).int64_value(&[0]), 1);
        assert_eq!(knn.forward(&grey(20.0)).argmax(1, false).int64_value(&[0]), 0);
    }
}

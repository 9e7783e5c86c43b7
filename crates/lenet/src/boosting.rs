//! Boosted LeNet-4 (§III.C.8, after Drucker, Schapire and Simard, 1993): three networks learn one after the other, each from patterns
//! that those before it find hard, and their outputs are added.
//!
//! *Chosen here, since the paper leaves it open*: each network learns for a third of the run, with the schedule anew. The hard patterns are
//! found among [`DRAWS`] distorted copies of the training set, at the start of the second and of the third network's time; as many as the
//! training set has pictures are enough.

use repro::Result;
use repro::data::{Draws, Images, Resident};
use repro::nn::record::{self, Counts};
use repro::random::{below, rng};
use repro::trainer::Step;
use tch::{Tensor, nn};

use crate::config::{Config, Name};
use crate::early::Lenet4;
use crate::layers::Init;
use crate::model::pixels;

/// Networks.
pub const MEMBERS: usize = 3;
/// Distorted copies of the training set that are searched for hard patterns.
pub const DRAWS: u64 = 10;
/// Distortions of the search are those of passes from here on, which training does not reach.
const FIRST_DRAW: u64 = 1 << 32;
/// Pictures in a forward pass of the search.
const SEARCH_BATCH: usize = 1000;

/// Three LeNet-4.
#[derive(Debug)]
pub struct BoostedLenet4 {
    members: [Lenet4; MEMBERS],
    /// The member that learns; those behind it have no say yet.
    pub learner: usize,
}

impl BoostedLenet4 {
    /// Networks of `classes` outputs; weights are drawn from libtorch's generator.
    pub fn new(path: &nn::Path, init: Init, classes: i64) -> Self {
        let members = ["first", "second", "third"].map(|name| Lenet4::new(&(path / name), init, classes));
        BoostedLenet4 { members, learner: MEMBERS - 1 }
    }

    /// `[N, 1, 32, 32]` → the outputs `[N, K]` of one network.
    pub fn member(&self, member: usize, pixels: &Tensor) -> Tensor {
        let member = &self.members[member];
        record::block(&member.name, || member.trace(pixels).pop().map(|(_, output)| output).unwrap_or_default())
    }

    /// `[N, 1, 32, 32]` → the outputs of the three, and the sum of those that have learned.
    pub fn trace(&self, pixels: &Tensor) -> Vec<(&'static str, Tensor)> {
        let [first, second, third] = [0, 1, 2].map(|member| self.member(member, pixels));
        let sum = match self.learner {
            0 => first.shallow_clone(),
            1 => &first + &second,
            _ => &first + &second + &third,
        };
        let links = || Counts { connections: Some(MEMBERS as u64 * sum.numel() as u64), ..Counts::default() };
        record::seen("output", &sum, links);
        vec![("first", first), ("second", second), ("third", third), ("output", sum)]
    }
}

/// Who learns, and from what.
#[derive(Debug, Default)]
pub struct Filter {
    /// The learner whose hard patterns are at hand. They are a function of the frozen networks and the seed, so a resumed run finds the same.
    found_for: usize,
    hard: Option<Images>,
}

/// Which network learns at a step, and where in its own training that is: (member, step of it, steps of it).
pub fn turn(at: &Step) -> (usize, u64, u64) {
    let members = MEMBERS as u64;
    let member = at.index * members / at.total;
    let start = |member: u64| (member * at.total).div_ceil(members);
    (member as usize, at.index - start(member), start(member + 1) - start(member))
}

/// Why a run of a boosted network keeps its length.
pub fn whole(config: &Config) -> Option<&'static str> {
    (config.model.name == Name::BoostedLenet4)
        .then_some("each of the three networks learns for a third of it, so that another length gives them other turns")
}

impl Filter {
    /// What the learner sees in place of `batch`: the first network all of it; the second half patterns that the first gets right and half that
    /// it gets wrong; the third patterns on which the first two disagree.
    ///
    /// # Errors
    /// libtorch's.
    pub fn apply(&mut self, net: &BoostedLenet4, batch: Images, data: &Resident, at: &Step) -> Result<Images> {
        let (learner, step, _) = turn(at);
        if learner == 0 {
            return Ok(batch);
        }
        if self.found_for != learner {
            let hard = tch::no_grad(|| search(net, learner, data, at))?;
            (self.found_for, self.hard) = (learner, Some(hard));
        }
        let Some(hard) = self.hard.as_ref().filter(|hard| hard.label.numel() > 0) else { return Ok(batch) };
        let size = batch.label.numel();
        let (easy, wanted) = match learner {
            1 => {
                let right = tch::no_grad(|| answers(net, 0, &batch.image).eq_tensor(&batch.label));
                let right = right.nonzero().view([-1]);
                let kept = right.narrow(0, 0, (size as i64 / 2).min(right.numel() as i64));
                (Some(pick(&batch, &kept)), size - kept.numel())
            }
            _ => (None, size),
        };
        let mut draw = rng(at.setup.settings.seed, step, learner as u64, "boosting");
        let places: Vec<i64> = (0..wanted).map(|_| below(&mut draw, hard.label.numel() as u64) as i64).collect();
        let hard = pick(hard, &Tensor::f_from_slice(&places)?.f_to_device(hard.label.device())?);
        Ok(match easy {
            Some(easy) => join(&[easy, hard]),
            None => hard,
        })
    }

    /// Hard patterns at hand.
    pub fn hard(&self) -> usize {
        self.hard.as_ref().map_or(0, |hard| hard.label.numel())
    }
}

fn pick(images: &Images, index: &Tensor) -> Images {
    Images { image: images.image.index_select(0, index), label: images.label.index_select(0, index), mix: None }
}

fn join(parts: &[Images]) -> Images {
    let all = |part: fn(&Images) -> &Tensor| Tensor::cat(&parts.iter().map(part).collect::<Vec<_>>(), 0);
    Images { image: all(|part| &part.image), label: all(|part| &part.label), mix: None }
}

/// The classes that one network names, `[N]`.
fn answers(net: &BoostedLenet4, member: usize, images: &Tensor) -> Tensor {
    net.member(member, &pixels(images)).argmax(-1, false)
}

/// The patterns among distorted copies of the training set that the networks before `learner` get wrong (one of them) or disagree on (two).
fn search(net: &BoostedLenet4, learner: usize, data: &Resident, at: &Step) -> Result<Images> {
    let seed = at.setup.settings.seed;
    let everything: Vec<i64> = (0..data.set.len() as i64).collect();
    let (mut found, mut count) = (Vec::new(), 0);
    for draw in 0..DRAWS {
        for samples in everything.chunks(SEARCH_BATCH) {
            if count >= everything.len() {
                return Ok(join(&found));
            }
            let images = data.set.select(&Tensor::f_from_slice(samples)?.f_to_device(data.set.device())?);
            let epoch = FIRST_DRAW + draw * MEMBERS as u64 + learner as u64;
            let samples: Vec<(u64, i64)> = samples.iter().map(|sample| (epoch, *sample)).collect();
            let images = data.pipeline.view(&images, Draws { seed, step: at.index, salt: "", samples: &samples })?;
            let first = answers(net, 0, &images.image);
            let reference = if learner == 1 { images.label.shallow_clone() } else { answers(net, 1, &images.image) };
            let hard = pick(&images, &first.ne_tensor(&reference).nonzero().view([-1]));
            count += hard.label.numel();
            found.push(hard);
        }
    }
    Ok(join(&found))
}

#[cfg(test)]
mod tests {
    use repro::data::{Cursor, Pass, Source};
    use repro::setup::Setup;
    use repro::trainer::Recipe;
    use tch::{Device, Kind};

    use super::*;
    use crate::config::Config;
    use crate::train::Train;

    fn surroundings() -> (Config, Setup) {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../experiments/lenet/figure9_boosted_lenet4_dist.yaml");
        let words = ["data=synthetic", "data.limit_train=200", "compute.device=cpu"].map(String::from);
        let experiment = repro::config::load::<Config>(&file, &words).unwrap();
        (experiment.paper, Setup::new(experiment.settings, Device::Cpu).unwrap())
    }

    fn step(setup: &Setup, index: u64) -> Step<'_> {
        Step { index, total: 90, steps_per_epoch: 3, setup }
    }

    #[test]
    fn each_network_learns_for_a_third() {
        let (_, setup) = surroundings();
        let turns = [0, 29, 30, 59, 60, 89].map(|index| turn(&step(&setup, index)));
        assert_eq!(turns, [(0, 0, 30), (0, 29, 30), (1, 0, 30), (1, 29, 30), (2, 0, 30), (2, 29, 30)]);
        // Runs that three does not divide: every network has its turn, and every step belongs to one.
        for total in [3, 4, 5, 10] {
            let turns: Vec<_> =
                (0..total).map(|index| turn(&Step { index, total, steps_per_epoch: 3, setup: &setup })).collect();
            for member in 0..MEMBERS {
                let own: Vec<_> = turns.iter().filter(|turn| turn.0 == member).collect();
                assert!(
                    !own.is_empty() && own.iter().enumerate().all(|(k, t)| t.1 == k as u64 && t.2 == own.len() as u64)
                );
            }
        }
    }

    #[test]
    fn learners_see_what_those_before_them_find_hard_and_a_resumed_run_the_same() {
        let (config, setup) = surroundings();
        let data = Train::data(&config, &setup).unwrap();
        let store = nn::VarStore::new(Device::Cpu);
        tch::manual_seed(4);
        let net = BoostedLenet4::new(&store.root(), Init::Lecun, 10);
        let batch = || {
            let cursor = Cursor { seed: 1, step: 0, rank: 0, world: 1, batch: 64, pass: Pass::DropRest, repeats: 1 };
            data.batches(cursor).next().unwrap().unwrap()
        };
        let count = |t: Tensor| t.sum(Kind::Int64).int64_value(&[]);
        let mut filter = Filter::default();
        assert_eq!(filter.apply(&net, batch(), &data, &step(&setup, 5)).unwrap().image, batch().image);

        let second = filter.apply(&net, batch(), &data, &step(&setup, 40)).unwrap();
        let right = count(answers(&net, 0, &second.image).eq_tensor(&second.label));
        let easy = count(answers(&net, 0, &batch().image).eq_tensor(&batch().label));
        assert_eq!((second.label.numel(), right), (64, easy.min(32)));
        assert!(easy > 0 && filter.hard() >= 200, "the test needs both kinds: {easy}, {}", filter.hard());

        let third = filter.apply(&net, batch(), &data, &step(&setup, 70)).unwrap();
        let differ = count(answers(&net, 0, &third.image).ne_tensor(&answers(&net, 1, &third.image)));
        assert_eq!((third.label.numel(), differ), (64, 64));

        for (index, before) in [(40, second), (70, third)] {
            let again = Filter::default().apply(&net, batch(), &data, &step(&setup, index)).unwrap();
            assert_eq!((again.image, again.label), (before.image, before.label));
        }
    }
}

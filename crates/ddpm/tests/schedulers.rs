//! Schedules, steps and whole trajectories of diffusers' schedulers in float64, held against the library.

use std::path::Path;

use ddpm::process::{Objective, Process, Variance};
use ddpm::sampler::{Kind, SamplerConfig, run};
use ddpm::schedule::{Betas, Schedule};
use repro::Result;
use repro::golden::{self, Tolerance, assert_close};
use repro::weights::{self, Named};
use tch::{Kind as Number, Tensor};

const SHAPE: [i64; 4] = [2, 3, 2, 2];
/// Float64 on both sides.
const EXACT: Tolerance = Tolerance { relative: 1e-10, absolute: 1e-10 };
/// Against float32 on their side.
const PLAIN: Tolerance = Tolerance { relative: 1e-5, absolute: 1e-5 };

fn fixture() -> Named {
    weights::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/schedulers.safetensors")).unwrap().0
}

/// The script's formula in place of a network.
fn network(x: &Tensor, t: &Tensor, learned: bool) -> Result<Tensor> {
    assert_eq!((t.size(), t.kind()), (vec![SHAPE[0]], Number::Int64));
    let t = t.double_value(&[0]);
    let (u, phase) = ((t + 1.0) / 1000.0, (0.01 * t).sin());
    let eps = x * (1.0 - (-0.1 * u - 9.95 * u * u).exp()).sqrt() + (x + phase).tanh() * 0.1;
    Ok(if learned { Tensor::cat(&[eps, (x * 0.5 - phase).tanh()], 1) } else { eps })
}

/// x and x̂_0 after each step, as the script draws them.
fn trajectory(objective: Objective, variance: Variance, config: &SamplerConfig) -> (Tensor, Tensor) {
    let process = Process { schedule: Schedule::new(Betas::Linear, 1000), objective, variance };
    assert_eq!(config.problems(1000, variance), []);
    let steps = config.length(1000) as i64;
    let z = golden::input("z", &[&[steps], &SHAPE[..]].concat()) * 2.0;
    let (mut seen, mut told) = (Vec::new(), Vec::new());
    let last = run(
        &process,
        config,
        &mut |x, t| network(x, t, variance == Variance::Learned),
        &(golden::input("x_T", &SHAPE) * 2.0),
        &mut |step| Ok(z.get(step as i64 - 1)),
        &mut |step, x, x0| {
            assert_eq!(step, seen.len() + 1);
            seen.push(x.copy());
            told.push(x0.copy());
            Ok(())
        },
    )
    .unwrap();
    assert_eq!(&last, seen.last().unwrap());
    (Tensor::stack(&seen, 0), Tensor::stack(&told, 0))
}

/// By the script's names of its runs.
fn named(name: &str, steps: usize) -> (Variance, SamplerConfig) {
    let of = |kind| SamplerConfig { steps: Some(steps), ..SamplerConfig::of(kind) };
    let ddim = |eta| (Variance::Large, SamplerConfig { eta: Some(eta), ..of(Kind::Ddim) });
    match name {
        "large" => (Variance::Large, of(Kind::Ddpm)),
        "small" => (Variance::Small, of(Kind::Ddpm)),
        "unclipped" => (Variance::Large, SamplerConfig { clip: Some(false), ..of(Kind::Ddpm) }),
        "learned" => (Variance::Learned, of(Kind::Ddpm)),
        "eta0" => ddim(0.0),
        "eta0.5" => ddim(0.5),
        "eta1" => ddim(1.0),
        "clipped" => (Variance::Large, SamplerConfig { clip: Some(true), ..ddim(0.5).1 }),
        "dpm" => (Variance::Large, of(Kind::DpmPp)),
        _ => panic!("{name}"),
    }
}

#[test]
fn schedules_are_those_of_diffusers() {
    let theirs = fixture();
    for (name, betas) in [("linear", Betas::Linear), ("cosine", Betas::Cosine)] {
        let schedule = Schedule::new(betas, 1000);
        let relative = Tolerance { relative: 1e-10, absolute: 0.0 };
        let close = |what: &str, ours: &[f64], tolerance| {
            assert_close(what, &Tensor::from_slice(ours), &theirs[&format!("{what}.{name}")], tolerance);
        };
        close("beta", &schedule.beta, relative);
        close("alpha_bar", &schedule.alpha_bar, relative);
        let variance: Vec<f64> = (0..1000).map(|t| schedule.posterior(t).variance).collect();
        // Theirs is at least 1e-20, ours is 0 at the first step.
        close("variance", &variance, Tolerance { absolute: 1e-20, ..relative });
    }
}

#[test]
fn steps_are_those_of_diffusers() {
    let theirs = fixture();
    for name in ["large", "eta0", "dpm"] {
        for steps in [1, 2, 3, 6, 10, 20, 50, 333, 999, 1000] {
            let ours: Vec<i64> = named(name, steps).1.times(1000).into_iter().map(|t| t as i64).collect();
            let twin = Vec::<i64>::try_from(theirs[&format!("times.{name}.{steps}")].to_kind(Number::Int64)).unwrap();
            assert_eq!(ours, twin, "{name}, {steps}");
        }
    }
}

#[test]
fn trajectories_are_those_of_diffusers() {
    let theirs = fixture();
    for name in ["large", "small", "unclipped", "learned", "eta0", "eta0.5", "eta1", "clipped", "dpm"] {
        let (variance, config) = named(name, 50);
        let (x, x0) = trajectory(Objective::Epsilon, variance, &config);
        assert_close(name, &x, &theirs[name], EXACT);
        if let Some(told) = theirs.get(&format!("{name}.x0")) {
            assert_close(&format!("{name}.x0"), &x0, told, EXACT);
        }
        if let Some(plain) = theirs.get(&format!("plain.{name}")) {
            assert_close(&format!("plain.{name}"), &x, plain, PLAIN);
        }
    }
}

#[test]
fn the_solver_is_that_of_diffusers_at_any_length() {
    let theirs = fixture();
    for steps in [1, 2, 10] {
        let (variance, config) = named("dpm", steps);
        let name = format!("dpm.{steps}");
        assert_close(&name, &trajectory(Objective::Epsilon, variance, &config).0, &theirs[&name], EXACT);
    }
}

#[test]
fn other_objectives_are_those_of_diffusers() {
    let theirs = fixture();
    for (word, objective) in [("sample", Objective::X0), ("v_prediction", Objective::V)] {
        for name in ["large", "eta0.5", "dpm"] {
            let (variance, config) = named(name, 10);
            let name = format!("{name}.{word}");
            assert_close(&name, &trajectory(objective, variance, &config).0, &theirs[&name], EXACT);
        }
    }
}

#[test]
fn all_thousand_steps_are_those_of_diffusers() {
    let (variance, config) = (Variance::Large, SamplerConfig::of(Kind::Ddpm));
    let (x, _) = trajectory(Objective::Epsilon, variance, &config);
    assert_eq!(x.size()[0], 1000);
    assert_close("large.1000", &x.get(999), &fixture()["large.1000"], EXACT);
}

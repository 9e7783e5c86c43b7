//! What holds for all samplers, guided and unguided, and what they refuse.

use std::cell::RefCell;

use ddpm::edit::{Known, between, denoise, inpaint, slerp};
use ddpm::guidance::{by_classifier, classifier_free};
use ddpm::process::{Objective, Process, Variance};
use ddpm::sampler::{Kind, SamplerConfig, Spacing, run};
use ddpm::schedule::{Betas, Schedule};
use proptest::prelude::*;
use repro::golden::{self, Tolerance, assert_close};
use repro::{Error, Result, user};
use tch::{Kind as Number, Tensor};

const SHAPE: [i64; 4] = [2, 1, 2, 3];
const EXACT: Tolerance = Tolerance { relative: 1e-9, absolute: 1e-9 };
const OBJECTIVES: [Objective; 3] = [Objective::Epsilon, Objective::X0, Objective::V];
const KINDS: [Kind; 3] = [Kind::Ddpm, Kind::Ddim, Kind::DpmPp];

fn process(steps: usize) -> Process {
    Process { schedule: Schedule::new(Betas::Cosine, steps), objective: Objective::Epsilon, variance: Variance::Small }
}

fn of(kind: Kind, steps: usize) -> SamplerConfig {
    SamplerConfig { steps: Some(steps), ..SamplerConfig::of(kind) }
}

fn noise(step: usize) -> Result<Tensor> {
    Ok(golden::input(&format!("z{step}"), &SHAPE))
}

fn x_t() -> Tensor {
    golden::input("x_T", &SHAPE) * 2.0
}

/// A network that is right about numbers of N(0.3, 0.25): E[x_0 | x_t] in the form of the objective.
fn ideal(process: &Process) -> impl Fn(&Tensor, &Tensor) -> Result<Tensor> {
    move |x, t| {
        let bar = process.schedule.alpha_bar[t.int64_value(&[0]) as usize];
        let gain = bar.sqrt() * 0.25 / (bar * 0.25 + 1.0 - bar);
        let x0 = (x - 0.3 * bar.sqrt()) * gain + 0.3;
        process.target(&x0, &((x - &x0 * bar.sqrt()) / (1.0 - bar).sqrt()), t)
    }
}

fn sampled(process: &Process, config: &SamplerConfig) -> Tensor {
    run(process, config, &mut ideal(process), &x_t(), &mut noise, &mut |_, _, _| Ok(())).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// DDIM with η = 1 over all steps is Algorithm 2 with σ² = β̃, clipped or not.
    #[test]
    fn ddim_of_eta_1_is_algorithm_2(steps in 1_usize..60, clip: bool, objective in 0_usize..3) {
        let process = Process { objective: OBJECTIVES[objective], ..process(steps) };
        let clip = Some(clip);
        let ddim = SamplerConfig { eta: Some(1.0), clip, ..of(Kind::Ddim, steps) };
        let ddpm = SamplerConfig { clip, ..SamplerConfig::of(Kind::Ddpm) };
        assert_close("x_0", &sampled(&process, &ddim), &sampled(&process, &ddpm), EXACT);
    }

    /// The schedule of all steps is the schedule; of some, ᾱ is as it was and the steps keep their names.
    #[test]
    fn fewer_steps_keep_what_they_are(steps in 1_usize..80, part in proptest::collection::vec(any::<bool>(), 80)) {
        let whole = Schedule::new(Betas::Linear, 1000).strided(&(0..steps).collect::<Vec<_>>());
        let times: Vec<usize> = (0..steps).filter(|&t| part[t]).collect();
        let strided = whole.strided(&times);
        prop_assert_eq!(&strided.times, &times);
        for (place, &t) in times.iter().enumerate() {
            prop_assert!((strided.alpha_bar[place] / whole.alpha_bar[t] - 1.0).abs() < 1e-12);
        }
        prop_assert_eq!(strided.strided(&(0..times.len()).collect::<Vec<_>>()).times, times);
    }

    /// A prediction of the noise, of the picture or of v says the same, and what is asked for says what was there.
    #[test]
    fn objectives_agree(t in 0_i64..1000, key in "[a-z]{4}") {
        let (x0, eps) = (golden::input(&key, &SHAPE), golden::input(&format!("{key}!"), &SHAPE));
        let at = Tensor::from_slice(&[t, 999 - t]);
        for objective in OBJECTIVES {
            let process = Process { objective, schedule: Schedule::new(Betas::Linear, 1000), ..process(1) };
            let x = process.noised(&x0, &eps, &at).unwrap();
            let told = process.told(&process.target(&x0, &eps, &at).unwrap(), &x, &at, false).unwrap();
            assert_close("x_0", &told.x0, &x0, EXACT);
            assert_close("ε", &told.eps, &eps, EXACT);
        }
    }
}

#[test]
fn one_step_and_all_steps_work() {
    for (kind, whole) in KINDS.into_iter().flat_map(|kind| [1, 2, 7, 1000].map(|whole| (kind, whole))) {
        let process = process(whole);
        for steps in [1, whole] {
            let config = of(kind, steps);
            assert_eq!(config.problems(whole, Variance::Small), []);
            let times = config.times(whole);
            assert!(times.len() == steps && times.iter().all(|&t| t < whole), "{kind:?}: {times:?}");
            assert!(sampled(&process, &config).isfinite().all().int64_value(&[]) == 1, "{kind:?}, {steps} of {whole}");
        }
        let all = SamplerConfig { steps: None, ..of(kind, 1) };
        assert_eq!(
            all.length(whole),
            whole.min(match kind {
                Kind::Ddpm => whole,
                Kind::Ddim => 50,
                Kind::DpmPp => 20,
            })
        );
    }
    assert_eq!(sampled(&process(30), &of(Kind::Ddpm, 30)), sampled(&process(30), &SamplerConfig::of(Kind::Ddpm)));
}

/// For numbers of N(m, s²) the equation that DDIM and DPM-Solver++ follow has a solution: (x_t − √ᾱ m)/√(ᾱ s² + 1 − ᾱ) stays as it is.
#[test]
fn solvers_find_the_solution_and_the_second_order_sooner() {
    let process = process(1000);
    let apart = |config: &SamplerConfig| {
        let bar = process.schedule.alpha_bar[*config.times(1000).last().unwrap()];
        let wanted = (x_t() - 0.3 * bar.sqrt()) * (0.5 / (bar * 0.25 + 1.0 - bar).sqrt()) + 0.3;
        (sampled(&process, config) - wanted).abs().max().double_value(&[])
    };
    let ddim = [20, 200, 1000].map(|steps| apart(&of(Kind::Ddim, steps)));
    assert!(ddim[2] < 2e-3 && ddim[1] < ddim[0] / 5.0, "{ddim:?}");
    // All thousand hold one that comes twice.
    let dpm = [20, 200, 1000].map(|steps| apart(&of(Kind::DpmPp, steps)));
    assert!(dpm[0] < ddim[0] / 3.0 && dpm[2] < 2e-3, "{dpm:?}, {ddim:?}");
}

/// Every sampler hands on each step; noise is asked for by the step's number, and only where some is drawn. The network hears its own times.
#[test]
fn what_each_step_asks_for() {
    let process = Process { variance: Variance::Large, ..process(100) };
    let quadratic = |kind| SamplerConfig { spacing: Some(Spacing::Quadratic), ..of(kind, 8) };
    let eta = |config| SamplerConfig { eta: Some(0.5), ..config };
    // τ is 0, 1, 6, 14, 26, 40, 58, 80; of 30 steps the first seven are 0, 0, 0, 0, 1, 2, 3.
    let many = SamplerConfig { steps: Some(30), ..quadratic(Kind::Ddpm) };
    let times = many.times(100);
    assert_eq!(times[..7], [0, 0, 0, 0, 1, 2, 3]);
    let still: Vec<usize> = (1..30).rev().filter(|&place| times[place] == times[place - 1]).map(|p| 30 - p).collect();
    assert_eq!(still, [27, 28, 29]);
    for (config, drawing) in [
        (of(Kind::Ddpm, 10), (1..10).collect()),
        (of(Kind::Ddim, 10), vec![]),
        (eta(of(Kind::Ddim, 10)), (1..10).collect()),
        (of(Kind::DpmPp, 10), vec![]),
        (quadratic(Kind::Ddpm), (1..8).collect()),
        (many.clone(), (1..27).collect()),
        (eta(SamplerConfig { kind: Kind::Ddim, ..many.clone() }), (1..27).collect()),
    ] {
        let (mut asked, mut seen, heard) = (Vec::new(), Vec::new(), RefCell::new(Vec::new()));
        let mut net = |x: &Tensor, t: &Tensor| {
            assert_eq!((t.size(), t.kind()), (vec![2], Number::Int64));
            heard.borrow_mut().push(t.int64_value(&[1]) as usize);
            ideal(&process)(x, t)
        };
        let draw = &mut |step| {
            asked.push(step);
            noise(step)
        };
        let _ = run(&process, &config, &mut net, &x_t(), draw, &mut |step, x, _| {
            assert_eq!(step, seen.len() + 1);
            seen.push(x.copy());
            Ok(())
        })
        .unwrap();
        let name = config.name();
        assert_eq!(asked, drawing, "{name}");
        assert_eq!(seen.len(), config.length(100), "{name}");
        assert_eq!(heard.into_inner(), config.times(100).into_iter().rev().collect::<Vec<_>>(), "{name}");
        if config.times(100)[..2] == [0, 0] {
            still.iter().for_each(|&step| assert_close(&name, &seen[step - 1], &seen[step - 2], EXACT));
        }
    }
    // Of a process that is itself a part of another, the network hears the other's times.
    let part = Process { schedule: process.schedule.strided(&[3, 50, 99]), ..process.clone() };
    let mut heard = Vec::new();
    let mut net = |x: &Tensor, t: &Tensor| {
        heard.push(t.int64_value(&[0]));
        Ok(x.shallow_clone())
    };
    let _ = run(&part, &of(Kind::Ddim, 3), &mut net, &x_t(), &mut noise, &mut |_, _, _| Ok(())).unwrap();
    assert_eq!(heard, [99, 50, 3]);
}

#[test]
fn points_are_sampled_as_pictures_are() {
    let process = process(50);
    for kind in KINDS {
        let draw = |x: Tensor| {
            let size = x.size();
            let mut noise = |step| Ok(noise(step)?.narrow(2, 0, 1).narrow(3, 0, 2).reshape(&size));
            run(&process, &of(kind, 10), &mut ideal(&process), &x, &mut noise, &mut |_, _, _| Ok(())).unwrap()
        };
        let points = draw(golden::input("x", &[2, 2]));
        assert_close("points", &points, &draw(golden::input("x", &[2, 2, 1, 1])).view([2, 2]), EXACT);
    }
}

#[test]
fn what_is_no_number_is_told_with_its_step() {
    let process = process(100);
    let broken = |config: &SamplerConfig, from: i64| {
        let mut net = |x: &Tensor, t: &Tensor| Ok(if t.int64_value(&[0]) < from { x / 0.0 * 0.0 } else { x * 0.5 });
        run(&process, config, &mut net, &x_t(), &mut noise, &mut |_, _, _| Ok(()))
    };
    for kind in KINDS {
        let error = broken(&of(kind, 100), 90).unwrap_err();
        assert!(matches!(&error, Error::Failed(text) if text.starts_with("step 25 of 100:")), "{error}");
        let error = broken(&of(kind, 10), 20).unwrap_err();
        assert!(error.to_string().starts_with("step 10 of 10:"), "{error}");
        assert!(broken(&of(kind, 10), 0).is_ok());
    }
}

#[test]
fn errors_of_others_stop_it() {
    let process = process(10);
    let config = of(Kind::Ddpm, 10);
    let text = |told: Result<Tensor>| told.unwrap_err().to_string();
    let mut fine = ideal(&process);
    assert_eq!(
        text(run(&process, &config, &mut |_, _| Err(user!("net")), &x_t(), &mut noise, &mut |_, _, _| Ok(()))),
        "net"
    );
    assert_eq!(text(run(&process, &config, &mut fine, &x_t(), &mut |_| Err(user!("z")), &mut |_, _, _| Ok(()))), "z");
    let mut each = |step, _: &Tensor, _: &Tensor| if step == 3 { Err(user!("each")) } else { Ok(()) };
    assert_eq!(text(run(&process, &config, &mut fine, &x_t(), &mut noise, &mut each)), "each");
    // A second half would be that of learned variances.
    let mut wide = |x: &Tensor, _: &Tensor| Ok(Tensor::cat(&[x, x, x], 1));
    let told = text(run(&process, &config, &mut wide, &x_t(), &mut noise, &mut |_, _, _| Ok(())));
    assert!(told.contains("3 channels for pictures of 1"), "{told}");
}

#[test]
fn settings_that_cannot_be_are_told() {
    let problems = |config: SamplerConfig, variance| {
        config.problems(1000, variance).into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    let fixed = |config| problems(config, Variance::Large);
    let ddpm = || SamplerConfig::of(Kind::Ddpm);
    let ddim = || SamplerConfig::of(Kind::Ddim);
    for fine in [
        ddpm(),
        ddim(),
        SamplerConfig::of(Kind::DpmPp),
        of(Kind::Ddpm, 1),
        of(Kind::DpmPp, 1000),
        SamplerConfig { eta: Some(1.0), spacing: Some(Spacing::Quadratic), ..ddim() },
        SamplerConfig { variance: Some(Variance::Small), ..ddpm() },
    ] {
        assert_eq!(fixed(fine.clone()), [""; 0], "{fine:?}");
    }
    assert_eq!(fixed(of(Kind::Ddpm, 0)), ["steps"]);
    assert_eq!(fixed(of(Kind::Ddim, 1001)), ["steps"]);
    for eta in [1.01, -0.1, f64::NAN] {
        assert_eq!(fixed(SamplerConfig { eta: Some(eta), ..ddim() }), ["eta"]);
    }
    assert_eq!(fixed(SamplerConfig { eta: Some(0.0), ..ddpm() }), ["eta"]);
    assert_eq!(fixed(SamplerConfig { variance: Some(Variance::Small), ..ddim() }), ["variance"]);
    assert_eq!(fixed(SamplerConfig { variance: Some(Variance::Learned), ..ddpm() }), ["variance"]);
    assert_eq!(problems(SamplerConfig { variance: Some(Variance::Small), ..ddpm() }, Variance::Learned), ["variance"]);
    assert_eq!(fixed(SamplerConfig { spacing: Some(Spacing::Uniform), ..SamplerConfig::of(Kind::DpmPp) }), ["spacing"]);
    assert_eq!(fixed(SamplerConfig { spacing: Some(Spacing::Quadratic), ..of(Kind::Ddim, 1) }), ["spacing"]);
}

#[test]
fn settings_are_read_by_their_names() {
    let read = |text: &str| serde_json::from_str::<SamplerConfig>(text);
    for (word, kind) in [("ddpm", Kind::Ddpm), ("ddim", Kind::Ddim), ("dpm++", Kind::DpmPp)] {
        assert_eq!(read(&format!(r#"{{"kind": "{word}"}}"#)).unwrap(), SamplerConfig::of(kind));
    }
    let whole = r#"{"kind": "ddim", "steps": 10, "eta": 0.5, "spacing": "quadratic", "clip": true}"#;
    assert_eq!(read(whole).unwrap().name(), "ddim_s10_eta0.5_quadratic_clipped");
    assert_eq!(read(r#"{"kind": "ddpm", "variance": "small"}"#).unwrap().variance, Some(Variance::Small));
    assert!(read(r#"{"kind": "euler"}"#).is_err() && read("{}").is_err());
}

/// DDIM, Appendix D.2, as its code has it.
#[test]
fn quadratic_steps_are_those_of_the_paper() {
    let quadratic = |steps| SamplerConfig { spacing: Some(Spacing::Quadratic), ..of(Kind::Ddim, steps) }.times(1000);
    assert_eq!(quadratic(10), [0, 9, 39, 88, 158, 246, 355, 483, 632, 800]);
    assert_eq!(quadratic(50)[..8], [0, 0, 1, 2, 5, 8, 11, 16]);
    assert_eq!(of(Kind::Ddim, 10).times(1000), (0..10).map(|i| 100 * i).collect::<Vec<_>>());
    assert_eq!(of(Kind::Ddpm, 300).times(1000), (0..300).map(|i| 3 * i).collect::<Vec<_>>());
}

/// A conditional network, `channels` of it: its answer to no class, number 9, is another.
fn conditional(x: &Tensor, t: &Tensor, class: &Tensor) -> Result<Tensor> {
    let class = (class.to_kind(Number::Double) * 0.1 + t * 0.001).view([-1, 1, 1, 1]);
    Ok(Tensor::cat(&[(x * 0.5 + &class).tanh(), x.sin() * class], 1))
}

#[test]
fn guidance_without_a_classifier() {
    let (x, t) = (x_t(), Tensor::from_slice(&[7_i64, 7]));
    let (class, null) = (Tensor::from_slice(&[3_i64, 5]), Tensor::from_slice(&[9_i64, 9]));
    let (told, free) = (conditional(&x, &t, &class).unwrap(), conditional(&x, &t, &null).unwrap());
    for scale in [0.0, 1.0, 3.0, -0.5] {
        let mut passes = 0;
        let net = |x: &Tensor, t: &Tensor, class: &Tensor| {
            passes += 1;
            assert_eq!(x.size()[0], if scale == 1.0 { 2 } else { 4 });
            conditional(x, t, class)
        };
        let found = classifier_free(net, &class, 9, scale)(&x, &t).unwrap();
        let mixed = &free + (&told - &free) * scale;
        assert_close("ε", &found.narrow(1, 0, 1), &mixed.narrow(1, 0, 1), EXACT);
        assert_close("v", &found.narrow(1, 1, 1), &told.narrow(1, 1, 1), EXACT);
        assert_eq!(passes, 1);
    }
    assert_eq!(classifier_free(conditional, &class, 9, 1.0)(&x, &t).unwrap(), told);
}

/// Mixed in whatever form, an answer means the same ε.
#[test]
fn guidance_does_not_depend_on_the_objective() {
    let (x, class) = (x_t(), Tensor::from_slice(&[3_i64, 5]));
    let t = Tensor::from_slice(&[40_i64, 40]);
    let eps = |objective| {
        let process = Process { objective, ..process(100) };
        let net = |x: &Tensor, t: &Tensor, class: &Tensor| {
            let eps = conditional(x, t, class)?.narrow(1, 0, 1);
            let epsilon = Process { objective: Objective::Epsilon, ..process.clone() };
            process.target(&epsilon.told(&eps, x, t, false)?.x0, &eps, t)
        };
        let plain = classifier_free(net, &class, 9, 4.0);
        let slope = golden::input("slope", &[6, 5]);
        let classifier =
            |x: &Tensor, _: &Tensor| Ok(x.flatten(1, -1).square().matmul(&slope).log_softmax(1, Number::Double));
        let class = Tensor::from_slice(&[1_i64, 4]);
        let guided = by_classifier(&process, plain, classifier, &class, 2.5)(&x, &t).unwrap();
        process.told(&guided, &x, &t, false).unwrap().eps
    };
    let epsilon = eps(Objective::Epsilon);
    assert_close("x_0", &eps(Objective::X0), &epsilon, EXACT);
    assert_close("v", &eps(Objective::V), &epsilon, EXACT);
}

/// For log p = softmax of a line the gradient is known: the class's weights less their mean under p.
#[test]
fn guidance_by_a_classifier() {
    let process = Process { variance: Variance::Learned, ..process(100) };
    let (x, t) = (x_t(), Tensor::from_slice(&[60_i64, 60]));
    let slope = golden::input("slope", &[6, 5]);
    let class = Tensor::from_slice(&[1_i64, 4]);
    let answer = golden::input("answer", &[2, 2, 2, 3]);
    let guided = |scale| {
        let logits = |x: &Tensor, _: &Tensor| Ok(x.flatten(1, -1).matmul(&slope).log_softmax(1, Number::Double));
        // As where pictures are drawn.
        let _quiet = tch::no_grad_guard();
        by_classifier(&process, |_, _| Ok(answer.shallow_clone()), logits, &class, scale)(&x, &t).unwrap()
    };
    let found = guided(2.0);
    assert!(!found.requires_grad());
    let p = x.flatten(1, -1).matmul(&slope).softmax(1, Number::Double);
    let gradient = slope.tr().index_select(0, &class) - p.matmul(&slope.tr());
    let bar = process.schedule.alpha_bar[60];
    let wanted = answer.narrow(1, 0, 1) - gradient.view(SHAPE) * (2.0 * (1.0 - bar).sqrt());
    assert_close("ε", &found.narrow(1, 0, 1), &wanted, EXACT);
    assert_close("v", &found.narrow(1, 1, 1), &answer.narrow(1, 1, 1), EXACT);
    assert_eq!(guided(0.0), answer);
    let constant = |_: &Tensor, _: &Tensor| Ok(Tensor::zeros([2, 5], (Number::Double, tch::Device::Cpu)));
    let told = by_classifier(&process, |_, _| Ok(answer.shallow_clone()), constant, &class, 1.0)(&x, &t);
    assert!(told.unwrap_err().to_string().contains("cannot guide"));
}

#[test]
fn what_is_known_stays_as_it_is() {
    let process = process(100);
    let (x0, mask) = (golden::input("known", &SHAPE), Tensor::from_slice(&[1.0, 0.0, 1.0, 0.0, 0.0, 1.0]).view([2, 3]));
    for kind in KINDS {
        let config = of(kind, 10);
        let filled = |mask: &Tensor, seen: &mut dyn FnMut(usize, &Tensor)| {
            let mut noise_of = |step: usize| Ok(golden::input(&format!("known{step}"), &SHAPE));
            let known = Known { x0: &x0, mask, noise: &mut noise_of };
            let mut step = 0;
            // What the network sees is x after the step before, and first x_T.
            let mut net = |x: &Tensor, t: &Tensor| {
                seen(step, x);
                step += 1;
                ideal(&process)(x, t)
            };
            inpaint(&process, &config, &mut net, &x_t(), known, &mut noise, &mut |_, _, _| Ok(())).unwrap()
        };
        let times = config.times(100);
        let found = filled(&mask, &mut |step, x| {
            let at = Tensor::full([2], times[9 - step] as i64, (Number::Int64, tch::Device::Cpu));
            let eps = golden::input(&format!("known{step}"), &SHAPE);
            assert_close("known", &(x * &mask), &(process.noised(&x0, &eps, &at).unwrap() * &mask), EXACT);
        });
        assert_close("known", &(&found * &mask), &(&x0 * &mask), EXACT);
        assert_close("all known", &filled(&mask.ones_like(), &mut |_, _| ()), &x0, EXACT);
        assert_close("nothing known", &filled(&mask.zeros_like(), &mut |_, _| ()), &sampled(&process, &config), EXACT);
        assert!((found - sampled(&process, &config)).abs().max().double_value(&[]) > 1e-3);
    }
}

#[test]
fn ways_between_two_pictures() {
    let process = process(100);
    let config = SamplerConfig::of(Kind::Ddpm);
    let from = |config: &SamplerConfig, t, x: &Tensor| {
        denoise(&process, config, &mut ideal(&process), x, t, &mut noise, &mut |_, _, _| Ok(()))
    };
    assert_close("all", &from(&config, 99, &x_t()).unwrap(), &sampled(&process, &config), EXACT);
    for (config, t, word) in [
        (&config, 100, "t is 100; it must be from 0 to 99"),
        (&of(Kind::Ddim, 30), 20, "sampler.steps is 30; it must be from 1 to 21"),
    ] {
        let told = from(config, t, &x_t()).unwrap_err().to_string();
        assert!(told.contains(word), "{told}");
    }
    let (a, b) = (golden::input("a", &SHAPE), golden::input("b", &SHAPE));
    let (ea, eb) = (golden::input("ea", &SHAPE), golden::input("eb", &SHAPE));
    let mixed = |share, t| between(&process, [&a, &b], [&ea, &eb], share, t).unwrap();
    let noised = |x, e, t| process.noised(x, e, &Tensor::from_slice(&[t, t])).unwrap();
    assert_close("0", &mixed(0.0, 50), &noised(&a, &ea, 50), EXACT);
    assert_close("1", &mixed(1.0, 50), &noised(&b, &eb, 50), EXACT);
    assert_close("¼", &mixed(0.25, 50), &(noised(&a, &ea, 50) * 0.75 + noised(&b, &eb, 50) * 0.25), EXACT);
    // Little noise, little change.
    let near = (from(&config, 0, &mixed(0.0, 0)).unwrap() - &a).abs().max().double_value(&[]);
    assert!(near < 0.05, "{near}");
}

/// DDIM, Eq. 67: as far from the middle as the ends are, and through them.
#[test]
fn ways_along_the_sphere() {
    let (a, b) = (golden::input("a", &SHAPE), golden::input("b", &SHAPE));
    let norm = |x: &Tensor| x.flatten(1, -1).square().sum_dim_intlist([1_i64].as_slice(), false, Number::Double).sqrt();
    let b = &b * (norm(&a) / norm(&b)).view([2, 1, 1, 1]);
    assert_close("0", &slerp(&a, &b, 0.0).unwrap(), &a, EXACT);
    assert_close("1", &slerp(&a, &b, 1.0).unwrap(), &b, EXACT);
    for share in [0.2, 0.5, 0.9] {
        let between = slerp(&a, &b, share).unwrap();
        assert_close("norm", &norm(&between), &norm(&a), EXACT);
        let cosine = |x: &Tensor, y: &Tensor| {
            (x * y).flatten(1, -1).sum_dim_intlist([1_i64].as_slice(), false, Number::Double) / (norm(x) * norm(y))
        };
        assert_close("angle", &cosine(&a, &between).acos(), &(cosine(&a, &b).acos() * share), EXACT);
        assert_close("same", &slerp(&a, &a, share).unwrap(), &a, EXACT);
    }
    assert!(slerp(&a, &golden::input("c", &[2, 1, 5, 5]), 0.5).is_err());
}

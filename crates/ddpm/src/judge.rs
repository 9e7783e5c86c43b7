//! What is measured and drawn of the model.

use std::cell::RefCell;
use std::path::Path;

use repro::config::Settings;
use repro::data::Split;
use repro::metrics::generative;
use repro::nn::Mode;
use repro::setup::Setup;
use repro::trainer::run::FeatureNetwork;
use repro::trainer::{Eval, Step};
use repro::weights::is_address;
use repro::{Result, figures, user};
use tch::{Device, Kind, Tensor};

use crate::config::{Config, ScoreConfig};
use crate::data::Examples;
use crate::draw::{Draw, nothing, pixels};
use crate::features::{FeatureNet, Features};
use crate::loss::Bound;
use crate::model::Model;
use crate::pictures;
use crate::process::Process;
use crate::sampler::SamplerConfig;

/// Test examples whose loss is told at a time, and pictures that are drawn at a time.
const TESTED: i64 = 128;
const AT_ONCE: u64 = 100;

/// By what the model is judged.
#[derive(Debug)]
pub struct Judge {
    features: Option<FeatureNet>,
    /// Of real pictures, once they are known.
    real: RefCell<Option<Tensor>>,
    /// Pictures of one fixed noise, by step.
    through: RefCell<Vec<(u64, Tensor)>>,
}

/// How much is measured and drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Test examples whose loss is told.
    pub tested: u64,
    /// Pictures that are drawn.
    pub shown: u64,
    /// Pictures that are followed through training.
    pub followed: u64,
    /// Pictures on the way between two.
    pub across: usize,
    /// Real pictures that samples are held against, at most.
    pub real: u64,
    /// Steps of T and of the samplers, at most.
    pub steps: usize,
}

impl Extent {
    /// That of a run.
    const WHOLE: Self = Extent { tested: 1024, shown: 64, followed: 8, across: 9, real: 10_000, steps: usize::MAX };
    /// That of a run of a single step, such as a dry run, which shall show that everything can be done.
    const BRIEF: Self = Extent { tested: 2, shown: 2, followed: 2, across: 2, real: 4, steps: 2 };

    /// No more steps than that.
    fn of(self, sampler: &SamplerConfig, whole: usize) -> SamplerConfig {
        let steps = sampler.length(whole);
        if steps <= self.steps { sampler.clone() } else { SamplerConfig { steps: Some(self.steps), ..sampler.clone() } }
    }
}

/// What is to be measured.
pub struct Asked<'a> {
    /// The experiment.
    pub config: &'a Config,
    /// Its schedule.
    pub process: &'a Process,
    /// The network as it is now.
    pub model: &'a Model,
    /// What it learns from.
    pub data: &'a Examples,
    /// What it is measured on.
    pub split: Split,
    /// When.
    pub at: &'a Step<'a>,
}

impl Judge {
    /// The network of `score.features`, where there is one.
    ///
    /// # Errors
    /// Those of [`FeatureNet::open`]; that there is no such file is noted.
    pub fn open(config: &Config, setup: &Setup) -> Result<Self> {
        let features = match &config.score {
            Some(ScoreConfig { features, .. }) if is_address(features.as_ref()) || Path::new(features).exists() => {
                Some(FeatureNet::open(features.as_ref(), setup.device)?)
            }
            Some(ScoreConfig { features, .. }) => {
                setup.note(format!(
                    "there is no {features} (score.features), so pictures are not judged here; once it is there, `ddpm eval --weights RUN` judges them"
                ));
                None
            }
            None => None,
        };
        features.iter().flat_map(|features| &features.notes).for_each(|note| setup.note(note.clone()));
        Ok(Judge { features, real: RefCell::default(), through: RefCell::default() })
    }

    /// Loss; in a full evaluation also the scores and pictures.
    ///
    /// # Errors
    /// Those of the data and of sampling.
    pub fn measure(&self, asked: &Asked, out: &mut Eval) -> Result<()> {
        loss(asked, out)?;
        if !out.full() {
            return Ok(());
        }
        let (shape, extent, whole) = (asked.config.shape()?, asked.extent(), asked.process.schedule.len());
        let sampler = extent.of(&asked.config.sampler, whole);
        let draw = asked.draw(&shape, &sampler, 1.0);
        if asked.config.is_toy() {
            return pictures::of_points(asked, &draw, out);
        }
        if out.is_final() {
            let shown = draw.pictures(0..extent.followed, None, &mut nothing)?;
            self.through.borrow_mut().push((asked.at.index + 1, pixels(&shown)?));
            self.draw(asked, &draw, out)?;
        }
        let Some(score) = &asked.config.score else { return Ok(()) };
        if let Some(n) = score.bits_per_dim.filter(|_| out.is_final()) {
            likelihood(asked, n, out)?;
        }
        let Some(features) = &self.features else { return Ok(()) };
        out.judged_by(FeatureNetwork { name: features.name.clone(), sha256: features.sha256.clone() });
        self.score(asked, features, &draw, "", out)?;
        if !out.is_final() {
            return Ok(());
        }
        for sampler in score.ladder.iter().flatten() {
            let taken = extent.of(sampler, whole);
            self.score(asked, features, &asked.draw(&shape, &taken, 1.0), &format!("_{}", sampler.name()), out)?;
        }
        for &guidance in score.guidance.iter().flatten() {
            let draw = asked.draw(&shape, &sampler, guidance);
            self.score(asked, features, &draw, &format!("_guided{guidance}"), out)?;
        }
        Ok(())
    }

    /// Samples against real pictures, by names that end in `suffix`.
    fn score(&self, asked: &Asked, features: &FeatureNet, draw: &Draw, suffix: &str, out: &mut Eval) -> Result<()> {
        let extent = asked.extent();
        let samples = match extent {
            Extent::BRIEF => extent.real,
            _ => samples(&asked.at.setup.settings)?,
        };
        let mut real = self.real.borrow_mut();
        let real = match real.as_ref() {
            Some(real) => real,
            None => {
                let images = asked.data.first(Split::Train, extent.real)?.image;
                real.insert(features.features(&pixels(&images)?)?.features)
            }
        };
        let (mut found, mut told) = (Vec::new(), Vec::new());
        for first in (0..samples).step_by(AT_ONCE as usize) {
            let x = draw.pictures(first..(first + AT_ONCE).min(samples), None, &mut nothing)?;
            let Features { features, probabilities } = features.features(&pixels(&x)?)?;
            found.push(features);
            told.push(probabilities);
        }
        let (fake, probabilities) = (Tensor::f_cat(&found, 0)?, Tensor::f_cat(&told, 0)?);
        // Coverage is compared between sets of one size.
        let some = real.narrow(0, 0, real.size()[0].min(fake.size()[0]));
        let coverage = generative::precision_recall(&some, &fake, generative::NEIGHBOURS)?;
        let scores = [
            ("fid", generative::fid(real, &fake)?),
            ("kid", generative::kid(real, &fake)?),
            ("is", generative::inception_score(&probabilities)?),
            ("precision", coverage.precision),
            ("recall", coverage.recall),
        ];
        generative::few(real, &fake).into_iter().for_each(|warning| asked.at.setup.note(warning));
        scores.into_iter().for_each(|(name, value)| out.scalar(format!("{name}{suffix}"), value));
        Ok(())
    }

    /// Grid, trajectory, noising, the picture through training.
    fn draw(&self, asked: &Asked, draw: &Draw, out: &mut Eval) -> Result<()> {
        let extent = asked.extent();
        out.picture("samples", || {
            let x = draw.pictures(0..extent.shown, None, &mut nothing)?;
            figures::framed(&pixels(&x)?, 8, scale(&x), &[], &[], "Pictures of the model")
        })?;
        out.picture("progress", || pictures::progress(draw))?;
        out.picture("forward", || pictures::forward(asked.process, &asked.data.first(asked.split, 6)?.image))?;
        if draw.is_deterministic() {
            out.picture("interpolations", || pictures::ways(draw, extent.shown.min(6), extent.across))?;
        }
        out.picture("through_training", || {
            let through = self.through.borrow();
            let all = Tensor::f_cat(&through.iter().map(|(_, x)| x).collect::<Vec<_>>(), 0)?;
            let steps: Vec<_> = through.iter().map(|(step, _)| step.to_string()).collect();
            let title = format!("The same noise, row by row after steps {}", steps.join(", "));
            figures::framed(&all, extent.followed as u32, scale(&all), &[], &[], &title)
        })
    }
}

/// How large a pixel is drawn.
pub(crate) fn scale(x: &Tensor) -> u32 {
    (112 / x.size().last().copied().unwrap_or(1).max(1)).clamp(1, 4) as u32
}

/// `eval.samples`.
fn samples(settings: &Settings) -> Result<u64> {
    settings.eval.samples.ok_or_else(|| user!("eval.samples is missing: write how many pictures are judged"))
}

impl<'a> Asked<'a> {
    fn extent(&self) -> Extent {
        if self.at.total <= 1 { Extent::BRIEF } else { Extent::WHOLE }
    }

    fn draw(&self, shape: &'a [i64], sampler: &'a SamplerConfig, guidance: f64) -> Draw<'a> {
        let (process, model, null) = (self.process, self.model, self.config.null_class());
        Draw { process, model, sampler, shape, setup: self.at.setup, null, guidance, kind: Kind::Float }
    }

    /// ε for the test examples from place `first` on at a step, functions of all three.
    fn noise(&self, like: &Tensor, step: usize, first: u64) -> Result<Tensor> {
        let shape = &like.size()[1..];
        let draw = Draw { shape, ..self.draw(shape, &self.config.sampler, 1.0) };
        draw.noise(usize::MAX / 2 + step, first..first + like.size()[0] as u64)
    }
}

/// The loss of test examples, t being spread evenly over them, and L_simple by quarters of t; the same noise at each call.
fn loss(asked: &Asked, out: &mut Eval) -> Result<()> {
    let Asked { config, process, model, data, split, .. } = asked;
    let images = data.first(*split, asked.extent().tested)?;
    let (n, steps) = (images.image.size()[0], process.schedule.len() as i64);
    // Neighbours in the set have far-off t, so that each quarter sees all classes.
    let t_of = |place: i64| (place * 389 % n) * steps / n;
    let class = config.null_class().map(|_| &images.label);
    let (mut all, mut quarters) = (0.0, [(0.0, 0_u64); 4]);
    for first in (0..n).step_by(TESTED as usize) {
        let many = TESTED.min(n - first);
        let x0 = images.image.narrow(0, first, many);
        let t: Vec<i64> = (first..first + many).map(t_of).collect();
        let at = Tensor::f_from_slice(&t)?;
        let noise = asked.noise(&x0, 0, first as u64)?;
        let x_t = process.noised(&x0, &noise, &at)?;
        let class = class.map(|class| class.narrow(0, first, many));
        let output = model.forward(&x_t, &at, class.as_ref(), Mode::Eval)?;
        let losses = process.losses(config.loss.kind, &output, &x0, &x_t, &noise, &at)?;
        all += losses.loss.sum(Kind::Double).f_double_value(&[])?;
        let simple = Vec::<f64>::try_from(losses.simple.to_device(Device::Cpu).to_kind(Kind::Double))?;
        for (t, simple) in t.iter().zip(simple) {
            let quarter = &mut quarters[(4 * t / steps) as usize];
            *quarter = (quarter.0 + simple, quarter.1 + 1);
        }
    }
    out.scalar("loss", all / n as f64);
    for (quarter, (sum, count)) in quarters.into_iter().enumerate().filter(|(_, (_, count))| *count > 0) {
        out.scalar(format!("loss_q{}", quarter + 1), sum / count as f64);
    }
    Ok(())
}

/// Bits a number of the first `n` test pictures, in the two parts of §4.3.
fn likelihood(asked: &Asked, n: u64, out: &mut Eval) -> Result<()> {
    let bound = bound(asked, n)?;
    out.scalar("bits_per_dim", bound.total());
    out.scalar("rate", bound.rate());
    out.scalar("distortion", bound.distortion());
    out.scalar("rmse", bound.rmse.first().copied().unwrap_or_default());
    out.picture("progressive", || figures::plot(&pictures::progressive(&bound)))
}

/// Eq. 5 of the first `n` test pictures.
fn bound(asked: &Asked, n: u64) -> Result<Bound> {
    let extent = asked.extent();
    let (images, whole) = (asked.data.first(asked.split, n.min(extent.real))?, asked.process.schedule.len());
    let taken: Vec<usize> = if extent == Extent::BRIEF { vec![0, whole - 1] } else { (0..whole).collect() };
    let process = Process { schedule: asked.process.schedule.strided(&taken), ..asked.process.clone() };
    let class = asked.config.null_class().map(|_| &images.label);
    let (count, mut found) = (images.image.size()[0], Bound::default());
    for first in (0..count).step_by(AT_ONCE as usize) {
        let many = (AT_ONCE as i64).min(count - first);
        let x0 = images.image.narrow(0, first, many);
        let class = class.map(|class| class.narrow(0, first, many));
        let part =
            process.bound(&x0, &mut |x_t, t| asked.model.forward(x_t, t, class.as_ref(), Mode::Eval), &mut |t| {
                asked.noise(&x0, t + 1, first as u64)
            })?;
        found.add(&part, many as f64 / count as f64);
    }
    Ok(found)
}

//! Pre-training: pictures are told from what is left of them.

use rand_chacha::ChaCha8Rng;
use repro::classifier::Card;
use repro::config::Settings;
use repro::data::{Images, Pictures, Source, Split};
use repro::nn::Mode;
use repro::optim::{Group, Optimizer, Params};
use repro::probe::{Trunk, check_later};
use repro::random::{normal, rng, uniform};
use repro::setup::Setup;
use repro::trainer::{Eval, Means, Plan, Recipe, Scalars, Step};
use repro::weights::{self, Named, together};
use repro::{Result, figures};
use tch::{Device, Kind, Tensor, nn};

use crate::autoencoder::{self, AutoEncoder};
use crate::config::{Config, Named as Which};
use crate::masking::{Masking, Sampling};
use crate::model::{Mae, initialise, patchify, pixels, unpatchify};
use crate::trunk::Encoder;

/// Test pictures whose loss is told, and so many of them at a time.
const TESTED: (u64, i64) = (1024, 64);
/// Test pictures that are drawn, and steps between two codes.
const SHOWN: (i64, i64) = (12, 9);

/// How long the stage lasts, and how fast it learns.
pub fn plan(config: &Config, settings: &Settings) -> Plan {
    Plan::first(settings, (config.optim.lr(256), config.optim.lr(settings.batch_size)))
}

/// The paper's encoder and decoder, and what they are to tell.
#[derive(Debug)]
pub struct Masked {
    /// Encoder and decoder.
    pub mae: Mae,
    /// How removed patches lie.
    sampling: Sampling,
    /// Patches along an edge.
    grid: i64,
    /// r
    pub ratio: f64,
    /// Whether the target is normalised.
    pub norm_pix: bool,
}

/// Encoder and decoder, of patches or of pixels.
#[derive(Debug)]
pub enum Net {
    /// The paper's.
    Masked(Box<Masked>),
    /// What came before.
    Dense {
        /// Encoder and decoder.
        net: AutoEncoder,
        /// Numbers of a picture.
        pixels: i64,
    },
}

/// A picture, what is left of it, and what is made of that, `[N, C, H, W]` each and centred as the picture is.
#[derive(Debug)]
pub struct Told {
    /// Share of the picture that is told; the rest is as it was.
    pub share: f64,
    /// With grey (0) where a patch is removed.
    pub seen: Tensor,
    /// The removed patches as predicted, the others as they are; of dense layers, all of it as predicted.
    pub told: Tensor,
}

impl Net {
    /// The network of a configuration.
    ///
    /// # Errors
    /// A network that there is not.
    pub fn new(root: &nn::Path, config: &Config) -> Result<Self> {
        Ok(match config.named()? {
            Which::Masked(variant) => Net::Masked(Box::new(Masked {
                mae: Mae::new(root, variant, &config.decoder(&variant), config.mask_tokens())
                    .recomputing(config.model.recompute.unwrap_or(false)),
                sampling: config.model.sampling.unwrap_or(Sampling::Random),
                grid: variant.grid(),
                ratio: config.mask_ratio(),
                norm_pix: config.norm_pix(),
            })),
            Which::Dense(kind) => {
                let pixels = config.pixels()?;
                let net = AutoEncoder::new(root, kind, pixels, &config.layers(), config.mask_ratio());
                Net::Dense { net, pixels }
            }
        })
    }

    /// The random numbers of one picture.
    fn draw(&self, rng: &mut ChaCha8Rng) -> Vec<f32> {
        match self {
            Net::Masked(net) => net.sampling.noise(net.grid, net.ratio, rng),
            Net::Dense { net, pixels } => {
                let (count, is_normal) = net.draws(*pixels);
                (0..count).map(|_| (if is_normal { normal(rng) } else { uniform(rng, 0.0, 1.0) }) as f32).collect()
            }
        }
    }

    /// Those of `n` pictures from place `start` of the whole batch on: functions of (seed, step, place), whatever the processes.
    pub fn draws(&self, seed: u64, step: u64, start: i64, n: i64, device: Device) -> Result<Tensor> {
        let of = |place: i64| self.draw(&mut rng(seed, step, place as u64, "mask"));
        let numbers: Vec<f32> = (start..start + n).flat_map(of).collect();
        Ok(Tensor::f_from_slice(&numbers)?.f_view([n, numbers.len() as i64 / n])?.f_to_device(device)?)
    }

    /// The loss, `[]`.
    fn loss(&self, image: &Tensor, draws: &Tensor, mode: Mode) -> Result<Tensor> {
        Ok(match self {
            Net::Masked(net) => {
                let Masked { mae, ratio, norm_pix, .. } = net.as_ref();
                let masking = Masking::of(draws, *ratio)?;
                let pred = mae.forward(image, &masking, mode);
                mae.loss(image, &pred, &masking, *norm_pix)
            }
            Net::Dense { net, .. } => net.forward(image, draws).loss,
        })
    }

    /// What is left of pictures and what is made of it.
    ///
    /// # Errors
    /// libtorch's.
    pub fn tell(&self, image: &Tensor, draws: &Tensor) -> Result<Told> {
        Ok(match self {
            Net::Masked(net) => {
                let Masked { mae, ratio, norm_pix, .. } = net.as_ref();
                let masking = Masking::of(draws, *ratio)?;
                let pred = mae.forward(image, &masking, Mode::Eval).to_kind(image.kind());
                let (true_patches, mask) = (patchify(image, mae.patch()), &masking.mask.unsqueeze(-1));
                // A normalised patch says nothing of its mean and deviation: here it is given those that it has.
                let told = pixels(&pred, &true_patches, *norm_pix) * mask + &true_patches * (1.0 - mask);
                let seen = true_patches * (1.0 - mask);
                let share = masking.mask.mean(Kind::Double).f_double_value(&[])?;
                Told { share, seen: unpatchify(&seen, mae.patch()), told: unpatchify(&told, mae.patch()) }
            }
            Net::Dense { net, .. } => {
                let autoencoder::Told { seen, picture, .. } = net.forward(image, draws);
                Told { share: 1.0, seen, told: picture }
            }
        })
    }
}

/// Encoder and decoder learn together.
#[derive(Debug)]
pub struct Pretrain {
    config: Config,
    net: Net,
    store: nn::VarStore,
    params: Params,
    optimizer: Optimizer,
    lr: f64,
}

impl Recipe for Pretrain {
    type Config = Config;
    type Batch = Images;
    type Data = Pictures;

    fn data(config: &Config, setup: &Setup) -> Result<Pictures> {
        let data = Encoder::pictures(config, setup, &config.augment, &config.schedule)?;
        let n = data.len();
        let tuned = config.finetune.iter().map(|f| ("finetune", f.known(n), f.batch_size, f.length, &f.schedule));
        check_later(Encoder::judged(config), n, tuned)?;
        Ok(data)
    }

    fn build(config: &Config, setup: &Setup, init: Option<&Named>) -> Result<Self> {
        let store = nn::VarStore::new(setup.device);
        let net = Net::new(&store.root(), config)?;
        let model: Named = store.variables().into_iter().collect();
        if let Net::Masked(_) = net {
            initialise(&model)?;
        }
        weights::begin(&model, init, &[], setup)?;
        let decay = config.optim.weight_decay();
        // As timm groups them: vectors do not decay, tokens do.
        let params = config.optim.params(&store, |_, t| Some(Group::of(if t.dim() > 1 { decay } else { 0.0 })))?;
        let optimizer = config.optim.build(&params)?;
        let lr = config.optim.lr(setup.settings.batch_size);
        Ok(Pretrain { config: config.clone(), net, store, params, optimizer, lr })
    }

    fn step(&mut self, batch: Images, _: &Pictures, at: &Step) -> Result<Scalars> {
        let lr = self.lr * self.config.schedule.factor(at.index, at.total, at.steps_per_epoch);
        let (n, Setup { settings, rank, device, .. }) = (batch.image.size()[0], at.setup);
        let draws = self.net.draws(settings.seed, at.index, *rank as i64 * n, n, *device)?;
        let mut means = Means::default();
        self.params.zero_grad();
        for (start, n, share) in at.parts(n) {
            let part = batch.image.narrow(0, start, n);
            let loss = at.autocast(|| self.net.loss(&part, &draws.narrow(0, start, n), Mode::Train))??;
            at.micro(&loss, share)?;
            means.add(share, [("loss", &loss)]);
        }
        at.average(&self.params)?;
        self.optimizer.step(lr)?;
        Ok(means.with(&[("lr", lr)]))
    }

    /// The loss of test pictures, with the same draws at each call, and what is made of the first of them.
    fn evaluate(&mut self, data: &Pictures, split: Split, at: &Step, out: &mut Eval) -> Result<()> {
        if at.setup.rank > 0 {
            return Ok(());
        }
        let (mut sum, mut seen) = (0.0, 0);
        for images in data.in_order(split, 0..data.split_len(split).min(TESTED.0), TESTED.1) {
            let image = images?.image;
            let n = image.size()[0];
            let draws = self.net.draws(at.setup.settings.seed, u64::MAX, seen, n, at.setup.device)?;
            sum += n as f64 * self.net.loss(&image, &draws, Mode::Eval)?.f_double_value(&[])?;
            if seen == 0 {
                let shown = n.min(SHOWN.0);
                self.draw(data, &image.narrow(0, 0, shown), &draws.narrow(0, 0, shown), at, out)?;
            }
            seen += n;
        }
        out.scalar("loss", sum / seen.max(1) as f64);
        Ok(())
    }

    fn state(&self) -> Named {
        let model = self.store.variables().into_iter().collect();
        together([("model", model), ("optim", self.optimizer.state())])
    }

    fn card(&self, data: &Pictures) -> Option<String> {
        Card::of(data).ok()?.text()
    }

    fn has_validation(data: &Pictures) -> bool {
        data.has_validation()
    }
}

impl Pretrain {
    fn draw(&self, data: &Pictures, image: &Tensor, draws: &Tensor, at: &Step, out: &mut Eval) -> Result<()> {
        let shown = |image: &Tensor| -> Result<Tensor> { Ok(data.normaliser().undo(image)?.f_to_device(Device::Cpu)?) };
        let Told { seen, told, .. } = self.net.tell(image, draws)?;
        out.picture("reconstruction", || triples(&shown(image)?, &shown(&seen)?, &shown(&told)?))?;
        let Net::Dense { net, .. } = &self.net else { return Ok(()) };
        out.picture("walk", || {
            let code = net.encoder.forward(image).0;
            let (rows, steps) = (code.size()[0] / 2, SHOWN.1);
            let (from, to) = (code.narrow(0, 0, rows).unsqueeze(1), code.narrow(0, rows, rows).unsqueeze(1));
            let share = Tensor::linspace(0.0, 1.0, steps, (Kind::Float, code.device())).view([1, steps, 1]);
            let between = (&from * (1.0f64 - &share) + to * share).flatten(0, 1);
            let size = [&[rows * steps][..], &image.size()[1..]].concat();
            let title = "From the code of one test picture to that of another, in even steps";
            figures::framed(&shown(&net.decode(&between).sigmoid().view(&size[..]))?, steps as u32, 2, &[], &[], title)
        })?;
        if self.config.model.name != "vae" {
            return Ok(());
        }
        out.picture("samples", || {
            let seed = at.setup.settings.seed;
            let codes = self.net.draws(seed, u64::MAX, 0, SHOWN.1 * SHOWN.1, image.device())?;
            let size = [&[SHOWN.1 * SHOWN.1][..], &image.size()[1..]].concat();
            let made = net.decode(&codes).sigmoid().view(&size[..]);
            figures::framed(
                &shown(&made)?,
                SHOWN.1 as u32,
                2,
                &[],
                &[],
                "Pictures of codes that are drawn from N(0, 1)",
            )
        })
    }
}

/// Rows of three: pictures, what is left of them, what is made of it; `[N, C, H, W]` in [0, 1] each.
///
/// # Errors
/// Those of drawing.
pub fn triples(image: &Tensor, seen: &Tensor, told: &Tensor) -> Result<image::RgbImage> {
    let scale = (192 / image.size()[3]).clamp(1, 4) as u32;
    let (n, size) = (image.size()[0], image.size());
    let all = Tensor::f_stack(&[image, seen, told], 1)?.f_reshape([3 * n, size[1], size[2], size[3]])?;
    let columns = if n > 2 { 6 } else { 3 };
    figures::framed(&all, columns, scale, &[], &[], "Pictures, what is left of them, and what is made of that")
}

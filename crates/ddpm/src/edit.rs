//! Pictures out of pictures, by the loop of [`sampler`](crate::sampler): parts filled in, ways between two.

use repro::{Result, user};
use tch::{Device, Kind, Tensor};

use crate::process::Process;
use crate::sampler::{Each, Network, Noise, SamplerConfig, run, walk};

/// What is known of pictures that are to be completed.
pub struct Known<'a> {
    /// The pictures, `[N, C, H, W]`; where nothing is known any numbers.
    pub x0: &'a Tensor,
    /// 1 where they are known, 0 elsewhere, in the pictures' kind; its shape broadcasts to theirs.
    pub mask: &'a Tensor,
    /// ε of the known part after step k, and for k = 0 before the first.
    pub noise: Noise<'a>,
}

impl Known<'_> {
    /// x, its known part replaced by one of q(x_s | x_0) (Eq. 4); for the clean picture by x_0.
    fn put(&mut self, process: &Process, step: usize, s: Option<usize>, x: &Tensor) -> Result<Tensor> {
        let part = match s {
            Some(s) => process.noised(self.x0, &(self.noise)(step)?, &whole(x, s)?)?,
            None => self.x0.shallow_clone(),
        };
        Ok(x + (part - x) * self.mask)
    }
}

/// `[N]` times t, on the CPU.
fn whole(x: &Tensor, t: usize) -> Result<Tensor> {
    Ok(Tensor::f_full([x.size()[0]], t as i64, (Kind::Int64, Device::Cpu))?)
}

/// Inpainting (arXiv:2011.13456, Appendix I.2; arXiv:2201.09865, Eq. 8, without its repetitions): [`run`], but after each step the known part of x is
/// replaced by noised pictures. What is known comes back as it was.
///
/// # Errors
/// Those of [`run`] and of the known part's noise.
pub fn inpaint(
    process: &Process,
    config: &SamplerConfig,
    net: Network,
    x: &Tensor,
    mut known: Known,
    noise: Noise,
    each: Each,
) -> Result<Tensor> {
    let first = config.times(process.schedule.len()).last().copied();
    let x = known.put(process, 0, first, x)?;
    walk(process, config, net, &x, noise, &mut |step, s, x| known.put(process, step, s, &x), each)
}

/// x_0 of x_t, for t from 0: [`run`] over the first t + 1 steps, of which `config` takes its S. Of two pictures' x_t, mixed, it makes the pictures
/// between them (Figure 8).
///
/// # Errors
/// A t beyond the process, more steps than are left; those of [`run`].
pub fn denoise(
    process: &Process,
    config: &SamplerConfig,
    net: Network,
    x: &Tensor,
    t: usize,
    noise: Noise,
    each: Each,
) -> Result<Tensor> {
    let last = process.schedule.len() - 1;
    if t > last {
        return Err(user!("t is {t}; it must be from 0 to {last}"));
    }
    let left: Vec<usize> = (0..=t).collect();
    let process = Process { schedule: process.schedule.strided(&left), ..process.clone() };
    if let Some((key, message)) = config.problems(left.len(), process.variance).first() {
        return Err(user!("sampler.{key} {message}, from t = {t} on"));
    }
    run(&process, config, net, x, noise, each)
}

/// x_t between two pictures for [`denoise`]: (1 − λ) x_t + λ x'_t, noised by `noise` each (§4.4).
///
/// # Errors
/// Those of [`Process::noised`].
pub fn between(process: &Process, ends: [&Tensor; 2], noise: [&Tensor; 2], share: f64, t: usize) -> Result<Tensor> {
    let t = whole(ends[0], t)?;
    let (from, to) = (process.noised(ends[0], noise[0], &t)?, process.noised(ends[1], noise[1], &t)?);
    Ok(&from + (to - &from) * share)
}

/// Between two x_T along the sphere (DDIM, Eq. 67), for each of N: sin((1 − λ)θ)/sin θ a + sin(λθ)/sin θ b, θ being the angle between them. Where they
/// point the same way, or opposite ways, it is a straight line.
///
/// # Errors
/// libtorch's: of a and b that have not one shape.
pub fn slerp(a: &Tensor, b: &Tensor, share: f64) -> Result<Tensor> {
    let of = |x: &Tensor| -> Result<Tensor> {
        let rest: Vec<i64> = (1..x.dim() as i64).collect();
        Ok(x.f_sum_dim_intlist(&rest[..], true, x.kind())?)
    };
    let cosine = of(&a.f_mul(b)?)? / (of(&a.square())? * of(&b.square())?).sqrt();
    let angle = cosine.clamp(-1.0, 1.0).acos();
    let sine = angle.sin();
    let straight = sine.lt(1e-6);
    let part =
        |share: f64| ((&angle * share).sin() / &sine).where_self(&straight.logical_not(), &sine.full_like(share));
    Ok(a * part(1.0 - share) + b * part(share))
}

//! Automatic mixed precision for a scope.

use std::ffi::c_int;
use std::marker::PhantomData;

use tch::{Device, Kind};

use crate::{Error, Result, ffi};

/// While this lives, this thread's matrix products and convolutions on the device run in a 16-bit kind.
///
/// Dropping it restores what was before; leaving the outermost one forgets the low-precision copies of the weights.
/// Guards nest, and must be dropped in the reverse order of their making.
#[must_use = "autocast ends when the guard is dropped"]
#[derive(Debug)]
pub struct Autocast {
    cuda: bool,
    was_enabled: bool,
    old_kind: c_int,
    /// The state is the thread's, so the guard may not leave it.
    _not_send: PhantomData<*const ()>,
}

impl Autocast {
    /// Starts autocasting to `Kind::BFloat16` or `Kind::Half` on a CPU or CUDA device.
    /// # Errors
    /// Any other kind or device.
    pub fn new(device: Device, kind: Kind) -> Result<Self> {
        let cuda = match device {
            Device::Cpu => false,
            Device::Cuda(_) => true,
            other => {
                return Err(Error(format!("autocast is for CPU and CUDA, not {other:?}")));
            }
        };
        // The numbers of c10::ScalarType.
        let kind = match kind {
            Kind::Half => 5,
            Kind::BFloat16 => 15,
            other => {
                return Err(Error(format!("autocast is to BFloat16 or Half, not {other:?}")));
            }
        };
        let (mut was_enabled, mut old_kind) = (false, 0);
        // SAFETY: both out-pointers outlive the call.
        ffi::check(unsafe { ffi::ext_autocast_enter(cuda, kind, &mut was_enabled, &mut old_kind) })?;
        Ok(Self { cuda, was_enabled, old_kind, _not_send: PhantomData })
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // SAFETY: plain numbers that `ext_autocast_enter` gave on this thread. It sets thread-locals, so failure has no remedy.
        unsafe { ffi::ext_autocast_leave(self.cuda, self.was_enabled, self.old_kind) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Tensor;

    #[test]
    fn matmul_runs_in_the_asked_kind_and_the_guard_restores() {
        let a = Tensor::ones([4, 4], (Kind::Float, Device::Cpu));
        let product = || a.matmul(&a).kind();
        assert_eq!(product(), Kind::Float);
        {
            let _outer = Autocast::new(Device::Cpu, Kind::BFloat16).unwrap();
            assert_eq!(product(), Kind::BFloat16);
            {
                let _inner = Autocast::new(Device::Cpu, Kind::Half).unwrap();
                assert_eq!(product(), Kind::Half);
            }
            assert_eq!(product(), Kind::BFloat16);
        }
        assert_eq!(product(), Kind::Float);
    }

    #[test]
    fn a_panic_inside_restores() {
        let a = Tensor::ones([4, 4], (Kind::Float, Device::Cpu));
        let outcome = std::panic::catch_unwind(|| {
            let _guard = Autocast::new(Device::Cpu, Kind::BFloat16).unwrap();
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(outcome.is_err());
        assert_eq!(a.matmul(&a).kind(), Kind::Float);
    }

    #[test]
    fn weights_changed_between_two_scopes_are_seen() {
        // The cache holds copies of leaves that require gradients; a stale copy would repeat the first product.
        let weight = Tensor::ones([2, 2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let x = Tensor::ones([2, 2], (Kind::Float, Device::Cpu));
        let product = || {
            let _guard = Autocast::new(Device::Cpu, Kind::BFloat16).unwrap();
            x.matmul(&weight).double_value(&[0, 0])
        };
        assert_eq!(product(), 2.0);
        let _ = tch::no_grad(|| weight.shallow_clone().fill_(3.0));
        assert_eq!(product(), 6.0);
    }

    #[test]
    fn other_kinds_and_devices_are_refused() {
        assert!(Autocast::new(Device::Cpu, Kind::Float).is_err());
        assert!(Autocast::new(Device::Mps, Kind::Half).is_err());
    }
}

//! Operations on whole lists of tensors: one call a step, however many parameters there are.

use std::borrow::Borrow;
use std::cell::Cell;
use std::ptr;

use tch::Tensor;

use crate::{Result, ffi};

/// Handles to tensors, kept on the C++ side, so that a training step passes one pointer and allocates nothing here.
///
/// The list shares the tensors' memory: changes in place are seen on both sides. The operations that speak of gradients take each
/// tensor's own `.grad()` and leave out tensors that have none.
#[derive(Debug)]
pub struct TensorList {
    pub(crate) list: ptr::NonNull<ffi::List>,
    /// Whether the processes of a group have found their lists alike.
    pub(crate) compared: Cell<bool>,
}

// SAFETY: the list holds reference-counted handles with atomic counts, as tch's `Tensor` does, which is `Send` and not `Sync` as well.
unsafe impl Send for TensorList {}

impl Drop for TensorList {
    fn drop(&mut self) {
        // SAFETY: made by `ext_list_new`, freed once.
        unsafe { ffi::ext_list_free(self.list.as_ptr()) };
    }
}

/// Numbers of one stochastic gradient descent step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// In [0, 1); 0 needs no buffers.
    pub momentum: f64,
    /// Added to the gradient as `weight_decay · parameter`.
    pub weight_decay: f64,
    /// Nesterov's momentum.
    pub nesterov: bool,
}

/// Numbers of one AdamW step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adamw {
    /// Decay of the first moment, in [0, 1).
    pub beta1: f64,
    /// Decay of the second moment, in [0, 1).
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// The parameter first shrinks by `1 − lr · weight_decay`.
    pub weight_decay: f64,
}

impl TensorList {
    /// A list of the same tensors in the same order.
    /// # Errors
    /// No memory.
    pub fn new<T: Borrow<Tensor>>(tensors: &[T]) -> Result<Self> {
        let pointers: Vec<_> = tensors.iter().map(|tensor| tensor.borrow().as_ptr()).collect();
        // SAFETY: live `at::Tensor*`s; the C side copies the handles.
        let list = unsafe { ffi::ext_list_new(pointers.as_ptr(), pointers.len()) };
        let list = ptr::NonNull::new(list).ok_or_else(ffi::last_error)?;
        Ok(Self { list, compared: Cell::new(false) })
    }

    /// Makes every gradient undefined.
    pub fn clear_grads(&self) {
        // SAFETY: a live list.
        unsafe { ffi::ext_clear_grads(self.list.as_ptr()) }
    }

    /// One step of stochastic gradient descent in place, as `torch.optim.SGD`:
    /// g ← grad + weight_decay·p; buffer ← momentum·buffer + g; p ← p − lr·(buffer, or g + momentum·buffer with Nesterov).
    ///
    /// `buffers` start at zero and are `None` if and only if the momentum is 0. `lr` holds one number: on CUDA a float32 on the
    /// parameters' device, on CPU any floating kind.
    /// # Errors
    /// Buffers missing, superfluous, or unlike their parameters; parameters of several kinds or devices.
    pub fn fused_sgd(&self, buffers: Option<&TensorList>, lr: &Tensor, sgd: Sgd) -> Result<()> {
        if buffers.is_some() != (sgd.momentum != 0.0) {
            return Err(crate::Error(
                "momentum buffers are for a momentum other than 0, and only for that".to_string(),
            ));
        }
        let buffers = buffers.map_or(ptr::null_mut(), |list| list.list.as_ptr());
        // SAFETY: live lists (or null, which the C side expects for no momentum) and a live tensor.
        ffi::check(unsafe {
            ffi::ext_fused_sgd(self.list.as_ptr(), buffers, lr.as_ptr(), sgd.momentum, sgd.weight_decay, sgd.nesterov)
        })
    }

    /// One step of AdamW in place, as `torch.optim.AdamW`. The moments start at zero and are like the parameters; `steps` are
    /// float32 counts of one number for each parameter, on its device, and rise by one here. `lr` as in [`Self::fused_sgd`].
    /// # Errors
    /// State unlike its parameters; parameters of several kinds or devices.
    pub fn fused_adamw(
        &self,
        exp_avgs: &TensorList,
        exp_avg_sqs: &TensorList,
        steps: &TensorList,
        lr: &Tensor,
        adamw: Adamw,
    ) -> Result<()> {
        let Adamw { beta1, beta2, eps, weight_decay } = adamw;
        // SAFETY: live lists and a live tensor.
        ffi::check(unsafe {
            ffi::ext_fused_adamw(
                self.list.as_ptr(),
                exp_avgs.list.as_ptr(),
                exp_avg_sqs.list.as_ptr(),
                steps.list.as_ptr(),
                lr.as_ptr(),
                beta1,
                beta2,
                eps,
                weight_decay,
            )
        })
    }

    /// Moves each tensor towards its source in place: t ← t + weight·(source − t).
    /// # Errors
    /// Lists of different lengths; sources of another shape, kind or device.
    pub fn foreach_lerp(&self, sources: &TensorList, weight: f64) -> Result<()> {
        // SAFETY: live lists.
        ffi::check(unsafe { ffi::ext_foreach_lerp(self.list.as_ptr(), sources.list.as_ptr(), weight) })
    }

    /// A step with a rate for each weight, in place: p ← p + value · grad · factor.
    /// # Errors
    /// Factors unlike their parameters; parameters of several kinds or devices.
    pub fn foreach_addcmul_grads(&self, factors: &TensorList, value: f64) -> Result<()> {
        // SAFETY: live lists.
        ffi::check(unsafe { ffi::ext_foreach_addcmul_grads(self.list.as_ptr(), factors.list.as_ptr(), value) })
    }

    /// The L2 norm of all gradients together: one number, left on their device; 0 on the CPU where there are none.
    /// # Errors
    /// Gradients on several devices.
    pub fn grad_norm(&self) -> Result<Tensor> {
        // SAFETY: a live list.
        ffi::tensor(unsafe { ffi::ext_grad_norm(self.list.as_ptr()) })
    }

    /// Multiplies every gradient by `factor` (one number on their device) in place.
    /// # Errors
    /// A factor of several numbers or on another device.
    pub fn scale_grads(&self, factor: &Tensor) -> Result<()> {
        // SAFETY: a live list and a live tensor.
        ffi::check(unsafe { ffi::ext_scale_grads(self.list.as_ptr(), factor.as_ptr()) })
    }
}

#[cfg(test)]
mod tests;

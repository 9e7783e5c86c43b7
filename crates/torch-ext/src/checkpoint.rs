//! Gradient checkpointing (arXiv:1604.06174).

use std::ffi::{CString, c_void};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use tch::Tensor;
use torch_sys::C_tensor;

use crate::{Result, ffi};

type Part = Box<dyn Fn(&Tensor) -> Tensor>;

/// `part(x)`, of which x alone is kept: for the gradient it is computed again, under the autocast and with the random numbers of the first time,
/// and its parameters get the gradients that they would have had.
///
/// It is run where the gradient is wanted, on this thread, or, for a GPU, on libtorch's while this one waits. It must take gradients to
/// parameters that are leaves of the graph. Where x takes no gradient nothing is computed twice.
/// # Errors
/// Of the first pass; one of the second comes from the call of `backward`. A part that panics is an error that says what the panic said.
pub fn checkpoint(x: &Tensor, part: impl Fn(&Tensor) -> Tensor + 'static) -> Result<Tensor> {
    let closure: *mut Part = Box::into_raw(Box::new(Box::new(part)));
    // SAFETY: `x` is live; the C side owns the closure from now on and hands it to `drop_part` once.
    ffi::tensor(unsafe { ffi::ext_checkpoint(x.as_ptr(), closure.cast(), call_part, drop_part) })
}

/// Runs a part on a tensor that is given away, and gives the result away; null if it panics.
extern "C" fn call_part(closure: *mut c_void, x: *mut C_tensor) -> *mut C_tensor {
    // SAFETY: `closure` is what `checkpoint` made, and lives until `drop_part`; x was made with `new at::Tensor` for this call.
    let (part, x) = unsafe { (&*closure.cast::<Part>(), Tensor::from_ptr(x)) };
    match catch_unwind(AssertUnwindSafe(|| part(&x))) {
        Ok(mut y) => {
            let pointer = y.as_mut_ptr();
            mem::forget(y);
            pointer
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            let text = CString::new(text.unwrap_or("a part that is computed again panicked")).unwrap_or_default();
            // SAFETY: the text is copied.
            unsafe { ffi::ext_fail(text.as_ptr()) };
            ptr::null_mut()
        }
    }
}

extern "C" fn drop_part(closure: *mut c_void) {
    // SAFETY: called once, with what `checkpoint` made.
    drop(unsafe { Box::from_raw(closure.cast::<Part>()) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Autocast;
    use std::cell::Cell;
    use std::rc::Rc;
    use tch::{Device, Kind};

    const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

    /// The gradient is taken outside of the scope of autocast, as a step takes it.
    #[test]
    fn autocast_is_that_of_the_first_pass() {
        let w = Tensor::randn([8, 8], F32).set_requires_grad(true);
        let x = Tensor::randn([8, 8], F32).set_requires_grad(true);
        let kinds = Rc::new(Cell::new([Kind::Float; 2]));
        let (part_w, seen, place) = (w.shallow_clone(), Rc::clone(&kinds), Cell::new(0));
        let part = move |x: &Tensor| {
            let y = x.matmul(&part_w);
            let mut found = seen.get();
            found[place.get()] = y.kind();
            place.set(1);
            seen.set(found);
            y
        };
        let y = {
            let _guard = Autocast::new(Device::Cpu, Kind::BFloat16).unwrap();
            checkpoint(&x, part).unwrap()
        };
        y.to_kind(Kind::Float).sum(Kind::Float).backward();
        assert_eq!(kinds.get(), [Kind::BFloat16; 2]);
        assert_eq!(w.grad().kind(), Kind::Float);
    }

    #[test]
    fn without_gradients_nothing_is_kept_and_closures_are_dropped() {
        let held = Rc::new(());
        let x = Tensor::ones([2], F32);
        let part = |held: &Rc<()>| {
            let held = Rc::clone(held);
            move |x: &Tensor| {
                let _ = &held;
                x * 2.0
            }
        };
        assert!(!checkpoint(&x, part(&held)).unwrap().requires_grad());
        let leaf = x.set_requires_grad(true);
        assert!(!tch::no_grad(|| checkpoint(&leaf, part(&held)).unwrap()).requires_grad());
        let y = checkpoint(&leaf, part(&held)).unwrap();
        assert_eq!(Rc::strong_count(&held), 2);
        drop(y);
        assert_eq!(Rc::strong_count(&held), 1);
        let failed = checkpoint(&leaf, |x| x.matmul(&Tensor::ones([3, 3], F32))).unwrap_err();
        assert!(failed.to_string().contains("size of tensor") || failed.to_string().contains("mat1"), "{failed}");
    }
}

//! The C side: `ext.cpp`, `checkpoint.cpp`, `pool.cpp`, `norm.cpp`, `group_norm.cpp` and `distributed.cpp`. 0 means success; a null pointer or any other number means that `ext_error` has the reason.

use std::ffi::{CStr, c_char, c_int, c_void};

use torch_sys::C_tensor;

use crate::{Error, Result};

/// A `std::vector<at::Tensor>`.
#[repr(C)]
pub(crate) struct List {
    _opaque: [u8; 0],
}

/// A c10d store and its Gloo process group.
#[repr(C)]
pub(crate) struct Group {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn ext_error() -> *const c_char;
    pub(crate) fn ext_list_new(tensors: *const *const C_tensor, count: usize) -> *mut List;
    pub(crate) fn ext_list_free(list: *mut List);
    pub(crate) fn ext_clear_grads(params: *const List);
    pub(crate) fn ext_fused_sgd(
        params: *const List,
        buffers: *const List,
        lr: *const C_tensor,
        momentum: f64,
        weight_decay: f64,
        nesterov: bool,
    ) -> c_int;
    pub(crate) fn ext_fused_adamw(
        params: *const List,
        exp_avgs: *const List,
        exp_avg_sqs: *const List,
        steps: *const List,
        lr: *const C_tensor,
        beta1: f64,
        beta2: f64,
        eps: f64,
        weight_decay: f64,
    ) -> c_int;
    pub(crate) fn ext_foreach_lerp(targets: *const List, sources: *const List, weight: f64) -> c_int;
    pub(crate) fn ext_foreach_addcmul_grads(params: *const List, factors: *const List, value: f64) -> c_int;
    pub(crate) fn ext_grad_norm(params: *const List) -> *mut C_tensor;
    pub(crate) fn ext_scale_grads(params: *const List, factor: *const C_tensor) -> c_int;
    pub(crate) fn ext_channels_last(tensor: *const C_tensor) -> *mut C_tensor;
    pub(crate) fn ext_leaky_relu(tensor: *const C_tensor, slope: f64) -> *mut C_tensor;
    pub(crate) fn ext_avg_pool_2x2(image: *const C_tensor) -> *mut C_tensor;
    pub(crate) fn ext_batch_norm_act(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        running_mean: *const C_tensor,
        running_var: *const C_tensor,
        train: bool,
        update: bool,
        momentum: f64,
        eps: f64,
        shortcut: *const C_tensor,
        relu: bool,
    ) -> *mut C_tensor;
    pub(crate) fn ext_group_norm_act(
        x: *const C_tensor,
        groups: i64,
        weight: *const C_tensor,
        bias: *const C_tensor,
        eps: f64,
        silu: bool,
    ) -> *mut C_tensor;
    pub(crate) fn ext_is_channels_last(tensor: *const C_tensor, answer: *mut bool) -> c_int;
    pub(crate) fn ext_autocast_enter(cuda: bool, kind: c_int, was_enabled: *mut bool, old_kind: *mut c_int) -> c_int;
    pub(crate) fn ext_autocast_leave(cuda: bool, was_enabled: bool, old_kind: c_int) -> c_int;
    pub(crate) fn ext_cuda_peak_memory(index: c_int, bytes: *mut u64) -> c_int;
    pub(crate) fn ext_cuda_reset_peak_memory(index: c_int) -> c_int;
    pub(crate) fn ext_fail(message: *const c_char);
    pub(crate) fn ext_checkpoint(
        x: *const C_tensor,
        closure: *mut c_void,
        call: extern "C" fn(*mut c_void, *mut C_tensor) -> *mut C_tensor,
        drop: extern "C" fn(*mut c_void),
    ) -> *mut C_tensor;
    pub(crate) fn ext_group_new(
        host: *const c_char,
        port: u16,
        rank: c_int,
        world: c_int,
        prefix: *const c_char,
        timeout_seconds: i64,
    ) -> *mut Group;
    pub(crate) fn ext_group_free(group: *mut Group);
    pub(crate) fn ext_group_average_grads(group: *mut Group, params: *const List, check: bool) -> c_int;
    pub(crate) fn ext_group_broadcast(group: *mut Group, tensors: *const List) -> c_int;
    pub(crate) fn ext_group_all_gather(group: *mut Group, tensor: *const C_tensor) -> *mut C_tensor;
    pub(crate) fn ext_group_gather(group: *mut Group, rows: *const C_tensor, check: bool) -> *mut C_tensor;
    pub(crate) fn ext_group_meet(group: *mut Group, tag: *const c_char) -> c_int;
}

/// What the last failed call on this thread said.
pub(crate) fn last_error() -> Error {
    // SAFETY: a thread-local C string that lives until the next failure on this thread; it is copied here.
    let text = unsafe { CStr::from_ptr(ext_error()) };
    Error(text.to_string_lossy().into_owned())
}

/// Turns a status into a `Result`.
pub(crate) fn check(status: c_int) -> Result<()> {
    if status == 0 { Ok(()) } else { Err(last_error()) }
}

/// Takes over a tensor that the C side made.
pub(crate) fn tensor(pointer: *mut C_tensor) -> Result<tch::Tensor> {
    if pointer.is_null() {
        return Err(last_error());
    }
    // SAFETY: the C side made it with `new at::Tensor` and gave it away, which is what tch frees.
    Ok(unsafe { tch::Tensor::from_ptr(pointer) })
}

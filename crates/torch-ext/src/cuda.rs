//! Opening the CUDA half of libtorch at run time, so that one binary serves machines with and without a GPU.

use std::ffi::{CStr, c_int};
use std::sync::OnceLock;

/// Loads libtorch's CUDA half where there is an NVIDIA driver; `Err` says in a sentence why there is no CUDA.
///
/// Must be called before the first question about CUDA, since libtorch remembers its absence. Later calls repeat the first answer.
/// Without a driver this costs one failed look-up: the 350 MB library is not touched.
pub fn load_cuda() -> Result<(), String> {
    static ANSWER: OnceLock<Result<(), String>> = OnceLock::new();
    ANSWER.get_or_init(open_cuda).clone()
}

fn open_cuda() -> Result<(), String> {
    open(c"libcuda.so.1", libc::RTLD_LAZY).map_err(|reason| format!("no NVIDIA driver: {reason}"))?;
    // The linker drops libtorch_cuda, since nothing names its symbols. Loaded globally, it registers itself with libtorch.
    open(c"libtorch_cuda.so", libc::RTLD_NOW | libc::RTLD_GLOBAL)
        .map_err(|reason| format!("an NVIDIA driver is here, but libtorch's CUDA part does not load: {reason}"))?;
    if tch::Cuda::is_available() {
        Ok(())
    } else {
        Err("the NVIDIA driver shows no usable GPU, or is too old".to_string())
    }
}

/// Keeps the library open for the life of the process.
fn open(name: &CStr, flags: c_int) -> Result<(), String> {
    // SAFETY: `name` is a C string; the libraries' constructors are those that linking them would run.
    let handle = unsafe { libc::dlopen(name.as_ptr(), flags) };
    if !handle.is_null() {
        return Ok(());
    }
    // SAFETY: dlerror gives null or a C string that is valid until this thread's next dl call; it is copied here.
    unsafe {
        let reason = libc::dlerror();
        Err(if reason.is_null() {
            format!("{name:?} does not open")
        } else {
            CStr::from_ptr(reason).to_string_lossy().into_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_cuda_agrees_with_libtorch_and_repeats_itself() {
        let first = load_cuda();
        assert_eq!(first.is_ok(), tch::Cuda::is_available());
        assert_eq!(first, load_cuda());
    }

    #[test]
    fn a_missing_library_is_named() {
        let reason = open(c"libnothing-of-this-name.so", libc::RTLD_LAZY).unwrap_err();
        assert!(reason.contains("libnothing-of-this-name.so"), "{reason}");
    }
}

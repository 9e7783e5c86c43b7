//! Memory: what is held at most, and what is kept.

use std::fs;

use tch::Device;

use crate::{Error, Result, ffi};

/// The most memory held at once since the start or the last [`reset_peak_memory`], in bytes.
///
/// CUDA: what tensors held, by libtorch's own count. CPU: the resident memory of the whole process (`VmHWM` of Linux).
/// # Errors
/// CUDA is not loaded, the system does not tell, or another kind of device.
pub fn peak_memory(device: Device) -> Result<u64> {
    match device {
        Device::Cpu => {
            let status = fs::read_to_string("/proc/self/status")
                .map_err(|e| Error(format!("cannot read /proc/self/status: {e}")))?;
            high_water(&status).ok_or_else(|| Error("/proc/self/status has no VmHWM in kB".to_string()))
        }
        Device::Cuda(index) => {
            let mut bytes = 0;
            // SAFETY: `bytes` outlives the call.
            ffi::check(unsafe { ffi::ext_cuda_peak_memory(index as i32, &mut bytes) })?;
            Ok(bytes)
        }
        other => Err(unsupported(other)),
    }
}

/// Starts a new measurement for [`peak_memory`] at what is held now.
/// # Errors
/// As [`peak_memory`]; on CPU also where the system does not allow it (`/proc/self/clear_refs`).
pub fn reset_peak_memory(device: Device) -> Result<()> {
    match device {
        // 5 is the kernel's number for "reset the peak resident size".
        Device::Cpu => fs::write("/proc/self/clear_refs", "5")
            .map_err(|e| Error(format!("cannot write /proc/self/clear_refs: {e}"))),
        // SAFETY: a plain number.
        Device::Cuda(index) => ffi::check(unsafe { ffi::ext_cuda_reset_peak_memory(index as i32) }),
        other => Err(unsupported(other)),
    }
}

/// From now on the process keeps the memory of freed tensors of up to 32 MB for the next ones, up to `bytes` in all.
///
/// glibc otherwise may hand the large tensors of a training step back to the system at its end, and each page of the next step's
/// costs a fault: 3,900 faults and a fifth of the time of a LeNet-5 step of 256 pictures on one thread, or none, as the heap happens
/// to lie (an environment variable more decides it). Other C libraries have no such setting, and nothing changes there.
pub fn keep_freed_memory(bytes: i32) {
    #[cfg(target_env = "gnu")]
    // SAFETY: plain numbers; glibc allows the call at any time. A refused number leaves things as they were.
    unsafe {
        // The largest that glibc takes.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, bytes);
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = bytes;
}

fn unsupported(device: Device) -> Error {
    Error(format!("peak memory is known for CPU and CUDA, not {device:?}"))
}

/// Bytes of the line `VmHWM:     1234 kB`.
fn high_water(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    #[test]
    fn status_lines_are_read() {
        assert_eq!(high_water("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n"), Some(2048 * 1024));
        assert_eq!(high_water("VmRSS:\t 1 kB\n"), None);
        assert_eq!(high_water("VmHWM:\t 1 pages\n"), None);
    }

    #[test]
    fn the_peak_grows_by_what_was_allocated() {
        let bytes = 256 << 20;
        let before = peak_memory(Device::Cpu).unwrap();
        drop(Tensor::ones([bytes / 4], (Kind::Float, Device::Cpu)));
        let after = peak_memory(Device::Cpu).unwrap();
        // Other tests may have held memory of their own, never this much.
        assert!(after >= before + bytes as u64 / 2, "{before} → {after}");
    }

    #[test]
    fn cuda_without_cuda_is_an_error() {
        if crate::load_cuda().is_err() {
            assert!(peak_memory(Device::Cuda(0)).is_err());
            assert!(reset_peak_memory(Device::Cuda(0)).is_err());
        }
    }
}

//! `loss.chunk` keeps the matrix of similarities out of memory. Alone in its program: the peak is that of the whole process.

use std::process::Command;

use simclr::loss::Loss;
use tch::{Device, Kind, Tensor};

/// The most memory that the process has had so far, in megabytes.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// By how many megabytes the peak rises in the loss of so many rows and its gradient.
fn rise(rows: i64, chunk: Option<i64>) -> f64 {
    let z = Tensor::randn([rows, 128], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let before = peak();
    let loss = Loss::NtXent { temperature: 0.5, normalise: true, chunk };
    loss.of(&z, 0, |rows| Ok(rows.shallow_clone())).unwrap().backward();
    assert!(z.grad().abs().max().double_value(&[]) > 0.0);
    peak() - before
}

#[test]
fn a_part_of_the_matrix_at_a_time_takes_a_part_of_the_memory() {
    // Freed tensors go back to the system, so that the peak is what is needed and not how the heap is cut up.
    const FREED: &str = "MALLOC_MMAP_THRESHOLD_";
    if std::env::var_os(FREED).is_none() {
        let mut again = Command::new(std::env::current_exe().unwrap());
        let output = again.arg("--nocapture").env(FREED, "1000000").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    // What libtorch needs once.
    rise(64, None);
    // The matrix of 6,000 rows has 137 MB, that of 3,000 a quarter of it.
    let (small, large) = (rise(3000, Some(200)), rise(6000, Some(200)));
    let whole = rise(6000, None);
    assert!(small < 60.0 && large < 60.0, "in chunks: {small} MB and {large} MB");
    assert!(whole > 250.0, "the whole matrix: {whole} MB more");
}

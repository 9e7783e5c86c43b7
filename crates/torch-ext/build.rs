//! Compiles the C++ side against the libtorch that tch uses, and lets cargo's own runs find that libtorch.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs, io, os::unix::fs::symlink};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    for path in [
        "all.cpp",
        "checkpoint.cpp",
        "ext.h",
        "ext.cpp",
        "pool.cpp",
        "group_norm.cpp",
        "norm.cpp",
        "parallel.h",
        "norm_kernels.h",
        "norm_kernels.cpp",
        "distributed.cpp",
        "gloo",
    ] {
        println!("cargo:rerun-if-changed=src/{path}");
    }

    // torch-sys says `links = "tch"` and hands its libtorch folder to direct dependants under this name.
    let lib =
        fs::canonicalize(env::var("DEP_TCH_LIBTORCH_LIB").map_err(|_| "torch-sys did not say where libtorch is")?)?;
    let include = lib.join("../include");
    cc::Build::new()
        .cpp(true)
        .warnings(false)
        .flag("-std=c++17")
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .include("src/gloo")
        .files(["src/all.cpp", "src/norm_kernels.cpp"])
        .compile("torch_ext");
    let version = version(&fs::read_to_string(include.join("torch/headeronly/version.h"))?);
    println!("cargo:rustc-env=LIBTORCH_VERSION={}", version.ok_or("libtorch's version.h tells no version")?);
    for name in ["torch", "torch_cpu", "c10"] {
        println!("cargo:rustc-link-lib={name}");
    }

    // Cargo puts link-search folders on the library path of run, test and doctest, but only those inside its target folder.
    let link = PathBuf::from(env::var("OUT_DIR")?).join("libtorch");
    match fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => symlink(&lib, &link)?,
    }
    println!("cargo:rustc-link-search=native={}", link.display());
    Ok(())
}

/// `2.11.0` from the header's `#define TORCH_VERSION_MAJOR 2` and its sisters.
fn version(header: &str) -> Option<String> {
    let part = |name: &str| {
        let name = format!("#define TORCH_VERSION_{name} ");
        header.lines().find_map(|line| line.strip_prefix(&name)).map(str::trim)
    };
    Some(format!("{}.{}.{}", part("MAJOR")?, part("MINOR")?, part("PATCH")?))
}

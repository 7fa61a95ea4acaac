//! Puts the BPF object where the agent embeds it: `$WEIR_BPF_OBJECT`, or what `cargo xtask build` has left in the target directory; and
//! leaves out of a release what nobody reads there.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed=WEIR_BPF_OBJECT");
    println!("cargo::rerun-if-changed=lean.ld");
    if env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        leave_out_unwinding();
    }
    match embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

fn embed() -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: this runs under cargo only")?);
    let object = env::var_os("WEIR_BPF_OBJECT").map(PathBuf::from).or_else(|| in_target_directory(&out));
    let missing = || "the BPF object is missing: run \"cargo xtask build\"".to_owned();
    let object = object.filter(|path| path.is_file()).ok_or_else(missing)?;
    println!("cargo::rerun-if-changed={}", object.display());
    let copied = fs::copy(&object, out.join("weir-meter.o"));
    copied.map(|_| ()).map_err(|error| format!("copy the BPF object {}: {error}", object.display()))
}

/// A tenth of the binary. By the linker, because the compiler would have to be told for build scripts as well, which do unwind.
fn leave_out_unwinding() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/lean.ld");
    for argument in [&format!("-Wl,-T,{script}"), "-Wl,--no-eh-frame-hdr"] {
        println!("cargo::rustc-link-arg-bin=weir={argument}");
    }
}

/// The target directory is one of `OUT_DIR`'s ancestors, wherever the caller has moved it.
fn in_target_directory(out: &Path) -> Option<PathBuf> {
    out.ancestors().map(|directory| directory.join("bpf/weir-meter.o")).find(|path| path.is_file())
}

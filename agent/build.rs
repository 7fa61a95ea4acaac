//! Puts the BPF object where the agent can embed it: `$WEIR_BPF_OBJECT`, or what `cargo xtask build` has left.
use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=WEIR_BPF_OBJECT");
    let object = match env::var_os("WEIR_BPF_OBJECT") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../target/bpf/weir-meter.o"),
    };
    println!("cargo::rerun-if-changed={}", object.display());
    let embedded = PathBuf::from(env::var("OUT_DIR")?).join("weir-meter.o");
    fs::copy(&object, embedded)
        .map_err(|error| format!("no BPF object at {}: {error}; `cargo xtask build` makes one", object.display()))?;
    Ok(())
}

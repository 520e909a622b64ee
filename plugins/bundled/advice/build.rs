//! Compiles the terms of all languages into one table.

use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folders = [Path::new("../../../sdk/intent/data"), Path::new("data")];
    for folder in folders {
        println!("cargo::rerun-if-changed={}", folder.display());
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("terms.bin"), safelmm_intent::compile_folder(&folders)?)?;
    Ok(())
}

//! The committed bindings are those of the contract.

use std::error::Error;
use std::path::Path;

use wit_bindgen_core::wit_parser::Resolve;
use wit_bindgen_core::{Files, WorldGenerator};

/// Before the generated text: lints are the generator's affair, and every export is in its macro.
const HEADER: &str = "\
// Made from sdk/wit/policy.wit by `UPDATE_BINDINGS=1 cargo test -p safelmm-plugin --test bindings`. Not edited by hand.
#![allow(warnings, clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::panic, unsafe_code)]
#![cfg_attr(rustfmt, rustfmt_skip)]
";

fn generated() -> Result<String, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(root.join("../wit"))?;
    let world = resolve.select_world(&[package], Some("policy-with-vocabulary"))?;
    let options = wit_bindgen_rust::Opts {
        additional_derive_attributes: vec!["PartialEq".into()],
        default_bindings_module: Some("$crate::bindings".into()),
        export_macro_name: Some("export".into()),
        generate_all: true,
        pub_export_macro: true,
        runtime_path: Some("::wit_bindgen::rt".into()),
        ..Default::default()
    };
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files)?;
    let (_, text) = files.iter().find(|(name, _)| name.ends_with(".rs")).ok_or("no Rust was generated")?;
    Ok(format!("{HEADER}{}", std::str::from_utf8(text)?))
}

#[test]
fn bindings_are_those_of_the_contract() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bindings.rs");
    let expected = generated().unwrap();
    if std::env::var_os("UPDATE_BINDINGS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(
        committed == expected,
        "src/bindings.rs is not what sdk/wit/policy.wit asks for; \
         `UPDATE_BINDINGS=1 cargo test -p safelmm-plugin --test bindings` makes it again"
    );
}

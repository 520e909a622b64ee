//! Rules of the house, checked on the sources: which crate may use which, where `unsafe` may stand, and what every crate
//! says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The crates of this workspace that a crate may use. What is not listed here may use nothing of the house.
const MAY_USE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("datastore", &[]),
    ("plugins", &[]),
    ("sdk/client", &[]),
    ("sdk/intent", &["safelmm-plugin"]),
    ("sdk/learned", &[]),
    ("sdk/plugin", &[]),
    ("trainer", &["safelmm-model", "safelmm-datastore", "safelmm-learned"]),
    ("server", &["safelmm-model", "safelmm-datastore", "safelmm-plugins"]),
];

/// Policies may use these, and nothing may use them but the tests and benches.
const POLICIES: (&str, &[&str]) = ("plugins/bundled/", &["safelmm-plugin", "safelmm-intent", "safelmm-learned"]);

/// Packages that look at all the others.
const OUTSIDE: &[&str] = &["tests", "benches"];

/// Made by a generator, whose `unsafe` is its own affair.
const GENERATED: &[&str] = &["sdk/plugin/src/bindings.rs"];

/// Where `unsafe` may stand: kernels, mapping, and compiled policies that this server wrote itself.
const UNSAFE: &[&str] = &[
    "datastore/src/kernels/avx2.rs",
    "datastore/src/kernels/avx512.rs",
    "datastore/src/kernels/mod.rs",
    "datastore/src/kernels/prefetch.rs",
    "datastore/src/mapping.rs",
    "model/src/kernels/cuda/mod.rs",
    "model/src/kernels/matrix.rs",
    "model/src/kernels/pool.rs",
    "model/src/kernels/quantized/avx2.rs",
    "model/src/kernels/quantized/avx512.rs",
    "model/src/kernels/quantized/neon.rs",
    "model/src/kernels/quantized/product.rs",
    "model/src/mapping.rs",
    "plugins/src/host/cache.rs",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn members() -> BTreeMap<String, toml::Table> {
    let read = |path: PathBuf| -> toml::Table { fs::read_to_string(path).unwrap().parse().unwrap() };
    let workspace = read(root().join("Cargo.toml"));
    let members = workspace["workspace"]["members"].as_array().unwrap();
    members
        .iter()
        .map(|m| m.as_str().unwrap().to_owned())
        .map(|m| (m.clone(), read(root().join(&m).join("Cargo.toml"))))
        .collect()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            rust_files(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_crate_imports_upward() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    for (member, manifest) in members() {
        if OUTSIDE.contains(&&member[..]) {
            continue;
        }
        let listed = match allowed.get(&member[..]) {
            Some(listed) => listed,
            None if member.starts_with(POLICIES.0) => POLICIES.1,
            None => panic!("{member} is in no list of rules.rs"),
        };
        let allowed: BTreeSet<&str> = listed.iter().copied().collect();
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let used = manifest.get(section).and_then(|d| d.as_table()).into_iter().flat_map(|d| d.keys());
            for name in used.filter(|name| name.starts_with("safelmm")) {
                assert!(allowed.contains(&name[..]), "{member} must not use {name}");
            }
        }
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    for (member, manifest) in members() {
        let inherits = manifest.get("lints").and_then(|l| l.get("workspace")).and_then(|w| w.as_bool());
        assert_eq!(inherits, Some(true), "{member}/Cargo.toml lacks `[lints] workspace = true`");
        assert!(manifest["package"].get("description").is_some(), "{member} says nothing of itself");
    }
}

#[test]
fn unsafe_stands_in_kernel_and_mapping_files_alone_each_time_with_its_reason() {
    // Put together, so that this file does not find itself.
    let (word, allow) = (["un", "safe"].concat(), ["allow(un", "safe_code)"].concat());
    let mut files = Vec::new();
    rust_files(&root(), &mut files);
    assert!(files.len() > 50, "only {} files were found", files.len());
    let mut used = BTreeSet::new();
    for file in files {
        let name = file.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        if GENERATED.contains(&&name[..]) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let opens = [" {", " fn ", " impl "].iter().any(|after| code.contains(&format!("{word}{after}")));
            if !opens && !code.contains(&allow) {
                continue;
            }
            assert!(UNSAFE.contains(&&name[..]), "{name}:{}: {line}", number + 1);
            used.insert(name.clone());
            let reasons = lines[number.saturating_sub(4)..number].iter().any(|l| l.contains("// SAFETY:"));
            assert!(!opens || reasons, "{name}:{}: no SAFETY comment above", number + 1);
        }
    }
    assert_eq!(used.into_iter().collect::<Vec<_>>(), UNSAFE, "the list of files is longer than it need be");
}

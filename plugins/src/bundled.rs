//! The policies that come with the server, compiled. `plugins/bundled/build.sh` makes them and writes their digests down.

use include_dir::{Dir, include_dir};

static COMPONENTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/bundled/components");

/// A policy that comes with the server.
#[derive(Clone, Copy, Debug)]
pub struct Bundled {
    /// Its name: `bundled:NAME` in configurations.
    pub name: &'static str,
    /// SHA-256 of the component, as `sha256:HEX`: it is held against this whenever it is loaded.
    pub digest: &'static str,
    /// The component.
    pub bytes: &'static [u8],
}

/// All of them, by name.
pub fn all() -> Vec<Bundled> {
    let digests = COMPONENTS.get_file("digests.toml").and_then(|file| file.contents_utf8()).unwrap_or_default();
    let digest = |line: &'static str| {
        let (name, digest) = line.split_once(" = ").filter(|_| !line.starts_with('#'))?;
        let bytes = COMPONENTS.get_file(format!("{name}.wasm"))?.contents();
        Some(Bundled { name, digest: digest.trim_matches('"'), bytes })
    };
    let mut all: Vec<Bundled> = digests.lines().filter_map(digest).collect();
    all.sort_by_key(|bundled| bundled.name);
    all
}

/// The one with this name.
pub fn bundled(name: &str) -> Option<Bundled> {
    all().into_iter().find(|bundled| bundled.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_component_has_its_digest_and_every_digest_its_component() {
        let named: Vec<&str> = all().iter().map(|bundled| bundled.name).collect();
        let mut files: Vec<String> = COMPONENTS
            .files()
            .filter_map(|file| Some(file.path().to_str()?.strip_suffix(".wasm")?.to_owned()))
            .collect();
        files.sort();
        assert_eq!(named, files);
        assert!(all().iter().all(|bundled| bundled.digest.starts_with("sha256:") && bundled.digest.len() == 71));
    }
}

//! `safelmm plugin new`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use include_dir::{Dir, DirEntry, include_dir};

use super::{Language, NewArgs, PluginFailure};
use crate::cli::say;

/// One folder for each language. Wherever a path or a file has [`NAME`] or [`SNAKE_NAME`], the plugin's name stands in its
/// place.
static TEMPLATES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk/templates");

/// The kit that plugins in Rust are written with: they have a copy of it.
static KIT: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk/plugin/src");

/// What brings a compiler for them.
const TOOLCHAIN: &str = include_str!("../../../../sdk/toolchain.sh");

/// The contract, of which the others have a copy.
const CONTRACT: &str = include_str!("../../../../sdk/wit/policy.wit");

const NAME: &str = "{{name}}";
/// The name with underscores.
const SNAKE_NAME: &str = "{{snake}}";
const LONGEST_NAME: usize = 64;

/// Writes the folder of a new plugin into the current one.
pub(super) fn new(NewArgs { name, lang }: &NewArgs) -> Result<(), PluginFailure> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let begins = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if !begins || name.len() > LONGEST_NAME || !name.bytes().all(fits) || name.ends_with('-') {
        return Err(PluginFailure::Name(name.clone()));
    }
    let folder = Path::new(name);
    if folder.symlink_metadata().is_ok() {
        return Err(PluginFailure::Exists(folder.to_owned()));
    }
    let language = match lang {
        Language::Rust => "rust",
        Language::Python => "python",
        Language::Js => "js",
        Language::C => "c",
    };
    let template = TEMPLATES.get_dir(language).map(files).unwrap_or_default();
    for (path, bytes) in template {
        let within = path.strip_prefix(language).unwrap_or(path);
        let path = named(&within.to_string_lossy(), name);
        match std::str::from_utf8(bytes) {
            Ok(text) => write(&folder.join(path), named(text, name).as_bytes())?,
            Err(_) => write(&folder.join(path), bytes)?,
        }
    }
    if *lang == Language::Rust {
        for (path, bytes) in files(&KIT) {
            write(&folder.join("safelmm-plugin/src").join(path), bytes)?;
        }
        let path = folder.join("toolchain.sh");
        write(&path, TOOLCHAIN.as_bytes())?;
        let executable = fs::set_permissions(&path, fs::Permissions::from_mode(0o755));
        executable.map_err(|source| PluginFailure::Write { path, source })?;
    } else {
        write(&folder.join("wit/policy.wit"), CONTRACT.as_bytes())?;
    }
    say(&format!("{name}/ is there; {name}/README.md says how to build it\n"));
    Ok(())
}

fn files<'a>(dir: &'a Dir<'a>) -> Vec<(&'a Path, &'a [u8])> {
    let of_entry = |entry: &'a DirEntry<'a>| match entry {
        DirEntry::Dir(inner) => files(inner),
        DirEntry::File(file) => vec![(file.path(), file.contents())],
    };
    dir.entries().iter().flat_map(of_entry).collect()
}

fn named(text: &str, name: &str) -> String {
    text.replace(NAME, name).replace(SNAKE_NAME, &name.replace('-', "_"))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), PluginFailure> {
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, bytes));
    written.map_err(|source| PluginFailure::Write { path: path.to_owned(), source })
}

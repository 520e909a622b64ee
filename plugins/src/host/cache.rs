//! Compiled code on disk, so that a server need not compile its policies each time it starts.
//!
//! Compiled code runs outside the sandbox's checks, so only files are read that this user wrote: in a folder that nobody
//! else can write to, under a name made of the component's digest and of what makes compiled code compatible, and ended by
//! a checksum. Whatever is otherwise is compiled anew.

#![allow(unsafe_code, reason = "the runtime takes compiled code on trust")]

use std::fs::{self, DirBuilder, File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::sandbox::SandboxError;

const CHECKSUM_BYTES: usize = 32;
/// Others may neither write nor replace what is read here.
const OTHERS_WRITE: u32 = 0o022;

/// A folder of compiled components. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cache(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    /// Whoever runs this process.
    owner: u32,
    /// Tells apart what other versions or settings of the runtime compiled.
    compatibility: u64,
}

impl Cache {
    /// Opens the folder, or makes it.
    pub fn new(folder: PathBuf, engine: &Engine) -> Result<Cache, SandboxError> {
        let fail = |reason: String| SandboxError::Cache { folder: folder.clone(), reason };
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|error| fail(error.to_string()))?;
        let owner = owner(&folder).map_err(|error| fail(error.to_string()))?;
        let metadata = fs::metadata(&folder).map_err(|error| fail(error.to_string()))?;
        if !is_own(&metadata, owner) {
            let reason = "others can write to it, and could have this server run what they like: make it this user's alone \
                          (chmod 700), or name another";
            return Err(fail(reason.to_owned()));
        }
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Cache(Arc::new(Inner { owner, compatibility: hasher.finish(), folder })))
    }

    fn path(&self, sha256: &str) -> PathBuf {
        self.0.folder.join(format!("{sha256}-{:016x}.cwasm", self.0.compatibility))
    }

    /// The compiled form of the component with this digest, if there is one that can be trusted.
    pub fn get(&self, engine: &Engine, sha256: &str) -> Option<Component> {
        let path = self.path(sha256);
        let metadata = fs::symlink_metadata(&path).ok()?;
        if !metadata.is_file() || !is_own(&metadata, self.0.owner) {
            return None;
        }
        let bytes = fs::read(&path).ok()?;
        let (code, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
        if Sha256::digest(code)[..] != *checksum {
            return None;
        }
        // SAFETY: the file is what this user's own process wrote with `Component::serialize` for a compatible engine: nobody
        // else can write to the folder or the file, and the checksum says that it is whole.
        let component = unsafe { Component::deserialize(engine, code) };
        component.inspect_err(|error| tracing::warn!(%error, path = %path.display(), "compiled policy not used")).ok()
    }

    /// Keeps a compiled component; without it the next start takes longer, and nothing else.
    pub fn put(&self, sha256: &str, component: &Component) {
        let path = self.path(sha256);
        let kept = component
            .serialize()
            .map_err(|error| error.to_string())
            .and_then(|code| write(&path, &code).map_err(|error| error.to_string()));
        if let Err(error) = kept {
            tracing::warn!(error, path = %path.display(), "a compiled policy cannot be kept");
        }
    }
}

fn is_own(metadata: &Metadata, owner: u32) -> bool {
    metadata.uid() == owner && metadata.mode() & OTHERS_WRITE == 0
}

/// Who runs this process: whoever owns what it creates.
fn owner(folder: &Path) -> std::io::Result<u32> {
    let probe = folder.join(format!(".{}", std::process::id()));
    let owner = create(&probe)?.metadata()?.uid();
    fs::remove_file(&probe)?;
    Ok(owner)
}

fn create(path: &Path) -> std::io::Result<File> {
    // A leftover of a process that was killed.
    let _ = fs::remove_file(path);
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

/// Beside its place and renamed, so that nobody reads half of it.
fn write(path: &Path, code: &[u8]) -> std::io::Result<()> {
    let beside = path.with_extension(format!("{}.part", std::process::id()));
    let mut file = create(&beside)?;
    file.write_all(code)?;
    file.write_all(&Sha256::digest(code))?;
    drop(file);
    fs::rename(&beside, path)
}

//! Files that are there whole or not at all, and what proves that they are unchanged.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{StoreError, damaged, io_error};

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The bytes of lower-case hexadecimal digits; `None` for anything else, capitals too, so that a text has one spelling.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

/// Waits until the entries of a folder are durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(io_error(folder))
}

/// Waits until a folder, all folders in it and their files are durable.
pub(crate) fn sync_tree(folder: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(folder).map_err(io_error(folder))? {
        let path = entry.map_err(io_error(folder))?.path();
        match path.is_dir() {
            true => sync_tree(&path)?,
            false => File::open(&path).and_then(|f| f.sync_all()).map_err(io_error(&path))?,
        }
    }
    sync_folder(folder)
}

/// Writes a file beside its place and renames it, durably.
pub(crate) fn replace(file: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let beside = file.with_extension("part");
    let write = || {
        let mut out = File::create(&beside)?;
        out.write_all(bytes)?;
        out.sync_all()?;
        fs::rename(&beside, file)
    };
    write().map_err(|source| {
        // The part would keep space on a disk that is full.
        let _ = fs::remove_file(&beside);
        io_error(file)(source)
    })?;
    file.parent().map_or(Ok(()), sync_folder)
}

/// Writes a new file that its owner alone may read.
pub(crate) fn write_secret(file: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let write = || {
        let mut out = options.open(file)?;
        out.write_all(bytes)?;
        out.sync_all()
    };
    write().map_err(io_error(file))?;
    file.parent().map_or(Ok(()), sync_folder)
}

/// Length and SHA-256 (hexadecimal digits) of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileDigest {
    pub bytes: u64,
    pub sha256: String,
}

/// Length and digest of a file as it stands on the disk.
pub(crate) fn digest(file: &Path) -> Result<FileDigest, StoreError> {
    let hash = || -> io::Result<FileDigest> {
        let mut input = File::open(file)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        let mut bytes = 0;
        loop {
            match input.read(&mut buffer)? {
                0 => break,
                n => {
                    hash.update(&buffer[..n]);
                    bytes += n as u64;
                }
            }
        }
        Ok(FileDigest { bytes, sha256: hex(&hash.finalize()) })
    };
    hash().map_err(io_error(file))
}

/// All files below a folder, relative to it with `/` between names, in the order of their names.
pub(crate) fn list(folder: &Path) -> Result<Vec<(String, PathBuf)>, StoreError> {
    fn visit(folder: &Path, prefix: &str, found: &mut Vec<(String, PathBuf)>) -> Result<(), StoreError> {
        for entry in fs::read_dir(folder).map_err(io_error(folder))? {
            let entry = entry.map_err(io_error(folder))?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            match entry.path().is_dir() {
                true => visit(&entry.path(), &format!("{name}/"), found)?,
                false => found.push((name, entry.path())),
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    visit(folder, "", &mut found)?;
    found.sort();
    Ok(found)
}

/// JSON with a checksum over its content. A file is valid when it is byte for byte what would be written again, so
/// that no flipped byte goes unnoticed, white space included.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed<T> {
    sha256: String,
    content: T,
}

/// JSON with its checksum.
pub(crate) fn seal<T: Serialize>(content: &T) -> Result<Vec<u8>, serde_json::Error> {
    let sha256 = hex(&Sha256::digest(serde_json::to_vec(content)?));
    let mut bytes = serde_json::to_vec_pretty(&Sealed { sha256, content })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Writes JSON with its checksum, whole or not at all.
pub(crate) fn write_sealed<T: Serialize>(file: &Path, content: &T) -> Result<(), StoreError> {
    replace(file, &seal(content).map_err(|e| io_error(file)(e.into()))?)
}

/// Reads JSON and holds it against its checksum.
pub(crate) fn read_sealed<T: Serialize + DeserializeOwned>(file: &Path) -> Result<T, StoreError> {
    let bytes = fs::read(file).map_err(io_error(file))?;
    let sealed: Sealed<T> = serde_json::from_slice(&bytes).map_err(|e| damaged(file, e.to_string()))?;
    let again = seal(&sealed.content).map_err(|e| damaged(file, e.to_string()))?;
    match again == bytes {
        true => Ok(sealed.content),
        false => Err(damaged(file, "its content does not fit its checksum")),
    }
}

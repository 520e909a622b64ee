//! Files as bytes: memory-mapped, so that a checkpoint is paged in as it is read and never held twice.
#![allow(unsafe_code)] // mapping a file

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// The bytes of a file on disk or of one embedded in the program.
pub enum Bytes {
    /// A read-only map.
    Mapped(memmap2::Mmap),
    /// Part of the program.
    Static(&'static [u8]),
    /// An empty file, which cannot be mapped.
    Empty,
}

impl Bytes {
    /// Maps a file.
    ///
    /// # Errors
    /// Those of opening, reading the length and mapping.
    pub fn map(path: &Path) -> io::Result<Bytes> {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(Bytes::Empty);
        }
        // SAFETY: the map is private and read-only. Checkpoint files are not written to while a program has them open;
        // every use of the bytes checks what it reads, and parameters are copied out before the map is dropped.
        let map = unsafe { memmap2::MmapOptions::new().map_copy_read_only(&file)? };
        Ok(Bytes::Mapped(map))
    }

    /// Says that these bytes will not be read soon, so that none of them need stay in memory: all of them, since a system
    /// maps the surroundings of what is read.
    pub fn release(&self) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = self {
            // SAFETY: the map is never written to, so pages that are dropped come back from the file with the same bytes.
            // A system that does not want to drop them need not.
            let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Static(bytes) => bytes,
            Bytes::Empty => &[],
        }
    }
}

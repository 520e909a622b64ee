//! Read-only maps of files, with checked views of the numbers in them.
#![allow(unsafe_code)] // mapping a file

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

#[cfg(target_endian = "big")]
compile_error!("the files of a store hold little-endian numbers that are read in place");

/// The bytes of a file, mapped, or nothing where the file is empty (an empty file cannot be mapped).
#[derive(Debug)]
pub struct Mapping(Option<memmap2::Mmap>);

impl Mapping {
    /// Maps a file.
    ///
    /// # Errors
    /// Those of opening, reading the length and mapping.
    pub fn open(path: &Path) -> io::Result<Mapping> {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(Mapping(None));
        }
        // SAFETY: the map is read-only and the store that owns the folder holds its lock; finished files are never written
        // to again, they are replaced by renaming. Every use of the bytes checks what it reads.
        let map = unsafe { memmap2::MmapOptions::new().map(&file)? };
        Ok(Mapping(Some(map)))
    }

    /// Tells the kernel that pages are read here and there, so that none are read ahead. Only a hint: where it cannot be
    /// given nothing changes.
    pub fn advise_random(&self) {
        #[cfg(unix)]
        if let Some(map) = &self.0 {
            // A hint that is refused costs speed alone.
            let _ = map.advise(memmap2::Advice::Random);
        }
    }

    /// `count` numbers from byte `offset` on; `None` where the file is too short for them or they are not aligned.
    pub fn view<T: bytemuck::AnyBitPattern>(&self, offset: usize, count: usize) -> Option<&[T]> {
        if count == 0 {
            return Some(&[]);
        }
        let end = count.checked_mul(size_of::<T>())?.checked_add(offset)?;
        bytemuck::try_cast_slice(self.get(offset..end)?).ok()
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("numbers");
        std::fs::write(&path, [1_u32, 2, 3].map(u32::to_le_bytes).concat()).unwrap();
        let mapping = Mapping::open(&path).unwrap();
        mapping.advise_random();
        assert_eq!(mapping.view::<u32>(4, 2), Some(&[2, 3][..]));
        assert_eq!(mapping.view::<u32>(4, 3), None, "too short");
        assert_eq!(mapping.view::<u32>(2, 1), None, "not aligned");
        assert_eq!(mapping.view::<u32>(usize::MAX, 2), None, "overflow");
        std::fs::write(&path, []).unwrap();
        assert_eq!(Mapping::open(&path).unwrap().view::<u32>(0, 0), Some(&[][..]));
        assert!(Mapping::open(&folder.path().join("absent")).is_err());
    }
}

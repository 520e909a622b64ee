//! What the binary files of an index share: a header of 64 bytes, and sections that begin at multiples of 64 bytes.
//!
//! ```text
//! 0   magic, 8 bytes
//! 8   version, u32 LE
//! 12  three numbers whose meaning the magic decides, u32 LE
//! 24  rows, u64 LE; u64::MAX while the file is being written
//! 32  zeros
//! 64  sections
//! ```

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::IndexError;
use crate::mapping::Mapping;

/// Bytes of the header, and the alignment of sections.
pub const ALIGNMENT: usize = 64;
const VERSION: u32 = 1;
/// In place of the number of rows while a file is unfinished.
const UNFINISHED: u64 = u64::MAX;

/// The first 64 bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub magic: [u8; 8],
    pub numbers: [u32; 3],
    pub rows: u64,
}

impl Header {
    fn to_bytes(self) -> [u8; ALIGNMENT] {
        let mut bytes = [0; ALIGNMENT];
        bytes[..8].copy_from_slice(&self.magic);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        for (i, number) in self.numbers.iter().enumerate() {
            bytes[12 + 4 * i..16 + 4 * i].copy_from_slice(&number.to_le_bytes());
        }
        bytes[24..32].copy_from_slice(&self.rows.to_le_bytes());
        bytes
    }
}

/// Writes a file beside its place; when it is finished its header becomes valid and it is moved there. What the place held
/// before stays whole for those who have it mapped.
pub struct FileWriter {
    place: PathBuf,
    path: PathBuf,
    file: BufWriter<File>,
    header: Header,
    written: usize,
}

impl FileWriter {
    pub fn create(place: &Path, magic: [u8; 8], numbers: [u32; 3]) -> Result<FileWriter, IndexError> {
        let header = Header { magic, numbers, rows: UNFINISHED };
        let mut path = place.as_os_str().to_owned();
        path.push(".partial");
        let path = PathBuf::from(path);
        let file = File::create(&path).map_err(IndexError::io("create", &path))?;
        let mut writer = FileWriter {
            place: place.to_owned(),
            path,
            file: BufWriter::with_capacity(1 << 20, file),
            header,
            written: 0,
        };
        writer.write(&header.to_bytes())?;
        Ok(writer)
    }

    pub fn write<T: bytemuck::NoUninit>(&mut self, values: &[T]) -> Result<(), IndexError> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        self.written += bytes.len();
        self.file.write_all(bytes).map_err(IndexError::io("write", &self.path))
    }

    /// Zeros up to where the next section begins.
    pub fn align(&mut self) -> Result<(), IndexError> {
        let missing = self.written.next_multiple_of(ALIGNMENT) - self.written;
        self.write(&[0_u8; ALIGNMENT][..missing])
    }

    /// Writes the number of rows and waits until everything is on the disk.
    pub fn finish(mut self, rows: usize) -> Result<(), IndexError> {
        self.align()?;
        self.header.rows = rows as u64;
        let header = self.header.to_bytes();
        let write = |file: &mut BufWriter<File>| {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&header)?;
            file.flush()?;
            file.get_ref().sync_all()
        };
        write(&mut self.file).map_err(IndexError::io("write", &self.path))?;
        std::fs::rename(&self.path, &self.place).map_err(IndexError::io("rename", &self.path))
    }
}

/// A mapped file whose header was checked.
pub struct FileReader {
    path: PathBuf,
    mapping: Mapping,
    pub header: Header,
}

impl FileReader {
    pub fn open(path: &Path, magic: [u8; 8]) -> Result<FileReader, IndexError> {
        let mapping = Mapping::open(path).map_err(IndexError::io("open", path))?;
        let damaged = |reason: String| IndexError::damaged(path, reason);
        let Some(bytes) = mapping.first_chunk::<ALIGNMENT>() else {
            return Err(damaged(format!("it has {} bytes, fewer than its header", mapping.len())));
        };
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let rows = u64::from(u32_at(24)) | u64::from(u32_at(28)) << 32;
        let header = Header { magic: std::array::from_fn(|i| bytes[i]), numbers: [12, 16, 20].map(u32_at), rows };
        if header.magic != magic {
            return Err(damaged(format!("it begins with {:?}, expected {:?}", Text(&header.magic), Text(&magic))));
        }
        if u32_at(8) != VERSION {
            return Err(damaged(format!("its version is {}, expected {VERSION}", u32_at(8))));
        }
        if rows == UNFINISHED {
            return Err(damaged("it was never finished".into()));
        }
        if rows > u64::from(u32::MAX - 1) {
            return Err(damaged(format!("it claims {rows} rows, more than an index can hold")));
        }
        if bytes[32..] != [0; 32] {
            return Err(damaged("reserved bytes of its header are not zero".into()));
        }
        Ok(FileReader { path: path.to_owned(), mapping, header })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// Places of the sections of `bytes` bytes each, one after another.
    ///
    /// # Errors
    /// When the length of the file is not exactly what they take.
    pub fn sections<const N: usize>(&self, bytes: [Option<usize>; N]) -> Result<[usize; N], IndexError> {
        let mut places = [0; N];
        let mut end = Some(ALIGNMENT);
        for (place, bytes) in places.iter_mut().zip(bytes) {
            *place = end.unwrap_or_default();
            end = end.zip(bytes).and_then(|(end, bytes)| end.checked_add(bytes)?.checked_next_multiple_of(ALIGNMENT));
        }
        if end == Some(self.mapping.len()) {
            return Ok(places);
        }
        let expected = end.map_or("more than there can be".to_owned(), |end| end.to_string());
        let reason = format!("it has {} bytes, its header says {expected}", self.mapping.len());
        Err(IndexError::damaged(&self.path, reason))
    }

    /// A section whose place and length `sections` has checked; empty where that was not so.
    pub fn view<T: bytemuck::AnyBitPattern>(&self, place: usize, count: usize) -> &[T] {
        self.mapping.view(place, count).unwrap_or_default()
    }
}

/// A magic in an error: as text as far as it is text.
struct Text<'a>(&'a [u8]);

impl std::fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

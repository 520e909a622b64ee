//! The file of a segment's passages: which tokens of which document, and how many terms.
//!
//! Little-endian u32: `magic[3] version passages components checksum words`, then for each passage `document start end terms`,
//! ascending by document. `components` is the dimension of the dense vectors, 0 where there are none; `checksum` is the
//! CRC-32 of the file with 0 in its place, `words` that of the index of terms beside it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use super::PassageError;
use crate::mapping::Mapping;

pub(super) const FILE: &str = "passages.bin";
const MAGIC: [u32; 3] = [u32::from_le_bytes(*b"safe"), u32::from_le_bytes(*b"lmm-"), u32::from_le_bytes(*b"pass")];
const VERSION: u32 = 1;
const HEADER: usize = 8;
/// The word of the checksum in the header.
const CHECKSUM: usize = 6;

/// One passage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Record {
    pub document: u32,
    pub start: u32,
    pub end: u32,
    pub terms: u32,
}

impl Record {
    pub fn tokens(&self) -> Range<u32> {
        self.start..self.end
    }
}

pub(super) fn write(path: &Path, records: &[Record], components: usize, words: u32) -> io::Result<()> {
    let mut header = [MAGIC[0], MAGIC[1], MAGIC[2], VERSION, records.len() as u32, components as u32, 0, words];
    header[CHECKSUM] = checksum(&header, records);
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(bytemuck::cast_slice(&header))?;
    file.write_all(bytemuck::cast_slice(records))?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

fn checksum(header: &[u32; HEADER], records: &[Record]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(bytemuck::cast_slice(header));
    crc.update(bytemuck::cast_slice(records));
    crc.finalize()
}

/// The file, mapped.
pub(super) struct Table {
    file: Mapping,
    passages: usize,
    pub components: usize,
    /// The checksum of the index of terms.
    pub words: u32,
}

impl Table {
    /// Opens the file and checks every record against the documents and tokens of the segment.
    pub fn open(path: &Path, documents: usize, tokens: usize) -> Result<Table, PassageError> {
        let damaged = |found: String, expected: String| Err(PassageError::damaged(path, found, expected));
        let file = Mapping::open(path).map_err(PassageError::io(path))?;
        let Some(&header) = file.view::<[u32; HEADER]>(0, 1).and_then(<[_]>::first) else {
            return damaged(format!("{} bytes", file.len()), format!("at least {} bytes", HEADER * 4));
        };
        if header[..3] != MAGIC {
            return damaged("another kind of file".into(), "a table of passages".into());
        }
        if header[3] != VERSION {
            return damaged(format!("version {}", header[3]), format!("version {VERSION}"));
        }
        let (passages, components) = (header[4] as usize, header[5] as usize);
        let bytes = (HEADER as u64 + passages as u64 * 4) * 4;
        if file.len() as u64 != bytes {
            return damaged(format!("{} bytes", file.len()), format!("{bytes} bytes for {passages} passages"));
        }
        let table = Table { file, passages, components, words: header[7] };
        let sum =
            checksum(&std::array::from_fn(|word| if word == CHECKSUM { 0 } else { header[word] }), table.records());
        if sum != header[CHECKSUM] {
            return damaged(format!("checksum {sum:08x}"), format!("{:08x}", header[CHECKSUM]));
        }
        let mut last = 0;
        for (number, record) in table.records().iter().enumerate() {
            let Record { document, start, end, .. } = *record;
            if document < last || document as usize >= documents || start > end || end as usize > tokens {
                return damaged(
                    format!("passage {number} with tokens {start}..{end} of document {document}"),
                    format!("passages of {tokens} tokens in {documents} documents, in their order"),
                );
            }
            last = document;
        }
        Ok(table)
    }

    pub fn records(&self) -> &[Record] {
        self.file.view(HEADER * 4, self.passages).unwrap_or_default()
    }
}

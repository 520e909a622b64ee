//! The file of a suffix array: little-endian u32 throughout.
//!
//! ```text
//! magic[4] version documents tokens distinct 0   words 0..8 (magic: 16 bytes as four words; the last word is 0)
//! ids[distinct]                                  the tokens that occur, ascending
//! heads[distinct + 1]                            where the suffixes of each begin in `positions`; the last is `tokens`
//! positions[tokens]                              the suffixes in order, as positions in the tokens of the segment
//! ```
//! A suffix ends with its document. Of equal suffixes that of the earlier document comes first.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use super::SuffixError;

/// The file in the folder of the index.
pub(crate) const FILE: &str = "suffix.bin";
const MAGIC: [u32; 3] = [u32::from_le_bytes(*b"safe"), u32::from_le_bytes(*b"lmm-"), u32::from_le_bytes(*b"sufx")];
const VERSION: u32 = 1;
const HEADER: usize = 8;

/// Where the parts of the file lie, in words.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub ids: Range<usize>,
    pub heads: Range<usize>,
    pub positions: Range<usize>,
}

/// Writes the file; `ids` and `heads` as in the layout.
pub(crate) fn write(path: &Path, documents: usize, ids: &[u32], heads: &[u32], positions: &[u32]) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let sizes = [documents as u32, positions.len() as u32, ids.len() as u32, 0];
    for part in [&MAGIC[..], &[VERSION], &sizes, ids, heads, positions] {
        for word in part {
            file.write_all(&word.to_le_bytes())?;
        }
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Checks the header, the sizes and the table of heads against what the segment holds.
pub(crate) fn read(
    path: &Path,
    bytes: u64,
    words: &[u32],
    tokens: usize,
    documents: usize,
) -> Result<Layout, SuffixError> {
    let damaged = |found: String, expected: String| Err(SuffixError::damaged(path, found, expected));
    let Some((header, _)) = words.split_at_checked(HEADER) else {
        return damaged(format!("{bytes} bytes"), format!("a suffix array of at least {} bytes", HEADER * 4));
    };
    if header[..3] != MAGIC {
        return damaged("another kind of file".into(), "a suffix array".into());
    }
    if header[3] != VERSION {
        return damaged(format!("version {}", header[3]), format!("version {VERSION}"));
    }
    if (header[4] as usize, header[5] as usize) != (documents, tokens) || header[7] != 0 {
        return damaged(
            format!("an array of {} tokens in {} documents", header[5], header[4]),
            format!("{tokens} tokens in {documents} documents, which the segment has"),
        );
    }
    let ids = HEADER..HEADER + header[6] as usize;
    let heads = ids.end..ids.end + header[6] as usize + 1;
    let positions = heads.end..heads.end + tokens;
    if bytes != positions.end as u64 * 4 || words.len() != positions.end {
        return damaged(format!("{bytes} bytes"), format!("{} bytes", positions.end as u64 * 4));
    }
    if !words[ids.clone()].is_sorted_by(|a, b| a < b) {
        return damaged("a list of tokens out of order".into(), "an ascending one".into());
    }
    let table = &words[heads.clone()];
    if !table.is_sorted() || table.first() != Some(&0) || table.last() != Some(&(tokens as u32)) {
        return damaged("a table of first tokens out of order".into(), format!("an ascending one from 0 to {tokens}"));
    }
    Ok(Layout { ids, heads, positions })
}

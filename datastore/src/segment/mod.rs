//! A segment: documents of one access group with everything that is searched in them. Immutable but for its tombstones.

mod parts;
mod write;

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

pub(crate) use parts::Parts;
pub(crate) use write::{Prepared, SegmentWriter, Stored, Target};

use crate::error::{StoreError, damaged, io_error};
use crate::files::{self, FileDigest};
use crate::gate::Group;
use crate::manifest::SegmentEntry;
use crate::mapping::Mapping;
use crate::store::passage_text;

/// Version of the format of a segment's own files.
const FORMAT_VERSION: u32 = 1;
const HEADER: &str = "segment.json";
const TOKENS: &str = "tokens.bin";
const DOCUMENTS: &str = "documents.bin";
const TEXT: &str = "text.bin";
const OFFSETS: &str = "offsets.bin";

/// `segment.json`: what the segment is, and digests of all its other files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format_version: u32,
    group: Group,
    documents: u32,
    tokens: u32,
    files: BTreeMap<String, FileDigest>,
}

/// A document's entry in `documents.bin`, little-endian. One more entry marks the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Place {
    /// Number in the catalogue; 0 for the end.
    number: u64,
    /// First byte in `text.bin`.
    text: u64,
    /// First token in `tokens.bin`.
    token: u32,
    padding: u32,
}

/// The tokens of a segment, mapped.
pub(crate) struct Tokens {
    mapping: Mapping,
    count: usize,
}

impl AsRef<[u32]> for Tokens {
    fn as_ref(&self) -> &[u32] {
        self.mapping.view(0, self.count).unwrap_or_default()
    }
}

/// A segment, open.
pub(crate) struct Segment {
    pub entry: SegmentEntry,
    folder: PathBuf,
    tokens: Arc<Tokens>,
    text: Mapping,
    /// Byte of the document's text at which each token starts.
    offsets: Mapping,
    places: Vec<Place>,
    /// (number in the catalogue, number in the segment), ascending.
    numbers: Vec<(u64, u32)>,
    dead: Box<[AtomicU64]>,
    dead_count: AtomicU32,
    pub parts: Parts,
}

impl Segment {
    /// Opens a segment, and checks everything that does not need reading all of it.
    pub(crate) fn open(folder: &Path, entry: &SegmentEntry) -> Result<Segment, StoreError> {
        let file = folder.join(HEADER);
        if files::digest(&file)?.sha256 != entry.sha256 {
            return Err(damaged(&file, "it is not the one that the manifest names"));
        }
        let header: Header = files::read_sealed(&file)?;
        if header.format_version != FORMAT_VERSION {
            return Err(StoreError::Version { file, found: header.format_version, expected: FORMAT_VERSION });
        }
        if (&header.group, header.documents, header.tokens) != (&entry.group, entry.documents, entry.tokens) {
            return Err(damaged(&file, "it says something else than the manifest"));
        }
        for (name, digest) in &header.files {
            let file = folder.join(name);
            let bytes = std::fs::metadata(&file).map_err(io_error(&file))?.len();
            if bytes != digest.bytes {
                return Err(damaged(&file, format!("it has {bytes} bytes, expected {}", digest.bytes)));
            }
        }
        let map = |name: &str| {
            let file = folder.join(name);
            Mapping::open(&file).map_err(io_error(&file))
        };
        let (documents, count) = (header.documents as usize, header.tokens as usize);
        let mapping = map(DOCUMENTS)?;
        let places: Vec<Place> = mapping.view(0, documents + 1).unwrap_or_default().to_vec();
        let tokens = Arc::new(Tokens { mapping: map(TOKENS)?, count });
        let (text, offsets) = (map(TEXT)?, map(OFFSETS)?);
        let ordered = places.windows(2).all(|p| p[0].token < p[1].token && p[0].text <= p[1].text);
        let ends = places.last().is_some_and(|p| p.token as usize == count && p.text == text.len() as u64);
        let starts = places.first().is_some_and(|p| p.token == 0 && p.text == 0);
        if !(ordered && ends && starts) {
            return Err(damaged(&folder.join(DOCUMENTS), "its documents do not follow one another"));
        }
        if tokens.as_ref().as_ref().len() != count {
            return Err(damaged(&folder.join(TOKENS), format!("expected {count} tokens")));
        }
        if offsets.view::<u32>(0, count).is_none() {
            return Err(damaged(&folder.join(OFFSETS), format!("expected {count} offsets")));
        }
        let mut numbers: Vec<(u64, u32)> = places[..documents].iter().map(|p| p.number).zip(0..).collect();
        numbers.sort_unstable();
        let starts: Vec<u32> = places[..documents].iter().map(|p| p.token).collect();
        let parts = Parts::open(folder, tokens.clone(), &starts)?;
        Ok(Segment {
            entry: entry.clone(),
            folder: folder.to_owned(),
            tokens,
            text,
            offsets,
            places,
            numbers,
            dead: (0..documents.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            dead_count: AtomicU32::new(0),
            parts,
        })
    }

    /// How many documents it has, removed ones included.
    pub(crate) fn documents(&self) -> u32 {
        self.numbers.len() as u32
    }

    /// All tokens, of removed documents too.
    pub(crate) fn tokens(&self) -> &[u32] {
        self.tokens.as_ref().as_ref()
    }

    /// Number of a document in the catalogue.
    pub(crate) fn number(&self, document: u32) -> Option<u64> {
        ((document as usize) < self.numbers.len()).then(|| self.places[document as usize].number)
    }

    /// The document with this number in the catalogue.
    pub(crate) fn find(&self, number: u64) -> Option<u32> {
        let found = self.numbers.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(self.numbers[found].1)
    }

    /// The document to which a token belongs.
    pub(crate) fn document_of(&self, position: u32) -> u32 {
        let after = self.places.partition_point(|place| place.token <= position);
        (after.saturating_sub(1) as u32).min(self.documents().saturating_sub(1))
    }

    /// First token of a document, and the one behind its last.
    pub(crate) fn range(&self, document: u32) -> Option<Range<u32>> {
        let document = document as usize;
        (document < self.numbers.len()).then(|| self.places[document].token..self.places[document + 1].token)
    }

    /// The text of a document; `None` where it is damaged.
    pub(crate) fn text(&self, document: u32) -> Option<&str> {
        let document = document as usize;
        let (start, end) = (self.places.get(document)?.text, self.places.get(document + 1)?.text);
        std::str::from_utf8(self.text.get(start as usize..end as usize)?).ok()
    }

    /// The byte at which each token of a document starts in its text.
    pub(crate) fn offsets(&self, document: u32) -> Option<&[u32]> {
        let range = self.range(document)?;
        self.offsets.view(4 * range.start as usize, range.len())
    }

    /// The text under some tokens of a document, widened to whole characters.
    pub(crate) fn text_of(&self, document: u32, tokens: Range<u32>) -> Option<&str> {
        let (text, offsets) = (self.text(document)?, self.offsets(document)?);
        let inside = tokens.start <= tokens.end && tokens.end as usize <= offsets.len();
        inside.then(|| passage_text(text, offsets, &(tokens.start as usize..tokens.end as usize)))
    }

    /// Marks a document as removed, at once and for everyone who holds the segment.
    pub(crate) fn bury(&self, number: u64) {
        if let Some(document) = self.find(number) {
            let before = self.dead[document as usize / 64].fetch_or(1 << (document % 64), Ordering::SeqCst);
            if before & 1 << (document % 64) == 0 {
                self.dead_count.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    /// Marks documents as removed.
    pub(crate) fn bury_all(&self, dead: &HashSet<u64>) {
        if dead.len() < self.numbers.len() {
            dead.iter().for_each(|number| self.bury(*number));
        } else {
            self.numbers.iter().filter(|(number, _)| dead.contains(number)).for_each(|(number, _)| self.bury(*number));
        }
    }

    /// Whether a document was removed; what does not exist was.
    pub(crate) fn is_dead(&self, document: u32) -> bool {
        let word = self.dead.get(document as usize / 64).map_or(u64::MAX, |word| word.load(Ordering::SeqCst));
        word & 1 << (document % 64) != 0
    }

    /// How many documents were removed.
    pub(crate) fn dead_count(&self) -> u32 {
        self.dead_count.load(Ordering::SeqCst)
    }

    /// Reads every file and holds it against its digest; tells problems, and how many files and bytes were read.
    pub(crate) fn verify(folder: &Path, problems: &mut Vec<String>) -> (usize, u64) {
        let file = folder.join(HEADER);
        let header: Header = match files::read_sealed(&file) {
            Ok(header) => header,
            Err(e) => {
                problems.push(e.to_string());
                return (1, 0);
            }
        };
        let (mut count, mut bytes) = (1, 0);
        let found = match files::list(folder) {
            Ok(found) => found,
            Err(e) => {
                problems.push(e.to_string());
                return (1, 0);
            }
        };
        for (name, path) in &found {
            if name != HEADER && !header.files.contains_key(name) {
                problems.push(format!("{}: nobody wrote this file", path.display()));
            }
        }
        for (name, expected) in &header.files {
            count += 1;
            match files::digest(&folder.join(name)) {
                Ok(digest) if digest == *expected => bytes += digest.bytes,
                Ok(_) => {
                    problems.push(damaged(&folder.join(name), "its content does not fit its checksum").to_string())
                }
                Err(e) => problems.push(e.to_string()),
            }
        }
        (count, bytes)
    }

    /// Where it lies.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

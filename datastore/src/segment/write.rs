//! Writing a segment: documents one after another, then the indexes over them, then digests of all files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::parts::PartsWriter;
use super::{DOCUMENTS, FORMAT_VERSION, HEADER, Header, OFFSETS, Place, Segment, TEXT, TOKENS};
use crate::error::{StoreError, io_error};
use crate::files;
use crate::gate::Group;
use crate::index::IndexParams;
use crate::manifest::SegmentEntry;
use crate::mapping::Mapping;
use crate::store::{StoreSettings, cut_passages};

/// Tokens of a segment at most, so that rows and positions are `u32` with room to spare.
const MAX_TOKENS: usize = i32::MAX as usize;

/// A document, ready to be written; its keys follow.
pub(crate) struct Prepared<'a> {
    /// Number in the catalogue.
    pub number: u64,
    pub text: &'a str,
    pub tokens: &'a [u32],
    /// The byte at which each token starts.
    pub offsets: &'a [u32],
    /// Tokens of each passage.
    pub passages: Vec<Range<usize>>,
    /// A vector for each passage, where there is an encoder of passages.
    pub dense: Vec<Vec<f32>>,
}

/// A document that stands in a segment already.
#[derive(Clone, Copy)]
pub(crate) struct Stored<'a> {
    pub segment: &'a Segment,
    pub document: u32,
}

/// What becomes of a segment that is finished.
pub(crate) struct Target {
    /// The folder it is moved to.
    pub place: PathBuf,
    pub number: u64,
    pub bucket: Option<(u32, u32)>,
    /// It will be merged soon: its keys are searched one by one, until then, instead of being indexed.
    pub interim: bool,
}

/// Writes a segment into a folder of its own.
pub(crate) struct SegmentWriter {
    folder: PathBuf,
    group: Group,
    tokens: BufWriter<File>,
    text: BufWriter<File>,
    offsets: BufWriter<File>,
    places: Vec<Place>,
    token_count: usize,
    text_bytes: u64,
    parts: PartsWriter,
    dim: usize,
}

impl SegmentWriter {
    /// Begins a segment in `folder`, replacing what an earlier attempt left there.
    /// `passage_dim`: numbers in a passage's vector, `None` or 0 where there is none.
    pub(crate) fn create(
        folder: &Path,
        group: &Group,
        settings: &StoreSettings,
        passage_dim: Option<usize>,
    ) -> Result<SegmentWriter, StoreError> {
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(io_error(folder))?;
        }
        fs::create_dir_all(folder).map_err(io_error(folder))?;
        let file = |name: &str| {
            let file = folder.join(name);
            File::create(&file).map(BufWriter::new).map_err(io_error(&file))
        };
        Ok(SegmentWriter {
            tokens: file(TOKENS)?,
            text: file(TEXT)?,
            offsets: file(OFFSETS)?,
            group: group.clone(),
            places: Vec::new(),
            token_count: 0,
            text_bytes: 0,
            parts: PartsWriter::create(folder, settings, passage_dim.filter(|dim| *dim > 0))?,
            dim: settings.dim,
            folder: folder.to_owned(),
        })
    }

    /// Adds a document with its keys, `[tokens, dim]`.
    pub(crate) fn push(&mut self, document: Prepared<'_>, keys: &[f32]) -> Result<(), StoreError> {
        let first = self.begin(&document)?;
        self.parts.push_keys(&self.folder, keys)?;
        self.parts.push_passages(&self.folder, self.places.len() as u32 - 1, first, &document)
    }

    /// Adds a document as it stands in another segment, under the number it has.
    pub(crate) fn copy(&mut self, stored: Stored<'_>, settings: &StoreSettings) -> Result<(), StoreError> {
        let Stored { segment, document } = stored;
        let damaged = || crate::error::damaged(segment.folder(), format!("document {document} cannot be read"));
        let (Some(range), Some(number)) = (segment.range(document), segment.number(document)) else {
            return Err(damaged());
        };
        let (Some(text), Some(offsets)) = (segment.text(document), segment.offsets(document)) else {
            return Err(damaged());
        };
        let tokens = segment.tokens().get(range.start as usize..range.end as usize).ok_or_else(damaged)?;
        let passages = cut_passages(text, offsets, settings);
        let dense = segment.parts.dense_of(document);
        if !dense.is_empty() && dense.len() != passages.len() {
            return Err(damaged());
        }
        let prepared = Prepared { number, text, tokens, offsets, passages, dense };
        let first = self.begin(&prepared)?;
        let mut row = vec![0.0; self.dim];
        for position in range {
            segment.parts.key(position, &mut row);
            self.parts.push_keys(&self.folder, &row)?;
        }
        self.parts.push_passages(&self.folder, self.places.len() as u32 - 1, first, &prepared)
    }

    /// Writes tokens and text; gives the place of the first token.
    fn begin(&mut self, document: &Prepared<'_>) -> Result<u32, StoreError> {
        let first = self.token_count as u32;
        let total = self.token_count + document.tokens.len();
        if total > MAX_TOKENS {
            return Err(StoreError::Settings(format!(
                "a segment would have {total} tokens, and may have {MAX_TOKENS}: commit more often"
            )));
        }
        self.places.push(Place { number: document.number, text: self.text_bytes, token: first, padding: 0 });
        let error = |name: &str| io_error(&self.folder.join(name));
        self.tokens.write_all(bytemuck::cast_slice(document.tokens)).map_err(error(TOKENS))?;
        self.offsets.write_all(bytemuck::cast_slice(document.offsets)).map_err(error(OFFSETS))?;
        self.text.write_all(document.text.as_bytes()).map_err(error(TEXT))?;
        self.token_count = total;
        self.text_bytes += document.text.len() as u64;
        Ok(first)
    }

    /// Builds the indexes, makes all of it durable, and moves it to `place`.
    pub(crate) fn finish(
        mut self,
        target: &Target,
        settings: &StoreSettings,
        stop: &AtomicBool,
    ) -> Result<SegmentEntry, StoreError> {
        let documents = self.places.len() as u32;
        let starts: Vec<u32> = self.places.iter().map(|p| p.token).collect();
        self.places.push(Place { number: 0, text: self.text_bytes, token: self.token_count as u32, padding: 0 });
        let folder = self.folder;
        let error = |name: &str| io_error(&folder.join(name));
        for (file, name) in [(self.tokens, TOKENS), (self.text, TEXT), (self.offsets, OFFSETS)] {
            file.into_inner().map_err(|e| error(name)(e.into_error()))?;
        }
        fs::write(folder.join(DOCUMENTS), bytemuck::cast_slice(&self.places)).map_err(error(DOCUMENTS))?;
        let tokens = Mapping::open(&folder.join(TOKENS)).map_err(error(TOKENS))?;
        let tokens = tokens.view(0, self.token_count).unwrap_or_default();
        let indexed = !target.interim || self.token_count <= settings.keys.exact_below;
        let params = [&settings.keys, &settings.passages].map(|params| match indexed {
            true => params.clone(),
            false => IndexParams { exact_below: usize::MAX, inverted_above: usize::MAX, ..params.clone() },
        });
        self.parts.finish(&folder, tokens, &starts, [&params[0], &params[1]], stop)?;
        let mut digests = BTreeMap::new();
        for (name, path) in files::list(&folder)? {
            digests.insert(name, files::digest(&path)?);
        }
        let header = Header {
            format_version: FORMAT_VERSION,
            group: self.group.clone(),
            documents,
            tokens: self.token_count as u32,
            files: digests,
        };
        files::write_sealed(&folder.join(HEADER), &header)?;
        let sha256 = files::digest(&folder.join(HEADER))?.sha256;
        files::sync_tree(&folder)?;
        fs::rename(&folder, &target.place).map_err(io_error(&target.place))?;
        target.place.parent().map_or(Ok(()), files::sync_folder)?;
        Ok(SegmentEntry {
            number: target.number,
            group: self.group,
            documents,
            tokens: self.token_count as u32,
            sha256,
            bucket: target.bucket,
            indexed,
        })
    }
}

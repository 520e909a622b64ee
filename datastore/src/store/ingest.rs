//! Adding documents: read → check → tokenise (in parallel) → keys and passage vectors (in batches) → segments → commit.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::commit::Change;
use super::prepare::{Candidate, Encoded, tokenize};
use super::{AddOptions, AddProgress, Added, Inner, compact, folder};
use crate::catalog::{Addition, DocumentRecord};
use crate::document::{Document, DocumentError};
use crate::encoder::{EncodeError, StoreEncoder};
use crate::error::StoreError;
use crate::gate::Group;
use crate::segment::{Prepared, Segment, SegmentWriter, Target};

/// Documents that are read at a time, and bytes of their texts.
const CHUNK_DOCUMENTS: usize = 256;
const CHUNK_BYTES: usize = 4 << 20;
/// Reasons that are told; all are counted.
const TOLD: usize = 1000;

pub(super) fn add(
    inner: &Arc<Inner>,
    documents: &mut dyn Iterator<Item = Result<Document, DocumentError>>,
    encoder: &dyn StoreEncoder,
    options: &AddOptions,
    progress: &dyn Fn(AddProgress),
    stop: &AtomicBool,
) -> Result<Added, StoreError> {
    let _maintenance = inner.maintain();
    let passage_dim = {
        let state = inner.read();
        state.check_writable()?;
        state.manifest.passage_dim
    };
    let mut ingest = Ingest {
        inner,
        encoder,
        options,
        progress,
        stop,
        told: AddProgress::default(),
        added: Added::default(),
        pending: BTreeMap::new(),
        pending_ids: HashMap::new(),
        pending_tokens: 0,
        passage_dim,
    };
    let result = ingest.run(documents);
    ingest.discard();
    match result {
        Ok(()) => {}
        Err(StoreError::Stopped) => ingest.added.stopped = true,
        Err(error) => return Err(error),
    }
    Ok(ingest.added)
}

struct Ingest<'a> {
    inner: &'a Arc<Inner>,
    encoder: &'a dyn StoreEncoder,
    options: &'a AddOptions,
    progress: &'a dyn Fn(AddProgress),
    stop: &'a AtomicBool,
    told: AddProgress,
    added: Added,
    /// The segments of the next commit.
    pending: BTreeMap<Group, Pending>,
    /// What is in them: hash of the id → digest of the document.
    pending_ids: HashMap<[u8; 16], [u8; 32]>,
    pending_tokens: usize,
    /// Numbers in a passage's vector, 0 where the store has none; `None` before the first commit.
    passage_dim: Option<usize>,
}

struct Pending {
    number: u64,
    folder: PathBuf,
    writer: SegmentWriter,
    documents: Vec<(u64, DocumentRecord)>,
}

impl Ingest<'_> {
    fn run(&mut self, documents: &mut dyn Iterator<Item = Result<Document, DocumentError>>) -> Result<(), StoreError> {
        loop {
            let (candidates, problem, end) = self.read(documents);
            let problem = match (self.take(candidates), problem) {
                (Ok(()), None) => None,
                (Ok(()), Some(error)) => Some(error),
                // What came before a document that cannot enter is committed; after other failures it is not.
                (Err(error @ StoreError::Document(_)), _) => Some(error),
                (Err(error), _) => return Err(error),
            };
            let problem = match problem {
                Some(error) if self.options.all_or_none => return Err(error),
                problem => problem,
            };
            if end || problem.is_some() {
                self.commit(true)?;
                compact::merge(self.inner, self.stop)?;
                return problem.map_or(Ok(()), Err);
            }
        }
    }

    fn check_stop(&self) -> Result<(), StoreError> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(StoreError::Stopped),
            false => Ok(()),
        }
    }

    fn tell(&self) {
        (self.progress)(self.told);
    }

    /// Notes a document that cannot enter, or gives the reason back where that ends the work.
    fn refuse(&mut self, error: DocumentError) -> Result<(), StoreError> {
        if !self.options.skip_bad || error.ends_source() {
            return Err(error.into());
        }
        self.told.skipped += 1;
        self.added.skipped_count += 1;
        if self.added.skipped.len() < TOLD {
            self.added.skipped.push(error.to_string());
        }
        Ok(())
    }

    /// The next documents, a reason to stop after them, and whether there are no more.
    fn read(
        &mut self,
        documents: &mut dyn Iterator<Item = Result<Document, DocumentError>>,
    ) -> (Vec<Candidate>, Option<StoreError>, bool) {
        let (mut found, mut bytes) = (Vec::new(), 0);
        while found.len() < CHUNK_DOCUMENTS && bytes < CHUNK_BYTES {
            let Some(document) = documents.next() else { return (candidates(found), None, true) };
            self.told.read += 1;
            let checked = document.and_then(|d| d.check(self.options.max_document_bytes).map(|()| d));
            match checked {
                Ok(document) => {
                    bytes += document.text.len();
                    found.push(document);
                }
                Err(error) => {
                    if let Err(error) = self.refuse(error) {
                        return (candidates(found), Some(error), true);
                    }
                }
            }
        }
        (candidates(found), None, false)
    }

    /// Takes documents in; those that are there already cost nothing.
    fn take(&mut self, candidates: Vec<Candidate>) -> Result<(), StoreError> {
        let mut fresh = Vec::new();
        for candidate in candidates {
            self.check_stop()?;
            let there = self.inner.read().catalog.find(&candidate.document.id).map(|entry| entry.content);
            match self.pending_ids.get(&candidate.hash).copied() {
                Some(content) if content == candidate.content => {
                    self.added.unchanged += 1;
                    continue;
                }
                None if there == Some(candidate.content) => {
                    self.added.unchanged += 1;
                    self.told.committed += 1;
                    continue;
                }
                None => {}
                Some(_) => {
                    // The one before must be there before it can be replaced.
                    self.encode(std::mem::take(&mut fresh))?;
                    self.commit(false)?;
                }
            }
            self.pending_ids.insert(candidate.hash, candidate.content);
            fresh.push(candidate);
        }
        self.encode(fresh)?;
        self.tell();
        Ok(())
    }

    fn encode(&mut self, candidates: Vec<Candidate>) -> Result<(), StoreError> {
        let (encoder, settings) = (self.encoder, &self.inner.settings);
        let results: Vec<_> = candidates.into_par_iter().map(|c| tokenize(c, encoder, settings)).collect();
        let (mut batch, mut tokens) = (Vec::new(), 0);
        for result in results {
            match result {
                Ok(encoded) => {
                    tokens += encoded.tokens.len();
                    batch.push(encoded);
                    if tokens >= self.options.batch_tokens {
                        self.encode_batch(std::mem::take(&mut batch))?;
                        tokens = 0;
                    }
                }
                Err((hash, error)) => {
                    self.pending_ids.remove(&hash);
                    if let Err(error) = self.refuse(error) {
                        self.encode_batch(batch)?;
                        return Err(error);
                    }
                }
            }
        }
        self.encode_batch(batch)
    }

    /// Keys and passage vectors of some documents, and their place in the segments of the next commit.
    fn encode_batch(&mut self, batch: Vec<Encoded>) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.check_stop()?;
        let dim = self.inner.settings.dim;
        let sequences: Vec<&[u32]> = batch.iter().map(|e| &e.tokens[..]).collect();
        let total: usize = sequences.iter().map(|s| s.len()).sum();
        let keys = self.encoder.keys(&sequences)?;
        if keys.len() != total * dim {
            let (found, expected) = (keys.len(), total * dim);
            return Err(EncodeError(format!("{found} numbers came for {total} keys, expected {expected}")).into());
        }
        let mut vectors = self.embed(&batch)?.into_iter();
        let mut first = 0;
        for encoded in batch {
            let last = first + encoded.tokens.len() * dim;
            let dense = match self.passage_dim {
                None | Some(0) => Vec::new(),
                Some(_) => vectors.by_ref().take(encoded.passages.len()).collect(),
            };
            self.push(encoded, &keys[first..last], dense)?;
            first = last;
        }
        self.tell();
        match self.pending_tokens >= self.options.commit_every_tokens {
            true => self.commit(false),
            false => Ok(()),
        }
    }

    /// A vector for each passage of the documents. The first documents of a store decide whether it has any.
    fn embed(&mut self, batch: &[Encoded]) -> Result<Vec<Vec<f32>>, StoreError> {
        if self.passage_dim == Some(0) {
            return Ok(Vec::new());
        }
        let texts: Vec<&str> = batch.iter().flat_map(|e| e.passage_texts()).collect();
        let vectors = self.encoder.embed(&texts)?;
        let Some(vectors) = vectors else {
            return match self.passage_dim {
                None => {
                    self.passage_dim = Some(0);
                    Ok(Vec::new())
                }
                Some(dim) => Err(self.other_passages(dim, "none")),
            };
        };
        let dim = *self.passage_dim.get_or_insert(vectors.first().map_or(0, Vec::len));
        if let Some(vector) = vectors.iter().find(|v| v.len() != dim) {
            return Err(self.other_passages(dim, &vector.len().to_string()));
        }
        match vectors.len() == texts.len() && dim > 0 {
            true => Ok(vectors),
            false => Err(EncodeError(format!("{} vectors came for {} passages", vectors.len(), texts.len())).into()),
        }
    }

    fn other_passages(&self, dim: usize, found: &str) -> StoreError {
        StoreError::OtherModel {
            store: self.inner.settings.name.clone(),
            what: "numbers in a passage's vector",
            expected: dim.to_string(),
            found: found.to_owned(),
        }
    }

    fn push(&mut self, encoded: Encoded, keys: &[f32], dense: Vec<Vec<f32>>) -> Result<(), StoreError> {
        let Encoded { record, text, tokens, offsets, passages } = encoded;
        let group = record.group();
        if !self.pending.contains_key(&group) {
            let number = self.inner.next_segment();
            let folder = self.inner.segment_folder(number).with_extension("part");
            let writer = SegmentWriter::create(&folder, &group, &self.inner.settings, self.passage_dim)?;
            self.pending.insert(group.clone(), Pending { number, folder, writer, documents: Vec::new() });
        }
        let number = self.inner.next_document.fetch_add(1, Ordering::SeqCst);
        if let Some(pending) = self.pending.get_mut(&group) {
            let prepared = Prepared { number, text: &text, tokens: &tokens, offsets: &offsets, passages, dense };
            pending.writer.push(prepared, keys)?;
            pending.documents.push((number, record));
        }
        self.pending_tokens += tokens.len();
        self.told.encoded += 1;
        self.told.tokens += tokens.len() as u64;
        Ok(())
    }

    /// Makes what is pending durable. After it more may come, unless it is the `last`.
    fn commit(&mut self, last: bool) -> Result<(), StoreError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let (mut segments, mut documents) = (Vec::new(), Vec::new());
        let pending: Vec<Pending> = std::mem::take(&mut self.pending).into_values().collect();
        let places: Vec<PathBuf> =
            pending.iter().flat_map(|p| [p.folder.clone(), self.inner.segment_folder(p.number)]).collect();
        let clear = || places.iter().for_each(|place| drop(folder::remove(place)));
        for Pending { number, writer, documents: more, .. } in pending {
            let place = self.inner.segment_folder(number);
            let target = Target { place: place.clone(), number, bucket: None, interim: !last };
            let entry = writer.finish(&target, &self.inner.settings, self.stop);
            let segment = entry.and_then(|entry| Segment::open(&place, &entry)).inspect_err(|_| clear())?;
            segments.push(Arc::new(segment));
            documents.extend(more);
        }
        let mut state = self.inner.write();
        let (mut removed, mut gone) = (Vec::new(), Vec::new());
        for (_, record) in &mut documents {
            record.sequence = state.manifest.sequence + 1;
            if let Some(entry) = state.catalog.find(&record.id) {
                removed.push(entry.number);
                gone.extend(state.catalog.document(self.inner.folder(), entry.number)?);
            }
        }
        let (count, replaced) = (documents.len(), removed.len());
        let mut change = Change::new(Addition { documents, removed, receipt: None });
        (change.gone, change.segments, change.passage_dim) = (gone, segments, self.passage_dim);
        if let Err(error) = self.inner.commit(&mut state, change) {
            // Where the manifest may name the new segments they stay, for the next opening to judge.
            if state.check_writable().is_ok() {
                clear();
            }
            return Err(error);
        }
        drop(state);
        self.added.added += count - replaced;
        self.added.replaced += replaced;
        self.added.tokens += self.pending_tokens as u64;
        self.told.committed += count;
        self.pending_ids.clear();
        self.pending_tokens = 0;
        self.tell();
        Ok(())
    }

    /// Takes away what was not committed.
    fn discard(&mut self) {
        for (_, pending) in std::mem::take(&mut self.pending) {
            let _ = folder::remove(&pending.folder);
        }
    }
}

fn candidates(documents: Vec<Document>) -> Vec<Candidate> {
    documents.into_par_iter().map(Candidate::new).collect()
}

//! Which terms occur in which passages: the only file that names tantivy's index.
//!
//! One segment, written and read without a thread. A passage is a document of tantivy whose number is the passage's.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tantivy::directory::MmapDirectory;
use tantivy::indexer::SingleSegmentIndexWriter;
use tantivy::postings::BlockSegmentPostings;
use tantivy::schema::{Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions};
use tantivy::tokenizer::{PreTokenizedString, Token};
use tantivy::{Index, IndexSettings, InvertedIndexReader, SegmentReader, TantivyDocument, Term};

use super::{PassageError, terms};
use crate::mapping::Mapping;

/// The name of the one field.
const FIELD: &str = "terms";
/// What tantivy sizes its hash table by; it grows as needed.
const MEMORY: usize = 16 << 20;

/// Writes the terms of passages, one passage after another.
pub(super) struct PostingsWriter {
    path: PathBuf,
    field: Field,
    writer: SingleSegmentIndexWriter,
}

impl PostingsWriter {
    /// Begins an index in a folder, whose former content is removed.
    pub fn create(path: &Path) -> Result<PostingsWriter, PassageError> {
        if path.exists() {
            fs::remove_dir_all(path).map_err(PassageError::io(path))?;
        }
        fs::create_dir_all(path).map_err(PassageError::io(path))?;
        let mut schema = Schema::builder();
        // Lengths are in the table of passages, exact; tantivy's own are rounded.
        let indexing = TextFieldIndexing::default()
            .set_tokenizer("raw")
            .set_index_option(IndexRecordOption::WithFreqs)
            .set_fieldnorms(false);
        let field = schema.add_text_field(FIELD, TextOptions::default().set_indexing_options(indexing));
        let settings = IndexSettings { docstore_compress_dedicated_thread: false, ..IndexSettings::default() };
        let directory = MmapDirectory::open(path).map_err(|e| PassageError::words(path)(e.into()))?;
        let writer = Index::builder()
            .schema(schema.build())
            .settings(settings)
            .single_segment_index_writer(directory, MEMORY)
            .map_err(PassageError::words(path))?;
        Ok(PostingsWriter { path: path.to_owned(), field, writer })
    }

    /// Adds a passage and says how many terms it has.
    pub fn push(&mut self, text: &str) -> Result<u32, PassageError> {
        let mut tokens = Vec::new();
        terms::for_each(text, |term| {
            tokens.push(Token { text: term.to_owned(), position: tokens.len(), ..Token::default() });
        });
        let terms = tokens.len() as u32;
        let mut document = TantivyDocument::default();
        document.add_pre_tokenized_text(self.field, PreTokenizedString { text: String::new(), tokens });
        self.writer.add_document(document).map_err(PassageError::words(&self.path))?;
        Ok(terms)
    }

    /// Writes the index to disk and says what its checksum is.
    pub fn finish(self) -> Result<u32, PassageError> {
        self.writer.finalize().map_err(PassageError::words(&self.path))?;
        checksum(&self.path)
    }
}

/// The CRC-32 of the files of an index, names and lengths too. tantivy has no checksum over its description, and would read
/// the others only after that.
fn checksum(path: &Path) -> Result<u32, PassageError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(PassageError::io(path))? {
        let name = entry.map_err(PassageError::io(path))?.file_name();
        // What begins with a dot are locks and a list of what may be deleted.
        if !name.to_string_lossy().starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    let mut crc = crc32fast::Hasher::new();
    for name in names {
        let file = path.join(&name);
        let bytes = Mapping::open(&file).map_err(PassageError::io(&file))?;
        crc.update(name.as_encoded_bytes());
        crc.update(&(bytes.len() as u64).to_le_bytes());
        crc.update(&bytes);
    }
    Ok(crc.finalize())
}

/// The terms of passages, memory-mapped.
pub(super) struct Postings {
    path: PathBuf,
    field: Field,
    index: Arc<InvertedIndexReader>,
}

impl Postings {
    /// Opens an index of as many passages with this checksum.
    pub fn open(path: &Path, passages: usize, expected: u32) -> Result<Postings, PassageError> {
        let words = || PassageError::words(path);
        let sum = checksum(path)?;
        if sum != expected {
            let expected = format!("{expected:08x}, as in the table beside it");
            return Err(PassageError::damaged(path, format!("files with the checksum {sum:08x}"), expected));
        }
        guarded(path, || {
            let index = Index::open_in_dir(path).map_err(words())?;
            let metas = index.searchable_segment_metas().map_err(words())?;
            let [meta] = &metas[..] else {
                return Err(PassageError::damaged(path, format!("{} segments", metas.len()), "one"));
            };
            if meta.max_doc() as usize != passages || meta.num_docs() as usize != passages {
                let found = format!("an index of {} passages", meta.max_doc());
                return Err(PassageError::damaged(path, found, format!("{passages} as in the table beside it")));
            }
            let field = index.schema().get_field(FIELD).map_err(words())?;
            let reader = SegmentReader::open(&index.segment(meta.clone())).map_err(words())?;
            let inverted = reader.inverted_index(field).map_err(words())?;
            Ok(Postings { path: path.to_owned(), field, index: inverted })
        })
    }

    /// Calls `found` with each passage that has a term, ascending, and how often it does.
    pub fn for_each(&self, term: &str, mut found: impl FnMut(u32, u32)) -> Result<(), PassageError> {
        guarded(&self.path, || {
            let term = Term::from_field_text(self.field, term);
            let read = self.index.read_block_postings(&term, IndexRecordOption::WithFreqs);
            let Some(mut postings): Option<BlockSegmentPostings> = read.map_err(PassageError::io(&self.path))? else {
                return Ok(());
            };
            while !postings.docs().is_empty() {
                for (&passage, &count) in postings.docs().iter().zip(postings.freqs()) {
                    found(passage, count);
                }
                postings.advance();
            }
            Ok(())
        })
    }
}

/// tantivy takes its files for sound and panics on some that are not.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, PassageError>) -> Result<T, PassageError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(PassageError::damaged(path, "an index that cannot be read", "one that tantivy wrote")))
}

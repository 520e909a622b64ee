//! Data preparation: licensed documents become rated, tokenised passages, with a record of where each came from.
//!
//! A folder of prepared data holds `train.safetensors` and `heldout.safetensors` (see [`crate::dataset`]),
//! `tokenizer.json` and `sources.json`, which is written last: a folder without it is not finished.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use rayon::prelude::*;
use safelmm_datastore::document::{self, Document, DocumentError};
use safelmm_model::Rating;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use crate::config::RunConfig;
use crate::dataset::{DatasetError, Passage, PassageWriter};
use crate::passages;
use crate::rating::{StoryGenerator, rating_of};
use crate::report::Report;
use crate::tokenizer::{self, MESSAGE_END, MESSAGE_START, TakeError, Taken};

/// Passages of fewer tokens teach little and are left out.
const SHORTEST_PASSAGE: usize = 24;

/// The name of the generated stories among the sources.
pub const STORIES: &str = "rated stories";

/// What was taken from one source, and what was not.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SourceRecord {
    /// The file, or [`STORIES`].
    pub source: String,
    /// The collections that its documents name as their origin.
    pub collections: BTreeSet<String>,
    /// Each license of what was taken, as an SPDX expression, with its documents.
    pub licenses: BTreeMap<String, usize>,
    /// Titles and authors of the works taken.
    pub works: BTreeSet<String>,
    /// Documents trained on.
    pub documents: usize,
    /// Documents kept out for measuring.
    pub heldout_documents: usize,
    /// Passages trained on.
    pub passages: usize,
    /// Tokens trained on, in one pass.
    pub tokens: usize,
    /// Bytes of text trained on, in one pass.
    pub bytes: usize,
    /// Passages of each rating.
    pub ratings: BTreeMap<Rating, usize>,
    /// How often each passage is seen in an epoch.
    pub repeat: f64,
    /// What was left out, by reason, in documents.
    pub left_out: BTreeMap<String, usize>,
    /// SHA-256 over the ids and texts of the documents trained on, in order.
    pub sha256: String,
    #[serde(skip)]
    hash: Option<Sha256>,
}

impl SourceRecord {
    /// Notes a document that is trained on, or, without a passage that is long enough, one that is not.
    fn take(&mut self, document: &Document, used: bool) {
        if !used || self.repeat == 0.0 {
            *self.left_out.entry("no passage that is long enough, or never repeated".to_owned()).or_default() += 1;
            return;
        }
        self.documents += 1;
        *self.licenses.entry(document.license.to_string()).or_default() += 1;
        self.works.insert(format!("{} — {}", document.title, document.author));
        let hash = self.hash.get_or_insert_default();
        for part in [&document.id, &document.text] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
    }

    fn finish(&mut self) {
        self.sha256 = hex(&self.hash.take().unwrap_or_default().finalize());
    }
}

/// `sources.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sources {
    /// The configuration that the data was made with; a run with other `tokenizer` or `data` settings refuses it.
    pub config: RunConfig,
    /// What was taken from where.
    pub sources: Vec<SourceRecord>,
    /// The filters that every document passed.
    pub filters: Vec<String>,
    /// The languages that passages name by their index, as ISO 639 codes: of two letters where there is one.
    #[serde(default)]
    pub languages: Vec<String>,
    /// The checkpoint whose tokenizer the data was made with; `None` where one was learnt from these sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TakenTokenizer>,
}

impl Sources {
    /// Reads the record of prepared data; also returns its SHA-256, which, since it names the hash of every source,
    /// stands for the data.
    ///
    /// # Errors
    /// When it is missing or damaged.
    pub fn read(data: &Path) -> Result<(Sources, String), DataError> {
        let file = data.join("sources.json");
        let error = |source| DataError::File { file: file.clone(), source };
        let bytes = fs::read(&file).map_err(error)?;
        let sources = serde_json::from_slice(&bytes).map_err(|e| error(e.into()))?;
        Ok((sources, hex(&Sha256::digest(bytes))))
    }
}

/// What is recorded of a tokenizer that was taken from a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TakenTokenizer {
    /// The checkpoint's name.
    pub model: String,
    /// SHA-256 of its `tokenizer.json`.
    pub sha256: String,
}

/// Why data cannot be prepared or read.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A source cannot be read.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The tokenizer cannot be learnt or used.
    #[error("tokenizer: {0}")]
    Tokenizer(tokenizers::Error),
    /// The tokenizer of a checkpoint cannot be taken.
    #[error(transparent)]
    TakenTokenizer(#[from] TakeError),
    /// The result cannot be written.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A file cannot be read or written.
    #[error("{file}: {source}")]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No document may be trained on.
    #[error("{0}: no document of this source may be trained on; its licenses are left out: {1:?}")]
    NothingLeft(String, BTreeMap<String, usize>),
}

/// A document that may be trained on, cleaned.
struct Text {
    document: Document,
    heldout: bool,
}

/// Reads the sources of `config` in `corpora`, and writes prepared data to `out`. The tokenizer is learnt from these
/// sources, or is that of the checkpoint folder `tokenizer`.
///
/// # Errors
/// Names the file, the line and the reason.
pub fn prepare(
    config: &RunConfig,
    corpora: &Path,
    tokenizer: Option<&Path>,
    out: &Path,
    report: &mut Report,
) -> Result<Sources, DataError> {
    let error = |file: &Path| {
        let file = file.to_owned();
        move |source| DataError::File { file, source }
    };
    fs::create_dir_all(out).map_err(error(out))?;
    // What stands there counts as unfinished until the new record is written.
    let record = out.join("sources.json");
    if record.exists() {
        fs::remove_file(&record).map_err(error(&record))?;
    }
    let mut collections = Vec::new();
    for section in &config.data.source {
        let file = corpora.join(&section.file);
        report.line(&format!("reading {}", file.display()));
        let source = section.file.display().to_string();
        let mut record = SourceRecord { source, repeat: section.repeat, ..SourceRecord::default() };
        let heldout = section.heldout.unwrap_or(config.data.heldout);
        let texts = read(&file, &section.languages, heldout, &mut record)?;
        if texts.is_empty() {
            return Err(DataError::NothingLeft(file.display().to_string(), record.left_out));
        }
        collections.push((texts, record));
    }
    let stories = Stories::generate(config);
    let (tokenizer, tokenizer_json, taken) = match tokenizer {
        Some(folder) => {
            let Taken { tokenizer, json, model } = tokenizer::take(folder, config.tokenizer.vocab_size)?;
            report.line(&format!("taking the tokenizer of {model}"));
            let sha256 = hex(&Sha256::digest(&json));
            (tokenizer, json, Some(TakenTokenizer { model, sha256 }))
        }
        None => {
            report.line(&format!("learning a tokenizer of {} tokens", config.tokenizer.vocab_size));
            let sample = tokenizer_sample(config, &collections, &stories);
            let learnt = tokenizer::train(sample.into_iter(), config.tokenizer.vocab_size);
            let tokenizer = learnt.map_err(DataError::Tokenizer)?;
            let json = tokenizer.to_string(true).map_err(DataError::Tokenizer)?.into_bytes();
            (tokenizer, json, None)
        }
    };
    // Spellings of control tokens in documents are ordinary text.
    let mut plain = tokenizer.clone();
    plain.set_encode_special_tokens(true);
    let (mut train, mut heldout) = (PassageWriter::default(), PassageWriter::default());
    let mut records = Vec::new();
    let languages = Languages::of(collections.iter().flat_map(|(texts, _)| texts).map(|text| &text.document.lang[..]));
    for (texts, mut record) in collections {
        report.line(&format!("cutting, rating and tokenising {}", record.source));
        let source = records.len();
        let limit = config.model.context - 2; // the tag or start before the text, the end after it
        let cut: Vec<Vec<Passage>> = texts
            .par_iter()
            .map(|text| {
                let language = languages.index(&text.document.lang);
                tokenise(&plain, &text.document.text, limit, source, language)
            })
            .collect::<Result<_, _>>()
            .map_err(DataError::Tokenizer)?;
        for (text, passages) in texts.iter().zip(cut) {
            if text.heldout {
                passages.into_iter().for_each(|p| heldout.push(p));
            } else {
                record.take(&text.document, !passages.is_empty());
                for passage in passages {
                    count(&mut record, &passage);
                    train.push(passage);
                }
            }
        }
        record.finish();
        records.push(record);
    }
    report.line("tokenising the rated stories");
    let english = languages.index("en");
    records.push(stories.tokenise(&tokenizer, config, records.len(), english, &mut train, &mut heldout)?);
    train.write(&out.join("train.safetensors"))?;
    heldout.write(&out.join("heldout.safetensors"))?;
    let file = out.join("tokenizer.json");
    fs::write(&file, tokenizer_json).map_err(error(&file))?;
    let sources = Sources {
        config: config.clone(),
        sources: records,
        filters: filters(),
        languages: languages.0,
        tokenizer: taken,
    };
    write_json(&out.join("sources.json"), &sources)?;
    Ok(sources)
}

fn filters() -> Vec<String> {
    vec![
        "license of class permissive or share-alike (SPDX), by document".to_owned(),
        "language among those configured for the source".to_owned(),
        format!("passages of at least {SHORTEST_PASSAGE} tokens"),
        "whitespace normalised, Unicode NFC in the tokenizer".to_owned(),
    ]
}

/// Writes a JSON file beside its place and renames it, so that it is there whole or not at all.
///
/// # Errors
/// Names the file.
pub fn write_json(file: &Path, value: &impl Serialize) -> Result<(), DataError> {
    let error = |source| DataError::File { file: file.to_owned(), source };
    let json = serde_json::to_vec_pretty(value).map_err(|e| error(e.into()))?;
    let beside = file.with_extension("json.part");
    fs::write(&beside, json).map_err(error)?;
    fs::rename(&beside, file).map_err(error)
}

fn read(file: &Path, languages: &[String], heldout: f64, record: &mut SourceRecord) -> Result<Vec<Text>, DataError> {
    let mut texts = Vec::new();
    for document in document::read_jsonl(file)? {
        let mut document = document?;
        let mut leave_out = |reason: String| *record.left_out.entry(reason).or_default() += 1;
        if !document.train() {
            leave_out(match document.license.may_train() {
                false => format!("license {}", document.license),
                true => "its rights holder allows no training".to_owned(),
            });
            continue;
        }
        if !languages.is_empty() && !languages.contains(&document.lang) {
            leave_out("language not asked for".to_owned());
            continue;
        }
        document.text = passages::clean(&document.text);
        let heldout = share_of(&document.id) < heldout;
        record.heldout_documents += usize::from(heldout);
        record.collections.insert(document.source.clone());
        texts.push(Text { document, heldout });
    }
    Ok(texts)
}

/// A number from 0 to 1 that depends on the document's id alone, so that a split survives other changes.
fn share_of(id: &str) -> f64 {
    let digest = Sha256::digest(id.as_bytes());
    let head: [u8; 8] = std::array::from_fn(|i| digest[i]);
    u64::from_be_bytes(head) as f64 / u64::MAX as f64
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Text to learn merges from: each language up to its share, stories among the English.
fn tokenizer_sample(config: &RunConfig, collections: &[(Vec<Text>, SourceRecord)], stories: &Stories) -> Vec<String> {
    let mut taken: BTreeMap<&str, usize> = BTreeMap::new();
    let mut sample: Vec<String> = stories.texts.iter().step_by(8).map(|(_, text)| text.clone()).collect();
    // Every n-th document, so that the share of a large source is spread over its works.
    for (texts, _) in collections {
        let english: usize = texts.iter().filter(|t| is_english(&t.document.lang)).map(|t| t.document.text.len()).sum();
        let step = (english / config.tokenizer.english_bytes.max(1) + 1).max(1);
        for (number, Text { document, heldout }) in texts.iter().enumerate() {
            let is_english = is_english(&document.lang);
            if *heldout || (is_english && number % step != 0) {
                continue;
            }
            let limit = if is_english { config.tokenizer.english_bytes } else { config.tokenizer.bytes_per_language };
            let bytes = taken.entry(if is_english { "en" } else { &document.lang }).or_default();
            if *bytes < limit {
                *bytes += document.text.len();
                sample.push(document.text.clone());
            }
        }
    }
    sample
}

/// The languages of all documents, English first since stories are in it; at most 255, those beyond count as the last.
struct Languages(Vec<String>);

impl Languages {
    fn of<'a>(all: impl Iterator<Item = &'a str>) -> Languages {
        let mut known = vec!["en".to_owned()];
        for language in all {
            let code = two_letters(language);
            if !known.iter().any(|k| k == code) && known.len() < 255 {
                known.push(code.to_owned());
            }
        }
        Languages(known)
    }

    fn index(&self, language: &str) -> usize {
        let code = two_letters(language);
        self.0.iter().position(|known| known == code).unwrap_or(self.0.len() - 1)
    }
}

/// ISO 639-1 for the ISO 639-3 codes of the languages that SafeLMM is trained in; others as they are.
fn two_letters(language: &str) -> &str {
    const CODES: &str = "arb ar bul bg ces cs cmn zh dan da deu de ell el eng en est et fin fi fra fr gle ga hin hi \
         hrv hr hun hu ind id ita it jpn ja kor ko lav lv lit lt mlt mt nld nl pol pl por pt ron ro slk sk slv sl spa es \
         swe sv vie vi";
    let mut codes = CODES.split_whitespace();
    while let (Some(three), Some(two)) = (codes.next(), codes.next()) {
        if three == language {
            return two;
        }
    }
    language
}

fn is_english(language: &str) -> bool {
    matches!(language, "en" | "eng")
}

fn tokenise(
    tokenizer: &Tokenizer,
    text: &str,
    limit: usize,
    source: usize,
    language: usize,
) -> tokenizers::Result<Vec<Passage>> {
    let length = |t: &str| tokenizer.encode_fast(t, false).map_or(usize::MAX, |e| e.len());
    passages::cut(text, limit, SHORTEST_PASSAGE, &length)
        .into_iter()
        .filter_map(|text| passage(tokenizer, text, rating_of(text), limit, (source, language)).transpose())
        .collect()
}

/// `None` for the rare passage that grows past the limit when its pieces are joined.
fn passage(
    tokenizer: &Tokenizer,
    text: &str,
    rating: Rating,
    limit: usize,
    (source, language): (usize, usize),
) -> tokenizers::Result<Option<Passage>> {
    let tokens = tokenizer.encode_fast(text, false)?.get_ids().to_vec();
    let fits = tokens.len() <= limit;
    // The markers of a conversation are no text: they count as the tokens that they are, and not as bytes.
    let markers: usize = [MESSAGE_START, MESSAGE_END].iter().map(|m| text.matches(m).count() * m.len()).sum();
    Ok(fits.then(|| Passage { tokens, bytes: text.len() - markers, rating, source, language }))
}

fn count(record: &mut SourceRecord, passage: &Passage) {
    record.passages += 1;
    record.tokens += passage.tokens.len();
    record.bytes += passage.bytes;
    *record.ratings.entry(passage.rating).or_default() += 1;
}

/// Generated stories and conversations, as they stand in the training text. A story's rating is what the rule says of
/// it; a conversation's is a ceiling, since a short question may hold less than it allows.
struct Stories {
    texts: Vec<(Rating, String)>,
}

impl Stories {
    fn generate(config: &RunConfig) -> Stories {
        let section = &config.data.stories;
        let texts = Rating::ALL
            .into_par_iter()
            .flat_map_iter(|rating| {
                // Each rating has a generator of its own, so that the number of one does not change the others.
                let mut generator = StoryGenerator::new(config.seed.wrapping_mul(31).wrapping_add(rating as u64));
                let mut texts = Vec::new();
                for _ in 0..section.per_rating {
                    texts.push((rating, generator.story(rating).text));
                }
                for _ in 0..section.dialogues_per_rating {
                    texts.push((rating, conversation(&generator.dialogue(rating))));
                }
                texts
            })
            .collect();
        Stories { texts }
    }

    fn tokenise(
        self,
        tokenizer: &Tokenizer,
        config: &RunConfig,
        source: usize,
        language: usize,
        train: &mut PassageWriter,
        heldout: &mut PassageWriter,
    ) -> Result<SourceRecord, DataError> {
        let limit = config.model.context - 2;
        let passages: Vec<(usize, Passage)> = self
            .texts
            .par_iter()
            .enumerate()
            .filter_map(|(i, (rating, text))| {
                passage(tokenizer, text, *rating, limit, (source, language)).transpose().map(|p| p.map(|p| (i, p)))
            })
            .collect::<tokenizers::Result<_>>()
            .map_err(DataError::Tokenizer)?;
        let mut record = SourceRecord { source: STORIES.to_owned(), repeat: 1.0, ..SourceRecord::default() };
        let mut hash = Sha256::new();
        for (i, passage) in passages {
            let text = &self.texts[i].1;
            if share_of(text) < config.data.heldout {
                record.heldout_documents += 1;
                heldout.push(passage);
            } else {
                record.documents += 1;
                hash.update(text.as_bytes());
                hash.update([0]);
                count(&mut record, &passage);
                train.push(passage);
            }
        }
        record.licenses.insert("Apache-2.0".to_owned(), record.documents);
        record.works.insert("stories and conversations made by this program's generator".to_owned());
        record.left_out.insert(
            "longer than the context".to_owned(),
            self.texts.len() - record.documents - record.heldout_documents,
        );
        record.sha256 = hex(&hash.finalize());
        Ok(record)
    }
}

/// A conversation in the chat template. The generator's words hold no control tokens, so these spellings are genuine.
fn conversation(turns: &[(String, String)]) -> String {
    turns
        .iter()
        .map(|(user, assistant)| {
            format!("{MESSAGE_START}user\n{user}{MESSAGE_END}\n{MESSAGE_START}assistant\n{assistant}{MESSAGE_END}\n")
        })
        .collect()
}

//! Prepared passages on disk, and the order in which training sees them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use safelmm_model::Rating;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde::{Deserialize, Serialize};

/// One rated, tokenised passage.
#[derive(Clone, Debug, PartialEq)]
pub struct Passage {
    /// The text's tokens, without rating token or end.
    pub tokens: Vec<u32>,
    /// The text's length in bytes.
    pub bytes: usize,
    /// What the text contains.
    pub rating: Rating,
    /// Index into the sources.
    pub source: usize,
    /// Index into the languages.
    pub language: usize,
}

/// Collects passages and writes them as one safetensors file:
/// `tokens` u16 [all tokens], `ends` u64 [passages], `bytes` u32, `ratings` u8, `sources` u8, `languages` u8.
#[derive(Default)]
pub struct PassageWriter {
    tokens: Vec<u8>,
    ends: Vec<u8>,
    bytes: Vec<u8>,
    ratings: Vec<u8>,
    sources: Vec<u8>,
    languages: Vec<u8>,
    total: u64,
}

/// Why prepared passages cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The file cannot be read or written.
    #[error("{file}: {source}")]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is damaged.
    #[error("{file}: {reason}: prepare the data again")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// How.
        reason: String,
    },
}

impl PassageWriter {
    /// Adds a passage. Token ids must fit 16 bits, which the configuration's limit on the vocabulary ensures.
    pub fn push(&mut self, passage: Passage) {
        for token in &passage.tokens {
            self.tokens.extend_from_slice(&(*token as u16).to_le_bytes());
        }
        self.total += passage.tokens.len() as u64;
        self.ends.extend_from_slice(&self.total.to_le_bytes());
        self.bytes.extend_from_slice(&(passage.bytes as u32).to_le_bytes());
        self.ratings.push(passage.rating as u8);
        self.sources.push(passage.source as u8);
        self.languages.push(passage.language as u8);
    }

    /// Writes the file beside its place and renames it.
    ///
    /// # Errors
    /// Names the file.
    pub fn write(&self, file: &Path) -> Result<(), DatasetError> {
        let damaged = |e: SafeTensorError| DatasetError::Damaged { file: file.to_owned(), reason: e.to_string() };
        let n = self.ratings.len();
        let views = [
            ("tokens", Dtype::U16, self.total as usize, &self.tokens),
            ("ends", Dtype::U64, n, &self.ends),
            ("bytes", Dtype::U32, n, &self.bytes),
            ("ratings", Dtype::U8, n, &self.ratings),
            ("sources", Dtype::U8, n, &self.sources),
            ("languages", Dtype::U8, n, &self.languages),
        ];
        let views = views
            .into_iter()
            .map(|(name, dtype, len, data)| Ok((name, TensorView::new(dtype, vec![len], data)?)))
            .collect::<Result<Vec<_>, SafeTensorError>>()
            .map_err(damaged)?;
        let bytes = safetensors::serialize(views, None).map_err(damaged)?;
        let error = |source| DatasetError::File { file: file.to_owned(), source };
        let beside = file.with_extension("part");
        fs::write(&beside, bytes).map_err(error)?;
        fs::rename(&beside, file).map_err(error)
    }
}

/// Prepared passages in memory.
pub struct Dataset {
    /// The passages.
    pub passages: Vec<Passage>,
}

impl Dataset {
    /// Reads a file of [`PassageWriter`].
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn read(file: &Path) -> Result<Dataset, DatasetError> {
        let bytes = fs::read(file).map_err(|source| DatasetError::File { file: file.to_owned(), source })?;
        parse(&bytes)
            .map(|passages| Dataset { passages })
            .map_err(|reason| DatasetError::Damaged { file: file.to_owned(), reason })
    }
}

fn parse(bytes: &[u8]) -> Result<Vec<Passage>, String> {
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let column = |name: &str, dtype: Dtype| -> Result<&[u8], String> {
        let view = tensors.tensor(name).map_err(|e| e.to_string())?;
        if view.dtype() == dtype { Ok(view.data()) } else { Err(format!("{name} is {:?}", view.dtype())) }
    };
    let tokens = column("tokens", Dtype::U16)?.as_chunks::<2>().0;
    let ends = column("ends", Dtype::U64)?.as_chunks::<8>().0;
    let lengths = column("bytes", Dtype::U32)?.as_chunks::<4>().0;
    let (ratings, sources) = (column("ratings", Dtype::U8)?, column("sources", Dtype::U8)?);
    // Data that was prepared before there was this column has one language, of which nothing is known.
    let unknown = vec![0; ends.len()];
    let languages = if tensors.names().contains(&"languages") { column("languages", Dtype::U8)? } else { &unknown };
    if [lengths.len(), ratings.len(), sources.len(), languages.len()].iter().any(|n| *n != ends.len()) {
        return Err("columns differ in length".to_owned());
    }
    let mut start = 0;
    let mut passages = Vec::with_capacity(ends.len());
    for (i, end) in ends.iter().enumerate() {
        let end = u64::from_le_bytes(*end) as usize;
        let slice = tokens.get(start..end).ok_or_else(|| format!("passage {i} ends at {end}"))?;
        let rating = Rating::ALL.get(usize::from(ratings[i])).ok_or_else(|| format!("passage {i} has no rating"))?;
        passages.push(Passage {
            tokens: slice.iter().map(|b| u32::from(u16::from_le_bytes(*b))).collect(),
            bytes: u32::from_le_bytes(lengths[i]) as usize,
            rating: *rating,
            source: usize::from(sources[i]),
            language: usize::from(languages[i]),
        });
        start = end;
    }
    Ok(passages)
}

/// A deterministic hash of a few numbers (SplitMix64's finaliser, chained).
pub fn mix(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0x9E37_79B9_7F4A_7C15, |state, n| {
        let mut z = (state ^ n).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

/// A number from 0 up to 1 out of a hash.
pub fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

/// A place in the order of training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cursor {
    /// The epoch, from 0.
    pub epoch: u64,
    /// The place in it, from 0.
    pub place: usize,
}

/// The order of training: a pure function of (seed, epoch, place), so that a run resumes where it stopped.
pub struct Order {
    seed: u64,
    repeats: Vec<f64>,
    epochs: HashMap<u64, Vec<u32>>,
}

/// One passage as training sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Index into the passages.
    pub passage: usize,
    /// Whether it goes with its rating token, or with the neutral start.
    pub tagged: bool,
}

impl Order {
    /// `repeats`: how often a passage of each source is seen in an epoch.
    pub fn new(seed: u64, repeats: Vec<f64>) -> Order {
        Order { seed, repeats, epochs: HashMap::new() }
    }

    /// The passages of an epoch, shuffled: sources with a fraction are sampled anew in each epoch.
    fn epoch(&mut self, passages: &[Passage], epoch: u64) -> &[u32] {
        let (seed, repeats) = (self.seed, &self.repeats);
        if !self.epochs.contains_key(&epoch) {
            self.epochs.clear();
        }
        self.epochs.entry(epoch).or_insert_with(|| {
            let mut order: Vec<(u64, u32)> = Vec::new();
            for (i, passage) in passages.iter().enumerate() {
                let repeat = repeats.get(passage.source).copied().unwrap_or(1.0);
                let extra = unit(mix(&[seed, 1, epoch, i as u64])) < repeat.fract();
                for copy in 0..repeat as u64 + u64::from(extra) {
                    order.push((mix(&[seed, 2, epoch, i as u64, copy]), i as u32));
                }
            }
            order.sort_unstable();
            order.into_iter().map(|(_, i)| i).collect()
        })
    }

    /// The visit at a place of an epoch, or `None` past its end.
    pub fn visit(&mut self, passages: &[Passage], epoch: u64, place: usize, untagged: f64) -> Option<Visit> {
        let passage = *self.epoch(passages, epoch).get(place)? as usize;
        let tagged = unit(mix(&[self.seed, 3, epoch, place as u64])) >= untagged;
        Some(Visit { passage, tagged })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passages() -> Vec<Passage> {
        (0..200)
            .map(|i| Passage {
                tokens: (0..i % 7 + 1).collect(),
                bytes: i as usize * 3,
                rating: Rating::ALL[i as usize % 4],
                source: i as usize % 3,
                language: i as usize % 5,
            })
            .collect()
    }

    #[test]
    fn what_is_written_is_read_and_damage_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("train.safetensors");
        let mut writer = PassageWriter::default();
        passages().into_iter().for_each(|p| writer.push(p));
        writer.write(&file).unwrap();
        assert_eq!(Dataset::read(&file).unwrap().passages, passages());
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
        let message = Dataset::read(&file).err().unwrap().to_string();
        assert!(message.contains("train.safetensors") && message.contains("prepare the data again"), "{message}");
    }

    #[test]
    fn the_order_depends_on_seed_and_epoch_alone_and_keeps_the_mix() {
        let passages = passages();
        let all = |seed: u64, epoch: u64| -> Vec<Visit> {
            let mut order = Order::new(seed, vec![1.0, 2.5, 0.0]);
            (0..).map_while(|place| order.visit(&passages, epoch, place, 0.05)).collect()
        };
        let visits = all(1, 0);
        assert_eq!(visits, all(1, 0));
        assert_ne!(visits, all(1, 1));
        assert_ne!(visits, all(2, 0));
        let of = |source| visits.iter().filter(|v| passages[v.passage].source == source).count();
        assert_eq!((of(0), of(2)), (67, 0));
        assert!((67 * 2..=67 * 3).contains(&of(1)), "{}", of(1));
        // Jumping straight to a place finds the same visit.
        let mut order = Order::new(1, vec![1.0, 2.5, 0.0]);
        assert_eq!(order.visit(&passages, 0, 100, 0.05), Some(visits[100]));
        assert_eq!(order.visit(&passages, 0, visits.len(), 0.05), None);
    }
}

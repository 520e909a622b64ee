//! Sorting the suffixes, by induced sorting (SA-IS: Nong, Zhang, Chan 2011) as `libsais` does it, in linear time.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use libsais::SuffixArrayConstruction;

use super::documents::Documents;
use super::{SuffixError, format};

/// Tokens and documents together may be as many.
const MOST: usize = i32::MAX as usize - 1;

/// Sorts the suffixes of all documents and writes `dir/suffix.bin`; the folder is made if need be.
///
/// `starts` holds the first token of each document, ascending from 0. Needs 12 bytes of memory a token. The same tokens
/// give the same file.
///
/// # Errors
/// [`SuffixError`]: starts that do not fit, too many tokens, no memory, the file, or `stop`, which is looked at between
/// the steps.
pub(super) fn build(dir: &Path, tokens: &[u32], starts: &[u32], stop: &AtomicBool) -> Result<(), SuffixError> {
    if tokens.len().saturating_add(starts.len()) > MOST {
        return Err(SuffixError::TooLong { tokens: tokens.len(), documents: starts.len(), most: MOST });
    }
    let documents = Documents::new(starts, tokens.len())?;
    let going = || if stop.load(Ordering::Relaxed) { Err(SuffixError::Stopped) } else { Ok(()) };
    going()?;

    let mut counts: HashMap<u32, u32> = HashMap::new();
    for &token in tokens {
        *counts.entry(token).or_insert(0) += 1;
    }
    let mut ids: Vec<u32> = counts.keys().copied().collect();
    ids.sort_unstable();
    let ranks: HashMap<u32, i32> = ids.iter().zip(starts.len() as i32..).map(|(&id, rank)| (id, rank)).collect();

    // Each document is followed by a separator of its own, less than every token and ascending: so no comparison goes
    // beyond a document's end, and equal suffixes are in the order of their documents, whatever follows them.
    let mut text: Vec<i32> = Vec::with_capacity(tokens.len() + starts.len());
    for document in 0..starts.len() as u32 {
        let range = documents.range(document);
        text.extend(tokens[range.start as usize..range.end as usize].iter().map(|token| ranks[token]));
        text.push(document as i32);
    }
    going()?;
    let sorted = if text.is_empty() { Vec::new() } else { sort(&mut text)? };
    drop(text);
    going()?;

    // The suffixes that begin with a separator come first. A position of the text less the separators before it is one
    // of the tokens.
    let positions = positions(&sorted, starts);
    drop(sorted);
    let mut heads = Vec::with_capacity(ids.len() + 1);
    let mut head = 0;
    for id in &ids {
        heads.push(head);
        head += counts[id];
    }
    heads.push(head);
    going()?;
    std::fs::create_dir_all(dir).map_err(SuffixError::io(dir))?;
    let path = dir.join(format::FILE);
    format::write(&path, starts.len(), &ids, &heads, &positions).map_err(SuffixError::io(&path))
}

fn sort(text: &mut [i32]) -> Result<Vec<i32>, SuffixError> {
    let length = text.len();
    SuffixArrayConstruction::for_text_mut(text)
        .in_owned_buffer32()
        .single_threaded()
        .run()
        .map(|sorted| sorted.into_vec())
        .map_err(|e| SuffixError::Sort(format!("{e:?}"), length.div_ceil(1 << 20) * 12))
}

/// Suffixes of the text with separators as positions among the tokens, those of the separators left out.
fn positions(sorted: &[i32], starts: &[u32]) -> Vec<u32> {
    // Where each document begins in the text: its first token and the separators before it.
    let begins: Vec<u32> = starts.iter().zip(0..).map(|(start, document)| start + document).collect();
    sorted
        .iter()
        .skip(starts.len())
        .map(|&at| at as u32 - (begins.partition_point(|&begin| begin <= at as u32).saturating_sub(1)) as u32)
        .collect()
}

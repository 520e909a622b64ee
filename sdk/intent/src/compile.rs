//! From data files to one sorted table of terms, when a policy is built.
//!
//! A file is named by a language's code, or `xx.txt` for terms of every language. Its lines:
//!
//! ```text
//! # a comment
//! CLASS: term, term of words, stem*, *inside*, =exact*
//!     more terms of the same class
//! @key: a message
//! ```
//!
//! `*` at the end of a word lets it go on, `*` at the front lets the term begin inside a word, `=` wants the accents as they are
//! written. In Chinese, Japanese and Korean every term may begin and end anywhere.

use std::collections::BTreeMap;
use std::path::Path;

use unicode_normalization::UnicodeNormalization;

use crate::lexicon::{EXACT, INSIDE, OPEN, REST};
use crate::{Language, Mask, Normal};

/// Why a data file cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The file's name is not that of a language.
    #[error("{0}: the name of a data file is a language's code, such as de.txt, or xx.txt")]
    Name(String),
    /// A line is neither a class, a message, a comment nor a continuation.
    #[error("{file}:{line}: expected `CLASS: term, term`, `@key: text` or more terms behind spaces")]
    Line {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
    },
    /// A term without a word, with a sentence's end inside, or too short to begin inside a word.
    #[error("{file}:{line}: `{term}` is no term: it needs at least one word, two bytes and no sentence end")]
    Term {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What stands there.
        term: String,
    },
    /// There are more classes than a table holds.
    #[error("more than 120 classes")]
    Classes,
    /// A folder or file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Its path.
        path: String,
        /// What went wrong.
        source: std::io::Error,
    },
}

#[derive(Default)]
struct Builder {
    classes: Vec<String>,
    /// Folded term, class, flags, exact form → languages.
    terms: BTreeMap<(String, u8, u8, String), u32>,
    messages: BTreeMap<(u8, String), String>,
}

/// Compiles every `.txt` file of the folders into the bytes that [`crate::Lexicon::new`] reads.
///
/// # Errors
/// A file that cannot be read or understood, with its line.
pub fn compile_folder(folders: &[&Path]) -> Result<Vec<u8>, CompileError> {
    let mut files = Vec::new();
    for folder in folders {
        let io = |source| CompileError::Io { path: folder.display().to_string(), source };
        for entry in std::fs::read_dir(folder).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if path.extension().is_some_and(|e| e == "txt") {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                files.push((name, std::fs::read_to_string(&path).map_err(io)?));
            }
        }
    }
    files.sort();
    compile(files.iter().map(|(name, text)| (name.as_str(), text.as_str())))
}

/// Compiles data files, each with the name of its language.
///
/// # Errors
/// The first line that is not understood.
pub fn compile<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Vec<u8>, CompileError> {
    let mut builder = Builder::default();
    builder.classes.push("words".into());
    for (name, text) in files {
        builder.file(name, text)?;
    }
    Ok(builder.finish())
}

impl Builder {
    fn file(&mut self, name: &str, text: &str) -> Result<(), CompileError> {
        let language = Language::of(name);
        if language.is_none() && name != "xx" {
            return Err(CompileError::Name(name.into()));
        }
        let mut class = None;
        for (i, line) in text.lines().enumerate() {
            let wrong = || CompileError::Line { file: name.into(), line: i + 1 };
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let terms = if line.starts_with([' ', '\t']) {
                line
            } else {
                let (head, rest) = line.split_once(':').ok_or_else(wrong)?;
                if let Some(key) = head.strip_prefix('@') {
                    let language = language.ok_or_else(wrong)?;
                    self.messages.insert((language.index() as u8, key.trim().into()), rest.trim().into());
                    continue;
                }
                class = Some(self.class(head.trim())?);
                rest
            };
            let class = class.ok_or_else(wrong)?;
            for term in terms.split(',').map(str::trim).filter(|t| !t.is_empty()) {
                let unfit = || CompileError::Term { file: name.into(), line: i + 1, term: term.into() };
                self.term(language, class, term).ok_or_else(unfit)?;
            }
        }
        Ok(())
    }

    fn class(&mut self, name: &str) -> Result<u8, CompileError> {
        if let Some(i) = self.classes.iter().position(|c| c == name) {
            return Ok(i as u8);
        }
        self.classes.push(name.into());
        if self.classes.len() > 120 { Err(CompileError::Classes) } else { Ok(self.classes.len() as u8 - 1) }
    }

    fn term(&mut self, language: Option<Language>, class: u8, term: &str) -> Option<()> {
        let mut flags = 0;
        let mut term = term;
        if let Some(rest) = term.strip_prefix('=') {
            (term, flags) = (rest, flags | EXACT);
        }
        if let Some(rest) = term.strip_prefix('*') {
            (term, flags) = (rest, flags | INSIDE);
        }
        if let Some(rest) = term.strip_suffix('*') {
            (term, flags) = (rest, flags | OPEN);
        }
        if language.is_some_and(|l| ["zh", "ja", "ko"].contains(&l.code())) {
            flags |= INSIDE | OPEN;
        }
        let words: Vec<Normal> = term.split("* ").map(Normal::of).collect();
        let folded = words.iter().map(Normal::text).collect::<Vec<_>>().join(&format!("{} ", char::from(REST)));
        let long = words[0].text().len() > usize::from(flags & INSIDE != 0 || words.len() > 1);
        if words.iter().any(|w| w.sentences().len() != 1) || !long || (flags & EXACT != 0 && words.len() > 1) {
            return None;
        }
        let exact = if flags & EXACT != 0 { term.nfc().collect::<String>().to_lowercase() } else { String::new() };
        let mask = language.map_or(Mask::ALL, Mask::only);
        *self.terms.entry((folded, class, flags, exact)).or_default() |= mask.0;
        Some(())
    }

    /// Little-endian: names of classes; messages; the table of terms that begin words, and of those that begin anywhere.
    fn finish(self) -> Vec<u8> {
        let mut out = Vec::new();
        let string = |out: &mut Vec<u8>, s: &str| {
            out.extend((s.len() as u32).to_le_bytes());
            out.extend(s.as_bytes());
        };
        out.extend((self.classes.len() as u32).to_le_bytes());
        self.classes.iter().for_each(|c| string(&mut out, c));
        out.extend((self.messages.len() as u32).to_le_bytes());
        for ((language, key), text) in &self.messages {
            out.push(*language);
            string(&mut out, key);
            string(&mut out, text);
        }
        for inside in [0, INSIDE] {
            let terms: Vec<_> = self.terms.iter().filter(|((_, _, flags, _), _)| flags & INSIDE == inside).collect();
            out.extend((terms.len() as u32).to_le_bytes());
            for ((folded, class, flags, exact), mask) in terms {
                out.extend(mask.to_le_bytes());
                out.extend([*class, *flags]);
                string(&mut out, folded);
                if flags & EXACT != 0 {
                    string(&mut out, exact);
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let error = |name, text| compile([(name, text)]).unwrap_err().to_string();
        assert!(error("qq", "").contains("qq"));
        assert!(error("de", "A: b\nnonsense").contains("de:2"));
        assert!(error("de", "  b").contains("de:1"));
        assert!(error("de", "A: a. b").contains("`a. b`"));
        assert!(error("xx", "@key: text").contains("xx:1"));
    }
}

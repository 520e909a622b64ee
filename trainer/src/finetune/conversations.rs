//! Conversations in JSON lines, tokenised in the model's chat template, with losses on the assistant's answers alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use safelmm_model::ops::IGNORE;
use safelmm_model::{ChatMessage, Rating, Tokenizer, TokenizerError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::data::hex;

/// One line of an instruction file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversation {
    /// Names it, once in all files.
    pub id: String,
    /// The language, as a BCP 47 tag.
    pub lang: String,
    /// What it teaches, such as `self-harm` or `helpful`.
    pub topic: String,
    /// The ceiling that the answers keep.
    pub rating: Rating,
    /// Messages: a system message or none, then user and assistant in turns, an assistant's at the end.
    pub messages: Vec<Message>,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// A conversation as it is trained on, without what stands before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokenised {
    /// The chat template's tokens.
    pub tokens: Vec<u32>,
    /// For each of them, whether it is part of an answer: its text or the token that ends it.
    pub answer: Vec<bool>,
    /// The ceiling that the answers keep.
    pub rating: Rating,
    /// Bytes of the answers.
    pub bytes: usize,
}

impl Tokenised {
    /// Inputs and targets: `start`, then the tokens; only answers are targets.
    pub fn frame(&self, start: u32) -> (Vec<u32>, Vec<u32>) {
        let inputs = [start].into_iter().chain(self.tokens[..self.tokens.len() - 1].iter().copied()).collect();
        let targets =
            self.tokens.iter().zip(&self.answer).map(|(token, answer)| if *answer { *token } else { IGNORE }).collect();
        (inputs, targets)
    }
}

/// What was read, for the record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InstructionRecord {
    /// The files, by their names.
    pub files: Vec<String>,
    /// SHA-256 over their contents, in order.
    pub sha256: String,
    /// Conversations trained on.
    pub conversations: usize,
    /// Conversations kept out for measuring.
    pub heldout_conversations: usize,
    /// Conversations of each language.
    pub languages: BTreeMap<String, usize>,
    /// Conversations of each topic.
    pub topics: BTreeMap<String, usize>,
    /// Conversations longer than the context, left out.
    pub too_long: usize,
}

/// Why instructions cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InstructionError {
    /// A file cannot be read.
    #[error("{file}: {source}")]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is no conversation.
    #[error("{file}:{line}: {reason}")]
    Line {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// The tokenizer cannot render a conversation.
    #[error("{id}: {source}")]
    Tokenizer {
        /// The conversation.
        id: String,
        /// Why.
        source: TokenizerError,
    },
    /// The chat template changes what stands before an answer, so that nobody can say where the answer begins.
    #[error(
        "{id}: the model's chat template shows the messages before an answer differently once the answer is there: \
         answers cannot be told apart from questions with it"
    )]
    Template {
        /// The conversation.
        id: String,
    },
    /// Nothing is left.
    #[error("no conversation to train on: {0} are longer than the context")]
    Nothing(usize),
}

/// Reads instruction files, in order; returns the conversations and the SHA-256 of the files.
///
/// # Errors
/// Names the file and the line.
pub fn read(files: &[PathBuf]) -> Result<(Vec<Conversation>, String), InstructionError> {
    let (mut all, mut ids, mut hasher) = (Vec::new(), BTreeSet::new(), Sha256::new());
    for file in files {
        let text = fs::read_to_string(file).map_err(|source| InstructionError::File { file: file.clone(), source })?;
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(&text);
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let wrong = |reason: String| InstructionError::Line { file: file.clone(), line: i + 1, reason };
            let conversation: Conversation = serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
            check(&conversation).map_err(&wrong)?;
            if !ids.insert(conversation.id.clone()) {
                return Err(wrong(format!("the id {:?} is there twice", conversation.id)));
            }
            all.push(conversation);
        }
    }
    Ok((all, hex(&hasher.finalize())))
}

fn check(conversation: &Conversation) -> Result<(), String> {
    let mut messages = conversation.messages.as_slice();
    if let [first, rest @ ..] = messages
        && first.role == "system"
    {
        messages = rest;
    }
    if messages.is_empty() || !messages.len().is_multiple_of(2) {
        return Err("expected user and assistant in turns, an assistant's message at the end".to_owned());
    }
    for (i, message) in messages.iter().enumerate() {
        let expected = ["user", "assistant"][i % 2];
        if message.role != expected {
            return Err(format!("the role of message {} is {:?}: expected {expected}", i + 1, message.role));
        }
        if message.content.trim().is_empty() {
            return Err(format!("message {} says nothing", i + 1));
        }
    }
    Ok(())
}

/// Tokenises a conversation; the answers are what the template adds to what it shows when an answer is asked for.
///
/// # Errors
/// A template that cannot render it, or that changes what stands before an answer.
pub fn tokenise(tokenizer: &Tokenizer, conversation: &Conversation) -> Result<Tokenised, InstructionError> {
    let messages: Vec<ChatMessage> = conversation
        .messages
        .iter()
        .map(|m| ChatMessage { role: m.role.clone(), content: m.content.clone(), ..ChatMessage::default() })
        .collect();
    let id = || conversation.id.clone();
    let encode = |messages: &[ChatMessage], prompt: bool| {
        let encoded = tokenizer.encode_chat(messages, &[], prompt);
        encoded.map_err(|source| InstructionError::Tokenizer { id: id(), source })
    };
    let tokens = encode(&messages, false)?;
    let mut answer = vec![false; tokens.len()];
    for (i, _) in messages.iter().enumerate().filter(|(_, m)| m.role == "assistant") {
        let (before, with) = (encode(&messages[..i], true)?, encode(&messages[..=i], false)?);
        if !(with.starts_with(&before) && tokens.starts_with(&with)) {
            return Err(InstructionError::Template { id: id() });
        }
        // What comes behind the token that ends the answer is the template's, and never generated.
        let end = (before.len()..with.len()).find(|&place| tokenizer.eos_ids().contains(&with[place]));
        answer[before.len()..end.map_or(with.len(), |end| end + 1)].fill(true);
    }
    if !answer.contains(&true) {
        return Err(InstructionError::Template { id: id() });
    }
    let answers = conversation.messages.iter().filter(|m| m.role == "assistant");
    let bytes = answers.map(|m| m.content.len()).sum();
    Ok(Tokenised { tokens, answer, rating: conversation.rating, bytes })
}

/// The instruction files of a path: itself, or the `.jsonl` files of a folder in the order of their names.
///
/// # Errors
/// A folder that cannot be listed.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, InstructionError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let error = |source| InstructionError::File { file: path.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(error)? {
        let file = entry.map_err(error)?.path();
        if file.extension().is_some_and(|extension| extension == "jsonl") {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}

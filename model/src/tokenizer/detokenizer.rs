//! Decoding token by token.

use std::collections::HashSet;

use super::{Tokenizer, TokenizerError};

/// How a tokenizer turns tokens into text, which decides how soon a token's text is certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DecodingScheme {
    /// Each token is bytes; text is certain as soon as a character is whole.
    ByteLevel,
    /// Tokens are text, and `<0xE4>` are bytes. A run of byte tokens is certain only when it ends: the decoder reads a
    /// run as UTF-8 or, if any of it is not, as one U+FFFD for each byte.
    ByteFallback,
    /// Tokens are text; only the space before the first is special.
    Text,
}

impl DecodingScheme {
    pub fn of(tokenizer: &tokenizers::Tokenizer) -> Self {
        let json = tokenizer.get_decoder().and_then(|d| serde_json::to_value(d).ok()).unwrap_or_default();
        let mut steps = Vec::new();
        collect_steps(&json, &mut steps);
        if steps.contains(&"ByteFallback") {
            Self::ByteFallback
        } else if steps.contains(&"ByteLevel") && steps.iter().all(|s| matches!(*s, "ByteLevel" | "Fuse")) {
            Self::ByteLevel
        } else {
            Self::Text
        }
    }
}

fn collect_steps<'a>(json: &'a serde_json::Value, steps: &mut Vec<&'a str>) {
    match json.get("decoders").and_then(|d| d.as_array()) {
        Some(inner) => inner.iter().for_each(|step| collect_steps(step, steps)),
        None => steps.extend(json.get("type").and_then(|t| t.as_str())),
    }
}

/// The state of decoding one sequence. What the pushes and [`Self::finish`] return, put together, is exactly
/// [`Tokenizer::decode`] of all ids without special tokens; each push costs the same however long the sequence is.
#[derive(Clone, Debug, Default)]
pub struct Detokenizer {
    /// Byte level: the beginning of a character, at most three bytes.
    bytes: Vec<u8>,
    /// Else: the last tokens whose text was given out, so that the next ones do not count as the first of the text,
    context: Vec<u32>,
    /// their text,
    context_text: String,
    /// and the tokens whose text is not certain yet.
    pending: Vec<u32>,
    shows_tool_markers: bool,
}

impl Detokenizer {
    pub(super) fn showing_tool_markers() -> Self {
        Self { shows_tool_markers: true, ..Self::default() }
    }

    /// Takes the next token and returns the text that is certain now: whole characters only, `""` while a character (or
    /// a run of byte tokens) is incomplete, and `""` for special tokens.
    ///
    /// # Errors
    /// [`TokenizerError::Decode`] where the decoder fails.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String, TokenizerError> {
        let Some(token) = tokenizer.token_text(id) else { return Ok(String::new()) };
        if self.shows_tool_markers && tokenizer.tool_marker_ids.contains(&id) {
            return Ok(self.take(tokenizer)? + &token);
        }
        if tokenizer.whole.get_added_vocabulary().is_special_token(&token) {
            return Ok(String::new());
        }
        match tokenizer.scheme {
            DecodingScheme::ByteLevel => {
                push_byte_level(&token, &mut self.bytes);
                Ok(take_characters(&mut self.bytes))
            }
            scheme => {
                self.pending.push(id);
                if scheme == DecodingScheme::ByteFallback && byte_token(&token).is_some() {
                    return Ok(String::new());
                }
                self.settle(tokenizer)
            }
        }
    }

    /// Ends the sequence and returns what was held back, U+FFFD for a character that never became whole. Afterwards the
    /// detokenizer is as new.
    ///
    /// # Errors
    /// [`TokenizerError::Decode`] where the decoder fails.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String, TokenizerError> {
        let text = self.take(tokenizer)?;
        *self = Self { shows_tool_markers: self.shows_tool_markers, ..Self::default() };
        Ok(text)
    }

    /// What was held back.
    fn take(&mut self, tokenizer: &Tokenizer) -> Result<String, TokenizerError> {
        let text = String::from_utf8_lossy(&std::mem::take(&mut self.bytes)).into_owned();
        Ok(if self.pending.is_empty() { text } else { text + &self.settle(tokenizer)? })
    }

    /// The text of the pending tokens, which become context.
    fn settle(&mut self, tokenizer: &Tokenizer) -> Result<String, TokenizerError> {
        let mut ids = std::mem::take(&mut self.context);
        ids.append(&mut self.pending);
        let text = tokenizer.decode(&ids, true)?;
        let Some(new_text) = text.strip_prefix(self.context_text.as_str()).map(str::to_owned) else {
            return Err(TokenizerError::Decode(format!(
                "the decoder changes text it has given out: {:?} became {text:?}; use a decoder that only appends",
                self.context_text
            )));
        };
        // The shortest context with a text of its own: after one without, the next token might count as the first.
        for length in [1, 2, 4] {
            let tail = &ids[ids.len().saturating_sub(length)..];
            self.context_text = tokenizer.decode(tail, true)?;
            self.context = tail.to_vec();
            if !self.context_text.is_empty() {
                break;
            }
        }
        Ok(new_text)
    }
}

impl Tokenizer {
    /// What each token id adds to a text that it neither begins nor ends, up to [`Self::vocab_size`]: nothing for control
    /// tokens, for ids without a token, and for tokens whose text depends on more than that.
    ///
    /// # Errors
    /// [`TokenizerError::Decode`] where the decoder fails, or treats every token as it does the first or last.
    pub fn token_bytes(&self) -> Result<Vec<Vec<u8>>, TokenizerError> {
        // Decoding between two such tokens shows a token as it is inside a text.
        let mut frame = None;
        if self.scheme != DecodingScheme::ByteLevel {
            let letters = ('a'..='z').chain('A'..='Z').flat_map(|c| [c.to_string(), format!("▁{c}")]);
            for id in letters.filter_map(|letter| self.token_id(&letter)) {
                let text = self.decode(&[id], true)?;
                if !text.is_empty() && self.decode(&[id, id], true)?.ends_with(&text) {
                    frame = Some((id, text));
                    break;
                }
            }
            if frame.is_none() {
                return Err(TokenizerError::Decode("no token is a letter, as far as the decoder shows".into()));
            }
        }
        let controls: HashSet<u32> = self.control_ids.iter().copied().collect();
        let mut all = vec![Vec::new(); self.vocab_size];
        for (id, bytes) in (0..).zip(&mut all) {
            let Some(token) = self.token_text(id) else { continue };
            if controls.contains(&id) {
                continue;
            }
            let Some((letter, text)) = &frame else {
                push_byte_level(&token, bytes);
                continue;
            };
            if let Some(byte) = byte_token(&token).filter(|_| self.scheme == DecodingScheme::ByteFallback) {
                bytes.push(byte);
                continue;
            }
            let framed = self.decode(&[*letter, id, *letter], true)?;
            let inner = framed.strip_prefix(text).and_then(|rest| rest.strip_suffix(text)).unwrap_or_default();
            // Part of a character, which the decoder cannot show.
            if !inner.contains(char::REPLACEMENT_CHARACTER) || token.contains(char::REPLACEMENT_CHARACTER) {
                bytes.extend_from_slice(inner.as_bytes());
            }
        }
        Ok(all)
    }
}

/// Removes from `bytes` all that is certain, U+FFFD for each invalid sequence as `String::from_utf8_lossy` puts it, and
/// leaves the beginning of a character.
fn take_characters(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut rest = bytes.as_slice();
    loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                rest = &[];
                break;
            }
            Err(error) => {
                let (valid, after) = rest.split_at(error.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                rest = after;
                match error.error_len() {
                    Some(invalid) => {
                        text.push(char::REPLACEMENT_CHARACTER);
                        rest = &rest[invalid..];
                    }
                    None => break,
                }
            }
        }
    }
    *bytes = rest.to_vec();
    text
}

/// The bytes of a byte-level token; a token with a character outside the byte alphabet stands for itself.
fn push_byte_level(token: &str, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    for c in token.chars() {
        match byte_of(c) {
            Some(byte) => bytes.push(byte),
            None => {
                bytes.truncate(start);
                bytes.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

/// The byte a character of GPT-2's byte alphabet stands for: printable Latin-1 bytes stand for themselves, the 68 others
/// are U+0100 and on, in order.
fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => u8::try_from(code).ok(),
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(), // 0x00..=0x20
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7F).ok(), // 0x7F..=0xA0
        0x143 => Some(0xAD),
        _ => None,
    }
}

/// The byte as which the byte-fallback decoder reads this token.
fn byte_token(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>').filter(|hex| hex.len() == 2)?;
    u8::from_str_radix(hex, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{byte_level, llama_like, metaspace_first};
    use super::*;
    use proptest::prelude::*;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> String {
        let mut state = tokenizer.detokenizer();
        let mut text: String = ids.iter().map(|&id| state.push(tokenizer, id).unwrap()).collect();
        text += &state.finish(tokenizer).unwrap();
        text
    }

    #[test]
    fn the_byte_alphabet_is_the_librarys() {
        let alphabet = ByteLevel::alphabet();
        let bytes: std::collections::BTreeSet<u8> = alphabet.iter().map(|&c| byte_of(c).unwrap()).collect();
        assert_eq!((alphabet.len(), bytes.len()), (256, 256));
        let tokenizer = byte_level();
        for c in alphabet {
            let id = tokenizer.token_id(&c.to_string()).unwrap();
            let byte = byte_of(c).unwrap();
            assert_eq!(tokenizer.decode(&[id], false).unwrap(), String::from_utf8_lossy(&[byte]), "byte {byte:#x}");
        }
    }

    #[test]
    fn half_a_character_is_held_back() {
        let tokenizer = byte_level();
        let ids = tokenizer.encode("é🦀", false).unwrap();
        assert_eq!(ids.len(), 6, "one token for each byte");
        let mut state = tokenizer.detokenizer();
        let parts: Vec<String> = ids.iter().map(|&id| state.push(&tokenizer, id).unwrap()).collect();
        assert_eq!(parts, ["", "é", "", "", "", "🦀"]);
        assert_eq!(state.finish(&tokenizer).unwrap(), "");
        let mut state = tokenizer.detokenizer();
        assert_eq!(state.push(&tokenizer, ids[0]).unwrap(), "");
        assert_eq!(state.finish(&tokenizer).unwrap(), "\u{FFFD}");
    }

    #[test]
    fn spaces_survive_and_byte_runs_wait() {
        let tokenizer = llama_like();
        let ids = tokenizer.encode("a  b é", false).unwrap();
        assert_eq!(streamed(&tokenizer, &ids), "a  b é");
        let byte = |b: &str| tokenizer.token_id(b).unwrap();
        let a = tokenizer.token_id("a").unwrap();
        let mut state = tokenizer.detokenizer();
        assert_eq!(state.push(&tokenizer, byte("<0xC3>")).unwrap(), "");
        assert_eq!(state.push(&tokenizer, byte("<0xA9>")).unwrap(), "");
        assert_eq!(state.push(&tokenizer, a).unwrap(), "éa");
        assert_eq!(state.push(&tokenizer, byte("<0xC3>")).unwrap(), "");
        assert_eq!(state.finish(&tokenizer).unwrap(), "\u{FFFD}");
    }

    #[test]
    fn the_context_does_not_grow() {
        for tokenizer in [byte_level(), llama_like(), metaspace_first()] {
            let ids = tokenizer.encode("ab cd  ", false).unwrap();
            let mut state = tokenizer.detokenizer();
            for _ in 0..200 {
                for &id in &ids {
                    state.push(&tokenizer, id).unwrap();
                }
                assert!(state.context.len() <= 4 && state.pending.is_empty() && state.bytes.len() < 4);
            }
        }
    }

    #[test]
    fn the_bytes_of_tokens_are_their_part_of_the_text() {
        for tokenizer in [byte_level(), llama_like(), metaspace_first()] {
            let bytes = tokenizer.token_bytes().unwrap();
            assert_eq!(bytes.len(), tokenizer.vocab_size());
            assert!(tokenizer.control_ids().iter().all(|&id| bytes[id as usize].is_empty()));
            let ids = tokenizer.encode("hi  hi a é", false).unwrap();
            let joined: Vec<u8> = ids.iter().flat_map(|&id| bytes[id as usize].clone()).collect();
            let first_space = usize::from(joined[0] == b' ');
            assert_eq!(String::from_utf8_lossy(&joined[first_space..]), tokenizer.decode(&ids, true).unwrap());
        }
        let tokenizer = byte_level();
        let call = tokenizer.token_id("<tool_call>").unwrap();
        assert_eq!(tokenizer.token_bytes().unwrap()[call as usize], b"<tool_call>");
    }

    proptest! {
        #[test]
        fn streaming_equals_decoding(ids in prop::collection::vec(0u32..400, 0..60), known in any::<bool>()) {
            for tokenizer in [byte_level(), llama_like(), metaspace_first()] {
                let bound = u32::try_from(tokenizer.vocab_size()).unwrap();
                let ids: Vec<u32> = ids.iter().map(|id| if known { id % bound } else { *id }).collect();
                prop_assert_eq!(streamed(&tokenizer, &ids), tokenizer.decode(&ids, true).unwrap());
            }
        }

        #[test]
        fn streaming_gives_back_texts(text in "(\\PC| |é|日|🦀|\n){0,40}") {
            let tokenizer = byte_level();
            let ids = tokenizer.encode(&text, false).unwrap();
            prop_assert_eq!(streamed(&tokenizer, &ids), text);
        }
    }
}

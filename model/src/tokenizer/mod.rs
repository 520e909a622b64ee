//! Text to token ids and back.
//!
//! A [`Tokenizer`] keeps two tokenizers made from one `tokenizer.json`. The *whole* one knows every added token; it
//! decodes and names ids. The *text* one has lost its control tokens: whatever a text spells, it cannot yield one. This is
//! stronger than `set_encode_special_tokens` of the `tokenizers` crate, which spares added tokens that are not marked
//! special (`<tool_call>`) and models that hold a control token in their own vocabulary.
//!
//! Added tokens made of whitespace alone (GPT-NeoX's runs of spaces) and single characters, when not marked special, are
//! ordinary text and stay in the text tokenizer, so that ids of ordinary text equal those of `tokenizers`.

mod chat;
mod control;
mod detokenizer;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod tool_tests;
mod tools;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use tokenizers::{AddedToken, AddedVocabulary, ModelWrapper, PreTokenizerWrapper};

pub use chat::ChatMessage;
pub use detokenizer::Detokenizer;
pub use tools::{Tool, ToolCall, ToolError, ToolFormat, ToolParser, ToolPiece};

use crate::rating::Rating;
use chat::{ChatTemplate, SpecialTexts};
use control::{Control, Controls, Piece};
use detokenizer::DecodingScheme;

/// The files a tokenizer is made of, already read.
#[derive(Clone, Debug, Default)]
pub struct TokenizerParts<'a> {
    /// `tokenizer.json`.
    pub tokenizer_json: &'a [u8],
    /// `tokenizer_config.json`: names of the special tokens, and often the chat template.
    pub tokenizer_config: Option<&'a [u8]>,
    /// `chat_template.jinja`; goes before the template in `tokenizer_config.json`.
    pub chat_template: Option<&'a str>,
    /// `eos_token_id` of `config.json` and `generation_config.json`; may be empty.
    pub eos_token_ids: Vec<u32>,
}

/// What can go wrong with a tokenizer. Errors of the template come apart: [`Self::TemplateRefused`] is the caller's
/// messages, [`Self::TemplateFailed`] the template itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenizerError {
    /// `tokenizer.json` is no tokenizer.
    #[error("tokenizer.json cannot be read: {0}; expected the format of the tokenizers library, version 1.0")]
    Tokenizer(String),
    /// `tokenizer_config.json` does not parse.
    #[error("tokenizer_config.json cannot be read: {0}")]
    Config(String),
    /// The ids in `added_tokens` are not those the vocabulary gives.
    #[error(
        "tokenizer.json lists the added token {token:?} with id {listed}, but the vocabulary gives it id {actual}: \
         list added tokens by rising id, following the vocabulary without a gap"
    )]
    AddedTokenId {
        /// The token's text.
        token: String,
        /// The id in the file.
        listed: u32,
        /// The id the token would get.
        actual: u32,
    },
    /// A stop id names no token.
    #[error("eos_token_id {id} is outside the vocabulary of {vocab_size} tokens")]
    EosId {
        /// The id in `config.json` or `generation_config.json`.
        id: u32,
        /// The number of token ids.
        vocab_size: usize,
    },
    /// The chat template is missing, ambiguous or not Jinja.
    #[error("the chat template cannot be used: {0}")]
    ChatTemplate(String),
    /// A chat was asked of a model without a template.
    #[error(
        "this model has no chat template: send a plain prompt, or add chat_template.jinja to the checkpoint folder"
    )]
    NoChatTemplate,
    /// The template called `raise_exception`: it takes no such conversation.
    #[error("the chat template refuses these messages: {0}")]
    TemplateRefused(String),
    /// The template failed while it was rendered.
    #[error("the chat template failed: {0}")]
    TemplateFailed(String),
    /// Tools were given to a template that shows none.
    #[error("this model's chat template takes no tools: leave them out, or use a model that was trained to call them")]
    NoTools,
    /// The arguments of a call are not what templates can show.
    #[error("the arguments of the call of {0:?} are no JSON object")]
    ToolArguments(String),
    /// The messages use every character that could guard them.
    #[error("the messages hold every private-use character: leave one of U+E000 to U+F8FF unused")]
    NoGuard,
    /// The text would yield a control token, which no text may.
    #[error("the text would be read as the control token {0:?}: reword it")]
    ControlToken(String),
    /// The tokenizer failed on this text.
    #[error("the text cannot be encoded: {0}")]
    Encode(String),
    /// The decoder failed on these ids.
    #[error("the tokens cannot be decoded: {0}")]
    Decode(String),
}

/// A tokenizer with its control tokens and chat template. Cheap to share behind an `Arc`.
pub struct Tokenizer {
    whole: tokenizers::Tokenizer,
    text: tokenizers::Tokenizer,
    /// Encodes text that follows a control token where that differs from text at the start: Metaspace with
    /// `prepend_scheme: "first"`.
    continued: Option<tokenizers::Tokenizer>,
    /// Ids of ordinary added tokens in `text` to their ids in `whole`.
    text_ids: HashMap<u32, u32>,
    controls: Controls,
    /// Ids that encoded text must not hold: those of `controls` less the unknown token.
    forbidden: HashSet<u32>,
    control_ids: Vec<u32>,
    eos_ids: Vec<u32>,
    bos_id: Option<u32>,
    rating_ids: [Option<u32>; Rating::ALL.len()],
    vocab_size: usize,
    chat: Option<ChatTemplate>,
    /// The chat template as the folder has it.
    chat_source: Option<String>,
    texts: SpecialTexts,
    tool_format: Option<ToolFormat>,
    /// The control tokens among the markers of `tool_format`.
    tool_marker_ids: Vec<u32>,
    scheme: DecodingScheme,
}

/// The fields of `tokenizer.json` that the `tokenizers` crate does not hand out.
#[derive(Deserialize)]
struct TokenizerFile {
    #[serde(default)]
    added_tokens: Vec<ListedToken>,
    #[serde(default)]
    model: UnknownToken,
}

#[derive(Deserialize)]
struct ListedToken {
    id: u32,
    content: String,
}

#[derive(Default, Deserialize)]
struct UnknownToken {
    unk_token: Option<String>,
    unk_id: Option<u32>,
}

/// Tokens that mark turns of a chat: control tokens wherever they are added tokens, special or not.
const CHAT_MARKERS: [&str; 24] = [
    "<|im_start|>",
    "<|im_end|>",
    "<|im_sep|>",
    "<|endoftext|>",
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
    "[INST]",
    "[/INST]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "<<SYS>>",
    "<</SYS>>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<s>",
    "</s>",
];

impl Tokenizer {
    /// Builds the tokenizer. Truncation and padding set in `tokenizer.json` are switched off: a prompt is never cut
    /// silently.
    ///
    /// # Errors
    /// Files that do not parse, added tokens whose ids do not follow from the vocabulary, stop ids outside it, and a chat
    /// template with a syntax error or without a default among several.
    pub fn from_parts(parts: TokenizerParts) -> Result<Self, TokenizerError> {
        let bad_file = |e: &dyn fmt::Display| TokenizerError::Tokenizer(e.to_string());
        let file: TokenizerFile = serde_json::from_slice(parts.tokenizer_json).map_err(|e| bad_file(&e))?;
        let mut whole = tokenizers::Tokenizer::from_bytes(parts.tokenizer_json).map_err(|e| bad_file(&e))?;
        whole.with_truncation(None).map_err(|e| bad_file(&e))?;
        whole.with_padding(None);
        for listed in &file.added_tokens {
            if let Some(actual) = whole.token_to_id(&listed.content)
                && actual != listed.id
            {
                return Err(TokenizerError::AddedTokenId { token: listed.content.clone(), listed: listed.id, actual });
            }
        }
        let vocab_size = whole.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);

        let (mut texts, config_template) = chat::read_config(parts.tokenizer_config)?;
        let mut eos_ids = Vec::new();
        let named_eos = texts.eos_token.as_deref().and_then(|t| whole.token_to_id(t));
        for id in parts.eos_token_ids.into_iter().chain(named_eos) {
            if whole.id_to_token(id).is_none() {
                return Err(TokenizerError::EosId { id, vocab_size });
            }
            if !eos_ids.contains(&id) {
                eos_ids.push(id);
            }
        }
        if texts.eos_token.is_none() {
            texts.eos_token = eos_ids.first().and_then(|&id| whole.id_to_token(id));
        }
        let bos_id = texts.bos_token.as_deref().and_then(|t| whole.token_to_id(t));
        let rating_ids = Rating::ALL.map(|rating| whole.token_to_id(rating.token()));

        let added = whole.get_added_tokens_decoder();
        let is_added_marker = |t: &AddedToken| CHAT_MARKERS.contains(&t.content.as_str());
        let mut control_ids: BTreeSet<u32> =
            added.iter().filter(|(_, t)| t.special || is_added_marker(t)).map(|(&id, _)| id).collect();
        control_ids.extend(eos_ids.iter().chain(&bos_id).chain(rating_ids.iter().flatten()));
        control_ids.extend(texts.pad_token.as_deref().and_then(|t| whole.token_to_id(t)));
        // A control token that was only a word of the model becomes an added one: decoding must skip it.
        let named: Vec<AddedToken> = control_ids
            .iter()
            .filter(|id| !added.contains_key(id))
            .filter_map(|&id| whole.id_to_token(id))
            .map(|content| AddedToken::from(content, true))
            .collect();
        whole.add_special_tokens(&named);

        let unknown = [texts.unk_token.as_deref(), file.model.unk_token.as_deref()];
        let unknown: HashSet<u32> =
            unknown.iter().flatten().filter_map(|t| whole.token_to_id(t)).chain(file.model.unk_id).collect();
        let mut ordinary = Vec::new();
        let mut controls = Vec::new();
        for (id, token) in whole.get_added_tokens_decoder() {
            if !control_ids.contains(&id) && is_ordinary(&token) {
                ordinary.push((id, token));
            } else {
                controls.push(Control {
                    id,
                    lstrip: token.lstrip,
                    rstrip: token.rstrip,
                    single_word: token.single_word,
                    text: token.content,
                });
            }
        }
        ordinary.sort_by_key(|(id, _)| *id);
        let forbidden = controls.iter().map(|c| c.id).filter(|id| !unknown.contains(id)).collect();
        let controls = Controls::new(controls);

        let (text, text_ids) = text_tokenizer(&whole, &controls, &ordinary, &unknown)?;
        let continued = continued_tokenizer(&text)?;
        let (mut chat, mut tool_format) = (None, None);
        let chat_source = parts.chat_template.map(str::to_owned).or(config_template);
        if let Some(source) = &chat_source {
            let template = ChatTemplate::new(source, texts.clone())?;
            // The templates of Mistral's version 11 do not always show its format, its vocabulary does.
            let is_known = template.takes_tools() && whole.token_to_id("[ARGS]").is_none();
            tool_format = ToolFormat::of_template(source).filter(|_| is_known);
            chat = Some(template);
        }
        let markers = tool_format.map(|format| <[&str; 2]>::from(format.markers()));
        let marker_ids = markers.iter().flatten().filter_map(|marker| whole.token_to_id(marker));
        let tool_marker_ids = marker_ids.filter(|id| control_ids.contains(id)).collect();
        Ok(Self {
            scheme: DecodingScheme::of(&whole),
            whole,
            text,
            continued,
            text_ids,
            controls,
            forbidden,
            control_ids: control_ids.into_iter().collect(),
            eos_ids,
            bos_id,
            rating_ids,
            vocab_size,
            chat,
            chat_source,
            texts,
            tool_format,
            tool_marker_ids,
        })
    }

    /// Text to ids. Control-token spellings in `text` are ordinary text here, always. With `add_special_tokens` the
    /// tokenizer's own template puts its tokens (most often BOS) around the text.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] where the model has no way to spell the text, [`TokenizerError::ControlToken`] where it
    /// has none but a control token.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::new();
        self.encode_with(&self.text, text, add_special_tokens, &mut ids)?;
        Ok(ids)
    }

    /// As [`encode`](Self::encode) without special tokens, and beside each id the bytes of `text` that it stands for, in
    /// ascending order. A token of less than a character has the whole character.
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode).
    pub fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<Range<usize>>), TokenizerError> {
        let encoding = self.text.encode(text, false).map_err(|e| TokenizerError::Encode(e.to_string()))?;
        let ids = encoding.get_ids().iter().map(|id| self.checked(*id, false)).collect::<Result<_, _>>()?;
        let mut least = 0;
        let whole_characters = |&(start, end): &(usize, usize)| {
            let start = (0..=start.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0).max(least);
            let end = (end.min(text.len())..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
            least = start;
            start..end.max(start)
        };
        let offsets = encoding.get_offsets().iter().map(whole_characters).collect();
        Ok((ids, offsets))
    }

    /// Ids to text, exactly as `tokenizers` decodes them; ids without a token (padding of the embedding) give nothing.
    ///
    /// # Errors
    /// [`TokenizerError::Decode`] where the decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, TokenizerError> {
        if ids.is_empty() {
            return Ok(String::new()); // some decoders subtract one from the number of tokens
        }
        self.whole.decode(ids, skip_special_tokens).map_err(|e| TokenizerError::Decode(e.to_string()))
    }

    /// The highest token id plus one. The model's own vocabulary may be padded beyond it.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The id of a token, given as the vocabulary writes it (`"Ġthe"`), control tokens included.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.whole.token_to_id(token)
    }

    /// A token as the vocabulary writes it; `None` for an id without a token.
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.whole.id_to_token(id)
    }

    /// The control tokens, by rising id: every added token marked special, the beginning, end and padding tokens, the
    /// ratings, and the markers of chat turns. To be banned from sampling, all but [`Self::eos_ids`] where generation may
    /// stop. Added tokens a model is meant to write (`<think>`, `<tool_call>`, not marked special) are not among them.
    pub fn control_ids(&self) -> &[u32] {
        &self.control_ids
    }

    /// The token that stands before a text of this rating; `None` for models without rating tokens.
    pub fn rating_id(&self, rating: Rating) -> Option<u32> {
        Rating::ALL.iter().position(|&r| r == rating).and_then(|i| self.rating_ids[i])
    }

    /// The ids that end a generation, those given to [`Self::from_parts`] first.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// The beginning-of-text token that `tokenizer_config.json` names.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos_id
    }

    /// The text of the end-of-text token that `tokenizer_config.json` names, else of the first id that ends a text.
    pub fn eos_token(&self) -> Option<&str> {
        self.texts.eos_token.as_deref()
    }

    /// The text of the padding token that `tokenizer_config.json` names.
    pub fn pad_token(&self) -> Option<&str> {
        self.texts.pad_token.as_deref()
    }

    /// The chat template, in Jinja.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_source.as_deref()
    }

    /// Whether [`Self::encode_chat`] can work.
    pub fn has_chat_template(&self) -> bool {
        self.chat.is_some()
    }

    /// Whether [`Self::encode_chat`] takes tools: whether the chat template looks at them.
    pub fn takes_tools(&self) -> bool {
        self.chat.as_ref().is_some_and(ChatTemplate::takes_tools)
    }

    /// How the model writes calls of tools, as far as its template shows a known way.
    pub fn tool_format(&self) -> Option<ToolFormat> {
        self.tool_format
    }

    /// The markers of [`Self::tool_format`] that are control tokens (`[TOOL_CALLS]` of Mistral; `<tool_call>` of Qwen is
    /// none). Where a model may call tools they must not be banned from sampling, and [`Self::tool_detokenizer`] shows
    /// them.
    pub fn tool_marker_ids(&self) -> &[u32] {
        &self.tool_marker_ids
    }

    /// Renders the chat template and encodes it; control tokens come from the template alone, never from message text.
    /// As in Hugging Face nothing is added around the template: one that wants a BOS token writes it. Text between two
    /// control tokens is encoded as `tokenizers` would: a `Prepend` normaliser and Metaspace `"always"` put their space
    /// before each piece, Metaspace `"first"` only before one at the very start.
    ///
    /// Messages and tools are shown as published templates expect them. Spellings in them are broken before rendering, so that a template which looks for them in a message (Qwen3 for
    /// `</think>` in an earlier answer) does not find them.
    ///
    /// # Errors
    /// [`TokenizerError::NoChatTemplate`], [`TokenizerError::NoTools`], [`TokenizerError::ToolArguments`],
    /// [`TokenizerError::TemplateRefused`], [`TokenizerError::TemplateFailed`], [`TokenizerError::NoGuard`], and those of
    /// [`Self::encode`].
    pub fn encode_chat(
        &self,
        messages: &[ChatMessage],
        tools: &[Tool],
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>, TokenizerError> {
        let chat = self.chat.as_ref().ok_or(TokenizerError::NoChatTemplate)?;
        let (rendered, guard) = chat.render(messages, tools, add_generation_prompt, &self.controls)?;
        let mut ids = Vec::new();
        for (i, piece) in self.controls.split(&rendered, guard).into_iter().enumerate() {
            match piece {
                Piece::Control(id) => ids.push(id),
                Piece::Text(text) => {
                    let continued = self.continued.as_ref().filter(|_| i > 0);
                    self.encode_with(continued.unwrap_or(&self.text), &text, false, &mut ids)?;
                }
            }
        }
        Ok(ids)
    }

    /// Fresh state for decoding one sequence token by token.
    pub fn detokenizer(&self) -> Detokenizer {
        Detokenizer::default()
    }

    /// As [`Self::detokenizer`], but [`Self::tool_marker_ids`] give their text, for a [`ToolParser`] to find.
    pub fn tool_detokenizer(&self) -> Detokenizer {
        Detokenizer::showing_tool_markers()
    }

    fn encode_with(
        &self,
        tokenizer: &tokenizers::Tokenizer,
        text: &str,
        add_special_tokens: bool,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let encoding =
            tokenizer.encode_fast(text, add_special_tokens).map_err(|e| TokenizerError::Encode(e.to_string()))?;
        ids.reserve(encoding.len());
        for (&id, &is_template) in encoding.get_ids().iter().zip(encoding.get_special_tokens_mask()) {
            ids.push(self.checked(id, is_template == 1)?);
        }
        Ok(())
    }

    /// An id of the tokenizer for texts as that of the whole one; a control token is none that a text may have.
    fn checked(&self, id: u32, is_template: bool) -> Result<u32, TokenizerError> {
        if is_template {
            return Ok(id);
        }
        let id = *self.text_ids.get(&id).unwrap_or(&id);
        match self.forbidden.contains(&id) {
            true => Err(TokenizerError::ControlToken(self.token_text(id).unwrap_or_default())),
            false => Ok(id),
        }
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size)
            .field("bos_id", &self.bos_id)
            .field("eos_ids", &self.eos_ids)
            .field("control_ids", &self.control_ids.len())
            .field("chat", &self.chat.is_some())
            .finish_non_exhaustive()
    }
}

/// Whether an added token is mere text: whitespace alone (`▁` and `Ġ` stand for it), or one character.
fn is_ordinary(token: &AddedToken) -> bool {
    let is_space = |c: char| c.is_whitespace() || matches!(c, '▁' | 'Ġ');
    !token.special && (token.content.chars().all(is_space) || token.content.chars().nth(1).is_none())
}

/// The tokenizer that cannot yield a control token, and what its ids of ordinary added tokens mean in `whole`.
fn text_tokenizer(
    whole: &tokenizers::Tokenizer,
    controls: &Controls,
    ordinary: &[(u32, AddedToken)],
    unknown: &HashSet<u32>,
) -> Result<(tokenizers::Tokenizer, HashMap<u32, u32>), TokenizerError> {
    use tokenizers::Model;
    let mut text = whole.clone();
    text.with_added_vocabulary(AddedVocabulary::new());
    let in_model: HashSet<&str> = controls
        .iter()
        .filter(|c| !unknown.contains(&c.id) && whole.get_model().token_to_id(&c.text).is_some())
        .map(|c| c.text.as_str())
        .collect();
    if !in_model.is_empty() {
        text.with_model(without_words(whole.get_model(), &in_model)?);
    }
    let tokens: Vec<AddedToken> = ordinary.iter().map(|(_, token)| token.clone()).collect();
    text.add_tokens(&tokens);
    let ids = ordinary
        .iter()
        .filter_map(|(id, token)| Some((text.token_to_id(&token.content)?, *id)))
        .filter(|(in_text, in_whole)| in_text != in_whole)
        .collect();
    Ok((text, ids))
}

/// The model with `words` renamed to what no text spells. Renamed, not removed, so that no other id moves.
fn without_words(model: &ModelWrapper, words: &HashSet<&str>) -> Result<ModelWrapper, TokenizerError> {
    use serde_json::Value;
    let bad_model = |e: serde_json::Error| TokenizerError::Tokenizer(e.to_string());
    // U+FFFF and U+FDD0 are noncharacters; a text with the very name still meets the check in `encode_with`.
    let rename = |word: &str| format!("\u{FFFF}\u{FDD0}{word}\u{FDD0}\u{FFFF}");
    let mut json = serde_json::to_value(model).map_err(bad_model)?;
    match json.get_mut("vocab") {
        Some(Value::Object(vocab)) => {
            let renamed = std::mem::take(vocab).into_iter();
            *vocab =
                renamed.map(|(w, id)| if words.contains(w.as_str()) { (rename(&w), id) } else { (w, id) }).collect();
        }
        Some(Value::Array(pieces)) => {
            for word in pieces.iter_mut().filter_map(|piece| piece.get_mut(0)) {
                if let Some(w) = word.as_str().filter(|w| words.contains(w)) {
                    *word = Value::String(rename(w));
                }
            }
        }
        _ => {}
    }
    if let Some(Value::Array(merges)) = json.get_mut("merges") {
        merges.retain(|merge| {
            let pair = match merge {
                Value::String(pair) => pair.split_once(' '),
                _ => merge.get(0).and_then(Value::as_str).zip(merge.get(1).and_then(Value::as_str)),
            };
            pair.is_none_or(|(a, b)| {
                !words.contains(a) && !words.contains(b) && !words.contains(format!("{a}{b}").as_str())
            })
        });
    }
    serde_json::from_value(json).map_err(bad_model)
}

/// The text tokenizer for text after a control token, where `text` itself would prepend a space that belongs only to the
/// start of the whole.
fn continued_tokenizer(text: &tokenizers::Tokenizer) -> Result<Option<tokenizers::Tokenizer>, TokenizerError> {
    use serde_json::Value;
    fn prepend_never(json: &mut Value) -> bool {
        match json {
            Value::Object(fields) => {
                let mut changed = false;
                for (name, value) in fields.iter_mut() {
                    if name == "prepend_scheme" && value == "first" {
                        *value = Value::from("never");
                        changed = true;
                    } else {
                        changed |= prepend_never(value);
                    }
                }
                changed
            }
            Value::Array(items) => items.iter_mut().fold(false, |changed, item| prepend_never(item) | changed),
            _ => false,
        }
    }
    let bad_part = |e: serde_json::Error| TokenizerError::Tokenizer(e.to_string());
    let Some(pre_tokenizer) = text.get_pre_tokenizer() else { return Ok(None) };
    let mut json = serde_json::to_value(pre_tokenizer).map_err(bad_part)?;
    if !prepend_never(&mut json) {
        return Ok(None);
    }
    let mut continued = text.clone();
    continued.with_pre_tokenizer(Some(serde_json::from_value::<PreTokenizerWrapper>(json).map_err(bad_part)?));
    Ok(Some(continued))
}

//! Prompts as texts and as token ids.

use std::borrow::Cow;

use super::error::ApiError;
use super::request::Prompt;
use super::screener::Screener;
use crate::app::App;

/// A prompt as the model gets it, and as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The tokens of the client's prompt.
    pub shown: Vec<u32>,
    /// Whether the first of them only says that a text begins: a rated model's sequence begins with its rating instead.
    pub begins: bool,
    /// The text, where the client gave one.
    pub text: Option<String>,
}

impl Encoded {
    /// The tokens that the model gets, without what it puts in front itself.
    pub fn tokens(&self) -> Vec<u32> {
        self.shown[usize::from(self.begins)..].to_vec()
    }

    /// The text as the client gave it, or that of its tokens; control tokens have none.
    pub fn text(&self, app: &App) -> Result<String, ApiError> {
        match &self.text {
            Some(text) => Ok(text.clone()),
            None => {
                let decoded = app.checkpoint().tokenizer.decode(&self.shown, true);
                decoded.map_err(|source| ApiError::Tokenizer { source, param: "prompt" })
            }
        }
    }
}

/// Reads prompts, and puts texts through the policies.
///
/// # Errors
/// An empty list, a text that a policy refuses or that has no tokens, and ids that a client may not set.
pub fn encode(prompt: Prompt, param: &'static str, app: &App, screener: &Screener) -> Result<Vec<Encoded>, ApiError> {
    let prompts = match prompt {
        Prompt::Text(text) => vec![encode_text(text, param, app, screener)?],
        Prompt::Texts(texts) => {
            texts.into_iter().map(|text| encode_text(text, param, app, screener)).collect::<Result<_, _>>()?
        }
        Prompt::Tokens(tokens) => vec![check_tokens(tokens, param, param, app, screener)?],
        Prompt::TokenLists(lists) => lists
            .into_iter()
            .enumerate()
            .map(|(index, tokens)| check_tokens(tokens, param, &format!("{param}[{index}]"), app, screener))
            .collect::<Result<_, _>>()?,
    };
    if prompts.is_empty() {
        return Err(ApiError::parameter(param, format!("'{param}' is an empty list: expected at least one prompt")));
    }
    Ok(prompts)
}

fn encode_text(mut text: String, param: &'static str, app: &App, screener: &Screener) -> Result<Encoded, ApiError> {
    screener.screened(&mut text, param)?;
    let checkpoint = app.checkpoint();
    // The sequences of a rated model begin with the rating, so that the tokenizer need not add a beginning.
    let encoded = checkpoint.tokenizer.encode(&text, !checkpoint.rated());
    let shown = encoded.map_err(|source| ApiError::Tokenizer { source, param })?;
    Ok(Encoded { shown, begins: false, text: Some(text) })
}

fn check_tokens(
    tokens: Vec<u32>,
    param: &'static str,
    path: &str,
    app: &App,
    screener: &Screener,
) -> Result<Encoded, ApiError> {
    let checkpoint = app.checkpoint();
    let tokenizer = &checkpoint.tokenizer;
    let vocab_size = checkpoint.config().vocab_size;
    if let Some(token) = tokens.iter().find(|token| **token as usize >= vocab_size) {
        let message = format!("'{path}' has the token id {token}, outside the vocabulary of {vocab_size} tokens");
        return Err(ApiError::parameter(path, message));
    }
    let begins = checkpoint.rated()
        && tokens
            .first()
            .is_some_and(|first| tokenizer.bos_id() == Some(*first) || tokenizer.eos_ids().contains(first));
    let rest = &tokens[usize::from(begins)..];
    // In a rated model's prompt a rating would stand in for one above the ceiling, and an end of text would begin a text
    // that no rating holds for.
    if let Some(token) = rest.iter().find(|token| checkpoint.rated() && tokenizer.control_ids().contains(token)) {
        let text = tokenizer.token_text(*token).unwrap_or_default();
        let message = format!(
            "'{path}' has the control token {text} ({token}) among its ids, which the server alone may set: ask for a \
             rating with 'safelmm.rating', for a conversation with /v1/chat/completions"
        );
        return Err(ApiError::parameter(path, message));
    }
    let text = tokenizer.decode(&tokens, true).map_err(|source| ApiError::Tokenizer { source, param })?;
    let Cow::Owned(text) = screener.screen(&text, param)? else {
        return Ok(Encoded { shown: tokens, begins, text: None });
    };
    // What a policy has put in place of these tokens' text.
    let first = tokens.iter().copied().take(usize::from(begins));
    let encoded = tokenizer.encode(&text, false).map_err(|source| ApiError::Tokenizer { source, param })?;
    Ok(Encoded { shown: first.chain(encoded).collect(), begins, text: Some(text) })
}

//! A client that measures: completions over kept connections.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use reqwest::Client;
use serde_json::{Map, Value, json};

/// Whether the answer comes piece by piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// In one piece.
    Whole,
    /// As server-sent events.
    Streamed,
}

/// A server of the OpenAI API, as a client sees it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    client: Client,
    url: String,
    options: Map<String, Value>,
}

impl Endpoint {
    /// The server at `base`, such as `http://127.0.0.1:1234`; `options` say in its own words that the end of text is not to
    /// end an answer.
    pub fn new(base: &str, options: &[(&str, Value)]) -> Endpoint {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Endpoint { client: Client::new(), url: format!("{base}/v1/completions"), options }
    }

    /// Asks for a completion of exactly so many tokens, and returns the time until it is complete.
    ///
    /// # Errors
    /// When the answer is an error, or has another length.
    pub async fn ask(&self, prompt: &str, tokens: usize, answer: Answer) -> Result<Duration> {
        let stream = answer == Answer::Streamed;
        let mut body = json!({"prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": stream});
        for (name, value) in &self.options {
            body[name] = value.clone();
        }
        let started = Instant::now();
        let answer = self.client.post(&self.url).json(&body).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        let elapsed = started.elapsed();
        ensure!(status.is_success(), "{}: {status}: {text}", self.url);
        let finish = text.lines().rev().find_map(|line| {
            let chunk: Value = serde_json::from_str(line.strip_prefix("data: ").unwrap_or(line)).ok()?;
            chunk["choices"][0]["finish_reason"].as_str().map(str::to_owned)
        });
        ensure!(finish.as_deref() == Some("length"), "an answer ended by {finish:?} instead of its length: {text}");
        Ok(elapsed)
    }

    /// Asks for all prompts at once, streamed; the time until the last answer is complete.
    ///
    /// # Errors
    /// Those of [`Endpoint::ask`].
    pub async fn ask_together(&self, prompts: &[String], tokens: usize) -> Result<Duration> {
        let started = Instant::now();
        try_join_all(prompts.iter().map(|prompt| self.ask(prompt, tokens, Answer::Streamed))).await?;
        Ok(started.elapsed())
    }
}

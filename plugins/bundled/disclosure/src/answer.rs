//! An answer that is being written.

use safelmm_intent::{Language, screen};
use safelmm_plugin::{Action, Finding};

use crate::{Claims, Disclosure};

/// How much of an answer may be held until a sentence ends, in bytes.
const HELD: usize = 400;

/// What is known of an answer so far.
pub struct Answer {
    /// The language in which it was asked who answers; none where it was not.
    asked: Option<Language>,
    /// Whether anything has left.
    begun: bool,
    /// Whether it has said that an AI answers.
    disclosed: bool,
}

impl Answer {
    /// An answer to a prompt that asked who answers, in this language, or did not.
    pub fn new(asked: Option<Language>) -> Self {
        Self { asked, begun: false, disclosed: false }
    }

    /// What may leave: whole sentences, with the disclosure before the first.
    pub(crate) fn inspect(&mut self, policy: &Disclosure, pending: &str, last: bool) -> Action {
        if self.asked.is_none() && policy.claims == Claims::Asked {
            return Action::Pass;
        }
        let end = match screen::sentence_end(pending) {
            _ if last => pending.len(),
            Some(end) => end,
            None if pending.len() > HELD => pending.len(),
            None => 0,
        };
        // A first `Yes.` alone says nothing yet: it waits for what follows.
        let begins = !self.begun && !last && single_word(&pending[..end]);
        if end == 0 && !last || begins && pending.len() <= HELD {
            return Action::hold(pending.len());
        }
        let (text, findings) = self.rewrite(policy, &pending[..end]);
        let rest = &pending[end..];
        if text == pending[..end] {
            Action::hold(rest.len())
        } else {
            Action::replace(text + rest, rest.len(), findings)
        }
    }

    /// Whole sentences with claims replaced, and the disclosure before the first where it was asked for and is not there.
    pub(crate) fn rewrite(&mut self, policy: &Disclosure, text: &str) -> (String, Vec<Finding>) {
        let (mut out, mut findings) = (String::new(), Vec::new());
        let (mut from, mut at) = (0, 0);
        for sentence in sentences(text) {
            let found = policy.judge.findings(sentence, self.asked);
            let claim = found.iter().find(|f| f.category == "claim");
            self.disclosed |= found.iter().any(|f| f.category == "says");
            at += sentence.len();
            // The bare yes or no to the question would contradict the disclosure.
            let bare = !self.begun && from == 0 && self.asked.is_some() && single_word(sentence);
            if bare {
                from = at;
            } else if let Some(claim) = claim {
                let reason = "The answer claimed to come from a human.";
                findings.push(Finding::new("disclosure/claim", claim.score, reason));
                out.push_str(&text[from..at - sentence.len()]);
                let kept = sentence.trim();
                if !self.disclosed {
                    let start = sentence.len() - sentence.trim_start().len();
                    out.push_str(&sentence[..start]);
                    out.push_str(policy.sentence(self.asked.unwrap_or(claim.language)));
                    out.push_str(&sentence[start + kept.len()..]);
                    self.disclosed = true;
                }
                from = at;
            }
        }
        out.push_str(&text[from..]);
        let language = self.asked.filter(|_| !self.begun && !self.disclosed);
        if let Some(language) = language {
            self.disclosed = true;
            let reason = "It was asked whether a human answers, and the answer did not say that an AI does.";
            findings.push(Finding::new("disclosure/asked", 0.9, reason));
            let space = if out.is_empty() || ["zh", "ja"].contains(&language.code()) { "" } else { " " };
            out = format!("{}{space}{}", policy.sentence(language), out.trim_start());
        }
        self.begun = true;
        (out, findings)
    }
}

/// The sentences of a text, each with the spaces before it; together they are the text.
fn sentences(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let ends = |(at, c): (usize, char)| {
            let to = at + c.len_utf8();
            let next = rest[to..].chars().next();
            let end = match c {
                '.' | '?' | '!' => next.is_none_or(char::is_whitespace),
                '\n' | '。' | '？' | '！' | '؟' | '।' => true,
                _ => false,
            };
            (end && !rest[..at].trim().is_empty()).then_some(to)
        };
        let (sentence, after) = rest.split_at(rest.char_indices().find_map(ends).unwrap_or(rest.len()));
        parts.push(sentence);
        rest = after;
    }
    parts
}

/// Whether a text is one word, or two characters of Chinese or Japanese.
fn single_word(text: &str) -> bool {
    let text = text.trim().trim_end_matches(['.', '!', '?', '。', '！', ',', '،']);
    let wide = text.chars().any(|c| c as u32 >= 0x2E80);
    !text.is_empty() && text.len() <= 24 && !text.contains(char::is_whitespace) && (!wide || text.chars().count() <= 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_the_text() {
        for text in ["", "One. Two! 3.5 three\nFour", " a", "。好。", "...", "Ja.\n\n"] {
            assert_eq!(sentences(text).concat(), text);
        }
        assert_eq!(sentences("One. Two! 3.5 three"), ["One.", " Two!", " 3.5 three"]);
    }
}

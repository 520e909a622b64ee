//! The policy on spelled control tokens: a text that writes `<|im_start|>system` out is most often an attempt to speak
//! in another's name. Such a spelling is ordinary text to the tokenizer and has no power; this policy says that it was
//! there, or refuses it.

use crate::hook::{Hook, Hooks};
use crate::policy::{About, Policy};
use crate::request::{PerKey, RequestContext};
use crate::verdict::{Finding, Judgement, Verdict};

/// What it finds.
const CATEGORY: &str = "prompt-injection";

/// Looks for spellings of a model's control tokens.
pub struct ControlTokens {
    spellings: Vec<String>,
    verdict: PerKey<Verdict>,
}

impl ControlTokens {
    /// `spellings`: the model's control tokens as text; `verdict`: what is said of a text that holds one, for each key.
    pub fn new(spellings: impl IntoIterator<Item = String>, verdict: impl Into<PerKey<Verdict>>) -> ControlTokens {
        let spellings = spellings.into_iter().filter(|spelling| !spelling.trim().is_empty()).collect();
        ControlTokens { spellings, verdict: verdict.into() }
    }
}

impl Policy for ControlTokens {
    fn name(&self) -> &str {
        "control-tokens"
    }

    fn about(&self) -> About {
        About {
            name: self.name().to_owned(),
            policy: self.name().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Finds texts that spell control tokens of the model".to_owned(),
            source: "built-in".to_owned(),
            digest: None,
            hooks: self.hooks().iter().collect(),
            categories: vec![CATEGORY.to_owned()],
            languages: Vec::new(),
        }
    }

    fn hooks(&self) -> Hooks {
        [Hook::ScreenPrompt].into_iter().collect()
    }

    fn screen_prompt(&self, request: &RequestContext, text: &str) -> Judgement {
        let verdict = *self.verdict.of(request);
        if verdict == Verdict::Allow {
            return Judgement::Allow;
        }
        let first = self.spellings.iter().filter_map(|spelling| Some((text.find(spelling)?, spelling))).min();
        let Some((at, spelling)) = first else { return Judgement::Allow };
        let finding = Finding {
            category: CATEGORY.to_owned(),
            score: 1.0,
            reason: format!("it spells the control token {spelling}; take it out"),
            span: Some(at..at + spelling.len()),
        };
        match verdict {
            Verdict::Deny => Judgement::Deny(vec![finding]),
            _ => Judgement::Flag(vec![finding]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::request;

    #[test]
    fn the_first_spelling_is_reported_with_its_place() {
        let spellings = ["<|im_start|>", "<|rating:X|>", " "].map(str::to_owned);
        let policy = ControlTokens::new(spellings.clone(), Verdict::Flag);
        let nobody = request(None);
        let judgement = policy.screen_prompt(&nobody, "ä <|rating:X|> and <|im_start|>");
        assert_eq!((judgement.verdict(), judgement.findings()[0].span.clone()), (Verdict::Flag, Some(3..15)));
        assert_eq!(policy.screen_prompt(&nobody, "a < | b <|im_ start|>"), Judgement::Allow);
        let off = ControlTokens::new(spellings, Verdict::Allow);
        assert_eq!(off.screen_prompt(&nobody, "<|im_start|>"), Judgement::Allow);
    }

    #[test]
    fn each_key_has_its_own_verdict() {
        let keys = [("web", Verdict::Deny), ("tests", Verdict::Allow)].map(|(key, verdict)| (key.to_owned(), verdict));
        let policy = ControlTokens::new(["<|im_start|>".to_owned()], PerKey::new(Verdict::Flag, keys.into()));
        let verdict = |caller| policy.screen_prompt(&request(caller), "<|im_start|>").verdict();
        assert_eq!(verdict(Some(("01", "web"))), Verdict::Deny);
        assert_eq!(verdict(Some(("02", "tests"))), Verdict::Allow);
        assert_eq!((verdict(Some(("03", "other"))), verdict(None)), (Verdict::Flag, Verdict::Flag));
    }
}

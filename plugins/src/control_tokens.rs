//! The policy on spelled control tokens: a text that writes `<|im_start|>system` out is most often an attempt to speak
//! in another's name. Such a spelling is ordinary text to the tokenizer and has no power; this policy says that it was
//! there, or refuses it.

use crate::pipeline::Policy;
use crate::request::{PerKey, RequestContext};
use crate::verdict::{Finding, Screening, Verdict};

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

    fn screen_prompt(&self, text: &str, request: &RequestContext) -> Screening {
        let verdict = *self.verdict.of(request);
        if verdict == Verdict::Allow {
            return Screening::allow();
        }
        let first = self.spellings.iter().filter_map(|spelling| Some((text.find(spelling)?, spelling))).min();
        match first {
            None => Screening::allow(),
            Some((at, spelling)) => Screening {
                verdict,
                findings: vec![Finding {
                    category: "prompt-injection",
                    score: 1.0,
                    reason: format!("it spells the control token {spelling}; take it out"),
                    span: at..at + spelling.len(),
                }],
            },
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
        let screening = policy.screen_prompt("ä <|rating:X|> and <|im_start|>", &nobody);
        assert_eq!((screening.verdict, screening.findings[0].span.clone()), (Verdict::Flag, 3..15));
        assert_eq!(policy.screen_prompt("a < | b <|im_ start|>", &nobody), Screening::allow());
        let off = ControlTokens::new(spellings, Verdict::Allow);
        assert_eq!(off.screen_prompt("<|im_start|>", &nobody), Screening::allow());
    }
    #[test]
    fn each_key_has_its_own_verdict() {
        let keys = [("web", Verdict::Deny), ("tests", Verdict::Allow)].map(|(key, verdict)| (key.to_owned(), verdict));
        let policy = ControlTokens::new(["<|im_start|>".to_owned()], PerKey::new(Verdict::Flag, keys.into()));
        let verdict = |caller| policy.screen_prompt("<|im_start|>", &request(caller)).verdict;
        assert_eq!(verdict(Some(("01", "web"))), Verdict::Deny);
        assert_eq!(verdict(Some(("02", "tests"))), Verdict::Allow);
        assert_eq!((verdict(Some(("03", "other"))), verdict(None)), (Verdict::Flag, Verdict::Flag));
    }
}

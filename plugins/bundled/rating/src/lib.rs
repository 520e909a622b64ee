//! `rating`: text above the ceiling of its request, or of the operator, does not pass.
//!
//! A small linear model over hashed n-grams, made by `safelmm-train policy-models rating`, judges each sentence on the scale of
//! SafeLMM's ratings: G for everyone, PG mild, R mature (violence, strong language, drugs, sexual references), X explicit. A text
//! has the rating of its strongest sentence. The ceiling is the lower one of the request's rating and the setting `ceiling`; where
//! neither is there, or it is X, everything passes. README.md says what the model was trained from and how well it judges.

mod judge;
mod level;
mod stream;
mod vectors;

use judge::Judge;
use level::Level;
use safelmm_learned::{ModelError, RatingModel};
use safelmm_plugin::{
    Description, Document, Finding, Hook, Passage, Policy, Request, SettingError, Vector, Verdict, policy,
};
use schemars::JsonSchema;
use serde::Deserialize;
use stream::{Answer, Screened};

pub use level::Level as RatingLevel;

/// The bundled model, as `safelmm-train policy-models rating` wrote it.
static MODEL: &[u8] = include_bytes!("../rating.model");

/// What happens to a prompt above the ceiling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Prompts {
    /// It is not judged.
    Abstain,
    /// It passes, and the answer says what was found.
    #[default]
    Flag,
    /// It does not pass.
    Deny,
}

/// What happens to an answer above the ceiling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Answers {
    /// It ends before the first sentence above the ceiling.
    #[default]
    Block,
    /// The sentences above the ceiling are replaced.
    Replace,
}

/// What an operator may set.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The highest rating that passes, beside that of the request: the lower one holds.
    ceiling: Option<Level>,
    /// The probability of being above the ceiling from which a sentence counts as above, from 0.01 to 0.99. Higher lets more pass.
    threshold: f32,
    /// What happens to a prompt above the ceiling.
    prompts: Prompts,
    /// What happens to an answer above the ceiling.
    answers: Answers,
    /// What stands in place of a sentence above the ceiling.
    replacement: String,
    /// What the reader gets where an answer is ended.
    message: String,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            ceiling: None,
            threshold: 0.7,
            prompts: Prompts::default(),
            answers: Answers::default(),
            replacement: "[…]".into(),
            message: "[The answer ends here: what follows is above the rating that was asked for.]".into(),
        }
    }
}

/// The policy.
pub struct Rating {
    judge: Judge,
    settings: Settings,
}

impl Policy for Rating {
    type Settings = Settings;
    type Session = Answer;

    fn describe() -> Description {
        Description::new(
            "rating",
            env!("CARGO_PKG_VERSION"),
            "Keeps prompts, passages and answers to a content rating: G, PG, R or X.",
        )
        .hooks([Hook::ScreenPrompt, Hook::FilterPassages, Hook::InspectStream, Hook::ReviewResponse])
        .categories(Level::ABOVE.map(Level::category))
        .languages([
            "ar", "bg", "cs", "da", "de", "el", "en", "es", "et", "fi", "fr", "ga", "hi", "hr", "hu", "id", "it", "ja",
            "ko", "lt", "lv", "mt", "nl", "pl", "pt", "ro", "sk", "sl", "sv", "vi", "zh",
        ])
    }

    fn configure(settings: Settings) -> Result<Self, Vec<SettingError>> {
        if !(0.01..=0.99).contains(&settings.threshold) {
            let message = format!("{} is no probability to decide by: expected 0.01 to 0.99.", settings.threshold);
            return Err(vec![SettingError::new("/threshold", message)]);
        }
        let model = RatingModel::read(MODEL)
            .map_err(|e: ModelError| vec![SettingError::new("", format!("The bundled model is damaged: {e}"))])?;
        Ok(Rating { judge: Judge::new(model, settings.threshold), settings })
    }

    fn vectors() -> Vec<Vector> {
        vectors::all()
    }

    fn session(&self, request: &Request, _: &str) -> Answer {
        Answer::new(self.ceiling(request))
    }

    fn screen_prompt(&self, request: &Request, text: &str) -> Verdict {
        if self.settings.prompts == Prompts::Abstain {
            return Verdict::Abstain;
        }
        match (self.judge(request, text), self.settings.prompts) {
            (Err(passed), _) => passed,
            (Ok(finding), Prompts::Deny) => Verdict::Deny(vec![finding]),
            (Ok(finding), _) => Verdict::Flag(vec![finding]),
        }
    }

    fn filter_passages(&self, request: &Request, passages: &[Passage]) -> Vec<Verdict> {
        let judge = |passage: &Passage| match self.judge(request, &passage.text) {
            Err(passed) => passed,
            Ok(finding) => Verdict::Deny(vec![finding]),
        };
        passages.iter().map(judge).collect()
    }

    fn review_response(&self, request: &Request, text: &str, _: &[Document]) -> Verdict {
        if !judge::is_known(text) {
            return Verdict::Abstain;
        }
        let mut screened = Screened::default();
        stream::screen(self, self.ceiling(request), text, 0, true, &mut screened);
        match (screened.findings.is_empty(), self.settings.answers) {
            (true, _) => Verdict::Allow,
            (false, Answers::Block) => Verdict::Deny(screened.findings),
            (false, Answers::Replace) => Verdict::rewrite(screened.text, screened.findings),
        }
    }
}

impl Rating {
    /// The lower one of the request's rating and the operator's.
    fn ceiling(&self, request: &Request) -> Level {
        let own = self.settings.ceiling.unwrap_or(Level::X);
        request.rating.map_or(own, |rating| own.min(rating.into()))
    }

    /// The strongest sentence above the ceiling, else why the text passes.
    fn judge(&self, request: &Request, text: &str) -> Result<Finding, Verdict> {
        let ceiling = self.ceiling(request);
        if ceiling == Level::X {
            return Err(Verdict::Allow);
        }
        if !judge::is_known(text) {
            return Err(Verdict::Abstain);
        }
        self.judge.strongest(text, ceiling).ok_or(Verdict::Allow)
    }

    /// The rating of a text: that of its strongest sentence, by the configured threshold.
    pub fn rate(&self, text: &str) -> Level {
        self.judge.rate(text)
    }
}

policy!(Rating);

#[cfg(test)]
mod tests {
    use super::*;
    use safelmm_plugin::testing::{assert_vectors, configure, stream};
    use std::rc::Rc;

    #[test]
    fn golden_vectors() {
        assert_vectors::<Rating>();
    }

    fn request(rating: safelmm_plugin::Rating) -> Request {
        Request { rating: Some(rating), ..Request::new("test") }
    }

    const STRONG: &str = "He stabbed the guard and watched him bleed to death.";

    #[test]
    fn the_lower_ceiling_holds() {
        let policy: Rating = configure(r#"{"ceiling": "R", "prompts": "deny"}"#).unwrap();
        assert_eq!(policy.screen_prompt(&Request::new("x"), STRONG), Verdict::Allow);
        assert_eq!(policy.screen_prompt(&request(safelmm_plugin::Rating::X), STRONG), Verdict::Allow);
        let denied = policy.screen_prompt(&request(safelmm_plugin::Rating::G), STRONG);
        assert!(matches!(&denied, Verdict::Deny(f) if f[0].category == "rating/r"), "{denied:?}");
        let policy: Rating = configure(r#"{"ceiling": "G"}"#).unwrap();
        assert!(matches!(policy.screen_prompt(&request(safelmm_plugin::Rating::X), STRONG), Verdict::Flag(_)));
    }

    #[test]
    fn without_a_ceiling_everything_passes_and_unknown_scripts_are_not_judged() {
        let policy: Rating = configure("").unwrap();
        assert_eq!(policy.screen_prompt(&Request::new("x"), STRONG), Verdict::Allow);
        let thai = "สวัสดีครับ วันนี้อากาศดี";
        assert_eq!(policy.screen_prompt(&request(safelmm_plugin::Rating::G), thai), Verdict::Abstain);
        assert_eq!(policy.review_response(&request(safelmm_plugin::Rating::G), thai, &[]), Verdict::Abstain);
        assert_eq!(policy.screen_prompt(&request(safelmm_plugin::Rating::G), "1 + 1 = ?"), Verdict::Allow);
    }

    #[test]
    fn spans_name_the_sentence() {
        let policy: Rating = configure(r#"{"ceiling": "PG"}"#).unwrap();
        let text = format!("The bread is good. {STRONG} The sun shines.");
        let Verdict::Deny(findings) = policy.review_response(&Request::new("x"), &text, &[]) else { panic!() };
        let span = findings[0].where_.unwrap();
        assert_eq!(text[span.start as usize..span.end as usize].trim(), STRONG);
    }

    #[test]
    fn an_answer_in_pieces_ends_like_a_whole_one() {
        let policy: Rc<Rating> = Rc::new(configure(r#"{"ceiling": "PG", "message": "END"}"#).unwrap());
        let text = format!("The bread is good. {STRONG} The sun shines.");
        for size in [1, 3, 7, 50, 500] {
            let pieces: Vec<String> =
                text.chars().collect::<Vec<_>>().chunks(size).map(|c| c.iter().collect()).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let answer = stream(&policy, &Request::new("x"), "", &pieces, &[]).unwrap();
            assert_eq!(answer.text, "The bread is good. END", "pieces of {size}");
        }
    }

    #[test]
    fn bad_settings_are_named() {
        let pointer = |json: &str| configure::<Rating>(json).err().unwrap().remove(0).pointer;
        assert_eq!(pointer(r#"{"threshold": 1.5}"#), "/threshold");
        assert_eq!(pointer(r#"{"ceiling": "PG-13"}"#), "/ceiling");
        assert_eq!(pointer(r#"{"prompts": "block"}"#), "/prompts");
    }

    #[test]
    fn a_kilobyte_is_judged_quickly_and_any_text_without_panic() {
        let policy: Rating = configure(r#"{"ceiling": "G"}"#).unwrap();
        for text in ["", "\0", "\u{301}", "💀💀", "ß", "殺", "。。。", "?!?!", "\u{a0}\n\n", "a\u{200b}b"] {
            for repeated in [text.to_owned(), text.repeat(999)] {
                policy.screen_prompt(&Request::new("x"), &repeated);
                policy.review_response(&Request::new("x"), &repeated, &[]);
            }
        }
    }
}

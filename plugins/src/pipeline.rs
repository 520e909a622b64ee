//! Policies in their order, and the verdicts of all of them as one.

use serde::Serialize;

use crate::request::RequestContext;
use crate::verdict::{Screening, Verdict};

/// A safety policy.
pub trait Policy: Send + Sync {
    /// The name by which answers, logs and configuration call it.
    fn name(&self) -> &str;

    /// Judges a prompt, or one text of a conversation, before the model sees it. `request` says who asks for what.
    fn screen_prompt(&self, text: &str, request: &RequestContext) -> Screening;
}

/// One line of an answer's `safelmm.policy`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// The policy.
    pub plugin: String,
    /// When it spoke: `"screen-prompt"`.
    pub hook: &'static str,
    /// What it decided.
    pub verdict: Verdict,
    /// What it found.
    pub category: &'static str,
    /// How sure it is, from 0 to 1.
    pub score: f32,
}

/// A refused text: the policy, and its reason for people.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the policy '{plugin}' refuses this text ({category}): {reason}")]
pub struct Denial {
    /// The policy.
    pub plugin: String,
    /// What it found.
    pub category: &'static str,
    /// Why, and what to do about it.
    pub reason: String,
}

/// The policies of a server, in the order in which they are asked.
#[derive(Default)]
pub struct Pipeline {
    policies: Vec<Box<dyn Policy>>,
}

impl Pipeline {
    /// Adds a policy behind the others.
    pub fn push(&mut self, policy: impl Policy + 'static) {
        self.policies.push(Box::new(policy));
    }

    /// Asks each policy about a text of `request`; what they flag goes into `entries`, each kind of finding once.
    ///
    /// # Errors
    /// The first denial; the policies after it are not asked.
    pub fn screen_prompt(&self, text: &str, request: &RequestContext, entries: &mut Vec<Entry>) -> Result<(), Denial> {
        for policy in &self.policies {
            let Screening { verdict, findings } = policy.screen_prompt(text, request);
            let plugin = || policy.name().to_owned();
            for finding in findings {
                match verdict {
                    Verdict::Allow => {}
                    Verdict::Deny => {
                        return Err(Denial { plugin: plugin(), category: finding.category, reason: finding.reason });
                    }
                    Verdict::Flag => {
                        let (category, score) = (finding.category, finding.score);
                        let entry = Entry { plugin: plugin(), hook: "screen-prompt", verdict, category, score };
                        if !entries.contains(&entry) {
                            entries.push(entry);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::request;
    use crate::request::{DeclaredUse, Rating};
    use crate::verdict::Finding;

    struct Says(&'static str, Verdict);

    impl Policy for Says {
        fn name(&self) -> &str {
            self.0
        }

        fn screen_prompt(&self, text: &str, _: &RequestContext) -> Screening {
            let finding = Finding { category: "test", score: 0.5, reason: "because".to_owned(), span: 0..text.len() };
            Screening { verdict: self.1, findings: vec![finding.clone(), finding] }
        }
    }

    #[test]
    fn flags_add_up_and_the_first_denial_ends_it() {
        let mut pipeline = Pipeline::default();
        let (nobody, mut entries) = (request(None), Vec::new());
        assert_eq!(pipeline.screen_prompt("x", &nobody, &mut entries), Ok(()));
        pipeline.push(Says("quiet", Verdict::Allow));
        pipeline.push(Says("first", Verdict::Flag));
        pipeline.push(Says("second", Verdict::Flag));
        assert_eq!(pipeline.screen_prompt("x", &nobody, &mut entries), Ok(()));
        assert_eq!(pipeline.screen_prompt("y", &nobody, &mut entries), Ok(()));
        assert_eq!(entries.iter().map(|e| &e.plugin[..]).collect::<Vec<_>>(), ["first", "second"]);
        pipeline.push(Says("third", Verdict::Deny));
        pipeline.push(Says("fourth", Verdict::Deny));
        let denial = pipeline.screen_prompt("x", &nobody, &mut entries).unwrap_err();
        assert_eq!(denial.to_string(), "the policy 'third' refuses this text (test): because");
    }
    /// Refuses every text of requests for more than PG, of commercial ones and of those of the key `banned`.
    struct Strict;

    impl Policy for Strict {
        fn name(&self) -> &str {
            "strict"
        }

        fn screen_prompt(&self, text: &str, request: &RequestContext) -> Screening {
            let RequestContext { caller, rating, declared_use, route } = request;
            let refuses = caller.as_ref().is_some_and(|caller| caller.key_name == "banned")
                || rating.is_some_and(|rating| rating > Rating::PG)
                || *declared_use == Some(DeclaredUse::Commercial);
            if !refuses {
                return Screening::allow();
            }
            let reason = format!("not on {route}");
            let finding = Finding { category: "test", score: 1.0, reason, span: 0..text.len() };
            Screening { verdict: Verdict::Deny, findings: vec![finding] }
        }
    }

    #[test]
    fn a_policy_judges_by_who_asks_and_for_what() {
        let mut pipeline = Pipeline::default();
        pipeline.push(Strict);
        let judge = |request: RequestContext| pipeline.screen_prompt("x", &request, &mut Vec::new()).is_ok();
        let fine = request(Some(("01", "welcome")));
        assert!(judge(fine.clone()) && judge(request(None)));
        assert!(!judge(request(Some(("01", "banned")))));
        assert!(judge(RequestContext { rating: Some(Rating::PG), ..fine.clone() }));
        assert!(!judge(RequestContext { rating: Some(Rating::R), ..fine.clone() }));
        assert!(judge(RequestContext { declared_use: Some(DeclaredUse::NonCommercial), ..fine.clone() }));
        let commercial = RequestContext { declared_use: Some(DeclaredUse::Commercial), ..fine };
        let denial = pipeline.screen_prompt("x", &commercial, &mut Vec::new()).unwrap_err();
        assert_eq!(denial.reason, "not on /v1/completions");
    }
}

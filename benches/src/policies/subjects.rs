//! The bundled policies as they are measured.

use std::rc::Rc;

use anyhow::{Result, anyhow};
use safelmm_plugin::{Hook, Outcome, Policy, Request, testing};

use super::sets::Item;

/// What is above PG for `rating`, and harmful for `perplexity`.
const STRONG: [&str; 5] = ["rating/r", "rating/x", "harmful", "hate", "offensive"];

/// What a policy has to say of a text: whether it acts on it.
type Asked = Box<dyn Fn(&Item) -> Result<bool>>;

/// A policy with settings, and what it should find.
pub struct Subject {
    /// Its name, with what is set.
    pub name: String,
    ask: Asked,
    finds: Vec<String>,
}

impl Subject {
    /// `settings`: JSON; `finds`: the categories of texts that it should act on, its own where there are none.
    fn new<P: Policy>(name: &str, settings: &str, finds: &[&str]) -> Result<Subject> {
        let policy: P = testing::configure(settings).map_err(|errors| anyhow!("{name}: {errors:?}"))?;
        let policy = Rc::new(policy);
        let description = P::describe();
        let finds = match finds {
            [] => description.categories.clone(),
            finds => finds.iter().map(|c| (*c).to_owned()).collect(),
        };
        let hook = [Hook::ScreenPrompt, Hook::ReviewResponse, Hook::InspectStream]
            .into_iter()
            .find(|hook| description.hooks.contains(hook))
            .ok_or_else(|| anyhow!("{name} has no hook that judges a text"))?;
        let ask = move |item: &Item| {
            let language = Some(item.language.clone()).filter(|l| !l.is_empty());
            let request = Request { language, ..Request::new("bench") };
            let outcome = match hook {
                Hook::ScreenPrompt => policy.screen_prompt(&request, &item.text).outcome(),
                Hook::ReviewResponse => policy.review_response(&request, &item.text, &[]).outcome(),
                _ => testing::stream(&policy, &request, "", &[&item.text], &[]).map_err(anyhow::Error::msg)?.outcome,
            };
            Ok(!matches!(outcome, Outcome::Allow | Outcome::Abstain))
        };
        Ok(Subject { name: name.to_owned(), ask: Box::new(ask), finds })
    }

    /// Whether it acts on a text.
    ///
    /// # Errors
    /// When it breaks the contract.
    pub fn acts(&self, item: &Item) -> Result<bool> {
        (self.ask)(item)
    }

    /// Whether it should act on a text; none where the text is about something that is not its subject.
    pub fn should_act(&self, item: &Item) -> Option<bool> {
        match &item.category {
            None => Some(false),
            Some(category) => self.finds.contains(category).then_some(true),
        }
    }
}

/// All that are measured. `wordlist` finds what an operator lists, `license-obligations` judges no text: neither is measured.
///
/// # Errors
/// When a policy refuses its settings.
pub fn subjects() -> Result<Vec<Subject>> {
    use safelmm_policy_advice::Advice;
    use safelmm_policy_disclosure::Disclosure;
    use safelmm_policy_high_risk::HighRisk;
    use safelmm_policy_perplexity::Perplexity;
    use safelmm_policy_pii::Pii;
    use safelmm_policy_rating::Rating;
    Ok(vec![
        Subject::new::<Advice>("advice", "", &[])?,
        Subject::new::<Disclosure>("disclosure", "", &["asked"])?,
        Subject::new::<HighRisk>("high-risk", "", &[])?,
        Subject::new::<Perplexity>("perplexity", "", &STRONG)?,
        Subject::new::<Pii>("pii", "", &[])?,
        Subject::new::<Rating>("rating, ceiling PG", r#"{"ceiling": "PG"}"#, &STRONG)?,
        Subject::new::<Rating>("rating, ceiling R", r#"{"ceiling": "R"}"#, &["rating/x"])?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_acts_on_what_it_is_about_alone() {
        let subjects = subjects().unwrap();
        let item = |category: Option<&str>, text: &str| Item {
            text: text.into(),
            language: "en".into(),
            category: category.map(str::to_owned),
            part: None,
        };
        let strong = item(Some("rating/r"), "The murderer stabbed his victim and left the corpse in a pool of blood.");
        let quiet = item(None, "The children read books in the library.");
        let named = |name: &str| subjects.iter().find(|s| s.name == name).unwrap();
        let rating = named("rating, ceiling PG");
        assert!(rating.acts(&strong).unwrap() && !rating.acts(&quiet).unwrap());
        assert_eq!(rating.should_act(&strong), Some(true));
        assert_eq!(rating.should_act(&quiet), Some(false));
        assert_eq!(rating.should_act(&item(Some("pii/email"), "x")), None);
        assert_eq!(named("rating, ceiling R").should_act(&strong), None);
    }
}

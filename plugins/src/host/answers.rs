//! From the contract's types to the pipeline's, and what makes an answer impossible.

use std::collections::BTreeSet;

use super::bindings::exports::safelmm::policy::generation::{Action as WitAction, Biases, Candidates as WitCandidates};
use super::bindings::safelmm::policy::types as wit;
use super::component::Component;
use super::failure::Failure;
use crate::document::{Document, Obligation, Passage};
use crate::request::{DeclaredUse, Rating, RequestContext};
use crate::session::{Action, Candidates};
use crate::verdict::{Finding, Judgement};

/// The most findings of one answer.
const MAX_FINDINGS: usize = 1024;
/// The longest reason, in bytes.
const MAX_REASON: usize = 4096;
/// How much longer than the text asked about another text may be that stands in for it: so many times, and so many bytes.
const MAX_GROWTH: (usize, usize) = (4, 64 << 10);

pub(super) fn request(context: &RequestContext) -> wit::Request {
    let caller = context.caller.as_ref();
    wit::Request {
        id: context.id.clone(),
        route: context.route.to_owned(),
        model: context.model.clone(),
        key_id: caller.map(|caller| caller.key_id.clone()),
        key_name: caller.map(|caller| caller.key_name.clone()),
        rating: context.rating.map(rating),
        declared_use: context.declared_use.map(|declared| match declared {
            DeclaredUse::Commercial => wit::DeclaredUse::Commercial,
            DeclaredUse::NonCommercial => wit::DeclaredUse::NonCommercial,
        }),
        language: context.language.clone(),
    }
}

fn rating(rating: Rating) -> wit::Rating {
    match rating {
        Rating::G => wit::Rating::G,
        Rating::PG => wit::Rating::Pg,
        Rating::R => wit::Rating::R,
        Rating::X => wit::Rating::X,
    }
}

pub(super) fn document(document: &Document) -> wit::Document {
    let obligation = |obligation: &Obligation| match obligation {
        Obligation::Attribution => wit::Obligation::Attribution,
        Obligation::ShareAlike => wit::Obligation::ShareAlike,
        Obligation::NonCommercial => wit::Obligation::NonCommercial,
        Obligation::NoDerivatives => wit::Obligation::NoDerivatives,
    };
    wit::Document {
        id: document.id.clone(),
        store: document.store.clone(),
        title: document.title.clone(),
        author: document.author.clone(),
        license: document.license.clone(),
        url: document.url.clone(),
        language: document.language.clone(),
        rating: document.rating.map(rating),
        obligations: document.obligations.iter().map(obligation).collect(),
    }
}

pub(super) fn documents(documents: &[Document]) -> Vec<wit::Document> {
    documents.iter().map(document).collect()
}

pub(super) fn passage(passage: &Passage) -> wit::Passage {
    wit::Passage { source: document(&passage.source), score: passage.score, text: passage.text.clone() }
}

/// The passage of a golden vector.
pub(super) fn passage_of_vector(passage: wit::Passage) -> Passage {
    let wit::Document { id, store, title, author, license, url, language, rating, obligations } = passage.source;
    let source = Document {
        id,
        store,
        title,
        author,
        license,
        url,
        language,
        rating: rating.map(|rating| match rating {
            wit::Rating::G => Rating::G,
            wit::Rating::Pg => Rating::PG,
            wit::Rating::R => Rating::R,
            wit::Rating::X => Rating::X,
        }),
        obligations: obligations
            .into_iter()
            .map(|obligation| match obligation {
                wit::Obligation::Attribution => Obligation::Attribution,
                wit::Obligation::ShareAlike => Obligation::ShareAlike,
                wit::Obligation::NonCommercial => Obligation::NonCommercial,
                wit::Obligation::NoDerivatives => Obligation::NoDerivatives,
            })
            .collect(),
    };
    Passage { source, score: passage.score, text: passage.text }
}

pub(super) fn candidates(candidates: &Candidates) -> WitCandidates {
    WitCandidates { ids: candidates.ids.clone(), logits: candidates.logits.clone() }
}

/// What a policy may find: the categories of its description.
pub(super) struct Answers {
    categories: BTreeSet<String>,
}

impl Answers {
    /// Those of a component.
    pub fn new(component: &Component) -> Self {
        Answers { categories: component.categories.iter().cloned().collect() }
    }

    /// The judgement on a text, if it is a possible one.
    pub fn judgement(&self, verdict: wit::Verdict, text: &str) -> Result<Judgement, Failure> {
        Ok(match verdict {
            wit::Verdict::Allow => Judgement::Allow,
            wit::Verdict::Abstain => Judgement::Abstain,
            wit::Verdict::Flag(findings) => Judgement::Flag(self.findings(findings, text)?),
            wit::Verdict::Rewrite(wit::Rewriting { text: other, findings }) => {
                let findings = self.findings(findings, text)?;
                Judgement::Rewrite { text: grown(other, text)?, findings }
            }
            wit::Verdict::Deny(findings) => {
                Judgement::Deny(at_least_one(self.findings(findings, text)?, "a denied text")?)
            }
        })
    }

    /// What becomes of the pending text, if that is possible; `last`: nothing can be held.
    pub fn action(&self, action: WitAction, pending: &str, last: bool) -> Result<Action, Failure> {
        let check_hold = |hold: u32, text: &str| {
            let hold = hold as usize;
            if hold > text.len() {
                return Err(Failure::Answer(format!("it holds {hold} bytes of a text of {}", text.len())));
            }
            if last && hold > 0 {
                return Err(Failure::Answer(format!("it holds {hold} bytes at the end of the answer")));
            }
            Ok(hold)
        };
        Ok(match action {
            WitAction::Pass => Action::Pass,
            WitAction::Hold(hold) => Action::Hold(check_hold(hold, pending)?),
            WitAction::Replace(wit::Replacement { text, hold, findings }) => {
                let findings = self.findings(findings, pending)?;
                let text = grown(text, pending)?;
                let hold = check_hold(hold, &text)?;
                Action::Replace { text, hold, findings }
            }
            WitAction::Stop(wit::Stopping { message, findings }) => {
                let findings = at_least_one(self.findings(findings, pending)?, "a stopped answer")?;
                Action::Stop { message: grown(message, pending)?, findings }
            }
        })
    }

    fn findings(&self, findings: Vec<wit::Finding>, text: &str) -> Result<Vec<Finding>, Failure> {
        if findings.len() > MAX_FINDINGS {
            return Err(Failure::Answer(format!("{} findings: at most {MAX_FINDINGS} are possible", findings.len())));
        }
        findings.into_iter().map(|finding| self.finding(finding, text)).collect()
    }

    fn finding(&self, finding: wit::Finding, text: &str) -> Result<Finding, Failure> {
        let wit::Finding { category, score, reason, where_ } = finding;
        let wrong = |what: String| Err(Failure::Answer(what));
        if !self.categories.contains(&category) {
            return wrong(format!("the category {:?} is not in its description", shortened(&category)));
        }
        if !(0.0..=1.0).contains(&score) {
            return wrong(format!("a score of {score}: expected one from 0 to 1"));
        }
        if reason.len() > MAX_REASON {
            return wrong(format!("a reason of {} bytes: at most {MAX_REASON} are possible", reason.len()));
        }
        let span = match where_ {
            None => None,
            Some(wit::Span { start, end }) => {
                let span = start as usize..end as usize;
                if text.get(span.clone()).is_none() {
                    let len = text.len();
                    return wrong(format!("a span {start}..{end} that is not between characters of {len} bytes"));
                }
                Some(span)
            }
        };
        Ok(Finding { category, score, reason, span })
    }
}

/// What is added to logits, if it is possible.
pub(super) fn biases(Biases { ids, values }: Biases) -> Result<Vec<(u32, f32)>, Failure> {
    if ids.len() != values.len() {
        return Err(Failure::Answer(format!("{} ids and {} biases: expected as many", ids.len(), values.len())));
    }
    match values.iter().find(|value| !(value.is_finite() || **value == f32::NEG_INFINITY)) {
        Some(value) => Err(Failure::Answer(format!("a bias of {value}: expected a finite number or minus infinity"))),
        None => Ok(ids.into_iter().zip(values).collect()),
    }
}

fn at_least_one(findings: Vec<Finding>, what: &str) -> Result<Vec<Finding>, Failure> {
    match findings.is_empty() {
        true => Err(Failure::Answer(format!("{what} without a finding that says why"))),
        false => Ok(findings),
    }
}

/// A text that stands in for another one.
fn grown(text: String, before: &str) -> Result<String, Failure> {
    let most = before.len().saturating_mul(MAX_GROWTH.0).saturating_add(MAX_GROWTH.1);
    match text.len() > most {
        true => Err(Failure::Answer(format!("a text of {} bytes in place of {}", text.len(), before.len()))),
        false => Ok(text),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> Answers {
        Answers { categories: ["pii/email".to_owned()].into() }
    }

    fn finding(where_: Option<(u32, u32)>) -> wit::Finding {
        let where_ = where_.map(|(start, end)| wit::Span { start, end });
        wit::Finding { category: "pii/email".to_owned(), score: 0.5, reason: "r".to_owned(), where_ }
    }

    #[test]
    fn impossible_findings_are_refused() {
        let judge = |finding| answers().judgement(wit::Verdict::Flag(vec![finding]), "aé");
        assert!(judge(finding(None)).is_ok());
        assert!(judge(finding(Some((1, 3)))).is_ok() && judge(finding(Some((3, 3)))).is_ok());
        for span in [(0, 2), (2, 3), (0, 4), (3, 1), (u32::MAX, u32::MAX)] {
            assert!(matches!(judge(finding(Some(span))), Err(Failure::Answer(_))), "{span:?}");
        }
        for score in [f32::NAN, -0.1, 1.1, f32::INFINITY] {
            assert!(judge(wit::Finding { score, ..finding(None) }).is_err(), "{score}");
        }
        assert!(judge(wit::Finding { category: "other".to_owned(), ..finding(None) }).is_err());
        assert!(judge(wit::Finding { reason: "r".repeat(MAX_REASON + 1), ..finding(None) }).is_err());
        assert!(answers().judgement(wit::Verdict::Deny(vec![]), "a").is_err());
        assert!(answers().judgement(wit::Verdict::Flag(vec![finding(None); MAX_FINDINGS + 1]), "a").is_err());
        let long = wit::Rewriting { text: "x".repeat(MAX_GROWTH.1 + 5), findings: vec![] };
        assert!(answers().judgement(wit::Verdict::Rewrite(long), "a").is_err());
    }

    #[test]
    fn impossible_actions_are_refused() {
        let act = |action, last| answers().action(action, "aé", last);
        assert_eq!(act(WitAction::Hold(3), false), Ok(Action::Hold(3)));
        assert!(act(WitAction::Hold(4), false).is_err() && act(WitAction::Hold(1), true).is_err());
        assert!(act(WitAction::Hold(0), true).is_ok());
        let replace = |hold| WitAction::Replace(wit::Replacement { text: "xy".to_owned(), hold, findings: vec![] });
        assert!(act(replace(2), false).is_ok() && act(replace(3), false).is_err() && act(replace(1), true).is_err());
        let stop = |findings| WitAction::Stop(wit::Stopping { message: "m".to_owned(), findings });
        assert!(act(stop(vec![finding(None)]), true).is_ok() && act(stop(vec![]), false).is_err());
    }

    #[test]
    fn biases_are_finite_or_forbid() {
        let of = |ids: &[u32], values: &[f32]| biases(Biases { ids: ids.to_vec(), values: values.to_vec() });
        assert_eq!(of(&[3, 1], &[1.0, f32::NEG_INFINITY]), Ok(vec![(3, 1.0), (1, f32::NEG_INFINITY)]));
        assert!(of(&[1], &[]).is_err() && of(&[1], &[f32::NAN]).is_err() && of(&[1], &[f32::INFINITY]).is_err());
    }
}

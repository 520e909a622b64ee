//! Nothing leaves before every policy of the stream has let it pass: secrets are cut at every place.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in helpers too")]

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use safelmm_plugins::{
    About, Action, Answer, Candidates, Cleared, Document, Finding, Hook, Hooks, Inspection, Judgement, Pipeline,
    Policy, RequestContext, Scope, Selection, Session, Verdict,
};

fn request() -> RequestContext {
    RequestContext {
        id: "1".into(),
        model: "m".into(),
        caller: None,
        rating: None,
        declared_use: None,
        route: "/v1/completions",
        language: None,
    }
}

fn finding() -> Finding {
    Finding { category: "secret".into(), score: 1.0, reason: "a secret".into(), span: None }
}

/// Puts one word in the place of another, or stops there; holds back what may begin it.
#[derive(Clone)]
struct Replaces {
    name: &'static str,
    secret: &'static str,
    /// None stops.
    by: Option<&'static str>,
    hooks: Vec<Hook>,
    /// How long the longest text was that it was asked about.
    longest: Arc<Mutex<usize>>,
}

impl Replaces {
    fn new(name: &'static str, secret: &'static str, by: Option<&'static str>) -> Self {
        Replaces { name, secret, by, hooks: vec![Hook::InspectStream], longest: Arc::default() }
    }
}

impl Policy for Replaces {
    fn name(&self) -> &str {
        self.name
    }
    fn about(&self) -> About {
        unreachable!()
    }
    fn hooks(&self) -> Hooks {
        self.hooks.iter().copied().collect()
    }
    fn session(&self, _: &RequestContext, _: &str) -> Option<Box<dyn Session>> {
        Some(Box::new(self.clone()))
    }
    fn review_response(&self, _: &RequestContext, text: &str, _: &[Document]) -> Judgement {
        match (text.contains(self.secret), self.by) {
            (false, _) => Judgement::Allow,
            (true, Some(by)) => Judgement::Rewrite { text: text.replace(self.secret, by), findings: vec![finding()] },
            (true, None) => Judgement::Deny(vec![finding()]),
        }
    }
}

impl Session for Replaces {
    fn adjust_logits(&mut self, _: Option<u32>, _: &Candidates) -> Result<Vec<(u32, f32)>, Finding> {
        Ok(vec![])
    }

    fn inspect_stream(&mut self, pending: &str, sources: Option<&[Document]>) -> Inspection {
        let mut longest = self.longest.lock().unwrap();
        *longest = pending.len().max(*longest);
        let begun = |text: &str| {
            let starts = (1..self.secret.len()).rev().filter(|n| self.secret.is_char_boundary(*n));
            starts.into_iter().find(|n| text.ends_with(&self.secret[..*n])).unwrap_or(0)
        };
        let hold = |text: &str| if sources.is_some() { 0 } else { begun(text) };
        Inspection::Act(match (pending.find(self.secret), self.by) {
            (None, _) if hold(pending) == 0 => Action::Pass,
            (None, _) => Action::Hold(hold(pending)),
            (Some(at), None) => Action::Stop { message: pending[..at].to_owned() + "…", findings: vec![finding()] },
            (Some(_), Some(by)) => {
                let text = pending.replace(self.secret, by);
                let hold = hold(&text);
                Action::Replace { text, hold, findings: vec![finding()] }
            }
        })
    }
}

fn scope(policies: Vec<Replaces>) -> Scope {
    let policies = policies.into_iter().map(|policy| Arc::new(policy) as Arc<dyn Policy>).collect();
    Pipeline::new(policies, vec![], Selection::default()).scope(request())
}

/// What leaves piece by piece, and the whole.
fn through(scope: &Scope, pieces: &[&str]) -> (Vec<String>, String, bool) {
    let mut guard = Answer::new(scope.clone(), "prompt").guard();
    let mut left = Vec::new();
    let mut stopped = false;
    for piece in pieces {
        let cleared = guard.push(piece);
        left.push(cleared.text);
        stopped |= cleared.stopped;
    }
    let Cleared { text, stopped: at_end } = guard.finish("", &[]);
    left.push(text);
    assert_eq!(guard.has_stopped(), stopped | at_end);
    (left.clone(), left.concat(), stopped | at_end)
}

/// A text in pieces of at most two cuts, at every pair of places.
fn cuts(text: &str) -> Vec<[&str; 3]> {
    let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let pairs = places.iter().flat_map(|a| places.iter().filter(move |b| a <= *b).map(move |b| (*a, *b)));
    pairs.map(|(a, b)| [&text[..a], &text[a..b], &text[b..]]).collect()
}

#[test]
fn a_secret_is_caught_wherever_it_is_cut() {
    const TEXT: &str = "the key is zß-42-é, the key!";
    for by in [Some("[key]"), Some(""), Some("z"), None] {
        for pieces in cuts(TEXT) {
            let scope = scope(vec![Replaces::new("a", "zß-42-é", by)]);
            let (left, whole, stopped) = through(&scope, &pieces);
            let mut so_far = String::new();
            for piece in left {
                so_far += &piece;
                assert!(!so_far.contains("zß") || by.is_none() && so_far.contains('…'), "{pieces:?}: {so_far}");
            }
            let expected = match by {
                Some(by) => TEXT.replace("zß-42-é", by),
                None => "the key is …".to_owned(),
            };
            // What left before the stop is not said again: the message stands for what was pending.
            assert_eq!((&whole, stopped), (&expected, by.is_none()), "{pieces:?}");
            let verdict = if by.is_some() { Verdict::Rewrite } else { Verdict::Deny };
            assert_eq!(scope.entries().iter().map(|entry| entry.verdict).collect::<Vec<_>>(), [verdict]);
        }
    }
}

#[test]
fn what_one_policy_puts_in_is_what_the_next_one_sees() {
    for pieces in cuts("say alpha now") {
        let chain = [Replaces::new("a", "alpha", Some("beta")), Replaces::new("b", "beta", Some("gamma"))];
        let (_, whole, _) = through(&scope(chain.to_vec()), &pieces);
        assert_eq!(whole, "say gamma now", "{pieces:?}");
        let (_, whole, _) = through(&scope(chain.into_iter().rev().collect()), &pieces);
        assert_eq!(whole, "say beta now", "the other order: {pieces:?}");
        // What a stop says goes through those behind it too.
        let chain = [Replaces::new("a", "now", None), Replaces::new("b", "say alpha …", Some("hush"))];
        let (left, whole, stopped) = through(&scope(chain.to_vec()), &["say alpha now", " and more"]);
        assert_eq!((left[1].as_str(), &whole[..], stopped), ("", "hush", true));
    }
}

#[test]
fn a_policy_that_reviews_makes_the_stream_wait() {
    for (by, expected) in [(Some("[x]"), "one [x] three"), (None, "")] {
        let reviews = Replaces { hooks: vec![Hook::ReviewResponse], ..Replaces::new("r", "two", by) };
        let (left, whole, stopped) = through(&scope(vec![reviews]), &["one t", "wo thr", "ee"]);
        assert!(left[..3].iter().all(String::is_empty), "{left:?}");
        assert_eq!((&whole[..], stopped), (expected, by.is_none()));
    }
}

#[test]
fn without_policies_everything_passes_at_once() {
    let scope = scope(vec![]);
    assert!(Answer::new(scope.clone(), "").guard().is_open());
    assert_eq!(through(&scope, &["a", "", "b"]).0, ["a", "", "b", ""]);
}

proptest! {
    #[test]
    fn texts_cut_anywhere_come_out_as_if_they_were_whole(
        pieces in proptest::collection::vec("(sec|ret|s|e|c|r|t|secret|ü| ){0,3}", 0..24),
    ) {
        let text = pieces.concat();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let policy = Replaces::new("a", "secret", Some("•"));
        let longest = Arc::clone(&policy.longest);
        let (left, whole, _) = through(&scope(vec![policy]), &pieces);
        prop_assert_eq!(&whole, &text.replace("secret", "•"));
        // It is never asked about more than a piece and what it held itself.
        let most = pieces.iter().map(|piece| piece.len()).max().unwrap_or(0) + "secret".len();
        prop_assert!(*longest.lock().unwrap() <= most);
        // Nothing is late either: at most the beginning of a secret is held.
        let mut so_far = 0;
        for (n, piece) in left.iter().enumerate().take(pieces.len()) {
            so_far += piece.len();
            let written = pieces[..=n].concat().replace("secret", "•");
            prop_assert!(written.len() - so_far < "secret".len(), "{} of {:?}", so_far, written);
        }
    }
}

//! Tests of policies without WebAssembly.

use crate::guest::{self, Running};
use crate::{
    Action, Description, Document, Finding, Hook, Outcome, Passage, Policy, Probe, Request, SettingError, Vector,
    Verdict, settings,
};
use std::rc::Rc;

/// What came of a probe.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The kind of verdict; `Rewrite` for a replacement in a stream, `Deny` for a stop.
    pub outcome: Outcome,
    /// The text that came out: all that left in a stream, the text itself where it passed, nothing where it was denied.
    pub text: String,
    /// All findings.
    pub findings: Vec<Finding>,
}

/// A policy with settings as JSON; an empty text stands for the defaults.
///
/// # Errors
/// What is wrong with the settings.
pub fn configure<P: Policy>(json: &str) -> Result<P, Vec<SettingError>> {
    P::configure(settings::parse(json)?)
}

/// Gives native code a vocabulary for as long as `f` runs: token `i` is `pieces[i]`.
#[cfg(not(target_arch = "wasm32"))]
pub fn with_vocabulary<R>(pieces: Vec<Option<Vec<u8>>>, f: impl FnOnce() -> R) -> R {
    use crate::vocabulary::native::PIECES;
    let before = PIECES.replace(pieces);
    let result = f();
    PIECES.set(before);
    result
}

/// Does with an answer in `pieces` what the host does with a stream: what is held comes again with the next piece, and
/// the last call has the sources.
///
/// # Errors
/// An action that the contract does not allow.
pub fn stream<P: Policy>(
    policy: &Rc<P>,
    request: &Request,
    prompt: &str,
    pieces: &[&str],
    sources: &[Document],
) -> Result<Answer, String> {
    let running = Running::new(policy.clone(), request, prompt);
    let mut answer = Answer { outcome: Outcome::Allow, text: String::new(), findings: Vec::new() };
    let mut pending = String::new();
    for (number, piece) in pieces.iter().map(Some).chain([None]).enumerate() {
        pending.push_str(piece.copied().unwrap_or_default());
        let last = piece.is_none();
        let wrong = |what: String| Err(format!("call {number}, pending {pending:?}: {what}"));
        let action = running.inspect_stream(&pending, last.then_some(sources));
        let (text, hold, findings) = match action {
            Action::Pass => (pending.clone(), 0, Vec::new()),
            Action::Hold(hold) => (pending.clone(), hold as usize, Vec::new()),
            Action::Replace(replacement) => {
                answer.outcome = Outcome::Rewrite;
                (replacement.text, replacement.hold as usize, replacement.findings)
            }
            Action::Stop(stopping) => {
                check_findings(&stopping.findings, &pending)?;
                if stopping.findings.is_empty() {
                    return wrong("a stop without a finding".into());
                }
                answer.findings.extend(stopping.findings);
                answer.outcome = Outcome::Deny;
                answer.text.push_str(&stopping.message);
                return Ok(answer);
            }
        };
        check_findings(&findings, &pending)?;
        answer.findings.extend(findings);
        if hold > text.len() {
            return wrong(format!("holds {hold} bytes of {}", text.len()));
        }
        if last && hold > 0 {
            return wrong(format!("holds {hold} bytes in the last call"));
        }
        let mut cut = text.len() - hold;
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        answer.text.push_str(&text[..cut]);
        pending = text[cut..].to_owned();
    }
    Ok(answer)
}

fn check_findings(findings: &[Finding], text: &str) -> Result<(), String> {
    for finding in findings {
        if let Some(span) = finding.where_ {
            if text.get(span.start as usize..span.end as usize).is_none() {
                return Err(format!("{finding:?} is not within the {} bytes of {text:?}", text.len()));
            }
        }
        if !(0.0..=1.0).contains(&finding.score) {
            return Err(format!("{finding:?}: the score is not between 0 and 1"));
        }
    }
    Ok(())
}

fn judged(verdict: Verdict, text: &str) -> Result<Answer, String> {
    check_findings(verdict.findings(), text)?;
    let (outcome, findings) = (verdict.outcome(), verdict.findings().to_vec());
    if outcome == Outcome::Deny && findings.is_empty() {
        return Err("a denial without a finding".into());
    }
    let text = match verdict {
        Verdict::Rewrite(rewriting) => rewriting.text,
        Verdict::Deny(_) => String::new(),
        _ => text.to_owned(),
    };
    Ok(Answer { outcome, text, findings })
}

/// All ways in which a stream is tried: as given, whole, character by character, and in two parts at every place.
fn cuttings(pieces: &[String]) -> Vec<Vec<&str>> {
    let mut ways = vec![pieces.iter().map(|p| &p[..]).collect()];
    // Pieces that lie apart in memory cannot be one `&str`; characters of each can.
    let characters: Vec<&str> = pieces
        .iter()
        .flat_map(|piece| piece.char_indices().map(move |(at, c)| &piece[at..at + c.len_utf8()]))
        .collect();
    ways.push(characters);
    if let [whole] = pieces {
        ways.extend((0..=whole.len()).filter(|&at| whole.is_char_boundary(at)).map(|at| {
            let (left, right) = whole.split_at(at);
            vec![left, right]
        }));
    }
    ways
}

/// Tries one vector.
///
/// # Errors
/// What came instead of what was expected.
pub fn try_vector<P: Policy>(description: &Description, vector: &Vector) -> Result<(), String> {
    let policy = configure::<P>(vector.settings.as_deref().unwrap_or_default())
        .map_err(|errors| format!("its settings were refused: {errors:?}"))?;
    let policy = Rc::new(policy);
    let request = Request::new("vector");
    let (hook, answers) = match &vector.probe {
        Probe::ScreenPrompt(text) => (Hook::ScreenPrompt, vec![judged(policy.screen_prompt(&request, text), text)?]),
        Probe::FilterPassage(passage) => (Hook::FilterPassages, vec![filtered(&*policy, &request, passage)?]),
        Probe::ReviewResponse(text) => {
            (Hook::ReviewResponse, vec![judged(policy.review_response(&request, text, &vector.sources), text)?])
        }
        Probe::InspectStream(pieces) => {
            let whole = [pieces.concat()];
            let mut answers = Vec::new();
            for pieces in cuttings(pieces).into_iter().chain(cuttings(&whole)) {
                let tried = stream(&policy, &request, "", &pieces, &vector.sources);
                answers.push(tried.map_err(|e| format!("cut as {pieces:?}: {e}"))?);
            }
            (Hook::InspectStream, answers)
        }
    };
    if !description.hooks.contains(&hook) {
        return Err(format!("it asks {hook:?}, which the description does not name"));
    }
    for answer in answers {
        if answer.outcome != vector.expected {
            return Err(format!("expected {:?}, but got {answer:?}", vector.expected));
        }
        if let Some(unknown) = answer.findings.iter().find(|f| !description.categories.contains(&f.category)) {
            return Err(format!("the description does not name the category {:?}", unknown.category));
        }
        if let Some(category) = &vector.category {
            if !answer.findings.iter().any(|f| f.category == *category) {
                return Err(format!("expected a finding of {category:?}, but got {:?}", answer.findings));
            }
        }
        if let Some(text) = &vector.text {
            if answer.text != *text {
                return Err(format!("expected the text {text:?}, but got {:?}", answer.text));
            }
        }
    }
    Ok(())
}

fn filtered<P: Policy>(policy: &P, request: &Request, passage: &Passage) -> Result<Answer, String> {
    let mut verdicts = policy.filter_passages(request, std::slice::from_ref(passage));
    match verdicts.pop() {
        Some(verdict) if verdicts.is_empty() => judged(verdict, &passage.text),
        _ => Err("filter_passages did not give one verdict for one passage".into()),
    }
}

/// Tries every golden vector, streams cut at every character too, and checks the description.
///
/// # Panics
/// When one of them fails, with all that do.
#[allow(clippy::panic, reason = "an assertion")]
pub fn assert_vectors<P: Policy>() {
    let description = guest::describe::<P>();
    let mut failures = Vec::new();
    let version: Vec<_> = description.version.splitn(3, '.').collect();
    if version.len() != 3 || version[..2].iter().any(|part| part.parse::<u64>().is_err()) {
        failures.push(format!("{:?} is not a semantic version", description.version));
    }
    if description.name.is_empty() || description.hooks.is_empty() {
        failures.push("the description lacks a name or hooks".into());
    }
    let vectors = P::vectors();
    if vectors.is_empty() {
        failures.push("there is no golden vector".into());
    }
    for vector in &vectors {
        if let Err(failure) = try_vector::<P>(&description, vector) {
            failures.push(format!("{}: {failure}", vector.name));
        }
    }
    assert!(failures.is_empty(), "{} of {} failed:\n{}", failures.len(), vectors.len(), failures.join("\n"));
}

//! Short ways to build the values of the contract.

use std::ops::Range;

use crate::{
    Action, Biases, Capability, Description, Document, Finding, Hook, Outcome, Passage, Probe, Replacement, Request,
    Rewriting, SettingError, Span, Stopping, Vector, Verdict,
};

impl Description {
    /// A description without hooks. `name` is what operators call the policy, `version` a semantic version, `summary`
    /// one sentence for people.
    pub fn new(name: &str, version: &str, summary: &str) -> Self {
        Description {
            name: name.into(),
            version: version.into(),
            summary: summary.into(),
            hooks: Vec::new(),
            categories: Vec::new(),
            languages: Vec::new(),
            capabilities: Vec::new(),
            settings_schema: String::new(),
        }
    }

    /// Where the policy is asked.
    pub fn hooks(mut self, hooks: impl IntoIterator<Item = Hook>) -> Self {
        self.hooks.extend(hooks);
        self
    }

    /// The categories of all findings.
    pub fn categories<T: Into<String>>(mut self, categories: impl IntoIterator<Item = T>) -> Self {
        self.categories.extend(categories.into_iter().map(Into::into));
        self
    }

    /// ISO 639-1 codes. Without them the policy is for any language.
    pub fn languages<T: Into<String>>(mut self, languages: impl IntoIterator<Item = T>) -> Self {
        self.languages.extend(languages.into_iter().map(Into::into));
        self
    }

    /// What the operator must grant.
    pub fn capabilities(mut self, capabilities: impl IntoIterator<Item = Capability>) -> Self {
        self.capabilities.extend(capabilities);
        self
    }
}

impl Finding {
    /// A finding about the text as a whole. `score` is how sure the policy is; it is kept within 0 and 1, and what is
    /// not a number counts as 1.
    pub fn new(category: impl Into<String>, score: f32, reason: impl Into<String>) -> Self {
        let score = if score.is_nan() { 1.0 } else { score.clamp(0.0, 1.0) };
        Finding { category: category.into(), score, reason: reason.into(), where_: None }
    }

    /// The finding with the bytes of the text where it stands.
    pub fn at(mut self, range: Range<usize>) -> Self {
        self.where_ = Some(range.into());
        self
    }
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        // The host passes no text of 4 GiB.
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Span { start: narrow(range.start), end: narrow(range.end) }
    }
}

impl Verdict {
    /// Another text in place of the one asked about.
    pub fn rewrite(text: impl Into<String>, findings: Vec<Finding>) -> Self {
        Verdict::Rewrite(Rewriting { text: text.into(), findings })
    }

    /// What was found; nothing where the text passed or could not be judged.
    pub fn findings(&self) -> &[Finding] {
        match self {
            Verdict::Flag(findings) | Verdict::Deny(findings) => findings,
            Verdict::Rewrite(rewriting) => &rewriting.findings,
            Verdict::Allow | Verdict::Abstain => &[],
        }
    }

    /// The kind of verdict.
    pub fn outcome(&self) -> Outcome {
        match self {
            Verdict::Allow => Outcome::Allow,
            Verdict::Flag(_) => Outcome::Flag,
            Verdict::Rewrite(_) => Outcome::Rewrite,
            Verdict::Deny(_) => Outcome::Deny,
            Verdict::Abstain => Outcome::Abstain,
        }
    }
}

impl Action {
    /// All but the last `bytes` may leave.
    pub fn hold(bytes: usize) -> Self {
        if bytes == 0 { Action::Pass } else { Action::Hold(u32::try_from(bytes).unwrap_or(u32::MAX)) }
    }

    /// `text` in place of what was pending; its last `hold` bytes stay pending.
    pub fn replace(text: impl Into<String>, hold: usize, findings: Vec<Finding>) -> Self {
        Action::Replace(Replacement { text: text.into(), hold: u32::try_from(hold).unwrap_or(u32::MAX), findings })
    }

    /// The end of the answer, with a message for its reader.
    pub fn stop(message: impl Into<String>, findings: Vec<Finding>) -> Self {
        Action::Stop(Stopping { message: message.into(), findings })
    }
}

impl Biases {
    /// Leaves all logits as they are.
    pub fn none() -> Self {
        Biases { ids: Vec::new(), values: Vec::new() }
    }
}

impl SettingError {
    /// `pointer` (RFC 6901) says which setting, such as `/patterns/3`; `message` what was expected there.
    pub fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        SettingError { pointer: pointer.into(), message: message.into() }
    }
}

impl Request {
    /// A request with this id, of which nothing else is known.
    pub fn new(id: &str) -> Self {
        Request {
            id: id.into(),
            route: "/v1/chat/completions".into(),
            model: String::new(),
            key_id: None,
            key_name: None,
            rating: None,
            declared_use: None,
            language: None,
        }
    }
}

impl Document {
    /// A document of which only this is known. `license` is an SPDX expression.
    pub fn new(id: &str, title: &str, author: &str, license: &str, url: &str) -> Self {
        Document {
            id: id.into(),
            store: String::new(),
            title: title.into(),
            author: author.into(),
            license: license.into(),
            url: url.into(),
            language: None,
            rating: None,
            obligations: Vec::new(),
        }
    }
}

impl Vector {
    fn of(name: &str, probe: Probe, expected: Outcome) -> Self {
        Vector { name: name.into(), settings: None, probe, expected, category: None, text: None, sources: Vec::new() }
    }

    /// Asks about a prompt.
    pub fn prompt(name: &str, text: impl Into<String>, expected: Outcome) -> Self {
        Self::of(name, Probe::ScreenPrompt(text.into()), expected)
    }

    /// Asks about one passage.
    pub fn passage(name: &str, passage: Passage, expected: Outcome) -> Self {
        Self::of(name, Probe::FilterPassage(passage), expected)
    }

    /// Asks about an answer in the pieces in which it is written. `Rewrite` stands for a replacement, `Deny` for a stop.
    pub fn stream<T: Into<String>>(name: &str, pieces: impl IntoIterator<Item = T>, expected: Outcome) -> Self {
        Self::of(name, Probe::InspectStream(pieces.into_iter().map(Into::into).collect()), expected)
    }

    /// Asks about a whole answer.
    pub fn answer(name: &str, text: impl Into<String>, expected: Outcome) -> Self {
        Self::of(name, Probe::ReviewResponse(text.into()), expected)
    }

    /// With these settings, as JSON.
    pub fn settings(mut self, json: impl Into<String>) -> Self {
        self.settings = Some(json.into());
        self
    }

    /// This category must be among the findings.
    pub fn category(mut self, category: &str) -> Self {
        self.category = Some(category.into());
        self
    }

    /// This text must come out.
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// These documents had a part in the answer.
    pub fn sources(mut self, sources: impl IntoIterator<Item = Document>) -> Self {
        self.sources = sources.into_iter().collect();
        self
    }
}

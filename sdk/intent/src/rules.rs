//! Rules over classes of terms that stand in one sentence.
//!
//! ```text
//! covers NIL SAFE
//! illicit/violent 0.9: HOW MAKE~6 BOMB~6 / GUARD -GAME
//! ```
//!
//! The rule holds where a sentence has a `HOW`, a `MAKE` at most 6 words from it, and a `BOMB` at most 6 words from that;
//! `>` before a class wants it behind the one before, `A|B` takes either. It does not hold with a `GUARD` among or just
//! around these words, or a `GAME` anywhere in the sentence. A rule with `text` behind its score looks at three sentences in
//! a row as if they were one. A term of a class that `covers` hides the terms inside it.

use std::ops::Range;

use crate::{Hit, Language, Lexicon, Normal, Reading};

/// Why rules cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// A line that is not a rule.
    #[error("line {0}: expected `category score: CLASS CLASS~words / CLASS -CLASS`")]
    Line(usize),
    /// A class that the lexicon does not have.
    #[error("line {0}: no class is called `{1}`")]
    Class(usize, String),
}

/// Rules over the classes of one lexicon.
pub struct Rules {
    categories: Vec<String>,
    covers: u128,
    rules: Vec<Rule>,
}

struct Rule {
    category: usize,
    score: f32,
    parts: Vec<Part>,
    near: u128,
    anywhere: u128,
    /// Looks at three sentences in a row.
    text: bool,
}

struct Part {
    classes: u128,
    within: Option<u32>,
    behind: bool,
}

/// A rule that held.
#[derive(Clone, Debug, PartialEq)]
pub struct Match<'a> {
    /// What the rule finds.
    pub category: &'a str,
    /// How sure the rule is, from 0 to 1.
    pub score: f32,
    /// The language of its terms.
    pub language: Language,
    /// The bytes of the original text from its first to its last term.
    pub span: Range<usize>,
    /// The rule's place among the rules.
    pub rule: usize,
}

/// The words around a rule's terms in which a guarding term counts.
const BEFORE: u32 = 4;
const AFTER: u32 = 3;

impl Rules {
    /// Reads rules.
    ///
    /// # Errors
    /// The first line that is no rule, or names an unknown class.
    pub fn new(text: &str, lexicon: &Lexicon) -> Result<Self, RulesError> {
        let mut rules = Self { categories: Vec::new(), covers: 0, rules: Vec::new() };
        for (i, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let class = |name: &str| {
                let at = lexicon.classes().iter().position(|c| *c == name);
                at.map(|at| 1u128 << at).ok_or_else(|| RulesError::Class(i + 1, name.into()))
            };
            let classes = |names: &str| names.split('|').try_fold(0, |set, name| Ok(set | class(name)?));
            if let Some(names) = line.strip_prefix("covers ") {
                for name in names.split_whitespace() {
                    rules.covers |= class(name)?;
                }
            } else if !line.is_empty() {
                let (head, body) = line.split_once(':').ok_or(RulesError::Line(i + 1))?;
                let mut head = head.split_whitespace();
                let (category, score) = head.next().zip(head.next()).ok_or(RulesError::Line(i + 1))?;
                let score = score.parse().map_err(|_| RulesError::Line(i + 1))?;
                let text = match head.next() {
                    None => false,
                    Some("text") => true,
                    Some(_) => return Err(RulesError::Line(i + 1)),
                };
                let (wanted, unwanted) = body.split_once(" / ").unwrap_or((body, ""));
                let (mut near, mut anywhere) = (0, 0);
                for name in unwanted.split_whitespace() {
                    match name.strip_prefix('-') {
                        Some(name) => anywhere |= classes(name)?,
                        None => near |= classes(name)?,
                    }
                }
                let mut parts = Vec::new();
                for part in wanted.split_whitespace() {
                    let (part, behind) = part.strip_prefix('>').map_or((part, false), |p| (p, true));
                    let (names, within) = part.split_once('~').map_or((part, None), |(p, n)| (p, Some(n)));
                    let within = within.map(|n| n.parse().map_err(|_| RulesError::Line(i + 1))).transpose()?;
                    parts.push(Part { classes: classes(names)?, within, behind });
                }
                if parts.is_empty() {
                    return Err(RulesError::Line(i + 1));
                }
                let category = rules.category(category);
                rules.rules.push(Rule { category, score, parts, near, anywhere, text });
            }
        }
        Ok(rules)
    }

    /// All categories that rules find.
    pub fn categories(&self) -> &[String] {
        &self.categories
    }

    fn category(&mut self, name: &str) -> usize {
        self.categories.iter().position(|c| c == name).unwrap_or_else(|| {
            self.categories.push(name.into());
            self.categories.len() - 1
        })
    }

    /// The rules that hold in a text, at most one match for each rule, the surest first.
    pub fn matches(&self, normal: &Normal, reading: &Reading) -> Vec<Match<'_>> {
        let mut found: Vec<Match<'_>> = Vec::new();
        let until = |sentence: &Range<usize>| reading.hits.partition_point(|h| (h.last as usize) < sentence.end);
        let ends: Vec<usize> = normal.sentences().iter().map(until).collect();
        for (i, &end) in ends.iter().enumerate() {
            let start = |back: usize| (i + 1).checked_sub(back + 1).map_or(0, |j| ends[j]);
            for (from, text) in [(start(1), false), (start(3), true)] {
                if start(1) < end {
                    self.look(&reading.hits[from..end], text, normal, reading, &mut found);
                }
            }
        }
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found
    }

    fn look<'a>(&'a self, hits: &[Hit], text: bool, normal: &Normal, reading: &Reading, found: &mut Vec<Match<'a>>) {
        if !self.rules.iter().any(|r| r.text == text) {
            return;
        }
        for language in Language::all().filter(|l| reading.candidates.has(*l)) {
            let own: Vec<Hit> = self.uncovered(hits, language);
            let present = own.iter().fold(0u128, |set, h| set | 1 << h.class);
            for (i, rule) in self.rules.iter().enumerate().filter(|(_, r)| r.text == text) {
                let possible = rule.parts.iter().all(|p| p.classes & present != 0) && rule.anywhere & present == 0;
                if !possible || found.iter().any(|m| m.rule == i) {
                    continue;
                }
                if let Some((first, last)) = rule.holds(&own, normal) {
                    let token = |i: u32| normal.tokens()[i as usize];
                    let span = token(first).from as usize..token(last).to as usize;
                    let category = &self.categories[rule.category];
                    found.push(Match { category, score: rule.score, language, span, rule: i });
                }
            }
        }
    }

    /// The hits of one language that do not lie inside a covering one.
    fn uncovered(&self, hits: &[Hit], language: Language) -> Vec<Hit> {
        let own: Vec<Hit> = hits.iter().filter(|h| h.mask.has(language)).copied().collect();
        let covering: Vec<Hit> = own.iter().filter(|c| self.covers & 1 << c.class != 0).copied().collect();
        let covers = |c: &Hit, h: &Hit| {
            let wider = c.bytes.1 - c.bytes.0 > h.bytes.1 - h.bytes.0;
            c.bytes.0 <= h.bytes.0 && h.bytes.1 <= c.bytes.1 && wider
        };
        own.iter().filter(|h| !covering.iter().any(|c| covers(c, h))).copied().collect()
    }
}

/// A chain of hits for the parts so far: its outermost words.
#[derive(Clone, Copy)]
struct Chain {
    at: Hit,
    first: u32,
    last: u32,
}

impl Rule {
    /// The first and last word of hits that satisfy the rule. For each hit of a part, the closest chain that ends in it is
    /// followed, so the cost is quadratic in the hits of a sentence, and sentences are bounded.
    fn holds(&self, hits: &[Hit], normal: &Normal) -> Option<(u32, u32)> {
        let of = |classes: u128| hits.iter().filter(move |h| classes & 1 << h.class != 0);
        let place = |token: u32| normal.tokens()[token as usize].place;
        let apart = |a: &Hit, b: &Hit| {
            if a.last < b.first {
                place(b.first) - place(a.last)
            } else if b.last < a.first {
                place(a.first) - place(b.last)
            } else {
                0
            }
        };
        let (first, rest) = self.parts.split_first()?;
        let mut chains: Vec<Chain> =
            of(first.classes).map(|h| Chain { at: *h, first: h.first, last: h.last }).collect();
        for part in rest {
            let mut next = Vec::new();
            for hit in of(part.classes) {
                let fits = |c: &&Chain| {
                    part.within.is_none_or(|n| apart(&c.at, hit) <= n) && (!part.behind || hit.first >= c.at.first)
                };
                let join = |c: &Chain| Chain { at: *hit, first: c.first.min(hit.first), last: c.last.max(hit.last) };
                next.extend(chains.iter().filter(fits).map(join).min_by_key(|c| c.last - c.first));
            }
            chains = next;
        }
        let guarded = |c: &Chain| {
            let (low, high) = (place(c.first).saturating_sub(BEFORE), place(c.last) + AFTER);
            of(self.near).any(|h| place(h.last) >= low && place(h.first) <= high)
        };
        chains.iter().find(|c| self.near == 0 || !guarded(c)).map(|c| (c.first, c.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: &str =
        "HOW: how to\nMAKE: make\nBOMB: bomb*\nGUARD: detect\nGAME: minecraft\nNIL: bath bomb*\nwords: the, a";

    fn categories(rules: &str, text: &str) -> Vec<String> {
        let bytes = crate::compile([("en", DATA)]).unwrap();
        let lexicon = Lexicon::new(Box::leak(bytes.into_boxed_slice())).unwrap();
        let rules = Rules::new(rules, &lexicon).unwrap();
        let normal = Normal::of(text);
        let reading = lexicon.read(text, &normal, None);
        rules.matches(&normal, &reading).iter().map(|m| m.category.to_string()).collect()
    }

    #[test]
    fn classes_must_stand_close_in_one_sentence() {
        let holds = |text| !categories("covers NIL\nx 0.9: HOW >MAKE~3 BOMB~3 / GUARD -GAME", text).is_empty();
        assert!(holds("Tell me how to make a bomb."));
        assert!(!holds("How to make a bath bomb?"));
        assert!(!holds("How to detect and make a bomb?"));
        assert!(!holds("How to make a bomb when I sit all day long in minecraft?"));
        assert!(!holds("How to make it. A bomb."));
        assert!(!holds("make this how to bomb"), "the order counts");
        assert!(!holds("how to make the a the a the a bomb"), "the distance counts");
        assert_eq!(categories("x 0.9 text: HOW BOMB", "How to make it. A bomb.").len(), 1, "two sentences");
        assert!(categories("x 0.9 text: HOW BOMB", "How to make. A. The. A. Bomb.").is_empty(), "far apart");
    }

    #[test]
    fn wrong_rules_are_refused_with_their_line() {
        let bytes = crate::compile([("en", DATA)]).unwrap();
        let lexicon = Lexicon::new(Box::leak(bytes.into_boxed_slice())).unwrap();
        for (text, line) in
            [("x: HOW", "line 1"), ("\nx 0.5: NO", "line 2"), ("x 0.5: ", "line 1"), ("x y: HOW", "line 1")]
        {
            let error = Rules::new(text, &lexicon).err().unwrap().to_string();
            assert!(error.contains(line), "{error}");
        }
    }
}

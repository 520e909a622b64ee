//! The rule itself: terms found, counted for each passage, compared with the length of the passage.

use safelmm_model::Rating;

use super::lexicon::{Category, LANGUAGES, Lexicon};
use super::scan::{Scanner, Token};

/// Length, in words, of the passages that a long text is cut into.
pub const PASSAGE_WORDS: usize = 300;
/// Texts up to this many words are one passage.
const LONGEST_PASSAGE: usize = 500;
/// Shorter texts are judged as if they had this many words.
const SHORTEST_PASSAGE: usize = 100;
/// One term of a severity for this many words is enough for the rating of that severity.
const WORDS_PER_TERM: usize = 150;
/// Different terms of severity R or X that a passage rated X holds at least.
const STRONG_TERMS_FOR_X: usize = 3;
/// Where there is a term of severity R, this many terms of severity PG weigh as one more.
const MILD_TERMS_PER_STRONG: usize = 6;
/// Characters of a script without spaces that count as one word.
const CHARACTERS_PER_WORD: usize = 2;

/// The rating of a text, and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The rating: that of the strongest passage.
    pub rating: Rating,
    /// Length of the text in words.
    pub words: usize,
    /// The terms met, in the order in which they first occur.
    pub findings: Vec<Finding>,
}

/// A term of the lexicon that occurs in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The term as the lexicon spells it, `"sword"` or `"shot dead"`.
    pub term: &'static str,
    /// ISO 639-1 code of the list that holds the term.
    pub language: &'static str,
    /// What kind of matter it is.
    pub category: Category,
    /// PG, R or X.
    pub severity: Rating,
    /// How often it occurs.
    pub count: usize,
}

/// The rating of a text. See [`rate`].
pub fn rating_of(text: &str) -> Rating {
    rate(text).rating
}

/// Rates a text by the rule that the [module](super) describes. The empty text is rated G.
pub fn rate(text: &str) -> Judgement {
    let lexicon = Lexicon::get();
    let scan = find_terms(lexicon, text);
    let language = scan.main_languages();

    let mut findings: Vec<(u32, Finding)> = Vec::new();
    let passages = passage_count(scan.words);
    let mut counts = vec![Counts::default(); passages];
    // a word that stands in several lists is one hit
    for same_word in scan.hits.chunk_by(|a, b| a.0 == b.0) {
        let in_main = |id: u32| language & (1 << lexicon.term(id).language) != 0;
        let candidates = || same_word.iter().filter(|(_, id)| in_main(*id) || !lexicon.term(*id).own_language_only);
        let hit = candidates().find(|(_, id)| in_main(*id)).or_else(|| candidates().next());
        let Some(&(at, id)) = hit else { continue };
        let term = lexicon.term(id);
        let Some((category, severity)) = term.sense else { continue };
        let passage = (at * passages / scan.words.max(1)).min(passages - 1);
        counts[passage].add(id, severity);
        match findings.iter_mut().find(|(known, _)| *known == id) {
            Some((_, finding)) => finding.count += 1,
            None => findings.push((
                id,
                Finding { term: &term.text, language: lexicon.language_of(id), category, severity, count: 1 },
            )),
        }
    }
    let words = scan.words / passages;
    let rating = counts.iter().map(|counts| counts.rating(words)).max().unwrap_or(Rating::G);
    Judgement { rating, words: scan.words, findings: findings.into_iter().map(|(_, f)| f).collect() }
}

/// The terms of one passage.
#[derive(Clone, Default)]
struct Counts {
    mild: usize,
    strong: usize,
    extreme: usize,
    /// The different terms among `strong` and `extreme`.
    different: Vec<u32>,
}

impl Counts {
    fn add(&mut self, id: u32, severity: Rating) {
        match severity {
            Rating::G => return,
            Rating::PG => {
                self.mild += 1;
                return;
            }
            Rating::R => self.strong += 1,
            Rating::X => self.extreme += 1,
        }
        if !self.different.contains(&id) {
            self.different.push(id);
        }
    }

    /// The thresholds, for a passage of `words` words.
    fn rating(&self, words: usize) -> Rating {
        let dense = |terms: usize| terms * WORDS_PER_TERM >= words.max(SHORTEST_PASSAGE);
        if dense(self.extreme) && self.different.len() >= STRONG_TERMS_FOR_X {
            Rating::X
        } else if self.extreme > 0 || (self.strong > 0 && dense(self.strong + self.mild / MILD_TERMS_PER_STRONG)) {
            Rating::R
        } else if self.strong > 0 || dense(self.mild) {
            Rating::PG
        } else {
            Rating::G
        }
    }
}

fn passage_count(words: usize) -> usize {
    if words <= LONGEST_PASSAGE { 1 } else { (words + PASSAGE_WORDS / 2) / PASSAGE_WORDS }
}

struct Scan {
    words: usize,
    /// Terms met: index of the word, term.
    hits: Vec<(usize, u32)>,
    /// Markers met, by language.
    markers: [u32; LANGUAGES],
}

impl Scan {
    /// Bit `i`: no language has more markers in the text than language `i`. English where there is no marker.
    fn main_languages(&self) -> u32 {
        let most = self.markers.iter().copied().max().unwrap_or(0);
        if most == 0 {
            return 1;
        }
        self.markers.iter().enumerate().filter(|(_, count)| **count == most).fold(0, |bits, (i, _)| bits | 1 << i)
    }
}

fn find_terms(lexicon: &Lexicon, text: &str) -> Scan {
    let mut scan = Scan { words: 0, hits: Vec::new(), markers: [0; LANGUAGES] };
    let mut scanner = Scanner::new(text);
    let (mut word, mut ahead) = (String::new(), String::new());
    let mut characters = 0;
    while let Some(token) = scanner.next(&mut word) {
        let at = scan.words + characters / CHARACTERS_PER_WORD;
        match token {
            Token::Joined(offset, first) => {
                characters += 1;
                let rest = text.get(offset..).unwrap_or_default();
                if let Some((length, id)) = lexicon.substring(first, rest) {
                    scan.hits.push((at, id));
                    characters += rest.get(first.len_utf8()..length).map_or(0, |r| r.chars().count());
                    scanner.seek(offset + length);
                }
            }
            Token::Word => {
                scan.words += 1;
                look_up(lexicon, &mut scan, &mut scanner, &word, &mut ahead, at);
            }
        }
    }
    scan.words += characters.div_ceil(CHARACTERS_PER_WORD);
    scan
}

fn look_up(lexicon: &Lexicon, scan: &mut Scan, scanner: &mut Scanner<'_>, word: &str, ahead: &mut String, at: usize) {
    let entry = lexicon.word(word).or_else(|| lexicon.word(without_arabic_article(word)?));
    if let Some(entry) = entry {
        let mut markers = entry.markers;
        while markers != 0 {
            scan.markers[markers.trailing_zeros() as usize] += 1;
            markers &= markers - 1;
        }
        for (rest, id) in &entry.phrases {
            let mut look = *scanner;
            if rest.iter().all(|wanted| look.next(ahead) == Some(Token::Word) && ahead == wanted) {
                scan.words += rest.len();
                scan.hits.push((at, *id));
                *scanner = look;
                return;
            }
        }
        scan.hits.extend(entry.terms.iter().map(|id| (at, *id)));
        if !entry.terms.is_empty() {
            return;
        }
    }
    scan.hits.extend(lexicon.beginning(word).map(|id| (at, id)));
}

/// An Arabic word without the conjunction and the article that are written together with it.
fn without_arabic_article(word: &str) -> Option<&str> {
    if !word.starts_with('\u{648}') && !word.starts_with('\u{627}') {
        return None;
    }
    let bare = word.strip_prefix('\u{648}').unwrap_or(word);
    Some(bare.strip_prefix("\u{627}\u{644}").unwrap_or(bare))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `text` followed by harmless words, `words` words in all.
    fn padded(text: &str, words: usize) -> String {
        let own = text.split_whitespace().count();
        format!("{text} {}", "meadow ".repeat(words - own))
    }

    #[test]
    fn the_four_ratings() {
        assert_eq!(rating_of(""), Rating::G);
        assert_eq!(rating_of("Alice sat by her sister on the bank and made a daisy chain."), Rating::G);
        assert_eq!(rating_of("\"Off with her head!\" the Queen shouted."), Rating::PG);
        assert_eq!(rating_of("He drew his sword in the tavern and called him a coward."), Rating::PG);
        assert_eq!(rating_of("He stabbed the guard, and then he killed the fucking dealer."), Rating::R);
        assert_eq!(rating_of("They disembowelled him, and the entrails lay beside the mutilated corpse."), Rating::X);
    }

    #[test]
    fn density_decides() {
        assert_eq!(rating_of(&padded("killed", 100)), Rating::R);
        assert_eq!(rating_of(&padded("killed", 300)), Rating::PG);
        assert_eq!(rating_of(&padded("killed murder", 300)), Rating::R);
        assert_eq!(rating_of(&padded("killed sword gun dead battle enemy wounded", 300)), Rating::R);
        assert_eq!(rating_of(&padded("tavern", 300)), Rating::G);
        assert_eq!(rating_of(&padded("tavern sword", 300)), Rating::PG);
        assert_eq!(rating_of(&padded("sword gun dead battle enemy wounded tavern", 300)), Rating::PG);
        assert_eq!(rating_of(&padded("mutilation", 300)), Rating::R);
        assert_eq!(rating_of(&padded("entrails entrails entrails", 300)), Rating::R);
        assert_eq!(rating_of(&padded("entrails flayed corpse", 300)), Rating::X);
    }

    #[test]
    fn a_long_text_has_the_rating_of_its_strongest_passage() {
        let calm = padded("", 3000);
        assert_eq!(rating_of(&calm), Rating::G);
        let judgement = rate(&format!("{calm} he murdered and killed and stabbed them {calm}"));
        assert_eq!(judgement.rating, Rating::R);
        assert_eq!(judgement.words, 6007);
    }

    #[test]
    fn findings_name_the_terms() {
        let judgement = rate("The SWORD fell. A sword! He was shot dead under a shooting star.");
        let found: Vec<_> = judgement.findings.iter().map(|f| (f.term, f.count, f.severity, f.language)).collect();
        assert_eq!(found, [("sword", 2, Rating::PG, "en"), ("shot dead", 1, Rating::R, "en")]);
        assert_eq!(judgement.findings[0].category, Category::Violence);
    }

    #[test]
    fn innocent_words_of_other_languages_do_not_count() {
        for text in [
            "Das war ein heller Tag, und der Hund war mit auf dem Weg.",
            "Det var slut på dagen, och hon hade fart som inte är vanlig för sex år.",
            "Jeg har spist mad, og det er ikke dyrt.",
            "Nu știu cum este drumul, dar sunt aici pentru tine.",
            "Idem dva puta na dan, i to je ono što volim.",
            "La rape est dans la cuisine, avec les légumes.",
        ] {
            assert_eq!(rating_of(text), Rating::G, "{text}: {:?}", rate(text).findings);
        }
    }

    #[test]
    fn killing_is_r_in_every_language() {
        for (language, text) in [
            ("bg", "Той го уби и беше убиец."),
            ("cs", "Ten vrah ho zavraždil, když se vrátil."),
            ("da", "Han dræbte ham, og det var ikke alt."),
            ("de", "Der Mörder hat ihn getötet."),
            ("el", "Ο δολοφόνος τον σκότωσε με μαχαίρι."),
            ("es", "El asesino lo mató con una piedra."),
            ("et", "Ta tappis mehe ja mõrvas naise."),
            ("fi", "Hän tappoi miehen ja murhasi naisen."),
            ("fr", "L'assassin a égorgé un homme dans la rue."),
            ("ga", "Mharaigh sé an fear, agus ba dúnmharú é."),
            ("hr", "Ubojica je ubio čovjeka, a to nije sve što se dogodilo."),
            ("hu", "A gyilkos megölte az embert."),
            ("it", "L'assassino lo ha ucciso."),
            ("lt", "Jis nužudė žmogų."),
            ("lv", "Viņš nogalināja cilvēku, slepkava."),
            ("mt", "Il-qattiel wettaq qtil."),
            ("nl", "De moordenaar heeft hem vermoord."),
            ("pl", "Morderca go zabił."),
            ("pt", "O homem matou o rei e assassinou a rainha."),
            ("ro", "Ucigașul l-a ucis, un ucigaș crud."),
            ("sk", "Vrahovia ho zavraždili."),
            ("sl", "Umoril ga je in potem se ni vrnil."),
            ("sv", "Han mördade henne och var en mördare."),
            ("zh", "他杀死了那个人。"),
            ("hi", "उसने उसकी हत्या कर दी।"),
            ("id", "Dia membunuh orang itu."),
            ("vi", "Anh ta đã giết người."),
            ("ja", "彼は男を殺した。"),
            ("ko", "그는 남자를 죽였다."),
            ("ar", "قتل الرجل وهرب القاتل."),
        ] {
            let judgement = rate(text);
            assert_eq!(judgement.rating, Rating::R, "{language}: {:?}", judgement.findings);
        }
    }

    #[test]
    fn any_text_is_rated_without_panic() {
        for text in ["\0", "\u{301}", "💀💀", "ß", "殺", "杀人杀人", "off with", "İSTANBUL", "a\u{ad}", "ال", "و"]
        {
            rate(text);
            rate(&text.repeat(999));
        }
    }
}

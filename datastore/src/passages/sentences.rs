//! Ends of sentences in the languages of the European Union, and in Arabic, Chinese, Hindi, Indonesian, Japanese, Korean
//! and Vietnamese.

/// How good a place is to cut a text at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Border {
    /// Inside a character, or of a token that stands for several.
    Never,
    /// Between two characters.
    Character,
    /// At the end of a line: prose has sentences, but code, verse and lists have lines.
    Line,
    /// At the end of a sentence or a paragraph.
    Sentence,
}

/// Words before a full stop that rarely end a sentence, lower-cased; single letters and numbers of one or two digits are
/// taken for such without being listed ("J. Smith", "3. Oktober").
const ABBREVIATIONS: &[&str] = &[
    "abb", "abs", "al", "approx", "apr", "art", "arts", "aug", "av", "bl", "bzw", "ca", "cap", "cf", "cfr", "cit",
    "cm", "dec", "dipl", "doc", "dr", "dra", "dvs", "eds", "ed", "eg", "eng", "enl", "ev", "evt", "feb", "fig", "figs",
    "fr", "gen", "ggf", "gov", "hr", "hrsg", "ibid", "ing", "inkl", "jan", "jr", "jul", "jun", "kap", "lat", "lit",
    "ltd", "mag", "max", "mdm", "mgr", "min", "mio", "mlle", "mme", "mr", "mrs", "ms", "mt", "nov", "np", "nr", "nro",
    "núm", "obr", "oct", "okt", "op", "osv", "par", "pág", "pl", "pp", "prof", "pt", "red", "ref", "resp", "rev",
    "sen", "sep", "sept", "sig", "sra", "sr", "st", "str", "sv", "tab", "tel", "tj", "tn", "tsk", "tzn", "ul", "urspr",
    "usw", "vgl", "viz", "vol", "vs", "zb", "др", "проф", "ул", "чл", "г", "стр", "κ", "σελ", "βλ", "πχ",
];

/// Ends a sentence without a space after it.
fn is_full_stop_of_its_own(c: char) -> bool {
    matches!(c, '。' | '｡' | '！' | '？' | '．' | '।' | '॥' | '؟' | '۔' | '‼' | '⁇' | '⁈' | '⁉')
}

/// May stand between the end of a sentence and the space after it.
fn is_closing(c: char) -> bool {
    matches!(
        c,
        '"' | '\''
            | ')'
            | ']'
            | '}'
            | '»'
            | '”'
            | '’'
            | '“'
            | '‘'
            | '›'
            | '」'
            | '』'
            | '】'
            | '）'
            | '》'
            | '〉'
            | '*'
            | '_'
    )
}

fn is_greek(c: char) -> bool {
    matches!(c, '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}')
}

/// Calls `found` with the byte positions behind ends of sentences and of lines, ascending within each kind.
pub(super) fn ends(text: &str, mut found: impl FnMut(usize, Border)) {
    let mut word_start = 0;
    let mut previous = None;
    // Where the run of marks that the place lies in ends: each is looked at once.
    let mut run_end = 0;
    for (at, c) in text.char_indices() {
        let after = at + c.len_utf8();
        if c == '\n' {
            let blank = text[after..].trim_start_matches([' ', '\t', '\r']).starts_with('\n');
            found(after, if blank || line_is_blank(&text[..at]) { Border::Sentence } else { Border::Line });
        } else if is_full_stop_of_its_own(c) {
            if after > run_end {
                let rest = text[after..].trim_start_matches(|c| is_full_stop_of_its_own(c) || is_closing(c));
                run_end = text.len() - rest.len();
                found(run_end, Border::Sentence);
            }
        } else if matches!(c, '.' | '!' | '?' | '…' | '\u{37e}') || (c == ';' && previous.is_some_and(is_greek)) {
            let rest = after_closing(&text[after..]);
            let next = rest.trim_start().chars().next();
            let spaced = rest.is_empty() || rest.starts_with(char::is_whitespace);
            let goes_on = next.is_some_and(char::is_lowercase);
            if spaced && !goes_on && !(c == '.' && is_abbreviation(&text[word_start..at])) {
                found(text.len() - rest.len(), Border::Sentence);
            }
        }
        if !c.is_alphanumeric() {
            word_start = after;
        }
        previous = Some(c);
    }
}

/// What is left of a text without the marks that close a quotation or a bracket at its beginning.
fn after_closing(text: &str) -> &str {
    let rest = text.trim_start_matches(is_closing);
    // French has a space before the mark; one that opens a quotation has none after it.
    match rest.trim_start_matches([' ', '\u{a0}', '\u{202f}']).strip_prefix('»') {
        Some(rest) if !rest.starts_with(char::is_alphanumeric) => rest,
        _ => rest,
    }
}

/// Whether there is nothing but spaces on the last line.
fn line_is_blank(text: &str) -> bool {
    let line = text.trim_end_matches([' ', '\t', '\r']);
    line.is_empty() || line.ends_with('\n')
}

fn is_abbreviation(word: &str) -> bool {
    let mut chars = word.chars();
    match (chars.next(), chars.next(), chars.next()) {
        (Some(one), None, None) => one.is_alphanumeric(),
        (Some(one), Some(two), None) if one.is_numeric() && two.is_numeric() => true,
        (None, _, _) => false,
        _ => word.len() <= 12 && ABBREVIATIONS.contains(&&word.to_lowercase()[..]),
    }
}

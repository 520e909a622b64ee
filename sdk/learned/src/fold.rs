//! Text as the models see it: words folded to what spelling variants have in common.
//!
//! Letters are lower case and without diacritics (Latin, Greek, Cyrillic), Arabic without vowel signs and with one form of
//! alef, Hangul syllables are their letters, full-width forms are plain ones; invisible characters are dropped. Within a
//! word a letter that stands three times or more in a row stands once, and digits between letters are the letters that
//! they are mistaken for. So "Mörder", "MO\u{308}RDER" and "m0rder" are one word. Han and kana have no spaces between words:
//! each character is a unit of its own.

/// The longest word, in characters; what follows is the next word.
pub const LONGEST_WORD: usize = 32;

/// What [`units`] hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit<'a> {
    /// A word between spaces or punctuation, its folded characters.
    Word(&'a [char]),
    /// A character of a script that is written without spaces.
    Character(char),
}

/// Calls `f` with every unit of a text, in order. Punctuation is left out.
pub fn units(text: &str, mut f: impl FnMut(Unit<'_>)) {
    let mut word: Vec<char> = Vec::with_capacity(LONGEST_WORD + 4);
    for c in text.chars() {
        match fold(c) {
            Folded::Letter(c) => {
                word.push(c);
                if word.len() >= LONGEST_WORD {
                    finish(&mut word, &mut f);
                }
            }
            Folded::Letters(letters, count) => {
                word.extend(letters.iter().take(count));
                if word.len() >= LONGEST_WORD {
                    finish(&mut word, &mut f);
                }
            }
            Folded::Joined(c) => {
                finish(&mut word, &mut f);
                f(Unit::Character(c));
            }
            Folded::Nothing => {}
            Folded::Border => finish(&mut word, &mut f),
        }
    }
    finish(&mut word, &mut f);
}

/// Whether models of these languages can know a letter: its script is one of theirs.
pub fn is_known_script(c: char) -> bool {
    matches!(c,
        'a'..='z' | 'A'..='Z' | '\u{c0}'..='\u{24f}' | '\u{370}'..='\u{52f}' | '\u{600}'..='\u{6ff}' | '\u{750}'..='\u{77f}'
        | '\u{900}'..='\u{97f}' | '\u{1e00}'..='\u{1fff}' | '\u{fb50}'..='\u{fdff}' | '\u{fe70}'..='\u{feff}'
        | '\u{1100}'..='\u{11ff}' | '\u{ff21}'..='\u{ff5a}')
        || matches!(c, '\u{ac00}'..='\u{d7a3}')
        || is_joined_script(c)
}

/// Han and kana.
fn is_joined_script(c: char) -> bool {
    matches!(c, '\u{3005}' | '\u{3041}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

enum Folded {
    Letter(char),
    Letters([char; 3], usize),
    Joined(char),
    Nothing,
    Border,
}

fn fold(c: char) -> Folded {
    if c.is_ascii() {
        return match c.is_ascii_alphanumeric() {
            true => Folded::Letter(c.to_ascii_lowercase()),
            false => Folded::Border,
        };
    }
    match c {
        // Combining accents, soft hyphen, zero width, Arabic vowel signs and tatweel.
        '\u{300}'..='\u{36f}'
        | '\u{ad}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2060}'
        | '\u{feff}'
        | '\u{640}'
        | '\u{64b}'..='\u{65f}'
        | '\u{670}'
        | '\u{93c}' => Folded::Nothing,
        '\u{c0}'..='\u{24f}' => latin(c, LATIN.get(c as usize - 0xc0)),
        '\u{1e00}'..='\u{1eff}' => latin(c, LATIN_ADDITIONAL.get(c as usize - 0x1e00)),
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).map_or(Folded::Border, fold),
        '\u{ac00}'..='\u{d7a3}' => hangul(c),
        // Marks that belong to a letter of Devanagari.
        '\u{900}'..='\u{963}' => Folded::Letter(c),
        _ if is_joined_script(c) => Folded::Joined(c),
        _ if c.is_alphanumeric() => Folded::Letter(c.to_lowercase().next().map_or(c, without_accent)),
        _ => Folded::Border,
    }
}

fn latin(c: char, base: Option<&u8>) -> Folded {
    match base {
        Some(b) if *b != b'.' => Folded::Letter(*b as char),
        _ if c.is_alphabetic() => Folded::Letter(c.to_lowercase().next().unwrap_or(c)),
        _ => Folded::Border,
    }
}

/// The letters of a syllable (The Unicode Standard, section 3.12).
fn hangul(c: char) -> Folded {
    let index = c as u32 - 0xac00;
    let (lead, vowel, tail) = (index / 588, index % 588 / 28, index % 28);
    let letter = |base: u32, place: u32| char::from_u32(base + place).unwrap_or(c);
    let letters = [letter(0x1100, lead), letter(0x1161, vowel), letter(0x11a7, tail)];
    Folded::Letters(letters, if tail == 0 { 2 } else { 3 })
}

/// Greek, Cyrillic and Arabic letters in their plain form; `c` is lower case.
fn without_accent(c: char) -> char {
    match c {
        'ά' => 'α',
        'έ' => 'ε',
        'ή' => 'η',
        'ί' | 'ϊ' | 'ΐ' => 'ι',
        'ό' => 'ο',
        'ύ' | 'ϋ' | 'ΰ' => 'υ',
        'ώ' => 'ω',
        'ς' => 'σ',
        'й' | 'ѝ' => 'и',
        'ё' | 'ѐ' => 'е',
        'ѓ' => 'г',
        'ќ' => 'к',
        'ў' => 'у',
        'ї' => 'і',
        'أ' | 'إ' | 'آ' | 'ٱ' => 'ا',
        'ى' => 'ي',
        'ة' => 'ه',
        _ => c,
    }
}

fn finish(word: &mut Vec<char>, f: &mut impl FnMut(Unit<'_>)) {
    if word.is_empty() {
        return;
    }
    let digits = word.iter().filter(|c| c.is_ascii_digit()).count();
    if digits == word.len() {
        f(Unit::Word(&['0'])); // any number
    } else {
        if digits > 0 {
            word.iter_mut().for_each(|c| *c = letter_for(*c));
        }
        squeeze(word);
        f(Unit::Word(word));
    }
    word.clear();
}

/// The letter that a digit is written for.
fn letter_for(c: char) -> char {
    match c {
        '0' => 'o',
        '1' => 'i',
        '3' => 'e',
        '4' => 'a',
        '5' => 's',
        '7' => 't',
        _ => c,
    }
}

/// Makes one letter of three or more in a row, unless the word is nothing else.
fn squeeze(word: &mut Vec<char>) {
    if word.windows(2).all(|pair| pair[0] == pair[1]) {
        return;
    }
    let (mut kept, mut from) = (0, 0);
    while let Some(&c) = word.get(from) {
        let run = word.iter().skip(from).take_while(|other| **other == c).count();
        for _ in 0..if run >= 3 { 1 } else { run } {
            word[kept] = c;
            kept += 1;
        }
        from += run;
    }
    word.truncate(kept);
}

/// U+00C0 to U+024F without diacritics; a dot where there is no such letter.
#[rustfmt::skip]
const LATIN: &[u8; 400] = b"aaaaaaaceeeeiiiidnooooo.ouuuuytsaaaaaaaceeeeiiiidnooooo.ouuuuytyaaaaaaccccccccddddeeeeeeeeeegggggggg\
    hhhhiiiiiiiiiiiijjkkkllllllllllnnnnnnnnnoooooooorrrrrrssssssssttttttuuuuuuuuuuuuwwyyyzzzzzzs........\
    ........................oo.............uu...................dddlllnnnaaiioouuuuuuuuuu.aaaaaa..ggkkoo\
    oo..jdddgg..nnaaaaooaaaaeeeeiiiioooorrrruuuusstt..hh......aaeeooooooooyy............................";

/// U+1E00 to U+1EFF, the same.
#[rustfmt::skip]
const LATIN_ADDITIONAL: &[u8; 256] = b"aabbbbbbccddddddddddeeeeeeeeeeffgghhhhhhhhhhiiiikkkkkkllllllllmmmmmmnnnnnnnnoooooooopppprrrrrrrrssss\
    ssssssttttttttuuuuuuuuuuvvvvwwwwwwwwwwxxxxyyzzzzzzhtwyassssdaaaaaaaaaaaaaaaaaaaaaaaaeeeeeeeeeeeeeeee\
    iiiioooooooooooooooooooooooouuuuuuuuuuuuuuyyyyyyyyllvvyy";

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> Vec<String> {
        let mut out = Vec::new();
        units(text, |unit| match unit {
            Unit::Word(word) => out.push(word.iter().collect()),
            Unit::Character(c) => out.push(c.to_string()),
        });
        out
    }

    #[test]
    fn spellings_of_a_word_are_one() {
        for text in ["Mörder", "MO\u{308}RDER", "m0rder", "mor\u{ad}der", "ｍｏｒｄｅｒ", "mooooorder", "mõrdér"]
        {
            assert_eq!(folded(text), ["morder"], "{text}");
        }
        assert_eq!(folded("Άνδρας άνδρας"), ["ανδρασ", "ανδρασ"]);
        assert_eq!(folded("Ёлка еЛка"), ["елка", "елка"]);
        assert_eq!(folded("قَتَلَ أحمد"), ["قتل", "احمد"]);
        assert_eq!(folded("giết GIẾT"), ["giet", "giet"]);
        assert_eq!(folded("हत्या"), ["हत्या"]);
    }

    #[test]
    fn scripts_without_spaces_are_characters_and_hangul_is_letters() {
        assert_eq!(folded("他被杀了，in 2024。"), ["他", "被", "杀", "了", "in", "0"]);
        assert_eq!(folded("한"), ["\u{1112}\u{1161}\u{11ab}"]);
        assert_eq!(folded("it's xxx, mp3"), ["it", "s", "xxx", "mpe"]);
    }

    #[test]
    fn long_words_are_cut_and_nothing_panics() {
        assert!(folded(&"ab".repeat(1000)).iter().all(|word| word.chars().count() <= LONGEST_WORD + 2));
        for text in ["", "\0", "\u{301}", "💀💀", "\u{d7a3}", "\u{10ffff}", "۱۲۳"] {
            folded(text);
        }
        assert!(is_known_script('ж') && is_known_script('汉') && is_known_script('한') && !is_known_script('ก'));
    }
}

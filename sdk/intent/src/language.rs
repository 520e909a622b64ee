//! The 31 languages and sets of them.

/// ISO 639-1 codes of the languages that the data covers: the 24 official ones of the European Union and seven more.
pub const LANGUAGES: [&str; 31] = [
    "bg", "cs", "da", "de", "el", "en", "es", "et", "fi", "fr", "ga", "hr", "hu", "it", "lt", "lv", "mt", "nl", "pl",
    "pt", "ro", "sk", "sl", "sv", "ar", "hi", "id", "ja", "ko", "vi", "zh",
];

/// A language, as its place in [`LANGUAGES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Language(u8);

impl Language {
    /// English.
    pub const ENGLISH: Self = Self(5);

    /// The language with this ISO 639-1 code; a region behind `-` or `_` is ignored. None for one that is not covered.
    pub fn of(code: &str) -> Option<Self> {
        let code = code.split(['-', '_']).next().unwrap_or(code);
        LANGUAGES.iter().position(|l| l.eq_ignore_ascii_case(code)).map(|i| Self(i as u8))
    }

    /// Its ISO 639-1 code.
    pub fn code(self) -> &'static str {
        LANGUAGES[usize::from(self.0)]
    }

    /// Its place in [`LANGUAGES`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// All languages.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..LANGUAGES.len() as u8).map(Self)
    }
}

/// A set of languages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mask(pub u32);

impl Mask {
    /// Every language.
    pub const ALL: Self = Self((1 << LANGUAGES.len()) - 1);

    /// The set of the language with this code; empty for an unknown one. For constants.
    pub(crate) const fn of(code: &str) -> Self {
        let code = code.as_bytes();
        let mut i = 0;
        while i < LANGUAGES.len() {
            let other = LANGUAGES[i].as_bytes();
            if other[0] == code[0] && other[1] == code[1] {
                return Self(1 << i);
            }
            i += 1;
        }
        Self(0)
    }

    /// The set of this language alone.
    pub fn only(language: Language) -> Self {
        Self(1 << language.0)
    }

    /// Whether the language is in the set.
    pub fn has(self, language: Language) -> bool {
        self.0 & (1 << language.0) != 0
    }

    /// How many languages are in the set.
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether no language is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The languages that are in both sets.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The languages that are in either set.
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The languages that a script alone leaves open; all of them for Latin letters.
pub(crate) fn of_script(c: char) -> Option<Mask> {
    const EL: Mask = Mask::of("el");
    const BG: Mask = Mask::of("bg");
    const AR: Mask = Mask::of("ar");
    const HI: Mask = Mask::of("hi");
    const KO: Mask = Mask::of("ko");
    const JA: Mask = Mask::of("ja");
    const HAN: Mask = Mask(Mask::of("zh").0 | JA.0);
    Some(match c as u32 {
        0x370..=0x3FF | 0x1F00..=0x1FFF => EL,
        0x400..=0x52F => BG,
        0x600..=0x6FF | 0x750..=0x77F | 0xFB50..=0xFDFF | 0xFE70..=0xFEFC => AR,
        0x900..=0x97F => HI,
        0x1100..=0x11FF | 0x3130..=0x318F | 0xAC00..=0xD7AF => KO,
        0x3040..=0x30FF => JA,
        0x4E00..=0x9FFF | 0x3400..=0x4DBF => HAN,
        0x41..=0x5A | 0x61..=0x7A | 0xC0..=0x24F | 0x1E00..=0x1EFF => LATIN,
        _ => return None,
    })
}

const LATIN: Mask = Mask(Mask::ALL.0 & !(1 | 1 << 4 | 1 << 24 | 1 << 25 | 1 << 27 | 1 << 28 | 1 << 30));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_with_and_without_a_region() {
        assert_eq!(Language::of("de-AT").map(Language::code), Some("de"));
        assert_eq!(Language::of("ZH_tw").map(Language::code), Some("zh"));
        assert_eq!(Language::of("xx"), None);
        assert_eq!(Language::ENGLISH.code(), "en");
    }

    #[test]
    fn latin_excludes_the_languages_of_other_scripts() {
        for language in Language::all() {
            let other = ["bg", "el", "ar", "hi", "ja", "ko", "zh"].contains(&language.code());
            assert_eq!(LATIN.has(language), !other, "{}", language.code());
        }
    }
}

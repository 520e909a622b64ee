//! The 31 languages by their codes.

/// ISO 639-1 and 639-3.
const CODES: [(&str, &str); 31] = [
    ("ar", "arb"),
    ("bg", "bul"),
    ("cs", "ces"),
    ("da", "dan"),
    ("de", "deu"),
    ("el", "ell"),
    ("en", "eng"),
    ("es", "spa"),
    ("et", "est"),
    ("fi", "fin"),
    ("fr", "fra"),
    ("ga", "gle"),
    ("hi", "hin"),
    ("hr", "hrv"),
    ("hu", "hun"),
    ("id", "ind"),
    ("it", "ita"),
    ("ja", "jpn"),
    ("ko", "kor"),
    ("lt", "lit"),
    ("lv", "lav"),
    ("mt", "mlt"),
    ("nl", "nld"),
    ("pl", "pol"),
    ("pt", "por"),
    ("ro", "ron"),
    ("sk", "slk"),
    ("sl", "slv"),
    ("sv", "swe"),
    ("vi", "vie"),
    ("zh", "cmn"),
];

/// The two-letter code of one of the languages, from either code; `None` for another language.
pub fn two_letters(code: &str) -> Option<&'static str> {
    CODES.iter().find(|(two, three)| code == *two || code == *three).map(|(two, _)| *two)
}

/// All languages, by their two-letter codes.
pub fn all() -> impl Iterator<Item = &'static str> {
    CODES.iter().map(|(two, _)| *two)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_those_of_the_rule() {
        let mut rule: Vec<&str> = crate::rating::languages().collect();
        rule.sort_unstable();
        assert_eq!(all().collect::<Vec<_>>(), rule);
        assert_eq!(two_letters("eng"), Some("en"));
        assert_eq!(two_letters("sr"), None);
    }
}

//! Golden vectors. The words in them are harmless.

use safelmm_plugin::{Outcome, Vector};

/// A list that masks.
const LIST: &str = r#"{"lists": [{"name": "l", "words": ["turnip", "crème brûlée", "Straße", "сирник", "τυρί", "カブ", "순무", "شلجم", "शलजम", "củ cải", "bank*", "*beere"]}]}"#;

/// Texts and what comes out.
#[rustfmt::skip]
const TEXTS: &[(&str, &str, &str)] = &[
    ("plain", "A turnip, please.", "A ***, please."),
    ("case", "TURNIP and Turnip", "*** and ***"),
    ("another word", "turnips and a nocturnip", "turnips and a nocturnip"),
    ("leetspeak", "a 7urn1p and a turn!p!", "a *** and a ***!"),
    ("width", "ａ ｔｕｒｎｉｐ", "ａ ***"),
    ("invisible", "tur\u{200b}n\u{ad}ip.", "***."),
    ("accents", "creme  brulee / CRÈME\nBRÛLÉE", "*** / ***"),
    ("combining", "cre\u{300}me bru\u{302}le\u{301}e", "***"),
    ("german", "STRASSE und Strasse", "*** und ***"),
    ("cyrillic", "Люблю СИРНИК.", "Люблю ***."),
    ("greek", "Το ΤΥΡΙ και το τυρι", "Το *** και το ***"),
    ("japanese", "これはカブです", "これは***です"),
    ("korean", "순무를 먹어요", "***를 먹어요"),
    ("arabic", "أكلت شَلْجَم اليوم", "أكلت *** اليوم"),
    ("hindi", "मुझे शलजम पसंद है", "मुझे *** पसंद है"),
    ("vietnamese", "tôi ăn củ cải", "tôi ăn ***"),
    ("beginning", "banking at the bank", "***ing at the ***"),
    ("ending", "Himbeere, Beere", "Him***, ***"),
];

/// All of them.
pub fn vectors() -> Vec<Vector> {
    let texts = TEXTS.iter().flat_map(|(name, text, out)| {
        let outcome = if text == out { Outcome::Allow } else { Outcome::Rewrite };
        [
            Vector::prompt(&format!("{name}: prompt"), *text, outcome).settings(LIST).text(*out),
            Vector::stream(&format!("{name}: stream"), [*text], outcome).settings(LIST).text(*out),
        ]
    });
    let deny =
        r#"{"lists": [{"name": "l", "words": ["turnip"], "action": "deny", "category": "illicit", "message": "No."}]}"#;
    let flag = r#"{"lists": [{"name": "l", "words": ["turnip"], "action": "flag", "hooks": ["prompts"]}]}"#;
    let others = [
        Vector::prompt("no list", "A turnip.", Outcome::Allow).text("A turnip."),
        Vector::prompt("deny", "A turnip.", Outcome::Deny).settings(deny).category("illicit"),
        Vector::stream("stop", ["A tur", "nip", "."], Outcome::Deny).settings(deny).category("illicit"),
        Vector::prompt("flag", "A turnip.", Outcome::Flag).settings(flag).category("wordlist").text("A turnip."),
        Vector::stream("another hook", ["A turnip."], Outcome::Allow).settings(flag).text("A turnip."),
    ];
    texts.chain(others).collect()
}

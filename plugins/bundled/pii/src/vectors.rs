//! Golden vectors.

use safelmm_plugin::{Outcome, Vector};

/// Prompts with one thing in them: name, category, text, and what comes out.
#[rustfmt::skip]
const PROMPTS: &[(&str, &str, &str, &str)] = &[
    ("bg", "pii/national-id", "ЕГН: 7523169263", "ЕГН: [ID]"),
    ("cs", "pii/national-id", "Rodné číslo 710319/2745 je moje.", "Rodné číslo [ID] je moje."),
    ("da", "pii/phone", "Ring til mig på +45 20 12 34 56.", "Ring til mig på [PHONE]."),
    ("de", "pii/iban", "Bitte auf DE89 3704 0044 0532 0130 00 überweisen.", "Bitte auf [IBAN] überweisen."),
    ("el", "pii/passport", "Αριθμός διαβατηρίου: AE1234567", "Αριθμός διαβατηρίου: [PASSPORT]"),
    ("en", "pii/email", "Write to anna.b@example.org, please.", "Write to [EMAIL], please."),
    ("es", "pii/national-id", "Mi DNI es 12345678Z.", "Mi DNI es [ID]."),
    ("et", "pii/national-id", "Isikukood 37605030299", "Isikukood [ID]"),
    ("fi", "pii/national-id", "Tunnus on 131052-308T.", "Tunnus on [ID]."),
    ("fr", "pii/phone", "Mon numéro est le 06 12 34 56 78.", "Mon numéro est le [PHONE]."),
    ("ga", "pii/national-id", "Uimhir PSP 1234567FA", "Uimhir PSP [ID]"),
    ("hr", "pii/national-id", "OIB 33392005961", "OIB [ID]"),
    ("hu", "pii/national-id", "Adóazonosító: 8071592153", "Adóazonosító: [ID]"),
    ("it", "pii/national-id", "Codice fiscale RSSMRA85T10A562S", "Codice fiscale [ID]"),
    ("lt", "pii/national-id", "Asmens kodas 33309240064", "Asmens kodas [ID]"),
    ("lv", "pii/national-id", "Personas kods 161175-19997", "Personas kods [ID]"),
    ("mt", "pii/iban", "Kont: MT84MALT011000012345MTLCAST001S", "Kont: [IBAN]"),
    ("nl", "pii/national-id", "BSN 111222333", "BSN [ID]"),
    ("pl", "pii/national-id", "PESEL: 44051401359", "PESEL: [ID]"),
    ("pt", "pii/national-id", "O meu NIF é 123456789.", "O meu NIF é [ID]."),
    ("ro", "pii/national-id", "CNP 1630615123457", "CNP [ID]"),
    ("sk", "pii/phone", "Tel. +421 905 123 456", "Tel. [PHONE]"),
    ("sl", "pii/national-id", "EMŠO 0101006500006", "EMŠO [ID]"),
    ("sv", "pii/national-id", "Personnummer 811228-9874", "Personnummer [ID]"),
    ("ar", "pii/phone", "رقم هاتفي +966 50 123 4567", "رقم هاتفي [PHONE]"),
    ("hi", "pii/national-id", "आधार 2341 2341 2346", "आधार [ID]"),
    ("id", "pii/phone", "Hubungi +62 812-3456-7890", "Hubungi [PHONE]"),
    ("ja", "pii/secret", "パスワードはsakura99です", "パスワードは[SECRET]です"),
    ("ko", "pii/phone", "전화는 010-1234-5678입니다", "전화는 [PHONE]입니다"),
    ("vi", "pii/passport", "Số hộ chiếu B1234567", "Số hộ chiếu [PASSPORT]"),
    ("zh", "pii/national-id", "身份证号360426199101010071", "身份证号[ID]"),
    ("card", "pii/card", "Card 4111 1111 1111 1111 please", "Card [CARD] please"),
    ("ip", "pii/ip", "from 203.0.113.45 and on", "from [IP] and on"),
    ("token", "pii/secret", "ghp_16C7e42F292c6912E7710c838347Ae178B4a", "[SECRET]"),
    ("password", "pii/secret", "password: Winter2024!", "password: [SECRET]"),
    ("driving license", "pii/driving-license", "Führerschein B072RRE2I55", "Führerschein [LICENSE]"),
];

/// What passes.
#[rustfmt::skip]
const PLAIN: &[(&str, &str)] = &[
    ("version", "Version 2.14.3.1 came after v2.14.3.0 on 2024-01-15."),
    ("isbn", "ISBN 978-3-16-148410-0 and ISBN 0-306-40615-2"),
    ("price", "It costs 1.299,99 € or $1,234,567.89."),
    ("digest", "commit 9fceb02d0ae598e95dc970b74767f19372d61af8"),
    ("uuid", "123e4567-e89b-12d3-a456-426614174000"),
    ("wrong check digit", "4111 1111 1111 1112 and DE00 3704 0044 0532 0130 00"),
    ("date", "On 05.06.2024 10:15 and on 1999-12-31 23:59:59."),
    ("code", "password = os.environ[\"DB_PASSWORD\"]"),
];

/// All of them.
pub fn vectors() -> Vec<Vector> {
    let prompts = PROMPTS.iter().flat_map(|(name, category, text, out)| {
        [
            Vector::prompt(&format!("{name}: prompt"), *text, Outcome::Rewrite).category(category).text(*out),
            Vector::stream(&format!("{name}: stream"), [*text], Outcome::Rewrite).category(category).text(*out),
        ]
    });
    let plain = PLAIN.iter().flat_map(|(name, text)| {
        [
            Vector::prompt(&format!("{name}: prompt"), *text, Outcome::Allow).text(*text),
            Vector::stream(&format!("{name}: stream"), [*text], Outcome::Allow).text(*text),
        ]
    });
    let email = "Write to anna.b@example.org.";
    let modes = [
        Vector::prompt("flag", email, Outcome::Flag).settings(r#"{"mode": "flag"}"#).category("pii/email").text(email),
        Vector::prompt("deny", email, Outcome::Deny).settings(r#"{"mode": "deny"}"#).category("pii/email"),
        Vector::prompt("off", email, Outcome::Allow).settings(r#"{"prompts": "off"}"#),
        Vector::prompt("pseudonymise", email, Outcome::Rewrite).settings(r#"{"mode": "pseudonymise"}"#),
        Vector::prompt("other kinds", email, Outcome::Allow).settings(r#"{"kinds": ["phone"]}"#),
        Vector::prompt("allowed", email, Outcome::Allow).settings(r#"{"allow": ["@example.org"]}"#),
        Vector::stream("a stop", ["Write to an", "na.b@exam", "ple.org", "."], Outcome::Deny)
            .settings(r#"{"answers": "deny"}"#)
            .category("pii/email"),
    ];
    prompts.chain(plain).chain(modes).collect()
}

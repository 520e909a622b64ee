//! Keys, tokens and passwords: by the prefixes that their issuers document, by the words before them, and by how random
//! they look (Shannon's entropy of their characters).

use crate::kind::{Kind, Match};
use crate::text::{Text, has_word};
use crate::words;

/// What a secret behind a prefix is made of.
#[derive(Clone, Copy)]
enum Body {
    /// Letters, digits, `_` and `-`.
    Url,
    /// Letters and digits.
    Alnum,
    /// Capital letters and digits.
    Upper,
    /// Hexadecimal digits.
    Hex,
    /// Letters, digits and `_-.=+/`: parts with dots between them.
    Dotted,
}

impl Body {
    fn has(self, b: u8) -> bool {
        match self {
            Body::Url => b.is_ascii_alphanumeric() || b == b'_' || b == b'-',
            Body::Alnum => b.is_ascii_alphanumeric(),
            Body::Upper => b.is_ascii_uppercase() || b.is_ascii_digit(),
            Body::Hex => b.is_ascii_hexdigit(),
            Body::Dotted => b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'=' | b'+' | b'/'),
        }
    }
}

/// Prefix, body, the fewest characters of it, and whose it is; as the issuers document them.
#[rustfmt::skip]
const PREFIXES: &[(&str, Body, usize, &str)] = &[
    ("AKIA", Body::Upper, 16, "an AWS access key"), ("ASIA", Body::Upper, 16, "an AWS access key"),
    ("ghp_", Body::Alnum, 30, "a GitHub token"), ("gho_", Body::Alnum, 30, "a GitHub token"),
    ("ghu_", Body::Alnum, 30, "a GitHub token"), ("ghs_", Body::Alnum, 30, "a GitHub token"),
    ("ghr_", Body::Alnum, 30, "a GitHub token"), ("github_pat_", Body::Url, 40, "a GitHub token"),
    ("glpat-", Body::Url, 20, "a GitLab token"), ("gldt-", Body::Url, 20, "a GitLab token"), ("glrt-", Body::Url, 20, "a GitLab token"),
    ("xoxb-", Body::Url, 20, "a Slack token"), ("xoxp-", Body::Url, 20, "a Slack token"), ("xoxa-", Body::Url, 20, "a Slack token"),
    ("xoxr-", Body::Url, 20, "a Slack token"), ("xoxs-", Body::Url, 20, "a Slack token"), ("xapp-", Body::Url, 20, "a Slack token"),
    ("sk-ant-", Body::Url, 20, "an Anthropic key"), ("sk-proj-", Body::Url, 20, "an OpenAI key"),
    ("sk_live_", Body::Alnum, 16, "a Stripe key"), ("rk_live_", Body::Alnum, 16, "a Stripe key"),
    ("sk_test_", Body::Alnum, 16, "a Stripe key"), ("rk_test_", Body::Alnum, 16, "a Stripe key"), ("whsec_", Body::Alnum, 24, "a Stripe secret"),
    ("AIza", Body::Url, 35, "a Google key"), ("ya29.", Body::Url, 20, "a Google token"), ("GOCSPX-", Body::Url, 20, "a Google secret"),
    ("SG.", Body::Dotted, 40, "a SendGrid key"), ("key-", Body::Hex, 32, "a Mailgun key"),
    ("SK", Body::Hex, 32, "a Twilio key"), ("AC", Body::Hex, 32, "a Twilio account"),
    ("npm_", Body::Alnum, 30, "an npm token"), ("pypi-", Body::Url, 50, "a PyPI token"), ("hf_", Body::Alnum, 30, "a Hugging Face token"),
    ("dop_v1_", Body::Hex, 60, "a DigitalOcean token"), ("dapi", Body::Hex, 32, "a Databricks token"),
    ("shpat_", Body::Hex, 32, "a Shopify token"), ("shpss_", Body::Hex, 32, "a Shopify secret"),
    ("lin_api_", Body::Alnum, 30, "a Linear key"), ("sq0csp-", Body::Url, 40, "a Square secret"), ("sq0atp-", Body::Url, 20, "a Square token"),
    ("EAACEdEose0cBA", Body::Alnum, 10, "a Facebook token"), ("AGE-SECRET-KEY-1", Body::Upper, 50, "an age key"),
    ("eyJ", Body::Dotted, 40, "a JSON web token"), ("hvs.", Body::Url, 24, "a Vault token"), ("r8_", Body::Alnum, 30, "a Replicate token"),
    ("gsk_", Body::Alnum, 40, "a Groq key"), ("tvly-", Body::Url, 20, "a Tavily key"), ("PMAK-", Body::Url, 40, "a Postman key"),
    ("NRAK-", Body::Upper, 25, "a New Relic key"), ("dckr_pat_", Body::Url, 20, "a Docker token"), ("ATATT3", Body::Dotted, 40, "an Atlassian token"),
    ("sk-", Body::Url, 20, "an API key"), ("pk-", Body::Url, 30, "an API key"),
];

fn secret(start: usize, end: usize, what: &'static str, score: f32) -> Option<Match> {
    Some(Match { kind: Kind::Secret, start, end, what, score })
}

/// The end of the run of these characters from a byte on.
fn run(text: &Text, from: usize, is: impl Fn(u8) -> bool) -> usize {
    from + text.b[from.min(text.b.len())..].iter().take_while(|&&b| is(b)).count()
}

/// A secret whose prefix begins at this byte.
pub fn prefixed(text: &Text, start: usize) -> Option<Match> {
    let before = text.before(start);
    if before.is_some_and(|c| c.is_alphanumeric() && c < '\u{2e80}') {
        return None;
    }
    let rest = &text.b[start..];
    let &(prefix, body, fewest, what) = PREFIXES.iter().find(|(prefix, ..)| rest.starts_with(prefix.as_bytes()))?;
    // `disk-`, `task-`: a hyphen or underscore before a short prefix is the middle of a name.
    if prefix.len() < 4 && matches!(before, Some('-' | '_')) {
        return None;
    }
    let mut end = run(text, start + prefix.len(), |b| body.has(b));
    while matches!(text.byte(end - 1), b'.' | b'-' | b'=') && end > start && !text.s[start..end].ends_with("==") {
        end -= 1;
    }
    let body = &text.b[(start + prefix.len()).min(end)..end];
    if body.len() < fewest {
        return None;
    }
    match prefix {
        // Three parts: header, payload, signature (RFC 7519).
        "eyJ" if text.s[start..end].matches('.').count() < 2 => return None,
        // A name such as `sk-learn-contrib-extensions` is made of words.
        "sk-" | "pk-" | "key-" if !body.iter().any(u8::is_ascii_digit) || longest_word(body) > 14 => return None,
        _ => {}
    }
    secret(start, end, what, 0.98)
}

/// The longest run of small letters.
fn longest_word(bytes: &[u8]) -> usize {
    bytes.split(|b| !b.is_ascii_lowercase()).map(<[u8]>::len).max().unwrap_or(0)
}

/// Shannon's entropy of the characters, in bits for each.
fn entropy(bytes: &[u8]) -> f32 {
    let mut counts = [0u16; 256];
    bytes.iter().for_each(|&b| counts[usize::from(b)] = counts[usize::from(b)].saturating_add(1));
    let length = bytes.len() as f32;
    counts.iter().filter(|&&n| n > 0).map(|&n| f32::from(n) / length).map(|p| -p * p.log2()).sum()
}

/// What looks random: a token at this byte of capital and small letters and digits, mixed as no name is.
pub fn random(text: &Text, start: usize) -> Option<Match> {
    let is_body = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+' | b'/' | b'=');
    let before = text.before(start);
    // Parts of addresses and paths, and digests such as `sha512-...`.
    if before.is_some_and(|c| is_body(c as u8 & 0x7f) && c.is_ascii()) && before != Some('=') {
        return None;
    }
    let end = run(text, start, is_body);
    let token = &text.b[start..end];
    if !(24..=128).contains(&token.len()) {
        return None;
    }
    let count = |is: fn(&u8) -> bool| token.iter().filter(|b| is(b)).count();
    let (digits, small, capital) =
        (count(u8::is_ascii_digit), count(u8::is_ascii_lowercase), count(u8::is_ascii_uppercase));
    if digits < 3 || small < 3 || capital < 3 || longest_word(token) > 7 {
        return None;
    }
    // A path or an address: its parts are short.
    if token.iter().filter(|&&b| b == b'/').count() > 2 || matches!(before, Some('.' | '?' | '&' | '#' | '@')) {
        return None;
    }
    let lower = text.s[start..end].to_ascii_lowercase();
    if ["sha1-", "sha256-", "sha384-", "sha512-", "h1:"].iter().any(|digest| lower.starts_with(digest)) {
        return None;
    }
    let is_announced = has_word(&text.context(start, 48), ANNOUNCED);
    let (length, bits) = if is_announced { (24, 3.6) } else { (32, 4.3) };
    if token.len() < length || entropy(token) < bits {
        return None;
    }
    secret(start, end, "a random token", if is_announced { 0.9 } else { 0.7 })
}

/// Words before a token that make a secret of less.
const ANNOUNCED: &[&str] =
    &["key", "token", "secret", "password", "bearer", "authorization", "credential", "schlüssel", "clé"];

/// The password of an address such as `postgres://user:password@host`, whose scheme ends at this byte (RFC 3986, section
/// 3.2.1).
pub fn in_address(text: &Text, scheme_end: usize) -> Option<Match> {
    let start = scheme_end + 3;
    let is_info = |b: u8| b.is_ascii_graphic() && !matches!(b, b'@' | b'/' | b'"' | b'\'' | b'<' | b'>' | b'?' | b'#');
    let end = run(text, start, is_info);
    let (_, password) = text.s[start..end].split_once(':')?;
    let is_placeholder = password.starts_with(['$', '{', '<', '%']) || password.bytes().all(|b| b == b'*' || b == b'x');
    if text.byte(end) != b'@' || password.is_empty() || is_placeholder {
        return None;
    }
    secret(end - password.len(), end, "a password in an address", 0.95)
}

/// A value behind a word such as `password`, that begins at this byte.
pub fn announced(text: &Text, start: usize) -> Option<Match> {
    // `password: X`, `password = "X"`, `"password": "X"`, `password is X`.
    let context = text.context(start, 64);
    let line = context.rsplit('\n').next().unwrap_or_default();
    let head = line.trim_end_matches([' ', '"', '\'', '`', '\t']);
    let by_sign = head.strip_suffix([':', '=']).map(|head| head.trim_end_matches([':', '=']));
    let by_word = || {
        words::IS.iter().find_map(|is| {
            let head = head.strip_suffix(is)?;
            let is_cjk = is.chars().next().is_some_and(|c| c >= '\u{2e80}');
            (is_cjk || head.ends_with(' ')).then_some(head)
        })
    };
    let head = by_sign.or_else(by_word)?;
    let head = head.trim_end_matches([' ', '"', '\'', '`', '*', '_', ')']);
    let word = words::SECRET.iter().filter(|word| ends_with_word(head, word)).max_by_key(|word| word.len())?;
    if *word == "pass" && by_sign.is_none() {
        return None;
    }
    let is_value = |c: char| {
        !c.is_whitespace() && c < '\u{2e80}' && !matches!(c, '"' | '\'' | '`' | ',' | ';' | '<' | '>' | '(' | '{' | '[')
    };
    let rest = &text.s[start..];
    let mut end = start + rest.find(|c| !is_value(c)).unwrap_or(rest.len());
    // A sentence's end is not the password's.
    while end > start && matches!(text.byte(end - 1), b'.' | b')' | b']' | b'}' | b':') {
        end -= 1;
    }
    let value = text.s.get(start..end)?;
    let has = |is: fn(char) -> bool| value.chars().any(is);
    let digits = value.bytes().filter(u8::is_ascii_digit).count();
    // Code: a call, a field, a variable; a number that is nothing but one, unless it is a PIN.
    let is_code = value.starts_with(['$', '%', '<', '{'])
        || value.contains("()")
        || value.contains("->")
        || value.contains("::")
        || is_path(value);
    let is_masked = value.chars().all(|c| matches!(c, '*' | '.' | 'x' | 'X' | '•' | '-' | '_'));
    let is_pin = matches!(*word, "pin" | "暗証番号" | "zugangscode");
    let is_secret = match value.chars().count() {
        4..=8 if is_pin && digits == value.len() => true,
        0..=5 => false,
        _ if *word == "token" || *word == "pass" => digits > 0 && has(|c| c.is_ascii_alphabetic()) && value.len() >= 8,
        _ => {
            (digits > 0 && has(char::is_alphabetic))
                || has(|c| matches!(c, '!' | '@' | '#' | '$' | '%' | '^' | '&' | '*' | '?' | '+'))
        }
    };
    if !is_secret || is_code || is_masked || (digits == value.len() && !is_pin) {
        return None;
    }
    secret(start, end, "a password", 0.85)
}

/// Whether a value is a path of names, such as `config.password1` or `os.environ`.
fn is_path(value: &str) -> bool {
    value.contains('.')
        && value.split('.').all(|part| {
            part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        })
}

fn ends_with_word(text: &str, word: &str) -> bool {
    text.strip_suffix(word).is_some_and(|before| {
        // `db_password` and `MAIL-PASSWORD` too; only a letter before makes another word of it.
        !before.chars().next_back().is_some_and(|c| c.is_alphanumeric() && c < '\u{2e80}')
    })
}

/// The first words of a private key (RFC 7468, and OpenPGP's RFC 9580).
const BEGIN: &str = "-----BEGIN ";

/// A private key whose first line begins at this byte: that line's end.
pub fn key_header(text: &Text, start: usize) -> Option<usize> {
    let rest = text.s[start..].strip_prefix(BEGIN)?;
    let end = rest.find("-----").filter(|&end| end <= 48)?;
    rest[..end].contains("PRIVATE KEY").then_some(start + BEGIN.len() + end + 5)
}

/// Whether what begins at this byte may become the first line of a private key.
pub fn may_be_key_header(rest: &str) -> bool {
    let shorter = rest.len().min(BEGIN.len());
    rest.as_bytes()[..shorter] == BEGIN.as_bytes()[..shorter]
        && rest.len() < BEGIN.len() + 53
        && !rest.get(BEGIN.len()..).is_some_and(|label| label.contains("-----") || label.contains('\n'))
}

/// How much of a text goes on with a private key, once its first line is over.
pub struct Key {
    /// The bytes that belong to it.
    pub length: usize,
    /// Whether it is over; otherwise more may follow.
    pub is_over: bool,
}

/// Reads on in a private key. With `is_last`, nothing follows the text.
pub fn key_body(text: &str, is_last: bool) -> Key {
    let mut at = 0;
    loop {
        let rest = &text[at..];
        let body = rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
        let start = at + rest.len() - body.len();
        let end = start + body.find(|c: char| c.is_ascii_whitespace()).unwrap_or(body.len());
        let marker = "-----END ";
        let is_marker_begun = body.starts_with(&marker[..body.len().min(marker.len())]) && !body.is_empty();
        if is_marker_begun {
            let close =
                body.get(marker.len()..).and_then(|label| label.find("-----").map(|close| marker.len() + close + 5));
            return match close.filter(|&close| close < 64) {
                Some(close) => Key { length: start + close, is_over: true },
                None if is_last || body.len() > 64 => Key { length: text.len(), is_over: true },
                None => Key { length: at, is_over: false },
            };
        }
        // `\\n-----END`, in one line.
        let end = text[start..end].find("-----").map_or(end, |marker| start + marker);
        let token = &text[start..end];
        let is_whole = end < text.len() || is_last;
        if !is_whole && token.len() < 128 {
            return Key { length: at, is_over: false };
        }
        // Headers of old: `Proc-Type: 4,ENCRYPTED`, `DEK-Info: AES-128-CBC,1234`.
        let is_header = matches!(token, "Proc-Type:" | "DEK-Info:" | "Version:" | "Comment:")
            || token == "4,ENCRYPTED"
            || token.contains("-CBC,");
        let is_body =
            token.bytes().all(is_key_byte) && (token.len() >= 16 || token.bytes().any(|b| !b.is_ascii_alphabetic()));
        if token.is_empty() || !(is_body || is_header) {
            return Key { length: at, is_over: !token.is_empty() || is_last };
        }
        at = end;
    }
}

/// Base64, and `\n` as programs write it.
fn is_key_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'\\' | b'-')
}

//! Electronic mail addresses (RFC 5321 lengths, RFC 6531 letters), by their `@`.

use crate::kind::{Kind, Match};
use crate::text::{Text, is_word};

/// What would be the last label of a file name such as `icon@2x.png`.
const NOT_DOMAINS: &[&str] = &["png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "ts", "py", "json"];

/// The address around the `@` at this byte.
pub fn around(text: &Text, at: usize) -> Option<Match> {
    let is_local = |c: char| is_word(c) || matches!(c, '.' | '%' | '+' | '-' | '\'');
    let local = text.s[..at].chars().rev().take_while(|&c| is_local(c)).map(char::len_utf8).sum::<usize>();
    let mut start = at - local;
    start += text.s[start..at].len() - text.s[start..at].trim_start_matches(['.', '%', '+', '-', '\'']).len();
    let local = &text.s[start..at];
    if local.is_empty() || local.chars().count() > 64 || text.before(start) == Some('@') {
        return None;
    }
    let rest = &text.s[at + 1..];
    let is_domain = |c: char| (is_word(c) && c != '_') || c == '-' || c == '.';
    let domain = &rest[..rest.find(|c| !is_domain(c)).unwrap_or(rest.len())];
    let domain = domain.split("..").next().unwrap_or_default().trim_end_matches(['.', '-']);
    let (name, last) = domain.rsplit_once('.')?;
    let is_last = last.chars().count() >= 2 && (last.chars().all(char::is_alphabetic) || last.starts_with("xn--"));
    let end = at + 1 + domain.len();
    if name.is_empty() || !is_last || domain.len() > 255 || name.starts_with(['.', '-']) {
        return None;
    }
    if NOT_DOMAINS.contains(&&last.to_ascii_lowercase()[..]) {
        return None;
    }
    // The address of a repository, `git@host:path`, is nobody's.
    if local == "git" && text.byte(end) == b':' {
        return None;
    }
    Some(Match { kind: Kind::Email, start, end, what: "an e-mail address", score: 0.99 })
}

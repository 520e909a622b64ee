//! Internet addresses (RFC 791, RFC 4291).

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::kind::{Kind, Match};
use crate::text::Text;

/// Words before four numbers that are a version or a place in a document.
const VERSIONS: &[&str] = &[
    "v",
    "ver",
    "version",
    "versión",
    "versão",
    "versione",
    "versie",
    "versio",
    "verzia",
    "verze",
    "verzió",
    "wersja",
    "wersji",
    "versiunea",
    "версия",
    "έκδοση",
    "release",
    "rev",
    "revision",
    "build",
    "firmware",
    "driver",
    "section",
    "sections",
    "chapter",
    "clause",
    "abschnitt",
    "kapitel",
    "chapitre",
    "capítulo",
    "capitolo",
    "§",
    "rozdział",
    "версии",
    "バージョン",
    "버전",
    "版本",
    "phiên",
    "versi",
    "الإصدار",
    "संस्करण",
];

/// An IPv4 address at this byte.
pub fn v4(text: &Text, start: usize) -> Option<Match> {
    let mut octets = [0u8; 4];
    let mut at = start;
    for (number, octet) in octets.iter_mut().enumerate() {
        if number > 0 {
            if text.byte(at) != b'.' {
                return None;
            }
            at += 1;
        }
        let end = text.digits_end(at);
        let digits = &text.s[at..end];
        if digits.len() > 3 || (digits.len() > 1 && digits.starts_with('0')) {
            return None;
        }
        *octet = digits.parse().ok()?;
        at = end;
    }
    if !text.left_clear(start) || !text.ends_word(at) || (text.byte(at) == b'.' && text.byte(at + 1).is_ascii_digit()) {
        return None;
    }
    // `package-1.2.3.4`, `==1.2.3.4`, `^1.2.3.4`, `~1.2.3.4`, `@1.2.3.4`.
    if matches!(text.before(start), Some('^' | '~' | '@' | '-')) || text.s[..start].ends_with("==") {
        return None;
    }
    let address = Ipv4Addr::from(octets);
    let is_mask = octets[0] == 255 || address.is_unspecified() || octets[0] == 0;
    if is_mask || address.is_loopback() || VERSIONS.contains(&&text.word_before(start)[..]) {
        return None;
    }
    // A heading such as `1.2.3.4 Scope` at the beginning of a line.
    let heads = matches!(text.before(start), None | Some('\n')) && text.byte(at) == b' ';
    if heads && octets.iter().all(|&octet| octet < 32) {
        return None;
    }
    Some(Match { kind: Kind::Ip, start, end: at, what: "an IPv4 address", score: 0.9 })
}

/// An IPv6 address at this byte.
pub fn v6(text: &Text, start: usize) -> Option<Match> {
    if !text.starts_word(start) || text.before(start) == Some(':') {
        return None;
    }
    let length =
        text.b[start..].iter().take(46).take_while(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')).count();
    let run = &text.s[start..start + length];
    let run = run.strip_suffix("::").map_or(run.trim_end_matches(['.', ':']), |_| run);
    let end = start + run.len();
    if !text.ends_word(end) {
        return None;
    }
    let address: Ipv6Addr = run.parse().ok()?;
    let first = run.split(':').next().unwrap_or_default();
    let groups = run.split(':').filter(|group| !group.is_empty()).count();
    // `dead::beef` is a name in a program; 2001:db8::1, fe80::1 and fd00::1 are addresses.
    let is_written_out = first.len() == 4 && first.starts_with(['2', '3', 'f', 'F']);
    let is_address = groups >= 3 || (groups >= 1 && is_written_out);
    if address.is_loopback() || address.is_unspecified() || !is_address || !run.bytes().any(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(Match { kind: Kind::Ip, start, end, what: "an IPv6 address", score: 0.95 })
}

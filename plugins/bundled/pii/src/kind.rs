//! The kinds of things that are looked for.

use schemars::JsonSchema;
use serde::Deserialize;

/// A kind of personal data, the one that wins where two overlap first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Keys, tokens, passwords.
    Secret,
    /// Electronic mail addresses.
    Email,
    /// International bank account numbers.
    Iban,
    /// Numbers of payment cards.
    Card,
    /// Passport numbers, by the words around them.
    Passport,
    /// Numbers of driving licenses, by the words around them.
    DrivingLicense,
    /// National identity, tax and social security numbers.
    NationalId,
    /// Telephone numbers.
    Phone,
    /// IPv4 and IPv6 addresses.
    Ip,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 9] = [
        Kind::Secret,
        Kind::Email,
        Kind::Iban,
        Kind::Card,
        Kind::NationalId,
        Kind::Passport,
        Kind::DrivingLicense,
        Kind::Phone,
        Kind::Ip,
    ];

    /// The category of findings.
    pub fn category(self) -> &'static str {
        match self {
            Kind::Secret => "pii/secret",
            Kind::Email => "pii/email",
            Kind::Iban => "pii/iban",
            Kind::Card => "pii/card",
            Kind::NationalId => "pii/national-id",
            Kind::Passport => "pii/passport",
            Kind::DrivingLicense => "pii/driving-license",
            Kind::Phone => "pii/phone",
            Kind::Ip => "pii/ip",
        }
    }

    /// What stands in its place, in brackets.
    pub fn label(self) -> &'static str {
        match self {
            Kind::Secret => "SECRET",
            Kind::Email => "EMAIL",
            Kind::Iban => "IBAN",
            Kind::Card => "CARD",
            Kind::NationalId => "ID",
            Kind::Passport => "PASSPORT",
            Kind::DrivingLicense => "LICENSE",
            Kind::Phone => "PHONE",
            Kind::Ip => "IP",
        }
    }
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    /// What it is.
    pub kind: Kind,
    /// Its first byte.
    pub start: usize,
    /// The byte behind it.
    pub end: usize,
    /// What it is in words, such as `IBAN (DE)`.
    pub what: &'static str,
    /// How sure that is, from 0 to 1.
    pub score: f32,
}

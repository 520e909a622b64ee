//! Values of more than one form.

use std::collections::HashSet;
use std::fmt;

use serde::de::{self, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use crate::http::json::shortened;

/// Texts or token ids.
#[derive(Clone, Debug, PartialEq, Eq, ToSchema)]
#[serde(untagged)]
pub enum Prompt {
    /// One text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// One text as token ids.
    Tokens(Vec<u32>),
    /// Several texts as token ids.
    TokenLists(Vec<Vec<u32>>),
}

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;

        impl<'de> Visitor<'de> for Form {
            type Value = Prompt;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a list of strings, a list of token ids or a list of such lists")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Prompt, E> {
                Ok(Prompt::Text(text.to_owned()))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Prompt, E> {
                Ok(Prompt::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Prompt, A::Error> {
                // The first element says what the others must be.
                Ok(match seq.next_element()? {
                    None => Prompt::Texts(Vec::new()),
                    Some(First::Text(first)) => Prompt::Texts(list(first, seq)?),
                    Some(First::Token(first)) => Prompt::Tokens(list(first, seq)?),
                    Some(First::Tokens(first)) => Prompt::TokenLists(list(first, seq)?),
                })
            }
        }

        deserializer.deserialize_any(Form)
    }
}

/// The list of this element and those that follow.
fn list<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(first: T, mut seq: A) -> Result<Vec<T>, A::Error> {
    let mut list = vec![first];
    while let Some(next) = seq.next_element()? {
        list.push(next);
    }
    Ok(list)
}

/// The first element of a list of prompts.
enum First {
    Text(String),
    Token(u32),
    Tokens(Vec<u32>),
}

impl<'de> Deserialize<'de> for First {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Element;

        impl<'de> Visitor<'de> for Element {
            type Value = First;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a token id or a list of token ids")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<First, E> {
                Ok(First::Text(text.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, id: u64) -> Result<First, E> {
                let id = u32::try_from(id).map_err(|_| E::invalid_value(Unexpected::Unsigned(id), &self))?;
                Ok(First::Token(id))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<First, A::Error> {
                Ok(First::Tokens(match seq.next_element()? {
                    None => Vec::new(),
                    Some(first) => list(first, seq)?,
                }))
            }
        }

        deserializer.deserialize_any(Element)
    }
}

/// A string, or several.
#[derive(Clone, Debug, PartialEq, Eq, ToSchema)]
#[serde(untagged)]
pub enum Stop {
    /// One.
    One(String),
    /// Several, or none.
    Many(Vec<String>),
}

impl<'de> Deserialize<'de> for Stop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;

        impl<'de> Visitor<'de> for Form {
            type Value = Stop;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Stop, E> {
                Ok(Stop::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Stop, A::Error> {
                let first = seq.next_element()?;
                Ok(Stop::Many(first.map_or_else(|| Ok(Vec::new()), |first| list(first, seq))?))
            }
        }

        deserializer.deserialize_any(Form)
    }
}

/// An integer of 64 bits, signed or not; a negative one is its two's complement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(value_type = i64)]
pub struct Seed(pub u64);

impl<'de> Deserialize<'de> for Seed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Seed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer of 64 bits")
            }

            fn visit_u64<E: de::Error>(self, seed: u64) -> Result<Seed, E> {
                Ok(Seed(seed))
            }

            fn visit_i64<E: de::Error>(self, seed: i64) -> Result<Seed, E> {
                Ok(Seed(seed.cast_unsigned()))
            }
        }

        deserializer.deserialize_any(Number)
    }
}

/// From token ids, as strings, to what is added to their logits.
#[derive(Clone, Debug, Default, PartialEq, ToSchema)]
#[schema(value_type = std::collections::HashMap<String, f32>)]
pub struct LogitBias(pub Vec<(u32, f32)>);

/// The most tokens with a bias.
const MAX_LOGIT_BIAS: usize = 1024;

impl<'de> Deserialize<'de> for LogitBias {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Biases;

        impl<'de> Visitor<'de> for Biases {
            type Value = LogitBias;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object from token ids, as strings, to numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LogitBias, A::Error> {
                let (mut biases, mut seen) = (Vec::new(), HashSet::new());
                while let Some(key) = map.next_key::<String>()? {
                    // "5" and "005" would be two biases on one token.
                    let token = key.parse::<u32>().ok().filter(|token| token.to_string() == key);
                    let key = shortened(&key);
                    let token = token.ok_or_else(|| {
                        de::Error::custom(format!("must map token ids, as strings, to numbers, found {key:?}"))
                    })?;
                    if !seen.insert(token) {
                        return Err(de::Error::custom(format!("names the token {key} twice")));
                    }
                    if seen.len() > MAX_LOGIT_BIAS {
                        return Err(de::Error::custom(format!("must name at most {MAX_LOGIT_BIAS} tokens")));
                    }
                    biases.push((token, map.next_value()?));
                }
                Ok(LogitBias(biases))
            }
        }

        deserializer.deserialize_map(Biases)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: for<'de> Deserialize<'de>>(json: &str) -> Result<T, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn prompts_have_four_forms_and_no_mixtures() {
        assert_eq!(read("\"a\""), Ok(Prompt::Text("a".into())));
        assert_eq!(read("[\"a\", \"\"]"), Ok(Prompt::Texts(vec!["a".into(), String::new()])));
        assert_eq!(read("[1, 2]"), Ok(Prompt::Tokens(vec![1, 2])));
        assert_eq!(read("[[1], []]"), Ok(Prompt::TokenLists(vec![vec![1], vec![]])));
        assert_eq!(read("[]"), Ok(Prompt::Texts(vec![])));
        for wrong in
            ["1", "{}", "null", "[\"a\", 1]", "[1, \"a\"]", "[[1], 1]", "[-1]", "[4294967296]", "[1.0]", "[null]"]
        {
            assert!(read::<Prompt>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn seeds_have_64_bits_and_biases_name_each_token_once() {
        assert_eq!(read("-1"), Ok(Seed(u64::MAX)));
        assert_eq!(read("18446744073709551615"), Ok(Seed(u64::MAX)));
        assert!(read::<Seed>("18446744073709551616").is_err() && read::<Seed>("1.5").is_err());
        assert_eq!(read(r#"{"5": 1, "7": -0.5}"#), Ok(LogitBias(vec![(5, 1.0), (7, -0.5)])));
        for (wrong, message) in [
            (r#"{"cat": 1}"#, "\"cat\""),
            (r#"{"05": 1}"#, "\"05\""),
            (r#"{"-1": 1}"#, "\"-1\""),
            (r#"{"5": 1, "5": 1}"#, "5 twice"),
            (r#"{"5": "1"}"#, "f32"),
            ("[]", "an object"),
        ] {
            let error = read::<LogitBias>(wrong).unwrap_err();
            assert!(error.contains(message), "{wrong}: {error}");
        }
        let many: Vec<String> = (0..1025).map(|token| format!("\"{token}\": 1")).collect();
        assert!(read::<LogitBias>(&format!("{{{}}}", many.join(","))).unwrap_err().contains("at most 1024"));
        assert_eq!(read("[\"a\"]"), Ok(Stop::Many(vec!["a".into()])));
    }
}

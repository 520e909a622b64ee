//! What a policy is told of a request beside its texts: who asks, for what, and where.

use std::collections::BTreeMap;

/// Who asks for what. It is made once for a request, from the rights of whoever makes it, and goes to every policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestContext {
    /// The same for all calls about one request.
    pub id: String,
    /// The name of the model.
    pub model: String,
    /// Who asks; none on a server without keys.
    pub caller: Option<Caller>,
    /// The rating that the answer will keep to, already held against all ceilings; none where none is asked for: on routes
    /// that do not generate, and for models without ratings.
    pub rating: Option<Rating>,
    /// What the answer will be used for, already held against the caller's rights; none on routes that do not ask.
    pub declared_use: Option<DeclaredUse>,
    /// The path of the route, such as `/v1/completions`.
    pub route: &'static str,
    /// The language of whoever asks (ISO 639-1), where it is known.
    pub language: Option<String>,
}

/// The holder of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The public part of the key.
    pub key_id: String,
    /// What the operator called the key; several keys may have one name.
    pub key_name: String,
}

/// A content rating, the most innocent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rating {
    /// For everyone.
    G,
    /// Parental guidance.
    PG,
    /// Restricted.
    R,
    /// For adults.
    X,
}

/// What an answer will be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeclaredUse {
    /// To earn money, or not known not to.
    Commercial,
    /// Not to earn money.
    NonCommercial,
}

/// A setting that may be another one for some keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PerKey<T> {
    default: T,
    keys: BTreeMap<String, T>,
}

impl<T> PerKey<T> {
    /// `keys`: what holds for a key instead of `default`, by the key's id or its name.
    pub fn new(default: T, keys: BTreeMap<String, T>) -> Self {
        PerKey { default, keys }
    }

    /// What holds for this request: what is set for its key's id, else for its key's name, else the default.
    pub fn of(&self, request: &RequestContext) -> &T {
        let of_key = |Caller { key_id, key_name }: &Caller| self.keys.get(key_id).or_else(|| self.keys.get(key_name));
        request.caller.as_ref().and_then(of_key).unwrap_or(&self.default)
    }
}

/// The same for every key.
impl<T> From<T> for PerKey<T> {
    fn from(default: T) -> Self {
        PerKey { default, keys: BTreeMap::new() }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A request by a key, given as id and name, or by nobody.
    pub(crate) fn request(caller: Option<(&str, &str)>) -> RequestContext {
        let caller = caller.map(|(id, name)| Caller { key_id: id.to_owned(), key_name: name.to_owned() });
        RequestContext {
            id: "1".to_owned(),
            model: "m".to_owned(),
            caller,
            rating: None,
            declared_use: None,
            route: "/v1/completions",
            language: None,
        }
    }

    #[test]
    fn the_id_wins_over_the_name_and_the_name_over_the_default() {
        let keys = [("01", "of the id"), ("web", "of the name")];
        let setting = PerKey::new("default", keys.map(|(key, value)| (key.to_owned(), value)).into());
        for (caller, expected) in [
            (None, "default"),
            (Some(("02", "school")), "default"),
            (Some(("02", "web")), "of the name"),
            (Some(("03", "web")), "of the name"),
            (Some(("01", "web")), "of the id"),
            (Some(("01", "school")), "of the id"),
        ] {
            assert_eq!(*setting.of(&request(caller)), expected, "{caller:?}");
        }
        assert_eq!(*PerKey::from(1).of(&request(Some(("01", "web")))), 1);
    }

    #[test]
    fn ratings_are_ordered_by_what_they_allow() {
        assert!(Rating::G < Rating::PG && Rating::PG < Rating::R && Rating::R < Rating::X);
    }
}

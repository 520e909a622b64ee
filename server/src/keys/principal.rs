//! Who asks, and what they may ask for.

use std::sync::Arc;

use safelmm_model::Rating;
use serde::{Deserialize, Serialize};

use super::limits::{Admission, Charge, Meter, Refusal, Standing};
use super::secret::KeyId;

/// What the answer will be used for; licenses of stored documents are judged by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Use {
    /// The default.
    #[default]
    Commercial,
    /// Opens non-commercial stores to those who are entitled to them.
    NonCommercial,
}

impl Use {
    /// As requests and key files write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Use::Commercial => "commercial",
            Use::NonCommercial => "non-commercial",
        }
    }

    /// The use that is not this one.
    pub fn other(self) -> Use {
        match self {
            Use::Commercial => Use::NonCommercial,
            Use::NonCommercial => Use::Commercial,
        }
    }
}

/// Which names a key may use: `"all"`, or a list, which may be empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected \"all\" or a list of names")]
pub enum Allowed {
    /// These and no others.
    Only(Vec<String>),
    /// Every one there is.
    All(All),
}

/// The word that allows everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum All {
    /// `"all"`.
    All,
}

impl Allowed {
    /// Every name there is.
    pub const ALL: Allowed = Allowed::All(All::All);
    /// No name at all.
    pub const NONE: Allowed = Allowed::Only(Vec::new());

    /// Whether this name is among them.
    pub fn allows(&self, name: &str) -> bool {
        match self {
            Allowed::Only(names) => names.iter().any(|allowed| allowed == name),
            Allowed::All(All::All) => true,
        }
    }
}

/// The rights that were given with a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rights {
    /// The highest rating its requests may ask for; none leaves it to the server.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rating_ceiling: Option<Rating>,
    /// The uses its requests may declare.
    pub uses: Vec<Use>,
    /// The stores it may ask.
    pub stores: Allowed,
    /// Whether it may make stores, and change those that it may ask.
    #[serde(default)]
    pub manage_stores: bool,
    /// The models it may use.
    pub models: Allowed,
}

impl Rights {
    /// Whoever is on this machine, while there are no keys: everything.
    const LOCAL: fn() -> Rights = || Rights {
        rating_ceiling: None,
        uses: vec![Use::Commercial, Use::NonCommercial],
        stores: Allowed::ALL,
        manage_stores: true,
        models: Allowed::ALL,
    };
}

/// What a key has unless more or less is asked for: commercial use of every model, and no store.
impl Default for Rights {
    fn default() -> Self {
        Rights {
            rating_ceiling: None,
            uses: vec![Use::Commercial],
            stores: Allowed::NONE,
            manage_stores: false,
            models: Allowed::ALL,
        }
    }
}

/// Who makes a request: one typed answer to every question about its rights. A cheap handle.
#[derive(Clone, Debug)]
pub struct Principal {
    holder: Arc<Inner>,
    /// Keeps the request among the concurrent ones: work that holds the principal counts, even if its client has left.
    admission: Option<Arc<Admission>>,
}

#[derive(Debug)]
struct Inner {
    /// None for a request to a server without keys.
    id: Option<KeyId>,
    name: String,
    rights: Rights,
    meter: Option<Arc<Meter>>,
}

/// A rating that a request cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RatingRefusal {
    /// It asks for more than it may.
    #[error("is {requested}, above this {whose}'s ceiling {ceiling}")]
    AboveCeiling {
        /// What was asked for.
        requested: Rating,
        /// The most that could be.
        ceiling: Rating,
        /// Whose ceiling it is: the `server`'s or the `key`'s.
        whose: &'static str,
    },
    /// It asks a model without ratings for one.
    #[error("cannot be honoured: this model was trained without ratings")]
    Unrated,
    /// The key has a ceiling, and the model cannot keep to it.
    #[error("this key may get answers up to the rating {0}, and this model was trained without ratings")]
    CannotKeep(Rating),
}

impl Principal {
    /// Whoever is on this machine, for a server without keys: all rights, no limits.
    pub fn local() -> Self {
        Principal::of(Inner { id: None, name: "local".into(), rights: Rights::LOCAL(), meter: None })
    }

    /// The holder of a key.
    pub(super) fn new(id: KeyId, name: String, rights: Rights, meter: Arc<Meter>) -> Self {
        Principal::of(Inner { id: Some(id), name, rights, meter: Some(meter) })
    }

    fn of(holder: Inner) -> Self {
        Principal { holder: Arc::new(holder), admission: None }
    }

    /// The id of the key; none on a server without keys.
    pub fn id(&self) -> Option<KeyId> {
        self.holder.id
    }

    /// What the operator called the key.
    pub fn name(&self) -> &str {
        &self.holder.name
    }

    /// Whether requests may declare this use.
    pub fn may_use(&self, declared: Use) -> bool {
        self.holder.rights.uses.contains(&declared)
    }

    /// Whether requests may ask this store.
    pub fn may_ask(&self, store: &str) -> bool {
        self.holder.rights.stores.allows(store)
    }

    /// Whether requests may make stores, and change those that they may ask.
    pub fn may_manage_stores(&self) -> bool {
        self.holder.rights.manage_stores
    }

    /// Whether requests may use this model, by the name under which it is served.
    pub fn may_use_model(&self, model: &str) -> bool {
        self.holder.rights.models.allows(model)
    }

    /// The highest rating that requests may ask for on a server with this ceiling; none for a model without ratings.
    pub fn rating_ceiling(&self, server: Option<Rating>) -> Option<Rating> {
        server.map(|server| self.holder.rights.rating_ceiling.map_or(server, |own| own.min(server)))
    }

    /// The rating of a request: the one asked for, if it is not above the server's or the key's ceiling; otherwise the
    /// server's default, or the ceiling where that is lower. None for a model without ratings.
    pub fn rating_for(
        &self,
        requested: Option<Rating>,
        server: Option<Rating>,
        default: Option<Rating>,
    ) -> Result<Option<Rating>, RatingRefusal> {
        let own = self.holder.rights.rating_ceiling;
        let Some(ceiling) = self.rating_ceiling(server) else {
            return match (own, requested) {
                (Some(own), _) => Err(RatingRefusal::CannotKeep(own)),
                (None, Some(_)) => Err(RatingRefusal::Unrated),
                (None, None) => Ok(None),
            };
        };
        match requested {
            Some(requested) if requested > ceiling => {
                let whose = if own == Some(ceiling) { "key" } else { "server" };
                Err(RatingRefusal::AboveCeiling { requested, ceiling, whose })
            }
            Some(requested) => Ok(Some(requested)),
            None => Ok(Some(default.unwrap_or(ceiling).min(ceiling))),
        }
    }

    /// Lets one request in, or says when to come back. The principal that is returned is the request's own: the request
    /// counts among the concurrent ones until the last clone is dropped.
    pub fn admit(&self) -> Result<Principal, Refusal> {
        let admission = self.holder.meter.as_ref().map(Meter::admit).transpose()?;
        Ok(Principal { holder: Arc::clone(&self.holder), admission: admission.map(Arc::new) })
    }

    /// What keeps the request among the concurrent ones; none where nothing is limited or nobody was let in.
    pub fn admission(&self) -> Option<Arc<Admission>> {
        self.admission.clone()
    }

    /// Takes tokens from the key's allowance before they are computed: those of the prompt and the most the answer can
    /// have. [`Charge::settle`] gives back what was not used.
    pub fn charge(&self, tokens: usize) -> Result<Charge, Refusal> {
        match &self.holder.meter {
            Some(meter) => meter.charge(tokens),
            None => Ok(Charge::default()),
        }
    }

    /// The most tokens that one request can ever have; none where they are not limited.
    pub fn most_tokens(&self) -> Option<usize> {
        self.holder.meter.as_ref().and_then(|meter| meter.most_tokens())
    }

    /// What is left of the limits, where there are any.
    pub fn standing(&self) -> Standing {
        self.holder.meter.as_ref().map(|meter| meter.standing()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(rating_ceiling: Option<Rating>) -> Principal {
        let rights = Rights { rating_ceiling, stores: Allowed::Only(vec!["a".into()]), ..Rights::default() };
        Principal::of(Inner { id: None, name: String::new(), rights, meter: None })
    }

    #[test]
    fn the_lower_ceiling_holds_and_the_default_falls_to_it() {
        use Rating::{G, PG, R, X};
        for own in [None, Some(G), Some(PG), Some(R), Some(X)] {
            for server in Rating::ALL {
                let principal = with(own);
                let ceiling = own.unwrap_or(X).min(server);
                assert_eq!(principal.rating_ceiling(Some(server)), Some(ceiling));
                assert_eq!(principal.rating_for(None, Some(server), Some(PG)), Ok(Some(PG.min(ceiling))));
                for requested in Rating::ALL {
                    let outcome = principal.rating_for(Some(requested), Some(server), Some(PG));
                    assert_eq!(outcome.ok(), (requested <= ceiling).then_some(Some(requested)));
                }
            }
        }
    }

    #[test]
    fn a_ceiling_that_the_model_cannot_keep_refuses_the_request() {
        assert_eq!(with(None).rating_for(None, None, None), Ok(None));
        assert_eq!(with(None).rating_for(Some(Rating::G), None, None), Err(RatingRefusal::Unrated));
        assert_eq!(with(Some(Rating::R)).rating_for(None, None, None), Err(RatingRefusal::CannotKeep(Rating::R)));
    }

    #[test]
    fn nothing_is_allowed_that_was_not_given() {
        let principal = with(None);
        assert!(principal.may_use(Use::Commercial) && !principal.may_use(Use::NonCommercial));
        assert!(principal.may_ask("a") && !principal.may_ask("b") && principal.may_use_model("any"));
        let local = Principal::local();
        assert!(local.may_use(Use::Commercial) && local.may_use(Use::NonCommercial) && local.may_ask("b"));
        assert!(local.admit().unwrap().admission().is_none() && local.most_tokens().is_none());
        assert!(local.charge(usize::MAX).is_ok());
    }
}

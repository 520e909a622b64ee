//! What takes the texts of one request through the policies.

use std::borrow::Cow;

use safelmm_model::Rating;
use safelmm_plugins::{self as plugins, Caller, DeclaredUse, RequestContext, Scope};

use super::error::ApiError;
use super::extension::Extension;
use crate::app::App;
use crate::keys::{Principal, Use};

/// Puts the texts of one request through the policies, which are told who asks for what.
pub struct Screener {
    scope: Scope,
}

impl Screener {
    /// `route`: the path; `extension`: what the request asks for under `safelmm`, where the route has it.
    pub fn new(app: &App, principal: &Principal, route: &'static str, extension: Option<&Extension>) -> Self {
        let caller = principal.id().map(|id| Caller { key_id: id.to_string(), key_name: principal.name().to_owned() });
        let request = RequestContext {
            id: uuid::Uuid::new_v4().simple().to_string(),
            model: app.model_name().to_owned(),
            caller,
            rating: extension.and_then(|extension| extension.rating).map(rating),
            declared_use: extension.map(|extension| declared_use(extension.declared_use)),
            route,
            language: None,
        };
        Screener { scope: app.policies().pipeline().scope(request) }
    }

    /// Screens a text that stands in `param`; returns what may be used of it, which a policy may have rewritten.
    ///
    /// # Errors
    /// A policy's refusal.
    pub fn screen<'t>(&self, text: &'t str, param: &'static str) -> Result<Cow<'t, str>, ApiError> {
        self.scope.screen_prompt(text).map_err(|denial| ApiError::Policy { denial, param })
    }

    /// As [`Self::screen`], of a text that is kept.
    ///
    /// # Errors
    /// A policy's refusal.
    pub fn screened(&self, text: &mut String, param: &'static str) -> Result<(), ApiError> {
        if let Cow::Owned(other) = self.screen(text, param)? {
            *text = other;
        }
        Ok(())
    }

    /// The policies that hold for the request, and what they have found.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// As [`Self::scope`], for those who keep it.
    pub fn into_scope(self) -> Scope {
        self.scope
    }
}

/// Policies know nothing of models.
fn rating(rating: Rating) -> plugins::Rating {
    match rating {
        Rating::G => plugins::Rating::G,
        Rating::PG => plugins::Rating::PG,
        Rating::R => plugins::Rating::R,
        Rating::X => plugins::Rating::X,
    }
}

fn declared_use(declared: Use) -> DeclaredUse {
    match declared {
        Use::Commercial => DeclaredUse::Commercial,
        Use::NonCommercial => DeclaredUse::NonCommercial,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Config;
    use crate::keys::{self, Keyring, Limits, Rights};

    #[test]
    fn policies_are_told_what_the_principal_and_the_request_say() {
        let app = App::start(Arc::new(crate::demo::open().unwrap()), &Config::default()).unwrap();
        let extension =
            Extension { rating: Some(Rating::R), guidance: 1.0, declared_use: Use::NonCommercial, attachment: None };
        let local = Screener::new(&app, &Principal::local(), "/v1/completions", Some(&extension)).into_scope();
        let expected = RequestContext {
            id: local.request().id.clone(),
            model: app.model_name().to_owned(),
            caller: None,
            rating: Some(plugins::Rating::R),
            declared_use: Some(DeclaredUse::NonCommercial),
            route: "/v1/completions",
            language: None,
        };
        assert_eq!(*local.request(), expected);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let key = keys::add(&path, "web", Rights::default(), Limits::default(), None).unwrap().key;
        let principal = Keyring::open(&path).unwrap().authenticate(&key.reveal()).unwrap();
        let keyed = Screener::new(&app, &principal, "/tokenize", None).into_scope();
        let caller = Some(Caller { key_id: key.id().to_string(), key_name: "web".into() });
        let RequestContext { id, caller: told, rating, declared_use, route, .. } = keyed.request().clone();
        assert_eq!((told, rating, declared_use, route), (caller, None, None, "/tokenize"));
        assert_ne!(id, local.request().id);
    }

    #[test]
    fn ratings_keep_their_order() {
        assert!(Rating::ALL.map(rating).is_sorted());
    }
}

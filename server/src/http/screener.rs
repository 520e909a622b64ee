//! What takes the texts of one request through the policies.

use safelmm_model::Rating;
use safelmm_plugins::{self as plugins, Caller, DeclaredUse, Entry, RequestContext};

use super::error::ApiError;
use super::extension::Extension;
use crate::app::App;
use crate::keys::{Principal, Use};

/// Puts the texts of one request through the policies, which are told who asks for what, and keeps what they flag.
pub struct Screener<'a> {
    app: &'a App,
    request: RequestContext,
    entries: Vec<Entry>,
}

impl<'a> Screener<'a> {
    /// `route`: the path; `extension`: what the request asks for under `safelmm`, where the route has it.
    pub fn new(app: &'a App, principal: &Principal, route: &'static str, extension: Option<&Extension>) -> Self {
        let caller = principal.id().map(|id| Caller { key_id: id.to_string(), key_name: principal.name().to_owned() });
        let request = RequestContext {
            caller,
            rating: extension.and_then(|extension| extension.rating).map(rating),
            declared_use: extension.map(|extension| declared_use(extension.declared_use)),
            route,
        };
        Screener { app, request, entries: Vec::new() }
    }

    /// Screens a text that stands in `param`.
    ///
    /// # Errors
    /// A policy's refusal.
    pub fn screen(&mut self, text: &str, param: &'static str) -> Result<(), ApiError> {
        let outcome = self.app.policies().screen_prompt(text, &self.request, &mut self.entries);
        outcome.map_err(|denial| ApiError::Policy { denial, param })
    }

    /// What the policies flagged.
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
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
        let local = Screener::new(&app, &Principal::local(), "/v1/completions", Some(&extension)).request;
        let expected = RequestContext {
            caller: None,
            rating: Some(plugins::Rating::R),
            declared_use: Some(DeclaredUse::NonCommercial),
            route: "/v1/completions",
        };
        assert_eq!(local, expected);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let key = keys::add(&path, "web", Rights::default(), Limits::default(), None).unwrap().key;
        let principal = Keyring::open(&path).unwrap().authenticate(&key.reveal()).unwrap();
        let keyed = Screener::new(&app, &principal, "/tokenize", None).request;
        let caller = Some(Caller { key_id: key.id().to_string(), key_name: "web".into() });
        assert_eq!(keyed, RequestContext { caller, rating: None, declared_use: None, route: "/tokenize" });
    }

    #[test]
    fn ratings_keep_their_order() {
        assert!(Rating::ALL.map(rating).is_sorted());
    }
}

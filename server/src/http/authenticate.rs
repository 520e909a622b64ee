//! Who asks? Every route but the probes wants to know, where there are keys.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use tracing::{Span, field};

use super::error::ApiError;
use super::guarded::Guarded;
use crate::app::App;
use crate::keys::{Keyring, Principal, Standing};

/// What load balancers and supervisors ask without a key.
const OPEN: [&str; 2] = ["/health", "/livez"];

/// Finds out who asks, lets the request in if its key's limits allow, and sends the [`Principal`] along with it.
pub async fn authenticate(State(app): State<App>, mut request: Request, next: Next) -> Response {
    if OPEN.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let principal = match app.keys() {
        None => Principal::local(),
        Some(keys) => match identify(keys, request.headers()).await {
            Ok(principal) => principal,
            Err(rejected) => {
                return ApiError::Unauthorized { rejected, in_browser: is_page(&request) }.into_response();
            }
        },
    };
    if let Some(id) = principal.id() {
        Span::current().record("key", field::display(id));
    }
    // Pages and listings cost next to nothing and count for nothing.
    let counts = !request.method().is_safe();
    let admitted = if counts { principal.admit() } else { Ok(principal.clone()) };
    let mut response = match admitted {
        Ok(admitted) => {
            let admission = admitted.admission();
            // Whatever works on the request holds a clone, and so its place among the concurrent ones.
            request.extensions_mut().insert(admitted);
            next.run(request).await.map(|body| Guarded::body(body, admission))
        }
        Err(refusal) => ApiError::limited("max_tokens")(refusal).into_response(),
    };
    tell_standing(response.headers_mut(), principal.standing());
    response
}

/// The key is looked for among those that the file holds now, give or take a second.
async fn identify(keys: &Arc<Keyring>, headers: &HeaderMap) -> Result<Principal, Option<crate::keys::Rejected>> {
    if keys.is_due() {
        let keys = Arc::clone(keys);
        if let Err(error) = tokio::task::spawn_blocking(move || keys.refresh()).await {
            tracing::error!(%error, "the key file was not looked at");
        }
    }
    let presented = key_of(headers).ok_or(None)?;
    keys.authenticate(&presented).map_err(Some)
}

/// The key, as programs send it (`Bearer`) or as browsers do (`Basic`, with the key as password and any user name).
fn key_of(headers: &HeaderMap) -> Option<String> {
    let (scheme, credentials) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let credentials = credentials.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(credentials.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64.decode(credentials.as_bytes()).ok()?).ok()?;
    decoded.split_once(':').map(|(_, password)| password.to_owned())
}

/// Whether a browser may have added the credentials by itself, on behalf of any page.
pub fn sent_by_browser(headers: &HeaderMap) -> bool {
    let value = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    value.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic"))
}

/// Pages that people open in a browser, which then asks them for a key.
fn is_page(request: &Request) -> bool {
    let path = request.uri().path();
    request.method() == Method::GET
        && (path == "/" || path == "/docs" || ["/playground/", "/docs/"].iter().any(|folder| path.starts_with(folder)))
}

fn tell_standing(headers: &mut HeaderMap, Standing { requests, tokens }: Standing) {
    let names = [
        (requests, "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests"),
        (tokens, "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens"),
    ];
    for (standing, limit, remaining) in names {
        if let Some((most, left)) = standing {
            headers.insert(HeaderName::from_static(limit), most.into());
            headers.insert(HeaderName::from_static(remaining), left.into());
        }
    }
}

/// Handlers take the principal as an argument. A route that nobody authenticated fails instead of answering.
impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let principal = parts.extensions.get::<Principal>().cloned();
        principal.ok_or_else(|| ApiError::Internal("a route was reached without authentication".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_as_programs_and_as_browsers_send_them() {
        let found = |value: &str| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
            (key_of(&headers), sent_by_browser(&headers))
        };
        let key = || Some("sk-a".to_owned());
        assert_eq!(found("Bearer sk-a"), (key(), false));
        assert_eq!(found("bearer  sk-a "), (key(), false));
        assert_eq!(found(&format!("Basic {}", BASE64.encode(b"any:sk-a"))), (key(), true));
        assert_eq!(found(&format!("BASIC {}", BASE64.encode(b":sk-a"))), (key(), true));
        for none in ["sk-a", "Digest sk-a", "Bearer", "Basic sk-a", "Basic /w==", ""] {
            assert_eq!(found(none).0, None, "{none}");
        }
        assert_eq!(key_of(&HeaderMap::new()), None);
    }
}

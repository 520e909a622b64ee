//! Which web pages may talk to this server: its own.
//!
//! A browser carries requests of any web page to 127.0.0.1: directly, and under a host name that its owner points here
//! (DNS rebinding). Without keys nothing else would stop such a page from using the model and reading its answers. And
//! where a person has given the browser a key, the browser adds it to such requests by itself.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::authenticate::sent_by_browser;
use super::error::ApiError;
use super::json::shortened;
use crate::app::App;

/// Refuses requests of foreign pages: without keys, where the address is one of this machine, and with a key that the
/// browser added.
pub async fn same_site(State(app): State<App>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let found = match app.keys() {
        None => foreign(headers),
        Some(_) if sent_by_browser(headers) => foreign_origin(headers),
        Some(_) => None,
    };
    match found {
        Some(foreign) => ApiError::ForeignSite(shortened(&foreign)).into_response(),
        None => next.run(request).await,
    }
}

/// The header that gives a foreign page away. A request without `Host` or `Origin` comes from no browser.
fn foreign(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let host = text(header::HOST);
    if let Some(host) = host.clone().filter(|host| !is_this_machine(host)) {
        return Some(format!("Host: {host}"));
    }
    let origin = text(header::ORIGIN)?;
    let own = host.is_some_and(|host| origin == format!("http://{host}"));
    (!own).then(|| format!("Origin: {origin}"))
}

/// The same on an address that has any name, perhaps behind a proxy that ends TLS and changes `Host`. Requests without
/// `Origin` change nothing, and their answers cannot be read by a foreign page.
fn foreign_origin(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let origin = text(header::ORIGIN)?;
    // No page can set this header; browsers do, over TLS.
    let own_page = text(HeaderName::from_static("sec-fetch-site")).is_some_and(|site| site == "same-origin");
    let own_host = text(header::HOST)
        .is_some_and(|host| ["http", "https"].iter().any(|scheme| origin == format!("{scheme}://{host}")));
    (!own_page && !own_host).then(|| format!("Origin: {origin}"))
}

fn is_this_machine(host: &str) -> bool {
    let Ok(uri) = format!("http://{host}/").parse::<Uri>() else { return false };
    let name = uri.host().unwrap_or_default();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_any_address_the_page_of_another_origin_is_foreign() {
        let found = |pairs: &[(&'static str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
            foreign_origin(&HeaderMap::from_iter(pairs))
        };
        let host = ("host", "lm.example");
        assert_eq!(found(&[host]), None);
        for own in ["http://lm.example", "https://lm.example"] {
            assert_eq!(found(&[host, ("origin", own)]), None);
        }
        for foreign in ["https://evil.example", "null", "https://lm.example.evil.example", "https://lm.example:9"] {
            assert!(found(&[host, ("origin", foreign)]).is_some());
            assert!(found(&[host, ("origin", foreign), ("sec-fetch-site", "cross-site")]).is_some());
        }
        let proxied = [("host", "10.0.0.1:8080"), ("origin", "https://lm.example"), ("sec-fetch-site", "same-origin")];
        assert_eq!(found(&proxied), None);
    }

    #[test]
    fn pages_of_this_server_and_programs_pass_and_others_do_not() {
        let found = |host: Option<&str>, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            for (name, value) in [(header::HOST, host), (header::ORIGIN, origin)] {
                if let Some(value) = value {
                    headers.insert(name, value.parse().unwrap());
                }
            }
            foreign(&headers)
        };
        for host in ["127.0.0.1:8080", "localhost:8080", "LOCALHOST", "[::1]:8080", "127.1.2.3"] {
            assert_eq!(found(Some(host), None), None, "{host}");
            assert_eq!(found(Some(host), Some(&format!("http://{host}"))), None, "{host}");
        }
        assert_eq!(found(None, None), None);
        for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8080", "10.0.0.1", "a b", ""] {
            assert!(found(Some(host), None).is_some(), "{host}");
        }
        for origin in ["http://evil.example", "null", "http://127.0.0.1:9", "https://127.0.0.1:8080"] {
            assert!(found(Some("127.0.0.1:8080"), Some(origin)).is_some(), "{origin}");
        }
    }
}

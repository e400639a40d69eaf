//! Where a store is.

use std::fmt;
use std::str::FromStr;

use tokio_tungstenite::tungstenite::http::Uri;

use base::escape::shown_url;

/// A store's domain, such as `oada.example.org`, with TLS unless it is written as `http://` or `ws://`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Domain {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    path: String,
}

/// Text that names no store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not the domain of an OADA store: {why}; it looks like oada.example.org or https://oada.example.org"
)]
pub struct InvalidDomain {
    text: String,
    why: String,
}

impl Domain {
    /// The address of the websocket.
    pub(super) fn websocket_url(&self) -> String {
        format!("{}{}", if self.tls { "wss" } else { "ws" }, self.rest())
    }

    fn rest(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let standard = self.port == if self.tls { 443 } else { 80 };
        let port = if standard { String::new() } else { format!(":{}", self.port) };
        format!("://{host}{port}{}", self.path)
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{}", if self.tls { "https" } else { "http" }, self.rest())
    }
}

impl FromStr for Domain {
    type Err = InvalidDomain;

    fn from_str(text: &str) -> Result<Self, InvalidDomain> {
        if text.contains('@') {
            let why = "it must not hold a user's name or password".to_owned();
            return Err(InvalidDomain { text: "(hidden)".to_owned(), why });
        }
        let invalid = |why: &str| InvalidDomain { text: shown_url(text), why: why.to_owned() };
        let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let uri: Uri = full.parse().map_err(|error| invalid(&format!("{error}")))?;
        let tls = match uri.scheme_str() {
            Some("https" | "wss") => true,
            Some("http" | "ws") => false,
            _ => return Err(invalid("it must start with https:// or http://, or with neither")),
        };
        // The parser forgets fragments.
        if text.contains(['?', '#']) {
            return Err(invalid("it must not have a query or a fragment"));
        }
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(invalid("it names no host"));
        }
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { tls, host, port, path: uri.path().trim_end_matches('/').to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_read() {
        let cases = [
            ("oada.example.org", Some(("wss://oada.example.org", "https://oada.example.org"))),
            ("https://x:8443/", Some(("wss://x:8443", "https://x:8443"))),
            ("http://localhost:3000", Some(("ws://localhost:3000", "http://localhost:3000"))),
            ("wss://[::1]/deep/", Some(("wss://[::1]/deep", "https://[::1]/deep"))),
            ("ws://x/a/b//", Some(("ws://x/a/b", "http://x/a/b"))),
            ("http://x:80", Some(("ws://x", "http://x"))),
            ("https://x:443", Some(("wss://x", "https://x"))),
            ("http://x:443", Some(("ws://x:443", "http://x:443"))),
            ("https://x:80", Some(("wss://x:80", "https://x:80"))),
            ("", None),
            ("ftp://x", None),
            ("https://", None),
            ("https://x?a=b", None),
            ("x#b", None),
            ("https://ann:secret@x", None),
        ];
        for (text, expected) in cases {
            let read = text.parse::<Domain>().ok().map(|domain| (domain.websocket_url(), domain.to_string()));
            let read = read.as_ref().map(|(url, text)| (url.as_str(), text.as_str()));
            assert_eq!(read, expected, "{text}");
        }
        for text in ["https://ann:secret@x", "x?token=secret", "ftp://x?secret", "https://x/#secret", "a b?secret"] {
            let hidden = text.parse::<Domain>().unwrap_err().to_string();
            assert!(!hidden.contains("secret"), "{hidden}");
        }
    }
}

//! Which requests of browsers are taken: none of other sites' pages, and none under a name that is not ours.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// What a browser says of the page that asks.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Programs of this machine.
    Loopback,
    /// Whoever can connect; programs of this machine have to call it by a name of its own.
    AnyPeer,
    /// Whoever can connect, by whatever name.
    Anybody,
}

impl Access {
    /// To a server that listens on `host`, or everywhere without one; what is `open` is for other machines then, too.
    pub fn to(host: Option<IpAddr>, open: bool) -> Self {
        match host {
            Some(host) if is_loopback(host) => Self::Loopback,
            Some(_) => Self::Anybody,
            None if open => Self::AnyPeer,
            None => Self::Loopback,
        }
    }

    /// Why a request is refused, if it is.
    fn refusal(self, peer: IpAddr, headers: &HeaderMap) -> Option<&'static str> {
        if is_of_another_site(headers) {
            return Some("The page of another site asks, and only the worker's own pages may.\n");
        }
        let is_local = is_loopback(peer) && is_asked_as_local(headers);
        match self {
            Self::Loopback if !is_local => {
                Some("This is for this machine only, as localhost. Set --host (WORKER_HOST) to show it to others.\n")
            }
            Self::AnyPeer if is_loopback(peer) && !is_local => Some(
                "From this machine the worker has to be asked as localhost. Set --host (WORKER_HOST) to change that.\n",
            ),
            _ => None,
        }
    }
}

/// Lets in who may ask.
pub(super) async fn guard(
    State(access): State<Access>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    match access.refusal(peer.ip(), request.headers()) {
        Some(why) => (StatusCode::FORBIDDEN, why).into_response(),
        None => next.run(request).await,
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Whether a browser says that a page of another site asks. Other clients say nothing.
fn is_of_another_site(headers: &HeaderMap) -> bool {
    let is_foreign = |site: &axum::http::HeaderValue| site != "same-origin" && site != "none";
    let is_ours = |origin: &axum::http::HeaderValue| {
        let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
        let authority = origin.as_ref().and_then(|origin| origin.authority());
        authority.is_some_and(|authority| headers.get(header::HOST).is_some_and(|host| host == authority.as_str()))
    };
    headers.get_all(SITE).iter().any(is_foreign) || headers.get_all(header::ORIGIN).iter().any(|it| !is_ours(it))
}

/// Whether the address in the browser is this machine's own: a page of somebody else may have its name resolve to us.
fn is_asked_as_local(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Some(host) = host.to_str().ok().and_then(host_of) else { return false };
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback)
}

/// The host in a `Host` header, without brackets and port.
fn host_of(header: &str) -> Option<&str> {
    let (host, rest) = match header.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => header.split_at(header.find(':').unwrap_or(header.len())),
    };
    let is_port = |rest: &str| rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    (rest.is_empty() || is_port(rest)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_this_machines_names_are_local() {
        let cases = [
            ("localhost:2222", true),
            ("LOCALHOST", true),
            ("127.0.0.1", true),
            ("127.0.0.1:2222", true),
            ("[::1]:2222", true),
            ("[::1]", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("worker.example.org:2222", false),
            ("localhost.example.org", false),
            ("localhost:2222@evil.example", false),
            ("localhost:", false),
            ("[::1]evil.example", false),
            ("[::1", false),
            ("10.0.0.1:2222", false),
            ("", false),
        ];
        for (host, expected) in cases {
            assert_eq!(is_asked_as_local(&headers(&[("host", host)])), expected, "{host}");
        }
        assert!(!is_asked_as_local(&HeaderMap::new()));
        for (address, expected) in [("::ffff:127.0.0.1", true), ("::1", true), ("192.168.1.1", false)] {
            assert_eq!(is_loopback(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn requests_of_other_sites_pages_are_known() {
        let cases: &[(&[(&'static str, &str)], bool)] = &[
            (&[], false),
            (&[("sec-fetch-site", "same-origin")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "same-site")], true),
            (&[("sec-fetch-site", "cross-site")], true),
            (&[("origin", "http://localhost:2222")], false),
            (&[("origin", "http://localhost:3000")], true),
            (&[("origin", "http://evil.example")], true),
            (&[("origin", "null")], true),
            (&[("origin", "")], true),
        ];
        for (of_browser, expected) in cases {
            let mut all = headers(of_browser);
            all.insert(header::HOST, "localhost:2222".parse().unwrap());
            assert_eq!(is_of_another_site(&all), *expected, "{of_browser:?}");
        }
    }

    #[test]
    fn who_may_ask_depends_on_where_the_worker_listens() {
        let (local, other) = ("127.0.0.1".parse().unwrap(), "10.1.1.1".parse().unwrap());
        let as_name = headers(&[("host", "evil.example:2222")]);
        let as_local = headers(&[("host", "localhost:2222")]);
        let cases = [
            (Access::to(Some(local), false), local, &as_local, true),
            (Access::to(Some(local), true), local, &as_name, false),
            (Access::to(Some("::1".parse().unwrap()), true), local, &as_name, false),
            (Access::to(None, false), local, &as_local, true),
            (Access::to(None, false), other, &as_local, false),
            (Access::to(None, true), other, &as_name, true),
            (Access::to(None, true), local, &as_name, false),
            (Access::to(Some(other), false), other, &as_name, true),
        ];
        for (access, peer, headers, expected) in cases {
            assert_eq!(access.refusal(peer, headers).is_none(), expected, "{access:?} {peer} {headers:?}");
        }
    }
}

//! The way through a proxy, as `HTTPS_PROXY` and `NO_PROXY` say: a tunnel that the proxy opens when asked by CONNECT.
//!
//! For what is encrypted alone. `HTTP_PROXY` is not used: with a tunnel its proxy would do no more than this one, and the
//! reference worker reached a Lightning beside it without.

use std::fmt;
use std::net::IpAddr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::http::Uri;

/// Names of the variables, of which the first that is set and not empty counts.
const PROXY: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const EXCEPT: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// The port of a proxy that names none.
const USUAL_PORT: u16 = 80;
/// A proxy that says more than this is none.
const LONGEST_ANSWER: usize = 16 * 1024;

/// A proxy. Shown without its credentials.
#[derive(Debug, Clone)]
pub struct Proxy {
    pub(super) host: String,
    pub(super) port: u16,
    /// `user:password` in base64.
    credentials: Option<SecretString>,
}

/// The proxy does not open the way.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The variable says something that is no proxy. Its value may have a password in it.
    #[error("{variable} names no proxy that can be used: {why}; it looks like http://proxy.example.org:3128")]
    #[expect(missing_docs, reason = "the names say it")]
    Invalid { variable: &'static str, why: &'static str },
    /// It wants to know who asks.
    #[error(
        "the proxy {0} wants credentials, or others (HTTP 407): HTTPS_PROXY=http://user:password@…, with special \
         characters as %XX"
    )]
    Unauthorized(String),
    /// It answered with something else.
    #[error("the proxy {proxy} does not connect to {target}: {answer}")]
    #[expect(missing_docs, reason = "the names say it")]
    Refused { proxy: String, target: String, answer: String },
    /// It was heard no more.
    #[error("the connection to the proxy {0} failed: {1}")]
    Lost(String, std::io::Error),
}

impl Proxy {
    /// The proxy on the way to a host, as these variables say.
    pub fn for_host(
        host: &str,
        port: u16,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ProxyError> {
        let set = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| Some((name, variable(name).filter(|value| !value.is_empty())?)))
        };
        let Some((name, value)) = set(PROXY) else { return Ok(None) };
        let except = set(EXCEPT).map(|(_, value)| value).unwrap_or_default();
        if is_loopback(host) || except.split(',').any(|entry| is_covered(entry.trim(), host, port)) {
            return Ok(None);
        }
        Self::read(&value).map(Some).map_err(|why| ProxyError::Invalid { variable: name, why })
    }

    fn read(text: &str) -> Result<Self, &'static str> {
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = text.parse().map_err(|_| "it is no URL")?;
        if uri.scheme_str() != Some("http") {
            return Err("only proxies that are talked to by http:// are supported");
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or("it names no host")?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let credentials = authority.rsplit_once('@').map(|(credentials, _)| {
            let decoded: Vec<u8> = percent_decode_str(credentials).collect();
            BASE64_STANDARD.encode(decoded).into()
        });
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(USUAL_PORT), credentials })
    }

    /// Has the proxy connect `stream`, which leads to it, to a host.
    pub(super) async fn open<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        host: &str,
        port: u16,
    ) -> Result<(), ProxyError> {
        let target = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let lost = |error| ProxyError::Lost(self.to_string(), error);
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some(credentials) = &self.credentials {
            request += &format!("Proxy-Authorization: Basic {}\r\n", credentials.expose_secret());
        }
        request += "\r\n";
        stream.write_all(request.as_bytes()).await.map_err(lost)?;
        // Byte by byte: what comes after the head is the server's.
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") && answer.len() < LONGEST_ANSWER {
            answer.push(stream.read_u8().await.map_err(lost)?);
        }
        let answer = String::from_utf8_lossy(&answer);
        let first = answer.lines().next().unwrap_or_default();
        let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse::<u16>().ok());
        match status {
            Some(200..300) => Ok(()),
            Some(407) => Err(ProxyError::Unauthorized(self.to_string())),
            Some(_) => Err(ProxyError::Refused { proxy: self.to_string(), target, answer: first.to_owned() }),
            None => {
                let answer = "it does not answer as an HTTP proxy does".to_owned();
                Err(ProxyError::Refused { proxy: self.to_string(), target, answer })
            }
        }
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, .. } = self;
        if host.contains(':') { write!(out, "http://[{host}]:{port}") } else { write!(out, "http://{host}:{port}") }
    }
}

/// A variable of this process.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What is on this machine is no matter of a proxy.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Whether an entry of `NO_PROXY` means this host: `*`, a domain with all below it, an address, a network, each with a
/// port or without.
fn is_covered(entry: &str, host: &str, port: u16) -> bool {
    let (name, wanted) = match entry.rsplit_once(':') {
        // More colons are an address of IPv6.
        Some((name, digits)) if !name.contains(':') || name.ends_with(']') => (name, digits.parse::<u16>().ok()),
        _ => (entry, None),
    };
    if name.is_empty() || wanted.is_some_and(|wanted| wanted != port) {
        return false;
    }
    let name = name.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = host.parse::<IpAddr>() {
        return name == "*" || name.parse() == Ok(address) || is_in_network(name, address);
    }
    let domain = name.trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    name == "*" || host == domain || host.strip_suffix(&domain).is_some_and(|rest| rest.ends_with('.'))
}

fn is_in_network(network: &str, address: IpAddr) -> bool {
    let Some((base, bits)) = network.split_once('/') else { return false };
    let Ok(bits) = bits.parse::<u32>() else { return false };
    match (base.parse(), address) {
        (Ok(IpAddr::V4(base)), IpAddr::V4(address)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            base.to_bits() & mask == address.to_bits() & mask
        }
        (Ok(IpAddr::V6(base)), IpAddr::V6(address)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            base.to_bits() & mask == address.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(host: &str, variables: &[(&str, &str)]) -> Result<Option<Proxy>, ProxyError> {
        let variable =
            |wanted: &str| variables.iter().find(|(name, _)| *name == wanted).map(|(_, it)| (*it).to_owned());
        Proxy::for_host(host, 443, variable)
    }

    #[test]
    fn the_environment_says_which_proxy() {
        let cases = [
            ("http://proxy:3128", Some("http://proxy:3128")),
            ("proxy:3128", Some("http://proxy:3128")),
            ("http://ann:se%40cret@proxy", Some("http://proxy:80")),
            ("http://[::1]:8080/", Some("http://[::1]:8080")),
            ("", None),
        ];
        for (value, expected) in cases {
            for name in PROXY {
                let found = proxy("app.openfn.org", &[(name, value)]).unwrap().map(|it| it.to_string());
                assert_eq!(found.as_deref(), expected, "{name}={value}");
            }
        }
        for value in ["socks5://ann:secret@proxy", "https://ann:secret@proxy:3128", "http://ann:secret@", "http://a b"]
        {
            let error = proxy("app.openfn.org", &[("HTTPS_PROXY", value)]).unwrap_err().to_string();
            assert!(error.contains("HTTPS_PROXY") && error.contains("http://proxy"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(proxy("x", &[("HTTP_PROXY", "http://proxy:1")]).unwrap().is_none());
        let credentials = Proxy::read("http://ann:se%40cret@proxy").unwrap().credentials.unwrap();
        assert_eq!(credentials.expose_secret(), &BASE64_STANDARD.encode("ann:se@cret"));
        assert!(!format!("{:?}", Proxy::read("http://ann:secret@proxy").unwrap()).contains("secret"));
    }

    #[test]
    fn some_hosts_need_no_proxy() {
        for host in ["localhost", "127.0.0.1", "127.1.2.3", "::1"] {
            assert!(proxy(host, &[("HTTPS_PROXY", "proxy:1")]).unwrap().is_none(), "{host}");
        }
        let cases = [
            ("example.org", "example.org", true),
            ("example.org", "app.example.org", true),
            (".example.org", "app.example.org", true),
            ("*.example.org", "APP.example.org", true),
            ("example.org", "badexample.org", false),
            ("a, example.org ,b", "example.org", true),
            ("example.org:443", "example.org", true),
            ("example.org:4000", "example.org", false),
            ("*", "anything", true),
            ("*", "10.1.2.3", true),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("0.0.0.0/0", "9.9.9.9", true),
            ("10.0.0.0/99", "10.1.2.3", false),
            ("fd00::/8", "fd12::1", true),
            ("[fd12::1]:443", "fd12::1", true),
            ("fd12::1", "fd12::1", true),
            ("", "example.org", false),
        ];
        for (except, host, is_direct) in cases {
            let found = proxy(host, &[("HTTPS_PROXY", "proxy:1"), ("NO_PROXY", except)]).unwrap();
            assert_eq!(found.is_none(), is_direct, "{except} and {host}");
        }
    }

    #[tokio::test]
    async fn a_tunnel_is_asked_for_with_credentials_and_a_refusal_is_told() {
        let proxy = Proxy::read("http://ann:secret@proxy:3128").unwrap();
        let cases = [
            ("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n", None),
            ("HTTP/1.0 200 OK\r\n\r\n", None),
            ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", Some("wants credentials")),
            ("HTTP/1.1 403 Forbidden\r\n\r\n", Some("does not connect to host.example:443: HTTP/1.1 403 Forbidden")),
            ("SSH-2.0-x\r\n\r\n", Some("does not answer as an HTTP proxy does")),
            ("HTTP/1.1 200 OK\r\n", Some("the connection to the proxy http://proxy:3128 failed")),
        ];
        for (answer, expected) in cases {
            let (mut ours, mut theirs) = tokio::io::duplex(LONGEST_ANSWER * 2);
            theirs.write_all(answer.as_bytes()).await.unwrap();
            theirs.write_all(b"the server's").await.unwrap();
            if expected.is_some() {
                theirs.shutdown().await.unwrap();
            }
            let opened = proxy.open(&mut ours, "host.example", 443).await.map_err(|error| error.to_string());
            match (opened, expected) {
                (Ok(()), None) => {
                    let mut rest = [0; 12];
                    ours.read_exact(&mut rest).await.unwrap();
                    assert_eq!(&rest, b"the server's", "nothing of it is taken");
                }
                (Err(error), Some(part)) => {
                    assert!(error.contains(part) && !error.contains("secret"), "{error}");
                }
                (opened, _) => panic!("{answer}: {opened:?}"),
            }
            let mut asked = vec![0; 1024];
            let length = theirs.read(&mut asked).await.unwrap();
            let asked = String::from_utf8_lossy(&asked[..length]).into_owned();
            assert!(asked.starts_with("CONNECT host.example:443 HTTP/1.1\r\nHost: host.example:443\r\n"), "{asked}");
            let credentials = BASE64_STANDARD.encode("ann:secret");
            assert!(asked.contains(&format!("Proxy-Authorization: Basic {credentials}\r\n")), "{asked}");
        }
    }

    #[tokio::test]
    async fn an_endless_answer_is_no_answer() {
        let proxy = Proxy::read("proxy").unwrap();
        let mut stream = tokio::io::join(tokio::io::repeat(b'x'), tokio::io::sink());
        let error = proxy.open(&mut stream, "host", 1).await.unwrap_err().to_string();
        assert!(error.contains("does not answer as an HTTP proxy does"), "{error}");
    }
}

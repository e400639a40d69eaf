//! Opens connections to servers: resolves the host, tries each address, goes through a proxy, has TLS settings ready.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

pub use self::proxy::{Proxy, ProxyError, environment};
pub use self::tls::{remedy, speaks_tls, tls_config};

mod proxy;
mod tls;

/// How long one address may take to accept.
pub const ADDRESS_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The host's name has no address.
    #[error("cannot resolve {host}: {source}")]
    #[expect(missing_docs, reason = "the names say it")]
    Resolve { host: String, source: io::Error },
    /// No address accepted.
    #[error("cannot connect: {0}")]
    Addresses(String),
    /// The proxy does not open the way.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// TLS cannot be spoken.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

/// Connects to a host. Where `tls` is going to be spoken with it, through the proxy that the environment names for it.
pub async fn dial(host: &str, port: u16, tls: bool) -> Result<TcpStream, DialError> {
    let proxy = if tls { Proxy::for_host(host, port, environment)? } else { None };
    let Some(proxy) = proxy else { return direct(host, port).await };
    let mut stream = direct(&proxy.host, proxy.port).await.map_err(|error| match error {
        DialError::Addresses(why) => DialError::Addresses(format!("the proxy {proxy} (HTTPS_PROXY): {why}")),
        other => other,
    })?;
    let opened = timeout(ADDRESS_TIMEOUT, proxy.open(&mut stream, host, port)).await;
    opened.map_err(|_| DialError::Addresses(format!("the proxy {proxy} (HTTPS_PROXY) does not answer")))??;
    Ok(stream)
}

/// Connects to the first address of `host` that accepts. Small messages are sent at once.
async fn direct(host: &str, port: u16) -> Result<TcpStream, DialError> {
    let mut failures = String::new();
    for address in resolve(host, port).await? {
        let error = match timeout(ADDRESS_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true).map_err(|error| DialError::Addresses(error.to_string()))?;
                return Ok(stream);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {}s", ADDRESS_TIMEOUT.as_secs()),
        };
        let separator = if failures.is_empty() { "" } else { "; " };
        let _ = write!(failures, "{separator}{address}: {error}");
    }
    Err(DialError::Addresses(failures))
}

/// The host's addresses, each once. `localhost` has both loopback addresses, whatever the resolver says.
pub async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
    if host == "localhost" {
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        return Ok(loopback.map(|ip| SocketAddr::new(ip, port)).into());
    }
    let failed = |source| DialError::Resolve { host: host.to_owned(), source };
    let mut addresses = Vec::new();
    for address in lookup_host((host, port)).await.map_err(failed)? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    match addresses.is_empty() {
        true => Err(failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address"))),
        false => Ok(addresses),
    }
}

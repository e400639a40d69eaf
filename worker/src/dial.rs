//! Opens connections to servers: resolves the host, tries each address, has TLS settings ready.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// How long one address may take to accept.
pub(crate) const ADDRESS_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The host's name has no address.
    #[error("cannot resolve {host}: {source}")]
    Resolve { host: String, source: io::Error },
    /// No address accepted.
    #[error("cannot connect: {0}")]
    Addresses(String),
    /// TLS cannot be spoken.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

/// Connects to the first address of `host` that accepts. Small messages are sent at once.
pub(crate) async fn dial(host: &str, port: u16) -> Result<TcpStream, DialError> {
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
pub(crate) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
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

/// The TLS settings with the system's trust roots, which are read once.
pub(crate) fn tls_config() -> Result<Arc<rustls::ClientConfig>, DialError> {
    static CONFIG: OnceLock<Arc<rustls::ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(config.clone());
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = rustls::RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let causes: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        return Err(DialError::Tls(format!("the system has no trusted root certificates {}", causes.join("; "))));
    }
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| DialError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(CONFIG.get_or_init(|| Arc::new(config)).clone())
}

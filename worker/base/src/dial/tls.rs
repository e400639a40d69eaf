//! TLS settings, and what its errors mean to an operator.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_native_certs::{load_certs_from_paths, load_native_certs};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{ADDRESS_TIMEOUT, DialError, dial};

/// The variable that names a file with further roots, for the worker as for Node.
const EXTRA: &str = "NODE_EXTRA_CA_CERTS";

/// The TLS settings with the system's trust roots and those that `NODE_EXTRA_CA_CERTS` names, which are read once.
pub fn tls_config() -> Result<Arc<ClientConfig>, DialError> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(config.clone());
    }
    let found = load_native_certs();
    let mut roots = RootCertStore::empty();
    let (mut added, _) = roots.add_parsable_certificates(found.certs);
    let mut causes: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
    if let Some(file) = std::env::var_os(EXTRA).filter(|file| !file.is_empty()).map(PathBuf::from) {
        match add_extra(&mut roots, &file) {
            Ok(extra) => added += extra,
            Err(why) => {
                tracing::warn!("{why}; it is not used");
                causes.push(why);
            }
        }
    }
    if added == 0 {
        return Err(DialError::Tls(format!("the system has no trusted root certificates {}", causes.join("; "))));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| DialError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(CONFIG.get_or_init(|| Arc::new(config)).clone())
}

/// Adds the certificates of a file, and says how many.
fn add_extra(roots: &mut RootCertStore, file: &Path) -> Result<usize, String> {
    let found = load_certs_from_paths(Some(file), None);
    let (added, _) = roots.add_parsable_certificates(found.certs);
    let why = || match found.errors.first() {
        Some(error) => error.to_string(),
        None => "there is no certificate in it".to_owned(),
    };
    if added == 0 { Err(format!("{EXTRA} names {}: {}", file.display(), why())) } else { Ok(added) }
}

/// What to do about an error of TLS, which this one or one that it comes from may be.
pub fn remedy(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return of(found);
        }
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return of(found);
        }
        cause = error.source();
    }
    None
}

fn of(error: &rustls::Error) -> Option<&'static str> {
    use CertificateError as Bad;
    match error {
        rustls::Error::InvalidCertificate(bad) => Some(match bad {
            // An authority of the same name with another key has signed it.
            Bad::UnknownIssuer | Bad::BadSignature => {
                "no authority that this machine trusts has signed the server's certificate. If it is one of your own, \
                 set NODE_EXTRA_CA_CERTS (or SSL_CERT_FILE) to a PEM file with its certificate"
            }
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                "the server's certificate is for other names: use one of them in --lightning, or get a certificate for \
                 this one"
            }
            Bad::Expired | Bad::ExpiredContext { .. } => {
                "the server's certificate has expired: renew it there, or set this machine's clock right"
            }
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                "the server's certificate is not valid yet: this machine's clock may be wrong"
            }
            // What `openssl req -x509` makes unless it is told otherwise.
            Bad::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
                "the server's certificate is one of an authority, and none for a server: give the server one with \
                 basicConstraints CA:FALSE"
            }
            Bad::Revoked => "the server's certificate was revoked: renew it there",
            _ => "the server's certificate cannot be used: replace it there",
        }),
        rustls::Error::InvalidMessage(_) => Some("the server does not speak TLS on this port: is it ws:// or http://?"),
        _ => None,
    }
}

/// Whether a server answers in TLS: with a certificate, whatever it is worth.
pub async fn speaks_tls(host: &str, port: u16) -> bool {
    let attempt = async {
        let name = ServerName::try_from(host.to_owned()).ok()?;
        let connector = TlsConnector::from(tls_config().ok()?);
        let stream = dial(host, port, true).await.ok()?;
        let error = match connector.connect(name, stream).await {
            Ok(_) => return Some(()),
            Err(error) => error,
        };
        let found = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        matches!(found, rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_)).then_some(())
    };
    timeout(ADDRESS_TIMEOUT, attempt).await.ok().flatten().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_certificate_has_a_remedy() {
        let bad = rustls::Error::InvalidCertificate;
        let cases = [
            (bad(CertificateError::UnknownIssuer), Some("NODE_EXTRA_CA_CERTS")),
            (bad(CertificateError::NotValidForName), Some("other names")),
            (bad(CertificateError::Expired), Some("expired")),
            (bad(CertificateError::NotValidYet), Some("clock")),
            (bad(CertificateError::BadSignature), Some("NODE_EXTRA_CA_CERTS")),
            (bad(CertificateError::BadEncoding), Some("replace")),
            (rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType), Some("does not speak TLS")),
            (rustls::Error::DecryptError, None),
        ];
        for (error, part) in cases {
            let told = error.to_string();
            // As it comes from a stream.
            let error = std::io::Error::new(std::io::ErrorKind::InvalidData, error);
            let found = remedy(&error);
            assert_eq!(found.is_some(), part.is_some(), "{told}: {found:?}");
            assert!(found.unwrap_or_default().contains(part.unwrap_or_default()), "{told}: {found:?}");
        }
        assert_eq!(remedy(&std::io::Error::other("something else")), None);
    }

    #[test]
    fn a_file_of_further_roots_that_cannot_be_used_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "nothing").unwrap();
        for file in [empty.as_path(), Path::new("/nowhere/roots.pem")] {
            let why = add_extra(&mut RootCertStore::empty(), file).unwrap_err();
            assert!(why.contains(EXTRA) && why.contains(file.to_str().unwrap()), "{why}");
        }
    }
}

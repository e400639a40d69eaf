//! What may lie between a worker and its server: distance, and TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::generate_simple_self_signed;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, version};

/// The name of a server that no resolver knows: a proxy does.
pub const ELSEWHERE: &str = "lightning.test";

/// Pieces on their way at once in each direction.
const IN_TRANSIT: usize = 4096;

/// Relays connections to `server`, each way with this latency, for as long as the runtime lives.
pub async fn distant(server: SocketAddr, latency: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port can be had");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            tokio::spawn(relay(near, server, latency));
        }
    });
    address
}

/// Relays TLS connections for `localhost`, or [`ELSEWHERE`], to `server`, and gives the certificate to trust, in PEM.
pub async fn encrypted(server: SocketAddr) -> (SocketAddr, String) {
    let own =
        generate_simple_self_signed(["localhost".to_owned(), ELSEWHERE.to_owned()]).expect("a certificate can be made");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .expect("the provider knows TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .expect("the key is the certificate's");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port can be had");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust the certificate goes away.
                if let Ok(near) = acceptor.accept(near).await {
                    relay(near, server, Duration::ZERO).await;
                }
            });
        }
    });
    (address, own.cert.pem())
}

/// An HTTP proxy that connects whoever proves to be `user:password` to `server`, whatever they ask for. Also gives the
/// heads of the requests that it gets.
pub async fn proxy(server: SocketAddr, credentials: &str) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port can be had");
    let address = listener.local_addr().expect("it is bound");
    let wanted = format!("Proxy-Authorization: Basic {}\r\n", BASE64_STANDARD.encode(credentials));
    let (requests, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (requests, wanted) = (requests.clone(), wanted.clone());
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = near.read_u8().await else { return };
                    head.push(byte);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let answer = match head.contains(&wanted) {
                    true => "HTTP/1.1 200 Connection established\r\n\r\n",
                    false => "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
                };
                let is_open = head.contains(&wanted);
                // A test that is over does not listen any more.
                let _ = requests.send(head);
                if near.write_all(answer.as_bytes()).await.is_ok() && is_open {
                    relay(near, server, Duration::ZERO).await;
                }
            });
        }
    });
    (address, asked)
}

async fn relay(near: impl AsyncRead + AsyncWrite + Unpin, server: SocketAddr, latency: Duration) {
    let Ok(far) = TcpStream::connect(server).await else { return };
    // Without it the pieces only wait longer.
    let _ = far.set_nodelay(true);
    let ((from_near, to_near), (from_far, to_far)) = (tokio::io::split(near), tokio::io::split(far));
    // Either end's end is the end of both.
    tokio::select! {
        () = carry(from_near, to_far, latency) => {}
        () = carry(from_far, to_near, latency) => {}
    }
}

async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, latency: Duration) {
    let (sender, mut in_transit) = mpsc::channel::<(Instant, Vec<u8>)>(IN_TRANSIT);
    let read = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            if sender.send((Instant::now() + latency, buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((at, bytes)) = in_transit.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}

//! Whoever is at the other end: a handshake ends the same however its bytes come, and takes none that belong to the link.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use protocol::handshake::{HandshakeError, LinkToken, greet, introduce};
use protocol::message::{Hello, PROTOCOL_VERSION, Refusal, RefusalCode, Welcome};
use tokio::io::{AsyncWriteExt, duplex};

const DEADLINE: Duration = Duration::from_secs(60);

fuzz_target!(|input: (u8, bool, &[u8])| {
    let (piece, is_worker, bytes) = input;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (whole, left) = runtime.block_on(meet(is_worker, bytes, bytes.len().max(1)));
    let (in_pieces, _) = runtime.block_on(meet(is_worker, bytes, usize::from(piece).max(1)));
    assert_eq!(whole, in_pieces);
    if whole.is_ok() {
        let length = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
        assert_eq!(left, bytes[4 + length..], "what follows is the link's");
    }
});

/// How the handshake ends with somebody who says this, and what is left of it.
async fn meet(is_worker: bool, bytes: &[u8], piece: usize) -> (Result<(), String>, Vec<u8>) {
    let (mut here, mut there) = duplex(64 * 1024);
    let said = async {
        let (mut reader, mut writer) = tokio::io::split(&mut there);
        for piece in bytes.chunks(piece) {
            writer.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        writer.shutdown().await.unwrap();
        // What is answered is of no interest, and fits.
        let _ = &mut reader;
    };
    let outcome = async {
        let outcome = if is_worker { greeted(&mut here).await } else { introduced(&mut here).await };
        let mut left = Vec::new();
        if outcome.is_ok() {
            tokio::io::copy(&mut here, &mut left).await.unwrap();
        } else {
            // Whoever still writes is not kept waiting.
            tokio::io::copy(&mut here, &mut tokio::io::sink()).await.unwrap();
        }
        (outcome.map_err(|error| error.to_string()), left)
    };
    tokio::join!(said, outcome).1
}

async fn greeted(stream: &mut tokio::io::DuplexStream) -> Result<(), HandshakeError> {
    let judge = |hello: &Hello| match hello.pid % 2 {
        0 => Ok(Welcome { host_id: "h1".into() }),
        _ => Err(Refusal::new(RefusalCode::BadToken, "no")),
    };
    greet(stream, DEADLINE, judge).await.map(|hello| assert_eq!(hello.protocol, PROTOCOL_VERSION))
}

async fn introduced(stream: &mut tokio::io::DuplexStream) -> Result<(), HandshakeError> {
    let hello = Hello { protocol: PROTOCOL_VERSION, version: "1".into(), token: LinkToken::new("t"), pid: 1 };
    introduce(stream, &hello, DEADLINE).await.map(drop)
}

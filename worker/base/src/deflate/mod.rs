//! permessage-deflate (RFC 7692): compression of websocket messages, below and beside `tungstenite`, which has none.
//!
//! Messages to send are compressed into the payload of frames, whose first has its bit RSV1 set ([`Deflater`]). What is
//! received goes through a stream below the websocket, which turns compressed frames into plain ones
//! ([`InflatingStream`]): the websocket never sees a compressed one. Both ends forget each message before the next one:
//! a message that holds a secret then shares no dictionary with one that somebody else wrote, and neither end keeps a
//! window for an idle connection.

mod compress;
mod inflate;
mod stream;
#[cfg(test)]
mod tests;

use axum::http::HeaderMap;
use axum::http::header::SEC_WEBSOCKET_EXTENSIONS;

pub use compress::Deflater;
pub(crate) use compress::first_frame;
pub use inflate::{InflateError, Inflater};
pub use stream::InflatingStream;

/// What a client offers, and a server accepts.
pub const EXTENSION: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// What a client and a server have agreed on, as far as reading the server's messages depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// The server's messages may refer to those before.
    pub keeps_context: bool,
}

/// A server's answer that fits no offer of ours. It must not be talked to: nobody knows what its frames mean.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server wants the websocket extension `{0}`, which was not offered")]
pub struct NotOffered(String);

/// Reads the server's answer to [`EXTENSION`], or to no offer at all.
pub fn agreement(headers: &HeaderMap, offered: bool) -> Result<Option<Agreement>, NotOffered> {
    let mut agreement = None;
    for extension in extensions(headers) {
        let not_offered = || NotOffered(extension.clone());
        let mut parts = extension.split(';').map(str::trim);
        if !offered || agreement.is_some() || parts.next() != Some("permessage-deflate") {
            return Err(not_offered());
        }
        let mut keeps_context = true;
        for parameter in parts {
            match parameter.split_once('=').map_or((parameter, ""), |(name, value)| (name.trim(), value.trim())) {
                ("server_no_context_takeover", "") => keeps_context = false,
                ("client_no_context_takeover", "") => {}
                // Whatever window it uses: ours is the largest.
                ("server_max_window_bits", bits) if is_window(bits) => {}
                _ => return Err(not_offered()),
            }
        }
        agreement = Some(Agreement { keeps_context });
    }
    Ok(agreement)
}

/// Whether a client offers what a server can accept with [`EXTENSION`].
pub fn is_offered(headers: &HeaderMap) -> bool {
    extensions(headers).any(|offer| {
        let mut parts = offer.split(';').map(str::trim);
        parts.next() == Some("permessage-deflate")
            && parts.all(|parameter| {
                let name = parameter.split_once('=').map_or(parameter, |(name, _)| name.trim());
                matches!(name, "server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits")
            })
    })
}

fn is_window(bits: &str) -> bool {
    bits.trim_matches('"').parse::<u8>().is_ok_and(|bits| (8..=15).contains(&bits))
}

fn extensions(headers: &HeaderMap) -> impl Iterator<Item = String> {
    let values = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).into_iter();
    values.flat_map(|value| {
        let text = String::from_utf8_lossy(value.as_bytes());
        let list: Vec<_> = text.split(',').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect();
        list
    })
}

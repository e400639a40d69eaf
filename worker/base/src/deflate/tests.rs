//! Compressed messages end to end, against the examples of the RFC, and from peers that mean harm.

use axum::http::HeaderValue;
use futures_util::StreamExt;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::Data;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::*;

const LIMIT: usize = 1_000_000;

/// What a websocket above the stream reads of `bytes`, until they end or are wrong; the other end writes so many at once.
fn read(bytes: &[u8], at_once: usize, role: Role, inflater: Option<Inflater>) -> Vec<Result<Message, Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (ours, theirs) = tokio::io::duplex(at_once);
        let (mut pongs, mut theirs) = tokio::io::split(theirs);
        let sent = async {
            // A reader that had enough hangs up.
            let _ = theirs.write_all(bytes).await;
            let _ = theirs.shutdown().await;
        };
        let answered = async { tokio::io::copy(&mut pongs, &mut tokio::io::sink()).await };
        let received = async {
            let stream = InflatingStream::new(ours, inflater);
            let mut socket = WebSocketStream::from_raw_socket(stream, role, None).await;
            let mut messages = Vec::new();
            while let Some(message) = socket.next().await {
                let is_over = message.is_err();
                messages.push(message);
                if is_over {
                    break;
                }
            }
            messages
        };
        tokio::join!(sent, received, answered).1
    })
}

/// What a client reads that agreed on compression.
fn inflated(bytes: &[u8]) -> Vec<Result<Message, Error>> {
    read(bytes, 4096, Role::Client, Some(Inflater::new(false, LIMIT)))
}

fn first(bytes: &[u8]) -> Result<Message, Error> {
    inflated(bytes).swap_remove(0)
}

/// A frame, masked with `mask` as a client's.
fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut out = vec![first];
    let bit = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        length @ ..126 => out.push(bit | length as u8),
        length @ ..0x10000 => {
            out.push(bit | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(bit | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask.unwrap_or_default()[..if mask.is_some() { 4 } else { 0 }]);
    let mask = mask.unwrap_or_default();
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

fn compressed(text: &[u8]) -> Vec<u8> {
    Deflater::default().frame(text, Data::Text).into_payload().to_vec()
}

#[test]
fn examples_of_the_rfc() {
    let cases: [(&str, &[u8]); 6] = [
        ("one frame", &[0xc1, 7, 0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]),
        ("two frames", &[0x41, 3, 0xf2, 0x48, 0xcd, 0x80, 4, 0xc9, 0xc9, 0x07, 0x00]),
        ("a stored block", &[0xc1, 11, 0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00]),
        ("a final block", &[0xc1, 8, 0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]),
        ("two blocks", &[0xc1, 13, 0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00]),
        ("not compressed", &[0x81, 5, b'H', b'e', b'l', b'l', b'o']),
    ];
    for (name, bytes) in cases {
        assert_eq!(first(bytes).unwrap(), Message::text("Hello"), "{name}");
    }
    assert_eq!(compressed(b"Hello"), [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
    let refers_back = [0xc1, 7, 0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0xc1, 5, 0xf2, 0x00, 0x11, 0x00, 0x00];
    let kept = read(&refers_back, 4096, Role::Client, Some(Inflater::new(true, LIMIT)));
    assert_eq!(kept[1].as_ref().unwrap(), &Message::text("Hello"));
    let forgotten = inflated(&refers_back);
    assert!(matches!(&forgotten[1], Err(Error::Io(error)) if error.to_string().contains("damaged")), "{forgotten:?}");
}

#[test]
fn messages_of_peers_that_mean_harm() {
    let hello = compressed(b"Hello");
    let bomb = compressed(&vec![b' '; LIMIT + 1]);
    assert!(bomb.len() < 2000, "{}", bomb.len());
    let reserved = |error: &Error| matches!(error, Error::Protocol(ProtocolError::NonZeroReservedBits));
    let io = |text: &'static str| move |error: &Error| matches!(error, Error::Io(it) if it.to_string().contains(text));
    let any = |_: &Error| true;
    type Expected<'a> = &'a dyn Fn(&Error) -> bool;
    let cases: [(&str, Vec<u8>, Expected<'_>); 9] = [
        ("a bomb", frame(0xc1, &bomb, None), &io("inflates to more than 1000000 bytes")),
        ("garbage", frame(0xc1, &[0xff; 100], None), &io("damaged")),
        ("a ping with RSV1", frame(0xc9, b"", None), &reserved),
        ("a close with RSV1", frame(0xc8, b"", None), &reserved),
        ("a continuation with RSV1", [frame(0x41, &hello, None), frame(0xc0, &hello, None)].concat(), &reserved),
        ("RSV2", frame(0xa1, &hello, None), &reserved),
        ("RSV1 and RSV3", frame(0xd1, &hello, None), &reserved),
        ("a message within another", [frame(0x41, &hello, None), frame(0x81, b"a", None)].concat(), &any),
        ("the middle of a message", frame(0x80, &hello, None), &any),
    ];
    for (name, bytes, expected) in cases {
        let error = first(&bytes).expect_err(name);
        assert!(expected(&error), "{name}: {error:?}");
    }
    let truncated = inflated(&frame(0xc1, &hello, None)[..6]);
    assert!(!truncated.iter().any(Result::is_ok), "{truncated:?}");
    let not_agreed = read(&frame(0xc1, &hello, None), 4096, Role::Client, None);
    assert!(reserved(not_agreed[0].as_ref().unwrap_err()), "{not_agreed:?}");
}

#[test]
fn a_message_may_have_the_limit_and_is_not_charged_for_those_before() {
    let message = frame(0xc1, &compressed(&vec![b' '; LIMIT]), None);
    let messages = inflated(&message.repeat(3));
    assert_eq!(messages.iter().filter(|it| matches!(it, Ok(Message::Text(text)) if text.len() == LIMIT)).count(), 3);
}

#[test]
fn messages_may_be_bounded_as_they_come() {
    let payload = compressed(&[b' '; 5000]);
    assert!(payload.len() < 100, "{}", payload.len());
    let inflater = || Some(Inflater::new(false, usize::MAX).bounded_on_the_wire(100));
    let read = |bytes: &[u8]| read(bytes, 4096, Role::Client, inflater());
    let messages = read(&frame(0xc1, &payload, None).repeat(3));
    assert_eq!(messages.iter().filter(|it| it.is_ok()).count(), 3, "each for itself");
    let plain = [frame(0x01, &[b'a'; 60], None), frame(0x80, &[b'a'; 60], None)].concat();
    let error = read(&plain).swap_remove(0).unwrap_err().to_string();
    assert!(error.contains("more than 100 bytes on the wire"), "{error}");
}

#[test]
fn answers_to_the_offer() {
    let keeps = |keeps_context| Some(Some(Agreement { keeps_context }));
    let cases = [
        (&[][..], true, Some(None)),
        (&[EXTENSION], true, keeps(false)),
        (&["permessage-deflate"], true, keeps(true)),
        (&["permessage-deflate;server_max_window_bits=12"], true, keeps(true)),
        (&["permessage-deflate; server_no_context_takeover; server_max_window_bits=\"9\""], true, keeps(false)),
        (&["permessage-deflate; server_max_window_bits=16"], true, None),
        (&["permessage-deflate; client_max_window_bits=10"], true, None),
        (&["permessage-deflate; x"], true, None),
        (&["permessage-deflate", "permessage-deflate"], true, None),
        (&["x-webkit-deflate-frame"], true, None),
        (&["permessage-deflate"], false, None),
    ];
    for (values, offered, expected) in cases {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(value));
        }
        assert_eq!(agreement(&headers, offered).ok(), expected, "{values:?}");
    }
    let offers = [
        (EXTENSION, true),
        ("permessage-deflate; client_max_window_bits", true),
        ("x, permessage-deflate", true),
        ("permessage-deflate; server_max_window_bits=10", false),
        ("permessage-deflate; server_max_window_bits=10, permessage-deflate", true),
        ("permessage-bzip2", false),
    ];
    for (offer, expected) in offers {
        let headers = [(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(offer))].into_iter().collect();
        assert_eq!(is_offered(&headers), expected, "{offer}");
    }
}

#[test]
fn what_follows_the_head_in_one_packet_is_kept_for_later() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let head = b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n";
        let hello = frame(0xc1, &compressed(b"Hello"), None);
        let bytes = [&head[..], &hello].concat();
        for room in [1, 7, 4096] {
            let mut stream = InflatingStream::after_head(&bytes[..]);
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") {
                let mut piece = vec![0; room];
                let count = stream.read(&mut piece).await.unwrap();
                seen.extend_from_slice(&piece[..count]);
            }
            assert_eq!(seen, head);
            stream.begin(Some(Inflater::new(false, LIMIT)));
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, [&[0x01, 0, 0x00, 5], &b"Hello"[..], &[0x80, 0]].concat());
        }
    });
}

/// A message: its text, whether it is compressed, where it is cut into fragments, and pings in between.
fn messages() -> impl Strategy<Value = Vec<(String, bool, Vec<u16>)>> {
    let text = prop_oneof![
        "\\PC{0,40}".boxed(),
        ("\\PC{1,20}", 1usize..5000).prop_map(|(text, times)| text.repeat(times)).boxed(),
        proptest::collection::vec(any::<char>(), 0..3000).prop_map(|it| it.into_iter().collect()).boxed(),
    ];
    proptest::collection::vec((text, any::<bool>(), proptest::collection::vec(any::<u16>(), 0..6)), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn messages_arrive_however_they_are_cut(
        messages in messages(),
        mask in proptest::option::of(any::<[u8; 4]>()),
        keeps_context in any::<bool>(),
        at_once in 1usize..9000,
    ) {
        let mut deflater = Deflater::default();
        deflater.begin();
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for (text, compress, cuts) in &messages {
            // A message of nothing but what was flushed before has no form that refers back.
            let compress = &(*compress && !(keeps_context && text.is_empty()));
            let payload = match compress {
                true => {
                    let mut payload = Vec::new();
                    if !keeps_context {
                        deflater.begin();
                    }
                    deflater.add(text.as_bytes(), true, &mut payload);
                    payload
                }
                false => text.clone().into_bytes(),
            };
            let mut cuts: Vec<_> = cuts.iter().map(|at| usize::from(*at) % (payload.len() + 1)).collect();
            cuts.sort_unstable();
            let starts = [0].into_iter().chain(cuts.iter().copied());
            let ends = cuts.iter().copied().chain([payload.len()]);
            for (number, (start, end)) in starts.zip(ends).enumerate() {
                let kind = if number > 0 { 0 } else if *compress { 0x41 } else { 0x01 };
                let last = if number == cuts.len() { 0x80 } else { 0 };
                bytes.extend(frame(kind | last, &payload[start..end], mask));
                bytes.extend(frame(0x89, b"beat", mask));
                if last == 0 {
                    expected.push(Message::Ping("beat".into()));
                }
            }
            expected.push(Message::text(text.clone()));
            expected.push(Message::Ping("beat".into()));
        }
        let role = if mask.is_some() { Role::Server } else { Role::Client };
        let read = read(&bytes, at_once, role, Some(Inflater::new(keeps_context, usize::MAX)));
        let wrong = read.iter().find_map(|it| it.as_ref().err()).map(ToString::to_string);
        let read: Vec<_> = read.into_iter().filter_map(Result::ok).collect();
        let differs = read.iter().zip(&expected).position(|(read, expected)| read != expected);
        prop_assert_eq!((differs, read.len()), (None, expected.len()), "{:?}", wrong);
    }

    #[test]
    fn pieces_make_the_same_message(text in "\\PC{0,300}", times in 1usize..2000, at_once in 1usize..100_000) {
        let text = text.repeat(times);
        let mut deflater = Deflater::default();
        deflater.begin();
        let mut payload = Vec::new();
        for piece in text.as_bytes().chunks(at_once) {
            deflater.add(piece, false, &mut payload);
        }
        deflater.add(b"", true, &mut payload);
        let read = read(&frame(0xc1, &payload, None), 70_000, Role::Client, Some(Inflater::new(false, usize::MAX)));
        prop_assert_eq!(read[0].as_ref().unwrap(), &Message::text(text));
    }

    #[test]
    fn nothing_makes_it_panic_or_grow(bytes in proptest::collection::vec(any::<u8>(), 0..2000), start in 0u8..4) {
        let bytes = [&[[0xc1, 0x41, 0xc2, 0x81][usize::from(start)]][..], &bytes].concat();
        let mut inflater = Inflater::new(start % 2 == 0, 100_000);
        let mut input = &bytes[..];
        loop {
            let mut out = Vec::new();
            let advanced = inflater.advance(&mut input, &mut out);
            prop_assert!(out.len() <= 33 * 1024);
            if advanced.is_err() || out.is_empty() {
                break;
            }
        }
    }
}

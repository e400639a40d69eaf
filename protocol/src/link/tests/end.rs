//! How a link ends, and who learns of it.

use super::*;

#[tokio::test]
async fn a_call_learns_at_once_that_the_other_side_died() {
    let ((worker, mut inbox), stream) = bare();
    let (error, ()) = soon(async {
        tokio::join!(worker.call_within(Ping {}, Duration::MAX), async {
            tokio::task::yield_now().await;
            drop(stream);
        })
    })
    .await;
    assert!(matches!(error, Err(CallError::Ended(LinkEnd::PeerClosed))), "{error:?}");
    assert!(matches!(worker.call(Ping {}).await, Err(CallError::Ended(LinkEnd::PeerClosed))));
    assert!(soon(inbox.next()).await.is_none());
}

#[tokio::test]
async fn what_cannot_be_read_ends_the_link_with_the_cause() {
    let limit = LinkOptions::default().max_frame;
    let cases: [(&str, Vec<u8>, String); 5] = [
        ("zero length", vec![0; 4], "a frame of length zero".into()),
        ("oversize", vec![0xff; 4], format!("a frame of 4294967295 bytes, where at most {limit} are allowed")),
        ("no message", vec![0, 0, 0, 1, 0xc0], "a frame that does not hold a message".into()),
        ("half a frame", vec![0, 0, 0, 9, 1, 2], "at least 7 bytes before its end".into()),
        ("half a header", vec![0, 0], "at least 2 bytes before its end".into()),
    ];
    for (name, bytes, expected) in cases {
        let ((worker, mut inbox), mut stream) = bare();
        stream.write_all(&bytes).await.unwrap();
        drop(stream);
        let error = soon(worker.ended()).await;
        assert!(matches!(error, LinkEnd::Frame(_)) && error.to_string().contains(&expected), "{name}: {error}");
        assert!(soon(inbox.next()).await.is_none(), "{name}");
        assert!(worker.call(Ping {}).await.unwrap_err().to_string().contains(&expected), "{name}");
    }
}

#[tokio::test]
async fn closing_writes_what_is_queued_first() {
    let ((worker, mut inbox), (host, _from_worker)) = pair_over(64, &LinkOptions::default());
    for number in 0..100 {
        host.notify(log(number)).await.unwrap();
    }
    let receiving = async {
        let mut received = 0;
        while inbox.next().await.is_some() {
            received += 1;
        }
        received
    };
    let (received, ()) = soon(async { tokio::join!(receiving, host.close()) }).await;
    assert_eq!(received, 100);
    assert!(matches!(host.ended().await, LinkEnd::ClosedHere));
    assert!(matches!(soon(worker.ended()).await, LinkEnd::PeerClosed));
    assert!(matches!(host.notify(log(1)).await, Err(LinkEnd::ClosedHere)));
    assert!(matches!(host.call(step(0)).await, Err(CallError::Ended(LinkEnd::ClosedHere))));
}

#[tokio::test]
async fn the_link_closes_when_its_last_handle_is_gone() {
    let ((worker, mut inbox), (host, from_worker)) = pair();
    host.notify(log(1)).await.unwrap();
    drop(host.clone());
    assert!(matches!(soon(inbox.next()).await, Some(Incoming::Notice(_))));
    drop(host);
    assert!(soon(inbox.next()).await.is_none());
    assert!(matches!(soon(worker.ended()).await, LinkEnd::PeerClosed));
    drop(from_worker);
}

#[tokio::test]
async fn notices_wait_for_room_and_are_let_go_at_the_end() {
    let options = LinkOptions { outgoing_bytes: 1024, ..LinkOptions::default() };
    let (left, right) = duplex(64);
    let (host, _inbox) = Link::<HostSide>::start(left, options);
    let flood = async {
        let mut sent = 0;
        loop {
            if let Err(end) = host.notify(log(0)).await {
                return (sent, end);
            }
            sent += 1;
        }
    };
    let stop = async {
        // Nobody reads, so the flood comes to a standstill: this is polled only when it waits.
        while host.shared.outgoing.available() >= 256 {
            tokio::task::yield_now().await;
        }
        drop(right);
    };
    let ((sent, end), ()) = soon(async { tokio::join!(flood, stop) }).await;
    assert!(sent < 100, "{sent}");
    assert!(matches!(end, LinkEnd::PeerClosed), "{end}");
}

/// The worker's link over a real socket, and the bare socket on the other side.
fn bare_socket() -> (Worker, tokio::net::UnixStream) {
    let (left, right) = tokio::net::UnixStream::pair().unwrap();
    (Link::start(left, LinkOptions::default()), right)
}

#[tokio::test]
async fn the_last_words_of_a_peer_that_died_are_heard() {
    let ((worker, _inbox), mut stream) = bare_socket();
    let pong = Envelope::<HostSide>::Reply(0, HostReply::Pong(Pong { rss_bytes: 5 }));
    let die = async {
        // The request stays unread, which makes the system reset the connection.
        stream.readable().await.unwrap();
        stream.write_all(&frame::encode(&pong, 1024).unwrap()).await.unwrap();
        drop(stream);
    };
    let (answer, ()) = soon(async { tokio::join!(worker.call(Ping {}), die) }).await;
    assert_eq!(answer.unwrap(), Pong { rss_bytes: 5 });
    let error = soon(worker.ended()).await;
    assert!(matches!(error, LinkEnd::PeerClosed), "{error}");
}

#[tokio::test]
async fn a_failure_to_write_ends_the_link_though_the_other_side_says_nothing() {
    let ((worker, _inbox), stream) = bare_socket();
    let stream = stream.into_std().unwrap();
    stream.shutdown(std::net::Shutdown::Read).unwrap();
    let error = soon(worker.call_within(Ping {}, Duration::MAX)).await.unwrap_err();
    let CallError::Ended(LinkEnd::Io(error)) = error else { panic!("{error}") };
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_call_under_way_is_told_when_this_side_closes() {
    let ((worker, _inbox), _peer) = pair();
    let (answer, ()) = soon(async { tokio::join!(worker.call_within(Ping {}, Duration::MAX), worker.close()) }).await;
    assert!(matches!(answer, Err(CallError::Ended(LinkEnd::ClosedHere))), "{answer:?}");
}

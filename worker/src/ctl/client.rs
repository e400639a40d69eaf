//! The other end of the admin socket.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::message::{Answer, Request};

/// A worker gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// Nobody is there.
    #[error("cannot reach a worker at {}: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The worker closed the connection without reading the request.
    #[error(
        "the worker at {} turned this connection away: it serves root and the worker's own user, but none of the \
         processes that it started, and not many at once. Its log says why.",
        path.display()
    )]
    TurnedAway {
        /// The socket.
        path: PathBuf,
    },
    /// The worker has gone.
    #[error("the worker has gone: {0}")]
    Io(#[from] io::Error),
    /// It did not answer.
    #[error("the worker ended before it had answered")]
    NoAnswer,
    /// What it answered is not understood.
    #[error("the worker's answer is not understood; is it of another version? {0}")]
    Answer(#[from] serde_json::Error),
}

/// Asks the worker that listens at `socket`, and gives each answer to `take` as it comes.
pub async fn ask(
    socket: &Path,
    request: &Request,
    mut take: impl FnMut(Answer) -> io::Result<()>,
) -> Result<(), CtlError> {
    let connected = UnixStream::connect(socket).await;
    let stream = connected.map_err(|source| CtlError::Connect { path: socket.to_owned(), source })?;
    let (reading, mut writing) = stream.into_split();
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    // What a closed socket says depends on whether it was closed before or after the request got there.
    let turned_away = |error: io::Error| match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => CtlError::TurnedAway { path: socket.to_owned() },
        _ => CtlError::Io(error),
    };
    writing.write_all(&line).await.map_err(turned_away)?;
    let mut lines = BufReader::new(reading).lines();
    let mut answers = 0;
    while let Some(line) = lines.next_line().await.map_err(|error| match answers {
        0 => turned_away(error),
        _ => CtlError::Io(error),
    })? {
        take(serde_json::from_str(&line)?)?;
        answers += 1;
    }
    // There may be no line to send, but there is always an answer to the rest.
    if answers == 0 && !matches!(request, Request::Logs { .. }) {
        return Err(CtlError::NoAnswer);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn who_is_turned_away_hears_so_whenever_the_socket_was_closed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin");
        let listener = UnixListener::bind(&path).expect("a socket");
        let close = async {
            for is_request_there in [false, true] {
                let (stream, _) = listener.accept().await.expect("a client");
                if is_request_there {
                    stream.readable().await.expect("it sends something");
                }
            }
        };
        let asking = async {
            for _ in 0..2 {
                let asked = ask(&path, &Request::Status, |_| Ok(())).await;
                let error = asked.expect_err("nobody answers");
                assert!(matches!(error, CtlError::TurnedAway { .. }), "{error}");
            }
        };
        tokio::join!(close, asking);
    }
}

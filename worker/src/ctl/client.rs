//! The other end of the admin socket.

use std::io;
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
    writing.write_all(&line).await?;
    let mut lines = BufReader::new(reading).lines();
    let mut answers = 0;
    while let Some(line) = lines.next_line().await? {
        take(serde_json::from_str(&line)?)?;
        answers += 1;
    }
    // There may be no line to send, but there is always an answer to the rest.
    if answers == 0 && !matches!(request, Request::Logs { .. }) {
        return Err(CtlError::NoAnswer);
    }
    Ok(())
}

//! The stream below a websocket, which turns compressed frames into plain ones as they are read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::inflate::Inflater;

/// How much is read at once.
const INPUT_BYTES: usize = 32 * 1024;

/// What ends the head of an HTTP message.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// A stream whose reader sees plain frames. What is written goes through as it is.
pub struct InflatingStream<S> {
    inner: S,
    mode: Mode,
    input: Buffer,
    output: Buffer,
}

enum Mode {
    /// Reads the head of an HTTP message, of whose end so many bytes were seen, and no byte further: what its reader
    /// took beyond it would not be turned.
    Head { seen: usize },
    /// Everything is plain.
    Plain,
    /// Frames may be compressed.
    Frames(Box<Inflater>),
}

/// Bytes that are taken from the front.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    taken: usize,
}

impl Buffer {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    fn take(&mut self, count: usize) {
        self.taken += count;
        if self.rest().is_empty() {
            self.bytes.clear();
            self.taken = 0;
        }
    }

    /// Moves as much as fits.
    fn drain_into(&mut self, to: &mut ReadBuf<'_>, most: usize) {
        let count = self.rest().len().min(to.remaining()).min(most);
        to.put_slice(&self.rest()[..count]);
        self.take(count);
    }
}

impl<S> InflatingStream<S> {
    /// A stream on which first an HTTP message comes, and then, after [`Self::begin`], frames.
    pub fn after_head(inner: S) -> Self {
        Self { mode: Mode::Head { seen: 0 }, ..Self::plain(inner) }
    }

    /// A stream on which frames come, compressed ones if there is an inflater for them.
    pub fn new(inner: S, inflater: Option<Inflater>) -> Self {
        let mut stream = Self::plain(inner);
        stream.begin(inflater);
        stream
    }

    fn plain(inner: S) -> Self {
        Self { inner, mode: Mode::Plain, input: Buffer::default(), output: Buffer::default() }
    }

    /// Expects frames from now on.
    pub fn begin(&mut self, inflater: Option<Inflater>) {
        self.mode = inflater.map_or(Mode::Plain, |inflater| Mode::Frames(Box::new(inflater)));
    }
}

impl<S: AsyncRead + Unpin> InflatingStream<S> {
    /// Reads more input; whether there was any.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.input.bytes.resize(INPUT_BYTES, 0);
        let mut buffer = ReadBuf::new(&mut self.input.bytes);
        let read = Pin::new(&mut self.inner).poll_read(context, &mut buffer);
        let filled = buffer.filled().len();
        self.input.bytes.truncate(filled);
        ready!(read)?;
        Poll::Ready(Ok(filled > 0))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for InflatingStream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.output.rest().is_empty() {
                this.output.drain_into(to, usize::MAX);
                return Poll::Ready(Ok(()));
            }
            let is_empty = this.input.rest().is_empty();
            match &mut this.mode {
                Mode::Plain if is_empty => return Pin::new(&mut this.inner).poll_read(context, to),
                Mode::Plain => {
                    this.input.drain_into(to, usize::MAX);
                    return Poll::Ready(Ok(()));
                }
                Mode::Head { seen } if !is_empty && *seen < HEAD_END.len() => {
                    let room = this.input.rest().len().min(to.remaining());
                    let head = of_head(&this.input.rest()[..room], seen);
                    this.input.drain_into(to, head);
                    return Poll::Ready(Ok(()));
                }
                Mode::Head { .. } if !is_empty => {
                    return Poll::Ready(Err(io::Error::other("the websocket read beyond its handshake")));
                }
                Mode::Frames(inflater) => {
                    let mut rest = this.input.rest();
                    let before = rest.len();
                    inflater.advance(&mut rest, &mut this.output.bytes).map_err(invalid)?;
                    let taken = before - rest.len();
                    this.input.take(taken);
                    if !this.output.rest().is_empty() {
                        continue;
                    }
                }
                Mode::Head { .. } => {}
            }
            if !ready!(this.poll_fill(context))? {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// How many bytes of `input` belong to the head, whose end was seen so far.
fn of_head(input: &[u8], seen: &mut usize) -> usize {
    for (at, byte) in input.iter().enumerate() {
        *seen = match *byte == HEAD_END[*seen] {
            true => *seen + 1,
            false => usize::from(*byte == HEAD_END[0]),
        };
        if *seen == HEAD_END.len() {
            return at + 1;
        }
    }
    input.len()
}

fn invalid(error: super::inflate::InflateError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<S: AsyncWrite + Unpin> AsyncWrite for InflatingStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

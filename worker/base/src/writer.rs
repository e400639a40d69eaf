//! Writes texts to a websocket, apart from whoever reads from it: a peer that does not take a long text is then still
//! heard, and its silence noticed.

use bytes::Bytes;
use futures_util::{Sink, SinkExt};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::deflate::{Deflater, first_frame};

/// Text beyond this is sent in fragments, between which pings pass: a link that is busy is not taken for dead.
pub const FRAGMENT_BYTES: usize = 1024 * 1024;

/// Text is compressed in pieces of this size, between which everything else goes on.
const COMPRESSED_AT_ONCE: usize = 256 * 1024;

/// Text below this goes as it is: it fits into one packet, and would cost both ends more than it saves.
const COMPRESSED_FROM: usize = 1024;

/// A text to be sent, which may come into being as it is read.
pub trait LongText {
    /// What reads it.
    type Reader<'a>: Pieces + Send
    where
        Self: 'a;

    /// The text from its beginning.
    fn reader(&self) -> Self::Reader<'_>;
}

/// A text that is taken in pieces.
pub trait Pieces {
    /// Appends what comes next until `out` has `enough` bytes, or a few more, or everything is taken.
    fn read(&mut self, out: &mut Vec<u8>, enough: usize);

    /// Whether everything is taken.
    fn is_empty(&self) -> bool;
}

impl LongText for String {
    type Reader<'a> = &'a str;

    fn reader(&self) -> &str {
        self
    }
}

impl Pieces for &str {
    fn read(&mut self, out: &mut Vec<u8>, enough: usize) {
        let (piece, rest) = self.split_at(self.ceil_char_boundary(enough.saturating_sub(out.len())));
        out.extend_from_slice(piece.as_bytes());
        *self = rest;
    }

    fn is_empty(&self) -> bool {
        str::is_empty(self)
    }
}

/// Writes texts in order, all that are there with one flush, until there are no more to come; then closes.
pub async fn write<T: LongText>(
    mut sink: impl Sink<Message, Error = Error> + Unpin,
    mut deflater: Option<Deflater>,
    mut texts: UnboundedReceiver<T>,
    mut pings: UnboundedReceiver<()>,
) -> Result<(), Error> {
    loop {
        tokio::select! {
            biased;
            Some(()) = pings.recv() => sink.feed(Message::Ping(Bytes::new())).await?,
            text = texts.recv() => match text {
                Some(text) => feed(&mut sink, deflater.as_mut(), text, &mut pings).await?,
                None => return sink.close().await,
            },
        }
        while let Ok(text) = texts.try_recv() {
            feed(&mut sink, deflater.as_mut(), text, &mut pings).await?;
        }
        sink.flush().await?;
    }
}

/// Puts one text into the sink, a long one in fragments that are made, and compressed, as they go.
async fn feed<T: LongText>(
    sink: &mut (impl Sink<Message, Error = Error> + Unpin),
    deflater: Option<&mut Deflater>,
    text: T,
    pings: &mut UnboundedReceiver<()>,
) -> Result<(), Error> {
    let at_once = if deflater.is_some() { COMPRESSED_AT_ONCE } else { FRAGMENT_BYTES };
    let mut text = text.reader();
    let mut piece = Vec::new();
    text.read(&mut piece, at_once);
    let mut deflater = deflater.filter(|_| piece.len() >= COMPRESSED_FROM);
    if let Some(deflater) = &mut deflater {
        deflater.begin();
    }
    let mut part = Vec::new();
    let mut is_first = true;
    loop {
        let last = text.is_empty();
        match &mut deflater {
            Some(deflater) => deflater.add(&piece, last, &mut part),
            None => std::mem::swap(&mut part, &mut piece),
        }
        if last || part.len() >= FRAGMENT_BYTES {
            let part = std::mem::take(&mut part);
            let frame = match (is_first, deflater.is_some()) {
                (true, true) => first_frame(part, Data::Text, last),
                (true, false) => Frame::message(part, OpCode::Data(Data::Text), last),
                (false, _) => Frame::message(part, OpCode::Data(Data::Continue), last),
            };
            sink.feed(Message::Frame(frame)).await?;
            is_first = false;
        }
        if last {
            return Ok(());
        }
        if pings.try_recv().is_ok() {
            sink.feed(Message::Ping(Bytes::new())).await?;
        }
        if deflater.is_some() {
            tokio::task::yield_now().await;
        }
        piece.clear();
        text.read(&mut piece, at_once);
    }
}

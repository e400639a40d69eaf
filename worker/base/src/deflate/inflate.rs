//! Compressed frames to plain ones, without I/O.

use flate2::{Decompress, FlushDecompress, Status};

use super::compress::FLUSHED;

/// Most bytes that one plain frame holds; its length fits the two bytes of the middle form.
const FRAME_BYTES: usize = 32 * 1024;

/// A compressed message that cannot be inflated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// It is no deflate data.
    #[error("a compressed message is damaged")]
    Damaged,
    /// It is longer than what is taken.
    #[error("a compressed message inflates to more than {0} bytes")]
    TooLong(usize),
    /// It is longer than what is taken, before it is inflated.
    #[error("a message has more than {0} bytes on the wire")]
    TooLongOnTheWire(usize),
}

/// Turns the frames of one direction of a websocket into plain ones. What is not a rightful compressed message goes
/// through as it is, for the websocket to judge: a control frame with RSV1 set, for one.
pub struct Inflater {
    decompress: Decompress,
    keeps_context: bool,
    /// Most bytes that a message may inflate to.
    limit: usize,
    /// Most bytes that a message may have as it comes, compressed or not.
    wire_limit: usize,
    /// How many bytes the message under way has, as it comes.
    on_the_wire: u64,
    /// The header under way.
    header: Vec<u8>,
    state: State,
    /// While there is a compressed message, of one frame or several: how many bytes it has inflated to.
    inflated: Option<usize>,
    scratch: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Within a header.
    Header,
    /// Within the payload of a frame that goes through as it is: so much is left.
    AsItIs { left: u64 },
    /// Within the payload of a compressed frame.
    Compressed(Payload),
    /// At the end of a compressed message; so much of [`FLUSHED`] is left.
    End { left: usize, masked: bool },
}

/// The payload of a compressed frame.
#[derive(Debug, Clone, Copy)]
struct Payload {
    left: u64,
    /// Present on what a client sends.
    mask: Option<[u8; 4]>,
    /// Bytes that are taken already.
    taken: u64,
    /// Whether the message ends with it.
    last: bool,
}

impl Inflater {
    /// An inflater of messages up to `limit` bytes each.
    pub fn new(keeps_context: bool, limit: usize) -> Self {
        let decompress = Decompress::new(false);
        let scratch = vec![0; FRAME_BYTES];
        Self {
            decompress,
            keeps_context,
            limit,
            wire_limit: usize::MAX,
            on_the_wire: 0,
            header: Vec::new(),
            state: State::Header,
            inflated: None,
            scratch,
        }
    }

    /// Takes messages of up to `limit` bytes alone, as they come: compressed or not, with all their fragments.
    pub fn bounded_on_the_wire(self, limit: usize) -> Self {
        Self { wire_limit: limit, ..self }
    }

    /// Takes from the front of `input` and appends to `out`, until that has something or everything is taken.
    pub(super) fn advance(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<(), InflateError> {
        while out.is_empty() {
            match self.state {
                State::End { left, masked } => self.end(left, masked, out)?,
                State::Header if !input.is_empty() => self.header(input, out)?,
                State::AsItIs { left: 0 } => self.state = State::Header,
                State::AsItIs { left } if !input.is_empty() => {
                    let (taken, rest) = input.split_at(short(left, input.len()));
                    out.extend_from_slice(taken);
                    self.state = State::AsItIs { left: left - taken.len() as u64 };
                    *input = rest;
                }
                State::Compressed(Payload { left: 0, last: false, .. }) => self.state = State::Header,
                State::Compressed(Payload { left: 0, last: true, mask, .. }) => {
                    self.state = State::End { left: FLUSHED.len(), masked: mask.is_some() };
                }
                State::Compressed(payload) if !input.is_empty() => self.payload(payload, input, out)?,
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    /// Takes a byte of a header, and decides what becomes of the frame with the last one.
    fn header(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<(), InflateError> {
        self.header.push(input[0]);
        *input = &input[1..];
        let Some(frame) = Header::read(&self.header) else { return Ok(()) };
        if matches!(frame.opcode, 0..=2) {
            let before = if frame.opcode == CONTINUATION { self.on_the_wire } else { 0 };
            self.on_the_wire = before.saturating_add(frame.length);
            if self.on_the_wire > self.wire_limit as u64 {
                return Err(InflateError::TooLongOnTheWire(self.wire_limit));
            }
        }
        let begins = frame.is_compressed() && self.inflated.is_none();
        let goes_on = frame.is_continuation() && self.inflated.is_some();
        if begins || goes_on {
            if begins {
                self.inflated = Some(0);
                // Everything inflated then follows in continuations.
                write_frame(frame.opcode, false, frame.mask.is_some(), &[], out);
            }
            let Header { mask, last, length: left, .. } = frame;
            self.state = State::Compressed(Payload { left, mask, taken: 0, last });
        } else {
            out.extend_from_slice(&self.header);
            self.state = State::AsItIs { left: frame.length };
        }
        self.header.clear();
        Ok(())
    }

    fn payload(&mut self, payload: Payload, input: &mut &[u8], out: &mut Vec<u8>) -> Result<(), InflateError> {
        let available = &input[..short(payload.left, input.len())];
        let (taken, produced) = match payload.mask {
            None => self.inflate(available)?,
            Some(mask) => {
                let mut unmasked = [0; 4096];
                let available = &available[..available.len().min(unmasked.len())];
                for (at, (to, from)) in (payload.taken..).zip(unmasked.iter_mut().zip(available)) {
                    *to = from ^ mask[(at % 4) as usize];
                }
                self.inflate(&unmasked[..available.len()])?
            }
        };
        *input = &input[taken..];
        let taken = taken as u64;
        let payload = Payload { left: payload.left - taken, taken: payload.taken + taken, ..payload };
        self.state = State::Compressed(payload);
        self.emit(produced, payload.mask.is_some(), out);
        Ok(())
    }

    /// Inflates what a message ends with, and everything that is still to come of it.
    fn end(&mut self, left: usize, masked: bool, out: &mut Vec<u8>) -> Result<(), InflateError> {
        let (taken, produced) = self.inflate(&FLUSHED[FLUSHED.len() - left..])?;
        self.emit(produced, masked, out);
        let left = left - taken;
        self.state = State::End { left, masked };
        if left == 0 && produced < self.scratch.len() {
            write_frame(CONTINUATION, true, masked, &[], out);
            self.inflated = None;
            self.state = State::Header;
            if !self.keeps_context {
                self.decompress.reset(false);
            }
        }
        Ok(())
    }

    /// Inflates into `scratch`: how much is taken and how much produced.
    fn inflate(&mut self, data: &[u8]) -> Result<(usize, usize), InflateError> {
        let (taken, produced) = (self.decompress.total_in(), self.decompress.total_out());
        let status = self.decompress.decompress(data, &mut self.scratch, FlushDecompress::Sync);
        let status = status.map_err(|_| InflateError::Damaged)?;
        let taken = (self.decompress.total_in() - taken) as usize;
        let produced = (self.decompress.total_out() - produced) as usize;
        match status {
            // A sender may end its data, and begin anew within the message (RFC 7692, 7.2.3.5).
            Status::StreamEnd => self.decompress.reset(false),
            _ if taken == 0 && produced == 0 && !data.is_empty() => return Err(InflateError::Damaged),
            _ => {}
        }
        let inflated = self.inflated.unwrap_or(0) + produced;
        self.inflated = Some(inflated);
        if inflated > self.limit { Err(InflateError::TooLong(self.limit)) } else { Ok((taken, produced)) }
    }

    fn emit(&self, produced: usize, masked: bool, out: &mut Vec<u8>) {
        if produced > 0 {
            write_frame(CONTINUATION, false, masked, &self.scratch[..produced], out);
        }
    }
}

const CONTINUATION: u8 = 0;

/// The head of a frame.
struct Header {
    opcode: u8,
    reserved: u8,
    last: bool,
    mask: Option<[u8; 4]>,
    length: u64,
}

impl Header {
    /// Reads a header; none while it is not complete.
    fn read(bytes: &[u8]) -> Option<Self> {
        let &[first, second, ref rest @ ..] = bytes else { return None };
        let (length, rest) = match second & 0x7f {
            126 => rest.split_first_chunk().map(|(length, rest)| (u16::from_be_bytes(*length).into(), rest))?,
            127 => rest.split_first_chunk().map(|(length, rest)| (u64::from_be_bytes(*length), rest))?,
            length => (length.into(), rest),
        };
        let mask = if second & 0x80 != 0 { Some(*rest.first_chunk()?) } else { None };
        Some(Self { opcode: first & 0x0f, reserved: first & 0x70, last: first & 0x80 != 0, mask, length })
    }

    /// Whether a compressed message begins with it.
    fn is_compressed(&self) -> bool {
        matches!(self.opcode, 1 | 2) && self.reserved == 0x40
    }

    fn is_continuation(&self) -> bool {
        self.opcode == CONTINUATION && self.reserved == 0
    }
}

/// Appends a frame. One of a client is masked with zeros, which change nothing.
fn write_frame(opcode: u8, last: bool, masked: bool, payload: &[u8], out: &mut Vec<u8>) {
    let mask_bit = if masked { 0x80 } else { 0 };
    out.push(opcode | if last { 0x80 } else { 0 });
    match u8::try_from(payload.len()) {
        Ok(length) if length < 126 => out.push(mask_bit | length),
        _ => {
            let length = u16::try_from(payload.len()).expect("frames are no longer than FRAME_BYTES");
            out.push(mask_bit | 126);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    if masked {
        out.extend_from_slice(&[0; 4]);
    }
    out.extend_from_slice(payload);
}

fn short(left: u64, available: usize) -> usize {
    usize::try_from(left).map_or(available, |left| left.min(available))
}

//! Frames between the host and Node: a length in four bytes (the least significant first), a byte that says what the
//! frame is, and fields, each a length in four bytes and so many bytes. The length `0xffff_ffff` is a field that is
//! not there.
//!
//! Pure, but for [`read`], which knows no more of its stream than that it can be read.

use std::io::{self, Read};

use bytes::Bytes;

const ABSENT: u32 = u32::MAX;

/// So much is allocated before any of a frame has come.
const FIRST_BYTES: usize = 64 * 1024;

/// What most frames have at most.
const FIELDS: usize = 4;

/// A frame from Node.
#[derive(Debug)]
pub(super) struct Frame {
    /// What it is.
    pub(super) kind: u8,
    fields: std::vec::IntoIter<Option<Bytes>>,
}

/// A frame that makes no sense.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadFrame {
    #[error("the stream failed: {0}")]
    Io(#[from] io::Error),
    #[error("a frame of {length} bytes is over the limit of {limit}")]
    TooLong { length: usize, limit: usize },
    #[error("a frame's fields do not fit its length")]
    Torn,
    #[error("a field is not UTF-8")]
    NotText,
    #[error("a field is missing")]
    Missing,
}

impl Frame {
    /// The next field as text, if there is one.
    pub(super) fn text(&mut self) -> Result<Option<String>, BadFrame> {
        let field = self.fields.next().flatten();
        field.map(|bytes| String::from_utf8(bytes.into()).map_err(|_| BadFrame::NotText)).transpose()
    }

    /// The next field as text, which must be there.
    pub(super) fn needed(&mut self) -> Result<String, BadFrame> {
        self.text()?.ok_or(BadFrame::Missing)
    }

    /// The next field as bytes, if there is one. They share the frame's memory.
    pub(super) fn shared(&mut self) -> Option<Bytes> {
        self.fields.next().flatten()
    }

    /// The next field as bytes, which must be there.
    pub(super) fn bytes(&mut self) -> Result<Bytes, BadFrame> {
        self.shared().ok_or(BadFrame::Missing)
    }
}

/// The bytes of a frame. The error is its length, when that is more than can be written.
pub(super) fn encode(kind: u8, fields: &[Option<&str>]) -> Result<Vec<u8>, usize> {
    let length = fields.iter().fold(1, |sum, field| sum + 4 + field.map_or(0, str::len));
    let mut bytes = Vec::with_capacity(4 + length);
    bytes.extend(u32::try_from(length).map_err(|_| length)?.to_le_bytes());
    bytes.push(kind);
    for field in fields {
        match field {
            None => bytes.extend(ABSENT.to_le_bytes()),
            Some(text) => {
                // No longer than the frame.
                bytes.extend((text.len() as u32).to_le_bytes());
                bytes.extend(text.as_bytes());
            }
        }
    }
    Ok(bytes)
}

/// The next frame, of at most `limit` bytes; none at the end of the stream.
pub(super) fn read(stream: &mut impl Read, limit: usize) -> Result<Option<Frame>, BadFrame> {
    let mut head = [0; 4];
    match stream.read(&mut head)? {
        0 => return Ok(None),
        have => stream.read_exact(&mut head[have..])?,
    }
    let length = u32::from_le_bytes(head) as usize;
    if length > limit {
        return Err(BadFrame::TooLong { length, limit });
    }
    let mut bytes = Vec::with_capacity(length.min(FIRST_BYTES));
    let mut take = |until: usize, bytes: &mut Vec<u8>| -> io::Result<()> {
        let missing = until - bytes.len();
        bytes.reserve_exact(missing);
        match stream.by_ref().take(missing as u64).read_to_end(bytes)? {
            all if all == missing => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    };
    take(length.min(FIRST_BYTES), &mut bytes)?;
    take(length, &mut bytes)?;
    parse(&bytes.into()).map(Some)
}

fn parse(bytes: &Bytes) -> Result<Frame, BadFrame> {
    let (kind, mut rest) = bytes.split_first().ok_or(BadFrame::Torn)?;
    let mut fields = Vec::with_capacity(FIELDS);
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk().ok_or(BadFrame::Torn)?;
        rest = after;
        fields.push(match u32::from_le_bytes(*length) {
            ABSENT => None,
            length => {
                let (field, after) = rest.split_at_checked(length as usize).ok_or(BadFrame::Torn)?;
                rest = after;
                Some(bytes.slice_ref(field))
            }
        });
    }
    Ok(Frame { kind: *kind, fields: fields.into_iter() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = encode(b'a', &[Some("x"), None, Some("")]).unwrap();
        bytes.extend(encode(b'b', &[]).unwrap());
        let mut stream = bytes.as_slice();
        let mut frame = read(&mut stream, 100).unwrap().unwrap();
        assert_eq!(frame.kind, b'a');
        assert_eq!(frame.needed().unwrap(), "x");
        assert_eq!(frame.text().unwrap(), None);
        assert!(frame.bytes().unwrap().is_empty());
        assert!(matches!(frame.needed(), Err(BadFrame::Missing)));
        assert_eq!(read(&mut stream, 100).unwrap().unwrap().kind, b'b');
        assert!(read(&mut stream, 100).unwrap().is_none());
    }

    #[test]
    fn bad_frames_are_refused() {
        for (bytes, expected) in [
            (&[1, 0][..], "the stream failed: failed to fill whole buffer"),
            (&[2, 0, 0, 0, 7], "the stream failed: unexpected end of file"),
            (&[255, 255, 255, 255], "a frame of 4294967295 bytes is over the limit of 100"),
            (&[0, 0, 0, 0], "a frame's fields do not fit its length"),
            (&[3, 0, 0, 0, 7, 1, 0], "a frame's fields do not fit its length"),
            (&[5, 0, 0, 0, 7, 1, 0, 0, 0], "a frame's fields do not fit its length"),
        ] {
            let mut stream = bytes;
            assert_eq!(read(&mut stream, 100).unwrap_err().to_string(), expected, "{bytes:?}");
        }
        let mut stream = &[6, 0, 0, 0, 7, 1, 0, 0, 0, 255][..];
        let mut frame = read(&mut stream, 100).unwrap().unwrap();
        assert!(matches!(frame.text(), Err(BadFrame::NotText)));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd_to_be_read(bytes: Vec<u8>) {
            let mut stream = bytes.as_slice();
            while let Ok(Some(mut frame)) = read(&mut stream, 1000) {
                while let Ok(Some(_)) = frame.text() {}
            }
        }
    }
}

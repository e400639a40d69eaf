//! What a template is asked, and what it answers, byte for byte as `native/fork.c` has it. Pure.

use protocol::handshake::LinkToken;

/// Bytes of a token.
pub(super) const TOKEN_BYTES: usize = 64;

/// An instruction of the filter.
const INSTRUCTION_BYTES: usize = 8;

/// What a child is to be.
#[derive(Debug)]
pub(super) struct Request<'a> {
    /// What shows that one may ask.
    pub(super) token: &'a LinkToken,
    /// The process that is to adopt it.
    pub(super) parent: u32,
    /// Its filter of system calls, and what stands in it for its own number.
    pub(super) filter: (&'a [u8], u32),
    /// Its limits of open files, of processes and of the bytes of a file.
    pub(super) limits: [u64; 3],
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) pid: i32,
    pub(super) error: i32,
    pub(super) nanoseconds: u64,
}

impl Request<'_> {
    /// The bytes; none if the token is no token of ours.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let (filter, own_number) = self.filter;
        let token = self.token.expose().as_bytes();
        let instructions = u32::try_from(filter.len() / INSTRUCTION_BYTES).ok()?;
        if token.len() != TOKEN_BYTES {
            return None;
        }
        let mut bytes = token.to_vec();
        for number in [self.parent, instructions, own_number, 0] {
            bytes.extend(number.to_ne_bytes());
        }
        bytes.extend(self.limits.into_iter().flat_map(u64::to_ne_bytes));
        bytes.extend(filter);
        Some(bytes)
    }
}

impl Answer {
    pub(super) const BYTES: usize = 16;

    /// None if it is cut off.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (pid, rest) = bytes.split_first_chunk()?;
        let (error, rest) = rest.split_first_chunk()?;
        let nanoseconds = u64::from_ne_bytes(*rest.first_chunk()?);
        Some(Self { pid: i32::from_ne_bytes(*pid), error: i32::from_ne_bytes(*error), nanoseconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_its_parts_where_they_are_read() {
        let token = LinkToken::new("t".repeat(TOKEN_BYTES));
        let request = Request { token: &token, parent: 7, filter: (&[9; 16], 5), limits: [1, 2, 3] };
        let bytes = request.encode().unwrap();
        assert_eq!(bytes.len(), TOKEN_BYTES + 4 * 4 + 3 * 8 + 16);
        assert_eq!(bytes[TOKEN_BYTES..TOKEN_BYTES + 4], 7_u32.to_ne_bytes());
        assert_eq!(bytes[TOKEN_BYTES + 4..TOKEN_BYTES + 8], 2_u32.to_ne_bytes());
        assert_eq!(bytes[TOKEN_BYTES + 32..TOKEN_BYTES + 40], 3_u64.to_ne_bytes());
        assert_eq!(bytes[bytes.len() - 16..], [9; 16]);
        let short = LinkToken::new("t");
        assert_eq!(Request { token: &short, ..request }.encode(), None);
    }

    #[test]
    fn an_answer_is_whole_or_none() {
        let bytes: Vec<u8> = [7_i32, 0].into_iter().flat_map(i32::to_ne_bytes).chain(9_u64.to_ne_bytes()).collect();
        assert_eq!(bytes.len(), Answer::BYTES);
        assert_eq!(Answer::decode(&bytes), Some(Answer { pid: 7, error: 0, nanoseconds: 9 }));
        for length in 0..bytes.len() {
            assert_eq!(Answer::decode(&bytes[..length]), None);
        }
    }
}

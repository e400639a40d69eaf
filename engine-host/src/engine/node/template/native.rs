//! The library that makes a Node process one that can be forked, as a descriptor that it is loaded from.
//!
//! It is never a file that somebody could write to: it is memory that is sealed when it is complete, and compared with
//! what was built before it is handed on.

use std::io::{self, Write};
use std::os::fd::{OwnedFd, RawFd};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::pread;

use crate::engine::node::source::fnv;

/// The library, as the build made it; empty where there is none.
static LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/fork.so"));

/// Its hash when it was built.
const HASH: &str = env!("FORK_LIBRARY_HASH");

/// The number under which Node finds it.
pub(in crate::engine::node) const DESCRIPTOR: RawFd = 7;

/// Whether there is one for this system.
pub(super) fn is_there() -> bool {
    !LIBRARY.is_empty()
}

/// The library, which from now on nobody can change.
pub(super) fn library() -> io::Result<OwnedFd> {
    let memory = memfd_create("openfn-fork", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(memory);
    file.write_all(LIBRARY)?;
    let memory = OwnedFd::from(file);
    fcntl_add_seals(&memory, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    let mut bytes = vec![0; LIBRARY.len() + 1];
    let mut have = 0;
    while let more @ 1.. = pread(&memory, &mut bytes[have..], have as u64)? {
        have += more;
    }
    match fnv(&bytes[..have]).to_string() == HASH {
        true => Ok(memory),
        false => Err(io::Error::other("the library that Node is to load is damaged")),
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::pwrite;

    use super::*;

    #[test]
    fn what_is_loaded_is_what_was_built_and_stays_so() {
        let library = library().unwrap();
        assert!(pwrite(&library, b"x", 0).is_err());
        assert!(rustix::fs::ftruncate(&library, 0).is_err());
        assert_eq!(is_there(), cfg!(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")));
    }
}

//! The two system calls that have no safe form.

#![expect(unsafe_code, reason = "advice on a memory range takes a raw pointer, and tokio cannot check descriptors")]

use std::io;
use std::os::fd::OwnedFd;

use rustix::mm::{Advice, madvise};
use rustix::param::page_size;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches a descriptor for being readable.
pub(super) fn watch_readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open until it is dropped, and always the same descriptor.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}

/// Takes the pages of `bytes` out of this process's resident memory again. They come back from the program's file
/// when they are read.
pub(super) fn forget_pages(bytes: &'static [u8]) {
    let page = page_size();
    let start = bytes.as_ptr().addr();
    let first = start.next_multiple_of(page);
    let end = (start + bytes.len()) / page * page;
    if end <= first {
        return;
    }
    let pages = bytes.as_ptr().wrapping_add(first - start).cast_mut().cast();
    // SAFETY: the range lies inside of one static, which is mapped from the program's file and never written to, so
    // dropping its pages only makes the kernel read the same bytes again.
    // Nothing is lost when the advice is not taken.
    let _ = unsafe { madvise(pages, end - first, Advice::LinuxDontNeed) };
}

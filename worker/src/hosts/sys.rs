//! The one system call that has no safe form.

#![expect(unsafe_code, reason = "advice on a memory range takes a raw pointer")]

use rustix::mm::{Advice, madvise};
use rustix::param::page_size;

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

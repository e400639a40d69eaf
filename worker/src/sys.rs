//! System calls of the worker that have no safe form: its own environment overwritten in place, and what the kernel has.

#![expect(unsafe_code, reason = "the environment is only reached by pointers, and the kernel asked by number")]

use std::ffi::{CStr, c_char};

unsafe extern "C" {
    /// The environment: pointers to `NAME=value`, the last one null.
    static environ: *const *mut c_char;
}

/// Overwrites the values of these variables where the process was given them, so that `/proc/<pid>/environ` does not
/// show them any more. They count as set to nothing from then on. To be called while there is one thread.
///
/// Returns whether there was one thread, without which nothing is done.
pub(crate) fn erase_variables(names: &[String]) -> bool {
    if !is_single_threaded() {
        return false;
    }
    // SAFETY: there is one thread, so nobody writes the environment while it is read here. It is a list of pointers
    // that a null ends, or null itself.
    let mut entry = unsafe { environ };
    while !entry.is_null() {
        // SAFETY: `entry` points into that list, at its end at the latest.
        let text = unsafe { *entry };
        if text.is_null() {
            break;
        }
        // SAFETY: the entries are texts with a null at their end, which nobody changes meanwhile.
        let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
        let name = bytes.split(|byte| *byte == b'=').next().unwrap_or_default();
        if names.iter().any(|secret| secret.as_bytes() == name) {
            for at in name.len() + 1..bytes.len() {
                // SAFETY: that byte is inside of the text, which is memory that the process may write to.
                unsafe { text.add(at).write_volatile(0) };
            }
        }
        // SAFETY: this was not the end of the list, so there is one more.
        entry = unsafe { entry.add(1) };
    }
    true
}

unsafe extern "C" {
    fn syscall(number: i64, ...) -> i64;
}

/// Keeps what this process has open from all that it starts, but for what it passes on by will. Descriptors that it
/// inherited would be passed on otherwise. Before Linux 5.11 nothing is done.
pub(crate) fn keep_descriptors() {
    const CLOSE_RANGE: i64 = 436;
    const FIRST: u32 = 3;
    const CLOSE_ON_EXEC: u32 = 4;
    // SAFETY: the call takes numbers alone, and closes nothing in this process.
    unsafe { syscall(CLOSE_RANGE, FIRST, u32::MAX, CLOSE_ON_EXEC) };
}

/// Has the allocator give a large piece of memory back to the system as soon as it is free. By default it learns to keep
/// such pieces, once for each thread.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    {
        const MMAP_THRESHOLD: i32 = -3;
        const LARGE: i32 = 256 * 1024;
        unsafe extern "C" {
            fn mallopt(parameter: i32, value: i32) -> i32;
        }
        // SAFETY: sets a number of the allocator.
        unsafe { mallopt(MMAP_THRESHOLD, LARGE) };
    }
}

/// Version of the kernel's Landlock; none if it has none, or has it switched off.
pub(crate) fn landlock_version() -> Option<u32> {
    const CREATE_RULESET: i64 = 444;
    const GET_VERSION: u32 = 1;
    // SAFETY: with no rules and this flag, the call takes no memory and changes nothing.
    let version = unsafe { syscall(CREATE_RULESET, std::ptr::null::<u8>(), 0_usize, GET_VERSION) };
    u32::try_from(version).ok().filter(|version| *version > 0)
}

fn is_single_threaded() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

//! The memory of a JavaScript engine, counted.
//!
//! QuickJS reports a failed allocation as an exception, which a job may catch, and which may be gone by the time
//! anyone looks; some of its functions even crash. So the allocator itself keeps the evidence that a run went over its
//! limit, and never fails: when there is no room left it says so to who waits for the engine, and does not return.

// The engine's allocator is an unsafe trait, and there is no other place where a refused allocation can be seen.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rquickjs::allocator::{Allocator, RustAllocator};
use tokio::sync::Notify;

/// What is allocated above the limit before the engine is lost at once: room for the engine to notice, at its next look at the
/// [`Meter`], and to stop the job in an orderly way.
const GRACE_BYTES: usize = 16 * 1024 * 1024;

/// Counts an engine's memory, in bytes.
#[derive(Debug)]
pub(super) struct Meter {
    limit: usize,
    used: AtomicUsize,
    peak: AtomicUsize,
    exceeded: AtomicBool,
    exhausted: Arc<Notify>,
}

impl Meter {
    /// A meter that shows when more than `limit` bytes are in use, and notifies `exhausted` when its engine is lost.
    pub(super) fn new(limit: usize, exhausted: Arc<Notify>) -> Arc<Self> {
        let (used, peak) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { limit, used, peak, exceeded: AtomicBool::new(false), exhausted })
    }

    /// Whether the limit was ever exceeded.
    pub(super) fn exceeded(&self) -> bool {
        self.exceeded.load(Ordering::Relaxed)
    }

    /// The most that was ever in use.
    pub(super) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// Returns only if `bytes` more may be allocated.
    fn admit(&self, bytes: usize) {
        let wanted = self.used.load(Ordering::Relaxed).saturating_add(bytes);
        if wanted > self.limit {
            self.exceeded.store(true, Ordering::Relaxed);
        }
        if wanted > self.limit.saturating_add(GRACE_BYTES) {
            self.give_up();
        }
    }

    /// Ends the engine where it stands. Its thread keeps what it has until the process ends, which is soon.
    fn give_up(&self) -> ! {
        self.exceeded.store(true, Ordering::Relaxed);
        self.exhausted.notify_one();
        loop {
            thread::park();
        }
    }

    // Only the engine's thread allocates, so that nothing is lost between reading a number and writing it; to have the
    // processor see to that would cost as much as the rest of an allocation.

    fn add(&self, bytes: usize) {
        let used = self.used.load(Ordering::Relaxed) + bytes;
        self.used.store(used, Ordering::Relaxed);
        if used > self.peak.load(Ordering::Relaxed) {
            self.peak.store(used, Ordering::Relaxed);
        }
    }

    fn subtract(&self, bytes: usize) {
        self.used.store(self.used.load(Ordering::Relaxed).saturating_sub(bytes), Ordering::Relaxed);
    }
}

/// Rust's allocator, metered.
pub(super) struct MeteredAllocator(pub(super) Arc<Meter>);

impl MeteredAllocator {
    fn counted(&self, allocated: *mut u8) -> *mut u8 {
        if allocated.is_null() {
            self.0.give_up();
        }
        // SAFETY: `RustAllocator` made the allocation just now.
        self.0.add(unsafe { RustAllocator::usable_size(allocated) });
        allocated
    }
}

// SAFETY: All memory comes from `RustAllocator`, which keeps the trait's promises.
unsafe impl Allocator for MeteredAllocator {
    fn alloc(&mut self, size: usize) -> *mut u8 {
        self.0.admit(size);
        self.counted(RustAllocator.alloc(size))
    }

    fn calloc(&mut self, count: usize, size: usize) -> *mut u8 {
        self.0.admit(count.saturating_mul(size));
        self.counted(RustAllocator.calloc(count, size))
    }

    unsafe fn dealloc(&mut self, allocated: *mut u8) {
        // SAFETY: The caller promises that `allocated` came from this allocator, so from `RustAllocator`.
        unsafe {
            self.0.subtract(RustAllocator::usable_size(allocated));
            RustAllocator.dealloc(allocated);
        }
    }

    unsafe fn realloc(&mut self, allocated: *mut u8, size: usize) -> *mut u8 {
        if allocated.is_null() {
            return self.alloc(size);
        }
        // SAFETY: The caller promises that `allocated` came from this allocator, so from `RustAllocator`.
        let before = unsafe { RustAllocator::usable_size(allocated) };
        self.0.admit(size.saturating_sub(before));
        // SAFETY: As above.
        let moved = unsafe { RustAllocator.realloc(allocated, size) };
        self.0.subtract(before);
        self.counted(moved)
    }

    unsafe fn usable_size(allocated: *mut u8) -> usize {
        // SAFETY: The caller promises that `allocated` came from this allocator, so from `RustAllocator`.
        unsafe { RustAllocator::usable_size(allocated) }
    }
}

//! This process's memory: whether it may have been copied.
//!
//! The one file of encx that may hold unsafe code: registering a handler with `fork` has no safe form.
#![cfg_attr(
    unix,
    allow(unsafe_code, reason = "pthread_atfork has no safe form; audited here")
)]

use std::sync::atomic::{AtomicU64, Ordering};

/// Raised whenever this process's memory may have been copied.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// Makes every thread draw its next nonce from a freshly seeded generator.
///
/// A nonce must never be used twice under one key. encx draws nonces from a generator in memory, so a second copy of
/// that memory would draw the same ones. `fork`, as libc offers it, is noticed without this call: the child draws
/// differently from its parent. Call this yourself, before anything else is encrypted,
///
/// - in every machine that was restored or cloned from a snapshot taken while it ran (Firecracker, CRIU, a
///   hypervisor's snapshot, Lambda SnapStart): nothing inside tells the process that it happened;
/// - in a child made by a raw `clone` system call, by `vfork`, by `_Fork`, or by a runtime that makes its own system
///   calls: they run none of the handlers that `pthread_atfork` registers. A child that only calls `exec` needs
///   nothing.
///
/// It costs a few nanoseconds, and each thread's next nonce asks the operating system once. Where neither place can be
/// found in time, build with feature `os-nonces`: every nonce then comes from the operating system.
///
/// <div class="warning">
///
/// Two machines that encrypt from one snapshot without this call may use a nonce twice, which reveals the
/// plaintexts' difference and lets others forge.
///
/// </div>
///
/// ```
/// encx::reseed();
/// ```
pub fn reseed() {
    GENERATION.fetch_add(1, Ordering::AcqRel);
    // The thread that kept the time did not come along into a child.
    crate::clock::forget_coarse_time();
}

/// Returns the generation now, once it is certain that a fork will raise it; `None` if that is impossible.
#[inline]
pub(crate) fn generation() -> Option<u64> {
    watch_forks().then(|| GENERATION.load(Ordering::Acquire))
}

#[cfg(unix)]
fn watch_forks() -> bool {
    use std::sync::atomic::AtomicBool;

    static WATCHED: AtomicBool = AtomicBool::new(false);

    #[cold]
    fn register() -> bool {
        extern "C" fn in_child() {
            reseed();
        }
        // SAFETY: the handler lives as long as this code is loaded; libc drops it with the library that holds it. It
        // does nothing but write to atomics, which is allowed between `fork` and `exec`, and cannot unwind.
        let status = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        if status == 0 {
            WATCHED.store(true, Ordering::Release);
        }
        status == 0
    }

    // Two threads may both register, which only raises the generation twice. A lock here could be copied into a
    // child while another thread held it, and would then never open.
    WATCHED.load(Ordering::Acquire) || register()
}

/// There is no `fork` here.
#[cfg(not(unix))]
fn watch_forks() -> bool {
    true
}

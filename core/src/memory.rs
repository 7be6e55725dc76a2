//! This process's memory: wiping it, and noticing that it may have been copied.
//!
//! The only file of encx that may contain unsafe code. Two things have no safe form: wiping a value with its unused
//! bytes, and registering a handler with `fork`.
#![allow(unsafe_code, reason = "audited here, and nowhere else")]

use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

use zeroize::{Zeroize, ZeroizeOnDrop, zeroize_stack};

/// Holds a value and wipes all its memory on drop: its fields, its padding, and the inactive variants of its
/// unions. Crates that wipe their own keys wipe less: a cipher chosen at run time is in a union, and moving
/// it copies the whole union.
///
/// A move leaves a copy behind. Make the value in [`wiping_stack`], and move it no further than into its `Box` or `Arc`.
pub struct Wiped<T>(MaybeUninit<T>);

impl<T> Wiped<T> {
    #[inline(always)]
    pub fn new(value: T) -> Self {
        Self(MaybeUninit::new(value))
    }
}

impl<T> Deref for Wiped<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: `new` initialised it, and only `drop` drops it.
        unsafe { self.0.assume_init_ref() }
    }
}

impl<T> DerefMut for Wiped<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`.
        unsafe { self.0.assume_init_mut() }
    }
}

impl<T> Drop for Wiped<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: it is initialised, as in `deref`, and never used again.
        unsafe { self.0.assume_init_drop() };
        slice::from_mut(&mut self.0).zeroize();
    }
}

impl<T> ZeroizeOnDrop for Wiped<T> {}

/// Runs a function that handles keys, and wipes `DEPTH` bytes of the stack below it.
///
/// Its arguments and its result stay in the caller's frame and must not be secrets; references and boxes are fine.
#[inline(always)]
pub fn wiping_stack<const DEPTH: usize, T>(call: impl FnOnce() -> T) -> T {
    // Not inlined, so that its frame and those of its callees start where the wiped region starts.
    #[inline(never)]
    fn apart<T>(call: impl FnOnce() -> T) -> T {
        call()
    }
    let done = apart(call);
    zeroize_stack::<DEPTH>();
    done
}

/// How many bytes of stack are wiped where time does not matter.
pub const DEEP: usize = 32 << 10;

/// Whether ciphers are assumed to be compiled without optimisation: they then use more stack and leave more on it.
///
/// No `cfg` reports `opt-level`. Cargo's own profiles set `debug_assertions` along with it, so this follows that. A
/// profile that sets them separately gets the wrong depth. With optimisation and debug assertions, the stack is wiped
/// deeper than necessary, which takes time; with neither, not deep enough, and keys may remain there. SECURITY.md says so.
pub const UNOPTIMISED: bool = cfg!(debug_assertions);

/// Counts the times that this process's memory may have been copied.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// Makes every thread draw its next nonce from a freshly seeded generator.
///
/// A nonce must never be used twice under one key. encx draws nonces from a generator in memory, so a copy of that
/// memory would draw the same ones. encx detects libc's `fork` by itself: the child draws other nonces than its
/// parent. Call this function yourself, before encrypting anything else,
///
/// - in every machine that was restored or cloned from a snapshot taken while it ran (Firecracker, CRIU, a hypervisor's
///   snapshot, Lambda SnapStart): nothing inside tells the process that it happened;
/// - in a child made by a raw `clone` system call, by `vfork`, by `_Fork`, or by a runtime that makes its own system
///   calls: they run none of the handlers that `pthread_atfork` registers. A child that only calls `exec` needs
///   nothing.
///
/// It costs a few nanoseconds, and each thread's next nonce asks the operating system once. If you cannot call it in
/// time, build with `CryptoBuilder::os_nonces`: every nonce then comes from the operating system.
///
/// <div class="warning">
///
/// Two machines that encrypt from one snapshot without this call may use a nonce twice, which reveals the difference
/// of the plaintexts and lets an attacker forge ciphertexts.
///
/// </div>
///
/// ```
/// encx::reseed();
/// ```
pub fn reseed() {
    FORKS.fetch_add(1, Ordering::AcqRel);
}

/// Counts how often this memory may have been copied; `None` if forks cannot be detected.
#[inline]
#[must_use]
pub fn fork_count() -> Option<u64> {
    watch_forks().then(|| FORKS.load(Ordering::Acquire))
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
        // SAFETY: the handler lives as long as this code is loaded; libc drops it with the library that contains it.
        // It only writes to atomics, which is allowed between `fork` and `exec`, and cannot unwind.
        let status = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        if status == 0 {
            WATCHED.store(true, Ordering::Release);
        }
        status == 0
    }

    // Two threads may both register, which only counts a fork twice. A lock could be held by another thread at a fork,
    // and would then never open in the child.
    WATCHED.load(Ordering::Acquire) || register()
}

/// This platform has no `fork`.
#[cfg(not(unix))]
fn watch_forks() -> bool {
    true
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    //! Reads wiped memory at its address, as an attacker would.
    #![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

    use std::fs::File;
    use std::hint::black_box;
    use std::mem::ManuallyDrop;
    use std::os::unix::fs::FileExt;

    use super::*;

    const SECRET: u8 = 0xa5;

    /// Reads memory that no value owns any more, as an attacker with access to this process's memory would.
    fn read<const LEN: usize>(at: usize) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let memory = File::open("/proc/self/mem").unwrap();
        memory.read_exact_at(&mut bytes, at as u64).unwrap();
        bytes
    }

    /// Has the layout of a cipher that is chosen at run time.
    union Cipher {
        whole: [u8; 64],
        _short: ManuallyDrop<DropsShort>,
    }

    /// Wipes nothing, so that nothing in the union is wiped by its own `Drop`.
    struct DropsShort;

    #[test]
    fn a_value_is_wiped_whole_after_it_was_dropped() {
        struct Counts<'a>(
            &'a AtomicU64,
            #[allow(dead_code, reason = "read through the system")] Cipher,
        );

        impl Drop for Counts<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }

        let drops = AtomicU64::new(0);
        let held = Cipher { whole: [SECRET; 64] };
        let mut place = Box::new(ManuallyDrop::new(Wiped::new(Counts(&drops, held))));
        let at = std::ptr::from_ref(&*place).addr();
        assert!(read::<72>(at).contains(&SECRET));
        // SAFETY: it is not used or dropped again.
        unsafe { ManuallyDrop::drop(&mut place) };
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        assert_eq!(read::<72>(at), [0; 72]);
    }

    /// Leaves a secret on the stack and returns its address, below what `read` itself uses.
    #[inline(never)]
    fn leave_behind() -> usize {
        let secret = black_box([SECRET; 8192]);
        std::ptr::from_ref(&secret).addr()
    }

    #[test]
    fn the_stack_is_wiped_as_deep_as_it_was_used() {
        let at = leave_behind();
        assert_eq!(read::<2048>(at), [SECRET; 2048], "it was left there");
        let at = wiping_stack::<DEEP, _>(leave_behind);
        assert_eq!(read::<2048>(at), [0; 2048]);
    }
}

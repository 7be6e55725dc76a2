//! This process's memory: what is wiped from it, and whether it may have been copied.
//!
//! The one file of encx that may hold unsafe code. Neither has a safe form: to wipe a value whole, with the bytes that it
//! does not use, and to register a handler with `fork`.
#![allow(unsafe_code, reason = "audited here, and nowhere else")]

use std::mem::{self, MaybeUninit};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::{ptr, slice};

use zeroize::{Zeroize, ZeroizeOnDrop, zeroize_stack};

/// Holds a value whose memory is wiped whole when it is dropped: its fields, its padding, and the inactive variants of its
/// unions. Crates that wipe their own keys wipe less: a cipher that is chosen at run time lies in a union, and a move of it
/// copies all of that.
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
        // SAFETY: `new` initialised it, and only `drop` takes it away.
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
        // SAFETY: it is initialised, as in `deref`, and nothing uses it after this.
        unsafe { self.0.assume_init_drop() };
        slice::from_mut(&mut self.0).zeroize();
    }
}

impl<T> ZeroizeOnDrop for Wiped<T> {}

/// Makes a call that handles keys, and wipes the stack that it used, as far as `DEPTH` bytes down.
///
/// What the call takes and returns stays where the caller has it. It must be no secret: references and boxes are none.
#[inline(always)]
pub fn wiping_stack<const DEPTH: usize, T>(call: impl FnOnce() -> T) -> T {
    // Not inlined: its frame, and those of all that it calls, begin where the wiped room begins.
    #[inline(never)]
    fn apart<T>(call: impl FnOnce() -> T) -> T {
        call()
    }
    let done = apart(call);
    zeroize_stack::<DEPTH>();
    done
}

/// How deep a stack is wiped where time does not matter, in bytes.
pub const DEEP: usize = 32 << 10;

/// Whether ciphers are taken to be compiled without optimisation, so that they need more stack and leave more there.
///
/// No `cfg` tells `opt-level`. Cargo's own profiles switch `debug_assertions` with it, so this follows that. A profile that sets
/// them apart gets the wrong depth: with both, the stack is wiped deeper than it need be, which takes time; with neither, not deep
/// enough, and keys may stay there. SECURITY.md says so.
pub const UNOPTIMISED: bool = cfg!(debug_assertions);

/// Raised whenever this process's memory may have been copied.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// What else a copy of the memory has to forget: nothing, or a `fn()`. No lock, for a child could be made while one is held.
static FORGET: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Has a function called whenever this process's memory may have been copied. The last that is named stays.
///
/// It is called between `fork` and `exec`, so it must do nothing but store to atomics.
pub fn forget_in_copies(forget: fn()) {
    FORGET.store(forget as *mut (), Ordering::Release);
}

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
/// found in time, build with `CryptoBuilder::os_nonces`: every nonce then comes from the operating system.
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
    FORKS.fetch_add(1, Ordering::AcqRel);
    let forget = FORGET.load(Ordering::Acquire);
    if !forget.is_null() {
        // SAFETY: only `forget_in_copies` stores there, and what it stores is a `fn()`.
        let forget = unsafe { mem::transmute::<*mut (), fn()>(forget) };
        forget();
    }
}

/// Counts how often this memory may have been copied, once it is certain that a fork will be noticed; `None` if that is impossible.
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
        // SAFETY: the handler lives as long as this code is loaded; libc drops it with the library that holds it. It
        // does nothing but write to atomics, which is allowed between `fork` and `exec`, and cannot unwind.
        let status = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        if status == 0 {
            WATCHED.store(true, Ordering::Release);
        }
        status == 0
    }

    // Two threads may both register, which only counts a fork twice. A lock here could be copied into a
    // child while another thread held it, and would then never open.
    WATCHED.load(Ordering::Acquire) || register()
}

/// There is no `fork` here.
#[cfg(not(unix))]
fn watch_forks() -> bool {
    true
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    //! What is wiped is read where it stood, as an attacker would read it.
    #![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

    use std::fs::File;
    use std::hint::black_box;
    use std::mem::ManuallyDrop;
    use std::os::unix::fs::FileExt;

    use super::*;

    const SECRET: u8 = 0xa5;

    /// Reads memory that is no longer a value's, as an attacker would who can read this process's memory.
    fn read<const LEN: usize>(at: usize) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let memory = File::open("/proc/self/mem").unwrap();
        memory.read_exact_at(&mut bytes, at as u64).unwrap();
        bytes
    }

    /// As a cipher that is chosen at run time.
    union Cipher {
        whole: [u8; 64],
        _short: ManuallyDrop<DropsShort>,
    }

    /// Nothing, so that of the union nothing is wiped by itself.
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
        // SAFETY: it is not used, and not dropped, again.
        unsafe { ManuallyDrop::drop(&mut place) };
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        assert_eq!(read::<72>(at), [0; 72]);
    }

    /// Leaves something on the stack, and says where: below what `read` uses itself.
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

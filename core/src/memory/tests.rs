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

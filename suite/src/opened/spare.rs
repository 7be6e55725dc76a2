//! Wiped buffers that are reused for later plaintexts.
//!
//! A plaintext is decrypted into another buffer than the ciphertext's. A wiped buffer needs neither an allocation nor a
//! copy of the encrypted bytes, which together take longer than wiping it again.

use std::cell::RefCell;
use std::sync::{Mutex, TryLockError};

/// How many buffers a thread keeps, and how many the process keeps.
const MAX_BUFFERS: usize = 16;

/// How many bytes of buffers a thread keeps.
const MAX_OF_THREAD: usize = 64 << 10;

/// How many bytes of buffers the process keeps besides, for plaintexts that a thread does not keep.
const MAX_OF_PROCESS: usize = 4 << 20;

/// A small new buffer's length is rounded up to a multiple of this, so that it fits the next small value, too.
const GRAIN: usize = 64;
const SMALL: usize = 1 << 10;

thread_local! {
    static OF_THREAD: RefCell<Spares> = const { RefCell::new(Spares::new(MAX_OF_THREAD)) };
}

static OF_PROCESS: Mutex<Spares> = Mutex::new(Spares::new(MAX_OF_PROCESS));

/// Returns a zeroed buffer of at least `len` bytes, if one was kept.
#[inline(always)]
pub(super) fn take(len: usize) -> Option<Vec<u8>> {
    with_spares(len, |spares| spares.take(len)).flatten()
}

/// Makes a buffer with this content, and a little spare room.
#[cold]
#[inline(never)]
pub(super) fn made(content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let roomy = if len < SMALL {
        len.next_multiple_of(GRAIN)
    } else {
        len
    };
    let mut buffer = Vec::with_capacity(roomy);
    buffer.extend_from_slice(content);
    buffer
}

/// Keeps a buffer whose bytes are all zero, or frees it.
#[inline(always)]
pub(super) fn keep(mut buffer: Vec<u8>) {
    if buffer.len() < buffer.capacity() {
        // The spare capacity was never written.
        buffer.resize(buffer.capacity(), 0);
    }
    debug_assert!(buffer.iter().all(|byte| *byte == 0), "it was wiped");
    with_spares(buffer.len(), |spares| spares.keep(buffer));
}

/// `None` while the thread exits, or while another thread has the process's buffers. No thread waits here: it can
/// allocate instead, and after a fork the other thread may not exist.
#[inline(always)]
fn with_spares<T>(len: usize, call: impl FnOnce(&mut Spares) -> T) -> Option<T> {
    if len > MAX_OF_THREAD {
        return match OF_PROCESS.try_lock() {
            Ok(mut spares) => Some(call(&mut spares)),
            Err(TryLockError::Poisoned(spares)) => Some(call(&mut spares.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        };
    }
    let call = |spares: &RefCell<Spares>| Some(call(&mut *spares.try_borrow_mut().ok()?));
    OF_THREAD.try_with(call).ok().flatten()
}

struct Spares {
    /// In the order in which they were kept.
    buffers: Vec<Vec<u8>>,
    /// Their total length, in bytes.
    bytes: usize,
    max_bytes: usize,
}

impl Spares {
    const fn new(max_bytes: usize) -> Self {
        Self {
            buffers: Vec::new(),
            bytes: 0,
            max_bytes,
        }
    }

    #[inline(always)]
    fn take(&mut self, len: usize) -> Option<Vec<u8>> {
        // Almost always the most recent one.
        let buffer = if self.buffers.last().is_some_and(|last| fits(last, len)) {
            self.buffers.pop()?
        } else {
            self.take_other(len)?
        };
        self.bytes -= buffer.len();
        Some(buffer)
    }

    #[cold]
    #[inline(never)]
    fn take_other(&mut self, len: usize) -> Option<Vec<u8>> {
        let at = self.buffers.iter().rposition(|buffer| fits(buffer, len))?;
        Some(self.buffers.remove(at))
    }

    #[inline(always)]
    fn keep(&mut self, buffer: Vec<u8>) {
        let bytes = self.bytes + buffer.len();
        let has_room = self.buffers.len() < self.buffers.capacity().min(MAX_BUFFERS);
        if has_room && bytes <= self.max_bytes && !buffer.is_empty() {
            self.bytes = bytes;
            self.buffers.push(buffer);
        } else {
            self.keep_for_others(buffer);
        }
    }

    #[cold]
    #[inline(never)]
    fn keep_for_others(&mut self, buffer: Vec<u8>) {
        if buffer.is_empty() || buffer.len() > self.max_bytes {
            return;
        }
        // The sizes in demand have changed since the first buffers were kept.
        while self.buffers.len() == MAX_BUFFERS || self.bytes + buffer.len() > self.max_bytes {
            self.bytes -= self.buffers.remove(0).len();
        }
        if self.buffers.capacity() == 0 {
            self.buffers.reserve_exact(MAX_BUFFERS);
        }
        self.bytes += buffer.len();
        self.buffers.push(buffer);
    }
}

/// Tells whether a buffer fits `len` bytes. A much larger one does not: the caller may keep it for long.
#[inline(always)]
fn fits(buffer: &[u8], len: usize) -> bool {
    (len..=len.next_multiple_of(GRAIN).saturating_mul(2)).contains(&buffer.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_to_who_wants_its_size() {
        let mut spares = Spares::new(MAX_OF_THREAD);
        for len in [64, 4096, 64, 1024] {
            spares.keep(vec![0; len]);
        }
        for (wanted, got) in [
            (4097, None),
            (3000, Some(4096)),
            (3000, None),
            (400, None),
            (500, Some(1024)),
            (65, None),
            (1, Some(64)),
            (64, Some(64)),
            (1, None),
        ] {
            assert_eq!(spares.take(wanted).map(|buffer| buffer.len()), got, "{wanted}");
        }
        assert_eq!(spares.bytes, 0);
    }

    #[test]
    fn they_are_bounded_and_follow_what_is_wanted_now() {
        let mut spares = Spares::new(MAX_OF_THREAD);
        for _ in 0..2 * MAX_BUFFERS {
            spares.keep(vec![0; 64]);
        }
        assert_eq!(
            (spares.buffers.len(), spares.bytes),
            (MAX_BUFFERS, MAX_BUFFERS * 64)
        );
        for _ in 0..3 {
            spares.keep(vec![0; MAX_OF_THREAD / 2]);
        }
        assert_eq!((spares.buffers.len(), spares.bytes), (2, MAX_OF_THREAD));
        spares.keep(vec![0; MAX_OF_THREAD + 1]);
        spares.keep(Vec::new());
        assert_eq!((spares.buffers.len(), spares.bytes), (2, MAX_OF_THREAD));
    }

    #[test]
    fn large_ones_belong_to_the_process_and_nobody_waits_for_them() {
        let len = MAX_OF_THREAD + 1;
        let kept = || {
            let spares = OF_PROCESS.lock().unwrap();
            spares.buffers.iter().any(|buffer| buffer.len() == len)
        };
        assert!(!kept());
        // Another test may have the buffers at this moment, and then it is freed.
        while !kept() {
            std::thread::spawn(move || keep(vec![0; len])).join().unwrap();
        }
        let held = OF_PROCESS.lock().unwrap();
        assert_eq!(take(len), None);
        keep(vec![0; len]);
        drop(held);
    }
}

//! Shared parts of the measurement: payloads, the clock, the counter of KMS calls, and the table.

pub(crate) mod kms;
pub(crate) mod table;

use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use kms::KmsCalls;

/// What every library authenticates besides the plaintext, if it can.
pub(crate) const AAD: [u8; 64] = [0x5a; 64];
pub(crate) const OTHER_AAD: [u8; 64] = [0x5b; 64];

/// The lengths of the plaintexts, in bytes.
pub(crate) const LENGTHS: [usize; 3] = [FIELD, 1 << 10, 16 << 10];
/// The length of a field, for which the overhead is counted.
pub(crate) const FIELD: usize = 64;

pub(crate) const KEY: [u8; 32] = [7; 32];

pub(crate) fn payload(len: usize) -> Vec<u8> {
    vec![0xa5; len]
}

/// Makes this many calls, and returns their total time.
pub(crate) type Run<'a> = Box<dyn Fn(u64) -> Duration + 'a>;

/// A library in one configuration, with its key in memory if it caches one.
pub(crate) trait Subject {
    fn name(&self) -> &'static str;

    /// Asserts that its ciphertext decrypts, and does not decrypt in another place.
    fn check(&self);

    /// Returns the number of bytes that are stored for a plaintext.
    fn stored_len(&self, plaintext: &[u8]) -> usize;

    fn encrypt(&self, plaintext: Vec<u8>) -> Run<'_>;

    /// Encrypts a plaintext once, and decrypts it repeatedly.
    fn decrypt(&self, plaintext: Vec<u8>) -> Run<'_>;

    /// Counts KMS calls, if the library has an interface for it.
    fn kms_calls(&self) -> Option<KmsCalls>;

    /// Returns a remark for the table.
    fn note(&self) -> Option<String> {
        None
    }
}

/// Times a call and the drop of its result.
pub(crate) fn timed<'a, T>(call: impl Fn() -> T + 'a) -> Run<'a> {
    Box::new(move |calls| {
        let begin = Instant::now();
        for _ in 0..calls {
            black_box(call());
        }
        begin.elapsed()
    })
}

/// Times a call that consumes its input. Inputs are cloned outside the timed region, in batches that stay in the L1
/// cache.
pub(crate) fn timed_with<'a, I: Clone + 'a, T>(input: I, len: usize, call: impl Fn(I) -> T + 'a) -> Run<'a> {
    let batch = ((32 << 10) / len as u64).clamp(1, 32);
    Box::new(move |calls| {
        let (mut left, mut elapsed) = (calls, Duration::ZERO);
        while left > 0 {
            let inputs: Vec<_> = (0..batch.min(left)).map(|_| input.clone()).collect();
            left -= inputs.len() as u64;
            let begin = Instant::now();
            for input in inputs {
                black_box(call(black_box(input)));
            }
            elapsed += begin.elapsed();
        }
        elapsed
    })
}

/// Completes a future that never waits. Inlined, so that the future is created where it is polled, as with `await`.
#[inline(always)]
pub(crate) fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("there is something to wait for"),
    }
}

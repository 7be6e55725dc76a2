//! Shared helpers of the tests.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use xaes_256_gcm::aead::{Aead, KeyInit, Payload};

use crate::bytes::HalfNonce;
use crate::ciphertext::{COMMITMENT_LEN, NONCE_LEN, Suite};
use crate::epoch::{Epoch, Epochs};
use crate::key::DataKey;
use crate::nonce::NonceSource;
use crate::xaes::PaddedHalf;
use crate::{Backend, SuiteKey, SuiteOptions};

pub(crate) fn options(backend: Backend) -> SuiteOptions {
    SuiteOptions {
        nonces: NonceSource::Thread,
        backend,
    }
}

pub(crate) fn suite_key(backend: Backend, bytes: [u8; 32]) -> SuiteKey {
    SuiteKey::new(&DataKey::copy_from(&bytes).unwrap(), options(backend))
}

pub(crate) fn halves(nonce: [u8; 24]) -> [HalfNonce; 2] {
    let (first, second) = nonce.split_at(12);
    [first.try_into().unwrap(), second.try_into().unwrap()]
}

/// A half nonce, and padding that must be ignored.
pub(crate) fn padded(half: HalfNonce) -> PaddedHalf {
    let mut padded = [0x5a; 16];
    padded[..12].copy_from_slice(&half);
    padded
}

/// Seals under a given nonce and returns the body.
pub(crate) fn seal_with(
    key: &SuiteKey,
    suite: Suite,
    with: [u8; 24],
    aad: &[u8],
    plaintext: &[u8],
) -> Vec<u8> {
    let mut body = Vec::new();
    key.seal_with_nonce(suite, &halves(with), aad, plaintext, &mut body)
        .unwrap();
    body
}

pub(crate) fn nonce(body: &[u8]) -> [u8; 24] {
    body[..NONCE_LEN].try_into().unwrap()
}

pub(crate) fn first_half(body: &[u8]) -> HalfNonce {
    halves(nonce(body))[0]
}

pub(crate) fn second_half(body: &[u8]) -> HalfNonce {
    halves(nonce(body))[1]
}

/// Opens everything but the commitment with another implementation.
pub(crate) fn oracle_opens(key: [u8; 32], suite: Suite, aad: &[u8], body: &[u8]) -> Vec<u8> {
    let end = match suite {
        Suite::KcXaes256Gcm => body.len() - COMMITMENT_LEN,
        _ => body.len(),
    };
    let payload = Payload {
        msg: &body[NONCE_LEN..end],
        aad,
    };
    let oracle = xaes_256_gcm::Xaes256Gcm::new(&key.into());
    oracle.decrypt(&nonce(body).into(), payload).unwrap()
}

/// A data key and its epoch, kept between calls as encx's cache keeps them.
pub(crate) struct Sealer {
    pub(crate) key: SuiteKey,
    pub(crate) epoch: Option<Arc<Epoch>>,
}

impl Sealer {
    pub(crate) fn new(backend: Backend, key: [u8; 32]) -> Self {
        Self {
            key: suite_key(backend, key),
            epoch: None,
        }
    }

    /// A sealer past its first message, whose epoch is not kept.
    pub(crate) fn begun(backend: Backend, key: [u8; 32]) -> Self {
        let mut sealer = Self::new(backend, key);
        sealer.seal(Suite::KcXaes256Gcm, b"", b"");
        sealer
    }

    pub(crate) fn with_epochs<T>(&mut self, call: impl FnOnce(&SuiteKey, &mut Epochs<'_>) -> T) -> T {
        let mut epochs = Epochs::new(self.epoch.as_ref());
        let done = call(&self.key, &mut epochs);
        if let Some(begun) = epochs.begun() {
            self.epoch = Some(begun);
        }
        done
    }

    pub(crate) fn seal(&mut self, suite: Suite, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        self.with_epochs(|key, epochs| {
            let mut body = Vec::new();
            key.seal(epochs, suite, aad, plaintext, &mut body).unwrap();
            body
        })
    }

    /// Seals a message with this half nonce, drawn at this fork count.
    pub(crate) fn seal_drawn(&mut self, half: HalfNonce, fork: Option<u64>) -> Vec<u8> {
        self.with_epochs(|key, epochs| {
            let (suite, mut body) = (Suite::KcXaes256Gcm, Vec::new());
            key.seal_drawn(epochs, &padded(half), fork, suite, b"aad", b"secret", &mut body)
                .unwrap();
            body
        })
    }
}

/// The state that all tests of this process share: the fork count.
static PROCESS: RwLock<()> = RwLock::new(());

/// Keeps other tests from changing the fork count.
pub(crate) fn undisturbed() -> RwLockReadGuard<'static, ()> {
    PROCESS.read().unwrap_or_else(PoisonError::into_inner)
}

/// Allows this test to change the fork count.
pub(crate) fn disturbing() -> RwLockWriteGuard<'static, ()> {
    PROCESS.write().unwrap_or_else(PoisonError::into_inner)
}

/// Reads the memory after a vector's content, as an attacker with access to this process's memory would.
#[cfg(target_os = "linux")]
pub(crate) fn spare_bytes(buffer: &Vec<u8>) -> Vec<u8> {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    let mut spare = vec![0; buffer.capacity() - buffer.len()];
    let at = buffer.as_ptr().addr() + buffer.len();
    let memory = File::open("/proc/self/mem").unwrap();
    memory.read_exact_at(&mut spare, at as u64).unwrap();
    spare
}

//! The AEAD of ciphertexts under one data key: chooses the message key, and lays out a message.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::backend::{Backend, backend};
use super::bytes::{Block, Commitment, HalfNonce, Tag};
use super::epoch::{Epoch, Epochs};
use super::error::{OpenError, Refused, SealError};
use super::gcm::DERIVATION;
use super::message_key_cache::{CachedMessageKey, MessageKeyCache};
use super::nonce::{self, NonceSource};
use super::opened::Opened;
use super::xaes::{MessageKey, PaddedHalf, Xaes, half};
use crate::ciphertext::{MAX_PLAINTEXT_LEN, NONCE_LEN, Suite};
use crate::key::{DataKey, fill_from_os};
use crate::memory::{self, wiping_stack};

/// How data keys seal and open.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct SuiteOptions {
    /// The source of the second half of nonces.
    pub nonces: NonceSource,
    /// The library that encrypts.
    pub backend: Backend,
}

impl Default for SuiteOptions {
    fn default() -> Self {
        Self {
            nonces: NonceSource::Thread,
            backend: backend(),
        }
    }
}

/// Seals and opens the bodies of ciphertexts under one data key, which is expanded once and wiped on drop.
#[doc(hidden)]
pub struct SuiteKey {
    pub(super) xaes: Xaes,
    nonces: NonceSource,
    backend: Backend,
    /// Whether an epoch has begun. The first one is not kept: most cached data keys encrypt nothing, or once.
    begun: AtomicBool,
    pub(super) opened: MessageKeyCache,
}

impl SuiteKey {
    #[doc(hidden)]
    #[must_use]
    pub fn new(key: &DataKey, SuiteOptions { nonces, backend }: SuiteOptions) -> Self {
        Self {
            xaes: Xaes::new(key.expose()),
            nonces,
            backend,
            begun: AtomicBool::new(false),
            opened: MessageKeyCache::new(),
        }
    }

    /// Appends `nonce 24 ‖ encrypted plaintext ‖ tag 16`, and for suite 1 `commitment 32`, to `out`.
    ///
    /// `aad` is GCM's whole AAD. On an error `out` is unchanged. It allocates only if `out` lacks room, which is
    /// [`Suite::body_overhead`] plus the plaintext, or when an epoch begins.
    #[inline(always)]
    #[doc(hidden)]
    pub fn seal(
        &self,
        epochs: &mut Epochs<'_>,
        suite: Suite,
        aad: &[u8],
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let (second_half, fork) = nonce::draw_one(self.nonces)?;
        self.seal_drawn(epochs, &second_half, fork, suite, aad, plaintext, out)
    }

    /// Returns what the key was made with.
    #[doc(hidden)]
    #[must_use]
    pub fn options(&self) -> SuiteOptions {
        let (nonces, backend) = (self.nonces, self.backend);
        SuiteOptions { nonces, backend }
    }

    /// Starts a batch of messages whose nonces are drawn together.
    #[doc(hidden)]
    pub fn batch(&self, messages: usize) -> Batch<'_> {
        Batch {
            key: self,
            drawn: [PaddedHalf::default(); DRAWN_TOGETHER],
            next: 0,
            end: 0,
            fork: None,
            to_come: messages,
        }
    }

    /// Seals with a half nonce that was drawn for this message, unless it ends the epoch.
    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "what a message consists of")]
    pub(super) fn seal_drawn(
        &self,
        epochs: &mut Epochs<'_>,
        second_half: &PaddedHalf,
        fork: Option<u64>,
        suite: Suite,
        aad: &[u8],
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        if let Some(epoch) = epochs.current()
            && epoch.takes(second_half, fork)
        {
            return self.seal_under(&epoch.key, second_half, suite, aad, plaintext, out);
        }
        self.begin_epoch(epochs, fork, suite, aad, plaintext, out)
    }

    /// Seals the first message of an epoch, whose whole nonce comes from the operating system.
    #[cold]
    #[inline(never)]
    fn begin_epoch(
        &self,
        epochs: &mut Epochs<'_>,
        fork: Option<u64>,
        suite: Suite,
        aad: &[u8],
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let (mut first_half, mut second_half) = (HalfNonce::default(), PaddedHalf::default());
        fill_from_os(&mut first_half)?;
        fill_from_os(&mut second_half)?;
        // If forks cannot be detected, an epoch is one message.
        let kept = fork.filter(|_| self.begun.swap(true, Ordering::Relaxed));
        wiping_stack::<DERIVATION, _>(|| {
            let key = self.xaes.derive(self.backend, &first_half);
            let Some(fork) = kept else {
                return self.seal_under(&key, &second_half, suite, aad, plaintext, out);
            };
            let epoch = epochs.begun.insert(Arc::new(Epoch { key, fork }));
            self.seal_under(&epoch.key, &second_half, suite, aad, plaintext, out)
        })
    }

    #[cfg(test)]
    pub(super) fn seal_with_nonce(
        &self,
        suite: Suite,
        [first_half, second_half]: &[HalfNonce; 2],
        aad: &[u8],
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        // The padding is ignored.
        let mut padded = [0xaa; 16];
        padded[..12].copy_from_slice(second_half);
        self.seal_under(
            &self.xaes.derive(self.backend, first_half),
            &padded,
            suite,
            aad,
            plaintext,
            out,
        )
    }

    #[inline(always)]
    fn seal_under(
        &self,
        key: &MessageKey,
        second_half: &PaddedHalf,
        suite: Suite,
        aad: &[u8],
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let found = plaintext.len();
        let iv = half(second_half);
        if found > MAX_PLAINTEXT_LEN {
            return Err(SealError::TooLong { found });
        }
        // First, because nothing depends on it: the processor encrypts in parallel.
        let commitment = (suite == Suite::KcXaes256Gcm).then(|| self.xaes.commit(key, second_half));
        let before = out.len();
        // Reserve once: a vector that grew would leave plaintext behind in the freed memory.
        out.reserve(suite.body_overhead() + found);
        out.extend_from_slice(&key.first_half);
        out.extend_from_slice(iv);
        let begin = out.len();
        out.extend_from_slice(plaintext);
        out.extend_from_slice(&Tag::default());
        let sealed = match out[begin..].split_last_chunk_mut() {
            Some((buffer, tag)) => key.gcm.seal(iv, aad, buffer, tag),
            None => Err(Refused),
        };
        if let Err(Refused) = sealed {
            out[begin..].zeroize();
            out.truncate(before);
            return Err(SealError::TooLong { found });
        }
        if let Some(commitment) = commitment {
            out.extend_from_slice(commitment.as_flattened());
        }
        Ok(())
    }

    /// Opens the body of a ciphertext. Compares the commitment first, if the suite has one.
    ///
    /// `epoch` is the caller's epoch for encryption; its messages need no derivation.
    #[inline(always)]
    #[doc(hidden)]
    pub fn open(
        &self,
        epoch: Option<&Epoch>,
        suite: Suite,
        aad: &[u8],
        body: &[u8],
    ) -> Result<Opened, OpenError> {
        let (parts, encrypted) = Parts::of(suite, body).ok_or(OpenError::TooShort)?;
        let mut opened = Opened::copied_from(encrypted);
        self.open_parts(epoch, parts, aad, opened.as_mut_bytes())?;
        Ok(opened)
    }

    /// Opens the body of a ciphertext that starts at `begin`, and leaves only the plaintext in the buffer. On an error
    /// the buffer is wiped and empty.
    #[doc(hidden)]
    pub fn open_in_place(
        &self,
        epoch: Option<&Epoch>,
        suite: Suite,
        aad: &[u8],
        buffer: &mut Vec<u8>,
        begin: usize,
    ) -> Result<(), OpenError> {
        let mut wiped = WipedUnlessOpened(Some(buffer));
        let Some(buffer) = wiped.0.as_deref_mut() else {
            return Err(OpenError::TooShort);
        };
        let mut second_half = PaddedHalf::default();
        let body = buffer.get_mut(begin..);
        let body = body.and_then(|body| Parts::in_place(suite, body, &mut second_half));
        let (parts, encrypted) = body.ok_or(OpenError::TooShort)?;
        self.open_parts(epoch, parts, aad, encrypted)?;
        let (from, len) = (begin + NONCE_LEN, encrypted.len());
        buffer.copy_within(from..from + len, 0);
        // The bytes behind still hold the old copy of the plaintext.
        buffer[len..].zeroize();
        buffer.truncate(len);
        wiped.0 = None;
        Ok(())
    }

    /// Checks the commitment and the tag, and decrypts in place.
    #[inline(always)]
    fn open_parts(
        &self,
        epoch: Option<&Epoch>,
        parts: Parts<'_>,
        aad: &[u8],
        buffer: &mut [u8],
    ) -> Result<(), OpenError> {
        let first_half = parts.first_half;
        let of_epoch = || Some(&*epoch?.key).filter(|key| key.first_half == *first_half);
        match self.opened.find(first_half).or_else(of_epoch) {
            Some(key) => self.open_under(key, parts, aad, buffer),
            None => self.derive_and_open(parts, aad, buffer),
        }
    }

    #[inline(never)]
    fn derive_and_open(&self, parts: Parts<'_>, aad: &[u8], buffer: &mut [u8]) -> Result<(), OpenError> {
        let first_half = parts.first_half;
        wiping_stack::<DERIVATION, _>(|| {
            let key = self.xaes.derive(self.backend, first_half);
            match self.opened.admit(first_half) {
                Some(admission) => {
                    let kept = CachedMessageKey::new(key, admission);
                    self.open_under(&kept.key, parts, aad, buffer)?;
                    self.opened.keep(kept);
                }
                None => {
                    self.open_under(&key, parts, aad, buffer)?;
                    self.opened.note_miss(first_half);
                }
            }
            Ok(())
        })
    }

    #[inline(always)]
    fn open_under(
        &self,
        key: &MessageKey,
        parts: Parts<'_>,
        aad: &[u8],
        buffer: &mut [u8],
    ) -> Result<(), OpenError> {
        let iv = half(parts.second_half);
        if let Some(commitment) = parts.commitment {
            let ours = self.xaes.commit(key, parts.second_half);
            if !bool::from(difference(&ours, commitment).ct_eq(&0)) {
                return Err(OpenError::Commitment);
            }
        }
        let opened = key.gcm.open(iv, aad, buffer, parts.tag);
        opened.map_err(|_| OpenError::Tag)
    }
}

/// Seals a known number of messages in sequence. Their nonces are drawn together, each at random; none
/// is computed from another.
#[doc(hidden)]
pub struct Batch<'a> {
    key: &'a SuiteKey,
    drawn: [PaddedHalf; DRAWN_TOGETHER],
    next: usize,
    end: usize,
    fork: Option<u64>,
    to_come: usize,
}

/// How many half nonces are drawn at once.
const DRAWN_TOGETHER: usize = 16;

impl Batch<'_> {
    /// Seals the next message, as [`SuiteKey::seal`].
    #[inline(always)]
    #[doc(hidden)]
    pub fn seal(
        &mut self,
        epochs: &mut Epochs<'_>,
        suite: Suite,
        aad: &[u8],
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let nonces = self.key.nonces;
        let (second_half, fork) = self.draw(|blocks| nonce::draw(nonces, blocks))?;
        self.key
            .seal_drawn(epochs, &second_half, fork, suite, aad, plaintext, out)
    }

    /// Takes the next half nonce, and draws more when all are used. Returns each one once, with the fork count at which
    /// it was drawn.
    #[inline]
    pub(super) fn draw<E>(
        &mut self,
        from: impl FnOnce(&mut [PaddedHalf]) -> Result<Option<u64>, E>,
    ) -> Result<(PaddedHalf, Option<u64>), E> {
        // The process may have forked between two messages of a batch, and the other process has these bytes too.
        let same_process = self.fork.is_some() && self.fork == memory::fork_count();
        if self.next == self.end || !same_process {
            // If the draw fails, no half nonce is left.
            (self.next, self.end) = (0, 0);
            let end = self.to_come.clamp(1, DRAWN_TOGETHER);
            self.fork = from(&mut self.drawn[..end])?;
            self.end = end;
        }
        let second_half = self.drawn[self.next];
        self.next += 1;
        self.to_come = self.to_come.saturating_sub(1);
        Ok((second_half, self.fork))
    }
}

/// The parts of a ciphertext's body, besides the encrypted plaintext. Borrowed: copying them takes
/// as long as an AES block.
#[derive(Clone, Copy)]
struct Parts<'a> {
    first_half: &'a HalfNonce,
    second_half: &'a PaddedHalf,
    tag: &'a Tag,
    commitment: Option<&'a Commitment>,
}

impl<'a> Parts<'a> {
    /// Splits a body. `None` if it is too short.
    #[inline(always)]
    fn of(suite: Suite, body: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (first_half, rest) = body.split_first_chunk()?;
        // At least a tag follows the nonce.
        let second_half = rest.first_chunk()?;
        let rest = rest.get(NONCE_LEN / 2..)?;
        let (rest, commitment) = match suite {
            Suite::KcXaes256Gcm => {
                let (rest, commitment) = rest.split_last_chunk()?;
                (rest, Some(commitment))
            }
            Suite::Xaes256Gcm => (rest, None),
            _ => return None,
        };
        let (encrypted, tag) = rest.split_last_chunk()?;
        let parts = Self {
            first_half,
            second_half,
            tag,
            commitment,
        };
        Some((parts, encrypted))
    }

    /// Splits a body whose plaintext is decrypted in place.
    #[inline(always)]
    fn in_place(
        suite: Suite,
        body: &'a mut [u8],
        second_half: &'a mut PaddedHalf,
    ) -> Option<(Self, &'a mut [u8])> {
        *second_half = *body.get(NONCE_LEN / 2..)?.first_chunk()?;
        let (first_half, rest) = body.split_first_chunk_mut()?;
        let rest = rest.get_mut(NONCE_LEN / 2..)?;
        let (rest, commitment) = match suite {
            Suite::KcXaes256Gcm => {
                let (rest, commitment) = rest.split_last_chunk_mut()?;
                (rest, Some(&*commitment))
            }
            Suite::Xaes256Gcm => (rest, None),
            _ => return None,
        };
        let (encrypted, tag) = rest.split_last_chunk_mut()?;
        let parts = Self {
            first_half,
            second_half,
            tag,
            commitment,
        };
        Some((parts, encrypted))
    }
}

/// Wipes and empties a buffer on drop, unless it was taken out.
struct WipedUnlessOpened<'a>(Option<&'a mut Vec<u8>>);

impl Drop for WipedUnlessOpened<'_> {
    fn drop(&mut self) {
        if let Some(buffer) = &mut self.0 {
            buffer.zeroize();
        }
    }
}

/// Returns zero if two commitments are equal. Compares all bytes, in four steps: comparing them byte by byte in
/// constant time is slower.
#[inline(always)]
fn difference(ours: &[Block; 2], theirs: &Commitment) -> u64 {
    let (ours, _) = ours.as_flattened().as_chunks();
    let (theirs, _) = theirs.as_chunks();
    let part = |at: usize| u64::from_ne_bytes(ours[at]) ^ u64::from_ne_bytes(theirs[at]);
    part(0) | part(1) | part(2) | part(3)
}

impl ZeroizeOnDrop for SuiteKey {}

impl fmt::Debug for SuiteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SuiteKey([REDACTED])")
    }
}

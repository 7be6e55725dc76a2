//! A cached data key, which seals and opens the ciphertexts of its scope.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use encx_core::aad::{Aad, PREFIX_LEN};
use encx_core::ciphertext::{Ciphertext, HEADER_LEN, Header, MAX_PLAINTEXT_LEN, SUITE_AT, Suite};
use encx_core::key::{DataKey, Scope};
use encx_suite::{Batch, Epoch, Epochs, OpenError, SealError, SuiteKey, SuiteOptions};
use zeroize::Zeroize;

use crate::cache::key_meta::KeyMeta;
use crate::cache::later::Later;
use crate::error::{Boxed, Error, Location};
use crate::plaintext::Plaintext;

/// A data key, unwrapped and expanded. Zeroised when its last user drops it.
pub(crate) struct DataCipher {
    meta: KeyMeta,
    key: SuiteKey,
    /// The start of the AAD of a suite 1 ciphertext. Computed once, because that takes as long as an AES block.
    prefix: AadPrefix,
}

impl Deref for DataCipher {
    type Target = KeyMeta;

    #[inline]
    fn deref(&self) -> &KeyMeta {
        &self.meta
    }
}

/// `header 18 ‖ scope 32`.
type AadPrefix = [u8; PREFIX_LEN];

const _: () = assert!(PREFIX_LEN == HEADER_LEN + Scope::LEN);

impl DataCipher {
    /// Takes a scope's key.
    pub(super) fn new(meta: KeyMeta, scope: Scope, key: &DataKey, options: SuiteOptions) -> Arc<Self> {
        let header = Header {
            suite: Suite::KcXaes256Gcm,
            key_id: meta.id,
        };
        Arc::new(Self {
            meta,
            key: SuiteKey::new(key, options),
            prefix: aad_prefix(header, scope),
        })
    }

    #[cfg(test)]
    pub(crate) fn options(&self) -> SuiteOptions {
        self.key.options()
    }

    /// Seals a plaintext of any allowed length.
    #[inline(always)]
    pub(crate) fn seal(
        &self,
        epochs: &mut Epochs<'_>,
        suite: Suite,
        plaintext: &[u8],
        aad: &mut Aad,
    ) -> Boxed<Ciphertext> {
        let mut sealed = Vec::new();
        self.seal_into(epochs, suite, plaintext, aad, &mut sealed)?;
        Ok(Ciphertext::from_sealed(sealed))
    }

    /// Seals into an empty buffer, and leaves it empty after an error.
    #[inline(always)]
    pub(crate) fn seal_into(
        &self,
        epochs: &mut Epochs<'_>,
        suite: Suite,
        plaintext: &[u8],
        aad: &mut Aad,
        buffer: &mut Vec<u8>,
    ) -> Boxed<()> {
        let aad = self.begin(suite, plaintext, aad, buffer)?;
        if let Err(error) = self.key.seal(epochs, suite, aad, plaintext, buffer) {
            buffer.clear();
            return Err(why_not_sealed(error));
        }
        Ok(())
    }

    /// Starts a batch of messages.
    pub(crate) fn batch(&self, messages: usize) -> DataCipherBatch<'_> {
        DataCipherBatch {
            key: self,
            batch: self.key.batch(messages),
        }
    }

    /// Reserves room for a ciphertext in an empty buffer, writes its header, and returns GCM's AAD.
    #[inline(always)]
    fn begin<'a>(
        &self,
        suite: Suite,
        plaintext: &[u8],
        aad: &'a mut Aad,
        out: &mut Vec<u8>,
    ) -> Boxed<&'a [u8]> {
        let aad = self.gcm_aad(suite, aad)?;
        // Refuse a plaintext before allocating for it.
        check_len(plaintext)?;
        let len = suite.overhead() + plaintext.len();
        if out.capacity() < len {
            if out.capacity() > 0 {
                // The buffer may have held a plaintext; wipe it before it is reallocated. (Writing zero bytes through
                // AVX-512 takes a hundred nanoseconds.)
                out.zeroize();
            }
            *out = Vec::with_capacity(len);
        }
        out.extend_from_slice(&aad[..HEADER_LEN]);
        Ok(aad)
    }

    /// Completes GCM's AAD, `header 18 ‖ scope 32 ‖ framed AAD`, in the AAD's own buffer.
    #[inline(always)]
    fn gcm_aad<'a>(&self, suite: Suite, aad: &'a mut Aad) -> Boxed<&'a [u8]> {
        let whole = aad.with_prefix(&self.prefix).map_err(Error::boxed)?;
        if suite != Suite::KcXaes256Gcm {
            whole[SUITE_AT] = suite.code();
        }
        Ok(whole)
    }

    /// Opens a ciphertext of this key, in either suite.
    #[inline(always)]
    pub(crate) fn open(
        &self,
        epoch: Option<&Epoch>,
        ciphertext: &Ciphertext,
        aad: &mut Aad,
        later: &mut Later,
    ) -> Boxed<Plaintext> {
        let suite = ciphertext.suite();
        let aad = self.gcm_aad(suite, aad)?;
        let opened = self.key.open(epoch, suite, aad, ciphertext.body());
        opened
            .map(Plaintext::new)
            .map_err(|error| self.refused(error, later))
    }

    /// Opens a ciphertext of this key in place; see [`SuiteKey::open_in_place`].
    #[inline]
    pub(crate) fn open_in_place(
        &self,
        epoch: Option<&Epoch>,
        header: Header,
        buffer: &mut Vec<u8>,
        aad: &mut Aad,
        later: &mut Later,
    ) -> Boxed<()> {
        let aad = self.gcm_aad(header.suite, aad)?;
        let opened = self
            .key
            .open_in_place(epoch, header.suite, aad, buffer, HEADER_LEN);
        opened.map_err(|error| self.refused(error, later))
    }

    /// Returns one opaque error. The exact fault goes only to the key holder's own log.
    #[cold]
    fn refused(&self, error: OpenError, later: &mut Later) -> Box<Error> {
        later.note_refused(self.id, error);
        let at = Location::of_key(self.id);
        Box::new(Error::Decrypt { at })
    }
}

impl fmt::Debug for DataCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataCipher")
            .field("id", &self.id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Seals many messages under one key; see [`Batch`].
pub(crate) struct DataCipherBatch<'a> {
    key: &'a DataCipher,
    batch: Batch<'a>,
}

impl DataCipherBatch<'_> {
    /// Seals the next message, as [`DataCipher::seal`].
    pub(crate) fn seal(
        &mut self,
        epochs: &mut Epochs<'_>,
        suite: Suite,
        plaintext: &[u8],
        aad: &mut Aad,
    ) -> Boxed<Ciphertext> {
        let (key, batch) = (self.key, &mut self.batch);
        let mut sealed = Vec::new();
        let aad = key.begin(suite, plaintext, aad, &mut sealed)?;
        batch
            .seal(epochs, suite, aad, plaintext, &mut sealed)
            .map_err(why_not_sealed)?;
        Ok(Ciphertext::from_sealed(sealed))
    }
}

#[cold]
fn why_not_sealed(error: SealError) -> Box<Error> {
    Box::new(match error {
        SealError::Random(error) => Error::Random(error),
        SealError::TooLong { found } => Error::PlaintextTooLong { found },
        error => Error::Config {
            what: error.to_string(),
        },
    })
}

/// Refuses a plaintext that is too long for one ciphertext.
#[inline]
pub(crate) fn check_len(plaintext: &[u8]) -> Boxed<()> {
    let found = plaintext.len();
    if found > MAX_PLAINTEXT_LEN {
        return Err(Error::boxed(Error::PlaintextTooLong { found }));
    }
    Ok(())
}

fn aad_prefix(header: Header, scope: Scope) -> AadPrefix {
    let mut prefix = [0; PREFIX_LEN];
    let (of_header, of_scope) = prefix.split_at_mut(HEADER_LEN);
    of_header.copy_from_slice(&header.to_bytes());
    of_scope.copy_from_slice(scope.as_bytes());
    prefix
}

//! Calls that work in a buffer of the caller's.

use std::task::{Context, Poll};

use zeroize::Zeroize;

use super::Keyring;
use super::call::{Call, HotFirst, Place, poll_use};
use super::core::{Waiting, check_input};
use crate::cache::Later;
use crate::error::{Error, Hot, unbox};
use encx_core::aad::{Aad, AsAad};
use encx_core::ciphertext::Header;
use encx_suite::Epochs;

impl Keyring {
    /// Encrypts into a buffer, whose content it replaces by the ciphertext's bytes. Allocates nothing if the buffer has
    /// room: the plaintext's length and [`Suite::overhead`](crate::suite::Suite::overhead), 90 bytes. The buffer is emptied at once, before
    /// the future is polled.
    ///
    /// # Errors
    ///
    /// As [`encrypt`](Self::encrypt); the buffer is then empty.
    ///
    /// # Cancellation
    ///
    /// As [`encrypt`](Self::encrypt); the buffer is then empty.
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext, Field};
    /// # encx_testkit::block_on(async {
    /// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
    /// # let context = EncryptionContext::builder().pair("tenantId", "t-42").build()?;
    /// const SSN: Field = Field::new("users", "ssn");
    ///
    /// let keyring = crypto.keyring(&context).await?;
    /// let mut buffer = Vec::new();
    /// for (row, ssn) in [(7, "123-45-6789"), (8, "987-65-4321")] {
    ///     keyring.encrypt_into(ssn, SSN.row(row), &mut buffer).await?;
    ///     // `buffer` is what the column keeps.
    ///     keyring.decrypt_in_place(&mut buffer, SSN.row(row)).await?;
    ///     assert_eq!(buffer, ssn.as_bytes());
    /// }
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn encrypt_into<'a, 'b, P: AsRef<[u8]>, A: AsAad>(
        &'a self,
        plaintext: P,
        aad: A,
        buffer: &'b mut Vec<u8>,
    ) -> HotFirst<(), EncryptInto<'a, 'b, P, A::Kept>> {
        buffer.clear();
        HotFirst::new(EncryptInto {
            keyring: self,
            plaintext,
            aad: aad.keep(),
            buffer,
        })
    }

    /// Encrypts into a buffer if the key is in memory. Never waits and needs no runtime.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] if the key is not in memory; otherwise as [`encrypt_into`](Self::encrypt_into).
    pub fn try_encrypt_into(
        &self,
        plaintext: impl AsRef<[u8]>,
        aad: impl AsAad,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let aad = aad.keep();
        let (plaintext, aad) = (plaintext.as_ref(), aad.as_aad());
        buffer.clear();
        self.hot_encrypt_into(plaintext, aad, buffer)
            .unwrap_or_else(|| Err(Box::new(self.core.cache.why_not_ready())))
            .map_err(unbox)
    }

    /// Decrypts a buffer that holds a ciphertext's bytes, and leaves the plaintext in their place. Allocates nothing.
    ///
    /// Nobody zeroises the buffer afterwards, unless it is a `Zeroizing<Vec<u8>>`, as of crate `zeroize`.
    ///
    /// # Errors
    ///
    /// [`Error::Ciphertext`] if the buffer holds no ciphertext; otherwise as [`decrypt`](Self::decrypt). After any error the
    /// buffer is wiped and empty, so that nobody takes what it held for a plaintext: keep the ciphertext elsewhere if
    /// you mean to try again.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time; the buffer then still holds the ciphertext, or is wiped and empty.
    pub fn decrypt_in_place<'a, 'b, A: AsAad>(
        &'a self,
        buffer: &'b mut Vec<u8>,
        aad: A,
    ) -> HotFirst<(), DecryptInPlace<'a, 'b, A::Kept>> {
        HotFirst::new(DecryptInPlace {
            keyring: self,
            buffer,
            aad: aad.keep(),
        })
    }

    /// Decrypts a buffer in place if the key is in memory. Never waits and needs no runtime.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] if the key is not in memory; otherwise as [`decrypt_in_place`](Self::decrypt_in_place). The
    /// buffer is then wiped and empty.
    pub fn try_decrypt_in_place(&self, buffer: &mut Vec<u8>, aad: impl AsAad) -> Result<(), Error> {
        let aad = aad.keep();
        let aad = aad.as_aad();
        self.hot_decrypt_in_place(buffer, aad)
            .unwrap_or_else(|| Err(Box::new(self.core.cache.why_not_ready())))
            .map_err(|error| {
                let key = Header::key_id_of(buffer);
                // Before a subscriber runs, which may panic.
                buffer.zeroize();
                self.core.refused(error, key, aad)
            })
    }

    /// Decrypts a buffer in place, if that needs nobody else; `None` if it does.
    #[inline(never)]
    fn hot_decrypt_in_place(&self, buffer: &mut Vec<u8>, aad: &Aad) -> Option<Hot<()>> {
        self.core
            .hot_decrypt_in_place(self.hot_entry(&mut None), buffer, aad)
    }
}

/// Encrypts into an empty buffer.
pub struct EncryptInto<'a, 'b, P, A> {
    keyring: &'a Keyring,
    plaintext: P,
    aad: A,
    buffer: &'b mut Vec<u8>,
}

impl<P: AsRef<[u8]>, A: AsAad> Call for EncryptInto<'_, '_, P, A> {
    type Output = ();

    #[inline(always)]
    fn hot(&mut self) -> Option<Hot<()>> {
        let (plaintext, aad) = (self.plaintext.as_ref(), self.aad.as_aad());
        self.keyring.hot_encrypt_into(plaintext, aad, self.buffer)
    }

    fn load(&self) -> Waiting {
        let checked = check_input(self.plaintext.as_ref(), self.aad.as_aad());
        self.keyring.core.key_to_seal(self.keyring.entry(), checked)
    }

    fn finish(&mut self, waiting: &mut Waiting, _: &mut Later, context: &mut Context<'_>) -> Poll<Hot<()>> {
        let suite = self.keyring.core.suite;
        let (plaintext, aad) = (self.plaintext.as_ref(), self.aad.as_aad());
        poll_use(waiting, context, |key| {
            key.seal_into(&mut Epochs::new(None), suite, plaintext, aad, self.buffer)
        })
    }
}

/// Decrypts a buffer that holds a ciphertext's bytes. After an error it is wiped and empty.
pub struct DecryptInPlace<'a, 'b, A> {
    keyring: &'a Keyring,
    buffer: &'b mut Vec<u8>,
    aad: A,
}

impl<A: AsAad> Call for DecryptInPlace<'_, '_, A> {
    type Output = ();

    #[inline(always)]
    fn hot(&mut self) -> Option<Hot<()>> {
        self.keyring.hot_decrypt_in_place(self.buffer, self.aad.as_aad())
    }

    fn load(&self) -> Waiting {
        match Header::of(self.buffer) {
            Ok(header) => {
                let keyring = self.keyring;
                keyring
                    .core
                    .key_to_open(keyring.entry(), header, self.aad.as_aad())
            }
            Err(error) => Box::pin(std::future::ready(Err(error.into()))),
        }
    }

    fn finish(
        &mut self,
        waiting: &mut Waiting,
        later: &mut Later,
        context: &mut Context<'_>,
    ) -> Poll<Hot<()>> {
        let (core, aad) = (&self.keyring.core, self.aad.as_aad());
        poll_use(waiting, context, |key| {
            let header = Header::of(self.buffer).map_err(Error::boxed)?;
            core.open_in_place(key, None, header, self.buffer, aad, later)
        })
    }

    fn failed(&mut self, error: &mut Error) {
        let key = Header::key_id_of(self.buffer);
        // Before a subscriber runs, which may panic.
        self.buffer.zeroize();
        self.keyring.core.note_refused(error, key, self.aad.as_aad());
    }
}

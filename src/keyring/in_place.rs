//! Calls that work in a caller's buffer.

use std::task::{Context, Poll};

use encx_core::aad::Aad;
use encx_core::ciphertext::Header;
use encx_suite::Epochs;
use zeroize::Zeroize;

use super::call::{Call, Place, poll_use};
use super::core::{Waiting, check_input};
use crate::cache::Later;
use crate::error::{Boxed, Error};

/// Locates the key of a call in a buffer.
pub(crate) trait BufferPlace: Place {
    /// Decrypts a buffer in place, if that needs no load; otherwise `None`.
    fn try_decrypt_in_place(&self, buffer: &mut Vec<u8>, aad: &mut Aad) -> Option<Boxed<()>>;
}

/// Encrypts into an empty buffer.
pub struct EncryptInto<'b, W, P> {
    pub(super) place: W,
    pub(super) plaintext: P,
    pub(super) aad: Aad,
    pub(super) buffer: &'b mut Vec<u8>,
}

impl<W: Place, P: AsRef<[u8]>> Call for EncryptInto<'_, W, P> {
    type Output = ();

    #[inline(always)]
    fn try_now(&mut self) -> Option<Boxed<()>> {
        let (plaintext, aad) = (self.plaintext.as_ref(), &mut self.aad);
        self.place.try_encrypt_into(plaintext, aad, self.buffer)
    }

    fn load(&self) -> Waiting {
        let checked = check_input(self.plaintext.as_ref(), &self.aad);
        self.place.core().key_to_seal(self.place.entry(), checked)
    }

    fn finish(&mut self, waiting: &mut Waiting, _: &mut Later, context: &mut Context<'_>) -> Poll<Boxed<()>> {
        let suite = self.place.core().suite;
        let (plaintext, aad) = (self.plaintext.as_ref(), &mut self.aad);
        poll_use(waiting, context, |key| {
            key.seal_into(&mut Epochs::new(None), suite, plaintext, aad, self.buffer)
        })
    }
}

/// Decrypts the ciphertext in a buffer. After an error the buffer is wiped and empty.
pub struct DecryptInPlace<'b, W> {
    pub(super) place: W,
    pub(super) buffer: &'b mut Vec<u8>,
    pub(super) aad: Aad,
}

impl<W: BufferPlace> Call for DecryptInPlace<'_, W> {
    type Output = ();

    #[inline(always)]
    fn try_now(&mut self) -> Option<Boxed<()>> {
        self.place.try_decrypt_in_place(self.buffer, &mut self.aad)
    }

    fn load(&self) -> Waiting {
        match Header::of(self.buffer) {
            Ok(header) => {
                let core = self.place.core();
                core.key_to_open(self.place.entry(), header, &self.aad)
            }
            Err(error) => Box::pin(std::future::ready(Err(error.into()))),
        }
    }

    fn finish(
        &mut self,
        waiting: &mut Waiting,
        later: &mut Later,
        context: &mut Context<'_>,
    ) -> Poll<Boxed<()>> {
        let (core, aad) = (self.place.core(), &mut self.aad);
        poll_use(waiting, context, |key| {
            let header = Header::of(self.buffer).map_err(Error::boxed)?;
            core.open_in_place(key, None, header, self.buffer, aad, later)
        })
    }

    fn failed(&mut self, error: &mut Error) {
        let key = Header::key_id_of(self.buffer);
        // Before a subscriber runs, because it may panic.
        self.buffer.zeroize();
        self.place.core().note_refused(error, key, &self.aad);
    }
}

//! The hot handle for one encryption context.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use smallvec::SmallVec;

use crate::aad::Aad;
use crate::cache::{Cache, CacheHandle, KeySet, LiveKey, Slot};
use crate::ciphertext::{self, Ciphertext, MAX_PLAINTEXT_LEN, Suite};
use crate::context::EncryptionContext;
use crate::error::Error;
use crate::key::Scope;
use crate::plaintext::Plaintext;
use crate::suite::{OpenError, SealError};

/// Encrypts and decrypts under one encryption context, without looking it up each time.
///
/// A keyring is a cheap handle: it holds no key. Keys leave memory when their time is over, and come back when
/// they are needed, however long a keyring is kept. Get one from [`Crypto::keyring`](crate::Crypto::keyring).
#[derive(Clone)]
pub struct Keyring {
    core: Core,
    slot: Arc<Slot>,
    /// The slot that took its place after the cache dropped it. Nearly always empty, so a hot call looks no further
    /// than a plain reference.
    successor: Arc<ArcSwapOption<Slot>>,
}

impl Keyring {
    pub(crate) fn new(core: Core, slot: Arc<Slot>) -> Self {
        Self {
            core,
            slot,
            successor: Arc::default(),
        }
    }

    /// Returns the encryption context.
    #[must_use]
    pub fn context(&self) -> EncryptionContext {
        self.slot.key.context.clone()
    }

    /// Encrypts a value of at most 64 MiB and binds it to its place.
    ///
    /// # Errors
    ///
    /// As [`Crypto::encrypt`](crate::Crypto::encrypt).
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time; a key that is being loaded for it is loaded all the same.
    pub async fn encrypt(
        &self,
        plaintext: impl AsRef<[u8]>,
        aad: impl Borrow<Aad>,
    ) -> Result<Ciphertext, Error> {
        let (plaintext, aad) = (plaintext.as_ref(), aad.borrow());
        match self.on_slot(|slot| self.core.hot_encrypt(slot, plaintext, aad)) {
            Some(done) => done,
            None => self.core.encrypt(&self.on_slot(Arc::clone), plaintext, aad).await,
        }
    }

    /// Encrypts if the key is in memory. Never waits and needs no runtime.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] if the key is not in memory; otherwise as [`encrypt`](Self::encrypt).
    pub fn try_encrypt(
        &self,
        plaintext: impl AsRef<[u8]>,
        aad: impl Borrow<Aad>,
    ) -> Result<Ciphertext, Error> {
        let (plaintext, aad) = (plaintext.as_ref(), aad.borrow());
        self.on_slot(|slot| self.core.hot_encrypt(slot, plaintext, aad))
            .unwrap_or_else(|| Err(self.core.cache.why_not_ready()))
    }

    /// Decrypts a value that was encrypted under this context and bound to this place.
    ///
    /// # Errors
    ///
    /// As [`Crypto::decrypt`](crate::Crypto::decrypt).
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time; a key that is being loaded for it is loaded all the same.
    pub async fn decrypt(&self, ciphertext: &Ciphertext, aad: impl Borrow<Aad>) -> Result<Plaintext, Error> {
        let aad = aad.borrow();
        match self.on_slot(|slot| self.core.hot_decrypt(slot, ciphertext, aad)) {
            Some(done) => done,
            None => {
                self.core
                    .decrypt(&self.on_slot(Arc::clone), ciphertext, aad)
                    .await
            }
        }
    }

    /// Decrypts if the key is in memory. Never waits and needs no runtime.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] if the key is not in memory; otherwise as [`decrypt`](Self::decrypt).
    pub fn try_decrypt(&self, ciphertext: &Ciphertext, aad: impl Borrow<Aad>) -> Result<Plaintext, Error> {
        let aad = aad.borrow();
        self.on_slot(|slot| self.core.hot_decrypt(slot, ciphertext, aad))
            .unwrap_or_else(|| Err(self.core.cache.why_not_ready()))
    }

    /// Tells whether encrypting the same value again would use a newer key or another suite.
    ///
    /// # Errors
    ///
    /// As [`Crypto::needs_reencryption`](crate::Crypto::needs_reencryption).
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn needs_reencryption(&self, ciphertext: &Ciphertext) -> Result<bool, Error> {
        let slot = self.on_slot(Arc::clone);
        self.core.needs_reencryption(&slot, ciphertext).await
    }

    /// Makes a call that does not wait with the slot, or with the new one if the cache has dropped it.
    ///
    /// It borrows the slot: an `Arc` would be counted up and down by all threads in one place.
    fn on_slot<T>(&self, call: impl FnOnce(&Arc<Slot>) -> T) -> T {
        if self.slot.is_detached() {
            return call(&self.successor());
        }
        self.slot.mark_used();
        call(&self.slot)
    }

    #[cold]
    fn successor(&self) -> Arc<Slot> {
        if let Some(slot) = self.successor.load_full().filter(|slot| !slot.is_detached()) {
            slot.mark_used();
            return slot;
        }
        let slot = self.core.cache.slot(&self.slot.key.context, self.slot.key.usage);
        self.successor.store(Some(Arc::clone(&slot)));
        slot
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("context", &self.slot.key.context)
            .finish_non_exhaustive()
    }
}

/// What keyrings and `Crypto` share: the cache, and which suites are written and read.
#[derive(Clone, Debug)]
pub(crate) struct Core {
    pub(crate) cache: Arc<CacheHandle>,
    pub(crate) suite: Suite,
    pub(crate) accept_uncommitted: bool,
}

impl Core {
    pub(crate) fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    pub(crate) async fn encrypt(
        &self,
        slot: &Arc<Slot>,
        plaintext: &[u8],
        aad: &Aad,
    ) -> Result<Ciphertext, Error> {
        if let Some(done) = self.hot_encrypt(slot, plaintext, aad) {
            return done;
        }
        check_input(plaintext, aad)?;
        let key = self.cache.active_key(slot).await?;
        self.seal(slot.scope, &key, plaintext, aad)
    }

    /// Encrypts if that needs nobody else; `None` if it does.
    pub(crate) fn hot_encrypt(
        &self,
        slot: &Slot,
        plaintext: &[u8],
        aad: &Aad,
    ) -> Option<Result<Ciphertext, Error>> {
        let set = slot.live();
        let set = set.as_ref()?;
        let key = set.active.as_ref()?;
        if let Err(error) = self.may_use(set, key)? {
            return Some(Err(error));
        }
        self.cache.counters.hits.add(1);
        Some(self.seal(slot.scope, key, plaintext, aad))
    }

    /// Tells whether the key that encrypts is in memory and may be used.
    pub(crate) fn is_ready(&self, slot: &Slot) -> bool {
        let set = slot.live();
        let usable = |set: &Arc<KeySet>| self.may_use(set, set.active.as_ref()?);
        matches!(set.as_ref().and_then(usable), Some(Ok(())))
    }

    /// Tells whether a key may be used now: by its age, and by how old its known state is. `None` if somebody has to be
    /// asked.
    fn may_use(&self, set: &KeySet, key: &LiveKey) -> Option<Result<(), Error>> {
        let now = self.cache.clock.elapsed();
        if now >= key.expires_at {
            return None;
        }
        match self.cache.is_current(set.known_at, now) {
            Ok(true) => Some(Ok(())),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }

    pub(crate) async fn decrypt(
        &self,
        slot: &Arc<Slot>,
        ciphertext: &Ciphertext,
        aad: &Aad,
    ) -> Result<Plaintext, Error> {
        if let Some(done) = self.hot_decrypt(slot, ciphertext, aad) {
            return done;
        }
        self.check_suite(ciphertext)?;
        check_input(&[], aad)?;
        let key = self.cache.key_by_id(slot, ciphertext.key_id()).await?;
        self.open(slot.scope, &key, ciphertext, aad)
    }

    /// Decrypts if that needs nobody else; `None` if it does.
    pub(crate) fn hot_decrypt(
        &self,
        slot: &Slot,
        ciphertext: &Ciphertext,
        aad: &Aad,
    ) -> Option<Result<Plaintext, Error>> {
        let set = slot.live();
        let set = set.as_ref()?;
        let key = set.find(ciphertext.key_id())?;
        if let Err(error) = self.may_use(set, key)? {
            return Some(Err(error));
        }
        self.cache.counters.hits.add(1);
        Some(self.open(slot.scope, key, ciphertext, aad))
    }

    pub(crate) async fn needs_reencryption(
        &self,
        slot: &Arc<Slot>,
        ciphertext: &Ciphertext,
    ) -> Result<bool, Error> {
        let id = ciphertext.key_id();
        let records = self.cache.records_with(slot, id).await?;
        let active = records.active()?.ok_or_else(|| records.why_none_is_active())?;
        Ok(active.id != id || ciphertext.suite() != self.suite)
    }

    pub(crate) fn seal(
        &self,
        scope: Scope,
        key: &LiveKey,
        plaintext: &[u8],
        aad: &Aad,
    ) -> Result<Ciphertext, Error> {
        let header = ciphertext::header(self.suite, key.id);
        let aad = gcm_aad(&header, scope, aad)?;
        // Nothing is allocated for a plaintext that is refused anyway.
        if plaintext.len() > MAX_PLAINTEXT_LEN {
            return Err(Error::PlaintextTooLong {
                found: plaintext.len(),
            });
        }
        let mut out = Vec::with_capacity(self.suite.overhead() + plaintext.len());
        out.extend_from_slice(&header);
        key.key
            .seal(self.suite, &aad, plaintext, &mut out)
            .map_err(|error| match error {
                SealError::Random(error) => Error::Random(error),
                SealError::TooLong { found } => Error::PlaintextTooLong { found },
            })?;
        Ok(Ciphertext::from_sealed(self.suite, key.id, out))
    }

    pub(crate) fn open(
        &self,
        scope: Scope,
        key: &LiveKey,
        ciphertext: &Ciphertext,
        aad: &Aad,
    ) -> Result<Plaintext, Error> {
        self.check_suite(ciphertext)?;
        let aad = gcm_aad(ciphertext.header(), scope, aad)?;
        let opened = key.key.open(ciphertext.suite(), &aad, ciphertext.body());
        // One opaque error: what exactly was wrong is nobody's business but the key holder's.
        let opened = opened.map_err(|error: OpenError| {
            tracing::debug!(target: "encx::refused", key = %key.id, %error, "ciphertext refused");
            Error::Decrypt
        })?;
        Ok(Plaintext::new(opened))
    }

    pub(crate) fn check_suite(&self, ciphertext: &Ciphertext) -> Result<(), Error> {
        match ciphertext.suite() {
            Suite::KcXaes256Gcm => Ok(()),
            Suite::Xaes256Gcm if self.accept_uncommitted => Ok(()),
            suite @ Suite::Xaes256Gcm => Err(Error::SuiteNotAccepted { suite }),
        }
    }
}

/// Refuses what can never be sealed or opened, before anybody is asked for a key.
pub(crate) fn check_input(plaintext: &[u8], aad: &Aad) -> Result<(), Error> {
    aad.framed()?;
    if plaintext.len() > MAX_PLAINTEXT_LEN {
        return Err(Error::PlaintextTooLong {
            found: plaintext.len(),
        });
    }
    Ok(())
}

/// Puts GCM's AAD together: header 18 ‖ scope 32 ‖ framed AAD. On the stack for AADs of ordinary length.
#[inline(always)]
fn gcm_aad(header: &[u8], scope: Scope, aad: &Aad) -> Result<SmallVec<[u8; 256]>, Error> {
    let framed = aad.framed()?;
    // Filled and then copied over: to extend it piece by piece takes three times as long.
    let mut whole = SmallVec::from_elem(0, header.len() + Scope::LEN + framed.len());
    let (of_header, rest) = whole.split_at_mut(header.len());
    let (of_scope, of_caller) = rest.split_at_mut(Scope::LEN);
    of_header.copy_from_slice(header);
    of_scope.copy_from_slice(scope.as_bytes());
    of_caller.copy_from_slice(framed);
    Ok(whole)
}

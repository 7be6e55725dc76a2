//! What keyrings and `Crypto` share: a hot call that waits for nobody, and the way round when a key is not in memory.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::aad::Aad;
use crate::cache::{Cache, CacheHandle, KeySet, Life, LiveKey, Purpose, Slot, check_len};
use crate::ciphertext::{Ciphertext, Header, Suite};
use crate::error::{Error, Hot};
use crate::key::DataKeyId;
use crate::plaintext::Plaintext;
use crate::suite::{Epoch, Epochs};

/// What a call becomes whose key is not in memory. On the heap, so that the futures of hot calls are small: they are
/// polled where they are made, and whoever awaits them has room for them in its own future.
pub(crate) type Waiting<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

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

    #[cold]
    pub(crate) fn encrypt<'a>(
        &'a self,
        slot: Arc<Slot>,
        plaintext: &'a [u8],
        aad: &'a Aad,
    ) -> Waiting<'a, Ciphertext> {
        Box::pin(async move {
            check_input(plaintext, aad)?;
            let key = self.cache.active_key(&slot).await?;
            key.seal(&mut Epochs::new(None), self.suite, plaintext, aad)
                .map_err(|error| *error)
        })
    }

    #[cold]
    pub(crate) fn encrypt_into<'a>(
        &'a self,
        slot: Arc<Slot>,
        plaintext: &'a [u8],
        aad: &'a Aad,
        buffer: &'a mut Vec<u8>,
    ) -> Waiting<'a, ()> {
        Box::pin(async move {
            check_input(plaintext, aad)?;
            let key = self.cache.active_key(&slot).await?;
            key.seal_into(&mut Epochs::new(None), self.suite, plaintext, aad, buffer)
                .map_err(|error| *error)
        })
    }

    /// Encrypts if that needs nobody else; `None` if it does.
    #[inline(always)]
    pub(crate) fn hot_encrypt(&self, slot: &Slot, plaintext: &[u8], aad: &Aad) -> Option<Hot<Ciphertext>> {
        self.with_active(slot, |key, epochs| {
            self.cache.counters.hits.add(1);
            key.seal(epochs, self.suite, plaintext, aad)
        })
    }

    #[inline(always)]
    pub(crate) fn hot_encrypt_into(
        &self,
        slot: &Slot,
        plaintext: &[u8],
        aad: &Aad,
        buffer: &mut Vec<u8>,
    ) -> Option<Hot<()>> {
        self.with_active(slot, |key, epochs| {
            self.cache.counters.hits.add(1);
            key.seal_into(epochs, self.suite, plaintext, aad, buffer)
        })
    }

    /// Makes a call with the key that encrypts, if that needs nobody else; `None` if it does. The call counts its hits.
    #[inline(always)]
    pub(crate) fn with_active<T>(
        &self,
        slot: &Slot,
        call: impl FnOnce(&LiveKey, &mut Epochs<'_>) -> Hot<T>,
    ) -> Option<Hot<T>> {
        let set = slot.live();
        let set = set.as_ref()?;
        let key = set.active.as_ref()?;
        if let Err(error) = self.may_use(set, key, Purpose::Encrypt)? {
            return Some(Err(error));
        }
        let mut epochs = Epochs::new(set.epoch.as_ref());
        let done = call(key, &mut epochs);
        if let Some(begun) = epochs.begun() {
            slot.keep_epoch(set, begun);
        }
        Some(done)
    }

    /// Tells whether the key that encrypts is in memory and may be used.
    pub(crate) fn is_ready(&self, slot: &Slot) -> bool {
        let set = slot.live();
        let usable = |set: &Arc<KeySet>| {
            let now = self.cache.clock.elapsed_coarsely();
            self.check_use(set, set.active.as_ref()?, Purpose::Encrypt, now)
        };
        matches!(set.as_ref().and_then(usable), Some(Ok(())))
    }

    /// Tells whether a key may be used now: by its age, and by how old its known state is. `None` if somebody has to be
    /// asked.
    #[inline]
    pub(crate) fn may_use(&self, set: &KeySet, key: &Life, purpose: Purpose) -> Option<Hot<()>> {
        let now = self.cache.clock.elapsed_coarsely();
        let may = self.check_use(set, key, purpose, now);
        if let Some(Ok(())) = may {
            key.mark_used();
            self.cache.note_use(key, now);
        }
        may
    }

    #[inline]
    fn check_use(&self, set: &KeySet, key: &Life, purpose: Purpose, now: Duration) -> Option<Hot<()>> {
        if !key.serves(purpose, now, &self.cache.limits) {
            return None;
        }
        self.cache.is_set_current(set, now)
    }

    #[cold]
    pub(crate) fn decrypt<'a>(
        &'a self,
        slot: Arc<Slot>,
        ciphertext: &'a Ciphertext,
        aad: &'a Aad,
    ) -> Waiting<'a, Plaintext> {
        Box::pin(async move {
            let key = self.key_to_open(&slot, ciphertext.header(), aad).await?;
            self.open(&key, None, ciphertext, aad).map_err(|error| *error)
        })
    }

    #[cold]
    pub(crate) fn decrypt_in_place<'a>(
        &'a self,
        slot: Arc<Slot>,
        buffer: &'a mut Vec<u8>,
        aad: &'a Aad,
    ) -> Waiting<'a, ()> {
        Box::pin(async move {
            let header = Header::of(buffer)?;
            let key = self.key_to_open(&slot, header, aad).await?;
            self.open_in_place(&key, None, header, buffer, aad)
                .map_err(|error| *error)
        })
    }

    async fn key_to_open(&self, slot: &Arc<Slot>, header: Header, aad: &Aad) -> Result<Arc<LiveKey>, Error> {
        self.check_suite(header.suite)?;
        check_input(&[], aad)?;
        self.cache.key_by_id(slot, header.key_id).await
    }

    /// Decrypts if that needs nobody else; `None` if it does.
    #[inline(always)]
    pub(crate) fn hot_decrypt(
        &self,
        slot: &Slot,
        ciphertext: &Ciphertext,
        aad: &Aad,
    ) -> Option<Hot<Plaintext>> {
        let set = slot.live();
        match self.key_of(set.as_ref()?, ciphertext.key_id())? {
            Ok((key, epoch)) => Some(self.open(key, epoch, ciphertext, aad)),
            Err(error) => Some(Err(error)),
        }
    }

    #[inline(always)]
    pub(crate) fn hot_decrypt_in_place(
        &self,
        slot: &Slot,
        buffer: &mut Vec<u8>,
        aad: &Aad,
    ) -> Option<Hot<()>> {
        let header = match Header::of(buffer) {
            Ok(header) => header,
            Err(error) => return Some(Err(Error::boxed(error))),
        };
        let set = slot.live();
        match self.key_of(set.as_ref()?, header.key_id)? {
            Ok((key, epoch)) => Some(self.open_in_place(key, epoch, header, buffer, aad)),
            Err(error) => Some(Err(error)),
        }
    }

    /// Finds a key for one use to decrypt, and the epoch if it is of that key. `None` if somebody has to be asked.
    #[inline(always)]
    pub(super) fn key_of<'a>(
        &self,
        set: &'a KeySet,
        id: DataKeyId,
    ) -> Option<Hot<(&'a LiveKey, Option<&'a Epoch>)>> {
        let key = set.find(id)?;
        if let Err(error) = self.may_use(set, key, Purpose::Decrypt)? {
            return Some(Err(error));
        }
        self.cache.counters.hits.add(1);
        Some(Ok((key, set.epoch_of(key))))
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

    #[inline(always)]
    pub(crate) fn open(
        &self,
        key: &LiveKey,
        epoch: Option<&Epoch>,
        ciphertext: &Ciphertext,
        aad: &Aad,
    ) -> Hot<Plaintext> {
        self.check_suite(ciphertext.suite()).map_err(Error::boxed)?;
        key.open(epoch, ciphertext, aad)
    }

    fn open_in_place(
        &self,
        key: &LiveKey,
        epoch: Option<&Epoch>,
        header: Header,
        buffer: &mut Vec<u8>,
        aad: &Aad,
    ) -> Hot<()> {
        self.check_suite(header.suite).map_err(Error::boxed)?;
        key.open_in_place(epoch, header, buffer, aad)
    }

    pub(crate) fn check_suite(&self, suite: Suite) -> Result<(), Error> {
        match suite {
            Suite::KcXaes256Gcm => Ok(()),
            Suite::Xaes256Gcm if self.accept_uncommitted => Ok(()),
            Suite::Xaes256Gcm => Err(refuse_suite(suite)),
        }
    }
}

#[cold]
fn refuse_suite(suite: Suite) -> Error {
    tracing::info!(target: "encx::refused", ?suite, "suite not accepted");
    Error::SuiteNotAccepted { suite }
}

/// Refuses what can never be sealed or opened, before anybody is asked for a key.
pub(crate) fn check_input(plaintext: &[u8], aad: &Aad) -> Result<(), Error> {
    aad.framed()?;
    check_len(plaintext).map_err(|error| *error)
}

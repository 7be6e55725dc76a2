//! The hot handle for one encryption context.

mod batch;
mod call;
mod core;
mod in_place;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use encx_core::aad::{Aad, AsAad};
use encx_core::ciphertext::{Ciphertext, Header};
use encx_core::context::EncryptionContext;
use zeroize::Zeroize;

pub(crate) use self::batch::{Batch, Done, Item, ToOpen, ToSeal, Work, loaded};
pub(crate) use self::call::{Decrypt, Encrypt, Place, TryFirst};
pub(crate) use self::core::{Core, Look};
use self::in_place::{BufferPlace, DecryptInPlace, EncryptInto};

use crate::cache::Entry;
use crate::error::{Boxed, Error, unbox};
use crate::plaintext::Plaintext;

/// Encrypts and decrypts under one encryption context, without a lookup for each call.
///
/// A keyring is a cheap handle and holds no key. Keys leave memory when they expire and are loaded again when needed,
/// however long a keyring is kept. Get one from [`Crypto::keyring`](crate::Crypto::keyring).
///
/// ```
/// # use encx_testkit::{MemoryKeyStore, MemoryKms};
/// use encx::{Crypto, EncryptionContext, Field};
///
/// const SSN: Field = Field::new("users", "ssn");
///
/// # encx_testkit::block_on(async {
/// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
/// let tenant = crypto.keyring(&EncryptionContext::from_pairs([("tenantId", "t-42")])?).await?;
/// let sealed = tenant.encrypt("123-45-6789", SSN.row(7)).await?;
/// // The key is cached now, so code that cannot wait may decrypt, too.
/// assert_eq!(tenant.try_decrypt(&sealed, SSN.row(7))?.as_str()?, "123-45-6789");
/// # Ok::<(), encx::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Keyring {
    core: Core,
    entry: Arc<Entry>,
    /// The entry that replaced it after the cache dropped it. Almost always empty, so a hot call only
    /// follows a plain reference.
    successor: Arc<ArcSwapOption<Entry>>,
}

impl Keyring {
    pub(crate) fn new(core: Core, entry: Arc<Entry>) -> Self {
        Self {
            core,
            entry,
            successor: Arc::default(),
        }
    }

    /// Returns the encryption context.
    #[must_use]
    pub fn context(&self) -> EncryptionContext {
        self.entry.key.context.clone()
    }

    /// Encrypts a value of at most 64 MiB and binds it to its place.
    ///
    /// # Errors
    ///
    /// As [`Crypto::encrypt`](crate::Crypto::encrypt).
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time; a key that is being loaded still loads.
    pub fn encrypt<P: AsRef<[u8]>, A: AsAad>(
        &self,
        plaintext: P,
        aad: A,
    ) -> TryFirst<Ciphertext, Encrypt<&Self, P>> {
        TryFirst::new(Encrypt {
            place: self,
            plaintext,
            aad: aad.into_aad(),
        })
    }

    /// Encrypts if the key is cached. Never waits and needs no runtime.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] if the key is not cached; otherwise as [`encrypt`](Self::encrypt).
    pub fn try_encrypt(&self, plaintext: impl AsRef<[u8]>, aad: impl AsAad) -> Result<Ciphertext, Error> {
        let (plaintext, aad) = (plaintext.as_ref(), &mut aad.into_aad());
        Place::try_encrypt(&self, plaintext, aad)
            .unwrap_or_else(|| Err(Box::new(self.core.cache.why_not_ready())))
            .map_err(unbox)
    }

    /// Encrypts into a buffer, and replaces its content by the ciphertext's bytes. Allocates nothing if the buffer has
    /// room for the plaintext's length and [`Suite::overhead`](crate::suite::Suite::overhead), 90 bytes. The buffer is
    /// emptied at once, before the future is polled.
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
    ///     // The column stores `buffer`.
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
    ) -> TryFirst<(), EncryptInto<'b, &'a Self, P>> {
        buffer.clear();
        TryFirst::new(EncryptInto {
            place: self,
            plaintext,
            aad: aad.into_aad(),
            buffer,
        })
    }

    /// Encrypts into a buffer if the key is cached. Never waits and needs no runtime.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] if the key is not cached; otherwise as [`encrypt_into`](Self::encrypt_into).
    pub fn try_encrypt_into(
        &self,
        plaintext: impl AsRef<[u8]>,
        aad: impl AsAad,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let (plaintext, aad) = (plaintext.as_ref(), &mut aad.into_aad());
        buffer.clear();
        Place::try_encrypt_into(&self, plaintext, aad, buffer)
            .unwrap_or_else(|| Err(Box::new(self.core.cache.why_not_ready())))
            .map_err(unbox)
    }

    /// Decrypts a value that was encrypted under this context and bound to this place.
    ///
    /// # Errors
    ///
    /// As [`Crypto::decrypt`](crate::Crypto::decrypt).
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time; a key that is being loaded still loads.
    pub fn decrypt<'a, 'c, A: AsAad>(
        &'a self,
        ciphertext: &'c Ciphertext,
        aad: A,
    ) -> TryFirst<Plaintext, Decrypt<'c, &'a Self>> {
        TryFirst::new(Decrypt {
            place: self,
            ciphertext,
            aad: aad.into_aad(),
        })
    }

    /// Decrypts if the key is cached. Never waits and needs no runtime.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] if the key is not cached; otherwise as [`decrypt`](Self::decrypt).
    pub fn try_decrypt(&self, ciphertext: &Ciphertext, aad: impl AsAad) -> Result<Plaintext, Error> {
        let aad = &mut aad.into_aad();
        Place::try_decrypt(&self, ciphertext, aad)
            .unwrap_or_else(|| Err(Box::new(self.core.cache.why_not_ready())))
            .map_err(|error| self.core.refused(error, Some(ciphertext.key_id()), aad))
    }

    /// Decrypts the ciphertext in a buffer, and replaces it by the plaintext. Allocates nothing.
    ///
    /// The buffer is not zeroised afterwards, unless it is a `Zeroizing<Vec<u8>>`, as of crate `zeroize`.
    ///
    /// # Errors
    ///
    /// [`Error::Ciphertext`] if the buffer does not contain a ciphertext; otherwise as [`decrypt`](Self::decrypt).
    /// After any error the buffer is wiped and empty, so that its content cannot be mistaken for a plaintext: to try
    /// again, keep the ciphertext elsewhere.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time; the buffer then still contains the ciphertext, or is wiped and empty.
    pub fn decrypt_in_place<'a, 'b, A: AsAad>(
        &'a self,
        buffer: &'b mut Vec<u8>,
        aad: A,
    ) -> TryFirst<(), DecryptInPlace<'b, &'a Self>> {
        TryFirst::new(DecryptInPlace {
            place: self,
            buffer,
            aad: aad.into_aad(),
        })
    }

    /// Decrypts a buffer in place if the key is cached. Never waits and needs no runtime.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] if the key is not cached; otherwise as [`decrypt_in_place`](Self::decrypt_in_place). The
    /// buffer is then wiped and empty.
    pub fn try_decrypt_in_place(&self, buffer: &mut Vec<u8>, aad: impl AsAad) -> Result<(), Error> {
        let aad = &mut aad.into_aad();
        BufferPlace::try_decrypt_in_place(&self, buffer, aad)
            .unwrap_or_else(|| Err(Box::new(self.core.cache.why_not_ready())))
            .map_err(|error| {
                let key = Header::key_id_of(buffer);
                // Before a subscriber runs, because it may panic.
                buffer.zeroize();
                self.core.refused(error, key, aad)
            })
    }

    /// Encrypts many values, such as the fields of a record, each bound to its own place. The results are in the order
    /// of the items.
    ///
    /// Faster than separate calls of [`encrypt`](Self::encrypt): nonces are drawn together, and the key is checked once.
    ///
    /// # Errors
    ///
    /// Each item's result is as that of [`encrypt`](Self::encrypt).
    ///
    /// # Cancellation
    ///
    /// As [`encrypt`](Self::encrypt).
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext, Field};
    /// # encx_testkit::block_on(async {
    /// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
    /// # let context = EncryptionContext::builder().pair("tenantId", "t-42").build()?;
    /// const NAME: Field = Field::new("users", "name");
    /// const SSN: Field = Field::new("users", "ssn");
    ///
    /// let keyring = crypto.keyring(&context).await?;
    /// let fields = [("Ada", NAME.row(7)), ("123-45-6789", SSN.row(7))];
    /// let sealed = keyring.encrypt_many(fields).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    ///
    /// let fields = sealed.iter().zip([NAME.row(7), SSN.row(7)]);
    /// let opened = keyring.decrypt_many(fields).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(opened[1].as_str()?, "123-45-6789");
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn encrypt_many<'a, P, A>(
        &'a self,
        items: impl IntoIterator<Item = (P, A)>,
    ) -> Batch<'a, Self, (P, A), Ciphertext>
    where
        P: AsRef<[u8]> + Send + Sync + 'a,
        A: AsAad + 'a,
    {
        Batch::new(self, items, Self::try_encrypt_many, |keyring, items, mut done| {
            Box::pin(async move {
                let rest = items[done.len()..].iter().map(to_seal);
                done.extend(keyring.do_rest(rest).await);
                done
            })
        })
    }

    fn try_encrypt_many<P: AsRef<[u8]>, A: AsAad>(
        &self,
        items: &[(P, A)],
        done: &mut Done<Ciphertext>,
    ) -> bool {
        self.core
            .try_encrypt_many(self.current_entry(&mut None), items, to_seal, done)
    }

    /// Decrypts many values that were encrypted under this context, each bound to its own place. The results are in the
    /// order of the items.
    ///
    /// # Errors
    ///
    /// Each item's result is as that of [`decrypt`](Self::decrypt).
    ///
    /// # Cancellation
    ///
    /// As [`decrypt`](Self::decrypt).
    pub fn decrypt_many<'a, A>(
        &'a self,
        items: impl IntoIterator<Item = (&'a Ciphertext, A)>,
    ) -> Batch<'a, Self, (&'a Ciphertext, A), Plaintext>
    where
        A: AsAad + 'a,
    {
        Batch::new(self, items, Self::try_decrypt_many, |keyring, items, mut done| {
            Box::pin(async move {
                let rest = items[done.len()..].iter().map(to_open);
                done.extend(keyring.do_rest(rest).await);
                keyring
                    .core
                    .note_all_refused(items.iter().map(to_open), &mut done);
                done
            })
        })
    }

    fn try_decrypt_many<A: AsAad>(&self, items: &[(&Ciphertext, A)], done: &mut Done<Plaintext>) -> bool {
        let all = self
            .core
            .try_decrypt_many(self.current_entry(&mut None), items, to_open, done);
        if all {
            self.core.note_all_refused(items.iter().map(to_open), done);
        }
        all
    }

    /// Does the rest of a batch once a key must be loaded.
    async fn do_rest<T: Work>(&self, values: impl Iterator<Item = T>) -> Done<T::Done> {
        let entry = &self.entry();
        let items: Vec<_> = values.map(|what| Item { entry, what }).collect();
        self.core.do_cold(&items).await
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
        self.core.needs_reencryption(&self.entry(), ciphertext).await
    }

    pub(crate) fn entry(&self) -> Arc<Entry> {
        Arc::clone(self.current_entry(&mut None))
    }

    /// Returns the entry, or its replacement if the cache has dropped it. `kept` keeps the replacement.
    ///
    /// It borrows the entry: all threads would contend on an `Arc`'s count. And it takes no function to call: with two
    /// call sites, for the old entry and the new one, the function would not be inlined.
    #[inline(always)]
    pub(crate) fn current_entry<'a>(&'a self, kept: &'a mut Option<Arc<Entry>>) -> &'a Arc<Entry> {
        if self.entry.is_detached() {
            return self.successor_in(kept);
        }
        self.entry.mark_used();
        &self.entry
    }

    #[cold]
    #[inline(never)]
    fn successor_in<'a>(&self, kept: &'a mut Option<Arc<Entry>>) -> &'a Arc<Entry> {
        kept.insert(self.successor())
    }

    fn successor(&self) -> Arc<Entry> {
        if let Some(entry) = self.successor.load_full().filter(|entry| !entry.is_detached()) {
            entry.mark_used();
            return entry;
        }
        let entry = self
            .core
            .cache
            .entry(&self.entry.key.context, self.entry.key.usage);
        self.successor.store(Some(Arc::clone(&entry)));
        entry
    }
}

/// Separate functions, each compiled once: inlining them at every `.await` would gain nothing.
impl Place for &Keyring {
    fn core(&self) -> &Core {
        &self.core
    }

    fn entry(&self) -> Arc<Entry> {
        Keyring::entry(self)
    }

    #[inline(never)]
    fn try_encrypt_into(&self, plaintext: &[u8], aad: &mut Aad, buffer: &mut Vec<u8>) -> Option<Boxed<()>> {
        self.core
            .try_encrypt_into(self.current_entry(&mut None), plaintext, aad, buffer)
    }

    #[inline(never)]
    fn try_decrypt(&self, ciphertext: &Ciphertext, aad: &mut Aad) -> Option<Boxed<Plaintext>> {
        self.core
            .try_decrypt(self.current_entry(&mut None), ciphertext, aad)
    }
}

impl BufferPlace for &Keyring {
    #[inline(never)]
    fn try_decrypt_in_place(&self, buffer: &mut Vec<u8>, aad: &mut Aad) -> Option<Boxed<()>> {
        self.core
            .try_decrypt_in_place(self.current_entry(&mut None), buffer, aad)
    }
}

fn to_seal<P: AsRef<[u8]>, A: AsAad>((plaintext, aad): &(P, A)) -> ToSeal<'_> {
    (plaintext.as_ref(), aad.as_aad())
}

fn to_open<'i, A: AsAad>((ciphertext, aad): &'i (&Ciphertext, A)) -> ToOpen<'i> {
    (ciphertext, aad.as_aad())
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("context", &self.entry.key.context)
            .finish_non_exhaustive()
    }
}

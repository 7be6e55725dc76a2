//! Many values at once: every key that is missing is loaded once, and all of them together.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::aad::Aad;
use crate::cache::{LiveKey, Slot};
use crate::ciphertext::Ciphertext;
use crate::context::EncryptionContext;
use crate::crypto::Crypto;
use crate::error::Error;
use crate::key::{DataKeyId, KeyUsage, Scope};
use crate::keyring::check_input;
use crate::plaintext::Plaintext;

impl Crypto {
    /// Encrypts many values, each under its own context and bound to its own place.
    ///
    /// The results are in the order of the items, and each may fail by itself. Keys that are not in memory are
    /// loaded together: one query for all of them, and the KMS calls at once.
    ///
    /// ```
    /// # #[cfg(feature = "testkit")] {
    /// # use encx::testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext, Field};
    /// # encx::testkit::block_on(async {
    /// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
    /// # let context = EncryptionContext::builder().pair("tenantId", "t-42").build()?;
    /// const NAME: Field = Field::new("users", "name");
    /// const SSN: Field = Field::new("users", "ssn");
    ///
    /// let items = [(&context, "Ada", NAME.row(7)), (&context, "123-45-6789", SSN.row(7))];
    /// let sealed = crypto.encrypt_many(items).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    /// # assert_eq!(sealed.len(), 2);
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Each item's result is as that of [`encrypt`](Self::encrypt).
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time; keys that are being loaded are loaded all the same.
    pub async fn encrypt_many<'a, P, A>(
        &self,
        items: impl IntoIterator<Item = (&'a EncryptionContext, P, A)>,
    ) -> Vec<Result<Ciphertext, Error>>
    where
        P: AsRef<[u8]>,
        A: Borrow<Aad>,
    {
        let core = self.core();
        let mut slots = Slots::default();
        let items: Vec<_> = items
            .into_iter()
            .map(|(context, plaintext, aad)| (slots.find(self, context), plaintext, aad))
            .collect();
        let mut done: Vec<Option<Result<Ciphertext, Error>>> = Vec::with_capacity(items.len());
        let mut missing: HashMap<Scope, Arc<Slot>> = HashMap::new();
        for (slot, plaintext, aad) in &items {
            let (plaintext, aad) = (plaintext.as_ref(), aad.borrow());
            let hot = core.hot_encrypt(slot, plaintext, aad);
            let hot = hot.or_else(|| check_input(plaintext, aad).err().map(Err));
            if hot.is_none() {
                missing.insert(slot.scope, Arc::clone(slot));
            }
            done.push(hot);
        }
        let keys = self
            .load_together(missing, |crypto, _, slot| async move {
                crypto.core().cache().active_key(&slot).await
            })
            .await;
        let seal = |(slot, plaintext, aad): &(Arc<Slot>, P, A)| {
            let key = loaded(&keys, &slot.scope)?;
            core.seal(slot.scope, &key, plaintext.as_ref(), aad.borrow())
        };
        items
            .iter()
            .zip(done)
            .map(|(item, done)| done.unwrap_or_else(|| seal(item)))
            .collect()
    }

    /// Decrypts many values, each under its own context and bound to its own place.
    ///
    /// The results are in the order of the items, and each may fail by itself. Keys that are not in memory are
    /// loaded together: one query for all of them, and the KMS calls at once.
    ///
    /// # Errors
    ///
    /// Each item's result is as that of [`decrypt`](Self::decrypt).
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time; keys that are being loaded are loaded all the same.
    pub async fn decrypt_many<'a, A>(
        &self,
        items: impl IntoIterator<Item = (&'a EncryptionContext, &'a Ciphertext, A)>,
    ) -> Vec<Result<Plaintext, Error>>
    where
        A: Borrow<Aad>,
    {
        let core = self.core();
        let mut slots = Slots::default();
        let items: Vec<_> = items
            .into_iter()
            .map(|(context, ciphertext, aad)| (slots.find(self, context), ciphertext, aad))
            .collect();
        let mut done: Vec<Option<Result<Plaintext, Error>>> = Vec::with_capacity(items.len());
        let mut missing: HashMap<(Scope, DataKeyId), Arc<Slot>> = HashMap::new();
        for (slot, ciphertext, aad) in &items {
            let hot = core.hot_decrypt(slot, ciphertext, aad.borrow());
            let refused = || {
                core.check_suite(ciphertext)
                    .and_then(|()| check_input(&[], aad.borrow()))
                    .err()
            };
            let hot = hot.or_else(|| refused().map(Err));
            if hot.is_none() {
                missing.insert((slot.scope, ciphertext.key_id()), Arc::clone(slot));
            }
            done.push(hot);
        }
        let keys = self
            .load_together(missing, |crypto, (_, id), slot| async move {
                crypto.core().cache().key_by_id(&slot, id).await
            })
            .await;
        let open = |(slot, ciphertext, aad): &(Arc<Slot>, &Ciphertext, A)| {
            let key = loaded(&keys, &(slot.scope, ciphertext.key_id()))?;
            core.open(slot.scope, &key, ciphertext, aad.borrow())
        };
        items
            .iter()
            .zip(done)
            .map(|(item, done)| done.unwrap_or_else(|| open(item)))
            .collect()
    }

    /// Loads what is missing, all at once.
    async fn load_together<K, F>(
        &self,
        missing: HashMap<K, Arc<Slot>>,
        load: impl Fn(Self, K, Arc<Slot>) -> F,
    ) -> HashMap<K, Result<Arc<LiveKey>, Error>>
    where
        K: Copy + Eq + Hash + Send + 'static,
        F: Future<Output = Result<Arc<LiveKey>, Error>> + Send + 'static,
    {
        let mut loaded = HashMap::with_capacity(missing.len());
        let slots: Vec<_> = missing.values().cloned().collect();
        if slots.is_empty() {
            return loaded;
        }
        if Handle::try_current().is_err() {
            return missing
                .into_keys()
                .map(|key| (key, Err(Error::NoRuntime)))
                .collect();
        }
        // One query for all. If it fails, each load below asks by itself and says what is wrong.
        self.core().cache().preload(&slots).await;
        let mut loads = JoinSet::new();
        for (key, slot) in missing {
            let load = load(self.clone(), key, slot);
            loads.spawn(async move { (key, load.await) });
        }
        while let Some(joined) = loads.join_next().await {
            if let Ok((key, result)) = joined {
                loaded.insert(key, result);
            }
        }
        loaded
    }
}

/// Looks each distinct context up once.
#[derive(Default)]
struct Slots<'a>(HashMap<&'a EncryptionContext, Arc<Slot>>);

impl<'a> Slots<'a> {
    fn find(&mut self, crypto: &Crypto, context: &'a EncryptionContext) -> Arc<Slot> {
        let slot = self
            .0
            .entry(context)
            .or_insert_with(|| crypto.core().cache.slot(context, KeyUsage::Data));
        Arc::clone(slot)
    }
}

fn loaded<K: Eq + Hash>(
    keys: &HashMap<K, Result<Arc<LiveKey>, Error>>,
    key: &K,
) -> Result<Arc<LiveKey>, Error> {
    // A load that is not there ended in a panic of a provider.
    keys.get(key).cloned().unwrap_or(Err(Error::Interrupted))
}

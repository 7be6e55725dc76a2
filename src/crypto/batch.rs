//! Many values at once: every key that is missing is loaded once, and all of them together. Values of one context that
//! stand next to each other share one look at its keys, and their nonces are drawn together.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::aad::Aad;
use crate::cache::Slot;
use crate::ciphertext::Ciphertext;
use crate::context::EncryptionContext;
use crate::crypto::Crypto;
use crate::error::Error;
use crate::key::{DataKeyId, Scope};
use crate::keyring::{check_input, loaded};
use crate::plaintext::Plaintext;
use crate::suite::Epochs;

impl Crypto {
    /// Encrypts many values, each under its own context and bound to its own place.
    ///
    /// The results are in the order of the items, and each may fail by itself. Keys that are not in memory are
    /// loaded together: one query for all of them, and the KMS calls at once. Items of one context are faster than as many
    /// calls of [`encrypt`](Self::encrypt) if they stand next to each other, as the fields of a record do.
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
        let mut done = Vec::with_capacity(items.len());
        let mut missing: HashMap<Scope, Arc<Slot>> = HashMap::new();
        for run in items.chunk_by(|(slot, ..), (next, ..)| slot == next) {
            let Some(slot) = run.first().map(|(slot, ..)| slots.get(*slot)) else {
                continue;
            };
            let values = run
                .iter()
                .map(|(_, plaintext, aad)| (plaintext.as_ref(), aad.borrow()));
            if !core.hot_encrypt_many(slot, values.clone(), &mut done) {
                let begin = done.len();
                done.extend(values.map(|(plaintext, aad)| check_input(plaintext, aad).err().map(Err)));
                if done[begin..].iter().any(Option::is_none) {
                    missing.insert(slot.scope, Arc::clone(slot));
                }
            }
        }
        let keys = core
            .load_together(missing, |core, _, slot| async move {
                core.cache().active_key(&slot).await
            })
            .await;
        let seal = |(slot, plaintext, aad): &(usize, P, A)| {
            let key = loaded(&keys, &slots.get(*slot).scope)?;
            key.seal(
                &mut Epochs::new(None),
                core.suite,
                plaintext.as_ref(),
                aad.borrow(),
            )
            .map_err(|error| *error)
        };
        let items = items.iter().zip(done);
        items
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
        let mut done = Vec::with_capacity(items.len());
        let mut missing: HashMap<(Scope, DataKeyId), Arc<Slot>> = HashMap::new();
        for run in items.chunk_by(|(slot, ..), (next, ..)| slot == next) {
            let Some(slot) = run.first().map(|(slot, ..)| slots.get(*slot)) else {
                continue;
            };
            let begin = done.len();
            let values = run.iter().map(|(_, ciphertext, aad)| (*ciphertext, aad.borrow()));
            core.hot_decrypt_many(slot, values, &mut done);
            for ((_, ciphertext, _), done) in run.iter().zip(&done[begin..]) {
                if done.is_none() {
                    missing.insert((slot.scope, ciphertext.key_id()), Arc::clone(slot));
                }
            }
        }
        let keys = core
            .load_together(missing, |core, (_, id), slot| async move {
                core.cache().key_by_id(&slot, id).await
            })
            .await;
        let open = |(slot, ciphertext, aad): &(usize, &Ciphertext, A)| {
            let key = loaded(&keys, &(slots.get(*slot).scope, ciphertext.key_id()))?;
            core.open(&key, None, ciphertext, aad.borrow())
                .map_err(|error| *error)
        };
        let items = items.iter().zip(done);
        items
            .map(|(item, done)| done.unwrap_or_else(|| open(item)))
            .collect()
    }
}

/// The slots of a batch, which nearly always has one context, or a few in long runs.
#[derive(Default)]
struct Slots<'a> {
    found: SmallVec<[(&'a EncryptionContext, Arc<Slot>); 1]>,
    /// Where in `found` a context stands, once there are several.
    index: HashMap<&'a EncryptionContext, usize>,
}

impl<'a> Slots<'a> {
    /// Finds the number of a context's slot; each distinct context is looked up once.
    fn find(&mut self, crypto: &Crypto, context: &'a EncryptionContext) -> usize {
        let last = self.found.len().checked_sub(1);
        if let Some(last) = last.filter(|last| self.found[*last].0 == context) {
            return last;
        }
        if let Some(known) = self.index.get(context) {
            return *known;
        }
        let number = self.found.len();
        if number == 1 {
            self.index.insert(self.found[0].0, 0);
        }
        if number > 0 {
            self.index.insert(context, number);
        }
        self.found.push((context, crypto.slot(context)));
        number
    }

    fn get(&self, number: usize) -> &Arc<Slot> {
        &self.found[number].1
    }
}

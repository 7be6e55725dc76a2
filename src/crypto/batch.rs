//! Many values at once: every key that is missing is loaded once, and all of them together. Values of one context that
//! stand next to each other share one look at its keys, and their nonces are drawn together.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::aad::{Aad, AsAad};
use crate::cache::{Purpose, Slot};
use crate::ciphertext::Ciphertext;
use crate::context::EncryptionContext;
use crate::crypto::Crypto;
use crate::error::{Error, unbox};
use crate::key::{DataKeyId, Scope};
use crate::keyring::{Batch, check_input, loaded};
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
    pub fn encrypt_many<'a, P, A>(
        &'a self,
        items: impl IntoIterator<Item = (&'a EncryptionContext, P, A)>,
    ) -> Batch<'a, Ciphertext>
    where
        P: AsRef<[u8]> + Send + Sync + 'a,
        A: AsAad + 'a,
    {
        let items: Vec<_> = items.into_iter().collect();
        Box::pin(self.encrypt_items(items))
    }

    async fn encrypt_items<P: AsRef<[u8]>, A: AsAad>(
        &self,
        items: Vec<(&EncryptionContext, P, A)>,
    ) -> Vec<Result<Ciphertext, Error>> {
        let mut items = items.into_iter().peekable();
        let mut done = Vec::with_capacity(items.size_hint().0);
        while let Some((context, ..)) = items.peek() {
            let context = *context;
            let slot = self.slot(context);
            let left = items.size_hint().0;
            let run = std::iter::from_fn(|| items.next_if(|(next, ..)| *next == context));
            let mut run = Run {
                items: run.map(|(_, plaintext, aad)| (plaintext, aad)),
                left,
            };
            if !self.core().hot_encrypt_many(&slot, &mut run, &mut done) {
                break;
            }
        }
        let rest: Vec<_> = items.collect();
        if !rest.is_empty() {
            done.extend(self.encrypt_cold(rest).await);
        }
        done
    }

    /// Encrypts values of which some have keys that are not in memory.
    async fn encrypt_cold<P, A>(
        &self,
        items: Vec<(&EncryptionContext, P, A)>,
    ) -> Vec<Result<Ciphertext, Error>>
    where
        P: AsRef<[u8]>,
        A: AsAad,
    {
        let core = self.core();
        let mut slots = Slots::default();
        let items: Vec<_> = items
            .into_iter()
            .map(|(context, plaintext, aad)| (slots.find(self, context), plaintext, aad))
            .collect();
        let mut done = Vec::with_capacity(items.len());
        let mut missing: HashMap<Scope, Arc<Slot>> = HashMap::new();
        for (slot, plaintext, aad) in &items {
            let (slot, plaintext, aad) = (slots.get(*slot), plaintext.as_ref(), aad.as_aad());
            let hot = core.hot_encrypt(slot, plaintext, aad);
            let hot = hot.map(|done| done.map_err(unbox));
            let hot = hot.or_else(|| check_input(plaintext, aad).err().map(Err));
            if hot.is_none() {
                missing.insert(slot.scope, Arc::clone(slot));
            }
            done.push(hot);
        }
        let keys = core
            .load_together(missing, Purpose::Encrypt, |core, _, slot| async move {
                core.cache().active_key(&slot).await
            })
            .await;
        let seal = |(slot, plaintext, aad): &(usize, P, A)| {
            let key = loaded(&keys, &slots.get(*slot).scope)?;
            key.seal(
                &mut Epochs::new(None),
                core.suite,
                plaintext.as_ref(),
                aad.as_aad(),
            )
            .map_err(unbox)
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
    pub fn decrypt_many<'a, A>(
        &'a self,
        items: impl IntoIterator<Item = (&'a EncryptionContext, &'a Ciphertext, A)>,
    ) -> Batch<'a, Plaintext>
    where
        A: AsAad + 'a,
    {
        let items: Vec<_> = items.into_iter().collect();
        Box::pin(self.decrypt_items(items))
    }

    async fn decrypt_items<A: AsAad>(
        &self,
        items: Vec<(&EncryptionContext, &Ciphertext, A)>,
    ) -> Vec<Result<Plaintext, Error>> {
        let mut items = items.into_iter().peekable();
        let mut done = Vec::with_capacity(items.size_hint().0);
        while let Some((context, ..)) = items.peek() {
            let context = *context;
            let slot = self.slot(context);
            let hot =
                self.core()
                    .hot_decrypt_many(&slot, &mut items, |item| part_of(item, context), &mut done);
            if !hot {
                break;
            }
        }
        let rest: Vec<_> = items.collect();
        if !rest.is_empty() {
            done.extend(self.decrypt_cold(rest).await);
        }
        done
    }

    /// Decrypts values of which some have keys that are not in memory.
    async fn decrypt_cold<A>(
        &self,
        items: Vec<(&EncryptionContext, &Ciphertext, A)>,
    ) -> Vec<Result<Plaintext, Error>>
    where
        A: AsAad,
    {
        let core = self.core();
        let mut slots = Slots::default();
        let items: Vec<_> = items
            .into_iter()
            .map(|(context, ciphertext, aad)| (slots.find(self, context), ciphertext, aad))
            .collect();
        let mut done = Vec::with_capacity(items.len());
        let mut missing: HashMap<(Scope, DataKeyId), Arc<Slot>> = HashMap::new();
        for (slot, ciphertext, aad) in &items {
            let slot = slots.get(*slot);
            let hot = core.decrypt_or_refuse(slot, ciphertext, aad.as_aad());
            if hot.is_none() {
                missing.insert((slot.scope, ciphertext.key_id()), Arc::clone(slot));
            }
            done.push(hot);
        }
        let keys = core
            .load_together(missing, Purpose::Decrypt, |core, (_, id), slot| async move {
                core.cache().key_by_id(&slot, id).await
            })
            .await;
        let open = |(slot, ciphertext, aad): &(usize, &Ciphertext, A)| {
            let key = loaded(&keys, &(slots.get(*slot).scope, ciphertext.key_id()))?;
            core.open(&key, None, ciphertext, aad.as_aad()).map_err(unbox)
        };
        let items = items.iter().zip(done);
        items
            .map(|(item, done)| done.unwrap_or_else(|| open(item)))
            .collect()
    }
}

/// Tells what of an item to decrypt, if it is of this context.
fn part_of<'i, A: AsAad>(
    (of, ciphertext, aad): &'i (&EncryptionContext, &Ciphertext, A),
    context: &EncryptionContext,
) -> Option<(&'i Ciphertext, &'i Aad)> {
    (*of == context).then(|| (*ciphertext, aad.as_aad()))
}

/// The items of one context that stand next to each other: at most as many as are left.
struct Run<I> {
    items: I,
    left: usize,
}

impl<I: Iterator> Iterator for Run<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        self.items.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // As far as it is likely: nonces for so many are drawn together.
        (0, Some(self.left))
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

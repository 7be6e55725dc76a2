//! Many values at once: every key that is missing is loaded once, and all of them together. Values of one context that
//! stand next to each other share one look at its keys, and their nonces are drawn together.

use std::collections::HashMap;
use std::sync::Arc;

use encx_core::aad::AsAad;
use encx_core::ciphertext::Ciphertext;
use encx_core::context::EncryptionContext;

use crate::cache::Entry;
use crate::crypto::Crypto;
use crate::keyring::{Batch, Done, Item, ToOpen, ToSeal, Work};
use crate::plaintext::Plaintext;

impl Crypto {
    /// Encrypts many values, each under its own context and bound to its own place.
    ///
    /// The results are in the order of the items, and each may fail by itself. Keys that are not in memory are
    /// loaded together: one query for all of them, and the KMS calls at once. Items of one context are faster than as many
    /// calls of [`encrypt`](Self::encrypt) if they stand next to each other, as the fields of a record do.
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
    /// let items = [(&context, "Ada", NAME.row(7)), (&context, "123-45-6789", SSN.row(7))];
    /// let sealed = crypto.encrypt_many(items).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    /// # assert_eq!(sealed.len(), 2);
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
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
    ) -> Batch<'a, Self, (&'a EncryptionContext, P, A), Ciphertext>
    where
        P: AsRef<[u8]> + Send + Sync + 'a,
        A: AsAad + 'a,
    {
        Batch::new(self, items, Self::try_encrypt_many, |crypto, items, mut done| {
            Box::pin(async move {
                let rest = &items[done.len()..];
                let contexts = rest.iter().map(|(context, ..)| *context);
                done.extend(crypto.do_rest(contexts, rest.iter().map(to_seal)).await);
                done
            })
        })
    }

    fn try_encrypt_many<P: AsRef<[u8]>, A: AsAad>(
        &self,
        items: &[(&EncryptionContext, P, A)],
        done: &mut Done<Ciphertext>,
    ) -> bool {
        items.chunk_by(|a, b| a.0 == b.0).all(|run| {
            let entry = self.entry(run[0].0);
            self.core().try_encrypt_many(&entry, run, to_seal, done)
        })
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
    ) -> Batch<'a, Self, (&'a EncryptionContext, &'a Ciphertext, A), Plaintext>
    where
        A: AsAad + 'a,
    {
        Batch::new(self, items, Self::try_decrypt_many, |crypto, items, mut done| {
            Box::pin(async move {
                let rest = &items[done.len()..];
                let contexts = rest.iter().map(|(context, ..)| *context);
                done.extend(crypto.do_rest(contexts, rest.iter().map(to_open)).await);
                crypto
                    .core()
                    .note_all_refused(items.iter().map(to_open), &mut done);
                done
            })
        })
    }

    fn try_decrypt_many<A: AsAad>(
        &self,
        items: &[(&EncryptionContext, &Ciphertext, A)],
        done: &mut Done<Plaintext>,
    ) -> bool {
        let all = items.chunk_by(|a, b| a.0 == b.0).all(|run| {
            let entry = self.entry(run[0].0);
            self.core().try_decrypt_many(&entry, run, to_open, done)
        });
        if all {
            self.core().note_all_refused(items.iter().map(to_open), done);
        }
        all
    }

    /// Does what is left of a batch once a key has to be loaded. Each value has a context.
    async fn do_rest<'a, T: Work>(
        &self,
        contexts: impl Iterator<Item = &'a EncryptionContext>,
        values: impl Iterator<Item = T>,
    ) -> Done<T::Done> {
        let (entries, of) = self.entries(contexts);
        let items: Vec<_> = values
            .zip(of)
            .map(|(what, of)| Item {
                entry: &entries[of],
                what,
            })
            .collect();
        self.core().do_cold(&items).await
    }

    /// Finds the entries of contexts, each once, and tells of each context which of them is its own.
    fn entries<'a>(
        &self,
        contexts: impl Iterator<Item = &'a EncryptionContext>,
    ) -> (Vec<Arc<Entry>>, Vec<usize>) {
        let (mut entries, mut known) = (Vec::new(), HashMap::new());
        let of = contexts.map(|context| {
            *known.entry(context).or_insert_with(|| {
                entries.push(self.entry(context));
                entries.len() - 1
            })
        });
        let of = of.collect();
        (entries, of)
    }
}

fn to_seal<'i, P: AsRef<[u8]>, A: AsAad>((_, plaintext, aad): &'i (&EncryptionContext, P, A)) -> ToSeal<'i> {
    (plaintext.as_ref(), aad.as_aad())
}

fn to_open<'i, A: AsAad>((_, ciphertext, aad): &'i (&EncryptionContext, &Ciphertext, A)) -> ToOpen<'i> {
    (ciphertext, aad.as_aad())
}

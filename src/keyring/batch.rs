//! Many values at once: one look at the keys, nonces that are drawn together, and one load for what is missing.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::core::{Core, check_input};
use crate::aad::Aad;
use crate::cache::{LiveKey, Slot};
use crate::ciphertext::Ciphertext;
use crate::error::Error;
use crate::plaintext::Plaintext;
use crate::suite::Epochs;

impl Core {
    /// Encrypts many values of one slot.
    pub(super) async fn encrypt_many<'a, I>(
        &self,
        slot: &Arc<Slot>,
        values: impl Fn() -> I,
    ) -> Vec<Result<Ciphertext, Error>>
    where
        I: ExactSizeIterator<Item = (&'a [u8], &'a Aad)>,
    {
        let mut done = Vec::with_capacity(values().len());
        if self.hot_encrypt_many(slot, values(), &mut done) {
            return done.into_iter().flatten().collect();
        }
        let refuse = |(plaintext, aad)| check_input(plaintext, aad).err();
        // Nobody is asked for a key if there is nothing to do with it.
        let loaded = if values().any(|value| refuse(value).is_none()) {
            self.cache.active_key(slot).await
        } else {
            Err(Error::NotReady)
        };
        let key = match loaded {
            Ok(key) => key,
            Err(error) => {
                let why = |value| refuse(value).unwrap_or_else(|| error.clone());
                return values().map(|value| Err(why(value))).collect();
            }
        };
        let (mut batch, mut epochs) = (key.batch(values().len()), Epochs::new(None));
        values()
            .map(|(plaintext, aad)| {
                let sealed = batch.seal(&mut epochs, self.suite, plaintext, aad);
                sealed.map_err(|error| *error)
            })
            .collect()
    }

    /// Decrypts many values of one slot.
    pub(super) async fn decrypt_many<'a, I>(
        &self,
        slot: &Arc<Slot>,
        values: impl Fn() -> I,
    ) -> Vec<Result<Plaintext, Error>>
    where
        I: ExactSizeIterator<Item = (&'a Ciphertext, &'a Aad)>,
    {
        let mut done = Vec::with_capacity(values().len());
        let mut missing = HashMap::new();
        self.hot_decrypt_many(slot, values(), &mut done);
        for ((ciphertext, _), done) in values().zip(&done) {
            if done.is_none() {
                missing.insert(ciphertext.key_id(), Arc::clone(slot));
            }
        }
        let load = |core: Self, id, slot| async move { core.cache().key_by_id(&slot, id).await };
        let keys = self.load_together(missing, load).await;
        let open = |ciphertext: &Ciphertext, aad: &Aad| {
            let key = loaded(&keys, &ciphertext.key_id())?;
            self.open(&key, None, ciphertext, aad).map_err(|error| *error)
        };
        values()
            .zip(done)
            .map(|((ciphertext, aad), done)| done.unwrap_or_else(|| open(ciphertext, aad)))
            .collect()
    }

    /// Encrypts many values under one look at the keys, if that needs nobody else; `false` if it does.
    pub(crate) fn hot_encrypt_many<'a>(
        &self,
        slot: &Slot,
        values: impl ExactSizeIterator<Item = (&'a [u8], &'a Aad)>,
        done: &mut Vec<Option<Result<Ciphertext, Error>>>,
    ) -> bool {
        let count = values.len();
        let encrypted = self.with_active(slot, count as u64, |key, epochs| {
            let mut batch = key.batch(count);
            for (plaintext, aad) in values {
                let sealed = batch.seal(epochs, self.suite, plaintext, aad);
                done.push(Some(sealed.map_err(|error| *error)));
            }
            Ok(())
        });
        match encrypted {
            None => false,
            Some(Ok(())) => true,
            Some(Err(error)) => {
                done.extend(std::iter::repeat_with(|| Some(Err((*error).clone()))).take(count));
                true
            }
        }
    }

    /// Decrypts, or refuses, what of many values needs nobody else, under one look at the keys; `None` for the others.
    pub(crate) fn hot_decrypt_many<'a>(
        &self,
        slot: &Slot,
        values: impl ExactSizeIterator<Item = (&'a Ciphertext, &'a Aad)>,
        done: &mut Vec<Option<Result<Plaintext, Error>>>,
    ) {
        let live = slot.live();
        let set = live.as_ref();
        let open = |ciphertext: &Ciphertext, aad: &Aad| {
            let opened = self.with_key_of(set?, ciphertext.key_id(), |key, epoch| {
                self.open(key, epoch, ciphertext, aad)
            });
            Some(opened?.map_err(|error| *error))
        };
        let refuse = |ciphertext: &Ciphertext, aad: &Aad| {
            let accepted = self.check_suite(ciphertext.suite());
            Some(Err(accepted.and_then(|()| check_input(&[], aad)).err()?))
        };
        done.extend(
            values.map(|(ciphertext, aad)| open(ciphertext, aad).or_else(|| refuse(ciphertext, aad))),
        );
    }

    /// Loads what is missing, all at once.
    pub(crate) async fn load_together<K, F>(
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
        self.cache().preload(&slots).await;
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

pub(crate) fn loaded<K: Eq + Hash>(
    keys: &HashMap<K, Result<Arc<LiveKey>, Error>>,
    key: &K,
) -> Result<Arc<LiveKey>, Error> {
    // A load that is not there ended in a panic of a provider.
    keys.get(key).cloned().unwrap_or(Err(Error::Interrupted))
}

//! Many values at once: one look at the keys, nonces that are drawn together, and one load for what is missing.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::iter::Peekable;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::core::{Core, check_input};
use crate::aad::{Aad, AsAad};
use crate::cache::{KeySet, Life, Purpose, Slot};
use crate::ciphertext::Ciphertext;
use crate::error::{Error, unbox};
use crate::plaintext::Plaintext;
use crate::suite::Epochs;

/// The future of a batch. It names no type of the caller's, so that the compiler reports a wrong one once; and the items are
/// taken from the caller's iterator before it is made, so that none of the caller's code runs while a key is held.
pub(crate) type Batch<'a, T> = Pin<Box<dyn Future<Output = Vec<Result<T, Error>>> + Send + 'a>>;

/// How often what was withdrawn while others were loaded is asked for again.
const MAX_ATTEMPTS: usize = 8;

impl Core {
    /// Encrypts many values of one slot whose key is not in memory.
    pub(super) async fn encrypt_many<'a, I>(
        &self,
        slot: &Arc<Slot>,
        values: impl Fn() -> I,
    ) -> Vec<Result<Ciphertext, Error>>
    where
        I: ExactSizeIterator<Item = (&'a [u8], &'a Aad)>,
    {
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
                sealed.map_err(unbox)
            })
            .collect()
    }

    /// Decrypts many values of one slot, of which some keys are not in memory.
    pub(super) async fn decrypt_many<'a, I>(
        &self,
        slot: &Arc<Slot>,
        values: impl Fn() -> I,
    ) -> Vec<Result<Plaintext, Error>>
    where
        I: ExactSizeIterator<Item = (&'a Ciphertext, &'a Aad)>,
    {
        let done: Vec<_> = values()
            .map(|(ciphertext, aad)| self.decrypt_or_refuse(slot, ciphertext, aad))
            .collect();
        let mut missing = HashMap::new();
        for ((ciphertext, _), done) in values().zip(&done) {
            if done.is_none() {
                missing.insert(ciphertext.key_id(), Arc::clone(slot));
            }
        }
        let load = |core: Self, id, slot| async move { core.cache().key_by_id(&slot, id).await };
        let keys = self.load_together(missing, Purpose::Decrypt, load).await;
        let open = |ciphertext: &Ciphertext, aad: &Aad| {
            let key = loaded(&keys, &ciphertext.key_id())?;
            self.open(&key, None, ciphertext, aad).map_err(unbox)
        };
        values()
            .zip(done)
            .map(|((ciphertext, aad), done)| done.unwrap_or_else(|| open(ciphertext, aad)))
            .collect()
    }

    /// Decrypts, or refuses, what needs nobody else; `None` if it does.
    pub(crate) fn decrypt_or_refuse(
        &self,
        slot: &Slot,
        ciphertext: &Ciphertext,
        aad: &Aad,
    ) -> Option<Result<Plaintext, Error>> {
        if let Some(done) = self.hot_decrypt(slot, ciphertext, aad) {
            return Some(done.map_err(unbox));
        }
        let accepted = self.check_suite(ciphertext.suite());
        Some(Err(accepted.and_then(|()| check_input(&[], aad)).err()?))
    }

    /// Encrypts what an iterator gives under one look at the keys, if that needs nobody else; if it does, it returns
    /// `false` and takes nothing.
    pub(crate) fn hot_encrypt_many<P, A>(
        &self,
        slot: &Slot,
        items: &mut impl Iterator<Item = (P, A)>,
        done: &mut Vec<Result<Ciphertext, Error>>,
    ) -> bool
    where
        P: AsRef<[u8]>,
        A: AsAad,
    {
        let begin = done.len();
        let live = slot.live();
        match self.active_of(slot, live.set()) {
            None => return false,
            Some(Ok(active)) => {
                let (least, most) = items.size_hint();
                let (mut batch, mut epochs) = (active.key.batch(most.unwrap_or(least)), active.epochs());
                for (plaintext, aad) in items {
                    let sealed = batch.seal(&mut epochs, self.suite, plaintext.as_ref(), aad.as_aad());
                    done.push(sealed.map_err(unbox));
                }
                active.keep(epochs);
            }
            Some(Err(error)) => done.extend(items.map(|_| Err((*error).clone()))),
        }
        self.cache.counters.hits.add((done.len() - begin) as u64);
        true
    }

    /// Decrypts what an iterator gives under one look at the keys, up to what needs somebody else. `false` if there is
    /// such a one, which is not taken.
    ///
    /// `part` tells what of an item to decrypt, or that it belongs to another slot, where this one's run ends.
    pub(crate) fn hot_decrypt_many<T>(
        &self,
        slot: &Slot,
        items: &mut Peekable<impl Iterator<Item = T>>,
        part: impl Fn(&T) -> Option<(&Ciphertext, &Aad)>,
        done: &mut Vec<Result<Plaintext, Error>>,
    ) -> bool {
        let live = slot.live();
        let set = live.set();
        while let Some((ciphertext, aad)) = items.peek().and_then(&part) {
            let decrypt = |set: &Arc<KeySet>| {
                let found = self.key_of(set, ciphertext.key_id())?;
                Some(found.and_then(|(key, epoch)| self.open(key, epoch, ciphertext, aad)))
            };
            let Some(decrypted) = set.and_then(decrypt) else {
                return false;
            };
            done.push(decrypted.map_err(unbox));
            items.next();
        }
        true
    }

    /// Loads what is missing, all at once. What was withdrawn while the others were waited for is not among it.
    pub(crate) async fn load_together<K, T, F>(
        &self,
        missing: HashMap<K, Arc<Slot>>,
        purpose: Purpose,
        load: impl Fn(Self, K, Arc<Slot>) -> F,
    ) -> HashMap<K, Result<Arc<T>, Error>>
    where
        K: Copy + Eq + Hash + Send + 'static,
        T: Deref<Target = Life> + Send + Sync + 'static,
        F: Future<Output = Result<Arc<T>, Error>> + Send + 'static,
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
        let mut left = missing.clone();
        for _ in 0..MAX_ATTEMPTS {
            let mut loads = JoinSet::new();
            for (key, slot) in left.drain() {
                let load = load(self.clone(), key, slot);
                loads.spawn(async move { (key, load.await) });
            }
            while let Some(joined) = loads.join_next().await {
                if let Ok((key, result)) = joined {
                    loaded.insert(key, result);
                }
            }
            for (key, slot) in &missing {
                if let Some(Ok(found)) = loaded.get(key)
                    && !self.cache().still_allows(slot, found.id, purpose).await
                {
                    left.insert(*key, Arc::clone(slot));
                }
            }
            if left.is_empty() {
                break;
            }
        }
        loaded.extend(left.into_keys().map(|key| (key, Err(Error::Interrupted))));
        loaded
    }
}

pub(crate) fn loaded<K: Eq + Hash, T>(
    keys: &HashMap<K, Result<Arc<T>, Error>>,
    key: &K,
) -> Result<Arc<T>, Error> {
    // A load that is not there ended in a panic of a provider.
    keys.get(key).cloned().unwrap_or(Err(Error::Interrupted))
}

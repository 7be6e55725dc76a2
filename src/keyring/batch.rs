//! Batches: one check of the keys for each chunk, nonces that are drawn together, and one load for what is missing.
//!
//! No code of the caller runs while a key is held: items are collected first.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use encx_core::aad::Aad;
use encx_core::ciphertext::Ciphertext;
use encx_core::key::{DataKeyId, Scope};
use encx_suite::Epochs;
use smallvec::SmallVec;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::core::{Core, check_input};
use crate::cache::{DataCipher, Entry, KeyMeta, Later, Purpose, Use};
use crate::error::{Boxed, Error, unbox};
use crate::plaintext::Plaintext;

/// The results of a batch's items, in their order.
pub(crate) type Done<T> = Vec<Result<T, Error>>;

/// The rest of a batch whose keys are not all cached.
type Rest<'a, T> = Pin<Box<dyn Future<Output = Done<T>> + Send + 'a>>;

/// The future of a batch, ready at once if its keys are cached. Only the waiting part is boxed.
///
/// It has taken the items from the caller's iterator, so no code of the caller runs while a key is held. Calls return
/// it by name, as [`TryFirst`](super::TryFirst).
#[must_use = "futures do nothing unless they are awaited"]
pub struct Batch<'a, W, I, T> {
    place: &'a W,
    /// `None` when it is done or waiting.
    items: Option<Vec<I>>,
    /// Does as much as possible with cached keys; `false` if a key must be loaded for the next item.
    try_now: fn(&W, &[I], &mut Done<T>) -> bool,
    /// Does the rest.
    cold: fn(&'a W, Vec<I>, Done<T>) -> Rest<'a, T>,
    rest: Option<Rest<'a, T>>,
}

impl<'a, W, I, T> Batch<'a, W, I, T> {
    pub(crate) fn new(
        place: &'a W,
        items: impl IntoIterator<Item = I>,
        try_now: fn(&W, &[I], &mut Done<T>) -> bool,
        cold: fn(&'a W, Vec<I>, Done<T>) -> Rest<'a, T>,
    ) -> Self {
        Self {
            place,
            items: Some(items.into_iter().collect()),
            try_now,
            cold,
            rest: None,
        }
    }
}

impl<W, I, T> Future for Batch<'_, W, I, T> {
    type Output = Done<T>;

    /// # Panics
    ///
    /// If it is already done, like futures of `async fn`.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Some(items) = this.items.take() {
            let mut done = Vec::with_capacity(items.len());
            if (this.try_now)(this.place, &items, &mut done) {
                return Poll::Ready(done);
            }
            this.rest = Some((this.cold)(this.place, items, done));
        }
        let rest = this
            .rest
            .as_mut()
            .expect("a future is not polled after it is done");
        let done = std::task::ready!(rest.as_mut().poll(context));
        this.rest = None;
        Poll::Ready(done)
    }
}

/// Pinned data is boxed.
impl<W, I, T> Unpin for Batch<'_, W, I, T> {}

/// How often keys that were withdrawn during the load of others are requested again.
const MAX_ATTEMPTS: usize = 8;

/// How many items share one check of the keys. A key that is withdrawn during a batch is used for at most these.
const CHUNK: usize = 64;

/// A plaintext and its place.
pub(crate) type ToSeal<'i> = (&'i [u8], &'i Aad);

/// A ciphertext and its place.
pub(crate) type ToOpen<'i> = (&'i Ciphertext, &'i Aad);

/// An item of a batch, and the entry of its key.
pub(crate) struct Item<'i, T> {
    pub(crate) entry: &'i Arc<Entry>,
    pub(crate) what: T,
}

/// The work on an item.
pub(crate) trait Work {
    type Done;

    const PURPOSE: Purpose;

    /// Returns the key that it needs, if that is not the active one.
    fn key(&self) -> Option<DataKeyId>;

    /// Does the work or refuses it, if that needs no load; otherwise `None`.
    fn at_once(&self, core: &Core, entry: &Entry) -> Option<Result<Self::Done, Error>>;

    /// Does the work with a loaded key.
    fn with(&self, core: &Core, key: &DataCipher, later: &mut Later) -> Boxed<Self::Done>;
}

impl Work for (&[u8], &Aad) {
    type Done = Ciphertext;

    const PURPOSE: Purpose = Purpose::Encrypt;

    fn key(&self) -> Option<DataKeyId> {
        None
    }

    fn at_once(&self, core: &Core, entry: &Entry) -> Option<Result<Ciphertext, Error>> {
        let (plaintext, aad) = *self;
        let done = core.try_encrypt(entry, plaintext, &mut aad.clone());
        done.map(|done| done.map_err(unbox))
            .or_else(|| check_input(plaintext, aad).err().map(Err))
    }

    fn with(&self, core: &Core, key: &DataCipher, _: &mut Later) -> Boxed<Ciphertext> {
        let (plaintext, aad) = *self;
        key.seal(&mut Epochs::new(None), core.suite, plaintext, &mut aad.clone())
    }
}

impl Work for (&Ciphertext, &Aad) {
    type Done = Plaintext;

    const PURPOSE: Purpose = Purpose::Decrypt;

    fn key(&self) -> Option<DataKeyId> {
        Some(self.0.key_id())
    }

    fn at_once(&self, core: &Core, entry: &Entry) -> Option<Result<Plaintext, Error>> {
        let (ciphertext, aad) = *self;
        if let Some(done) = core.try_decrypt(entry, ciphertext, &mut aad.clone()) {
            return Some(done.map_err(unbox));
        }
        let accepted = core.check_suite(ciphertext.suite());
        Some(Err(accepted.and_then(|()| check_input(&[], aad)).err()?))
    }

    fn with(&self, core: &Core, key: &DataCipher, later: &mut Later) -> Boxed<Plaintext> {
        let (ciphertext, aad) = *self;
        core.open(key, None, ciphertext, &mut aad.clone(), later)
    }
}

impl Core {
    /// Encrypts items of one entry, with one check of its keys for each chunk. `false` if a key must be loaded first;
    /// `done` then contains the earlier results.
    ///
    /// `value` is the caller's code or calls it, such as `AsRef`. It runs before the check.
    pub(crate) fn try_encrypt_many<'i, T>(
        &self,
        entry: &Entry,
        items: &'i [T],
        value: impl Fn(&'i T) -> ToSeal<'i>,
        done: &mut Done<Ciphertext>,
    ) -> bool {
        items.chunks(CHUNK).all(|some| {
            let values: SmallVec<[ToSeal<'i>; CHUNK]> = some.iter().map(&value).collect();
            self.try_encrypt_chunk(entry, &values, done)
        })
    }

    fn try_encrypt_chunk(&self, entry: &Entry, values: &[ToSeal<'_>], done: &mut Done<Ciphertext>) -> bool {
        let mut visit = self.visit(entry);
        match self.active_of(&mut visit.look()) {
            None => return false,
            Some(Ok(active)) => {
                let (mut batch, mut epochs) = (active.key.batch(values.len()), active.epochs());
                for (plaintext, aad) in values {
                    let sealed = batch.seal(&mut epochs, self.suite, plaintext, &mut (*aad).clone());
                    done.push(sealed.map_err(unbox));
                }
                active.keep(entry, epochs);
                self.cache.counters.hits.add(Use::Encrypt, values.len() as u64);
            }
            Some(Err(error)) => done.extend(values.iter().map(|_| Err((*error).clone()))),
        }
        true
    }

    /// Decrypts items of one entry, with one check of its keys for each chunk. `false` if a key must be loaded first;
    /// `done` then contains the earlier results.
    pub(crate) fn try_decrypt_many<'i, T>(
        &self,
        entry: &Entry,
        items: &'i [T],
        value: impl Fn(&'i T) -> ToOpen<'i>,
        done: &mut Done<Plaintext>,
    ) -> bool {
        items.chunks(CHUNK).all(|some| {
            let values: SmallVec<[ToOpen<'i>; CHUNK]> = some.iter().map(&value).collect();
            let mut visit = self.visit(entry);
            let mut look = visit.look();
            values.iter().all(|(ciphertext, aad)| {
                let Some(found) = self.key_of(&mut look, ciphertext.key_id()) else {
                    return false;
                };
                let aad = &mut (*aad).clone();
                let opened =
                    found.and_then(|(key, epoch)| self.open(key, epoch, ciphertext, aad, look.later));
                done.push(opened.map_err(unbox));
                true
            })
        })
    }

    /// Calls [`note_refused`](Self::note_refused) for each item of a batch.
    pub(crate) fn note_all_refused<'i>(
        &self,
        items: impl Iterator<Item = ToOpen<'i>>,
        done: &mut [Result<Plaintext, Error>],
    ) {
        for ((ciphertext, aad), done) in items.zip(done) {
            if let Err(error) = done {
                self.note_refused(error, Some(ciphertext.key_id()), aad);
            }
        }
    }

    /// Does a batch whose keys are not all cached. They are loaded together.
    pub(crate) async fn do_cold<T: Work>(&self, items: &[Item<'_, T>]) -> Done<T::Done> {
        let mut done: Vec<Option<Result<T::Done, Error>>> = Vec::with_capacity(items.len());
        done.resize_with(items.len(), || None);
        loop {
            let mut missing = HashMap::new();
            for (item, done) in items.iter().zip(&mut done).filter(|(_, done)| done.is_none()) {
                *done = item.what.at_once(self, item.entry);
                if done.is_none() {
                    let name = (item.entry.scope, item.what.key());
                    missing.entry(name).or_insert_with(|| Arc::clone(item.entry));
                }
            }
            if missing.is_empty() {
                return done.into_iter().flatten().collect();
            }
            let load = |core: Self, (_, id): (Scope, Option<DataKeyId>), entry: Arc<Entry>| async move {
                match id {
                    None => core.cache().active_key(&entry).await,
                    Some(id) => core.cache().key_by_id(&entry, id).await,
                }
            };
            // Dropped after the keys, in every case.
            let mut later = Later::default();
            let keys = self.load_together(missing, T::PURPOSE, load).await;
            let counters = &self.cache.counters;
            let waited = match T::PURPOSE {
                Purpose::Encrypt => &counters.waited_encrypts,
                Purpose::Decrypt => &counters.waited_decrypts,
            };
            let mut left = CHUNK;
            for (item, done) in items.iter().zip(&mut done).filter(|(_, done)| done.is_none()) {
                let key = match loaded(&keys, &(item.entry.scope, item.what.key())) {
                    Ok(key) => key,
                    Err(error) => {
                        *done = Some(Err(error));
                        continue;
                    }
                };
                // A key that has been withdrawn since is looked up again.
                if left == 0 && !self.cache.allows_now(item.entry, key.id, T::PURPOSE) {
                    continue;
                }
                left = left.saturating_sub(1);
                counters.count(waited);
                *done = Some(item.what.with(self, &key, &mut later).map_err(unbox));
            }
            drop(keys);
            drop(later);
        }
    }

    /// Loads missing keys concurrently. Leaves out those that were withdrawn during the load of others.
    pub(crate) async fn load_together<K, T, F>(
        &self,
        missing: HashMap<K, Arc<Entry>>,
        purpose: Purpose,
        load: impl Fn(Self, K, Arc<Entry>) -> F,
    ) -> HashMap<K, Result<Arc<T>, Error>>
    where
        K: Copy + Eq + Hash + Send + 'static,
        T: Deref<Target = KeyMeta> + Send + Sync + 'static,
        F: Future<Output = Result<Arc<T>, Error>> + Send + 'static,
    {
        let mut loaded = HashMap::with_capacity(missing.len());
        let entries: Vec<_> = missing.values().cloned().collect();
        if entries.is_empty() {
            return loaded;
        }
        if Handle::try_current().is_err() {
            return missing
                .into_keys()
                .map(|key| (key, Err(Error::NoRuntime)))
                .collect();
        }
        // One query for all. If it fails, each load below asks separately and reports the error.
        self.cache().preload(&entries).await;
        let mut left = missing.clone();
        for _ in 0..MAX_ATTEMPTS {
            let mut loads = JoinSet::new();
            for (key, entry) in left.drain() {
                let load = load(self.clone(), key, entry);
                loads.spawn(async move { (key, load.await) });
            }
            while let Some(joined) = loads.join_next().await {
                if let Ok((key, result)) = joined {
                    loaded.insert(key, result);
                }
            }
            for (key, entry) in &missing {
                if let Some(Ok(found)) = loaded.get(key)
                    && !self.cache().still_allows(entry, found.id, purpose).await
                {
                    left.insert(*key, Arc::clone(entry));
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
    // A missing load ended in a provider's panic.
    keys.get(key).cloned().unwrap_or(Err(Error::Interrupted))
}

//! Blind indexes of a `Crypto`: the terms that columns store, and those that queries search for.

use std::collections::HashMap;
use std::sync::Arc;

use encx_core::blind_index::{BlindIndex, IndexTerms};
use encx_core::context::EncryptionContext;
use encx_core::key::{DataKeyId, KeyUsage, Scope};

use crate::cache::{DerivationKey, Entry, Purpose, Snapshot, Use};
use crate::crypto::Crypto;
use crate::error::{Error, unbox};
use crate::keyring::{Core, Look, loaded};
use crate::search::{IndexField, IndexValue, Message};

impl Crypto {
    /// Computes the blind index of a value under the context's active index key, for a column beside the ciphertext's.
    ///
    /// The index key is a separate key, wrapped by the KMS like those that encrypt. If there is none yet, this makes
    /// it. The context may differ from the ciphertext's: a log-in that knows an address but no tenant searches under
    /// `purpose` = `login`, if the index was computed under that.
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext};
    /// # use encx::search::{IndexField, Normalizer};
    /// # encx_testkit::block_on(async {
    /// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
    /// const EMAIL: IndexField = IndexField::new("users", "email", 64).normalize(Normalizer::Email);
    ///
    /// let login = EncryptionContext::builder().pair("purpose", "login").build()?;
    /// let stored = crypto.blind_index(&login, &EMAIL, "Ada@Example.org").await?;
    /// let terms = crypto.index_terms(&login, &EMAIL, "ada@example.org ").await?;
    /// assert!(terms.contains(&stored));
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Index`] if the value cannot be indexed; no key is loaded then. Otherwise as [`encrypt`](Self::encrypt),
    /// without those about ciphertexts.
    ///
    /// # Cancellation
    ///
    /// As [`encrypt`](Self::encrypt).
    pub async fn blind_index(
        &self,
        context: &EncryptionContext,
        field: &IndexField,
        value: impl IndexValue,
    ) -> Result<BlindIndex, Error> {
        let message = field.message(&value)?;
        let entry = self.entry_of(context, KeyUsage::Index);
        let key = active_derivation_key(self.core(), &entry).await?;
        Ok(term(&key, &message))
    }

    /// Computes many blind indexes, each under its own context. For values of different types, use
    /// `&(dyn IndexValue + Sync)`.
    ///
    /// The results are in the order of the items, and each may fail separately. Missing keys are loaded together.
    ///
    /// # Errors
    ///
    /// Each item's result is as that of [`blind_index`](Self::blind_index).
    ///
    /// # Cancellation
    ///
    /// As [`encrypt`](Self::encrypt).
    pub async fn blind_index_many<'a, V: IndexValue>(
        &self,
        items: impl IntoIterator<Item = (&'a EncryptionContext, &'a IndexField, V)>,
    ) -> Vec<Result<BlindIndex, Error>> {
        self.blind_indexes_of(self.messages(items)).await
    }

    /// Computes the blind indexes of normalised values.
    pub(crate) async fn blind_indexes_of(
        &self,
        items: Vec<Result<(Arc<Entry>, Message), Error>>,
    ) -> Vec<Result<BlindIndex, Error>> {
        let mut missing: HashMap<Scope, Arc<Entry>> = HashMap::new();
        for (entry, _) in items.iter().flatten() {
            if try_active(self.core(), entry).is_none() {
                missing.insert(entry.scope, Arc::clone(entry));
            }
        }
        let keys = self
            .core()
            .load_together(missing, Purpose::Encrypt, |core, _, entry| async move {
                core.cache().active(&entry).await?.derivation_key()
            })
            .await;
        // A loaded key is used before the next wait.
        let at_once = |item: &Result<(Arc<Entry>, Message), Error>| match item {
            Ok((entry, message)) if keys.contains_key(&entry.scope) => {
                Some(loaded(&keys, &entry.scope).map(|key| term(&key, message)))
            }
            Ok(_) => None,
            Err(error) => Some(Err(error.clone())),
        };
        let computed: Vec<_> = items.iter().map(at_once).collect();
        drop(keys);
        let mut done = Vec::with_capacity(items.len());
        for (item, computed) in items.into_iter().zip(computed) {
            done.push(match (computed, item) {
                (Some(computed), _) => computed,
                (None, Ok((entry, message))) => active_derivation_key(self.core(), &entry)
                    .await
                    .map(|key| term(&key, &message)),
                (None, Err(error)) => Err(error),
            });
        }
        done
    }

    /// Computes the blind index of a value under a given version of the index key, which may be pre-active.
    ///
    /// Use it to prepare a UNIQUE column for a rotation, after which the same value has another term and the constraint
    /// no longer finds it. Proceed as follows, while the service runs:
    ///
    /// 1. Add a second column with a UNIQUE constraint, NULL at first.
    /// 2. [`KeyManager::prepare`](crate::keys::KeyManager::prepare) with usage [`Index`](KeyUsage::Index) makes the
    ///    next version and returns its id.
    /// 3. Make every writer fill both columns: the first as before, the second under that id.
    /// 4. Fill the second column of all other rows.
    /// 5. [`KeyManager::rotate`](crate::keys::KeyManager::rotate) promotes the version. Search by the second column,
    ///    drop the first.
    ///
    /// At every moment one of the two columns is complete, and its constraint holds.
    ///
    /// # Errors
    ///
    /// [`Error::Index`] if the value cannot be indexed; [`Error::UnknownKey`] if the context has no such version; otherwise
    /// as [`decrypt`](Self::decrypt), without those about ciphertexts.
    ///
    /// # Cancellation
    ///
    /// As [`encrypt`](Self::encrypt).
    pub async fn blind_index_under(
        &self,
        context: &EncryptionContext,
        field: &IndexField,
        value: impl IndexValue,
        version: DataKeyId,
    ) -> Result<BlindIndex, Error> {
        let message = field.message(&value)?;
        let entry = self.entry_of(context, KeyUsage::Index);
        let key = derivation_key_of(self.core(), &entry, version).await?;
        Ok(term(&key, &message))
    }

    /// Computes the terms of a query: the value's blind index under every usable version of the index key, which is
    /// pre-active, active or deactivated.
    ///
    /// A query so finds rows that were indexed before and after a rotation, and by older versions of the normaliser.
    /// The empty value finds the rows whose value is empty after normalisation. A context without an index key has no
    /// terms: nothing was indexed, and this makes no key. Rows that were indexed under a suspended, compromised or
    /// destroyed version are not found.
    ///
    /// <div class="warning">
    ///
    /// Rows under a version that this process does not know yet are not found either. If another process rotates
    /// without notice, that may take [`state_ttl`](crate::CryptoBuilder::state_ttl), a minute by default. Before you
    /// rotate an index key, [`prepare`](crate::keys::KeyManager::prepare) the version and wait until all processes
    /// know it: [`await_processes`](crate::keys::KeyManager::await_processes).
    ///
    /// </div>
    ///
    /// # Errors
    ///
    /// [`Error::Index`] if the value cannot be indexed. If any version cannot be loaded, its error, as those of
    /// [`decrypt`](Self::decrypt): a search that finds only some of the rows would look like a complete one.
    ///
    /// # Cancellation
    ///
    /// As [`encrypt`](Self::encrypt).
    pub async fn index_terms(
        &self,
        context: &EncryptionContext,
        field: &IndexField,
        value: impl IndexValue,
    ) -> Result<IndexTerms, Error> {
        let messages = field.sought(&value)?;
        let entry = self.entry_of(context, KeyUsage::Index);
        terms(self.core(), &entry, &messages).await
    }

    /// Computes the terms of many queries, as [`index_terms`](Self::index_terms) does for one.
    ///
    /// # Errors
    ///
    /// Each item's result is as that of [`index_terms`](Self::index_terms).
    ///
    /// # Cancellation
    ///
    /// As [`encrypt`](Self::encrypt).
    pub async fn index_terms_many<'a, V: IndexValue>(
        &self,
        items: impl IntoIterator<Item = (&'a EncryptionContext, &'a IndexField, V)>,
    ) -> Vec<Result<IndexTerms, Error>> {
        let normalize = |(context, field, value): (_, &IndexField, V)| {
            let messages = field.sought(&value)?;
            Ok((self.entry_of(context, KeyUsage::Index), messages))
        };
        let items: Vec<Result<_, Error>> = items.into_iter().map(normalize).collect();
        let mut done = Vec::with_capacity(items.len());
        for item in items {
            done.push(match item {
                Ok((entry, messages)) => terms(self.core(), &entry, &messages).await,
                Err(error) => Err(error),
            });
        }
        done
    }

    /// Tells whether indexing the same value again would use a newer version of the index key.
    ///
    /// Only reads the tag of the key's id. A term does not show which version of a normaliser made it: after a
    /// normaliser has changed, compute the [`blind_index`](Self::blind_index) of each value again and compare.
    ///
    /// # Errors
    ///
    /// [`Error::NoActiveKey`], [`Error::NoKeys`] or [`Error::Shredded`] if there is no key to index with; and those of
    /// [`encrypt`](Self::encrypt) that concern the key store.
    ///
    /// # Cancellation
    ///
    /// As [`encrypt`](Self::encrypt).
    pub async fn needs_reindex(
        &self,
        context: &EncryptionContext,
        index: &BlindIndex,
    ) -> Result<bool, Error> {
        let entry = self.entry_of(context, KeyUsage::Index);
        let records = self.core().cache().current_records(&entry).await?;
        if records.is_empty() {
            return Err(Error::NoKeys);
        }
        let active = records.active()?.ok_or_else(|| records.why_none_is_active())?;
        Ok(BlindIndex::tag_of(active.id) != index.key_tag())
    }

    /// Returns the entry of another usage than data.
    pub(crate) fn entry_of(&self, context: &EncryptionContext, usage: KeyUsage) -> Arc<Entry> {
        self.core().cache().nearby_entry(context, usage)
    }

    fn messages<'a, V: IndexValue>(
        &self,
        items: impl IntoIterator<Item = (&'a EncryptionContext, &'a IndexField, V)>,
    ) -> Vec<Result<(Arc<Entry>, Message), Error>> {
        let items = items.into_iter();
        items
            .map(|(context, field, value)| {
                let message = field.message(&value)?;
                Ok((self.entry_of(context, KeyUsage::Index), message))
            })
            .collect()
    }
}

fn term(key: &DerivationKey, message: &Message) -> BlindIndex {
    key.with_subkey(&message.info, |subkey| message.under(key.id, subkey))
}

async fn terms(core: &Core, entry: &Arc<Entry>, messages: &[Message]) -> Result<IndexTerms, Error> {
    if let Some(computed) = try_terms(core, entry, messages) {
        return computed;
    }
    let known = entry.records();
    let mut records = core.cache().current_records(entry).await?;
    if records.is_empty() && known.is_some() {
        // Another process may have made the first key and indexed with it since this one read that there is none.
        records = core.cache().reload(entry).await?;
    }
    // If the key store has lost the greatest version that this process has used, a search under the others would miss
    // the rows that it indexed.
    records.active()?;
    let usable = records
        .iter()
        .filter(|record| core.cache.limits.check_decrypts(record).is_ok());
    let usable: Vec<_> = usable.map(|record| record.id).collect();
    let missing = usable.iter().map(|id| (*id, Arc::clone(entry))).collect();
    let keys = core
        .load_together(missing, Purpose::Decrypt, |core, id, entry| async move {
            core.cache().by_id(&entry, id).await?.derivation_key()
        })
        .await;
    let mut terms = Vec::with_capacity(usable.len() * messages.len());
    for id in &usable {
        match loaded(&keys, id) {
            Ok(key) => terms.extend(messages.iter().map(|message| term(&key, message))),
            // Its state has changed since.
            Err(
                Error::Suspended { .. }
                | Error::Compromised { .. }
                | Error::Destroyed { .. }
                | Error::Shredded,
            ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(IndexTerms::new(terms))
}

/// Computes the terms if all keys are cached and usable; `None` if a key must be loaded.
fn try_terms(core: &Core, entry: &Entry, messages: &[Message]) -> Option<Result<IndexTerms, Error>> {
    let mut visit = core.visit(entry);
    let mut look = visit.look();
    let snapshot = look.snapshot?;
    let derivation_keys = snapshot
        .derivation_keys
        .as_ref()
        .filter(|derivation_keys| derivation_keys.complete)?;
    let mut terms = Vec::with_capacity(derivation_keys.all.len() * messages.len());
    for key in &derivation_keys.all {
        match use_now(core, snapshot, key, Purpose::Decrypt, &mut look)? {
            Ok(key) => terms.extend(messages.iter().map(|message| term(&key, message))),
            Err(error) => return Some(Err(error)),
        }
    }
    Some(Ok(IndexTerms::new(terms)))
}

/// Returns the active index key or pepper. Makes or loads it if necessary.
pub(super) async fn active_derivation_key(
    core: &Core,
    entry: &Arc<Entry>,
) -> Result<Arc<DerivationKey>, Error> {
    match try_active(core, entry) {
        Some(key) => key,
        None => core.cache().active(entry).await?.derivation_key(),
    }
}

fn try_active(core: &Core, entry: &Entry) -> Option<Result<Arc<DerivationKey>, Error>> {
    let mut visit = core.visit(entry);
    let mut look = visit.look();
    let snapshot = look.snapshot?;
    let active = snapshot.derivation_keys.as_ref()?.active.as_ref()?;
    let done = use_now(core, snapshot, active, Purpose::Encrypt, &mut look);
    visit.end();
    done
}

/// Returns a version of the index key or pepper. Loads it if necessary.
pub(super) async fn derivation_key_of(
    core: &Core,
    entry: &Arc<Entry>,
    id: DataKeyId,
) -> Result<Arc<DerivationKey>, Error> {
    match try_of(core, entry, id) {
        Some(key) => key,
        None => core.cache().by_id(entry, id).await?.derivation_key(),
    }
}

fn try_of(core: &Core, entry: &Entry, id: DataKeyId) -> Option<Result<Arc<DerivationKey>, Error>> {
    let mut visit = core.visit(entry);
    let mut look = visit.look();
    let snapshot = look.snapshot?;
    let key = snapshot.derivation_keys.as_ref()?.find(id)?;
    let done = use_now(core, snapshot, key, Purpose::Decrypt, &mut look);
    visit.end();
    done
}

/// Uses a key of a snapshot if no load is necessary.
fn use_now(
    core: &Core,
    snapshot: &Snapshot,
    key: &Arc<DerivationKey>,
    purpose: Purpose,
    look: &mut Look<'_>,
) -> Option<Result<Arc<DerivationKey>, Error>> {
    let may = core.may_use(snapshot, key, purpose, look)?;
    if may.is_ok() {
        core.cache.counters.hits.add(Use::Derive, 1);
    }
    Some(may.map(|()| Arc::clone(key)).map_err(unbox))
}

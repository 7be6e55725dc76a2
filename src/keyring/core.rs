//! The core of keyrings and `Crypto`: a hot call that never waits, and a cold path for a key that is not cached.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::Guard;
use encx_core::aad::Aad;
use encx_core::ciphertext::{Ciphertext, Header, Suite};
use encx_core::key::DataKeyId;
use encx_suite::{Epoch, Epochs};

use crate::cache::{
    Cache, CacheHandle, DataCipher, Entry, KeyMeta, Later, Purpose, Snapshot, Use, check_len,
};
use crate::error::{Boxed, Error, Location, unbox};
use crate::plaintext::Plaintext;

/// The wait for a key that is not cached. Boxed, so that the futures of hot calls are small: they are polled where they
/// are made, and the awaiting future reserves room for them.
pub(crate) type Waiting = Pin<Box<dyn Future<Output = Result<Arc<DataCipher>, Error>> + Send>>;

/// The core of keyrings and `Crypto`: the cache, and the suites for writing and reading.
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

    /// Loads the key that encrypts, unless the input was refused.
    pub(super) fn key_to_seal(&self, entry: Arc<Entry>, checked: Result<(), Error>) -> Waiting {
        let cache = Arc::clone(&self.cache);
        Box::pin(async move {
            checked?;
            let key = cache.active_key(&entry).await?;
            cache.counters.count(&cache.counters.waited_encrypts);
            Ok(key)
        })
    }

    /// Loads the key of a ciphertext, unless the input is refused.
    pub(super) fn key_to_open(&self, entry: Arc<Entry>, header: Header, aad: &Aad) -> Waiting {
        let accepted = self.check_suite(header.suite);
        let checked = accepted.and_then(|()| check_input(&[], aad));
        let cache = Arc::clone(&self.cache);
        Box::pin(async move {
            checked?;
            let key = cache.key_by_id(&entry, header.key_id).await?;
            cache.counters.count(&cache.counters.waited_decrypts);
            Ok(key)
        })
    }

    /// Starts a call with the snapshot of an entry.
    #[inline(always)]
    pub(crate) fn visit(&self, entry: &Entry) -> Visit {
        // The clock first: it is the service's code, too.
        let now = self.cache.clock.elapsed_coarsely();
        Visit {
            snapshot: entry.snapshot(),
            now,
            later: Later::default(),
        }
    }

    /// Encrypts if that needs no load or query; otherwise `None`.
    pub(crate) fn try_encrypt(
        &self,
        entry: &Entry,
        plaintext: &[u8],
        aad: &mut Aad,
    ) -> Option<Boxed<Ciphertext>> {
        let mut sealed = Vec::new();
        let done = self.try_encrypt_into(entry, plaintext, aad, &mut sealed)?;
        Some(done.map(|()| Ciphertext::from_sealed(sealed)))
    }

    /// Encrypts into an empty buffer if that needs no load or query; otherwise `None`.
    #[inline(always)]
    pub(crate) fn try_encrypt_into(
        &self,
        entry: &Entry,
        plaintext: &[u8],
        aad: &mut Aad,
        buffer: &mut Vec<u8>,
    ) -> Option<Boxed<()>> {
        let mut visit = self.visit(entry);
        let active = match self.active_of(&mut visit.look())? {
            Ok(active) => active,
            Err(error) => return Some(Err(error)),
        };
        self.cache.counters.hits.add(Use::Encrypt, 1);
        let mut epochs = active.epochs();
        let done = active
            .key
            .seal_into(&mut epochs, self.suite, plaintext, aad, buffer);
        active.keep(entry, epochs);
        Some(done)
    }

    /// Returns the key that encrypts for one use, if it is in the snapshot and may be used. `None` if the key store or
    /// the KMS must be asked.
    #[inline(always)]
    pub(super) fn active_of<'a>(&self, look: &mut Look<'a>) -> Option<Boxed<Active<'a>>> {
        let snapshot = look.snapshot?;
        let key = snapshot.active.as_ref()?;
        if let Err(error) = self.may_use(snapshot, key, Purpose::Encrypt, look)? {
            return Some(Err(error));
        }
        Some(Ok(Active { key, snapshot }))
    }

    /// Tells whether the key that encrypts is cached and may be used.
    pub(crate) fn is_ready(&self, entry: &Entry) -> bool {
        let mut visit = self.visit(entry);
        let look = visit.look();
        let active = look
            .snapshot
            .and_then(|snapshot| Some((snapshot, snapshot.active.as_ref()?)));
        let may =
            active.and_then(|(snapshot, key)| self.check_use(snapshot, key, Purpose::Encrypt, look.now));
        matches!(may, Some(Ok(())))
    }

    /// Tells whether a key may be used now, by its age and by the age of its known state. `None` if the key store or
    /// the KMS must be asked.
    #[inline(always)]
    pub(crate) fn may_use(
        &self,
        snapshot: &Snapshot,
        key: &KeyMeta,
        purpose: Purpose,
        look: &mut Look<'_>,
    ) -> Option<Boxed<()>> {
        if look.now < key.expires_at && self.cache.is_snapshot_fresh(snapshot, look.now) {
            // Almost always.
            key.mark_used();
            return Some(Ok(()));
        }
        self.may_use_late(snapshot, key, purpose, look)
    }

    #[inline(never)]
    fn may_use_late(
        &self,
        snapshot: &Snapshot,
        key: &KeyMeta,
        purpose: Purpose,
        look: &mut Look<'_>,
    ) -> Option<Boxed<()>> {
        let may = self.check_use(snapshot, key, purpose, look.now);
        if let Some(Ok(())) = may {
            key.mark_used();
            if self.cache.count_use(key, look.now) {
                look.later.note_stale(key.id);
            }
        }
        may
    }

    fn check_use(
        &self,
        snapshot: &Snapshot,
        key: &KeyMeta,
        purpose: Purpose,
        now: Duration,
    ) -> Option<Boxed<()>> {
        if !key.serves(purpose, now, &self.cache.limits) {
            return None;
        }
        self.cache.is_snapshot_current(snapshot, now)
    }

    /// Decrypts if that needs no load or query; otherwise `None`.
    #[inline(always)]
    pub(crate) fn try_decrypt(
        &self,
        entry: &Entry,
        ciphertext: &Ciphertext,
        aad: &mut Aad,
    ) -> Option<Boxed<Plaintext>> {
        let mut visit = self.visit(entry);
        let mut look = visit.look();
        let done = match self.key_of(&mut look, ciphertext.key_id())? {
            Ok((key, epoch)) => self.open(key, epoch, ciphertext, aad, look.later),
            Err(error) => Err(error),
        };
        visit.end();
        Some(done)
    }

    #[inline(always)]
    pub(crate) fn try_decrypt_in_place(
        &self,
        entry: &Entry,
        buffer: &mut Vec<u8>,
        aad: &mut Aad,
    ) -> Option<Boxed<()>> {
        let header = match Header::of(buffer) {
            Ok(header) => header,
            Err(error) => return Some(Err(Error::boxed(error))),
        };
        let mut visit = self.visit(entry);
        let mut look = visit.look();
        match self.key_of(&mut look, header.key_id)? {
            Ok((key, epoch)) => Some(self.open_in_place(key, epoch, header, buffer, aad, look.later)),
            Err(error) => Some(Err(error)),
        }
    }

    /// Returns a key that decrypts for one use, and the epoch if it belongs to that key. `None` if the key store or the
    /// KMS must be asked.
    #[inline(always)]
    pub(super) fn key_of<'a>(
        &self,
        look: &mut Look<'a>,
        id: DataKeyId,
    ) -> Option<Boxed<(&'a DataCipher, Option<&'a Epoch>)>> {
        let snapshot = look.snapshot?;
        let key = snapshot.find(id)?;
        if let Err(error) = self.may_use(snapshot, key, Purpose::Decrypt, look)? {
            return Some(Err(error));
        }
        self.cache.counters.hits.add(Use::Decrypt, 1);
        Some(Ok((key, snapshot.epoch_of(key))))
    }

    pub(crate) async fn needs_reencryption(
        &self,
        entry: &Arc<Entry>,
        ciphertext: &Ciphertext,
    ) -> Result<bool, Error> {
        let id = ciphertext.key_id();
        let records = self.cache.records_with(entry, id).await?;
        let active = records.active()?.ok_or_else(|| records.why_none_is_active())?;
        Ok(active.id != id || ciphertext.suite() != self.suite)
    }

    #[inline(always)]
    pub(crate) fn open(
        &self,
        key: &DataCipher,
        epoch: Option<&Epoch>,
        ciphertext: &Ciphertext,
        aad: &mut Aad,
        later: &mut Later,
    ) -> Boxed<Plaintext> {
        let suite = ciphertext.suite();
        if !self.accepts(suite) {
            return Err(Error::boxed(refuse_suite(suite)));
        }
        key.open(epoch, ciphertext, aad, later)
    }

    pub(super) fn open_in_place(
        &self,
        key: &DataCipher,
        epoch: Option<&Epoch>,
        header: Header,
        buffer: &mut Vec<u8>,
        aad: &mut Aad,
        later: &mut Later,
    ) -> Boxed<()> {
        if !self.accepts(header.suite) {
            return Err(Error::boxed(refuse_suite(header.suite)));
        }
        key.open_in_place(epoch, header, buffer, aad, later)
    }

    /// Adds the location of a refused ciphertext to its error, logs it in an event, and counts it. Call it without
    /// holding a key, a snapshot or a lock, because a subscriber may call back.
    #[cold]
    #[inline(never)]
    pub(crate) fn note_refused(&self, error: &mut Error, key: Option<DataKeyId>, aad: &Aad) {
        let Some(refusal) = error.refusal() else { return };
        self.cache.counters.refused.count(refusal);
        // A buffer that was opened in place no longer names its key.
        let key = error.location_mut().and_then(|at| at.key_id()).or(key);
        let at = Location::of(key, aad);
        tracing::warn!(
            target: "encx::refused",
            refusal = refusal.name(),
            table = at.table(),
            column = at.column(),
            row = at.row(),
            key = at.key_id().map(tracing::field::display),
            "ciphertext refused"
        );
        if let Some(place) = error.location_mut() {
            *place = at;
        }
    }

    /// Unboxes the error of a hot call that opens, as [`note_refused`](Self::note_refused).
    #[cold]
    pub(super) fn refused(&self, error: Box<Error>, key: Option<DataKeyId>, aad: &Aad) -> Error {
        let mut error = unbox(error);
        self.note_refused(&mut error, key, aad);
        error
    }

    fn accepts(&self, suite: Suite) -> bool {
        match suite {
            Suite::KcXaes256Gcm => true,
            Suite::Xaes256Gcm => self.accept_uncommitted,
            _ => false,
        }
    }

    pub(crate) fn check_suite(&self, suite: Suite) -> Result<(), Error> {
        if self.accepts(suite) {
            return Ok(());
        }
        Err(refuse_suite(suite))
    }
}

/// The snapshot of an entry, for one call.
///
/// No code of the service runs while it is held, because that code may call back or be slow: dropping it sends the events
/// in [`Later`] to subscribers.
pub(crate) struct Visit {
    // In this order: the snapshot is released before subscribers are told.
    snapshot: Guard<Option<Arc<Snapshot>>>,
    now: Duration,
    later: Later,
}

impl Visit {
    #[inline(always)]
    pub(crate) fn look(&mut self) -> Look<'_> {
        Look {
            snapshot: self.snapshot.as_ref(),
            now: self.now,
            later: &mut self.later,
        }
    }

    /// Ends the visit before its function returns a secret. At the end of the function the secret would already be in the
    /// caller's place, and if a subscriber then panicked, neither would drop it (rust-lang/rust#47949).
    #[inline(always)]
    pub(crate) fn end(self) {}
}

/// A view of an entry's snapshot.
pub(crate) struct Look<'a> {
    pub(crate) snapshot: Option<&'a Arc<Snapshot>>,
    /// The clock's time, coarsely.
    pub(crate) now: Duration,
    pub(crate) later: &'a mut Later,
}

/// The key that encrypts, from a snapshot.
pub(super) struct Active<'a> {
    pub(super) key: &'a DataCipher,
    snapshot: &'a Arc<Snapshot>,
}

impl Active<'_> {
    /// Returns the epoch to continue with.
    #[inline(always)]
    pub(super) fn epochs(&self) -> Epochs<'_> {
        Epochs::new(self.snapshot.epoch.as_ref())
    }

    /// Stores the epoch in the entry, if a new one began.
    #[inline(always)]
    pub(super) fn keep(&self, entry: &Entry, epochs: Epochs<'_>) {
        if let Some(begun) = epochs.begun() {
            entry.keep_epoch(self.snapshot, begun);
        }
    }
}

#[cold]
fn refuse_suite(suite: Suite) -> Error {
    let at = Location::default();
    Error::SuiteNotAccepted { suite, at }
}

/// Refuses input that can never be sealed or opened, before a key is loaded.
pub(crate) fn check_input(plaintext: &[u8], aad: &Aad) -> Result<(), Error> {
    aad.framed()?;
    check_len(plaintext).map_err(unbox)
}

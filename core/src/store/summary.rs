//! Counts of a key store's contents.

use std::collections::BTreeMap;

use crate::key::{KekId, KeyState, KeyUsage, KmsName};
use crate::store::{KeyRecord, Timestamp};

/// The number of versions by usage and state.
///
/// Tombstones count as destroyed versions, as in lists.
///
/// ```
/// # use encx_core::key::{KeyState, KeyUsage};
/// # use encx_core::store::{KeyStore, StoreError};
/// # async fn status(store: &dyn KeyStore) -> Result<(), StoreError> {
/// let summary = store.summary().await?;
/// println!("{} active data keys", summary.versions(KeyUsage::Data, KeyState::Active));
/// println!("the oldest became active at {:?}", summary.oldest_active(KeyUsage::Data));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeySummary {
    /// The counts, sorted by usage and state. A zero count is left out.
    pub counts: Vec<KeyCount>,
    /// How many versions are in none of the counts, because their rows have a usage or a state that encx does not know.
    /// A lower bound: a group of rows that cannot be counted at all adds one.
    pub unreadable: u64,
}

/// The number of versions of one usage in one state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyCount {
    /// The usage.
    pub usage: KeyUsage,
    /// The state.
    pub state: KeyState,
    /// The number of versions.
    pub versions: u64,
    /// When the first of them became active; `None` if none ever did.
    pub first_activated_at: Option<Timestamp>,
}

impl KeyCount {
    /// Makes a count. For stores.
    #[must_use]
    pub fn new(
        usage: KeyUsage,
        state: KeyState,
        versions: u64,
        first_activated_at: Option<Timestamp>,
    ) -> Self {
        Self {
            usage,
            state,
            versions,
            first_activated_at,
        }
    }
}

impl KeySummary {
    /// Sorts counts, each of another usage and state. For stores.
    #[must_use]
    pub fn new(mut counts: Vec<KeyCount>) -> Self {
        counts.sort_by_key(|count| (count.usage, count.state));
        Self {
            counts,
            unreadable: 0,
        }
    }

    /// Sets the number of versions that are in none of the counts. For stores.
    #[must_use]
    pub fn with_unreadable(mut self, versions: u64) -> Self {
        self.unreadable = versions;
        self
    }

    /// Counts records. For stores whose database does not count.
    #[must_use]
    pub fn of<'r>(records: impl IntoIterator<Item = &'r KeyRecord>) -> Self {
        let mut counts = BTreeMap::new();
        for record in records {
            let key = (record.usage, record.state);
            let count = counts
                .entry(key)
                .or_insert_with(|| KeyCount::new(record.usage, record.state, 0, None));
            count.versions += 1;
            let moments = [count.first_activated_at, record.activated_at];
            count.first_activated_at = moments.into_iter().flatten().min();
        }
        Self::new(counts.into_values().collect())
    }

    /// Returns the number of versions of a usage in a state.
    #[must_use]
    pub fn versions(&self, usage: KeyUsage, state: KeyState) -> u64 {
        self.count(usage, state).map_or(0, |count| count.versions)
    }

    /// Returns when the oldest active version of a usage became active; `None` if none is active.
    #[must_use]
    pub fn oldest_active(&self, usage: KeyUsage) -> Option<Timestamp> {
        self.count(usage, KeyState::Active)?.first_activated_at
    }

    fn count(&self, usage: KeyUsage, state: KeyState) -> Option<&KeyCount> {
        let mut counts = self.counts.iter();
        counts.find(|count| count.usage == usage && count.state == state)
    }
}

/// How many versions a KEK wraps, and how many only this KEK wraps.
///
/// A KEK whose `sole` is 0 can be retired without losing a version, as far as the rows tell.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KekUse {
    /// The KMS's name.
    pub kms: KmsName,
    /// The KEK.
    pub kek: KekId,
    /// The number of versions with a wrap by it.
    pub versions: u64,
    /// The number of those without another wrap.
    pub sole: u64,
}

impl KekUse {
    /// Makes a count. For stores.
    #[must_use]
    pub fn new(kms: KmsName, kek: KekId, versions: u64, sole: u64) -> Self {
        Self {
            kms,
            kek,
            versions,
            sole,
        }
    }

    /// Counts records, sorted by KMS and KEK. For stores whose database does not count.
    #[must_use]
    pub fn of<'r>(records: impl IntoIterator<Item = &'r KeyRecord>) -> Vec<Self> {
        let mut uses = BTreeMap::new();
        for record in records {
            for wrap in &record.wraps {
                let (kms, kek) = (wrap.kms.clone(), wrap.wrapped.kek.clone());
                let found = uses
                    .entry((kms.clone(), kek.clone()))
                    .or_insert_with(|| Self::new(kms, kek, 0, 0));
                found.versions += 1;
                found.sole += u64::from(record.wraps.len() == 1);
            }
        }
        uses.into_values().collect()
    }
}

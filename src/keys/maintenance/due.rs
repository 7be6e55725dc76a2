//! Which versions are due, without rotating any.

use std::time::Duration;

use encx_core::context::EncryptionContext;
use encx_core::key::{DataKeyId, KeyState, KeyUsage};
use encx_core::store::{KeyPage, KeyQuery, KeyRecord, Timestamp};

use super::{Maintenance, RotationPeriod};
use crate::error::Error;

/// How many versions a page has.
const PAGE: u32 = 1000;

/// The versions that [`Maintenance::run_once`] would rotate now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DueReport {
    /// How many there are.
    pub versions: u64,
    /// How many rows of active versions do not say what they are for, so that it is not known whether they are due.
    pub unreadable: u64,
    /// The first of them, in the order of their ids.
    pub first: Vec<DueVersion>,
}

/// A version that has encrypted for long enough.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DueVersion {
    /// The version.
    pub id: DataKeyId,
    /// What it is for.
    pub usage: KeyUsage,
    /// Its encryption context.
    pub context: EncryptionContext,
    /// Since when it encrypts.
    pub active_since: Timestamp,
    /// For how long it may.
    pub period: Duration,
}

impl Maintenance {
    /// Counts the versions that are due, and lists the first of them. Rotates nothing, and takes no lease.
    ///
    /// It reads every active version that is older than the shortest period, a thousand in one query.
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::Crypto;
    /// # use encx::keys::Maintenance;
    /// # encx_testkit::block_on(async {
    /// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
    /// let due = Maintenance::new(crypto.key_manager()).due(10).await?;
    /// println!("{} versions are due", due.versions);
    /// for version in &due.first {
    ///     println!("{}, since {:?}", version.id, version.active_since);
    /// }
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a period, term or interval of no length, and those of the key store.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn due(&self, list_at_most: usize) -> Result<DueReport, Error> {
        self.check()?;
        let mut report = DueReport {
            versions: 0,
            unreadable: 0,
            first: Vec::new(),
        };
        let Some(shortest) = self.rules.shortest() else {
            return Ok(report);
        };
        let now = self.manager.time_of_store().await?;
        for usage in &self.usages {
            let all = KeyQuery::new(PAGE)
                .usage(*usage)
                .state(KeyState::Active)
                .activated_before(now.minus(shortest));
            let mut query = all.clone();
            loop {
                let page = self.manager.store.page(&query).await?;
                for record in &page.records {
                    match self.if_due(record, now) {
                        Ok(None) => {}
                        Ok(Some(due)) => {
                            report.versions += 1;
                            if report.first.len() < list_at_most {
                                report.first.push(due);
                            }
                        }
                        // One row that encx did not write hides nothing else.
                        Err(_) => report.unreadable += 1,
                    }
                }
                match page.next {
                    Some(next) => query = all.clone().after(next),
                    None => break,
                }
            }
        }
        Ok(report)
    }

    /// Lists versions that [`run_once`](Self::run_once) would rotate now, of those that `query` asks for: a page at a time, in the
    /// order of their ids. Changes nothing.
    ///
    /// A page may be empty and not the last. Rows that do not say what they are for are left out, with a warning each;
    /// [`due`](Self::due) counts them.
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::Crypto;
    /// # use encx::keys::Maintenance;
    /// # use encx::store::KeyQuery;
    /// # encx_testkit::block_on(async {
    /// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
    /// let maintenance = Maintenance::new(crypto.key_manager());
    /// let page = maintenance.due_page(KeyQuery::new(100)).await?;
    /// for version in &page.records {
    ///     println!("{} is due since {:?}", version.id, maintenance.due_at(version));
    /// }
    /// # assert!(page.records.is_empty());
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the key store.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn due_page(&self, query: KeyQuery) -> Result<KeyPage, Error> {
        let Some(shortest) = self.rules.shortest() else {
            return Ok(KeyPage::of_one_more(Vec::new(), query.limit));
        };
        let now = self.manager.time_of_store().await?;
        let oldest_not_due = now.minus(shortest);
        let before = query
            .activated_before
            .map_or(oldest_not_due, |asked| asked.min(oldest_not_due));
        let query = query.state(KeyState::Active).activated_before(before);
        let mut page = self.manager.store.page(&query).await?;
        page.records
            .retain(|record| self.due_at(record).is_some_and(|at| at < now));
        Ok(page)
    }

    /// Returns the moment from which a version is due. `None` if it is not active, or is never rotated.
    ///
    /// ```
    /// # use encx::keys::Maintenance;
    /// # use encx::store::KeyRecord;
    /// # fn example(maintenance: &Maintenance, version: &KeyRecord) {
    /// match maintenance.due_at(version) {
    ///     Some(at) => println!("{} is due at {at:?}", version.id),
    ///     None => println!("{} is not rotated", version.id),
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn due_at(&self, version: &KeyRecord) -> Option<Timestamp> {
        let is_rotated = version.state == KeyState::Active && self.usages.contains(&version.usage);
        let activated_at = version.activated_at.filter(|_| is_rotated)?;
        let (_, period) = self.period_of(version).ok()??;
        Some(activated_at.plus(period))
    }

    /// Describes an active version if it is due.
    pub(super) fn if_due(&self, record: &KeyRecord, now: Timestamp) -> Result<Option<DueVersion>, Error> {
        let Some((context, period)) = self.period_of(record)? else {
            return Ok(None);
        };
        let since = record.activated_at.filter(|since| *since < now.minus(period));
        Ok(since.map(|active_since| DueVersion {
            id: record.id,
            usage: record.usage,
            context,
            active_since,
            period,
        }))
    }

    /// Finds for how long a version encrypts; `None` if it is never rotated.
    fn period_of(&self, record: &KeyRecord) -> Result<Option<(EncryptionContext, Duration)>, Error> {
        // The row says what it is for, and has to agree with its own scope.
        let context = record.verified_context()?;
        Ok(match self.rules.period(&context, record.usage) {
            RotationPeriod::Every(period) => Some((context, period)),
            RotationPeriod::Never => None,
        })
    }
}

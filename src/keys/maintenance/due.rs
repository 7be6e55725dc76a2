//! Finding due versions without rotating them.

use std::time::Duration;

use encx_core::context::EncryptionContext;
use encx_core::key::{DataKeyId, KeyState, KeyUsage};
use encx_core::store::{KeyQuery, KeyRecord, Timestamp};

use super::{Maintenance, RotationPeriod};
use crate::error::Error;

/// Versions per page.
const PAGE: u32 = 1000;

/// The versions that [`Maintenance::run_once`] would rotate now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DueReport {
    /// How many versions are due.
    pub versions: u64,
    /// Rows of active versions whose context does not match their scope. Whether they are due is unknown.
    pub unreadable: u64,
    /// The first due versions, by id.
    pub first: Vec<DueVersion>,
}

/// A version whose period is over.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DueVersion {
    /// The version's id.
    pub id: DataKeyId,
    /// Its usage.
    pub usage: KeyUsage,
    /// Its encryption context.
    pub context: EncryptionContext,
    /// When it became active.
    pub active_since: Timestamp,
    /// How long it may encrypt.
    pub period: Duration,
}

/// A page of due versions.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DuePage {
    /// The due versions, in the order of their ids.
    pub records: Vec<KeyRecord>,
    /// Active versions whose rows have a context that does not match their scope. Whether they are due is unknown.
    pub unreadable: Vec<DataKeyId>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<DataKeyId>,
}

impl Maintenance {
    /// Counts the due versions and lists the first of them. Rotates nothing and takes no lease.
    ///
    /// Reads every active version older than the shortest period, a thousand per query.
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
    /// [`Error::Config`] for a zero period, term or interval; key store errors.
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
                        // One row that encx did not write must not hide the others.
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

    /// Lists the versions matching `query` that [`run_once`](Self::run_once) would rotate now.
    ///
    /// Returns one page, in id order. Changes nothing.
    ///
    /// A page may be empty without being the last.
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
    /// Key store errors.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn due_page(&self, query: KeyQuery) -> Result<DuePage, Error> {
        let mut due = DuePage {
            records: Vec::new(),
            unreadable: Vec::new(),
            next: None,
        };
        let Some(shortest) = self.rules.shortest() else {
            return Ok(due);
        };
        let now = self.manager.time_of_store().await?;
        let oldest_not_due = now.minus(shortest);
        let before = query
            .activated_before
            .map_or(oldest_not_due, |asked| asked.min(oldest_not_due));
        let query = query.state(KeyState::Active).activated_before(before);
        let page = self.manager.store.page(&query).await?;
        due.next = page.next;
        let is_rotated = |record: &KeyRecord| self.usages.contains(&record.usage);
        for record in page.records.into_iter().filter(is_rotated) {
            match self.if_due(&record, now) {
                Ok(Some(_)) => due.records.push(record),
                Ok(None) => {}
                Err(_) => due.unreadable.push(record.id),
            }
        }
        Ok(due)
    }

    /// Returns when a version becomes due; `None` if it is inactive or never rotated.
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

    /// Returns how long a version encrypts; `None` if it is never rotated.
    fn period_of(&self, record: &KeyRecord) -> Result<Option<(EncryptionContext, Duration)>, Error> {
        // The row's context must match its scope.
        let context = record.verified_context()?;
        Ok(match self.rules.period(&context, record.usage) {
            RotationPeriod::Every(period) => Some((context, period)),
            RotationPeriod::Never => None,
        })
    }
}

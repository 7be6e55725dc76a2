//! Destroying one version, in steps that lose no data.

use std::time::Duration;

use encx_core::context::EncryptionContext;
use encx_core::key::{DataKeyId, KeyState};
use encx_core::store::{KeyCensus, KeyRecord, OpenTransactions, StoreError, Timestamp};

use super::quarantine::{DAY, Quarantine};
use super::{KeyManager, ProcessReport};
use crate::error::Error;

/// How long each step waits for the processes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The progress of [`KeyManager::destroy`].
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use = "unless it says `Destroyed`, the version is not destroyed yet: call `destroy` again later"]
pub enum Destruction {
    /// Some processes have not followed the version's last change and may still encrypt under it. The version
    /// is unchanged or suspended. Call again after they followed the change or ended.
    AwaitingProcesses(ProcessReport),
    /// The version is suspended, and a transaction that may predate the suspension is open in the database of
    /// the rows. Its writes cannot be counted yet. Call again after it ended.
    AwaitingTransactions {
        /// The suspended version.
        record: KeyRecord,
        /// The oldest open transactions.
        open: OpenTransactions,
    },
    /// The version is destroyed.
    Destroyed(KeyRecord),
    /// The version is suspended. Call again at `until` or later.
    Quarantined {
        /// The suspended version.
        record: KeyRecord,
        /// The end of the quarantine, by the key store's clock.
        until: Timestamp,
    },
}

impl Destruction {
    /// Tells whether the version is destroyed.
    #[must_use]
    pub fn is_destroyed(&self) -> bool {
        matches!(self, Self::Destroyed(_))
    }
}

impl KeyManager {
    /// Sets how long [`destroy`](Self::destroy) keeps a version suspended. Default: 24 hours.
    ///
    /// Must exceed the life of anything that may hold a ciphertext not yet in its row: the longest
    /// transaction, a message in an outbox or queue, a retry, an open stream. Zero is refused: see
    /// [`without_quarantine`](Self::without_quarantine).
    ///
    /// If the key store has no process registry, the quarantine must last at least as long as a process can
    /// serve a key: its `ttl`, plus how long it lets keys serve beyond. [`destroy`](Self::destroy) refuses a
    /// shorter one, judged by the settings of this manager's `Crypto`. A manager without a `Crypto` does not
    /// know them and refuses less than 24 hours.
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext};
    /// # use std::time::Duration;
    /// # encx_testkit::block_on(async {
    /// # let manager = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build_key_manager()?;
    /// # let context = EncryptionContext::from_pairs([("tenantId", "t-42")])?;
    /// # let old = manager.create(&context).await?;
    /// # manager.rotate(&context).await?;
    /// const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    ///
    /// // Messages wait in the outbox for up to five days.
    /// let manager = manager.quarantine(7 * DAY);
    /// let answer = manager.destroy(&context, old.id).await?;
    /// # assert!(matches!(answer, encx::keys::Destruction::Quarantined { .. }));
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn quarantine(mut self, length: Duration) -> Self {
        self.quarantine = Quarantine::For(length);
        self
    }

    /// Lets [`destroy`](Self::destroy) skip the quarantine. It still checks processes, census and open
    /// transactions.
    ///
    /// If the key store has no process registry, [`destroy`](Self::destroy) refuses this: only a quarantine
    /// would outlast the processes that still encrypt under the version. Set a
    /// [`quarantine`](Self::quarantine), or give up the data with
    /// [`destroy_with_data`](Self::destroy_with_data).
    ///
    /// The audit log keeps the reason after the words `without_quarantine:`. At most 1000 bytes, not empty,
    /// never a secret.
    ///
    /// <div class="warning">
    ///
    /// A ciphertext not yet in its row, such as in a process's memory or an outbox, becomes unreadable.
    ///
    /// </div>
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext};
    /// # encx_testkit::block_on(async {
    /// # let manager = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build_key_manager()?;
    /// # let context = EncryptionContext::from_pairs([("tenantId", "t-42")])?;
    /// # let old = manager.create(&context).await?;
    /// # manager.rotate(&context).await?;
    /// let manager = manager.without_quarantine("a rehearsal on a copy of the database");
    /// let answer = manager.destroy(&context, old.id).await?;
    /// assert!(answer.is_destroyed());
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn without_quarantine(mut self, reason: impl Into<String>) -> Self {
        self.quarantine = Quarantine::None(reason.into());
        self
    }

    /// Destroys an inactive version that no row uses, in steps.
    ///
    /// Call it again until it returns [`Destruction::Destroyed`].
    ///
    /// 1. Waits up to a minute until every process has followed the version's last change, so that none
    ///    encrypts under it. Asks the [census](crate::CryptoBuilder::census) for rows. If there are none,
    ///    suspends the version and returns [`Destruction::Quarantined`].
    /// 2. During the [quarantine](Self::quarantine), every read under the version fails with
    ///    [`Error::Suspended`], is counted in [`Stats::refused`](crate::Stats::refused) and traced. Such a
    ///    read shows that the version is in use: resume it with [`set_state`](Self::set_state); no data is
    ///    lost.
    /// 3. A later call checks the processes again. It returns [`Destruction::AwaitingTransactions`] while a
    ///    transaction is open that was open at the suspension. It asks the census again, then destroys the
    ///    version: its wraps are deleted, and every process drops the key.
    ///
    /// The version's state is the only progress record, so any process can make the next call. A version
    /// already suspended or compromised at the first call continues at step 3; its quarantine began at its
    /// last change.
    ///
    /// Without a census, rows and transactions are not checked. If the key store has no process registry, the
    /// quarantine replaces step 1: each process stops using the version within its `ttl` plus how long it
    /// lets keys serve beyond.
    ///
    /// <div class="warning">
    ///
    /// Data encrypted under this version becomes unreadable. A database backup plus permission to unwrap with
    /// the version's KEK restores it.
    ///
    /// The census counts only the columns it was given. Ciphertexts in a process's memory, an outbox, a
    /// queue, a file or another database are not counted. They must reach their rows, or be read and refused,
    /// during the quarantine.
    ///
    /// </div>
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext};
    /// # use encx::keys::Destruction;
    /// # encx_testkit::block_on(async {
    /// # let manager = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build_key_manager()?;
    /// # let context = EncryptionContext::from_pairs([("tenantId", "t-42")])?;
    /// # let old = manager.create(&context).await?;
    /// # manager.rotate(&context).await?;
    /// match manager.destroy(&context, old.id).await? {
    ///     Destruction::Destroyed(record) => println!("{} is destroyed", record.id),
    ///     Destruction::Quarantined { until, .. } => println!("suspended; call again at {until:?}"),
    ///     later => println!("not yet; call again later: {later:?}"),
    /// }
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`set_state`](Self::set_state). An active version is [`StoreError::IllegalTransition`]: rotate or
    /// suspend first. [`Error::StillInUse`] if the census found rows; census errors. Nothing is destroyed
    /// then.
    ///
    /// [`Error::Config`] for a zero quarantine or a skipped one without a reason; if the key store has no
    /// process registry, also for a skipped quarantine or one that is too short (see
    /// [`quarantine`](Self::quarantine)). Nothing is changed then.
    ///
    /// # Cancellation
    ///
    /// The version is unchanged, suspended or destroyed; the next call continues.
    pub async fn destroy(&self, context: &EncryptionContext, id: DataKeyId) -> Result<Destruction, Error> {
        let reason = self.reason_to_destroy()?;
        if self.store.processes().is_none() {
            self.check_quarantine_alone()?;
        }
        let mut version = self.find(context, id).await?;
        if version.state == KeyState::Destroyed {
            return Ok(Destruction::Destroyed(version));
        }
        if !version
            .state
            .may_become(KeyState::Destroyed, version.suspended_from)
        {
            let (from, to) = (version.state, KeyState::Destroyed);
            return Err(StoreError::IllegalTransition { id, from, to }.into());
        }
        if !matches!(version.state, KeyState::Suspended | KeyState::Compromised) {
            if let Some(processes) = self.silent_processes().await? {
                return Ok(Destruction::AwaitingProcesses(processes));
            }
            if let Some(census) = &self.census {
                check_unused(&**census, id).await?;
            }
            let suspended = self.change(&version, KeyState::Suspended, reason.clone()).await;
            version = self.seen(context, suspended).await?;
        }
        // A rewrap or promotion since the suspension moves `changed_at` and only lengthens the quarantine.
        let suspended_at = version.changed_at;
        let now = self.time_of_store().await?;
        if let Quarantine::For(length) = self.quarantine {
            let until = suspended_at.plus(length);
            if now < until {
                let record = version;
                return Ok(Destruction::Quarantined { record, until });
            }
        }
        if let Some(processes) = self.silent_processes().await? {
            return Ok(Destruction::AwaitingProcesses(processes));
        }
        if let Some(census) = &self.census {
            // First the transactions, then the count, which sees the writes of all that have ended.
            let open = census.open_transactions().await?;
            if self.quarantine.may_be_older(&open, elapsed(suspended_at, now)) {
                let record = version;
                return Ok(Destruction::AwaitingTransactions { record, open });
            }
            check_unused(&**census, id).await?;
        }
        let destroyed = self.change(&version, KeyState::Destroyed, reason).await;
        let destroyed = self.seen(context, destroyed).await?;
        Ok(Destruction::Destroyed(destroyed))
    }

    /// Destroys an inactive version and its data at once, without asking a census.
    ///
    /// The audit log keeps the reason after the words `destroy_with_data:`. At most 1000 bytes, not empty,
    /// never a secret.
    ///
    /// <div class="warning">
    ///
    /// Data encrypted under this version becomes unreadable. A database backup plus permission to unwrap with
    /// the version's KEK restores it.
    ///
    /// </div>
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext};
    /// # use encx::keys::KeyState;
    /// # encx_testkit::block_on(async {
    /// # let manager = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build_key_manager()?;
    /// # let context = EncryptionContext::from_pairs([("tenantId", "t-42")])?;
    /// # let old = manager.create(&context).await?;
    /// # manager.rotate(&context).await?;
    /// let record = manager.destroy_with_data(&context, old.id, "ticket 4712: test data").await?;
    /// assert_eq!(record.state, KeyState::Destroyed);
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`set_state`](Self::set_state). An active version is [`StoreError::IllegalTransition`]: rotate or
    /// suspend first. [`Error::Config`] without a reason.
    ///
    /// # Cancellation
    ///
    /// The version is either destroyed or not.
    pub async fn destroy_with_data(
        &self,
        context: &EncryptionContext,
        id: DataKeyId,
        reason: impl Into<String>,
    ) -> Result<KeyRecord, Error> {
        let reason = self.skip("destroy_with_data", &reason.into())?;
        let version = self.find(context, id).await?;
        let changed = self.change(&version, KeyState::Destroyed, Some(reason)).await;
        self.seen(context, changed).await
    }

    /// Waits for the processes; `Some` if some have not followed.
    async fn silent_processes(&self) -> Result<Option<ProcessReport>, Error> {
        match self.await_processes(PATIENCE).await {
            Ok(processes) => Ok(Some(processes).filter(|processes| !processes.is_complete())),
            Err(Error::Store(StoreError::Unsupported { .. })) => self.check_quarantine_alone().map(|()| None),
            Err(error) => Err(error),
        }
    }

    /// Checks that the quarantine is long enough to replace waiting for the processes.
    fn check_quarantine_alone(&self) -> Result<(), Error> {
        // A manager without a `Crypto` does not know the `ttl` of the processes that encrypt.
        let own = self.core.as_ref().map(|core| core.cache.limits.serves_for());
        let serves_for = own.unwrap_or(DAY);
        let what = match self.quarantine {
            Quarantine::None(_) => "the key store has no registry of processes, so only a quarantine waits until they have stopped \
                 encrypting under the version: set one with `quarantine`, or give up the data with `destroy_with_data`"
                .to_owned(),
            Quarantine::For(length) if length < serves_for => format!(
                "the key store has no registry of processes, so a quarantine must be no shorter than a process serves a \
                 key (its `ttl`, and how long keys serve beyond; a day where that is not known, as by a manager without \
                 `Crypto`): set one of {} seconds or more with `quarantine`",
                serves_for.as_secs_f64().ceil()
            ),
            Quarantine::For(_) => return Ok(()),
        };
        Err(Error::Config { what })
    }

    /// Checks the settings and returns the audit log's reason.
    fn reason_to_destroy(&self) -> Result<Option<String>, Error> {
        match &self.quarantine {
            Quarantine::For(Duration::ZERO) => {
                let what =
                    "a quarantine must have a length; skip it by name, with `without_quarantine`".to_owned();
                Err(Error::Config { what })
            }
            Quarantine::For(_) => Ok(self.reason.clone()),
            Quarantine::None(reason) => self.skip("without_quarantine", reason).map(Some),
        }
    }

    /// Puts the name of the skipped check before its reason, and the manager's own reason after it.
    fn skip(&self, name: &str, reason: &str) -> Result<String, Error> {
        if reason.trim().is_empty() {
            let what = format!("`{name}` needs a reason, which the audit log keeps");
            return Err(Error::Config { what });
        }
        Ok(match &self.reason {
            Some(own) => format!("{name}: {reason}; {own}"),
            None => format!("{name}: {reason}"),
        })
    }
}

async fn check_unused(census: &dyn KeyCensus, id: DataKeyId) -> Result<(), Error> {
    let mut columns = census.rows_under(id).await?;
    columns.retain(|column| column.rows > 0);
    if columns.is_empty() {
        return Ok(());
    }
    let columns = columns.into();
    Err(Error::StillInUse { id, columns })
}

fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    let micros = to.as_micros().saturating_sub(from.as_micros());
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

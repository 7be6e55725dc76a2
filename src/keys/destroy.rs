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

/// How far [`KeyManager::destroy`] came.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use = "unless it says `Destroyed`, the version is not destroyed yet: call `destroy` again later"]
pub enum Destruction {
    /// Some processes have not followed the version's last change and may still encrypt under it. Nothing was changed by
    /// this call, or the version is suspended. Call again when they have, or have ended.
    AwaitingProcesses(ProcessReport),
    /// The version is suspended, and a transaction is open in the database of the rows that may be older than that: what it
    /// wrote cannot be counted. Call again when it has ended.
    AwaitingTransactions {
        /// The version, suspended.
        record: KeyRecord,
        /// The oldest ones.
        open: OpenTransactions,
    },
    /// The version is destroyed.
    Destroyed(KeyRecord),
    /// The version is suspended. Call again at `until` or later.
    Quarantined {
        /// The version, suspended.
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
    /// Sets how long [`destroy`](Self::destroy) keeps a version suspended before it destroys it. Default: 24 hours.
    ///
    /// It must be longer than anything lasts that may hold a ciphertext which is not in its row yet: the longest
    /// transaction, a message in an outbox or a queue, a retry, a stream that is still read. A length of zero is refused:
    /// see [`without_quarantine`](Self::without_quarantine).
    ///
    /// Where the key store has no registry of processes, it must be no shorter than any process serves a key: its `ttl`, and
    /// how long it lets keys serve beyond. [`destroy`](Self::destroy) refuses a shorter one, judged by the `Crypto` that this manager is
    /// of. A manager that was built alone knows no process's `ttl` and refuses none.
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

    /// Lets [`destroy`](Self::destroy) destroy a version without a quarantine. Processes, census and open transactions are
    /// asked all the same.
    ///
    /// Where the key store has no registry of processes, [`destroy`](Self::destroy) refuses this: without a quarantine nothing would
    /// wait until the processes have stopped encrypting under the version. Set a [`quarantine`](Self::quarantine), or give up the
    /// data with [`destroy_with_data`](Self::destroy_with_data).
    ///
    /// The reason is kept in the audit log after the words `without_quarantine:`. It has at most 1000 bytes, is never
    /// empty and never a secret.
    ///
    /// <div class="warning">
    ///
    /// A ciphertext that is not in its row yet, as in a process's memory or in an outbox, cannot be read again.
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

    /// Destroys a version that is not active and that no row uses, in steps: call it again until it says
    /// [`Destruction::Destroyed`].
    ///
    /// 1. It waits, for at most a minute, until every process has followed the version's last change, so that none encrypts
    ///    under it. It asks the [census](crate::CryptoBuilder::census) for rows. If there are none, the version is suspended and the
    ///    call returns [`Destruction::Quarantined`].
    /// 2. During the [quarantine](Self::quarantine) every read under the version fails with [`Error::Suspended`], is counted in
    ///    [`Stats::refused`](crate::Stats::refused) and traced. If one does, the version is still in use: resume it with [`set_state`](Self::set_state), and nothing is lost.
    /// 3. A call after that asks the processes again, waits for every transaction that was open at the suspension (it
    ///    returns [`Destruction::AwaitingTransactions`] while one is), and asks the census a second time. Only then is the version
    ///    destroyed: its wraps are deleted, and every process drops the key.
    ///
    /// All that is remembered is the version's state, so any process can make the next call. A version that was suspended
    /// or compromised before the first call goes on at step 3, and its quarantine began with its last change.
    ///
    /// Without a census no rows and no transactions are asked for. Where the key store has no registry of processes, the
    /// quarantine stands in for step 1: each process follows within its `ttl`.
    ///
    /// <div class="warning">
    ///
    /// What this version encrypted cannot be read again. A backup of the database, together with the permission to
    /// unwrap with its KEK, undoes it. The census knows the columns that it was told of and no others: ciphertexts in a
    /// process's memory, in an outbox, a queue, a file or another database are not counted. The quarantine is the time in which
    /// these must arrive in their rows, or be read and refused.
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
    /// As [`set_state`](Self::set_state); an active version is [`StoreError::IllegalTransition`]: rotate or suspend first.
    /// [`Error::StillInUse`] if the census found rows, and its own errors if it failed: nothing is destroyed then.
    /// [`Error::Config`] for a quarantine of no length, or a skipped one without a reason; and, where the key store has no
    /// registry of processes, for a skipped quarantine or one that is shorter than a process serves a key. Nothing is changed then.
    ///
    /// # Cancellation
    ///
    /// The version is then as it was, suspended or destroyed; the next call goes on from there.
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
        // A rewrap or a promotion since the suspension has moved `changed_at` on, which only makes this longer.
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
            // In this order: what a transaction wrote that has ended by now, the count sees.
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

    /// Destroys a version that is not active, and with it the data that it encrypted: at once, and no census is asked.
    ///
    /// The reason is kept in the audit log after the words `destroy_with_data:`. It has at most 1000 bytes, is never
    /// empty and never a secret.
    ///
    /// <div class="warning">
    ///
    /// What this version encrypted cannot be read again. A backup of the database, together with the permission to
    /// unwrap with its KEK, undoes it.
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
    /// As [`set_state`](Self::set_state); an active version is [`StoreError::IllegalTransition`]: rotate or suspend first.
    /// [`Error::Config`] without a reason.
    ///
    /// # Cancellation
    ///
    /// It is then either done or not.
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

    /// Waits for the processes. `Some` if not all have followed.
    async fn silent_processes(&self) -> Result<Option<ProcessReport>, Error> {
        match self.await_processes(PATIENCE).await {
            Ok(processes) => Ok(Some(processes).filter(|processes| !processes.is_complete())),
            Err(Error::Store(StoreError::Unsupported { .. })) => self.check_quarantine_alone().map(|()| None),
            Err(error) => Err(error),
        }
    }

    /// Checks that the quarantine can stand in for the wait for the processes.
    fn check_quarantine_alone(&self) -> Result<(), Error> {
        // A process of its own with this manager does not know the `ttl` of those that encrypt.
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

    /// Returns what the audit log is told, if the settings can be used.
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

    /// Puts the name of what is skipped before its reason, and the manager's own after it.
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

//! Scheduled rotation, outside the request path.

mod due;
mod lease;
mod rules;
mod task;

use std::collections::HashSet;
use std::sync::Weak;
use std::time::Duration;

pub use self::due::{DuePage, DueReport, DueVersion};
use self::lease::{Lease, Stop};
pub use self::rules::RotationPeriod;
use self::rules::Rules;
pub use self::task::MaintenanceTask;
use encx_core::context::EncryptionContext;
use encx_core::key::{DataKeyId, KeyState, KeyUsage, Scope};
use encx_core::store::{KeyQuery, KeyRecord, ProcessId, StoreError, Timestamp};

use super::{KeyManager, ProcessReport, is_overtaken, waiting};
use crate::cache::CacheHandle;
use crate::error::Error;

/// Rotates keys after a set period, without making requests wait.
///
/// A new version is first *published*: stored pre-active, so that every process that uses the context unwraps
/// it in the background. It is promoted when all processes have acknowledged it or the publish deadline has
/// passed. To rotate at once, such as after a leak, use [`KeyManager::rotate`]: it publishes and promotes in
/// one call, and the next request of every other process waits for the KMS.
///
/// Any number of processes may run this. One works at a time, under a lease in the key store that expires. If
/// that process dies, the others wait at most the lease's term, and the next one promotes the versions it had
/// published. With a key store without leases, processes work independently, and the key store lets one win
/// if several create the same version.
///
/// ```
/// use std::time::Duration;
///
/// use encx_testkit::{MemoryKeyStore, MemoryKms};
/// use encx::Crypto;
/// use encx::keys::Maintenance;
///
/// const DAY: Duration = Duration::from_secs(24 * 60 * 60);
///
/// # encx_testkit::block_on(async {
/// let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
/// let maintenance = Maintenance::new(crypto.key_manager())
///     .rotate_every_for("purpose", "payments", 30 * DAY)
///     .never_rotate_for("purpose", "archive");
///
/// // In a service. The task ends when the handle is dropped.
/// let task = maintenance.spawn()?;
/// # task.stop().await;
/// # Ok::<(), encx::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
#[must_use = "it does nothing until `run_once` or `spawn` is called"]
pub struct Maintenance {
    manager: KeyManager,
    holder: ProcessId,
    rules: Rules,
    usages: Vec<KeyUsage>,
    publish_deadline: Duration,
    lease_term: Duration,
    batch: u32,
    interval: Duration,
    /// The `Crypto` that must be alive, if this runs in the background.
    alive: Option<Weak<CacheHandle>>,
}

/// The result of a [`Maintenance`] run.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
#[must_use = "keys that could not be rotated stand here and nowhere else"]
pub struct MaintenanceReport {
    /// Versions created by this run.
    pub published: Vec<DataKeyId>,
    /// Versions promoted by this run. An earlier run may have published them.
    pub promoted: Vec<DataKeyId>,
    /// Keys that could not be rotated. The next run retries them.
    pub failed: Vec<FailedRotation>,
    /// Which processes had loaded the versions when they were promoted, in the last batch. `None` if nothing
    /// was published, or if the key store has no process registry.
    pub processes: Option<ProcessReport>,
    /// Whether another process holds the lease, or took it over during the run.
    pub held_elsewhere: bool,
    /// Why the run ended early, if it did. A later run promotes what it published.
    pub stopped: Option<Error>,
}

/// A key that could not be rotated.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FailedRotation {
    /// The due version, or the waiting version that does not open.
    pub id: DataKeyId,
    /// The reason.
    pub error: Error,
}

impl Maintenance {
    /// Prepares rotation of data keys, with the manager's KEK rule and reason.
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::Crypto;
    /// # use encx::keys::Maintenance;
    /// # encx_testkit::block_on(async {
    /// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
    /// let maintenance = Maintenance::new(crypto.key_manager().because("rotation policy"));
    /// # let _due = maintenance.due(0).await?;
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn new(manager: KeyManager) -> Self {
        let core = manager.core.as_ref();
        let state_ttl = core.map_or(Duration::from_secs(60), |core| core.cache().limits.state_ttl);
        Self {
            manager,
            holder: ProcessId::random(),
            rules: Rules::default(),
            usages: vec![KeyUsage::Data],
            publish_deadline: state_ttl.saturating_mul(2),
            lease_term: Duration::from_secs(60),
            batch: 500,
            interval: Duration::from_secs(60 * 60),
            alive: None,
        }
    }

    /// Sets how long a version encrypts. Default: 90 days.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use encx::keys::Maintenance;
    /// # fn example(maintenance: Maintenance) -> Maintenance {
    /// const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    ///
    /// maintenance.rotate_every(365 * DAY)
    /// # }
    /// ```
    pub fn rotate_every(mut self, period: Duration) -> Self {
        self.rules.default = RotationPeriod::Every(period);
        self
    }

    /// Sets how long a version encrypts in contexts with this pair. The first matching pair counts.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use encx::keys::Maintenance;
    /// # fn example(maintenance: Maintenance) -> Maintenance {
    /// const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    ///
    /// maintenance.rotate_every_for("purpose", "payments", 30 * DAY)
    /// # }
    /// ```
    pub fn rotate_every_for(
        mut self,
        key: impl Into<String>,
        value: impl Into<String>,
        period: Duration,
    ) -> Self {
        let rule = (key.into(), value.into(), RotationPeriod::Every(period));
        self.rules.by_pair.push(rule);
        self
    }

    /// Excludes contexts with this pair.
    ///
    /// ```
    /// # use encx::keys::Maintenance;
    /// # fn example(maintenance: Maintenance) -> Maintenance {
    /// maintenance.never_rotate_for("purpose", "archive")
    /// # }
    /// ```
    pub fn never_rotate_for(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let rule = (key.into(), value.into(), RotationPeriod::Never);
        self.rules.by_pair.push(rule);
        self
    }

    /// Decides by a closure of context and usage, before all other rules. They decide where it returns
    /// `None`.
    ///
    /// `shortest` is the shortest period the closure returns: younger versions are not read.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use encx::keys::RotationPeriod;
    /// # use encx::keys::Maintenance;
    /// # fn example(maintenance: Maintenance) -> Maintenance {
    /// const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    ///
    /// maintenance.rotate_by(30 * DAY, |context, _usage| match context.get("tenantId") {
    ///     Some("acme") => Some(RotationPeriod::Every(30 * DAY)),
    ///     _ => None,
    /// })
    /// # }
    /// ```
    pub fn rotate_by(
        mut self,
        shortest: Duration,
        rule: impl Fn(&EncryptionContext, KeyUsage) -> Option<RotationPeriod> + Send + Sync + 'static,
    ) -> Self {
        self.rules.set_closure(shortest, rule);
        self
    }

    /// Also rotates keys of another usage. Default: data only.
    ///
    /// Searches still find terms made under older versions. A password needs the pepper it was hashed with
    /// until its user logs in.
    ///
    /// <div class="warning">
    ///
    /// A UNIQUE blind index column holds each value once per version: right after a rotation the same value
    /// can be stored again. A version that you prepared is promoted when the active one is due, even if your
    /// second column is not filled. Rotate index keys of UNIQUE columns by hand, as
    /// [`Crypto::blind_index_under`](crate::Crypto::blind_index_under) describes.
    ///
    /// </div>
    ///
    /// ```
    /// # use encx::keys::KeyUsage;
    /// # use encx::keys::Maintenance;
    /// # fn example(maintenance: Maintenance) -> Maintenance {
    /// maintenance.also_rotate(KeyUsage::Stream)
    /// # }
    /// ```
    pub fn also_rotate(mut self, usage: KeyUsage) -> Self {
        if !self.usages.contains(&usage) {
            self.usages.push(usage);
        }
        self
    }

    /// Sets how long a published version waits for processes to load it before it is promoted anyway.
    ///
    /// Default: twice the `state_ttl` of the manager's `Crypto`, or two minutes without one.
    ///
    /// A version that already waits, left by a dead process or by [`KeyManager::prepare`], is promoted
    /// instead of a new one, and not before the active one is due.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use encx::keys::Maintenance;
    /// # fn example(maintenance: Maintenance) -> Maintenance {
    /// maintenance.publish_deadline(Duration::from_secs(5 * 60))
    /// # }
    /// ```
    pub fn publish_deadline(mut self, deadline: Duration) -> Self {
        self.publish_deadline = deadline;
        self
    }

    /// Sets how long a process that dies delays the others. Default: 60 seconds.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use encx::keys::Maintenance;
    /// # fn example(maintenance: Maintenance) -> Maintenance {
    /// maintenance.lease_term(Duration::from_secs(30))
    /// # }
    /// ```
    pub fn lease_term(mut self, term: Duration) -> Self {
        self.lease_term = term;
        self
    }

    /// Sets how many versions are published before waiting for the processes, 1 to 1000. Default: 500.
    ///
    /// ```
    /// # use encx::keys::Maintenance;
    /// # fn example(maintenance: Maintenance) -> Maintenance {
    /// maintenance.batch(100)
    /// # }
    /// ```
    pub fn batch(mut self, versions: u32) -> Self {
        self.batch = versions.clamp(1, 1000);
        self
    }

    /// Sets how often [`spawn`](Self::spawn) runs. Default: every hour.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use encx::keys::Maintenance;
    /// # fn example(maintenance: Maintenance) -> Maintenance {
    /// maintenance.interval(Duration::from_secs(10 * 60))
    /// # }
    /// ```
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Rotates the keys that are due, such as from cron. Waits until processes have loaded the published
    /// versions.
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::Crypto;
    /// # use encx::keys::Maintenance;
    /// # encx_testkit::block_on(async {
    /// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
    /// let report = Maintenance::new(crypto.key_manager()).run_once().await?;
    /// println!("{} keys rotated", report.promoted.len());
    /// for failed in &report.failed {
    ///     println!("{}: {}", failed.id, failed.error);
    /// }
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a zero period, term or interval; key store errors if the run could not start.
    /// All other errors are in the report.
    ///
    /// # Cancellation
    ///
    /// Published versions wait for a later run. Other processes can start one when the lease expires.
    pub async fn run_once(&self) -> Result<MaintenanceReport, Error> {
        self.check()?;
        let mut report = MaintenanceReport::default();
        let lease = match self.manager.store.leases() {
            Some(leases) => {
                let clock = &*self.manager.clock;
                match Lease::take(leases, clock, self.holder, self.lease_term).await? {
                    Some(lease) => Some(lease),
                    None => {
                        report.held_elsewhere = true;
                        return Ok(report);
                    }
                }
            }
            None => None,
        };
        let now = match &lease {
            Some(lease) => lease.since,
            None => self.manager.time_of_store().await?,
        };
        let mut run = Run {
            of: self,
            lease: lease.as_ref(),
            now,
            seen: HashSet::new(),
            published: Vec::new(),
            report: &mut report,
        };
        match run.rotate().await {
            Ok(()) => {}
            Err(Stop::LeaseLost) => report.held_elsewhere = true,
            Err(Stop::Failed(error)) => report.stopped = Some(error),
        }
        if let Some(lease) = lease {
            lease.release().await;
        }
        Ok(report)
    }

    fn check(&self) -> Result<(), Error> {
        if self.lease_term.is_zero()
            || self.interval.is_zero()
            || self.rules.shortest() == Some(Duration::ZERO)
        {
            let what = "periods, the lease's term and the interval must be longer than nothing".to_owned();
            return Err(Error::Config { what });
        }
        Ok(())
    }
}

/// One run.
struct Run<'a> {
    of: &'a Maintenance,
    lease: Option<&'a Lease<'a>>,
    /// Start time, by the key store's clock.
    now: Timestamp,
    /// Scopes already handled.
    seen: HashSet<Scope>,
    /// Versions to promote.
    published: Vec<Published>,
    report: &'a mut MaintenanceReport,
}

struct Published {
    id: DataKeyId,
    context: EncryptionContext,
    usage: KeyUsage,
}

impl Run<'_> {
    async fn rotate(&mut self) -> Result<(), Stop> {
        let Some(shortest) = self.of.rules.shortest() else {
            return Ok(());
        };
        for usage in &self.of.usages {
            // Waiting versions are found through the active one. Without an active version, they are not
            // promoted.
            let due = KeyQuery::new(self.of.batch)
                .usage(*usage)
                .state(KeyState::Active)
                .activated_before(self.now.minus(shortest));
            self.walk(due).await?;
        }
        self.promote_all().await
    }

    async fn walk(&mut self, all: KeyQuery) -> Result<(), Stop> {
        let mut query = all.clone();
        loop {
            let page = self.of.manager.store.page(&query).await.map_err(failed)?;
            for record in &page.records {
                match self.publish(record).await {
                    Ok(()) => {}
                    Err(Stop::Failed(error)) if !ends_the_run(&error) => {
                        let id = record.id;
                        self.report.failed.push(FailedRotation { id, error });
                    }
                    stop => return stop,
                }
                if self.published.len() >= usize::try_from(self.of.batch).unwrap_or(usize::MAX) {
                    self.promote_all().await?;
                }
            }
            match page.next {
                Some(next) => query = all.clone().after(next),
                None => return Ok(()),
            }
        }
    }

    /// Publishes the next version of a due key, or takes over the waiting one.
    async fn publish(&mut self, record: &KeyRecord) -> Result<(), Stop> {
        let Some(due) = self.of.if_due(record, self.now).map_err(Stop::Failed)? else {
            return Ok(());
        };
        let (context, usage) = (due.context, due.usage);
        if self.seen.contains(&record.scope) {
            return Ok(());
        }
        let manager = self.of.manager.clone().for_usage(usage);
        let versions = manager.load(&context).await.map_err(failed)?;
        // Without an active version an operator has stopped encryption. Do not restart it.
        let is_still_so = versions
            .iter()
            .any(|version| version.id == record.id && version.state == KeyState::Active);
        if !is_still_so {
            return Ok(());
        }
        let waiting = waiting(&versions);
        self.seen.insert(record.scope);
        self.keep_lease().await?;
        if let Some(waiting) = waiting {
            match manager.keks.unwrap(waiting, &context, usage).await {
                Ok(_) => {
                    let id = waiting.id;
                    self.published.push(Published { id, context, usage });
                    return Ok(());
                }
                Err(error) if error.is_retryable() => return Err(Stop::Failed(error)),
                // Promoting it would stop all encryption. A new version replaces it.
                Err(error) => self.report.failed.push(FailedRotation {
                    id: waiting.id,
                    error,
                }),
            }
        }
        match manager.publish_next(&context, &versions).await {
            Ok(made) => {
                self.report.published.push(made.id);
                self.published.push(Published {
                    id: made.id,
                    context,
                    usage,
                });
                Ok(())
            }
            // Another process was faster and also promotes it.
            Err(Error::Store(error)) if error.is_lost_race() => Ok(()),
            Err(error) => Err(Stop::Failed(error)),
        }
    }

    /// Waits for the processes, then promotes the published versions.
    async fn promote_all(&mut self) -> Result<(), Stop> {
        if self.published.is_empty() {
            return Ok(());
        }
        self.await_processes().await?;
        for published in std::mem::take(&mut self.published) {
            self.keep_lease().await?;
            match self.promote(&published).await {
                Ok(Some(id)) => self.report.promoted.push(id),
                Ok(None) => {}
                Err(error) if ends_the_run(&error) => return Err(Stop::Failed(error)),
                Err(error) => {
                    let id = published.id;
                    self.report.failed.push(FailedRotation { id, error });
                }
            }
        }
        Ok(())
    }

    /// Promotes one version; `None` if it is no longer needed.
    async fn promote(&self, published: &Published) -> Result<Option<DataKeyId>, Error> {
        let manager = self.of.manager.clone().for_usage(published.usage);
        let versions = manager.load(&published.context).await?;
        let waiting = waiting(&versions).filter(|waiting| waiting.id == published.id);
        let is_encrypting = versions.iter().any(|version| version.state == KeyState::Active);
        let Some(waiting) = waiting.filter(|_| is_encrypting) else {
            return Ok(None);
        };
        let promoted = manager.apply(waiting, KeyState::Active).await;
        match manager.seen(&published.context, promoted).await {
            Ok(promoted) => Ok(Some(promoted.id)),
            Err(Error::Store(error)) if error.is_lost_race() || is_overtaken(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn await_processes(&mut self) -> Result<(), Stop> {
        let deadline = self.of.publish_deadline;
        let manager = &self.of.manager;
        if manager.store.processes().is_none() {
            // Without a registry, the other processes see the versions within this time.
            self.while_alive(manager.clock.sleep(deadline)).await?;
            return Ok(());
        }
        let processes = self
            .while_alive(manager.await_processes(deadline))
            .await?
            .map_err(Stop::Failed)?;
        for silent in &processes.silent {
            tracing::info!(
                target: "encx::maintenance", process = %silent.process.name,
                "promoting versions that this process may not have loaded yet"
            );
        }
        self.report.processes = Some(processes);
        Ok(())
    }

    /// Awaits a future while keeping the lease, if any.
    async fn while_alive<T>(&self, what: impl Future<Output = T>) -> Result<T, Stop> {
        let done = match self.lease {
            None => what.await,
            Some(lease) => tokio::select! {
                done = what => done,
                stop = self.keep_lease_forever(lease) => return Err(stop),
            },
        };
        self.check_alive()?;
        Ok(done)
    }

    /// Checks that this process may still write.
    async fn keep_lease(&self) -> Result<(), Stop> {
        self.check_alive()?;
        match self.lease {
            Some(lease) => lease.keep().await,
            None => Ok(()),
        }
    }

    async fn keep_lease_forever(&self, lease: &Lease<'_>) -> Stop {
        loop {
            self.of.manager.clock.sleep(lease.pause()).await;
            if let Err(stop) = self.check_alive() {
                return stop;
            }
            if let Err(stop) = lease.keep().await {
                return stop;
            }
        }
    }

    fn check_alive(&self) -> Result<(), Stop> {
        let is_gone = |cache: &Weak<CacheHandle>| cache.upgrade().is_none_or(|cache| cache.is_closed());
        match self.of.alive.as_ref().is_some_and(is_gone) {
            true => Err(Stop::Failed(Error::ShutDown)),
            false => Ok(()),
        }
    }
}

fn failed(error: impl Into<Error>) -> Stop {
    Stop::Failed(error.into())
}

/// Tells whether an error concerns more than one key.
fn ends_the_run(error: &Error) -> bool {
    match error {
        Error::NoRuntime | Error::ShutDown => true,
        Error::Store(error) => error.is_retryable() || matches!(error, StoreError::NotMigrated { .. }),
        _ => false,
    }
}

//! State of a rotation of everything in the key store, so that a killed run can continue.

use std::time::Duration;

use anyhow::Result;
use encx::keys::KeyManager;
use encx::record::EncryptedColumn;
use encx::store::{JobStatus, JobStore, KeyStore, Leases, ProcessId, StoreError, Timestamp};

use crate::columns::rotation_job_name;
use crate::exit::Refused;

/// A job without a walk: its plan says which keys are old.
const NAME: &str = "encx/rotate-everything";

/// A job without a walk: its plan is that of the last completed rotation.
const DONE: &str = "encx/rotate-everything/done";

/// The job that rotates.
pub(super) const ROTATE: &str = "encx/rotate-everything/rotate";

const PLAN: &str = "before ";

/// How long one process holds the lease to write this state.
const TERM: Duration = Duration::from_secs(10);

/// A rotation of everything.
pub(super) struct Campaign {
    /// Versions activated before this time are old.
    pub(super) before: Timestamp,
    /// Whether an earlier run or another process began it.
    pub(super) goes_on: bool,
}

impl Campaign {
    /// Finds the unfinished rotation, or begins one.
    pub(super) async fn open(store: &dyn KeyStore, manager: &KeyManager, restart: bool) -> Result<Self> {
        let turn = Turn::take(store).await?;
        let campaign = Self::look(store, manager, restart).await;
        let campaign = match campaign {
            Ok(campaign) => jobs(store)?
                .open_job(NAME, &campaign.plan())
                .await
                .map(|_| campaign)
                .map_err(Into::into),
            Err(error) => Err(error),
        };
        turn.give_back().await;
        campaign
    }

    /// Like `open`, but writes nothing.
    pub(super) async fn look(store: &dyn KeyStore, manager: &KeyManager, restart: bool) -> Result<Self> {
        let jobs = jobs(store)?;
        let (begun, done) = (jobs.job(NAME).await?, jobs.job(DONE).await?);
        let done = done.map(|done| done.plan);
        let unfinished = begun.filter(|begun| Some(&begun.plan) != done.as_ref());
        if let Some(before) = unfinished.filter(|_| !restart).as_ref().and_then(before) {
            let goes_on = true;
            return Ok(Self { before, goes_on });
        }
        Ok(Self {
            before: manager.time_of_store().await?,
            goes_on: false,
        })
    }

    /// Records that the rotation is done, so the next run begins another.
    pub(super) async fn finish(&self, store: &dyn KeyStore) -> Result<()> {
        jobs(store)?.open_job(DONE, &self.plan()).await?;
        Ok(())
    }

    /// Names this rotation's job on a column. Resets the job if its progress is from an earlier rotation.
    pub(super) async fn job_of(
        &self,
        store: &dyn KeyStore,
        what: &str,
        column: &EncryptedColumn,
    ) -> Result<String> {
        let of = [&column.sql_table, &column.sql_column];
        let name = rotation_job_name(what, column);
        let marker = JobStatus::name_for(&format!("{NAME}/{what} of"), of);
        let turn = Turn::take(store).await?;
        let reset = self.reset(jobs(store)?, &name, &marker).await;
        turn.give_back().await;
        reset?;
        Ok(name)
    }

    async fn reset(&self, jobs: &dyn JobStore, name: &str, marker: &str) -> Result<()> {
        let plan = self.plan();
        if jobs.job(marker).await?.is_none_or(|marker| marker.plan != plan) {
            // No walk has this plan, so the next walk starts from the beginning.
            jobs.open_job(name, &plan).await?;
            jobs.open_job(marker, &plan).await?;
        }
        Ok(())
    }

    fn plan(&self) -> String {
        format!("{PLAN}{}", self.before.as_micros())
    }
}

fn before(job: &JobStatus) -> Option<Timestamp> {
    let micros = job.plan.strip_prefix(PLAN)?.parse().ok()?;
    Some(Timestamp::from_micros(micros))
}

fn jobs(store: &dyn KeyStore) -> Result<&dyn JobStore> {
    let what = "jobs that go on after a crash";
    Ok(store.jobs().ok_or(StoreError::Unsupported { what })?)
}

/// The lease to write this state, which one process holds at a time.
struct Turn<'s>(Option<(&'s dyn Leases, ProcessId)>);

impl<'s> Turn<'s> {
    async fn take(store: &'s dyn KeyStore) -> Result<Self> {
        let Some(leases) = store.leases() else {
            return Ok(Self(None));
        };
        let holder = ProcessId::random();
        // If the holder dies, the lease expires after `TERM`.
        for _ in 0..100 {
            if leases.acquire_lease(NAME, holder, TERM).await?.is_some() {
                return Ok(Self(Some((leases, holder))));
            }
            tokio::time::sleep(TERM / 50).await;
        }
        let what = "other processes begin a rotation of everything all the time: run this again";
        Err(Refused(what.to_owned()).into())
    }

    async fn give_back(self) {
        if let Some((leases, holder)) = self.0 {
            // If this fails, the lease expires by itself.
            let _ = leases.release_lease(NAME, holder).await;
        }
    }
}

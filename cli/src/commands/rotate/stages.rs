//! The stages of a rotation of everything.

use std::time::Duration;

use anyhow::Result;
use encx::jobs::{Job, JobEnd, JobReport, Walk};
use encx::keys::{KeyManager, ProcessReport};
use encx::store::{KeyStore, StoreError};
use encx::{Clock, Crypto, Error, SystemClock};
use encx_config::DeclaredColumn;
use encx_tables::{Rows, RowsError};

use crate::columns::{name_of, why_not_walked};
use crate::exit::Exit;
use crate::output::tell;
use crate::progress::{Work, follow_work};
use crate::record::moment;
use crate::session::Session;

use super::campaign::{Campaign, ROTATE};
use super::report::Told;

/// What the stages share.
pub(super) struct Stages<'a> {
    pub(super) session: &'a Session,
    pub(super) store: &'a dyn KeyStore,
    pub(super) campaign: &'a Campaign,
    pub(super) throttle: Option<u32>,
    pub(super) dry_run: bool,
}

/// How the stages ended.
pub(super) enum Ended {
    AtTheEnd,
    /// Another run has to continue.
    Early(Exit),
}

impl Stages<'_> {
    /// Compares the declared columns with the database. Returns those that can be walked.
    pub(super) async fn columns<'d>(
        &self,
        told: &mut Told,
        rows: Option<&Rows>,
        columns: &'d [DeclaredColumn],
    ) -> Result<Vec<&'d DeclaredColumn>> {
        told.stage(1, "columns", "comparing the declared columns with the database")?;
        let Some(rows) = rows else {
            told.not_done(
                "no column is declared, so no row was re-encrypted: declare each as [[column]] in encx.toml"
                    .to_owned(),
            );
            return Ok(Vec::new());
        };
        for found in rows.sealed_columns(self.store).await? {
            if !columns.iter().any(|declared| found.is(&declared.column)) {
                told.not_done(format!(
                    "{}.{} has ciphertexts and is not declared: declare it as [[column]] in encx.toml",
                    found.table, found.column
                ));
            }
        }
        let mut walked = Vec::with_capacity(columns.len());
        for declared in columns {
            let name = name_of(declared);
            match rows.check_column(&declared.column).await {
                Ok(()) => match why_not_walked(declared) {
                    None => walked.push(declared),
                    Some(why) => told.not_done(format!(
                        "{name} was not walked, because {why}: have the service decrypt and encrypt its rows"
                    )),
                },
                Err(error) if error.is_retryable() => return Err(error.into()),
                Err(error @ RowsError::Database { .. }) => return Err(error.into()),
                Err(error) => told.not_done(format!("{name} was not walked: {error}")),
            }
        }
        Ok(walked)
    }

    pub(super) async fn rotate(&self, told: &mut Told, manager: &KeyManager) -> Result<Option<Ended>> {
        told.stage(2, "rotate", "rotating the keys of all contexts")?;
        let job = manager.rotate_all(self.campaign.before).job_name(ROTATE);
        let report = self.follow(&work("rotating keys", None, None), job).await?;
        if let Some(exit) = ended_early(&report) {
            return Ok(Some(Ended::Early(exit)));
        }
        if !report.is_complete() && !self.dry_run {
            // Rows of a context that was not rotated would have to be walked again.
            told.not_done(format!(
                "{} keys were not rotated; no row was re-encrypted",
                report.run.failed
            ));
            return Ok(Some(Ended::Early(told.result()?)));
        }
        Ok(None)
    }

    /// Waits until every process encrypts under the new versions.
    pub(super) async fn processes(
        &self,
        told: &mut Told,
        manager: &KeyManager,
        patience: Duration,
    ) -> Result<Option<Ended>> {
        told.stage(
            3,
            "processes",
            "waiting until every process has followed the rotation",
        )?;
        let waited = tokio::select! {
            waited = until_all_have_followed(manager, patience) => waited,
            _ = tokio::signal::ctrl_c() => return Ok(Some(Ended::Early(Exit::Interrupted))),
        };
        let processes = match waited {
            Err(Error::Store(StoreError::Unsupported { .. })) => {
                tell("the key store does not know its processes: each follows within its state_ttl");
                return Ok(None);
            }
            waited => waited?,
        };
        if processes.is_complete() {
            return Ok(None);
        }
        for silent in &processes.silent {
            told.not_done(format!(
                "process {} has not followed the rotation, last heard of {}, and may write under old versions until {}; no row \
                 was re-encrypted",
                silent.process.name,
                moment(silent.seen_at),
                moment(silent.serves_until)
            ));
        }
        Ok(Some(Ended::Early(told.result()?)))
    }

    /// Re-encrypts the rows of all columns, then verifies them.
    pub(super) async fn rows(
        &self,
        told: &mut Told,
        rows: &Rows,
        columns: &[&DeclaredColumn],
    ) -> Result<Option<Ended>> {
        // Opened after the rotation, so it has cached no older version.
        let crypto = self.session.crypto().await?;
        let ended = self.rows_by(told, rows, columns, &crypto).await;
        crypto.shutdown().await;
        ended
    }

    async fn rows_by(
        &self,
        told: &mut Told,
        rows: &Rows,
        columns: &[&DeclaredColumn],
        crypto: &Crypto,
    ) -> Result<Option<Ended>> {
        told.stage(4, "reencrypt", "re-encrypting the rows of the declared columns")?;
        for declared in columns {
            let column = declared.column.clone();
            let name = self.campaign.job_of(self.store, "reencrypt", &column).await?;
            let total = Some(rows.estimated_rows(&column).await?);
            let job = rows.reencrypt(crypto, [column])?.job_name(name);
            let name = name_of(declared);
            let work = work("re-encrypting rows", Some(&name), total);
            let report = self.follow(&work, job).await?;
            if let Some(exit) = ended_early(&report) {
                return Ok(Some(Ended::Early(exit)));
            }
            if !report.is_complete() {
                told.not_done(format!(
                    "{} rows of {name} could not be re-encrypted",
                    report.run.failed
                ));
            }
        }
        told.stage(5, "verify", "opening every row of the declared columns")?;
        for declared in columns {
            let column = declared.column.clone();
            let name = self.campaign.job_of(self.store, "verify", &column).await?;
            let total = Some(rows.estimated_rows(&column).await?);
            let job = rows.verify(crypto, [column])?.job_name(name);
            let name = name_of(declared);
            let report = self
                .follow(&work("opening rows", Some(&name), total), job)
                .await?;
            if let Some(exit) = ended_early(&report) {
                return Ok(Some(Ended::Early(exit)));
            }
            if !report.is_complete() {
                told.not_done(format!("{} rows of {name} do not open", report.run.failed));
            }
        }
        Ok(None)
    }

    async fn follow<W: Walk>(&self, work: &Work, mut job: Job<W>) -> Result<JobReport> {
        if let Some(throttle) = self.throttle {
            job = job.throttle(throttle);
        }
        if self.dry_run {
            job = job.dry_run();
        }
        follow_work(self.session.output, work, job.start()).await
    }
}

/// Waits at most `patience`, also for processes without a recent heartbeat: a killed process serves no key once its
/// time is over.
async fn until_all_have_followed(manager: &KeyManager, patience: Duration) -> Result<ProcessReport, Error> {
    let clock = SystemClock::new();
    let began = clock.elapsed();
    loop {
        let left = patience.saturating_sub(clock.elapsed().saturating_sub(began));
        let processes = manager.await_processes(left).await?;
        if processes.is_complete() || left.is_zero() {
            return Ok(processes);
        }
        clock.sleep(left.min(Duration::from_secs(1))).await;
    }
}

fn work(what: &str, column: Option<&str>, total: Option<u64>) -> Work {
    Work {
        what: what.to_owned(),
        column: column.map(str::to_owned),
        total,
        tells: true,
    }
}

/// Returns the program's exit code if a job did not finish.
fn ended_early(report: &JobReport) -> Option<Exit> {
    match &report.ended_by {
        JobEnd::Finished => None,
        JobEnd::Stopped => Some(Exit::Interrupted),
        JobEnd::GaveUp(error) => Some(Exit::of_job(error).unwrap_or(Exit::Unreachable)),
        // Another process began the job again and reports its result.
        _ => Some(Exit::Finding),
    }
}

//! What a job reports while it runs, and at its end.

use std::fmt;
use std::sync::Arc;

use encx_core::causes::debug_as_text;
use encx_core::store::{JobFaults, JobTally};

use crate::error::Error;

/// The maximum number of failures in a report.
const MAX_FAILURES: usize = 100;

/// An event of a job.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum JobEvent {
    /// The run is over; its report is ready.
    Finished {
        /// Why.
        ended_by: JobEnd,
    },
    /// An item could not be changed.
    ItemFailed(JobFailure),
    /// A range is done.
    RangeDone {
        /// The counts of the range.
        range: JobTally,
        /// The counts of this worker so far.
        worker: JobTally,
    },
    /// This worker's claim on a range expired before the range was done, as after a long pause. Another worker
    /// continues with it.
    RangeLost,
    /// Something failed, and is retried.
    Retrying {
        /// Why.
        error: JobError,
    },
    /// The job began, or this worker joined it.
    Started {
        /// The counts of other workers so far, and of this process earlier.
        run: JobTally,
    },
    /// All remaining ranges are claimed by other workers. This worker waits in case one of them dies.
    Waiting,
}

/// Why something in a job failed.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// A key, a KMS or the key store failed.
    #[error(transparent)]
    Encx(#[from] Error),
    /// The source of the items failed, such as a database table.
    #[error("{source}")]
    Walk {
        /// The underlying error.
        source: Arc<dyn std::error::Error + Send + Sync>,
        /// Whether the same may succeed later.
        retryable: bool,
        /// The kind of failure: see [`JobError::kind`].
        kind: &'static str,
    },
}

debug_as_text!(JobError);

impl JobError {
    /// Makes an error of the source of the items. For walks.
    pub fn walk(source: impl std::error::Error + Send + Sync + 'static, retryable: bool) -> Self {
        Self::Walk {
            source: Arc::new(source),
            retryable,
            kind: "other",
        }
    }

    /// Names the kind of a walk's failure, in 1 to 40 lower-case letters, digits and hyphens.
    #[must_use]
    pub fn of_kind(mut self, name: &'static str) -> Self {
        if let Self::Walk { kind, .. } = &mut self {
            *kind = name;
        }
        self
    }

    /// Returns the kind of failure, by which the job's [faults](encx_core::store::JobStatus::faults) are counted.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Walk { kind, .. } => kind,
            Self::Encx(error) => match error {
                Error::Ciphertext(_) => "no-ciphertext",
                Error::Codec(_) | Error::NotUtf8 => "mistyped",
                Error::Compromised { .. } => "compromised",
                Error::Decrypt { .. } => "damaged",
                Error::Destroyed { .. } | Error::Shredded => "destroyed",
                Error::KekNotAllowed { .. } => "kek-not-allowed",
                Error::KeyMismatch { .. } | Error::RolledBack { .. } => "key-mismatch",
                Error::Kms(_) | Error::KmsCircuitOpen { .. } | Error::UnknownKms { .. } => "kms",
                Error::NoKeys | Error::UnknownKey { .. } => "missing-key",
                Error::Store(_) => "store",
                Error::SuiteNotAccepted { .. } => "suite-not-accepted",
                Error::Suspended { .. } => "suspended",
                _ => "other",
            },
        }
    }

    /// Tells whether the same may succeed later without a change.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Encx(error) => error.is_retryable(),
            Self::Walk { retryable, .. } => *retryable,
        }
    }
}

/// An item that could not be changed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JobFailure {
    /// The item: a key's id, or a table, a column and a row's id.
    pub what: String,
    /// Why.
    pub error: JobError,
}

impl JobFailure {
    pub(super) fn new(what: String, error: JobError) -> Self {
        Self { what, error }
    }
}

impl fmt::Display for JobFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.error)
    }
}

/// Why a run of a job is over.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum JobEnd {
    /// The run that this worker joined was over, and other workers started the same job again before this worker could
    /// read its counts.
    ///
    /// Nothing is lost: completed work is kept, and the new run goes over all items again. Whether anything failed in
    /// other workers' ranges is no longer known here, so the report is not [complete](JobReport::is_complete). Their
    /// reports tell, or another run.
    BegunAgain,
    /// The job is complete, by this worker or by others.
    Finished,
    /// A failure that concerns all items lasted longer than this worker retries. Run the job again when the cause is
    /// fixed: it resumes from here.
    GaveUp(JobError),
    /// A different job of the same name was started.
    Replaced,
    /// It was stopped. It resumes from here when it is run again.
    Stopped,
}

/// The result of a job.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use = "failures are only reported here"]
pub struct JobReport {
    /// The counts of this worker.
    pub worker: JobTally,
    /// The counts of all workers since the job began. Those of this worker only, if the others are no longer known
    /// ([`JobEnd::BegunAgain`], [`JobEnd::Replaced`]). If other workers completed the same job once more before this
    /// worker asked, these are the counts of that run. If a worker died after a change and before recording it, the
    /// worker that took over counted the item as unchanged.
    pub run: JobTally,
    /// How many items this worker found changed by another writer at the same moment. They count as unchanged.
    pub overtaken: u64,
    /// The failures in this worker's ranges: the first 100.
    pub failures: Vec<JobFailure>,
    /// The failures in all workers' ranges, by kind; those of this worker only, if [`run`](Self::run) is.
    pub faults: JobFaults,
    /// Why the run is over.
    pub ended_by: JobEnd,
}

impl JobReport {
    pub(super) fn new() -> Self {
        Self {
            worker: JobTally::default(),
            run: JobTally::default(),
            overtaken: 0,
            failures: Vec::new(),
            faults: JobFaults::default(),
            ended_by: JobEnd::Stopped,
        }
    }

    /// Tells whether the job is finished and no item failed, by any worker.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.ended_by, JobEnd::Finished) && self.run.failed == 0
    }

    pub(super) fn add_failures(&mut self, failures: Vec<JobFailure>) {
        let room = MAX_FAILURES.saturating_sub(self.failures.len());
        self.failures.extend(failures.into_iter().take(room));
    }
}

/// Summarises the result and the failures in a few lines.
impl fmt::Display for JobReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.ended_by {
            JobEnd::BegunAgain => {
                f.write_str(
                    "finished, and begun again by other workers, which report the rest; by this worker",
                )?;
            }
            JobEnd::Finished => f.write_str("finished")?,
            JobEnd::GaveUp(error) => write!(f, "gave up: {error}")?,
            JobEnd::Replaced => f.write_str("replaced by another job of the same name")?,
            JobEnd::Stopped => f.write_str("stopped")?,
        }
        let JobTally {
            changed,
            unchanged,
            failed,
            ..
        } = self.run;
        write!(f, "; {changed} changed, {unchanged} unchanged, {failed} failed")?;
        self.failures
            .iter()
            .try_for_each(|failure| write!(f, "\n{failure}"))
    }
}

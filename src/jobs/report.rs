//! What a job says while it runs, and at its end.

use std::fmt;
use std::sync::Arc;

use encx_core::causes::debug_as_text;
use encx_core::store::{JobFaults, JobTally};

use crate::error::Error;

/// How many failures a report keeps.
const MAX_FAILURES: usize = 100;

/// What happened in a job.
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
        /// What was done in it.
        range: JobTally,
        /// What this worker did so far.
        worker: JobTally,
    },
    /// This worker's claim on a range ended before it was done, as after a long pause: somebody else goes on with it.
    RangeLost,
    /// Something could not be done now, and is tried again.
    Retrying {
        /// Why.
        error: JobError,
    },
    /// The job began, or this worker joined it.
    Started {
        /// What others did so far, and this process earlier.
        run: JobTally,
    },
    /// All that is left is claimed by others; this worker waits in case one of them dies.
    Waiting,
}

/// Why something in a job could not be done.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// A key, a KMS or the key store failed.
    #[error(transparent)]
    Encx(#[from] Error),
    /// What is walked over failed, such as the table of the rows.
    #[error("{source}")]
    Walk {
        /// Its own error.
        source: Arc<dyn std::error::Error + Send + Sync>,
        /// Whether the same may succeed later.
        retryable: bool,
        /// What kind of failure it is: see [`JobError::kind`].
        kind: &'static str,
    },
}

debug_as_text!(JobError);

impl JobError {
    /// Describes a failure of what is walked over. For walks.
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

    /// Returns the kind of failure, as the job's [faults](encx_core::store::JobStatus::faults) count it.
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
    /// Which: a key's id, or a table, a column and a row's id.
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
    /// The run that this worker took part in was over, and others have begun the same job again, before this worker
    /// could ask for its counts.
    ///
    /// Nothing is lost: what was done stays, and the others' run goes over everything again. Whether anything failed in other
    /// workers' ranges is no longer known here, so the report is not [complete](JobReport::is_complete): their reports
    /// say it, or another run.
    BegunAgain,
    /// All of the job is done, by this worker or by others.
    Finished,
    /// Something went wrong that concerns all items, and went on for longer than this worker tries. Run it again when that
    /// is put right: it goes on from here.
    GaveUp(JobError),
    /// A job of the same name was begun that does something else.
    Replaced,
    /// It was stopped; it goes on from here when it is run again.
    Stopped,
}

/// What a job did.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use = "what could not be done stands here and nowhere else"]
pub struct JobReport {
    /// What this worker did.
    pub worker: JobTally,
    /// What all workers did, since the job began; what this worker did, if that is no longer known
    /// ([`JobEnd::BegunAgain`], [`JobEnd::Replaced`]). If others went through the same job once more before this worker
    /// asked, these are the counts of that run. What a worker had changed that died before it could say so was seen as
    /// unchanged by the one that took over.
    pub run: JobTally,
    /// How many items this worker found changed by somebody else at the same moment; they count as unchanged.
    pub overtaken: u64,
    /// What failed in this worker's ranges: the first 100.
    pub failures: Vec<JobFailure>,
    /// What failed in all workers' ranges, by kind; in this worker's, where [`run`](Self::run) is.
    pub faults: JobFaults,
    /// Why it is over.
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

    /// Tells whether the job came to its end and nothing failed, whoever did it.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.ended_by, JobEnd::Finished) && self.run.failed == 0
    }

    pub(super) fn add_failures(&mut self, failures: Vec<JobFailure>) {
        let room = MAX_FAILURES.saturating_sub(self.failures.len());
        self.failures.extend(failures.into_iter().take(room));
    }
}

/// Says in a few lines what was done, and what failed.
impl fmt::Display for JobReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.ended_by {
            JobEnd::BegunAgain => {
                f.write_str("over, and begun again by other workers, who report the rest; by this worker")?;
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

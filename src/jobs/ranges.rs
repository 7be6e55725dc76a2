//! The source of a worker's ranges: the key store, which shares them among workers, or a frontier of its own.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use encx_core::store::{
    JobFaults, JobRange, JobStatus, JobStore, JobTally, ProcessId, RangeClaim, StoreError,
};

use super::{JobError, WalkPage};

/// How long a claim lasts. A living worker renews it; after a worker's death others take over once it expires.
pub(super) const CLAIM: Duration = Duration::from_secs(30);

/// How soon a worker that waits for others looks again.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The source of ranges.
pub(super) enum Ranges<'a> {
    Alone {
        /// The position of the walk; `None` once it has reached the end.
        frontier: Mutex<Option<Option<Vec<u8>>>>,
    },
    Shared {
        with: &'a dyn JobStore,
        run: JobStatus,
        holder: ProcessId,
    },
}

/// A range to work on.
pub(super) struct Range<T> {
    pub(super) after: Option<Vec<u8>>,
    pub(super) upto: Option<Vec<u8>>,
    /// Its claim in the key store, if it is shared.
    pub(super) claim: Option<JobRange>,
    /// The page of it that was already read.
    pub(super) first: Option<WalkPage<T>>,
}

/// The next thing to do.
pub(super) enum Claimed<T> {
    Finished,
    /// Read after this position, and [`extend`](Ranges::extend).
    Frontier(Option<Vec<u8>>),
    Range(Range<T>),
    Wait,
}

/// The outcome of a run.
pub(super) enum Outcome {
    /// It was not shared.
    Alone,
    /// It was over, and other workers have started the same job again.
    BegunAgain,
    /// It is in the key store, with the counts of all its workers.
    Counted(JobStatus),
    /// A different job of the same name took its place.
    Replaced,
}

impl<'a> Ranges<'a> {
    pub(super) fn alone() -> Self {
        Self::Alone {
            frontier: Mutex::new(Some(None)),
        }
    }

    pub(super) fn shared(with: &'a dyn JobStore, run: JobStatus) -> Self {
        let holder = ProcessId::random();
        Self::Shared { with, run, holder }
    }

    pub(super) async fn claim<T>(&self) -> Result<Claimed<T>, JobError> {
        let (with, run, holder) = match self {
            Self::Alone { frontier } => {
                let frontier = frontier.lock().unwrap_or_else(PoisonError::into_inner).clone();
                return Ok(frontier.map_or(Claimed::Finished, Claimed::Frontier));
            }
            Self::Shared { with, run, holder } => (with, run, *holder),
        };
        Ok(match with.claim_range(run, holder, CLAIM).await? {
            RangeClaim::Finished => Claimed::Finished,
            RangeClaim::Frontier(after) => Claimed::Frontier(after),
            RangeClaim::Range(range) => Claimed::Range(Range {
                after: range.after.clone(),
                upto: range.upto.clone(),
                claim: Some(range),
                first: None,
            }),
            // `Wait`, or a variant that this version does not know: ask again later.
            _ => Claimed::Wait,
        })
    }

    /// Takes the page that was read after the frontier. `None` if another worker was faster; the page is then
    /// discarded.
    pub(super) async fn extend<T>(
        &self,
        after: Option<Vec<u8>>,
        page: &mut Option<WalkPage<T>>,
    ) -> Result<Option<Range<T>>, JobError> {
        let upto = page.as_ref().and_then(|page| page.upto.clone());
        let claim = match self {
            Self::Alone { frontier } => {
                *frontier.lock().unwrap_or_else(PoisonError::into_inner) = upto.clone().map(Some);
                None
            }
            Self::Shared { with, run, holder } => {
                let claim = with
                    .extend_job(run, after.as_deref(), upto.as_deref(), *holder, CLAIM)
                    .await?;
                match claim {
                    None => return Ok(None),
                    claim => claim,
                }
            }
        };
        let first = page.take();
        Ok(Some(Range {
            after,
            upto,
            claim,
            first,
        }))
    }

    /// Renews a claim. `false` if it was lost.
    pub(super) async fn keep(&self, claim: &JobRange, term: Duration) -> Result<bool, StoreError> {
        match self {
            Self::Alone { .. } => Ok(true),
            Self::Shared { with, .. } => with.keep_range(claim, term).await,
        }
    }

    /// Records that a range is done. `false` if its claim was lost.
    pub(super) async fn complete(
        &self,
        claim: Option<&JobRange>,
        tally: JobTally,
        faults: &JobFaults,
    ) -> Result<bool, JobError> {
        match (self, claim) {
            (Self::Shared { with, .. }, Some(claim)) => Ok(with.complete_range(claim, tally, faults).await?),
            _ => Ok(true),
        }
    }

    /// Returns the outcome of the run that this worker joined.
    pub(super) async fn outcome(&self) -> Result<Outcome, JobError> {
        let Self::Shared { with, run, .. } = self else {
            return Ok(Outcome::Alone);
        };
        Ok(match with.job(&run.name).await? {
            Some(now) if now.run == run.run => Outcome::Counted(now),
            // The same walk was completed after this one began, so its counts cover both.
            Some(now) if now.plan == run.plan && now.finished => Outcome::Counted(now),
            Some(now) if now.plan == run.plan => Outcome::BegunAgain,
            _ => Outcome::Replaced,
        })
    }
}

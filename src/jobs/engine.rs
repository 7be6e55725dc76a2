//! The engine: claims ranges one after another, processes a few of them at once, and reports events.

use std::pin::Pin;

use encx_core::store::{JobFaults, JobTally};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::budget::{IN_HAND, Memory};
use super::counted;
use super::pace::{MAX_TRIES, Pace, pause_after};
use super::ranges::{CLAIM, Claimed, LOOK_AGAIN, Outcome, Range, Ranges};
use super::run::{Events, JobRun};
use super::{
    Job, JobEnd, JobError, JobEvent, JobFailure, JobReport, JobStopper, Walk, WalkOutcome, WalkPage,
};

pub(super) struct Engine<W> {
    job: Job<W>,
    pace: Pace,
    memory: Memory,
    events: Events,
    stopper: JobStopper,
}

impl<W: Walk> Job<W> {
    /// Runs the job to its end, without events.
    ///
    /// # Cancellation
    ///
    /// As for [`JobRun`]: completed work is kept.
    pub async fn run(self) -> JobReport {
        self.start().report().await
    }

    /// Starts the job. Nothing happens until the run is polled.
    pub fn start(self) -> JobRun {
        JobRun::new(|events, stopper| Engine::new(self, events, stopper).drive())
    }
}

/// A concurrent part of the work.
type Step<'a, T> = Pin<Box<dyn Future<Output = Ended<T>> + Send + 'a>>;

/// How a step ended.
enum Ended<T> {
    /// Looking for the next range.
    Claimed(Result<Next<T>, JobError>),
    /// Waiting before the next look.
    Waited,
    /// Working on a range.
    Worked(Worked),
}

enum Next<T> {
    Finished,
    Range(Range<T>),
    Stopped,
    Wait,
}

/// The outcome of a range.
enum Worked {
    Done(Counts),
    GaveUp(JobError),
    Lost,
}

#[derive(Default)]
struct Counts {
    tally: JobTally,
    overtaken: u64,
    failures: Vec<JobFailure>,
    faults: JobFaults,
}

impl Counts {
    fn fail(&mut self, events: &Events, what: String, error: JobError) {
        let failure = JobFailure::new(what, error);
        self.tally.failed += 1;
        self.faults.add(failure.error.kind(), &failure.what);
        events.tell(JobEvent::ItemFailed(failure.clone()));
        self.failures.push(failure);
    }

    /// Tells whether any item succeeded: then the failure does not concern all items.
    fn any(&self) -> bool {
        self.tally != JobTally::default()
    }
}

impl<W: Walk> Engine<W> {
    pub(super) fn new(job: Job<W>, events: Events, stopper: JobStopper) -> Self {
        let pace = Pace::new(job.clock.clone(), job.throttle);
        let memory = Memory::new(job.max_memory);
        Self {
            job,
            pace,
            memory,
            events,
            stopper,
        }
    }

    pub(super) async fn drive(self) -> JobReport {
        let mut report = JobReport::new();
        let mut shared = None;
        report.ended_by = match self.open().await {
            Ok(ranges) => {
                let end = self.walk(&ranges, &mut report).await;
                shared = Some(ranges);
                end
            }
            Err(error) => JobEnd::GaveUp(error),
        };
        report.run = report.worker;
        if let Some(ranges) = shared {
            match self.outcome(&ranges).await {
                Ok(Outcome::Alone) => {}
                Ok(Outcome::Counted(status)) => (report.run, report.faults) = (status.tally, status.faults),
                Ok(Outcome::BegunAgain) => {
                    // Keep the reason why this worker stopped or gave up, even if other workers continued.
                    if matches!(report.ended_by, JobEnd::Finished) {
                        report.ended_by = JobEnd::BegunAgain;
                    }
                }
                Ok(Outcome::Replaced) => report.ended_by = JobEnd::Replaced,
                // This worker's counts are known; the job's are not.
                Err(error) => report.ended_by = JobEnd::GaveUp(error),
            }
        }
        let ended_by = report.ended_by.clone();
        self.events.tell(JobEvent::Finished { ended_by });
        report
    }

    /// Joins the shared job, or runs alone.
    async fn open(&self) -> Result<Ranges<'_>, JobError> {
        let shared = self.job.store.jobs().filter(|_| !self.job.dry_run);
        let mut ranges = Ranges::alone();
        let mut run = JobTally::default();
        if let Some(with) = shared {
            let (plan, mut tries) = (self.job.walk.plan(), 0);
            let status = loop {
                match with.open_job(&self.job.name, &plan).await {
                    Ok(status) => break status,
                    Err(error) => self.again(&mut tries, error.into()).await?,
                }
            };
            run = status.tally;
            ranges = Ranges::shared(with, status);
        }
        self.events.tell(JobEvent::Started { run });
        Ok(ranges)
    }

    /// Works until nothing is left to do.
    async fn walk(&self, ranges: &Ranges<'_>, report: &mut JobReport) -> JobEnd {
        let mut steps: FuturesUnordered<Step<'_, W::Item>> = FuturesUnordered::new();
        let (mut looking, mut in_hand, mut blocked, mut waiting) = (false, 0, false, false);
        let mut end = None;
        loop {
            if end.is_none() && !looking && !blocked && in_hand < IN_HAND {
                steps.push(Box::pin(async { Ended::Claimed(self.next(ranges).await) }));
                looking = true;
            }
            match steps.next().await {
                None => return end.unwrap_or(JobEnd::Finished),
                Some(Ended::Claimed(claimed)) => {
                    looking = false;
                    match claimed {
                        Ok(Next::Finished) => end = end.or(Some(JobEnd::Finished)),
                        Ok(Next::Range(range)) => {
                            waiting = false;
                            in_hand += 1;
                            steps.push(Box::pin(async {
                                Ended::Worked(self.work_on(ranges, range).await)
                            }));
                        }
                        Ok(Next::Stopped) => end = end.or(Some(JobEnd::Stopped)),
                        // The remaining ranges may be this worker's own.
                        Ok(Next::Wait) if in_hand > 0 => blocked = true,
                        Ok(Next::Wait) => {
                            if !waiting {
                                self.events.tell(JobEvent::Waiting);
                            }
                            (looking, waiting) = (true, true);
                            steps.push(Box::pin(async {
                                self.sleep(LOOK_AGAIN).await;
                                Ended::Waited
                            }));
                        }
                        Err(error) => end = Some(self.gave_up(error)),
                    }
                }
                Some(Ended::Waited) => looking = false,
                Some(Ended::Worked(worked)) => {
                    in_hand -= 1;
                    blocked = false;
                    match worked {
                        Worked::Done(counts) => self.count(counts, report),
                        Worked::Lost => self.events.tell(JobEvent::RangeLost),
                        Worked::GaveUp(error) => end = Some(self.gave_up(error)),
                    }
                }
            }
        }
    }

    fn count(&self, counts: Counts, report: &mut JobReport) {
        if !self.job.dry_run {
            counted::count(counts.tally);
        }
        report.worker += counts.tally;
        report.overtaken += counts.overtaken;
        report.add_failures(counts.failures);
        report.faults.merge(counts.faults);
        self.events.tell(JobEvent::RangeDone {
            range: counts.tally,
            worker: report.worker,
        });
    }

    /// Returns why the run is over. After a stop, an error is not a reason to give up.
    fn gave_up(&self, error: JobError) -> JobEnd {
        if self.stopper.is_stopped() && error.is_retryable() {
            JobEnd::Stopped
        } else {
            JobEnd::GaveUp(error)
        }
    }

    /// Finds a range to work on.
    async fn next(&self, ranges: &Ranges<'_>) -> Result<Next<W::Item>, JobError> {
        let mut tries = 0;
        loop {
            if self.stopper.is_stopped() {
                return Ok(Next::Stopped);
            }
            let claimed = match ranges.claim().await {
                Ok(claimed) => claimed,
                Err(error) => {
                    self.again(&mut tries, error).await?;
                    continue;
                }
            };
            let after = match claimed {
                Claimed::Finished => return Ok(Next::Finished),
                Claimed::Frontier(after) => after,
                Claimed::Range(range) => return Ok(Next::Range(range)),
                Claimed::Wait => return Ok(Next::Wait),
            };
            let limit = self.pace.range(self.job.range_size);
            let read = match self.job.walk.read(after.as_deref(), None, limit).await {
                Ok(page) => ranges.extend(after, &mut Some(page)).await,
                Err(error) => Err(error),
            };
            match read {
                Ok(Some(range)) => return Ok(Next::Range(range)),
                // Another worker was faster. Its claim changes what is left, so look again.
                Ok(None) => {}
                // If the range was claimed nevertheless, that claim expires.
                Err(error) => self.again(&mut tries, error).await?,
            }
        }
    }

    /// Works on a range while renewing its claim, and completes it.
    async fn work_on(&self, ranges: &Ranges<'_>, mut range: Range<W::Item>) -> Worked {
        let claim = range.claim.take();
        let keep = async {
            let Some(claim) = &claim else {
                return std::future::pending().await;
            };
            loop {
                self.job.clock.sleep(CLAIM / 3).await;
                // An error says nothing about the claim. If errors persist, the claim expires and completing fails.
                if let Ok(false) = ranges.keep(claim, CLAIM).await {
                    return;
                }
            }
        };
        let done = tokio::select! {
            done = self.through(range) => done,
            () = keep => return Worked::Lost,
        };
        let counts = match done {
            Ok(counts) => counts,
            Err(error) => {
                if let Some(claim) = &claim {
                    // Release the claim, so that other workers need not wait for it to expire.
                    let _ = ranges.keep(claim, std::time::Duration::ZERO).await;
                }
                return Worked::GaveUp(error);
            }
        };
        let mut tries = 0;
        loop {
            match ranges
                .complete(claim.as_ref(), counts.tally, &counts.faults)
                .await
            {
                Ok(true) => return Worked::Done(counts),
                // Perhaps an earlier try succeeded and its answer was lost; that looks the same.
                Ok(false) => return Worked::Lost,
                Err(error) => {
                    if let Err(error) = self.again(&mut tries, error).await {
                        return Worked::GaveUp(error);
                    }
                }
            }
        }
    }

    /// Works on all items of a range.
    async fn through(&self, range: Range<W::Item>) -> Result<Counts, JobError> {
        let (mut counts, mut tries) = (Counts::default(), 0);
        let (mut at, mut page) = (range.after, range.first);
        loop {
            let WalkPage { items, upto } = match page.take() {
                Some(page) => page,
                None => {
                    let limit = self.pace.range(self.job.range_size);
                    let read = self.job.walk.read(at.as_deref(), range.upto.as_deref(), limit);
                    match read.await {
                        Ok(page) => page,
                        Err(error) => {
                            self.again(&mut tries, error).await?;
                            continue;
                        }
                    }
                }
            };
            tries = 0;
            self.work(items, &mut counts).await?;
            if upto.is_none() || upto == range.upto {
                return Ok(counts);
            }
            at = upto;
        }
    }

    /// Works on items, and retries those that may succeed later.
    async fn work(&self, items: Vec<W::Item>, counts: &mut Counts) -> Result<(), JobError> {
        let mut items = items.into_iter().peekable();
        loop {
            let weigh = |item: &W::Item| self.job.walk.weight(item);
            let (mut burst, weight) = self.memory.batch(&mut items, self.pace.burst(), weigh);
            if burst.is_empty() {
                return Ok(());
            }
            self.pace.admit(burst.len()).await;
            let mut tries = 0;
            while !burst.is_empty() {
                let room = self.memory.room(weight).await;
                let outcomes = if self.job.dry_run {
                    self.job.walk.inspect(burst).await
                } else {
                    self.job.walk.work(burst).await
                };
                drop(room);
                let (again, why) = self.sort(outcomes, counts);
                burst = Vec::new();
                let Some(why) = why else { break };
                match self.again(&mut tries, why).await {
                    Ok(()) => burst = again.into_iter().map(|(item, ..)| item).collect(),
                    // Other items succeeded, so the cause concerns these items only.
                    Err(_) if counts.any() && !self.stopper.is_stopped() => {
                        for (_, what, error) in again {
                            counts.fail(&self.events, what, error);
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Counts outcomes, and returns the items to retry with a reason.
    #[allow(clippy::type_complexity, reason = "named once, here")]
    fn sort(
        &self,
        outcomes: Vec<WalkOutcome<W::Item>>,
        counts: &mut Counts,
    ) -> (Vec<(W::Item, String, JobError)>, Option<JobError>) {
        let (mut again, mut why) = (Vec::new(), None);
        for outcome in outcomes {
            match outcome {
                WalkOutcome::Changed => counts.tally.changed += 1,
                WalkOutcome::Failed { what, error } => counts.fail(&self.events, what, error),
                WalkOutcome::Overtaken => {
                    counts.tally.unchanged += 1;
                    counts.overtaken += 1;
                }
                WalkOutcome::Retry { item, what, error } => {
                    why.get_or_insert_with(|| error.clone());
                    again.push((item, what, error));
                }
                WalkOutcome::Unchanged => counts.tally.unchanged += 1,
            }
        }
        (again, why)
    }

    async fn outcome(&self, ranges: &Ranges<'_>) -> Result<Outcome, JobError> {
        let mut tries = 0;
        loop {
            match ranges.outcome().await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => self.again(&mut tries, error).await?,
            }
        }
    }

    /// Waits before the next try. Returns the error if it is permanent, was met too often, or the job was stopped.
    async fn again(&self, tries: &mut u32, error: JobError) -> Result<(), JobError> {
        *tries += 1;
        if !error.is_retryable() || *tries >= MAX_TRIES || self.stopper.is_stopped() {
            return Err(error);
        }
        self.events.tell(JobEvent::Retrying { error: error.clone() });
        self.sleep(pause_after(*tries)).await;
        if self.stopper.is_stopped() {
            return Err(error);
        }
        Ok(())
    }

    /// Sleeps until the time has passed or the job is stopped.
    async fn sleep(&self, time: std::time::Duration) {
        tokio::select! {
            () = self.job.clock.sleep(time) => {}
            () = self.stopper.stopped() => {}
        }
    }
}

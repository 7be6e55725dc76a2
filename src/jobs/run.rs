//! A run of a job: a stream of events, driven by polling.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::watch;

use super::{JobEvent, JobReport};

/// A running job: a stream of its events, and then its report.
///
/// Polling drives it, in the caller's task. So a consumer that is slow to take events slows the job.
///
/// ```
/// # use encx_testkit::{MemoryKeyStore, MemoryKms};
/// # use encx::Crypto;
/// # use encx::jobs::JobEvent;
/// # encx_testkit::block_on(async {
/// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
/// let mut run = crypto.key_manager().rewrap_all().start();
/// while let Some(event) = run.next_event().await {
///     match event {
///         JobEvent::RangeDone { worker, .. } => println!("{} moved", worker.changed),
///         JobEvent::ItemFailed(failure) => println!("{failure}"),
///         _ => {}
///     }
/// }
/// let report = run.report().await;
/// # assert!(report.is_complete());
/// # Ok::<(), encx::Error>(())
/// # }).unwrap();
/// ```
///
/// # Cancellation
///
/// May be dropped at any time. Completed work is kept, every item is either changed or not, and another run of the same
/// name resumes from there; ranges in progress are taken over once their claims expire, after half a minute.
/// [`JobStopper::stop`] instead finishes them.
#[must_use = "a job does nothing until its run is polled"]
pub struct JobRun {
    driver: Option<Pin<Box<dyn Future<Output = JobReport> + Send>>>,
    events: Events,
    stopper: JobStopper,
    report: Option<JobReport>,
}

impl JobRun {
    pub(super) fn new<F>(begin: impl FnOnce(Events, JobStopper) -> F) -> Self
    where
        F: Future<Output = JobReport> + Send + 'static,
    {
        let (events, stopper) = (Events::default(), JobStopper::new());
        Self {
            driver: Some(Box::pin(begin(events.clone(), stopper.clone()))),
            events,
            stopper,
            report: None,
        }
    }

    /// Returns a handle with which another task can stop the job.
    #[must_use]
    pub fn stopper(&self) -> JobStopper {
        self.stopper.clone()
    }

    /// Waits for the next event; `None` once the job is over.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time: no event is lost. The job pauses until it is polled again.
    pub async fn next_event(&mut self) -> Option<JobEvent> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// Runs the job to its end, and returns its report.
    ///
    /// # Cancellation
    ///
    /// As for the run itself.
    pub async fn report(mut self) -> JobReport {
        while self.next_event().await.is_some() {}
        self.report.unwrap_or_else(JobReport::new)
    }
}

impl Stream for JobRun {
    type Item = JobEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<JobEvent>> {
        loop {
            if let Some(event) = self.events.pop() {
                return Poll::Ready(Some(event));
            }
            let Some(driver) = &mut self.driver else {
                return Poll::Ready(None);
            };
            match driver.as_mut().poll(context) {
                Poll::Ready(report) => {
                    self.driver = None;
                    self.report = Some(report);
                }
                Poll::Pending => {
                    return self
                        .events
                        .pop()
                        .map_or(Poll::Pending, |event| Poll::Ready(Some(event)));
                }
            }
        }
    }
}

impl fmt::Debug for JobRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobRun")
            .field("is_over", &self.driver.is_none())
            .finish_non_exhaustive()
    }
}

/// Stops a running job.
#[derive(Clone, Debug)]
pub struct JobStopper(Arc<watch::Sender<bool>>);

impl JobStopper {
    fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Lets the job finish its ranges in progress, within seconds, and start no others.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    pub(super) fn is_stopped(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the job is stopped.
    pub(super) async fn stopped(&self) {
        let mut receiver = self.0.subscribe();
        // `self` holds the sender, so waiting cannot fail.
        let _ = receiver.wait_for(|stopped| *stopped).await;
    }
}

/// Events that have not been taken yet.
#[derive(Clone, Default)]
pub(super) struct Events(Arc<Mutex<VecDeque<JobEvent>>>);

impl Events {
    pub(super) fn tell(&self, event: JobEvent) {
        self.queue(|queue| queue.push_back(event));
    }

    fn pop(&self) -> Option<JobEvent> {
        self.queue(VecDeque::pop_front)
    }

    fn queue<T>(&self, change: impl FnOnce(&mut VecDeque<JobEvent>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

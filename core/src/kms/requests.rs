//! Reports of the requests that a provider sends for one call: how many, and the server's time.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::timestamp::Timestamp;

thread_local! {
    /// The counters of the calls being polled on this thread, innermost last.
    static COUNTING: RefCell<Vec<RequestCounter>> = const { RefCell::new(Vec::new()) };
}

/// Counts the requests that a provider reports during a call.
///
/// ```
/// use encx_core::kms::{RequestCounter, report_requests};
///
/// # struct Now;
/// # impl std::task::Wake for Now { fn wake(self: std::sync::Arc<Self>) {} }
/// let counter = RequestCounter::new();
/// let call = counter.during(async {
///     // A provider reports each request that it sends.
///     report_requests(1);
///     report_requests(1);
/// });
/// # let waker = std::sync::Arc::new(Now).into();
/// # assert!(std::pin::pin!(call).poll(&mut std::task::Context::from_waker(&waker)).is_ready());
/// assert_eq!(counter.reported(), Some(2));
/// ```
#[derive(Clone, Debug, Default)]
pub struct RequestCounter(Arc<Reported>);

#[derive(Debug)]
struct Reported {
    /// One more than the reported number; 0 if nothing was reported.
    count: AtomicU64,
    /// In microseconds; `i64::MIN` if nothing was reported.
    server_time: AtomicI64,
}

impl Default for Reported {
    fn default() -> Self {
        Self {
            count: AtomicU64::new(0),
            server_time: AtomicI64::new(i64::MIN),
        }
    }
}

impl RequestCounter {
    /// Creates a counter without a report.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a call, and counts the reports of the task that polls it. Enclosing counters count them too.
    ///
    /// # Cancellation
    ///
    /// As that of the call. Earlier reports stay counted.
    pub async fn during<F: Future>(&self, call: F) -> F::Output {
        let mut call = pin!(call);
        poll_fn(|context| {
            let _entered = Entered::new(self.clone());
            call.as_mut().poll(context)
        })
        .await
    }

    /// Returns the number of reported requests; `None` if the provider reports nothing.
    #[must_use]
    pub fn reported(&self) -> Option<u64> {
        self.0.count.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Returns the time that the server's last answer named; `None` of a provider that reports none, or without an answer.
    #[must_use]
    pub fn server_time(&self) -> Option<Timestamp> {
        let micros = self.0.server_time.load(Ordering::Relaxed);
        (micros != i64::MIN).then(|| Timestamp::from_micros(micros))
    }

    fn add(&self, requests: u64) {
        let add = |count: u64| Some(count.max(1).saturating_add(requests));
        // The closure always returns `Some`, so this cannot fail.
        let _ = self
            .0
            .count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

/// Reports requests that a provider sends for the call being polled; 0 for a call that needs none.
///
/// A provider that reports nothing is counted as one request for each call. Outside a counted call this does nothing.
pub fn report_requests(requests: u64) {
    COUNTING.with_borrow(|counting| counting.iter().for_each(|counter| counter.add(requests)));
}

/// Reports what time it is by the clock of the server that answered the call that is being polled, such as the header `Date`
/// of its answer.
///
/// Where no call is being counted this does nothing.
pub fn report_server_time(at: Timestamp) {
    let store = |counter: &RequestCounter| counter.0.server_time.store(at.as_micros(), Ordering::Relaxed);
    COUNTING.with_borrow(|counting| counting.iter().for_each(store));
}

/// Registers a counter on this thread until it is dropped, even by a panic.
struct Entered;

impl Entered {
    fn new(counter: RequestCounter) -> Self {
        COUNTING.with_borrow_mut(|counting| counting.push(counter));
        Self
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        COUNTING.with_borrow_mut(|counting| drop(counting.pop()));
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<F: Future>(call: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        call.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn only_what_is_reported_while_the_call_is_polled_counts() {
        let (outer, inner, other) = (
            RequestCounter::new(),
            RequestCounter::new(),
            RequestCounter::new(),
        );
        report_requests(1);
        let mut waited = false;
        let call = inner.during(poll_fn(|_| {
            report_requests(1);
            if std::mem::replace(&mut waited, true) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }));
        let mut call = pin!(outer.during(call));
        assert!(poll(call.as_mut()).is_pending());
        report_requests(10);
        assert!(poll(pin!(other.during(async { report_requests(0) }))).is_ready());
        assert!(poll(call.as_mut()).is_ready());
        assert_eq!(
            [&outer, &inner, &other, &RequestCounter::new()].map(RequestCounter::reported),
            [Some(2), Some(2), Some(0), None]
        );
    }

    #[test]
    fn the_last_time_that_a_server_told_is_kept() {
        let counter = RequestCounter::new();
        report_server_time(Timestamp::from_micros(1));
        assert_eq!(counter.server_time(), None);
        let call = counter.during(async {
            report_server_time(Timestamp::from_micros(-7));
            report_server_time(Timestamp::from_micros(5_000_000));
        });
        assert!(poll(pin!(call)).is_ready());
        assert_eq!(counter.server_time(), Some(Timestamp::from_micros(5_000_000)));
        assert_eq!(counter.reported(), None, "no request was counted");
    }

    #[test]
    fn a_call_that_panics_leaves_no_counter_behind() {
        let counter = RequestCounter::new();
        let call = counter.during(async {
            report_requests(1);
            std::panic::panic_any("stop");
        });
        let call = std::panic::AssertUnwindSafe(call);
        let ended = std::panic::catch_unwind(|| {
            let call = call;
            poll(pin!(call.0)).is_ready()
        });
        assert!(ended.is_err());
        report_requests(1);
        assert_eq!(counter.reported(), Some(1));
    }
}

//! The injected faults of an in-memory KMS.

use std::collections::VecDeque;
use std::time::Duration;

use encx_core::kms::KmsErrorKind;

#[derive(Default)]
pub(super) struct Faults {
    /// The faults of the next calls, in this order.
    pub(super) next: VecDeque<KmsErrorKind>,
    /// The fault of every call.
    pub(super) lasting: Option<KmsErrorKind>,
    pub(super) throttle: Option<Throttle>,
}

impl Faults {
    /// Decides the fault of a call that is answered at `now`, if any.
    pub(super) fn take(&mut self, now: Duration) -> Option<KmsErrorKind> {
        let ordered = self.lasting.or_else(|| self.next.pop_front());
        ordered.or_else(|| {
            let throttle = self.throttle.as_mut()?;
            (!throttle.lets_through(now)).then_some(KmsErrorKind::Throttled)
        })
    }
}

/// Lets a number of calls through in any period of a length.
pub(super) struct Throttle {
    calls: usize,
    period: Duration,
    let_through: VecDeque<Duration>,
}

impl Throttle {
    pub(super) fn new(calls: usize, period: Duration) -> Self {
        Self {
            calls,
            period,
            let_through: VecDeque::new(),
        }
    }

    fn lets_through(&mut self, now: Duration) -> bool {
        let is_over = |at: &Duration| now.saturating_sub(*at) >= self.period;
        while self.let_through.front().is_some_and(is_over) {
            self.let_through.pop_front();
        }
        let free = self.let_through.len() < self.calls;
        if free {
            self.let_through.push_back(now);
        }
        free
    }
}

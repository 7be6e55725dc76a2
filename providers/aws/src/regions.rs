//! The order in which the regions of a multi-region key are called: first the one that answered last, until a nearer
//! one answers again.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use encx_core::kms::{KmsError, KmsErrorKind};
use tokio::time::Instant;

/// Which region is called first, and when nearer ones are tried again.
#[derive(Debug)]
pub(crate) struct Regions {
    /// How long to wait for one region before also calling the next.
    patience: Duration,
    /// How often nearer regions are tried while a farther one is first.
    every: Duration,
    /// The index, with the nearest region at 0, of the one that answered last.
    first: AtomicUsize,
    tried: Mutex<Option<Instant>>,
}

impl Regions {
    pub(crate) fn new(patience: Duration, every: Duration) -> Self {
        Self {
            patience,
            every,
            first: AtomicUsize::new(0),
            tried: Mutex::default(),
        }
    }

    /// Calls one place after another until one answers; a refusal is an answer.
    ///
    /// The next place is called when one is unavailable, and concurrently when one has been silent for `patience`. If a
    /// key is not found in a region that is called before a nearer one, that is not yet an answer: the key may have no
    /// replica there.
    ///
    /// # Cancellation
    ///
    /// As each call. When one answers, the pending calls are dropped.
    pub(crate) async fn ask<'a, P, T, F>(
        &self,
        places: &'a [P],
        call: impl Fn(&'a P) -> F,
    ) -> Option<Result<T, KmsError>>
    where
        F: Future<Output = Result<T, KmsError>>,
    {
        if let [place] = places {
            return Some(call(place).await);
        }
        let (began_with, mut waiting) = self.order(places.len());
        let (mut running, mut failed) = (Vec::new(), None);
        let start = |running: &mut Vec<(usize, Pin<Box<F>>)>, waiting: &mut VecDeque<usize>| {
            let next = waiting.pop_front().and_then(|at| Some((at, places.get(at)?)));
            running.extend(next.map(|(at, place)| (at, Box::pin(call(place)))));
        };
        start(&mut running, &mut waiting);
        while !running.is_empty() {
            let ended = tokio::select! {
                biased;
                ended = first_of(&mut running) => Some(ended),
                () = tokio::time::sleep(self.patience), if !waiting.is_empty() => None,
            };
            match ended {
                None => start(&mut running, &mut waiting),
                Some((at, Err(error))) if is_no_answer(&error, at, &waiting) => {
                    // A key that is not found says more than a region that is down.
                    let is_more = |kept: &KmsError| kept.kind() == KmsErrorKind::Unavailable;
                    if failed.as_ref().is_none_or(is_more) {
                        failed = Some(error);
                    }
                    start(&mut running, &mut waiting);
                }
                Some((at, outcome)) => {
                    self.answered(began_with, at);
                    return Some(outcome);
                }
            }
        }
        failed.map(Err)
    }

    /// Notes that the region at an index answered a call, with any answer.
    ///
    /// A nearer region that answered a trial since the call began stays first.
    fn answered(&self, began_with: usize, at: usize) {
        let order = Ordering::Relaxed;
        let is_new = self.first.compare_exchange(began_with, at, order, order).is_ok();
        if is_new && began_with == 0 && at > 0 {
            *self.tried.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }

    /// Notes that a nearer region answered a trial call.
    pub(crate) fn nearer_answered(&self, at: usize) {
        self.first.fetch_min(at, Ordering::Relaxed);
    }

    /// Lists the nearer regions to try during a call: none, unless a farther one is first and the last trial was long
    /// enough ago.
    pub(crate) fn to_try(&self) -> std::ops::Range<usize> {
        let first = self.first.load(Ordering::Relaxed);
        if first == 0 {
            return 0..0;
        }
        let (now, mut tried) = (
            Instant::now(),
            self.tried.lock().unwrap_or_else(PoisonError::into_inner),
        );
        if tried.is_some_and(|tried| now.saturating_duration_since(tried) < self.every) {
            return 0..0;
        }
        *tried = Some(now);
        0..first
    }

    /// Returns which region is first, and all of them in the order of their calls.
    fn order(&self, count: usize) -> (usize, VecDeque<usize>) {
        let began_with = self.first.load(Ordering::Relaxed);
        let first = began_with.min(count.saturating_sub(1));
        let others = (0..count).filter(|at| *at != first);
        let order = std::iter::once(first).chain(others).filter(|at| *at < count);
        (began_with, order.collect())
    }
}

/// Tells whether another region must be called after this result of the one at an index.
fn is_no_answer(error: &KmsError, at: usize, waiting: &VecDeque<usize>) -> bool {
    match error.kind() {
        KmsErrorKind::Unavailable => true,
        KmsErrorKind::NotFound => waiting.iter().any(|nearer| *nearer < at),
        _ => false,
    }
}

/// Waits for the first of several calls to complete, and removes it.
async fn first_of<F: Future>(running: &mut Vec<(usize, Pin<Box<F>>)>) -> (usize, F::Output) {
    std::future::poll_fn(|context| {
        for index in 0..running.len() {
            let Some((at, call)) = running.get_mut(index) else {
                break;
            };
            if let Poll::Ready(outcome) = call.as_mut().poll(context) {
                let at = *at;
                drop(running.swap_remove(index));
                return Poll::Ready((at, outcome));
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

    use std::sync::Mutex;

    use encx_core::key::KekId;
    use encx_core::kms::KmsOperation;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(3);
    const EVERY: Duration = Duration::from_secs(8);

    fn failed(kind: KmsErrorKind) -> KmsError {
        let kek = KekId::new("alias/a").unwrap();
        KmsError::new(kind, "test", KmsOperation::UnwrapKey, &kek)
    }

    /// Calls regions with these answers (`None` is silence), and returns the calls made and the result.
    async fn ask(
        regions: &Regions,
        answers: &[Option<Result<(), KmsErrorKind>>],
    ) -> (Vec<usize>, Result<(), KmsErrorKind>) {
        let asked = Mutex::new(Vec::new());
        let places: Vec<_> = answers.iter().enumerate().collect();
        let outcome = regions.ask(&places, |(at, answer)| {
            asked.lock().unwrap().push(*at);
            async move {
                match answer {
                    Some(answer) => answer.map_err(failed),
                    None => {
                        tokio::time::sleep(EVERY).await;
                        Err(failed(KmsErrorKind::Unavailable))
                    }
                }
            }
        });
        let outcome = outcome.await.unwrap().map_err(|error| error.kind());
        (asked.into_inner().unwrap(), outcome)
    }

    #[tokio::test(start_paused = true)]
    async fn silence_costs_its_patience_once_and_a_nearer_one_that_answers_is_first_again() {
        let regions = Regions::new(PATIENCE, EVERY);
        let began = Instant::now();
        for _ in 0..100 {
            let (_, outcome) = ask(&regions, &[None, Some(Ok(())), Some(Ok(()))]).await;
            assert_eq!(outcome, Ok(()));
        }
        assert_eq!(began.elapsed(), PATIENCE, "only the first waited");
        assert_eq!(regions.to_try(), 0..0, "not yet");
        tokio::time::advance(EVERY).await;
        assert_eq!(regions.to_try(), 0..1);
        assert_eq!(regions.to_try(), 0..0, "once");
        regions.nearer_answered(0);
        let (asked, _) = ask(&regions, &[Some(Ok(())), None]).await;
        assert_eq!(asked, [0]);
        tokio::time::advance(EVERY).await;
        assert_eq!(regions.to_try(), 0..0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_is_answered_during_a_call_is_not_undone_by_it() {
        let regions = Regions::new(PATIENCE, EVERY);
        ask(&regions, &[None, Some(Ok(()))]).await.1.unwrap();
        tokio::time::advance(EVERY).await;
        assert_eq!(regions.to_try(), 0..1);
        // The call to the farther region is under way when the trial is answered.
        let call = regions.ask(&[0, 1], |_| async {
            regions.nearer_answered(0);
            Ok(())
        });
        call.await.unwrap().unwrap();
        assert_eq!(regions.order(2), (0, VecDeque::from([0, 1])));
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_are_silent_all_were_asked_and_it_ends() {
        let regions = Regions::new(PATIENCE, EVERY);
        let began = Instant::now();
        let (asked, outcome) = ask(&regions, &[None, None, None]).await;
        assert_eq!((asked, outcome), (vec![0, 1, 2], Err(KmsErrorKind::Unavailable)));
        assert_eq!(began.elapsed(), EVERY + 2 * PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_final_except_that_a_farther_region_has_no_replica() {
        let regions = Regions::new(PATIENCE, EVERY);
        let (down, missing) = (
            Some(Err(KmsErrorKind::Unavailable)),
            Some(Err(KmsErrorKind::NotFound)),
        );
        let denied = Some(Err(KmsErrorKind::AccessDenied));
        assert_eq!(
            ask(&regions, &[missing, Some(Ok(()))]).await,
            (vec![0], Err(KmsErrorKind::NotFound))
        );
        assert_eq!(
            ask(&regions, &[down, denied]).await,
            (vec![0, 1], Err(KmsErrorKind::AccessDenied))
        );
        // The farther one is first now.
        assert_eq!(
            ask(&regions, &[Some(Ok(())), denied]).await,
            (vec![1], Err(KmsErrorKind::AccessDenied))
        );
        assert_eq!(
            ask(&regions, &[down, missing]).await,
            (vec![1, 0], Err(KmsErrorKind::NotFound))
        );
        assert_eq!(
            ask(&regions, &[Some(Ok(())), missing]).await,
            (vec![1, 0], Ok(()))
        );
        assert_eq!(ask(&regions, &[Some(Ok(())), missing]).await, (vec![0], Ok(())));
    }
}

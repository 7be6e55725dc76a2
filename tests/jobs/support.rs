//! A walk over numbers that a test can slow down or make fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use encx::jobs::{JobError, Walk, WalkOutcome, WalkPage};
use encx::kms::KmsErrorKind;
use encx::store::StoreError;
use encx::{Clock, Error};
use encx_testkit::HarnessClock;
use tokio::sync::watch;

/// A walk over the numbers from 0 to `count`. Clones share their results.
#[derive(Clone)]
pub(crate) struct Numbers {
    pub(crate) plan: String,
    count: u32,
    state: Arc<Mutex<State>>,
    /// While this is set, work waits.
    held: Arc<watch::Sender<bool>>,
    takes: Option<(HarnessClock, Duration)>,
    weight: u64,
}

#[derive(Default)]
struct State {
    /// How often each number was changed.
    changed: BTreeMap<u32, u32>,
    /// How many more attempts fail temporarily, by number.
    not_now: BTreeMap<u32, u32>,
    never: BTreeSet<u32>,
    /// How many reads fail.
    bad_reads: u32,
    pieces: Vec<usize>,
    in_hand: usize,
    most_in_hand: usize,
}

impl Numbers {
    pub(crate) fn new(count: u32) -> Self {
        Self {
            plan: "numbers".to_owned(),
            count,
            state: Arc::default(),
            held: Arc::new(watch::Sender::new(false)),
            takes: None,
            weight: 0,
        }
    }

    /// Sets the duration of every piece of work.
    pub(crate) fn taking(mut self, clock: &HarnessClock, time: Duration) -> Self {
        self.takes = Some((clock.clone(), time));
        self
    }

    /// Sets the size of each number in bytes.
    pub(crate) fn weighing(self, weight: u64) -> Self {
        Self { weight, ..self }
    }

    /// How many numbers each piece worked on at once, and the most across all pieces.
    pub(crate) fn pieces(&self) -> (Vec<usize>, usize) {
        let state = self.state.lock().unwrap();
        (state.pieces.clone(), state.most_in_hand)
    }

    pub(crate) fn failing(self, never: impl IntoIterator<Item = u32>) -> Self {
        self.state.lock().unwrap().never.extend(never);
        self
    }

    pub(crate) fn fail_for_now(&self, numbers: impl IntoIterator<Item = u32>, times: u32) {
        let numbers = numbers.into_iter().map(|number| (number, times));
        self.state.lock().unwrap().not_now.extend(numbers);
    }

    pub(crate) fn fail_reads(&self, times: u32) {
        self.state.lock().unwrap().bad_reads = times;
    }

    pub(crate) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// Returns a clone that is never held, for another worker.
    pub(crate) fn unheld(&self) -> Self {
        let held = Arc::new(watch::Sender::new(false));
        Self { held, ..self.clone() }
    }

    /// How often each number was changed.
    pub(crate) fn changed(&self) -> Vec<u32> {
        let state = self.state.lock().unwrap();
        (0..self.count)
            .map(|number| state.changed.get(&number).copied().unwrap_or(0))
            .collect()
    }
}

pub(crate) fn not_now() -> JobError {
    Error::from(StoreError::unavailable(std::io::Error::other("not now"))).into()
}

pub(crate) fn never() -> JobError {
    JobError::walk(std::io::Error::other("never"), false)
}

#[async_trait]
impl Walk for Numbers {
    type Item = u32;

    fn plan(&self) -> String {
        self.plan.clone()
    }

    async fn read(
        &self,
        after: Option<&[u8]>,
        upto: Option<&[u8]>,
        limit: u32,
    ) -> Result<WalkPage<u32>, JobError> {
        let number = |position: &[u8]| u32::from_be_bytes(position.try_into().unwrap());
        {
            let mut state = self.state.lock().unwrap();
            if state.bad_reads > 0 {
                state.bad_reads -= 1;
                return Err(not_now());
            }
        }
        let first = after.map_or(0, |after| number(after) + 1);
        let end = upto.map_or(self.count, |upto| number(upto) + 1);
        let last = end.min(first + limit);
        let next = (last < end).then(|| (last - 1).to_be_bytes().to_vec());
        Ok(WalkPage::new((first..last).collect(), next))
    }

    fn weight(&self, _: &u32) -> u64 {
        self.weight
    }

    async fn work(&self, items: Vec<u32>) -> Vec<WalkOutcome<u32>> {
        {
            let state = &mut *self.state.lock().unwrap();
            state.pieces.push(items.len());
            state.in_hand += items.len();
            state.most_in_hand = state.most_in_hand.max(state.in_hand);
        }
        if let Some((clock, time)) = &self.takes {
            clock.sleep(*time).await;
        }
        self.held.subscribe().wait_for(|held| !held).await.unwrap();
        let state = &mut *self.state.lock().unwrap();
        state.in_hand -= items.len();
        let outcomes = items.into_iter().map(|number| {
            let what = format!("number {number}");
            if state.never.contains(&number) {
                return WalkOutcome::Failed { what, error: never() };
            }
            match state.not_now.get_mut(&number) {
                Some(left) if *left > 0 => {
                    *left -= 1;
                    let (item, error) = (number, not_now());
                    WalkOutcome::Retry { item, what, error }
                }
                _ => {
                    let times = state.changed.entry(number).or_default();
                    *times += 1;
                    if *times == 1 {
                        WalkOutcome::Changed
                    } else {
                        WalkOutcome::Unchanged
                    }
                }
            }
        });
        outcomes.collect()
    }

    async fn inspect(&self, items: Vec<u32>) -> Vec<WalkOutcome<u32>> {
        let state = self.state.lock().unwrap();
        let outcomes = items.into_iter().map(|number| match state.changed.get(&number) {
            Some(_) => WalkOutcome::Unchanged,
            None => WalkOutcome::Changed,
        });
        outcomes.collect()
    }
}

/// A refusal that a retry does not change.
pub(crate) const REFUSED: KmsErrorKind = KmsErrorKind::AccessDenied;

//! Bounds a worker's in-flight items, in bytes: large items are processed a few at a time.

use std::iter::Peekable;

use tokio::sync::{Semaphore, SemaphorePermit};

/// How many ranges a worker processes at once: one waits for the KMS, another is read, a third is written.
pub(super) const IN_HAND: usize = 3;

/// The unit of the memory budget.
const KIB: u64 = 1024;

/// The memory budget of a worker's in-flight items, over all its ranges.
pub(super) struct Memory {
    kib: u32,
    free: Semaphore,
}

impl Memory {
    pub(super) fn new(bytes: u64) -> Self {
        let kib = u32::try_from(bytes / KIB).unwrap_or(u32::MAX).max(1);
        // On a target with small words a semaphore has fewer permits, and a worker less memory.
        let permits =
            usize::try_from(kib).map_or(Semaphore::MAX_PERMITS, |kib| kib.min(Semaphore::MAX_PERMITS));
        Self {
            kib: u32::try_from(permits).unwrap_or(u32::MAX),
            free: Semaphore::new(permits),
        }
    }

    /// Takes the next items that fit into a range's share, at most `most`; a larger item comes alone. Returns them with
    /// their total weight.
    pub(super) fn batch<T>(
        &self,
        items: &mut Peekable<impl Iterator<Item = T>>,
        most: usize,
        weigh: impl Fn(&T) -> u64,
    ) -> (Vec<T>, u64) {
        let share = u64::from(self.kib) * KIB / IN_HAND as u64;
        let (mut batch, mut weight) = (Vec::new(), 0_u64);
        while batch.len() < most {
            let fits = |item: &T| batch.is_empty() || weight.saturating_add(weigh(item)) <= share;
            let Some(item) = items.next_if(fits) else { break };
            weight = weight.saturating_add(weigh(&item));
            batch.push(item);
        }
        (batch, weight)
    }

    /// Waits for room for this many bytes. A larger request than the budget waits for all of it.
    pub(super) async fn room(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        let kib = u32::try_from(bytes.div_ceil(KIB))
            .unwrap_or(u32::MAX)
            .min(self.kib);
        // The semaphore is never closed, so `acquire_many` does not fail.
        self.free.acquire_many(kib).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(memory: &Memory, items: &[u64]) -> Vec<usize> {
        let mut items = items.iter().copied().peekable();
        let mut sizes = Vec::new();
        loop {
            let (batch, weight) = memory.batch(&mut items, 500, |item| *item);
            assert_eq!(weight, batch.iter().sum::<u64>());
            if batch.is_empty() {
                return sizes;
            }
            sizes.push(batch.len());
        }
    }

    #[test]
    fn small_items_come_together_and_a_large_one_alone() {
        let memory = Memory::new(3 * 1000 * KIB);
        let share = 1000 * KIB;
        assert_eq!(sizes(&memory, &[100; 1200]), [500, 500, 200]);
        assert_eq!(sizes(&memory, &[share / 2; 5]), [2, 2, 1]);
        assert_eq!(sizes(&memory, &[1, share * 9, u64::MAX, 1, 1]), [1, 1, 1, 2]);
        assert_eq!(sizes(&Memory::new(0), &[KIB, KIB]), [1, 1]);
    }

    #[test]
    fn what_is_larger_than_all_there_is_waits_for_all_of_it() {
        encx_testkit::block_on(async {
            let memory = Memory::new(10 * KIB);
            let small = memory.room(1).await;
            let large = std::pin::pin!(memory.room(u64::MAX));
            let mut large = Some(large);
            let waits = std::future::poll_fn(|context| {
                let polled = large.as_mut().map(|large| large.as_mut().poll(context));
                std::task::Poll::Ready(polled.is_some_and(|polled| polled.is_pending()))
            });
            assert!(waits.await);
            drop(small);
            if let Some(large) = large {
                assert!(large.await.is_some());
            }
        });
    }
}

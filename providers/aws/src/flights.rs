//! Deduplicates concurrent questions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

/// The in-flight questions, by name.
pub(crate) struct Flights<T>(Mutex<HashMap<String, Arc<OnceCell<T>>>>);

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Flights<T> {
    /// Asks, or waits for the in-flight answer to the same question. Answers are shared, not kept.
    ///
    /// # Cancellation
    ///
    /// If the asking caller is dropped, one of the waiting callers asks again.
    pub(crate) async fn ask<F: Future<Output = T>>(&self, name: &str, question: impl FnOnce() -> F) -> T {
        let flight = Arc::clone(self.under_way().entry(name.to_owned()).or_default());
        let landing = Landing {
            flights: self,
            name,
            flight: &flight,
        };
        let answer = flight.get_or_init(question).await.clone();
        drop(landing);
        answer
    }
}

impl<T> Flights<T> {
    fn under_way(&self) -> MutexGuard<'_, HashMap<String, Arc<OnceCell<T>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets a question once it is answered, or when its last waiter is dropped.
struct Landing<'a, T> {
    flights: &'a Flights<T>,
    name: &'a str,
    flight: &'a Arc<OnceCell<T>>,
}

impl<T> Drop for Landing<'_, T> {
    fn drop(&mut self) {
        let mut under_way = self.flights.under_way();
        let is_this = under_way
            .get(self.name)
            .is_some_and(|found| Arc::ptr_eq(found, self.flight));
        // One count is the map's, and one this caller's.
        if is_this && (self.flight.initialized() || Arc::strong_count(self.flight) == 2) {
            under_way.remove(self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn who_asks_at_once_shares_an_answer_and_who_asks_later_asks_again() {
        let (flights, asked, go) = (
            Arc::new(Flights::<u32>::default()),
            Arc::new(AtomicU32::new(0)),
            Arc::new(Notify::new()),
        );
        for round in 1..=2 {
            let all: Vec<_> = (0..8)
                .map(|_| {
                    let (flights, asked, go) = (Arc::clone(&flights), Arc::clone(&asked), Arc::clone(&go));
                    tokio::spawn(async move {
                        let question = || async {
                            let number = asked.fetch_add(1, Ordering::SeqCst) + 1;
                            go.notified().await;
                            number
                        };
                        flights.ask("a", question).await
                    })
                })
                .collect();
            while asked.load(Ordering::SeqCst) < round {
                tokio::task::yield_now().await;
            }
            // All of this thread's tasks have joined by then.
            tokio::task::yield_now().await;
            go.notify_one();
            for one in all {
                assert_eq!(one.await.unwrap(), round);
            }
        }
        assert!(flights.under_way().is_empty());
    }

    #[tokio::test]
    async fn who_goes_away_strands_no_one_and_leaves_nothing() {
        let flights = Arc::new(Flights::<u32>::default());
        let asking = Arc::clone(&flights);
        let first = tokio::spawn(async move { asking.ask("a", std::future::pending::<u32>).await });
        tokio::task::yield_now().await;
        let waiting = Arc::clone(&flights);
        let second = tokio::spawn(async move { waiting.ask("a", || async { 2 }).await });
        tokio::task::yield_now().await;
        first.abort();
        assert_eq!(second.await.unwrap(), 2);
        assert!(flights.under_way().is_empty());
        let alone = Arc::clone(&flights);
        let alone = tokio::spawn(async move { alone.ask("a", std::future::pending::<u32>).await });
        tokio::task::yield_now().await;
        alone.abort();
        assert!(alone.await.is_err());
        assert!(flights.under_way().is_empty());
    }
}

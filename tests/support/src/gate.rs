//! A gate that holds calls until a test releases them.

use std::sync::Arc;

use tokio::sync::watch;

use crate::waiting::until;

/// Holds the calls that reach it, and counts those it holds.
#[derive(Clone, Debug)]
pub struct Gate(Arc<(watch::Sender<bool>, watch::Sender<usize>)>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(Arc::new((watch::Sender::new(false), watch::Sender::new(0))))
    }

    /// Holds every call from now on.
    pub fn hold(&self) {
        self.0.0.send_replace(true);
    }

    /// Lets all calls pass, including those it holds.
    pub fn release(&self) {
        self.0.0.send_replace(false);
    }

    /// Counts the calls it holds.
    pub fn waiting(&self) -> usize {
        *self.0.1.borrow()
    }

    /// Waits until it holds `n` calls.
    pub async fn until_waiting(&self, n: usize) {
        until("calls at the gate", || self.waiting() == n).await;
    }

    /// Returns once no call is held.
    pub(crate) async fn pass(&self) {
        struct Waiting<'a>(&'a watch::Sender<usize>);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.send_modify(|waiting| *waiting -= 1);
            }
        }
        self.0.1.send_modify(|waiting| *waiting += 1);
        let _waiting = Waiting(&self.0.1);
        // The sender lives in `self`, so it cannot be gone.
        let _ = self.0.0.subscribe().wait_for(|held| !held).await;
    }
}

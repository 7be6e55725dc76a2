//! Tells whether a background task runs in this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The number of the process in which a background task runs, or 0. `fork` copies the number but not the task.
pub(super) type RunsIn = Arc<AtomicU32>;

/// Marks a background task as running for as long as it exists.
pub(super) struct Running {
    runs_in: RunsIn,
    process: u32,
}

impl Running {
    /// Returns `None` if the task is already running.
    pub(super) fn claim(runs_in: &RunsIn) -> Option<Self> {
        Self::claim_for(runs_in, std::process::id())
    }

    fn claim_for(runs_in: &RunsIn, process: u32) -> Option<Self> {
        // Read first: every slow call passes here.
        let now = runs_in.load(Ordering::Acquire);
        let claimed = now != process
            && runs_in
                .compare_exchange(now, process, Ordering::AcqRel, Ordering::Acquire)
                .is_ok();
        claimed.then(|| Self {
            runs_in: Arc::clone(runs_in),
            process,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Not what another process claimed: this process's copy of its task never ran.
        let _ = self
            .runs_in
            .compare_exchange(self.process, 0, Ordering::AcqRel, Ordering::Acquire);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_fork_left_behind_is_started_anew() {
        let runs_in = RunsIn::default();
        let in_parent = Running::claim_for(&runs_in, 4711).unwrap();
        assert!(Running::claim_for(&runs_in, 4711).is_none());
        // In the child, which has the parent's number.
        let in_child = Running::claim_for(&runs_in, 4712).unwrap();
        assert!(Running::claim_for(&runs_in, 4712).is_none());
        drop(in_parent);
        assert!(Running::claim_for(&runs_in, 4712).is_none(), "it runs still");
        drop(in_child);
        assert!(Running::claim_for(&runs_in, 4712).is_some());
    }
}

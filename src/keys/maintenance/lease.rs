//! The lease under which one process of all does the work.

use std::time::Duration;

use crate::clock::{Clock, Moment};
use crate::error::Error;
use encx_core::store::{Leases, ProcessId, Timestamp};

const NAME: &str = "maintenance/rotation";

/// How long the key store is waited for when the lease is given back.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why a run ends.
pub(super) enum Stop {
    Failed(Error),
    LeaseLost,
}

/// The lease, held.
pub(super) struct Lease<'a> {
    leases: &'a dyn Leases,
    clock: &'a dyn Clock,
    holder: ProcessId,
    term: Duration,
    /// When it was taken, by the key store's clock.
    pub(super) since: Timestamp,
    /// When it was last taken or extended, by ours, or a moment before.
    kept_at: Moment,
}

impl<'a> Lease<'a> {
    /// Takes the lease; `None` if another process has it.
    pub(super) async fn take(
        leases: &'a dyn Leases,
        clock: &'a dyn Clock,
        holder: ProcessId,
        term: Duration,
    ) -> Result<Option<Self>, Error> {
        let began = clock.elapsed();
        let taken = leases.acquire_lease(NAME, holder, term).await?;
        Ok(taken.map(|lease| Self {
            leases,
            clock,
            holder,
            term,
            since: lease.since,
            kept_at: Moment::new(began),
        }))
    }

    /// How long it may be left alone.
    pub(super) fn pause(&self) -> Duration {
        self.term / 3
    }

    /// Makes sure that it is still ours, and for long enough to write something.
    pub(super) async fn keep(&self) -> Result<(), Stop> {
        let now = self.clock.elapsed();
        let age = now.saturating_sub(self.kept_at.get());
        if age < self.pause() {
            return Ok(());
        }
        match self.leases.acquire_lease(NAME, self.holder, self.term).await {
            Ok(Some(_)) => {
                self.kept_at.advance_to(now);
                Ok(())
            }
            Ok(None) => Err(Stop::LeaseLost),
            // It may pass, and until then it is ours.
            Err(error) if error.is_retryable() && age < 2 * self.pause() => Ok(()),
            Err(error) => Err(Stop::Failed(error.into())),
        }
    }

    /// Gives it back, so that others need not wait for its end.
    pub(super) async fn release(self) {
        release(self.leases, self.clock, self.holder).await;
    }
}

/// Gives the lease back if this process holds it.
pub(super) async fn release(leases: &dyn Leases, clock: &dyn Clock, holder: ProcessId) {
    let released = tokio::select! {
        released = leases.release_lease(NAME, holder) => released,
        () = clock.sleep(FAREWELL) => return,
    };
    if let Err(error) = released {
        tracing::debug!(target: "encx::maintenance", %error, "the lease could not be given back, and ends by itself");
    }
}

//! The lease that lets one process work at a time.

use std::time::Duration;

use encx_core::store::{Leases, ProcessId, Timestamp};

use crate::clock::{Clock, Moment};
use crate::error::Error;

const NAME: &str = "maintenance/rotation";

/// How long a release waits for the key store.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why a run ends.
pub(super) enum Stop {
    Failed(Error),
    LeaseLost,
}

/// A held lease.
pub(super) struct Lease<'a> {
    leases: &'a dyn Leases,
    clock: &'a dyn Clock,
    holder: ProcessId,
    term: Duration,
    /// When it was acquired, by the key store's clock.
    pub(super) since: Timestamp,
    /// When it was last acquired or extended, by this process's clock, or shortly before.
    kept_at: Moment,
}

impl<'a> Lease<'a> {
    /// Acquires the lease; `None` if another process holds it.
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

    /// How long until it must be extended.
    pub(super) fn pause(&self) -> Duration {
        self.term / 3
    }

    /// Ensures that the lease is held for long enough to write.
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
            // The failure may be temporary, and the lease has not expired.
            Err(error) if error.is_retryable() && age < 2 * self.pause() => Ok(()),
            Err(error) => Err(Stop::Failed(error.into())),
        }
    }

    /// Releases the lease, so that others need not wait for it to expire.
    pub(super) async fn release(self) {
        release(self.leases, self.clock, self.holder).await;
    }
}

/// Releases the lease if this process holds it.
pub(super) async fn release(leases: &dyn Leases, clock: &dyn Clock, holder: ProcessId) {
    let released = tokio::select! {
        released = leases.release_lease(NAME, holder) => released,
        () = clock.sleep(FAREWELL) => return,
    };
    if let Err(error) = released {
        tracing::debug!(target: "encx::maintenance", %error, "the lease could not be given back, and ends by itself");
    }
}

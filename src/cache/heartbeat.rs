//! The heartbeat: tells the key store that this process is alive, and acknowledges the changes that it has followed.

use std::sync::{Arc, Weak};
use std::time::Duration;

use encx_core::store::{Fence, ProcessId, ProcessRegistry};
use tokio::runtime::Handle;

use crate::cache::Cache;
use crate::cache::counted::counts_of;
use crate::cache::running::Running;
use crate::error::Error;

/// The time between heartbeats, unless a fence is raised.
const BETWEEN_HEARTBEATS: Duration = Duration::from_secs(10);

/// The least time between a heartbeat and one that a hint causes. Hints can be sent at will, and each heartbeat of each
/// process is a write.
const BETWEEN_HINTED: Duration = Duration::from_millis(250);

/// How long reporting the counts may take. All processes write the same rows, and a heartbeat that waits for them
/// acknowledges no fence.
const TELLING: Duration = Duration::from_secs(2);

/// How long an ending process waits to deregister.
const FAREWELL: Duration = Duration::from_secs(5);

impl Cache {
    /// Starts the heartbeat, unless it is running or the key store has no registry of processes.
    pub(super) fn ensure_heartbeat(self: &Arc<Self>) -> Result<(), Error> {
        if self.registration.is_on
            && let Some(running) = Running::claim(&self.registration.running)
        {
            let cache = Arc::downgrade(self);
            self.tasks.spawn(async move {
                let _running = running;
                beat_forever(cache).await;
            })?;
        }
        Ok(())
    }

    fn between_heartbeats(&self) -> Duration {
        BETWEEN_HEARTBEATS.min(self.limits.state_ttl / 2)
    }

    /// Deregisters this process, which no longer holds keys.
    pub(super) async fn leave(&self) {
        let Some((registry, id)) = self.store.processes().zip(self.registration.resign()) else {
            return;
        };
        let leaving = async {
            // A short-lived process has not reported its counts yet.
            tell_counts(self, registry, id).await;
            registry.deregister(id).await
        };
        let left = tokio::select! {
            left = leaving => left.map_err(Error::from),
            () = self.clock.sleep(FAREWELL) => Err(Error::TimedOut { after: FAREWELL }),
        };
        if let Err(error) = left {
            tracing::debug!(target: "encx::processes", %error, "deregistering this process from the key store failed");
        }
    }

    /// Deregisters in the background, if there is a runtime.
    pub(super) fn leave_soon(self: &Arc<Self>) {
        let is_known = self.registration.is_registered();
        if let Some(runtime) = Handle::try_current().ok().filter(|_| is_known) {
            let cache = Arc::clone(self);
            runtime.spawn(async move {
                // A heartbeat in flight must not register it again.
                cache.tasks.ended().await;
                cache.leave().await;
            });
        }
    }
}

async fn beat_forever(cache: Weak<Cache>) {
    let mut hinted = false;
    let mut told_at = Duration::ZERO;
    loop {
        let Some(strong) = cache.upgrade() else { return };
        let outcome = beat(&strong, &mut told_at).await;
        if let Err(Error::ShutDown | Error::NoRuntime) = outcome {
            return;
        }
        strong.registration.note_outcome(&outcome);
        let registration = Arc::clone(&strong.registration);
        let longest = strong.between_heartbeats();
        // With jitter, as for polls, so that processes that started together do not stay in step.
        let sleep = strong
            .clock
            .sleep(longest.mul_f64(1.0 - 0.1 * rand::random::<f64>()));
        let pause = hinted.then(|| strong.clock.sleep(BETWEEN_HINTED));
        drop(strong);
        // A hint that arrives during this is kept.
        let hint = async {
            if let Some(pause) = pause {
                pause.await;
            }
            registration.hinted.notified().await;
        };
        hinted = tokio::select! {
            () = sleep => false,
            () = hint => true,
        };
    }
}

/// Sends a heartbeat. If the fence was raised, follows all changes and acknowledges it. Then reports the counts, unless
/// that was done a moment ago: other processes can cause heartbeats at will.
async fn beat(cache: &Arc<Cache>, told_at: &mut Duration) -> Result<(), Error> {
    let Some(registry) = cache.store.processes() else {
        return Ok(());
    };
    let (info, acknowledged) = cache.registration.introduce();
    let told = cache.ask_in_time(registry.heartbeat(&info)).await;
    // Even if that failed: it is retried, and no load waits for it.
    cache.registration.note_introduced();
    let fence = told?;
    // Compared for equality, because a restored database starts from an earlier fence.
    if fence != Fence::NONE && acknowledged != Some(fence) {
        follow(cache, registry, info.id, fence).await?;
    }
    let now = cache.clock.elapsed();
    if now.saturating_sub(*told_at) >= cache.between_heartbeats() / 2 {
        *told_at = now;
        tell_counts(cache, registry, info.id).await;
    }
    Ok(())
}

/// Reports the counts since the last report to the key store. On failure they are reported with the next heartbeat; they
/// may be counted twice only if the answer was lost.
///
/// The outcome says nothing about the key store: keys are loaded without these rows, and a role may lack
/// the right to write them.
async fn tell_counts(cache: &Cache, registry: &dyn ProcessRegistry, id: ProcessId) {
    let counts = counts_of(&cache.stats());
    let untold = cache.registration.untold(&counts);
    if untold.is_empty() {
        return;
    }
    let told = tokio::select! {
        told = registry.add_counts(&untold) => told.map_err(Error::from),
        () = cache.clock.sleep(TELLING) => Err(Error::TimedOut { after: TELLING }),
    };
    match told {
        Ok(()) => cache.registration.note_told(id, counts),
        Err(error) => {
            tracing::debug!(target: "encx::processes", %error, "reporting the counts failed; they are reported later");
        }
    }
}

/// Follows all changes, and acknowledges the fence.
async fn follow(
    cache: &Arc<Cache>,
    registry: &dyn ProcessRegistry,
    id: ProcessId,
    fence: Fence,
) -> Result<(), Error> {
    let learned = cache.tick();
    if !cache.poll_since(learned).await? {
        // The poll has already logged the reason.
        return Ok(());
    }
    // The process that raised the fence may be about to promote the version that it published.
    cache.prefetch_now().await;
    acknowledge(cache, registry, id, fence).await
}

async fn acknowledge(
    cache: &Cache,
    registry: &dyn ProcessRegistry,
    id: ProcessId,
    fence: Fence,
) -> Result<(), Error> {
    cache.ask_in_time(registry.acknowledge(id, fence)).await?;
    cache.registration.note_acknowledged(id, fence);
    Ok(())
}

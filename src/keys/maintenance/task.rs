//! Maintenance in the background.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Maintenance, MaintenanceReport, lease};
use crate::error::Error;

/// Maintenance that runs in the background, for as long as this is held and the `Crypto` that it belongs to lives.
#[derive(Debug)]
#[must_use = "it stops when this is dropped"]
pub struct MaintenanceTask {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Maintenance {
    /// Starts to [run](Self::run_once) in the background, at the set interval and each time a little earlier. While
    /// another process holds the lease, it looks again after the lease's term.
    ///
    /// What it does and what fails stands in events of `tracing` with the target `encx::maintenance`. It does not keep the
    /// manager's `Crypto` alive.
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::Crypto;
    /// # use encx::keys::Maintenance;
    /// # encx_testkit::block_on(async {
    /// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
    /// let task = Maintenance::new(crypto.key_manager()).spawn()?;
    /// // The service runs. At its end:
    /// task.stop().await;
    /// crypto.shutdown().await;
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NoRuntime`] outside a tokio runtime, [`Error::Config`] as for [`run_once`](Self::run_once).
    pub fn spawn(mut self) -> Result<MaintenanceTask, Error> {
        self.check()?;
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
        // This process's own cache learns of what is done as those of the others do.
        let core = self.manager.core.take();
        self.alive = core.map(|core| Arc::downgrade(&core.cache));
        let (stop, mut stopped) = watch::channel(false);
        let task = runtime.spawn(async move {
            tokio::select! {
                // An error means that the handle is gone.
                _ = stopped.wait_for(|stopped| *stopped) => {}
                () = self.run_forever() => {}
            }
            if let Some(leases) = self.manager.store.leases() {
                lease::release(leases, &*self.manager.clock, self.holder).await;
            }
        });
        Ok(MaintenanceTask { stop, task })
    }

    async fn run_forever(&self) {
        // Processes that started together do not all ask at once.
        let mut pause = self.interval.mul_f64(0.1 * rand::random::<f64>());
        loop {
            self.manager.clock.sleep(pause).await;
            pause = self.interval;
            match self.run_once().await {
                Ok(MaintenanceReport {
                    stopped: Some(Error::ShutDown),
                    ..
                }) => return,
                Ok(report) => {
                    if report.held_elsewhere {
                        // Who holds the lease may have died in the midst: then this process goes on when it ends.
                        pause = pause.min(self.lease_term);
                    }
                    report.trace();
                }
                Err(error) => {
                    tracing::warn!(target: "encx::maintenance", %error, "maintenance could not begin");
                }
            }
            let is_alive = |cache: &std::sync::Weak<_>| cache.strong_count() > 0;
            if !self.alive.as_ref().is_none_or(is_alive) {
                return;
            }
            pause = pause.mul_f64(1.0 - 0.1 * rand::random::<f64>());
        }
    }
}

impl MaintenanceReport {
    fn trace(&self) {
        if self.held_elsewhere {
            tracing::debug!(target: "encx::maintenance", "another process holds the lease");
        }
        for failed in &self.failed {
            let (key, error) = (failed.id, &failed.error);
            tracing::warn!(target: "encx::maintenance", %key, %error, "rotating a key failed");
        }
        if let Some(error) = &self.stopped {
            tracing::warn!(target: "encx::maintenance", %error, "maintenance ended early");
        }
        if !self.published.is_empty() || !self.promoted.is_empty() {
            let (published, promoted) = (self.published.len(), self.promoted.len());
            tracing::info!(target: "encx::maintenance", published, promoted, "rotated keys");
        }
    }
}

impl MaintenanceTask {
    /// Stops, and waits until it has: what was published and not promoted waits for a later run, of this process or another.
    ///
    /// # Cancellation
    ///
    /// May be dropped; it stops all the same.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        // An error means that the task panicked, which its runtime has reported, or that its runtime is gone.
        let _ = self.task.await;
    }
}

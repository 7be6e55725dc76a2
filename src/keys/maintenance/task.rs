//! Maintenance in the background.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Maintenance, MaintenanceReport, lease};
use crate::error::Error;

/// Maintenance in the background, until this handle is dropped or its `Crypto` is gone.
#[derive(Debug)]
#[must_use = "it stops when this is dropped"]
pub struct MaintenanceTask {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Maintenance {
    /// Starts [runs](Self::run_once) in the background.
    ///
    /// The first starts within a tenth of the interval, the others at the interval shortened by up to a tenth
    /// at random. While another process holds the lease, it retries after the lease's term.
    ///
    /// Traces results and failures with the target `encx::maintenance`. Does not keep the manager's `Crypto`
    /// alive.
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::Crypto;
    /// # use encx::keys::Maintenance;
    /// # encx_testkit::block_on(async {
    /// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
    /// let task = Maintenance::new(crypto.key_manager()).spawn()?;
    /// // The service runs. At shutdown:
    /// task.stop().await;
    /// crypto.shutdown().await;
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NoRuntime`] outside a tokio runtime; [`Error::Config`] as for [`run_once`](Self::run_once).
    pub fn spawn(mut self) -> Result<MaintenanceTask, Error> {
        self.check()?;
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
        // This process's cache learns of changes like those of other processes.
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
        // Spreads the first runs of processes that started together.
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
                        // The lease holder may have died: take over when the lease expires.
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
    /// Stops and waits for the end. Published versions that were not promoted wait for a later run, of any
    /// process.
    ///
    /// # Cancellation
    ///
    /// The task stops even if this is dropped.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        // An error means that the task panicked, which the runtime reported, or that the runtime is gone.
        let _ = self.task.await;
    }
}

//! Hashes passwords on blocking threads, as many at once as their memory allows.

use std::fmt;
use std::sync::Arc;
use std::thread;

use encx_core::key::Subkey;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

use super::{Output, PasswordError, PasswordParams, SALT_LEN, argon2id};

/// The password settings of a `Crypto`'s builder.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) params: PasswordParams,
    pub(crate) max_memory_mib: Option<u32>,
}

/// Hashes passwords, and waits while too much memory is in use.
pub(crate) struct Workers {
    pub(crate) params: PasswordParams,
    /// One permit is one KiB.
    memory: Arc<Semaphore>,
    max_memory_kib: u32,
    #[cfg(test)]
    computed: Computed,
}

/// Argon2's computations, with their parameters and threads, for tests that compare attempts.
#[cfg(test)]
pub(crate) type Computed = Arc<std::sync::Mutex<Vec<(PasswordParams, thread::ThreadId)>>>;

impl Workers {
    pub(crate) fn new(settings: &Settings) -> Self {
        let of_params = settings.params.memory_kib();
        let by_cores = || {
            let cores = thread::available_parallelism().map_or(1, usize::from);
            of_params.saturating_mul(u32::try_from(cores).unwrap_or(u32::MAX))
        };
        let max_memory_kib = settings
            .max_memory_mib
            .map_or_else(by_cores, |mib| mib.saturating_mul(1024))
            // Never so little that no password can be hashed.
            .max(of_params);
        Self {
            params: settings.params,
            memory: Arc::new(Semaphore::new(max_memory_kib as usize)),
            max_memory_kib,
            #[cfg(test)]
            computed: Computed::default(),
        }
    }

    /// Takes the computations so far.
    #[cfg(test)]
    pub(crate) fn take_computed(&self) -> Vec<(PasswordParams, thread::ThreadId)> {
        std::mem::take(&mut self.computed.lock().unwrap())
    }

    #[cfg(test)]
    pub(super) fn free_kib(&self) -> usize {
        self.memory.available_permits()
    }

    /// Waits until there is enough memory for work with these parameters.
    pub(crate) async fn room(&self, params: PasswordParams) -> Result<Room, NotDone> {
        let runtime = Handle::try_current().map_err(|_| NotDone::NoRuntime)?;
        // A hash that needs more than the whole limit is computed alone.
        let kib = params.memory_kib().min(self.max_memory_kib);
        // The semaphore is never closed, so waiting for it cannot fail.
        let permit = Arc::clone(&self.memory)
            .acquire_many_owned(kib)
            .await
            .map_err(|_| NotDone::ShutDown)?;
        Ok(Room {
            runtime,
            permit,
            params,
            #[cfg(test)]
            computed: Arc::clone(&self.computed),
        })
    }
}

/// Memory for one piece of work.
pub(crate) struct Room {
    runtime: Handle,
    permit: OwnedSemaphorePermit,
    params: PasswordParams,
    #[cfg(test)]
    computed: Computed,
}

impl Room {
    /// Computes Argon2id on a blocking thread, with the parameters of this room.
    ///
    /// Work that has started continues if its caller is cancelled, and keeps its room until it is done.
    pub(crate) async fn argon2id(
        self,
        pepper: Subkey,
        password: Zeroizing<Vec<u8>>,
        salt: [u8; SALT_LEN],
    ) -> Result<Result<Output, PasswordError>, NotDone> {
        let params = self.params;
        #[cfg(test)]
        let computed = Arc::clone(&self.computed);
        self.run(move || {
            let output = argon2id(params, &pepper, &password, &salt);
            #[cfg(test)]
            computed.lock().unwrap().push((params, thread::current().id()));
            output
        })
        .await
    }

    /// Runs a piece of work on a blocking thread.
    pub(super) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NotDone> {
        let Self { runtime, permit, .. } = self;
        let done = runtime.spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        done.await.map_err(|_| NotDone::Interrupted)
    }
}

/// Why a piece of work was not done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NotDone {
    Interrupted,
    NoRuntime,
    ShutDown,
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers")
            .field("params", &self.params)
            .field("max_memory_kib", &self.max_memory_kib)
            .finish_non_exhaustive()
    }
}

//! Waiting until every process has followed a change.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use encx_core::store::{
    ChangeCursor, CursorPosition, Fence, ProcessId, ProcessInfo, ProcessList, ProcessRecord, ProcessRegistry,
    StoreError, Timestamp,
};

use super::KeyManager;
use crate::error::Error;

/// A process that was silent for longer is not waited for.
const LIVE_FOR: Duration = Duration::from_secs(30);

/// How long a process must also be silent by this process's own clock. Live processes report every 10
/// seconds; after the database's clock jumps, all of them seem silent for long.
const UNHEARD_FOR: Duration = Duration::from_secs(12);

/// The first and the longest pause between looks at the registry.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Which processes have followed every change. From [`KeyManager::await_processes`].
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use = "processes that have not answered stand here and nowhere else"]
pub struct ProcessReport {
    /// The raised fence.
    pub fence: Fence,
    /// When the fence was raised, by the key store's clock. Earlier changes are covered.
    pub at: Timestamp,
    /// Processes that have followed every change made before `at`.
    pub acknowledged: Vec<ProcessInfo>,
    /// Processes that may not have followed them.
    pub silent: Vec<SilentProcess>,
    /// Processes that ended during the call, or were silent for longer than they can serve any key, including
    /// the last 12 seconds of this call.
    pub gone: Vec<ProcessInfo>,
}

impl ProcessReport {
    /// Tells whether every process that may hold a key has followed every change.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.silent.is_empty()
    }

    /// Returns when the last registered process stops serving keys withdrawn earlier; `None` if all have
    /// stopped.
    #[must_use]
    pub fn serves_until(&self) -> Option<Timestamp> {
        self.silent.iter().map(|silent| silent.serves_until).max()
    }
}

/// A process that may not have followed a change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SilentProcess {
    /// The process.
    pub process: ProcessInfo,
    /// When it last reported.
    pub seen_at: Timestamp,
    /// The latest time at which it may use a withdrawn key: the report's `at`, plus the process's `ttl`, plus
    /// how long it lets keys serve beyond. Time during which its machine is suspended is not included.
    pub serves_until: Timestamp,
}

impl KeyManager {
    /// Waits until every process using the key store has followed every change made before this call.
    ///
    /// Then withdrawn keys are dropped and published versions are in memory. Waits at most `patience`.
    ///
    /// Waits for a process if it reported within the last 30 seconds; processes report every 10 seconds. A
    /// process silent for longer gets 12 seconds to report, because the database's clock may have jumped.
    ///
    /// The wait takes milliseconds if the key store pushes hints, otherwise up to 10 seconds or half of the
    /// processes' `state_ttl`, whichever is less. With zero patience the report shows the current state.
    ///
    /// Only registered processes are known. A process without permission to write to the registry is not
    /// waited for; it still drops withdrawn keys within its `state_ttl`.
    ///
    /// ```
    /// # use encx_testkit::{MemoryKeyStore, MemoryKms};
    /// # use encx::{Crypto, EncryptionContext};
    /// # use std::time::Duration;
    /// # use encx::keys::KeyState;
    /// # encx_testkit::block_on(async {
    /// # let manager = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build_key_manager()?;
    /// # let context = EncryptionContext::from_pairs([("tenantId", "t-42")])?;
    /// # let version = manager.create(&context).await?;
    /// manager.set_state(&context, version.id, KeyState::Suspended).await?;
    /// let report = manager.await_processes(Duration::from_secs(30)).await?;
    /// for silent in &report.silent {
    ///     println!("{:?} may read until {:?}", silent.process, silent.serves_until);
    /// }
    /// # Ok::<(), encx::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`StoreError::Unsupported`] if the key store has no process registry; key store errors if it was never
    /// reached.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn await_processes(&self, patience: Duration) -> Result<ProcessReport, Error> {
        let registry = self.registry()?;
        let began = self.clock.elapsed();
        let fence = registry.raise_fence().await?;
        if let Some(core) = &self.core {
            // This process notices the fence at once.
            core.cache().registration.wake();
        }
        let (mut watch, mut pause) = (Watch::new(fence), FIRST_PAUSE);
        loop {
            let seen = registry.list_processes().await;
            let waited = self.clock.elapsed().saturating_sub(began);
            match seen {
                Ok(list) if watch.look(&list, waited) || waited >= patience => return Ok(watch.report()),
                Err(error) if !error.is_retryable() => return Err(error.into()),
                Err(error) if waited >= patience => {
                    return watch.seen.is_some().then(|| watch.report()).ok_or(error.into());
                }
                Ok(_) | Err(_) => {}
            }
            self.clock.sleep(pause.min(patience - waited)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Returns the key store's time, now or a moment ago: the clock of all times in a
    /// [`KeyRecord`](crate::store::KeyRecord).
    ///
    /// # Errors
    ///
    /// [`StoreError::Unsupported`] if the key store cannot tell; key store errors.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn time_of_store(&self) -> Result<Timestamp, Error> {
        if let Some(registry) = self.store.processes() {
            return Ok(registry.list_processes().await?.now);
        }
        let page = self.store.changed_since(&ChangeCursor::now()).await?;
        match page.next.position() {
            CursorPosition::At { at, .. } => Ok(at),
            _ => {
                let what = "telling the time";
                Err(StoreError::Unsupported { what }.into())
            }
        }
    }

    pub(crate) fn registry(&self) -> Result<&dyn ProcessRegistry, Error> {
        let what = "a registry of processes";
        self.store
            .processes()
            .ok_or_else(|| StoreError::Unsupported { what }.into())
    }
}

/// What was seen of the registry since a fence was raised.
struct Watch {
    fence: Fence,
    /// When the registry was first read.
    at: Option<Timestamp>,
    seen: Option<ProcessList>,
    /// Every process seen so far.
    known: BTreeMap<ProcessId, ProcessInfo>,
    /// When each process last reported, and how long the wait had lasted when that was seen.
    heard: BTreeMap<ProcessId, (Timestamp, Duration)>,
    /// Processes no longer waited for.
    given_up: BTreeSet<ProcessId>,
}

impl Watch {
    fn new(fence: Fence) -> Self {
        Self {
            fence,
            at: None,
            seen: None,
            known: BTreeMap::new(),
            heard: BTreeMap::new(),
            given_up: BTreeSet::new(),
        }
    }

    /// Evaluates the registry after a wait of `waited`; `true` if there is no process left to wait for.
    fn look(&mut self, list: &ProcessList, waited: Duration) -> bool {
        self.at.get_or_insert(list.now);
        let infos = list.processes.iter().map(|process| &process.info);
        self.known.extend(infos.map(|info| (info.id, info.clone())));
        self.seen = Some(list.clone());
        let unheard = |process: &&ProcessRecord| {
            let new = (process.seen_at, waited);
            let heard = self.heard.entry(process.info.id).or_insert(new);
            if heard.0 != process.seen_at {
                *heard = new;
            }
            process.seen_at < list.now.minus(LIVE_FOR) && waited.saturating_sub(heard.1) >= UNHEARD_FOR
        };
        let given_up = list.processes.iter().filter(unheard);
        self.given_up = given_up.map(|process| process.info.id).collect();
        list.processes
            .iter()
            .all(|process| process.acknowledged >= self.fence || self.given_up.contains(&process.info.id))
    }

    fn report(self) -> ProcessReport {
        let at = self.at.unwrap_or(Timestamp::from_micros(0));
        let mut report = ProcessReport {
            fence: self.fence,
            at,
            acknowledged: Vec::new(),
            silent: Vec::new(),
            gone: Vec::new(),
        };
        let mut left = self.known;
        for process in self.seen.into_iter().flat_map(|list| list.processes) {
            left.remove(&process.info.id);
            if process.acknowledged >= self.fence {
                report.acknowledged.push(process.info);
            } else if self.given_up.contains(&process.info.id)
                && process.seen_at.plus(LIVE_FOR).plus(process.info.serves_for) < at
            {
                report.gone.push(process.info);
            } else {
                report.silent.push(SilentProcess {
                    seen_at: process.seen_at,
                    serves_until: at.plus(process.info.serves_for),
                    process: process.info,
                });
            }
        }
        report.gone.extend(left.into_values());
        report
    }
}

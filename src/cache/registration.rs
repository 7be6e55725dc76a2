//! This process's registration among the processes that share a key store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use encx_core::memory;
use encx_core::store::{Fence, ProcessCounts, ProcessId, ProcessInfo};
use tokio::sync::{Notify, watch};

use crate::cache::Limits;
use crate::cache::counted::growth;
use crate::cache::running::RunsIn;
use crate::clock::Clock;
use crate::error::Error;

/// How long the first callers that need a key wait until this process is registered.
const INTRODUCTION: Duration = Duration::from_secs(2);

/// The greatest length of a process's name, in bytes.
pub(crate) const MAX_NAME_LEN: usize = 200;

/// This process, as other processes see it.
#[derive(Debug)]
pub(crate) struct Registration {
    /// Whether the key store has a registry of processes.
    pub(super) is_on: bool,
    pub(super) running: RunsIn,
    name: Option<String>,
    serves_for: Duration,
    me: Mutex<Me>,
    /// Signals that the fence was raised, or may have been.
    pub(super) hinted: Notify,
    /// The process that has registered, or has waited long enough to; 0 for none.
    introduced: watch::Sender<u32>,
}

#[derive(Clone, Debug)]
struct Me {
    id: ProcessId,
    origin: Origin,
    /// Whether the key store may know this id.
    registered: bool,
    acknowledged: Option<Fence>,
    /// How many registrations failed in a row.
    failures: u32,
    /// The counts last reported to the key store. `None` in a copy of a process, which has the original's counts and
    /// did none of that work.
    told: Option<ProcessCounts>,
}

/// Distinguishes a process from its copies, which `fork` and machine snapshots make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Origin {
    pid: u32,
    fork: Option<u64>,
}

impl Origin {
    fn now() -> Self {
        Self {
            pid: std::process::id(),
            fork: memory::fork_count(),
        }
    }
}

impl Me {
    fn new() -> Self {
        Self {
            id: ProcessId::random(),
            origin: Origin::now(),
            registered: false,
            acknowledged: None,
            failures: 0,
            told: None,
        }
    }
}

impl Registration {
    pub(crate) fn new(is_on: bool, name: Option<String>, limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            is_on,
            running: RunsIn::default(),
            name,
            serves_for: limits.serves_for(),
            me: Mutex::new(Me {
                told: Some(ProcessCounts::new()),
                ..Me::new()
            }),
            hinted: Notify::new(),
            introduced: watch::Sender::new(0),
        })
    }

    /// Waits, up to a limit, until this process is registered: a caller that waits for all processes must not overlook
    /// one that holds a key.
    pub(super) async fn introduced(&self, clock: &dyn Clock) {
        let me = std::process::id();
        if !self.is_on || *self.introduced.borrow() == me {
            return;
        }
        let mut introduced = self.introduced.subscribe();
        tokio::select! {
            _ = introduced.wait_for(|process| *process == me) => {}
            // Waiting once is enough: a registry that does not answer stops nothing.
            () = clock.sleep(INTRODUCTION) => self.note_introduced(),
        }
    }

    pub(super) fn note_introduced(&self) {
        self.introduced.send_replace(std::process::id());
    }

    /// Makes the heartbeat ask for the fence now.
    pub(crate) fn wake(&self) {
        self.hinted.notify_one();
    }

    /// Describes this process for the registry. A copy of a process gets a new id.
    pub(super) fn introduce(&self) -> (ProcessInfo, Option<Fence>) {
        let mut me = self.me();
        if me.origin != Origin::now() {
            *me = Me::new();
        }
        // Before the call: the key store may receive it although the answer is lost.
        me.registered = true;
        let name = self.name.clone().unwrap_or_else(|| default_name(me.origin.pid));
        let info = ProcessInfo::new(me.id, name, self.serves_for).with_version(env!("CARGO_PKG_VERSION"));
        (info, me.acknowledged)
    }

    pub(super) fn note_acknowledged(&self, id: ProcessId, fence: Fence) {
        let mut me = self.me();
        if me.id == id {
            me.acknowledged = Some(fence);
        }
    }

    /// Returns how much counts have grown since the last report.
    pub(super) fn untold(&self, counts: &ProcessCounts) -> ProcessCounts {
        let mut me = self.me();
        growth(me.told.get_or_insert_with(|| counts.clone()), counts)
    }

    /// Records that all these counts were reported.
    pub(super) fn note_told(&self, id: ProcessId, counts: ProcessCounts) {
        let mut me = self.me();
        if me.id == id {
            me.told = Some(counts);
        }
    }

    /// Counts failures in a row: only the first is logged as a warning.
    pub(super) fn note_outcome(&self, outcome: &Result<(), Error>) {
        let failures = {
            let mut me = self.me();
            me.failures = match outcome {
                Ok(()) => 0,
                Err(_) => me.failures.saturating_add(1),
            };
            me.failures
        };
        let Err(error) = outcome else { return };
        if failures == 1 {
            tracing::warn!(
                target: "encx::processes", %error,
                "registering this process in the key store failed; a wait for all processes does not include this one"
            );
        } else {
            tracing::debug!(target: "encx::processes", %error, "registering this process in the key store still fails");
        }
    }

    /// Returns the id under which the key store may know this process, and forgets it.
    pub(super) fn resign(&self) -> Option<ProcessId> {
        let mut me = self.me();
        // The original of a copy still runs; the copy must not deregister it.
        let registered = std::mem::take(&mut me.registered) && me.origin == Origin::now();
        registered.then_some(me.id)
    }

    /// Tells whether the key store may know this process.
    pub(super) fn is_registered(&self) -> bool {
        self.me().registered
    }

    fn me(&self) -> MutexGuard<'_, Me> {
        self.me.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names a process after its program and its number, such as `billing-4711`.
fn default_name(pid: u32) -> String {
    let program = std::env::args_os().next().map(std::path::PathBuf::from);
    let program = program.as_ref().and_then(|program| program.file_stem());
    let program = program.map(|program| program.to_string_lossy().into_owned());
    let program = program.unwrap_or_default();
    // At most 4 bytes each.
    let printable = program.chars().filter(|letter| !letter.is_control());
    let short: String = printable.take(40).collect();
    format!("{short}-{pid}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            ttl: Duration::from_secs(3600),
            refresh_ahead: 0.1,
            stale_encrypt: Duration::ZERO,
            stale_decrypt: Duration::from_secs(60),
            state_ttl: Duration::from_secs(60),
            max_keyrings: 1,
            load_timeout: Duration::from_secs(30),
            fail_closed_on_stale_state: false,
            create_on_first_use: true,
            accept_compromised: false,
            suite: encx_suite::SuiteOptions::default(),
        }
    }

    #[test]
    fn a_copy_of_a_process_is_another_one_and_does_not_sign_the_first_off() {
        let registration = Registration::new(true, Some("billing".to_owned()), &limits());
        let (first, _) = registration.introduce();
        assert_eq!(first.serves_for, Duration::from_secs(3660));
        registration.note_acknowledged(first.id, Fence::new(3));
        assert_eq!(registration.introduce(), (first.clone(), Some(Fence::new(3))));
        // As after `fork`, or after `reseed` in a cloned machine.
        let others: [fn(&mut Origin); 2] = [
            |origin| origin.pid ^= 1,
            |origin| origin.fork = origin.fork.map(|fork| fork ^ 1),
        ];
        for become_another in others {
            become_another(&mut registration.me().origin);
            assert_eq!(registration.resign(), None);
            let (copy, acknowledged) = registration.introduce();
            assert_ne!(copy.id, first.id);
            assert_eq!(acknowledged, None);
            // An acknowledgement in flight for the original does not count for the copy.
            registration.note_acknowledged(first.id, Fence::new(4));
            assert_eq!(registration.introduce(), (copy.clone(), None));
            assert_eq!(registration.resign(), Some(copy.id));
            assert_eq!(registration.resign(), None);
        }
    }

    #[test]
    fn what_was_told_is_not_told_again_nor_by_a_copy() {
        use encx_core::store::Counted::{Encrypts, Hits};

        let counts = |encrypts, hits| {
            let mut counts = ProcessCounts::new();
            counts.add(Encrypts, encrypts);
            counts.add(Hits, hits);
            counts
        };
        let registration = Registration::new(true, None, &limits());
        let (me, _) = registration.introduce();
        assert_eq!(registration.untold(&counts(3, 2)), counts(3, 2));
        // The report failed, and the counts grow further.
        assert_eq!(registration.untold(&counts(4, 2)), counts(4, 2));
        registration.note_told(me.id, counts(4, 2));
        assert_eq!(registration.untold(&counts(4, 5)), counts(0, 3));
        assert!(registration.untold(&counts(4, 2)).is_empty());
        // A copy of the process has all these counts, but has done no work yet.
        registration.me().origin.pid ^= 1;
        let (copy, _) = registration.introduce();
        assert!(registration.untold(&counts(4, 5)).is_empty());
        assert_eq!(registration.untold(&counts(6, 5)), counts(2, 0));
        registration.note_told(me.id, counts(9, 9));
        registration.note_told(copy.id, counts(6, 5));
        assert_eq!(registration.untold(&counts(7, 5)), counts(1, 0));
    }

    #[test]
    fn the_first_keys_wait_for_the_first_heartbeat_and_not_for_long() {
        use std::pin::pin;
        use std::task::{Context, Poll, Waker};

        let mut context = Context::from_waker(Waker::noop());
        let clock = encx_testkit::ManualClock::new();
        let registration = Registration::new(true, None, &limits());
        let mut waiting = pin!(registration.introduced(&clock));
        assert_eq!(waiting.as_mut().poll(&mut context), Poll::Pending);
        registration.note_introduced();
        assert_eq!(waiting.as_mut().poll(&mut context), Poll::Ready(()));
        // After a fork it is another process, which is not registered yet.
        registration.introduced.send_modify(|process| *process ^= 1);
        let mut waiting = pin!(registration.introduced(&clock));
        assert_eq!(waiting.as_mut().poll(&mut context), Poll::Pending);
        clock.advance(INTRODUCTION);
        assert_eq!(waiting.as_mut().poll(&mut context), Poll::Ready(()));
        // Waiting once is enough.
        assert_eq!(
            pin!(registration.introduced(&clock)).poll(&mut context),
            Poll::Ready(())
        );
        let nowhere = Registration::new(false, None, &limits());
        assert_eq!(
            pin!(nowhere.introduced(&clock)).poll(&mut context),
            Poll::Ready(())
        );
    }

    #[test]
    fn a_process_has_a_name_that_the_registry_takes() {
        let name = default_name(u32::MAX);
        assert!(name.ends_with("-4294967295") && name.len() > 11, "{name}");
        assert!(
            name.len() <= MAX_NAME_LEN && !name.contains(char::is_control),
            "{name}"
        );
    }
}

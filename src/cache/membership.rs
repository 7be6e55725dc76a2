//! What a process tells the others through the key store: that it is there, and which changes it has followed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use crate::cache::background::{Running, RunsIn};
use crate::cache::{Cache, Limits, prefetch};
use crate::clock::Clock;
use crate::error::Error;
use crate::memory;
use crate::store::{Coordination, Fence, ProcessId, ProcessInfo, StoreError};

/// How often a process says that it is there, unless a fence is raised.
const BETWEEN_HEARTBEATS: Duration = Duration::from_secs(10);

/// How long the first who need a key wait for the key store to know that this process is there.
const INTRODUCTION: Duration = Duration::from_secs(2);

/// How long after a heartbeat that was hinted at the next may be. Whoever can notify can hint as often as they like, and each
/// heartbeat of each process is a write.
const BETWEEN_HINTED: Duration = Duration::from_millis(250);

/// How long a process that ends waits for the key store to hear of it.
const FAREWELL: Duration = Duration::from_secs(5);

/// The most bytes of a process's name.
pub(crate) const MAX_NAME_LEN: usize = 200;

/// This process, as the others know it.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// Whether the key store has a registry of processes.
    is_on: bool,
    running: RunsIn,
    name: Option<String>,
    serves_for: Duration,
    me: Mutex<Me>,
    /// Somebody said that the fence was raised, or that it may have been.
    hinted: Notify,
    /// Which process has told the key store that it is there, or has waited long enough to; 0 for none.
    introduced: watch::Sender<u32>,
}

#[derive(Clone, Debug)]
struct Me {
    id: ProcessId,
    origin: Origin,
    /// Whether the key store may know of this id.
    registered: bool,
    acknowledged: Option<Fence>,
    /// How often in a row the key store could not be told.
    failures: u32,
}

/// Tells a process from its copies, as `fork` makes them and as snapshots of machines do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Origin {
    pid: u32,
    generation: Option<u64>,
}

impl Origin {
    fn now() -> Self {
        Self {
            pid: std::process::id(),
            generation: memory::generation(),
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
        }
    }
}

impl Fleet {
    pub(crate) fn new(is_on: bool, name: Option<String>, limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            is_on,
            running: RunsIn::default(),
            name,
            serves_for: limits.serves_for(),
            me: Mutex::new(Me::new()),
            hinted: Notify::new(),
            introduced: watch::Sender::new(0),
        })
    }

    /// Starts to take part if the key store has a registry and this does not run already.
    pub(super) fn ensure_running(&self, cache: &Arc<Cache>) -> Result<(), Error> {
        if self.is_on
            && let Some(running) = Running::claim(&self.running)
        {
            let cache = Arc::downgrade(cache);
            cache.upgrade().ok_or(Error::ShutDown)?.tasks.spawn(async move {
                let _running = running;
                beat_forever(cache).await;
            })?;
        }
        Ok(())
    }

    /// Waits, not for long, until the key store was told that this process is there: whoever waits for all processes must
    /// not overlook one that holds a key.
    pub(super) async fn introduced(&self, clock: &dyn Clock) {
        let me = std::process::id();
        if !self.is_on || *self.introduced.borrow() == me {
            return;
        }
        let mut introduced = self.introduced.subscribe();
        tokio::select! {
            _ = introduced.wait_for(|process| *process == me) => {}
            // Once is enough: a registry that does not answer stops nothing.
            () = clock.sleep(INTRODUCTION) => self.note_introduced(),
        }
    }

    fn note_introduced(&self) {
        self.introduced.send_replace(std::process::id());
    }

    /// Has the key store asked for the fence now.
    pub(crate) fn wake(&self) {
        self.hinted.notify_one();
    }

    /// Says who this process is; a copy of a process is another one.
    fn introduce(&self) -> (ProcessInfo, Option<Fence>) {
        let mut me = self.me();
        if me.origin != Origin::now() {
            *me = Me::new();
        }
        // Before the key store is told: it may hear it and its answer get lost.
        me.registered = true;
        let name = self.name.clone().unwrap_or_else(|| default_name(me.origin.pid));
        (ProcessInfo::new(me.id, name, self.serves_for), me.acknowledged)
    }

    fn note_acknowledged(&self, id: ProcessId, fence: Fence) {
        let mut me = self.me();
        if me.id == id {
            me.acknowledged = Some(fence);
        }
    }

    /// Counts failures in a row: the first is worth a warning, what follows says the same.
    fn note_outcome(&self, outcome: &Result<(), Error>) {
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
                target: "encx::fleet", %error,
                "the key store could not be told that this process is there; whoever waits for all processes does not wait for this one"
            );
        } else {
            tracing::debug!(target: "encx::fleet", %error, "the key store could still not be told");
        }
    }

    /// Returns the id under which the key store may know this process, and from now on does not.
    fn resign(&self) -> Option<ProcessId> {
        let mut me = self.me();
        // The original of a copy lives on, and is not for the copy to sign off.
        let registered = std::mem::take(&mut me.registered) && me.origin == Origin::now();
        registered.then_some(me.id)
    }

    fn me(&self) -> MutexGuard<'_, Me> {
        self.me.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    /// Has the key store forget this process, which holds no key any more.
    pub(super) async fn leave(&self) {
        let Some((coordination, id)) = self.store.coordination().zip(self.fleet.resign()) else {
            return;
        };
        let left = tokio::select! {
            left = coordination.deregister(id) => left.map_err(Error::from),
            () = self.clock.sleep(FAREWELL) => Err(Error::TimedOut { after: FAREWELL }),
        };
        if let Err(error) = left {
            tracing::debug!(target: "encx::fleet", %error, "the key store could not be told that this process ends");
        }
    }

    /// The same where nobody waits, as far as there is a runtime.
    pub(super) fn leave_soon(self: &Arc<Self>) {
        let is_known = self.fleet.me().registered;
        if let Some(runtime) = Handle::try_current().ok().filter(|_| is_known) {
            let cache = Arc::clone(self);
            runtime.spawn(async move {
                // A heartbeat that is under way must not come after.
                cache.tasks.ended().await;
                cache.leave().await;
            });
        }
    }
}

async fn beat_forever(cache: Weak<Cache>) {
    let mut hinted = false;
    loop {
        let Some(strong) = cache.upgrade() else { return };
        let outcome = beat(&strong).await;
        if let Err(Error::ShutDown | Error::NoRuntime) = outcome {
            return;
        }
        strong.fleet.note_outcome(&outcome);
        let fleet = Arc::clone(&strong.fleet);
        let longest = BETWEEN_HEARTBEATS.min(strong.limits.state_ttl / 2);
        // As for polls: a fleet that started together does not stay together.
        let sleep = strong
            .clock
            .sleep(longest.mul_f64(1.0 - 0.1 * rand::random::<f64>()));
        let pause = hinted.then(|| strong.clock.sleep(BETWEEN_HINTED));
        drop(strong);
        // A hint that comes meanwhile is kept.
        let hint = async {
            if let Some(pause) = pause {
                pause.await;
            }
            fleet.hinted.notified().await;
        };
        hinted = tokio::select! {
            () = sleep => false,
            () = hint => true,
        };
    }
}

/// Says that this process is there, and if the fence was raised follows all changes and acknowledges it.
async fn beat(cache: &Arc<Cache>) -> Result<(), Error> {
    let Some(coordination) = cache.store.coordination() else {
        return Ok(());
    };
    let (info, acknowledged) = cache.fleet.introduce();
    let told = in_time(cache, coordination.heartbeat(&info)).await;
    // Also if that failed: it is tried again, and no load waits for it.
    cache.fleet.note_introduced();
    let fence = told?;
    // Equal, and not greater: a database that was restored counts anew.
    if fence == Fence::NONE || acknowledged == Some(fence) {
        return Ok(());
    }
    let learned = cache.tick();
    if !cache.background.poll_since(cache, learned).await? {
        // The poll itself has said why.
        return Ok(());
    }
    // Whoever raised the fence may be about to promote what it published.
    prefetch::load_now(cache).await;
    acknowledge(cache, coordination, info.id, fence).await
}

async fn acknowledge(
    cache: &Cache,
    coordination: &dyn Coordination,
    id: ProcessId,
    fence: Fence,
) -> Result<(), Error> {
    in_time(cache, coordination.acknowledge(id, fence)).await?;
    cache.fleet.note_acknowledged(id, fence);
    Ok(())
}

/// A key store that hangs stops nothing for good.
async fn in_time<T>(cache: &Cache, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, Error> {
    let after = cache.limits.load_timeout;
    tokio::select! {
        done = call => Ok(done?),
        () = cache.clock.sleep(after) => Err(Error::TimedOut { after }),
    }
}

/// Names a process after its program and its number, such as `billing-4711`.
fn default_name(pid: u32) -> String {
    let program = std::env::args_os().next().map(std::path::PathBuf::from);
    let program = program.as_ref().and_then(|program| program.file_stem());
    let program = program.map(|program| program.to_string_lossy().into_owned());
    let program = program.unwrap_or_default();
    // Of at most 4 bytes each.
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
        }
    }

    #[test]
    fn a_copy_of_a_process_is_another_one_and_does_not_sign_the_first_off() {
        let fleet = Fleet::new(true, Some("billing".to_owned()), &limits());
        let (first, _) = fleet.introduce();
        assert_eq!(first.serves_for, Duration::from_secs(3660));
        fleet.note_acknowledged(first.id, Fence::new(3));
        assert_eq!(fleet.introduce(), (first.clone(), Some(Fence::new(3))));
        // As after `fork`, or `reseed` in a machine that was cloned.
        let others: [fn(&mut Origin); 2] = [
            |origin| origin.pid ^= 1,
            |origin| origin.generation = origin.generation.map(|generation| generation ^ 1),
        ];
        for become_another in others {
            become_another(&mut fleet.me().origin);
            assert_eq!(fleet.resign(), None);
            let (copy, acknowledged) = fleet.introduce();
            assert_ne!(copy.id, first.id);
            assert_eq!(acknowledged, None);
            // What was under way for the first says nothing of the copy.
            fleet.note_acknowledged(first.id, Fence::new(4));
            assert_eq!(fleet.introduce(), (copy.clone(), None));
            assert_eq!(fleet.resign(), Some(copy.id));
            assert_eq!(fleet.resign(), None);
        }
    }

    #[test]
    fn the_first_keys_wait_for_the_first_heartbeat_and_not_for_long() {
        use std::pin::pin;
        use std::task::{Context, Poll, Waker};

        let mut context = Context::from_waker(Waker::noop());
        let clock = encx_testkit::ManualClock::new();
        let fleet = Fleet::new(true, None, &limits());
        let mut waiting = pin!(fleet.introduced(&clock));
        assert_eq!(waiting.as_mut().poll(&mut context), Poll::Pending);
        fleet.note_introduced();
        assert_eq!(waiting.as_mut().poll(&mut context), Poll::Ready(()));
        // After a fork it is another process that nobody knows yet.
        fleet.introduced.send_modify(|process| *process ^= 1);
        let mut waiting = pin!(fleet.introduced(&clock));
        assert_eq!(waiting.as_mut().poll(&mut context), Poll::Pending);
        clock.advance(INTRODUCTION);
        assert_eq!(waiting.as_mut().poll(&mut context), Poll::Ready(()));
        // Once is enough.
        assert_eq!(pin!(fleet.introduced(&clock)).poll(&mut context), Poll::Ready(()));
        let nowhere = Fleet::new(false, None, &limits());
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

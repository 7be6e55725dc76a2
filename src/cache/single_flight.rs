//! Single flight: work that many callers wait for and that none of them owns.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::error::Error;

/// Starts tasks that end when the cache is closed, and tells when all have ended.
#[derive(Clone, Debug)]
pub(crate) struct Tasks(Arc<TasksInner>);

#[derive(Debug)]
struct TasksInner {
    closed: watch::Sender<bool>,
    running: watch::Sender<Running>,
}

/// The number of running tasks of a process. Tasks of the process from which it was forked do not count.
#[derive(Clone, Copy, Debug)]
struct Running {
    process: u32,
    tasks: usize,
}

impl Running {
    fn now(self) -> usize {
        if self.process == std::process::id() {
            self.tasks
        } else {
            0
        }
    }

    fn set(&mut self, tasks: usize) {
        *self = Self {
            process: std::process::id(),
            tasks,
        };
    }
}

impl Tasks {
    pub(crate) fn new() -> Self {
        let inner = TasksInner {
            closed: watch::Sender::new(false),
            running: watch::Sender::new(Running {
                process: std::process::id(),
                tasks: 0,
            }),
        };
        Self(Arc::new(inner))
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.0.closed.borrow()
    }

    /// Tells every task to end, and starts no more.
    pub(crate) fn close(&self) {
        self.0.closed.send_replace(true);
    }

    /// Completes once all tasks have ended.
    pub(crate) async fn ended(&self) {
        // `self` owns the sender, so the channel is open and waiting cannot fail.
        let mut running = self.0.running.subscribe();
        let _ = running.wait_for(|running| running.now() == 0).await;
    }

    /// Starts a task on the caller's runtime. Closing the cache drops it.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
        self.spawn_on(&runtime, work)
    }

    fn spawn_on(
        &self,
        runtime: &Handle,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Error> {
        // Counted before `closed` is checked: either the closing call waits for this task, or this task sees the close.
        let count = RunningTask::new(&self.0.running);
        if self.is_closed() {
            return Err(Error::ShutDown);
        }
        let mut closed = self.0.closed.subscribe();
        // Boxed separately from the task, which tokio aligns to 128 bytes: for a future of 4 KiB that leaves gaps in
        // memory, 1.6 KB for each keyring.
        let work = Box::pin(work);
        runtime.spawn(async move {
            let _count = count;
            tokio::select! {
                biased;
                _ = closed.wait_for(|closed| *closed) => {}
                () = work => {}
            }
        });
        Ok(())
    }
}

/// Counts a task for as long as it exists, even if its runtime drops it.
struct RunningTask {
    running: watch::Sender<Running>,
    process: u32,
}

impl RunningTask {
    fn new(running: &watch::Sender<Running>) -> Self {
        running.send_modify(|running| running.set(running.now() + 1));
        Self {
            running: running.clone(),
            process: std::process::id(),
        }
    }
}

impl Drop for RunningTask {
    fn drop(&mut self) {
        // Not in a child process that drops its copy of the parent's tasks.
        if self.process == std::process::id() {
            self.running
                .send_modify(|running| running.set(running.now().saturating_sub(1)));
        }
    }
}

type Landing<V> = watch::Receiver<Option<Result<V, Error>>>;

/// The flights, and the processes that they run in: a forked process has the map but not the tasks.
type UnderWay<K, V> = Mutex<HashMap<K, (u32, Landing<V>)>>;

/// The flights of one kind, by what they fetch.
#[derive(Debug)]
pub(crate) struct Flights<K, V> {
    under_way: Arc<UnderWay<K, V>>,
    tasks: Tasks,
    timeout: Duration,
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new(tasks: &Tasks, timeout: Duration) -> Self {
        Self {
            under_way: Arc::default(),
            tasks: tasks.clone(),
            timeout,
        }
    }

    /// Joins the flight for `key`, or starts `work` as one. Errors are shared with the waiting callers, and not kept.
    ///
    /// The work runs in a separate task, so cancelling a caller does not cancel it.
    pub(crate) async fn join(
        &self,
        key: K,
        clock: &Arc<dyn Clock>,
        work: impl Future<Output = Result<V, Error>> + Send + 'static,
    ) -> Result<V, Error> {
        let mut landing = self.board(key, clock, work)?;
        let landed = landing.wait_for(Option::is_some).await;
        match landed.as_deref() {
            Ok(Some(result)) => result.clone(),
            // The task ended without a result.
            _ if self.tasks.is_closed() => Err(Error::ShutDown),
            _ => Err(Error::Interrupted),
        }
    }

    fn board(
        &self,
        key: K,
        clock: &Arc<dyn Clock>,
        work: impl Future<Output = Result<V, Error>> + Send + 'static,
    ) -> Result<Landing<V>, Error> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let process = std::process::id();
        if let Some((of, landing)) = under_way.get(&key)
            && *of == process
        {
            return Ok(landing.clone());
        }
        // Checked before any caller can join: a flight that cannot start would strand them.
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let (land, landing) = watch::channel(None);
        // In the map before the task starts, so that its end finds it there.
        under_way.insert(key.clone(), (process, landing.clone()));
        drop(under_way);
        let departed = Departed {
            under_way: Arc::clone(&self.under_way),
            key,
            process,
        };
        let (after, clock) = (self.timeout, Arc::clone(clock));
        self.tasks.spawn_on(&runtime, async move {
            // Created in the task: a tokio timer panics without a runtime.
            let timeout = clock.sleep(after);
            let result = tokio::select! {
                result = work => result,
                () = timeout => Err(Error::TimedOut { after }),
            };
            // Removed from the map first: later callers must see the result, or start anew.
            drop(departed);
            land.send_replace(Some(result));
        })?;
        Ok(landing)
    }
}

/// Removes a flight from the map, however it ended.
struct Departed<K: Eq + Hash, V> {
    under_way: Arc<UnderWay<K, V>>,
    key: K,
    process: u32,
}

impl<K: Eq + Hash, V> Drop for Departed<K, V> {
    fn drop(&mut self) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let is_own = under_way
            .get(&self.key)
            .is_some_and(|(of, _)| *of == self.process);
        let landing = is_own.then(|| under_way.remove(&self.key));
        // In this order, so that a caller woken by the channel's end finds no lock.
        drop(under_way);
        drop(landing);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::SystemClock;

    const SECOND: Duration = Duration::from_secs(1);

    /// A child has its parent's memory, but none of its tasks.
    #[tokio::test]
    async fn what_was_under_way_when_the_process_was_forked_is_begun_anew() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let tasks = Tasks::new();
        let flights = Flights::<u8, u8>::new(&tasks, SECOND);
        let (_never_lands, landing) = watch::channel(None);
        let parent = std::process::id() + 1;
        flights.under_way.lock().unwrap().insert(7, (parent, landing));
        tasks.0.running.send_replace(Running {
            process: parent,
            tasks: 3,
        });
        tokio::time::timeout(SECOND, tasks.ended()).await.unwrap();
        let joined = flights.join(7, &clock, async { Ok(42) });
        assert_eq!(tokio::time::timeout(SECOND, joined).await.unwrap().unwrap(), 42);
        tokio::time::timeout(SECOND, tasks.ended()).await.unwrap();

        // Dropping the copies of the parent's tasks ends none of the child's own.
        let (land, landed) = tokio::sync::oneshot::channel();
        let joined = flights.join(7, &clock, async { landed.await.map_err(|_| Error::Interrupted) });
        let mut joined = std::pin::pin!(joined);
        let mut waiting = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(joined.as_mut().poll(&mut waiting).is_pending());
        drop(RunningTask {
            running: tasks.0.running.clone(),
            process: parent,
        });
        drop(Departed {
            under_way: Arc::clone(&flights.under_way),
            key: 7,
            process: parent,
        });
        assert_eq!(tasks.0.running.borrow().now(), 1);
        assert!(flights.under_way.lock().unwrap().contains_key(&7));
        land.send(43).unwrap();
        assert_eq!(joined.await.unwrap(), 43);
    }
}

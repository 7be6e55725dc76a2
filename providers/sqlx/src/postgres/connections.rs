//! The store's own connections: few, made when they are needed, and an error that says why if they cannot be made.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use encx_core::store::StoreError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{Connection, Postgres};
use tokio::time::{Instant, sleep, timeout};

use super::error::{NotConnected, Place, store_error};

/// How many connections a store that was made from a URL keeps at most: a process asks it rarely.
const CONNECTIONS: u32 = 5;

/// How many connections a store keeps at most besides those of the caller's pool.
const BESIDES: u32 = 2;

/// How long a call waits for a connection to become free.
const ACQUIRE: Duration = Duration::from_secs(10);

/// How long connecting may take.
pub(super) const CONNECT: Duration = Duration::from_secs(5);

/// How long a call waits for a connection before it asks whether any can be made.
const PATIENCE: Duration = Duration::from_millis(300);

/// How long the answer to that question serves all calls.
const FRESH: Duration = Duration::from_millis(500);

/// The connections of a store. Clones share them.
#[derive(Clone)]
pub(super) struct Connections(Arc<Inner>);

struct Inner {
    /// The caller's pool, whose settings ours takes over.
    theirs: Option<PgPool>,
    own: OnceLock<PgPool>,
    /// The caller's options as ours has them: a caller may change a password while the service runs.
    taken_over: Mutex<Option<Arc<PgConnectOptions>>>,
    /// Whether a connection could be made when that was last tried, for all calls that wait.
    tried: tokio::sync::Mutex<Option<Tried>>,
}

/// Whether a connection could be made with these options, and when that was found out.
struct Tried {
    options: Arc<PgConnectOptions>,
    at: Instant,
    outcome: Result<(), NotConnected>,
}

impl Connections {
    /// Connects to a database at once, to say what is wrong with the options.
    pub(super) async fn connect(options: PgConnectOptions) -> Result<Self, StoreError> {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE)
            .connect_lazy_with(options);
        let connections = Self::new(None, OnceLock::from(pool));
        connections.acquire().await?;
        Ok(connections)
    }

    /// Makes connections of its own beside those of a pool.
    ///
    /// The caller may hold all of that pool's connections in transactions, each of which waits for the store.
    pub(super) fn beside(theirs: PgPool) -> Self {
        Self::new(Some(theirs), OnceLock::new())
    }

    fn new(theirs: Option<PgPool>, own: OnceLock<PgPool>) -> Self {
        Self(Arc::new(Inner {
            theirs,
            own,
            taken_over: Mutex::default(),
            tried: tokio::sync::Mutex::default(),
        }))
    }

    /// Returns how many connections are open.
    pub(super) fn len(&self) -> u32 {
        self.0.own.get().map_or(0, PgPool::size)
    }

    /// Returns where the database is.
    pub(super) fn place(&self) -> Place {
        let pool = self.0.theirs.as_ref().or_else(|| self.0.own.get());
        pool.map_or(Place::default(), |pool| Place::of(&pool.connect_options()))
    }

    /// Takes a free connection, or makes one.
    pub(super) async fn acquire(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        let pool = self.pool().await?;
        let options = pool.connect_options();
        // The driver's pool tries again while a connection is refused, and then says no more than that time is up.
        let mut cause = None;
        let outage = async {
            loop {
                sleep(PATIENCE).await;
                cause = match self.try_to_connect(&options).await {
                    Ok(()) => None,
                    Err(error) if error.may_end_soon() => Some(error),
                    Err(error) => return error,
                };
            }
        };
        let acquired = tokio::select! {
            biased;
            acquired = pool.acquire() => acquired,
            outage = outage => return Err(outage.into()),
        };
        acquired.map_err(|error| match (error, cause) {
            (sqlx::Error::PoolTimedOut, Some(cause)) => cause.into(),
            (sqlx::Error::PoolTimedOut, None) => StoreError::unavailable(AllInUse {
                place: Place::of(&options),
                connections: pool.options().get_max_connections(),
                waited: pool.options().get_acquire_timeout(),
            }),
            (sqlx::Error::PoolClosed, _) => store_error(sqlx::Error::PoolClosed),
            (error, _) => NotConnected::new(&options, error).into(),
        })
    }

    /// Returns the pool of the store's own, which has the settings of the caller's.
    async fn pool(&self) -> Result<&PgPool, StoreError> {
        let Some(theirs) = &self.0.theirs else {
            return self
                .0
                .own
                .get()
                .ok_or_else(|| store_error(sqlx::Error::PoolClosed));
        };
        let current = theirs.connect_options();
        // Made by the first call, because a pool needs a runtime and `from_pool` does not.
        let own = self.0.own.get_or_init(|| {
            // Their hooks too: one may choose the role that has rights on the tables.
            let settings = theirs.options().clone();
            let connections = BESIDES.min(settings.get_max_connections());
            let acquire = ACQUIRE.min(settings.get_acquire_timeout());
            let own = settings
                .max_connections(connections)
                .min_connections(0)
                .acquire_timeout(acquire)
                .connect_lazy_with((*current).clone());
            self.close_with(theirs);
            own
        });
        let taken_over = self.0.taken_over.lock();
        let mut taken_over = taken_over.unwrap_or_else(PoisonError::into_inner);
        if !taken_over
            .as_ref()
            .is_some_and(|taken| Arc::ptr_eq(taken, &current))
        {
            own.set_connect_options((*current).clone());
            *taken_over = Some(current);
        }
        Ok(own)
    }

    /// Has the store's own connections closed when the caller closes its pool.
    fn close_with(&self, theirs: &PgPool) {
        let (closed, inner) = (theirs.close_event(), Arc::downgrade(&self.0));
        tokio::spawn(async move {
            closed.await;
            if let Some(own) = inner.upgrade().and_then(|inner| inner.own.get().cloned()) {
                own.close().await;
            }
        });
    }

    /// Tries whether a connection can be made: one call does so for all that wait with the same options.
    async fn try_to_connect(&self, options: &Arc<PgConnectOptions>) -> Result<(), NotConnected> {
        let mut last = self.0.tried.lock().await;
        if let Some(tried) = &*last
            && tried.at.elapsed() < FRESH
            // An old password's failure says nothing about the new one.
            && Arc::ptr_eq(&tried.options, options)
        {
            return tried.outcome.clone();
        }
        let outcome = connect_once(options).await;
        *last = Some(Tried {
            options: Arc::clone(options),
            at: Instant::now(),
            outcome: outcome.clone(),
        });
        outcome
    }
}

/// Makes one connection and closes it.
pub(super) async fn connect_once(options: &PgConnectOptions) -> Result<(), NotConnected> {
    let connecting = async {
        let connection = PgConnection::connect_with(options).await?;
        // It was made, which is what was asked.
        let _ = connection.close().await;
        Ok(())
    };
    match timeout(CONNECT, connecting).await {
        Ok(outcome) => outcome.map_err(|error| NotConnected::new(options, error)),
        Err(_) => Err(NotConnected::silent(options, CONNECT)),
    }
}

/// Says that the database may be well, and that this process asks too much of the few connections that the store has.
#[derive(Debug, thiserror::Error)]
#[error("all {connections} connections of the key store to PostgreSQL at {place} were in use for {waited:?}")]
struct AllInUse {
    place: Place,
    connections: u32,
    waited: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A healthy server whose answer is not why a call waits: the error says that the connections are in use.
    #[test]
    fn connections_that_are_all_in_use_are_told_from_an_outage() {
        encx_testkit::block_on(async {
            let url = std::env::var("ENCX_TEST_POSTGRES_URL")
                .expect("run ./scripts/test, which starts a server for the tests");
            let theirs = PgPoolOptions::new()
                .acquire_timeout(Duration::from_secs(2))
                .connect_lazy(&url)
                .unwrap();
            let connections = Connections::beside(theirs);
            let taken = [
                connections.acquire().await.unwrap(),
                connections.acquire().await.unwrap(),
            ];
            let error = connections.acquire().await.unwrap_err();
            assert!(
                error.is_retryable() && error.to_string().contains("in use"),
                "{error}"
            );
            let waiting = connections.clone();
            let waiting = tokio::spawn(async move { waiting.acquire().await.map(drop) });
            drop(taken);
            waiting.await.unwrap().unwrap();
        });
    }

    /// As when a password is replaced: what the old options met within the last half second is not told of the new ones.
    #[test]
    fn a_failure_is_remembered_for_its_options_only() {
        encx_testkit::block_on(async {
            let url = std::env::var("ENCX_TEST_POSTGRES_URL")
                .expect("run ./scripts/test, which starts a server for the tests");
            let theirs = PgPool::connect_lazy(&url).unwrap();
            let right = theirs.connect_options();
            let wrong = Arc::new((*right).clone().database("encx_no_such_database"));
            let connections = Connections::beside(theirs);
            // A busy machine may take longer once than an outcome is remembered.
            for _ in 0..3 {
                connections.try_to_connect(&wrong).await.unwrap_err();
                connections.try_to_connect(&right).await.unwrap();
            }
        });
    }
}

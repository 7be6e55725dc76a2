//! The store's own connections: few, made when needed, with an error that says why connecting failed.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use encx_core::store::StoreError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{Connection, Postgres};
use tokio::time::{Instant, sleep, timeout};

use super::error::{NotConnected, Place, store_error};

/// The most connections of a store made from a URL. Few, because a process rarely calls it.
const CONNECTIONS: u32 = 5;

/// The most connections of a store beside those of the caller's pool.
const BESIDES: u32 = 2;

/// How long a call waits for a free connection.
const ACQUIRE: Duration = Duration::from_secs(10);

/// How long connecting may take.
pub(super) const CONNECT: Duration = Duration::from_secs(5);

/// How long a call waits for a connection before it checks whether one can be made.
const PATIENCE: Duration = Duration::from_millis(300);

/// How long the result of that check is shared by all calls.
const FRESH: Duration = Duration::from_millis(500);

/// The connections of a store. Clones share them.
#[derive(Clone)]
pub(super) struct Connections(Arc<Inner>);

struct Inner {
    /// The caller's pool, whose settings ours copies.
    theirs: Option<PgPool>,
    own: OnceLock<PgPool>,
    /// The caller's options as ours has them: a caller may change a password at run time.
    taken_over: Mutex<Option<Arc<PgConnectOptions>>>,
    /// The last check whether a connection can be made, shared by all waiting calls.
    tried: tokio::sync::Mutex<Option<Tried>>,
}

/// The result of a check with these options, and its time.
struct Tried {
    options: Arc<PgConnectOptions>,
    at: Instant,
    outcome: Result<(), NotConnected>,
}

impl Connections {
    /// Connects to a database immediately, to report errors in the options.
    pub(super) async fn connect(options: PgConnectOptions) -> Result<Self, StoreError> {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE)
            .connect_lazy_with(options);
        let connections = Self::new(None, OnceLock::from(pool));
        connections.acquire().await?;
        Ok(connections)
    }

    /// Makes separate connections beside those of a pool.
    ///
    /// The caller may hold all of that pool's connections in transactions that wait for the store.
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

    /// Returns the number of open connections.
    pub(super) fn len(&self) -> u32 {
        self.0.own.get().map_or(0, PgPool::size)
    }

    /// Returns the address of the database.
    pub(super) fn place(&self) -> Place {
        let pool = self.0.theirs.as_ref().or_else(|| self.0.own.get());
        pool.map_or(Place::default(), |pool| Place::of(&pool.connect_options()))
    }

    /// Acquires a free connection, or makes one.
    pub(super) async fn acquire(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        let pool = self.pool().await?;
        let options = pool.connect_options();
        // The driver's pool retries while connections are refused, and then only reports a time-out.
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

    /// Returns the store's own pool, with the settings of the caller's.
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
            // Including hooks: one may set the role with rights on the tables.
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

    /// Closes the store's own connections when the caller closes its pool.
    fn close_with(&self, theirs: &PgPool) {
        let (closed, inner) = (theirs.close_event(), Arc::downgrade(&self.0));
        tokio::spawn(async move {
            closed.await;
            if let Some(own) = inner.upgrade().and_then(|inner| inner.own.get().cloned()) {
                own.close().await;
            }
        });
    }

    /// Checks whether a connection can be made. One check serves all calls that wait with the same options.
    async fn try_to_connect(&self, options: &Arc<PgConnectOptions>) -> Result<(), NotConnected> {
        let mut last = self.0.tried.lock().await;
        if let Some(tried) = &*last
            && tried.at.elapsed() < FRESH
            // A failure of the old password says nothing about the new one.
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
        // Connecting has succeeded; an error on closing does not matter.
        let _ = connection.close().await;
        Ok(())
    };
    match timeout(CONNECT, connecting).await {
        Ok(outcome) => outcome.map_err(|error| NotConnected::new(options, error)),
        Err(_) => Err(NotConnected::silent(options, CONNECT)),
    }
}

/// All connections of the store are in use. The database may be healthy.
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

    /// A healthy server is not the reason that a call waits: the error says that the connections are in use.
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

    /// For example, when a password is replaced: a failure of the old options within the last half second is not
    /// reported for the new ones.
    #[test]
    fn a_failure_is_remembered_for_its_options_only() {
        encx_testkit::block_on(async {
            let url = std::env::var("ENCX_TEST_POSTGRES_URL")
                .expect("run ./scripts/test, which starts a server for the tests");
            let theirs = PgPool::connect_lazy(&url).unwrap();
            let right = theirs.connect_options();
            let wrong = Arc::new((*right).clone().database("encx_no_such_database"));
            let connections = Connections::beside(theirs);
            // On a busy machine one attempt may take longer than a result is remembered.
            for _ in 0..3 {
                connections.try_to_connect(&wrong).await.unwrap_err();
                connections.try_to_connect(&right).await.unwrap();
            }
        });
    }
}

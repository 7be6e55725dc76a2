//! How statements reach the database: over a session, or through a pooler that has none.

use std::time::Duration;

use encx_core::store::StoreError;
use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::query::Query;
use tokio::runtime::Handle;

use super::connections::Connections;
use super::error::{Place, store_error};
use super::sql;
use crate::error::code_of;

type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// How long a statement of a write may take. The commit is one.
pub(super) const STATEMENT: Duration = Duration::from_secs(4);

/// How long a statement of a write may wait for another's lock.
const LOCK: Duration = Duration::from_secs(3);

/// How long the database waits for the next statement of a write.
pub(super) const IDLE: Duration = Duration::from_secs(3);

/// How long to wait for the answer to a statement of a write: what it may take, and the way there and back.
const WRITE_ANSWER: Duration = STATEMENT.saturating_add(Duration::from_secs(4));

/// How long to wait for the answer to a statement that only reads. With the wait for a connection it is less than
/// the 30 seconds that loading a key may take, so that a caller hears of the database and not of the key.
const READ_ANSWER: Duration = Duration::from_secs(18);

/// How long a rollback in the background may take before its connection is closed: what the statement before it may
/// still take, and the way there and back.
const ROLLBACK_ANSWER: Duration = WRITE_ANSWER;

/// Says that the database did not answer: the connection may be dead although neither side closed it.
#[derive(Debug, thiserror::Error)]
#[error("PostgreSQL at {place} did not answer within {within:?}; is it overloaded, or the network cut?")]
struct NoAnswer {
    place: Place,
    within: Duration,
}

/// Says that the connection broke while an answer was awaited.
#[derive(Debug, thiserror::Error)]
#[error("the connection to PostgreSQL at {place} broke: {source}")]
struct Broken {
    place: Place,
    source: std::io::Error,
}

/// Says that the database takes no writes. It may be about to take over.
#[derive(Debug, thiserror::Error)]
#[error("PostgreSQL at {place} is a standby, which is read-only; connect to the primary")]
struct Standby {
    place: Place,
}

/// `feature_not_supported`, which a standby answers to the BEGIN of a transaction that writes. Of other statements it says other things.
const STANDBY: &str = "0A000";

/// A database, by its connections.
#[derive(Clone)]
pub(super) struct Database {
    connections: Connections,
    /// Whether a transaction pooler stands between, which gives every transaction another session.
    pooled: bool,
}

impl Database {
    pub(super) fn new(connections: Connections) -> Self {
        Self {
            connections,
            pooled: false,
        }
    }

    pub(super) fn set_pooled(&mut self) {
        self.pooled = true;
    }

    pub(super) fn connections(&self) -> u32 {
        self.connections.len()
    }

    /// Runs a statement that reads, by itself.
    pub(super) async fn fetch(&self, statement: Statement<'_>) -> Result<Vec<PgRow>, StoreError> {
        if !self.pooled {
            // Closed if its answer does not come, or is not waited for any more: the pool would ask it whether it is alive, without a limit
            // on the time, and lend it to no other call until then.
            let mut connection = OpenConnection(Some(self.connections.acquire().await?));
            let mut wait = Wait::new(self.connections.place(), Some(READ_ANSWER));
            let rows = wait
                .for_answer(statement.fetch_all(open(&mut connection.0)?))
                .await;
            if !matches!(rows, Err(StoreError::Unavailable { .. })) {
                // The pool has it again.
                connection.0 = None;
            }
            return rows;
        }
        // The driver prepares in one round trip and executes in the next: only a transaction has both in one session.
        let mut transaction = self.begin_read().await?;
        let rows = transaction.fetch(statement).await?;
        transaction.commit().await?;
        Ok(rows)
    }

    /// Begins a transaction that reads, which a standby allows too.
    pub(super) async fn begin_read(&self) -> Result<Transaction, StoreError> {
        self.begin_with(sql::BEGIN_READ, Some(READ_ANSWER)).await
    }

    /// Begins a transaction, without limits on its time.
    pub(super) async fn begin(&self) -> Result<Transaction, StoreError> {
        self.begin_with(sql::BEGIN, None).await
    }

    /// Begins a transaction that writes, which the database ends if it stalls.
    pub(super) async fn begin_write(&self) -> Result<Transaction, StoreError> {
        let mut transaction = self.begin_with(sql::BEGIN, Some(WRITE_ANSWER)).await?;
        let millis = |limit: Duration| format!("{}ms", limit.as_millis());
        let limits = sqlx::query(sql::SET_LIMITS)
            .bind(millis(STATEMENT))
            .bind(millis(LOCK))
            .bind(millis(IDLE));
        transaction.run(limits).await?;
        Ok(transaction)
    }

    async fn begin_with(
        &self,
        statement: &'static str,
        answer: Option<Duration>,
    ) -> Result<Transaction, StoreError> {
        let connection = self.connections.acquire().await?;
        let mut transaction = Transaction {
            connection: Some(connection),
            named: !self.pooled,
            wait: Wait::new(self.connections.place(), answer),
        };
        // A task of its own begins it, also if the caller stops waiting: the transaction is then rolled back, or the
        // connection closed if the BEGIN is not answered.
        let begin = tokio::spawn(async move {
            transaction.begin(statement).await?;
            Ok(transaction)
        });
        begin
            .await
            .unwrap_or_else(|ended| Err(store_error(sqlx::Error::Io(ended.into()))))
    }
}

/// A transaction, which is rolled back unless it is committed.
///
/// The driver's own returns its connection to the pool also if an answer is outstanding. There the connection waits for
/// that answer without a limit on the time, and counts as one of the few that the store has.
pub(super) struct Transaction {
    /// Taken by what ends the transaction.
    connection: Option<PoolConnection<Postgres>>,
    /// Whether the session keeps prepared statements by name.
    named: bool,
    /// How long to wait for each answer.
    wait: Wait,
}

impl Transaction {
    async fn begin(&mut self, statement: &'static str) -> Result<(), StoreError> {
        let connection = open(&mut self.connection)?;
        let mut is_standby = false;
        let begun = async {
            let begun = sqlx::raw_sql(statement).execute(connection).await;
            is_standby = begun.as_ref().is_err_and(|error| code_of(error) == STANDBY);
            begun
        };
        let begun = self.wait.for_answer(begun).await;
        if is_standby {
            // There is no transaction to roll back.
            self.connection = None;
            let place = self.wait.place.clone();
            return Err(StoreError::unavailable(Standby { place }));
        }
        begun.map(drop)
    }

    /// Runs a statement, and returns how many rows it wrote.
    pub(super) async fn run(&mut self, statement: Statement<'_>) -> Result<u64, StoreError> {
        let statement = statement.persistent(self.named);
        let connection = open(&mut self.connection)?;
        let done = self.wait.for_answer(statement.execute(connection)).await?;
        Ok(done.rows_affected())
    }

    pub(super) async fn fetch(&mut self, statement: Statement<'_>) -> Result<Vec<PgRow>, StoreError> {
        let statement = statement.persistent(self.named);
        let connection = open(&mut self.connection)?;
        self.wait.for_answer(statement.fetch_all(connection)).await
    }

    /// Runs statements without parameters, such as a migration.
    pub(super) async fn run_script(&mut self, script: &'static str) -> Result<(), StoreError> {
        let connection = open(&mut self.connection)?;
        let done = sqlx::raw_sql(script).execute(connection);
        self.wait.for_answer(done).await.map(drop)
    }

    /// Runs a statement that has one row at most.
    pub(super) async fn fetch_one(&mut self, statement: Statement<'_>) -> Result<Option<PgRow>, StoreError> {
        Ok(self.fetch(statement).await?.into_iter().next())
    }

    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        self.run_script(sql::COMMIT).await?;
        // The pool has it again.
        self.connection = None;
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        match Handle::try_current() {
            Ok(runtime) if !self.wait.in_vain => {
                runtime.spawn(roll_back(OpenConnection(Some(connection))));
            }
            _ => drop(OpenConnection(Some(connection))),
        }
    }
}

/// Rolls back what was not committed, after the answer to a statement that its caller no longer waits for.
async fn roll_back(mut open: OpenConnection) {
    let Some(connection) = &mut open.0 else {
        return;
    };
    let done = sqlx::raw_sql(sql::ROLLBACK).execute(&mut **connection);
    if let Ok(Ok(_)) = tokio::time::timeout(ROLLBACK_ANSWER, done).await {
        // The pool has it again.
        open.0 = None;
    }
}

/// A connection with an open transaction or without an answer, which no pool may lend: closed when it is dropped.
struct OpenConnection(Option<PoolConnection<Postgres>>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let Some(mut connection) = self.0.take() else {
            return;
        };
        match Handle::try_current() {
            Ok(_) => connection.close_on_drop(),
            // The pool closes by a task, for which there is no runtime.
            Err(_) => drop(connection.detach()),
        }
    }
}

/// Returns the connection of a transaction that has not ended.
fn open(connection: &mut Option<PoolConnection<Postgres>>) -> Result<&mut PgConnection, StoreError> {
    connection
        .as_deref_mut()
        .ok_or_else(|| store_error(sqlx::Error::PoolClosed))
}

/// Waits for answers. The driver itself waits for as long as the connection is not closed.
struct Wait {
    place: Place,
    /// For ever if a statement may take as long as it needs.
    limit: Option<Duration>,
    /// Whether an answer did not arrive in time.
    in_vain: bool,
}

impl Wait {
    fn new(place: Place, limit: Option<Duration>) -> Self {
        Self {
            place,
            limit,
            in_vain: false,
        }
    }

    async fn for_answer<T>(
        &mut self,
        answer: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, StoreError> {
        let answer = match self.limit {
            None => answer.await,
            Some(within) => match tokio::time::timeout(within, answer).await {
                Ok(answer) => answer,
                Err(_) => {
                    self.in_vain = true;
                    let place = self.place.clone();
                    return Err(StoreError::unavailable(NoAnswer { place, within }));
                }
            },
        };
        answer.map_err(|error| match error {
            sqlx::Error::Io(source) => StoreError::unavailable(Broken {
                place: self.place.clone(),
                source,
            }),
            error => store_error(error),
        })
    }
}

/// Takes the first column of the only row.
pub(super) fn scalar<T>(rows: &[PgRow]) -> Result<T, StoreError>
where
    T: for<'r> sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
{
    use sqlx::Row;
    let row = rows
        .first()
        .ok_or_else(|| store_error(sqlx::Error::RowNotFound))?;
    row.try_get(0).map_err(store_error)
}

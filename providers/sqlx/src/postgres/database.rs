//! Runs statements on the database: in a session, or through a transaction pooler.

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

/// How long a statement of a write may take, including the commit.
pub(super) const STATEMENT: Duration = Duration::from_secs(4);

/// How long a statement of a write may wait for a lock.
const LOCK: Duration = Duration::from_secs(3);

/// How long the database waits for the next statement of a write.
pub(super) const IDLE: Duration = Duration::from_secs(3);

/// How long to wait for the answer to a statement of a write: its own limit plus the round trip.
const WRITE_ANSWER: Duration = STATEMENT.saturating_add(Duration::from_secs(4));

/// How long to wait for the answer to a statement that only reads. Together with the wait for a connection it is less
/// than the 30 seconds that loading a key may take, so that the caller gets the database's error rather than a time-out
/// of the load.
const READ_ANSWER: Duration = Duration::from_secs(18);

/// How long a background rollback may take before its connection is closed: the rest of the previous statement plus the
/// round trip.
const ROLLBACK_ANSWER: Duration = WRITE_ANSWER;

/// The database did not answer. The connection may be dead although neither side closed it.
#[derive(Debug, thiserror::Error)]
#[error("PostgreSQL at {place} did not answer within {within:?}; is it overloaded, or the network down?")]
struct NoAnswer {
    place: Place,
    within: Duration,
}

/// The connection broke before an answer came.
#[derive(Debug, thiserror::Error)]
#[error("the connection to PostgreSQL at {place} broke: {source}")]
struct Broken {
    place: Place,
    source: std::io::Error,
}

/// The database is read-only. It may be about to become the primary.
#[derive(Debug, thiserror::Error)]
#[error("PostgreSQL at {place} is a standby, which is read-only; connect to the primary")]
struct Standby {
    place: Place,
}

/// `feature_not_supported`, a standby's answer to the BEGIN of a transaction that writes. Other statements get other
/// codes.
const STANDBY: &str = "0A000";

/// A database and its connections.
#[derive(Clone)]
pub(super) struct Database {
    connections: Connections,
    /// Whether there is a transaction pooler, which gives every transaction another session.
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

    /// Runs a statement that reads, outside a transaction.
    pub(super) async fn fetch(&self, statement: Statement<'_>) -> Result<Vec<PgRow>, StoreError> {
        if !self.pooled {
            // Closed if the answer does not come or the caller stops waiting. Otherwise the pool would ping the
            // connection without a time limit, and lend it to no other call until then.
            let mut connection = OpenConnection(Some(self.connections.acquire().await?));
            let mut wait = Wait::new(self.connections.place(), Some(READ_ANSWER));
            let rows = wait
                .for_answer(statement.fetch_all(open(&mut connection.0)?))
                .await;
            if !matches!(rows, Err(StoreError::Unavailable { .. })) {
                // Return it to the pool.
                connection.0 = None;
            }
            return rows;
        }
        // The driver prepares in one round trip and executes in the next. Only a transaction runs both in one session.
        let mut transaction = self.begin_read().await?;
        let rows = transaction.fetch(statement).await?;
        transaction.commit().await?;
        Ok(rows)
    }

    /// Begins a transaction that reads. A standby allows it too.
    pub(super) async fn begin_read(&self) -> Result<Transaction, StoreError> {
        self.begin_with(sql::BEGIN_READ, Some(READ_ANSWER)).await
    }

    /// Begins a transaction without time limits.
    pub(super) async fn begin(&self) -> Result<Transaction, StoreError> {
        self.begin_with(sql::BEGIN, None).await
    }

    /// Begins a transaction that writes, which the database aborts if it stalls.
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
        // Begun in a separate task, in case the caller stops waiting: the transaction is then rolled back, or the
        // connection closed if BEGIN gets no answer.
        let begin = tokio::spawn(async move {
            transaction.begin(statement).await?;
            Ok(transaction)
        });
        begin
            .await
            .unwrap_or_else(|ended| Err(store_error(sqlx::Error::Io(ended.into()))))
    }
}

/// A transaction, rolled back unless committed.
///
/// The driver's own transaction returns its connection to the pool even while an answer is outstanding. The connection
/// would then wait for that answer without a time limit, and still count as one of the store's few.
pub(super) struct Transaction {
    /// Taken when the transaction ends.
    connection: Option<PoolConnection<Postgres>>,
    /// Whether prepared statements have names in the session.
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

    /// Runs a statement, and returns the number of rows written.
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

    /// Runs a statement that returns at most one row.
    pub(super) async fn fetch_one(&mut self, statement: Statement<'_>) -> Result<Option<PgRow>, StoreError> {
        Ok(self.fetch(statement).await?.into_iter().next())
    }

    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        self.run_script(sql::COMMIT).await?;
        // Return it to the pool.
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

/// Rolls back an uncommitted transaction, after the answer to a statement whose caller no longer waits.
async fn roll_back(mut open: OpenConnection) {
    let Some(connection) = &mut open.0 else {
        return;
    };
    let done = sqlx::raw_sql(sql::ROLLBACK).execute(&mut **connection);
    if let Ok(Ok(_)) = tokio::time::timeout(ROLLBACK_ANSWER, done).await {
        // Return it to the pool.
        open.0 = None;
    }
}

/// A connection with an open transaction or an outstanding answer, which must not be lent. Closed when dropped.
struct OpenConnection(Option<PoolConnection<Postgres>>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let Some(mut connection) = self.0.take() else {
            return;
        };
        match Handle::try_current() {
            Ok(_) => connection.close_on_drop(),
            // The pool closes in a task, and there is no runtime.
            Err(_) => drop(connection.detach()),
        }
    }
}

/// Returns the connection of an open transaction.
fn open(connection: &mut Option<PoolConnection<Postgres>>) -> Result<&mut PgConnection, StoreError> {
    connection
        .as_deref_mut()
        .ok_or_else(|| store_error(sqlx::Error::PoolClosed))
}

/// Waits for answers with a time limit. The driver itself waits until the connection is closed.
struct Wait {
    place: Place,
    /// `None` if a statement may take as long as it needs.
    limit: Option<Duration>,
    /// Whether an answer timed out.
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

/// Returns the first column of the only row.
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

//! The key store in PostgreSQL.

mod audit;
mod connections;
mod database;
mod error;
mod hints;
mod migrate;
mod moment;
mod row;
mod shared_work;
mod sql;
mod wraps;
mod write;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use encx_core::key::{DataKeyId, KeyState, KeyUsage, Scope};
use encx_core::store::{
    AuditLog, ChangeCursor, ChangePage, CursorPosition, JobStore, KekUse, KeyChanges, KeyPage, KeyQuery,
    KeyRecord, KeyStore, KeySummary, Leases, NewKey, ProcessRegistry, StateChange, StoreError, Timestamp,
    WrapChange, WrapOutcome,
};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPool};
use sqlx::query::Query;
use sqlx::{Postgres, Row};
use uuid::Uuid;

use crate::application::name_of_executable;
use crate::changes::{ONE_MORE, page_of, raw_change};
use crate::error::check_scheme;
use crate::row::records_of;
use crate::shared_work::{SharedWork, Tables as _};
use crate::summary::{kek_uses, key_summary};
use connections::Connections;
use database::{Database, scalar};
pub use error::is_passing;
use error::store_error;
use hints::Hints;
use moment::Moment;

/// How far back a poll for changes reaches, because writers do not commit in the order of their times.
///
/// A write transaction takes its time, and commits at most [`write::LIMIT`] later or not at all.
const OVERLAP: Duration = Duration::from_secs(15);

const _: () = assert!(write::LIMIT.as_millis() + 3_000 <= OVERLAP.as_millis());

/// Keeps data keys in PostgreSQL, in the schema `encx`. Clones share its connections.
///
/// Needs PostgreSQL 13 or later. Times are the database's.
///
/// With [`listen_url`](Self::listen_url) it learns of other processes' changes immediately. Without it, a change is
/// seen at the next poll, within `state_ttl`.
///
/// It works through a transaction pooler such as PgBouncer; see
/// [`behind_transaction_pooler`](Self::behind_transaction_pooler).
///
/// A poll for changes reaches 15 seconds back, because commits do not happen in the order of their times. Writes take
/// less than that or are rolled back: each statement may take 4 seconds, and each pause between two statements 3. This
/// assumes that a commit, once begun, also finishes within that time, and that the database's clock is not set back by
/// more than 3 seconds while processes poll.
///
/// A silent connection does not block a call forever: the call fails with [`StoreError::Unavailable`], after 8 seconds
/// if it writes and 18 if it reads. The write may have happened nevertheless. While the database refuses connections, a
/// call fails within a second; if a host does not answer, within 5 seconds. The error contains host, port and the
/// driver's message.
///
/// Write access to this schema decides which data keys exist; see encx's `SECURITY.md`.
#[derive(Clone)]
pub struct PostgresKeyStore {
    tables: SharedWork<PostgresTables>,
}

#[derive(Clone)]
struct PostgresTables {
    database: Database,
    /// Whether the tables were checked.
    migrated: Arc<AtomicBool>,
    listen: Option<Result<PgConnectOptions, StoreError>>,
}

impl PostgresKeyStore {
    /// Connects to a database by URL, such as `postgres://user@host/database?sslmode=verify-full`.
    ///
    /// It keeps at most 5 connections, separate from those of your own pool. TLS needs the feature `tls-rustls`. The
    /// audit log records the URL's `application_name`, or else the name of the executable file. A URL with
    /// `statement-cache-capacity=0` means a transaction pooler.
    ///
    /// ```
    /// # use encx_sqlx::PostgresKeyStore;
    /// # use encx_core::store::StoreError;
    /// # async fn example() -> Result<(), StoreError> {
    /// // With feature `tls-rustls`.
    /// let store = PostgresKeyStore::connect("postgres://app@db.internal/app?sslmode=verify-full").await?;
    /// store.migrate().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] if it is not a PostgreSQL URL; [`StoreError::Unavailable`] if the database refuses a
    /// connection, at once, or does not answer within 5 seconds; [`StoreError::Database`] if it refuses the user, the
    /// password or the database's name, or if TLS fails. The error contains host and port, never the password.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        let store = Self::on(Connections::connect(options_of(url)?).await?);
        Ok(if keeps_no_statements(url) {
            store.behind_transaction_pooler()
        } else {
            store
        })
    }

    /// Connects with the settings of an existing pool, on up to 2 separate connections.
    ///
    /// So your transactions can encrypt for a tenant without a key even while they hold all connections of the pool.
    /// The store connects when needed, with the pool's options and hooks, and with its time-outs where these are
    /// shorter. Its connections are closed when you close the pool, or with the last clone of the store. A new key is
    /// committed separately, even if your transaction is rolled back.
    ///
    /// The audit log records the pool's `application_name`: set one. Allow for 2 more connections of each process in
    /// the server's connection limit.
    ///
    /// ```
    /// # use encx_sqlx::PostgresKeyStore;
    /// # use encx_core::store::StoreError;
    /// # use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let options: PgConnectOptions = "postgres://app@db.internal/app".parse()?;
    /// let pool = PgPoolOptions::new()
    ///     .max_connections(20)
    ///     .connect_with(options.application_name("shop"))
    ///     .await?;
    /// let store = PostgresKeyStore::from_pool(pool.clone());
    /// store.migrate().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn from_pool(pool: PgPool) -> Self {
        Self::on(Connections::beside(pool))
    }

    fn on(connections: Connections) -> Self {
        Self {
            tables: SharedWork(PostgresTables {
                database: Database::new(connections),
                migrated: Arc::default(),
                listen: None,
            }),
        }
    }

    /// Listens for changes on a separate connection, so that this process learns of them immediately.
    ///
    /// The URL must lead to the server itself: a transaction pooler does not forward notifications. Each call of
    /// [`KeyStore::changes`] opens one connection, and a `Crypto` makes one such call; no other connection of the store
    /// listens. A lost connection is always reopened; a silent one is noticed within 15 seconds. Hints may be lost
    /// until then, so [`KeyHint::Gap`](encx_core::store::KeyHint::Gap) follows each time.
    ///
    /// Any user who can connect to the database can notify. A notification only makes the process read again, at most
    /// the keys that it holds in memory, and at most twice a second for malformed ones.
    ///
    /// If the URL is invalid, every method fails with [`StoreError::Invalid`].
    ///
    /// ```
    /// # use encx_sqlx::PostgresKeyStore;
    /// # use encx_core::store::StoreError;
    /// # async fn example(url: &str) -> Result<(), StoreError> {
    /// let store = PostgresKeyStore::connect(url).await?.listen_url(url);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn listen_url(mut self, url: &str) -> Self {
        self.tables.0.listen = Some(options_of(url).map_err(|error| match error {
            StoreError::Invalid { what } => StoreError::Invalid {
                what: format!("`listen_url`: {what}"),
            },
            error => error,
        }));
        self
    }

    /// Works through a pooler that assigns a session to each transaction, such as PgBouncer in transaction mode.
    ///
    /// Every statement is then prepared each time, inside a transaction. [`connect`](Self::connect) does so if the URL
    /// contains `statement-cache-capacity=0`; configure both for your own pool. A pooler does not forward
    /// notifications: give [`listen_url`](Self::listen_url) a URL that bypasses it.
    ///
    /// ```
    /// # use encx_sqlx::PostgresKeyStore;
    /// # use encx_core::store::StoreError;
    /// # use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let options: PgConnectOptions = "postgres://app@pgbouncer.internal:6432/app".parse()?;
    /// let options = options.statement_cache_capacity(0).extra_float_digits(None);
    /// let pool = PgPoolOptions::new().connect_with(options).await?;
    /// let store = PostgresKeyStore::from_pool(pool)
    ///     .behind_transaction_pooler()
    ///     .listen_url("postgres://app@db.internal/app");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn behind_transaction_pooler(mut self) -> Self {
        self.tables.0.database.set_pooled();
        self
    }

    async fn records(&self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<KeyRecord>, StoreError> {
        let rows = self.tables.database.fetch(query).await?;
        records_of(&rows)
    }
}

impl fmt::Debug for PostgresKeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the pool: its options contain the password.
        f.debug_struct("PostgresKeyStore")
            .field("connections", &self.tables.database.connections())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl KeyStore for PostgresKeyStore {
    async fn load(&self, scopes: &[Scope]) -> Result<Vec<KeyRecord>, StoreError> {
        self.tables.ready().await?;
        let scopes: Vec<_> = scopes.iter().map(|scope| &scope.as_bytes()[..]).collect();
        self.records(sqlx::query(sql::LOAD).bind(scopes)).await
    }

    async fn get(&self, ids: &[DataKeyId]) -> Result<Vec<KeyRecord>, StoreError> {
        self.tables.ready().await?;
        let ids: Vec<Uuid> = ids.iter().copied().map(Uuid::from).collect();
        self.records(sqlx::query(sql::GET).bind(ids)).await
    }

    async fn insert(&self, new: &NewKey) -> Result<KeyRecord, StoreError> {
        self.tables.ready().await?;
        write::insert(&self.tables.database, new).await
    }

    async fn apply(&self, change: &StateChange) -> Result<KeyRecord, StoreError> {
        self.tables.ready().await?;
        write::apply(&self.tables.database, change).await
    }

    async fn replace_wraps(&self, changes: &[WrapChange]) -> Result<Vec<WrapOutcome>, StoreError> {
        self.tables.ready().await?;
        wraps::replace(&self.tables.database, changes).await
    }

    async fn page(&self, query: &KeyQuery) -> Result<KeyPage, StoreError> {
        self.tables.ready().await?;
        let records = self.records(page_query(query)?).await?;
        Ok(KeyPage::of_one_more(records, query.limit))
    }

    async fn summary(&self) -> Result<KeySummary, StoreError> {
        self.tables.ready().await?;
        let rows = self.tables.database.fetch(sqlx::query(sql::SUMMARY)).await?;
        Ok(key_summary(&rows))
    }

    async fn keks(&self) -> Result<Vec<KekUse>, StoreError> {
        self.tables.ready().await?;
        let rows = self.tables.database.fetch(sqlx::query(sql::KEKS)).await?;
        kek_uses(&rows)
    }

    async fn changed_since(&self, cursor: &ChangeCursor) -> Result<ChangePage, StoreError> {
        self.tables.ready().await?;
        let (from, after) = match cursor.position() {
            CursorPosition::At { at, after, .. } => (at, after),
            CursorPosition::Start => (Timestamp::from_micros(i64::MIN), None),
            CursorPosition::Now => {
                let now: Moment = scalar(&self.tables.database.fetch(sqlx::query(sql::NOW)).await?)?;
                let next = ChangeCursor::at(now.0.minus(OVERLAP), None);
                return Ok(ChangePage::new(Vec::new(), next, false));
            }
            _ => return Err(StoreError::Unsupported { what: "this cursor" }),
        };
        let query = sqlx::query(sql::CHANGES)
            .bind(Moment(from))
            .bind(after.map_or(Uuid::nil(), Uuid::from))
            .bind(ONE_MORE);
        let rows = self.tables.database.fetch(query).await?;
        let mut now = from;
        for row in &rows {
            now = row.try_get::<Moment, _>("now").map_err(store_error)?.0;
        }
        let rows = rows.iter().filter_map(raw_change);
        Ok(page_of(cursor, (from, after), rows, now.minus(OVERLAP)))
    }

    fn changes(&self) -> KeyChanges {
        match &self.tables.listen {
            Some(Ok(options)) => KeyChanges::new(Hints::new(options.clone())),
            _ => KeyChanges::never(),
        }
    }

    fn leases(&self) -> Option<&dyn Leases> {
        Some(&self.tables)
    }

    fn jobs(&self) -> Option<&dyn JobStore> {
        Some(&self.tables)
    }

    fn processes(&self) -> Option<&dyn ProcessRegistry> {
        Some(&self.tables)
    }

    fn audit(&self) -> Option<&dyn AuditLog> {
        Some(self)
    }
}

/// Parses a URL, and sets the application name if it is missing. No error repeats the URL: it may contain a password.
fn options_of(url: &str) -> Result<PgConnectOptions, StoreError> {
    check_scheme(
        url,
        &["postgres", "postgresql"],
        "PostgreSQL",
        "postgres://user@host/database",
    )?;
    let options: PgConnectOptions = url.parse().map_err(|error| StoreError::Invalid {
        what: format!("the URL of the PostgreSQL database is invalid: {error}"),
    })?;
    // Poolers refuse unknown parameters, and no key has floating-point columns.
    let options = options.extra_float_digits(None);
    Ok(
        match (options.get_application_name().is_none(), name_of_executable()) {
            (true, Some(name)) => options.application_name(&name),
            _ => options,
        },
    )
}

/// Tells whether a URL disables prepared statements.
fn keeps_no_statements(url: &str) -> bool {
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
    let mut capacity = parameters
        .split('&')
        .filter_map(|parameter| parameter.strip_prefix("statement-cache-capacity="));
    capacity
        .next_back()
        .is_some_and(|capacity| capacity.trim_start_matches('0').is_empty())
}

/// Picks the statement for a query's most selective filter, and binds the other filters.
fn page_query(query: &KeyQuery) -> Result<Query<'static, Postgres, PgArguments>, StoreError> {
    let after = query.after.map_or(Uuid::nil(), Uuid::from);
    let one_more = i64::from(query.limit).saturating_add(1);
    let states: BTreeSet<_> = query.states.iter().copied().collect();
    let states: Vec<_> = if states.is_empty() {
        KeyState::ALL.map(KeyState::name).to_vec()
    } else {
        states.into_iter().map(KeyState::name).collect()
    };
    let usages: Vec<_> = match query.usage {
        Some(usage) => vec![i16::from(usage.code())],
        None => KeyUsage::ALL.map(|usage| i16::from(usage.code())).to_vec(),
    };
    let filters = query.usage.is_some() || !query.states.is_empty();
    let scope = query.scope.map(|scope| scope.as_bytes().to_vec());
    let (kms, kek) = match &query.wrapped_by {
        Some((kms, kek)) => (Some(kms.as_str().to_owned()), Some(kek.as_str().to_owned())),
        None => (None, None),
    };
    let context = serde_json::to_string(&query.context).map_err(StoreError::database)?;
    let has_context = !query.context.is_empty();
    let statement = match (&scope, &kek) {
        (Some(_), _) => sql::PAGE_OF_SCOPE,
        (None, _) if has_context => sql::PAGE_OF_CONTEXT,
        (None, Some(_)) => sql::PAGE_OF_KEK,
        (None, None) if filters => sql::PAGE_OF_STATES,
        (None, None) => sql::PAGE,
    };
    let bound = sqlx::query(statement)
        .bind(after)
        .bind(one_more)
        .bind(query.activated_before.map(Moment));
    Ok(match (scope, kek) {
        (Some(scope), kek) => {
            let bound = bound.bind(states).bind(usages).bind(scope);
            bound.bind(kms).bind(kek).bind(context)
        }
        (None, kek) if has_context => {
            let bound = bound.bind(states).bind(usages).bind(context);
            // A generic plan would read the whole table for rare pairs.
            bound.bind(kms).bind(kek).persistent(false)
        }
        (None, Some(kek)) => bound.bind(states).bind(usages).bind(kms).bind(kek),
        (None, None) if filters => bound.bind(states).bind(usages),
        (None, None) => bound,
    })
}

#[cfg(test)]
mod tests;

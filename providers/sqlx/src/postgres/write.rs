//! Writes: short transactions that lock a scope, look, work out what changes, and compare before they swap.

use std::time::Duration;

use encx::{DataKeyId, KeyRecord, NewKey, Scope, StateChange, StoreError, Timestamp, WrapChange};
use sqlx::PgConnection;
use sqlx::postgres::{PgPool, Postgres};
use uuid::Uuid;

use super::error::store_error;
use super::moment::Moment;
use super::{records, run, sql};
use crate::row::{context_json, what_changed};

/// How long a statement may take. The commit is one.
const STATEMENT: Duration = Duration::from_secs(4);

/// How long a statement may wait for another's lock.
const LOCK: Duration = Duration::from_secs(3);

/// How long the database waits for the next statement.
const IDLE: Duration = Duration::from_secs(3);

/// How old a write's time may be when all is written.
const AGE: Duration = Duration::from_secs(5);

/// How old a write's time may be when it is committed: it was young enough when all was written, the commit came
/// in time, and took no longer than a statement may.
pub(super) const LIMIT: Duration = AGE.saturating_add(IDLE).saturating_add(STATEMENT);

/// Says that a write was given up because others could have polled past its time.
#[derive(Debug, thiserror::Error)]
#[error("the write took longer than {AGE:?} and was rolled back")]
struct TooSlow;

pub(super) async fn insert(pool: &PgPool, new: &NewKey) -> Result<KeyRecord, StoreError> {
    let mut write = Write::begin(pool, &new.scope).await?;
    let siblings = write.siblings().await?;
    let at = write.time().await?;
    let planned = new.plan(&siblings, at)?;
    write.store(&siblings, planned, None).await
}

pub(super) async fn apply(pool: &PgPool, change: &StateChange) -> Result<KeyRecord, StoreError> {
    let mut write = Write::begin(pool, &change.scope).await?;
    let siblings = write.siblings().await?;
    let at = write.time().await?;
    let planned = change.plan(&siblings, at)?;
    write.store(&siblings, planned, change.reason.as_deref()).await
}

pub(super) async fn replace_wraps(pool: &PgPool, change: &WrapChange) -> Result<KeyRecord, StoreError> {
    let mut write = Write::begin(pool, &change.scope).await?;
    let current = write.one(change.id).await?;
    let at = write.time().await?;
    let planned = change.plan(current.first(), at)?;
    write.store(&current, vec![planned], None).await
}

struct Write {
    transaction: sqlx::Transaction<'static, Postgres>,
    scope: Scope,
    at: Timestamp,
}

impl Write {
    async fn begin(pool: &PgPool, scope: &Scope) -> Result<Self, StoreError> {
        let transaction = pool.begin_with(sql::BEGIN).await.map_err(store_error)?;
        let mut write = Self {
            transaction,
            scope: *scope,
            at: Timestamp::from_micros(0),
        };
        let millis = |limit: Duration| format!("{}ms", limit.as_millis());
        let limits = sqlx::query(sql::SET_LIMITS)
            .bind(millis(STATEMENT))
            .bind(millis(LOCK))
            .bind(millis(IDLE));
        run(write.connection(), limits).await?;
        let mut lock = [0; 8];
        lock.copy_from_slice(&scope.as_bytes()[..8]);
        let lock = sqlx::query(sql::LOCK_SCOPE).bind(i64::from_be_bytes(lock));
        run(write.connection(), lock).await?;
        Ok(write)
    }

    fn connection(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    /// Locks and reads all records of the scope.
    async fn siblings(&mut self) -> Result<Vec<KeyRecord>, StoreError> {
        self.lock_rows().await?;
        let scopes = vec![self.scope.as_bytes().to_vec()];
        records(self.connection(), sqlx::query(sql::LOAD).bind(scopes)).await
    }

    /// Locks the records of the scope, and reads one by its id, of whatever scope it is.
    async fn one(&mut self, id: DataKeyId) -> Result<Vec<KeyRecord>, StoreError> {
        self.lock_rows().await?;
        let ids = vec![Uuid::from(id)];
        records(self.connection(), sqlx::query(sql::GET).bind(ids)).await
    }

    async fn lock_rows(&mut self) -> Result<(), StoreError> {
        let scope = self.scope.as_bytes().to_vec();
        run(self.connection(), sqlx::query(sql::LOCK_ROWS).bind(scope)).await?;
        Ok(())
    }

    /// Takes the time of the write, once the locks are held.
    async fn time(&mut self) -> Result<Timestamp, StoreError> {
        let at: Moment = sqlx::query_scalar(sql::WRITE_TIME)
            .fetch_one(self.connection())
            .await
            .map_err(store_error)?;
        self.at = at.0;
        Ok(at.0)
    }

    /// Writes what was planned, each record over the revision that was read, and returns the first.
    async fn store(
        mut self,
        before: &[KeyRecord],
        planned: Vec<KeyRecord>,
        reason: Option<&str>,
    ) -> Result<KeyRecord, StoreError> {
        // The siblings first: the index on active versions must not see the new one beside the old.
        for (place, record) in planned.iter().enumerate().rev() {
            let old = before.iter().find(|old| old.id == record.id);
            match old {
                Some(old) => self.update(old, record).await?,
                None => self.add(record).await?,
            }
            self.audit(old, record, reason.filter(|_| place == 0)).await?;
        }
        let limit = i64::try_from(AGE.as_micros()).unwrap_or(i64::MAX);
        let at = Moment(self.at);
        let in_time: bool = sqlx::query_scalar(sql::IN_TIME)
            .bind(at)
            .bind(limit)
            .fetch_one(self.connection())
            .await
            .map_err(store_error)?;
        if !in_time {
            return Err(StoreError::unavailable(TooSlow));
        }
        self.transaction.commit().await.map_err(store_error)?;
        // A plan is never empty; without one, nothing was written.
        planned.into_iter().next().ok_or(StoreError::Conflict)
    }

    async fn add(&mut self, record: &KeyRecord) -> Result<(), StoreError> {
        let query = sqlx::query(sql::INSERT_KEY)
            .bind(Uuid::from(record.id))
            .bind(record.scope.as_bytes().to_vec())
            .bind(i16::from(record.usage.code()))
            .bind(i32::try_from(record.version.get()).unwrap_or(i32::MAX))
            .bind(record.state.name())
            .bind(record.suspended_from.map(encx::KeyState::name))
            .bind(context_json(record)?)
            .bind(record.key_check.to_bytes().to_vec())
            .bind(record.revision.get())
            .bind(Moment(record.created_at))
            .bind(record.activated_at.map(Moment))
            .bind(record.deactivated_at.map(Moment))
            .bind(record.destroyed_at.map(Moment))
            .bind(Moment(record.changed_at));
        run(self.connection(), query).await?;
        self.add_wraps(record).await
    }

    async fn update(&mut self, old: &KeyRecord, record: &KeyRecord) -> Result<(), StoreError> {
        let query = sqlx::query(sql::UPDATE_KEY)
            .bind(Uuid::from(record.id))
            .bind(old.revision.get())
            .bind(record.revision.get())
            .bind(record.state.name())
            .bind(record.suspended_from.map(encx::KeyState::name))
            .bind(record.activated_at.map(Moment))
            .bind(record.deactivated_at.map(Moment))
            .bind(record.destroyed_at.map(Moment))
            .bind(Moment(record.changed_at));
        if run(self.connection(), query).await? != 1 {
            return Err(StoreError::Conflict);
        }
        if old.wraps != record.wraps {
            let delete = sqlx::query(sql::DELETE_WRAPS).bind(Uuid::from(record.id));
            run(self.connection(), delete).await?;
            self.add_wraps(record).await?;
        }
        Ok(())
    }

    async fn add_wraps(&mut self, record: &KeyRecord) -> Result<(), StoreError> {
        if record.wraps.is_empty() {
            return Ok(());
        }
        let wraps = || record.wraps.iter();
        let query = sqlx::query(sql::INSERT_WRAPS)
            .bind(Uuid::from(record.id))
            .bind(
                wraps()
                    .map(|wrap| wrap.kms.as_str().to_owned())
                    .collect::<Vec<_>>(),
            )
            .bind(
                wraps()
                    .map(|wrap| wrap.wrapped.kek.as_str().to_owned())
                    .collect::<Vec<_>>(),
            )
            .bind(
                wraps()
                    .map(|wrap| wrap.wrapped.ciphertext.clone())
                    .collect::<Vec<_>>(),
            )
            .bind(
                wraps()
                    .map(|wrap| wrap.wrapped.kek_material.clone())
                    .collect::<Vec<_>>(),
            );
        run(self.connection(), query).await?;
        Ok(())
    }

    async fn audit(
        &mut self,
        old: Option<&KeyRecord>,
        record: &KeyRecord,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        let query = sqlx::query(sql::INSERT_AUDIT)
            .bind(Moment(self.at))
            .bind(Uuid::from(record.id))
            .bind(record.scope.as_bytes().to_vec())
            .bind(what_changed(old, record))
            .bind(old.map(|old| old.state.name()))
            .bind(record.state.name())
            .bind(reason.map(str::to_owned));
        run(self.connection(), query).await?;
        Ok(())
    }
}

//! Writes: short transactions that lock a scope, read it, plan the change, and compare and swap.

use std::time::Duration;

use encx_core::key::{KeyState, Scope};
use encx_core::store::{KeyRecord, NewKey, StateChange, StoreError, Timestamp};
use sqlx::Postgres;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use uuid::Uuid;

use super::database::{Database, IDLE, STATEMENT, Transaction, scalar};
use super::moment::Moment;
use super::{hints, sql};
use crate::row::{context_json, records_of, what_changed};

/// The maximum age of a write's time when all statements have run.
const AGE: Duration = Duration::from_secs(5);

/// The maximum age of a write's time when it is committed: at most `AGE` when all was written, then `IDLE` until the
/// commit, then `STATEMENT` for the commit itself.
pub(super) const LIMIT: Duration = AGE.saturating_add(IDLE).saturating_add(STATEMENT);

/// A write was abandoned because polls might have passed its time.
#[derive(Debug, thiserror::Error)]
#[error("the write took longer than {AGE:?} and was rolled back")]
struct TooSlow;

pub(super) async fn insert(database: &Database, new: &NewKey) -> Result<KeyRecord, StoreError> {
    let mut write = Write::begin(database).await?;
    let siblings = write.siblings(&new.scope).await?;
    let at = write.time().await?;
    let planned = new.plan(&siblings, at)?;
    write.store(&siblings, planned, new.reason.as_deref()).await
}

pub(super) async fn apply(database: &Database, change: &StateChange) -> Result<KeyRecord, StoreError> {
    let mut write = Write::begin(database).await?;
    let siblings = write.siblings(&change.scope).await?;
    let at = write.time().await?;
    let planned = change.plan(&siblings, at)?;
    write.store(&siblings, planned, change.reason.as_deref()).await
}

/// A write in progress.
pub(super) struct Write {
    transaction: Transaction,
    at: Timestamp,
}

impl Write {
    pub(super) async fn begin(database: &Database) -> Result<Self, StoreError> {
        Ok(Self {
            transaction: database.begin_write().await?,
            at: Timestamp::from_micros(0),
        })
    }

    pub(super) async fn run(
        &mut self,
        statement: Query<'_, Postgres, PgArguments>,
    ) -> Result<u64, StoreError> {
        self.transaction.run(statement).await
    }

    pub(super) async fn fetch(
        &mut self,
        statement: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, StoreError> {
        self.transaction.fetch(statement).await
    }

    /// Locks a scope, and reads all its records.
    async fn siblings(&mut self, scope: &Scope) -> Result<Vec<KeyRecord>, StoreError> {
        let mut lock = [0; 8];
        lock.copy_from_slice(&scope.as_bytes()[..8]);
        let lock = sqlx::query(sql::LOCK_SCOPE).bind(i64::from_be_bytes(lock));
        self.run(lock).await?;
        let scope = scope.as_bytes().to_vec();
        self.run(sqlx::query(sql::LOCK_ROWS).bind(scope.clone())).await?;
        let rows = self.fetch(sqlx::query(sql::LOAD).bind(vec![scope])).await?;
        records_of(&rows)
    }

    /// Takes the write's time, once the locks are held.
    pub(super) async fn time(&mut self) -> Result<Timestamp, StoreError> {
        let at: Moment = scalar(&self.fetch(sqlx::query(sql::WRITE_TIME)).await?)?;
        self.at = at.0;
        Ok(at.0)
    }

    /// Commits, unless polls may have passed the write's time.
    pub(super) async fn finish(mut self) -> Result<(), StoreError> {
        let limit = i64::try_from(AGE.as_micros()).unwrap_or(i64::MAX);
        let in_time = sqlx::query(sql::IN_TIME).bind(Moment(self.at)).bind(limit);
        if !scalar(&self.fetch(in_time).await?)? {
            return Err(StoreError::unavailable(TooSlow));
        }
        self.transaction.commit().await
    }

    /// Writes the planned records over the revisions that were read, and returns the first.
    async fn store(
        mut self,
        before: &[KeyRecord],
        planned: Vec<KeyRecord>,
        reason: Option<&str>,
    ) -> Result<KeyRecord, StoreError> {
        // Siblings first: the unique index on active versions must not see the new one beside the old.
        for record in planned.iter().rev() {
            let old = before.iter().find(|old| old.id == record.id);
            match old {
                Some(old) => self.update(old, record).await?,
                None => self.add(record).await?,
            }
            self.audit(old, record, reason).await?;
        }
        // Only state changes are pushed: changes of wraps alone are not urgent.
        if let Some(changed) = planned.first() {
            let hint = hints::of_scope(&changed.scope);
            let notify = sqlx::query(sql::NOTIFY).bind(hints::CHANNEL).bind(hint);
            self.run(notify).await?;
        }
        self.finish().await?;
        // A plan is never empty; if it were, nothing would have been written.
        planned.into_iter().next().ok_or(StoreError::Conflict)
    }

    async fn add(&mut self, record: &KeyRecord) -> Result<(), StoreError> {
        let query = sqlx::query(sql::INSERT_KEY)
            .bind(Uuid::from(record.id))
            .bind(record.scope.as_bytes().to_vec())
            .bind(i16::from(record.usage.code()))
            .bind(i32::try_from(record.version.get()).unwrap_or(i32::MAX))
            .bind(record.state.name())
            .bind(record.suspended_from.map(KeyState::name))
            .bind(context_json(record)?)
            .bind(record.key_check.to_bytes().to_vec())
            .bind(record.revision.get())
            .bind(Moment(record.created_at))
            .bind(record.activated_at.map(Moment))
            .bind(record.deactivated_at.map(Moment))
            .bind(record.destroyed_at.map(Moment))
            .bind(Moment(record.changed_at));
        self.run(query).await?;
        self.add_wraps(record).await
    }

    async fn update(&mut self, old: &KeyRecord, record: &KeyRecord) -> Result<(), StoreError> {
        let query = sqlx::query(sql::UPDATE_KEY)
            .bind(Uuid::from(record.id))
            .bind(old.revision.get())
            .bind(record.revision.get())
            .bind(record.state.name())
            .bind(record.suspended_from.map(KeyState::name))
            .bind(record.activated_at.map(Moment))
            .bind(record.deactivated_at.map(Moment))
            .bind(record.destroyed_at.map(Moment))
            .bind(Moment(record.changed_at));
        if self.run(query).await? != 1 {
            return Err(StoreError::Conflict);
        }
        if old.wraps != record.wraps {
            let delete = sqlx::query(sql::DELETE_WRAPS).bind(Uuid::from(record.id));
            self.run(delete).await?;
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
        self.run(query).await?;
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
        self.run(query).await?;
        Ok(())
    }
}

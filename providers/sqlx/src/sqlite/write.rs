//! Writes: one transaction each, which begins by taking the write lock.

use encx_core::key::{DataKeyId, KeyState, Scope};
use encx_core::store::{KeyRecord, NewKey, StateChange, StoreError, Timestamp, WrapChange, WrapOutcome};
use sqlx::Sqlite;
use sqlx::sqlite::SqliteConnection;

use super::connections::Connections;
use super::error::store_error;
use super::sql;
use super::statement::{execute, hex, json_list, last_change, list_of, now, records};
use crate::row::{context_json, what_changed};

/// How many keys get new wraps in one transaction, while other writers wait.
const KEYS_PER_WRITE: usize = 200;

/// An hour, in microseconds.
const AN_HOUR: i64 = 3_600_000_000;

pub(super) async fn insert(
    connections: &Connections,
    application: &str,
    new: &NewKey,
) -> Result<KeyRecord, StoreError> {
    let mut write = Write::begin(connections, application).await?;
    let siblings = write.siblings(&new.scope).await?;
    let at = write.time().await?;
    let planned = new.plan(&siblings, at)?;
    write.store(&siblings, planned, new.reason.as_deref()).await
}

pub(super) async fn apply(
    connections: &Connections,
    application: &str,
    change: &StateChange,
) -> Result<KeyRecord, StoreError> {
    let mut write = Write::begin(connections, application).await?;
    let siblings = write.siblings(&change.scope).await?;
    let at = write.time().await?;
    let planned = change.plan(&siblings, at)?;
    write.store(&siblings, planned, change.reason.as_deref()).await
}

pub(super) async fn replace_wraps(
    connections: &Connections,
    application: &str,
    changes: &[WrapChange],
) -> Result<Vec<WrapOutcome>, StoreError> {
    let mut outcomes: Vec<WrapOutcome> = Vec::with_capacity(changes.len());
    let mut unavailable = None;
    for together in changes.chunks(KEYS_PER_WRITE) {
        let results = match &unavailable {
            // Not tried: each would time out too.
            Some(error) => Err(StoreError::clone(error)),
            None => replace_together(connections, application, together).await,
        };
        let results = match results {
            Ok(results) => results,
            Err(error) if error.is_retryable() => {
                if outcomes.is_empty() {
                    return Err(error);
                }
                unavailable = Some(error.clone());
                together.iter().map(|_| Err(error.clone())).collect()
            }
            // A key that the database refuses must not fail the others.
            Err(_) => replace_apart(connections, application, together).await,
        };
        let of = together.iter().zip(results);
        outcomes.extend(of.map(|(change, result)| WrapOutcome::new(change.id, result)));
    }
    Ok(outcomes)
}

/// Replaces the wraps of several keys in one transaction: one outcome for each, or none was changed.
async fn replace_together(
    connections: &Connections,
    application: &str,
    changes: &[WrapChange],
) -> Result<Vec<Result<KeyRecord, StoreError>>, StoreError> {
    let mut write = Write::begin(connections, application).await?;
    let mut results = Vec::with_capacity(changes.len());
    for change in changes {
        let current = match write.one(change.id).await {
            Err(error @ StoreError::Corrupt { .. }) => {
                results.push(Err(error));
                continue;
            }
            current => current?,
        };
        let at = write.time().await?;
        let planned = change.plan(current.first(), at);
        if let Ok(record) = &planned {
            let planned = std::slice::from_ref(record);
            write.put(&current, planned, change.reason.as_deref()).await?;
        }
        results.push(planned);
    }
    write.commit().await?;
    Ok(results)
}

async fn replace_apart(
    connections: &Connections,
    application: &str,
    changes: &[WrapChange],
) -> Vec<Result<KeyRecord, StoreError>> {
    let mut results = Vec::with_capacity(changes.len());
    for change in changes {
        let alone = replace_together(connections, application, std::slice::from_ref(change)).await;
        results.push(alone.and_then(|mut results| results.pop().unwrap_or(Err(StoreError::Conflict))));
    }
    results
}

struct Write<'a> {
    transaction: sqlx::Transaction<'static, Sqlite>,
    /// The application's name in the audit log.
    application: &'a str,
}

impl<'a> Write<'a> {
    async fn begin(connections: &Connections, application: &'a str) -> Result<Self, StoreError> {
        let transaction = connections.begin().await?;
        Ok(Self {
            transaction,
            application,
        })
    }

    fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }

    async fn siblings(&mut self, scope: &Scope) -> Result<Vec<KeyRecord>, StoreError> {
        let scopes = list_of(std::slice::from_ref(scope));
        records(self.connection(), sqlx::query(sql::LOAD).bind(scopes)).await
    }

    async fn one(&mut self, id: DataKeyId) -> Result<Vec<KeyRecord>, StoreError> {
        let ids = json_list(std::iter::once(hex(&id.to_bytes())));
        records(self.connection(), sqlx::query(sql::GET).bind(ids)).await
    }

    /// Takes the write's time, later than every time already written, except one more than an hour ahead: no clock
    /// wrote it.
    async fn time(&mut self) -> Result<Timestamp, StoreError> {
        let now = now(self.connection()).await?;
        let last = last_change(self.connection(), now.saturating_add(AN_HOUR)).await?;
        Ok(Timestamp::from_micros(now.max(last.saturating_add(1))))
    }

    /// Writes the planned records and commits. Returns the first.
    async fn store(
        mut self,
        before: &[KeyRecord],
        planned: Vec<KeyRecord>,
        reason: Option<&str>,
    ) -> Result<KeyRecord, StoreError> {
        self.put(before, &planned, reason).await?;
        self.commit().await?;
        // A plan is never empty; if it were, nothing would have been written.
        planned.into_iter().next().ok_or(StoreError::Conflict)
    }

    async fn commit(self) -> Result<(), StoreError> {
        self.transaction.commit().await.map_err(store_error)
    }

    /// Writes the planned records over the revisions that were read, with the reason of the change.
    async fn put(
        &mut self,
        before: &[KeyRecord],
        planned: &[KeyRecord],
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        // Siblings first: the unique index on active versions must not see the new one beside the old.
        for record in planned.iter().rev() {
            let old = before.iter().find(|old| old.id == record.id);
            match old {
                Some(old) => self.update(old, record).await?,
                None => self.add(record).await?,
            }
            self.audit(old, record, reason).await?;
        }
        Ok(())
    }

    async fn add(&mut self, record: &KeyRecord) -> Result<(), StoreError> {
        let query = sqlx::query(sql::INSERT_KEY)
            .bind(record.id.to_bytes().to_vec())
            .bind(record.scope.as_bytes().to_vec())
            .bind(record.usage.code())
            .bind(record.version.get())
            .bind(record.state.name())
            .bind(record.suspended_from.map(KeyState::name))
            .bind(context_json(record)?)
            .bind(record.key_check.to_bytes().to_vec())
            .bind(record.revision.get())
            .bind(record.created_at.as_micros())
            .bind(record.activated_at.map(Timestamp::as_micros))
            .bind(record.deactivated_at.map(Timestamp::as_micros))
            .bind(record.destroyed_at.map(Timestamp::as_micros))
            .bind(record.changed_at.as_micros());
        execute(self.connection(), query).await?;
        self.add_wraps(record).await
    }

    async fn update(&mut self, old: &KeyRecord, record: &KeyRecord) -> Result<(), StoreError> {
        let query = sqlx::query(sql::UPDATE_KEY)
            .bind(record.id.to_bytes().to_vec())
            .bind(old.revision.get())
            .bind(record.revision.get())
            .bind(record.state.name())
            .bind(record.suspended_from.map(KeyState::name))
            .bind(record.activated_at.map(Timestamp::as_micros))
            .bind(record.deactivated_at.map(Timestamp::as_micros))
            .bind(record.destroyed_at.map(Timestamp::as_micros))
            .bind(record.changed_at.as_micros());
        if execute(self.connection(), query).await? != 1 {
            return Err(StoreError::Conflict);
        }
        if old.wraps != record.wraps {
            let delete = sqlx::query(sql::DELETE_WRAPS).bind(record.id.to_bytes().to_vec());
            execute(self.connection(), delete).await?;
            self.add_wraps(record).await?;
        }
        Ok(())
    }

    async fn add_wraps(&mut self, record: &KeyRecord) -> Result<(), StoreError> {
        for wrap in &record.wraps {
            let query = sqlx::query(sql::INSERT_WRAP)
                .bind(record.id.to_bytes().to_vec())
                .bind(wrap.kms.as_str())
                .bind(wrap.wrapped.kek.as_str())
                .bind(wrap.wrapped.ciphertext.as_slice())
                .bind(wrap.wrapped.kek_material.as_deref());
            execute(self.connection(), query).await?;
        }
        Ok(())
    }

    async fn audit(
        &mut self,
        old: Option<&KeyRecord>,
        record: &KeyRecord,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        let query = sqlx::query(sql::INSERT_AUDIT)
            .bind(record.changed_at.as_micros())
            .bind(record.id.to_bytes().to_vec())
            .bind(record.scope.as_bytes().to_vec())
            .bind(what_changed(old, record))
            .bind(old.map(|old| old.state.name()))
            .bind(record.state.name())
            .bind(reason)
            .bind(self.application);
        execute(self.connection(), query).await?;
        Ok(())
    }
}

//! Replaces wraps: many keys in one transaction, with an outcome for each.

use std::collections::{HashMap, HashSet};

use encx_core::key::DataKeyId;
use encx_core::store::{KeyRecord, StoreError, StoredWrap, Timestamp, WrapChange, WrapOutcome};
use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use uuid::Uuid;

use super::database::Database;
use super::moment::Moment;
use super::sql;
use super::write::Write;
use crate::row::{id_of, records_of};

/// How many keys one transaction changes: enough that round trips and commits cost little, and few enough that other
/// writers do not wait long for locked keys.
const KEYS_PER_WRITE: usize = 500;

type Outcome = Result<KeyRecord, StoreError>;

pub(super) async fn replace(
    database: &Database,
    changes: &[WrapChange],
) -> Result<Vec<WrapOutcome>, StoreError> {
    let mut outcomes: Vec<WrapOutcome> = Vec::with_capacity(changes.len());
    let mut rest = changes;
    while !rest.is_empty() {
        let (together, later) = rest.split_at(distinct(rest));
        rest = later;
        match replace_together(database, together).await {
            Ok(results) => {
                let of = together.iter().zip(results);
                outcomes.extend(of.map(|(change, result)| WrapOutcome::new(change.id, result)));
            }
            Err(error) if outcomes.is_empty() => return Err(error),
            // The rest is not tried: each would time out too.
            Err(error) => {
                let untried = changes.iter().skip(outcomes.len());
                let untried: Vec<_> = untried
                    .map(|change| WrapOutcome::new(change.id, Err(error.clone())))
                    .collect();
                outcomes.extend(untried);
                break;
            }
        }
    }
    Ok(outcomes)
}

/// Counts the leading changes that fit into one transaction. A second change of the same key must see the first.
fn distinct(changes: &[WrapChange]) -> usize {
    let mut seen = HashSet::new();
    let front = changes.iter().take(KEYS_PER_WRITE);
    front.take_while(|change| seen.insert(change.id)).count()
}

/// Replaces the wraps of different keys: one outcome for each.
///
/// # Errors
///
/// An error that makes trying any of them useless.
async fn replace_together(database: &Database, changes: &[WrapChange]) -> Result<Vec<Outcome>, StoreError> {
    let mut outcomes: Vec<Option<Outcome>> = changes.iter().map(|_| None).collect();
    let mut stuck: Option<StoreError> = None;
    loop {
        let open: Vec<_> = (0..changes.len()).filter(|at| outcomes[*at].is_none()).collect();
        let Some(first) = open.first().copied() else { break };
        let tried: Vec<_> = open.iter().map(|at| &changes[*at]).collect();
        match write(database, &tried, sql::LOCK_FREE_KEYS).await {
            Ok(results) => {
                for (at, result) in open.iter().zip(results) {
                    outcomes[*at] = result;
                }
            }
            Err(error) if error.is_retryable() => {
                if open.len() == changes.len() {
                    return Err(error);
                }
                stuck = Some(error);
            }
            // A key that the database refuses must not fail the others, so try each separately.
            Err(_) if open.len() > 1 => {
                for at in &open {
                    let result = wait_for(database, &changes[*at]).await;
                    stuck = result
                        .as_ref()
                        .err()
                        .filter(|error| error.is_retryable())
                        .cloned();
                    outcomes[*at] = Some(result);
                    if stuck.is_some() {
                        break;
                    }
                }
            }
            Err(error) => outcomes[first] = Some(Err(error)),
        }
        // Wait for keys that others have locked, one at a time: the next may be free by then. If one wait fails, the
        // rest is not tried.
        let Some(next) = open.into_iter().find(|at| outcomes[*at].is_none()) else {
            break;
        };
        if let Some(error) = stuck {
            let left = outcomes.iter_mut().filter(|outcome| outcome.is_none());
            left.for_each(|outcome| *outcome = Some(Err(error.clone())));
            break;
        }
        let waited = wait_for(database, &changes[next]).await;
        stuck = waited
            .as_ref()
            .err()
            .filter(|error| error.is_retryable())
            .cloned();
        outcomes[next] = Some(waited);
    }
    Ok(outcomes
        .into_iter()
        .map(|outcome| outcome.unwrap_or(Err(StoreError::Conflict)))
        .collect())
}

async fn wait_for(database: &Database, change: &WrapChange) -> Outcome {
    let mut results = write(database, &[change], sql::LOCK_KEYS).await?;
    results.pop().flatten().unwrap_or(Err(StoreError::Conflict))
}

/// Writes what it can in one transaction. `None` for a key that another transaction has locked.
///
/// The row locks are enough: no version is added, and changes of state lock the same rows in the same order.
async fn write(
    database: &Database,
    changes: &[&WrapChange],
    lock: &'static str,
) -> Result<Vec<Option<Outcome>>, StoreError> {
    let mut write = Write::begin(database).await?;
    let ids: Vec<_> = changes.iter().map(|change| Uuid::from(change.id)).collect();
    let mut locked = HashSet::new();
    for row in &write.fetch(sqlx::query(lock).bind(ids.clone())).await? {
        locked.insert(id_of(row)?);
    }
    let current = read(&mut write, ids).await?;
    let at = write.time().await?;
    let mut replaced = Vec::with_capacity(changes.len());
    let outcomes = changes
        .iter()
        .map(|change| match current.get(&change.id) {
            Some(_) if !locked.contains(&change.id) => None,
            Some(Err(error)) => Some(Err(error.clone())),
            current => {
                let current = current.and_then(|found| found.as_ref().ok());
                let planned = change.plan(current, at);
                if let (Some(before), Ok(after)) = (current, &planned) {
                    replaced.push((before, after.clone(), change.reason.clone()));
                }
                Some(planned)
            }
        })
        .collect();
    if !replaced.is_empty() {
        store(&mut write, &replaced, at).await?;
        write.finish().await?;
    }
    Ok(outcomes)
}

/// Reads keys separately: an unreadable one hides no others.
async fn read(write: &mut Write, ids: Vec<Uuid>) -> Result<HashMap<DataKeyId, Outcome>, StoreError> {
    let rows = write.fetch(sqlx::query(sql::GET).bind(ids)).await?;
    let mut found = HashMap::new();
    for rows in rows.chunk_by(|a, b| matches!((id_of(a), id_of(b)), (Ok(a), Ok(b)) if a == b)) {
        let Some(id) = rows.first().map(id_of).transpose()? else {
            continue;
        };
        let record = records_of(rows);
        let record = record.and_then(|records| records.into_iter().next().ok_or(StoreError::Conflict));
        found.insert(id, record);
    }
    Ok(found)
}

/// Writes records over the revisions that were read.
async fn store(
    write: &mut Write,
    replaced: &[(&KeyRecord, KeyRecord, Option<String>)],
    at: Timestamp,
) -> Result<(), StoreError> {
    let ids: Vec<_> = replaced
        .iter()
        .map(|(_, after, _)| Uuid::from(after.id))
        .collect();
    let revisions = |of: fn(&(&KeyRecord, KeyRecord, Option<String>)) -> i64| -> Vec<i64> {
        replaced.iter().map(of).collect()
    };
    let touch = sqlx::query(sql::TOUCH_KEYS)
        .bind(ids.clone())
        .bind(revisions(|(before, _, _)| before.revision.get()))
        .bind(revisions(|(_, after, _)| after.revision.get()))
        .bind(Moment(at));
    let touched = write.run(touch).await?;
    if usize::try_from(touched) != Ok(replaced.len()) {
        return Err(StoreError::Conflict);
    }
    let (mut only, mut others) = (Wraps::default(), Wraps::default());
    let mut emptied = Vec::new();
    for (before, after, _) in replaced {
        let wraps = match (&before.wraps[..], &after.wraps[..]) {
            (before, after) if before == after => continue,
            ([_], [_]) => &mut only,
            _ => {
                emptied.push(Uuid::from(after.id));
                &mut others
            }
        };
        after.wraps.iter().for_each(|wrap| wraps.push(after.id, wrap));
    }
    if !only.ids.is_empty() {
        write.run(only.bound_to(sql::REPLACE_ONLY_WRAPS)).await?;
    }
    if !emptied.is_empty() {
        write.run(sqlx::query(sql::DELETE_WRAPS_OF).bind(emptied)).await?;
        write.run(others.bound_to(sql::INSERT_WRAPS_OF)).await?;
    }
    let scope = |after: &KeyRecord| after.scope.as_bytes().to_vec();
    let audit = sqlx::query(sql::AUDIT_WRAPS)
        .bind(Moment(at))
        .bind(ids)
        .bind(
            replaced
                .iter()
                .map(|(_, after, _)| scope(after))
                .collect::<Vec<_>>(),
        )
        .bind(
            replaced
                .iter()
                .map(|(_, after, _)| after.state.name())
                .collect::<Vec<_>>(),
        )
        .bind(
            replaced
                .iter()
                .map(|(_, _, reason)| reason.clone())
                .collect::<Vec<_>>(),
        );
    write.run(audit).await?;
    Ok(())
}

/// Rows of wraps, by column.
#[derive(Default)]
struct Wraps {
    ids: Vec<Uuid>,
    kms: Vec<String>,
    keks: Vec<String>,
    ciphertexts: Vec<Vec<u8>>,
    materials: Vec<Option<String>>,
}

impl Wraps {
    fn push(&mut self, id: DataKeyId, wrap: &StoredWrap) {
        self.ids.push(id.into());
        self.kms.push(wrap.kms.as_str().to_owned());
        self.keks.push(wrap.wrapped.kek.as_str().to_owned());
        self.ciphertexts.push(wrap.wrapped.ciphertext.clone());
        self.materials.push(wrap.wrapped.kek_material.clone());
    }

    fn bound_to(self, statement: &'static str) -> Query<'static, Postgres, PgArguments> {
        sqlx::query(statement)
            .bind(self.ids)
            .bind(self.kms)
            .bind(self.keks)
            .bind(self.ciphertexts)
            .bind(self.materials)
    }
}

//! Reads rows of SQLite.

use encx_core::key::DataKeyId;
use encx_core::store::{StoreError, Timestamp};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::changes::{RawChange, change_of};
use crate::row::{RawRow, RawWrap, corrupt_column, corrupt_id};
use crate::shared_work::unreadable;
use crate::summary::{RawCount, RawKekUse};

pub(super) fn id_of(row: &SqliteRow) -> Result<DataKeyId, StoreError> {
    let id: Vec<u8> = row.try_get("id").map_err(|error| corrupt_id(&error))?;
    let id = <[u8; DataKeyId::LEN]>::try_from(id.as_slice()).map_err(|error| corrupt_id(&error))?;
    DataKeyId::from_bytes(id).map_err(|error| corrupt_id(&error))
}

pub(super) fn raw_row(row: &SqliteRow) -> Result<RawRow, StoreError> {
    let id = id_of(row)?;
    macro_rules! column {
        ($name:literal as $kind:ty) => {
            row.try_get::<$kind, _>($name)
                .map_err(|_| corrupt_column(id, $name))?
        };
    }
    let wrap = match column!("kms" as Option<String>) {
        Some(kms) => Some(RawWrap {
            kms,
            kek: column!("kek" as String),
            ciphertext: column!("ciphertext" as Vec<u8>),
            kek_material: column!("kek_material" as Option<String>),
        }),
        None => None,
    };
    Ok(RawRow {
        id,
        scope: column!("scope" as Vec<u8>),
        usage: column!("usage" as i64),
        version: column!("version" as i64),
        state: column!("state" as String),
        suspended_from: column!("suspended_from" as Option<String>),
        context: column!("context" as String),
        key_check: column!("key_check" as Vec<u8>),
        revision: column!("revision" as i64),
        created_at: Timestamp::from_micros(column!("created_at" as i64)),
        activated_at: column!("activated_at" as Option<i64>).map(Timestamp::from_micros),
        deactivated_at: column!("deactivated_at" as Option<i64>).map(Timestamp::from_micros),
        destroyed_at: column!("destroyed_at" as Option<i64>).map(Timestamp::from_micros),
        changed_at: Timestamp::from_micros(column!("changed_at" as i64)),
        wrap,
    })
}

/// Reads a row of the poll; `None` for the row that only contains the last time.
pub(super) fn raw_change(row: &SqliteRow) -> Option<Result<RawChange, StoreError>> {
    let id = match row.try_get::<Option<Vec<u8>>, _>("id") {
        Ok(id) => id?,
        Err(error) => return Some(Err(corrupt_id(&error))),
    };
    let at = match row.try_get::<i64, _>("changed_at") {
        Ok(at) => Timestamp::from_micros(at),
        Err(error) => return Some(Err(corrupt_id(&error))),
    };
    macro_rules! column {
        ($of:ident, $name:literal) => {
            row.try_get($name).map_err(|_| corrupt_column($of, $name))?
        };
    }
    let change = change_of(&id, |id| {
        Ok((
            column!(id, "scope"),
            column!(id, "state"),
            column!(id, "revision"),
        ))
    });
    Some(Ok(RawChange { at, id, change }))
}

pub(super) fn raw_count(row: &SqliteRow) -> Result<RawCount, StoreError> {
    macro_rules! column {
        ($name:literal) => {
            row.try_get($name)
                .map_err(|_| unreadable("data keys", $name))?
        };
    }
    let first: Option<i64> = column!("first_activated_at");
    Ok(RawCount {
        usage: column!("usage"),
        state: column!("state"),
        versions: column!("versions"),
        first_activated_at: first.map(Timestamp::from_micros),
    })
}

pub(super) fn raw_kek_use(row: &SqliteRow) -> Result<RawKekUse, StoreError> {
    macro_rules! column {
        ($name:literal) => {
            row.try_get($name)
                .map_err(|_| unreadable("wrapped keys", $name))?
        };
    }
    Ok(RawKekUse {
        kms: column!("kms"),
        kek: column!("kek"),
        versions: column!("versions"),
        sole: column!("sole"),
    })
}

//! Reads rows of PostgreSQL.

use encx_core::key::DataKeyId;
use encx_core::store::StoreError;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::moment::Moment;
use crate::changes::{RawChange, change_of};
use crate::row::{RawRow, RawWrap, corrupt_column, corrupt_id};
use crate::shared_work::unreadable;
use crate::summary::{RawCount, RawKekUse};

pub(super) fn id_of(row: &PgRow) -> Result<DataKeyId, StoreError> {
    let id: Uuid = row.try_get("id").map_err(|error| corrupt_id(&error))?;
    DataKeyId::try_from(id).map_err(|error| corrupt_id(&error))
}

pub(super) fn raw_row(row: &PgRow) -> Result<RawRow, StoreError> {
    let id = id_of(row)?;
    macro_rules! column {
        ($name:literal as $kind:ty) => {
            row.try_get::<$kind, _>($name)
                .map_err(|_| corrupt_column(id, $name))?
        };
    }
    let at = |moment: Option<Moment>| moment.map(|moment| moment.0);
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
        usage: column!("usage" as i16).into(),
        version: column!("version" as i32).into(),
        state: column!("state" as String),
        suspended_from: column!("suspended_from" as Option<String>),
        context: column!("context" as String),
        key_check: column!("key_check" as Vec<u8>),
        revision: column!("revision" as i64),
        created_at: column!("created_at" as Moment).0,
        activated_at: at(column!("activated_at" as Option<Moment>)),
        deactivated_at: at(column!("deactivated_at" as Option<Moment>)),
        destroyed_at: at(column!("destroyed_at" as Option<Moment>)),
        changed_at: column!("changed_at" as Moment).0,
        wrap,
    })
}

/// Reads a row of the poll; `None` for the row that only contains the time.
pub(super) fn raw_change(row: &PgRow) -> Option<Result<RawChange, StoreError>> {
    let id = match row.try_get::<Option<Uuid>, _>("id") {
        Ok(id) => id?,
        Err(error) => return Some(Err(corrupt_id(&error))),
    };
    let at = match row.try_get::<Moment, _>("changed_at") {
        Ok(at) => at.0,
        Err(error) => return Some(Err(corrupt_id(&error))),
    };
    macro_rules! column {
        ($of:ident, $name:literal) => {
            row.try_get($name).map_err(|_| corrupt_column($of, $name))?
        };
    }
    let change = change_of(id.as_bytes(), |id| {
        Ok((
            column!(id, "scope"),
            column!(id, "state"),
            column!(id, "revision"),
        ))
    });
    let id = id.as_bytes().to_vec();
    Some(Ok(RawChange { at, id, change }))
}

pub(super) fn raw_count(row: &PgRow) -> Result<RawCount, StoreError> {
    macro_rules! column {
        ($name:literal) => {
            row.try_get($name)
                .map_err(|_| unreadable("data keys", $name))?
        };
    }
    let usage: i16 = column!("usage");
    let first: Option<Moment> = column!("first_activated_at");
    Ok(RawCount {
        usage: usage.into(),
        state: column!("state"),
        versions: column!("versions"),
        first_activated_at: first.map(|moment| moment.0),
    })
}

pub(super) fn raw_kek_use(row: &PgRow) -> Result<RawKekUse, StoreError> {
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

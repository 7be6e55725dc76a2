//! Turns rows into records, for both databases, without trusting their contents.

use std::collections::BTreeMap;
use std::error::Error;

use encx_core::key::{
    DataKeyId, KekId, KeyCheck, KeyState, KeyUsage, KeyVersion, KmsName, MAX_WRAPS, Scope, WrappedKey,
};
use encx_core::store::{KeyRecord, Revision, StoreError, StoredWrap, Timestamp};

use crate::columns::{Columns, StoredRow};

/// A row of keys joined with wraps: a key with eight wraps has eight rows.
struct RawRow {
    id: DataKeyId,
    scope: Vec<u8>,
    usage: i64,
    version: i64,
    state: String,
    suspended_from: Option<String>,
    context: String,
    key_check: Vec<u8>,
    revision: i64,
    created_at: Timestamp,
    activated_at: Option<Timestamp>,
    deactivated_at: Option<Timestamp>,
    destroyed_at: Option<Timestamp>,
    changed_at: Timestamp,
    wrap: Option<RawWrap>,
}

struct RawWrap {
    kms: String,
    kek: String,
    ciphertext: Vec<u8>,
    kek_material: Option<String>,
}

/// Returns the id of a key's row.
///
/// # Errors
///
/// [`StoreError::Corrupt`] if it is not the id of a data key.
pub(crate) fn id_of(row: &impl StoredRow) -> Result<DataKeyId, StoreError> {
    let bytes = row.id("id").map_err(|error| corrupt_id(&error))?;
    parse_id(&bytes.unwrap_or_default())
}

pub(crate) fn parse_id(bytes: &[u8]) -> Result<DataKeyId, StoreError> {
    let bytes = <[u8; DataKeyId::LEN]>::try_from(bytes).map_err(|error| corrupt_id(&error))?;
    DataKeyId::from_bytes(bytes).map_err(|error| corrupt_id(&error))
}

fn raw_row<R: StoredRow>(row: &R) -> Result<RawRow, StoreError> {
    let id = id_of(row)?;
    let columns = Columns::new(row, |column| corrupt_column(id, column));
    let wrap = match columns.optional(R::text, "kms")? {
        Some(kms) => Some(RawWrap {
            kms,
            kek: columns.get(R::text, "kek")?,
            ciphertext: columns.get(R::bytes, "ciphertext")?,
            kek_material: columns.optional(R::text, "kek_material")?,
        }),
        None => None,
    };
    Ok(RawRow {
        id,
        scope: columns.get(R::bytes, "scope")?,
        usage: columns.get(R::integer, "usage")?,
        version: columns.get(R::integer, "version")?,
        state: columns.get(R::text, "state")?,
        suspended_from: columns.optional(R::text, "suspended_from")?,
        context: columns.get(R::text, "context")?,
        key_check: columns.get(R::bytes, "key_check")?,
        revision: columns.get(R::integer, "revision")?,
        created_at: columns.get(R::moment, "created_at")?,
        activated_at: columns.optional(R::moment, "activated_at")?,
        deactivated_at: columns.optional(R::moment, "deactivated_at")?,
        destroyed_at: columns.optional(R::moment, "destroyed_at")?,
        changed_at: columns.get(R::moment, "changed_at")?,
        wrap,
    })
}

/// Reads records from rows, in which rows of the same key are adjacent.
///
/// # Errors
///
/// [`StoreError::Corrupt`] with the key's id if encx did not write a row like this.
pub(crate) fn records_of(rows: &[impl StoredRow]) -> Result<Vec<KeyRecord>, StoreError> {
    assemble(rows.iter().map(raw_row))
}

/// Assembles records from rows, in which rows of the same key are adjacent.
///
/// # Errors
///
/// [`StoreError::Corrupt`] with the key's id if encx did not write a row like this.
fn assemble(
    rows: impl IntoIterator<Item = Result<RawRow, StoreError>>,
) -> Result<Vec<KeyRecord>, StoreError> {
    let mut records: Vec<KeyRecord> = Vec::new();
    for row in rows {
        let mut row = row?;
        let id = row.id;
        let wrap = row.wrap.take();
        if records.last().is_none_or(|record| record.id != id) {
            records.push(record(row)?);
        }
        let Some(record) = records.last_mut() else {
            continue;
        };
        if let Some(wrap) = wrap {
            if record.wraps.len() == MAX_WRAPS {
                return Err(corrupt(id, "it has more than 8 wraps"));
            }
            record.wraps.push(stored_wrap(id, wrap)?);
        }
    }
    for record in &mut records {
        // Sorted here rather than in SQL, where the order of text depends on the database's collation.
        record
            .wraps
            .sort_by(|a, b| (&a.kms, &a.wrapped.kek).cmp(&(&b.kms, &b.wrapped.kek)));
    }
    Ok(records)
}

fn record(row: RawRow) -> Result<KeyRecord, StoreError> {
    let id = row.id;
    let unfit = |what: &str| corrupt(id, what);
    let scope = scope_of(id, &row.scope)?;
    let usage = u8::try_from(row.usage).ok().and_then(KeyUsage::from_code);
    let usage = usage.ok_or_else(|| unfit("its usage is unknown"))?;
    let version = u32::try_from(row.version).ok().and_then(KeyVersion::new);
    let version = version.ok_or_else(|| unfit("its version is not a number from 1"))?;
    let key_check = <[u8; 32]>::try_from(row.key_check.as_slice());
    let key_check = KeyCheck::from_bytes(key_check.map_err(|_| unfit("its check does not have 32 bytes"))?);
    let mut record = KeyRecord::new(id, scope, usage, version, key_check, row.created_at);
    record.state = state_of(id, &row.state)?;
    record.suspended_from = match row.suspended_from {
        Some(name) => Some(state_of(id, &name)?),
        None => None,
    };
    if record.suspended_from.is_some() != (record.state == KeyState::Suspended) {
        return Err(unfit(
            "its `suspended_from` is set without being suspended, or missing",
        ));
    }
    record.context = context_of(id, &row.context)?;
    record.revision = revision_of(id, row.revision)?;
    record.activated_at = row.activated_at;
    record.deactivated_at = row.deactivated_at;
    record.destroyed_at = row.destroyed_at;
    record.changed_at = row.changed_at;
    Ok(record)
}

fn stored_wrap(id: DataKeyId, wrap: RawWrap) -> Result<StoredWrap, StoreError> {
    let kms = KmsName::new(wrap.kms).map_err(|error| corrupt(id, &error.to_string()))?;
    let kek = KekId::new(wrap.kek).map_err(|error| corrupt(id, &error.to_string()))?;
    if !(1..=WrappedKey::MAX_LEN).contains(&wrap.ciphertext.len()) {
        return Err(corrupt(id, "a wrap does not have 1 to 8192 bytes"));
    }
    let mut wrapped = WrappedKey::new(kek, wrap.ciphertext);
    wrapped.kek_material = wrap.kek_material;
    Ok(StoredWrap::new(kms, wrapped))
}

/// Parses a context column. Only its reader checks that it is the context of the key's scope.
fn context_of(id: DataKeyId, json: &str) -> Result<BTreeMap<String, String>, StoreError> {
    serde_json::from_str(json).map_err(|_| corrupt(id, "its context is not a JSON object of texts"))
}

pub(crate) fn context_json(record: &KeyRecord) -> Result<String, StoreError> {
    serde_json::to_string(&record.context).map_err(StoreError::database)
}

pub(crate) fn scope_of(id: DataKeyId, bytes: &[u8]) -> Result<Scope, StoreError> {
    <[u8; Scope::LEN]>::try_from(bytes)
        .map(Scope::from_bytes)
        .map_err(|_| corrupt(id, "its scope does not have 32 bytes"))
}

pub(crate) fn state_of(id: DataKeyId, name: &str) -> Result<KeyState, StoreError> {
    KeyState::from_name(name).ok_or_else(|| corrupt(id, "its state is unknown"))
}

pub(crate) fn revision_of(id: DataKeyId, number: i64) -> Result<Revision, StoreError> {
    Revision::new(number).ok_or_else(|| corrupt(id, "its revision is less than 1"))
}

fn corrupt(id: DataKeyId, what: &str) -> StoreError {
    StoreError::Corrupt {
        what: format!("data key {id}: {what}"),
    }
}

/// Returns the error for a row whose id is not a data key's.
pub(crate) fn corrupt_id(what: &dyn Error) -> StoreError {
    StoreError::Corrupt {
        what: format!("a row of the data keys has an invalid id: {what}"),
    }
}

/// Returns the error for a column with a missing value or one of the wrong type.
pub(crate) fn corrupt_column(id: DataKeyId, column: &str) -> StoreError {
    corrupt(
        id,
        &format!("its column `{column}` is missing, NULL or of another type"),
    )
}

/// Returns the description of a change in its audit row.
pub(crate) fn what_changed(before: Option<&KeyRecord>, after: &KeyRecord) -> &'static str {
    match before {
        None => "added",
        // A key suspended while active steps back when another version is promoted: `suspended_from` changes.
        Some(before) if before.state == after.state && before.suspended_from == after.suspended_from => {
            "wraps"
        }
        Some(_) => "state",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(id: DataKeyId) -> RawRow {
        let at = Timestamp::from_micros(1);
        RawRow {
            id,
            scope: vec![1; 32],
            usage: 1,
            version: 1,
            state: "active".to_owned(),
            suspended_from: None,
            context: r#"{"tenantId":"t"}"#.to_owned(),
            key_check: vec![2; 32],
            revision: 1,
            created_at: at,
            activated_at: Some(at),
            deactivated_at: None,
            destroyed_at: None,
            changed_at: at,
            wrap: Some(RawWrap {
                kms: "default".to_owned(),
                kek: "kek".to_owned(),
                ciphertext: vec![1],
                kek_material: None,
            }),
        }
    }

    #[test]
    fn what_encx_did_not_write_is_named_with_the_key() {
        let id = DataKeyId::generate(1, None).unwrap();
        assert_eq!(assemble([Ok(raw(id))]).unwrap().len(), 1);
        type Edit = fn(&mut RawRow);
        let edits: [(&str, Edit); 16] = [
            ("scope", |row| row.scope.truncate(31)),
            ("usage", |row| row.usage = 0),
            ("usage", |row| row.usage = 257),
            ("version", |row| row.version = 0),
            ("version", |row| row.version = i64::MAX),
            ("state", |row| row.state = "Active".to_owned()),
            ("state", |row| row.suspended_from = Some("gone".to_owned())),
            ("suspended", |row| row.suspended_from = Some("active".to_owned())),
            ("suspended", |row| row.state = "suspended".to_owned()),
            ("context", |row| row.context = "[]".to_owned()),
            ("context", |row| row.context = r#"{"a":1}"#.to_owned()),
            ("check", |row| row.key_check.push(0)),
            ("revision", |row| row.revision = 0),
            ("KMS name", |row| row.wrap.as_mut().unwrap().kms.clear()),
            ("KEK id", |row| row.wrap.as_mut().unwrap().kek = "k".repeat(2049)),
            ("wrap", |row| row.wrap.as_mut().unwrap().ciphertext.clear()),
        ];
        for (what, edit) in edits {
            let mut row = raw(id);
            edit(&mut row);
            match assemble([Ok(row)]) {
                Err(StoreError::Corrupt { what: said }) => {
                    assert!(said.contains(&id.to_string()), "{said}");
                    assert!(said.contains(what), "{said} names the {what}");
                }
                other => panic!("an edited {what} gave {other:?}"),
            }
        }
        let many = (0..9).map(|n: u8| {
            let mut row = raw(id);
            row.wrap.as_mut().unwrap().kek = format!("kek-{n}");
            Ok(row)
        });
        assert!(matches!(assemble(many), Err(StoreError::Corrupt { .. })));
    }
}

//! Turns rows of the audit log into entries, for both databases.

use encx_core::key::{KeyState, Scope};
use encx_core::store::{AuditEntry, AuditPage, AuditQuery, AuditedPart, StoreError};

use crate::columns::{StoredRow, of_table};
use crate::row::parse_id;

/// Makes a page of rows. An unreadable one hides no others.
///
/// # Errors
///
/// [`StoreError::Corrupt`] if a row has no number.
pub(crate) fn page_of<R: StoredRow>(rows: &[R], query: &AuditQuery) -> Result<AuditPage, StoreError> {
    let rows = rows.iter().map(|row| {
        let number = of_table("audit log", row).get(R::integer, "seq")?;
        let entry = entry_of(number, row).inspect_err(|error| {
            tracing::warn!(target: "encx::store", %error, "an unreadable entry of the audit log is skipped");
        });
        Ok::<_, StoreError>((number, entry.ok()))
    });
    Ok(AuditPage::of_rows(rows.collect::<Result<_, _>>()?, query.limit))
}

/// # Errors
///
/// [`StoreError::Corrupt`] with the entry's number if encx did not write it.
fn entry_of<R: StoredRow>(number: i64, row: &R) -> Result<AuditEntry, StoreError> {
    let columns = of_table("audit log", row);
    let unfit = |what: &str| StoreError::Corrupt {
        what: format!("entry {number} of the audit log: {what}"),
    };
    let state = |name: String| KeyState::from_name(&name).ok_or_else(|| unfit("its state is unknown"));
    let key = columns.get(R::id, "key_id")?;
    let key = parse_id(&key).map_err(|_| unfit("its key id is invalid"))?;
    let scope = <[u8; Scope::LEN]>::try_from(columns.get(R::bytes, "scope")?);
    let scope = Scope::from_bytes(scope.map_err(|_| unfit("its scope does not have 32 bytes"))?);
    let what = AuditedPart::from_name(&columns.get(R::text, "what")?);
    let what = what.ok_or_else(|| unfit("its kind of change is unknown"))?;
    let to = state(columns.get(R::text, "to_state")?)?;
    let at = columns.get(R::moment, "at")?;
    let mut entry = AuditEntry::new(number, at, key, scope, what, to);
    entry.from = columns.optional(R::text, "from_state")?.map(state).transpose()?;
    entry.reason = columns.optional(R::text, "reason")?;
    // Empty if unknown.
    entry.application = Some(columns.get(R::text, "application")?).filter(|name| !name.is_empty());
    entry.db_user = columns.optional(R::text, "db_user")?;
    Ok(entry)
}

//! Turns rows of the audit log into entries, for both databases.

use encx_core::key::{DataKeyId, KeyState, Scope};
use encx_core::store::{AuditEntry, AuditedPart, StoreError, Timestamp};

/// The columns of an entry.
pub(crate) struct RawEntry {
    pub(crate) number: i64,
    pub(crate) at: Timestamp,
    pub(crate) key: Vec<u8>,
    pub(crate) scope: Vec<u8>,
    pub(crate) what: String,
    pub(crate) from: Option<String>,
    pub(crate) to: String,
    pub(crate) reason: Option<String>,
    /// Empty if unknown.
    pub(crate) application: String,
    pub(crate) db_user: Option<String>,
}

/// Returns an entry, or `None` if encx did not write it: an unreadable row hides no others.
pub(crate) fn readable(row: Result<RawEntry, StoreError>) -> Option<AuditEntry> {
    row.and_then(RawEntry::into_entry)
        .inspect_err(|error| {
            tracing::warn!(target: "encx::store", %error, "an unreadable entry of the audit log is skipped");
        })
        .ok()
}

impl RawEntry {
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] with the entry's number if encx did not write it.
    fn into_entry(self) -> Result<AuditEntry, StoreError> {
        let number = self.number;
        let unfit = |what: &str| StoreError::Corrupt {
            what: format!("entry {number} of the audit log: {what}"),
        };
        let state = |name: &str| KeyState::from_name(name).ok_or_else(|| unfit("its state is unknown"));
        let key = <[u8; DataKeyId::LEN]>::try_from(self.key.as_slice()).ok();
        let key = key.and_then(|bytes| DataKeyId::from_bytes(bytes).ok());
        let key = key.ok_or_else(|| unfit("its key id is invalid"))?;
        let scope = <[u8; Scope::LEN]>::try_from(self.scope.as_slice());
        let scope = Scope::from_bytes(scope.map_err(|_| unfit("its scope does not have 32 bytes"))?);
        let what =
            AuditedPart::from_name(&self.what).ok_or_else(|| unfit("its kind of change is unknown"))?;
        let mut entry = AuditEntry::new(number, self.at, key, scope, what, state(&self.to)?);
        entry.from = self.from.as_deref().map(state).transpose()?;
        entry.reason = self.reason;
        entry.application = Some(self.application).filter(|name| !name.is_empty());
        entry.db_user = self.db_user;
        Ok(entry)
    }
}

//! Turns rows of counts into results, for both databases.

use encx_core::key::{KekId, KeyState, KeyUsage, KmsName};
use encx_core::store::{KekUse, KeyCount, KeySummary, StoreError, Timestamp};

use crate::shared_work::unreadable;

/// The columns of a count of versions.
pub(crate) struct RawCount {
    pub(crate) usage: i64,
    pub(crate) state: String,
    pub(crate) versions: i64,
    pub(crate) first_activated_at: Option<Timestamp>,
}

impl RawCount {
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if the usage or the state is unknown.
    fn into_count(self) -> Result<KeyCount, StoreError> {
        let unfit = |column| unreadable("data keys", column);
        let usage = u8::try_from(self.usage).ok().and_then(KeyUsage::from_code);
        let usage = usage.ok_or_else(|| unfit("usage"))?;
        let state = KeyState::from_name(&self.state).ok_or_else(|| unfit("state"))?;
        let versions = self.versions.unsigned_abs();
        Ok(KeyCount::new(usage, state, versions, self.first_activated_at))
    }
}

/// Assembles counts. Unreadable rows are counted, and hide no others.
pub(crate) fn key_summary(rows: impl IntoIterator<Item = Result<RawCount, StoreError>>) -> KeySummary {
    let (mut counts, mut unreadable) = (Vec::new(), 0u64);
    for row in rows {
        let versions = row.as_ref().map_or(1, |raw| raw.versions.unsigned_abs());
        match row.and_then(RawCount::into_count) {
            Ok(count) => counts.push(count),
            Err(error) => {
                tracing::warn!(target: "encx::store", versions, %error, "versions could not be counted");
                unreadable = unreadable.saturating_add(versions);
            }
        }
    }
    KeySummary::new(counts).with_unreadable(unreadable)
}

/// The columns of a count of wraps.
pub(crate) struct RawKekUse {
    pub(crate) kms: String,
    pub(crate) kek: String,
    pub(crate) versions: i64,
    pub(crate) sole: i64,
}

/// Sorts KEKs, here rather than in SQL, where the order of text depends on the database's collation.
///
/// # Errors
///
/// [`StoreError::Corrupt`] if the name of a KMS or a KEK is invalid.
pub(crate) fn kek_uses(
    rows: impl IntoIterator<Item = Result<RawKekUse, StoreError>>,
) -> Result<Vec<KekUse>, StoreError> {
    let mut uses = Vec::new();
    for row in rows {
        let row = row?;
        let kms = KmsName::new(row.kms).map_err(|_| unreadable("wrapped keys", "kms"))?;
        let kek = KekId::new(row.kek).map_err(|_| unreadable("wrapped keys", "kek"))?;
        uses.push(KekUse::new(
            kms,
            kek,
            row.versions.unsigned_abs(),
            row.sole.unsigned_abs(),
        ));
    }
    uses.sort_by(|a, b| (&a.kms, &a.kek).cmp(&(&b.kms, &b.kek)));
    Ok(uses)
}

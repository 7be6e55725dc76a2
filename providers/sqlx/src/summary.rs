//! Turns rows of counts into results, for both databases.

use encx_core::key::{KekId, KeyState, KeyUsage, KmsName};
use encx_core::store::{KekUse, KeyCount, KeySummary, StoreError};

use crate::columns::{StoredRow, of_table, unreadable};

/// # Errors
///
/// [`StoreError::Corrupt`] if the usage or the state is unknown.
fn count_of<R: StoredRow>(row: &R) -> Result<KeyCount, StoreError> {
    let columns = of_table("data keys", row);
    let unfit = |column| unreadable("data keys", column);
    let usage = u8::try_from(columns.get(R::integer, "usage")?).ok();
    let usage = usage
        .and_then(KeyUsage::from_code)
        .ok_or_else(|| unfit("usage"))?;
    let state = KeyState::from_name(&columns.get(R::text, "state")?).ok_or_else(|| unfit("state"))?;
    let versions = columns.get(R::integer, "versions")?.unsigned_abs();
    let first = columns.optional(R::moment, "first_activated_at")?;
    Ok(KeyCount::new(usage, state, versions, first))
}

/// Assembles counts. Unreadable rows are counted, and hide no others.
pub(crate) fn key_summary<R: StoredRow>(rows: &[R]) -> KeySummary {
    let (mut counts, mut unreadable) = (Vec::new(), 0u64);
    for row in rows {
        match count_of(row) {
            Ok(count) => counts.push(count),
            Err(error) => {
                let versions = row
                    .integer("versions")
                    .ok()
                    .flatten()
                    .map_or(1, i64::unsigned_abs);
                tracing::warn!(target: "encx::store", versions, %error, "versions could not be counted");
                unreadable = unreadable.saturating_add(versions);
            }
        }
    }
    KeySummary::new(counts).with_unreadable(unreadable)
}

/// Sorts KEKs, here rather than in SQL, where the order of text depends on the database's collation.
///
/// # Errors
///
/// [`StoreError::Corrupt`] if the name of a KMS or a KEK is invalid.
pub(crate) fn kek_uses<R: StoredRow>(rows: &[R]) -> Result<Vec<KekUse>, StoreError> {
    let mut uses = Vec::new();
    for row in rows {
        let columns = of_table("wrapped keys", row);
        let unfit = |column| unreadable("wrapped keys", column);
        uses.push(KekUse::new(
            KmsName::new(columns.get(R::text, "kms")?).map_err(|_| unfit("kms"))?,
            KekId::new(columns.get(R::text, "kek")?).map_err(|_| unfit("kek"))?,
            columns.get(R::integer, "versions")?.unsigned_abs(),
            columns.get(R::integer, "sole")?.unsigned_abs(),
        ));
    }
    uses.sort_by(|a, b| (&a.kms, &a.kek).cmp(&(&b.kms, &b.kek)));
    Ok(uses)
}

//! All keys of a context, whatever they are for.

use super::{KeyRecord, KeyStore, StoreError};
use crate::context::EncryptionContext;
use crate::key::{KeyState, KeyUsage, Scope};

/// Loads all versions of all usages in one query.
#[doc(hidden)]
pub async fn load_all_usages(
    store: &dyn KeyStore,
    context: &EncryptionContext,
) -> Result<Vec<KeyRecord>, StoreError> {
    let scopes = KeyUsage::ALL.map(|usage| Scope::of(usage, context));
    let versions = store.load(&scopes).await?;
    for version in &versions {
        version.check_belongs(context, version.usage)?;
    }
    Ok(versions)
}

/// Tells whether there were keys, and all of them are destroyed.
#[doc(hidden)]
#[must_use]
pub fn are_shredded(versions: &[KeyRecord]) -> bool {
    !versions.is_empty()
        && versions
            .iter()
            .all(|version| version.state == KeyState::Destroyed)
}

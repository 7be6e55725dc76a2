//! All keys of a context, of every usage.

use super::{KeyRecord, KeyStore, StoreError};
use crate::context::EncryptionContext;
use crate::key::{KeyUsage, Scope};

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

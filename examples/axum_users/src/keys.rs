//! The keys: one per tenant's data, one to find users by email, one pepper for passwords.

use encx::keys::{KeyManager, KeyUsage};
use encx::{Crypto, EncryptionContext, Error};

/// The context of a tenant's users. Destroying its keys destroys their data.
pub(crate) fn tenant(id: &str) -> Result<EncryptionContext, Error> {
    let context = EncryptionContext::builder()
        .pair("tenantId", id)
        .pair("purpose", "pii");
    Ok(context.build()?)
}

/// The context of a log-in, which knows an email but no tenant yet.
pub(crate) fn login() -> Result<EncryptionContext, Error> {
    Ok(EncryptionContext::builder().pair("purpose", "login").build()?)
}

/// Creates the keys of the log-in, unless they exist: no key is created on first use.
pub(crate) async fn prepare_login(crypto: &Crypto) -> Result<(), Error> {
    let login = login()?;
    for usage in [KeyUsage::Index, KeyUsage::Pepper] {
        ensure(&crypto.key_manager().for_usage(usage), &login).await?;
    }
    Ok(())
}

/// Creates the first version of a context's key, unless it exists.
pub(crate) async fn ensure(keys: &KeyManager, context: &EncryptionContext) -> Result<(), Error> {
    match keys.create(context).await {
        Ok(_) | Err(Error::AlreadyExists) => Ok(()),
        Err(error) => Err(error),
    }
}

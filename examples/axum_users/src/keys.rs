//! Which keys there are: one for each tenant's data, one to find users by email, one pepper for passwords.

use encx::keys::{KeyManager, KeyUsage};
use encx::{Crypto, EncryptionContext, Error};

/// The context of what is known about a tenant's users. Destroying its keys destroys that.
pub(crate) fn tenant(id: &str) -> Result<EncryptionContext, Error> {
    let context = EncryptionContext::builder()
        .pair("tenantId", id)
        .pair("purpose", "pii");
    Ok(context.build()?)
}

/// The context of what a log-in needs, which knows an email and no tenant yet.
pub(crate) fn login() -> Result<EncryptionContext, Error> {
    Ok(EncryptionContext::builder().pair("purpose", "login").build()?)
}

/// Makes the keys of the log-in, unless they are there: nothing is made on first use.
pub(crate) async fn prepare_login(crypto: &Crypto) -> Result<(), Error> {
    let login = login()?;
    for usage in [KeyUsage::Index, KeyUsage::Pepper] {
        ensure(&crypto.key_manager().for_usage(usage), &login).await?;
    }
    Ok(())
}

/// Makes the first version of a context's key, unless it is there.
pub(crate) async fn ensure(keys: &KeyManager, context: &EncryptionContext) -> Result<(), Error> {
    match keys.create(context).await {
        Ok(_) | Err(Error::AlreadyExists) => Ok(()),
        Err(error) => Err(error),
    }
}

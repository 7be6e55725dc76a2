//! The users: encrypted before the database, decrypted after it.

use std::time::Duration;

use encx::Crypto;
use encx::password::PasswordVerdict;
use encx::record::{Password, decrypt_all_in};
use serde::Deserialize;
use uuid::Uuid;

use crate::api_error::ApiError;
use crate::database::Database;
use crate::keys;
use crate::user::{EncryptedUser, User};

/// How long a request waits for other processes to drop the keys of a deleted tenant.
const PATIENCE: Duration = Duration::from_secs(5);

const SHORTEST_PASSWORD: usize = 12;

/// The data of a new user.
#[derive(Deserialize)]
pub(crate) struct NewUser {
    email: String,
    name: String,
    phone: Option<String>,
    password: String,
}

/// All operations on users, on one database and one `Crypto`.
#[derive(Debug)]
pub(crate) struct Users {
    pub(crate) crypto: Crypto,
    pub(crate) database: Database,
}

impl Users {
    /// Creates a tenant's first key. Only a tenant that has one can have users.
    pub(crate) async fn create_tenant(&self, tenant: &str) -> Result<(), ApiError> {
        self.crypto.key_manager().create(&keys::tenant(tenant)?).await?;
        self.database.insert_tenant(tenant).await?;
        Ok(())
    }

    /// Destroys a tenant's keys, and with them every copy of its data, and then deletes its rows. Tells whether every
    /// process has dropped the keys; a process that did not answer may still read for up to its `ttl`.
    ///
    /// In this order, because after an interruption the remaining rows are unreadable, and the next call deletes them.
    pub(crate) async fn delete_tenant(&self, tenant: &str) -> Result<bool, ApiError> {
        let manager = self.crypto.key_manager().because("the tenant was deleted");
        let receipt = manager.shred(&keys::tenant(tenant)?, PATIENCE).await?;
        self.database.delete_tenant(tenant).await?;
        Ok(receipt.is_complete())
    }

    /// Creates a new version of the tenant's key, which encrypts from now on. Values under older versions still
    /// decrypt.
    pub(crate) async fn rotate(&self, tenant: &str) -> Result<u32, ApiError> {
        let rotated = self.crypto.key_manager().rotate(&keys::tenant(tenant)?).await?;
        Ok(rotated.version.get())
    }

    pub(crate) async fn create(&self, tenant: &str, new: NewUser) -> Result<User, ApiError> {
        if new.password.chars().count() < SHORTEST_PASSWORD {
            return Err(ApiError::Invalid("a password has at least 12 characters"));
        }
        if new.email.trim().is_empty() {
            return Err(ApiError::Invalid("an email address is needed to log in"));
        }
        let user = User {
            // Known before encryption: all values are bound to it.
            id: Uuid::now_v7(),
            tenant_id: tenant.to_owned(),
            email: new.email,
            name: new.name,
            phone: new.phone,
            password: Password::new(new.password),
        };
        self.database
            .insert_user(user.encrypt(&self.crypto).await?)
            .await?;
        Ok(user)
    }

    pub(crate) async fn read(&self, tenant: &str, id: Uuid) -> Result<User, ApiError> {
        let row = self
            .database
            .user(tenant, id)
            .await?
            .ok_or(ApiError::NoSuchUser)?;
        Ok(row.decrypt_in(&self.crypto, &keys::tenant(tenant)?).await?)
    }

    pub(crate) async fn list(&self, tenant: &str, after: Uuid, limit: u8) -> Result<Vec<User>, ApiError> {
        let rows = self.database.users(tenant, after, limit).await?;
        Ok(decrypt_all_in(&self.crypto, &keys::tenant(tenant)?, rows).await?)
    }

    pub(crate) async fn search(&self, tenant: &str, email: &str) -> Result<Vec<User>, ApiError> {
        let mut rows = self.candidates(email).await?;
        rows.retain(|row| row.tenant_id == tenant);
        Ok(User::matching_email_in(&self.crypto, &keys::tenant(tenant)?, rows, email).await?)
    }

    /// Returns the user, with the tenant that the row names: the row decrypts only under that tenant. The caller acts
    /// for that tenant, and not for a tenant named in the request.
    pub(crate) async fn log_in(&self, email: &str, password: &str) -> Result<User, ApiError> {
        let candidates = self.candidates(email).await?;
        if candidates.is_empty() {
            // Takes as long as for an existing user, so the time does not tell which users exist.
            let _ = self.crypto.verify_nobody(&keys::login()?, password).await?;
        }
        for row in candidates {
            let PasswordVerdict::Match { needs_rehash } = row.verify_password(&self.crypto, password).await?
            else {
                continue;
            };
            if needs_rehash {
                // Rehashes now that the password is known.
                let hash = row.hash_password(&self.crypto, password).await?;
                self.database.set_password(row.id, hash).await?;
            }
            if let Some(user) = User::matching_email(&self.crypto, [row], email).await?.pop() {
                return Ok(user);
            }
        }
        Err(ApiError::WrongPassword)
    }

    /// Finds rows that may have this email: those with the same blind index.
    async fn candidates(&self, email: &str) -> Result<Vec<EncryptedUser>, ApiError> {
        let terms = User::email_terms(&self.crypto, email).await?;
        Ok(self.database.users_by_email(&terms).await?)
    }
}

/// Renaming a field must not make existing rows unreadable.
#[cfg(test)]
mod tests {
    use super::User;

    #[test]
    fn users_are_kept_as_before() {
        let manifest = "\
table users
id id: uuid
context tenantId = column tenant_id
context purpose = \"pii\"
field email: text, in users.email
field name: text, in users.name
field phone: text, in users.phone
index of email as email/2, 64 bits, in users.email_index, context purpose = \"login\"
password password: in users.password, context purpose = \"login\"
";
        assert_eq!(User::encx_manifest(), manifest);
    }
}

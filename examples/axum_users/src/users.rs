//! The users: encrypted on the way into the database, decrypted on the way out.

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

/// How long a request waits for other processes to drop the keys of a tenant that is deleted.
const PATIENCE: Duration = Duration::from_secs(5);

const SHORTEST_PASSWORD: usize = 12;

/// What is asked for of a new user.
#[derive(Deserialize)]
pub(crate) struct NewUser {
    email: String,
    name: String,
    phone: Option<String>,
    password: String,
}

/// All that can be done with users, on one database and one `Crypto`.
#[derive(Debug)]
pub(crate) struct Users {
    pub(crate) crypto: Crypto,
    pub(crate) database: Database,
}

impl Users {
    /// Makes a tenant's first key. Only a tenant that has one can have users.
    pub(crate) async fn create_tenant(&self, tenant: &str) -> Result<(), ApiError> {
        self.crypto.key_manager().create(&keys::tenant(tenant)?).await?;
        self.database.insert_tenant(tenant).await?;
        Ok(())
    }

    /// Destroys a tenant's keys, with which every copy of its data is lost, and then deletes its rows. Tells whether every
    /// process has dropped the keys; one that was not heard of may still read for as long as its `ttl`.
    ///
    /// In this order: if it is interrupted, what remains is unreadable, and the next call deletes it.
    pub(crate) async fn delete_tenant(&self, tenant: &str) -> Result<bool, ApiError> {
        let manager = self.crypto.key_manager().because("the tenant was deleted");
        let receipt = manager.shred(&keys::tenant(tenant)?, PATIENCE).await?;
        self.database.delete_tenant(tenant).await?;
        Ok(receipt.is_complete())
    }

    /// Has a new version of the tenant's key encrypt from now on. What older ones encrypted still opens.
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
            // Known before anything is encrypted: everything is bound to it.
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

    /// Returns the user, whose tenant is the one that the row names: it opens there alone. Whoever logs in acts for that one,
    /// and for no tenant that was named otherwise.
    pub(crate) async fn log_in(&self, email: &str, password: &str) -> Result<User, ApiError> {
        let candidates = self.candidates(email).await?;
        if candidates.is_empty() {
            // Takes as long as for a user who exists, so that the time does not tell who does.
            let _ = self.crypto.verify_nobody(&keys::login()?, password).await?;
        }
        for row in candidates {
            let PasswordVerdict::Match { needs_rehash } = row.verify_password(&self.crypto, password).await?
            else {
                continue;
            };
            if needs_rehash {
                // Now it is known.
                let hash = row.hash_password(&self.crypto, password).await?;
                self.database.set_password(row.id, hash).await?;
            }
            if let Some(user) = User::matching_email(&self.crypto, [row], email).await?.pop() {
                return Ok(user);
            }
        }
        Err(ApiError::WrongPassword)
    }

    /// Finds rows that may have this email: those whose blind index is the same.
    async fn candidates(&self, email: &str) -> Result<Vec<EncryptedUser>, ApiError> {
        let terms = User::email_terms(&self.crypto, email).await?;
        Ok(self.database.users_by_email(&terms).await?)
    }
}

/// Renaming a field must not make the rows unreadable that there are.
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

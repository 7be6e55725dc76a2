//! The users: encrypted on the way into the database, decrypted on the way out.

use std::time::Duration;

use encx::{Crypto, Encrypt, Field, IndexField, Normalizer, PasswordVerdict, decrypt_all};
use serde::Deserialize;
use uuid::Uuid;

use crate::api_error::ApiError;
use crate::database::{Database, UserRow};
use crate::keys;

/// A user of a tenant. `EncryptedUser` is what the table keeps.
#[derive(Encrypt)]
#[encx(table = "users", context("tenantId" = tenant_id, "purpose" = "pii"))]
#[encx(encrypted(derive(sqlx::FromRow)))]
pub(crate) struct User {
    #[encx(id)]
    pub(crate) id: Uuid,
    pub(crate) tenant_id: String,
    #[encx(encrypt)]
    pub(crate) email: String,
    #[encx(encrypt)]
    pub(crate) name: String,
    #[encx(encrypt)]
    pub(crate) phone: Option<String>,
}

/// Finds users by email, of all tenants: a log-in knows no tenant. With so many bits an email has a term of its own, so who
/// has the database sees which users share one, and nothing else of it.
const EMAIL_INDEX: IndexField = IndexField::new("users", "email", 64).normalize(Normalizer::Email);

/// Where a password's hash lies. A hash that is copied to another user's row does not verify there.
const PASSWORD: Field = Field::new("users", "password");

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
        let login = keys::login()?;
        // Known before anything is encrypted: everything is bound to it.
        let id = Uuid::now_v7();
        let email_index = self.crypto.blind_index(&login, &EMAIL_INDEX, &new.email).await?;
        let password = self
            .crypto
            .hash_password(&login, &new.password, PASSWORD.row(id))
            .await?;
        let user = User {
            id,
            tenant_id: tenant.to_owned(),
            email: new.email,
            name: new.name,
            phone: new.phone,
        };
        let row = UserRow {
            user: user.encrypt(&self.crypto).await?,
            email_index,
            password,
        };
        self.database.insert_user(row).await?;
        Ok(user)
    }

    pub(crate) async fn read(&self, tenant: &str, id: Uuid) -> Result<User, ApiError> {
        let row = self
            .database
            .user(tenant, id)
            .await?
            .ok_or(ApiError::NoSuchUser)?;
        Ok(row.decrypt(&self.crypto).await?)
    }

    pub(crate) async fn list(&self, tenant: &str, after: Uuid, limit: u8) -> Result<Vec<User>, ApiError> {
        let rows = self.database.users(tenant, after, limit).await?;
        Ok(decrypt_all(&self.crypto, rows).await?)
    }

    pub(crate) async fn search(&self, tenant: &str, email: &str) -> Result<Vec<User>, ApiError> {
        let mut rows = self.candidates(email).await?;
        rows.retain(|row| row.user.tenant_id == tenant);
        let users = decrypt_all(&self.crypto, rows.into_iter().map(|row| row.user)).await?;
        Ok(users.into_iter().filter(|user| has_email(user, email)).collect())
    }

    pub(crate) async fn log_in(&self, email: &str, password: &str) -> Result<User, ApiError> {
        let login = keys::login()?;
        let mut compared = false;
        for UserRow {
            user, password: hash, ..
        } in self.candidates(email).await?
        {
            let verdict = self
                .crypto
                .verify_password(&login, &hash, password, PASSWORD.row(user.id))
                .await?;
            compared = true;
            let PasswordVerdict::Match { needs_rehash } = verdict else {
                continue;
            };
            let user = user.decrypt(&self.crypto).await?;
            if !has_email(&user, email) {
                continue;
            }
            if needs_rehash {
                // Now it is known.
                let hash = self
                    .crypto
                    .hash_password(&login, password, PASSWORD.row(user.id))
                    .await?;
                self.database.set_password(user.id, hash).await?;
            }
            return Ok(user);
        }
        if !compared {
            // Takes as long as for a user who exists, so that the time does not tell who does.
            let _ = self.crypto.verify_nobody(&login, password).await?;
        }
        Err(ApiError::WrongPassword)
    }

    /// Finds rows that may have this email: those whose blind index is the same.
    async fn candidates(&self, email: &str) -> Result<Vec<UserRow>, ApiError> {
        let terms = self
            .crypto
            .index_terms(&keys::login()?, &EMAIL_INDEX, email)
            .await?;
        Ok(self.database.users_by_email(&terms).await?)
    }
}

fn has_email(user: &User, email: &str) -> bool {
    user.email.trim().to_lowercase() == email.trim().to_lowercase()
}

//! What is kept of a user.

use encx::Encrypt;
use encx::record::Password;
use uuid::Uuid;

/// A user of a tenant. `EncryptedUser` is what the table keeps.
///
/// Users are found by email, and log in, in all tenants: a log-in knows no tenant. With so many bits an email has a term of its
/// own, so whoever has the database sees which users share one, and nothing else of it.
#[derive(Encrypt)]
#[encx(table = "users", context("tenantId" = tenant_id, "purpose" = "pii"))]
#[encx(encrypted(derive(sqlx::FromRow)))]
pub(crate) struct User {
    #[encx(id)]
    pub(crate) id: Uuid,
    pub(crate) tenant_id: String,
    #[encx(encrypt, index(normalize = "email", bits = 64, context("purpose" = "login")))]
    pub(crate) email: String,
    #[encx(encrypt)]
    pub(crate) name: String,
    #[encx(encrypt)]
    pub(crate) phone: Option<String>,
    #[encx(password(context("purpose" = "login")))]
    pub(crate) password: Password,
}

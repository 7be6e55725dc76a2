//! A user's record.

use encx::Encrypt;
use encx::record::Password;
use uuid::Uuid;

/// A user of a tenant. `EncryptedUser` is its row.
///
/// Users are found by email, and log in, across all tenants: a log-in knows no tenant. With this many bits each email
/// has its own term, so a copy of the database shows which users share an email, and nothing else about it.
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

//! The API token code of `docs/derive.md`, compiled once per database.

use super::PgPool;
use crate::document::Result;

use encx::token::{ApiToken, TokenDigest};
use encx::{Crypto, Encrypt};
use uuid::Uuid;

#[derive(Encrypt, Clone, Debug, PartialEq)]
#[encx(table = "tokens", context("purpose" = "tokens"))]
#[encx(encrypted(derive(sqlx::FromRow)))]
pub(super) struct Token {
    #[encx(id)]
    pub(super) id: Uuid,
    pub(super) owner: String,
    pub(super) rights: String,
    pub(super) expires_at: i64, // seconds since 1970
    #[encx(token, bind(owner, rights, expires_at))]
    pub(super) digest: TokenDigest,
}

pub(super) async fn issue(
    crypto: &Crypto,
    pool: &PgPool,
    owner: &str,
    rights: &str,
    expires_at: i64,
) -> Result<ApiToken> {
    let token = ApiToken::generate("acme")?;
    let row = Token {
        id: token.id(),
        owner: owner.to_owned(),
        rights: rights.to_owned(),
        expires_at,
        digest: token.digest(),
    };
    let row = row.encrypt(crypto).await?;
    let sql = "INSERT INTO tokens (id, owner, rights, expires_at, digest) VALUES ($1, $2, $3, $4, $5)";
    let insert = sqlx::query(sql).bind(row.id).bind(row.owner).bind(row.rights);
    insert.bind(row.expires_at).bind(row.digest).execute(pool).await?;
    Ok(token) // its owner sees `token.expose()` now, and never again
}

/// Returns what the token may do; `None` refuses it.
pub(super) async fn authenticate(
    crypto: &Crypto,
    pool: &PgPool,
    presented: &str,
    now: i64,
) -> Result<Option<Token>> {
    let Ok(presented) = ApiToken::parse(presented) else {
        return Ok(None);
    };
    let query = sqlx::query_as("SELECT * FROM tokens WHERE id = $1").bind(presented.id());
    let row: Option<EncryptedToken> = query.fetch_optional(pool).await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let token = row.decrypt(crypto).await?; // fails if any of its columns was changed
    let is_valid = token.digest.is_of(&presented) && now < token.expires_at;
    Ok(is_valid.then_some(token))
}

/// Gives a token other rights: the digest is encrypted again, for the new ones.
pub(super) async fn restrict(crypto: &Crypto, pool: &PgPool, mut token: Token, rights: &str) -> Result<()> {
    token.rights = rights.to_owned();
    let row = token.encrypt(crypto).await?;
    let sql = "UPDATE tokens SET rights = $1, digest = $2 WHERE id = $3";
    let update = sqlx::query(sql).bind(row.rights).bind(row.digest);
    update.bind(row.id).execute(pool).await?;
    Ok(())
}

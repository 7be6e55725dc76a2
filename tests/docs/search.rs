//! The code of `docs/search.md`.

use std::time::Duration;

use encx::keys::{DataKeyId, KeyUsage};
use encx::record::FieldCodec;
use encx::search::{BlindIndex, IndexField, IndexPart, Normalizer};
use encx::token::{ApiToken, TokenDigest};
use encx::{Aad, Ciphertext, Crypto, EncryptionContext, Field};
use encx_testkit::{MemoryKeyStore, MemoryKms};
use sqlx::QueryBuilder;
use sqlx::sqlite::SqlitePool;
use uuid::Uuid;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const EMAIL: Field = Field::new("users", "email");
const BY_EMAIL: IndexField = IndexField::new("users", "email", 64).normalize(Normalizer::Email);

async fn insert(
    crypto: &Crypto,
    pool: &SqlitePool,
    context: &EncryptionContext,
    id: i64,
    email: &str,
) -> Result<()> {
    let sealed = crypto.encrypt(context, email, EMAIL.row(id)).await?;
    let index = crypto.blind_index(context, &BY_EMAIL, email).await?;
    let sql = "INSERT INTO users (id, email, email_index) VALUES ($1, $2, $3)";
    let insert = sqlx::query(sql).bind(id).bind(sealed).bind(index);
    insert.execute(pool).await?;
    Ok(())
}

async fn find(
    crypto: &Crypto,
    pool: &SqlitePool,
    context: &EncryptionContext,
    email: &str,
) -> Result<Vec<i64>> {
    // One term for each version of the index key, so that rows from before a rotation are found too.
    let terms = crypto.index_terms(context, &BY_EMAIL, email).await?;
    let mut query = QueryBuilder::new("SELECT id, email FROM users WHERE email_index");
    terms.push_in(&mut query); // appends IN (?, ?)
    let candidates: Vec<(i64, Ciphertext)> = query.build_query_as().fetch_all(pool).await?;

    let mut found = Vec::new();
    for (id, sealed) in candidates {
        let opened = crypto.decrypt(context, &sealed, EMAIL.row(id)).await?;
        if BY_EMAIL.is_same(opened.into_string()?, email)? {
            found.push(id);
        }
    }
    Ok(found)
}

#[cfg(feature = "sqlx-0_9-postgres")]
#[allow(
    dead_code,
    reason = "it has to compile; the tests of encx-sqlx run such a query"
)]
async fn candidates(
    crypto: &Crypto,
    pool: &sqlx::postgres::PgPool,
    context: &EncryptionContext,
    email: &str,
) -> Result<Vec<(i64, Ciphertext)>> {
    let terms = crypto.index_terms(context, &BY_EMAIL, email).await?;
    let sql = "SELECT id, email FROM users WHERE email_index = ANY($1)";
    let candidates: Vec<(i64, Ciphertext)> =
        sqlx::query_as(sql).bind(terms.as_slice()).fetch_all(pool).await?;
    Ok(candidates)
}

async fn index_for_log_ins(crypto: &Crypto, email: &str) -> Result<BlindIndex> {
    let login = EncryptionContext::builder().pair("purpose", "login").build()?;
    let index = crypto.blind_index(&login, &BY_EMAIL, email).await?;
    Ok(index)
}

const BY_CITY: IndexField = IndexField::new("users", "city", 10)
    .normalize(Normalizer::CaseFold)
    .expecting(10_000);

const ORDER_NUMBER: Normalizer = Normalizer::custom("order-number", 1, |text| {
    let number = text.replace('-', "");
    number
        .bytes()
        .all(|c| c.is_ascii_alphanumeric())
        .then_some(number)
});
const BY_ORDER: IndexField = IndexField::new("orders", "number", 48).normalize(ORDER_NUMBER);

const BY_NAME_AND_BIRTH: IndexField = IndexField::compound(
    "patients",
    &[
        IndexPart::new("last_name").normalize(Normalizer::CaseFold),
        IndexPart::new("born"),
    ],
    32,
);

async fn rotate(crypto: &Crypto, pool: &SqlitePool, context: &EncryptionContext) -> Result<()> {
    let keys = crypto.key_manager().for_usage(KeyUsage::Index);
    // From here on all processes search for the next version too, and none writes it yet.
    keys.prepare(context).await?;
    let processes = keys.await_processes(Duration::from_secs(30)).await?;
    if !processes.is_complete() {
        return Err(format!("try again later: {:?} did not answer", processes.silent).into());
    }
    keys.rotate(context).await?;

    let sql = "SELECT id, email, email_index FROM users";
    let rows: Vec<(i64, Ciphertext, BlindIndex)> = sqlx::query_as(sql).fetch_all(pool).await?;
    for (id, sealed, index) in rows {
        if crypto.needs_reindex(context, &index).await? {
            let email = crypto
                .decrypt(context, &sealed, EMAIL.row(id))
                .await?
                .into_string()?;
            let again = crypto.blind_index(context, &BY_EMAIL, email).await?;
            // Writes only if the value is unchanged.
            let sql = "UPDATE users SET email_index = $1 WHERE id = $2 AND email = $3";
            let update = sqlx::query(sql).bind(again).bind(id).bind(sealed);
            update.execute(pool).await?;
        }
    }
    Ok(())
}

async fn reindex(crypto: &Crypto, pool: &SqlitePool, context: &EncryptionContext) -> Result<()> {
    let sql = "SELECT id, email, email_index FROM users";
    let rows: Vec<(i64, Ciphertext, BlindIndex)> = sqlx::query_as(sql).fetch_all(pool).await?;
    for (id, sealed, index) in rows {
        let email = crypto.decrypt(context, &sealed, EMAIL.row(id)).await?;
        let email = email.into_string()?;
        let again = crypto.blind_index(context, &BY_EMAIL, email).await?;
        if again != index {
            let sql = "UPDATE users SET email_index = $1 WHERE id = $2 AND email = $3";
            let update = sqlx::query(sql).bind(again).bind(id).bind(sealed);
            update.execute(pool).await?;
        }
    }
    Ok(())
}

mod unique {
    use super::*;

    const NAME: Field = Field::new("accounts", "name");
    const NOTE: Field = Field::new("accounts", "note");
    const BY_NAME: IndexField = IndexField::new("accounts", "name", 128)
        .normalize(Normalizer::CaseFold)
        .unique();

    pub(super) async fn prepare(crypto: &Crypto, context: &EncryptionContext) -> Result<DataKeyId> {
        let keys = crypto.key_manager().for_usage(KeyUsage::Index);
        let next: DataKeyId = keys.prepare(context).await?.id;
        Ok(next)
    }

    pub(super) async fn sign_up(
        crypto: &Crypto,
        pool: &SqlitePool,
        context: &EncryptionContext,
        id: i64,
        name: &str,
    ) -> Result<()> {
        let sealed = crypto.encrypt(context, name, NAME.row(id)).await?;
        let index = crypto.blind_index(context, &BY_NAME, name).await?;
        let sql = "INSERT INTO accounts (id, name, name_index) VALUES ($1, $2, $3)";
        let insert = sqlx::query(sql).bind(id).bind(sealed).bind(index);
        insert.execute(pool).await?;
        Ok(())
    }

    pub(super) async fn id_of(
        crypto: &Crypto,
        pool: &SqlitePool,
        context: &EncryptionContext,
        name: &str,
    ) -> Result<Option<i64>> {
        let terms = crypto.index_terms(context, &BY_NAME, name).await?;
        let mut query = QueryBuilder::new("SELECT id FROM accounts WHERE name_index");
        terms.push_in(&mut query);
        Ok(query.build_query_scalar().fetch_optional(pool).await?)
    }

    /// Sets the note of the account of this name. It gets `new_id` if there is no such account.
    pub(super) async fn save(
        crypto: &Crypto,
        pool: &SqlitePool,
        context: &EncryptionContext,
        new_id: i64,
        name: &str,
        note: &str,
    ) -> Result<i64> {
        loop {
            if let Some(id) = id_of(crypto, pool, context, name).await? {
                // Encrypted for the row that stays.
                let note = crypto.encrypt(context, note, NOTE.row(id)).await?;
                let update = sqlx::query("UPDATE accounts SET note = $1 WHERE id = $2");
                let done = update.bind(note).bind(id).execute(pool).await?;
                if done.rows_affected() == 1 {
                    return Ok(id);
                }
            } else {
                let sealed = crypto.encrypt(context, name, NAME.row(new_id)).await?;
                let index = crypto.blind_index(context, &BY_NAME, name).await?;
                let note = crypto.encrypt(context, note, NOTE.row(new_id)).await?;
                let sql = "INSERT INTO accounts (id, name, name_index, note) VALUES ($1, $2, $3, $4) \
                           ON CONFLICT (name_index) DO NOTHING";
                let insert = sqlx::query(sql).bind(new_id).bind(sealed).bind(index);
                let done = insert.bind(note).execute(pool).await?;
                if done.rows_affected() == 1 {
                    return Ok(new_id);
                }
            }
            // Another call inserted or deleted the row just now. Look again.
        }
    }

    /// Reads all accounts: id, name and note.
    pub(super) async fn all(
        crypto: &Crypto,
        pool: &SqlitePool,
        context: &EncryptionContext,
    ) -> Result<Vec<(i64, String, String)>> {
        let sql = "SELECT id, name, note FROM accounts ORDER BY id";
        let rows: Vec<(i64, Ciphertext, Ciphertext)> = sqlx::query_as(sql).fetch_all(pool).await?;
        let mut all = Vec::new();
        for (id, name, note) in rows {
            let name = crypto.decrypt(context, &name, NAME.row(id)).await?;
            let note = crypto.decrypt(context, &note, NOTE.row(id)).await?;
            all.push((id, name.into_string()?, note.into_string()?));
        }
        Ok(all)
    }

    pub(super) async fn sign_up_concurrently(
        crypto: &Crypto,
        pool: &SqlitePool,
        context: &EncryptionContext,
        id: i64,
        name: &str,
        next: DataKeyId,
    ) -> Result<()> {
        let sealed = crypto.encrypt(context, name, NAME.row(id)).await?;
        let index = crypto.blind_index(context, &BY_NAME, name).await?;
        let index_2 = crypto.blind_index_under(context, &BY_NAME, name, next).await?;
        let sql = "INSERT INTO accounts (id, name, name_index, name_index_2) VALUES ($1, $2, $3, $4)";
        let insert = sqlx::query(sql).bind(id).bind(sealed).bind(index).bind(index_2);
        insert.execute(pool).await?;
        Ok(())
    }

    pub(super) async fn fill(
        crypto: &Crypto,
        pool: &SqlitePool,
        context: &EncryptionContext,
        next: DataKeyId,
    ) -> Result<()> {
        let sql = "SELECT id, name FROM accounts WHERE name_index_2 IS NULL";
        let rows: Vec<(i64, Ciphertext)> = sqlx::query_as(sql).fetch_all(pool).await?;
        for (id, sealed) in rows {
            let name = crypto.decrypt(context, &sealed, NAME.row(id)).await?;
            let name = name.into_string()?;
            let index_2 = crypto.blind_index_under(context, &BY_NAME, name, next).await?;
            let sql = "UPDATE accounts SET name_index_2 = $1 WHERE id = $2 AND name = $3";
            let update = sqlx::query(sql).bind(index_2).bind(id).bind(sealed);
            update.execute(pool).await?;
        }
        Ok(())
    }
}

const DIGEST: Field = Field::new("tokens", "digest");

fn place(id: Uuid, owner: &str, rights: &str, expires_at: i64) -> Aad {
    let row = DIGEST.row(id);
    row.bind("owner", owner)
        .bind("rights", rights)
        .bind("expires_at", expires_at)
}

async fn issue(
    crypto: &Crypto,
    context: &EncryptionContext,
    owner: &str,
    rights: &str,
    expires_at: i64,
) -> Result<(ApiToken, Ciphertext)> {
    let token = ApiToken::generate("acme")?;
    let place = place(token.id(), owner, rights, expires_at);
    let digest = token.digest();
    let sealed = crypto.encrypt(context, digest.encode()?, place).await?;
    Ok((token, sealed))
}

async fn is_valid(
    crypto: &Crypto,
    context: &EncryptionContext,
    presented: &ApiToken,
    sealed: &Ciphertext,
    (owner, rights, expires_at): (&str, &str, i64),
    now: i64,
) -> Result<bool> {
    let place = place(presented.id(), owner, rights, expires_at); // as the row says
    let opened = crypto.decrypt(context, sealed, place).await?;
    let is_valid = TokenDigest::decode(opened.as_bytes())?.is_of(presented) && now < expires_at;
    Ok(is_valid)
}

async fn world() -> Result<(Crypto, SqlitePool, EncryptionContext)> {
    // A database in memory belongs to its connection.
    let one = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
    let pool = one.connect("sqlite::memory:").await?;
    for sql in [
        "CREATE TABLE users (id INTEGER PRIMARY KEY, email BLOB NOT NULL, email_index BLOB NOT NULL)",
        "CREATE TABLE accounts (id INTEGER PRIMARY KEY, name BLOB NOT NULL, name_index BLOB UNIQUE, \
         name_index_2 BLOB UNIQUE, note BLOB)",
    ] {
        sqlx::query(sql).execute(&pool).await?;
    }
    let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new());
    let context = EncryptionContext::from_pairs([("tenantId", "acme")])?;
    Ok((crypto.build().await?, pool, context))
}

#[tokio::test]
async fn rows_are_found_before_and_after_a_rotation() -> Result<()> {
    let (crypto, pool, acme) = world().await?;
    insert(&crypto, &pool, &acme, 1, "Ada@BÜCHER.example").await?;
    insert(&crypto, &pool, &acme, 2, "eve@example.org").await?;
    let find = async |email| find(&crypto, &pool, &acme, email).await;
    assert_eq!(find(" ada@bücher.EXAMPLE").await?, [1]);
    let old: Vec<BlindIndex> = sqlx::query_scalar("SELECT email_index FROM users ORDER BY id")
        .fetch_all(&pool)
        .await?;

    rotate(&crypto, &pool, &acme).await?;
    insert(&crypto, &pool, &acme, 3, "ada@bücher.example").await?;
    assert_eq!(find("ada@bücher.example").await?, [1, 3]);
    assert_eq!(find("eve@example.org").await?, [2]);
    let new: Vec<BlindIndex> = sqlx::query_scalar("SELECT email_index FROM users ORDER BY id")
        .fetch_all(&pool)
        .await?;
    assert_eq!(new[0], new[2], "row 1 was reindexed");
    assert!(old.iter().all(|index| !new.contains(index)));

    let indexed = index_for_log_ins(&crypto, "eve@example.org").await?;
    assert!(!new.contains(&indexed), "another context, another key");
    crypto.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn a_unique_column_stays_so_over_a_rotation() -> Result<()> {
    let (crypto, pool, acme) = world().await?;
    unique::sign_up(&crypto, &pool, &acme, 1, "Ada").await?;
    unique::sign_up(&crypto, &pool, &acme, 2, "ADA")
        .await
        .unwrap_err();

    let next = unique::prepare(&crypto, &acme).await?;
    let sign_up = async |id, name| unique::sign_up_concurrently(&crypto, &pool, &acme, id, name, next).await;
    sign_up(3, "Eve").await?;
    sign_up(4, "ada").await.unwrap_err();
    unique::fill(&crypto, &pool, &acme, next).await?;
    let keys = crypto.key_manager().for_usage(KeyUsage::Index);
    assert_eq!(keys.rotate(&acme).await?.id, next);
    for name in ["ada", "EVE"] {
        sign_up(5, name).await.unwrap_err();
    }
    sign_up(5, "Charles").await?;
    crypto.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn the_other_indexes_find_what_they_should() -> Result<()> {
    let (crypto, _, acme) = world().await?;
    let kept = crypto
        .blind_index(&acme, &BY_NAME_AND_BIRTH, ("LOVELACE", "1815-12-10"))
        .await?;
    let terms = crypto
        .index_terms(&acme, &BY_NAME_AND_BIRTH, ("Lovelace", "1815-12-10"))
        .await?;
    assert!(terms.contains(&kept));
    assert!(BY_CITY.is_same("Straßburg", "STRASSBURG")?);
    assert!(BY_ORDER.is_same("ab-12", "ab12")?);
    assert!(BY_ORDER.is_same("ab 12", "ab12").is_err());
    crypto.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn an_upsert_keeps_its_row_readable() -> Result<()> {
    let (crypto, pool, acme) = world().await?;
    let calls = (1..=8).map(|id| {
        let (crypto, pool, acme) = (crypto.clone(), pool.clone(), acme.clone());
        async move { unique::save(&crypto, &pool, &acme, id, "Ada", &format!("note {id}")).await }
    });
    let saved = futures_util::future::join_all(calls).await;
    let [(id, name, note)] = unique::all(&crypto, &pool, &acme).await?.try_into().unwrap();
    assert!(saved.into_iter().all(|saved| saved.unwrap() == id));
    assert!(name == "Ada" && note.starts_with("note "));
    assert_eq!(unique::save(&crypto, &pool, &acme, 9, "ADA", "new").await?, id);
    assert_eq!(unique::save(&crypto, &pool, &acme, 9, "Eve", "hers").await?, 9);
    let all = unique::all(&crypto, &pool, &acme).await?;
    let notes: Vec<_> = all.iter().map(|(id, _, note)| (*id, note.as_str())).collect();
    assert_eq!(notes, [(id, "new"), (9, "hers")]);
    crypto.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn a_token_is_valid_only_as_it_was_issued() -> Result<()> {
    let (crypto, _, acme) = world().await?;
    let (token, sealed) = issue(&crypto, &acme, "ada", "read", 100).await?;
    let presented = ApiToken::parse(token.expose())?;
    let ask = async |token: &ApiToken, says, now| is_valid(&crypto, &acme, token, &sealed, says, now).await;
    assert!(ask(&presented, ("ada", "read", 100), 99).await?);
    assert!(!ask(&presented, ("ada", "read", 100), 100).await?);
    for edited in [("eve", "read", 100), ("ada", "admin", 100), ("ada", "read", 101)] {
        ask(&presented, edited, 99).await.unwrap_err();
    }
    ask(&ApiToken::generate("acme")?, ("ada", "read", 100), 99)
        .await
        .unwrap_err();
    crypto.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn rows_are_reindexed_where_their_term_is_another() -> Result<()> {
    let (crypto, pool, acme) = world().await?;
    insert(&crypto, &pool, &acme, 1, "ΝΙΚΟΣ@example.gr").await?;
    insert(&crypto, &pool, &acme, 2, "").await?;
    let index = async || -> Result<Vec<BlindIndex>> {
        let sql = "SELECT email_index FROM users ORDER BY id";
        Ok(sqlx::query_scalar(sql).fetch_all(&pool).await?)
    };
    let now = index().await?;
    // A term that an earlier version of the normalizer might have left.
    let old = crypto.blind_index(&acme, &BY_CITY, "another term").await?;
    let update = sqlx::query("UPDATE users SET email_index = $1 WHERE id = 1").bind(old);
    update.execute(&pool).await?;
    reindex(&crypto, &pool, &acme).await?;
    assert_eq!(index().await?, now);
    assert_eq!(find(&crypto, &pool, &acme, "νικος@example.gr").await?, [1]);
    assert_eq!(find(&crypto, &pool, &acme, " ").await?, [2], "the empty value");
    crypto.shutdown().await;
    Ok(())
}

#[test]
fn the_document_shows_this() {
    super::shown::assert_shown(include_str!("../../docs/search.md"), include_str!("search.rs"));
}

//! Blind indexes and password hashes as columns of real tables: found with `= ANY($1)` and `IN (..)`, across a rotation
//! of the index key, under UNIQUE constraints.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use encx::keys::{KeyManager, KeyUsage};
use encx::password::{PasswordHash, PasswordParams, PasswordVerdict};
use encx::search::{BlindIndex, IndexField, IndexTerms, Normalizer};
use encx::{Ciphertext, Crypto, EncryptionContext, Field};
use encx_testkit::{MemoryKeyStore, MemoryKms};
use sqlx::FromRow;

const EMAIL: Field = Field::new("users", "email");
const PASSWORD: Field = Field::new("users", "password");
const EMAIL_INDEX: IndexField = IndexField::new("users", "email", 128)
    .normalize(Normalizer::Email)
    .unique();

/// A row as read back.
#[derive(Debug, FromRow)]
struct User {
    id: i64,
    email: Ciphertext,
    email_index: BlindIndex,
    next_index: Option<BlindIndex>,
    password: PasswordHash,
}

async fn crypto() -> Crypto {
    Crypto::builder(MemoryKms::new(), MemoryKeyStore::new())
        .password_params(PasswordParams::insecure_new(64, 1, 1).unwrap())
        .build()
        .await
        .unwrap()
}

fn login() -> EncryptionContext {
    EncryptionContext::builder()
        .pair("purpose", "login")
        .build()
        .unwrap()
}

fn index_keys(crypto: &Crypto) -> KeyManager {
    crypto.key_manager().for_usage(KeyUsage::Index)
}

async fn new_user(crypto: &Crypto, id: i64, email: &str) -> User {
    let context = login();
    User {
        id,
        email: crypto.encrypt(&context, email, EMAIL.row(id)).await.unwrap(),
        email_index: crypto.blind_index(&context, &EMAIL_INDEX, email).await.unwrap(),
        next_index: None,
        password: crypto
            .hash_password(&context, format!("password of {id}"), PASSWORD.row(id))
            .await
            .unwrap(),
    }
}

async fn terms(crypto: &Crypto, email: &str) -> IndexTerms {
    crypto.index_terms(&login(), &EMAIL_INDEX, email).await.unwrap()
}

/// Checks the rows found: their ids, that the addresses decrypt, and that the passwords match.
async fn check(crypto: &Crypto, found: Vec<User>, ids: &[i64]) {
    let context = login();
    assert_eq!(found.iter().map(|user| user.id).collect::<Vec<_>>(), ids);
    for user in found {
        let email = crypto
            .decrypt(&context, &user.email, EMAIL.row(user.id))
            .await
            .unwrap();
        assert!(
            email
                .into_string()
                .unwrap()
                .eq_ignore_ascii_case("ada@example.org")
        );
        let (password, place) = (format!("password of {}", user.id), PASSWORD.row(user.id));
        let verify = crypto.verify_password(&context, &user.password, password, place);
        assert_eq!(
            verify.await.unwrap(),
            PasswordVerdict::Match { needs_rehash: false }
        );
    }
}

/// The scenario for both databases. They only differ in the query macros.
macro_rules! scenario {
    ($pool:expr, $insert:expr, $find:expr, $fill:expr) => {{
        let (pool, insert, find, fill) = ($pool, $insert, $find, $fill);
        let (crypto, context) = (crypto().await, login());
        // Before anything is indexed, the query is valid and finds nothing.
        check(
            &crypto,
            find(&pool, terms(&crypto, "ada@example.org").await)
                .await
                .unwrap(),
            &[],
        )
        .await;
        for (id, email) in [(1, "ada@example.org"), (2, "eve@example.org")] {
            insert(&pool, new_user(&crypto, id, email).await).await.unwrap();
        }
        let of_ada = terms(&crypto, " ADA@example.org").await;
        check(&crypto, find(&pool, of_ada.clone()).await.unwrap(), &[1]).await;
        // The constraint recognises the same address in another spelling.
        let again = new_user(&crypto, 3, "Ada@Example.ORG").await;
        let error = insert(&pool, again).await.unwrap_err();
        assert!(
            error.as_database_error().unwrap().is_unique_violation(),
            "{error}"
        );

        // Before a rotation every row gets its index under the next version, in a separate column.
        let next = index_keys(&crypto).prepare(&context).await.unwrap().id;
        for (id, email) in [(1, "ada@example.org"), (2, "eve@example.org")] {
            let index = crypto
                .blind_index_under(&context, &EMAIL_INDEX, email, next)
                .await
                .unwrap();
            fill(&pool, id, index).await.unwrap();
        }
        let promoted = index_keys(&crypto).rotate(&context).await.unwrap();
        assert_eq!(promoted.id, next);
        let again = new_user(&crypto, 3, "Ada@Example.ORG").await;
        let under_next = again.email_index;
        assert_ne!(under_next, of_ada.as_slice()[0]);
        // The first column's constraint lets it pass, as it must: the version differs. The second's does not.
        insert(&pool, again).await.unwrap();
        let error = fill(&pool, 3, under_next).await.unwrap_err();
        assert!(
            error.as_database_error().unwrap().is_unique_violation(),
            "{error}"
        );

        // Rows under the old version and under the new one are both found.
        let of_ada = terms(&crypto, "ada@example.org").await;
        assert_eq!(of_ada.len(), 2);
        let found = find(&pool, of_ada.clone()).await.unwrap();
        assert_eq!(found[0].next_index, Some(under_next));
        assert_ne!(found[0].email_index, found[1].email_index);
        check(&crypto, found, &[1, 3]).await;
        let unknown = terms(&crypto, "unknown@example.org").await;
        check(&crypto, find(&pool, unknown).await.unwrap(), &[]).await;

        // A password hash that asks for 10 GiB is refused on reading, before it is computed.
        let hostile = "UPDATE users SET password = replace(password, 'm=64', 'm=9999999') WHERE id = 1";
        assert_eq!(
            sqlx::query(hostile).execute(&pool).await.unwrap().rows_affected(),
            1
        );
        let error = find(&pool, of_ada).await.unwrap_err();
        assert!(error.to_string().contains("out of bounds"), "{error}");
    }};
}

#[cfg(feature = "postgres")]
#[test]
fn postgres_finds_rows_by_any() {
    use sqlx::PgPool;

    common::postgres::on_a_database(|database| async move {
        let pool = database.pool().await;
        sqlx::query(
            "CREATE TABLE users (id bigint PRIMARY KEY, email bytea NOT NULL, email_index bytea NOT NULL UNIQUE, \
             next_index bytea UNIQUE, password text NOT NULL)",
        )
        .execute(&pool)
        .await
        .unwrap();
        let insert = async |pool: &PgPool, user: User| {
            sqlx::query("INSERT INTO users VALUES ($1, $2, $3, $4, $5)")
                .bind(user.id)
                .bind(user.email)
                .bind(user.email_index)
                .bind(user.next_index)
                .bind(user.password)
                .execute(pool)
                .await
        };
        let find = async |pool: &PgPool, terms: IndexTerms| {
            sqlx::query_as::<_, User>("SELECT * FROM users WHERE email_index = ANY($1) ORDER BY id")
                .bind(terms.as_slice())
                .fetch_all(pool)
                .await
        };
        let fill = async |pool: &PgPool, id: i64, index: BlindIndex| {
            sqlx::query("UPDATE users SET next_index = $2 WHERE id = $1")
                .bind(id)
                .bind(index)
                .execute(pool)
                .await
        };
        scenario!(pool.clone(), insert, find, fill);

        // An array decodes to a `Vec`.
        let indexes: Vec<BlindIndex> =
            sqlx::query_scalar("SELECT array_agg(email_index ORDER BY id) FROM users")
                .fetch_one(&pool)
                .await
                .unwrap();
        assert_eq!(indexes.len(), 3);
        // An invalid index is refused on reading.
        sqlx::query("UPDATE users SET email_index = '\\x0102' WHERE id = 2")
            .execute(&pool)
            .await
            .unwrap();
        let error = sqlx::query_as::<_, User>("SELECT * FROM users WHERE id = 2")
            .fetch_one(&pool)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("5 to 36 bytes"), "{error}");
    });
}

#[cfg(feature = "sqlite")]
#[test]
fn sqlite_finds_rows_by_in() {
    use sqlx::SqlitePool;

    encx_testkit::block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.db");
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true);
        let pool = SqlitePool::connect_with(options).await.unwrap();
        sqlx::query(
            "CREATE TABLE users (id INTEGER PRIMARY KEY, email BLOB NOT NULL, email_index BLOB NOT NULL UNIQUE, \
             next_index BLOB UNIQUE, password TEXT NOT NULL) STRICT",
        )
        .execute(&pool)
        .await
        .unwrap();
        let insert = async |pool: &SqlitePool, user: User| {
            sqlx::query("INSERT INTO users VALUES (?, ?, ?, ?, ?)")
                .bind(user.id)
                .bind(user.email)
                .bind(user.email_index)
                .bind(user.next_index)
                .bind(user.password)
                .execute(pool)
                .await
        };
        let find = async |pool: &SqlitePool, terms: IndexTerms| {
            let mut query = sqlx::QueryBuilder::new("SELECT * FROM users WHERE email_index");
            terms.push_in(&mut query);
            query.push(" ORDER BY id");
            query.build_query_as::<User>().fetch_all(pool).await
        };
        let fill = async |pool: &SqlitePool, id: i64, index: BlindIndex| {
            sqlx::query("UPDATE users SET next_index = ? WHERE id = ?")
                .bind(index)
                .bind(id)
                .execute(pool)
                .await
        };
        scenario!(pool.clone(), insert, find, fill);

        // The database contains neither address nor password in plaintext.
        pool.close().await;
        let bytes = std::fs::read(&path).unwrap();
        for plain in ["ada@example.org", "password of"] {
            assert!(!bytes.windows(plain.len()).any(|part| part == plain.as_bytes()));
        }
    });
}

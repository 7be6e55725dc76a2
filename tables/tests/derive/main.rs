//! Structs written by `#[derive(Encrypt)]`, with `query_as` and `FromRow` against real tables.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

#[path = "../../../providers/sqlx/tests/common/mod.rs"]
mod common;
mod document;
#[path = "../../../tests/docs/shown.rs"]
mod shown;
mod tokens;
mod upsert;

use encx::password::{PasswordHash, PasswordParams, PasswordVerdict};
use encx::record::Password;
use encx::search::BlindIndex;
use encx::store::{JobTally, KeyStore};
use encx::{Ciphertext, Crypto, Encrypt, EncryptionContext};
use encx_tables::Rows;
use encx_testkit::{MemoryKms, block_on};
use uuid::Uuid;

#[derive(Encrypt, Clone, Debug, PartialEq)]
#[encx(fragment, encrypted(derive(sqlx::FromRow, Clone, Debug)))]
struct Address {
    #[encx(encrypt)]
    street: String,
    country: String,
}

#[derive(Encrypt, Debug)]
#[encx(table = "users", context("tenantId" = tenant_id, "purpose" = "pii"))]
#[encx(encrypted(derive(sqlx::FromRow, Clone, Debug)))]
struct User {
    #[encx(id)]
    id: Uuid,
    tenant_id: String,
    #[encx(encrypt, index(normalize = "email", bits = 64, column = "email_term", context("purpose" = "login")))]
    email: String,
    #[encx(encrypt, rename = "ssn", sql_column = "social_security")]
    social: Option<String>,
    #[encx(encrypt)]
    age: i32,
    #[encx(password)]
    password: Option<Password>,
    #[encx(nested)]
    address: Address,
}

fn users() -> Vec<User> {
    let user = |n: u8| User {
        id: Uuid::from_bytes([n; 16]),
        tenant_id: format!("t-{}", n % 2),
        email: format!("{n}@example.com"),
        social: n.is_multiple_of(2).then(|| "123-45-6789".to_owned()),
        age: i32::from(n) - 2,
        password: (n == 1).then(|| Password::new("correct horse")),
        address: Address {
            street: format!("Street {n}"),
            country: "DE".to_owned(),
        },
    };
    (1..=6).map(user).collect()
}

async fn crypto(store: impl KeyStore) -> Crypto {
    let quick = PasswordParams::insecure_new(64, 1, 1).unwrap();
    let builder = Crypto::builder(MemoryKms::new(), store).password_params(quick);
    builder.build().await.unwrap()
}

const INSERT: &str = "INSERT INTO users \
                      (id, tenant_id, email, social_security, age, street, country, email_term, password) \
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// The comparable parts of a user: a password is read back as a hash.
fn shown(user: &User) -> (Uuid, &str, &str, Option<&str>, i32, &Address) {
    let User {
        id,
        tenant_id,
        email,
        social,
        age,
        address,
        ..
    } = user;
    (*id, tenant_id, email, social.as_deref(), *age, address)
}

macro_rules! writes_and_reads {
    ($pool:expr, $crypto:expr, $search:path, $rows:path) => {{
        let (pool, crypto) = ($pool, $crypto);
        for row in encx::record::encrypt_all(&crypto, &users()).await.unwrap() {
            let insert = sqlx::query(INSERT)
                .bind(row.id)
                .bind(row.tenant_id)
                .bind(row.email);
            let insert = insert.bind(row.social).bind(row.age);
            let insert = insert.bind(row.address.street).bind(row.address.country);
            let insert = insert.bind(row.email_index).bind(row.password);
            insert.execute(&pool).await.unwrap();
        }
        let rows: Vec<EncryptedUser> = sqlx::query_as("SELECT * FROM users ORDER BY id")
            .fetch_all(&pool)
            .await
            .unwrap();
        let read: Vec<User> = encx::record::decrypt_all(&crypto, rows).await.unwrap();
        assert!(read.iter().map(shown).eq(users().iter().map(shown)));

        // A log-in knows an address and a password. Both columns are read back as their types.
        let terms = User::email_terms(&crypto, "1@EXAMPLE.com").await.unwrap();
        let rows: Vec<EncryptedUser> = $search(&pool, &terms).await;
        assert_eq!(rows.len(), 1);
        let row = rows[0].clone();
        assert!(terms.contains(&row.email_index));
        let verdict = row
            .verify_password(&crypto, "t-1", "correct horse")
            .await
            .unwrap();
        assert_eq!(verdict, PasswordVerdict::Match { needs_rehash: false });
        let found = User::matching_email(&crypto, rows, "1@example.com")
            .await
            .unwrap();
        assert_eq!(found[0].password.as_ref().unwrap().hash(), row.password.as_ref());
        assert_eq!((found.len(), found[0].id), (1, row.id));

        let nulls = "SELECT count(*) FROM users WHERE social_security IS NULL";
        let nulls: i64 = sqlx::query_scalar(nulls).fetch_one(&pool).await.unwrap();
        assert_eq!(nulls, 3, "`None` is NULL");

        // Jobs find the ciphertexts by the struct: 6 users with three values, and 3 with one more.
        let mut active = Vec::new();
        for tenant in ["t-0", "t-1"] {
            let context = EncryptionContext::from_pairs([("tenantId", tenant), ("purpose", "pii")]).unwrap();
            active.push(crypto.key_manager().rotate(&context).await.unwrap().id);
        }
        let jobs = $rows(pool.clone());
        let reencrypt = jobs.reencrypt(&crypto, User::encx_columns()).unwrap();
        let report = reencrypt.run().await;
        assert!(report.is_complete(), "{report}");
        assert_eq!(report.run, JobTally::new(21, 0, 0));
        let census = jobs.census(User::encx_columns()).unwrap();
        let counts = census.count().await.unwrap();
        assert_eq!(counts.iter().map(|count| count.rows).sum::<u64>(), 21);
        for count in &counts {
            assert!(count.key.is_some_and(|key| active.contains(&key)), "{count:?}");
        }
        let rows: Vec<EncryptedUser> = sqlx::query_as("SELECT * FROM users ORDER BY id")
            .fetch_all(&pool)
            .await
            .unwrap();
        let read: Vec<User> = encx::record::decrypt_all(&crypto, rows).await.unwrap();
        assert!(read.iter().map(shown).eq(users().iter().map(shown)));

        // A writer of the database cannot move a value to another row.
        let swap = "UPDATE users SET email = (SELECT email FROM users WHERE id = $1) WHERE id = $2";
        let [from, to] = [1, 3].map(|n| Uuid::from_bytes([n; 16]));
        let swapped = sqlx::query(swap)
            .bind(from)
            .bind(to)
            .execute(&pool)
            .await
            .unwrap();
        assert_eq!(swapped.rows_affected(), 1);
        let row: EncryptedUser = sqlx::query_as("SELECT * FROM users WHERE id = $1")
            .bind(to)
            .fetch_one(&pool)
            .await
            .unwrap();
        let error = row.decrypt(&crypto).await.unwrap_err();
        assert_eq!(error.failures().len(), 1);
        assert_eq!(error.failures()[0].field, "email");

        // An invalid value is refused when read, by its column's name. Columns are read in the struct's
        // order, so damage the last one first.
        for (column, spoil) in [
            (
                "password",
                sqlx::query("UPDATE users SET password = $1").bind("letmein"),
            ),
            (
                "email_term",
                sqlx::query("UPDATE users SET email_term = $1").bind(vec![1_u8]),
            ),
            (
                "email",
                sqlx::query("UPDATE users SET email = $1").bind(vec![1_u8]),
            ),
        ] {
            spoil.execute(&pool).await.unwrap();
            let read = sqlx::query_as::<_, EncryptedUser>("SELECT * FROM users");
            let error = read.fetch_all(&pool).await.unwrap_err().to_string();
            assert!(error.contains(&format!("\"{column}\"")), "{error}");
        }
    }};
}

#[test]
fn postgres_rows_decrypt() {
    common::postgres::on_a_database(|database| async move {
        let pool = database.pool().await;
        let table = "CREATE TABLE users (id uuid PRIMARY KEY, tenant_id text NOT NULL, email bytea NOT NULL, \
                     social_security bytea, age bytea NOT NULL, street bytea NOT NULL, country text NOT NULL, \
                     email_term bytea NOT NULL, password text)";
        sqlx::query(table).execute(&pool).await.unwrap();
        let store = database.store().await;
        store.migrate().await.unwrap();
        let crypto = crypto(store).await;
        arrays_go_there_and_back(&pool, &crypto).await;
        writes_and_reads!(pool, crypto, search_postgres, Rows::postgres);
    });
}

/// Each of the three types as an array: written with `unnest`, read with `array_agg`, searched with `ANY`.
async fn arrays_go_there_and_back(pool: &sqlx::PgPool, crypto: &Crypto) {
    let rows = encx::record::encrypt_all(crypto, &users()).await.unwrap();
    let emails: Vec<Ciphertext> = rows.iter().map(|row| row.email.clone()).collect();
    let socials: Vec<Option<Ciphertext>> = rows.iter().map(|row| row.social.clone()).collect();
    let terms: Vec<BlindIndex> = rows.iter().map(|row| row.email_index).collect();
    let hashes: Vec<Option<PasswordHash>> = rows.iter().map(|row| row.password.clone()).collect();
    let sql = "WITH page AS (SELECT * FROM unnest($1, $2, $3, $4) AS page (email, social, term, password)) \
               SELECT array_agg(email), array_agg(social), array_agg(term), array_agg(password), \
               count(*) FILTER (WHERE email = ANY($1)), count(*) FILTER (WHERE password = ANY($4)) FROM page";
    type Page = (
        Vec<Ciphertext>,
        Vec<Option<Ciphertext>>,
        Vec<BlindIndex>,
        Vec<Option<PasswordHash>>,
        i64,
        i64,
    );
    let query = sqlx::query_as(sql).bind(&emails).bind(&socials);
    let page: Page = query.bind(&terms).bind(&hashes).fetch_one(pool).await.unwrap();
    assert_eq!(page, (emails, socials, terms, hashes, 6, 1));
}

async fn search_postgres(pool: &sqlx::PgPool, terms: &encx::search::IndexTerms) -> Vec<EncryptedUser> {
    let query = sqlx::query_as("SELECT * FROM users WHERE email_term = ANY($1)").bind(terms.as_slice());
    query.fetch_all(pool).await.unwrap()
}

async fn search_sqlite(pool: &sqlx::SqlitePool, terms: &encx::search::IndexTerms) -> Vec<EncryptedUser> {
    let mut query = sqlx::QueryBuilder::new("SELECT * FROM users WHERE email_term");
    terms.push_in(&mut query);
    query.build_query_as().fetch_all(pool).await.unwrap()
}

#[test]
fn sqlite_rows_decrypt() {
    block_on(async {
        let file = common::sqlite::File::new();
        let store = file.store().await;
        store.migrate().await.unwrap();
        let url = format!("sqlite:{}", file.path());
        let pool = sqlx::sqlite::SqlitePool::connect(&url).await.unwrap();
        let table = "CREATE TABLE users (id blob PRIMARY KEY, tenant_id text NOT NULL, email blob NOT NULL, \
                     social_security blob, age blob NOT NULL, street blob NOT NULL, country text NOT NULL, \
                     email_term blob NOT NULL, password text) STRICT";
        sqlx::query(table).execute(&pool).await.unwrap();
        writes_and_reads!(pool, crypto(store).await, search_sqlite, Rows::sqlite);
    });
}

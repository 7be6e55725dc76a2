//! The upsert of `docs/derive.md`, by a unique index, and how the upsert that databases suggest fails.

use encx::{Crypto, Encrypt, Error};
use encx_testkit::block_on;
use sqlx::postgres::PgPool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use uuid::Uuid;

use crate::common;
use crate::document::{Result, crypto};

#[derive(Encrypt, Clone)]
#[encx(table = "profiles", context("tenantId" = tenant_id))]
#[encx(encrypted(derive(sqlx::FromRow)))]
struct Profile {
    #[encx(id)]
    id: Uuid,
    tenant_id: String,
    #[encx(encrypt, index(normalize = "case-fold", bits = 128, unique))]
    handle: String,
    #[encx(encrypt)]
    motto: String,
}

const UPDATE: &str = "UPDATE profiles SET handle = $3, handle_index = $4, motto = $5 \
                      WHERE id = $1 AND tenant_id = $2";
const INSERT: &str = "INSERT INTO profiles (id, tenant_id, handle, handle_index, motto) VALUES ($1, $2, $3, $4, $5) \
                      ON CONFLICT (handle_index) DO NOTHING";

async fn save(crypto: &Crypto, pool: &PgPool, mut profile: Profile) -> Result<Uuid> {
    loop {
        let terms = Profile::handle_terms(crypto, &profile.tenant_id, &profile.handle).await?;
        let find = sqlx::query_scalar("SELECT id FROM profiles WHERE handle_index = ANY($1)");
        let kept: Option<Uuid> = find.bind(terms.as_slice()).fetch_optional(pool).await?;
        let sql = if kept.is_some() { UPDATE } else { INSERT };
        // Before anything is encrypted: all of it is bound to the row that stays.
        profile.id = kept.unwrap_or(profile.id);
        let row = profile.encrypt(crypto).await?;
        let query = sqlx::query(sql).bind(row.id).bind(row.tenant_id);
        let query = query.bind(row.handle).bind(row.handle_index).bind(row.motto);
        if query.execute(pool).await?.rows_affected() == 1 {
            return Ok(row.id);
        }
        // Another call inserted or deleted the row just now. Look again.
    }
}

/// As `save`, on SQLite.
async fn save_in_sqlite(crypto: &Crypto, pool: &SqlitePool, mut profile: Profile) -> Result<Uuid> {
    loop {
        let terms = Profile::handle_terms(crypto, &profile.tenant_id, &profile.handle).await?;
        let mut find = sqlx::QueryBuilder::new("SELECT id FROM profiles WHERE handle_index");
        terms.push_in(&mut find);
        let kept: Option<Uuid> = find.build_query_scalar().fetch_optional(pool).await?;
        let sql = if kept.is_some() { UPDATE } else { INSERT };
        profile.id = kept.unwrap_or(profile.id);
        let row = profile.encrypt(crypto).await?;
        let query = sqlx::query(sql).bind(row.id).bind(row.tenant_id);
        let query = query.bind(row.handle).bind(row.handle_index).bind(row.motto);
        if query.execute(pool).await?.rows_affected() == 1 {
            return Ok(row.id);
        }
    }
}

const TABLE: &str = "CREATE TABLE profiles (id uuid PRIMARY KEY, tenant_id text NOT NULL, handle bytea NOT NULL, \
                     handle_index bytea NOT NULL UNIQUE, motto bytea NOT NULL)";

fn profile(handle: &str, motto: &str) -> Profile {
    Profile {
        id: Uuid::new_v4(),
        tenant_id: "acme".to_owned(),
        handle: handle.to_owned(),
        motto: motto.to_owned(),
    }
}

macro_rules! upserts {
    ($pool:expr, $crypto:expr, $save:path) => {{
        let (pool, crypto) = ($pool, $crypto);
        let rows = async || -> Vec<EncryptedProfile> {
            sqlx::query_as("SELECT * FROM profiles").fetch_all(&pool).await.unwrap()
        };
        // Concurrent calls with different ids: one row stays, and it opens.
        let calls = (0..8).map(|n| {
            let (pool, crypto) = (pool.clone(), crypto.clone());
            tokio::spawn(async move { $save(&crypto, &pool, profile("Ada", &format!("motto {n}"))).await.unwrap() })
        });
        let mut ids = Vec::new();
        for call in calls.collect::<Vec<_>>() {
            ids.push(call.await.unwrap());
        }
        let mut all = rows().await;
        assert_eq!(all.len(), 1);
        let row = all.remove(0);
        assert!(ids.iter().all(|id| *id == row.id), "every call names the row that stays");
        let read = row.decrypt(&crypto).await.unwrap();
        assert!(read.motto.starts_with("motto "));
        // An update in another spelling, after a rotation of both keys.
        for usage in [encx::keys::KeyUsage::Data, encx::keys::KeyUsage::Index] {
            let context = encx::EncryptionContext::from_pairs([("tenantId", "acme")]).unwrap();
            crypto.key_manager().for_usage(usage).rotate(&context).await.unwrap();
        }
        assert_eq!($save(&crypto, &pool, profile("ADA", "new")).await.unwrap(), read.id);
        $save(&crypto, &pool, profile("Eve", "other")).await.unwrap();
        let read: Vec<Profile> = encx::record::decrypt_all(&crypto, rows().await).await.unwrap();
        let mut shown: Vec<_> = read.iter().map(|row| (row.handle.as_str(), row.motto.as_str())).collect();
        shown.sort_unstable();
        assert_eq!(shown, [("ADA", "new"), ("Eve", "other")]);

        // The pitfall from the documents: the remaining row gets values bound to another id.
        let wrong = profile("ada", "lost").encrypt(&crypto).await.unwrap();
        let sql = "INSERT INTO profiles (id, tenant_id, handle, handle_index, motto) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT (handle_index) DO UPDATE SET handle = excluded.handle, motto = excluded.motto";
        let query = sqlx::query(sql).bind(wrong.id).bind(wrong.tenant_id).bind(wrong.handle);
        query.bind(wrong.handle_index).bind(wrong.motto).execute(&pool).await.unwrap();
        let read = encx::record::decrypt_each::<Profile, _>(&crypto, rows().await).await;
        let failed: Vec<_> = read.into_iter().filter_map(std::result::Result::err).collect();
        let [error] = failed.as_slice() else {
            panic!("{failed:?}");
        };
        let failures = error.failures().iter();
        assert!(failures.clone().all(|failure| matches!(failure.error, Error::Decrypt { .. })), "{error}");
        assert!(failures.map(|failure| &*failure.field).eq(["handle", "motto"]), "{error}");
    }};
}

#[test]
fn postgres_rows_survive_an_upsert() {
    common::postgres::on_a_database(|database| async move {
        let pool = database.pool().await;
        sqlx::query(TABLE).execute(&pool).await.unwrap();
        upserts!(pool, crypto().await, save);
    });
}

#[test]
fn sqlite_rows_survive_an_upsert() {
    block_on(async {
        let file = common::sqlite::File::new();
        // Writers wait for each other, even on a busy machine.
        let options = SqliteConnectOptions::new()
            .filename(file.path())
            .create_if_missing(true)
            .busy_timeout(std::time::Duration::from_secs(60));
        let pool = SqlitePool::connect_with(options).await.unwrap();
        let table = TABLE.replace("bytea", "blob").replace("uuid", "blob");
        sqlx::query(sqlx::AssertSqlSafe(table))
            .execute(&pool)
            .await
            .unwrap();
        upserts!(pool, crypto().await, save_in_sqlite);
    });
}

//! The other providers: KEKs in memory and in a file, and key stores that fail.

use encx::keys::{DataKeyId, KeyUsage};
use encx::kms::{DataKey, KekId, KeyManagementService, KmsContext, KmsErrorKind, WrappedKey};
use encx::store::KeyStore;
use encx::{Crypto, Field};
use encx_local::{LocalKms, Protection};
use encx_sqlx::{PostgresKeyStore, SqliteKeyStore};
use encx_testkit::{MemoryKms, block_on};
use sqlx::sqlite::SqlitePoolOptions;

use super::*;
use crate::common::context;
use crate::common::postgres::Database;

const SSN: Field = Field::new("users", "ssn");

fn pairs(tenant: &str) -> KmsContext {
    let id = DataKeyId::generate(1_767_225_600_000, None).unwrap();
    KmsContext::new(&context(tenant), KeyUsage::Data, id)
}

/// Tries every operation of a KMS, all of which fail.
async fn try_all(
    search: &mut Search,
    kms: &dyn KeyManagementService,
    kek: &KekId,
    wrapped: &WrappedKey,
    context: &KmsContext,
) {
    let key = DataKey::copy_from(&KEY).unwrap();
    search.failed("generating", kms.generate_data_key(kek, context).await);
    search.failed("wrapping", kms.wrap_key(kek, &key, context).await);
    search.failed("unwrapping", kms.unwrap_key(wrapped, context).await);
    search.failed("rewrapping", kms.rewrap_key(wrapped, context, kek).await);
    search.failed("describing", kms.describe_kek(kek).await);
}

#[tokio::test]
async fn in_memory() {
    for kind in [
        KmsErrorKind::AccessDenied,
        KmsErrorKind::Configuration,
        KmsErrorKind::Integrity,
        KmsErrorKind::KeyState,
        KmsErrorKind::LimitExceeded,
        KmsErrorKind::NotFound,
        KmsErrorKind::Throttled,
        KmsErrorKind::Unavailable,
        KmsErrorKind::Unsupported,
    ] {
        let mut search = Search::begin();
        let (kms, context) = (MemoryKms::new(), pairs("a"));
        let kek = kms.default_kek().unwrap().clone();
        let key = DataKey::copy_from(&KEY).unwrap();
        let wrapped = kms.wrap_key(&kek, &key, &context).await.unwrap();
        search.failed("another context", kms.unwrap_key(&wrapped, &pairs("b")).await);
        kms.fail_until_cleared(kind);
        try_all(&mut search, &kms, &kek, &wrapped, &context).await;
        search.end(&format!("{kind:?}"));
    }
}

#[test]
fn in_a_file() {
    // What happens to the file while it is open.
    type Change = fn(&std::path::Path);
    let changes: [(&str, Change); 4] = [
        ("missing", |path| std::fs::remove_file(path).unwrap()),
        ("cut", |path| {
            std::fs::write(path, &std::fs::read(path).unwrap()[..40]).unwrap();
        }),
        ("damaged", |path| {
            let mut bytes = std::fs::read(path).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            std::fs::write(path, bytes).unwrap();
        }),
        ("a folder", |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir(path).unwrap();
        }),
    ];
    for (what, change) in changes {
        block_on(async {
            let mut search = Search::begin();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("keks");
            // The key of the file is a secret like any other.
            let protection = || Protection::key(DataKey::copy_from(&KEY).unwrap());
            let kms = LocalKms::create(&path, protection()).await.unwrap();
            let (kek, context) = (kms.default_kek().unwrap().clone(), pairs("a"));
            let key = DataKey::copy_from(&KEY).unwrap();
            let wrapped = kms.wrap_key(&kek, &key, &context).await.unwrap();
            search.failed("another context", kms.unwrap_key(&wrapped, &pairs("b")).await);
            let unknown = KekId::new("local/00000000-0000-4000-8000-000000000000").unwrap();
            let elsewhere = WrappedKey::new(unknown.clone(), wrapped.ciphertext.clone());
            try_all(&mut search, &kms, &unknown, &elsewhere, &context).await;
            kms.disable_kek(&kek).await.unwrap();
            let others = [
                kms.generate_data_key(&kek, &context).await.map(drop),
                kms.wrap_key(&kek, &key, &context).await.map(drop),
                kms.unwrap_key(&wrapped, &context).await.map(drop),
            ];
            others
                .into_iter()
                .for_each(|outcome| search.failed("disabled", outcome));
            change(&path);
            try_all(&mut search, &kms, &kek, &wrapped, &context).await;
            search.failed("opening", LocalKms::open(&path, protection()).await);
            let wrong = Protection::passphrase(PLAINTEXT);
            search.failed("opening otherwise", LocalKms::open(&path, wrong).await);
            search.end(what);
        });
    }
}

/// A key store that worked, and whose tables are then missing, damaged, or unreachable.
async fn try_store<S: KeyStore + Clone>(store: S, break_it: impl AsyncFnOnce()) {
    let mut search = Search::begin();
    let kms = MemoryKms::new();
    let build = async || Crypto::builder(kms.clone(), store.clone()).build().await;
    let (used, cold) = (build().await.unwrap(), build().await.unwrap());
    let sealed = used.encrypt(&context("a"), PLAINTEXT, SSN.row(1)).await.unwrap();
    break_it().await;
    let key = || DataKey::copy_from(&KEY).unwrap();
    let peppers = used.key_manager().for_usage(KeyUsage::Pepper);
    search.failed(
        "encrypting",
        used.encrypt(&context("b"), PLAINTEXT, SSN.row(1)).await,
    );
    search.failed(
        "decrypting",
        cold.decrypt(&context("a"), &sealed, SSN.row(1)).await,
    );
    search.failed("importing", peppers.import(&context("a"), key()).await);
    search.failed("rotating", used.key_manager().rotate(&context("a")).await);
    search.failed(
        "another row",
        used.decrypt(&context("a"), &sealed, SSN.row(2)).await,
    );
    if let Err(error) = build().await {
        search.error(&error);
    }
    search.end("a key store");
    used.shutdown().await;
    cold.shutdown().await;
}

#[tokio::test]
async fn sqlite_stores() {
    const BREAKS: [&str; 3] = [
        "DROP TABLE encx_wrapped_keys; ALTER TABLE encx_data_keys RENAME TO somewhere_else",
        "PRAGMA ignore_check_constraints = ON; UPDATE encx_data_keys SET context = '{'; CREATE TRIGGER no BEFORE INSERT ON encx_data_keys BEGIN SELECT RAISE(ABORT, 'no'); END",
        "",
    ];
    for sql in BREAKS {
        let folder = tempfile::tempdir().unwrap();
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(folder.path().join("keys"))
            .create_if_missing(true);
        let pool = SqlitePoolOptions::new().connect_with(options).await.unwrap();
        let store = SqliteKeyStore::from_pool(pool.clone());
        store.migrate().await.unwrap();
        try_store(store, async || match sql {
            "" => pool.close().await,
            sql => drop(sqlx::raw_sql(sql).execute(&pool).await.unwrap()),
        })
        .await;
    }
}

#[tokio::test]
async fn postgres_stores() {
    const BREAKS: [&str; 3] = [
        "DROP SCHEMA encx CASCADE",
        "ALTER TABLE encx.data_keys ADD CONSTRAINT no CHECK (false) NOT VALID; ALTER TABLE encx.wrapped_keys DROP CONSTRAINT wrapped_keys_ciphertext_check; UPDATE encx.wrapped_keys SET ciphertext = ''::bytea",
        "",
    ];
    for sql in BREAKS {
        let database = Database::create().await;
        let pool = database.pool().await;
        let store = PostgresKeyStore::from_pool(pool.clone());
        try_store(store, async || match sql {
            "" => pool.close().await,
            sql => drop(sqlx::raw_sql(sql).execute(&pool).await.unwrap()),
        })
        .await;
        database.remove().await;
    }
}

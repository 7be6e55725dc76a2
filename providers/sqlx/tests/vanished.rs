//! Keys that a database loses under a running process: deleted rows, and tables restored from a backup.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use std::pin::Pin;
use std::time::Duration;

use encx::keys::{DataKeyId, KeyState};
use encx::store::KeyStore;
use encx::{Clock, Crypto, EncryptionContext, Error, Field, Keyring};
use encx_sqlx::PostgresKeyStore;
use encx_testkit::{ManualClock, MemoryKms};
use sqlx::AssertSqlSafe;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

use common::postgres::on_a_database;
use common::sqlite::File;

const SSN: Field = Field::new("users", "ssn");
const MINUTE: Duration = Duration::from_secs(60);

/// The loss in SQL, run without checks of foreign keys, and whether the key's row still exists afterwards.
const LOSSES: [(&str, bool); 4] = [
    ("DELETE FROM wrapped_keys; DELETE FROM data_keys", false),
    ("DELETE FROM data_keys", false),
    ("DELETE FROM wrapped_keys", true),
    ("UPDATE data_keys SET revision = 1", true),
];

/// A process that uses one key, whose row is at revision 3.
struct Process {
    crypto: Crypto,
    keyring: Keyring,
    kms: MemoryKms,
    clock: ManualClock,
    key: DataKeyId,
}

impl Process {
    async fn start(store: impl KeyStore, tenant: &str) -> Self {
        let (kms, clock) = (MemoryKms::new(), ManualClock::new());
        let crypto = Crypto::builder(kms.clone(), store).clock(clock.clone());
        let crypto = crypto.build().await.unwrap();
        let context = EncryptionContext::from_pairs([("tenantId", tenant)]).unwrap();
        let key = crypto.encrypt(&context, "x", SSN.row(1)).await.unwrap().key_id();
        for state in [KeyState::Suspended, KeyState::Active] {
            let manager = crypto.key_manager();
            manager.set_state(&context, key, state).await.unwrap();
        }
        let keyring = crypto.keyring(&context).await.unwrap();
        keyring.try_encrypt("x", SSN.row(1)).unwrap();
        Self {
            crypto,
            keyring,
            kms,
            clock,
            key,
        }
    }

    /// Advances time as fast as the database answers, until the loss is noticed: long before the key's `ttl` is over.
    async fn notices(&self, lost: &str) {
        loop {
            match self.keyring.try_encrypt("x", SSN.row(1)) {
                Ok(_) => {}
                // The key was dropped.
                Err(Error::NotReady) => return,
                Err(other) => panic!("{lost}: {other:?}"),
            }
            assert!(self.clock.elapsed() < 3 * MINUTE, "{lost}: still encrypts");
            self.clock.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn assert_refused(&self, lost: &str, is_there: bool) {
        let refused = self.keyring.encrypt("x", SSN.row(1)).await;
        let found = is_there.then_some(self.key);
        assert!(
            matches!(refused, Err(Error::RolledBack { found: is, used }) if is == found && used == self.key),
            "{lost}: {refused:?}"
        );
    }
}

type Losing = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Exposes a separate process to each loss, which `lose` causes in the store's database.
async fn try_losses<S: KeyStore + Clone>(store: S, lose: impl Fn(&'static str) -> Losing) {
    for (lost, is_there) in LOSSES {
        let process = Process::start(store.clone(), lost).await;
        lose(lost).await;
        process.notices(lost).await;
        process.assert_refused(lost, is_there).await;
        // Long after the key's `ttl`.
        process.clock.advance(120 * MINUTE);
        process.assert_refused(lost, is_there).await;
        assert_eq!(process.kms.calls().generate, 1, "{lost}");
        process.crypto.shutdown().await;
    }
}

#[test]
fn sqlite_loses_nothing_in_silence() {
    encx_testkit::block_on(async {
        let file = File::new();
        let store = file.store().await;
        store.migrate().await.unwrap();
        let options = SqliteConnectOptions::new()
            .filename(file.path())
            .foreign_keys(false);
        let other = SqlitePool::connect_with(options).await.unwrap();
        let lose = |lost: &str| -> Losing {
            let lost = lost.replace("data_keys", "encx_data_keys");
            let lost = lost.replace("wrapped_keys", "encx_wrapped_keys");
            let other = other.clone();
            Box::pin(async move {
                sqlx::raw_sql(AssertSqlSafe(lost)).execute(&other).await.unwrap();
            })
        };
        try_losses(store, lose).await;
    });
}

#[test]
fn postgres_loses_nothing_in_silence() {
    on_a_database(|database| async move {
        let store = PostgresKeyStore::connect(&database.url()).await.unwrap();
        store.migrate().await.unwrap();
        let lose = |lost: &str| -> Losing {
            // As when one table is restored, without checks of foreign keys.
            let lost = format!("SET search_path = encx; SET session_replication_role = replica; {lost}");
            let database = database.clone();
            Box::pin(async move {
                let mut other = database.connection().await;
                sqlx::raw_sql(AssertSqlSafe(lost))
                    .execute(&mut other)
                    .await
                    .unwrap();
            })
        };
        try_losses(store, lose).await;
    });
}

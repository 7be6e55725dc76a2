//! A key store with keys in every state, and their history.

use std::fs;
use std::path::Path;

use encx::keys::{DataKeyId, KeyManager, KeyState, KeyUsage, KeyVersion, Scope};
use encx::kms::{KekChoice, KekId, KekRef, KeyManagementService, KmsContext, KmsName};
use encx::store::{KeyRecord, KeyStore, NewKey, StoredWrap};
use encx::suite::Suite;
use encx::{Crypto, CryptoBuilder, Field};
use encx_local::LocalKms;
use encx_sqlx::SqliteKeyStore;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool};

use super::manifest::{Database, Expected, Key, Part, Place, Wrap, hex};
use super::{
    COMPROMISED, DATABASE, DEFAULTS_FILE, EIGHT, Golden, KEY_FILE, LOGS, OTHER_TENANT, PASSPHRASE_FILE,
    PERMISSIONS_FILE, PII, Pairs, RETIRED_KEK, REVIVED, Result, SHREDDED, SUSPENDED, Sealed, TWO_WRAPS,
    UNICODE, map, pairs, row,
};

impl Golden {
    pub(crate) async fn database(&mut self) -> Result<()> {
        let pool = open_database(&self.folder.join(DATABASE)).await?;
        let store = SqliteKeyStore::from_pool(pool.clone());
        store.migrate().await?;
        let kms = self.open(PASSPHRASE_FILE).await?;
        let eu = self.open(KEY_FILE).await?;
        let main = kms.default_kek().unwrap().clone();
        let build = || builder(&kms, &eu, &store);
        let crypto = build().build().await?;
        let manager = crypto.key_manager().because("golden");

        self.rows(&crypto).await?;
        self.values(&crypto).await?;
        let uncommitted = build()
            .accept_uncommitted()
            .encrypt_with(Suite::Xaes256Gcm)
            .build()
            .await?;
        self.uncommitted(&uncommitted).await?;
        self.contexts(&crypto).await?;

        // Under the second material: the second version of a key, and a value sealed by it.
        kms.rotate_kek(&main).await?;
        manager.rotate(&pairs(PII)).await?;
        let place = row(vec![Part::Integer("42".into())]);
        let seal = Sealed::text("second-version", PII, "after the rotation", place.clone());
        self.seal(&crypto, seal, Field::new("users", "ssn").row(42))
            .await?;
        for usage in [KeyUsage::Index, KeyUsage::Pepper, KeyUsage::Stream] {
            manager.clone().for_usage(usage).create(&pairs(PII)).await?;
        }

        for (context, text) in [
            (SUSPENDED, "under a suspended key"),
            (COMPROMISED, "under a compromised key"),
            (SHREDDED, "shredded"),
            (REVIVED, "before the revival"),
            (RETIRED_KEK, "under a disabled KEK"),
        ] {
            let seal = Sealed::text(context.last().unwrap().1, context, text, place.clone());
            self.seal(&crypto, seal, Field::new("users", "ssn").row(42))
                .await?;
        }
        suspend(&manager, SUSPENDED).await?;
        let compromised = active(&manager, COMPROMISED).await?;
        manager.rotate(&pairs(COMPROMISED)).await?;
        manager
            .set_state(&pairs(COMPROMISED), compromised.id, KeyState::Compromised)
            .await?;
        for context in [SHREDDED, REVIVED] {
            let version = suspend(&manager, context).await?;
            manager
                .destroy_with_data(&pairs(context), version.id, "an example of a destroyed key")
                .await?;
        }
        manager.revive(&pairs(REVIVED)).await?;
        let seal = Sealed::text("revived-again", REVIVED, "after the revival", place.clone());
        self.seal(&crypto, seal, Field::new("users", "ssn").row(42))
            .await?;

        // A value sealed by another process that has seen the promotion of a version that is pre-active here.
        self.add_pre_active(&kms, &store, &manager).await?;
        crypto.shutdown().await;
        uncommitted.shutdown().await;
        pool.close().await;
        self.after_a_promotion_elsewhere(&kms, &eu, place).await?;

        self.archive_is_disabled(&kms).await?;
        self.describe_database(&kms, &eu).await?;
        self.refused_ciphertexts();
        for file in [PASSPHRASE_FILE, DEFAULTS_FILE, KEY_FILE, PERMISSIONS_FILE] {
            self.describe_kek_file(file).await?;
        }
        self.refused_kek_files();
        Ok(())
    }

    async fn add_pre_active(
        &self,
        kms: &LocalKms,
        store: &SqliteKeyStore,
        manager: &KeyManager,
    ) -> Result<()> {
        let context = pairs(PII);
        let versions = manager.list(&context).await?;
        let last = versions.last().unwrap();
        let id = DataKeyId::generate(last.id.unix_millis(), Some(last.id))?;
        let kms_context = KmsContext::new(&context, KeyUsage::Data, id);
        let made = kms
            .generate_data_key(kms.default_kek().unwrap(), &kms_context)
            .await?;
        let new = NewKey::new(id, KeyUsage::Data, &context, made.key.check(id))
            .with_version(KeyVersion::new(last.version.get() + 1).unwrap())
            .with_state(KeyState::PreActive)
            .with_wrap(StoredWrap::new(KmsName::default(), made.wrapped));
        store.insert(&new).await?;
        Ok(())
    }

    async fn after_a_promotion_elsewhere(
        &mut self,
        kms: &LocalKms,
        eu: &LocalKms,
        place: Place,
    ) -> Result<()> {
        let elsewhere = tempfile::tempdir()?;
        let copy = elsewhere.path().join("copy.db");
        fs::copy(self.folder.join(DATABASE), &copy)?;
        let pool = open_database(&copy).await?;
        let crypto = builder(kms, eu, &SqliteKeyStore::from_pool(pool.clone()))
            .build()
            .await?;
        let manager = crypto.key_manager();
        let version = manager.list(&pairs(PII)).await?.pop().unwrap();
        manager
            .set_state(&pairs(PII), version.id, KeyState::Active)
            .await?;
        let sealed = Sealed::text("pre-active", PII, "by a process that switched first", place);
        self.seal(&crypto, sealed, Field::new("users", "ssn").row(42))
            .await?;
        crypto.shutdown().await;
        pool.close().await;
        Ok(())
    }

    async fn archive_is_disabled(&self, kms: &LocalKms) -> Result<()> {
        let archive = kms.describe_kek(&KekId::new("alias/archive")?).await?;
        Ok(kms.disable_kek(&archive.kek).await?)
    }

    async fn describe_database(&mut self, kms: &LocalKms, eu: &LocalKms) -> Result<()> {
        let elsewhere = tempfile::tempdir()?;
        let copy = elsewhere.path().join("copy.db");
        fs::copy(self.folder.join(DATABASE), &copy)?;
        let store = SqliteKeyStore::connect(copy.to_str().unwrap()).await?;
        let mut keys = Vec::new();
        let scopes = [
            PII,
            OTHER_TENANT,
            UNICODE,
            EIGHT,
            LOGS,
            TWO_WRAPS,
            RETIRED_KEK,
            SUSPENDED,
            COMPROMISED,
            SHREDDED,
            REVIVED,
        ];
        for context in scopes {
            for usage in KeyUsage::ALL {
                for record in store.load(&[Scope::of(usage, &pairs(context))]).await? {
                    keys.push(describe_key(&record, context, kms, eu).await?);
                }
            }
        }
        let kms = [("default", PASSPHRASE_FILE), ("eu", KEY_FILE)];
        self.manifest.databases.push(Database {
            file: DATABASE.into(),
            kms: kms.map(|(name, file)| (name.into(), file.into())).into(),
            keys,
        });
        Ok(())
    }
}

pub(crate) async fn open_database(path: &Path) -> Result<SqlitePool> {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    Ok(SqlitePool::connect_with(options.journal_mode(SqliteJournalMode::Wal)).await?)
}

pub(crate) fn builder(kms: &LocalKms, eu: &LocalKms, store: &SqliteKeyStore) -> CryptoBuilder {
    let main = KekRef::from(kms.default_kek().unwrap().clone());
    let second = KekRef::new(KmsName::new("eu").unwrap(), eu.default_kek().unwrap().clone());
    Crypto::builder(kms.clone(), store.clone())
        .kms_named("eu", eu.clone())
        .kek_rule(move |context| {
            let both = || KekChoice::new(main.clone()).also_wrap(second.clone());
            context.get("region").map(|_| both())
        })
        .kek_for("purpose", "logs", "alias/logs")
        .kek_for("purpose", "archive", "alias/archive")
        .kek(kms.default_kek().unwrap().as_str())
}

pub(crate) async fn active(manager: &KeyManager, context: Pairs) -> Result<KeyRecord> {
    let mut versions = manager.list(&pairs(context)).await?;
    versions.retain(|version| version.state == KeyState::Active);
    Ok(versions.pop().unwrap())
}

pub(crate) async fn suspend(manager: &KeyManager, context: Pairs) -> Result<KeyRecord> {
    let version = active(manager, context).await?;
    Ok(manager
        .set_state(&pairs(context), version.id, KeyState::Suspended)
        .await?)
}

pub(crate) async fn describe_key(
    record: &KeyRecord,
    context: Pairs,
    kms: &LocalKms,
    eu: &LocalKms,
) -> Result<Key> {
    let mut wraps = Vec::new();
    for wrap in &record.wraps {
        let service = if wrap.kms.as_str() == "eu" { eu } else { kms };
        let kms_context = KmsContext::new(&pairs(context), record.usage, record.id);
        let expect = match service.unwrap_key(&wrap.wrapped, &kms_context).await {
            Ok(key) => {
                assert_eq!(key.check(record.id), record.key_check);
                Expected::OpensTo(hex(key.expose()))
            }
            Err(_) => Expected::RefusedAs("kek-disabled".into()),
        };
        wraps.push(Wrap {
            kms: wrap.kms.to_string(),
            kek: wrap.wrapped.kek.to_string(),
            material: wrap.wrapped.kek_material.clone().unwrap(),
            expect,
        });
    }
    Ok(Key {
        id: record.id.to_string(),
        context: map(context),
        usage: record.usage.name().into(),
        version: record.version.get(),
        state: record.state.name().into(),
        suspended_from: record.suspended_from.map(|state| state.name().into()),
        wraps,
    })
}

//! Today's code opens what every release wrote, and still refuses what it refused.
//!
//! Each folder in `tests/golden/` is one release; its manifest lists every file. `docs/format.md` describes the bytes.

// Windows has no permissions to set, and refuses the file that relies on them.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use encx::keys::{KeyUsage, Scope};
use encx::kms::{
    KekId, KekRef, KekState, KeyManagementService, KmsContext, KmsError, KmsErrorKind, KmsName, WrappedKey,
};
use encx::store::{KeyStore, StoreError};
use encx::{Aad, AadError, Ciphertext, CiphertextError, Crypto, Error, Field, RowId, RowIdParts};
use encx_local::{LocalKms, LocalKmsError, Protection};
use encx_sqlx::SqliteKeyStore;
use sqlx::AssertSqlSafe;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tempfile::TempDir;

#[path = "golden/manifest.rs"]
mod manifest;

use manifest::{
    Change, CiphertextCase, Database, Expected, Kek, KekFileCase, Manifest, Part, Place, ProtectedBy,
    WrapCase, hex, unhex,
};

#[tokio::test]
async fn every_file_of_every_release_opens_or_is_refused_as_its_manifest_says() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path());
    let folders: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    assert!(!folders.is_empty(), "there are no golden files");
    for folder in folders {
        let release = Release::read(&folder);
        release.check().await;
    }
}

/// One folder of golden files.
struct Release {
    folder: PathBuf,
    manifest: Manifest,
    scratch: TempDir,
}

/// The KMS of each unmodified KEK file.
type KmsByFile = BTreeMap<String, LocalKms>;

impl Release {
    fn read(folder: &Path) -> Self {
        let json = fs::read(folder.join("manifest.json")).unwrap();
        Self {
            folder: folder.to_path_buf(),
            manifest: serde_json::from_slice(&json).unwrap(),
            scratch: tempfile::tempdir().unwrap(),
        }
    }

    async fn check(&self) {
        let Manifest {
            release,
            kek_files,
            wraps,
            databases,
            ciphertexts,
            refused_contexts,
            refused_places,
        } = &self.manifest;
        assert_eq!(
            format!("v{release}"),
            self.folder.file_name().unwrap().to_str().unwrap()
        );
        let mut kms = KmsByFile::new();
        for case in kek_files {
            self.check_kek_file(case, &mut kms).await;
        }
        for case in wraps {
            self.check_wrap(case, &kms[&case.kek_file]).await;
        }
        for database in databases {
            self.check_database(database, &kms).await;
        }
        for case in ciphertexts {
            let database = databases
                .iter()
                .find(|database| database.file == case.database)
                .unwrap();
            self.check_ciphertext(case, database, &kms).await;
        }
        for pairs in refused_contexts {
            let refused = encx::EncryptionContext::from_pairs(pairs.clone());
            assert!(refused.is_err(), "{pairs:?}");
        }
        for place in refused_places {
            let refused = aad(place).and_then(|aad| aad.framed().map(<[u8]>::to_vec));
            assert!(refused.is_err(), "{place:?}");
        }

        let opened = kek_files
            .iter()
            .map(|case| &case.file)
            .chain(wraps.iter().map(|case| &case.file));
        let opened = opened.chain(databases.iter().map(|database| &database.file));
        let opened = opened.chain(ciphertexts.iter().map(|case| &case.file));
        let mut opened: BTreeSet<_> = opened.cloned().collect();
        assert!(!opened.is_empty(), "{release} has no golden files");
        opened.insert("manifest.json".to_owned());
        let entries = fs::read_dir(&self.folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        let present: BTreeSet<_> = entries.map(|name| name.into_string().unwrap()).collect();
        assert_eq!(opened, present, "the manifest of {release} lists every file");
        for places in [
            kek_files
                .iter()
                .any(|case| matches!(case.expect, Expected::OpensTo(_))),
            wraps
                .iter()
                .any(|case| matches!(case.expect, Expected::OpensTo(_))),
            ciphertexts
                .iter()
                .any(|case| matches!(case.expect, Expected::OpensTo(_))),
        ] {
            assert!(places, "{release} has nothing of a kind that must open");
        }
    }

    fn read_changed(&self, file: &str, change: Option<Change>) -> Vec<u8> {
        let mut bytes = fs::read(self.folder.join(file)).unwrap();
        if let Some(change) = change {
            apply(change, &mut bytes);
        }
        bytes
    }

    /// Writes bytes into a new file, with permissions that git does not record.
    fn place(&self, bytes: &[u8], mode: &str) -> PathBuf {
        let folder = tempfile::tempdir_in(self.scratch.path()).unwrap().keep();
        let path = folder.join("copy");
        fs::write(&path, bytes).unwrap();
        let mode = u32::from_str_radix(mode, 8).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    async fn check_kek_file(&self, case: &KekFileCase, kms: &mut KmsByFile) {
        let mut bytes = self.read_changed(&case.file, case.change);
        if case.mend_checksum {
            mend_checksum(&mut bytes);
        }
        let path = self.place(&bytes, &case.mode);
        let protection = match &case.protection {
            ProtectedBy::FilePermissions => Protection::insecure_file_permissions_only(),
            ProtectedBy::Key(text) => Protection::key_from_file(self.place(text.as_bytes(), "0600")),
            ProtectedBy::Passphrase(passphrase) => Protection::passphrase(passphrase),
        };
        let found = match LocalKms::open(path, protection).await {
            Ok(opened) => {
                let keks = opened.list_keks().await.unwrap();
                if matches!(case.expect, Expected::OpensTo(_)) {
                    kms.insert(case.file.clone(), opened);
                }
                Expected::OpensTo(keks.into_iter().map(described).collect())
            }
            Err(error) => Expected::RefusedAs(code_of_kek_file(&error).to_owned()),
        };
        assert_eq!(found, case.expect, "{case:?}");
    }

    async fn check_wrap(&self, case: &WrapCase, kms: &LocalKms) {
        let wrapped = WrappedKey::new(
            KekId::new(&case.kek).unwrap(),
            self.read_changed(&case.file, case.change),
        );
        let usage = usage(&case.usage);
        let context = manifest::context(&case.context).unwrap();
        let context = KmsContext::new(&context, usage, case.key_id.parse().unwrap());
        assert_eq!(unwrapped(kms, &wrapped, &context).await, case.expect, "{case:?}");
    }

    async fn check_database(&self, database: &Database, kms: &KmsByFile) {
        let store = self.store(&database.file, None).await;
        let mut listed = BTreeSet::new();
        for key in &database.keys {
            let (context, usage) = (manifest::context(&key.context).unwrap(), usage(&key.usage));
            let records = store.load(&[Scope::of(usage, &context)]).await.unwrap();
            let id = key.id.parse().unwrap();
            let record = records.iter().find(|record| record.id == id).unwrap();
            record.check_belongs(&context, usage).unwrap();
            assert_eq!(record.version.get(), key.version, "{id}");
            assert_eq!(record.state.name(), key.state, "{id}");
            assert_eq!(
                record.suspended_from.map(encx::keys::KeyState::name),
                key.suspended_from.as_deref(),
                "{id}"
            );
            assert_eq!(record.wraps.len(), key.wraps.len(), "{id}");
            for (stored, wrap) in record.wraps.iter().zip(&key.wraps) {
                let named = (
                    stored.kms.as_str(),
                    stored.wrapped.kek.as_str(),
                    stored.wrapped.kek_material.as_deref(),
                );
                assert_eq!(
                    named,
                    (wrap.kms.as_str(), wrap.kek.as_str(), Some(wrap.material.as_str())),
                    "{id}"
                );
                let service = &kms[&database.kms[&wrap.kms]];
                let kms_context = KmsContext::new(&context, usage, id);
                assert_eq!(
                    unwrapped(service, &stored.wrapped, &kms_context).await,
                    wrap.expect,
                    "{id}"
                );
                if let Expected::OpensTo(key) = &wrap.expect {
                    let key = encx::kms::DataKey::copy_from(&unhex(key)).unwrap();
                    assert_eq!(key.check(id), record.key_check, "{id}");
                }
            }
            listed.insert(id);
        }
        let all = store.page(&encx::store::KeyQuery::new(1000)).await.unwrap();
        let all: BTreeSet<_> = all.records.iter().map(|record| record.id).collect();
        assert_eq!(all, listed, "the manifest lists every key");
    }

    async fn check_ciphertext(&self, case: &CiphertextCase, database: &Database, kms: &KmsByFile) {
        let found = match self.decrypt(case, database, kms).await {
            Ok(bytes) => Expected::OpensTo(bytes),
            Err(error) => Expected::RefusedAs(code(&error).to_owned()),
        };
        let expected = match &case.expect {
            Expected::OpensTo(content) => Expected::OpensTo(content.bytes()),
            Expected::RefusedAs(code) => Expected::RefusedAs(code.clone()),
        };
        assert!(
            found == expected,
            "{case:?} gave {}",
            match found {
                Expected::OpensTo(bytes) => format!("{} bytes", bytes.len()),
                Expected::RefusedAs(code) => code,
            }
        );
    }

    async fn decrypt(
        &self,
        case: &CiphertextCase,
        database: &Database,
        kms: &KmsByFile,
    ) -> Result<Vec<u8>, Error> {
        let ciphertext = Ciphertext::parse(self.read_changed(&case.file, case.change))?;
        let store = self.store(&database.file, case.sql.as_deref()).await;
        let mut builder =
            Crypto::builder(kms[&database.kms["default"]].clone(), store).create_on_first_use(false);
        for (name, file) in &database.kms {
            if name != "default" {
                builder = builder.kms_named(name.as_str(), kms[file].clone());
            }
            for kek in kms[file].list_keks().await.unwrap() {
                builder = builder.also_unwrap(KekRef::new(KmsName::new(name).unwrap(), kek.kek));
            }
        }
        for accepted in &case.accept {
            builder = match accepted.as_str() {
                "compromised" => builder.accept_compromised(),
                "uncommitted" => builder.accept_uncommitted(),
                unknown => panic!("to accept {unknown} means nothing"),
            };
        }
        let crypto = builder.build().await?;
        let context = manifest::context(&case.context)?;
        let plaintext = crypto.decrypt(&context, &ciphertext, aad(&case.place)?).await?;
        Ok(plaintext.into_bytes())
    }

    async fn store(&self, file: &str, sql: Option<&str>) -> SqliteKeyStore {
        let path = self.place(&self.read_changed(file, None), "0600");
        if let Some(sql) = sql {
            let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&path))
                .await
                .unwrap();
            let change = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&pool).await.unwrap();
            assert!(change.rows_affected() > 0, "{sql}");
            pool.close().await;
        }
        let store = SqliteKeyStore::connect(path.to_str().unwrap()).await.unwrap();
        // A store of an earlier release is migrated as a service would migrate it.
        store.migrate().await.unwrap();
        store
    }
}

fn apply(change: Change, bytes: &mut Vec<u8>) {
    match change {
        Change::Append(byte) => bytes.push(byte),
        Change::Extend(len) => bytes.resize(len, 0),
        Change::FlipBit(bit) => bytes[bit / 8] ^= 1 << (bit % 8),
        Change::Keep(len) => bytes.truncate(len),
        Change::Set { at, to } => bytes[at] = to,
    }
}

/// Recomputes the checksum, as an attacker can.
fn mend_checksum(bytes: &mut [u8]) {
    use sha2::Digest as _;
    let (content, checksum) = bytes.split_last_chunk_mut::<32>().unwrap();
    *checksum = sha2::Sha256::digest(content).into();
}

fn described(kek: encx_local::LocalKek) -> Kek {
    Kek {
        id: kek.kek.to_string(),
        enabled: kek.state == KekState::Enabled,
        default: kek.is_default,
        aliases: kek.aliases.iter().map(ToString::to_string).collect(),
        materials: kek.materials,
    }
}

async fn unwrapped(kms: &LocalKms, wrapped: &WrappedKey, context: &KmsContext) -> Expected<String> {
    match kms.unwrap_key(wrapped, context).await {
        Ok(key) => Expected::OpensTo(hex(key.expose())),
        Err(error) => Expected::RefusedAs(code_of_kms(&error).to_owned()),
    }
}

fn usage(name: &str) -> KeyUsage {
    KeyUsage::ALL
        .into_iter()
        .find(|usage| usage.name() == name)
        .unwrap()
}

fn aad(place: &Place) -> Result<Aad, AadError> {
    Ok(match place {
        Place::Field {
            table,
            column,
            row,
            path,
        } => Field::try_new(table, column)?.row_path(Row(row), path),
        Place::Free { parts } => parts.iter().fold(Aad::free(), |aad, part| match part {
            Part::Bytes(hex) => aad.bytes(unhex(hex)),
            Part::Integer(digits) => match digits.parse::<i128>() {
                Ok(integer) => aad.integer(integer),
                Err(_) => aad.integer(digits.parse::<u128>().unwrap()),
            },
            Part::Text(text) => aad.text(text),
            Part::Uuid(uuid) => aad.uuid(uuid.parse().unwrap()),
        }),
        Place::Unbound => Aad::unbound(),
    })
}

struct Row<'a>(&'a [Part]);

impl RowId for Row<'_> {
    fn append_to(&self, parts: RowIdParts) -> RowIdParts {
        self.0.iter().fold(parts, |parts, part| match part {
            Part::Bytes(hex) => unhex(hex).append_to(parts),
            Part::Integer(digits) => match digits.parse::<i128>() {
                Ok(integer) => integer.append_to(parts),
                Err(_) => digits.parse::<u128>().unwrap().append_to(parts),
            },
            Part::Text(text) => text.append_to(parts),
            Part::Uuid(uuid) => uuid.parse::<uuid::Uuid>().unwrap().append_to(parts),
        })
    }
}

/// Returns the name of a refusal in `docs/format.md`.
fn code(error: &Error) -> &'static str {
    match error {
        Error::Aad(_) => "aad",
        Error::Ciphertext(error) => match error {
            CiphertextError::BadKeyId => "bad-key-id",
            CiphertextError::HexText | CiphertextError::NotEncrypted => "unknown-version",
            CiphertextError::TooLong { .. } => "too-long",
            CiphertextError::TooShort { .. } => "too-short",
            CiphertextError::UnknownSuite { .. } => "unknown-suite",
            CiphertextError::UnknownVersion { .. } => "unknown-version",
            _ => panic!("{error:?} has no name"),
        },
        Error::Compromised { .. } => "compromised",
        Error::Context(_) => "context",
        Error::Decrypt { .. } => "decrypt",
        // The key is gone in both cases; if no version is left, the error also says so.
        Error::Destroyed { .. } | Error::Shredded => "destroyed",
        Error::KekNotAllowed { .. } => "kek-not-allowed",
        Error::KeyMismatch { .. } => "key-mismatch",
        Error::Kms(error) => code_of_kms(error),
        Error::Store(StoreError::Corrupt { .. }) => "row-edited",
        Error::SuiteNotAccepted { .. } => "suite-not-accepted",
        Error::Suspended { .. } => "suspended",
        Error::UnknownKey { .. } => "unknown-key",
        _ => panic!("{error:?} has no name"),
    }
}

fn code_of_kms(error: &KmsError) -> &'static str {
    match error.kind() {
        KmsErrorKind::Integrity => "wrap",
        KmsErrorKind::KeyState => "kek-disabled",
        KmsErrorKind::NotFound => "kek-unknown",
        _ => panic!("{error:?} has no name"),
    }
}

fn code_of_kek_file(error: &LocalKmsError) -> &'static str {
    match error {
        LocalKmsError::Corrupt { .. } => "corrupt",
        LocalKmsError::Key { .. } => "key-text",
        LocalKmsError::Owner { .. } => "owner",
        LocalKmsError::Permissions { .. } => "permissions",
        LocalKmsError::Protection { .. } => "protection",
        LocalKmsError::TooLarge { .. } => "too-large",
        LocalKmsError::UnsupportedVersion { .. } => "unsupported-version",
        LocalKmsError::WrongKey { .. } => "wrong-key",
        LocalKmsError::WrongPassphrase { .. } => "wrong-passphrase",
        _ => panic!("{error:?} has no name"),
    }
}

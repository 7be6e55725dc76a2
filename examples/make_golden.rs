//! Writes the golden files of a release, once. For maintainers: `tests/golden/README.md` says when.
//!
//! ```text
//! cargo run --example make_golden
//! ```
//!
//! Everything goes through the public API, as a service would write it. The manifest beside the files says what they
//! must open to. An existing folder is never written to.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a maintainer's tool: a panic leaves nothing in place"
)]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use encx::{
    Aad, Ciphertext, Crypto, CryptoBuilder, DataKey, DataKeyId, EncryptionContext, Field, KekChoice, KekId,
    KekRef, KekState, KeyManagementService, KeyManager, KeyRecord, KeyState, KeyStore, KeyUsage, KeyVersion,
    KmsContext, KmsName, NewKey, Scope, StoredWrap, Suite,
};
use encx_local::{Argon2Params, LocalKms, Protection};
use encx_sqlx::SqliteKeyStore;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool};

#[path = "../tests/golden/manifest.rs"]
mod manifest;

use manifest::{
    Change, CiphertextCase, Content, Database, Expected, Kek, KekFileCase, Key, Manifest, Part, Place,
    ProtectedBy, Wrap, WrapCase, hex, unhex,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Pairs = &'static [(&'static str, &'static str)];

const PASSPHRASE: &str = "fünf Wörter, die keiner errät";
const OTHER_PASSPHRASE: &str = "correct horse battery staple";
const KEY: &str = "5f0c3c1f0a6be5d4f2a0e1c7b19d83640e7e5ad2c4b8a6f19023456789abcdef";

const PASSPHRASE_FILE: &str = "keks-passphrase.encx";
const DEFAULTS_FILE: &str = "keks-passphrase-defaults.encx";
const KEY_FILE: &str = "keks-key.encx";
const PERMISSIONS_FILE: &str = "keks-permissions.encx";
const DATABASE: &str = "keys.db";

const PII: Pairs = &[("tenantId", "t-1"), ("purpose", "pii")];
const OTHER_TENANT: Pairs = &[("tenantId", "t-2"), ("purpose", "pii")];
/// Sorted by UTF-8 bytes the third key comes before the fourth, by UTF-16 units after it.
const UNICODE: Pairs = &[
    ("Mandant", "Ärztehaus Köln"),
    ("zweck", "données médicales"),
    ("\u{ff5a}", "fullwidth"),
    ("\u{10428}", "beyond the BMP"),
    ("e\u{301}", "not normalised"),
    ("é", "normalised"),
];
const EIGHT: Pairs = &[
    ("h", "8"),
    ("g", "7"),
    ("f", "6"),
    ("e", "5"),
    ("d", "4"),
    ("c", "3"),
    ("b", "2"),
    ("a", "1"),
];
const LOGS: Pairs = &[("purpose", "logs")];
const TWO_WRAPS: Pairs = &[("tenantId", "t-3"), ("region", "eu")];
const RETIRED_KEK: Pairs = &[("purpose", "archive")];
const SUSPENDED: Pairs = &[("tenantId", "suspended")];
const COMPROMISED: Pairs = &[("tenantId", "compromised")];
const SHREDDED: Pairs = &[("tenantId", "shredded")];
const REVIVED: Pairs = &[("tenantId", "revived")];

#[tokio::main]
async fn main() -> Result<()> {
    let release = env!("CARGO_PKG_VERSION");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let target = golden.join(format!("v{release}"));
    if target.exists() {
        return Err(format!(
            "{} exists, and golden files are never written again",
            target.display()
        )
        .into());
    }
    // Beside its place, so that the folder appears whole or not at all.
    let scratch = tempfile::tempdir_in(&golden)?;
    let folder = scratch.path().join("release");
    fs::create_dir(&folder)?;
    let mut golden = Golden::begin(&folder, release);
    golden.kek_files().await?;
    golden.database().await?;
    golden.wraps().await?;
    golden.refused_inputs();
    let json = serde_json::to_string_pretty(&golden.manifest)?;
    fs::write(folder.join("manifest.json"), json + "\n")?;
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        // The locks of KEK files stay behind, and are nothing to open.
        if path.extension().is_some_and(|extension| extension == "lock") {
            fs::remove_file(path)?;
        }
    }
    fs::rename(&folder, &target)?;
    println!("{}", target.display());
    Ok(())
}

struct Golden {
    folder: PathBuf,
    manifest: Manifest,
}

impl Golden {
    fn begin(folder: &Path, release: &str) -> Self {
        Self {
            folder: folder.to_path_buf(),
            manifest: Manifest {
                release: release.to_owned(),
                kek_files: Vec::new(),
                wraps: Vec::new(),
                databases: Vec::new(),
                ciphertexts: Vec::new(),
                refused_contexts: Vec::new(),
                refused_places: Vec::new(),
            },
        }
    }

    /// Makes the KEK files but not yet their entries: the database's story changes two of them.
    async fn kek_files(&mut self) -> Result<()> {
        let kms = LocalKms::create(self.folder.join(PASSPHRASE_FILE), cheap_passphrase()).await?;
        let logs = kms.create_kek().await?;
        kms.create_alias("alias/logs", &logs).await?;
        kms.create_alias("alias/Prüfpfad", &logs).await?;
        let retired = kms.create_kek().await?;
        kms.create_alias("alias/archive", &retired).await?;

        let defaults = Protection::passphrase(OTHER_PASSPHRASE);
        LocalKms::create(self.folder.join(DEFAULTS_FILE), defaults).await?;

        let kms = LocalKms::create(self.folder.join(KEY_FILE), key_protection()).await?;
        let second = kms.create_kek().await?;
        kms.set_default_kek(&second).await?;

        let permissions = Protection::insecure_file_permissions_only();
        let kms = LocalKms::create(self.folder.join(PERMISSIONS_FILE), permissions).await?;
        kms.create_alias("alias/app", kms.default_kek().unwrap()).await?;
        Ok(())
    }

    async fn open(&self, file: &str) -> Result<LocalKms> {
        let protection = match file {
            PASSPHRASE_FILE => Protection::passphrase(PASSPHRASE),
            DEFAULTS_FILE => Protection::passphrase(OTHER_PASSPHRASE),
            KEY_FILE => key_protection(),
            _ => Protection::insecure_file_permissions_only(),
        };
        Ok(LocalKms::open(self.folder.join(file), protection).await?)
    }

    async fn database(&mut self) -> Result<()> {
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

        // Under the second material: the second version of a key, and what it seals.
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
            manager.destroy(&pairs(context), version.id).await?;
        }
        manager.revive(&pairs(REVIVED)).await?;
        let seal = Sealed::text("revived-again", REVIVED, "after the revival", place.clone());
        self.seal(&crypto, seal, Field::new("users", "ssn").row(42))
            .await?;

        // What another process seals that saw the promotion of a version that is pre-active here.
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

    /// Every kind of a row's id, and paths.
    async fn rows(&mut self, crypto: &Crypto) -> Result<()> {
        let ssn = Field::new("users", "ssn");
        let uuid = "01890a5d-ac96-774b-bcce-b302099a8057";
        let (text, integer) = (
            |text: &str| Part::Text(text.into()),
            |digits: &str| Part::Integer(digits.into()),
        );
        let uuid_part = || Part::Uuid(uuid.into());
        let parsed: uuid::Uuid = uuid.parse()?;
        let six = (1_u8, "b", [3_u8], parsed, -5_i64, "f".to_owned());
        let six_parts = vec![
            integer("1"),
            text("b"),
            Part::Bytes("03".into()),
            uuid_part(),
            integer("-5"),
            text("f"),
        ];
        let rows: Vec<(&str, Aad, Vec<Part>)> = vec![
            ("row", ssn.row(42), vec![integer("42")]),
            ("row-negative", ssn.row(-1_i8), vec![integer("-1")]),
            (
                "row-u64-max",
                ssn.row(u64::MAX),
                vec![integer("18446744073709551615")],
            ),
            (
                "row-i128-min",
                ssn.row(i128::MIN),
                vec![integer("-170141183460469231731687303715884105728")],
            ),
            ("row-text", ssn.row("alice"), vec![text("alice")]),
            ("row-text-of-digits", ssn.row("42"), vec![text("42")]),
            ("row-uuid", ssn.row(parsed), vec![uuid_part()]),
            (
                "row-bytes",
                ssn.row([0_u8, 255, 7]),
                vec![Part::Bytes("00ff07".into())],
            ),
            (
                "row-composite",
                ssn.row(("order-7", 3)),
                vec![text("order-7"), integer("3")],
            ),
            ("row-composite-of-six", ssn.row(six), six_parts),
            ("row-unicode", ssn.row("Zoë 🦀"), vec![text("Zoë 🦀")]),
        ];
        for (name, aad, parts) in rows {
            self.seal(crypto, Sealed::text(name, PII, "123-45-6789", row(parts)), aad)
                .await?;
        }
        let paths: [(&str, &[&str]); 3] = [
            ("path", &["address", "street"]),
            ("path-unicode", &["Straße"]),
            ("path-like-a-row", &["3"]),
        ];
        for (name, path) in paths {
            let place = Place::Field {
                table: "users".into(),
                column: "profile".into(),
                row: vec![text("order-7")],
                path: path.iter().map(ToString::to_string).collect(),
            };
            let aad = Field::new("users", "profile").row_path("order-7", path);
            self.seal(crypto, Sealed::text(name, PII, "Hauptstraße 1", place), aad)
                .await?;
        }
        self.seal(
            crypto,
            Sealed::text("unbound", PII, "anywhere", Place::Unbound),
            Aad::unbound(),
        )
        .await?;
        let none = Place::Free { parts: Vec::new() };
        self.seal(
            crypto,
            Sealed::text("free-without-parts", PII, "free", none),
            Aad::free(),
        )
        .await?;
        let parts = vec![
            text("session"),
            text(""),
            Part::Bytes(String::new()),
            Part::Bytes("00".into()),
            integer("170141183460469231731687303715884105727"),
            uuid_part(),
        ];
        let aad = Aad::free()
            .text("session")
            .text("")
            .bytes([])
            .bytes([0])
            .integer(i128::MAX)
            .uuid(parsed);
        self.seal(
            crypto,
            Sealed::text("free", PII, "free", Place::Free { parts }),
            aad,
        )
        .await
    }

    /// Plaintexts of many lengths: none, within a block, at its edges, past what 16 bits count.
    async fn values(&mut self, crypto: &Crypto) -> Result<()> {
        for len in [0, 1, 15, 16, 17, 70_000] {
            let content = if len == 0 {
                Content::Text(String::new())
            } else {
                Content::Counting(len)
            };
            self.seal_row(crypto, &format!("length-{len}"), content).await?;
        }
        self.seal_row(crypto, "not-utf8", Content::Hex("ff00fe80".into()))
            .await
    }

    async fn uncommitted(&mut self, crypto: &Crypto) -> Result<()> {
        for (name, content) in [
            ("suite-2-empty", Content::Text(String::new())),
            ("suite-2-short", Content::Text("without a commitment".into())),
            ("suite-2-long", Content::Counting(5000)),
        ] {
            let mut sealed = Sealed::text(name, PII, "", row(vec![Part::Integer("42".into())]));
            sealed.content = content;
            sealed.accept = vec!["uncommitted".into()];
            self.seal(crypto, sealed, Field::new("users", "ssn").row(42))
                .await?;
        }
        Ok(())
    }

    async fn contexts(&mut self, crypto: &Crypto) -> Result<()> {
        for (name, context) in [
            ("context-unicode", UNICODE),
            ("context-of-eight", EIGHT),
            ("context-other-tenant", OTHER_TENANT),
            ("kek-by-alias", LOGS),
            ("two-wraps", TWO_WRAPS),
        ] {
            let place = row(vec![Part::Integer("42".into())]);
            let sealed = Sealed::text(name, context, "123-45-6789", place);
            self.seal(crypto, sealed, Field::new("users", "ssn").row(42))
                .await?;
        }
        Ok(())
    }

    async fn seal_row(&mut self, crypto: &Crypto, name: &str, content: Content) -> Result<()> {
        let mut sealed = Sealed::text(name, PII, "", row(vec![Part::Integer("42".into())]));
        sealed.content = content;
        self.seal(crypto, sealed, Field::new("users", "ssn").row(42))
            .await
    }

    async fn seal(&mut self, crypto: &Crypto, sealed: Sealed, aad: Aad) -> Result<()> {
        let ciphertext = crypto
            .encrypt(&pairs(sealed.context), sealed.content.bytes(), aad)
            .await?;
        self.keep(sealed, &ciphertext)
    }

    fn keep(&mut self, sealed: Sealed, ciphertext: &Ciphertext) -> Result<()> {
        let file = format!("ciphertext-{}.bin", sealed.name);
        fs::write(self.folder.join(&file), ciphertext)?;
        self.manifest.ciphertexts.push(CiphertextCase {
            file,
            database: DATABASE.into(),
            context: map(sealed.context),
            place: sealed.place,
            accept: sealed.accept,
            change: None,
            sql: None,
            expect: Expected::OpensTo(sealed.content),
        });
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

    async fn describe_kek_file(&mut self, file: &str) -> Result<()> {
        let keks = self.open(file).await?.list_keks().await?;
        let names = |ids: Vec<KekId>| ids.iter().map(ToString::to_string).collect();
        let keks = keks.into_iter().map(|kek| Kek {
            id: kek.kek.to_string(),
            enabled: kek.state == KekState::Enabled,
            default: kek.is_default,
            aliases: names(kek.aliases),
            materials: kek.materials,
        });
        let keks: Vec<_> = keks.collect();
        let opens = |protection: ProtectedBy| kek_file(file, protection, Expected::OpensTo(keks.clone()));
        self.manifest.kek_files.extend(match file {
            PASSPHRASE_FILE => vec![opens(ProtectedBy::Passphrase(PASSPHRASE.into()))],
            DEFAULTS_FILE => vec![opens(ProtectedBy::Passphrase(OTHER_PASSPHRASE.into()))],
            // The same key in each form that its text may have.
            KEY_FILE => [
                KEY,
                &KEY.to_uppercase(),
                "Xww8Hwpr5dTyoOHHsZ2DZA5+WtLEuKbxkCNFZ4mrze8=",
                "Xww8Hwpr5dTyoOHHsZ2DZA5-WtLEuKbxkCNFZ4mrze8",
                " Xww8Hwpr5dTyoOHHsZ2DZA5+WtLEuKbxkCNFZ4mrze8\n",
            ]
            .map(|text| opens(ProtectedBy::Key(text.into())))
            .into(),
            _ => vec![opens(ProtectedBy::FilePermissions)],
        });
        Ok(())
    }

    fn refused_kek_files(&mut self) {
        let passphrase = || ProtectedBy::Passphrase(PASSPHRASE.into());
        let key = || ProtectedBy::Key(KEY.into());
        let permissions = || ProtectedBy::FilePermissions;
        let len = |file| usize::try_from(fs::metadata(self.folder.join(file)).unwrap().len()).unwrap();
        let refused = |file: &str, protection, change: Change, mended, code: &str| KekFileCase {
            change: Some(change),
            mend_checksum: mended,
            ..kek_file(file, protection, Expected::RefusedAs(code.into()))
        };
        let unchanged =
            |file: &str, protection, code: &str| kek_file(file, protection, Expected::RefusedAs(code.into()));
        let mut cases = vec![
            unchanged(
                PASSPHRASE_FILE,
                ProtectedBy::Passphrase(OTHER_PASSPHRASE.into()),
                "wrong-passphrase",
            ),
            // The same text to the eye: nothing is normalised.
            unchanged(
                PASSPHRASE_FILE,
                ProtectedBy::Passphrase(PASSPHRASE.replace('ü', "u\u{308}")),
                "wrong-passphrase",
            ),
            unchanged(KEY_FILE, ProtectedBy::Key(KEY.replace("5f", "60")), "wrong-key"),
            unchanged(KEY_FILE, ProtectedBy::Key(KEY[1..].into()), "key-text"),
            unchanged(KEY_FILE, ProtectedBy::Key(KEY.replace('f', "g")), "key-text"),
            unchanged(KEY_FILE, ProtectedBy::Key(String::new()), "key-text"),
            unchanged(
                PASSPHRASE_FILE,
                ProtectedBy::Passphrase(String::new()),
                "key-text",
            ),
            unchanged(PASSPHRASE_FILE, ProtectedBy::Key(String::new()), "protection"),
            refused(
                KEY_FILE,
                key(),
                Change::Extend((16 << 20) + 1),
                false,
                "too-large",
            ),
            unchanged(PASSPHRASE_FILE, key(), "protection"),
            unchanged(KEY_FILE, passphrase(), "protection"),
            unchanged(PERMISSIONS_FILE, passphrase(), "protection"),
            unchanged(KEY_FILE, permissions(), "protection"),
        ];
        for mode in ["0640", "0604", "0601"] {
            let case = unchanged(PERMISSIONS_FILE, permissions(), "permissions");
            cases.push(KekFileCase {
                mode: mode.into(),
                ..case
            });
        }
        for (file, protection) in [
            (PASSPHRASE_FILE, passphrase()),
            (KEY_FILE, key()),
            (PERMISSIONS_FILE, permissions()),
        ] {
            let len = len(file);
            let wrong = match protection {
                ProtectedBy::Passphrase(_) => "wrong-passphrase",
                ProtectedBy::Key(_) => "wrong-key",
                ProtectedBy::FilePermissions => "corrupt",
            };
            let change = |change, mended, code| refused(file, protection.clone(), change, mended, code);
            cases.extend(
                [0, 1, 9, 40, len / 2, len - 1].map(|keep| change(Change::Keep(keep), false, "corrupt")),
            );
            cases.push(change(Change::Append(0), false, "corrupt"));
            cases.extend(
                [0, 8 * 8, 8 * (len / 2), 8 * (len - 1)]
                    .map(|bit| change(Change::FlipBit(bit), false, "corrupt")),
            );
            cases.push(change(Change::Set { at: 8, to: 2 }, true, "unsupported-version"));
            cases.push(change(Change::Set { at: 9, to: 4 }, true, "corrupt"));
            // What follows is what somebody would do who knows that the checksum is no protection.
            cases.push(change(Change::FlipBit(8 * (len - 32 - 1)), true, wrong));
            cases.push(change(
                Change::FlipBit(8 * (len - 32 - 32 - 16 - 1)),
                true,
                "corrupt",
            ));
            cases.push(change(Change::FlipBit(8 * (len - 32 - 32 - 1)), true, "corrupt"));
            cases.push(change(Change::Append(0), true, "corrupt"));
        }
        // The file's id, which is authenticated but makes no key.
        for at in [10, 25] {
            let change = Change::FlipBit(8 * at);
            cases.push(refused(KEY_FILE, key(), change, true, "corrupt"));
        }
        // The salt, then Argon2's parameters: another key, or none that anybody should try to compute.
        cases.push(refused(
            PASSPHRASE_FILE,
            passphrase(),
            Change::FlipBit(8 * 22),
            true,
            "wrong-passphrase",
        ));
        cases.push(refused(
            PASSPHRASE_FILE,
            passphrase(),
            Change::Set { at: 17, to: 3 },
            true,
            "wrong-passphrase",
        ));
        for (at, to) in [(10, 1), (17, 0), (17, 17), (21, 0), (21, 17)] {
            cases.push(refused(
                PASSPHRASE_FILE,
                passphrase(),
                Change::Set { at, to },
                true,
                "corrupt",
            ));
        }
        self.manifest.kek_files.extend(cases);
    }

    async fn wraps(&mut self) -> Result<()> {
        for file in [PASSPHRASE_FILE, DEFAULTS_FILE, KEY_FILE, PERMISSIONS_FILE] {
            let kms = self.open(file).await?;
            let kek = kms.default_kek().unwrap().clone();
            let name = file.trim_start_matches("keks-").trim_end_matches(".encx");
            self.wrap(&kms, file, &kek, &format!("wrap-{name}.bin"), PII, KeyUsage::Data)
                .await?;
        }
        let kms = self.open(PASSPHRASE_FILE).await?;
        let logs = kms.describe_kek(&KekId::new("alias/logs")?).await?.kek;
        for usage in KeyUsage::ALL {
            let file = format!("wrap-usage-{usage}.bin");
            self.wrap(&kms, PASSPHRASE_FILE, &logs, &file, UNICODE, usage)
                .await?;
        }
        // One KEK's wraps before and after its material was rotated.
        let permissions = self.open(PERMISSIONS_FILE).await?;
        let kek = permissions.default_kek().unwrap().clone();
        self.wrap(
            &permissions,
            PERMISSIONS_FILE,
            &kek,
            "wrap-old-material.bin",
            EIGHT,
            KeyUsage::Data,
        )
        .await?;
        permissions.rotate_kek(&kek).await?;
        permissions.rotate_kek(&kek).await?;
        self.wrap(
            &permissions,
            PERMISSIONS_FILE,
            &kek,
            "wrap-new-material.bin",
            EIGHT,
            KeyUsage::Data,
        )
        .await?;
        self.manifest
            .kek_files
            .retain(|case| case.file != PERMISSIONS_FILE || !matches!(case.expect, Expected::OpensTo(_)));
        self.describe_kek_file(PERMISSIONS_FILE).await?;

        // Wrapped while its KEK was enabled; the file was kept with the KEK disabled.
        let archive = kms.describe_kek(&KekId::new("alias/archive")?).await?.kek;
        kms.enable_kek(&archive).await?;
        self.wrap(
            &kms,
            PASSPHRASE_FILE,
            &archive,
            "wrap-disabled.bin",
            PII,
            KeyUsage::Data,
        )
        .await?;
        kms.disable_kek(&archive).await?;
        let disabled = self.manifest.wraps.last_mut().unwrap();
        disabled.expect = Expected::RefusedAs("kek-disabled".into());

        self.refused_wraps(&logs);
        Ok(())
    }

    async fn wrap(
        &mut self,
        kms: &LocalKms,
        kek_file: &str,
        kek: &KekId,
        file: &str,
        context: Pairs,
        usage: KeyUsage,
    ) -> Result<()> {
        let id = DataKeyId::generate(1_800_000_000_000, None)?;
        let key = DataKey::generate()?;
        let wrapped = kms
            .wrap_key(kek, &key, &KmsContext::new(&pairs(context), usage, id))
            .await?;
        fs::write(self.folder.join(file), &wrapped.ciphertext)?;
        self.manifest.wraps.push(WrapCase {
            file: file.into(),
            kek_file: kek_file.into(),
            kek: wrapped.kek.to_string(),
            context: map(context),
            usage: usage.name().into(),
            key_id: id.to_string(),
            change: None,
            expect: Expected::OpensTo(hex(key.expose())),
        });
        Ok(())
    }

    fn refused_wraps(&mut self, other_kek: &KekId) {
        let good = self
            .manifest
            .wraps
            .iter()
            .find(|case| case.file == "wrap-passphrase.bin")
            .unwrap()
            .clone();
        let mut cases = Vec::new();
        let mut add = |code: &str, edit: &dyn Fn(&mut WrapCase)| {
            let mut case = WrapCase {
                expect: Expected::RefusedAs(code.into()),
                ..good.clone()
            };
            edit(&mut case);
            cases.push(case);
        };
        add("wrap", &|case| case.context = map(OTHER_TENANT));
        add("wrap", &|case| drop(case.context.remove("purpose")));
        add("wrap", &|case| {
            drop(case.context.insert("extra".into(), "1".into()));
        });
        add("wrap", &|case| {
            case.context = [("TENANTID", "t-1"), ("purpose", "pii")].map(own).into();
        });
        add("wrap", &|case| case.usage = "index".into());
        add("wrap", &|case| {
            case.key_id = "01890a5d-ac96-774b-bcce-b302099a8057".into();
        });
        add("wrap", &|case| case.kek = other_kek.to_string());
        add("kek-unknown", &|case| {
            case.kek = "local/00000000-0000-4000-8000-000000000000".into();
        });
        add("kek-unknown", &|case| case.kek = "alias/logs".into());
        add("kek-unknown", &|case| case.kek_file = KEY_FILE.into());
        for at in [0, 1, 16, 17, 28, 29, 40, 41, 72, 73, 88, 89, 120] {
            add("wrap", &|case| case.change = Some(Change::FlipBit(8 * at + 7)));
        }
        for len in [0, 1, 16, 17, 88, 89, 120] {
            add("wrap", &|case| case.change = Some(Change::Keep(len)));
        }
        add("wrap", &|case| case.change = Some(Change::Append(0)));
        self.manifest.wraps.extend(cases);
    }

    fn refused_ciphertexts(&mut self) {
        let find = |name: &str| {
            let file = format!("ciphertext-{name}.bin");
            self.manifest
                .ciphertexts
                .iter()
                .find(|case| case.file == file)
                .unwrap()
                .clone()
        };
        let mut cases = Vec::new();
        let mut add = |name: &str, code: &str, edit: &dyn Fn(&mut CiphertextCase)| {
            let mut case = CiphertextCase {
                expect: Expected::RefusedAs(code.into()),
                ..find(name)
            };
            edit(&mut case);
            cases.push(case);
        };
        let change = |change| move |case: &mut CiphertextCase| case.change = Some(change);
        let place = |place: Place| move |case: &mut CiphertextCase| case.place = place.clone();
        let sql = |sql: &str| {
            let sql = sql.to_owned();
            move |case: &mut CiphertextCase| case.sql = Some(sql.clone())
        };
        let integer = |digits: &str| Part::Integer(digits.into());
        let text = |text: &str| Part::Text(text.into());
        let field = |table: &str, column: &str, row: Vec<Part>, path: &[&str]| Place::Field {
            table: table.into(),
            column: column.into(),
            row,
            path: path.iter().map(ToString::to_string).collect(),
        };

        // Another place.
        for wrong in [
            field("users", "ssn", vec![integer("43")], &[]),
            field("users", "ssn", vec![text("42")], &[]),
            field("users", "email", vec![integer("42")], &[]),
            field("customers", "ssn", vec![integer("42")], &[]),
            field("users", "ssn", vec![integer("42"), integer("42")], &[]),
            field("users", "ssn", vec![integer("42")], &["42"]),
            Place::Free {
                parts: vec![text("users"), text("ssn"), integer("42")],
            },
            Place::Unbound,
        ] {
            add("row", "decrypt", &place(wrong));
        }
        add(
            "row-composite",
            "decrypt",
            &place(row(vec![integer("3"), text("order-7")])),
        );
        add("row-text-of-digits", "decrypt", &place(row(vec![integer("42")])));
        add(
            "row-bytes",
            "decrypt",
            &place(row(vec![Part::Bytes("00ff08".into())])),
        );
        add(
            "row-uuid",
            "decrypt",
            &place(row(vec![text("01890a5d-ac96-774b-bcce-b302099a8057")])),
        );
        // A step of a path is no part of a row's id, though their bytes are the same.
        let as_row = field("users", "profile", vec![text("order-7"), text("3")], &[]);
        add("path-like-a-row", "decrypt", &place(as_row));
        add(
            "path",
            "decrypt",
            &place(field(
                "users",
                "profile",
                vec![text("order-7")],
                &["street", "address"],
            )),
        );
        add(
            "path",
            "decrypt",
            &place(field(
                "users",
                "profile",
                vec![text("order-7")],
                &["address.street"],
            )),
        );
        add("unbound", "decrypt", &place(Place::Free { parts: Vec::new() }));
        add("free-without-parts", "decrypt", &place(Place::Unbound));

        // Another context.
        add("row", "unknown-key", &|case| case.context = map(OTHER_TENANT));
        add("row", "unknown-key", &|case| {
            case.context = map(&[("tenantId", "nobody")]);
        });
        add("row", "unknown-key", &|case| {
            case.context = [("tenantid", "t-1"), ("purpose", "pii")].map(own).into();
        });

        // Changed bytes: the header, the key's id, nonce, text, tag, commitment.
        add("row", "unknown-version", &change(Change::Set { at: 0, to: 0 }));
        add("row", "unknown-version", &change(Change::Set { at: 0, to: 2 }));
        add("row", "unknown-suite", &change(Change::Set { at: 1, to: 0 }));
        add("row", "unknown-suite", &change(Change::Set { at: 1, to: 3 }));
        add("row", "unknown-suite", &change(Change::Set { at: 1, to: 4 }));
        add("row", "suite-not-accepted", &change(Change::Set { at: 1, to: 2 }));
        add("row", "decrypt", &|case| {
            case.change = Some(Change::Set { at: 1, to: 2 });
            case.accept = vec!["uncommitted".into()];
        });
        add("row", "bad-key-id", &change(Change::Set { at: 8, to: 0x40 }));
        add("row", "bad-key-id", &change(Change::Set { at: 10, to: 0x3f }));
        add("row", "unknown-key", &change(Change::FlipBit(8 * 17)));
        for at in [18, 29, 30, 41, 42, 52, 53, 68, 69, 84, 85, 100] {
            add("row", "decrypt", &change(Change::FlipBit(8 * at)));
        }
        for keep in [0, 1, 2, 17, 18, 57, 58, 89] {
            add("row", "too-short", &change(Change::Keep(keep)));
        }
        add("row", "decrypt", &change(Change::Keep(90)));
        add("row", "decrypt", &change(Change::Keep(100)));
        add("row", "decrypt", &change(Change::Append(0)));
        add("row", "too-long", &change(Change::Extend((64 << 20) + 91)));
        add("length-0", "too-short", &change(Change::Keep(89)));
        add("length-0", "decrypt", &change(Change::FlipBit(8 * 42)));
        add("suite-2-short", "suite-not-accepted", &|case| case.accept.clear());
        for at in [18, 30, 42, 62, 77] {
            add("suite-2-short", "decrypt", &change(Change::FlipBit(8 * at)));
        }
        add("suite-2-empty", "too-short", &change(Change::Keep(57)));
        add("suite-2-short", "decrypt", &change(Change::Keep(60)));

        // Rows of the key store that somebody edited.
        let of = |name: &str| {
            let bytes = fs::read(self.folder.join(format!("ciphertext-{name}.bin"))).unwrap();
            hex(&bytes[2..18])
        };
        let id = of("row");
        add(
            "row",
            "row-edited",
            &sql(&format!(
                "UPDATE encx_data_keys SET context = '{{\"tenantId\":\"t-2\",\"purpose\":\"pii\"}}' WHERE id = x'{id}'"
            )),
        );
        add(
            "row",
            "row-edited",
            &sql(&format!("UPDATE encx_data_keys SET usage = 3 WHERE id = x'{id}'")),
        );
        add(
            "row",
            "key-mismatch",
            &sql(&format!(
                "UPDATE encx_data_keys SET key_check = zeroblob(32) WHERE id = x'{id}'"
            )),
        );
        add(
            "row",
            "kek-not-allowed",
            &sql(&format!(
                "UPDATE encx_wrapped_keys SET kek = 'local/planted' WHERE key_id = x'{id}'"
            )),
        );
        let other = of("second-version");
        // A sibling that was edited, and a row that was moved to another scope.
        add(
            "row",
            "row-edited",
            &sql(&format!(
                "UPDATE encx_data_keys SET context = '{{}}' WHERE id = x'{other}'"
            )),
        );
        let moved = sql(&format!(
            "UPDATE encx_data_keys SET version = 99, scope = (SELECT scope FROM encx_data_keys \
             WHERE id = x'{}') WHERE id = x'{id}'",
            of("context-other-tenant")
        ));
        add("row", "row-edited", &|case| {
            moved(case);
            case.context = map(OTHER_TENANT);
        });
        add(
            "row",
            "wrap",
            &sql(&format!(
                "UPDATE encx_wrapped_keys SET ciphertext = (SELECT ciphertext FROM encx_wrapped_keys \
             WHERE key_id = x'{other}') WHERE key_id = x'{id}'"
            )),
        );
        add(
            "row",
            "suspended",
            &sql(&format!(
                "UPDATE encx_data_keys SET state = 'suspended', suspended_from = 'deactivated' WHERE id = x'{id}'"
            )),
        );

        // States.
        let resumed = find("suspended");
        add("compromised", "compromised", &|_| ());
        add(
            "two-wraps",
            "wrap",
            &sql(&format!(
                "UPDATE encx_wrapped_keys SET ciphertext = zeroblob(121) WHERE key_id = x'{}'",
                of("two-wraps")
            )),
        );
        let one_is_enough = CiphertextCase {
            sql: Some(format!(
                "UPDATE encx_wrapped_keys SET ciphertext = zeroblob(121) WHERE kms = 'default' AND key_id = x'{}'",
                of("two-wraps")
            )),
            ..find("two-wraps")
        };
        let resumed = CiphertextCase {
            sql: Some(format!(
                "UPDATE encx_data_keys SET state = suspended_from, suspended_from = NULL WHERE id = x'{}'",
                of("suspended")
            )),
            ..resumed
        };
        for (name, code) in [
            ("suspended", "suspended"),
            ("shredded", "destroyed"),
            ("revived", "destroyed"),
            ("archive", "kek-disabled"),
        ] {
            let file = format!("ciphertext-{name}.bin");
            let case = self
                .manifest
                .ciphertexts
                .iter_mut()
                .find(|case| case.file == file)
                .unwrap();
            case.expect = Expected::RefusedAs(code.into());
        }
        let file = "ciphertext-compromised.bin";
        let compromised = self
            .manifest
            .ciphertexts
            .iter_mut()
            .find(|case| case.file == file)
            .unwrap();
        compromised.accept = vec!["compromised".into()];
        self.manifest.ciphertexts.extend([one_is_enough, resumed]);
        self.manifest.ciphertexts.extend(cases);
    }

    fn refused_inputs(&mut self) {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        self.manifest.refused_contexts = vec![
            vec![],
            (0..9).map(|n| (n.to_string(), n.to_string())).collect(),
            vec![pair("", "v")],
            vec![pair("k", "")],
            vec![pair("k\n", "v")],
            vec![pair("k", "a\u{85}b")],
            vec![pair("k", "\u{7f}")],
            vec![pair("k", &"é".repeat(385))],
            vec![pair(&"k".repeat(385), "v")],
            vec![pair("a", "1"), pair("a", "1")],
            vec![pair("a", "1"), pair("A", "2")],
            vec![pair("STRASSE", "1"), pair("straße", "2")],
            vec![pair("ς", "1"), pair("σ", "2")],
            vec![pair("k", "1"), pair("\u{212a}", "the Kelvin sign")],
            vec![pair("encx:key", "v")],
            vec![pair("ENCX:x", "v")],
            vec![pair("encx:", "v")],
        ];
        let field = |table: &str, column: &str, row: Vec<Part>, path: &[&str]| Place::Field {
            table: table.into(),
            column: column.into(),
            row,
            path: path.iter().map(ToString::to_string).collect(),
        };
        let seven = || vec![Part::Integer("7".into())];
        self.manifest.refused_places = vec![
            field("", "c", seven(), &[]),
            field("t", "", seven(), &[]),
            field("t", "c", vec![], &[]),
            field("t", "c", vec![Part::Text(String::new())], &[]),
            field("t", "c", vec![Part::Bytes(String::new())], &[]),
            field("t", "c", seven(), &[""]),
            field(
                "t",
                "c",
                vec![Part::Integer("170141183460469231731687303715884105728".into())],
                &[],
            ),
            Place::Free {
                parts: (0..65).map(|n: u8| Part::Integer(n.to_string())).collect(),
            },
            Place::Free {
                parts: vec![Part::Text("x".repeat(65_529))],
            },
        ];
    }
}

/// A value to encrypt and what the manifest says of it.
struct Sealed {
    name: String,
    context: Pairs,
    content: Content,
    place: Place,
    accept: Vec<String>,
}

impl Sealed {
    fn text(name: &str, context: Pairs, text: &str, place: Place) -> Self {
        Self {
            name: name.into(),
            context,
            content: Content::Text(text.into()),
            place,
            accept: Vec::new(),
        }
    }
}

fn row(parts: Vec<Part>) -> Place {
    Place::Field {
        table: "users".into(),
        column: "ssn".into(),
        row: parts,
        path: Vec::new(),
    }
}

fn cheap_passphrase() -> Protection {
    let params = Argon2Params::new(256, 2, 3).unwrap();
    Protection::passphrase_with(PASSPHRASE, params)
}

fn key_protection() -> Protection {
    Protection::key(DataKey::copy_from(&unhex(KEY)).unwrap())
}

fn kek_file(file: &str, protection: ProtectedBy, expect: Expected<Vec<Kek>>) -> KekFileCase {
    KekFileCase {
        file: file.into(),
        protection,
        change: None,
        mend_checksum: false,
        mode: "0600".into(),
        expect,
    }
}

async fn open_database(path: &Path) -> Result<SqlitePool> {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    Ok(SqlitePool::connect_with(options.journal_mode(SqliteJournalMode::Wal)).await?)
}

fn builder(kms: &LocalKms, eu: &LocalKms, store: &SqliteKeyStore) -> CryptoBuilder {
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

async fn active(manager: &KeyManager, context: Pairs) -> Result<KeyRecord> {
    let mut versions = manager.list(&pairs(context)).await?;
    versions.retain(|version| version.state == KeyState::Active);
    Ok(versions.pop().unwrap())
}

async fn suspend(manager: &KeyManager, context: Pairs) -> Result<KeyRecord> {
    let version = active(manager, context).await?;
    Ok(manager
        .set_state(&pairs(context), version.id, KeyState::Suspended)
        .await?)
}

async fn describe_key(record: &KeyRecord, context: Pairs, kms: &LocalKms, eu: &LocalKms) -> Result<Key> {
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

fn own((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().copied().map(own).collect()
}

fn pairs(context: Pairs) -> EncryptionContext {
    manifest::context(&map(context)).unwrap()
}

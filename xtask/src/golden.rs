//! Writes the golden files of a release, once: `tests/golden/README.md` says when.
//!
//! Everything goes through the public API, as a service would use it. The manifest beside the files says what they must
//! open to. An existing folder is never overwritten.

mod database;
mod kek_files;
#[path = "../../tests/golden/manifest.rs"]
mod manifest;
mod refused;
mod values;
mod wraps;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use encx::{Aad, Ciphertext, Crypto, EncryptionContext, Field};

use manifest::{CiphertextCase, Content, Expected, Manifest, Part, Place};

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
/// By UTF-8 bytes the third key sorts before the fourth, by UTF-16 units after it.
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

pub(crate) async fn make() -> Result<()> {
    let release = env!("CARGO_PKG_VERSION");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let target = golden.join(format!("v{release}"));
    if target.exists() {
        return Err(format!(
            "{} exists, and golden files are never written again",
            target.display()
        )
        .into());
    }
    // In a scratch folder beside the target, so that the rename is atomic.
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
        // Lock files of KEK files remain, and contain nothing to open.
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

    pub(crate) async fn seal_row(&mut self, crypto: &Crypto, name: &str, content: Content) -> Result<()> {
        let mut sealed = Sealed::text(name, PII, "", row(vec![Part::Integer("42".into())]));
        sealed.content = content;
        self.seal(crypto, sealed, Field::new("users", "ssn").row(42))
            .await
    }

    pub(crate) async fn seal(&mut self, crypto: &Crypto, sealed: Sealed, aad: Aad) -> Result<()> {
        let ciphertext = crypto
            .encrypt(&pairs(sealed.context), sealed.content.bytes(), aad)
            .await?;
        self.keep(sealed, &ciphertext)
    }

    pub(crate) fn keep(&mut self, sealed: Sealed, ciphertext: &Ciphertext) -> Result<()> {
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
}

/// A value to encrypt, and the manifest's entry for it.
struct Sealed {
    name: String,
    context: Pairs,
    content: Content,
    place: Place,
    accept: Vec<String>,
}

impl Sealed {
    pub(crate) fn text(name: &str, context: Pairs, text: &str, place: Place) -> Self {
        Self {
            name: name.into(),
            context,
            content: Content::Text(text.into()),
            place,
            accept: Vec::new(),
        }
    }
}

pub(crate) fn row(parts: Vec<Part>) -> Place {
    Place::Field {
        table: "users".into(),
        column: "ssn".into(),
        row: parts,
        path: Vec::new(),
    }
}

pub(crate) fn own((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

pub(crate) fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().copied().map(own).collect()
}

pub(crate) fn pairs(context: Pairs) -> EncryptionContext {
    manifest::context(&map(context)).unwrap()
}

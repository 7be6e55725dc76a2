//! A release's `manifest.json`: each golden file, and the value that it opens to or the refusal.
//!
//! Shared by `tests/golden.rs`, which reads manifests, and `xtask`, which writes one. Contexts and places are
//! structured values, so that every reader frames them itself.

use std::collections::BTreeMap;

use encx::{ContextError, EncryptionContext};
use serde::{Deserialize, Serialize};

/// The golden files of one release.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub(crate) release: String,
    pub(crate) kek_files: Vec<KekFileCase>,
    pub(crate) wraps: Vec<WrapCase>,
    pub(crate) databases: Vec<Database>,
    pub(crate) ciphertexts: Vec<CiphertextCase>,
    pub(crate) refused_contexts: Vec<Vec<(String, String)>>,
    pub(crate) refused_places: Vec<Place>,
}

/// The result of an attempt. The codes of refusals are those of `docs/format.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Expected<T> {
    OpensTo(T),
    RefusedAs(String),
}

/// A change to make to a file before it is opened.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    /// Adds a byte.
    Append(u8),
    /// Adds zeros up to this length.
    Extend(usize),
    /// Flips a bit, counted from the first byte's lowest.
    FlipBit(usize),
    /// Keeps this many bytes.
    Keep(usize),
    /// Sets a byte.
    Set { at: usize, to: u8 },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KekFileCase {
    pub(crate) file: String,
    pub(crate) protection: ProtectedBy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) change: Option<Change>,
    /// Whether the checksum is recomputed after the change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) mend_checksum: bool,
    /// The file's permissions in octal. Git does not record them.
    pub(crate) mode: String,
    pub(crate) expect: Expected<Vec<Kek>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProtectedBy {
    FilePermissions,
    /// The text of a key, as in a file or a variable.
    Key(String),
    Passphrase(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kek {
    pub(crate) id: String,
    pub(crate) enabled: bool,
    pub(crate) default: bool,
    pub(crate) aliases: Vec<String>,
    pub(crate) materials: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrapCase {
    pub(crate) file: String,
    pub(crate) kek_file: String,
    pub(crate) kek: String,
    pub(crate) context: BTreeMap<String, String>,
    pub(crate) usage: String,
    pub(crate) key_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) change: Option<Change>,
    /// The data key in hex.
    pub(crate) expect: Expected<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Database {
    pub(crate) file: String,
    /// The KEK file of each KMS, by name.
    pub(crate) kms: BTreeMap<String, String>,
    pub(crate) keys: Vec<Key>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) context: BTreeMap<String, String>,
    pub(crate) usage: String,
    pub(crate) version: u32,
    pub(crate) state: String,
    pub(crate) suspended_from: Option<String>,
    pub(crate) wraps: Vec<Wrap>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wrap {
    pub(crate) kms: String,
    pub(crate) kek: String,
    pub(crate) material: String,
    /// The data key in hex.
    pub(crate) expect: Expected<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CiphertextCase {
    pub(crate) file: String,
    pub(crate) database: String,
    pub(crate) context: BTreeMap<String, String>,
    pub(crate) place: Place,
    /// What else the reader accepts: `uncommitted`, `compromised`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) accept: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) change: Option<Change>,
    /// A change to make to the database first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sql: Option<String>,
    pub(crate) expect: Expected<Content>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Content {
    /// This many bytes: each is its offset modulo 251.
    Counting(usize),
    Hex(String),
    Text(String),
}

impl Content {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Counting(len) => (0..=250).cycle().take(*len).collect(),
            Self::Hex(hex) => unhex(hex),
            Self::Text(text) => text.clone().into_bytes(),
        }
    }
}

/// The parts of an AAD.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Place {
    Field {
        table: String,
        column: String,
        row: Vec<Part>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        path: Vec<String>,
    },
    Free {
        parts: Vec<Part>,
    },
    Unbound,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    /// In hex.
    Bytes(String),
    /// In decimal: JSON's numbers are too small.
    Integer(String),
    Text(String),
    Uuid(String),
}

pub(crate) fn context(pairs: &BTreeMap<String, String>) -> Result<EncryptionContext, ContextError> {
    EncryptionContext::from_pairs(pairs.clone())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "half a byte of hex");
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

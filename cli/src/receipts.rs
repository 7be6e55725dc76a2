//! Shredding receipts: a folder of JSON files, each with the digest of the previous one.
//!
//! A file name consists of the receipt's number and the first digits of its digest, so a change to the last file is
//! found too. Removing the last files is not detected: record [`Receipts::digest`] elsewhere.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use encx::EncryptionContext;
use encx::store::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

const FORMAT: &str = "encx/shred-receipt/1";

/// Maximum size of a receipt in bytes.
const MAX_LEN: u64 = 1 << 20;

/// Prefix of this program's other files in the folder.
const OWN: &str = ".encx-";

/// A record of one shredding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Receipt {
    pub(crate) format: String,
    /// Counted from 1, without gaps.
    pub(crate) number: u32,
    /// SHA-256 of the previous file in hexadecimal; `None` for the first.
    pub(crate) previous: Option<String>,
    /// The receipt whose versions were destroyed again after a restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replay_of: Option<u32>,
    pub(crate) context: BTreeMap<String, String>,
    pub(crate) reason: String,
    pub(crate) by: Option<String>,
    pub(crate) shredded_at: String,
    pub(crate) versions: Vec<Version>,
    pub(crate) processes: Processes,
    pub(crate) keks: Vec<Kek>,
    /// Rows that the versions encrypted; `None` if no column was declared.
    pub(crate) rows: Option<Vec<Counted>>,
    pub(crate) survives: Vec<String>,
}

/// A destroyed version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Version {
    pub(crate) id: String,
    pub(crate) usage: String,
    pub(crate) version: u32,
    pub(crate) destroyed_at: String,
}

/// Whether a process may still read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Processes {
    pub(crate) complete: bool,
    pub(crate) serves_until: Option<String>,
    /// Why this is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unknown: Option<String>,
}

/// A KEK that wrapped a version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kek {
    pub(crate) kms: String,
    pub(crate) kek: String,
}

/// The number of rows of a column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Counted {
    pub(crate) table: String,
    pub(crate) column: String,
    pub(crate) rows: u64,
}

/// The receipts of a folder with a complete chain.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    /// In number order.
    pub(crate) list: Vec<Receipt>,
    digest: Option<String>,
}

/// A folder that this process has locked to add receipts.
#[derive(Debug)]
pub(crate) struct ReceiptFolder {
    path: PathBuf,
    pub(crate) receipts: Receipts,
    /// Holds the lock until it is dropped.
    _lock: File,
}

/// Why receipts cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiptError {
    #[error("the receipt {file} was changed: its bytes are not those that its name was made of")]
    Changed { file: String },
    #[error("{file} is no receipt: keep other files elsewhere")]
    Foreign { file: String },
    #[error("the receipt {file} cannot be read: {what}")]
    Format { file: String, what: String },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("another process writes receipts to {}: try again when it has ended", path.display())]
    Locked { path: PathBuf },
    #[error("receipt number {number} is missing before {file}: restore it from a copy of the folder")]
    Missing { number: u32, file: String },
    #[error("the receipt {file} does not follow the one before it: one of the two was replaced or renamed")]
    Unchained { file: String },
}

impl Receipts {
    /// Reads a folder and checks that every receipt is present and unchanged.
    ///
    /// # Errors
    ///
    /// A [`ReceiptError`] that names the file. A folder without receipts is not an error.
    pub(crate) fn read(folder: &Path) -> Result<Self, ReceiptError> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(failed(folder))? {
            let entry = entry.map_err(failed(folder))?;
            let file = entry.file_name().to_string_lossy().into_owned();
            if file.starts_with(OWN) {
                continue;
            }
            let is_file = entry.file_type().map_err(failed(folder))?.is_file();
            match number_of(&file).filter(|_| is_file) {
                Some(number) => files.push((number, file)),
                None => return Err(ReceiptError::Foreign { file }),
            }
        }
        files.sort_unstable();
        let mut receipts = Self::default();
        for (number, file) in files {
            let expected = receipts.next_number();
            if number < expected {
                // Two files have one number, so one was added.
                return Err(ReceiptError::Unchained { file });
            }
            if number > expected {
                let number = expected;
                return Err(ReceiptError::Missing { number, file });
            }
            let bytes = read_file(&folder.join(&file))?;
            let digest = digest_of(&bytes);
            if file != name_of(number, &digest) {
                return Err(ReceiptError::Changed { file });
            }
            let receipt = parse(&bytes, &file)?;
            if receipt.number != number || receipt.previous != receipts.digest {
                return Err(ReceiptError::Unchained { file });
            }
            receipts.list.push(receipt);
            receipts.digest = Some(digest);
        }
        Ok(receipts)
    }

    /// Returns the digest of the last receipt, which covers all of them.
    pub(crate) fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    fn next_number(&self) -> u32 {
        self.list.last().map_or(1, |last| last.number.saturating_add(1))
    }
}

impl ReceiptFolder {
    /// Opens a folder to add receipts, and creates it if missing.
    ///
    /// # Errors
    ///
    /// As [`Receipts::read`], and [`ReceiptError::Locked`] while another process has it open.
    pub(crate) fn open(path: &Path) -> Result<Self, ReceiptError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path).map_err(failed(path))?;
        let lock = path.join(".encx-lock");
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let lock = options.open(&lock).map_err(failed(&lock))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                let path = path.to_owned();
                return Err(ReceiptError::Locked { path });
            }
            Err(std::fs::TryLockError::Error(source)) => return Err(failed(path)(source)),
        }
        Ok(Self {
            receipts: Receipts::read(path)?,
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Numbers a receipt, writes it durably, and returns its file.
    ///
    /// # Errors
    ///
    /// [`ReceiptError::Io`]; the folder is then unchanged.
    pub(crate) fn add(&mut self, mut receipt: Receipt) -> Result<PathBuf, ReceiptError> {
        FORMAT.clone_into(&mut receipt.format);
        receipt.number = self.receipts.next_number();
        receipt.previous.clone_from(&self.receipts.digest);
        let mut bytes = serde_json::to_vec_pretty(&receipt)
            .map_err(|error| failed(&self.path)(io::Error::other(error)))?;
        bytes.push(b'\n');
        let digest = digest_of(&bytes);
        let path = self.path.join(name_of(receipt.number, &digest));
        write_whole(&self.path, &path, &bytes).map_err(failed(&path))?;
        self.receipts.list.push(receipt);
        self.receipts.digest = Some(digest);
        Ok(path)
    }

    /// Returns the path of one of this program's own files in the folder.
    pub(crate) fn own_file(&self, name: &str) -> PathBuf {
        self.path.join(format!("{OWN}{name}"))
    }
}

impl Receipt {
    /// Returns the context whose keys were destroyed.
    pub(crate) fn encryption_context(&self) -> Result<EncryptionContext, ReceiptError> {
        EncryptionContext::from_pairs(&self.context).map_err(|error| ReceiptError::Format {
            file: format!("number {}", self.number),
            what: error.to_string(),
        })
    }

    /// Returns when the last version was destroyed, by the key store's clock.
    pub(crate) fn shredded_at(&self) -> Option<Timestamp> {
        let at = humantime::parse_rfc3339(&self.shredded_at).ok()?;
        let since = at.duration_since(UNIX_EPOCH).ok()?;
        i64::try_from(since.as_micros()).ok().map(Timestamp::from_micros)
    }
}

/// Formats a time to the microsecond, the precision of stores.
pub(crate) fn exact_moment(at: Timestamp) -> String {
    humantime::format_rfc3339_micros(SystemTime::from(at)).to_string()
}

/// Writes a new file atomically, readable only by this user. Overwrites no file.
pub(crate) fn write_whole(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new()
        .prefix(OWN)
        .suffix(".tmp")
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    // Makes the file's name durable too.
    File::open(folder)?.sync_all()
}

fn digest_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn name_of(number: u32, digest: &str) -> String {
    format!("{number:04}-{}.json", digest.get(..8).unwrap_or(digest))
}

/// Parses the number in a receipt's name.
fn number_of(file: &str) -> Option<u32> {
    let (number, digest) = file.strip_suffix(".json")?.split_once('-')?;
    let number = number.parse().ok()?;
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (digest.len() == 8 && digest.bytes().all(is_hex) && file == name_of(number, digest)).then_some(number)
}

fn read_file(path: &Path) -> Result<Vec<u8>, ReceiptError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed(path))?;
    file.take(MAX_LEN + 1)
        .read_to_end(&mut bytes)
        .map_err(failed(path))?;
    if bytes.len() as u64 > MAX_LEN {
        return Err(ReceiptError::Format {
            file: path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            what: format!("it has more than {MAX_LEN} bytes"),
        });
    }
    Ok(bytes)
}

fn parse(bytes: &[u8], file: &str) -> Result<Receipt, ReceiptError> {
    #[derive(Deserialize)]
    struct OfFormat {
        format: String,
    }
    let refused = |what: String| ReceiptError::Format {
        file: file.to_owned(),
        what,
    };
    let of: OfFormat = serde_json::from_slice(bytes).map_err(|error| refused(error.to_string()))?;
    if of.format != FORMAT {
        let found = of.format;
        return Err(refused(format!(
            "its format is {found:?}, and this program knows {FORMAT:?}"
        )));
    }
    serde_json::from_slice(bytes).map_err(|error| refused(error.to_string()))
}

fn failed(path: &Path) -> impl Fn(io::Error) -> ReceiptError {
    let path = path.to_owned();
    move |source| ReceiptError::Io {
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests;
